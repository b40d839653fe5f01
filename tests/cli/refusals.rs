//! What is refused, with which exit code, and that it says what to do about it.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_undone_is_asked_or_refused() {
    let scene = Scene::new().await;
    let task = scene.task().await;
    scene.enroll(&task, "identity").await;
    let agent = scene.run("agent list -o name").await.good();
    let token = scene.run("enrollment-token list -o name").await.good();
    scene.run("api-key create -o value").await.good();
    let key = scene.run("api-key list -o name").await.good();
    scene
        .run_with("credential set --provider demo --org-owned", "a-key-0123456789")
        .await
        .good();
    let credential = scene.run("credential list -o name").await.good();
    for line in [
        format!("task end {task}"),
        format!("agent revoke {agent}"),
        format!("enrollment-token revoke {token}"),
        format!("api-key revoke {key}"),
        format!("credential remove {credential}"),
        "context remove test".to_owned(),
    ] {
        // Nobody at a terminal: a `y` on a pipe is no answer.
        let refused = scene.run_with(&line, "y\n").await;
        refused.bad(64, &["not done without asking", "--yes"]);
    }
    scene
        .run(&format!("resolve --identity identity --task {task}"))
        .await
        .good();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_says_what_why_what_to_do_and_where() {
    let scene = Scene::new().await;
    let address = scene.broker.address.to_string();
    let at = format!("broker: {address} (context test)");
    let missing = scene.run("member show nobody").await;
    let said = missing.bad(
        1,
        &[
            "error: no such member\n",
            "reason: NOT_FOUND\n",
            "what to do: ",
            &at,
        ],
    );
    assert_eq!(
        said.matches("member").count(),
        1,
        "nothing is told twice:\n{said}"
    );
    let wrong = scene.run("agent show nothing").await;
    let said = wrong.bad(64, &["reason: INVALID_ARGUMENT\n", "agt_", &at]);
    assert_eq!(said.matches("agt_").count(), 1, "nothing is told twice:\n{said}");

    // Usage: told by the program itself.
    scene.run("member").await.bad(64, &["Usage:"]);
    scene
        .run("member create Not_A_Name")
        .await
        .bad(64, &["reason: INVALID_ARGUMENT"]);
    scene.run("org list --limit 0").await.bad(64, &["--limit"]);

    // Nobody there.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let unreachable = scene.run(&format!("whoami --address {free}")).await;
    unreachable.bad(
        69,
        &["cannot connect", "Check that the broker runs", &free.to_string()],
    );

    // A token that is none, and one that is another kind.
    scene.user.file("none", "cbo_0000", 0o600);
    scene
        .run("whoami --token-file none")
        .await
        .bad(77, &["CREDENTIAL_MALFORMED", &at]);
    let mint = "enrollment-token create --project web --environment ci -o value";
    scene.user.file("kind", &scene.run(mint).await.good(), 0o600);
    scene
        .run("whoami --token-file kind")
        .await
        .bad(77, &["WRONG_CREDENTIAL_FAMILY"]);
}

// req: D1
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_others_can_read_is_refused() {
    let scene = Scene::new().await;
    for mode in [0o640, 0o604, 0o666] {
        let token = scene.user.file("token", scene.broker.operator_token(), mode);
        let told = [format!("mode {mode:o}"), format!("chmod 600 {token}")];
        for line in [
            "whoami --token-file",
            "credential set --provider demo --org-owned --key-file",
        ] {
            let refused = scene.run(&format!("{line} {token}")).await;
            refused.bad(78, &[&told[0], &told[1]]);
        }
    }
    // Nor is there another way to put one on the command line.
    for line in [
        "whoami --token cbo_x",
        "credential set --provider demo --org-owned --key sk-x",
    ] {
        scene.run(line).await.bad(64, &["unexpected argument"]);
    }
}

//! Codes that are pasted: from a pipe, at a terminal, wrong ones, none at all, and giving up.

use super::*;
use crate::web::Browser;

const CONNECT: &str = "account connect demo --member alex --flow paste --code-stdin";

/// What the page shows when the person allows what the address asks for.
async fn code(address: &str) -> String {
    let page = Browser::of("alex").run(address).await;
    let shown = page.text.split("<pre>").nth(1).expect("a code");
    shown.split("</pre>").next().unwrap().to_owned()
}

// req: A7 C3
#[tokio::test(flavor = "multi_thread")]
async fn a_script_pastes_a_wrong_code_and_then_the_right_one() {
    let (scene, demo) = Scene::demo().await;
    let mut connect = scene.begin(&format!("{CONNECT} -o json")).await;
    let address = connect.line("http://").await;
    let code = code(&address).await;
    connect.give("a-code-of-mine#another-state").await;
    connect.line("Not taken").await;
    connect.give(&format!("  {code} ")).await;
    let ended = connect.end().await;
    assert!(!ended.err.contains(&code), "{}", ended.err);
    assert!(
        !ended.err.contains("CONNECTION_MISMATCH"),
        "an earlier try is over: {}",
        ended.err
    );
    let told = ended.json();
    assert_eq!(told["connection"]["state"], "connected");
    assert_eq!(told["executors"], serde_json::json!(["demo-agent"]));
    let credential = told["connection"]["credential"].as_str().unwrap();
    assert!(credential.starts_with("crd_"));
    assert_eq!(told["credential"]["id"], credential);
    drop(demo);
}

// req: C3
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_pipe_and_signals_cancel_the_connection() {
    let (scene, _demo) = Scene::demo().await;
    for (signal, code) in [(Some(Signal::INT), 130), (Some(Signal::TERM), 143), (None, 64)] {
        let mut connect = scene.begin(CONNECT).await;
        connect.line("http://").await;
        match signal {
            Some(signal) => connect.signal(signal),
            None => drop(connect.child.stdin.take()),
        }
        connect.end().await.bad(code, &["is cancelled"]);
        let all = scene.json("account connections").await;
        for connection in all.as_array().unwrap() {
            assert_eq!(connection["state"], "cancelled", "{all}");
        }
    }
}

// req: C3
#[tokio::test(flavor = "multi_thread")]
async fn one_that_expired_is_begun_anew() {
    let (scene, _demo) = Scene::demo().await;
    let mut connect = scene.begin(CONNECT).await;
    connect.line("http://").await;
    scene.clock.advance(std::time::Duration::from_secs(11 * 60));
    let told = connect
        .end()
        .await
        .bad(1, &["CONNECTION_EXPIRED", "credbroker account retry cnx_"]);
    let id = told.split("account retry ").nth(1).unwrap();
    let id = id.split('\'').next().unwrap();

    let mut again = scene.begin(&format!("account retry {id} --code-stdin")).await;
    let address = again.line("http://").await;
    again.give(&code(&address).await).await;
    let told = again.end().await.good();
    assert!(told.contains("crd_") && told.contains("demo-agent"), "{told}");
    let connection = scene.connection().await;
    assert_eq!(
        (&connection["state"], &connection["attempt"]),
        (&"connected".into(), &2.into())
    );
}

/// Who looks over the shoulder, or scrolls back, does not see the code.
// req: A7
#[tokio::test(flavor = "multi_thread")]
async fn at_a_terminal_the_code_is_not_shown() {
    let (scene, _demo) = Scene::demo().await;
    // A terminal of its own, from Python's library.
    let terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let mut command = scene.admin.command("python3");
    command.args(["-c", terminal, env!("CARGO_BIN_EXE_credbroker")]);
    command.args(words(
        "account connect demo --member alex --flow paste --no-browser --qr never",
    ));
    command.env("TERM", "xterm").stdin(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut shown = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    let mut until = async |wanted: &str, text: &mut String| {
        let reading = async {
            while !text.contains(wanted) {
                let some = shown.fill_buf().await.unwrap();
                assert!(!some.is_empty(), "it ended without '{wanted}':\n{text}");
                let length = some.len();
                text.push_str(&String::from_utf8_lossy(some));
                shown.consume(length);
            }
        };
        timeout(PATIENCE, reading).await.unwrap();
    };
    until("not shown", &mut text).await;
    let address = text.split_whitespace().find(|word| word.starts_with("http://"));
    let code = code(address.unwrap()).await;
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(format!("{code}\n").as_bytes()).await.unwrap();
    until("is done", &mut text).await;
    assert!(!text.contains(&code), "{text}");
    assert!(timeout(PATIENCE, child.wait()).await.unwrap().unwrap().success());
}

// req: A7
#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_can_paste_nothing_is_begun() {
    let (scene, _demo) = Scene::demo().await;
    scene
        .run("account connect demo --member alex")
        .await
        .bad(64, &["--code-stdin", "--flow"]);
    assert_eq!(scene.json("account connections").await, serde_json::json!([]));
    scene
        .run("account connect claude --member alex --flow device")
        .await
        .bad(1, &["CONNECTOR_DISABLED", "accept_terms"]);
}

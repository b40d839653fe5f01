//! AWS keys, bearer keys, keys for one executor, and identities from a file: by the command.

use serde_json::json;

use super::*;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

// req: B1 A4
#[tokio::test(flavor = "multi_thread")]
async fn aws_and_bearer_keys_are_stored_and_shown_without_their_secrets() {
    let scene = Scene::new().await;
    let set = "credential set --provider bedrock --org-owned --region us-east-1 -o json";
    let long_term = format!("{set} --aws --access-key-id AKIAABCDEFGHIJKLMNOP");
    let stored = scene.run_with(&long_term, &format!("{SECRET}\n")).await.json();
    assert_eq!(
        (&stored["kind"], &stored["region"], &stored["executor"]),
        (&json!("aws"), &json!("us-east-1"), &json!(""))
    );
    assert_eq!(
        (&stored["hint"], &stored["generation"]),
        (&json!("MNOP"), &json!(1))
    );

    // As the aws command prints temporary keys; the file says when they end.
    let credentials = json!({ "Credentials": {
        "AccessKeyId": "ASIAABCDEFGHIJKLMNOP", "SecretAccessKey": SECRET,
        "SessionToken": "the-session-token", "Expiration": "2999-01-02T03:04:05+00:00",
    } });
    scene.user.file("keys", &credentials.to_string(), 0o600);
    let replaced = scene
        .json(&format!("{} --aws --key-file keys", &set[..set.len() - 8]))
        .await;
    assert_eq!(
        (&replaced["id"], &replaced["generation"]),
        (&stored["id"], &json!(2))
    );
    assert_eq!(replaced["expire_time"], "2999-01-02T03:04:05Z");
    scene.user.file("session", "another-session-token", 0o600);
    let apart = "--aws --access-key-id ASIAABCDEFGHIJKLMNOP --session-token-file session --expires-in 1h";
    let replaced = scene.run_with(&format!("{set} {apart}"), SECRET).await.json();
    assert_eq!(replaced["generation"], 3);
    assert!(is_time(&replaced["expire_time"]), "{replaced}");

    let bearer = format!("{set} --bearer --executor claude-code");
    let bearer = scene
        .run_with(&bearer, "ABSKexample-of-a-bearer-key")
        .await
        .json();
    assert_eq!(
        (&bearer["kind"], &bearer["executor"]),
        (&json!("bedrock-bearer"), &json!("claude-code"))
    );
    let rows = scene.run("credential list").await.good();
    for told in [
        "EXECUTOR",
        "REGION",
        " aws ",
        " bedrock-bearer ",
        " claude-code ",
        " us-east-1 ",
    ] {
        assert!(rows.contains(told), "{told}: {rows}");
    }
    let shown = scene
        .run(&format!("credential show {}", text(&bearer["id"])))
        .await
        .good();
    assert!(
        shown.contains("claude-code") && shown.contains("us-east-1"),
        "{shown}"
    );
    let listed = scene.run("credential list -o json").await.good();
    for secret in [SECRET, "session-token", "ABSKexample"] {
        assert!(!listed.contains(secret), "{listed}");
    }
    let ways = scene.run("executor list").await.good();
    assert!(ways.contains(" bedrock-bearer "), "{ways}");
}

// req: B1 B9
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_key_is_told_without_it() {
    let scene = Scene::new().await;
    let set = "credential set --org-owned --region us-east-1 --provider";
    let id = "--access-key-id AKIAABCDEFGHIJKLMNOP";
    let json = json!({ "AccessKeyId": "ASIAABCDEFGHIJKLMNOP", "SecretAccessKey": SECRET }).to_string();
    for (line, input, told) in [
        (
            format!("{set} openai --aws {id}"),
            SECRET,
            "CREDENTIAL_KIND_UNSUPPORTED",
        ),
        (format!("{set} bedrock --aws"), SECRET, "--access-key-id"),
        (format!("{set} bedrock --aws"), &json, "session token"),
        (format!("{set} bedrock --aws {id}"), &json, "by options"),
        (
            format!("{set} bedrock --aws"),
            "{\"SecretAccessKey\": \"wJalrXUt",
            "line 1",
        ),
        (
            format!("{set} bedrock --bearer"),
            "AKIAABCDEFGHIJKLMNOP",
            "KEY_SHAPE_MISMATCH",
        ),
        (
            format!("{set} bedrock --bearer --executor nobody"),
            "ABSKabc",
            "EXECUTOR_UNKNOWN",
        ),
    ] {
        let said = scene.run_with(&line, input).await.bad(64, &[told]);
        assert!(!said.contains("wJalrXUt"), "{said}");
    }
    let bad_region = "credential set --org-owned --provider bedrock --bearer --region here";
    scene
        .run_with(bad_region, "ABSKabc")
        .await
        .bad(64, &["us-east-1"]);
}

// req: B8
#[tokio::test(flavor = "multi_thread")]
async fn identities_are_linked_from_a_file() {
    let scene = Scene::new().await;
    scene.run("member create kim").await.good();
    let file = "member,identity\nalex,github:octocat\nkim,\"linear:kim@example.org\"\n";
    scene.user.file("people.csv", file, 0o644);
    let link = "member link-identities --file people.csv";
    let dry = scene.run(&format!("{link} --dry-run")).await;
    assert!(
        dry.err.contains("2 would be linked, 0 linked already, 0 refused"),
        "{}",
        dry.err
    );
    assert_eq!(dry.good(), "");
    let identities =
        async |name: &str| scene.json(&format!("member show {name}")).await["identities"].clone();
    assert_eq!(identities("alex").await, json!([]));

    let done = scene.run(link).await;
    assert!(
        done.err.contains("2 linked, 0 linked already, 0 refused"),
        "{}",
        done.err
    );
    done.good();
    assert_eq!(identities("alex").await, json!(["github:octocat"]));
    assert_eq!(identities("kim").await, json!(["linear:kim@example.org"]));

    // A pipe, with some that are refused: the rest is linked, and the exit code says that something was.
    let more = "kim,github:octocat\nnobody,github:x\nkim,github:kim\nalex,github:octocat\n";
    let partly = scene.run_with("member link-identities --file -", more).await;
    assert_eq!(partly.code, Some(1), "{}", partly.err);
    assert!(
        partly.err.contains("1 linked, 1 linked already, 2 refused"),
        "{}",
        partly.err
    );
    assert!(partly.err.contains("2 of 4 links were refused"), "{}", partly.err);
    let rows = table(&partly.out);
    assert_eq!(rows.len(), 3, "{}", partly.out);
    assert_eq!(
        rows[1][..4],
        ["kim", "github:octocat", "refused", "ALREADY_EXISTS"]
    );
    assert_eq!(rows[2][..4], ["nobody", "github:x", "refused", "NOT_FOUND"]);
    assert_eq!(
        identities("kim").await,
        json!(["github:kim", "linear:kim@example.org"])
    );
    let again = scene
        .run_with("member link-identities --file - -o json", more)
        .await;
    assert_eq!(again.code, Some(1));
    let told: Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!((&told["linked"], &told["already_linked"]), (&json!(0), &json!(2)));
    assert_eq!(told["results"][2]["outcome"], "already-linked");

    let odd = scene
        .run_with("member link-identities --file -", "alex,github:new\nalex\n")
        .await;
    odd.bad(64, &["line 2", "nothing was linked"]);
    assert_eq!(identities("alex").await, json!(["github:octocat"]));
    scene
        .run("member link-identities --file missing")
        .await
        .bad(78, &["missing"]);
}

// req: C4
#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_tested_a_line_each_and_the_exit_code_tells() {
    // Nobody listens there.
    let registry = "[providers.openai.test.api-key]\nurl = \"http://127.0.0.1:1/v1/models\"\n";
    let scene = Scene::bare(Options {
        registry: registry.to_owned(),
        ..Options::default()
    })
    .await;
    scene.broker.prepare().await;
    let set = "credential set --org-owned -o json --provider";
    let key = "sk-proj-a-key-with-enough-letters";
    let dead = scene.run_with(&format!("{set} openai"), key).await.json();
    let none = scene
        .run_with(&format!("{set} demo"), "a-key-of-demo")
        .await
        .json();
    let (dead, none) = (dead["id"].as_str().unwrap(), none["id"].as_str().unwrap());

    let ended = scene.run("credential test --all").await;
    assert_eq!(ended.code, Some(69), "{}{}", ended.out, ended.err);
    let lines: Vec<_> = ended.out.lines().collect();
    assert_eq!(lines.len(), 2, "{}{}", ended.out, ended.err);
    let line = |id: &str| lines.iter().find(|line| line.contains(id)).unwrap().to_string();
    assert!(
        line(dead).starts_with("unreachable  "),
        "{}{}",
        ended.out,
        ended.err
    );
    assert!(
        line(none).starts_with("untestable   "),
        "{}{}",
        ended.out,
        ended.err
    );
    assert!(!ended.out.contains(key) && !ended.err.contains(key));

    let ended = scene.run(&format!("credential test {none}")).await;
    assert_eq!(ended.code, Some(1), "{}{}", ended.out, ended.err);
    let ended = scene.run("credential test --all --member alex -o json").await;
    assert_eq!(ended.json(), json!([]));
    let ended = scene.run(&format!("credential test {dead} -o json")).await;
    assert_eq!(ended.code, Some(69));
    let told: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(told[0]["outcome"], "unreachable");
    assert_eq!(scene.run("credential test").await.code, Some(64));
}

//! The journal as operators read, keep and check it with the command.

use std::fs;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::*;
use credbroker::domain::journal::Action;

/// A scene whose journal has several small segments.
async fn filled() -> Scene {
    let options = Options {
        journal_segment_bytes: Some(4_096),
        ..Options::default()
    };
    let scene = Scene::bare(options).await;
    scene.broker.prepare().await;
    scene.task().await;
    for _ in 0..60 {
        scene
            .broker
            .broker
            .record_lifecycle(Action::BrokerStart)
            .await
            .unwrap();
    }
    scene
}

/// The operator as one who means no org: a context without one.
async fn of_all_orgs(scene: &Scene) {
    let (address, pin) = (scene.broker.address.to_string(), &scene.broker.pin);
    let add = format!("context add all --address {address} --ca-pin {pin}");
    scene.run_with(&add, scene.broker.operator_token()).await.good();
    scene.run("context use all").await.good();
}

async fn public_key(scene: &Scene) -> String {
    text(&scene.json("journal head").await["public_key"]).to_owned()
}

// req: N6 K6
#[tokio::test(flavor = "multi_thread")]
async fn records_are_listed_by_what_they_are_about() {
    let scene = filled().await;
    let member = scene.json(&format!("member show {MEMBER}")).await;
    let listed = scene
        .json(&format!("journal list --member {MEMBER} --action task.create"))
        .await;
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 2, "{listed:?}");
    for record in listed {
        assert_eq!(
            (&record["action"], &record["subject"]["member"]),
            (&json!("task.create"), &member["id"])
        );
        assert!(is_time(&record["time"]));
    }
    let task = text(&listed[0]["subject"]["task"]);
    let of_task = scene
        .run(&format!(
            "journal list --task {task} --since 1h --limit 1 -o name"
        ))
        .await;
    assert_eq!(of_task.good(), format!("{}\n", listed[0]["position"]));
    assert_eq!(
        scene.json("journal list --until 2020-01-01T00:00:00Z").await,
        json!([])
    );
    assert_eq!(scene.json("journal list --outcome denied").await, json!([]));
    scene
        .run("journal list --reason NONE")
        .await
        .bad(64, &["INVALID_ARGUMENT", "filter.reason"]);
    scene
        .run("journal list --since yesterday")
        .await
        .bad(64, &["--since"]);
    // What concerns no org is seen where none is meant.
    let starts = "journal list --action broker.start";
    assert_eq!(scene.json(starts).await, json!([]));
    of_all_orgs(&scene).await;
    assert!(scene.json(starts).await.as_array().unwrap().len() > 60);
}

// req: N6 K6
#[tokio::test(flavor = "multi_thread")]
async fn records_are_followed_a_line_each() {
    let scene = filled().await;
    of_all_orgs(&scene).await;
    let followed = scene
        .run("journal follow --after 0 --action task.create --limit 2 -o json")
        .await
        .good();
    let lines: Vec<Value> = followed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (&lines[0]["phase"], &lines[1]["phase"]),
        (&json!("begin"), &json!("finish"))
    );

    // One that waits is told what comes, and why it ends.
    let mut command = scene.user.command(env!("CARGO_BIN_EXE_credbroker"));
    command.args(words("journal follow --after 0 --action member.create"));
    let spawning = user::SPAWNING.read().await;
    let mut child = command.spawn().unwrap();
    drop(spawning);
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = async || {
        let line = tokio::time::timeout(user::PATIENCE, out.next_line()).await;
        line.expect("no line").unwrap().unwrap()
    };
    for phase in ["begin", "finish"] {
        let line = line().await;
        assert!(
            line.contains(&format!(" member.create {phase} allowed actor=opr_")),
            "{line}"
        );
    }
    scene.run(&format!("member create kim --org {ORG}")).await.good();
    let begun = line().await;
    assert!(
        begun.contains("member.create begin") && begun.contains(" mbr=mbr_"),
        "{begun}"
    );
    line().await;
    scene.broker.stop().await;
    let ended = tokio::time::timeout(user::PATIENCE, child.wait_with_output()).await;
    let ended = ended.expect("it does not end").unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(69), "{told}");
    assert!(
        told.contains("SHUTTING_DOWN") && told.contains("go on with --after "),
        "{told}"
    );
}

// req: N6
#[tokio::test(flavor = "multi_thread")]
async fn an_export_verifies_without_a_broker_and_says_where_it_is_broken() {
    let scene = filled().await;
    let key = public_key(&scene).await;
    scene.run("journal export -o whole.jsonl").await.good();
    scene
        .run("journal export -o whole.jsonl")
        .await
        .bad(64, &["is there already"]);
    scene.run("member create kim").await.good();
    // The head of a later day, kept elsewhere.
    scene.run("journal export --after 10 -o part.jsonl").await.good();
    let head = scene.run("journal head --line").await.good();
    scene.user.file("heads", &head, 0o600);
    let piped = scene.run("journal export").await.good();
    let api_key = scene.broker.operator().await.make_api_key(ORG).await.1;
    let token = scene.user.file("api-key", &api_key, 0o600);
    scene
        .run(&format!("journal export --token-file {token}"))
        .await
        .bad(77, &["WRONG_CREDENTIAL_FAMILY"]);

    let Scene { broker, user } = scene;
    broker.stop().await;
    let verify = async |file: &str, more: &str| {
        let line = format!("journal verify {file} --public-key {key} {more}");
        user.credbroker(&words(&line)).await
    };
    let whole = verify("whole.jsonl", "-o json").await.json();
    assert_eq!(
        (&whole["result"], &whole["first"], &whole["unproven_records"]),
        (&json!("OK"), &json!(1), &json!(0))
    );
    assert_eq!(
        (&whole["last"], &whole["records"]),
        (&whole["proven"], &whole["proven"])
    );
    assert!(whole["allowed"].as_u64().unwrap() > 60 && is_time(&whole["last_time"]));
    let people = verify("part.jsonl", "--heads heads").await;
    assert!(
        people.err.contains("a part: it begins after position 10"),
        "{}",
        people.err
    );
    let people = people.good();
    assert!(
        people.contains("OK") && people.contains("first") && people.contains("11"),
        "{people}"
    );
    let line = format!("journal verify - --public-key {key} -o json");
    let piped = user.credbroker_with(&words(&line), &piped).await.json();
    assert!(piped["last"].as_u64() > whole["last"].as_u64());

    // Cut off at the end: only who kept a later head sees it.
    verify("whole.jsonl", "--heads heads")
        .await
        .bad(1, &["was signed, and the export ends at"]);
    let lines = fs::read_to_string(user.path("whole.jsonl")).unwrap();
    let lines: Vec<&str> = lines.lines().collect();
    let file = |name: &str, lines: &[&str]| user.file(name, &lines.join("\n"), 0o600);
    let dropped = file("dropped", &[&lines[..20], &lines[21..]].concat());
    verify(&dropped, "")
        .await
        .bad(1, &["line 21, where position 20 is expected", "another position"]);
    let changed = lines[20].replace("broker", "bro-er");
    assert_ne!(changed, lines[20]);
    let changed = file(
        "changed",
        &[&lines[..20], &[changed.as_str()], &lines[21..]].concat(),
    );
    verify(&changed, "-o json")
        .await
        .bad(1, &["line 21, where position 20 is expected", "chain is broken"]);
    let headless = file("headless", &lines[..lines.len() - 1]);
    verify(&headless, "").await.bad(1, &["no signed head covers"]);
    let other = format!("journal verify whole.jsonl --public-key {}", "00".repeat(32));
    user.credbroker(&words(&other))
        .await
        .bad(1, &["not signed by the given key"]);
    let short = format!("journal verify whole.jsonl --public-key {}", &key[2..]);
    user.credbroker(&words(&short))
        .await
        .bad(64, &["64 hexadecimal digits"]);
    verify("nowhere", "").await.bad(64, &["cannot read nowhere"]);
    verify("whole.jsonl", "--heads whole.jsonl")
        .await
        .bad(1, &["whole.jsonl does not hold: head 1"]);
}

// req: N6
#[tokio::test(flavor = "multi_thread")]
async fn old_records_are_pruned_and_exports_begin_at_the_anchor() {
    let scene = filled().await;
    let key = public_key(&scene).await;
    scene.run("journal export -o before.jsonl").await.good();
    let planned = scene.json("journal prune --before-position 40 --dry-run").await;
    assert!(planned["records"].as_u64().unwrap() > 10, "{planned}");
    scene
        .run("journal prune --before-position 40")
        .await
        .bad(64, &["--yes", "for good"]);
    scene.run("journal prune --yes").await.bad(64, &["--before"]);
    let unchanged = scene.json("journal prune --before-position 40 --dry-run").await;
    assert_eq!(unchanged, planned);
    let pruned = scene.json("journal prune --before-position 40 --yes").await;
    assert_eq!(pruned["pruned_position"], planned["pruned_position"]);
    assert_eq!(pruned["anchor_position"], planned["pruned_position"]);
    let again = scene
        .run("journal prune --before 2020-01-01T00:00:00Z --yes")
        .await;
    assert!(again.err.contains("nothing can go"), "{}", again.err);
    again.good();

    let exported = scene.run("journal export --after 3 -o after.jsonl").await;
    let told = format!("records up to {} were pruned", pruned["anchor_position"]);
    assert!(exported.err.contains(&told), "{}", exported.err);
    exported.good();
    let verify = async |file: &str| {
        let line = format!("journal verify {file} --public-key {key} -o json");
        scene.user.credbroker(&words(&line)).await.json()
    };
    let (before, after) = (verify("before.jsonl").await, verify("after.jsonl").await);
    assert_eq!(
        (&before["pruned_before"], &after["pruned_before"]),
        (&json!(false), &json!(true))
    );
    let first_kept = pruned["pruned_position"].as_u64().unwrap() + 1;
    assert_eq!(after["first"].as_u64(), Some(first_kept));
    // The archive and the kept part are of one chain.
    let line_of = |name: &str, position: u64| {
        let text = fs::read_to_string(scene.user.path(name)).unwrap();
        let record = format!("\"record\":{{\"position\":{position},");
        text.lines()
            .find(|line| line.contains(&record))
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        line_of("before.jsonl", first_kept),
        line_of("after.jsonl", first_kept)
    );
}

//! What operators do: each noun and verb, for people and for programs.

use serde_json::{Value, json};

use super::*;

// req: K6 K7
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_made_shown_listed_and_changed() {
    let scene = Scene::bare(Options::default()).await;
    let made = scene.run("org create acme --display-name Acme").await.good();
    assert!(made.contains("org_") && made.contains("Acme"), "{made}");
    scene.run("project create web").await.good();
    scene.run("environment create ci --project web").await.good();
    scene
        .run("member create alex --identity github:octocat")
        .await
        .good();

    for (noun, name, more) in [
        ("org", "acme", ""),
        ("project", "web", ""),
        ("environment", "ci", "--project web"),
        ("member", "alex", ""),
    ] {
        let shown = scene.json(&format!("{noun} show {name} {more}")).await;
        assert_eq!(shown["name"], name);
        assert!(is_time(&shown["create_time"]), "{shown}");
        let listed = scene.json(&format!("{noun} list")).await;
        assert_eq!(listed, json!([shown]), "{noun}");
        assert_eq!(
            scene.run(&format!("{noun} list -o name")).await.good(),
            format!("{name}\n")
        );
        let rows = scene.run(&format!("{noun} list")).await.good();
        let rows = table(&rows);
        assert_eq!((rows[0][0], rows[1][0]), ("NAME", name), "{rows:?}");

        let id = text(&shown["id"]);
        let update = format!("{noun} update {id} --display-name New");
        assert_eq!(scene.json(&update).await["display_name"], "New", "{noun}");
        assert_eq!(
            scene.json(&format!("{noun} show {id}")).await["display_name"],
            "New"
        );
    }
    // People read the project's name where the API has its id.
    let rows = scene.run("environment list").await.good();
    assert!(rows.contains(" web ") && !rows.contains("prj_"), "{rows}");
    let shown = scene.run("environment show ci --project web").await.good();
    assert!(shown.contains("web (prj_"), "{shown}");

    let member = scene.json("member update alex --no-identities").await;
    assert_eq!(
        (&member["identities"], &member["display_name"]),
        (&json!([]), &json!("New"))
    );
    for taken in ["org create acme", "project create web", "member create alex"] {
        scene.run(taken).await.bad(1, &["ALREADY_EXISTS"]);
    }
}

// req: K6 B8 D8
#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_made_assigned_and_ended() {
    let scene = Scene::new().await;
    scene
        .run("member update alex --identity github:octocat")
        .await
        .good();
    let create = "task create --member-identity github:octocat --project web --executor demo-agent";
    let task = scene
        .json(&format!("{create} --capacity local --ttl 2h --spec-hash abc"))
        .await;
    assert_eq!(
        (&task["capacity"], &task["spec_hash"]),
        (&json!("local"), &json!("abc"))
    );
    assert!(
        is_time(&task["expire_time"]) && task["end_time"].is_null(),
        "{task}"
    );
    let id = text(&task["id"]).to_owned();

    let other = scene.task().await;
    let enrolled = scene.enroll(&other, "identity").await;
    let agent = enrolled.split_whitespace().nth(2).unwrap();
    assert!(agent.starts_with("agt_"), "{enrolled}");
    let assigned = scene.json(&format!("task assign {id} --agent {agent}")).await;
    assert_eq!(assigned["agents"], json!([agent]));
    assert_eq!(scene.json(&format!("task show {id}")).await, assigned);
    let names = scene.run("task list -o name").await.good();
    assert_eq!(names, format!("{id}\n{other}\n"), "in order of making");
    let rows = scene.run("task list").await.good();
    assert!(
        rows.contains("EXPIRES") && rows.contains(" alex ") && !rows.contains("mbr_"),
        "{rows}"
    );

    let ended = scene.json(&format!("task end {id} --yes")).await;
    assert!(is_time(&ended["end_time"]), "{ended}");
    let resolve = format!("resolve --identity identity --task {id}");
    scene.run(&resolve).await.bad(1, &["TASK_ENDED"]);
}

// req: K7 D4 D6
#[tokio::test(flavor = "multi_thread")]
async fn enrollment_tokens_and_agents_are_made_listed_and_revoked() {
    let scene = Scene::new().await;
    let create = "enrollment-token create --project web --environment ci --label team=red";
    let minted = scene
        .json(&format!("{create} --count 2 --max-agents 3 --ttl 10m"))
        .await;
    assert_eq!(minted["ca_pin"], scene.broker.pin.as_str());
    let [first, second] = [0, 1].map(|i| minted["tokens"][i].clone());
    assert!(text(&first["token"]).starts_with("cbe_"));
    assert_eq!(first["enrollment_token"]["max_agents"], 3);
    let people = scene.run(create).await;
    assert!(
        people.err.contains("Shown this once") && people.err.contains("--ca-pin"),
        "{}",
        people.err
    );
    assert!(people.good().contains("cbe_"));

    let listed = scene.json("enrollment-token list").await;
    assert_eq!(listed.as_array().unwrap().len(), 3);
    assert!(!listed.to_string().contains("cbe_"), "{listed}");
    let id = text(&first["enrollment_token"]["id"]);
    let revoked = scene.json(&format!("enrollment-token revoke {id} --yes")).await;
    assert!(is_time(&revoked["revoke_time"]), "{revoked}");
    let (address, pin) = (scene.broker.address, &scene.broker.pin);
    let enroll = format!("enroll --address {address} --ca-pin {pin} --identity identity --attribute os=test");
    let refused = scene.run_with(&enroll, text(&first["token"])).await;
    refused.bad(
        77,
        &[
            "ENROLLMENT_TOKEN_REVOKED",
            "Ask for a new one",
            &address.to_string(),
        ],
    );
    // The key of the enrollment that was refused serves for the next.
    scene.run_with(&enroll, text(&second["token"])).await.good();
    let again = scene.run_with(&enroll, "").await.good();
    assert!(again.starts_with("enrolled already as agt_"), "{again}");

    let agents = scene.json("agent list").await;
    let agent = &agents[0];
    assert_eq!(
        (&agent["state"], &agent["labels"]["team"]),
        (&json!("active"), &json!("red"))
    );
    assert_eq!(agent["attributes"], json!({ "os": "test" }));
    let rows = scene.run("agent list").await.good();
    assert!(rows.contains("LAST SEEN") && rows.contains(" ci "), "{rows}");
    let id = text(&agent["id"]);
    assert_eq!(scene.json(&format!("agent show {id}")).await, *agent);
    assert_eq!(scene.json("whoami --identity identity").await["actor"], *id);

    let revoked = scene.json(&format!("agent revoke {id} --yes")).await;
    assert_eq!(revoked["agent"]["state"], "revoked");
    assert_eq!(revoked["outstanding"], json!([]));
    // It is not let in, which says no more than that.
    let outside = scene.run("whoami --identity identity").await;
    outside.bad(69, &["an agent that was revoked is not let in"]);
}

// req: D1 D3
#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_is_shown_once_and_ends_when_revoked() {
    let scene = Scene::new().await;
    let minted = scene.json("api-key create --display-name ci --ttl 24h").await;
    let key = text(&minted["token"]);
    assert!(
        key.starts_with("cbk_") && is_time(&minted["api_key"]["expire_time"]),
        "{minted}"
    );
    let listed = scene.run("api-key list -o json").await.good();
    assert!(listed.contains("\"ci\"") && !listed.contains("cbk_"), "{listed}");

    // As a service uses it: its own org is taken, and no operator's call.
    scene.user.file("key", key, 0o600);
    let me = scene.json("whoami --token-file key").await;
    assert_eq!(me["family"], "api-key");
    scene.run("task list --token-file key").await.good();
    scene
        .run("org create other --token-file key")
        .await
        .bad(77, &["reason: "]);

    let id = text(&minted["api_key"]["id"]);
    let revoked = scene.json(&format!("api-key revoke {id} --yes")).await;
    assert!(is_time(&revoked["revoke_time"]), "{revoked}");
    scene
        .run("whoami --token-file key")
        .await
        .bad(77, &["CREDENTIAL_UNKNOWN"]);
}

// req: B2 B9 C9 E7
#[tokio::test(flavor = "multi_thread")]
async fn a_credential_is_stored_from_standard_input_or_a_file_and_removed() {
    let options = Options {
        connectors: support::broker::connector("http://127.0.0.1:9/token", "cli", "sharing = \"personal\""),
        ..Options::default()
    };
    let scene = Scene::bare(options).await;
    scene.broker.prepare().await;
    let set = "credential set --provider demo";
    let piped = scene
        .run_with(&format!("{set} --member alex"), "a-key-on-a-pipe-6789\n")
        .await
        .good();
    assert!(piped.contains("6789") && piped.contains("alex (mbr_"), "{piped}");
    scene.user.file("key", "a-key-in-a-file-4321", 0o600);
    let stored = scene.json(&format!("{set} --org-owned --key-file key")).await;
    assert_eq!(
        (&stored["hint"], &stored["owner"]),
        (&json!("4321"), &json!({ "org": true }))
    );

    scene.user.file("access", "an-access-token", 0o600);
    let import =
        "credential import --connector demo --member alex --access-token-file access --expires-in 1h";
    let import = format!("{import} --scope read --account account_id=7 -o json");
    let imported = scene.run_with(&import, "a-refresh-token").await.json();
    assert_eq!(
        (&imported["kind"], &imported["scopes"]),
        (&json!("oauth-grant"), &json!(["read"]))
    );
    assert!(is_time(&imported["expire_time"]), "{imported}");

    let grant = text(&imported["id"]);
    let set = |cap: &str| format!("credential set-parallelism {grant} {cap}");
    let raised = scene.json(&set("7")).await;
    let told = json!({ "standing": 0, "cap": 7, "set": true });
    assert_eq!(raised["parallelism"], told);
    let shown = scene.run(&format!("credential show {grant}")).await.good();
    assert!(shown.contains("0 of 7"), "{shown}");
    let lowered = scene.json(&set("default")).await;
    assert_eq!(lowered["parallelism"]["cap"], json!(3));
    scene.run(&set("0")).await.bad(64, &["1 to 200, or default"]);

    let listed = scene.run("credential list -o json").await.good();
    for secret in [
        "a-key-on-a-pipe",
        "a-key-in-a-file",
        "an-access-token",
        "a-refresh-token",
    ] {
        assert!(!listed.contains(secret), "{secret} in {listed}");
    }
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 3);
    let rows = scene.run("credential list").await.good();
    assert!(rows.contains(" alex ") && rows.contains(" (the org) "), "{rows}");

    let id = text(&stored["id"]);
    let shown = scene.json(&format!("credential show {id}")).await;
    assert_eq!(shown["parallelism"], Value::Null);
    for (field, value) in stored.as_object().unwrap() {
        assert_eq!(&shown[field], value, "{field}");
    }
    let none = json!([]);
    assert_eq!((&shown["generations"], &shown["dependents"]), (&none, &none));
    let removed = scene.run(&format!("credential remove {id} --yes")).await.good();
    assert_eq!(removed, format!("removed {id}\n"));
    scene
        .run(&format!("credential show {id}"))
        .await
        .bad(1, &["NOT_FOUND"]);

    let mistaken = "credential set --provider anthropic --org-owned";
    let refused = scene
        .run_with(mistaken, "AIzaSyA1234567890abcdefghijklmnopqrstuv")
        .await;
    let said = refused.bad(64, &["KEY_SHAPE_MISMATCH", "--force"]);
    assert!(!said.contains("AIzaSy"), "{said}");
}

// req: N6
#[tokio::test(flavor = "multi_thread")]
async fn the_journal_is_listed_from_a_position_on() {
    let scene = Scene::new().await;
    let records = scene.json("journal list").await;
    let records = records.as_array().unwrap();
    let positions: Vec<_> = records
        .iter()
        .map(|record| record["position"].as_u64().unwrap())
        .collect();
    assert!(positions.len() > 4 && positions.is_sorted(), "{positions:?}");
    let record = &records[0];
    assert_eq!(record["action"], "org.create");
    assert!(
        is_time(&record["time"]) && !text(&record["chain"]).is_empty(),
        "{record}"
    );

    let rest = scene
        .json(&format!("journal list --after {} --limit 2", positions[0]))
        .await;
    let rest: Vec<_> = rest
        .as_array()
        .unwrap()
        .iter()
        .map(|record| record["position"].as_u64())
        .collect();
    assert_eq!(rest, [Some(positions[1]), Some(positions[2])]);
    let people = scene.run("journal list --limit 1").await;
    assert!(people.err.contains("there may be more"), "{}", people.err);
    let rows = people.good();
    let rows = table(&rows);
    assert_eq!(
        rows[0],
        [
            "POSITION", "TIME", "ACTION", "PHASE", "OUTCOME", "REASON", "ACTOR"
        ]
    );
    assert_eq!(rows.len(), 2);

    let head = scene.json("journal head").await;
    assert!(
        is_time(&head["time"]) && text(&head["signature"]).len() == 128,
        "{head}"
    );
    assert_eq!(text(&head["public_key"]).len(), 64);
}

//! `credbroker explain`, and what `credbroker resolve` shows of each kind of material.

use serde_json::json;

use super::*;

const KEY: &str = "the-members-key-6789";
const WHOM: &str = "--member alex --project web --executor";

/// Runs the command under a locale.
async fn run_in(scene: &Scene, locale: &str, line: &str) -> user::Ended {
    let mut command = scene.user.command(env!("CARGO_BIN_EXE_credbroker"));
    command.args(words(line)).env("LC_ALL", locale);
    scene.user.run(command).await
}

/// The line that begins so, as its words.
fn line<'a>(text: &'a str, begins: &str) -> Vec<&'a str> {
    let found = text.lines().find(|line| line.starts_with(begins));
    words(found.unwrap_or_else(|| panic!("no line begins with {begins:?}:\n{text}")))
}

// req: N5 E4 K6
#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_handed_out_is_explained_to_people_and_agents_and_nothing_is_written() {
    let scene = Scene::new().await;
    let set = "credential set --provider demo --member alex";
    scene.run_with(set, KEY).await.good();
    let task = scene.task().await;
    scene.enroll(&task, "identity").await;
    scene.run("whoami --identity identity").await.good();
    let before = scene.json("journal list").await;

    let explain = format!("explain {WHOM} demo-agent");
    let told = run_in(&scene, "C.UTF-8", &explain).await.good();
    assert_eq!(
        table(&told)[0],
        ["MODE", "REGISTRY", "SYSTEM", "ORG", "PROJECT"],
        "{told}"
    );
    let modes: Vec<_> = table(&told)[1..7].iter().map(|row| row.join(" ")).collect();
    assert_eq!(
        modes,
        [
            "oauth ✓ – – –",
            "byok ✓ – – –",
            "metered ✗ – – –",
            "shared ✗ – – –",
            "host-session ✗ – – –",
            "local ✗ – – –",
        ],
        "{told}"
    );
    assert_eq!(line(&told, "permitted"), ["permitted", "oauth,", "byok"]);
    assert_eq!(line(&told, "pick"), ["pick", "byok", "with", "demo"]);
    assert!(line(&told, "why").contains(&"CONNECT_ACCOUNT."), "{told}");
    assert!(
        line(&told, "owner").join(" ").starts_with("owner alex (mbr_"),
        "{told}"
    );
    let looked_at = told.split("LOOKED AT").nth(1).unwrap();
    for outcome in ["CONNECT_ACCOUNT", "chosen"] {
        assert!(looked_at.contains(outcome), "{told}");
    }
    assert!(!told.contains(KEY));

    let ascii = run_in(&scene, "C", &explain).await.good();
    assert!(ascii.is_ascii(), "{ascii}");
    assert_eq!(line(&ascii, "byok"), ["byok", "yes", "-", "-", "-"]);
    // An agent, of its own task.
    let agents = run_in(&scene, "C", "explain --identity identity").await.good();
    assert_eq!(line(&agents, "pick"), ["pick", "byok", "with", "demo"]);

    let after = scene.json("journal list").await;
    assert_eq!(before, after, "nothing is handed out or changed by asking why");
}

// req: N5 E3 E6 A1
#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_refused_is_explained_with_who_has_to_do_what() {
    let scene = Scene::new().await;
    let policy = "[orgs.acme]\n[[orgs.acme.matrix]]\nmodes = [\"oauth\"]\nverdict = \"deny\"\n\
                  [[orgs.acme.projects.web.matrix]]\nmodes = [\"byok\"]\nverdict = \"deny\"\n";
    let applied = scene.run_with("policy apply - --yes", policy).await.good();
    assert!(applied.starts_with("applied as version 1"), "{applied}");

    let explain = format!("explain {WHOM} demo-agent");
    let refused = run_in(&scene, "C.UTF-8", &explain).await;
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert_eq!(refused.err, "it would be refused\n");
    let told = &refused.out;
    assert_eq!(line(told, "oauth"), ["oauth", "✓", "–", "✗", "–"]);
    assert_eq!(line(told, "byok"), ["byok", "✓", "–", "–", "✗"]);
    assert_eq!(line(told, "permitted"), ["permitted", "none"]);
    assert_eq!(line(told, "refused"), ["refused", "AUTHMODES_UNSATISFIABLE"]);
    assert!(
        line(told, "message")
            .join(" ")
            .contains("the project denies byok"),
        "{told}"
    );
    assert_eq!(
        line(told, "to be mended by"),
        ["to", "be", "mended", "by", "admin"]
    );
    assert!(line(told, "what to do").len() > 5, "{told}");
    assert_eq!(line(told, "policy version"), ["policy", "version", "1"]);

    // At the scope of the system the matrix is told, and binds nobody; there is nothing to hand out all the same.
    let scoped = run_in(&scene, "C.UTF-8", &format!("{explain} --system-scope")).await;
    assert_eq!(scoped.code, Some(1), "{}", scoped.err);
    assert_eq!(line(&scoped.out, "oauth"), ["oauth", "✓", "–", "✗*", "–"]);
    assert!(
        scoped.out.contains("passed at the scope of the system"),
        "{}",
        scoped.out
    );
    assert_eq!(line(&scoped.out, "permitted"), ["permitted", "oauth,", "byok"]);

    // A pin that the matrix denies is no empty intersection.
    scene.run("executor pin duo-agent byok").await.good();
    let pinned = run_in(&scene, "C.UTF-8", &format!("explain {WHOM} duo-agent")).await;
    assert_eq!(pinned.code, Some(1), "{}", pinned.err);
    assert_eq!(table(&pinned.out)[0].last(), Some(&"EXECUTOR"));
    assert_eq!(line(&pinned.out, "byok"), ["byok", "✓", "–", "–", "✗", "✓"]);
    assert_eq!(line(&pinned.out, "oauth").last(), Some(&"✗"));
    assert_eq!(line(&pinned.out, "refused"), ["refused", "ACCESS_DENIED"]);

    // What there is nothing to decide about fails as it does elsewhere.
    let nobody = "explain --member nobody --project web --executor demo-agent";
    scene.run(nobody).await.bad(1, &["NOT_FOUND"]);
}

// req: N5 K6
#[tokio::test(flavor = "multi_thread")]
async fn an_explanation_for_programs_is_the_message() {
    let scene = Scene::new().await;
    let explain = format!("explain {WHOM} demo-agent");
    let refused = scene.run(&format!("{explain} -o json")).await;
    assert_eq!(refused.code, Some(1));
    let told: Value = serde_json::from_str(&refused.out).unwrap();
    assert_eq!(
        (&told["decision"]["allowed"], &told["decision"]["reason"]),
        (&json!(false), &json!("NO_CREDENTIAL_CONFIGURED"))
    );
    assert!(!text(&told["message"]).is_empty() && !text(&told["remedy"]).is_empty());

    scene
        .run_with("credential set --provider demo --org-owned", KEY)
        .await
        .good();
    let told = scene.json(&explain).await;
    let decision = &told["decision"];
    assert_eq!(
        (&decision["allowed"], &decision["mode"], &decision["owner"]),
        (&json!(true), &json!("byok"), &json!({ "org": true }))
    );
    assert_eq!(decision["fallback_reason"], "CONNECT_ACCOUNT");
    assert_eq!(decision["permit"][1]["kind"], "api-key");
    assert_eq!(decision["scopes"].as_array().unwrap().len(), 4 * 6);
    let chosen = decision["candidates"].as_array().unwrap().iter();
    let chosen: Vec<_> = chosen.filter(|one| one["chosen"] == json!(true)).collect();
    assert_eq!(chosen.len(), 1);
    assert_eq!(chosen[0]["credential"], decision["credential"]);
    assert_eq!((&told["message"], &told["fault"]), (&json!(""), &json!("")));

    let yaml = scene.run(&format!("{explain} -o yaml")).await.good();
    assert!(yaml.starts_with("decision:\n  allowed: true\n"), "{yaml}");
    let credential = format!("\n  credential: {}\n", decision["credential"]);
    assert!(yaml.contains(&credential), "{yaml}");
}

const EXECUTORS: &str = r#"
[executors.metered-agent]
native_provider = "demo"
providers = { demo = ["metered"] }
"#;

// req: B1 E8 E10 E11
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_material_is_shown_and_its_secrets_only_where_asked_for() {
    const AWS: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    let options = Options {
        config: "[proxy]\nbase_url = \"https://proxy.example/{provider}/v1\"\n".to_owned(),
        registry: EXECUTORS.to_owned(),
        ..Options::default()
    };
    let scene = Scene::bare(options).await;
    scene.broker.prepare().await;
    let key = scene.run("api-key create -o value").await.good();
    scene.user.file("key", &key, 0o600);
    let resolve = format!("resolve --token-file key {WHOM}");

    let set = "credential set --provider bedrock --member alex --region eu-west-1 --aws --access-key-id AKIAABCDEFGHIJKLMNOP";
    scene.run_with(set, AWS).await.good();
    let aws = format!("{resolve} claude-code --provider bedrock");
    let rows = scene.run(&aws).await.good();
    assert!(!rows.contains(AWS), "{rows}");
    assert_eq!(
        line(&rows, "access key id"),
        ["access", "key", "id", "AKIAABCDEFGHIJKLMNOP"]
    );
    assert_eq!(line(&rows, "region"), ["region", "eu-west-1"]);
    let hidden = scene.json(&aws).await;
    assert!(
        hidden["lease"]["material"]["secret_access_key"].is_null(),
        "{hidden}"
    );
    let shown = scene.json(&format!("{aws} --show-secret")).await;
    assert_eq!(
        shown["lease"]["material"],
        json!({ "access_key_id": "AKIAABCDEFGHIJKLMNOP", "secret_access_key": AWS, "region": "eu-west-1" })
    );

    let platform = "the-platforms-own-key-0001";
    scene
        .run_with("managed-key set metered demo", platform)
        .await
        .good();
    scene.run(&format!("credit add {ORG} 5")).await.good();
    // What an agent is handed in place of the key; the control plane would get the key itself.
    let create =
        format!("task create --member {MEMBER} --project {PROJECT} --executor metered-agent -o name");
    let task = scene.run(&create).await.good();
    scene.enroll(task.trim(), "identity").await;
    let rows = scene.run("resolve --identity identity").await.good();
    assert_eq!(
        line(&rows, "base url"),
        ["base", "url", "https://proxy.example/demo/v1"]
    );
    assert!(line(&rows, "proxy token").contains(&"(not"), "{rows}");
    let grant = scene.run("resolve --identity identity -o value").await.good();
    assert!(grant.starts_with("cbg_"), "{grant}");
    let shown = scene.json("resolve --identity identity --show-secret").await;
    assert!(text(&shown["lease"]["material"]["proxy_token"]).starts_with("cbg_"));
    assert!(!shown.to_string().contains(platform));

    // On the member's own machine, by what is told of it.
    let own = format!("{resolve} claude-code --capacity local");
    let session = scene.json(&format!("{own} --host-session")).await;
    assert_eq!(
        session["lease"]["material"],
        json!({ "host_session": "claude-code" })
    );
    let local = format!("{own} --provider ollama --local-endpoint http://127.0.0.1:11434");
    let endpoint = scene.json(&local).await;
    assert_eq!(
        endpoint["lease"]["material"],
        json!({ "base_url": "http://127.0.0.1:11434" })
    );
    let down = scene.run(&format!("{local} --local-endpoint-down")).await;
    down.bad(1, &["LOCAL_ENDPOINT_UNREACHABLE"]);
}

// req: E6
#[tokio::test(flavor = "multi_thread")]
async fn a_system_admin_resolves_at_the_scope_of_the_system_and_gets_nothing_of_a_members() {
    let scene = Scene::new().await;
    scene
        .run_with("credential set --provider demo --member alex", KEY)
        .await
        .good();
    let resolve = format!("resolve {WHOM} demo-agent");
    scene.run(&resolve).await.bad(77, &["PERMISSION_DENIED"]);
    let scoped = format!("{resolve} --system-scope");
    scene.run(&scoped).await.bad(1, &["NO_CREDENTIAL_CONFIGURED"]);
    scene
        .run_with(
            "credential set --provider demo --org-owned",
            "the-orgs-own-key-000",
        )
        .await
        .good();
    let value = scene.run(&format!("{scoped} -o value")).await.good();
    assert_eq!(value, "the-orgs-own-key-000\n");
}

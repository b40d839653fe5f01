//! The policy as a file: shown, compared, applied, and shown again.

use serde_json::json;

use super::*;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/policy.toml");

// req: E1 E2 E14 A1
#[tokio::test(flavor = "multi_thread")]
async fn the_worked_example_is_compared_applied_and_then_no_difference() {
    let scene = Scene::new().await;
    let diff = format!("policy diff {EXAMPLE}");
    let differs = scene.run(&diff).await;
    assert_eq!(differs.code, Some(2), "{}", differs.err);
    for told in [
        "system",
        "org acme",
        "org acme, project web",
        "+ deny metered (any provider) *",
        "+ pin codex to oauth",
        "+ profile default: oauth, byok; on rejection next",
        "Modes that change",
        "No agent at work is concerned",
    ] {
        assert!(differs.out.contains(told), "no '{told}' in\n{}", differs.out);
    }
    assert!(!differs.err.contains("error"), "{}", differs.err);
    let apply = format!("policy apply {EXAMPLE}");
    let refused = scene.run_with(&apply, "y\n").await;
    refused.bad(64, &["not done without asking", "--yes", "+ pin codex to oauth"]);
    let applied = scene.run(&format!("{apply} --yes")).await;
    assert_eq!(applied.good(), "applied as version 1\n");
    assert_eq!(scene.run(&diff).await.good(), "No difference.\n");
    assert_eq!(
        scene.run(&apply).await.good(),
        "No difference.\n",
        "nothing to ask"
    );
    let again = scene.json(&format!("{apply} --yes")).await;
    assert_eq!((&again["differs"], &again["version"]), (&json!(false), &json!(1)));
}

// req: E2
#[tokio::test(flavor = "multi_thread")]
async fn what_is_shown_is_a_file_that_changes_nothing() {
    let scene = Scene::new().await;
    scene.run(&format!("policy apply {EXAMPLE} --yes")).await.good();
    for line in ["policy show", "policy show --system"] {
        let shown = scene.run(line).await.good();
        let again = scene.run_with("policy diff -", &shown).await;
        assert_eq!(again.good(), "No difference.\n", "{shown}");
    }
    let shown = scene.run("policy show").await.good();
    assert!(
        shown.contains("[orgs.acme.profiles.default]") && shown.contains("[[orgs.acme.projects.web.matrix]]")
    );
    let json = scene.json("policy show").await;
    assert_eq!(json["orgs"]["acme"]["pins"], json!({ "codex": "oauth" }));
    // By a pipe, which leaves nobody to ask.
    let emptied = "[orgs.acme]\n";
    scene
        .run_with("policy apply -", emptied)
        .await
        .bad(64, &["not done without asking", "- pin codex to oauth"]);
    let change = scene
        .run_with("policy apply - --yes -o json", emptied)
        .await
        .json();
    assert_eq!(change["profiles"].as_array().unwrap().len(), 2);
    let shown = scene.run("policy show").await.good();
    assert!(
        shown.contains("[[orgs.acme.projects.web.matrix]]"),
        "not named, so kept: {shown}"
    );
}

// req: A3 E2
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_wrong_says_where_and_changes_nothing() {
    let scene = Scene::new().await;
    let line = "[orgs.acme]\n[[orgs.acme.matrix]]\nverdict = \"deny\"\nmodel = \"x\"\n";
    let unknown = scene.run_with("policy diff -", line).await;
    unknown.bad(
        64,
        &["standard input is no policy", "line 4", "unknown field `model`"],
    );
    let pinned = "[orgs.acme]\npins = { codex = \"local\" }\n";
    let refused = scene.run_with("policy apply - --yes", pinned).await;
    refused.bad(
        1,
        &[
            "MODE_UNSUPPORTED",
            "codex does not have local with openai",
            "org acme",
        ],
    );
    let missing = scene.run("policy diff nowhere.toml").await;
    missing.bad(78, &["nowhere.toml"]);
    assert_eq!(
        scene.json("policy show --system").await,
        json!({ "system": { "matrix": [] } })
    );
}

// req: E1 A1
#[tokio::test(flavor = "multi_thread")]
async fn profiles_and_pins_are_kept_by_their_nouns() {
    let scene = Scene::new().await;
    let create = "profile create fast --mode byok --mode oauth --on-rejection next --model demo=m-1";
    let made = scene.json(create).await;
    assert_eq!(made["modes"], json!(["oauth", "byok"]), "in the fixed order");
    assert_eq!(
        (&made["on_rejection"], &made["models"], &made["credential"]),
        (&json!("next"), &json!({ "demo": "m-1" }), &json!(null))
    );
    assert_eq!(scene.json("profile show fast").await, made);
    scene.run(create).await.bad(1, &["ALREADY_EXISTS"]);
    scene
        .run("profile create empty")
        .await
        .bad(64, &["name at least one"]);
    let changed = scene.json("profile update fast --mode byok").await;
    assert_eq!(
        (&changed["modes"], &changed["models"]),
        (&json!(["byok"]), &json!({ "demo": "m-1" }))
    );
    assert_eq!(scene.run("profile list -o name").await.good(), "fast\n");

    let line = format!("task create --member {MEMBER} --project {PROJECT} --executor demo-agent");
    scene
        .run(&format!("{line} --profile slow"))
        .await
        .bad(1, &["no such profile", "NOT_FOUND"]);
    let task = scene.run(&format!("{line} --profile fast -o name")).await.good();
    scene.enroll(task.trim(), "one").await;
    let agent = scene.run("agent list -o name").await.good();
    let asked = scene.run("profile remove fast").await;
    asked.bad(64, &["not done without asking", "first resolution", agent.trim()]);
    let pinned = scene.run("executor pin demo-agent oauth").await.good();
    assert!(pinned.contains("+ pin demo-agent to oauth"), "{pinned}");
    let wrong = scene.run("executor pin demo-agent shared").await;
    wrong.bad(1, &["MODE_UNSUPPORTED"]);
    let unpinned = scene.json("executor unpin demo-agent").await;
    assert_eq!(unpinned["pins"][0]["after"], "none");
    let removed = scene.run("profile remove fast --yes").await.good();
    assert!(removed.starts_with("removed, as version"), "{removed}");
    assert_eq!(scene.json("profile list").await, json!([]));
}

//! `credbroker account list`, as a member and as an admin see it.

use super::*;

impl Scene {
    /// The prepared member's user account, with a token of the member's own.
    async fn member(&self) -> User {
        let line = format!("operator-token create --member {MEMBER} -o value");
        let token = self.run(&line).await.good();
        let user = User::new();
        let address = self.broker.address.to_string();
        user.connect(&address, &self.broker.pin, ORG, token.trim()).await;
        user
    }
}

async fn demo_agent(user: &User, more: &[&str]) -> Value {
    let line = [&["account", "list", "-o", "json"], more].concat();
    let all = user.credbroker(&line).await.json();
    let mut rows = all.as_array().unwrap().iter();
    rows.find(|row| row["executor"] == "demo-agent").unwrap().clone()
}

// req: A9 A6
#[tokio::test(flavor = "multi_thread")]
async fn a_member_sees_what_to_connect_and_an_admin_every_fault() {
    let (scene, _demo) = Scene::demo().await;
    let member = scene.member().await;
    let row = demo_agent(&member, &[]).await;
    assert_eq!(row["state"], "connect");
    assert_eq!(row["command"], "credbroker account connect demo");
    let told = member.credbroker(&["account", "list"]).await.good();
    assert!(
        told.contains("CONNECT") && told.contains("  credbroker account connect demo "),
        "{told}"
    );
    assert!(
        !told.contains("CONNECTOR_DISABLED") && !told.contains('\u{1b}'),
        "{told}"
    );

    let seen = scene.run("account list --member alex").await.good();
    assert!(
        seen.contains("CONNECTOR_DISABLED") && seen.contains("accept_terms"),
        "{seen}"
    );
    let row = demo_agent(&scene.admin, &["--member", "alex"]).await;
    assert_eq!(row["command"], "credbroker account connect demo --member alex");
    assert_eq!(row["faults"][0]["fault"], "admin", "{row}");

    // A key makes it ready, an account of the member's own connected.
    let set = ["credential", "set", "--provider", "demo", "--org-owned"];
    scene
        .admin
        .credbroker_with(&set, "not-a-real-key-0123456789")
        .await
        .good();
    assert_eq!(demo_agent(&member, &[]).await["state"], "ready");
    let mut connect = scene
        .begin("account connect demo --member alex --code-stdin")
        .await;
    let address = connect.line("http://").await;
    let page = web::Browser::of("alex").run(&address).await;
    let code = page
        .text
        .split("<pre>")
        .nth(1)
        .unwrap()
        .split("</pre>")
        .next()
        .unwrap();
    connect.give(code).await;
    connect.end().await.good();
    let row = demo_agent(&member, &[]).await;
    assert_eq!(
        (&row["state"], &row["mode"]),
        (&"connected".into(), &"oauth".into())
    );
    assert!(row["credential"].as_str().unwrap().starts_with("crd_"));
    assert!(row["expire_time"].is_string() && row["health"] == "ok", "{row}");
}

//! The ways to sign in, and what comes in between.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

// req: D2
#[tokio::test(flavor = "multi_thread")]
async fn a_member_signs_in_with_the_browser_and_works() {
    let scene = Scene::linked().await;
    let (page, ended) = scene.sign_in("alice").await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("Go back to the terminal"), "{}", page.text);
    assert!(page.url.path() == "/callback" && page.url.host_str() == Some("127.0.0.1"));
    let told = ended.good();
    assert!(
        told.starts_with("signed in as mbr_") && told.contains("context corp"),
        "{told}"
    );

    let who = scene.run("whoami -o json").await.json();
    assert_eq!(who["family"], "member");
    assert!(told.contains(who["actor"].as_str().unwrap()));
    let tasks = scene.run("task list -o json").await.json();
    assert_eq!(tasks, serde_json::json!([]));
    scene
        .run("org create globex")
        .await
        .bad(77, &["PERMISSION_DENIED"]);

    // The tokens are on disk for their owner alone, and nowhere else.
    assert_eq!(
        scene.session().metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
    let listed = std::fs::read_to_string(scene.user.path("config/contexts.toml")).unwrap();
    for secret in [scene.stored("id_token"), scene.stored("refresh_token")] {
        assert!(!listed.contains(&secret) && !told.contains(&secret));
    }
}

// req: D2
#[tokio::test(flavor = "multi_thread")]
async fn a_member_signs_in_on_another_device() {
    let scene = Scene::linked().await;
    let mut login = scene.begin(&["--device"]).await;
    let told = login.line("On any machine, open ").await;
    let code = told.rsplit(' ').next().unwrap().to_owned();
    assert!(
        told.contains(&format!("{}/device", scene.provider.issuer())),
        "{told}"
    );
    let complete = login.line("or open ").await;
    assert!(complete.contains(&code), "{complete} {code}");
    let page = Browser::of("alice")
        .run(complete.trim_start_matches("or open "))
        .await;
    assert_eq!(page.status, 200, "{}", page.text);
    let told = login.end().await.good();
    assert!(told.starts_with("signed in as mbr_"), "{told}");
    assert_eq!(scene.run("whoami -o json").await.json()["family"], "member");
}

// req: D2
#[tokio::test(flavor = "multi_thread")]
async fn a_person_nobody_linked_is_told_what_to_ask_for_and_need_not_sign_in_again() {
    let scene = Scene::new().await;
    let (_, ended) = scene.sign_in("alice").await;
    let identity = format!("oidc:{}#alice", scene.provider.issuer());
    ended.bad(
        77,
        &["IDENTITY_NOT_LINKED", &identity, "credbroker member update"],
    );
    scene
        .run("whoami")
        .await
        .bad(77, &["IDENTITY_NOT_LINKED", &identity]);
    scene.link().await;
    scene.run("whoami").await.good();
    // Taken away, it ends at the next call.
    scene.unlink().await;
    scene.run("whoami").await.bad(77, &["IDENTITY_NOT_LINKED"]);
}

/// Any program of the machine, and any page in the browser, can call the port that waits for the answer.
// req: D2
#[tokio::test(flavor = "multi_thread")]
async fn only_the_answer_to_this_sign_in_counts() {
    let scene = Scene::linked().await;
    let mut login = scene.begin(&["--no-browser"]).await;
    let address = login.line("http://").await;
    let query = reqwest::Url::parse(&address).unwrap();
    let field = |name: &str| {
        let mut pairs = query.query_pairs();
        pairs
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.into_owned())
            .unwrap()
    };
    assert_eq!(
        (
            field("code_challenge_method").as_str(),
            field("code_challenge").len()
        ),
        ("S256", 43)
    );
    assert!(field("nonce").len() >= 43 && field("state").len() >= 43);
    let callback = field("redirect_uri");
    for (forged, status) in [
        (format!("{callback}?code=stolen&state=guessed"), 400),
        (format!("{callback}?error=access_denied&state="), 400),
        (format!("{callback}?code=stolen"), 400),
        (callback.replace("callback", "other"), 404),
    ] {
        let page = Browser::of("mallory").run(&forged).await;
        assert_eq!(page.status, status, "{forged}");
        assert!(!page.text.contains("stolen"));
    }
    // It still waits for the real one.
    Browser::of("alice").run(&address).await;
    login.end().await.good();

    // With the state of a sign-in and a code that is none of its own, the provider refuses by PKCE.
    let mut login = scene.begin(&["--no-browser"]).await;
    let address = login.line("http://").await;
    let query = reqwest::Url::parse(&address).unwrap();
    let state = query
        .query_pairs()
        .find(|(name, _)| name == "state")
        .unwrap()
        .1
        .into_owned();
    let callback = query
        .query_pairs()
        .find(|(name, _)| name == "redirect_uri")
        .unwrap()
        .1
        .into_owned();
    Browser::of("mallory")
        .run(&format!("{callback}?code=stolen&state={state}"))
        .await;
    login.end().await.bad(77, &["refused", "invalid_grant"]);
}

// req: D2
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_at_the_provider_is_told() {
    let scene = Scene::linked().await;
    let mut login = scene.begin(&["--no-browser"]).await;
    let address = login.line("http://").await;
    let query = reqwest::Url::parse(&address).unwrap();
    let state = query
        .query_pairs()
        .find(|(name, _)| name == "state")
        .unwrap()
        .1
        .into_owned();
    let callback = query
        .query_pairs()
        .find(|(name, _)| name == "redirect_uri")
        .unwrap()
        .1
        .into_owned();
    let refused = format!("{callback}?error=access_denied&error_description=not+today&state={state}");
    let page = Browser::of("alice").run(&refused).await;
    assert!(page.text.contains("refused") && !page.text.contains("not today"));
    login.end().await.bad(77, &["access_denied", "not today"]);
    assert!(!scene.session().exists());
}

// req: D2
#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_for_a_sign_in_is_named() {
    let scene = Scene::new().await;
    scene.run("login").await.bad(78, &["no broker is chosen"]);
    let elsewhere = scene.begin(&["--issuer", "https://other.example"]).await;
    elsewhere
        .end()
        .await
        .bad(64, &["does not trust", &scene.provider.issuer()]);
    // A context with a token keeps it.
    let login = ["login", "--context", "admin"];
    scene
        .admin
        .credbroker(&login)
        .await
        .bad(64, &["the context admin has a token"]);
    scene.admin.credbroker(&["whoami"]).await.good();
    // A broker without issuers.
    let broker = TestBroker::start().await;
    let address = broker.address.to_string();
    let login = ["login", "--address", &address, "--ca-pin", &broker.pin];
    scene
        .user
        .credbroker(&login)
        .await
        .bad(1, &["nobody signs in", "oidc.issuers"]);
}

//! The browser on this machine and the device elsewhere, against a real provider.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::web::Browser;

// req: A7 C3
#[tokio::test(flavor = "multi_thread")]
async fn the_browser_is_opened_and_comes_back() {
    let (scene, _provider) = Scene::oidc().await;
    std::fs::create_dir(scene.admin.path("bin")).unwrap();
    let opener = scene.admin.path("bin/xdg-open");
    std::fs::write(
        &opener,
        "#!/bin/sh\nprintf %s \"$1\" >\"$HOME/opening\"\nmv \"$HOME/opening\" \"$HOME/opened\"\n",
    )
    .unwrap();
    std::fs::set_permissions(&opener, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!(
        "{}:{}",
        scene.admin.path("bin").display(),
        std::env::var("PATH").unwrap()
    );
    let mut connect = scene
        .begin_with("account connect demo --member alex", |command| {
            command.env("BROWSER", "any").env("PATH", path);
        })
        .await;
    let address = connect.line("http://").await;
    let opened = scene.admin.path("opened");
    let opening = async {
        while !opened.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, opening).await.expect("no browser was opened");
    assert_eq!(std::fs::read_to_string(opened).unwrap(), address);

    let page = Browser::of("alice").run(&address).await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("Go back to the terminal"), "{}", page.text);
    let told = connect.end().await.good();
    assert!(told.contains("crd_") && told.contains("demo-agent"), "{told}");
    assert_eq!(scene.connection().await["flow"], "loopback");
}

/// A person on a remote machine copies the address that their own browser could not load.
// req: A7
#[tokio::test(flavor = "multi_thread")]
async fn the_address_that_a_browser_elsewhere_ended_at_can_be_pasted() {
    let (scene, _provider) = Scene::oidc().await;
    let mut connect = scene
        .begin("account connect demo --member alex --flow loopback --code-stdin --no-browser")
        .await;
    let address = connect.line("http://").await;
    let callback = callback_of(&address);
    let ended = Browser::of("alice").away(&address, &callback).await;
    // What any page can send to the port changes nothing.
    let forged = ended.as_str().replace("state=", "state=x");
    assert_eq!(Browser::of("mallory").run(&forged).await.status, 400);
    connect.give(ended.as_str()).await;
    connect.end().await.good();
    assert_eq!(scene.connection().await["state"], "connected");
}

// req: A7 C3
#[tokio::test(flavor = "multi_thread")]
async fn a_device_waits_for_its_code_to_be_entered() {
    let (scene, _provider) = Scene::oidc().await;
    // Without a browser here it is the way that is chosen.
    let mut connect = scene
        .begin("account connect demo --member alex --qr always -o json")
        .await;
    let told = connect.line("On any machine, open ").await;
    let code = told.rsplit(' ').next().unwrap().to_owned();
    let complete = connect.line("or open ").await;
    assert!(complete.contains(&code), "{complete}");
    let page = Browser::of("alice")
        .run(complete.trim_start_matches("or open "))
        .await;
    assert_eq!(page.status, 200, "{}", page.text);
    let ended = connect.end().await;
    assert!(ended.err.contains('█'), "no QR code in\n{}", ended.err);
    let told = ended.json();
    assert_eq!(told["connection"]["flow"], "device");
    assert_eq!(told["connection"]["state"], "connected");
}

// req: A7
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_at_the_provider_is_told() {
    let (scene, _provider) = Scene::oidc().await;
    let mut connect = scene
        .begin("account connect demo --member alex --flow loopback --no-browser")
        .await;
    let address = reqwest::Url::parse(&connect.line("http://").await).unwrap();
    let field = |wanted: &str| {
        let mut pairs = address.query_pairs();
        pairs.find(|(name, _)| name == wanted).unwrap().1.into_owned()
    };
    let (callback, state) = (field("redirect_uri"), field("state"));
    let refused = format!("{callback}?error=access_denied&error_description=not+today&state={state}");
    let page = Browser::of("alice").run(&refused).await;
    assert!(page.text.contains("refused"), "{}", page.text);
    connect.end().await.bad(1, &["CONNECTION_REFUSED", "not today"]);
}

fn callback_of(address: &str) -> String {
    let address = reqwest::Url::parse(address).unwrap();
    let mut pairs = address.query_pairs();
    pairs
        .find(|(name, _)| name == "redirect_uri")
        .unwrap()
        .1
        .into_owned()
}

//! A provider that takes longer for its tokens than the command waits for an answer of the broker.

use std::time::Duration;

use super::*;
use crate::support::provider::Provider;
use crate::web::Browser;

/// How the command tells that it waits on.
const LATE: &str = "The provider takes its time";

impl Scene {
    /// With a provider that holds back what it is asked for, and this redirect.
    async fn slow(redirect: &str) -> (Self, Provider) {
        let provider = Provider::start(Duration::from_secs(3600)).await;
        provider.hold();
        let connector = format!(
            "[connectors.demo]\nprovider = \"demo\"\ntoken_url = {:?}\nauthorize_url = \"http://127.0.0.1:1/\"\n\
             client_id = \"tests\"\nclient_auth = \"none\"\nhosts = [\"127.0.0.1\"]\nredirects = [{redirect}]\n",
            provider.token_url(),
        );
        (Self::new(connector).await, provider)
    }
}

/// What the browser brought is handed over again when the provider has done nothing with it, and not before.
// req: A7 C3
#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_takes_long_is_waited_for_and_its_code_brought_again() {
    let redirect = r#"{ kind = "loopback", host = "127.0.0.1", ports = [], path = "/callback" }"#;
    let (scene, provider) = Scene::slow(redirect).await;
    provider.answer(429, "{}");
    let mut connect = scene
        .begin("account connect demo --member alex --flow loopback --no-browser --timeout 3s")
        .await;
    let address = reqwest::Url::parse(&connect.line("http://").await).unwrap();
    let field = |wanted: &str| {
        let mut pairs = address.query_pairs();
        pairs.find(|(name, _)| name == wanted).unwrap().1.into_owned()
    };
    let came_back = format!("{}?code=any&state={}", field("redirect_uri"), field("state"));
    assert_eq!(Browser::of("alex").run(&came_back).await.status, 200);
    connect.line(LATE).await;
    assert_eq!(provider.calls(), 1);
    provider.release();
    connect.end().await.good();
    assert_eq!(provider.calls(), 2);
    assert_eq!(scene.connection().await["state"], "connected");
}

/// The end of the pipe is no reason to give up what was pasted before it.
// req: A7 C3
#[tokio::test(flavor = "multi_thread")]
async fn a_pasted_code_that_is_being_exchanged_outlives_the_pipe() {
    let redirect = r#"{ kind = "paste", url = "http://127.0.0.1:1/code", code = "code" }"#;
    let (scene, provider) = Scene::slow(redirect).await;
    let mut connect = scene
        .begin("account connect demo --member alex --flow paste --code-stdin --timeout 3s")
        .await;
    connect.line("http://").await;
    connect.give("any-code").await;
    drop(connect.child.stdin.take());
    connect.line(LATE).await;
    provider.release();
    let ended = connect.end().await;
    assert!(!ended.err.contains("Not taken"), "{}", ended.err);
    ended.good();
    assert_eq!(scene.connection().await["state"], "connected");
    assert_eq!(provider.calls(), 1);
}

//! The authorization request, parameter by parameter.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::upstream::connector::load::Connectors;

fn acme(more: &str) -> Arc<Connector> {
    let text =
        format!("[connectors.acme]\ntoken_url = \"https://id.example/t\"\nclient_id = \"c/1&x\"\n{more}\n");
    let connectors = Connectors::load_text("test", &text).unwrap();
    connectors.get("acme").unwrap().clone()
}

/// The parameters of the request to `endpoint` by the first redirect, each of which is there once.
fn asked(connector: &Connector, endpoint: &str, challenge: Option<&str>) -> BTreeMap<String, String> {
    let url = authorization_request(
        &Url::parse(endpoint).unwrap(),
        connector,
        &connector.redirects[0],
        "http://127.0.0.1:4444/callback",
        "st&te",
        challenge,
    );
    assert!(url.as_str().starts_with("https://id.example/authorize?"), "{url}");
    let mut seen = BTreeMap::new();
    for (name, value) in url.query_pairs() {
        let before = seen.insert(name.to_string(), value.to_string());
        assert_eq!(before, None, "{name} twice in {url}");
    }
    seen
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    let owned = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    BTreeMap::from(owned)
}

const ENDPOINT: &str = "https://id.example/authorize";

// req: A7
#[test]
fn an_authorization_request_has_all_that_the_standards_ask_for() {
    let connector = acme("scopes = [\"openid\", \"a:b\"]\nauthorize_params = { prompt = \"consent now\" }");
    let expected = pairs([
        ("response_type", "code"),
        ("client_id", "c/1&x"),
        ("redirect_uri", "http://127.0.0.1:4444/callback"),
        ("scope", "openid a:b"),
        ("state", "st&te"),
        ("code_challenge", "ch"),
        ("code_challenge_method", "S256"),
        ("prompt", "consent now"),
    ]);
    assert_eq!(asked(&connector, ENDPOINT, Some("ch")), expected);

    let plain = pairs([
        ("response_type", "code"),
        ("client_id", "c/1&x"),
        ("redirect_uri", "http://127.0.0.1:4444/callback"),
        ("state", "st&te"),
    ]);
    assert_eq!(asked(&acme(""), ENDPOINT, None), plain);
    // A redirect that goes without a challenge has none, whoever made one.
    let without =
        "redirects = [{ kind = \"loopback\", host = \"::1\", ports = [], path = \"/\", pkce = false }]";
    assert_eq!(asked(&acme(without), ENDPOINT, Some("ch")), plain);
    assert_eq!(asked(&acme("pkce = false"), ENDPOINT, Some("ch")), plain);
}

// req: A7
#[test]
fn nothing_of_the_endpoint_or_the_configuration_replaces_what_is_set_here() {
    let connector = acme("authorize_params = { audience = \"ours\" }");
    let endpoint = "https://id.example/authorize?tenant=t%26u&state=theirs&client_id=x&code_challenge_method=plain\
                    &redirect_uri=https%3A%2F%2Fevil.example&request_uri=urn%3Ax&audience=theirs&response_type=token";
    let expected = pairs([
        ("tenant", "t&u"),
        ("response_type", "code"),
        ("client_id", "c/1&x"),
        ("redirect_uri", "http://127.0.0.1:4444/callback"),
        ("state", "st&te"),
        ("code_challenge", "ch"),
        ("code_challenge_method", "S256"),
        ("audience", "ours"),
    ]);
    assert_eq!(asked(&connector, endpoint, Some("ch")), expected);

    // The configuration is refused with such a parameter; were it not, it would still not count.
    let mut forged = (*connector).clone();
    for name in OURS {
        forged
            .authorize_params
            .insert(name.to_owned(), "forged".to_owned());
    }
    let sent = asked(&forged, ENDPOINT, Some("ch"));
    assert!(!sent.values().any(|value| value == "forged"), "{sent:?}");
}

// req: N10
#[test]
fn shipped_connectors_ask_as_their_sources_do() {
    let shipped = Connectors::shipped().unwrap();
    let ask = |name: &str| {
        let connector = shipped.get(name).unwrap();
        let url = authorization_request(
            connector.authorize_url.as_ref().unwrap(),
            connector,
            &connector.redirects[0],
            "https://platform.claude.com/oauth/code/callback",
            "s",
            Some("ch"),
        );
        url.query_pairs().into_owned().collect::<BTreeMap<_, _>>()
    };
    let claude = ask("claude");
    assert_eq!(
        (claude["code"].as_str(), claude["code_challenge"].as_str()),
        ("true", "ch")
    );
    // The first redirect of Google's goes without.
    let google = ask("google");
    assert_eq!(google["access_type"], "offline");
    assert!(!google.contains_key("code_challenge"));
    assert!(ask("openai")["scope"].contains("offline_access"));
}

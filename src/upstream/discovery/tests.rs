//! What is taken of metadata documents, and what of them is not.

use std::sync::Arc;

use super::*;
use crate::upstream::connector::ClientAuth;
use crate::upstream::connector::load::Connectors;

const ISSUER: &str = "https://id.example/tenant";

fn connector(more: &str) -> Arc<Connector> {
    let text = format!("[connectors.acme]\nissuer = \"{ISSUER}\"\nclient_id = \"c\"\n{more}");
    Arc::clone(Connectors::load_text("test", &text).unwrap().get("acme").unwrap())
}

fn take(
    connector: &Connector,
    document: serde_json::Value,
) -> Result<(Metadata, Vec<String>), DiscoveryError> {
    let document = serde_json::from_value(document).unwrap();
    let (metadata, oddities) = Metadata::take(document, connector, "PLACE")?;
    Ok((metadata, oddities.iter().map(ToString::to_string).collect()))
}

/// A whole document, with `more` over it; null takes a field away.
fn document(more: serde_json::Value) -> serde_json::Value {
    let mut document = serde_json::json!({
        "issuer": ISSUER,
        "token_endpoint": "https://id.example/token",
        "authorization_endpoint": "https://id.example/authorize",
        "revocation_endpoint": "https://id.example/revoke",
        "device_authorization_endpoint": "https://id.example/device",
        "jwks_uri": "https://elsewhere.example/keys",
    });
    for (key, value) in more.as_object().unwrap() {
        document[key] = value.clone();
    }
    document
}

// req: N10
#[test]
fn the_path_is_inserted_and_the_fallback_is_appended() {
    for (issuer, standard, fallback) in [
        (
            "https://example.com",
            "https://example.com/.well-known/oauth-authorization-server",
            "https://example.com/.well-known/openid-configuration",
        ),
        (
            "https://example.com/",
            "https://example.com/.well-known/oauth-authorization-server",
            "https://example.com/.well-known/openid-configuration",
        ),
        // The example of RFC 8414 section 3.1.
        (
            "https://example.com/issuer1",
            "https://example.com/.well-known/oauth-authorization-server/issuer1",
            "https://example.com/issuer1/.well-known/openid-configuration",
        ),
        (
            "http://127.0.0.1:7/a/b/",
            "http://127.0.0.1:7/.well-known/oauth-authorization-server/a/b",
            "http://127.0.0.1:7/a/b/.well-known/openid-configuration",
        ),
        (
            "https://[::1]:8443/x",
            "https://[::1]:8443/.well-known/oauth-authorization-server/x",
            "https://[::1]:8443/x/.well-known/openid-configuration",
        ),
    ] {
        assert_eq!(places(issuer), [standard, fallback]);
    }
}

// req: N10
#[test]
fn a_document_is_taken_only_from_its_own_issuer() {
    for other in [
        "https://id.example",
        "https://id.example/tenant/",
        "https://ID.example/tenant",
        "https://evil.example/tenant",
        "",
    ] {
        let error = take(&connector(""), document(serde_json::json!({ "issuer": other }))).unwrap_err();
        assert!(
            matches!(error, DiscoveryError::OtherIssuer { .. }),
            "{other}: {error}"
        );
    }
    let (metadata, oddities) = take(&connector(""), document(serde_json::json!({}))).unwrap();
    assert_eq!(oddities, [""; 0]);
    let endpoints = Endpoints::of(&connector(""), Some(&metadata)).unwrap();
    assert_eq!(endpoints.token.as_str(), "https://id.example/token");
    assert_eq!(
        endpoints.authorize.unwrap().as_str(),
        "https://id.example/authorize"
    );
    assert_eq!(endpoints.revoke.unwrap().as_str(), "https://id.example/revoke");
    assert_eq!(endpoints.device.unwrap().as_str(), "https://id.example/device");
}

// req: N10
#[test]
fn a_token_endpoint_that_the_connector_may_not_have_is_refused() {
    for (url, says) in [
        ("http://id.example/token", "use https"),
        ("https://evil.example/token", "add it to `hosts`"),
        ("https://id.example.evil.example/token", "add it to `hosts`"),
        ("https://u:p@id.example/token", "user information"),
        ("https://id.example/token#f", "fragment"),
        ("http://127.0.0.1/token", "add it to `hosts`"),
        ("ftp://id.example/token", "no absolute URL"),
        ("/token", "no absolute URL"),
        ("https://id.exa\tmple/token", "no absolute URL"),
    ] {
        let error = take(
            &connector(""),
            document(serde_json::json!({ "token_endpoint": url })),
        )
        .unwrap_err();
        assert!(error.to_string().contains(says), "{url}: {error}");
    }
    for port in [22, 80, 8443] {
        let url = format!("https://id.example:{port}/token");
        let error = take(
            &connector(""),
            document(serde_json::json!({ "token_endpoint": url })),
        );
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains(&format!("has port {port}, which is neither")),
            "{error}"
        );
    }
    let none = document(serde_json::json!({ "token_endpoint": null }));
    let error = take(&connector(""), none).unwrap_err();
    assert!(error.to_string().contains("set token_url"), "{error}");
    // A listed host is taken, and one without need is not looked at.
    let elsewhere = document(serde_json::json!({ "token_endpoint": "https://api.example/token" }));
    let listed = connector("hosts = [\"id.example\", \"api.example\"]\n");
    assert!(take(&listed, elsewhere.clone()).is_ok());
    let set = connector("token_url = \"https://id.example/mine\"\n");
    let (metadata, _) = take(&set, elsewhere).unwrap();
    let endpoints = Endpoints::of(&set, Some(&metadata)).unwrap();
    assert_eq!(endpoints.token.as_str(), "https://id.example/mine");
}

// req: N10
#[test]
fn an_endpoint_is_where_its_issuer_is_or_where_the_operator_says() {
    let issuer = "https://localhost:8443";
    let at = |url: &str| serde_json::json!({ "issuer": issuer, "token_endpoint": url });
    let connector = |more: &str| {
        let text = format!("[connectors.acme]\nissuer = \"{issuer}\"\nclient_id = \"c\"\n{more}");
        Arc::clone(Connectors::load_text("test", &text).unwrap().get("acme").unwrap())
    };
    for (url, says) in [
        ("https://localhost:8443/token", ""),
        ("https://localhost/token", ""),
        ("https://localhost:443/token", ""),
        ("http://localhost:8443/token", "another scheme"),
        ("http://localhost:9999/", "another scheme"),
        ("http://localhost/token", "another scheme"),
        ("https://localhost:9999/token", "port 9999"),
    ] {
        match take(&connector(""), at(url)) {
            Ok(_) => assert_eq!(says, "", "{url}"),
            Err(error) => assert!(
                !says.is_empty() && error.to_string().contains(says),
                "{url}: {error}"
            ),
        }
    }
    // The same for the others, which are left out; and what is written down is used.
    let mut document = at("https://localhost:8443/token");
    document["revocation_endpoint"] = "https://localhost:22/".into();
    let (metadata, oddities) = take(&connector(""), document.clone()).unwrap();
    assert_eq!(metadata.revoke, None);
    assert!(
        oddities.len() == 1 && oddities[0].contains("port 22"),
        "{oddities:?}"
    );
    let set = connector("revoke_url = \"https://localhost:22/\"\ntoken_url = \"http://localhost:9999/\"\n");
    document["token_endpoint"] = "http://localhost:9999/".into();
    let (metadata, oddities) = take(&set, document).unwrap();
    assert_eq!(oddities, [""; 0]);
    let endpoints = Endpoints::of(&set, Some(&metadata)).unwrap();
    assert_eq!(endpoints.token.as_str(), "http://localhost:9999/");
    assert_eq!(endpoints.revoke.unwrap().as_str(), "https://localhost:22/");
}

#[test]
fn another_endpoint_with_a_fault_is_left_out_and_told() {
    let bad = document(serde_json::json!({ "revocation_endpoint": "https://evil.example/revoke" }));
    let (metadata, oddities) = take(&connector(""), bad.clone()).unwrap();
    assert_eq!(metadata.revoke, None);
    assert!(metadata.authorize.is_some());
    assert!(
        oddities.len() == 1
            && oddities[0].contains("revocation_endpoint https://evil.example/revoke is not used"),
        "{oddities:?}"
    );
    // What is configured is not asked of the server, whatever it says.
    let set = connector("revoke_url = \"https://id.example/mine\"\n");
    let (metadata, oddities) = take(&set, bad).unwrap();
    assert_eq!(oddities, [""; 0]);
    let endpoints = Endpoints::of(&set, Some(&metadata)).unwrap();
    assert_eq!(endpoints.revoke.unwrap().as_str(), "https://id.example/mine");
}

const SECRET: &str = "client_secret = { env = \"ACME\" }\n";

// req: N10
#[test]
fn how_the_client_shows_who_it_is_is_the_servers_to_say_where_it_is_open() {
    let auth = |more: &str, listed: serde_json::Value| {
        let connector = connector(more);
        let methods = serde_json::json!({ "token_endpoint_auth_methods_supported": listed });
        let (metadata, oddities) = take(&connector, document(methods)).unwrap();
        let endpoints = Endpoints::of(&connector, Some(&metadata));
        (endpoints.map(|endpoints| endpoints.client_auth), oddities)
    };
    let post = serde_json::json!(["private_key_jwt", "client_secret_post"]);
    let both = serde_json::json!(["client_secret_post", "client_secret_basic"]);
    let nothing = serde_json::Value::Null;
    for (more, listed, expected) in [
        (SECRET, &post, ClientAuth::Post),
        (SECRET, &both, ClientAuth::Basic),
        (SECRET, &nothing, ClientAuth::Basic),
        ("", &nothing, ClientAuth::None),
    ] {
        let (auth, oddities) = auth(more, listed.clone());
        assert_eq!((auth.unwrap(), oddities.len()), (expected, 0), "{more} {listed}");
    }
    let (unknown, _) = auth(SECRET, serde_json::json!(["private_key_jwt"]));
    assert!(matches!(unknown.unwrap_err(), DiscoveryError::NoMethod { .. }));
    // What is set wins, and the contradiction is told with key and remedy.
    let (set, oddities) = auth(&format!("client_auth = \"basic\"\n{SECRET}"), post.clone());
    assert_eq!(set.unwrap(), ClientAuth::Basic);
    assert_eq!(
        oddities,
        [
            "client_auth is \"basic\" and the server lists private_key_jwt, client_secret_post: set client_auth = \
          \"post\" and a client_secret"
        ]
    );
    let (public, oddities) = auth("", post);
    assert_eq!(public.unwrap(), ClientAuth::None);
    assert_eq!(oddities.len(), 1);
}

// req: N10
#[test]
fn only_the_configuration_switches_s256_off() {
    let pkce = |more: &str, listed: serde_json::Value| {
        let connector = connector(more);
        let methods = serde_json::json!({ "code_challenge_methods_supported": listed });
        let (_, oddities) = take(&connector, document(methods)).unwrap();
        (connector.pkce, oddities)
    };
    let (plain, both) = (serde_json::json!(["plain"]), serde_json::json!(["plain", "S256"]));
    assert_eq!(pkce("", serde_json::Value::Null), (true, vec![]));
    assert_eq!(pkce("", both.clone()), (true, vec![]));
    assert_eq!(pkce("pkce = false\n", both), (false, vec![]));
    assert_eq!(pkce("pkce = false\n", plain.clone()), (false, vec![]));
    // Nothing that comes over the network is a reason to go without (RFC 9700 section 2.1.1).
    for (more, listed, lists) in [
        ("", plain.clone(), "plain"),
        ("pkce = true\n", plain.clone(), "plain"),
        ("", serde_json::json!([]), "no method"),
        // One way back that uses it is enough.
        (
            "pkce = false\nredirects = [\
             { kind = \"loopback\", host = \"::1\", ports = [], path = \"/\", pkce = true }]\n",
            plain.clone(),
            "plain",
        ),
    ] {
        let (used, oddities) = pkce(more, listed);
        let [oddity] = oddities.as_slice() else {
            panic!("{more}: {oddities:?}");
        };
        assert_eq!(used, !more.starts_with("pkce = false"), "{more}");
        assert!(
            oddity.contains(&format!("the server lists {lists}: ")) && oddity.contains("set pkce = false"),
            "{oddity}"
        );
    }
    // No way back uses it, whatever the connector says of those that do not say.
    let none = "redirects = [\
        { kind = \"loopback\", host = \"::1\", ports = [], path = \"/\", pkce = false }]\n";
    assert_eq!(pkce(none, plain).1, [""; 0]);
}

#[test]
fn a_connector_without_an_issuer_needs_no_metadata() {
    let text = "[connectors.acme]\ntoken_url = \"https://id.example/t\"\nclient_id = \"c\"\n";
    let connectors = Connectors::load_text("test", text).unwrap();
    let acme = connectors.get("acme").unwrap();
    let endpoints = Endpoints::of(acme, None).unwrap();
    assert_eq!(endpoints.client_auth, ClientAuth::None);
    let token = "token_url = \"https://id.example/t\"\n";
    for need in [Need::Token, Need::Authorize, Need::Revoke, Need::Device] {
        assert!(!needs_metadata(acme, need));
        assert!(needs_metadata(&connector(""), need));
        assert!(needs_metadata(&connector(&format!("{token}{SECRET}")), need));
    }
    assert!(!needs_metadata(&connector(token), Need::Token));
    assert!(needs_metadata(&connector(token), Need::Revoke));
    let both = format!("{token}revoke_url = \"https://id.example/r\"\n");
    assert!(!needs_metadata(&connector(&both), Need::Revoke));
    assert!(needs_metadata(&connector(&both), Need::Device));
    assert!(matches!(
        Endpoints::of(&connector(""), None).unwrap_err(),
        DiscoveryError::Unknown
    ));
}

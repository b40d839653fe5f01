//! Connectors that load, and the faults of those that do not.

use std::time::Duration;

use super::*;
use crate::upstream::connector::{Encoding, ErrorCause, ExpirySource, Off, RedirectKind, SecretRef, Sharing};

const MINIMAL: &str = "[connectors.acme]\ntoken_url = \"https://id.example/token\"\nclient_id = \"c\"\n";

fn load(text: &str) -> Result<Connectors, ConnectorError> {
    Connectors::load_text("broker.toml", text)
}

fn acme(more: &str) -> Result<Arc<Connector>, ConnectorError> {
    Ok(load(&format!("{MINIMAL}{more}"))?.get("acme").unwrap().clone())
}

// req: N10
#[test]
fn subscriptions_ship_off_with_terms_and_personal() {
    let shipped = Connectors::shipped().unwrap();
    let names: Vec<_> = shipped.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["claude", "google", "openai"]);
    for connector in shipped.iter() {
        assert_eq!(
            connector.usable(),
            Err(Off::TermsNotAccepted),
            "{}",
            connector.name
        );
        assert_eq!(connector.sharing, Sharing::Personal, "{}", connector.name);
        assert!(connector.authorize_url.is_some() && connector.revoke_url.is_some());
        assert_eq!(connector.lead, Duration::from_secs(300));
    }
    assert!(!shipped.get("google").unwrap().rotates);
    assert_eq!(shipped.get("openai").unwrap().expiry, ExpirySource::JwtExp);
    assert_eq!(shipped.get("claude").unwrap().refresh_encoding, Encoding::Json);
}

#[test]
fn accepted_terms_switch_a_connector_on_and_enabled_switches_it_off() {
    let on = load("[connectors.claude]\naccept_terms = true\nclient_id = \"mine\"\n").unwrap();
    let claude = on.get("claude").unwrap();
    assert_eq!(claude.usable(), Ok(()));
    assert_eq!(
        claude.token_url.as_str(),
        "https://platform.claude.com/v1/oauth/token"
    );
    assert_eq!(on.get("openai").unwrap().usable(), Err(Off::TermsNotAccepted));
    let off = load("[connectors.claude]\naccept_terms = true\nenabled = false\n").unwrap();
    assert_eq!(off.get("claude").unwrap().usable(), Err(Off::Disabled));
}

#[test]
fn a_new_connector_takes_the_standard_for_what_it_does_not_say() {
    let acme = acme("grace_seconds = 30\n").unwrap();
    assert_eq!(acme.usable(), Ok(()));
    assert_eq!(acme.refresh_encoding, Encoding::Form);
    assert_eq!(acme.permanent_errors, ["invalid_grant"]);
    assert_eq!(acme.unprocessed_statuses, [429]);
    assert_eq!(acme.hosts, ["id.example"]);
    assert_eq!(acme.grace, Some(Duration::from_secs(30)));
    assert_eq!(acme.sharing, Sharing::Any);
    assert!(acme.rotates && !acme.old_access_survives && acme.pkce);
}

#[test]
fn a_cause_belongs_to_a_refusal() {
    let causes = "error_causes = { token_old = \"expired\" }\n";
    let fault = acme(causes).unwrap_err();
    assert_eq!(fault.key, "error_causes");
    assert_eq!(fault.fault, ConnectorFault::NotPermanent("token_old".to_owned()));
    let acme = acme(&format!("permanent_errors = [\"token_old\"]\n{causes}")).unwrap();
    assert_eq!(acme.error_causes["token_old"], ErrorCause::Expired);
}

#[test]
fn redirects_and_secrets_are_closed_lists() {
    let more = "client_auth = \"basic\"\nclient_secret = { env = \"ACME_SECRET\" }\nredirects = [\n\
        { kind = \"paste\", url = \"https://id.example/code\", code = \"code-and-state\", pkce = false },\n\
        { kind = \"loopback\", host = \"::1\", ports = [1455], path = \"/cb\" } ]\n";
    let acme = acme(more).unwrap();
    assert_eq!(acme.client_secret, Some(SecretRef::Env("ACME_SECRET".to_owned())));
    assert!(!acme.redirects[0].pkce && acme.redirects[1].pkce);
    assert!(matches!(&acme.redirects[1].kind, RedirectKind::Loopback { ports, .. } if ports == &[1455]));
}

#[test]
fn plain_http_stays_on_the_machine() {
    for url in [
        "http://127.0.0.1:1/token",
        "http://[::1]:1/token",
        "http://localhost/token",
    ] {
        let text = format!("[connectors.l]\ntoken_url = \"{url}\"\nclient_id = \"c\"\n");
        assert!(load(&text).is_ok(), "{url}");
    }
    for url in [
        "http://id.example/token",
        "http://127.0.0.1.id.example/token",
        "http://10.0.0.1/token",
    ] {
        let text = format!("[connectors.l]\ntoken_url = \"{url}\"\nclient_id = \"c\"\n");
        let error = load(&text).unwrap_err();
        assert_eq!(
            (error.key.as_str(), error.fault),
            ("token_url", ConnectorFault::PlainHttp),
            "{url}"
        );
    }
}

#[test]
fn what_is_wrong_is_told_with_file_key_and_remedy() {
    use ConnectorFault as Fault;
    let cases: [(&str, &str, Fault); 16] = [
        (
            "authorize_url = \"ftp://id.example/\"",
            "authorize_url",
            Fault::NotAUrl,
        ),
        (
            "revoke_url = \"https://u:p@id.example/\"",
            "revoke_url",
            Fault::UrlParts,
        ),
        (
            "revoke_url = \"https://id.example/#f\"",
            "revoke_url",
            Fault::UrlParts,
        ),
        (
            "authorize_url = \"https://evil.example/\"",
            "authorize_url",
            Fault::HostNotAllowed("evil.example".to_owned()),
        ),
        (
            "hosts = [\"x.example\"]",
            "token_url",
            Fault::HostNotAllowed("id.example".to_owned()),
        ),
        ("client_auth = \"post\"", "client_secret", Fault::Needed),
        ("client_secret = { env = \"X\" }", "client_secret", Fault::Unused),
        ("provider = \"No Name\"", "provider", Fault::BadText),
        ("scopes = [\"a b\"]", "scopes", Fault::BadText),
        (
            "permanent_statuses = [503]",
            "permanent_statuses",
            Fault::BadStatus(503),
        ),
        (
            "permanent_statuses = [429]",
            "permanent_statuses",
            Fault::BadStatus(429),
        ),
        (
            "unprocessed_statuses = [200]",
            "unprocessed_statuses",
            Fault::BadStatus(200),
        ),
        (
            "unprocessed_errors = [\"invalid_grant\"]",
            "permanent_errors",
            Fault::Contradiction("invalid_grant".to_owned()),
        ),
        ("lead_seconds = 86401", "lead_seconds", Fault::TooLong),
        ("terms = \"read this\"", "sharing", Fault::SharedUnderTerms),
        (
            "redirects = [{ kind = \"loopback\", host = \"0.0.0.0\", ports = [], path = \"/\" }]",
            "redirects.host",
            Fault::NotLoopback,
        ),
    ];
    for (more, key, fault) in cases {
        let error = acme(&format!("{more}\n")).unwrap_err();
        assert_eq!((error.key.as_str(), &error.fault), (key, &fault), "{more}");
        assert!(
            error
                .to_string()
                .starts_with(&format!("broker.toml: connectors.acme.{key}: ")),
            "{error}"
        );
    }
}

#[test]
fn unknown_keys_missing_keys_and_wrong_types_are_named() {
    for (text, expected) in [
        (
            "[connectors.acme]\ntokn_url = \"x\"\n",
            "unknown field `tokn_url`",
        ),
        (
            "[connectors.acme]\nclient_id = \"c\"\n",
            "missing field `token_url`",
        ),
        ("[connectors.acme]\npkce = \"yes\"\n", "pkce"),
        (
            "[connectors.acme]\nclient_auth = \"mtls\"\n",
            "unknown variant `mtls`",
        ),
        (
            "[connectors.acme]\ntoken_url = \"https://id.example/t\"\n",
            "connectors.acme.client_id: is needed",
        ),
        ("[connectors.Acme]\n", "a name is"),
        ("[conectors]\n", "unknown field `conectors`"),
        (
            "[connectors.claude]\naccept_terms = true\n",
            "connectors.claude.client_id: is needed",
        ),
        ("[connectors.generic]\n", "missing field `token_url`"),
    ] {
        let message = load(text).unwrap_err().to_string();
        assert!(
            message.starts_with("broker.toml: ") && message.contains(expected),
            "{message}"
        );
    }
}

#[test]
fn the_configuration_cannot_lift_shipped_terms() {
    for key in [
        "terms = \"\"",
        "terms_url = \"https://x.example/\"",
        "sharing = \"any\"",
    ] {
        let error = load(&format!("[connectors.openai]\n{key}\n")).unwrap_err();
        assert_eq!(error.fault, ConnectorFault::Fixed, "{key}");
    }
    let moved = "[connectors.openai]\ntoken_url = \"https://elsewhere.example/token\"\n";
    assert!(matches!(
        load(moved).unwrap_err().fault,
        ConnectorFault::HostNotAllowed(_)
    ));
}

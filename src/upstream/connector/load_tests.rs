//! Connectors that load, and the faults of those that do not.

use std::time::Duration;

use super::*;
use crate::upstream::connector::{
    DeviceFlow, Encoding, ErrorCause, ExpirySource, Off, RedirectKind, RevokeEncoding, RevokeScope,
    SecretRef, Sharing,
};

const MINIMAL: &str = "[connectors.acme]\ntoken_url = \"https://id.example/token\"\nclient_id = \"c\"\n";

fn load(text: &str) -> Result<Connectors, ConnectorError> {
    Connectors::load_text("broker.toml", text)
}

pub(super) fn acme(more: &str) -> Result<Arc<Connector>, ConnectorError> {
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
    let google = shipped.get("google").unwrap();
    assert_eq!(google.revoke_encoding, RevokeEncoding::Query);
    // One revoked token ends every other of the account: an account that is connected anew must not fall to it.
    assert!(shipped.iter().all(|one| one.revoke_scope == RevokeScope::Account));
    assert_eq!(
        (&google.device_flow, &google.device_authorization_url),
        (&DeviceFlow::Rfc8628, &None)
    );
    let openai = shipped.get("openai").unwrap();
    assert_eq!(openai.revoke_encoding, RevokeEncoding::Json);
    assert!(matches!(&openai.device_flow, DeviceFlow::Code { .. }));
    assert!(shipped.get("claude").unwrap().exchange_state && !openai.exchange_state);
    assert_eq!(shipped.get("openai").unwrap().expiry, ExpirySource::JwtExp);
    assert_eq!(shipped.get("claude").unwrap().refresh_encoding, Encoding::Json);
}

#[test]
fn accepted_terms_switch_a_connector_on_and_enabled_switches_it_off() {
    let on = load("[connectors.claude]\naccept_terms = true\nclient_id = \"mine\"\n").unwrap();
    let claude = on.get("claude").unwrap();
    assert_eq!(claude.usable(), Ok(()));
    assert_eq!(
        claude.token_url.as_ref().unwrap().as_str(),
        "https://platform.claude.com/v1/oauth/token"
    );
    assert_eq!(on.get("openai").unwrap().usable(), Err(Off::TermsNotAccepted));
    let off = load("[connectors.claude]\naccept_terms = true\nenabled = false\n").unwrap();
    assert_eq!(off.get("claude").unwrap().usable(), Err(Off::Disabled));
}

#[test]
fn a_device_flow_replaces_the_shipped_one_whole() {
    let load = |more| load(&format!("[connectors.openai]\nclient_id = \"mine\"\n{more}"));
    let standard = load("device_flow = \"rfc8628\"\n").unwrap();
    let openai = standard.get("openai").unwrap();
    assert_eq!(
        (&openai.device_flow, &openai.device_authorization_url),
        (&DeviceFlow::Rfc8628, &None)
    );
    let moved = load("device_page_url = \"https://auth.openai.com/x\"\n").unwrap();
    assert!(matches!(
        &moved.get("openai").unwrap().device_flow,
        DeviceFlow::Code { page_url, redirect_uri, .. }
            if page_url.path() == "/x" && redirect_uri == "https://auth.openai.com/deviceauth/callback"
    ));
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
    assert!(acme.rotates && !acme.old_access_survives);
    assert_eq!((acme.pkce, acme.client_auth), (true, None));
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
    let pkce: Vec<_> = acme.redirects.iter().map(|redirect| redirect.pkce).collect();
    assert_eq!(pkce, [Some(false), None]);
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

// req: N10
#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    for line in [
        "client_secret = \"s3cret",
        "client_secret = s3cret",
        "client_secret = { env = \"X\", s3cret = 1 }",
    ] {
        let said = load(&format!("{MINIMAL}{line}\n")).unwrap_err().to_string();
        assert!(
            said.starts_with("broker.toml: ") && !said.contains("s3cret"),
            "{said}"
        );
    }
    // The table is forgotten, or its key is.
    for (text, blamed) in [
        (
            "[connectors]\nclient_secret = \"s3cret\"\n",
            "connectors.client_secret: ",
        ),
        (
            "[connectors]\nclient_secret = [\"s3cret\"]\n",
            "connectors.client_secret: ",
        ),
        ("connectors.acme = \"s3cret\"\n", "connectors.acme: "),
        ("connectors = \"s3cret\"\n", "connectors: "),
        ("[[connectors]]\nclient_secret = \"s3cret\"\n", "connectors: "),
    ] {
        let said = load(text).unwrap_err().to_string();
        assert!(
            said.starts_with(&format!("broker.toml: {blamed}"))
                && said.contains("write [connectors.NAME]")
                && !said.contains("s3cret"),
            "{text}: {said}"
        );
    }
}

// req: N10
#[test]
fn the_lists_of_a_connector_are_bounded() {
    for key in [
        "hosts",
        "scopes",
        "permanent_errors",
        "unprocessed_errors",
        "sources",
    ] {
        let many: Vec<_> = (0..=MAX_LIST).map(|i| format!("\"h{i}.example\"")).collect();
        let error = acme(&format!("{key} = [{}]\n", many.join(","))).unwrap_err();
        assert_eq!(
            (error.key.as_str(), &error.fault),
            (key, &ConnectorFault::TooMany)
        );
    }
    for (key, one) in [
        ("error_at", "\"error\""),
        ("quirks", "\"scope-list\""),
        ("permanent_statuses", "400"),
        ("unprocessed_statuses", "429"),
        (
            "account",
            "{ label = \"l\", from = \"answer\", pointer = \"/id\" }",
        ),
        (
            "redirects",
            "{ kind = \"loopback\", host = \"::1\", ports = [], path = \"/\" }",
        ),
    ] {
        let error = acme(&format!("{key} = [{}]\n", vec![one; MAX_LIST + 1].join(","))).unwrap_err();
        assert_eq!(
            (error.key.as_str(), &error.fault),
            (key, &ConnectorFault::TooMany)
        );
    }
}

#[test]
fn unknown_and_missing_keys_are_named() {
    for (text, expected) in [
        (
            "[connectors.acme]\ntokn_url = \"x\"\n",
            "connectors.acme.tokn_url: is no key of a connector; correct or remove it",
        ),
        (
            "[connectors.acme]\nclient_id = \"c\"\n",
            "connectors.acme.token_url: is needed; set it, or `issuer`",
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
        (
            "[connectors.generic]\n",
            "connectors.generic.token_url: is needed",
        ),
    ] {
        let message = load(text).unwrap_err().to_string();
        assert!(
            message.starts_with("broker.toml: ") && message.contains(expected),
            "{message}"
        );
    }
}

// req: N10
#[test]
fn a_name_is_in_one_file_only_and_its_provider_in_the_registry() {
    let one = load(MINIMAL).unwrap();
    let error = one.clone().with_file("two.toml", MINIMAL, &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "two.toml: connectors.acme: is in broker.toml already; keep one of them"
    );
    // Over a shipped one it may lie.
    let claude = "[connectors.claude]\nclient_id = \"mine\"\n";
    assert!(
        one.clone()
            .with_file("two.toml", claude, &["claude".to_owned()])
            .is_ok()
    );
    // A file of the operator is one whatever it is called.
    let ours = "registry/connectors/claude.toml";
    let twice = Connectors::shipped().unwrap().with_file(ours, claude, &[]);
    let error = twice.unwrap().with_file("two.toml", claude, &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("two.toml: connectors.claude: is in {ours} already; keep one of them")
    );
    let error = one.check_providers(|name| name != "generic").unwrap_err();
    assert_eq!(
        error.to_string(),
        "broker.toml: connectors.acme.provider: \"generic\" is no provider of the registry that takes OAuth grants; \
         correct it, or add the provider"
    );
}

#[test]
fn an_issuer_stands_for_endpoints() {
    let text = "[connectors.acme]\nissuer = \"https://id.example/t/\"\nclient_id = \"c\"\n";
    let acme = load(text).unwrap().get("acme").unwrap().clone();
    assert_eq!(
        acme.issuer.as_deref(),
        Some("https://id.example/t/"),
        "as it is written"
    );
    assert_eq!(
        (acme.token_url.clone(), acme.hosts.clone()),
        (None, vec!["id.example".to_owned()])
    );
    // Both hosts are its own.
    let both = load(&format!("{text}token_url = \"https://api.example/token\"\n")).unwrap();
    assert_eq!(both.get("acme").unwrap().hosts, ["api.example", "id.example"]);
    // What it leaves open with a secret is the server's to say.
    let open = load(&format!("{text}client_secret = {{ env = \"X\" }}\n")).unwrap();
    assert_eq!(open.get("acme").unwrap().client_auth, None);
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

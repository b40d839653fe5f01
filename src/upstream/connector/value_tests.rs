//! The values of every key: one that is wrong, and how it is told; and the words that keys choose from.

use std::collections::BTreeSet;

use super::tests::acme;
use super::*;
use crate::upstream::connector::KEYS;
use crate::upstream::connector::choices::CHOICES;

/// A wrong value for each key, the key that is blamed, and words of the remedy.
const WRONG: &[(&str, &str, &str)] = &[
    ("provider = \"No Name\"", "provider", "mend it"),
    ("provider = 5", "provider", "correct it"),
    ("enabled = \"yes\"", "enabled", "expected a boolean; correct it"),
    ("terms = \"\"\nsharing = \"personal\"", "terms", "mend it"),
    ("terms = \"read this\"", "sharing", "set sharing = \"personal\""),
    (
        "terms_url = \"not a url\"",
        "terms_url",
        "write it as https://host/path",
    ),
    (
        "terms_url = \"https://id.example/\"",
        "terms_url",
        "say what they are, or remove it",
    ),
    ("accept_terms = 1", "accept_terms", "expected a boolean"),
    (
        "issuer = \"id.example\"",
        "issuer",
        "write it as https://host/path",
    ),
    ("issuer = \"http://id.example\"", "issuer", "use https"),
    (
        "issuer = \"https://id.example/?x=1\"",
        "issuer",
        "write the issuer as its metadata document does",
    ),
    (
        "issuer = \"https://other.example\"\nhosts = [\"id.example\"]",
        "issuer",
        "add it to `hosts`",
    ),
    (
        "token_url = \"https://id.exa\\tmple/t\"",
        "token_url",
        "write it as",
    ),
    ("hosts = [\"x.example\"]", "token_url", "add it to `hosts`"),
    (
        "authorize_url = \"ftp://id.example/\"",
        "authorize_url",
        "write it as",
    ),
    (
        "authorize_url = \"https://evil.example/\"",
        "authorize_url",
        "host evil.example is not",
    ),
    (
        "revoke_url = \"https://u:p@id.example/\"",
        "revoke_url",
        "remove it",
    ),
    (
        "revoke_url = \"https://id.example/#f\"",
        "revoke_url",
        "remove it",
    ),
    (
        "device_authorization_url = \"http://id.example/\"",
        "device_authorization_url",
        "use https",
    ),
    (
        "hosts = [\"https://id.example\"]",
        "hosts",
        "without scheme, port and path",
    ),
    (
        "hosts = [\"id.example:443\"]",
        "hosts",
        "without scheme, port and path",
    ),
    ("hosts = \"id.example\"", "hosts", "correct it"),
    ("client_id = \"a b\"", "client_id", "mend it"),
    (
        "client_secret = { env = \"X\" }",
        "client_secret",
        "choose \"basic\" or \"post\"",
    ),
    (
        "client_auth = \"none\"\nclient_secret = { env = \"X\" }",
        "client_secret",
        "remove it",
    ),
    ("client_auth = \"post\"", "client_secret", "set it"),
    (
        "client_auth = \"post\"\nclient_secret = \"s3cret\"",
        "client_secret",
        "never the secret itself",
    ),
    (
        "client_auth = \"post\"\nclient_secret = { env = \"\" }",
        "client_secret",
        "mend it",
    ),
    (
        "client_auth = \"post\"\nclient_secret = { file = \"secret\" }",
        "client_secret",
        "from the root",
    ),
    ("client_auth = \"mtls\"", "client_auth", "unknown variant `mtls`"),
    ("scopes = [\"a b\"]", "scopes", "mend it"),
    (
        "scope_on_refresh = \"no\"",
        "scope_on_refresh",
        "expected a boolean",
    ),
    (
        "authorize_params = { state = \"x\" }",
        "authorize_params",
        "state is set by the broker; remove it",
    ),
    (
        "authorize_params = { prompt = \"\" }",
        "authorize_params",
        "mend it",
    ),
    (
        "redirects = [{ kind = \"iframe\" }]",
        "redirects",
        "unknown variant `iframe`",
    ),
    (
        "redirects = [{ kind = \"loopback\", host = \"0.0.0.0\", ports = [], path = \"/\" }]",
        "redirects.host",
        "a loopback redirect needs one",
    ),
    (
        "redirects = [{ kind = \"loopback\", host = \"::1\", ports = [0], path = \"/\" }]",
        "redirects.ports",
        "leave the list empty",
    ),
    (
        "redirects = [{ kind = \"loopback\", host = \"::1\", ports = [], path = \"cb\" }]",
        "redirects.path",
        "begin with '/'",
    ),
    (
        "redirects = [{ kind = \"paste\", url = \"https://evil.example/\", code = \"code\" }]",
        "redirects.url",
        "add it to `hosts`",
    ),
    (
        "redirects = [{ kind = \"paste\", url = \"https://id.example/\", code = \"both\" }]",
        "redirects",
        "unknown variant `both`",
    ),
    (
        "redirects = [{ kind = \"paste\", url = \"https://id.example/\", code = \"code\", pkce = false }]",
        "redirects.pkce",
        "set it to true, or code = \"code-and-state\"",
    ),
    (
        "pkce = false\nredirects = [{ kind = \"paste\", url = \"https://id.example/\", code = \"code\" }]",
        "redirects.pkce",
        "nothing else shows whose code is pasted",
    ),
    ("pkce = \"S256\"", "pkce", "expected a boolean"),
    (
        "authorize_params = { request_uri = \"urn:x\" }",
        "authorize_params",
        "request_uri is set by the broker; remove it",
    ),
    ("exchange_state = \"yes\"", "exchange_state", "expected a boolean"),
    (
        "revoke_encoding = \"xml\"",
        "revoke_encoding",
        "expected one of `form`, `json`, `query`",
    ),
    ("revoked_errors = [\"a b\"]", "revoked_errors", "mend it"),
    (
        "device_flow = \"own\"",
        "device_flow",
        "expected `rfc8628` or `code`",
    ),
    (
        "device_flow = \"code\"",
        "device_authorization_url",
        "is needed with device_flow = \"code\"",
    ),
    (
        "device_flow = \"code\"\ndevice_authorization_url = \"https://id.example/d\"",
        "device_poll_url",
        "is needed with device_flow = \"code\"",
    ),
    (
        "device_flow = \"code\"\ndevice_authorization_url = \"https://id.example/d\"\n\
         device_poll_url = \"https://evil.example/p\"",
        "device_poll_url",
        "add it to `hosts`",
    ),
    (
        "device_page_url = \"https://id.example/\"",
        "device_page_url",
        "is not used with device_flow = \"rfc8628\"",
    ),
    (
        "device_flow = \"code\"\ndevice_authorization_url = \"https://id.example/d\"\n\
         device_poll_url = \"https://id.example/p\"\ndevice_page_url = \"https://id.example/\"\n\
         device_redirect_uri = \"http://id.example/\"",
        "device_redirect_uri",
        "use https",
    ),
    (
        "exchange_encoding = \"xml\"",
        "exchange_encoding",
        "expected `form` or `json`",
    ),
    (
        "refresh_encoding = \"xml\"",
        "refresh_encoding",
        "expected `form` or `json`",
    ),
    (
        "expiry = \"never\"",
        "expiry",
        "expected `expires-in` or `jwt-exp`",
    ),
    ("error_at = []", "error_at", "name at least one"),
    (
        "error_at = [\"message\"]",
        "error_at",
        "unknown variant `message`",
    ),
    (
        "permanent_errors = [\"invalid_grant\", \"invalid_client\"]",
        "permanent_errors",
        "invalid_client blames the client and never the grant",
    ),
    (
        "permanent_errors = [\"invalid_request\"]",
        "permanent_errors",
        "remove it",
    ),
    ("permanent_errors = [\"\"]", "permanent_errors", "mend it"),
    (
        "unprocessed_errors = [\"invalid_grant\"]",
        "permanent_errors",
        "choose one",
    ),
    (
        "error_causes = { invalid_grant = \"lost\" }",
        "error_causes",
        "unknown variant `lost`",
    ),
    ("permanent_statuses = [503]", "permanent_statuses", "400 to 499"),
    (
        "permanent_statuses = [429]",
        "permanent_statuses",
        "not also unprocessed",
    ),
    ("unprocessed_errors = [\"a b\"]", "unprocessed_errors", "mend it"),
    (
        "unprocessed_statuses = [200]",
        "unprocessed_statuses",
        "400 to 599",
    ),
    ("quirks = [\"anything\"]", "quirks", "unknown variant `anything`"),
    ("rotates = \"maybe\"", "rotates", "expected a boolean"),
    (
        "revoke_ends_access = 1",
        "revoke_ends_access",
        "expected a boolean",
    ),
    (
        "revoke_scope = \"grant\"",
        "revoke_scope",
        "expected `token` or `account`",
    ),
    (
        "old_access_survives = 1",
        "old_access_survives",
        "expected a boolean",
    ),
    ("grace_seconds = -1", "grace_seconds", "correct it"),
    ("grace_seconds = 0", "grace_seconds", "or remove it"),
    ("grace_seconds = 86401", "grace_seconds", "choose less"),
    ("lead_seconds = 86401", "lead_seconds", "choose less"),
    (
        "sharing = \"everybody\"",
        "sharing",
        "expected `personal` or `any`",
    ),
    (
        "account = [{ label = \"l\", from = \"answer\", pointer = \"id\" }]",
        "account.pointer",
        "begin with '/'",
    ),
    (
        "account = [{ label = \"a b\", from = \"answer\", pointer = \"/id\" }]",
        "account.label",
        "mend it",
    ),
    (
        "account = [{ label = \"l\", from = \"header\", pointer = \"/id\" }]",
        "account",
        "unknown variant `header`",
    ),
    ("test_url = \"http://id.example/me\"", "test_url", "use https"),
    (
        "test_url = \"https://evil.example/me\"",
        "test_url",
        "host evil.example is not",
    ),
    ("sources = [\"\"]", "sources", "mend it"),
];

// req: N10
#[test]
fn a_wrong_value_of_any_key_is_told_with_file_key_and_remedy() {
    for (more, key, remedy) in WRONG {
        let mut table: Table =
            toml::from_str("token_url = \"https://id.example/token\"\nclient_id = \"c\"").unwrap();
        table.extend(toml::from_str::<Table>(more).unwrap());
        let error = Connectors::load("broker.toml", &[("acme".to_owned(), table)].into()).unwrap_err();
        let said = error.to_string();
        let place = format!("broker.toml: connectors.acme.{key}: ");
        assert!(
            said.starts_with(&place) && said.contains(remedy),
            "{more}\n{said}"
        );
        assert!(!said.contains("s3cret"), "{said}");
    }
    let tried = |key: &&&str| {
        !WRONG
            .iter()
            .any(|(_, blamed, _)| blamed.split('.').next() == Some(**key))
    };
    let untried: Vec<_> = KEYS.iter().filter(tried).collect();
    assert_eq!(untried, [&""; 0], "keys without a wrong value here");
}

/// The words that `key` takes, as its own error tells them.
fn words_of(key: &str) -> Vec<String> {
    let wrong = match key.split_once('.') {
        None if matches!(key, "error_at" | "quirks") => format!("{key} = [\"?\"]"),
        None if key == "error_causes" => "error_causes = { invalid_grant = \"?\" }".to_owned(),
        None if key == "client_secret" => "client_secret = { \"?\" = \"x\" }".to_owned(),
        None => format!("{key} = \"?\""),
        Some(("redirects", "kind")) => "redirects = [{ kind = \"?\" }]".to_owned(),
        Some(("redirects", "code")) => {
            "redirects = [{ kind = \"paste\", url = \"https://id.example/\", code = \"?\" }]".to_owned()
        }
        Some(_) => "account = [{ label = \"l\", from = \"?\", pointer = \"/x\" }]".to_owned(),
    };
    let said = acme(&format!("{wrong}\n")).unwrap_err().to_string();
    let (_, expected) = said.split_once("expected ").unwrap_or_else(|| panic!("{said}"));
    let words = expected.split('`').skip(1).step_by(2);
    words.map(str::to_owned).collect()
}

// req: N10
#[test]
fn the_list_of_choices_is_what_the_keys_take() {
    let keys: BTreeSet<_> = CHOICES.iter().map(|choice| choice.key).collect();
    for key in keys {
        let listed: BTreeSet<_> = CHOICES
            .iter()
            .filter(|choice| choice.key == key)
            .map(|choice| choice.value.to_owned())
            .collect();
        assert_eq!(
            words_of(key).into_iter().collect::<BTreeSet<_>>(),
            listed,
            "{key}"
        );
    }
}

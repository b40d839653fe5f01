//! The configuration as an operator meets it: the shipped file, precedence, faults, reload.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use credbroker::config::{Apply, Config, ConfigError, KEYS, LogFormat, Origin, Reload};

const SHIPPED: &str = include_str!("../deploy/credbrokerd.toml");
const FILE: &str = "/etc/credbroker/credbrokerd.toml";

fn parse_with(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let env: HashMap<_, _> = env.iter().copied().collect();
    Config::parse(text, Path::new(FILE), &|name| {
        env.get(name).map(|value| (*value).to_owned())
    })
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    parse_with(text, &[])
}

fn refusal(text: &str, env: &[(&str, &str)]) -> String {
    parse_with(text, env).expect_err(text).to_string()
}

#[test]
fn the_shipped_file_equals_the_defaults() {
    let shipped = parse(SHIPPED).unwrap();
    let defaults = parse("").unwrap();
    assert_eq!(defaults.reloadable_diff(&shipped), Reload::default());
    assert_eq!(format!("{shipped:?}"), format!("{defaults:?}"));
    assert_eq!(defaults.listen.address.to_string(), "127.0.0.1:7420");
    assert_eq!(
        defaults.identity.certificate_lifetime,
        Duration::from_secs(24 * 3600)
    );
    assert_eq!(defaults.log.format, LogFormat::Json);
}

/// The last comment line over each key: limits, when a change takes effect, variable.
#[test]
fn the_shipped_file_documents_every_key() {
    let mut section = String::new();
    let mut comment: Vec<&str> = Vec::new();
    let mut seen = Vec::new();
    for line in SHIPPED.lines() {
        if let Some(text) = line.strip_prefix("# ") {
            comment.push(text);
        } else if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_end_matches(']'));
        } else if let Some((name, _)) = line.split_once(" = ") {
            let path = format!("{section}{name}");
            let key = KEYS.iter().find(|key| key.path == path).expect(&path);
            assert!(comment.len() >= 2, "{path}: no description");
            let facts = comment.last().unwrap();
            let when = match key.apply {
                Apply::Reload => "Reload",
                Apply::Restart => "Restart",
            };
            assert!(facts.starts_with(&key.limit.to_string()), "{path}: {facts}");
            assert!(
                facts.ends_with(&format!(". {when}. {}", key.variable())),
                "{path}: {facts}"
            );
            seen.push(key.path);
        }
        if !line.starts_with('#') {
            comment.clear();
        }
    }
    assert_eq!(
        seen,
        KEYS.iter().map(|key| key.path).collect::<Vec<_>>(),
        "in one order"
    );
}

#[test]
fn the_environment_goes_before_the_file_and_the_file_before_the_default() {
    let text = "[listen]\nmax_connections = 7\nmax_concurrent_streams = 9\n[log]\nfilter = \"warn\"";
    let config = parse_with(
        text,
        &[
            ("CREDBROKER_LISTEN_MAX_CONNECTIONS", "8"),
            ("CREDBROKER_LISTEN_SERVER_NAMES", "broker.example, 10.0.0.7"),
            ("CREDBROKER_DRAIN_TIMEOUT", "2m"),
            ("CREDBROKER_DATA_DIR", "/srv/broker"),
            ("CREDBROKER_CONNECTORS_ACCEPT_TERMS", "claude,codex"),
        ],
    )
    .unwrap();
    assert_eq!(config.listen.max_connections, 8);
    assert_eq!(config.listen.max_concurrent_streams, 9);
    assert_eq!(config.listen.max_concurrent_handshakes, 64);
    let names: Vec<_> = config
        .listen
        .server_names
        .iter()
        .map(|name| name.to_str().into_owned())
        .collect();
    assert_eq!(names, ["broker.example", "10.0.0.7"]);
    assert_eq!(config.drain.timeout, Duration::from_secs(120));
    assert_eq!(config.data_dir, Path::new("/srv/broker"));
    assert_eq!(config.connectors.accept_terms, ["claude", "codex"]);
    assert_eq!(config.log.filter, "warn");
}

/// Every key can be overridden: a variable that no value fits is always refused by its own name.
#[test]
fn every_key_listens_to_its_variable() {
    let unfit = |path: &str| match path {
        "registry.files" | "connectors.files" | "connectors.accept_terms" | "listen.server_names" => {
            vec!["x"; 65].join(",")
        }
        "data_dir" => String::new(),
        _ => "no such value\u{7}=".to_owned(),
    };
    for key in KEYS {
        let error = refusal("", &[(&key.variable(), &unfit(key.path))]);
        let expected = format!("environment variable {}: {}: ", key.variable(), key.path);
        assert!(error.starts_with(&expected), "{}: {error}", key.path);
    }
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let config = parse("data_dir = \"state\"\n[registry]\nfiles = [\"more.toml\", \"/srv/x.toml\"]").unwrap();
    assert_eq!(config.data_dir, Path::new("/etc/credbroker/state"));
    assert_eq!(config.registry.files[0], Path::new("/etc/credbroker/more.toml"));
    assert_eq!(config.registry.files[1], Path::new("/srv/x.toml"));
}

#[test]
fn a_fault_names_the_file_the_key_and_the_remedy() {
    for (text, expected) in [
        (
            "[listen]\nadress = \"0.0.0.0:1\"",
            "/etc/credbroker/credbrokerd.toml, line 2: there is no key 'listen.adress'. Did you mean 'listen.address'?",
        ),
        (
            "[journal]\nmax_waiters = 1",
            "/etc/credbroker/credbrokerd.toml, line 2: there is no key 'journal.max_waiters'. Did you mean 'refresh.max_waiters'?",
        ),
        (
            "[nonsense]\nentirely = 1",
            "/etc/credbroker/credbrokerd.toml, line 1: there is no key 'nonsense'. \
             Remove it; deploy/credbrokerd.toml has every key there is.",
        ),
        (
            "[refresh]\n\nexchange_timeout = 30",
            "/etc/credbroker/credbrokerd.toml: refresh.exchange_timeout: invalid type: integer `30`, \
             expected a string. Mend line 3.",
        ),
        (
            "leases = { lifetime = \"soon\" }",
            "/etc/credbroker/credbrokerd.toml: leases.lifetime: not a length of time; \
             write it as \"30s\", \"5m\" or \"24h\". Mend line 1.",
        ),
        (
            "[listen]\nmax_connections = 0",
            "/etc/credbroker/credbrokerd.toml: listen.max_connections: out of range. Set it to 1 to 1000000.",
        ),
        (
            "[leases]\npersonal_parallelism = 201",
            "/etc/credbroker/credbrokerd.toml: leases.personal_parallelism: out of range. Set it to 1 to 200.",
        ),
        (
            "[leases]\nlifetime = \"31d\"",
            "/etc/credbroker/credbrokerd.toml: leases.lifetime: out of range. Set it to 1m to 30d.",
        ),
        (
            "[identity]\ntrust_domain = \"Broker.Example\"",
            "/etc/credbroker/credbrokerd.toml: identity.trust_domain: not a SPIFFE trust domain. \
             Use 1 to 255 of a-z, 0-9, '.', '-' and '_'.",
        ),
        (
            "[refresh]\nexchange_timeout = \"1m\"",
            "the built-in default: drain.timeout: less than refresh.exchange_timeout. Raise it, or lower \
             refresh.exchange_timeout: an exchange that is cut off may lose a grant. It is not set: set it in \
             /etc/credbroker/credbrokerd.toml.",
        ),
    ] {
        assert_eq!(refusal(text, &[]), expected);
    }
}

#[test]
fn further_faults_are_refused() {
    for text in [
        "[listen]\naddress = \"localhost:7420\"",
        "[listen]\nserver_names = []",
        "[listen]\nserver_names = [\"https://broker\"]",
        "[listen]\nmax_message_bytes = -1",
        "[identity]\ntrust_domain = \"\"",
        "[leases]\nlifetime = \"2m\"\n[refresh]\nminimum_remaining_default = \"3m\"",
        "[refresh]\nmax_concurrent_exchanges = 4\nmax_concurrent_exchanges_per_connector = 5",
        "[log]\nformat = \"xml\"",
        "[log]\nfilter = \"credbroker=loud\"",
        "[log]\nfilter = \"inof\"",
        "[registry]\nfiles = [\"\"]",
        "data_dir = \"\"",
    ] {
        assert!(matches!(parse(text), Err(ConfigError::Value { .. })), "{text}");
    }
}

/// The parser's own rendering quotes the line; somebody may have pasted a key there.
#[test]
fn a_syntax_error_gives_the_line_number_and_not_the_line() {
    let error = refusal("[log]\nfilter = \"info\"\nsk-ant-s3cret\n", &[]);
    assert!(
        error.starts_with("/etc/credbroker/credbrokerd.toml, line 3: not TOML: "),
        "{error}"
    );
    assert!(!error.contains("s3cret"), "{error}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.toml");
    let error = Config::load(&path, &|_| None).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with(&format!("{}: cannot be read: ", path.display())),
        "{error}"
    );
    std::fs::write(&path, SHIPPED).unwrap();
    assert!(Config::load(&path, &|_| None).is_ok());
}

#[test]
fn origins_tell_file_environment_and_default_apart() {
    let origin = |result: Result<Config, ConfigError>| match result {
        Err(ConfigError::Value { origin, .. }) => origin,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        origin(parse("[listen]\naddress = \"x\"")),
        Origin::File(FILE.into())
    );
    assert_eq!(
        origin(parse_with(
            "[listen]\naddress = \"[::]:1\"",
            &[("CREDBROKER_LISTEN_ADDRESS", "x")]
        )),
        Origin::Environment("CREDBROKER_LISTEN_ADDRESS".into())
    );
    assert_eq!(
        origin(parse("[refresh]\nexchange_timeout = \"2m\"")),
        Origin::Default
    );
}

#[test]
fn a_reload_tells_what_it_takes_and_what_waits() {
    let old = parse("").unwrap();
    let new = parse("[log]\nfilter = \"debug\"\nformat = \"pretty\"\n[leases]\nlifetime = \"2h\"").unwrap();
    let reload = old.reloadable_diff(&new);
    assert_eq!(reload.changed_reloadable, ["leases.lifetime", "log.filter"]);
    assert_eq!(reload.needs_restart, ["log.format"]);
    let same = parse("[leases]\nlifetime = \"60m\"").unwrap();
    assert_eq!(
        old.reloadable_diff(&same),
        Reload::default(),
        "the same time written otherwise is no change"
    );
}

/// What a reload says that it took is in force then, whichever key it is.
#[test]
fn a_reload_takes_every_key_that_it_may() {
    let text = r#"
[enrollment]
renewal_grace = "1d"
[agents]
heartbeat_interval = "1m"
unseen_expiry = "1d"
collect_after = "1d"
[refresh]
minimum_remaining_default = "1m 1s"
forced_rotations_per_hour_per_credential = 1
forced_rotations_per_hour_per_agent = 1
rejections_in_a_row = 1
ahead = false
ahead_window = "1m"
[leases]
lifetime = "2h"
personal_parallelism = 4
[store]
reserved_bytes = 1
[log]
filter = "debug"
[drain]
timeout = "1m"
[watch]
heartbeat = "1s"
[metered]
allow_all = false
key_files = { anthropic = "a" }
[shared]
dispatches_per_day = 1
key_files = { anthropic = "a" }
[proxy]
base_url = "https://proxy.example"
base_urls = { anthropic = "https://proxy.example" }
grant_lifetime = "1m"
raw_keys_to = ["agents"]
"#;
    let (mut config, new) = (parse("").unwrap(), parse(text).unwrap());
    let reloadable = KEYS.iter().filter(|key| key.apply == Apply::Reload);
    let reloadable: Vec<_> = reloadable.map(|key| key.path).collect();
    assert_eq!(config.reloadable_diff(&new).changed_reloadable, reloadable);
    config.take_reloadable(&new);
    assert_eq!(format!("{config:?}"), format!("{new:?}"));
}

#[test]
fn a_connector_has_a_quarter_of_the_places_where_it_is_not_said() {
    let of = |text: &str| {
        let refresh = parse(&format!("[refresh]\n{text}")).unwrap().refresh;
        refresh.max_concurrent_exchanges_per_connector
    };
    assert_eq!(of(""), 64);
    assert_eq!(of("max_concurrent_exchanges = 3"), 1, "never none");
    assert_eq!(of("max_concurrent_exchanges_per_connector = 256"), 256);
}

// req: E8 E9
#[test]
fn the_model_proxy_and_who_gets_keys_are_checked() {
    for (text, told) in [
        (
            "base_url = \"http://proxy.example\"",
            "proxy.base_url: not the URL",
        ),
        (
            "base_url = \"https://p.example/{model}\"",
            "proxy.base_url: not the URL",
        ),
        ("base_urls = { a = \"proxy\" }", "proxy.base_urls: a: not the URL"),
        ("grant_lifetime = \"2d\"", "proxy.grant_lifetime: out of range"),
        ("raw_keys_to = [\"everybody\"]", "proxy.raw_keys_to: 'everybody'"),
    ] {
        let error = parse(&format!("[proxy]\n{text}")).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
    let config = parse("[metered]\nkey_files = { anthropic = \"keys/a\", openai = \"/srv/o\" }").unwrap();
    let paths: Vec<_> = config.key_files[0].files.values().collect();
    assert_eq!(paths, [Path::new("/etc/credbroker/keys/a"), Path::new("/srv/o")]);
    assert!(config.key_files[1].files.is_empty());
    let given = [("CREDBROKER_SHARED_KEY_FILES", "anthropic=/srv/a, openai = /srv/o")];
    let path = Path::new("/etc/credbroker/credbrokerd.toml");
    let env = |name: &str| {
        given
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    };
    let config = Config::parse("", path, &env).unwrap();
    assert_eq!(config.key_files[1].files["openai"], Path::new("/srv/o"));
}

// req: D2
#[test]
fn an_issuer_is_checked_before_anything_is_sent_to_it() {
    let good =
        "[[oidc.issuers]]\nissuer = \"https://idp.example/x\"\nclient_id = \"cli\"\norgs = [\"acme\"]\n";
    let config = parse(&format!(
        "{good}audiences = [\"other\", \"cli\"]\nca_file = \"idp.pem\""
    ))
    .unwrap();
    let issuer = &config.issuers[0];
    assert_eq!(issuer.audiences, ["cli", "other"]);
    assert_eq!(issuer.clock_skew, Duration::from_secs(60));
    assert_eq!(
        issuer.ca_file.as_deref(),
        Some(Path::new("/etc/credbroker/idp.pem"))
    );
    let names: Vec<_> = issuer
        .algorithms
        .iter()
        .map(|algorithm| algorithm.name())
        .collect();
    assert_eq!(names, ["RS256", "ES256", "EdDSA"]);
    for (text, told) in [
        (good.replace("https", "http"), "issuer is not the URL"),
        (good.replace("/x", "/x?y"), "issuer is not the URL"),
        (good.replace("\"cli\"", "\"\""), "client_id is empty"),
        (good.replace("[\"acme\"]", "[]"), "orgs is not a list"),
        (good.replace("acme", "Not A Name"), "orgs is not a list"),
        (format!("{good}scopes = [\"email\"]"), "scopes is without"),
        (
            format!("{good}algorithms = [\"none\"]"),
            "algorithms is not a list",
        ),
        (
            format!("{good}algorithms = [\"HS256\"]"),
            "algorithms is not a list",
        ),
        (format!("{good}algorithms = []"), "algorithms is not a list"),
        (format!("{good}clock_skew = \"6m\""), "clock_skew is more"),
        (format!("{good}{good}"), "stands twice"),
        (
            format!("{good}secret = \"x\""),
            "there is no key 'oidc.issuers.secret'",
        ),
    ] {
        let error = refusal(&text, &[]);
        assert!(
            error.contains(told) && error.contains("oidc.issuers"),
            "{text}: {error}"
        );
    }
}

//! Documents that are made from the code are as the code is now, and what they name is there.
//!
//! After a change of the code, `CREDBROKER_BLESS=1 cargo test --test docs` rewrites them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

// The rules of the source tree; only one of them is used here.
#[allow(dead_code)]
#[path = "tidy/rules.rs"]
mod rules;
#[allow(dead_code)]
#[path = "tidy/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use credbroker::domain::conditions::{Chosen, Condition, Outcome, outcome};
use credbroker::domain::mode::AuthMode;
use credbroker::domain::reason::{Class, Fault, Reason};
use credbroker::upstream::connector::KEYS;
use credbroker::upstream::connector::choices::CHOICES;
use credbroker::upstream::connector::load::Connectors;
use source::Source;

/// The gRPC code of a class, by the name of the gRPC specification (`doc/statuscodes.md`).
fn grpc_code(class: Class) -> &'static str {
    match class {
        Class::Unauthenticated => "UNAUTHENTICATED",
        Class::Denied => "PERMISSION_DENIED",
        Class::NotFound => "NOT_FOUND",
        Class::Invalid => "INVALID_ARGUMENT",
        Class::Precondition => "FAILED_PRECONDITION",
        Class::Exists => "ALREADY_EXISTS",
        Class::Aborted => "ABORTED",
        Class::Exhausted => "RESOURCE_EXHAUSTED",
        Class::Unavailable => "UNAVAILABLE",
        Class::TimedOut => "DEADLINE_EXCEEDED",
        Class::Unimplemented => "UNIMPLEMENTED",
        Class::Internal => "INTERNAL",
    }
}

fn who(fault: Fault) -> &'static str {
    match fault {
        Fault::Caller => "the caller",
        Fault::Member => "the member",
        Fault::Admin => "an admin",
        Fault::Provider => "the provider",
        Fault::Broker => "the broker",
    }
}

fn errors() -> String {
    let mut text = String::from(
        "# Errors\n\
         \n\
         <!-- Made from src/domain/reason.rs; CREDBROKER_BLESS=1 cargo test --test docs rewrites it. -->\n\
         \n\
         Every failed call carries a `google.rpc.ErrorInfo` with domain `credbroker` and one of the reasons\n\
         below. Compare the reason, not the message: reasons are never renamed or reused, messages may change.\n\
         Where trying again may help, a `google.rpc.RetryInfo` says when. What a caller may not see is answered\n\
         exactly as what does not exist.\n\
         \n\
         | Reason | gRPC code | Who mends it | What to do |\n\
         | --- | --- | --- | --- |\n",
    );
    for reason in Reason::ALL {
        writeln!(
            text,
            "| `{}` | `{}` | {} | {} |",
            reason.code(),
            grpc_code(reason.class()),
            who(reason.fault()),
            reason.remedy().replace('|', "\\|").replace('<', "&lt;")
        )
        .unwrap();
    }
    text
}

#[test]
fn errors_md_lists_every_reason_as_the_code_has_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
    let expected = errors();
    if std::env::var("CREDBROKER_BLESS").is_ok_and(|value| value == "1") {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let first_difference = expected
        .lines()
        .zip(found.lines())
        .find(|(expected, found)| expected != found);
    assert!(
        found == expected,
        "docs/errors.md is out of date: run CREDBROKER_BLESS=1 cargo test --test docs. \
         First difference (expected, found): {first_difference:?}"
    );
}

/// The order of the modes.
fn order() -> String {
    let names = AuthMode::ORDER.map(|mode| format!("`{}`", mode.name()));
    format!("{}\n", names.join(" > "))
}

/// What the conditions are.
fn conditions() -> String {
    let mut text = String::from("| condition | what it means |\n| --- | --- |\n");
    for condition in Condition::ALL {
        writeln!(text, "| {} | {} |", condition.name(), condition.what()).unwrap();
    }
    text
}

/// What is done about each of them in each mode.
fn outcomes() -> String {
    let mut text = String::from(
        "| mode | condition | one of a set | pinned, or of a running task |\n| --- | --- | --- | --- |\n",
    );
    for mode in AuthMode::ORDER {
        for condition in Condition::ALL.iter().copied() {
            let told = Chosen::ALL.map(|chosen| match outcome(mode, condition, chosen) {
                Outcome::Never => None,
                Outcome::Skip(reason) => Some(format!("skip: `{}`", reason.code())),
                Outcome::Stop(reason) => Some(format!("stop: `{}`", reason.code())),
                Outcome::FallBack(reason) if condition == Condition::Lapsed => Some(format!(
                    "**fall back** to `metered`; where that is not permitted, stop: `{}`",
                    reason.code()
                )),
                Outcome::FallBack(reason) => Some(format!(
                    "with `on_rejection = \"next\"` **fall back** to the next key of one's own, else stop: `{}`",
                    reason.code()
                )),
            });
            let [Some(set), Some(settled)] = told else {
                continue;
            };
            let (mode, condition) = (mode.name(), condition.name());
            writeln!(text, "| `{mode}` | {condition} | {set} | {settled} |").unwrap();
        }
    }
    text
}

/// The document with `made` between the two comments that name it.
fn with_part(document: &str, name: &str, made: &str) -> String {
    let (begin, end) = (format!("<!-- made: {name} -->\n"), "<!-- end -->");
    let (before, rest) = document
        .split_once(&begin)
        .unwrap_or_else(|| panic!("no {begin:?} in the document"));
    let (_, after) = rest.split_once(end).expect("an end for every beginning");
    format!("{before}{begin}\n{made}\n{end}{after}")
}

// req: E4 N5
#[test]
fn auth_modes_md_has_the_table_as_the_code_has_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/auth-modes.md");
    let found = std::fs::read_to_string(&path).unwrap();
    let expected = with_part(&found, "order", &order());
    let expected = with_part(&expected, "conditions", &conditions());
    let expected = with_part(&expected, "outcomes", &outcomes());
    if std::env::var("CREDBROKER_BLESS").is_ok_and(|value| value == "1") {
        std::fs::write(&path, &expected).unwrap();
        return;
    }
    assert!(
        found == expected,
        "docs/auth-modes.md is out of date: run CREDBROKER_BLESS=1 cargo test --test docs"
    );
}

/// Whether a connector's table says `value` at `key`.
fn says(table: &toml::Table, key: &str, value: &str) -> bool {
    let (key, inner) = key.split_once('.').unwrap_or((key, ""));
    let is = |found: &toml::Value| found.as_str() == Some(value);
    match table.get(key) {
        Some(toml::Value::Array(all)) if inner.is_empty() => all.iter().any(is),
        Some(toml::Value::Array(all)) => all.iter().any(|one| one.get(inner).is_some_and(is)),
        Some(toml::Value::Table(pairs)) => pairs.contains_key(value) || pairs.values().any(is),
        found => found.is_some_and(is),
    }
}

/// The words that connectors choose from, and which shipped ones choose them.
fn choices() -> String {
    let read = |name: &str| -> toml::Table {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("registry/connectors/{name}.toml"));
        toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    let shipped = ["claude", "google", "openai"].map(|name| (name, read(name)));
    let base = read("generic");
    let mut text = String::from(
        "| key | value | what it means | quirk | chosen by | source |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for choice in CHOICES {
        let of_base = says(&base, choice.key, choice.value).then_some("by default");
        let named = shipped
            .iter()
            .filter(|(_, table)| says(table, choice.key, choice.value));
        let by: Vec<_> = of_base.into_iter().chain(named.map(|(name, _)| *name)).collect();
        writeln!(
            text,
            "| `{}` | `{}` | {} | {} | {} | {} |",
            choice.key,
            choice.value,
            choice.what,
            if choice.standard { "" } else { "yes" },
            by.join(", "),
            choice.source
        )
        .unwrap();
    }
    text
}

// req: N10
#[test]
fn connectors_md_has_every_key_and_the_choices_as_the_code_has_them() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/connectors.md");
    let found = std::fs::read_to_string(&path).unwrap();
    for key in KEYS {
        let row = format!("\n| `{key}` |");
        assert!(found.contains(&row), "docs/connectors.md has no row for {key}");
    }
    let expected = with_part(&found, "choices", &choices());
    if std::env::var("CREDBROKER_BLESS").is_ok_and(|value| value == "1") {
        std::fs::write(&path, &expected).unwrap();
        return;
    }
    assert!(
        found == expected,
        "docs/connectors.md is out of date: run CREDBROKER_BLESS=1 cargo test --test docs"
    );
    // What it says to write is taken.
    let examples = found.split("```toml\n").skip(1);
    let examples = examples.map(|rest| rest.split("```").next().unwrap());
    let mut loaded = 0;
    for example in examples.filter(|text| text.contains("[connectors.")) {
        let connectors = Connectors::load_text("docs/connectors.md", example).unwrap();
        assert!(connectors.iter().any(|connector| connector.usable().is_ok()));
        loaded += 1;
    }
    assert!(loaded >= 3, "{loaded} examples");
}

#[test]
fn the_threat_model_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/threat-model.md")).unwrap();
    let named: BTreeSet<&str> = text
        .lines()
        .flat_map(|line| line.split('`'))
        .filter(|word| word.starts_with("tests/"))
        .collect();
    assert!(named.len() > 60, "the names of tests were not found: {named:?}");
    let files: BTreeSet<&str> = named.iter().filter_map(|test| test.split("::").next()).collect();
    let sources: Vec<Source> = files
        .iter()
        .filter_map(|file| Some(Source::new(file, &std::fs::read_to_string(root.join(file)).ok()?)))
        .collect();
    let missing: Vec<&&str> = named
        .iter()
        .filter(|test| !rules::is_there(test, &sources))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/threat-model.md names what is not there: {missing:#?}"
    );
}

//! The source tree keeps its shape: who imports whom, where the engine and the clock are named, that secrets
//! are not printable, that files stay readable, and that the table of requirements tells the truth.
//!
//! Every rule is tried on a sample that breaks it and on one that looks alike and is right.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::path::{Path, PathBuf};

use source::Source;

type Rule = fn(&[Source]) -> Vec<String>;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All of our Rust files.
fn tree() -> Vec<Source> {
    let mut folders: Vec<PathBuf> = ["src", "tests", "benches"]
        .iter()
        .map(|name| root().join(name))
        .collect();
    let mut files = vec![root().join("build.rs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

fn read(file: &Path) -> Source {
    let path = file
        .strip_prefix(root())
        .unwrap()
        .to_str()
        .unwrap()
        .replace('\\', "/");
    Source::new(&path, &std::fs::read_to_string(file).unwrap())
}

#[track_caller]
fn holds(rule: Rule) {
    let sources = tree();
    assert!(sources.len() > 20, "the tree was not found");
    let faults = rule(&sources);
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// Faults in one sample file, in a crate of the usual modules.
fn sample(rule: Rule, path: &str, text: &str) -> Vec<String> {
    let mut sources: Vec<Source> = [
        "domain", "clock", "store", "service", "rpc", "pki", "upstream", "proto", "cli",
    ]
    .iter()
    .map(|module| Source::new(&format!("src/{module}/mod.rs"), "//! One of the modules."))
    .collect();
    sources.push(Source::new(path, text));
    rule(&sources)
}

#[track_caller]
fn breaks(rule: Rule, path: &str, text: &str) {
    assert_eq!(sample(rule, path, text).len(), 1, "{path}: {text}");
}

#[track_caller]
fn fits(rule: Rule, path: &str, text: &str) {
    assert_eq!(sample(rule, path, text), Vec::<String>::new(), "{path}: {text}");
}

#[test]
fn modules_import_only_what_they_may() {
    holds(rules::imports);
}

#[test]
fn the_import_rule_catches() {
    let rule = rules::imports;
    breaks(rule, "src/store/keys.rs", "use crate::service::Resolver;");
    breaks(rule, "src/store/keys.rs", "use crate::{domain::id::Id, service};");
    breaks(rule, "src/store/keys.rs", "use super::super::service::x;");
    breaks(rule, "src/store/keys.rs", "fn f() { crate::rpc::serve() }");
    breaks(
        rule,
        "src/store/keys.rs",
        "mod inner { use super::super::super::rpc::x; }",
    );
    breaks(rule, "src/domain/id.rs", "use crate::clock::Clock;");
    breaks(rule, "src/service/a.rs", "use crate::proto::Lease;");
    breaks(rule, "src/rpc/a.rs", "use crate::pki::ca::Issuer;");
    breaks(rule, "src/rpc/a.rs", "use crate::store::Kv;");
    breaks(rule, "src/cli/a.rs", "use crate::store::Kv;");
    breaks(
        rule,
        "src/config/registry.rs",
        "use crate::upstream::http::Client;",
    );
    breaks(
        rule,
        "src/bin/credbroker.rs",
        "fn main() { credbroker::store::open() }",
    );
    breaks(rule, "src/novel.rs", "//! A module nobody gave a row.");
    fits(
        rule,
        "src/store/keys.rs",
        "use super::{Kv, sled::Sled}; use crate::domain::id::Id;",
    );
    fits(
        rule,
        "src/store/keys.rs",
        "// use crate::service::x;\nconst A: &str = \"crate::rpc::x\";",
    );
    fits(
        rule,
        "src/store/keys.rs",
        "#[cfg(test)] mod tests { use crate::service::x; }",
    );
    fits(
        rule,
        "src/config/registry.rs",
        "use crate::upstream::connector::Connector;",
    );
    fits(
        rule,
        "src/rpc/a.rs",
        "use crate::{pki::accept::PeerInfo, proto as pb, service::Resolver};",
    );
    fits(rule, "src/daemon.rs", "use crate::{rpc, service, store};");
    fits(
        rule,
        "src/store/keys.rs",
        "fn f<'a>(k: &'a K) -> impl Iterator<Item = u8> + use<'a> { g(k); h(k) }",
    );
}

#[test]
fn the_end_of_a_test_module_ends_its_licence() {
    let text = "#[cfg(test)] mod tests { fn f() { {} } }\nuse crate::rpc::x;";
    breaks(rules::imports, "src/store/keys.rs", text);
    breaks(
        rules::imports,
        "src/store/keys.rs",
        "#[cfg(test)] mod tests;\nfn f() { crate::rpc::x() }",
    );
}

#[test]
fn domain_is_pure() {
    holds(rules::purity);
}

#[test]
fn the_purity_rule_catches() {
    let rule = rules::purity;
    breaks(rule, "src/domain/id.rs", "use serde::Serialize;");
    breaks(rule, "src/domain/id.rs", "async fn f() {}");
    breaks(rule, "src/domain/id.rs", "fn f() { std::fs::read(path) }");
    breaks(rule, "src/domain/id.rs", "use std::{fmt, io::Read};");
    fits(rule, "src/domain/id.rs", "use std::{fmt, time::Duration};");
    fits(rule, "src/store/id.rs", "use serde::Serialize;");
}

#[test]
fn the_engine_is_named_in_one_place() {
    holds(rules::sled);
}

#[test]
fn the_engine_rule_catches() {
    let rule = rules::sled;
    breaks(rule, "src/daemon.rs", "use sled::Db;");
    breaks(rule, "src/store/record.rs", "fn f(db: &sled::Db) {}");
    breaks(rule, "tests/crash.rs", "use {std::fs, sled::Config};");
    fits(rule, "src/store/sled.rs", "use sled::Db;");
    fits(rule, "tests/store_faults.rs", "use sled::Db;");
    fits(rule, "src/store/sled/commit.rs", "use sled::Db;");
    fits(rule, "src/daemon.rs", "use crate::store::{Kv, sled::Sled};");
    fits(
        rule,
        "src/store/mod.rs",
        "//! Of the store.\npub mod sled;\npub use sled::Sled;",
    );
}

#[test]
fn the_clock_is_read_in_one_place() {
    holds(rules::clock);
}

#[test]
fn the_clock_rule_catches() {
    let rule = rules::clock;
    breaks(rule, "src/rpc/a.rs", "fn f() { std::time::Instant::now() }");
    breaks(rule, "src/rpc/a.rs", "fn f() { SystemTime::now() }");
    breaks(rule, "src/rpc/a.rs", "fn f() { jiff::Timestamp::now() }");
    breaks(rule, "src/rpc/a.rs", "fn f() { iter.map(uuid::Uuid::now_v7) }");
    fits(rule, "src/clock.rs", "fn f() { Instant::now() }");
    fits(
        rule,
        "src/rpc/a.rs",
        "/// Not `Instant::now()`.\nfn f() { self.clock.now() }",
    );
}

#[test]
fn no_secret_is_printable() {
    holds(rules::debug);
}

#[test]
fn the_secret_rule_catches() {
    let rule = rules::debug;
    breaks(
        rule,
        "src/a.rs",
        "#[derive(Clone, Debug)]\npub struct Grant { token: Secret<RefreshToken> }",
    );
    breaks(
        rule,
        "src/a.rs",
        "#[derive(Debug)] struct Key(Zeroizing<[u8; 32]>);",
    );
    breaks(
        rule,
        "src/a.rs",
        "#[derive(Debug)] #[repr(u8)] enum E { A { b: Option<Secret<K>> }, C }",
    );
    breaks(
        rule,
        "src/a.rs",
        "#[derive(Debug)] pub struct Secret<K>(Vec<u8>, K);",
    );
    breaks(
        rule,
        "src/a.rs",
        "#[derive(clap::Args, Debug)] struct Login { #[arg(long)] token: Option<String> }",
    );
    fits(
        rule,
        "src/a.rs",
        "#[derive(Clone)] struct Grant { token: Secret<RefreshToken> }",
    );
    fits(
        rule,
        "src/a.rs",
        "#[derive(Debug)] struct A { b: u8 }\nstruct B { c: Secret<K> }",
    );
    fits(
        rule,
        "src/a.rs",
        "#[derive(Debug)] struct A;\nstruct B { c: Secret<K> }",
    );
    fits(
        rule,
        "src/a.rs",
        "#[derive(Debug)] struct Page { page_token: String, token: TokenId }",
    );
}

#[test]
fn files_stay_readable() {
    holds(rules::length);
}

#[test]
fn the_length_rule_catches() {
    breaks(rules::length, "tests/a.rs", &"\n".repeat(rules::MAX_LINES + 1));
    fits(rules::length, "tests/a.rs", &"\n".repeat(rules::MAX_LINES));
}

#[test]
fn every_module_says_what_it_is_for() {
    holds(rules::module_docs);
}

#[test]
fn the_doc_rule_catches() {
    breaks(rules::module_docs, "src/store/a.rs", "use std::fmt;");
    breaks(rules::module_docs, "src/store/a.rs", "//! store");
    breaks(rules::module_docs, "src/store/a.rs", "");
    fits(
        rules::module_docs,
        "src/store/a.rs",
        "//! The whole keyspace, on one page.\n",
    );
}

#[test]
fn nothing_is_unfinished() {
    holds(rules::unfinished);
}

#[test]
fn the_unfinished_rule_catches() {
    let rule = rules::unfinished;
    breaks(rule, "src/a.rs", "fn f() { todo!() }");
    breaks(rule, "src/a.rs", "fn f() { unimplemented!(\"later\") }");
    breaks(rule, "tests/a.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}");
    breaks(rule, "src/a.rs", concat!("// TO", "DO: later"));
    fits(
        rule,
        "src/a.rs",
        "const A: &str = \"todo!()\"; // What is to do is done.",
    );
}

#[test]
fn the_table_of_requirements_names_what_exists() {
    let Ok(table) = std::fs::read_to_string(root().join("docs/requirements.md")) else {
        return;
    };
    let faults = rules::requirements(&table, &tree());
    assert!(table.contains("\n| K1 |"), "docs/requirements.md has no row K1");
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn the_requirement_rule_catches() {
    let sources = [
        Source::new("src/store/sled.rs", ""),
        Source::new(
            "tests/crash.rs",
            "#[test]\nfn survives_kill() {}\n// fn gone() {}",
        ),
    ];
    for (row, fits) in [
        (
            "| K5 | `src/store/sled.rs` | `tests/crash.rs::survives_kill` |",
            true,
        ),
        (
            "| K5 | the store | tests/crash.rs::survives_kill, tests/crash.rs::survives_kill |",
            true,
        ),
        ("| C8 | later | not yet |", true),
        ("| id | where it lives | tests |", true),
        ("| --- | --- | --- |", true),
        (
            "| K5 | src/store/none.rs | tests/crash.rs::survives_kill |",
            false,
        ),
        ("| K5 | src/store/sled.rs | tests/crash.rs::gone |", false),
        ("| K5 | src/store/sled.rs | tests/none.rs::survives_kill |", false),
        ("| K5 | src/store/sled.rs | tests/crash.rs |", false),
        ("| K5 | src/store/sled.rs | |", false),
        ("| K5 | src/store/sled.rs |", false),
        ("| C8 | later | not yet |\n| C8 | later | not yet |", false),
    ] {
        let faults = rules::requirements(row, &sources);
        assert_eq!(faults.len(), usize::from(!fits), "{row}: {faults:?}");
    }
}

#[test]
fn code_is_told_from_text() {
    let text = r###"/* a /* b */ c */ let s = r#"x " y"#; let c = '"'; let l: &'a str = b"\"z"; '\'' '\u{7d}' end"###;
    let words: Vec<_> = Source::new("a", text)
        .tokens
        .into_iter()
        .map(|token| token.text)
        .collect();
    assert_eq!(words.join(" "), "let s = ; let c = ; let l : & ' a str = ; end");
}

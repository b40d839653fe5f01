//! The rules. Each takes sources and returns what breaks it, one line a fault.

use crate::source::{Named, Source, Token};

/// "Who may import whom": a top module and the paths of ours it may name. `*` is everything.
const IMPORTS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("clock", &["domain"]),
    ("proto", &[]),
    ("store", &["domain", "clock"]),
    ("journal", &["domain", "clock"]),
    ("upstream", &["domain", "clock"]),
    ("pki", &["domain", "clock"]),
    (
        "config",
        &[
            "domain",
            "upstream::connector",
            "upstream::base_url",
            "upstream::key_test",
        ],
    ),
    ("telemetry", &["config"]),
    ("metrics", &["domain"]),
    (
        "service",
        &[
            "domain", "clock", "store", "journal", "upstream", "pki", "metrics",
        ],
    ),
    ("rpc", &["service", "domain", "proto", "clock", "pki::accept"]),
    // Verifying an export is the command's, and pure: no broker and no engine is needed for it.
    ("cli", &["proto", "config", "domain", "clock", "journal::verify"]),
    ("daemon", &["*"]),
    ("dev", &["*"]),
    ("bin/credbroker", &["cli"]),
    ("bin/credbrokerd", &["*"]),
];

/// What the pure rules may not even see: async, I/O, the clock, serialization, transport.
const IMPURE: &[&str] = &[
    "tokio",
    "futures_util",
    "async_trait",
    "tonic",
    "prost",
    "prost_types",
    "hyper",
    "reqwest",
    "rustls",
    "sled",
    "serde",
    "serde_json",
    "toml",
    "tracing",
    "std::fs",
    "std::io",
    "std::env",
    "std::process",
    "std::thread",
    "std::net::TcpStream",
    "std::net::UdpSocket",
];

const CLOCK_READS: &[&[&str]] = &[
    &["SystemTime", "now"],
    &["Instant", "now"],
    &["Timestamp", "now"],
    &["Zoned", "now"],
    &["Utc", "now"],
    &["OffsetDateTime", "now_utc"],
    &["Uuid", "now_v7"],
];

/// The longest file, in lines.
pub(crate) const MAX_LINES: usize = 500;

fn top(source: &Source) -> String {
    let module = source.module();
    match module.first().map(String::as_str) {
        Some("bin") => module.join("/"),
        Some(first) => first.to_owned(),
        None => String::new(),
    }
}

fn begins_with(path: &[String], prefix: &str) -> bool {
    let mut segments = path.iter();
    prefix
        .split("::")
        .all(|wanted| segments.next().is_some_and(|segment| segment == wanted))
}

/// Modules name only those of ours that they may. Unit tests may set their scene as they like.
pub(crate) fn imports(sources: &[Source]) -> Vec<String> {
    let tops: Vec<String> = sources.iter().map(top).collect();
    let mut faults = Vec::new();
    for source in sources.iter().filter(|source| source.path.starts_with("src/")) {
        let top = top(source);
        if top.is_empty() {
            continue;
        }
        let Some((_, allowed)) = IMPORTS.iter().find(|(module, _)| *module == top) else {
            faults.push(source.at(1, "a new top module: give it a row in tests/tidy/rules.rs"));
            continue;
        };
        for named in source.named() {
            let Some(first) = named.segments.first().filter(|_| named.ours && !named.in_test) else {
                continue;
            };
            let fits = *first == top
                || !tops.contains(first)
                || allowed
                    .iter()
                    .any(|allowed| *allowed == "*" || begins_with(&named.segments, allowed));
            if !fits {
                faults.push(source.at(
                    named.line,
                    &format!("{top} may not name {}", named.segments.join("::")),
                ));
            }
        }
    }
    faults
}

/// `domain` is pure.
pub(crate) fn purity(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources.iter().filter(|source| top(source) == "domain") {
        for token in source
            .tokens
            .iter()
            .filter(|token| matches!(token.text.as_str(), "async" | "await"))
        {
            faults.push(source.at(token.line, "domain is not async"));
        }
        for named in source.named() {
            let impure = IMPURE.iter().find(|impure| begins_with(&named.segments, impure));
            if let Some(impure) = impure.filter(|_| !named.ours && !named.in_test) {
                faults.push(source.at(named.line, &format!("domain is pure and may not name {impure}")));
            }
        }
    }
    faults
}

/// The storage engine is named in one place. Tests of the store may damage its files behind its back.
pub(crate) fn sled(sources: &[Source]) -> Vec<String> {
    let elsewhere = sources.iter().filter(|source| {
        !["src/store/sled", "tests/store_"]
            .iter()
            .any(|place| source.path.starts_with(place))
    });
    // Beside a module of ours that is called so, the name means the module.
    let elsewhere = elsewhere.filter(|source| !has(&source.tokens, &["mod", "sled"]));
    faults_by_path(elsewhere, "sled is named only in src/store/sled", |named| {
        !named.ours && named.segments[0] == "sled"
    })
}

/// The machine's clocks are read in one place.
pub(crate) fn clock(sources: &[Source]) -> Vec<String> {
    let elsewhere = sources
        .iter()
        .filter(|source| source.path.starts_with("src/") && source.path != "src/clock.rs");
    faults_by_path(elsewhere, "take a crate::clock::Clock", |named| {
        CLOCK_READS.iter().any(|read| ends_with(&named.segments, read))
    })
}

fn ends_with(path: &[String], suffix: &[&str]) -> bool {
    let start = path.len().saturating_sub(suffix.len());
    path[start..].iter().eq(suffix)
}

fn faults_by_path<'a>(
    sources: impl Iterator<Item = &'a Source>,
    what: &str,
    broken: impl Fn(&Named) -> bool,
) -> Vec<String> {
    sources
        .flat_map(|source| {
            let named = source.named();
            let broken = named.into_iter().filter(&broken);
            broken
                .map(|named| source.at(named.line, what))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// What holds a secret derives no `Debug`; the secrets of tests are none.
pub(crate) fn debug(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources.iter().filter(|source| source.path.starts_with("src/")) {
        let tokens = &source.tokens;
        for start in 0..tokens.len() {
            if !has_at(tokens, start, &["#", "[", "derive", "("]) {
                continue;
            }
            let derive = until(tokens, start, "]");
            let item = item(&tokens[start + derive.len()..]);
            let holds = item.iter().any(|token| is_secret_type(&token.text)) || has_plain_secret(item);
            if derive.iter().any(|token| token.text == "Debug") && holds {
                faults.push(source.at(
                    tokens[start].line,
                    "derives Debug and holds a secret: write it by hand",
                ));
            }
        }
    }
    faults
}

fn is_secret_type(word: &str) -> bool {
    matches!(
        word,
        "Secret" | "Zeroizing" | "SecretString" | "SecretBox" | "SecretVec"
    )
}

/// A field of a telling name that is bare text or bytes.
fn has_plain_secret(item: &[Token]) -> bool {
    const NAMES: &[&str] = &[
        "secret",
        "password",
        "passphrase",
        "token",
        "access_token",
        "refresh_token",
        "client_secret",
        "runtime_key",
        "private_key",
        "secret_access_key",
        "session_token",
    ];
    (0..item.len()).any(|i| {
        NAMES.contains(&item[i].text.as_str())
            && [
                &[":", "String"][..],
                &[":", "Option", "<", "String"],
                &[":", "Vec", "<", "u8"],
            ]
            .iter()
            .any(|field| has_at(item, i + 1, field))
    })
}

/// The rest of the attributes and the item after them, to the end of its body.
fn item(tokens: &[Token]) -> &[Token] {
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" if depth <= 1 => return &tokens[..i],
            "}" => depth -= 1,
            ";" if depth == 0 => return &tokens[..i],
            _ => {}
        }
    }
    tokens
}

fn until<'a>(tokens: &'a [Token], start: usize, end: &str) -> &'a [Token] {
    let length = tokens[start..]
        .iter()
        .take_while(|token| token.text != end)
        .count();
    &tokens[start..(start + length + 1).min(tokens.len())]
}

fn has(tokens: &[Token], wanted: &[&str]) -> bool {
    (0..tokens.len()).any(|i| has_at(tokens, i, wanted))
}

fn has_at(tokens: &[Token], at: usize, wanted: &[&str]) -> bool {
    let found = tokens.iter().skip(at).map(|token| token.text.as_str());
    found.take(wanted.len()).eq(wanted.iter().copied())
}

/// No file is longer than people read.
pub(crate) fn length(sources: &[Source]) -> Vec<String> {
    let lines = |source: &Source| source.text.lines().count();
    let long = sources.iter().filter(|source| lines(source) > MAX_LINES);
    long.map(|source| source.at(lines(source), &format!("past {MAX_LINES} lines: split it")))
        .collect()
}

/// Every module says what it is for, in more than its name.
pub(crate) fn module_docs(sources: &[Source]) -> Vec<String> {
    let modules = sources.iter().filter(|source| source.path.starts_with("src/"));
    let bare = modules.filter(|source| {
        let first = source
            .text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("//!"));
        first.is_none_or(|doc| doc.split_whitespace().count() < 3)
    });
    bare.map(|source| source.at(1, "begin with a `//!` line that says what the module is for"))
        .collect()
}

/// Nothing is left for later, and no test is switched off.
pub(crate) fn unfinished(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources {
        for i in 0..source.tokens.len() {
            let left = [&["todo", "!"][..], &["unimplemented", "!"], &["#", "[", "ignore"]]
                .iter()
                .any(|wanted| has_at(&source.tokens, i, wanted));
            if left {
                faults.push(source.at(source.tokens[i].line, "unfinished"));
            }
        }
        for (line, comment) in &source.comments {
            if ["TODO", "FIXME", "XXX"].iter().any(|mark| comment.contains(mark)) {
                faults.push(source.at(*line, "a note for later: do it, or make it an issue"));
            }
        }
    }
    faults
}

/// The rows of `docs/requirements.md`, `| K1 | where it lives | tests/file.rs::test_name, … |`: the files are
/// there, and the tests in them. A row without a test says `not yet` in their place.
pub(crate) fn requirements(table: &str, sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut seen = Vec::new();
    for (line, row) in (1..).zip(table.lines()) {
        let mut fault = |what: String| faults.push(format!("docs/requirements.md:{line}: {what}"));
        let cells: Vec<&str> = row.trim().trim_matches('|').split('|').map(str::trim).collect();
        let Some(id) = cells.first().filter(|id| row.starts_with('|') && is_row_id(id)) else {
            continue;
        };
        let [_, lives, tests] = cells[..] else {
            fault(format!("{id}: three cells, not {}", cells.len()));
            continue;
        };
        if seen.contains(id) {
            fault(format!("{id} stands twice"));
        }
        seen.push(id);
        for file in files_in(lives).filter(|file| file.starts_with("src/") && file.ends_with(".rs")) {
            if !sources.iter().any(|source| source.path == file) {
                fault(format!("{id}: there is no {file}"));
            }
        }
        let mut named = files_in(tests).filter(|test| test.contains('/')).peekable();
        if named.peek().is_none() && !tests.starts_with("not yet") {
            fault(format!("{id}: no test, and not marked `not yet`"));
        }
        for test in named {
            if !is_there(test, sources) {
                fault(format!("{id}: there is no test {test}"));
            }
        }
    }
    faults
}

/// Whether there is such a test: `tests/file.rs::test_name`.
pub(crate) fn is_there(test: &str, sources: &[Source]) -> bool {
    let (file, function) = test.split_once("::").unwrap_or((test, ""));
    let source = sources.iter().find(|source| source.path == file);
    let name = function.rsplit("::").next().unwrap_or_default();
    source.is_some_and(|source| has(&source.tokens, &["fn", name]))
}

fn is_row_id(text: &str) -> bool {
    let digits = text.trim_start_matches(|c: char| c.is_ascii_uppercase());
    digits.len() < text.len() && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn files_in(cell: &str) -> impl Iterator<Item = &str> {
    cell.split([',', ' ', '`', ';'])
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| !word.is_empty())
}

//! What `docs/tokens.md` tells secret scanners is so: its expressions, and its program.

use std::io::Write as _;
use std::process::{Command, Stdio};

use credbroker::domain::grant_token::{GrantClaims, GrantKey, KEY_LENGTH};
use credbroker::domain::id::Id;
use credbroker::domain::secret::{Exposure, Secret};
use credbroker::domain::time::Time;
use credbroker::domain::token::{
    ApiKeyFamily, ApprovalFamily, EnrollmentFamily, Family, FamilyName, OperatorFamily, RuntimeKeyFamily,
    Token,
};

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tokens.md");
    std::fs::read_to_string(path).unwrap()
}

fn token<F: Family>(byte: u8) -> String {
    let token = Token::<F>::new(Id::from_bytes([byte; 16]), [byte.wrapping_mul(7); 32]);
    token.reveal().expose_str(Exposure::Inspect).unwrap().to_owned()
}

fn proxy_grant(byte: u8) -> String {
    let claims = GrantClaims {
        org: Id::from_bytes([byte; 16]),
        lease: Id::from_bytes([byte; 16]),
        expires: Time::from_seconds(1_800_000_000),
    };
    let key = GrantKey::new(&Secret::new(vec![7; KEY_LENGTH]));
    let token = claims.mint(&key, [byte; 8]);
    token.expose_str(Exposure::Inspect).unwrap().to_owned()
}

fn one_of_each(byte: u8) -> [(FamilyName, String); 6] {
    [
        (FamilyName::Operator, token::<OperatorFamily>(byte)),
        (FamilyName::ApiKey, token::<ApiKeyFamily>(byte)),
        (FamilyName::Enrollment, token::<EnrollmentFamily>(byte)),
        (FamilyName::RuntimeKey, token::<RuntimeKeyFamily>(byte)),
        (FamilyName::Approval, token::<ApprovalFamily>(byte)),
        (FamilyName::ProxyGrant, proxy_grant(byte)),
    ]
}

/// What the page's table of expressions says of a family.
fn expression(page: &str, family: &str) -> String {
    let row = page
        .lines()
        .find(|line| line.starts_with(&format!("| {family} | `\\b")))
        .unwrap_or_else(|| panic!("no expression for {family}"));
    row.split('`').nth(1).unwrap().to_owned()
}

/// Runs the page's program over a text.
fn python(program: &str, input: &str) -> String {
    let mut child = Command::new("python3")
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

// req: D1
#[test]
fn the_expressions_find_tokens_and_no_near_misses() {
    let page = page();
    let any = expression(&page, "any");
    let search = "import re, sys\nfor line in sys.stdin:\n    e, t = line.rstrip('\\n').split('\\t')\n    print(len(re.findall(e, t)))";
    let mut lines = Vec::new();
    let mut expected = Vec::new();
    let mut expect = |expression: &str, text: String, count: usize| {
        lines.push(format!("{expression}\t{text}"));
        expected.push(count.to_string());
    };
    for byte in [0, 1, 0x7f, 0xff] {
        for (family, token) in one_of_each(byte) {
            let own = expression(&page, family.name());
            expect(&own, token.clone(), 1);
            expect(&any, token.clone(), 1);
            expect(&any, format!("Authorization: Bearer {token}, and {token}"), 2);
            // Of another family, cut short, run on, with a character of no base62 digit, in capitals.
            for (other, foreign) in one_of_each(byte) {
                expect(&own, foreign, usize::from(other == family));
            }
            expect(&any, token[..token.len() - 1].to_owned(), 0);
            expect(&any, format!("{token}x"), 0);
            expect(&any, format!("x{token}"), 0);
            expect(&any, token.replacen('_', "-", 1), 0);
            expect(&any, format!("{}-{}", &token[..30], &token[31..]), 0);
            expect(&any, token.to_uppercase(), 0);
        }
    }
    let found = python(search, &(lines.join("\n") + "\n"));
    let found: Vec<_> = found.lines().collect();
    for ((found, expected), line) in found.iter().zip(&expected).zip(&lines) {
        assert_eq!(found, expected, "{line}");
    }
    assert_eq!(found.len(), expected.len());
}

// req: D1
#[test]
fn the_program_tells_tokens_from_what_only_looks_alike() {
    let page = page();
    let program = page
        .split("```python\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let mut text = String::new();
    let mut expected = String::new();
    for byte in 0..=20 {
        for (family, token) in one_of_each(byte) {
            let last = if token.ends_with('0') { '1' } else { '0' };
            let mistyped = format!("{}{last}", &token[..token.len() - 1]);
            text.push_str(&format!("export X={token}\n# {mistyped}\n"));
            expected.push_str(&format!("{}…\n", family.prefix()));
        }
    }
    assert_eq!(python(program, &text), expected);
}

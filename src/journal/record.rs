//! The stored form of a record: compact JSON with fixed fields in a fixed order.
//!
//! The caller's thread writes everything but the place and time, which the writer puts in front. A quotation
//! mark inside a text is always escaped, so [`OPENING`] occurs in stored bytes at their very start only;
//! recovery rests on that.

use std::fmt;
use std::io::Write as _;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::error::JournalError;
use super::value::Chain;
use crate::domain::id::OrgId;
use crate::domain::journal::{Action, Outcome, Phase, Position, Record};
use crate::domain::reason::Reason;
use crate::domain::time::Time;

/// The longest stored form of a record, in bytes.
pub const MAX_RECORD: usize = 16 * 1024;

/// How every stored record begins.
pub(super) const OPENING: &[u8] = b"{\"position\":";

/// Room for the place and time: [`OPENING`], two numbers of at most 20 digits, `,"time":` and a comma.
const PLACE: usize = 64;

/// How a record ended, without the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Allowed, or done.
    Allowed,
    /// Refused.
    Denied,
    /// Allowed, and failed.
    Failed,
}

impl Verdict {
    /// The name stored.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Allowed => "allowed",
            Verdict::Denied => "denied",
            Verdict::Failed => "failed",
        }
    }
}

/// What a stored record says. Actions and reasons stay text, so that those a newer program added can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name of what it is about.
    pub action: String,
    /// Which part of an effect it is.
    pub phase: Phase,
    /// How it ended.
    pub verdict: Verdict,
    /// The code of why it was not allowed or failed; empty where it was.
    pub reason: String,
    /// Who asked.
    pub actor: String,
    /// The org it concerns.
    pub org: Option<OrgId>,
    /// What it concerns, by kind, in the order it was given.
    pub subject: Vec<(String, String)>,
    /// The caller's request id; empty for none.
    pub request_id: String,
}

impl Entry {
    /// What it is about, where this program knows it.
    pub fn action(&self) -> Option<Action> {
        Action::from_name(&self.action)
    }

    /// How it ended, where this program knows the reason.
    pub fn outcome(&self) -> Option<Outcome> {
        match self.verdict {
            Verdict::Allowed => Some(Outcome::Allowed),
            Verdict::Denied => Reason::from_code(&self.reason).map(Outcome::Denied),
            Verdict::Failed => Reason::from_code(&self.reason).map(Outcome::Failed),
        }
    }

    /// The subject of this kind.
    pub fn about(&self, kind: &str) -> Option<&str> {
        let found = self.subject.iter().find(|(name, _)| name == kind);
        found.map(|(_, value)| value.as_str())
    }
}

/// A durable record, with what is needed to prove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its place.
    pub position: Position,
    /// When it was written, by the broker's clock.
    pub time: Time,
    /// The exact stored bytes, which the chain covers: JSON text.
    pub stored: Vec<u8>,
    /// The chain's value after it.
    pub chain: Chain,
    /// What it says.
    pub entry: Entry,
}

/// The stored form but for its place: from `"action"` to the closing brace.
pub(super) fn encode(record: &Record) -> Result<Vec<u8>, JournalError> {
    let (phase, begins) = match record.phase {
        Phase::Single => ("single", 0),
        Phase::Begin => ("begin", 0),
        Phase::Finish(begin) => ("finish", begin.0),
    };
    let (verdict, reason) = match record.outcome {
        Outcome::Allowed => (Verdict::Allowed, ""),
        Outcome::Denied(reason) => (Verdict::Denied, reason.code()),
        Outcome::Failed(reason) => (Verdict::Failed, reason.code()),
    };
    let mut body = Vec::with_capacity(512);
    // Writing to a `Vec` cannot fail, here and below.
    let _ = write!(
        body,
        r#""action":"{}","phase":"{phase}","begins":{begins},"outcome":"{}","reason":"{reason}","actor":"#,
        record.action.name(),
        verdict.name(),
    );
    text(&mut body, &record.actor);
    let _ = match record.org {
        Some(org) => write!(body, r#","org":"{org}","subject":{{"#),
        None => write!(body, r#","org":"","subject":{{"#),
    };
    for (index, (kind, value)) in record.subject.iter().enumerate() {
        if record.subject[..index].iter().any(|(earlier, _)| earlier == kind) {
            return Err(JournalError::RepeatedSubject(kind));
        }
        if index > 0 {
            body.push(b',');
        }
        text(&mut body, kind);
        body.push(b':');
        text(&mut body, value);
    }
    body.extend_from_slice(br#"},"request_id":"#);
    text(&mut body, &record.request_id);
    body.push(b'}');
    if body.len() + PLACE > MAX_RECORD {
        return Err(JournalError::TooLarge {
            bytes: body.len() + PLACE,
        });
    }
    Ok(body)
}

fn text(body: &mut Vec<u8>, text: &str) {
    let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        // What serde_json would write, at a tenth of its cost; nearly every text here is of this kind.
        body.push(b'"');
        body.extend_from_slice(text.as_bytes());
        body.push(b'"');
    } else {
        let _ = serde_json::to_writer(body, text);
    }
}

/// Appends the whole stored form: the place, and then what [`encode`] made.
pub(super) fn place(buffer: &mut Vec<u8>, position: u64, time: Time, body: &[u8]) {
    buffer.extend_from_slice(OPENING);
    let _ = write!(buffer, r#"{position},"time":{},"#, time.millis());
    buffer.extend_from_slice(body);
}

/// Whether the stored bytes say that they are of this position. Cheaper than parsing them.
pub(super) fn is_at(stored: &[u8], position: u64) -> bool {
    let Some(rest) = stored.strip_prefix(OPENING) else {
        return false;
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    rest[digits..].starts_with(b",\"time\":")
        && std::str::from_utf8(&rest[..digits]).is_ok_and(|digits| digits == position.to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    position: u64,
    time: i64,
    action: String,
    phase: String,
    begins: u64,
    outcome: String,
    reason: String,
    actor: String,
    org: String,
    #[serde(deserialize_with = "pairs")]
    subject: Vec<(String, String)>,
    request_id: String,
}

/// Reads stored bytes. `None` where they are no record of this format.
pub(super) fn parse(stored: &[u8]) -> Option<(Position, Time, Entry)> {
    let wire: Wire = serde_json::from_slice(stored).ok()?;
    let phase = match (wire.phase.as_str(), wire.begins) {
        ("single", 0) => Phase::Single,
        ("begin", 0) => Phase::Begin,
        ("finish", begin) => Phase::Finish(Position(begin)),
        _ => return None,
    };
    let verdict = [Verdict::Allowed, Verdict::Denied, Verdict::Failed]
        .into_iter()
        .find(|verdict| verdict.name() == wire.outcome)?;
    let org = match wire.org.as_str() {
        "" => None,
        org => Some(org.parse().ok()?),
    };
    let entry = Entry {
        action: wire.action,
        phase,
        verdict,
        reason: wire.reason,
        actor: wire.actor,
        org,
        subject: wire.subject,
        request_id: wire.request_id,
    };
    Some((Position(wire.position), Time::from_millis(wire.time), entry))
}

/// A JSON object as pairs, in its order.
fn pairs<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(String, String)>, D::Error> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<(String, String)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of texts")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }
    from.deserialize_map(Pairs)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_writes_cannot_look_like_a_record() {
        let hostile = r#"{"position":7,"time":1,"action":"#;
        let record = Record::new(Action::Resolve, hostile, None)
            .about("agent", format!("\n\0{hostile}\u{2028}é"))
            .request(hostile);
        let mut stored = Vec::new();
        place(&mut stored, 9, Time::from_millis(-5), &encode(&record).unwrap());
        let starts = stored.windows(OPENING.len()).filter(|window| *window == OPENING);
        assert_eq!(starts.count(), 1);
        assert!(
            !stored.iter().any(|byte| *byte < 0x20),
            "one line, whatever is in it"
        );
        assert!(is_at(&stored, 9) && !is_at(&stored, 7) && !is_at(&stored, 90));
        let (position, time, entry) = parse(&stored).unwrap();
        assert_eq!((position, time.millis()), (Position(9), -5));
        assert_eq!(entry.actor, hostile);
        assert_eq!(entry.about("agent"), Some(record.subject[0].1.as_str()));
    }

    #[test]
    fn the_programs_faults_are_refused() {
        let record = Record::new(Action::Resolve, "broker", None);
        let twice = record.clone().about("agent", 1).about("agent", 2);
        assert_eq!(encode(&twice), Err(JournalError::RepeatedSubject("agent")));
        let long = record.about("name", "x".repeat(MAX_RECORD));
        assert!(matches!(encode(&long), Err(JournalError::TooLarge { .. })));
    }
}

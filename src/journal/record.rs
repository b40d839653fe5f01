//! The stored form of a record, read: compact JSON with fixed fields in a fixed order. Pure, so that whoever
//! verifies an export has it too.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::value::Chain;
use crate::domain::id::OrgId;
use crate::domain::journal::{Action, Outcome, Phase, Position};
use crate::domain::reason::Reason;
use crate::domain::time::Time;

/// The longest stored form of a record, in bytes.
pub const MAX_RECORD: usize = 16 * 1024;

/// How every stored record begins.
pub(super) const OPENING: &[u8] = b"{\"position\":";

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

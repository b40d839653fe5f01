//! The stored form of a record, written.
//!
//! The caller's thread writes everything but the place and time, which the writer puts in front. A quotation
//! mark inside a text is always escaped, so [`OPENING`] occurs in stored bytes at their very start only;
//! recovery rests on that.

use std::io::Write as _;

use super::error::JournalError;
use super::record::{MAX_RECORD, OPENING, Verdict};
use crate::domain::journal::{Outcome, Phase, Record};
use crate::domain::time::Time;

/// Room for the place and time: [`OPENING`], two numbers of at most 20 digits, `,"time":` and a comma.
const PLACE: usize = 64;

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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::record::{is_at, parse};
    use super::*;
    use crate::domain::journal::{Action, Position};

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

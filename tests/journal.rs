//! The journal through its public interface: what is stored, in which order, and what proves it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "journal/support.rs"]
mod support;

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use credbroker::domain::id::OrgId;
use credbroker::domain::journal::{Action, Outcome, Phase, Position, Record};
use credbroker::domain::reason::Reason;
use credbroker::domain::time::Time;
use credbroker::journal::verify::{self, Broken, VerifyError};
use credbroker::journal::{Chain, Journal, JournalError, Options, PublicKey, Verdict};
use proptest::prelude::*;
use support::{
    all, append_all, begin, check, copy, export, finish, frames, key, open, record, segments, unsigned,
};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/journal");

fn every_form() -> Vec<Record> {
    let org = OrgId::from_bytes([0x11; 16]);
    let resolve = Record::new(Action::Resolve, "agt_1", Some(org)).request("0192-é\"\\\n");
    vec![
        resolve
            .clone()
            .about("task", "tsk_1")
            .about("provider", "anthropic"),
        resolve.clone().outcome(Outcome::Denied(Reason::TaskEnded)),
        resolve.outcome(Outcome::Failed(Reason::RefreshUnavailable)),
        Record::new(Action::Refresh, "broker", None)
            .about("credential", "crd_1")
            .phase(Phase::Begin),
        finish(Position(4)),
        finish(Position(4)).outcome(Outcome::Failed(Reason::ReauthRequired)),
    ]
}

/// The stored bytes are covered by the chain and kept for years: they change only with the format.
#[tokio::test]
async fn stored_bytes_are_these() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), &unsigned()).unwrap();
    for record in every_form() {
        journal.append(&record).await.unwrap();
    }
    let mut text = String::new();
    for record in all(&journal).unwrap() {
        text.push_str(std::str::from_utf8(&record.stored).unwrap());
        text.push('\n');
    }
    let golden = Path::new(GOLDEN).join("records.jsonl");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &text).unwrap();
        journal.close().await.unwrap();
        copy(dir.path(), &Path::new(GOLDEN).join("format-1"));
        fs::write(Path::new(GOLDEN).join("export.jsonl"), export(&journal)).unwrap();
    }
    assert_eq!(text, fs::read_to_string(golden).unwrap());
}

/// A folder and an export written by the first release open, read and verify.
#[tokio::test]
async fn the_first_format_is_read() {
    let dir = tempfile::tempdir().unwrap();
    copy(&Path::new(GOLDEN).join("format-1"), dir.path());
    let (journal, opened) = open(dir.path(), &unsigned()).unwrap();
    assert_eq!((opened.last, opened.open_effects.len()), (Position(6), 0));
    let lines = fs::read(Path::new(GOLDEN).join("export.jsonl")).unwrap();
    assert_eq!(lines, export(&journal));
    let heads = fs::read(dir.path().join("heads.log")).unwrap();
    let report = check(&lines, &heads, &journal.public_key()).unwrap();
    assert_eq!((report.signed, report.unsigned()), (Position(6), 0));
    let records = all(&journal).unwrap();
    for (stored, written) in records.iter().zip(every_form()) {
        assert_eq!(stored.entry.action(), Some(written.action));
        assert_eq!(stored.entry.phase, written.phase);
        assert_eq!(stored.entry.outcome(), Some(written.outcome));
        assert_eq!(stored.entry.org, written.org);
        assert_eq!(stored.entry.request_id, written.request_id);
        assert_eq!(stored.time, Time::from_millis(support::TIME));
    }
    assert_eq!(records[0].entry.about("provider"), Some("anthropic"));
    assert_eq!(records[1].entry.verdict, Verdict::Denied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_writes_and_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), &unsigned()).unwrap();
    let callers = (0..64).map(|caller| {
        let journal = journal.clone();
        tokio::spawn(async move {
            let mut last = Position(0);
            for number in 0..50 {
                let position = journal.append(&record(caller * 50 + number)).await.unwrap();
                assert!(position > last);
                if number == 25 {
                    let read = journal.read(Position(position.0 - 1), 1).unwrap();
                    let lease = (caller * 50 + number).to_string();
                    assert_eq!(
                        read[0].entry.about("lease"),
                        Some(lease.as_str()),
                        "acknowledged means readable"
                    );
                }
                last = position;
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    let records = all(&journal).unwrap();
    let distinct: HashSet<_> = records.iter().map(|record| &record.entry.request_id).collect();
    assert_eq!((records.len(), distinct.len()), (3200, 3200));
    let head = journal.close().await.unwrap();
    assert_eq!(head.position, Position(3200));
    let heads = fs::read(dir.path().join("heads.log")).unwrap();
    check(&export(&journal), &heads, &journal.public_key()).unwrap();
    let writes = frames(&fs::read(&segments(dir.path())[0]).unwrap());
    let writes = writes.iter().filter(|frame| frame.back == 0).count();
    assert!(writes < 1600, "{writes} writes for 3200 records");
}

#[tokio::test]
async fn reopening_continues_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    let mut id = None;
    for round in 0..3 {
        let (journal, opened) = open(dir.path(), &unsigned()).unwrap();
        assert_eq!(opened.last, Position(round * 5));
        assert_eq!(*id.get_or_insert(opened.journal), opened.journal);
        append_all(&journal, 0..5).await;
        journal.close().await.unwrap();
        assert!(!journal.healthy());
        assert_eq!(journal.append(&record(0)).await, Err(JournalError::Closed));
        let heads = fs::read(dir.path().join("heads.log")).unwrap();
        let report = check(&export(&journal), &heads, &journal.public_key()).unwrap();
        assert_eq!(report.signed, Position(round * 5 + 5));
    }
}

#[tokio::test]
async fn a_dropped_append_still_lands() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), &unsigned()).unwrap();
    for number in 0..100 {
        drop(journal.append(&record(number)));
    }
    assert_eq!(journal.append(&record(100)).await, Ok(Position(101)));
    let kept: Vec<_> = all(&journal)
        .unwrap()
        .into_iter()
        .map(|record| record.entry.request_id)
        .collect();
    let sent: Vec<_> = (0..=100).map(|number| format!("request {number}")).collect();
    assert_eq!(kept, sent);
}

#[tokio::test]
async fn a_full_queue_refuses_and_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        queue: 2,
        ..unsigned()
    };
    let (journal, _) = open(dir.path(), &options).unwrap();
    let waiting: Vec<_> = (0..2000).map(|number| journal.append(&record(number))).collect();
    let mut taken = 0;
    let mut refused = 0;
    for append in waiting {
        match append.await {
            Ok(_) => taken += 1,
            Err(JournalError::Overloaded) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0);
    assert_eq!(all(&journal).unwrap().len(), taken);
    assert!(journal.healthy(), "it passes");
    journal.append(&record(0)).await.unwrap();
}

#[tokio::test]
async fn begins_are_bounded_and_finishes_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        open_effects: 2,
        ..unsigned()
    };
    let (journal, _) = open(dir.path(), &options).unwrap();
    let first = journal.append(&begin(1)).await.unwrap();
    journal.append(&begin(2)).await.unwrap();
    assert_eq!(journal.append(&begin(3)).await, Err(JournalError::TooManyOpen));
    assert_eq!(journal.append(&finish(first)).await, Ok(Position(3)));
    assert_eq!(journal.append(&finish(first)).await, Ok(Position(4)));
    assert_eq!(journal.append(&begin(3)).await, Ok(Position(5)));
}

#[tokio::test]
async fn heads_follow_the_records_and_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        head_interval: Duration::from_millis(5),
        heads_kept: 4,
        ..Options::default()
    };
    let (journal, opened) = open(dir.path(), &options).unwrap();
    let mut heads = journal.heads();
    assert_eq!(journal.head().chain, Chain::start(&opened.journal));
    for number in 1..=10 {
        journal.append(&record(0)).await.unwrap();
        let newer = heads.wait_for(|head| head.position.0 == number);
        let head = *tokio::time::timeout(Duration::from_secs(10), newer)
            .await
            .unwrap()
            .unwrap();
        assert!(head.is_signed_by(&journal.public_key()));
        assert_eq!(head.chain, all(&journal).unwrap().last().unwrap().chain);
        let kept = fs::read_to_string(dir.path().join("heads.log")).unwrap();
        assert!(kept.lines().count() <= 4);
        assert_eq!(
            kept.lines().last(),
            Some(head.to_line().as_str()),
            "published after it is kept"
        );
    }
    journal.close().await.unwrap();
    let (_, opened) = open(dir.path(), &options).unwrap();
    assert_eq!(opened.last, Position(10));
}

/// Reading starts anywhere and crosses segments; the tip is all there is.
#[tokio::test]
async fn reading_from_any_place() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 2000,
        ..unsigned()
    };
    let (journal, _) = open(dir.path(), &options).unwrap();
    append_all(&journal, 0..60).await;
    assert!(segments(dir.path()).len() > 5);
    let records = all(&journal).unwrap();
    journal.close().await.unwrap();
    let (journal, _) = open(dir.path(), &options).unwrap();
    for after in (0..=60).rev() {
        let page = journal.read(Position(after), 13).unwrap();
        let from = usize::try_from(after).unwrap();
        assert_eq!(page, records[from..(from + 13).min(60)]);
    }
    assert_eq!(journal.read(Position(u64::MAX), 13), Ok(vec![]));
    assert_eq!(journal.read(Position(0), 0), Ok(vec![]));
}

struct Sample {
    lines: Vec<Vec<u8>>,
    heads: Vec<u8>,
    key: PublicKey,
}

impl Sample {
    fn verify(&self, lines: &[Vec<u8>]) -> Result<Position, VerifyError> {
        check(&lines.concat(), &self.heads, &self.key).map(|report| report.signed)
    }
}

/// An export of 30 records with heads at several of them and at the last.
fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            for round in 0..3 {
                let (journal, _) = open(dir.path(), &unsigned()).unwrap();
                append_all(&journal, round * 10..round * 10 + 10).await;
                journal.close().await.unwrap();
            }
        });
        let (journal, _): (Journal, _) = open(dir.path(), &unsigned()).unwrap();
        let sample = Sample {
            lines: export(&journal)
                .split_inclusive(|byte| *byte == b'\n')
                .map(<[u8]>::to_vec)
                .collect(),
            heads: fs::read(dir.path().join("heads.log")).unwrap(),
            key: key().public_key(),
        };
        assert_eq!(sample.verify(&sample.lines).unwrap(), Position(30));
        sample
    })
}

/// The line's stored text, changed, with a chain that fits: what someone without the key can do.
fn forge(lines: &mut [Vec<u8>], from: usize) {
    let text = |line: &[u8]| String::from_utf8(line.to_vec()).unwrap();
    let chain_in = |line: &str| Chain::from_hex(&line.split('"').nth(3).unwrap()[..64]).unwrap();
    let start = text(&lines[0]);
    let mut chain = Chain::from_hex(start.rsplit('"').nth(1).unwrap()).unwrap();
    for (index, line) in lines.iter_mut().enumerate().skip(1) {
        let old = text(line);
        let mut stored = old[85..old.len() - 2].to_owned();
        if index == from {
            stored = stored.replace("agt_1", "agt_2");
        }
        chain = chain.after(stored.as_bytes());
        let mut new = verify::export_line(stored.as_bytes(), &chain);
        new.push(b'\n');
        assert_eq!(chain_in(&text(&new)), chain);
        *line = new;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_flipped_bit_in_the_export_is_found(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let sample = sample();
        let mut bytes = sample.lines.concat();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        prop_assert!(check(&bytes, &sample.heads, &sample.key).is_err());
    }

    #[test]
    fn a_flipped_bit_in_the_heads_is_found(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let sample = sample();
        let mut heads = sample.heads.clone();
        let at = at.index(heads.len());
        heads[at] ^= 1_u8 << bit;
        prop_assert!(check(&sample.lines.concat(), &heads, &sample.key).is_err());
    }

    #[test]
    fn dropped_doubled_moved_and_cut_records_are_found(a in 1_usize..31, b in 1_usize..31) {
        let sample = sample();
        let mut dropped = sample.lines.clone();
        dropped.remove(a);
        prop_assert!(sample.verify(&dropped).is_err());
        let mut inserted = sample.lines.clone();
        inserted.insert(b, sample.lines[a].clone());
        prop_assert!(sample.verify(&inserted).is_err());
        let cut = sample.verify(&sample.lines[..a]);
        let last = Position(a as u64 - 1);
        let told = matches!(cut, Err(VerifyError::CutShort { last: found, .. }) if found == last);
        prop_assert!(told);
        if a != b {
            let mut swapped = sample.lines.clone();
            swapped.swap(a, b);
            prop_assert!(sample.verify(&swapped).is_err());
        }
    }

    #[test]
    fn a_rewritten_journal_is_found_by_its_heads(from in 1_usize..31) {
        let sample = sample();
        let mut lines = sample.lines.clone();
        forge(&mut lines, from);
        let told = matches!(sample.verify(&lines), Err(VerifyError::Line { broken: Broken::Signed, .. }));
        prop_assert!(told);
    }
}

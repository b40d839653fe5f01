//! Pruning a journal: what goes, what stays, what proves it, and what a crash in the midst leaves.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "journal/support.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use credbroker::clock::ManualClock;
use credbroker::domain::journal::Position;
use credbroker::domain::secret::Secret;
use credbroker::domain::time::Time;
use credbroker::journal::verify::{
    Broken, VerifyError, export_anchor, export_head, export_line, export_start, verify,
};
use credbroker::journal::{
    Anchor, Chain, Damage, Journal, JournalError, Options, PrunePlan, PruneTo, SigningKey,
};
use support::{all, append_all, begin, check, copy, finish, key, open, record, segments, unsigned};

fn small() -> Options {
    Options {
        segment_bytes: 1_500,
        ..unsigned()
    }
}

/// A closed journal of `count` records in several segments, all covered by a head.
async fn filled(dir: &Path, count: usize) {
    let (journal, _) = open(dir, &small()).unwrap();
    append_all(&journal, 0..count).await;
    journal.close().await.unwrap();
}

fn first_positions(dir: &Path) -> Vec<u64> {
    let stems = segments(dir);
    let stems = stems
        .iter()
        .map(|path| path.file_stem().unwrap().to_str().unwrap());
    stems.map(|stem| stem.parse().unwrap()).collect()
}

fn before(position: u64) -> PruneTo {
    PruneTo::BeforePosition(Position(position))
}

fn prune(journal: &Journal, to: PruneTo) -> (PrunePlan, Anchor) {
    let plan = journal.plan_prune(to).unwrap().expect("nothing can go");
    (plan, journal.prune(&plan).unwrap())
}

/// The kept part as an export that begins at the anchor.
fn kept_export(journal: &Journal, anchor: &Anchor) -> Vec<u8> {
    let mut lines = vec![
        export_start(&anchor.journal, anchor.position, &anchor.chain).into_bytes(),
        export_anchor(anchor).into_bytes(),
    ];
    for record in all(journal).unwrap() {
        lines.push(export_line(&record.stored, &record.chain));
    }
    lines.push(export_head(&journal.head()).into_bytes());
    lines
        .iter()
        .flat_map(|line| [line.as_slice(), b"\n"].concat())
        .collect()
}

// req: N6
#[tokio::test]
async fn whole_old_segments_go_and_an_anchor_stays() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 60).await;
    let (journal, opened) = open(dir.path(), &small()).unwrap();
    assert_eq!(opened.anchor, None);
    let firsts = first_positions(dir.path());
    assert!(firsts.len() > 6);
    let whole = all(&journal).unwrap();
    // In the midst of the fourth segment: it stays whole.
    let (plan, anchor) = prune(&journal, before(firsts[3] + 1));
    assert_eq!((plan.last, plan.segments), (Position(firsts[3] - 1), 3));
    assert_eq!(plan.records, firsts[3] - 1);
    assert_eq!((anchor.position, journal.anchor()), (plan.last, Some(anchor)));
    assert!(anchor.is_signed_by(&journal.public_key()));
    assert_eq!(first_positions(dir.path()), firsts[3..]);
    let kept = &whole[usize::try_from(plan.last.0).unwrap()..];
    assert_eq!(
        all(&journal).unwrap(),
        kept,
        "reading goes on where the kept part begins"
    );
    assert_eq!(
        journal.plan_prune(before(firsts[3])),
        Ok(None),
        "nothing is left to prune"
    );
    // It goes on, across a restart, and can be pruned further.
    append_all(&journal, 60..70).await;
    journal.close().await.unwrap();
    let (journal, opened) = open(dir.path(), &small()).unwrap();
    assert_eq!((opened.anchor, opened.last), (Some(anchor), Position(70)));
    assert_eq!(all(&journal).unwrap().len() as u64, 70 - plan.last.0);
    let report = verify(&kept_export(&journal, &anchor)[..], &[], &journal.public_key()).unwrap();
    assert_eq!((report.anchor, report.after), (Some(anchor), anchor.position));
    assert_eq!((report.signed, report.unsigned()), (Position(70), 0));
    let (_, further) = prune(&journal, before(u64::MAX));
    assert!(further.position > anchor.position);
    assert_eq!(
        first_positions(dir.path()).len(),
        1,
        "the last segment always stays"
    );
    journal.close().await.unwrap();
    open(dir.path(), &small()).unwrap();
}

// req: N6
#[tokio::test]
async fn what_is_still_needed_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), &small()).unwrap();
    append_all(&journal, 0..30).await;
    assert_eq!(
        journal.plan_prune(before(u64::MAX)),
        Ok(None),
        "no head covers it"
    );
    journal.close().await.unwrap();
    let (journal, _) = open(dir.path(), &small()).unwrap();
    let open_effect = journal.append(&begin(1)).await.unwrap();
    append_all(&journal, 30..60).await;
    journal.close().await.unwrap();
    let (journal, opened) = open(dir.path(), &small()).unwrap();
    assert_eq!(opened.open_effects.len(), 1);
    let (plan, _) = prune(&journal, before(u64::MAX));
    assert!(plan.last < open_effect, "the begin of an open effect stays");
    journal.close().await.unwrap();
    let (journal, opened) = open(dir.path(), &small()).unwrap();
    assert_eq!(
        opened.open_effects[0].position, open_effect,
        "and can still be read"
    );
    journal.append(&finish(open_effect)).await.unwrap();
    let (plan, _) = prune(&journal, before(u64::MAX));
    assert!(plan.last > open_effect, "once it is finished it goes");
    let head = journal.head().position;
    assert!(plan.last <= head, "nothing goes that no head covers");
}

#[tokio::test]
async fn time_is_told_by_the_first_record_of_the_next_segment() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(Time::from_millis(support::TIME)));
    let (journal, _) = Journal::open(dir.path(), key(), clock.clone(), small()).unwrap();
    for number in 0..40 {
        journal.append(&record(number)).await.unwrap();
        clock.advance(Duration::from_secs(60));
    }
    journal.close().await.unwrap();
    let (journal, _) = Journal::open(dir.path(), key(), clock.clone(), small()).unwrap();
    let firsts = first_positions(dir.path());
    let start = Time::from_millis(support::TIME);
    let written = |position: u64| start + Duration::from_secs(60 * (position - 1));
    let plan = |time| journal.plan_prune(PruneTo::BeforeTime(time)).unwrap();
    assert_eq!(plan(start), None);
    let just_before = Time::from_millis(written(firsts[2]).millis() - 1);
    assert_eq!(plan(just_before).unwrap().last, Position(firsts[1] - 1));
    assert_eq!(plan(written(firsts[2])).unwrap().last, Position(firsts[2] - 1));
}

// req: N6
#[tokio::test]
async fn a_crash_at_any_step_of_a_prune_recovers() {
    let old = tempfile::tempdir().unwrap();
    filled(old.path(), 60).await;
    let new = tempfile::tempdir().unwrap();
    copy(old.path(), new.path());
    let (journal, _) = open(new.path(), &small()).unwrap();
    let firsts = first_positions(old.path());
    let (plan, anchor) = prune(&journal, before(firsts[4]));
    let kept = all(&journal).unwrap();
    journal.close().await.unwrap();
    // Before the anchor has its name, nothing has happened.
    let dir = tempfile::tempdir().unwrap();
    copy(old.path(), dir.path());
    fs::copy(new.path().join("anchor.json"), dir.path().join("anchor.tmp")).unwrap();
    let (journal, opened) = open(dir.path(), &small()).unwrap();
    assert_eq!((opened.anchor, all(&journal).unwrap().len()), (None, 60));
    assert!(!dir.path().join("anchor.tmp").exists());
    // After that, it has, whichever segments were still there.
    let doomed = &segments(old.path())[..4];
    for left in 0..16_u32 {
        let dir = tempfile::tempdir().unwrap();
        copy(old.path(), dir.path());
        fs::copy(new.path().join("anchor.json"), dir.path().join("anchor.json")).unwrap();
        for (number, path) in doomed.iter().enumerate() {
            if left & (1 << number) == 0 {
                fs::remove_file(dir.path().join(path.file_name().unwrap())).unwrap();
            }
        }
        let (journal, opened) = open(dir.path(), &small()).unwrap();
        assert_eq!(opened.anchor, Some(anchor));
        assert_eq!(first_positions(dir.path())[0], plan.last.0 + 1);
        assert_eq!(all(&journal).unwrap(), kept);
        assert_eq!(journal.append(&record(60)).await, Ok(Position(61)));
    }
}

fn refused(dir: &Path) -> (Option<String>, Damage) {
    let before = first_positions(dir);
    let error = open(dir, &small()).map(|(_, opened)| opened).unwrap_err();
    assert_eq!(first_positions(dir), before, "nothing is changed by what refuses");
    match error {
        JournalError::Damaged { file, damage, .. } => (Some(file), damage),
        other => panic!("{other}"),
    }
}

// req: N6
#[tokio::test]
async fn segments_that_vanished_without_an_anchor_are_missed() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 60).await;
    let good = tempfile::tempdir().unwrap();
    copy(dir.path(), good.path());
    let firsts = first_positions(dir.path());
    fs::remove_file(&segments(dir.path())[0]).unwrap();
    let name = "00000000000000000001.seg".to_owned();
    assert_eq!(refused(dir.path()), (Some(name), Damage::Beginning));

    // More than the anchor says.
    copy(good.path(), dir.path());
    let (journal, _) = open(dir.path(), &small()).unwrap();
    let (_, anchor) = prune(&journal, before(firsts[2]));
    journal.close().await.unwrap();
    let pruned = tempfile::tempdir().unwrap();
    copy(dir.path(), pruned.path());
    fs::remove_file(&segments(dir.path())[0]).unwrap();
    assert_eq!(refused(dir.path()).1, Damage::Beginning);

    // An anchor that somebody else made, or changed.
    let path = dir.path().join("anchor.json");
    let line = fs::read_to_string(pruned.path().join("anchor.json")).unwrap();
    for (at, byte) in line.bytes().enumerate().step_by(7) {
        copy(pruned.path(), dir.path());
        let mut bad = line.clone().into_bytes();
        bad[at] = byte ^ 1;
        fs::write(&path, bad).unwrap();
        assert_eq!(refused(dir.path()).1, Damage::Anchor, "byte {at}");
    }
    // And one of another journal of the same key.
    let other = tempfile::tempdir().unwrap();
    filled(other.path(), 60).await;
    let (journal, _) = open(other.path(), &small()).unwrap();
    let (_, foreign) = prune(&journal, before(firsts[2]));
    assert_eq!(foreign.position, anchor.position);
    journal.close().await.unwrap();
    fs::copy(other.path().join("anchor.json"), &path).unwrap();
    assert_eq!(refused(dir.path()).1, Damage::Anchor);

    // An anchor over nothing at all.
    for path in segments(dir.path()) {
        fs::remove_file(path).unwrap();
    }
    let error = open(dir.path(), &small()).err();
    fs::copy(pruned.path().join("anchor.json"), &path).unwrap();
    assert!(matches!(
        error,
        Some(JournalError::Damaged { .. } | JournalError::Truncated { .. })
    ));
    let error = open(dir.path(), &small()).err();
    assert!(matches!(
        error,
        Some(JournalError::Truncated {
            last: Position(0),
            ..
        })
    ));
}

/// No anchor is signed for a chain that the broker's heads do not lead to.
#[tokio::test]
async fn a_kept_part_that_was_changed_is_not_anchored() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 60).await;
    let firsts = first_positions(dir.path());
    let (journal, _) = open(dir.path(), &small()).unwrap();
    let path = &segments(dir.path())[4];
    let good = fs::read(path).unwrap();
    let at = support::frames(&good)[1].start + 20;
    let mut bad = good.clone();
    bad[at] ^= 1;
    fs::write(path, bad).unwrap();
    let plan = journal.plan_prune(before(firsts[3])).unwrap().unwrap();
    assert!(matches!(journal.prune(&plan), Err(JournalError::Damaged { .. })));
    assert_eq!(
        (journal.anchor(), first_positions(dir.path())),
        (None, firsts.clone())
    );
    assert!(!dir.path().join("anchor.json").exists());
    // What is to go may be damaged: it is not what is vouched for.
    fs::write(path, good).unwrap();
    let doomed = &segments(dir.path())[1];
    let mut bad = fs::read(doomed).unwrap();
    let last = bad.len() - 1;
    bad[last] ^= 1;
    fs::write(doomed, bad).unwrap();
    assert_eq!(journal.prune(&plan).unwrap().position, Position(firsts[3] - 1));
}

// req: N6
#[tokio::test]
async fn an_anchor_in_an_export_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 40).await;
    let (journal, _) = open(dir.path(), &small()).unwrap();
    let firsts = first_positions(dir.path());
    let (_, anchor) = prune(&journal, before(firsts[2]));
    let key = journal.public_key();
    let told = |anchor: Anchor| {
        let good = kept_export(&journal, &journal.anchor().unwrap());
        let text = String::from_utf8(good).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines[1] = export_anchor(&anchor);
        match verify(lines.join("\n").as_bytes(), &[], &key) {
            Err(VerifyError::Line { line: 2, broken, .. }) => Some(broken),
            Ok(_) => None,
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(told(anchor), None);
    let later = Anchor {
        time: Time::from_millis(anchor.time.millis() + 1),
        ..anchor
    };
    assert_eq!(told(later), Some(Broken::Signature));
    // Genuine, and of another place.
    let (_, further) = prune(&journal, before(firsts[3]));
    let good = kept_export(&journal, &further);
    verify(&good[..], &[], &key).unwrap();
    let text = String::from_utf8(good).unwrap();
    let moved = text.replacen(&export_anchor(&further), &export_anchor(&anchor), 1);
    let error = verify(moved.as_bytes(), &[], &key).unwrap_err();
    assert!(matches!(
        error,
        VerifyError::Line {
            line: 2,
            broken: Broken::Position,
            ..
        }
    ));
    // Elsewhere than behind the first line it has no meaning.
    let doubled = format!("{text}{}\n", export_anchor(&further));
    let error = verify(doubled.as_bytes(), &[], &key).unwrap_err();
    assert!(matches!(
        error,
        VerifyError::Line {
            broken: Broken::Form,
            ..
        }
    ));
    // Signed by somebody else.
    let stranger = SigningKey::new(&Secret::new(vec![9; 32])).unwrap().public_key();
    let error = verify(text.as_bytes(), &[], &stranger).unwrap_err();
    assert!(matches!(
        error,
        VerifyError::Line {
            line: 2,
            broken: Broken::Signature,
            ..
        }
    ));
    assert_ne!(further.chain, Chain::start(&further.journal));
    assert!(check(text.as_bytes(), b"", &key).is_ok());
}

/// Readers and a prune at the same time: nobody is told that the journal is damaged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_go_on_while_segments_go() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 400).await;
    let (journal, _) = open(dir.path(), &small()).unwrap();
    let firsts = first_positions(dir.path());
    let reading = journal.clone();
    let reader = tokio::task::spawn_blocking(move || {
        let mut last = 0;
        while last < 400 {
            let page = reading.read(Position(last), 3).unwrap();
            assert!(page[0].position.0 > last);
            last = page.last().unwrap().position.0;
        }
    });
    for first in &firsts[1..] {
        if journal.plan_prune(before(*first)).unwrap().is_some() {
            prune(&journal, before(*first));
        }
    }
    reader.await.unwrap();
}

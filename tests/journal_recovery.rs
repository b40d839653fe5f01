//! What a crash, a full disk, a failing disk or a hand in the files does to a journal.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "journal/support.rs"]
mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use credbroker::domain::journal::Position;
use credbroker::domain::secret::Secret;
use credbroker::journal::{Damage, Journal, JournalError, Options, SigningKey};
use support::{
    all, append_all, begin, check, copy, export, finish, frames, open, record, segments, unsigned,
};

/// A folder as a crash leaves it: `count` records, a write each, no head but the first.
async fn crashed(dir: &Path, count: usize) -> Vec<u8> {
    let live = tempfile::tempdir().unwrap();
    let (journal, _) = open(live.path(), &unsigned()).unwrap();
    append_all(&journal, 0..count).await;
    copy(live.path(), dir);
    fs::read(&segments(dir)[0]).unwrap()
}

fn refused(dir: &Path) -> JournalError {
    let before: Vec<_> = segments(dir).iter().map(|path| fs::read(path).unwrap()).collect();
    let error = open(dir, &unsigned()).map(|(_, opened)| opened).unwrap_err();
    let after: Vec<_> = segments(dir).iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(before, after, "nothing is changed by what refuses");
    error
}

#[tokio::test]
async fn a_tail_cut_at_any_byte_leaves_exactly_the_records_before() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = crashed(dir.path(), 4).await;
    let path = &segments(dir.path())[0];
    let last = *frames(&bytes).last().unwrap();
    for cut in last.start..=last.end {
        fs::write(path, &bytes[..cut]).unwrap();
        let (journal, opened) = open(dir.path(), &unsigned()).unwrap();
        let kept = if cut == last.end { 4 } else { 3 };
        let torn = cut - last.start;
        let torn = (cut < last.end && torn > 0).then_some(torn as u64);
        assert_eq!(
            (opened.last, opened.recovered_tail),
            (Position(kept), torn),
            "cut at {cut}"
        );
        assert_eq!(all(&journal).unwrap().len() as u64, kept);
        if cut % 50 == 0 {
            assert_eq!(journal.append(&record(9)).await, Ok(Position(kept + 1)));
            assert_eq!(
                all(&journal).unwrap().last().unwrap().entry.request_id,
                "request 9"
            );
        }
        // Closing would sign what the next round cuts off; the copy is what goes on.
        let heads = fs::read(dir.path().join("heads.log")).unwrap();
        journal.close().await.unwrap();
        fs::write(dir.path().join("heads.log"), heads).unwrap();
    }
}

#[tokio::test]
async fn a_flipped_byte_before_the_last_write_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = crashed(dir.path(), 4).await;
    let path = &segments(dir.path())[0];
    let frame = frames(&bytes)[1];
    for at in frame.start..frame.end {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(path, &bad).unwrap();
        let expected = JournalError::Damaged {
            file: "00000000000000000001.seg".to_owned(),
            offset: frame.start as u64,
            damage: Damage::Frame,
        };
        assert_eq!(refused(dir.path()), expected, "byte {at}");
    }
    for at in 0..frames(&bytes)[0].start {
        let mut bad = bytes.clone();
        bad[at] ^= 0x80;
        fs::write(path, &bad).unwrap();
        let error = refused(dir.path());
        let header = matches!(
            &error,
            JournalError::Damaged {
                damage: Damage::Header | Damage::NotASegment,
                ..
            }
        );
        assert!(
            header || matches!(error, JournalError::TooNew { .. }),
            "byte {at}: {error}"
        );
    }
}

/// A power cut may keep the later pages of the last write and lose earlier ones.
#[tokio::test]
async fn a_hole_in_the_last_write_is_no_damage_and_one_before_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let live = tempfile::tempdir().unwrap();
    let (journal, _) = open(live.path(), &unsigned()).unwrap();
    append_all(&journal, 0..1).await;
    let groups = loop {
        let waiting: Vec<_> = (0..50).map(|number| journal.append(&record(number))).collect();
        for append in waiting {
            append.await.unwrap();
        }
        let found = frames(&fs::read(&segments(live.path())[0]).unwrap());
        let starts: Vec<_> = (0..found.len()).filter(|at| found[*at].back == 0).collect();
        let (last, before) = (starts[starts.len() - 1], starts[starts.len() - 2]);
        if found.len() - last > 3 {
            break (found, last, before);
        }
    };
    copy(live.path(), dir.path());
    let (found, last, before) = groups;
    let path = &segments(dir.path())[0];
    let bytes = fs::read(path).unwrap();
    let hole = |at: usize| {
        let mut bad = bytes.clone();
        bad[found[at].start..found[at].end].fill(0);
        fs::write(path, bad).unwrap();
    };
    hole(before);
    assert!(matches!(
        refused(dir.path()),
        JournalError::Damaged {
            damage: Damage::Frame,
            ..
        }
    ));
    hole(last + 1);
    let (journal, opened) = open(dir.path(), &unsigned()).unwrap();
    assert_eq!(opened.last.0 as usize, last + 1);
    assert_eq!(
        opened.recovered_tail,
        Some((bytes.len() - found[last + 1].start) as u64)
    );
    assert_eq!(all(&journal).unwrap().len(), last + 1);
}

#[tokio::test]
async fn whole_frames_in_the_wrong_place_are_damage() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = crashed(dir.path(), 4).await;
    let found = frames(&bytes);
    let path = &segments(dir.path())[0];
    let again = [&bytes, &bytes[found[3].start..]].concat();
    let without = [&bytes[..found[1].start], &bytes[found[2].start..]].concat();
    for bad in [again, without] {
        fs::write(path, bad).unwrap();
        assert!(matches!(
            refused(dir.path()),
            JournalError::Damaged {
                damage: Damage::Record,
                ..
            }
        ));
    }
    fs::write(path, [bytes.as_slice(), &vec![0; 3 << 20]].concat()).unwrap();
    let error = refused(dir.path());
    assert!(
        matches!(
            error,
            JournalError::Damaged {
                damage: Damage::Frame,
                ..
            }
        ),
        "longer than a write"
    );
}

#[tokio::test]
async fn what_was_signed_and_is_gone_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 1000,
        ..unsigned()
    };
    let (journal, _) = open(dir.path(), &options).unwrap();
    append_all(&journal, 0..8).await;
    journal.close().await.unwrap();
    append_nothing_and_close(dir.path(), &options).await;
    let paths = segments(dir.path());
    let newest = paths
        .iter()
        .rev()
        .find(|path| !frames(&fs::read(path).unwrap()).is_empty())
        .unwrap();
    for later in paths.iter().filter(|path| *path > newest) {
        fs::remove_file(later).unwrap();
    }
    let bytes = fs::read(newest).unwrap();
    let last = *frames(&bytes).last().unwrap();
    let truncated = |last| JournalError::Truncated {
        signed: Position(8),
        last: Position(last),
    };
    for cut in [last.start, last.end - 1] {
        fs::write(newest, &bytes[..cut]).unwrap();
        assert_eq!(refused(dir.path()), truncated(7));
    }
    fs::remove_file(newest).unwrap();
    assert!(matches!(
        refused(dir.path()),
        JournalError::Truncated {
            signed: Position(8),
            ..
        }
    ));
    for path in segments(dir.path()) {
        fs::remove_file(path).unwrap();
    }
    assert_eq!(refused(dir.path()), truncated(0));
}

async fn append_nothing_and_close(dir: &Path, options: &Options) {
    let (journal, _) = open(dir, options).unwrap();
    let before = fs::read(dir.join("heads.log")).unwrap();
    journal.close().await.unwrap();
    assert_eq!(
        before,
        fs::read(dir.join("heads.log")).unwrap(),
        "no head without a record"
    );
}

#[tokio::test]
async fn heads_are_held_against_the_records() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), &unsigned()).unwrap();
    append_all(&journal, 0..3).await;
    journal.close().await.unwrap();
    let path = dir.path().join("heads.log");
    let good = fs::read_to_string(&path).unwrap();

    let other = SigningKey::new(&Secret::new(vec![8; 32])).unwrap();
    let clock = std::sync::Arc::new(credbroker::clock::SystemClock::new());
    let with_other = Journal::open(dir.path(), other, clock, unsigned());
    assert_eq!(with_other.err(), Some(JournalError::WrongKey));

    fs::write(&path, good.replacen("\"time\"", "\"tame\"", 1)).unwrap();
    assert!(matches!(
        refused(dir.path()),
        JournalError::Damaged {
            damage: Damage::Head,
            ..
        }
    ));
    fs::remove_file(&path).unwrap();
    assert!(matches!(
        refused(dir.path()),
        JournalError::Damaged {
            damage: Damage::NoHeads,
            ..
        }
    ));

    // The heads of one journal and the records of another.
    let second = tempfile::tempdir().unwrap();
    crashed(second.path(), 3).await;
    fs::write(second.path().join("heads.log"), &good).unwrap();
    assert!(matches!(refused(second.path()), JournalError::Damaged { .. }));

    // Half a line is what a crash leaves.
    fs::write(&path, format!("{good}{{\"journal\":\"")).unwrap();
    let (_, opened) = open(dir.path(), &unsigned()).unwrap();
    assert_eq!(opened.last, Position(3));
    assert_eq!(fs::read_to_string(&path).unwrap(), good);
}

#[tokio::test]
async fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), &unsigned()).unwrap();
    assert_eq!(open(dir.path(), &unsigned()).err(), Some(JournalError::InUse));
    journal.close().await.unwrap();
    open(dir.path(), &unsigned()).unwrap();
}

#[tokio::test]
async fn a_newer_format_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = crashed(dir.path(), 1).await;
    bytes[8] = 2;
    fs::write(&segments(dir.path())[0], bytes).unwrap();
    let file = "00000000000000000001.seg".to_owned();
    assert_eq!(
        refused(dir.path()),
        JournalError::TooNew {
            file,
            found: 2,
            supported: 1
        }
    );
}

#[tokio::test]
async fn open_effects_cross_segments_and_opening_reads_the_last_one_only() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 1500,
        ..unsigned()
    };
    let (journal, _) = open(dir.path(), &options).unwrap();
    let first = journal.append(&begin(1)).await.unwrap();
    let second = journal.append(&begin(2)).await.unwrap();
    append_all(&journal, 0..20).await;
    journal.append(&finish(first)).await.unwrap();
    let third = journal.append(&begin(3)).await.unwrap();
    append_all(&journal, 0..20).await;
    journal.close().await.unwrap();

    let paths = segments(dir.path());
    assert!(paths.len() > 6);
    let good = fs::read(&paths[3]).unwrap();
    let mut bad = good.clone();
    let at = frames(&good)[0].start + 20;
    bad[at] ^= 1;
    fs::write(&paths[3], bad).unwrap();
    let (journal, opened) = open(dir.path(), &options).unwrap();
    let found: Vec<_> = opened
        .open_effects
        .iter()
        .map(|effect| (effect.position, effect.entry.about("credential")))
        .collect();
    assert_eq!(found, [(second, Some("2")), (third, Some("3"))]);
    let error = all(&journal).unwrap_err();
    assert!(
        matches!(&error, JournalError::Damaged { file, damage: Damage::Frame, .. } if paths[3].ends_with(file))
    );

    fs::remove_file(&paths[3]).unwrap();
    assert!(all(&journal).is_err());
    fs::write(&paths[3], good).unwrap();
    all(&journal).unwrap();
    for begin in [second, third] {
        journal.append(&finish(begin)).await.unwrap();
    }
    journal.close().await.unwrap();
    fs::remove_file(&paths[4]).unwrap();
    let (journal, opened) = open(dir.path(), &options).unwrap();
    assert_eq!(opened.open_effects, []);
    assert!(matches!(
        all(&journal),
        Err(JournalError::Damaged {
            damage: Damage::Gap,
            ..
        })
    ));
}

/// A full disk: a clean refusal of this and all later records, and a clean start once there is room.
#[tokio::test]
async fn a_failed_write_closes_the_journal_for_good() {
    for landed in [0, 1, 100, usize::MAX - 1] {
        let dir = tempfile::tempdir().unwrap();
        let options = unsigned();
        let (journal, _) = open(dir.path(), &options).unwrap();
        append_all(&journal, 0..3).await;
        options.faults.fill_disk_after(landed);
        let waiting: Vec<_> = (0..20).map(|number| journal.append(&record(number))).collect();
        for append in waiting {
            let error = append.await.unwrap_err();
            assert!(
                matches!(&error, JournalError::Failed(why) if why.contains("storage")),
                "{error}"
            );
        }
        assert!(!journal.healthy());
        assert!(journal.failure().borrow().is_some());
        assert!(matches!(
            journal.append(&record(0)).await,
            Err(JournalError::Failed(_))
        ));
        assert_eq!(all(&journal).unwrap().len(), 3, "what is not durable is not read");
        assert!(matches!(journal.close().await, Err(JournalError::Failed(_))));

        let (journal, opened) = open(dir.path(), &unsigned()).unwrap();
        match landed {
            0 => assert_eq!((opened.last, opened.recovered_tail), (Position(3), None)),
            1 | 100 => assert_eq!(
                (opened.last, opened.recovered_tail),
                (Position(3), Some(landed as u64))
            ),
            _ => assert!(
                opened.last > Position(3),
                "a whole write whose sync failed may be there"
            ),
        }
        journal.append(&record(0)).await.unwrap();
        journal.close().await.unwrap();
        let heads = fs::read(dir.path().join("heads.log")).unwrap();
        check(&export(&journal), &heads, &journal.public_key()).unwrap();
    }
}

const CHILD: &str = "CREDBROKER_JOURNAL_CHILD";

fn child_options() -> Options {
    Options {
        segment_bytes: 20_000,
        head_interval: Duration::from_millis(2),
        heads_kept: 50,
        ..Options::default()
    }
}

/// Not a test: what [`acknowledged_records_survive_a_kill`] runs and kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_appends_until_killed() {
    let Some(dir) = std::env::var_os(CHILD) else {
        return;
    };
    let (journal, _) = open(Path::new(&dir), &child_options()).unwrap();
    let appenders: Vec<_> = (0..8)
        .map(|appender| {
            let journal = journal.clone();
            tokio::spawn(async move {
                for number in 0.. {
                    let number = appender * 1_000_000 + number;
                    let position = journal.append(&record(number)).await.unwrap();
                    let line = format!("acknowledged {} {number}\n", position.0);
                    std::io::stdout().write_all(line.as_bytes()).unwrap();
                }
            })
        })
        .collect();
    for appender in appenders {
        appender.await.unwrap();
    }
}

#[tokio::test]
async fn acknowledged_records_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<(usize, String)> = Vec::new();
    for round in 0..10_usize {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_appends_until_killed", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).split(b'\n');
        let enough = acknowledged.len() + 100 + 37 * round;
        let mut killed = false;
        // What was in the pipe when it was killed was acknowledged too; the last line may be half.
        for line in lines {
            let line = String::from_utf8(line.unwrap()).unwrap();
            let mut words = line
                .split(' ')
                .skip_while(|word| !word.ends_with("acknowledged"))
                .skip(1);
            if let (Some(position), Some(number)) = (words.next(), words.next()) {
                acknowledged.push((position.parse().unwrap(), format!("request {number}")));
            }
            if acknowledged.len() >= enough && !killed {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed, "the child ended by itself");
        let (journal, opened) = open(dir.path(), &child_options()).unwrap();
        let records = all(&journal).unwrap();
        assert_eq!(records.len() as u64, opened.last.0);
        for (position, request) in &acknowledged {
            assert_eq!(
                &records[position - 1].entry.request_id,
                request,
                "position {position}"
            );
        }
        journal.append(&record(0)).await.unwrap();
        journal.close().await.unwrap();
        let heads = fs::read(dir.path().join("heads.log")).unwrap();
        check(&export(&journal), &heads, &journal.public_key()).unwrap();
    }
}

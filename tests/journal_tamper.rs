//! Whatever is changed in a journal's files or in an export is found, with the place.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "journal/support.rs"]
mod support;

use std::fs;
use std::path::Path;

use credbroker::domain::id::OrgId;
use credbroker::domain::journal::{Action, Outcome, Position, Record};
use credbroker::domain::reason::Reason;
use credbroker::journal::verify::{
    Broken, Report, VerifyError, export_head, export_line, read_heads, verify,
};
use credbroker::journal::{Chain, JournalError, Options, SignedHead};
use proptest::prelude::*;
use proptest::sample::Index;
use support::{all, copy, export, frames, key, open, segments, unsigned};

/// A record of any of the forms that there are, with any texts in it.
fn any_record() -> impl Strategy<Value = Record> {
    let action = proptest::sample::select(Action::ALL);
    let outcome = prop_oneof![
        Just(Outcome::Allowed),
        proptest::sample::select(Reason::ALL).prop_map(Outcome::Denied),
        proptest::sample::select(Reason::ALL).prop_map(Outcome::Failed),
    ];
    let text = "\\PC{0,40}|[\\x00-\\x1f\"\\\\{}:]{0,20}";
    (action, outcome, text, text, text, any::<Option<[u8; 16]>>()).prop_map(
        |(action, outcome, actor, value, request, org)| {
            Record::new(action, actor, org.map(OrgId::from_bytes))
                .about("credential", value)
                .outcome(outcome)
                .request(&request)
        },
    )
}

/// A closed journal of these records, closed and opened again after each run.
fn write(dir: &Path, runs: &[Vec<Record>], options: &Options) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for run in runs {
            let (journal, _) = open(dir, options).unwrap();
            for record in run {
                journal.append(record).await.unwrap();
            }
            journal.close().await.unwrap();
        }
    });
}

struct Journaled {
    dir: tempfile::TempDir,
    options: Options,
    /// The export's lines, with their ends, without a head.
    lines: Vec<Vec<u8>>,
    /// A head for each run.
    heads: Vec<SignedHead>,
}

impl Journaled {
    fn new(runs: &[Vec<Record>], segment_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            segment_bytes,
            ..unsigned()
        };
        write(dir.path(), runs, &options);
        let copied = tempfile::tempdir().unwrap();
        copy(dir.path(), copied.path());
        let (journal, _) = open(copied.path(), &options).unwrap();
        let lines = export(&journal);
        let heads = fs::read(dir.path().join("heads.log")).unwrap();
        Self {
            dir,
            options,
            lines: lines
                .split_inclusive(|byte| *byte == b'\n')
                .map(<[u8]>::to_vec)
                .collect(),
            heads: read_heads(&heads[..]).unwrap(),
        }
    }

    fn last(&self) -> u64 {
        self.lines.len() as u64 - 1
    }

    fn verify(&self, lines: &[Vec<u8>]) -> Result<Report, VerifyError> {
        verify(&lines.concat()[..], &self.heads, &key().public_key())
    }

    /// Where a changed export is said to be broken: the position.
    fn place(&self, lines: &[Vec<u8>]) -> u64 {
        match self.verify(lines) {
            Err(VerifyError::Line { position, .. }) => position.0,
            Err(VerifyError::CutShort { last, .. }) => last.0 + 1,
            other => panic!("not found: {other:?}"),
        }
    }

    /// What opening the files and reading all of them finds.
    fn read_files(&self) -> Result<usize, JournalError> {
        let (journal, _) = open(self.dir.path(), &self.options)?;
        Ok(all(&journal)?.len())
    }
}

fn any_journal() -> impl Strategy<Value = Journaled> {
    let run = proptest::collection::vec(any_record(), 1..12);
    let runs = proptest::collection::vec(run, 1..4);
    (runs, 600_u64..6_000).prop_map(|(runs, segment_bytes)| Journaled::new(&runs, segment_bytes))
}

impl std::fmt::Debug for Journaled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.lines.concat()))
    }
}

/// A record of the export rewritten, with a chain that fits from there on: what someone without the key can do.
fn rewrite(lines: &[Vec<u8>], at: usize) -> Vec<Vec<u8>> {
    let mut lines = lines.to_vec();
    let start = String::from_utf8(lines[0].clone()).unwrap();
    let mut chain = Chain::from_hex(start.rsplit('"').nth(1).unwrap()).unwrap();
    for (index, line) in lines.iter_mut().enumerate().skip(1) {
        let mut stored = line[85..line.len() - 2].to_vec();
        if index == at {
            let request = stored
                .windows(13)
                .rposition(|bytes| bytes == b"\"request_id\":")
                .unwrap();
            stored.splice(request + 14..request + 14, *b"forged");
        }
        chain = chain.after(&stored);
        *line = export_line(&stored, &chain);
        line.push(b'\n');
    }
    lines
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    // req: N6
    #[test]
    fn any_change_to_an_export_is_found_where_it_is(
        journal in any_journal(),
        at in any::<Index>(),
        other in any::<Index>(),
        bit in 0..8_u8,
    ) {
        let (lines, last) = (&journal.lines, journal.last());
        prop_assert_eq!(journal.verify(lines).unwrap().last, Position(last));
        let records = lines.len() - 1;
        let a = 1 + at.index(records);
        let b = 1 + other.index(records);

        let mut flipped = lines.clone();
        let byte = other.index(flipped[a].len() - 1);
        flipped[a][byte] ^= 1_u8 << bit;
        prop_assert_eq!(journal.place(&flipped), a as u64, "a flipped bit");

        let mut dropped = lines.clone();
        dropped.remove(a);
        prop_assert_eq!(journal.place(&dropped), a as u64, "a dropped record");

        let mut inserted = lines.clone();
        inserted.insert(b, lines[a].clone());
        // A copy of the record that follows it is seen at the second of the two.
        let place = if a == b { b + 1 } else { b };
        prop_assert_eq!(journal.place(&inserted), place as u64, "an inserted record");

        if a != b {
            let mut swapped = lines.clone();
            swapped.swap(a, b);
            prop_assert_eq!(journal.place(&swapped), a.min(b) as u64, "swapped records");
        }

        prop_assert_eq!(journal.place(&lines[..a]), a as u64, "a cut tail");

        // A rewritten history holds together, and the next head says otherwise.
        let rewritten = rewrite(lines, a);
        let head = journal.heads.iter().find(|head| head.position.0 >= a as u64).unwrap();
        match journal.verify(&rewritten) {
            Err(VerifyError::Line { position, broken: Broken::Signed, .. }) => {
                prop_assert_eq!(position, head.position);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    // req: N6
    #[test]
    fn an_export_with_its_head_holds_alone_and_its_cut_tail_shows_against_a_published_head(
        journal in any_journal(),
        at in any::<Index>(),
        bit in 0..8_u8,
    ) {
        let public = key().public_key();
        let newest = *journal.heads.last().unwrap();
        let whole = [journal.lines.concat(), export_head(&newest).into_bytes()].concat();
        prop_assert_eq!(verify(&whole[..], &[], &public).unwrap().signed, newest.position);
        let mut flipped = whole.clone();
        let byte = at.index(flipped.len());
        flipped[byte] ^= 1_u8 << bit;
        prop_assert!(verify(&flipped[..], &[], &public).is_err());

        // Cut back to an older head: a genuine export of an older day, but for who knows a newer head.
        let older = journal.heads[at.index(journal.heads.len())];
        let end = usize::try_from(older.position.0).unwrap() + 1;
        let cut = [journal.lines[..end].concat(), export_head(&older).into_bytes()].concat();
        let found = verify(&cut[..], &[newest], &public);
        match found {
            Ok(_) => prop_assert_eq!(older.position, newest.position),
            Err(VerifyError::CutShort { signed, last }) => {
                prop_assert_eq!((signed, last), (newest.position, older.position));
            }
            Err(VerifyError::Unsigned) => prop_assert_eq!(older.position.0, 0),
            Err(other) => prop_assert!(false, "{}", other),
        }
        // A head does not stand for records that it is not of, and nothing follows it.
        let early = [journal.lines[..1].concat(), export_head(&newest).into_bytes()].concat();
        let cut_short = matches!(verify(&early[..], &[], &public), Err(VerifyError::CutShort { .. }));
        prop_assert!(cut_short);
    }

    // req: N6
    #[test]
    fn any_change_to_a_segment_is_found(
        journal in any_journal(),
        file in any::<Index>(),
        at in any::<Index>(),
        other in any::<Index>(),
        bit in 0..8_u8,
    ) {
        let paths = segments(journal.dir.path());
        let path = &paths[file.index(paths.len())];
        let good = fs::read(path).unwrap();
        let mut flipped = good.clone();
        let byte = at.index(flipped.len());
        flipped[byte] ^= 1_u8 << bit;
        fs::write(path, &flipped).unwrap();
        let first: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let found = frames(&good);
        let behind = found.iter().take_while(|frame| frame.end <= byte).count();
        match journal.read_files() {
            Err(JournalError::Damaged { file, offset, .. }) => {
                prop_assert!(path.ends_with(&file));
                // The frame that the bit is in, or the header.
                let start = found.get(behind).filter(|frame| frame.start <= byte).map_or(0, |frame| frame.start);
                prop_assert!(offset == start as u64 || (start == 0 && offset <= 12), "{offset}, not {start}");
            }
            Err(JournalError::Truncated { last, .. }) => {
                // The last write is told from a torn one by the head.
                prop_assert_eq!(last.0 + 1, first + behind as u64);
            }
            Err(JournalError::TooNew { .. }) => prop_assert!((8..12).contains(&byte)),
            other => prop_assert!(false, "{:?}", other),
        }
        fs::write(path, &good).unwrap();
        prop_assert_eq!(journal.read_files().unwrap() as u64, journal.last());

        // Whole frames dropped, doubled and swapped: their checksums are right, their places are not.
        let bytes = |frame: &support::Frame| good[frame.start..frame.end].to_vec();
        if !found.is_empty() {
            let all: Vec<_> = found.iter().map(bytes).collect();
            let (a, b) = (at.index(all.len()), other.index(all.len()));
            let head = &good[..found[0].start];
            let mut dropped = all.clone();
            dropped.remove(a);
            let mut doubled = all.clone();
            doubled.insert(b, all[a].clone());
            let mut swapped = all.clone();
            swapped.swap(a, b);
            for (what, changed) in [("dropped", dropped), ("doubled", doubled), ("swapped", swapped)] {
                if changed != all {
                    fs::write(path, [head, &changed.concat()].concat()).unwrap();
                    prop_assert!(journal.read_files().is_err(), "{}", what);
                }
            }
            fs::write(path, &good).unwrap();
        }

        // A cut tail, and a segment that is gone.
        let cut = at.index(good.len());
        fs::write(path, &good[..cut]).unwrap();
        prop_assert!(journal.read_files().is_err(), "cut at {}", cut);
        fs::remove_file(path).unwrap();
        let last_is_empty = found.is_empty() && paths.last() == Some(path) && paths.len() > 1;
        prop_assert!(journal.read_files().is_err() || last_is_empty, "a missing segment");
    }
}

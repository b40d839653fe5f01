//! `credbroker journal verify`: an export against the public key and heads kept elsewhere, without a broker.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;

use super::super::print_one;
use super::verify::{PublicKey, Report, SignedHead, VerifyError, read_heads, verify};
use crate::cli::error::{Failure, Kind};
use crate::cli::render::{Field, Resource, ShowArgs, remark};
use crate::domain::time::Time;

/// What is verified, and by what.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// The export; `-` for standard input.
    file: PathBuf,
    /// The journal's public key, in hexadecimal: from 'journal head', kept where the broker cannot write.
    #[arg(long, value_name = "HEX", value_parser = public_key)]
    public_key: PublicKey,
    /// A file of heads that were kept elsewhere, one a line, as 'journal head --line' shows them. They show what
    /// an export by itself cannot: that its end was cut off.
    #[arg(long, value_name = "FILE")]
    heads: Option<PathBuf>,
    #[command(flatten)]
    show: ShowArgs,
}

fn public_key(text: &str) -> Result<PublicKey, String> {
    let key = PublicKey::from_hex(&text.to_lowercase());
    key.ok_or_else(|| "a public key is 64 hexadecimal digits".to_owned())
}

/// Runs the command.
pub(super) fn run(args: &VerifyArgs) -> Result<(), Failure> {
    let heads: Vec<SignedHead> = match &args.heads {
        Some(path) => read_heads(open(path)?).map_err(|error| broken(path, &error))?,
        None => Vec::new(),
    };
    let report = verify(open(&args.file)?, &heads, &args.public_key);
    let report = report.map_err(|error| broken(&args.file, &error))?;
    if args.heads.is_none() {
        remark("no heads from elsewhere were given: records cut off at the end would not show");
    }
    if report.after.0 > 0 && report.anchor.is_none() {
        remark(&format!(
            "a part: it begins after position {}, where nothing was pruned",
            report.after.0
        ));
    }
    print_one(Some(Verified(report)), args.show)
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
    Ok(Box::new(BufReader::new(file)))
}

fn broken(path: &Path, error: &VerifyError) -> Failure {
    let remedy = match error {
        VerifyError::Read(_) => "Check the file and its disk.",
        VerifyError::Unsigned => "Give newer heads with --heads, or export again.",
        _ => {
            "Get the file from where it came from once more. If it stays so, what it holds is not what the \
             broker wrote: keep it as evidence, and find out who could change it."
        }
    };
    Failure::new(Kind::Failed, format!("{} does not hold: {error}", path.display())).remedy(remedy)
}

/// An export that holds.
struct Verified(Report);

fn timestamp(time: Time) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.seconds(),
        // Below 10^9, so it fits.
        nanos: time.millis().rem_euclid(1000) as i32 * 1_000_000,
    }
}

impl Resource for Verified {
    const COLUMNS: &'static [&'static str] = &["result", "records", "first", "last", "proven"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let report = &self.0;
        let times = report.times;
        vec![
            ("result", Field::Text("OK".to_owned())),
            ("journal", Field::Text(report.journal.to_string())),
            ("records", Field::Number(report.records())),
            ("first", Field::Number(report.after.0 + 1)),
            ("last", Field::Number(report.last.0)),
            ("proven", Field::Number(report.signed.0)),
            ("unproven_records", Field::Number(report.unsigned())),
            ("heads", Field::Number(report.heads as u64)),
            ("pruned_before", Field::Flag(report.anchor.is_some())),
            (
                "first_time",
                Field::Time(times.map(|(first, _)| timestamp(first))),
            ),
            ("last_time", Field::Time(times.map(|(_, last)| timestamp(last)))),
            ("allowed", Field::Number(report.outcomes.allowed)),
            ("denied", Field::Number(report.outcomes.denied)),
            ("failed", Field::Number(report.outcomes.failed)),
            ("of_unknown_form", Field::Number(report.outcomes.unknown)),
        ]
    }

    fn handle(&self) -> String {
        self.0.last.0.to_string()
    }
}

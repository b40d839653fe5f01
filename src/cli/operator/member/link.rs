//! `credbroker member link-identities`: outside identities from a CSV file.
//!
//! A line is `member,identity` (RFC 4180, without line breaks in fields); a first line that says just that is passed
//! over. Each link has its own result, and what is linked already stays so: the same file may be given again.

use std::fs::File;
use std::io::{Read, stdin};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::cli::client::Session;
use crate::cli::error::{Failure, Kind};
use crate::cli::operator::request_id;
use crate::cli::render::{self, Field, Output, Resource, ShowArgs, enum_name};
use crate::proto;
use crate::proto::IdentityLinkOutcome as Outcome;

/// Which identities are linked.
#[derive(Args, Debug)]
pub struct LinkArgs {
    /// The CSV file with lines `member,identity`, `-` for standard input.
    #[arg(long, value_name = "CSV")]
    file: PathBuf,
    /// Tell what would be done and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    show: ShowArgs,
}

/// The longest file taken, in bytes.
const MAX_FILE: u64 = 8 * 1024 * 1024;
/// How much goes into one call, well within the limits of links and of message length.
const LINKS_PER_CALL: usize = 500;
const BYTES_PER_CALL: usize = 96 * 1024;

pub(super) async fn run(session: &Session, org: String, args: LinkArgs) -> Result<(), Failure> {
    let links = parsed(&read(&args.file)?)?;
    let total = links.len();
    let request_id = request_id()?;
    let (mut told, mut directory) = (proto::LinkIdentitiesResponse::default(), session.directory());
    for links in calls(links) {
        let request = proto::LinkIdentitiesRequest {
            org: org.clone(),
            links,
            request_id: request_id.clone(),
            validate_only: args.dry_run,
        };
        let answer = directory.link_identities(request).await;
        let answer = answer.map_err(|status| session.failure(status))?.into_inner();
        told.linked += answer.linked;
        told.already_linked += answer.already_linked;
        told.refused += answer.refused;
        told.results.extend(answer.results);
    }
    print(&told, args.show)?;
    let linked = if args.dry_run { "would be linked" } else { "linked" };
    render::remark(&format!(
        "{} {linked}, {} linked already, {} refused",
        told.linked, told.already_linked, told.refused
    ));
    if told.refused == 0 {
        return Ok(());
    }
    let message = format!("{} of {total} links were refused", told.refused);
    Err(Failure::new(Kind::Failed, message)
        .remedy("Mend those lines and give the file again: what is linked stays so."))
}

/// Programs get all results, people those that ask for something to be done.
fn print(told: &proto::LinkIdentitiesResponse, show: ShowArgs) -> Result<(), Failure> {
    if show.output == Output::Json {
        return render::print(&render::json(&json!({
            "results": told.results.iter().map(render::object).collect::<Vec<_>>(),
            "linked": told.linked,
            "already_linked": told.already_linked,
            "refused": told.refused,
        })));
    }
    let refused = told
        .results
        .iter()
        .filter(|result| result.outcome() == Outcome::Refused);
    let refused: Vec<_> = refused.cloned().collect();
    if refused.is_empty() {
        return Ok(());
    }
    render::print(&render::list(&refused, show.output, render::now()))
}

fn read(path: &Path) -> Result<String, Failure> {
    let failed = |error| Failure::config(format!("cannot read {}: {error}", path.display()));
    let mut text = String::new();
    let length = if path == Path::new("-") {
        stdin().lock().take(MAX_FILE + 1).read_to_string(&mut text)
    } else {
        let file = File::open(path).map_err(failed)?;
        file.take(MAX_FILE + 1).read_to_string(&mut text)
    };
    if length.map_err(failed)? as u64 > MAX_FILE {
        return Err(Failure::usage(format!(
            "{} is longer than {MAX_FILE} bytes",
            path.display()
        )));
    }
    Ok(text)
}

/// The links of a file. A line that cannot be read fails it as a whole, before anything is linked.
fn parsed(text: &str) -> Result<Vec<proto::IdentityLink>, Failure> {
    // Spreadsheets put a byte order mark in front.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut links = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let [member, identity] = fields(line).ok_or_else(|| {
            Failure::usage(format!("line {number} is not of the form member,identity"))
                .remedy("Mend it and give the file again; nothing was linked.")
        })?;
        let heading = member.eq_ignore_ascii_case("member") && identity.eq_ignore_ascii_case("identity");
        if !(heading && number == 1) {
            links.push(proto::IdentityLink { member, identity });
        }
    }
    if links.is_empty() {
        return Err(Failure::usage("there are no links in the file"));
    }
    Ok(links)
}

/// The two fields of a line; each may be quoted, with quotes in it doubled.
fn fields(line: &str) -> Option<[String; 2]> {
    let (first, rest) = field(line)?;
    let (second, rest) = field(rest.strip_prefix(',')?)?;
    rest.is_empty().then_some([first, second])
}

/// The first field, and what comes after it. White space around an unquoted field is dropped.
fn field(text: &str) -> Option<(String, &str)> {
    let trimmed = text.trim_start();
    let Some(mut rest) = trimmed.strip_prefix('"') else {
        let end = text.find(',').unwrap_or(text.len());
        let (field, rest) = text.split_at(end);
        let field = field.trim();
        return (!field.is_empty() && !field.contains('"')).then(|| (field.to_owned(), rest));
    };
    let mut field = String::new();
    loop {
        let end = rest.find('"')?;
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return (!field.is_empty()).then(|| (field, rest.trim_start())),
        }
    }
}

/// The links in portions of one call each.
fn calls(links: Vec<proto::IdentityLink>) -> Vec<Vec<proto::IdentityLink>> {
    let mut calls: Vec<Vec<_>> = Vec::new();
    let mut bytes = 0;
    for link in links {
        let length = link.member.len() + link.identity.len() + 16;
        match calls.last_mut() {
            Some(call) if call.len() < LINKS_PER_CALL && bytes + length <= BYTES_PER_CALL => {
                bytes += length;
                call.push(link);
            }
            _ => {
                bytes = length;
                calls.push(vec![link]);
            }
        }
    }
    calls
}

impl Resource for proto::IdentityLinkResult {
    const COLUMNS: &'static [&'static str] = &["member", "identity", "outcome", "reason", "message"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let outcome = enum_name(self.outcome().as_str_name(), "IDENTITY_LINK_OUTCOME_");
        vec![
            ("member", Field::Text(self.member.clone())),
            ("identity", Field::Text(self.identity.clone())),
            ("outcome", Field::Text(outcome)),
            ("holder", Field::Text(self.holder.clone())),
            ("reason", Field::Text(self.reason.clone())),
            ("message", Field::Text(self.message.clone())),
        ]
    }

    fn handle(&self) -> String {
        self.identity.clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let links = parsed(text).unwrap();
        links
            .into_iter()
            .map(|link| (link.member, link.identity))
            .collect()
    }

    #[test]
    fn a_file_of_a_spreadsheet_is_read() {
        let text =
            "\u{feff}Member,Identity\r\nalex,github:octocat\r\n\r\n\"kim\" , \"linear:kim, \"\"K\"\"\"\r\n";
        let read = pairs(text);
        assert_eq!(read[0], ("alex".to_owned(), "github:octocat".to_owned()));
        assert_eq!(read[1], ("kim".to_owned(), "linear:kim, \"K\"".to_owned()));
        assert_eq!(read.len(), 2);
        // Only the first line can be the heading.
        assert_eq!(pairs("a,b\nmember,identity").len(), 2);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named() {
        for line in [
            "alex",
            "alex,",
            ",github:a",
            "alex,github:a,b",
            "\"alex,github:a",
            "alex,\"a\"b",
            "a\"b,c",
        ] {
            let failure = parsed(&format!("kim,github:kim\n{line}\n")).unwrap_err();
            assert!(failure.what.contains("line 2"), "{line}: {}", failure.what);
        }
        assert!(parsed("member,identity\n").is_err(), "no links at all");
    }

    #[test]
    fn calls_stay_within_the_limits() {
        let link = |length: usize| proto::IdentityLink {
            member: "m".repeat(10),
            identity: "i".repeat(length),
        };
        let sizes = |links: Vec<_>| calls(links).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(vec![link(10); 1001]), [500, 500, 1]);
        let large = calls(vec![link(1000); 300]);
        assert_eq!(large.iter().map(Vec::len).sum::<usize>(), 300);
        for call in large {
            let bytes: usize = call.iter().map(|link| link.identity.len()).sum();
            assert!(bytes <= BYTES_PER_CALL);
        }
    }
}

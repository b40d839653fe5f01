//! `credbroker policy`: the broker's policy as one file, shown, compared and applied.

mod document;
mod report;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};

use crate::cli::client::Session;
use crate::cli::error::{Failure, Kind};
use crate::cli::{files, input, render};
use crate::proto;
use document::Document;

/// How a change is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ChangeOutput {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// How the policy is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DocumentOutput {
    /// As a file that `apply` takes.
    #[default]
    Toml,
    /// The same structure as JSON.
    Json,
}

/// What is done with the policy.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// Make the scopes that a file names exactly what it says, after showing what changes for whom.
    Apply {
        /// The file; `-`: standard input.
        file: PathBuf,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// How the change is shown.
        #[arg(short, long, value_enum, default_value_t)]
        output: ChangeOutput,
    },
    /// Show what a file would change. Exits with 0 if nothing, with 2 if something, with another code if that
    /// cannot be told.
    Diff {
        /// The file; `-`: standard input.
        file: PathBuf,
        /// How the change is shown.
        #[arg(short, long, value_enum, default_value_t)]
        output: ChangeOutput,
    },
    /// Show the policy of the org as a file that 'apply' takes again.
    Show {
        /// The system's instead of the org's.
        #[arg(long)]
        system: bool,
        /// How it is shown.
        #[arg(short, long, value_enum, default_value_t)]
        output: DocumentOutput,
    },
}

/// How often the profiles are read again because the policy changed amid it.
const ATTEMPTS: usize = 5;

/// Runs the command.
pub async fn run(session: &Session, action: Action) -> Result<(), Failure> {
    match action {
        Action::Apply { file, yes, output } => apply(session, &file, yes, output).await,
        Action::Diff { file, output } => diff(session, &file, output).await,
        Action::Show { system, output } => {
            let document = read(session, system).await?;
            render::print(&match output {
                DocumentOutput::Toml => document.text()?,
                DocumentOutput::Json => render::json(&serde_json::to_value(&document).unwrap_or_default()),
            })
        }
    }
}

fn document_in(file: &Path) -> Result<proto::PolicyDocument, Failure> {
    let (name, text) = if file == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin()
            .lock()
            .take(files::MAX_BYTES + 1)
            .read_to_string(&mut text);
        read.map_err(|error| Failure::usage(format!("cannot read standard input: {error}")))?;
        if text.len() as u64 > files::MAX_BYTES {
            let what = format!("standard input is larger than {} bytes", files::MAX_BYTES);
            return Err(Failure::usage(what));
        }
        ("standard input".to_owned(), text)
    } else {
        (file.display().to_string(), files::read_text(file)?)
    };
    Ok(document::parse(&name, &text)?.message())
}

/// What a document would change, or with `expected` does.
async fn change(
    session: &Session,
    document: &proto::PolicyDocument,
    expected: Option<u64>,
) -> Result<proto::PolicyChange, Failure> {
    let request = proto::ApplyPolicyRequest {
        document: Some(document.clone()),
        expected_version: expected,
        validate_only: expected.is_none(),
    };
    let answer = session.policies().apply_policy(request).await;
    let change = answer
        .map_err(|status| session.failure(status))?
        .into_inner()
        .change;
    change.ok_or_else(empty)
}

fn empty() -> Failure {
    Failure::new(Kind::Internal, "the broker's answer is empty")
        .remedy("Compare this program's version with the broker's.")
}

pub(super) fn shown(change: &proto::PolicyChange, output: ChangeOutput) -> String {
    match output {
        ChangeOutput::Table => report::text(change),
        ChangeOutput::Json => render::json(&report::json(change)),
    }
}

async fn apply(session: &Session, file: &Path, yes: bool, output: ChangeOutput) -> Result<(), Failure> {
    let document = document_in(file)?;
    let preview = change(session, &document, None).await?;
    if !preview.differs {
        return render::print(&shown(&preview, output));
    }
    // Not to standard output, which is for what was done.
    for line in report::text(&preview).lines() {
        render::remark(line);
    }
    input::confirm("This changes the policy of the broker as shown.", yes)?;
    let applied = change(session, &document, Some(preview.version)).await;
    let applied = applied.map_err(|failure| match failure.reason.as_deref() {
        Some("CONFLICT") => {
            failure.remedy("Somebody else changed the policy after it was shown. Look at it again.")
        }
        _ => failure,
    })?;
    render::print(&match output {
        ChangeOutput::Table => format!("applied as version {}\n", applied.version),
        ChangeOutput::Json => shown(&applied, output),
    })
}

async fn diff(session: &Session, file: &Path, output: ChangeOutput) -> Result<(), Failure> {
    let preview = change(session, &document_in(file)?, None).await?;
    render::print(&shown(&preview, output))?;
    if preview.differs {
        let what = "the broker's policy is not what the file says";
        return Err(Failure::new(Kind::Differs, what));
    }
    Ok(())
}

/// The policy of the system or the org, of one version.
async fn read(session: &Session, system: bool) -> Result<Document, Failure> {
    let failed = |status| session.failure(status);
    if system {
        let request = proto::GetPolicyRequest {
            system: true,
            ..Default::default()
        };
        let answer = session.policies().get_policy(request).await;
        let answer = answer.map_err(failed)?.into_inner();
        return Document::of_system(&answer.system.ok_or_else(empty)?);
    }
    let org = session.org()?;
    for _ in 0..ATTEMPTS {
        let request = proto::GetPolicyRequest {
            org: org.clone(),
            system: false,
        };
        let answer = session.policies().get_policy(request).await;
        let answer = answer.map_err(failed)?.into_inner();
        if let Some(profiles) = profiles_at(session, &org, answer.version).await? {
            return Document::of_org(&answer.org.ok_or_else(empty)?, &profiles);
        }
    }
    let what = "the policy changes faster than it can be read";
    Err(Failure::new(Kind::Unavailable, what).remedy("Try again."))
}

/// All profiles of the org; `None`: not all of them are of this version.
async fn profiles_at(
    session: &Session,
    org: &str,
    version: u64,
) -> Result<Option<Vec<proto::Profile>>, Failure> {
    let mut profiles = Vec::new();
    let mut token = String::new();
    loop {
        let request = proto::ListProfilesRequest {
            org: org.to_owned(),
            page_size: 200,
            page_token: token,
        };
        let page = session.policies().list_profiles(request).await;
        let page = page.map_err(|status| session.failure(status))?.into_inner();
        if page.version != version {
            return Ok(None);
        }
        profiles.extend(page.profiles);
        token = page.next_page_token;
        if token.is_empty() {
            return Ok(Some(profiles));
        }
    }
}

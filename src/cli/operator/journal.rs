//! `credbroker journal`: what was decided and done, in order.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;

use super::{pages, print_list, print_one};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::render::{Field, ListArgs, Resource, ShowArgs, hex};
use crate::proto;

/// What is done with the journal.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// List records, the oldest first: those of the org that is meant, all where none is.
    List {
        /// Start after this position.
        #[arg(long, default_value_t = 0)]
        after: u64,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show the newest signed head. Kept elsewhere, it shows later that nothing before it was changed.
    Head(#[command(flatten)] ShowArgs),
}

/// Runs the command.
pub async fn run(session: &Session, action: Action) -> Result<(), Failure> {
    let failed = |status| session.failure(status);
    match action {
        Action::List { after, list } => {
            let items = pages(list.limit, |page_size, page_token| {
                let (mut journal, org) = (session.journal(), session.org_or_own());
                async move {
                    let request = proto::ListRecordsRequest {
                        org,
                        page_size,
                        page_token,
                        after_position: after,
                        ..Default::default()
                    };
                    let page = journal.list_records(request).await?.into_inner();
                    // The journal's page token never runs out; a page that is not full is the end for now.
                    let end = page.records.len() < usize::try_from(page_size).unwrap_or(0);
                    let next = if end { String::new() } else { page.next_page_token };
                    Ok((page.records, next))
                }
            });
            print_list(&items.await.map_err(failed)?, list)
        }
        Action::Head(show) => {
            let answer = session.journal().get_head(proto::GetHeadRequest {}).await;
            let answer = answer.map_err(failed)?.into_inner();
            let public_key = answer.public_key;
            print_one(answer.head.map(|head| SignedHead { head, public_key }), show)
        }
    }
}

impl Resource for proto::JournalRecord {
    const COLUMNS: &'static [&'static str] = &[
        "position", "time", "action", "phase", "outcome", "reason", "actor",
    ];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        vec![
            ("position", Field::Number(self.position)),
            ("time", Field::Time(self.time)),
            ("action", Field::Text(self.action.clone())),
            ("phase", Field::Text(self.phase.clone())),
            ("begins", Field::Number(self.begins)),
            ("outcome", Field::Text(self.outcome.clone())),
            ("reason", Field::Text(self.reason.clone())),
            ("actor", Field::Text(self.actor.clone())),
            ("org", Field::Text(self.org.clone())),
            ("subject", Field::Pairs(self.subject.clone())),
            ("request_id", Field::Text(self.request_id.clone())),
            ("stored", Field::Text(STANDARD.encode(&self.stored))),
            ("chain", Field::Text(hex(&self.chain))),
        ]
    }

    fn handle(&self) -> String {
        self.position.to_string()
    }
}

/// A head and the key that signed it.
struct SignedHead {
    head: proto::JournalHead,
    public_key: Vec<u8>,
}

impl Resource for SignedHead {
    const COLUMNS: &'static [&'static str] = &["journal", "position", "chain", "time"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        vec![
            ("journal", Field::Text(self.head.journal.clone())),
            ("position", Field::Number(self.head.position)),
            ("chain", Field::Text(hex(&self.head.chain))),
            ("time", Field::Time(self.head.time)),
            ("signature", Field::Text(hex(&self.head.signature))),
            ("public_key", Field::Text(hex(&self.public_key))),
        ]
    }

    fn handle(&self) -> String {
        self.head.position.to_string()
    }
}

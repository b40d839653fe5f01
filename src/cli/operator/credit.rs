//! `credbroker credit`: an org's prepaid credit.

use clap::Subcommand;
use serde_json::json;

use super::{print_one, request_id};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::render::{self, Field, Output, Resource, ShowArgs, enum_name};
use crate::domain::billing::Micros;
use crate::proto;

/// What is done with credit.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// Add to an org's credit.
    Add {
        /// The org: id or name.
        org: String,
        /// How much: a decimal number such as `25.00`; below zero to correct what was added before.
        #[arg(allow_negative_numbers = true, value_name = "AMOUNT")]
        amount: String,
        /// AMOUNT is a whole number of millionths.
        #[arg(long)]
        micros: bool,
        /// Why, for the journal.
        #[arg(long, default_value = "")]
        note: String,
        /// A UUID: with the same one the credit is added once, however often this is run.
        #[arg(long, value_name = "UUID")]
        request_id: Option<String>,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Show an org's account.
    Show {
        /// The org: id or name; without it, that of the context.
        org: Option<String>,
        #[command(flatten)]
        show: ShowArgs,
    },
}

/// Runs the command.
pub async fn run(session: &Session, action: Action) -> Result<(), Failure> {
    let mut billing = session.billing();
    let failed = |status| session.failure(status);
    match action {
        Action::Add {
            org,
            amount,
            micros,
            note,
            request_id: given,
            show,
        } => {
            let request = proto::AddCreditRequest {
                org,
                micros: parsed(&amount, micros)?.0,
                request_id: match given {
                    Some(id) => id,
                    None => request_id()?,
                },
                note,
            };
            let answer = billing.add_credit(request).await.map_err(failed)?.into_inner();
            if show.output == Output::Json {
                return render::print(&render::json(&json!({
                    "account": answer.account.as_ref().map(render::object),
                    "duplicate": answer.duplicate,
                })));
            }
            print_one(answer.account, show)?;
            if answer.duplicate {
                render::remark("It had been added before under this request id, and was not again.");
            }
            Ok(())
        }
        Action::Show { org, show } => {
            let org = match org {
                Some(org) => org,
                None => session.org()?,
            };
            let answer = billing.get_account(proto::GetAccountRequest { org }).await;
            print_one(answer.map_err(failed)?.into_inner().account, show)
        }
    }
}

fn parsed(amount: &str, micros: bool) -> Result<Micros, Failure> {
    if !micros {
        return amount
            .parse()
            .map_err(|no: crate::domain::billing::NoAmount| Failure::usage(no.to_string()));
    }
    let whole = || Failure::usage("with --micros the amount is a whole number of millionths");
    amount.parse().map(Micros).map_err(|_| whole())
}

impl Resource for proto::Account {
    const COLUMNS: &'static [&'static str] = &["org", "balance", "subscription", "metered", "shared_per_day"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let shared = match self.shared_per_day {
            Some(limit) => Field::Both(limit.to_string(), limit.into()),
            None => Field::Both("default".to_owned(), serde_json::Value::Null),
        };
        vec![
            ("org", Field::Text(self.org.clone())),
            ("balance", Field::Text(Micros(self.balance_micros).to_string())),
            (
                "balance_micros",
                Field::Both(String::new(), self.balance_micros.into()),
            ),
            (
                "subscription",
                Field::Text(enum_name(self.subscription().as_str_name(), "SUBSCRIPTION_")),
            ),
            (
                "metered",
                Field::Text(enum_name(self.metered().as_str_name(), "ENTITLEMENT_")),
            ),
            ("shared_per_day", shared),
            ("update_time", Field::Time(self.update_time)),
        ]
    }

    fn handle(&self) -> String {
        self.org.clone()
    }
}

//! `credbroker org`: the tenants of the broker.

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use prost_types::FieldMask;
use serde_json::json;

use super::{pages, print_list, print_one, request_id};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::render::{self, Field, ListArgs, Output, Resource, ShowArgs};
use crate::proto;

/// What is done with orgs.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// Make an org.
    Create {
        /// Its name: 1 to 63 of a-z, 0-9 and '-', beginning with a letter; for good.
        name: String,
        /// What people call it.
        #[arg(long, default_value = "")]
        display_name: String,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// List the orgs.
    List(#[command(flatten)] ListArgs),
    /// Show an org.
    Show {
        /// The org: id or name.
        name: String,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Change an org, or what it is entitled to, which takes a system admin.
    Update(UpdateArgs),
}

/// What is changed.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("change").required(true).multiple(true))]
pub struct UpdateArgs {
    /// The org: id or name.
    name: String,
    /// What people call it.
    #[arg(long, group = "change")]
    display_name: Option<String>,
    /// Whether its subscription holds.
    #[arg(long, group = "change", value_enum)]
    subscription: Option<Subscription>,
    /// Whether it may use metered keys; `default`: as the broker's configuration says for all.
    #[arg(long, group = "change", value_enum)]
    metered: Option<Entitlement>,
    /// How many shared dispatches it may have a UTC day; `default`: as the broker's configuration says for all.
    #[arg(long, group = "change", value_name = "N", value_parser = quota)]
    shared_per_day: Option<Quota>,
    #[command(flatten)]
    show: ShowArgs,
}

/// Whether a subscription holds.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Subscription {
    /// It does.
    Active,
    /// It does not.
    Inactive,
}

/// Whether metered keys may be used.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Entitlement {
    /// As for all.
    Default,
    /// They may.
    Granted,
    /// They may not.
    Withdrawn,
}

/// A quota; `None`: as for all.
#[derive(Clone, Copy, Debug)]
pub struct Quota(Option<u32>);

fn quota(text: &str) -> Result<Quota, String> {
    match text {
        "default" => Ok(Quota(None)),
        number => number
            .parse()
            .map(|limit| Quota(Some(limit)))
            .map_err(|_| "expected a number, or 'default'".to_owned()),
    }
}

/// Runs the command.
pub async fn run(session: &Session, action: Action) -> Result<(), Failure> {
    let mut directory = session.directory();
    let failed = |status| session.failure(status);
    match action {
        Action::Create {
            name,
            display_name,
            show,
        } => {
            let request = proto::CreateOrgRequest {
                name,
                display_name,
                request_id: request_id()?,
            };
            let answer = directory.create_org(request).await.map_err(failed)?;
            print_one(answer.into_inner().org, show)
        }
        Action::List(list) => {
            let items = pages(list.limit, |page_size, page_token| {
                let mut directory = session.directory();
                async move {
                    let request = proto::ListOrgsRequest {
                        page_size,
                        page_token,
                    };
                    let page = directory.list_orgs(request).await?.into_inner();
                    Ok((page.orgs, page.next_page_token))
                }
            });
            print_list(&items.await.map_err(failed)?, list)
        }
        Action::Show { name, show } => {
            let answer = directory.get_org(proto::GetOrgRequest { org: name }).await;
            print_one(answer.map_err(failed)?.into_inner().org, show)
        }
        Action::Update(args) => update(session, args).await,
    }
}

/// Changes the org, its account, or both; shows what was changed.
async fn update(session: &Session, args: UpdateArgs) -> Result<(), Failure> {
    let failed = |status| session.failure(status);
    let (account, show) = (args.account(), args.show);
    let mut org = None;
    if let Some(display_name) = args.display_name {
        let mut directory = session.directory();
        let request = proto::GetOrgRequest {
            org: args.name.clone(),
        };
        let read = directory.get_org(request).await.map_err(failed)?.into_inner();
        let request = proto::UpdateOrgRequest {
            org: Some(proto::Org {
                display_name,
                // Its id, and the etag that guards against a lost update.
                ..read.org.unwrap_or_default()
            }),
            update_mask: Some(FieldMask {
                paths: vec!["display_name".to_owned()],
            }),
        };
        let answer = directory.update_org(request).await.map_err(failed)?;
        org = answer.into_inner().org;
    }
    let Some(request) = account else {
        return print_one(org, show);
    };
    let answer = session.billing().update_account(request).await.map_err(failed)?;
    let account = answer.into_inner().account;
    if org.is_some() && show.output == Output::Json {
        return render::print(&render::json(&json!({
            "org": org.as_ref().map(render::object),
            "account": account.as_ref().map(render::object),
        })));
    }
    if org.is_some() {
        print_one(org, show)?;
    }
    print_one(account, show)
}

impl UpdateArgs {
    /// What changes of the account; `None`: nothing.
    fn account(&self) -> Option<proto::UpdateAccountRequest> {
        let mut account = proto::Account {
            org: self.name.clone(),
            ..Default::default()
        };
        let mut paths = Vec::new();
        if let Some(subscription) = self.subscription {
            account.set_subscription(match subscription {
                Subscription::Active => proto::Subscription::Active,
                Subscription::Inactive => proto::Subscription::Inactive,
            });
            paths.push("subscription".to_owned());
        }
        if let Some(metered) = self.metered {
            account.set_metered(match metered {
                Entitlement::Default => proto::Entitlement::Default,
                Entitlement::Granted => proto::Entitlement::Granted,
                Entitlement::Withdrawn => proto::Entitlement::Withdrawn,
            });
            paths.push("metered".to_owned());
        }
        if let Some(Quota(limit)) = self.shared_per_day {
            account.shared_per_day = limit;
            paths.push("shared_per_day".to_owned());
        }
        let mask = Some(FieldMask { paths }).filter(|mask| !mask.paths.is_empty());
        mask.map(|mask| proto::UpdateAccountRequest {
            account: Some(account),
            update_mask: Some(mask),
        })
    }
}

impl Resource for proto::Org {
    const COLUMNS: &'static [&'static str] = &["name", "id", "display_name", "create_time"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        vec![
            ("id", Field::Text(self.id.clone())),
            ("name", Field::Text(self.name.clone())),
            ("display_name", Field::Text(self.display_name.clone())),
            ("create_time", Field::Time(self.create_time)),
        ]
    }

    fn handle(&self) -> String {
        self.name.clone()
    }
}

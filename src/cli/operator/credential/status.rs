//! `credbroker credential status`: how credentials stand, at a glance or live.

mod live;
pub mod table;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::cli::client::Session;
use crate::cli::context::ConnectionArgs;
use crate::cli::error::Failure;
use crate::cli::operator::names::Names;
use crate::cli::operator::pages;
use crate::cli::owner_reference;
use crate::cli::render::{self, Resource};
use crate::cli::screen::Style;
use crate::domain::credential::Health;
use crate::proto;

/// How statuses are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum StatusOutput {
    /// For people.
    #[default]
    Table,
    /// For programs: the API's field names, RFC 3339 times. With --watch an object a line, one for each change.
    Json,
}

/// Which statuses are shown, and how.
///
/// Needs a person: grant-lost, reauth-required, expired, quarantined. Mends itself, or says so soon: ambiguous, expiring,
/// refreshing.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// Only this credential, `crd_…`, with everything known of it and who depends on it.
    credential: Option<String>,
    /// Only those of this member: id or name.
    #[arg(long, conflicts_with = "credential")]
    member: Option<String>,
    /// Only those of one of these; separated by commas.
    #[arg(
        long,
        value_delimiter = ',',
        conflicts_with = "credential",
        value_parser = PossibleValuesParser::new(Health::WORST_FIRST.map(Health::name))
    )]
    health: Vec<String>,
    /// How many at most.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// Go on showing it as it changes, until Ctrl-C. On a terminal in place; otherwise a line for each credential, and
    /// then one for each change.
    #[arg(long)]
    watch: bool,
    /// Do not use colours. They are used on terminals only, and not where NO_COLOR is set.
    #[arg(long)]
    no_color: bool,
    /// How they are shown.
    #[arg(short, long, value_enum, default_value_t)]
    output: StatusOutput,
}

/// What is shown.
#[derive(Clone, Debug)]
enum Picture {
    /// Credentials, the worst first.
    All(Vec<proto::CredentialStatus>),
    /// One, with who depends on it.
    One(Box<(proto::CredentialStatus, proto::DescribeCredentialResponse)>),
}

/// Runs the command.
pub async fn run(
    connection: &ConnectionArgs,
    session: &Session,
    org: String,
    args: StatusArgs,
) -> Result<(), Failure> {
    let style = Style::of_stdout(!args.no_color);
    if args.watch {
        return live::run(connection, org, args, style).await;
    }
    let picture = read(session, &org, &args).await?;
    render::print(&match args.output {
        StatusOutput::Json => render::json(&picture.json()),
        StatusOutput::Table => picture.text(style, render::now()),
    })?;
    if let Picture::All(statuses) = &picture
        && statuses.len() == args.limit as usize
    {
        render::remark(&format!(
            "{} of them; there may be more: raise --limit",
            args.limit
        ));
    }
    Ok(())
}

async fn read(session: &Session, org: &str, args: &StatusArgs) -> Result<Picture, Failure> {
    let failed = |status| session.failure(status);
    let mut picture = match &args.credential {
        Some(credential) => {
            let status = proto::GetCredentialStatusRequest {
                org: org.to_owned(),
                credential: credential.clone(),
            };
            let described = proto::DescribeCredentialRequest {
                org: org.to_owned(),
                credential: credential.clone(),
            };
            let mut credentials = session.credentials();
            let status = credentials.get_credential_status(status).await.map_err(failed)?;
            let described = credentials.describe_credential(described).await.map_err(failed)?;
            Picture::One(Box::new((
                status.into_inner().status.unwrap_or_default(),
                described.into_inner(),
            )))
        }
        None => {
            let health: Vec<_> = args.health.iter().filter_map(|name| to_wire(name)).collect();
            let member = args.member.clone().unwrap_or_default();
            let statuses = pages(args.limit, |page_size, page_token| {
                let mut credentials = session.credentials();
                let request = proto::ListCredentialStatusesRequest {
                    org: org.to_owned(),
                    page_size,
                    page_token,
                    member: member.clone(),
                    health: health.clone(),
                };
                async move {
                    let page = credentials.list_credential_statuses(request).await?.into_inner();
                    Ok((page.statuses, page.next_page_token))
                }
            });
            let mut statuses = statuses.await.map_err(failed)?;
            statuses.sort_by_cached_key(table::urgency);
            Picture::All(statuses)
        }
    };
    if args.output == StatusOutput::Table {
        let names = Names::read(session).await;
        for id in picture.statuses_mut().iter_mut().flat_map(Resource::references) {
            names.replace(id);
        }
    }
    Ok(picture)
}

fn to_wire(name: &str) -> Option<i32> {
    let name = name.to_uppercase().replace('-', "_");
    proto::CredentialHealth::from_str_name(&format!("CREDENTIAL_HEALTH_{name}")).map(|health| health as i32)
}

impl Picture {
    fn statuses(&self) -> &[proto::CredentialStatus] {
        match self {
            Picture::All(statuses) => statuses,
            Picture::One(one) => std::slice::from_ref(&one.0),
        }
    }

    fn statuses_mut(&mut self) -> &mut [proto::CredentialStatus] {
        match self {
            Picture::All(statuses) => statuses,
            Picture::One(one) => std::slice::from_mut(&mut one.0),
        }
    }

    fn json(&self) -> Value {
        match self {
            Picture::All(statuses) => statuses.iter().map(render::object).collect::<Vec<_>>().into(),
            Picture::One(one) => {
                let (status, described) = &**one;
                let mut object = render::object(status);
                if let Value::Object(fields) = &mut object {
                    fields.insert("leases".to_owned(), table::leases_json(&described.dependents));
                }
                object
            }
        }
    }

    fn text(&self, style: Style, now: crate::domain::time::Time) -> String {
        match self {
            Picture::All(statuses) => table::table(statuses, style, now),
            Picture::One(one) => table::details(&one.0, &one.1.dependents, style, now),
        }
    }
}

impl Resource for proto::CredentialStatus {
    const COLUMNS: &'static [&'static str] = &["health", "owner", "provider", "expire_time", "id"];

    fn fields(&self) -> Vec<(&'static str, render::Field)> {
        table::fields(self)
    }

    fn handle(&self) -> String {
        self.credential
            .as_ref()
            .map(|credential| credential.id.clone())
            .unwrap_or_default()
    }

    fn references(&mut self) -> Vec<&mut String> {
        let credential = self.credential.as_mut();
        credential
            .map(|credential| owner_reference(&mut credential.owner))
            .unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_health_has_a_name_on_the_wire() {
        let mut seen: Vec<_> = Health::WORST_FIRST
            .iter()
            .map(|health| to_wire(health.name()).unwrap())
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, (1..=8).collect::<Vec<_>>());
        assert_eq!(to_wire("fine"), None);
    }
}

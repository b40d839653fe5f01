//! How a connection ended: the account that is connected and what agents can do with it now, or why there is none.

use serde_json::json;

use crate::cli::client::Session;
use crate::cli::error::{Failure, Kind};
use crate::cli::operator::pages;
use crate::cli::render::{self, Field, Output, Resource as _, ShowArgs, enum_name};
use crate::proto;
use crate::proto::ConnectionState;

/// How many executors are looked at.
const EXECUTORS: u32 = 1000;

/// Why it is not connected; `None`: it is.
pub(super) fn failure(ended: &proto::Connection) -> Option<Failure> {
    let told = |otherwise: &str| match ended.message.as_str() {
        "" => otherwise.to_owned(),
        message => message.to_owned(),
    };
    let of_reason = |otherwise| Failure::of_reason(&ended.reason, told(otherwise));
    let failure = match ended.state() {
        ConnectionState::Connected => return None,
        ConnectionState::Cancelled => Failure::new(Kind::Failed, "the connection was cancelled"),
        ConnectionState::Expired if ended.reason.is_empty() => {
            Failure::of_reason("CONNECTION_EXPIRED", told("nobody signed in in time"))
        }
        ConnectionState::Expired => of_reason("nobody signed in in time"),
        _ => of_reason("the sign-in failed"),
    };
    Some(failure.because(format!(
        "begin it anew with 'credbroker account retry {}'",
        ended.id
    )))
}

/// Tells what is connected. What the caller may not see of it is left out.
pub(super) async fn print(
    session: &Session,
    connection: proto::Connection,
    show: ShowArgs,
) -> Result<(), Failure> {
    let org = session.org_or_own();
    let request = proto::DescribeCredentialRequest {
        org: org.clone(),
        credential: connection.credential.clone(),
    };
    let told = session.credentials().describe_credential(request).await;
    let credential = told.ok().and_then(|told| told.into_inner().credential);
    let executors = usable(session, &org, &connection).await;
    render::print(&match show.output {
        Output::Name => format!("{}\n", connection.credential),
        Output::Json => render::json(&json!({
            "connection": render::object(&connection),
            "credential": credential.as_ref().map(render::object),
            "executors": executors,
        })),
        Output::Table => {
            let credential = credential.unwrap_or_default();
            let health = enum_name(credential.health().as_str_name(), "CREDENTIAL_HEALTH_");
            let cell = |field: Field| field.cell(render::now());
            let told = [
                ("connected", cell(Field::Text(connection.connector.clone()))),
                ("provider", cell(Field::Text(connection.provider.clone()))),
                ("credential", cell(Field::Text(connection.credential.clone()))),
                ("health", health),
                ("token expires", cell(Field::Time(credential.expire_time))),
                ("scopes", cell(Field::List(credential.scopes))),
                ("used by", executors.join(", ")),
            ];
            render::pairs(told.map(|(name, value)| (name.to_owned(), value)))
        }
    })?;
    if show.output == Output::Table {
        let handle = connection.handle();
        render::remark(&format!(
            "{handle} is done: the broker keeps the tokens and refreshes them."
        ));
    }
    Ok(())
}

/// The agent programs that this credential serves from now on.
async fn usable(session: &Session, org: &str, connection: &proto::Connection) -> Vec<String> {
    let listed = pages(EXECUTORS, |page_size, page_token| {
        let mut executors = session.executors();
        let request = proto::ListExecutorsRequest {
            org: org.to_owned(),
            member: connection.member.clone(),
            page_size,
            page_token,
            ..Default::default()
        };
        async move {
            let page = executors.list_executors(request).await?.into_inner();
            Ok((page.executors, page.next_page_token))
        }
    });
    let serves = |executor: &proto::Executor| {
        let mut ways = executor.ways.iter();
        ways.any(|way| way.credential == connection.credential && way.readiness() == proto::Readiness::Ready)
    };
    let executors = listed.await.unwrap_or_default();
    let serving = executors.into_iter().filter(serves);
    serving.map(|executor| executor.name).collect()
}

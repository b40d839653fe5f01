//! Connectors over the port: endpoints that are discovered, terms that have to be accepted, and what is shown of it
//! all.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "connectors/discovery.rs"]
mod discovery;
#[path = "support/metadata.rs"]
mod metadata;
#[path = "connectors/shown.rs"]
mod shown;
mod support;
#[path = "connectors/terms.rs"]
mod terms;
#[path = "support/user.rs"]
mod user;

use credbroker::proto;
use support::Caller;
use support::client::owner;

/// One connector.
async fn connector(caller: &Caller, name: &str) -> Result<proto::Connector, tonic::Status> {
    let request = proto::GetConnectorRequest {
        connector: name.to_owned(),
    };
    let answer = caller.executors().get_connector(request).await?;
    Ok(answer.into_inner().connector.unwrap())
}

/// Asks the broker to take over a grant; nobody's name means the org's.
async fn import(
    caller: &Caller,
    org: &str,
    member: &str,
    connector: &str,
) -> Result<proto::Credential, tonic::Status> {
    let request = proto::ImportGrantRequest {
        org: org.to_owned(),
        owner: Some(owner(member)),
        connector: connector.to_owned(),
        refresh_token: Some(proto::Secret {
            value: format!("refresh-token-of-{connector}"),
        }),
        ..Default::default()
    };
    let answer = caller.credentials().import_grant(request).await?;
    Ok(answer.into_inner().credential.unwrap())
}

//! How credentials stand, as people, programs and scrapers see it: each state made for real, and seen everywhere.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "credential_status/command.rs"]
mod command;
#[path = "credential_status/facts.rs"]
mod facts;
#[path = "credential_status/keys.rs"]
mod keys;
#[path = "credential_status/live.rs"]
mod live;
#[path = "credential_status/reach.rs"]
mod reach;
#[path = "credential_status/states.rs"]
mod states;
mod support;
#[path = "support/user.rs"]
mod user;

use credbroker::proto;
use proto::CredentialHealth;
use support::Caller;
use support::broker::ORG;
use tonic::Status;

/// How one credential stands.
async fn status(caller: &Caller, credential: &str) -> proto::CredentialStatus {
    let request = proto::GetCredentialStatusRequest {
        org: ORG.to_owned(),
        credential: credential.to_owned(),
    };
    let answer = caller.credentials().get_credential_status(request).await;
    answer.unwrap().into_inner().status.unwrap()
}

/// The ids of those that a list has for this filter, of all its pages, which are small.
async fn listed(caller: &Caller, member: &str, health: &[CredentialHealth]) -> Result<Vec<String>, Status> {
    let (mut ids, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = proto::ListCredentialStatusesRequest {
            org: ORG.to_owned(),
            page_size: 2,
            page_token,
            member: member.to_owned(),
            health: health.iter().map(|health| *health as i32).collect(),
        };
        let answer = caller.credentials().list_credential_statuses(request).await?;
        let page = answer.into_inner();
        assert!(page.statuses.len() <= 2);
        ids.extend(page.statuses.into_iter().map(id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(ids);
        }
    }
}

fn id(status: proto::CredentialStatus) -> String {
    status.credential.unwrap().id
}

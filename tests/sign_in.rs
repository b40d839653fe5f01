//! Members who sign in at an OpenID Connect issuer: over the port with tokens of a scripted issuer, and with the
//! real `credbroker login` at a real one.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/issuer.rs"]
mod issuer;
#[path = "sign_in/links.rs"]
mod links;
#[path = "sign_in/port.rs"]
mod port;
mod support;

use std::time::Duration;

use credbroker::clock::{Clock as _, SystemClock};
use credbroker::proto;
use issuer::{ScriptedIssuer, SigningKey};
use serde_json::Value;
use support::broker::{MEMBER, ORG};
use support::client::metadata;
use support::{Caller, Options, TestBroker, reason};
use tonic::Status;

const HOUR: Duration = Duration::from_secs(3600);

/// A broker that trusts an issuer for the prepared org, whose member is not linked to anybody yet.
struct Scene {
    issuer: ScriptedIssuer,
    key: SigningKey,
    broker: TestBroker,
    operator: Caller,
    member: String,
}

impl Scene {
    async fn new() -> Self {
        Self::of(&[ORG], Options::default()).await
    }

    /// An issuer for these orgs, each made as the prepared one.
    async fn of(orgs: &[&str], mut options: Options) -> Self {
        let key = SigningKey::p256("one");
        let issuer = ScriptedIssuer::start(&[&key]).await;
        options.config += &issuer.config(orgs, "");
        let broker = TestBroker::start_with(options).await;
        let operator = broker.operator().await;
        for org in orgs {
            operator.make_org(org).await;
        }
        let member = id_of(&operator, orgs[0], MEMBER).await;
        Self {
            issuer,
            key,
            broker,
            operator,
            member,
        }
    }

    fn claims(&self, subject: &str) -> Value {
        self.issuer
            .claims(subject, SystemClock::new().wall().seconds(), HOUR)
    }

    fn token(&self, subject: &str) -> String {
        self.key.sign(&self.claims(subject))
    }

    fn identity(&self, subject: &str) -> String {
        format!("oidc:{}#{subject}", self.issuer.url)
    }

    /// Links the member of the first org to a subject.
    async fn link(&self, subject: &str) {
        let identity = self.identity(subject);
        set_identities(&self.operator, ORG, &self.member, &[&identity])
            .await
            .unwrap();
    }

    async fn caller(&self, token: &str) -> Caller {
        self.broker.caller(Some(token)).await
    }

    async fn who(&self, token: &str) -> Result<proto::WhoAmIResponse, Status> {
        self.who_in(token, "").await
    }

    /// Names the org in the metadata, where it is not empty.
    async fn who_in(&self, token: &str, org: &str) -> Result<proto::WhoAmIResponse, Status> {
        let mut request = tonic::Request::new(proto::WhoAmIRequest {});
        if !org.is_empty() {
            request
                .metadata_mut()
                .insert("credbroker-org", org.parse().unwrap());
        }
        let answer = self.caller(token).await.access().who_am_i(request).await;
        answer.map(tonic::Response::into_inner)
    }
}

async fn id_of(operator: &Caller, org: &str, name: &str) -> String {
    let request = proto::GetMemberRequest {
        org: org.to_owned(),
        member: name.to_owned(),
    };
    let member = operator.directory().get_member(request).await.unwrap();
    member.into_inner().member.unwrap().id
}

async fn set_identities(
    caller: &Caller,
    org: &str,
    member: &str,
    identities: &[&str],
) -> Result<proto::Member, Status> {
    let request = proto::UpdateMemberRequest {
        member: Some(proto::Member {
            org: org.to_owned(),
            id: member.to_owned(),
            identities: identities.iter().map(|&identity| identity.to_owned()).collect(),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["identities".to_owned()],
        }),
    };
    let answer = caller.directory().update_member(request).await?;
    Ok(answer.into_inner().member.unwrap())
}

//! What these tests share: short ways to mint, give and ask.

#![allow(unreachable_pub)]

use std::sync::Arc;
use std::time::Duration;

use credbroker::proto;
use tonic::Status;

use crate::support::broker::{MEMBER, ORG};
use crate::support::clock::MovedClock;
use crate::support::{Caller, Options, TestBroker, reason};

pub const HOUR: Duration = Duration::from_secs(3_600);
pub const DAY: Duration = Duration::from_secs(86_400);

/// A broker whose clock can be moved, with the prepared org.
pub struct Scene {
    pub broker: TestBroker,
    pub clock: Arc<MovedClock>,
    pub operator: Caller,
}

impl Scene {
    pub async fn start() -> Self {
        let clock = Arc::new(MovedClock::default());
        let options = Options {
            clock: Some(Arc::clone(&clock) as _),
            ..Options::default()
        };
        let broker = TestBroker::start_with(options).await;
        let operator = broker.prepare().await;
        Self {
            broker,
            clock,
            operator,
        }
    }

    /// A new member of the org with this one role, calling with a token of their own.
    pub async fn member_with(&self, org: &str, name: &str, role: proto::RoleGrant) -> Caller {
        self.operator.make_member(org, name).await;
        self.operator.give(org, name, role.clone()).await.unwrap();
        if role.role() != proto::Role::Member || !role.project.is_empty() {
            let plain = grant(proto::Role::Member, "");
            self.operator.take(org, name, plain).await.unwrap();
        }
        let minted = self.operator.mint(token_of(org, name)).await.unwrap();
        self.caller(&minted).await
    }

    pub async fn caller(&self, minted: &Minted) -> Caller {
        self.broker.caller(Some(&minted.token)).await
    }
}

/// What was minted: its id, and its text.
#[derive(Clone, Debug)]
pub struct Minted {
    pub id: String,
    pub token: String,
    pub shown: proto::OperatorToken,
}

/// A role in the org at hand, or in a project of it.
pub fn grant(role: proto::Role, project: &str) -> proto::RoleGrant {
    proto::RoleGrant {
        role: role as i32,
        org: String::new(),
        project: project.to_owned(),
    }
}

pub fn token_of(org: &str, member: &str) -> proto::CreateOperatorTokenRequest {
    proto::CreateOperatorTokenRequest {
        org: org.to_owned(),
        member: member.to_owned(),
        ..Default::default()
    }
}

/// A token of somebody who is no member, with these roles.
pub fn token_apart(roles: &[(proto::Role, &str)]) -> proto::CreateOperatorTokenRequest {
    let role = |(role, org): &(proto::Role, &str)| proto::RoleGrant {
        role: *role as i32,
        org: (*org).to_owned(),
        project: String::new(),
    };
    proto::CreateOperatorTokenRequest {
        roles: roles.iter().map(role).collect(),
        ..Default::default()
    }
}

pub fn span(span: Duration) -> Option<prost_types::Duration> {
    Some(span.try_into().unwrap())
}

pub fn told<T>(answer: Result<T, Status>) -> Result<T, String> {
    answer.map_err(|status| reason(&status))
}

/// The reason of what has to be refused.
#[track_caller]
pub fn refused<T>(answer: Result<T, Status>) -> String {
    match answer {
        Ok(_) => panic!("not refused"),
        Err(status) => reason(&status),
    }
}

impl Caller {
    pub async fn mint(&self, request: proto::CreateOperatorTokenRequest) -> Result<Minted, Status> {
        let made = self.access().create_operator_token(request).await?.into_inner();
        Ok(minted(made.operator_token, made.token))
    }

    pub async fn rotate(
        &self,
        id: &str,
        overlap: Option<Duration>,
        ttl: Option<Duration>,
    ) -> Result<Minted, Status> {
        let request = proto::RotateOperatorTokenRequest {
            operator_token: id.to_owned(),
            overlap: overlap.and_then(span),
            ttl: ttl.and_then(span),
        };
        let made = self.access().rotate_operator_token(request).await?.into_inner();
        Ok(minted(made.operator_token, made.token))
    }

    pub async fn revoke_token(&self, id: &str) -> Result<proto::OperatorToken, Status> {
        let request = proto::RevokeOperatorTokenRequest {
            operator_token: id.to_owned(),
        };
        let answer = self.access().revoke_operator_token(request).await?;
        Ok(answer.into_inner().operator_token.unwrap())
    }

    /// The tokens that the caller is shown.
    pub async fn tokens(&self, org: &str, member: &str) -> Result<Vec<proto::OperatorToken>, Status> {
        let request = proto::ListOperatorTokensRequest {
            org: org.to_owned(),
            member: member.to_owned(),
            page_size: 200,
            ..Default::default()
        };
        let answer = self.access().list_operator_tokens(request).await?;
        Ok(answer.into_inner().operator_tokens)
    }

    pub async fn give(
        &self,
        org: &str,
        member: &str,
        role: proto::RoleGrant,
    ) -> Result<proto::RoleHolder, Status> {
        let request = proto::GrantRoleRequest {
            org: org.to_owned(),
            member: member.to_owned(),
            role: Some(role),
            ..Default::default()
        };
        let answer = self.access().grant_role(request).await?.into_inner();
        Ok(answer.holder.unwrap())
    }

    pub async fn take(
        &self,
        org: &str,
        member: &str,
        role: proto::RoleGrant,
    ) -> Result<proto::RoleHolder, Status> {
        let request = proto::RevokeRoleRequest {
            org: org.to_owned(),
            member: member.to_owned(),
            role: Some(role),
            ..Default::default()
        };
        let answer = self.access().revoke_role(request).await?.into_inner();
        Ok(answer.holder.unwrap())
    }

    pub async fn give_operator(
        &self,
        operator: &str,
        role: proto::RoleGrant,
    ) -> Result<proto::RoleHolder, Status> {
        let request = proto::GrantRoleRequest {
            operator: operator.to_owned(),
            role: Some(role),
            ..Default::default()
        };
        let answer = self.access().grant_role(request).await?.into_inner();
        Ok(answer.holder.unwrap())
    }

    pub async fn take_operator(
        &self,
        operator: &str,
        role: proto::RoleGrant,
    ) -> Result<proto::RoleHolder, Status> {
        let request = proto::RevokeRoleRequest {
            operator: operator.to_owned(),
            role: Some(role),
            ..Default::default()
        };
        let answer = self.access().revoke_role(request).await?.into_inner();
        Ok(answer.holder.unwrap())
    }

    pub async fn who(&self) -> Result<proto::WhoAmIResponse, String> {
        told(self.access().who_am_i(proto::WhoAmIRequest {}).await).map(tonic::Response::into_inner)
    }

    pub async fn list_members(&self, org: &str) -> Result<Vec<String>, Status> {
        let request = proto::ListMembersRequest {
            org: org.to_owned(),
            ..Default::default()
        };
        let page = self.directory().list_members(request).await?.into_inner();
        Ok(page.members.into_iter().map(|member| member.name).collect())
    }

    pub async fn read_journal(&self) -> Result<(), Status> {
        let request = proto::GetHeadRequest::default();
        self.journal().get_head(request).await.map(drop)
    }
}

fn minted(shown: Option<proto::OperatorToken>, token: Option<proto::Secret>) -> Minted {
    let shown = shown.unwrap();
    Minted {
        id: shown.id.clone(),
        token: token.unwrap().value.clone(),
        shown,
    }
}

/// The org's first member, with a token of their own.
pub async fn alex(scene: &Scene) -> (Minted, Caller) {
    let minted = scene.operator.mint(token_of(ORG, MEMBER)).await.unwrap();
    let caller = scene.caller(&minted).await;
    (minted, caller)
}

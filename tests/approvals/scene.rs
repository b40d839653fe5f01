//! A broker whose environment demands approvals, an agent with a task, and an approver.

#![allow(unreachable_pub)]

use std::sync::Arc;
use std::time::Duration;

use credbroker::proto;
use prost_types::FieldMask;
use tonic::Status;

use crate::support::broker::{ENVIRONMENT, MEMBER, ORG, PROJECT};
use crate::support::clock::MovedClock;
use crate::support::{Caller, Enrolled, Options, TestBroker};

pub const SPEC: &str = "sha256:0011";

pub struct Scene {
    pub broker: TestBroker,
    pub clock: Arc<MovedClock>,
    pub operator: Caller,
    pub task: String,
    pub enrolled: Enrolled,
    pub agent: Caller,
    pub approver: Caller,
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
        operator.set_key(ORG, "", "the-orgs-own-key-000").await;
        demand(&operator, proto::ApprovalPosture::Required).await;
        let task = operator.make_task_with(MEMBER, SPEC).await;
        let enrolled = broker.enroll(&operator, &task).await;
        let agent = broker.agent(&enrolled).await;
        let mut scene = Self {
            approver: agent.clone(),
            broker,
            clock,
            operator,
            task,
            enrolled,
            agent,
        };
        scene.approver = scene.member_with("casey", proto::Role::Approver, "").await;
        scene
    }

    /// A new member with this role in the org, or in a project of it; calling with a token of their own.
    pub async fn member_with(&self, name: &str, role: proto::Role, project: &str) -> Caller {
        self.operator.make_member(ORG, name).await;
        let role = proto::RoleGrant {
            role: role as i32,
            org: String::new(),
            project: project.to_owned(),
        };
        let request = proto::GrantRoleRequest {
            org: ORG.to_owned(),
            member: name.to_owned(),
            role: Some(role),
            ..Default::default()
        };
        self.operator.access().grant_role(request).await.unwrap();
        self.token_of(name).await
    }

    /// A member, calling with a token of their own.
    pub async fn token_of(&self, name: &str) -> Caller {
        let request = proto::CreateOperatorTokenRequest {
            org: ORG.to_owned(),
            member: name.to_owned(),
            ..Default::default()
        };
        let made = self.operator.access().create_operator_token(request).await;
        let token = made.unwrap().into_inner().token.unwrap();
        self.broker.caller(Some(&token.value)).await
    }

    /// An approval of the scene's task, asked for by its agent and granted.
    pub async fn granted(&self, uses: u32) -> Asked {
        let asked = self.agent.ask(ask(uses)).await.unwrap();
        self.approver.grant(&asked.id).await.unwrap();
        asked
    }
}

/// What the environment demands from now on.
pub async fn demand(operator: &Caller, posture: proto::ApprovalPosture) -> proto::Environment {
    let request = proto::GetEnvironmentRequest {
        org: ORG.to_owned(),
        project: PROJECT.to_owned(),
        environment: ENVIRONMENT.to_owned(),
    };
    let found = operator.directory().get_environment(request).await.unwrap();
    let request = proto::UpdateEnvironmentRequest {
        environment: Some(proto::Environment {
            approval: posture as i32,
            ..found.into_inner().environment.unwrap()
        }),
        update_mask: Some(FieldMask {
            paths: vec!["approval".to_owned()],
        }),
    };
    let changed = operator.directory().update_environment(request).await.unwrap();
    changed.into_inner().environment.unwrap()
}

pub fn scope(executor: &str, provider: &str, mode: &str) -> proto::CapabilityScope {
    let one = |name: &str| vec![name.to_owned()];
    proto::CapabilityScope {
        executors: one(executor),
        providers: one(provider),
        modes: one(mode),
    }
}

pub fn fitting() -> proto::CapabilityScope {
    scope("demo-agent", "demo", "byok")
}

pub fn ask(use_limit: u32) -> proto::RequestApprovalRequest {
    proto::RequestApprovalRequest {
        capability: Some(fitting()),
        use_limit,
        reason: "to mend the build".to_owned(),
        ..Default::default()
    }
}

/// What approves the scene's spec hash unasked.
pub fn unasked(spec_hash: &str) -> proto::CreateApprovalRequest {
    proto::CreateApprovalRequest {
        project: PROJECT.to_owned(),
        environment: ENVIRONMENT.to_owned(),
        spec_hash: spec_hash.to_owned(),
        capability: Some(fitting()),
        ..Default::default()
    }
}

/// An approval that was asked for or made, with its token.
#[derive(Clone, Debug)]
pub struct Asked {
    pub id: String,
    pub token: String,
    pub shown: proto::Approval,
}

fn asked(approval: Option<proto::Approval>, token: Option<proto::Secret>) -> Asked {
    let shown = approval.unwrap();
    Asked {
        id: shown.id.clone(),
        token: token.unwrap().value.clone(),
        shown,
    }
}

impl Caller {
    pub async fn make_task_with(&self, member: &str, spec_hash: &str) -> String {
        let request = proto::CreateTaskRequest {
            org: ORG.to_owned(),
            member: member.to_owned(),
            project: PROJECT.to_owned(),
            executor: "demo-agent".to_owned(),
            spec_hash: spec_hash.to_owned(),
            ..Default::default()
        };
        let made = self.tasks().create_task(request).await.unwrap();
        made.into_inner().task.unwrap().id
    }

    pub async fn ask(&self, request: proto::RequestApprovalRequest) -> Result<Asked, Status> {
        let made = self.approvals().request_approval(request).await?.into_inner();
        Ok(asked(made.approval.clone(), made.token.clone()))
    }

    pub async fn approve(&self, request: proto::CreateApprovalRequest) -> Result<Asked, Status> {
        let made = self.approvals().create_approval(request).await?.into_inner();
        Ok(asked(made.approval.clone(), made.token.clone()))
    }

    pub async fn grant(&self, id: &str) -> Result<proto::Approval, Status> {
        self.grant_less(id, 0, None).await
    }

    pub async fn grant_less(
        &self,
        id: &str,
        use_limit: u32,
        ttl: Option<Duration>,
    ) -> Result<proto::Approval, Status> {
        let request = proto::GrantApprovalRequest {
            org: ORG.to_owned(),
            approval: id.to_owned(),
            use_limit,
            ttl: ttl.map(|ttl| ttl.try_into().unwrap()),
            message: "go on".to_owned(),
        };
        let answer = self.approvals().grant_approval(request).await?;
        Ok(answer.into_inner().approval.unwrap())
    }

    pub async fn deny(&self, id: &str) -> Result<proto::Approval, Status> {
        let request = proto::DenyApprovalRequest {
            org: ORG.to_owned(),
            approval: id.to_owned(),
            message: "not now".to_owned(),
        };
        let answer = self.approvals().deny_approval(request).await?;
        Ok(answer.into_inner().approval.unwrap())
    }

    pub async fn take_back(&self, id: &str) -> Result<proto::RevokeApprovalResponse, Status> {
        let request = proto::RevokeApprovalRequest {
            org: ORG.to_owned(),
            approval: id.to_owned(),
        };
        Ok(self.approvals().revoke_approval(request).await?.into_inner())
    }

    pub async fn approval(&self, id: &str) -> Result<proto::Approval, Status> {
        let request = proto::GetApprovalRequest {
            org: ORG.to_owned(),
            approval: id.to_owned(),
        };
        let answer = self.approvals().get_approval(request).await?;
        Ok(answer.into_inner().approval.unwrap())
    }

    /// The ids of the approvals in a state, of all where it is unspecified.
    pub async fn listed(&self, state: proto::ApprovalState) -> Vec<String> {
        let request = proto::ListApprovalsRequest {
            org: ORG.to_owned(),
            state: state as i32,
            page_size: 200,
            ..Default::default()
        };
        let page = self.approvals().list_approvals(request).await.unwrap();
        let rows = page.into_inner().approvals;
        rows.into_iter().map(|row| row.id).collect()
    }

    /// Resolves for a task with the token of an approval; with none where it is empty.
    pub async fn resolve_by(&self, task: &str, token: &str) -> Result<proto::Lease, Status> {
        let request = proto::ResolveCredentialRequest {
            task: task.to_owned(),
            approval: (!token.is_empty()).then(|| proto::Secret {
                value: token.to_owned(),
            }),
            ..Default::default()
        };
        let answer = self.broker().resolve_credential(request).await?;
        Ok(answer.into_inner().lease.unwrap())
    }

    pub async fn give_back(&self, lease: &str) {
        let request = proto::ReleaseLeaseRequest {
            lease: lease.to_owned(),
        };
        self.broker().release_lease(request).await.unwrap();
    }
}

/// The reason of what has to be refused.
#[track_caller]
pub fn refused<T>(answer: Result<T, Status>) -> String {
    match answer {
        Ok(_) => panic!("not refused"),
        Err(status) => crate::support::reason(&status),
    }
}

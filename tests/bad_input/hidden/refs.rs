//! References to one of everything: to nothing, and to what is another org's.

use credbroker::proto;

use crate::support::broker::MEMBER;
use crate::support::client::owner;
use crate::support::state::State;
use crate::support::{Caller, TestBroker};

/// References to one of everything.
#[derive(Clone)]
pub(super) struct Refs {
    pub(super) org: String,
    pub(super) project: String,
    pub(super) environment: String,
    pub(super) member: String,
    pub(super) identity: String,
    pub(super) agent: String,
    pub(super) task: String,
    pub(super) credential: String,
    pub(super) lease: String,
    pub(super) enrollment_token: String,
    pub(super) approval: String,
    pub(super) connection: String,
    pub(super) revocation: String,
}

impl Refs {
    /// References that are well formed and lead nowhere.
    pub(super) fn to_nothing() -> Self {
        let id = |prefix: &str| format!("{prefix}_0198f000{}", "a".repeat(24));
        Self {
            org: id("org"),
            project: id("prj"),
            environment: id("env"),
            member: id("mbr"),
            identity: "git:nobody".to_owned(),
            agent: id("agt"),
            task: id("tsk"),
            credential: id("crd"),
            lease: id("lse"),
            enrollment_token: id("etk"),
            approval: id("apr"),
            connection: id("cnx"),
            revocation: id("rev"),
        }
    }

    /// The same by name, where there are names.
    pub(super) fn named(&self, name: &str) -> Self {
        let name = |kind: &str| format!("{name}-{kind}");
        Self {
            org: name("org"),
            project: name("project"),
            environment: name("environment"),
            member: name("member"),
            ..self.clone()
        }
    }
}

pub(super) const THEIRS: &str = "theirs";

/// Another org with one of everything, its names beginning with `theirs-`.
pub(super) async fn theirs(broker: &TestBroker, operator: &Caller) -> Refs {
    let names = Refs::to_nothing().named(THEIRS);
    let org = names.org.as_str();
    operator.make_org(org).await;
    let mut directory = operator.directory();
    let request = proto::CreateProjectRequest {
        org: org.to_owned(),
        name: names.project.clone(),
        ..Default::default()
    };
    let project = directory
        .create_project(request)
        .await
        .unwrap()
        .into_inner()
        .project
        .unwrap();
    let request = proto::CreateEnvironmentRequest {
        org: org.to_owned(),
        project: project.id.clone(),
        name: names.environment.clone(),
        ..Default::default()
    };
    let made = directory.create_environment(request).await.unwrap().into_inner();
    let request = proto::CreateMemberRequest {
        org: org.to_owned(),
        name: names.member.clone(),
        identities: vec!["git:theirs".to_owned()],
        ..Default::default()
    };
    let member = directory
        .create_member(request)
        .await
        .unwrap()
        .into_inner()
        .member
        .unwrap();
    let credential = operator.set_key(org, "", "a-key-of-the-others-0").await.id;
    let task = operator.make_task(org, MEMBER).await;
    let token = operator.enrollment_token(org, &task).await;
    let enrolled = broker
        .enroll_with(&token, &crate::support::NewKey::generate())
        .await
        .unwrap();
    let (_, key) = operator.make_api_key(org).await;
    let lease = broker
        .caller(Some(&key))
        .await
        .resolve(&task)
        .await
        .unwrap()
        .lease
        .unwrap();
    let state = State::of(operator, org).await;
    let environment = made.environment.unwrap().id;
    let approval = approved(operator, org, &environment).await;
    let request = proto::BeginConnectionRequest {
        org: org.to_owned(),
        member: member.id.clone(),
        connector: "demo".to_owned(),
        flow: proto::ConnectionFlow::Loopback as i32,
        loopback_port: 8080,
    };
    let begun = operator.accounts().begin_connection(request).await.unwrap();
    let connection = begun.into_inner().connection.unwrap().id;
    let revocation = revoking(operator, org, &member.id).await;
    Refs {
        org: project.org,
        project: project.id,
        environment,
        member: member.id,
        identity: "git:theirs".to_owned(),
        agent: enrolled.agent,
        task,
        credential,
        lease: lease.id,
        enrollment_token: state.enrollment_tokens[0].id.clone(),
        approval,
        connection,
        revocation,
    }
}

pub(super) fn any() -> Option<proto::CapabilityScope> {
    let any = || vec!["*".to_owned()];
    Some(proto::CapabilityScope {
        executors: any(),
        providers: any(),
        modes: any(),
    })
}

/// An account of a member that was disconnected, at a provider that is not to be reached.
async fn revoking(operator: &Caller, org: &str, member: &str) -> String {
    let secret = |value: &str| {
        Some(proto::Secret {
            value: value.to_owned(),
        })
    };
    let request = proto::ImportGrantRequest {
        org: org.to_owned(),
        owner: Some(owner(member)),
        connector: "demo".to_owned(),
        refresh_token: secret("a-refresh-token"),
        ..Default::default()
    };
    let grant = operator.credentials().import_grant(request).await.unwrap();
    let request = proto::DisconnectAccountRequest {
        org: org.to_owned(),
        credential: grant.into_inner().credential.unwrap().id,
        wait: Some(prost_types::Duration::default()),
        ..Default::default()
    };
    let gone = operator.accounts().disconnect_account(request).await.unwrap();
    gone.into_inner().revocation
}

async fn approved(operator: &Caller, org: &str, environment: &str) -> String {
    let request = proto::SetSecretRequest {
        org: org.to_owned(),
        namespace: "a".to_owned(),
        name: "KEY".to_owned(),
        value: Some(proto::Secret {
            value: "theirs".to_owned(),
        }),
    };
    operator.secrets().set_secret(request).await.unwrap();
    let request = proto::CreateApprovalRequest {
        org: org.to_owned(),
        environment: environment.to_owned(),
        spec_hash: "theirs".to_owned(),
        capability: any(),
        ..Default::default()
    };
    let made = operator.approvals().create_approval(request).await.unwrap();
    made.into_inner().approval.unwrap().id
}

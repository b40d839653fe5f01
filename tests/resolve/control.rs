//! Control-plane services resolve by API key: for a task, or for a member of their org.

use credbroker::proto;

use crate::support::broker::{ENVIRONMENT, MEMBER, ORG, PROJECT};
use crate::support::client::secret;
use crate::support::{TestBroker, reason};
use crate::{claim, resolutions};

// req: K6 B8(core) B2
#[tokio::test]
async fn an_api_key_resolves_for_a_member_and_for_a_task() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let kim = proto::CreateMemberRequest {
        org: ORG.to_owned(),
        name: "kim".to_owned(),
        identities: vec!["github:kim".to_owned()],
        ..Default::default()
    };
    let kim = operator
        .directory()
        .create_member(kim)
        .await
        .unwrap()
        .into_inner()
        .member
        .unwrap();
    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    operator.set_key(ORG, "kim", "the-key-of-kim-00000").await;
    let (_, key) = operator.make_api_key(ORG).await;
    let automation = broker.caller(Some(&key)).await;
    let direct = async |change: fn(&mut proto::ResolveCredentialRequest)| {
        claim(&automation, "", |request| {
            request.project = PROJECT.to_owned();
            request.executor = "demo-agent".to_owned();
            change(request);
        })
        .await
    };
    let by_name = direct(|request| request.member = "kim".to_owned())
        .await
        .unwrap()
        .lease
        .unwrap();
    assert_eq!(secret(&by_name), "the-key-of-kim-00000");
    assert_eq!(by_name.task, "");
    let by_identity = direct(|request| request.member_identity = "github:kim".to_owned())
        .await
        .unwrap();
    assert_eq!(by_identity.lease.unwrap(), by_name);
    let other = direct(|request| request.member = "alex".to_owned())
        .await
        .unwrap()
        .lease
        .unwrap();
    assert_eq!(secret(&other), "the-orgs-own-key-000");
    assert_ne!(other.id, by_name.id);
    let nobody = direct(|request| request.member_identity = "github:nobody".to_owned()).await;
    assert_eq!(reason(&nobody.unwrap_err()), "NOT_FOUND");
    let nobody = direct(|request| request.member = "nobody".to_owned()).await;
    assert_eq!(reason(&nobody.unwrap_err()), "NOT_FOUND");
    let unknown = direct(|request| {
        request.member = "kim".to_owned();
        request.executor = "vim".to_owned();
    });
    assert_eq!(reason(&unknown.await.unwrap_err()), "EXECUTOR_UNKNOWN");

    let task = operator.make_task(ORG, "kim").await;
    let for_task = automation.resolve(&task).await.unwrap().lease.unwrap();
    assert_eq!(
        (&*for_task.task, secret(&for_task)),
        (&*task, "the-key-of-kim-00000")
    );
    assert_ne!(for_task.id, by_name.id);
    assert_eq!(resolutions(&operator).await, (3, 4));
    // A direct resolution is recorded with its member and by whom.
    let records = operator.records().await;
    let record = records
        .iter()
        .find(|record| record.action == "credential.resolve" && record.phase == "finish")
        .unwrap();
    assert_eq!(record.subject["member"], kim.id);
    assert_eq!(record.subject["lease"], by_name.id);
    assert!(record.actor.starts_with("key_"));
}

// req: K6 D8
#[tokio::test]
async fn a_lease_is_its_holders() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let task = operator.make_task(ORG, MEMBER).await;
    let agent = broker.agent(&broker.enroll(&operator, &task).await).await;
    let (_, one) = operator.make_api_key(ORG).await;
    let (_, two) = operator.make_api_key(ORG).await;
    let (one, two) = (broker.caller(Some(&one)).await, broker.caller(Some(&two)).await);
    let mut ids = Vec::new();
    for caller in [&agent, &one, &two] {
        ids.push(caller.resolve(&task).await.unwrap().lease.unwrap().id);
    }
    for (caller, foreign) in [(&agent, &ids[1]), (&one, &ids[2]), (&two, &ids[0])] {
        let request = proto::ReleaseLeaseRequest {
            lease: foreign.clone(),
        };
        let status = caller.broker().release_lease(request).await.unwrap_err();
        assert_eq!(reason(&status), "NOT_FOUND");
    }
    for (caller, own) in [(&agent, &ids[0]), (&one, &ids[1]), (&two, &ids[2])] {
        assert_eq!(&caller.resolve(&task).await.unwrap().lease.unwrap().id, own);
    }
}

// An assignment in one project is no way to another project's agents, nor around what their environments demand.
// req: D8 D3
#[tokio::test]
async fn an_agent_is_assigned_within_its_own_project_only() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let task = operator.make_task(ORG, MEMBER).await;
    let agent = broker.enroll(&operator, "").await;
    let other = proto::CreateProjectRequest {
        org: ORG.to_owned(),
        name: "other".to_owned(),
        ..Default::default()
    };
    operator.directory().create_project(other).await.unwrap();
    let new = proto::CreateTaskRequest {
        org: ORG.to_owned(),
        member: MEMBER.to_owned(),
        project: "other".to_owned(),
        executor: "demo-agent".to_owned(),
        agents: vec![agent.agent.clone()],
        ..Default::default()
    };
    let refused = operator.tasks().create_task(new.clone()).await.unwrap_err();
    assert_eq!(reason(&refused), "NOT_FOUND");
    let there = proto::CreateTaskRequest {
        agents: Vec::new(),
        ..new
    };
    let there = operator.tasks().create_task(there).await.unwrap().into_inner();
    let there = there.task.unwrap().id;
    let assign = |task: String| proto::AssignTaskRequest {
        org: ORG.to_owned(),
        task,
        agents: vec![agent.agent.clone()],
    };
    let refused = operator.tasks().assign_task(assign(there.clone())).await;
    assert_eq!(reason(&refused.unwrap_err()), "NOT_FOUND");
    operator.tasks().assign_task(assign(task)).await.unwrap();
    // Nor does an enrollment token lead there.
    let minted = proto::CreateEnrollmentTokensRequest {
        org: ORG.to_owned(),
        project: PROJECT.to_owned(),
        environment: ENVIRONMENT.to_owned(),
        task: there,
        ..Default::default()
    };
    let refused = operator.agents().create_enrollment_tokens(minted).await;
    assert_eq!(reason(&refused.unwrap_err()), "NOT_FOUND");
}

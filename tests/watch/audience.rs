//! Who hears of what, with grants that the engine really refreshes.

use std::time::Duration;

use credbroker::dev::oauth::{DemoOAuth, DemoOptions};
use credbroker::proto::watch_event::Event;
use credbroker::proto::{self, CredentialHealth};
use serde_json::Value;

use crate::support::broker::{MEMBER, ORG, connector};
use crate::support::client::{Caller, secret};
use crate::support::provider::Reply;
use crate::support::scene::Scene;
use crate::support::{Options, TestBroker};

const AGENTS: usize = 6;

/// A provider with as many grants as are asked for.
struct Grants(DemoOAuth, reqwest::Client);

impl Grants {
    async fn start() -> Self {
        let server = DemoOAuth::start(([127, 0, 0, 1], 0).into(), DemoOptions::default());
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self(server.await.unwrap(), client)
    }

    async fn mint(&self) -> String {
        let minted = self
            .1
            .post(format!("http://{}/grants", self.0.addr()))
            .send()
            .await;
        let minted: Value = minted.unwrap().json().await.unwrap();
        minted["refresh_token"].as_str().unwrap().to_owned()
    }
}

async fn agents(broker: &TestBroker, operator: &Caller, task: &str, count: usize) -> Vec<Caller> {
    let mut agents = Vec::new();
    for _ in 0..count {
        agents.push(broker.agent(&broker.enroll(operator, task).await).await);
    }
    agents
}

// req: N4 B6
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_is_heard_by_those_who_hold_the_credential_and_those_who_see_the_org() {
    let grants = Grants::start().await;
    let broker = TestBroker::start_with(Options {
        connectors: connector(&grants.0.token_url(), "tests", ""),
        ..Options::default()
    });
    let broker = broker.await;
    let operator = broker.prepare().await;
    operator.make_member(ORG, "kim").await;
    operator.make_org("globex").await;
    let credential = operator.import_grant(ORG, MEMBER, &grants.mint().await).await.id;
    let foreign = operator.import_grant(ORG, "kim", &grants.mint().await).await.id;
    let task = operator.make_task(ORG, MEMBER).await;
    let foreign_task = operator.make_task(ORG, "kim").await;

    let own = agents(&broker, &operator, &task, AGENTS).await;
    let others = agents(&broker, &operator, &foreign_task, 2).await;
    let (_, key) = operator.make_api_key(ORG).await;
    let (_, elsewhere) = operator.make_api_key("globex").await;
    let mut in_org = broker.caller(Some(&key)).await.watch().await;
    let mut out_of_org = broker.caller(Some(&elsewhere)).await.watch().await;
    let mut everywhere = operator.watch().await;
    let mut one_org = operator.watch_org("", "globex").await.unwrap();
    one_org.message().await.unwrap();

    // They watch before they resolve: what a lease brings counts from when it is made.
    let mut watching = Vec::new();
    let mut leases = Vec::new();
    for agent in own.iter().chain(&others) {
        watching.push(agent.watch().await);
        leases.push(agent.resolve("").await.unwrap().lease.unwrap());
    }
    let (mine, theirs) = watching.split_at_mut(AGENTS);
    let rotations = [
        (&credential, 2),
        (&foreign, 2),
        (&credential, 3),
        (&foreign, 3),
        (&credential, 4),
    ];
    for (round, expected) in [(2, 3), (3, 4)] {
        let renewed = own[0].reject(&leases[0].id, round).await.unwrap().lease.unwrap();
        assert_eq!(renewed.generation, expected);
        for (agent, watch) in own.iter().zip(mine.iter_mut()) {
            assert_eq!(watch.rotated().await, (credential.clone(), expected));
            let lease = agent.resolve("").await.unwrap().lease.unwrap();
            assert_eq!((lease.generation, secret(&lease)), (expected, secret(&renewed)));
        }
        if round == 2 {
            others[0].reject(&leases[AGENTS].id, 2).await.unwrap();
        }
    }
    // The second rotation was the first that these heard of.
    for watch in theirs.iter_mut() {
        assert_eq!(watch.rotated().await, (foreign.clone(), 3));
    }
    for watch in [&mut in_org, &mut everywhere] {
        for (credential, generation) in rotations {
            assert_eq!(watch.rotated().await, (credential.clone(), generation));
        }
    }
    // In the other org nothing happened until now.
    let key = operator.set_key("globex", "", "the-other-orgs-key-00").await.id;
    for watch in [&mut out_of_org, &mut one_org] {
        let Event::CredentialHealthChanged(told) = watch.event().await.unwrap() else {
            panic!("another event")
        };
        assert_eq!(
            (told.credential.as_str(), told.health()),
            (key.as_str(), CredentialHealth::Ok)
        );
    }
    let refused = out_of_org_asks(&broker, &elsewhere).await;
    assert_eq!(crate::support::reason(&refused), "NOT_FOUND");
}

/// A key of one org asks for another's events.
async fn out_of_org_asks(broker: &TestBroker, key: &str) -> tonic::Status {
    let caller = broker.caller(Some(key)).await;
    caller.watch_org("", ORG).await.err().unwrap()
}

// req: N4
#[tokio::test]
async fn an_agent_hears_what_happens_to_its_credential_its_task_and_its_member() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let task = operator.make_task(ORG, MEMBER).await;
    let agent = broker.agent(&broker.enroll(&operator, &task).await).await;
    let mut watch = agent.watch().await;

    // Somebody else's credential is not heard of; that one's own member has one now is.
    operator.make_member(ORG, "kim").await;
    operator.set_key(ORG, "kim", "kims-own-key-000000").await;
    let key = operator.set_key(ORG, MEMBER, "alexs-own-key-00000").await.id;
    let Event::CredentialHealthChanged(told) = watch.event().await.unwrap() else {
        panic!("another event")
    };
    assert_eq!(
        (told.credential.as_str(), told.health()),
        (key.as_str(), CredentialHealth::Ok)
    );

    // A key that is replaced is a rotation. Without a lease it is none of the agent's business.
    operator.set_key(ORG, MEMBER, "alexs-second-key-000").await;
    let lease = agent.resolve("").await.unwrap().lease.unwrap();
    operator.set_key(ORG, MEMBER, "alexs-third-key-0000").await;
    assert_eq!(watch.rotated().await, (key.clone(), 3));
    assert_eq!(agent.resolve("").await.unwrap().lease.unwrap().generation, 3);
    agent
        .broker()
        .release_lease(proto::ReleaseLeaseRequest { lease: lease.id })
        .await
        .unwrap();
    operator.set_key(ORG, MEMBER, "alexs-fourth-key-000").await;
    agent.resolve("").await.unwrap();

    // One that comes later has what stands from the store.
    let mut later = agent.watch().await;
    let second = operator.make_task(ORG, MEMBER).await;
    let assign = proto::AssignTaskRequest {
        org: ORG.to_owned(),
        task: second.clone(),
        agents: vec![operator_view(&operator).await],
    };
    operator.tasks().assign_task(assign).await.unwrap();
    let remove = proto::RemoveCredentialRequest {
        org: ORG.to_owned(),
        credential: key.clone(),
    };
    operator.credentials().remove_credential(remove).await.unwrap();
    for task in [&task, &second] {
        let end = proto::EndTaskRequest {
            org: ORG.to_owned(),
            task: task.clone(),
        };
        operator.tasks().end_task(end).await.unwrap();
    }
    for watch in [&mut watch, &mut later] {
        assert_eq!(
            watch.ended().await,
            (key.clone(), "CREDENTIAL_UNUSABLE".to_owned())
        );
        assert_eq!(watch.ended().await, (task.clone(), "TASK_ENDED".to_owned()));
        assert_eq!(watch.ended().await, (second.clone(), "TASK_ENDED".to_owned()));
    }
    // Its tasks are over, and so is what it heard of because of them.
    operator.set_key(ORG, MEMBER, "alexs-last-key-00000").await;
    broker.broker.policy_changed(None, 7);
    assert_eq!((watch.policy().await, later.policy().await), (7, 7));
}

/// The id of the only agent.
async fn operator_view(operator: &Caller) -> String {
    let request = proto::ListAgentsRequest {
        org: ORG.to_owned(),
        ..Default::default()
    };
    let listed = operator.agents().list_agents(request).await.unwrap().into_inner();
    assert_eq!(listed.agents.len(), 1);
    listed.agents[0].id.clone()
}

// req: N4 N9
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_needs_a_person_is_told_and_so_is_that_it_has_got_one() {
    let (scene, _) = Scene::leased("", "").await;
    let mut watch = scene.agent.watch().await;
    let health = async |watch: &mut crate::support::watching::Watching| match watch.event().await.unwrap() {
        Event::CredentialHealthChanged(told) if told.credential == scene.credential => told.health(),
        other => panic!("{other:?}"),
    };
    scene.expire();
    scene.provider.next(Reply::HangUp { rotated: true });
    scene.resolve().await.unwrap_err();
    assert_eq!(health(&mut watch).await, CredentialHealth::Ambiguous);
    // The answer was lost, and the provider had rotated: sent again, the token is a replay.
    scene.clock.advance(Duration::from_secs(10));
    scene.resolve().await.unwrap_err();
    assert_eq!(health(&mut watch).await, CredentialHealth::GrantLost);
    scene
        .operator
        .import_grant(ORG, MEMBER, &scene.provider.mint())
        .await;
    assert_eq!(watch.rotated().await, (scene.credential.clone(), 3));
    assert_eq!(health(&mut watch).await, CredentialHealth::Ok);
    // The import brought no access token: the next need refreshes, and that is a rotation.
    assert_eq!(scene.resolve().await.unwrap().generation, 4);
    assert_eq!(watch.rotated().await, (scene.credential.clone(), 4));
}

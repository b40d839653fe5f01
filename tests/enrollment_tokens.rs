//! Enrollment tokens over the port: the networks they are good from, their slots, and what goes when they do.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use credbroker::proto;
use support::broker::{ENVIRONMENT, MEMBER, ORG, PROJECT};
use support::{Caller, Enrolled, NewKey, TestBroker, reason};

fn request() -> proto::CreateEnrollmentTokensRequest {
    proto::CreateEnrollmentTokensRequest {
        org: ORG.to_owned(),
        project: PROJECT.to_owned(),
        environment: ENVIRONMENT.to_owned(),
        ..Default::default()
    }
}

/// A token of this request: its id and itself.
async fn mint(operator: &Caller, request: proto::CreateEnrollmentTokensRequest) -> (String, String) {
    let minted = operator.agents().create_enrollment_tokens(request).await.unwrap();
    let minted = minted.into_inner().tokens.remove(0);
    (
        minted.enrollment_token.unwrap().id,
        minted.token.unwrap().value.clone(),
    )
}

async fn get(operator: &Caller, enrollment_token: &str) -> proto::EnrollmentToken {
    let request = proto::GetEnrollmentTokenRequest {
        org: ORG.to_owned(),
        enrollment_token: enrollment_token.to_owned(),
    };
    let answer = operator.agents().get_enrollment_token(request).await.unwrap();
    answer.into_inner().enrollment_token.unwrap()
}

async fn revoke(
    operator: &Caller,
    enrollment_token: &str,
    cascade: bool,
    validate_only: bool,
) -> proto::RevokeEnrollmentTokenResponse {
    let request = proto::RevokeEnrollmentTokenRequest {
        org: ORG.to_owned(),
        enrollment_token: enrollment_token.to_owned(),
        cascade,
        validate_only,
    };
    let answer = operator.agents().revoke_enrollment_token(request).await.unwrap();
    answer.into_inner()
}

async fn lives(broker: &TestBroker, enrolled: &Enrolled) -> bool {
    let agent = broker.agent(enrolled).await;
    agent.access().who_am_i(proto::WhoAmIRequest {}).await.is_ok()
}

// req: D4
#[tokio::test]
async fn a_token_is_taken_from_its_networks_only_and_a_refusal_costs_no_slot() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let of = |networks: &[&str]| proto::CreateEnrollmentTokensRequest {
        allowed_networks: networks.iter().map(|network| network.to_string()).collect(),
        ..request()
    };
    let (id, elsewhere) = mint(&operator, of(&["10.0.0.0/8", "2001:db8::/32"])).await;
    let key = NewKey::generate();
    let refused = broker.enroll_with(&elsewhere, &key).await.err().unwrap();
    assert_eq!(reason(&refused), "ENROLLMENT_NETWORK");
    let token = get(&operator, &id).await;
    assert_eq!(token.bound_agents, 0);
    assert_eq!(token.allowed_networks, ["10.0.0.0/8", "2001:db8::/32"]);
    let records = operator.records().await;
    let denied = records
        .iter()
        .find(|record| record.reason == "ENROLLMENT_NETWORK")
        .unwrap();
    assert_eq!(
        (&*denied.outcome, &denied.subject["enrollment_token"]),
        ("denied", &id)
    );
    assert_eq!(denied.subject["address"], "127.0.0.1");

    let (_, here) = mint(&operator, of(&["192.0.2.0/24", "127.0.0.0/8"])).await;
    broker.enroll_with(&here, &key).await.unwrap();

    let many: Vec<String> = (0..17).map(|n| format!("10.0.{n}.0/24")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for networks in [&["10.0.0.1/8"][..], &["everywhere"], &[""], &many] {
        let refused = operator
            .agents()
            .create_enrollment_tokens(of(networks))
            .await
            .unwrap_err();
        assert_eq!(reason(&refused), "INVALID_ARGUMENT", "{networks:?}");
    }
}

// req: D4 N3
#[tokio::test]
async fn a_stranger_costs_no_check_of_its_request_and_a_bad_request_no_slot() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let (id, token) = mint(&operator, request()).await;
    let present = async |token: &str, csr_der: Vec<u8>| {
        let request = proto::EnrollRequest {
            token: Some(proto::Secret {
                value: token.to_owned(),
            }),
            csr_der,
            ..Default::default()
        };
        let caller = broker.caller(None).await;
        reason(&caller.enrollment().enroll(request).await.unwrap_err())
    };
    // Of two faults the token's is told: the request was not looked at.
    let (_, other) = {
        let elsewhere = TestBroker::start().await;
        let operator = elsewhere.prepare().await;
        mint(&operator, request()).await
    };
    assert_eq!(
        present(&other, b"no request".to_vec()).await,
        "ENROLLMENT_TOKEN_UNKNOWN"
    );
    assert_eq!(present(&token, b"no request".to_vec()).await, "CSR_INVALID");
    assert_eq!(get(&operator, &id).await.bound_agents, 0);
    broker.enroll_with(&token, &NewKey::generate()).await.unwrap();
}

// req: D4 K7
#[tokio::test]
async fn slots_are_bound_and_shown_one_by_one() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let pool = proto::CreateEnrollmentTokensRequest {
        max_agents: 5,
        ..request()
    };
    let (id, token) = mint(&operator, pool).await;
    let mut expected = Vec::new();
    for _ in 0..3 {
        let enrolled = broker.enroll_with(&token, &NewKey::generate()).await.unwrap();
        expected.push(enrolled.agent);
    }
    let (mut slots, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = proto::ListEnrollmentTokenSlotsRequest {
            org: ORG.to_owned(),
            enrollment_token: id.clone(),
            page_size: 2,
            page_token,
        };
        let page = operator.agents().list_enrollment_token_slots(request).await;
        let page = page.unwrap().into_inner();
        slots.extend(page.slots);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let mut agents: Vec<_> = slots.iter().map(|slot| slot.agent.clone()).collect();
    agents.sort();
    assert_eq!(agents, expected);
    for slot in &slots {
        let request = proto::GetAgentRequest {
            org: ORG.to_owned(),
            agent: slot.agent.clone(),
        };
        let agent = operator
            .agents()
            .get_agent(request)
            .await
            .unwrap()
            .into_inner()
            .agent
            .unwrap();
        assert_eq!(slot.key_fingerprint, agent.key_fingerprint);
        assert_eq!((slot.state, slot.bind_time), (agent.state, agent.create_time));
        assert_eq!(agent.enrollment_token, id);
    }
    // Of another org, it is not there.
    operator.make_org("other").await;
    let request = proto::ListEnrollmentTokenSlotsRequest {
        org: "other".to_owned(),
        enrollment_token: id,
        ..Default::default()
    };
    let refused = operator
        .agents()
        .list_enrollment_token_slots(request)
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "NOT_FOUND");
}

// req: D4 D6 K7
#[tokio::test]
async fn agents_stay_when_their_token_goes_unless_they_are_to_go_with_it() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    operator.set_key(ORG, MEMBER, "the-members-key-0000").await;
    let task = operator.make_task(ORG, MEMBER).await;
    let pool = proto::CreateEnrollmentTokensRequest {
        max_agents: 30,
        task,
        ..request()
    };
    let (id, token) = mint(&operator, pool).await;
    let mut agents = Vec::new();
    for _ in 0..20 {
        agents.push(broker.enroll_with(&token, &NewKey::generate()).await.unwrap());
    }
    let (_, other) = mint(&operator, request()).await;
    let bystander = broker.enroll_with(&other, &NewKey::generate()).await.unwrap();
    broker.agent(&agents[0]).await.resolve("").await.unwrap();
    let gone = proto::RevokeAgentRequest {
        org: ORG.to_owned(),
        agent: agents[19].agent.clone(),
        ..Default::default()
    };
    operator.agents().revoke_agent(gone).await.unwrap();
    let sorted = |slots: &[proto::EnrollmentTokenSlot]| {
        let mut ids: Vec<_> = slots.iter().map(|slot| slot.agent.clone()).collect();
        ids.sort();
        ids
    };
    let all: Vec<_> = agents[..19].iter().map(|agent| agent.agent.clone()).collect();

    // Looking first changes nothing.
    let records = operator.records().await.len();
    let preview = revoke(&operator, &id, true, true).await;
    assert_eq!(sorted(&preview.agents), all);
    assert!(preview.outstanding.is_empty());
    assert_eq!(preview.enrollment_token.unwrap().revoke_time, None);
    assert!(revoke(&operator, &id, false, true).await.agents.is_empty());
    assert_eq!(operator.records().await.len(), records);
    let late = broker.enroll_with(&token, &NewKey::generate()).await.unwrap();

    // The token alone.
    let answer = revoke(&operator, &id, false, false).await;
    assert!(answer.agents.is_empty() && answer.enrollment_token.unwrap().revoke_time.is_some());
    for enrolled in [&agents[1], &late] {
        assert!(lives(&broker, enrolled).await);
    }

    // And later the agents too, with what they hold.
    let answer = revoke(&operator, &id, true, false).await;
    assert_eq!(answer.agents.len(), 20);
    assert_eq!(answer.outstanding.len(), 1);
    for enrolled in agents.iter().chain([&late]) {
        assert!(!lives(&broker, enrolled).await);
    }
    assert!(lives(&broker, &bystander).await);
    assert!(revoke(&operator, &id, true, false).await.agents.is_empty());
    let revoked = operator.records().await;
    let revoked = revoked
        .iter()
        .filter(|record| record.action == "agent.revoke" && record.phase == "finish");
    assert_eq!(revoked.count(), 21);
}

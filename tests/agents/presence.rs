//! Being seen: by any call, told by heartbeats, kept over a restart, and listed by.

use super::*;

// req: D5 K7
#[tokio::test]
async fn an_agent_is_seen_by_any_call_and_tells_of_itself_in_heartbeats() {
    let site = Site::start("").await;
    let (enrolled, _) = site.agent("").await;
    assert_eq!(site.shown(&enrolled.agent).await.last_seen_time, None);
    let agent = site.broker.agent(&enrolled).await;
    who(&agent).await.unwrap();
    let seen = site.shown(&enrolled.agent).await;
    assert_eq!(seen.last_seen_address, "127.0.0.1");
    assert_eq!(seen.version, "");
    let first = seen.last_seen_time.unwrap();

    site.clock.advance(HOUR);
    let request = proto::HeartbeatRequest {
        version: "1.2.3".to_owned(),
        attributes: [("host".to_owned(), "sandbox-1".to_owned())].into(),
    };
    let pulse = agent.enrollment().heartbeat(request).await.unwrap().into_inner();
    let seen = site.shown(&enrolled.agent).await;
    assert_eq!((&*seen.version, &*seen.reported["host"]), ("1.2.3", "sandbox-1"));
    let second = seen.last_seen_time.unwrap();
    assert!(second.seconds - first.seconds >= 3_600);
    // The certificate lives a day: its last third begins after sixteen hours, of which one is over.
    let now = pulse.server_time.unwrap().seconds;
    let renew = pulse.certificate_renew_time.unwrap().seconds - now;
    assert!((15 * 3_600 - 60..=15 * 3_600 + 60).contains(&renew), "{renew} s");
    assert_eq!(pulse.certificate_expire_time, seen.certificate_expire_time);
    assert_eq!(pulse.next_heartbeat.unwrap().seconds, 300);
    assert_eq!(pulse.unseen_expiry.unwrap().seconds, 30 * 86_400);

    // Heartbeats write no record.
    let records = site.operator.records().await.len();
    agent
        .enrollment()
        .heartbeat(proto::HeartbeatRequest::default())
        .await
        .unwrap();
    assert_eq!(site.operator.records().await.len(), records);
}

// req: D5
#[tokio::test]
async fn what_was_seen_outlives_a_restart() {
    let site = Site::start("").await;
    let (enrolled, _) = site.agent("").await;
    let agent = site.broker.agent(&enrolled).await;
    let request = proto::HeartbeatRequest {
        version: "7".to_owned(),
        ..Default::default()
    };
    agent.enrollment().heartbeat(request).await.unwrap();
    let before = site.shown(&enrolled.agent).await;
    let broker = site.broker.restart().await;
    let operator = broker.operator().await;
    let site = Site {
        broker,
        operator,
        ..site
    };
    let after = site.shown(&enrolled.agent).await;
    assert_eq!(after, before);
    // A call without a heartbeat leaves what was said.
    who(&site.broker.agent(&enrolled).await).await.unwrap();
    site.broker.broker.flush_presence().await.unwrap();
    let later = site.shown(&enrolled.agent).await;
    assert_eq!(later.version, "7");
    assert!(later.last_seen_time.unwrap().seconds >= before.last_seen_time.unwrap().seconds);
}

// req: D5
#[tokio::test]
async fn a_heartbeat_is_bounded() {
    let site = Site::start("").await;
    let (enrolled, _) = site.agent("").await;
    let agent = site.broker.agent(&enrolled).await;
    let pairs = |count: usize, length: usize| {
        let pair = |n| (format!("key-{n}"), "v".repeat(length));
        (0..count).map(pair).collect()
    };
    for (version, attributes) in [
        ("v".repeat(65), pairs(0, 0)),
        ("line\nbreak".to_owned(), pairs(0, 0)),
        (String::new(), pairs(9, 1)),
        (String::new(), pairs(1, 65)),
        (String::new(), [(String::new(), "v".to_owned())].into()),
    ] {
        let request = proto::HeartbeatRequest { version, attributes };
        let refused = agent.enrollment().heartbeat(request).await.unwrap_err();
        assert_eq!(reason(&refused), "INVALID_ARGUMENT");
    }
    let request = proto::HeartbeatRequest {
        version: "v".repeat(64),
        attributes: pairs(8, 64),
    };
    agent.enrollment().heartbeat(request).await.unwrap();
    site.broker.broker.flush_presence().await.unwrap();
}

// req: K7 D5
#[tokio::test]
async fn agents_are_listed_by_what_is_asked_for() {
    let site = Site::start("").await;
    let mut agents = Vec::new();
    for team in ["red", "red", "blue"] {
        let request = proto::CreateEnrollmentTokensRequest {
            labels: [
                ("team".to_owned(), team.to_owned()),
                ("tier".to_owned(), "a".to_owned()),
            ]
            .into(),
            ..token_request()
        };
        let minted = site
            .operator
            .agents()
            .create_enrollment_tokens(request)
            .await
            .unwrap();
        let token = minted.into_inner().tokens.remove(0).token.unwrap();
        agents.push(
            site.broker
                .enroll_with(&token.value, &NewKey::generate())
                .await
                .unwrap(),
        );
    }
    let [red, other, blue] = &agents[..] else { panic!() };
    who(&site.broker.agent(red).await).await.unwrap();
    site.clock.advance(HOUR);
    who(&site.broker.agent(blue).await).await.unwrap();
    let seen = site.shown(&blue.agent).await.last_seen_time;
    site.operator
        .agents()
        .revoke_agent(proto::RevokeAgentRequest {
            org: ORG.to_owned(),
            agent: other.agent.clone(),
            ..Default::default()
        })
        .await
        .unwrap();

    let labels = |pairs: &[(&str, &str)]| proto::AgentFilter {
        labels: pairs
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
        ..Default::default()
    };
    let environment = |environment: &str, project: &str| proto::AgentFilter {
        environment: environment.to_owned(),
        project: project.to_owned(),
        ..Default::default()
    };
    let state = |state: proto::AgentState| proto::AgentFilter {
        state: state.into(),
        ..Default::default()
    };
    let (every, none) = (vec![red, other, blue], vec![]);
    let cases: Vec<(proto::AgentFilter, Vec<&Enrolled>)> = vec![
        (proto::AgentFilter::default(), every.clone()),
        (labels(&[("team", "red")]), vec![red, other]),
        (labels(&[("team", "red"), ("tier", "a")]), vec![red, other]),
        (labels(&[("team", "red"), ("tier", "b")]), none.clone()),
        (environment(ENVIRONMENT, PROJECT), every.clone()),
        (state(proto::AgentState::Revoked), vec![other]),
        (state(proto::AgentState::Active), vec![red, blue]),
        (
            proto::AgentFilter {
                seen_after: seen,
                ..Default::default()
            },
            vec![blue],
        ),
        (
            // Who was never seen is among them.
            proto::AgentFilter {
                seen_before: seen,
                ..Default::default()
            },
            vec![red, other],
        ),
        (
            proto::AgentFilter {
                seen_before: seen,
                ..labels(&[("team", "blue")])
            },
            none.clone(),
        ),
    ];
    for (filter, expected) in cases {
        let expected: Vec<_> = expected.iter().map(|agent| agent.agent.as_str()).collect();
        for page_size in [0, 1, 2] {
            let (listed, _) = site.listed(filter.clone(), page_size).await;
            let ids: Vec<_> = listed.iter().map(|agent| agent.id.as_str()).collect();
            assert_eq!(ids, expected, "{filter:?} by {page_size}");
        }
    }
    let request = |filter| proto::ListAgentsRequest {
        org: ORG.to_owned(),
        filter: Some(filter),
        ..Default::default()
    };
    let unknown = request(environment("staging", PROJECT));
    let refused = site.operator.agents().list_agents(unknown).await.unwrap_err();
    assert_eq!(reason(&refused), "NOT_FOUND");
    let unknown = request(proto::AgentFilter {
        state: 77,
        ..Default::default()
    });
    let refused = site.operator.agents().list_agents(unknown).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_ARGUMENT");
}

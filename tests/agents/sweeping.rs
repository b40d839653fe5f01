//! Sweeping: who is not seen expires, what has ended goes, and what lives is left alone.

use std::collections::BTreeMap;

use credbroker::store::Kv as _;
use credbroker::store::sled::{Options as StoreOptions, SledStore};

use super::*;
use crate::support::broker::MEMBER;

/// What is left of a broker that was stopped.
type Stopped = (Options, Arc<tempfile::TempDir>, String);

/// What the store of a stopped broker holds, by kind of key, its bookkeeping and the org's request ids left out.
async fn stored(broker: TestBroker) -> (BTreeMap<String, usize>, Stopped) {
    let (options, dir, token) = broker.stop().await;
    let store = SledStore::open(
        &dir.path().join("data/store"),
        StoreOptions::new("credbroker.local"),
    )
    .unwrap();
    let (mut counts, mut after) = (BTreeMap::new(), None::<Vec<u8>>);
    loop {
        let rows = store.scan(b"", after.as_deref(), 1_000).await.unwrap();
        for row in &rows {
            // `s/KIND/…` or `o/ORG/KIND/…`, where an org is sixteen bytes.
            let rest = if row.key.starts_with(b"o/") {
                &row.key[19..]
            } else {
                &row.key[2..]
            };
            let kind = rest.split(|byte| *byte == b'/').next().unwrap();
            *counts
                .entry(String::from_utf8_lossy(kind).into_owned())
                .or_default() += 1;
        }
        match rows.into_iter().last() {
            Some(row) => after = Some(row.key),
            None => break,
        }
    }
    store.close();
    drop(store);
    // Marks of effects go with later effects.
    counts.remove("effect");
    counts.remove("operator-seen");
    (counts, (options, dir, token))
}

async fn again(site: Site) -> (BTreeMap<String, usize>, Site) {
    let (counts, (options, dir, token)) = stored(site.broker).await;
    let broker = TestBroker::start_over(options, dir, token).await;
    let operator = broker.operator().await;
    (
        counts,
        Site {
            broker,
            operator,
            clock: site.clock,
        },
    )
}

/// A pool token for so many agents.
async fn pool(site: &Site, max_agents: u32, task: &str) -> String {
    let request = proto::CreateEnrollmentTokensRequest {
        max_agents,
        task: task.to_owned(),
        ..token_request()
    };
    let minted = site
        .operator
        .agents()
        .create_enrollment_tokens(request)
        .await
        .unwrap();
    minted.into_inner().tokens.remove(0).token.unwrap().value.clone()
}

// req: D5 K7
#[tokio::test(flavor = "multi_thread")]
async fn a_day_of_sandboxes_leaves_nothing_behind() {
    let site = Site::start("").await;
    site.operator.set_key(ORG, MEMBER, "the-members-key-0000").await;
    // Before the count, so that the credential and the directory are in it.
    let (before, site) = again(site).await;
    for _ in 0..3 {
        let task = site.operator.make_task(ORG, MEMBER).await;
        let token = pool(&site, 50, &task).await;
        for at in 0..50 {
            let enrolled = site
                .broker
                .enroll_with(&token, &NewKey::generate())
                .await
                .unwrap();
            if at % 5 == 0 {
                site.broker.agent(&enrolled).await.resolve("").await.unwrap();
            }
        }
    }
    for _ in 0..50 {
        site.operator.enrollment_token(ORG, "").await;
    }
    let (during, site) = again(site).await;
    assert_eq!(
        (during["agent"], during["enrollment-token"], during["lease"]),
        (150, 53, 30)
    );

    // Nothing is over yet, and nothing goes.
    assert_eq!(site.broker.broker.sweep().await.unwrap(), Default::default());
    site.clock.advance(30 * DAY);
    let swept = site.broker.broker.sweep().await.unwrap();
    assert_eq!((swept.expired, swept.agents), (150, 0));
    site.clock.advance(7 * DAY);
    let swept = site.broker.broker.sweep().await.unwrap();
    assert_eq!(
        (swept.expired, swept.agents, swept.enrollment_tokens),
        (0, 150, 3)
    );
    assert_eq!(site.broker.broker.sweep().await.unwrap(), Default::default());
    let expired = site.journaled("agent.expire").await;
    assert_eq!(
        expired.iter().filter(|record| record.phase == "finish").count(),
        150
    );
    let collected = site.journaled("broker.collect").await;
    assert_eq!(collected.last().unwrap().subject["agents"], "150");

    let (after, _) = stored(site.broker).await;
    // The sums of what was spent stay: one row for all of them.
    let mut left = before;
    *left.entry("spend".to_owned()).or_default() += 1;
    assert_eq!(after, left);
}

// req: D5 D6
#[tokio::test]
async fn who_is_seen_lives_on_and_who_is_not_expires_for_good() {
    let site = Site::start("[identity]\ncertificate_lifetime = \"90d\"").await;
    site.operator.set_key(ORG, MEMBER, "the-members-key-0000").await;
    let task = site.operator.make_task(ORG, MEMBER).await;
    let (active, _) = site.agent(&task).await;
    let (silent, key) = site.agent("").await;
    let (by_active, by_silent) = (site.broker.agent(&active).await, site.broker.agent(&silent).await);
    for caller in [&by_active, &by_silent] {
        who(caller).await.unwrap();
    }
    site.clock.advance(29 * DAY);
    // Not yet written down, and known all the same.
    who(&by_active).await.unwrap();
    site.clock.advance(DAY + HOUR);
    assert_eq!(site.broker.broker.sweep().await.unwrap().expired, 1);
    assert_eq!(who(&by_active).await, Ok(active.agent.clone()));
    assert_eq!(who(&by_silent).await, Err("AGENT_EXPIRED".to_owned()));
    assert_eq!(
        reason(&renew(&by_silent, &key).await.unwrap_err()),
        "AGENT_EXPIRED"
    );
    let shown = site.shown(&silent.agent).await;
    assert_eq!(shown.state, proto::AgentState::Expired as i32);
    assert!(shown.expire_time.is_some());
    // Assigning it to a task is too late.
    let assign = proto::AssignTaskRequest {
        org: ORG.to_owned(),
        task: site.operator.make_task(ORG, MEMBER).await,
        agents: vec![silent.agent.clone()],
    };
    let refused = site.operator.tasks().assign_task(assign).await.unwrap_err();
    assert_eq!(reason(&refused), "NOT_FOUND");
    let records = site.journaled("agent.expire").await;
    assert_eq!((records.len(), &*records[1].actor), (2, "broker"));

    // A week after its end it is gone, and looks as if it had never been.
    site.clock.advance(7 * DAY);
    who(&by_active).await.unwrap();
    assert_eq!(site.broker.broker.sweep().await.unwrap().agents, 1);
    assert_eq!(who(&by_silent).await, Err("CREDENTIAL_UNKNOWN".to_owned()));
    assert_eq!(who(&by_active).await, Ok(active.agent));
}

// req: D5
#[tokio::test]
async fn nobody_expires_for_want_of_a_broker() {
    let site = Site::start("").await;
    let (enrolled, _) = site.agent("").await;
    who(&site.broker.agent(&enrolled).await).await.unwrap();
    site.clock.advance(40 * DAY);
    let broker = site.broker.restart().await;
    assert_eq!(broker.broker.sweep().await.unwrap().expired, 0);
    site.clock.advance(HOUR);
    assert_eq!(broker.broker.sweep().await.unwrap().expired, 1);
}

// req: D4 D5
#[tokio::test]
async fn a_key_whose_agent_was_collected_enrolls_no_second_time() {
    let site = Site::start("").await;
    let request = proto::CreateEnrollmentTokensRequest {
        max_agents: 2,
        ttl: Some((30 * DAY).try_into().unwrap()),
        ..token_request()
    };
    let minted = site
        .operator
        .agents()
        .create_enrollment_tokens(request)
        .await
        .unwrap();
    let token = minted.into_inner().tokens.remove(0);
    let (id, token) = (
        token.enrollment_token.unwrap().id,
        token.token.unwrap().value.clone(),
    );
    let key = NewKey::generate();
    let enrolled = site.broker.enroll_with(&token, &key).await.unwrap();
    let revoke = proto::RevokeAgentRequest {
        org: ORG.to_owned(),
        agent: enrolled.agent.clone(),
        ..Default::default()
    };
    site.operator.agents().revoke_agent(revoke).await.unwrap();
    site.clock.advance(8 * DAY);
    assert_eq!(site.broker.broker.sweep().await.unwrap().agents, 1);
    let again = site.broker.enroll_with(&token, &key).await.err().unwrap();
    assert_eq!(reason(&again), "ENROLLMENT_TOKEN_SPENT");
    let request = proto::ListEnrollmentTokenSlotsRequest {
        org: ORG.to_owned(),
        enrollment_token: id,
        ..Default::default()
    };
    let slots = site
        .operator
        .agents()
        .list_enrollment_token_slots(request)
        .await
        .unwrap();
    let slots = slots.into_inner().slots;
    assert_eq!((slots.len(), &slots[0].agent), (1, &enrolled.agent));
    assert_eq!((slots[0].state, slots[0].bind_time), (0, None));
    // The other slot is still there.
    site.broker
        .enroll_with(&token, &NewKey::generate())
        .await
        .unwrap();
}

// req: D5 A5
#[tokio::test]
async fn a_living_agents_leases_stay_while_their_material_is_good() {
    let site = Site::start("[identity]\ncertificate_lifetime = \"90d\"").await;
    let credential = site.operator.set_key(ORG, MEMBER, "the-members-key-0000").await;
    let task = site.operator.make_task(ORG, MEMBER).await;
    let (enrolled, _) = site.agent(&task).await;
    let agent = site.broker.agent(&enrolled).await;
    let lease = agent.resolve("").await.unwrap().lease.unwrap();
    site.clock.advance(20 * DAY);
    who(&agent).await.unwrap();
    let swept = site.broker.broker.sweep().await.unwrap();
    assert_eq!((swept.tasks, swept.leases), (1, 0));
    let revoke = proto::RevokeAgentRequest {
        org: ORG.to_owned(),
        agent: enrolled.agent.clone(),
        ..Default::default()
    };
    let revoked = site
        .operator
        .agents()
        .revoke_agent(revoke)
        .await
        .unwrap()
        .into_inner();
    let [outstanding] = &revoked.outstanding[..] else {
        panic!("{revoked:?}")
    };
    assert_eq!(
        (&outstanding.lease, &outstanding.credential),
        (&lease.id, &credential.id)
    );
}

// req: D5 D6
#[tokio::test]
async fn an_agents_locks_go_with_it() {
    let site = Site::start("").await;
    let (enrolled, _) = site.agent("").await;
    let lock = proto::CreateLockRequest {
        org: ORG.to_owned(),
        target: Some(proto::LockTarget {
            target: Some(proto::lock_target::Target::Agent(enrolled.agent.clone())),
            ..Default::default()
        }),
        ..Default::default()
    };
    site.operator.locks().create_lock(lock).await.unwrap();
    let locked = proto::AgentFilter {
        state: proto::AgentState::Locked.into(),
        ..Default::default()
    };
    assert_eq!(site.listed(locked, 0).await.0[0].id, enrolled.agent);
    let revoke = proto::RevokeAgentRequest {
        org: ORG.to_owned(),
        agent: enrolled.agent,
        ..Default::default()
    };
    site.operator.agents().revoke_agent(revoke).await.unwrap();
    site.clock.advance(7 * DAY);
    assert_eq!(site.broker.broker.sweep().await.unwrap().agents, 1);
    let request = proto::ListLocksRequest {
        org: ORG.to_owned(),
        ..Default::default()
    };
    let locks = site.operator.locks().list_locks(request).await.unwrap();
    assert!(locks.into_inner().locks.is_empty());
}

//! Copies of an agent: two that renew the same certificate are found and stopped; lost answers and many processes
//! of one sandbox are not taken for copies.

use tokio::task::JoinSet;

use super::*;
use crate::support::client::metadata;

fn stopped<T>() -> Result<T, String> {
    Err("LOCKED".to_owned())
}

// req: D5 D6
#[tokio::test]
async fn two_copies_that_renew_one_certificate_are_stopped_with_an_alarm() {
    let site = Site::start("").await;
    let (enrolled, key) = site.agent("").await;
    let (bystander, _) = site.agent("").await;
    let (agent, copy) = (
        site.broker.agent(&enrolled).await,
        site.broker.agent(&enrolled).await,
    );
    who(&agent).await.unwrap();
    let renewed = enrolled.with_chain(renew(&agent, &key).await.unwrap());
    let by_renewed = site.broker.agent(&renewed).await;
    who(&by_renewed).await.unwrap();
    // The copy goes on unnoticed while it renews nothing: many processes use one identity.
    assert_eq!(who(&copy).await.unwrap(), enrolled.agent);
    let told = renew(&copy, &key).await.unwrap_err();
    assert_eq!(reason(&told), "AGENT_CLONED");
    assert!(told.message().contains("two copies"), "{}", told.message());
    for caller in [&agent, &copy, &by_renewed] {
        assert_eq!(who(caller).await, stopped());
    }
    assert_eq!(reason(&renew(&by_renewed, &key).await.unwrap_err()), "LOCKED");
    assert_eq!(
        site.shown(&enrolled.agent).await.state,
        proto::AgentState::Locked as i32
    );
    who(&site.broker.agent(&bystander).await).await.unwrap();

    let alarms = site.journaled("agent.clone_alarm").await;
    let [alarm] = &alarms[..] else {
        panic!("{alarms:?}")
    };
    assert_eq!((&*alarm.outcome, &*alarm.reason), ("denied", "AGENT_CLONED"));
    assert_eq!(alarm.subject["agent"], enrolled.agent);
    assert_ne!(alarm.subject["presented"], alarm.subject["newest"]);
    assert_eq!(alarm.subject["lock"], metadata(&told, "lock"));
    // It outlives a restart, and an admin can let the agent go on.
    let broker = site.broker.restart().await;
    assert_eq!(who(&broker.agent(&renewed).await).await, stopped());
    let remove = proto::RemoveLockRequest {
        org: ORG.to_owned(),
        lock: alarm.subject["lock"].clone(),
    };
    broker.operator().await.locks().remove_lock(remove).await.unwrap();
    assert_eq!(who(&broker.agent(&renewed).await).await, Ok(enrolled.agent));
}

// req: D5 N3
#[tokio::test]
async fn a_lost_answer_is_no_copy() {
    let site = Site::start("").await;
    let (enrolled, key) = site.agent("").await;
    let agent = site.broker.agent(&enrolled).await;
    who(&agent).await.unwrap();
    // Nobody sees these answers.
    for _ in 0..3 {
        renew(&agent, &key).await.unwrap();
    }
    let renewed = enrolled.with_chain(renew(&agent, &key).await.unwrap());
    let again = site.broker.agent(&renewed).await;
    // From the newest, used for nothing but this.
    renew(&again, &key).await.unwrap();
    assert!(site.journaled("agent.clone_alarm").await.is_empty());
    assert_eq!(who(&again).await, Ok(enrolled.agent));
}

// req: D5
#[tokio::test]
async fn renewals_at_the_same_moment_are_no_copies() {
    let site = Site::start("").await;
    let (enrolled, key) = site.agent("").await;
    let agent = site.broker.agent(&enrolled).await;
    who(&agent).await.unwrap();
    let csr_der = key.csr();
    let mut renewing = JoinSet::new();
    for _ in 0..6 {
        let (agent, csr_der) = (agent.clone(), csr_der.clone());
        renewing.spawn(async move {
            let request = proto::RenewCertificateRequest { csr_der };
            agent.enrollment().renew_certificate(request).await.map(drop)
        });
    }
    for answer in renewing.join_all().await {
        answer.unwrap();
    }
    assert_eq!(who(&agent).await, Ok(enrolled.agent));
}

// req: D5
#[tokio::test]
async fn the_first_answer_of_a_repeated_enrollment_may_renew() {
    let site = Site::start("").await;
    let token = site.operator.enrollment_token(ORG, "").await;
    let key = NewKey::generate();
    let first = site.broker.enroll_with(&token, &key).await.unwrap();
    site.broker.enroll_with(&token, &key).await.unwrap();
    let agent = site.broker.agent(&first).await;
    who(&agent).await.unwrap();
    renew(&agent, &key).await.unwrap();
    assert_eq!(who(&agent).await, Ok(first.agent));
}

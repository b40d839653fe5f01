//! Applying: idempotent, kept, one after the other, never half.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use credbroker::proto::{AuthMode, Verdict};

use crate::support::broker::{ORG, PROJECT};
use crate::support::client::metadata;
use crate::support::{TestBroker, reason};
use crate::*;

fn whole() -> PolicyDocument {
    let rules = proto::OrgRules {
        matrix: vec![deny(AuthMode::Shared), deny(AuthMode::HostSession)],
        pins: vec![pin("demo-agent", AuthMode::Byok)],
        profiles: vec![
            profile("cheap", &[AuthMode::Byok]),
            profile("default", &[AuthMode::Oauth, AuthMode::Byok]),
        ],
    };
    let denied = [cell(AuthMode::Metered, "demo", "m-*", Verdict::Deny)];
    PolicyDocument {
        system: of_system(&[deny(AuthMode::Local)]).system,
        ..of_org(ORG, Some(rules), &[(PROJECT, &denied)])
    }
}

// req: E1 E2 A1
#[tokio::test]
async fn a_document_is_applied_once_and_kept() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    assert_eq!(version(&operator).await, 0);
    let shown = preview(&operator, whole()).await;
    assert!(shown.differs && shown.version == 0);
    assert_eq!(
        (shown.scopes.len(), shown.pins.len(), shown.profiles.len()),
        (3, 1, 2)
    );
    let before = done(&operator).await;
    let change = apply(&operator, whole()).await.unwrap();
    assert_eq!((change.version, change.scopes), (1, shown.scopes));
    assert_eq!(done(&operator).await, before + 2, "one effect: begin and finish");

    let again = apply(&operator, whole()).await.unwrap();
    assert!(!again.differs && again.version == 1 && again.scopes.is_empty());
    assert_eq!(done(&operator).await, before + 2, "no difference, no effect");

    let state = (
        get(&operator, ORG).await.unwrap(),
        profiles_of(&operator, ORG).await,
    );
    assert_eq!(state.0.org.as_ref().unwrap().projects[0].name, PROJECT);
    let broker = broker.restart().await;
    let operator = broker.operator().await;
    assert_eq!(
        (
            get(&operator, ORG).await.unwrap(),
            profiles_of(&operator, ORG).await
        ),
        state
    );
    assert_eq!(get(&operator, "").await.unwrap().system, whole().system);
    assert!(!apply(&operator, whole()).await.unwrap().differs);
    // What was kept is the ground that the next change builds on.
    let change = apply(&operator, of_system(&[])).await.unwrap();
    assert_eq!((change.version, change.scopes[0].cells.len()), (2, 1));
}

// req: E2
#[tokio::test]
async fn what_a_document_does_not_name_is_left_alone_and_what_it_names_is_exactly_so() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    operator.make_org("other").await;
    apply(&operator, whole()).await.unwrap();
    let other = of_org("other", Some(rules(&[deny(AuthMode::Oauth)])), &[]);
    apply(&operator, other).await.unwrap();
    let before = get(&operator, "other").await.unwrap().org;

    // Only the project: the org's own cells, pins and profiles stay.
    let project = of_org(ORG, None, &[(PROJECT, &[])]);
    let change = apply(&operator, project).await.unwrap();
    assert_eq!((change.scopes.len(), change.pins.len()), (1, 0));
    let org = get(&operator, ORG).await.unwrap().org.unwrap();
    assert_eq!((org.projects.len(), org.rules.unwrap().matrix.len()), (0, 2));
    // The org itself: what is not said goes.
    let own = proto::OrgRules {
        profiles: vec![profile("default", &[AuthMode::Byok])],
        ..Default::default()
    };
    let change = apply(&operator, of_org(ORG, Some(own), &[])).await.unwrap();
    assert_eq!((change.scopes.len(), change.pins.len()), (1, 1));
    let names: Vec<_> = change
        .profiles
        .iter()
        .map(|change| (change.before.is_some(), change.after.is_some()))
        .collect();
    assert_eq!(names, [(true, false), (true, true)]);
    assert_eq!(profiles_of(&operator, ORG).await.len(), 1);
    assert_eq!(get(&operator, "other").await.unwrap().org, before);
    assert_eq!(get(&operator, "").await.unwrap().system, whole().system);
    let nothing = apply(&operator, PolicyDocument::default()).await.unwrap();
    assert!(!nothing.differs);
}

// req: E2
#[tokio::test]
async fn of_two_who_saw_the_same_version_one_wins_unless_they_change_other_things() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    operator.make_org("other").await;
    let seen = version(&operator).await;
    let document = |mode| of_org(ORG, Some(rules(&[deny(mode)])), &[]);
    let (one, two) = tokio::join!(
        applied(&operator, document(AuthMode::Oauth), Some(seen), false),
        applied(&operator, document(AuthMode::Byok), Some(seen), false),
    );
    let (won, lost) = match (one, two) {
        (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
        both => panic!("{both:?}"),
    };
    assert_eq!((won.version, reason(&lost)), (1, "CONFLICT".to_owned()));
    assert_eq!(metadata(&lost, "version"), "1");
    // Another org was not changed since, and nothing that reaches into it.
    let other = of_org("other", Some(rules(&[deny(AuthMode::Oauth)])), &[]);
    let change = applied(&operator, other, Some(seen), false).await.unwrap();
    assert_eq!(change.version, 2);
    // The system's cells reach into everything.
    apply(&operator, of_system(&[deny(AuthMode::Local)]))
        .await
        .unwrap();
    let stale = applied(&operator, document(AuthMode::Shared), Some(2), true).await;
    assert_eq!(reason(&stale.unwrap_err()), "CONFLICT");
    applied(&operator, document(AuthMode::Shared), Some(3), false)
        .await
        .unwrap();
}

// req: E2
#[tokio::test(flavor = "multi_thread")]
async fn changes_at_once_are_all_made_and_callers_that_hang_up_leave_no_half() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let one = |number: usize| {
        let model = format!("m-{number}");
        [cell(AuthMode::Byok, "demo", &model, Verdict::Deny)]
    };
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..24 {
        let (operator, cells) = (operator.clone(), one(number));
        writers.spawn(async move { set(&operator, (ORG, ""), &cells).await.unwrap().version });
    }
    let versions: BTreeSet<u64> = writers.join_all().await.into_iter().collect();
    assert_eq!(versions, (1..=24).collect(), "each in a version of its own");
    let cells = |policy: proto::GetPolicyResponse| policy.org.unwrap().rules.unwrap().matrix;
    assert_eq!(cells(get(&operator, ORG).await.unwrap()).len(), 24);

    for number in 24..48 {
        let (operator, cells) = (operator.clone(), one(number));
        let call = tokio::spawn(async move { set(&operator, (ORG, ""), &cells).await });
        tokio::time::sleep(std::time::Duration::from_micros(150 * (number as u64 - 23))).await;
        call.abort();
    }
    // Those under way may come before or after it.
    set(&operator, (ORG, ""), &one(99)).await.unwrap();
    let now = get(&operator, ORG).await.unwrap();
    let seen = now.version;
    assert_eq!(cells(now).len() as u64, seen, "one cell a version");
    let broker = broker.restart().await;
    let kept = get(&broker.operator().await, ORG).await.unwrap();
    assert!(kept.version >= seen);
    let version = kept.version;
    assert_eq!(cells(kept).len() as u64, version, "and no half of one is kept");
}

// req: E2
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_never_sees_half_of_a_change() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    // Each version says one mode in all places.
    let document = |mode: AuthMode| {
        let many: Vec<_> = (0..150)
            .map(|number| cell(mode, "demo", &format!("model-{number}"), Verdict::Deny))
            .collect();
        let own = proto::OrgRules {
            matrix: many.clone(),
            pins: vec![pin("demo-agent", mode)],
            ..Default::default()
        };
        of_org(ORG, Some(own), &[(PROJECT, &many)])
    };
    let modes = [AuthMode::Oauth, AuthMode::Byok];
    apply(&operator, document(modes[1])).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (reader, stop) = (operator.clone(), Arc::clone(&stop));
        readers.spawn(async move {
            let (mut last, mut seen) = (0, BTreeSet::new());
            while !stop.load(Ordering::Relaxed) {
                let read = get(&reader, ORG).await.unwrap();
                let org = read.org.unwrap();
                let own = org.rules.unwrap();
                let mode = own.pins[0].mode;
                assert!(read.version >= last, "never back");
                assert_eq!(
                    mode,
                    modes[(read.version % 2) as usize] as i32,
                    "the version's own"
                );
                assert_eq!((own.matrix.len(), org.projects[0].matrix.len()), (150, 150));
                let cells = own.matrix.iter().chain(&org.projects[0].matrix);
                assert!(cells.into_iter().all(|cell| cell.mode == mode));
                last = read.version;
                seen.insert(last);
            }
            seen.len()
        });
    }
    for round in 2..=30_u64 {
        let change = apply(&operator, document(modes[(round % 2) as usize]))
            .await
            .unwrap();
        assert_eq!(change.version, round);
    }
    stop.store(true, Ordering::Relaxed);
    let seen = readers.join_all().await;
    assert!(seen.iter().all(|versions| *versions > 2), "{seen:?}");
}

// req: E2
#[tokio::test]
async fn a_change_is_told_to_those_it_concerns_after_it_is_in_force() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    operator.make_org("other").await;
    let task = operator.make_task(ORG, crate::support::broker::MEMBER).await;
    let agent = broker.agent(&broker.enroll(&operator, &task).await).await;
    let mut watching = agent.watch().await;
    let denied = [deny(AuthMode::Local)];
    apply(&operator, of_org("other", Some(rules(&denied)), &[]))
        .await
        .unwrap();
    apply(&operator, of_org(ORG, Some(rules(&denied)), &[]))
        .await
        .unwrap();
    assert_eq!(watching.policy().await, 2, "not of the other org");
    apply(&operator, of_org(ORG, Some(rules(&denied)), &[]))
        .await
        .unwrap();
    apply(&operator, of_system(&denied)).await.unwrap();
    assert_eq!(watching.policy().await, 3, "not of what changed nothing");
    set(&operator, (ORG, PROJECT), &denied).await.unwrap();
    assert_eq!(watching.policy().await, 4);
}

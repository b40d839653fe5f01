//! Who may write and read which part.

use credbroker::proto::AuthMode;

use crate::support::broker::{ORG, PROJECT};
use crate::support::{TestBroker, reason};
use crate::*;

// req: E2 D2
#[tokio::test]
async fn an_org_admin_writes_their_own_org_and_nothing_beside_it() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    operator.make_org("other").await;
    let admin = human(&broker, &operator, "ada", proto::Role::OrgAdmin).await;
    let denied = [deny(AuthMode::Shared)];
    let own = || of_org(ORG, Some(rules(&denied)), &[(PROJECT, &denied)]);
    apply(&admin, own()).await.unwrap();
    set(&admin, (ORG, PROJECT), &[deny(AuthMode::Local)])
        .await
        .unwrap();
    let before = version(&operator).await;

    let refused = |answer: Result<proto::PolicyChange, Status>| reason(&answer.unwrap_err());
    assert_eq!(
        refused(apply(&admin, of_system(&denied)).await),
        "PERMISSION_DENIED"
    );
    assert_eq!(refused(set(&admin, ("", ""), &denied).await), "PERMISSION_DENIED");
    // Together with what they may: none of it.
    let both = PolicyDocument {
        system: of_system(&[]).system,
        ..of_org(ORG, Some(rules(&[])), &[])
    };
    assert_eq!(refused(apply(&admin, both).await), "PERMISSION_DENIED");
    // Another org looks like none.
    for org in ["other", "nowhere"] {
        let document = of_org(org, Some(rules(&denied)), &[]);
        assert_eq!(refused(apply(&admin, document.clone()).await), "NOT_FOUND");
        assert_eq!(refused(applied(&admin, document, None, true).await), "NOT_FOUND");
        assert_eq!(refused(set(&admin, (org, ""), &denied).await), "NOT_FOUND");
        assert_eq!(reason(&get(&admin, org).await.unwrap_err()), "NOT_FOUND");
        let request = proto::PinExecutorRequest {
            org: org.to_owned(),
            executor: "demo-agent".to_owned(),
            mode: AuthMode::Byok as i32,
            ..Default::default()
        };
        let pinned = admin.policies().pin_executor(request).await;
        assert_eq!(reason(&pinned.unwrap_err()), "NOT_FOUND");
    }
    assert_eq!(version(&operator).await, before);
    // What binds them they may read.
    assert_eq!(
        get(&admin, ORG).await.unwrap(),
        get(&operator, ORG).await.unwrap()
    );
    assert_eq!(get(&admin, "").await.unwrap(), get(&operator, "").await.unwrap());
}

// req: E1 D2
#[tokio::test]
async fn members_and_keys_read_profiles_and_no_more() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    operator.make_org("other").await;
    let own = proto::OrgRules {
        profiles: vec![profile("fast", &[AuthMode::Byok])],
        ..Default::default()
    };
    apply(&operator, of_org(ORG, Some(own), &[])).await.unwrap();
    let member = human(&broker, &operator, "mia", proto::Role::Member).await;
    let (_, key) = operator.make_broad_api_key(ORG).await;
    let key = broker.caller(Some(&key)).await;
    for caller in [&member, &key] {
        assert_eq!(profiles_of(caller, ORG).await.len(), 1);
        let request = proto::GetProfileRequest {
            name: "fast".to_owned(),
            ..Default::default()
        };
        let found = caller.policies().get_profile(request).await.unwrap().into_inner();
        assert_eq!(found.profile.unwrap().name, "fast");
        let request = proto::ListProfilesRequest {
            org: "other".to_owned(),
            ..Default::default()
        };
        let hidden = caller.policies().list_profiles(request).await.unwrap_err();
        assert_eq!(reason(&hidden), "NOT_FOUND");
        assert!(get(caller, ORG).await.is_err() && get(caller, "").await.is_err());
        assert!(apply(caller, PolicyDocument::default()).await.is_err());
    }
    let auditor = human(&broker, &operator, "ali", proto::Role::Auditor).await;
    assert!(get(&auditor, ORG).await.is_ok());
    let written = set(&auditor, (ORG, ""), &[deny(AuthMode::Byok)])
        .await
        .unwrap_err();
    assert_eq!(reason(&written), "PERMISSION_DENIED");
}

// req: N4 E2
#[tokio::test]
async fn the_journal_says_who_changed_what_to_which_version() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let admin = human(&broker, &operator, "ada", proto::Role::OrgAdmin).await;
    set(&admin, (ORG, ""), &[deny(AuthMode::Shared)]).await.unwrap();
    let records = operator.records().await;
    let record = records
        .iter()
        .find(|record| record.action == "policy.set_cells")
        .unwrap();
    assert!(record.actor.starts_with("mbr_"), "{record:?}");
    assert_eq!(record.subject["version"], "1");
    assert_eq!(record.subject["changes"], "shared * *=deny");
    assert!(!record.org.is_empty());
}

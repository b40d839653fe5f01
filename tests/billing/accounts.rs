//! Accounts: what an org has before anything was said, what changes it, and who may.

use credbroker::proto::{self, Account, AddCreditRequest, Entitlement, Subscription, UpdateAccountRequest};
use futures_util::future::join_all;
use prost_types::FieldMask;
use tonic::Status;

use crate::scene::{Scene, grant};
use crate::support::broker::ORG;
use crate::support::{Caller, TestBroker, reason};

async fn try_account(caller: &Caller) -> Result<Account, Status> {
    let request = proto::GetAccountRequest { org: ORG.to_owned() };
    let answer = caller.billing().get_account(request).await?.into_inner();
    Ok(answer.account.unwrap())
}

async fn account(caller: &Caller) -> Account {
    try_account(caller).await.unwrap()
}

async fn update(caller: &Caller, account: Account, paths: &[&str]) -> Result<Account, Status> {
    let request = UpdateAccountRequest {
        account: Some(Account {
            org: ORG.to_owned(),
            ..account
        }),
        update_mask: Some(FieldMask {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        }),
    };
    let answer = caller.billing().update_account(request).await?.into_inner();
    Ok(answer.account.unwrap())
}

fn id(number: u8) -> String {
    format!("00000000-0000-4000-8000-0000000000{number:02x}")
}

async fn credit(caller: &Caller, micros: i64, request_id: &str) -> Result<proto::AddCreditResponse, Status> {
    let request = AddCreditRequest {
        org: ORG.to_owned(),
        micros,
        request_id: request_id.to_owned(),
        note: "invoice 7".to_owned(),
    };
    Ok(caller.billing().add_credit(request).await?.into_inner())
}

// req: A2
#[tokio::test]
async fn a_new_org_is_active_entitled_as_all_are_and_without_credit() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let fresh = account(&operator).await;
    assert_eq!(
        (
            fresh.subscription(),
            fresh.metered(),
            fresh.shared_per_day,
            fresh.balance_micros
        ),
        (Subscription::Active, Entitlement::Default, None, 0)
    );
    assert_eq!((fresh.update_time, fresh.etag.as_str()), (None, "0"));

    let changed = Account {
        subscription: Subscription::Inactive as i32,
        metered: Entitlement::Granted as i32,
        shared_per_day: Some(0),
        ..fresh.clone()
    };
    let all = ["subscription", "metered", "shared_per_day"];
    let updated = update(&operator, changed, &all).await.unwrap();
    assert_eq!(account(&operator).await, updated);
    assert_eq!(
        (updated.subscription(), updated.shared_per_day),
        (Subscription::Inactive, Some(0))
    );
    // Read before the change: too late.
    let stale = update(&operator, fresh, &["metered"]).await.unwrap_err();
    assert_eq!(reason(&stale), "CONFLICT");
    // What is named and unset goes back, what is not named stays.
    let back = update(&operator, Account::default(), &["shared_per_day"])
        .await
        .unwrap();
    assert_eq!(
        (back.shared_per_day, back.metered()),
        (None, Entitlement::Granted)
    );
    for paths in [&[][..], &["balance_micros"]] {
        let refused = update(&operator, Account::default(), paths).await.unwrap_err();
        assert_eq!(reason(&refused), "INVALID_ARGUMENT");
    }

    let before = account(&operator).await;
    let broker = broker.restart().await;
    let operator = broker.operator().await;
    assert_eq!(account(&operator).await, before);
    let records = operator.records().await;
    let mut updates = records.iter().filter(|record| record.action == "account.update");
    let last = updates.rfind(|record| record.phase == "finish").unwrap();
    assert_eq!(last.subject["shared_per_day"], "default");
}

// req: A2
#[tokio::test]
async fn credit_is_added_once_for_a_request_however_many_ask() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let (first, second) = (id(1), id(2));
    let asked = (0..20).map(|number| {
        let request_id = if number % 2 == 0 { &first } else { &second };
        credit(&operator, 500, request_id)
    });
    let answers: Vec<_> = join_all(asked).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| !answer.duplicate).count(), 2);
    assert_eq!(account(&operator).await.balance_micros, 1_000);

    let reused = credit(&operator, 501, &first).await.unwrap_err();
    assert_eq!(reason(&reused), "REQUEST_ID_REUSED");
    let upper = credit(&operator, 500, &first.to_uppercase()).await.unwrap();
    assert!(upper.duplicate, "a UUID is the same in capitals");
    let corrected = credit(&operator, -1_500, &id(3)).await.unwrap().account.unwrap();
    assert_eq!(corrected.balance_micros, -500);
    for (micros, request_id) in [
        (0, id(4)),
        (1, String::new()),
        (1, "x".to_owned()),
        (i64::MIN, id(4)),
    ] {
        let refused = credit(&operator, micros, &request_id).await.unwrap_err();
        assert_eq!(reason(&refused), "INVALID_ARGUMENT", "{micros} {request_id}");
    }

    let broker = broker.restart().await;
    let operator = broker.operator().await;
    assert!(credit(&operator, 500, &first).await.unwrap().duplicate);
    assert_eq!(account(&operator).await.balance_micros, -500);
    let records = operator.records().await;
    let added = records
        .iter()
        .filter(|record| record.action == "credit.add" && record.phase == "finish");
    assert_eq!(added.count(), 3, "one effect each, and none for a repeat");
}

// req: A2
#[tokio::test]
async fn admins_and_auditors_read_the_account_and_nobody_in_the_org_changes_it() {
    let scene = Scene::start().await;
    let mut told = Vec::new();
    for role in [proto::Role::OrgAdmin, proto::Role::Auditor, proto::Role::Member] {
        let name = role
            .as_str_name()
            .to_lowercase()
            .replace("role_", "")
            .replace('_', "-");
        let caller = scene.member_with(ORG, &name, grant(role, "")).await;
        told.push(try_account(&caller).await.is_ok());
        let credited = credit(&caller, 5, &id(9)).await.unwrap_err();
        assert_eq!(reason(&credited), "PERMISSION_DENIED");
        let updated = update(&caller, Account::default(), &["metered"])
            .await
            .unwrap_err();
        assert_eq!(reason(&updated), "PERMISSION_DENIED");
    }
    assert_eq!(told, [true, true, false]);
}

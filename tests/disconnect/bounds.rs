//! Who may disconnect what, and what is no account.

use std::time::Duration;

use credbroker::proto;

use crate::scene::{Account, LONG, disconnect, revocation, revocations};
use crate::support::broker::{MEMBER, ORG};
use crate::support::{Caller, TestBroker, reason};

async fn member(broker: &TestBroker, operator: &Caller, name: &str) -> Caller {
    let request = proto::CreateOperatorTokenRequest {
        org: ORG.to_owned(),
        member: name.to_owned(),
        ..Default::default()
    };
    let made = operator.access().create_operator_token(request).await.unwrap();
    let token = made.into_inner().token.unwrap().value.clone();
    broker.caller(Some(&token)).await
}

async fn control_plane(broker: &TestBroker, operator: &Caller, group: proto::ApiKeyGroup) -> Caller {
    let request = proto::CreateApiKeyRequest {
        org: ORG.to_owned(),
        groups: vec![group as i32],
        ..Default::default()
    };
    let made = operator.access().create_api_key(request).await.unwrap();
    let token = made.into_inner().token.unwrap().value.clone();
    broker.caller(Some(&token)).await
}

// req: A12
#[tokio::test]
async fn members_disconnect_their_own_accounts_and_no_others() {
    let account = Account::connected("").await;
    let (broker, operator) = (&account.scene.broker, &account.scene.operator);
    let credential = &account.scene.credential;
    operator.make_member(ORG, "sam").await;
    let (alex, sam) = (
        member(broker, operator, MEMBER).await,
        member(broker, operator, "sam").await,
    );
    let refused = disconnect(&sam, credential, LONG).await.unwrap_err();
    assert_eq!(reason(&refused), "NOT_FOUND");
    let key = control_plane(broker, operator, proto::ApiKeyGroup::Credentials).await;
    let refused = disconnect(&key, credential, LONG).await.unwrap_err();
    assert_eq!(reason(&refused), "PERMISSION_DENIED");
    account.scene.resolve().await.unwrap();

    disconnect(&alex, credential, LONG).await.unwrap();
    let [one] = revocations(&alex).await.try_into().unwrap();
    revocation(&alex, &one.id).await.unwrap();
    // What became of it is told to its owner and to those who see the org.
    assert_eq!(revocations(&sam).await, []);
    let hidden = revocation(&sam, &one.id).await.unwrap_err();
    assert_eq!(reason(&hidden), "NOT_FOUND");
    let again = disconnect(&sam, credential, LONG).await.unwrap_err();
    assert_eq!(reason(&again), "NOT_FOUND");
    let key = control_plane(broker, operator, proto::ApiKeyGroup::Accounts).await;
    assert_eq!(revocations(&key).await, [one]);
}

#[tokio::test]
async fn a_key_is_no_account_and_no_wait_is_endless() {
    let account = Account::connected("").await;
    let operator = &account.scene.operator;
    let key = operator.set_key(ORG, MEMBER, "sk-test-0123456789abcdef").await;
    let refused = disconnect(operator, &key.id, LONG).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_ARGUMENT");
    assert!(refused.message().contains("credential remove"), "{refused:?}");
    let long = Duration::from_secs(31);
    let refused = disconnect(operator, &account.scene.credential, long).await;
    assert_eq!(reason(&refused.unwrap_err()), "INVALID_ARGUMENT");
    account.scene.resolve().await.unwrap();
}

//! Who sees which credential's status.

use super::*;
use crate::support::broker::MEMBER;
use crate::support::{TestBroker, reason};

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

// req: N9 C6
#[tokio::test]
async fn members_see_their_own_and_nothing_of_others() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    operator.make_member(ORG, "billie").await;
    let (alex, billie) = (
        member(&broker, &operator, MEMBER).await,
        member(&broker, &operator, "billie").await,
    );
    let mut all = Vec::new();
    for (owner, key) in [
        (MEMBER, "a-key-of-alex-0123456789"),
        ("billie", "a-key-of-billie-0123456789"),
        ("", "a-key-of-the-org-0123456789"),
    ] {
        all.push(operator.set_key(ORG, owner, key).await.id);
    }
    assert_eq!(listed(&alex, "", &[]).await.unwrap(), all[..1]);
    assert_eq!(listed(&billie, "", &[]).await.unwrap(), all[1..2]);
    assert_eq!(
        listed(&alex, MEMBER, &[CredentialHealth::Ok]).await.unwrap(),
        all[..1]
    );
    assert_eq!(status(&alex, &all[0]).await.dependents, 0);
    // Somebody else's looks like none.
    let missing = operator
        .make_member(ORG, "nobody")
        .await
        .id
        .replace("mbr_0", "mbr_1");
    let absent = listed(&alex, &missing, &[]).await.unwrap_err();
    let theirs = listed(&alex, "billie", &[]).await.unwrap_err();
    assert_eq!(
        (reason(&theirs), theirs.message()),
        (reason(&absent), absent.message())
    );
    for credential in &all[1..] {
        let request = proto::GetCredentialStatusRequest {
            org: ORG.to_owned(),
            credential: credential.clone(),
        };
        let refused = alex
            .credentials()
            .get_credential_status(request)
            .await
            .unwrap_err();
        assert_eq!(reason(&refused), "NOT_FOUND");
    }

    let (_, key) = operator.make_broad_api_key(ORG).await;
    for reader in [&operator, &broker.caller(Some(&key)).await] {
        assert_eq!(listed(reader, "", &[]).await.unwrap(), all);
        assert_eq!(listed(reader, "billie", &[]).await.unwrap(), all[1..2]);
        assert_eq!(
            listed(reader, "", &[CredentialHealth::GrantLost]).await.unwrap(),
            [""; 0]
        );
    }
    let request = proto::CreateApiKeyRequest {
        org: ORG.to_owned(),
        groups: vec![proto::ApiKeyGroup::Resolve as i32],
        ..Default::default()
    };
    let narrow = operator.access().create_api_key(request).await.unwrap();
    let narrow = narrow.into_inner().token.unwrap().value.clone();
    let refused = listed(&broker.caller(Some(&narrow)).await, "", &[])
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "PERMISSION_DENIED");
}

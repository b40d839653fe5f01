//! Disconnected while an exchange is under way: what its answer brings is revoked as well.

use crate::scene::{Account, LONG, REVOKED, ended, fates, revocations};
use crate::support::provider::{ACCESS_MARK, REFRESH_MARK};
use crate::support::reason;

// req: A12 N7
#[tokio::test]
async fn what_an_exchange_brings_afterwards_is_revoked_too() {
    let account = Account::connected("").await;
    let scene = &account.scene;
    scene.expire();
    scene.provider.hold();
    let (agent, task) = (scene.agent.clone(), scene.task.clone());
    let asked = tokio::spawn(async move { agent.resolve(&task).await });
    scene.provider.called(2).await;

    let gone = account.disconnect(LONG).await;
    assert_eq!(gone.revocation, "", "{gone:?}");
    // The access token had expired; the refresh token is on its way to being replaced, which nobody knows yet.
    assert_eq!(account.revocations.hints(), ["refresh_token"]);
    assert_eq!(account.revocations.asked()[0].token, account.refresh_token);
    let told = &gone.tokens[0].message;
    assert!(told.contains("may have replaced it"), "{gone:?}");

    scene.provider.release();
    assert_eq!(reason(&asked.await.unwrap().unwrap_err()), "NOT_FOUND");
    account.revocations.was_asked(3).await;
    let newer = &account.revocations.asked()[1..];
    assert_eq!(newer[0].token, scene.provider.current());
    assert!(newer[0].token.contains(REFRESH_MARK) && newer[0].token != account.refresh_token);
    assert!(newer[1].token.contains(ACCESS_MARK) && newer[1].token != account.access_token);
    let all = revocations(&scene.operator).await;
    assert_eq!(all.len(), 2);
    let second = ended(&scene.operator, &all[1].id).await;
    assert_eq!(fates(&second.tokens), REVOKED);
    assert_eq!(second.credential, scene.credential);
}

/// Nobody asked for that: what a removed credential's exchange brings is left alone.
#[tokio::test]
async fn what_an_exchange_of_a_removed_credential_brings_is_left_alone() {
    let account = Account::connected("").await;
    let scene = &account.scene;
    scene.expire();
    scene.provider.hold();
    let (agent, task) = (scene.agent.clone(), scene.task.clone());
    let asked = tokio::spawn(async move { agent.resolve(&task).await });
    scene.provider.called(2).await;
    let request = credbroker::proto::RemoveCredentialRequest {
        org: crate::support::broker::ORG.to_owned(),
        credential: scene.credential.clone(),
    };
    scene
        .operator
        .credentials()
        .remove_credential(request)
        .await
        .unwrap();
    scene.provider.release();
    assert_eq!(reason(&asked.await.unwrap().unwrap_err()), "NOT_FOUND");
    assert_eq!(revocations(&scene.operator).await, []);
    assert_eq!(account.revocations.asked(), []);
}

//! What whoever disconnects is told, and what is gone by then.

use std::time::Duration;

use credbroker::proto::watch_event::Event;
use credbroker::proto::{self, TokenFate};

use crate::scene::{Account, LONG, REVOKED, disconnect, ended, fates, journaled, revocation, revocations};
use crate::support::broker::{MEMBER, ORG};
use crate::support::provider::{ACCESS_MARK, REFRESH_MARK};
use crate::support::reason;
use crate::support::scene::{LIFE, Scene};

// req: A12
#[tokio::test]
async fn both_tokens_are_revoked_and_nothing_of_the_account_is_left() {
    let account = Account::connected("").await;
    let scene = &account.scene;
    let mut watching = scene.agent.watch().await;

    let gone = account.disconnect(LONG).await;
    assert_eq!(fates(&gone.tokens), REVOKED);
    assert_eq!((gone.revocation.as_str(), gone.leases_ended), ("", 1));
    assert_eq!(account.revocations.asked(), account.both());

    // The agent is told, and gets nothing of it any more.
    match watching.event().await.unwrap() {
        Event::AccessEnded(ended) => assert_eq!(ended.subject, scene.credential),
        other => panic!("{other:?}"),
    }
    assert_eq!(reason(&scene.resolve().await.unwrap_err()), "CONNECT_ACCOUNT");
    let request = proto::GetCredentialRequest {
        org: ORG.to_owned(),
        credential: scene.credential.clone(),
    };
    let shown = scene.operator.credentials().get_credential(request).await;
    assert_eq!(reason(&shown.unwrap_err()), "NOT_FOUND");

    // Who asks again, because the answer was lost, gets the same one.
    let again = account.disconnect(LONG).await;
    assert_eq!((fates(&again.tokens), again.leases_ended), (REVOKED.to_vec(), 0));
    assert_eq!(account.revocations.asked().len(), 2);
}

// req: A12
#[tokio::test]
async fn after_reconnecting_the_new_grant_has_a_life_of_its_own() {
    let account = Account::connected("").await;
    let scene = &account.scene;
    account.disconnect(LONG).await;
    let imported = scene
        .operator
        .import_grant(ORG, MEMBER, &scene.provider.mint())
        .await;
    assert_ne!(imported.id, scene.credential);
    assert_eq!(imported.generation, 1);
    assert_eq!(scene.resolve().await.unwrap().generation, 2);
    assert_eq!(account.revocations.asked(), account.both());
}

// req: A12
#[tokio::test]
async fn what_cannot_be_revoked_is_told_to_expire_and_when() {
    let (scene, _) = Scene::leased("", "").await;
    let gone = disconnect(&scene.operator, &scene.credential, LONG)
        .await
        .unwrap();
    let expires = [
        ("refresh_token", TokenFate::Expires),
        ("access_token", TokenFate::Expires),
    ];
    assert_eq!(fates(&gone.tokens), expires);
    assert_eq!(gone.revocation, "");
    assert!(gone.tokens[0].expire_time.is_none(), "the provider does not tell");
    let left = gone.tokens[1].expire_time.unwrap().seconds - credbroker_now();
    let life = i64::try_from(LIFE.as_secs()).unwrap();
    assert!((life - 60..=life).contains(&left), "{left} s");
    let [only] = revocations(&scene.operator).await.try_into().unwrap();
    assert_eq!(only.attempts, 0, "nobody was asked");
}

fn credbroker_now() -> i64 {
    crate::support::broker::now().seconds()
}

// req: A12
#[tokio::test]
async fn each_token_is_told_of_by_itself() {
    const UNSUPPORTED: &str = r#"{"error":"unsupported_token_type"}"#;
    const REQUEST: &str = r#"{"error":"invalid_request","error_description":"who are you"}"#;
    let account = Account::connected("").await;
    account
        .revocations
        .answers(&[(200, "", None), (400, UNSUPPORTED, None)]);
    let gone = account.disconnect(LONG).await;
    let told = [
        ("refresh_token", TokenFate::Revoked),
        ("access_token", TokenFate::Expires),
    ];
    assert_eq!(fates(&gone.tokens), told);
    assert!(gone.tokens[1].expire_time.is_some());

    let refused = Account::connected("").await;
    refused.revocations.answers(&[(400, REQUEST, None)]);
    let gone = refused.disconnect(LONG).await;
    let told = [
        ("refresh_token", TokenFate::GivenUp),
        ("access_token", TokenFate::Revoked),
    ];
    assert_eq!(fates(&gone.tokens), told);
    let said = &gone.tokens[0].message;
    assert!(
        said.starts_with("the provider: ") && said.contains("who are you"),
        "{gone:?}"
    );
    let finished = journaled(&refused.scene.operator, "account.revoke_tokens").await;
    assert!(
        finished
            .iter()
            .any(|record| record.reason == "REVOCATION_REFUSED"),
        "{finished:?}"
    );
}

#[tokio::test]
async fn what_goes_with_its_grant_is_not_asked_about() {
    let account = Account::connected("revoke_ends_access = true\n").await;
    let gone = account.disconnect(LONG).await;
    let told = [
        ("refresh_token", TokenFate::Revoked),
        ("access_token", TokenFate::RevokedWithGrant),
    ];
    assert_eq!(fates(&gone.tokens), told);
    assert_eq!(account.revocations.hints(), ["refresh_token"]);
}

// req: A12
#[tokio::test]
async fn the_provider_is_left_alone_where_that_is_asked_for() {
    let account = Account::connected("").await;
    let scene = &account.scene;
    let request = proto::DisconnectAccountRequest {
        org: ORG.to_owned(),
        credential: scene.credential.clone(),
        keep_upstream: true,
        wait: None,
    };
    let gone = scene.operator.accounts().disconnect_account(request).await;
    let gone = gone.unwrap().into_inner();
    assert!(gone.tokens.iter().all(|token| token.fate() == TokenFate::Expires));
    assert_eq!((gone.tokens.len(), gone.leases_ended), (2, 1));
    assert_eq!(reason(&scene.resolve().await.unwrap_err()), "CONNECT_ACCOUNT");
    assert!(revocations(&scene.operator).await.is_empty());
    assert_eq!(account.revocations.asked(), []);
}

/// A removed member's accounts are revoked too, and whoever removes them is told where to look.
#[tokio::test]
async fn a_removed_members_grants_are_revoked() {
    let account = Account::connected("").await;
    let operator = &account.scene.operator;
    let request = proto::RemoveMemberRequest {
        org: ORG.to_owned(),
        member: MEMBER.to_owned(),
    };
    let removed = operator
        .directory()
        .remove_member(request)
        .await
        .unwrap()
        .into_inner();
    let [one] = revocations(operator).await.try_into().unwrap();
    assert!(removed.credentials[0].advice.contains(&one.id), "{removed:?}");
    assert_eq!(fates(&ended(operator, &one.id).await.tokens), REVOKED);
    assert_eq!(account.revocations.asked(), account.both());
}

/// Neither an answer nor the journal has any of a token, nor what a provider quotes of one.
#[tokio::test]
async fn no_token_is_ever_told() {
    let account = Account::connected("").await;
    let scene = &account.scene;
    let quoting = format!(
        r#"{{"error":"x","error_description":"no {}"}}"#,
        account.refresh_token
    );
    account.revocations.always((500, quoting.leak(), None));
    let gone = account.disconnect(Duration::from_secs(1)).await;
    let one = revocation(&scene.operator, &gone.revocation).await.unwrap();
    let all = revocations(&scene.operator).await;
    let records = scene.operator.records().await;
    assert!(one.attempts > 0 && !one.tokens[0].message.is_empty());
    let text = format!("{gone:?} {one:?} {all:?} {records:?}");
    assert!(text.contains("account.disconnect") && text.contains("account.revoke_tokens"));
    for mark in [REFRESH_MARK, ACCESS_MARK] {
        assert!(!text.contains(mark));
    }
}

/// The begin of every try is in the journal with its end, and the account's own.
#[tokio::test]
async fn every_try_is_journaled_with_its_end() {
    let account = Account::connected("").await;
    account.revocations.answers(&[(503, "{}", None)]);
    let gone = account.disconnect(Duration::ZERO).await;
    let operator = &account.scene.operator;
    ended(operator, &gone.revocation).await;
    let disconnects = journaled(operator, "account.disconnect").await;
    assert_eq!(disconnects.len(), 2, "{disconnects:?}");
    // The finish of the last try is written right after the state that ends it.
    for _ in 0..100 {
        let tries = journaled(operator, "account.revoke_tokens").await;
        if tries.len() == 4 {
            assert_eq!(tries[1].reason, "REVOCATION_UNAVAILABLE", "{tries:?}");
            assert_eq!(tries[3].reason, "", "{tries:?}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{:?}", journaled(operator, "account.revoke_tokens").await);
}

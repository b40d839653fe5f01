//! What the provider does not confirm at once: it is asked again, in its own time, over restarts, and not for ever.

use std::time::Duration;

use credbroker::proto::{self, TokenFate};

use crate::scene::{Account, LONG, PENDING, REVOKED, ended, fates, revocation, revocations};
use crate::support::broker::{MEMBER, ORG};

// req: A12
#[tokio::test]
async fn a_provider_that_fails_is_asked_again_until_it_confirms() {
    let account = Account::connected("").await;
    account.revocations.answers(&[(503, "{}", None)]);
    let gone = account.disconnect(Duration::ZERO).await;
    assert_eq!(fates(&gone.tokens), PENDING);
    let done = ended(&account.scene.operator, &gone.revocation).await;
    assert_eq!((fates(&done.tokens), done.attempts), (REVOKED.to_vec(), 2));
    assert_eq!(
        account.revocations.hints(),
        ["refresh_token", "refresh_token", "access_token"]
    );
    assert_eq!(done.credential, account.scene.credential);
}

/// A client that the provider does not know is the operator's to mend: the tokens are not lost by then.
#[tokio::test]
async fn a_fault_of_the_client_is_not_final() {
    let account = Account::connected("").await;
    let client = r#"{"error":"invalid_client"}"#;
    account.revocations.answers(&[(401, client, None)]);
    let gone = account.disconnect(LONG).await;
    assert_eq!(fates(&gone.tokens), REVOKED);
    assert_eq!(account.revocations.asked().len(), 3);
}

/// Who waits gets the answer as soon as there is one, and no sooner than that.
#[tokio::test]
async fn who_waits_is_answered_with_the_confirmation() {
    let account = Account::connected("").await;
    account.revocations.answers(&[(503, "{}", None)]);
    let gone = account.disconnect(LONG).await;
    assert_eq!(
        (fates(&gone.tokens), gone.revocation),
        (REVOKED.to_vec(), String::new())
    );
}

#[tokio::test]
async fn a_provider_that_asks_for_time_gets_it() {
    let account = Account::connected("").await;
    let scene = &account.scene;
    account
        .revocations
        .answers(&[(200, "", None), (429, "{}", Some(7_200))]);
    let gone = account.disconnect(Duration::ZERO).await;
    account.revocations.was_asked(2).await;
    let told = [
        ("refresh_token", TokenFate::Revoked),
        ("access_token", TokenFate::Pending),
    ];
    let one = loop {
        let one = revocation(&scene.operator, &gone.revocation).await.unwrap();
        if one.attempts == 1 {
            break one;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(fates(&one.tokens), told);
    let wait = one.next_time.unwrap().seconds - one.create_time.unwrap().seconds;
    assert!((7_190..=7_260).contains(&wait), "{wait} s");
    // The access token has expired by then: nobody is asked about that one.
    scene.clock.advance(Duration::from_secs(7_300));
    let done = ended(&scene.operator, &gone.revocation).await;
    assert_eq!(done.tokens[1].fate(), TokenFate::Expires);
    assert_eq!(account.revocations.asked().len(), 2);
}

// req: A12
#[tokio::test]
async fn a_revocation_outlives_the_broker() {
    let mut account = Account::connected("").await;
    account.revocations.go_away().await;
    let gone = account.disconnect(Duration::from_secs(1)).await;
    assert_eq!(fates(&gone.tokens), PENDING);
    assert!(!gone.tokens[0].message.is_empty(), "{gone:?}");
    let Account {
        scene,
        mut revocations,
        refresh_token,
        access_token,
    } = account;
    let broker = scene.broker.restart().await;
    let operator = broker.operator().await;
    let one = revocation(&operator, &gone.revocation).await.unwrap();
    assert_eq!(one.end_time, None);
    let metrics = broker.broker.metrics_text().await;
    assert!(
        metrics.contains("\ncredbroker_revocations_pending 1\n"),
        "{metrics}"
    );

    revocations.come_back().await;
    scene.clock.advance(Duration::from_secs(86_400 / 2));
    let done = ended(&operator, &gone.revocation).await;
    assert_eq!(done.tokens[0].fate(), TokenFate::Revoked);
    // It had time to expire by that clock.
    assert_eq!(done.tokens[1].fate(), TokenFate::Expires);
    assert_eq!(revocations.asked()[0].token, refresh_token);
    assert!(
        revocations
            .asked()
            .iter()
            .all(|asked| asked.token != access_token)
    );
    let metrics = broker.broker.metrics_text().await;
    for line in [
        "credbroker_revocations_pending 0",
        "credbroker_token_revocations_total{outcome=\"revoked\"} 1",
        "credbroker_token_revocations_total{outcome=\"expires\"} 1",
    ] {
        assert!(
            metrics.lines().any(|have| have == line),
            "{line} not in\n{metrics}"
        );
    }
}

/// Whoever signs in again with the very same grant must not lose it to a revocation that is late.
#[tokio::test]
async fn a_grant_that_was_brought_in_again_is_not_revoked() {
    let mut account = Account::connected("").await;
    account.revocations.go_away().await;
    let gone = account.disconnect(Duration::from_secs(1)).await;
    let scene = &account.scene;
    let again = scene
        .operator
        .import_grant(ORG, MEMBER, &account.refresh_token)
        .await;
    account.revocations.come_back().await;
    scene.clock.advance(Duration::from_secs(60));
    let done = ended(&scene.operator, &gone.revocation).await;
    assert_eq!(done.tokens[0].fate(), TokenFate::Expires);
    assert!(done.tokens[0].message.contains(&again.id), "{done:?}");
    assert_eq!(account.revocations.asked(), []);
    scene.resolve().await.unwrap();
}

/// What became of an account's revocation that could be made only after the member had connected again.
async fn late(account: &mut Account) -> proto::Revocation {
    account.revocations.go_away().await;
    let gone = account.disconnect(Duration::from_secs(1)).await;
    let scene = &account.scene;
    let newer = scene.provider.mint();
    scene.operator.import_grant(ORG, MEMBER, &newer).await;
    account.revocations.come_back().await;
    scene.clock.advance(Duration::from_secs(60));
    ended(&scene.operator, &gone.revocation).await
}

/// A provider may end all that the account gave to the client with any of its tokens: a revocation that is late must not
/// end an account that is connected again, with a grant of its own.
#[tokio::test]
async fn an_account_that_is_connected_again_is_not_ended_by_a_late_revocation() {
    let mut account = Account::connected("").await;
    let done = late(&mut account).await;
    assert!(
        done.tokens.iter().all(|token| token.fate() == TokenFate::Expires),
        "{done:?}"
    );
    assert!(done.tokens[0].message.contains("connected again"), "{done:?}");
    assert_eq!(account.revocations.asked(), []);
    account.scene.resolve().await.unwrap();
}

/// Where tokens are known to stand apart, the old ones are revoked all the same.
#[tokio::test]
async fn where_tokens_stand_apart_a_late_revocation_is_made() {
    let mut account = Account::connected("revoke_scope = \"token\"\n").await;
    let done = late(&mut account).await;
    assert_eq!(fates(&done.tokens), REVOKED);
    assert_eq!(account.revocations.asked(), account.both());
}

#[tokio::test]
async fn what_ended_is_listed_for_a_week() {
    let account = Account::connected("").await;
    let scene = &account.scene;
    account.disconnect(LONG).await;
    let [one] = revocations(&scene.operator).await.try_into().unwrap();
    scene.clock.advance(Duration::from_secs(6 * 86_400));
    scene.broker.broker.collect().await.unwrap();
    assert_eq!(revocations(&scene.operator).await, [one]);
    scene.clock.advance(Duration::from_secs(86_400));
    assert_eq!(revocations(&scene.operator).await, []);
    scene.broker.broker.collect().await.unwrap();
    let repeated = crate::scene::disconnect(&scene.operator, &scene.credential, LONG).await;
    assert_eq!(crate::support::reason(&repeated.unwrap_err()), "NOT_FOUND");
}

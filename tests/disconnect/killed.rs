//! `kill -9` of the real daemon while accounts are being disconnected. Whatever the moment: an account is connected and
//! works, or it is gone and its tokens are revoked; and what was answered is so.

use std::time::Duration;

use futures_util::future::join_all;

use crate::provider::Revocations;
use crate::scene::{disconnect, ended, revocations};
use crate::support::broker::{ORG, connector};
use crate::support::process::Installation;
use crate::support::provider::Provider;

const LIFE: Duration = Duration::from_secs(3_600);
const ACCOUNTS: usize = 6;

// req: A12 N1
#[tokio::test]
async fn no_revocation_is_lost_and_no_account_is_half_gone() {
    for after in [0, 4, 12, 40, 200] {
        killed(Duration::from_millis(after)).await;
    }
}

async fn killed(after: Duration) {
    let provider = Provider::start(LIFE).await;
    let revoking = Revocations::start().await;
    // The broker asks, and has no answer before it is killed.
    revoking.hold();
    let connectors = connector(&provider.token_url(), "tests", &revoking.key());
    let made = Installation::make("", &connectors).await;
    let mut daemon = made.start().await;
    let operator = daemon.operator().await;
    operator.make_org(ORG).await;
    let mut accounts = Vec::new();
    for number in 0..ACCOUNTS {
        let member = format!("member-{number}");
        operator.make_member(ORG, &member).await;
        let token = provider.mint_another();
        let imported = operator.import_grant(ORG, &member, &token).await;
        accounts.push((imported.id, token));
    }
    let asked = accounts.iter().map(|(credential, _)| {
        let (operator, credential) = (operator.clone(), credential.clone());
        tokio::spawn(async move { disconnect(&operator, &credential, Duration::ZERO).await })
    });
    let asked: Vec<_> = asked.collect();
    tokio::time::sleep(after).await;
    daemon.kill().await;
    let answers = join_all(asked).await;
    revoking.release();

    let daemon = made.start().await;
    let operator = daemon.operator().await;
    let request = credbroker::proto::ListCredentialsRequest {
        org: ORG.to_owned(),
        ..Default::default()
    };
    let left = operator.credentials().list_credentials(request).await.unwrap();
    let left: Vec<_> = left
        .into_inner()
        .credentials
        .into_iter()
        .map(|one| one.id)
        .collect();
    let gone = revocations(&operator).await;
    for ((credential, token), answer) in accounts.iter().zip(answers) {
        let revocation = gone.iter().find(|one| one.credential == *credential);
        assert_ne!(
            left.contains(credential),
            revocation.is_some(),
            "{after:?}: {credential}"
        );
        if answer.unwrap().is_ok() {
            assert!(
                revocation.is_some(),
                "{after:?}: {credential} was told to be gone"
            );
        }
        if let Some(revocation) = revocation {
            let done = ended(&operator, &revocation.id).await;
            assert_eq!(done.tokens.len(), 1);
            assert!(revoking.asked().iter().any(|asked| asked.token == *token));
        }
    }
    // What is still connected was never given up at the provider.
    for (_, token) in accounts
        .iter()
        .filter(|(credential, _)| left.contains(credential))
    {
        assert!(revoking.asked().iter().all(|asked| asked.token != *token));
    }
}

//! `credbrokerd recover-operator`, through the real program.

use credbroker::proto;
use rustix::process::Signal;

use super::scene::{grant, token_apart, token_of};
use crate::support::broker::{MEMBER, ORG};
use crate::support::process::{Installation, run, text};

fn token_in(stdout: &str) -> String {
    let tokens: Vec<_> = stdout.lines().filter(|line| line.starts_with("cbo_")).collect();
    assert_eq!(tokens.len(), 1, "{stdout}");
    tokens[0].to_owned()
}

// req: D1 D2 K5
#[tokio::test]
async fn a_lost_operator_token_is_recovered_on_the_brokers_machine() {
    let made = Installation::make("", "").await;
    let config = made.config().display().to_string();
    let mut daemon = made.start().await;
    let operator = daemon.operator().await;
    operator.make_org(ORG).await;
    let member = operator.mint(token_of(ORG, MEMBER)).await.unwrap();
    let second = operator
        .mint(token_apart(&[(proto::Role::SystemAdmin, "")]))
        .await
        .unwrap();

    // While the daemon runs it is told so, and makes nothing.
    let running = run(&["recover-operator", "--config", &config]).await;
    assert_eq!(running.status.code(), Some(1));
    assert_eq!(text(&running.stdout), "");
    let said = text(&running.stderr);
    assert!(
        said.contains("already runs on") && said.contains("Stop it first"),
        "{said}"
    );
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success());

    let recovered = run(&["recover-operator", "--config", &config]).await;
    assert!(recovered.status.success(), "{recovered:?}");
    let first = token_in(&text(&recovered.stdout));
    assert!(!text(&recovered.stderr).contains(&first));
    let recovered = run(&[
        "recover-operator",
        "--revoke-others",
        "--ttl",
        "2d",
        "--config",
        &config,
    ])
    .await;
    assert!(recovered.status.success(), "{recovered:?}");
    let said = text(&recovered.stdout);
    assert!(said.contains("Revoked the tokens of 3 other operators"), "{said}");
    let last = token_in(&said);
    let bad = run(&["recover-operator", "--ttl", "400d", "--config", &config]).await;
    assert_eq!((bad.status.code(), text(&bad.stdout).as_str()), (Some(1), ""));

    let daemon = made.start().await;
    let admin = daemon.caller(Some(&last)).await;
    let who = admin.who().await.unwrap();
    assert_eq!(who.roles, [grant(proto::Role::SystemAdmin, "")]);
    let life = who.expire_time.unwrap().seconds - crate::support::broker::now().seconds();
    assert!((86_400..=2 * 86_400).contains(&life), "{life}");
    for revoked in [&first, &second.token, &made.operator_token] {
        let caller = daemon.caller(Some(revoked)).await;
        assert_eq!(caller.who().await.unwrap_err(), "CREDENTIAL_UNKNOWN");
    }
    assert!(daemon.caller(Some(&member.token)).await.who().await.is_ok());

    // All of it is in the journal, begun and finished.
    let records = admin.records().await;
    let count = |action: &str| {
        let done = |record: &&proto::JournalRecord| record.action == action && record.actor == "broker";
        records.iter().filter(done).count()
    };
    assert_eq!(count("operator.recover"), 4, "two, each begun and finished");
    assert_eq!(count("operator.revoke"), 6);
}

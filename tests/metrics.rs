//! Metrics, as a scraper reads them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use credbroker::proto;
use support::broker::{MEMBER, ORG};
use support::{Options, TestBroker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn ask(address: SocketAddr, request: &str) -> String {
    let answer = async {
        let mut peer = TcpStream::connect(address).await.unwrap();
        peer.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        peer.read_to_string(&mut answer).await.unwrap();
        answer
    };
    tokio::time::timeout(Duration::from_secs(20), answer)
        .await
        .unwrap()
}

async fn scrape(address: SocketAddr) -> String {
    let answer = ask(address, "GET /metrics HTTP/1.1\r\nhost: here\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn value(text: &str, name: &str) -> u64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}"))
        .parse()
        .unwrap()
}

// req: N4
#[tokio::test]
async fn a_scraper_reads_what_happened_and_nothing_about_anybody() {
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let options = Options {
        config: format!("[metrics]\nlisten = \"{free}\"\n"),
        ..Options::default()
    };
    let broker = TestBroker::start_with(options).await;
    let operator = broker.prepare().await;
    let key = "the-orgs-own-key-000";
    operator.set_key(ORG, "", key).await;
    let task = operator.make_task(ORG, MEMBER).await;
    let enrolled = broker.enroll(&operator, &task).await;
    let agent = broker.agent(&enrolled).await;
    agent.resolve("").await.unwrap();
    agent.resolve("").await.unwrap();
    let before = scrape(free).await;
    let call = "credbroker_requests_total{method=\"/credbroker.v1.BrokerService/ResolveCredential\",code=";
    assert_eq!(value(&before, &format!("{call}\"OK\"}}")), 2);
    assert_eq!(value(&before, "credbroker_connected_agents"), 1);
    assert_eq!(value(&before, "credbroker_revoke_to_deny_seconds_count"), 0);

    let revoke = proto::RevokeAgentRequest {
        org: ORG.to_owned(),
        agent: enrolled.agent.clone(),
        ..Default::default()
    };
    operator.agents().revoke_agent(revoke).await.unwrap();
    agent.resolve("").await.unwrap_err();
    let after = scrape(free).await;
    assert_eq!(value(&after, &format!("{call}\"UNAUTHENTICATED\"}}")), 1);
    assert_eq!(
        value(&after, "credbroker_denials_total{reason=\"CREDENTIAL_UNKNOWN\"}"),
        1
    );
    assert_eq!(value(&after, "credbroker_revoke_to_deny_seconds_count"), 1);
    let position = value(&after, "credbroker_journal_position");
    assert!(position > value(&before, "credbroker_journal_position"));
    for told in [key, &enrolled.agent, &task, ORG, MEMBER] {
        assert!(!after.contains(told), "{told}");
    }
}

// req: N4
#[tokio::test]
async fn nothing_else_is_served_there_and_nobody_holds_it_up() {
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let options = Options {
        config: format!("[metrics]\nlisten = \"{free}\"\n"),
        ..Options::default()
    };
    let broker = TestBroker::start_with(options).await;
    // Once it answers, all its ports are open.
    broker.prepare().await;
    for (request, told) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
        ("hello\r\n\r\n", "400"),
        (
            &format!("GET /metrics HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(10_000)),
            "431",
        ),
    ] {
        let answer = ask(free, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {told} ")), "{answer}");
    }
    // Silent peers have their time, and no more of them than there are places.
    let silent: Vec<_> = futures_util::future::join_all((0..20).map(|_| TcpStream::connect(free))).await;
    let again = async {
        loop {
            let Ok(mut peer) = TcpStream::connect(free).await else {
                continue;
            };
            let mut answer = String::new();
            let asked = peer.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").await;
            if asked.is_ok() && peer.read_to_string(&mut answer).await.is_ok() && answer.contains("200 OK") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), again)
        .await
        .expect("silent peers keep it shut");
    drop(silent);
    broker.stop().await;
}

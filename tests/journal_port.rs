//! The journal as an operator reads it: what is in it, when, that it verifies elsewhere, and that it holds no
//! secret.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

#[path = "journal_port/day.rs"]
mod day;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use credbroker::domain::journal::Position;
use credbroker::domain::time::Time;
use credbroker::journal::verify::{VerifyError, export_line, export_start, verify};
use credbroker::journal::{Chain, JournalId, PublicKey, Signature, SignedHead};
use credbroker::proto;
use day::{Day, day};
use support::broker::{MEMBER, ORG};
use support::{Caller, TestBroker, reason};

// req: N6
#[tokio::test]
async fn every_effect_is_begun_before_it_happens_and_finished_before_it_is_told() {
    let day = day().await;
    let records = day.operator.records().await;
    for (record, position) in records.iter().zip(1..) {
        assert_eq!(record.position, position, "the records have a hole");
    }
    let mut open: BTreeMap<u64, &proto::JournalRecord> = BTreeMap::new();
    let mut effects = BTreeSet::new();
    for record in &records {
        match record.phase.as_str() {
            "begin" => assert!(open.insert(record.position, record).is_none()),
            "finish" => {
                let begin = open.remove(&record.begins).expect("a finish without its begin");
                assert_eq!(
                    (&begin.action, &begin.actor, &begin.org),
                    (&record.action, &record.actor, &record.org)
                );
                assert_eq!(begin.subject, record.subject);
                assert_eq!(record.outcome, "allowed", "{}", record.action);
                effects.insert(record.action.as_str());
            }
            "single" => assert_eq!(record.begins, 0),
            other => panic!("{other}"),
        }
    }
    assert!(open.is_empty(), "begun and never finished: {open:?}");
    let expected = BTreeSet::from([
        "agent.activate",
        "agent.enroll",
        "agent.renew_certificate",
        "agent.revoke",
        "agent.rotate_runtime_key",
        "api_key.create",
        "api_key.revoke",
        "credential.remove",
        "credential.resolve",
        "credential.set",
        "enrollment_token.create",
        "enrollment_token.revoke",
        "environment.create",
        "lease.release",
        "member.create",
        "operator.create",
        "org.create",
        "org.update",
        "project.create",
        "task.assign",
        "task.create",
        "task.end",
    ]);
    assert_eq!(effects, expected);
    // What is no effect: a lease handed out again, refusals, and the broker's own life.
    let single: BTreeSet<_> = records
        .iter()
        .filter(|record| record.phase == "single")
        .map(|record| (record.action.as_str(), record.outcome.as_str()))
        .collect();
    let expected = BTreeSet::from([
        ("broker.start", "allowed"),
        ("credential.force_rotate", "denied"),
        ("credential.resolve", "allowed"),
        ("credential.resolve", "denied"),
        ("enrollment_token.alarm", "denied"),
    ]);
    assert_eq!(single, expected);
}

/// The record at a position, read by whoever asks right now.
async fn record_at(operator: &Caller, position: u64) -> Option<proto::JournalRecord> {
    let request = proto::ListRecordsRequest {
        after_position: position - 1,
        page_size: 1,
        ..Default::default()
    };
    let mut page = operator
        .journal()
        .list_records(request)
        .await
        .unwrap()
        .into_inner();
    page.records.pop()
}

// req: N6
#[tokio::test]
async fn a_resolution_is_durable_before_it_is_answered() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let key = operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let task = operator.make_task(ORG, MEMBER).await;
    let enrolled = broker.enroll(&operator, &task).await;
    let agent = broker.agent(&enrolled).await;
    for n in 0..5 {
        let request = proto::ResolveCredentialRequest {
            request_id: format!("call-{n}"),
            ..Default::default()
        };
        let answer = agent
            .broker()
            .resolve_credential(request)
            .await
            .unwrap()
            .into_inner();
        let record = record_at(&operator, answer.journal_position).await.unwrap();
        assert_eq!(record.position, answer.journal_position);
        assert_eq!(
            (&*record.action, &*record.outcome),
            ("credential.resolve", "allowed")
        );
        assert_eq!(record.phase, if n == 0 { "finish" } else { "single" });
        assert_eq!(
            (&record.actor, &record.request_id),
            (&enrolled.agent, &format!("call-{n}"))
        );
        let lease = answer.lease.unwrap();
        for (what, expected) in [
            ("task", task.as_str()),
            ("credential", &key.id),
            ("lease", &lease.id),
            ("mode", "byok"),
            ("provider", "demo"),
            ("executor", "demo-agent"),
            ("generation", "1"),
        ] {
            assert_eq!(record.subject[what], expected, "{what}");
        }
        assert_eq!(record.subject.contains_key("first"), n == 0);
    }
}

// req: N6
#[tokio::test]
async fn a_refused_resolution_is_recorded_with_its_reason() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let task = operator.make_task(ORG, MEMBER).await;
    let enrolled = broker.enroll(&operator, &task).await;
    let agent = broker.agent(&enrolled).await;
    let foreign = format!("tsk_{}", "0".repeat(32));
    let resolve = |task: &str, executor: &str, request_id: &str| proto::ResolveCredentialRequest {
        task: task.to_owned(),
        executor: executor.to_owned(),
        request_id: request_id.to_owned(),
        ..Default::default()
    };
    for (request, expected) in [
        (resolve(&task, "", "nothing"), "NO_CREDENTIAL_CONFIGURED"),
        (resolve(&foreign, "", "foreign"), "NOT_FOUND"),
        (resolve(&task, "duo-agent", "differs"), "TASK_MISMATCH"),
        (resolve("no <script> id", "", "odd"), "INVALID_ARGUMENT"),
    ] {
        let id = request.request_id.clone();
        let status = agent.broker().resolve_credential(request).await.unwrap_err();
        assert_eq!(reason(&status), expected);
        let records = operator.records().await;
        let record = records.last().unwrap();
        assert_eq!(
            (&*record.action, &*record.phase),
            ("credential.resolve", "single")
        );
        assert_eq!((&*record.outcome, &*record.reason), ("denied", expected));
        assert_eq!((&record.actor, &record.request_id), (&enrolled.agent, &id));
        assert!(!record.org.is_empty());
    }
    // What a caller wrote goes into the journal as a name at most.
    let records = operator.records().await;
    assert_eq!(records.last().unwrap().subject["task"], "noscriptid");
    assert!(
        records
            .iter()
            .any(|record| record.subject.get("task") == Some(&foreign))
    );
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap()
}

/// The newest signed head, once it covers `position`, and its key.
async fn head(operator: &Caller, position: u64) -> (SignedHead, PublicKey) {
    let signed = async {
        loop {
            let answer = operator
                .journal()
                .get_head(proto::GetHeadRequest {})
                .await
                .unwrap()
                .into_inner();
            let head = answer.head.unwrap();
            if head.position < position {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            let time = head.time.unwrap();
            let head = SignedHead {
                journal: JournalId::from_hex(&head.journal).unwrap(),
                position: Position(head.position),
                chain: Chain::from_bytes(array(&head.chain)),
                time: Time::from_millis(time.seconds * 1_000 + i64::from(time.nanos) / 1_000_000),
                signature: Signature::from_bytes(array(&head.signature)),
            };
            return (head, PublicKey(array(&answer.public_key)));
        }
    };
    tokio::time::timeout(Duration::from_secs(20), signed)
        .await
        .expect("no head was signed")
}

/// An export of the records, as it is made anywhere else.
fn export(journal: &JournalId, records: &[proto::JournalRecord]) -> Vec<Vec<u8>> {
    let start = export_start(journal, Position(0), &Chain::start(journal));
    let mut lines = vec![start.into_bytes()];
    lines.extend(
        records
            .iter()
            .map(|record| export_line(&record.stored, &Chain::from_bytes(array(&record.chain)))),
    );
    lines
}

fn joined(lines: &[Vec<u8>]) -> Vec<u8> {
    lines
        .iter()
        .flat_map(|line| [line.as_slice(), b"\n"].concat())
        .collect()
}

// req: N6
#[tokio::test]
async fn an_export_verifies_offline_and_no_change_to_it_does() {
    let Day {
        broker,
        operator,
        enrolled,
        task,
        ..
    } = day().await;
    let first = operator.records().await;
    let (_, key_before) = head(&operator, first.last().unwrap().position).await;
    let broker = broker.restart().await;
    let operator = broker.operator().await;
    broker.agent(&enrolled).await.resolve(&task).await.unwrap();
    let records = operator.records().await;
    let last = records.last().unwrap().position;
    let (head, key) = head(&operator, last).await;
    assert_eq!(key, key_before, "a restart keeps the key");
    assert_eq!(records[..first.len()], first, "a restart keeps the records");
    assert!(
        records[first.len()..]
            .iter()
            .any(|record| record.action == "broker.stop")
    );

    let lines = export(&head.journal, &records);
    let report = verify(&joined(&lines)[..], &[head], &key).unwrap();
    assert_eq!(
        (report.journal, report.last, report.unsigned()),
        (head.journal, Position(last), 0)
    );
    // The key is the one that anybody is told with the trust bundle.
    let bundle = broker
        .caller(None)
        .await
        .enrollment()
        .get_trust_bundle(proto::GetTrustBundleRequest {})
        .await;
    assert_eq!(bundle.unwrap().into_inner().journal_public_key, key.0);

    let middle = lines.len() / 2;
    let mut dropped = lines.clone();
    dropped.remove(middle);
    let mut swapped = lines.clone();
    swapped.swap(middle, middle + 1);
    let mut changed = lines.clone();
    let text = String::from_utf8(changed[middle].clone()).unwrap();
    changed[middle] = text.replace("allowed", "denied").into_bytes();
    assert_ne!(changed[middle], lines[middle]);
    let cut = lines[..lines.len() - 1].to_vec();
    for (what, lines) in [("dropped", dropped), ("swapped", swapped), ("changed", changed)] {
        let found = verify(&joined(&lines)[..], &[head], &key);
        assert!(
            matches!(found, Err(VerifyError::Line { .. })),
            "{what}: {found:?}"
        );
    }
    let found = verify(&joined(&cut)[..], &[head], &key);
    assert!(matches!(found, Err(VerifyError::CutShort { .. })), "{found:?}");
}

// req: N6 D1 N2
#[tokio::test]
async fn the_journal_holds_no_secret() {
    let Day {
        broker,
        operator,
        secrets,
        ..
    } = day().await;
    let mut haystack = Vec::new();
    for record in operator.records().await {
        haystack.extend(prost::Message::encode_to_vec(&record));
    }
    // And as it lies on the disk.
    let data_dir = broker.data_dir();
    for entry in std::fs::read_dir(data_dir.join("journal")).unwrap() {
        haystack.extend(std::fs::read(entry.unwrap().path()).unwrap());
    }
    for secret in &secrets {
        // The part of a token that is secret comes after its id.
        let telling = &secret[secret.len() - secret.len().min(20)..];
        let found = haystack
            .windows(telling.len())
            .any(|window| window == telling.as_bytes());
        assert!(!found, "{telling} is in the journal");
    }
}

// req: N6
#[tokio::test]
async fn records_are_read_by_org_and_from_a_cursor() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    operator.make_org("other").await;
    let all = operator.records().await;
    let page = |org: &str, size: i32, token: &str| proto::ListRecordsRequest {
        org: org.to_owned(),
        page_size: size,
        page_token: token.to_owned(),
        ..Default::default()
    };
    let mut journal = operator.journal();
    let own: Vec<_> = {
        let get = proto::GetOrgRequest { org: ORG.to_owned() };
        let id = operator
            .directory()
            .get_org(get)
            .await
            .unwrap()
            .into_inner()
            .org
            .unwrap()
            .id;
        all.iter().filter(|record| record.org == id).cloned().collect()
    };
    assert!(own.len() >= 8 && own.len() < all.len());
    let (mut read, mut token) = (Vec::new(), String::new());
    loop {
        let answer = journal
            .list_records(page(ORG, 3, &token))
            .await
            .unwrap()
            .into_inner();
        assert!(answer.records.len() <= 3);
        token = answer.next_page_token;
        if answer.records.is_empty() {
            break;
        }
        read.extend(answer.records);
    }
    assert_eq!(read, own);
    // The cursor at the end is good for what comes later.
    operator.make_member(ORG, "kim").await;
    let later = journal
        .list_records(page(ORG, 0, &token))
        .await
        .unwrap()
        .into_inner()
        .records;
    let actions: Vec<_> = later
        .iter()
        .map(|record| (&*record.action, &*record.phase))
        .collect();
    assert_eq!(actions, [("member.create", "begin"), ("member.create", "finish")]);
    let unknown = journal.list_records(page("nobody", 0, "")).await.unwrap_err();
    assert_eq!(reason(&unknown), "NOT_FOUND");
}

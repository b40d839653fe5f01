//! Pruning over the port, and what verifies afterwards.

use std::time::Duration;

use credbroker::domain::journal::Position;
use credbroker::domain::time::Time;
use credbroker::journal::verify::{
    Anchor, Chain, JournalId, PublicKey, Report, Signature, SignedHead, export_anchor, export_head,
    export_line, export_start, verify,
};
use credbroker::proto::prune_records_request::Before;
use credbroker::proto::{self, PruneRecordsRequest};

use super::{PATIENCE, fill};
use crate::support::broker::ORG;
use crate::support::{Caller, Options, TestBroker, reason};

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap()
}

fn time(time: Option<prost_types::Timestamp>) -> Time {
    let time = time.unwrap();
    Time::from_millis(time.seconds * 1_000 + i64::from(time.nanos) / 1_000_000)
}

/// The newest head, once it covers all that there is now.
async fn head(operator: &Caller) -> proto::GetHeadResponse {
    let tip = operator.records().await.last().unwrap().position;
    let covering = async {
        loop {
            let answer = operator.journal().get_head(proto::GetHeadRequest {}).await;
            let answer = answer.unwrap().into_inner();
            if answer.head.as_ref().unwrap().position >= tip {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, covering)
        .await
        .expect("no head was signed")
}

/// Exports what is kept and verifies it.
async fn verified(operator: &Caller) -> Report {
    let answer = head(operator).await;
    let (anchor, head) = (answer.anchor.unwrap(), answer.head.unwrap());
    let anchor = Anchor {
        journal: JournalId::from_hex(&anchor.journal).unwrap(),
        position: Position(anchor.position),
        chain: Chain::from_bytes(array(&anchor.chain)),
        time: time(anchor.time),
        signature: Signature::from_bytes(array(&anchor.signature)),
    };
    let head = SignedHead {
        journal: anchor.journal,
        position: Position(head.position),
        chain: Chain::from_bytes(array(&head.chain)),
        time: time(head.time),
        signature: Signature::from_bytes(array(&head.signature)),
    };
    let mut lines = vec![
        export_start(&anchor.journal, anchor.position, &anchor.chain).into_bytes(),
        export_anchor(&anchor).into_bytes(),
    ];
    let records = operator.records().await;
    let covered = records.iter().filter(|record| record.position <= head.position.0);
    lines.extend(covered.map(|record| export_line(&record.stored, &Chain::from_bytes(array(&record.chain)))));
    lines.push(export_head(&head).into_bytes());
    verify(
        &lines.join(&b'\n')[..],
        &[],
        &PublicKey(array(&answer.public_key)),
    )
    .unwrap()
}

fn before(position: u64, validate_only: bool) -> PruneRecordsRequest {
    PruneRecordsRequest {
        before: Some(Before::BeforePosition(position)),
        validate_only,
    }
}

// req: N6
#[tokio::test]
async fn old_records_go_and_the_rest_verifies_also_after_a_restart() {
    let options = Options {
        journal_segment_bytes: Some(4_096),
        ..Options::default()
    };
    let broker = TestBroker::start_with(options).await;
    let operator = broker.prepare().await;
    fill(&broker, 100).await;
    head(&operator).await;
    let whole = operator.records().await;
    let mut journal = operator.journal();
    let planned = journal
        .prune_records(before(60, true))
        .await
        .unwrap()
        .into_inner();
    assert!(
        planned.segments >= 2 && planned.pruned_position < 60,
        "{planned:?}"
    );
    assert_eq!(
        (planned.records, planned.anchor.as_ref()),
        (planned.pruned_position, None)
    );
    assert_eq!(operator.records().await, whole, "it was only asked what would go");

    let pruned = journal
        .prune_records(before(60, false))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(pruned.anchor.as_ref().unwrap().position, planned.pruned_position);
    assert_eq!(
        (pruned.records, pruned.segments),
        (planned.records, planned.segments)
    );
    let kept = operator.records().await;
    let first_kept = usize::try_from(pruned.pruned_position).unwrap();
    let added = kept[whole.len() - first_kept..].to_vec();
    assert_eq!(kept[..whole.len() - first_kept], whole[first_kept..]);
    // It says up to where before it does it, and that it did.
    let phases: Vec<_> = added
        .iter()
        .map(|record| (&*record.action, &*record.phase, &*record.outcome))
        .collect();
    assert_eq!(
        phases,
        [
            ("journal.prune", "begin", "allowed"),
            ("journal.prune", "finish", "allowed")
        ]
    );
    assert_eq!(
        added[0].subject["pruned_position"],
        pruned.pruned_position.to_string()
    );
    assert!(added[0].actor.starts_with("opr_"), "{}", added[0].actor);
    let report = verified(&operator).await;
    assert_eq!(report.after, Position(pruned.pruned_position));
    assert!(report.anchor.is_some());

    let broker = broker.restart().await;
    let operator = broker.operator().await;
    let again = operator.records().await;
    assert_eq!(again[..kept.len()], kept);
    assert_eq!(verified(&operator).await.after, report.after);
    operator.make_member(ORG, "kim").await;
    // By time, and what is asked for twice goes once.
    let now = PruneRecordsRequest {
        before: Some(Before::BeforeTime(again.last().unwrap().time.unwrap())),
        validate_only: false,
    };
    head(&operator).await;
    let further = operator.journal().prune_records(now).await.unwrap().into_inner();
    assert!(further.pruned_position > pruned.pruned_position);
    let again = operator
        .journal()
        .prune_records(before(further.pruned_position, false))
        .await;
    let again = again.unwrap().into_inner();
    assert_eq!((again.records, again.anchor), (0, further.anchor));
    assert!(verified(&operator).await.after > report.after);
    let nothing = operator
        .journal()
        .prune_records(PruneRecordsRequest::default())
        .await;
    assert_eq!(reason(&nothing.unwrap_err()), "INVALID_ARGUMENT");
}

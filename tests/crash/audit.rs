//! Reads the journal over the port as an auditor would: every record in its place, the chain unbroken, and
//! what it says about each exchange.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use credbroker::domain::journal::Position;
use credbroker::domain::time::Time;
use credbroker::journal::verify::{export_line, export_start, verify};
use credbroker::journal::{Chain, JournalId, PublicKey, Signature, SignedHead};
use credbroker::proto;

use super::load::Given;
use super::support::Caller;

/// What the journal says about the exchanges of one generation, by their fences.
#[derive(Default, Debug)]
pub struct Exchanges {
    /// Begun: at most one refresh token each was sent.
    pub begun: BTreeSet<u64>,
    /// Found after a crash as a claim without an answer.
    pub ambiguous: BTreeSet<u64>,
    /// Found after a crash with the answer staged.
    pub staged: BTreeSet<u64>,
}

/// The journal as far as it was read.
pub struct Audit {
    journal: JournalId,
    last: u64,
    chain: Chain,
    /// By credential and generation.
    pub exchanges: HashMap<String, BTreeMap<u64, Exchanges>>,
    /// Resolutions and replacements that were allowed, by position.
    given: HashMap<u64, proto::JournalRecord>,
    pub records: usize,
}

/// What one reading found.
#[derive(Default)]
pub struct News {
    /// Credential and generation of each answer that was found staged.
    pub staged: Vec<(String, u64)>,
    pub ambiguous: usize,
}

fn chain(bytes: &[u8]) -> Chain {
    Chain::from_bytes(bytes.try_into().unwrap())
}

async fn head(operator: &Caller) -> (SignedHead, PublicKey) {
    let answer = operator.journal().get_head(proto::GetHeadRequest {}).await;
    let proto::GetHeadResponse { head, public_key, .. } = answer.unwrap().into_inner();
    let (head, key) = (head.unwrap(), PublicKey(public_key.try_into().unwrap()));
    let time = head.time.unwrap();
    let signed = SignedHead {
        journal: JournalId::from_hex(&head.journal).unwrap(),
        position: Position(head.position),
        chain: chain(&head.chain),
        time: Time::from_millis(time.seconds * 1_000 + i64::from(time.nanos) / 1_000_000),
        signature: Signature::from_bytes(head.signature.try_into().unwrap()),
    };
    assert!(signed.is_signed_by(&key));
    (signed, key)
}

async fn page(operator: &Caller, after: u64) -> Vec<proto::JournalRecord> {
    let request = proto::ListRecordsRequest {
        page_size: 1_000,
        after_position: after,
        ..Default::default()
    };
    operator
        .journal()
        .list_records(request)
        .await
        .unwrap()
        .into_inner()
        .records
}

impl Audit {
    pub async fn begin(operator: &Caller) -> Self {
        let journal = head(operator).await.0.journal;
        Self {
            journal,
            last: 0,
            chain: Chain::start(&journal),
            exchanges: HashMap::new(),
            given: HashMap::new(),
            records: 0,
        }
    }

    /// Reads on from where it stopped: positions without a gap, the chain from the value of the last time.
    pub async fn read_on(&mut self, operator: &Caller) -> News {
        let (signed, _) = head(operator).await;
        assert_eq!(signed.journal, self.journal, "another journal");
        let mut news = News::default();
        loop {
            let page = page(operator, self.last).await;
            if page.is_empty() {
                break;
            }
            for record in page {
                assert_eq!(record.position, self.last + 1, "a gap in the journal");
                self.last = record.position;
                self.chain = self.chain.after(&record.stored);
                assert_eq!(
                    self.chain,
                    chain(&record.chain),
                    "the chain breaks at {}",
                    self.last
                );
                if signed.position.0 == self.last {
                    assert_eq!(signed.chain, self.chain, "the head says otherwise");
                }
                self.records += 1;
                self.note(record, &mut news);
            }
        }
        assert!(self.last >= signed.position.0, "the journal ends before its head");
        news
    }

    fn note(&mut self, record: proto::JournalRecord, news: &mut News) {
        let number = |kind: &str| record.subject[kind].parse::<u64>().unwrap();
        match record.action.as_str() {
            "credential.refresh" if record.phase == "begin" => {
                let (generation, fence) = (number("generation"), number("fence"));
                self.of(&record, generation).begun.insert(fence);
            }
            "credential.refresh"
                if record.outcome == "failed" && !record.subject.contains_key("recovered") =>
            {
                panic!("the provider was there, and an exchange failed: {record:?}");
            }
            "credential.refresh_recover" => {
                let (generation, fence) = (number("generation"), number("fence"));
                match record.subject.get("found").map_or("", String::as_str) {
                    "staged answer" => {
                        news.staged
                            .push((record.subject["credential"].clone(), generation));
                        self.of(&record, generation).staged.insert(fence);
                    }
                    "claim without an answer" => {
                        news.ambiguous += 1;
                        self.of(&record, generation).ambiguous.insert(fence);
                    }
                    // What came of a staged answer that was found.
                    "" => assert_eq!(record.subject["settled"], "staged answer"),
                    other => panic!("found {other}"),
                }
            }
            "credential.resolve" | "credential.force_rotate" if record.phase != "begin" => {
                self.given.insert(record.position, record);
            }
            _ => {}
        }
    }

    fn of(&mut self, record: &proto::JournalRecord, generation: u64) -> &mut Exchanges {
        let credential = self.exchanges.entry(record.subject["credential"].clone());
        credential.or_default().entry(generation).or_default()
    }

    /// What was handed out stands in the journal at the position that the answer named.
    pub fn holds(&self, given: &Given) {
        let record = self.given.get(&given.position);
        let record = record.unwrap_or_else(|| panic!("no record of {given:?}"));
        assert_eq!(
            (record.action.as_str(), record.outcome.as_str()),
            (given.action, "allowed")
        );
        assert_eq!(record.subject["lease"], given.lease);
        assert_eq!(record.subject["credential"], given.credential);
        assert_eq!(record.subject["generation"], given.generation.to_string());
    }

    /// Reads all of it once more, from the first record, and has it verified as an export.
    pub async fn verify_whole(&self, operator: &Caller) {
        let (signed, key) = head(operator).await;
        let mut export = export_start(&self.journal, Position(0), &Chain::start(&self.journal)).into_bytes();
        let mut last = 0;
        loop {
            let page = page(operator, last).await;
            let Some(newest) = page.last() else { break };
            last = newest.position;
            for record in &page {
                export.push(b'\n');
                export.extend(export_line(&record.stored, &chain(&record.chain)));
            }
        }
        export.push(b'\n');
        let report = verify(export.as_slice(), &[signed], &key).unwrap();
        assert!(report.last.0 >= self.last);
    }
}

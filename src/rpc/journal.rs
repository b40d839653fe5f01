//! `JournalService`: the journal as it is stored, between message and use case.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert::{caller, timestamp};
use super::status::status;
use crate::domain::journal::{Phase, Position};
use crate::domain::refusal::Refusal;
use crate::proto;
use crate::service::{Broker, StoredRecord};

pub(super) struct JournalService(pub(super) Arc<Broker>);

fn record(stored: StoredRecord) -> proto::JournalRecord {
    let entry = stored.entry;
    let (phase, begins) = match entry.phase {
        Phase::Single => ("single", 0),
        Phase::Begin => ("begin", 0),
        Phase::Finish(begin) => ("finish", begin.0),
    };
    proto::JournalRecord {
        position: stored.position.0,
        time: Some(timestamp(stored.time)),
        action: entry.action,
        phase: phase.to_owned(),
        begins,
        outcome: entry.verdict.name().to_owned(),
        reason: entry.reason,
        actor: entry.actor,
        org: entry.org.map(|org| org.to_string()).unwrap_or_default(),
        subject: entry.subject.into_iter().collect(),
        request_id: entry.request_id,
        stored: stored.stored,
        chain: stored.chain.as_bytes().to_vec(),
    }
}

#[tonic::async_trait]
impl proto::journal_service_server::JournalService for JournalService {
    async fn list_records(
        &self,
        request: Request<proto::ListRecordsRequest>,
    ) -> Result<Response<proto::ListRecordsResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let after = match message.page_token.as_str() {
            "" => message.after_position,
            token => token.parse().map_err(|_| {
                status(Refusal::invalid(
                    "page_token",
                    "page_token is not one this list gave out",
                ))
            })?,
        };
        let page = self
            .0
            .read_journal(&caller, &message.org, Position(after), message.page_size)
            .await;
        let page = page.map_err(status)?;
        Ok(Response::new(proto::ListRecordsResponse {
            records: page.records.into_iter().map(record).collect(),
            next_page_token: page.next.0.to_string(),
        }))
    }

    async fn get_head(
        &self,
        _: Request<proto::GetHeadRequest>,
    ) -> Result<Response<proto::GetHeadResponse>, Status> {
        let (head, public_key) = self.0.journal_head();
        Ok(Response::new(proto::GetHeadResponse {
            head: Some(proto::JournalHead {
                journal: head.journal.to_string(),
                position: head.position.0,
                chain: head.chain.as_bytes().to_vec(),
                time: Some(timestamp(head.time)),
                signature: head.signature.as_bytes().to_vec(),
            }),
            public_key: public_key.0.to_vec(),
        }))
    }
}

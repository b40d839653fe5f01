//! `JournalService`: the journal as it is stored, between message and use case.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::convert::{caller, duration, time, timestamp};
use super::status::status;
use crate::domain::journal::{Phase, Position};
use crate::domain::refusal::Refusal;
use crate::proto;
use crate::service::{Anchor, Broker, FilterInput, FollowInput, Followed, PruneTo, SignedHead, StoredRecord};

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

fn head(head: &SignedHead) -> proto::JournalHead {
    proto::JournalHead {
        journal: head.journal.to_string(),
        position: head.position.0,
        chain: head.chain.as_bytes().to_vec(),
        time: Some(timestamp(head.time)),
        signature: head.signature.as_bytes().to_vec(),
    }
}

fn anchor(anchor: &Anchor) -> proto::JournalAnchor {
    proto::JournalAnchor {
        journal: anchor.journal.to_string(),
        position: anchor.position.0,
        chain: anchor.chain.as_bytes().to_vec(),
        time: Some(timestamp(anchor.time)),
        signature: anchor.signature.as_bytes().to_vec(),
    }
}

fn filter<'a>(org: &'a str, filter: Option<&'a proto::RecordFilter>) -> Result<FilterInput<'a>, Status> {
    let Some(filter) = filter else {
        return Ok(FilterInput {
            org,
            ..FilterInput::default()
        });
    };
    let at = |field, at: Option<&_>| at.map(|at| time(field, at)).transpose().map_err(status);
    Ok(FilterInput {
        org,
        actor: &filter.actor,
        member: &filter.member,
        credential: &filter.credential,
        task: &filter.task,
        agent: &filter.agent,
        reason: &filter.reason,
        action: &filter.action,
        outcome: &filter.outcome,
        since: at("filter.since", filter.since.as_ref())?,
        until: at("filter.until", filter.until.as_ref())?,
    })
}

fn followed(followed: Followed) -> proto::FollowRecordsResponse {
    use proto::follow_records_response::Event;
    let event = match followed {
        Followed::Record(stored) => Event::Record(record(*stored)),
        Followed::Progress { position, tip } => Event::Progress(proto::FollowProgress {
            position: position.0,
            tip_position: tip.0,
        }),
    };
    proto::FollowRecordsResponse { event: Some(event) }
}

#[tonic::async_trait]
impl proto::journal_service_server::JournalService for JournalService {
    type FollowRecordsStream =
        Pin<Box<dyn Stream<Item = Result<proto::FollowRecordsResponse, Status>> + Send>>;

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
        let filter = filter(&message.org, message.filter.as_ref())?;
        let page = self
            .0
            .read_journal(&caller, filter, Position(after), message.page_size)
            .await;
        let page = page.map_err(status)?;
        Ok(Response::new(proto::ListRecordsResponse {
            records: page.records.into_iter().map(record).collect(),
            next_page_token: page.next.0.to_string(),
            position: page.next.0,
            tip_position: page.tip.0,
        }))
    }

    async fn follow_records(
        &self,
        request: Request<proto::FollowRecordsRequest>,
    ) -> Result<Response<Self::FollowRecordsStream>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let input = FollowInput {
            filter: filter(&message.org, message.filter.as_ref())?,
            after: message.after_position.map(Position),
            heartbeat: duration("heartbeat", message.heartbeat).map_err(status)?,
        };
        let mut stream = self.0.open_stream(&caller).await.map_err(status)?;
        let ended = async move { stream.ended().await }.boxed();
        let following = self.0.follow_journal(&caller, input, ended).await;
        let following = following.map_err(status)?;
        let told = following.map(|told| told.map(followed).map_err(status));
        Ok(Response::new(told.boxed()))
    }

    async fn prune_records(
        &self,
        request: Request<proto::PruneRecordsRequest>,
    ) -> Result<Response<proto::PruneRecordsResponse>, Status> {
        use proto::prune_records_request::Before;
        let caller = caller(&request)?;
        let message = request.get_ref();
        let to = match &message.before {
            Some(Before::BeforeTime(at)) => PruneTo::BeforeTime(time("before_time", at).map_err(status)?),
            Some(Before::BeforePosition(position)) => PruneTo::BeforePosition(Position(*position)),
            None => {
                let missing = Refusal::invalid("before", "before is required: a time or a position");
                return Err(status(missing));
            }
        };
        let pruned = self.0.prune_journal(&caller, to, message.validate_only).await;
        let pruned = pruned.map_err(status)?;
        let plan = pruned.plan;
        Ok(Response::new(proto::PruneRecordsResponse {
            pruned_position: plan.map_or(0, |plan| plan.last.0),
            records: plan.map_or(0, |plan| plan.records),
            segments: plan.map_or(0, |plan| u32::try_from(plan.segments).unwrap_or(u32::MAX)),
            anchor: pruned.anchor.as_ref().map(anchor),
        }))
    }

    async fn get_head(
        &self,
        _: Request<proto::GetHeadRequest>,
    ) -> Result<Response<proto::GetHeadResponse>, Status> {
        let (newest, public_key) = self.0.journal_head();
        Ok(Response::new(proto::GetHeadResponse {
            head: Some(head(&newest)),
            public_key: public_key.0.to_vec(),
            anchor: self.0.journal_anchor().as_ref().map(anchor),
        }))
    }
}

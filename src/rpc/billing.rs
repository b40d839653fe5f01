//! `BillingService`: between message and use case.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::convert::{caller, duration, mode, mode_named, time, timestamp};
use super::directory::{paths, revision};
use super::status::status;
use crate::domain::billing::{Entitlement, Micros, Subscription};
use crate::domain::cost::{CostEvent, Spend};
use crate::domain::journal::Position;
use crate::domain::refusal::Refusal;
use crate::proto;
use crate::service::{
    AccountChange, AccountStanding, Broker, CostFilterInput, CostInput, Dimension, FollowCosts, FollowedCost,
    NewCredit, SpendInput, UsageEvent, UsageResult,
};

pub(super) struct BillingService(pub(super) Arc<Broker>);

fn account(standing: &AccountStanding) -> proto::Account {
    let account = &standing.account;
    let subscription = match account.subscription {
        Subscription::Active => proto::Subscription::Active,
        Subscription::Inactive => proto::Subscription::Inactive,
    };
    let metered = match account.metered {
        Entitlement::Default => proto::Entitlement::Default,
        Entitlement::Granted => proto::Entitlement::Granted,
        Entitlement::Withdrawn => proto::Entitlement::Withdrawn,
    };
    proto::Account {
        org: account.org.to_string(),
        subscription: subscription as i32,
        metered: metered as i32,
        shared_per_day: account.shared_per_day,
        balance_micros: account.balance.0,
        update_time: account.updated.map(timestamp),
        etag: standing.revision.map_or(0, |revision| revision.0).to_string(),
    }
}

fn change(message: &proto::UpdateAccountRequest) -> Result<AccountChange, Refusal> {
    let known: &[&str] = &["subscription", "metered", "shared_per_day"];
    let paths = paths(message.update_mask.clone(), known)?;
    let named = |path: &str| paths.iter().any(|named| named == path);
    let unset = proto::Account::default();
    let m = message.account.as_ref().unwrap_or(&unset);
    let subscription = match proto::Subscription::try_from(m.subscription) {
        Ok(proto::Subscription::Active | proto::Subscription::Unspecified) => Subscription::Active,
        Ok(proto::Subscription::Inactive) => Subscription::Inactive,
        Err(_) => {
            let message = "account.subscription is active or inactive";
            return Err(Refusal::invalid("account.subscription", message));
        }
    };
    let metered = match proto::Entitlement::try_from(m.metered) {
        Ok(proto::Entitlement::Default | proto::Entitlement::Unspecified) => Entitlement::Default,
        Ok(proto::Entitlement::Granted) => Entitlement::Granted,
        Ok(proto::Entitlement::Withdrawn) => Entitlement::Withdrawn,
        Err(_) => {
            let message = "account.metered is default, granted or withdrawn";
            return Err(Refusal::invalid("account.metered", message));
        }
    };
    Ok(AccountChange {
        revision: revision(&m.etag)?,
        subscription: named("subscription").then_some(subscription),
        metered: named("metered").then_some(metered),
        shared_per_day: named("shared_per_day").then_some(m.shared_per_day),
    })
}

fn usage(event: &proto::UsageEvent) -> Result<UsageEvent<'_>, Refusal> {
    Ok(UsageEvent {
        event_id: &event.event_id,
        lease: &event.lease,
        cost: Micros(event.micros),
        input_tokens: event.input_tokens,
        output_tokens: event.output_tokens,
        model: &event.model,
        time: event.time.as_ref().map(|at| time("time", at)).transpose()?,
    })
}

fn result(event: &proto::UsageEvent, result: UsageResult) -> proto::UsageResult {
    let (outcome, refusal) = match result {
        UsageResult::Recorded => (proto::UsageOutcome::Recorded, None),
        UsageResult::Duplicate => (proto::UsageOutcome::Duplicate, None),
        UsageResult::Refused(refusal) => (proto::UsageOutcome::Refused, Some(refusal)),
    };
    let (reason, message) = refusal
        .map(|refusal| (refusal.reason.code().to_owned(), refusal.message))
        .unwrap_or_default();
    proto::UsageResult {
        event_id: event.event_id.clone(),
        outcome: outcome as i32,
        reason,
        message,
    }
}

fn filter<'a>(org: &'a str, filter: Option<&'a proto::CostFilter>) -> Result<CostFilterInput<'a>, Refusal> {
    let Some(filter) = filter else {
        return Ok(CostFilterInput {
            org,
            ..CostFilterInput::default()
        });
    };
    Ok(CostFilterInput {
        org,
        project: &filter.project,
        mode: mode_named("filter.mode", filter.mode)?,
        provider: &filter.provider,
        member: &filter.member,
    })
}

fn event(event: CostEvent) -> proto::CostEvent {
    let shown = |id: Option<String>| id.unwrap_or_default();
    let spender = event.spender;
    proto::CostEvent {
        position: event.position.0,
        time: Some(timestamp(event.time)),
        org: spender.org.to_string(),
        project: shown(spender.project.map(|id| id.to_string())),
        mode: mode(spender.mode),
        provider: spender.provider,
        model: event.model,
        pool: event.pool,
        task: shown(event.task.map(|id| id.to_string())),
        holder: event.holder,
        member: spender.member.to_string(),
        lease: shown(event.lease.map(|id| id.to_string())),
    }
}

fn followed(told: FollowedCost) -> proto::StreamCostEventsResponse {
    use proto::stream_cost_events_response::Event;
    let told = match told {
        FollowedCost::Event(cost) => Event::CostEvent(event(*cost)),
        FollowedCost::Progress { position, first } => Event::Progress(proto::CostProgress {
            position: position.0,
            first_position: first.0,
        }),
    };
    proto::StreamCostEventsResponse { event: Some(told) }
}

fn dimension(value: i32) -> Result<Dimension, Refusal> {
    match proto::SpendDimension::try_from(value) {
        Ok(proto::SpendDimension::Mode) => Ok(Dimension::Mode),
        Ok(proto::SpendDimension::Provider) => Ok(Dimension::Provider),
        Ok(proto::SpendDimension::Project) => Ok(Dimension::Project),
        Ok(proto::SpendDimension::Member) => Ok(Dimension::Member),
        Ok(proto::SpendDimension::Day) => Ok(Dimension::Day),
        Ok(proto::SpendDimension::Unspecified) | Err(_) => Err(Refusal::invalid(
            "group_by",
            "group_by names mode, provider, project, member or day",
        )),
    }
}

fn row(keys: Vec<String>, spend: Spend) -> proto::SpendRow {
    proto::SpendRow {
        keys,
        dispatches: spend.dispatches,
        micros: spend.micros.0,
        events: spend.events,
    }
}

#[tonic::async_trait]
impl proto::billing_service_server::BillingService for BillingService {
    type StreamCostEventsStream =
        Pin<Box<dyn Stream<Item = Result<proto::StreamCostEventsResponse, Status>> + Send>>;

    async fn get_account(
        &self,
        request: Request<proto::GetAccountRequest>,
    ) -> Result<Response<proto::GetAccountResponse>, Status> {
        let caller = caller(&request)?;
        let found = self.0.get_account(&caller, &request.get_ref().org).await;
        Ok(Response::new(proto::GetAccountResponse {
            account: Some(account(&found.map_err(status)?)),
        }))
    }

    async fn update_account(
        &self,
        request: Request<proto::UpdateAccountRequest>,
    ) -> Result<Response<proto::UpdateAccountResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let change = change(message).map_err(status)?;
        let org = message.account.as_ref().map_or("", |account| &account.org);
        let changed = self.0.update_account(&caller, org, change).await;
        Ok(Response::new(proto::UpdateAccountResponse {
            account: Some(account(&changed.map_err(status)?)),
        }))
    }

    async fn add_credit(
        &self,
        request: Request<proto::AddCreditRequest>,
    ) -> Result<Response<proto::AddCreditResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let credit = NewCredit {
            amount: Micros(message.micros),
            request_id: &message.request_id,
            note: &message.note,
        };
        let credited = self.0.add_credit(&caller, &message.org, credit).await;
        let credited = credited.map_err(status)?;
        Ok(Response::new(proto::AddCreditResponse {
            account: Some(account(&credited.standing)),
            duplicate: credited.duplicate,
        }))
    }

    async fn report_usage(
        &self,
        request: Request<proto::ReportUsageRequest>,
    ) -> Result<Response<proto::ReportUsageResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let events: Result<Vec<_>, _> = message.events.iter().map(usage).collect();
        let events = events.map_err(status)?;
        let reported = self.0.report_usage(&caller, &message.org, &events).await;
        let reported = reported.map_err(status)?;
        let results = message.events.iter().zip(reported.results);
        Ok(Response::new(proto::ReportUsageResponse {
            results: results.map(|(event, told)| result(event, told)).collect(),
            balance_micros: reported.balance.0,
        }))
    }

    async fn list_cost_events(
        &self,
        request: Request<proto::ListCostEventsRequest>,
    ) -> Result<Response<proto::ListCostEventsResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let unknown = || Refusal::invalid("page_token", "page_token is not one this list gave out");
        let after = match message.page_token.as_str() {
            "" => 0,
            token => token.parse().map_err(|_| status(unknown()))?,
        };
        let at = |field, at: Option<&_>| at.map(|at| time(field, at)).transpose().map_err(status);
        let input = CostInput {
            filter: filter(&message.org, message.filter.as_ref()).map_err(status)?,
            since: at("since", message.since.as_ref())?,
            until: at("until", message.until.as_ref())?,
            after: Position(after),
            size: message.page_size,
        };
        let page = self.0.list_cost_events(&caller, input).await.map_err(status)?;
        let next = page.more.then(|| page.next.0.to_string());
        Ok(Response::new(proto::ListCostEventsResponse {
            events: page.events.into_iter().map(event).collect(),
            next_page_token: next.unwrap_or_default(),
            position: page.next.0,
            first_position: page.first.0,
        }))
    }

    async fn stream_cost_events(
        &self,
        request: Request<proto::StreamCostEventsRequest>,
    ) -> Result<Response<Self::StreamCostEventsStream>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let input = FollowCosts {
            filter: filter(&message.org, message.filter.as_ref()).map_err(status)?,
            after: message.after_position.map(Position),
            heartbeat: duration("heartbeat", message.heartbeat).map_err(status)?,
        };
        let mut stream = self.0.open_stream(&caller).await.map_err(status)?;
        let ended = async move { stream.ended().await }.boxed();
        let following = self.0.follow_cost_events(&caller, input, ended).await;
        let following = following.map_err(status)?;
        let told = following.map(|told| told.map(followed).map_err(status));
        Ok(Response::new(told.boxed()))
    }

    async fn summarize_spend(
        &self,
        request: Request<proto::SummarizeSpendRequest>,
    ) -> Result<Response<proto::SummarizeSpendResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let by: Result<Vec<_>, _> = message.group_by.iter().map(|by| dimension(*by)).collect();
        let by = by.map_err(status)?;
        let input = SpendInput {
            filter: filter(&message.org, message.filter.as_ref()).map_err(status)?,
            by: &by,
            from: &message.from_day,
            to: &message.to_day,
        };
        let sums = self.0.summarize_spend(&caller, input).await.map_err(status)?;
        let rows = sums.rows.into_iter();
        Ok(Response::new(proto::SummarizeSpendResponse {
            rows: rows.map(|sum| row(sum.keys, sum.spend)).collect(),
            total: Some(row(Vec::new(), sums.total)),
            truncated: sums.truncated,
            from_day: sums.from.to_string(),
            to_day: sums.to.to_string(),
        }))
    }
}

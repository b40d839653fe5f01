//! Revocation that bites: agents and API keys end, for good.
//!
//! The order is the same for all: the record says so, durably; then the streams of the subject are told; then its
//! leases end, and what stays valid at the providers is listed; then the answer. From the commit on every call
//! of the subject is refused, and a resolution under way loses, because it commits its lease guarded by the
//! subject's record and looks at the record once more before it answers. All of it goes to its end even when the
//! caller goes away, and doing it again finishes what a crash cut short.

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::api_keys::ListedApiKey;
use super::effect::detached;
use super::live::ended;
use super::outstanding::Outstanding;
use super::streams::{Subject, Telling};
use crate::domain::actor::Caller;
use crate::domain::agent::Agent;
use crate::domain::directory::ApiKey;
use crate::domain::id::AgentId;
use crate::domain::journal::{Action, Record};
use crate::domain::lease::Holder;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::watch::{Ended, Notice};
use crate::metrics::Levels;
use crate::pki::accept::Guests;
use crate::pki::identity::PeerIdentity;
use crate::pki::spiffe::Subject as Named;
use crate::store::keys;
use crate::store::record::Changes;

/// An agent that was revoked, and what it still holds.
#[derive(Clone, Debug)]
pub struct RevokedAgent {
    /// The agent.
    pub agent: Arc<Agent>,
    /// What it may still use at the providers.
    pub outstanding: Outstanding,
}

/// An API key that was revoked, and what it still holds.
#[derive(Clone, Debug)]
pub struct RevokedApiKey {
    /// The key.
    pub key: ListedApiKey,
    /// What it may still use at the providers.
    pub outstanding: Outstanding,
}

/// What the streams of an agent get to end in, before its connections are closed under them.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Broker {
    /// Tells the streams of what is denied from now on, and measures since `arrived`, by the monotonic clock, how
    /// long that took.
    pub(super) fn denied_from_now(&self, subject: Subject, refusal: &Refusal, arrived: Duration) {
        self.metrics
            .denied_after(self.clock.monotonic().saturating_sub(arrived));
        let telling = Telling::new(Arc::clone(&self.metrics), Arc::clone(&self.clock), arrived);
        self.streams.tell(subject, refusal, Some(telling));
    }

    /// When a request came in, for [`Broker::denied_from_now`].
    pub(super) fn arrived(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Closes the connections of an agent that may not come back, once its streams have had the time to end.
    fn hang_up(&self, agent: AgentId) {
        let connections = Arc::clone(&self.connections);
        tokio::spawn(async move {
            tokio::time::sleep(LAST_WORDS).await;
            connections.close(agent);
        });
    }

    /// Who the port lets in: agents and API keys that are known and have not ended. One that is locked comes in, and is told of
    /// the lock by every call; so it goes on by itself once the lock is gone.
    pub fn guests(self: &Arc<Self>) -> Guests {
        let broker = Arc::clone(self);
        Guests {
            connections: Arc::clone(&self.connections),
            admits: Arc::new(move |identity| {
                let broker = Arc::clone(&broker);
                Box::pin(async move { broker.admits(&identity).await })
            }),
        }
    }

    async fn admits(&self, identity: &PeerIdentity) -> bool {
        let live = match identity.subject {
            Named::Agent(agent) => {
                let key = keys::agent(agent.org, agent.agent);
                let stored = self.records.get::<Agent>(&key).await;
                stored.map(|stored| stored.is_some_and(|stored| stored.value.ended().is_none()))
            }
            Named::ApiKey(api_key) => {
                let key = keys::api_key(api_key.org, api_key.api_key);
                let stored = self.records.get::<ApiKey>(&key).await;
                stored.map(|stored| stored.is_some_and(|stored| stored.value.revoked.is_none()))
            }
        };
        // Where the store fails, every call looks for itself and says what is wrong.
        live.unwrap_or(true)
    }

    /// All that is counted and measured, as a scraper reads it.
    pub async fn metrics_text(&self) -> String {
        let pending_revocations = self.revoker.pending().await;
        self.metrics.text(Levels {
            open_streams: self.streams.open(),
            connected_agents: self.connections.agents(),
            journal_position: self.journal.tip().borrow().0,
            scheduled_ahead: self.refresher.scheduled_ahead(),
            credentials_counted_ago: self.credentials_counted_ago(),
            pending_revocations,
        })
    }

    /// What the port counts in.
    pub fn metrics(&self) -> &crate::metrics::Metrics {
        &self.metrics
    }

    /// Revokes an agent for good. When this returns, no later request of the agent succeeds, and none of its
    /// leases stands. With `rotate`, grants of which it held the only lease are rotated before. Revoking it again
    /// changes nothing and lists what it still holds.
    pub async fn revoke_agent(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        agent: &str,
        rotate: bool,
    ) -> Result<RevokedAgent, Refusal> {
        let arrived = self.arrived();
        let stored = self.agent_of(caller, org, agent).await?;
        let record = caller
            .record(Action::AgentRevoke, Some(stored.value.org))
            .about("agent", stored.value.id);
        let broker = Arc::clone(self);
        detached(async move { broker.end_agent(&stored.value, record, rotate, arrived).await }).await
    }

    async fn end_agent(
        self: &Arc<Self>,
        stored: &Arc<Agent>,
        record: Record,
        rotate: bool,
        arrived: Duration,
    ) -> Result<RevokedAgent, Refusal> {
        let (org, id) = (stored.org, stored.id);
        let mut agent = Arc::clone(stored);
        if stored.revoked.is_none() {
            agent = Arc::new(Agent {
                revoked: Some(self.now()),
                ..Agent::clone(stored)
            });
            // Not guarded: an agent that keeps changing its own record could hold a guarded revocation off
            // for as long as it likes. What it changed in between is of no use to it any more.
            let changes = Changes::default().put(&keys::agent(org, id), &*agent);
            self.effect(record, changes).await?;
            self.denied_from_now(*id.as_bytes(), &ended("the agent was revoked"), arrived);
            // That its project cannot be read must not keep anybody from being told.
            let project = self.project_of(org, stored.environment).await.unwrap_or(None);
            let gone = Ended::Agent(id, project);
            self.publish(Notice::ended(org, gone, Reason::CredentialUnknown, false));
        }
        self.hang_up(id);
        let mut outstanding = self.end_leases(org, Holder::Agent(id)).await?;
        if rotate {
            self.rotate_outstanding(org, &mut outstanding).await?;
        }
        Ok(RevokedAgent { agent, outstanding })
    }

    /// Revokes an API key. When this returns, no later request with it succeeds, and none of its leases stands.
    /// Revoking it again changes nothing and lists what it still holds.
    pub async fn revoke_api_key(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        id: &str,
    ) -> Result<RevokedApiKey, Refusal> {
        let arrived = self.arrived();
        let org = self.org_id(caller, org).await?;
        let stored = self.api_key(org, id).await?.value;
        let record = caller
            .record(Action::ApiKeyRevoke, Some(org))
            .about("api_key", stored.id);
        let broker = Arc::clone(self);
        detached(async move { broker.end_api_key(stored, record, arrived).await }).await
    }

    async fn end_api_key(
        self: &Arc<Self>,
        mut key: Arc<ApiKey>,
        record: Record,
        arrived: Duration,
    ) -> Result<RevokedApiKey, Refusal> {
        let (org, id) = (key.org, key.id);
        if key.revoked.is_none() {
            key = Arc::new(ApiKey {
                revoked: Some(self.now()),
                previous: None,
                previous_certificate: None,
                ..ApiKey::clone(&key)
            });
            // Not guarded, as above: whatever was changed in between is of no use any more.
            let changes = Changes::default().put(&keys::api_key(org, id), &*key);
            self.effect(record, changes).await?;
            self.denied_from_now(*id.as_bytes(), &ended("the API key was revoked"), arrived);
            let gone = Ended::ApiKey(id);
            self.publish(Notice::ended(org, gone, Reason::CredentialUnknown, false));
        }
        let outstanding = self.end_leases(org, Holder::ApiKey(id)).await?;
        let key = self.listed_api_key(key).await?;
        Ok(RevokedApiKey { key, outstanding })
    }
}

//! Enrollment tokens and agents, as operators see them.

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::access::checked_ttl;
use super::effect::Undone;
use super::live::ended;
use super::page::{Page, PageRequest};
use super::scope::{Place, parse_id};
use crate::domain::actor::Caller;
use crate::domain::agent::Agent;
use crate::domain::credential::Credential;
use crate::domain::directory::Environment;
use crate::domain::enrollment::EnrollmentToken;
use crate::domain::id::{EnrollmentTokenId, EnvironmentId, LeaseId, OrgId, ProjectId, TaskId};
use crate::domain::journal::Action;
use crate::domain::lease::{Holder, Lease};
use crate::domain::mode::CredentialKind;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::secret::{ActorToken, Secret};
use crate::domain::task::{Task, TaskClaims};
use crate::domain::time::Time;
use crate::domain::token::{EnrollmentFamily, Token};
use crate::domain::watch::{Ended, Notice};
use crate::store::keys;
use crate::store::model::{Home, LeasePointer};
use crate::store::record::{Changes, Stored};

/// What is asked for when minting enrollment tokens.
#[derive(Clone, Copy, Debug)]
pub struct NewEnrollmentTokens<'a> {
    /// The org.
    pub org: &'a str,
    /// The project, for an environment given by name.
    pub project: &'a str,
    /// The environment.
    pub environment: &'a str,
    /// How many tokens; 0: 1.
    pub count: u32,
    /// How many agents each may enroll; 0: 1.
    pub max_agents: u32,
    /// How long they are good for.
    pub ttl: Option<Duration>,
    /// A task their agents are assigned to; empty: none.
    pub task: &'a str,
    /// Labels their agents get.
    pub labels: &'a [(String, String)],
}

/// A new enrollment token, with its secret.
pub struct MintedEnrollmentToken {
    /// What lists show of it.
    pub enrollment_token: EnrollmentToken,
    /// The token, to be shown once.
    pub token: Secret<ActorToken>,
}

/// Material that an ended agent was handed and may still use at the provider.
#[derive(Clone, Debug)]
pub struct OutstandingLease {
    /// The lease.
    pub lease: LeaseId,
    /// The credential behind it, as it stands now.
    pub credential: Arc<Credential>,
}

/// An agent that was revoked, and what it still holds.
#[derive(Clone, Debug)]
pub struct RevokedAgent {
    /// The agent.
    pub agent: Arc<Agent>,
    /// What it may still use at the providers.
    pub outstanding: Vec<OutstandingLease>,
}

const TOKEN_TTL: Duration = Duration::from_secs(3_600);
const TOKEN_TTL_MAX: Duration = Duration::from_secs(30 * 86_400);
const MAX_TOKENS: u32 = 100;
const MAX_POOL: u32 = 1_000;
/// How many enrollment tokens one commit stores: two records each, within the store's limit.
const TOKENS_PER_COMMIT: usize = 25;
const MAX_PAIRS: usize = 16;
const MAX_PAIR_CHARS: usize = 256;
/// An agent's record has labels and attributes, and has to fit in one value of the store.
const MAX_PAIRS_BYTES: usize = 1_536;
/// How many leases a revocation ends in one commit.
const LEASES_PER_COMMIT: usize = 50;
/// How often the revocation of an enrollment token is tried again when agents enroll at the same moment.
const ATTEMPTS: usize = 64;

/// Labels or attributes within bounds, sorted by key.
pub(super) fn checked_pairs(
    field: &'static str,
    pairs: &[(String, String)],
) -> Result<Vec<(String, String)>, Refusal> {
    let fits = |text: &str| text.chars().count() <= MAX_PAIR_CHARS && !text.chars().any(char::is_control);
    let ok = pairs
        .iter()
        .all(|(key, value)| !key.is_empty() && fits(key) && fits(value));
    let bytes: usize = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
    if pairs.len() > MAX_PAIRS || !ok || bytes > MAX_PAIRS_BYTES {
        return Err(Refusal::invalid(
            field,
            format!(
                "{field}: at most 16 pairs of at most 256 characters, 1 536 bytes in all, none of them control characters"
            ),
        ));
    }
    let mut pairs = pairs.to_vec();
    pairs.sort();
    Ok(pairs)
}

impl Broker {
    /// Mints enrollment tokens.
    pub async fn create_enrollment_tokens(
        self: &Arc<Self>,
        caller: &Caller,
        new: NewEnrollmentTokens<'_>,
    ) -> Result<Vec<MintedEnrollmentToken>, Refusal> {
        let place = self.place(caller, new.org).await?;
        let org = place.id();
        let environment = self.environment(org, new.project, new.environment).await?;
        place.admit("environment", Some(environment.value.project), None)?;
        let environment = environment.value.id;
        let task = match new.task {
            "" => None,
            text => Some(self.runnable_task(org, parse_id("task", text)?).await?),
        };
        let (count, max_agents) = (new.count.max(1), new.max_agents.max(1));
        if count > MAX_TOKENS {
            return Err(Refusal::invalid("count", "count is 1 to 100"));
        }
        if max_agents > MAX_POOL {
            return Err(Refusal::invalid("max_agents", "max_agents is 1 to 1000"));
        }
        let ttl = checked_ttl(new.ttl, TOKEN_TTL, TOKEN_TTL_MAX)?;
        let labels = checked_pairs("labels", new.labels)?;
        let now = self.now();

        let mut minted = Vec::new();
        for _ in 0..count {
            let token = Token::<EnrollmentFamily>::new(self.new_id()?, self.random()?);
            let enrollment_token = EnrollmentToken {
                id: token.id(),
                org,
                environment,
                token: token.hash(),
                max_agents,
                bound: 0,
                task,
                labels: labels.clone(),
                created: now,
                expires: now + ttl,
                revoked: None,
            };
            minted.push(MintedEnrollmentToken {
                enrollment_token,
                token: token.reveal(),
            });
        }
        for some in minted.chunks(TOKENS_PER_COMMIT) {
            let mut changes = Changes::default();
            for MintedEnrollmentToken { enrollment_token, .. } in some {
                let key = keys::enrollment_token(org, enrollment_token.id);
                changes = changes.absent(&key);
                changes = changes.put(&key, enrollment_token);
                changes = changes.put(&keys::enrollment_token_home(enrollment_token.id), &Home { org });
            }
            let ids: Vec<_> = some
                .iter()
                .map(|minted| minted.enrollment_token.id.to_string())
                .collect();
            let record = caller
                .record(Action::EnrollmentTokenCreate, Some(org))
                .about("environment", environment)
                .about("enrollment_tokens", ids.join(","));
            self.effect(record, changes).await?;
        }
        Ok(minted)
    }

    /// A task of the org that has not ended.
    async fn runnable_task(&self, org: OrgId, id: TaskId) -> Result<TaskId, Refusal> {
        let task: Stored<Task> = self
            .records
            .get(&keys::task(org, id))
            .await?
            .ok_or_else(|| Refusal::not_found("task"))?;
        task.value.live(self.now(), TaskClaims::default())?;
        Ok(id)
    }

    /// The org's enrollment tokens.
    pub async fn list_enrollment_tokens(
        &self,
        caller: &Caller,
        org: &str,
        page: PageRequest<'_>,
    ) -> Result<Page<Stored<EnrollmentToken>>, Refusal> {
        let place = self.place(caller, org).await?;
        let list = keys::enrollment_tokens(place.id());
        let mut page = self.page::<EnrollmentToken>(&list, page).await?;
        let mut seen = Vec::with_capacity(page.rows.len());
        for row in page.rows {
            if self.reaches(&place, row.value.environment).await? {
                seen.push(row);
            }
        }
        page.rows = seen;
        Ok(page)
    }

    /// Revokes an enrollment token. Agents enrolled by it stay. Revoking it again changes nothing.
    pub async fn revoke_enrollment_token(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        id: &str,
    ) -> Result<Arc<EnrollmentToken>, Refusal> {
        let place = self.place(caller, org).await?;
        let org = place.id();
        let id: EnrollmentTokenId = parse_id("enrollment_token", id)?;
        let key = keys::enrollment_token(org, id);
        for _ in 0..ATTEMPTS {
            let stored: Stored<EnrollmentToken> = self
                .records
                .get(&key)
                .await?
                .ok_or_else(|| Refusal::not_found("enrollment token"))?;
            if !self.reaches(&place, stored.value.environment).await? {
                return Err(Refusal::not_found("enrollment token"));
            }
            if stored.value.revoked.is_some() {
                return Ok(stored.value);
            }
            let token = EnrollmentToken {
                revoked: Some(self.now()),
                ..EnrollmentToken::clone(&stored.value)
            };
            let mut changes = Changes::default();
            // Guarded, for the count of bound slots; every enrollment in between is one slot fewer to come.
            changes = changes.at(&key, stored.revision);
            changes = changes.put(&key, &token);
            let record = caller
                .record(Action::EnrollmentTokenRevoke, Some(org))
                .about("enrollment_token", id);
            match self.effect(record, changes).await {
                Ok(_) => return Ok(Arc::new(token)),
                Err(Undone::Conflict) => {}
                Err(Undone::Refused(refusal)) => return Err(refusal),
            }
        }
        Err(Undone::Conflict.into())
    }

    /// An agent.
    pub async fn get_agent(&self, caller: &Caller, org: &str, agent: &str) -> Result<Stored<Agent>, Refusal> {
        let place = self.place(caller, org).await?;
        let key = keys::agent(place.id(), parse_id("agent", agent)?);
        let missing = || Refusal::not_found("agent");
        let stored: Stored<Agent> = self.records.get(&key).await?.ok_or_else(missing)?;
        if !self.reaches(&place, stored.value.environment).await? {
            return Err(missing());
        }
        Ok(stored)
    }

    /// The org's agents.
    pub async fn list_agents(
        &self,
        caller: &Caller,
        org: &str,
        page: PageRequest<'_>,
    ) -> Result<Page<Stored<Agent>>, Refusal> {
        let place = self.place(caller, org).await?;
        let mut page = self.page::<Agent>(&keys::agents(place.id()), page).await?;
        let mut seen = Vec::with_capacity(page.rows.len());
        for row in page.rows {
            if self.reaches(&place, row.value.environment).await? {
                seen.push(row);
            }
        }
        page.rows = seen;
        Ok(page)
    }

    /// The project that an environment belongs to.
    pub(super) async fn project_of(
        &self,
        org: OrgId,
        environment: EnvironmentId,
    ) -> Result<Option<ProjectId>, Refusal> {
        let key = keys::environment(org, environment);
        let stored = self.records.get::<Environment>(&key).await?;
        Ok(stored.map(|stored| stored.value.project))
    }

    /// Whether the call reaches the project that an environment belongs to.
    pub(super) async fn reaches(&self, place: &Place, environment: EnvironmentId) -> Result<bool, Refusal> {
        if place.within.is_whole() {
            return Ok(true);
        }
        let project = self.project_of(place.id(), environment).await?;
        Ok(project.is_some_and(|project| place.within.admits(Some(project), None)))
    }

    /// Revokes an agent for good. When this returns, no later request of the agent succeeds; a resolution
    /// under way loses, because it commits its lease guarded by the agent's record and looks at the record
    /// once more before it answers. Revoking it again changes nothing and lists what it still holds.
    pub async fn revoke_agent(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        agent: &str,
    ) -> Result<RevokedAgent, Refusal> {
        let stored = self.get_agent(caller, org, agent).await?;
        let (org, id) = (stored.value.org, stored.value.id);
        let mut revoked = Arc::clone(&stored.value);
        if stored.value.revoked.is_none() {
            let agent = Agent {
                revoked: Some(self.now()),
                ..Agent::clone(&stored.value)
            };
            // Not guarded: an agent that keeps changing its own record could hold a guarded revocation off
            // for as long as it likes. What it changed in between is of no use to it any more.
            let mut changes = Changes::default();
            changes = changes.put(&keys::agent(org, id), &agent);
            let record = caller.record(Action::AgentRevoke, Some(org)).about("agent", id);
            self.effect(record, changes).await?;
            revoked = Arc::new(agent);
            // It is revoked: that its project cannot be read must not keep anybody from being told.
            let project = self
                .project_of(org, stored.value.environment)
                .await
                .unwrap_or(None);
            let ended = Ended::Agent(id, project);
            self.publish(Notice::ended(org, ended, Reason::CredentialUnknown, false));
        }
        self.streams.end(*id.as_bytes(), &ended("the agent was revoked"));
        let outstanding = self.end_leases(org, Holder::Agent(id)).await?;
        Ok(RevokedAgent {
            agent: revoked,
            outstanding,
        })
    }

    /// Ends every lease of a holder that can take no new ones, and lists what stays valid at the providers.
    async fn end_leases(&self, org: OrgId, holder: Holder) -> Result<Vec<OutstandingLease>, Refusal> {
        let now = self.now();
        let (mut outstanding, mut after) = (Vec::new(), None);
        loop {
            let rows = self
                .records
                .scan::<LeasePointer>(
                    keys::leases_for(org, holder).as_bytes(),
                    after.as_ref(),
                    LEASES_PER_COMMIT,
                )
                .await?;
            let mut changes = Changes::default();
            for (_, pointer) in &rows {
                let key = keys::lease(org, pointer.value.lease);
                let Some(lease) = self.records.get::<Lease>(&key).await? else {
                    continue;
                };
                if lease.value.ended.is_none() {
                    changes = changes.put(
                        &key,
                        &Lease {
                            ended: Some(now),
                            ..Lease::clone(&lease.value)
                        },
                    );
                }
                outstanding.extend(self.still_valid(&lease.value, now).await?);
            }
            if !rows.is_empty() {
                let _applied = self.records.commit(changes).await?;
            }
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => return Ok(outstanding),
            }
        }
    }

    async fn still_valid(&self, lease: &Lease, now: Time) -> Result<Option<OutstandingLease>, Refusal> {
        let key = keys::credential(lease.org, lease.credential);
        let credential = self.records.get::<Credential>(&key).await?;
        Ok(credential.and_then(|credential| {
            let valid = credential.value.kind != CredentialKind::OAuthGrant
                || credential.value.works_for(now, Duration::ZERO);
            valid.then_some(OutstandingLease {
                lease: lease.id,
                credential: credential.value,
            })
        }))
    }
}

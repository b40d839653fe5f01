//! Enrollment tokens, as operators and automation see them: minted, listed with their slots, revoked, with or
//! without the agents that came by them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};

use super::Broker;
use super::access::checked_ttl;
use super::agents::{AgentState, checked_pairs};
use super::effect::Undone;
use super::outstanding::Outstanding;
use super::page::{Page, PageRequest};
use super::presence::Present;
use super::scope::parse_id;
use crate::domain::actor::Caller;
use crate::domain::agent::{Agent, KeyFingerprint};
use crate::domain::enrollment::EnrollmentToken;
use crate::domain::id::{AgentId, EnrollmentTokenId, OrgId, ProjectId, TaskId};
use crate::domain::journal::Action;
use crate::domain::network::Network;
use crate::domain::refusal::Refusal;
use crate::domain::secret::{ActorToken, Secret};
use crate::domain::task::{Task, TaskClaims};
use crate::domain::token::{EnrollmentFamily, Token};
use crate::store::keys::{self, Key};
use crate::store::model::{Home, Seen, Slot};
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
    /// The networks they may be presented from; empty: from anywhere.
    pub allowed_networks: &'a [String],
}

/// A new enrollment token, with its secret.
pub struct MintedEnrollmentToken {
    /// What lists show of it.
    pub enrollment_token: EnrollmentToken,
    /// The token, to be shown once.
    pub token: Secret<ActorToken>,
}

/// A bound slot of an enrollment token.
#[derive(Clone, Debug)]
pub struct BoundTo {
    /// The key it is bound to.
    pub key: KeyFingerprint,
    /// The agent's id.
    pub id: AgentId,
    /// The agent; `None` where it has been collected.
    pub agent: Option<Arc<Agent>>,
    /// What the agent is doing.
    pub state: Option<AgentState>,
    /// When the agent was last seen.
    pub seen: Option<Seen>,
}

/// How an enrollment token is revoked.
#[derive(Clone, Copy, Debug, Default)]
pub struct RevokeToken {
    /// The agents that came by it go too.
    pub cascade: bool,
    /// Nothing is changed: it is only said what would be.
    pub validate_only: bool,
}

/// An enrollment token that was revoked, and who went with it.
#[derive(Clone, Debug)]
pub struct RevokedToken {
    /// The token as it stands now.
    pub token: Arc<EnrollmentToken>,
    /// The agents that went, or would go.
    pub agents: Vec<BoundTo>,
    /// What they may still use at the providers.
    pub outstanding: Outstanding,
}

const TOKEN_TTL: Duration = Duration::from_secs(3_600);
const TOKEN_TTL_MAX: Duration = Duration::from_secs(30 * 86_400);
const MAX_TOKENS: u32 = 100;
const MAX_POOL: u32 = 1_000;
/// How many enrollment tokens one commit stores: two records each, within the store's limit.
const TOKENS_PER_COMMIT: usize = 25;
/// How often the revocation of an enrollment token is tried again when agents enroll at the same moment.
const ATTEMPTS: usize = 64;

const MAX_NETWORKS: usize = 16;
/// How many agents are revoked at once in a cascade.
const REVOKED_AT_ONCE: usize = 16;

fn checked_networks(networks: &[String]) -> Result<Option<Vec<Network>>, Refusal> {
    if networks.len() > MAX_NETWORKS {
        return Err(Refusal::invalid("allowed_networks", "at most 16 networks"));
    }
    let parse = |text: &String| {
        let parsed: Result<Network, _> = text.parse();
        parsed.map_err(|malformed| Refusal::invalid("allowed_networks", malformed.to_string()))
    };
    let networks: Vec<_> = networks.iter().map(parse).collect::<Result<_, _>>()?;
    Ok((!networks.is_empty()).then_some(networks))
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
        let (environment, project) = (environment.value.id, environment.value.project);
        let task = match new.task {
            "" => None,
            text => Some(self.runnable_task(org, project, parse_id("task", text)?).await?),
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
        let networks = checked_networks(new.allowed_networks)?;
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
                networks: networks.clone(),
                spent: None,
            };
            minted.push(MintedEnrollmentToken {
                enrollment_token,
                token: token.reveal(),
            });
        }
        for some in minted.chunks(TOKENS_PER_COMMIT) {
            let (maker, revision) = self.still_live(caller).await?;
            let mut changes = Changes::default().at(&maker, revision);
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

    /// A task of the project that has not ended: no token leads from one project into another.
    async fn runnable_task(&self, org: OrgId, project: ProjectId, id: TaskId) -> Result<TaskId, Refusal> {
        let task: Stored<Task> = self
            .records
            .get(&keys::task(org, id))
            .await?
            .filter(|task: &Stored<Task>| task.value.project == project)
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

    /// An enrollment token that the caller may see.
    async fn token_of(
        &self,
        caller: &Caller,
        org: &str,
        id: &str,
    ) -> Result<Stored<EnrollmentToken>, Refusal> {
        let place = self.place(caller, org).await?;
        let id: EnrollmentTokenId = parse_id("enrollment_token", id)?;
        let missing = || Refusal::not_found("enrollment token");
        let stored: Stored<EnrollmentToken> = self
            .records
            .get(&keys::enrollment_token(place.id(), id))
            .await?
            .ok_or_else(missing)?;
        if !self.reaches(&place, stored.value.environment).await? {
            return Err(missing());
        }
        Ok(stored)
    }

    /// An enrollment token.
    pub async fn get_enrollment_token(
        &self,
        caller: &Caller,
        org: &str,
        id: &str,
    ) -> Result<Arc<EnrollmentToken>, Refusal> {
        Ok(self.token_of(caller, org, id).await?.value)
    }

    /// The bound slots of an enrollment token.
    pub async fn list_enrollment_token_slots(
        &self,
        caller: &Caller,
        org: &str,
        id: &str,
        page: PageRequest<'_>,
    ) -> Result<Page<BoundTo>, Refusal> {
        let token = self.token_of(caller, org, id).await?.value;
        let list = keys::slots(token.org, token.id);
        let Page { rows, next } = self.page_with_keys::<Slot>(&list, page).await?;
        let mut slots = Vec::with_capacity(rows.len());
        for (key, slot) in rows {
            slots.push(self.bound_to(token.org, &key, &slot.value).await?);
        }
        Ok(Page { rows: slots, next })
    }

    async fn bound_to(&self, org: OrgId, key: &Key, slot: &Slot) -> Result<BoundTo, Refusal> {
        let agent = self.records.get::<Agent>(&keys::agent(org, slot.agent)).await?;
        Ok(BoundTo {
            key: keys::slot_key(key).unwrap_or(KeyFingerprint([0; 32])),
            id: slot.agent,
            state: agent.as_ref().map(|agent| self.agent_state(&agent.value)),
            agent: agent.map(|agent| agent.value),
            seen: self.last(Present::Agent(org, slot.agent)).await?,
        })
    }

    /// Revokes an enrollment token. Agents enrolled by it stay, unless `how` says otherwise. Revoking it again
    /// changes nothing, and with `cascade` goes on where it was broken off.
    pub async fn revoke_enrollment_token(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        id: &str,
        how: RevokeToken,
    ) -> Result<RevokedToken, Refusal> {
        let mut token = self.token_of(caller, org, id).await?.value;
        if !how.validate_only {
            token = self.end_token(caller, org, id).await?;
        }
        let mut revoked = RevokedToken {
            agents: Vec::new(),
            outstanding: Outstanding::default(),
            token,
        };
        if how.cascade {
            // The token enrolls nobody any more by now, so that this is everybody.
            revoked.agents = self.enrolled_by(&revoked.token).await?;
            if !how.validate_only {
                revoked.outstanding = self.revoke_all(caller, &revoked.agents).await?;
            }
        }
        Ok(revoked)
    }

    /// The agents of the token's slots that have not ended: at most as many as a token may enroll.
    async fn enrolled_by(&self, token: &EnrollmentToken) -> Result<Vec<BoundTo>, Refusal> {
        let list = keys::slots(token.org, token.id);
        let mut enrolled = Vec::new();
        let mut after = None;
        loop {
            let rows = self
                .records
                .scan::<Slot>(list.as_bytes(), after.as_ref(), 100)
                .await?;
            for (key, slot) in &rows {
                let bound = self.bound_to(token.org, key, &slot.value).await?;
                if bound.agent.as_ref().is_some_and(|agent| agent.ended().is_none()) {
                    enrolled.push(bound);
                }
            }
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => return Ok(enrolled),
            }
        }
    }

    async fn revoke_all(
        self: &Arc<Self>,
        caller: &Caller,
        agents: &[BoundTo],
    ) -> Result<Outstanding, Refusal> {
        let mut outstanding = Outstanding::default();
        let agents: Vec<_> = agents.iter().filter_map(|bound| bound.agent.clone()).collect();
        let mut revoking = stream::iter(agents)
            .map(|agent| {
                let (broker, caller) = (Arc::clone(self), caller.clone());
                async move {
                    let (org, id) = (agent.org.to_string(), agent.id.to_string());
                    broker.revoke_agent(&caller, &org, &id, false).await
                }
            })
            .buffer_unordered(REVOKED_AT_ONCE);
        while let Some(revoked) = revoking.next().await {
            outstanding.join(revoked?.outstanding);
        }
        Ok(outstanding)
    }

    async fn end_token(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        id: &str,
    ) -> Result<Arc<EnrollmentToken>, Refusal> {
        for _ in 0..ATTEMPTS {
            let stored = self.token_of(caller, org, id).await?;
            if stored.value.revoked.is_some() {
                return Ok(stored.value);
            }
            let token = EnrollmentToken {
                revoked: Some(self.now()),
                ..EnrollmentToken::clone(&stored.value)
            };
            let key = keys::enrollment_token(token.org, token.id);
            // Guarded, for the count of bound slots; every enrollment in between is one slot fewer to come.
            let changes = Changes::default().at(&key, stored.revision).put(&key, &token);
            let record = caller
                .record(Action::EnrollmentTokenRevoke, Some(token.org))
                .about("enrollment_token", token.id);
            match self.effect(record, changes).await {
                Ok(_) => return Ok(Arc::new(token)),
                Err(Undone::Conflict) => {}
                Err(Undone::Refused(refusal)) => return Err(refusal),
            }
        }
        Err(Undone::Conflict.into())
    }
}

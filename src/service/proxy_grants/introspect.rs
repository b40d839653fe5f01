//! Introspection of proxy grants: a model proxy asks whether a grant may be used now, and with which key
//! (after RFC 7662).
//!
//! Every answer is of the state at that moment: the lease, its holder, member, task and org, the org's account and the
//! access matrix are looked at, in memory, with no scan and no write. That a grant is good is not journaled: the lease was. A grant that is
//! not is recorded as other refusals are, the first few of a kind one by one, later ones counted.
//!
//! Who asks sees only grants of orgs it reaches; any other looks like a forged one. Only the platform's model proxy is
//! told why a grant is not good.

use std::sync::Arc;

use crate::domain::actor::{Actor, AgentActor, Caller};
use crate::domain::agent::Agent;
use crate::domain::approval::{Approval, Posture};
use crate::domain::directory::{ApiKey, Environment, Operator};
use crate::domain::grant_token::{GrantClaims, GrantError};
use crate::domain::id::{EnvironmentId, ProjectId};
use crate::domain::journal::Action;
use crate::domain::lease::{Holder, Lease};
use crate::domain::managed::Pool;
use crate::domain::mode::AuthMode;
use crate::domain::reason::{Fault, Reason};
use crate::domain::refusal::Refusal;
use crate::domain::role::{Role, Standing};
use crate::domain::secret::{ActorToken, Exposure, Secret};
use crate::domain::task::{Task, TaskClaims};
use crate::domain::time::Time;
use crate::service::Broker;
use crate::service::live::ended;
use crate::service::managed_keys::ManagedSecret;
use crate::service::resolve::checked_model;
use crate::store::keys;

/// What a grant is good for.
pub struct ActiveGrant {
    /// The lease that it is for.
    pub lease: Arc<Lease>,
    /// The project it works in.
    pub project: Option<ProjectId>,
    /// The model that was judged; empty where none was named.
    pub model: String,
    /// When the grant expires.
    pub expires: Time,
    /// The key to call the provider with, for those who get it.
    pub key: Option<Arc<ManagedSecret>>,
}

/// Whether a grant is good now.
pub enum Introspection {
    /// It is.
    Active(Box<ActiveGrant>),
    /// It is not; why, for those who are told.
    Inactive(Option<Reason>),
}

/// What was found of a grant, as far as it is known.
struct Found {
    claims: GrantClaims,
    lease: Option<Arc<Lease>>,
}

impl Broker {
    /// Whether this is a grant that may be used now, and what for. `model` is the one that the call is for; empty: the
    /// one that the lease was made for.
    pub async fn introspect_grant(
        &self,
        caller: &Caller,
        token: &Secret<ActorToken>,
        model: &str,
    ) -> Result<Introspection, Refusal> {
        checked_model(model)?;
        let mut found = None;
        match self.active_grant(caller, token, model, &mut found).await {
            Ok(active) => Ok(Introspection::Active(Box::new(active))),
            // What could not be found out says nothing of the grant.
            Err(refusal) if refusal.reason.fault() == Fault::Broker => Err(refusal),
            Err(refusal) => {
                let mut record = caller.record(Action::GrantIntrospect, caller.org());
                if let Some(Found { claims, lease }) = found {
                    record.org = Some(claims.org);
                    record = record.about("lease", claims.lease);
                    if let Some(lease) = lease {
                        record = record.about("holder", lease.holder);
                    }
                }
                let told = self.denied(record, refusal).await;
                let all = caller.reach().is_everywhere();
                Ok(Introspection::Inactive(all.then_some(told.reason)))
            }
        }
    }

    async fn active_grant(
        &self,
        caller: &Caller,
        token: &Secret<ActorToken>,
        model: &str,
        found: &mut Option<Found>,
    ) -> Result<ActiveGrant, Refusal> {
        let text = token.expose_str(Exposure::Inspect).unwrap_or_default();
        let claims = GrantClaims::read(&self.grant_key, text).map_err(invalid)?;
        let Standing::Within(within) = caller.reach().within(claims.org, caller.member_of(claims.org)) else {
            return Err(invalid(GrantError::Forged));
        };
        let stored = self
            .records
            .get::<Lease>(&keys::lease(claims.org, claims.lease))
            .await?;
        let lease = stored.map(|stored| stored.value);
        let task = match lease.as_ref().and_then(|lease| lease.task) {
            Some(task) => self.records.get::<Task>(&keys::task(claims.org, task)).await?,
            None => None,
        };
        let task = task.map(|stored| stored.value);
        let own = lease.as_ref().and_then(|lease| lease.project);
        let project = own.or(task.as_ref().map(|task| task.project));
        if !within.is_whole() && !within.admits(project, None) {
            return Err(invalid(GrantError::Forged));
        }
        *found = Some(Found {
            claims,
            lease: lease.clone(),
        });
        let now = self.now();
        if now >= claims.expires {
            return Err(Refusal::new(Reason::GrantExpired, "the grant's time is over"));
        }
        let lease = lease.filter(|lease| lease.stands(now)).ok_or_else(lease_ended)?;
        self.holder_stands(&lease, now).await?;
        self.standing_member(claims.org, lease.member).await?;
        match task {
            Some(task) => {
                task.live(now, TaskClaims::default())?;
            }
            None if lease.task.is_some() => return Err(Refusal::not_found("task")),
            None => {}
        }
        let model = if model.is_empty() { &lease.model } else { model };
        self.permitted(&lease, project, model)?;
        self.entitled(&lease).await?;
        Ok(ActiveGrant {
            model: model.to_owned(),
            key: self.key_for(caller, &lease).await?,
            lease,
            project,
            expires: claims.expires,
        })
    }

    /// Refuses where the holder was revoked, has ended, or is locked, its environment and org too; and where the
    /// environment demands an approval, and the lease's is over.
    async fn holder_stands(&self, lease: &Lease, now: Time) -> Result<(), Refusal> {
        let org = lease.org;
        let gone = || ended("the holder of the lease is no more");
        match lease.holder {
            Holder::Agent(id) => {
                let agent = self
                    .records
                    .get::<Agent>(&keys::agent(org, id))
                    .await?
                    .ok_or_else(gone)?;
                agent.value.standing()?;
                let environment = agent.value.environment;
                self.unlocked_actor(&Actor::Agent(AgentActor { id, org, environment }))?;
                self.approval_holds(lease, environment, now).await
            }
            Holder::ApiKey(id) => {
                let key = self
                    .records
                    .get::<ApiKey>(&keys::api_key(org, id))
                    .await?
                    .ok_or_else(gone)?;
                if key.value.revoked.is_some() || now >= key.value.expires {
                    return Err(gone());
                }
                self.unlocked_actor(&Actor::ApiKey { id, org })
            }
            Holder::Operator(id) => {
                let operator = self.records.get::<Operator>(&keys::operator(id)).await?;
                // What an operator resolves is at the scope of the system.
                if !operator.ok_or_else(gone)?.value.is_system_admin(now) {
                    return Err(gone());
                }
                self.unlocked(&[*org.as_bytes()])
            }
        }
    }

    /// Refuses where the environment demands an approval, and the lease has none or that one is over or taken back.
    async fn approval_holds(
        &self,
        lease: &Lease,
        environment: EnvironmentId,
        now: Time,
    ) -> Result<(), Refusal> {
        let key = keys::environment(lease.org, environment);
        let environment = self.records.get::<Environment>(&key).await?;
        let posture = environment.map_or(Posture::Required, |stored| stored.value.posture());
        if posture == Posture::None {
            return Ok(());
        }
        let approval = match lease.approval {
            Some(id) => {
                self.records
                    .get::<Approval>(&keys::approval(lease.org, id))
                    .await?
            }
            None => None,
        };
        if approval.is_some_and(|stored| stored.value.holds(now)) {
            return Ok(());
        }
        let message = "the environment demands an approval, and the lease has none that holds";
        Err(Refusal::new(Reason::ApprovalRequired, message))
    }

    /// Refuses what a scope of the access matrix denies by now. At the scope of the system it does not bind.
    pub(in crate::service) fn permitted(
        &self,
        lease: &Lease,
        project: Option<ProjectId>,
        model: &str,
    ) -> Result<(), Refusal> {
        if matches!(lease.holder, Holder::Operator(_)) {
            return Ok(());
        }
        let policy = self.policy();
        let cascade = match project {
            Some(project) => policy.cascade(lease.org, project),
            None => policy.above_projects(lease.org),
        };
        let judged = self.registry.judge(cascade, &lease.provider, model);
        if judged.permits().contains(lease.mode) {
            return Ok(());
        }
        let message = format!("the access matrix denies {} for this model", lease.mode.name());
        Err(Refusal::new(Reason::AccessDenied, message))
    }

    /// Refuses metered use to an org that is not entitled to it, or has no credit.
    pub(in crate::service) async fn entitled(&self, lease: &Lease) -> Result<(), Refusal> {
        if lease.mode != AuthMode::Metered {
            return Ok(());
        }
        let standing = self.account(lease.org).await?;
        let may = standing.account.metered(self.settings().metered_allow_all);
        may.map_err(|reason| Refusal::new(reason, "the org may not use metered keys now"))
    }

    /// The key to call the provider with. The platform's model proxy gets it; where there is none, the grant is of no
    /// use to it. A model proxy of an org's own gets it where control-plane services do.
    async fn key_for(&self, caller: &Caller, lease: &Lease) -> Result<Option<Arc<ManagedSecret>>, Refusal> {
        let Some(pool) = Pool::of(lease.mode) else {
            return Ok(None);
        };
        let may = match caller.actor() {
            Actor::ApiKey { .. } => self.settings().proxy.raw_to_control_plane,
            // System admins may make every call; that gives them no key.
            _ => {
                let held = self.grants_of(caller).await?;
                held.iter().any(|grant| grant.role == Role::ModelProxy)
            }
        };
        if !may {
            return Ok(None);
        }
        let key = self.managed_key(pool, &lease.provider).await?;
        key.map(Some)
            .ok_or_else(|| self.no_managed_key(pool, &lease.provider))
    }

    /// Why a task is not served in a pool that has no key for the provider.
    pub(in crate::service) fn no_managed_key(&self, pool: Pool, provider: &str) -> Refusal {
        let reason = match pool {
            Pool::Metered => Reason::MeteredKeyUnavailable,
            Pool::Shared => Reason::SharedKeyUnavailable,
        };
        let message = format!("the platform has no {} key for {provider}", pool.name());
        Refusal::new(reason, message).with("provider", provider)
    }
}

fn invalid(error: GrantError) -> Refusal {
    Refusal::new(Reason::GrantInvalid, error.to_string())
}

fn lease_ended() -> Refusal {
    Refusal::new(
        Reason::LeaseEnded,
        "the lease was released, revoked or has expired",
    )
}

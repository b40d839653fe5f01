//! Whether an entry of a permit can be used now: what is there of it, or what stands in the way.

use std::sync::Arc;

use super::Facts;
use crate::domain::billing::{Account, Subscription};
use crate::domain::conditions::{Chosen, Condition};
use crate::domain::credential::Credential;
use crate::domain::decision::{Candidate, Decision};
use crate::domain::id::{CredentialId, MemberId, OrgId};
use crate::domain::lease::Backing;
use crate::domain::managed::Pool;
use crate::domain::mode::{AuthMode, CredentialKind, PermitEntry};
use crate::domain::owner::Owner;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::rotation::Phase;
use crate::domain::task::Capacity;
use crate::domain::walk::Walk;
use crate::service::Broker;
use crate::service::managed_keys::ManagedSecret;
use crate::service::refresh::stopped;
use crate::store::keys;
use crate::upstream::base_url::checked_base_url;

/// What there is of an entry.
#[derive(Clone)]
pub(in crate::service) enum Source {
    /// A credential of the org's or a member's.
    Stored(Arc<Credential>),
    /// The platform's own key.
    Managed(Arc<ManagedSecret>),
    /// The session of the official program on the machine.
    HostSession,
    /// A model served on the machine, at this address.
    Local(String),
}

impl Source {
    /// What tells a lease of it from others.
    pub(super) fn backing<'a>(&self, entry: &'a PermitEntry) -> Backing<'a> {
        match self {
            Source::Stored(credential) => Backing::Credential(credential.id),
            _ => Backing::Mode(entry.mode, &entry.provider),
        }
    }

    /// The credential, where it is one of the org's or a member's.
    pub(in crate::service) fn credential(&self) -> Option<&Arc<Credential>> {
        match self {
            Source::Stored(credential) => Some(credential),
            _ => None,
        }
    }
}

/// What stands in the way of an entry, with more to say of it where there is more.
pub(in crate::service) struct Met {
    pub(in crate::service) condition: Condition,
    pub(in crate::service) refusal: Option<Refusal>,
}

impl From<Condition> for Met {
    fn from(condition: Condition) -> Self {
        Self {
            condition,
            refusal: None,
        }
    }
}

/// For whom and what an entry is looked at.
#[derive(Clone, Copy)]
pub(in crate::service) struct For<'a> {
    pub(in crate::service) org: OrgId,
    /// `None`: nobody's own is looked at, as at the scope of the system.
    pub(in crate::service) member: Option<MemberId>,
    pub(in crate::service) executor: &'a str,
    pub(in crate::service) capacity: Capacity,
    pub(in crate::service) facts: Facts<'a>,
    /// The credential that the task runs on.
    pub(in crate::service) in_use: Option<CredentialId>,
    /// The key that the profile names for byok.
    pub(in crate::service) named: Option<CredentialId>,
    /// Why the task does not run on the first way it might have.
    pub(in crate::service) because: Option<Reason>,
    /// Whether a shared dispatch of the caller has its place in the quota already.
    pub(in crate::service) dispatched: bool,
}

/// Looked at, or the store could not be read.
pub(in crate::service) type Looked = Result<Result<Source, Met>, Refusal>;

impl Broker {
    /// Looks at the entry that the walk is at. Asks nothing of a provider.
    pub(in crate::service) async fn look(
        &self,
        whom: For<'_>,
        walk: &Walk<'_>,
        decision: &mut Decision,
    ) -> Looked {
        let entry = walk.entry();
        match entry.mode {
            AuthMode::OAuth | AuthMode::Byok => self.look_at_own(whom, walk, decision).await,
            AuthMode::Metered => self.look_at_metered(whom.org, entry).await,
            AuthMode::Shared => self.look_at_shared(whom, walk.entry()).await,
            AuthMode::HostSession | AuthMode::Local if whom.capacity == Capacity::Cloud => {
                Ok(Err(Condition::WrongCapacity.into()))
            }
            AuthMode::HostSession => Ok(if whom.facts.host_session {
                Ok(Source::HostSession)
            } else {
                Err(Condition::Unconnected.into())
            }),
            AuthMode::Local => self.look_at_endpoint(whom.facts).await,
        }
    }

    async fn look_at_own(&self, whom: For<'_>, walk: &Walk<'_>, decision: &mut Decision) -> Looked {
        let lapsed = walk.heeds_subscription()
            && self.account(whom.org).await?.account.subscription == Subscription::Inactive;
        // A mode that was settled is not asked to be connected first, only to be refused afterwards.
        if lapsed && walk.chosen() == Chosen::Pinned {
            return Ok(Err(Condition::Lapsed.into()));
        }
        let found = match self.own(whom, walk, decision).await? {
            Ok(found) => found,
            Err(met) => return Ok(Err(met)),
        };
        if lapsed {
            return Ok(Err(Condition::Lapsed.into()));
        }
        // A locked credential is a stop, not a gap that another one fills.
        if let Err(refusal) = self.unlocked(&[*found.id.as_bytes()]) {
            return Ok(Err(Met {
                condition: Condition::Locked,
                refusal: Some(refusal),
            }));
        }
        let dead = found.kind == CredentialKind::OAuthGrant
            && matches!(
                found.rotation.phase,
                Phase::Dead { .. } | Phase::Quarantined { .. }
            );
        if dead {
            return Ok(Err(Met {
                condition: Condition::Rejected,
                refusal: Some(stopped(&found)),
            }));
        }
        Ok(Ok(Source::Stored(found)))
    }

    /// The credential of an entry: the one in use, the one that the profile names, the member's, the org's.
    async fn own(
        &self,
        whom: For<'_>,
        walk: &Walk<'_>,
        decision: &mut Decision,
    ) -> Result<Result<Arc<Credential>, Met>, Refusal> {
        let entry = walk.entry();
        let Some(kind) = entry.kind else {
            return Ok(Err(Condition::NoKey.into()));
        };
        let fits = |credential: &Credential| credential.kind == kind && credential.provider == entry.provider;
        if let Some(id) = whom.in_use
            && let Some(stored) = self
                .records
                .get::<Credential>(&keys::credential(whom.org, id))
                .await?
            && fits(&stored.value)
        {
            return Ok(Ok(stored.value));
        }
        if let Some(id) = whom.named
            && entry.mode == AuthMode::Byok
        {
            let stored = self
                .records
                .get::<Credential>(&keys::credential(whom.org, id))
                .await?;
            let usable = |credential: &Credential| match credential.owner {
                Owner::Org => true,
                Owner::Member(owner) => whom.member == Some(owner),
            };
            return Ok(match stored.map(|stored| stored.value) {
                // A key of another kind or provider leaves this entry to what there is otherwise.
                Some(credential) if !usable(&credential) => Err(Condition::NamedMissing.into()),
                Some(credential) if fits(&credential) => {
                    consider(decision, walk, credential.owner, Some(&credential), None);
                    Ok(credential)
                }
                Some(_) => Err(Condition::NoKey.into()),
                None => Err(Condition::NamedMissing.into()),
            });
        }
        let absent = match kind {
            CredentialKind::OAuthGrant => (Condition::Unconnected, Reason::ConnectAccount),
            _ => (Condition::NoKey, Reason::NoCredentialConfigured),
        };
        let owners = whom
            .member
            .map_or(vec![Owner::Org], |member| Owner::precedence(member).to_vec());
        for owner in owners {
            let found = self
                .held(whom.org, owner, &entry.provider, kind, whom.executor)
                .await?;
            let passed_over = found.is_none().then_some(absent.1);
            consider(decision, walk, owner, found.as_deref(), passed_over);
            if let Some(found) = found {
                return Ok(Ok(found));
            }
        }
        Ok(Err(absent.0.into()))
    }

    async fn look_at_metered(&self, org: OrgId, entry: &PermitEntry) -> Looked {
        let standing = self.account(org).await?;
        let account: &Account = &standing.account;
        let may = account.metered(self.settings().metered_allow_all);
        if may == Err(Reason::MeteredNotEntitled) {
            return Ok(Err(Condition::NotEntitled.into()));
        }
        let Some(key) = self.managed_key(Pool::Metered, &entry.provider).await? else {
            return Ok(Err(Condition::NoKey.into()));
        };
        Ok(match may {
            Ok(()) => Ok(Source::Managed(key)),
            Err(_) => Err(Condition::OverQuota.into()),
        })
    }

    async fn look_at_shared(&self, whom: For<'_>, entry: &PermitEntry) -> Looked {
        let Some(key) = self.managed_key(Pool::Shared, &entry.provider).await? else {
            return Ok(Err(Condition::NoKey.into()));
        };
        // What was dispatched has its place; that of a new dispatch is taken together with its lease.
        if !whom.dispatched {
            let limit = self.shared_limit(whom.org).await?;
            if let Err(refusal) = self.shared_is_free(whom.org, limit).await? {
                return Ok(Err(Met {
                    condition: Condition::OverQuota,
                    refusal: Some(refusal),
                }));
            }
        }
        Ok(Ok(Source::Managed(key)))
    }

    /// How many shared dispatches the org may have a UTC day.
    pub(super) async fn shared_limit(&self, org: OrgId) -> Result<u32, Refusal> {
        let standing = self.account(org).await?;
        Ok(standing.account.shared_limit(self.settings().shared_per_day))
    }

    async fn look_at_endpoint(&self, facts: Facts<'_>) -> Looked {
        let Some((base_url, said)) = facts.local_endpoint else {
            return Ok(Err(Met {
                condition: Condition::EndpointDown,
                refusal: Some(Refusal::new(
                    Reason::LocalEndpointUnreachable,
                    "the request does not tell of a local endpoint",
                )),
            }));
        };
        let base_url = checked_base_url(base_url).map_err(|fault| {
            Refusal::invalid("local_facts", format!("local_facts.local_endpoint: {fault}"))
        })?;
        // What the broker may look at itself it does not take the caller's word for.
        let reachable = self.prober.reachable(&base_url).await.unwrap_or(said);
        Ok(if reachable {
            Ok(Source::Local(base_url))
        } else {
            Err(Met {
                condition: Condition::EndpointDown,
                refusal: Some(
                    Refusal::new(
                        Reason::LocalEndpointUnreachable,
                        format!("nothing answers at {base_url}"),
                    )
                    .with("base_url", base_url),
                ),
            })
        })
    }
}

/// Notes a credential that was looked at, or that there was none.
fn consider(
    decision: &mut Decision,
    walk: &Walk<'_>,
    owner: Owner,
    credential: Option<&Credential>,
    passed_over: Option<Reason>,
) {
    decision.candidates.push(Candidate {
        credential: credential.map(|credential| credential.id),
        mode: walk.entry().mode,
        position: walk.position(),
        owner: Some(owner),
        passed_over,
    });
}

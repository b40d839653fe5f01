//! The way along a permit, driven: each entry is looked at, and the first that can be used is taken.

use std::sync::Arc;
use std::time::Duration;

use super::look::{For, Met, Source};
use super::plan::Plan;
use super::subject::Subject;
use crate::domain::actor::{Actor, Caller};
use crate::domain::conditions::{Condition, reason};
use crate::domain::credential::Credential;
use crate::domain::decision::{Candidate, Decision};
use crate::domain::gate::Permit;
use crate::domain::id::{CredentialId, OrgId};
use crate::domain::lease::Backing;
use crate::domain::mode::{AuthMode, CredentialKind, PermitEntry};
use crate::domain::owner::Owner;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::walk::{Step, Walk};
use crate::service::Broker;
use crate::service::refresh::Need;
use crate::store::keys;
use crate::store::model::{CredentialSecret, Pointer};

/// An entry of a permit that can be used, and what there is of it.
pub(super) struct Choice {
    pub(super) position: usize,
    pub(super) source: Source,
    /// The secret of a stored credential, of the same generation; none where nothing is to be handed out.
    pub(super) secret: Option<Arc<CredentialSecret>>,
    /// Why it is not the first way the task might have been served.
    pub(super) because: Option<Reason>,
}

/// What a walk is for.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    /// Something is to be handed out that works this long.
    HandOut(Duration),
    /// It is only to be told what would be.
    Explain,
}

impl Broker {
    /// Goes along the permit to the first entry that can be used.
    pub(super) async fn obtain(
        self: &Arc<Self>,
        caller: &Caller,
        subject: &Subject,
        whom: For<'_>,
        (permit, mut walk): (&Permit, Walk<'_>),
        purpose: Purpose,
        decision: &mut Decision,
    ) -> Result<Choice, Refusal> {
        loop {
            decision.position = walk.position();
            let dispatched = self.has_dispatched(caller, subject, walk.entry()).await?;
            let whom = For { dispatched, ..whom };
            let met = match self.look(whom, &walk, decision).await? {
                Ok(source) => {
                    let entry = walk.entry();
                    // Before the lease: what cannot be handed out is no dispatch.
                    if let Source::Managed(_) = source {
                        self.has_proxy_for(Some(caller.actor()), &entry.provider)?;
                    }
                    decision.fallback = walk.because().or(whom.because);
                    decision.chosen = source.credential().map(|found| (found.id, found.owner));
                    self.check_cleared(caller, subject, entry, source.backing(entry))
                        .await?;
                    let taken = match self.check_place(caller, subject, &source, entry).await? {
                        Ok(()) => self.take_source(source, purpose).await,
                        Err(refusal) => Err(refusal),
                    };
                    match taken {
                        Ok((source, secret)) => {
                            return Ok(Choice {
                                position: walk.position(),
                                source,
                                secret,
                                because: decision.fallback,
                            });
                        }
                        Err(refusal) => match stood_in_the_way(&refusal) {
                            Some(condition) => Met {
                                condition,
                                refusal: Some(refusal),
                            },
                            None => return Err(refusal),
                        },
                    }
                }
                Err(met) => met,
            };
            decision.chosen = None;
            passed_over(decision, walk.entry(), walk.position(), met.condition);
            let (at, entry) = (walk.position(), walk.entry());
            match walk.met(met.condition) {
                Step::Try(_) => {}
                Step::Refuse(reason) => {
                    decision.position = at;
                    decision.fallback = walk.because();
                    return Err(match met.refusal {
                        Some(refusal) if refusal.reason == reason => refusal,
                        _ => nothing(reason, subject, permit, at, met.condition),
                    }
                    .with("mode", entry.mode.name()));
                }
            }
        }
    }

    /// Whether a shared dispatch of this caller has its place in the quota already.
    async fn has_dispatched(
        &self,
        caller: &Caller,
        subject: &Subject,
        entry: &PermitEntry,
    ) -> Result<bool, Refusal> {
        let holds = matches!(caller.actor(), Actor::Agent(_) | Actor::ApiKey { .. });
        if entry.mode != AuthMode::Shared || subject.task.is_none() || !holds {
            return Ok(false);
        }
        let backing = Backing::Mode(entry.mode, &entry.provider);
        Ok(self.filed(caller, subject, backing).await?.pointer.is_some())
    }

    /// Takes what was found: a stored credential with its secret, fresh enough.
    async fn take_source(
        self: &Arc<Self>,
        source: Source,
        purpose: Purpose,
    ) -> Result<(Source, Option<Arc<CredentialSecret>>), Refusal> {
        let (Source::Stored(credential), Purpose::HandOut(remaining)) = (&source, purpose) else {
            return Ok((source, None));
        };
        let need = Need {
            remaining,
            newer_than: None,
        };
        let fresh = self.refresher.fresh(credential.org, credential.id, need).await?;
        Ok((Source::Stored(fresh.credential), Some(fresh.secret)))
    }

    /// What an owner has of this kind for the provider: the key for this executor before the one for all.
    pub(in crate::service) async fn held(
        &self,
        org: OrgId,
        owner: Owner,
        provider: &str,
        kind: CredentialKind,
        executor: &str,
    ) -> Result<Option<Arc<Credential>>, Refusal> {
        let slot = |executor| keys::credential_slot(org, owner, provider, kind, executor);
        let mut pointer = None;
        // Grants are for every executor.
        if kind.is_key() {
            pointer = self.records.get::<Pointer>(&slot(Some(executor))).await?;
        }
        if pointer.is_none() {
            pointer = self.records.get::<Pointer>(&slot(None)).await?;
        }
        let Some(pointer) = pointer else {
            return Ok(None);
        };
        let id = CredentialId::from_bytes(*pointer.value.id);
        let credential = self.records.get::<Credential>(&keys::credential(org, id)).await?;
        Ok(credential.map(|credential| credential.value))
    }
}

/// What the refusal of something that is there says of its entry; `None`: nothing.
fn stood_in_the_way(refusal: &Refusal) -> Option<Condition> {
    match refusal.reason {
        Reason::ReauthRequired => Some(Condition::Rejected),
        Reason::ParallelismLimit => Some(Condition::AtLimit),
        _ => None,
    }
}

/// Notes that what was chosen found no place when it was to be handed out.
pub(super) fn lost(decision: &mut Decision, permit: &Permit, choice: &Choice, refusal: Refusal) -> Refusal {
    let entry = &permit.entries()[choice.position];
    decision.chosen = None;
    passed_over(decision, entry, choice.position, Condition::AtLimit);
    refusal.with("mode", entry.mode.name())
}

/// Notes why an entry was passed over.
fn passed_over(decision: &mut Decision, entry: &PermitEntry, position: usize, condition: Condition) {
    let mode = entry.mode;
    let why = reason(mode, condition);
    match decision.candidates.last_mut() {
        Some(last) if last.position == position => last.passed_over = last.passed_over.or(why),
        _ => decision.candidates.push(Candidate {
            credential: None,
            mode,
            position,
            owner: None,
            passed_over: why,
        }),
    }
}

/// Why nothing is handed out, in words.
fn nothing(reason: Reason, subject: &Subject, permit: &Permit, at: usize, condition: Condition) -> Refusal {
    let entry = &permit.entries()[at];
    let (executor, provider) = (&subject.executor, &entry.provider);
    let message = match reason {
        Reason::NoCredentialConfigured => {
            format!("nothing is configured for {executor} with provider {provider}")
        }
        _ => format!(
            "{} with {provider} cannot be used: {}",
            entry.mode.name(),
            condition.what()
        ),
    };
    Refusal::new(reason, message)
        .with("executor", executor)
        .with("provider", provider)
}

impl Plan {
    /// What is kept of it for the task that starts on it.
    pub(super) fn runs(&self, permit: &Permit, choice: &Choice) -> crate::store::model::Runs {
        let entry = &permit.entries()[choice.position];
        crate::store::model::Runs {
            mode: entry.mode,
            provider: entry.provider.clone(),
            modes: self.modes.with(entry.mode),
            on_rejection: self.on_rejection,
            named: self.named,
            kind: entry.kind,
            because: choice.because.map(|reason| reason.code().to_owned()),
        }
    }
}

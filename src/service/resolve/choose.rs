//! Which of the ways that the permit has is taken: the pinned one, or the first with a credential.

use std::sync::Arc;

use super::ResolveInput;
use super::subject::Subject;
use crate::domain::credential::Credential;
use crate::domain::decision::{Candidate, Decision};
use crate::domain::executor::Executor;
use crate::domain::gate::{GateInput, Permit, gate};
use crate::domain::id::{CredentialId, OrgId};
use crate::domain::mode::{AuthMode, CredentialKind, ModeSet};
use crate::domain::owner::Owner;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::service::Broker;
use crate::service::lease::Material;
use crate::service::refresh::Need;
use crate::store::keys;
use crate::store::model::{Pin, Pointer};
use crate::store::record::Stored;

/// A credential that was chosen, by permission of a permit.
pub(super) struct Choice {
    pub(super) credential: Arc<Credential>,
    pub(super) position: usize,
}

impl Broker {
    /// The modes that an executor has with a provider.
    pub(in crate::service) fn supported(
        &self,
        executor: &Executor,
        provider: &str,
    ) -> Result<ModeSet, Refusal> {
        let modes = executor.modes(provider);
        if modes.is_empty() {
            let known: Vec<_> = executor.providers.keys().map(String::as_str).collect();
            return Err(Refusal {
                field: Some("provider"),
                ..Refusal::new(
                    Reason::ProviderUnsupported,
                    format!("{} cannot use provider {provider:?}", executor.name),
                )
                .with("supported", known.join(", "))
            });
        }
        Ok(modes)
    }

    pub(super) fn permit(&self, subject: &Subject, input: &ResolveInput<'_>) -> Result<Permit, Refusal> {
        let executor = self.registry.executor(&subject.executor).ok_or_else(|| Refusal {
            field: Some("executor"),
            ..Refusal::new(
                Reason::ExecutorUnknown,
                format!("there is no executor {:?}", subject.executor),
            )
        })?;
        let provider = match input.provider {
            "" => subject.provider.as_deref().unwrap_or(&executor.native_provider),
            named => named,
        };
        let supported = self.supported(executor, provider)?;
        gate(GateInput {
            executor: &subject.executor,
            provider,
            model: input.model,
            supported,
            kinds: self.registry.kinds(provider),
            allowed: AuthMode::ORDER.into_iter().collect(),
            policy_version: 0,
        })
    }

    /// The pinned choice, where the permit still has it and the credential is still there.
    pub(super) async fn pinned(
        &self,
        subject: &Subject,
        permit: &Permit,
        pin: Option<&Stored<Pin>>,
    ) -> Result<Option<Choice>, Refusal> {
        let Some(pin) = pin else { return Ok(None) };
        let credential = self
            .records
            .get::<Credential>(&keys::credential(subject.org, pin.value.credential))
            .await?;
        Ok(credential.and_then(|credential| {
            let credential = credential.value;
            let fits = |entry: &crate::domain::mode::PermitEntry| {
                entry.kind == credential.kind && entry.provider == credential.provider
            };
            let position = permit.entries().iter().position(fits)?;
            Some(Choice { credential, position })
        }))
    }

    /// The first credential along the permit; the member's before the org's.
    pub(super) async fn choose(
        &self,
        subject: &Subject,
        permit: &Permit,
        decision: &mut Decision,
    ) -> Result<Choice, Refusal> {
        for (position, entry) in permit.entries().iter().enumerate() {
            for owner in Owner::precedence(subject.member) {
                let found = self
                    .held(subject.org, owner, &entry.provider, entry.kind, &subject.executor)
                    .await?;
                let passed_over = match (&found, entry.kind) {
                    (Some(_), _) => None,
                    (None, CredentialKind::OAuthGrant) => Some(Reason::ConnectAccount),
                    (None, _) => Some(Reason::NoCredentialConfigured),
                };
                let credential = found.as_ref().map(|credential| credential.id);
                decision.candidates.push(Candidate {
                    credential,
                    mode: entry.mode,
                    owner,
                    passed_over,
                });
                if let Some(credential) = found {
                    return Ok(Choice { credential, position });
                }
            }
        }
        let provider = &permit.entries()[0].provider;
        Err(Refusal::new(
            Reason::NoCredentialConfigured,
            format!(
                "nothing is configured for {} with provider {provider}",
                subject.executor
            ),
        )
        .with("executor", &subject.executor)
        .with("provider", provider))
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

    /// The credential's material, fresh enough for `need`, and whether that took an exchange.
    pub(super) async fn material(
        &self,
        credential: &Credential,
        need: Need,
    ) -> Result<(Material, bool), Refusal> {
        let fresh = self.refresher.fresh(credential.org, credential.id, need).await?;
        Ok((
            Material {
                credential: fresh.credential,
                secret: fresh.secret,
            },
            fresh.exchanged,
        ))
    }
}

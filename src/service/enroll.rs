//! Enrollment: a one-time token becomes an agent with a runtime key and a certificate.

use std::sync::Arc;

use super::Broker;
use super::agents::checked_pairs;
use super::effect::Undone;
use crate::domain::actor::AgentActor;
use crate::domain::agent::{Agent, KeyFingerprint};
use crate::domain::enrollment::{Admission, BoundSlot, EnrollmentToken, Rejected};
use crate::domain::id::{AgentId, OrgId, TaskId};
use crate::domain::journal::{Action, Record};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::secret::{ActorToken, Secret};
use crate::domain::token::{EnrollmentFamily, RuntimeKeyFamily, Token, TokenError};
use crate::pki::authority::{CaError, IssuedCertificate};
use crate::pki::csr::CheckedCsr;
use crate::pki::spiffe::AgentSubject;
use crate::store::keys;
use crate::store::model::{Mark, Slot};
use crate::store::record::{Changes, Stored};

/// A new identity.
pub struct Enrolled {
    /// The agent.
    pub agent: Agent,
    /// The runtime key, to be shown once.
    pub runtime_key: Secret<ActorToken>,
    /// Its certificate.
    pub certificate: IssuedCertificate,
    /// The task the token assigned it to.
    pub task: Option<TaskId>,
}

/// A renewed certificate.
pub type Renewed = IssuedCertificate;

/// How often an enrollment is tried again when another slot of the token is bound at the same moment.
const ATTEMPTS: usize = 16;

/// What an enrollment is about, while it is decided.
struct Presentation<'a> {
    org: OrgId,
    token: &'a Token<EnrollmentFamily>,
    csr: &'a CheckedCsr,
    attributes: Vec<(String, String)>,
}

impl Broker {
    /// Exchanges an enrollment token for an identity.
    pub async fn enroll(
        self: &Arc<Self>,
        token: &str,
        csr_der: &[u8],
        attributes: &[(String, String)],
    ) -> Result<Enrolled, Refusal> {
        // The request is checked before the token, so that a bad one costs nobody a slot.
        let csr = checked_csr(csr_der)?;
        let attributes = checked_pairs("attributes", attributes)?;
        let token = Token::<EnrollmentFamily>::parse(token).map_err(|error| match error {
            TokenError::WrongFamily { .. } => Refusal::new(Reason::WrongCredentialFamily, error.to_string())
                .with("accepts", "enrollment token"),
            TokenError::Malformed => Refusal::new(Reason::CredentialMalformed, error.to_string()),
        })?;
        let unknown = || {
            Refusal::new(
                Reason::EnrollmentTokenUnknown,
                "the enrollment token is not known",
            )
        };
        let org = self
            .home(&keys::enrollment_token_home(token.id()))
            .await?
            .ok_or_else(unknown)?;
        let presentation = Presentation {
            org,
            token: &token,
            csr: &csr,
            attributes,
        };
        for _ in 0..ATTEMPTS {
            match self.try_enroll(&presentation).await {
                Err(Undone::Conflict) => {}
                Err(Undone::Refused(refusal)) => return Err(refusal),
                Ok(enrolled) => return Ok(enrolled),
            }
        }
        Err(Refusal::new(
            Reason::Conflict,
            "too many agents enroll with this token at the same moment",
        ))
    }

    async fn try_enroll(self: &Arc<Self>, presentation: &Presentation<'_>) -> Result<Enrolled, Undone> {
        let Presentation { org, token, csr, .. } = *presentation;
        let key = keys::enrollment_token(org, token.id());
        let stored: Stored<EnrollmentToken> = self
            .records
            .get(&key)
            .await
            .map_err(Refusal::from)?
            .ok_or_else(|| {
                Refusal::new(
                    Reason::EnrollmentTokenUnknown,
                    "the enrollment token is not known",
                )
            })?;
        let bound = self.bound_agent(org, token, csr.key_fingerprint()).await?;
        let slot = bound.as_ref().map(|agent| BoundSlot {
            agent: agent.value.id,
            closed: agent.value.used
                || agent.value.revoked.is_some()
                || self.now() >= agent.value.created + self.settings().enrollment_window,
        });
        match stored.value.admit(&token.hash(), slot, self.now()) {
            Err(rejected) => Err(self
                .rejected(org, &stored.value, csr.key_fingerprint(), rejected)
                .await
                .into()),
            Ok(Admission::New) => self.admit_new(presentation, &stored).await,
            Ok(Admission::Repeat(_)) => match bound {
                Some(agent) => self.admit_again(presentation, &agent, &stored).await,
                None => Err(Undone::Conflict),
            },
        }
    }

    /// The agent that enrolled with this key before, by this token.
    async fn bound_agent(
        &self,
        org: OrgId,
        token: &Token<EnrollmentFamily>,
        key: KeyFingerprint,
    ) -> Result<Option<Stored<Agent>>, Refusal> {
        let Some(slot) = self
            .records
            .get::<Slot>(&keys::slot(org, token.id(), key))
            .await?
        else {
            return Ok(None);
        };
        Ok(self.records.get(&keys::agent(org, slot.value.agent)).await?)
    }

    async fn rejected(
        &self,
        org: OrgId,
        token: &EnrollmentToken,
        key: KeyFingerprint,
        rejected: Rejected,
    ) -> Refusal {
        // A token's id alone shows nothing: whoever has it without the secret is a stranger to it.
        if rejected.refusal.reason == Reason::EnrollmentTokenUnknown {
            return rejected.refusal;
        }
        let action = if rejected.alarm {
            Action::EnrollmentAlarm
        } else {
            Action::Enroll
        };
        if rejected.alarm {
            tracing::warn!(enrollment_token = %token.id, "an enrollment token was presented by another key");
        }
        let record = Record::new(action, "anonymous", Some(org))
            .about("enrollment_token", token.id)
            .about("environment", token.environment)
            .about("key", key);
        self.denied(record, rejected.refusal).await
    }

    async fn admit_new(
        self: &Arc<Self>,
        presentation: &Presentation<'_>,
        stored: &Stored<EnrollmentToken>,
    ) -> Result<Enrolled, Undone> {
        let Presentation { org, csr, .. } = *presentation;
        let token = &stored.value;
        let id: AgentId = self.new_id()?;
        let runtime_key = Token::<RuntimeKeyFamily>::new(id, self.random()?);
        let certificate = self.certify(csr, org, token, id)?;
        let now = self.now();
        let agent = Agent {
            id,
            org,
            environment: token.environment,
            key: csr.key_fingerprint(),
            runtime_key: runtime_key.hash(),
            next_runtime_key: None,
            used: false,
            enrollment_token: token.id,
            labels: token.labels.clone(),
            attributes: presentation.attributes.clone(),
            created: now,
            certificate_expires: certificate.not_after,
            revoked: None,
        };
        let (token_key, slot_key) = (
            keys::enrollment_token(org, token.id),
            keys::slot(org, token.id, agent.key),
        );
        let mut changes = Changes::default();
        changes = changes.at(&token_key, stored.revision);
        changes = changes.put(
            &token_key,
            &EnrollmentToken {
                bound: token.bound + 1,
                ..EnrollmentToken::clone(token)
            },
        );
        changes = changes.absent(&slot_key);
        changes = changes.put(&slot_key, &Slot { agent: id });
        changes = changes.absent(&keys::agent(org, id));
        changes = changes.put(&keys::agent(org, id), &agent);
        if let Some(task) = token.task {
            changes = changes.put(&keys::task_agent(org, task, id), &Mark { since: now });
            changes = changes.put(&keys::agent_task(org, id, task), &Mark { since: now });
        }
        self.effect(enroll_record(&agent, token, false), changes).await?;
        Ok(Enrolled {
            agent,
            runtime_key: runtime_key.reveal(),
            certificate,
            task: token.task,
        })
    }

    async fn admit_again(
        self: &Arc<Self>,
        presentation: &Presentation<'_>,
        stored: &Stored<Agent>,
        token: &Stored<EnrollmentToken>,
    ) -> Result<Enrolled, Undone> {
        let Presentation { org, csr, .. } = *presentation;
        let runtime_key = Token::<RuntimeKeyFamily>::new(stored.value.id, self.random()?);
        let certificate = self.certify(csr, org, &token.value, stored.value.id)?;
        let agent = Agent {
            next_runtime_key: Some(runtime_key.hash()),
            certificate_expires: certificate.not_after,
            ..Agent::clone(&stored.value)
        };
        let key = keys::agent(org, agent.id);
        let mut changes = Changes::default();
        changes = changes.at(&key, stored.revision);
        // Revoking the token at this moment wins.
        changes = changes.at(&keys::enrollment_token(org, token.value.id), token.revision);
        changes = changes.put(&key, &agent);
        self.effect(enroll_record(&agent, &token.value, true), changes)
            .await?;
        Ok(Enrolled {
            agent,
            runtime_key: runtime_key.reveal(),
            certificate,
            task: token.value.task,
        })
    }

    fn certify(
        &self,
        csr: &CheckedCsr,
        org: OrgId,
        token: &EnrollmentToken,
        agent: AgentId,
    ) -> Result<IssuedCertificate, Refusal> {
        let subject = AgentSubject {
            org,
            environment: token.environment,
            agent,
        };
        self.issue(csr, subject)
    }

    fn issue(&self, csr: &CheckedCsr, subject: AgentSubject) -> Result<IssuedCertificate, Refusal> {
        let lifetime = self.settings().certificate_lifetime;
        self.authority
            .issue_agent(csr, subject, self.now(), lifetime)
            .map_err(|error: CaError| {
                tracing::error!(%error, "a certificate could not be issued");
                Refusal::new(Reason::Internal, "the certificate could not be issued")
            })
    }

    /// Issues a new certificate for the enrolled key.
    pub async fn renew_certificate(
        self: &Arc<Self>,
        actor: &AgentActor,
        csr_der: &[u8],
    ) -> Result<Renewed, Refusal> {
        let csr = checked_csr(csr_der)?;
        let key = keys::agent(actor.org, actor.id);
        let stored: Stored<Agent> = self
            .records
            .get(&key)
            .await?
            .ok_or_else(|| Refusal::not_found("agent"))?;
        let record = Record::new(Action::CertificateRenew, actor.id.to_string(), Some(actor.org))
            .about("agent", actor.id);
        if csr.key_fingerprint() != stored.value.key {
            let refusal = Refusal::new(
                Reason::CsrKeyNotEnrolled,
                "the request is by another key than the enrolled one",
            );
            return Err(self.denied(record, refusal).await);
        }
        let subject = AgentSubject {
            org: actor.org,
            environment: actor.environment,
            agent: actor.id,
        };
        let certificate = self.issue(&csr, subject)?;
        let agent = Agent {
            certificate_expires: certificate.not_after,
            ..Agent::clone(&stored.value)
        };
        let mut changes = Changes::default();
        changes = changes.at(&key, stored.revision);
        changes = changes.put(&key, &agent);
        self.effect(record, changes).await?;
        Ok(certificate)
    }

    /// Issues a new runtime key. The one in use ends at the new one's first use; a key that was issued and
    /// never used ends now.
    pub async fn rotate_runtime_key(
        self: &Arc<Self>,
        actor: &AgentActor,
    ) -> Result<Secret<ActorToken>, Refusal> {
        let key = keys::agent(actor.org, actor.id);
        let stored: Stored<Agent> = self
            .records
            .get(&key)
            .await?
            .ok_or_else(|| Refusal::not_found("agent"))?;
        let runtime_key = Token::<RuntimeKeyFamily>::new(actor.id, self.random()?);
        let agent = Agent {
            next_runtime_key: Some(runtime_key.hash()),
            ..Agent::clone(&stored.value)
        };
        let mut changes = Changes::default();
        changes = changes.at(&key, stored.revision);
        changes = changes.put(&key, &agent);
        let record = Record::new(Action::RuntimeKeyRotate, actor.id.to_string(), Some(actor.org))
            .about("agent", actor.id);
        self.effect(record, changes).await?;
        Ok(runtime_key.reveal())
    }
}

fn enroll_record(agent: &Agent, token: &EnrollmentToken, repeat: bool) -> Record {
    Record::new(Action::Enroll, "anonymous", Some(agent.org))
        .about("agent", agent.id)
        .about("environment", agent.environment)
        .about("enrollment_token", token.id)
        .about("key", agent.key)
        .about("repeat", repeat)
}

fn checked_csr(der: &[u8]) -> Result<CheckedCsr, Refusal> {
    CheckedCsr::parse(der).map_err(|error| Refusal {
        field: Some("csr_der"),
        ..Refusal::new(error.reason(), error.to_string())
    })
}

//! Enrollment: a one-time token becomes an agent with a runtime key and a certificate.

use std::net::IpAddr;
use std::sync::Arc;

use super::Broker;
use super::agents::checked_pairs;
use super::effect::Undone;
use crate::domain::agent::{Agent, Certificates, SerialNumber};
use crate::domain::enrollment::{Admission, BoundSlot, EnrollmentToken, Rejected};
use crate::domain::id::{AgentId, OrgId, TaskId};
use crate::domain::journal::{Action, Record};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::secret::{ActorToken, Secret};
use crate::domain::time::Time;
use crate::domain::token::{EnrollmentFamily, RuntimeKeyFamily, Token, TokenError};
use crate::pki::authority::IssuedCertificate;
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

/// How often an enrollment is tried again when another slot of the token is bound at the same moment.
const ATTEMPTS: usize = 16;

/// What an enrollment is about, while it is decided.
struct Presentation<'a> {
    org: OrgId,
    token: &'a Token<EnrollmentFamily>,
    csr: &'a CheckedCsr,
    attributes: Vec<(String, String)>,
    peer: Option<IpAddr>,
}

impl Broker {
    /// Exchanges an enrollment token, presented by `peer`, for an identity.
    pub async fn enroll(
        self: &Arc<Self>,
        token: &str,
        csr_der: &[u8],
        attributes: &[(String, String)],
        peer: Option<IpAddr>,
    ) -> Result<Enrolled, Refusal> {
        let attributes = checked_pairs("attributes", attributes)?;
        let token = Token::<EnrollmentFamily>::parse(token).map_err(|error| match error {
            TokenError::WrongFamily { .. } => Refusal::new(Reason::WrongCredentialFamily, error.to_string())
                .with("accepts", "enrollment token"),
            TokenError::Malformed => Refusal::new(Reason::CredentialMalformed, error.to_string()),
        })?;
        let org = self
            .home(&keys::enrollment_token_home(token.id()))
            .await?
            .ok_or_else(unknown)?;
        // Checking a signing request costs more than all the rest: it is done for who holds a token only. And
        // it is done before a slot is looked at, so that a bad one costs nobody a slot.
        let stored = self.presented(org, &token).await?;
        if !stored.value.token.matches(&token.hash()) {
            return Err(unknown());
        }
        let csr = checked_csr(csr_der)?;
        let presentation = Presentation {
            org,
            token: &token,
            csr: &csr,
            attributes,
            peer,
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
        let stored = self.presented(org, token).await?;
        let slot_key = keys::slot(org, token.id(), csr.key_fingerprint());
        let slot = self.records.get::<Slot>(&slot_key).await.map_err(Refusal::from)?;
        let bound = match &slot {
            Some(slot) => {
                let key = keys::agent(org, slot.value.agent);
                self.records.get::<Agent>(&key).await.map_err(Refusal::from)?
            }
            None => None,
        };
        let slot = slot.map(|slot| BoundSlot {
            agent: slot.value.agent,
            // A slot outlives an agent that has ended and was collected.
            closed: bound
                .as_ref()
                .is_none_or(|agent| self.repeats_are_over(&agent.value)),
        });
        let admitted = stored
            .value
            .admit(&token.hash(), presentation.peer, slot, self.now());
        if let (Ok(_), Err(locked)) = (&admitted, self.enrollable(&stored.value, bound.as_ref())) {
            let record = Record::new(Action::Enroll, "anonymous", Some(org))
                .about("enrollment_token", token.id())
                .about("environment", stored.value.environment);
            return Err(self.denied(record, locked).await.into());
        }
        match admitted {
            Err(rejected) => Err(self.rejected(presentation, &stored.value, rejected).await.into()),
            Ok(Admission::New) => self.admit_new(presentation, &stored).await,
            Ok(Admission::Repeat(_)) => match bound {
                Some(agent) => self.admit_again(presentation, &agent, &stored).await,
                None => Err(Undone::Conflict),
            },
        }
    }

    /// Refuses where the environment or its org is locked, or the agent that enrolled with this key before.
    fn enrollable(&self, token: &EnrollmentToken, bound: Option<&Stored<Agent>>) -> Result<(), Refusal> {
        let agent = bound.map(|agent| *agent.value.id.as_bytes());
        let mut subjects = vec![*token.environment.as_bytes(), *token.org.as_bytes()];
        subjects.extend(agent);
        self.unlocked(&subjects)
    }

    async fn presented(
        &self,
        org: OrgId,
        token: &Token<EnrollmentFamily>,
    ) -> Result<Stored<EnrollmentToken>, Refusal> {
        let key = keys::enrollment_token(org, token.id());
        self.records.get(&key).await?.ok_or_else(unknown)
    }

    fn repeats_are_over(&self, agent: &Agent) -> bool {
        let window = self.settings().enrollment_window;
        agent.used || agent.standing().is_err() || self.now() >= agent.created + window
    }

    async fn rejected(
        &self,
        presentation: &Presentation<'_>,
        token: &EnrollmentToken,
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
        let mut record = Record::new(action, "anonymous", Some(presentation.org))
            .about("enrollment_token", token.id)
            .about("environment", token.environment)
            .about("key", presentation.csr.key_fingerprint());
        if let Some(peer) = presentation.peer {
            record = record.about("address", peer);
        }
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
            certificates: Some(first_of(&certificate, now)),
            expired: None,
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
                spent: (token.bound + 1 >= token.max_agents).then_some(now),
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
            certificates: Some(first_of(&certificate, self.now())),
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
}

fn unknown() -> Refusal {
    Refusal::new(
        Reason::EnrollmentTokenUnknown,
        "the enrollment token is not known",
    )
}

fn first_of(certificate: &IssuedCertificate, issued: Time) -> Certificates {
    Certificates {
        newest: SerialNumber(*certificate.serial.as_bytes()),
        earlier: None,
        issued,
        used: false,
        nonce: None,
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

pub(super) fn checked_csr(der: &[u8]) -> Result<CheckedCsr, Refusal> {
    CheckedCsr::parse(der).map_err(|error| Refusal {
        field: Some("csr_der"),
        ..Refusal::new(error.reason(), error.to_string())
    })
}

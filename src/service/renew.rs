//! Keeping an agent's identity fresh: its certificate, over mTLS or after a long sleep, and its runtime key.
//!
//! Each certificate is renewed once; [`Agent::may_renew`] tells a lost answer from a copy of the agent. A copy is
//! not told apart from the true one: the agent is locked, both of it, until an admin has looked.
//!
//! After a long sleep the certificate has ended, and no mTLS connection is made with it. The runtime key and a
//! signature by the enrolled key stand in for it. What is signed names a nonce that this process authenticates,
//! with the time it was made, and keeps nowhere. A nonce serves one renewal: the agent's record keeps the last
//! one, and refuses what was made before its newest certificate was. So a message that is sent again, by a
//! network or by a thief, renews nothing, and is not taken for a copy's either.

use std::sync::Arc;
use std::time::Duration;

use ring::hmac;
use subtle::ConstantTimeEq as _;

use super::Broker;
use super::effect::Undone;
use super::enroll::checked_csr;
use super::presence::Present;
use super::scope::parse_id;
use crate::domain::actor::{Actor, AgentActor};
use crate::domain::agent::{Agent, Certificates, RenewalNonce, SerialNumber, renewal_proof};
use crate::domain::id::{AgentId, OrgId};
use crate::domain::journal::{Action, Outcome, Record};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::secret::{ActorToken, Secret};
use crate::domain::time::Time;
use crate::domain::token::{RuntimeKeyFamily, Token};
use crate::pki::authority::{CaError, IssuedCertificate};
use crate::pki::csr::CheckedCsr;
use crate::pki::spiffe::AgentSubject;
use crate::store::keys;
use crate::store::record::{Changes, Stored};

/// A renewed certificate.
pub type Renewed = IssuedCertificate;

/// A nonce, and until when it is taken.
#[derive(Clone, Debug)]
pub struct Nonce {
    /// The nonce.
    pub bytes: Vec<u8>,
    /// Until when.
    pub expires: Time,
}

/// A renewal without a client certificate.
#[derive(Clone, Copy, Debug)]
pub struct ExpiredRenewal<'a> {
    /// The agent's org, by id.
    pub org: &'a str,
    /// The agent.
    pub agent: &'a str,
    /// The signing request, by the enrolled key.
    pub csr_der: &'a [u8],
    /// The serial number of the last certificate the agent has.
    pub serial: &'a [u8],
    /// From [`Broker::renewal_nonce`].
    pub nonce: &'a [u8],
    /// By the enrolled key.
    pub signature: &'a [u8],
}

/// What comes first in the bytes that a nonce's MAC is over.
const NONCE_LABEL: &[u8] = b"credbroker renewal nonce v1\0";
const NONCE_LIFE: Duration = Duration::from_secs(300);
/// Time, randomness, MAC.
const NONCE_LENGTH: usize = 8 + 16 + 32;
/// How often a renewal is tried again when something else changes the agent's record at the same moment.
const ATTEMPTS: usize = 8;

/// Makes nonces and knows its own again. Another process's are refused.
pub(super) struct Nonces(hmac::Key);

impl Nonces {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &key))
    }

    fn make(&self, now: Time, random: [u8; 16]) -> Vec<u8> {
        let mut bytes = [&now.millis().to_be_bytes()[..], &random].concat();
        let tag = hmac::sign(&self.0, &[NONCE_LABEL, &bytes].concat());
        bytes.extend_from_slice(tag.as_ref());
        bytes
    }

    /// When the nonce was made and what tells it from others, where it is one of these and still taken.
    fn read(&self, nonce: &[u8], now: Time) -> Option<(Time, RenewalNonce)> {
        let nonce: &[u8; NONCE_LENGTH] = nonce.try_into().ok()?;
        let (said, tag) = nonce.split_at(NONCE_LENGTH - 32);
        hmac::verify(&self.0, &[NONCE_LABEL, said].concat(), tag).ok()?;
        let (made, random) = said.split_first_chunk::<8>()?;
        let made = Time::from_millis(i64::from_be_bytes(*made));
        let fresh = made <= now && now < made + NONCE_LIFE;
        fresh.then_some((made, RenewalNonce(random.try_into().ok()?)))
    }
}

/// What a renewal is made from.
struct Origin {
    serial: SerialNumber,
    nonce: Option<RenewalNonce>,
}

impl Broker {
    pub(super) fn issue(
        &self,
        csr: &CheckedCsr,
        subject: AgentSubject,
    ) -> Result<IssuedCertificate, Refusal> {
        let lifetime = self.settings().certificate_lifetime;
        self.authority
            .issue_agent(csr, subject, self.now(), lifetime)
            .map_err(|error: CaError| {
                tracing::error!(%error, "a certificate could not be issued");
                Refusal::new(Reason::Internal, "the certificate could not be issued")
            })
    }

    pub(super) async fn agent_record(&self, org: OrgId, id: AgentId) -> Result<Stored<Agent>, Refusal> {
        let stored = self.records.get(&keys::agent(org, id)).await?;
        stored.ok_or_else(|| Refusal::not_found("agent"))
    }

    /// Issues a new certificate for the enrolled key. `serial` is of the certificate that the connection
    /// presented.
    pub async fn renew_certificate(
        self: &Arc<Self>,
        actor: &AgentActor,
        serial: SerialNumber,
        csr_der: &[u8],
    ) -> Result<Renewed, Refusal> {
        let csr = checked_csr(csr_der)?;
        let from = Origin { serial, nonce: None };
        for _ in 0..ATTEMPTS {
            let stored = self.agent_record(actor.org, actor.id).await?;
            stored.value.standing()?;
            self.unlocked_actor(&Actor::Agent(*actor))?;
            match self.renew(&stored, &csr, &from, None).await {
                Ok(certificate) => return Ok(certificate),
                Err(Undone::Conflict) => {}
                Err(Undone::Refused(refusal)) => return Err(refusal),
            }
        }
        Err(Undone::Conflict.into())
    }

    /// One try at a renewal. `first_use`: the runtime key that was shown and not used before.
    async fn renew(
        self: &Arc<Self>,
        stored: &Stored<Agent>,
        csr: &CheckedCsr,
        from: &Origin,
        first_use: Option<&Agent>,
    ) -> Result<IssuedCertificate, Undone> {
        let agent = &*stored.value;
        let record = renewal_record(agent, from);
        if csr.key_fingerprint() != agent.key {
            let refusal = Refusal::new(
                Reason::CsrKeyNotEnrolled,
                "the request is by another key than the enrolled one",
            );
            return Err(self.denied(record, refusal).await.into());
        }
        if agent.may_renew(from.serial).is_err() {
            return Err(self.stop_clone(agent, from.serial).await?.into());
        }
        let subject = AgentSubject {
            org: agent.org,
            environment: agent.environment,
            agent: agent.id,
        };
        let certificate = self.issue(csr, subject)?;
        let certificates = Certificates {
            newest: SerialNumber(*certificate.serial.as_bytes()),
            earlier: Some(from.serial),
            issued: self.now(),
            used: false,
            nonce: from.nonce,
        };
        let renewed = first_use
            .unwrap_or(agent)
            .renewed(certificates, certificate.not_after);
        let key = keys::agent(agent.org, agent.id);
        let changes = Changes::default().at(&key, stored.revision).put(&key, &renewed);
        self.effect(record, changes).await?;
        Ok(certificate)
    }

    /// Locks an agent of which two copies are at work, and says so. When this returns, no later request of either
    /// succeeds.
    async fn stop_clone(
        self: &Arc<Self>,
        agent: &Agent,
        presented: SerialNumber,
    ) -> Result<Refusal, Refusal> {
        let lock = self
            .lock_agent(agent.org, agent.id, "two copies of it were at work")
            .await?;
        tracing::warn!(agent = %agent.id, "two copies of an agent were at work; it is locked");
        let mut alarm = Record::new(Action::AgentClone, agent.id.to_string(), Some(agent.org))
            .about("agent", agent.id)
            .about("environment", agent.environment)
            .about("presented", presented)
            .about("lock", lock.id);
        if let Some(certificates) = agent.certificates {
            alarm = alarm.about("newest", certificates.newest);
        }
        let refusal = Refusal::new(
            Reason::AgentCloned,
            "this certificate was renewed before, and the new one is in use: there are two copies of this agent, \
             and both are locked",
        )
        .with("agent", agent.id.to_string())
        .with("lock", lock.id.to_string());
        self.journal
            .append(&alarm.outcome(Outcome::Denied(refusal.reason)))
            .await?;
        Ok(refusal)
    }

    /// A nonce for [`Broker::renew_expired_certificate`].
    pub fn renewal_nonce(&self) -> Result<Nonce, Refusal> {
        let now = self.now();
        Ok(Nonce {
            bytes: self.nonces.make(now, self.random()?),
            expires: now + NONCE_LIFE,
        })
    }

    /// Issues a new certificate to an agent whose last one has ended, for its runtime key and a signature by the
    /// enrolled key. Cheap checks come first: without a runtime key that is good, no signature is verified.
    pub async fn renew_expired_certificate(
        self: &Arc<Self>,
        runtime_key: &str,
        renewal: ExpiredRenewal<'_>,
    ) -> Result<Renewed, Refusal> {
        let token: Token<RuntimeKeyFamily> = super::authenticate::parse(runtime_key)?;
        let (org, id): (OrgId, AgentId) = (parse_id("org", renewal.org)?, parse_id("agent", renewal.agent)?);
        let serial: [u8; 16] = renewal
            .serial
            .try_into()
            .map_err(|_| Refusal::invalid("certificate_serial", "certificate_serial has 16 bytes"))?;
        let (made, nonce) = self.nonces.read(renewal.nonce, self.now()).ok_or_else(stale)?;
        let from = Origin {
            serial: SerialNumber(serial),
            nonce: Some(nonce),
        };
        let hash = token.hash();
        for _ in 0..ATTEMPTS {
            let stored = self.records.get::<Agent>(&keys::agent(org, id)).await?;
            let mine = bool::from(token.id().as_bytes().ct_eq(id.as_bytes()));
            let stored = stored
                .filter(|stored| mine && stored.value.holds(&hash))
                .ok_or_else(super::authenticate::unknown)?;
            let csr = checked_csr(renewal.csr_der)?;
            let agent = &*stored.value;
            if let Err(refusal) = self.may_renew_expired(agent, &csr, &renewal, made, nonce) {
                return Err(self.denied(renewal_record(agent, &from), refusal).await);
            }
            self.touch(Present::Agent(org, id), self.now(), None);
            let used = agent.after_first_use(&hash, from.serial);
            match self.renew(&stored, &csr, &from, Some(&used)).await {
                Ok(certificate) => return Ok(certificate),
                Err(Undone::Conflict) => {}
                Err(Undone::Refused(refusal)) => return Err(refusal),
            }
        }
        Err(Undone::Conflict.into())
    }

    fn may_renew_expired(
        &self,
        agent: &Agent,
        csr: &CheckedCsr,
        renewal: &ExpiredRenewal<'_>,
        made: Time,
        nonce: RenewalNonce,
    ) -> Result<(), Refusal> {
        agent.standing()?;
        self.unlocked_actor(&Actor::Agent(AgentActor {
            id: agent.id,
            org: agent.org,
            environment: agent.environment,
        }))?;
        let request = ring::digest::digest(&ring::digest::SHA256, renewal.csr_der);
        let proof = renewal_proof(renewal.nonce, request.as_ref(), renewal.serial);
        // That the key is the enrolled one is seen later; here, that the message is by the key of its request.
        if csr.key_fingerprint() == agent.key && !csr.signed(&proof, renewal.signature) {
            return Err(Refusal::new(
                Reason::RenewalProofInvalid,
                "the signature does not fit the enrolled key and what it has to sign",
            ));
        }
        let spent =
            |certificates: Certificates| made < certificates.issued || certificates.nonce == Some(nonce);
        if agent.certificates.is_some_and(spent) {
            return Err(stale());
        }
        if self.now() >= agent.certificate_expires + self.settings().renewal_grace {
            return Err(Refusal::new(
                Reason::RenewalTooLate,
                "the certificate ended too long ago",
            ));
        }
        Ok(())
    }

    /// Issues a new runtime key. The one in use ends at the new one's first use; a key that was issued and
    /// never used ends now.
    pub async fn rotate_runtime_key(
        self: &Arc<Self>,
        actor: &AgentActor,
    ) -> Result<Secret<ActorToken>, Refusal> {
        let key = keys::agent(actor.org, actor.id);
        let stored = self.agent_record(actor.org, actor.id).await?;
        stored.value.standing()?;
        self.unlocked_actor(&Actor::Agent(*actor))?;
        let runtime_key = Token::<RuntimeKeyFamily>::new(actor.id, self.random()?);
        let agent = Agent {
            next_runtime_key: Some(runtime_key.hash()),
            ..Agent::clone(&stored.value)
        };
        let changes = Changes::default().at(&key, stored.revision).put(&key, &agent);
        let record = Record::new(Action::RuntimeKeyRotate, actor.id.to_string(), Some(actor.org))
            .about("agent", actor.id);
        self.effect(record, changes).await?;
        Ok(runtime_key.reveal())
    }
}

fn renewal_record(agent: &Agent, from: &Origin) -> Record {
    Record::new(Action::CertificateRenew, agent.id.to_string(), Some(agent.org))
        .about("agent", agent.id)
        .about("certificate", from.serial)
        .about("over_mtls", from.nonce.is_none())
}

fn stale() -> Refusal {
    Refusal::new(Reason::RenewalNonceStale, "the nonce is not good any more")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_taken_for_its_time_by_who_made_it_and_only_whole() {
        let nonces = Nonces::new([1; 32]);
        let made = Time::from_seconds(1_000);
        let nonce = nonces.make(made, [7; 16]);
        let read = |nonce: &[u8], seconds| nonces.read(nonce, Time::from_seconds(seconds));
        assert_eq!(read(&nonce, 1_000), Some((made, RenewalNonce([7; 16]))));
        assert_eq!(read(&nonce, 1_299), Some((made, RenewalNonce([7; 16]))));
        assert_eq!(read(&nonce, 1_300), None);
        assert_eq!(read(&nonce, 999), None);
        assert_eq!(read(&nonce[1..], 1_000), None);
        for at in 0..nonce.len() {
            let mut other = nonce.clone();
            other[at] ^= 1;
            assert_eq!(read(&other, 1_000), None, "byte {at}");
        }
        assert_eq!(Nonces::new([2; 32]).read(&nonce, made), None);
    }
}

//! Who is calling: a token, and for agents the certificate of the connection, checked against live status.
//!
//! Nothing of this is remembered from one request to the next, and nothing is taken from the handshake but
//! the certificate itself: an actor that was revoked a moment ago is refused on its open connection.

use std::sync::Arc;

use super::Broker;
use crate::domain::actor::{Actor, AgentActor};
use crate::domain::agent::{Agent, KeyUse};
use crate::domain::directory::{ApiKey, Operator};
use crate::domain::journal::{Action, Record};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::token::{
    ApiKeyFamily, FamilyName, OperatorFamily, RuntimeKeyFamily, Token, TokenError, TokenHash,
};
use crate::pki::identity::AgentIdentity;
use crate::store::keys;
use crate::store::record::{Changes, Stored};

/// What a request presents.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// The token, from `authorization: Bearer …`.
    pub bearer: Option<&'a str>,
    /// The identity in the connection's client certificate.
    pub certificate: Option<&'a AgentIdentity>,
}

/// The families that a call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepts {
    /// Operator tokens.
    pub operator: bool,
    /// Org API keys.
    pub api_key: bool,
    /// Runtime keys, together with the certificate.
    pub agent: bool,
}

impl Accepts {
    fn takes(self, family: FamilyName) -> bool {
        match family {
            FamilyName::Operator => self.operator,
            FamilyName::ApiKey => self.api_key,
            FamilyName::RuntimeKey => self.agent,
            FamilyName::Enrollment | FamilyName::Approval => false,
        }
    }

    fn names(self) -> String {
        let taken = FamilyName::ALL.into_iter().filter(|family| self.takes(*family));
        taken.map(FamilyName::name).collect::<Vec<_>>().join(", ")
    }
}

/// How often a first use is tried again when somebody else changes the agent at the same moment.
const ATTEMPTS: usize = 4;

impl Broker {
    /// Shows who is calling, or refuses.
    pub async fn authenticate(
        self: &Arc<Self>,
        presented: Presented<'_>,
        accepts: Accepts,
    ) -> Result<Actor, Refusal> {
        let text = presented
            .bearer
            .ok_or_else(|| Refusal::new(Reason::CredentialMissing, "the call carries no credential"))?;
        let wrong = |found: &'static str| {
            Refusal::new(
                Reason::WrongCredentialFamily,
                format!("this call does not take {found}"),
            )
            .with("accepts", accepts.names())
        };
        match FamilyName::of(text) {
            Some(family) if !accepts.takes(family) => Err(wrong(match family {
                FamilyName::Operator => "an operator token",
                FamilyName::ApiKey => "an org API key",
                FamilyName::Enrollment => "an enrollment token",
                FamilyName::RuntimeKey => "a runtime key",
                FamilyName::Approval => "an approval",
            })),
            Some(FamilyName::Operator) => self.operator_by(&parse(text)?).await,
            Some(FamilyName::ApiKey) => self.api_key_by(&parse(text)?).await,
            Some(FamilyName::RuntimeKey) => self.agent_by(&parse(text)?, presented.certificate).await,
            Some(FamilyName::Enrollment | FamilyName::Approval) | None => {
                Err(wrong("what was sent as a credential"))
            }
        }
    }

    async fn operator_by(&self, token: &Token<OperatorFamily>) -> Result<Actor, Refusal> {
        let operator = self
            .records
            .get::<Operator>(&keys::operator(token.id()))
            .await?
            .ok_or_else(unknown)?;
        let operator = operator.value;
        let over = operator.expires.is_some_and(|expires| self.now() >= expires);
        if !operator.token.matches(&token.hash()) || over || operator.revoked.is_some() {
            return Err(unknown());
        }
        Ok(Actor::Operator(operator.id))
    }

    async fn api_key_by(&self, token: &Token<ApiKeyFamily>) -> Result<Actor, Refusal> {
        let org = self
            .home(&keys::api_key_home(token.id()))
            .await?
            .ok_or_else(unknown)?;
        let key = self
            .records
            .get::<ApiKey>(&keys::api_key(org, token.id()))
            .await?
            .ok_or_else(unknown)?;
        let key = key.value;
        if !key.token.matches(&token.hash()) || self.now() >= key.expires || key.revoked.is_some() {
            return Err(unknown());
        }
        Ok(Actor::ApiKey { id: key.id, org })
    }

    async fn agent_by(
        self: &Arc<Self>,
        token: &Token<RuntimeKeyFamily>,
        certificate: Option<&AgentIdentity>,
    ) -> Result<Actor, Refusal> {
        let certificate = certificate.ok_or_else(|| {
            Refusal::new(
                Reason::ClientCertificateRequired,
                "the connection has no client certificate",
            )
        })?;
        if certificate.agent != token.id() {
            return Err(Refusal::new(
                Reason::CertificateMismatch,
                "the runtime key is not of the agent in the certificate",
            ));
        }
        // A connection outlives its handshake; its certificate must not outlive its end.
        if self.now() >= certificate.not_after {
            return Err(Refusal::new(
                Reason::ClientCertificateRequired,
                "the client certificate has expired",
            ));
        }
        let hash = token.hash();
        for _ in 0..ATTEMPTS {
            let key = keys::agent(certificate.org, certificate.agent);
            let agent = self.records.get::<Agent>(&key).await?.ok_or_else(unknown)?;
            let used = agent.value.authenticate(certificate.key, &hash)?;
            if used == KeyUse::Known || self.record_first_use(&agent, &hash).await? {
                let Agent {
                    id, org, environment, ..
                } = *agent.value;
                return Ok(Actor::Agent(AgentActor { id, org, environment }));
            }
        }
        Err(Refusal::new(
            Reason::Conflict,
            "the agent's record keeps changing",
        ))
    }

    /// Makes the first use of a runtime key durable: from then on the key before it is refused, and the
    /// enrollment cannot be repeated. `false`: the record changed meanwhile.
    async fn record_first_use(
        self: &Arc<Self>,
        agent: &Stored<Agent>,
        hash: &TokenHash,
    ) -> Result<bool, Refusal> {
        let Agent { id, org, .. } = *agent.value;
        let mut changes = Changes::default();
        changes = changes.at(&keys::agent(org, id), agent.revision);
        changes = changes.put(&keys::agent(org, id), &agent.value.after_first_use(hash));
        let record = Record::new(Action::AgentActivate, id.to_string(), Some(org)).about("agent", id);
        match self.effect(record, changes).await {
            Ok(_) => Ok(true),
            Err(super::effect::Undone::Conflict) => Ok(false),
            Err(super::effect::Undone::Refused(refusal)) => Err(refusal),
        }
    }
}

fn unknown() -> Refusal {
    Refusal::new(
        Reason::CredentialUnknown,
        "the token is not known, has expired or was revoked",
    )
}

fn parse<F: crate::domain::token::Family>(text: &str) -> Result<Token<F>, Refusal> {
    Token::parse(text).map_err(|error| match error {
        TokenError::Malformed => Refusal::new(Reason::CredentialMalformed, error.to_string()),
        TokenError::WrongFamily { .. } => Refusal::new(Reason::WrongCredentialFamily, error.to_string()),
    })
}

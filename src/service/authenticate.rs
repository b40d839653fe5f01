//! Who is calling: a token, and for agents the certificate of the connection, checked against live status.
//!
//! Nothing of this is remembered from one request to the next, and nothing is taken from the handshake but
//! the certificate itself: an actor that was revoked a moment ago is refused on its open connection.

use std::sync::Arc;

use super::Broker;
use crate::domain::actor::{Actor, AgentActor, Caller, Shown};
use crate::domain::agent::{Agent, KeyUse, SerialNumber};
use crate::domain::directory::{ApiKey, Group, Member, MemberOf, Operator};
use crate::domain::journal::{Action, Record};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::role::{Extent, Grant, Reach, Role, Rule};
use crate::domain::time::Time;
use crate::domain::token::{
    ApiKeyFamily, FamilyName, OperatorFamily, RuntimeKeyFamily, Token, TokenError, TokenHash,
};
use crate::pki::identity::PeerIdentity;
use crate::pki::spiffe::{AgentSubject, ApiKeySubject, Subject};
use crate::store::record::{Changes, Stored};
use crate::store::{Commit, keys};
use crate::upstream::oidc::looks_signed;

/// What a request presents.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// The token, from `authorization: Bearer …`.
    pub bearer: Option<&'a str>,
    /// The identity in the connection's client certificate.
    pub certificate: Option<&'a PeerIdentity>,
    /// The org that is meant, from the metadata `credbroker-org`: it tells apart the members that one ID token
    /// may stand for, and nothing else.
    pub org: Option<&'a str>,
}

/// Who may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepts {
    /// Humans, by these roles; system admins in any case. `None`: no human may.
    pub humans: Option<&'static [Rule]>,
    /// Org API keys.
    pub api_key: KeyAccess,
    /// Agents, by runtime key and certificate.
    pub agent: bool,
}

/// Which org API keys may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAccess {
    /// None.
    No,
    /// All.
    Any,
    /// Those that may be used for this group of calls.
    Of(Group),
}

impl Accepts {
    fn takes(self, family: FamilyName) -> bool {
        match family {
            FamilyName::Operator => self.humans.is_some(),
            FamilyName::ApiKey => self.api_key != KeyAccess::No,
            FamilyName::RuntimeKey => self.agent,
            FamilyName::Enrollment | FamilyName::Approval | FamilyName::ProxyGrant => false,
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
    ) -> Result<Caller, Refusal> {
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
                FamilyName::ProxyGrant => "a proxy grant",
            })),
            Some(FamilyName::Operator) => {
                let rules = accepts.humans.unwrap_or_default();
                self.operator_by(&parse(text)?, rules).await
            }
            Some(FamilyName::ApiKey) => {
                let token = parse(text)?;
                self.api_key_by(&token, accepts.api_key, presented.certificate)
                    .await
            }
            Some(FamilyName::RuntimeKey) => self.agent_by(&parse(text)?, presented.certificate).await,
            None if looks_signed(text) => match accepts.humans {
                Some(rules) => self.member_by_id_token(text, presented.org, rules).await,
                None => Err(wrong("an ID token")),
            },
            Some(FamilyName::Enrollment | FamilyName::Approval | FamilyName::ProxyGrant) | None => {
                Err(wrong("what was sent as a credential"))
            }
        }
    }

    async fn operator_by(&self, token: &Token<OperatorFamily>, rules: &[Rule]) -> Result<Caller, Refusal> {
        let operator = self
            .records
            .get::<Operator>(&keys::operator(token.id()))
            .await?
            .ok_or_else(unknown)?
            .value;
        let expires = operator.admit(&token.hash(), self.now()).ok_or_else(unknown)?;
        let shown = Shown::OperatorToken(operator.id);
        match operator.member {
            Some(member) => self.member_by(member, shown, expires, rules).await,
            None => human(
                Actor::Operator(operator.id),
                shown,
                expires,
                &operator.grants(),
                rules,
            ),
        }
    }

    /// A member who has shown something that stands for them.
    pub(super) async fn member_by(
        &self,
        MemberOf { org, member }: MemberOf,
        shown: Shown,
        expires: Option<Time>,
        rules: &[Rule],
    ) -> Result<Caller, Refusal> {
        let key = keys::member(org, member);
        let stored = self.records.get::<Member>(&key).await?.ok_or_else(unknown)?;
        if stored.value.removed.is_some() {
            return Err(unknown());
        }
        let actor = Actor::Member { id: member, org };
        self.unlocked_actor(&actor)?;
        human(actor, shown, expires, &stored.value.grants(), rules)
    }

    async fn api_key_by(
        &self,
        token: &Token<ApiKeyFamily>,
        access: KeyAccess,
        certificate: Option<&PeerIdentity>,
    ) -> Result<Caller, Refusal> {
        let org = self
            .home(&keys::api_key_home(token.id()))
            .await?
            .ok_or_else(unknown)?;
        let key = self
            .records
            .get::<ApiKey>(&keys::api_key(org, token.id()))
            .await?
            .ok_or_else(unknown)?
            .value;
        let now = self.now();
        let (expires, needed) = key.admit(&token.hash(), now).ok_or_else(unknown)?;
        if let Some(needed) = needed {
            let own = |certificate: &PeerIdentity| {
                let subject = ApiKeySubject { org, api_key: key.id };
                certificate.subject == Subject::ApiKey(subject) && certificate.key == needed
            };
            if !own(unexpired(certificate, now)?) {
                return Err(mismatch(
                    "the client certificate is not the one issued with this API key",
                ));
            }
        }
        let actor = Actor::ApiKey { id: key.id, org };
        self.unlocked_actor(&actor)?;
        if let KeyAccess::Of(group) = access
            && !key.allows(group)
        {
            let message = format!("this API key may not be used for {}", group.name());
            let refusal = Refusal::new(Reason::PermissionDenied, message).with("group", group.name());
            return Err(refusal.of(Actor::ApiKey { id: key.id, org }));
        }
        let reach = match &key.projects {
            Some(projects) => Reach::projects(org, projects),
            None => Reach::org(org),
        };
        let shown = Shown::ApiKey(key.id);
        Ok(Caller::new(actor, shown, Some(expires), reach))
    }

    async fn agent_by(
        self: &Arc<Self>,
        token: &Token<RuntimeKeyFamily>,
        certificate: Option<&PeerIdentity>,
    ) -> Result<Caller, Refusal> {
        let certificate = unexpired(certificate, self.now())?;
        let AgentSubject { org, agent, .. } = match certificate.subject {
            Subject::Agent(subject) if subject.agent == token.id() => subject,
            _ => return Err(mismatch("the runtime key is not of the agent in the certificate")),
        };
        let (hash, serial) = (token.hash(), SerialNumber(*certificate.serial.as_bytes()));
        for _ in 0..ATTEMPTS {
            let key = keys::agent(org, agent);
            let agent = self.records.get::<Agent>(&key).await?.ok_or_else(unknown)?;
            let used = agent.value.authenticate(certificate.key, serial, &hash)?;
            let Agent {
                id, org, environment, ..
            } = *agent.value;
            let actor = Actor::Agent(AgentActor { id, org, environment });
            self.unlocked_actor(&actor)?;
            if used == KeyUse::Known || self.record_first_use(&agent, used, &hash, serial).await? {
                return Ok(Caller::new(
                    actor,
                    Shown::RuntimeKey(id),
                    Some(certificate.not_after),
                    Reach::org(org),
                ));
            }
        }
        Err(Refusal::new(
            Reason::Conflict,
            "the agent's record keeps changing",
        ))
    }

    /// Makes the first use of a runtime key or certificate durable. From then on the key before it is refused and
    /// the enrollment cannot be repeated; and a renewal from the certificate before it shows a copy of the agent.
    /// `false`: the record changed meanwhile.
    async fn record_first_use(
        self: &Arc<Self>,
        agent: &Stored<Agent>,
        used: KeyUse,
        hash: &TokenHash,
        serial: SerialNumber,
    ) -> Result<bool, Refusal> {
        let Agent { id, org, .. } = *agent.value;
        let key = keys::agent(org, id);
        let mut changes = Changes::default();
        changes = changes.at(&key, agent.revision);
        changes = changes.put(&key, &agent.value.after_first_use(hash, serial));
        if used == KeyUse::FirstOfCertificate {
            // It changes what nobody may do: the journal has the renewal.
            return Ok(matches!(self.records.commit(changes).await?, Commit::Applied(_)));
        }
        let record = Record::new(Action::AgentActivate, id.to_string(), Some(org)).about("agent", id);
        match self.effect(record, changes).await {
            Ok(_) => Ok(true),
            Err(super::effect::Undone::Conflict) => Ok(false),
            Err(super::effect::Undone::Refused(refusal)) => Err(refusal),
        }
    }
}

/// The certificate of the connection. The connection outlives its handshake; its certificate must not outlive its
/// end.
fn unexpired(certificate: Option<&PeerIdentity>, now: Time) -> Result<&PeerIdentity, Refusal> {
    let required = |message| Refusal::new(Reason::ClientCertificateRequired, message);
    let certificate = certificate.ok_or_else(|| required("the connection has no client certificate"))?;
    if now >= certificate.not_after {
        return Err(required("the client certificate has expired"));
    }
    Ok(certificate)
}

fn mismatch(message: &str) -> Refusal {
    Refusal::new(Reason::CertificateMismatch, message)
}

/// A human in a call that takes humans by `rules`.
fn human(
    actor: Actor,
    shown: Shown,
    expires: Option<Time>,
    grants: &[Grant],
    rules: &[Rule],
) -> Result<Caller, Refusal> {
    let reach = Reach::of(grants, rules).ok_or_else(|| {
        let takes = rules.iter().map(|(role, extent)| match extent {
            Extent::All => role.name().to_owned(),
            Extent::Own => format!("{role} (for their own)"),
        });
        let takes: Vec<_> = std::iter::once(Role::SystemAdmin.name().to_owned())
            .chain(takes)
            .collect();
        Refusal::new(Reason::PermissionDenied, "none of your roles may make this call")
            .with("roles", takes.join(", "))
            .of(actor)
    })?;
    Ok(Caller::new(actor, shown, expires, reach))
}

pub(super) fn unknown() -> Refusal {
    Refusal::new(
        Reason::CredentialUnknown,
        "the token is not known, has expired or was revoked",
    )
}

pub(super) fn parse<F: crate::domain::token::Family>(text: &str) -> Result<Token<F>, Refusal> {
    Token::parse(text).map_err(|error| match error {
        TokenError::Malformed => Refusal::new(Reason::CredentialMalformed, error.to_string()),
        TokenError::WrongFamily { .. } => Refusal::new(Reason::WrongCredentialFamily, error.to_string()),
    })
}

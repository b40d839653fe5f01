//! Who is calling, once that has been shown, and how far it may reach in the call it makes.

use std::fmt;

use super::id::{AgentId, ApiKeyId, EnvironmentId, MemberId, OperatorId, OrgId};
use super::journal::{Action, Record};
use super::oidc::Link;
use super::role::Reach;
use super::time::Time;

/// An authenticated actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A human who is no org's member: who runs the broker, or audits it.
    Operator(OperatorId),
    /// A human user of an org.
    Member {
        /// The member.
        id: MemberId,
        /// Their org.
        org: OrgId,
    },
    /// Automation of one org.
    ApiKey {
        /// The key.
        id: ApiKeyId,
        /// The org it acts for, and no other.
        org: OrgId,
    },
    /// An enrolled sandbox, over mTLS.
    Agent(AgentActor),
}

/// An enrolled sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentActor {
    /// The agent.
    pub id: AgentId,
    /// Its org.
    pub org: OrgId,
    /// The environment it enrolled into.
    pub environment: EnvironmentId,
}

impl Actor {
    /// The one org this actor belongs to; `None` for an operator, who belongs to none.
    pub fn org(&self) -> Option<OrgId> {
        match self {
            Actor::Operator(_) => None,
            Actor::Member { org, .. } | Actor::ApiKey { org, .. } => Some(*org),
            Actor::Agent(agent) => Some(agent.org),
        }
    }

    /// The 16 bytes of its id, which are unique over all kinds.
    pub fn id_bytes(&self) -> [u8; 16] {
        match self {
            Actor::Operator(id) => *id.as_bytes(),
            Actor::Member { id, .. } => *id.as_bytes(),
            Actor::ApiKey { id, .. } => *id.as_bytes(),
            Actor::Agent(agent) => *agent.id.as_bytes(),
        }
    }

    /// What sort of actor it is, as `WhoAmI` names it.
    pub fn family(&self) -> &'static str {
        match self {
            Actor::Operator(_) => "operator",
            Actor::Member { .. } => "member",
            Actor::ApiKey { .. } => "api-key",
            Actor::Agent(_) => "agent",
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Actor::Operator(id) => id.fmt(f),
            Actor::Member { id, .. } => id.fmt(f),
            Actor::ApiKey { id, .. } => id.fmt(f),
            Actor::Agent(agent) => agent.id.fmt(f),
        }
    }
}

/// What the caller showed. A member may have many operator tokens, each revoked by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shown {
    /// An operator token.
    OperatorToken(OperatorId),
    /// An ID token of an OIDC issuer, for the outside identity that links its subject to the member.
    IdToken(Link),
    /// An org API key.
    ApiKey(ApiKeyId),
    /// A runtime key, with its certificate.
    RuntimeKey(AgentId),
}

/// An authenticated caller, in one call. Made by authentication only; holding one says that what was shown was
/// good, the actor live, and the call in its access, when the request came in.
#[derive(Clone, Debug)]
pub struct Caller {
    actor: Actor,
    shown: Shown,
    expires: Option<Time>,
    reach: Reach,
}

impl Caller {
    /// A caller who has been authenticated: by what it showed, good until `expires`, with this reach.
    pub fn new(actor: Actor, shown: Shown, expires: Option<Time>, reach: Reach) -> Self {
        Self {
            actor,
            shown,
            expires,
            reach,
        }
    }

    /// The broker's own hand, for what is done on its own machine.
    pub fn local_operator(id: OperatorId) -> Self {
        Self::new(
            Actor::Operator(id),
            Shown::OperatorToken(id),
            None,
            Reach::everywhere(),
        )
    }

    /// Who it is.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// What it showed.
    pub fn shown(&self) -> Shown {
        self.shown
    }

    /// When what it showed stops being good; `None`: not by itself.
    pub fn expires(&self) -> Option<Time> {
        self.expires
    }

    /// How far it may reach in this call.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// The one org it belongs to.
    pub fn org(&self) -> Option<OrgId> {
        self.actor.org()
    }

    /// The member it is, of this org.
    pub fn member_of(&self, org: OrgId) -> Option<MemberId> {
        match self.actor {
            Actor::Member { id, org: own } if own == org => Some(id),
            _ => None,
        }
    }

    /// A journal record of something this caller asked for. Names the token too, where the actor may have
    /// several.
    pub fn record(&self, action: Action, org: Option<OrgId>) -> Record {
        let record = Record::new(action, self.actor.to_string(), org);
        match (self.actor, self.shown) {
            (Actor::Member { .. }, Shown::OperatorToken(token)) => record.about("token", token),
            _ => record,
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.actor.fmt(f)
    }
}

//! Who is calling, once that has been shown.

use std::fmt;

use super::id::{AgentId, ApiKeyId, EnvironmentId, OperatorId, OrgId};

/// An authenticated actor. Made by authentication only; holding one says that the credential was good and
/// the actor live when the request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A human operator of the whole broker.
    Operator(OperatorId),
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
    /// The one org this actor is confined to; `None` for an operator of the whole broker.
    pub fn org(&self) -> Option<OrgId> {
        match self {
            Actor::Operator(_) => None,
            Actor::ApiKey { org, .. } => Some(*org),
            Actor::Agent(agent) => Some(agent.org),
        }
    }

    /// The family, as `WhoAmI` and the access table name it.
    pub fn family(&self) -> &'static str {
        match self {
            Actor::Operator(_) => "operator",
            Actor::ApiKey { .. } => "api-key",
            Actor::Agent(_) => "agent",
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Actor::Operator(id) => id.fmt(f),
            Actor::ApiKey { id, .. } => id.fmt(f),
            Actor::Agent(agent) => agent.id.fmt(f),
        }
    }
}

//! Orgs and what belongs to them, and the actors that are not agents.

use super::id::{ApiKeyId, EnvironmentId, MemberId, OperatorId, OrgId, ProjectId};
use super::time::Time;
use super::token::TokenHash;

/// An org: the top of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Org {
    /// Its id.
    pub id: OrgId,
    /// Its name, unique in the broker.
    pub name: String,
    /// What people call it.
    pub display_name: String,
    /// When it was made.
    pub created: Time,
}

/// A project of an org.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// The org.
    pub org: OrgId,
    /// Its name, unique in the org.
    pub name: String,
    /// What people call it.
    pub display_name: String,
    /// When it was made.
    pub created: Time,
}

/// An environment of a project: where agents are enrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Its id.
    pub id: EnvironmentId,
    /// The org.
    pub org: OrgId,
    /// The project.
    pub project: ProjectId,
    /// Its name, unique in the project.
    pub name: String,
    /// What people call it.
    pub display_name: String,
    /// When it was made.
    pub created: Time,
}

/// A human user of an org.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// The org.
    pub org: OrgId,
    /// Its name, unique in the org.
    pub name: String,
    /// What people call it.
    pub display_name: String,
    /// Outside identities, `system:subject`; each belongs to one member of the org at most.
    pub identities: Vec<String>,
    /// When it was made.
    pub created: Time,
}

/// A human operator of the whole broker.
#[derive(Clone, Debug)]
pub struct Operator {
    /// Its id.
    pub id: OperatorId,
    /// The hash of its token.
    pub token: TokenHash,
    /// What people call it.
    pub display_name: String,
    /// When it was made.
    pub created: Time,
    /// When its token expires; `None`: not by itself.
    pub expires: Option<Time>,
    /// When it was revoked.
    pub revoked: Option<Time>,
}

/// An org API key.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// The org it acts for.
    pub org: OrgId,
    /// The hash of its token.
    pub token: TokenHash,
    /// What people call it.
    pub display_name: String,
    /// When it was made.
    pub created: Time,
    /// When it expires.
    pub expires: Time,
    /// When it was revoked.
    pub revoked: Option<Time>,
}

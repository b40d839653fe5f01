//! Orgs and what belongs to them, and the actors that are not agents.

use super::agent::KeyFingerprint;
use super::approval::Posture;
use super::id::{ApiKeyId, EnvironmentId, MemberId, OperatorId, OrgId, ProjectId};
use super::role::{Grant, Role, Scope};
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
    /// Whether resolutions of its agents need an approval; `None` from before there were approvals: no.
    pub approval: Option<Posture>,
}

impl Environment {
    /// What it demands of resolutions by its agents.
    pub fn posture(&self) -> Posture {
        self.approval.unwrap_or_default()
    }
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
    /// The roles it holds in its org; `None`: it was never given any, and is a plain member of the whole org.
    pub grants: Option<Vec<Grant>>,
    /// When it was removed. What was its own has ended or is about to.
    pub removed: Option<Time>,
}

impl Member {
    /// The roles it holds.
    pub fn grants(&self) -> Vec<Grant> {
        self.grants.clone().unwrap_or_else(|| {
            vec![Grant {
                role: Role::Member,
                scope: Scope::Org(self.org),
            }]
        })
    }
}

/// An operator token, and who acts with it: a member of an org, or a human who is no org's member.
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
    /// The member whose token it is: it has the member's roles, as they stand at each call.
    pub member: Option<MemberOf>,
    /// The roles of an operator who is no member. `None` in the records of the first release, whose operators
    /// were all system admins.
    pub grants: Option<Vec<Grant>>,
    /// The token before the last rotation.
    pub previous: Option<PreviousToken>,
}

impl Operator {
    /// Whether the token, or the one before it, may be good at `now`.
    pub fn is_live(&self, now: Time) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|expires| now < expires)
    }

    /// Whether `presented` is a token of this operator that is good at `now`; if so until when, where it ends by
    /// itself.
    pub fn admit(&self, presented: &TokenHash, now: Time) -> Option<Option<Time>> {
        if !self.is_live(now) {
            return None;
        }
        if self.token.matches(presented) {
            return Some(self.expires);
        }
        let previous = self.previous.filter(|previous| previous.admits(presented, now))?;
        let until = self
            .expires
            .map_or(previous.until, |expires| expires.min(previous.until));
        Some(Some(until))
    }

    /// Whether this is a system admin who can act at `now`.
    pub fn is_system_admin(&self, now: Time) -> bool {
        self.member.is_none()
            && self.is_live(now)
            && self.grants().iter().any(|grant| grant.role == Role::SystemAdmin)
    }

    /// The roles of an operator who is no member.
    pub fn grants(&self) -> Vec<Grant> {
        self.grants.clone().unwrap_or_else(|| {
            vec![Grant {
                role: Role::SystemAdmin,
                scope: Scope::Broker,
            }]
        })
    }
}

/// A member, with its org.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberOf {
    /// The org.
    pub org: OrgId,
    /// The member.
    pub member: MemberId,
}

/// A token that was rotated away, and stays good for a while, so that its holders can change over.
#[derive(Clone, Copy, Debug)]
pub struct PreviousToken {
    /// Its hash.
    pub token: TokenHash,
    /// Until when it is good.
    pub until: Time,
}

impl PreviousToken {
    /// Whether `presented` is this token and still good at `now`.
    pub fn admits(&self, presented: &TokenHash, now: Time) -> bool {
        self.token.matches(presented) && now < self.until
    }
}

/// What an API key may be used for: each call of automation belongs to one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// Make, assign and end tasks.
    Tasks,
    /// Resolve for members and tasks of the org.
    Resolve,
    /// Mint and revoke enrollment tokens.
    Enrollment,
    /// See, lock and revoke agents.
    Agents,
    /// Read orgs, projects, environments and members.
    Directory,
    /// Read credentials, never their secrets.
    Credentials,
    /// Ask for approvals, and see them.
    Approvals,
    /// Have runtime keys checked.
    Introspect,
    /// Follow the org's events.
    Watch,
    /// Set and grant extension secrets.
    Secrets,
    /// Have proxy grants checked, as a model proxy of the org's own.
    Proxy,
    /// Connect and disconnect accounts on behalf of members.
    Accounts,
}

impl Group {
    /// All groups.
    pub const ALL: [Group; 12] = [
        Group::Tasks,
        Group::Resolve,
        Group::Enrollment,
        Group::Agents,
        Group::Directory,
        Group::Credentials,
        Group::Approvals,
        Group::Introspect,
        Group::Watch,
        Group::Secrets,
        Group::Proxy,
        Group::Accounts,
    ];

    /// What an API key may do where nothing was said: what a control plane needs to run tasks.
    pub const USUAL: [Group; 7] = [
        Group::Tasks,
        Group::Resolve,
        Group::Enrollment,
        Group::Agents,
        Group::Directory,
        Group::Credentials,
        Group::Watch,
    ];

    /// The name in requests, commands and the journal.
    pub const fn name(self) -> &'static str {
        match self {
            Group::Tasks => "tasks",
            Group::Resolve => "resolve",
            Group::Enrollment => "enrollment",
            Group::Agents => "agents",
            Group::Directory => "directory",
            Group::Credentials => "credentials",
            Group::Approvals => "approvals",
            Group::Introspect => "introspect",
            Group::Watch => "watch",
            Group::Secrets => "secrets",
            Group::Proxy => "proxy",
            Group::Accounts => "accounts",
        }
    }

    /// The group of this name.
    pub fn of(name: &str) -> Option<Group> {
        Group::ALL.into_iter().find(|group| group.name() == name)
    }
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
    /// The projects it is confined to; `None`: the whole org.
    pub projects: Option<Vec<ProjectId>>,
    /// What it may be used for. `None` in the records of the first release: [`Group::USUAL`].
    pub groups: Option<Vec<Group>>,
    /// The key of the client certificate it has to come with; `None`: it needs none.
    pub certificate: Option<KeyFingerprint>,
    /// The token before the last rotation.
    pub previous: Option<PreviousToken>,
    /// The key of the client certificate that the token before the last rotation has to come with.
    pub previous_certificate: Option<KeyFingerprint>,
}

impl ApiKey {
    /// Whether the token, or the one before it, may be good at `now`.
    pub fn is_live(&self, now: Time) -> bool {
        self.revoked.is_none() && now < self.expires
    }

    /// Whether `presented` is a token of this key that is good at `now`; if so until when, and the key of the
    /// client certificate that it has to come with. Each token comes with the certificate it was issued with.
    pub fn admit(&self, presented: &TokenHash, now: Time) -> Option<(Time, Option<KeyFingerprint>)> {
        if !self.is_live(now) {
            return None;
        }
        if self.token.matches(presented) {
            return Some((self.expires, self.certificate));
        }
        let previous = self.previous.filter(|previous| previous.admits(presented, now))?;
        Some((previous.until.min(self.expires), self.previous_certificate))
    }

    /// What it may be used for.
    pub fn groups(&self) -> Vec<Group> {
        self.groups.clone().unwrap_or_else(|| Group::USUAL.to_vec())
    }

    /// Whether it may be used for calls of this group.
    pub fn allows(&self, group: Group) -> bool {
        match &self.groups {
            Some(groups) => groups.contains(&group),
            None => Group::USUAL.contains(&group),
        }
    }
}

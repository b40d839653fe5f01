//! Roles, where they hold, and how far a caller's roles reach into the call it makes.
//!
//! A call's row in the access table names the roles that may make it. [`Reach`] is what remains of a caller's
//! roles under that row: the scopes in which the call may touch anything, those in which it may touch only
//! what is the caller's own, and those the caller may know of and no more. Nothing else decides about humans
//! and API keys.

use std::fmt;
use std::str::FromStr;

use super::id::{MemberId, OrgId, ProjectId};

/// What a human, or a service that acts for no org, may do within a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Everything, in every org.
    SystemAdmin,
    /// Everything in one org but approving.
    OrgAdmin,
    /// Works in the org: sees it, runs tasks of their own, keeps credentials of their own.
    Member,
    /// Reads everything, the journal too, and changes nothing.
    Auditor,
    /// Grants and denies approvals that somebody else asked for.
    Approver,
    /// A service: the platform's model proxy. Has proxy grants checked, gets the key to call the provider with, and
    /// reports usage. Nothing else.
    ModelProxy,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 6] = [
        Role::SystemAdmin,
        Role::OrgAdmin,
        Role::Member,
        Role::Auditor,
        Role::Approver,
        Role::ModelProxy,
    ];

    /// The name in commands, tables and the journal.
    pub const fn name(self) -> &'static str {
        match self {
            Role::SystemAdmin => "system-admin",
            Role::OrgAdmin => "org-admin",
            Role::Member => "member",
            Role::Auditor => "auditor",
            Role::Approver => "approver",
            Role::ModelProxy => "model-proxy",
        }
    }

    /// Whether the role can be held in a scope of this kind.
    pub const fn fits(self, scope: Scope) -> bool {
        match (self, scope) {
            (Role::SystemAdmin | Role::ModelProxy, Scope::Broker) | (Role::OrgAdmin, Scope::Org(_)) => true,
            (Role::SystemAdmin | Role::OrgAdmin | Role::ModelProxy, _)
            | (Role::Member | Role::Approver, Scope::Broker) => false,
            (Role::Member | Role::Auditor | Role::Approver, _) => true,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a role is one of system-admin, org-admin, member, auditor, approver, model-proxy")]
pub struct NoRole;

impl FromStr for Role {
    type Err = NoRole;

    fn from_str(text: &str) -> Result<Self, NoRole> {
        Role::ALL
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or(NoRole)
    }
}

/// Where a role holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// The whole broker.
    Broker,
    /// An org, whole.
    Org(OrgId),
    /// One project of an org.
    Project(OrgId, ProjectId),
}

impl Scope {
    /// Whether everything within `other` is within this one.
    pub fn covers(self, other: Scope) -> bool {
        match (self, other) {
            (Scope::Broker, _) => true,
            (Scope::Org(own), Scope::Org(org) | Scope::Project(org, _)) => own == org,
            (Scope::Project(..), Scope::Project(..)) => self == other,
            _ => false,
        }
    }

    /// The org it is in; `None` for the whole broker.
    pub fn org(self) -> Option<OrgId> {
        match self {
            Scope::Broker => None,
            Scope::Org(org) | Scope::Project(org, _) => Some(org),
        }
    }
}

/// A role held in a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Grant {
    /// The role.
    pub role: Role,
    /// Where it holds.
    pub scope: Scope,
}

impl Grant {
    /// Whether somebody who holds this may give `other` to somebody else: no role grants more than it has.
    pub fn may_give(self, other: Grant) -> bool {
        match self.role {
            Role::SystemAdmin => other.role.fits(other.scope),
            Role::OrgAdmin => {
                other.role != Role::SystemAdmin
                    && other.role.fits(other.scope)
                    && self.scope.covers(other.scope)
            }
            Role::Member | Role::Auditor | Role::Approver | Role::ModelProxy => false,
        }
    }
}

/// How far a role reaches in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Whatever is in the scope.
    All,
    /// What is the caller's own, in the scope.
    Own,
}

/// A role that may make a call, and how far it then reaches. System admins may make every call that takes
/// humans and are in no list.
pub type Rule = (Role, Extent);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    All,
    Own,
    Seen,
}

/// Where a caller may make the call at hand. Made for one call, from the caller's grants and the call's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach(Inner);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Inner {
    Everywhere,
    Org(OrgId),
    Areas(Box<[(Scope, Hold)]>),
}

impl Reach {
    /// Everything in every org.
    pub fn everywhere() -> Self {
        Self(Inner::Everywhere)
    }

    /// Everything in one org.
    pub fn org(org: OrgId) -> Self {
        Self(Inner::Org(org))
    }

    /// These projects of an org.
    pub fn projects(org: OrgId, projects: &[ProjectId]) -> Self {
        let area = |project: &ProjectId| (Scope::Project(org, *project), Hold::All);
        Self(Inner::Areas(projects.iter().map(area).collect()))
    }

    /// What `grants` come to in a call whose row names `rules`; `None` where they do not allow it at all.
    pub fn of(grants: &[Grant], rules: &[Rule]) -> Option<Self> {
        let hold = |grant: &Grant| {
            let extents = rules.iter().filter(|(role, _)| *role == grant.role);
            extents.fold(Hold::Seen, |held, (_, extent)| match (held, extent) {
                (_, Extent::All) | (Hold::All, _) => Hold::All,
                (_, Extent::Own) => Hold::Own,
            })
        };
        let areas: Box<[_]> = grants.iter().map(|grant| (grant.scope, hold(grant))).collect();
        let everywhere = grants.iter().any(|grant| grant.role == Role::SystemAdmin)
            || areas.contains(&(Scope::Broker, Hold::All));
        if everywhere {
            return Some(Self::everywhere());
        }
        let any = areas.iter().any(|(_, hold)| *hold != Hold::Seen);
        any.then_some(Self(Inner::Areas(areas)))
    }

    /// Whether it is everything in every org.
    pub fn is_everywhere(&self) -> bool {
        matches!(self.0, Inner::Everywhere)
    }

    /// The orgs it touches; `None`: all of them. Each once, at most one for each grant.
    pub fn orgs(&self) -> Option<Vec<OrgId>> {
        match &self.0 {
            Inner::Everywhere => None,
            Inner::Org(org) => Some(vec![*org]),
            Inner::Areas(areas) => {
                let mut orgs: Vec<_> = areas.iter().filter_map(|(scope, _)| scope.org()).collect();
                orgs.sort_unstable();
                orgs.dedup();
                Some(orgs)
            }
        }
    }

    /// How the caller, who is `me` where it is a member of the org, stands to an org.
    pub fn within(&self, org: OrgId, me: Option<MemberId>) -> Standing {
        let areas = match &self.0 {
            Inner::Everywhere => return Standing::Within(Within::whole()),
            Inner::Org(own) if *own == org => return Standing::Within(Within::whole()),
            Inner::Org(_) => return Standing::Outside,
            Inner::Areas(areas) => areas,
        };
        let mut standing = Standing::Outside;
        let mut within = Within {
            me,
            ..Within::default()
        };
        let here = areas
            .iter()
            .filter(|(scope, _)| *scope == Scope::Broker || scope.org() == Some(org));
        for (scope, hold) in here {
            match (*scope, *hold) {
                (_, Hold::Seen) => standing = standing.at_least_seen(),
                (Scope::Project(_, project), Hold::All) => within.projects.push(project),
                (_, Hold::All) => within.whole = true,
                (Scope::Project(_, project), Hold::Own) => within.own.push(Some(project)),
                (_, Hold::Own) => within.own.push(None),
            }
        }
        if within.whole || !within.projects.is_empty() || !within.own.is_empty() {
            standing = Standing::Within(within);
        }
        standing
    }
}

/// How a caller stands to an org, in the call at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is not to learn that the org exists.
    Outside,
    /// It knows the org, and may not make this call in it.
    Seen,
    /// It may make the call, this far.
    Within(Within),
}

impl Standing {
    fn at_least_seen(self) -> Self {
        match self {
            Standing::Outside => Standing::Seen,
            known => known,
        }
    }
}

/// How far a call reaches within one org.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Within {
    whole: bool,
    projects: Vec<ProjectId>,
    /// What is the caller's own: in these projects, or (`None`) anywhere in the org.
    own: Vec<Option<ProjectId>>,
    me: Option<MemberId>,
}

impl Within {
    fn whole() -> Self {
        Self {
            whole: true,
            ..Self::default()
        }
    }

    /// Whether the call may touch everything in the org.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// The projects in which the call may touch everything.
    pub fn projects(&self) -> &[ProjectId] {
        &self.projects
    }

    /// The member whose own things the call may touch, once for each project that is limited to; `None`: anywhere
    /// in the org.
    pub fn own(&self) -> impl Iterator<Item = (MemberId, Option<ProjectId>)> + '_ {
        self.me
            .into_iter()
            .flat_map(|me| self.own.iter().map(move |project| (me, *project)))
    }

    /// Whether it may touch what belongs to this project and this member; `None`: to none in particular.
    pub fn admits(&self, project: Option<ProjectId>, member: Option<MemberId>) -> bool {
        let mine = self.me.is_some() && self.me == member;
        self.whole
            || project.is_some_and(|project| self.projects.contains(&project))
            || mine && self.own.iter().any(|own| own.is_none() || *own == project)
    }

    /// Whether the caller has anything to do with this project.
    pub fn sees_project(&self, project: ProjectId) -> bool {
        self.whole
            || self.projects.contains(&project)
            || self.own.iter().any(|own| own.is_none_or(|own| own == project))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Id;

    fn org(byte: u8) -> OrgId {
        Id::from_bytes([byte; 16])
    }

    fn project(byte: u8) -> ProjectId {
        Id::from_bytes([byte; 16])
    }

    fn me() -> MemberId {
        Id::from_bytes([9; 16])
    }

    const RULES: &[Rule] = &[
        (Role::OrgAdmin, Extent::All),
        (Role::Auditor, Extent::All),
        (Role::Member, Extent::Own),
    ];

    fn grant(role: Role, scope: Scope) -> Grant {
        Grant { role, scope }
    }

    fn within(grants: &[Grant], at: OrgId) -> Standing {
        Reach::of(grants, RULES).unwrap().within(at, Some(me()))
    }

    #[test]
    fn a_role_reaches_its_scope_and_nothing_beside_it() {
        let admin = [grant(Role::OrgAdmin, Scope::Org(org(1)))];
        assert!(matches!(within(&admin, org(1)), Standing::Within(within) if within.is_whole()));
        assert_eq!(within(&admin, org(2)), Standing::Outside);
        let auditor = [grant(Role::Auditor, Scope::Project(org(1), project(1)))];
        let Standing::Within(narrow) = within(&auditor, org(1)) else {
            panic!("not within")
        };
        assert!(!narrow.is_whole() && narrow.admits(Some(project(1)), None));
        assert!(!narrow.admits(Some(project(2)), None) && !narrow.admits(None, Some(me())));
    }

    #[test]
    fn own_is_what_is_the_callers_and_in_the_scope() {
        let member = [grant(Role::Member, Scope::Project(org(1), project(1)))];
        let Standing::Within(own) = within(&member, org(1)) else {
            panic!("not within")
        };
        assert!(own.admits(Some(project(1)), Some(me())));
        assert!(!own.admits(Some(project(2)), Some(me())));
        assert!(!own.admits(Some(project(1)), Some(Id::from_bytes([8; 16]))));
        assert!(!own.admits(Some(project(1)), None) && !own.is_whole());
    }

    #[test]
    fn a_role_the_row_does_not_name_makes_the_org_known_and_no_more() {
        let grants = [
            grant(Role::Approver, Scope::Org(org(1))),
            grant(Role::OrgAdmin, Scope::Org(org(2))),
        ];
        assert_eq!(within(&grants, org(1)), Standing::Seen);
        assert_eq!(Reach::of(&grants[..1], RULES), None);
        assert_eq!(Reach::of(&[], RULES), None);
    }

    #[test]
    fn nobody_gives_more_than_they_have() {
        let system = grant(Role::SystemAdmin, Scope::Broker);
        let admin = grant(Role::OrgAdmin, Scope::Org(org(1)));
        assert!(system.may_give(system) && system.may_give(admin));
        assert!(admin.may_give(grant(Role::Approver, Scope::Project(org(1), project(1)))));
        assert!(admin.may_give(admin) && !admin.may_give(system));
        assert!(!admin.may_give(grant(Role::OrgAdmin, Scope::Org(org(2)))));
        assert!(!admin.may_give(grant(Role::Auditor, Scope::Broker)));
        for role in [Role::Member, Role::Auditor, Role::Approver, Role::ModelProxy] {
            let holder = grant(role, Scope::Org(org(1)));
            assert!(!holder.may_give(holder), "{role} cannot give itself away");
        }
    }
}

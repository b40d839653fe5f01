//! Roles: who holds which, and giving and taking them. Nobody gives, or takes away, more than they have.

use std::sync::Arc;

use super::Broker;
use super::effect::Undone;
use super::operator_tokens::{ATTEMPTS, NamedGrant, last_admin, told};
use super::page::{Page, PageRequest};
use super::scope::parse_id;
use crate::domain::actor::Caller;
use crate::domain::directory::{Member, Operator};
use crate::domain::id::{MemberId, OperatorId, OrgId};
use crate::domain::journal::Action;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::role::{Grant, Role, Scope};
use crate::store::keys;
use crate::store::record::{Changes, Stored};

/// Whose roles are meant, as a request names them.
#[derive(Clone, Copy, Debug)]
pub enum RoleSubject<'a> {
    /// A member of an org.
    Member {
        /// The org; empty: the caller's own.
        org: &'a str,
        /// The member: id or name.
        member: &'a str,
    },
    /// An operator who is no org's member, by id.
    Operator(&'a str),
}

/// Whether a role is given or taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleChange {
    /// Given.
    Grant,
    /// Taken away.
    Revoke,
}

/// Who holds roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HolderId {
    /// A member.
    Member(OrgId, MemberId),
    /// An operator who is no org's member.
    Operator(OperatorId),
}

/// A holder and the roles.
#[derive(Clone, Debug)]
pub struct RoleHolder {
    /// Who.
    pub id: HolderId,
    /// The member's name, or what people call the operator.
    pub name: String,
    /// The roles.
    pub grants: Vec<Grant>,
}

/// How many roles a holder has at most: its record has to fit in one value of the store.
const MAX_GRANTS: usize = 64;
/// What a member's names and identities and the roles take together at most, in bytes, for the same reason.
const MAX_BYTES: usize = 3_500;
/// What one role takes.
const GRANT_BYTES: usize = 44;

impl RoleChange {
    fn action(self) -> Action {
        match self {
            RoleChange::Grant => Action::RoleGrant,
            RoleChange::Revoke => Action::RoleRevoke,
        }
    }

    /// The roles after the change; `None` where it changes nothing.
    fn apply(self, grants: &[Grant], grant: Grant) -> Option<Vec<Grant>> {
        let mut new = grants.to_vec();
        match self {
            RoleChange::Grant if new.contains(&grant) => return None,
            RoleChange::Grant => new.push(grant),
            RoleChange::Revoke => new.retain(|held| *held != grant),
        }
        (new.len() != grants.len()).then_some(new)
    }
}

fn too_many() -> Refusal {
    Refusal::new(
        Reason::TooManyRoles,
        format!("the holder would have more than {MAX_GRANTS} roles, or more than fit its record"),
    )
}

fn fits(member: &Member, grants: &[Grant]) -> bool {
    let identities: usize = member.identities.iter().map(|identity| identity.len() + 3).sum();
    let names = member.name.len() + member.display_name.len();
    grants.len() <= MAX_GRANTS && identities + names + grants.len() * GRANT_BYTES <= MAX_BYTES
}

fn holder_of(member: &Member) -> RoleHolder {
    RoleHolder {
        id: HolderId::Member(member.org, member.id),
        name: member.name.clone(),
        grants: member.grants(),
    }
}

fn operator_holder(operator: &Operator) -> RoleHolder {
    RoleHolder {
        id: HolderId::Operator(operator.id),
        name: operator.display_name.clone(),
        grants: operator.grants(),
    }
}

fn checked(grant: Grant) -> Result<Grant, Refusal> {
    if grant.role.fits(grant.scope) {
        return Ok(grant);
    }
    let scopes = match grant.role {
        Role::SystemAdmin | Role::ModelProxy => "in the whole broker",
        Role::OrgAdmin => "in an org",
        Role::Auditor => "anywhere",
        Role::Member | Role::Approver => "in an org or a project",
    };
    Err(Refusal::invalid(
        "role",
        format!("{} is a role {scopes}, and of nothing else", grant.role),
    ))
}

impl Broker {
    /// Lets pass a caller who may give all of these; the refusal is recorded.
    pub(super) async fn may_give(
        &self,
        caller: &Caller,
        grants: &[Grant],
        action: Action,
        org: OrgId,
    ) -> Result<(), Refusal> {
        let held = self.grants_of(caller).await?;
        let given = |grant: &Grant| held.iter().any(|own| own.may_give(*grant));
        match grants.iter().find(|grant| !given(grant)) {
            None => Ok(()),
            Some(grant) => {
                let record = caller.record(action, Some(org)).about("role", told(*grant));
                Err(self.denied(record, more_than_held(*grant)).await)
            }
        }
    }

    /// The roles of a human who is no org's member, for a caller who may give them.
    pub(super) async fn grants_apart(
        &self,
        caller: &Caller,
        named: &[NamedGrant],
    ) -> Result<Vec<Grant>, Refusal> {
        self.only_system_admins(caller, Action::OperatorCreate).await?;
        if named.len() > MAX_GRANTS {
            return Err(too_many());
        }
        let mut grants = Vec::with_capacity(named.len());
        for named in named {
            let grant = self.grant_apart(caller, named).await?;
            if !grants.contains(&grant) {
                grants.push(grant);
            }
        }
        Ok(grants)
    }

    /// Operators who are no members are the system admins' affair; others learn nothing of them.
    async fn only_system_admins(&self, caller: &Caller, action: Action) -> Result<(), Refusal> {
        let held = self.grants_of(caller).await?;
        if held.iter().any(|grant| grant.role == Role::SystemAdmin) {
            return Ok(());
        }
        let refusal = Refusal::new(
            Reason::PermissionDenied,
            "only system admins make operators who are no org's members, and see or change their roles",
        );
        Err(self.denied(caller.record(action, caller.org()), refusal).await)
    }

    async fn grant_apart(&self, caller: &Caller, named: &NamedGrant) -> Result<Grant, Refusal> {
        let scope = match (named.org.as_str(), named.project.as_str()) {
            ("", "") => Scope::Broker,
            ("", _) => return Err(Refusal::invalid("org", "a project's role names its org too")),
            (org, "") => Scope::Org(self.org_id(caller, org).await?),
            (org, project) => {
                let org = self.org_id(caller, org).await?;
                Scope::Project(org, self.project(org, project).await?.value.id)
            }
        };
        checked(Grant {
            role: named.role,
            scope,
        })
    }

    async fn members_grant(&self, caller: &Caller, org: OrgId, named: &NamedGrant) -> Result<Grant, Refusal> {
        if named.role == Role::SystemAdmin {
            return Ok(Grant {
                role: named.role,
                scope: Scope::Broker,
            });
        }
        if !named.org.is_empty() && self.org_id(caller, &named.org).await? != org {
            return Err(Refusal::invalid(
                "org",
                "a member's roles are in the member's own org",
            ));
        }
        let scope = match named.project.as_str() {
            "" => Scope::Org(org),
            project => Scope::Project(org, self.project(org, project).await?.value.id),
        };
        checked(Grant {
            role: named.role,
            scope,
        })
    }

    /// Gives a role, or takes one away. What is so already changes nothing.
    pub async fn change_role(
        self: &Arc<Self>,
        caller: &Caller,
        subject: RoleSubject<'_>,
        change: RoleChange,
        named: &NamedGrant,
    ) -> Result<RoleHolder, Refusal> {
        for _ in 0..ATTEMPTS {
            let tried = match subject {
                RoleSubject::Member { org, member } => {
                    self.change_members_role(caller, org, member, change, named).await
                }
                RoleSubject::Operator(id) => self.change_operators_role(caller, id, change, named).await,
            };
            match tried {
                Err(Undone::Conflict) => {}
                tried => return Ok(tried?),
            }
        }
        Err(Undone::Conflict.into())
    }

    async fn change_members_role(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        member: &str,
        change: RoleChange,
        named: &NamedGrant,
    ) -> Result<RoleHolder, Undone> {
        let org = self.org_id(caller, org).await?;
        let stored = self.member(org, member).await?;
        let grant = self.members_grant(caller, org, named).await?;
        self.may_give(caller, &[grant], change.action(), org).await?;
        if grant.role == Role::SystemAdmin {
            let message = "a member's roles are in the member's own org: make an operator who is no member";
            return Err(Refusal::invalid("role", message).into());
        }
        let Some(grants) = change.apply(&stored.value.grants(), grant) else {
            return Ok(holder_of(&stored.value));
        };
        if change == RoleChange::Grant && !fits(&stored.value, &grants) {
            return Err(too_many().into());
        }
        let value = Member {
            grants: Some(grants),
            ..Member::clone(&stored.value)
        };
        let key = keys::member(org, value.id);
        let (giver, revision) = self.still_live(caller).await?;
        let mut changes = Changes::default();
        if giver != key {
            changes = changes.at(&giver, revision);
        }
        changes = changes.at(&key, stored.revision);
        changes = changes.put(&key, &value);
        let record = caller
            .record(change.action(), Some(org))
            .about("member", value.id)
            .about("role", told(grant));
        self.effect(record, changes).await?;
        self.end_streams_of_former(change, value.id.as_bytes());
        Ok(holder_of(&value))
    }

    async fn change_operators_role(
        self: &Arc<Self>,
        caller: &Caller,
        id: &str,
        change: RoleChange,
        named: &NamedGrant,
    ) -> Result<RoleHolder, Undone> {
        self.only_system_admins(caller, change.action()).await?;
        let key = keys::operator(parse_id("operator", id)?);
        let stored: Stored<Operator> = self.read(&key, "operator").await?;
        if stored.value.member.is_some() {
            let message = "this token is a member's, and has the member's roles: name the member";
            return Err(Refusal::invalid("operator", message).into());
        }
        let grant = self.grant_apart(caller, named).await?;
        let Some(grants) = change.apply(&stored.value.grants(), grant) else {
            return Ok(operator_holder(&stored.value));
        };
        if change == RoleChange::Grant && grants.len() > MAX_GRANTS {
            return Err(too_many().into());
        }
        let record = caller
            .record(change.action(), grant.scope.org())
            .about("operator", stored.value.id)
            .about("role", told(grant));
        let mut changes = Changes::default();
        let (giver, revision) = self.still_live(caller).await?;
        if giver != key {
            changes = changes.at(&giver, revision);
        }
        let value = Operator {
            grants: Some(grants),
            ..Operator::clone(&stored.value)
        };
        if stored.value.is_system_admin(self.now()) && !value.is_system_admin(self.now()) {
            match self.another_system_admin(value.id).await? {
                // The giver is guarded already where it is the one.
                Some((witness, _)) if witness == giver => {}
                Some((witness, revision)) => changes = changes.at(&witness, revision),
                None => return Err(self.denied(record, last_admin()).await.into()),
            }
        }
        changes = changes.at(&key, stored.revision);
        changes = changes.put(&key, &value);
        self.effect(record, changes).await?;
        self.end_streams_of_former(change, value.id.as_bytes());
        Ok(operator_holder(&value))
    }

    /// What a stream shows was decided when it was opened; its holder opens it again with the roles that are left.
    fn end_streams_of_former(&self, change: RoleChange, holder: &[u8; 16]) {
        if change == RoleChange::Revoke {
            let refusal = Refusal::new(
                Reason::PermissionDenied,
                "a role of the caller was revoked: open the stream again",
            );
            self.streams.end(*holder, &refusal);
        }
    }

    /// Who holds roles: the org's members or, without an org, the operators who are no members. A page may be
    /// shorter than asked for and still not be the last.
    pub async fn list_roles(
        &self,
        caller: &Caller,
        org: &str,
        page: PageRequest<'_>,
    ) -> Result<Page<RoleHolder>, Refusal> {
        if org.is_empty() && caller.org().is_none() {
            if !caller.reach().is_everywhere() {
                return Err(Refusal::invalid(
                    "org",
                    "org is required: whose members are meant",
                ));
            }
            let mut page = self.page::<Operator>(&keys::operators(), page).await?;
            page.rows
                .retain(|row| row.value.member.is_none() && row.value.revoked.is_none());
            return Ok(page.map(|row| operator_holder(&row.value)));
        }
        let place = self.place(caller, org).await?;
        let me = caller.member_of(place.id());
        let mut page = self.page::<Member>(&keys::members(place.id()), page).await?;
        page.rows.retain(|row| {
            let seen = place.within.is_whole() || me == Some(row.value.id);
            seen && row.value.removed.is_none()
        });
        Ok(page.map(|row| holder_of(&row.value)))
    }
}

fn more_than_held(grant: Grant) -> Refusal {
    Refusal::new(
        Reason::PermissionDenied,
        format!("you cannot give {}: nobody gives more than they have", grant.role),
    )
}

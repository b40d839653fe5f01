//! References: an id or a name becomes an id that the caller may see.
//!
//! What the caller may not see is reported exactly like what does not exist: same reason, same message.

use super::Broker;
use crate::domain::actor::Caller;
use crate::domain::directory::{Environment, Member, Org, Project};
use crate::domain::id::{EnvironmentId, Id, Kind, MemberId, OrgId, ProjectId};
use crate::domain::name::Name;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::role::{Standing, Within};
use crate::store::keys::{self, Key};
use crate::store::model::{Home, Pointer};
use crate::store::record::Stored;

/// An org, and how far the call at hand reaches in it.
pub(super) struct Place {
    pub(super) org: Stored<Org>,
    pub(super) within: Within,
}

impl Place {
    pub(super) fn id(&self) -> OrgId {
        self.org.value.id
    }

    /// Lets pass a project that the caller has anything to do with.
    pub(super) fn sees(&self, project: ProjectId, what: &'static str) -> Result<(), Refusal> {
        if self.within.sees_project(project) {
            Ok(())
        } else {
            Err(Refusal::not_found(what))
        }
    }

    /// Lets pass what belongs to this project and this member. What the call does not reach looks like what does
    /// not exist.
    pub(super) fn admit(
        &self,
        what: &'static str,
        project: Option<ProjectId>,
        member: Option<MemberId>,
    ) -> Result<(), Refusal> {
        if self.within.admits(project, member) {
            Ok(())
        } else {
            Err(Refusal::not_found(what))
        }
    }
}

/// A reference, as a request has it.
enum Reference<K> {
    Id(Id<K>),
    Name(Name),
}

fn parse<K: Kind>(field: &'static str, text: &str) -> Result<Reference<K>, Refusal> {
    if text.is_empty() {
        return Err(Refusal::invalid(
            field,
            format!("{field} is required: an id or a name"),
        ));
    }
    if let Ok(id) = text.parse() {
        return Ok(Reference::Id(id));
    }
    text.parse().map(Reference::Name).map_err(|_| {
        Refusal::invalid(
            field,
            format!("{field} is neither an id ({}_…) nor a name", K::PREFIX),
        )
    })
}

/// Parses an id of the field `field`.
pub(super) fn parse_id<K: Kind>(field: &'static str, text: &str) -> Result<Id<K>, Refusal> {
    text.parse()
        .map_err(|malformed| Refusal::invalid(field, format!("{field}: {malformed}")))
}

impl Broker {
    pub(super) async fn pointed<K: Kind>(&self, key: &Key) -> Result<Option<Id<K>>, Refusal> {
        let pointer = self.records.get::<Pointer>(key).await?;
        Ok(pointer.map(|pointer| Id::from_bytes(*pointer.value.id)))
    }

    /// The org that `text` names, and how far the caller's call reaches in it; empty means the caller's own org,
    /// where it has one.
    pub(super) async fn place(&self, caller: &Caller, text: &str) -> Result<Place, Refusal> {
        let missing = || Refusal::not_found("org");
        let id = match (caller.org(), text) {
            (Some(own), "") => own,
            _ => match parse("org", text)? {
                Reference::Id(id) => id,
                Reference::Name(name) => self
                    .pointed(&keys::org_name(name.as_str()))
                    .await?
                    .ok_or_else(missing)?,
            },
        };
        let org = self.records.get::<Org>(&keys::org(id)).await?;
        match (org, caller.reach().within(id, caller.member_of(id))) {
            (None, _) | (_, Standing::Outside) => Err(missing()),
            (Some(_), Standing::Seen) => Err(Refusal::new(
                Reason::PermissionDenied,
                "none of your roles in this org may make this call",
            )),
            (Some(org), Standing::Within(within)) => Ok(Place { org, within }),
        }
    }

    /// As [`Broker::place`], for a call that any reach into the org is enough for.
    pub(super) async fn org(&self, caller: &Caller, text: &str) -> Result<Stored<Org>, Refusal> {
        Ok(self.place(caller, text).await?.org)
    }

    /// As [`Broker::place`], for a call that takes the whole org: a reach into some projects, or to what is the
    /// caller's own, does not do.
    pub(super) async fn org_id(&self, caller: &Caller, text: &str) -> Result<OrgId, Refusal> {
        let place = self.place(caller, text).await?;
        if !place.within.is_whole() {
            return Err(Refusal::new(
                Reason::PermissionDenied,
                "this call takes a role, or an API key, for the whole org",
            ));
        }
        Ok(place.id())
    }

    /// A project of the org.
    pub(super) async fn project(&self, org: OrgId, text: &str) -> Result<Stored<Project>, Refusal> {
        let missing = || Refusal::not_found("project");
        let id: ProjectId = match parse("project", text)? {
            Reference::Id(id) => id,
            Reference::Name(name) => self
                .pointed(&keys::project_name(org, name.as_str()))
                .await?
                .ok_or_else(missing)?,
        };
        self.records
            .get(&keys::project(org, id))
            .await?
            .ok_or_else(missing)
    }

    /// An environment of the org; by name only together with its project.
    pub(super) async fn environment(
        &self,
        org: OrgId,
        project: &str,
        text: &str,
    ) -> Result<Stored<Environment>, Refusal> {
        let missing = || Refusal::not_found("environment");
        let id: EnvironmentId = match parse("environment", text)? {
            Reference::Id(id) => id,
            Reference::Name(name) => {
                let project = self.project(org, project).await?.value.id;
                let key = keys::environment_name(org, project, name.as_str());
                self.pointed(&key).await?.ok_or_else(missing)?
            }
        };
        self.records
            .get(&keys::environment(org, id))
            .await?
            .ok_or_else(missing)
    }

    /// A member of the org.
    pub(super) async fn member(&self, org: OrgId, text: &str) -> Result<Stored<Member>, Refusal> {
        let missing = || Refusal::not_found("member");
        let id: MemberId = match parse("member", text)? {
            Reference::Id(id) => id,
            Reference::Name(name) => self
                .pointed(&keys::member_name(org, name.as_str()))
                .await?
                .ok_or_else(missing)?,
        };
        let stored = self.records.get::<Member>(&keys::member(org, id)).await?;
        stored
            .filter(|stored| stored.value.removed.is_none())
            .ok_or_else(missing)
    }

    /// Somebody who is a member of the org or was removed from it.
    pub(super) async fn member_ever(&self, org: OrgId, text: &str) -> Result<MemberId, Refusal> {
        let missing = || Refusal::not_found("member");
        match parse("member", text)? {
            Reference::Id(id) => Ok(id),
            Reference::Name(name) => {
                let key = keys::member_name(org, name.as_str());
                self.pointed(&key).await?.ok_or_else(missing)
            }
        }
    }

    /// A member of the org by name or id or, where that is empty, by outside identity.
    pub(super) async fn member_or_identity(
        &self,
        org: OrgId,
        text: &str,
        identity: &str,
    ) -> Result<Stored<Member>, Refusal> {
        if !text.is_empty() || identity.is_empty() {
            return self.member(org, text).await;
        }
        let missing = || Refusal::not_found("member");
        let id: MemberId = self
            .pointed(&keys::member_identity(org, identity))
            .await?
            .ok_or_else(missing)?;
        let stored = self.records.get::<Member>(&keys::member(org, id)).await?;
        stored
            .filter(|stored| stored.value.removed.is_none())
            .ok_or_else(missing)
    }

    /// The org that an API key or enrollment token belongs to.
    pub(super) async fn home(&self, key: &Key) -> Result<Option<OrgId>, Refusal> {
        Ok(self.records.get::<Home>(key).await?.map(|home| home.value.org))
    }
}

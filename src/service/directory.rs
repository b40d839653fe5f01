//! Orgs, projects, environments and members: make, read, change.

mod link;
mod update;

use std::sync::Arc;

use super::Broker;
use super::effect::Undone;
use super::page::{Page, PageRequest};
use super::request::Repeatable;
use crate::domain::actor::Caller;
use crate::domain::approval::Posture;
use crate::domain::directory::{Environment, Member, Org, Project};
use crate::domain::id::{Id, Kind, OrgId};
use crate::domain::journal::Action;
use crate::domain::name::Name;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::store::keys::{self, Key};
use crate::store::model::Pointer;
use crate::store::record::{Changes, Record as Stores, Stored};
pub use link::{IdentityLink, LinkIdentities, LinkOutcome};

/// What every new resource has.
#[derive(Clone, Copy, Debug)]
pub struct NewNamed<'a> {
    /// Its name.
    pub name: &'a str,
    /// What people call it.
    pub display_name: &'a str,
    /// From the request.
    pub request_id: &'a str,
}

/// A change to one resource.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change<'a> {
    /// The revision the caller read, where it gave one.
    pub revision: Option<u64>,
    /// The new display name.
    pub display_name: Option<&'a str>,
    /// The new outside identities of a member.
    pub identities: Option<&'a [String]>,
    /// What an environment demands from now on.
    pub approval: Option<Posture>,
}

const MAX_DISPLAY_NAME: usize = 128;

pub(super) fn checked_display_name(text: &str) -> Result<String, Refusal> {
    if text.chars().count() > MAX_DISPLAY_NAME || text.chars().any(char::is_control) {
        return Err(Refusal::invalid(
            "display_name",
            "display_name is at most 128 characters, none of them control characters",
        ));
    }
    Ok(text.to_owned())
}

/// A new resource on its way into the store.
struct Creation<'a, K: Kind, T> {
    org: OrgId,
    id: Id<K>,
    key: fn(OrgId, Id<K>) -> Key,
    names: Vec<Key>,
    value: T,
    action: Action,
    create: Repeatable<'a>,
}

impl Broker {
    async fn create_named<K: Kind, T: Stores>(
        self: &Arc<Self>,
        creation: Creation<'_, K, T>,
    ) -> Result<Stored<T>, Refusal> {
        let Creation {
            org,
            id,
            key,
            names,
            value,
            action,
            create,
        } = creation;
        let at = key(org, id);
        let mut changes = Changes::default();
        changes = changes.absent(&at);
        changes = changes.put(&at, &value);
        for name in &names {
            changes = changes.absent(name);
            changes = changes.put(
                name,
                &Pointer {
                    id: (*id.as_bytes()).into(),
                },
            );
        }
        changes = self.remember(changes, org, create, id);
        let record = create
            .caller
            .record(action, Some(org))
            .about(K::PREFIX, id)
            .request(create.request_id);
        match self.effect(record, changes).await {
            Ok(done) => Ok(Stored {
                value: Arc::new(value),
                revision: done.revision,
            }),
            Err(Undone::Refused(refusal)) => Err(refusal),
            Err(Undone::Conflict) => {
                // A repeat that raced with the first: it lost, and what the first made is its answer.
                match self.made_before::<K>(org, create).await? {
                    Some(id) => self.read(&key(org, id), "resource").await,
                    None => Err(Refusal::new(Reason::AlreadyExists, "the name is taken")),
                }
            }
        }
    }

    pub(super) async fn read<T: Stores>(&self, key: &Key, what: &'static str) -> Result<Stored<T>, Refusal> {
        self.records
            .get(key)
            .await?
            .ok_or_else(|| Refusal::not_found(what))
    }

    /// Makes an org.
    pub async fn create_org(
        self: &Arc<Self>,
        caller: &Caller,
        new: NewNamed<'_>,
    ) -> Result<Stored<Org>, Refusal> {
        let name: Name = checked_name(new.name)?;
        let display_name = checked_display_name(new.display_name)?;
        let content: [&[u8]; 2] = [name.as_str().as_bytes(), display_name.as_bytes()];
        let create = Repeatable {
            caller,
            call: "org",
            request_id: new.request_id,
            content: &content,
        };
        create.check()?;
        // What made an org is remembered in the org itself, which the name leads to: it is unique and for good.
        if let Some(pointer) = self
            .records
            .get::<Pointer>(&keys::org_name(name.as_str()))
            .await?
        {
            let org: OrgId = Id::from_bytes(*pointer.value.id);
            return match self.made_before(org, create).await? {
                Some(id) => self.read(&keys::org(id), "org").await,
                None => Err(Refusal::new(
                    Reason::AlreadyExists,
                    format!("there is an org {name} already"),
                )),
            };
        }
        let id = self.new_id()?;
        let org = Org {
            id,
            name: name.to_string(),
            display_name: display_name.clone(),
            created: self.now(),
        };
        let creation = Creation {
            org: id,
            id,
            key: |_, id| keys::org(id),
            names: vec![keys::org_name(name.as_str())],
            value: org,
            action: Action::OrgCreate,
            create,
        };
        self.create_named(creation).await
    }

    /// An org.
    pub async fn get_org(&self, caller: &Caller, org: &str) -> Result<Stored<Org>, Refusal> {
        self.org(caller, org).await
    }

    /// The orgs the caller may see.
    pub async fn list_orgs(
        &self,
        caller: &Caller,
        page: PageRequest<'_>,
    ) -> Result<Page<Stored<Org>>, Refusal> {
        let Some(orgs) = caller.reach().orgs() else {
            return self.page(&keys::orgs(), page).await;
        };
        // As many as the caller has roles: one page, whatever size was asked for.
        let mut rows = Vec::with_capacity(orgs.len());
        for org in orgs {
            rows.extend(self.records.get(&keys::org(org)).await?);
        }
        Ok(Page {
            rows,
            next: String::new(),
        })
    }

    /// Makes a project.
    pub async fn create_project(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        new: NewNamed<'_>,
    ) -> Result<Stored<Project>, Refusal> {
        let org = self.org_id(caller, org).await?;
        let name = checked_name(new.name)?;
        let display_name = checked_display_name(new.display_name)?;
        let content: [&[u8]; 2] = [name.as_str().as_bytes(), display_name.as_bytes()];
        let create = Repeatable {
            caller,
            call: "project",
            request_id: new.request_id,
            content: &content,
        };
        if let Some(id) = self.made_before(org, create).await? {
            return self.read(&keys::project(org, id), "project").await;
        }
        let id = self.new_id()?;
        let created = self.now();
        let display = display_name.clone();
        let value = Project {
            id,
            org,
            name: name.to_string(),
            display_name: display,
            created,
        };
        let names = vec![keys::project_name(org, name.as_str())];
        let action = Action::ProjectCreate;
        self.create_named(Creation {
            org,
            id,
            key: keys::project,
            names,
            value,
            action,
            create,
        })
        .await
    }

    /// A project.
    pub async fn get_project(
        &self,
        caller: &Caller,
        org: &str,
        project: &str,
    ) -> Result<Stored<Project>, Refusal> {
        let place = self.place(caller, org).await?;
        let stored = self.project(place.id(), project).await?;
        place.sees(stored.value.id, "project")?;
        Ok(stored)
    }

    /// The org's projects.
    pub async fn list_projects(
        &self,
        caller: &Caller,
        org: &str,
        page: PageRequest<'_>,
    ) -> Result<Page<Stored<Project>>, Refusal> {
        let place = self.place(caller, org).await?;
        let mut page = self.page::<Project>(&keys::projects(place.id()), page).await?;
        page.rows.retain(|row| place.within.sees_project(row.value.id));
        Ok(page)
    }

    /// Makes an environment.
    pub async fn create_environment(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        project: &str,
        new: NewNamed<'_>,
        approval: Posture,
    ) -> Result<Stored<Environment>, Refusal> {
        let org = self.org_id(caller, org).await?;
        let project = self.project(org, project).await?.value.id;
        let name = checked_name(new.name)?;
        let display_name = checked_display_name(new.display_name)?;
        let mut content: Vec<&[u8]> = vec![
            project.as_bytes(),
            name.as_str().as_bytes(),
            display_name.as_bytes(),
        ];
        if approval == Posture::Required {
            content.push(b"approval");
        }
        let create = Repeatable {
            caller,
            call: "environment",
            request_id: new.request_id,
            content: &content,
        };
        if let Some(id) = self.made_before(org, create).await? {
            return self.read(&keys::environment(org, id), "environment").await;
        }
        let id = self.new_id()?;
        let created = self.now();
        let display = display_name.clone();
        let value = Environment {
            id,
            org,
            project,
            name: name.to_string(),
            display_name: display,
            created,
            approval: Some(approval),
        };
        let names = vec![keys::environment_name(org, project, name.as_str())];
        let action = Action::EnvironmentCreate;
        self.create_named(Creation {
            org,
            id,
            key: keys::environment,
            names,
            value,
            action,
            create,
        })
        .await
    }

    /// An environment.
    pub async fn get_environment(
        &self,
        caller: &Caller,
        org: &str,
        project: &str,
        environment: &str,
    ) -> Result<Stored<Environment>, Refusal> {
        let place = self.place(caller, org).await?;
        let stored = self.environment(place.id(), project, environment).await?;
        place.sees(stored.value.project, "environment")?;
        Ok(stored)
    }

    /// The org's environments, or those of one project. A page of one project may be shorter than asked for
    /// and still not be the last.
    pub async fn list_environments(
        &self,
        caller: &Caller,
        org: &str,
        project: &str,
        page: PageRequest<'_>,
    ) -> Result<Page<Stored<Environment>>, Refusal> {
        let place = self.place(caller, org).await?;
        let mut rows = self
            .page::<Environment>(&keys::environments(place.id()), page)
            .await?;
        rows.rows
            .retain(|row| place.within.sees_project(row.value.project));
        if !project.is_empty() {
            let project = self.project(place.id(), project).await?.value.id;
            rows.rows.retain(|row| row.value.project == project);
        }
        Ok(rows)
    }

    /// Makes a member.
    pub async fn create_member(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        new: NewNamed<'_>,
        identities: &[String],
    ) -> Result<Stored<Member>, Refusal> {
        let org = self.org_id(caller, org).await?;
        let name = checked_name(new.name)?;
        let display_name = checked_display_name(new.display_name)?;
        let identities = self.checked_identities(org, &[], identities).await?;
        let mut content: Vec<&[u8]> = vec![name.as_str().as_bytes(), display_name.as_bytes()];
        content.extend(identities.iter().map(String::as_bytes));
        let create = Repeatable {
            caller,
            call: "member",
            request_id: new.request_id,
            content: &content,
        };
        if let Some(id) = self.made_before(org, create).await? {
            return self.read(&keys::member(org, id), "member").await;
        }
        let id = self.new_id()?;
        let mut names = vec![keys::member_name(org, name.as_str())];
        names.extend(
            identities
                .iter()
                .map(|identity| keys::member_identity(org, identity)),
        );
        let value = Member {
            id,
            org,
            name: name.to_string(),
            display_name: display_name.clone(),
            identities: identities.clone(),
            created: self.now(),
            grants: None,
            removed: None,
        };
        let action = Action::MemberCreate;
        self.create_named(Creation {
            org,
            id,
            key: keys::member,
            names,
            value,
            action,
            create,
        })
        .await
    }

    /// A member.
    pub async fn get_member(
        &self,
        caller: &Caller,
        org: &str,
        member: &str,
    ) -> Result<Stored<Member>, Refusal> {
        let place = self.place(caller, org).await?;
        let stored = self.member(place.id(), member).await?;
        place.admit("member", None, Some(stored.value.id))?;
        Ok(stored)
    }

    /// The org's members.
    pub async fn list_members(
        &self,
        caller: &Caller,
        org: &str,
        page: PageRequest<'_>,
    ) -> Result<Page<Stored<Member>>, Refusal> {
        let place = self.place(caller, org).await?;
        let mut page = self.page::<Member>(&keys::members(place.id()), page).await?;
        page.rows
            .retain(|row| row.value.removed.is_none() && place.within.admits(None, Some(row.value.id)));
        Ok(page)
    }
}

fn checked_name(text: &str) -> Result<Name, Refusal> {
    text.parse()
        .map_err(|malformed: crate::domain::name::MalformedName| {
            Refusal::invalid("name", malformed.to_string())
        })
}

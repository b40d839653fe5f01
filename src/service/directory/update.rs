//! Changes to orgs, projects, environments and members: guarded by the revision that was read.

use std::sync::Arc;

use super::{Change, checked_display_name};
use crate::domain::actor::Caller;
use crate::domain::directory::{Environment, Member, Org, Project};
use crate::domain::id::MemberId;
use crate::domain::journal::{Action, Record};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::service::Broker;
use crate::service::scope::parse_id;
use crate::store::keys::{self, Key};
use crate::store::model::Pointer;
use crate::store::record::{Changes, Record as Stores, Stored};

impl Broker {
    async fn change<T: Stores>(
        self: &Arc<Self>,
        record: Record,
        key: Key,
        stored: &Stored<T>,
        change: Change<'_>,
        value: T,
        more: Changes,
    ) -> Result<Stored<T>, Refusal> {
        if change
            .revision
            .is_some_and(|revision| revision != stored.revision.0)
        {
            return Err(Refusal::new(Reason::Conflict, "it was changed since it was read")
                .with("etag", stored.revision.0.to_string()));
        }
        let mut changes = more;
        changes = changes.at(&key, stored.revision);
        changes = changes.put(&key, &value);
        let done = self.effect(record, changes).await?;
        Ok(Stored {
            value: Arc::new(value),
            revision: done.revision,
        })
    }

    /// Changes an org.
    pub async fn update_org(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        change: Change<'_>,
    ) -> Result<Stored<Org>, Refusal> {
        let stored = self.org(caller, org).await?;
        let mut value = Org::clone(&stored.value);
        if let Some(name) = change.display_name {
            value.display_name = checked_display_name(name)?;
        }
        let record = caller
            .record(Action::OrgUpdate, Some(value.id))
            .about("org", value.id);
        self.change(
            record,
            keys::org(value.id),
            &stored,
            change,
            value,
            Changes::default(),
        )
        .await
    }

    /// Changes a project.
    pub async fn update_project(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        project: &str,
        change: Change<'_>,
    ) -> Result<Stored<Project>, Refusal> {
        let org = self.org_id(caller, org).await?;
        let stored = self.project(org, project).await?;
        let mut value = Project::clone(&stored.value);
        if let Some(name) = change.display_name {
            value.display_name = checked_display_name(name)?;
        }
        let record = caller
            .record(Action::ProjectUpdate, Some(org))
            .about("project", value.id);
        self.change(
            record,
            keys::project(org, value.id),
            &stored,
            change,
            value,
            Changes::default(),
        )
        .await
    }

    /// Changes an environment.
    pub async fn update_environment(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        environment: &str,
        change: Change<'_>,
    ) -> Result<Stored<Environment>, Refusal> {
        let org = self.org_id(caller, org).await?;
        let stored = self.environment(org, "", environment).await?;
        let mut value = Environment::clone(&stored.value);
        if let Some(name) = change.display_name {
            value.display_name = checked_display_name(name)?;
        }
        if let Some(posture) = change.approval {
            value.approval = Some(posture);
        }
        let record = caller
            .record(Action::EnvironmentUpdate, Some(org))
            .about("environment", value.id);
        let record = match change.approval {
            Some(posture) => record.about("approval", posture.name()),
            None => record,
        };
        self.change(
            record,
            keys::environment(org, value.id),
            &stored,
            change,
            value,
            Changes::default(),
        )
        .await
    }

    /// Changes a member.
    pub async fn update_member(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        member: &str,
        change: Change<'_>,
    ) -> Result<Stored<Member>, Refusal> {
        let org = self.org_id(caller, org).await?;
        let id: MemberId = parse_id("member.id", member)?;
        let stored: Stored<Member> = self.read(&keys::member(org, id), "member").await?;
        if stored.value.removed.is_some() {
            return Err(Refusal::not_found("member"));
        }
        let mut value = Member::clone(&stored.value);
        let mut more = Changes::default();
        if let Some(name) = change.display_name {
            value.display_name = checked_display_name(name)?;
        }
        if let Some(identities) = change.identities {
            let new = self
                .checked_identities(org, &value.identities, identities)
                .await?;
            for gone in value.identities.iter().filter(|old| !new.contains(old)) {
                more = more.delete::<Pointer>(&keys::member_identity(org, gone));
            }
            for added in new.iter().filter(|new| !value.identities.contains(new)) {
                let key = keys::member_identity(org, added);
                more = more.absent(&key);
                more = more.put(
                    &key,
                    &Pointer {
                        id: (*id.as_bytes()).into(),
                    },
                );
            }
            value.identities = new;
        }
        let identities = value.identities.clone();
        let record = caller.record(Action::MemberUpdate, Some(org)).about("member", id);
        let changed = self.change(record, keys::member(org, id), &stored, change, value, more);
        let changed = changed.await?;
        self.end_links(org, &stored.value.identities, &identities);
        Ok(changed)
    }
}

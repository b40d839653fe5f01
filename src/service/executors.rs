//! What each executor can be used by now: for members to know what to connect, for admins to see every fault.

use std::sync::Arc;

use super::Broker;
use super::page::{Page, PageRequest, page_of};
use super::resolve::{Facts, For, Sought, Source};
use crate::domain::actor::Caller;
use crate::domain::credential::Credential;
use crate::domain::decision::Decision;
use crate::domain::executor::Executor;
use crate::domain::id::{MemberId, OrgId, ProjectId};
use crate::domain::mode::{CredentialKind, PermitEntry};
use crate::domain::policy::Policy;
use crate::domain::readiness::{Readiness, readiness};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::task::Capacity;
use crate::domain::walk::Walk;

/// One way an executor can be served.
#[derive(Clone, Debug)]
pub struct ExecutorWay {
    /// The provider, mode and kind of credential.
    pub entry: PermitEntry,
    /// The credential behind it.
    pub credential: Option<Arc<Credential>>,
    /// Whether it can be used.
    pub readiness: Readiness,
}

/// An executor, and every way it can be served.
#[derive(Clone, Debug)]
pub struct ExecutorView {
    /// Its name.
    pub name: String,
    /// The provider it is made for.
    pub native_provider: String,
    /// The native provider's ways first, each provider's in the fixed order of modes.
    pub ways: Vec<ExecutorWay>,
}

/// Whose executors are listed.
#[derive(Clone, Copy, Debug)]
struct Whose {
    org: OrgId,
    /// `None`: nobody's; what is an org's own counts alone.
    member: Option<MemberId>,
    /// `None`: as in a project that says nothing of its own.
    project: Option<ProjectId>,
}

impl Broker {
    /// The executors and their state: of a member, where one is named or asks, else of the org; in a project,
    /// where one is named.
    pub async fn list_executors(
        &self,
        caller: &Caller,
        org: &str,
        member: &str,
        project: &str,
        page: PageRequest<'_>,
    ) -> Result<Page<ExecutorView>, Refusal> {
        let place = self.place(caller, org).await?;
        let org = place.id();
        let member = match (member, caller.member_of(org)) {
            ("", me) if !place.within.is_whole() => me,
            ("", _) => None,
            (named, _) => Some(self.member(org, named).await?.value.id),
        };
        let project = match project {
            "" => None,
            named => Some(self.project(org, named).await?.value.id),
        };
        place.admit("member", project, member)?;
        let whose = Whose { org, member, project };
        let names = self.registry.executors().map(|executor| executor.name.as_str());
        let Page { rows, next } = page_of("executors", names, page)?;
        let policy = self.policy();
        let mut views = Vec::with_capacity(rows.len());
        for name in rows {
            if let Some(executor) = self.registry.executor(name) {
                views.push(self.executor_view(&policy, whose, executor).await?);
            }
        }
        if !place.within.is_whole() {
            for view in &mut views {
                view.ways.retain(|way| way.readiness.is_for_members());
            }
        }
        Ok(Page { rows: views, next })
    }

    async fn executor_view(
        &self,
        policy: &Policy,
        whose: Whose,
        executor: &Executor,
    ) -> Result<ExecutorView, Refusal> {
        let native = executor.native_provider.as_str();
        let others = executor.providers.keys().filter(|name| *name != native);
        let mut ways = Vec::new();
        for provider in std::iter::once(native).chain(others.map(String::as_str)) {
            let sought = Sought {
                org: whose.org,
                project: whose.project,
                executor,
                provider,
                model: "",
                profile: "",
                system_scope: false,
            };
            // The same gate as a resolution's, so that nothing shows as ready that it would not pass.
            let gated = self.plan(policy, sought, None)?.gated;
            let listed = match &gated.permit {
                Ok(permit) => permit.ordinary_entries(),
                Err(_) => &[],
            };
            for (position, entry) in listed.iter().enumerate() {
                if let Ok(permit) = &gated.permit {
                    let walk = Walk::at(permit, position);
                    ways.push(self.executor_way(whose, executor, &walk, entry.clone()).await?);
                }
            }
            let denied = gated.said.registry.iter();
            let denied = denied.filter(|mode| !listed.iter().any(|entry| entry.mode == *mode));
            ways.extend(denied.map(|mode| ExecutorWay {
                entry: PermitEntry {
                    mode,
                    provider: provider.to_owned(),
                    kind: None,
                    model: String::new(),
                },
                credential: None,
                readiness: Readiness::Fault(Reason::AccessDenied),
            }));
        }
        Ok(ExecutorView {
            name: executor.name.to_string(),
            native_provider: native.to_owned(),
            ways,
        })
    }

    async fn executor_way(
        &self,
        whose: Whose,
        executor: &Executor,
        walk: &Walk<'_>,
        entry: PermitEntry,
    ) -> Result<ExecutorWay, Refusal> {
        let whom = For {
            org: whose.org,
            member: whose.member,
            executor: executor.name.as_str(),
            capacity: Capacity::Cloud,
            facts: Facts::default(),
            in_use: None,
            named: None,
        };
        let looked = self.look(whom, walk, &mut Decision::default()).await?;
        let credential = looked.as_ref().ok().and_then(Source::credential).cloned();
        let readiness = match (&looked, entry.kind) {
            (_, Some(CredentialKind::OAuthGrant)) if !self.can_connect(&entry.provider) => {
                Readiness::Fault(Reason::ConnectorDisabled)
            }
            (Ok(Source::Stored(found)), Some(kind)) => readiness(kind, self.health(found)),
            (Ok(_), _) => Readiness::Ready,
            (Err(met), _) => Readiness::of(entry.mode, met.condition),
        };
        Ok(ExecutorWay {
            entry,
            credential,
            readiness,
        })
    }

    /// Whether accounts of this provider can be connected: some connector of it is there and usable.
    fn can_connect(&self, provider: &str) -> bool {
        let mut usable = self.connectors.iter().filter(|each| each.usable().is_ok());
        usable.any(|connector| connector.provider == provider)
    }
}

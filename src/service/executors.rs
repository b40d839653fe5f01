//! What each executor can be used by now: for members to know what to connect, for admins to see every fault.

use std::sync::Arc;

use super::Broker;
use super::page::{Page, PageRequest, page_of};
use super::resolve::{Facts, For, Sought, Source};
use crate::domain::actor::Caller;
use crate::domain::credential::Credential;
use crate::domain::decision::Decision;
use crate::domain::executor::Executor;
use crate::domain::gate::Gated;
use crate::domain::id::{MemberId, OrgId, ProjectId};
use crate::domain::mode::{AuthMode, CredentialKind, ModeSet, PermitEntry};
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
    /// What the registry says it can do with each provider, the native one first.
    pub providers: Vec<(String, ModeSet)>,
}

/// Whose state is asked for, by the texts of the request.
#[derive(Clone, Copy, Debug)]
pub struct StateOf<'a> {
    /// The org.
    pub org: &'a str,
    /// The member; empty: the caller's own where it reaches no further, else the org's.
    pub member: &'a str,
    /// The project; empty: as in a project that says nothing of its own.
    pub project: &'a str,
}

/// Whose executors are listed.
#[derive(Clone, Copy, Debug)]
struct Whose {
    org: OrgId,
    /// `None`: nobody's; what is an org's own counts alone.
    member: Option<MemberId>,
    /// `None`: as in a project that says nothing of its own.
    project: Option<ProjectId>,
    /// Whether the caller sees what only an admin can mend.
    whole: bool,
}

/// The modes that are not to be had, and why: denied by the access matrix, or refused by the gate all together.
/// What a policy leaves out only because it pins another mode is no fault, and not among them.
fn left_out(gated: &Gated) -> impl Iterator<Item = (AuthMode, Reason)> {
    let columns = gated.said.columns.iter();
    let denied = columns.fold(ModeSet::EMPTY, |all, (_, column)| all.union(column.denied));
    let (modes, refused) = match &gated.permit {
        Err(refusal) => match refusal.reason {
            // The pinned mode is one that the executor does not have.
            Reason::ModeUnsupported => (gated.said.selected, Some(Reason::ModeUnsupported)),
            Reason::ModelNotAvailable => (gated.said.registry, Some(Reason::ModelNotAvailable)),
            _ => (gated.said.registry, None),
        },
        Ok(_) => (gated.said.registry, None),
    };
    modes.iter().filter_map(move |mode| {
        let by_matrix = denied.contains(mode).then_some(Reason::AccessDenied);
        Some((mode, refused.or(by_matrix)?))
    })
}

impl Broker {
    /// The executors and their state: of a member, where one is named or asks, else of the org; in a project,
    /// where one is named.
    pub async fn list_executors(
        &self,
        caller: &Caller,
        of: StateOf<'_>,
        page: PageRequest<'_>,
    ) -> Result<Page<ExecutorView>, Refusal> {
        let whose = self.whose(caller, of).await?;
        let names = self.registry.executors().map(|executor| executor.name.as_str());
        let Page { rows, next } = page_of("executors", names, page)?;
        let policy = self.policy();
        let mut views = Vec::with_capacity(rows.len());
        for name in rows {
            if let Some(executor) = self.registry.executor(name) {
                views.push(self.executor_view(&policy, whose, executor).await?);
            }
        }
        Ok(Page { rows: views, next })
    }

    /// One executor, as in the list.
    pub async fn get_executor(
        &self,
        caller: &Caller,
        of: StateOf<'_>,
        executor: &str,
    ) -> Result<ExecutorView, Refusal> {
        let whose = self.whose(caller, of).await?;
        let executor = self.registry.executor(executor);
        let executor = executor.ok_or_else(|| Refusal::not_found("executor"))?;
        self.executor_view(&self.policy(), whose, executor).await
    }

    async fn whose(&self, caller: &Caller, of: StateOf<'_>) -> Result<Whose, Refusal> {
        let place = self.place(caller, of.org).await?;
        let (org, whole) = (place.id(), place.within.is_whole());
        let member = match (of.member, caller.member_of(org)) {
            ("", me) if !whole => me,
            ("", _) => None,
            (named, _) => Some(self.member(org, named).await?.value.id),
        };
        let project = match of.project {
            "" => None,
            named => Some(self.project(org, named).await?.value.id),
        };
        place.admit("member", project, member)?;
        Ok(Whose {
            org,
            member,
            project,
            whole,
        })
    }

    async fn executor_view(
        &self,
        policy: &Policy,
        whose: Whose,
        executor: &Executor,
    ) -> Result<ExecutorView, Refusal> {
        let mut ways = Vec::new();
        for (provider, _) in executor.usable() {
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
            let left_out = left_out(&gated);
            let left_out = left_out.filter(|(mode, _)| !listed.iter().any(|entry| entry.mode == *mode));
            ways.extend(left_out.map(|(mode, reason)| ExecutorWay {
                entry: PermitEntry {
                    mode,
                    provider: provider.to_owned(),
                    kind: None,
                    model: String::new(),
                },
                credential: None,
                readiness: Readiness::Fault(reason),
            }));
        }
        ways.retain(|way| whose.whole || way.readiness.is_for_members());
        let providers = executor.usable();
        Ok(ExecutorView {
            name: executor.name.to_string(),
            native_provider: executor.native_provider.clone(),
            ways,
            providers: providers
                .map(|(provider, modes)| (provider.to_owned(), modes))
                .collect(),
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
            because: None,
            dispatched: false,
        };
        let looked = self.look(whom, walk, &mut Decision::default()).await?;
        let credential = looked.as_ref().ok().and_then(Source::credential).cloned();
        let readiness = match (&looked, entry.kind) {
            (_, Some(CredentialKind::OAuthGrant)) if !self.can_connect(&entry.provider) => {
                Readiness::Fault(Reason::ConnectorDisabled)
            }
            (Ok(Source::Stored(found)), Some(kind)) => readiness(kind, self.health(found)),
            (Ok(Source::Managed(_)), _) => match self.has_proxy_for(None, &entry.provider) {
                Ok(()) => Readiness::Ready,
                Err(refusal) => Readiness::Fault(refusal.reason),
            },
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

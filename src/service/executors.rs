//! What each executor can be used by now: for members to know what to connect, for admins to see every fault.

use std::sync::Arc;

use super::Broker;
use super::page::{Page, PageRequest, page_of};
use crate::domain::actor::Caller;
use crate::domain::credential::Credential;
use crate::domain::executor::Executor;
use crate::domain::gate::{GateInput, gate};
use crate::domain::id::{MemberId, OrgId};
use crate::domain::mode::{AuthMode, CredentialKind, ModeSet, PermitEntry};
use crate::domain::owner::Owner;
use crate::domain::readiness::{Found, Readiness, readiness};
use crate::domain::refusal::Refusal;

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

/// Whose state is shown.
struct Audience {
    org: OrgId,
    member: Option<MemberId>,
    /// Whether the caller sees what only an admin can mend.
    whole: bool,
}

impl Broker {
    /// The executors and their state: of a member, where one is named or asks, else of the org.
    pub async fn list_executors(
        &self,
        caller: &Caller,
        org: &str,
        member: &str,
        page: PageRequest<'_>,
    ) -> Result<Page<ExecutorView>, Refusal> {
        let audience = self.audience(caller, org, member).await?;
        let names = self.registry.executors().map(|executor| executor.name.as_str());
        let Page { rows, next } = page_of("executors", names, page)?;
        let mut views = Vec::with_capacity(rows.len());
        for name in rows {
            if let Some(executor) = self.registry.executor(name) {
                views.push(self.executor_view(&audience, executor).await?);
            }
        }
        Ok(Page { rows: views, next })
    }

    /// One executor, as in the list.
    pub async fn get_executor(
        &self,
        caller: &Caller,
        org: &str,
        executor: &str,
        member: &str,
    ) -> Result<ExecutorView, Refusal> {
        let audience = self.audience(caller, org, member).await?;
        let executor = self.registry.executor(executor);
        let executor = executor.ok_or_else(|| Refusal::not_found("executor"))?;
        self.executor_view(&audience, executor).await
    }

    async fn audience(&self, caller: &Caller, org: &str, member: &str) -> Result<Audience, Refusal> {
        let place = self.place(caller, org).await?;
        let (org, whole) = (place.id(), place.within.is_whole());
        let member = match (member, caller.member_of(org)) {
            ("", me) if !whole => me,
            ("", _) => None,
            (named, _) => Some(self.member(org, named).await?.value.id),
        };
        place.admit("member", None, member)?;
        Ok(Audience { org, member, whole })
    }

    async fn executor_view(&self, audience: &Audience, executor: &Executor) -> Result<ExecutorView, Refusal> {
        let mut ways = Vec::new();
        for (provider, supported) in executor.usable() {
            // The same gate as a resolution's, so that nothing shows as ready that it would not pass.
            let permit = gate(GateInput {
                executor: executor.name.as_str(),
                provider,
                model: "",
                supported,
                kinds: self.registry.kinds(provider),
                allowed: AuthMode::ORDER.into_iter().collect(),
                policy_version: 0,
            });
            for entry in permit.iter().flat_map(|permit| permit.entries()) {
                let way = self.executor_way(audience, executor.name.as_str(), entry.clone());
                ways.push(way.await?);
            }
        }
        ways.retain(|way| audience.whole || way.readiness.is_for_members());
        Ok(ExecutorView {
            name: executor.name.to_string(),
            native_provider: executor.native_provider.clone(),
            ways,
            providers: executor
                .usable()
                .map(|(provider, modes)| (provider.to_owned(), modes))
                .collect(),
        })
    }

    async fn executor_way(
        &self,
        audience: &Audience,
        executor: &str,
        entry: PermitEntry,
    ) -> Result<ExecutorWay, Refusal> {
        let owners = match audience.member {
            Some(member) => Owner::precedence(member).to_vec(),
            None => vec![Owner::Org],
        };
        let mut credential = None;
        for owner in owners {
            if credential.is_none() {
                let held = self.held(audience.org, owner, &entry.provider, entry.kind, executor);
                credential = held.await?;
            }
        }
        let found = Found {
            kind: entry.kind,
            health: credential.as_ref().map(|credential| self.health(credential)),
            connector: entry.kind != CredentialKind::OAuthGrant || self.can_connect(&entry.provider),
            locked: credential
                .as_ref()
                .is_some_and(|credential| self.unlocked(&[*credential.id.as_bytes()]).is_err()),
        };
        Ok(ExecutorWay {
            entry,
            credential,
            readiness: readiness(found),
        })
    }

    /// Whether accounts of this provider can be connected: some connector of it is there and usable.
    fn can_connect(&self, provider: &str) -> bool {
        let mut usable = self.connectors.iter().filter(|each| each.usable().is_ok());
        usable.any(|connector| connector.provider == provider)
    }
}

//! The policy: its part of the keyspace. All orgs' together, for one scan at the start.

use super::{Key, holder_part, of, system};
use crate::domain::id::{AgentId, Id, OrgId, ProjectId, TaskId};
use crate::domain::lease::Holder;
use crate::domain::name::Name;

/// The version of the policy.
pub fn policy_head() -> Key {
    system("policy-head", &[])
}

/// All pages of all scopes.
pub fn policy_pages() -> Key {
    system("policy", &[])
}

/// A page of a scope's cells: a project's, an org's, or without an org the system's.
pub fn policy_page(org: Option<OrgId>, project: Option<ProjectId>, page: u8) -> Key {
    let org = org.map_or([0; 16], |org| *org.as_bytes());
    let project = project.map_or([0; 16], |project| *project.as_bytes());
    system("policy", &[&org, &project, &[page]])
}

/// The scope of a key made by [`policy_page`].
pub fn policy_page_scope(key: &Key) -> Option<(Option<OrgId>, Option<ProjectId>)> {
    let ids: &[u8; 33] = key.as_bytes().last_chunk()?;
    let (org, rest) = ids.split_first_chunk::<16>()?;
    let (project, _) = rest.split_first_chunk::<16>()?;
    let some = |id: &[u8; 16]| *id != [0; 16];
    Some((
        some(org).then(|| Id::from_bytes(*org)),
        some(project).then(|| Id::from_bytes(*project)),
    ))
}

/// The pins of an org's executors.
pub fn policy_pins(org: OrgId) -> Key {
    system("policy-pins", &[org.as_bytes()])
}

/// The pins of all orgs.
pub fn all_policy_pins() -> Key {
    system("policy-pins", &[])
}

/// All profiles of all orgs.
pub fn all_profiles() -> Key {
    system("profile", &[])
}

/// All profiles of an org.
pub fn profiles(org: OrgId) -> Key {
    system("profile", &[org.as_bytes()])
}

/// A profile.
pub fn profile(org: OrgId, name: &Name) -> Key {
    system("profile", &[org.as_bytes(), name.as_str().as_bytes()])
}

/// The org of a key made by [`profile`].
pub fn profile_org(key: &Key) -> Option<OrgId> {
    let rest = key.as_bytes().strip_prefix(all_profiles().as_bytes())?;
    rest.first_chunk().map(|org| Id::from_bytes(*org))
}

/// The org of a key made by [`policy_pins`].
pub fn pins_org(key: &Key) -> Option<OrgId> {
    key.last_id()
}

/// Every lease handed to an agent for a task.
pub fn leases_of_task(org: OrgId, agent: AgentId, task: TaskId) -> Key {
    let holder = holder_part(Holder::Agent(agent));
    of(org, "lease-for", &[&holder, task.as_bytes()])
}

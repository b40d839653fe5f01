//! The names of members, projects and environments, for people: answers of the API have ids.

use std::collections::HashMap;

use crate::cli::client::Session;
use crate::cli::error::plain;
use crate::proto;

/// How many of each are read: one page, so that a large org makes no command slow.
const MANY: i32 = 200;

/// Names by id.
#[derive(Default)]
pub(in crate::cli) struct Names(HashMap<String, String>);

impl Names {
    /// Reads the names of the org. What cannot be read, or comes after the first page, has none: names are for
    /// convenience, and no reason to fail.
    pub(in crate::cli) async fn read(session: &Session) -> Self {
        let org = session.org_or_own();
        let (mut members, mut projects, mut environments) =
            (session.directory(), session.directory(), session.directory());
        let (members, projects, environments) = tokio::join!(
            members.list_members(proto::ListMembersRequest {
                org: org.clone(),
                page_size: MANY,
                ..Default::default()
            }),
            projects.list_projects(proto::ListProjectsRequest {
                org: org.clone(),
                page_size: MANY,
                ..Default::default()
            }),
            environments.list_environments(proto::ListEnvironmentsRequest {
                org,
                page_size: MANY,
                ..Default::default()
            }),
        );
        let mut names = HashMap::new();
        let members = members.map(|page| page.into_inner().members).unwrap_or_default();
        names.extend(members.into_iter().map(|member| (member.id, member.name)));
        let projects = projects
            .map(|page| page.into_inner().projects)
            .unwrap_or_default();
        names.extend(projects.into_iter().map(|project| (project.id, project.name)));
        let environments = environments.map(|page| page.into_inner().environments);
        let environments = environments.unwrap_or_default().into_iter();
        names.extend(environments.map(|environment| (environment.id, environment.name)));
        Self(names)
    }

    /// Puts the name in place of the id.
    pub(in crate::cli) fn replace(&self, id: &mut String) {
        if let Some(name) = self.0.get(id) {
            *id = plain(name);
        }
    }

    /// Puts the name before the id.
    pub(in crate::cli) fn add(&self, id: &mut String) {
        if let Some(name) = self.0.get(id) {
            *id = format!("{} ({id})", plain(name));
        }
    }
}

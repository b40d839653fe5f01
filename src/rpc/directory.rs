//! `DirectoryService`: orgs and what belongs to them, between message and use case.

use std::sync::Arc;

use prost_types::FieldMask;
use tonic::{Request, Response, Status};

use super::convert::{caller, kind, outstanding, posture, proto_posture, timestamp};
use super::identity_links;
use super::status::status;
use crate::domain::directory::{Environment, Member, Org, Project};
use crate::domain::refusal::Refusal;
use crate::proto;
use crate::service::{Broker, Change, LinkIdentities, NewNamed, PageRequest, Stored};

pub(super) struct DirectoryService(pub(super) Arc<Broker>);

/// The revision that an etag stands for; `None` where the caller gave none.
pub(super) fn revision(etag: &str) -> Result<Option<u64>, Refusal> {
    match etag {
        "" => Ok(None),
        etag => etag
            .parse()
            .map(Some)
            .map_err(|_| Refusal::invalid("etag", "etag is not one of this broker")),
    }
}

/// The paths of a mask, each of which has to be one of `known` (AIP-134).
pub(super) fn paths(mask: Option<FieldMask>, known: &[&str]) -> Result<Vec<String>, Refusal> {
    let paths = mask.map(|mask| mask.paths).unwrap_or_default();
    if paths.is_empty() {
        return Err(Refusal::invalid(
            "update_mask",
            format!("update_mask names what to change: {}", known.join(", ")),
        ));
    }
    match paths.iter().find(|path| !known.contains(&path.as_str())) {
        Some(_) => Err(Refusal::invalid(
            "update_mask",
            format!("only these can be changed: {}", known.join(", ")),
        )),
        None => Ok(paths),
    }
}

fn org(stored: &Stored<Org>) -> Option<proto::Org> {
    let org = &stored.value;
    Some(proto::Org {
        id: org.id.to_string(),
        name: org.name.clone(),
        display_name: org.display_name.clone(),
        create_time: Some(timestamp(org.created)),
        etag: stored.revision.0.to_string(),
    })
}

fn project(stored: &Stored<Project>) -> Option<proto::Project> {
    let project = &stored.value;
    Some(proto::Project {
        id: project.id.to_string(),
        org: project.org.to_string(),
        name: project.name.clone(),
        display_name: project.display_name.clone(),
        create_time: Some(timestamp(project.created)),
        etag: stored.revision.0.to_string(),
    })
}

fn environment(stored: &Stored<Environment>) -> Option<proto::Environment> {
    let environment = &stored.value;
    Some(proto::Environment {
        id: environment.id.to_string(),
        org: environment.org.to_string(),
        project: environment.project.to_string(),
        name: environment.name.clone(),
        display_name: environment.display_name.clone(),
        create_time: Some(timestamp(environment.created)),
        approval: proto_posture(environment.posture()),
        etag: stored.revision.0.to_string(),
    })
}

fn member(stored: &Stored<Member>) -> Option<proto::Member> {
    let member = &stored.value;
    Some(proto::Member {
        id: member.id.to_string(),
        org: member.org.to_string(),
        name: member.name.clone(),
        display_name: member.display_name.clone(),
        create_time: Some(timestamp(member.created)),
        etag: stored.revision.0.to_string(),
        identities: member.identities.clone(),
        remove_time: member.removed.map(timestamp),
    })
}

#[tonic::async_trait]
impl proto::directory_service_server::DirectoryService for DirectoryService {
    async fn create_org(
        &self,
        request: Request<proto::CreateOrgRequest>,
    ) -> Result<Response<proto::CreateOrgResponse>, Status> {
        let caller = caller(&request)?;
        let m = request.into_inner();
        let new = NewNamed {
            name: &m.name,
            display_name: &m.display_name,
            request_id: &m.request_id,
        };
        let made = self.0.create_org(&caller, new).await.map_err(status)?;
        Ok(Response::new(proto::CreateOrgResponse { org: org(&made) }))
    }

    async fn get_org(
        &self,
        request: Request<proto::GetOrgRequest>,
    ) -> Result<Response<proto::GetOrgResponse>, Status> {
        let caller = caller(&request)?;
        let m = request.into_inner();
        let found = self.0.get_org(&caller, &m.org).await.map_err(status)?;
        Ok(Response::new(proto::GetOrgResponse { org: org(&found) }))
    }

    async fn list_orgs(
        &self,
        request: Request<proto::ListOrgsRequest>,
    ) -> Result<Response<proto::ListOrgsResponse>, Status> {
        let caller = caller(&request)?;
        let m = request.into_inner();
        let page = PageRequest {
            size: m.page_size,
            token: &m.page_token,
        };
        let page = self.0.list_orgs(&caller, page).await.map_err(status)?;
        let orgs = page.rows.iter().filter_map(org).collect();
        Ok(Response::new(proto::ListOrgsResponse {
            orgs,
            next_page_token: page.next,
        }))
    }

    async fn update_org(
        &self,
        request: Request<proto::UpdateOrgRequest>,
    ) -> Result<Response<proto::UpdateOrgResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let known: &[&str] = &["display_name"];
        let paths = paths(message.update_mask, known).map_err(status)?;
        let m = message.org.unwrap_or_default();
        let named = |path: &str| paths.iter().any(|named| named == path);
        let change = Change {
            revision: revision(&m.etag).map_err(status)?,
            display_name: named("display_name").then_some(m.display_name.as_str()),
            ..Change::default()
        };
        let changed = self.0.update_org(&caller, &m.id, change).await.map_err(status)?;
        Ok(Response::new(proto::UpdateOrgResponse { org: org(&changed) }))
    }

    async fn create_project(
        &self,
        request: Request<proto::CreateProjectRequest>,
    ) -> Result<Response<proto::CreateProjectResponse>, Status> {
        let caller = caller(&request)?;
        let m = request.into_inner();
        let new = NewNamed {
            name: &m.name,
            display_name: &m.display_name,
            request_id: &m.request_id,
        };
        let made = self
            .0
            .create_project(&caller, &m.org, new)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::CreateProjectResponse {
            project: project(&made),
        }))
    }

    async fn get_project(
        &self,
        request: Request<proto::GetProjectRequest>,
    ) -> Result<Response<proto::GetProjectResponse>, Status> {
        let caller = caller(&request)?;
        let m = request.into_inner();
        let found = self
            .0
            .get_project(&caller, &m.org, &m.project)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::GetProjectResponse {
            project: project(&found),
        }))
    }

    async fn list_projects(
        &self,
        request: Request<proto::ListProjectsRequest>,
    ) -> Result<Response<proto::ListProjectsResponse>, Status> {
        let caller = caller(&request)?;
        let m = request.into_inner();
        let page = PageRequest {
            size: m.page_size,
            token: &m.page_token,
        };
        let page = self
            .0
            .list_projects(&caller, &m.org, page)
            .await
            .map_err(status)?;
        let projects = page.rows.iter().filter_map(project).collect();
        Ok(Response::new(proto::ListProjectsResponse {
            projects,
            next_page_token: page.next,
        }))
    }

    async fn update_project(
        &self,
        request: Request<proto::UpdateProjectRequest>,
    ) -> Result<Response<proto::UpdateProjectResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let known: &[&str] = &["display_name"];
        let paths = paths(message.update_mask, known).map_err(status)?;
        let m = message.project.unwrap_or_default();
        let named = |path: &str| paths.iter().any(|named| named == path);
        let change = Change {
            revision: revision(&m.etag).map_err(status)?,
            display_name: named("display_name").then_some(m.display_name.as_str()),
            ..Change::default()
        };
        let changed = self
            .0
            .update_project(&caller, &m.org, &m.id, change)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::UpdateProjectResponse {
            project: project(&changed),
        }))
    }

    async fn create_environment(
        &self,
        request: Request<proto::CreateEnvironmentRequest>,
    ) -> Result<Response<proto::CreateEnvironmentResponse>, Status> {
        let caller = caller(&request)?;
        let m = request.into_inner();
        let new = NewNamed {
            name: &m.name,
            display_name: &m.display_name,
            request_id: &m.request_id,
        };
        let approval = posture(m.approval).map_err(status)?;
        let made = self
            .0
            .create_environment(&caller, &m.org, &m.project, new, approval.unwrap_or_default())
            .await
            .map_err(status)?;
        Ok(Response::new(proto::CreateEnvironmentResponse {
            environment: environment(&made),
        }))
    }

    async fn get_environment(
        &self,
        request: Request<proto::GetEnvironmentRequest>,
    ) -> Result<Response<proto::GetEnvironmentResponse>, Status> {
        let caller = caller(&request)?;
        let m = request.into_inner();
        let found = self
            .0
            .get_environment(&caller, &m.org, &m.project, &m.environment)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::GetEnvironmentResponse {
            environment: environment(&found),
        }))
    }

    async fn list_environments(
        &self,
        request: Request<proto::ListEnvironmentsRequest>,
    ) -> Result<Response<proto::ListEnvironmentsResponse>, Status> {
        let caller = caller(&request)?;
        let m = request.into_inner();
        let page = PageRequest {
            size: m.page_size,
            token: &m.page_token,
        };
        let page = self
            .0
            .list_environments(&caller, &m.org, &m.project, page)
            .await
            .map_err(status)?;
        let environments = page.rows.iter().filter_map(environment).collect();
        Ok(Response::new(proto::ListEnvironmentsResponse {
            environments,
            next_page_token: page.next,
        }))
    }

    async fn update_environment(
        &self,
        request: Request<proto::UpdateEnvironmentRequest>,
    ) -> Result<Response<proto::UpdateEnvironmentResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let known: &[&str] = &["display_name", "approval"];
        let paths = paths(message.update_mask, known).map_err(status)?;
        let m = message.environment.unwrap_or_default();
        let named = |path: &str| paths.iter().any(|named| named == path);
        let approval = if named("approval") {
            let unsaid = || Refusal::invalid("environment.approval", "approval is none or required");
            let said = posture(m.approval).and_then(|said| said.ok_or_else(unsaid));
            Some(said.map_err(status)?)
        } else {
            None
        };
        let change = Change {
            revision: revision(&m.etag).map_err(status)?,
            display_name: named("display_name").then_some(m.display_name.as_str()),
            approval,
            ..Change::default()
        };
        let changed = self
            .0
            .update_environment(&caller, &m.org, &m.id, change)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::UpdateEnvironmentResponse {
            environment: environment(&changed),
        }))
    }

    async fn create_member(
        &self,
        request: Request<proto::CreateMemberRequest>,
    ) -> Result<Response<proto::CreateMemberResponse>, Status> {
        let caller = caller(&request)?;
        let m = request.into_inner();
        let new = NewNamed {
            name: &m.name,
            display_name: &m.display_name,
            request_id: &m.request_id,
        };
        let made = self
            .0
            .create_member(&caller, &m.org, new, &m.identities)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::CreateMemberResponse {
            member: member(&made),
        }))
    }

    async fn get_member(
        &self,
        request: Request<proto::GetMemberRequest>,
    ) -> Result<Response<proto::GetMemberResponse>, Status> {
        let caller = caller(&request)?;
        let m = request.into_inner();
        let found = self
            .0
            .get_member(&caller, &m.org, &m.member)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::GetMemberResponse {
            member: member(&found),
        }))
    }

    async fn list_members(
        &self,
        request: Request<proto::ListMembersRequest>,
    ) -> Result<Response<proto::ListMembersResponse>, Status> {
        let caller = caller(&request)?;
        let m = request.into_inner();
        let page = PageRequest {
            size: m.page_size,
            token: &m.page_token,
        };
        let page = self.0.list_members(&caller, &m.org, page).await.map_err(status)?;
        let members = page.rows.iter().filter_map(member).collect();
        Ok(Response::new(proto::ListMembersResponse {
            members,
            next_page_token: page.next,
        }))
    }

    async fn update_member(
        &self,
        request: Request<proto::UpdateMemberRequest>,
    ) -> Result<Response<proto::UpdateMemberResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let known: &[&str] = &["display_name", "identities"];
        let paths = paths(message.update_mask, known).map_err(status)?;
        let m = message.member.unwrap_or_default();
        let named = |path: &str| paths.iter().any(|named| named == path);
        let change = Change {
            revision: revision(&m.etag).map_err(status)?,
            display_name: named("display_name").then_some(m.display_name.as_str()),
            identities: named("identities").then_some(m.identities.as_slice()),
            approval: None,
        };
        let changed = self
            .0
            .update_member(&caller, &m.org, &m.id, change)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::UpdateMemberResponse {
            member: member(&changed),
        }))
    }
    async fn remove_member(
        &self,
        request: Request<proto::RemoveMemberRequest>,
    ) -> Result<Response<proto::RemoveMemberResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let removed = self.0.remove_member(&caller, &message.org, &message.member).await;
        let removed = removed.map_err(status)?;
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let credentials = removed.credentials.iter().map(|gone| proto::RemovedCredential {
            credential: gone.credential.to_string(),
            provider: gone.provider.clone(),
            kind: kind(gone.kind),
            advice: gone.advice(),
        });
        Ok(Response::new(proto::RemoveMemberResponse {
            member: member(&removed.member),
            operator_tokens_revoked: count(removed.operator_tokens),
            tasks_ended: count(removed.tasks),
            leases_ended: count(removed.leases),
            credentials: credentials.collect(),
            outstanding: outstanding(&removed.outstanding),
            outstanding_truncated: removed.outstanding.more,
        }))
    }

    async fn link_identities(
        &self,
        request: Request<proto::LinkIdentitiesRequest>,
    ) -> Result<Response<proto::LinkIdentitiesResponse>, Status> {
        let caller = caller(&request)?;
        let m = request.into_inner();
        let input = LinkIdentities {
            org: &m.org,
            links: &identity_links::links(&m.links),
            request_id: &m.request_id,
            validate_only: m.validate_only,
        };
        let outcomes = self.0.link_identities(&caller, input).await.map_err(status)?;
        Ok(Response::new(identity_links::response(m.links, &outcomes)))
    }
}

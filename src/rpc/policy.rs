//! `PolicyService`: between message and use case.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert::caller;
use super::policy_convert::{cells, change, document, mode, new_profile, places, policy, profile};
use super::status::status;
use crate::domain::refusal::Refusal;
use crate::proto;
use crate::service::{Broker, CellsInput, Changing, PageRequest, ScopeRef};

pub(super) struct PolicyService(pub(super) Arc<Broker>);

#[tonic::async_trait]
impl proto::policy_service_server::PolicyService for PolicyService {
    async fn get_policy(
        &self,
        request: Request<proto::GetPolicyRequest>,
    ) -> Result<Response<proto::GetPolicyResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let view = self.0.get_policy(&caller, &message.org, message.system).await;
        Ok(Response::new(policy(&view.map_err(status)?)))
    }

    async fn apply_policy(
        &self,
        request: Request<proto::ApplyPolicyRequest>,
    ) -> Result<Response<proto::ApplyPolicyResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let new = message.document.as_ref().map(document).transpose();
        let new = new.map_err(status)?.unwrap_or_default();
        let how = Changing {
            expected: message.expected_version,
            validate_only: message.validate_only,
        };
        let changed = self.0.apply_policy(&caller, new, how).await.map_err(status)?;
        Ok(Response::new(proto::ApplyPolicyResponse {
            change: Some(change(&changed)),
        }))
    }

    async fn set_cells(
        &self,
        request: Request<proto::SetCellsRequest>,
    ) -> Result<Response<proto::SetCellsResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let missing = || Refusal::invalid("scope", "scope is required; without an org it is the system");
        let scope = message.scope.as_ref().ok_or_else(missing).map_err(status)?;
        let scope = ScopeRef {
            org: &scope.org,
            project: &scope.project,
        };
        let input = CellsInput {
            set: cells(&message.set).map_err(status)?,
            remove: places(&message.remove).map_err(status)?,
            replace: message.replace,
        };
        let how = Changing {
            expected: message.expected_version,
            validate_only: message.validate_only,
        };
        let changed = self.0.set_cells(&caller, scope, input, how).await;
        Ok(Response::new(proto::SetCellsResponse {
            change: Some(change(&changed.map_err(status)?)),
        }))
    }

    async fn pin_executor(
        &self,
        request: Request<proto::PinExecutorRequest>,
    ) -> Result<Response<proto::PinExecutorResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let mode = Some(mode("mode", message.mode).map_err(status)?);
        let how = Changing {
            expected: message.expected_version,
            validate_only: message.validate_only,
        };
        let (org, executor) = (&message.org, &message.executor);
        let changed = self.0.pin_executor(&caller, org, executor, mode, how).await;
        Ok(Response::new(proto::PinExecutorResponse {
            change: Some(change(&changed.map_err(status)?)),
        }))
    }

    async fn unpin_executor(
        &self,
        request: Request<proto::UnpinExecutorRequest>,
    ) -> Result<Response<proto::UnpinExecutorResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let how = Changing {
            expected: message.expected_version,
            validate_only: message.validate_only,
        };
        let (org, executor) = (&message.org, &message.executor);
        let changed = self.0.pin_executor(&caller, org, executor, None, how).await;
        Ok(Response::new(proto::UnpinExecutorResponse {
            change: Some(change(&changed.map_err(status)?)),
        }))
    }

    async fn list_profiles(
        &self,
        request: Request<proto::ListProfilesRequest>,
    ) -> Result<Response<proto::ListProfilesResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let page = PageRequest {
            size: message.page_size,
            token: &message.page_token,
        };
        let listed = self.0.list_profiles(&caller, &message.org, page).await;
        let (page, version) = listed.map_err(status)?;
        Ok(Response::new(proto::ListProfilesResponse {
            profiles: page.rows.iter().map(|row| profile(row)).collect(),
            next_page_token: page.next,
            version,
        }))
    }

    async fn get_profile(
        &self,
        request: Request<proto::GetProfileRequest>,
    ) -> Result<Response<proto::GetProfileResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let found = self.0.get_profile(&caller, &message.org, &message.name).await;
        let (found, version) = found.map_err(status)?;
        Ok(Response::new(proto::GetProfileResponse {
            profile: Some(profile(&found)),
            version,
        }))
    }

    async fn create_profile(
        &self,
        request: Request<proto::CreateProfileRequest>,
    ) -> Result<Response<proto::CreateProfileResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let new = new_profile(message.profile.as_ref()).map_err(status)?;
        let made = self
            .0
            .create_profile(&caller, &message.org, new, &message.request_id);
        let (made, changed) = made.await.map_err(status)?;
        Ok(Response::new(proto::CreateProfileResponse {
            profile: Some(profile(&made)),
            change: changed.as_ref().map(change),
        }))
    }

    async fn update_profile(
        &self,
        request: Request<proto::UpdateProfileRequest>,
    ) -> Result<Response<proto::UpdateProfileResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let new = new_profile(message.profile.as_ref()).map_err(status)?;
        let how = Changing {
            expected: message.expected_version,
            validate_only: message.validate_only,
        };
        let updated = self.0.update_profile(&caller, &message.org, new, how).await;
        let (updated, changed) = updated.map_err(status)?;
        Ok(Response::new(proto::UpdateProfileResponse {
            profile: Some(profile(&updated)),
            change: Some(change(&changed)),
        }))
    }

    async fn remove_profile(
        &self,
        request: Request<proto::RemoveProfileRequest>,
    ) -> Result<Response<proto::RemoveProfileResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let how = Changing {
            expected: message.expected_version,
            validate_only: message.validate_only,
        };
        let removed = self
            .0
            .remove_profile(&caller, &message.org, &message.name, how)
            .await;
        Ok(Response::new(proto::RemoveProfileResponse {
            change: Some(change(&removed.map_err(status)?)),
        }))
    }
}

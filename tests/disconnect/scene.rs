//! An account that is connected and in use, and a revocation endpoint beside its token endpoint.

use std::time::Duration;

use credbroker::proto::{self, TokenFate};
use tonic::Status;

use crate::provider::{Asked, Revocations};
use crate::support::Caller;
use crate::support::broker::ORG;
use crate::support::client::secret;
use crate::support::scene::Scene;

/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than any answer takes here.
pub const LONG: Duration = Duration::from_secs(30);

/// An account with a refresh token and an access token, on which an agent has a lease.
pub struct Account {
    pub scene: Scene,
    pub revocations: Revocations,
    pub refresh_token: String,
    pub access_token: String,
}

impl Account {
    /// With more keys for its connector.
    pub async fn connected(connector_keys: &str) -> Self {
        let revocations = Revocations::start().await;
        let keys = revocations.key() + connector_keys;
        let (scene, lease) = Scene::leased(&keys, "").await;
        Self {
            revocations,
            refresh_token: scene.provider.current(),
            access_token: secret(&lease).to_owned(),
            scene,
        }
    }

    pub async fn disconnect(&self, wait: Duration) -> proto::DisconnectAccountResponse {
        let Scene {
            operator, credential, ..
        } = &self.scene;
        disconnect(operator, credential, wait).await.unwrap()
    }

    /// What the provider is asked where all goes well.
    pub fn both(&self) -> Vec<Asked> {
        let asked = |hint: &str, token: &String| Asked {
            hint: hint.to_owned(),
            token: token.clone(),
        };
        vec![
            asked("refresh_token", &self.refresh_token),
            asked("access_token", &self.access_token),
        ]
    }
}

pub async fn disconnect(
    caller: &Caller,
    credential: &str,
    wait: Duration,
) -> Result<proto::DisconnectAccountResponse, Status> {
    let request = proto::DisconnectAccountRequest {
        org: ORG.to_owned(),
        credential: credential.to_owned(),
        keep_upstream: false,
        wait: Some(wait.try_into().unwrap()),
    };
    Ok(caller.accounts().disconnect_account(request).await?.into_inner())
}

/// Token by token what became of it.
pub fn fates(tokens: &[proto::RevokedToken]) -> Vec<(&str, TokenFate)> {
    tokens
        .iter()
        .map(|token| (token.token.as_str(), token.fate()))
        .collect()
}

pub const REVOKED: [(&str, TokenFate); 2] = [
    ("refresh_token", TokenFate::Revoked),
    ("access_token", TokenFate::Revoked),
];
pub const PENDING: [(&str, TokenFate); 2] = [
    ("refresh_token", TokenFate::Pending),
    ("access_token", TokenFate::Pending),
];

pub async fn revocation(caller: &Caller, id: &str) -> Result<proto::Revocation, Status> {
    let request = proto::GetRevocationRequest {
        org: ORG.to_owned(),
        revocation: id.to_owned(),
    };
    let answer = caller.accounts().get_revocation(request).await?;
    Ok(answer.into_inner().revocation.unwrap())
}

pub async fn revocations(caller: &Caller) -> Vec<proto::Revocation> {
    let request = proto::ListRevocationsRequest {
        org: ORG.to_owned(),
        ..Default::default()
    };
    let answer = caller.accounts().list_revocations(request).await.unwrap();
    answer.into_inner().revocations
}

/// The revocation, once it has ended.
pub async fn ended(caller: &Caller, id: &str) -> proto::Revocation {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let now = revocation(caller, id).await.unwrap();
        if now.end_time.is_some() {
            assert!(now.next_time.is_none());
            return now;
        }
        assert!(tokio::time::Instant::now() < until, "{now:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The records of an action: outcome and what they are about.
pub async fn journaled(caller: &Caller, action: &str) -> Vec<proto::JournalRecord> {
    let records = caller.records().await;
    records
        .into_iter()
        .filter(|record| record.action == action)
        .collect()
}

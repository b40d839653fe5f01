//! What happens without the lock map: every caller sends the refresh token it read. Compiled for the tests
//! only, to show that the test of the lock map sees the grant die when the lock map is not there.

use super::{Held, Refresher};
use crate::domain::credential::Credential;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::rotation::{Death, Phase, Rotation};
use crate::store::keys;
use crate::store::model::CredentialSecret;
use crate::store::record::Changes;
use crate::upstream::answer::{Answer, classify};
use crate::upstream::{Delivery, RefreshRequest};

impl Refresher {
    pub(super) async fn exchange_unserialized(&self, held: &Held) -> Result<(), Refusal> {
        let failed = |what: &str| Refusal::new(Reason::ReauthRequired, what);
        let old = &held.credential.value;
        let connector = self
            .parts
            .connectors
            .get(&old.connector)
            .ok_or_else(|| failed("connector"))?;
        let refresh_token = held
            .secret
            .value
            .refresh
            .as_ref()
            .ok_or_else(|| failed("refresh token"))?;
        let request = RefreshRequest {
            answer_within: None,
            connector,
            refresh_token,
            scopes: &old.scopes,
        };
        let Delivery::Answered {
            status,
            retry_after,
            body,
        } = self.parts.endpoint.refresh(request).await
        else {
            return Err(failed("no answer"));
        };
        let mut changes = Changes::default();
        let (rotation, expires, refusal) = match classify(connector, status, retry_after, &body) {
            Answer::Granted(granted) => {
                let generation = old.rotation.generation + 1;
                let secret = CredentialSecret {
                    generation,
                    access: Some(granted.access_token),
                    refresh: granted.refresh_token,
                    aws: None,
                };
                changes = changes.put(&keys::credential_secret(old.org, old.id), &secret);
                let rotation = Rotation {
                    generation,
                    ..old.rotation.clone()
                };
                (rotation, granted.expiry.map(|expiry| expiry.at(self.now())), None)
            }
            Answer::Refused { message, .. } => {
                let dead = Phase::Dead {
                    since: self.now(),
                    cause: Death::Refused,
                    message,
                };
                let rotation = Rotation {
                    phase: dead,
                    ..old.rotation.clone()
                };
                (rotation, old.expires, Some(failed("the provider refused")))
            }
            _ => return Err(failed("another answer")),
        };
        let credential = Credential {
            rotation,
            expires,
            ..Credential::clone(old)
        };
        changes = changes.put(&keys::credential(old.org, old.id), &credential);
        let _applied = self.parts.records.commit(changes).await?;
        refusal.map_or(Ok(()), Err)
    }
}

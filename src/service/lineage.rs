//! What is kept of a grant's generations, and which credential has which refresh token.

use super::refresh::Refresher;
use crate::domain::credential::Credential;
use crate::domain::lineage::{Fingerprint, Lineage, Link, Origin};
use crate::domain::refusal::Refusal;
use crate::domain::rotation::Fence;
use crate::store::StoreError;
use crate::store::keys;
use crate::store::model::{CredentialSecret, Pointer};
use crate::store::record::{Changes, Records};
use std::sync::Arc;

/// The link of a credential's present generation, which has this secret.
pub(super) fn linked(
    credential: &Credential,
    secret: &CredentialSecret,
    origin: Origin,
    fence: Option<Fence>,
) -> Link {
    let refresh = secret.refresh.as_ref();
    let access = secret.access.as_ref();
    Link {
        generation: credential.rotation.generation,
        at: credential.refreshed,
        origin,
        refresh: refresh.map(|token| Fingerprint::of_refresh(credential.org, token)),
        access: access.map(|token| Fingerprint::of_access(credential.org, token)),
        fence,
    }
}

/// Adds to `changes` that a grant's generations are now `after`.
pub(super) fn descended(
    changes: Changes,
    credential: &Credential,
    before: &Lineage,
    after: &Lineage,
) -> Changes {
    let Credential { org, id, .. } = *credential;
    let mut changes = changes.put(&keys::credential_lineage(org, id), after);
    let (old, new) = (before.refreshes(), after.refreshes());
    for forgotten in old.difference(&new) {
        changes = changes.delete::<Pointer>(&keys::grant(org, *forgotten));
    }
    let pointer = Pointer {
        id: (*id.as_bytes()).into(),
    };
    for added in new.difference(&old) {
        changes = changes.put(&keys::grant(org, *added), &pointer);
    }
    changes
}

/// Adds to `changes` that a grant goes, with what is kept of its generations. A refresh token that another credential
/// has by now stays that one's.
///
/// The places are not guarded one by one: nobody else takes one while the credential is there, which the commit is
/// guarded by, and twice as many operations would not fit into it.
pub(super) async fn forgotten(
    records: &Records,
    mut changes: Changes,
    credential: &Credential,
) -> Result<Changes, StoreError> {
    let Credential { org, id, .. } = *credential;
    for refresh in lineage(records, credential).await?.refreshes() {
        let place = keys::grant(org, refresh);
        let pointer = records.get::<Pointer>(&place).await?;
        if pointer.is_some_and(|pointer| *pointer.value.id == *id.as_bytes()) {
            changes = changes.delete::<Pointer>(&place);
        }
    }
    Ok(changes.delete::<Lineage>(&keys::credential_lineage(org, id)))
}

/// The generations of a credential; none of a key, and of a grant that was stored before they were kept.
pub(super) async fn lineage(records: &Records, credential: &Credential) -> Result<Arc<Lineage>, StoreError> {
    let key = keys::credential_lineage(credential.org, credential.id);
    let stored = records.get::<Lineage>(&key).await?;
    Ok(stored.map(|stored| stored.value).unwrap_or_default())
}

impl Refresher {
    pub(super) async fn lineage(&self, credential: &Credential) -> Result<Arc<Lineage>, Refusal> {
        Ok(lineage(self.records(), credential).await?)
    }
}

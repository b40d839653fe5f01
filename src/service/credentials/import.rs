//! Grants that are taken over from elsewhere. An outdated copy is told from a current one, and no grant is kept
//! twice: whoever refreshed it first would log the other out.

use std::sync::Arc;

use super::{Incoming, OwnerRef};
use crate::domain::actor::Caller;
use crate::domain::credential::Credential;
use crate::domain::id::{CredentialId, OrgId};
use crate::domain::journal::Action;
use crate::domain::lineage::{Fingerprint, Origin};
use crate::domain::mode::CredentialKind;
use crate::domain::owner::Owner;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::secret::{AccessToken, Exposure, RefreshToken, Secret};
use crate::domain::time::Time;
use crate::service::Broker;
use crate::service::lineage::{descended, linked};
use crate::store::keys;
use crate::store::model::{CredentialSecret, Pointer};
use crate::store::record::Changes;
use crate::upstream::connector::Sharing;

/// A grant to take over.
pub struct ImportGrant<'a> {
    /// The org.
    pub org: &'a str,
    /// Whose it is.
    pub owner: OwnerRef<'a>,
    /// The connector.
    pub connector: &'a str,
    /// The refresh token.
    pub refresh: Secret<RefreshToken>,
    /// The access token, where it is known.
    pub access: Option<Secret<AccessToken>>,
    /// When the access token expires.
    pub expires: Option<Time>,
    /// The scopes.
    pub scopes: Vec<String>,
    /// Facts about the account.
    pub account: Vec<(String, String)>,
}

/// The longest token taken, in bytes.
const MAX_TOKEN: usize = 16 * 1024;
const MAX_SCOPES: usize = 64;

impl Broker {
    /// Takes over an OAuth grant, in place of the one there was. From then on only the broker may refresh it.
    pub async fn import_grant(
        self: &Arc<Self>,
        caller: &Caller,
        import: ImportGrant<'_>,
    ) -> Result<Arc<Credential>, Refusal> {
        let place = self.place(caller, import.org).await?;
        let org = place.id();
        let owner = self.owner(org, import.owner).await?;
        place.admit("owner", None, owner.member())?;
        let connector = self.connector(import.connector)?;
        if connector.sharing == Sharing::Personal && owner == Owner::Org {
            return Err(Refusal::new(
                Reason::GrantNotShareable,
                format!("grants of {} belong to a member", import.connector),
            ));
        }
        checked_token("refresh_token", import.refresh.expose(Exposure::Inspect))?;
        if let Some(access) = &import.access {
            checked_token("access_token", access.expose(Exposure::Inspect))?;
        }
        if import.scopes.len() > MAX_SCOPES || import.scopes.iter().any(|scope| scope.len() > 256) {
            return Err(Refusal::invalid(
                "scopes",
                "at most 64 scopes of at most 256 bytes",
            ));
        }
        let account = crate::service::agents::checked_pairs("account", &import.account)?;
        // Without an access token there is nothing to hand out until the first refresh.
        let expires = if import.access.is_some() {
            import.expires
        } else {
            Some(self.now())
        };
        let incoming = Incoming {
            org,
            owner,
            provider: connector.provider.clone(),
            kind: CredentialKind::OAuthGrant,
            connector: import.connector.to_owned(),
            expires,
            hint: String::new(),
            scopes: import.scopes,
            account,
            access: import.access,
            refresh: Some(import.refresh),
            aws: None,
            executor: None,
            region: None,
        };
        self.store(caller, Action::CredentialImport, incoming).await
    }

    /// Adds to `changes` that a grant was brought in, unless it is an outdated copy, or kept already.
    pub(super) async fn brought(
        &self,
        changes: Changes,
        credential: &Credential,
        secret: &CredentialSecret,
    ) -> Result<Changes, Refusal> {
        let Credential { org, id, .. } = *credential;
        let before = self.refresher.lineage(credential).await?;
        let link = linked(credential, secret, Origin::Brought);
        let Some(refresh) = link.refresh else {
            return Ok(changes);
        };
        if let Some(outdated) = before.outdated(refresh) {
            return Err(Refusal {
                field: Some("refresh_token"),
                ..Refusal::new(
                    Reason::GrantOutdated,
                    format!(
                        "this refresh token is an outdated copy: {id} had it as generation {} and has rotated since; \
                         sending it would end the grant",
                        outdated.generation
                    ),
                )
                .with("credential", id.to_string())
            });
        }
        let place = keys::grant(org, refresh);
        let kept = self.records.get::<Pointer>(&place).await?;
        let changes = match kept {
            Some(kept) if *kept.value.id == *id.as_bytes() => changes.at(&place, kept.revision),
            Some(kept) => {
                let other = CredentialId::from_bytes(*kept.value.id);
                if self.has_grant(org, other, refresh).await? {
                    return Err(Refusal {
                        field: Some("refresh_token"),
                        ..Refusal::new(
                            Reason::GrantKeptAlready,
                            "this very grant is kept for another owner of this org: two copies of one grant log each \
                             other out",
                        )
                    });
                }
                changes.at(&place, kept.revision)
            }
            None => changes.absent(&place),
        };
        Ok(descended(changes, credential, &before, &before.with(link, None)))
    }

    /// Whether a credential has this refresh token now.
    async fn has_grant(&self, org: OrgId, id: CredentialId, refresh: Fingerprint) -> Result<bool, Refusal> {
        let stored = self.records.get::<Credential>(&keys::credential(org, id)).await?;
        let Some(stored) = stored else {
            return Ok(false);
        };
        Ok(self.refresher.lineage(&stored.value).await?.refresh() == Some(refresh))
    }
}

fn checked_token(field: &'static str, token: &[u8]) -> Result<(), Refusal> {
    let printable = token.iter().all(|byte| (0x20..0x7f).contains(byte));
    if token.is_empty() || token.len() > MAX_TOKEN || !printable {
        let message = format!("{field} is 1 to {MAX_TOKEN} printable ASCII characters (RFC 6749 appendix A)");
        return Err(Refusal::invalid(field, message));
    }
    Ok(())
}

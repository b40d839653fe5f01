//! Grants that are taken over from elsewhere. An outdated copy is told from a current one, and no grant is kept
//! twice: whoever refreshed it first would log the other out.

use std::sync::Arc;
use std::time::Duration;

use super::{BEARER, Incoming, OwnerRef};
use crate::domain::actor::Caller;
use crate::domain::credential::Credential;
use crate::domain::id::{CredentialId, OrgId};
use crate::domain::journal::Action;
use crate::domain::lineage::{Fingerprint, Origin};
use crate::domain::mode::CredentialKind;
use crate::domain::owner::Owner;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::rotation::Phase;
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
            token_type: BEARER.to_owned(),
            refresh_expires: None,
        };
        self.store(caller, Action::CredentialImport, incoming).await
    }

    /// Adds to `changes` that a grant was brought in, in place of the credential `old` where there is one; unless it
    /// is an outdated copy, kept already, or on its way through an exchange.
    pub(super) async fn brought(
        &self,
        changes: Changes,
        old: Option<&Credential>,
        credential: &Credential,
        secret: &CredentialSecret,
        refresh_expires: Option<Time>,
    ) -> Result<Changes, Refusal> {
        let Credential { org, id, .. } = *credential;
        let before = self.refresher.lineage(credential).await?;
        let link = linked(credential, secret, Origin::Brought, None);
        let Some(refresh) = link.refresh else {
            return Ok(changes);
        };
        if before.refresh() == Some(refresh) {
            under_way(old)?;
        }
        let place = keys::grant(org, refresh);
        let changes = match self.records.get::<Pointer>(&place).await? {
            Some(kept) => {
                let by = CredentialId::from_bytes(*kept.value.id);
                self.not_kept(org, by, id, refresh).await?;
                changes.at(&place, kept.revision)
            }
            None => changes.absent(&place),
        };
        Ok(descended(
            changes,
            credential,
            &before,
            &before.with(link, refresh_expires),
        ))
    }

    /// Refuses a refresh token that the credential `by` has and is not `id`, or that it had before.
    async fn not_kept(
        &self,
        org: OrgId,
        by: CredentialId,
        id: CredentialId,
        refresh: Fingerprint,
    ) -> Result<(), Refusal> {
        let stored = self.records.get::<Credential>(&keys::credential(org, by)).await?;
        let Some(stored) = stored else {
            return Ok(());
        };
        let lineage = self.refresher.lineage(&stored.value).await?;
        let refused = |reason, message: String| Refusal {
            field: Some("refresh_token"),
            ..Refusal::new(reason, message)
        };
        // Whose it is is told to its own owner only.
        let whose = match by == id {
            true => by.to_string(),
            false => "another credential of this org".to_owned(),
        };
        if let Some(outdated) = lineage.outdated(refresh) {
            let message = format!(
                "this refresh token is an outdated copy: {whose} had it as generation {} and has rotated since; \
                 sending it would end the grant",
                outdated.generation
            );
            return Err(refused(Reason::GrantOutdated, message));
        }
        if by != id && lineage.refresh() == Some(refresh) {
            let message = "this very grant is kept for another owner of this org: two copies of one grant log each \
                           other out";
            return Err(refused(Reason::GrantKeptAlready, message.to_owned()));
        }
        Ok(())
    }
}

/// Refuses the refresh token that a credential has already while it may be on its way to the provider: the answer
/// would find its claim gone, and what it brings would be lost.
fn under_way(old: Option<&Credential>) -> Result<(), Refusal> {
    let phase = old.map(|old| &old.rotation.phase);
    match phase {
        Some(Phase::Claimed { .. } | Phase::Staged { .. } | Phase::Ambiguous { .. }) => Err(Refusal::new(
            Reason::Conflict,
            "this very grant is being refreshed: the broker has it already, and what becomes of it is not known yet",
        )
        .retry_after(Duration::from_secs(2))),
        Some(Phase::Live { .. } | Phase::Quarantined { .. } | Phase::Dead { .. }) | None => Ok(()),
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

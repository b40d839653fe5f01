//! Disconnecting an account: it is gone from here at once, and its tokens are revoked at the provider.
//!
//! One commit removes the credential and puts its revocation in the queue; the secret stays where it is until the
//! revocation has taken it on. So a crash at any moment leaves either an account that is connected, or one that is gone
//! and will be revoked. What an exchange brings that is under way at that moment is revoked as well.

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::effect::{Undone, detached};
use super::outstanding::LEASES_PER_COMMIT;
use super::revocations::told;
use super::scope::{Place, parse_id};
use crate::domain::actor::Caller;
use crate::domain::credential::Credential;
use crate::domain::id::{CredentialId, OrgId, RevocationId};
use crate::domain::journal::{Action, Record};
use crate::domain::lease::Lease;
use crate::domain::mode::CredentialKind;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::revocation::{Fate, Revocation, RevokedToken, TokenKind};
use crate::domain::rotation::Phase;
use crate::domain::watch::{Ended, Notice};
use crate::store::keys::Key;
use crate::store::model::{CredentialSecret, Pointer};
use crate::store::record::{Changes, Stored};
use crate::store::{MAX_SCAN, keys};

/// An account to disconnect.
#[derive(Clone, Copy, Debug)]
pub struct Disconnect<'a> {
    /// The org.
    pub org: &'a str,
    /// The credential: a grant.
    pub credential: &'a str,
    /// Leaves the provider alone.
    pub keep_upstream: bool,
    /// How long to wait for the provider, at most 30 s; `None`: 5 s.
    pub wait: Option<Duration>,
}

/// An account that is gone.
#[derive(Clone, Debug)]
pub struct Disconnected {
    /// What became of each token at the provider.
    pub tokens: Vec<RevokedToken>,
    /// The revocation that goes on; `None`: none does.
    pub revocation: Option<RevocationId>,
    /// The leases that stood on it; in an org of very many, as many as were found before the answer.
    pub leases_ended: usize,
}

/// How long is waited for a provider where nothing else is asked for.
const WAIT: Duration = Duration::from_secs(5);
/// How long is waited at most.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// How many leases are looked at before the answer.
const MAX_SCANNED: usize = 50_000;
/// How often it is tried again when the credential is changed at the same moment.
const ATTEMPTS: usize = 16;

impl Broker {
    /// Removes a connected account, and has its tokens revoked at the provider. Repeated within a week, it tells how that
    /// stands.
    pub async fn disconnect_account(
        self: &Arc<Self>,
        caller: &Caller,
        disconnect: Disconnect<'_>,
    ) -> Result<Disconnected, Refusal> {
        let wait = disconnect.wait.unwrap_or(WAIT);
        if wait > MAX_WAIT {
            let message = format!("wait is at most {} seconds", MAX_WAIT.as_secs());
            return Err(Refusal::invalid("wait", message));
        }
        let place = self.place(caller, disconnect.org).await?;
        let (org, id) = (place.id(), parse_id("credential", disconnect.credential)?);
        for _ in 0..ATTEMPTS {
            let key = keys::credential(org, id);
            let Some(stored) = self.records.get::<Credential>(&key).await? else {
                return self.disconnected_before(&place, id, wait).await;
            };
            place.admit("credential", None, stored.value.owner.member())?;
            if stored.value.kind != CredentialKind::OAuthGrant {
                let message = "this credential is a key and no connected account: 'credbroker credential remove' removes it";
                return Err(Refusal::invalid("credential", message));
            }
            let record = caller.record(Action::AccountDisconnect, Some(org));
            match self
                .disconnect_one(stored, record, disconnect.keep_upstream)
                .await
            {
                Ok((disconnected, Some(revocation))) => {
                    // It is done, whatever becomes of reading how the revocation stands.
                    let settled = self.revoker.settled(&revocation, wait).await;
                    let settled = settled.unwrap_or_else(|refusal| {
                        tracing::warn!(revocation = %revocation.id, %refusal, "a revocation could not be read");
                        revocation
                    });
                    return Ok(as_it_stands(&settled, disconnected.leases_ended));
                }
                Ok((disconnected, None)) => return Ok(disconnected),
                Err(Undone::Conflict) => {}
                Err(Undone::Refused(refusal)) => return Err(refusal),
            }
        }
        Err(Undone::Conflict.into())
    }

    /// The effect, and what follows from it here. Runs to its end even when the caller goes away.
    async fn disconnect_one(
        self: &Arc<Self>,
        stored: Stored<Credential>,
        record: Record,
        keep_upstream: bool,
    ) -> Result<(Disconnected, Option<Revocation>), Undone> {
        let broker = Arc::clone(self);
        detached(async move {
            let Credential { id, org, owner, .. } = *stored.value;
            let mut record = record
                .about("credential", id)
                .about("owner", owner)
                .about("provider", &stored.value.provider)
                .about("connector", &stored.value.connector);
            let mut tokens = broker.tokens_of(&stored.value).await?;
            let (changes, revocation) = if keep_upstream {
                record = record.about("kept_upstream", true);
                tokens.iter_mut().for_each(|token| token.fate = Fate::Expires);
                (broker.removing(&stored).await?, None)
            } else {
                let (changes, revocation) = broker.disconnecting(&stored).await?;
                record = record.about("revocation", revocation.id);
                (changes, Some(revocation))
            };
            broker.effect(record, changes).await?;
            let ended = Ended::Credential(id, owner);
            broker.publish(Notice::ended(org, ended, Reason::CredentialUnusable, false));
            if let Some(revocation) = &revocation {
                broker.revoker.try_now(revocation);
            }
            let disconnected = Disconnected {
                tokens,
                revocation: None,
                leases_ended: broker.end_leases_on(org, id).await,
            };
            Ok((disconnected, revocation))
        })
        .await
    }

    /// That a grant goes as it was read, and that what it had is to be revoked at the provider.
    pub(super) async fn disconnecting(
        &self,
        stored: &Stored<Credential>,
    ) -> Result<(Changes, Revocation), Refusal> {
        let tokens = self.tokens_of(&stored.value).await?;
        let changes = self.leaving_its_secret(stored).await?;
        self.revoker.revoking_left(changes, &stored.value, tokens)
    }

    /// The tokens that a grant has, as far as is known before a staged answer is looked into.
    async fn tokens_of(&self, credential: &Credential) -> Result<Vec<RevokedToken>, Refusal> {
        let key = keys::credential_secret(credential.org, credential.id);
        let secret = self.records.get::<CredentialSecret>(&key).await?;
        let lineage = self.refresher.lineage(credential).await?;
        let mut tokens = secret.map_or_else(Vec::new, |secret| {
            told(&secret.value, lineage.refresh_expires, credential.expires)
        });
        let phase = &credential.rotation.phase;
        if matches!(phase, Phase::Claimed { .. } | Phase::Ambiguous { .. }) {
            let refresh = tokens.iter_mut().filter(|token| token.kind == TokenKind::Refresh);
            refresh.for_each(RevokedToken::doubt);
        }
        Ok(tokens)
    }

    /// How it stands with an account that is gone already: whoever lost the answer may ask again.
    async fn disconnected_before(
        &self,
        place: &Place,
        credential: CredentialId,
        wait: Duration,
    ) -> Result<Disconnected, Refusal> {
        let missing = || Refusal::not_found("credential");
        let key = keys::revocation_of(place.id(), credential);
        let pointer = self.records.get::<Pointer>(&key).await?.ok_or_else(missing)?;
        let id = RevocationId::from_bytes(*pointer.value.id);
        let stored = self
            .records
            .get::<Revocation>(&keys::revocation(place.id(), id))
            .await?;
        let revocation = stored.ok_or_else(missing)?.value;
        place.admit("credential", None, revocation.member)?;
        let settled = self.revoker.settled(&revocation, wait).await?;
        Ok(as_it_stands(&settled, 0))
    }

    /// Ends what stands on a credential that is gone, whoever holds it, and counts it as far as it looks at once: the rest
    /// goes on in the background. The account is gone by now, so nothing here makes that a failure, and nobody is handed
    /// anything of it in any case: a lease that an error or a crash leaves standing ends with its time.
    async fn end_leases_on(self: &Arc<Self>, org: OrgId, credential: CredentialId) -> usize {
        let mut look = Look::default();
        while look.scanned < MAX_SCANNED {
            if !self.end_some_leases_on(org, credential, &mut look).await {
                return look.ended;
            }
        }
        let (broker, ended) = (Arc::clone(self), look.ended);
        tokio::spawn(async move {
            while broker.end_some_leases_on(org, credential, &mut look).await {
                tokio::task::yield_now().await;
            }
        });
        ended
    }

    /// Ends those among the next leases of the org, and says whether there are more to look at.
    async fn end_some_leases_on(&self, org: OrgId, credential: CredentialId, look: &mut Look) -> bool {
        match self.try_end_leases_on(org, credential, look).await {
            Ok(more) => more,
            Err(refusal) => {
                tracing::warn!(%credential, %refusal, "leases on a disconnected account are left to expire");
                false
            }
        }
    }

    async fn try_end_leases_on(
        &self,
        org: OrgId,
        credential: CredentialId,
        look: &mut Look,
    ) -> Result<bool, Refusal> {
        let now = self.now();
        let list = keys::leases(org);
        let rows = self
            .records
            .scan::<Lease>(list.as_bytes(), look.after.as_ref(), MAX_SCAN)
            .await?;
        look.scanned += rows.len();
        let on_it = |lease: &&Arc<Lease>| lease.credential == Some(credential) && lease.stands(now);
        let standing: Vec<_> = rows
            .iter()
            .map(|(_, lease)| &lease.value)
            .filter(on_it)
            .cloned()
            .collect();
        for some in standing.chunks(LEASES_PER_COMMIT) {
            self.end_these(some, now).await?;
            look.ended += some.len();
        }
        look.after = rows.into_iter().last().map(|(key, _)| key);
        Ok(look.after.is_some())
    }
}

/// How far an org's leases were looked through.
#[derive(Default)]
struct Look {
    after: Option<Key>,
    scanned: usize,
    ended: usize,
}

fn as_it_stands(revocation: &Revocation, leases_ended: usize) -> Disconnected {
    Disconnected {
        tokens: revocation.tokens.clone(),
        revocation: revocation.ended.is_none().then_some(revocation.id),
        leases_ended,
    }
}

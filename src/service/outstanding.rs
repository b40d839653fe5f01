//! What stays valid at the providers when somebody is stopped, and what is done about it.
//!
//! A lease ends here at once. The token or key that it handed out is the provider's: it works there until the
//! provider says otherwise. So whoever revokes or locks is told lease by lease what is still out there, of which
//! generation, until when, and what was or has to be done.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::Broker;
use super::refresh::Need;
use crate::domain::agent::Agent;
use crate::domain::credential::Credential;
use crate::domain::id::{CredentialId, EnvironmentId, LeaseId, OrgId};
use crate::domain::lease::{Handed, Holder, Lease};
use crate::domain::lineage::Lineage;
use crate::domain::lock::LockTarget;
use crate::domain::mode::{AuthMode, CredentialKind};
use crate::domain::refusal::Refusal;
use crate::domain::time::Time;
use crate::store::MAX_SCAN;
use crate::store::keys;
use crate::store::model::LeasePointer;
use crate::store::record::Changes;
use std::sync::Arc;

/// What becomes of material that the broker cannot take back by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// An access token: it works until it expires there.
    Expires,
    /// The grant was rotated, with which the provider ends older access tokens.
    Rotated,
    /// The grant was rotated, and the provider lets older access tokens live until they expire.
    RotatedOldLives,
    /// The grant was not rotated, though asked for: others hold leases on it.
    Shared,
    /// The grant was to be rotated, and could not be.
    RotationFailed,
    /// A key: it works until it is replaced or deleted at the provider.
    ReplaceAtProvider,
}

impl Fate {
    /// What there is to do, in words.
    pub const fn advice(self) -> &'static str {
        match self {
            Fate::Expires => "nothing more can be done here: it works at the provider until it expires",
            Fate::Rotated => "nothing: the grant was rotated, which ends the token at the provider",
            Fate::RotatedOldLives => {
                "nothing more can be done here: the grant was rotated, and the provider lets the older token live until it expires"
            }
            Fate::Shared => {
                "not rotated, because others hold leases on the same grant: rotate it when that suits"
            }
            Fate::RotationFailed => {
                "the grant could not be rotated now: revoke again with rotation, or end the session at the provider"
            }
            Fate::ReplaceAtProvider => {
                "a key cannot be recalled: replace it at the provider, delete it there, and store the new one"
            }
        }
    }
}

/// Material that was handed out and may still work at the provider.
#[derive(Clone, Copy, Debug)]
pub struct OutstandingLease {
    /// The lease.
    pub lease: LeaseId,
    /// Who has it.
    pub holder: Holder,
    /// The credential behind it; `None`: one of the platform's own keys.
    pub credential: Option<CredentialId>,
    /// The generation last handed out.
    pub generation: u64,
    /// When the material stops working by itself, where that is known.
    pub expires: Option<Time>,
    /// Whether the lease has ended for good, rather than being refused while a lock holds.
    pub ended: bool,
    /// What becomes of the material.
    pub fate: Fate,
}

/// What is still out there.
#[derive(Clone, Debug, Default)]
pub struct Outstanding {
    /// Lease by lease.
    pub leases: Vec<OutstandingLease>,
    /// Whether there is more than is listed or was looked through.
    pub more: bool,
}

/// What happens to the leases themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// They end.
    Ended,
    /// They stand, and are refused while a lock holds.
    WhileLocked,
}

/// How many leases are ended in one commit.
pub(super) const LEASES_PER_COMMIT: usize = 50;
/// How many are listed in one answer, and how many looked through for it.
const MAX_LISTED: usize = 1_000;
const MAX_SCANNED: usize = 50_000;
/// How many grants one call rotates at most.
const MAX_ROTATIONS: usize = 32;

impl Outstanding {
    fn add(&mut self, found: Option<OutstandingLease>) {
        match found {
            Some(_) if self.leases.len() >= MAX_LISTED => self.more = true,
            found => self.leases.extend(found),
        }
    }

    /// Adds what somebody else holds.
    pub(super) fn join(&mut self, other: Outstanding) {
        self.more |= other.more;
        other.leases.into_iter().for_each(|lease| self.add(Some(lease)));
    }
}

/// What came of rotating a grant.
enum Rotated {
    Done {
        lineage: Arc<Lineage>,
        /// Whether the provider lets older access tokens live.
        old_lives: bool,
    },
    Failed,
}

impl Rotated {
    /// What became of a generation that was handed out. One of an earlier sign-in is out of reach: the broker has
    /// nothing left to rotate it with.
    fn fate_of(&self, generation: u64) -> Fate {
        match self {
            Rotated::Failed => Fate::RotationFailed,
            Rotated::Done { lineage, .. } if !lineage.replaced_by_provider(generation) => Fate::Expires,
            Rotated::Done { old_lives: true, .. } => Fate::RotatedOldLives,
            Rotated::Done { .. } => Fate::Rotated,
        }
    }
}

/// Whose leases are meant.
#[derive(Clone, Copy, Debug)]
enum Of {
    Target(LockTarget),
    Environment(EnvironmentId),
}

impl Broker {
    /// What is still out there of a lease, as far as anybody here can know.
    pub(super) async fn still_valid(
        &self,
        lease: &Lease,
        kept: Kept,
        now: Time,
    ) -> Result<Option<OutstandingLease>, Refusal> {
        let Some(id) = lease.credential else {
            // A grant for the model proxy ends with its lease; one of the platform's keys does not.
            return Ok(lease.handed.map(|handed| OutstandingLease {
                lease: lease.id,
                holder: lease.holder,
                credential: None,
                generation: handed.generation,
                expires: handed.expires,
                ended: kept == Kept::Ended,
                fate: Fate::ReplaceAtProvider,
            }));
        };
        let key = keys::credential(lease.org, id);
        let credential = self
            .records
            .get::<Credential>(&key)
            .await?
            .map(|stored| stored.value);
        let current = credential.as_ref().map(|credential| Handed {
            generation: credential.rotation.generation,
            expires: credential.expires,
            at: None,
        });
        // Leases of the first release do not say; the present generation is then as good as can be told.
        let handed = lease.handed.or(current).unwrap_or(Handed {
            generation: 0,
            expires: None,
            at: None,
        });
        let is_grant = credential
            .as_ref()
            .map_or(lease.mode == AuthMode::OAuth, |credential| {
                credential.kind == CredentialKind::OAuthGrant
            });
        let expired = handed.expires.is_some_and(|expires| now >= expires);
        if expired {
            return Ok(None);
        }
        let fate = if is_grant {
            if let Some(credential) = credential
                && credential.rotation.generation > handed.generation
                && !self.old_access_survives(&credential)
                && self
                    .refresher
                    .lineage(&credential)
                    .await?
                    .replaced_by_provider(handed.generation)
            {
                return Ok(None);
            }
            Fate::Expires
        } else {
            Fate::ReplaceAtProvider
        };
        Ok(Some(OutstandingLease {
            lease: lease.id,
            holder: lease.holder,
            credential: Some(id),
            generation: handed.generation,
            expires: handed.expires,
            ended: kept == Kept::Ended,
            fate,
        }))
    }

    fn old_access_survives(&self, credential: &Credential) -> bool {
        let connector = self.connectors.get(&credential.connector);
        connector.is_none_or(|connector| connector.old_access_survives)
    }

    /// Ends every lease of a holder that can take no new ones, and lists what stays valid at the providers.
    pub(super) async fn end_leases(&self, org: OrgId, holder: Holder) -> Result<Outstanding, Refusal> {
        self.leases_for(org, holder, Kept::Ended).await
    }

    async fn leases_for(&self, org: OrgId, holder: Holder, kept: Kept) -> Result<Outstanding, Refusal> {
        let now = self.now();
        let (mut outstanding, mut after) = (Outstanding::default(), None);
        loop {
            let list = keys::leases_for(org, holder);
            let rows = self
                .records
                .scan::<LeasePointer>(list.as_bytes(), after.as_ref(), LEASES_PER_COMMIT);
            let rows = rows.await?;
            let mut leases = Vec::with_capacity(rows.len());
            for (_, pointer) in &rows {
                let key = keys::lease(org, pointer.value.lease);
                leases.extend(self.records.get::<Lease>(&key).await?.map(|stored| stored.value));
            }
            if kept == Kept::Ended {
                self.end_these(&leases, now).await?;
            }
            for lease in &leases {
                outstanding.add(self.still_valid(lease, kept, now).await?);
            }
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => return Ok(outstanding),
            }
        }
    }

    pub(super) async fn end_these(&self, leases: &[Arc<Lease>], now: Time) -> Result<(), Refusal> {
        let mut changes = Changes::default();
        let mut any = false;
        for lease in leases.iter().filter(|lease| lease.ended.is_none()) {
            let ended = Lease {
                ended: Some(now),
                ..Lease::clone(lease)
            };
            changes = changes.put(&keys::lease(lease.org, lease.id), &ended);
            any = true;
        }
        if any {
            let _applied = self.records.commit(changes).await?;
        }
        Ok(())
    }

    /// Ends every lease that works for a member, whoever holds it. The member takes no new ones any more.
    pub(super) async fn end_member_leases(
        &self,
        org: OrgId,
        member: crate::domain::id::MemberId,
    ) -> Result<(usize, Outstanding), Refusal> {
        let now = self.now();
        let (mut outstanding, mut ended, mut after) = (Outstanding::default(), 0, None);
        loop {
            let list = keys::leases(org);
            let rows = self
                .records
                .scan::<Lease>(list.as_bytes(), after.as_ref(), MAX_SCAN)
                .await?;
            let theirs = rows.iter().map(|(_, lease)| &lease.value);
            let theirs: Vec<_> = theirs.filter(|lease| lease.member == member).cloned().collect();
            for some in theirs.chunks(LEASES_PER_COMMIT) {
                ended += some.iter().filter(|lease| lease.ended.is_none()).count();
                self.end_these(some, now).await?;
            }
            for lease in &theirs {
                outstanding.add(self.still_valid(lease, Kept::Ended, now).await?);
            }
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => return Ok((ended, outstanding)),
            }
        }
    }

    /// What the target of a lock was handed, or what was handed out of it, and may still work.
    pub(super) async fn outstanding_of(
        &self,
        org: OrgId,
        target: LockTarget,
        kept: Kept,
    ) -> Result<Outstanding, Refusal> {
        let of = match target {
            LockTarget::Agent(id) => return self.leases_for(org, Holder::Agent(id), kept).await,
            LockTarget::Environment(id) => Of::Environment(id),
            target => Of::Target(target),
        };
        let now = self.now();
        let (mut outstanding, mut after, mut scanned) = (Outstanding::default(), None, 0);
        loop {
            let list = keys::leases(org);
            let rows = self
                .records
                .scan::<Lease>(list.as_bytes(), after.as_ref(), MAX_SCAN)
                .await?;
            scanned += rows.len();
            for (_, lease) in &rows {
                if self.is_of(&lease.value, of).await? {
                    outstanding.add(self.still_valid(&lease.value, kept, now).await?);
                }
            }
            match rows.into_iter().last() {
                Some(_) if scanned >= MAX_SCANNED || outstanding.more => {
                    outstanding.more = true;
                    return Ok(outstanding);
                }
                Some((key, _)) => after = Some(key),
                None => return Ok(outstanding),
            }
        }
    }

    async fn is_of(&self, lease: &Lease, of: Of) -> Result<bool, Refusal> {
        Ok(match (of, lease.holder) {
            (Of::Target(LockTarget::Member(member)), _) => lease.member == member,
            (Of::Target(LockTarget::Credential(credential)), _) => lease.credential == Some(credential),
            (Of::Target(_), _) => true,
            (Of::Environment(environment), Holder::Agent(agent)) => {
                let agent = self.records.get::<Agent>(&keys::agent(lease.org, agent)).await?;
                agent.is_some_and(|agent| agent.value.environment == environment)
            }
            (Of::Environment(_), _) => false,
        })
    }

    /// Rotates the grants behind what is outstanding, where nobody else holds a lease on them, so that the
    /// tokens handed out die where the provider ends older ones; writes down what came of each.
    pub(super) async fn rotate_outstanding(
        &self,
        org: OrgId,
        outstanding: &mut Outstanding,
    ) -> Result<(), Refusal> {
        let grants = |lease: &&OutstandingLease| lease.fate == Fate::Expires;
        // Of each the newest generation that is out there.
        let mut newest: HashMap<CredentialId, u64> = HashMap::new();
        for lease in outstanding.leases.iter().filter(grants) {
            if let Some(credential) = lease.credential {
                let newest = newest.entry(credential).or_default();
                *newest = lease.generation.max(*newest);
            }
        }
        if newest.is_empty() {
            return Ok(());
        }
        let wanted = newest.keys().copied().collect();
        let shared = self.held_by_others(org, &wanted).await?;
        let mut done: HashMap<CredentialId, Rotated> = HashMap::new();
        for lease in outstanding
            .leases
            .iter_mut()
            .filter(|lease| lease.fate == Fate::Expires)
        {
            let Some(credential) = lease.credential else {
                continue;
            };
            lease.fate = match done.get(&credential) {
                _ if shared.contains(&credential) => Fate::Shared,
                Some(rotated) => rotated.fate_of(lease.generation),
                None if done.len() >= MAX_ROTATIONS => Fate::RotationFailed,
                None => {
                    let rotated = self.rotate(org, credential, newest[&credential]).await;
                    let fate = rotated.fate_of(lease.generation);
                    done.insert(credential, rotated);
                    fate
                }
            };
        }
        Ok(())
    }

    /// Has a grant replaced, unless it is newer than this generation already.
    async fn rotate(&self, org: OrgId, credential: CredentialId, generation: u64) -> Rotated {
        let need = Need {
            remaining: Duration::ZERO,
            newer_than: Some(generation),
        };
        let rotated = async {
            let fresh = self.refresher.renewed(org, credential, need).await?;
            let lineage = self.refresher.lineage(&fresh.credential).await?;
            Ok::<_, Refusal>((lineage, self.old_access_survives(&fresh.credential)))
        };
        match rotated.await {
            Ok((lineage, old_lives)) => Rotated::Done { lineage, old_lives },
            Err(refusal) => {
                tracing::warn!(%credential, %refusal, "a grant could not be rotated");
                Rotated::Failed
            }
        }
    }

    /// Those of the credentials on which somebody holds a lease that stands. Where there are more leases than
    /// are looked through, all of them.
    async fn held_by_others(
        &self,
        org: OrgId,
        wanted: &HashSet<CredentialId>,
    ) -> Result<HashSet<CredentialId>, Refusal> {
        let now = self.now();
        let (mut held, mut after, mut scanned) = (HashSet::new(), None, 0);
        loop {
            let list = keys::leases(org);
            let rows = self
                .records
                .scan::<Lease>(list.as_bytes(), after.as_ref(), MAX_SCAN)
                .await?;
            scanned += rows.len();
            let standing = rows.iter().map(|(_, lease)| &lease.value);
            let standing = standing.filter(|lease| lease.stands(now));
            let behind = standing.filter_map(|lease| lease.credential);
            held.extend(behind.filter(|credential| wanted.contains(credential)));
            match rows.into_iter().last() {
                Some(_) if scanned >= MAX_SCANNED => return Ok(wanted.clone()),
                Some((key, _)) => after = Some(key),
                None => return Ok(held),
            }
        }
    }
}

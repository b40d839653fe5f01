//! Operators that are made on the broker's own machine: the first one, and one where all tokens are lost.

use std::sync::Arc;
use std::time::Duration;

use super::Operator;
use crate::domain::id::OperatorId;
use crate::domain::journal::{Action, Record};
use crate::domain::refusal::Refusal;
use crate::domain::role::{Grant, Role, Scope};
use crate::domain::secret::{ActorToken, Secret};
use crate::domain::token::{OperatorFamily, Token};
use crate::service::Broker;
use crate::service::access::{TOKEN_TTL, TOKEN_TTL_MAX, checked_ttl};
use crate::store::record::Changes;
use crate::store::{MAX_SCAN, keys};

/// A system admin made in place of those whose tokens are lost.
pub struct Recovered {
    /// The new operator.
    pub id: OperatorId,
    /// Its token, to be shown once.
    pub token: Secret<ActorToken>,
    /// The operators whose tokens were revoked.
    pub revoked: Vec<OperatorId>,
}

impl Broker {
    /// Makes a system admin and returns its token, to be shown once: good for 365 days, as nobody else may be
    /// there to renew it. Called on the broker's own machine only; no RPC leads here.
    pub async fn create_operator(
        self: &Arc<Self>,
        display_name: &str,
    ) -> Result<Secret<ActorToken>, Refusal> {
        let made = self.make_admin(Action::OperatorCreate, display_name, TOKEN_TTL_MAX);
        Ok(made.await?.1)
    }

    async fn make_admin(
        self: &Arc<Self>,
        action: Action,
        display_name: &str,
        ttl: Duration,
    ) -> Result<(OperatorId, Secret<ActorToken>), Refusal> {
        let token = Token::<OperatorFamily>::new(self.new_id()?, self.random()?);
        let now = self.now();
        let operator = Operator {
            id: token.id(),
            token: token.hash(),
            display_name: display_name.to_owned(),
            created: now,
            expires: Some(now + ttl),
            revoked: None,
            member: None,
            grants: Some(vec![Grant {
                role: Role::SystemAdmin,
                scope: Scope::Broker,
            }]),
            previous: None,
        };
        let key = keys::operator(operator.id);
        let mut changes = Changes::default();
        changes = changes.absent(&key);
        changes = changes.put(&key, &operator);
        let record = Record::new(action, "broker", None).about("operator", operator.id);
        self.effect(record, changes).await?;
        Ok((operator.id, token.reveal()))
    }

    /// Makes a system admin where the tokens of the others are lost or not to be trusted, and, with
    /// `revoke_others`, revokes the tokens of all other operators who are no members. `ttl` is 1 minute to 365
    /// days; `None`: 90 days. Called on the broker's own machine only; no RPC leads here.
    pub async fn recover_operator(
        self: &Arc<Self>,
        ttl: Option<Duration>,
        revoke_others: bool,
    ) -> Result<Recovered, Refusal> {
        let ttl = checked_ttl(ttl, TOKEN_TTL, TOKEN_TTL_MAX)?;
        let made = self.make_admin(Action::OperatorRecover, "recovered operator", ttl);
        let (id, token) = made.await?;
        let revoked = if revoke_others {
            self.revoke_all_but(id).await?
        } else {
            Vec::new()
        };
        Ok(Recovered { id, token, revoked })
    }

    /// Revokes the tokens of all operators who are no members, but one.
    async fn revoke_all_but(self: &Arc<Self>, kept: OperatorId) -> Result<Vec<OperatorId>, Refusal> {
        let (mut revoked, mut after) = (Vec::new(), None);
        loop {
            let rows = self
                .records
                .scan::<Operator>(keys::operators().as_bytes(), after.as_ref(), MAX_SCAN)
                .await?;
            for (key, row) in &rows {
                let other = &row.value;
                if other.id == kept || other.member.is_some() || other.revoked.is_some() {
                    continue;
                }
                let operator = Operator {
                    revoked: Some(self.now()),
                    previous: None,
                    ..Operator::clone(other)
                };
                let mut changes = Changes::default();
                changes = changes.at(key, row.revision);
                changes = changes.put(key, &operator);
                let record =
                    Record::new(Action::OperatorRevoke, "broker", None).about("operator", operator.id);
                self.effect(record, changes).await?;
                revoked.push(operator.id);
            }
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => return Ok(revoked),
            }
        }
    }

    /// Whether there is any operator yet.
    pub async fn has_operator(&self) -> Result<bool, Refusal> {
        Ok(!self
            .records
            .scan::<Operator>(keys::operators().as_bytes(), None, 1)
            .await?
            .is_empty())
    }

    /// Whether this operator's token is a system admin's and good now.
    pub async fn is_system_admin(&self, id: OperatorId) -> Result<bool, Refusal> {
        let operator = self.records.get::<Operator>(&keys::operator(id)).await?;
        Ok(operator.is_some_and(|operator| operator.value.is_system_admin(self.now())))
    }
}

//! A secret's value, on its way to an agent.

use std::sync::Arc;

use super::{checked_path, no_secret, secret_record};
use crate::domain::actor::{Actor, AgentActor, Caller};
use crate::domain::extension::{Grantee, SecretGrant, SecretPath};
use crate::domain::journal::{Action, Position};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::service::Broker;
use crate::store::keys;
use crate::store::model::ExtensionSecretValue;

/// A value that was read, and the record that says so.
pub struct ReadSecret {
    /// The value.
    pub secret: Arc<ExtensionSecretValue>,
    /// The position of the journal record.
    pub position: Position,
}

/// How often a read begins anew when the secret is replaced under it.
const ATTEMPTS: usize = 4;

impl Broker {
    /// A secret's value, for an agent that its namespace is granted to. Recorded before it is answered; the agent,
    /// its grant and the value are looked at once more after that.
    pub async fn read_secret(
        self: &Arc<Self>,
        caller: &Caller,
        namespace: &str,
        name: &str,
    ) -> Result<ReadSecret, Refusal> {
        self.room_for(Action::SecretRead)?;
        let path = checked_path(namespace, name)?;
        let Actor::Agent(agent) = caller.actor() else {
            return Err(Refusal::new(
                Reason::PermissionDenied,
                "secrets are read by agents",
            ));
        };
        let record = secret_record(caller, Action::SecretRead, agent.org, &path);
        for _ in 0..ATTEMPTS {
            let Some(secret) = self.granted_value(agent, &path).await? else {
                return Err(self.denied(record, no_secret()).await);
            };
            let told = record.clone().about("version", secret.version);
            let position = self.journal.append(&told).await?;
            self.still_live(caller).await?;
            match self.granted_value(agent, &path).await? {
                Some(now) if now.version == secret.version => {
                    return Ok(ReadSecret { secret, position });
                }
                // Replaced meanwhile, or gone: another look tells.
                _ => {}
            }
        }
        Err(Refusal::new(
            Reason::Conflict,
            "the secret keeps changing while it is read",
        ))
    }

    /// The value, where there is one and the agent may read it. Reads the same whether or not it may.
    async fn granted_value(
        &self,
        agent: &AgentActor,
        path: &SecretPath,
    ) -> Result<Option<Arc<ExtensionSecretValue>>, Refusal> {
        let mut granted = false;
        for grantee in [Grantee::Agent(agent.id), Grantee::Environment(agent.environment)] {
            let key = keys::extension_grant(agent.org, &path.namespace, grantee);
            granted |= self.records.get::<SecretGrant>(&key).await?.is_some();
        }
        let key = keys::extension_value(agent.org, path);
        let value = self.records.get::<ExtensionSecretValue>(&key).await?;
        Ok(value.filter(|_| granted).map(|stored| stored.value))
    }
}

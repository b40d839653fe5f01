//! Introspection: another service asks whether what it was shown is an enrolled, live agent's (after RFC 7662).
//!
//! The answer is yes or no. A no never says why, and it looks the same for a key of another org, of an agent that
//! was revoked, and for nonsense. An introspection hands nothing out and changes nothing: it is no use of the
//! runtime key, does not count as the agent being seen, and is not journaled. It is no way to guess keys either:
//! they have 256 bits, and the asker needs a credential of its own.

use super::Broker;
use super::scope::Place;
use crate::domain::actor::{Actor, AgentActor, Caller};
use crate::domain::agent::{Agent, KeyFingerprint};
use crate::domain::id::TaskId;
use crate::domain::refusal::Refusal;
use crate::domain::task::{Task, TaskClaims};
use crate::domain::token::{RuntimeKeyFamily, Token};
use crate::store::keys;
use crate::store::model::Mark;
use subtle::ConstantTimeEq as _;

/// An agent that is what it says.
#[derive(Clone, Debug)]
pub struct Introspected {
    /// The agent.
    pub agent: std::sync::Arc<Agent>,
    /// The tasks it is assigned to that run.
    pub tasks: Vec<TaskId>,
}

/// How many assignments are looked at.
const MAX_TASKS: usize = 100;

impl Broker {
    /// The agent of the org whose runtime key this is, if it may act and enrolled with this certificate key.
    pub async fn introspect_runtime_key(
        &self,
        caller: &Caller,
        org: &str,
        runtime_key: &str,
        certificate_key: &[u8],
    ) -> Result<Option<Introspected>, Refusal> {
        let place = self.place(caller, org).await?;
        let key: [u8; 32] = certificate_key
            .try_into()
            .map_err(|_| Refusal::invalid("certificate_key_sha256", "certificate_key_sha256 has 32 bytes"))?;
        let Ok(token) = Token::<RuntimeKeyFamily>::parse(runtime_key) else {
            return Ok(None);
        };
        let stored = self
            .records
            .get::<Agent>(&keys::agent(place.id(), token.id()))
            .await?;
        let Some(agent) = stored.map(|stored| stored.value) else {
            return Ok(None);
        };
        let KeyFingerprint(enrolled) = agent.key;
        let same_key = bool::from(enrolled.ct_eq(&key));
        let good = agent.holds(&token.hash()) && same_key && agent.standing().is_ok();
        let actor = Actor::Agent(AgentActor {
            id: agent.id,
            org: agent.org,
            environment: agent.environment,
        });
        let good = good && self.unlocked_actor(&actor).is_ok();
        if !good || !self.reaches(&place, agent.environment).await? {
            return Ok(None);
        }
        let tasks = self.running_tasks(&place, &agent).await?;
        Ok(Some(Introspected { agent, tasks }))
    }

    async fn running_tasks(&self, place: &Place, agent: &Agent) -> Result<Vec<TaskId>, Refusal> {
        let rows = self
            .records
            .scan::<Mark>(
                keys::agent_tasks(place.id(), agent.id).as_bytes(),
                None,
                MAX_TASKS,
            )
            .await?;
        let mut running = Vec::new();
        for id in rows.iter().filter_map(|(key, _)| key.last_id()) {
            let task = self.records.get::<Task>(&keys::task(place.id(), id)).await?;
            if task.is_some_and(|task| task.value.live(self.now(), TaskClaims::default()).is_ok()) {
                running.push(id);
            }
        }
        Ok(running)
    }
}

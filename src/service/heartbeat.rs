//! Heartbeats: an agent tells that it lives and what it is, and hears what to do next. Nothing is written for
//! one; see [`super::presence`].

use std::time::Duration;

use super::Broker;
use super::presence::{Present, Said};
use crate::domain::actor::AgentActor;
use crate::domain::agent::Agent;
use crate::domain::refusal::Refusal;
use crate::domain::time::Time;
use crate::store::keys;

/// What an agent should do next.
#[derive(Clone, Copy, Debug)]
pub struct Pulse {
    /// The broker's time.
    pub now: Time,
    /// When the certificate is to be renewed.
    pub renew: Time,
    /// When the newest certificate ends.
    pub certificate_expires: Time,
    /// How long to wait before the next heartbeat.
    pub next: Duration,
    /// How long the agent may stay away before it expires.
    pub unseen_expiry: Duration,
}

const MAX_VERSION_CHARS: usize = 64;
const MAX_PAIRS: usize = 8;
const MAX_PAIR_CHARS: usize = 64;
/// What was seen has to fit in one value of the store.
const MAX_PAIRS_BYTES: usize = 1_024;

fn checked(version: &str, attributes: &[(String, String)]) -> Result<Said, Refusal> {
    let fits = |text: &str, most: usize| text.chars().count() <= most && !text.chars().any(char::is_control);
    if !fits(version, MAX_VERSION_CHARS) {
        return Err(Refusal::invalid(
            "version",
            "version is at most 64 characters, none of them control characters",
        ));
    }
    let ok = attributes
        .iter()
        .all(|(key, value)| !key.is_empty() && fits(key, MAX_PAIR_CHARS) && fits(value, MAX_PAIR_CHARS));
    let bytes: usize = attributes
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if attributes.len() > MAX_PAIRS || !ok || bytes > MAX_PAIRS_BYTES {
        return Err(Refusal::invalid(
            "attributes",
            "attributes: at most 8 pairs of at most 64 characters, 1 024 bytes in all, none of them control \
             characters",
        ));
    }
    let mut attributes = attributes.to_vec();
    attributes.sort();
    Ok(Said {
        version: version.to_owned(),
        attributes,
    })
}

impl Broker {
    /// Takes note that the agent lives.
    pub async fn heartbeat(
        &self,
        actor: &AgentActor,
        version: &str,
        attributes: &[(String, String)],
    ) -> Result<Pulse, Refusal> {
        let said = checked(version, attributes)?;
        let stored = self
            .records
            .get::<Agent>(&keys::agent(actor.org, actor.id))
            .await?
            .ok_or_else(|| Refusal::not_found("agent"))?;
        self.touch_saying(Present::Agent(actor.org, actor.id), said);
        let settings = self.settings();
        let end = stored.value.certificate_expires;
        // In the last third of its life; how long that is, the record says, where it is kept there.
        let life = stored
            .value
            .certificates
            .map_or(settings.certificate_lifetime, |certificates| {
                end.since(certificates.issued)
            });
        Ok(Pulse {
            now: self.now(),
            renew: Time::from_millis(end.millis() - i64::try_from(life.as_millis() / 3).unwrap_or(0)),
            certificate_expires: end,
            next: settings.heartbeat_interval,
            unseen_expiry: settings.unseen_expiry,
        })
    }
}

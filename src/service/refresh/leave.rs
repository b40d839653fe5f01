//! Leave to send: what a flight has to have before it claims.

use std::time::Duration;

use super::Refresher;
use super::breaker::{Pass, Whose};
use super::exchange::{Leg, Why, rule};
use crate::domain::credential::Credential;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::rotation::Phase;
use crate::domain::time::Time;
use crate::upstream::connector::Connector;

/// When to come back after the provider could not be found.
const NOT_READY: Duration = Duration::from_secs(10);

impl Refresher {
    /// What has to be known of the provider before anything can be sent is found out before the claim: a claim says
    /// that something may have been sent.
    pub(super) async fn ready(&self, credential: &Credential, connector: &Connector) -> Result<(), Refusal> {
        self.parts.endpoint.ready(connector).await.map_err(|why| {
            let name = connector.name.as_str();
            Refusal::new(Reason::RefreshUnavailable, format!("connector {name}: {why}"))
                .retry_after(NOT_READY)
                .with("connector", name)
                .with("credential", credential.id.to_string())
        })
    }

    /// A place, where the flight came without one, and the word of the connector's breaker: before the wait for a
    /// place, so that nobody waits in vain, and after it. The breaker does not stop what saves a grant: one that the
    /// provider may have rotated is sent again while it is within its grace.
    pub(super) async fn leave(
        &self,
        credential: &Credential,
        connector: &Connector,
        leg: &mut Leg,
    ) -> Result<Pass, Refusal> {
        let name = &connector.name;
        let whose = Whose {
            org: credential.org,
            credential: credential.id,
        };
        let urgent = in_grace(credential, connector, self.now());
        if !urgent {
            self.breakers.look(name, whose)?;
        }
        if leg.place.is_none() && !matches!(leg.why, Why::Ahead { .. }) {
            let limit = self.parts.settings.load().exchange_timeout;
            leg.place = Some(self.places.take(name, limit).await?);
        }
        let pass = if urgent {
            self.breakers.urgent(name, whose)
        } else {
            self.breakers.admit(name, whose)?
        };
        Ok(pass)
    }
}

/// Whether an ambiguous grant is inside its provider's grace window.
fn in_grace(credential: &Credential, connector: &Connector, now: Time) -> bool {
    connector.rotates && is_harmless(credential, connector, now)
}

/// Whether an ambiguous grant may be sent again without harm.
pub(super) fn is_harmless(credential: &Credential, connector: &Connector, now: Time) -> bool {
    let Phase::Ambiguous { sent, .. } = &credential.rotation.phase else {
        return false;
    };
    rule(connector).harmless(*sent, now)
}

//! Leave to send: what a flight has to have before it claims.

use super::Refresher;
use super::breaker::{Pass, Whose};
use super::exchange::{Why, rule};
use super::places::Place;
use crate::domain::credential::Credential;
use crate::domain::refusal::Refusal;
use crate::domain::rotation::Phase;
use crate::domain::time::Time;
use crate::upstream::connector::Connector;

impl Refresher {
    /// A place, where the flight came without one, and the word of the connector's breaker: before the wait for a
    /// place, so that nobody waits in vain, and after it. The breaker does not stop what saves a grant: one that the
    /// provider may have rotated is sent again while it is within its grace.
    pub(super) async fn leave(
        &self,
        credential: &Credential,
        connector: &Connector,
        why: &Why,
    ) -> Result<(Option<Place>, Pass), Refusal> {
        let name = &connector.name;
        let whose = Whose {
            org: credential.org,
            credential: credential.id,
        };
        let urgent = in_grace(credential, connector, self.now());
        if !urgent {
            self.breakers.look(name, whose)?;
        }
        let place = match why {
            Why::Asked => {
                let limit = self.parts.settings.load().exchange_timeout;
                Some(self.places.take(name, limit).await?)
            }
            Why::Ahead { .. } => None,
        };
        let pass = if urgent {
            self.breakers.urgent(name, whose)
        } else {
            self.breakers.admit(name, whose)?
        };
        Ok((place, pass))
    }
}

/// Whether an ambiguous grant is inside its provider's grace window.
fn in_grace(credential: &Credential, connector: &Connector, now: Time) -> bool {
    let Phase::Ambiguous { sent, .. } = &credential.rotation.phase else {
        return false;
    };
    connector.rotates && rule(connector).harmless(*sent, now)
}

//! What is handed out in place of the platform's own keys: a base URL and a proxy grant; and who gets the key itself.

mod introspect;

use std::collections::BTreeMap;
use std::time::Duration;

use super::Broker;
use crate::domain::actor::Actor;
use crate::domain::grant_token::GrantClaims;
use crate::domain::lease::{Holder, Lease};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::secret::{ProxyGrantToken, Secret};
use crate::domain::time::Time;

pub use introspect::{ActiveGrant, Introspection};

/// The model proxy, from the configuration.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// Where model calls go; `{provider}` stands for the provider's name. Empty: nowhere.
    pub base_url: String,
    /// Where those of a provider go in place of that.
    pub base_urls: BTreeMap<String, String>,
    /// How long a grant is good for; never past its lease.
    pub grant_lifetime: Duration,
    /// Whether control-plane services get the platform's keys themselves.
    pub raw_to_control_plane: bool,
    /// Whether agents do.
    pub raw_to_agents: bool,
}

impl ProxySettings {
    /// Where model calls to this provider go; `None`: nowhere.
    pub fn base_url(&self, provider: &str) -> Option<String> {
        match self.base_urls.get(provider) {
            Some(url) => Some(url.clone()),
            None if self.base_url.is_empty() => None,
            None => Some(self.base_url.replace("{provider}", provider)),
        }
    }
}

/// What a holder calls models with, where it does not get the key itself.
pub struct ProxyGrant {
    /// Where its model calls go.
    pub base_url: String,
    /// What it shows there.
    pub token: Secret<ProxyGrantToken>,
    /// From when on that is good for nothing: not after the lease.
    pub expires: Time,
}

impl Broker {
    /// Whether this holder gets the platform's keys themselves.
    pub fn hands_raw(&self, holder: Holder) -> bool {
        let proxy = &self.settings().proxy;
        match holder {
            Holder::Agent(_) => proxy.raw_to_agents,
            Holder::ApiKey(_) => proxy.raw_to_control_plane,
            Holder::Operator(_) => false,
        }
    }

    /// Refuses where what a caller would be given is a proxy grant, and there is no proxy to show it to. `None` is an
    /// agent, whichever; humans are told what an agent would be.
    pub(super) fn has_proxy_for(&self, actor: Option<&Actor>, provider: &str) -> Result<(), Refusal> {
        let settings = self.settings();
        let raw = match actor {
            Some(Actor::ApiKey { .. }) => settings.proxy.raw_to_control_plane,
            Some(Actor::Agent(_) | Actor::Operator(_) | Actor::Member { .. }) | None => {
                settings.proxy.raw_to_agents
            }
        };
        if raw || settings.proxy.base_url(provider).is_some() {
            return Ok(());
        }
        Err(no_proxy(provider))
    }

    /// A proxy grant for a lease that stands. Nothing is stored of it, so a lease may have any number.
    pub fn proxy_grant(&self, lease: &Lease) -> Result<ProxyGrant, Refusal> {
        let settings = self.settings();
        let base_url = settings.proxy.base_url(&lease.provider);
        let base_url = base_url.ok_or_else(|| no_proxy(&lease.provider))?;
        let claims = GrantClaims {
            org: lease.org,
            lease: lease.id,
            expires: lease.expires.min(self.now() + settings.proxy.grant_lifetime),
        };
        Ok(ProxyGrant {
            base_url,
            token: claims.mint(&self.grant_key, self.random()?),
            expires: claims.expires,
        })
    }
}

fn no_proxy(provider: &str) -> Refusal {
    let message = format!("no model proxy is configured for {provider}");
    Refusal::new(Reason::ProxyNotConfigured, message).with("provider", provider)
}

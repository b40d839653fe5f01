//! How each mode is made to work, and each condition brought about.

use std::time::Duration;

use credbroker::domain::conditions::Condition;
use credbroker::domain::mode::AuthMode as Mode;
use credbroker::proto::{self, Capacity, KeyPool, ResolveCredentialRequest};

use crate::scene::{ENDPOINT, REFUSED, Scene};
use crate::support::reason;

impl Scene<'_> {
    /// Makes that the mode can be used; returns the credential that it then uses, where it is one.
    pub(crate) async fn enable(&mut self, mode: Mode) -> String {
        match mode {
            Mode::OAuth => return self.connect().await,
            Mode::Byok => return self.store_key("").await,
            Mode::Metered => self.add_credit(1_000_000).await,
            Mode::Shared => {}
            Mode::HostSession => self.facts.host_session_present = true,
            Mode::Local => {
                self.facts.local_endpoint = Some(proto::LocalEndpointFact {
                    base_url: ENDPOINT.to_owned(),
                    reachable: true,
                });
            }
        }
        String::new()
    }

    /// Brings a condition about in a mode that was enabled with `credential`.
    pub(crate) async fn befall(&mut self, mode: Mode, condition: Condition, credential: &str) {
        match (condition, mode) {
            (Condition::Unconnected | Condition::Revoked, Mode::HostSession) => {
                self.facts.host_session_present = false;
            }
            (Condition::NoKey | Condition::Revoked, Mode::Metered) => {
                self.world.remove_platform_key(KeyPool::Metered).await;
            }
            (Condition::NoKey | Condition::Revoked, Mode::Shared) => {
                self.world.remove_platform_key(KeyPool::Shared).await;
            }
            (Condition::Unconnected | Condition::NoKey | Condition::Revoked | Condition::NamedMissing, _) => {
                self.remove(credential).await
            }
            (Condition::Locked, _) => self.lock(credential).await,
            (Condition::NotEntitled, _) => self.entitle(proto::Entitlement::Withdrawn).await,
            (Condition::OverQuota, Mode::Metered) => self.add_credit(-1_000_000).await,
            (Condition::OverQuota, _) => self.shared_per_day(0).await,
            (Condition::WrongCapacity, _) => self.capacity = Capacity::Cloud,
            (Condition::EndpointDown, _) => self.facts.local_endpoint.as_mut().unwrap().reachable = false,
            (Condition::Lapsed, _) => self.subscribe(proto::Subscription::Inactive).await,
            (Condition::Rejected, Mode::OAuth) => self.refuse_grant().await,
            (Condition::AtLimit, _) => {
                for _ in 0..3 {
                    let task = self.task("set").await;
                    self.resolve(&task).await.unwrap();
                }
            }
            // Nobody but the one who calls the provider knows, and reports it afterwards.
            (Condition::Rejected, _) => {}
        }
    }

    /// Has the provider refuse the member's grant. A resolution finds out.
    pub(crate) async fn refuse_grant(&self) {
        self.world.provider.answer(400, REFUSED);
        let task = self.task("").await;
        let request = ResolveCredentialRequest {
            // More than what is left of any token.
            minimum_remaining: Some(Duration::from_secs(86_400).try_into().unwrap()),
            ..self.asks(&task)
        };
        let refused = self.automation.broker().resolve_credential(request).await;
        assert_eq!(reason(&refused.unwrap_err()), "REAUTH_REQUIRED");
    }
}

//! What the broker counts and measures of itself, for Prometheus.
//!
//! Labels are fixed words of the program: calls of the access table, status codes, reasons, outcomes; and the names
//! of connectors, which the operator's configuration sets. No id, no other name and nothing a caller wrote is ever a
//! label, so their number is bounded and they tell nothing about anybody. Recording is a look-up and an addition; nothing on the way of a request waits for a reader.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::domain::credential::Health;
use crate::domain::journal::Outcome;
use crate::domain::mode::CredentialKind;
use crate::domain::name::Name;
use crate::domain::pace::breaker::Standing;
use crate::domain::reason::Reason;

/// Seconds. From what one commit takes to what would be a fault.
const BUCKETS: [f64; 12] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    method: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Connected {
    connector: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stands {
    state: &'static str,
    kind: &'static str,
}

/// Counts one while it lives.
pub struct Level(Gauge);

impl Level {
    fn of(gauge: &Family<Connected, Gauge>, connector: &Name) -> Self {
        let gauge = gauge.get_or_create(&Connected::to(connector)).clone();
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Connected {
    fn to(connector: &Name) -> Self {
        Self {
            connector: connector.as_str().to_owned(),
        }
    }
}

/// What is read off at the moment of a scrape.
#[derive(Clone, Copy, Debug, Default)]
pub struct Levels {
    /// Streams that are open.
    pub open_streams: usize,
    /// Agents with a connection.
    pub connected_agents: usize,
    /// The last position of the journal.
    pub journal_position: u64,
    /// Credentials in use that are to be refreshed ahead of need.
    pub scheduled_ahead: usize,
    /// How long ago credentials were counted.
    pub credentials_counted_ago: Duration,
    /// Accounts whose tokens are still to be revoked at their providers.
    pub pending_revocations: usize,
}

/// All counters and measures.
pub struct Metrics {
    registry: Registry,
    revoke_to_deny: Histogram,
    revoke_to_stream_end: Histogram,
    requests: Family<Call, Counter>,
    denials: Family<Why, Counter>,
    refreshes: Family<Ended, Counter>,
    refreshes_ahead: Family<Ended, Counter>,
    refresh_ahead_scheduled: Gauge,
    refresh_exchanges: Family<Connected, Gauge>,
    refresh_waiting: Family<Connected, Gauge>,
    refresh_breaker: Family<Connected, Gauge>,
    credentials: Family<Stands, Gauge>,
    credentials_counted_ago: Gauge,
    token_revocations: Family<Ended, Counter>,
    revocations_pending: Gauge,
    open_streams: Gauge,
    connected_agents: Gauge,
    journal_position: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("credbroker"),
            revoke_to_deny: Histogram::new(BUCKETS),
            revoke_to_stream_end: Histogram::new(BUCKETS),
            requests: Family::default(),
            denials: Family::default(),
            refreshes: Family::default(),
            refreshes_ahead: Family::default(),
            refresh_ahead_scheduled: Gauge::default(),
            refresh_exchanges: Family::default(),
            refresh_waiting: Family::default(),
            refresh_breaker: Family::default(),
            credentials: Family::default(),
            credentials_counted_ago: Gauge::default(),
            token_revocations: Family::default(),
            revocations_pending: Gauge::default(),
            open_streams: Gauge::default(),
            connected_agents: Gauge::default(),
            journal_position: Gauge::default(),
        };
        macro_rules! register {
            ($($field:ident, $name:literal, $help:literal;)*) => {
                $(metrics.registry.register($name, $help, metrics.$field.clone());)*
            };
        }
        register! {
            revoke_to_deny, "revoke_to_deny_seconds",
                "From a revocation's or lock's arrival until nothing of its subject is let in any more";
            revoke_to_stream_end, "revoke_to_stream_end_seconds",
                "From a revocation's or lock's arrival until the last open stream of its subject has been told";
            requests, "requests", "Requests answered, by call and status code; of streams, their beginning";
            denials, "denials", "Refusals of callers and of what they asked for, by reason";
            refreshes, "refreshes", "Exchanges with token endpoints, by outcome";
            refreshes_ahead, "refreshes_ahead", "Refreshes begun before anybody asked, by outcome";
            refresh_ahead_scheduled, "refresh_ahead_scheduled", "Credentials in use that are to be refreshed ahead";
            refresh_exchanges, "refresh_exchanges", "Places for exchanges that are taken, by connector";
            refresh_waiting, "refresh_waiting", "Flights that wait for a place, by connector";
            refresh_breaker, "refresh_breaker",
                "Whether a connector's provider is left alone: 0 no, 1 one exchange tries it, 2 yes";
            credentials, "credentials", "Stored credentials, by health and kind, as of the last count";
            credentials_counted_ago, "credentials_counted_ago_seconds",
                "How long ago the credentials were counted last; since the start where they were not yet";
            token_revocations, "token_revocations", "Tokens of accounts that are gone, by what became of them at the provider";
            revocations_pending, "revocations_pending", "Accounts that are gone and whose tokens are still to be revoked at the provider";
            open_streams, "open_streams", "Streams that are open";
            connected_agents, "connected_agents", "Agents with at least one connection";
            journal_position, "journal_position", "The last position of the journal";
        }
        // A state that nothing is in is told too: an alert on one that never was would find nothing.
        for health in Health::WORST_FIRST {
            for kind in CredentialKind::ALL {
                metrics.credentials(health, kind, 0);
            }
        }
        metrics
    }
}

impl Metrics {
    /// What was revoked or locked is denied, so long after the request came in.
    pub fn denied_after(&self, elapsed: Duration) {
        self.revoke_to_deny.observe(elapsed.as_secs_f64());
    }

    /// The last stream of what was revoked or locked has been told, so long after the request came in.
    pub fn streams_told_after(&self, elapsed: Duration) {
        self.revoke_to_stream_end.observe(elapsed.as_secs_f64());
    }

    /// A request was answered. `method` is a path of the access table, `code` a status code's name.
    pub fn request(&self, method: &'static str, code: &'static str) {
        self.requests.get_or_create(&Call { method, code }).inc();
    }

    /// Somebody was refused.
    pub fn denial(&self, reason: Reason) {
        let reason = reason.code();
        self.denials.get_or_create(&Why { reason }).inc();
    }

    /// An exchange ended.
    pub fn refresh(&self, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Allowed => "granted",
            Outcome::Denied(reason) | Outcome::Failed(reason) => reason.code(),
        };
        self.refreshes.get_or_create(&Ended { outcome }).inc();
    }

    /// A refresh that nobody had asked for ended so: `granted`, or the code of a reason.
    pub fn refresh_ahead(&self, outcome: &'static str) {
        self.refreshes_ahead.get_or_create(&Ended { outcome }).inc();
    }

    /// What became of a token that was to be revoked at its provider: a word of
    /// [`Fate`](crate::domain::revocation::Fate).
    pub fn token_revocation(&self, outcome: &'static str) {
        self.token_revocations.get_or_create(&Ended { outcome }).inc();
    }

    /// A flight waits for a place, as long as the result lives.
    pub fn exchange_waits(&self, connector: &Name) -> Level {
        Level::of(&self.refresh_waiting, connector)
    }

    /// A place is taken, as long as the result lives.
    pub fn exchange_under_way(&self, connector: &Name) -> Level {
        Level::of(&self.refresh_exchanges, connector)
    }

    /// How a connector's breaker stands.
    pub fn breaker(&self, connector: &Name, standing: Standing) {
        let gauge = self.refresh_breaker.get_or_create(&Connected::to(connector));
        gauge.set(match standing {
            Standing::Closed => 0,
            Standing::Probing => 1,
            Standing::Open => 2,
        });
    }

    /// So many credentials of this kind are in this state.
    pub fn credentials(&self, health: Health, kind: CredentialKind, count: u64) {
        let stands = Stands {
            state: health.name(),
            kind: kind.name(),
        };
        let gauge = self.credentials.get_or_create(&stands);
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// All of it, as OpenMetrics text.
    pub fn text(&self, levels: Levels) -> String {
        let level = |gauge: &Gauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        level(&self.open_streams, levels.open_streams as u64);
        level(&self.connected_agents, levels.connected_agents as u64);
        level(&self.journal_position, levels.journal_position);
        level(&self.refresh_ahead_scheduled, levels.scheduled_ahead as u64);
        level(
            &self.credentials_counted_ago,
            levels.credentials_counted_ago.as_secs(),
        );
        level(&self.revocations_pending, levels.pending_revocations as u64);
        let mut text = String::new();
        // Writing to a `String` cannot fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_in_the_text() {
        let metrics = Metrics::default();
        metrics.denied_after(Duration::from_millis(3));
        metrics.request("/credbroker.v1.BrokerService/ResolveCredential", "OK");
        metrics.request("/credbroker.v1.BrokerService/ResolveCredential", "OK");
        metrics.denial(Reason::Locked);
        metrics.refresh(Outcome::Failed(Reason::RefreshAmbiguous));
        let text = metrics.text(Levels {
            connected_agents: 7,
            ..Levels::default()
        });
        for line in [
            "credbroker_revoke_to_deny_seconds_bucket{le=\"0.002\"} 0",
            "credbroker_revoke_to_deny_seconds_bucket{le=\"0.005\"} 1",
            "credbroker_requests_total{method=\"/credbroker.v1.BrokerService/ResolveCredential\",code=\"OK\"} 2",
            "credbroker_denials_total{reason=\"LOCKED\"} 1",
            "credbroker_refreshes_total{outcome=\"REFRESH_AMBIGUOUS\"} 1",
            "credbroker_connected_agents 7",
            "credbroker_credentials{state=\"grant-lost\",kind=\"oauth-grant\"} 0",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} not in\n{text}");
        }
    }
}

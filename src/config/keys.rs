//! Every configuration key on one page: its limits, and whether a running daemon takes a change.
//!
//! `deploy/credbrokerd.toml` documents the same keys; tests hold the two together.

use std::time::Duration;

use crate::domain::parallelism::MOST;

/// When a change of a key takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apply {
    /// At SIGHUP, without dropping a connection.
    Reload,
    /// At the next start.
    Restart,
}

/// What values a key takes, beyond its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Checked one by one in [`super::validated`], or free.
    Own,
    /// A whole number, both ends included.
    Number(u64, u64),
    /// A length of time, both ends included.
    Time(Duration, Duration),
    /// A list of at most so many entries.
    List(usize),
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Limit::Own => Ok(()),
            Limit::Number(least, most) => write!(f, "{least} to {most}"),
            Limit::Time(least, most) => write!(f, "{} to {}", in_words(*least), in_words(*most)),
            Limit::List(most) => write!(f, "at most {most} entries"),
        }
    }
}

/// A length of time in its largest whole unit, as the configuration file takes it: `90d`, `5m`, `100ms`.
pub(super) fn in_words(time: Duration) -> String {
    let nanos = time.as_nanos();
    let units = [
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
    ];
    let small = [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)];
    units
        .into_iter()
        .chain(small)
        .find(|(_, size)| nanos != 0 && nanos.is_multiple_of(*size))
        .map_or_else(
            || {
                if nanos == 0 {
                    "0s".to_owned()
                } else {
                    format!("{nanos}ns")
                }
            },
            |(unit, size)| format!("{}{unit}", nanos / size),
        )
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its dotted path, such as `listen.address`.
    pub path: &'static str,
    /// What values it takes.
    pub limit: Limit,
    /// When a change takes effect.
    pub apply: Apply,
}

impl Key {
    /// The environment variable that overrides it.
    pub fn variable(&self) -> String {
        format!("CREDBROKER_{}", self.path.replace('.', "_").to_uppercase())
    }

    /// The key at a dotted path.
    pub fn find(path: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.path == path)
    }
}

const fn key(path: &'static str, limit: Limit, apply: Apply) -> Key {
    Key { path, limit, apply }
}

const fn number(least: u64, most: u64) -> Limit {
    Limit::Number(least, most)
}

const fn time(least: Duration, most: Duration) -> Limit {
    Limit::Time(least, most)
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn minutes(count: u64) -> Duration {
    seconds(count * 60)
}

const fn hours(count: u64) -> Duration {
    minutes(count * 60)
}

const fn days(count: u64) -> Duration {
    hours(count * 24)
}

const MIB: u64 = 1024 * 1024;

/// All keys, in the order of `deploy/credbrokerd.toml`.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("data_dir", Limit::Own, Apply::Restart),

    key("listen.address", Limit::Own, Apply::Restart),
    key("listen.server_names", Limit::List(32), Apply::Restart),
    key("listen.max_connections", number(1, 1_000_000), Apply::Restart),
    key("listen.max_concurrent_handshakes", number(1, 4096), Apply::Restart),
    key("listen.handshake_timeout", time(seconds(1), minutes(1)), Apply::Restart),
    key("listen.request_timeout", time(seconds(1), minutes(10)), Apply::Restart),
    key("listen.max_message_bytes", number(4096, 4 * MIB), Apply::Restart),
    key("listen.max_concurrent_streams", number(1, 10_000), Apply::Restart),
    key("listen.max_requests_in_flight", number(1, 1_000_000), Apply::Restart),

    key("identity.trust_domain", Limit::Own, Apply::Restart),
    key("identity.certificate_lifetime", time(minutes(5), days(90)), Apply::Restart),

    key("enrollment.retry_window", time(seconds(10), hours(24)), Apply::Restart),
    key("enrollment.renewal_grace", time(seconds(0), days(365)), Apply::Reload),

    key("agents.heartbeat_interval", time(seconds(10), hours(24)), Apply::Reload),
    key("agents.unseen_expiry", time(hours(1), days(3650)), Apply::Reload),
    key("agents.collect_after", time(hours(1), days(3650)), Apply::Reload),

    key("refresh.exchange_timeout", time(seconds(1), minutes(5)), Apply::Restart),
    key("refresh.max_concurrent_exchanges", number(1, 10_000), Apply::Restart),
    key("refresh.max_concurrent_exchanges_per_connector", number(0, 10_000), Apply::Restart),
    key("refresh.max_waiters", number(1, 1_000_000), Apply::Restart),
    key("refresh.minimum_remaining_default", time(seconds(0), hours(1)), Apply::Reload),
    key("refresh.forced_rotations_per_hour_per_credential", number(1, 3600), Apply::Reload),
    key("refresh.forced_rotations_per_hour_per_agent", number(1, 3600), Apply::Reload),
    key("refresh.rejections_in_a_row", number(1, 3600), Apply::Reload),
    key("refresh.ahead", Limit::Own, Apply::Reload),
    key("refresh.ahead_window", time(seconds(1), days(1)), Apply::Reload),

    key("leases.lifetime", time(minutes(1), days(30)), Apply::Reload),
    key("leases.personal_parallelism", number(1, MOST as u64), Apply::Reload),

    key("journal.segment_bytes", number(MIB, 1024 * MIB), Apply::Restart),
    key("journal.head_interval", time(millis(100), minutes(1)), Apply::Restart),
    key("journal.queue", number(16, 1_000_000), Apply::Restart),

    key("store.queue", number(16, 1_000_000), Apply::Restart),
    key("store.reserved_bytes", number(0, 1024 * 1024 * 1024 * MIB), Apply::Reload),

    key("log.format", Limit::Own, Apply::Restart),
    key("log.filter", Limit::Own, Apply::Reload),

    key("drain.timeout", time(seconds(1), minutes(10)), Apply::Reload),

    key("registry.files", Limit::List(64), Apply::Restart),

    key("local.probe_endpoints", Limit::List(32), Apply::Restart),

    key("connectors.accept_terms", Limit::List(64), Apply::Restart),
    key("connectors.files", Limit::List(64), Apply::Restart),

    key("oidc.issuers", Limit::List(16), Apply::Restart),
    key("watch.heartbeat", time(seconds(1), minutes(5)), Apply::Reload),

    key("metrics.listen", Limit::Own, Apply::Restart),

    key("metered.allow_all", Limit::Own, Apply::Reload),
    key("metered.key_files", Limit::Own, Apply::Reload),

    key("shared.dispatches_per_day", number(0, 1_000_000_000), Apply::Reload),
    key("shared.key_files", Limit::Own, Apply::Reload),

    key("proxy.base_url", Limit::Own, Apply::Reload),
    key("proxy.base_urls", Limit::Own, Apply::Reload),
    key("proxy.grant_lifetime", time(minutes(1), days(1)), Apply::Reload),
    key("proxy.raw_keys_to", Limit::List(2), Apply::Reload),
];

//! The use cases. The only place where things are orchestrated: `rpc` above only translates, `domain` below
//! only decides, `store`, `journal`, `pki` and `upstream` only do.
//!
//! Every use case takes an authenticated [`Caller`](crate::domain::actor::Caller), checks what it may touch,
//! and returns plain domain types or a [`Refusal`]. An effect goes through `Broker::effect`, so that its
//! begin record is durable before it happens and its finish record before it is told.

mod access;
mod agents;
mod api_keys;
mod approvals;
mod authenticate;
mod billing;
mod chance;
mod connections;
mod connectors;
mod credential_test;
mod credentials;
mod denials;
mod directory;
mod disconnect;
mod effect;
mod enroll;
mod enrollment_tokens;
mod executors;
mod extension;
mod heartbeat;
mod introspect;
mod journal;
mod lease;
mod lineage;
mod live;
mod locks;
mod managed_keys;
mod operator_tokens;
mod outstanding;
mod page;
mod parallelism;
mod policy;
mod presence;
mod proxy_grants;
mod quota;
mod reconcile;
mod refresh;
mod registry;
mod removal;
mod renew;
mod request;
mod resolve;
mod revocations;
mod revoke;
mod roles;
mod scope;
mod sign_in;
mod spend;
mod stock;
mod streams;
mod sweep;
mod tasks;
mod trust;
mod turns;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};

use crate::clock::Clock;
use crate::domain::executor::Registry;
use crate::domain::grant_token::GrantKey;
use crate::domain::id::{CredentialId, Id, Kind, OrgId};
use crate::domain::managed::ConfiguredKeys;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::rotation::Incarnation;
use crate::domain::time::Time;
use crate::journal::{Journal, JournalError};
use crate::metrics::Metrics;
use crate::pki::authority::Authority;
use crate::pki::connections::Connections;
use crate::store::StoreError;
use crate::store::record::Records;
use crate::upstream::TokenEndpoint;
use crate::upstream::connector::load::Connectors;
use crate::upstream::http::HttpTokenEndpoint;
use crate::upstream::key_test::KeyTester;
use crate::upstream::oidc::Issuers;
use crate::upstream::probe::Prober;

pub use crate::journal::{Anchor, PruneTo, SignedHead, StoredRecord};
pub use crate::store::model::{CredentialSecret, Seen};
pub use crate::store::record::Stored;
pub use crate::upstream::redact;
pub use access::WhoAmI;
pub use agents::{AgentFilter, AgentState, AgentView};
pub use api_keys::{ListedApiKey, MintedApiKey, NewApiKey, RotateApiKey};
pub use approvals::{
    ApprovalView, CapabilityLists, Grant as ApprovalGrant, MintedApproval, NewApproval, RevokedApproval,
};
pub use authenticate::{Accepts, KeyAccess, Presented};
pub use billing::{
    AccountChange, Credited, NewCredit, ReportedUsage, Standing as AccountStanding, UsageEvent, UsageResult,
};
pub use connections::{
    BeginConnection, CompleteConnection, ConnectionPhase, ConnectionStanding, Flow, FlowKind,
    FollowedConnection, WatchedConnection,
};
pub use connectors::{
    ConnectorDetail, Discovered, EndpointKind, EndpointView, PasteCode, Redirect, RedirectKind, Sharing,
};
pub use credential_test::{RejectedToken, Tested};
pub use credentials::{
    CredentialStatus, Dependent, Described, ImportGrant, KeyInput, LastError, OwnerRef, SetKey, StatusFilter,
};
pub use denials::RefusedRequest;
pub use directory::{Change, IdentityLink, LinkIdentities, LinkOutcome, NewNamed};
pub use disconnect::{Disconnect, Disconnected};
pub use enroll::Enrolled;
pub use enrollment_tokens::{BoundTo, MintedEnrollmentToken, NewEnrollmentTokens, RevokeToken, RevokedToken};
pub use executors::{ExecutorView, ExecutorWay, StateOf};
pub use extension::{GranteeRef, ReadSecret, SecretRef};
pub use heartbeat::Pulse;
pub use introspect::Introspected;
pub use journal::{FilterInput, FollowInput, Followed, JournalPage, Pruned};
pub use lease::{Material, Vended};
pub use locks::{LockRef, Locked, NewLock};
pub use managed_keys::{ManagedKeyView, ManagedSecret, SetManagedKey};
pub use operator_tokens::{
    ListedOperatorToken, MintedOperatorToken, NamedGrant, NewOperatorToken, Recovered,
};
pub use outstanding::{Fate, Outstanding, OutstandingLease};
pub use page::{Page, PageRequest};
pub use parallelism::Parallelism;
pub use policy::{
    Affected, CellsInput, Changing, NewCell, NewOrgPolicy, NewPolicy, NewProfile, NewRules, PolicyChanged,
    PolicyNames, PolicyView, ScopeRef,
};
pub use presence::Present;
pub use proxy_grants::{ActiveGrant, Introspection, ProxyGrant, ProxySettings};
pub use quota::Reservation;
pub use refresh::{Jitter, Planted, Refresher, system_jitter};
pub use registry::{ConnectorView, PoolView, ProviderView};
pub use removal::{RemovedCredential, RemovedMember};
pub use renew::{ExpiredRenewal, Nonce, Renewed};
pub use resolve::{Explained, Facts, RefreshInput, Refreshed, ResolveInput, Resolved};
pub use revocations::Revoker;
pub use revoke::{RevokedAgent, RevokedApiKey};
pub use roles::{HolderId, RoleChange, RoleHolder, RoleSubject};
pub use spend::{
    CostEvents, CostFilterInput, CostInput, Dimension, FollowCosts, FollowedCost, SpendInput, SpendRow,
    SpendSums,
};
pub use streams::OpenStream;
pub use sweep::{PAUSE as SWEEP_PAUSE, REST as SWEEP_REST, Sweep, Swept};
pub use tasks::{NewTask, TaskView};
pub use trust::TrustBundle;
pub use watch::{Event, Told, Watch, WatchInput, What};

/// Times and limits, from the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long an enrollment may be repeated with the same key.
    pub enrollment_window: Duration,
    /// How long after its end a certificate may be renewed.
    pub renewal_grace: Duration,
    /// How often agents are asked to tell that they live.
    pub heartbeat_interval: Duration,
    /// How long an agent may go unseen before it expires.
    pub unseen_expiry: Duration,
    /// How long what has ended is kept before it is collected.
    pub collect_after: Duration,
    /// How long an agent's certificate lasts.
    pub certificate_lifetime: Duration,
    /// How long a lease lasts; never past its task.
    pub lease_lifetime: Duration,
    /// How many leases stand at once on a personal subscription, where nothing else was said of it.
    pub personal_parallelism: u32,
    /// The minimum remaining life promised where a request names none.
    pub minimum_remaining: Duration,
    /// How long one exchange with a token endpoint may take.
    pub exchange_timeout: Duration,
    /// How many exchanges run at once.
    pub max_exchanges: usize,
    /// How many of one connector.
    pub max_exchanges_per_connector: usize,
    /// How many callers may wait for exchanges, over all credentials.
    pub max_waiters: usize,
    /// How many rotations of one credential callers may force in an hour.
    pub forced_rotations_per_credential: u32,
    /// How many rotations one agent or API key may force in an hour.
    pub forced_rotations_per_agent: u32,
    /// How many tokens of a lease that are rejected one after the other are replaced.
    pub rejections_in_a_row: u32,
    /// Over how long a time refreshes ahead of need are spread at most; `None`: there are none.
    pub refresh_ahead: Option<Duration>,
    /// How many bytes of the disk are kept back for what must not fail.
    pub reserved_bytes: u64,
    /// How long a watch is silent at most.
    pub watch_heartbeat: Duration,
    /// Whether orgs may use metered keys of which nothing else was said.
    pub metered_allow_all: bool,
    /// How many shared dispatches an org may have a UTC day, where nothing else was said of it.
    pub shared_per_day: u32,
    /// The model proxy.
    pub proxy: ProxySettings,
}

/// What the broker is made of.
pub struct Parts {
    /// The state.
    pub records: Arc<Records>,
    /// The journal.
    pub journal: Journal,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// The CA.
    pub authority: Arc<Authority>,
    /// Executors and providers.
    pub registry: Arc<Registry>,
    /// The connectors by name.
    pub connectors: Connectors,
    /// Where token requests go.
    pub endpoint: Arc<dyn TokenEndpoint>,
    /// Where accounts are connected and tokens revoked.
    pub oauth: Arc<HttpTokenEndpoint>,
    /// Who may vouch for members.
    pub issuers: Arc<Issuers>,
    /// Whether model servers are there.
    pub prober: Arc<Prober>,
    /// Whether providers take credentials.
    pub tester: Arc<KeyTester>,
    /// Times and limits.
    pub settings: Settings,
    /// What proxy grants are made and checked with.
    pub grant_key: GrantKey,
    /// Where the chance in pauses comes from.
    pub jitter: Jitter,
}

/// The broker: all use cases, over its parts.
pub struct Broker {
    records: Arc<Records>,
    journal: Journal,
    clock: Arc<dyn Clock>,
    authority: Arc<Authority>,
    registry: Arc<Registry>,
    connectors: Arc<Connectors>,
    endpoint: Arc<dyn TokenEndpoint>,
    oauth: Arc<HttpTokenEndpoint>,
    issuers: Arc<Issuers>,
    prober: Arc<Prober>,
    tester: Arc<KeyTester>,
    tests: credential_test::Tests,
    settings: Arc<ArcSwap<Settings>>,
    chance: chance::Chance,
    refresher: Arc<Refresher>,
    revoker: Arc<Revoker>,
    finished_effects: effect::Finished,
    streams: Arc<streams::Streams>,
    presence: presence::Presence,
    denials: denials::Denials,
    followers: journal::Followers,
    connecting: connections::Connecting,
    nonces: renew::Nonces,
    /// When it was put together, on the clock that only goes forward.
    started: Duration,
    hub: Arc<watch::Hub>,
    cursors: watch::Cursors,
    locks: locks::Locks,
    policies: policy::Policies,
    metrics: Arc<Metrics>,
    connections: Arc<Connections>,
    quotas: Arc<quota::Quotas>,
    turns: turns::Turns<OrgId>,
    places: turns::Turns<CredentialId>,
    spend: spend::Projection,
    grant_key: GrantKey,
    configured_keys: ArcSwap<ConfiguredKeys>,
    dependents: credentials::Counted,
    stock: stock::Stock,
}

impl Broker {
    /// Puts the parts together. Call [`Broker::recover`] before serving.
    pub fn new(parts: Parts) -> Result<Arc<Self>, Refusal> {
        let chance = chance::Chance::new();
        let incarnation = Incarnation(random_bytes(&chance)?);
        let nonces = renew::Nonces::new(random_bytes(&chance)?);
        let started = parts.clock.monotonic();
        let connectors = Arc::new(parts.connectors);
        let settings = Arc::new(ArcSwap::from_pointee(parts.settings));
        let hub: Arc<watch::Hub> = Arc::default();
        let cursors = watch::Cursors::new(random_bytes(&chance)?, random_bytes(&chance)?);
        let metrics = Arc::new(Metrics::default());
        let revoker = Revoker::new(revocations::Parts {
            records: Arc::clone(&parts.records),
            journal: parts.journal.clone(),
            clock: Arc::clone(&parts.clock),
            connectors: Arc::clone(&connectors),
            oauth: Arc::clone(&parts.oauth),
            metrics: Arc::clone(&metrics),
            jitter: Arc::clone(&parts.jitter),
        });
        let refresher = Refresher::new(refresh::Parts {
            records: Arc::clone(&parts.records),
            journal: parts.journal.clone(),
            clock: Arc::clone(&parts.clock),
            connectors: Arc::clone(&connectors),
            endpoint: Arc::clone(&parts.endpoint),
            settings: Arc::clone(&settings),
            incarnation,
            metrics: Arc::clone(&metrics),
            hub: Arc::clone(&hub),
            jitter: parts.jitter,
            revoker: Arc::clone(&revoker),
        });
        Ok(Arc::new(Self {
            records: parts.records,
            journal: parts.journal,
            clock: parts.clock,
            authority: parts.authority,
            registry: parts.registry,
            connectors,
            endpoint: parts.endpoint,
            oauth: parts.oauth,
            issuers: parts.issuers,
            prober: parts.prober,
            tester: parts.tester,
            tests: credential_test::Tests::default(),
            settings,
            chance,
            refresher,
            revoker,
            finished_effects: effect::Finished::default(),
            streams: Arc::default(),
            presence: presence::Presence::default(),
            denials: denials::Denials::default(),
            followers: journal::Followers::default(),
            connecting: connections::Connecting::default(),
            nonces,
            started,
            hub,
            cursors,
            locks: locks::Locks::default(),
            policies: policy::Policies::default(),
            metrics,
            connections: Arc::default(),
            quotas: Arc::default(),
            turns: turns::Turns::default(),
            places: turns::Turns::default(),
            spend: spend::Projection::default(),
            grant_key: parts.grant_key,
            configured_keys: ArcSwap::default(),
            dependents: credentials::Counted::default(),
            stock: stock::Stock::default(),
        }))
    }

    /// The engine that keeps grants alive.
    pub fn refresher(&self) -> &Arc<Refresher> {
        &self.refresher
    }

    /// What asks the listed model servers whether they are there.
    pub fn prober(&self) -> &Prober {
        &self.prober
    }

    /// The executors and providers.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The CA.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Whether both store and journal still take writes.
    pub fn healthy(&self) -> bool {
        self.records.healthy() && self.journal.healthy()
    }

    /// Takes other times and limits, from the next request on. How many exchanges run at once and how many
    /// callers may wait is fixed at the start.
    pub fn reload(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
    }

    fn settings(&self) -> Guard<Arc<Settings>> {
        self.settings.load()
    }

    fn now(&self) -> Time {
        self.clock.wall()
    }

    fn random<const N: usize>(&self) -> Result<[u8; N], Refusal> {
        random_bytes(&self.chance)
    }

    fn new_id<K: Kind>(&self) -> Result<Id<K>, Refusal> {
        Ok(Id::new(self.now(), self.random()?))
    }
}

fn random_bytes<const N: usize>(chance: &chance::Chance) -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    chance
        .fill(&mut bytes)
        .map_err(|_| Refusal::new(Reason::Internal, "the system's random source failed"))?;
    Ok(bytes)
}

/// How long callers are asked to wait when the broker is overloaded.
const BACK_OFF: Duration = Duration::from_secs(1);

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Overloaded => Refusal::new(
                Reason::Overloaded,
                "the store has as many writes queued as it takes",
            )
            .retry_after(BACK_OFF),
            StoreError::Limit(what) => {
                tracing::error!(what, "a write was past the store's limits");
                Refusal::new(
                    Reason::InvalidArgument,
                    "the request is larger than what can be stored",
                )
            }
            StoreError::Damaged { key } => {
                tracing::error!(key, "a stored record is damaged");
                Refusal::new(Reason::Internal, "a stored record is damaged")
            }
            error => {
                tracing::error!(%error, "the store cannot be used");
                Refusal::new(Reason::StoreUnavailable, "the store cannot be used").retry_after(BACK_OFF)
            }
        }
    }
}

impl From<JournalError> for Refusal {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Overloaded => Refusal::new(
                Reason::Overloaded,
                "the journal has as many records queued as it takes",
            )
            .retry_after(BACK_OFF),
            error => {
                tracing::error!(%error, "the journal cannot be written or read");
                Refusal::new(Reason::JournalUnavailable, "the journal cannot be used").retry_after(BACK_OFF)
            }
        }
    }
}

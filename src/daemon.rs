//! The composition root: a configuration becomes a broker, the broker serves, drains and ends.

pub mod commands;
mod error;
pub mod folder;
mod inputs;
mod managed_keys;
mod metrics;
pub mod process;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Config;
use crate::domain::journal::Action;
use crate::journal::Journal;
use crate::pki::accept::{AcceptLimits, listen};
use crate::pki::tls::{TlsConfig, server_config};
use crate::rpc;
use crate::service::{Broker, Parts, ProxySettings, SWEEP_PAUSE, SWEEP_REST, Settings, Sweep};
use crate::store::sled::SledStore;
use crate::upstream::key_test::KeyTester;
use crate::upstream::oidc::Issuers;
use crate::upstream::probe::Prober;

pub use error::DaemonError;
pub use inputs::{Inputs, token_endpoint};

/// How long the broker's own certificate lasts, and how often it is made anew.
const SERVER_CERTIFICATE: Duration = Duration::from_secs(30 * 86_400);
const SERVER_RENEWAL: Duration = Duration::from_secs(86_400);
/// How often the refusals that were counted are written down: the window that their limits are for.
const DENIAL_WINDOW: Duration = Duration::from_secs(300);
/// How often what is no longer needed is removed.
const COLLECTION: Duration = Duration::from_secs(3_600);
/// How often it is written down who was seen.
const PRESENCE: Duration = Duration::from_secs(60);

/// How often the sums of spend are read on.
const SPEND: Duration = Duration::from_secs(5);

/// A broker that is ready to serve.
pub struct App {
    broker: Arc<Broker>,
    store: Arc<SledStore>,
    journal: Journal,
    clock: Arc<dyn Clock>,
    config: Config,
    tls: Arc<TlsConfig>,
    drain: watch::Sender<Duration>,
}

/// The times and limits that a configuration sets.
fn settings(config: &Config) -> Settings {
    Settings {
        enrollment_window: config.enrollment.retry_window,
        renewal_grace: config.enrollment.renewal_grace,
        heartbeat_interval: config.agents.heartbeat_interval,
        unseen_expiry: config.agents.unseen_expiry,
        collect_after: config.agents.collect_after,
        certificate_lifetime: config.identity.certificate_lifetime,
        lease_lifetime: config.leases.lifetime,
        personal_parallelism: config.leases.personal_parallelism,
        minimum_remaining: config.refresh.minimum_remaining_default,
        exchange_timeout: config.refresh.exchange_timeout,
        max_exchanges: config.refresh.max_concurrent_exchanges,
        max_exchanges_per_connector: config.refresh.max_concurrent_exchanges_per_connector,
        max_waiters: config.refresh.max_waiters,
        forced_rotations_per_credential: config.refresh.forced_rotations_per_hour_per_credential,
        forced_rotations_per_agent: config.refresh.forced_rotations_per_hour_per_agent,
        rejections_in_a_row: config.refresh.rejections_in_a_row,
        refresh_ahead: config.refresh.ahead.then_some(config.refresh.ahead_window),
        reserved_bytes: config.store.reserved_bytes,
        watch_heartbeat: config.watch.heartbeat,
        metered_allow_all: config.metered.allow_all,
        shared_per_day: config.shared.dispatches_per_day,
        proxy: ProxySettings {
            base_url: config.proxy.base_url.clone(),
            base_urls: config.proxy.base_urls.clone(),
            grant_lifetime: config.proxy.grant_lifetime,
            raw_to_control_plane: config.proxy.raw_to_control_plane,
            raw_to_agents: config.proxy.raw_to_agents,
        },
    }
}

impl App {
    /// Opens the data folder and settles what the last run left open.
    pub async fn open(inputs: Inputs) -> Result<App, DaemonError> {
        let Inputs {
            config,
            connectors,
            registry,
            endpoint,
            oauth,
            clock,
            journal,
            jitter,
        } = inputs;
        let given = managed_keys::read(&config, &registry)?;
        let issuers = Issuers::new(config.issuers.clone(), Arc::clone(&clock))?;
        let prober = Prober::new(&config.local.probe_endpoints, Arc::clone(&clock))?;
        let tester = KeyTester::new(Arc::clone(&clock))?;
        let opened = folder::open(&config, Arc::clone(&clock), journal).await?;
        let broker = Broker::new(Parts {
            records: opened.records,
            journal: opened.journal.clone(),
            clock: Arc::clone(&clock),
            authority: opened.authority.into(),
            registry: registry.into(),
            connectors,
            endpoint,
            oauth,
            issuers: issuers.into(),
            prober: prober.into(),
            tester: tester.into(),
            settings: settings(&config),
            grant_key: opened.grant_key,
            jitter,
        })?;
        broker.configure_keys(given);
        broker.recover(opened.open_effects).await?;
        broker.record_lifecycle(Action::BrokerStart).await?;
        let tls = Arc::new(TlsConfig::new(certificate(&broker, &config, &clock)?));
        let drain = watch::Sender::new(config.drain.timeout);
        Ok(App {
            drain,
            broker,
            store: opened.store,
            journal: opened.journal,
            clock,
            config,
            tls,
        })
    }

    /// The broker.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Sets how long draining may take.
    pub fn drain_limit(&self) -> watch::Sender<Duration> {
        self.drain.clone()
    }

    /// A listener on the configured address.
    pub async fn bind(&self) -> Result<TcpListener, DaemonError> {
        let address = self.config.listen.address;
        TcpListener::bind(address)
            .await
            .map_err(|source| DaemonError::Bind { address, source })
    }

    /// Serves until `stopping`, then drains: requests and exchanges under way are finished, within the
    /// configured time; store and journal are closed.
    pub async fn serve(self, listener: TcpListener, stopping: CancellationToken) -> Result<(), DaemonError> {
        let listen_config = &self.config.listen;
        let limits = AcceptLimits {
            handshake_timeout: listen_config.handshake_timeout,
            handshakes: listen_config.max_concurrent_handshakes,
            connections: listen_config.max_connections,
        };
        let reading = match self.config.metrics.listen {
            Some(address) => {
                let listener = TcpListener::bind(address)
                    .await
                    .map_err(|source| DaemonError::MetricsBind { address, source })?;
                let broker = Arc::clone(&self.broker);
                Some(tokio::spawn(metrics::serve(listener, broker, stopping.clone())))
            }
            None => None,
        };
        let trust_domain = self.broker.authority().trust_domain().clone();
        let incoming = listen(
            listener,
            Arc::clone(&self.tls),
            trust_domain,
            limits,
            self.broker.guests(),
            stopping.clone(),
        );
        self.broker.prepare_connectors();
        let chores = tokio::spawn(chores(
            Arc::clone(&self.broker),
            Arc::clone(&self.tls),
            self.config.clone(),
            Arc::clone(&self.clock),
            stopping.clone(),
        ));
        let sweeper = tokio::spawn(sweep(Arc::clone(&self.broker), stopping.clone()));
        let ahead = Arc::clone(self.broker.refresher()).refresh_ahead(stopping.clone());
        let ahead = tokio::spawn(ahead);
        let revoking = Arc::clone(self.broker.revoker()).run(stopping.clone());
        let revoking = tokio::spawn(revoking);
        let summing = tokio::spawn(sum_spend(Arc::clone(&self.broker), stopping.clone()));
        let counting = Arc::clone(&self.broker).keep_counting_credentials(stopping.clone());
        let counting = tokio::spawn(counting);
        let limits = rpc::Limits {
            max_message_bytes: listen_config.max_message_bytes,
            max_requests_in_flight: listen_config.max_requests_in_flight,
            max_concurrent_streams: listen_config.max_concurrent_streams,
            request_timeout: listen_config.request_timeout,
            drain: self.drain.subscribe(),
        };
        // Requests and exchanges are waited for side by side, so that both are over within the one time.
        let exchanges = async {
            stopping.cancelled().await;
            let limit = *self.drain.borrow();
            // A connection may leave tokens to be revoked.
            let accounts = async {
                self.broker.drain_connections().await;
                self.broker.revoker().drain().await;
            };
            let under_way = async { tokio::join!(self.broker.refresher().drain(), accounts) };
            if tokio::time::timeout(limit, under_way).await.is_err() {
                tracing::warn!("exchanges were still under way when the time to drain was over");
            }
        };
        let serving = rpc::serve(Arc::clone(&self.broker), incoming, limits, stopping.clone());
        let (served, ()) = tokio::join!(serving, exchanges);
        let _ended = tokio::join!(chores, sweeper, summing, ahead, revoking, counting);
        if let Some(reading) = reading {
            let _ended = reading.await;
        }
        flush_presence(&self.broker).await;
        if let Err(refusal) = self.broker.settle_spend().await {
            tracing::warn!(%refusal, "the sums of spend were not read to the end; the next start does");
        }
        self.close().await;
        Ok(served?)
    }

    /// Closes journal and store.
    pub async fn close(self) {
        if let Err(refusal) = self.broker.summarize_denials(true).await {
            tracing::warn!(%refusal, "the refusals that were counted could not be recorded");
        }
        if let Err(refusal) = self.broker.record_lifecycle(Action::BrokerStop).await {
            tracing::warn!(%refusal, "the stop could not be recorded");
        }
        if let Err(error) = self.journal.close().await {
            tracing::error!(%error, "the journal did not close cleanly");
        }
        let store = self.store;
        let _closed = tokio::task::spawn_blocking(move || store.close()).await;
    }
}

/// The TLS configuration with a certificate made now.
fn certificate(
    broker: &Broker,
    config: &Config,
    clock: &Arc<dyn Clock>,
) -> Result<rustls::ServerConfig, DaemonError> {
    let names: Vec<String> = config
        .listen
        .server_names
        .iter()
        .map(|name| name.to_str().into_owned())
        .collect();
    let authority = broker.authority();
    let server = authority.issue_server(&names, clock.wall(), SERVER_CERTIFICATE)?;
    Ok(server_config(
        &authority.trust_bundle_der(),
        &server,
        Arc::clone(clock),
    )?)
}

/// What has to be done every now and then.
async fn chores(
    broker: Arc<Broker>,
    tls: Arc<TlsConfig>,
    config: Config,
    clock: Arc<dyn Clock>,
    stopping: CancellationToken,
) {
    let mut renewal = tokio::time::interval(SERVER_RENEWAL);
    let mut collection = tokio::time::interval(COLLECTION);
    let mut presence = tokio::time::interval(PRESENCE);
    let mut denials = tokio::time::interval(DENIAL_WINDOW);
    renewal.tick().await;
    denials.tick().await;
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            _ = renewal.tick() => match certificate(&broker, &config, &clock) {
                Ok(new) => tls.replace(new),
                Err(error) => tracing::error!(%error, "the server certificate could not be renewed"),
            },
            _ = presence.tick() => {
                flush_presence(&broker).await;
                mend_policy(&broker).await;
            }
            () = broker.presence_is_full() => flush_presence(&broker).await,
            _ = denials.tick() => if let Err(refusal) = broker.summarize_denials(false).await {
                tracing::warn!(%refusal, "the refusals that were counted could not be recorded yet");
            },
            _ = collection.tick() => if let Err(refusal) = broker.collect().await {
                tracing::warn!(%refusal, "what is no longer needed could not be removed");
            },
        }
    }
}

/// A change of the policy that may have been made and is not in force does not wait for the next one.
async fn mend_policy(broker: &Broker) {
    match broker.mend_policy().await {
        Ok(true) => tracing::info!("the policy was read back after a change that failed"),
        Ok(false) => {}
        Err(refusal) => tracing::error!(%refusal, "the policy in force may be behind what is stored"),
    }
}

async fn flush_presence(broker: &Broker) {
    if let Err(refusal) = broker.flush_presence().await {
        tracing::warn!(%refusal, "who was seen could not be written down");
    }
}

/// Keeps the sums of spend near the journal's end, so that neither a start nor a question has much to read.
async fn sum_spend(broker: Arc<Broker>, stopping: CancellationToken) {
    loop {
        if let Err(refusal) = broker.catch_up_spend().await {
            tracing::warn!(%refusal, "the sums of spend could not be read on");
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(SPEND) => {}
        }
    }
}

/// Sweeps, step by step, with a rest before each sweep.
async fn sweep(broker: Arc<Broker>, stopping: CancellationToken) {
    let mut sweep = Sweep::default();
    let mut pause = SWEEP_REST;
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let step = broker.sweep_on(&mut sweep).await;
        if let Err(refusal) = &step {
            tracing::warn!(%refusal, "what has ended could not be swept up");
        }
        pause = match step {
            Ok(true) => SWEEP_PAUSE,
            Ok(false) | Err(_) => {
                sweep = Sweep::default();
                SWEEP_REST
            }
        };
    }
}

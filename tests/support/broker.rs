//! A whole broker in the test's own process, on a loopback port, over a folder of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use credbroker::cli::client::Trust;
use credbroker::cli::pin::Pin;
use credbroker::clock::{Clock, SystemClock};
use credbroker::config::Config;
use credbroker::config::registry::{Extra, load as load_registry};
use credbroker::daemon::{App, Inputs, folder, token_endpoint};
use credbroker::domain::secret::Exposure;
use credbroker::journal::Faults;
use credbroker::proto;
use credbroker::service::Broker;
use credbroker::upstream::TokenEndpoint;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic_types::StatusExt as _;

use super::client::{Caller, Enrolled, NewKey};

/// What differs from the defaults.
#[derive(Default)]
pub struct Options {
    /// TOML over the default configuration; `data_dir` and the address are set by the harness.
    pub config: String,
    /// `[connectors.NAME]` tables.
    pub connectors: String,
    /// More executors, providers and pools, over [`REGISTRY`].
    pub registry: String,
    /// In place of HTTP.
    pub endpoint: Option<Arc<dyn TokenEndpoint>>,
    /// In place of the machine's clocks.
    pub clock: Option<Arc<dyn Clock>>,
    /// Makes the journal's disk fail.
    pub journal_faults: Faults,
    /// Smaller segments than a configuration may have.
    pub journal_segment_bytes: Option<u64>,
}

/// The provider `demo` and the executor `demo-agent`, which has it by oauth and byok; the provider `second`
/// and the executor `duo-agent`, which has both by byok.
pub const REGISTRY: &str = r#"
[providers.demo]
title = "Demo"
kinds = ["oauth-grant", "api-key"]

[providers.second]
title = "Second"
kinds = ["api-key"]

[executors.demo-agent]
native_provider = "demo"
providers = { demo = ["oauth", "byok"] }

[executors.duo-agent]
native_provider = "demo"
providers = { demo = ["byok"], second = ["byok"] }
"#;

/// A connector `demo` for a token endpoint.
pub fn connector(token_url: &str, client_id: &str, more: &str) -> String {
    format!(
        "[connectors.demo]\nprovider = \"demo\"\ntoken_url = {token_url:?}\nclient_id = {client_id:?}\n\
         lead_seconds = 1\n{more}\n"
    )
}

/// A running broker.
pub struct TestBroker {
    pub address: SocketAddr,
    pub pin: String,
    pub broker: Arc<Broker>,
    operator_token: String,
    options: Options,
    dir: Arc<TempDir>,
    stopping: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

/// The names of what [`TestBroker::prepare`] makes.
pub const ORG: &str = "acme";
pub const PROJECT: &str = "web";
pub const ENVIRONMENT: &str = "ci";
pub const MEMBER: &str = "alex";

impl TestBroker {
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    pub async fn start_with(options: Options) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let inputs = inputs(dir.path(), &options);
        folder::initialize(&inputs.config, &inputs.clock).await.unwrap();
        let app = App::open(inputs).await.unwrap();
        let token = app.broker().create_operator("test").await.unwrap();
        let token = token.expose_str(Exposure::ShowOnce).unwrap().to_owned();
        Self::serve(app, token, options, dir).await
    }

    async fn serve(app: App, operator_token: String, options: Options, dir: Arc<TempDir>) -> Self {
        let listener = app.bind().await.unwrap();
        let address = listener.local_addr().unwrap();
        let broker = Arc::clone(app.broker());
        let pin = broker.authority().ca_pin().to_owned();
        let stopping = CancellationToken::new();
        let token = stopping.clone();
        let served = tokio::spawn(async move { app.serve(listener, token).await.unwrap() });
        Self {
            address,
            pin,
            broker,
            operator_token,
            options,
            dir,
            stopping,
            served,
        }
    }

    /// Drains and stops.
    pub async fn stop(self) -> (Options, Arc<TempDir>, String) {
        self.stopping.cancel();
        drop(self.broker);
        self.served.await.unwrap();
        (self.options, self.dir, self.operator_token)
    }

    /// Drains, stops, and starts again over the same folder, on another port.
    pub async fn restart(self) -> Self {
        self.restart_with(|_| {}).await
    }

    /// As [`TestBroker::restart`], with other options.
    pub async fn restart_with(self, change: impl FnOnce(&mut Options)) -> Self {
        let (mut options, dir, token) = self.stop().await;
        change(&mut options);
        Self::start_over(options, dir, token).await
    }

    /// Starts over a folder that a stopped one left.
    pub async fn start_over(options: Options, dir: Arc<TempDir>, operator_token: String) -> Self {
        let app = App::open(inputs(dir.path(), &options)).await.unwrap();
        Self::serve(app, operator_token, options, dir).await
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn trust(&self) -> Trust {
        Trust::Pin(self.pin.parse::<Pin>().unwrap())
    }

    /// A caller with this token and no certificate.
    pub async fn caller(&self, token: Option<&str>) -> Caller {
        Caller::connect(&self.address.to_string(), self.trust(), None, token).await
    }

    /// The operator.
    pub async fn operator(&self) -> Caller {
        self.caller(Some(&self.operator_token)).await
    }

    pub fn operator_token(&self) -> &str {
        &self.operator_token
    }

    /// An org with a project, an environment and a member, named as the constants say.
    pub async fn prepare(&self) -> Caller {
        let operator = self.operator().await;
        operator.make_org(ORG).await;
        operator
    }

    /// An agent of the prepared org, enrolled and assigned to `task` (none when empty).
    pub async fn enroll(&self, operator: &Caller, task: &str) -> Enrolled {
        let token = operator.enrollment_token(ORG, task).await;
        self.enroll_with(&token, &NewKey::generate()).await.unwrap()
    }

    pub async fn enroll_with(&self, token: &str, key: &NewKey) -> Result<Enrolled, tonic::Status> {
        let caller = self.caller(None).await;
        let request = proto::EnrollRequest {
            token: Some(proto::Secret {
                value: token.to_owned(),
            }),
            csr_der: key.csr(),
            attributes: Default::default(),
        };
        let answer = caller.enrollment().enroll(request).await?.into_inner();
        Ok(Enrolled::new(answer, key))
    }

    /// Whether a new connection of the agent is closed before anything is answered over it.
    pub async fn is_kept_out(&self, enrolled: &Enrolled) -> bool {
        let (address, identity) = (self.address.to_string(), Some(enrolled.identity()));
        let key = Some(enrolled.runtime_key.as_str());
        match Caller::try_connect(&address, self.trust(), identity, key).await {
            Err(_) => true,
            // In TLS 1.3 the client is through before the server has looked at its certificate.
            Ok(caller) => {
                let answer = caller.access().who_am_i(proto::WhoAmIRequest {}).await;
                answer.is_err_and(|status| status.get_error_details().error_info().is_none())
            }
        }
    }

    /// The agent, calling over its own connection.
    pub async fn agent(&self, enrolled: &Enrolled) -> Caller {
        let identity = Some(enrolled.identity());
        let address = self.address.to_string();
        Caller::connect(&address, self.trust(), identity, Some(&enrolled.runtime_key)).await
    }
}

fn inputs(dir: &Path, options: &Options) -> Inputs {
    let text = format!(
        "data_dir = {:?}\n{}",
        dir.join("data").display().to_string(),
        options.config
    );
    // Most tests of platform keys look at the key itself; who wants the default or another list says so.
    let raw_keys = !options.config.contains("raw_keys_to");
    // Most tests count exchanges, and move the clock past expiries: who wants those that nobody asks for says so.
    let ahead = options.config.contains("ahead");
    let variables = |name: &str| match name {
        "CREDBROKER_LISTEN_ADDRESS" => Some("127.0.0.1:0".to_owned()),
        "CREDBROKER_PROXY_RAW_KEYS_TO" if raw_keys => Some("control-plane".to_owned()),
        "CREDBROKER_REFRESH_AHEAD" if !ahead => Some("false".to_owned()),
        _ => None,
    };
    let config = Config::parse(&text, &dir.join("credbrokerd.toml"), &variables).unwrap();
    let mut inputs = Inputs::load(config).unwrap();
    let extras = [REGISTRY, &options.registry].map(|text| Extra { file: "test", text });
    inputs.registry = load_registry(&extras).unwrap();
    inputs.connectors = inputs
        .connectors
        .with_file("test", &options.connectors, &[])
        .unwrap();
    if let Some(endpoint) = &options.endpoint {
        inputs.endpoint = Arc::clone(endpoint);
    }
    if let Some(clock) = &options.clock {
        inputs.clock = Arc::clone(clock);
        inputs.oauth = token_endpoint(&inputs.config, Arc::clone(clock)).unwrap();
        if options.endpoint.is_none() {
            inputs.endpoint = Arc::clone(&inputs.oauth) as Arc<dyn TokenEndpoint>;
        }
    }
    inputs.journal.faults = options.journal_faults.clone();
    if let Some(bytes) = options.journal_segment_bytes {
        inputs.journal.segment_bytes = bytes;
    }
    inputs
}

/// The wall clock, for comparisons with what the broker answers.
pub fn now() -> credbroker::domain::time::Time {
    SystemClock::new().wall()
}

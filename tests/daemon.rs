//! The real `credbrokerd`: what its commands refuse and print, what its signals do, what it serves besides
//! the API.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "daemon/log.rs"]
mod log;
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use credbroker::dev::oauth::{DemoOAuth, DemoOptions};
use credbroker::proto;
use rustix::process::Signal;
use support::broker::{MEMBER, ORG, connector};
use support::client::secret;
use support::process::{Daemon, Installation, run, text};
use support::{Caller, reason};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

const SERVICES: [&str; 8] = [
    "credbroker.v1.BrokerService",
    "credbroker.v1.EnrollmentService",
    "credbroker.v1.TaskService",
    "credbroker.v1.DirectoryService",
    "credbroker.v1.AgentService",
    "credbroker.v1.CredentialService",
    "credbroker.v1.AccessService",
    "credbroker.v1.JournalService",
];

/// A command that has to fail, and what it says then.
async fn refused(arguments: &[&str]) -> String {
    let ended = run(arguments).await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert_eq!(text(&ended.stdout), "");
    text(&ended.stderr)
}

async fn who_am_i(caller: &Caller) -> proto::WhoAmIResponse {
    let answer = caller.access().who_am_i(proto::WhoAmIRequest {}).await;
    answer.unwrap().into_inner()
}

// req: K5
#[tokio::test]
async fn a_second_daemon_on_the_folder_is_told_so() {
    let made = Installation::make("", "").await;
    let first = made.start().await;
    let config = made.config();
    let said = refused(&["serve", "--config", config.to_str().unwrap()]).await;
    let folder = made.data_dir();
    assert!(said.contains("another credbrokerd already runs on"), "{said}");
    assert!(said.contains(folder.to_str().unwrap()), "{said}");
    assert_eq!(who_am_i(&first.operator().await).await.family, "operator");
}

#[tokio::test]
async fn serve_before_init_says_what_to_run() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, config) = (dir.path().join("nothing"), dir.path().join("c.toml"));
    fs::write(&config, format!("data_dir = {folder:?}")).unwrap();
    let said = refused(&["serve", "--config", config.to_str().unwrap()]).await;
    let command = format!("credbrokerd init --data-dir {}", folder.display());
    assert!(said.contains(&command), "{said}");
    assert!(!folder.exists(), "serve makes nothing");
}

// req: D1 K5
#[tokio::test]
async fn init_makes_a_private_folder_and_shows_a_token_that_works_once() {
    let made = Installation::make("", "").await;
    let mode = |name: &str| {
        let path = made.data_dir().join(name);
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    };
    assert_eq!((mode("."), mode("master.key")), (0o700, 0o600));

    let token = &made.operator_token;
    assert_eq!(text(&made.init.stdout).matches(token.as_str()).count(), 1);
    assert!(!text(&made.init.stderr).contains(token.as_str()));
    let folder = made.data_dir();
    let said = refused(&["init", "--data-dir", folder.to_str().unwrap()]).await;
    assert!(said.contains("holds a broker already"), "{said}");
    assert!(said.contains(folder.to_str().unwrap()), "{said}");

    let mut daemon = made.start().await;
    assert_eq!(who_am_i(&daemon.operator().await).await.family, "operator");
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success());
    let (_, stdout, log) = daemon.output().await;
    assert!(!stdout.contains(token) && !log.concat().contains(token));
}

#[tokio::test]
async fn check_names_the_file_and_the_key_at_fault() {
    let made = Installation::make("", "").await;
    let config = made.config().display().to_string();
    let check = ["check", "--config", &config];
    let good = run(&check).await;
    assert!(good.status.success(), "{good:?}");

    made.configure("[refresh]\nexchange_timeout = \"1ms\"");
    let said = refused(&check).await;
    assert!(
        said.contains(&config) && said.contains("refresh.exchange_timeout"),
        "{said}"
    );

    made.configure("[refresh]\nexchange_time_out = \"10s\"");
    let said = refused(&check).await;
    assert!(
        said.contains(&config) && said.contains("refresh.exchange_time_out"),
        "{said}"
    );
    assert!(
        said.contains("refresh.exchange_timeout"),
        "what was meant: {said}"
    );

    made.configure("");
    let connectors = made.data_dir().with_file_name("connectors.toml");
    fs::write(
        &connectors,
        connector("http://provider.example/token", "client", ""),
    )
    .unwrap();
    let said = refused(&check).await;
    assert!(said.contains(connectors.to_str().unwrap()), "{said}");
    assert!(said.contains("connectors.demo.token_url"), "{said}");
}

// req: N10
#[tokio::test]
async fn a_client_secret_that_is_not_there_is_warned_of_at_the_start_with_file_and_key() {
    let secret = "client_auth = \"post\"\nclient_secret = { file = \"/nonexistent/secret\" }\n";
    let connectors = connector("http://127.0.0.1:1/token", "client", secret);
    let made = Installation::make("[log]\nformat = \"json\"\n", &connectors).await;
    let mut daemon = made.start().await;
    let file = made.data_dir().with_file_name("connectors.toml");
    let warned = daemon
        .logged(|line| line["key"] == "connectors.demo.client_secret")
        .await;
    assert_eq!(warned["level"], "WARN");
    assert_eq!(warned["file"], file.to_str().unwrap());
    assert!(
        warned["fault"].as_str().unwrap().contains("/nonexistent/secret"),
        "{warned}"
    );
}

async fn health(daemon: &Daemon, service: &str) -> Result<ServingStatus, tonic::Status> {
    let channel = daemon.caller(None).await.channel;
    let service = service.to_owned();
    let answer = HealthClient::new(channel)
        .check(HealthCheckRequest { service })
        .await?;
    Ok(answer.into_inner().status())
}

// req: K1
#[tokio::test]
async fn health_and_reflection_answer_for_every_service() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let made = Installation::make("", "").await;
    let daemon = made.start().await;
    for service in SERVICES.iter().chain(&[""]) {
        assert_eq!(
            health(&daemon, service).await.unwrap(),
            ServingStatus::Serving,
            "{service}"
        );
    }
    let unknown = health(&daemon, "credbroker.v1.NoSuchService").await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);

    let mut client = ServerReflectionClient::new(daemon.caller(None).await.channel);
    let mut ask = async |request| {
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(request),
        };
        let answers = client.server_reflection_info(tokio_stream::once(request)).await;
        let answer = answers.unwrap().into_inner().message().await.unwrap().unwrap();
        answer.message_response.unwrap()
    };
    let MessageResponse::ListServicesResponse(list) = ask(MessageRequest::ListServices(String::new())).await
    else {
        panic!("no list of services");
    };
    let listed: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for service in SERVICES.iter().chain(&["grpc.health.v1.Health"]) {
        assert!(
            listed.iter().any(|name| name == service),
            "{service} is not in {listed:?}"
        );
    }
    let symbol = "credbroker.v1.BrokerService.ResolveCredential".to_owned();
    let found = ask(MessageRequest::FileContainingSymbol(symbol)).await;
    assert!(
        matches!(found, MessageResponse::FileDescriptorResponse(_)),
        "{found:?}"
    );
}

/// A grant of the demo OAuth server.
struct Grant {
    client: reqwest::Client,
    url: String,
    refresh_token: String,
}

impl Grant {
    /// A grant whose refreshes are answered after `delay`.
    async fn mint(demo: &DemoOAuth, delay: Duration) -> Self {
        let grants = format!("http://{}/grants", demo.addr());
        let url = format!("{grants}?delay_ms={}", delay.as_millis());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let minted = client.post(url).send().await.unwrap();
        let minted: serde_json::Value = minted.json().await.unwrap();
        Self {
            client,
            url: format!("{grants}/{}", minted["grant_id"].as_str().unwrap()),
            refresh_token: minted["refresh_token"].as_str().unwrap().to_owned(),
        }
    }

    async fn refreshes(&self) -> u64 {
        let history = self.client.get(&self.url).send().await.unwrap();
        let history: serde_json::Value = history.json().await.unwrap();
        history["refreshes"].as_u64().unwrap()
    }

    async fn refreshed(&self) {
        let wait = async {
            while self.refreshes().await == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(support::process::PATIENCE, wait)
            .await
            .unwrap();
    }
}

/// A daemon, a grant at a provider that answers after `delay`, and an agent of its member.
struct Scene {
    _demo: DemoOAuth,
    made: Installation,
    daemon: Daemon,
    grant: Grant,
    enrolled: support::Enrolled,
}

impl Scene {
    async fn set(config: &str, delay: Duration) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let demo = DemoOAuth::start(([127, 0, 0, 1], 0).into(), DemoOptions::default())
            .await
            .unwrap();
        let grant = Grant::mint(&demo, delay).await;
        let made = Installation::make(config, &connector(&demo.token_url(), "client", "")).await;
        let daemon = made.start().await;
        let operator = daemon.operator().await;
        operator.make_org(ORG).await;
        operator.import_grant(ORG, MEMBER, &grant.refresh_token).await;
        let task = operator.make_task(ORG, MEMBER).await;
        let enrolled = daemon.enroll(&operator, &task).await;
        Self {
            _demo: demo,
            made,
            daemon,
            grant,
            enrolled,
        }
    }

    async fn agent(&self) -> Caller {
        self.daemon.agent(&self.enrolled).await
    }
}

async fn next_status(watch: &mut tonic::Streaming<HealthCheckResponse>) -> ServingStatus {
    watch.message().await.unwrap().unwrap().status()
}

// req: K1 N1
#[tokio::test]
async fn sigterm_answers_what_is_under_way_and_says_that_it_stops() {
    let mut scene = Scene::set("", Duration::from_millis(1500)).await;
    let watching = scene.daemon.caller(None).await.channel;
    let request = HealthCheckRequest {
        service: SERVICES[0].to_owned(),
    };
    let mut watch = HealthClient::new(watching)
        .watch(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(next_status(&mut watch).await, ServingStatus::Serving);

    let agent = scene.agent().await;
    let slow = tokio::spawn(async move { agent.resolve("").await });
    scene.grant.refreshed().await;
    scene.daemon.signal(Signal::TERM);
    assert_eq!(next_status(&mut watch).await, ServingStatus::NotServing);
    assert!(!slow.is_finished(), "the exchange was to take longer");
    let (address, trust) = (scene.daemon.address.to_string(), scene.daemon.trust());
    assert!(Caller::try_connect(&address, trust, None, None).await.is_err());

    let lease = slow.await.unwrap().unwrap().lease.unwrap();
    assert!(secret(&lease).starts_with("demo-at."));
    assert_eq!(
        scene.daemon.ended().await.code(),
        Some(0),
        "{:#?}",
        scene.daemon.log()
    );

    scene.daemon = scene.made.start().await;
    let again = scene.agent().await.resolve("").await.unwrap().lease.unwrap();
    assert_eq!(
        (again.generation, secret(&again)),
        (lease.generation, secret(&lease))
    );
    assert_eq!(scene.grant.refreshes().await, 1);
}

// req: N1
#[tokio::test]
async fn sigterm_waits_for_an_exchange_whose_caller_has_gone() {
    let mut scene = Scene::set("", Duration::from_millis(1000)).await;
    let agent = scene.agent().await;
    let caller = tokio::spawn(async move { agent.resolve("").await });
    scene.grant.refreshed().await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    scene.daemon.signal(Signal::TERM);
    assert_eq!(
        scene.daemon.ended().await.code(),
        Some(0),
        "{:#?}",
        scene.daemon.log()
    );

    scene.daemon = scene.made.start().await;
    let lease = scene.agent().await.resolve("").await.unwrap().lease.unwrap();
    assert_eq!(lease.generation, 2);
    assert_eq!(
        scene.grant.refreshes().await,
        1,
        "the answer was staged and adopted"
    );
}

fn with_limit(forced: u32, filter: &str, more: &str) -> String {
    format!(
        "[refresh]\nforced_rotations_per_hour_per_agent = {forced}\n[log]\nfilter = {filter:?}\n[listen]\n{more}"
    )
}

// req: B7 K8
#[tokio::test]
async fn sighup_takes_what_may_change_and_names_what_may_not() {
    let quiet = with_limit(1, "info,credbroker::rpc=error", "");
    let mut scene = Scene::set(&quiet, Duration::ZERO).await;
    let agent = scene.agent().await;
    let lease = agent.resolve("").await.unwrap().lease.unwrap();
    let replace = async |generation| {
        let request = proto::RefreshTokenRequest {
            lease: lease.id.clone(),
            rejected_generation: generation,
            ..Default::default()
        };
        let answer = agent.broker().refresh_token(request).await;
        answer.map(|answer| answer.into_inner().lease.unwrap().generation)
    };
    assert_eq!(replace(2).await.unwrap(), 3);
    let limited = reason(&replace(3).await.unwrap_err());

    scene
        .made
        .configure(&with_limit(2, "info", "max_connections = 77"));
    scene.daemon.signal(Signal::HUP);
    let line = scene
        .daemon
        .logged(|line| line["message"] == "reloaded the configuration")
        .await;
    let reloaded = line["reloaded"].to_string();
    assert!(
        reloaded.contains("refresh.forced_rotations_per_hour_per_agent"),
        "{line}"
    );
    assert!(
        reloaded.contains("log.filter") && !reloaded.contains("max_connections"),
        "{line}"
    );
    assert!(
        line["needs_restart"]
            .to_string()
            .contains("listen.max_connections"),
        "{line}"
    );
    assert_eq!(replace(3).await.unwrap(), 4);
    assert_eq!(reason(&replace(4).await.unwrap_err()), limited);
    let line = scene.daemon.logged(|line| line["message"] == "refused").await;
    assert_eq!(line["reason"], limited.as_str(), "{line}");

    // A configuration that is no good changes nothing.
    scene.made.configure(&with_limit(0, "error", ""));
    scene.daemon.signal(Signal::HUP);
    let kept = |line: &serde_json::Value| line["message"] == "the configuration was not reloaded";
    let line = scene.daemon.logged(kept).await;
    let error = line["error"].as_str().unwrap();
    assert!(
        error.contains("refresh.forced_rotations_per_hour_per_agent"),
        "{error}"
    );
    assert_eq!(reason(&replace(4).await.unwrap_err()), limited);
    let log = scene.daemon.log().join("\n");
    assert_eq!(log.matches(r#""message":"refused""#).count(), 2, "{log}");
}

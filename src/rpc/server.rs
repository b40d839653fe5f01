//! The server: all services behind one gate, on one port.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::access_service::AccessService;
use super::accounts::AccountService;
use super::agents::AgentService;
use super::approvals::ApprovalService;
use super::billing::BillingService;
use super::broker::BrokerService;
use super::credentials::CredentialService;
use super::directory::DirectoryService;
use super::enrollment::EnrollmentService;
use super::executors::ExecutorService;
use super::gate::Gate;
use super::journal::JournalService;
use super::locks::LockService;
use super::platform::PlatformService;
use super::policy::PolicyService;
use super::secrets::SecretService;
use super::tasks::TaskService;
use super::watch::WatchService;
use crate::pki::accept::Incoming;
use crate::proto;
use crate::service::Broker;

/// What callers may use together, and each by itself.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The longest message taken, in bytes.
    pub max_message_bytes: usize,
    /// How many requests are in flight at once; more are refused.
    pub max_requests_in_flight: usize,
    /// How many requests one connection has in flight.
    pub max_concurrent_streams: u32,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// How long requests under way are waited for when the broker stops.
    pub drain: tokio::sync::watch::Receiver<Duration>,
}

/// How often the health of store and journal is looked at.
const HEALTH_INTERVAL: Duration = Duration::from_millis(500);
/// A peer that does not answer a ping within this time is gone.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// What the last answers get to reach the network in.
const FLUSH: Duration = Duration::from_millis(200);

const SERVICES: &[&str] = &[
    "",
    "credbroker.v1.BrokerService",
    "credbroker.v1.EnrollmentService",
    "credbroker.v1.TaskService",
    "credbroker.v1.DirectoryService",
    "credbroker.v1.AgentService",
    "credbroker.v1.CredentialService",
    "credbroker.v1.ExecutorService",
    "credbroker.v1.AccessService",
    "credbroker.v1.JournalService",
    "credbroker.v1.WatchService",
    "credbroker.v1.ApprovalService",
    "credbroker.v1.SecretService",
    "credbroker.v1.LockService",
    "credbroker.v1.PlatformService",
    "credbroker.v1.BillingService",
    "credbroker.v1.PolicyService",
    "credbroker.v1.AccountService",
];

/// Keeps what the health service says true.
struct HealthTask {
    broker: Arc<Broker>,
    reporter: HealthReporter,
}

impl HealthTask {
    async fn set(&self, status: ServingStatus) {
        for service in SERVICES {
            self.reporter.set_service_status(service, status).await;
        }
    }

    /// Follows the health of store and journal until `stopping`, then says that nothing is served any more.
    async fn run(self, stopping: CancellationToken) {
        let mut serving = None;
        while !stopping.is_cancelled() {
            let healthy = self.broker.healthy();
            if serving != Some(healthy) {
                serving = Some(healthy);
                let status = if healthy {
                    ServingStatus::Serving
                } else {
                    ServingStatus::NotServing
                };
                self.set(status).await;
            }
            tokio::select! {
                () = tokio::time::sleep(HEALTH_INTERVAL) => {}
                () = stopping.cancelled() => {}
            }
        }
        self.set(ServingStatus::NotServing).await;
    }
}

/// The server ended on its own.
#[derive(Debug, thiserror::Error)]
#[error("the gRPC server ended: {0}")]
pub struct ServeError(#[from] tonic::transport::Error);

/// Serves until `stopping`; then takes no new requests, says so in the health service, and waits for those
/// under way for as long as the limits allow.
pub async fn serve(
    broker: Arc<Broker>,
    incoming: Incoming,
    limits: Limits,
    stopping: CancellationToken,
) -> Result<(), ServeError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let task = HealthTask {
        broker: Arc::clone(&broker),
        reporter,
    };
    let following = tokio::spawn(task.run(stopping.clone()));

    let places = Arc::new(Semaphore::new(limits.max_requests_in_flight));
    let gate = Gate {
        broker: Arc::clone(&broker),
        places: Arc::clone(&places),
        strangers: Arc::new(Semaphore::new(limits.max_requests_in_flight.div_ceil(4))),
        time_limit: limits.request_timeout,
        max_message: limits.max_message_bytes,
    };
    let max = limits.max_message_bytes;
    macro_rules! service {
        ($module:ident, $server:ident, $handler:ident) => {
            proto::$module::$server::new($handler(Arc::clone(&broker)))
                .max_decoding_message_size(max)
                .max_encoding_message_size(usize::MAX)
        };
    }
    let mut routes = Routes::builder();
    routes
        .add_service(health)
        .add_service(service!(
            broker_service_server,
            BrokerServiceServer,
            BrokerService
        ))
        .add_service(service!(
            enrollment_service_server,
            EnrollmentServiceServer,
            EnrollmentService
        ))
        .add_service(service!(task_service_server, TaskServiceServer, TaskService))
        .add_service(service!(
            directory_service_server,
            DirectoryServiceServer,
            DirectoryService
        ))
        .add_service(service!(agent_service_server, AgentServiceServer, AgentService))
        .add_service(service!(
            credential_service_server,
            CredentialServiceServer,
            CredentialService
        ))
        .add_service(service!(
            executor_service_server,
            ExecutorServiceServer,
            ExecutorService
        ))
        .add_service(service!(
            access_service_server,
            AccessServiceServer,
            AccessService
        ))
        .add_service(service!(
            journal_service_server,
            JournalServiceServer,
            JournalService
        ))
        .add_service(service!(
            approval_service_server,
            ApprovalServiceServer,
            ApprovalService
        ))
        .add_service(service!(
            secret_service_server,
            SecretServiceServer,
            SecretService
        ));
    routes.add_service(service!(watch_service_server, WatchServiceServer, WatchService));
    routes.add_service(service!(lock_service_server, LockServiceServer, LockService));
    routes.add_service(service!(
        platform_service_server,
        PlatformServiceServer,
        PlatformService
    ));
    routes.add_service(service!(
        billing_service_server,
        BillingServiceServer,
        BillingService
    ));
    routes.add_service(service!(
        policy_service_server,
        PolicyServiceServer,
        PolicyService
    ));
    routes.add_service(service!(
        account_service_server,
        AccountServiceServer,
        AccountService
    ));
    // The descriptors are compiled in; that they are good is shown by every test that reflects.
    if let Ok(reflection) = reflection().build_v1() {
        routes.add_service(reflection);
    }
    if let Ok(reflection) = reflection().build_v1alpha() {
        routes.add_service(reflection);
    }

    let server = Server::builder()
        .max_concurrent_streams(limits.max_concurrent_streams)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .tcp_nodelay(true)
        .layer(gate)
        .add_routes(routes.routes());
    let serving = server.serve_with_incoming_shutdown(incoming, stopping.clone().cancelled_owned());
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = stopping.cancelled() => {
            // They would not end by themselves, and nobody waits for them.
            broker.end_streams();
            let limit = *limits.drain.borrow();
            tokio::select! {
                ended = &mut serving => ended,
                () = quiet(&places, limits.max_requests_in_flight) => Ok(()),
                () = tokio::time::sleep(limit) => {
                    tracing::warn!("requests were still under way when the time to drain was over");
                    Ok(())
                }
            }
        }
    };
    stopping.cancel();
    let _ended = following.await;
    Ok(ended?)
}

/// Ready when no request is in flight. The server itself would also wait for streams such as health watches,
/// which do not end.
async fn quiet(places: &Semaphore, all: usize) {
    let all = u32::try_from(all).unwrap_or(u32::MAX);
    if places.acquire_many(all).await.is_ok() {
        tokio::time::sleep(FLUSH).await;
    }
}

fn reflection<'b>() -> tonic_reflection::server::Builder<'b> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

//! A broker whose members sign in at a real server, and what they see of it.

use std::sync::Arc;
use std::time::Duration;

use credbroker::proto::watch_connection_response::Event;
use credbroker::proto::{self, ConnectionFlow, ConnectionState};
use tokio::time::timeout;
use tonic::Status;

use crate::oidc::OidcServer;
use crate::support::broker::{MEMBER, ORG, connector};
use crate::support::client::secret;
use crate::support::clock::MovedClock;
use crate::support::{Caller, Options, TestBroker};
use crate::web::Browser;

/// How long anything may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The port that the member's program would listen on; nobody does.
pub const PORT: u32 = 5_555;

pub struct Scene {
    pub server: OidcServer,
    pub broker: TestBroker,
    pub operator: Caller,
}

/// The connector's keys: endpoints by discovery, but for the token endpoint where one is given.
pub fn keys(server: &OidcServer) -> String {
    let issuer = server.issuer();
    format!(
        "issuer = {issuer:?}\nscopes = [\"openid\", \"offline_access\"]\nauthorize_params = {{ prompt = \"consent\" }}\n\
         account = [{{ label = \"subject\", from = \"id-token\", pointer = \"/sub\" }}]\n\
         redirects = [\n{{ kind = \"loopback\", host = \"127.0.0.1\", ports = [], path = \"/callback\" }},\n\
         {{ kind = \"paste\", url = \"http://127.0.0.1/callback\", code = \"code-and-state\" }},\n]"
    )
}

impl Scene {
    pub async fn start() -> Self {
        let server = OidcServer::start().await;
        let token_url = server.token_url();
        Self::with(server, &token_url).await
    }

    /// With another token endpoint than the server's own.
    pub async fn with(server: OidcServer, token_url: &str) -> Self {
        Self::at(server, token_url, None).await
    }

    /// With a clock that the test moves.
    pub async fn at(server: OidcServer, token_url: &str, clock: Option<Arc<MovedClock>>) -> Self {
        let options = Options {
            connectors: connector(token_url, "credbroker-cli", &keys(&server)),
            clock: clock.map(|clock| clock as _),
            ..Options::default()
        };
        let broker = TestBroker::start_with(options).await;
        let operator = broker.prepare().await;
        Self {
            server,
            broker,
            operator,
        }
    }

    /// Stops the broker and starts it again on what it has stored.
    pub async fn restarted(self) -> Self {
        drop(self.operator);
        let broker = self.broker.restart().await;
        let operator = broker.operator().await;
        Self {
            server: self.server,
            broker,
            operator,
        }
    }

    pub async fn begin(&self, flow: ConnectionFlow) -> Result<proto::Connection, Status> {
        let loopback_port = match flow {
            ConnectionFlow::Loopback => PORT,
            _ => 0,
        };
        let request = proto::BeginConnectionRequest {
            org: ORG.to_owned(),
            member: MEMBER.to_owned(),
            connector: "demo".to_owned(),
            flow: flow as i32,
            loopback_port,
        };
        let begun = self.operator.accounts().begin_connection(request).await?;
        Ok(begun.into_inner().connection.unwrap())
    }

    pub async fn complete(
        &self,
        connection: &proto::Connection,
        code: &str,
    ) -> Result<proto::Connection, Status> {
        let request = proto::CompleteConnectionRequest {
            org: ORG.to_owned(),
            connection: connection.id.clone(),
            code: Some(proto::Secret {
                value: code.to_owned(),
            }),
            ..Default::default()
        };
        let done = self.operator.accounts().complete_connection(request).await?;
        Ok(done.into_inner().connection.unwrap())
    }

    pub async fn cancel(&self, connection: &proto::Connection) -> Result<proto::Connection, Status> {
        let request = proto::CancelConnectionRequest {
            org: ORG.to_owned(),
            connection: connection.id.clone(),
        };
        let done = self.operator.accounts().cancel_connection(request).await?;
        Ok(done.into_inner().connection.unwrap())
    }

    pub async fn retry(&self, connection: &proto::Connection) -> Result<proto::Connection, Status> {
        let request = proto::RetryConnectionRequest {
            org: ORG.to_owned(),
            connection: connection.id.clone(),
            loopback_port: PORT,
        };
        let done = self.operator.accounts().retry_connection(request).await?;
        Ok(done.into_inner().connection.unwrap())
    }

    pub async fn get(&self, connection: &proto::Connection) -> proto::Connection {
        let request = proto::GetConnectionRequest {
            org: ORG.to_owned(),
            connection: connection.id.clone(),
        };
        let found = self.operator.accounts().get_connection(request).await.unwrap();
        found.into_inner().connection.unwrap()
    }

    /// Follows a connection to its end: the states on the way, and how it ended.
    pub async fn follow(&self, connection: &proto::Connection) -> Followed {
        let request = proto::WatchConnectionRequest {
            org: ORG.to_owned(),
            connection: connection.id.clone(),
        };
        let stream = self.operator.accounts().watch_connection(request).await.unwrap();
        let mut stream = stream.into_inner();
        let first = stream.message().await.unwrap().unwrap();
        let first = match first.event.unwrap() {
            Event::Progress(first) => first.state(),
            other => panic!("{other:?}"),
        };
        let told = tokio::spawn(async move {
            let mut states = vec![first];
            loop {
                match stream
                    .message()
                    .await
                    .unwrap()
                    .expect("no end was told")
                    .event
                    .unwrap()
                {
                    Event::Progress(step) => states.push(step.state()),
                    Event::Completion(end) => {
                        assert!(stream.message().await.unwrap().is_none(), "nothing after the end");
                        return (states, end);
                    }
                    Event::Heartbeat(_) => {}
                }
            }
        });
        Followed(told)
    }

    /// The member signs in as `person` at the connection's address; where the browser is sent to.
    pub async fn sign_in(&self, connection: &proto::Connection, person: &str) -> String {
        let end = &connection.redirect_uri;
        Browser::of(person).away(&connection.url, end).await.to_string()
    }

    /// Whose account an agent is handed the token of.
    pub async fn account(&self) -> Option<String> {
        let task = self.operator.make_task(ORG, MEMBER).await;
        let agent = self
            .broker
            .agent(&self.broker.enroll(&self.operator, &task).await)
            .await;
        let lease = agent.resolve(&task).await.ok()?.lease.unwrap();
        self.server.account_of(secret(&lease)).await
    }
}

/// A connection that is followed.
pub struct Followed(tokio::task::JoinHandle<(Vec<ConnectionState>, proto::Connection)>);

impl Followed {
    pub async fn ended(self) -> (Vec<ConnectionState>, proto::Connection) {
        timeout(PATIENCE, self.0).await.expect("no end in time").unwrap()
    }
}

/// The code and the state of the address that a browser was sent to.
pub fn parts(address: &str) -> (String, String) {
    let url = reqwest::Url::parse(address).unwrap();
    let field = |wanted: &str| {
        let mut pairs = url.query_pairs();
        pairs.find(|(name, _)| name == wanted).unwrap().1.into_owned()
    };
    (field("code"), field("state"))
}

//! At a real OAuth server: the tokens are dead there, and signing in again works.

use std::time::Duration;

use crate::scene::{LONG, REVOKED, disconnect, fates};
use crate::support::broker::{MEMBER, ORG, connector};
use crate::support::client::secret;
use crate::support::oidc::{OidcServer, PUBLIC_CLIENT};
use crate::support::{Options, TestBroker};

const LIFE: Duration = Duration::from_secs(600);

// req: A12
#[tokio::test]
async fn the_tokens_are_dead_at_the_provider() {
    let server = OidcServer::start().await;
    // The revocation endpoint is discovered, as an operator would have it.
    let keys = format!("issuer = {:?}\n", server.issuer());
    let options = Options {
        connectors: connector(&server.token_url(), PUBLIC_CLIENT, &keys),
        ..Options::default()
    };
    let broker = TestBroker::start_with(options).await;
    let operator = broker.prepare().await;
    let grant = server.mint(LIFE).await;
    let imported = operator.import_grant(ORG, MEMBER, &grant.refresh_token).await;
    let task = operator.make_task(ORG, MEMBER).await;
    let agent = broker.agent(&broker.enroll(&operator, &task).await).await;
    let lease = agent.resolve(&task).await.unwrap().lease.unwrap();
    let access = secret(&lease).to_owned();
    assert!(server.account_of(&access).await.is_some());

    let gone = disconnect(&operator, &imported.id, LONG).await.unwrap();
    assert_eq!(fates(&gone.tokens), REVOKED);
    assert!(!server.stats(&grant).await.alive);
    assert_eq!(server.account_of(&access).await, None);

    let grant = server.mint(LIFE).await;
    let again = operator.import_grant(ORG, MEMBER, &grant.refresh_token).await;
    assert_eq!(again.generation, 1);
    let lease = agent.resolve(&task).await.unwrap().lease.unwrap();
    assert!(server.account_of(secret(&lease)).await.is_some());
}

//! Testing a credential: what is asked of providers, what their answers mean, and what is kept of it.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "credential_test/aws.rs"]
mod aws;
#[path = "credential_test/bounds.rs"]
mod bounds;
#[path = "credential_test/fake.rs"]
mod fake;
#[path = "credential_test/grants.rs"]
mod grants;
#[path = "credential_test/keys.rs"]
mod keys;
#[path = "support/python.rs"]
mod python;
mod support;

use std::sync::Arc;
use std::time::Duration;

use credbroker::domain::actor::Caller as DomainCaller;
use credbroker::domain::id::Id;
use credbroker::domain::key_test::Checked;
use credbroker::proto;
use fake::Fake;
use proto::CredentialTestOutcome as Outcome;
use proto::set_credential_request::Key;
use support::broker::ORG;
use support::clock::MovedClock;
use support::{Caller, Options, TestBroker};
use tonic::Status;

/// A broker whose registry sends tests to a fake, and an operator.
struct Scene {
    broker: TestBroker,
    clock: Arc<MovedClock>,
    operator: Caller,
    fake: Fake,
}

impl Scene {
    async fn new() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let fake = Fake::start().await;
        let registry = format!(
            "[providers.anthropic.test.api-key]\nurl = {:?}\n\
             [providers.openai.test.api-key]\nurl = {:?}\n\
             [providers.google.test.api-key]\nurl = {:?}\n\
             [providers.bedrock.test.aws]\nurl = {:?}\n\
             [providers.bedrock.test.bedrock-bearer]\nurl = {:?}\n",
            fake.url("/v1/models?limit=1"),
            fake.url("/v1/models"),
            fake.url("/v1beta/models?pageSize=1"),
            fake.url("/?Action=GetCallerIdentity&Version=2011-06-15"),
            fake.url("/{region}/foundation-models"),
        );
        let clock = Arc::new(MovedClock::default());
        let options = Options {
            registry: format!("{registry}{}", options.registry),
            clock: Some(Arc::clone(&clock) as _),
            ..options
        };
        let broker = TestBroker::start_with(options).await;
        let operator = broker.prepare().await;
        Self {
            broker,
            clock,
            operator,
            fake,
        }
    }

    /// Stores an org's key of a provider.
    async fn key(&self, provider: &str, key: &str) -> String {
        let key = proto::Secret {
            value: key.to_owned(),
        };
        self.store("", provider, Key::ApiKey(key)).await
    }

    async fn store(&self, member: &str, provider: &str, key: Key) -> String {
        let request = proto::SetCredentialRequest {
            org: ORG.to_owned(),
            owner: Some(support::client::owner(member)),
            provider: provider.to_owned(),
            key: Some(key),
            ..Default::default()
        };
        let stored = self.operator.credentials().set_credential(request).await.unwrap();
        stored.into_inner().credential.unwrap().id
    }

    /// A test, long enough after the one before to be one of its own.
    async fn test(&self, id: &str) -> proto::TestCredentialResponse {
        self.clock.advance(Duration::from_secs(6));
        test_as(&self.operator, id).await.unwrap()
    }

    /// What is kept of the last test.
    async fn last_check(&self, id: &str) -> Option<Arc<Checked>> {
        let broker = &self.broker.broker;
        let caller = DomainCaller::local_operator(Id::from_bytes([1; 16]));
        let credential = broker.get_credential(&caller, ORG, id).await.unwrap();
        broker.last_check(&credential).await.unwrap()
    }
}

async fn test_as(caller: &Caller, id: &str) -> Result<proto::TestCredentialResponse, Status> {
    let request = proto::TestCredentialRequest {
        org: ORG.to_owned(),
        credential: id.to_owned(),
    };
    Ok(caller.credentials().test_credential(request).await?.into_inner())
}

/// The journal's records of tests: their phase, and what they found.
fn tests_in(records: &[proto::JournalRecord]) -> Vec<&proto::JournalRecord> {
    let tests = records.iter().filter(|record| record.action == "credential.test");
    tests.collect()
}

use support::oidc;

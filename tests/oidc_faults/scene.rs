//! A broker with a real provider behind a faulty proxy: one member's grant, one task, several agents.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use credbroker::proto;
use credbroker::proto::CredentialHealth;
use credbroker::proto::watch_event::Event;
use futures_util::future::join_all;
use tonic::{Code, Status};

use crate::faulty_proxy::FaultyProxy;
use crate::support::broker::{MEMBER, ORG, connector};
use crate::support::client::{metadata, retry_after, secret};
use crate::support::clock::MovedClock;
use crate::support::oidc::{Grant, OidcServer, PUBLIC_CLIENT, Stats};
use crate::support::watching::Watching;
use crate::support::{Caller, Options, TestBroker, reason};

/// How long access tokens live by the broker's clock, which the tests move. The provider's own clock stands as
/// good as still meanwhile, so that there only revocation ends a token.
pub const LIFE: Duration = Duration::from_secs(600);
/// Long enough for the rests and pauses after a few failures.
pub const REST: Duration = Duration::from_secs(60);
/// The most that anybody is ever told to wait.
const LONGEST_REST: Duration = Duration::from_secs(300);
/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(20);
/// Whose the grants are at the provider.
pub const ACCOUNT: &str = "alex-at-the-provider";
/// How the provider refuses any refresh token that it does not take, whatever the cause.
pub const REFUSED: &str = "grant request is invalid";

/// The cause of an end that a resend proved.
pub const ANSWER_LOST: &str = "answer-lost";
/// The cause of a refusal that nothing done here explains.
pub const ELSEWHERE: &str = "refreshed-elsewhere";

pub type Answer = Result<proto::Lease, Status>;

/// One way that something can go wrong, with several agents waiting for it to go well.
pub struct Scene {
    pub server: Arc<OidcServer>,
    pub proxy: FaultyProxy,
    pub clock: Arc<MovedClock>,
    _broker: TestBroker,
    pub operator: Caller,
    pub task: String,
    pub credential: String,
    pub agents: Vec<Caller>,
    grant: Mutex<Arc<Grant>>,
    /// The agents' leases, once they have some.
    leases: Mutex<BTreeSet<String>>,
}

impl Scene {
    /// With so many agents, more keys for the connector, and a configuration. The grant is imported and was not
    /// used yet.
    pub async fn imported(
        server: &Arc<OidcServer>,
        agents: usize,
        connector_keys: &str,
        config: &str,
    ) -> Self {
        let proxy = FaultyProxy::start(server.port()).await;
        let clock = Arc::new(MovedClock::default());
        let options = Options {
            config: config.to_owned(),
            connectors: connector(&proxy.token_url(), PUBLIC_CLIENT, connector_keys),
            clock: Some(Arc::clone(&clock) as _),
            ..Options::default()
        };
        let broker = TestBroker::start_with(options).await;
        let operator = broker.prepare().await;
        let grant = server.mint_as(ACCOUNT, LIFE).await;
        let imported = operator.import_grant(ORG, MEMBER, &grant.refresh_token).await;
        let task = operator.make_task(ORG, MEMBER).await;
        let agents =
            (0..agents).map(|_| async { broker.agent(&broker.enroll(&operator, &task).await).await });
        let agents = join_all(agents).await;
        Self {
            server: Arc::clone(server),
            proxy,
            clock,
            _broker: broker,
            operator,
            task,
            credential: imported.id,
            agents,
            grant: Mutex::new(Arc::new(grant)),
            leases: Mutex::default(),
        }
    }

    /// As [`Scene::imported`], with every agent's lease of the first exchange: generation 2, one call.
    pub async fn leased(server: &Arc<OidcServer>, agents: usize, connector_keys: &str, config: &str) -> Self {
        let scene = Self::imported(server, agents, connector_keys, config).await;
        scene.all_get(2).await;
        scene.provider_saw(1, 0, 0).await;
        scene
    }

    /// The agents' grant as it was minted.
    pub fn grant(&self) -> Arc<Grant> {
        Arc::clone(&self.grant.lock().unwrap())
    }

    /// What became of the agents' grant.
    pub async fn stats(&self) -> Stats {
        self.server.stats(&self.grant()).await
    }

    /// The provider was called so often with tokens of the grant, gave new ones to all calls but the refused, and
    /// took so many of those for replays. One replay is the end of the grant.
    pub async fn provider_saw(&self, calls: u64, refused: u64, replays: u64) {
        let expected = Stats {
            alive: replays == 0,
            ttl: LIFE.as_secs(),
            calls,
            successes: calls - refused,
            refused,
            replays,
        };
        assert_eq!(self.stats().await, expected);
    }

    /// The current access token has expired.
    pub fn expire(&self) {
        self.clock.advance(LIFE);
    }

    /// All agents resolve at once, with any token that works. Every token handed out is tried at the provider.
    pub async fn resolve(&self) -> Vec<Answer> {
        let asked = self.agents.iter().map(|agent| {
            let (agent, task) = (agent.clone(), self.task.clone());
            tokio::spawn(async move { Ok(agent.resolve(&task).await?.lease.unwrap()) })
        });
        let answers: Vec<Answer> = join_all(asked).await.into_iter().map(Result::unwrap).collect();
        let given = answers.iter().filter_map(|answer| answer.as_ref().ok());
        for token in given.map(secret).collect::<BTreeSet<_>>() {
            self.works(token).await;
        }
        answers
    }

    /// A token that was handed out is of this member's account, and works for as long as the grant lives.
    pub async fn works(&self, token: &str) {
        let account = self.server.account_of(token).await;
        let alive = self.stats().await.alive;
        assert_eq!(account.as_deref(), alive.then_some(ACCOUNT), "alive: {alive}");
    }

    /// All agents get one and the same token, of this generation, in a lease that each has for good.
    pub async fn all_get(&self, generation: u64) -> String {
        let answers = self.resolve().await;
        self.agree(answers, generation)
    }

    pub fn agree(&self, answers: Vec<Answer>, generation: u64) -> String {
        let leases: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        let own: BTreeSet<_> = leases.iter().map(|lease| lease.id.clone()).collect();
        assert_eq!(own.len(), self.agents.len());
        let known = std::mem::replace(&mut *self.leases.lock().unwrap(), own.clone());
        assert!(known.is_empty() || known == own, "other leases than before");
        assert!(
            leases.iter().all(|lease| lease.generation == generation),
            "{leases:?}"
        );
        let tokens: BTreeSet<_> = leases.iter().map(secret).collect();
        assert_eq!(tokens.len(), 1, "one token for all");
        tokens.into_iter().next().unwrap().to_owned()
    }

    /// All agents are refused, and told that the answer to a refresh is not known and when to come again.
    pub async fn all_are_told_ambiguous(&self) {
        for answer in self.resolve().await {
            told_to_come_again(&answer.unwrap_err(), "REFRESH_AMBIGUOUS");
        }
    }

    /// All agents are refused, and told that a person has to sign in again, and why.
    pub async fn all_are_told_to_sign_in_again(&self, cause: &str) {
        for answer in self.resolve().await {
            let refused = answer.unwrap_err();
            told_to_sign_in_again(&refused, cause);
            assert_eq!(metadata(&refused, "credential"), self.credential);
        }
    }

    /// What an operator is shown of the credential.
    pub async fn shown(&self, health: CredentialHealth, said: &str) {
        let shown = self.operator.health_of(ORG, &self.credential).await;
        assert_eq!(shown.health(), health);
        assert!(shown.last_error.contains(said), "{}", shown.last_error);
        assert_eq!(
            shown.last_error.is_empty(),
            said.is_empty(),
            "{}",
            shown.last_error
        );
    }

    /// Someone signs in again: a freshly minted grant in place of the one that is lost.
    pub async fn reconnect(&self) {
        let grant = self.server.mint_as(ACCOUNT, LIFE).await;
        let imported = self
            .operator
            .import_grant(ORG, MEMBER, &grant.refresh_token)
            .await;
        assert_eq!(imported.id, self.credential, "the same credential");
        *self.grant.lock().unwrap() = Arc::new(grant);
    }

    /// How each exchange ended, by the journal: its reason, empty where it brought tokens. Every exchange was
    /// recorded before it began, and ended once.
    pub async fn journaled(&self) -> Vec<String> {
        exchanges(&self.operator, &self.credential).await
    }
}

/// How each exchange of a credential ended, by the journal. Each begin record has its one finish record.
pub async fn exchanges(operator: &Caller, credential: &str) -> Vec<String> {
    let records = operator.records().await;
    let refreshes = records
        .iter()
        .filter(|record| record.action == "credential.refresh" && record.subject["credential"] == credential);
    let (begins, finishes): (Vec<_>, Vec<_>) = refreshes.partition(|record| record.phase == "begin");
    assert_eq!(begins.len(), finishes.len());
    let of = |begin: &&proto::JournalRecord| {
        let mut ends = finishes.iter().filter(|finish| finish.begins == begin.position);
        let end = ends.next().expect("an exchange without an end");
        assert!(ends.next().is_none(), "an exchange with two ends");
        assert_eq!(end.outcome == "allowed", end.reason.is_empty());
        end.reason.clone()
    };
    begins.iter().map(of).collect()
}

/// A refusal that passes: it has this reason and says when to come again.
pub fn told_to_come_again(refused: &Status, why: &str) {
    assert_eq!(reason(refused), why, "{refused}");
    assert_eq!(refused.code(), Code::Unavailable);
    let wait = retry_after(refused).unwrap();
    assert!(wait > Duration::ZERO && wait <= LONGEST_REST, "{wait:?}");
}

/// A refusal that waiting does not help: a person has to sign in again, for this cause.
pub fn told_to_sign_in_again(refused: &Status, cause: &str) {
    assert_eq!(reason(refused), "REAUTH_REQUIRED", "{refused}");
    assert_eq!(metadata(refused, "cause"), cause, "{refused}");
    let in_words = match cause {
        ANSWER_LOST => "the answer to a refresh was lost",
        _ => "another copy of it was refreshed elsewhere, or its owner took it back",
    };
    assert!(refused.message().contains(in_words), "{refused}");
    let provider = metadata(refused, "provider_message");
    assert!(provider.contains(REFUSED), "{provider}");
    assert_eq!(retry_after(refused), None);
}

/// Waits until the watch tells of this health.
pub async fn hears_of(watch: &mut Watching, credential: &str, health: CredentialHealth) {
    let told = async {
        loop {
            match watch.event().await.unwrap() {
                Event::CredentialHealthChanged(told) if told.health() == health => return told,
                Event::CredentialHealthChanged(_) | Event::CredentialRotated(_) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    // Heartbeats come all the time and are no news.
    let told = tokio::time::timeout(PATIENCE, told).await;
    let told = told.unwrap_or_else(|_| panic!("the watch does not tell of {health:?}"));
    assert_eq!(told.credential, credential);
}

//! A broker with a model proxy in front of the provider `demo`, and agents with leases of metered use.

use std::path::Path;
use std::sync::Arc;

use credbroker::clock::Clock as _;
use credbroker::domain::id::{LeaseId, OrgId};
use credbroker::domain::lease::Lease;
use credbroker::domain::mode::AuthMode;
use credbroker::domain::secret::Exposure;
use credbroker::domain::time::Time;
use credbroker::proto::{self, KeyPool};
use credbroker::store::record::{Changes, Records};
use credbroker::store::seal::{LocalMasterKey, Sealer};
use credbroker::store::sled::{Options as StoreOptions, SledStore};
use credbroker::store::{Commit, keys};

use crate::support::broker::{MEMBER, ORG};
use crate::support::clock::MovedClock;
use crate::support::{Caller, Enrolled, Options, TestBroker};

/// The platform's key for metered use of `demo`.
pub(crate) const KEY: &str = "the-platforms-metered-key-0001";

const PROXY: &str = "[proxy]\nbase_url = \"https://proxy.example/{provider}/v1\"\n";

/// A lease, and whose it is.
pub(crate) struct Used {
    pub(crate) task: String,
    pub(crate) agent: Enrolled,
    pub(crate) lease: Lease,
}

pub(crate) struct Scene {
    pub(crate) broker: TestBroker,
    pub(crate) clock: Arc<MovedClock>,
    pub(crate) operator: Caller,
    /// The platform's model proxy.
    pub(crate) proxy: Caller,
    proxy_token: String,
    pub(crate) used: Vec<Used>,
}

impl Scene {
    /// With an agent that has a lease for the usual member, and one for each of `more`.
    pub(crate) async fn start(more: &[&str]) -> Self {
        let clock = Arc::new(MovedClock::default());
        let options = Options {
            config: PROXY.to_owned(),
            clock: Some(Arc::clone(&clock) as _),
            ..Options::default()
        };
        let broker = TestBroker::start_with(options).await;
        let operator = broker.prepare().await;
        operator.set_key(ORG, "", "the-orgs-own-key-000").await;
        operator
            .set_managed_key(KeyPool::Metered, "demo", KEY)
            .await
            .unwrap();
        let proxy_token = operator.make_model_proxy().await;
        let mut made = Vec::new();
        for member in std::iter::once(&MEMBER).chain(more) {
            if *member != MEMBER {
                operator.make_member(ORG, member).await;
            }
            let task = operator.make_task(ORG, member).await;
            let agent = broker.enroll(&operator, &task).await;
            let lease = broker.agent(&agent).await.resolve(&task).await.unwrap();
            made.push((task, agent, lease.lease.unwrap()));
        }
        let list = proto::ListOrgsRequest::default();
        let orgs = operator.directory().list_orgs(list).await.unwrap();
        let org: OrgId = orgs.into_inner().orgs[0].id.parse().unwrap();
        let (options, dir, token) = broker.stop().await;
        let mut used = Vec::new();
        for (task, agent, lease) in made {
            let lease = metered(&dir.path().join("data"), org, lease.id.parse().unwrap()).await;
            used.push(Used { task, agent, lease });
        }
        let broker = TestBroker::start_over(options, dir, token).await;
        Self {
            operator: broker.operator().await,
            proxy: broker.caller(Some(&proxy_token)).await,
            broker,
            clock,
            proxy_token,
            used,
        }
    }

    /// Starts again, with these keys of `[proxy]` beside the base URL.
    pub(crate) async fn restart(self, proxy: &str) -> Self {
        let config = format!("{PROXY}{proxy}\n");
        let broker = self.broker.restart_with(|options| options.config = config).await;
        Self {
            operator: broker.operator().await,
            proxy: broker.caller(Some(&self.proxy_token)).await,
            broker,
            ..self
        }
    }

    /// A grant for a lease, and where it is good.
    pub(crate) fn grant(&self, used: &Used) -> (String, String) {
        let grant = self.broker.broker.proxy_grant(&used.lease).ok().unwrap();
        let token = grant.token.expose_str(Exposure::Vend).unwrap();
        (token.to_owned(), grant.base_url)
    }

    /// The time by the broker's clock.
    pub(crate) fn now(&self) -> Time {
        self.clock.wall()
    }
}

/// Makes a lease one of metered use, in the store of a broker that is stopped.
async fn metered(data: &Path, org: OrgId, id: LeaseId) -> Lease {
    let store = SledStore::open(&data.join("store"), StoreOptions::new("credbroker.local")).unwrap();
    let master = LocalMasterKey::load(&data.join("master.key")).unwrap();
    let sealer = Sealer::open(store.clone(), Arc::new(master)).unwrap();
    let records = Records::new(store.clone(), Arc::new(sealer), 10);
    let key = keys::lease(org, id);
    let stored = records.get::<Lease>(&key).await.unwrap().unwrap();
    let lease = Lease {
        mode: AuthMode::Metered,
        ..Lease::clone(&stored.value)
    };
    let changes = Changes::new().at(&key, stored.revision).put(&key, &lease);
    let applied = records.commit(changes).await.unwrap();
    assert!(matches!(applied, Commit::Applied(_)));
    drop(records);
    store.close();
    lease
}

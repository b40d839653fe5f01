//! What every schedule starts from, made once through the broker's own calls: an org with two members, a grant of
//! each, a task for each, and agents that are enrolled and have been seen.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use credbroker::clock::ManualClock;
use credbroker::config::registry::{Extra, load as load_registry};
use credbroker::domain::actor::Caller;
use credbroker::domain::approval::Posture;
use credbroker::domain::executor::Registry;
use credbroker::domain::grant_token::GrantKey;
use credbroker::domain::id::{CredentialId, OrgId};
use credbroker::domain::secret::{Exposure, KeyMaterial, Secret};
use credbroker::domain::task::Capacity;
use credbroker::domain::token::{OperatorFamily, Token};
use credbroker::journal::Journal;
use credbroker::pki::authority::Authority;
use credbroker::pki::identity::PeerIdentity;
use credbroker::service::{
    Broker, ImportGrant, NewEnrollmentTokens, NewNamed, NewTask, OwnerRef, Parts, ProxySettings, Settings,
};
use credbroker::store::record::Records;
use credbroker::store::seal::{LocalMasterKey, Sealer};
use credbroker::store::{Meta, StoreError};
use credbroker::upstream::connector::load::Connectors;
use credbroker::upstream::http::{HttpOptions, HttpTokenEndpoint};
use credbroker::upstream::key_test::KeyTester;
use credbroker::upstream::oidc::Issuers;
use credbroker::upstream::probe::Prober;

use crate::agents::{Agent, accepts};
use crate::clock::{START, SimClock};
use crate::endpoint::SimEndpoint;
use crate::journal;
use crate::kv::{Disk, SimKv};
use crate::provider::{Rules, refresh_text};
use crate::schedule::{self, EXCHANGE_TIMEOUT, LEAD, Weather};
use crate::support::broker::{REGISTRY, connector};
use crate::world::World;

pub const ORG: &str = "acme";
pub const MEMBERS: [&str; 2] = ["alex", "bo"];
/// How many agents work for each member.
pub const AGENTS: [usize; 2] = [4, 2];
pub const MINIMUM_REMAINING: Duration = Duration::from_secs(5);

const DAYS: Duration = Duration::from_secs(86_400);

/// What is durable at the start of a schedule, and what never changes.
pub struct Template {
    pub disk: Disk,
    pub records: u64,
    pub sealer: Arc<Sealer>,
    pub operator: Caller,
    pub agents: Vec<Agent>,
    pub credentials: Vec<(OrgId, CredentialId)>,
    shared: Immutable,
}

/// Parts of a broker that have no state.
#[derive(Clone)]
struct Immutable {
    authority: Arc<Authority>,
    registry: Arc<Registry>,
    issuers: Arc<Issuers>,
    prober: Arc<Prober>,
    tester: Arc<KeyTester>,
    oauth: Arc<HttpTokenEndpoint>,
}

/// The store's few facts.
#[derive(Default)]
struct Facts(Mutex<BTreeMap<String, Vec<u8>>>);

impl Meta for Facts {
    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.lock().unwrap().get(name).cloned())
    }

    fn set_meta(&self, entries: &[(&str, &[u8])]) -> Result<(), StoreError> {
        let mut facts = self.0.lock().unwrap();
        facts.extend(
            entries
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.to_vec())),
        );
        Ok(())
    }
}

/// Limits on forced rotations.
#[derive(Clone, Copy, Debug)]
pub struct Forced {
    pub per_credential: u32,
    pub per_agent: u32,
}

/// The connector that tells the broker how the provider behaves.
fn connectors(rules: Rules) -> Connectors {
    static KNOWN: OnceLock<Mutex<HashMap<String, Connectors>>> = OnceLock::new();
    let grace = rules.grace.map_or(String::new(), |grace| {
        format!("grace_seconds = {}\n", grace / 1000)
    });
    let keys = format!(
        "rotates = {}\nold_access_survives = {}\n{grace}",
        rules.rotates, rules.survives
    );
    let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap();
    let make = || {
        let text = connector("http://127.0.0.1:1/token", "tests", &keys);
        let text = text.replace("lead_seconds = 1", &format!("lead_seconds = {}", LEAD.as_secs()));
        Connectors::shipped()
            .unwrap()
            .with_file("test", &text, &[])
            .unwrap()
    };
    known.entry(keys.clone()).or_insert_with(make).clone()
}

impl Template {
    pub fn get() -> &'static Template {
        static TEMPLATE: OnceLock<Template> = OnceLock::new();
        TEMPLATE.get_or_init(|| {
            let runtime = schedule::runtime();
            runtime.block_on(make())
        })
    }

    /// A broker over what is durable in a world, and its journal.
    pub fn broker(&self, world: &Arc<World>, journal: Journal) -> Arc<Broker> {
        broker(&self.shared, &self.sealer, world, journal)
    }
}

fn broker(shared: &Immutable, sealer: &Arc<Sealer>, world: &Arc<World>, journal: Journal) -> Arc<Broker> {
    let Immutable {
        authority,
        registry,
        issuers,
        prober,
        tester,
        oauth,
    } = shared.clone();
    let weather = world.with(|state| state.weather);
    let rules = world.with(|state| state.provider.rules);
    let kv = Arc::new(SimKv(Arc::clone(world)));
    let chance = Arc::clone(world);
    let broker = Broker::new(Parts {
        records: Arc::new(Records::new(kv, Arc::clone(sealer), weather.cached)),
        journal,
        clock: Arc::new(SimClock(Arc::clone(world))),
        authority,
        registry,
        connectors: connectors(rules),
        endpoint: Arc::new(SimEndpoint(Arc::clone(world))),
        oauth,
        issuers,
        prober,
        tester,
        settings: settings(weather.forced),
        grant_key: GrantKey::new(&Secret::new(vec![7; 32])),
        jitter: Arc::new(move || chance.with(|state| state.dice.fraction())),
    })
    .unwrap();
    let chance = Arc::clone(world);
    let fill = move |bytes: &mut [u8]| {
        chance.with(|state| bytes.fill_with(|| state.dice.below(256) as u8));
    };
    broker.seed_chance(Box::new(fill));
    if let Some(mistake) = weather.planted {
        broker.refresher().plant(mistake);
    }
    broker
}

async fn make() -> Template {
    let clock = Arc::new(ManualClock::at(START));
    let facts = Facts(Mutex::new(BTreeMap::from([("store.id".to_owned(), vec![1; 16])])));
    let master = LocalMasterKey::new(&Secret::<KeyMaterial>::new(vec![1; 32])).unwrap();
    let sealer = Arc::new(Sealer::open(Arc::new(facts), Arc::new(master)).unwrap());
    let (authority, _) = Authority::create(&"example.test".parse().unwrap(), START).unwrap();
    let text = REGISTRY;
    let shared = Immutable {
        authority: authority.into(),
        registry: load_registry(&[Extra { file: "test", text }]).unwrap().into(),
        issuers: Issuers::new(Vec::new(), clock.clone()).unwrap().into(),
        oauth: HttpTokenEndpoint::new(&HttpOptions::default(), Arc::clone(&clock) as Arc<_>)
            .unwrap()
            .into(),
        prober: Prober::new(&[], clock.clone()).unwrap().into(),
        tester: KeyTester::new(clock).unwrap().into(),
    };
    let state = schedule::state(0, Weather::calm(), false, Vec::new(), Vec::new(), 0);
    let world = World::new(Disk::default(), Arc::clone(&sealer), state);
    world.with(|state| state.clocks.run());
    let (journal, open) = journal::open(&world);
    let broker = broker(&shared, &sealer, &world, journal);
    broker.recover(open).await.unwrap();

    let token = broker.create_operator("simulation").await.unwrap();
    let token = Token::<OperatorFamily>::parse(token.expose_str(Exposure::Inspect).unwrap()).unwrap();
    let operator = Caller::local_operator(token.id());
    let new = |name| NewNamed {
        name,
        display_name: "",
        request_id: "",
    };
    broker.create_org(&operator, new(ORG)).await.unwrap();
    broker.create_project(&operator, ORG, new("web")).await.unwrap();
    let made = broker.create_environment(&operator, ORG, "web", new("ci"), Posture::None);
    made.await.unwrap();
    let (mut agents, mut credentials) = (Vec::new(), Vec::new());
    for (member, name) in MEMBERS.into_iter().enumerate() {
        broker
            .create_member(&operator, ORG, new(name), &[])
            .await
            .unwrap();
        let grant = import(name, &refresh_text(member));
        let credential = broker.import_grant(&operator, grant).await.unwrap();
        credentials.push((credential.org, credential.id));
        for _ in 0..AGENTS[member] {
            agents.push(agent(&broker, &operator, member).await);
        }
    }
    // What finishes behind the answers.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let disk = world.disk.lock().unwrap().clone();
    let records = world.with(|state| state.pages.last().0);
    Template {
        disk,
        records,
        sealer,
        operator,
        agents,
        credentials,
        shared,
    }
}

/// A grant of a member to take over.
pub fn import<'a>(member: &'a str, refresh: &str) -> ImportGrant<'a> {
    ImportGrant {
        org: ORG,
        owner: OwnerRef::Member(member),
        connector: "demo",
        refresh: Secret::from(refresh.to_owned()),
        access: None,
        expires: None,
        scopes: Vec::new(),
        account: Vec::new(),
    }
}

async fn agent(broker: &Arc<Broker>, operator: &Caller, member: usize) -> Agent {
    let task = NewTask {
        org: ORG,
        member: MEMBERS[member],
        member_identity: "",
        project: "web",
        executor: "demo-agent",
        provider: "",
        profile: "",
        capacity: Capacity::Cloud,
        pool: "",
        spec_hash: "",
        ttl: Some(30 * DAYS),
        agents: &[],
        request_id: "",
    };
    let task = broker
        .create_task(operator, task)
        .await
        .unwrap()
        .task
        .id
        .to_string();
    let tokens = NewEnrollmentTokens {
        org: ORG,
        project: "web",
        environment: "ci",
        count: 1,
        max_agents: 1,
        ttl: Some(DAYS),
        task: &task,
        labels: &[],
        allowed_networks: &[],
    };
    let minted = broker.create_enrollment_tokens(operator, tokens).await.unwrap();
    let token = minted[0].token.expose_str(Exposure::Inspect).unwrap();
    let csr = crate::support::NewKey::generate().csr();
    let enrolled = broker.enroll(token, &csr, &[], None).await.unwrap();
    let certificate = &enrolled.certificate.chain_der[0];
    let identity = PeerIdentity::from_verified(certificate, broker.authority().trust_domain()).unwrap();
    let key = enrolled
        .runtime_key
        .expose_str(Exposure::Inspect)
        .unwrap()
        .to_owned();
    let agent = Agent::new(member, task, key, identity);
    // Its first use, which is recorded.
    broker.authenticate(agent.presented(), accepts()).await.unwrap();
    agent
}

fn settings(forced: Forced) -> Settings {
    Settings {
        enrollment_window: Duration::from_secs(600),
        certificate_lifetime: 30 * DAYS,
        lease_lifetime: 10 * DAYS,
        personal_parallelism: 3,
        minimum_remaining: MINIMUM_REMAINING,
        exchange_timeout: EXCHANGE_TIMEOUT,
        max_exchanges: 8,
        max_exchanges_per_connector: 4,
        rejections_in_a_row: 1000,
        refresh_ahead: None,
        max_waiters: 100,
        forced_rotations_per_credential: forced.per_credential,
        forced_rotations_per_agent: forced.per_agent,
        reserved_bytes: 0,
        renewal_grace: DAYS,
        heartbeat_interval: Duration::from_secs(300),
        unseen_expiry: 30 * DAYS,
        collect_after: 7 * DAYS,
        watch_heartbeat: Duration::from_secs(15),
        metered_allow_all: true,
        shared_per_day: 200,
        proxy: ProxySettings {
            base_url: String::new(),
            base_urls: Default::default(),
            grant_lifetime: Duration::from_secs(900),
            raw_to_control_plane: true,
            raw_to_agents: false,
        },
    }
}

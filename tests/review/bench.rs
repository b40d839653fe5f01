//! A broker over parts that a test can make fail: a store that refuses, a token endpoint that does as told.

#![allow(dead_code, unreachable_pub)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use credbroker::clock::{Clock, ManualClock};
use credbroker::config::registry::{Extra, load as load_registry};
use credbroker::domain::actor::{Actor, Caller, Shown};
use credbroker::domain::credential::Credential;
use credbroker::domain::grant_token::GrantKey;
use credbroker::domain::id::{CredentialId, Id, OrgId};
use credbroker::domain::journal::{Position, Record};
use credbroker::domain::refusal::Refusal;
use credbroker::domain::role::Reach;
use credbroker::domain::rotation::{Fence, Phase, Sent};
use credbroker::domain::secret::{Exposure, KeyMaterial, Secret};
use credbroker::domain::time::Time;
use credbroker::domain::token::{OperatorFamily, Token};
use credbroker::journal::{Journal, Options as JournalOptions, SigningKey, StoredRecord};
use credbroker::pki::authority::Authority;
use credbroker::service::{
    Broker, FilterInput, ImportGrant, KeyInput, NewApiKey, NewNamed, OwnerRef, Parts, ProxySettings,
    ResolveInput, Resolved, SetKey, Settings, system_jitter,
};
use credbroker::store::keys;
use credbroker::store::model::{Mark, StagedAnswer};
use credbroker::store::record::{Changes, Records};
use credbroker::store::reserve::Reserve;
use credbroker::store::seal::{LocalMasterKey, Sealer};
use credbroker::store::sled::{Options as StoreOptions, SledStore};
use credbroker::upstream::connector::load::Connectors;
use credbroker::upstream::http::{HttpOptions, HttpTokenEndpoint};
use credbroker::upstream::oidc::Issuers;
use credbroker::upstream::{Delivery, RefreshRequest, TokenEndpoint};
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::store::{Crowded, hold_at};
use crate::support::broker::{REGISTRY, connector};

pub const ORG: &str = "acme";
pub const START: Time = Time::from_seconds(1_800_000_000);
const OPERATOR: [u8; 16] = [9; 16];

/// An executor that can use two providers.
const TWO_PROVIDERS: &str = r#"
[providers.other]
title = "Other"
kinds = ["api-key"]

[executors.both]
native_provider = "demo"
providers = { demo = ["byok"], other = ["byok"] }

[executors.shared-agent]
native_provider = "demo"
providers = { demo = ["shared"] }
"#;

/// What the token endpoint does with a call; it is given the number of the call, from 1.
pub type Script = Box<dyn Fn(usize) -> Delivery + Send + Sync>;

pub struct Endpoint {
    script: Script,
    calls: AtomicUsize,
}

#[async_trait]
impl TokenEndpoint for Endpoint {
    async fn refresh(&self, _: RefreshRequest<'_>) -> Delivery {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        (self.script)(call)
    }
}

/// An answer that grants new tokens.
pub fn granted(call: usize) -> Delivery {
    answered(
        200,
        &format!(r#"{{"access_token":"fake-at-{call}","refresh_token":"fake-rt-{call}","expires_in":600}}"#),
    )
}

pub fn answered(status: u16, body: &str) -> Delivery {
    Delivery::Answered {
        status,
        retry_after: None,
        body: Secret::from(body.to_owned()),
    }
}

pub struct Bench {
    pub broker: Arc<Broker>,
    pub store: Arc<Crowded>,
    pub records: Arc<Records>,
    pub clock: Arc<ManualClock>,
    endpoint: Arc<Endpoint>,
    /// Who resolves: an API key of the org.
    pub resolver: Caller,
    log: Journal,
    _dir: TempDir,
}

impl Bench {
    /// Writes a record as if something had happened.
    pub async fn append(&self, record: &Record) {
        self.log.append(record).await.unwrap();
    }

    /// An org with a project and a member.
    pub async fn start(script: impl Fn(usize) -> Delivery + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let kv = SledStore::open(&dir.path().join("store"), StoreOptions::new("example.test")).unwrap();
        let master = LocalMasterKey::new(&Secret::<KeyMaterial>::new(vec![1; 32])).unwrap();
        let sealer = Arc::new(Sealer::open(kv.clone(), Arc::new(master)).unwrap());
        let store = Arc::new(Crowded {
            kv,
            refuse: Mutex::new((Vec::new(), 0)),
            hold: Mutex::new(None),
            hold_scan: Mutex::new(None),
            lose: Mutex::new(None),
            unreadable: AtomicBool::new(false),
        });
        let records = Records::new(store.clone(), sealer, 1000);
        let clock = Arc::new(ManualClock::at(START));
        let reserve = Reserve::new(dir.path().to_owned(), clock.clone());
        let records = Arc::new(records.within(reserve));
        let key = SigningKey::new(&SigningKey::generate().unwrap()).unwrap();
        let options = JournalOptions::default();
        let (journal, _) = Journal::open(&dir.path().join("journal"), key, clock.clone(), options).unwrap();
        let trust_domain = "example.test".parse().unwrap();
        let (authority, _) = Authority::create(&trust_domain, clock.wall()).unwrap();
        let registry = load_registry(&[Extra {
            file: "test",
            text: &format!("{REGISTRY}{TWO_PROVIDERS}"),
        }]);
        let connectors = Connectors::shipped()
            .unwrap()
            .with_file("test", &connector("http://127.0.0.1:1/token", "tests", ""), &[])
            .unwrap();
        let endpoint = Arc::new(Endpoint {
            script: Box::new(script),
            calls: AtomicUsize::new(0),
        });
        let broker = Broker::new(Parts {
            records: Arc::clone(&records),
            journal: journal.clone(),
            clock: clock.clone(),
            authority: authority.into(),
            registry: registry.unwrap().into(),
            connectors,
            issuers: Issuers::new(Vec::new(), clock.clone()).unwrap().into(),
            prober: credbroker::upstream::probe::Prober::new(&[], clock.clone())
                .unwrap()
                .into(),
            tester: credbroker::upstream::key_test::KeyTester::new(clock.clone())
                .unwrap()
                .into(),
            endpoint: endpoint.clone(),
            oauth: HttpTokenEndpoint::new(&HttpOptions::default(), clock.clone())
                .unwrap()
                .into(),
            settings: settings(),
            grant_key: GrantKey::new(&Secret::new(vec![7; 32])),
            jitter: system_jitter(),
        })
        .unwrap();
        make_org(&broker).await;
        let resolver = resolver(&broker).await;
        Self {
            broker,
            store,
            records,
            clock,
            endpoint,
            resolver,
            log: journal,
            _dir: dir,
        }
    }

    /// Refuses the next commits that put a key with `part` in it.
    pub fn refuse(&self, part: &str, times: usize) {
        *self.store.refuse.lock().unwrap() = (part.as_bytes().to_vec(), times);
    }

    /// Holds the next commit that puts a key with `part` in it: the first end tells when it is there, the
    /// second lets it go on.
    pub fn hold(&self, part: &str) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        hold_at(&self.store.hold, part)
    }

    /// Holds the next scan of a prefix with `part` in it, as [`Bench::hold`] holds a commit.
    pub fn hold_scan(&self, part: &str) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        hold_at(&self.store.hold_scan, part)
    }

    /// Makes the next commit that puts a key with `part` in it, loses its answer, and fails all reads from then on.
    pub fn lose(&self, part: &str) {
        *self.store.lose.lock().unwrap() = Some(part.as_bytes().to_vec());
    }

    /// Lets reads succeed again.
    pub fn mend(&self) {
        self.store.unreadable.store(false, Ordering::SeqCst);
    }

    pub fn refusals_left(&self) -> usize {
        self.store.refuse.lock().unwrap().1
    }

    /// Keeps so much of the disk back from now on.
    pub fn reserve(&self, reserved_bytes: u64) {
        self.broker.reload(Settings {
            reserved_bytes,
            ..settings()
        });
    }

    pub fn calls(&self) -> usize {
        self.endpoint.calls.load(Ordering::SeqCst)
    }

    /// A grant of `alex` that has to be refreshed before it is of use.
    pub async fn import(&self) -> (OrgId, CredentialId) {
        self.import_for("alex").await
    }

    pub async fn import_for(&self, member: &str) -> (OrgId, CredentialId) {
        self.import_scoped(member, Vec::new()).await.unwrap()
    }

    pub async fn import_scoped(
        &self,
        member: &str,
        scopes: Vec<String>,
    ) -> Result<(OrgId, CredentialId), Refusal> {
        // Each is a sign-in of its own: one grant is kept once.
        static SIGN_INS: AtomicUsize = AtomicUsize::new(0);
        let sign_in = SIGN_INS.fetch_add(1, Ordering::Relaxed);
        let import = ImportGrant {
            org: ORG,
            owner: OwnerRef::Member(member),
            connector: "demo",
            refresh: Secret::from(format!("fake-rt-0-{sign_in}")),
            access: None,
            expires: None,
            scopes,
            account: Vec::new(),
        };
        let credential = self.broker.import_grant(&operator(), import).await?;
        Ok((credential.org, credential.id))
    }

    pub async fn set_key(&self, owner: OwnerRef<'_>, provider: &str, key: &str) {
        let set = SetKey {
            org: ORG,
            owner,
            provider,
            executor: "",
            key: KeyInput::ApiKey(Secret::from(key.to_owned())),
            expires: None,
            force: true,
        };
        self.broker.set_key(&operator(), set).await.unwrap();
    }

    pub async fn resolve(&self) -> Result<Resolved, Refusal> {
        self.resolve_for("alex").await
    }

    pub async fn resolve_for(&self, member: &str) -> Result<Resolved, Refusal> {
        self.resolve_with("demo-agent", member).await
    }

    pub async fn resolve_with(&self, executor: &str, member: &str) -> Result<Resolved, Refusal> {
        let input = ResolveInput {
            org: ORG,
            member,
            project: "web",
            executor,
            ..ResolveInput::default()
        };
        self.broker.resolve(&self.resolver, input).await
    }

    pub async fn credential(&self, (org, id): (OrgId, CredentialId)) -> Arc<Credential> {
        let key = keys::credential(org, id);
        self.records.get::<Credential>(&key).await.unwrap().unwrap().value
    }

    /// Leaves a credential as a crash does between staging and adopting: with an answer that grants.
    pub async fn stage(&self, at: (OrgId, CredentialId), connector: &str) {
        let (org, id) = at;
        let mut credential = Credential::clone(&*self.credential(at).await);
        credential.connector = connector.to_owned();
        credential.rotation.fence = Fence(1);
        credential.rotation.phase = Phase::Staged {
            sent: Sent {
                first: START,
                unanswered: 0,
            },
        };
        let Delivery::Answered { status, body, .. } = granted(1) else {
            unreachable!()
        };
        let answer = StagedAnswer {
            fence: 1,
            status,
            retry_after_ms: None,
            body,
            received: START,
        };
        let changes = Changes::new()
            .put(&keys::credential(org, id), &credential)
            .put(&keys::credential_answer(org, id), &answer)
            .put(&keys::exchange(org, id), &Mark { since: START });
        let _applied = self.records.commit(changes).await.unwrap();
    }

    /// The journal from its first record to its last.
    pub async fn journal(&self) -> Vec<StoredRecord> {
        let page = self
            .broker
            .read_journal(&operator(), FilterInput::default(), Position(0), 1000)
            .await;
        page.unwrap().records
    }

    /// Begins that have no finish.
    pub async fn open(&self) -> Vec<StoredRecord> {
        use credbroker::domain::journal::Phase as Part;
        let all = self.journal().await;
        let finished: Vec<Position> = all
            .iter()
            .filter_map(|record| match record.entry.phase {
                Part::Finish(begin) => Some(begin),
                _ => None,
            })
            .collect();
        let mut open = all;
        open.retain(|record| record.entry.phase == Part::Begin && !finished.contains(&record.position));
        open
    }
}

pub fn operator() -> Caller {
    Caller::local_operator(Id::from_bytes(OPERATOR))
}

async fn make_org(broker: &Arc<Broker>) {
    let new = |name| NewNamed {
        name,
        display_name: "",
        request_id: "",
    };
    broker.create_org(&operator(), new(ORG)).await.unwrap();
    broker.create_project(&operator(), ORG, new("web")).await.unwrap();
    for member in ["alex", "bo"] {
        let made = broker.create_member(&operator(), ORG, new(member), &[]).await;
        made.unwrap();
    }
}

/// An operator who is known and live, as makers of keys have to be.
pub async fn live_operator(broker: &Arc<Broker>, name: &str) -> Caller {
    let token = broker.create_operator(name).await.unwrap();
    let token = Token::<OperatorFamily>::parse(token.expose_str(Exposure::Inspect).unwrap()).unwrap();
    Caller::local_operator(token.id())
}

async fn resolver(broker: &Arc<Broker>) -> Caller {
    let maker = live_operator(broker, "review").await;
    let minted = broker.create_api_key(&maker, ORG, NewApiKey::default()).await;
    let key = minted.unwrap().key.key;
    let actor = Actor::ApiKey {
        id: key.id,
        org: key.org,
    };
    Caller::new(actor, Shown::ApiKey(key.id), None, Reach::org(key.org))
}

fn settings() -> Settings {
    Settings {
        enrollment_window: Duration::from_secs(600),
        certificate_lifetime: Duration::from_secs(3_600),
        lease_lifetime: Duration::from_secs(3_600),
        personal_parallelism: 3,
        minimum_remaining: Duration::from_secs(60),
        exchange_timeout: Duration::from_secs(10),
        max_exchanges: 1,
        max_exchanges_per_connector: 1,
        max_waiters: 100,
        forced_rotations_per_credential: 6,
        forced_rotations_per_agent: 12,
        rejections_in_a_row: 3,
        refresh_ahead: None,
        reserved_bytes: 0,
        renewal_grace: Duration::from_secs(86_400),
        heartbeat_interval: Duration::from_secs(300),
        unseen_expiry: Duration::from_secs(30 * 86_400),
        collect_after: Duration::from_secs(7 * 86_400),
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

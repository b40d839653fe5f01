//! `kill -9` of the real daemon between the provider's answer and its staging, and right after the staging. What
//! was staged is adopted at the start; what was not is ambiguous, and never simply tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use credbroker::proto;
use credbroker::proto::CredentialHealth;
use futures_util::future::join_all;
use tonic::Status;

use crate::faulty_proxy::{Counts, Fault, FaultyProxy};
use crate::scene::{ANSWER_LOST, REFUSED, exchanges, told_to_come_again, told_to_sign_in_again};
use crate::support::broker::{ORG, connector};
use crate::support::client::{Enrolled, retry_after, secret};
use crate::support::oidc::{Grant, OidcServer, PUBLIC_CLIENT};
use crate::support::process::{Daemon, Installation};
use crate::support::{Caller, reason};

const LIFE: Duration = Duration::from_secs(600);

/// A member with a grant that was not used yet, and an agent.
struct Member {
    name: String,
    credential: String,
    task: String,
    enrolled: Enrolled,
    grant: Grant,
    /// The generation that the grant was imported as.
    imported: u64,
}

/// How a grant's exchange was found at the start after a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// Its answer was staged.
    Staged,
    /// It was claimed, and no answer staged.
    Claimed,
    /// It had ended.
    Ended,
}

struct Scene {
    server: OidcServer,
    proxy: FaultyProxy,
    made: Installation,
    daemon: Daemon,
    members: Vec<Member>,
}

impl Scene {
    async fn new(members: usize, connector_keys: &str) -> Self {
        let server = OidcServer::start().await;
        let proxy = FaultyProxy::start(server.port()).await;
        let connectors = connector(&proxy.token_url(), PUBLIC_CLIENT, connector_keys);
        let made = Installation::make("", &connectors).await;
        let daemon = made.start().await;
        let operator = daemon.operator().await;
        operator.make_org(ORG).await;
        let members = (0..members).map(async |number| {
            let name = format!("member-{number}");
            operator.make_member(ORG, &name).await;
            let grant = server.mint_as(&name, LIFE).await;
            let imported = operator.import_grant(ORG, &name, &grant.refresh_token).await;
            let task = operator.make_task(ORG, &name).await;
            let enrolled = daemon.enroll(&operator, &task).await;
            Member {
                name,
                credential: imported.id,
                task,
                enrolled,
                grant,
                imported: imported.generation,
            }
        });
        let members = join_all(members).await;
        Self {
            server,
            proxy,
            made,
            daemon,
            members,
        }
    }

    /// All agents resolve; the daemon is killed when the provider has answered all and the answers, let go one
    /// after the other so far `apart`, are under way for `wait`. Without `wait` none is let go. Starts it again.
    async fn kill_amid_answers(&mut self, apart: Duration, wait: Option<Duration>) {
        self.proxy.hold_again();
        for _ in &self.members {
            self.proxy.next(Fault::Hold);
        }
        let asked = self
            .members
            .iter()
            .map(async |member| self.daemon.agent(&member.enrolled).await);
        let agents = join_all(asked).await;
        let asked = agents.into_iter().zip(&self.members).map(|(agent, member)| {
            let task = member.task.clone();
            tokio::spawn(async move { agent.resolve(&task).await.map(drop) })
        });
        let asked: Vec<_> = asked.collect();
        self.proxy.holds(u32::try_from(self.members.len()).unwrap()).await;
        if let Some(wait) = wait {
            self.proxy.release(apart);
            tokio::time::sleep(wait).await;
        }
        self.daemon.kill().await;
        self.proxy.release(Duration::ZERO);
        join_all(asked).await;
        self.daemon = self.made.start().await;
    }

    async fn resolve(&self, member: &Member) -> Result<proto::Lease, Status> {
        let agent = self.daemon.agent(&member.enrolled).await;
        let lease = agent.resolve(&member.task).await?.lease.unwrap();
        let account = self.server.account_of(secret(&lease)).await;
        assert_eq!(account.as_ref(), Some(&member.name), "a wrong token");
        Ok(lease)
    }

    /// How the last start found the exchange of each credential, by the journal.
    async fn found(&self, operator: &Caller) -> BTreeMap<String, Found> {
        let records = operator.records().await;
        let killed = records
            .iter()
            .rposition(|record| record.action == "credential.refresh" && record.phase == "begin");
        let records = records.into_iter().skip(killed.unwrap());
        let recovered = records.filter(|record| {
            record.action == "credential.refresh_recover" && record.subject.contains_key("found")
        });
        let told = recovered.map(|record| {
            let found = match record.subject["found"].as_str() {
                "staged answer" => Found::Staged,
                "claim without an answer" => Found::Claimed,
                other => panic!("{other}"),
            };
            (record.subject["credential"].clone(), found)
        });
        let mut found: BTreeMap<_, _> = self
            .members
            .iter()
            .map(|member| (member.credential.clone(), Found::Ended))
            .collect();
        found.extend(told);
        found
    }

    async fn shown(&self, operator: &Caller, member: &Member) -> (CredentialHealth, String) {
        let shown = operator.health_of(ORG, &member.credential).await;
        (shown.health(), shown.last_error)
    }
}

/// Comes again when it is told to.
async fn rest(refused: &Status) {
    told_to_come_again(refused, "REFRESH_AMBIGUOUS");
    let wait = retry_after(refused).unwrap();
    assert!(wait <= Duration::from_secs(5), "{wait:?}");
    tokio::time::sleep(wait + Duration::from_millis(50)).await;
}

// req: N1 N8 B5
#[tokio::test(flavor = "multi_thread")]
async fn killed_between_answer_and_staging_the_grant_is_ambiguous_and_then_proven_dead() {
    let mut scene = Scene::new(2, "").await;
    scene.kill_amid_answers(Duration::ZERO, None).await;
    let operator = scene.daemon.operator().await;
    let found = scene.found(&operator).await;
    assert!(found.values().all(|found| *found == Found::Claimed), "{found:?}");
    for member in &scene.members {
        is_proven_dead_and_heals(&scene, &operator, member).await;
    }
}

/// The answer was lost with the broker that waited for it: one resend proves it, and a new sign-in heals.
async fn is_proven_dead_and_heals(scene: &Scene, operator: &Caller, member: &Member) {
    let (health, said) = scene.shown(operator, member).await;
    assert_eq!(health, CredentialHealth::Ambiguous);
    assert!(said.contains("the broker stopped"), "{said}");
    while let Err(refused) = scene.resolve(member).await {
        if reason(&refused) == "REAUTH_REQUIRED" {
            told_to_sign_in_again(&refused, ANSWER_LOST);
            break;
        }
        rest(&refused).await;
    }
    let stats = scene.server.stats(&member.grant).await;
    assert_eq!(
        (stats.alive, stats.calls, stats.successes, stats.replays),
        (false, 2, 1, 1)
    );
    let (health, said) = scene.shown(operator, member).await;
    assert_eq!(health, CredentialHealth::GrantLost);
    assert!(said.contains(REFUSED), "{said}");
    let ended = exchanges(operator, &member.credential).await;
    assert_eq!(
        ended.last_chunk().unwrap(),
        &["REFRESH_AMBIGUOUS", "REAUTH_REQUIRED"]
    );

    let grant = scene.server.mint_as(&member.name, LIFE).await;
    let again = operator
        .import_grant(ORG, &member.name, &grant.refresh_token)
        .await;
    assert_eq!(again.id, member.credential);
    let lease = scene.resolve(member).await.unwrap();
    assert_eq!(lease.generation, again.generation + 1);
}

// req: N1 B5
#[tokio::test(flavor = "multi_thread")]
async fn killed_between_answer_and_staging_a_grace_window_saves_the_grant() {
    let mut scene = Scene::new(2, "grace_seconds = 300").await;
    scene.proxy.begin_grace();
    scene.kill_amid_answers(Duration::ZERO, None).await;
    let operator = scene.daemon.operator().await;
    // Though nobody asks: the window may be over before anybody does.
    let served = async {
        while scene.proxy.counts().repeated < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), served)
        .await
        .unwrap();
    for member in &scene.members {
        let lease = scene.resolve(member).await.unwrap();
        assert_eq!(lease.generation, 2);
        let stats = scene.server.stats(&member.grant).await;
        assert_eq!((stats.alive, stats.calls, stats.replays), (true, 1, 0));
        let ended = exchanges(&operator, &member.credential).await;
        assert_eq!(ended, ["REFRESH_AMBIGUOUS", ""]);
    }
    let expected = Counts {
        connections: 4,
        requests: 4,
        forwarded: 2,
        repeated: 2,
        ..Counts::default()
    };
    assert_eq!(scene.proxy.counts(), expected);
}

/// The answers of many grants come one shortly after the other, so that the kill finds some at every stage. None
/// whose answer had been staged is lost, or asked for again.
// req: N1 B5 K5
#[tokio::test(flavor = "multi_thread")]
async fn killed_right_after_staging_the_answer_is_adopted_at_the_start() {
    const MEMBERS: usize = 12;
    const KILLS: u32 = 24;
    let mut scene = Scene::new(MEMBERS, "").await;
    let mut seen: BTreeMap<Found, usize> = BTreeMap::new();
    for kill in 0..KILLS {
        // Later and later; and after each eight once more on a machine that is taken to be slower.
        let slower = 1 + kill / 8;
        let wait = Duration::from_millis(4) + Duration::from_millis(3) * (kill % 8);
        let apart = Duration::from_micros(1_500);
        scene.kill_amid_answers(apart * slower, Some(wait * slower)).await;
        let operator = scene.daemon.operator().await;
        let found = scene.found(&operator).await;
        for member in &scene.members {
            let found = found[&member.credential];
            *seen.entry(found).or_default() += 1;
            let stats = scene.server.stats(&member.grant).await;
            assert_eq!((stats.alive, stats.calls), (true, 1), "{found:?}");
            let shown = operator.health_of(ORG, &member.credential).await;
            if found == Found::Claimed {
                assert_eq!(shown.health(), CredentialHealth::Ambiguous);
                assert_eq!(shown.generation, member.imported);
                continue;
            }
            assert_eq!(shown.health(), CredentialHealth::Ok, "{found:?}");
            let lease = scene.resolve(member).await.unwrap();
            assert_eq!(lease.generation, member.imported + 1, "{found:?}");
            let stats = scene.server.stats(&member.grant).await;
            assert_eq!((stats.alive, stats.calls), (true, 1), "{found:?}");
        }
        if seen.contains_key(&Found::Staged) {
            println!("{} kills: {seen:?}", kill + 1);
            return;
        }
        // All sign in again, so that the next round finds them as the first did.
        for member in &mut scene.members {
            let grant = scene.server.mint_as(&member.name, LIFE).await;
            let again = operator
                .import_grant(ORG, &member.name, &grant.refresh_token)
                .await;
            assert_eq!(again.id, member.credential);
            (member.grant, member.imported) = (grant, again.generation);
        }
    }
    panic!("no kill came between staging and adoption: {seen:?}");
}

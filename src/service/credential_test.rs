//! Testing a credential with the small authenticated request that its provider documents.
//!
//! Promises: one test at a time a credential, and what it found is the answer for [`REMEMBERED`]; at most
//! [`PER_ORG`] tests an org in [`WINDOW`]; a secret leaves only after the begin record is durable, and only to where the
//! registry or the connector say. A test rotates a grant only where the provider has rejected its access token, once, and
//! within the limits of forced rotations.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, Semaphore};

use super::Broker;
use super::effect::{append_finish, detached};
use super::refresh::{Fresh, Need};
use super::scope::parse_id;
use crate::domain::actor::{Actor, Caller};
use crate::domain::credential::Credential;
use crate::domain::id::{CredentialId, Id, OrgId};
use crate::domain::journal::{Action, Outcome, Phase, Position, Record};
use crate::domain::key_test::{Checked, KeyTest, Verdict};
use crate::domain::lease::Holder;
use crate::domain::mode::CredentialKind;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::rejection::Forced;
use crate::domain::secret::Secret;
use crate::store::model::{CredentialSecret, Mark};
use crate::store::record::{Changes, Stored};
use crate::store::{Commit, keys};
use crate::upstream::key_test::{Presented, Told};

/// How long what was found is the answer to those who ask again.
const REMEMBERED: Duration = Duration::from_secs(5);
/// How many tests an org may have in [`WINDOW`].
const PER_ORG: u32 = 120;
/// How long tests of an org count together.
const WINDOW: Duration = Duration::from_secs(60);
/// How many tests run at once.
const AT_ONCE: usize = 32;
/// How often what was found is written again when the credential is changed at the same moment.
const ATTEMPTS: usize = 8;

/// What came of a test.
#[derive(Clone, Debug)]
pub struct Tested {
    /// What was found, of the generation that was tested last.
    pub checked: Checked,
    /// How long the provider wants to be left alone.
    pub retry_after: Option<Duration>,
    /// The host that was asked; empty where nothing was sent.
    pub host: String,
    /// How long the answer took.
    pub took: Duration,
    /// Whether an exchange was waited for.
    pub refreshed: bool,
    /// The token that was rejected before, and what became of the grant.
    pub rejected: Option<RejectedToken>,
    /// Whether it was found a moment before.
    pub remembered: bool,
}

/// An access token that should have been good, and that the provider rejected.
#[derive(Clone, Debug)]
pub struct RejectedToken {
    /// Its generation.
    pub generation: u64,
    /// The HTTP status.
    pub status: u16,
    /// The provider's message, redacted.
    pub message: String,
    /// Why there is no newer one; `None`: there is, and it was tested.
    pub refused: Option<Refusal>,
}

/// Tests under way and of a moment ago.
pub(super) struct Tests {
    slots: Mutex<HashMap<CredentialId, Slot>>,
    orgs: Mutex<HashMap<OrgId, (Duration, u32)>>,
    places: Semaphore,
}

/// What was found last and when, on the clock that only goes forward. Locked while a test runs.
type Slot = Arc<tokio::sync::Mutex<Option<(Duration, Tested)>>>;
type Held = OwnedMutexGuard<Option<(Duration, Tested)>>;

impl Default for Tests {
    fn default() -> Self {
        Self {
            slots: Mutex::default(),
            orgs: Mutex::default(),
            places: Semaphore::new(AT_ONCE),
        }
    }
}

fn is_recent(since: Duration, now: Duration, span: Duration) -> bool {
    now.saturating_sub(since) < span
}

impl Tests {
    /// Also forgets what is over, so that only those tested in the last [`REMEMBERED`] take room.
    fn slot(&self, id: CredentialId, now: Duration) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| {
            let Ok(last) = slot.try_lock() else { return true };
            let recent = last
                .as_ref()
                .is_some_and(|(since, _)| is_recent(*since, now, REMEMBERED));
            recent || Arc::strong_count(slot) > 1
        });
        Arc::clone(slots.entry(id).or_default())
    }

    /// Counts one more test of an org, or says how long to wait.
    fn count(&self, org: OrgId, now: Duration) -> Result<(), Refusal> {
        let mut orgs = self.orgs.lock().unwrap_or_else(PoisonError::into_inner);
        orgs.retain(|_, (since, _)| is_recent(*since, now, WINDOW));
        let (since, count) = orgs.entry(org).or_insert((now, 0));
        if *count >= PER_ORG {
            let message = format!("the org has had its {PER_ORG} tests of credentials of the minute");
            let wait = (*since + WINDOW).saturating_sub(now);
            return Err(Refusal::new(Reason::Overloaded, message).retry_after(wait));
        }
        *count += 1;
        Ok(())
    }
}

/// Why a test could not be finished.
enum Unfinished {
    /// Nothing tests it.
    Untestable(String),
    Refused(Refusal),
}

impl From<Refusal> for Unfinished {
    fn from(refusal: Refusal) -> Self {
        Unfinished::Refused(refusal)
    }
}

/// What was sent and what came of it, before it is written down.
struct Run {
    fresh: Fresh,
    told: Told,
    begin: Position,
    record: Record,
    refreshed: bool,
    rejected: Option<RejectedToken>,
}

impl Broker {
    /// Tests a credential, or tells what a test a moment ago found.
    pub async fn test_credential(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        id: &str,
    ) -> Result<Tested, Refusal> {
        let place = self.place(caller, org).await?;
        let (org, id) = (place.id(), parse_id("credential", id)?);
        let credential = self.credential(org, id).await?.value;
        place.admit("credential", None, credential.owner.member())?;
        let record = caller
            .record(Action::CredentialTest, Some(org))
            .about("credential", id)
            .about("provider", &credential.provider)
            .about("kind", credential.kind.name());
        match self.test_admitted(caller, &credential, record.clone()).await {
            Ok(tested) => Ok(tested),
            Err(refusal) => Err(self.denied(record, refusal).await),
        }
    }

    async fn test_admitted(
        self: &Arc<Self>,
        caller: &Caller,
        credential: &Credential,
        record: Record,
    ) -> Result<Tested, Refusal> {
        self.room_for(Action::CredentialTest)?;
        self.may_test(credential)?;
        let slot = self.tests.slot(credential.id, self.clock.monotonic());
        let held = slot.lock_owned().await;
        if let Some((since, last)) = &*held {
            // A newer secret has not been tested.
            let same = self.credential(credential.org, credential.id).await?;
            let same = same.value.rotation.generation == last.checked.generation;
            if same && is_recent(*since, self.clock.monotonic(), REMEMBERED) {
                return Ok(Tested {
                    remembered: true,
                    ..last.clone()
                });
            }
        }
        self.tests.count(credential.org, self.clock.monotonic())?;
        // What somebody forces is counted by who they are, whatever they showed: members hold no leases, and are counted
        // as the operators that they are here.
        let by = match caller.actor() {
            Actor::ApiKey { id, .. } => Holder::ApiKey(*id),
            actor => Holder::Operator(Id::from_bytes(actor.id_bytes())),
        };
        let (broker, org, id) = (Arc::clone(self), credential.org, credential.id);
        detached(async move { broker.run_test(org, id, by, record, held).await }).await
    }

    /// Refuses what is locked, and what may not be used.
    fn may_test(&self, credential: &Credential) -> Result<(), Refusal> {
        let mut subjects = vec![*credential.id.as_bytes(), *credential.org.as_bytes()];
        subjects.extend(credential.owner.member().map(|member| *member.as_bytes()));
        self.unlocked(&subjects)?;
        if credential.kind == CredentialKind::OAuthGrant {
            self.connector(&credential.connector)?;
        }
        Ok(())
    }

    async fn run_test(
        self: Arc<Self>,
        org: OrgId,
        id: CredentialId,
        by: Holder,
        record: Record,
        mut held: Held,
    ) -> Result<Tested, Refusal> {
        let _place = self
            .tests
            .places
            .acquire()
            .await
            .map_err(|_| Refusal::new(Reason::ShuttingDown, "the broker is stopping"))?;
        let tested = match self.try_test(org, id, by, record).await {
            Ok(run) => self.found(run).await?,
            Err(Unfinished::Refused(refusal)) => return Err(refusal),
            Err(Unfinished::Untestable(why)) => return self.untestable(org, id, why).await,
        };
        *held = Some((self.clock.monotonic(), tested.clone()));
        Ok(tested)
    }

    async fn untestable(&self, org: OrgId, id: CredentialId, message: String) -> Result<Tested, Refusal> {
        let credential = self.credential(org, id).await?.value;
        Ok(Tested {
            checked: Checked {
                at: self.now(),
                generation: credential.rotation.generation,
                outcome: Verdict::Untestable,
                status: 0,
                message,
                facts: Vec::new(),
            },
            retry_after: None,
            host: String::new(),
            took: Duration::ZERO,
            refreshed: false,
            rejected: None,
            remembered: false,
        })
    }

    async fn try_test(
        self: &Arc<Self>,
        org: OrgId,
        id: CredentialId,
        by: Holder,
        record: Record,
    ) -> Result<Run, Unfinished> {
        let stored = self.credential(org, id).await?.value;
        let test = self.test_of(&stored).await?;
        let any = Need {
            remaining: Duration::ZERO,
            newer_than: None,
        };
        let fresh = self.refresher.renewed(org, id, any).await?;
        self.may_test(&fresh.credential)?;
        let begun = record
            .clone()
            .about("generation", fresh.credential.rotation.generation)
            .phase(Phase::Begin);
        let begin = self.journal.append(&begun).await.map_err(Refusal::from)?;
        let mut run = Run {
            told: self.ask(&test, &fresh).await,
            refreshed: fresh.exchanged,
            fresh,
            begin,
            record,
            rejected: None,
        };
        let grant = run.fresh.credential.kind == CredentialKind::OAuthGrant;
        if grant && run.told.verdict == Verdict::Rejected {
            self.test_newer(&test, &mut run, by).await;
        }
        Ok(run)
    }

    /// Rotates a grant whose token was rejected, and tests what that brings.
    async fn test_newer(self: &Arc<Self>, test: &KeyTest, run: &mut Run, by: Holder) {
        let generation = run.fresh.credential.rotation.generation;
        let mut rejected = RejectedToken {
            generation,
            status: run.told.status,
            message: run.told.message.clone(),
            refused: None,
        };
        match self.rotated_for(&run.fresh.credential, by).await {
            Ok(newer) => {
                run.refreshed = true;
                run.told = self.ask(test, &newer).await;
                run.fresh = newer;
            }
            Err(refusal) => rejected.refused = Some(refusal),
        }
        run.rejected = Some(rejected);
    }

    async fn rotated_for(self: &Arc<Self>, credential: &Credential, by: Holder) -> Result<Fresh, Refusal> {
        let need = Need {
            remaining: Duration::ZERO,
            newer_than: Some(credential.rotation.generation),
        };
        self.refresher.count_forced(credential, by).await?;
        let newer = self
            .refresher
            .renewed(credential.org, credential.id, need)
            .await?;
        // It may have been locked meanwhile.
        self.may_test(&newer.credential)?;
        Ok(newer)
    }

    async fn ask(&self, test: &KeyTest, fresh: &Fresh) -> Told {
        let secret: &CredentialSecret = &fresh.secret;
        let region = fresh.credential.region.as_deref();
        let nothing = Secret::new(Vec::new());
        let presented = match (&secret.aws, &secret.access) {
            (Some(aws), _) => Presented::Aws {
                access_key_id: &aws.access_key_id,
                secret_access_key: &aws.secret_access_key,
                session_token: aws.session_token.as_ref(),
            },
            (None, Some(access)) => Presented::Text(access),
            (None, None) => Presented::Text(&nothing),
        };
        self.tester.send(test, &presented, region).await
    }

    /// What shows whether the credential works.
    async fn test_of(&self, credential: &Credential) -> Result<KeyTest, Unfinished> {
        let provider = self.registry.provider(&credential.provider);
        let listed = provider.and_then(|provider| provider.test(credential.kind));
        let nothing = |why: &str| {
            let (provider, kind) = (&credential.provider, credential.kind.name());
            Unfinished::Untestable(format!(
                "{provider} has no test for credentials of kind {kind}{why}"
            ))
        };
        if credential.kind != CredentialKind::OAuthGrant {
            return listed.cloned().ok_or_else(|| nothing(""));
        }
        let connector = self.connector(&credential.connector)?;
        // Limits are told alike wherever the provider is asked.
        let facts = listed.map(|test| test.facts.clone()).unwrap_or_default();
        if let Some(url) = &connector.test_url {
            return Ok(KeyTest {
                facts,
                ..KeyTest::bearer(url.to_string())
            });
        }
        if let Some(test) = listed {
            return Ok(test.clone());
        }
        // OpenID Connect Core section 5.3: the userinfo endpoint takes access tokens that were granted `openid`.
        let openid = credential.scopes.is_empty() || credential.scopes.iter().any(|scope| scope == "openid");
        let userinfo = match (openid, &connector.issuer) {
            (true, Some(_)) => {
                let ready = self.endpoint.ready(connector).await;
                match (self.endpoint.discovered(connector).metadata, ready) {
                    (None, Err(why)) => return Err(Unfinished::Untestable(why)),
                    // Where it cannot be asked again, what is known serves.
                    (metadata, _) => metadata.and_then(|metadata| metadata.userinfo.clone()),
                }
            }
            _ => None,
        };
        userinfo
            .map(|url| KeyTest::bearer(url.to_string()))
            .ok_or_else(|| nothing(": set test_url for its connector"))
    }

    /// Writes down what was found.
    async fn found(&self, run: Run) -> Result<Tested, Refusal> {
        let Run {
            fresh,
            told,
            begin,
            record,
            refreshed,
            rejected,
        } = run;
        let credential = &fresh.credential;
        let checked = Checked {
            at: self.now(),
            generation: credential.rotation.generation,
            outcome: told.verdict,
            status: told.status,
            message: told.message,
            facts: told.facts,
        };
        let kept = self.keep_checked(credential, &checked, begin).await;
        let outcome = match &kept {
            Ok(()) => Outcome::Allowed,
            Err(refusal) => Outcome::Failed(refusal.reason),
        };
        let mut record = record
            .about("generation", checked.generation)
            .about("host", &told.host)
            .about("found", checked.outcome.name())
            .phase(Phase::Finish(begin))
            .outcome(outcome);
        if checked.status != 0 {
            record = record.about("status", checked.status);
        }
        if let Some(rejected) = &rejected {
            record = record.about("rejected_generation", rejected.generation);
        }
        append_finish(&self.journal, &record).await?;
        self.finished_effects.push(begin);
        kept?;
        Ok(Tested {
            checked,
            retry_after: told.retry_after,
            host: told.host,
            took: told.took,
            refreshed,
            rejected,
            remembered: false,
        })
    }

    /// Keeps what was found with its credential, unless that is gone or has another secret by now.
    async fn keep_checked(
        &self,
        tested: &Credential,
        checked: &Checked,
        begin: Position,
    ) -> Result<(), Refusal> {
        let (org, id) = (tested.org, tested.id);
        for _ in 0..ATTEMPTS {
            let key = keys::credential(org, id);
            let Some(stored) = self.records.get::<Credential>(&key).await? else {
                return Ok(());
            };
            if stored.value.rotation.generation != checked.generation {
                return Ok(());
            }
            let mut changes = Changes::default()
                .at(&key, stored.revision)
                .put(&keys::checked(org, id), checked)
                .put(&keys::effect(begin), &Mark { since: checked.at });
            if checked.outcome == Verdict::Works {
                changes = self.without_failing(changes, tested).await?;
            }
            if let Commit::Applied(_) = self.records.commit(changes).await? {
                return Ok(());
            }
        }
        Err(Refusal::new(Reason::Conflict, "the credential keeps changing"))
    }

    /// Reports of callers that each token is rejected have been answered by the provider itself.
    async fn without_failing(&self, changes: Changes, tested: &Credential) -> Result<Changes, Refusal> {
        let key = keys::forced(tested.org, tested.id);
        let stored: Option<Stored<Forced>> = self.records.get(&key).await?;
        Ok(match stored.filter(|stored| !stored.value.failing.is_empty()) {
            None => changes,
            Some(stored) => {
                let forced = Forced {
                    failing: Vec::new(),
                    ..Forced::clone(&stored.value)
                };
                changes.at(&key, stored.revision).put(&key, &forced)
            }
        })
    }

    /// What the last test found of the credential's present secret; `None`: it was not tested.
    pub async fn last_check(&self, credential: &Credential) -> Result<Option<Arc<Checked>>, Refusal> {
        let key = keys::checked(credential.org, credential.id);
        let stored = self.records.get::<Checked>(&key).await?;
        let checked = stored.map(|stored| stored.value);
        Ok(checked.filter(|checked| checked.generation == credential.rotation.generation))
    }
}

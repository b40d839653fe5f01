//! Testing a credential with the small authenticated request that its provider documents.
//!
//! Promises: one test at a time a credential, within the limits of [`pace`]; a secret leaves only after the begin record is durable, and only to where the
//! registry or the connector say. A test rotates a grant only where the provider has rejected its access token, once, and
//! within the limits of forced rotations.

mod keep;
mod pace;

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::effect::detached;
use super::refresh::{Fresh, Need};
use super::scope::parse_id;
use crate::domain::actor::{Actor, Caller};
use crate::domain::credential::Credential;
use crate::domain::id::{CredentialId, Id, OrgId};
use crate::domain::journal::{Action, Phase, Position, Record};
use crate::domain::key_test::{Checked, KeyTest, Verdict};
use crate::domain::lease::Holder;
use crate::domain::mode::CredentialKind;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::secret::Secret;
use crate::store::model::CredentialSecret;
use crate::upstream::key_test::{Presented, Told};
pub(super) use pace::Tests;
use pace::{Held, is_recent, remembered_for};

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

/// Why a test could not be finished.
enum Unfinished {
    /// Nothing was sent: nothing tests it, or where to is not known for now.
    Unsent(Verdict, String),
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
            let now = self.clock.monotonic();
            if same && is_recent(*since, now, remembered_for(last)) {
                let passed = now.saturating_sub(*since);
                return Ok(Tested {
                    retry_after: last.retry_after.map(|after| after.saturating_sub(passed)),
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
            Err(Unfinished::Unsent(outcome, why)) => return self.unsent(org, id, outcome, why).await,
        };
        *held = Some((self.clock.monotonic(), tested.clone()));
        Ok(tested)
    }

    async fn unsent(
        &self,
        org: OrgId,
        id: CredentialId,
        outcome: Verdict,
        message: String,
    ) -> Result<Tested, Refusal> {
        let credential = self.credential(org, id).await?.value;
        Ok(Tested {
            checked: Checked {
                at: self.now(),
                generation: credential.rotation.generation,
                outcome,
                status: 0,
                message,
                facts: Vec::new(),
                facts_at: None,
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
            told: self.send_test(&test, &fresh).await,
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
                run.told = self.send_test(test, &newer).await;
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

    async fn send_test(&self, test: &KeyTest, fresh: &Fresh) -> Told {
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
            let why = format!("{provider} has no test for credentials of kind {kind}{why}");
            Unfinished::Unsent(Verdict::Untestable, why)
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
                    (None, Err(why)) => return Err(Unfinished::Unsent(Verdict::Unreachable, why)),
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
}

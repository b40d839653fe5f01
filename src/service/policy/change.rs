//! How a change is made: planned against the policy in force, committed, put in force, told.
//!
//! What it does is looked into first, beside everybody else; commits then come one at a time. A change runs to
//! its end even when its caller goes away, so that store and snapshot do not part. Where a commit ends without
//! telling whether it was made, the snapshot is compiled anew from the store: at once, or as soon as that can be
//! read.

use std::sync::Arc;

use super::check;
use super::impact::{Affected, Impact};
use super::rows;
use super::told::Names;
use crate::domain::actor::Caller;
use crate::domain::amendment::{Amendment, Diff, Overruled, overruled};
use crate::domain::id::OrgId;
use crate::domain::impact::{Bounded, ModeChange};
use crate::domain::journal::{Action, Record};
use crate::domain::policy::Policy;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::service::Broker;
use crate::service::effect::{Undone, detached};
use crate::service::request::Repeatable;
use crate::store::keys;
use crate::store::model::PolicyHead;

/// What every change of the policy takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changing {
    /// The version that the caller looked at; refused where what is named changed since.
    pub expected: Option<u64>,
    /// Whether it is only to be told what would change.
    pub validate_only: bool,
}

/// What a change came to, or would.
#[derive(Clone, Debug)]
pub struct PolicyChanged {
    /// The version in force.
    pub version: u64,
    /// What differs.
    pub diff: Diff,
    /// The picks that become others.
    pub modes: Bounded<ModeChange>,
    /// The agents with live tasks that it concerns.
    pub agents: Bounded<Affected>,
    /// Allows that have no effect.
    pub overruled: Vec<Overruled>,
    /// What the orgs and projects in it are called.
    pub names: Names,
}

/// What makes a change out of the policy in force.
type Build = dyn Fn(&Policy) -> Result<Amendment, Refusal> + Send + Sync;

/// A change on its way. Made anew from the policy in force, should that change first.
pub(super) struct Change {
    pub(super) caller: Caller,
    pub(super) action: Action,
    pub(super) how: Changing,
    /// For creates: the org, the request id, and all that makes two requests the same.
    pub(super) create: Option<(OrgId, String, Vec<u8>)>,
    pub(super) build: Box<Build>,
}

/// What a change would make of the policy.
struct Plan {
    before: Arc<Policy>,
    after: Arc<Policy>,
    diff: Diff,
}

/// How often a change is made anew because what it changes, or its caller's own record, changed amid it.
const ATTEMPTS: usize = 8;
/// How many allows without effect are told.
const WARNINGS: usize = 50;
/// How long the account of a change in the journal is at most, in bytes.
const ACCOUNT: usize = 2_000;

/// The call that request ids of profiles are remembered under.
pub(super) const PROFILE: &str = "profile";

impl Change {
    fn plan(&self, before: Arc<Policy>) -> Result<Plan, Refusal> {
        let to = (self.build)(&before)?;
        if let Some(expected) = self.how.expected
            && !before.unchanged_since(expected, &to)
        {
            let message = "the policy was changed since it was looked at";
            return Err(Refusal::new(Reason::Conflict, message).with("version", before.version.to_string()));
        }
        let (after, diff) = before.amended(&to);
        check::bounds(&after, &diff)?;
        // Also where it is only looked at: what cannot be written is not promised.
        let _written = rows::changes(&before, &after, &diff)?;
        let after = Arc::new(after);
        Ok(Plan { before, after, diff })
    }

    fn record(&self, plan: &Plan) -> Record {
        let orgs = plan.diff.orgs();
        let only = match (orgs.first(), orgs.len(), plan.diff.system()) {
            (Some(org), 1, false) => Some(*org),
            _ => None,
        };
        let mut record = self
            .caller
            .record(self.action, only)
            .about("version", plan.after.version)
            .about("changes", account(&plan.diff));
        if only.is_none() {
            let system = plan.diff.system().then(|| "system".to_owned());
            let scopes: Vec<_> = system
                .into_iter()
                .chain(orgs.iter().map(ToString::to_string))
                .collect();
            record = record.about("scopes", shortened(scopes.join(",")));
        }
        if let Some((_, request_id, _)) = &self.create {
            record = record.request(request_id);
        }
        record
    }
}

/// What differs, for the journal: a line of signs and names, cut where it is long.
fn account(diff: &Diff) -> String {
    let mut account = Vec::new();
    for change in diff.scopes.iter().flat_map(|scope| &scope.cells) {
        let provider = change.provider.as_deref().unwrap_or("*");
        let verdict = change.after.map_or("gone", |verdict| verdict.name());
        account.push(format!(
            "{} {provider} {}={verdict}",
            change.mode.name(),
            change.model
        ));
    }
    for change in &diff.pins {
        let mode = change.after.map_or("gone", |mode| mode.name());
        account.push(format!("pin {}={mode}", change.executor));
    }
    for change in &diff.profiles {
        let (profile, what) = match (&change.before, &change.after) {
            (None, Some(new)) => (new, "made"),
            (_, Some(new)) => (new, "changed"),
            (Some(old), None) => (old, "gone"),
            (None, None) => continue,
        };
        account.push(format!("profile {}={what}", profile.name));
    }
    shortened(account.join("; "))
}

/// Texts of the policy are ASCII, so that they can be cut anywhere.
fn shortened(mut text: String) -> String {
    if text.len() > ACCOUNT {
        text.truncate(ACCOUNT);
        text.push_str(" and more");
    }
    text
}

impl Broker {
    /// Makes the change, or only tells what it would do.
    pub(super) async fn amend(self: &Arc<Self>, change: Change) -> Result<PolicyChanged, Refusal> {
        if change.how.validate_only {
            let plan = change.plan(self.policy())?;
            let impact = self.impact(&plan.before, &plan.after, &plan.diff).await?;
            return self.told(plan.before.version, &plan, impact).await;
        }
        let broker = Arc::clone(self);
        detached(async move { broker.amend_now(change).await }).await
    }

    async fn amend_now(self: &Arc<Self>, change: Change) -> Result<PolicyChanged, Refusal> {
        for _ in 0..ATTEMPTS {
            self.mend_policy().await?;
            let looked = change.plan(self.policy())?;
            if looked.diff.is_empty() {
                return self.told(looked.before.version, &looked, Impact::default()).await;
            }
            // Before it is in force: what it ends at once would not be found any more. And before it is its turn:
            // a denial waits for nobody who looks into theirs.
            let impact = match self.impact(&looked.before, &looked.after, &looked.diff).await {
                // Nor is it refused because too many do.
                Err(refusal) if refusal.reason == Reason::Overloaded => Impact::unknown(),
                impact => impact?,
            };
            let told = self.told(looked.after.version, &looked, impact).await?;
            if let Some(version) = self.commit_policy(&change, &looked.diff).await? {
                return Ok(PolicyChanged { version, ..told });
            }
        }
        Err(Undone::Conflict.into())
    }

    /// Commits the change and puts it in force, if it still comes to what was looked into. What others changed
    /// beside it meanwhile does not keep it up.
    async fn commit_policy(self: &Arc<Self>, change: &Change, looked: &Diff) -> Result<Option<u64>, Refusal> {
        let mut writer = self.policies.writer.lock().await;
        if writer.behind {
            return Ok(None);
        }
        let plan = change.plan(self.policy())?;
        if plan.diff != *looked {
            return Ok(None);
        }
        let version = plan.after.version;
        let head = keys::policy_head();
        let (live, revision) = self.still_live(&change.caller).await?;
        let mut changes = rows::changes(&plan.before, &plan.after, &plan.diff)?;
        changes = match writer.head {
            Some(read) => changes.at(&head, read),
            None => changes.absent(&head),
        };
        changes = changes.at(&live, revision).put(&head, &PolicyHead { version });
        if let Some((org, request_id, content)) = &change.create {
            let create = Repeatable {
                caller: &change.caller,
                call: PROFILE,
                request_id,
                content: &[content],
            };
            changes = self.remember(changes, *org, create, *org);
        }
        writer.behind = true;
        match self.effect(change.record(&plan), changes).await {
            Ok(done) => {
                writer.head = Some(done.revision);
                writer.behind = false;
                self.policies.current.store(plan.after);
                self.tell_policy(&plan.diff, version);
                Ok(Some(version))
            }
            Err(Undone::Conflict) => Ok(None),
            Err(Undone::Refused(refusal)) => {
                if let Err(error) = self.reload_policy(&mut writer).await {
                    tracing::error!(%error, "the policy cannot be read back after a change that failed");
                }
                if self.policy().version > plan.before.version {
                    self.tell_policy(&plan.diff, self.policy().version);
                }
                Err(refusal)
            }
        }
    }

    fn tell_policy(&self, diff: &Diff, version: u64) {
        if diff.system() {
            // All who watch hear of it.
            self.policy_changed(None, version);
            return;
        }
        for org in diff.orgs() {
            self.policy_changed(Some(org), version);
        }
    }

    async fn told(
        &self,
        version: u64,
        plan: &Plan,
        Impact { modes, agents }: Impact,
    ) -> Result<PolicyChanged, Refusal> {
        let overruled = overruled(&plan.after, &plan.diff, &self.registry, WARNINGS);
        let names = self.names_in(&plan.diff, &modes, &agents).await?;
        Ok(PolicyChanged {
            version,
            diff: plan.diff.clone(),
            modes,
            agents,
            overruled,
            names,
        })
    }
}

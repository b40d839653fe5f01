//! What really happened to each credential, and what is checked whenever something becomes durable.

use std::collections::BTreeMap;

use credbroker::domain::credential::Credential;
use credbroker::domain::id::{CredentialId, OrgId};
use credbroker::domain::journal::{Action, Outcome, Phase as RecordPhase, Position};
use credbroker::domain::rotation::Phase;
use credbroker::domain::secret::Exposure;
use credbroker::domain::time::Time;
use credbroker::journal::simulated::entry;
use credbroker::store::keys;
use credbroker::store::model::{CredentialSecret, StagedAnswer};
use credbroker::store::{Batch, Write};
use futures_util::FutureExt as _;

use crate::journal::Kept;
use crate::provider::{Tokens, number};
use crate::report::{Violation, broken};
use crate::world::{State, World};

/// Which step of an account's refresh a commit is, and of which account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The state alone: a claim, or an outcome without new tokens.
    State(usize),
    /// An answer.
    Answer(usize),
    /// New tokens.
    Secret(usize),
}

/// A stored credential: what is durable of it, seen whenever that changes.
pub struct Account {
    pub org: OrgId,
    pub id: CredentialId,
    keys: [Vec<u8>; 3],
    pub generation: u64,
    /// What the broker has been told is durable.
    pub acknowledged: u64,
    pub phase: Phase,
    pub fence: u64,
    /// The fence at which the present generation was stored.
    pub born: u64,
    /// The generation that the exchange of each fence brought.
    pub brought: BTreeMap<u64, u64>,
    pub refresh: Option<usize>,
    /// The access token of each generation.
    pub access: BTreeMap<u64, Option<usize>>,
    /// The newest generation that somebody reported as rejected.
    pub reported: u64,
    /// The longest life that somebody asked for, in milliseconds.
    pub asked: u64,
    /// All its grants, the newest last.
    pub grants: Vec<usize>,
}

/// A request that the broker sent.
pub struct Sending {
    pub account: usize,
    pub refresh: usize,
    pub fence: u64,
    pub at: u64,
    /// When the broker's claim says that this refresh token was sent first.
    pub first: Time,
    pub known: Known,
    /// Since when that is known: really, and by the broker's clock.
    pub ended_at: u64,
    pub ended: Time,
    /// For how long the provider wants to be left alone, in milliseconds.
    pub asked: u64,
    /// What was answered, where it granted.
    pub tokens: Option<Tokens>,
    /// Whether the answer is durable.
    pub staged: bool,
}

/// What the broker can know of a sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    UnderWay,
    /// Nothing happened at the provider; not to be tried again before this long after.
    NotProcessed(u64),
    /// It may have been processed or not.
    Nothing,
    /// New tokens came back.
    Granted,
    /// The grant is dead.
    Refused,
}

impl Account {
    pub fn new(org: OrgId, id: CredentialId, grant: usize, refresh: usize) -> Self {
        let keys = [
            keys::credential(org, id),
            keys::credential_answer(org, id),
            keys::credential_secret(org, id),
        ];
        Self {
            org,
            id,
            keys: keys.map(|key| key.as_bytes().to_vec()),
            generation: 1,
            acknowledged: 1,
            phase: Phase::rested(),
            fence: 0,
            born: 0,
            brought: BTreeMap::new(),
            refresh: Some(refresh),
            access: BTreeMap::from([(1, None)]),
            reported: 0,
            asked: 0,
            grants: vec![grant],
        }
    }
}

impl World {
    /// What a commit is about to do to an account.
    pub fn part_of(&self, batch: &Batch) -> Option<Part> {
        self.with(|state| {
            let mut part = None;
            for write in &batch.writes {
                let Write::Put(key, _) = write else { continue };
                for (index, account) in state.accounts.iter().enumerate() {
                    let [credential, answer, secret] = &account.keys;
                    if key == secret {
                        return Some(Part::Secret(index));
                    } else if key == answer {
                        part = Some(Part::Answer(index));
                    } else if key == credential {
                        part = part.or(Some(Part::State(index)));
                    }
                }
            }
            part
        })
    }

    /// What is durable now is looked at.
    pub fn committed(&self, part: Option<Part>) {
        let Some(Part::State(index) | Part::Answer(index) | Part::Secret(index)) = part else {
            return;
        };
        let (org, id) = self.with(|state| (state.accounts[index].org, state.accounts[index].id));
        if let Some(Part::Answer(_)) = part {
            let answer = self.read::<StagedAnswer>(&keys::credential_answer(org, id));
            self.with(|state| {
                let sendings = state.sendings.iter_mut().rev();
                for sending in sendings.filter(|sending| sending.account == index) {
                    sending.staged |= sending.fence == answer.fence;
                }
            });
        }
        let credential = self.read::<Credential>(&keys::credential(org, id));
        let secret = self.read::<CredentialSecret>(&keys::credential_secret(org, id));
        let checked = self.state_changed(index, &credential, &secret);
        self.check(checked);
    }

    fn read<T: credbroker::store::record::Record>(
        &self,
        key: &credbroker::store::keys::Key,
    ) -> std::sync::Arc<T> {
        let read = self.glance.get::<T>(key).now_or_never();
        read.unwrap().unwrap().unwrap().value
    }

    fn state_changed(
        &self,
        index: usize,
        credential: &Credential,
        secret: &CredentialSecret,
    ) -> Result<(), Violation> {
        let rotation = &credential.rotation;
        let generation = rotation.generation;
        let access = secret
            .access
            .as_ref()
            .map(|token| number(token.expose(Exposure::Inspect)));
        let refresh = secret
            .refresh
            .as_ref()
            .map(|token| number(token.expose(Exposure::Inspect)));
        self.with(|state| {
            state.note(|| {
                let (fence, phase) = (rotation.fence.0, shown(&rotation.phase));
                format!("durable: account {index} {phase}, generation {generation}, fence {fence}, access {access:?}, refresh {refresh:?}")
            });
            let account = &mut state.accounts[index];
            let Some(refresh) = refresh else {
                return broken("never-blanked", format!("account {index} lost its refresh token"));
            };
            if secret.generation != generation {
                return broken("whole", format!("generation {generation} with the secret of {}", secret.generation));
            }
            if generation < account.generation || rotation.fence.0 < account.fence {
                return broken("never-back", format!("account {index} went from {} to {generation}", account.generation));
            }
            if *account.access.entry(generation).or_insert(access) != access {
                return broken("one-token-a-generation", format!("generation {generation} has another token now"));
            }
            let grant = state.provider.refresh[refresh].grant;
            if account.grants.last() != Some(&grant) {
                if account.grants.contains(&grant) {
                    return broken("true-tokens", format!("account {index} is back at an earlier grant"));
                }
                // A person signed in again.
                account.grants.push(grant);
                state.tally.reconnected += 1;
            } else if generation > account.generation {
                let fence = rotation.fence.0;
                let sending = state.sendings.iter().rev();
                let sending = sending.clone().find(|sent| sent.account == index && sent.fence == fence);
                let Some((tokens, staged)) = sending.and_then(|sent| Some((sent.tokens?, sent.staged))) else {
                    return broken("true-tokens", format!("generation {generation} comes from no answer"));
                };
                if !staged {
                    return broken("staged-first", format!("generation {generation} was never staged"));
                }
                let expected = tokens.refresh.or(account.refresh);
                if expected != Some(refresh) || access != Some(tokens.access) {
                    return broken("true-tokens", format!("generation {generation} is not what was answered: {tokens:?}"));
                }
                account.brought.insert(fence, generation);
            } else if account.refresh != Some(refresh) {
                return broken("true-tokens", "the refresh token changed without a generation");
            }
            let dead = matches!(rotation.phase, Phase::Dead { .. } | Phase::Quarantined { .. });
            if dead && state.provider.is_alive(grant) {
                return broken("no-false-death", format!("account {index} is given up and its grant is alive"));
            }
            if generation > account.generation {
                account.born = rotation.fence.0;
            }
            account.generation = generation;
            account.fence = rotation.fence.0;
            account.refresh = Some(refresh);
            account.phase = rotation.phase.clone();
            state.told_as_lost(index)
        })
    }

    /// The broker is about to be told that its commit is durable.
    pub fn acknowledged(&self, part: Option<Part>) {
        if let Some(Part::State(index) | Part::Answer(index) | Part::Secret(index)) = part {
            self.with(|state| {
                let account = &mut state.accounts[index];
                account.acknowledged = account.generation;
            });
        }
    }

    /// A record becomes durable.
    pub fn keep(&self, position: Position, phase: RecordPhase, body: Vec<u8>) {
        let checked = self.with(|state| {
            let time = state.clocks.wall();
            let told = matches!(phase, RecordPhase::Finish(_)).then(|| entry(position, time, &body).unwrap());
            state.pages.kept.push(Kept { time, phase, body });
            let Some(told) = told.filter(|told| told.action() == Some(Action::Refresh)) else {
                return Ok(());
            };
            // Those of a start tell what was found, by the begin.
            let generation = told.about("generation").and_then(|text| text.parse::<u64>().ok());
            let id = told.about("credential").unwrap_or_default();
            let account = state.accounts.iter().find(|account| account.id.to_string() == id);
            match (generation, account) {
                (Some(generation), Some(account))
                    if told.outcome() == Some(Outcome::Allowed) && account.generation < generation =>
                {
                    broken(
                        "true-journal",
                        format!("{position:?} says that generation {generation} is there"),
                    )
                }
                _ => Ok(()),
            }
        });
        self.check(checked);
    }
}

impl State {
    /// The sendings of an account's refresh token, since its present generation, of which the broker cannot know what
    /// came of them: their numbers.
    pub fn lost(&self, index: usize, refresh: usize) -> impl Iterator<Item = usize> {
        let born = self.accounts[index].born;
        let sendings = self.sendings.iter().enumerate();
        let lost = sendings.filter(move |(_, sent)| {
            (sent.account, sent.refresh, sent.known) == (index, refresh, Known::Nothing) && sent.fence > born
        });
        lost.map(|(number, _)| number)
    }

    /// Whether the state hides that an answer was lost. Only a new generation makes up for that: an answer to another
    /// sending, even one that was not processed, tells nothing of it.
    fn told_as_lost(&self, index: usize) -> Result<(), Violation> {
        let account = &self.accounts[index];
        let lost = account
            .refresh
            .and_then(|refresh| self.lost(index, refresh).next());
        match (&account.phase, lost) {
            (Phase::Live { .. }, Some(lost)) => broken(
                "told-as-lost",
                format!("account {index} is live, and nobody knows what came of sending {lost}"),
            ),
            _ => Ok(()),
        }
    }
}

/// A phase, without what differs from run to run.
fn shown(phase: &Phase) -> String {
    match phase {
        Phase::Live { not_before, .. } => format!("live, not before {not_before:?}"),
        Phase::Claimed { sent, .. } => format!("claimed, unanswered {}", sent.unanswered),
        Phase::Staged { sent } => format!("staged, unanswered {}", sent.unanswered),
        Phase::Ambiguous { sent, not_before, .. } => {
            format!(
                "ambiguous, unanswered {}, not before {not_before:?}",
                sent.unanswered
            )
        }
        other => format!("{other:?}"),
    }
}

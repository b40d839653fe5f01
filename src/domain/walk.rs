//! The way along a permit: which entry is tried, and what follows when something stands in its way.
//!
//! Pure: the caller looks whether an entry can be used, and tells what it met; the table in
//! [`conditions`](super::conditions) says what that means, and the walk where it leads. It never leaves the
//! permit, never goes back, and ends.

use super::conditions::{Chosen, Condition, Outcome, nothing_left, outcome};
use super::gate::Permit;
use super::mode::{AuthMode, PermitEntry};
use super::profile::OnRejection;
use super::reason::Reason;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Look whether this entry of the permit can be used.
    Try(usize),
    /// Nothing is handed out.
    Refuse(Reason),
}

/// How far along a permit.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    permit: &'a Permit,
    at: usize,
    skipped: Vec<Reason>,
    /// Why something else than the first entry is being tried.
    because: Option<Reason>,
    course: Course,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// One after the other.
    InTurn,
    /// A rejection was met: only what is the member's or the org's own follows.
    OwnOnly(Reason),
    /// The last resort of a lapsed subscription.
    LastResort,
}

/// Whether the mode uses a credential of the member's or the org's own.
const fn is_own(mode: AuthMode) -> bool {
    matches!(mode, AuthMode::OAuth | AuthMode::Byok)
}

impl<'a> Walk<'a> {
    /// At the entry that the permit starts with.
    pub fn new(permit: &'a Permit) -> Self {
        Self::at(permit, permit.start())
    }

    /// At an entry that is in use already.
    pub fn at(permit: &'a Permit, position: usize) -> Self {
        Self {
            permit,
            at: position.min(permit.entries().len().saturating_sub(1)),
            skipped: Vec::new(),
            because: None,
            course: Course::InTurn,
        }
    }

    /// The position of the entry that is tried.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The entry that is tried.
    pub fn entry(&self) -> &'a PermitEntry {
        &self.permit.entries()[self.at]
    }

    /// Why it is not the first one; `None` where it is.
    pub fn because(&self) -> Option<Reason> {
        self.because
    }

    /// Whether a lapsed subscription matters to the entry that is tried: not to a task that runs already, and
    /// not twice.
    pub fn heeds_subscription(&self) -> bool {
        !self.permit.running() && self.course != Course::LastResort
    }

    /// How the mode that is tried came to be: from a set, or settled beforehand.
    pub fn chosen(&self) -> Chosen {
        match self.course {
            Course::InTurn if self.permit.settled() => Chosen::Pinned,
            Course::InTurn | Course::OwnOnly(_) => Chosen::FromSet,
            Course::LastResort => Chosen::Pinned,
        }
    }

    /// Goes on after `condition` was met at the entry that is tried.
    pub fn met(&mut self, condition: Condition) -> Step {
        let mode = self.entry().mode;
        let absent = matches!(condition, Condition::NoKey | Condition::Revoked);
        if absent && let Some(position) = self.another_kind() {
            self.at = position;
            return Step::Try(position);
        }
        // A task that runs on a mode goes on from it when the provider rejects the credential: its profile said so
        // when it started.
        let chosen = match condition {
            Condition::Rejected if self.permit.running() => Chosen::FromSet,
            _ => self.chosen(),
        };
        match (outcome(mode, condition, chosen), self.course) {
            (Outcome::Stop(reason), _) => Step::Refuse(reason),
            // What follows a rejection is passed over where it is not there; the rejection stays the reason.
            (Outcome::Skip(_) | Outcome::FallBack(_), Course::OwnOnly(rejected)) => self.next_own(rejected),
            (Outcome::Skip(reason), _) => {
                self.skipped.push(reason);
                self.because.get_or_insert(reason);
                if self.at + 1 < self.permit.ordinary() {
                    self.at += 1;
                    return Step::Try(self.at);
                }
                Step::Refuse(nothing_left(self.skipped.iter().copied()))
            }
            (Outcome::FallBack(reason), _) if condition == Condition::Lapsed => match self.permit.lapse() {
                Some(position) if self.course != Course::LastResort => {
                    self.at = position;
                    self.because = Some(reason);
                    self.course = Course::LastResort;
                    Step::Try(position)
                }
                _ => Step::Refuse(reason),
            },
            (Outcome::FallBack(reason), _) => match self.permit.on_rejection() {
                OnRejection::Next => self.next_own(reason),
                OnRejection::Fail => Step::Refuse(reason),
            },
            // The table says that this does not arise. Nothing is handed out on what cannot be.
            (Outcome::Never, _) => Step::Refuse(Reason::Internal),
        }
    }

    /// The next entry, where it is the same way with another kind of key.
    fn another_kind(&self) -> Option<usize> {
        let (here, next) = (self.entry(), self.permit.entries().get(self.at + 1)?);
        let same = here.mode == next.mode && here.provider == next.provider;
        (same && self.at + 1 < self.permit.ordinary()).then_some(self.at + 1)
    }

    fn next_own(&mut self, reason: Reason) -> Step {
        self.because = Some(reason);
        self.course = Course::OwnOnly(reason);
        let rest = self.at + 1..self.permit.ordinary();
        match rest
            .into_iter()
            .find(|at| is_own(self.permit.entries()[*at].mode))
        {
            Some(position) => {
                self.at = position;
                Step::Try(position)
            }
            None => Step::Refuse(reason),
        }
    }
}

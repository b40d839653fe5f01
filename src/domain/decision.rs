//! How a resolution was decided: one type for the reply, the explanation, the journal and the error details.

use super::gate::Said;
use super::id::CredentialId;
use super::mode::{AuthMode, PermitEntry};
use super::owner::Owner;
use super::reason::Reason;

/// A credential that was looked at, and why it won or did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The credential; `None` where there was none for this mode and owner.
    pub credential: Option<CredentialId>,
    /// The mode it was looked at for.
    pub mode: AuthMode,
    /// Which entry of the permit it was looked at for.
    pub position: usize,
    /// Its owner; `None` where the mode uses nothing of the org's or a member's.
    pub owner: Option<Owner>,
    /// Why it was passed over; `None` for the chosen one.
    pub passed_over: Option<Reason>,
}

/// What settled which modes come into question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SelectedBy {
    /// Nothing: all that the registry has.
    #[default]
    Nothing,
    /// The profile of this name.
    Profile(String),
    /// The policy of the executor, which pins one.
    Executor,
    /// The task, which runs on one already.
    Task,
}

/// How a resolution was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Why nothing is handed out; `None` where something is.
    pub refused: Option<Reason>,
    /// The credential and its owner.
    pub chosen: Option<(CredentialId, Owner)>,
    /// All ways this task may be served.
    pub permit: Vec<PermitEntry>,
    /// Which entry of the permit was used.
    pub position: usize,
    /// Why something other than the first was used; `None` where the first held.
    pub fallback: Option<Reason>,
    /// The version of the policy.
    pub policy_version: u64,
    /// What each scope said.
    pub said: Option<Said>,
    /// How the modes were selected.
    pub selected_by: SelectedBy,
    /// Whether it was resolved at the scope of the system, which the access matrix does not bind.
    pub system_scope: bool,
    /// The credentials looked at.
    pub candidates: Vec<Candidate>,
}

impl Decision {
    /// The entry of the permit that was used.
    pub fn entry(&self) -> Option<&PermitEntry> {
        self.permit.get(self.position)
    }
}

//! How a resolution was decided: one type for the reply, the explanation, the journal and the error details.

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
    /// Its owner.
    pub owner: Owner,
    /// Why it was passed over; `None` for the chosen one.
    pub passed_over: Option<Reason>,
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
    /// Why a mode other than the first was used; empty where the first held.
    pub fallback_reason: String,
    /// The version of the policy.
    pub policy_version: u64,
    /// The credentials looked at.
    pub candidates: Vec<Candidate>,
}

impl Decision {
    /// The entry of the permit that was used.
    pub fn entry(&self) -> Option<&PermitEntry> {
        self.permit.get(self.position)
    }
}

//! Whether a way of serving an executor can be used now, and who has to mend it where it cannot.

use super::conditions::{Condition, reason};
use super::credential::Health;
use super::mode::{AuthMode, CredentialKind};
use super::reason::{Fault, Reason};

/// Whether a way can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// A member has to connect an account first.
    Connect(Reason),
    /// Something else is missing or broken.
    Fault(Reason),
}

impl Readiness {
    /// What a condition that was met in a mode comes to.
    pub fn of(mode: AuthMode, condition: Condition) -> Self {
        match reason(mode, condition) {
            Some(reason @ (Reason::ConnectAccount | Reason::ReauthRequired)) => Readiness::Connect(reason),
            Some(reason) => Readiness::Fault(reason),
            None => Readiness::Fault(Reason::Internal),
        }
    }

    /// Why not; `None` where it can be used.
    pub fn reason(self) -> Option<Reason> {
        match self {
            Readiness::Ready => None,
            Readiness::Connect(reason) | Readiness::Fault(reason) => Some(reason),
        }
    }

    /// Whether a member is shown it: what only an admin can mend is noise to everybody else.
    pub fn is_for_members(self) -> bool {
        self.reason().is_none_or(|reason| reason.fault() != Fault::Admin)
    }

    /// Of two ways, the one that is nearer to being used.
    #[must_use]
    pub fn better(self, other: Readiness) -> Readiness {
        let rank = |readiness| match readiness {
            Readiness::Ready => 0,
            Readiness::Connect(_) => 1,
            Readiness::Fault(_) => 2,
        };
        if rank(other) < rank(self) { other } else { self }
    }
}

/// Whether a way with a credential of this kind and health can be used.
pub fn readiness(kind: CredentialKind, health: Health) -> Readiness {
    let grant = kind == CredentialKind::OAuthGrant;
    match health {
        Health::Ok | Health::Expiring | Health::Refreshing => Readiness::Ready,
        Health::Ambiguous => Readiness::Fault(Reason::RefreshAmbiguous),
        Health::Quarantined | Health::ReauthRequired | Health::GrantLost if grant => {
            Readiness::Connect(Reason::ReauthRequired)
        }
        Health::Expired => Readiness::Fault(Reason::KeyExpired),
        Health::Quarantined | Health::ReauthRequired | Health::GrantLost => {
            Readiness::Fault(Reason::CredentialUnusable)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_says_who_has_to_act() {
        let (grant, key) = (CredentialKind::OAuthGrant, CredentialKind::ApiKey);
        assert_eq!(readiness(grant, Health::Ok), Readiness::Ready);
        let dead = readiness(grant, Health::ReauthRequired);
        assert_eq!(dead, Readiness::Connect(Reason::ReauthRequired));
        assert_eq!(readiness(grant, Health::GrantLost), dead);
        let unconnected = Readiness::of(AuthMode::OAuth, Condition::Unconnected);
        assert_eq!(unconnected, Readiness::Connect(Reason::ConnectAccount));
        assert!(unconnected.is_for_members());
        let keyless = Readiness::of(AuthMode::Byok, Condition::NoKey);
        assert_eq!(keyless, Readiness::Fault(Reason::NoCredentialConfigured));
        assert!(!keyless.is_for_members());
        let locked = Readiness::of(AuthMode::Byok, Condition::Locked);
        assert_eq!(locked, Readiness::Fault(Reason::Locked));
        assert_eq!(
            readiness(key, Health::Quarantined),
            Readiness::Fault(Reason::CredentialUnusable)
        );
    }

    #[test]
    fn the_best_way_stands_for_the_whole() {
        let connect = Readiness::Connect(Reason::ConnectAccount);
        let fault = Readiness::Fault(Reason::NoCredentialConfigured);
        assert_eq!(fault.better(connect).better(Readiness::Ready), Readiness::Ready);
        assert_eq!(connect.better(fault), connect);
    }
}

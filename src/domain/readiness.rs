//! Whether a way of serving an executor can be used now, and who has to mend it where it cannot.

use super::credential::Health;
use super::mode::CredentialKind;
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

/// What there is of a way.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// What sort of credential it takes.
    pub kind: CredentialKind,
    /// The health of the credential, where there is one.
    pub health: Option<Health>,
    /// Whether a connector of the provider is there, switched on and its terms accepted.
    pub connector: bool,
    /// Whether the credential is locked.
    pub locked: bool,
}

/// Judges a way.
pub fn readiness(found: Found) -> Readiness {
    if found.health.is_some() && found.locked {
        return Readiness::Fault(Reason::CredentialUnusable);
    }
    let grant = found.kind == CredentialKind::OAuthGrant;
    match found.health {
        _ if grant && !found.connector => Readiness::Fault(Reason::ConnectorDisabled),
        None if grant => Readiness::Connect(Reason::ConnectAccount),
        None => Readiness::Fault(Reason::NoCredentialConfigured),
        Some(Health::Ok | Health::Expiring | Health::Refreshing) => Readiness::Ready,
        Some(Health::Ambiguous) => Readiness::Fault(Reason::RefreshAmbiguous),
        Some(Health::Expired) => Readiness::Fault(Reason::KeyExpired),
        Some(Health::Quarantined | Health::ReauthRequired) if grant => {
            Readiness::Connect(Reason::ReauthRequired)
        }
        Some(Health::Quarantined | Health::ReauthRequired) => Readiness::Fault(Reason::CredentialUnusable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(kind: CredentialKind, health: Option<Health>) -> Found {
        Found {
            kind,
            health,
            connector: true,
            locked: false,
        }
    }

    #[test]
    fn each_state_says_who_has_to_act() {
        let (grant, key) = (CredentialKind::OAuthGrant, CredentialKind::ApiKey);
        assert_eq!(readiness(found(grant, Some(Health::Ok))), Readiness::Ready);
        let unconnected = readiness(found(grant, None));
        assert_eq!(unconnected, Readiness::Connect(Reason::ConnectAccount));
        assert!(unconnected.is_for_members());
        let dead = readiness(found(grant, Some(Health::ReauthRequired)));
        assert_eq!(dead, Readiness::Connect(Reason::ReauthRequired));
        let keyless = readiness(found(key, None));
        assert_eq!(keyless, Readiness::Fault(Reason::NoCredentialConfigured));
        assert!(!keyless.is_for_members());
        let off = Found {
            connector: false,
            ..found(grant, Some(Health::Ok))
        };
        assert_eq!(readiness(off), Readiness::Fault(Reason::ConnectorDisabled));
        let locked = Found {
            locked: true,
            ..found(key, Some(Health::Ok))
        };
        assert_eq!(readiness(locked), Readiness::Fault(Reason::CredentialUnusable));
    }

    #[test]
    fn the_best_way_stands_for_the_whole() {
        let connect = Readiness::Connect(Reason::ConnectAccount);
        let fault = Readiness::Fault(Reason::NoCredentialConfigured);
        assert_eq!(fault.better(connect).better(Readiness::Ready), Readiness::Ready);
        assert_eq!(connect.better(fault), connect);
    }
}

//! What stands in the way of an auth mode, and what is done about it: one table.
//!
//! `docs/auth-modes.md` is made from [`outcome`], and a test keeps it so. Nothing else decides whether a mode is
//! passed over, ends the resolution, or gives way to another.

use super::mode::AuthMode;
use super::reason::Reason;

macro_rules! conditions {
    ($($variant:ident, $name:literal, $what:literal;)*) => {
        /// What can stand in the way of a mode.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Condition {
            $(#[doc = $what] $variant,)*
        }

        impl Condition {
            /// All of them, in the order of the table.
            pub const ALL: &'static [Condition] = &[$(Condition::$variant,)*];

            /// The name in the table.
            pub const fn name(self) -> &'static str {
                match self { $(Condition::$variant => $name,)* }
            }

            /// What it means, in a sentence.
            pub const fn what(self) -> &'static str {
                match self { $(Condition::$variant => $what,)* }
            }
        }
    };
}

conditions! {
    Unconnected, "unconnected",
        "The member has no account connected, or the official program is not signed in on the machine.";
    NoKey, "no key",
        "Nobody has stored a key: not the member, the org, or the platform.";
    NamedMissing, "named key missing",
        "The profile names a credential, and it is not there.";
    Revoked, "revoked",
        "The credential was removed, or the program signed out.";
    Locked, "locked",
        "An admin has locked the credential.";
    NotEntitled, "not entitled",
        "The org may not use the mode.";
    OverQuota, "over quota",
        "The prepaid balance or the day's quota is used up.";
    WrongCapacity, "wrong capacity",
        "The task runs in a cloud sandbox, and the mode needs the member's own machine.";
    EndpointDown, "endpoint down",
        "The local endpoint did not answer, or nobody has looked.";
    Lapsed, "lapsed subscription",
        "The org's subscription is inactive.";
    Rejected, "rejected by the provider",
        "The provider itself refuses the credential.";
    AtLimit, "too many at once",
        "As many leases stand on the personal subscription as may at once.";
}

/// What is done about a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The condition does not arise in this mode.
    Never,
    /// The mode is passed over for the next one that is permitted.
    Skip(Reason),
    /// The resolution ends.
    Stop(Reason),
    /// Another permitted way is taken, and the answer says so. Where there is none, the resolution ends for this
    /// reason.
    FallBack(Reason),
}

/// How the mode came to be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// It is one of a set: the first usable one is taken.
    FromSet,
    /// It is the only one: an executor's policy pins it, or the task at hand already runs on it.
    Pinned,
}

impl Chosen {
    /// Both, in the order of the table.
    pub const ALL: [Chosen; 2] = [Chosen::FromSet, Chosen::Pinned];
}

/// The table.
pub const fn outcome(mode: AuthMode, condition: Condition, chosen: Chosen) -> Outcome {
    use AuthMode as Mode;
    use Condition as At;
    use Outcome::{FallBack, Never, Skip, Stop};

    // What is merely not there leaves the choice to the next of a set.
    let absent = match (condition, mode) {
        (At::Unconnected | At::Revoked, Mode::OAuth) => Reason::ConnectAccount,
        (At::NoKey | At::Revoked, Mode::Byok) => Reason::NoCredentialConfigured,
        (At::NoKey | At::Revoked, Mode::Metered) => Reason::MeteredKeyUnavailable,
        (At::NoKey | At::Revoked, Mode::Shared) => Reason::SharedKeyUnavailable,
        (At::Unconnected | At::Revoked, Mode::HostSession) => Reason::HostSessionMissing,
        (At::NotEntitled, Mode::Metered) => Reason::MeteredNotEntitled,
        (At::WrongCapacity, Mode::HostSession | Mode::Local) => Reason::AuthModeRequiresLocalCapacity,
        // What was taken away, used up or broken is for a person to know of: nothing else fills in for it.
        (At::NamedMissing, Mode::Byok) => return Stop(Reason::NamedCredentialMissing),
        (At::Locked, Mode::OAuth | Mode::Byok) => return Stop(Reason::Locked),
        (At::AtLimit, Mode::OAuth) => return Stop(Reason::ParallelismLimit),
        (At::OverQuota, Mode::Metered) => return Stop(Reason::CreditsExhausted),
        (At::OverQuota, Mode::Shared) => return Stop(Reason::SharedQuotaExceeded),
        (At::EndpointDown | At::Rejected, Mode::Local) => return Stop(Reason::LocalEndpointUnreachable),
        (At::Lapsed, Mode::OAuth) => return Stop(Reason::SubscriptionInactive),
        (At::Lapsed, Mode::Byok) => return FallBack(Reason::SubscriptionInactive),
        // An agent's word is not the provider's: of a key there is no refresh that the provider could refuse.
        (At::Rejected, Mode::Byok) => return Stop(Reason::ReauthRequired),
        (At::Rejected, Mode::OAuth) => {
            return match chosen {
                Chosen::FromSet => FallBack(Reason::ReauthRequired),
                Chosen::Pinned => Stop(Reason::ReauthRequired),
            };
        }
        (At::Rejected, Mode::Metered) => return Stop(Reason::MeteredKeyUnavailable),
        (At::Rejected, Mode::Shared) => return Stop(Reason::SharedKeyUnavailable),
        (At::Rejected, Mode::HostSession) => return Stop(Reason::HostSessionMissing),
        _ => return Never,
    };
    match chosen {
        Chosen::FromSet => Skip(absent),
        Chosen::Pinned => Stop(absent),
    }
}

/// The reason that a condition gives in a mode, whatever is done about it; `None` where it does not arise.
pub const fn reason(mode: AuthMode, condition: Condition) -> Option<Reason> {
    match outcome(mode, condition, Chosen::FromSet) {
        Outcome::Never => None,
        Outcome::Skip(reason) | Outcome::Stop(reason) | Outcome::FallBack(reason) => Some(reason),
    }
}

/// Whether a mode was passed over because there was nothing of it, rather than because somebody may not use it.
const fn is_absence(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ConnectAccount
            | Reason::NoCredentialConfigured
            | Reason::MeteredKeyUnavailable
            | Reason::SharedKeyUnavailable
            | Reason::HostSessionMissing
            | Reason::AuthModeRequiresLocalCapacity
    )
}

/// Why nothing is handed out when every way was passed over for one of these reasons: the one that they share,
/// else the last that is more than an absence, else that nothing is configured.
pub fn nothing_left(skipped: impl IntoIterator<Item = Reason>) -> Reason {
    let mut all = skipped.into_iter();
    let Some(first) = all.next() else {
        return Reason::NoCredentialConfigured;
    };
    let (mut same, mut telling) = (true, (!is_absence(first)).then_some(first));
    for reason in all {
        same &= reason == first;
        if !is_absence(reason) {
            telling = Some(reason);
        }
    }
    match telling {
        _ if same => first,
        Some(reason) => reason,
        None => Reason::NoCredentialConfigured,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_mode_never_gives_way_but_to_a_lapsed_subscription() {
        for mode in AuthMode::ORDER {
            for condition in Condition::ALL.iter().copied() {
                match outcome(mode, condition, Chosen::Pinned) {
                    Outcome::Skip(_) => panic!("{} is skipped when {}", mode.name(), condition.name()),
                    Outcome::FallBack(_) => {
                        assert_eq!((mode, condition), (AuthMode::Byok, Condition::Lapsed));
                    }
                    Outcome::Never | Outcome::Stop(_) => {}
                }
            }
        }
    }

    #[test]
    fn both_columns_give_one_reason() {
        let of = |outcome| match outcome {
            Outcome::Never => None,
            Outcome::Skip(reason) | Outcome::Stop(reason) | Outcome::FallBack(reason) => Some(reason),
        };
        for mode in AuthMode::ORDER {
            for condition in Condition::ALL.iter().copied() {
                let [set, pinned] = Chosen::ALL.map(|chosen| of(outcome(mode, condition, chosen)));
                assert_eq!(set, pinned, "{} {}", mode.name(), condition.name());
                assert_eq!(set, reason(mode, condition));
            }
        }
    }

    #[test]
    fn the_reason_that_tells_most_is_given() {
        use Reason::{ConnectAccount, MeteredKeyUnavailable, MeteredNotEntitled, NoCredentialConfigured};
        assert_eq!(nothing_left([]), NoCredentialConfigured);
        assert_eq!(nothing_left([ConnectAccount]), ConnectAccount);
        assert_eq!(nothing_left([ConnectAccount, ConnectAccount]), ConnectAccount);
        assert_eq!(
            nothing_left([ConnectAccount, MeteredKeyUnavailable]),
            NoCredentialConfigured
        );
        assert_eq!(
            nothing_left([ConnectAccount, MeteredNotEntitled, NoCredentialConfigured]),
            MeteredNotEntitled
        );
    }
}

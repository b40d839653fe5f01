//! What an org has with whoever runs the broker: subscription, entitlement to metered keys, credit, quota.
//!
//! Amounts are whole millionths of the currency that the platform charges in; there is one, and the broker does
//! not know which. All arithmetic is checked.

use std::fmt;
use std::str::FromStr;

use super::id::OrgId;
use super::reason::Reason;
use super::time::Time;

/// Millionths of a unit of currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub i64);

/// How many of them are a unit.
const UNIT: u64 = 1_000_000;
/// How many decimal places that is.
const PLACES: usize = 6;

impl Micros {
    /// Nothing.
    pub const ZERO: Micros = Micros(0);

    /// The sum; `None` where it is no amount any more.
    pub fn plus(self, other: Micros) -> Option<Micros> {
        self.0.checked_add(other.0).map(Micros)
    }

    /// The difference; `None` where it is no amount any more.
    pub fn minus(self, other: Micros) -> Option<Micros> {
        self.0.checked_sub(other.0).map(Micros)
    }
}

/// As people write it: `25.00`, `-0.000001`. At least two decimal places, and no more than it takes.
impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        let fraction = format!("{:06}", magnitude % UNIT);
        let kept = fraction.trim_end_matches('0').len().max(2);
        let sign = if self.0 < 0 { "-" } else { "" };
        f.pad(&format!("{sign}{}.{}", magnitude / UNIT, &fraction[..kept]))
    }
}

/// A text that is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAmount {
    /// It is no decimal number.
    #[error("an amount is a decimal number with at most 6 decimal places, such as 25 or -0.50")]
    Malformed,
    /// It is past what can be kept.
    #[error("the amount is too large")]
    TooLarge,
}

impl FromStr for Micros {
    type Err = NoAmount;

    fn from_str(text: &str) -> Result<Self, NoAmount> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = match digits.split_once('.') {
            Some((_, "")) => return Err(NoAmount::Malformed),
            Some(parts) => parts,
            None => (digits, ""),
        };
        let plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !plain(whole) || !plain(fraction) || fraction.len() > PLACES {
            return Err(NoAmount::Malformed);
        }
        let all = format!("{whole}{fraction:0<PLACES$}");
        // The sign goes along, so that the least amount has a way in.
        let all = if negative { format!("-{all}") } else { all };
        all.parse().map(Micros).map_err(|_| NoAmount::TooLarge)
    }
}

macro_rules! choices {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$of])* $variant,)* }

        impl $name {
            /// The name in commands, tables and the journal.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }
    };
}

choices! {
    /// Whether the org's subscription holds.
    Subscription {
        /// It does.
        Active, "active";
        /// It does not: what the org brings itself is not served.
        Inactive, "inactive";
    }
}

choices! {
    /// Whether the org may use metered keys.
    Entitlement {
        /// As the configuration says for all (`metered.allow_all`).
        Default, "default";
        /// It may.
        Granted, "granted";
        /// It may not.
        Withdrawn, "withdrawn";
    }
}

/// An org's account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The org.
    pub org: OrgId,
    /// Its subscription.
    pub subscription: Subscription,
    /// Whether it may use metered keys.
    pub metered: Entitlement,
    /// How many shared dispatches it may have a UTC day; `None`: as the configuration says for all.
    pub shared_per_day: Option<u32>,
    /// Its credit. May be below zero: usage is reported after the fact.
    pub balance: Micros,
    /// When it was last changed; `None`: never.
    pub updated: Option<Time>,
}

impl Account {
    /// The account of an org of which nothing was said yet.
    pub fn new(org: OrgId) -> Self {
        Self {
            org,
            subscription: Subscription::Active,
            metered: Entitlement::Default,
            shared_per_day: None,
            balance: Micros::ZERO,
            updated: None,
        }
    }

    /// Whether a metered key may be handed out; `allow_all` is what holds where nothing was said.
    pub fn metered(&self, allow_all: bool) -> Result<(), Reason> {
        let entitled = match self.metered {
            Entitlement::Default => allow_all,
            Entitlement::Granted => true,
            Entitlement::Withdrawn => false,
        };
        if !entitled {
            return Err(Reason::MeteredNotEntitled);
        }
        if self.balance <= Micros::ZERO {
            return Err(Reason::CreditsExhausted);
        }
        Ok(())
    }

    /// Whether the subscription holds.
    pub fn subscribed(&self) -> Result<(), Reason> {
        match self.subscription {
            Subscription::Active => Ok(()),
            Subscription::Inactive => Err(Reason::SubscriptionInactive),
        }
    }

    /// How many shared dispatches it may have a UTC day, where `all` is what holds for all.
    pub fn shared_limit(&self, all: u32) -> u32 {
        self.shared_per_day.unwrap_or(all)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::id::Id;

    #[test]
    fn amounts_are_read_as_they_are_shown() {
        for (text, micros) in [
            ("25.00", 25_000_000),
            ("0.10", 100_000),
            ("-0.000001", -1),
            ("0.00", 0),
            ("9223372036854.775807", i64::MAX),
            ("-9223372036854.775808", i64::MIN),
        ] {
            assert_eq!(text.parse(), Ok(Micros(micros)));
            assert_eq!(Micros(micros).to_string(), text);
        }
        assert_eq!("7".parse(), Ok(Micros(7_000_000)));
        assert_eq!("007.5".parse(), Ok(Micros(7_500_000)));
        for text in [
            "",
            "-",
            ".5",
            "1.",
            "1.0000001",
            "1e3",
            "+1",
            "1,5",
            "--1",
            " 1",
            "١",
        ] {
            assert_eq!(text.parse::<Micros>(), Err(NoAmount::Malformed), "{text}");
        }
        for text in ["9223372036854.775808", "99999999999999999999"] {
            assert_eq!(text.parse::<Micros>(), Err(NoAmount::TooLarge));
        }
        assert_eq!(Micros(i64::MAX).plus(Micros(1)), None);
        assert_eq!(Micros(i64::MIN).minus(Micros(1)), None);
    }

    #[test]
    fn entitlement_comes_before_credit() {
        let org = Id::from_bytes([1; 16]);
        let judged = |metered, balance: i64, allow_all| {
            let account = Account {
                metered,
                balance: Micros(balance),
                ..Account::new(org)
            };
            account.metered(allow_all).err()
        };
        let (denied, empty) = (Some(Reason::MeteredNotEntitled), Some(Reason::CreditsExhausted));
        for (metered, allow_all, may) in [
            (Entitlement::Default, true, true),
            (Entitlement::Default, false, false),
            (Entitlement::Granted, false, true),
            (Entitlement::Withdrawn, true, false),
        ] {
            let expected = |reason| if may { reason } else { denied };
            assert_eq!(judged(metered, 1, allow_all), expected(None));
            assert_eq!(judged(metered, 0, allow_all), expected(empty));
            assert_eq!(judged(metered, -1, allow_all), expected(empty));
        }
    }
}

//! The tokens of an account that is gone, on their way to being revoked at the provider (RFC 7009): what becomes of each,
//! when the provider is asked again, and when nobody asks any more. Decided without I/O.
//!
//! A revocation may be sent any number of times: a token that is revoked already is answered like one that was
//! (RFC 7009 section 2.2). So whatever is not confirmed is asked for again, after a crash too; but only so often, and
//! with growing pauses.

use std::time::Duration;

use super::id::{CredentialId, MemberId, OrgId, RevocationId};
use super::time::Time;

/// Which token of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// The refresh token.
    Refresh,
    /// An access token.
    Access,
}

impl TokenKind {
    /// Its name as OAuth has it (RFC 7009 section 2.1).
    pub const fn name(self) -> &'static str {
        match self {
            TokenKind::Refresh => "refresh_token",
            TokenKind::Access => "access_token",
        }
    }
}

/// What became of a token at the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Not confirmed yet; the provider is asked (again).
    Pending,
    /// The provider confirmed it.
    Revoked,
    /// It goes with the refresh token of its grant, which the provider confirmed.
    WithGrant,
    /// It works until it expires.
    Expires,
    /// The provider refused it, or was not to be reached for as long as it was tried.
    GivenUp,
}

impl Fate {
    /// As a word, for the journal and for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Fate::Pending => "pending",
            Fate::Revoked => "revoked",
            Fate::WithGrant => "revoked_with_grant",
            Fate::Expires => "expires",
            Fate::GivenUp => "given_up",
        }
    }
}

/// A token and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedToken {
    /// Which.
    pub kind: TokenKind,
    /// What became of it.
    pub fate: Fate,
    /// When it stops working by itself, where that is known.
    pub expires: Option<Time>,
    /// What there is to say of it, at most [`MAX_MESSAGE`] characters; the provider's own words, redacted, come after
    /// `the provider:`.
    pub message: String,
}

/// The longest message kept, in characters: a revocation with all its tokens fits one value of the store.
pub const MAX_MESSAGE: usize = 160;

/// What is said of a refresh token that was on its way to the provider when its account went.
const IN_DOUBT: &str = "a refresh was under way: the provider may have replaced it";

impl RevokedToken {
    /// One that the provider was not asked about yet.
    pub const fn pending(kind: TokenKind, expires: Option<Time>) -> Self {
        Self {
            kind,
            fate: Fate::Pending,
            expires,
            message: String::new(),
        }
    }

    /// Says of it that an exchange was under way when the account went: the provider may have another in its place, and
    /// confirm this one without ending that.
    pub fn doubt(&mut self) {
        IN_DOUBT.clone_into(&mut self.message);
    }

    /// Whether [`RevokedToken::doubt`] was said of it.
    pub fn is_in_doubt(&self) -> bool {
        self.message.starts_with(IN_DOUBT)
    }

    fn becomes(&mut self, fate: Fate, message: &str) {
        let parts = [if self.is_in_doubt() { IN_DOUBT } else { "" }, message];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        self.fate = fate;
        self.message = parts.join("; ").chars().take(MAX_MESSAGE).collect();
    }
}

/// The revocation of what an account had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Its id.
    pub id: RevocationId,
    /// The org.
    pub org: OrgId,
    /// Whose account it was; `None`: the org's.
    pub member: Option<MemberId>,
    /// The connector.
    pub connector: String,
    /// The credential that it was; `None`: none was made of the grant.
    pub credential: Option<CredentialId>,
    /// Whether the tokens still lie where the credential had them. They are taken from there before the first try.
    pub with_credential: bool,
    /// The tokens, refresh tokens first. At most [`MAX_TOKENS`].
    pub tokens: Vec<RevokedToken>,
    /// How often the provider was asked.
    pub attempts: u32,
    /// When it is asked next; `None`: never.
    pub next: Option<Time>,
    /// When it began.
    pub created: Time,
    /// When it ended.
    pub ended: Option<Time>,
}

/// The most tokens of one revocation: those that a credential had, and those that a last exchange brought.
pub const MAX_TOKENS: usize = 4;
/// How often the provider is asked. With [`PAUSE_FIRST`] and [`PAUSE_MAX`] that takes two to three days on average and five
/// at most: longer than a weekend's outage, and most refresh tokens that nobody uses are not worth more.
pub const MAX_ATTEMPTS: u32 = 24;
/// The longest that is chosen from after the first try; doubled with each further one.
pub const PAUSE_FIRST: Duration = Duration::from_secs(2);
/// The shortest pause: what jitter chooses below it would be none.
pub const PAUSE_LEAST: Duration = Duration::from_millis(500);
/// The longest that is chosen from.
pub const PAUSE_MAX: Duration = Duration::from_secs(12 * 3_600);
/// The longest pause that a provider gets by asking for it.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3_600);
/// How long what ended is kept, to be read.
pub const KEPT: Duration = Duration::from_secs(7 * 86_400);

/// What a try found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The tokens were taken from where the credential had them.
    Gathered(Vec<RevokedToken>),
    /// A try begins: what has expired by now needs none.
    Begun,
    /// The provider has no way to revoke anything, or the tokens must not be revoked; why.
    Pointless(String),
    /// What the provider said of the token at this place.
    Heard(usize, Heard),
}

/// What a provider said of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is revoked.
    Revoked {
        /// Whether it is a provider that is known to end the access tokens of a grant with its refresh token. Those
        /// are not asked about then.
        with_grant: bool,
    },
    /// The provider does not revoke tokens of this kind (RFC 7009 section 2.2.1).
    Unsupported {
        /// What it said.
        message: String,
    },
    /// It could not be reached, or cannot do it now.
    NotNow {
        /// What happened.
        message: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// It refuses.
    Refused {
        /// What it said.
        message: String,
    },
}

/// How long to pause after so many tries: what the provider asks for, otherwise chosen evenly below a ceiling that
/// doubles (full jitter), by `fraction`, from 0 to 1.
pub fn pause(attempts: u32, fraction: f64, retry_after: Option<Duration>) -> Duration {
    if let Some(after) = retry_after.filter(|after| !after.is_zero()) {
        return after.clamp(PAUSE_LEAST, RETRY_AFTER_MAX);
    }
    let doublings = attempts.saturating_sub(1).min(20);
    let ceiling = PAUSE_FIRST.saturating_mul(1 << doublings).min(PAUSE_MAX);
    let fraction = if (0.0..1.0).contains(&fraction) {
        fraction
    } else {
        1.0
    };
    ceiling.mul_f64(fraction).max(PAUSE_LEAST)
}

impl Revocation {
    /// Whether the provider is to be asked at `now`. A time further off than any pause was set before the clock was put
    /// back, and is over.
    pub fn is_due(next: Time, now: Time) -> bool {
        next <= now || next.since(now) > RETRY_AFTER_MAX
    }

    /// The place of the token to be asked about next; `None`: of none.
    pub fn next_token(&self) -> Option<usize> {
        self.tokens.iter().position(|token| token.fate == Fate::Pending)
    }

    /// Whether it ended, and may be forgotten at `now`.
    pub fn is_over(&self, now: Time) -> bool {
        self.ended.is_some_and(|ended| now >= ended + KEPT)
    }

    /// Whether the provider confirmed all that it could be asked for.
    pub fn is_confirmed(&self) -> bool {
        let confirmed = |token: &RevokedToken| matches!(token.fate, Fate::Revoked | Fate::WithGrant);
        self.tokens.iter().all(confirmed)
    }

    /// What follows from `event` at `now`; `fraction` chooses the pause. Of what has ended nothing changes.
    #[must_use]
    pub fn on(&self, event: Event, now: Time, fraction: f64) -> Revocation {
        if self.ended.is_some() {
            return self.clone();
        }
        let mut next = self.clone();
        match event {
            Event::Gathered(mut tokens) => {
                tokens.truncate(MAX_TOKENS);
                tokens.sort_by_key(|token| token.kind == TokenKind::Access);
                (next.tokens, next.with_credential) = (tokens, false);
            }
            Event::Begun => {
                let over = |token: &&mut RevokedToken| token.expires.is_some_and(|expires| expires <= now);
                next.pending()
                    .filter(over)
                    .for_each(|token| token.becomes(Fate::Expires, ""));
            }
            Event::Pointless(why) => next
                .pending()
                .for_each(|token| token.becomes(Fate::Expires, &why)),
            Event::Heard(place, heard) => next.heard(place, heard, now, fraction),
        }
        if !next.with_credential && next.next_token().is_none() {
            (next.next, next.ended) = (None, Some(now));
        }
        next
    }

    fn pending(&mut self) -> impl Iterator<Item = &mut RevokedToken> {
        self.tokens.iter_mut().filter(|token| token.fate == Fate::Pending)
    }

    fn heard(&mut self, place: usize, heard: Heard, now: Time, fraction: f64) {
        let Some(token) = self.tokens.get_mut(place) else {
            return;
        };
        if token.fate != Fate::Pending {
            return;
        }
        match heard {
            Heard::Revoked { with_grant } => {
                let all = with_grant && token.kind == TokenKind::Refresh;
                token.becomes(Fate::Revoked, "");
                // There is one grant, so one refresh token, but where a last exchange brought another.
                if all
                    && self
                        .next_token()
                        .is_none_or(|next| self.tokens[next].kind == TokenKind::Access)
                {
                    self.pending()
                        .for_each(|token| token.becomes(Fate::WithGrant, ""));
                }
            }
            Heard::Unsupported { message } => token.becomes(Fate::Expires, &message),
            Heard::Refused { message } => token.becomes(Fate::GivenUp, &message),
            Heard::NotNow { message, retry_after } => {
                self.attempts = self.attempts.saturating_add(1);
                let over = self.attempts >= MAX_ATTEMPTS;
                for token in self.pending() {
                    let fate = if over { Fate::GivenUp } else { Fate::Pending };
                    token.becomes(fate, &message);
                }
                self.with_credential &= !over;
                self.next = (!over).then(|| now + pause(self.attempts, fraction, retry_after));
                return;
            }
        }
        if self.next_token().is_none() {
            self.attempts = self.attempts.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests;

//! Revocations at providers, as they are stored: what became of each token, and apart from that the tokens.

use crate::domain::revocation::{Fate, Revocation, RevokedToken, TokenKind};
use crate::domain::secret::{AccessToken, RefreshToken, Secret};
use crate::store::record::Record;
use crate::store::table::{choice, table};

/// The tokens that a revocation has still to revoke. One that was dealt with is not kept.
#[derive(Default)]
pub struct RevocationSecret {
    /// The tokens.
    pub tokens: Vec<KeptToken>,
}

/// A token to revoke: one of the two.
pub struct KeptToken {
    /// Which of the revocation's tokens it is, from 0.
    pub place: u32,
    /// A refresh token.
    pub refresh: Option<Secret<RefreshToken>>,
    /// An access token.
    pub access: Option<Secret<AccessToken>>,
}

/// That a revocation is to be tried; the key says which and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationDue {
    /// Its connector, so that a provider that hangs does not hold the others up.
    pub connector: String,
}

impl Record for Revocation {
    const VERSION: u8 = 1;
}

impl Record for RevocationSecret {
    const VERSION: u8 = 1;
    const LARGE: bool = true;
    const CACHE: bool = false;
}

impl Record for RevocationDue {
    const VERSION: u8 = 1;
    const CACHE: bool = false;
}

table!(Revocation {
    0 => id, 1 => org, 2 => member, 3 => connector, 4 => credential, 5 => with_credential, 6 => tokens,
    7 => attempts, 8 => next, 9 => created, 10 => ended,
});
table!(RevokedToken { 0 => kind, 1 => fate, 2 => expires, 3 => message });
table!(RevocationSecret { 0 => tokens });
table!(KeptToken { 0 => place, 1 => refresh, 2 => access });
table!(RevocationDue { 0 => connector });
choice!(TokenKind { 0 => Refresh, 1 => Access });
choice!(Fate { 0 => Pending, 1 => Revoked, 2 => WithGrant, 3 => Expires, 4 => GivenUp });

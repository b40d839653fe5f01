//! The tokens that are to be revoked: given by who has them, or found where a credential left them.

use crate::domain::revocation::{Fate, MAX_TOKENS, RevokedToken, TokenKind};
use crate::domain::secret::{AccessToken, Exposure, RefreshToken, Secret};
use crate::domain::time::Time;
use crate::store::model::{CredentialSecret, KeptToken, RevocationSecret, StagedAnswer};
use crate::upstream::answer::{Answer, classify};
use crate::upstream::connector::Connector;

use std::time::Duration;

/// The most bytes of tokens that one revocation keeps. What is past it is left to expire; a provider's one answer always
/// fits.
const MAX_BYTES: usize = 80 * 1024;

/// Tokens to revoke.
#[derive(Default)]
pub(in crate::service) struct Tokens(Vec<Token>);

struct Token {
    refresh: Option<Secret<RefreshToken>>,
    access: Option<Secret<AccessToken>>,
    expires: Option<Time>,
}

impl Token {
    fn bytes(&self) -> &[u8] {
        let why = Exposure::Inspect;
        let refresh = self.refresh.as_ref().map(|token| token.expose(why));
        let access = self.access.as_ref().map(|token| token.expose(why));
        refresh.or(access).unwrap_or_default()
    }

    fn kind(&self) -> TokenKind {
        match self.refresh {
            Some(_) => TokenKind::Refresh,
            None => TokenKind::Access,
        }
    }
}

impl Tokens {
    /// With a refresh token.
    pub(in crate::service) fn refresh(mut self, token: Secret<RefreshToken>, expires: Option<Time>) -> Self {
        let refresh = Some(token);
        let access = None;
        self.0.push(Token {
            refresh,
            access,
            expires,
        });
        self
    }

    /// With an access token.
    pub(in crate::service) fn access(mut self, token: Secret<AccessToken>, expires: Option<Time>) -> Self {
        let access = Some(token);
        let refresh = None;
        self.0.push(Token {
            refresh,
            access,
            expires,
        });
        self
    }

    /// Those that a token endpoint's answer brings; none, where it grants nothing.
    pub(in crate::service) fn of_answer(connector: &Connector, answer: &StagedAnswer) -> Self {
        let retry_after = answer.retry_after_ms.map(Duration::from_millis);
        match classify(connector, answer.status, retry_after, &answer.body) {
            Answer::Granted(granted) => {
                let life = granted.refresh_expires_in;
                let mut tokens = Self::default();
                if let Some(refresh) = granted.refresh_token {
                    tokens = tokens.refresh(refresh, life.map(|life| answer.received + life));
                }
                let expires = granted.expiry.map(|expiry| expiry.at(answer.received));
                tokens.access(granted.access_token, expires)
            }
            Answer::Rotated(refresh) => Self::default().refresh(refresh, None),
            _ => Self::default(),
        }
    }

    /// Those that a credential left: what a staged answer brings, with what that does not replace.
    pub(super) fn left(
        connector: &Connector,
        secret: &CredentialSecret,
        staged: Option<&StagedAnswer>,
        known: &[RevokedToken],
    ) -> Self {
        let mut tokens = staged.map_or_else(Self::default, |staged| Self::of_answer(connector, staged));
        let expires = |kind| known.iter().find(|token| token.kind == kind)?.expires;
        let rotated = tokens.0.iter().any(|token| token.refresh.is_some());
        if let Some(refresh) = secret.refresh.as_ref().filter(|_| !rotated) {
            tokens = tokens.refresh(copied(refresh), expires(TokenKind::Refresh));
        }
        if let Some(access) = &secret.access {
            tokens = tokens.access(copied(access), expires(TokenKind::Access));
        }
        tokens
    }

    pub(in crate::service) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is told of them and what is kept of them, refresh tokens first and each once.
    pub(super) fn into_parts(self) -> (Vec<RevokedToken>, RevocationSecret) {
        let mut all = self.0;
        all.sort_by_key(|token| token.kind() == TokenKind::Access);
        let (mut told, mut kept) = (Vec::new(), RevocationSecret::default());
        let (mut bytes, mut seen) = (0, Vec::new());
        for token in all {
            let hash = ring::digest::digest(&ring::digest::SHA256, token.bytes());
            let hash = hash.as_ref().to_vec();
            if told.len() >= MAX_TOKENS || seen.contains(&hash) {
                continue;
            }
            seen.push(hash);
            let pending = RevokedToken::pending(token.kind(), token.expires);
            if bytes + token.bytes().len() > MAX_BYTES {
                let fate = Fate::Expires;
                told.push(RevokedToken { fate, ..pending });
                continue;
            }
            bytes += token.bytes().len();
            told.push(pending);
            kept.tokens.push(KeptToken {
                place: u32::try_from(told.len() - 1).unwrap_or(u32::MAX),
                refresh: token.refresh,
                access: token.access,
            });
        }
        (told, kept)
    }
}

/// What a credential's secret has, as it is told before anybody was asked.
pub(in crate::service) fn told(
    secret: &CredentialSecret,
    refresh_expires: Option<Time>,
    expires: Option<Time>,
) -> Vec<RevokedToken> {
    let refresh = secret.refresh.as_ref();
    let access = secret.access.as_ref();
    let mut told = Vec::new();
    told.extend(refresh.map(|_| RevokedToken::pending(TokenKind::Refresh, refresh_expires)));
    told.extend(access.map(|_| RevokedToken::pending(TokenKind::Access, expires)));
    told
}

/// A copy that goes where secrets are sealed.
fn copied<K>(secret: &Secret<K>) -> Secret<K> {
    Secret::new(secret.expose(Exposure::Seal).to_vec())
}

//! ID tokens of configured issuers (OpenID Connect Core 1.0, Discovery 1.0): is this one's word, and about whom.
//!
//! [`Issuers::verify`] is the one way to a [`VerifiedIdToken`]. What a token says is checked first, so that a
//! token that cannot be taken causes no request to its issuer; then its signature, with the issuer's keys. Whose
//! member the subject is, is not decided here.

mod claims;
mod error;
mod fetch;
mod jws;
mod keyring;
mod keys;

use std::sync::Arc;

use crate::clock::Clock;
use crate::domain::oidc::Issuer;

pub use claims::VerifiedIdToken;
pub use error::{FetchError, IdTokenError, IssuerSetupError, TokenFault};
pub use jws::looks_signed;

/// The configured issuers.
pub struct Issuers {
    all: Vec<Trusted>,
    clock: Arc<dyn Clock>,
}

struct Trusted {
    issuer: Issuer,
    keyring: Arc<keyring::Keyring>,
}

impl Issuers {
    /// Sets up a client for each. Nothing is fetched yet, so that an issuer that is down keeps no broker from
    /// starting.
    ///
    /// # Errors
    /// A CA file cannot be used, or the system has no CA certificates.
    pub fn new(issuers: Vec<Issuer>, clock: Arc<dyn Clock>) -> Result<Self, IssuerSetupError> {
        let trusted = |issuer: Issuer| {
            let client = fetch::client(&issuer)?;
            let keyring = keyring::Keyring::new(issuer.url.clone(), client, Arc::clone(&clock));
            Ok(Trusted {
                issuer,
                keyring: Arc::new(keyring),
            })
        };
        let all: Result<_, IssuerSetupError> = issuers.into_iter().map(trusted).collect();
        Ok(Self { all: all?, clock })
    }

    /// The issuers, as configured.
    pub fn configured(&self) -> impl Iterator<Item = &Issuer> {
        self.all.iter().map(|trusted| &trusted.issuer)
    }

    /// Shows that a configured issuer says who the bearer is, or why not.
    ///
    /// # Errors
    /// The token is not taken, or nothing can be said of it for now.
    pub async fn verify(&self, token: &str) -> Result<VerifiedIdToken, IdTokenError> {
        let jws = jws::Jws::parse(token)?;
        let by_url = |trusted: &&Trusted| trusted.issuer.url == jws.claims.iss;
        let trusted = self.all.iter().find(by_url).ok_or(IdTokenError::IssuerUnknown)?;
        if !trusted.issuer.algorithms.contains(&jws.algorithm) {
            return Err(TokenFault::Algorithm.into());
        }
        let verified = claims::check(&jws.claims, &trusted.issuer, self.clock.wall())?;
        trusted.keyring.verify(&jws).await?;
        Ok(verified)
    }
}

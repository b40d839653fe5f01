//! Why an ID token is not taken, and who has to do something about it.

use std::time::Duration;

use crate::upstream::web::DocumentError;

/// What is wrong with a token. Told to whoever presents it; nothing of the token is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// It cannot be read.
    #[error("it is not a signed token: {0}")]
    Malformed(&'static str),
    /// It is signed, and for something else.
    #[error("it is another kind of token: send the ID token, not an access or refresh token")]
    NoIdToken,
    /// Its algorithm is not among those its issuer may use.
    #[error("its signature algorithm is not accepted from this issuer")]
    Algorithm,
    /// It is for somebody else.
    #[error("it was issued for another client (aud, azp)")]
    Audience,
    /// It has no subject, or none that can be.
    #[error("its subject is not 1 to 255 printable ASCII characters")]
    Subject,
    /// It begins later.
    #[error("it is not valid yet: compare the clocks")]
    NotYet,
    /// It was issued in the future.
    #[error("it was issued in the future: compare the clocks")]
    Issued,
    /// No key of the issuer's has its id and fits its algorithm.
    #[error("no key that its issuer publishes has signed it")]
    Key,
    /// The signature is not the key's.
    #[error("its signature is wrong")]
    Signature,
}

/// Why an ID token is not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IdTokenError {
    /// No configured issuer has issued it.
    #[error("its issuer is not configured")]
    IssuerUnknown,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// It is wrong, and stays so.
    #[error(transparent)]
    Fault(#[from] TokenFault),
    /// Its issuer's keys cannot be had, so that nothing can be said of it.
    #[error("the keys of its issuer cannot be had")]
    Unavailable {
        /// The issuer.
        issuer: String,
        /// When they are asked for again.
        retry_after: Duration,
    },
}

/// Why an issuer's keys cannot be fetched. For the log.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A document cannot be had.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// It is another issuer's document.
    #[error("{url}: it is the document of the issuer '{found}'; write the issuer as it does itself")]
    OtherIssuer {
        /// What was asked for.
        url: String,
        /// Whose document it is.
        found: String,
    },
    /// Its keys are where we do not go.
    #[error("{url}: its jwks_uri is not https")]
    Endpoint {
        /// What was asked for.
        url: String,
    },
    /// More keys than anybody needs.
    #[error("{url}: more than {most} keys")]
    TooManyKeys {
        /// What was asked for.
        url: String,
        /// The most that is taken.
        most: usize,
    },
}

/// Why issuers cannot be set up. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum IssuerSetupError {
    /// The file of CA certificates.
    #[error("the CA file {path} of the issuer {issuer} cannot be used: {message}; mend oidc.issuers")]
    CaFile {
        /// The issuer.
        issuer: String,
        /// The file.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// Mostly: no CA bundle on the system.
    #[error(
        "the HTTPS client for the issuer {issuer} cannot be set up: {message}; install the system's CA \
         certificates (package ca-certificates), or set its ca_file"
    )]
    Client {
        /// The issuer.
        issuer: String,
        /// What is wrong.
        message: String,
    },
}

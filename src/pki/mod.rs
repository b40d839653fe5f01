//! The broker's certificate authority and the TLS port.
//!
//! [`authority`] keeps a root and an issuing CA and signs two sorts of leaves: client certificates of
//! agents and API keys, and the broker's own server certificate. [`csr`] is the only way a public key gets in, [`identity`] the only way a name gets
//! out of a certificate. [`tls`] and [`accept`] put them on a port: TLS 1.3 only, client certificates
//! optional, no session resumption, everything a peer can hold bounded.
//!
//! Promises:
//! - A certificate says what the broker decided, never what a request asked for: of a CSR only the public
//!   key is used.
//! - A connection either has no identity, or one that was proven in a full handshake of that connection.
//! - Whether an agent is revoked or locked is not known here. It is asked for on every request, by others;
//!   so is a certificate that ends while its connection lives ([`identity::PeerIdentity::not_after`]).

pub mod accept;
pub mod authority;
pub mod connections;
pub mod csr;
pub mod identity;
pub mod key;
pub mod spiffe;
pub mod tls;

//! credbroker: a credential broker for sandboxed coding agents.
//!
//! Agents enroll once, then ask over mTLS for the credential of the task at hand. The broker decides
//! whose credential and which auth mode, refreshes each OAuth grant exactly once per expiry, and writes
//! every decision to its journal before it answers. `docs/architecture.md` has the invariants.

pub mod clock;
pub mod domain;
pub mod journal;
pub mod proto;

pub mod cli;

#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod daemon;
#[cfg(feature = "server")]
pub mod dev;
#[cfg(feature = "server")]
pub mod metrics;
#[cfg(feature = "server")]
pub mod pki;
#[cfg(feature = "server")]
pub mod rpc;
#[cfg(feature = "server")]
pub mod service;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "server")]
pub mod telemetry;
#[cfg(feature = "server")]
pub mod upstream;

//! The gRPC API: translates between the wire and the use cases, and decides nothing but who may call what.
//!
//! A request passes, in this order: the limit on requests in flight, its span, its time limit, the access
//! table (`access`), authentication (`gate`), its handler. Every failure leaves through `status`.

mod access;
mod access_convert;
mod access_service;
mod accounts;
mod agents;
mod approvals;
mod billing;
mod broker;
mod connectors;
mod convert;
mod credential_status;
mod credential_test;
mod credentials;
mod decision;
mod directory;
mod enrollment;
mod executors;
mod gate;
mod identity_links;
mod journal;
mod locks;
mod material;
mod platform;
mod policy;
mod policy_convert;
mod secrets;
mod server;
mod status;
mod tasks;
mod watch;

pub use access::{ACCESS, Access, Row};
pub use server::{Limits, ServeError, serve};

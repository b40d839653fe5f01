//! The rules, pure: no async, no I/O, no clock, no serialization framework, no transport.
//!
//! Everything here takes what it needs as arguments and returns what it decides; `service` drives it.

pub mod actor;
pub mod agent;
pub mod amendment;
pub mod approval;
pub mod billing;
pub mod conditions;
pub mod cost;
pub mod credential;
pub mod day;
pub mod decision;
pub mod directory;
pub mod enrollment;
pub mod executor;
pub mod extension;
pub mod gate;
pub mod grant_token;
pub mod id;
pub mod impact;
pub mod journal;
pub mod key_shape;
pub mod lease;
pub mod lock;
pub mod managed;
pub mod matrix;
pub mod mode;
pub mod name;
pub mod network;
pub mod oidc;
pub mod owner;
pub mod plan;
pub mod policy;
pub mod pool;
pub mod profile;
pub mod readiness;
pub mod reason;
pub mod refusal;
pub mod role;
pub mod rotation;
pub mod secret;
pub mod task;
pub mod time;
pub mod token;
pub mod walk;
pub mod watch;

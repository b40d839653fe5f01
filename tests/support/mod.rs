//! What the tests over the port share: a broker in this process, and clients that call it like anybody else.

#![allow(dead_code, unreachable_pub, unused_imports)]

pub mod broker;
pub mod client;
pub mod clock;
pub mod oidc;
pub mod process;
pub mod provider;
pub mod raw;
pub mod scene;
pub mod state;
pub mod watching;

pub use broker::{Options, TestBroker};
pub use client::{Caller, Enrolled, NewKey, details, reason};

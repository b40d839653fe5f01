//! Connecting accounts against a real OAuth server over HTTP: codes with PKCE by a scripted sign-in, device flows, what
//! is refused, given up, begun anew, lost on the way or cut short by a restart. Whether an account is connected is
//! asked of the server: the token that an agent is handed has to work there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub
)]

#[path = "connect/bounds.rs"]
mod bounds;
#[path = "connect/codes.rs"]
mod codes;
#[path = "connect/device.rs"]
mod device;
#[path = "connect/faults.rs"]
mod faults;
#[path = "support/faulty_proxy.rs"]
mod faulty_proxy;
#[path = "connect/scene.rs"]
mod scene;
mod support;
#[path = "support/web.rs"]
mod web;

use support::oidc;

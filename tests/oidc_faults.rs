//! Refresh, rotation, replay detection and revocation against a real OAuth server over HTTP, with a proxy in
//! between that drops, delays, cuts and duplicates: before the provider has seen a request, and after it has
//! acted. Seen from all sides: what the provider counted, what callers were told, what an operator is shown, what
//! those who watch hear, and what the journal says. Every token that a caller is handed is tried at the provider.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub
)]

#[path = "oidc_faults/elsewhere.rs"]
mod elsewhere;
#[path = "support/faulty_proxy.rs"]
mod faulty_proxy;
#[path = "oidc_faults/grace.rs"]
mod grace;
#[path = "oidc_faults/killed.rs"]
mod killed;
#[path = "oidc_faults/lost.rs"]
mod lost;
#[allow(dead_code)]
#[path = "crash/random.rs"]
mod random;
#[path = "oidc_faults/rotation.rs"]
mod rotation;
#[path = "oidc_faults/scene.rs"]
mod scene;
#[path = "oidc_faults/soak.rs"]
mod soak;
mod support;

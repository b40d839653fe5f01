//! Approvals: where an environment demands them, nothing is handed out without; who decides; what a use is.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

#[path = "approvals/bounds.rs"]
mod bounds;
#[path = "approvals/deciding.rs"]
mod deciding;
#[path = "approvals/kill.rs"]
mod kill;
#[path = "approvals/scene.rs"]
mod scene;
#[path = "approvals/using.rs"]
mod using;

//! Auth modes over the port: which one a task gets, what stands in the way of each, and what is done about it.
//!
//! Each worked example has a test of its own, and each cell of the table in `docs/auth-modes.md` is made and looked at.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "auth_modes/cells.rs"]
mod cells;
#[path = "auth_modes/conditions.rs"]
mod conditions;
#[path = "auth_modes/costs.rs"]
mod costs;
#[path = "auth_modes/gate.rs"]
mod gate;
#[path = "auth_modes/machine.rs"]
mod machine;
#[path = "auth_modes/picks.rs"]
mod picks;
#[path = "auth_modes/pinned.rs"]
mod pinned;
#[path = "auth_modes/platform.rs"]
mod platform;
#[path = "auth_modes/rejected.rs"]
mod rejected;
#[path = "auth_modes/running.rs"]
mod running;
#[path = "auth_modes/scene.rs"]
mod scene;
#[path = "auth_modes/subscription.rs"]
mod subscription;
mod support;

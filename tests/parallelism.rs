//! How many leases stand at once on a personal subscription, over the port: exactly as many as may, whoever asks,
//! whatever ends, and however the broker was stopped.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "parallelism/crowd.rs"]
mod crowd;
#[path = "parallelism/endings.rs"]
mod endings;
#[path = "parallelism/kill.rs"]
mod kill;
#[path = "parallelism/scene.rs"]
mod scene;
mod support;
#[path = "parallelism/told.rs"]
mod told;

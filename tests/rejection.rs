//! What follows when an agent reports that the provider rejects what it was handed out: how often it is replaced,
//! what nobody can do by reporting, when a task goes on to another credential, and what is told of it all.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "rejection/command.rs"]
mod command;
#[path = "rejection/hostile.rs"]
mod hostile;
#[path = "rejection/row.rs"]
mod row;
#[path = "rejection/scene.rs"]
mod scene;
#[path = "rejection/secrets.rs"]
mod secrets;
mod support;
#[path = "rejection/switch.rs"]
mod switch;
#[path = "support/user.rs"]
mod user;

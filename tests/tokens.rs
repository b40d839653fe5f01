//! The tokens and roles of people and services, over the port: who makes them for whom, how long they are good,
//! and that nobody gets more than they may give.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "tokens/api_keys.rs"]
mod api_keys;
#[path = "tokens/escalation.rs"]
mod escalation;
#[path = "tokens/form.rs"]
mod form;
#[path = "tokens/operators.rs"]
mod operators;
#[path = "tokens/recover.rs"]
mod recover;
#[path = "tokens/roles.rs"]
mod roles;
#[path = "tokens/scene.rs"]
mod scene;
mod support;
#[path = "tokens/used.rs"]
mod used;

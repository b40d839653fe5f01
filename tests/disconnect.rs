//! Disconnecting accounts over the port: what is gone here at once, what the provider was asked and how often, and that
//! nobody is told of a token that it is revoked before the provider has said so. Against the real OAuth server, and
//! against a revocation endpoint that fails in the ways that providers fail.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

#[path = "disconnect/bounds.rs"]
mod bounds;
#[path = "disconnect/cli.rs"]
mod cli;
#[path = "disconnect/killed.rs"]
mod killed;
#[path = "disconnect/later.rs"]
mod later;
#[path = "disconnect/provider.rs"]
mod provider;
#[path = "disconnect/real.rs"]
mod real;
#[path = "disconnect/scene.rs"]
mod scene;
mod support;
#[path = "disconnect/told.rs"]
mod told;
#[path = "disconnect/under_way.rs"]
mod under_way;
#[path = "support/user.rs"]
mod user;

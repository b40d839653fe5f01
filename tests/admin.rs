//! What operators administer: the directory, API keys, enrollment tokens, credentials; with repeats that make
//! nothing twice, changes that lose nothing, and pages.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

#[path = "admin/credentials.rs"]
mod credentials;
#[path = "admin/directory.rs"]
mod directory;
#[path = "admin/pages.rs"]
mod pages;
#[path = "admin/repeats.rs"]
mod repeats;
#[path = "admin/tokens.rs"]
mod tokens;

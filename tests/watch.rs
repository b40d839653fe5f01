//! The watch, over the port: who hears of what, that nothing is lost or told twice, and how streams end.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

#[path = "watch/audience.rs"]
mod audience;
#[path = "watch/ends.rs"]
mod ends;
#[path = "watch/resume.rs"]
mod resume;

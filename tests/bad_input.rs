//! What is wrong is refused with the right reason, and changes nothing: tokens, signing requests, callers,
//! messages, and references to what the caller may not see.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

#[path = "bad_input/callers.rs"]
mod callers;
#[path = "bad_input/enrollment.rs"]
mod enrollment;
#[path = "bad_input/fields.rs"]
mod fields;
#[path = "bad_input/hidden.rs"]
mod hidden;
#[path = "bad_input/messages.rs"]
mod messages;

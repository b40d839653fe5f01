//! mod
pub mod oauth;

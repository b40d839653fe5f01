//! mod
pub mod registry;

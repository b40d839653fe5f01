//! connector

/// How one OAuth server behaves, as data.
pub struct Connector;

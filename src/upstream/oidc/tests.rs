//! Refusals, by a scripted issuer.

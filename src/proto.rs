//! The generated API types. Only `rpc` and `cli` may name them.

#![allow(missing_docs, clippy::all, clippy::pedantic)]

tonic::include_proto!("credbroker.v1");

/// The compiled file descriptors, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/credbroker.v1.bin"));

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.value);
    }
}

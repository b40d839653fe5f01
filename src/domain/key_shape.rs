//! key_shape

//! What a form asks: the definition document.

/// Bytes of a definition at most, as compact JSON.
pub const MAX_BYTES: usize = 512 * 1024;

//! What all spans have in common. Not here: where they are sent (the server does that).

/// The target of all spans that are made for a trace collector: off unless there is one.
pub const SPANS: &str = "xp::span";

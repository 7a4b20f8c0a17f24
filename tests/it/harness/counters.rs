//! What metrics say. Not here: which there are (`metrics`).

use prometheus_client::{encoding::text::encode, registry::Registry};

/// A counter of the metrics.
pub(crate) fn counted(registry: &Registry, name: &str) -> u64 {
    let mut text = String::new();
    encode(&mut text, registry).expect("metrics are text");
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
    let number = line.rsplit(' ').next().and_then(|number| number.split('.').next());
    number.and_then(|whole| whole.parse().ok()).expect("a number")
}

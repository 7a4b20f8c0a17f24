//! The executor: batch-first on the registry of async-graphql. Object types are declared once (`object`) with their edges
//! (`edge`, `connection`); a document is read, checked and remembered (`limits`, `document`, `cost`), its variables are
//! coerced (`variables`), its selections planned (`plan`), its keys loaded without a timer (`batch`) and its answer
//! written in pieces (`output`, `scalar`, `bounds`). Not here: the types of the graph, who may see them.

pub mod batch;
pub mod bounds;
pub mod cache_control;
pub mod connection;
pub mod context;
pub mod cost;
pub mod document;
pub mod edge;
pub mod error;
#[cfg(any(test, feature = "bench"))]
pub mod fake;
pub mod federation;
pub mod introspection;
pub mod limits;
pub mod object;
pub mod output;
pub mod plan;
#[cfg(any(test, feature = "products"))]
pub mod products;
pub mod scalar;
pub mod variables;

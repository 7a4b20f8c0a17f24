//! Everything a client sees. Knows GraphQL and the functions of `entities`; names no SQL, no Redis and no HTTP (its
//! manifest has none of them).
//!
//! Layers, from below: the crate `engine` (types declared once, executed batch-first: documents, variables,
//! edges, batches, the answer), `auth` (who asks, and how they prove it), `context` and `request` (what one
//! request brings and knows), and `graph` (one request from text to bytes, and the domains, under the same
//! names as in the other crates). Beside them `changes` (what is different between two SDLs).
//!
//! The library async-graphql parses, validates, introspects and prints the schema. Queries are executed by
//! `engine::object`.

#![cfg_attr(not(test), warn(unused_crate_dependencies))]

mod answers;
pub mod auth;
pub mod changes;
mod context;
mod executor;
mod explain;
pub mod graph;
mod request;
mod subgraph;

pub use answers::digest;
/// Values of variables by name.
pub use async_graphql::Variables;
pub use auth::{
    access::{Access, AccessOptions},
    viewer::Viewer,
};
/// The executor.
pub use engine;
pub use engine::context::Context;
pub use engine::{
    bounds::{HeldMemory, Taken},
    cache_control::{Audience, CachePolicy},
    chunks::Chunks,
    document::{Document, OperationKind},
    error::OnError,
    limits::Limits,
    variables::{VariableSets, read as read_variables},
};
pub use executor::GraphFor;
pub use graph::{
    Graph, Opened, Options, PRIORITY_FIELDS,
    subscription::{Event, Events},
};
pub use request::{Caller, OnSlowRun, Progress, Reply, Request};
pub use subgraph::{Domain, Subgraph};

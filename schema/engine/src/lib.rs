#![doc = include_str!("../README.md")]
//!
//! # The modules
//!
//! The executor: batch-first on the registry of async-graphql. Object types are declared once (`object`) with their edges
//! (`edge`, `connection`); a document is read, checked and remembered (`limits`, `document`, `cost`), its variables are
//! coerced (`variables`), its selections planned (`plan`), its keys loaded without a timer (`batch`) and its answer
//! written in pieces (`output`, `scalar`, `bounds`). Not here: the types of the graph, who may see them.

#![cfg_attr(not(test), warn(unused_crate_dependencies))]

pub mod batch;
pub mod bounds;
pub mod cache_control;
pub mod connection;
pub mod context;
pub mod cost;
pub mod document;
pub mod edge;
pub mod error;
pub mod execute;
pub mod federation;
pub mod introspection;
pub mod limits;
pub mod object;
pub mod output;
pub mod plan;
pub mod scalar;
pub mod service;
pub mod variables;

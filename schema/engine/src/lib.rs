#![doc = include_str!("../README.md")]
//!
//! # The modules, from below
//!
//! | | |
//! |---|---|
//! | [`error`] | what a client may read of a failure: a code and a safe text |
//! | [`scalar`] | leaves: how Rust types are named in the schema and written as JSON |
//! | [`bounds`] | how long an answer may become, and the memory that all answers take |
//! | [`chunks`] | the bytes of an answer, in chunks that are never copied to grow |
//! | [`batch`] | loaders, sources, and the batcher, which loads without a timer |
//! | [`syntax`] | the text of a document, parsed in one pass |
//! | [`limits`] | how much a document may hold, counted while it is parsed |
//! | [`validation`] | whether a document fits the schema |
//! | [`cost`] | what a document may load, from the schema's `@cost` and `@listSize` |
//! | [`coordinates`] | the fields of the schema by number, and which an operation selects |
//! | [`cache_control`] | how long an answer keeps, and for whom |
//! | [`federation`] | the SDL that gateways read, their traces, what is for them alone |
//! | [`document`] | documents: parsed, validated and judged once, and remembered |
//! | [`variables`] | the values of variables, coerced to the types of the schema |
//! | [`plan`] | field collection and merging, as the specification has it |
//! | [`context`] | one request: loads, bounds, clock, and the schema's own data |
//! | [`output`] | writing an answer in pieces, with nulls and errors where fields fail |
//! | [`object`] | the declaration of object types, and running a selection on their rows |
//! | [`edge`] | edges to one object, to lists, to loaded values; resolvers |
//! | [`connection`] | edges to pages, by the Relay specification |
//! | [`public`] | objects over rows that everybody may see |
//! | [`service`] | `_service` of a subgraph |
//! | [`introspection`] | `__schema` and `__type`, answered by the library |
//! | [`execute`] | `Executor`: from a document's text to the bytes of its answer |
//!
//! Not here: the types of a graph, who may see them, where their rows come from, HTTP.

#![cfg_attr(not(test), warn(unused_crate_dependencies))]

pub mod batch;
pub mod bounds;
pub mod cache_control;
pub mod chunks;
pub mod connection;
pub mod context;
pub mod coordinates;
pub mod cost;
pub mod document;
pub mod edge;
pub mod error;
pub mod execute;
pub mod federation;
pub mod introspection;
pub mod limits;
pub mod live;
pub mod object;
pub mod output;
pub mod plan;
pub mod public;
pub mod scalar;
pub mod service;
pub mod syntax;
pub mod validation;
pub mod variables;

//! Rows, SQL and the cache: the only crate that knows a table. Knows no GraphQL and no HTTP.
//!
//! Layers, from below: `error`, `id`, `clock` and `unicode`; `database` (connections, statements, pages,
//! transactions) and `redis`; `cache` and `events` (what was written, as messages); `auth` (passwords, keys,
//! revocations) and `forms` (the rules of forms, without a database); `store` (the handle that has them all); then one
//! module for each domain, under the same name as in the other crates; `retention`, which removes what is old, and
//! `personal_data`, which tells and erases what is stored of one person.

#![cfg_attr(not(test), warn(unused_crate_dependencies))]

pub mod activity;
pub mod auth;
pub mod cache;
pub mod clock;
pub mod database;
pub mod error;
pub mod events;
pub mod form;
pub mod forms;
pub mod id;
pub mod idempotency;
pub mod location;
pub mod masked;
pub mod node;
pub mod personal_data;
pub mod redis;
pub mod retention;
pub mod session;
pub mod store;
pub mod submission;
pub mod telemetry;
pub mod unicode;
pub mod user;
pub mod warmup;
pub mod webhook;

pub use cache::{Cache, CacheOptions, CacheRead, Commits, DependencySet, Recorder, Tag, Version};
pub use database::statement_log::Executed;
pub use database::{
    Database, DatabaseOptions, Pooler, ReplicaOptions, ReplicaState, WriteFault,
    role::Role,
    sql::{Hidden, Json},
};
pub use error::{Error, Failure};
pub use id::NodeKind;
pub use store::Store;
pub use telemetry::SPANS;

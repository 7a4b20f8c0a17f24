//! The store room: rows, SQL and (later) the cache. The only place that knows a table; knows no GraphQL and no HTTP.
//!
//! In reading order: `store` (the handle), `pool` (PostgreSQL's connections), `sql` (statements and rows), `page` (keysets, cursors, pages per parent),
//! `scope` (which rows a caller may read), `transaction` (writes) and `change` (what was written, as news), then one file per domain under the same name as in every room.

pub mod activity;
pub mod cache;
pub mod change;
pub mod clock;
pub mod error;
pub mod form;
mod history;
pub mod id;
pub mod instance;
pub mod key;
pub mod location;
pub mod masked;
pub mod node;
pub mod page;
pub mod password;
mod pool;
pub mod redis;
pub mod revocation;
mod row;
pub mod scope;
pub mod secret;
pub mod seed;
pub mod session;
mod sql;
pub mod store;
pub mod submission;
pub mod texts;
mod transaction;
pub mod unicode;
pub mod user;
pub mod warm;

pub use cache::{Cache, CacheConfig, Moment, Tag, Touched};
pub use error::Error;
pub use sql::Json;
pub use store::{CacheRead, DatabaseConfig, Recorder, SPANS, Store};

//! What every test stands on: `db` (a private PostgreSQL, SQLite files, both seeded alike), `app` (a graph
//! over one of them, and clients who ask it), `clock` (one that can be set), `rows` (what is in its tables),
//! `forms` (one to fill in), `counters` (what metrics say), `introspection` (the schema as clients see it)
//! and `process` (the real program).

use std::sync::atomic::{AtomicBool, Ordering};

mod app;
mod certificates;
mod clock;
mod counters;
pub(crate) mod db;
mod forms;
mod introspection;
mod middlebox;
mod pgbouncer;
pub(crate) mod process;
mod proxy;
mod redis;
mod replication;
mod rows;
mod sentinels;
mod webhooks;

pub(crate) use app::{Client, Reply, Statement, TestApp};
pub(crate) use certificates::Certificates;
pub(crate) use clock::Clock;
pub(crate) use counters::counted;
pub(crate) use introspection::{SchemaTypes, introspect, text};
pub(crate) use middlebox::{Forgotten, MiddleBox};
pub(crate) use pgbouncer::PgBouncer;
pub(crate) use proxy::Proxy;
pub(crate) use redis::RedisServer;
pub(crate) use replication::{Primary, Standby};
pub(crate) use rows::{Columns, field_of, node_types};
pub(crate) use sentinels::SentinelGroup;

/// Lets other threads end, also where a test fails in the middle.
pub(crate) struct EndWhenDropped<'a>(pub(crate) &'a AtomicBool);

impl Drop for EndWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

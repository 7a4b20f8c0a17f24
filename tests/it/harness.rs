//! What every test stands on: `db` (a private PostgreSQL, SQLite files, both seeded alike), `app` (a graph over one
//! of them, and clients who ask it), `shape` (the schema, introspected) and `process` (the real program).

mod app;
pub(crate) mod db;
mod middle;
pub(crate) mod process;
mod proxy;
mod redis;
mod shape;

pub(crate) use app::{Client, Reply, Statement, TestApp};
pub(crate) use middle::{Forgotten, MiddleBox};
pub(crate) use proxy::Proxy;
pub(crate) use redis::RedisServer;
pub(crate) use shape::{Shape, shape, text};

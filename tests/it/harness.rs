//! What every test stands on: `db` (a private PostgreSQL, SQLite files, both seeded alike), `app` (a graph over one
//! of them, and clients who ask it) and `shape` (the schema, introspected).

mod app;
pub(crate) mod db;
mod proxy;
mod redis;
mod shape;

pub(crate) use app::{Client, Reply, Statement, TestApp};
pub(crate) use proxy::Proxy;
pub(crate) use redis::RedisServer;
pub(crate) use shape::{Shape, shape, text};

//! What every test stands on: `db` (a private PostgreSQL, SQLite files, both seeded alike) and `app` (a graph over
//! one of them, and clients who ask it).

mod app;
mod db;

pub(crate) use app::{Client, Reply, Statement, TestApp};

//! stub
/// Where the database is.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// `postgres://…` or `sqlite:path`.
    pub url: String,
    /// Connections kept open at most (PostgreSQL; SQLite readers).
    pub max_connections: u32,
    /// How long connecting, or waiting for a connection, may take.
    pub acquire_timeout: std::time::Duration,
}
/// The store room's handle: database and, later, cache. Cheap to clone.
#[derive(Clone)]
pub struct Store {}
impl Store {
    /// Connects; fails with one clear message (never shows the password).
    pub async fn connect(_config: &DatabaseConfig, _registry: &mut prometheus_client::registry::Registry) -> Result<Self, Error> { Ok(Self {}) }
    /// The connection that migrations and seeds run on.
    pub fn connection(&self) -> &sea_orm::DatabaseConnection { unimplemented!() }
    /// One round trip; is the database there?
    pub async fn ping(&self) -> Result<(), Error> { Ok(()) }
    /// Closes the pool.
    pub async fn close(self) {}
}
/// stub
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

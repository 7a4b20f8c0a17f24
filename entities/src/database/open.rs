//! How a database is opened: the options of the driver, and the file of SQLite. Not here: PostgreSQL's connections for serving
//! (`pool`).

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt as _, str::FromStr as _, time::Duration};

use sea_orm::{
    ConnectOptions,
    sqlx::{
        self,
        sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
    },
};

use super::DatabaseOptions;
use crate::error::Error;

pub(super) fn is_in_memory(url: &str) -> bool {
    url.contains(":memory:") || url.contains("mode=memory")
}

/// Makes a SQLite file that is not there yet, for its owner alone: it holds password hashes and everybody's answers. SQLite
/// gives the rights of the file to the two beside it (`-wal`, `-shm`).
pub(super) fn make_private_file(url: &str) -> Result<(), Error> {
    if !url.starts_with("sqlite:") {
        return Ok(());
    }
    let failed = |source: std::io::Error| Error::unavailable(sqlx::Error::Io(source));
    let options = SqliteConnectOptions::from_str(url).map_err(Error::unavailable)?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(options.get_filename()) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

pub(super) fn options(config: &DatabaseOptions) -> ConnectOptions {
    let in_memory = is_in_memory(&config.url);
    let is_postgres = config.url.starts_with("postgres");
    let mut options = ConnectOptions::new(config.url.clone());
    options
        .max_connections(if in_memory { 1 } else { config.max_connections })
        .connect_timeout(config.acquire_timeout)
        .acquire_timeout(config.acquire_timeout)
        // PostgreSQL's is only for migrations and demo data.
        .connect_lazy(is_postgres)
        .sqlx_logging(false)
        // A round trip before each use would cost a short statement half its time.
        .test_before_acquire(is_postgres)
        .map_sqlx_postgres_opts(|options| options.application_name("xp").statement_cache_capacity(500))
        .map_sqlx_sqlite_opts(|options| {
            options
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                // What is acknowledged is on the disk: also a machine that loses its power has it. With NORMAL it would be
                // there after the next checkpoint only (<https://sqlite.org/pragma.html#pragma_synchronous>).
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(Duration::from_secs(5))
                .foreign_keys(true)
                // The driver hands rows over from its own thread; the default of 50 costs a wake-up for each 50.
                .row_buffer_size(2_048)
        });
    if is_postgres {
        options.idle_timeout(Duration::from_secs(10));
    }
    if in_memory {
        // The database lives as long as its one connection.
        options.min_connections(1).idle_timeout(None).max_lifetime(None);
    }
    options
}

//! How a database is opened: the options of the driver, and the file of SQLite. Not here: PostgreSQL's
//! connections for serving (`pool`).

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt as _, str::FromStr as _, time::Duration};

use sea_orm::{
    ConnectOptions,
    sqlx::{
        self, ConnectOptions as _,
        postgres::PgConnectOptions,
        sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
    },
};

use super::{DatabaseOptions, Pooler};
use crate::error::Error;

pub(super) fn is_in_memory(url: &str) -> bool {
    url.contains(":memory:") || url.contains("mode=memory")
}

/// Makes a SQLite file that is not there yet, for its owner alone: it holds password hashes and everybody's
/// answers. SQLite gives the rights of the file to the two beside it (`-wal`, `-shm`).
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

/// What all connections to PostgreSQL have in common.
fn postgres_options(options: PgConnectOptions) -> PgConnectOptions {
    options.application_name("xp").statement_cache_capacity(500).disable_statement_logging()
}

/// How long a transaction of a request may wait for its next statement. One whose server is gone would keep
/// its rows locked until PostgreSQL's keepalive notices, two hours later by default.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(5);

/// What PostgreSQL bounds on a connection for serving, which ends statements that take longer than this:
/// settings and their values.
pub(super) fn bounds(limit: Duration) -> [(&'static str, String); 2] {
    let milliseconds = |time: Duration| time.as_millis().to_string();
    [
        ("statement_timeout", milliseconds(limit)),
        ("idle_in_transaction_session_timeout", milliseconds(IDLE_IN_TRANSACTION)),
    ]
}

/// What a connection to PostgreSQL itself is opened with: it ends statements that take longer than this.
pub(super) fn direct(options: PgConnectOptions, limit: Option<Duration>) -> PgConnectOptions {
    let options = postgres_options(options);
    match limit {
        Some(limit) => options.options(bounds(limit)),
        None => options,
    }
}

/// What a connection to a pooler is opened with: it knows few parameters of the start. What else there is to
/// say is said afterwards (`pool`). Values come in binary, which has all digits without `extra_float_digits`.
fn indirect(options: PgConnectOptions) -> PgConnectOptions {
    postgres_options(options).extra_float_digits(None)
}

/// What a connection for serving is opened with.
pub(super) fn serving(options: PgConnectOptions, config: &DatabaseOptions) -> PgConnectOptions {
    match config.pooler {
        Pooler::None => direct(options, config.statement_timeout),
        Pooler::Session | Pooler::Transaction => indirect(options),
    }
}

/// The URLs of the servers that one of PostgreSQL names (`postgres://a,b:5433/name`), and the whole of any
/// other. Which of them takes the writes is found by asking, so libpq's word for it (`target_session_attrs`)
/// is left out.
pub fn split_hosts(url: &str) -> Vec<String> {
    let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| scheme.starts_with("postgres"))
    else {
        return vec![url.to_owned()];
    };
    let (rest, parameters) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let parameters: Vec<&str> = parameters
        .into_iter()
        .flat_map(|query| query.split('&'))
        .filter(|parameter| !parameter.starts_with("target_session_attrs="))
        .collect();
    let query = if parameters.is_empty() { String::new() } else { format!("?{}", parameters.join("&")) };
    let (account, rest) = rest.rsplit_once('@').map_or(("", rest), |(account, rest)| (account, rest));
    let account = if account.is_empty() { String::new() } else { format!("{account}@") };
    let (hosts, name) = rest.split_once('/').map_or((rest, ""), |(hosts, name)| (hosts, name));
    hosts.split(',').map(|host| format!("{scheme}://{account}{}/{name}{query}", host.trim())).collect()
}

pub(super) fn options(config: &DatabaseOptions) -> ConnectOptions {
    let in_memory = is_in_memory(&config.url);
    let is_postgres = config.url.starts_with("postgres");
    // The first of several servers, until it is known which of them takes the writes.
    let url = config.direct_url.as_ref().unwrap_or(&config.url);
    let mut options = ConnectOptions::new(split_hosts(url).swap_remove(0));
    // Without a way around the pooler, what it does not know is not said.
    let is_direct = config.pooler == Pooler::None || config.direct_url.is_some();
    let limit = config.statement_timeout;
    options
        .max_connections(if in_memory { 1 } else { config.max_connections })
        .connect_timeout(config.acquire_timeout)
        .acquire_timeout(config.acquire_timeout)
        // PostgreSQL's is only for migrations and demo data.
        .connect_lazy(is_postgres)
        .sqlx_logging(false)
        // A round trip before each use would cost a short statement half its time.
        .test_before_acquire(is_postgres)
        .map_sqlx_postgres_opts(
            move |options| {
                if is_direct { direct(options, limit) } else { indirect(options) }
            },
        )
        .map_sqlx_sqlite_opts(|options| {
            options
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                // What is acknowledged is on the disk: also a machine that loses its power has it. With
                // NORMAL it would be there after the next checkpoint only
                // (<https://sqlite.org/pragma.html#pragma_synchronous>).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_of_several_servers_is_one_for_each() {
        for (url, expected) in [
            ("postgres://h/db", &["postgres://h/db"][..]),
            ("sqlite:a,b.db", &["sqlite:a,b.db"]),
            (
                "postgres://u:p%2Cq@a,b:5433,[::1]:5434/db?target_session_attrs=read-write&sslmode=disable",
                &[
                    "postgres://u:p%2Cq@a/db?sslmode=disable",
                    "postgres://u:p%2Cq@b:5433/db?sslmode=disable",
                    "postgres://u:p%2Cq@[::1]:5434/db?sslmode=disable",
                ],
            ),
            ("postgresql://a,b/db?target_session_attrs=any", &["postgresql://a/db", "postgresql://b/db"]),
        ] {
            assert_eq!(split_hosts(url), expected, "{url}");
        }
    }
}

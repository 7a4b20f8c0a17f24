//! The connection that only asks whether the database is there. Not here: what is asked (`/readyz`).

use std::time::Duration;

use futures_util::future::{BoxFuture, Either, select};
use sea_orm::{
    DatabaseConnection, DbBackend, SqlxPostgresConnector, SqlxSqliteConnector,
    sqlx::{
        self, Connection as _, PgConnection, PgPool,
        postgres::PgPoolOptions,
        sqlite::{SqliteConnectOptions, SqlitePoolOptions},
    },
};
use tokio::{sync::Mutex, time::timeout};

/// How long closing it may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

pub(super) struct Probe {
    target: ProbeTarget,
    connection: Mutex<ProbeConnection>,
}

enum ProbeTarget {
    /// Wherever these connections lead.
    Postgres(PgPool),
    Sqlite(Box<SqliteConnectOptions>),
    /// In memory there is no second connection.
    Same(DatabaseConnection),
}

enum ProbeConnection {
    Nothing,
    Connected(DatabaseConnection),
    Closed,
}

impl Probe {
    pub(super) fn new(db: &DatabaseConnection, is_in_memory: bool) -> Self {
        let target = match db.get_database_backend() {
            DbBackend::Postgres => ProbeTarget::Postgres(db.get_postgres_connection_pool().clone()),
            _ if is_in_memory => ProbeTarget::Same(db.clone()),
            _ => {
                ProbeTarget::Sqlite(db.get_sqlite_connection_pool().connect_options().as_ref().clone().into())
            }
        };
        Self { target, connection: Mutex::new(ProbeConnection::Nothing) }
    }

    /// One caller at a time. A connection that is silent for a quarter of the time was forgotten on its way,
    /// perhaps: then a new one is asked beside it, which also has to be opened, and the first answer counts.
    pub(super) async fn ask<T>(
        &self,
        within: Duration,
        check: impl for<'a> Fn(&'a DatabaseConnection) -> BoxFuture<'a, T>,
    ) -> Option<T> {
        let asking = async {
            let mut connection = self.connection.lock().await;
            let db = match std::mem::replace(&mut *connection, ProbeConnection::Nothing) {
                ProbeConnection::Nothing => self.connect(within),
                ProbeConnection::Connected(db) if !self.is_current(&db) => self.connect(within),
                ProbeConnection::Connected(db) => {
                    let (answer, db) = self.ask_known(db, within, &check).await;
                    *connection = ProbeConnection::Connected(db);
                    return answer;
                }
                ProbeConnection::Closed => {
                    *connection = ProbeConnection::Closed;
                    let db = self.connect(within);
                    let _ = db.close_by_ref().await;
                    return check(&db).await;
                }
            };
            // Dropped here, with its connection, where the time is up.
            let answer = check(&db).await;
            *connection = ProbeConnection::Connected(db);
            answer
        };
        timeout(within, asking).await.ok()
    }

    /// Does this connection lead where a new one would? Another server may take the writes by now.
    fn is_current(&self, db: &DatabaseConnection) -> bool {
        let ProbeTarget::Postgres(following) = &self.target else { return true };
        let (known, new) = (db.get_postgres_connection_pool().connect_options(), following.connect_options());
        (known.get_host(), known.get_port()) == (new.get_host(), new.get_port())
    }

    /// The answer, and the connection that gave it.
    async fn ask_known<T>(
        &self,
        known: DatabaseConnection,
        within: Duration,
        check: &impl for<'a> Fn(&'a DatabaseConnection) -> BoxFuture<'a, T>,
    ) -> (T, DatabaseConnection) {
        let mut asked = check(&known);
        if let Ok(answer) = timeout(within / 4, &mut asked).await {
            drop(asked);
            return (answer, known);
        }
        let new = self.connect(within);
        let (answer, is_new) = match select(asked, check(&new)).await {
            Either::Left((answer, _)) => (answer, false),
            Either::Right((answer, _)) => (answer, true),
        };
        (answer, if is_new { new } else { known })
    }

    /// Whether the server of PostgreSQL is there, also where it refuses a connection (it has none left, or is
    /// starting). For SQLite there is no server to look for.
    pub(super) async fn is_reachable(&self, within: Duration) -> bool {
        let ProbeTarget::Postgres(db) = &self.target else { return true };
        match timeout(within, PgConnection::connect_with(&db.connect_options())).await {
            Ok(Ok(connection)) => {
                let _ = timeout(within, connection.close()).await;
                true
            }
            Ok(Err(sqlx::Error::Database(_))) => true,
            _ => false,
        }
    }

    pub(super) async fn close(&self) {
        let closing = async {
            let connection = std::mem::replace(&mut *self.connection.lock().await, ProbeConnection::Closed);
            if let (ProbeConnection::Connected(db), false) =
                (connection, matches!(self.target, ProbeTarget::Same(_)))
            {
                let _ = db.close().await;
            }
        };
        let _ = timeout(CLOSE_WITHIN, closing).await;
    }

    /// Connects when it is asked.
    fn connect(&self, within: Duration) -> DatabaseConnection {
        match &self.target {
            ProbeTarget::Postgres(db) => {
                let options = db.connect_options().as_ref().clone();
                let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(within);
                SqlxPostgresConnector::from_sqlx_postgres_pool(pool.connect_lazy_with(options))
            }
            ProbeTarget::Sqlite(options) => {
                let pool = SqlitePoolOptions::new().max_connections(1).acquire_timeout(within);
                SqlxSqliteConnector::from_sqlx_sqlite_pool(pool.connect_lazy_with((**options).clone()))
            }
            ProbeTarget::Same(db) => db.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::atomic::{AtomicU32, Ordering},
    };

    use sea_orm::Database;

    use super::*;

    /// A good part of the time is gone when the connection that is known answers; a new one does not.
    #[tokio::test]
    async fn a_slow_answer_of_the_known_connection_counts() {
        let db = Database::connect("sqlite::memory:").await.expect("it opens");
        let probe = Probe::new(&db, true);
        let (within, asked) = (Duration::from_secs(2), AtomicU32::new(0));
        let number = &asked;
        let answer = async || {
            let answered = probe.ask(within, |_| {
                let number = number.fetch_add(1, Ordering::Relaxed);
                Box::pin(async move {
                    match number {
                        0 => {}
                        1 => tokio::time::sleep(within / 2 + Duration::from_millis(200)).await,
                        _ => pending().await,
                    }
                    number
                })
            });
            answered.await
        };
        assert_eq!(answer().await, Some(0));
        assert_eq!(answer().await, Some(1));
        assert_eq!(asked.load(Ordering::Relaxed), 3, "a new one was asked beside it");
        assert_eq!(answer().await, None, "nobody answers");
    }
}

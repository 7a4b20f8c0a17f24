//! The connection that only asks whether the database is there. Not here: what is asked (`/readyz`).

use std::time::Duration;

use futures_util::future::BoxFuture;
use sea_orm::{
    DatabaseConnection, DbBackend, SqlxPostgresConnector, SqlxSqliteConnector,
    sqlx::{
        postgres::{PgConnectOptions, PgPoolOptions},
        sqlite::{SqliteConnectOptions, SqlitePoolOptions},
    },
};
use tokio::{sync::Mutex, time::timeout};

/// How long closing it may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

pub(super) struct Probe {
    target: Target,
    kept: Mutex<Kept>,
}

enum Target {
    Postgres(Box<PgConnectOptions>),
    Sqlite(Box<SqliteConnectOptions>),
    /// In memory there is no second connection.
    Same(DatabaseConnection),
}

enum Kept {
    Nothing,
    Connected(DatabaseConnection),
    Closed,
}

impl Probe {
    pub(super) fn new(db: &DatabaseConnection, is_in_memory: bool) -> Self {
        let target = match db.get_database_backend() {
            DbBackend::Postgres => {
                Target::Postgres(db.get_postgres_connection_pool().connect_options().as_ref().clone().into())
            }
            _ if is_in_memory => Target::Same(db.clone()),
            _ => Target::Sqlite(db.get_sqlite_connection_pool().connect_options().as_ref().clone().into()),
        };
        Self { target, kept: Mutex::new(Kept::Nothing) }
    }

    /// One caller at a time. A connection that did not answer is dropped, and the next caller has a new one.
    pub(super) async fn ask<T>(
        &self,
        within: Duration,
        check: impl for<'a> FnOnce(&'a DatabaseConnection) -> BoxFuture<'a, T>,
    ) -> Option<T> {
        let asking = async {
            let mut kept = self.kept.lock().await;
            let db = match std::mem::replace(&mut *kept, Kept::Nothing) {
                Kept::Nothing => self.connect(within),
                Kept::Connected(db) => db,
                Kept::Closed => {
                    *kept = Kept::Closed;
                    let db = self.connect(within);
                    let _ = db.close_by_ref().await;
                    return check(&db).await;
                }
            };
            // Dropped here, with its connection, where the time is up.
            let answer = check(&db).await;
            *kept = Kept::Connected(db);
            answer
        };
        timeout(within, asking).await.ok()
    }

    pub(super) async fn close(&self) {
        let closing = async {
            let kept = std::mem::replace(&mut *self.kept.lock().await, Kept::Closed);
            if let (Kept::Connected(db), false) = (kept, matches!(self.target, Target::Same(_))) {
                let _ = db.close().await;
            }
        };
        let _ = timeout(CLOSE_WITHIN, closing).await;
    }

    /// Connects when it is asked.
    fn connect(&self, within: Duration) -> DatabaseConnection {
        match &self.target {
            Target::Postgres(options) => {
                let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(within);
                SqlxPostgresConnector::from_sqlx_postgres_pool(pool.connect_lazy_with((**options).clone()))
            }
            Target::Sqlite(options) => {
                let pool = SqlitePoolOptions::new().max_connections(1).acquire_timeout(within);
                SqlxSqliteConnector::from_sqlx_sqlite_pool(pool.connect_lazy_with((**options).clone()))
            }
            Target::Same(db) => db.clone(),
        }
    }
}

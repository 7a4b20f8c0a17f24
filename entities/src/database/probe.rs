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
    target: ProbeTarget,
    connection: Mutex<ProbeConnection>,
}

enum ProbeTarget {
    Postgres(Box<PgConnectOptions>),
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
            DbBackend::Postgres => ProbeTarget::Postgres(
                db.get_postgres_connection_pool().connect_options().as_ref().clone().into(),
            ),
            _ if is_in_memory => ProbeTarget::Same(db.clone()),
            _ => {
                ProbeTarget::Sqlite(db.get_sqlite_connection_pool().connect_options().as_ref().clone().into())
            }
        };
        Self { target, connection: Mutex::new(ProbeConnection::Nothing) }
    }

    /// One caller at a time. A connection that is silent for half of the time was forgotten on its way, perhaps: it is
    /// dropped, and a new one is asked.
    pub(super) async fn ask<T>(
        &self,
        within: Duration,
        check: impl for<'a> Fn(&'a DatabaseConnection) -> BoxFuture<'a, T>,
    ) -> Option<T> {
        let asking = async {
            let mut connection = self.connection.lock().await;
            let db = match std::mem::replace(&mut *connection, ProbeConnection::Nothing) {
                ProbeConnection::Nothing => self.connect(within),
                ProbeConnection::Connected(db) => {
                    if let Ok(answer) = timeout(within / 2, check(&db)).await {
                        *connection = ProbeConnection::Connected(db);
                        return answer;
                    }
                    drop(db);
                    self.connect(within)
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
            ProbeTarget::Postgres(options) => {
                let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(within);
                SqlxPostgresConnector::from_sqlx_postgres_pool(pool.connect_lazy_with((**options).clone()))
            }
            ProbeTarget::Sqlite(options) => {
                let pool = SqlitePoolOptions::new().max_connections(1).acquire_timeout(within);
                SqlxSqliteConnector::from_sqlx_sqlite_pool(pool.connect_lazy_with((**options).clone()))
            }
            ProbeTarget::Same(db) => db.clone(),
        }
    }
}

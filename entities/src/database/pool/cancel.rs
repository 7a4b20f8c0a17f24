//! Tells PostgreSQL to stop working on a statement that nobody waits for any more, by a connection of its
//! own. Not here: when that is.

use std::time::Duration;

use sea_orm::sqlx::{self, ConnectOptions as _, PgConnection, postgres::PgConnectOptions};

/// How long it may take; the statement's own time-out ends it soon anyway.
const WITHIN: Duration = Duration::from_secs(1);

pub(super) struct Canceller {
    options: PgConnectOptions,
    connection: tokio::sync::Mutex<Option<PgConnection>>,
}

impl Canceller {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        Self { options, connection: tokio::sync::Mutex::default() }
    }

    /// Cancels what this process of the server works on.
    pub(super) async fn cancel(&self, backend: i32) {
        let cancelling = tokio::time::timeout(WITHIN, self.try_to(backend)).await;
        if !matches!(cancelling, Ok(Ok(()))) {
            tracing::warn!(?cancelling, "a statement could not be cancelled; it runs until its own time-out");
        }
    }

    /// A caller that gives up in the middle leaves no connection behind.
    async fn try_to(&self, backend: i32) -> Result<(), sqlx::Error> {
        let mut kept = self.connection.lock().await;
        if let Some(mut connection) = kept.take()
            && Self::ask(&mut connection, backend).await.is_ok()
        {
            *kept = Some(connection);
            return Ok(());
        }
        let mut connection = self.options.connect().await?;
        Self::ask(&mut connection, backend).await?;
        *kept = Some(connection);
        Ok(())
    }

    async fn ask(connection: &mut PgConnection, backend: i32) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT pg_cancel_backend($1)").bind(backend).execute(connection).await.map(drop)
    }
}

//! Listens to what PostgreSQL notifies, by a connection of its own to the server that takes the writes. What
//! is notified while there is none is lost: whoever listens has to look by itself as well, now and then. Not
//! here: who notifies, and what follows from it (`cache::outbox`).

use std::time::Duration;

use sea_orm::sqlx::{
    self, PgPool,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::time::timeout;

use super::Database;

/// How long connecting and beginning to listen may take.
const BEGIN_WITHIN: Duration = Duration::from_secs(2);
/// A connection that has said nothing for so long has to answer.
const SILENCE: Duration = Duration::from_secs(5);
/// How long it may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_secs(1);

impl Database {
    /// Calls `heard` at each notification on this channel, and when it begins to listen, until the database
    /// is closed. Returns at once where nobody can listen: on SQLite, and behind a pooler that lends
    /// connections for one transaction, unless there is a way around it.
    pub(crate) async fn listen(&self, channel: &str, heard: impl Fn() + Send) {
        if !self.opened.can_listen {
            return;
        }
        // It leads to whichever server takes the writes, and around the pooler.
        let following = self.opened.db.get_postgres_connection_pool();
        let listening = async {
            loop {
                // Ends when the connection does.
                let _ = listen_once(following, channel, &heard).await;
                tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
            }
        };
        let _: Result<(), sqlx::Error> = following.close_event().do_until(listening).await;
    }
}

async fn listen_once(
    following: &PgPool,
    channel: &str,
    heard: &(impl Fn() + Send),
) -> Result<(), sqlx::Error> {
    let late = |_| sqlx::Error::PoolTimedOut;
    let options = following.connect_options();
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options.as_ref().clone());
    let beginning = async {
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false);
        listener.listen(channel).await?;
        Ok::<_, sqlx::Error>(listener)
    };
    let mut listener = timeout(BEGIN_WITHIN, beginning).await.map_err(late)??;
    heard();
    loop {
        match timeout(SILENCE, listener.try_recv()).await {
            Ok(Ok(Some(_))) => heard(),
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                let leader = following.connect_options();
                let is_current =
                    (leader.get_host(), leader.get_port()) == (options.get_host(), options.get_port());
                if !is_current {
                    return Ok(());
                }
                let asking = sqlx::query("SELECT 1").execute(&mut listener);
                timeout(ANSWER_WITHIN, asking).await.map_err(late)??;
            }
        }
    }
}

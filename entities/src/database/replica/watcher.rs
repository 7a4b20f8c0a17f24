//! Looks where a server is in the write-ahead log, by a connection of its own. Not here: what follows from it
//! (`cache::replicas`).

use std::time::{Duration, Instant};

use sea_orm::sqlx::{self, ConnectOptions as _, PgConnection, postgres::PgConnectOptions};
use uuid::Uuid;

use crate::{
    clock::Time,
    database::pool::{Pool, ServerId, Watch, server_id},
    error::Error,
};

/// The position is where a standby has replayed to; of a primary, what is written there and will be sent.
/// Commits that were answered lie before it, also where PostgreSQL answers before it writes
/// (`synchronous_commit = off`). Text: these are functions of PostgreSQL itself, which the builders do not
/// know.
const LOOK: &str = "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
    WHEN current_setting('synchronous_commit') = 'off' THEN pg_current_wal_insert_lsn() \
    ELSE pg_current_wal_flush_lsn() END - '0/0')::bigint, \
    pg_is_in_recovery(), (SELECT seen_at FROM instances WHERE id = $1)";

/// Which server it is.
const SERVER: &str = concat!("SELECT ", server_id!());

/// Watches one server.
pub(crate) struct Watcher {
    target: Target,
    connection: Option<Known>,
}

enum Target {
    /// This server.
    One(Box<PgConnectOptions>),
    /// Whichever the writes of these connections go to.
    Primary(Pool),
}

impl Target {
    fn options(&self) -> &PgConnectOptions {
        match self {
            Self::One(options) => options,
            Self::Primary(pool) => pool.leader(),
        }
    }
}

struct Known {
    connection: PgConnection,
    server: ServerId,
    opened: Instant,
}

/// Where a server is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WatchedServer {
    /// What this holds for.
    pub(crate) watch: Watch,
    /// It takes no writes.
    pub(crate) is_standby: bool,
    /// The sign of life that it shows.
    pub(crate) beat: Option<Time>,
}

impl Watcher {
    /// Watches this server.
    pub(in crate::database) fn new(options: PgConnectOptions) -> Self {
        Self { target: Target::One(Box::new(options)), connection: None }
    }

    /// Watches the server that takes the writes.
    pub(in crate::database) fn of_primary(pool: Pool) -> Self {
        Self { target: Target::Primary(pool), connection: None }
    }

    /// Where the server is now; it also says which sign of life it has of this one. After an error a new connection is
    /// made for the next look.
    ///
    /// # Errors
    /// `Unavailable` where it does not answer in time.
    pub(crate) async fn look(&mut self, instance: Uuid, within: Duration) -> Result<WatchedServer, Error> {
        let mut known = self.connection.take();
        let looking = async {
            let mut connected = if let Some(connected) = known.take() {
                connected
            } else {
                let opened = Instant::now();
                let mut connection = self.target.options().connect().await?;
                let server = sqlx::query_scalar(SERVER).fetch_one(&mut connection).await?;
                Known { connection, server: ServerId(server), opened }
            };
            let asked = Instant::now();
            let looked = sqlx::query_as(LOOK).bind(instance).fetch_one(&mut connected.connection).await?;
            let (position, is_standby, beat): (Option<i64>, bool, Option<Time>) = looked;
            // A standby that has replayed nothing yet has no position.
            let position = position.unwrap_or_default();
            let watch = Watch { server: connected.server, opened: connected.opened, asked, position };
            Ok::<_, sqlx::Error>((WatchedServer { watch, is_standby, beat }, connected))
        };
        match tokio::time::timeout(within, looking).await {
            Ok(Ok((place, connected))) => {
                self.connection = Some(connected);
                Ok(place)
            }
            Ok(Err(error)) => Err(Error::unavailable(error)),
            Err(_) => Err(Error::no_connection_in_time()),
        }
    }

    /// The next look is made by a new connection.
    pub(crate) fn reconnect(&mut self) {
        self.connection = None;
    }
}

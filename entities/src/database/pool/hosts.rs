//! Opens a connection to the server that takes the writes, of one or of several hosts. Not here: who gets the
//! connection (`pool`), what a URL of several hosts is (`open`).

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use sea_orm::sqlx::{self, AssertSqlSafe, ConnectOptions as _, Executor as _, Row as _};
use tokio::time::timeout;

use super::{Open, PoolInner, ServerId, Session, server};
use crate::database::{Pooler, open::bounds};

/// A server that took the writes last and is silent for so long is not waited for: the others are asked as well.
const OTHERS_AFTER: Duration = Duration::from_millis(300);
/// The number of the process, which server it is, whether that is a standby, whether it takes no writes (as a
/// standby, or since it was told so), and how far a standby has replayed.
const WHAT_IT_IS: &str = concat!(
    "SELECT pg_backend_pid(), ",
    server::server_id!(),
    ", pg_is_in_recovery(), pg_is_in_recovery() OR current_setting('transaction_read_only')::bool, \
     coalesce((pg_last_wal_replay_lsn() - '0/0')::bigint, 0)"
);

/// The number of a primary's timeline: the first eight digits of the name of a file of its log.
const TIMELINE: &str =
    "SELECT ('x' || lpad(left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), 16, '0'))::bit(64)::bigint";

impl PoolInner {
    /// A connection to the only server, or to that of several that takes writes. Where none does, to one that
    /// is no standby all the same (its writes may have been turned off): standbys may know less than was
    /// acknowledged.
    pub(super) async fn open(&self) -> Result<Session, sqlx::Error> {
        if self.hosts.len() == 1 {
            return self.open_at(0).await;
        }
        let known = self.leader.load(Ordering::Relaxed);
        let mut read_only = None;
        match timeout(OTHERS_AFTER, self.open_leader_at(known)).await {
            Ok(Ok(session)) if session.is_read_only => read_only = Some(session),
            Ok(Ok(session)) => return Ok(session),
            Ok(Err(_)) | Err(_) => {}
        }
        let others = (0..self.hosts.len()).filter(|host| read_only.is_none() || *host != known);
        let mut opening: FuturesUnordered<_> = others.map(|host| self.open_leader_at(host)).collect();
        let mut failed = None;
        loop {
            let next = if read_only.is_none() {
                opening.next().await
            } else {
                timeout(OTHERS_AFTER, opening.next()).await.unwrap_or_default()
            };
            match next {
                Some(Ok(session)) if session.is_read_only => read_only = read_only.or(Some(session)),
                Some(Ok(session)) => {
                    self.follow(session.host);
                    return Ok(session);
                }
                Some(Err(error)) => failed = error.or(failed),
                None => break,
            }
        }
        if let Some(session) = read_only {
            self.follow(session.host);
            return Ok(session);
        }
        let none = || io::Error::new(io::ErrorKind::NotConnected, "none of the servers takes writes");
        Err(failed.unwrap_or_else(|| sqlx::Error::Io(none())))
    }

    /// # Errors
    /// `None` where it is not the server that takes the writes: a standby, or one that was replaced and does
    /// not know it. Whoever takes over begins a new timeline, with a higher number.
    async fn open_leader_at(&self, host: usize) -> Result<Session, Option<sqlx::Error>> {
        let mut session = self.open_at(host).await.map_err(Some)?;
        if session.is_standby {
            return Err(None);
        }
        // Some servers hide their log; then all are believed.
        let timeline = session.connection.fetch_one(sqlx::raw_sql(TIMELINE)).await;
        let timeline: i64 = timeline.and_then(|row| row.try_get(0)).unwrap_or(i64::MAX);
        let newest = if timeline == i64::MAX { 0 } else { timeline };
        let known = self.timeline.fetch_max(newest, Ordering::Relaxed);
        if timeline < known { Err(None) } else { Ok(session) }
    }

    /// This server takes the writes, as far as one does.
    fn follow(&self, host: usize) {
        if self.leader.swap(host, Ordering::Relaxed) == host {
            return;
        }
        let options = &self.hosts[host].options;
        tracing::info!(host = options.get_host(), port = options.get_port(), "this server takes the writes");
        if let Some(following) = &self.following {
            following.set_connect_options(options.clone());
        }
    }

    async fn open_at(&self, host: usize) -> Result<Session, sqlx::Error> {
        let open = Open(Arc::clone(&self.open));
        open.0.fetch_add(1, Ordering::Relaxed);
        let mut connection = self.hosts[host].options.connect().await?;
        let row = connection.fetch_one(sqlx::raw_sql(WHAT_IT_IS)).await?;
        let (backend, server): (i32, i64) = (row.try_get(0)?, row.try_get(1)?);
        let (is_standby, is_read_only, position) = (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
        if let (Pooler::Session, Some(limit)) = (self.pooler, self.statement_timeout) {
            let set = bounds(limit).map(|(setting, value)| format!("SET {setting} = {value};")).concat();
            connection.execute(sqlx::raw_sql(AssertSqlSafe(set))).await?;
        }
        let now = Instant::now();
        Ok(Session {
            connection,
            backend,
            server: ServerId(server),
            host,
            is_read_only,
            is_standby,
            position,
            opened: now,
            answered: now,
            _open: open,
        })
    }
}

//! The mirror: this instance's copy of the table, which follows the log. Each round looks whether it is still
//! the same table and how far it has come, and reads the log to its end; only then the lease goes on. A gap
//! in the numbers, a log that ends before the table does (it was deleted or evicted), or another table, means
//! that something was missed: the table is read anew.

use std::{
    convert::Infallible,
    sync::{Weak, atomic::Ordering},
    time::{Duration, Instant},
};

use redis::{RedisError, Value, aio::MultiplexedConnection};

use super::{super::CacheInner, SharedCache, words};
use crate::{
    cache::table::{SLOTS, Slot, Version},
    redis::{Redis, Unavailable},
};

/// How long the log is waited for before the table is looked at again.
const BLOCK: Duration = Duration::from_millis(50);
/// One round may take this long; a connection that needs longer is given up.
const ROUND: Duration = Duration::from_millis(250);
/// The whole table may take this long.
const LOAD: Duration = Duration::from_secs(2);
/// Between attempts to connect.
const PAUSE: Duration = Duration::from_millis(100);
/// Invalidations read at once at most.
const MAX_INVALIDATIONS: usize = 10_000;

/// Follows the log for as long as the cache lives.
pub(in crate::cache) async fn follow(cache: Weak<CacheInner>) {
    loop {
        let Some(redis) = cache.upgrade().and_then(|cache| Some(cache.shared.as_ref()?.redis.clone())) else {
            return;
        };
        // A connection of its own: waiting for the log would hold up every other command on it.
        if let Ok(mut dedicated) = redis.dedicated().await {
            // Ends when the connection does; the next one starts with the whole table.
            let (watched, term) = (dedicated.clone(), dedicated.term());
            let failure = tokio::select! {
                failure = follow_on(&cache, &mut dedicated.connection, term) => failure,
                () = redis.until_replaced(&watched) => MirrorFailure::Unavailable,
            };
            if let MirrorFailure::Redis(error) = failure {
                // A server that refuses this may be a master no longer, which other connections have to find as well.
                redis.complain("log", &error);
                redis.disconnect();
            }
        }
        drop::<Redis>(redis);
        tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
    }
}

/// Why the log is not followed on this connection any more.
enum MirrorFailure {
    /// Redis's, or the connection's.
    Redis(RedisError),
    /// Another one: no answer in time, another table, a gap.
    Unavailable,
}

impl From<Unavailable> for MirrorFailure {
    fn from(_: Unavailable) -> Self {
        Self::Unavailable
    }
}

async fn follow_on(
    cache: &Weak<CacheInner>,
    connection: &mut MultiplexedConnection,
    term: u64,
) -> MirrorFailure {
    let Err(failure) = follow_until_failure(cache, connection, term).await;
    failure
}

async fn follow_until_failure(
    cache: &Weak<CacheInner>,
    connection: &mut MultiplexedConnection,
    term: u64,
) -> Result<Infallible, MirrorFailure> {
    let mut at = load(cache, connection, term).await?;
    loop {
        let began = Instant::now();
        let (invalidations, table) = round(cache, connection, at).await?;
        let Some(cache) = cache.upgrade() else { return Err(MirrorFailure::Unavailable) };
        let Some(shared) = &cache.shared else { return Err(MirrorFailure::Unavailable) };
        let is_complete = invalidations
            .iter()
            .zip(at.sequence + 1..)
            .all(|((sequence, _), expected)| *sequence == expected);
        // Or this instance has seen another table before the mirror did.
        let is_forgotten = cache.table.current().epoch != at.epoch;
        if table.epoch != at.epoch || table.sequence < at.sequence || !is_complete || is_forgotten {
            return Err(MirrorFailure::Unavailable);
        }
        for (sequence, slots) in &invalidations {
            shared.apply_logged(&cache.table, slots, *sequence);
            at.sequence = *sequence;
        }
        if invalidations.len() < MAX_INVALIDATIONS && at.sequence < table.sequence {
            return Err(MirrorFailure::Unavailable);
        }
        // Otherwise there is more to read.
        if invalidations.len() < MAX_INVALIDATIONS {
            shared.extend_lease(began);
        }
    }
}

impl SharedCache {
    /// Everything that was invalidated before this moment is in the mirror.
    fn extend_lease(&self, moment: Instant) {
        let at = moment.saturating_duration_since(self.started).as_micros() as u64 + 1;
        self.log_read_at.fetch_max(at, Ordering::AcqRel);
    }

    /// What is taken over may lack what was invalidated since it was read; the log has it. It is read on a
    /// connection of this term from now on.
    fn end_lease(&self, term: u64) {
        self.log_read_at.store(0, Ordering::Release);
        self.log_term.store(term, Ordering::Release);
    }
}

/// Reads the whole table.
async fn load(
    cache: &Weak<CacheInner>,
    connection: &mut MultiplexedConnection,
    term: u64,
) -> Result<Version, MirrorFailure> {
    let cache = cache.upgrade().ok_or(Unavailable)?;
    let shared = cache.shared.as_ref().ok_or(Unavailable)?;
    shared.end_lease(term);
    shared.table().await?;
    let mut command = redis::cmd("GET");
    command.arg(&shared.table_key);
    let bytes: Vec<u8> = within(LOAD, command.query_async(connection)).await?;
    let mut head = words(&bytes).map(|(_, value)| value);
    let (Some(epoch), Some(sequence)) = (head.next(), head.next()) else {
        return Err(MirrorFailure::Unavailable);
    };
    let version = Version { epoch, sequence };
    let stamps: Vec<_> = words(&bytes).filter(|(slot, value)| SLOTS.contains(slot) && *value > 0).collect();
    shared.replace_table(&cache.table, version, &stamps);
    Ok(version)
}

/// The table's state, and the invalidations after this position: at least all that the table has by then.
async fn round(
    cache: &Weak<CacheInner>,
    connection: &mut MultiplexedConnection,
    at: Version,
) -> Result<(Vec<(u64, Vec<Slot>)>, Version), MirrorFailure> {
    let (log, table) = {
        let cache = cache.upgrade().ok_or(Unavailable)?;
        let shared = cache.shared.as_ref().ok_or(Unavailable)?;
        (shared.log_key.clone(), shared.table_key.clone())
    };
    // Not the form that only reads: what takes no writes tells nothing that can be relied on.
    let mut command = redis::cmd("BITFIELD");
    command.arg(&table).arg("GET").arg("i64").arg("#0").arg("GET").arg("i64").arg("#1");
    let (epoch, sequence): (u64, u64) = within(ROUND, command.query_async(connection)).await?;
    let mut command = redis::cmd("XREAD");
    command.arg("COUNT").arg(MAX_INVALIDATIONS).arg("BLOCK").arg(BLOCK.as_millis() as u64);
    command.arg("STREAMS").arg(&log).arg(format!("{}-0", at.sequence));
    let read: Value = within(ROUND, command.query_async(connection)).await?;
    Ok((invalidations(read)?, Version { epoch, sequence }))
}

async fn within<T>(
    timeout: Duration,
    answer: impl Future<Output = Result<T, redis::RedisError>>,
) -> Result<T, MirrorFailure> {
    let answer = tokio::time::timeout(timeout, answer).await.map_err(|_| MirrorFailure::Unavailable)?;
    answer.map_err(MirrorFailure::Redis)
}

/// Reads `[[key, [[id, ["s", slots]], …]]]`; nothing new is nil.
fn invalidations(read: Value) -> Result<Vec<(u64, Vec<Slot>)>, Unavailable> {
    type Stream = Vec<(String, Vec<(String, Vec<String>)>)>;
    let streams: Option<Stream> = redis::from_redis_value(read).map_err(|_| Unavailable)?;
    let entries = streams.into_iter().flatten().flat_map(|(_, entries)| entries);
    let invalidations = entries.map(|(id, fields)| {
        let sequence = id.split_once('-')?.0.parse().ok()?;
        let slots: Vec<Slot> = fields.get(1)?.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
        // Something else than an invalidation, or one of a table of another size.
        slots.iter().all(|slot| SLOTS.contains(slot)).then_some((sequence, slots))
    });
    invalidations.collect::<Option<_>>().ok_or(Unavailable)
}

//! The cache between nodes. Redis holds the table of stamps (`g:`, one string of 2^20 words), the log of bumps (`l:`, a
//! stream with one entry for each number) and the values (`c1:`). A bump is one script, so numbers have no gaps; each
//! node follows the log into its mirror of the table. What this process holds counts for bounded types only while
//! that log was read to its end a moment ago (the lease); strong types ask Redis for their stamps at each read, in the
//! same round trip as for the values. Every failure is a miss. Not here: how a batch is read (`read`).

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{Value, pipe};
use rustc_hash::FxHashMap;
use tokio::sync::Semaphore;

use super::{
    entry::Key,
    table::{Position, WORDS},
    tag::Slot,
};
use crate::redis::{READ_TIMEOUT, Redis, Unavailable, WRITE_TIMEOUT};

mod mirror;

pub(super) use mirror::follow;

/// How long after the log was last read to its end the copies of this process count.
const LEASE: Duration = Duration::from_millis(250);
/// Fills under way at most; further ones are left out, since the next reader can fill as well.
const FILLS: usize = 64;
/// Between attempts to tell bumps that could not be told.
const RETRY: Duration = Duration::from_millis(50);

/// Numbers must stay below 2^53 for Redis's Lua; the epoch is random, and never 0.
const BUMP: &str = r"
local g, l = KEYS[1], KEYS[2]
if redis.call('BITFIELD', g, 'GET', 'i64', '#0')[1] == 0 then
  redis.call('DEL', l)
  redis.call('BITFIELD', g, 'SET', 'i64', '#0', ARGV[1], 'SET', 'i64', '#1', 1, 'SET', 'i64', '#3', 1)
end
if #ARGV == 1 then return redis.call('BITFIELD', g, 'GET', 'i64', '#0', 'GET', 'i64', '#1') end
local s = redis.call('BITFIELD', g, 'INCRBY', 'i64', '#1', 1)[1]
local set = {'BITFIELD', g}
for i = 2, #ARGV do
  set[#set + 1] = 'SET'; set[#set + 1] = 'i64'; set[#set + 1] = '#' .. ARGV[i]; set[#set + 1] = string.format('%.0f', s)
end
redis.call(unpack(set))
redis.call('XADD', l, 'MAXLEN', '~', 100000, string.format('%.0f-0', s), 's', table.concat(ARGV, ',', 2))
return {redis.call('BITFIELD', g, 'GET', 'i64', '#0')[1], s}
";
/// Slots of one bump at most: Lua's `unpack` has a bound.
const SLOTS_A_BUMP: usize = 1_000;

/// This node's part in the cache between nodes.
pub(super) struct Shared {
    pub(super) redis: Redis,
    namespace: String,
    table_key: String,
    log_key: String,
    started: Instant,
    /// When the last completed read of the log began, microseconds after `started`, plus one; 0 is never.
    log_read_at: AtomicU64,
    /// Bumped here, not yet told.
    untold: Mutex<Vec<Slot>>,
    fills: Arc<Semaphore>,
}

/// The stamps of some slots as Redis had them, and the moment.
pub(super) struct Stamps {
    pub(super) position: Position,
    pub(super) slots: FxHashMap<Slot, u64>,
}

/// The bytes found for each key, in their order.
type Values = Vec<Option<Vec<u8>>>;

impl Shared {
    pub(super) fn new(redis: Redis, namespace: &str) -> Self {
        Self {
            redis,
            namespace: namespace.to_owned(),
            table_key: format!("g:{{{namespace}}}"),
            log_key: format!("l:{{{namespace}}}"),
            started: Instant::now(),
            log_read_at: AtomicU64::new(0),
            untold: Mutex::default(),
            fills: Arc::new(Semaphore::new(FILLS)),
        }
    }

    /// Was the log read to its end a moment ago?
    pub(super) fn has_lease(&self) -> bool {
        match self.log_read_at.load(Ordering::Acquire) {
            0 => false,
            at => self.started.elapsed().saturating_sub(Duration::from_micros(at - 1)) <= LEASE,
        }
    }

    /// Tells a bump to all nodes; its number. Bumps that could not be told before go first.
    pub(super) async fn bump(&self, slots: &[Slot]) -> Result<Position, Unavailable> {
        let mut all = std::mem::take(&mut *self.untold());
        all.extend(slots);
        all.sort_unstable();
        all.dedup();
        let mut last = Position::default();
        for (index, part) in all.chunks(SLOTS_A_BUMP).enumerate() {
            let Ok(position) = self.bump_part(part).await else {
                // A Redis that is full refuses to note anything, but still deletes: then nothing counts any more.
                if !self.redis.is_up() || self.purge().await.is_err() {
                    self.untold().extend(&all[index * SLOTS_A_BUMP..]);
                }
                return Err(Unavailable);
            };
            last = position;
        }
        Ok(last)
    }

    async fn bump_part(&self, slots: &[Slot]) -> Result<Position, Unavailable> {
        let mut command = redis::cmd("EVAL");
        command.arg(BUMP).arg(2).arg(&self.table_key).arg(&self.log_key).arg(random_epoch()).arg(slots);
        let (epoch, sequence): (u64, u64) = self.redis.command("bump", WRITE_TIMEOUT, &command).await?;
        Ok(Position { epoch, sequence })
    }

    /// Tries to tell what could not be told; for ever, from time to time.
    pub(super) async fn tell_untold(self: Arc<Self>) {
        loop {
            tokio::time::sleep(RETRY).await;
            if !self.untold().is_empty() {
                // What fails again goes back into `untold`.
                let _ = self.bump(&[]).await;
            }
        }
    }

    fn untold(&self) -> std::sync::MutexGuard<'_, Vec<Slot>> {
        self.untold.lock().expect("no panic happens under this lock")
    }

    /// The values of these keys.
    pub(super) async fn values(&self, keys: &[Key]) -> Result<Values, Unavailable> {
        let mut command = redis::cmd("MGET");
        for key in keys {
            command.arg(self.key(*key));
        }
        self.redis.command("values", READ_TIMEOUT, &command).await
    }

    /// The stamps of these slots and the values of these keys, in one round trip.
    pub(super) async fn stamps(&self, slots: &[Slot], keys: &[Key]) -> Result<(Stamps, Values), Unavailable> {
        let mut pipeline = pipe();
        let field = pipeline.cmd("BITFIELD_RO").arg(&self.table_key);
        for word in [0, 1, 2] {
            field.arg("GET").arg("i64").arg(format!("#{word}"));
        }
        for slot in slots {
            field.arg("GET").arg("i64").arg(format!("#{slot}"));
        }
        if !keys.is_empty() {
            let values = pipeline.cmd("MGET");
            for key in keys {
                values.arg(self.key(*key));
            }
        }
        let answers: Vec<Value> = self.redis.pipeline("stamps", READ_TIMEOUT, &pipeline).await?;
        let mut answers = answers.into_iter();
        let mut next = || answers.next().ok_or(Unavailable);
        let words: Vec<u64> = redis::from_redis_value(next()?).map_err(|_| Unavailable)?;
        let [epoch, sequence, recovering, stamps @ ..] = &*words else { return Err(Unavailable) };
        // Without a table, and while one is being mended, nothing is valid.
        let epoch = if *recovering == 0 { *epoch } else { 0 };
        let slots = slots.iter().copied().zip(stamps.iter().copied()).collect();
        let stamps = Stamps { position: Position { epoch, sequence: *sequence }, slots };
        let values = if keys.is_empty() {
            Vec::new()
        } else {
            redis::from_redis_value(next()?).map_err(|_| Unavailable)?
        };
        Ok((stamps, values))
    }

    /// Stores values beside the request.
    pub(super) fn fill(&self, entries: &[(Key, Vec<u8>, Duration)]) {
        let Ok(turn) = Arc::clone(&self.fills).try_acquire_owned() else { return };
        let mut pipeline = pipe();
        for (key, bytes, ttl) in entries {
            let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
            pipeline.cmd("SET").arg(self.key(*key)).arg(&bytes[..]).arg("PX").arg(ttl).ignore();
        }
        let redis = self.redis.clone();
        tokio::spawn(async move {
            let _turn = turn;
            let _ = redis.pipeline::<()>("fill", WRITE_TIMEOUT, &pipeline).await;
        });
    }

    /// Throws the table away: nothing that any node has cached is valid any more.
    pub(super) async fn purge(&self) -> Result<(), Unavailable> {
        let mut command = redis::cmd("DEL");
        command.arg(&self.table_key).arg(&self.log_key);
        self.redis.command("purge", WRITE_TIMEOUT, &command).await
    }

    fn key(&self, key: Key) -> String {
        format!("c1:{}:{:032x}:{}", self.namespace, key.of, key.id.simple())
    }
}

/// What the cache between nodes looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Which table; 0 is none: nothing is cached.
    pub epoch: u64,
    /// Bumps so far.
    pub sequence: u64,
    /// Bumps in the log.
    pub log_length: u64,
    /// Values, of all namespaces of this database.
    pub keys: u64,
    /// Memory that Redis uses, bytes.
    pub memory_bytes: u64,
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, sequence, log_length, keys, memory_bytes } = self;
        let mebibytes = memory_bytes >> 20;
        write!(f, "epoch {epoch}, {sequence} bumps ({log_length} in the log), {keys} keys, {mebibytes} MiB")
    }
}

/// Looks at the cache between nodes.
///
/// # Errors
/// `Unavailable` when Redis does not answer.
pub async fn stats(redis: &Redis, namespace: &str) -> Result<Stats, Unavailable> {
    let shared = Shared::new(redis.clone(), namespace);
    let mut pipeline = pipe();
    pipeline
        .cmd("BITFIELD_RO")
        .arg(&shared.table_key)
        .arg("GET")
        .arg("i64")
        .arg("#0")
        .arg("GET")
        .arg("i64")
        .arg("#1");
    pipeline.cmd("XLEN").arg(&shared.log_key).cmd("DBSIZE").cmd("INFO").arg("memory");
    let answer = redis.pipeline("stats", WRITE_TIMEOUT, &pipeline).await?;
    let ((epoch, sequence), log_length, keys, info): ((u64, u64), u64, u64, String) = answer;
    let memory = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    let memory_bytes = memory.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or_default();
    Ok(Stats { epoch, sequence, log_length, keys, memory_bytes })
}

/// Nothing that is cached now is used any more, on any node.
///
/// # Errors
/// `Unavailable` when Redis does not answer: nothing has changed then.
pub async fn purge(redis: &Redis, namespace: &str) -> Result<(), Unavailable> {
    Shared::new(redis.clone(), namespace).purge().await
}

/// Below 2^53, and never 0.
fn random_epoch() -> u64 {
    fastrand::u64(1..1 << 53)
}

/// The words of the table as Redis stores them: 64 bits, the most significant first.
fn words(bytes: &[u8]) -> impl Iterator<Item = (Slot, u64)> {
    let words = bytes.chunks_exact(8).take(WORDS).enumerate();
    words.map(|(index, word)| (index as Slot, u64::from_be_bytes(word.try_into().expect("eight bytes"))))
}

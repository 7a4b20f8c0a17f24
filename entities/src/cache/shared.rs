//! The cache between nodes. Redis holds the table of stamps (`g:`, one string of 2^20 words), the log of bumps (`l:`, a
//! stream with one entry for each number) and the values (`c1:`). A bump is one script, so numbers have no gaps; each
//! node follows the log into its mirror of the table. What this process holds counts for bounded types only while
//! that log was read to its end a moment ago (the lease); strong types ask Redis for their stamps at each read, in the
//! same round trip as for the values. Every failure is a miss. Not here: how a batch is read (`read`).

use std::{
    fmt,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{Value, pipe};
use rustc_hash::FxHashMap;
use tokio::sync::Semaphore;

use super::{
    Inner,
    entry::Key,
    table::{Position, Table, WORDS},
    tag::Slot,
};
use crate::redis::{READ_TIMEOUT, Redis, Unavailable, WRITE_TIMEOUT};

mod mirror;

pub(super) use mirror::follow;

/// How long after the log was last read to its end the copies of this process count.
const LEASE: Duration = Duration::from_millis(250);
/// Fills under way at most; further ones are left out, since the next reader can fill as well.
const FILLS: usize = 64;
/// Numbers ahead of the log that a bump has which could not be told: more than can come before it is.
const UNTOLD: u64 = 1 << 40;
/// Between attempts to tell bumps that could not be told.
const RETRY: Duration = Duration::from_millis(50);

/// Before anything else on a connection: a table that another server process wrote (a master that was replaced, this
/// server's own snapshot from before a restart) may lack bumps, and is thrown away. Word 2 says who wrote it.
const GREETING: &str = r"
local g, l = KEYS[1], KEYS[2]
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local table = redis.call('BITFIELD_RO', g, 'GET', 'i64', '#0', 'GET', 'i64', '#2')
if table[1] ~= 0 and table[2] ~= tonumber(string.sub(run, 1, 12), 16) then redis.call('DEL', g, l) end
";
/// Numbers must stay below 2^53 for Redis's Lua; the epoch is random, and never 0.
const BUMP: &str = r"
local g, l = KEYS[1], KEYS[2]
local epoch = redis.call('BITFIELD', g, 'GET', 'i64', '#0')[1]
if epoch == 0 then
  epoch = tonumber(ARGV[1])
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  redis.call('DEL', l)
  redis.call('BITFIELD', g, 'SET', 'i64', '#0', ARGV[1], 'SET', 'i64', '#1', 1,
    'SET', 'i64', '#2', string.format('%.0f', tonumber(string.sub(run, 1, 12), 16)), 'SET', 'i64', '#3', 1)
end
if #ARGV == 1 then return redis.call('BITFIELD', g, 'GET', 'i64', '#0', 'GET', 'i64', '#1') end
local s = redis.call('BITFIELD', g, 'INCRBY', 'i64', '#1', 1)[1]
local set = {'BITFIELD', g}
for i = 2, #ARGV do
  set[#set + 1] = 'SET'; set[#set + 1] = 'i64'; set[#set + 1] = '#' .. ARGV[i]; set[#set + 1] = string.format('%.0f', s)
end
redis.call(unpack(set))
redis.call('XADD', l, 'MAXLEN', '~', 10000, string.format('%.0f-0', s), 's', table.concat(ARGV, ',', 2))
return {epoch, s}
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
    /// Bumped here and not yet told, with the number that each slot has here until then.
    untold: Mutex<FxHashMap<Slot, u64>>,
    next_untold: AtomicU64,
    fills: Arc<Semaphore>,
}

/// The stamps of some slots as Redis had them, and the moment.
pub(super) struct Stamps {
    pub(super) position: Position,
    pub(super) slots: FxHashMap<Slot, u64>,
}

impl Stamps {
    /// Which of these slots are not among them.
    pub(super) fn without<'s>(&self, slots: impl Iterator<Item = &'s Slot>) -> Vec<Slot> {
        let mut unknown: Vec<Slot> = slots.filter(|slot| !self.slots.contains_key(slot)).copied().collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown
    }

    /// Takes in stamps that were asked for later. Of another table they say nothing.
    pub(super) fn add(&mut self, later: Self) {
        if later.position.epoch == self.position.epoch {
            self.slots.extend(later.slots);
        }
    }
}

/// The bytes found for each key, in their order.
type Values = Vec<Option<Vec<u8>>>;

impl Shared {
    /// Takes part: from now on every connection is greeted.
    pub(super) fn join(redis: Redis, namespace: &str) -> Self {
        let shared = Self::new(redis, namespace);
        let mut greeting = redis::cmd("EVAL");
        greeting.arg(GREETING).arg(2).arg(&shared.table_key).arg(&shared.log_key);
        shared.redis.greet_with(greeting);
        shared
    }

    fn new(redis: Redis, namespace: &str) -> Self {
        Self {
            redis,
            namespace: namespace.to_owned(),
            table_key: format!("g:{{{namespace}}}"),
            log_key: format!("l:{{{namespace}}}"),
            next_untold: AtomicU64::new(0),
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

    /// Tells a bump to all nodes; its number. Bumps that could not be told before go along. Here it counts in any
    /// case: as something that is yet to come, until it could be told.
    pub(super) async fn bump(&self, table: &Table, slots: &[Slot]) -> Option<Position> {
        let untold: Vec<(Slot, u64)> = self.untold().iter().map(|(slot, number)| (*slot, *number)).collect();
        let mut all: Vec<Slot> = untold.iter().map(|(slot, _)| *slot).chain(slots.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        if all.is_empty() {
            return None;
        }
        if let Ok(position) = self.tell(&all).await {
            table.raise(slots, position.sequence);
            self.told(table, &untold, position.sequence);
            if table.position().epoch != position.epoch {
                // The table that the mirror shows is gone, and numbers have begun anew: it cannot show this bump.
                table.forget();
            }
            return Some(position);
        }
        self.note(table, slots);
        // A Redis that is full refuses to note anything, but still deletes: then nothing counts any more.
        if self.redis.is_up() {
            let _ = self.purge(table).await;
        }
        None
    }

    /// What could not be told counts here, whatever Redis says.
    fn raise_untold(&self, table: &Table) {
        for (slot, number) in &*self.untold() {
            table.raise(&[*slot], *number);
        }
    }

    /// The table as it is now, made if there is none.
    async fn table(&self) -> Result<Position, Unavailable> {
        self.bump_part(&[]).await
    }

    async fn tell(&self, slots: &[Slot]) -> Result<Position, Unavailable> {
        let mut last = Position::default();
        for part in slots.chunks(SLOTS_A_BUMP) {
            last = self.bump_part(part).await?;
        }
        Ok(last)
    }

    /// Notes what could not be told. What is loaded from now on is not kept here until it is: nobody knows its number.
    fn note(&self, table: &Table, slots: &[Slot]) {
        let mut untold = self.untold();
        let number = table.position().sequence + UNTOLD + self.next_untold.fetch_add(1, Ordering::Relaxed);
        table.raise(slots, number);
        untold.extend(slots.iter().map(|slot| (*slot, number)));
    }

    /// What was untold has a number now. What was noted anew meanwhile has not.
    fn told(&self, table: &Table, told: &[(Slot, u64)], sequence: u64) {
        let mut untold = self.untold();
        for (slot, number) in told {
            if untold.get(slot) == Some(number) {
                untold.remove(slot);
                table.lower(*slot, *number, sequence);
            }
        }
    }

    async fn bump_part(&self, slots: &[Slot]) -> Result<Position, Unavailable> {
        let mut command = redis::cmd("EVAL");
        command.arg(BUMP).arg(2).arg(&self.table_key).arg(&self.log_key).arg(random_epoch()).arg(slots);
        let (epoch, sequence): (u64, u64) = self.redis.insist("bump", WRITE_TIMEOUT, &command).await?;
        Ok(Position { epoch, sequence })
    }

    fn untold(&self) -> std::sync::MutexGuard<'_, FxHashMap<Slot, u64>> {
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
        for word in [0, 1] {
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
        let [epoch, sequence, stamps @ ..] = &*words else { return Err(Unavailable) };
        let slots = self.stamped(slots, stamps);
        let mut stamps = Stamps { position: Position { epoch: *epoch, sequence: *sequence }, slots };
        if stamps.position.epoch == 0 {
            // Otherwise nobody could tell what is loaded now from what is loaded later, and all would load for
            // themselves. What is written meanwhile, this reader need not see.
            stamps.position = self.table().await?;
        }
        let values = if keys.is_empty() {
            Vec::new()
        } else {
            redis::from_redis_value(next()?).map_err(|_| Unavailable)?
        };
        Ok((stamps, values))
    }

    /// Slots with their stamps; what this node has written and could not tell, Redis does not know.
    fn stamped(&self, slots: &[Slot], stamps: &[u64]) -> FxHashMap<Slot, u64> {
        let untold = self.untold();
        let stamp =
            |(slot, stamp): (&Slot, &u64)| (*slot, if untold.contains_key(slot) { u64::MAX } else { *stamp });
        slots.iter().zip(stamps).map(stamp).collect()
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
    pub(super) async fn purge(&self, table: &Table) -> Result<(), Unavailable> {
        table.forget();
        self.delete().await
    }

    async fn delete(&self) -> Result<(), Unavailable> {
        let mut command = redis::cmd("DEL");
        command.arg(&self.table_key).arg(&self.log_key);
        self.redis.command("purge", WRITE_TIMEOUT, &command).await
    }

    /// Where the rows are counted that are read most.
    pub(super) fn hot_key(&self) -> String {
        format!("hot:{{{}}}", self.namespace)
    }

    fn key(&self, key: Key) -> String {
        format!("c1:{}:{:032x}:{}", self.namespace, key.of, key.id.simple())
    }
}

/// Tries to tell what could not be told, from time to time, for as long as the cache lives.
pub(super) async fn tell_untold(cache: Weak<Inner>) {
    loop {
        tokio::time::sleep(RETRY).await;
        let Some(cache) = cache.upgrade() else { return };
        if let Some(shared) = &cache.shared
            && !shared.untold().is_empty()
        {
            // What fails again stays untold.
            shared.bump(&cache.table, &[]).await;
        }
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
    Shared::new(redis.clone(), namespace).delete().await
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

//! The cache between nodes. Redis holds the table of stamps (`g:`, one string of 2^20 words), the log of bumps (`l:`, a
//! stream with one entry for each number) and the values (`c1:`). A bump is one script, so numbers have no gaps; each
//! node follows the log into its mirror of the table. What this process holds counts for bounded types only while
//! that log was read to its end a moment ago (the lease); strong types ask Redis for their stamps at each read, in the
//! same round trip as for the values. Every failure is a miss. Not here: how a batch is read (`read`).

use std::{
    collections::hash_map::Entry,
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
    table::{Position, Slot, Table, WORDS},
};
use crate::redis::{READ_TIMEOUT, Redis, Unavailable, WRITE_TIMEOUT};

mod mirror;

pub(super) use mirror::follow;

/// How long after the log was last read to its end the copies of this process count.
const LEASE: Duration = Duration::from_millis(250);
/// Fills under way at most; further ones are left out, since the next reader can fill as well.
const FILLS: usize = 64;
/// Bumps that could not be told have numbers from here on: no table ever comes to them.
const UNTOLD: u64 = 1 << 60;
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
    /// Bumped here and not yet told.
    untold: Mutex<FxHashMap<Slot, Untold>>,
    next_untold: AtomicU64,
    fills: Arc<Semaphore>,
}

/// What is known of a slot that was bumped here, which could not be told.
#[derive(Clone, Copy)]
struct Untold {
    /// What it is raised to here until then.
    number: u64,
    /// Its last bump but for that, which the number hides, and in which table.
    hidden: Position,
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
        let untold: Vec<(Slot, u64)> =
            self.untold().iter().map(|(slot, untold)| (*slot, untold.number)).collect();
        let mut all: Vec<Slot> = untold.iter().map(|(slot, _)| *slot).chain(slots.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        if all.is_empty() {
            return None;
        }
        if let Ok(position) = self.tell(&all).await {
            if table.position().epoch != position.epoch {
                // The table that the mirror shows is gone, and numbers have begun anew: it cannot show this bump. Before
                // anything is lowered to such a number.
                table.forget();
            }
            self.told(table, &untold, position.sequence);
            self.raise(table, slots, position.sequence);
            return Some(position);
        }
        self.note(table, slots);
        // A Redis that is full refuses to note anything, but still deletes: then nothing counts any more.
        if self.redis.is_up() {
            let _ = self.purge(table).await;
        }
        None
    }

    /// Notes a bump that was told.
    fn raise(&self, table: &Table, slots: &[Slot], sequence: u64) {
        let mut untold = self.untold();
        table.raise(slots, sequence);
        hear(&mut untold, slots, sequence);
    }

    /// Notes a bump that the log tells of.
    fn follow(&self, table: &Table, slots: &[Slot], sequence: u64) {
        let mut untold = self.untold();
        table.follow(slots, sequence);
        hear(&mut untold, slots, sequence);
    }

    /// Takes over another table. What could not be told counts here, whatever Redis says: from the moment on at which
    /// the new table does.
    fn take_over(&self, table: &Table, at: Position, stamps: &[(Slot, u64)]) {
        let mut untold = self.untold();
        for untold in untold.values_mut().filter(|untold| untold.hidden.epoch != at.epoch) {
            untold.hidden = Position { sequence: 0, ..at };
        }
        for (slot, sequence) in stamps {
            hear(&mut untold, &[*slot], *sequence);
        }
        let numbers = untold.iter().map(|(slot, untold)| (*slot, untold.number));
        table.replace(at, stamps.iter().copied().chain(numbers));
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
        let number = UNTOLD + self.next_untold.fetch_add(1, Ordering::Relaxed);
        for slot in slots {
            let hidden = || Position { sequence: table.stamp(*slot), ..table.position() };
            untold.entry(*slot).or_insert_with(|| Untold { number, hidden: hidden() }).number = number;
        }
        table.raise(slots, number);
    }

    /// What was untold has a number now. What was noted anew meanwhile has not. Others may have bumped the same slot
    /// later, and been heard of before.
    fn told(&self, table: &Table, told: &[(Slot, u64)], sequence: u64) {
        let mut untold = self.untold();
        for (slot, number) in told {
            if let Entry::Occupied(known) = untold.entry(*slot)
                && known.get().number == *number
            {
                table.lower(*slot, *number, known.remove().hidden.sequence.max(sequence));
            }
        }
    }

    async fn bump_part(&self, slots: &[Slot]) -> Result<Position, Unavailable> {
        let mut command = redis::cmd("EVAL");
        command.arg(BUMP).arg(2).arg(&self.table_key).arg(&self.log_key).arg(random_epoch()).arg(slots);
        let (epoch, sequence): (u64, u64) = self.redis.insist("bump", WRITE_TIMEOUT, &command).await?;
        Ok(Position { epoch, sequence })
    }

    fn untold(&self) -> std::sync::MutexGuard<'_, FxHashMap<Slot, Untold>> {
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
        // Before Redis is asked: what is told while the answer is on its way, the answer does not know.
        let untold = self.untold_of(slots);
        let answers: Vec<Value> = self.redis.pipeline("stamps", READ_TIMEOUT, &pipeline).await?;
        let mut answers = answers.into_iter();
        let mut next = || answers.next().ok_or(Unavailable);
        let words: Vec<u64> = redis::from_redis_value(next()?).map_err(|_| Unavailable)?;
        let [epoch, sequence, stamps @ ..] = &*words else { return Err(Unavailable) };
        let slots = stamped(slots, stamps, &untold);
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

    /// Those of these slots that this node has written to and could not tell: Redis does not know.
    fn untold_of(&self, slots: &[Slot]) -> Vec<Slot> {
        let untold = self.untold();
        if untold.is_empty() {
            return Vec::new();
        }
        slots.iter().filter(|slot| untold.contains_key(slot)).copied().collect()
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
        let deleted = self.delete().await;
        // Again: meanwhile the mirror may have taken over what was being deleted.
        table.forget();
        deleted
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

/// Slots with their stamps; those that could not be told have been bumped just now.
fn stamped(slots: &[Slot], stamps: &[u64], untold: &[Slot]) -> FxHashMap<Slot, u64> {
    let mut stamped: FxHashMap<Slot, u64> = slots.iter().copied().zip(stamps.iter().copied()).collect();
    stamped.extend(untold.iter().map(|slot| (*slot, u64::MAX)));
    stamped
}

/// Notes a bump of slots that may be hidden behind one that could not be told.
fn hear(untold: &mut FxHashMap<Slot, Untold>, slots: &[Slot], sequence: u64) {
    if untold.is_empty() {
        return;
    }
    for slot in slots {
        if let Some(untold) = untold.get_mut(slot) {
            untold.hidden.sequence = untold.hidden.sequence.max(sequence);
        }
    }
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

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    const SLOT: Slot = 30;

    const fn at(epoch: u64, sequence: u64) -> Position {
        Position { epoch, sequence }
    }

    /// A node that nothing answers, and its mirror, which shows a table of epoch 7 after 19 bumps.
    fn node() -> (Shared, Table) {
        let silent = "redis://127.0.0.1:1".parse().expect("a URL");
        let table = Table::new(7);
        table.follow(&[SLOT], 19);
        (Shared::new(Redis::new(&silent, &mut Registry::default()), "test"), table)
    }

    fn numbers(shared: &Shared) -> Vec<(Slot, u64)> {
        shared.untold().iter().map(|(slot, untold)| (*slot, untold.number)).collect()
    }

    #[test]
    fn what_was_untold_is_lowered_to_the_number_it_was_told_with() {
        let (shared, table) = node();
        shared.note(&table, &[SLOT]);
        assert!(!table.is_valid(at(7, 1_000), &[SLOT]));
        shared.told(&table, &numbers(&shared), 20);
        assert!(!table.is_valid(at(7, 19), &[SLOT]) && table.is_valid(at(7, 20), &[SLOT]));
        assert!(shared.untold().is_empty());
    }

    /// Told as 20; then another node bumps the same slot as 21, and the mirror hears of both before this node goes on.
    #[test]
    fn a_later_bump_of_another_node_outlasts_the_end_of_an_untold_one() {
        let (shared, table) = node();
        shared.note(&table, &[SLOT]);
        let untold = numbers(&shared);
        shared.follow(&table, &[SLOT], 20);
        shared.follow(&table, &[SLOT], 21);
        shared.told(&table, &untold, 20);
        assert!(!table.is_valid(at(7, 20), &[SLOT]), "read before 21 was written");
        assert!(table.is_valid(at(7, 21), &[SLOT]));
    }

    #[test]
    fn so_does_an_own_one_and_one_that_came_with_the_whole_table() {
        let (shared, table) = node();
        shared.note(&table, &[SLOT]);
        let untold = numbers(&shared);
        shared.raise(&table, &[SLOT], 21);
        shared.told(&table, &untold, 20);
        assert!(!table.is_valid(at(7, 20), &[SLOT]) && table.is_valid(at(7, 21), &[SLOT]));

        shared.note(&table, &[SLOT]);
        let untold = numbers(&shared);
        shared.take_over(&table, at(7, 30), &[(SLOT, 29)]);
        shared.told(&table, &untold, 28);
        assert!(!table.is_valid(at(7, 28), &[SLOT]) && table.is_valid(at(7, 29), &[SLOT]));
    }

    #[test]
    fn what_is_untold_counts_in_another_table_and_its_numbers_are_that_tables_once_it_is_told() {
        let (shared, table) = node();
        shared.note(&table, &[SLOT]);
        shared.take_over(&table, at(8, 5), &[(SLOT, 3)]);
        assert!(!table.is_valid(at(8, 1_000), &[SLOT]));
        // Noted again: numbers of what is untold only grow, whatever table it is.
        shared.note(&table, &[SLOT]);
        shared.told(&table, &numbers(&shared), 6);
        assert!(!table.is_valid(at(8, 5), &[SLOT]) && table.is_valid(at(8, 6), &[SLOT]));
    }

    #[test]
    fn what_is_untold_is_newer_than_anything_that_redis_says() {
        let (shared, table) = node();
        assert!(shared.untold_of(&[SLOT]).is_empty());
        shared.note(&table, &[SLOT]);
        let untold = shared.untold_of(&[SLOT - 1, SLOT]);
        assert_eq!(untold, [SLOT]);
        // Told while the answer is on its way.
        shared.told(&table, &numbers(&shared), 20);
        let stamps = stamped(&[SLOT - 1, SLOT], &[4, 19], &untold);
        assert_eq!((stamps[&(SLOT - 1)], stamps[&SLOT]), (4, u64::MAX));
    }
}

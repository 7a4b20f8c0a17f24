//! Invalidations that outlive their writer. Where caches are shared, a transaction writes its invalidation
//! into a table, from which it is removed only once all instances know it. The writer publishes at once and
//! tidies up a moment later; if that process is killed between its commit and its invalidation, any other
//! instance finds the row still there, and publishes it; subscribers are told that they may have missed
//! something. No clock is asked: what an instance sees in two looks, one after the other, was left behind.
//! Publishing twice is harmless.
//!
//! A process that cannot publish (its Redis does not answer, or it has none, as a command) marks its row as
//! left, and notifies those who listen (`Database::listen`): another instance takes a marked row at once, or
//! in its next look where nothing can be listened to. Before such a write is answered, its writer waits until
//! the row is taken, for `HANDOVER` at most: whoever reads after the answer then reads what was written, on
//! every instance. Where that was in vain there is most likely nobody who could (Redis is away for all, who
//! then cache nothing), and no write waits for a while.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use rustc_hash::FxHashSet;
use sea_orm::{QueryOrder as _, QuerySelect as _, Set, Unchanged, entity::prelude::*};
use tokio::sync::Notify;

use super::{
    Cache, Tag,
    instance::Instance,
    metrics::Handover,
    table::{SLOTS, Slot},
};
use crate::{
    clock::{self, Time},
    database::{Database, sql::record, transaction::SqlTransaction},
    error::Error,
    id,
};

/// Between two looks. Those who write tidy up within this time, so that nothing is found in two looks.
const LOOK: Duration = Duration::from_millis(150);
/// Between two looks where no other server is there: only a command can have left something.
const LOOK_ALONE: Duration = Duration::from_millis(400);
/// Between two rounds of tidying up.
const TIDY: Duration = Duration::from_millis(50);
/// Invalidations found in one look at most.
const MOST_FOUND: u64 = 1_000;
/// How long a writer waits until another instance has taken its invalidation.
const HANDOVER: Duration = Duration::from_millis(250);
/// Between its looks whether that is so: at first, and at most.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(32));
/// After a wait that was in vain nobody waits for so long; each further one is followed by twice as much.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Where PostgreSQL notifies those who can publish of what was left.
const CHANNEL: &str = "xp_cache_outbox";
/// Among the slots of a row: it was left. Programs that do not know it skip it, as what is no slot.
const LEFT: &str = "!";

record! {
    /// A row of `cache_outbox`: an invalidation.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "cache_outbox")]
    pub struct Model {
        /// Primary key.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        /// Numbers of the slots of its tags, with commas between them; and `LEFT`, once its writer cannot publish it.
        pub slots: String,
    }
}

/// An invalidation belongs to nothing.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// What this process has published and may be removed.
#[derive(Debug, Default)]
pub(crate) struct PublishedIds(Mutex<Vec<Uuid>>);

impl PublishedIds {
    /// This invalidation was published.
    pub(crate) fn add(&self, id: Uuid) {
        self.ids().push(id);
    }

    fn ids(&self) -> MutexGuard<'_, Vec<Uuid>> {
        self.0.lock().expect("no panic happens under this lock")
    }
}

/// An invalidation in the table.
#[derive(Debug)]
pub(crate) struct Invalidation {
    id: Uuid,
    slots: Vec<Slot>,
    /// Whoever can publish it is to take it at once.
    is_left: bool,
}

impl Invalidation {
    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    /// How long ago it was written, by its writer's clock: its id begins with the time.
    fn age(&self, now: Time) -> Duration {
        let (seconds, nanos) = self.id.get_timestamp().map(|written| written.to_unix()).unwrap_or_default();
        let written = Time::from_timestamp(i64::try_from(seconds).unwrap_or_default(), nanos);
        written.and_then(|written| (now - written).to_std().ok()).unwrap_or_default()
    }

    fn text(&self) -> String {
        let slots = self.slots.iter().map(ToString::to_string);
        slots.chain(self.is_left.then(|| LEFT.to_owned())).collect::<Vec<_>>().join(",")
    }

    fn parse(row: &Model) -> Self {
        let slots = row.slots.split(',').filter_map(|slot| slot.parse().ok());
        let is_left = row.slots.split(',').any(|slot| slot == LEFT);
        Self { id: row.id, slots: slots.filter(|slot| SLOTS.contains(slot)).collect(), is_left }
    }
}

/// Puts the invalidation of these tags into the transaction; with `is_left`, for others to publish, whom
/// `notifies` wakes. Transactions that notify commit one after the other, so those that nobody waits for do
/// not.
pub(crate) async fn write(
    transaction: &SqlTransaction,
    tags: &[Tag],
    is_left: bool,
    notifies: bool,
) -> Result<Invalidation, Error> {
    let written = Invalidation { id: id::new(), slots: tags.iter().map(Tag::slot).collect(), is_left };
    let row = ActiveModel { id: Set(written.id), slots: Set(written.text()) };
    transaction.insert("outbox.insert", row).await?;
    if notifies {
        notify(transaction).await?;
    }
    Ok(written)
}

/// Wakes those who listen, once this is committed. Text: the builders do not know this function of PostgreSQL.
async fn notify(transaction: &SqlTransaction) -> Result<(), Error> {
    let mut sql = transaction.sql();
    if sql.is_postgres() {
        sql.push("SELECT pg_notify('").push(CHANNEL).push("', '')");
        transaction.execute("outbox.notify", "cache_outbox", sql).await?;
    }
    Ok(())
}

/// Marks an invalidation as left, unless it was taken already.
async fn leave(database: &Database, mut left: Invalidation) -> Result<(), Error> {
    left.is_left = true;
    let transaction = SqlTransaction::begin(database).await?;
    let row = ActiveModel { id: Unchanged(left.id), slots: Set(left.text()) };
    transaction.update("outbox.leave", row).await?;
    notify(&transaction).await?;
    transaction.commit().await
}

/// Until when no writer waits for others, because it was in vain.
#[derive(Debug, Default)]
pub(super) struct HandoverPause(Mutex<Option<(Instant, Duration)>>);

impl HandoverPause {
    fn is_over(&self, now: Instant) -> bool {
        self.state().is_none_or(|(until, _)| until <= now)
    }

    fn end(&self) {
        *self.state() = None;
    }

    /// A wait was in vain. Those that began before the pause do not make it longer.
    fn begin(&self, now: Instant) {
        let mut state = self.state();
        let length = match *state {
            Some((until, _)) if now < until => return,
            Some((_, length)) => (length * 2).min(LONGEST_PAUSE),
            None => FIRST_PAUSE,
        };
        *state = Some((now + length, length));
    }

    fn state(&self) -> MutexGuard<'_, Option<(Instant, Duration)>> {
        self.0.lock().expect("no panic happens under this lock")
    }
}

impl Cache {
    /// Whether an invalidation is likely to reach the other instances now.
    pub(crate) fn can_publish(&self) -> bool {
        let shared = self.inner.as_ref().and_then(|inner| inner.shared.as_ref());
        shared.is_some_and(|shared| shared.redis.is_up())
    }

    /// What has waited longest in the outbox, for the metrics.
    fn note_oldest_invalidation(&self, oldest: Option<&Invalidation>) {
        let Some(inner) = &self.inner else { return };
        inner.metrics.set_outbox_age(oldest.map_or(Duration::ZERO, |oldest| oldest.age(clock::now())));
    }

    /// Whether a write that cannot be published waits for others to do it. Commands do not wait, and are heard at once.
    pub(crate) fn hands_over(&self) -> bool {
        self.inner.as_ref().is_none_or(|inner| inner.handover_pause.is_over(Instant::now()))
    }

    /// What this process could not publish is left to the others. Returns once one of them has published it,
    /// or this process after all, or when it takes too long.
    pub(crate) async fn hand_over(&self, database: &Database, published: &PublishedIds, left: Invalidation) {
        let Some(inner) = &self.inner else { return };
        let (id, slots, is_left) = (left.id, left.slots.clone(), left.is_left);
        let has_published = || inner.shared.as_ref().is_some_and(|shared| !shared.has_pending(&slots));
        let waits = inner.handover_pause.is_over(Instant::now());
        let handing_over = async {
            // It is found in two looks, too.
            if !waits {
                return Handover::Skipped;
            }
            if !is_left && leave(database, left).await.is_err() {
                return Handover::Timeout;
            }
            let mut pause = ASK_AGAIN.0;
            loop {
                tokio::time::sleep(pause).await;
                if has_published() {
                    published.add(id);
                    return Handover::Published;
                }
                if matches!(is_there(database, id).await, Ok(false)) {
                    return Handover::Taken;
                }
                pause = (pause * 2).min(ASK_AGAIN.1);
            }
        };
        let outcome = tokio::time::timeout(HANDOVER, handing_over).await.unwrap_or(Handover::Timeout);
        inner.metrics.handed_over(outcome);
        match outcome {
            Handover::Taken | Handover::Published => inner.handover_pause.end(),
            Handover::Timeout => inner.handover_pause.begin(Instant::now()),
            Handover::Skipped => {}
        }
    }
}

async fn is_there(database: &Database, id: Uuid) -> Result<bool, Error> {
    let row = Entity::find().select_only().column(Column::Id).filter(Column::Id.eq(id));
    let found: Vec<Uuid> = database.column("outbox.is_there", Entity, &row).await?;
    Ok(!found.is_empty())
}

/// Tidies up after this process, and publishes what others have left, for as long as it is polled; `on_left`
/// is called when they had.
pub(crate) async fn run(
    database: Database,
    cache: Cache,
    instance: Arc<Instance>,
    published: Option<Arc<PublishedIds>>,
    on_left: impl Fn() + Send,
) {
    let notified = Notify::new();
    let looking = keep_looking(&database, &cache, &instance, published.as_deref(), &notified, on_left);
    if published.is_some() {
        let listening = database.listen(CHANNEL, || notified.notify_one());
        futures_util::future::join(looking, listening).await;
    } else {
        looking.await;
    }
}

async fn keep_looking(
    database: &Database,
    cache: &Cache,
    instance: &Instance,
    published: Option<&PublishedIds>,
    notified: &Notify,
    on_left: impl Fn() + Send,
) {
    let mut before = FxHashSet::default();
    // Something was taken between two looks.
    let mut has_taken = false;
    let (interval, rounds) = match published {
        Some(_) => (TIDY, (LOOK.as_millis() / TIDY.as_millis()) as u32),
        None => (LOOK_ALONE, 1),
    };
    let (mut next, mut round) = (tokio::time::Instant::now() + interval, 0);
    loop {
        let is_notified = tokio::select! {
            () = notified.notified() => true,
            () = tokio::time::sleep_until(next) => false,
        };
        if is_notified && !cache.can_publish() {
            continue;
        }
        if !is_notified {
            if let Some(published) = published {
                tidy(database, published).await;
            }
            next = tokio::time::Instant::now() + interval;
            round += 1;
            if round < rounds {
                continue;
            }
            round = 0;
        }
        // Those with a Redis can tell everybody; this one could tell nobody but itself.
        if published.is_none() && instance.has_sharing_others() {
            cache.note_oldest_invalidation(None);
            continue;
        }
        let Ok(found) = Box::pin(look(database)).await else { continue };
        cache.note_oldest_invalidation(found.first());
        // What is found soon after a look is most likely being published by its writer.
        let is_left = |found: &&Invalidation| found.is_left || (!is_notified && before.contains(&found.id));
        let left: Vec<_> = found.iter().filter(is_left).collect();
        if !left.is_empty() {
            let slots: Vec<Slot> = left.iter().flat_map(|left| &left.slots).copied().collect();
            if Box::pin(cache.publish(&slots)).await {
                let ids: Vec<Uuid> = left.iter().map(|left| left.id).collect();
                tracing::info!(
                    invalidations = ids.len(),
                    "published invalidations that another process has left"
                );
                let _ = Box::pin(remove(database, &ids)).await;
                has_taken = true;
            }
        }
        if !is_notified {
            before = found.into_iter().map(|found| found.id).collect();
            // Not more often: everybody who listens reads the truth again.
            if std::mem::take(&mut has_taken) {
                on_left();
            }
        }
    }
}

/// Takes out what this process has published.
async fn tidy(database: &Database, published: &PublishedIds) {
    let ids = std::mem::take(&mut *published.ids());
    if !ids.is_empty() {
        // Where it fails they are found in the next looks, published again, and removed then.
        let _ = Box::pin(remove(database, &ids)).await;
    }
}

/// The invalidations that nobody has taken out.
async fn look(database: &Database) -> Result<Vec<Invalidation>, Error> {
    let oldest = Entity::find().order_by_asc(Column::Id).limit(MOST_FOUND);
    let found: Vec<Model> = database.all("outbox.look", oldest).await?;
    Ok(found.iter().map(Invalidation::parse).collect())
}

/// The oldest invalidations from before a time, so many at most. Their ids begin with the time.
pub(crate) async fn older_than(database: &Database, before: Time, most: u64) -> Result<Vec<Uuid>, Error> {
    let millis = u64::try_from(before.timestamp_millis()).unwrap_or_default();
    let first_id = uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid();
    let oldest = Entity::find().select_only().column(Column::Id).filter(Column::Id.lt(first_id));
    database.column("outbox.old", Entity, &oldest.order_by_asc(Column::Id).limit(most)).await
}

/// Removes these invalidations; says how many there were.
pub(crate) async fn remove_in(transaction: &SqlTransaction, ids: &[Uuid]) -> Result<u64, Error> {
    let delete = Entity::delete_many().filter(transaction.is_any(Column::Id, ids));
    transaction.write("outbox.remove_old", Entity, &delete).await
}

async fn remove(database: &Database, ids: &[Uuid]) -> Result<(), Error> {
    let transaction = SqlTransaction::begin(database).await?;
    let delete = Entity::delete_many().filter(transaction.is_any(Column::Id, ids));
    transaction.write("outbox.remove", Entity, &delete).await?;
    transaction.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_no_slot() {
        let (id, slots) = (id::new(), vec![SLOTS.start, SLOTS.start + 7]);
        for is_left in [false, true] {
            let text = Invalidation { id, slots: slots.clone(), is_left }.text();
            let read = Invalidation::parse(&Model { id, slots: text.clone() });
            assert_eq!((&read.slots, read.is_left), (&slots, is_left), "{text}");
        }
    }

    #[test]
    fn its_age_is_known_by_its_id() {
        let invalidation = Invalidation { id: id::new(), slots: Vec::new(), is_left: false };
        let later = clock::now() + chrono::TimeDelta::seconds(90);
        assert!((85..=91).contains(&invalidation.age(later).as_secs()));
        assert_eq!(invalidation.age(later - chrono::TimeDelta::days(1)), Duration::ZERO, "a clock that lags");
    }

    #[test]
    fn waits_in_vain_are_followed_by_longer_and_longer_pauses() {
        let (pause, start) = (HandoverPause::default(), Instant::now());
        assert!(pause.is_over(start));
        let (mut now, mut pauses) = (start, Vec::new());
        for _ in 0..8 {
            pause.begin(now);
            // Those who have waited at the same time.
            pause.begin(now);
            let until = pause.state().expect("it has begun").0;
            assert!(!pause.is_over(now) && pause.is_over(until));
            pauses.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
        pause.end();
        assert!(pause.is_over(start));
        pause.begin(now);
        assert!(pause.is_over(now + FIRST_PAUSE));
    }
}

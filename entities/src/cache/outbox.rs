//! Invalidations that outlive their writer. Where caches are shared, a transaction writes its invalidation into a table,
//! from which it is removed only once all instances know it. A command that cannot publish leaves its invalidations
//! there too, for the instances that serve. The writer publishes at once and tidies up a moment later; if that process
//! is killed between its commit and its invalidation, or cannot reach Redis, any other instance finds the row still
//! there, and publishes it; subscribers are told that they may have missed something. No clock is asked: what an instance
//! sees in two looks, one after the other, was left behind. Publishing twice is harmless.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rustc_hash::FxHashSet;
use sea_orm::{QueryOrder as _, QuerySelect as _, Set, entity::prelude::*};

use super::{
    Cache, Tag,
    instance::Instance,
    table::{SLOTS, Slot},
};
use crate::{
    clock::Time,
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

record! {
    /// A row of `cache_outbox`: an invalidation.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "cache_outbox")]
    pub struct Model {
        /// Primary key.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        /// Numbers of the slots of its tags, with commas between them.
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

/// Puts the invalidation of these tags into the transaction.
pub(crate) async fn write(transaction: &SqlTransaction, tags: &[Tag]) -> Result<Uuid, Error> {
    let slots = tags.iter().map(|tag| tag.slot().to_string()).collect::<Vec<_>>().join(",");
    let id = id::new();
    transaction.insert("outbox.insert", ActiveModel { id: Set(id), slots: Set(slots) }).await?;
    Ok(id)
}

/// Tidies up after this process, and publishes what others have left, for as long as it is polled; `on_left` is called when
/// they had.
pub(crate) async fn run(
    database: Database,
    cache: Cache,
    instance: Arc<Instance>,
    published: Option<Arc<PublishedIds>>,
    on_left: impl Fn() + Send,
) {
    let mut before = FxHashSet::default();
    loop {
        match &published {
            Some(published) => tidy(&database, published).await,
            None => tokio::time::sleep(LOOK_ALONE).await,
        }
        // Those with a Redis can tell everybody; this one could tell nobody but itself.
        if published.is_none() && instance.has_sharing_others() {
            continue;
        }
        let Ok(found) = Box::pin(look(&database)).await else { continue };
        let left: Vec<_> = found.iter().filter(|(id, _)| before.contains(id)).collect();
        if !left.is_empty() {
            let slots: Vec<Slot> = left.iter().flat_map(|(_, slots)| slots).copied().collect();
            if Box::pin(cache.publish(&slots)).await {
                let ids: Vec<Uuid> = left.iter().map(|(id, _)| *id).collect();
                tracing::info!(
                    invalidations = ids.len(),
                    "published invalidations that another process has left"
                );
                let _ = Box::pin(remove(&database, &ids)).await;
                on_left();
            }
        }
        before = found.into_iter().map(|(id, _)| id).collect();
    }
}

/// Takes out what this process has published, until it is time to look for what others have left.
async fn tidy(database: &Database, published: &PublishedIds) {
    for _ in 0..(LOOK.as_millis() / TIDY.as_millis()) {
        tokio::time::sleep(TIDY).await;
        let ids = std::mem::take(&mut *published.ids());
        if !ids.is_empty() {
            // Where it fails they are found in the next looks, published again, and removed then.
            let _ = Box::pin(remove(database, &ids)).await;
        }
    }
}

/// The invalidations that nobody has taken out.
async fn look(database: &Database) -> Result<Vec<(Uuid, Vec<Slot>)>, Error> {
    let oldest = Entity::find().order_by_asc(Column::Id).limit(MOST_FOUND);
    let found: Vec<Model> = database.all("outbox.look", oldest).await?;
    let slots_of = |bump: Model| {
        let slots = bump.slots.split(',').filter_map(|slot| slot.parse().ok());
        (bump.id, slots.filter(|slot| SLOTS.contains(slot)).collect())
    };
    Ok(found.into_iter().map(slots_of).collect())
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

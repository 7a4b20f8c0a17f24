//! What an instance reads before its first request: open forms, the accounts that were active lately, and
//! what was read most often before it started. A cache that is empty would send its first requests all to the
//! database at once. Not here: who waits for it (the server's readiness).

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use sea_orm::{QueryOrder as _, QuerySelect as _, entity::prelude::*};

use crate::{
    error::Error,
    form,
    id::{NodeKind, UserId},
    location, node, session,
    store::Store,
};

/// Rows of each kind at most.
const MAX_ROWS: u64 = 2_000;
/// Rows of one batch.
const BATCH: usize = 200;
/// Batches under way at once.
const CONCURRENCY: usize = 2;
/// How often, and how often at most, it is looked whether this instance follows the log.
const LOOK: Duration = Duration::from_millis(20);
const LOOKS: u32 = 50;
/// An account that has used a session since then is active.
const ACTIVE_DAYS: i64 = 7;

/// Fills the cache; says how many rows it has asked for.
///
/// # Errors
/// The database's.
pub async fn warm_up(store: &Store) -> Result<usize, Error> {
    if !store.cache().is_on() {
        return Ok(0);
    }
    // What is read before this instance follows the log could not be kept.
    for _ in 0..LOOKS {
        if store.cache().has_lease() {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    let mut wanted: Vec<(NodeKind, Uuid)> = store.cache().most_popular().await;
    let open = form::Entity::find()
        .select_only()
        .column(form::Column::Id)
        .filter(form::Column::Status.eq(form::Status::Open))
        .order_by_desc(form::Column::UpdatedAt)
        .limit(MAX_ROWS);
    let open = store.database().column("warm.forms", form::Entity, &open).await?;
    wanted.extend(open.into_iter().map(|id| (NodeKind::Form, id)));
    let since = crate::clock::now() - chrono::TimeDelta::days(ACTIVE_DAYS);
    let active = session::Entity::find()
        .select_only()
        .column(session::Column::UserId)
        .filter(session::Column::IsActive.into_expr())
        .filter(session::Column::LastActivity.gt(since))
        .group_by(session::Column::UserId)
        .order_by_desc(session::Column::LastActivity.max())
        .limit(MAX_ROWS);
    let active = store.database().column("warm.users", session::Entity, &active).await?;
    wanted.extend(active.into_iter().map(|id| (NodeKind::User, id)));
    wanted.sort_unstable_by_key(|(kind, id)| (kind.as_str(), *id));
    wanted.dedup();
    let batches: Vec<Vec<(NodeKind, Uuid)>> = wanted
        .chunk_by(|one, next| one.0 == next.0)
        .flat_map(|of_kind| of_kind.chunks(BATCH))
        .map(<[_]>::to_vec)
        .collect();
    let reads = futures_util::stream::iter(batches).map(|batch| read(store, batch));
    reads.buffer_unordered(CONCURRENCY).try_for_each(|()| std::future::ready(Ok(()))).await?;
    Ok(wanted.len())
}

/// Reads rows of one kind, and where accounts were last.
async fn read(store: &Store, batch: Vec<(NodeKind, Uuid)>) -> Result<(), Error> {
    let Some((kind, _)) = batch.first().copied() else { return Ok(()) };
    let ids: Vec<Uuid> = batch.into_iter().map(|(_, id)| id).collect();
    if kind == NodeKind::User {
        let users: Vec<UserId> = ids.iter().map(|id| UserId(*id)).collect();
        location::last_of_users(store, &users).await?;
    }
    node::warm(store, kind, ids).await
}

//! Sessions that have ended: signed out, revoked, or past their time. The table is walked by its key, a chunk
//! at a time: no index knows when sessions have ended, and most of those that are there have not.

use sea_orm::{Condition, QueryOrder as _, QuerySelect as _, entity::prelude::*};

use super::{BREATH, CHUNK, Stopped, Upkeep};
use crate::{
    cache::Tag,
    clock::Time,
    events::{ChangeEvent, Removal},
    id::{NodeKind, SessionId, UserId},
    session::{Column, Entity},
};

/// A session, as far as its end goes.
struct End {
    id: SessionId,
    user: UserId,
    times: [Option<Time>; 3],
}

impl Upkeep<'_> {
    pub(super) async fn remove_sessions(&self, before: Time) -> Result<u64, Stopped> {
        let (mut removed, mut last) = (0, SessionId(Uuid::nil()));
        loop {
            let next = Entity::find()
                .select_only()
                .columns([Column::Id, Column::UserId, Column::RevokedAt, Column::ExpiresAt, Column::EndsAt])
                .filter(Column::Id.gt(last))
                .order_by_asc(Column::Id)
                .limit(CHUNK);
            let read = self.store.rows("session.ends", Entity, &next, |cells| {
                let (id, user, revoked_at) = (cells.next()?, cells.next()?, cells.next()?);
                Ok(End { id, user, times: [revoked_at, Some(cells.next()?), cells.next()?] })
            });
            let sessions = read.await?;
            let Some(end) = sessions.last() else { return Ok(removed) };
            last = end.id;
            let is_old = |end: &&End| end.times.iter().flatten().any(|at| *at < before);
            let old: Vec<&End> = sessions.iter().filter(is_old).collect();
            if !old.is_empty() {
                removed += self.remove_ended(&old, before).await?;
            }
            tokio::time::sleep(BREATH).await;
        }
    }

    async fn remove_ended(&self, old: &[&End], before: Time) -> Result<u64, Stopped> {
        let mut transaction = self.begin_to_delete(Entity.table_name()).await?;
        let ids: Vec<SessionId> = old.iter().map(|end| end.id).collect();
        // One whose time was prolonged meanwhile stays.
        let ended = Condition::any()
            .add(Column::RevokedAt.lt(before))
            .add(Column::ExpiresAt.lt(before))
            .add(Column::EndsAt.lt(before));
        let delete = Entity::delete_many().filter(transaction.is_any(Column::Id, &ids)).filter(ended);
        let removed = transaction.write("session.remove", Entity, &delete).await?;
        transaction.changed(ChangeEvent::Removed { of: Removal::Sessions });
        for End { id, user, .. } in old {
            transaction.invalidates(Tag::Row(NodeKind::Session.as_str(), id.0));
            transaction.invalidates(Tag::List(NodeKind::Session.as_str(), "user", user.0));
        }
        transaction.commit_unlogged().await?;
        Ok(removed)
    }
}

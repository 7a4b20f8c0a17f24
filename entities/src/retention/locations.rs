//! Positions that are not in a whole old month, and the newest positions of accounts that have no newer one.
//! Of an account the oldest go first. Not here: whole months (`months`).

use sea_orm::{QueryOrder as _, QuerySelect as _, entity::prelude::*};

use super::{BREATH, CHUNK, Stopped, Upkeep};
use crate::{
    cache::Tag,
    clock::Time,
    events::{ChangeEvent, Removal},
    id::{LocationId, NodeKind, UserId},
    location::{self, last},
};

/// Accounts that are looked at by one statement.
const ACCOUNTS: i64 = 100;

impl Upkeep<'_> {
    /// Newest positions go before the history that they are from: what is shown as an account's newest is in
    /// its history.
    pub(super) async fn remove_last_locations(&self, before: Time) -> Result<u64, Stopped> {
        use last::{Column, Entity};
        let find = Entity::find()
            .select_only()
            .column(Column::UserId)
            .filter(Column::Timestamp.lt(before))
            .order_by_asc(Column::Timestamp)
            .limit(CHUNK);
        let mut removed = 0;
        loop {
            let users: Vec<UserId> = self.store.database().column("location.old_last", Entity, &find).await?;
            if users.is_empty() {
                return Ok(removed);
            }
            let mut transaction = self.begin_to_delete(location::Entity.table_name()).await?;
            // One that was replaced meanwhile stays.
            let delete = Entity::delete_many()
                .filter(transaction.is_any(Column::UserId, &users))
                .filter(Column::Timestamp.lt(before));
            removed += transaction.write("location.remove_last", Entity, &delete).await?;
            transaction.changed(ChangeEvent::Removed { of: Removal::Locations });
            for user in &users {
                transaction.invalidates(Tag::List(NodeKind::Location.as_str(), "user", user.0));
            }
            transaction.commit_unlogged().await?;
            if (users.len() as u64) < CHUNK {
                return Ok(removed);
            }
            tokio::time::sleep(BREATH).await;
        }
    }

    pub(super) async fn remove_locations(&self, before: Time) -> Result<u64, Stopped> {
        let (mut removed, mut last) = (0, UserId(Uuid::nil()));
        loop {
            let accounts = self.accounts_after(last, before).await?;
            let Some((end, _)) = accounts.last() else { return Ok(removed) };
            last = *end;
            for (account, _) in accounts.iter().filter(|(_, has_old)| *has_old) {
                removed += self.remove_locations_of(*account, before).await?;
            }
            tokio::time::sleep(BREATH).await;
        }
    }

    /// The next accounts that have positions, and whether each has old ones. Text: the builders know no recursion; each
    /// step of it is one look at an index.
    async fn accounts_after(&self, last: UserId, before: Time) -> Result<Vec<(UserId, bool)>, Stopped> {
        let mut sql = self.store.sql();
        sql.push("WITH RECURSIVE accounts (id) AS (SELECT id FROM (SELECT t.user_id AS id");
        sql.from(location::Entity.table_name()).push(" WHERE t.user_id > ").bind(last);
        sql.push(" ORDER BY t.user_id LIMIT 1) first UNION ALL SELECT (SELECT t.user_id");
        sql.from(location::Entity.table_name()).push(" WHERE t.user_id > a.id ORDER BY t.user_id LIMIT 1)");
        sql.push(" FROM accounts a WHERE a.id IS NOT NULL) SELECT a.id, EXISTS (SELECT 1");
        sql.from(location::Entity.table_name())
            .push(" WHERE t.user_id = a.id AND t.timestamp < ")
            .bind(before);
        sql.push(") FROM accounts a WHERE a.id IS NOT NULL LIMIT ").bind(ACCOUNTS);
        let read = self.store.fetch("location.accounts", location::Entity.table_name(), sql, |cells| {
            Ok((cells.next()?, cells.next()?))
        });
        Ok(read.await?)
    }

    async fn remove_locations_of(&self, account: UserId, before: Time) -> Result<u64, Stopped> {
        use location::{Column, Entity};
        let find = Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Column::UserId.eq(account))
            .filter(Column::Timestamp.lt(before))
            .order_by_asc(Column::Timestamp)
            .limit(CHUNK);
        let mut removed = 0;
        loop {
            let ids: Vec<LocationId> = self.store.database().column("location.old", Entity, &find).await?;
            if ids.is_empty() {
                return Ok(removed);
            }
            let mut transaction = self.begin_to_delete(Entity.table_name()).await?;
            let delete = Entity::delete_many()
                .filter(transaction.is_any(Column::Id, &ids))
                .filter(Column::Timestamp.lt(before));
            removed += transaction.write("location.remove", Entity, &delete).await?;
            transaction.changed(ChangeEvent::Removed { of: Removal::Locations });
            transaction.commit_unlogged().await?;
            if (ids.len() as u64) < CHUNK {
                return Ok(removed);
            }
            tokio::time::sleep(BREATH).await;
        }
    }
}

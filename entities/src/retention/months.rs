//! Whole months that are over for long enough: their partitions are taken out of the table and dropped, which
//! touches no row. Only PostgreSQL has partitions. Not here: what is left of a month (`locations`, and the
//! log in `retention`), how partitions are made (the crate `migration`, whose names these are). Text: the
//! builders know no partitions.

use std::time::Duration;

use chrono::{Months, NaiveDate};
use sea_orm::EntityName as _;

use super::{Stopped, Upkeep};
use crate::{
    activity,
    cache::Tag,
    clock::Time,
    database::sql::Cells,
    events::{ChangeEvent, Removal},
    location,
};

/// How long it is waited for a table, while others wait behind: at first, and each time twice as long until the most.
const LOCK_WAIT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Then the others go on for so long.
const LOCK_PAUSE: Duration = Duration::from_secs(1);
/// And so many times at most.
const LOCK_TRIES: u32 = 60;

/// A table that is kept by month.
pub(super) struct Monthly {
    table: fn() -> &'static str,
    removal: Removal,
}

pub(super) const LOCATIONS: Monthly =
    Monthly { table: || location::Entity.table_name(), removal: Removal::Locations };
pub(super) const ACTIVITY: Monthly =
    Monthly { table: || activity::Entity.table_name(), removal: Removal::ActivityLogs };

impl Monthly {
    /// Is this the partition of a month that was over at this moment?
    fn is_over(&self, partition: &str, at: Time) -> bool {
        let month = partition.strip_prefix((self.table)()).and_then(|rest| rest.strip_prefix('_'));
        let first =
            month.and_then(|month| NaiveDate::parse_from_str(&format!("{month}_01"), "%Y_%m_%d").ok());
        let end = first.and_then(|first| first.checked_add_months(Months::new(1)));
        end.is_some_and(|end| end <= at.date_naive())
    }
}

impl Upkeep<'_> {
    /// Drops the months that were over at this moment; how many those were.
    pub(super) async fn drop_months(&self, monthly: &Monthly, before: Time) -> Result<u64, Stopped> {
        let mut sql = self.store.sql();
        if !sql.is_postgres() {
            return Ok(0);
        }
        let table = (monthly.table)();
        sql.push("SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid");
        sql.push(" JOIN pg_class p ON p.oid = i.inhparent");
        sql.push(" WHERE pg_table_is_visible(p.oid) AND p.relname = ").bind(table).push(" ORDER BY 1");
        let read = |cells: &mut Cells<'_>| {
            let partition: String = cells.next()?;
            Ok(monthly.is_over(&partition, before).then_some(partition))
        };
        let partitions = self.store.fetch("retention.months", "pg_inherits", sql, read).await?;
        let mut dropped = 0;
        for partition in partitions.iter().flatten() {
            dropped += u64::from(self.drop_month(monthly, partition).await?);
        }
        Ok(dropped)
    }

    /// Drops a month, trying again where others hold the table; false if it was gone.
    async fn drop_month(&self, monthly: &Monthly, partition: &str) -> Result<bool, Stopped> {
        let (mut tries, mut wait) = (1, LOCK_WAIT.0);
        loop {
            match self.drop_now(monthly, partition, wait).await {
                Err(stopped) if tries < LOCK_TRIES && stopped.is_for_a_lock() => {
                    tracing::info!(
                        partition,
                        tries,
                        "a month that is to be removed is in use; it is tried again"
                    );
                    (tries, wait) = (tries + 1, (wait * 2).min(LOCK_WAIT.1));
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                dropped => return dropped,
            }
        }
    }

    /// Tells who shows it. Not with the removal itself, which makes room on a disk where nothing else can be stored.
    async fn tell_removed(&self, table: &'static str, of: Removal) {
        let telling = async {
            let mut transaction = self.begin_to_delete(table).await?;
            transaction.changed(ChangeEvent::Removed { of });
            transaction.commit_unlogged().await?;
            Ok::<_, Stopped>(())
        };
        if telling.await.is_err() {
            tracing::info!(table, "nobody could be told of a month that was removed");
        }
    }

    async fn drop_now(&self, monthly: &Monthly, partition: &str, wait: Duration) -> Result<bool, Stopped> {
        let table = (monthly.table)();
        let mut transaction = self.begin(table).await?;
        let mut sql = transaction.sql();
        sql.push("SELECT 1 FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid ");
        sql.push("WHERE pg_table_is_visible(c.oid) AND c.relname = ").bind(partition);
        if transaction.fetch("retention.month", "pg_inherits", sql, |_| Ok(())).await?.is_empty() {
            return Ok(false);
        }
        for text in [
            format!("SET LOCAL lock_timeout = {}", wait.as_millis()),
            format!("ALTER TABLE {table} DETACH PARTITION {partition}"),
            format!("DROP TABLE {partition}"),
        ] {
            let mut sql = transaction.sql();
            sql.push(&text);
            transaction.execute("retention.drop_month", table, sql).await?;
        }
        transaction.invalidates(Tag::Type(monthly.removal.kind().as_str()));
        transaction.commit_unlogged().await?;
        tracing::info!(partition, "a month was removed");
        self.tell_removed(table, monthly.removal).await;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_months_before_the_moment_are_over() {
        let at = |text: &str| text.parse::<Time>().expect("a time");
        let is_over = |partition, time| LOCATIONS.is_over(partition, at(time));
        assert!(is_over("user_locations_2026_10", "2026-11-01T00:00:00Z"));
        assert!(is_over("user_locations_2025_12", "2026-01-01T00:00:00Z"));
        assert!(!is_over("user_locations_2026_10", "2026-10-31T23:59:59Z"));
        for other in ["user_locations_default", "user_locations_next_2020_01", "user_locations_2020_01_old"] {
            assert!(!is_over(other, "2026-11-01T00:00:00Z"), "{other}");
        }
        assert!(!is_over("user_activity_logs_2020_01", "2026-11-01T00:00:00Z"), "of another table");
    }
}

//! The last use of each session, written behind: requests only note it, at most once a minute each, and all that was
//! noted is written together. Losing a note loses a minute. Not here: the end without use, which refreshing moves.

use std::{
    mem,
    sync::Mutex,
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;
use sea_orm::{QueryTrait, Set, entity::prelude::*, sea_query::Query};

use super::{ActiveModel, Column, Entity};
use crate::{
    clock,
    error::Error,
    events::ChangeEvent,
    id::{SessionId, UserId},
    store::{Store, transaction::Transaction},
};

/// A session's use is noted at most once in this time.
const PERIOD: Duration = Duration::from_mins(1);

/// Sessions that were used.
#[derive(Debug, Default)]
pub struct Uses {
    noted: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    /// When each was last noted.
    at: FxHashMap<SessionId, Instant>,
    pending: Vec<SessionId>,
}

impl Uses {
    /// Notes that a session was used.
    pub fn note(&self, session: SessionId) {
        let now = Instant::now();
        let mut noted = self.noted.lock().expect("no panic happens under this lock");
        let last = noted.at.insert(session, now);
        match last {
            Some(last) if now - last < PERIOD => {
                noted.at.insert(session, last);
            }
            _ => noted.pending.push(session),
        }
    }

    /// Writes what was noted since the last time.
    ///
    /// # Errors
    /// The database's; what was noted is lost then.
    pub async fn write(&self, store: &Store) -> Result<(), Error> {
        let pending = {
            let mut noted = self.noted.lock().expect("no panic happens under this lock");
            noted.at.retain(|_, last| last.elapsed() < PERIOD);
            mem::take(&mut noted.pending)
        };
        if pending.is_empty() {
            return Ok(());
        }
        let (mut transaction, now) = (Transaction::begin(store).await?, clock::now());
        let used = ActiveModel { last_activity: Set(now), ..Default::default() };
        let mut update = Entity::update_many()
            .set(used)
            .filter(Column::IsActive.into_expr())
            .filter(Column::LastActivity.lt(now))
            .filter(transaction.is_any(Column::Id, &pending));
        QueryTrait::query(&mut update).returning(Query::returning().columns([Column::Id, Column::UserId]));
        let written: Vec<(SessionId, UserId)> = transaction
            .rows("session.touch", Entity, &update, |cells| Ok((cells.next()?, cells.next()?)))
            .await?;
        for (id, user) in written {
            transaction.changed(ChangeEvent::Session { id, user });
        }
        transaction.commit_unlogged().await
    }
}

//! Which type an id belongs to: one probe of all primary keys, for `node(id)` and `nodes(ids)`. The rows themselves
//! are then read by their domain, under its rules.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::Serialize;
use uuid::Uuid;

use crate::{
    cache::{Cached, Kept, Tag},
    database::kind::Kind,
    error::Error,
    store::Store,
};

const TABLES: [(Kind, &str); 7] = [
    (Kind::User, "users"),
    (Kind::Session, "user_sessions"),
    (Kind::Form, "forms"),
    (Kind::FormVersion, "form_versions"),
    (Kind::Submission, "form_submissions"),
    (Kind::Location, "user_locations"),
    (Kind::ActivityLog, "user_activity_logs"),
];

/// The type of each id that exists. Says nothing about who may see it.
///
/// # Errors
/// The database's.
pub async fn kinds(store: &Store, ids: &[Uuid]) -> Result<FxHashMap<Uuid, Kind>, Error> {
    let found = store.cached(Kinds, ids).await?;
    Ok(found.into_iter().map(|(id, kind)| (id, *kind)).collect())
}

/// An id is of one type for ever. That it is of none may be over at any time.
#[derive(Clone)]
struct Kinds;

impl Cached for Kinds {
    type Key = Uuid;
    type Value = Kind;

    fn name(&self) -> &'static str {
        "node.kinds"
    }

    fn shape(&self) -> &'static str {
        "kind"
    }

    fn kept(&self) -> Kept {
        Kept::for_seconds(300)
    }

    fn arguments(&self) -> impl Serialize {}

    fn tags(&self, _: Uuid, _: Option<&Kind>) -> Vec<Tag> {
        Vec::new()
    }

    fn keeps_absent(&self) -> bool {
        false
    }

    async fn load(self, store: Store, ids: Arc<[Uuid]>) -> Result<FxHashMap<Uuid, Arc<Kind>>, Error> {
        let found = probe(&store, &ids).await?;
        Ok(found.into_iter().map(|(id, kind)| (id, Arc::new(kind))).collect())
    }
}

async fn probe(store: &Store, ids: &[Uuid]) -> Result<FxHashMap<Uuid, Kind>, Error> {
    let mut sql = store.sql();
    for (index, (_, table)) in TABLES.iter().enumerate() {
        sql.push(if index == 0 { "" } else { " UNION ALL " });
        sql.push("SELECT t.id, CAST(")
            .bind(index as i64)
            .push(" AS bigint) FROM ")
            .push(table)
            .push(" t WHERE t.id")
            .any_id(ids);
    }
    let found =
        store.fetch("node.kinds", "nodes", sql, |cells| Ok((cells.next::<Uuid>()?, cells.next::<i64>()?)));
    Ok(found.await?.into_iter().map(|(id, index)| (id, TABLES[index as usize].0)).collect())
}

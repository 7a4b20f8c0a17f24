//! Which type an id belongs to: one probe of all primary keys, for `node(id)` and `nodes(ids)`. The rows themselves
//! are then read by their domain, under its rules.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use sea_orm::{EntityTrait, IdenStatic as _, Iterable as _, PrimaryKeyToColumn as _};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    activity,
    cache::{Cached, ReadContext, Retention, Tag},
    database::{Database, kind::Kind},
    error::Error,
    form, location, session,
    store::Store,
    submission, user,
};

/// A table, and the column of its ids.
type IdsOf = fn() -> (&'static str, &'static str);

/// The types, with their tables and the columns of their ids.
const TABLES: [(Kind, IdsOf); 7] = [
    (Kind::User, ids_of::<user::Entity>),
    (Kind::Session, ids_of::<session::Entity>),
    (Kind::Form, ids_of::<form::Entity>),
    (Kind::FormVersion, ids_of::<form::version::Entity>),
    (Kind::Submission, ids_of::<submission::Entity>),
    (Kind::Location, ids_of::<location::Entity>),
    (Kind::ActivityLog, ids_of::<activity::Entity>),
];

/// The table, and the first column of its primary key, which is the id.
fn ids_of<E: EntityTrait>() -> (&'static str, &'static str) {
    let id = E::PrimaryKey::iter().next().expect("every table has a primary key");
    (E::default().table_name(), id.into_column().as_str())
}

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

    fn retention(&self) -> Retention {
        Retention::for_seconds(300)
    }

    fn arguments(&self) -> impl Serialize {}

    fn tags(&self, _: Uuid, _: Option<&Kind>) -> Vec<Tag> {
        Vec::new()
    }

    fn caches_absence(&self) -> bool {
        false
    }

    async fn load(self, context: ReadContext, ids: Arc<[Uuid]>) -> Result<FxHashMap<Uuid, Arc<Kind>>, Error> {
        let found = probe(context.database(), &ids).await?;
        Ok(found.into_iter().map(|(id, kind)| (id, Arc::new(kind))).collect())
    }
}

/// Text, as all batch reads (`benches/statements.rs`): every `node` of every request is one.
async fn probe(database: &Database, ids: &[Uuid]) -> Result<FxHashMap<Uuid, Kind>, Error> {
    let mut sql = database.sql();
    for (index, (_, ids_of)) in TABLES.iter().enumerate() {
        let (table, id) = ids_of();
        sql.push(if index == 0 { "SELECT t." } else { " UNION ALL SELECT t." }).push(id);
        sql.push(", CAST(").bind(index as i64).push(" AS bigint)").from(table);
        sql.push(" WHERE t.").push(id).any_id(ids);
    }
    let found =
        database.fetch("node.kinds", "nodes", sql, |cells| Ok((cells.next::<Uuid>()?, cells.next::<i64>()?)));
    Ok(found.await?.into_iter().map(|(id, index)| (id, TABLES[index as usize].0)).collect())
}

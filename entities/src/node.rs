//! What has an id: the list of its tables. By one probe of all primary keys it is found out which type an id
//! belongs to, for `node(id)` and `nodes(ids)`. The rows themselves are then read by their domain, under its
//! rules.

use std::sync::Arc;

use futures_util::{FutureExt as _, future::BoxFuture};
use rustc_hash::FxHashMap;
use sea_orm::{EntityTrait, IdenStatic as _, Iterable as _, PrimaryKeyToColumn as _};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    activity,
    cache::{Cached, ReadContext, Retention, Tag},
    database::Database,
    error::Error,
    form,
    id::{Id, NodeKind},
    location, session,
    store::{
        Store,
        row::{self, ById},
    },
    submission, user, webhook,
};

/// Everything that has an id; one line for each.
static NODES: [Node; 9] = [
    Node::by_id::<user::Row>(),
    Node::by_id::<session::Row>(),
    Node::by_id::<form::Row>(),
    Node::scoped::<form::version::Entity>(NodeKind::FormVersion),
    Node::scoped::<submission::Entity>(NodeKind::Submission),
    Node::by_id::<location::Model>(),
    Node::by_id::<activity::Model>(),
    Node::by_id::<webhook::Row>(),
    Node::scoped::<webhook::delivery::Entity>(NodeKind::WebhookDelivery),
];

/// A type that has ids, and where its rows are.
struct Node {
    kind: NodeKind,
    /// The table, and the first column of its primary key, which is the id.
    table: fn() -> (&'static str, &'static str),
    /// Reads rows into the cache; none where who asks decides what is read.
    warm: Option<Warm>,
}

type Warm = for<'a> fn(&'a Store, Vec<Uuid>) -> BoxFuture<'a, Result<(), Error>>;

impl Node {
    /// Rows that are read by their id alone.
    const fn by_id<R: ById>() -> Self {
        Self { kind: R::Id::KIND, table: table_of::<R::Entity>, warm: Some(warm_rows::<R>) }
    }

    /// Rows of which only the database can say who may see them.
    const fn scoped<E: EntityTrait>(kind: NodeKind) -> Self {
        Self { kind, table: table_of::<E>, warm: None }
    }
}

fn table_of<E: EntityTrait>() -> (&'static str, &'static str) {
    let id = E::PrimaryKey::iter().next().expect("every table has a primary key");
    (E::default().table_name(), id.into_column().as_str())
}

fn warm_rows<R: ById>(store: &Store, ids: Vec<Uuid>) -> BoxFuture<'_, Result<(), Error>> {
    let ids: Vec<R::Id> = ids.into_iter().map(R::Id::from).collect();
    async move { row::by_ids::<R>(store, &ids).await.map(drop) }.boxed()
}

/// Where the rows of each kind are: the table, and the column of its id.
pub fn tables() -> impl Iterator<Item = (NodeKind, &'static str, &'static str)> {
    NODES.iter().map(|node| {
        let (table, id) = (node.table)();
        (node.kind, table, id)
    })
}

/// Reads rows of one kind into the cache, where everybody gets the same of them.
pub(crate) async fn warm(store: &Store, kind: NodeKind, ids: Vec<Uuid>) -> Result<(), Error> {
    let warm = NODES.iter().find(|node| node.kind == kind).and_then(|node| node.warm);
    match warm {
        Some(warm) => warm(store, ids).await,
        None => Ok(()),
    }
}

/// The type of each id that exists. Says nothing about who may see it.
///
/// # Errors
/// The database's.
pub async fn kinds(store: &Store, ids: &[Uuid]) -> Result<FxHashMap<Uuid, NodeKind>, Error> {
    let found = store.cached(Kinds, ids).await?;
    Ok(found.into_iter().map(|(id, kind)| (id, *kind)).collect())
}

/// An id is of one type for ever. That it is of none may be over at any time.
#[derive(Clone)]
struct Kinds;

impl Cached for Kinds {
    type Key = Uuid;
    type Value = NodeKind;

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

    fn tags(&self, _: Uuid, _: Option<&NodeKind>) -> Vec<Tag> {
        Vec::new()
    }

    fn caches_absence(&self) -> bool {
        false
    }

    async fn load(
        self,
        context: ReadContext,
        ids: Arc<[Uuid]>,
    ) -> Result<FxHashMap<Uuid, Arc<NodeKind>>, Error> {
        let found = probe(context.database(), &ids).await?;
        Ok(found.into_iter().map(|(id, kind)| (id, Arc::new(kind))).collect())
    }
}

/// Text, as all batch reads (`benches/statements.rs`): every `node` of every request is one.
async fn probe(database: &Database, ids: &[Uuid]) -> Result<FxHashMap<Uuid, NodeKind>, Error> {
    let mut sql = database.sql();
    for (index, node) in NODES.iter().enumerate() {
        let (table, id) = (node.table)();
        sql.push(if index == 0 { "SELECT t." } else { " UNION ALL SELECT t." }).push(id);
        sql.push(", CAST(").bind(index as i64).push(" AS bigint)").from(table);
        sql.push(" WHERE t.").push(id).any_id(ids);
    }
    let found =
        database.fetch("node.kinds", "nodes", sql, |cells| Ok((cells.next::<Uuid>()?, cells.next::<i64>()?)));
    Ok(found.await?.into_iter().map(|(id, index)| (id, NODES[index as usize].kind)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_stands_in_the_list_once() {
        let mut kinds: Vec<NodeKind> = NODES.iter().map(|node| node.kind).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, NodeKind::ALL);
    }
}

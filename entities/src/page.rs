//! Pages of lists: the order of a list, its cursor and the condition "after this row" come from ONE `Keyset`, so
//! they cannot drift apart. A page per parent is one statement for all parents: LATERAL over the array of parents
//! on PostgreSQL, `ROW_NUMBER` on SQLite. Not here: which rows a list has (the domains), GraphQL connections.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::Arc,
};

use rustc_hash::FxHashMap;
use sea_orm::Value;
use uuid::Uuid;

use crate::{
    clock::Time,
    error::Error,
    sql::{Record, Sql},
    store::Store,
};

mod cursor;
pub use cursor::{BadCursor, CursorScope};

/// One value of a row's position in a list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyValue {
    /// A time.
    Time(Time),
    /// A text, ordered bytewise.
    Text(String),
    /// A number.
    Int(i64),
    /// An id; the last value of a position where nothing before it is unique within the list.
    Id(Uuid),
}

impl From<KeyValue> for Value {
    fn from(value: KeyValue) -> Self {
        match value {
            KeyValue::Time(time) => time.into(),
            KeyValue::Text(text) => text.into(),
            KeyValue::Int(number) => number.into(),
            KeyValue::Id(id) => id.into(),
        }
    }
}

/// What kind of value a key column has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// `KeyValue::Time`.
    Time,
    /// `KeyValue::Text`.
    Text,
    /// `KeyValue::Int`.
    Int,
    /// `KeyValue::Id`.
    Id,
}

/// One column of an order.
pub struct Key<R> {
    pub(crate) sql: &'static str,
    pub(crate) kind: KeyKind,
    pub(crate) value: fn(&R) -> KeyValue,
}

/// The order of a list: columns from the most to the least significant, all in one direction, the last one unique.
pub struct Keyset<R: 'static> {
    /// Names the order inside cursors; never reused for another order.
    pub(crate) name: &'static str,
    pub(crate) descending: bool,
    pub(crate) keys: &'static [Key<R>],
}

/// A keyset is its name and direction, so that loaders can be compared.
impl<R> PartialEq for Keyset<R> {
    fn eq(&self, other: &Self) -> bool {
        (self.name, self.descending) == (other.name, other.descending)
    }
}

impl<R> Eq for Keyset<R> {}

impl<R> Hash for Keyset<R> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.name, self.descending).hash(state);
    }
}

impl<R> Keyset<R> {
    /// Where `row` stands in this order.
    pub fn position(&self, row: &R) -> Position {
        Position(self.keys.iter().map(|key| (key.value)(row)).collect())
    }

    /// `ORDER BY …`, turned round for reading backwards.
    fn push_order(&self, sql: &mut Sql, backward: bool) {
        let direction = if self.descending == backward { " ASC" } else { " DESC" };
        for (index, key) in self.keys.iter().enumerate() {
            sql.push(if index == 0 { " ORDER BY " } else { ", " }).push(key.sql).push(direction);
        }
    }

    /// ` AND (a, b) < ($1, $2)`: rows strictly beyond `position` in the list's order (before it, if not `after`).
    fn push_beyond(&self, sql: &mut Sql, position: &Position, after: bool) {
        sql.push(" AND (");
        for (index, key) in self.keys.iter().enumerate() {
            sql.push(if index == 0 { "" } else { ", " }).push(key.sql);
        }
        sql.push(if self.descending == after { ") < (" } else { ") > (" });
        for (index, value) in position.0.iter().enumerate() {
            sql.push(if index == 0 { "" } else { ", " }).bind(value.clone());
        }
        sql.push(")");
    }
}

/// A row's place in a list's order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Position(pub(crate) Vec<KeyValue>);

/// Which part of a list is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Rows at most, at least 1.
    pub limit: u32,
    /// The last rows of the range instead of the first.
    pub backward: bool,
    /// Only rows after this one.
    pub after: Option<Position>,
    /// Only rows before this one.
    pub before: Option<Position>,
}

/// One page of a list, in the list's order.
#[derive(Debug)]
pub struct Page<R> {
    /// The rows.
    pub rows: Vec<Arc<R>>,
    /// Rows follow after the last one.
    pub has_next: bool,
    /// Rows stand before the first one.
    pub has_previous: bool,
}

/// A list as its domain describes it: everything but the parents.
pub(crate) struct List<'a, R: Record> {
    /// The statement's name, `domain.list`.
    pub(crate) name: &'static str,
    /// The table, when it is not `R::TABLE`.
    pub(crate) table: &'static str,
    pub(crate) keyset: &'static Keyset<R>,
    pub(crate) window: &'a Window,
    /// Appends ` AND …` for the filter and the scope.
    pub(crate) conditions: &'a (dyn Fn(&mut Sql) + Sync),
}

impl<R: Record> List<'_, R> {
    /// One page of the whole list.
    pub(crate) async fn page(&self, store: &Store) -> Result<Page<R>, Error> {
        let mut sql = store.sql();
        sql.push("SELECT ").push(R::COLUMNS);
        self.push_source(&mut sql);
        self.push_rest(&mut sql);
        self.push_limit(&mut sql);
        let rows = store.fetch(self.name, self.table, sql, |cells| R::read(cells).map(Arc::new)).await?;
        Ok(self.cut(rows))
    }

    /// One page for each parent, in one statement. `parent` is the column that names it.
    pub(crate) async fn pages<P>(
        &self,
        store: &Store,
        parent: &str,
        parents: &[P],
    ) -> Result<FxHashMap<P, Arc<Page<R>>>, Error>
    where
        P: Copy + Eq + Hash + From<Uuid> + Into<Uuid>,
    {
        let ids: Vec<Uuid> = parents.iter().map(|id| (*id).into()).collect();
        let mut sql = store.sql();
        if sql.is_postgres() {
            self.push_lateral(&mut sql, parent, &ids);
        } else {
            self.push_row_number(&mut sql, parent, &ids);
        }
        let mut pages: FxHashMap<Uuid, Vec<Arc<R>>> = HashMap::default();
        let rows = store
            .fetch(self.name, self.table, sql, |cells| Ok((cells.next::<Uuid>()?, Arc::new(R::read(cells)?))))
            .await?;
        for (parent, row) in rows {
            pages.entry(parent).or_default().push(row);
        }
        // A parent without rows has an empty page, not none: `None` would mean that the parent is not there.
        Ok(parents
            .iter()
            .map(|parent| {
                let rows = pages.remove(&(*parent).into()).unwrap_or_default();
                (*parent, Arc::new(self.cut(rows)))
            })
            .collect())
    }

    fn push_source(&self, sql: &mut Sql) {
        sql.push(" FROM ").push(self.table).push(" t WHERE TRUE");
    }

    /// Conditions, range and order.
    fn push_rest(&self, sql: &mut Sql) {
        self.push_conditions(sql);
        self.keyset.push_order(sql, self.window.backward);
    }

    fn push_conditions(&self, sql: &mut Sql) {
        (self.conditions)(sql);
        if let Some(after) = &self.window.after {
            self.keyset.push_beyond(sql, after, true);
        }
        if let Some(before) = &self.window.before {
            self.keyset.push_beyond(sql, before, false);
        }
    }

    /// One row more than asked for tells whether there are more.
    fn push_limit(&self, sql: &mut Sql) {
        sql.push(" LIMIT ").bind(i64::from(self.window.limit) + 1);
    }

    fn push_lateral(&self, sql: &mut Sql, parent: &str, parents: &[Uuid]) {
        sql.push("SELECT p.id, c.* FROM ").parents(parents);
        sql.push(" CROSS JOIN LATERAL (SELECT ").push(R::COLUMNS);
        sql.push(" FROM ").push(self.table).push(" t WHERE t.").push(parent).push(" = p.id");
        self.push_rest(sql);
        self.push_limit(sql);
        sql.push(") c");
    }

    fn push_row_number(&self, sql: &mut Sql, parent: &str, parents: &[Uuid]) {
        sql.push("SELECT t.")
            .push(parent)
            .push(", ")
            .push(R::COLUMNS)
            .push(" FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY t.");
        sql.push(parent);
        self.keyset.push_order(sql, self.window.backward);
        sql.push(") AS place FROM ").push(self.table).push(" t WHERE t.").push(parent).any_id(parents);
        self.push_conditions(sql);
        sql.push(") t WHERE t.place <= ").bind(i64::from(self.window.limit) + 1);
        sql.push(" ORDER BY t.").push(parent).push(", t.place");
    }

    /// Cuts the row too many, puts the rows in the list's order and says what lies beyond.
    fn cut(&self, mut rows: Vec<Arc<R>>) -> Page<R> {
        let limit = self.window.limit as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        if self.window.backward {
            rows.reverse();
            Page { rows, has_next: self.window.before.is_some(), has_previous: more }
        } else {
            Page { rows, has_next: more, has_previous: self.window.after.is_some() }
        }
    }
}

/// Counts the rows of a list: of all of it, or for each parent in one statement.
pub(crate) struct Count<'a> {
    pub(crate) name: &'static str,
    pub(crate) table: &'static str,
    /// Appends ` AND …` for the filter and the scope.
    pub(crate) conditions: &'a (dyn Fn(&mut Sql) + Sync),
}

impl Count<'_> {
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method itself is not general enough over lifetimes"
    )]
    pub(crate) async fn all(&self, store: &Store) -> Result<i64, Error> {
        let mut sql = store.sql();
        sql.push("SELECT count(*) FROM ").push(self.table).push(" t WHERE TRUE");
        (self.conditions)(&mut sql);
        let counts = store.fetch(self.name, self.table, sql, |cells| cells.next::<i64>()).await?;
        Ok(counts.first().copied().unwrap_or_default())
    }

    /// Parents without rows count 0.
    pub(crate) async fn per_parent<P>(
        &self,
        store: &Store,
        parent: &str,
        parents: &[P],
    ) -> Result<FxHashMap<P, i64>, Error>
    where
        P: Copy + Eq + Hash + From<Uuid> + Into<Uuid>,
    {
        let mut sql = store.sql();
        sql.push("SELECT t.").push(parent).push(", count(*) FROM ").push(self.table).push(" t WHERE t.");
        sql.push(parent).any_id(parents);
        (self.conditions)(&mut sql);
        sql.push(" GROUP BY t.").push(parent);
        let counted = store
            .fetch(self.name, self.table, sql, |cells| Ok((cells.next::<Uuid>()?, cells.next::<i64>()?)))
            .await?;
        let mut counts: FxHashMap<P, i64> = parents.iter().map(|parent| (*parent, 0)).collect();
        counts.extend(counted.into_iter().map(|(parent, count)| (P::from(parent), count)));
        Ok(counts)
    }
}

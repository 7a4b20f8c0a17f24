//! Pages of lists: the order of a list, its cursor and the condition "after this row" come from ONE `Keyset`, so
//! they cannot drift apart. A page per parent is one statement for all parents: LATERAL over the array of parents
//! on PostgreSQL, `ROW_NUMBER` on SQLite. Not here: which rows a list has (the domains), GraphQL connections.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use rustc_hash::FxHashMap;
use sea_orm::{Value, sqlx};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    cache::Tag,
    clock::{Time, TimeRange},
    database::{
        scope::Scope,
        sql::{Cells, Record, Sql},
    },
    error::Error,
    store::Store,
};

mod cursor;
mod kept;
pub use cursor::{BadCursor, CursorScope};

use kept::{Counts, Pages, Part};

/// One value of a row's position in a list.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
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

/// The columns of an order by a time and, where times are equal, by id.
macro_rules! by_time {
    ($column:ident) => {
        [
            $crate::database::page::Key {
                sql: concat!("t.", stringify!($column)),
                kind: $crate::database::page::KeyKind::Time,
                value: |row| $crate::database::page::KeyValue::Time(row.$column),
            },
            $crate::database::page::Key {
                sql: "t.id",
                kind: $crate::database::page::KeyKind::Id,
                value: |row| $crate::database::page::KeyValue::Id(row.id.0),
            },
        ]
    };
}
pub(crate) use by_time;

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
    /// An order and its reverse.
    pub(crate) const fn both_ways(name: &'static str, keys: &'static [Key<R>]) -> [Self; 2] {
        [Self { name, descending: false, keys }, Self { name, descending: true, keys }]
    }

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
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Position(pub(crate) Vec<KeyValue>);

/// Which part of a list is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
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
#[derive(Debug, Serialize, Deserialize)]
pub struct Page<R> {
    /// The rows.
    pub rows: Vec<Arc<R>>,
    /// Rows follow after the last one.
    pub has_next: bool,
    /// Rows stand before the first one.
    pub has_previous: bool,
}

/// A list as its domain declares it, once: the names of its statements, its table and which rows it has. It is read
/// whole, or as a page for each parent.
pub struct List<R: 'static, F: 'static> {
    names: Names,
    table: &'static str,
    columns: &'static str,
    read: fn(&mut Cells<'_>) -> Result<R, sqlx::Error>,
    conditions: Conditions<F>,
    /// The names and types of the columns.
    shape: &'static str,
    /// What its pages and counts depend on, where they are worth keeping.
    depends_on: Option<DependsOn>,
    /// Checked against Redis at each read, as its rows are.
    is_strong: bool,
}

/// What a list depends on, by its parent's id and who asks.
type DependsOn = fn(Uuid, &Scope) -> Vec<Tag>;

/// Which rows a list has.
pub trait Filtering: Clone + Serialize + Send + Sync + 'static {
    /// Will it be asked for again? Texts that are being typed and present moments will not.
    fn is_repeatable(&self) -> bool {
        true
    }
}

impl Filtering for () {}

impl Filtering for TimeRange {}

/// Appends ` AND …` for the filter and the scope.
type Conditions<F> = fn(&F, &mut Sql, &Scope);

/// What the statements of a list are called, `domain.list`.
#[derive(Clone, Copy)]
pub(crate) struct Names {
    pub(crate) page: &'static str,
    pub(crate) count: &'static str,
    /// The column that names a row's parent; none in a list that is read whole.
    pub(crate) parent: &'static str,
}

/// A list is the names of its statements and its parents, so that loaders can be compared.
impl<R, F> PartialEq for List<R, F> {
    fn eq(&self, other: &Self) -> bool {
        (self.names.page, self.names.parent) == (other.names.page, other.names.parent)
    }
}

impl<R, F> Eq for List<R, F> {}

impl<R, F> Hash for List<R, F> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.names.page, self.names.parent).hash(state);
    }
}

impl<R, F> List<R, F>
where
    R: Serialize + DeserializeOwned + Send + Sync,
    F: Filtering,
{
    pub(crate) const fn new(names: Names, conditions: Conditions<F>) -> Self
    where
        R: Record,
    {
        let (table, columns, shape) = (R::TABLE, R::COLUMNS, R::SHAPE);
        let (depends_on, is_strong) = (None, false);
        Self { names, table, columns, read: R::read, conditions, shape, depends_on, is_strong }
    }

    /// Keeps its pages and counts until something they depend on is written.
    pub(crate) const fn kept(mut self, depends_on: DependsOn) -> Self {
        self.depends_on = Some(depends_on);
        self
    }

    /// Its rows are of a type that is checked against Redis at each read: so are its pages.
    pub(crate) const fn strong(mut self) -> Self {
        self.is_strong = true;
        self
    }

    /// The same columns of another table.
    pub(crate) const fn in_table(mut self, table: &'static str) -> Self {
        self.table = table;
        self
    }

    fn part(&'static self, scope: &Scope, filter: &F) -> Part<R, F> {
        Part { list: self, scope: *scope, filter: filter.clone() }
    }

    /// One page of the whole list.
    ///
    /// # Errors
    /// The database's.
    pub async fn page(
        &'static self,
        store: &Store,
        scope: &Scope,
        filter: &F,
        keyset: &'static Keyset<R>,
        window: &Window,
    ) -> Result<Arc<Page<R>>, Error> {
        let part = self.part(scope, filter);
        let pages = Pages { part, keyset, window: window.clone(), whole: true };
        let mut found = pages.part.read(store, pages.clone(), &[Uuid::nil()]).await?;
        Ok(found.remove(&Uuid::nil()).expect("a list has a page, if an empty one"))
    }

    async fn load_page(
        &self,
        store: &Store,
        scope: &Scope,
        filter: &F,
        keyset: &'static Keyset<R>,
        window: &Window,
    ) -> Result<Page<R>, Error> {
        let mut sql = store.sql();
        sql.push("SELECT ").push(self.columns).push(" FROM ").push(self.table).push(" t WHERE TRUE");
        (self.conditions)(filter, &mut sql, scope);
        window.push(&mut sql, keyset);
        window.push_limit(&mut sql);
        let read = |cells: &mut Cells<'_>| (self.read)(cells).map(Arc::new);
        Ok(window.cut(store.fetch(self.names.page, self.table, sql, read).await?))
    }

    /// How many rows the filter leaves of the whole list.
    ///
    /// # Errors
    /// The database's.
    pub async fn count(&'static self, store: &Store, scope: &Scope, filter: &F) -> Result<i64, Error> {
        let part = self.part(scope, filter);
        let counts = Counts { part, whole: true };
        let found = counts.part.read(store, counts.clone(), &[Uuid::nil()]).await?;
        Ok(found.get(&Uuid::nil()).map_or(0, |count| **count))
    }

    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method itself is not general enough over lifetimes"
    )]
    async fn load_count(&self, store: &Store, scope: &Scope, filter: &F) -> Result<i64, Error> {
        let mut sql = store.sql();
        sql.push("SELECT count(*) FROM ").push(self.table).push(" t WHERE TRUE");
        (self.conditions)(filter, &mut sql, scope);
        let counts = store.fetch(self.names.count, self.table, sql, |cells| cells.next::<i64>()).await?;
        Ok(counts.first().copied().unwrap_or_default())
    }

    /// One page for each parent, in one statement. A parent without rows has an empty page.
    ///
    /// # Errors
    /// The database's.
    pub async fn pages<P: Parent>(
        &'static self,
        store: &Store,
        scope: &Scope,
        filter: &F,
        keyset: &'static Keyset<R>,
        window: &Window,
        parents: &[P],
    ) -> Result<FxHashMap<P, Arc<Page<R>>>, Error> {
        let part = self.part(scope, filter);
        let pages = Pages { part, keyset, window: window.clone(), whole: false };
        let ids: Vec<Uuid> = parents.iter().map(|parent| (*parent).into()).collect();
        let found = pages.part.read(store, pages.clone(), &ids).await?;
        Ok(found.into_iter().map(|(parent, page)| (P::from(parent), page)).collect())
    }

    async fn load_pages<P: Parent>(
        &self,
        store: &Store,
        scope: &Scope,
        filter: &F,
        keyset: &'static Keyset<R>,
        window: &Window,
        parents: &[P],
    ) -> Result<FxHashMap<P, Arc<Page<R>>>, Error> {
        let mut sql = store.sql();
        let conditions = |sql: &mut Sql| (self.conditions)(filter, sql, scope);
        if sql.is_postgres() {
            self.push_lateral(&mut sql, conditions, keyset, window, parents);
        } else {
            self.push_row_number(&mut sql, conditions, keyset, window, parents);
        }
        let mut pages: FxHashMap<P, Vec<Arc<R>>> =
            parents.iter().map(|parent| (*parent, Vec::new())).collect();
        let read = |cells: &mut Cells<'_>| {
            let parent = P::from(cells.next::<Uuid>()?);
            let row = Arc::new((self.read)(cells)?);
            pages.entry(parent).or_default().push(row);
            Ok(())
        };
        store.fetch(self.names.page, self.table, sql, read).await?;
        Ok(pages.into_iter().map(|(parent, rows)| (parent, Arc::new(window.cut(rows)))).collect())
    }

    /// How many rows the filter leaves each parent, in one statement. A parent without rows has 0.
    ///
    /// # Errors
    /// The database's.
    pub async fn counts<P: Parent>(
        &'static self,
        store: &Store,
        scope: &Scope,
        filter: &F,
        parents: &[P],
    ) -> Result<FxHashMap<P, i64>, Error> {
        let part = self.part(scope, filter);
        let counts = Counts { part, whole: false };
        let ids: Vec<Uuid> = parents.iter().map(|parent| (*parent).into()).collect();
        let found = counts.part.read(store, counts.clone(), &ids).await?;
        Ok(found.into_iter().map(|(parent, count)| (P::from(parent), *count)).collect())
    }

    async fn load_counts<P: Parent>(
        &self,
        store: &Store,
        scope: &Scope,
        filter: &F,
        parents: &[P],
    ) -> Result<FxHashMap<P, i64>, Error> {
        let (mut sql, parent) = (store.sql(), self.names.parent);
        sql.push("SELECT t.").push(parent).push(", count(*) FROM ").push(self.table).push(" t WHERE t.");
        sql.push(parent).any_id(parents);
        (self.conditions)(filter, &mut sql, scope);
        sql.push(" GROUP BY t.").push(parent);
        let mut counts: FxHashMap<P, i64> = parents.iter().map(|parent| (*parent, 0)).collect();
        let read = |cells: &mut Cells<'_>| {
            counts.insert(P::from(cells.next::<Uuid>()?), cells.next()?);
            Ok(())
        };
        store.fetch(self.names.count, self.table, sql, read).await?;
        Ok(counts)
    }

    fn push_lateral<P: Parent>(
        &self,
        sql: &mut Sql,
        conditions: impl Fn(&mut Sql),
        keyset: &Keyset<R>,
        window: &Window,
        parents: &[P],
    ) {
        sql.push("SELECT p.id, c.* FROM ").parents(parents);
        sql.push(" CROSS JOIN LATERAL (SELECT ").push(self.columns).push(" FROM ").push(self.table);
        sql.push(" t WHERE t.").push(self.names.parent).push(" = p.id");
        conditions(sql);
        window.push(sql, keyset);
        window.push_limit(sql);
        sql.push(") c");
    }

    fn push_row_number<P: Parent>(
        &self,
        sql: &mut Sql,
        conditions: impl Fn(&mut Sql),
        keyset: &Keyset<R>,
        window: &Window,
        parents: &[P],
    ) {
        let parent = self.names.parent;
        sql.push("SELECT t.").push(parent).push(", ").push(self.columns);
        sql.push(" FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY t.").push(parent);
        keyset.push_order(sql, window.backward);
        sql.push(") AS place FROM ").push(self.table).push(" t WHERE t.").push(parent).any_id(parents);
        conditions(sql);
        window.push_range(sql, keyset);
        sql.push(") t WHERE t.place <= ").bind(i64::from(window.limit) + 1);
        sql.push(" ORDER BY t.").push(parent).push(", t.place");
    }
}

/// The id that names the parent of a list.
pub trait Parent: Copy + Eq + Hash + From<Uuid> + Into<Uuid> + Send + Sync {}

impl<P: Copy + Eq + Hash + From<Uuid> + Into<Uuid> + Send + Sync> Parent for P {}

impl Window {
    /// Range and order.
    fn push<R>(&self, sql: &mut Sql, keyset: &Keyset<R>) {
        self.push_range(sql, keyset);
        keyset.push_order(sql, self.backward);
    }

    fn push_range<R>(&self, sql: &mut Sql, keyset: &Keyset<R>) {
        if let Some(after) = &self.after {
            keyset.push_beyond(sql, after, true);
        }
        if let Some(before) = &self.before {
            keyset.push_beyond(sql, before, false);
        }
    }

    /// One row more than asked for tells whether there are more.
    fn push_limit(&self, sql: &mut Sql) {
        sql.push(" LIMIT ").bind(i64::from(self.limit) + 1);
    }

    /// Cuts the row too many, puts the rows in the list's order and says what lies beyond.
    fn cut<R>(&self, mut rows: Vec<Arc<R>>) -> Page<R> {
        let limit = self.limit as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        if self.backward {
            rows.reverse();
            Page { rows, has_next: self.before.is_some(), has_previous: more }
        } else {
            Page { rows, has_next: more, has_previous: self.after.is_some() }
        }
    }
}

//! Lists as the domains declare them, and the statements that read their pages and lengths: whole, or for each of many
//! parents in one statement, which is a LATERAL join over the array of parents on PostgreSQL and `ROW_NUMBER` on
//! SQLite. They are text: the builders know no `unnest(…) AS p(id)`, and cost a multiple (`benches/statements.rs`). Not
//! here: order and cursors (`database::page`), which rows a list has (the domains).

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use rustc_hash::FxHashMap;
use sea_orm::sqlx;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    cache::Tag,
    clock::TimeRange,
    database::{
        Database,
        page::{Keyset, Page, Window},
        scope::Scope,
        sql::{Cells, Record, Sql},
    },
    error::Error,
};

mod cached;

pub use cached::Part;

/// A list as its domain declares it, once: the names of its statements, its table and which rows it has. It is read
/// whole, or as a page for each parent.
pub struct List<R: 'static, F: 'static> {
    names: Names,
    table: fn() -> &'static str,
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
    pub(crate) parent: Option<fn() -> &'static str>,
}

impl Names {
    fn parent(&self) -> &'static str {
        self.parent.map_or("", |parent| parent())
    }
}

/// A list is the names of its statements and its parents, so that loaders can be compared.
impl<R, F> PartialEq for List<R, F> {
    fn eq(&self, other: &Self) -> bool {
        (self.names.page, self.names.parent()) == (other.names.page, other.names.parent())
    }
}

impl<R, F> Eq for List<R, F> {}

impl<R, F> Hash for List<R, F> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.names.page, self.names.parent()).hash(state);
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
        let (table, columns, shape): (fn() -> _, _, _) = (R::table, R::COLUMNS, R::SHAPE);
        let (depends_on, is_strong) = (None, false);
        Self { names, table, columns, read: R::read, conditions, shape, depends_on, is_strong }
    }

    /// Keeps its pages and counts until something they depend on is written.
    pub(crate) const fn retention(mut self, depends_on: DependsOn) -> Self {
        self.depends_on = Some(depends_on);
        self
    }

    /// Its rows are of a type that is checked against Redis at each read: so are its pages.
    pub(crate) const fn strong(mut self) -> Self {
        self.is_strong = true;
        self
    }

    /// Reads its columns from another table, which must have them.
    pub(crate) const fn in_table_of<T: Record>(mut self) -> Self {
        self.table = T::table;
        self
    }

    /// The rows of the list that a filter and a scope leave.
    pub fn part(&'static self, scope: Scope, filter: F) -> Part<&'static Self, F> {
        Part { list: self, scope, filter }
    }

    /// Is it read whole, and not for each of many parents?
    fn is_whole(&self) -> bool {
        self.names.parent.is_none()
    }

    async fn load_page(
        &self,
        database: &Database,
        scope: &Scope,
        filter: &F,
        keyset: &'static Keyset<R>,
        window: &Window,
    ) -> Result<Page<R>, Error> {
        let mut sql = database.sql();
        sql.push("SELECT ").push(self.columns).from((self.table)()).push(" WHERE TRUE");
        (self.conditions)(filter, &mut sql, scope);
        window.push(&mut sql, keyset);
        window.push_limit(&mut sql);
        let read = |cells: &mut Cells<'_>| (self.read)(cells).map(Arc::new);
        Ok(window.cut(database.fetch(self.names.page, (self.table)(), sql, read).await?))
    }

    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method itself is not general enough over lifetimes"
    )]
    async fn load_count(&self, database: &Database, scope: &Scope, filter: &F) -> Result<i64, Error> {
        let mut sql = database.sql();
        sql.push("SELECT count(*)").from((self.table)()).push(" WHERE TRUE");
        (self.conditions)(filter, &mut sql, scope);
        let counts =
            database.fetch(self.names.count, (self.table)(), sql, |cells| cells.next::<i64>()).await?;
        Ok(counts.first().copied().unwrap_or_default())
    }

    async fn load_pages(
        &self,
        database: &Database,
        scope: &Scope,
        filter: &F,
        keyset: &'static Keyset<R>,
        window: &Window,
        parents: &[Uuid],
    ) -> Result<FxHashMap<Uuid, Arc<Page<R>>>, Error> {
        let mut sql = database.sql();
        let conditions = |sql: &mut Sql| (self.conditions)(filter, sql, scope);
        if sql.is_postgres() {
            self.push_lateral(&mut sql, conditions, keyset, window, parents);
        } else {
            self.push_row_number(&mut sql, conditions, keyset, window, parents);
        }
        let read = |cells: &mut Cells<'_>| Ok((cells.next::<Uuid>()?, (self.read)(cells)?));
        let rows = database.fetch(self.names.page, (self.table)(), sql, read).await?;
        let mut pages: FxHashMap<Uuid, Vec<Arc<R>>> =
            parents.iter().map(|parent| (*parent, Vec::new())).collect();
        for (parent, row) in rows {
            pages.entry(parent).or_default().push(Arc::new(row));
        }
        Ok(pages.into_iter().map(|(parent, rows)| (parent, Arc::new(window.cut(rows)))).collect())
    }

    async fn load_counts(
        &self,
        database: &Database,
        scope: &Scope,
        filter: &F,
        parents: &[Uuid],
    ) -> Result<FxHashMap<Uuid, i64>, Error> {
        let (mut sql, parent) = (database.sql(), self.names.parent());
        sql.push("SELECT t.").push(parent).push(", count(*)").from((self.table)());
        sql.push(" WHERE t.").push(parent).any_id(parents);
        (self.conditions)(filter, &mut sql, scope);
        sql.push(" GROUP BY t.").push(parent);
        let mut counts: FxHashMap<Uuid, i64> = parents.iter().map(|parent| (*parent, 0)).collect();
        let read = |cells: &mut Cells<'_>| Ok((cells.next::<Uuid>()?, cells.next::<i64>()?));
        counts.extend(database.fetch(self.names.count, (self.table)(), sql, read).await?);
        Ok(counts)
    }

    fn push_lateral(
        &self,
        sql: &mut Sql,
        conditions: impl Fn(&mut Sql),
        keyset: &Keyset<R>,
        window: &Window,
        parents: &[Uuid],
    ) {
        sql.push("SELECT p.id, c.* FROM ").parents(parents);
        sql.push(" CROSS JOIN LATERAL (SELECT ").push(self.columns).from((self.table)());
        sql.push(" WHERE t.").push(self.names.parent()).push(" = p.id");
        conditions(sql);
        window.push(sql, keyset);
        window.push_limit(sql);
        sql.push(") c");
    }

    fn push_row_number(
        &self,
        sql: &mut Sql,
        conditions: impl Fn(&mut Sql),
        keyset: &Keyset<R>,
        window: &Window,
        parents: &[Uuid],
    ) {
        let parent = self.names.parent();
        sql.push("SELECT t.").push(parent).push(", ").push(self.columns);
        sql.push(" FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY t.").push(parent);
        keyset.push_order(sql, window.backward);
        sql.push(") AS place").from((self.table)()).push(" WHERE t.").push(parent).any_id(parents);
        conditions(sql);
        window.push_range(sql, keyset);
        sql.push(") t WHERE t.place <= ").bind(i64::from(window.limit) + 1);
        sql.push(" ORDER BY t.").push(parent).push(", t.place");
    }
}

/// The id that names the parent of a list.
pub trait Parent: Copy + Eq + Hash + From<Uuid> + Into<Uuid> + Send + Sync {}

impl<P: Copy + Eq + Hash + From<Uuid> + Into<Uuid> + Send + Sync> Parent for P {}

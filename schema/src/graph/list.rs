//! Lists of rows of `entities` as connections: a domain says once what the arguments of a list mean (`Lists`)
//! and which list an edge leads to (`Listed`); the loaders, the cursors and the part that is wanted follow.
//! Not here: which rows a list has (the domains), how a page is written (`engine::connection`).

use std::{hash::Hash, sync::Arc};

use entities::{
    database::{
        page::{BadCursor, CursorScope, Keyset, Page, Window},
        scope::Scope,
    },
    store::list::{Filtering, List, Part},
};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::context::{ContextExt as _, Database};
use engine::{
    batch::{Loaded, Loader},
    connection::{BoundPage, MAX_ROWS, PageArgs, PageRows, Pages},
    context::Context,
    edge::{Arguments, FieldArgs, Single},
    error::{Code, FieldError},
    object::{Edge, Visible},
    scalar::write_json,
};

/// The arguments of a list's field, and what they mean.
pub(crate) trait Lists: Arguments {
    /// What the list shows.
    type Object: Visible<Row: Serialize + DeserializeOwned>;
    /// Which rows the list has.
    type Filter: Filtering + Eq + Hash;

    /// Rows of a page at most.
    const MAX_ROWS: u32 = MAX_ROWS;

    /// Which part of the list is wanted.
    fn page(&self) -> &PageArgs;

    /// Which rows the list has.
    ///
    /// # Errors
    /// What is wrong with the arguments, or not for this viewer.
    fn filter(&self, ctx: &Context) -> Result<Self::Filter, FieldError>;

    /// How they are sorted.
    fn order(&self) -> &'static Keyset<RowOf<Self>>;

    /// What the list is known by, beside its field, to those who go on reading it: the filter, unless that has another
    /// value at each moment.
    fn name(&self, filter: &Self::Filter) -> impl Serialize {
        filter.clone()
    }
}

type RowOf<A> = <<A as Lists>::Object as Visible>::Row;
type ListOf<A> = &'static List<RowOf<A>, <A as Lists>::Filter>;
type PartOf<A> = Part<ListOf<A>, <A as Lists>::Filter>;

/// An edge of the objects `T` to a list, as `Object::page` and `Object::count` take it.
pub(crate) struct Listed<T, A: Lists> {
    list: ListOf<A>,
    parent: fn(&T) -> Uuid,
    take: fn(&mut A::Filter) -> Option<Vec<Uuid>>,
    reach: fn(Scope) -> Scope,
}

impl<T: Send + Sync + 'static, A: Lists> Listed<T, A> {
    /// The list of each parent.
    pub(crate) const fn of(list: ListOf<A>, parent: fn(&T) -> Uuid) -> Self {
        Self { list, parent, take: |_| None, reach: |scope| scope }
    }

    /// A list that is there once.
    pub(crate) const fn whole(list: ListOf<A>) -> Self {
        Self::of(list, |_| Uuid::nil())
    }

    /// The filter may name parents, which `take` takes out of it: under a parent that it names, the filter without them
    /// is the same list.
    pub(crate) const fn naming(self, take: fn(&mut A::Filter) -> Option<Vec<Uuid>>) -> Self {
        Self { take, ..self }
    }

    /// What of a viewer's scope decides which rows the list has. Viewers for whom that is the same share its
    /// pages and counts, their statements as well as what is cached.
    pub(crate) const fn reaching(self, reach: fn(Scope) -> Scope) -> Self {
        Self { reach, ..self }
    }

    /// The edge to its pages.
    pub(crate) fn pages(&'static self) -> impl Edge<T> {
        type Loader<A> = PageLoader<PartOf<A>, &'static Keyset<RowOf<A>>>;
        Pages::<T, A, Loader<A>, CountLoader<PartOf<A>>, A::Object>::new(
            |given| self.bind(given),
            self.parent,
        )
        .at_most(A::MAX_ROWS)
    }

    /// The edge to the number of all its rows that the viewer may see.
    pub(crate) fn count(&'static self) -> impl Edge<T>
    where
        A::Filter: Default,
    {
        Single::<T, CountLoader<PartOf<A>>, i64>::new(
            |ctx| CountLoader { part: self.list.part((self.reach)(ctx.scope()), A::Filter::default()) },
            |parent| Some((self.parent)(parent)),
            Option::unwrap_or_default,
        )
    }

    fn bind(&self, given: &FieldArgs<'_, A>) -> Result<BoundOf<A>, FieldError> {
        let (args, filter) = (&given.args, given.args.filter(given.ctx)?);
        let (order, mut rest) = (args.order(), filter.clone());
        let mut cursors = given.list(&args.name(&filter));
        if let Some(parents) = (self.take)(&mut rest) {
            cursors = cursors.within(parents, name_of(given, &args.name(&rest)));
        }
        let window = args.page().window(order, &mut cursors, A::MAX_ROWS)?;
        let part = self.list.part((self.reach)(given.ctx.scope()), filter);
        let counts = CountLoader { part: part.clone() };
        Ok(bound(PageLoader { part, order, window }, counts, order, cursors))
    }
}

type BoundOf<A> =
    BoundPage<PageLoader<PartOf<A>, &'static Keyset<RowOf<A>>>, CountLoader<PartOf<A>>, RowOf<A>>;

/// The ids that a filter names, as `Listed::naming` takes them.
pub(crate) fn uuids<I: Into<Uuid>>(ids: Option<Vec<I>>) -> Option<Vec<Uuid>> {
    Some(ids?.into_iter().map(Into::into).collect())
}

/// Loads a page of a list for each parent: `P` is the `Part` of the list, `O` its order.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct PageLoader<P, O> {
    part: P,
    order: O,
    window: Window,
}

impl<R, F> Loader for PageLoader<Part<&'static List<R, F>, F>, &'static Keyset<R>>
where
    R: Serialize + DeserializeOwned + Send + Sync,
    F: Filtering + Eq + Hash,
{
    const NAME: &'static str = "page";
    const SHARED: bool = true;
    type Source = Database;
    type Key = Uuid;
    type Value = Arc<Page<R>>;

    fn name(&self) -> &'static str {
        self.part.page_name()
    }

    async fn load(self, store: Database, parents: Arc<[Uuid]>) -> Loaded<Self> {
        self.part.pages(&store, self.order, &self.window, &parents).await
    }
}

/// Counts the rows of a list for each parent.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct CountLoader<P> {
    part: P,
}

impl<R, F> Loader for CountLoader<Part<&'static List<R, F>, F>>
where
    R: Serialize + DeserializeOwned + Send + Sync + 'static,
    F: Filtering + Eq + Hash,
{
    const NAME: &'static str = "count";
    const SHARED: bool = true;
    type Source = Database;
    type Key = Uuid;
    type Value = i64;

    fn name(&self) -> &'static str {
        self.part.count_name()
    }

    async fn load(self, store: Database, parents: Arc<[Uuid]>) -> Loaded<Self> {
        self.part.counts(&store, &parents).await
    }
}

/// What the arguments of a list's field say of its cursors.
pub(crate) trait ListArgs {
    /// The list that cursors of this field belong to: the field, and which rows were asked for. `rows` is what the
    /// arguments mean, not how they were written: a list that is asked for in other words is the same list.
    fn list(&self, rows: &impl Serialize) -> CursorScope;
}

impl<A: Arguments> ListArgs for FieldArgs<'_, A> {
    fn list(&self, rows: &impl Serialize) -> CursorScope {
        CursorScope::new(self.ctx.access().options().secret.cursor_key(), name_of(self, rows))
    }
}

fn name_of<A: Arguments>(given: &FieldArgs<'_, A>, rows: &impl Serialize) -> String {
    let (ty, field) = given.coordinate();
    let mut text = format!("{ty}.{field} ").into_bytes();
    write_json(rows, &mut text);
    String::from_utf8(text).expect("JSON is UTF-8")
}

/// The part of a list that is wanted.
pub(crate) trait WindowArgs {
    /// Checks the arguments against the list's order. Whose list the cursors are of is asked for each parent (`bound`).
    ///
    /// # Errors
    /// `BAD_USER_INPUT` for a number of rows beyond the bounds, `BAD_CURSOR` for what does not have the form
    /// of a cursor.
    fn window<R>(
        &self,
        keyset: &Keyset<R>,
        cursors: &mut CursorScope,
        max_rows: u32,
    ) -> Result<Window, FieldError>;
}

impl WindowArgs for PageArgs {
    fn window<R>(
        &self,
        keyset: &Keyset<R>,
        cursors: &mut CursorScope,
        max_rows: u32,
    ) -> Result<Window, FieldError> {
        let (limit, backward) = self.limit(max_rows)?;
        let mut position = |cursor: Option<&str>| {
            let read = |text: &str| cursors.read(keyset, text).map_err(bad_cursor);
            cursor.map(read).transpose()
        };
        let (after, before) = (position(self.after())?, position(self.before())?);
        Ok(Window { limit, backward, after, before })
    }
}

/// A list whose arguments have been read, with its order and what its cursors belong to.
pub(crate) fn bound<P, C, R>(
    pages: P,
    counts: C,
    keyset: &'static Keyset<R>,
    cursors: CursorScope,
) -> BoundPage<P, C, R>
where
    P: Loader<Key = Uuid, Value = Arc<Page<R>>>,
{
    let cursors = Arc::new(cursors);
    let given = Arc::clone(&cursors);
    let check = move |key: &Uuid| given.check(keyset, *key).map_err(bad_cursor);
    let cursor = move |key: &Uuid, row: &R| cursors.encode(keyset, *key, &keyset.position(row));
    BoundPage { pages, counts, page: rows_of, cursor: Box::new(cursor), check: Box::new(check) }
}

/// A cursor that cannot be used.
pub(crate) fn bad_cursor(error: BadCursor) -> FieldError {
    FieldError::new(Code::BadCursor, format!("Invalid cursor: {error}."))
}

fn rows_of<R>(page: &Arc<Page<R>>) -> PageRows<'_, R> {
    PageRows { rows: &page.rows, has_next: page.has_next, has_previous: page.has_previous }
}

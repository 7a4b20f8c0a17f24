//! Connections after the Relay specification, with `nodes` and `totalCount`: the arguments of a page, the types, and
//! the edge that loads a page per parent and, only when selected, the counts. A cursor is computed only when it is
//! selected. Not here: which rows a list has and how they are sorted (the domains' loaders).

mod types;

use std::sync::Arc;

use async_graphql::{
    InputObject, OutputType as _,
    indexmap::IndexMap,
    parser::types::SelectionSet,
    registry::{MetaInputValue, Registry},
};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, join_all},
};

use crate::{
    batch::{Loader, Outcome},
    context::Context,
    cost::DEFAULT_ROWS,
    edge::{Arguments, Broken, FieldArgs, load_some},
    error::{FieldError, RequestError, SourceLocation},
    federation::trace::{Moment, Span, Traced},
    object::{Edge, FieldRequest, Filled, Rows, Run, Selection, Visible, label},
    output::{Unwritten, Writer},
    scalar::{Leaf as _, write_text},
};
use types::{Connection, ConnectionEdge};

/// Rows of a page at most.
pub const MAX_ROWS: u32 = 100;

/// Which part of a list is wanted.
#[derive(InputObject)]
pub struct PageArgs {
    /// The first rows of the range.
    first: Option<i32>,
    /// Only rows after the row of this cursor.
    after: Option<String>,
    /// The last rows of the range.
    last: Option<i32>,
    /// Only rows before the row of this cursor.
    before: Option<String>,
}

impl PageArgs {
    /// The arguments as the library's derives hand them over.
    pub fn of(first: Option<i32>, after: Option<String>, last: Option<i32>, before: Option<String>) -> Self {
        Self { first, after, last, before }
    }

    /// How many rows, and whether they are the last of the range instead of the first.
    ///
    /// # Errors
    /// `BAD_USER_INPUT` where both or neither fits: `first` and `last`, or a number beyond `max_rows`.
    pub fn limit(&self, max_rows: u32) -> Result<(u32, bool), FieldError> {
        let (name, request, backward) = match (self.first, self.last) {
            (Some(_), Some(_)) => return Err(FieldError::bad_input("give `first` or `last`, not both")),
            (None, Some(last)) => ("last", Some(last), true),
            (first, None) => ("first", first, false),
        };
        let limit = match request {
            None => DEFAULT_ROWS,
            Some(rows) => {
                u32::try_from(rows).ok().filter(|rows| (1..=max_rows).contains(rows)).ok_or_else(|| {
                    FieldError::bad_input(format!("`{name}` must be from 1 to {max_rows}, not {rows}"))
                })?
            }
        };
        Ok((limit, backward))
    }

    /// The cursor of the row before the range.
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// The cursor of the row behind the range.
    pub fn before(&self) -> Option<&str> {
        self.before.as_deref()
    }
}

/// A list whose arguments have been read.
pub struct BoundPage<P: Loader, C, R> {
    /// Loads a page for each parent.
    pub pages: P,
    /// Counts the rows for each parent.
    pub counts: C,
    /// What a loaded page has.
    pub page: fn(&P::Value) -> PageRows<'_, R>,
    /// The cursor of a row.
    pub cursor: Cursor<P::Key, R>,
    /// Checks the given cursors.
    pub check: Check<P::Key>,
}

/// Makes the cursor of a row in the list of a parent.
pub type Cursor<K, R> = Box<dyn Fn(&K, &R) -> String + Send + Sync>;

/// Whether the cursors that were given are of the list of this parent: `BAD_CURSOR` where not. One field may
/// load the lists of many parents at once, so the arguments alone cannot tell.
pub type Check<K> = Box<dyn Fn(&K) -> Result<(), FieldError> + Send + Sync>;

/// The rows of a page, in the list's order.
pub struct PageRows<'a, R> {
    /// The rows.
    pub rows: &'a [Arc<R>],
    /// Rows follow after the last one.
    pub has_next: bool,
    /// Rows stand before the first one.
    pub has_previous: bool,
}

/// How arguments become the loaders of a list.
type BindList<A, P, C, R> = Box<dyn Fn(&FieldArgs<'_, A>) -> BoundResult<P, C, R> + Send + Sync>;

type BoundResult<P, C, R> = Result<BoundPage<P, C, R>, FieldError>;

/// An edge to a page of a list.
pub struct Pages<T, A, P: Loader, C, U: Visible> {
    bind: BindList<A, P, C, U::Row>,
    key: fn(&T) -> P::Key,
    max_rows: u32,
}

impl<T, A, P: Loader, C, U: Visible> Pages<T, A, P, C, U> {
    /// A list; `key` is what the parent is to the loaders.
    pub fn new(
        bind: impl Fn(&FieldArgs<'_, A>) -> BoundResult<P, C, U::Row> + Send + Sync + 'static,
        key: fn(&T) -> P::Key,
    ) -> Self {
        Self { bind: Box::new(bind), key, max_rows: MAX_ROWS }
    }

    /// Tells that its pages have at most so many rows; `bind` asks `PageArgs::window` for the same.
    #[must_use]
    pub fn at_most(self, max_rows: u32) -> Self {
        Self { max_rows, ..self }
    }
}

impl<T, A, P, C, U> Edge<T> for Pages<T, A, P, C, U>
where
    T: Send + Sync + 'static,
    A: Arguments,
    U: Visible,
    P: Loader,
    C: Loader<Key = P::Key, Value = i64>,
{
    fn type_ref(&self, registry: &mut Registry) -> String {
        Connection::<U>::create_type_info(registry)
    }

    fn arguments(&self, registry: &mut Registry) -> IndexMap<String, MetaInputValue> {
        let mut arguments = A::describe(registry);
        let default = format!(" {DEFAULT_ROWS} where neither `first` nor `last` is given.");
        for (name, default) in [("first", default.as_str()), ("last", "")] {
            if let Some(argument) = arguments.get_mut(name) {
                let max = self.max_rows;
                argument.description = Some(format!("The {name} rows of the range, at most {max}.{default}"));
            }
        }
        arguments
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn plan<'q>(&'static self, request: FieldRequest<'q>) -> Result<Box<dyn Run<T> + 'q>, RequestError> {
        let plan = ConnectionPlan::<U>::of(&request)?;
        let location = request.selected.location;
        let bound = FieldArgs::of(&request).and_then(|given| (self.bind)(&given));
        Ok(match bound {
            Ok(bound) => Box::new(PagesRun { key: self.key, bound, plan, location }),
            Err(error) => Box::new(Broken { error, location }),
        })
    }
}

/// What is selected on a connection.
struct ConnectionPlan<'q, U: 'static> {
    /// The names of the connection's and its edges' types.
    of: String,
    edge: String,
    parts: Vec<Part<'q>>,
    /// The selections on the rows: `nodes`, and `node` within `edges`, as often as they are asked for.
    selections: Vec<Selection<'q, U>>,
}

struct Part<'q> {
    key: &'q str,
    label: Vec<u8>,
    what: What<'q>,
}

enum What<'q> {
    Typename(String),
    Nodes(usize),
    Edges(Vec<EdgePart<'q>>),
    PageInfo(Vec<InfoPart<'q>>),
    TotalCount,
}

struct EdgePart<'q> {
    key: &'q str,
    label: Vec<u8>,
    what: EdgeWhat,
}

enum EdgeWhat {
    Typename(String),
    Cursor,
    Node(usize),
}

struct InfoPart<'q> {
    key: &'q str,
    label: Vec<u8>,
    what: InfoWhat,
}

enum InfoWhat {
    Typename,
    HasNextPage,
    HasPreviousPage,
    StartCursor,
    EndCursor,
}

impl<'q, U: Visible> ConnectionPlan<'q, U> {
    fn of(request: &FieldRequest<'q>) -> Result<Self, RequestError> {
        let name = Connection::<U>::type_name();
        let edge = ConnectionEdge::<U>::type_name().into_owned();
        let mut plan = Self { of: name.to_string(), edge, parts: Vec::new(), selections: Vec::new() };
        for field in request.planner.collect(&|condition| condition == name, &request.selected.sets)? {
            let what = match field.name() {
                "nodes" => What::Nodes(plan.select(request, &field.sets)?),
                "edges" => What::Edges(plan.edges(request, &field.sets)?),
                "pageInfo" => What::PageInfo(page_info(request, &field.sets)?),
                "totalCount" => What::TotalCount,
                _ => What::Typename(name.to_string()),
            };
            plan.parts.push(Part { key: field.key(), label: label(field.key()), what });
        }
        Ok(plan)
    }

    fn select(
        &mut self,
        request: &FieldRequest<'q>,
        sets: &[&'q SelectionSet],
    ) -> Result<usize, RequestError> {
        self.selections.push(U::object().plan(request.planner, sets, request.ctx)?);
        Ok(self.selections.len() - 1)
    }

    fn edges(
        &mut self,
        request: &FieldRequest<'q>,
        sets: &[&'q SelectionSet],
    ) -> Result<Vec<EdgePart<'q>>, RequestError> {
        let name = ConnectionEdge::<U>::type_name();
        let mut parts = Vec::new();
        for field in request.planner.collect(&|condition| condition == name, sets)? {
            let what = match field.name() {
                "node" => EdgeWhat::Node(self.select(request, &field.sets)?),
                "cursor" => EdgeWhat::Cursor,
                _ => EdgeWhat::Typename(name.to_string()),
            };
            parts.push(EdgePart { key: field.key(), label: label(field.key()), what });
        }
        Ok(parts)
    }

    fn needs_page(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.what, What::Nodes(_) | What::Edges(_) | What::PageInfo(_)))
    }

    fn needs_cursors(&self) -> bool {
        self.parts.iter().any(|part| match &part.what {
            What::Edges(parts) => parts.iter().any(|part| matches!(part.what, EdgeWhat::Cursor)),
            What::PageInfo(parts) => {
                parts.iter().any(|part| matches!(part.what, InfoWhat::StartCursor | InfoWhat::EndCursor))
            }
            What::Typename(_) | What::Nodes(_) | What::TotalCount => false,
        })
    }

    fn needs_count(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.what, What::TotalCount))
    }
}

fn page_info<'q>(
    request: &FieldRequest<'q>,
    sets: &[&'q SelectionSet],
) -> Result<Vec<InfoPart<'q>>, RequestError> {
    let fields = request.planner.collect(&|condition| condition == "PageInfo", sets)?;
    Ok(fields
        .iter()
        .map(|field| {
            let what = match field.name() {
                "hasNextPage" => InfoWhat::HasNextPage,
                "hasPreviousPage" => InfoWhat::HasPreviousPage,
                "startCursor" => InfoWhat::StartCursor,
                "endCursor" => InfoWhat::EndCursor,
                _ => InfoWhat::Typename,
            };
            InfoPart { key: field.key(), label: label(field.key()), what }
        })
        .collect())
}

struct PagesRun<'q, T: 'static, P: Loader, C, U: Visible> {
    key: fn(&T) -> P::Key,
    bound: BoundPage<P, C, U::Row>,
    plan: ConnectionPlan<'q, U>,
    location: SourceLocation,
}

impl<T, P, C, U> Run<T> for PagesRun<'_, T, P, C, U>
where
    T: Send + Sync + 'static,
    U: Visible,
    P: Loader,
    C: Loader<Key = P::Key, Value = i64>,
{
    fn start<'a>(&'a self, rows: &[T], ctx: &'a Context) -> BoxFuture<'a, Box<dyn Filled + 'a>> {
        // Nothing is loaded for a parent whose cursors these are not.
        let keys = rows.iter().map(self.key).map(|key| (self.bound.check)(&key).map(|()| Some(key)));
        let parents: Keys<P::Key> = keys.collect();
        async move {
            let counting = async { (self.load_counts(parents.clone(), ctx).await, ctx.moment()) };
            let (filled, (counts, counted)) =
                futures_util::join!(self.load_pages(parents.clone(), ctx), counting);
            Box::new(PagesFilled { parents, counts, counted, ..filled }) as Box<dyn Filled>
        }
        .boxed()
    }
}

impl<'q, T, P, C, U> PagesRun<'q, T, P, C, U>
where
    T: Send + Sync + 'static,
    U: Visible,
    P: Loader,
    C: Loader<Key = P::Key, Value = i64>,
{
    async fn load_counts(&self, keys: Keys<P::Key>, ctx: &Context) -> Vec<Outcome<i64>> {
        if self.plan.needs_count() {
            load_some(ctx, self.bound.counts.clone(), keys).await
        } else {
            Vec::new()
        }
    }

    async fn load_pages<'a>(
        &'a self,
        keys: Keys<P::Key>,
        ctx: &'a Context,
    ) -> PagesFilled<'a, 'q, U, P::Key> {
        let (mut slots, mut sources, mut children) = (Vec::new(), Vec::new(), Vec::new());
        let has_cursors = self.plan.needs_cursors();
        if self.plan.needs_page() {
            for outcome in load_some(ctx, self.bound.pages.clone(), keys).await {
                slots.push(outcome.map(|loaded| {
                    let page = loaded.as_ref().map(self.bound.page);
                    let start = children.len();
                    for row in page.iter().flat_map(|page| page.rows) {
                        if let Some(child) = U::visible_to(ctx, Arc::clone(row)) {
                            children.push(child);
                            sources.extend(has_cursors.then(|| Arc::clone(row)));
                        }
                    }
                    ListSlot {
                        start,
                        length: children.len() - start,
                        has_next: page.as_ref().is_some_and(|page| page.has_next),
                        has_previous: page.as_ref().is_some_and(|page| page.has_previous),
                    }
                }));
            }
        }
        let loaded = ctx.moment();
        let selections = match self.plan.selections.as_slice() {
            [only] => vec![only.run(children, ctx).await],
            selections => join_all(selections.iter().map(|each| each.run(children.clone(), ctx))).await,
        };
        let bound = &self.bound;
        let list = List { cursor: &bound.cursor, plan: &self.plan, location: self.location };
        let (parents, counts) = (Vec::new(), Vec::new());
        PagesFilled { list, parents, slots, sources, selections, counts, loaded, counted: 0 }
    }
}

/// The parents' keys, in the order of the rows, and why those are refused whose cursors were not given.
type Keys<K> = Vec<Result<Option<K>, FieldError>>;

/// One parent's page within the rows of all parents.
struct ListSlot {
    start: usize,
    length: usize,
    has_next: bool,
    has_previous: bool,
}

struct List<'a, 'q, U: Visible, K> {
    cursor: &'a Cursor<K, U::Row>,
    plan: &'a ConnectionPlan<'q, U>,
    location: SourceLocation,
}

struct PagesFilled<'a, 'q, U: Visible, K> {
    list: List<'a, 'q, U, K>,
    parents: Keys<K>,
    slots: Vec<Result<ListSlot, FieldError>>,
    /// The rows themselves, where cursors are selected.
    sources: Vec<Arc<U::Row>>,
    selections: Vec<Rows<'a, 'q, U>>,
    counts: Vec<Outcome<i64>>,
    /// When the pages and the counts were there; 0 where nobody asks.
    loaded: Moment,
    counted: Moment,
}

impl<U: Visible, K: Send + Sync> Filled for PagesFilled<'_, '_, U, K> {
    fn write<'w>(&'w self, row: usize, writer: &mut Writer<'w>) -> Result<(), Unwritten> {
        writer.loaded(self.loaded);
        if let Err(error) = &self.parents[row] {
            return Err(writer.fail(error, self.list.location));
        }
        let parts = &self.list.plan.parts;
        writer.steps(parts.len(), |index, is_within, writer| {
            let part = &parts[index];
            if !is_within {
                writer.out.push(if index == 0 { b'{' } else { b',' });
                writer.out.extend(&part.label);
            }
            if let What::Typename(name) = &part.what {
                write_text(name, writer.out.end());
                return Ok(());
            }
            writer.traced(|| self.traced(part), |writer| self.write_part(part, row, writer))
        })?;
        writer.out.extend(if self.list.plan.parts.is_empty() { &b"{}"[..] } else { b"}" });
        Ok(())
    }
}

impl<U: Visible, K: Send + Sync> PagesFilled<'_, '_, U, K> {
    fn write_part<'w>(
        &'w self,
        part: &'w Part<'_>,
        row: usize,
        writer: &mut Writer<'w>,
    ) -> Result<(), Unwritten> {
        match &part.what {
            What::Typename(name) => write_text(name, writer.out.end()),
            What::TotalCount => match &self.counts[row] {
                Ok(count) => count.unwrap_or_default().write(writer.out.end()),
                Err(error) => return Err(writer.fail(error, self.list.location)),
            },
            What::Nodes(selection) => {
                let slot = self.slot(row, writer)?;
                let rows = &self.selections[*selection];
                writer.field(part.key, false, |writer| {
                    writer.list(slot.length, false, |index, writer| rows.write(slot.start + index, writer))
                })?;
            }
            What::Edges(parts) => {
                let slot = self.slot(row, writer)?;
                writer.field(part.key, false, |writer| {
                    writer.list(slot.length, false, |index, writer| {
                        self.write_edge(parts, row, slot.start + index, writer)
                    })
                })?;
            }
            What::PageInfo(parts) => {
                let slot = self.slot(row, writer)?;
                self.write_info(parts, row, slot, writer);
            }
        }
        Ok(())
    }

    fn traced<'w>(&'w self, part: &'w Part<'_>) -> Traced<'w> {
        let name = match part.what {
            What::Typename(_) => "__typename",
            What::Nodes(_) => "nodes",
            What::Edges(_) => "edges",
            What::PageInfo(_) => "pageInfo",
            What::TotalCount => "totalCount",
        };
        // A count that was there before its page is told with the page: nothing begins before what is around it.
        let counted = matches!(part.what, What::TotalCount).then_some(self.counted);
        let at = self.loaded.max(counted.unwrap_or_default());
        held(&self.list.plan.of, name, part.key, at)
    }

    fn slot(&self, row: usize, writer: &mut Writer<'_>) -> Result<&ListSlot, Unwritten> {
        self.slots[row].as_ref().map_err(|error| writer.fail(error, self.list.location))
    }

    fn write_edge<'w>(
        &'w self,
        parts: &'w [EdgePart<'_>],
        row: usize,
        child: usize,
        writer: &mut Writer<'w>,
    ) -> Result<(), Unwritten> {
        writer.steps(parts.len(), |index, is_within, writer| {
            let part = &parts[index];
            if !is_within {
                writer.out.push(if index == 0 { b'{' } else { b',' });
                writer.out.extend(&part.label);
            }
            match &part.what {
                EdgeWhat::Typename(name) => write_text(name, writer.out.end()),
                EdgeWhat::Cursor => writer.traced(
                    || held(&self.list.plan.edge, "cursor", part.key, self.loaded),
                    |writer| self.write_cursor(row, child, writer.out.end()),
                ),
                EdgeWhat::Node(selection) => {
                    let rows = &self.selections[*selection];
                    return writer.traced(
                        || held(&self.list.plan.edge, "node", part.key, self.loaded),
                        |writer| writer.field(part.key, false, |writer| rows.write(child, writer)),
                    );
                }
            }
            Ok(())
        })?;
        writer.out.extend(if parts.is_empty() { &b"{}"[..] } else { b"}" });
        Ok(())
    }

    fn write_info<'w>(
        &'w self,
        parts: &'w [InfoPart<'_>],
        row: usize,
        slot: &ListSlot,
        writer: &mut Writer<'w>,
    ) {
        for (index, part) in parts.iter().enumerate() {
            writer.out.push(if index == 0 { b'{' } else { b',' });
            writer.out.extend(&part.label);
            let name = match part.what {
                InfoWhat::Typename => {
                    write_text("PageInfo", writer.out.end());
                    continue;
                }
                InfoWhat::HasNextPage => "hasNextPage",
                InfoWhat::HasPreviousPage => "hasPreviousPage",
                InfoWhat::StartCursor => "startCursor",
                InfoWhat::EndCursor => "endCursor",
            };
            writer.traced(
                || held("PageInfo", name, part.key, self.loaded),
                |writer| self.write_info_part(part, row, slot, writer.out.end()),
            );
        }
        writer.out.extend(if parts.is_empty() { &b"{}"[..] } else { b"}" });
    }

    fn write_info_part(&self, part: &InfoPart<'_>, row: usize, slot: &ListSlot, out: &mut Vec<u8>) {
        match part.what {
            InfoWhat::Typename => {}
            InfoWhat::HasNextPage => slot.has_next.write(out),
            InfoWhat::HasPreviousPage => slot.has_previous.write(out),
            InfoWhat::StartCursor | InfoWhat::EndCursor if slot.length == 0 => out.extend(b"null"),
            InfoWhat::StartCursor => self.write_cursor(row, slot.start, out),
            InfoWhat::EndCursor => self.write_cursor(row, slot.start + slot.length - 1, out),
        }
    }

    fn write_cursor(&self, row: usize, child: usize, out: &mut Vec<u8>) {
        // A row whose parent is refused is not written at all.
        if let Ok(Some(parent)) = &self.parents[row] {
            write_text(&(self.list.cursor)(parent, &self.sources[child]), out);
        }
    }
}

/// A field of what is there already.
fn held<'w>(parent: &'w str, name: &'w str, key: &'w str, at: Moment) -> Traced<'w> {
    Traced { parent, name, key, span: Span { start: at, end: at } }
}

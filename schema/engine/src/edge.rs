//! The kinds of edges: to one object, to a list of objects, to a value that is loaded by itself; and
//! resolvers (`resolver`). Each says how its arguments become a loader and how a row becomes a key; the rest
//! is common. Pages are in `connection`, edges to any type in `node`.

use async_graphql::{
    InputType, Value,
    indexmap::IndexMap,
    parser::types::Field,
    registry::{MetaInputValue, MetaType, Registry},
};
use futures_util::{FutureExt as _, future::BoxFuture};
use std::{marker::PhantomData, sync::Arc};

use crate::{
    batch::{Loader, Outcome},
    context::Context,
    error::{FieldError, RequestError, SourceLocation, without_values},
    object::{
        Coordinate, Edge, Entity, FieldRequest, Filled, Row, Rows, Run, Selection, Visible, VisibleFrom,
    },
    output::{Unwritten, Writer},
    plan::Planner,
    scalar::{Leaf, append},
};

mod resolver;

pub use resolver::Resolved;

/// The arguments of a field.
pub trait Arguments: Sized + Send + Sync + 'static {
    /// How they are declared.
    fn describe(registry: &mut Registry) -> IndexMap<String, MetaInputValue>;
    /// Reads those of a field of the document.
    fn of(planner: &Planner<'_>, field: &Field) -> Result<Self, String>;
}

/// No arguments.
pub struct NoArguments;

impl Arguments for NoArguments {
    fn describe(_: &mut Registry) -> IndexMap<String, MetaInputValue> {
        IndexMap::new()
    }

    fn of(_: &Planner<'_>, _: &Field) -> Result<Self, String> {
        Ok(Self)
    }
}

/// An input object whose fields are the arguments; the object itself does not become a type of the schema.
impl<A: InputType + 'static> Arguments for A {
    fn describe(registry: &mut Registry) -> IndexMap<String, MetaInputValue> {
        A::create_type_info(registry);
        match registry.types.remove(&*A::type_name()) {
            Some(MetaType::InputObject { input_fields, .. }) => input_fields,
            _ => unreachable!("arguments are declared by an input object"),
        }
    }

    fn of(planner: &Planner<'_>, field: &Field) -> Result<Self, String> {
        parse(Some(planner.arguments(field)))
    }
}

/// Reads an input type; what is wrong is said in a sentence.
pub fn parse<I: InputType>(value: Option<Value>) -> Result<I, String> {
    I::parse(value).map_err(|error| {
        let mut message = error.into_server_error(async_graphql::Pos::default()).message;
        // The library goes on with the names of our Rust types.
        message.truncate(message.find(" (occurred while parsing").unwrap_or(message.len()));
        without_values(message)
    })
}

/// The arguments of one field of the document, with what is needed to turn them into a loader.
pub struct FieldArgs<'a, A> {
    /// The arguments.
    pub args: A,
    /// The request.
    pub ctx: &'a Context,
    coordinate: Coordinate,
}

impl<'q, A: Arguments> FieldArgs<'q, A> {
    /// Reads the arguments of a field.
    ///
    /// # Errors
    /// `BAD_USER_INPUT` where they cannot be read.
    pub fn of(request: &FieldRequest<'q>) -> Result<Self, FieldError> {
        let (planner, field) = (request.planner, request.selected.field);
        let args = A::of(&planner, field).map_err(FieldError::bad_input)?;
        Ok(Self { args, ctx: request.ctx, coordinate: request.coordinate })
    }

    /// The type and the field that the arguments are of.
    pub fn coordinate(&self) -> Coordinate {
        self.coordinate
    }
}

/// A planned field whose arguments are wrong: the error stands at each place where the field is.
pub struct Broken {
    /// What is wrong.
    pub error: FieldError,
    /// Where the field is in the document.
    pub location: SourceLocation,
}

impl<T> Run<T> for Broken {
    fn start<'a>(&'a self, rows: &[T], ctx: &'a Context) -> BoxFuture<'a, Box<dyn Filled + 'a>> {
        if !rows.is_empty() {
            ctx.note_failure();
        }
        std::future::ready(Box::new(self) as Box<dyn Filled>).boxed()
    }
}

impl Filled for &Broken {
    fn write<'w>(&'w self, _: usize, writer: &mut Writer<'w>) -> Result<(), Unwritten> {
        Err(writer.fail(&self.error, self.location))
    }
}

/// A value that is there already: JSON that is written as it is.
pub struct Ready {
    /// The value.
    pub json: Arc<String>,
}

impl<T> Run<T> for Ready {
    fn start<'a>(&'a self, _: &[T], _: &'a Context) -> BoxFuture<'a, Box<dyn Filled + 'a>> {
        std::future::ready(Box::new(self) as Box<dyn Filled>).boxed()
    }
}

impl Filled for &Ready {
    fn write<'w>(&'w self, _: usize, writer: &mut Writer<'w>) -> Result<(), Unwritten> {
        append(self.json.as_bytes(), writer.out.end());
        Ok(())
    }
}

/// How arguments become a loader.
type Bind<A, L> = Box<dyn Fn(&FieldArgs<'_, A>) -> Result<L, FieldError> + Send + Sync>;
/// How a row becomes a key; `None` is an absent edge.
type KeyOf<T, A, K> = Box<dyn Fn(&T, &FieldArgs<'_, A>) -> Result<Option<K>, FieldError> + Send + Sync>;

/// How the id is told that a key names.
type IdOf<K> = fn(&K) -> Arc<str>;

/// An edge to one object.
pub struct One<T, A, L: Loader, U: Visible> {
    nullable: bool,
    /// What the key names has just been written: where it is not found, something went wrong. How its id is told then.
    written: Option<IdOf<L::Key>>,
    bind: Bind<A, L>,
    key: KeyOf<T, A, L::Key>,
    see: fn(&Context, Arc<U::Row>) -> Option<U>,
}

impl<T, A, L: Loader, U: Visible> One<T, A, L, U> {
    /// An edge that is always there; where it is not, the parent is null. `bind` turns the arguments into a
    /// loader, `key` a row into what is loaded for it.
    pub fn required(
        bind: impl Fn(&FieldArgs<'_, A>) -> Result<L, FieldError> + Send + Sync + 'static,
        key: impl Fn(&T, &FieldArgs<'_, A>) -> Result<Option<L::Key>, FieldError> + Send + Sync + 'static,
    ) -> Self {
        let (bind, key) = (Box::new(bind), Box::new(key));
        Self { nullable: false, written: None, bind, key, see: U::visible_to }
    }

    /// An edge that may be absent.
    pub fn nullable(
        bind: impl Fn(&FieldArgs<'_, A>) -> Result<L, FieldError> + Send + Sync + 'static,
        key: impl Fn(&T, &FieldArgs<'_, A>) -> Result<Option<L::Key>, FieldError> + Send + Sync + 'static,
    ) -> Self {
        Self { nullable: true, ..Self::required(bind, key) }
    }

    /// An edge of a payload to what a mutation has written, absent where it wrote nothing. What is said to be
    /// written and cannot be read back is an error that tells its `id`, never a silent null.
    pub fn written(
        bind: impl Fn(&FieldArgs<'_, A>) -> Result<L, FieldError> + Send + Sync + 'static,
        key: impl Fn(&T, &FieldArgs<'_, A>) -> Result<Option<L::Key>, FieldError> + Send + Sync + 'static,
        id: IdOf<L::Key>,
    ) -> Self {
        Self { nullable: true, written: Some(id), ..Self::required(bind, key) }
    }

    /// An edge that is always there, to an object that is seen by whoever sees the one from which the edge leads.
    pub fn implied(
        bind: impl Fn(&FieldArgs<'_, A>) -> Result<L, FieldError> + Send + Sync + 'static,
        key: impl Fn(&T, &FieldArgs<'_, A>) -> Result<Option<L::Key>, FieldError> + Send + Sync + 'static,
    ) -> Self
    where
        U: VisibleFrom<T>,
    {
        Self { see: |ctx, row| Some(U::visible_from(ctx, row)), ..Self::required(bind, key) }
    }
}

impl<T, A, L, U> Edge<T> for One<T, A, L, U>
where
    T: Send + Sync + 'static,
    A: Arguments,
    U: Visible,
    L: Loader<Value = Arc<U::Row>>,
{
    fn type_ref(&self, registry: &mut Registry) -> String {
        let name = <Row<U> as async_graphql::OutputType>::create_type_info(registry);
        if self.nullable { name.trim_end_matches('!').to_owned() } else { name }
    }

    fn arguments(&self, registry: &mut Registry) -> IndexMap<String, MetaInputValue> {
        A::describe(registry)
    }

    fn is_nullable(&self) -> bool {
        self.nullable
    }

    fn plan<'q>(&'static self, request: FieldRequest<'q>) -> Result<Box<dyn Run<T> + 'q>, RequestError> {
        plan(&request, &self.bind, |plan| Box::new(OneRun { edge: self, plan }))
    }
}

/// An edge to objects, planned: its arguments have become a loader.
struct EdgePlan<'q, A, L, U: 'static> {
    loader: L,
    given: FieldArgs<'q, A>,
    selection: Selection<'q, U>,
    location: SourceLocation,
}

fn plan<'q, T: 'static, A: Arguments, L: Loader, U: Visible>(
    request: &FieldRequest<'q>,
    bind: &Bind<A, L>,
    run: impl FnOnce(EdgePlan<'q, A, L, U>) -> Box<dyn Run<T> + 'q>,
) -> Result<Box<dyn Run<T> + 'q>, RequestError> {
    let selection = request.plan::<U>()?;
    let location = request.selected.location;
    Ok(match FieldArgs::of(request).and_then(|given| Ok((bind(&given)?, given))) {
        Ok((loader, given)) => run(EdgePlan { loader, given, selection, location }),
        Err(error) => Box::new(Broken { error, location }),
    })
}

struct OneRun<'q, T: 'static, A: 'static, L: Loader, U: Visible> {
    edge: &'static One<T, A, L, U>,
    plan: EdgePlan<'q, A, L, U>,
}

impl<T, A, L, U> Run<T> for OneRun<'_, T, A, L, U>
where
    T: Send + Sync + 'static,
    A: Arguments,
    U: Visible,
    L: Loader<Value = Arc<U::Row>>,
{
    fn start<'a>(&'a self, rows: &[T], ctx: &'a Context) -> BoxFuture<'a, Box<dyn Filled + 'a>> {
        let EdgePlan { loader, selection, location, given } = &self.plan;
        let keys: Vec<_> = rows.iter().map(|row| (self.edge.key)(row, given)).collect();
        let written = |key: &Result<Option<_>, _>| {
            let key = key.as_ref().ok()?.as_ref()?;
            Some(self.edge.written?(key))
        };
        let must_exist: Vec<Option<Arc<str>>> = keys.iter().map(written).collect();
        async move {
            let mut children = Vec::new();
            let outcomes = load_some(ctx, loader.clone(), keys).await;
            let slots: Vec<_> = outcomes
                .into_iter()
                .zip(must_exist)
                .map(|(outcome, must_exist)| {
                    let found = match (outcome, must_exist) {
                        (Err(error), Some(id)) => return Err(error.of_stored(id)),
                        (Ok(None), Some(id)) => {
                            let error = FieldError::internal_by("what was written is not found");
                            return Err(error.of_stored(id));
                        }
                        (outcome, _) => outcome?,
                    };
                    Ok(found.and_then(|row| (self.edge.see)(ctx, row)).map(|child| {
                        children.push(child);
                        children.len() - 1
                    }))
                })
                .collect();
            if slots.iter().any(|slot| match slot {
                Ok(found) => found.is_none() && !self.edge.nullable,
                Err(_) => true,
            }) {
                ctx.note_failure();
            }
            let rows = selection.run(children, ctx).await;
            Box::new(OneFilled { slots, rows, location: *location, nullable: self.edge.nullable })
                as Box<dyn Filled>
        }
        .boxed()
    }
}

/// Loads the keys that there are; the outcomes are in the order of the rows.
pub async fn load_some<L: Loader>(
    ctx: &Context,
    loader: L,
    keys: Vec<Result<Option<L::Key>, FieldError>>,
) -> Vec<Outcome<L::Value>> {
    let wanted: Vec<L::Key> = keys.iter().filter_map(|key| key.as_ref().ok()?.clone()).collect();
    if keys.iter().any(Result::is_err) {
        ctx.note_failure();
    }
    if wanted.is_empty() {
        return keys.into_iter().map(|key| key.map(|_| None)).collect();
    }
    let loaded = ctx.batcher.load_many(loader, wanted).await;
    if loaded.iter().any(Result::is_err) {
        ctx.note_failure();
    }
    let mut loaded = loaded.into_iter();
    keys.into_iter()
        .map(|key| match key? {
            Some(_) => loaded.next().expect("one outcome for each key"),
            None => Ok(None),
        })
        .collect()
}

struct OneFilled<'a, 'q, U: 'static> {
    slots: Vec<Result<Option<usize>, FieldError>>,
    rows: Rows<'a, 'q, U>,
    location: SourceLocation,
    nullable: bool,
}

impl<U: Send + Sync> Filled for OneFilled<'_, '_, U> {
    fn write<'w>(&'w self, row: usize, writer: &mut Writer<'w>) -> Result<(), Unwritten> {
        match &self.slots[row] {
            Ok(Some(child)) => self.rows.write(*child, writer),
            Ok(None) if self.nullable => {
                writer.out.extend(b"null");
                Ok(())
            }
            Ok(None) => Err(writer.fail(&MISSING, self.location)),
            Err(error) => Err(writer.fail(error, self.location)),
        }
    }
}

/// A required edge whose other end is gone or hidden.
static MISSING: FieldError = FieldError::internal();

/// An edge to a list of objects, `[U!]!`.
pub struct Many<T, A, L: Loader, U: Visible> {
    bind: Bind<A, L>,
    key: KeyOf<T, A, L::Key>,
    rows: RowsOf<A, L, U>,
}

/// The rows of a list from what the loader returned.
type RowsOf<A, L, U> =
    fn(&<L as Loader>::Value, &FieldArgs<'_, A>) -> Result<Vec<Arc<<U as Visible>::Row>>, FieldError>;

impl<T, A, L: Loader, U: Visible> Many<T, A, L, U> {
    /// A list; `rows` takes the rows out of the loaded value.
    pub fn new(
        bind: impl Fn(&FieldArgs<'_, A>) -> Result<L, FieldError> + Send + Sync + 'static,
        key: impl Fn(&T, &FieldArgs<'_, A>) -> Result<Option<L::Key>, FieldError> + Send + Sync + 'static,
        rows: RowsOf<A, L, U>,
    ) -> Self {
        Self { bind: Box::new(bind), key: Box::new(key), rows }
    }
}

impl<T, A, L, U> Edge<T> for Many<T, A, L, U>
where
    T: Send + Sync + 'static,
    A: Arguments,
    U: Visible,
    L: Loader,
{
    fn type_ref(&self, registry: &mut Registry) -> String {
        format!("[{}]!", <Row<U> as async_graphql::OutputType>::create_type_info(registry))
    }

    fn arguments(&self, registry: &mut Registry) -> IndexMap<String, MetaInputValue> {
        A::describe(registry)
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn plan<'q>(&'static self, request: FieldRequest<'q>) -> Result<Box<dyn Run<T> + 'q>, RequestError> {
        plan(&request, &self.bind, |plan| Box::new(ManyRun { edge: self, plan }))
    }
}

struct ManyRun<'q, T: 'static, A: 'static, L: Loader, U: Visible> {
    edge: &'static Many<T, A, L, U>,
    plan: EdgePlan<'q, A, L, U>,
}

impl<T, A, L, U> Run<T> for ManyRun<'_, T, A, L, U>
where
    T: Send + Sync + 'static,
    A: Arguments,
    U: Visible,
    L: Loader,
{
    fn start<'a>(&'a self, rows: &[T], ctx: &'a Context) -> BoxFuture<'a, Box<dyn Filled + 'a>> {
        let EdgePlan { loader, selection, location, given } = &self.plan;
        let keys = rows.iter().map(|row| (self.edge.key)(row, given)).collect();
        async move {
            let mut children = Vec::new();
            let outcomes = load_some(ctx, loader.clone(), keys).await;
            let slots = outcomes
                .into_iter()
                .map(|outcome| {
                    let start = children.len();
                    if let Some(value) = outcome? {
                        let rows = (self.edge.rows)(&value, given)?;
                        children.extend(rows.into_iter().filter_map(|row| U::visible_to(ctx, row)));
                    }
                    Ok((start, children.len() - start))
                })
                .collect();
            let rows = selection.run(children, ctx).await;
            Box::new(ManyFilled { slots, rows, location: *location }) as Box<dyn Filled>
        }
        .boxed()
    }
}

struct ManyFilled<'a, 'q, U: 'static> {
    slots: Vec<Result<(usize, usize), FieldError>>,
    rows: Rows<'a, 'q, U>,
    location: SourceLocation,
}

impl<U: Send + Sync> Filled for ManyFilled<'_, '_, U> {
    fn write<'w>(&'w self, row: usize, writer: &mut Writer<'w>) -> Result<(), Unwritten> {
        match &self.slots[row] {
            Ok((start, length)) => {
                writer.list(*length, false, |index, writer| self.rows.write(start + index, writer))
            }
            Err(error) => Err(writer.fail(error, self.location)),
        }
    }
}

/// Finds by which key the value of an object is loaded, if it has one.
type FindKey<T, L> = Box<dyn Fn(&T) -> Option<<L as Loader>::Key> + Send + Sync>;

/// An edge to a value that is loaded by itself because it is large or has to be counted.
pub struct Single<T, L: Loader, C, M = ()> {
    bind: Box<dyn Fn(&Context) -> L + Send + Sync>,
    key: FindKey<T, L>,
    value: fn(Option<L::Value>) -> C,
    marker: PhantomData<fn() -> M>,
}

impl<T, L: Loader, C: Leaf<M>, M> Single<T, L, C, M> {
    /// `value` turns what was loaded, if anything, into the leaf.
    pub fn new(
        bind: impl Fn(&Context) -> L + Send + Sync + 'static,
        key: impl Fn(&T) -> Option<L::Key> + Send + Sync + 'static,
        value: fn(Option<L::Value>) -> C,
    ) -> Self {
        Self { bind: Box::new(bind), key: Box::new(key), value, marker: PhantomData }
    }
}

impl<T, L, C, M> Edge<T> for Single<T, L, C, M>
where
    T: Send + Sync + 'static,
    L: Loader,
    C: Leaf<M> + Send + Sync + 'static,
    M: 'static,
{
    fn type_ref(&self, registry: &mut Registry) -> String {
        C::type_ref(registry)
    }

    fn arguments(&self, _: &mut Registry) -> IndexMap<String, MetaInputValue> {
        IndexMap::new()
    }

    fn is_nullable(&self) -> bool {
        C::NULLABLE
    }

    fn plan<'q>(&'static self, request: FieldRequest<'q>) -> Result<Box<dyn Run<T> + 'q>, RequestError> {
        let (loader, location) = ((self.bind)(request.ctx), request.selected.location);
        Ok(Box::new(ValueRun { edge: self, loader, location }))
    }
}

struct ValueRun<T: 'static, L: Loader, C: 'static, M: 'static> {
    edge: &'static Single<T, L, C, M>,
    loader: L,
    location: SourceLocation,
}

impl<T, L, C, M> Run<T> for ValueRun<T, L, C, M>
where
    T: Send + Sync + 'static,
    L: Loader,
    C: Leaf<M> + Send + Sync + 'static,
    M: 'static,
{
    fn start<'a>(&'a self, rows: &[T], ctx: &'a Context) -> BoxFuture<'a, Box<dyn Filled + 'a>> {
        let keys = rows.iter().map(|row| Ok((self.edge.key)(row))).collect();
        async move {
            let outcomes = load_some(ctx, self.loader.clone(), keys).await;
            let values = outcomes.into_iter().map(|outcome| outcome.map(self.edge.value)).collect();
            Box::new(ValueFilled { values, location: self.location, marker: PhantomData }) as Box<dyn Filled>
        }
        .boxed()
    }
}

struct ValueFilled<C, M> {
    values: Vec<Result<C, FieldError>>,
    location: SourceLocation,
    marker: PhantomData<fn() -> M>,
}

impl<C: Leaf<M> + Send + Sync, M> Filled for ValueFilled<C, M> {
    fn write<'w>(&'w self, row: usize, writer: &mut Writer<'w>) -> Result<(), Unwritten> {
        match &self.values[row] {
            Ok(value) => {
                value.write(writer.out.end());
                Ok(())
            }
            Err(error) => Err(writer.fail(error, self.location)),
        }
    }
}

/// An edge to objects that the parent already holds, `[U!]!`: nothing is loaded for the edge itself, and what is
/// selected beneath is loaded for all of them together.
pub struct Inline<T, U> {
    objects: fn(&T) -> &[U],
}

impl<T, U> Inline<T, U> {
    /// `objects` takes them out of the parent.
    pub const fn new(objects: fn(&T) -> &[U]) -> Self {
        Self { objects }
    }
}

impl<T: Send + Sync + 'static, U: Entity + Clone> Edge<T> for Inline<T, U> {
    fn type_ref(&self, registry: &mut Registry) -> String {
        format!("[{}]!", <Row<U> as async_graphql::OutputType>::create_type_info(registry))
    }

    fn arguments(&self, _: &mut Registry) -> IndexMap<String, MetaInputValue> {
        IndexMap::new()
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn plan<'q>(&'static self, request: FieldRequest<'q>) -> Result<Box<dyn Run<T> + 'q>, RequestError> {
        let selection = request.plan::<U>()?;
        Ok(Box::new(InlineRun { edge: self, selection, location: request.selected.location }))
    }
}

struct InlineRun<'q, T: 'static, U: 'static> {
    edge: &'static Inline<T, U>,
    selection: Selection<'q, U>,
    location: SourceLocation,
}

impl<T: Send + Sync, U: Entity + Clone> Run<T> for InlineRun<'_, T, U> {
    fn start<'a>(&'a self, rows: &[T], ctx: &'a Context) -> BoxFuture<'a, Box<dyn Filled + 'a>> {
        let mut children = Vec::new();
        let slots = rows.iter().map(|row| {
            let (start, objects) = (children.len(), (self.edge.objects)(row));
            ctx.bounds.taken.copy(objects.len())?;
            children.extend_from_slice(objects);
            Ok((start, children.len() - start))
        });
        let slots = slots.collect();
        async move {
            let rows = self.selection.run(children, ctx).await;
            Box::new(ManyFilled { slots, rows, location: self.location }) as Box<dyn Filled>
        }
        .boxed()
    }
}

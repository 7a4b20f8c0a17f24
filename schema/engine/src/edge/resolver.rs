//! Fields with an ordinary async resolver: a function that is awaited once for each row, for what no batch
//! read has (another service, a computation that waits). The calls of one level run concurrently, in the
//! request's own task; what they load by [`Context::batcher`] is still loaded together. Not here: columns,
//! which are written from the row, and edges, which load once for a level; they cost less where they can do
//! the same.

use std::{future::Future, marker::PhantomData, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use async_graphql::{
    OutputType as _,
    indexmap::IndexMap,
    registry::{MetaInputValue, Registry},
};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, join_all},
};

use super::{Arguments, Broken, FieldArgs, ManyFilled, OneFilled, ValueFilled};
use crate::{
    batch::ResolverRun,
    context::Context,
    error::{FieldError, RequestError, SourceLocation},
    object::{Coordinate, Edge, Entity, FieldRequest, Filled, Object, Row, Run, Selection},
    scalar::Leaf,
};

/// What a resolver may return: a leaf, an object, an object that may be absent, a list of objects. `M` tells
/// these apart, and is never named.
pub trait Resolved<M>: Sized + Send + Sync + 'static {
    /// May the value be null?
    const NULLABLE: bool;
    /// What is selected on it.
    type Selected<'q>: Send + Sync;
    /// Its type in the schema; registers the type.
    fn type_ref(registry: &mut Registry) -> String;
    /// Plans what is selected on it.
    ///
    /// # Errors
    /// Where the document asks for something that cannot be planned.
    fn plan<'q>(request: &FieldRequest<'q>) -> Result<Self::Selected<'q>, RequestError>;
    /// Loads what is selected on the values of all rows.
    fn fill<'a, 'q: 'a>(
        values: Vec<Result<Self, FieldError>>,
        selected: &'a Self::Selected<'q>,
        location: SourceLocation,
        ctx: &'a Context,
    ) -> BoxFuture<'a, Box<dyn Filled + 'a>>;
}

/// Marks leaves.
pub struct LeafOf<M>(PhantomData<fn() -> M>);
/// Marks objects that are always there.
pub struct Required;
/// Marks objects that may be absent.
pub struct Nullable;
/// Marks lists of objects.
pub struct Listed;

impl<C: Leaf<M> + Send + Sync + 'static, M: 'static> Resolved<LeafOf<M>> for C {
    type Selected<'q> = ();

    const NULLABLE: bool = C::NULLABLE;

    fn type_ref(registry: &mut Registry) -> String {
        C::type_ref(registry)
    }

    fn plan(_: &FieldRequest<'_>) -> Result<(), RequestError> {
        Ok(())
    }

    fn fill<'a, 'q: 'a>(
        values: Vec<Result<Self, FieldError>>,
        (): &'a (),
        location: SourceLocation,
        _: &'a Context,
    ) -> BoxFuture<'a, Box<dyn Filled + 'a>> {
        let filled = ValueFilled { values, location, marker: PhantomData::<fn() -> M> };
        std::future::ready(Box::new(filled) as Box<dyn Filled>).boxed()
    }
}

impl<U: Entity> Resolved<Required> for U {
    type Selected<'q> = Selection<'q, U>;

    const NULLABLE: bool = false;

    fn type_ref(registry: &mut Registry) -> String {
        Row::<U>::create_type_info(registry)
    }

    fn plan<'q>(request: &FieldRequest<'q>) -> Result<Selection<'q, U>, RequestError> {
        request.plan()
    }

    fn fill<'a, 'q: 'a>(
        values: Vec<Result<Self, FieldError>>,
        selected: &'a Selection<'q, U>,
        location: SourceLocation,
        ctx: &'a Context,
    ) -> BoxFuture<'a, Box<dyn Filled + 'a>> {
        fill_one(values.into_iter().map(|value| value.map(Some)), false, (selected, location), ctx)
    }
}

impl<U: Entity> Resolved<Nullable> for Option<U> {
    type Selected<'q> = Selection<'q, U>;

    const NULLABLE: bool = true;

    fn type_ref(registry: &mut Registry) -> String {
        Row::<U>::create_type_info(registry).trim_end_matches('!').to_owned()
    }

    fn plan<'q>(request: &FieldRequest<'q>) -> Result<Selection<'q, U>, RequestError> {
        request.plan()
    }

    fn fill<'a, 'q: 'a>(
        values: Vec<Result<Self, FieldError>>,
        selected: &'a Selection<'q, U>,
        location: SourceLocation,
        ctx: &'a Context,
    ) -> BoxFuture<'a, Box<dyn Filled + 'a>> {
        fill_one(values.into_iter(), true, (selected, location), ctx)
    }
}

fn fill_one<'a, 'q: 'a, U: Entity>(
    values: impl Iterator<Item = Result<Option<U>, FieldError>>,
    nullable: bool,
    (selected, location): (&'a Selection<'q, U>, SourceLocation),
    ctx: &'a Context,
) -> BoxFuture<'a, Box<dyn Filled + 'a>> {
    let mut children = Vec::new();
    let mut slot = |child| {
        children.push(child);
        children.len() - 1
    };
    let slots = values.map(|value| value.map(|child| child.map(&mut slot))).collect();
    async move {
        let rows = selected.run(children, ctx).await;
        Box::new(OneFilled { slots, rows, location, nullable }) as Box<dyn Filled>
    }
    .boxed()
}

impl<U: Entity> Resolved<Listed> for Vec<U> {
    type Selected<'q> = Selection<'q, U>;

    const NULLABLE: bool = false;

    fn type_ref(registry: &mut Registry) -> String {
        format!("[{}]!", Row::<U>::create_type_info(registry))
    }

    fn plan<'q>(request: &FieldRequest<'q>) -> Result<Selection<'q, U>, RequestError> {
        request.plan()
    }

    fn fill<'a, 'q: 'a>(
        values: Vec<Result<Self, FieldError>>,
        selected: &'a Selection<'q, U>,
        location: SourceLocation,
        ctx: &'a Context,
    ) -> BoxFuture<'a, Box<dyn Filled + 'a>> {
        let mut children = Vec::new();
        let slots = values.into_iter().map(|value| {
            let start = children.len();
            children.extend(value?);
            Ok((start, children.len() - start))
        });
        let slots = slots.collect();
        async move {
            let rows = selected.run(children, ctx).await;
            Box::new(ManyFilled { slots, rows, location }) as Box<dyn Filled>
        }
        .boxed()
    }
}

/// What a resolver costs for each row, unless [`Object::weight`] says otherwise.
const WEIGHT: u64 = 1;

impl<T: Entity> Object<T> {
    /// A field with an ordinary resolver: a function of the object, the request and the field's arguments,
    /// awaited once for each row, concurrently for all rows of a level. A failure or a panic is an error of
    /// its field alone. It costs 1 for each row; [`Object::weight`] says otherwise.
    #[must_use]
    pub fn resolver<A, C, M, R>(
        self,
        name: &'static str,
        about: &'static str,
        resolve: impl Fn(T, Context, Arc<A>) -> R + Send + Sync + 'static,
    ) -> Self
    where
        A: Arguments,
        C: Resolved<M>,
        M: 'static,
        R: Future<Output = Result<C, FieldError>> + Send + 'static,
    {
        self.edge(name, about, Resolver { resolve, types: PhantomData }).weight(WEIGHT)
    }
}

/// The types of the arguments and of the value.
type Marker<A, C, M> = PhantomData<fn() -> (A, C, M)>;

struct Resolver<A, C, M, F> {
    resolve: F,
    types: Marker<A, C, M>,
}

impl<T, A, C, M, F, R> Edge<T> for Resolver<A, C, M, F>
where
    T: Entity,
    A: Arguments,
    C: Resolved<M>,
    M: 'static,
    F: Fn(T, Context, Arc<A>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<C, FieldError>> + Send + 'static,
{
    fn type_ref(&self, registry: &mut Registry) -> String {
        C::type_ref(registry)
    }

    fn arguments(&self, registry: &mut Registry) -> IndexMap<String, MetaInputValue> {
        A::describe(registry)
    }

    fn is_nullable(&self) -> bool {
        C::NULLABLE
    }

    fn plan<'q>(&'static self, request: FieldRequest<'q>) -> Result<Box<dyn Run<T> + 'q>, RequestError> {
        let selected = C::plan(&request)?;
        let (coordinate, location) = (request.coordinate, request.selected.location);
        Ok(match FieldArgs::of(&request) {
            Ok(FieldArgs { args, .. }) => {
                Box::new(Calls { resolver: self, args: Arc::new(args), selected, coordinate, location })
            }
            Err(error) => Box::new(Broken { error, location }),
        })
    }
}

/// A planned field with a resolver.
struct Calls<'q, A: 'static, C: Resolved<M>, M: 'static, F: 'static> {
    resolver: &'static Resolver<A, C, M, F>,
    args: Arc<A>,
    selected: C::Selected<'q>,
    coordinate: Coordinate,
    location: SourceLocation,
}

impl<T, A, C, M, F, R> Run<T> for Calls<'_, A, C, M, F>
where
    T: Entity,
    A: Arguments,
    C: Resolved<M>,
    M: 'static,
    F: Fn(T, Context, Arc<A>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<C, FieldError>> + Send + 'static,
{
    fn start<'a>(&'a self, rows: &[T], ctx: &'a Context) -> BoxFuture<'a, Box<dyn Filled + 'a>> {
        let resolve = &self.resolver.resolve;
        let calls: Vec<_> = rows
            .iter()
            .map(|row| {
                let (row, ctx, args) = (row.clone(), ctx.clone(), Arc::clone(&self.args));
                // In a block, so that what is done before the first await is guarded too.
                AssertUnwindSafe(async move { resolve(row, ctx, args).await }).catch_unwind()
            })
            .collect();
        async move {
            let (ty, field) = self.coordinate;
            let started = Instant::now();
            let panicked = |_| FieldError::internal_by(format_args!("{ty}.{field}: the resolver panicked"));
            let results = join_all(calls).await.into_iter();
            let values: Vec<_> = results.map(|result| result.map_err(panicked).flatten()).collect();
            let failed = values.iter().filter(|value| value.is_err()).count();
            if failed > 0 {
                ctx.note_failure();
            }
            let (rows, elapsed) = (values.len(), started.elapsed());
            ctx.batcher.note_resolver(ResolverRun {
                field: self.coordinate,
                rows,
                failed,
                began: started,
                elapsed,
            });
            C::fill(values, &self.selected, self.location, ctx).await
        }
        .boxed()
    }
}

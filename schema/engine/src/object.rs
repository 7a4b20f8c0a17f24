//! Object types: ONE declaration per GraphQL object says its columns and its edges, and everything follows from it:
//! the registry (introspection, validation, federation SDL) and the execution.
//!
//! Columns are written straight from the row into the answer. Edges are batch-first: a selection on many rows starts
//! each edge once for all of them, which asks the batcher for all keys together, and then runs its own selection on
//! all children together. So there is one future per edge of the document, however many rows there are. Loading
//! comes first, level by level; writing is one pass at the end and cannot wait.

use async_graphql::{
    OutputType, Positioned, ServerResult, Value,
    context::ContextSelectionSet,
    indexmap::IndexMap,
    parser::types::{Field as AstField, SelectionSet},
    registry::{MetaField, MetaInputValue, MetaType, MetaTypeId, ObjectBuilder, Registry},
    resolver_utils::ContainerType,
};
use futures_util::future::{BoxFuture, join_all};
use rustc_hash::FxHashMap;
use std::{borrow::Cow, marker::PhantomData, sync::Arc};

use crate::{
    context::Context,
    cost,
    error::RequestError,
    federation::trace::{Clock, Moment, Span, Traced},
    output::{Unwritten, Writer},
    plan::{Planner, Selected},
    scalar::{Leaf, write_text},
};

/// A GraphQL object as the viewer sees it.
pub trait Entity: Clone + Send + Sync + 'static {
    /// Its declaration.
    fn object() -> &'static Object<Self>;
}

/// An entity that wraps a row and can only be made by the check of who may see it.
pub trait Visible: Entity {
    /// The row.
    type Row: Send + Sync + 'static;
    /// The object, if this viewer may see the row.
    fn visible_to(ctx: &Context, row: Arc<Self::Row>) -> Option<Self>;
}

/// An entity that whoever sees the object `T` also sees, by the edge that leads to it from there: a submission shows
/// what it answers, whatever has become of its form since. On every other way `visible_to` decides.
pub trait VisibleFrom<T>: Visible {
    /// The object.
    fn visible_from(ctx: &Context, row: Arc<Self::Row>) -> Self;
}

/// An interface that objects implement.
#[derive(Clone, Copy)]
pub struct Interface {
    /// Its name.
    pub name: &'static str,
    /// Puts it into the registry, where the objects that implement it do not wait for a field that leads to it.
    pub register: Option<fn(&mut Registry)>,
}

/// The declaration of an object type.
pub struct Object<T: 'static> {
    /// The type's name.
    pub name: &'static str,
    about: &'static str,
    /// Its `@tag`.
    tag: Option<&'static str>,
    /// The `@tag` of the next fields.
    fields_tag: Option<&'static str>,
    shareable: bool,
    keys: Vec<&'static str>,
    interfaces: Vec<Interface>,
    fields: Vec<Field<T>>,
    by_name: FxHashMap<&'static str, usize>,
}

struct Field<T> {
    name: &'static str,
    about: &'static str,
    tag: Option<&'static str>,
    shareable: bool,
    /// What it costs by itself, where that is not what its kind costs.
    weight: Option<u64>,
    listed: bool,
    kind: Kind<T>,
}

type WriteColumn<T> = Box<dyn Fn(&T, &mut Vec<u8>) + Send + Sync>;

enum Kind<T> {
    Column { write: WriteColumn<T>, type_ref: fn(&mut Registry) -> String },
    Edge(Box<dyn Edge<T>>),
}

/// A field that loads.
pub trait Edge<T>: Send + Sync {
    /// Its type in the schema, as in `[User!]!`; registers the type.
    fn type_ref(&self, registry: &mut Registry) -> String;
    /// Its arguments in the schema; registers their types.
    fn arguments(&self, registry: &mut Registry) -> IndexMap<String, MetaInputValue>;
    /// Whether it may be null.
    fn is_nullable(&self) -> bool;
    /// Reads the arguments and plans what is selected beneath.
    fn plan<'q>(&'static self, request: FieldRequest<'q>) -> Result<Box<dyn Run<T> + 'q>, RequestError>;
}

/// A type and its field.
pub type Coordinate = (&'static str, &'static str);

/// What an edge is planned from.
pub struct FieldRequest<'q> {
    /// The document's fragments and variables.
    pub planner: Planner<'q>,
    /// The field, with its selections.
    pub selected: Selected<'q>,
    /// The type and the field.
    pub coordinate: Coordinate,
    /// The request.
    pub ctx: &'q Context,
}

impl<'q> FieldRequest<'q> {
    /// Plans what is selected on the objects that the field leads to.
    ///
    /// # Errors
    /// Where the document asks for something that cannot be planned.
    pub fn plan<U: Entity>(&self) -> Result<Selection<'q, U>, RequestError> {
        U::object().plan(self.planner, &self.selected.sets, self.ctx)
    }
}

/// A planned edge.
pub trait Run<T>: Send + Sync {
    /// Takes the keys from the rows at once; loads when polled.
    fn start<'a>(&'a self, rows: &[T], ctx: &'a Context) -> BoxFuture<'a, Box<dyn Filled + 'a>>;
}

/// A loaded edge.
pub trait Filled: Send + Sync {
    /// Writes the value for the row of this index.
    fn write<'w>(&'w self, row: usize, writer: &mut Writer<'w>) -> Result<(), Unwritten>;
}

impl<T: Entity> Object<T> {
    /// A new type; `about` is its description.
    pub fn new(name: &'static str, about: &'static str) -> Self {
        let (keys, interfaces, fields, by_name) = (Vec::new(), Vec::new(), Vec::new(), FxHashMap::default());
        let (tag, fields_tag, shareable) = (None, None, false);
        Self { name, about, tag, fields_tag, shareable, keys, interfaces, fields, by_name }
    }

    /// Has this `@tag`, and with it the part of the schema that it belongs to.
    #[must_use]
    pub fn of(self, tag: impl Into<&'static str>) -> Self {
        Self { tag: Some(tag.into()), ..self }
    }

    /// The fields that follow have this `@tag`: another part of the schema adds them to the type.
    #[must_use]
    pub fn fields_of(self, tag: impl Into<&'static str>) -> Self {
        Self { fields_tag: Some(tag.into()), ..self }
    }

    /// Marks the type `@shareable`: every subgraph may have it.
    #[must_use]
    pub fn shareable(self) -> Self {
        Self { shareable: true, ..self }
    }

    /// Implements an interface.
    #[must_use]
    pub fn implements(mut self, interface: Interface) -> Self {
        self.interfaces.push(interface);
        self
    }

    /// A federation key.
    #[must_use]
    pub fn key(mut self, fields: &'static str) -> Self {
        self.keys.push(fields);
        self
    }

    /// A stored value.
    #[must_use]
    pub fn column<M, C: Leaf<M> + 'static>(
        self,
        name: &'static str,
        about: &'static str,
        get: fn(&T) -> &C,
    ) -> Self {
        let write: WriteColumn<T> = Box::new(move |row, out| get(row).write(out));
        self.field(name, about, true, Kind::Column { write, type_ref: C::type_ref })
    }

    /// A value made from the row.
    #[must_use]
    pub fn computed<M, C: Leaf<M> + 'static>(
        self,
        name: &'static str,
        about: &'static str,
        get: fn(&T) -> C,
    ) -> Self {
        let write: WriteColumn<T> = Box::new(move |row, out| get(row).write(out));
        self.field(name, about, true, Kind::Column { write, type_ref: C::type_ref })
    }

    /// A stored value that is null for viewers who may not see it.
    #[must_use]
    pub fn guarded<M, C: Leaf<M> + 'static>(
        self,
        name: &'static str,
        about: &'static str,
        may: fn(&T) -> bool,
        get: fn(&T) -> &C,
    ) -> Self {
        let write: WriteColumn<T> = Box::new(move |row, out| {
            if may(row) {
                get(row).write(out);
            } else {
                out.extend(b"null");
            }
        });
        self.field(name, about, true, Kind::Column { write, type_ref: <Option<C> as Leaf<M>>::type_ref })
    }

    /// A field that loads.
    #[must_use]
    pub fn edge(self, name: &'static str, about: &'static str, edge: impl Edge<T> + 'static) -> Self {
        self.field(name, about, true, Kind::Edge(Box::new(edge)))
    }

    /// An edge that is served but not declared here, because the library declares it (`_entities`, `_service`).
    #[must_use]
    pub fn unlisted_edge(self, name: &'static str, edge: impl Edge<T> + 'static) -> Self {
        self.field(name, "", false, Kind::Edge(Box::new(edge)))
    }

    fn field(mut self, name: &'static str, about: &'static str, listed: bool, kind: Kind<T>) -> Self {
        let known = self.by_name.insert(name, self.fields.len());
        assert!(known.is_none(), "`{}.{name}` is declared twice", self.name);
        let tag = self.fields_tag;
        self.fields.push(Field { name, about, tag, shareable: false, weight: None, listed, kind });
        self
    }

    /// Neighbours may know the field before this too (`@provides`): whoever sees the object sees the same there.
    #[must_use]
    pub fn provided(mut self) -> Self {
        if let Some(field) = self.fields.last_mut() {
            field.shareable = true;
        }
        self
    }

    /// What the field before this costs by itself, each time (`@cost`). Columns cost nothing unless this says
    /// otherwise, objects, edges and resolvers 1.
    #[must_use]
    pub fn weight(mut self, weight: u64) -> Self {
        if let Some(field) = self.fields.last_mut() {
            field.weight = Some(weight);
        }
        self
    }

    /// Its own `@tag`.
    pub fn tag(&self) -> Option<&'static str> {
        self.tag
    }

    /// Its `@tag` and those of its fields.
    pub fn tags(&self) -> impl Iterator<Item = &'static str> {
        self.fields.iter().map(|field| field.tag).chain([self.tag]).flatten()
    }

    /// Does a fragment on `condition` apply?
    pub fn is(&self, condition: &str) -> bool {
        condition == self.name
            || self.interfaces.iter().any(|interface| interface.name == condition)
            // Federation's union of everything that has a key.
            || (condition == "_Entity" && !self.keys.is_empty())
    }

    /// Plans a selection.
    pub fn plan<'q>(
        &'static self,
        planner: Planner<'q>,
        sets: &[&'q SelectionSet],
        ctx: &'q Context,
    ) -> Result<Selection<'q, T>, RequestError> {
        let selected = planner.collect(&|condition| self.is(condition), sets)?;
        let mut selection = Selection { entries: Vec::with_capacity(selected.len()), ..self.nothing() };
        for selected in selected {
            self.plan_field(&mut selection, planner, selected, ctx)?;
        }
        Ok(selection)
    }

    /// A selection to begin with.
    pub fn nothing<'q>(&self) -> Selection<'q, T> {
        Selection { of: self.name, entries: Vec::new(), edges: Vec::new() }
    }

    /// Adds one field to a planned selection.
    ///
    /// # Errors
    /// Where the document asks for something that cannot be planned.
    pub fn plan_field<'q>(
        &'static self,
        selection: &mut Selection<'q, T>,
        planner: Planner<'q>,
        selected: Selected<'q>,
        ctx: &'q Context,
    ) -> Result<(), RequestError> {
        let (key, name) = (selected.key(), selected.name());
        let step = match self.by_name.get(selected.name()).map(|index| &self.fields[*index]) {
            Some(Field { kind: Kind::Column { write, .. }, .. }) => Step::Column(write),
            Some(Field { name, kind: Kind::Edge(edge), .. }) => {
                let coordinate = (self.name, *name);
                selection.edges.push(edge.plan(FieldRequest { planner, selected, coordinate, ctx })?);
                Step::Edge { index: selection.edges.len() - 1, nullable: edge.is_nullable() }
            }
            // Validation lets only `__typename` through beside the declared fields.
            None => Step::Typename(self.name),
        };
        selection.push(key, name, step);
        Ok(())
    }

    /// The type as the registry has it.
    pub fn describe(&self, registry: &mut Registry) -> MetaType {
        for interface in &self.interfaces {
            registry.add_implements(self.name, interface.name);
            if let Some(register) = interface.register {
                register(registry);
            }
        }
        let mut fields = IndexMap::new();
        for field in self.fields.iter().filter(|field| field.listed) {
            let (ty, args) = match &field.kind {
                Kind::Column { type_ref, .. } => (type_ref(registry), IndexMap::new()),
                Kind::Edge(edge) => (edge.type_ref(registry), edge.arguments(registry)),
            };
            let mut meta = MetaField::new(field.name, ty);
            meta.description = Some(field.about.to_owned());
            meta.args = args;
            meta.tags = tags_of(field.tag);
            meta.shareable = field.shareable;
            meta.directive_invocations.extend(field.weight.map(cost::directive_of));
            fields.insert(field.name.to_owned(), meta);
        }
        let keys = (!self.keys.is_empty()).then(|| self.keys.iter().map(ToString::to_string).collect());
        ObjectBuilder::new(self.name, fields)
            .description(Some(self.about.to_owned()))
            .keys(keys)
            .shareable(self.shareable)
            .tags(tags_of(self.tag))
            .rust_typename(std::any::type_name::<Row<T>>())
            .build()
    }
}

/// As the registry keeps it.
pub fn tags_of(tag: Option<&'static str>) -> Vec<String> {
    tag.into_iter().map(ToOwned::to_owned).collect()
}

/// A planned selection on objects of one type.
pub struct Selection<'q, T: 'static> {
    /// The type's name.
    of: &'static str,
    entries: Vec<Entry<'q, T>>,
    edges: Vec<Box<dyn Run<T> + 'q>>,
}

struct Entry<'q, T: 'static> {
    key: &'q str,
    name: &'q str,
    /// `"key":` as JSON.
    label: Vec<u8>,
    step: Step<T>,
}

/// How one field of a planned selection is written.
pub enum Step<T: 'static> {
    /// From the row.
    Column(&'static WriteColumn<T>),
    /// The type's name.
    Typename(&'static str),
    /// From what an edge has loaded: its place among the edges, and whether it may be null.
    Edge {
        /// Among the edges of the selection.
        index: usize,
        /// May it be null?
        nullable: bool,
    },
}

/// `"key":` as JSON. Names need no escaping.
pub fn label(key: &str) -> Vec<u8> {
    let mut label = Vec::with_capacity(key.len() + 3);
    label.push(b'"');
    label.extend(key.as_bytes());
    label.extend(b"\":");
    label
}

impl<'q, T: 'static> Selection<'q, T> {
    fn push(&mut self, key: &'q str, name: &'q str, step: Step<T>) {
        self.entries.push(Entry { key, name, label: label(key), step });
    }

    /// Adds an edge that is no field of the declaration (introspection).
    pub fn push_edge(&mut self, (key, name): (&'q str, &'q str), nullable: bool, run: Box<dyn Run<T> + 'q>) {
        self.edges.push(run);
        self.push(key, name, Step::Edge { index: self.edges.len() - 1, nullable });
    }

    /// Loads everything beneath `rows`.
    pub async fn run<'a>(&'a self, rows: Vec<T>, ctx: &'a Context) -> Rows<'a, 'q, T> {
        let Some(clock) = ctx.clock else {
            let edges = join_all(self.edges.iter().map(|edge| edge.start(&rows, ctx))).await;
            return Rows { selection: self, objects: rows, edges, began: 0, spans: Vec::new() };
        };
        let began = clock.now();
        let edges = self.edges.iter().map(|edge| timed(clock, edge.start(&rows, ctx)));
        let (edges, spans) = join_all(edges).await.into_iter().unzip();
        Rows { selection: self, objects: rows, edges, began, spans }
    }
}

async fn timed<'a>(
    clock: Clock,
    loading: BoxFuture<'a, Box<dyn Filled + 'a>>,
) -> (Box<dyn Filled + 'a>, Span) {
    let start = clock.now();
    let filled = loading.await;
    (filled, Span { start, end: clock.now() })
}

/// Objects of one type with everything that is selected on them.
pub struct Rows<'a, 'q, T: 'static> {
    selection: &'a Selection<'q, T>,
    objects: Vec<T>,
    edges: Vec<Box<dyn Filled + 'a>>,
    /// When the objects were there; 0 where nobody asks.
    began: Moment,
    /// When each edge was loaded; none where nobody asks.
    spans: Vec<Span>,
}

impl<T: Send + Sync> Rows<'_, '_, T> {
    /// Writes the object of this index.
    pub fn write<'w>(&'w self, row: usize, writer: &mut Writer<'w>) -> Result<(), Unwritten> {
        if writer.is_traced() {
            writer.loaded(self.began);
            self.write_fields::<true>(row, writer)
        } else {
            self.write_fields::<false>(row, writer)
        }
    }

    /// `TRACED` is known beforehand, so that who is not traced pays nothing.
    fn write_fields<'w, const TRACED: bool>(
        &'w self,
        row: usize,
        writer: &mut Writer<'w>,
    ) -> Result<(), Unwritten> {
        let entries = &self.selection.entries;
        writer.steps(entries.len(), |index, is_within, writer| {
            let entry = &entries[index];
            if !is_within {
                writer.out.push(if index == 0 { b'{' } else { b',' });
                writer.out.extend(&entry.label);
            }
            // What the library adds resolves nothing.
            if TRACED && !entry.name.starts_with("__") {
                writer.traced(|| self.traced(entry), |writer| self.write_field(entry, row, writer))
            } else {
                self.write_field(entry, row, writer)
            }
        })?;
        writer.out.extend(if self.selection.entries.is_empty() { &b"{}"[..] } else { b"}" });
        Ok(())
    }

    #[inline]
    fn write_field<'w>(
        &'w self,
        entry: &'w Entry<'_, T>,
        row: usize,
        writer: &mut Writer<'w>,
    ) -> Result<(), Unwritten> {
        match &entry.step {
            Step::Column(write) => write(&self.objects[row], writer.out.end()),
            Step::Typename(name) => write_text(name, writer.out.end()),
            Step::Edge { index, nullable } => {
                let edge = &self.edges[*index];
                return writer.field(entry.key, *nullable, |writer| edge.write(row, writer));
            }
        }
        Ok(())
    }

    fn traced<'w>(&self, entry: &'w Entry<'_, T>) -> Traced<'w> {
        let span = match entry.step {
            Step::Edge { index, .. } => self.spans.get(index).copied().unwrap_or_default(),
            Step::Column(_) | Step::Typename(_) => Span { start: self.began, end: self.began },
        };
        Traced { parent: self.selection.of, name: entry.name, key: entry.key, span }
    }
}

impl<T: Send + Sync> Filled for Rows<'_, '_, T> {
    fn write<'w>(&'w self, row: usize, writer: &mut Writer<'w>) -> Result<(), Unwritten> {
        Rows::write(self, row, writer)
    }
}

/// An entity's place in the library's registry. Execution never comes here: queries run as this file says.
pub struct Row<T>(PhantomData<fn() -> T>);

impl<T> Default for Row<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Row<T> {
    /// A stand-in for the type in the registry.
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Entity> OutputType for Row<T> {
    fn type_name() -> Cow<'static, str> {
        Cow::Borrowed(T::object().name)
    }

    fn create_type_info(registry: &mut Registry) -> String {
        registry.create_output_type::<Self, _>(MetaTypeId::Object, |registry| T::object().describe(registry))
    }

    async fn resolve(&self, _: &ContextSelectionSet<'_>, _: &Positioned<AstField>) -> ServerResult<Value> {
        Ok(Value::Null)
    }
}

impl<T: Entity> ContainerType for Row<T> {
    async fn resolve_field(&self, _: &async_graphql::Context<'_>) -> ServerResult<Option<Value>> {
        Ok(None)
    }
}

impl<T: Entity> async_graphql::ObjectType for Row<T> {}

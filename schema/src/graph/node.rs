//! Edges to an object of any type: `node`, `nodes`, `ActivityLog.subject` and the federation's `_entities`. Ids are
//! plain UUIDs, so the type of an id is found by one probe of all primary keys, remembered for the request. Each
//! slot stands for itself: what is absent, hidden or no id is null in its place and never takes its neighbours along.

use std::{borrow::Cow, marker::PhantomData, ops::Range, sync::Arc};

use async_graphql::{
    OutputType, Positioned, ServerResult, Value,
    context::ContextSelectionSet,
    indexmap::{IndexMap, IndexSet},
    parser::types::Field as AstField,
    registry::{MetaField, MetaInputValue, MetaType, MetaTypeId, Registry},
};
use entities::{
    NodeKind,
    id::{
        ActivityLogId, FormId, FormVersionId, Id, LocationId, SessionId, SubmissionId, UserId,
        WebhookDeliveryId, WebhookId,
    },
    store::row::Finder,
};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, join_all},
};
use rustc_hash::{FxHashMap, FxHashSet};
use uuid::Uuid;

use crate::{
    context::{ContextExt as _, Database},
    graph::{edges, subgraph::Subgraph, user},
};
use engine::{
    batch::{Loaded, Loader, Outcome},
    context::Context,
    edge::{Arguments, Broken, FieldArgs, load_some},
    error::{FieldError, RequestError, SourceLocation},
    object::{Edge, Entity as _, FieldRequest, Filled, Interface, Run, Selection, Visible},
    output::{Unwritten, Writer},
    scalar::Leaf,
};

/// Every type that implements `Node`; one line for each.
static NODES: [&dyn NodeType; 9] = [
    &Type::<UserId>::NEW,
    &Type::<SessionId>::NEW,
    &Type::<FormId>::NEW,
    &Type::<FormVersionId>::NEW,
    &Type::<SubmissionId>::NEW,
    &Type::<LocationId>::NEW,
    &Type::<ActivityLogId>::NEW,
    &Type::<WebhookId>::NEW,
    &Type::<WebhookDeliveryId>::NEW,
];

/// An id that names an object of the graph; each domain says so of its own.
pub(crate) trait NodeId: Id + std::fmt::Display {
    /// The object.
    type Object: Visible;

    /// What reads its row.
    fn finder() -> &'static Finder<Self, <Self::Object as Visible>::Row>;
}

/// Says which object an id names and what reads its row, as in `node_id!(FormId, Form, form::BY_IDS)`; and that it is
/// written as an `ID`.
macro_rules! node_id {
    ($id:ty, $object:ty, $finder:path) => {
        impl $crate::graph::node::NodeId for $id {
            type Object = $object;

            fn finder()
            -> &'static entities::store::row::Finder<Self, <$object as engine::object::Visible>::Row> {
                &$finder
            }
        }

        impl engine::scalar::Leaf<$crate::Graph> for $id {
            fn type_ref(registry: &mut async_graphql::registry::Registry) -> String {
                <uuid::Uuid as engine::scalar::Leaf>::type_ref(registry)
            }

            fn write(&self, out: &mut Vec<u8>) {
                engine::scalar::Leaf::write(&self.0, out);
            }
        }
    };
}
pub(crate) use node_id;

/// What is known of an object that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// An id of unknown type.
    Id(Uuid),
    /// An id of a known type.
    Typed(NodeKind, Uuid),
    /// An account by e-mail.
    UserByEmail(String),
}

/// One slot: an object, nothing, or why it cannot be.
pub type ReferenceResult = Result<Option<Reference>, FieldError>;

/// An edge to objects of any type. Each row has some slots; an edge to one object has one.
pub struct AnyNode<T, A> {
    arity: Arity,
    slots: fn(&T, &FieldArgs<'_, A>) -> Result<Vec<ReferenceResult>, FieldError>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Arity {
    /// `Node`
    One,
    /// `[Node]!`
    List,
}

impl<T, A> AnyNode<T, A> {
    /// One nullable object.
    pub fn one(slots: fn(&T, &FieldArgs<'_, A>) -> Result<Vec<ReferenceResult>, FieldError>) -> Self {
        Self { arity: Arity::One, slots }
    }

    /// A list with a place for each slot.
    pub fn list(slots: fn(&T, &FieldArgs<'_, A>) -> Result<Vec<ReferenceResult>, FieldError>) -> Self {
        Self { arity: Arity::List, slots }
    }
}

impl<T: Send + Sync + 'static, A: Arguments> Edge<T> for AnyNode<T, A> {
    fn type_ref(&self, registry: &mut Registry) -> String {
        register(registry);
        match self.arity {
            Arity::One => "Node".to_owned(),
            Arity::List => "[Node]!".to_owned(),
        }
    }

    fn arguments(&self, registry: &mut Registry) -> IndexMap<String, MetaInputValue> {
        A::describe(registry)
    }

    fn is_nullable(&self) -> bool {
        self.arity == Arity::One
    }

    fn plan<'q>(&'static self, request: FieldRequest<'q>) -> Result<Box<dyn Run<T> + 'q>, RequestError> {
        let plans = NODES.iter().map(|node| node.plan(&request)).collect::<Result<_, _>>()?;
        let location = request.selected.location;
        Ok(match FieldArgs::of(&request) {
            Ok(given) => Box::new(NodesRun { edge: self, given, plans, location }),
            Err(error) => Box::new(Broken { error, location }),
        })
    }
}

struct NodesRun<'q, T: 'static, A: 'static> {
    edge: &'static AnyNode<T, A>,
    given: FieldArgs<'q, A>,
    /// The selection on each type that may come.
    plans: Vec<Box<dyn NodePlan + 'q>>,
    location: SourceLocation,
}

impl<T: Send + Sync, A: Arguments> Run<T> for NodesRun<'_, T, A> {
    fn start<'a>(&'a self, rows: &[T], ctx: &'a Context) -> BoxFuture<'a, Box<dyn Filled + 'a>> {
        let mut slots = Vec::new();
        let ranges = rows
            .iter()
            .map(|row| {
                let start = slots.len();
                slots.extend((self.edge.slots)(row, &self.given)?);
                Ok((start, slots.len() - start))
            })
            .collect();
        async move {
            let slots = by_email(probe(slots, ctx).await, ctx).await;
            let (indexes, objects) = self.load(slots, ctx).await;
            let (arity, location) = (self.edge.arity, self.location);
            let found = indexes.iter().filter_map(|found| found.as_ref().ok().copied().flatten());
            let is_twice = found.clone().collect::<FxHashSet<_>>().len() < found.count();
            Box::new(NodesFilled { arity, ranges, indexes, is_twice, objects, location }) as Box<dyn Filled>
        }
        .boxed()
    }
}

/// The type of an id; `None` where there is no such object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct KindOf;

impl Loader for KindOf {
    const NAME: &'static str = "node.kinds";
    type Source = Database;
    type Key = Uuid;
    type Value = NodeKind;

    async fn load(self, store: Database, keys: Arc<[Uuid]>) -> Loaded<Self> {
        entities::node::kinds(&store, &keys).await
    }
}

/// Finds the type of every id that has none yet.
async fn probe(slots: Vec<ReferenceResult>, ctx: &Context) -> Vec<ReferenceResult> {
    let keys = slots.iter().map(|slot| match slot {
        Ok(Some(Reference::Id(id))) => Ok(Some(*id)),
        _ => Ok(None),
    });
    let kinds = load_some(ctx, KindOf, keys.collect()).await;
    slots
        .into_iter()
        .zip(kinds)
        .map(|(slot, kind)| match slot {
            Ok(Some(Reference::Id(id))) => Ok(kind?.map(|kind| Reference::Typed(kind, id))),
            slot => slot,
        })
        .collect()
}

/// Where a slot's object is: the index of its type, and its index among the objects of the type.
type ObjectIndex = Result<Option<(usize, usize)>, FieldError>;

impl<T, A> NodesRun<'_, T, A> {
    /// Loads the objects of each type, and everything beneath them; once each, however often it is asked for.
    async fn load<'a>(
        &'a self,
        slots: Vec<ReferenceResult>,
        ctx: &'a Context,
    ) -> (Vec<ObjectIndex>, Vec<Box<dyn Filled + 'a>>) {
        let loading = NODES.iter().zip(&self.plans).map(|(node, plan)| {
            let ids = slots.iter().filter_map(|slot| match slot {
                Ok(Some(Reference::Typed(kind, id))) if *kind == node.kind() => Some(*id),
                _ => None,
            });
            plan.run(ids.collect(), ctx)
        });
        let (objects, mut indexes): (Vec<_>, Vec<_>) = join_all(loading)
            .await
            .into_iter()
            .map(|(objects, indexes)| (objects, indexes.into_iter()))
            .unzip();
        let index_of = |slot: ReferenceResult| {
            let Some(Reference::Typed(kind, _)) = slot? else { return Ok(None) };
            let node = position(kind);
            let index = indexes[node].next().expect("there is an index for each id");
            Ok(index?.map(|index| (node, index)))
        };
        (slots.into_iter().map(index_of).collect(), objects)
    }
}

/// Does the subgraph answer for entities of this type?
pub(crate) fn is_resolved_by(kind: NodeKind, subgraph: Subgraph) -> bool {
    NODES[position(kind)].is_resolved_by(subgraph)
}

/// The type's index in the list.
fn position(kind: NodeKind) -> usize {
    NODES.iter().position(|node| node.kind() == kind).expect("every kind is in the list")
}

/// What edges to any object have to know of a type.
trait NodeType: Sync {
    fn kind(&self) -> NodeKind;
    fn name(&self) -> &'static str;
    fn is_resolved_by(&self, subgraph: Subgraph) -> bool;
    /// Plans what is selected on the type.
    fn plan<'q>(&self, request: &FieldRequest<'q>) -> Result<Box<dyn NodePlan + 'q>, RequestError>;
}

/// What is selected on a type, planned.
trait NodePlan: Send + Sync {
    /// Loads the objects of these ids, and everything beneath them. Answers the objects, and the index of each id's.
    fn run<'a>(&'a self, ids: Vec<Uuid>, ctx: &'a Context) -> BoxFuture<'a, (Box<dyn Filled + 'a>, Indexes)>;
}

/// The index of each id's object; none where it is absent or hidden.
type Indexes = Vec<Result<Option<usize>, FieldError>>;

/// The type of the objects of an id.
struct Type<K>(PhantomData<fn() -> K>);

impl<K> Type<K> {
    const NEW: Self = Self(PhantomData);
}

impl<K: NodeId> NodeType for Type<K> {
    fn kind(&self) -> NodeKind {
        K::KIND
    }

    fn name(&self) -> &'static str {
        K::Object::object().name
    }

    fn is_resolved_by(&self, subgraph: Subgraph) -> bool {
        subgraph.resolves(K::Object::object())
    }

    fn plan<'q>(&self, request: &FieldRequest<'q>) -> Result<Box<dyn NodePlan + 'q>, RequestError> {
        Ok(Box::new(Plan::<K> { selection: request.plan()? }))
    }
}

struct Plan<'q, K: NodeId> {
    selection: Selection<'q, K::Object>,
}

impl<K: NodeId> NodePlan for Plan<'_, K> {
    fn run<'a>(&'a self, ids: Vec<Uuid>, ctx: &'a Context) -> BoxFuture<'a, (Box<dyn Filled + 'a>, Indexes)> {
        async move {
            let keys = ids.iter().map(|id| Ok(Some(K::from(*id)))).collect();
            let (mut objects, mut known) = (Vec::new(), FxHashMap::default());
            let outcomes = load_some(ctx, edges::by_id::<K>(ctx), keys).await;
            let indexes = ids.into_iter().zip(outcomes).map(|(id, outcome)| {
                outcome.map(|row| {
                    *known.entry(id).or_insert_with(|| {
                        objects.push(row.and_then(|row| K::Object::visible_to(ctx, row))?);
                        Some(objects.len() - 1)
                    })
                })
            });
            let indexes = indexes.collect();
            (Box::new(self.selection.run(objects, ctx).await) as Box<dyn Filled>, indexes)
        }
        .boxed()
    }
}

/// Turns e-mails into ids, for those who may see them.
async fn by_email(slots: Vec<ReferenceResult>, ctx: &Context) -> Vec<ReferenceResult> {
    let keys = slots.iter().map(|slot| match slot {
        Ok(Some(Reference::UserByEmail(email))) => Ok(Some(email.clone())),
        _ => Ok(None),
    });
    let users: Vec<Outcome<_>> =
        load_some(ctx, user::OpenByEmail { scope: ctx.scope() }, keys.collect()).await;
    slots
        .into_iter()
        .zip(users)
        .map(|(slot, user)| match slot {
            Ok(Some(Reference::UserByEmail(_))) => {
                Ok(user?.map(|row| Reference::Typed(NodeKind::User, row.id.0)))
            }
            slot => slot,
        })
        .collect()
}

struct NodesFilled<'a> {
    arity: Arity,
    ranges: Vec<Result<(usize, usize), FieldError>>,
    indexes: Vec<ObjectIndex>,
    /// Some object is there more than once.
    is_twice: bool,
    /// The objects of each type that came.
    objects: Vec<Box<dyn Filled + 'a>>,
    location: SourceLocation,
}

impl Filled for NodesFilled<'_> {
    fn write<'w>(&'w self, row: usize, writer: &mut Writer<'w>) -> Result<(), Unwritten> {
        let (start, length) = match &self.ranges[row] {
            Ok(range) => *range,
            Err(error) => return Err(writer.fail(error, self.location)),
        };
        match self.arity {
            Arity::One => self.write_slot(start, writer),
            // Who wants a trace gets one of each.
            Arity::List if self.is_twice && !writer.is_traced() => self.write_once(start, length, writer),
            Arity::List => writer.list(length, true, |index, writer| self.write_slot(start + index, writer)),
        }
    }
}

impl NodesFilled<'_> {
    /// A list in which objects are there more than once: the second time their bytes are repeated.
    fn write_once<'w>(
        &'w self,
        start: usize,
        length: usize,
        writer: &mut Writer<'w>,
    ) -> Result<(), Unwritten> {
        let mut written = FxHashMap::default();
        writer.list(length, true, |index, writer| {
            let Ok(Some(object)) = &self.indexes[start + index] else {
                return self.write_slot(start + index, writer);
            };
            if let Some(bytes) = written.get(object) {
                writer.out.repeat(Range::clone(bytes));
                return Ok(());
            }
            // What has stopped within an object has forgotten where it began; what has an error has another
            // path each time.
            let (is_from_its_beginning, failures) = (!writer.is_returning(), writer.failures);
            let begin = writer.out.len();
            self.write_slot(start + index, writer)?;
            if is_from_its_beginning && writer.failures == failures {
                written.insert(*object, begin..writer.out.len());
            }
            Ok(())
        })
    }

    fn write_slot<'w>(&'w self, slot: usize, writer: &mut Writer<'w>) -> Result<(), Unwritten> {
        match &self.indexes[slot] {
            Err(error) => Err(writer.fail(error, self.location)),
            Ok(None) => {
                writer.out.extend(b"null");
                Ok(())
            }
            Ok(Some((node, object))) => self.objects[*node].write(*object, writer),
        }
    }
}

/// The interface `Node` in the registry.
pub(crate) struct NodeInterface;

/// `Node`, as objects implement it.
pub(crate) const NODE: Interface = Interface { name: "Node", register: Some(register) };

fn register(registry: &mut Registry) {
    NodeInterface::create_type_info(registry);
}

impl OutputType for NodeInterface {
    fn type_name() -> Cow<'static, str> {
        "Node".into()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        registry.create_output_type::<Self, _>(MetaTypeId::Interface, |registry| {
            let mut id = MetaField::new("id", Uuid::type_ref(registry));
            id.description = Some("A lower-case UUID, the same in every subgraph.".to_owned());
            let types = NODES.iter().map(|node| node.name().to_owned());
            MetaType::Interface {
                name: "Node".to_owned(),
                description: Some("Anything that can be fetched again by its id.".to_owned()),
                fields: [("id".to_owned(), id)].into_iter().collect(),
                possible_types: types.collect::<IndexSet<_>>(),
                extends: false,
                keys: None,
                visible: None,
                inaccessible: false,
                tags: Vec::new(),
                rust_typename: Some(std::any::type_name::<Self>()),
                directive_invocations: Vec::new(),
                requires_scopes: Vec::new(),
            }
        })
    }

    async fn resolve(&self, _: &ContextSelectionSet<'_>, _: &Positioned<AstField>) -> ServerResult<Value> {
        Ok(Value::Null)
    }
}

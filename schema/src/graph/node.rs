//! Edges to an object of any type: `node`, `nodes`, `ActivityLog.subject` and the federation's `_entities`. Ids are
//! plain UUIDs, so the type of an id is found by one probe of all primary keys, remembered for the request. Each
//! slot stands for itself: what is absent, hidden or no id is null in its place and never takes its neighbours along.

use std::{borrow::Cow, ops::Range, sync::Arc};

use async_graphql::{
    OutputType, Positioned, ServerResult, Value,
    context::ContextSelectionSet,
    indexmap::{IndexMap, IndexSet},
    parser::types::Field as AstField,
    registry::{MetaField, MetaInputValue, MetaType, MetaTypeId, Registry},
};
use entities::{
    Kind,
    id::{ActivityLogId, FormId, FormVersionId, LocationId, SessionId, SubmissionId, UserId},
};
use futures_util::{FutureExt as _, future::BoxFuture};
use rustc_hash::{FxHashMap, FxHashSet};
use uuid::Uuid;

use crate::{
    context::{ContextExt as _, Database},
    graph::{
        activity::{self, ActivityLog},
        form::{self, Form, FormVersion},
        location::{self, Location},
        session::{self, Session},
        subgraph::Subgraph,
        submission::{self, Submission},
        user::{self, User},
    },
};
use engine::{
    batch::{Loaded, Loader, Outcome},
    context::Context,
    edge::{Arguments, Broken, FieldArgs, load_some},
    error::{FieldError, RequestError, SourceLocation},
    object::{Edge, Entity as _, FieldRequest, Filled, Interface, Rows, Run, Selection, Visible},
    output::{Unwritten, Writer},
    scalar::Leaf,
};

/// What is known of an object that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// An id of unknown type.
    Id(Uuid),
    /// An id of a known type.
    Typed(Kind, Uuid),
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
        let types = Types::plan(&request)?;
        let location = request.selected.location;
        Ok(match FieldArgs::of(&request) {
            Ok(given) => Box::new(NodesRun { edge: self, given, types, location }),
            Err(error) => Box::new(Broken { error, location }),
        })
    }
}

struct NodesRun<'q, T: 'static, A: 'static> {
    edge: &'static AnyNode<T, A>,
    given: FieldArgs<'q, A>,
    types: Types<'q>,
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
            let slots = probe(slots, ctx).await;
            let (objects, types) = self.types.run(slots, ctx).await;
            let (arity, location) = (self.edge.arity, self.location);
            let found = objects.iter().filter_map(|found| found.as_ref().ok().copied().flatten());
            let is_twice = found.clone().collect::<FxHashSet<_>>().len() < found.count();
            Box::new(NodesFilled { arity, ranges, objects, is_twice, types, location }) as Box<dyn Filled>
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
    type Value = Kind;

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

/// The selection on each type that may come.
struct Types<'q> {
    users: Selection<'q, User>,
    sessions: Selection<'q, Session>,
    forms: Selection<'q, Form>,
    versions: Selection<'q, FormVersion>,
    submissions: Selection<'q, Submission>,
    locations: Selection<'q, Location>,
    activities: Selection<'q, ActivityLog>,
}

/// The objects of each type that came.
struct TypeRows<'a, 'q> {
    users: Rows<'a, 'q, User>,
    sessions: Rows<'a, 'q, Session>,
    forms: Rows<'a, 'q, Form>,
    versions: Rows<'a, 'q, FormVersion>,
    submissions: Rows<'a, 'q, Submission>,
    locations: Rows<'a, 'q, Location>,
    activities: Rows<'a, 'q, ActivityLog>,
}

/// Where a slot's object is: its type and its index within the type.
type Found = Result<Option<(Kind, usize)>, FieldError>;

impl<'q> Types<'q> {
    fn plan(request: &FieldRequest<'q>) -> Result<Self, RequestError> {
        fn of<'q, U: Visible>(request: &FieldRequest<'q>) -> Result<Selection<'q, U>, RequestError> {
            U::object().plan(request.planner, &request.selected.sets, request.ctx)
        }
        Ok(Self {
            users: of(request)?,
            sessions: of(request)?,
            forms: of(request)?,
            versions: of(request)?,
            submissions: of(request)?,
            locations: of(request)?,
            activities: of(request)?,
        })
    }

    async fn run<'a>(
        &'a self,
        slots: Vec<ReferenceResult>,
        ctx: &'a Context,
    ) -> (Vec<Found>, TypeRows<'a, 'q>) {
        let slots = by_email(slots, ctx).await;
        let scope = ctx.scope();
        let (users, sessions, forms, versions, submissions, locations, activities) = futures_util::join!(
            of_kind(&slots, Kind::User, user::ById, UserId, &self.users, ctx),
            of_kind(&slots, Kind::Session, session::ById, SessionId, &self.sessions, ctx),
            of_kind(&slots, Kind::Form, form::ById, FormId, &self.forms, ctx),
            of_kind(
                &slots,
                Kind::FormVersion,
                form::VersionById { scope },
                FormVersionId,
                &self.versions,
                ctx
            ),
            of_kind(
                &slots,
                Kind::Submission,
                submission::ById { scope },
                SubmissionId,
                &self.submissions,
                ctx
            ),
            of_kind(&slots, Kind::Location, location::ById, LocationId, &self.locations, ctx),
            of_kind(&slots, Kind::ActivityLog, activity::ById, ActivityLogId, &self.activities, ctx),
        );
        let mut found: Vec<Found> = slots.into_iter().map(|slot| slot.map(|_| None)).collect();
        let found_of_kinds =
            [users.1, sessions.1, forms.1, versions.1, submissions.1, locations.1, activities.1];
        for (index, object) in found_of_kinds.into_iter().flatten() {
            found[index] = object;
        }
        let rows = TypeRows {
            users: users.0,
            sessions: sessions.0,
            forms: forms.0,
            versions: versions.0,
            submissions: submissions.0,
            locations: locations.0,
            activities: activities.0,
        };
        (found, rows)
    }
}

/// Loads the objects of one type, and everything beneath them; once each, however often it is asked for.
async fn of_kind<'a, 'q, L, U>(
    slots: &[ReferenceResult],
    kind: Kind,
    loader: L,
    key: fn(Uuid) -> L::Key,
    selection: &'a Selection<'q, U>,
    ctx: &'a Context,
) -> (Rows<'a, 'q, U>, Vec<(usize, Found)>)
where
    U: Visible,
    L: Loader<Value = Arc<U::Row>>,
{
    let wanted: Vec<(usize, L::Key)> = slots
        .iter()
        .enumerate()
        .filter_map(|(index, slot)| match slot {
            Ok(Some(Reference::Typed(of, id))) if *of == kind => Some((index, key(*id))),
            _ => None,
        })
        .collect();
    let keys = wanted.iter().map(|(_, key)| Ok(Some(key.clone()))).collect();
    let (mut children, mut known) = (Vec::new(), FxHashMap::default());
    let outcomes = load_some(ctx, loader, keys).await;
    let found = wanted.iter().zip(outcomes).map(|((index, key), outcome)| {
        let object = outcome.map(|row| {
            *known.entry(key.clone()).or_insert_with(|| {
                children.push(row.and_then(|row| U::visible_to(ctx, row))?);
                Some((kind, children.len() - 1))
            })
        });
        (*index, object)
    });
    let found = found.collect();
    (selection.run(children, ctx).await, found)
}

/// Does the subgraph answer for entities of this type?
pub(crate) fn is_resolved_by(kind: Kind, subgraph: Subgraph) -> bool {
    match kind {
        Kind::User => subgraph.resolves(User::object()),
        Kind::Session => subgraph.resolves(Session::object()),
        Kind::Form => subgraph.resolves(Form::object()),
        Kind::FormVersion => subgraph.resolves(FormVersion::object()),
        Kind::Submission => subgraph.resolves(Submission::object()),
        Kind::Location => subgraph.resolves(Location::object()),
        Kind::ActivityLog => subgraph.resolves(ActivityLog::object()),
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
                Ok(user?.map(|row| Reference::Typed(Kind::User, row.id.0)))
            }
            slot => slot,
        })
        .collect()
}

struct NodesFilled<'a, 'q> {
    arity: Arity,
    ranges: Vec<Result<(usize, usize), FieldError>>,
    objects: Vec<Found>,
    /// Some object is there more than once.
    is_twice: bool,
    types: TypeRows<'a, 'q>,
    location: SourceLocation,
}

impl Filled for NodesFilled<'_, '_> {
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

impl NodesFilled<'_, '_> {
    /// A list in which objects are there more than once: the second time their bytes are repeated.
    fn write_once<'w>(
        &'w self,
        start: usize,
        length: usize,
        writer: &mut Writer<'w>,
    ) -> Result<(), Unwritten> {
        let mut written = FxHashMap::default();
        writer.list(length, true, |index, writer| {
            let Ok(Some(object)) = &self.objects[start + index] else {
                return self.write_slot(start + index, writer);
            };
            if let Some(bytes) = written.get(object) {
                writer.out.extend_from_within(Range::clone(bytes));
                return Ok(());
            }
            // What has stopped within an object has forgotten where it began; what has an error has another path each time.
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
        let types = &self.types;
        match &self.objects[slot] {
            Err(error) => Err(writer.fail(error, self.location)),
            Ok(None) => {
                writer.out.extend(b"null");
                Ok(())
            }
            Ok(Some((Kind::User, row))) => types.users.write(*row, writer),
            Ok(Some((Kind::Session, row))) => types.sessions.write(*row, writer),
            Ok(Some((Kind::Form, row))) => types.forms.write(*row, writer),
            Ok(Some((Kind::FormVersion, row))) => types.versions.write(*row, writer),
            Ok(Some((Kind::Submission, row))) => types.submissions.write(*row, writer),
            Ok(Some((Kind::Location, row))) => types.locations.write(*row, writer),
            Ok(Some((Kind::ActivityLog, row))) => types.activities.write(*row, writer),
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
            let types = [
                User::object().name,
                Session::object().name,
                Form::object().name,
                FormVersion::object().name,
                Submission::object().name,
                Location::object().name,
                ActivityLog::object().name,
            ];
            MetaType::Interface {
                name: "Node".to_owned(),
                description: Some("Anything that can be fetched again by its id.".to_owned()),
                fields: [("id".to_owned(), id)].into_iter().collect(),
                possible_types: types.iter().map(ToString::to_string).collect::<IndexSet<_>>(),
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

//! The root of all queries: what can be asked for without holding anything yet. Also the federation's two fields,
//! which the library declares and this crate answers, slot by slot. Not here: the objects (their domains).

use std::sync::LazyLock;

use async_graphql::{
    ID, InputObject, Value,
    indexmap::IndexMap,
    parser::types::Field,
    registry::{MetaInputValue, Registry},
};
use entities::{
    NodeKind, Tag,
    id::{
        self, ActivityLogId, FormId, FormVersionId, LocationId, SessionId, SubmissionId, UserId,
        WebhookDeliveryId, WebhookId,
    },
    user::Row,
};
use uuid::Uuid;

use crate::{
    auth::viewer::Viewer,
    context::ContextExt as _,
    graph::{
        activity,
        edges::{self, Edges as _, FindLoader},
        form,
        input::id as read_id,
        location,
        node::{AnyNode, NodeId, Reference, ReferenceResult, is_resolved_by},
        subgraph::Domain,
        user::{self, OpenByEmail, User, UserLookup},
        webhook,
    },
    request::Prepared,
};
use engine::{
    cost::MAX_IDS,
    edge::{Arguments, FieldArgs, NoArguments, One},
    error::{FieldError, RequestError},
    object::{Edge, Entity, FieldRequest, Object, Run},
    plan::{Planner, Selected},
    service::Service,
};

/// The one object that is always there.
#[derive(Clone)]
pub struct Query;

/// One id.
#[derive(InputObject)]
pub struct IdArgs {
    /// The id, a UUID.
    id: ID,
}

/// Some ids.
#[derive(InputObject)]
pub struct IdsArgs {
    /// At most 100 ids.
    ids: Vec<ID>,
}

/// The arguments of `Query.userBy`.
#[derive(InputObject)]
pub struct LookupArgs {
    /// Which account.
    lookup: UserLookup,
}

/// Representations in one `_entities`.
const MAX_ENTITIES: usize = 1_000;

impl Entity for Query {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<Query>> = LazyLock::new(|| {
            Object::<Query>::new(
                "Query",
                "Everything that can be read. What the viewer may not see is absent: null, or not in the \
                 list.",
            )
            .fields_of(Domain::Activity)
            .edge(
                "node",
                "Any object by its id. Null where it does not exist or the viewer may not see it.",
                AnyNode::<Query, IdArgs>::one(node),
            )
            .edge(
                "nodes",
                "Objects by their ids, in the same order; null in the place of what does not exist or the \
                 viewer may not see. At most 100.",
                AnyNode::<Query, IdsArgs>::list(nodes),
            )
            .fields_of(Domain::Users)
            .edge("me", "The account that is asking. Null for anonymous callers.", asking(Viewer::user_id))
            .fields_of(Domain::Sessions)
            .edge(
                "currentSession",
                "The session that is asking. Null for anonymous callers and for tokens without a session.",
                asking(Viewer::session_id),
            )
            .fields_of(Domain::Users)
            .edge("user", "An account by id.", by_id::<UserId>())
            .edge("userBy", "An account by id or by e-mail.", AnyUser)
            .page("users", "All accounts, newest first.", &user::ALL)
            .fields_of(Domain::Sessions)
            .edge("session", "A session by id.", by_id::<SessionId>())
            .fields_of(Domain::Forms)
            .edge("form", "A form by id.", by_id::<FormId>())
            .edge("formVersion", "A published version of a form by id.", by_id::<FormVersionId>())
            .page("forms", "All forms, newest first.", &form::ALL)
            .edge("submission", "A submission by id.", by_id::<SubmissionId>())
            .edge("webhook", "A webhook by id.", by_id::<WebhookId>())
            .page("webhooks", "All webhooks, newest first.", &webhook::ALL)
            .edge("webhookDelivery", "What a webhook is told, by id.", by_id::<WebhookDeliveryId>())
            .page("webhookDeliveries", "What webhooks are told, newest first.", &webhook::delivery::ALL)
            .fields_of(Domain::Locations)
            .edge("location", "A recorded position by id.", by_id::<LocationId>())
            .page(
                "latestLocations",
                "The newest position of each account that has one, newest first.",
                &location::LATEST,
            )
            .fields_of(Domain::Activity)
            .edge("activityLog", "An entry of the activity log by id.", by_id::<ActivityLogId>())
            .page("activityLogs", "The activity log, newest first.", &activity::ALL)
            .unlisted_edge(
                "_entities",
                AnyNode::<Query, Representations>::list(|_, given| Ok(entities(given))),
            )
            .unlisted_edge("_service", Service::new(|ctx| &ctx.service().sdl))
        });
        &OBJECT
    }
}

/// `Query.node`
fn node(_: &Query, given: &FieldArgs<'_, IdArgs>) -> Result<Vec<ReferenceResult>, FieldError> {
    let id = read_id("id", &given.args.id, id::parse)?;
    Ok(vec![Ok(Some(Reference::Id(id)))])
}

/// `Query.nodes`
fn nodes(_: &Query, given: &FieldArgs<'_, IdsArgs>) -> Result<Vec<ReferenceResult>, FieldError> {
    let ids = &given.args.ids;
    if ids.len() > MAX_IDS {
        return Err(FieldError::bad_input(format!("`ids` takes at most {MAX_IDS} ids, not {}", ids.len())));
    }
    Ok(ids.iter().map(|id| read_id("ids", id, id::parse).map(|id| Some(Reference::Id(id)))).collect())
}

/// An edge to the object of an id that is given.
fn by_id<K: NodeId>() -> impl Edge<Query> {
    One::<Query, IdArgs, _, K::Object>::nullable(
        |given| Ok(edges::by_id::<K>(given.ctx)),
        |_, given| read_id("id", &given.args.id, |text| id::parse(text).map(K::from)).map(Some),
    )
}

/// An edge to what the viewer is.
fn asking<K: NodeId>(id: fn(&Viewer) -> Option<K>) -> impl Edge<Query> {
    One::<Query, NoArguments, _, K::Object>::nullable(
        |given| Ok(edges::by_id::<K>(given.ctx)),
        move |_, given| Ok(id(given.ctx.viewer())),
    )
}

/// `Query.userBy`: by id or, for those who may see it, by e-mail.
struct AnyUser;

/// The edge by id and the edge by e-mail; which one runs is decided when the lookup is read.
static BY_ID: LazyLock<One<Query, LookupArgs, FindLoader<UserId, Row>, User>> = LazyLock::new(|| {
    One::<Query, LookupArgs, _, User>::nullable(
        |given| Ok(edges::by_id::<UserId>(given.ctx)),
        |_, given| match &given.args.lookup {
            UserLookup::Id(id) => read_id("id", id, UserId::parse).map(Some),
            UserLookup::Email(_) => Ok(None),
        },
    )
});
static BY_EMAIL: LazyLock<One<Query, LookupArgs, OpenByEmail, User>> = LazyLock::new(|| {
    One::<Query, LookupArgs, _, User>::nullable(
        |given| Ok(OpenByEmail { scope: given.ctx.scope() }),
        |_, given| match &given.args.lookup {
            UserLookup::Email(email) => Ok(Some(email.to_lowercase())),
            UserLookup::Id(_) => Ok(None),
        },
    )
});

impl Edge<Query> for AnyUser {
    fn type_ref(&self, registry: &mut Registry) -> String {
        BY_ID.type_ref(registry)
    }

    fn arguments(&self, registry: &mut Registry) -> IndexMap<String, MetaInputValue> {
        BY_ID.arguments(registry)
    }

    fn is_nullable(&self) -> bool {
        true
    }

    fn plan<'q>(&'static self, request: FieldRequest<'q>) -> Result<Box<dyn Run<Query> + 'q>, RequestError> {
        let by_email = matches!(
            FieldArgs::<LookupArgs>::of(&request),
            Ok(FieldArgs { args: LookupArgs { lookup: UserLookup::Email(_) }, .. })
        );
        if by_email { BY_EMAIL.plan(request) } else { BY_ID.plan(request) }
    }
}

/// The slots of `_entities`: types of other subgraphs are not answered for here.
fn entities(given: &FieldArgs<'_, Representations>) -> Vec<ReferenceResult> {
    let Representations(slots) = &given.args;
    let is_foreign = |kind: &NodeKind| !is_resolved_by(*kind, given.ctx.service().subgraph);
    let slots = slots.iter().map(|slot| match slot {
        Ok(Some(Reference::Typed(kind, _))) if is_foreign(kind) => Err(unknown_type()),
        Ok(Some(Reference::UserByEmail(_))) if !given.ctx.service().subgraph.serves(Domain::Users) => {
            Err(no_key())
        }
        slot => slot.clone(),
    });
    slots.collect()
}

fn unknown_type() -> FieldError {
    FieldError::bad_input("Unknown `__typename`: this subgraph does not resolve this type.")
}

fn no_key() -> FieldError {
    FieldError::bad_input("Invalid representation: the key `id` is missing.")
}

/// The representations of `_entities`, read one by one: each is judged by itself.
pub struct Representations(Vec<ReferenceResult>);

impl Arguments for Representations {
    fn describe(_: &mut Registry) -> IndexMap<String, MetaInputValue> {
        IndexMap::new()
    }

    fn of(planner: &Planner<'_>, field: &Field) -> Result<Self, String> {
        let given = planner.argument(field, "representations");
        let representations = match given.as_deref() {
            Some(Value::List(representations)) => representations.as_slice(),
            Some(one @ Value::Object(_)) => std::slice::from_ref(one),
            _ => return Err("`representations` must be a list".to_owned()),
        };
        if representations.len() > MAX_ENTITIES {
            return Err(format!("at most {MAX_ENTITIES} representations, not {}", representations.len()));
        }
        Ok(Self(representations.iter().map(|each| reference(each).map(Some)).collect()))
    }
}

/// How many of each type a request asks for by `_entities`.
pub(crate) fn entity_counts(prepared: &Prepared) -> Vec<(&'static str, u32)> {
    let mut counts: Vec<(&'static str, u32)> = Vec::new();
    for slot in representations(prepared).into_iter().flatten() {
        let Some((kind, _)) = kind_and_id(&slot) else { continue };
        match counts.iter_mut().find(|(name, _)| *name == kind.as_str()) {
            Some((_, count)) => *count += 1,
            None => counts.push((kind.as_str(), 1)),
        }
    }
    counts
}

/// The entities that a request asks for.
pub(crate) struct AskedEntities {
    /// What names each, in the order of the request.
    pub(crate) tags: Vec<Option<Tag>>,
    /// They are of one type, and only columns of theirs are asked for: nothing that is read for one is another of them.
    pub(crate) are_independent: bool,
}

/// The entities of a request; `None` where it asks for none, or several times.
pub(crate) fn asked_entities(prepared: &Prepared) -> Option<AskedEntities> {
    let planner = prepared.planner();
    let [field]: [Selected<'_>; 1] = entity_fields(prepared).try_into().ok()?;
    let slots = Representations::of(&planner, field.field).ok()?.0;
    let mut kinds = slots.iter().filter_map(kind_and_id).map(|(kind, _)| kind);
    let first = kinds.next();
    let are_of_one_type = kinds.all(|kind| Some(kind) == first);
    let tags = slots.iter().map(|slot| match kind_and_id(slot) {
        Some((kind, Some(id))) => Some(Tag::Row(kind.as_str(), id)),
        // Whose address it is may change with any account.
        Some((kind, None)) => Some(Tag::Type(kind.as_str())),
        None => None,
    });
    let of_any_type = planner.collect(&|_| true, &field.sets);
    let are_columns = of_any_type
        .is_ok_and(|fields| fields.iter().all(|field| field.field.selection_set.node.items.is_empty()));
    Some(AskedEntities { tags: tags.collect(), are_independent: are_of_one_type && are_columns })
}

fn kind_and_id(slot: &ReferenceResult) -> Option<(NodeKind, Option<Uuid>)> {
    match slot {
        Ok(Some(Reference::Typed(kind, id))) => Some((*kind, Some(*id))),
        Ok(Some(Reference::UserByEmail(_))) => Some((NodeKind::User, None)),
        Ok(Some(Reference::Id(_)) | None) | Err(_) => None,
    }
}

/// Each `_entities` of a request.
fn entity_fields(prepared: &Prepared) -> Vec<Selected<'_>> {
    let (planner, root) = (prepared.planner(), &prepared.operation().selection_set.node);
    let fields = planner.collect(&|condition| condition == Query::object().name, &[root]).unwrap_or_default();
    fields.into_iter().filter(|field| field.name() == "_entities").collect()
}

/// The representations of each.
fn representations(prepared: &Prepared) -> Vec<Vec<ReferenceResult>> {
    let (planner, fields) = (prepared.planner(), entity_fields(prepared));
    fields.iter().filter_map(|field| Some(Representations::of(&planner, field.field).ok()?.0)).collect()
}

/// What one representation names.
fn reference(representation: &Value) -> Result<Reference, FieldError> {
    let Value::Object(fields) = representation else {
        return Err(FieldError::bad_input("Invalid representation: expected an object."));
    };
    let text = |name: &str| match fields.get(name) {
        Some(Value::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let Some(type_name) = text("__typename") else {
        return Err(FieldError::bad_input("Invalid representation: `__typename` is missing."));
    };
    let kind = NodeKind::parse(type_name).ok_or_else(unknown_type)?;
    match (text("id"), text("email")) {
        (Some(id), _) => id::parse(id)
            .map(|id| Reference::Typed(kind, id))
            .ok_or_else(|| FieldError::bad_input("Invalid id in the representation: expected a UUID.")),
        (None, Some(email)) if kind == NodeKind::User => Ok(Reference::UserByEmail(email.to_lowercase())),
        _ => Err(no_key()),
    }
}

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
    Kind, Tag,
    id::{self, ActivityLogId, FormId, FormVersionId, LocationId, SessionId, SubmissionId, UserId},
};
use uuid::Uuid;

use crate::{
    context::ContextExt as _,
    graph::{
        activity::{self, ActivityLog},
        form::{self, Form, FormVersion},
        input::id as read_id,
        location::{self, Location},
        node::{AnyNode, Reference, ReferenceResult, is_resolved_by},
        session::{self, Session},
        subgraph::Domain,
        submission::{self, Submission},
        user::{self, AllUsers, AllUsersCount, User, UserLookup, UsersArgs},
    },
    request::Prepared,
};
use engine::{
    connection::Pages,
    cost::MAX_IDS,
    edge::{Arguments, FieldArgs, NoArguments, One},
    error::{FieldError, RequestError},
    object::{Edge, Entity, FieldRequest, Object, Run},
    plan::Planner,
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
            Object::<Query>::new("Query", "Everything that can be read. What the viewer may not see is absent: null, or not in the list.")
                .fields_of(Domain::Activity)
                .edge("node", "Any object by its id. Null where it does not exist or the viewer may not see it.", AnyNode::<Query, IdArgs>::one(|_, given| {
                    let id = read_id("id", &given.args.id, id::parse)?;
                    Ok(vec![Ok(Some(Reference::Id(id)))])
                }))
                .edge("nodes", "Objects by their ids, in the same order; null in the place of what does not exist or the viewer may not see. At most 100.", AnyNode::<Query, IdsArgs>::list(nodes))
                .fields_of(Domain::Users)
                .edge("me", "The account that is asking. Null for anonymous callers.", One::<Query, NoArguments, user::ById, User>::nullable(|_| Ok(user::ById), |_, given| Ok(given.ctx.viewer().user_id())))
                .fields_of(Domain::Sessions)
                .edge("currentSession", "The session that is asking. Null for anonymous callers and for tokens without a session.", One::<Query, NoArguments, session::ById, Session>::nullable(|_| Ok(session::ById), |_, given| Ok(given.ctx.viewer().session_id())))
                .fields_of(Domain::Users)
                .edge("user", "An account by id.", One::<Query, IdArgs, user::ById, User>::nullable(|_| Ok(user::ById), |_, given| read_id("id", &given.args.id, UserId::parse).map(Some)))
                .edge("userBy", "An account by id or by e-mail.", AnyUser)
                .edge("users", "All accounts, newest first.", Pages::<Query, UsersArgs, AllUsers, AllUsersCount, User>::new(user::bind_users, |_| ()))
                .fields_of(Domain::Sessions)
                .edge("session", "A session by id.", One::<Query, IdArgs, session::ById, Session>::nullable(|_| Ok(session::ById), |_, given| read_id("id", &given.args.id, SessionId::parse).map(Some)))
                .fields_of(Domain::Forms)
                .edge("form", "A form by id.", One::<Query, IdArgs, form::ById, Form>::nullable(|_| Ok(form::ById), |_, given| read_id("id", &given.args.id, FormId::parse).map(Some)))
                .edge("formVersion", "A published version of a form by id.", One::<Query, IdArgs, form::VersionById, FormVersion>::nullable(|given| Ok(form::VersionById { scope: given.ctx.scope() }), |_, given| read_id("id", &given.args.id, FormVersionId::parse).map(Some)))
                .edge("forms", "All forms, newest first.", form::all_forms())
                .edge("submission", "A submission by id.", One::<Query, IdArgs, submission::ById, Submission>::nullable(|given| Ok(submission::ById { scope: given.ctx.scope() }), |_, given| read_id("id", &given.args.id, SubmissionId::parse).map(Some)))
                .fields_of(Domain::Locations)
                .edge("location", "A recorded position by id.", One::<Query, IdArgs, location::ById, Location>::nullable(|_| Ok(location::ById), |_, given| read_id("id", &given.args.id, LocationId::parse).map(Some)))
                .edge("latestLocations", "The newest position of each account that has one, newest first.", location::latest_locations())
                .fields_of(Domain::Activity)
                .edge("activityLog", "An entry of the activity log by id.", One::<Query, IdArgs, activity::ById, ActivityLog>::nullable(|_| Ok(activity::ById), |_, given| read_id("id", &given.args.id, ActivityLogId::parse).map(Some)))
                .edge("activityLogs", "The activity log, newest first.", activity::whole_log())
                .unlisted_edge("_entities", AnyNode::<Query, Representations>::list(|_, given| Ok(entities(given))))
                .unlisted_edge("_service", Service::new(|ctx| &ctx.service().sdl))
        });
        &OBJECT
    }
}

fn nodes(_: &Query, given: &FieldArgs<'_, IdsArgs>) -> Result<Vec<ReferenceResult>, FieldError> {
    let ids = &given.args.ids;
    if ids.len() > MAX_IDS {
        return Err(FieldError::bad_input(format!("`ids` takes at most {MAX_IDS} ids, not {}", ids.len())));
    }
    Ok(ids.iter().map(|id| read_id("ids", id, id::parse).map(|id| Some(Reference::Id(id)))).collect())
}

/// `Query.userBy`: by id or, for those who may see it, by e-mail.
struct AnyUser;

/// The edge by id and the edge by e-mail; which one runs is decided when the lookup is read.
static BY_ID: One<Query, LookupArgs, user::ById, User> = One::nullable(
    |_| Ok(user::ById),
    |_, given| match &given.args.lookup {
        UserLookup::Id(id) => read_id("id", id, UserId::parse).map(Some),
        UserLookup::Email(_) => Ok(None),
    },
);
static BY_EMAIL: One<Query, LookupArgs, user::OpenByEmail, User> = One::nullable(
    |given| Ok(user::OpenByEmail { scope: given.ctx.scope() }),
    |_, given| match &given.args.lookup {
        UserLookup::Email(email) => Ok(Some(email.to_lowercase())),
        UserLookup::Id(_) => Ok(None),
    },
);

impl Edge<Query> for AnyUser {
    fn type_ref(&self, registry: &mut Registry) -> String {
        Edge::<Query>::type_ref(&BY_ID, registry)
    }

    fn arguments(&self, registry: &mut Registry) -> IndexMap<String, MetaInputValue> {
        Edge::<Query>::arguments(&BY_ID, registry)
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
    let is_foreign = |kind: &Kind| !is_resolved_by(*kind, given.ctx.service().subgraph);
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

/// What the entities of a request depend on, in its order; `None` where it asks for none, or several times.
pub(crate) fn entity_tags(prepared: &Prepared) -> Option<Vec<Vec<String>>> {
    let [slots]: [Vec<ReferenceResult>; 1] = representations(prepared).try_into().ok()?;
    let tags = slots.iter().map(|slot| match kind_and_id(slot) {
        Some((kind, Some(id))) => vec![Tag::Row(kind.as_str(), id).to_string()],
        // Whose address it is may change with any account.
        Some((kind, None)) => vec![Tag::Type(kind.as_str()).to_string()],
        None => Vec::new(),
    });
    Some(tags.collect())
}

fn kind_and_id(slot: &ReferenceResult) -> Option<(Kind, Option<Uuid>)> {
    match slot {
        Ok(Some(Reference::Typed(kind, id))) => Some((*kind, Some(*id))),
        Ok(Some(Reference::UserByEmail(_))) => Some((Kind::User, None)),
        Ok(Some(Reference::Id(_)) | None) | Err(_) => None,
    }
}

/// The representations of each `_entities` of a request.
fn representations(prepared: &Prepared) -> Vec<Vec<ReferenceResult>> {
    let (planner, root) = (prepared.planner(), &prepared.operation().selection_set.node);
    let fields = planner.collect(&|condition| condition == Query::object().name, &[root]).unwrap_or_default();
    let entities = fields.iter().filter(|field| field.name() == "_entities");
    entities.filter_map(|field| Some(Representations::of(&planner, field.field).ok()?.0)).collect()
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
    let kind = Kind::parse(type_name).ok_or_else(unknown_type)?;
    match (text("id"), text("email")) {
        (Some(id), _) => id::parse(id)
            .map(|id| Reference::Typed(kind, id))
            .ok_or_else(|| FieldError::bad_input("Invalid id in the representation: expected a UUID.")),
        (None, Some(email)) if kind == Kind::User => Ok(Reference::UserByEmail(email.to_lowercase())),
        _ => Err(no_key()),
    }
}

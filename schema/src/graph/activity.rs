//! The activity log as clients see it. Not here: SQL (`entities::activity`), writing entries (with the mutations).

use std::sync::{Arc, LazyLock};

use async_graphql::InputObject;
use entities::{
    NodeKind,
    activity::{self, Filter, KEYSET, Model},
    database::{page::Keyset, scope::Scope},
    id::ActivityLogId,
};

use crate::{
    context::ContextExt as _,
    graph::{
        edges::Edges as _,
        input::{TimeRangeInput, set},
        list::{Listed, Lists},
        node::{AnyNode, NODE, Reference, node_id},
        query::Query,
        subgraph::Domain,
        user::User,
    },
};
use engine::{
    connection::PageArgs,
    context::Context,
    edge::NoArguments,
    error::FieldError,
    object::{Entity, Object, Visible},
};

/// An entry that the viewer may see.
#[derive(Clone)]
pub struct ActivityLog {
    row: Arc<Model>,
}

impl Visible for ActivityLog {
    type Row = Model;

    fn visible_to(ctx: &Context, row: Arc<Model>) -> Option<Self> {
        row.is_visible_to(&ctx.scope()).then_some(Self { row })
    }
}

node_id!(ActivityLogId, ActivityLog, activity::BY_IDS);

impl ActivityLog {
    /// What it was done to. The stored type says where to look, so no probe is needed.
    fn subject(&self) -> Option<Reference> {
        let kind = NodeKind::parse(self.row.subject_type.as_deref()?)?;
        self.row.subject_id.map(|id| Reference::Typed(kind, id))
    }
}

impl Entity for ActivityLog {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<ActivityLog>> = LazyLock::new(|| {
            Object::<ActivityLog>::new("ActivityLog", "An entry of the activity log: who did what, and when.")
                .of(Domain::Activity)
                .implements(NODE)
                .key("id")
                .column("id", "A lower-case UUID, the same in every subgraph.", |entry| &entry.row.id)
                .maybe("user", "Who did it. Null for the system and for removed accounts.", |entry| {
                    entry.row.user_id
                })
                .column(
                    "actionType",
                    "A dotted verb such as `form.publish`. New verbs may be added.",
                    |entry| &entry.row.action_type,
                )
                .edge(
                    "subject",
                    "What it was done to. Null where it is gone or the viewer may not see it.",
                    AnyNode::<ActivityLog, NoArguments>::one(|entry, _| Ok(vec![Ok(entry.subject())])),
                )
                .column("metadata", "Details. Never secrets, never answers.", |entry| &entry.row.metadata)
                .column("createdAt", "When it was done.", |entry| &entry.row.created_at)
        });
        &OBJECT
    }
}

/// Which entries a list has.
#[derive(InputObject, Default)]
pub struct ActivityLogFilter {
    /// Any of these verbs.
    action_types: Option<Vec<String>>,
    /// Done in this time.
    created_at: Option<TimeRangeInput>,
}

impl ActivityLogFilter {
    fn read(&self) -> Result<Filter, FieldError> {
        let created_at = TimeRangeInput::read(self.created_at.as_ref())?;
        Ok(Filter { action_types: self.action_types.clone().map(set), created_at })
    }
}

/// The arguments of lists of entries.
#[derive(InputObject)]
pub struct ActivityArgs {
    #[graphql(flatten)]
    page: PageArgs,
    /// Which entries.
    filter: Option<ActivityLogFilter>,
}

impl Lists for ActivityArgs {
    type Object = ActivityLog;
    type Filter = Filter;

    fn page(&self) -> &PageArgs {
        &self.page
    }

    fn filter(&self, _: &Context) -> Result<Filter, FieldError> {
        Ok(self.filter.as_ref().map(ActivityLogFilter::read).transpose()?.unwrap_or_default())
    }

    fn order(&self) -> &'static Keyset<Model> {
        &KEYSET
    }
}

/// `User.activity`
pub(crate) static OF_USERS: Listed<User, ActivityArgs> =
    Listed::of(&activity::OF_USERS, |user: &User| user.id().into()).reaching(Scope::of_administrators);

/// `Query.activityLogs`
pub(crate) static ALL: Listed<Query, ActivityArgs> =
    Listed::whole(&activity::ALL).reaching(Scope::of_administrators);

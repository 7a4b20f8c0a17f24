//! The activity log as clients see it. Not here: SQL (`entities::activity`), writing entries (with the mutations).

use std::{
    marker::PhantomData,
    sync::{Arc, LazyLock},
};

use async_graphql::InputObject;
use entities::{
    Kind,
    activity::{self, Filter, KEYSET, Model},
    database::{
        page::{ListKey, Page, Window},
        scope::Scope,
    },
    id::{ActivityLogId, UserId},
};

use crate::{
    context::{ContextExt as _, Database},
    graph::{
        input::{TimeRangeInput, set},
        list::{ListArgs as _, WindowArgs as _, bound},
        node::{AnyNode, NODE, Reference},
        query::Query,
        subgraph::Domain,
        user::{self, User},
    },
};
use engine::{
    batch::{Loaded, Loader},
    connection::{BoundPage, MAX_ROWS, PageArgs, Pages},
    context::Context,
    edge::{FieldArgs, NoArguments, One},
    error::FieldError,
    object::{Edge, Entity, Object, Visible},
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

impl ActivityLog {
    /// What it was done to. The stored type says where to look, so no probe is needed.
    fn subject(&self) -> Option<Reference> {
        let kind = Kind::parse(self.row.subject_type.as_deref()?)?;
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
                .edge(
                    "user",
                    "Who did it. Null for the system and for removed accounts.",
                    One::<ActivityLog, NoArguments, user::ById, User>::nullable(
                        |_| Ok(user::ById),
                        |entry, _| Ok(entry.row.user_id),
                    ),
                )
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

/// Entries by id.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ById;

impl Loader for ById {
    const NAME: &'static str = "activity.by_ids";
    type Source = Database;
    type Key = ActivityLogId;
    type Value = Arc<Model>;

    async fn load(self, store: Database, keys: Arc<[ActivityLogId]>) -> Loaded<Self> {
        activity::by_ids(&store, &keys).await
    }
}

/// A page of entries: of the whole log (`Key = ()`), or of each user's.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Entries<P> {
    scope: Scope,
    filter: Filter,
    window: Window,
    parent: PhantomData<fn() -> P>,
}

/// The count of entries.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EntryCounts<P> {
    scope: Scope,
    filter: Filter,
    parent: PhantomData<fn() -> P>,
}

impl Loader for Entries<()> {
    const NAME: &'static str = "activity.page";
    type Source = Database;
    type Key = ();
    type Value = Arc<Page<Model>>;

    async fn load(self, store: Database, _: Arc<[()]>) -> Loaded<Self> {
        let page = activity::ALL.page(&store, &self.scope, &self.filter, &KEYSET, &self.window).await?;
        Ok([((), page)].into_iter().collect())
    }
}

impl Loader for EntryCounts<()> {
    const NAME: &'static str = "activity.count";
    type Source = Database;
    type Key = ();
    type Value = i64;

    async fn load(self, store: Database, _: Arc<[()]>) -> Loaded<Self> {
        Ok([((), activity::ALL.count(&store, &self.scope, &self.filter).await?)].into_iter().collect())
    }
}

impl Loader for Entries<UserId> {
    const NAME: &'static str = "activity.pages_of_users";
    type Source = Database;
    type Key = UserId;
    type Value = Arc<Page<Model>>;

    async fn load(self, store: Database, keys: Arc<[UserId]>) -> Loaded<Self> {
        activity::OF_USERS.pages(&store, &self.scope, &self.filter, &KEYSET, &self.window, &keys).await
    }
}

impl Loader for EntryCounts<UserId> {
    const NAME: &'static str = "activity.counts_of_users";
    type Source = Database;
    type Key = UserId;
    type Value = i64;

    async fn load(self, store: Database, keys: Arc<[UserId]>) -> Loaded<Self> {
        activity::OF_USERS.counts(&store, &self.scope, &self.filter, &keys).await
    }
}

fn bind<P>(
    given: &FieldArgs<'_, ActivityArgs>,
) -> Result<BoundPage<Entries<P>, EntryCounts<P>, Model>, FieldError>
where
    Entries<P>: Loader<Key: ListKey, Value = Arc<Page<Model>>>,
{
    let ActivityArgs { page, filter } = &given.args;
    let (scope, parent) = (given.ctx.scope(), PhantomData);
    let filter = filter.as_ref().map(ActivityLogFilter::read).transpose()?.unwrap_or_default();
    let mut cursors = given.list(&filter);
    let window = page.window(&KEYSET, &mut cursors, MAX_ROWS)?;
    let counts = EntryCounts { scope, filter: filter.clone(), parent };
    Ok(bound(Entries { scope, filter, window, parent }, counts, &KEYSET, cursors))
}

/// `User.activity`
pub(crate) fn activity_of_user() -> impl Edge<User> {
    Pages::<User, ActivityArgs, Entries<UserId>, EntryCounts<UserId>, ActivityLog>::new(bind, User::id)
}

/// `Query.activityLogs`
pub(crate) fn whole_log() -> impl Edge<Query> {
    Pages::<Query, ActivityArgs, Entries<()>, EntryCounts<()>, ActivityLog>::new(bind, |_| ())
}

//! Submissions as clients see them. Handing them in is in `submission/mutation.rs`. Not here: SQL and the
//! checks of answers (`entities::submission`).

use std::sync::{Arc, LazyLock};

use async_graphql::{ID, InputObject};
use entities::{
    database::{
        page::{Page, Window},
        scope::Scope,
    },
    events::ChangeEvent,
    id::{FormId, SubmissionId},
    store::list::List,
    submission::{self, Filter, KEYSET, Model},
};
use uuid::Uuid;

pub(crate) mod mutation;

use crate::{
    context::{ContextExt as _, Database},
    graph::{
        form::{self, Form, FormVersion},
        input::{TimeRangeInput, id, ids, set},
        list::{ListArgs as _, WindowArgs as _, bound},
        location::{self, Location},
        node::NODE,
        session::{self, Session},
        subgraph::Domain,
        subscription::Listen,
        user::{self, User, user_ids},
    },
};
use engine::{
    batch::{Loaded, Loader},
    connection::{BoundPage, MAX_ROWS, PageArgs, Pages},
    context::Context,
    edge::{FieldArgs, NoArguments, One, Single},
    error::FieldError,
    object::{Edge, Entity, Object, Visible},
};

/// A submission that the viewer may see.
#[derive(Clone)]
pub struct Submission {
    row: Arc<Model>,
}

impl Visible for Submission {
    type Row = Model;

    /// The row does not say whose form it is: the finders of `entities::submission` are scoped.
    fn visible_to(_: &Context, row: Arc<Model>) -> Option<Self> {
        Some(Self { row })
    }
}

impl Entity for Submission {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<Submission>> = LazyLock::new(|| {
            Object::<Submission>::new("Submission", "A filled-in form.")
                .of(Domain::Forms)
                .implements(NODE)
                .key("id")
                .column("id", "A lower-case UUID, the same in every subgraph.", |submission| {
                    &submission.row.id
                })
                .edge(
                    "form",
                    "The form.",
                    One::<Submission, NoArguments, form::ById, Form>::implied(
                        |_| Ok(form::ById),
                        |submission, _| Ok(Some(submission.row.form_id)),
                    ),
                )
                .column("formVersion", "The number of the version it was filled in against.", |submission| {
                    &submission.row.form_version
                })
                .edge(
                    "version",
                    "The version it was filled in against. Whoever sees the submission sees it.",
                    One::<Submission, NoArguments, form::VersionsByNumber, FormVersion>::implied(
                        |_| Ok(form::VersionsByNumber { scope: Scope::All }),
                        |submission, _| Ok(Some((submission.row.form_id, submission.row.form_version))),
                    ),
                )
                .edge(
                    "user",
                    "Who filled it in. Null for removed accounts.",
                    One::<Submission, NoArguments, user::ById, User>::nullable(
                        |_| Ok(user::ById),
                        |submission, _| Ok(submission.row.user_id),
                    ),
                )
                .edge(
                    "session",
                    "The device it was filled in on. Null where the viewer may not see it.",
                    One::<Submission, NoArguments, session::ById, Session>::nullable(
                        |_| Ok(session::ById),
                        |submission, _| Ok(submission.row.session_id),
                    ),
                )
                .column("data", "The answers, by field key.", |submission| &submission.row.data)
                .computed(
                    "clientId",
                    "Chosen by the device: when its account sends it again, nothing changes and the stored one is returned.",
                    |submission| submission.row.client_id(),
                )
                .edge(
                    "location",
                    "Where it was filled in.",
                    One::<Submission, NoArguments, location::ById, Location>::nullable(
                        |_| Ok(location::ById),
                        |submission, _| Ok(submission.row.location_id),
                    ),
                )
                .column("createdAt", "When it was stored.", |submission| &submission.row.created_at)
        });
        &OBJECT
    }
}

/// Which submissions a list has.
#[derive(InputObject, Default)]
pub struct SubmissionFilter {
    /// To any of these forms, at most 1000.
    form_ids: Option<Vec<ID>>,
    /// By any of these accounts, at most 1000.
    user_ids: Option<Vec<ID>>,
    /// Against any of these versions of the form.
    versions: Option<Vec<i32>>,
    /// Stored in this time.
    created_at: Option<TimeRangeInput>,
}

impl SubmissionFilter {
    fn read(&self) -> Result<Filter, FieldError> {
        Ok(Filter {
            form_ids: ids("formIds", self.form_ids.as_deref(), FormId::parse)?,
            user_ids: user_ids("userIds", self.user_ids.as_deref())?,
            versions: self.versions.clone().map(set),
            created_at: TimeRangeInput::read(self.created_at.as_ref())?,
        })
    }
}

/// The arguments of lists of submissions.
#[derive(InputObject)]
pub struct SubmissionsArgs {
    #[graphql(flatten)]
    page: PageArgs,
    /// Which submissions.
    filter: Option<SubmissionFilter>,
}

/// Submissions by id.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ById {
    /// The viewer's.
    pub scope: Scope,
}

impl Loader for ById {
    const NAME: &'static str = "submission.by_ids";
    type Source = Database;
    type Key = SubmissionId;
    type Value = Arc<Model>;

    async fn load(self, store: Database, keys: Arc<[SubmissionId]>) -> Loaded<Self> {
        submission::by_ids(&store, &self.scope, &keys).await
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct PagesOf {
    list: Submissions,
    window: Window,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct CountsOf {
    list: Submissions,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Submissions {
    of: &'static List<Model, Filter>,
    scope: Scope,
    filter: Filter,
}

impl Loader for PagesOf {
    const NAME: &'static str = "submission.pages_of";
    const SHARED: bool = true;
    type Source = Database;
    type Key = Uuid;
    type Value = Arc<Page<Model>>;

    async fn load(self, store: Database, keys: Arc<[Uuid]>) -> Loaded<Self> {
        let Submissions { of, scope, filter } = &self.list;
        of.pages(&store, scope, filter, &KEYSET, &self.window, &keys).await
    }
}

impl Loader for CountsOf {
    const NAME: &'static str = "submission.counts_of";
    const SHARED: bool = true;
    type Source = Database;
    type Key = Uuid;
    type Value = i64;

    async fn load(self, store: Database, keys: Arc<[Uuid]>) -> Loaded<Self> {
        let Submissions { of, scope, filter } = &self.list;
        of.counts(&store, scope, filter, &keys).await
    }
}

fn bind<I: Into<Uuid>>(
    of: &'static List<Model, Filter>,
    given: &FieldArgs<'_, SubmissionsArgs>,
    parents: fn(&mut Filter) -> Option<Vec<I>>,
) -> Result<BoundPage<PagesOf, CountsOf, Model>, FieldError> {
    let SubmissionsArgs { page, filter } = &given.args;
    let filter = filter.as_ref().map(SubmissionFilter::read).transpose()?.unwrap_or_default();
    let mut cursors = given.lists_of(&filter, parents);
    let window = page.window(&KEYSET, &mut cursors, MAX_ROWS)?;
    let list = Submissions { of, scope: given.ctx.scope(), filter };
    let (counts, pages) = (CountsOf { list: list.clone() }, PagesOf { list, window });
    Ok(bound(pages, counts, &KEYSET, cursors))
}

/// `Form.submissions`
pub(crate) fn submissions_of_form() -> impl Edge<Form> {
    Pages::<Form, SubmissionsArgs, PagesOf, CountsOf, Submission>::new(
        |given| bind(&submission::OF_FORMS, given, |filter| filter.form_ids.take()),
        |form| form.id().0,
    )
}

/// `User.submissions`
pub(crate) fn submissions_of_user() -> impl Edge<User> {
    Pages::<User, SubmissionsArgs, PagesOf, CountsOf, Submission>::new(
        |given| bind(&submission::OF_USERS, given, |filter| filter.user_ids.take()),
        |user| user.id().0,
    )
}

/// `Form.submissionCount`
pub(crate) fn count_of_form() -> impl Edge<Form> {
    Single::<Form, CountsOf, i64>::new(
        |ctx| {
            let list =
                Submissions { of: &submission::OF_FORMS, scope: ctx.scope(), filter: Filter::default() };
            CountsOf { list }
        },
        |form| Some(form.id().0),
        Option::unwrap_or_default,
    )
}

/// The argument of `Subscription.submissionChanged`.
#[derive(InputObject)]
pub struct ChangedArgs {
    /// The form.
    form_id: ID,
}

/// `Subscription.submissionChanged`
pub(crate) fn changed() -> Listen<ChangedArgs, FormId, ById, Submission> {
    Listen {
        bind: |args, _| id("formId", &args.form_id, FormId::parse),
        key: |wanted, change| match *change {
            ChangeEvent::Submission { id, form, .. } if form == *wanted => Some(id),
            _ => None,
        },
        load: |ctx| ById { scope: ctx.scope() },
        wants: |_, _, _| true,
    }
}

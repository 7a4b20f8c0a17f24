//! Submissions as clients see them. Handing them in is in `submission/mutation.rs`. Not here: SQL and the
//! checks of answers (`entities::submission`).

use std::sync::{Arc, LazyLock};

use async_graphql::{ID, InputObject};
use entities::{
    database::{page::Keyset, scope::Scope},
    events::ChangeEvent,
    form::version::BY_NUMBERS,
    id::{FormId, SubmissionId},
    submission::{self, Filter, KEYSET, Model},
};

pub(crate) mod mutation;

use crate::graph::{
    edges::{self, Edges as _, FindLoader},
    form::{Form, FormVersion},
    input::{TimeRangeInput, id, ids, set},
    list::{Listed, Lists, uuids},
    node::{NODE, node_id},
    subgraph::Domain,
    subscription::Listen,
    user::{User, user_ids},
};
use engine::{
    connection::PageArgs,
    context::Context,
    edge::{NoArguments, One},
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

node_id!(SubmissionId, Submission, submission::BY_IDS);

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
                .implied("form", "The form.", |submission| submission.row.form_id)
                .column("formVersion", "The number of the version it was filled in against.", |submission| {
                    &submission.row.form_version
                })
                .edge(
                    "version",
                    "The version it was filled in against. Whoever sees the submission sees it.",
                    version_of_submission(),
                )
                .maybe("user", "Who filled it in. Null for removed accounts.", |submission| {
                    submission.row.user_id
                })
                .maybe(
                    "session",
                    "The device it was filled in on. Null where the viewer may not see it.",
                    |submission| submission.row.session_id,
                )
                .column("data", "The answers, by field key.", |submission| &submission.row.data)
                .computed(
                    "clientId",
                    "Chosen by the device: when its account sends it again, nothing changes and the stored \
                     one is returned.",
                    |submission| submission.row.client_id(),
                )
                .maybe("location", "Where it was filled in.", |submission| submission.row.location_id)
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

impl Lists for SubmissionsArgs {
    type Object = Submission;
    type Filter = Filter;

    fn page(&self) -> &PageArgs {
        &self.page
    }

    fn filter(&self, _: &Context) -> Result<Filter, FieldError> {
        Ok(self.filter.as_ref().map(SubmissionFilter::read).transpose()?.unwrap_or_default())
    }

    fn order(&self) -> &'static Keyset<Model> {
        &KEYSET
    }
}

/// `Form.submissions`
pub(crate) static OF_FORMS: Listed<Form, SubmissionsArgs> =
    Listed::of(&submission::OF_FORMS, |form: &Form| form.id().into())
        .naming(|filter: &mut Filter| uuids(filter.form_ids.take()))
        .reaching(Scope::of_managers);

/// `User.submissions`
pub(crate) static OF_USERS: Listed<User, SubmissionsArgs> =
    Listed::of(&submission::OF_USERS, |user: &User| user.id().into())
        .naming(|filter: &mut Filter| uuids(filter.user_ids.take()))
        .reaching(Scope::of_managers);

/// `Submission.version`
fn version_of_submission() -> impl Edge<Submission> {
    One::<Submission, NoArguments, _, FormVersion>::implied(
        |_| Ok(FindLoader::of_all(&BY_NUMBERS)),
        |submission, _| Ok(Some((submission.row.form_id, submission.row.form_version))),
    )
}

/// The argument of `Subscription.submissionChanged`.
#[derive(InputObject)]
pub struct ChangedArgs {
    /// The form.
    form_id: ID,
}

/// `Subscription.submissionChanged`
pub(crate) fn changed() -> Listen<ChangedArgs, FormId, FindLoader<SubmissionId, Model>, Submission> {
    Listen {
        bind: |args, _| id("formId", &args.form_id, FormId::parse),
        key: |wanted, change| match *change {
            ChangeEvent::Submission { id, form, .. } if form == *wanted => Some(id),
            _ => None,
        },
        load: edges::by_id::<SubmissionId>,
        wants: |_, _, _| true,
    }
}

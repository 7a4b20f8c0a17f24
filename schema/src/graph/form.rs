//! Forms and their published versions as clients see them. The draft, the definition and its JSON Schema are large,
//! so they are loaded by themselves when asked for. Editing is in `form/mutation.rs`. Not here: SQL (`entities::form`).

use std::sync::{Arc, LazyLock};

use async_graphql::{Enum, ID, InputObject};
use entities::{
    Json,
    database::{page::Keyset, scope::Scope},
    form::{
        self, Filter, OrderField, Row,
        version::{self, KEYSET as VERSIONS},
    },
    id::{FormId, FormVersionId},
    store::row::Finder,
};

pub(crate) mod mutation;

use crate::{
    context::ContextExt as _,
    graph::{
        edges::{Edges as _, FindLoader},
        input::{OrderDirection, TimeRangeInput, search, some_of},
        list::{Listed, Lists, uuids},
        node::{NODE, node_id},
        query::Query,
        scalar::enum_leaf,
        subgraph::Domain,
        submission::{self, Submission},
        user::{User, user_ids},
    },
};
use engine::{
    connection::PageArgs,
    context::Context,
    edge::{One, Single},
    error::FieldError,
    object::{Edge, Entity, Object, Visible, VisibleFrom},
};

/// Where a form is in its life.
#[derive(Enum, Copy, Clone, Eq, PartialEq)]
#[graphql(remote = "entities::form::Status")]
pub enum FormStatus {
    /// Not yet open.
    Draft,
    /// Takes submissions.
    Open,
    /// Takes no submissions for now.
    Closed,
    /// Kept for its answers only.
    Archived,
}

enum_leaf!(entities::form::Status, FormStatus);

/// A form that the viewer may see.
#[derive(Clone)]
pub struct Form {
    row: Arc<Row>,
    /// May the viewer see the draft?
    edited: bool,
}

impl Visible for Form {
    type Row = Row;

    fn visible_to(ctx: &Context, row: Arc<Row>) -> Option<Self> {
        row.is_visible_to(&ctx.scope()).then(|| Self::of(ctx, row))
    }
}

/// A viewer who sees a submission sees its form, open or not: its columns and its owner. Draft, versions and the
/// submissions of others stay as hidden as they are.
impl VisibleFrom<Submission> for Form {
    fn visible_from(ctx: &Context, row: Arc<Row>) -> Self {
        Self::of(ctx, row)
    }
}

/// A viewer who sees a version of a form sees the form that it is of, as with a submission.
impl VisibleFrom<FormVersion> for Form {
    fn visible_from(ctx: &Context, row: Arc<Row>) -> Self {
        Self::of(ctx, row)
    }
}

node_id!(FormId, Form, form::BY_IDS);

impl Form {
    fn of(ctx: &Context, row: Arc<Row>) -> Self {
        let edited = row.is_edited_by(&ctx.scope());
        Self { row, edited }
    }

    /// Its id: the key of every edge that starts at a form.
    pub(crate) fn id(&self) -> FormId {
        self.row.id
    }
}

impl Entity for Form {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<Form>> = LazyLock::new(|| {
            Object::<Form>::new("Form", "A form: what is asked, and the answers to it.")
                .of(Domain::Forms)
                .implements(NODE)
                .key("id")
                .column("id", "A lower-case UUID, the same in every subgraph.", |form| &form.row.id)
                .column("title", "Shown to those who fill it in.", |form| &form.row.title)
                .column("description", "What it is for.", |form| &form.row.description)
                .column("status", "Where it is in its life.", |form| &form.row.status)
                .column(
                    "version",
                    "The number of the published version; 0 before the first publication.",
                    |form| &form.row.version,
                )
                .one("owner", "Who made it.", |form| form.row.owner_id)
                .column("createdAt", "When the form was made.", |form| &form.row.created_at)
                .column("updatedAt", "When the form was last changed.", |form| &form.row.updated_at)
                .column("publishedAt", "The last publication. Null before the first.", |form| {
                    &form.row.published_at
                })
                .count("submissionCount", "How many submissions the viewer may see.", &submission::OF_FORMS)
                .find::<FormVersion, _>(
                    "currentVersion",
                    "The published version: what is filled in. Null before the first publication.",
                    &version::CURRENT_OF_FORMS,
                    |form| (form.row.version > 0).then_some(form.row.id),
                )
                .page(
                    "versions",
                    "All published versions, newest first. Those who may not edit the form see the current \
                     one, while it is open, and those that they have filled in.",
                    &VERSIONS_OF_FORMS,
                )
                .edge(
                    "versionByNumber",
                    "The published version of this number. Null where it does not exist or the viewer may \
                     not see it.",
                    version_by_number(),
                )
                .value(
                    "draft",
                    "The definition as it is being edited. Null without a draft, and where the viewer may \
                     not edit the form.",
                    &form::DRAFTS,
                    |form| form.edited.then_some(form.row.id),
                )
                .column(
                    "draftRevision",
                    "Grows with each save of the draft; sent back as `baseRevision`.",
                    |form| &form.row.draft_revision,
                )
                .page("submissions", "What has been filled in, newest first.", &submission::OF_FORMS)
        });
        &OBJECT
    }
}

/// A published version that the viewer may see.
#[derive(Clone)]
pub struct FormVersion {
    row: Arc<version::Row>,
}

impl Visible for FormVersion {
    type Row = version::Row;

    /// The row does not say whose form it is: the finders of `entities::form::version` are scoped.
    fn visible_to(_: &Context, row: Arc<version::Row>) -> Option<Self> {
        Some(Self { row })
    }
}

/// A viewer who sees a submission sees the version that it answers, current or not.
impl VisibleFrom<Submission> for FormVersion {
    fn visible_from(_: &Context, row: Arc<version::Row>) -> Self {
        Self { row }
    }
}

node_id!(FormVersionId, FormVersion, version::BY_IDS);

impl Entity for FormVersion {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<FormVersion>> = LazyLock::new(|| {
            Object::<FormVersion>::new("FormVersion", "A published version of a form. It never changes.")
                .of(Domain::Forms)
                .implements(NODE)
                .key("id")
                .column("id", "A lower-case UUID, the same in every subgraph.", |version| &version.row.id)
                .implied("form", "The form.", |version| version.row.form_id)
                .column("number", "1, 2, 3 and so on.", |version| &version.row.number)
                .edge("definition", "What is asked.", document(&version::DEFINITIONS))
                .column("hash", "SHA-256 over the canonical definition (RFC 8785), hexadecimal.", |version| {
                    &version.row.hash
                })
                .edge(
                    "jsonSchema",
                    "JSON Schema draft 2020-12 of a submission's `data`.",
                    document(&version::JSON_SCHEMAS),
                )
                .column("publishedAt", "When it was published.", |version| &version.row.published_at)
                .maybe("publishedBy", "By whom. Null for removed accounts.", |version| {
                    version.row.published_by
                })
        });
        &OBJECT
    }
}

fn document(documents: &'static Finder<FormVersionId, Json>) -> impl Edge<FormVersion> {
    let load = |ctx: &Context| FindLoader::of(documents, ctx);
    Single::<FormVersion, FindLoader<FormVersionId, Json>, Text>::new(
        load,
        |version| Some(version.row.id),
        Text,
    )
}

/// A document that every version has.
struct Text(Option<Arc<Json>>);

impl engine::scalar::Leaf for Text {
    fn type_ref(registry: &mut async_graphql::registry::Registry) -> String {
        Json::type_ref(registry)
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
    }
}

/// Which forms a list has.
#[derive(InputObject, Default)]
pub struct FormFilter {
    /// Part of the title, at most 10000 bytes. Case does not count.
    search: Option<String>,
    /// In any of these states.
    statuses: Option<Vec<FormStatus>>,
    /// Made by any of these accounts, at most 1000.
    owner_ids: Option<Vec<ID>>,
    /// Made in this time.
    created_at: Option<TimeRangeInput>,
}

impl FormFilter {
    fn read(&self) -> Result<Filter, FieldError> {
        Ok(Filter {
            search: search(self.search.as_deref())?,
            statuses: some_of(self.statuses.as_deref()),
            owner_ids: user_ids("ownerIds", self.owner_ids.as_deref())?,
            created_at: TimeRangeInput::read(self.created_at.as_ref())?,
        })
    }
}

/// What a list of forms is sorted by.
#[derive(Enum, Copy, Clone, Eq, PartialEq)]
pub enum FormOrderField {
    /// When the form was made.
    CreatedAt,
    /// When the form was last changed.
    UpdatedAt,
    /// The title, compared byte by byte.
    Title,
}

/// How a list of forms is sorted.
#[derive(InputObject)]
pub struct FormOrder {
    /// By what.
    field: FormOrderField,
    /// Which way.
    direction: OrderDirection,
}

/// The arguments of lists of forms.
#[derive(InputObject)]
pub struct FormsArgs {
    #[graphql(flatten)]
    page: PageArgs,
    /// Which forms.
    filter: Option<FormFilter>,
    /// How they are sorted; newest first by default.
    order_by: Option<FormOrder>,
}

impl Lists for FormsArgs {
    type Object = Form;
    type Filter = Filter;

    fn page(&self) -> &PageArgs {
        &self.page
    }

    fn filter(&self, _: &Context) -> Result<Filter, FieldError> {
        Ok(self.filter.as_ref().map(FormFilter::read).transpose()?.unwrap_or_default())
    }

    fn order(&self) -> &'static Keyset<Row> {
        self.order_by.as_ref().map_or(form::keyset(OrderField::CreatedAt, true), |order| {
            let field = match order.field {
                FormOrderField::CreatedAt => OrderField::CreatedAt,
                FormOrderField::UpdatedAt => OrderField::UpdatedAt,
                FormOrderField::Title => OrderField::Title,
            };
            form::keyset(field, order.direction == OrderDirection::Desc)
        })
    }
}

/// `Query.forms`
pub(crate) static ALL: Listed<Query, FormsArgs> = Listed::whole(&form::ALL).reaching(Scope::of_editors);

/// `User.forms`
pub(crate) static OF_OWNERS: Listed<User, FormsArgs> =
    Listed::of(&form::OF_OWNERS, |user: &User| user.id().into())
        .naming(|filter: &mut Filter| uuids(filter.owner_ids.take()))
        .reaching(Scope::of_editors);

/// The arguments of `Form.versions`.
#[derive(InputObject)]
pub struct VersionsArgs {
    #[graphql(flatten)]
    page: PageArgs,
}

impl Lists for VersionsArgs {
    type Object = FormVersion;
    type Filter = ();

    fn page(&self) -> &PageArgs {
        &self.page
    }

    fn filter(&self, _: &Context) -> Result<(), FieldError> {
        Ok(())
    }

    fn order(&self) -> &'static Keyset<version::Row> {
        &VERSIONS
    }
}

/// `Form.versions`
static VERSIONS_OF_FORMS: Listed<Form, VersionsArgs> =
    Listed::of(&version::OF_FORMS, |form: &Form| form.row.id.into());

/// The argument of `Form.versionByNumber`.
#[derive(InputObject)]
pub struct NumberArgs {
    /// 1, 2, 3 and so on.
    number: i32,
}

/// `Form.versionByNumber`
fn version_by_number() -> impl Edge<Form> {
    One::<Form, NumberArgs, _, FormVersion>::nullable(
        |given| Ok(FindLoader::of(&version::BY_NUMBERS, given.ctx)),
        |form, given| Ok(Some((form.row.id, given.args.number))),
    )
}

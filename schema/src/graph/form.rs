//! Forms and their published versions as clients see them. The draft, the definition and its JSON Schema are large,
//! so they are loaded by themselves when asked for. Editing is in `form/mutation.rs`. Not here: SQL (`entities::form`).

use std::sync::{Arc, LazyLock};

use async_graphql::{Enum, ID, InputObject};
use entities::{
    Json,
    database::{
        page::{Keyset, ListKey, Page, Window},
        scope::Scope,
    },
    form::{
        self, Filter, OrderField, Row,
        version::{self, Document, KEYSET as VERSIONS},
    },
    id::{FormId, FormVersionId, UserId},
};

pub(crate) mod mutation;

use crate::{
    context::{ContextExt as _, Database},
    graph::{
        input::{OrderDirection, TimeRangeInput, search, some_of},
        list::{ListArgs as _, WindowArgs as _, bound},
        node::NODE,
        scalar::enum_leaf,
        subgraph::Domain,
        submission::{self, Submission},
        user::{self, User, user_ids},
    },
};
use engine::{
    batch::{Loaded, Loader},
    connection::{BoundPage, MAX_ROWS, PageArgs, Pages},
    context::Context,
    edge::{FieldArgs, NoArguments, One, Single},
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
                .column("version", "The number of the published version; 0 before the first publication.", |form| &form.row.version)
                .edge("owner", "Who made it.", One::<Form, NoArguments, user::ById, User>::required(|_| Ok(user::ById), |form, _| Ok(Some(form.row.owner_id))))
                .column("createdAt", "When the form was made.", |form| &form.row.created_at)
                .column("updatedAt", "When the form was last changed.", |form| &form.row.updated_at)
                .column("publishedAt", "The last publication. Null before the first.", |form| &form.row.published_at)
                .edge("submissionCount", "How many submissions the viewer may see.", submission::count_of_form())
                .edge(
                    "currentVersion",
                    "The published version: what is filled in. Null before the first publication.",
                    One::<Form, NoArguments, CurrentVersion, FormVersion>::nullable(
                        |given| Ok(CurrentVersion { scope: given.ctx.scope() }),
                        |form, _| Ok((form.row.version > 0).then_some(form.row.id)),
                    ),
                )
                .edge("versions", "All published versions, newest first. Those who may not edit the form see the current one, while it is open, and those that they have filled in.", versions_of_form())
                .edge(
                    "versionByNumber",
                    "The published version of this number. Null where it does not exist or the viewer may not see it.",
                    One::<Form, NumberArgs, VersionsByNumber, FormVersion>::nullable(
                        |given| Ok(VersionsByNumber { scope: given.ctx.scope() }),
                        |form, given| Ok(Some((form.row.id, given.args.number))),
                    ),
                )
                .edge(
                    "draft",
                    "The definition as it is being edited. Null without a draft, and where the viewer may not edit the form.",
                    Single::<Form, Drafts, Option<Arc<Json>>, _>::new(|_| Drafts, |form| form.edited.then_some(form.row.id), |draft| draft),
                )
                .column("draftRevision", "Grows with each save of the draft; sent back as `baseRevision`.", |form| &form.row.draft_revision)
                .edge("submissions", "What has been filled in, newest first.", submission::submissions_of_form())
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

impl Entity for FormVersion {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<FormVersion>> = LazyLock::new(|| {
            Object::<FormVersion>::new("FormVersion", "A published version of a form. It never changes.")
                .of(Domain::Forms)
                .implements(NODE)
                .key("id")
                .column("id", "A lower-case UUID, the same in every subgraph.", |version| &version.row.id)
                .edge(
                    "form",
                    "The form.",
                    One::<FormVersion, NoArguments, ById, Form>::implied(
                        |_| Ok(ById),
                        |version, _| Ok(Some(version.row.form_id)),
                    ),
                )
                .column("number", "1, 2, 3 and so on.", |version| &version.row.number)
                .edge("definition", "What is asked.", document(Document::Definition))
                .column("hash", "SHA-256 over the canonical definition (RFC 8785), hexadecimal.", |version| {
                    &version.row.hash
                })
                .edge(
                    "jsonSchema",
                    "JSON Schema draft 2020-12 of a submission's `data`.",
                    document(Document::JsonSchema),
                )
                .column("publishedAt", "When it was published.", |version| &version.row.published_at)
                .edge(
                    "publishedBy",
                    "By whom. Null for removed accounts.",
                    One::<FormVersion, NoArguments, user::ById, User>::nullable(
                        |_| Ok(user::ById),
                        |version, _| Ok(version.row.published_by),
                    ),
                )
        });
        &OBJECT
    }
}

fn document(document: Document) -> impl Edge<FormVersion> {
    let bind: fn(&Context) -> VersionDocuments = match document {
        Document::Definition => |_| VersionDocuments { document: Document::Definition },
        Document::JsonSchema => |_| VersionDocuments { document: Document::JsonSchema },
    };
    Single::<FormVersion, VersionDocuments, Text>::new(bind, |version| Some(version.row.id), Text)
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

/// Forms by id.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ById;

impl Loader for ById {
    const NAME: &'static str = "form.by_ids";
    const SHARED: bool = true;
    type Source = Database;
    type Key = FormId;
    type Value = Arc<Row>;

    async fn load(self, store: Database, keys: Arc<[FormId]>) -> Loaded<Self> {
        form::by_ids(&store, &keys).await
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Drafts;

impl Loader for Drafts {
    const NAME: &'static str = "form.drafts";
    type Source = Database;
    type Key = FormId;
    type Value = Arc<Json>;

    async fn load(self, store: Database, keys: Arc<[FormId]>) -> Loaded<Self> {
        form::drafts(&store, &keys).await
    }
}

/// Versions by id.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct VersionById {
    /// The viewer's.
    pub scope: Scope,
}

impl Loader for VersionById {
    const NAME: &'static str = "form_version.by_ids";
    type Source = Database;
    type Key = FormVersionId;
    type Value = Arc<version::Row>;

    async fn load(self, store: Database, keys: Arc<[FormVersionId]>) -> Loaded<Self> {
        version::by_ids(&store, &self.scope, &keys).await
    }
}

/// Versions by form and number.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct VersionsByNumber {
    /// The viewer's; `All` for whoever holds what was filled in against them.
    pub scope: Scope,
}

impl Loader for VersionsByNumber {
    const NAME: &'static str = "form_version.by_numbers";
    const SHARED: bool = true;
    type Source = Database;
    type Key = (FormId, i32);
    type Value = Arc<version::Row>;

    async fn load(self, store: Database, keys: Arc<[(FormId, i32)]>) -> Loaded<Self> {
        version::by_numbers(&store, &self.scope, &keys).await
    }
}

/// The argument of `Form.versionByNumber`.
#[derive(InputObject)]
pub struct NumberArgs {
    /// 1, 2, 3 and so on.
    number: i32,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct CurrentVersion {
    scope: Scope,
}

impl Loader for CurrentVersion {
    const NAME: &'static str = "form_version.current_of_forms";
    type Source = Database;
    type Key = FormId;
    type Value = Arc<version::Row>;

    async fn load(self, store: Database, keys: Arc<[FormId]>) -> Loaded<Self> {
        version::current_of_forms(&store, &self.scope, &keys).await
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct VersionDocuments {
    document: Document,
}

impl Loader for VersionDocuments {
    const NAME: &'static str = "form_version.documents";
    type Source = Database;
    type Key = FormVersionId;
    type Value = Arc<Json>;

    async fn load(self, store: Database, keys: Arc<[FormVersionId]>) -> Loaded<Self> {
        version::documents(&store, self.document, &keys).await
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct VersionsOfForms {
    scope: Scope,
    window: Window,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct VersionCounts {
    scope: Scope,
}

impl Loader for VersionsOfForms {
    const NAME: &'static str = "form_version.pages_of_forms";
    type Source = Database;
    type Key = FormId;
    type Value = Arc<Page<version::Row>>;

    async fn load(self, store: Database, keys: Arc<[FormId]>) -> Loaded<Self> {
        version::OF_FORMS.pages(&store, &self.scope, &(), &VERSIONS, &self.window, &keys).await
    }
}

impl Loader for VersionCounts {
    const NAME: &'static str = "form_version.counts_of_forms";
    type Source = Database;
    type Key = FormId;
    type Value = i64;

    async fn load(self, store: Database, keys: Arc<[FormId]>) -> Loaded<Self> {
        version::OF_FORMS.counts(&store, &self.scope, &(), &keys).await
    }
}

fn versions_of_form() -> impl Edge<Form> {
    Pages::<Form, PageArgs, VersionsOfForms, VersionCounts, FormVersion>::new(
        |given| {
            let scope = given.ctx.scope();
            let mut cursors = given.list(&());
            let window = given.args.window(&VERSIONS, &mut cursors, MAX_ROWS)?;
            Ok(bound(VersionsOfForms { scope, window }, VersionCounts { scope }, &VERSIONS, cursors))
        },
        Form::id,
    )
}

/// A page of forms: of all of them (`Key = ()`), or of each owner's.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Forms<P> {
    list: FormList,
    window: Window,
    parent: std::marker::PhantomData<fn() -> P>,
}

/// The count of forms.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FormCounts<P> {
    list: FormList,
    parent: std::marker::PhantomData<fn() -> P>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct FormList {
    scope: Scope,
    filter: Filter,
    keyset: &'static Keyset<Row>,
}

impl Loader for Forms<()> {
    const NAME: &'static str = "form.page";
    const SHARED: bool = true;
    type Source = Database;
    type Key = ();
    type Value = Arc<Page<Row>>;

    async fn load(self, store: Database, _: Arc<[()]>) -> Loaded<Self> {
        let FormList { scope, filter, keyset } = &self.list;
        let page = form::ALL.page(&store, scope, filter, keyset, &self.window).await?;
        Ok([((), page)].into_iter().collect())
    }
}

impl Loader for FormCounts<()> {
    const NAME: &'static str = "form.count";
    const SHARED: bool = true;
    type Source = Database;
    type Key = ();
    type Value = i64;

    async fn load(self, store: Database, _: Arc<[()]>) -> Loaded<Self> {
        let count = form::ALL.count(&store, &self.list.scope, &self.list.filter).await?;
        Ok([((), count)].into_iter().collect())
    }
}

impl Loader for Forms<UserId> {
    const NAME: &'static str = "form.pages_of_owners";
    const SHARED: bool = true;
    type Source = Database;
    type Key = UserId;
    type Value = Arc<Page<Row>>;

    async fn load(self, store: Database, keys: Arc<[UserId]>) -> Loaded<Self> {
        let FormList { scope, filter, keyset } = &self.list;
        form::OF_OWNERS.pages(&store, scope, filter, keyset, &self.window, &keys).await
    }
}

impl Loader for FormCounts<UserId> {
    const NAME: &'static str = "form.counts_of_owners";
    const SHARED: bool = true;
    type Source = Database;
    type Key = UserId;
    type Value = i64;

    async fn load(self, store: Database, keys: Arc<[UserId]>) -> Loaded<Self> {
        form::OF_OWNERS.counts(&store, &self.list.scope, &self.list.filter, &keys).await
    }
}

fn bind_forms<P>(
    given: &FieldArgs<'_, FormsArgs>,
    parents: fn(&mut Filter) -> Option<Vec<UserId>>,
) -> Result<BoundPage<Forms<P>, FormCounts<P>, Row>, FieldError>
where
    Forms<P>: Loader<Key: ListKey, Value = Arc<Page<Row>>>,
{
    let FormsArgs { page, filter, order_by } = &given.args;
    let filter = filter.as_ref().map(FormFilter::read).transpose()?.unwrap_or_default();
    let keyset = order_by.as_ref().map_or(form::keyset(OrderField::CreatedAt, true), |order| {
        let field = match order.field {
            FormOrderField::CreatedAt => OrderField::CreatedAt,
            FormOrderField::UpdatedAt => OrderField::UpdatedAt,
            FormOrderField::Title => OrderField::Title,
        };
        form::keyset(field, order.direction == OrderDirection::Desc)
    });
    let mut cursors = given.lists_of(&filter, parents);
    let window = page.window(keyset, &mut cursors, MAX_ROWS)?;
    let list = FormList { scope: given.ctx.scope(), filter, keyset };
    let parent = std::marker::PhantomData;
    let counts = FormCounts { list: list.clone(), parent };
    Ok(bound(Forms { list, window, parent }, counts, keyset, cursors))
}

/// `User.forms`
pub(crate) fn forms_of_user() -> impl Edge<User> {
    Pages::<User, FormsArgs, Forms<UserId>, FormCounts<UserId>, Form>::new(
        |given| bind_forms(given, |filter| filter.owner_ids.take()),
        User::id,
    )
}

/// `Query.forms`
pub(crate) fn all_forms() -> impl Edge<crate::graph::query::Query> {
    Pages::<_, FormsArgs, Forms<()>, FormCounts<()>, Form>::new(|given| bind_forms(given, |_| None), |_| ())
}

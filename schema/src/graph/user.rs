//! Accounts as clients see them. `visible_to` decides who sees an account at all and whether its private columns
//! (e-mail, role, state, last sign-in) are shown. Not here: SQL (`entities::user`), signing in (`session::sign_in`).

use std::sync::{Arc, LazyLock};

use async_graphql::{Enum, ID, InputObject, OneofObject};
use entities::{
    Error, Store, Tag,
    cache::Retention,
    database::{page::Keyset, scope::Scope},
    id::UserId,
    location::LAST_OF_USERS,
    user::{self, Filter, OrderField, Row},
};

use crate::{
    context::{ContextExt as _, Database},
    graph::{
        activity,
        edges::Edges as _,
        form,
        input::{OrderDirection, TimeRangeInput, ids, search, some_of},
        list::{Listed, Lists},
        location::{self, Location},
        node::{NODE, node_id},
        query::Query,
        scalar::enum_leaf,
        session,
        subgraph::Domain,
        submission,
    },
};
use engine::{
    batch::{Loaded, Loader},
    connection::PageArgs,
    context::Context,
    error::{Code, FieldError},
    object::{Entity, Object, Visible},
};

pub(crate) mod mutation;

/// What an account may do.
#[derive(Enum, Copy, Clone, Eq, PartialEq)]
#[graphql(remote = "entities::Role")]
pub enum Role {
    /// Everything, accounts and other people's sessions included.
    Admin,
    /// All forms, submissions and locations.
    Manager,
    /// Own forms and their submissions.
    Editor,
    /// Fills in open forms, records locations.
    Collector,
    /// Reads open forms.
    Viewer,
}

enum_leaf!(entities::Role, Role);

/// An account that the viewer may see.
#[derive(Clone)]
pub struct User {
    row: Arc<Row>,
    /// Are the private columns shown?
    open: bool,
}

impl Visible for User {
    type Row = Row;

    fn visible_to(ctx: &Context, row: Arc<Row>) -> Option<Self> {
        let open = row.is_open_to(&ctx.scope());
        row.is_visible_to(&ctx.scope()).then_some(Self { row, open })
    }
}

node_id!(UserId, User, user::BY_IDS);

impl User {
    /// Its id: the key of every edge that starts at an account.
    pub(crate) fn id(&self) -> UserId {
        self.row.id
    }

    /// Are the private columns shown?
    fn is_open(&self) -> bool {
        self.open
    }
}

impl Entity for User {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<User>> = LazyLock::new(|| {
            Object::<User>::new(
                "User",
                "An account: a person who builds forms, fills them in or looks at the answers.",
            )
            .of(Domain::Users)
            .implements(NODE)
            .key("id")
            .key("email")
            .column("id", "A lower-case UUID, the same in every subgraph.", |user| &user.row.id)
            .guarded(
                "email",
                "Unique, in lower case. Null where the viewer may not see it.",
                User::is_open,
                |user| &user.row.email,
            )
            .guarded(
                "role",
                "What the account may do. Null where the viewer may not see it.",
                User::is_open,
                |user| &user.row.role,
            )
            .guarded(
                "isActive",
                "False once the account is blocked. Null where the viewer may not see it.",
                User::is_open,
                |user| &user.row.is_active,
            )
            .guarded(
                "lastLogin",
                "The last sign-in. Null before the first, and where the viewer may not see it.",
                User::is_open,
                |user| &user.row.last_login,
            )
            .column("displayName", "The name that others see.", |user| &user.row.display_name)
            .provided()
            .column("createdAt", "When the account was made.", |user| &user.row.created_at)
            .column("updatedAt", "When the account was last changed.", |user| &user.row.updated_at)
            .fields_of(Domain::Sessions)
            .page(
                "sessions",
                "The account's sessions, newest first. Empty where the viewer may not see them.",
                &session::OF_USERS,
            )
            .fields_of(Domain::Forms)
            .page("forms", "The forms that the account made, newest first.", &form::OF_OWNERS)
            .page("submissions", "What the account has filled in, newest first.", &submission::OF_USERS)
            .fields_of(Domain::Locations)
            .find::<Location, _>(
                "lastLocation",
                "The newest position by device time. \
                 Null where it does not exist or the viewer may not see it.",
                &LAST_OF_USERS,
                |user| Some(user.row.id),
            )
            .page("locations", "The account's recorded positions, newest first.", &location::OF_USERS)
            .edge(
                "track",
                "The account's positions in a stretch of time, oldest first, thinned to the points that \
                 matter most (Ramer-Douglas-Peucker).",
                location::track_of_user(),
            )
            .fields_of(Domain::Activity)
            .page(
                "activity",
                "What the account did, newest first. Empty where the viewer may not see it.",
                &activity::OF_USERS,
            )
        });
        &OBJECT
    }
}

/// Which accounts a list has. Filters on hidden columns are refused to those who may not see these.
#[derive(InputObject, Default)]
pub struct UserFilter {
    /// Part of the display name, or of the e-mail for those who may see it; at most 10000 bytes. Case does not count.
    search: Option<String>,
    /// Any of these roles.
    roles: Option<Vec<Role>>,
    /// Only active (true) or only blocked accounts (false).
    is_active: Option<bool>,
    /// Made in this time.
    created_at: Option<TimeRangeInput>,
    /// Last signed in in this time.
    last_login: Option<TimeRangeInput>,
}

impl UserFilter {
    fn read(&self) -> Result<Filter, FieldError> {
        Ok(Filter {
            search: search(self.search.as_deref())?,
            roles: some_of(self.roles.as_deref()),
            is_active: self.is_active,
            created_at: TimeRangeInput::read(self.created_at.as_ref())?,
            last_login: TimeRangeInput::read(self.last_login.as_ref())?,
        })
    }
}

/// What a list of accounts is sorted by.
#[derive(Enum, Copy, Clone, Eq, PartialEq)]
pub enum UserOrderField {
    /// When the account was made.
    CreatedAt,
    /// The last sign-in; accounts that never signed in count as 1970.
    LastLogin,
    /// The name that others see, compared byte by byte.
    DisplayName,
    /// The e-mail, compared byte by byte.
    Email,
}

/// How a list of accounts is sorted.
#[derive(InputObject)]
pub struct UserOrder {
    /// By what.
    field: UserOrderField,
    /// Which way.
    direction: OrderDirection,
}

/// Names one account: exactly one of the fields.
#[derive(OneofObject)]
pub enum UserLookup {
    /// By id.
    Id(ID),
    /// By e-mail; finds nothing for viewers who may not see the e-mail.
    Email(String),
}

/// The arguments of `Query.users`.
#[derive(InputObject)]
pub struct UsersArgs {
    #[graphql(flatten)]
    page: PageArgs,
    /// Which accounts.
    filter: Option<UserFilter>,
    /// How they are sorted; newest first by default.
    order_by: Option<UserOrder>,
}

impl Lists for UsersArgs {
    type Object = User;
    type Filter = Filter;

    fn page(&self) -> &PageArgs {
        &self.page
    }

    fn filter(&self, ctx: &Context) -> Result<Filter, FieldError> {
        let filter = self.filter.as_ref().map(UserFilter::read).transpose()?.unwrap_or_default();
        // Also where they are all the roles that there are, which is the same list as without them.
        let names_roles = self.filter.as_ref().is_some_and(|filter| filter.roles.is_some());
        let is_private = self.order_field().is_private() || names_roles || filter.reads_private_columns();
        if is_private && !ctx.scope().manages() {
            let message =
                "filtering or sorting accounts by role, state, last sign-in or e-mail is for managers";
            return Err(FieldError::new(Code::Forbidden, message));
        }
        Ok(filter)
    }

    fn order(&self) -> &'static Keyset<Row> {
        let is_descending =
            self.order_by.as_ref().is_none_or(|order| order.direction == OrderDirection::Desc);
        user::keyset(self.order_field(), is_descending)
    }
}

impl UsersArgs {
    fn order_field(&self) -> OrderField {
        self.order_by.as_ref().map_or(OrderField::CreatedAt, |order| match order.field {
            UserOrderField::CreatedAt => OrderField::CreatedAt,
            UserOrderField::LastLogin => OrderField::LastLogin,
            UserOrderField::DisplayName => OrderField::DisplayName,
            UserOrderField::Email => OrderField::Email,
        })
    }
}

/// `Query.users`
pub(crate) static ALL: Listed<Query, UsersArgs> = Listed::whole(&user::ALL).reaching(Scope::of_signed_in);

/// Accounts by e-mail, for those who may see the e-mail.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OpenByEmail {
    /// The viewer's.
    pub scope: Scope,
}

impl Loader for OpenByEmail {
    const NAME: &'static str = "user.by_emails";
    type Source = Database;
    type Key = String;
    type Value = Arc<Row>;

    async fn load(self, store: Database, keys: Arc<[String]>) -> Loaded<Self> {
        let rows = if self.scope.manages() {
            any_of_emails(&store, &keys).await?
        } else {
            // Others' e-mails are not even looked for: how long that takes would tell whether there is such an account.
            let own: Vec<UserId> = self.scope.user().into_iter().collect();
            user::by_ids(&store, &own).await?.into_values().collect()
        };
        let rows = rows.into_iter().map(|row| (row.email.clone(), row));
        Ok(rows.filter(|(email, row)| keys.contains(email) && row.is_open_to(&self.scope)).collect())
    }
}

/// Whose an e-mail was is remembered for so long. The account itself is read by its id, and says whether it still is.
const OWNER_KEPT: Retention = Retention::for_seconds(300);

/// The accounts of these e-mails, and perhaps others.
async fn any_of_emails(store: &Store, emails: &[String]) -> Result<Vec<Arc<Row>>, Error> {
    let (cache, moment) = (store.cache(), store.cache().version());
    let name = |email: &String| format!("owner of {email}");
    let tags = |id: &UserId| vec![Tag::Row("User", id.0)];
    let names: Vec<String> = emails.iter().map(name).collect();
    let owners: Vec<UserId> =
        store.get_many(&names, tags).await.into_iter().flatten().map(|id| *id).collect();
    let mut rows: Vec<Arc<Row>> = user::by_ids(store, &owners).await?.into_values().collect();
    let unknown: Vec<String> =
        emails.iter().filter(|email| rows.iter().all(|row| row.email != **email)).cloned().collect();
    if !unknown.is_empty() {
        for row in user::by_emails(store, &unknown).await?.into_values() {
            cache.set_with_tags(&name(&row.email), Arc::new(row.id), OWNER_KEPT, &tags(&row.id), moment);
            rows.push(row);
        }
    }
    Ok(rows)
}

/// Reads ids of accounts given in a filter.
pub(crate) fn user_ids(name: &str, given: Option<&[ID]>) -> Result<Option<Vec<UserId>>, FieldError> {
    ids(name, given, UserId::parse)
}

//! A fake domain for proofs and benchmarks: users, sessions and forms in memory, declared as the real ones are (same
//! rows, same kinds of edges), and once more with the library's derives (`derived`). No SQL is run. Some edges
//! fail on purpose. Compiled for tests and with the feature `bench` only.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use async_graphql::{EmptyMutation, EmptySubscription, ID, InputObject, Schema, ValidationMode, Variables};
use entities::{
    DatabaseConfig, Recorder, Store,
    auth::secret::Secret,
    database::page::{Keyset, Page, Window},
    form,
    id::{FormId, SessionId, UserId},
    session, user,
};
use futures_util::future::join_all;
use prometheus_client::registry::Registry;
use uuid::Uuid;

use crate::{
    auth::{
        access::{Access, AccessOptions},
        viewer::Viewer,
    },
    context::{Database, RequestData, ServiceInfo},
    graph::{
        input::id as read_id,
        list::{ListArgs as _, WindowArgs as _, bound},
        subgraph::Subgraph,
    },
    request::Caller,
};
use engine::{
    batch::{Batcher, Groups, Loaded, Loader, Metrics},
    bounds::{Bounds, Memory, Owner, PIECE, Taken},
    connection::{MAX_ROWS, PageArgs, Pages},
    context::Context,
    cost::OutputTypes,
    document::{Document, OnlyValidate, request_of},
    edge::{Many, NoArguments, One, Single},
    error::{FieldError, RequestError},
    execute::answer,
    federation::{gateway::ForGateways, trace::Tree},
    object::{Entity, Object, Row, Visible},
    output::{Errors, Unfinished},
    plan::Planner,
    variables::InputTypes,
};

#[expect(clippy::unused_async, reason = "the library's resolvers are async")]
pub mod derived;

/// What the keys of both engines' cursors come from.
fn secret() -> Secret {
    Secret::new("of the fake domain")
}

/// Users that have rows.
pub(crate) const USERS: usize = 50;

/// All rows; what belongs to a user stands at the user's index.
pub(crate) struct World {
    pub(crate) users: Vec<Arc<user::Row>>,
    pub(crate) sessions: Vec<Vec<Arc<session::Row>>>,
    pub(crate) forms: Vec<Vec<Arc<form::Row>>>,
}

pub(crate) static WORLD: LazyLock<World> = LazyLock::new(|| {
    // The last five own nothing.
    let all = || 0..USERS + 5;
    let count = |index: usize, least: usize| if index < USERS { least + index % 3 } else { 0 };
    World {
        users: all().map(|index| Arc::new(make_user(index))).collect(),
        sessions: all()
            .map(|user| (0..count(user, 5)).map(|index| Arc::new(make_session(user, index))).collect())
            .collect(),
        forms: all()
            .map(|user| (0..count(user, 3)).map(|index| Arc::new(make_form(user, index))).collect())
            .collect(),
    }
});

fn time(seconds: usize) -> entities::clock::Time {
    entities::clock::Time::from_timestamp_micros(1_790_000_000_123_456 - seconds as i64 * 1_000_000)
        .expect("a time in 2026")
}

fn make_user(index: usize) -> user::Row {
    user::Row {
        id: user_id(index),
        email: format!("user.{index}@example.org"),
        display_name: format!("User \"{index}\" with ünusual signs"),
        role: entities::Role::Editor,
        is_active: index.is_multiple_of(2),
        created_at: time(index),
        updated_at: time(index * 2),
        last_login: index.is_multiple_of(3).then(|| time(index * 3)),
    }
}

fn make_session(user: usize, index: usize) -> session::Row {
    session::Row {
        id: SessionId(Uuid::from_u128((user * 100 + index + 1_000_000) as u128)),
        user_id: user_id(user),
        is_active: index.is_multiple_of(2),
        name: index.is_multiple_of(3).then(|| format!("Phone {index}")),
        ip_address: Some(format!("198.51.100.{user}")),
        user_agent: Some("Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) AppleWebKit/605".to_owned()),
        created_at: time(index),
        last_activity: time(index + 7),
        expires_at: time(index + 9),
        revoked_at: None,
        end_reason: None,
    }
}

fn make_form(user: usize, index: usize) -> form::Row {
    form::Row {
        id: FormId(Uuid::from_u128((user * 100 + index + 2_000_000) as u128)),
        owner_id: user_id(user),
        title: format!("Form {index} of user {user}"),
        description: index.is_multiple_of(2).then(|| "What is it for?\n".to_owned()),
        status: form::Status::Open,
        version: index as i32,
        draft_revision: 0,
        created_at: time(index),
        updated_at: time(index + 1),
        published_at: None,
    }
}

/// A row.
pub fn a_user() -> user::Row {
    make_user(0)
}

/// The id of the user of this index.
pub(crate) fn user_id(index: usize) -> UserId {
    UserId(Uuid::from_u128(index as u128 + 1))
}

/// The index of the user of this id, if there is one.
pub(crate) fn index_of(id: UserId) -> Option<usize> {
    let index = usize::try_from(id.0.as_u128().checked_sub(1)?).ok()?;
    (index < WORLD.users.len()).then_some(index)
}

// What both declarations share: the order, the page, and what goes wrong.

pub(crate) fn users_keyset() -> &'static Keyset<user::Row> {
    user::keyset(user::OrderField::CreatedAt, true)
}

pub(crate) fn forms_keyset() -> &'static Keyset<form::Row> {
    form::keyset(form::OrderField::CreatedAt, true)
}

pub(crate) fn cut<R>(rows: &[Arc<R>], keyset: &Keyset<R>, window: &Window) -> Page<R> {
    let place = |position| rows.iter().position(|row| keyset.position(row) == position);
    let start = window.after.clone().and_then(place).map_or(0, |index| index + 1);
    let end = window.before.clone().and_then(place).unwrap_or(rows.len()).max(start);
    let length = (end - start).min(window.limit as usize);
    let (start, end) = if window.backward { (end - length, end) } else { (start, start + length) };
    Page { rows: rows[start..end].to_vec(), has_next: end < rows.len(), has_previous: start > 0 }
}

/// A nullable edge that fails for some.
pub(crate) fn mentor_of(index: usize) -> Result<Option<UserId>, FieldError> {
    match index % 8 {
        3 => Err(FieldError::bad_input(format!("user {index} lost the mentor"))),
        1 | 6 => Ok(None),
        _ => Ok(Some(user_id((index * 7 + 1) % USERS))),
    }
}

/// A required edge that fails for some, and is missing for some.
pub(crate) fn deputy_of(index: usize) -> Result<Option<UserId>, FieldError> {
    match index % 11 {
        2 => Err(FieldError::bad_input(format!("user {index} lost the deputy"))),
        5 => Ok(None),
        _ => Ok(Some(user_id((index * 3 + 2) % USERS))),
    }
}

/// A required list that fails for some.
pub(crate) fn friends_of(index: usize) -> Result<Vec<Arc<user::Row>>, FieldError> {
    if index % 13 == 4 {
        return Err(FieldError::bad_input(format!("user {index} lost all friends")));
    }
    Ok((1..=index % 4).map(|step| Arc::clone(&WORLD.users[(index + step) % USERS])).collect())
}

pub(crate) fn initial_of(row: &user::Row) -> String {
    row.display_name.chars().take(1).collect()
}

pub(crate) fn submissions_of(id: FormId) -> i64 {
    (id.0.as_u128() % 17) as i64
}

// Loaders.

/// Declares a loader that needs no arguments but its fields, and reads memory.
macro_rules! loader {
    ($name:ident, $text:literal, $key:ty => $value:ty, |$this:ident, $one:ident| $load:expr) => {
        #[derive(Clone, PartialEq, Eq, Hash)]
        struct $name;
        loader!(@impl $name, $text, $key => $value, |$this, $one| $load);
    };
    (@impl $name:ident, $text:literal, $key:ty => $value:ty, |$this:ident, $one:ident| $load:expr) => {
        impl Loader for $name {
            const NAME: &'static str = $text;
            type Source = Database;
            type Key = $key;
            type Value = $value;

            async fn load(self, _: Database, keys: Arc<[$key]>) -> Loaded<Self> {
                let $this = &self;
                Ok(keys.iter().filter_map(|$one| Some((*$one, $load?))).collect())
            }
        }
    };
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct AllUsers {
    window: Window,
}
#[derive(Clone, PartialEq, Eq, Hash)]
struct Sessions {
    window: Window,
}
#[derive(Clone, PartialEq, Eq, Hash)]
struct Forms {
    window: Window,
}

loader!(@impl AllUsers, "fake.users", () => Arc<Page<user::Row>>, |this, _key| {
    Some(Arc::new(cut(&WORLD.users, users_keyset(), &this.window)))
});
loader!(@impl Sessions, "fake.sessions", UserId => Arc<Page<session::Row>>, |this, key| {
    index_of(*key).map(|index| Arc::new(cut(&WORLD.sessions[index], &session::KEYSET, &this.window)))
});
loader!(@impl Forms, "fake.forms", UserId => Arc<Page<form::Row>>, |this, key| {
    index_of(*key).map(|index| Arc::new(cut(&WORLD.forms[index], forms_keyset(), &this.window)))
});
loader!(UserCount, "fake.user_count", () => i64, |_this, _key| Some(WORLD.users.len() as i64));
loader!(SessionCounts, "fake.session_counts", UserId => i64, |_this, key| {
    index_of(*key).map(|index| WORLD.sessions[index].len() as i64)
});
loader!(FormCounts, "fake.form_counts", UserId => i64, |_this, key| {
    index_of(*key).map(|index| WORLD.forms[index].len() as i64)
});
loader!(UserById, "fake.user_by_id", UserId => Arc<user::Row>, |_this, key| {
    index_of(*key).map(|index| Arc::clone(&WORLD.users[index]))
});
loader!(Friends, "fake.friends", UserId => Arc<Vec<Arc<user::Row>>>, |_this, key| {
    index_of(*key).map(|index| Arc::new(friends_of(index).unwrap_or_default()))
});
loader!(SubmissionCounts, "fake.submission_counts", FormId => i64, |_this, key| Some(submissions_of(*key)));

#[derive(Clone, PartialEq, Eq, Hash)]
struct Broken;

impl Loader for Broken {
    const NAME: &'static str = "fake.broken";
    type Source = Database;
    type Key = FormId;
    type Value = i64;

    async fn load(self, _: Database, _: Arc<[FormId]>) -> Loaded<Self> {
        Err(entities::Error::Refused("it is broken".to_owned()))
    }
}

// The declaration.

#[derive(Clone)]
struct User {
    row: Arc<user::Row>,
    open: bool,
}

impl Visible for User {
    type Row = user::Row;

    fn visible_to(_: &Context, row: Arc<user::Row>) -> Option<Self> {
        let open = row.is_active;
        Some(Self { row, open })
    }
}

impl User {
    fn index(&self) -> usize {
        index_of(self.row.id).expect("every user stands in the world")
    }
}

macro_rules! visible {
    ($name:ident, $row:ty) => {
        #[derive(Clone)]
        struct $name {
            row: Arc<$row>,
        }

        impl Visible for $name {
            type Row = $row;

            fn visible_to(_: &Context, row: Arc<$row>) -> Option<Self> {
                Some(Self { row })
            }
        }
    };
}
visible!(Session, session::Row);
visible!(Form, form::Row);

impl Entity for User {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<User>> = LazyLock::new(|| {
            Object::<User>::new("User", "")
                .column("id", "", |user| &user.row.id)
                .guarded("email", "", |user| user.open, |user| &user.row.email)
                .column("isActive", "", |user| &user.row.is_active)
                .column("displayName", "", |user| &user.row.display_name)
                .column("createdAt", "", |user| &user.row.created_at)
                .column("lastLogin", "", |user| &user.row.last_login)
                .computed("initial", "", |user| initial_of(&user.row))
                .edge(
                    "sessions",
                    "",
                    Pages::<_, PageArgs, Sessions, SessionCounts, Session>::new(
                        |given| {
                            let (keyset, mut cursors) = (&session::KEYSET, given.list(&()));
                            let pages =
                                Sessions { window: given.args.window(keyset, &mut cursors, MAX_ROWS)? };
                            Ok(bound(pages, SessionCounts, keyset, cursors))
                        },
                        |user: &User| user.row.id,
                    ),
                )
                .edge(
                    "forms",
                    "",
                    Pages::<_, PageArgs, Forms, FormCounts, Form>::new(
                        |given| {
                            let (keyset, mut cursors) = (forms_keyset(), given.list(&()));
                            let pages = Forms { window: given.args.window(keyset, &mut cursors, MAX_ROWS)? };
                            Ok(bound(pages, FormCounts, keyset, cursors))
                        },
                        |user: &User| user.row.id,
                    ),
                )
                .edge(
                    "mentor",
                    "",
                    One::<User, NoArguments, UserById, User>::nullable(
                        |_| Ok(UserById),
                        |user, _| mentor_of(user.index()),
                    ),
                )
                .edge(
                    "deputy",
                    "",
                    One::<User, NoArguments, UserById, User>::required(
                        |_| Ok(UserById),
                        |user, _| deputy_of(user.index()),
                    ),
                )
                .edge(
                    "friends",
                    "",
                    Many::<User, NoArguments, Friends, User>::new(
                        |_| Ok(Friends),
                        |user, _| friends_of(user.index()).map(|_| Some(user.row.id)),
                        |friends, _| Ok(friends.to_vec()),
                    ),
                )
        });
        &OBJECT
    }
}

impl Entity for Session {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<Session>> = LazyLock::new(|| {
            Object::<Session>::new("Session", "")
                .column("id", "", |session| &session.row.id)
                .column("name", "", |session| &session.row.name)
                .column("ipAddress", "", |session| &session.row.ip_address)
                .column("userAgent", "", |session| &session.row.user_agent)
                .column("isActive", "", |session| &session.row.is_active)
                .column("createdAt", "", |session| &session.row.created_at)
                .column("lastActivity", "", |session| &session.row.last_activity)
                .column("expiresAt", "", |session| &session.row.expires_at)
                .edge(
                    "user",
                    "",
                    One::<Session, NoArguments, UserById, User>::required(
                        |_| Ok(UserById),
                        |session, _| Ok(Some(session.row.user_id)),
                    ),
                )
        });
        &OBJECT
    }
}

impl Entity for Form {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<Form>> = LazyLock::new(|| {
            Object::<Form>::new("Form", "")
                .column("id", "", |form| &form.row.id)
                .column("title", "", |form| &form.row.title)
                .column("description", "", |form| &form.row.description)
                .column("status", "", |form| &form.row.status)
                .column("version", "", |form| &form.row.version)
                .column("createdAt", "", |form| &form.row.created_at)
                .edge(
                    "submissionCount",
                    "",
                    Single::<Form, SubmissionCounts, i64>::new(
                        |_| SubmissionCounts,
                        |form| Some(form.row.id),
                        Option::unwrap_or_default,
                    ),
                )
                .edge(
                    "broken",
                    "",
                    Single::<Form, Broken, Option<i64>>::new(|_| Broken, |form| Some(form.row.id), |it| it),
                )
                .edge(
                    "owner",
                    "",
                    One::<Form, NoArguments, UserById, User>::required(
                        |_| Ok(UserById),
                        |form, _| Ok(Some(form.row.owner_id)),
                    ),
                )
        });
        &OBJECT
    }
}

#[derive(Clone)]
struct Query;

/// One id.
#[derive(InputObject)]
struct IdArgs {
    id: ID,
}

impl Entity for Query {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<Query>> = LazyLock::new(|| {
            Object::<Query>::new("Query", "")
                .edge(
                    "users",
                    "",
                    Pages::<_, PageArgs, AllUsers, UserCount, User>::new(
                        |given| {
                            let (keyset, mut cursors) = (users_keyset(), given.list(&()));
                            let pages =
                                AllUsers { window: given.args.window(keyset, &mut cursors, MAX_ROWS)? };
                            Ok(bound(pages, UserCount, keyset, cursors))
                        },
                        |_: &Query| (),
                    ),
                )
                .edge(
                    "user",
                    "",
                    One::<Query, IdArgs, UserById, User>::nullable(
                        |_| Ok(UserById),
                        |_, given| read_id("id", &given.args.id, UserId::parse).map(Some),
                    ),
                )
        });
        &OBJECT
    }
}

/// The fake graph, both ways.
pub struct Both {
    store: Store,
    metrics: Metrics,
    validator: Schema<Row<Query>, EmptyMutation, EmptySubscription>,
    input_types: InputTypes,
    types: Arc<OutputTypes>,
    derived: Schema<derived::Query, EmptyMutation, EmptySubscription>,
}

/// A document that was read and found valid.
pub struct Parsed(Document);

impl Both {
    /// Connects to a database in memory, which nothing reads.
    pub async fn connect() -> Self {
        let config = DatabaseConfig {
            url: "sqlite::memory:".to_owned(),
            max_connections: 1,
            acquire_timeout: std::time::Duration::from_secs(5),
        };
        let mut registry = Registry::default();
        let store = Store::connect(&config, &mut registry).await.expect("SQLite opens a database in memory");
        let validator = Schema::build(Row::new(), EmptyMutation, EmptySubscription)
            .directive(Subgraph::WHOLE)
            .extension(OnlyValidate)
            .finish();
        let sdl =
            async_graphql::parser::parse_schema(validator.sdl()).expect("the library reads what it prints");
        let (input_types, types) = (InputTypes::of(&sdl, &[]), Arc::new(OutputTypes::of(&sdl)));
        let derived = Schema::build(derived::Query, EmptyMutation, EmptySubscription)
            .validation_mode(ValidationMode::Fast)
            .finish();
        Self { store, metrics: Metrics::register(&mut registry), validator, input_types, types, derived }
    }

    /// Parses and validates; the errors' messages otherwise.
    pub async fn read(&self, text: &str, variables: &Variables) -> Result<Parsed, Vec<String>> {
        let parsed = async_graphql::parser::parse_query(text).map_err(|error| vec![error.to_string()])?;
        let checked = self.validator.execute(request_of(parsed.clone(), None, variables.clone())).await;
        if checked.errors.is_empty() {
            return Ok(Parsed(Document::new(
                parsed,
                ForGateways::default(),
                &self.types,
                &crate::graph::Options::default().rules(),
            )));
        }
        Err(checked.errors.into_iter().map(|error| error.message).collect())
    }

    /// The answer by this crate's executor.
    pub async fn ours(&self, document: &Parsed, variables: Variables) -> Vec<u8> {
        self.ours_in_pieces(document, variables, PIECE, false).await.0
    }

    /// The answer by this crate's executor, written `piece` bytes at a time; with its trace, where that is wanted.
    pub async fn ours_in_pieces(
        &self,
        document: &Parsed,
        variables: Variables,
        piece: usize,
        is_traced: bool,
    ) -> (Vec<u8>, Option<String>) {
        let refused = |error: RequestError| {
            let mut body = b"{\"errors\":".to_vec();
            Errors::of_request(&[error], &Arc::default()).write(&mut body);
            body.push(b'}');
            (body, None)
        };
        let document = &document.0;
        let operation = match document.operation(None) {
            Ok(operation) => &operation.parsed.node,
            Err(error) => return refused(error),
        };
        let variables = match self.input_types.coerce(&operation.variable_definitions, variables) {
            Ok(variables) => variables,
            Err(error) => return refused(error),
        };
        let recorder = Arc::new(Recorder::new(false));
        let batcher =
            Batcher::new(Database::new(&self.store, recorder), Groups::new(0), self.metrics.clone());
        let access =
            Access::new(self.store.clone(), AccessOptions { secret: secret(), ..AccessOptions::default() });
        let service = ServiceInfo { subgraph: Subgraph::WHOLE, sdl: Arc::from("") };
        let (memory, taken) = (Memory::of(usize::MAX), Taken::default());
        let bounds = Bounds { most: usize::MAX, memory, taken, owner: Owner::Many, piece };
        let data = RequestData::new(Viewer::Service, Caller::default(), access, service);
        let ctx = Context::new(data, batcher, bounds);
        let planner = Planner { fragments: &document.parsed.fragments, variables: &variables };
        let root = &operation.selection_set.node;
        let selection = match Query::object().plan(planner, &[root], &ctx) {
            Ok(selection) => selection,
            Err(error) => return refused(error),
        };
        let trace = is_traced.then(|| Box::new(Tree::new(Arc::clone(&self.types))));
        let errors = Errors::default().traced(trace);
        let Unfinished { out: mut body, mut errors, .. } =
            answer(&selection, Query, &ctx, &Arc::default(), Vec::new(), errors).await;
        body.push(b'}');
        (body, errors.trace.take().map(|trace| trace.finish(time(0), Duration::ZERO)))
    }

    /// Loads users one by one in one request, each by a future of its own; says how many were found.
    pub async fn load_one_by_one(&self, count: usize) -> usize {
        let recorder = Arc::new(Recorder::new(false));
        let batcher =
            Batcher::new(Database::new(&self.store, recorder), Groups::new(0), self.metrics.clone());
        let loads = (0..count).map(|index| batcher.load(UserById, user_id(index)));
        let outcomes = batcher.drive(join_all(loads)).await;
        outcomes.into_iter().filter(|outcome| matches!(outcome, Ok(Some(_)))).count()
    }

    /// The answer by the library.
    pub async fn theirs(&self, document: &Parsed, variables: Variables) -> Vec<u8> {
        let response = self.derived.execute(request_of(document.0.parsed.clone(), None, variables)).await;
        serde_json::to_vec(&response).expect("an answer is JSON")
    }
}

#[cfg(test)]
mod tests;

//! A domain in memory for proofs and benchmarks: users, sessions and forms, declared as those of a real graph
//! are (rows, columns, edges, pages) for the engine, and once more by async-graphql's derives (`derived`).
//! Some edges fail on purpose. Not here: the queries that both must answer alike (`main`), and what they take
//! (`benches/engine.rs`).

use std::sync::{Arc, LazyLock};

use async_graphql::{Enum, ID, InputObject, OutputType as _, registry::Registry as Types};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use engine::{
    batch::{Loaded, Loader, Source},
    connection::{BoundPage, MAX_ROWS, PageArgs, PageRows, Pages},
    context::Context,
    edge::{FieldArgs, Many, NoArguments, One, Single},
    error::{Code, FieldError},
    object::{Entity, Object, Visible},
    scalar::Leaf,
};
use uuid::Uuid;

/// Users that have rows.
pub(crate) const USERS: usize = 50;

pub(crate) struct UserRow {
    pub(crate) id: Uuid,
    pub(crate) email: String,
    pub(crate) display_name: String,
    pub(crate) is_active: bool,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) last_login: Option<DateTime<Utc>>,
}

pub(crate) struct SessionRow {
    pub(crate) id: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) is_active: bool,
    pub(crate) name: Option<String>,
    pub(crate) ip_address: Option<String>,
    pub(crate) user_agent: Option<String>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) last_activity: DateTime<Utc>,
    pub(crate) expires_at: DateTime<Utc>,
}

pub(crate) struct FormRow {
    pub(crate) id: Uuid,
    pub(crate) owner_id: Uuid,
    pub(crate) title: String,
    pub(crate) description: Option<String>,
    pub(crate) status: FormStatus,
    pub(crate) version: i32,
    pub(crate) created_at: DateTime<Utc>,
}

#[derive(Clone, Copy, Enum, PartialEq, Eq)]
pub(crate) enum FormStatus {
    Draft,
    Open,
}

impl Leaf for FormStatus {
    fn type_ref(types: &mut Types) -> String {
        Self::create_type_info(types)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(match self {
            Self::Draft => &b"\"DRAFT\""[..],
            Self::Open => b"\"OPEN\"",
        });
    }
}

/// All rows; what belongs to a user stands at the user's index.
pub(crate) struct World {
    pub(crate) users: Vec<Arc<UserRow>>,
    pub(crate) sessions: Vec<Vec<Arc<SessionRow>>>,
    pub(crate) forms: Vec<Vec<Arc<FormRow>>>,
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

fn time(seconds: usize) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_790_000_000_123_456 - seconds as i64 * 1_000_000)
        .expect("a time in 2026")
}

fn make_user(index: usize) -> UserRow {
    UserRow {
        id: user_id(index),
        email: format!("user.{index}@example.org"),
        display_name: format!("User \"{index}\" with ünusual signs"),
        is_active: index.is_multiple_of(2),
        created_at: time(index),
        last_login: index.is_multiple_of(3).then(|| time(index * 3)),
    }
}

fn make_session(user: usize, index: usize) -> SessionRow {
    SessionRow {
        id: Uuid::from_u128((user * 100 + index + 1_000_000) as u128),
        user_id: user_id(user),
        is_active: index.is_multiple_of(2),
        name: index.is_multiple_of(3).then(|| format!("Phone {index}")),
        ip_address: Some(format!("198.51.100.{user}")),
        user_agent: Some("Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) AppleWebKit/605".to_owned()),
        created_at: time(index),
        last_activity: time(index + 7),
        expires_at: time(index + 9),
    }
}

fn make_form(user: usize, index: usize) -> FormRow {
    FormRow {
        id: Uuid::from_u128((user * 100 + index + 2_000_000) as u128),
        owner_id: user_id(user),
        title: format!("Form {index} of user {user}"),
        description: index.is_multiple_of(2).then(|| "What is it for?\n".to_owned()),
        status: if index == 0 { FormStatus::Draft } else { FormStatus::Open },
        version: index as i32,
        created_at: time(index),
    }
}

/// The id of the user of this index.
pub(crate) fn user_id(index: usize) -> Uuid {
    Uuid::from_u128(index as u128 + 1)
}

/// The index of the user of this id, if there is one.
pub(crate) fn index_of(id: Uuid) -> Option<usize> {
    let index = usize::try_from(id.as_u128().checked_sub(1)?).ok()?;
    (index < WORLD.users.len()).then_some(index)
}

// What both declarations share: pages and their cursors, and what goes wrong.

/// A row of a list.
pub(crate) trait Listed {
    fn id(&self) -> Uuid;
}

macro_rules! listed {
    ($($row:ident),+) => {$(
        impl Listed for $row {
            fn id(&self) -> Uuid {
                self.id
            }
        }
    )+};
}
listed!(UserRow, SessionRow, FormRow);

/// The part of a list that is wanted: how many rows, of which end, and between which rows.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Window {
    limit: usize,
    backward: bool,
    after: Option<Place>,
    before: Option<Place>,
}

/// What a cursor says: the parent whose list it is of, and the row.
type Place = (Uuid, Uuid);

/// The cursor of a row in a list of this parent.
pub(crate) fn cursor(list: &str, parent: Uuid, row: &impl Listed) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{list} {parent} {}", row.id()))
}

fn place(list: &str, cursor: &str) -> Option<Place> {
    let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    let (parent, row) = text.strip_prefix(list)?.trim_start().split_once(' ')?;
    Some((parent.parse().ok()?, row.parse().ok()?))
}

fn bad_cursor() -> FieldError {
    FieldError::new(Code::BadCursor, "the cursor is of another list")
}

impl Window {
    pub(crate) fn of(args: &PageArgs, list: &str) -> Result<Self, FieldError> {
        let (limit, backward) = args.limit(MAX_ROWS)?;
        let read =
            |given: Option<&str>| given.map(|given| place(list, given).ok_or_else(bad_cursor)).transpose();
        let (after, before) = (read(args.after())?, read(args.before())?);
        Ok(Self { limit: limit as usize, backward, after, before })
    }

    /// Whether its cursors are of the list of this parent.
    pub(crate) fn check(&self, parent: Uuid) -> Result<(), FieldError> {
        let mut cursors = self.after.iter().chain(&self.before);
        if cursors.all(|(of, _)| *of == parent) { Ok(()) } else { Err(bad_cursor()) }
    }
}

pub(crate) struct Page<R> {
    pub(crate) rows: Vec<Arc<R>>,
    pub(crate) has_next: bool,
    pub(crate) has_previous: bool,
}

pub(crate) fn cut<R: Listed>(rows: &[Arc<R>], window: &Window) -> Page<R> {
    let at = |place: Option<Place>| place.and_then(|(_, id)| rows.iter().position(|row| row.id() == id));
    let start = at(window.after).map_or(0, |index| index + 1);
    let end = at(window.before).unwrap_or(rows.len()).max(start);
    let length = (end - start).min(window.limit);
    let (start, end) = if window.backward { (end - length, end) } else { (start, start + length) };
    Page { rows: rows[start..end].to_vec(), has_next: end < rows.len(), has_previous: start > 0 }
}

/// A nullable edge that fails for some.
pub(crate) fn mentor_of(index: usize) -> Result<Option<Uuid>, FieldError> {
    match index % 8 {
        3 => Err(FieldError::bad_input(format!("user {index} lost the mentor"))),
        1 | 6 => Ok(None),
        _ => Ok(Some(user_id((index * 7 + 1) % USERS))),
    }
}

/// A required edge that fails for some, and is missing for some.
pub(crate) fn deputy_of(index: usize) -> Result<Option<Uuid>, FieldError> {
    match index % 11 {
        2 => Err(FieldError::bad_input(format!("user {index} lost the deputy"))),
        5 => Ok(None),
        _ => Ok(Some(user_id((index * 3 + 2) % USERS))),
    }
}

/// A required list that fails for some.
pub(crate) fn friends_of(index: usize) -> Result<Vec<Arc<UserRow>>, FieldError> {
    if index % 13 == 4 {
        return Err(FieldError::bad_input(format!("user {index} lost all friends")));
    }
    Ok((1..=index % 4).map(|step| Arc::clone(&WORLD.users[(index + step) % USERS])).collect())
}

pub(crate) fn initial_of(row: &UserRow) -> String {
    row.display_name.chars().take(1).collect()
}

pub(crate) fn submissions_of(id: Uuid) -> i64 {
    (id.as_u128() % 17) as i64
}

pub(crate) fn read_id(id: &ID) -> Result<Uuid, FieldError> {
    id.parse().map_err(|_| FieldError::bad_input("Invalid id: expected a UUID."))
}

// Loaders.

/// What loaders read from; the rows are in memory.
#[derive(Clone)]
pub(crate) struct Memory;

impl Source for Memory {
    type Error = String;

    fn field_error(error: &String, _: &'static str) -> FieldError {
        FieldError::bad_input(error.clone())
    }
}

/// Declares a loader that reads memory; with `@impl` its arguments are declared beside it.
macro_rules! loader {
    ($name:ident, $text:literal, $key:ty => $value:ty, |$this:ident, $one:ident| $load:expr) => {
        #[derive(Clone, PartialEq, Eq, Hash)]
        pub(crate) struct $name;
        loader!(@impl $name, $text, $key => $value, |$this, $one| $load);
    };
    (@impl $name:ident, $text:literal, $key:ty => $value:ty, |$this:ident, $one:ident| $load:expr) => {
        impl Loader for $name {
            const NAME: &'static str = $text;
            type Source = Memory;
            type Key = $key;
            type Value = $value;

            async fn load(self, _: Memory, keys: Arc<[$key]>) -> Loaded<Self> {
                let $this = &self;
                Ok(keys.iter().filter_map(|$one| Some((*$one, $load?))).collect())
            }
        }
    };
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct AllUsers(Window);
#[derive(Clone, PartialEq, Eq, Hash)]
struct Sessions(Window);
#[derive(Clone, PartialEq, Eq, Hash)]
struct Forms(Window);

loader!(@impl AllUsers, "users", Uuid => Arc<Page<UserRow>>, |this, _key| {
    Some(Arc::new(cut(&WORLD.users, &this.0)))
});
loader!(@impl Sessions, "sessions", Uuid => Arc<Page<SessionRow>>, |this, key| {
    index_of(*key).map(|index| Arc::new(cut(&WORLD.sessions[index], &this.0)))
});
loader!(@impl Forms, "forms", Uuid => Arc<Page<FormRow>>, |this, key| {
    index_of(*key).map(|index| Arc::new(cut(&WORLD.forms[index], &this.0)))
});
loader!(UserCount, "user_count", Uuid => i64, |_this, _key| Some(WORLD.users.len() as i64));
loader!(SessionCounts, "session_counts", Uuid => i64, |_this, key| {
    index_of(*key).map(|index| WORLD.sessions[index].len() as i64)
});
loader!(FormCounts, "form_counts", Uuid => i64, |_this, key| {
    index_of(*key).map(|index| WORLD.forms[index].len() as i64)
});
loader!(UserById, "user_by_id", Uuid => Arc<UserRow>, |_this, key| {
    index_of(*key).map(|index| Arc::clone(&WORLD.users[index]))
});
loader!(Friends, "friends", Uuid => Arc<Vec<Arc<UserRow>>>, |_this, key| {
    index_of(*key).map(|index| Arc::new(friends_of(index).unwrap_or_default()))
});
loader!(SubmissionCounts, "submission_counts", Uuid => i64, |_this, key| Some(submissions_of(*key)));

#[derive(Clone, PartialEq, Eq, Hash)]
struct Broken;

impl Loader for Broken {
    const NAME: &'static str = "broken";
    type Source = Memory;
    type Key = Uuid;
    type Value = i64;

    async fn load(self, _: Memory, _: Arc<[Uuid]>) -> Loaded<Self> {
        Err("it is broken".to_owned())
    }
}

/// Binds the arguments of a page to the loaders of its list.
fn bound<P, C, R: Listed + 'static>(
    given: &FieldArgs<'_, PageArgs>,
    pages: fn(Window) -> P,
    counts: C,
) -> Result<BoundPage<P, C, R>, FieldError>
where
    P: Loader<Key = Uuid, Value = Arc<Page<R>>>,
{
    let (ty, field) = given.coordinate();
    let list = format!("{ty}.{field}");
    let window = Window::of(&given.args, &list)?;
    let asked = window.clone();
    Ok(BoundPage {
        pages: pages(window),
        counts,
        page: |page| PageRows { rows: &page.rows, has_next: page.has_next, has_previous: page.has_previous },
        cursor: Box::new(move |parent, row| cursor(&list, *parent, row)),
        check: Box::new(move |parent| asked.check(*parent)),
    })
}

// The declaration.

#[derive(Clone)]
pub(crate) struct User {
    row: Arc<UserRow>,
    open: bool,
}

impl Visible for User {
    type Row = UserRow;

    fn visible_to(_: &Context, row: Arc<UserRow>) -> Option<Self> {
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
        pub(crate) struct $name {
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
visible!(Session, SessionRow);
visible!(Form, FormRow);

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
                        |given| bound(given, Sessions, SessionCounts),
                        |user: &User| user.row.id,
                    ),
                )
                .edge(
                    "forms",
                    "",
                    Pages::<_, PageArgs, Forms, FormCounts, Form>::new(
                        |given| bound(given, Forms, FormCounts),
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
pub(crate) struct Query;

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
                        |given| bound(given, AllUsers, UserCount),
                        |_: &Query| Uuid::nil(),
                    ),
                )
                .edge(
                    "user",
                    "",
                    One::<Query, IdArgs, UserById, User>::nullable(
                        |_| Ok(UserById),
                        |_, given| read_id(&given.args.id).map(Some),
                    ),
                )
        });
        &OBJECT
    }
}

//! The types of the graph, by derive: the row read from the database is the object the client gets.
//! SQL is in `loader`. Field names are those of `xp`'s graph; what no workload asks for is left out.

use async_graphql::{
    ComplexObject, Context, Enum, Error, ID, Object, Result, Scalar, ScalarType, SimpleObject, Value,
    connection::{Connection, CursorType, Edge},
    dataloader::DataLoader,
};
use chrono::{SecondsFormat, Utc};
use sqlx::PgPool;
use uuid::Uuid;

use crate::loader::{
    self, FormPages, LastLocations, PageOf, SessionPages, SubmissionCounts, SubmissionPages, Users,
};

/// A time, in UTC with microseconds: `2026-01-02T03:04:05.123456Z`.
#[derive(Clone, Copy, Debug, sqlx::Type)]
#[sqlx(transparent)]
pub(crate) struct DateTime(chrono::DateTime<Utc>);

#[Scalar]
impl ScalarType for DateTime {
    fn parse(value: Value) -> async_graphql::InputValueResult<Self> {
        match &value {
            Value::String(text) => Ok(Self(chrono::DateTime::parse_from_rfc3339(text)?.to_utc())),
            _ => Err(async_graphql::InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

/// What an account may do.
#[derive(Clone, Copy, PartialEq, Eq, Enum, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "UPPERCASE")]
pub(crate) enum Role {
    Admin,
    Manager,
    Editor,
    Collector,
    Viewer,
}

/// Where a form is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Enum, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "UPPERCASE")]
pub(crate) enum FormStatus {
    Draft,
    Open,
    Closed,
    Archived,
}

/// An account.
#[derive(Clone, SimpleObject, sqlx::FromRow)]
#[graphql(complex)]
pub(crate) struct User {
    #[graphql(skip)]
    pub(crate) id: Uuid,
    email: String,
    role: Role,
    is_active: bool,
    last_login: Option<DateTime>,
    display_name: String,
    created_at: DateTime,
    updated_at: DateTime,
}

#[ComplexObject]
impl User {
    async fn id(&self) -> ID {
        self.id.into()
    }

    async fn sessions(&self, ctx: &Context<'_>, first: Option<i32>) -> Result<Page<Session>> {
        let key = PageOf { parent: self.id, first: page_size(first)? };
        let rows = ctx.data::<DataLoader<SessionPages>>()?.load_one(key).await?;
        Ok(page(rows.unwrap_or_default(), key.first))
    }

    async fn forms(&self, ctx: &Context<'_>, first: Option<i32>) -> Result<Page<Form>> {
        let key = PageOf { parent: self.id, first: page_size(first)? };
        let rows = ctx.data::<DataLoader<FormPages>>()?.load_one(key).await?;
        Ok(page(rows.unwrap_or_default(), key.first))
    }

    async fn last_location(&self, ctx: &Context<'_>) -> Result<Option<Location>> {
        Ok(ctx.data::<DataLoader<LastLocations>>()?.load_one(self.id).await?)
    }
}

/// A signed-in device.
#[derive(Clone, SimpleObject, sqlx::FromRow)]
#[graphql(complex)]
pub(crate) struct Session {
    #[graphql(skip)]
    id: Uuid,
    #[graphql(skip)]
    pub(crate) user_id: Uuid,
    ip_address: Option<String>,
    user_agent: Option<String>,
    name: Option<String>,
    is_active: bool,
    created_at: DateTime,
    last_activity: DateTime,
    expires_at: DateTime,
    revoked_at: Option<DateTime>,
}

#[ComplexObject]
impl Session {
    async fn id(&self) -> ID {
        self.id.into()
    }
}

/// A questionnaire.
#[derive(Clone, SimpleObject, sqlx::FromRow)]
#[graphql(complex)]
pub(crate) struct Form {
    #[graphql(skip)]
    id: Uuid,
    #[graphql(skip)]
    pub(crate) owner_id: Uuid,
    title: String,
    description: Option<String>,
    status: FormStatus,
    version: i32,
    created_at: DateTime,
    updated_at: DateTime,
    published_at: Option<DateTime>,
}

#[ComplexObject]
impl Form {
    async fn id(&self) -> ID {
        self.id.into()
    }

    async fn owner(&self, ctx: &Context<'_>) -> Result<User> {
        let owner = ctx.data::<DataLoader<Users>>()?.load_one(self.owner_id).await?;
        owner.ok_or_else(|| Error::new("the owner is gone"))
    }

    async fn submission_count(&self, ctx: &Context<'_>) -> Result<i64> {
        let count = ctx.data::<DataLoader<SubmissionCounts>>()?.load_one(self.id).await?;
        Ok(count.unwrap_or_default())
    }

    async fn submissions(&self, ctx: &Context<'_>, first: Option<i32>) -> Result<Page<Submission>> {
        let key = PageOf { parent: self.id, first: page_size(first)? };
        let rows = ctx.data::<DataLoader<SubmissionPages>>()?.load_one(key).await?;
        Ok(page(rows.unwrap_or_default(), key.first))
    }
}

/// One filled-in form.
#[derive(Clone, SimpleObject, sqlx::FromRow)]
#[graphql(complex)]
pub(crate) struct Submission {
    #[graphql(skip)]
    id: Uuid,
    #[graphql(skip)]
    pub(crate) form_id: Uuid,
    #[graphql(skip)]
    user_id: Option<Uuid>,
    form_version: i32,
    created_at: DateTime,
}

#[ComplexObject]
impl Submission {
    async fn id(&self) -> ID {
        self.id.into()
    }

    async fn user(&self, ctx: &Context<'_>) -> Result<Option<User>> {
        let Some(id) = self.user_id else { return Ok(None) };
        Ok(ctx.data::<DataLoader<Users>>()?.load_one(id).await?)
    }
}

/// A position.
#[derive(Clone, SimpleObject, sqlx::FromRow)]
#[graphql(complex)]
pub(crate) struct Location {
    #[graphql(skip)]
    id: Uuid,
    #[graphql(skip)]
    pub(crate) user_id: Uuid,
    timestamp: DateTime,
    received_at: DateTime,
    latitude: f64,
    longitude: f64,
    accuracy: Option<f64>,
    altitude: Option<f64>,
    speed: Option<f64>,
    heading: Option<f64>,
}

#[ComplexObject]
impl Location {
    async fn id(&self) -> ID {
        self.id.into()
    }
}

/// The entry points.
pub(crate) struct Query;

#[Object]
impl Query {
    async fn user(&self, ctx: &Context<'_>, id: ID) -> Result<Option<User>> {
        let Ok(id) = Uuid::try_from(id) else { return Ok(None) };
        Ok(loader::user_by_id(ctx.data::<PgPool>()?, id).await?)
    }

    async fn users(&self, ctx: &Context<'_>, first: Option<i32>) -> Result<Page<User>> {
        let first = page_size(first)?;
        Ok(page(loader::newest_users(ctx.data::<PgPool>()?, first + 1).await?, first))
    }

    async fn forms(&self, ctx: &Context<'_>, first: Option<i32>) -> Result<Page<Form>> {
        let first = page_size(first)?;
        Ok(page(loader::newest_forms(ctx.data::<PgPool>()?, first + 1).await?, first))
    }

    #[graphql(entity)]
    async fn find_user_by_id(&self, ctx: &Context<'_>, id: ID) -> Result<Option<User>> {
        let Ok(id) = Uuid::try_from(id) else { return Ok(None) };
        Ok(ctx.data::<DataLoader<Users>>()?.load_one(id).await?)
    }
}

/// A page, newest first.
type Page<T> = Connection<Cursor, T>;

/// Where a row stands in a list: what a next page would begin after.
pub(crate) struct Cursor {
    created_at: DateTime,
    id: Uuid,
}

impl CursorType for Cursor {
    type Error = &'static str;

    fn decode_cursor(text: &str) -> Result<Self, Self::Error> {
        let (time, id) = text.split_once('|').ok_or("not a cursor")?;
        let time = chrono::DateTime::parse_from_rfc3339(time).map_err(|_| "not a cursor")?;
        Ok(Self { created_at: DateTime(time.to_utc()), id: id.parse().map_err(|_| "not a cursor")? })
    }

    fn encode_cursor(&self) -> String {
        format!("{}|{}", self.created_at.0.to_rfc3339_opts(SecondsFormat::Micros, true), self.id)
    }
}

/// A row that can stand in a list.
pub(crate) trait Listed: async_graphql::OutputType {
    fn cursor(&self) -> Cursor;
}

macro_rules! listed {
    ($($row:ty),*) => {$(
        impl Listed for $row {
            fn cursor(&self) -> Cursor {
                Cursor { created_at: self.created_at, id: self.id }
            }
        }
    )*};
}
listed!(User, Session, Form, Submission);

/// Makes a page of `first` rows out of at most one more than that.
fn page<T: Listed>(mut rows: Vec<T>, first: i64) -> Page<T> {
    let wanted = usize::try_from(first).unwrap_or_default();
    let mut page = Connection::new(false, rows.len() > wanted);
    rows.truncate(wanted);
    page.edges.extend(rows.into_iter().map(|row| Edge::new(row.cursor(), row)));
    page
}

fn page_size(first: Option<i32>) -> Result<i64> {
    match first.unwrap_or(20) {
        size @ 1..=100 => Ok(size.into()),
        _ => Err(Error::new("`first` must be between 1 and 100")),
    }
}

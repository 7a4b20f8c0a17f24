//! The SQL: one statement per root list, one per level and edge below it, gathered by async-graphql's
//! `DataLoader` with its default delay of 1 ms. No type of the graph is defined here.
//!
//! The loaders live as long as one request: shared between requests they would collapse under load in this
//! release of async-graphql, and a cached row could outlive the right to see it.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use async_graphql::{
    Request,
    dataloader::{DataLoader, Loader},
    runtime::{TokioSpawner, TokioTimer},
};
use sqlx::{FromRow, PgPool, postgres::PgRow};
use uuid::Uuid;

use crate::graph::{Form, Location, Session, Submission, User};

type Failure = Arc<sqlx::Error>;

/// One account; a lone read needs no batch.
pub(crate) async fn user_by_id(pool: &PgPool, id: Uuid) -> sqlx::Result<Option<User>> {
    sqlx::query_as(
        "SELECT id, email, role, is_active, last_login, display_name, created_at, updated_at \
         FROM users WHERE id = $1",
    )
    .bind(id)
    .fetch_optional(pool)
    .await
}

/// The newest accounts.
pub(crate) async fn newest_users(pool: &PgPool, limit: i64) -> sqlx::Result<Vec<User>> {
    sqlx::query_as(
        "SELECT id, email, role, is_active, last_login, display_name, created_at, updated_at \
         FROM users ORDER BY created_at DESC, id DESC LIMIT $1",
    )
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// The newest forms.
pub(crate) async fn newest_forms(pool: &PgPool, limit: i64) -> sqlx::Result<Vec<Form>> {
    sqlx::query_as(
        "SELECT id, owner_id, title, description, status, version, created_at, updated_at, published_at \
         FROM forms ORDER BY created_at DESC, id DESC LIMIT $1",
    )
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// Gives a request its loaders.
pub(crate) fn attach(request: Request, pool: &PgPool) -> Request {
    request
        .data(batched(Users(pool.clone())))
        .data(batched(LastLocations(pool.clone())))
        .data(batched(SessionPages(pool.clone())))
        .data(batched(FormPages(pool.clone())))
        .data(batched(SubmissionPages(pool.clone())))
        .data(batched(SubmissionCounts(pool.clone())))
}

fn batched<L>(loader: L) -> DataLoader<L> {
    DataLoader::new(loader, TokioSpawner::current(), TokioTimer::default())
}

/// Accounts by id.
pub(crate) struct Users(PgPool);

impl Loader<Uuid> for Users {
    type Value = User;
    type Error = Failure;

    async fn load(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, User>, Failure> {
        let rows: Vec<User> = sqlx::query_as(
            "SELECT id, email, role, is_active, last_login, display_name, created_at, updated_at \
             FROM users WHERE id = ANY($1)",
        )
        .bind(ids)
        .fetch_all(&self.0)
        .await?;
        Ok(rows.into_iter().map(|user| (user.id, user)).collect())
    }
}

/// The newest position of each account.
pub(crate) struct LastLocations(PgPool);

impl Loader<Uuid> for LastLocations {
    type Value = Location;
    type Error = Failure;

    async fn load(&self, user_ids: &[Uuid]) -> Result<HashMap<Uuid, Location>, Failure> {
        let rows: Vec<Location> = sqlx::query_as(
            "SELECT id, user_id, \"timestamp\", received_at, latitude, longitude, accuracy, altitude, speed, \
                    heading \
             FROM user_last_locations WHERE user_id = ANY($1)",
        )
        .bind(user_ids)
        .fetch_all(&self.0)
        .await?;
        Ok(rows.into_iter().map(|location| (location.user_id, location)).collect())
    }
}

/// How many submissions each form has; a form with none is absent.
pub(crate) struct SubmissionCounts(PgPool);

impl Loader<Uuid> for SubmissionCounts {
    type Value = i64;
    type Error = Failure;

    async fn load(&self, form_ids: &[Uuid]) -> Result<HashMap<Uuid, i64>, Failure> {
        let rows: Vec<(Uuid, i64)> = sqlx::query_as(
            "SELECT form_id, count(*) FROM form_submissions WHERE form_id = ANY($1) GROUP BY form_id",
        )
        .bind(form_ids)
        .fetch_all(&self.0)
        .await?;
        Ok(rows.into_iter().collect())
    }
}

/// The first rows of one parent's list.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PageOf {
    pub(crate) parent: Uuid,
    pub(crate) first: i64,
}

/// The newest sessions of each account: `first` and one more, which tells that there is a next page.
pub(crate) struct SessionPages(PgPool);

impl Loader<PageOf> for SessionPages {
    type Value = Vec<Session>;
    type Error = Failure;

    async fn load(&self, keys: &[PageOf]) -> Result<HashMap<PageOf, Vec<Session>>, Failure> {
        const SQL: &str = "SELECT child.* FROM unnest($1::uuid[]) AS parent(id) CROSS JOIN LATERAL ( \
             SELECT id, user_id, ip_address, user_agent, name, is_active AND expires_at > now() AS is_active, \
                    created_at, last_activity, expires_at, revoked_at \
             FROM user_sessions WHERE user_id = parent.id \
             ORDER BY created_at DESC, id DESC LIMIT $2) AS child";
        pages(&self.0, SQL, keys, |session: &Session| session.user_id).await
    }
}

/// The newest forms of each account.
pub(crate) struct FormPages(PgPool);

impl Loader<PageOf> for FormPages {
    type Value = Vec<Form>;
    type Error = Failure;

    async fn load(&self, keys: &[PageOf]) -> Result<HashMap<PageOf, Vec<Form>>, Failure> {
        const SQL: &str = "SELECT child.* FROM unnest($1::uuid[]) AS parent(id) CROSS JOIN LATERAL ( \
             SELECT id, owner_id, title, description, status, version, created_at, updated_at, published_at \
             FROM forms WHERE owner_id = parent.id \
             ORDER BY created_at DESC, id DESC LIMIT $2) AS child";
        pages(&self.0, SQL, keys, |form: &Form| form.owner_id).await
    }
}

/// The newest submissions of each form.
pub(crate) struct SubmissionPages(PgPool);

impl Loader<PageOf> for SubmissionPages {
    type Value = Vec<Submission>;
    type Error = Failure;

    async fn load(&self, keys: &[PageOf]) -> Result<HashMap<PageOf, Vec<Submission>>, Failure> {
        const SQL: &str = "SELECT child.* FROM unnest($1::uuid[]) AS parent(id) CROSS JOIN LATERAL ( \
             SELECT id, form_id, user_id, form_version, created_at \
             FROM form_submissions WHERE form_id = parent.id \
             ORDER BY created_at DESC, id DESC LIMIT $2) AS child";
        pages(&self.0, SQL, keys, |submission: &Submission| submission.form_id).await
    }
}

/// Runs a page statement once for each page size among the keys, and hands the rows to their parents.
async fn pages<T>(
    pool: &PgPool,
    sql: &'static str,
    keys: &[PageOf],
    parent_of: fn(&T) -> Uuid,
) -> Result<HashMap<PageOf, Vec<T>>, Failure>
where
    T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    let mut parents_by_size: HashMap<i64, Vec<Uuid>> = HashMap::new();
    for key in keys {
        parents_by_size.entry(key.first).or_default().push(key.parent);
    }
    let mut pages: HashMap<PageOf, Vec<T>> = HashMap::with_capacity(keys.len());
    for (first, parents) in parents_by_size {
        let rows: Vec<T> = sqlx::query_as(sql).bind(parents).bind(first + 1).fetch_all(pool).await?;
        for row in rows {
            pages.entry(PageOf { parent: parent_of(&row), first }).or_default().push(row);
        }
    }
    Ok(pages)
}

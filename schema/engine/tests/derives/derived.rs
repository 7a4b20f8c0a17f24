//! The domain declared by async-graphql's derives: one resolver a field, straight from memory. What it
//! answers is what the engine has to answer, so nullable edges are `Option<Result<T>>` (the library nulls the
//! parent otherwise).

#![expect(clippy::unused_async, reason = "the library's resolvers are async")]

use std::sync::Arc;

use async_graphql::{Error, ID, Object};
use engine::{connection::PageArgs, error::FieldError, scalar::DateTime};
use uuid::Uuid;

use crate::domain::{
    FormRow, FormStatus, Listed, Page, SessionRow, UserRow, WORLD, Window, cursor, cut, deputy_of,
    friends_of, index_of, initial_of, mentor_of, read_id, submissions_of,
};

fn into_library(error: FieldError) -> Error {
    Error::new(error.message)
}

fn page<R: Listed>(
    rows: &[Arc<R>],
    list: &'static str,
    parent: Uuid,
    args: &PageArgs,
) -> Result<PageOf<R>, Error> {
    let window = Window::of(args, list).map_err(into_library)?;
    window.check(parent).map_err(into_library)?;
    Ok(PageOf { page: cut(rows, &window), list, parent, total: rows.len() })
}

struct PageOf<R> {
    page: Page<R>,
    list: &'static str,
    parent: Uuid,
    total: usize,
}

impl<R: Listed> PageOf<R> {
    fn cursor(&self, row: &R) -> String {
        cursor(self.list, self.parent, row)
    }
}

struct PageInfo {
    has_next: bool,
    has_previous: bool,
    start: Option<String>,
    end: Option<String>,
}

#[Object]
impl PageInfo {
    async fn has_next_page(&self) -> bool {
        self.has_next
    }

    async fn has_previous_page(&self) -> bool {
        self.has_previous
    }

    async fn start_cursor(&self) -> Option<&str> {
        self.start.as_deref()
    }

    async fn end_cursor(&self) -> Option<&str> {
        self.end.as_deref()
    }
}

macro_rules! connection {
    ($connection:ident, $edge:ident, $node:ident, $row:ty) => {
        struct $connection(PageOf<$row>);

        #[Object]
        impl $connection {
            async fn nodes(&self) -> Vec<$node> {
                self.0.page.rows.iter().map(|row| $node(Arc::clone(row))).collect()
            }

            async fn edges(&self) -> Vec<$edge> {
                let rows = self.0.page.rows.iter();
                rows.map(|row| $edge { cursor: self.0.cursor(row), node: Arc::clone(row) }).collect()
            }

            async fn page_info(&self) -> PageInfo {
                let Page { rows, has_next, has_previous } = &self.0.page;
                PageInfo {
                    has_next: *has_next,
                    has_previous: *has_previous,
                    start: rows.first().map(|row| self.0.cursor(row)),
                    end: rows.last().map(|row| self.0.cursor(row)),
                }
            }

            async fn total_count(&self) -> i32 {
                self.0.total as i32
            }
        }

        struct $edge {
            cursor: String,
            node: Arc<$row>,
        }

        #[Object]
        impl $edge {
            async fn cursor(&self) -> &str {
                &self.cursor
            }

            async fn node(&self) -> $node {
                $node(Arc::clone(&self.node))
            }
        }
    };
}
connection!(UserConnection, UserEdge, User, UserRow);
connection!(SessionConnection, SessionEdge, Session, SessionRow);
connection!(FormConnection, FormEdge, Form, FormRow);

struct User(Arc<UserRow>);

impl User {
    fn index(&self) -> usize {
        index_of(self.0.id).expect("every user stands in the world")
    }

    fn of(id: Uuid) -> Self {
        Self(Arc::clone(&WORLD.users[index_of(id).expect("every user stands in the world")]))
    }
}

#[Object]
impl User {
    async fn id(&self) -> ID {
        ID(self.0.id.to_string())
    }

    async fn email(&self) -> Option<&str> {
        self.0.is_active.then_some(&self.0.email)
    }

    async fn is_active(&self) -> bool {
        self.0.is_active
    }

    async fn display_name(&self) -> &str {
        &self.0.display_name
    }

    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    async fn last_login(&self) -> Option<DateTime> {
        self.0.last_login.map(DateTime)
    }

    async fn initial(&self) -> String {
        initial_of(&self.0)
    }

    async fn sessions(
        &self,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
    ) -> Result<SessionConnection, Error> {
        let rows = &WORLD.sessions[self.index()];
        page(rows, "User.sessions", self.0.id, &PageArgs::of(first, after, last, before))
            .map(SessionConnection)
    }

    async fn forms(
        &self,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
    ) -> Result<FormConnection, Error> {
        let rows = &WORLD.forms[self.index()];
        page(rows, "User.forms", self.0.id, &PageArgs::of(first, after, last, before)).map(FormConnection)
    }

    async fn mentor(&self) -> Option<Result<User, Error>> {
        mentor_of(self.index()).map_err(into_library).transpose().map(|id| id.map(User::of))
    }

    async fn deputy(&self) -> Result<User, Error> {
        let id = deputy_of(self.index()).and_then(|id| id.ok_or(FieldError::internal()));
        id.map(User::of).map_err(into_library)
    }

    async fn friends(&self) -> Result<Vec<User>, Error> {
        let friends = friends_of(self.index()).map_err(into_library)?;
        Ok(friends.into_iter().map(User).collect())
    }
}

struct Session(Arc<SessionRow>);

#[Object]
impl Session {
    async fn id(&self) -> ID {
        ID(self.0.id.to_string())
    }

    async fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    async fn ip_address(&self) -> Option<&str> {
        self.0.ip_address.as_deref()
    }

    async fn user_agent(&self) -> Option<&str> {
        self.0.user_agent.as_deref()
    }

    async fn is_active(&self) -> bool {
        self.0.is_active
    }

    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    async fn last_activity(&self) -> DateTime {
        DateTime(self.0.last_activity)
    }

    async fn expires_at(&self) -> DateTime {
        DateTime(self.0.expires_at)
    }

    async fn user(&self) -> User {
        User::of(self.0.user_id)
    }
}

struct Form(Arc<FormRow>);

#[Object]
impl Form {
    async fn id(&self) -> ID {
        ID(self.0.id.to_string())
    }

    async fn title(&self) -> &str {
        &self.0.title
    }

    async fn description(&self) -> Option<&str> {
        self.0.description.as_deref()
    }

    async fn status(&self) -> FormStatus {
        self.0.status
    }

    async fn version(&self) -> i32 {
        self.0.version
    }

    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    async fn submission_count(&self) -> i32 {
        submissions_of(self.0.id) as i32
    }

    async fn broken(&self) -> Option<Result<i32, Error>> {
        Some(Err(Error::new("it is broken")))
    }

    async fn owner(&self) -> User {
        User::of(self.0.owner_id)
    }
}

/// The root.
pub(crate) struct Query;

#[Object]
impl Query {
    async fn users(
        &self,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
    ) -> Result<UserConnection, Error> {
        page(&WORLD.users, "Query.users", Uuid::nil(), &PageArgs::of(first, after, last, before))
            .map(UserConnection)
    }

    async fn user(&self, id: ID) -> Option<Result<User, Error>> {
        read_id(&id).map(|id| index_of(id).map(|_| User::of(id))).map_err(into_library).transpose()
    }
}

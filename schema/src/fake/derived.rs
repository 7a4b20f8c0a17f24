//! The fake domain in the library's own words: derives, one resolver a field, straight from memory. This is the
//! judge of the differential test, so nullable edges are `Option<Result<T>>` (the library nulls the parent
//! otherwise).

use std::sync::Arc;

use async_graphql::{Error, ID, Object};
use entities::{
    database::page::{CursorScope, Keyset, Page},
    form,
    id::UserId,
    session, user,
};
use uuid::Uuid;

use super::{
    WORLD, cut, deputy_of, forms_keyset, friends_of, index_of, initial_of, mentor_of, secret, submissions_of,
    users_keyset,
};
use crate::graph::{
    form::FormStatus,
    list::{WindowArgs as _, bad_cursor},
};
use engine::{
    connection::{MAX_ROWS, PageArgs},
    error::FieldError,
    scalar::DateTime,
};

fn into_library(error: FieldError) -> Error {
    Error::new(error.message)
}

fn page<R>(
    rows: &[Arc<R>],
    keyset: &'static Keyset<R>,
    (field, parent): (&str, Uuid),
    (first, after, last, before): (Option<i32>, Option<String>, Option<i32>, Option<String>),
) -> Result<Listed<R>, Error> {
    let mut cursors = CursorScope::new(secret().cursor_key(), format!("{field} null"));
    let window = PageArgs::of(first, after, last, before).window(keyset, &mut cursors, MAX_ROWS);
    let window = window.map_err(into_library)?;
    cursors.check(keyset, parent).map_err(|error| into_library(bad_cursor(error)))?;
    let page = cut(rows, keyset, &window);
    Ok(Listed { page, keyset, cursors, parent, total: rows.len() })
}

struct Listed<R: 'static> {
    page: Page<R>,
    keyset: &'static Keyset<R>,
    cursors: CursorScope,
    parent: Uuid,
    total: usize,
}

impl<R> Listed<R> {
    fn cursor(&self, row: &R) -> String {
        self.cursors.encode(self.keyset, self.parent, &self.keyset.position(row))
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
        struct $connection(Listed<$row>);

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
connection!(UserConnection, UserEdge, User, user::Row);
connection!(SessionConnection, SessionEdge, Session, session::Row);
connection!(FormConnection, FormEdge, Form, form::Row);

struct User(Arc<user::Row>);

impl User {
    fn index(&self) -> usize {
        index_of(self.0.id).expect("every user stands in the world")
    }

    fn of(id: UserId) -> Self {
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
        page(rows, &session::KEYSET, ("User.sessions", self.0.id.0), (first, after, last, before))
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
        page(rows, forms_keyset(), ("User.forms", self.0.id.0), (first, after, last, before))
            .map(FormConnection)
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

struct Session(Arc<session::Row>);

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

struct Form(Arc<form::Row>);

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
        self.0.status.into()
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
pub struct Query;

#[Object]
impl Query {
    async fn users(
        &self,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
    ) -> Result<UserConnection, Error> {
        page(&WORLD.users, users_keyset(), ("Query.users", Uuid::nil()), (first, after, last, before))
            .map(UserConnection)
    }

    async fn user(&self, id: ID) -> Option<Result<User, Error>> {
        let id = crate::graph::input::id("id", &id, UserId::parse);
        id.map(|id| index_of(id).map(|_| User::of(id))).map_err(into_library).transpose()
    }
}

//! Lists of rows of `entities` as connections: what their cursors belong to, which part of them is wanted. Not here: which
//! rows a list has (the domains), how a page is written (`engine::connection`).

use std::sync::Arc;

use entities::database::page::{BadCursor, CursorScope, Keyset, ListKey, Page, Window};
use serde::Serialize;
use uuid::Uuid;

use crate::context::ContextExt as _;
use engine::{
    batch::Loader,
    connection::{BoundPage, PageArgs, PageRows},
    edge::{Arguments, FieldArgs},
    error::{Code, FieldError},
    scalar::write_json,
};

/// What the arguments of a list's field say of its cursors.
pub(crate) trait ListArgs {
    /// The list that cursors of this field belong to: the field, and which rows were asked for. `rows` is what the
    /// arguments mean, not how they were written: a list that is asked for in other words is the same list.
    fn list(&self, rows: &impl Serialize) -> CursorScope;

    /// The lists that cursors of this field belong to, where the filter may name parents, which `take` takes out of it:
    /// under a parent that it names, the filter without them is the same list.
    fn lists_of<F: Serialize + Clone, I: Into<Uuid>>(
        &self,
        rows: &F,
        take: impl FnOnce(&mut F) -> Option<Vec<I>>,
    ) -> CursorScope;
}

impl<A: Arguments> ListArgs for FieldArgs<'_, A> {
    fn list(&self, rows: &impl Serialize) -> CursorScope {
        CursorScope::new(self.ctx.access().options().secret.cursor_key(), name_of(self, rows))
    }

    fn lists_of<F: Serialize + Clone, I: Into<Uuid>>(
        &self,
        rows: &F,
        take: impl FnOnce(&mut F) -> Option<Vec<I>>,
    ) -> CursorScope {
        let mut rest = rows.clone();
        match take(&mut rest) {
            Some(parents) => {
                self.list(rows).within(parents.into_iter().map(Into::into).collect(), name_of(self, &rest))
            }
            None => self.list(rows),
        }
    }
}

fn name_of<A: Arguments>(given: &FieldArgs<'_, A>, rows: &impl Serialize) -> String {
    let (ty, field) = given.coordinate();
    let mut text = format!("{ty}.{field} ").into_bytes();
    write_json(rows, &mut text);
    String::from_utf8(text).expect("JSON is UTF-8")
}

/// The part of a list that is wanted.
pub(crate) trait WindowArgs {
    /// Checks the arguments against the list's order. Whose list the cursors are of is asked for each parent (`bound`).
    ///
    /// # Errors
    /// `BAD_USER_INPUT` for a number of rows beyond the bounds, `BAD_CURSOR` for what does not have the form of a cursor.
    fn window<R>(
        &self,
        keyset: &Keyset<R>,
        cursors: &mut CursorScope,
        max_rows: u32,
    ) -> Result<Window, FieldError>;
}

impl WindowArgs for PageArgs {
    fn window<R>(
        &self,
        keyset: &Keyset<R>,
        cursors: &mut CursorScope,
        max_rows: u32,
    ) -> Result<Window, FieldError> {
        let (limit, backward) = self.limit(max_rows)?;
        let mut position = |cursor: Option<&str>| {
            let read = |text: &str| cursors.read(keyset, text).map_err(bad_cursor);
            cursor.map(read).transpose()
        };
        let (after, before) = (position(self.after())?, position(self.before())?);
        Ok(Window { limit, backward, after, before })
    }
}

/// A list whose arguments have been read, with its order and what its cursors belong to.
pub(crate) fn bound<P, C, R>(
    pages: P,
    counts: C,
    keyset: &'static Keyset<R>,
    cursors: CursorScope,
) -> BoundPage<P, C, R>
where
    P: Loader<Key: ListKey, Value = Arc<Page<R>>>,
{
    let cursors = Arc::new(cursors);
    let given = Arc::clone(&cursors);
    let check = move |key: &P::Key| given.check(keyset, key.parent()).map_err(bad_cursor);
    let cursor = move |key: &P::Key, row: &R| cursors.encode(keyset, key.parent(), &keyset.position(row));
    BoundPage { pages, counts, page: rows_of, cursor: Box::new(cursor), check: Box::new(check) }
}

/// A cursor that cannot be used.
pub(crate) fn bad_cursor(error: BadCursor) -> FieldError {
    FieldError::new(Code::BadCursor, format!("Invalid cursor: {error}."))
}

fn rows_of<R>(page: &Arc<Page<R>>) -> PageRows<'_, R> {
    PageRows { rows: &page.rows, has_next: page.has_next, has_previous: page.has_previous }
}

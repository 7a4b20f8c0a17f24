//! Lists of rows of `entities` as connections: what their cursors belong to, which part of them is wanted. Not here: which
//! rows a list has (the domains), how a page is written (`engine::connection`).

use std::sync::Arc;

use entities::database::page::{CursorScope, Keyset, Page, Window};
use serde::Serialize;

use crate::{
    context::ContextExt as _,
    engine::{
        batch::Loader,
        connection::{Bound, PageArgs, PageRows},
        edge::{Arguments, Given},
        error::{Code, FieldError},
        scalar::write_json,
    },
};

/// What the arguments of a list's field say of its cursors.
pub(crate) trait ListArgs {
    /// The list that cursors of this field belong to: the field, and which rows were asked for. `rows` is what the
    /// arguments mean, not how they were written: a list that is asked for in other words is the same list.
    fn list(&self, rows: &impl Serialize) -> CursorScope;
}

impl<A: Arguments> ListArgs for Given<'_, A> {
    fn list(&self, rows: &impl Serialize) -> CursorScope {
        let (ty, field) = self.coordinate();
        let mut text = format!("{ty}.{field} ").into_bytes();
        write_json(rows, &mut text);
        let text = String::from_utf8(text).expect("JSON is UTF-8");
        CursorScope::new(self.ctx.access().options().secret.cursor_key(), text)
    }
}

/// The part of a list that is wanted.
pub(crate) trait WindowArgs {
    /// Checks the arguments against the list's order.
    ///
    /// # Errors
    /// `BAD_USER_INPUT` for a number of rows beyond the bounds, `BAD_CURSOR` for a cursor of another list.
    fn window<R>(
        &self,
        keyset: &Keyset<R>,
        cursors: &CursorScope,
        max_rows: u32,
    ) -> Result<Window, FieldError>;
}

impl WindowArgs for PageArgs {
    fn window<R>(
        &self,
        keyset: &Keyset<R>,
        cursors: &CursorScope,
        max_rows: u32,
    ) -> Result<Window, FieldError> {
        let (limit, backward) = self.limit(max_rows)?;
        let position = |name: &str, cursor: Option<&str>| {
            let decode = |text: &str| {
                cursors
                    .decode(keyset, text)
                    .map_err(|error| FieldError::new(Code::BadCursor, format!("`{name}`: {error}")))
            };
            cursor.map(decode).transpose()
        };
        let (after, before) = (position("after", self.after())?, position("before", self.before())?);
        Ok(Window { limit, backward, after, before })
    }
}

/// A list whose arguments have been read, with its order and what its cursors belong to.
pub(crate) fn bound<P, C, R>(
    pages: P,
    counts: C,
    keyset: &'static Keyset<R>,
    cursors: CursorScope,
) -> Bound<P, C, R>
where
    P: Loader<Value = Arc<Page<R>>>,
{
    let cursor = move |row: &R| cursors.encode(keyset, &keyset.position(row));
    Bound { pages, counts, page: rows_of, cursor: Box::new(cursor) }
}

fn rows_of<R>(page: &Arc<Page<R>>) -> PageRows<'_, R> {
    PageRows { rows: &page.rows, has_next: page.has_next, has_previous: page.has_previous }
}

//! The types of connections in the library's registry. Execution never comes here: `connection` writes them.

use std::{borrow::Cow, marker::PhantomData};

use async_graphql::{
    OutputType, Positioned, ServerResult, Value,
    context::ContextSelectionSet,
    parser::types::Field as AstField,
    registry::{MetaField, MetaTypeId, ObjectBuilder, Registry},
};

use crate::{
    object::{Row, Visible, tags_of},
    scalar::Leaf,
};

macro_rules! registered_only {
    () => {
        async fn resolve(
            &self,
            _: &ContextSelectionSet<'_>,
            _: &Positioned<AstField>,
        ) -> ServerResult<Value> {
            Ok(Value::Null)
        }
    };
}

/// `XConnection` in the registry.
pub(super) struct Connection<U>(PhantomData<fn() -> U>);
/// `XEdge` in the registry.
pub(super) struct ConnectionEdge<U>(PhantomData<fn() -> U>);
/// `PageInfo` in the registry.
struct PageInfo;

fn meta(name: &str, about: &str, ty: String) -> (String, MetaField) {
    let mut field = MetaField::new(name, ty);
    field.description = Some(about.to_owned());
    (name.to_owned(), field)
}

impl<U: Visible> OutputType for Connection<U> {
    fn type_name() -> Cow<'static, str> {
        format!("{}Connection", U::object().name).into()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        registry.create_output_type::<Self, _>(MetaTypeId::Object, |registry| {
            let node = Row::<U>::create_type_info(registry);
            let edge = ConnectionEdge::<U>::create_type_info(registry);
            let fields = [
                meta("nodes", "The rows of the page, without cursors.", format!("[{node}]!")),
                meta("edges", "The rows of the page, each with its cursor.", format!("[{edge}]!")),
                meta("pageInfo", "Where the page stands in the list.", PageInfo::create_type_info(registry)),
                meta(
                    "totalCount",
                    "All rows of the list; counted only when asked for.",
                    i32::type_ref(registry),
                ),
            ];
            ObjectBuilder::new(Self::type_name(), fields.into_iter().collect())
                .description(Some(format!("A page of a list of {} objects.", U::object().name)))
                .tags(tags_of(U::object().tag()))
                .rust_typename(std::any::type_name::<Self>())
                .build()
        })
    }

    registered_only!();
}

impl<U: Visible> OutputType for ConnectionEdge<U> {
    fn type_name() -> Cow<'static, str> {
        format!("{}Edge", U::object().name).into()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        registry.create_output_type::<Self, _>(MetaTypeId::Object, |registry| {
            let fields = [
                meta(
                    "cursor",
                    "The row's place in the list: send it back as `after` or `before`.",
                    String::type_ref(registry),
                ),
                meta("node", "The row.", Row::<U>::create_type_info(registry)),
            ];
            ObjectBuilder::new(Self::type_name(), fields.into_iter().collect())
                .description(Some(format!(
                    "An entry of a list of {} objects: the object and its place.",
                    U::object().name
                )))
                .tags(tags_of(U::object().tag()))
                .rust_typename(std::any::type_name::<Self>())
                .build()
        })
    }

    registered_only!();
}

impl OutputType for PageInfo {
    fn type_name() -> Cow<'static, str> {
        "PageInfo".into()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        registry.create_output_type::<Self, _>(MetaTypeId::Object, |registry| {
            let flag = bool::type_ref(registry);
            let cursor = Option::<String>::type_ref(registry);
            let fields = [
                meta(
                    "hasNextPage",
                    "Rows follow after the last row of the page. Reading forwards up to \
                     `before`, only rows before that one count; reading backwards it only \
                     tells whether `before` was given.",
                    flag.clone(),
                ),
                meta(
                    "hasPreviousPage",
                    "Rows stand before the first row of the page. Reading backwards down to `after`, only \
                     rows after that one count; reading forwards it only tells whether `after` was given.",
                    flag,
                ),
                meta("startCursor", "The cursor of the first row; null on an empty page.", cursor.clone()),
                meta("endCursor", "The cursor of the last row; null on an empty page.", cursor),
            ];
            ObjectBuilder::new("PageInfo", fields.into_iter().collect())
                .description(Some("Where a page stands in its list.".to_owned()))
                .shareable(true)
                .rust_typename(std::any::type_name::<Self>())
                .build()
        })
    }

    registered_only!();
}

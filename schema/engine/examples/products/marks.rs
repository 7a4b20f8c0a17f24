//! What the suite's types say to composers beyond their keys. The library knows these marks and prints them;
//! none of our own types needs them, so `Object` has no words for them.

use async_graphql::{
    OutputType as _,
    indexmap::IndexMap,
    registry::{Deprecation, MetaDirectiveInvocation, MetaField, MetaType, Registry},
};
use engine::{federation::sdl::Composed, object::Row};

use super::Inventory;

/// A directive of the suite's own, which composition is to keep.
pub(super) const CUSTOM: Composed =
    ["https://myspecs.dev/myCustomDirective/v1.0", "custom", "directive @custom on OBJECT"];

/// Marks all types, and adds the one that no field leads to.
pub(super) fn mark_all(registry: &mut Registry) {
    Row::<Inventory>::create_type_info(registry);
    for ty in registry.types.values_mut() {
        mark(ty);
    }
}

fn mark(ty: &mut MetaType) {
    let MetaType::Object { name, fields, interface_object, directive_invocations, .. } = ty else { return };
    let mut field = |name: &str, mark: fn(&mut MetaField)| mark(&mut fields[name]);
    match name.as_str() {
        "Product" => {
            let [_, custom, _] = CUSTOM;
            directive_invocations
                .push(MetaDirectiveInvocation { name: custom.to_owned(), args: IndexMap::default() });
            field("createdBy", |field| field.provides = Some("totalProductsCreated".to_owned()));
            field("notes", |field| field.tags.push("internal".to_owned()));
        }
        "ProductDimension" => field("unit", |field| field.inaccessible = true),
        "User" => {
            let required = |field: &mut MetaField| {
                field.requires = Some("totalProductsCreated yearsOfEmployment".to_owned());
            };
            field("averageProductsCreatedPerYear", required);
            field("name", |field| field.override_from = Some("users".to_owned()));
            field("totalProductsCreated", |field| field.external = true);
            field("yearsOfEmployment", |field| field.external = true);
        }
        "Inventory" => *interface_object = true,
        "Query" => field("deprecatedProduct", |field| {
            field.deprecation =
                Deprecation::Deprecated { reason: Some("Use product query instead".to_owned()) };
        }),
        _ => {}
    }
}

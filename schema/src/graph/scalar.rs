//! Values of `entities` as leaves: enums, stored JSON. `Leaf` has the graph as its parameter here, since
//! neither the trait nor these types are of this crate. Not here: ids and values of the language's own types
//! (`engine::scalar`).

use async_graphql::registry::Registry;
use entities::Json;

use crate::graph::Graph;
use engine::scalar::{AnyJson, Leaf, append};

/// The database's own text: already JSON.
impl Leaf<Graph> for Json {
    fn type_ref(registry: &mut Registry) -> String {
        <AnyJson as async_graphql::OutputType>::create_type_info(registry)
    }

    fn write(&self, out: &mut Vec<u8>) {
        append(self.as_str().as_bytes(), out);
    }
}

/// An enum of `entities` as a leaf: `$graphql` is its GraphQL declaration (`#[graphql(remote = …)]`).
macro_rules! enum_leaf {
    ($stored:ty, $graphql:ty) => {
        impl engine::scalar::Leaf<$crate::Graph> for $stored {
            fn type_ref(registry: &mut async_graphql::registry::Registry) -> String {
                <$graphql as async_graphql::OutputType>::create_type_info(registry)
            }

            fn write(&self, out: &mut Vec<u8>) {
                // Enum names are letters and underscores: nothing to escape.
                out.push(b'"');
                out.extend(self.as_str().as_bytes());
                out.push(b'"');
            }
        }
    };
}
pub(crate) use enum_leaf;

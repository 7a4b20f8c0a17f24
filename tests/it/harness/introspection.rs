//! The schema as clients can read it: introspected, and indexed by name.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::TestApp;

/// A type of the schema.
pub(crate) struct Type {
    pub(crate) kind: String,
    pub(crate) fields: BTreeMap<String, Field>,
    pub(crate) input_fields: BTreeMap<String, String>,
    pub(crate) values: Vec<String>,
    /// As introspection has it.
    pub(crate) raw: Value,
}

/// A field, with its arguments.
pub(crate) struct Field {
    /// The name of its type, without lists and non-nulls.
    pub(crate) of: String,
    /// The names of the arguments' types.
    pub(crate) arguments: BTreeMap<String, String>,
}

/// All types by name.
pub(crate) type SchemaTypes = BTreeMap<String, Type>;

const QUERY: &str = "{ __schema { types {
    kind name description
    fields(includeDeprecated: true) { name description type { ...T } args { name description defaultValue type { ...T } } }
    inputFields { name description type { ...T } }
    enumValues(includeDeprecated: true) { name description }
    possibleTypes { name }
  } } }
  fragment T on __Type { kind name ofType { kind name ofType { kind name ofType { kind name } } } }";

/// Asks for the schema.
pub(crate) async fn introspect(app: &TestApp) -> SchemaTypes {
    let data = app.service().run(QUERY, json!({})).await.expect_data("introspection");
    let types = data["__schema"]["types"].as_array().expect("types").iter();
    types.map(|raw| (text(&raw["name"]), read(raw))).collect()
}

fn read(raw: &Value) -> Type {
    let inputs = |list: &Value| {
        let inputs = list.as_array().into_iter().flatten();
        inputs.map(|input| (text(&input["name"]), named(&input["type"]))).collect()
    };
    let fields = raw["fields"].as_array().into_iter().flatten().map(|field| {
        (text(&field["name"]), Field { of: named(&field["type"]), arguments: inputs(&field["args"]) })
    });
    Type {
        kind: text(&raw["kind"]),
        fields: fields.collect(),
        input_fields: inputs(&raw["inputFields"]),
        values: raw["enumValues"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|value| text(&value["name"]))
            .collect(),
        raw: raw.clone(),
    }
}

/// The name at the bottom of a type.
fn named(of: &Value) -> String {
    if of["ofType"].is_null() { text(&of["name"]) } else { named(&of["ofType"]) }
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

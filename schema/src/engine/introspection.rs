//! `__schema` and `__type`: answered by the library from its registry. The merged field is sent to it as a document
//! of its own. What it says never changes while the program runs, and takes long to make: it is kept under the
//! document, in the cache that resolvers have for what is their own.

use std::sync::Arc;

use async_graphql::{
    Response, Schema,
    parser::types::{
        DocumentOperations, ExecutableDocument, Field, OperationDefinition, OperationType, Selection,
        SelectionSet,
    },
};

use entities::{Store, cache::Kept};

use crate::{
    context::Context,
    engine::{
        document::{Document, nowhere, request_of},
        plan::{Planner, Selected},
        scalar::write_json,
    },
    graph::Engine,
};

/// For this long; what is asked seldom leaves the cache earlier.
const KEPT: Kept = Kept::for_seconds(3_600);

/// What is asked about the schema.
pub(crate) struct Question<'a, 'q> {
    pub(crate) document: &'a Document,
    pub(crate) operation_name: Option<&'a str>,
    pub(crate) planner: Planner<'q>,
    pub(crate) selected: &'a Selected<'q>,
}

/// The field's value, as JSON.
pub(crate) async fn value(engine: &Engine, question: &Question<'_, '_>, ctx: &Context) -> Arc<String> {
    let Question { document, operation_name, planner, selected } = question;
    let variables = serde_json::to_string(planner.variables).unwrap_or_default();
    // Of this schema: another version of the program may share the cache.
    let schema = blake3::hash(ctx.service.sdl.as_bytes());
    let asked = format!("{:?} {operation_name:?} {} {variables}", document.hash(), selected.key());
    let name = format!("introspection {schema} {}", blake3::hash(asked.as_bytes()));
    let (engine, parsed) = (engine.clone(), parsed(document, selected));
    let (variables, field) = (planner.variables.clone(), selected.name().to_owned());
    let load = move |_: Store| {
        let request = request_of(parsed.clone(), None, variables.clone());
        let (engine, field) = (engine.clone(), field.clone());
        async move { Ok(json_of(Box::pin(Schema::execute(&engine, request)).await, &field)) }
    };
    let kept = ctx.store().cache().get_or_set(ctx.store(), &name, KEPT, Vec::new(), load).await;
    kept.unwrap_or_else(|_| Arc::new("null".to_owned()))
}

fn json_of(response: Response, field: &str) -> String {
    let mut json = Vec::new();
    match response.data {
        async_graphql::Value::Object(mut fields) => {
            write_json(&fields.swap_remove(field).unwrap_or_default(), &mut json);
        }
        _ => json.extend(b"null"),
    }
    String::from_utf8(json).expect("JSON is UTF-8")
}

fn parsed(document: &Document, selected: &Selected<'_>) -> ExecutableDocument {
    let items = selected.sets.iter().flat_map(|set| set.items.iter().cloned()).collect();
    let field = Field {
        alias: None,
        directives: Vec::new(),
        selection_set: nowhere(SelectionSet { items }),
        ..selected.field.clone()
    };
    let definitions = match &document.parsed.operations {
        DocumentOperations::Single(operation) => operation.node.variable_definitions.clone(),
        DocumentOperations::Multiple(operations) => {
            operations.values().flat_map(|operation| operation.node.variable_definitions.clone()).collect()
        }
    };
    let operation = OperationDefinition {
        ty: OperationType::Query,
        variable_definitions: definitions,
        directives: Vec::new(),
        selection_set: nowhere(SelectionSet { items: vec![nowhere(Selection::Field(nowhere(field)))] }),
    };
    ExecutableDocument {
        operations: DocumentOperations::Single(nowhere(operation)),
        fragments: document.parsed.fragments.clone(),
    }
}

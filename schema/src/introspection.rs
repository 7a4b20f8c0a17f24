//! `__schema` and `__type`: answered by the library from its registry. The merged field is sent to it as a document
//! of its own.

use async_graphql::{
    Schema,
    parser::types::{
        DocumentOperations, ExecutableDocument, Field, OperationDefinition, OperationType, Selection,
        SelectionSet,
    },
};

use crate::{
    Engine,
    document::{Document, nowhere, request_of},
    object::Run,
    query::{Query, Ready},
    scalar::write_json,
    select::{Planner, Selected},
};

/// The field's value, ready to be written.
pub(crate) async fn run<'q>(
    engine: &Engine,
    document: &Document,
    planner: Planner<'q>,
    selected: &Selected<'q>,
) -> (&'q str, Box<dyn Run<Query> + 'q>) {
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
    let parsed = ExecutableDocument {
        operations: DocumentOperations::Single(nowhere(operation)),
        fragments: document.parsed.fragments.clone(),
    };
    let response = Schema::execute(engine, request_of(parsed, None, planner.variables.clone())).await;
    let mut json = Vec::new();
    match response.data {
        async_graphql::Value::Object(mut fields) => {
            write_json(&fields.swap_remove(selected.name()).unwrap_or_default(), &mut json);
        }
        _ => json.extend(b"null"),
    }
    (selected.key(), Box::new(Ready { json }))
}

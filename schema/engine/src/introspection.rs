//! `__schema` and `__type`: answered by the library from its registry. The merged field is sent to it as a document
//! of its own. What it says never changes while the program runs and takes long to make: whoever asks keeps it under `key`.

use async_graphql::{
    ObjectType, Response, Schema, SubscriptionType,
    parser::types::{
        DocumentOperations, ExecutableDocument, Field, OperationDefinition, OperationType, Selection,
        SelectionSet,
    },
};

use futures_util::{FutureExt as _, future::BoxFuture};

use crate::{
    document::{Document, nowhere, request_of},
    plan::{Planner, Selected},
    scalar::write_json,
};

/// What is asked about the schema.
pub struct Question<'a, 'q> {
    /// The document that asks.
    pub document: &'a Document,
    /// The operation of the document that runs.
    pub operation_name: Option<&'a str>,
    /// The document's fragments and variables.
    pub planner: Planner<'q>,
    /// The field, `__schema` or `__type`.
    pub selected: &'a Selected<'q>,
}

impl Question<'_, '_> {
    /// What no other question about this schema has.
    pub fn key(&self) -> String {
        let variables = serde_json::to_string(self.planner.variables).unwrap_or_default();
        let (hash, name) = (self.document.hash(), self.operation_name);
        let asked = format!("{hash:?} {name:?} {} {variables}", self.selected.key());
        blake3::hash(asked.as_bytes()).to_string()
    }

    /// Lets the library answer it, each time that it is called; the field's value, as JSON.
    pub fn ask<Q, M, S>(
        &self,
        schema: &Schema<Q, M, S>,
    ) -> impl Fn() -> BoxFuture<'static, String> + Clone + Send + Sync + use<Q, M, S>
    where
        Q: ObjectType + 'static,
        M: ObjectType + 'static,
        S: SubscriptionType + 'static,
    {
        let (schema, parsed) = (schema.clone(), parsed(self.document, self.selected));
        let (variables, field) = (self.planner.variables.clone(), self.selected.name().to_owned());
        move || {
            let request = request_of(parsed.clone(), None, variables.clone());
            let (schema, field) = (schema.clone(), field.clone());
            async move { json_of(schema.execute(request).await, &field) }.boxed()
        }
    }
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

//! `__schema` and `__type`: answered by the library from its registry. The merged field is sent to it as a document
//! of its own. What it says never changes while the program runs and takes long to make, so it is held
//! (`AnswerCache`): in this process only, since every other wording has another answer.

use std::{future::ready, sync::Arc};

use async_graphql::{
    ObjectType, Response, Schema, SubscriptionType,
    parser::types::{
        DocumentOperations, ExecutableDocument, Field, OperationDefinition, OperationType, Selection,
        SelectionSet,
    },
};

use futures_util::{FutureExt as _, future::BoxFuture};
use moka::sync::Cache;
use tokio::sync::OnceCell;

use crate::{
    document::{Document, nowhere, request_of},
    plan::{Planner, Selected},
    scalar::write_json,
};

/// Answers held, bytes; the whole schema is some 120 KB.
const HELD_BYTES: u64 = 4 << 20;
/// What an entry takes beside its answer, about, bytes.
const ENTRY_BYTES: usize = 256;

type Answer = Arc<OnceCell<Arc<String>>>;

/// Answers about one schema. Whoever asks the same at the same time waits for one answer.
pub struct AnswerCache(Cache<[u8; 32], Answer>);

impl Default for AnswerCache {
    fn default() -> Self {
        let weigh = |_: &[u8; 32], answer: &Answer| {
            let bytes = answer.get().map_or(0, |json| json.len());
            u32::try_from(bytes.saturating_add(ENTRY_BYTES)).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().weigher(weigh).max_capacity(HELD_BYTES).build())
    }
}

impl AnswerCache {
    /// The value of the field, as JSON.
    pub fn answer<Q, M, S>(
        &self,
        question: &Question<'_, '_>,
        schema: &Schema<Q, M, S>,
    ) -> BoxFuture<'static, Arc<String>>
    where
        Q: ObjectType + 'static,
        M: ObjectType + 'static,
        S: SubscriptionType + 'static,
    {
        self.get_or_ask(question.key(), || question.ask(schema))
    }

    fn get_or_ask(
        &self,
        key: [u8; 32],
        ask: impl FnOnce() -> BoxFuture<'static, String>,
    ) -> BoxFuture<'static, Arc<String>> {
        let answer = self.0.get_with(key, Answer::default);
        if let Some(json) = answer.get() {
            return ready(Arc::clone(json)).boxed();
        }
        let (asked, answers) = (ask(), self.0.clone());
        async move {
            let json = Arc::clone(answer.get_or_init(|| async { Arc::new(asked.await) }).await);
            // Now it weighs what it holds.
            answers.insert(key, answer);
            json
        }
        .boxed()
    }
}

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
    fn key(&self) -> [u8; 32] {
        let variables = serde_json::to_string(self.planner.variables).unwrap_or_default();
        let (hash, name) = (self.document.hash(), self.operation_name);
        let asked = format!("{hash:?} {name:?} {} {variables}", self.selected.key());
        blake3::hash(asked.as_bytes()).into()
    }

    /// Lets the library answer it.
    fn ask<Q, M, S>(&self, schema: &Schema<Q, M, S>) -> BoxFuture<'static, String>
    where
        Q: ObjectType + 'static,
        M: ObjectType + 'static,
        S: SubscriptionType + 'static,
    {
        let parsed = parsed(self.document, self.selected);
        let request = request_of(parsed, None, self.planner.variables.clone());
        let (schema, field) = (schema.clone(), self.selected.name().to_owned());
        async move { json_of(schema.execute(request).await, &field) }.boxed()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// So much is held, whatever is asked.
    #[tokio::test]
    async fn answers_are_held_within_a_bound() {
        let cache = AnswerCache::default();
        let long = || std::future::ready("x".repeat(HELD_BYTES as usize / 10)).boxed();
        for number in 0..100 {
            let (one, again) = tokio::join!(
                cache.get_or_ask([number; 32], long),
                cache.get_or_ask([number; 32], || async { unreachable!("it is being asked") }.boxed()),
            );
            assert!(Arc::ptr_eq(&one, &again));
        }
        cache.0.run_pending_tasks();
        assert!((1..=10).contains(&cache.0.entry_count()), "{}", cache.0.entry_count());
        assert!(cache.0.weighted_size() <= HELD_BYTES);
    }
}

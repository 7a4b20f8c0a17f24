//! The graph of the tests, declared for the engine (`domain`) and by the library's derives (`derived`).

use async_graphql::{EmptyMutation, EmptySubscription, Schema, ValidationMode, Variables};
use engine::{
    context::Context,
    document::{Document, Rules, request_of},
    execute::{Executor, Settings},
    limits::Limits,
};
use prometheus_client::registry::Registry;

use crate::{
    derived,
    domain::{Memory, Query},
};

/// The graph, declared both ways.
pub(crate) struct Both {
    pub(crate) executor: Executor<Query>,
    derived: Schema<derived::Query, EmptyMutation, EmptySubscription>,
}

impl Both {
    pub(crate) fn new() -> Self {
        // Whatever the queries ask for.
        let limits = Limits {
            selections: usize::MAX,
            tokens: usize::MAX,
            ignored_bytes: usize::MAX,
            aliases: usize::MAX,
            directives: usize::MAX,
            root_fields: usize::MAX,
            fragments: usize::MAX,
            depth: usize::MAX,
            cost: u64::MAX,
            ..Limits::default()
        };
        let settings = Settings {
            rules: Rules { limits, ..Rules::default() },
            shared_batches: 0,
            answer_bytes: usize::MAX,
            answer_memory: usize::MAX,
            ..Settings::default()
        };
        let derived = Schema::build(derived::Query, EmptyMutation, EmptySubscription)
            .validation_mode(ValidationMode::Fast)
            .finish();
        Self { executor: Executor::new(settings, &mut Registry::default()), derived }
    }

    /// What one request runs in.
    pub(crate) fn context(&self) -> Context {
        self.executor.context(Memory, ())
    }

    /// The answer by the library.
    pub(crate) async fn theirs(&self, document: &Document, variables: Variables) -> Vec<u8> {
        let response = self.derived.execute(request_of(document.parsed.clone(), None, variables)).await;
        serde_json::to_vec(&response).expect("an answer is JSON")
    }
}

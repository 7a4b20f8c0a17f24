//! Running documents: a planned selection on its root, and `Executor`, which does everything from a document's text to the
//! bytes of its answer, for graphs of queries that need no more than that. Not here: mutations and subscriptions, who asks,
//! what is kept of answers (a graph that has these puts the parts together by itself).

use std::{any::Any, sync::Arc};

use async_graphql::{
    EmptyMutation, EmptySubscription, Schema, ValidationMode, Variables,
    parser::{parse_schema, types::SelectionSet},
};
use futures_util::{FutureExt as _, future::BoxFuture};
use prometheus_client::registry::Registry;

use crate::{
    batch::{Batcher, Groups, Metrics, Source},
    bounds::{Bounds, Memory, Owner, PIECE, Taken},
    context::Context,
    cost::OutputTypes,
    document::{Document, DocumentCache, OnlyValidate, Rules},
    error::RequestError,
    introspection::Question,
    object::{Entity, Filled, Object, Row, Run, Selection},
    output::{Errors, Unfinished, Unwritten, Writer},
    plan::Planner,
    variables::InputTypes,
};

/// Runs a planned query on its root; the answer lacks only its closing brace.
pub async fn answer<T: Entity>(
    selection: &Selection<'_, T>,
    root: T,
    ctx: &Context,
    request_id: &Arc<str>,
    mut out: Vec<u8>,
    errors: Errors,
) -> Unfinished {
    let rows = ctx.batcher.drive(selection.run(vec![root], ctx)).await;
    out.extend(b"{\"data\":");
    let mut writer = Writer::resume(Unfinished { out, errors, bound: ctx.bounds.answer() });
    let start = writer.out.len();
    match writer.whole(|writer| rows.write(0, writer)).await {
        Ok(written) => {
            if written.is_err() {
                writer.out.truncate(start);
                writer.out.extend(b"null");
            }
            writer.finish().with_errors()
        }
        Err(error) => {
            drop(writer);
            Unfinished::instead(&error, request_id, &ctx.bounds)
        }
    }
}

/// A value that is there already: JSON that is written as it is.
pub struct Ready {
    /// The value.
    pub json: Vec<u8>,
}

impl<T> Run<T> for Ready {
    fn start<'a>(&'a self, _: &[T], _: &'a Context) -> BoxFuture<'a, Box<dyn Filled + 'a>> {
        std::future::ready(Box::new(self) as Box<dyn Filled>).boxed()
    }
}

impl Filled for &Ready {
    fn write<'w>(&'w self, _: usize, writer: &mut Writer<'w>) -> Result<(), Unwritten> {
        writer.out.extend(&self.json);
        Ok(())
    }
}

type Library<Q> = Schema<Row<Q>, EmptyMutation, EmptySubscription>;

/// A graph of queries. The library parses, validates and introspects; selections are executed batch-first, and documents
/// that are valid are remembered by their text.
pub struct Executor<Q: Entity> {
    validator: Library<Q>,
    introspector: Library<Q>,
    documents: DocumentCache,
    input_types: InputTypes,
    groups: Groups,
    metrics: Metrics,
    answer_bytes: usize,
    answer_memory: Memory,
}

impl<Q: Entity> Executor<Q> {
    /// Builds the schema that has `Q` as its root. Metrics go into `registry`.
    pub fn new(rules: Rules, registry: &mut Registry) -> Self {
        let library = || Schema::build(Row::<Q>::new(), EmptyMutation, EmptySubscription);
        let validator = library().extension(OnlyValidate).finish();
        let introspector = library().validation_mode(ValidationMode::Fast).finish();
        let types = parse_schema(introspector.sdl()).expect("the library reads the SDL that it prints");
        Self {
            validator,
            documents: DocumentCache::new(rules, OutputTypes::of(&types), registry),
            input_types: InputTypes::of(&types, &[]),
            introspector,
            groups: Groups::new(2),
            metrics: Metrics::register(registry),
            answer_bytes: 16 << 20,
            answer_memory: Memory::of(32 << 20),
        }
    }

    /// The schema as text.
    pub fn sdl(&self) -> String {
        self.introspector.sdl()
    }

    /// Answers one request as JSON, with `errors` where something fails. `root` is the value of the root, `source` what
    /// loaders read from, and `data` what visibility checks get by [`Context::data`].
    pub async fn execute<S: Source, D: Any + Send + Sync>(
        &self,
        text: &str,
        variables: Variables,
        (root, source, data): (Q, S, D),
    ) -> Vec<u8> {
        let document = match self.documents.prepare(text, false, &self.validator).await {
            Ok(document) => document,
            Err(errors) => return refused(&errors),
        };
        let (most, memory) = (self.answer_bytes, self.answer_memory.clone());
        let bounds = Bounds { most, memory, taken: Taken::default(), owner: Owner::Many, piece: PIECE };
        let batcher = Batcher::new(source, self.groups.clone(), self.metrics.clone());
        let ctx = Context::new(data, batcher, bounds);
        match self.run(&document, variables, root, &ctx).await {
            Ok(answer) => {
                let answer = answer.finished(&Arc::default(), &ctx.bounds);
                document.note_response_bytes(answer.out.len());
                answer.out
            }
            Err(error) => refused(&[error]),
        }
    }

    async fn run(
        &self,
        document: &Document,
        variables: Variables,
        root: Q,
        ctx: &Context,
    ) -> Result<Unfinished, RequestError> {
        let operation = document.operation(None)?;
        let definitions = &operation.parsed.node.variable_definitions;
        let variables = self.input_types.coerce(definitions, variables)?;
        self.documents.check_cost(operation.info, &variables)?;
        let planner = Planner { fragments: &document.parsed.fragments, variables: &variables };
        let set = &operation.parsed.node.selection_set.node;
        let selection = self.plan(document, set, planner, ctx).await?;
        Ok(answer(&selection, root, ctx, &Arc::default(), document.output_buffer(), Errors::default()).await)
    }

    async fn plan<'q>(
        &self,
        document: &'q Document,
        set: &'q SelectionSet,
        planner: Planner<'q>,
        ctx: &'q Context,
    ) -> Result<Selection<'q, Q>, RequestError> {
        let query: &'static Object<Q> = Q::object();
        let mut selection = query.nothing();
        for selected in planner.collect(&|condition| query.is(condition), &[set])? {
            if matches!(selected.name(), "__schema" | "__type") {
                let question = Question { document, operation_name: None, planner, selected: &selected };
                let json = question.ask(&self.introspector)().await.into_bytes();
                let names = (selected.key(), selected.name());
                selection.push_edge(names, selected.name() == "__type", Box::new(Ready { json }));
            } else {
                query.plan_field(&mut selection, planner, selected, ctx)?;
            }
        }
        Ok(selection)
    }
}

fn refused(errors: &[RequestError]) -> Vec<u8> {
    let mut body = b"{\"errors\":".to_vec();
    Errors::of_request(errors, &Arc::default()).write(&mut body);
    body.push(b'}');
    body
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::{error::FieldError, limits::Limits};

    #[derive(Clone)]
    struct Query(String);

    impl Entity for Query {
        fn object() -> &'static Object<Self> {
            static OBJECT: LazyLock<Object<Query>> = LazyLock::new(|| {
                Object::<Query>::new("Query", "The root.").column("greeting", "A text.", |query| &query.0)
            });
            &OBJECT
        }
    }

    #[derive(Clone)]
    struct Nothing;

    impl Source for Nothing {
        type Error = String;

        fn field_error(error: &String, _: &'static str) -> FieldError {
            FieldError::bad_input(error.clone())
        }
    }

    async fn answer_to(rules: Rules, text: &str, variables: serde_json::Value) -> serde_json::Value {
        let executor = Executor::<Query>::new(rules, &mut Registry::default());
        let variables = Variables::from_json(variables);
        let answer = executor.execute(text, variables, (Query("hello".to_owned()), Nothing, ())).await;
        serde_json::from_slice(&answer).expect("JSON")
    }

    #[tokio::test]
    async fn a_query_is_answered_from_its_root() {
        let query = "query($no: Boolean!) { a: greeting b: greeting @skip(if: $no) __typename }";
        let answer = answer_to(Rules::default(), query, serde_json::json!({ "no": true })).await;
        assert_eq!(answer, serde_json::json!({ "data": { "a": "hello", "__typename": "Query" } }));
    }

    #[tokio::test]
    async fn the_library_answers_what_is_asked_about_the_schema() {
        let query = "{ __schema { queryType { name } } greeting __type(name: \"None\") { name } }";
        let answer = answer_to(Rules::default(), query, serde_json::Value::Null).await;
        let wanted = serde_json::json!({
            "data": { "__schema": { "queryType": { "name": "Query" } }, "greeting": "hello", "__type": null }
        });
        assert_eq!(answer, wanted);
        let executor = Executor::<Query>::new(Rules::default(), &mut Registry::default());
        assert!(executor.sdl().contains("greeting: String!"), "{}", executor.sdl());
    }

    #[tokio::test]
    async fn what_cannot_run_is_an_error_with_its_code() {
        let shallow = Rules { limits: Limits { depth: 0, ..Limits::default() }, ..Rules::default() };
        for (rules, query, code) in [
            (Rules::default(), "{", "GRAPHQL_PARSE_FAILED"),
            (Rules::default(), "{ nothing }", "GRAPHQL_VALIDATION_FAILED"),
            (Rules::default(), "query A { greeting } query B { greeting }", "OPERATION_RESOLUTION_FAILURE"),
            (Rules::default(), "query($no: Boolean!) { greeting @skip(if: $no) }", "BAD_USER_INPUT"),
            (shallow, "{ greeting }", "DEPTH_LIMIT"),
        ] {
            let answer = answer_to(rules, query, serde_json::Value::Null).await;
            assert_eq!(answer["errors"][0]["extensions"]["code"], code, "{query}: {answer}");
            assert!(answer.get("data").is_none(), "{answer}");
        }
    }
}

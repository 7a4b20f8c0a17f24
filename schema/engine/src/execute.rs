//! Running documents: a planned selection on its root, and `Executor`, which does everything from a
//! document's text to the bytes of its answer, for graphs of queries that need no more than that. Not here:
//! mutations and subscriptions, who asks, what is kept of answers (a graph that has these puts the parts
//! together by itself).

use std::{any::Any, borrow::Cow, sync::Arc};

use async_graphql::{
    ContextDirective, CustomDirective, CustomDirectiveFactory, EmptyMutation, EmptySubscription, Schema,
    ServerResult, ValidationMode, Variables,
    parser::{
        parse_schema,
        types::{Directive, SelectionSet},
    },
    registry::Registry as Types,
};
use futures_util::future::{BoxFuture, join_all};
use prometheus_client::registry::Registry;

use crate::{
    batch::{Batcher, Groups, Metrics, Source},
    bounds::{Bounds, Memory, Owner, PIECE, Taken},
    chunks::Chunks,
    context::Context,
    cost::{self, OutputTypes, Weights},
    document::{Document, DocumentCache, Rules},
    edge::Ready,
    error::RequestError,
    federation::{
        gateway::Clearance,
        sdl::{self, Composed},
    },
    introspection::{AnswerCache, Question},
    object::{Entity, Row, Rows, Selection},
    output::{Errors, Unfinished, Writer},
    plan::{Planner, Selected},
    variables::InputTypes,
};

/// Plans the root of a query as `Q` declares it. What is asked about the schema (`__schema`, `__type`) gets
/// the JSON that `ask` has for it.
pub async fn plan<'q, Q: Entity>(
    planner: Planner<'q>,
    root: &'q SelectionSet,
    ctx: &'q Context,
    ask: impl Fn(&Selected<'q>) -> BoxFuture<'static, Arc<String>> + Send,
) -> Result<Selection<'q, Q>, RequestError> {
    let query = Q::object();
    let mut selection = query.nothing();
    for selected in planner.collect(&|condition| query.is(condition), &[root])? {
        if matches!(selected.name(), "__schema" | "__type") {
            let asked = ask(&selected);
            let ready = Box::new(Ready { json: asked.await });
            let names = (selected.key(), selected.name());
            selection.push_edge(names, selected.name() == "__type", ready);
        } else {
            query.plan_field(&mut selection, planner, selected, ctx)?;
        }
    }
    Ok(selection)
}

/// Runs a planned query on its root, writing behind `out` and noting in `errors`; the answer lacks only its
/// closing brace.
pub async fn answer<T: Entity>(
    selection: &Selection<'_, T>,
    root: T,
    ctx: &Context,
    out: Chunks,
    errors: Errors,
) -> Unfinished {
    let rows = ctx.batcher.drive(selection.run(vec![root], ctx)).await;
    write(&rows, ctx, out, errors).await
}

/// Loads all that planned queries select on the same root, as one execution: keys of the same level are asked
/// for together, whichever query asks. Each of them is written by itself ([`write()`]).
pub async fn load<'a, 'q, T: Entity>(
    selections: impl IntoIterator<Item = &'a Selection<'q, T>>,
    root: &T,
    ctx: &'a Context,
) -> Vec<Rows<'a, 'q, T>>
where
    'q: 'a,
{
    let running = selections.into_iter().map(|selection| selection.run(vec![root.clone()], ctx));
    ctx.batcher.drive(join_all(running)).await
}

/// Writes the answer to a query that is loaded, behind `out`; it lacks only its closing brace. `rows` has one
/// object, the root.
pub async fn write<T: Entity>(
    rows: &Rows<'_, '_, T>,
    ctx: &Context,
    mut out: Chunks,
    errors: Errors,
) -> Unfinished {
    let request_id = Arc::clone(errors.request_id());
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
            Unfinished::instead(&error, &request_id, &ctx.bounds)
        }
    }
}

/// How an [`Executor`] is set up.
#[derive(Clone)]
pub struct Settings {
    /// By what documents are judged.
    pub rules: Rules,
    /// What costs more or less than its kind.
    pub weights: Weights,
    /// Shared batches of one loader that may be under way at once; 0 keeps every request to itself.
    pub shared_batches: usize,
    /// Bytes of one answer at most.
    pub answer_bytes: usize,
    /// Memory that all answers of more than 64 KiB may take together while they are written, bytes.
    pub answer_memory: usize,
    /// Whether the graph is a subgraph of a federation: the directives of its own that composition is to keep.
    pub federation: Option<&'static [Composed]>,
    /// Changes what the types say in the schema, before it is used.
    pub types: fn(&mut Types),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            weights: Weights::default(),
            shared_batches: 2,
            answer_bytes: 16 << 20,
            answer_memory: 32 << 20,
            federation: None,
            types: |_| (),
        }
    }
}

/// The library's only door to a registry that is filled and not yet in use is meant for directives. No document can use
/// this one: validation does not know it.
#[derive(Clone, Copy)]
struct Door {
    types: fn(&mut Types),
    weights: Weights,
}

impl CustomDirectiveFactory for Door {
    fn name(&self) -> Cow<'static, str> {
        "engine".into()
    }

    fn register(&self, registry: &mut Types) {
        (self.types)(registry);
        cost::declare(registry, &self.weights);
    }

    fn create(&self, _: &ContextDirective<'_>, _: &Directive) -> ServerResult<Box<dyn CustomDirective>> {
        unreachable!("a valid document does not have this directive")
    }
}

type Library<Q> = Schema<Row<Q>, EmptyMutation, EmptySubscription>;

/// A graph of queries. The library introspects; selections are executed batch-first, and documents
/// that are valid are remembered by their text.
pub struct Executor<Q: Entity> {
    introspector: Library<Q>,
    introspected: AnswerCache,
    sdl: String,
    documents: DocumentCache,
    input_types: InputTypes,
    groups: Groups,
    metrics: Metrics,
    answer_bytes: usize,
    answer_memory: Memory,
}

impl<Q: Entity> Executor<Q> {
    /// Builds the schema that has `Q` as its root. Metrics go into `registry`.
    ///
    /// # Panics
    /// Where a type is declared wrongly, such as with two fields of one name.
    pub fn new(settings: Settings, registry: &mut Registry) -> Self {
        let door = Door { types: settings.types, weights: settings.weights };
        let library = {
            let builder = Schema::build(Row::<Q>::new(), EmptyMutation, EmptySubscription)
                .directive(door)
                // `limits` counts depth itself, through fragments too; the library must not refuse what it let through.
                .limit_recursive_depth(64);
            if settings.federation.is_some() { builder.enable_federation() } else { builder }
        };
        let introspector = library.validation_mode(ValidationMode::Fast).finish();
        let sdl = settings.federation.map_or_else(
            || {
                let plain = Schema::build(Row::<Q>::new(), EmptyMutation, EmptySubscription);
                sdl::api(&plain.directive(sdl::for_clients(door)).finish())
            },
            |composed| sdl::federated(&introspector, composed),
        );
        let text = introspector.sdl();
        let types = parse_schema(&text).expect("the library reads the SDL that it prints");
        Self {
            sdl,
            documents: DocumentCache::new(settings.rules, (&types, &text), registry),
            input_types: InputTypes::of(&types, &[]),
            introspector,
            introspected: AnswerCache::default(),
            groups: Groups::new(settings.shared_batches),
            metrics: Metrics::register(registry),
            answer_bytes: settings.answer_bytes,
            answer_memory: Memory::of(settings.answer_memory),
        }
    }

    /// The schema as text: for clients, or for gateways where the graph is a subgraph of a federation.
    pub fn sdl(&self) -> &str {
        &self.sdl
    }

    /// The output types of the schema; a trace is made with them.
    pub fn types(&self) -> Arc<OutputTypes> {
        Arc::clone(&self.documents.types)
    }

    /// What one request runs in. `source` is what loaders read from, and `data` whatever the schema's own
    /// code wants to know of the request ([`Context::data`]). What is loaded is kept as long as this, so that
    /// each request has its own.
    pub fn context<S: Source, D: Any + Send + Sync>(&self, source: S, data: D) -> Context {
        let (most, memory) = (self.answer_bytes, self.answer_memory.clone());
        let bounds = Bounds { most, memory, taken: Taken::default(), owner: Owner::Many, piece: PIECE };
        Context::new(data, Batcher::new(source, self.groups.clone(), self.metrics.clone()), bounds)
    }

    /// Answers one request as JSON, with `errors` where something fails. `root` is the value of the root.
    pub async fn execute(&self, text: &str, variables: Variables, root: Q, ctx: &Context) -> Vec<u8> {
        let document = match self.prepare(text) {
            Ok(document) => document,
            Err(errors) => return refused(&errors),
        };
        match self.run(&document, None, variables, root, ctx, Errors::default()).await {
            Ok(answer) => answer.finished(&Arc::default(), &ctx.bounds).out.into_vec(),
            Err(error) => refused(&[error]),
        }
    }

    /// Parses, validates and judges a document; once for each text, as long as it is remembered.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn prepare(&self, text: &str) -> Result<Arc<Document>, Vec<RequestError>> {
        self.documents.prepare(text, Clearance::None)
    }

    /// Runs an operation of a document; errors are added to `errors`, which may have a trace. The answer lacks only its
    /// closing brace (`Unfinished::finished`), so that it can get `extensions`.
    ///
    /// # Errors
    /// Why it cannot run: the operation, its variables, or what it costs with them.
    pub async fn run(
        &self,
        document: &Document,
        operation_name: Option<&str>,
        variables: Variables,
        root: Q,
        ctx: &Context,
        errors: Errors,
    ) -> Result<Unfinished, RequestError> {
        let operation = document.operation(operation_name)?;
        let definitions = &operation.parsed.node.variable_definitions;
        let variables = self.input_types.coerce(definitions, variables)?;
        self.documents.check_cost(operation.info, &variables)?;
        let planner = Planner { fragments: &document.parsed.fragments, variables: &variables };
        let ask = |selected: &Selected<'_>| {
            let question = Question { document, operation_name, planner, selected };
            self.introspected.answer(&question, &self.introspector)
        };
        let selection = plan(planner, &operation.parsed.node.selection_set.node, ctx, ask).await?;
        let answer = answer(&selection, root, ctx, document.output_buffer(), errors).await;
        document.note_response_bytes(answer.out.len());
        Ok(answer)
    }
}

/// The answer to a request that did not run, as JSON.
pub fn refused(errors: &[RequestError]) -> Vec<u8> {
    let mut body = b"{\"errors\":".to_vec();
    Errors::of_request(errors, &Arc::default()).write(&mut body);
    body.push(b'}');
    body
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::{error::FieldError, limits::Limits, object::Object};

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
        let executor =
            Executor::<Query>::new(Settings { rules, ..Settings::default() }, &mut Registry::default());
        let (variables, ctx) = (Variables::from_json(variables), executor.context(Nothing, ()));
        let answer = executor.execute(text, variables, Query("hello".to_owned()), &ctx).await;
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
        let executor = Executor::<Query>::new(Settings::default(), &mut Registry::default());
        assert!(executor.sdl().contains("greeting: String!"), "{}", executor.sdl());
    }

    #[tokio::test]
    async fn an_invalid_request_has_its_error_code() {
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

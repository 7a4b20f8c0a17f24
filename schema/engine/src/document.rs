//! Documents: read once, used often. A text is parsed within its limits, validated against the schema and judged
//! (`cost`, `cache_control`) the first time it comes; later requests with the same text skip all of that, and whoever
//! keeps the `Document` skips even the look-up. Only valid documents are kept, by their text, within a bound on bytes.
//! Variables are checked for every request (`variables`).

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
    time::Instant,
};

use async_graphql::{
    Name, Pos, Positioned, Variables,
    parser::types::{
        DocumentOperations, ExecutableDocument, OperationDefinition, OperationType, ServiceDocument,
    },
};
use moka::sync::Cache;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use crate::{
    bounds::PIECE,
    cache_control::{self, CachePolicy, Hint},
    chunks::Chunks,
    coordinates::{CoordinateNumbers, Coordinates, ReportedOperation},
    cost::{Cost, OutputTypes},
    error::{Code, OnError, RequestError, SourceLocation},
    federation::gateway::{Clearance, ForGateways},
    limits::{self, LimitErrorKind, Limits},
    live,
    syntax::{self, SyntaxTree},
    validation::{self, SchemaTypes},
};

mod root_fields;

pub use crate::limits::OperationKind;

/// A document that fits the schema, with all that can be known of it before it runs.
pub struct Document {
    /// As the library reads it.
    pub parsed: ExecutableDocument,
    operations: Vec<(Option<Name>, OperationInfo)>,
    /// A hash of its text.
    hash: [u8; 32],
    /// Was published by the operator: worth keeping its answers.
    is_trusted: AtomicBool,
    /// What a field that fails does to its answers, where a request does not say: as the operator has published it.
    on_error: AtomicU8,
    /// What of it is for gateways only.
    pub for_gateways: ForGateways,
    /// When it was judged.
    prepared: Instant,
    /// The size of its last answer, bytes: the next one is mostly as large and need not grow step by step.
    last_response_bytes: AtomicUsize,
}

/// What is known of one operation.
pub struct OperationInfo {
    /// What kind of operation it is.
    pub kind: OperationKind,
    /// How long its answer keeps; `None`: not at all.
    pub cache: Option<CachePolicy>,
    cost: Cost,
    /// The operation is a live query (`@live`): over a transport that streams it is answered again when its
    /// answer changes.
    pub is_live: bool,
    /// Nothing but signing in, signing up and refreshing.
    only_signs_in: bool,
    /// Nothing but what a busy server runs all the same.
    has_priority: bool,
    /// What it selects, once somebody has asked.
    selected: OnceLock<CoordinateNumbers>,
    /// What usage reports say of it, once somebody has asked.
    reported: OnceLock<Arc<ReportedOperation>>,
}

/// One operation of a document.
pub struct Operation<'d> {
    /// As the library reads it.
    pub parsed: &'d Positioned<OperationDefinition>,
    /// What is known of it.
    pub info: &'d OperationInfo,
}

/// By what documents are judged.
#[derive(Clone, Debug)]
pub struct Rules {
    /// For everybody.
    pub limits: Limits,
    /// For gateways.
    pub gateway_limits: Limits,
    /// Whether the federation's fields and the schema are there for gateways only.
    pub gateways_only: bool,
    /// How long objects of a type keep.
    pub cache_hints: &'static [Hint],
    /// The mutations by which somebody gets a token.
    pub sign_in_fields: &'static [&'static str],
    /// The mutations that a busy server runs all the same.
    pub priority_fields: &'static [&'static str],
    /// Whether errors of validation say what may have been meant, which tells names of the schema.
    pub suggests: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            gateway_limits: Limits::gateway(),
            gateways_only: false,
            cache_hints: &[],
            sign_in_fields: &[],
            priority_fields: &[],
            suggests: false,
        }
    }
}

/// The documents that have been seen.
pub struct DocumentCache {
    cached: Cache<Arc<str>, Arc<Document>>,
    rules: Rules,
    schema: SchemaTypes,
    /// The output types of the schema.
    pub types: Arc<OutputTypes>,
    prepared: Counter,
    refused: Family<LimitLabels, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

/// Texts kept, bytes. A parsed document takes some ten times its text.
const CACHE_BYTES: u64 = 2 << 20;

/// Capacity of the buffer that an answer is written into, bytes.
const MIN_BUFFER: usize = 4 << 10;
const MAX_BUFFER: usize = PIECE;

impl DocumentCache {
    /// No documents yet, for the schema of this SDL, parsed and as text; metrics go into `registry`.
    pub fn new(rules: Rules, (sdl, text): (&ServiceDocument, &str), registry: &mut Registry) -> Self {
        let cached = Cache::builder()
            .max_capacity(CACHE_BYTES)
            .weigher(|text: &Arc<str>, _| u32::try_from(text.len()).unwrap_or(u32::MAX))
            .build();
        let prepared = Counter::default();
        registry.register(
            "graphql_documents_prepared",
            "Documents that were parsed, validated and judged; all others were known",
            prepared.clone(),
        );
        let refused = Family::default();
        registry.register(
            "graphql_documents_refused",
            "Documents that were refused, by what they had too much of",
            Family::clone(&refused),
        );
        let (schema, types) = (SchemaTypes::of(sdl, text), Arc::new(OutputTypes::of(sdl)));
        Self { cached, rules, schema, types, prepared, refused }
    }

    /// The document of this text, valid, if this caller may ask for it.
    pub fn prepare(&self, text: &str, clearance: Clearance) -> Result<Arc<Document>, Vec<RequestError>> {
        if let Some(document) = self.cached.get(text) {
            return Ok(document);
        }
        self.prepared.inc();
        let (tree, beyond_public) =
            self.read(text, clearance == Clearance::Gateway).map_err(|error| vec![error])?;
        let parsed = tree.lower();
        let for_gateways = ForGateways::of(&parsed, beyond_public);
        // Before validation, which would tell what these fields have.
        for_gateways.check(self.rules.gateways_only, clearance).map_err(|error| vec![error])?;
        let errors = validation::validate(&tree, &self.schema, self.rules.suggests);
        if !errors.is_empty() {
            return Err(errors);
        }
        let hash = *blake3::hash(text.as_bytes()).as_bytes();
        let document =
            Arc::new(Document { hash, ..Document::new(parsed, for_gateways, &self.types, &self.rules) });
        self.cached.insert(Arc::from(text), Arc::clone(&document));
        Ok(document)
    }

    fn count(&self, limit: Option<&'static str>) {
        if let Some(limit) = limit {
            self.refused.get_or_create(&LimitLabels { limit }).inc();
        }
    }

    /// Counts an answer that was stopped because it had too many bytes.
    pub fn count_excess(&self, codes: &[&'static str]) {
        if codes.contains(&Code::CostLimit.as_str()) {
            self.count(Some("answer_bytes"));
        }
    }

    /// A document within the limits of this caller; of one that only gateways may send, also why others may not.
    fn read<'d>(
        &self,
        text: &'d str,
        is_gateway: bool,
    ) -> Result<(SyntaxTree<'d>, Option<RequestError>), RequestError> {
        let Rules { limits, gateway_limits, .. } = &self.rules;
        let refusal = match syntax::parse(text, limits) {
            Ok(tree) => return Ok((tree, None)),
            Err(refusal) => refusal,
        };
        let of_gateway = if is_gateway { syntax::parse(text, gateway_limits) } else { Err(refusal.clone()) };
        of_gateway.map(|tree| (tree, Some(refusal.into()))).map_err(|refusal| {
            self.count(refusal.limit);
            RequestError::from(refusal)
        })
    }

    /// Refuses what would load too much with these variables; says how many objects it may load.
    pub fn check_cost(&self, operation: &OperationInfo, variables: &Variables) -> Result<u64, RequestError> {
        let cost = operation.cost.with(variables);
        self.check(cost, |cost, most| {
            format!(
                "This operation may load {cost} objects; at most {most} are allowed. Ask for shorter pages."
            )
        })
    }

    /// Refuses sets of variables of one operation that would load too much together: so many objects.
    pub fn check_total_cost(&self, cost: u64) -> Result<u64, RequestError> {
        self.check(cost, |cost, most| {
            format!(
                "All sets of variables together may load {cost} objects; at most {most} are allowed. Send \
                 fewer sets at once."
            )
        })
    }

    fn check(&self, cost: u64, message: impl FnOnce(u64, u64) -> String) -> Result<u64, RequestError> {
        let most = self.rules.limits.cost;
        if cost <= most {
            return Ok(cost);
        }
        self.count(Some("cost"));
        Err(RequestError::new(Code::CostLimit, message(cost, most)))
    }
}

impl Document {
    /// Judges a document that fits the schema.
    pub fn new(
        parsed: ExecutableDocument,
        for_gateways: ForGateways,
        types: &OutputTypes,
        rules: &Rules,
    ) -> Self {
        let operations = parsed.operations.iter().map(|(name, operation)| {
            let (operation, fragments) = (&operation.node, &parsed.fragments);
            let (kind, root) = match operation.ty {
                OperationType::Query => (OperationKind::Query, "Query"),
                OperationType::Mutation => (OperationKind::Mutation, "Mutation"),
                OperationType::Subscription => (OperationKind::Subscription, "Subscription"),
            };
            let selections = &operation.selection_set.node;
            let is_query = kind == OperationKind::Query;
            let cache = is_query
                .then(|| cache_control::policy(types, rules.cache_hints, selections, fragments))
                .flatten();
            let has_only = |fields: &[&str]| {
                kind == OperationKind::Mutation && root_fields::are_all(fields, selections, fragments)
            };
            let only_signs_in = has_only(rules.sign_in_fields);
            let has_priority = has_only(rules.priority_fields);
            let cost = types.cost(root, selections, fragments);
            let is_live =
                is_query && operation.directives.iter().any(|found| found.node.name.node == live::NAME);
            let (selected, reported) = (OnceLock::new(), OnceLock::new());
            let info =
                OperationInfo { kind, cache, cost, is_live, only_signs_in, has_priority, selected, reported };
            (name.cloned(), info)
        });
        let operations = operations.collect();
        let (hash, is_trusted, last_response_bytes) =
            ([0; 32], AtomicBool::default(), AtomicUsize::new(MIN_BUFFER));
        Self {
            parsed,
            operations,
            hash,
            is_trusted,
            on_error: AtomicU8::new(OnError::Propagate as u8),
            for_gateways,
            prepared: Instant::now(),
            last_response_bytes,
        }
    }

    /// Whether it was known at that moment.
    pub fn was_known(&self, moment: Instant) -> bool {
        self.prepared < moment
    }

    /// From now on its answers are kept (`answers`): the operator has published it, so there are not many like it.
    pub fn trust(&self) {
        self.is_trusted.store(true, Ordering::Relaxed);
    }

    /// What a field that fails does to its answers from now on, where a request does not say.
    pub fn set_on_error(&self, on_error: OnError) {
        self.on_error.store(on_error as u8, Ordering::Relaxed);
    }

    /// What a field that fails does to its answers, where a request does not say.
    pub fn on_error(&self) -> OnError {
        let stored = self.on_error.load(Ordering::Relaxed);
        let all = [OnError::Propagate, OnError::Null, OnError::Halt];
        all.into_iter().find(|on_error| *on_error as u8 == stored).unwrap_or_default()
    }

    /// Whether the operator has published it.
    pub fn is_trusted(&self) -> bool {
        self.is_trusted.load(Ordering::Relaxed)
    }

    /// What no other text has.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// The kind of the operation that a request with this name means, if the document has it.
    pub fn kind(&self, operation_name: Option<&str>) -> Option<OperationKind> {
        self.operation(operation_name).ok().map(|operation| operation.info.kind)
    }

    /// Whether the operation that a request with this name means is a live query (`@live`).
    pub fn is_live(&self, operation_name: Option<&str>) -> bool {
        self.operation(operation_name).is_ok_and(|operation| operation.info.is_live)
    }

    /// The name of the operation that a request with this name means, if the document has it and gives it one.
    pub fn name(&self, operation_name: Option<&str>) -> Option<&str> {
        let mut meant =
            self.operation_names().filter(|name| operation_name.is_none_or(|asked| asked == *name));
        let first = meant.next();
        // Without a name only a single operation is meant.
        if meant.next().is_some() { None } else { first }
    }

    /// Whether the operation that a request with this name means does nothing but sign in, sign up or refresh
    /// a session: what comes with a token that is not good any more to get one that is.
    pub fn only_signs_in(&self, operation_name: Option<&str>) -> bool {
        self.operation(operation_name).is_ok_and(|operation| operation.info.only_signs_in)
    }

    /// Whether a busy server runs the operation that a request with this name means all the same
    /// (`Rules::priority_fields`).
    pub fn has_priority(&self, operation_name: Option<&str>) -> bool {
        self.operation(operation_name).is_ok_and(|operation| operation.info.has_priority)
    }

    /// The fields that the operation that a request with this name means selects, in the numbers of this schema's
    /// coordinates; found out the first time.
    pub fn selected(
        &self,
        operation_name: Option<&str>,
        coordinates: &Coordinates,
    ) -> Option<CoordinateNumbers> {
        let Operation { parsed, info } = self.operation(operation_name).ok()?;
        let root = match info.kind {
            OperationKind::Query => "Query",
            OperationKind::Mutation => "Mutation",
            OperationKind::Subscription => "Subscription",
        };
        let find = || coordinates.selected(root, &parsed.node.selection_set.node, &self.parsed.fragments);
        Some(Arc::clone(info.selected.get_or_init(find)))
    }

    /// What usage reports say of the operation that a request with this name means; found out the first time.
    pub fn reported(
        &self,
        operation_name: Option<&str>,
        coordinates: &Coordinates,
    ) -> Option<Arc<ReportedOperation>> {
        let Operation { parsed, info } = self.operation(operation_name).ok()?;
        let find = || {
            let name = self.name(operation_name);
            Arc::new(ReportedOperation::of(coordinates, name, &parsed.node, &self.parsed.fragments))
        };
        Some(Arc::clone(info.reported.get_or_init(find)))
    }

    /// Whether one of its operations is such a one.
    pub fn has_priority_operations(&self) -> bool {
        self.operations.iter().any(|(_, operation)| operation.has_priority)
    }

    /// The names of its operations; an operation without a name has none.
    pub fn operation_names(&self) -> impl Iterator<Item = &str> {
        self.operations.iter().filter_map(|(name, _)| name.as_deref())
    }

    /// A buffer for an answer.
    pub fn output_buffer(&self) -> Chunks {
        let last = self.last_response_bytes.load(Ordering::Relaxed);
        Vec::with_capacity((last + last / 8).clamp(MIN_BUFFER, MAX_BUFFER)).into()
    }

    /// Notes how large an answer was.
    pub fn note_response_bytes(&self, bytes: usize) {
        self.last_response_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The operation to run (October 2021, §6.1.1 `GetOperation`).
    pub fn operation(&self, name: Option<&str>) -> Result<Operation<'_>, RequestError> {
        let found = match (&self.parsed.operations, name) {
            (DocumentOperations::Single(operation), None) => Some(operation),
            (DocumentOperations::Single(_), Some(_)) => None,
            (DocumentOperations::Multiple(operations), Some(name)) => operations.get(name),
            (DocumentOperations::Multiple(operations), None) if operations.len() == 1 => {
                operations.values().next()
            }
            (DocumentOperations::Multiple(_), None) => {
                let message = "The document has several operations: name one in `operationName`.";
                return Err(RequestError::new(Code::OperationResolutionFailure, message));
            }
        };
        let info = self.operations.iter().find(|(cached, _)| name.is_none() || cached.as_deref() == name);
        match (found, info) {
            (Some(parsed), Some((_, info))) => Ok(Operation { parsed, info }),
            _ => Err(RequestError::new(
                Code::OperationResolutionFailure,
                "Unknown operation: the document does not have one of this name.",
            )),
        }
    }
}

impl From<limits::LimitError> for RequestError {
    fn from(refusal: limits::LimitError) -> Self {
        let code = match refusal.kind {
            LimitErrorKind::Parse => Code::ParseFailed,
            LimitErrorKind::Validation => Code::ValidationFailed,
            LimitErrorKind::Depth => Code::DepthLimit,
            LimitErrorKind::Cost => Code::CostLimit,
            LimitErrorKind::Bytes => Code::PayloadTooLarge,
        };
        let location = SourceLocation { line: refusal.line, column: refusal.column };
        Self { code, message: refusal.message, locations: vec![location] }
    }
}

/// The library's request for a document that is already parsed.
pub fn request_of(
    parsed: ExecutableDocument,
    operation_name: Option<&str>,
    variables: Variables,
) -> async_graphql::Request {
    let mut request = async_graphql::Request::new(String::new()).variables(variables);
    request.operation_name = operation_name.map(str::to_owned);
    request.set_parsed_query(parsed);
    request
}

/// A position for parts of documents that were made, not read.
pub fn nowhere<T>(node: T) -> Positioned<T> {
    Positioned::new(node, Pos::default())
}

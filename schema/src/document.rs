//! Documents: read once, used often. A text is checked by the gate, parsed, and validated against the schema the
//! first time it comes; later requests with the same text skip all of that. Only valid documents are kept, by their
//! text, within a bound on bytes. Variables are checked for every request (`variables`).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_graphql::{
    Pos, Positioned, Variables,
    extensions::{Extension, ExtensionContext, ExtensionFactory, NextExecute},
    parser::{
        parse_query,
        types::{DocumentOperations, ExecutableDocument, OperationDefinition},
    },
};
use moka::sync::Cache;

use crate::{
    error::{Code, Place, RequestError},
    gate::{self, Limits},
};

/// A document that fits the schema.
pub(crate) struct Document {
    pub(crate) parsed: ExecutableDocument,
    /// The size of its last answer, bytes: the next one is mostly as large and need not grow step by step.
    answered: AtomicUsize,
}

/// The documents that have been seen.
pub(crate) struct Documents {
    known: Cache<Arc<str>, Arc<Document>>,
    limits: Limits,
}

/// Texts kept, bytes. A parsed document takes some ten times its text.
const CACHE_BYTES: u64 = 4 << 20;

/// Room for an answer that is set aside before it is written, bytes.
const LEAST_ROOM: usize = 4 << 10;
const MOST_ROOM: usize = 256 << 10;

impl Documents {
    pub(crate) fn new(limits: Limits) -> Self {
        let known = Cache::builder()
            .max_capacity(CACHE_BYTES)
            .weigher(|text: &Arc<str>, _| u32::try_from(text.len()).unwrap_or(u32::MAX))
            .build();
        Self { known, limits }
    }

    /// A document that was valid before.
    pub(crate) fn known(&self, text: &str) -> Option<Arc<Document>> {
        self.known.get(text)
    }

    /// Reads a new document; not yet validated.
    pub(crate) fn read(&self, text: &str) -> Result<Arc<Document>, RequestError> {
        gate::check(text, &self.limits).map_err(|refusal| {
            let code = match refusal.code {
                gate::Code::Parse => Code::ParseFailed,
                gate::Code::Validation => Code::ValidationFailed,
                gate::Code::Depth => Code::DepthLimit,
                gate::Code::Cost => Code::CostLimit,
                gate::Code::Bytes => Code::PayloadTooLarge,
            };
            let place = Place { line: refusal.line, column: refusal.column };
            RequestError { code, message: refusal.message, places: vec![place] }
        })?;
        let parsed =
            parse_query(text).map_err(|error| RequestError::of_engine(Code::ParseFailed, error.into()))?;
        Ok(Arc::new(Document::of(parsed)))
    }

    /// Keeps a document that turned out valid.
    pub(crate) fn keep(&self, text: &str, document: &Arc<Document>) {
        self.known.insert(Arc::from(text), Arc::clone(document));
    }
}

impl Document {
    pub(crate) fn of(parsed: ExecutableDocument) -> Self {
        Self { parsed, answered: AtomicUsize::new(LEAST_ROOM) }
    }

    /// A buffer for an answer.
    pub(crate) fn room(&self) -> Vec<u8> {
        let last = self.answered.load(Ordering::Relaxed);
        Vec::with_capacity((last + last / 8).clamp(LEAST_ROOM, MOST_ROOM))
    }

    /// Notes how large an answer was.
    pub(crate) fn answered(&self, bytes: usize) {
        self.answered.store(bytes, Ordering::Relaxed);
    }

    /// The operation to run (October 2021, §6.1.1 `GetOperation`).
    pub(crate) fn operation(
        &self,
        name: Option<&str>,
    ) -> Result<&Positioned<OperationDefinition>, RequestError> {
        let found = match (&self.parsed.operations, name) {
            (DocumentOperations::Single(operation), None) => Some(operation),
            (DocumentOperations::Single(_), Some(_)) => None,
            (DocumentOperations::Multiple(operations), Some(name)) => operations.get(name),
            (DocumentOperations::Multiple(operations), None) if operations.len() == 1 => {
                operations.values().next()
            }
            (DocumentOperations::Multiple(_), None) => {
                let message = "The document has several operations: say which by `operationName`.";
                return Err(RequestError::new(Code::OperationResolutionFailure, message));
            }
        };
        found.ok_or_else(|| {
            RequestError::new(Code::OperationResolutionFailure, "The document has no operation of this name.")
        })
    }
}

/// Ends a request of the validating schema after validation: its answer is empty, or has the errors.
pub(crate) struct OnlyValidate;

impl ExtensionFactory for OnlyValidate {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(Self)
    }
}

#[async_graphql::async_trait::async_trait]
impl Extension for OnlyValidate {
    async fn execute(
        &self,
        _: &ExtensionContext<'_>,
        _: Option<&str>,
        _: NextExecute<'_>,
    ) -> async_graphql::Response {
        async_graphql::Response::default()
    }
}

/// The library's request for a document that is already parsed.
pub(crate) fn request_of(
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
pub(crate) fn nowhere<T>(node: T) -> Positioned<T> {
    Positioned::new(node, Pos::default())
}

//! Persisted documents: which document a request means, and whether it may run. `trusted` are those of manifests and
//! directories, read when they change and ready to run; `apq` those that clients register by themselves. Modes say what
//! a client may send. What can be known of a document is found out when it is loaded or registered: a request by id
//! looks it up, and that is all. Not here: what a document means (the crate `schema`), where the id stands (`http`).

mod apq;
mod budget;
pub mod field_usage;
pub mod manifest;
mod priority;
pub mod trusted;
pub mod usage;

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::StatusCode;
use entities::{auth::secret::DocumentKey, redis::shared_kv::SharedKv};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use schema::{Caller, Document, Graph, Reply, Viewer};

use crate::{
    config::{DocumentsConfig, setting::DocumentMode},
    rejection::Rejection,
};
use apq::{Apq, Registration};
use manifest::Fingerprint;
use priority::PriorityDocuments;
use trusted::Trusted;

/// Ids longer than this are none.
const LONGEST_ID: usize = 256;
/// What is repeated of an id or a name.
const ECHOED_CHARACTERS: usize = 64;
/// Unknown bodies that audit mode remembers having told about.
const MOST_TOLD: usize = 10_000;
/// Between two log lines about clients that register too much.
const WARNED_EVERY: Duration = Duration::from_hours(1);
const USAGE_INTERVAL: Duration = Duration::from_mins(1);

const NOT_FOUND: Rejection =
    Rejection::new(StatusCode::OK, "PERSISTED_QUERY_NOT_FOUND", "PersistedQueryNotFound");
const NOT_SUPPORTED: Rejection =
    Rejection::new(StatusCode::OK, "PERSISTED_QUERY_NOT_SUPPORTED", "PersistedQueryNotSupported");
const HASH_MISMATCH: Rejection = Rejection::new(
    StatusCode::BAD_REQUEST,
    "PERSISTED_QUERY_HASH_MISMATCH",
    "provided sha does not match query",
);
const ID_REQUIRED: Rejection = Rejection::new(
    StatusCode::BAD_REQUEST,
    "PERSISTED_QUERY_ID_REQUIRED",
    "This server runs published documents only, by their id.",
);
const ID_AND_BODY: Rejection = Rejection::new(
    StatusCode::BAD_REQUEST,
    "CANNOT_SEND_PQ_ID_AND_BODY",
    "Send the id of a document or its text, not both.",
);
const NOT_IN_SAFELIST: Rejection = Rejection::new(
    StatusCode::FORBIDDEN,
    "QUERY_NOT_IN_SAFELIST",
    "This server runs published documents only, and this document is not published.",
);
const NO_QUERY: Rejection = Rejection::new(
    StatusCode::BAD_REQUEST,
    "BAD_USER_INPUT",
    "The request must have a query or the id of a document.",
);
const NO_ID: Rejection = Rejection::new(
    StatusCode::BAD_REQUEST,
    "BAD_USER_INPUT",
    "Invalid document id: expected sha256:<64 hex digits>, 64 or 32 hex digits, or up to 256 letters, digits \
     and -._~:",
);
const VERSION: Rejection =
    Rejection::new(StatusCode::BAD_REQUEST, "BAD_USER_INPUT", "Unsupported persisted query version");

/// What a request says about its document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DocumentRequest<'w> {
    /// The text, if it was sent.
    pub(crate) text: Option<&'w str>,
    /// The id, if one was sent.
    pub(crate) id: Option<&'w str>,
    /// The id came by Apollo's protocol: an unknown one asks the client to send the text too.
    pub(crate) is_apq: bool,
    /// The protocol's version is the one that there is.
    pub(crate) is_version_1: bool,
    /// Which operation is meant.
    pub(crate) operation_name: Option<&'w str>,
    /// From where it came.
    pub(crate) caller: &'w Caller,
    /// What the client calls itself.
    pub(crate) client: &'w str,
}

/// Why there is no document to run.
#[derive(Debug)]
pub(crate) enum DocumentError {
    /// It may not run, or is not known.
    Rejected(Rejection),
    /// It is no document of this graph; the answer says why.
    Invalid(Box<Reply>),
}

impl From<Rejection> for DocumentError {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl DocumentError {
    /// The answer, or the refusal.
    pub(crate) fn into_reply(self) -> Result<Reply, Rejection> {
        match self {
            Self::Invalid(reply) => Ok(*reply),
            Self::Rejected(rejection) => Err(rejection),
        }
    }
}

/// The documents that requests can name.
pub(crate) struct DocumentStore {
    config: DocumentsConfig,
    apq: Apq,
    trusted: RwLock<Arc<Trusted>>,
    with_priority: PriorityDocuments,
    seen: Mutex<Option<Fingerprint>>,
    /// Held while they are read: what was read first must not be stored last.
    reading: tokio::sync::Mutex<()>,
    told: Mutex<HashMap<[u8; 32], u64>>,
    /// When it was last logged that clients register too much.
    warned: Mutex<Option<Instant>>,
    outcomes: Family<Labels, Counter>,
    loaded: Gauge,
    broken: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    outcome: &'static str,
}

impl DocumentStore {
    /// `key` seals what instances share: those with the same secret have the same.
    pub(crate) fn new(
        config: DocumentsConfig,
        key: DocumentKey,
        shared: SharedKv,
        registry: &mut Registry,
    ) -> Self {
        let (outcomes, loaded, broken) = (Family::default(), Gauge::default(), Gauge::default());
        registry.register(
            "persisted_documents",
            "Requests that named a document, or had to",
            Family::clone(&outcomes),
        );
        registry.register("persisted_documents_loaded", "Trusted documents that can run", loaded.clone());
        registry.register("persisted_documents_broken", "Trusted documents that cannot run", broken.clone());
        Self {
            apq: Apq::new(&config, key, shared),
            warned: Mutex::default(),
            config,
            trusted: RwLock::default(),
            with_priority: PriorityDocuments::default(),
            seen: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
            told: Mutex::default(),
            outcomes,
            loaded,
            broken,
        }
    }

    /// Whether ids are looked for in the places that others than the specification and Apollo use, too.
    pub(crate) fn looks_further(&self) -> bool {
        self.config.more_id_fields.is_on(false)
    }

    /// Finds the document that a request means, if this caller may run it.
    pub(crate) async fn find(
        &self,
        graph: &Graph,
        viewer: &Viewer,
        request: DocumentRequest<'_>,
    ) -> Result<Arc<Document>, DocumentError> {
        let mode = self.mode(viewer, request);
        let found = match (request.id, request.text) {
            (None, None) => Err(NO_QUERY.into()),
            (None, Some(text)) => self.by_text(graph, mode, text, request),
            (Some(id), text) => self.by_id(graph, mode, id, text, request).await,
        };
        match (&found, request.id) {
            (Err(DocumentError::Rejected(rejection)), _) if rejection.status != StatusCode::OK => {
                self.count("rejected");
            }
            (Ok(document), Some(id)) if document.has_priority(request.operation_name) => {
                self.with_priority.learn(id);
            }
            _ => {}
        }
        found
    }

    /// Whether a request with this body, or with this id in its path, may mean an operation with priority.
    pub(crate) fn may_have_priority(&self, body: &[u8], id_in_path: Option<&str>) -> bool {
        self.with_priority.are_named_in(body, id_in_path)
    }

    /// Gateways write their own operations: whoever is authenticated as one is exempt.
    fn mode(&self, viewer: &Viewer, request: DocumentRequest<'_>) -> DocumentMode {
        if request.caller.is_gateway || *viewer == Viewer::Service {
            return DocumentMode::Apq;
        }
        self.config.clients.of(request.client).unwrap_or(self.config.mode)
    }

    fn by_text(
        &self,
        graph: &Graph,
        mode: DocumentMode,
        text: &str,
        request: DocumentRequest<'_>,
    ) -> Result<Arc<Document>, DocumentError> {
        match mode {
            DocumentMode::Off | DocumentMode::Apq => {}
            DocumentMode::RequireId => return Err(ID_REQUIRED.into()),
            DocumentMode::Audit | DocumentMode::Safelist => {
                let hash = trusted::body_hash(text);
                if let Some(known) = self.trusted().by_body(&hash) {
                    self.count("body_hit");
                    return Ok(known);
                }
                self.count("unknown_body");
                if mode == DocumentMode::Safelist {
                    return Err(NOT_IN_SAFELIST.into());
                }
                self.tell(hash, request);
            }
        }
        prepare(graph, text, request.caller)
    }

    async fn by_id(
        &self,
        graph: &Graph,
        mode: DocumentMode,
        id: &str,
        text: Option<&str>,
        request: DocumentRequest<'_>,
    ) -> Result<Arc<Document>, DocumentError> {
        if mode == DocumentMode::Off {
            return Err(NOT_SUPPORTED.into());
        }
        if request.is_apq && !request.is_version_1 {
            return Err(VERSION.into());
        }
        let id = normal_id(id).ok_or(NO_ID)?;
        let may_register = matches!(mode, DocumentMode::Apq | DocumentMode::Audit);
        if text.is_some() && !may_register {
            return Err(ID_AND_BODY.into());
        }
        if let (Some(text), Some(hash)) = (text, sha256_of(&id))
            && digest(&SHA256, text.as_bytes()).as_ref() != hash
        {
            return Err(HASH_MISMATCH.into());
        }
        if let Some(known) = self.trusted().by_id(request.client, &id) {
            self.count("id_hit");
            return Ok(known);
        }
        match (sha256_of(&id).filter(|_| may_register), text) {
            (Some(hash), Some(text)) => {
                let document = prepare(graph, text, request.caller)?;
                match self.apq.keep(hash, text, &document, request.caller).await {
                    Registration::Yes => self.count("apq_registered"),
                    Registration::TooLong => self.count("apq_too_long"),
                    Registration::OverBudget => self.warn_of_flood(request),
                }
                Ok(document)
            }
            (Some(hash), None) => match self.apq.get(graph, &hash, request.caller).await {
                Some(document) => {
                    self.count("apq_hit");
                    Ok(document)
                }
                None if request.is_apq => {
                    self.count("apq_miss");
                    Err(NOT_FOUND.into())
                }
                None => Err(self.not_in_list(&id, request)),
            },
            (None, _) => Err(self.not_in_list(&id, request)),
        }
    }

    /// Counts a document that was not kept, and logs it once an hour.
    fn warn_of_flood(&self, request: DocumentRequest<'_>) {
        self.count("apq_over_budget");
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|warned| warned.elapsed() >= WARNED_EVERY) {
            *warned = Some(Instant::now());
            let network = request.caller.network().map(|network| network.to_string());
            let client = echo(request.client);
            tracing::warn!(
                network,
                client,
                "more documents are registered than documents.apq_daily_bytes allows one network, or all; \
                 further ones run and are not kept"
            );
        }
    }

    fn not_in_list(&self, id: &str, request: DocumentRequest<'_>) -> DocumentError {
        self.count("unknown_id");
        let operation = request.operation_name.map(|name| format!(" (operation {})", echo(name)));
        let message = format!("Unknown document \"{}\"{}.", echo(id), operation.unwrap_or_default());
        let refusal = Rejection::new(StatusCode::NOT_FOUND, "PERSISTED_QUERY_NOT_IN_LIST", "");
        Rejection { message: message.into(), ..refusal }.into()
    }

    /// Logs an unknown body the first time, and each time that its count has grown tenfold.
    fn tell(&self, hash: [u8; 32], request: DocumentRequest<'_>) {
        let count = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.len() >= MOST_TOLD && !told.contains_key(&hash) {
                return;
            }
            let count = told.entry(hash).or_default();
            *count += 1;
            *count
        };
        if count.to_string().trim_end_matches('0') == "1" {
            let operation = request.operation_name.map(echo);
            let client = echo(request.client);
            tracing::warn!(
                body = hex::encode(hash),
                client,
                operation,
                count,
                "a document that is not published"
            );
        }
    }

    fn count(&self, outcome: &'static str) {
        self.outcomes.get_or_create(&Labels { outcome }).inc();
    }

    pub(crate) fn trusted(&self) -> Arc<Trusted> {
        Arc::clone(&self.trusted.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the trusted documents if their files have changed, and swaps all of them at once. What is broken is
    /// reported by name and left out.
    pub(crate) async fn reload(&self, graph: &Graph) {
        let _turn = self.reading.lock().await;
        self.read(graph).await;
    }

    async fn read(&self, graph: &Graph) {
        let Some(path) = &self.config.path else { return };
        let fingerprint = Fingerprint::of(path);
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.as_ref() == Some(&fingerprint) {
                return;
            }
            *seen = Some(fingerprint);
        }
        let old = self.trusted();
        let trusted = Trusted::read(path, graph, &old).await;
        for broken in &trusted.broken {
            for problem in broken.lines() {
                tracing::error!(document = broken.id, "{problem}");
            }
        }
        tracing::info!(
            documents = trusted.len(),
            broken = trusted.broken.len(),
            "trusted documents were read"
        );
        self.with_priority.set_trusted(trusted.ids_with_priority());
        self.loaded.set(trusted.len() as i64);
        self.broken.set(trusted.broken.len() as i64);
        *self.trusted.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(trusted);
    }

    /// Reads the trusted documents, whether or not their files look changed.
    pub(crate) async fn reload_all(&self, graph: &Graph) {
        let _turn = self.reading.lock().await;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.read(graph).await;
    }

    /// Keeps the trusted documents as their files are, and the file of their usage as they are used, for ever.
    pub(crate) async fn watch(&self, graph: &Graph) {
        let mut written = Instant::now();
        loop {
            tokio::time::sleep(self.config.poll).await;
            self.reload(graph).await;
            if written.elapsed() >= USAGE_INTERVAL {
                self.write_usage();
                written = Instant::now();
            }
        }
    }

    /// Writes how often each document was asked for, where there is a file for it.
    pub(crate) fn write_usage(&self) {
        let trusted = self.trusted();
        let used = trusted.iter().map(|known| (known.entry.id.clone(), known.take_usage()));
        if let Some(file) = &self.config.usage_file
            && let Err(error) = usage::write(file, used)
        {
            tracing::error!(file = %file.display(), %error, "the usage of documents cannot be written");
        }
    }
}

fn prepare(graph: &Graph, text: &str, caller: &Caller) -> Result<Arc<Document>, DocumentError> {
    graph.prepare_for(text, caller).map_err(DocumentError::Invalid)
}

/// An id as documents are kept under it: hashes without their prefix, in small letters. `None` where it is no id.
pub(crate) fn normal_id(id: &str) -> Option<Cow<'_, str>> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':');
    if id.is_empty() || id.len() > LONGEST_ID || !id.bytes().all(legal) {
        return None;
    }
    let bare = id.strip_prefix("sha256:").unwrap_or(id);
    let is_hash = matches!(bare.len(), 32 | 64) && bare.bytes().all(|byte| byte.is_ascii_hexdigit());
    if bare.len() < id.len() && !(is_hash && bare.len() == 64) {
        return None;
    }
    let is_small = !bare.bytes().any(|byte| byte.is_ascii_uppercase());
    Some(if !is_hash || is_small { Cow::Borrowed(bare) } else { Cow::Owned(bare.to_ascii_lowercase()) })
}

/// The bytes of an id that is a SHA-256.
pub(crate) fn sha256_of(id: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(id, &mut bytes).ok()?;
    Some(bytes)
}

fn echo(text: &str) -> String {
    text.chars().take(ECHOED_CHARACTERS).collect()
}

#[cfg(test)]
mod tests;

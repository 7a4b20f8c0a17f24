//! The trusted documents at one moment: parsed, validated and judged, by id and by body. Never changed: a new set takes
//! the place of the whole. Not here: where they come from (`manifest`).

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use entities::clock;
use schema::{Document, Graph, Reply, engine::syntax};
use serde_json::Value;

use super::{
    manifest::{self, BrokenDocument, DocumentProblem, PublishedDocument},
    usage::Usage,
};

/// A trusted document.
pub struct TrustedDocument {
    /// As it was published.
    pub entry: PublishedDocument,
    document: Arc<Document>,
    used: Arc<Use>,
}

/// How often a document was asked for; survives a reload.
#[derive(Default)]
struct Use {
    requests: AtomicU64,
    /// Of this process, since it started.
    total: AtomicU64,
    last_seconds: AtomicI64,
}

/// All trusted documents.
#[derive(Default)]
pub struct Trusted {
    by_id: HashMap<String, Vec<TrustedDocument>>,
    by_body: HashMap<[u8; 32], Arc<Document>>,
    /// What could not be used.
    pub broken: Vec<BrokenDocument>,
}

impl Trusted {
    /// Reads what was published and makes it ready to run. `old` lends what has not changed.
    pub async fn read(path: &Path, graph: &Graph, old: &Self) -> Self {
        let mut published = manifest::read(path);
        // A file that cannot be read now, because somebody is writing it, has what it had.
        let unreadable: Vec<_> = published.broken.iter().filter(|broken| broken.id.is_none()).collect();
        let had = old.iter().map(|known| &known.entry);
        let had = had.filter(|entry| unreadable.iter().any(|broken| entry.file.starts_with(&broken.file)));
        published.entries.extend(had.cloned());
        let mut trusted = Self { broken: published.broken, ..Self::default() };
        for entry in published.entries {
            if trusted.has_other_on_error(&entry) {
                let why = "the same document is published with another `onError`".to_owned();
                trusted.broken.push(BrokenDocument::because(entry.file, Some(entry.id), why));
                continue;
            }
            if let Some(known) = trusted.find(entry.client.as_deref(), &entry.id) {
                // The same document in several manifests is one.
                if known.entry.text != entry.text {
                    let why = format!("{} has another text under this id", known.entry.file.display());
                    trusted.broken.push(BrokenDocument::because(entry.file, Some(entry.id), why));
                }
                continue;
            }
            let before = old.find(entry.client.as_deref(), &entry.id);
            let unchanged = before.filter(|before| before.entry.text == entry.text);
            let document = if let Some(before) = unchanged {
                Ok(Arc::clone(&before.document))
            } else {
                // There may be thousands: requests get their turn between them.
                tokio::task::yield_now().await;
                graph.prepare(&entry.text)
            };
            match document {
                Ok(document) => {
                    document.trust();
                    document.set_on_error(entry.on_error);
                    trusted.by_body.insert(body_hash(&entry.text), Arc::clone(&document));
                    let used = before.map(|before| Arc::clone(&before.used)).unwrap_or_default();
                    trusted.by_id.entry(entry.id.clone()).or_default().push(TrustedDocument {
                        entry,
                        document,
                        used,
                    });
                }
                Err(reply) => {
                    let problems = problems(*reply);
                    trusted.broken.push(BrokenDocument { file: entry.file, id: Some(entry.id), problems });
                }
            }
        }
        trusted
    }

    /// Whether the same document is there with another `onError`.
    fn has_other_on_error(&self, entry: &PublishedDocument) -> bool {
        let known = self.by_body.get(&body_hash(&entry.text));
        known.is_some_and(|known| known.on_error() != entry.on_error)
    }

    fn find(&self, client: Option<&str>, id: &str) -> Option<&TrustedDocument> {
        self.by_id.get(id)?.iter().find(|known| known.entry.client.as_deref() == client)
    }

    /// The client's own document of this id, or everybody's.
    pub(super) fn by_id(&self, client: &str, id: &str) -> Option<Arc<Document>> {
        let known = self.find(Some(client), id).or_else(|| self.find(None, id))?;
        known.used.requests.fetch_add(1, Ordering::Relaxed);
        known.used.total.fetch_add(1, Ordering::Relaxed);
        known.used.last_seconds.store(clock::now().timestamp(), Ordering::Relaxed);
        Some(Arc::clone(&known.document))
    }

    pub(super) fn by_body(&self, hash: &[u8; 32]) -> Option<Arc<Document>> {
        self.by_body.get(hash).cloned()
    }

    /// Those of documents that have an operation with priority.
    pub(super) fn ids_with_priority(&self) -> impl Iterator<Item = &str> {
        let has_priority = |known: &&TrustedDocument| known.document.has_priority_operations();
        self.iter().filter(has_priority).map(|known| known.entry.id.as_str())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.values().map(Vec::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// All, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &TrustedDocument> {
        self.by_id.values().flatten()
    }
}

impl TrustedDocument {
    /// How often it was asked for since this was last asked, and when last.
    pub(super) fn take_usage(&self) -> Usage {
        Usage {
            requests: self.used.requests.swap(0, Ordering::Relaxed),
            last_used_seconds: self.used.last_seconds.load(Ordering::Relaxed),
        }
    }

    /// How often it was asked for since this process started, and when last.
    pub(crate) fn usage(&self) -> Usage {
        Usage {
            requests: self.used.total.load(Ordering::Relaxed),
            last_used_seconds: self.used.last_seconds.load(Ordering::Relaxed),
        }
    }

    /// The names of its operations.
    pub fn operation_names(&self) -> Vec<&str> {
        self.document.operation_names().collect()
    }
}

/// The hash by which bodies are compared: white space, commas, comments and the order of definitions do not matter.
pub(super) fn body_hash(text: &str) -> [u8; 32] {
    *blake3::hash(syntax::normal(text).as_bytes()).as_bytes()
}

/// The errors of an answer to a document that cannot run.
fn problems(reply: Reply) -> Vec<DocumentProblem> {
    let body: Value = serde_json::from_slice(&reply.body.into_vec()).unwrap_or_default();
    let errors = body["errors"].as_array().into_iter().flatten().map(|error| {
        let place = &error["locations"][0];
        let at = place["line"].as_u64().zip(place["column"].as_u64());
        DocumentProblem { at, message: error["message"].as_str().unwrap_or_default().to_owned() }
    });
    errors.collect()
}

//! Documents that clients register by themselves (Apollo's automatic persisted queries): by the SHA-256 of their text,
//! within a bound on bytes, until nobody has asked for them for a while. Kept in this process ready to run, and as texts
//! among all nodes that share a Redis.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use entities::texts::Texts;
use moka::sync::Cache;
use schema::{Caller, Document, Graph};

use super::hex;

/// Texts kept, bytes; a document that is ready to run takes some ten times its text.
const MOST_BYTES: u64 = 2 << 20;
/// Hashes that are remembered as unknown, and how long: a flood of them asks nobody else.
const MOST_UNKNOWN: u64 = 10_000;
const UNKNOWN_FOR: Duration = Duration::from_secs(5);

pub(super) struct Apq {
    known: Cache<[u8; 32], Known>,
    unknown: Cache<[u8; 32], ()>,
    shared: Texts,
    ttl: Duration,
    longest_text: usize,
}

#[derive(Clone)]
struct Known {
    document: Arc<Document>,
    bytes: u32,
}

impl Apq {
    pub(super) fn new(ttl: Duration, longest_text: usize, shared: Texts) -> Self {
        let known = Cache::builder()
            .max_capacity(MOST_BYTES)
            .weigher(|_, known: &Known| known.bytes)
            .time_to_idle(ttl)
            .build();
        let unknown = Cache::builder().max_capacity(MOST_UNKNOWN).time_to_live(UNKNOWN_FOR).build();
        Self { known, unknown, shared, ttl, longest_text }
    }

    /// The document of this hash, registered here or on another node.
    pub(super) async fn get(&self, graph: &Graph, hash: &[u8; 32], caller: &Caller) -> Option<Arc<Document>> {
        if let Some(known) = self.known.get(hash) {
            return Some(known.document);
        }
        if self.unknown.contains_key(hash) {
            return None;
        }
        let document = self.read_shared(graph, hash, caller).await;
        if document.is_none() {
            self.unknown.insert(*hash, ());
        }
        document
    }

    async fn read_shared(&self, graph: &Graph, hash: &[u8; 32], caller: &Caller) -> Option<Arc<Document>> {
        let text = self.shared.get(&name(hash), self.ttl).await?;
        // Whatever else writes there cannot put another text in the place of this one.
        if text.len() > self.longest_text || digest(&SHA256, text.as_bytes()).as_ref() != hash {
            return None;
        }
        let document = graph.prepare_for(&text, caller).await.ok()?;
        self.remember(*hash, &text, &document);
        Some(document)
    }

    /// Keeps a document under the hash of its text; not if the text is too long.
    pub(super) async fn keep(&self, hash: [u8; 32], text: &str, document: &Arc<Document>) -> bool {
        let fits = text.len() <= self.longest_text;
        if fits {
            self.remember(hash, text, document);
            self.shared.put(&name(&hash), text, self.ttl).await;
        }
        fits
    }

    fn remember(&self, hash: [u8; 32], text: &str, document: &Arc<Document>) {
        let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
        self.known.insert(hash, Known { document: Arc::clone(document), bytes });
        self.unknown.invalidate(&hash);
    }
}

fn name(hash: &[u8; 32]) -> String {
    format!("apq:{}", hex(hash))
}

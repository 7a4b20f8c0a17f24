//! Documents that clients register by themselves (Apollo's automatic persisted queries): by the SHA-256 of their text,
//! within a bound on bytes, until nobody has asked for them for a while. Kept in this process, ready to run.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;
use schema::Document;

/// Texts kept, bytes; a document that is ready to run takes some ten times its text.
const MOST_BYTES: u64 = 8 << 20;

pub(super) struct Apq {
    known: Cache<[u8; 32], Known>,
    longest_text: usize,
}

#[derive(Clone)]
struct Known {
    document: Arc<Document>,
    bytes: u32,
}

impl Apq {
    pub(super) fn new(ttl: Duration, longest_text: usize) -> Self {
        let known = Cache::builder()
            .max_capacity(MOST_BYTES)
            .weigher(|_, known: &Known| known.bytes)
            .time_to_idle(ttl)
            .build();
        Self { known, longest_text }
    }

    pub(super) fn get(&self, hash: &[u8; 32]) -> Option<Arc<Document>> {
        self.known.get(hash).map(|known| known.document)
    }

    /// Keeps a document under the hash of its text; not if the text is too long.
    pub(super) fn keep(&self, hash: [u8; 32], text: &str, document: &Arc<Document>) -> bool {
        let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let fits = text.len() <= self.longest_text;
        if fits {
            self.known.insert(hash, Known { document: Arc::clone(document), bytes });
        }
        fits
    }
}

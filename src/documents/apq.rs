//! Documents that clients register by themselves (Apollo's automatic persisted queries): by the SHA-256 of their text
//! as it was sent. Kept without the white space, commas and comments that make a text long, within a budget (`budget`),
//! shortly until somebody has asked for them by their hash and then until nobody has for a while. In this process they
//! are ready to run; all instances that share a Redis have the texts. A document that is not kept runs all the same,
//! and its client sends the text the next time.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA256, digest};
use entities::{auth::secret::DocumentKey, redis::shared_kv::SharedKv};
use moka::{Expiry, sync::Cache};
use schema::{Caller, Document, Graph, engine::syntax};

use super::budget::Budget;
use crate::config::DocumentsConfig;

/// Texts kept, bytes; a document that is ready to run takes some ten times its text.
const MAX_BYTES: u64 = 2 << 20;
/// Hashes that are remembered as unknown, and how long: a flood of them asks nobody else.
const MAX_UNKNOWN: u64 = 10_000;
const UNKNOWN_FOR: Duration = Duration::from_secs(5);
/// Characters of the seal before a text that has another hash than it is kept under.
const SEAL: usize = 64;
/// A document is shared anew after this part of its time: nobody who has it in his own memory asks Redis for it.
const RENEWED_AFTER: u32 = 2;

/// What became of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Registration {
    Yes,
    /// The text is longer than one may be.
    TooLong,
    /// The client's network, or all, have registered too much.
    OverBudget,
}

pub(super) struct Apq {
    known: Cache<[u8; 32], RegisteredDocument>,
    unknown: Cache<[u8; 32], ()>,
    shared: SharedKv,
    /// Seals the texts that have another hash: what is written there by others is not run.
    key: DocumentKey,
    budget: Budget,
    ttl: Ttl,
    longest_text: usize,
    started: Instant,
}

/// How long a document is kept: until it is asked for by its hash, and after that.
#[derive(Clone, Copy)]
struct Ttl {
    first: Duration,
    used: Duration,
}

#[derive(Clone)]
struct RegisteredDocument {
    document: Arc<Document>,
    /// As it is shared.
    form: Arc<str>,
    /// When it was last shared for the long time, in milliseconds since the start; 0: never.
    shared_at: Arc<AtomicU64>,
}

impl Expiry<[u8; 32], RegisteredDocument> for Ttl {
    fn expire_after_create(&self, _: &[u8; 32], known: &RegisteredDocument, _: Instant) -> Option<Duration> {
        Some(if known.shared_at.load(Ordering::Relaxed) == 0 { self.first } else { self.used })
    }

    fn expire_after_read(
        &self,
        _: &[u8; 32],
        _: &RegisteredDocument,
        _: Instant,
        _: Option<Duration>,
        _: Instant,
    ) -> Option<Duration> {
        Some(self.used)
    }
}

impl Apq {
    pub(super) fn new(config: &DocumentsConfig, key: DocumentKey, shared: SharedKv) -> Self {
        let ttl = Ttl { first: config.apq_first_ttl.min(config.apq_ttl), used: config.apq_ttl };
        let known = Cache::builder()
            .max_capacity(MAX_BYTES)
            .weigher(|_, known: &RegisteredDocument| u32::try_from(known.form.len()).unwrap_or(u32::MAX))
            .expire_after(ttl)
            .build();
        let unknown = Cache::builder().max_capacity(MAX_UNKNOWN).time_to_live(UNKNOWN_FOR).build();
        let started = Instant::now();
        let budget = Budget::new(config.apq_daily_bytes.0, started);
        let longest_text = config.apq_max_bytes.0;
        Self { known, unknown, shared, key, budget, ttl, longest_text, started }
    }

    /// The document of this hash, registered here or on another node.
    pub(super) async fn get(&self, graph: &Graph, hash: &[u8; 32], caller: &Caller) -> Option<Arc<Document>> {
        if let Some(known) = self.known.get(hash) {
            self.keep_shared(hash, &known).await;
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
        // Whoever asks for it has used it: from now on it is kept for long.
        let form = self.shared.get(&name(hash), self.ttl.used).await?;
        let text = self.text_of(hash, &form).filter(|text| text.len() <= self.longest_text)?;
        let document = graph.prepare_for(text, caller).ok()?;
        self.remember(*hash, &form, &document, self.now());
        Some(document)
    }

    /// Keeps a document under the hash of its text, unless one of the bounds is against it.
    pub(super) async fn keep(
        &self,
        hash: [u8; 32],
        text: &str,
        document: &Arc<Document>,
        caller: &Caller,
    ) -> Registration {
        if text.len() > self.longest_text {
            return Registration::TooLong;
        }
        if self.known.contains_key(&hash) {
            // It is kept already; a client that has not heard of it costs nobody anything.
            return Registration::Yes;
        }
        let form = self.form_of(&hash, text);
        if !self.budget.take(caller.network(), form.len(), Instant::now()) {
            return Registration::OverBudget;
        }
        self.remember(hash, &form, document, 0);
        self.shared.put(&name(&hash), &form, self.ttl.first).await;
        Registration::Yes
    }

    fn remember(&self, hash: [u8; 32], form: &str, document: &Arc<Document>, shared_at: u64) {
        let known = RegisteredDocument {
            document: Arc::clone(document),
            form: Arc::from(form),
            shared_at: Arc::new(AtomicU64::new(shared_at)),
        };
        self.known.insert(hash, known);
        self.unknown.invalidate(&hash);
    }

    /// Shares a document for the long time when it is first used, and again before that is over.
    async fn keep_shared(&self, hash: &[u8; 32], known: &RegisteredDocument) {
        let (now, last) = (self.now(), known.shared_at.load(Ordering::Relaxed));
        let renewed_after = u64::try_from((self.ttl.used / RENEWED_AFTER).as_millis()).unwrap_or(u64::MAX);
        if last != 0 && now.saturating_sub(last) < renewed_after {
            return;
        }
        // One of those who use it at once does it.
        let is_first =
            known.shared_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_first {
            self.shared.put(&name(hash), &known.form, self.ttl.used).await;
        }
    }

    /// Milliseconds since the start, and never 0.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// A text as it is kept: as it was sent, or, where that is shorter, in its normal form behind a seal.
    fn form_of<'t>(&self, hash: &[u8; 32], text: &'t str) -> Cow<'t, str> {
        let normal = syntax::normal(text);
        if text.len() <= SEAL + normal.len() {
            return text.into();
        }
        format!("{}{normal}", self.seal(hash, &normal).to_hex()).into()
    }

    /// The text of what is kept under a hash, if it has this hash, or one of our instances has sealed it.
    fn text_of<'f>(&self, hash: &[u8; 32], form: &'f str) -> Option<&'f str> {
        if digest(&SHA256, form.as_bytes()).as_ref() == hash {
            return Some(form);
        }
        let (seal, text) = form.split_at_checked(SEAL)?;
        // Compared in the same time whatever is there.
        (self.seal(hash, text) == blake3::Hash::from_hex(seal).ok()?).then_some(text)
    }

    fn seal(&self, hash: &[u8; 32], text: &str) -> blake3::Hash {
        self.key.seal(&[hash, text.as_bytes()].concat())
    }
}

fn name(hash: &[u8; 32]) -> String {
    format!("apq:{}", hex::encode(hash))
}

//! The server's secret, from outside the database, and all keys that are derived from it: the seal on private
//! keys, that on the secrets of webhooks, the keys of refresh tokens, the key of cursors, the key of
//! registered documents and that of requests with an idempotency key. Each has a context string of its own
//! (BLAKE3's `derive_key`), so that none says anything about another. A copy of the database alone gives none
//! of them. Not here: what is sealed.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    hmac,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::database::page::CursorKey;

/// The secret.
#[derive(Clone)]
pub struct Secret {
    sealing: [u8; 32],
    refreshing: [u8; 32],
    paging: [u8; 32],
    registering: [u8; 32],
    requesting: [u8; 32],
    sealing_webhooks: [u8; 32],
}

/// Names requests with an idempotency key in the database, which says then neither the key nor what was asked for, not
/// even to somebody who could guess it.
#[derive(Clone, Copy)]
pub struct RequestKey([u8; 32]);

impl RequestKey {
    /// What stands for these parts, in this order.
    pub fn hash<'p>(&self, parts: impl IntoIterator<Item = &'p [u8]>) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in parts {
            hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
        }
        hasher.finalize()
    }
}

impl fmt::Debug for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestKey(***)")
    }
}

/// Seals the documents that clients register, where instances share them in a place where others may write, too.
#[derive(Clone, Copy)]
pub struct DocumentKey([u8; 32]);

impl DocumentKey {
    /// The seal of these bytes. Compare it as a `blake3::Hash`, which takes the same time whatever it is.
    pub fn seal(&self, bytes: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.0, bytes)
    }
}

impl fmt::Debug for DocumentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DocumentKey(***)")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl Secret {
    /// What is derived from this text. All instances must be given the same.
    pub fn new(text: &str) -> Self {
        Self {
            sealing: blake3::derive_key("xp-graph 2026-11 seal of signing keys", text.as_bytes()),
            refreshing: blake3::derive_key("xp-graph 2026-11 refresh tokens", text.as_bytes()),
            paging: blake3::derive_key("xp-graph 2026-11 page cursors", text.as_bytes()),
            registering: blake3::derive_key("xp-graph 2026-11 seal of registered documents", text.as_bytes()),
            requesting: blake3::derive_key("xp-graph 2026-11 names of keyed requests", text.as_bytes()),
            sealing_webhooks: blake3::derive_key("xp-graph 2026-11 seal of webhook secrets", text.as_bytes()),
        }
    }

    /// Encrypts; only for the same `name` can it be opened again.
    pub(crate) fn seal(&self, name: &str, plain: &[u8]) -> String {
        seal_with(&self.sealing, name, plain)
    }

    /// Decrypts; `None` where it was sealed by another secret, for another name, or altered.
    pub(crate) fn open(&self, name: &str, sealed: &str) -> Option<Vec<u8>> {
        open_with(&self.sealing, name, sealed)
    }

    /// Encrypts the secret of a webhook.
    pub(crate) fn seal_webhook(&self, name: &str, plain: &[u8]) -> String {
        seal_with(&self.sealing_webhooks, name, plain)
    }

    /// Decrypts the secret of a webhook.
    pub(crate) fn open_webhook(&self, name: &str, sealed: &str) -> Option<Vec<u8>> {
        open_with(&self.sealing_webhooks, name, sealed)
    }

    /// The key of one session's refresh tokens.
    pub(crate) fn session_key(&self, salt: &str) -> hmac::Key {
        let key = blake3::keyed_hash(&self.refreshing, salt.as_bytes());
        hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes())
    }

    /// The key of cursors: the same on all instances, so that a list that was begun on one goes on on another.
    pub fn cursor_key(&self) -> CursorKey {
        CursorKey::new(self.paging)
    }

    /// The key of registered documents: the same on all instances, so that each takes what another one has sealed.
    pub fn document_key(&self) -> DocumentKey {
        DocumentKey(self.registering)
    }

    /// The key of requests with an idempotency key: the same on all instances, so that each finds what another has run.
    pub fn request_key(&self) -> RequestKey {
        RequestKey(self.requesting)
    }
}

fn seal_with(key: &[u8; 32], name: &str, plain: &[u8]) -> String {
    let mut data = plain.to_vec();
    let nonce = cipher(key)
        .seal_in_place_append_tag(Aad::from(name.as_bytes()), &mut data)
        .expect("the system gives random numbers");
    let sealed = [nonce.as_ref().as_slice(), &data].concat();
    URL_SAFE_NO_PAD.encode(sealed)
}

fn open_with(key: &[u8; 32], name: &str, sealed: &str) -> Option<Vec<u8>> {
    let sealed = URL_SAFE_NO_PAD.decode(sealed).ok()?;
    let (nonce, data) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut data = data.to_vec();
    let plain = cipher(key).open_in_place(nonce, Aad::from(name.as_bytes()), &mut data).ok()?;
    Some(plain.to_vec())
}

fn cipher(key: &[u8; 32]) -> RandomizedNonceKey {
    RandomizedNonceKey::new(&AES_256_GCM, key).expect("the key has the right length")
}

/// New random text that nobody can guess: 256 bits.
pub fn random_text() -> String {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random numbers");
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_data_opens_only_with_its_secret_and_name() {
        let secret = Secret::new("one");
        let sealed = secret.seal("key", b"plain");
        assert_eq!(secret.open("key", &sealed).as_deref(), Some(&b"plain"[..]));
        assert_ne!(secret.seal("key", b"plain"), sealed, "each has its own nonce");
        assert_eq!(secret.open("other", &sealed), None);
        assert_eq!(Secret::new("two").open("key", &sealed), None);
        let mut altered = sealed.clone().into_bytes();
        altered[20] ^= 1;
        assert_eq!(secret.open("key", &String::from_utf8_lossy(&altered)), None);
        for nonsense in ["", "AA", "ä"] {
            assert_eq!(secret.open("key", nonsense), None);
        }
        assert_eq!(format!("{secret:?}"), "Secret(***)");
    }

    #[test]
    fn keys_are_the_same_on_all_instances_and_each_is_another() {
        let (one, again, other) = (Secret::new("one"), Secret::new("one"), Secret::new("other"));
        let seal = |secret: &Secret| secret.document_key().seal(b"text");
        assert_eq!(seal(&one), seal(&again));
        assert_ne!(seal(&one), seal(&other));
        let keys = [one.sealing, one.refreshing, one.paging, one.registering, one.sealing_webhooks];
        assert!(keys.iter().enumerate().all(|(at, key)| !keys[..at].contains(key)));
        assert_eq!(
            format!("{:?} {:?}", one.cursor_key(), one.document_key()),
            "CursorKey(***) DocumentKey(***)"
        );
    }
}

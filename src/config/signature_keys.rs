//! The keys that gateways sign requests with (`gateway.signature_keys`), by their names, each with its
//! algorithm. Not here: what a signature must cover, and when it counts (`gateway::signature`).

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    hmac,
    signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::setting::{Setting, split_list};

/// The keys, by their names (`keyid`).
#[derive(Clone, Default)]
pub struct SignatureKeys(Vec<(String, VerifyKey)>);

/// What a signature is verified with, and by which algorithm (RFC 9421, section 3.3).
#[derive(Clone)]
pub(crate) enum VerifyKey {
    Shared(Box<hmac::Key>),
    Public(&'static str, Arc<ParsedPublicKey>),
}

impl SignatureKeys {
    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&VerifyKey> {
        self.0.iter().find(|(of, _)| of == name).map(|(_, key)| key)
    }
}

impl fmt::Debug for SignatureKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl VerifyKey {
    /// HMAC with a shared secret.
    pub(crate) const SHARED: &'static str = "hmac-sha256";
    /// Signatures of the Edwards curve 25519, with a public key.
    pub(crate) const ED25519: &'static str = "ed25519";
    /// ECDSA on the curve P-256, with a public key.
    pub(crate) const P256: &'static str = "ecdsa-p256-sha256";

    /// Reads a key in base64. `None`: the algorithm is not known, or the key is not one of it, or too short.
    pub(crate) fn parse(algorithm: &str, key: &str) -> Option<Self> {
        let bytes = BASE64_STANDARD.decode(key).ok()?;
        let public = |name, algorithm| {
            let key = ParsedPublicKey::new(algorithm, bytes.as_slice()).ok()?;
            Some(Self::Public(name, Arc::new(key)))
        };
        match algorithm {
            Self::SHARED if bytes.len() >= 32 => {
                Some(Self::Shared(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &bytes))))
            }
            Self::ED25519 => public(Self::ED25519, &ED25519),
            Self::P256 => public(Self::P256, &ECDSA_P256_SHA256_FIXED),
            _ => None,
        }
    }

    /// The name of the algorithm, as in `alg`.
    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            Self::Shared(_) => Self::SHARED,
            Self::Public(name, _) => name,
        }
    }

    /// Whether this key made `signature` of this message.
    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Shared(key) => hmac::verify(key, message, signature).is_ok(),
            Self::Public(_, key) => key.verify_sig(message, signature).is_ok(),
        }
    }
}

impl Setting for SignatureKeys {
    const EXPECTS: &'static str = "name=algorithm:key, …";
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        let keys = split_list(text).map(|part| {
            let (name, rest) = part.split_once('=')?;
            let (algorithm, key) = rest.split_once(':')?;
            Some((name.trim().to_owned(), VerifyKey::parse(algorithm.trim(), key.trim())?))
        });
        let keys: Option<_> = keys.collect();
        keys.map(Self).ok_or_else(|| {
            "keys are written as in main=ed25519:<base64>, other=hmac-sha256:<base64 of 32 bytes or more>; \
             ed25519 and ecdsa-p256-sha256 take public keys, raw or as SubjectPublicKeyInfo"
                .into()
        })
    }

    fn show(text: &str) -> String {
        if text.is_empty() { String::new() } else { "***".to_owned() }
    }
}

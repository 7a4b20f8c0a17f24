//! HTTP message signatures (RFC 9421) over a request, with its body bound by `content-digest` (RFC 9530).
//! What must be covered, how old a signature may be and which keys there are is decided here; what is signed
//! says only with which key. A signature with a nonce is good once on this instance; one without is good
//! until it is too old.

use std::{fmt::Write as _, time::Duration};

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{self, digest},
};
use axum::http::{HeaderMap, HeaderName, Method, header, request::Parts, uri::Authority};
use moka::{policy::EvictionPolicy, sync::Cache};
use sfv::{BareItem, Dictionary, FieldType as _, InnerList, Item, List, ListEntry, Parser, StringRef};

use crate::config::signature_keys::SignatureKeys;

const SIGNATURE: HeaderName = HeaderName::from_static("signature");
const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
/// How far the clock of a gateway may be ahead.
const LEEWAY_SECONDS: i64 = 5;
/// Signatures of one request that are looked at.
const MOST_SIGNATURES: usize = 4;
/// Components that one signature covers at most: each is compared with all others before anything is known of
/// the signer.
const MOST_COMPONENTS: usize = 64;
/// Nonces that are remembered; each as long as its signature could be used again.
const MOST_NONCES: u64 = 1_000_000;

/// Why a signature is none. For logs and tests; the caller is told no more than that.
pub(super) type Why = &'static str;

/// Checks signatures.
pub(super) struct Signatures {
    keys: SignatureKeys,
    max_age_seconds: i64,
    must_cover_body: bool,
    nonces: Cache<[u8; 32], ()>,
}

/// What a good signature says of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// There is none that counts.
    Absent,
    /// It has this `content-digest`.
    Has(String),
    /// Nothing.
    Uncovered,
}

impl Signatures {
    pub(super) fn new(keys: SignatureKeys, max_age: Duration, must_cover_body: bool) -> Self {
        let max_age_seconds = i64::try_from(max_age.as_secs()).unwrap_or(i64::MAX);
        Self { keys, max_age_seconds, must_cover_body, nonces: nonces(MOST_NONCES, max_age) }
    }

    /// What was used once stays used.
    pub(super) fn remember(&self, before: &Self) {
        for (nonce, ()) in &before.nonces {
            self.nonces.insert(*nonce, ());
        }
    }

    /// Is a request signed, as far as we have keys?
    pub(super) fn is_asked(&self, headers: &HeaderMap) -> bool {
        !self.keys.is_empty() && headers.contains_key(SIGNATURE_INPUT)
    }

    /// Checks the signatures of a request's head; one good one is enough. The body must then be held to `Body`.
    pub(super) fn check(&self, head: &Parts, now: i64) -> Result<Body, Why> {
        let inputs = dictionary(&head.headers, &SIGNATURE_INPUT).ok_or("signature-input cannot be read")?;
        let signatures = dictionary(&head.headers, &SIGNATURE).ok_or("signature cannot be read")?;
        let mut why = "the signature is missing";
        for (label, input) in inputs.iter().take(MOST_SIGNATURES) {
            let ListEntry::InnerList(input) = input else { continue };
            let Some(ListEntry::Item(Item { bare_item: BareItem::ByteSequence(signature), .. })) =
                signatures.get(label.as_str())
            else {
                continue;
            };
            match self.check_one(head, input, signature, now) {
                Ok(body) => return Ok(body),
                Err(other) => why = other,
            }
        }
        Err(why)
    }

    fn check_one(&self, head: &Parts, input: &InnerList, signature: &[u8], now: i64) -> Result<Body, Why> {
        // What is there and cannot be read would otherwise count as absent: a nonce that stops no replay.
        let text = |name: &str| read(input, name, |item| item.as_string().map(StringRef::as_str));
        let time = |name: &str| read(input, name, |item| item.as_integer().map(i64::from));
        let keyid = text("keyid")?.ok_or("keyid is missing")?;
        let key = self.keys.get(keyid).ok_or("unknown key")?;
        if text("alg")?.is_some_and(|algorithm| algorithm != key.algorithm()) {
            return Err("another algorithm");
        }
        let created = time("created")?.ok_or("the creation time is missing")?;
        if created > now.saturating_add(LEEWAY_SECONDS) {
            return Err("not yet valid");
        }
        let ends = created.saturating_add(self.max_age_seconds);
        if now > time("expires")?.map_or(ends, |expires| expires.min(ends)) {
            return Err("too old");
        }
        let (nonce, covered) = (text("nonce")?, covered(input)?);
        let covers = |name: &str| covered.contains(&name);
        let covers_target = covers("@target-uri")
            || covers("@request-target")
            || covers("@path") && (covers("@query") || head.uri.query().is_none());
        if !covers("@method") || !covers_target {
            return Err("method or target are not covered");
        }
        let body = if covers(CONTENT_DIGEST.as_str()) {
            Body::Has(field(&head.headers, CONTENT_DIGEST.as_str()).ok_or("a covered field is missing")?)
        } else if matches!(head.method, Method::GET | Method::HEAD) {
            Body::Absent
        } else if self.must_cover_body {
            return Err("the body is not covered");
        } else {
            Body::Uncovered
        };
        // Where TLS ended is not known here.
        let is_good = ["http", "https"].into_iter().any(|scheme| {
            base(head, &covered, input, scheme).is_some_and(|base| key.has_signed(base.as_bytes(), signature))
        });
        if !is_good {
            return Err("the signature does not match");
        }
        if let Some(nonce) = nonce {
            let mut hasher = blake3::Hasher::new();
            hasher
                .update(&(keyid.len() as u64).to_le_bytes())
                .update(keyid.as_bytes())
                .update(nonce.as_bytes());
            if !self.nonces.entry(*hasher.finalize().as_bytes()).or_insert(()).is_fresh() {
                return Err("replayed");
            }
        }
        Ok(body)
    }
}

/// A parameter of a signature, if it is there.
fn read<'i, T>(
    input: &'i InnerList,
    name: &str,
    of: impl Fn(&'i BareItem) -> Option<T>,
) -> Result<Option<T>, Why> {
    let given = input.params.get(name);
    given.map(|item| of(item).ok_or("a parameter of another type")).transpose()
}

/// Room for so many nonces of signatures that may be so old.
fn nonces(most: u64, max_age: Duration) -> Cache<[u8; 32], ()> {
    let leeway = Duration::from_secs(2 * LEEWAY_SECONDS.unsigned_abs());
    let nonces = Cache::builder().max_capacity(most).time_to_live(max_age.saturating_add(leeway));
    // By default a full cache takes nothing that it has not been asked for before: no nonce would be
    // remembered any more.
    nonces.eviction_policy(EvictionPolicy::lru()).build()
}

/// The names of the covered components, each once and without parameters: what we do not know how to read is no good.
fn covered(input: &InnerList) -> Result<Vec<&str>, Why> {
    if input.items.len() > MOST_COMPONENTS {
        return Err("too many components");
    }
    let mut names = Vec::with_capacity(input.items.len());
    for item in &input.items {
        let name = item.bare_item.as_string().ok_or("a component is not a name")?.as_str();
        if !item.params.is_empty() || names.contains(&name) {
            return Err("a component that is not supported");
        }
        names.push(name);
    }
    Ok(names)
}

/// The signature base (RFC 9421, §2.5).
fn base(head: &Parts, covered: &[&str], input: &InnerList, scheme: &str) -> Option<String> {
    let mut base = String::new();
    for name in covered {
        let value =
            if name.starts_with('@') { derived(head, name, scheme)? } else { field(&head.headers, name)? };
        // Never more than one line: fields have no line breaks.
        let _ = writeln!(base, "\"{name}\": {value}");
    }
    let parameters: List = vec![ListEntry::InnerList(input.clone())];
    let _ = write!(base, "\"@signature-params\": {}", parameters.serialize()?);
    Some(base)
}

/// A component that is made from the request's line (§2.2).
fn derived(head: &Parts, name: &str, scheme: &str) -> Option<String> {
    let target = || head.uri.path_and_query().map_or("/", |target| target.as_str());
    let authority = || {
        let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        host.or_else(|| head.uri.authority().map(Authority::as_str))
    };
    Some(match name {
        "@method" => head.method.as_str().to_owned(),
        "@scheme" => scheme.to_owned(),
        "@authority" => {
            let authority = authority()?.to_ascii_lowercase();
            let default = if scheme == "https" { ":443" } else { ":80" };
            authority.strip_suffix(default).map_or(authority.clone(), ToOwned::to_owned)
        }
        "@target-uri" => format!("{scheme}://{}{}", authority()?, target()),
        "@request-target" => target().to_owned(),
        "@path" => head.uri.path().to_owned(),
        "@query" => format!("?{}", head.uri.query().unwrap_or_default()),
        _ => return None,
    })
}

/// All values of a field as one line (§2.1).
fn field(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut values = headers.get_all(name).iter().peekable();
    values.peek()?;
    let values: Option<Vec<_>> = values.map(|value| value.to_str().ok().map(str::trim)).collect();
    values.map(|values| values.join(", "))
}

fn dictionary(headers: &HeaderMap, name: &HeaderName) -> Option<Dictionary> {
    Parser::new(&field(headers, name.as_str())?).parse().ok()
}

/// Does a body have the digests of this `content-digest`? At least one of a kind that holds, and all of those.
pub(super) fn has_digest(body: &[u8], content_digest: &str) -> bool {
    let Ok(given) = Parser::new(content_digest).parse::<Dictionary>() else { return false };
    let known = given.iter().filter_map(|(name, value)| {
        let algorithm = match name.as_str() {
            "sha-256" => &digest::SHA256,
            "sha-512" => &digest::SHA512,
            _ => return None,
        };
        let ListEntry::Item(Item { bare_item: BareItem::ByteSequence(value), .. }) = value else {
            return Some(false);
        };
        Some(verify_slices_are_equal(digest(algorithm, body).as_ref(), value).is_ok())
    });
    let results: Vec<bool> = known.collect();
    !results.is_empty() && results.into_iter().all(|is_equal| is_equal)
}

#[cfg(test)]
mod tests;

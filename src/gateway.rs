//! Which requests come from a gateway, and how far it vouches for them. A gateway proves itself by a shared
//! secret in `Router-Authorization`, by an HTTP message signature (`signature`), by Hive Gateway's HMAC
//! (`hmac`), or by coming to the listener that is for gateways alone. The end user is never the gateway: it
//! is whose bearer token it forwards, or, where everything in the request is vouched for and the operator
//! wants that, whose claims. What proves nothing is refused rather than served as a stranger's. Not here:
//! what gateways may do that others may not.

mod hmac;
mod signature;

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
};
use axum::http::{HeaderMap, HeaderName, StatusCode, request::Parts};
use schema::VariableSets;
use serde_json::Value;

use crate::{config::GatewayConfig, rejection::Rejection};
use signature::{Body, Signatures};

const ROUTER_AUTHORIZATION: HeaderName = HeaderName::from_static("router-authorization");
const UNKNOWN: Rejection = Rejection::new(
    StatusCode::UNAUTHORIZED,
    "UNAUTHENTICATED",
    "The gateway's credentials, or its signature, are not valid.",
);

/// Marks the requests of the listener that only gateways can reach.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnListener;

/// How far a gateway vouches for a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trust {
    /// There is no gateway that we know.
    #[default]
    Nothing,
    /// It wrote the document; the rest may be somebody else's.
    Document,
    /// It wrote all of this request.
    Request,
    /// Whatever comes by this connection is its own, what is sent on a WebSocket included.
    Connection,
}

impl Trust {
    pub(crate) fn is_gateway(self) -> bool {
        self > Self::Nothing
    }
}

/// What the head of a request proves, if its body keeps to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) trust: Trust,
    body: Body,
}

/// The gateways that we know.
pub(crate) struct Gateways {
    /// The SHA-256 of each secret: compared in the same time whatever is sent.
    secrets: Vec<[u8; 32]>,
    hmac_keys: Vec<aws_lc_rs::hmac::Key>,
    signatures: Signatures,
}

impl Gateways {
    pub(crate) fn new(config: &GatewayConfig) -> Self {
        Self {
            secrets: config.secrets.expose().map(sha256).collect(),
            hmac_keys: hmac::keys(config.hmac_secrets.expose()),
            signatures: Signatures::new(
                config.signature_keys.clone(),
                config.signature_max_age,
                config.signature_covers_body,
            ),
        }
    }

    /// Knowing which signatures were used before these took the place of others.
    pub(crate) fn remembering(self, before: &Self) -> Self {
        self.signatures.remember(&before.signatures);
        self
    }

    /// What a request's connection and headers prove.
    pub(crate) fn head(&self, parts: &Parts) -> Result<Head, Rejection> {
        let connection = Head { trust: Trust::Connection, body: Body::Absent };
        if parts.extensions.get::<OwnListener>().is_some() {
            return Ok(connection);
        }
        let mut given = parts.headers.get_all(ROUTER_AUTHORIZATION).iter();
        if let Some(secret) = given.next()
            && !self.secrets.is_empty()
        {
            let is_known = given.next().is_none() && self.is_secret(secret.as_bytes());
            return if is_known { Ok(connection) } else { Err(refuse("Router-Authorization")) };
        }
        if self.signatures.is_asked(&parts.headers) {
            let now = entities::clock::now().timestamp();
            let body = self.signatures.check(parts, now).map_err(refuse)?;
            let trust = if body == Body::Uncovered { Trust::Document } else { Trust::Request };
            return Ok(Head { trust, body });
        }
        Ok(Head { trust: Trust::Nothing, body: Body::Absent })
    }

    /// Whether this is the secret of a gateway, which routers send in the place of headers when a WebSocket
    /// begins. Where there are no secrets none is looked at.
    pub(crate) fn has_secret(&self, given: &str) -> Result<bool, Rejection> {
        match self.secrets.is_empty() {
            true => Ok(false),
            false if self.is_secret(given.as_bytes()) => Ok(true),
            false => Err(refuse("router-authorization of connection_init")),
        }
    }

    /// Whether a request may be a gateway's, which its proof will show.
    pub(crate) fn may_have_sent(&self, headers: &HeaderMap) -> bool {
        let has_secret = !self.secrets.is_empty() && headers.contains_key(ROUTER_AUTHORIZATION);
        has_secret || self.may_sign_in_body() || self.signatures.is_asked(headers)
    }

    /// Whether a request without a gateway's head may still turn out to be one's.
    pub(crate) fn may_sign_in_body(&self) -> bool {
        !self.hmac_keys.is_empty()
    }

    /// What a request itself proves beyond its head: by a signature (`extensions.hmac-signature`) over its text and its
    /// variables. `text`: none where the request may mean another document than that.
    pub(crate) fn signed_body(
        &self,
        head: Trust,
        signature: Option<&Value>,
        text: Option<&str>,
        variables: &VariableSets,
    ) -> Result<Trust, Rejection> {
        let Some(signature) = signature else { return Ok(head) };
        if head.is_gateway() || !self.may_sign_in_body() {
            return Ok(head);
        }
        let checked = match (signature.as_str(), text, variables) {
            (Some(signature), Some(text), VariableSets::One(variables)) => {
                hmac::check(&self.hmac_keys, text, variables, signature)
            }
            (.., VariableSets::Many(_)) => {
                Err("hmac-signature covers one set of variables, not a list of them")
            }
            _ => Err("hmac-signature is not a text, or the request means another document than its own text"),
        };
        checked.map(|()| Trust::Document).map_err(refuse)
    }

    fn is_secret(&self, given: &[u8]) -> bool {
        let given = sha256_bytes(given);
        // All are compared: which of them it is shows in no time.
        let found = self.secrets.iter().filter(|secret| verify_slices_are_equal(*secret, &given).is_ok());
        found.count() > 0
    }
}

impl Head {
    /// Holds the body to what was signed.
    pub(crate) fn check_body(&self, body: &[u8]) -> Result<(), Rejection> {
        match &self.body {
            Body::Absent | Body::Uncovered => Ok(()),
            Body::Has(digest) if signature::has_digest(body, digest) => Ok(()),
            Body::Has(_) => Err(refuse("the body has another digest")),
        }
    }
}

/// The claims of an end user whose token a gateway has verified (`extensions.jwt`). Hive Gateway sends
/// `{payload, token}`, Hive Router the claims themselves. Only where the gateway vouches for more than the
/// document. What a gateway vouches for may still be its client's: some pass on `extensions` as they come, so
/// these count only where the operator says so.
pub(crate) fn claims(trust: Trust, given: Option<&Value>) -> Option<&Value> {
    let claims = given.filter(|claims| trust > Trust::Document && !claims.is_null())?;
    Some(claims.get("payload").filter(|payload| payload.is_object()).unwrap_or(claims))
}

fn refuse(why: &'static str) -> Rejection {
    tracing::warn!(why, "a gateway was refused");
    UNKNOWN
}

fn sha256(text: &str) -> [u8; 32] {
    sha256_bytes(text.as_bytes())
}

fn sha256_bytes(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

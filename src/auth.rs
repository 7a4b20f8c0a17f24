//! Bearer token -> `schema::Viewer`. Access tokens are ES256 JWTs (RFC 9068, `typ: at+jwt`), checked more strictly than
//! the JWT crate does by default: the algorithm is fixed, `exp nbf iss aud sub` are required, the key is found by its
//! thumbprint, and headers that point at other keys are refused. Verified tokens are remembered until they end, so a
//! hit costs a hash instead of a signature check. Not here: sessions, refresh tokens, passwords, what a viewer may see.

use std::path::Path;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use axum::http::{HeaderMap, header::AUTHORIZATION};
use entities::{
    clock,
    id::{self, SessionId, UserId},
    user::Role,
};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation,
    jwk::{Jwk, ThumbprintHash},
};
use moka::sync::Cache;
use schema::Viewer;
use serde::{Deserialize, Serialize};

use crate::config::AuthConfig;

/// Longest token that is looked at; checked before anything is decoded.
const LONGEST_TOKEN_BYTES: usize = 4096;
/// Verified tokens that are remembered.
const REMEMBERED_TOKENS: u64 = 100_000;
/// How far the clocks of two nodes may be apart.
const LEEWAY_SECONDS: u64 = 5;
/// The `typ` of access tokens (RFC 9068).
const TOKEN_TYPE: &str = "at+jwt";

/// The token is refused. Deliberately says no more to the client than that; the reason is for logs and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the access token is not valid: {0}")]
pub struct Refused(pub &'static str);

/// The key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is not readable.
    #[error("auth.key_file {path}: {source}; check the path and its permissions")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error(
        "auth.key_file {path}: no EC P-256 private key in PKCS#8 PEM; make one with `openssl genpkey -algorithm EC \
         -pkeyopt ec_paramgen_curve:P-256 -out key.pem` (convert an old one with `openssl pkcs8 -topk8 -nocrypt`)"
    )]
    Unfit {
        /// The file.
        path: String,
    },
    /// The system gave no key.
    #[error("no key could be made for development")]
    NotMade,
}

/// Checks and mints access tokens with one key.
#[derive(Debug)]
pub struct Auth {
    signing: EncodingKey,
    verifying: DecodingKey,
    kid: String,
    issuer: String,
    audience: String,
    validation: Validation,
    verified: Cache<[u8; 32], Verified>,
}

/// What is remembered of a verified token.
#[derive(Clone, Debug)]
struct Verified {
    viewer: Viewer,
    /// Seconds since 1970.
    expires_at: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sid: Option<String>,
    role: String,
    #[serde(default)]
    iat: i64,
    nbf: i64,
    exp: i64,
    #[serde(default)]
    jti: String,
}

impl Auth {
    /// With a key that is made now and lost at exit: development and tests.
    pub fn ephemeral(config: &AuthConfig) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| KeyError::NotMade)?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| KeyError::NotMade)?;
        Self::with_key(config, EncodingKey::from_ec_der(pkcs8.as_ref())).ok_or(KeyError::NotMade)
    }

    /// With the private key of a PEM file.
    pub fn from_file(config: &AuthConfig, file: &Path) -> Result<Self, KeyError> {
        let path = file.display().to_string();
        match std::fs::read(file) {
            Err(source) => Err(KeyError::Unreadable { path, source }),
            Ok(pem) => EncodingKey::from_ec_pem(&pem)
                .ok()
                .and_then(|key| Self::with_key(config, key))
                .ok_or(KeyError::Unfit { path }),
        }
    }

    /// `None` when the key is no P-256 private key.
    fn with_key(config: &AuthConfig, signing: EncodingKey) -> Option<Self> {
        let public = Jwk::from_encoding_key(&signing, Algorithm::ES256).ok()?;
        let kid = public.thumbprint(ThumbprintHash::SHA256).ok()?;
        let verifying = DecodingKey::from_jwk(&public).ok()?;
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        validation.set_issuer(&[&config.issuer]);
        validation.set_audience(&[&config.audience]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_SECONDS;
        Some(Self {
            signing,
            verifying,
            kid,
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            validation,
            verified: Cache::new(REMEMBERED_TOKENS),
        })
    }

    /// Who sends a request with these headers. Without a token: `Anonymous`. With anything that is no valid token,
    /// another scheme included, the request is refused rather than quietly served as anonymous.
    pub fn viewer(&self, headers: &HeaderMap) -> Result<Viewer, Refused> {
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = given.next() else { return Ok(Viewer::Anonymous) };
        if given.next().is_some() {
            return Err(Refused("more than one authorization header"));
        }
        let (scheme, token) =
            value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(Refused("no bearer token"))?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Refused("not the bearer scheme"));
        }
        self.verify(token.trim())
    }

    /// Who a token stands for.
    pub fn verify(&self, token: &str) -> Result<Viewer, Refused> {
        if token.len() > LONGEST_TOKEN_BYTES {
            return Err(Refused("too long"));
        }
        let hash = *blake3::hash(token.as_bytes()).as_bytes();
        if let Some(known) = self.verified.get(&hash) {
            if clock::now().timestamp() < known.expires_at {
                return Ok(known.viewer);
            }
            self.verified.invalidate(&hash);
            return Err(Refused("expired"));
        }
        self.check_header(token)?;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.verifying, &self.validation)
            .map_err(|error| Refused(reason(&error)))?
            .claims;
        let session = match claims.sid.as_deref() {
            None => None,
            Some(sid) => Some(SessionId::parse(sid).ok_or(Refused("sid is no id"))?),
        };
        let viewer = Viewer::User {
            id: UserId::parse(&claims.sub).ok_or(Refused("sub is no id"))?,
            role: Role::parse(&claims.role).ok_or(Refused("unknown role"))?,
            session,
        };
        let expires_at = claims.exp.saturating_add(LEEWAY_SECONDS as i64);
        self.verified.insert(hash, Verified { viewer: viewer.clone(), expires_at });
        Ok(viewer)
    }

    /// Mints an access token for an account; it belongs to no session.
    pub fn mint(&self, user: UserId, role: Role, ttl_seconds: u32) -> Result<String, Refused> {
        let now = clock::now().timestamp();
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: user.to_string(),
            sid: None,
            role: role.as_str().into(),
            iat: now,
            nbf: now,
            exp: now + i64::from(ttl_seconds),
            jti: id::new().to_string(),
        };
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some(TOKEN_TYPE.into());
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, &claims, &self.signing).map_err(|_| Refused("it could not be signed"))
    }

    fn check_header(&self, token: &str) -> Result<(), Refused> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| Refused(reason(&error)))?;
        if header.alg != Algorithm::ES256 {
            return Err(Refused("another algorithm"));
        }
        let typed = |typ: &str| {
            typ.eq_ignore_ascii_case(TOKEN_TYPE) || typ.eq_ignore_ascii_case("application/at+jwt")
        };
        if !header.typ.as_deref().is_some_and(typed) {
            return Err(Refused("not an access token"));
        }
        if header.kid.as_deref() != Some(&self.kid) {
            return Err(Refused("another key"));
        }
        let points_elsewhere =
            header.jku.is_some() || header.x5u.is_some() || header.x5c.is_some() || header.jwk.is_some();
        if points_elsewhere || header.crit.is_some() || header.zip.is_some() || header.enc.is_some() {
            return Err(Refused("a header that is not supported"));
        }
        Ok(())
    }
}

fn reason(error: &jsonwebtoken::errors::Error) -> &'static str {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::ExpiredSignature => "expired",
        ErrorKind::ImmatureSignature => "not yet valid",
        ErrorKind::InvalidIssuer => "another issuer",
        ErrorKind::InvalidAudience => "another audience",
        ErrorKind::InvalidSignature => "the signature does not match",
        ErrorKind::MissingRequiredClaim(_) => "a claim is missing",
        _ => "malformed",
    }
}

#[cfg(test)]
mod tests;

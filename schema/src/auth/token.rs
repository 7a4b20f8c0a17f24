//! Access tokens: ES256 JWTs (RFC 9068, `typ: at+jwt`), checked more strictly than the JWT crate does by
//! default: the algorithm is fixed, `exp nbf iss aud sub` are required, the key is found by its thumbprint,
//! and headers that point at other keys are refused. Verified tokens are remembered until they end, so a hit
//! costs a hash instead of a signature check; whether they were revoked is asked every time. Not here: where
//! keys are kept (`entities::key`), refresh tokens and passwords (the crate `entities`), headers (`src`).

use std::{
    fmt,
    sync::{Arc, RwLock},
};

use entities::{
    Role,
    auth::{
        key::{SigningKey, State},
        revocation::{ACCESS_TOKEN_SECONDS, LONGEST_TOKEN_SECONDS},
    },
    clock::{self, Time},
    id::{self, SessionId, UserId},
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, jwk::Jwk};
use moka::sync::Cache;
use serde::{Deserialize, Serialize};

use crate::auth::viewer::{Grant, Viewer};

/// Longest token that is looked at; checked before anything is decoded.
const LONGEST_TOKEN_BYTES: usize = 4096;
/// Verified tokens that are remembered.
const REMEMBERED_TOKENS: u64 = 100_000;
/// How far the clocks of two instances may be apart.
const LEEWAY_SECONDS: u64 = 5;
/// The `typ` of access tokens (RFC 9068).
const TOKEN_TYPE: &str = "at+jwt";

/// The token is refused. Deliberately says no more to the client than that; the reason is for logs and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the access token is not valid: {0}")]
pub struct InvalidToken(pub &'static str);

/// Whom a good token stands for, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// The caller.
    pub viewer: Viewer,
    /// The epoch of the account's rights when the token was made.
    pub epoch: i64,
    /// When the token ends; no leeway is left then.
    pub expires_at: Time,
}

/// What a token is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The account.
    pub user: UserId,
    /// Its role.
    pub role: Role,
    /// The epoch of its rights.
    pub epoch: i64,
    /// The session; none for tokens that are minted by hand.
    pub session: Option<SessionId>,
}

/// What a token says.
#[derive(Debug, Serialize, Deserialize)]
pub struct Claims {
    /// Who made it.
    pub iss: String,
    /// For whom.
    pub aud: Audience,
    /// The account.
    pub sub: String,
    /// The session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// The account's role.
    pub role: String,
    /// What the role grants, for gateways (RFC 9068, §2.2.3); not read here.
    #[serde(default)]
    pub scope: String,
    /// The epoch of the account's rights.
    #[serde(default)]
    pub epoch: i64,
    /// Made at, in seconds since 1970 as all times here.
    #[serde(default)]
    pub iat: i64,
    /// Good from.
    pub nbf: i64,
    /// Good until.
    pub exp: i64,
    /// Its own id.
    #[serde(default)]
    pub jti: String,
}

/// One audience or several (RFC 7519, §4.1.3).
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// Several; what this server writes.
    Many(Vec<String>),
    /// One.
    One(String),
}

/// Makes and checks access tokens.
pub struct Tokens {
    issuer: String,
    audience: String,
    validation: Validation,
    keys: RwLock<Arc<Keys>>,
    verified: Cache<[u8; 32], Bearer>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { issuer, audience, .. } = self;
        f.debug_struct("Tokens").field("issuer", issuer).field("audience", audience).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Keys {
    all: Vec<Key>,
    /// The public ones as a JSON Web Key Set (RFC 7517).
    published: String,
}

struct Key {
    kid: String,
    signs_from: Time,
    signing: EncodingKey,
    verifying: DecodingKey,
}

impl Tokens {
    /// With no keys yet: nothing can be made, and nothing is good.
    pub fn new(issuer: &str, audience: &str) -> Self {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_SECONDS;
        Self {
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            validation,
            keys: RwLock::default(),
            verified: Cache::new(REMEMBERED_TOKENS),
        }
    }

    /// From now on these keys are good and no others. Returns the thumbprint of the one that signs now.
    pub fn install(&self, keys: &[SigningKey]) -> Option<String> {
        let all: Vec<Key> = keys.iter().filter_map(read_key).collect();
        let public: Vec<&str> = keys.iter().map(|key| key.public_key.as_str()).collect();
        let keys_before = {
            let mut current = self.keys.write().expect("no panic happens under this lock");
            let published = format!("{{\"keys\":[{}]}}", public.join(","));
            std::mem::replace(&mut *current, Arc::new(Keys { all, published }))
        };
        let is_good = |kid: &str| keys.iter().any(|key| key.kid == kid);
        if !keys_before.all.iter().all(|key| is_good(&key.kid)) {
            // Some of the remembered tokens may be of a key that is gone.
            self.verified.invalidate_all();
        }
        keys.iter().find(|key| key.state == State::Active).map(|key| key.kid.clone())
    }

    /// The public keys as a JSON Web Key Set.
    pub fn published(&self) -> String {
        self.keys().published.clone()
    }

    /// Makes a token.
    ///
    /// # Errors
    /// Only without a key.
    pub fn mint(&self, subject: Subject, ttl_seconds: u32) -> Result<(String, Time), InvalidToken> {
        let (keys, now) = (self.keys(), clock::now());
        // The newest that has begun; the newest come first.
        let key = keys
            .all
            .iter()
            .find(|key| key.signs_from <= now)
            .ok_or(InvalidToken("the signing key is missing"))?;
        let now = now.timestamp();
        let exp = now + i64::from(ttl_seconds);
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: Audience::Many(vec![self.audience.clone()]),
            sub: subject.user.to_string(),
            sid: subject.session.map(|session| session.to_string()),
            role: subject.role.as_str().into(),
            scope: Grant::scope(subject.role),
            epoch: subject.epoch,
            iat: now,
            nbf: now,
            exp,
            jti: id::new().to_string(),
        };
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some(TOKEN_TYPE.into());
        header.kid = Some(key.kid.clone());
        let token = jsonwebtoken::encode(&header, &claims, &key.signing);
        token.map(|token| (token, time(exp))).map_err(|_| InvalidToken("it could not be signed"))
    }

    /// Who a token stands for. Says nothing about what was revoked since it was made.
    pub fn verify(&self, token: &str) -> Result<Bearer, InvalidToken> {
        if token.len() > LONGEST_TOKEN_BYTES {
            return Err(InvalidToken("too long"));
        }
        let hash = *blake3::hash(token.as_bytes()).as_bytes();
        if let Some(known) = self.verified.get(&hash) {
            if clock::now() < known.expires_at {
                return Ok(known);
            }
            self.verified.invalidate(&hash);
            return Err(InvalidToken("expired"));
        }
        let keys = self.keys();
        let bearer = read_claims(&self.claims_by(&keys, token)?)?;
        self.remember(hash, &bearer, &keys);
        Ok(bearer)
    }

    /// Remembers a token that these keys have checked. Keys that went meanwhile took all that was remembered along, but
    /// could not take this one.
    fn remember(&self, hash: [u8; 32], bearer: &Bearer, checked_by: &Arc<Keys>) {
        self.verified.insert(hash, bearer.clone());
        if !Arc::ptr_eq(checked_by, &self.keys()) {
            self.verified.invalidate(&hash);
        }
    }

    /// What a token says, checked but for what was revoked.
    pub fn claims(&self, token: &str) -> Result<Claims, InvalidToken> {
        self.claims_by(&self.keys(), token)
    }

    fn claims_by(&self, keys: &Keys, token: &str) -> Result<Claims, InvalidToken> {
        let kid = check_header(token)?;
        let key = keys.all.iter().find(|key| key.kid == kid).ok_or(InvalidToken("another key"))?;
        let decoded = jsonwebtoken::decode::<Claims>(token, &key.verifying, &self.validation);
        decoded.map(|decoded| decoded.claims).map_err(|error| InvalidToken(reason(&error)))
    }

    /// Whom claims stand for that somebody else has verified, and passes on in a way that can be trusted:
    /// they are held to the same as those of a token, but for the signature.
    pub(crate) fn accept(&self, claims: serde_json::Value) -> Result<Bearer, InvalidToken> {
        let claims: Claims = serde_json::from_value(claims).map_err(|_| InvalidToken("malformed"))?;
        let is_for_us = match &claims.aud {
            Audience::One(audience) => *audience == self.audience,
            Audience::Many(audiences) => audiences.contains(&self.audience),
        };
        let (now, leeway) = (clock::now().timestamp(), LEEWAY_SECONDS as i64);
        match () {
            () if claims.iss != self.issuer => Err(InvalidToken("another issuer")),
            () if !is_for_us => Err(InvalidToken("another audience")),
            () if claims.exp.saturating_add(leeway) <= now => Err(InvalidToken("expired")),
            () if claims.nbf.saturating_sub(leeway) > now => Err(InvalidToken("not yet valid")),
            // What is revoked is remembered as long as tokens of ours can live.
            () if claims.exp > now + longest(&claims) + leeway => {
                Err(InvalidToken("it lives longer than a token"))
            }
            () => read_claims(&claims),
        }
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().expect("no panic happens under this lock"))
    }
}

fn read_key(key: &SigningKey) -> Option<Key> {
    let public: Jwk = serde_json::from_str(&key.public_key).ok()?;
    let verifying = DecodingKey::from_jwk(&public).ok()?;
    let signing = EncodingKey::from_ec_der(&key.private_key);
    Some(Key { kid: key.kid.clone(), signs_from: key.signs_from, signing, verifying })
}

/// Checks the header; the thumbprint of the key.
fn check_header(token: &str) -> Result<String, InvalidToken> {
    if token.len() > LONGEST_TOKEN_BYTES {
        return Err(InvalidToken("too long"));
    }
    let header = jsonwebtoken::decode_header(token).map_err(|error| InvalidToken(reason(&error)))?;
    if header.alg != Algorithm::ES256 {
        return Err(InvalidToken("another algorithm"));
    }
    let typed =
        |typ: &str| typ.eq_ignore_ascii_case(TOKEN_TYPE) || typ.eq_ignore_ascii_case("application/at+jwt");
    if !header.typ.as_deref().is_some_and(typed) {
        return Err(InvalidToken("not an access token"));
    }
    let points_elsewhere =
        header.jku.is_some() || header.x5u.is_some() || header.x5c.is_some() || header.jwk.is_some();
    if points_elsewhere || header.crit.is_some() || header.zip.is_some() || header.enc.is_some() {
        return Err(InvalidToken("a header that is not supported"));
    }
    header.kid.ok_or(InvalidToken("another key"))
}

/// How many seconds a token of ours with such claims lives at most.
fn longest(claims: &Claims) -> i64 {
    i64::from(if claims.sid.is_some() { ACCESS_TOKEN_SECONDS } else { LONGEST_TOKEN_SECONDS })
}

fn read_claims(claims: &Claims) -> Result<Bearer, InvalidToken> {
    let session = match claims.sid.as_deref() {
        None => None,
        Some(sid) => Some(SessionId::parse(sid).ok_or(InvalidToken("sid is not a UUID"))?),
    };
    let viewer = Viewer::User {
        id: UserId::parse(&claims.sub).ok_or(InvalidToken("sub is not a UUID"))?,
        role: Role::parse(&claims.role).ok_or(InvalidToken("unknown role"))?,
        session,
    };
    let expires_at = time(claims.exp.saturating_add(LEEWAY_SECONDS as i64));
    Ok(Bearer { viewer, epoch: claims.epoch, expires_at })
}

fn time(seconds: i64) -> Time {
    Time::from_timestamp(seconds, 0).unwrap_or(Time::MAX_UTC)
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
mod attacks;
#[cfg(test)]
mod tests;

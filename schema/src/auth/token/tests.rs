//! Attacks on access tokens, each refused for the reason it should be.

use entities::auth::{revocation::LONGEST_TOKEN_SECONDS, secret::Secret};
use prometheus_client::registry::Registry;
use serde_json::{Map, Value, json};

use super::*;

/// Keys of a server, made as a server makes them.
async fn keys() -> Vec<SigningKey> {
    let config = entities::DatabaseOptions::at("sqlite::memory:");
    let store = entities::Store::connect(&config, &mut Registry::default()).await.expect("SQLite in memory");
    migration::up(store.connection()).await.expect("the steps run");
    entities::auth::key::load(store.database(), store.revocations(), &Secret::new("test"))
        .await
        .expect("a key is made")
}

/// A server that knows one key.
pub(super) struct Server {
    pub(super) tokens: Tokens,
    pub(super) key: SigningKey,
}

impl Server {
    pub(super) async fn new() -> Self {
        let keys = keys().await;
        let tokens = Tokens::new("xp-graph", "xp-graph");
        assert_eq!(tokens.install(&keys).as_ref(), Some(&keys[0].kid));
        Self { tokens, key: keys[0].clone() }
    }

    pub(super) fn signing(&self) -> EncodingKey {
        EncodingKey::from_ec_der(&self.key.private_key)
    }

    fn mint(&self, user: UserId, role: Role) -> String {
        let subject = Subject { user, role, epoch: 3, session: None };
        self.tokens.mint(subject, 60).expect("minted").0
    }

    fn public(&self) -> Jwk {
        serde_json::from_str(&self.key.public_key).expect("a JWK")
    }
}

fn claims(auth: &Server) -> Map<String, Value> {
    let now = clock::now().timestamp();
    let Value::Object(claims) = json!({
        "iss": auth.tokens.issuer, "aud": auth.tokens.audience, "sub": UserId::new().to_string(), "role": "EDITOR",
        "iat": now, "nbf": now, "exp": now + 60, "jti": "1",
    }) else {
        unreachable!("an object was written")
    };
    claims
}

fn header(auth: &Server) -> Header {
    let mut header = Header::new(Algorithm::ES256);
    header.typ = Some("at+jwt".into());
    header.kid = Some(auth.key.kid.clone());
    header
}

fn sign(auth: &Server, header: &Header, claims: &Map<String, Value>) -> String {
    jsonwebtoken::encode(header, claims, &auth.signing()).expect("signed")
}

/// The refusal of a token whose claims were changed before it was signed with the right key.
async fn refusal_with(change: impl Fn(&mut Map<String, Value>)) -> &'static str {
    let auth = Server::new().await;
    let mut claims = claims(&auth);
    change(&mut claims);
    auth.tokens.verify(&sign(&auth, &header(&auth), &claims)).expect_err("refused").0
}

/// The refusal of a token whose header was changed before it was signed with the right key.
async fn refusal_with_header(change: impl Fn(&mut Header)) -> &'static str {
    let auth = Server::new().await;
    let mut header = header(&auth);
    change(&mut header);
    auth.tokens.verify(&sign(&auth, &header, &claims(&auth))).expect_err("refused").0
}

#[tokio::test]
async fn a_minted_token_is_its_account() {
    let (auth, user) = (Server::new().await, UserId::new());
    let token = auth.mint(user, Role::Collector);
    let bearer = auth.tokens.verify(&token).expect("good");
    assert_eq!(bearer.viewer, Viewer::User { id: user, role: Role::Collector, session: None });
    assert_eq!(bearer.epoch, 3);
    assert_eq!(auth.tokens.verify(&token), Ok(bearer), "and again, remembered");
}

#[tokio::test]
async fn a_session_in_the_token_reaches_the_viewer() {
    let auth = Server::new().await;
    let (mut claims, session) = (claims(&auth), SessionId::new());
    claims.insert("sid".into(), json!(session.to_string()));
    let bearer = auth.tokens.verify(&sign(&auth, &header(&auth), &claims)).expect("valid");
    assert_eq!(bearer.viewer.session_id(), Some(session));
}

#[tokio::test]
async fn unsigned_and_symmetric_tokens_are_refused() {
    let auth = Server::new().await;
    let signed = sign(&auth, &header(&auth), &claims(&auth));
    let payload = signed.split('.').nth(1).expect("three parts");
    // {"alg":"none","typ":"at+jwt"}
    let none = format!("eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.{payload}.");
    assert_eq!(auth.tokens.verify(&none), Err(InvalidToken("malformed")));

    let public = auth.public();
    let public = serde_json::to_vec(&public).expect("JSON");
    let mut symmetric = header(&auth);
    symmetric.alg = Algorithm::HS256;
    let token =
        jsonwebtoken::encode(&symmetric, &claims(&auth), &EncodingKey::from_secret(&public)).expect("signed");
    assert_eq!(auth.tokens.verify(&token), Err(InvalidToken("another algorithm")));
}

#[tokio::test]
async fn other_keys_are_refused() {
    let (mine, other) = (Server::new().await, Server::new().await);
    let token = other.mint(UserId::new(), Role::Admin);
    assert_eq!(mine.tokens.verify(&token), Err(InvalidToken("another key")), "by its kid");
    let token = sign(&other, &header(&mine), &claims(&mine));
    assert_eq!(mine.tokens.verify(&token), Err(InvalidToken("the signature does not match")), "under my kid");
    assert_eq!(refusal_with_header(|h| h.kid = None).await, "another key");
}

#[tokio::test]
async fn times_issuer_and_audience_are_checked_and_required() {
    let now = clock::now().timestamp();
    assert_eq!(refusal_with(|c| drop(c.insert("exp".into(), json!(now - 60)))).await, "expired");
    assert_eq!(refusal_with(|c| drop(c.insert("nbf".into(), json!(now + 60)))).await, "not yet valid");
    assert_eq!(refusal_with(|c| drop(c.insert("iss".into(), json!("evil")))).await, "another issuer");
    assert_eq!(refusal_with(|c| drop(c.insert("aud".into(), json!("evil")))).await, "another audience");
    assert_eq!(refusal_with(|c| drop(c.insert("role".into(), json!("ROOT")))).await, "unknown role");
    assert_eq!(refusal_with(|c| drop(c.insert("sub".into(), json!("1")))).await, "sub is not a UUID");
    for claim in ["exp", "nbf", "iss", "aud", "sub"] {
        let why = refusal_with(|c| drop(c.remove(claim))).await;
        assert!(["a claim is missing", "malformed"].contains(&why), "{claim}: {why}");
    }
}

#[tokio::test]
async fn a_remembered_token_still_ends() {
    let auth = Server::new().await;
    let token = auth.mint(UserId::new(), Role::Editor);
    let hash = *blake3::hash(token.as_bytes()).as_bytes();
    let bearer = auth.tokens.verify(&token).expect("valid");
    auth.tokens.verified.insert(hash, Bearer { expires_at: clock::now(), ..bearer });
    assert_eq!(auth.tokens.verify(&token), Err(InvalidToken("expired")));
}

/// Between the check of a token and its being remembered, its key may go.
#[tokio::test]
async fn tokens_of_a_removed_key_are_not_remembered() {
    let (auth, other) = (Server::new().await, Server::new().await);
    let token = auth.mint(UserId::new(), Role::Editor);
    let checked_by = auth.tokens.keys();
    let bearer = auth.tokens.verify(&token).expect("valid");
    auth.tokens.install(std::slice::from_ref(&other.key));
    auth.tokens.remember(*blake3::hash(token.as_bytes()).as_bytes(), &bearer, &checked_by);
    assert_eq!(auth.tokens.verify(&token), Err(InvalidToken("another key")));
}

#[tokio::test]
async fn headers_that_change_the_rules_are_refused() {
    assert_eq!(refusal_with_header(|h| h.typ = None).await, "not an access token");
    assert_eq!(refusal_with_header(|h| h.typ = Some("JWT".into())).await, "not an access token");
    let unsupported = "a header that is not supported";
    assert_eq!(refusal_with_header(|h| h.jku = Some("https://evil.example".into())).await, unsupported);
    assert_eq!(refusal_with_header(|h| h.x5u = Some("https://evil.example".into())).await, unsupported);
    assert_eq!(refusal_with_header(|h| h.x5c = Some(vec!["AA==".into()])).await, unsupported);
    assert_eq!(refusal_with_header(|h| h.crit = Some(vec!["exp".into()])).await, unsupported);
    assert_eq!(refusal_with_header(|h| h.zip = serde_json::from_value(json!("DEF")).ok()).await, unsupported);
    let own = Server::new().await;
    let public = own.public();
    assert_eq!(refusal_with_header(|h| h.jwk = Some(public.clone())).await, unsupported);
}

#[tokio::test]
async fn broken_tokens_are_refused() {
    let auth = Server::new().await;
    let token = auth.mint(UserId::new(), Role::Admin);
    for length in [0, 1, token.len() / 3, token.len() - 40, token.len() - 1] {
        assert!(auth.tokens.verify(&token[..length]).is_err(), "{length} bytes");
    }
    assert!(auth.tokens.verify("..").is_err());
    assert_eq!(auth.tokens.verify(&"a".repeat(5 * 1024)), Err(InvalidToken("too long")));
}

#[tokio::test]
async fn the_published_keys_check_the_tokens_and_hold_nothing_private() {
    let server = Server::new().await;
    let set: jsonwebtoken::jwk::JwkSet = serde_json::from_str(&server.tokens.published()).expect("a JWK set");
    let key = set.find(&server.key.kid).expect("under its thumbprint");
    let thumbprint = key.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256).expect("a thumbprint");
    assert_eq!(thumbprint, server.key.kid, "RFC 7638");
    let key = DecodingKey::from_jwk(key).expect("a key");
    let token = server.mint(UserId::new(), Role::Viewer);
    jsonwebtoken::decode::<Claims>(&token, &key, &server.tokens.validation).expect("a gateway can check it");
    let published: Value = serde_json::from_str(&server.tokens.published()).expect("JSON");
    let names: Vec<&String> = published["keys"][0].as_object().expect("an object").keys().collect();
    assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x", "y"], "and no `d`");
}

#[tokio::test]
async fn only_the_active_key_signs_and_all_verify() {
    let (old, mut next) = (keys().await.remove(0), keys().await.remove(0));
    let tokens = Tokens::new("xp-graph", "xp-graph");
    let mint = || {
        let subject = Subject { user: UserId::new(), role: Role::Viewer, epoch: 0, session: None };
        tokens.mint(subject, LONGEST_TOKEN_SECONDS).expect("minted").0
    };
    let kid = |token: &str| check_header(token).expect("a header");
    next.signs_from = clock::now() + chrono::TimeDelta::seconds(180);
    tokens.install(&[next.clone(), old.clone()]);
    let first = mint();
    assert_eq!(kid(&first), old.kid);
    next.signs_from = clock::now();
    tokens.install(&[next.clone(), old.clone()]);
    assert_eq!(kid(&mint()), next.kid);
    assert!(tokens.verify(&first).is_ok());
    tokens.install(std::slice::from_ref(&next));
    assert_eq!(
        tokens.verify(&first),
        Err(InvalidToken("another key")),
        "a key that is gone checks nothing remembered"
    );
}

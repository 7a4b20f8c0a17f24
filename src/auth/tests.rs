//! Attacks on access tokens, each refused for the reason it should be.

use axum::http::HeaderValue;
use serde_json::{Map, Value, json};

use super::*;
use crate::config::Config;

fn auth() -> Auth {
    Auth::ephemeral(&Config::default().auth).expect("a key can be made")
}

fn claims(auth: &Auth) -> Map<String, Value> {
    let now = clock::now().timestamp();
    let Value::Object(claims) = json!({
        "iss": auth.issuer, "aud": auth.audience, "sub": UserId::new().to_string(), "role": "EDITOR",
        "iat": now, "nbf": now, "exp": now + 60, "jti": "1",
    }) else {
        unreachable!("an object was written")
    };
    claims
}

fn header(auth: &Auth) -> Header {
    let mut header = Header::new(Algorithm::ES256);
    header.typ = Some("at+jwt".into());
    header.kid = Some(auth.kid.clone());
    header
}

fn sign(auth: &Auth, header: &Header, claims: &Map<String, Value>) -> String {
    jsonwebtoken::encode(header, claims, &auth.signing).expect("signed")
}

/// The refusal of a token whose claims were changed before it was signed with the right key.
fn refusal_with(change: impl Fn(&mut Map<String, Value>)) -> &'static str {
    let auth = auth();
    let mut claims = claims(&auth);
    change(&mut claims);
    auth.verify(&sign(&auth, &header(&auth), &claims)).expect_err("refused").0
}

/// The refusal of a token whose header was changed before it was signed with the right key.
fn refusal_with_header(change: impl Fn(&mut Header)) -> &'static str {
    let auth = auth();
    let mut header = header(&auth);
    change(&mut header);
    auth.verify(&sign(&auth, &header, &claims(&auth))).expect_err("refused").0
}

#[test]
fn a_minted_token_is_its_account() {
    let (auth, user) = (auth(), UserId::new());
    let token = auth.mint(user, Role::Collector, 60).expect("minted");
    let viewer = Viewer::User { id: user, role: Role::Collector, session: None };
    assert_eq!(auth.verify(&token), Ok(viewer.clone()));
    assert_eq!(auth.verify(&token), Ok(viewer), "and again, remembered");
}

#[test]
fn a_session_in_the_token_reaches_the_viewer() {
    let auth = auth();
    let (mut claims, session) = (claims(&auth), SessionId::new());
    claims.insert("sid".into(), json!(session.to_string()));
    let viewer = auth.verify(&sign(&auth, &header(&auth), &claims)).expect("valid");
    assert_eq!(viewer.session_id(), Some(session));
}

#[test]
fn unsigned_and_symmetric_tokens_are_refused() {
    let auth = auth();
    let signed = sign(&auth, &header(&auth), &claims(&auth));
    let payload = signed.split('.').nth(1).expect("three parts");
    // {"alg":"none","typ":"at+jwt"}
    let none = format!("eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.{payload}.");
    assert_eq!(auth.verify(&none), Err(Refused("malformed")));

    let public = Jwk::from_encoding_key(&auth.signing, Algorithm::ES256).expect("a public key");
    let public = serde_json::to_vec(&public).expect("JSON");
    let mut symmetric = header(&auth);
    symmetric.alg = Algorithm::HS256;
    let token =
        jsonwebtoken::encode(&symmetric, &claims(&auth), &EncodingKey::from_secret(&public)).expect("signed");
    assert_eq!(auth.verify(&token), Err(Refused("another algorithm")));
}

#[test]
fn other_keys_are_refused() {
    let (mine, other) = (auth(), auth());
    let token = other.mint(UserId::new(), Role::Admin, 60).expect("minted");
    assert_eq!(mine.verify(&token), Err(Refused("another key")), "by its kid");
    let token = sign(&other, &header(&mine), &claims(&mine));
    assert_eq!(mine.verify(&token), Err(Refused("the signature does not match")), "under my kid");
    assert_eq!(refusal_with_header(|h| h.kid = None), "another key");
}

#[test]
fn times_issuer_and_audience_are_checked_and_required() {
    let now = clock::now().timestamp();
    assert_eq!(refusal_with(|c| drop(c.insert("exp".into(), json!(now - 60)))), "expired");
    assert_eq!(refusal_with(|c| drop(c.insert("nbf".into(), json!(now + 60)))), "not yet valid");
    assert_eq!(refusal_with(|c| drop(c.insert("iss".into(), json!("evil")))), "another issuer");
    assert_eq!(refusal_with(|c| drop(c.insert("aud".into(), json!("evil")))), "another audience");
    assert_eq!(refusal_with(|c| drop(c.insert("role".into(), json!("ROOT")))), "unknown role");
    assert_eq!(refusal_with(|c| drop(c.insert("sub".into(), json!("1")))), "sub is no id");
    for claim in ["exp", "nbf", "iss", "aud", "sub"] {
        let why = refusal_with(|c| drop(c.remove(claim)));
        assert!(["a claim is missing", "malformed"].contains(&why), "{claim}: {why}");
    }
}

#[test]
fn a_remembered_token_still_ends() {
    let auth = auth();
    let token = auth.mint(UserId::new(), Role::Editor, 60).expect("minted");
    let hash = *blake3::hash(token.as_bytes()).as_bytes();
    let viewer = auth.verify(&token).expect("valid");
    auth.verified.insert(hash, Verified { viewer, expires_at: clock::now().timestamp() - 1 });
    assert_eq!(auth.verify(&token), Err(Refused("expired")));
}

#[test]
fn headers_that_change_the_rules_are_refused() {
    assert_eq!(refusal_with_header(|h| h.typ = None), "not an access token");
    assert_eq!(refusal_with_header(|h| h.typ = Some("JWT".into())), "not an access token");
    let unsupported = "a header that is not supported";
    assert_eq!(refusal_with_header(|h| h.jku = Some("https://evil.example".into())), unsupported);
    assert_eq!(refusal_with_header(|h| h.x5u = Some("https://evil.example".into())), unsupported);
    assert_eq!(refusal_with_header(|h| h.x5c = Some(vec!["AA==".into()])), unsupported);
    assert_eq!(refusal_with_header(|h| h.crit = Some(vec!["exp".into()])), unsupported);
    assert_eq!(refusal_with_header(|h| h.zip = serde_json::from_value(json!("DEF")).ok()), unsupported);
    let own = auth();
    let public = Jwk::from_encoding_key(&own.signing, Algorithm::ES256).expect("a public key");
    assert_eq!(refusal_with_header(|h| h.jwk = Some(public.clone())), unsupported);
}

#[test]
fn broken_tokens_are_refused() {
    let auth = auth();
    let token = auth.mint(UserId::new(), Role::Admin, 60).expect("minted");
    for length in [0, 1, token.len() / 3, token.len() - 40, token.len() - 1] {
        assert!(auth.verify(&token[..length]).is_err(), "{length} bytes");
    }
    assert!(auth.verify("..").is_err());
    assert_eq!(auth.verify(&"a".repeat(5 * 1024)), Err(Refused("too long")));
}

#[test]
fn the_header_is_read_strictly() {
    let (auth, user) = (auth(), UserId::new());
    let token = auth.mint(user, Role::Viewer, 60).expect("minted");
    let of = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).expect("a header"));
        }
        auth.viewer(&headers)
    };
    assert_eq!(of(&[]), Ok(Viewer::Anonymous));
    assert_eq!(of(&[&format!("bearer {token}")]).expect("valid").user_id(), Some(user));
    for bad in [token.as_str(), "Bearer", "Bearer ", "Basic YTpi"] {
        assert!(of(&[bad]).is_err(), "{bad}");
    }
    assert!(of(&[&format!("Bearer {token}"), "Bearer x"]).is_err(), "two headers");
}

//! Tokens written by hand, each wrong in one place and otherwise signed with the right key: all are refused. The one
//! that is not altered is taken, so each shows what it is about.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::*;
use crate::auth::token::tests::Server;

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Header and payload as they are, with a right signature.
fn signed(server: &Server, header: &str, payload: &str) -> String {
    let message = format!("{}.{}", encode(header), encode(payload));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &server.signing(), Algorithm::ES256);
    format!("{message}.{}", signature.expect("signed"))
}

fn header(server: &Server) -> Value {
    json!({ "alg": "ES256", "typ": "at+jwt", "kid": server.key.kid })
}

fn payload() -> Value {
    let now = clock::now().timestamp();
    json!({
        "iss": "xp-graph", "aud": ["xp-graph"], "sub": UserId::new().to_string(),
        "sid": SessionId::new().to_string(),
        "role": "ADMIN", "epoch": 0, "iat": now, "nbf": now, "exp": now + 60, "jti": "1",
    })
}

/// An object with one field changed; `null` is written as such, and nothing takes the field away.
fn changed(mut object: Value, field: &str, value: Option<Value>) -> String {
    let fields = object.as_object_mut().expect("an object");
    match value {
        Some(value) => drop(fields.insert(field.to_owned(), value)),
        None => drop(fields.remove(field)),
    }
    object.to_string()
}

/// Every one is refused. How many there were.
fn all_refused(server: &Server, tokens: &[String]) -> usize {
    let good = signed(server, &header(server).to_string(), &payload().to_string());
    assert!(server.tokens.verify(&good).is_ok(), "unaltered it is good");
    for token in tokens {
        let parts = token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap_or_default());
        let about: Vec<_> = parts.take(2).map(|part| String::from_utf8_lossy(&part).into_owned()).collect();
        // Twice: nothing of a refused token is remembered.
        for _ in 0..2 {
            assert!(server.tokens.verify(token).is_err(), "{about:?} {token}");
        }
    }
    tokens.len()
}

#[tokio::test]
async fn a_token_with_a_wrong_header_is_refused() {
    let server = Server::new().await;
    let kid = server.key.kid.as_str();
    let jwk: Value = serde_json::from_str(&server.key.public_key).expect("JSON");
    let url = "https://evil.example/jwks.json";
    let mut wrong: Vec<(&str, Option<Value>)> = vec![("alg", None), ("typ", None), ("kid", None)];
    let algorithms = [
        "none", "None", "NONE", "nOnE", "", "es256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512",
        "RS256", "RS512", "PS256", "A128KW",
    ];
    wrong.extend(algorithms.map(|name| ("alg", Some(json!(name)))));
    wrong.extend([json!(null), json!(["ES256"]), json!(1)].map(|value| ("alg", Some(value))));
    let types = [
        json!("JWT"),
        json!("jwt"),
        json!("at"),
        json!("at+jwt+x"),
        json!("application/jwt"),
        json!(null),
        json!(1),
        json!([]),
    ];
    wrong.extend(types.map(|value| ("typ", Some(value))));
    let kids = [
        json!(""),
        json!(null),
        json!(0),
        json!([kid]),
        json!(format!("{kid} ")),
        json!(kid.to_lowercase()),
        json!(&kid[1..]),
        json!("../../../../dev/null"),
        json!("' OR 1=1 --"),
        json!("http://evil.example/key"),
        json!(format!("{kid}\0")),
        json!("*"),
    ];
    wrong.extend(kids.map(|value| ("kid", Some(value))));
    for (name, value) in [
        ("jku", json!(url)),
        ("jku", json!("")),
        ("x5u", json!(url)),
        ("x5c", json!(["MIIB"])),
        ("x5c", json!([])),
        ("jwk", jwk),
        ("crit", json!([])),
        ("crit", json!(["exp"])),
        ("crit", json!(["b64"])),
        ("zip", json!("DEF")),
        ("zip", json!("GZIP")),
        ("enc", json!("A128GCM")),
    ] {
        wrong.push((name, Some(value)));
    }
    let payload = payload().to_string();
    let mut tokens: Vec<String> = wrong
        .into_iter()
        .map(|(field, value)| signed(&server, &changed(header(&server), field, value), &payload))
        .collect();
    let twice = format!(r#"{{"alg":"ES256","typ":"at+jwt","kid":"other","kid":"{kid}"}}"#);
    for whole in ["", "null", "[]", "1", "\"ES256\"", "{", "{}", &twice] {
        tokens.push(signed(&server, whole, &payload));
    }
    println!("{} headers", all_refused(&server, &tokens));
}

#[tokio::test]
async fn a_token_with_wrong_claims_is_refused() {
    let server = Server::new().await;
    let now = clock::now().timestamp();
    let mut wrong: Vec<(&str, Option<Value>)> =
        ["exp", "nbf", "iss", "aud", "sub", "role"].map(|name| (name, None)).to_vec();
    let numbers = [json!(null), json!("x"), json!((now + 60).to_string()), json!([]), json!({}), json!(true)];
    for name in ["exp", "nbf"] {
        wrong.extend(numbers.clone().map(|value| (name, Some(value))));
    }
    wrong.extend([now - 6, 0, -1, i64::MIN].map(|exp| ("exp", Some(json!(exp)))));
    wrong.extend([now + 65, i64::MAX].map(|nbf| ("nbf", Some(json!(nbf)))));
    let texts =
        [json!(null), json!(""), json!("evil"), json!("XP-GRAPH"), json!("xp-graph "), json!(1), json!({})];
    for name in ["iss", "aud"] {
        wrong.extend(texts.clone().map(|value| (name, Some(value))));
    }
    wrong.extend([json!([]), json!(["evil"]), json!([null])].map(|value| ("aud", Some(value))));
    let ids = [json!(null), json!(""), json!("1"), json!(1), json!([]), json!("admin@example.com")];
    wrong.extend(ids.clone().map(|value| ("sub", Some(value))));
    wrong.extend(ids.into_iter().skip(1).map(|value| ("sid", Some(value))));
    let roles =
        [json!(null), json!(""), json!("ROOT"), json!("admin"), json!("SERVICE"), json!(["ADMIN"]), json!(0)];
    wrong.extend(roles.map(|value| ("role", Some(value))));
    wrong.extend([json!("0"), json!(1.5), json!(null)].map(|value| ("epoch", Some(value))));
    let header = header(&server).to_string();
    let mut tokens: Vec<String> = wrong
        .into_iter()
        .map(|(field, value)| signed(&server, &header, &changed(payload(), field, value)))
        .collect();
    for whole in ["", "null", "[]", "\"x\"", "{", "{}"] {
        tokens.push(signed(&server, &header, whole));
    }
    println!("{} payloads", all_refused(&server, &tokens));
}

#[tokio::test]
async fn a_token_with_a_wrong_signature_is_refused() {
    let (server, other) = (Server::new().await, Server::new().await);
    let good = signed(&server, &header(&server).to_string(), &payload().to_string());
    let [head, body, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("{good}") };
    let bytes = URL_SAFE_NO_PAD.decode(signature).expect("base64");
    let with = |signature: &[u8]| format!("{head}.{body}.{}", encode(signature));
    // As OpenSSL writes them: right, but in another form.
    let half = |half: &[u8]| [&[2, 33, 0], half].concat();
    let der = [&[0x30, 70][..], &half(&bytes[..32]), &half(&bytes[32..])].concat();
    let mut tokens = vec![
        with(&[]),
        with(&[0; 64]), // CVE-2022-21449
        with(&[0xff; 64]),
        with(&[&[0; 32], &bytes[32..]].concat()),
        with(&[&bytes[..32], &[0; 32]].concat()),
        with(&bytes[..63]),
        with(&[&bytes[..], &[0]].concat()),
        with(&[&bytes[32..], &bytes[..32]].concat()),
        with(&der),
        format!("{head}.{body}"),
        format!("{head}.{body}."),
        format!("{head}..{signature}"),
        format!(".{body}.{signature}"),
        format!("{good}."),
        format!("{good}.x"),
        format!("{good}.x.x"),
        format!(".{good}"),
        format!("{good}="),
        format!("{good}=="),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{head} .{body}.{signature}"),
        format!("Bearer {good}"),
        good.to_lowercase(),
        good.replace('.', "%2E"),
        "rt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned(),
        "a".repeat(LONGEST_TOKEN_BYTES + 1),
    ];
    // Each part of another good token.
    let second = signed(&server, &header(&server).to_string(), &payload().to_string());
    let [_, other_body, other_signature] = second.split('.').collect::<Vec<_>>()[..] else {
        panic!("{second}")
    };
    tokens.push(format!("{head}.{other_body}.{signature}"));
    tokens.push(format!("{head}.{body}.{other_signature}"));
    tokens.push(signed(&other, &header(&server).to_string(), &payload().to_string()));
    // The public key taken for a shared secret, in each form that it is published in.
    let jwk: Value = serde_json::from_str(&server.key.public_key).expect("JSON");
    let point = [&["x", "y"]
        .map(|half| URL_SAFE_NO_PAD.decode(jwk[half].as_str().expect("text")).expect("base64"))
        .concat()[..]]
    .concat();
    for shared in [
        server.key.public_key.clone().into_bytes(),
        jwk.to_string().into_bytes(),
        [&[4][..], &point].concat(),
        point,
        Vec::new(),
    ] {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let header = changed(header(&server), "alg", Some(json!(format!("{algorithm:?}"))));
            for header in [header, self::header(&server).to_string()] {
                let message = format!("{}.{}", encode(header), encode(payload().to_string()));
                let key = EncodingKey::from_secret(&shared);
                let signature =
                    jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).expect("signed");
                tokens.push(format!("{message}.{signature}"));
            }
        }
    }
    println!("{} signatures", all_refused(&server, &tokens));
}

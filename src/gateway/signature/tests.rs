//! Signatures: the examples of RFC 9421, and what must not pass.

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use axum::http::{HeaderValue, Request};
use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::*;
use crate::config::{setting::Setting as _, signature_keys::VerifyKey};

const NOW: i64 = 1_700_000_000;
const BODY: &[u8] = br#"{"query":"{a}"}"#;
const SECRET: &[u8] = b"thirty-two bytes, or some more of them";

fn request(method: &str, target: &str) -> Parts {
    let request = Request::builder().method(method).uri(target).header("host", "graph.example:8080");
    let request =
        request.header("content-type", "application/json").header("content-digest", digest_of(BODY));
    request.body(()).expect("a request").into_parts().0
}

fn digest_of(body: &[u8]) -> String {
    format!("sha-256=:{}:", BASE64_STANDARD.encode(digest(&digest::SHA256, body)))
}

fn inner_list(text: &str) -> InnerList {
    let mut list: List = Parser::new(text).parse().expect("structured");
    let ListEntry::InnerList(list) = list.remove(0) else { panic!("an inner list: {text}") };
    list
}

/// Signs with these components and parameters.
fn sign(mut head: Parts, input: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Parts {
    let list = inner_list(input);
    let names: Vec<_> = list.items.iter().filter_map(|item| item.bare_item.as_string()).collect();
    let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
    let base = base(&head, &names, &list, "http").unwrap_or_default();
    let signature = BASE64_STANDARD.encode(sign(base.as_bytes()));
    let mut put = |name, value: String| {
        head.headers.insert(name, HeaderValue::from_str(&value).expect("a header"));
    };
    put(SIGNATURE_INPUT, format!("s={input}"));
    put(SIGNATURE, format!("s=:{signature}:"));
    head
}

fn shared(secret: &[u8]) -> impl FnOnce(&[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    move |base| hmac::sign(&key, base).as_ref().to_vec()
}

fn signatures(keys: &str) -> Signatures {
    Signatures::new(SignatureKeys::parse(keys).expect("keys"), Duration::from_mins(1), true)
}

fn with_secret() -> Signatures {
    signatures(&format!("main=hmac-sha256:{}", BASE64_STANDARD.encode(SECRET)))
}

const ALL: &str = r#"("@method" "@target-uri" "content-digest");created=1700000000;keyid="main""#;

const NO_MATCH: Result<Body, Why> = Err("the signature does not match");

fn good() -> Body {
    Body::Has(digest_of(BODY))
}

#[test]
fn the_examples_of_the_standard_are_good() {
    let head = Request::post("/foo?param=Value&Pet=dog")
        .header("host", "example.com")
        .header("date", "Tue, 20 Apr 2021 02:07:55 GMT")
        .header("content-type", "application/json")
        .header("content-length", "18")
        .body(())
        .expect("a request")
        .into_parts()
        .0;
    for (algorithm, key, input, signature) in [
        (
            VerifyKey::SHARED,
            "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==",
            r#"("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret""#,
            "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=",
        ),
        (
            VerifyKey::ED25519,
            "MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=",
            r#"("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519""#,
            "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==",
        ),
    ] {
        let (key, list) = (VerifyKey::parse(algorithm, key).expect("a key"), inner_list(input));
        let names = covered(&list).expect("names");
        let base = base(&head, &names, &list, "https").expect("a base");
        let signature = BASE64_STANDARD.decode(signature).expect("base64");
        assert!(key.has_signed(base.as_bytes(), &signature), "{algorithm}\n{base}");
        assert!(!key.has_signed(b"something else", &signature), "{algorithm}");
    }
    let digest =
        "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:";
    assert!(has_digest(br#"{"hello": "world"}"#, digest));
    assert!(!has_digest(br#"{"hello": "World"}"#, digest));
}

#[test]
fn every_algorithm_signs_in_both_notations_of_its_key() {
    let edwards = Ed25519KeyPair::generate().expect("a key");
    let curve = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let base64 = |key: &[u8]| BASE64_STANDARD.encode(key);
    let as_info = |prefix: &[u8], key: &[u8]| base64(&[prefix, key].concat());
    let edwards_info = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
    let curve_info = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
    let (public, point) = (edwards.public_key().as_ref(), curve.public_key().as_ref());
    for keys in [
        format!("other=hmac-sha256:{}, main=ed25519:{}", base64(SECRET), base64(public)),
        format!("main=ed25519:{}", as_info(edwards_info, public)),
    ] {
        let signed = sign(request("POST", "/graphql"), ALL, |base| edwards.sign(base).as_ref().to_vec());
        assert_eq!(signatures(&keys).check(&signed, NOW), Ok(good()), "{keys}");
    }
    for key in [base64(point), as_info(curve_info, point)] {
        let sign_with =
            |base: &[u8]| curve.sign(&SystemRandom::new(), base).expect("signed").as_ref().to_vec();
        let signed = sign(request("POST", "/graphql"), ALL, sign_with);
        assert_eq!(signatures(&format!("main=ecdsa-p256-sha256:{key}")).check(&signed, NOW), Ok(good()));
    }
}

#[test]
fn keys_are_read_strictly() {
    for keys in [
        "main",
        "main=ed25519",
        "main=rsa:AAAA",
        "main=hmac-sha256:c2hvcnQ=",
        "main=ed25519:AAAA",
        "main=ed25519:*",
    ] {
        assert!(SignatureKeys::parse(keys).is_err(), "{keys}");
    }
    assert!(SignatureKeys::parse("").is_ok_and(|keys| keys.is_empty()));
}

#[test]
fn altered_signatures_are_refused() {
    let signatures = with_secret();
    let signed = || sign(request("POST", "/graphql?a=1"), ALL, shared(SECRET));
    assert_eq!(signatures.check(&signed(), NOW), Ok(good()));
    let altered = |change: fn(&mut Parts)| {
        let mut head = signed();
        change(&mut head);
        signatures.check(&head, NOW)
    };
    assert_eq!(altered(|head| head.method = Method::PUT), NO_MATCH);
    assert_eq!(altered(|head| head.uri = "/graphql?a=2".parse().expect("a target")), NO_MATCH);
    assert_eq!(
        altered(|head| drop(head.headers.insert("host", HeaderValue::from_static("elsewhere")))),
        NO_MATCH
    );
    assert_eq!(
        altered(|head| drop(
            head.headers.insert("content-digest", HeaderValue::from_static("sha-256=:AAAA:"))
        )),
        NO_MATCH
    );
    assert_eq!(
        altered(|head| _ = head.headers.append("content-digest", HeaderValue::from_static("sha-256=:AAAA:"))),
        NO_MATCH
    );
    assert_eq!(
        altered(|head| drop(head.headers.remove("content-digest"))),
        Err("a covered field is missing")
    );
    assert_eq!(altered(|head| drop(head.headers.remove("signature"))), Err("signature cannot be read"));
    let more = r#"s=("@method" "@target-uri" "content-digest");created=1700000001;keyid="main""#;
    let mut head = signed();
    head.headers.insert(SIGNATURE_INPUT, HeaderValue::from_static(more));
    assert_eq!(signatures.check(&head, NOW), NO_MATCH, "parameters are signed too");
    let forged = sign(request("POST", "/graphql"), ALL, shared(b"another secret of more than 32 bytes"));
    assert_eq!(signatures.check(&forged, NOW), NO_MATCH);
}

#[test]
fn a_signature_must_say_and_cover_enough() {
    let signatures = with_secret();
    for (input, why) in [
        (r#"("@method" "@target-uri" "content-digest");created=1700000000"#, "keyid is missing"),
        (r#"("@method" "@target-uri" "content-digest");created=1700000000;keyid="x""#, "unknown key"),
        (r#"("@method" "@target-uri" "content-digest");keyid="main""#, "the creation time is missing"),
        (
            r#"("@method" "@target-uri" "content-digest");created=1700000000;keyid="main";alg="ed25519""#,
            "another algorithm",
        ),
        (r#"("@method" "@target-uri" "content-digest");created=1699999939;keyid="main""#, "too old"),
        (
            r#"("@method" "@target-uri" "content-digest");created=1699999990;expires=1699999999;keyid="main""#,
            "too old",
        ),
        (r#"("@method" "@target-uri" "content-digest");created=1700000006;keyid="main""#, "not yet valid"),
        (
            r#"("@method" "@target-uri" "content-digest");created=1700000000;keyid="main";nonce=:YWJj:"#,
            "a parameter of another type",
        ),
        (
            r#"("@method" "@target-uri" "content-digest");created=1699999990;expires="1699999999";keyid="main""#,
            "a parameter of another type",
        ),
        (
            r#"("@method" "@target-uri" "content-digest");created=1700000000;keyid="main";alg=ed25519"#,
            "a parameter of another type",
        ),
        (
            r#"("@target-uri" "content-digest");created=1700000000;keyid="main""#,
            "method or target are not covered",
        ),
        (
            r#"("@method" "content-digest");created=1700000000;keyid="main""#,
            "method or target are not covered",
        ),
        (
            r#"("@method" "@path" "content-digest");created=1700000000;keyid="main""#,
            "method or target are not covered",
        ),
        (r#"("@method" "@target-uri");created=1700000000;keyid="main""#, "the body is not covered"),
        (
            r#"("@method" "@target-uri" "content-digest" "@method");created=1700000000;keyid="main""#,
            "a component that is not supported",
        ),
        (
            r#"("@method" "@target-uri" "content-digest";sf);created=1700000000;keyid="main""#,
            "a component that is not supported",
        ),
        (
            r#"("@method" "@target-uri" "content-digest" "@status");created=1700000000;keyid="main""#,
            "the signature does not match",
        ),
        (
            r#"("@method" "@target-uri" "content-digest" "x-absent");created=1700000000;keyid="main""#,
            "the signature does not match",
        ),
    ] {
        let signed = sign(request("POST", "/graphql?a=1"), input, shared(SECRET));
        assert_eq!(signatures.check(&signed, NOW), Err(why), "{input}");
    }
    for input in [
        ALL,
        r#"("content-digest" "@query" "@path" "@method");created=1699999940;expires=1700000000;keyid="main";alg="hmac-sha256""#,
        r#"("@method" "@request-target" "@authority" "content-type" "content-digest");created=1700000005;keyid="main""#,
    ] {
        let signed = sign(request("POST", "/graphql?a=1"), input, shared(SECRET));
        assert_eq!(signatures.check(&signed, NOW), Ok(good()), "{input}");
    }
    let bare = r#"("@method" "@target-uri");created=1700000000;keyid="main""#;
    assert_eq!(
        signatures.check(&sign(request("GET", "/graphql?a=1"), bare, shared(SECRET)), NOW),
        Ok(Body::Absent)
    );
    let lax = Signatures { must_cover_body: false, ..with_secret() };
    assert_eq!(lax.check(&sign(request("POST", "/graphql"), bare, shared(SECRET)), NOW), Ok(Body::Uncovered));
}

#[test]
fn signatures_with_too_many_components_are_refused() {
    let covering = |count: usize| {
        let names: Vec<_> = (0..count).map(|number| format!("\"x-{number}\"")).collect();
        let input = format!("({});created={NOW};keyid=\"main\"", names.join(" "));
        with_secret().check(&sign(request("POST", "/graphql"), &input, shared(SECRET)), NOW)
    };
    assert_eq!(covering(MOST_COMPONENTS), Err("method or target are not covered"));
    assert_eq!(covering(MOST_COMPONENTS + 1), Err("too many components"));
}

#[test]
fn a_nonce_is_good_once() {
    let signatures = with_secret();
    let with_nonce = |nonce: &str| {
        let input = format!("{ALL};nonce=\"{nonce}\"");
        sign(request("POST", "/graphql"), &input, shared(SECRET))
    };
    let mut forged = with_nonce("a");
    forged.method = Method::PUT;
    assert_eq!(signatures.check(&forged, NOW), Err("the signature does not match"), "it uses up no nonce");
    assert_eq!(signatures.check(&with_nonce("a"), NOW), Ok(good()));
    assert_eq!(signatures.check(&with_nonce("a"), NOW), Err("replayed"));
    assert_eq!(signatures.check(&with_nonce("b"), NOW), Ok(good()));
    let reloaded = with_secret();
    reloaded.remember(&signatures);
    assert_eq!(reloaded.check(&with_nonce("a"), NOW), Err("replayed"), "also after a reload");
    let without = || sign(request("POST", "/graphql"), ALL, shared(SECRET));
    assert_eq!(
        (signatures.check(&without(), NOW), signatures.check(&without(), NOW)),
        (Ok(good()), Ok(good()))
    );
}

#[test]
fn the_last_nonces_are_remembered_however_many_there_are() {
    let signatures = Signatures { nonces: nonces(2, Duration::from_mins(1)), ..with_secret() };
    for nonce in ["a", "b", "c", "d", "e"] {
        let signed = sign(request("POST", "/graphql"), &format!("{ALL};nonce=\"{nonce}\""), shared(SECRET));
        assert_eq!(signatures.check(&signed, NOW), Ok(good()), "{nonce}");
        signatures.nonces.run_pending_tasks();
        assert_eq!(signatures.check(&signed, NOW), Err("replayed"), "{nonce}");
    }
}

#[test]
fn one_good_signature_of_several_is_enough() {
    let signatures = with_secret();
    let mut head = sign(request("POST", "/graphql"), ALL, shared(SECRET));
    let text = |name: &HeaderName| head.headers[name].to_str().expect("text").to_owned();
    let input = format!("p=(\"@method\");created=1;keyid=\"proxy\", {}", text(&SIGNATURE_INPUT));
    let signature = format!("p=:AAAA:, {}", text(&SIGNATURE));
    head.headers.insert(SIGNATURE_INPUT, HeaderValue::from_str(&input).expect("a header"));
    head.headers.insert(SIGNATURE, HeaderValue::from_str(&signature).expect("a header"));
    assert_eq!(signatures.check(&head, NOW), Ok(good()));
}

#[test]
fn a_body_is_held_to_all_digests_that_are_known() {
    let (right, wrong) = (digest_of(BODY), digest_of(b"another"));
    for (digest, holds) in [
        (right.clone(), true),
        (format!("{right}, md5=:AAAA:"), true),
        (wrong.clone(), false),
        (format!("{right}, {}", wrong.replace("256", "512")), false),
        ("md5=:AAAA:".to_owned(), false),
        ("sha-256=text".to_owned(), false),
        ("sha-256".to_owned(), false),
        (String::new(), false),
        ("(".to_owned(), false),
    ] {
        assert_eq!(has_digest(BODY, &digest), holds, "{digest}");
    }
}

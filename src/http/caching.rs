//! How answers are kept by others: `Cache-Control`, `ETag`, `If-None-Match` and `Vary`. Not here: how long an answer
//! keeps, which the graph says; the coding that it goes out in, which is a part of its tag (`compression`).

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use schema::{Audience, CachePolicy, Chunks, digest};

use super::in_memory::InMemory;

/// What is known of the answer to a GET.
#[derive(Clone, Copy)]
pub(super) struct CacheableResponse {
    pub(super) policy: Option<CachePolicy>,
    /// It ran, without errors.
    pub(super) is_complete: bool,
    /// What stands for its bytes, where that is known.
    pub(super) digest: Option<[u8; 16]>,
}

/// `Cache-Control`: exactly `max-age=N, public`, `max-age=N, private` or `no-store`.
pub(super) fn control(policy: Option<CachePolicy>) -> HeaderValue {
    let Some(CachePolicy { max_age_seconds, audience }) = policy else {
        return HeaderValue::from_static("no-store");
    };
    let audience = match audience {
        Audience::Public => "public",
        Audience::Private => "private",
    };
    HeaderValue::from_str(&format!("max-age={max_age_seconds}, {audience}")).expect("digits and letters")
}

/// The response to a GET.
pub(super) fn respond(
    answer: CacheableResponse,
    status: StatusCode,
    content_type: &'static str,
    body: Chunks,
) -> Response {
    let headers = [
        (header::CACHE_CONTROL, control(answer.policy)),
        // The media type is the caller's choice.
        (header::VARY, HeaderValue::from_static("accept")),
    ];
    if !answer.is_complete {
        return (status, headers, [(header::CONTENT_TYPE, content_type)], Body::from(InMemory::from(body)))
            .into_response();
    }
    let digest = answer.digest.unwrap_or_else(|| digest(body.slices()));
    let tag = tag_of(content_type, digest);
    let tagged = [(header::ETAG, HeaderValue::from_str(&tag).expect("hexadecimal digits in quotes"))];
    (status, headers, tagged, [(header::CONTENT_TYPE, content_type)], Body::from(InMemory::from(body)))
        .into_response()
}

/// A strong tag: equal only for equal bytes of one type.
fn tag_of(content_type: &str, digest: [u8; 16]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(content_type.as_bytes()).update(&digest);
    format!("\"{}\"", &hasher.finalize().to_hex()[..32])
}

/// Does the caller say, in their `If-None-Match`, that they have the answer with these headers? Tags of the
/// same answer in another coding are tags of other bytes (RFC 9110 §8.8.3, §13.1.2: compared weakly).
pub(super) fn is_known(given: &[HeaderValue], headers: &HeaderMap) -> bool {
    let Some(tag) = headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()) else { return false };
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").trim_matches('"').to_owned();
    let own = opaque(tag);
    given.iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').map(opaque).any(|given| given == "*" || (given == own && !own.is_empty()))
    })
}

/// An answer that is not for everybody is another one for another caller: one browser may serve two accounts,
/// and a cache of one's own must not give the answer of the one to the other (RFC 9111 §4.1). The media type
/// is a choice of the caller too.
pub(super) fn vary_by_caller(response: &mut Response) {
    let control = response.headers().get(header::CACHE_CONTROL).and_then(|control| control.to_str().ok());
    let is_public = control.is_some_and(|control| control.split(',').any(|part| part.trim() == "public"));
    if !is_public {
        vary(response.headers_mut(), &["accept", "authorization"]);
    }
}

/// Adds names of headers to `Vary`, and makes one line of it: some caches look at one line only.
pub(super) fn vary(headers: &mut HeaderMap, more: &[&str]) {
    if more.is_empty() && headers.get_all(header::VARY).iter().nth(1).is_none() {
        return;
    }
    let lines = headers.get_all(header::VARY).iter().filter_map(|line| line.to_str().ok());
    let given = lines.flat_map(|line| line.split(',')).map(str::trim);
    let mut names: Vec<&str> = Vec::new();
    for name in given.chain(more.iter().copied()).filter(|name| !name.is_empty()) {
        // `*`: by more than headers, whatever else is named (RFC 9110 §12.5.5).
        if !names.iter().any(|known| *known == "*" || known.eq_ignore_ascii_case(name)) {
            names.push(name);
        }
    }
    if let Ok(line) = HeaderValue::from_str(&names.join(", ")) {
        headers.insert(header::VARY, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knows(given: &str, tag: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ETAG, HeaderValue::from_str(tag).expect("a header"));
        is_known(&[HeaderValue::from_str(given).expect("a header")], &headers)
    }

    #[test]
    fn a_tag_is_compared_weakly_and_stands_for_one_coding() {
        for given in ["\"ab\"", "W/\"ab\"", "\"x\", \"ab\"", "*"] {
            assert!(knows(given, "\"ab\""), "{given}");
        }
        for given in ["\"abc\"", "\"\"", "\"ab-gzip\"", "\"x\""] {
            assert!(!knows(given, "\"ab\""), "{given}");
        }
        assert!(knows("\"ab-br\"", "\"ab-br\"") && !knows("\"ab\"", "\"ab-br\""));
        assert!(!is_known(&[HeaderValue::from_static("*")], &HeaderMap::new()), "there is nothing to have");
    }

    #[test]
    fn the_vary_header_has_no_duplicates() {
        let varied = |control: &'static str, by: &[&'static str]| {
            let mut response = ().into_response();
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(control));
            for line in by {
                response.headers_mut().append(header::VARY, HeaderValue::from_static(line));
            }
            vary_by_caller(&mut response);
            let lines = response.headers().get_all(header::VARY).iter();
            lines.map(|line| line.to_str().expect("text").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(varied("max-age=300, private", &["accept"]), ["accept, authorization"]);
        assert_eq!(varied("no-store", &[]), ["accept, authorization"]);
        assert_eq!(varied("no-store", &["Origin", "Authorization"]), ["Origin, Authorization, accept"]);
        assert_eq!(varied("no-store", &["*"]), ["*"]);
        assert_eq!(varied("max-age=60, public", &["accept"]), ["accept"]);
    }

    #[test]
    fn a_tag_stands_for_bytes_and_type() {
        let tag = |content_type, body: &[u8]| tag_of(content_type, digest([body]));
        assert_eq!(tag("a", b"b"), tag("a", b"b"));
        assert_ne!(tag("a", b"b"), tag("a", b"c"));
        assert_ne!(tag("a", b"b"), tag("c", b"b"));
    }
}

//! How answers are kept by others: `Cache-Control`, `ETag`, `If-None-Match` and `Vary`. Not here: how long an answer
//! keeps, which the graph says.

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use schema::{Audience, CachePolicy, digest};

/// The codings that a tag can have been marked with.
const CODINGS: [&str; 3] = ["-gzip", "-br", "-zstd"];

/// What is known of the answer to a GET.
#[derive(Clone, Copy)]
pub(super) struct Answer {
    pub(super) policy: Option<CachePolicy>,
    /// It ran, without errors.
    pub(super) is_whole: bool,
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

/// The response to a GET: 304 where the caller has this answer already.
pub(super) fn respond(
    asked: &HeaderMap,
    answer: Answer,
    status: StatusCode,
    content_type: &'static str,
    body: Vec<u8>,
) -> Response {
    let headers = [
        (header::CACHE_CONTROL, control(answer.policy)),
        // The media type is the caller's choice. Who asks is no part of it: what depends on them is private.
        (header::VARY, HeaderValue::from_static("accept")),
    ];
    if !answer.is_whole {
        return (status, headers, [(header::CONTENT_TYPE, content_type)], body).into_response();
    }
    let digest = answer.digest.unwrap_or_else(|| digest(&[body.as_slice()]));
    let tag = tag_of(content_type, digest);
    let tagged = [(header::ETAG, HeaderValue::from_str(&tag).expect("hexadecimal digits in quotes"))];
    if is_known(asked, &tag) {
        return (StatusCode::NOT_MODIFIED, headers, tagged).into_response();
    }
    (status, headers, tagged, [(header::CONTENT_TYPE, content_type)], Bytes::from(body)).into_response()
}

/// A strong tag: equal only for equal bytes of one type.
fn tag_of(content_type: &str, digest: [u8; 16]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(content_type.as_bytes()).update(&digest);
    format!("\"{}\"", &hasher.finalize().to_hex()[..32])
}

fn is_known(asked: &HeaderMap, tag: &str) -> bool {
    let bare = tag.trim_matches('"');
    asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').map(str::trim).any(|given| {
            let given = given.strip_prefix("W/").unwrap_or(given).trim_matches('"');
            let plain = CODINGS.iter().find_map(|coding| given.strip_suffix(coding)).unwrap_or(given);
            given == "*" || plain == bare
        })
    })
}

/// Marks the tag of a compressed answer: other bytes, another strong tag.
pub(super) async fn tag_encoding(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let coding = headers.get(header::CONTENT_ENCODING).and_then(|coding| coding.to_str().ok());
    let tag = headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
    if let (Some(coding), Some(tag)) = (coding, tag)
        && let Some(open) = tag.strip_suffix('"')
        && let Ok(marked) = HeaderValue::from_str(&format!("{open}-{coding}\""))
    {
        headers.insert(header::ETAG, marked);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knows(given: &str, tag: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_str(given).expect("a header"));
        is_known(&headers, tag)
    }

    #[test]
    fn a_tag_is_recognised_in_every_coding() {
        for given in ["\"ab\"", "\"ab-gzip\"", "\"ab-br\"", "W/\"ab\"", "\"x\", \"ab-zstd\"", "*"] {
            assert!(knows(given, "\"ab\""), "{given}");
        }
        for given in ["\"abc\"", "\"\"", "\"ab-lzma\"", "\"x\""] {
            assert!(!knows(given, "\"ab\""), "{given}");
        }
        assert!(!HeaderMap::new().contains_key("if-none-match") && !is_known(&HeaderMap::new(), "\"ab\""));
    }

    #[test]
    fn a_tag_stands_for_bytes_and_type() {
        let tag = |content_type, body: &[u8]| tag_of(content_type, digest(&[body]));
        assert_eq!(tag("a", b"b"), tag("a", b"b"));
        assert_ne!(tag("a", b"b"), tag("a", b"c"));
        assert_ne!(tag("a", b"b"), tag("c", b"b"));
    }
}

//! Which host a request is for: said once, and alike in both places that may say it (RFC 9112 §3.2, RFC 9113
//! §8.3.1). What two readers of a request could understand differently is refused: a cache or proxy in front
//! may have taken the other reading. Not here: which hosts this server is (it answers for all).

use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, Version, header, uri::Authority};

use crate::rejection::Rejection;

const INVALID: Rejection = Rejection::new(
    StatusCode::BAD_REQUEST,
    "BAD_USER_INPUT",
    "Invalid Host header: a request names its host exactly once, as in example.com or example.com:8080.",
);

/// Refuses a request without a host, with several, or with one that cannot be; otherwise leaves it in `Host`, whichever
/// place it came in.
pub(super) fn settle<B>(request: &mut Request<B>) -> Result<(), Rejection> {
    let given = given(request.headers())?;
    let target = request.uri().authority().map(Authority::as_str);
    let is_http2 = request.version() == Version::HTTP_2;
    if let (Some(target), Some(given)) = (target, given.as_deref())
        && is_http2
        && !target.eq_ignore_ascii_case(given)
    {
        return Err(INVALID);
    }
    // HTTP/1.0 knows no host. Over HTTP/1.1 the header is required even where the target says it, and then ignored.
    let is_needed = match request.version() {
        Version::HTTP_09 | Version::HTTP_10 => false,
        Version::HTTP_2 | Version::HTTP_3 => target.is_none(),
        _ => true,
    };
    if is_needed && given.is_none() {
        return Err(INVALID);
    }
    if let Some(target) = target {
        if !is_host(target) {
            return Err(INVALID);
        }
        let host = HeaderValue::from_str(target).map_err(|_| INVALID)?;
        request.headers_mut().insert(header::HOST, host);
    }
    Ok(())
}

/// What `Host` says, if it is there.
fn given(headers: &HeaderMap) -> Result<Option<String>, Rejection> {
    let mut given = headers.get_all(header::HOST).iter();
    let Some(host) = given.next() else { return Ok(None) };
    let text = host.to_str().map_err(|_| INVALID)?;
    if given.next().is_some() || !is_host(text) {
        return Err(INVALID);
    }
    Ok(Some(text.to_owned()))
}

/// A host with or without a port; empty where a target has none (RFC 9110 §7.2). Never with an account.
fn is_host(text: &str) -> bool {
    let Ok(authority) = text.parse::<Authority>() else { return text.is_empty() };
    let port = text.strip_prefix(authority.host());
    port.is_some_and(|port| {
        port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(version: Version, target: &str, hosts: &[&'static str]) -> Result<String, u16> {
        let mut request = Request::get(target).version(version).body(()).expect("a request");
        for host in hosts {
            request.headers_mut().append(header::HOST, HeaderValue::from_static(host));
        }
        settle(&mut request).map_err(|rejection| rejection.status.as_u16())?;
        let host = request.headers().get(header::HOST);
        Ok(host.and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned())
    }

    #[test]
    fn a_request_has_one_host() {
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        for (version, target, hosts, host) in [
            (one, "/", &["a.example"][..], "a.example"),
            (one, "/", &["a.example:8080"], "a.example:8080"),
            (one, "/", &["[::1]:8080"], "[::1]:8080"),
            (one, "/", &[""], ""),
            (one, "http://b.example/", &["a.example"], "b.example"),
            (Version::HTTP_10, "/", &[], ""),
            (two, "http://a.example/", &[], "a.example"),
            (two, "http://a.example/", &["A.example"], "a.example"),
            (two, "/", &["a.example"], "a.example"),
        ] {
            assert_eq!(
                settled(version, target, hosts),
                Ok(host.to_owned()),
                "{version:?} {target} {hosts:?}"
            );
        }
        for (version, target, hosts) in [
            (one, "/", &[][..]),
            (one, "/", &["a.example", "b.example"]),
            (one, "/", &["a.example", "a.example"]),
            (one, "http://a.example/", &[]),
            (one, "/", &["a.example/path"]),
            (one, "/", &["a.example, b.example"]),
            (one, "/", &["ann@a.example"]),
            (one, "/", &["a.example:port"]),
            (Version::HTTP_10, "/", &["a.example", "b.example"]),
            (two, "/", &[]),
            (two, "http://a.example/", &["b.example"]),
            (two, "http://a.example/", &["a.example", "a.example"]),
            (two, "http://ann@a.example/", &[]),
        ] {
            assert_eq!(settled(version, target, hosts), Err(400), "{version:?} {target} {hosts:?}");
        }
    }
}

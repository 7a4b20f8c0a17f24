//! The playground: GraphiQL, bundled offline by `playground/` and embedded by `build.rs`. Assets are stored compressed
//! and sent as they are; a client without brotli gets them decompressed. Beside it what the page
//! lists of the server: published documents, and in development the plans of statements. Not here: the page itself.

use std::{io::Read as _, net::IpAddr};

use axum::{
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Redirect, Response},
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{peer::Peer, request_id};
use crate::{App, auth, rejection::Rejection};

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// One file of the bundle.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    /// Of the uncompressed content.
    sha256: &'static str,
    brotli: &'static [u8],
}

/// What the page may load and do.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; worker-src 'self'; style-src \
                                       'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; \
                                       connect-src 'self'; base-uri 'none'; form-action 'none'; \
                                       frame-ancestors 'none'";
const REVALIDATE: &str = "no-cache";
const FOR_GOOD: &str = "public, max-age=31536000, immutable";
/// What proxies add to a request.
const PASSED_ON: [&str; 6] =
    ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"];
/// Assets without a hash of their content in their name.
const UNHASHED: [&str; 2] = ["index.html", "LICENSES.txt"];

/// An account that the playground offers to sign in as.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: &'static str,
    /// An access token.
    pub token: String,
    /// Its password.
    pub password: &'static str,
}

/// What the page reads at its start; in development answers can be explained.
pub(crate) fn settings(accounts: &[Account], is_development: bool) -> Bytes {
    let accounts: Vec<_> = accounts
        .iter()
        .map(|Account { name, role, token, password }| {
            json!({ "name": name, "role": role, "token": token, "password": password })
        })
        .collect();
    json!({ "endpoint": "/graphql", "accounts": accounts, "explains": is_development }).to_string().into()
}

/// Whether a browser was sent to the graph's address, with nothing to ask there.
pub(super) fn is_meant(parts: &Parts) -> bool {
    let accepted = parts.headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut ranges = accepted.flat_map(|text| text.split(',')).map(str::trim);
    parts.uri.query().is_none_or(str::is_empty)
        && ranges.any(|range| is_taken(range, |media| media.eq_ignore_ascii_case("text/html")))
}

/// To the page.
pub(super) fn elsewhere() -> Response {
    let headers = [(header::CACHE_CONTROL, "no-store"), (header::VARY, "accept")];
    (headers, Redirect::to("/")).into_response()
}

/// `GET /`.
pub(super) async fn page(headers: HeaderMap) -> Response {
    send("index.html", &headers).await
}

/// `GET /playground/{asset}`.
pub(super) async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Response {
    send(&path, &headers).await
}

/// `GET /playground/config.json`. Its tokens go only to pages of this machine that are shown on it: a foreign
/// page that has its own name point at 127.0.0.1 (DNS rebinding) gets none, nor does another machine,
/// whatever `Host` it sends.
pub(super) async fn config(State(app): State<App>, request: Request) -> Response {
    let peer = request.extensions().get::<Peer>().map(|Peer(peer)| *peer);
    let is_local = is_local(peer, request.headers());
    let body =
        if is_local { app.playground.clone().unwrap_or_default() } else { settings(&[], app.development) };
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body).into_response()
}

/// JSON that nobody keeps.
fn once(body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (headers, body.to_string()).into_response()
}

/// `GET /playground/documents.json`: the published documents with how often this process was asked for them;
/// in production for administrators.
pub(super) async fn documents(State(app): State<App>, headers: HeaderMap) -> Response {
    if !app.development && !auth::viewer(&app.access, &headers).is_ok_and(|viewer| viewer.is_admin()) {
        const FORBIDDEN: Rejection =
            Rejection::new(StatusCode::FORBIDDEN, "FORBIDDEN", "Only administrators may list documents.");
        return FORBIDDEN.into_response(request_id(&headers));
    }
    let trusted = app.documents.trusted();
    let mut known: Vec<_> = trusted.iter().collect();
    known.sort_unstable_by_key(|known| (known.operation_names().concat(), &known.entry.id));
    let listed = known.into_iter().map(|known| {
        let usage = known.usage();
        json!({
            "id": known.entry.id,
            "client": known.entry.client,
            "operations": known.operation_names(),
            "text": known.entry.text,
            "requests": usage.requests,
            "lastUsedSeconds": usage.last_used_seconds,
        })
    });
    once(&json!({ "documents": listed.collect::<Vec<_>>() }))
}

/// `GET /playground/plans/{answer}/{statement}`: how the database carries out a statement of an answer that
/// was explained, for administrators in development. The bearer token keeps foreign pages from asking.
pub(super) async fn plan(
    State(app): State<App>,
    Path((answer, statement)): Path<(u64, usize)>,
    headers: HeaderMap,
) -> Response {
    const NOT_FOUND: Rejection = Rejection::new(
        StatusCode::NOT_FOUND,
        "BAD_USER_INPUT",
        "Plan not found: administrators get those of the answers that were explained last, in development.",
    );
    let refuse = |rejection: Rejection| rejection.into_response(request_id(&headers));
    let Ok(viewer) = auth::viewer(&app.access, &headers) else { return refuse(NOT_FOUND) };
    match app.graph.plan(&viewer, answer, statement).await {
        Ok(Some(lines)) => once(&json!({ "plan": lines })),
        Ok(None) => refuse(NOT_FOUND),
        Err(error) => {
            tracing::warn!(%error, "a plan cannot be read");
            refuse(Rejection::internal())
        }
    }
}

async fn send(path: &str, request: &HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.path == path) else {
        let missing = "File not found; was the playground built (`npm run build` in playground/)?";
        return Rejection::new(StatusCode::NOT_FOUND, "BAD_USER_INPUT", missing)
            .into_response(request_id(request));
    };
    let brotli = takes_brotli(request);
    let etag = format!("\"{}{}\"", &asset.sha256[..32], if brotli { "-br" } else { "" });
    let known = request.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let mut response = if known.is_some_and(|known| known.split(',').any(|tag| tag.trim() == etag)) {
        StatusCode::NOT_MODIFIED.into_response()
    } else if brotli {
        ([(header::CONTENT_ENCODING, "br")], asset.brotli).into_response()
    } else {
        match tokio::task::spawn_blocking(|| decompressed(asset.brotli)).await {
            Ok(Ok(content)) => content.into_response(),
            _ => return Rejection::internal().into_response(request_id(request)),
        }
    };
    let cache = if UNHASHED.contains(&asset.path) { REVALIDATE } else { FOR_GOOD };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    response
}

/// Comes the request from this machine, for itself? Not where a proxy has passed it on, however near the proxy is.
fn is_local(peer: Option<IpAddr>, headers: &HeaderMap) -> bool {
    let is_near = peer.is_some_and(|peer| peer.to_canonical().is_loopback());
    if !is_near || PASSED_ON.iter().any(|name| headers.contains_key(*name)) {
        return false;
    }
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).map_or(host, |(name, _)| name);
    ["localhost", "127.0.0.1", "[::1]"].contains(&name)
}

fn takes_brotli(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    codings.flat_map(|text| text.split(',')).any(|coding| is_taken(coding, |coding| coding == "br"))
}

/// Whether one entry of an `Accept…` header is the one that is looked for, and not refused.
fn is_taken(entry: &str, is_wanted: impl Fn(&str) -> bool) -> bool {
    let mut parts = entry.split(';').map(str::trim);
    parts.next().is_some_and(is_wanted)
        && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
}

fn decompressed(brotli: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::with_capacity(brotli.len() * 4);
    brotli_decompressor::Decompressor::new(brotli, 4096).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_local() {
        let near = Some(IpAddr::from([127, 0, 0, 1]));
        let to = |host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            headers
        };
        let local = |host| is_local(near, &to(host));
        assert!(
            ["localhost:8080", "localhost", "127.0.0.1:8080", "[::1]:8080", "[::1]"].into_iter().all(local)
        );
        assert!(!["evil.example:8080", "localhost.evil.example", "10.0.0.1", ""].into_iter().any(local));
        assert!(!is_local(near, &HeaderMap::new()));
        for peer in ["127.8.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(is_local(peer.parse().ok(), &to("localhost")), "{peer}");
        }
        for peer in ["10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1", "0.0.0.0"] {
            assert!(!is_local(peer.parse().ok(), &to("localhost")), "{peer}");
        }
        assert!(!is_local(None, &to("localhost")), "nobody knows from where");
        for name in PASSED_ON {
            let mut headers = to("localhost");
            headers.insert(name, HeaderValue::from_static("127.0.0.1"));
            assert!(!is_local(near, &headers), "{name}");
        }
    }

    #[test]
    fn the_bundle_is_whole() {
        for asset in ASSETS {
            let content = decompressed(asset.brotli).expect("brotli");
            let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &content);
            assert_eq!(hex::encode(sha256), asset.sha256, "{}", asset.path);
        }
    }
}

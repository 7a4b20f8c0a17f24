//! Pages of web origins: which may ask (`http.cors_origins`), what they may send (`http.cors_headers`) and
//! read, and how their browser is told (<https://fetch.spec.whatwg.org/#http-cors-protocol>). The server
//! knows callers by their token alone and sets no cookie, so credentials are never allowed, and what is here
//! protects no account by itself. Not here: how origins are written (`config::origins`).

use std::{borrow::Cow, sync::LazyLock};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::{REQUEST_ID, caching::vary, graphql, request_id};
use crate::{
    App,
    config::{HttpConfig, origins::HeaderNames},
    rejection::Rejection,
};

/// How long a browser remembers what it may ask, seconds; none remembers longer.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, QUERY");
/// What clients of this server send, whatever is configured.
const ALWAYS_ALLOWED: [&str; 17] = [
    "accept",
    "apollo-require-preflight",
    "apollographql-client-name",
    "apollographql-client-version",
    "authorization",
    "content-type",
    "graphql-client-name",
    "graphql-client-version",
    "graphql-cost",
    "idempotency-key",
    "if-none-match",
    "traceparent",
    "tracestate",
    "x-apollo-operation-name",
    "x-cache-token",
    "x-explain",
    "x-request-id",
];
/// What a page may read of an answer, beside what every page may.
const EXPOSED: [HeaderName; 9] = [
    header::AGE,
    header::ALLOW,
    header::DATE,
    header::ETAG,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
    graphql::CACHE_TOKEN,
    graphql::COST,
    REQUEST_ID,
];
/// What is repeated of what a page sent.
const ECHOED_CHARACTERS: usize = 64;

const FETCH_SITE: &str = "sec-fetch-site";
const ASKED_PRIVATE_NETWORK: &str = "access-control-request-private-network";
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// From which page a request comes, as far as the browser says. No page can write these headers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// From a page of this server, or from the address bar.
    Own,
    /// From one of an origin that may ask.
    Allowed,
    /// From one of another origin.
    Foreign,
    /// From no page, or from a browser that does not say.
    Unknown,
}

impl Page {
    pub(super) fn of(http: &HttpConfig, headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default());
        let site = text(HeaderName::from_static(FETCH_SITE));
        if let Some("same-origin" | "none") = site {
            return Self::Own;
        }
        let Some(origin) = text(header::ORIGIN) else {
            return if site.is_some() { Self::Foreign } else { Self::Unknown };
        };
        let host = origin.split_once("://").map_or("", |(_, host)| host);
        if text(header::HOST).is_some_and(|own| own.eq_ignore_ascii_case(host)) {
            return Self::Own;
        }
        if http.cors_origins.allow(origin) { Self::Allowed } else { Self::Foreign }
    }
}

/// A page of an origin that may not ask; names the setting that would allow it.
pub(super) fn foreign(headers: &HeaderMap) -> Rejection {
    let origin = headers.get(header::ORIGIN).map(HeaderValue::as_bytes).unwrap_or_default();
    let origin = short(&String::from_utf8_lossy(origin));
    let message = format!(
        "Pages of the origin {origin} may not ask this server. The setting http.cors_origins \
         (XP_HTTP_CORS_ORIGINS) lists those that may."
    );
    Rejection { message: Cow::Owned(message), ..Rejection::new(StatusCode::FORBIDDEN, "FORBIDDEN", "") }
}

/// Around all routes: answers preflights, and lets browsers show answers to pages that may have them.
pub(super) async fn share(State(app): State<App>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    // Tokens of demo accounts and the operator's figures are for no other page, whatever is configured.
    if path == "/metrics" || path.starts_with("/playground/") {
        return next.run(request).await;
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    if origin.is_some() && *request.method() == Method::OPTIONS {
        let is_graphql = path == "/graphql" || path.starts_with("/graphql/");
        let mut response = preflight(&app.http, request.headers());
        response.headers_mut().extend(is_graphql.then_some(graphql::ACCEPT_QUERY));
        return response;
    }
    let mut response = next.run(request).await;
    show(&app.http, origin.as_ref(), response.headers_mut());
    response
}

/// Lets the browser show an answer with these headers to a page of this origin, if it may have it.
pub(super) fn show(http: &HttpConfig, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    static ALL_EXPOSED: LazyLock<HeaderValue> = LazyLock::new(|| {
        let names = EXPOSED.each_ref().map(HeaderName::as_str).join(", ");
        HeaderValue::from_str(&names).expect("names of headers")
    });
    if allow(http, origin, headers) {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, ALL_EXPOSED.clone());
    }
}

/// Says whether pages of this origin may have the answer, and on what that depends; true if they may.
fn allow(http: &HttpConfig, origin: Option<&HeaderValue>, headers: &mut HeaderMap) -> bool {
    let origins = &http.cors_origins;
    if origins.is_any() {
        // The same for everybody: a cache can keep one answer for all.
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        vary(headers, &[]);
        return true;
    }
    // Without an origin too: a cache must not give that answer to a page, nor a page's to another.
    vary(headers, if origins.is_empty() { &[] } else { &["origin"] });
    let Some(origin) = origin.filter(|origin| origin.to_str().is_ok_and(|origin| origins.allow(origin)))
    else {
        return false;
    };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    true
}

/// What a browser asks before it sends what no plain form could send.
fn preflight(http: &HttpConfig, asked: &HeaderMap) -> Response {
    if matches!(Page::of(http, asked), Page::Foreign | Page::Unknown) {
        let mut response = foreign(asked).into_response(request_id(asked));
        vary(response.headers_mut(), &["origin"]);
        return response;
    }
    let wanted = asked.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let wanted: Vec<&str> = wanted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    let (allowed, refused) = match &http.cors_headers {
        HeaderNames::Any => (wanted.join(", "), None),
        HeaderNames::Listed(names) => {
            let all: Vec<&str> =
                ALWAYS_ALLOWED.into_iter().chain(names.iter().map(HeaderName::as_str)).collect();
            let is_known = |name: &&str| all.iter().any(|known| known.eq_ignore_ascii_case(name));
            let refused = wanted.iter().find(|name| !is_known(name)).copied();
            (all.join(", "), refused)
        }
    };
    let mut response = match refused {
        None => StatusCode::NO_CONTENT.into_response(),
        // With a good status: a browser names the header in its console only then.
        Some(name) => header_not_listed(name).into_response(request_id(asked)),
    };
    let headers = response.headers_mut();
    let origin = asked.get(header::ORIGIN);
    if !allow(http, origin, headers) {
        // A page of this server, which needs no leave.
        headers.extend(origin.map(|origin| (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone())));
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    if let Ok(allowed) = HeaderValue::from_str(&allowed)
        && !allowed.is_empty()
    {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    let is_named = origin.and_then(|origin| origin.to_str().ok()).is_some_and(|o| http.cors_origins.names(o));
    if is_named && asked.get(ASKED_PRIVATE_NETWORK).is_some_and(|value| value == "true") {
        headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
    }
    vary(headers, &["origin", "access-control-request-headers", "access-control-request-private-network"]);
    response
}

fn header_not_listed(name: &str) -> Rejection {
    let message = format!(
        "Pages of other origins may not send the header {}. The setting http.cors_headers \
         (XP_HTTP_CORS_HEADERS) lists those that they may.",
        short(name)
    );
    Rejection { message: Cow::Owned(message), ..Rejection::new(StatusCode::OK, "FORBIDDEN", "") }
}

fn short(text: &str) -> String {
    text.chars().take(ECHOED_CHARACTERS).collect()
}

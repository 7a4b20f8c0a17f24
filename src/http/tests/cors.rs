//! Pages of other origins: who may ask, send, read and connect, by plain requests, preflights, GET and
//! WebSocket; what of the server they may not have. And the schema for client tools. Not here: how origins
//! are written (`config::origins`).

use super::*;
use crate::config::setting::Setting;

const APP: &str = "https://app.example.com";
const FOREIGN: &str = "https://evil.example";

/// Production, with these settings.
async fn production(origins: &str, headers: &str) -> App {
    let (origins, headers) =
        (Setting::parse(origins).expect("valid"), Setting::parse(headers).expect("valid"));
    let change = |config: &mut Config| {
        config.http.cors_origins = origins;
        config.http.cors_headers = headers;
    };
    app_of(None, change, |store, _| store).await
}

fn preflight(origin: &str, headers: &str) -> HttpRequest<Body> {
    let request = HttpRequest::options("/graphql").body(Body::empty()).expect("a request");
    let request = with(with(request, "origin", origin), "access-control-request-method", "POST");
    with(request, "access-control-request-headers", headers)
}

fn value<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).map(text)
}

/// The names in a list of a header.
fn names<'h>(headers: &'h HeaderMap, name: &str) -> Vec<&'h str> {
    value(headers, name).unwrap_or_default().split(", ").collect()
}

#[tokio::test]
async fn pages_of_listed_origins_may_ask() {
    let app = production("https://app.example.com, https://*.example.org, http://localhost:*", "*").await;
    for origin in [APP, "https://a.b.example.org", "http://localhost:5173"] {
        let (status, headers, body) = send(&app, preflight(origin, "content-type,sentry-trace,x-own")).await;
        assert_eq!((status, body), (204, json!("")));
        assert_eq!(value(&headers, "access-control-allow-origin"), Some(origin));
        assert_eq!(value(&headers, "access-control-allow-methods"), Some("GET, POST, QUERY"));
        assert_eq!(
            value(&headers, "access-control-allow-headers"),
            Some("content-type, sentry-trace, x-own")
        );
        assert!(names(&headers, "vary").contains(&"origin"));
        assert!(names(&headers, "vary").contains(&"access-control-request-headers"));
        assert_eq!(value(&headers, "access-control-allow-credentials"), None);
        let (_, headers, _) = send(&app, with(post_of(QUERY), "origin", origin)).await;
        assert_eq!(value(&headers, "access-control-allow-origin"), Some(origin));
        for exposed in
            ["etag", "graphql-cost", "retry-after", "www-authenticate", "x-cache-token", "x-request-id"]
        {
            assert!(names(&headers, "access-control-expose-headers").contains(&exposed), "{exposed}");
        }
    }
    let (status, headers, _) = send(&app, with(get_of("/nowhere"), "origin", APP)).await;
    assert_eq!(
        (status, value(&headers, "access-control-allow-origin")),
        (404, Some(APP)),
        "a page may see why"
    );
}

#[tokio::test]
async fn a_refused_page_is_told_the_setting() {
    for origins in ["", "https://app.example.com"] {
        let app = production(origins, "*").await;
        for origin in [FOREIGN, "https://app.example.com.evil.example", "http://localhost:3000", "null"] {
            let (status, headers, body) = send(&app, preflight(origin, "content-type")).await;
            let error = &body["errors"][0];
            assert_eq!((status, &error["extensions"]["code"]), (403, &json!("FORBIDDEN")));
            let message = error["message"].as_str().expect("text");
            assert!(message.contains("http.cors_origins") && message.contains(origin), "{message}");
            assert_eq!(value(&headers, "access-control-allow-origin"), None);
            let (_, headers, _) = send(&app, with(post_of(QUERY), "origin", origin)).await;
            assert_eq!(value(&headers, "access-control-allow-origin"), None);
            let socket = with(with(get_of("/graphql"), "origin", origin), "upgrade", "websocket");
            let (status, _, body) = send(&app, socket).await;
            let message = body["errors"][0]["message"].as_str().expect("text");
            assert!(status == 403 && message.contains("http.cors_origins"), "{message}");
        }
        let long = format!("https://{}.example", "x".repeat(5_000));
        let (_, _, body) = send(&app, preflight(&long, "content-type")).await;
        assert!(body.to_string().len() < 400, "{body}");
    }
}

#[tokio::test]
async fn a_cache_keeps_the_answer_of_each_origin_for_itself() {
    let app = production("https://app.example.com, http://localhost:*", "*").await;
    let schema = "/graphql?query=%7B__typename%7D";
    for origin in [None, Some(APP), Some("http://localhost:1"), Some(FOREIGN)] {
        let request = get_of(schema);
        let request = origin.map_or(get_of(schema), |origin| with(request, "origin", origin));
        let (status, headers, _) = send(&app, request).await;
        assert_eq!((status, headers.get_all("vary").iter().count()), (200, 1));
        let vary = names(&headers, "vary");
        assert!(vary.contains(&"origin") && vary.contains(&"accept"), "{vary:?}");
        let allowed = origin.filter(|origin| *origin != FOREIGN);
        assert_eq!(value(&headers, "access-control-allow-origin"), allowed);
    }
    // One answer for all, and none where no page may ask: nothing to tell apart.
    for origins in ["*", ""] {
        let app = production(origins, "*").await;
        let headers = send(&app, with(get_of(schema), "origin", FOREIGN)).await.1;
        assert!(!names(&headers, "vary").contains(&"origin"), "{headers:?}");
        let allowed = (origins == "*").then_some("*");
        assert_eq!(value(&headers, "access-control-allow-origin"), allowed);
    }
    let any = production("*", "*").await;
    let headers = send(&any, preflight("null", "x-a")).await.1;
    assert_eq!(value(&headers, "access-control-allow-origin"), Some("*"));
    assert_eq!(value(&send(&any, get_of(schema)).await.1, "access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn headers_are_those_that_are_listed_and_those_of_clients() {
    let app = production(APP, "baggage").await;
    let (status, headers, _) = send(&app, preflight(APP, "authorization,Baggage,content-type")).await;
    let allowed = names(&headers, "access-control-allow-headers");
    assert_eq!(status, 204);
    assert!(["authorization", "baggage", "content-type"].iter().all(|name| allowed.contains(name)));
    let (status, headers, body) = send(&app, preflight(APP, "authorization,x-own")).await;
    assert_eq!((status, value(&headers, "access-control-allow-origin")), (200, Some(APP)));
    assert!(!names(&headers, "access-control-allow-headers").contains(&"x-own"));
    let message = body["errors"][0]["message"].as_str().expect("text");
    assert!(message.contains("x-own") && message.contains("http.cors_headers"), "{message}");
}

#[tokio::test]
async fn a_private_network_is_open_to_named_origins_only() {
    let asked = |origin| with(preflight(origin, "a"), "access-control-request-private-network", "true");
    let allowed = async |app: &App, request| {
        value(&send(app, request).await.1, "access-control-allow-private-network").map(str::to_owned)
    };
    let named = production(APP, "*").await;
    assert_eq!(allowed(&named, asked(APP)).await.as_deref(), Some("true"));
    assert_eq!(allowed(&named, preflight(APP, "a")).await, None);
    assert_eq!(allowed(&named, asked(FOREIGN)).await, None);
    assert_eq!(allowed(&production("*", "*").await, asked(FOREIGN)).await, None);
}

#[tokio::test]
async fn development_is_open_to_pages_of_this_machine() {
    let app = app().await;
    for origin in
        ["http://localhost:3000", "https://localhost:5173", "http://127.0.0.1:8000", "http://[::1]:1"]
    {
        assert_eq!(send(&app, preflight(origin, "content-type")).await.0, 204, "{origin}");
        let socket = with(with(get_of("/graphql"), "origin", origin), "upgrade", "websocket");
        assert_eq!(
            rejection(&app, socket).await.0,
            400,
            "let in, though there is no socket behind this request"
        );
        // The demo accounts' tokens, and figures, are for pages of the server alone.
        for path in ["/playground/config.json", "/metrics"] {
            let headers = send(&app, with(get_of(path), "origin", origin)).await.1;
            assert_eq!(value(&headers, "access-control-allow-origin"), None, "{path}");
        }
    }
    for origin in [FOREIGN, "http://localhost.evil.example:3000", "http://192.168.0.1:3000"] {
        assert_eq!(
            rejection(&app, preflight(origin, "content-type")).await,
            (403, "FORBIDDEN".into()),
            "{origin}"
        );
    }
}

#[tokio::test]
async fn a_get_needs_one_of_the_csrf_proofs() {
    let app = production(APP, "*").await;
    let plain = |headers: &[(&'static str, &str)]| {
        let path = "/graphql?query=%7B__typename%7D";
        let request =
            HttpRequest::get(path).header("host", "graph.example").body(Body::empty()).expect("a request");
        headers.iter().fold(request, |request, (name, value)| with(request, name, value))
    };
    let bearer = format!("Bearer {}", token(&app, Role::Viewer));
    for headers in [
        &[("authorization", &*bearer)][..],
        &[("authorization", &*bearer), ("sec-fetch-site", "cross-site"), ("origin", FOREIGN)],
        &[("sec-fetch-site", "same-origin")],
        &[("sec-fetch-site", "none")],
        &[("origin", APP), ("sec-fetch-site", "cross-site")],
        &[("origin", "https://graph.example")],
        &[("apollo-require-preflight", "1"), ("origin", FOREIGN), ("sec-fetch-site", "cross-site")],
    ] {
        assert_eq!(send(&app, plain(headers)).await.0, 200, "{headers:?}");
    }
    for headers in [
        &[][..],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("origin", FOREIGN)],
        &[("origin", "null")],
        &[("origin", "")],
        &[("sec-fetch-site", "")],
    ] {
        let (status, _, body) = send(&app, plain(headers)).await;
        let error = &body["errors"][0];
        assert_eq!((status, &error["extensions"]["code"]), (400, &json!("CSRF_PREVENTION")), "{headers:?}");
        let message = error["message"].as_str().expect("text");
        for way in
            ["authorization", "apollo-require-preflight", "Sec-Fetch-Site", "http.cors_origins", "POST"]
        {
            assert!(message.contains(way), "{message}");
        }
    }
    for (name, value) in [("authorization", &*bearer), ("origin", APP), ("sec-fetch-site", "none")] {
        let mutation = HttpRequest::get("/graphql?query=mutation%7B__typename%7D").body(Body::empty());
        let mutation = with(mutation.expect("a request"), name, value);
        assert_eq!(rejection(&app, mutation).await, (405, "BAD_USER_INPUT".into()), "{name}");
    }
}

#[tokio::test]
async fn the_schema_for_client_tools_has_no_federation() {
    let open = app().await;
    let sdl = send(&open, get_of("/schema.graphql?api")).await.2;
    let sdl = sdl.as_str().expect("text");
    assert!(sdl == open.graph.api_sdl() && sdl.contains("type User implements Node {"));
    assert_eq!(send(&open, get_of("/schema.graphql?api=1")).await.2, json!(sdl));
    assert_eq!(send(&open, get_of("/schema.graphql?apis")).await.2, json!(open.graph.sdl()));
    // Where the schema is for gateways only, an administrator may have this one, too.
    let app = production("", "*").await;
    let ask = async |path: &str, role: Option<Role>| {
        let request = get_of(path);
        let bearer = role.map(|role| format!("Bearer {}", token(&app, role)));
        let request = match &bearer {
            Some(bearer) => with(request, "authorization", bearer),
            None => request,
        };
        send(&app, request).await.0
    };
    assert_eq!(ask("/schema.graphql?api", Some(Role::Admin)).await, 200);
    assert_eq!(ask("/schema.graphql", Some(Role::Admin)).await, 404);
    assert_eq!(ask("/schema.graphql?api", Some(Role::Manager)).await, 404);
    assert_eq!(ask("/schema.graphql?api", None).await, 404);
}

//! How answers go out, and who is not let in: codings, tags, arrays, rates, too much at once.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::*;
use crate::config::setting::{Networks, Setting as _};

const SCHEMA: &str = "/graphql?query=%7B__schema%7Btypes%7Bname%20description%7D%7D%7D";

/// The query, compressed.
const GZIP_OF_QUERY: &str =
    "H4sIAAAAAAACA6tWKixNLapUslJQqlYoLU4tKtZIyywqLrFSMNRUqFbIy09JLQbSmSkKtSCoVAsAlhSZ3TEAAAA=";
/// 100,000 spaces, compressed.
const GZIP_OF_SPACES: &str = "H4sIAAAAAAACA+3BMQEAAADCoCrrn9IaHkABAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAArwYt8HnKoIYBAA==";

fn bearer(app: &App) -> String {
    format!("Bearer {}", token(app, Role::Admin))
}

#[tokio::test]
async fn long_answers_are_compressed_as_the_caller_likes() {
    let app = app().await;
    for (accepted, coding) in [("gzip", "gzip"), ("br", "br"), ("zstd", "zstd"), ("gzip;q=0.1, br", "br")] {
        let (status, headers, _) = send(&app, with(get_of(SCHEMA), "accept-encoding", accepted)).await;
        assert_eq!((status, text(&headers["content-encoding"])), (200, coding));
        let vary: Vec<_> = headers.get_all("vary").iter().map(text).collect();
        assert!(vary.join(",").contains("accept-encoding"), "{vary:?}");
    }
    let (_, headers, _) = send(&app, get_of(SCHEMA)).await;
    assert!(!headers.contains_key("content-encoding"));
    let short = with(get_of("/graphql?query=%7B__typename%7D"), "accept-encoding", "gzip");
    assert!(!send(&app, short).await.1.contains_key("content-encoding"));
}

#[tokio::test]
async fn bodies_may_be_compressed_within_their_limit() {
    let app = app_with(|config| config.http.body_limit_anonymous.0 = 1_000).await;
    let unpacked = |base64: &str| STANDARD.decode(base64).expect("base64");
    let request = |body: Vec<u8>, coding: &str| with(post_of(body), "content-encoding", coding);
    assert_eq!(
        send(&app, request(unpacked(GZIP_OF_QUERY), "gzip")).await.2["data"]["users"]["nodes"],
        json!([])
    );
    assert_eq!(
        refusal(&app, request(unpacked(GZIP_OF_SPACES), "gzip")).await,
        (413, "PAYLOAD_TOO_LARGE".into())
    );
    assert_eq!(refusal(&app, request(b"not gzip".to_vec(), "gzip")).await, (400, "BAD_USER_INPUT".into()));
    for coding in ["br", "zstd", "deflate", "gzip, gzip", "nonsense"] {
        assert_eq!(
            refusal(&app, request(QUERY.into(), coding)).await,
            (415, "BAD_USER_INPUT".into()),
            "{coding}"
        );
    }
    assert_eq!(send(&app, request(QUERY.into(), "identity")).await.0, 200);
}

#[tokio::test]
async fn an_answer_that_the_caller_has_is_not_sent_again() {
    let app = app().await;
    let (status, headers, _) = send(&app, get_of(SCHEMA)).await;
    assert_eq!((status, text(&headers["cache-control"])), (200, "max-age=60, public"));
    let tag = text(&headers["etag"]);
    let (status, headers, body) = send(&app, with(get_of(SCHEMA), "if-none-match", tag)).await;
    assert_eq!((status, body), (304, json!("")));
    assert_eq!((text(&headers["etag"]), text(&headers["cache-control"])), (tag, "max-age=60, public"));
    assert_eq!(send(&app, with(get_of(SCHEMA), "if-none-match", "\"other\"")).await.0, 200);
    let packed = send(&app, with(get_of(SCHEMA), "accept-encoding", "gzip")).await.1["etag"].clone();
    assert_ne!(text(&packed), tag, "other bytes, another tag");
    let again = with(get_of(SCHEMA), "if-none-match", text(&packed));
    assert_eq!(send(&app, again).await.0, 304);
    let other_type =
        with(with(get_of(SCHEMA), "accept", "application/graphql-response+json"), "if-none-match", tag);
    assert_eq!(send(&app, other_type).await.0, 200);
}

#[tokio::test]
async fn what_depends_on_who_asks_is_private_or_not_kept() {
    let app = app().await;
    let control = async |path: &str| {
        let headers = send(&app, get_of(path)).await.1;
        text(&headers["cache-control"]).to_owned()
    };
    for (query, expected) in [
        ("{__typename}", "no-store"),
        ("{_service{sdl}}", "max-age=60, public"),
        ("{me{id}}", "no-store"),
        ("{__schema{types{name}}me{id}}", "no-store"),
        ("{users{totalCount}}", "no-store"),
        (
            "{node(id:\"0190a0b0-0000-7000-8000-000000000000\"){...on%20FormVersion{id}}}",
            "max-age=300, private",
        ),
        (
            "{node(id:\"0190a0b0-0000-7000-8000-000000000000\"){...on%20FormVersion{id}}_service{sdl}}",
            "max-age=60, private",
        ),
        ("{node(id:\"0190a0b0-0000-7000-8000-000000000000\"){...on%20Form{id}}}", "no-store"),
        ("{nothing}", "no-store"),
    ] {
        let path =
            format!("/graphql?query={}", query.replace('{', "%7B").replace('}', "%7D").replace('"', "%22"));
        assert_eq!(control(&path).await, expected, "{query}");
    }
    let explained = with(get_of(SCHEMA), "x-explain", "1");
    assert_eq!(send(&app, explained).await.1["cache-control"], "no-store");
}

#[tokio::test]
async fn arrays_of_requests_are_for_signed_in_callers_where_configured() {
    let array = |count: usize| format!("[{}]", vec![QUERY; count].join(","));
    let closed = app().await;
    let signed_in = |app: &App, body: String| with(post_of(body), "authorization", &bearer(app));
    assert_eq!(refusal(&closed, signed_in(&closed, array(1))).await, (400, "BAD_USER_INPUT".into()));
    let app = app_with(|config| config.http.max_batch = 3).await;
    assert_eq!(refusal(&app, post_of(array(1))).await, (400, "BAD_USER_INPUT".into()));
    assert_eq!(refusal(&app, signed_in(&app, array(4))).await.0, 400);
    let mixed = format!(r#"[{QUERY},{{"query": "{{ nothing }}"}},{{"query": ""}}]"#);
    let (status, _, body) = send(&app, signed_in(&app, mixed)).await;
    let codes: Vec<_> = (0..3).map(|index| body[index]["errors"][0]["extensions"]["code"].as_str()).collect();
    assert_eq!((status, codes), (200, vec![None, Some("GRAPHQL_VALIDATION_FAILED"), Some("BAD_USER_INPUT")]));
}

#[tokio::test]
async fn who_asks_too_often_is_told_to_wait() {
    let app = app_with(|config| {
        config.http.rate_per_second = Some(1);
        config.http.rate_burst = 2;
        config.http.trusted_proxies = Networks::parse("127.0.0.1").expect("valid");
        config.http.max_batch = 10;
    })
    .await;
    let from = |address: &str| {
        let mut request = with(post_of(QUERY), "x-forwarded-for", address);
        request.extensions_mut().insert(server::Peer([127, 0, 0, 1].into()));
        request
    };
    for _ in 0..2 {
        assert_eq!(send(&app, from("10.0.0.1")).await.0, 200);
    }
    let (status, headers, body) = send(&app, from("1.2.3.4, 10.0.0.1")).await;
    assert_eq!((status, &body["errors"][0]["extensions"]["code"]), (429, &json!("RATE_LIMITED")));
    assert_eq!(headers["retry-after"], "1");
    assert_eq!(send(&app, from("10.0.0.2")).await.0, 200, "another address");
    for (address, status) in
        [("2001:db8::1", 200), ("2001:db8::2", 200), ("2001:db8::3", 429), ("2001:db8:0:1::1", 200)]
    {
        assert_eq!(send(&app, from(address)).await.0, status, "one customer has a /64: {address}");
    }
    let one = bearer(&app);
    let signed_in = |body: &str| with(post_of(body.to_owned()), "authorization", &one);
    assert_eq!(send(&app, signed_in(&format!("[{QUERY},{QUERY},{QUERY}]"))).await.0, 200);
    assert_eq!(refusal(&app, signed_in(QUERY)).await.0, 429, "each request of an array counts");
}

#[tokio::test]
async fn too_much_at_once_is_refused_before_it_is_read() {
    let app = app_with(|config| {
        config.http.max_concurrent_requests = 1;
        config.http.request_timeout = Duration::from_secs(30);
    })
    .await;
    let only_connection = app.store.connection().get_sqlite_connection_pool().acquire().await.expect("free");
    let waits = tokio::spawn({
        let (app, request) = (app.clone(), with(post_of(QUERY), "authorization", &bearer(&app)));
        async move { send(&app, request).await.0 }
    });
    while app.admission.enter().is_ok() {
        tokio::task::yield_now().await;
    }
    let (status, headers, body) = send(&app, post_of("no JSON")).await;
    assert_eq!((status, &body["errors"][0]["extensions"]["code"]), (503, &json!("OVERLOADED")));
    assert_eq!(headers["retry-after"], "1");
    drop(only_connection);
    assert_eq!(waits.await.expect("no panic"), 200);
    assert_eq!(send(&app, post_of(QUERY)).await.0, 200);
}

#[tokio::test]
async fn names_are_suggested_in_development_only() {
    let app = app().await;
    let production = App::new(
        &Config::default(),
        app.store.clone(),
        app.access.clone(),
        prometheus_client::registry::Registry::default(),
        None,
    );
    for (app, suggests) in [(app, true), (production, false)] {
        let (_, _, body) = send(&app, post_of(r#"{"query": "{ userz { id } }"}"#)).await;
        let message = body["errors"][0]["message"].as_str().expect("a text");
        assert_eq!(message.contains("Did you mean"), suggests, "{message}");
    }
}

#[tokio::test]
async fn every_error_tells_the_id_of_its_request() {
    let app = app().await;
    for query in [
        "{",
        "{ nothing }",
        "{ users(first: 0) { totalCount } }",
        "mutation { signOut { userErrors { code } } }",
    ] {
        let request = with(post_of(json!({ "query": query }).to_string()), "x-request-id", "mine-1");
        let (_, headers, body) = send(&app, request).await;
        assert_eq!(headers["x-request-id"], "mine-1");
        assert_eq!(body["errors"][0]["extensions"]["requestId"], "mine-1", "{body}");
    }
}

#[tokio::test]
async fn bodies_share_a_bound_on_memory() {
    let app = app_with(|config| config.http.max_body_memory.0 = 400).await;
    assert_eq!(send(&app, post_of(QUERY)).await.0, 200);
    let wide = json!({ "query": "{ __typename }", "variables": { "x": [1, 2, 3, 4, 5, 6] } }).to_string();
    assert_eq!(refusal(&app, post_of(wide.clone())).await, (503, "OVERLOADED".into()), "values count too");
    assert_eq!(refusal(&app, post_of(format!("{QUERY:401}"))).await.0, 503);
    assert_eq!(send(&app, post_of(QUERY)).await.0, 200, "what was taken is given back");
    let enough = app_with(|config| config.http.max_body_memory.0 = 4_000).await;
    assert_eq!(send(&enough, post_of(wide)).await.0, 200);
}

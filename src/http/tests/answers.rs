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
    for (accepted, coding) in [
        ("gzip", "gzip"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("gzip;q=0.1, br", "br"),
        ("gzip, deflate, br, zstd", "br"),
    ] {
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
        rejection(&app, request(unpacked(GZIP_OF_SPACES), "gzip")).await,
        (413, "PAYLOAD_TOO_LARGE".into())
    );
    assert_eq!(rejection(&app, request(b"not gzip".to_vec(), "gzip")).await, (400, "BAD_USER_INPUT".into()));
    for coding in ["br", "zstd", "deflate", "gzip, gzip", "nonsense"] {
        assert_eq!(
            rejection(&app, request(QUERY.into(), coding)).await,
            (415, "BAD_USER_INPUT".into()),
            "{coding}"
        );
        // RFC 9110 §15.5.16.
        let (_, headers, _) = send(&app, request(QUERY.into(), coding)).await;
        assert_eq!(text(&headers["accept-encoding"]), "gzip, identity");
    }
    let untyped = with(post_of(QUERY), "content-type", "text/plain");
    let (status, headers, _) = send(&app, untyped).await;
    assert_eq!((status, headers.get("accept-encoding")), (415, None), "its coding is not what is wrong");
    assert_eq!(send(&app, request(QUERY.into(), "identity")).await.0, 200);
}

/// RFC 9110 §15.4.5, in every coding.
#[tokio::test]
async fn an_answer_that_the_caller_has_is_not_sent_again() {
    let app = app().await;
    let mut tags = Vec::new();
    for accepted in ["identity", "gzip", "zstd", "br"] {
        let ask = || with(get_of(SCHEMA), "accept-encoding", accepted);
        let (status, headers, _) = send(&app, ask()).await;
        assert_eq!((status, text(&headers["cache-control"])), (200, "max-age=60, public"));
        let tag = headers["etag"].clone();
        for given in
            [text(&tag).to_owned(), format!("W/{}", text(&tag)), format!("\"x\", {}", text(&tag)), "*".into()]
        {
            let (status, known, body) = send(&app, with(ask(), "if-none-match", &given)).await;
            assert_eq!((status, body), (304, json!("")), "{accepted}: {given}");
            for name in ["etag", "vary", "cache-control"] {
                let lines = |headers: &HeaderMap| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
                assert_eq!(lines(&known), lines(&headers), "{accepted}: {name}");
            }
            assert!(
                !known.contains_key("content-encoding") && !known.contains_key("content-type"),
                "{known:?}"
            );
        }
        assert_eq!(send(&app, with(ask(), "if-none-match", "\"other\"")).await.0, 200);
        let other_type =
            with(with(ask(), "accept", "application/graphql-response+json"), "if-none-match", text(&tag));
        assert_eq!(send(&app, other_type).await.0, 200);
        tags.push(tag);
    }
    for (index, tag) in tags.iter().enumerate() {
        assert!(!tags[..index].contains(tag), "other bytes, another tag: {tags:?}");
        let plain = with(get_of(SCHEMA), "if-none-match", text(tag));
        assert_eq!(
            send(&app, plain).await.0,
            if index == 0 { 304 } else { 200 },
            "what comes is not what they have"
        );
    }
    let posted =
        with(post_of(r#"{"query": "{ __schema { types { name description } } }"}"#), "if-none-match", "*");
    assert_eq!(send(&app, posted).await.0, 200);
}

/// Two accounts may share a browser, and so a cache.
#[tokio::test]
async fn private_answers_vary_by_authorization() {
    let app = app().await;
    let vary = |headers: &HeaderMap| {
        let lines: Vec<_> = headers.get_all("vary").iter().map(|line| text(line).to_owned()).collect();
        assert!(lines.len() <= 1, "{lines:?}");
        // Which pages may read it is asked in the tests of CORS.
        lines.concat().replace(", origin", "")
    };
    let private = "/graphql?query=%7Bnode(id:%220190a0b0-0000-7000-8000-000000000000%22)%7B...on%20FormVersion%7Bid%7D%7D%7D";
    let (status, headers, _) = send(&app, get_of(private)).await;
    assert_eq!((status, text(&headers["cache-control"])), (200, "max-age=300, private"));
    assert_eq!(vary(&headers), "accept, authorization");
    let again = with(get_of(private), "if-none-match", text(&headers["etag"]));
    let (status, known, _) = send(&app, again).await;
    assert_eq!((status, vary(&known).as_str()), (304, "accept, authorization"));
    for (path, code) in [
        ("/graphql?query=%7Bme%7Bid%7D%7D", 200),
        ("/graphql?query=%7Bnothing%7D", 200),
        ("/graphql?query=mutation%7B__typename%7D", 405),
        ("/graphql/nothing", 404),
    ] {
        let (status, headers, _) = send(&app, get_of(path)).await;
        assert_eq!((status, vary(&headers).as_str()), (code, "accept, authorization"), "{path}");
    }
    let bad = with(get_of(private), "authorization", "Bearer nonsense");
    let (status, headers, _) = send(&app, bad).await;
    assert_eq!((status, vary(&headers).as_str()), (401, "accept, authorization"));
    assert_eq!(vary(&send(&app, post_of(QUERY)).await.1), "accept, authorization");
    let long =
        json!({ "query": "{ users { nodes { id } } __schema { types { name description } } }" }).to_string();
    assert_eq!(vary(&send(&app, post_of(long)).await.1), "accept, authorization, accept-encoding");
    let public = send(&app, get_of(SCHEMA)).await.1;
    assert_eq!(
        (vary(&public).as_str(), text(&public["cache-control"])),
        ("accept, accept-encoding", "max-age=60, public")
    );
}

#[tokio::test]
async fn viewer_dependent_answers_are_private_or_uncached() {
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
    assert_eq!(rejection(&closed, signed_in(&closed, array(1))).await, (400, "BAD_USER_INPUT".into()));
    let app = app_with(|config| config.http.max_batch = 3).await;
    assert_eq!(rejection(&app, post_of(array(1))).await, (400, "BAD_USER_INPUT".into()));
    assert_eq!(rejection(&app, signed_in(&app, array(4))).await.0, 400);
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
        request.extensions_mut().insert(peer::Peer([127, 0, 0, 1].into()));
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
    assert_eq!(rejection(&app, signed_in(QUERY)).await.0, 429, "each request of an array counts");
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
    while app.admission.acquire(Owner::default()).is_ok() {
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
async fn a_timed_out_request_is_logged_with_its_kind() {
    let app = app_with(|config| config.http.request_timeout = Duration::from_millis(50)).await;
    let _only_connection = app.store.connection().get_sqlite_connection_pool().acquire().await.expect("free");
    let request = with(post_of(QUERY), "authorization", &bearer(&app));
    assert_eq!(rejection(&app, request).await, (504, "TIMEOUT".into()));
    let text = send(&app, get_of("/metrics")).await.2.as_str().expect("metrics are text").to_owned();
    let counted = |kind: &str| {
        let labels = format!(r#"graphql_operation_type="{kind}",outcome="timeout""#);
        text.lines().any(|line| line.contains(&labels))
    };
    assert!(counted("query") && !counted("unknown"), "{text}");
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
    let app = app_with(|config| config.http.max_body_memory.0 = admission::REQUEST_BYTES + 400).await;
    assert_eq!(send(&app, post_of(QUERY)).await.0, 200);
    let wide = json!({ "query": "{ __typename }", "variables": { "x": [1, 2, 3, 4, 5, 6] } }).to_string();
    assert_eq!(rejection(&app, post_of(wide.clone())).await, (503, "OVERLOADED".into()), "values count too");
    assert_eq!(rejection(&app, post_of(format!("{QUERY:401}"))).await.0, 503);
    assert_eq!(send(&app, post_of(QUERY)).await.0, 200, "what was taken is given back");
    let enough = app_with(|config| config.http.max_body_memory.0 = admission::REQUEST_BYTES + 4_000).await;
    assert_eq!(send(&enough, post_of(wide)).await.0, 200);
}

/// The schema as an answer: more than 64 KiB without any data.
fn schemas(count: usize) -> String {
    let fields: Vec<String> = (0..count).map(|n| format!("a{n}: _service {{ sdl }}")).collect();
    json!({ "query": format!("{{ {} }}", fields.join(" ")) }).to_string()
}

fn first_code(body: &Value) -> Option<&str> {
    body["errors"][0]["extensions"]["code"].as_str()
}

#[tokio::test]
async fn single_and_batched_answers_are_bounded() {
    let one = send(&app().await, post_of(schemas(1))).await.2.to_string().len();
    let app = app_with(|config| {
        config.graph.max_answer_bytes.0 = 2 * one + one / 2;
        config.http.max_batch = 10;
    })
    .await;
    assert_eq!(first_code(&send(&app, post_of(schemas(2))).await.2), None);
    let (status, _, body) = send(&app, post_of(schemas(3))).await;
    assert_eq!((status, first_code(&body), &body["data"]), (200, Some("COST_LIMIT"), &Value::Null), "{body}");
    let text = send(&app, get_of("/metrics")).await.2.as_str().expect("metrics are text").to_owned();
    assert!(text.contains(r#"graphql_documents_refused_total{limit="answer_bytes"} 1"#), "it is counted");
    let array = format!("[{0},{0},{0}]", schemas(1));
    let (_, _, body) = send(&app, with(post_of(array), "authorization", &bearer(&app))).await;
    let codes: Vec<_> = (0..3).map(|index| first_code(&body[index])).collect();
    assert_eq!(codes.iter().filter(|code| **code == Some("COST_LIMIT")).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| code.is_none()).count(), 2, "{codes:?}");
}

/// Leaves so many bytes of the memory of answers.
fn leave(app: &App, config: &Config, bytes: usize) -> memory::MemoryReservation {
    let mut held = app.admission.answer_memory(Owner::default());
    held.grow_owed(config.http.max_answer_memory.0 - bytes).expect("within twice");
    held
}

#[tokio::test]
async fn a_mutation_without_answer_memory_reports_success() {
    let (app, config) = (app_with(|config| config.http.max_batch = 3).await, Config::default());
    let code = |body: &Value| first_code(body).map(ToOwned::to_owned);
    let mutation = format!("mutation {{ a: __typename {} }}", "x: __typename ".repeat(3));
    let mutation = json!({ "query": mutation }).to_string();
    let almost_all = leave(&app, &config, 1);
    let (status, headers, body) = send(&app, post_of(QUERY)).await;
    assert_eq!((status, code(&body).as_deref()), (503, Some("OVERLOADED")));
    assert!(headers.contains_key("retry-after"));
    let (status, headers, body) = send(&app, post_of(mutation.clone())).await;
    assert_eq!((status, code(&body), headers.contains_key("retry-after")), (200, None, false), "{body}");
    let array = format!("[{QUERY},{mutation}]");
    let (status, _, body) = send(&app, with(post_of(array), "authorization", &bearer(&app))).await;
    assert_eq!((status, code(&body[1]), &body[1]["data"]["a"]), (200, None, &json!("Mutation")), "{body}");
    drop(almost_all);
    // Nothing runs where nothing at all can be told.
    let _all = leave(&app, &config, 0);
    assert_eq!(rejection(&app, post_of(mutation)).await, (503, "OVERLOADED".into()));
}

#[tokio::test]
async fn a_mutation_with_an_unholdable_answer_reports_success() {
    let (app, config) = (app().await, Config::default());
    let _twice = leave(&app, &config, 0);
    for replies in [graphql::Replies::One, graphql::Replies::ToRequests(2), graphql::Replies::ToSets(2)] {
        let reservation = app.admission.answer_memory(Owner::default());
        let long =
            axum::response::IntoResponse::into_response(vec![b' '; config.http.max_answer_memory.0 + 1]);
        let response = graphql::hold_owed(long, reservation, (replies, "mine"));
        assert!(response.extensions().get::<AnswerMemory>().is_some_and(AnswerMemory::is_owed));
        let status = response.status();
        let body = response.into_body().collect().await.expect("in memory").to_bytes();
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let one = if matches!(replies, graphql::Replies::One) { &body } else { &body[1] };
        assert_eq!((status, first_code(one)), (StatusCode::OK, Some("COST_LIMIT")));
        assert_eq!(one["data"], Value::Null);
        assert_eq!(
            one["variableIndex"].as_u64(),
            matches!(replies, graphql::Replies::ToSets(_)).then_some(1)
        );
        assert!(one["errors"][0]["message"].as_str().is_some_and(|text| text.ends_with("did is done.")));
    }
}

#[tokio::test]
async fn whether_the_process_is_alive_is_told_without_memory() {
    let (app, config) = (app().await, Config::default());
    let _more_than_all = (leave(&app, &config, 0), leave(&app, &config, 0));
    for path in ["/livez", "/readyz"] {
        let response = router(app.clone()).oneshot(get_of(path)).await.expect("infallible");
        assert_eq!(response.status(), 200, "{path}");
    }
    assert_eq!(rejection(&app, get_of("/.well-known/jwks.json")).await.0, 503);
}

#[tokio::test]
async fn an_answer_without_encoder_memory_is_sent_uncompressed() {
    let (app, config) = (app().await, Config::default());
    let ask = || with(get_of(SCHEMA), "accept-encoding", "br");
    let (_, plain, body) = send(&app, get_of(SCHEMA)).await;
    let compressed = router(app.clone()).oneshot(ask()).await.expect("infallible");
    assert_eq!(compressed.headers()["content-encoding"], "br");
    let tag = text(&compressed.headers()["etag"]).to_owned();
    drop(compressed);
    let _held = leave(&app, &config, body.to_string().len() + 1_000);
    let (status, headers, uncompressed) = send(&app, ask()).await;
    assert_eq!((status, uncompressed == body), (200, true));
    assert!(!headers.contains_key("content-encoding"));
    for name in ["etag", "vary", "cache-control", "content-type"] {
        assert_eq!(headers[name], plain[name], "{name}");
    }
    assert!(text(&headers["vary"]).contains("accept-encoding"));
    for known in [&tag, text(&plain["etag"])] {
        assert_eq!(send(&app, with(ask(), "if-none-match", known)).await.0, 304, "{known}");
    }
    let only_compressed = with(get_of(SCHEMA), "accept-encoding", "br, identity;q=0");
    assert_eq!(rejection(&app, only_compressed).await, (503, "OVERLOADED".into()));
}

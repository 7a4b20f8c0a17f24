//! The ways to ask: several sets of variables at once, and the method QUERY. Not here: what the sets share
//! (`tests/it/variable_sets.rs`).

use super::*;
use crate::config::setting::{DocumentMode, Secrets, Setting as _, Statuses};

const BY_ID: &str = "query A($id: ID!) { user(id: $id) { id } }";

fn bearer(app: &App) -> String {
    format!("Bearer {}", token(app, Role::Admin))
}

fn sets_of(query: &str, sets: &Value) -> String {
    json!({ "query": query, "variables": sets }).to_string()
}

/// One set of variables for each: an id that nobody has, or something else.
fn some(wrong: &[usize], count: usize) -> Value {
    let set = |index| {
        if wrong.contains(&index) { json!({}) } else { json!({ "id": UserId::new().to_string() }) }
    };
    (0..count).map(set).collect()
}

fn query_of(body: impl Into<Body>) -> HttpRequest<Body> {
    let method = Method::from_bytes(b"QUERY").expect("a method");
    let request = HttpRequest::builder().method(method).uri("/graphql");
    request.header("content-type", "application/json").body(body.into()).expect("a request")
}

fn signed_in(app: &App, request: HttpRequest<Body>) -> HttpRequest<Body> {
    with(request, "authorization", &bearer(app))
}

#[tokio::test]
async fn sets_of_variables_are_answered_by_an_array_in_their_order() {
    let app = app().await;
    let body = sets_of(BY_ID, &some(&[1], 3));
    for request in [post_of(body.clone()), query_of(body.clone())] {
        let (status, headers, body) = send(&app, signed_in(&app, request)).await;
        assert_eq!((status, text(&headers["content-type"])), (200, "application/json; charset=utf-8"));
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(body[0], json!({ "data": { "user": null }, "variableIndex": 0 }), "{body}");
        assert_eq!(body[1]["errors"][0]["extensions"]["code"], "BAD_USER_INPUT");
        assert_eq!((&body[1]["variableIndex"], body[1].get("data")), (&json!(1), None));
        assert_eq!((&body[2]["variableIndex"], body.as_array().map(Vec::len)), (&json!(2), Some(3)));
    }
    let accepting = with(post_of(body), "accept", "application/graphql-response+json");
    let (status, headers, body) = send(&app, signed_in(&app, accepting)).await;
    assert_eq!((status, body.as_array().map(Vec::len)), (200, Some(3)));
    assert_eq!(headers["content-type"], "application/graphql-response+json; charset=utf-8");
}

#[tokio::test]
async fn sets_of_variables_are_answered_by_lines_to_those_who_take_them() {
    let app = app().await;
    let body = sets_of(BY_ID, &some(&[0], 3));
    for accept in ["application/jsonl", "application/jsonl, text/event-stream, application/json"] {
        for request in [post_of(body.clone()), query_of(body.clone())] {
            let request = with(signed_in(&app, request), "accept", accept);
            let (status, headers, lines) = send(&app, request).await;
            assert_eq!((status, text(&headers["content-type"])), (200, "application/jsonl; charset=utf-8"));
            let lines = lines.as_str().expect("lines are no JSON value").to_owned();
            let lines: Vec<Value> =
                lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
            let indexes: Vec<_> = lines.iter().map(|line| line["variableIndex"].as_u64()).collect();
            assert_eq!(indexes, [Some(0), Some(1), Some(2)]);
            assert_eq!((lines[0].get("data"), &lines[1]["data"]["user"]), (None, &Value::Null));
        }
    }
    // What is wrong with all of it is one line without an index.
    let wrong =
        with(signed_in(&app, post_of(sets_of("{ nothing }", &json!([{}])))), "accept", "application/jsonl");
    let (status, _, body) = send(&app, wrong).await;
    assert_eq!(
        (status, &body["errors"][0]["extensions"]["code"]),
        (200, &json!("GRAPHQL_VALIDATION_FAILED"))
    );
    assert_eq!(body.get("variableIndex"), None);
    // A request with one set of variables does not come in lines.
    let one = with(signed_in(&app, post_of(super::QUERY)), "accept", "application/jsonl");
    assert_eq!(rejection(&app, one).await, (406, "BAD_USER_INPUT".into()));
    let one = with(signed_in(&app, post_of(super::QUERY)), "accept", "application/jsonl, application/json");
    assert_eq!(send(&app, one).await.1["content-type"], "application/json; charset=utf-8");
}

#[tokio::test]
async fn sets_of_variables_have_bounds() {
    let app = app_with(|config| {
        config.http.max_variable_sets = 3;
        config.http.max_batch = 3;
        config.http.rate_per_second = Some(1);
        config.http.rate_burst = 8;
    })
    .await;
    let one = bearer(&app);
    let ask = |body: String| with(post_of(body), "authorization", &one);
    let of = |count| sets_of(BY_ID, &some(&[], count));
    let by_get = "/graphql?query=%7B__typename%7D&variables=%5B%7B%7D%5D";
    for (request, why) in [
        (post_of(of(1)), "from signed-in callers"),
        (with(get_of(by_get), "authorization", &one), "by POST, QUERY and WebSocket"),
        (ask(of(4)), "more sets than this caller may send"),
        (ask(of(0)), "is empty"),
        (ask(format!("[{},{}]", of(2), of(1))), "not taken in an array of requests"),
        (
            ask(json!({ "query": BY_ID, "variables": [{}, null] }).to_string()),
            "variables (object, or a list of objects)",
        ),
    ] {
        let (status, _, body) = send(&app, request).await;
        let error = &body["errors"][0];
        assert_eq!((status, &error["extensions"]["code"]), (400, &json!("BAD_USER_INPUT")), "{why}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains(why)), "{why}: {body}");
    }
    for _ in 0..3 {
        assert_eq!(send(&app, ask(of(3))).await.0, 200);
    }
    assert_eq!(rejection(&app, ask(of(3))).await, (429, "RATE_LIMITED".into()), "each set counts");
}

#[tokio::test]
async fn a_gateway_may_send_as_many_sets_as_requests() {
    let app = app_with(|config| {
        config.gateway.secrets = Secrets::parse("of-the-gateway-and-of-nobody-else").expect("valid");
        config.gateway.max_batch = 4;
    })
    .await;
    let ask = |count| {
        let request = post_of(sets_of(BY_ID, &some(&[], count)));
        with(request, "router-authorization", "of-the-gateway-and-of-nobody-else")
    };
    assert_eq!(send(&app, ask(4)).await.2.as_array().map(Vec::len), Some(4));
    assert_eq!(rejection(&app, ask(5)).await, (400, "BAD_USER_INPUT".into()));
}

#[tokio::test]
async fn what_is_not_answered_in_time_is_told_set_by_set() {
    let app = app_with(|config| config.http.request_timeout = Duration::from_millis(50)).await;
    let _only_connection = app.store.connection().get_sqlite_connection_pool().acquire().await.expect("free");
    let body = sets_of(BY_ID, &some(&[], 2));
    let (status, _, told) = send(&app, signed_in(&app, post_of(body.clone()))).await;
    assert_eq!((status, told.as_array().map(Vec::len)), (200, Some(2)), "{told}");
    assert_eq!(told[1]["errors"][0]["extensions"]["code"], "TIMEOUT");
    assert_eq!(told[1]["variableIndex"], 1);
    let lines = with(signed_in(&app, post_of(body)), "accept", "application/jsonl");
    let lines = send(&app, lines).await.2;
    assert_eq!(lines.as_str().map(|lines| lines.matches("TIMEOUT").count()), Some(2), "{lines}");
    let metrics = send(&app, get_of("/metrics")).await.2;
    let line = r#"graphql_server_operation_duration_seconds_count{graphql_operation_type="query",outcome="timeout"} 2"#;
    assert!(metrics.as_str().is_some_and(|text| text.contains(line)), "each request is one operation");
}

#[tokio::test]
async fn sets_of_variables_come_by_hash_and_by_id() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("a.graphql"), BY_ID).expect("written");
    let path = folder.path().to_owned();
    let app = app_with(|config| {
        config.documents.mode = DocumentMode::parse("apq").expect("a mode");
        config.documents.path = Some(path);
    })
    .await;
    app.documents.reload(&app.graph).await;
    let sets = some(&[], 2);
    let hash = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, BY_ID.as_bytes()));
    let persisted = json!({ "persistedQuery": { "version": 1, "sha256Hash": hash } });
    let requests = [
        json!({ "query": BY_ID, "extensions": persisted, "variables": sets }),
        json!({ "extensions": persisted, "variables": sets }),
        json!({ "documentId": "a", "variables": sets }),
    ];
    for request in requests {
        let (_, _, body) = send(&app, signed_in(&app, post_of(request.to_string()))).await;
        assert_eq!(body.as_array().map(Vec::len), Some(2), "{body}");
    }
    for accept in ["application/json", "application/jsonl"] {
        for mut request in [
            post_of(json!({ "variables": sets }).to_string()),
            query_of(json!({ "variables": sets }).to_string()),
        ] {
            *request.uri_mut() = "/graphql/a".parse().expect("a path");
            let (status, _, body) = send(&app, with(signed_in(&app, request), "accept", accept)).await;
            assert_eq!((status, body.to_string().matches("variableIndex").count()), (200, 2), "{body}");
        }
    }
}

#[tokio::test]
async fn mutations_come_in_sets_but_those_that_sign_in_do_not() {
    let app = app().await;
    let query = "mutation($input: SignInInput!) { signIn(input: $input) { accessToken } }";
    let set = json!({ "input": { "email": "a@example.com", "password": "p" } });
    let (_, _, body) = send(&app, signed_in(&app, post_of(sets_of(query, &json!([set, set]))))).await;
    for answer in [&body[0], &body[1]] {
        assert_eq!(answer["errors"][0]["extensions"]["code"], "BAD_USER_INPUT", "{body}");
    }
    let (_, _, body) =
        send(&app, signed_in(&app, post_of(sets_of("mutation { __typename }", &json!([{}, {}]))))).await;
    assert_eq!(body[1], json!({ "data": { "__typename": "Mutation" }, "variableIndex": 1 }));
}

#[tokio::test]
async fn query_asks_like_post_and_is_kept_like_get() {
    let app = app().await;
    let schema = json!({ "query": "{ __schema { queryType { name } } }" }).to_string();
    let (_, by_get, _) = send(&app, get_of("/graphql?query=%7B__schema%7BqueryType%7Bname%7D%7D%7D")).await;
    // No header that a foreign page could not send: its browser asks first whether it may send this method.
    let (status, headers, body) = send(&app, query_of(schema.clone())).await;
    assert_eq!((status, &body["data"]["__schema"]["queryType"]["name"]), (200, &json!("Query")));
    for name in ["cache-control", "etag", "vary"] {
        assert_eq!(headers[name], by_get[name], "{name}");
    }
    let known = with(query_of(schema.clone()), "if-none-match", text(&headers["etag"]));
    assert_eq!(send(&app, known).await.0, 304);
    let compressed = with(
        query_of(json!({ "query": "{ __schema { types { name description } } }" }).to_string()),
        "accept-encoding",
        "br",
    );
    assert_eq!(send(&app, compressed).await.1["content-encoding"], "br");
    let metrics = send(&app, get_of("/metrics")).await.2;
    let counted = r#"http_request_method="QUERY",http_route="/graphql",http_response_status_code="200""#;
    assert!(metrics.as_str().is_some_and(|text| text.contains(counted)), "{metrics}");
}

#[tokio::test]
async fn query_writes_nothing_and_says_what_it_takes() {
    let app = app().await;
    let mutation = || query_of(r#"{"query": "mutation { __typename }"}"#);
    let (status, headers, _) = send(&app, mutation()).await;
    assert_eq!(
        (status, &headers["allow"], &headers["accept-query"]),
        (405, &HeaderValue::from_static("POST"), &HeaderValue::from_static("application/json"))
    );
    assert_eq!(rejection(&app, mutation()).await, (405, "BAD_USER_INPUT".into()));
    let in_sets = signed_in(&app, query_of(sets_of("mutation { __typename }", &json!([{}]))));
    assert_eq!(rejection(&app, in_sets).await, (405, "BAD_USER_INPUT".into()));
    let (status, headers, _) = send(&app, with(mutation(), "content-type", "text/plain")).await;
    assert_eq!((status, text(&headers["accept-query"])), (415, "application/json"));
    let mut untyped = mutation();
    untyped.headers_mut().remove("content-type");
    assert_eq!(rejection(&app, untyped).await.0, 415, "RFC 10008: a body needs its type");
    assert_eq!(rejection(&app, query_of("{")).await, (400, "BAD_USER_INPUT".into()));
    for path in ["/graphql", "/graphql/a"] {
        let options = HttpRequest::options(path).body(Body::empty()).expect("a request");
        let (status, headers, _) = send(&app, options).await;
        assert_eq!((status, text(&headers["accept-query"])), (204, "application/json"), "{path}");
        assert_eq!(text(&headers["allow"]), "GET, HEAD, OPTIONS, POST, QUERY");
        let delete = HttpRequest::delete(path).body(Body::empty()).expect("a request");
        let (status, headers, _) = send(&app, delete).await;
        assert_eq!((status, text(&headers["accept-query"])), (405, "application/json"), "{path}");
    }
    let page = HttpRequest::options("/graphql").header("origin", "http://localhost:3000");
    let page = page.header("access-control-request-method", "QUERY").body(Body::empty()).expect("a request");
    let (status, headers, _) = send(&app, page).await;
    let methods = text(&headers["access-control-allow-methods"]).to_owned();
    assert_eq!(
        (status, methods.contains("QUERY"), text(&headers["accept-query"])),
        (204, true, "application/json")
    );
}

#[tokio::test]
async fn a_subscription_by_query_comes_as_events() {
    let app = app().await;
    let body = json!({ "query": "subscription { locationUpdated { latitude } }" }).to_string();
    let request = with(signed_in(&app, query_of(body)), "accept", "text/event-stream");
    let response = router(app.clone()).oneshot(request).await.expect("never fails");
    assert_eq!(
        (response.status(), text(&response.headers()["content-type"])),
        (StatusCode::OK, "text/event-stream")
    );
}

#[tokio::test]
async fn a_request_says_what_a_failed_field_does() {
    let app = app().await;
    let query = "{ users(first: 1000) { totalCount } __typename }";
    let ask = |on_error: Value| {
        signed_in(&app, post_of(json!({ "query": query, "onError": on_error }).to_string()))
    };
    for (on_error, data) in [
        (Value::Null, Value::Null),
        (json!("PROPAGATE"), Value::Null),
        (json!("NULL"), json!({ "users": null, "__typename": "Query" })),
        (json!("HALT"), Value::Null),
    ] {
        let (status, _, body) = send(&app, ask(on_error.clone())).await;
        assert_eq!((status, &body["data"]), (200, &data), "{on_error}");
        assert_eq!(body["errors"].as_array().map(Vec::len), Some(1), "{on_error}");
    }
    for on_error in [json!("ABORT"), json!("null"), json!(1)] {
        assert_eq!(rejection(&app, ask(on_error)).await, (400, "BAD_USER_INPUT".into()));
    }
    let by_get = |on_error| {
        signed_in(
            &app,
            get_of(&format!(
                "/graphql?query=%7Busers(first:1000)%7BtotalCount%7Da:__typename%7D&onError={on_error}"
            )),
        )
    };
    assert_eq!(send(&app, by_get("NULL")).await.2["data"]["a"], "Query");
    assert_eq!(send(&app, by_get("")).await.2["data"], Value::Null);
    let sets = json!({ "query": query, "onError": "NULL", "variables": [{}, {}] }).to_string();
    assert_eq!(send(&app, signed_in(&app, post_of(sets))).await.2[1]["data"]["__typename"], "Query");
}

#[tokio::test]
async fn a_manifest_says_what_a_failed_field_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "{ users(first: 1000) { totalCount } __typename }";
    let operation = |id: &str, on_error: &str| json!({ "id": id, "body": format!("query {id} {text}"), "onError": on_error });
    let write = |operations: Value| {
        let manifest =
            json!({ "format": "apollo-persisted-query-manifest", "version": 1, "operations": operations });
        std::fs::write(folder.path().join("a.json"), manifest.to_string()).expect("written");
    };
    write(
        json!([operation("A", "NULL"), operation("B", "WRONG"), { "id": "C", "body": format!("query A {text}") }]),
    );
    let path = folder.path().to_owned();
    let app = app_with(|config| config.documents.path = Some(path)).await;
    app.documents.reload(&app.graph).await;
    let ask = async |id: &str, more: Value| {
        let mut body = json!({ "documentId": id });
        body.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        send(&app, signed_in(&app, post_of(body.to_string()))).await.2
    };
    assert_eq!(ask("A", json!({})).await["data"]["__typename"], "Query");
    assert_eq!(ask("A", json!({ "onError": "PROPAGATE" })).await["data"], Value::Null, "the request wins");
    let told = ask("B", json!({})).await;
    assert_eq!(told["errors"][0]["extensions"]["code"], "PERSISTED_QUERY_NOT_IN_LIST", "not usable");
}

#[tokio::test]
async fn statuses_are_those_of_2026_where_that_is_configured() {
    let draft = app().await;
    let newer = app_with(|config| config.http.statuses = Statuses::parse("2026").expect("known")).await;
    let partial = json!({ "query": "{ users(first: 1000) { totalCount } }" }).to_string();
    let no_variable = json!({ "query": BY_ID, "variables": {} }).to_string();
    for (body, old, new) in [
        (r#"{"query": "{ __typename }"}"#.to_owned(), 200, 200),
        (partial, 200, 294),
        (r#"{"query": "{ me { id } user(id: \"none\") { id } }"}"#.to_owned(), 200, 294),
        ("{".to_owned(), 400, 400),
        (r#"{"query": "{"}"#.to_owned(), 400, 400),
        (r#"{"query": "{ nothing }"}"#.to_owned(), 400, 422),
        (r#"{"query": "query A { __typename } query B { __typename }"}"#.to_owned(), 400, 422),
        (no_variable, 400, 422),
        (r#"{"query": "{ __typename }", "variables": [7]}"#.to_owned(), 400, 422),
        (r#"{"query": 1}"#.to_owned(), 400, 422),
    ] {
        let ask = |app: &App| {
            with(signed_in(app, post_of(body.clone())), "accept", "application/graphql-response+json")
        };
        assert_eq!(send(&draft, ask(&draft)).await.0, old, "{body}");
        let (status, headers, _) = send(&newer, ask(&newer)).await;
        assert_eq!(
            (status, text(&headers["content-type"])),
            (new, "application/graphql-response+json; charset=utf-8"),
            "{body}"
        );
        // `application/json` may come from anybody, so its status says little.
        let as_json = |app: &App| signed_in(app, post_of(body.clone()));
        assert_eq!(send(&newer, as_json(&newer)).await.0, send(&draft, as_json(&draft)).await.0, "{body}");
    }
    let mutation = with(
        get_of("/graphql?query=mutation%7B__typename%7D"),
        "accept",
        "application/graphql-response+json",
    );
    assert_eq!(send(&newer, mutation).await.0, 405);
}

#[tokio::test]
async fn the_cost_of_an_operation_is_told_to_whom_asks_for_it() {
    let app = app().await;
    let cost = async |body: String| {
        let request = with(signed_in(&app, post_of(body)), "graphql-cost", "report");
        let (_, headers, _) = send(&app, request).await;
        headers.get("graphql-cost").map(|told| text(told).to_owned())
    };
    let one = |query: &str| json!({ "query": query }).to_string();
    let page = "{ users(first: 7) { nodes { id sessions(first: 2) { nodes { id } } } } }";
    assert_eq!(
        cost(one(page)).await.as_deref(),
        Some("29; limit=10000"),
        "a page of 7 people, each with a page of 2 sessions"
    );
    assert_eq!(cost(sets_of(BY_ID, &some(&[1], 3))).await.as_deref(), Some("2; limit=10000"), "of what ran");
    assert_eq!(cost(one("{ nothing }")).await, None, "it is not known");
    assert_eq!(cost("nonsense".to_owned()).await, None);
    let (_, headers, _) = send(&app, signed_in(&app, post_of(one(page)))).await;
    assert_eq!(headers.get("graphql-cost"), None, "it was not asked for");
}

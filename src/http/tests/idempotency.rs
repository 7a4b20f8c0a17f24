//! The header `Idempotency-Key`: which requests may have it, and the statuses. Not here: that each runs once
//! (`tests/it/idempotency.rs`).

use sea_orm::ConnectionTrait as _;

use super::*;
use crate::config::setting::Setting as _;

const RENAME: &str =
    "mutation($name: String) { updateProfile(input: { displayName: $name }) { user { displayName } } }";

/// The token of an account that is there.
async fn sign_up(app: &App) -> String {
    let sign_up =
        "mutation { signUp(input: { email: \"ann@example.com\", password: \"correct horse battery\",
        displayName: \"Ann\" }) { accessToken } }";
    let (_, _, body) = send(app, post_of(json!({ "query": sign_up }).to_string())).await;
    body["data"]["signUp"]["accessToken"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
}

fn body_of(name: &str) -> Value {
    json!({ "query": RENAME, "variables": { "name": name } })
}

fn keyed(token: &str, key: &str, body: &Value) -> HttpRequest<Body> {
    let request = with(post_of(body.to_string()), "authorization", &format!("Bearer {token}"));
    with(request, "idempotency-key", key)
}

#[tokio::test]
async fn a_key_has_the_statuses_of_its_draft() {
    let app = app().await;
    let token = sign_up(&app).await;
    let (status, _, first) = send(&app, keyed(&token, "\"one\"", &body_of("Ann B."))).await;
    let renamed = json!({ "user": { "displayName": "Ann B." } });
    assert_eq!((status, &first["data"]["updateProfile"]), (200, &renamed), "{first}");
    // With quotes or without, it is the same key.
    assert_eq!(send(&app, keyed(&token, "one", &body_of("Ann B."))).await.2, first);
    for accept in ["application/json", "application/graphql-response+json"] {
        let other = with(keyed(&token, "one", &body_of("Bob")), "accept", accept);
        assert_eq!(rejection(&app, other).await, (422, "IDEMPOTENCY_MISMATCH".into()));
    }
    let sql = "update idempotency_keys set answer = null, claimed_until = '2099-01-01 00:00:00+00:00'";
    app.store.connection().execute_unprepared(sql).await.expect("it runs");
    let (status, headers, body) = send(&app, keyed(&token, "one", &body_of("Ann B."))).await;
    assert_eq!((status, text(&headers["retry-after"])), (409, "1"), "{body}");
    let told = &body["errors"][0]["extensions"];
    assert_eq!((&told["code"], &told["retryable"]), (&json!("CONFLICT"), &json!(true)), "{body}");
}

#[tokio::test]
async fn a_key_is_for_one_operation_of_somebody_who_is_signed_in() {
    let app = app_with(|config| config.http.max_batch = 3).await;
    let token = sign_up(&app).await;
    let sets = json!({ "query": RENAME, "variables": [{ "name": "A" }, { "name": "B" }] });
    let array = json!([body_of("A"), body_of("B")]);
    for (key, body) in [("k", &sets), ("k", &array), ("", &body_of("A")), ("a, b", &body_of("A"))] {
        assert_eq!(rejection(&app, keyed(&token, key, body)).await, (400, "BAD_USER_INPUT".into()), "{body}");
    }
    let mut twice = keyed(&token, "a", &body_of("A"));
    twice.headers_mut().append("idempotency-key", HeaderValue::from_static("b"));
    assert_eq!(rejection(&app, twice).await, (400, "BAD_USER_INPUT".into()));
    let anonymous = with(post_of(body_of("A").to_string()), "idempotency-key", "k");
    let anonymous = with(anonymous, "accept", "application/graphql-response+json");
    assert_eq!(rejection(&app, anonymous).await, (400, "BAD_USER_INPUT".into()));
    // What only asks needs none, whatever it sends.
    let query = json!({ "query": "{ me { displayName } }" });
    for _ in 0..2 {
        let (_, _, body) = send(&app, keyed(&token, "k", &query)).await;
        assert_eq!(body["data"]["me"]["displayName"], "Ann", "nothing of all that was done: {body}");
    }
    let get = with(get_of("/graphql?query=%7B__typename%7D"), "idempotency-key", "a, b");
    assert_eq!(send(&app, get).await.0, 200);
}

#[tokio::test]
async fn a_document_by_its_id_may_have_a_key() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("rename.graphql"), RENAME).expect("written");
    let path = folder.path().to_owned();
    let app = app_with(|config| {
        config.documents.mode = crate::config::setting::DocumentMode::parse("apq").expect("a mode");
        config.documents.path = Some(path);
    })
    .await;
    app.documents.reload(&app.graph).await;
    let token = sign_up(&app).await;
    let by_id = |name: &str| {
        let mut request = keyed(&token, "k", &json!({ "variables": { "name": name } }));
        *request.uri_mut() = "/graphql/rename".parse().expect("a path");
        request
    };
    let (status, _, first) = send(&app, by_id("Ann B.")).await;
    assert_eq!(
        (status, &first["data"]["updateProfile"]["user"]["displayName"]),
        (200, &json!("Ann B.")),
        "{first}"
    );
    assert_eq!(send(&app, by_id("Ann B.")).await.2, first);
    assert_eq!(rejection(&app, by_id("Bob")).await, (422, "IDEMPOTENCY_MISMATCH".into()));
    // The document's text is the same request.
    assert_eq!(send(&app, keyed(&token, "k", &body_of("Ann B."))).await.2, first);
}

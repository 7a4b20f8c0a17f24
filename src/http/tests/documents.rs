//! Persisted documents over HTTP: each code with its status and text, each place of an id, each mode.

use aws_lc_rs::digest::{SHA256, digest};
use tempfile::TempDir;

use super::*;
use crate::config::setting::{DocumentMode, Setting as _, Switch};

const TEXT: &str = "query A { users(first: 1) { nodes { id } } }";
const OTHER: &str = "query B { __typename }";

fn hash(text: &str) -> String {
    hex::encode(digest(&SHA256, text.as_bytes()))
}

fn apq(text: Option<&str>, hash: &str) -> HttpRequest<Body> {
    let mut body = json!({ "extensions": { "persistedQuery": { "version": 1, "sha256Hash": hash } } });
    if let Some(text) = text {
        body["query"] = json!(text);
    }
    post_of(body.to_string())
}

/// An app with these files as its trusted documents, in a folder that is removed at the end.
async fn trusting(mode: DocumentMode, files: &[(&str, String)]) -> (App, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    let path = folder.path().to_owned();
    let app = app_with(|config| {
        config.documents.mode = mode;
        config.documents.path = Some(path);
    })
    .await;
    app.documents.reload(&app.graph).await;
    (app, folder)
}

/// The status, the first error's code and text (or `ok`), and `Cache-Control`.
async fn outcome(app: &App, request: HttpRequest<Body>) -> (u16, String, String) {
    let (status, headers, body) = send(app, request).await;
    let control = headers["cache-control"].to_str().expect("text").to_owned();
    if body.get("data").is_some() {
        return (status, "ok".into(), control);
    }
    let error = &body["errors"][0];
    let part = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (status, format!("{}: {}", part(&error["extensions"]["code"]), part(&error["message"])), control)
}

async fn prepared(app: &App) -> String {
    let Value::String(text) = send(app, get_of("/metrics")).await.2 else { panic!("metrics are text") };
    let line = text.lines().find(|line| line.starts_with("graphql_documents_prepared_total "));
    line.expect("counted").to_owned()
}

#[tokio::test]
async fn a_trusted_answer_stays_not_modified_until_a_write() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_owned();
    std::fs::write(path.join(format!("{}.graphql", hash(TEXT))), TEXT).expect("written");
    let caching = |store: Store, registry: &mut Registry| {
        store.with_cache(&entities::CacheOptions::default(), None, registry)
    };
    let app = app_over(|config| config.documents.path = Some(path), caching).await;
    app.documents.reload(&app.graph).await;
    let token = format!("Bearer {}", token(&app, Role::Admin));
    let asked = || {
        let request = get_of(&format!("/graphql?documentId=sha256:{}", hash(TEXT)));
        with(request, "authorization", &token)
    };
    let (status, headers, body) = send(&app, asked()).await;
    assert_eq!((status, &body["data"]["users"]["nodes"]), (200, &json!([])));
    let tag = headers["etag"].to_str().expect("text").to_owned();
    // Behind the cache's back: whoever executes it sees the row.
    let id = entities::id::new();
    let sql = format!(
        "insert into users (id, email, display_name, search_name, role, is_active, created_at, updated_at) values \
         (x'{}', 'a@example.com', 'A', 'a', 'ADMIN', true, '2026-01-01T00:00:00+00:00', '2026-01-01T00:00:00+00:00')",
        id.simple()
    );
    sea_orm::ConnectionTrait::execute_unprepared(app.store.connection(), &sql).await.expect("inserted");
    let (status, _, body) = send(&app, with(asked(), "if-none-match", &tag)).await;
    assert_eq!((status, body), (304, json!("")), "decided without executing");
    assert_eq!(send(&app, asked()).await.2["data"]["users"]["nodes"], json!([]));
    app.store.cache().invalidate_by_tag(&[entities::Tag::Type("User")]).await;
    let (status, headers, body) = send(&app, with(asked(), "if-none-match", &tag)).await;
    assert_eq!((status, body["data"]["users"]["nodes"][0]["id"].as_str()), (200, Some(&*id.to_string())));
    assert_ne!(headers["etag"], *tag);
}

const REVALIDATE: &str = "private, no-cache, must-revalidate";

#[tokio::test]
async fn a_client_registers_a_document_and_then_asks_by_its_hash() {
    let app = app().await;
    let id = hash(TEXT);
    let missing =
        (200, "PERSISTED_QUERY_NOT_FOUND: PersistedQueryNotFound".to_owned(), REVALIDATE.to_owned());
    assert_eq!(outcome(&app, apq(None, &id)).await, missing);
    let wrong = "PERSISTED_QUERY_HASH_MISMATCH: provided sha does not match query";
    assert_eq!(outcome(&app, apq(Some(OTHER), &id)).await, (400, wrong.into(), "no-store".into()));
    assert_eq!(outcome(&app, apq(None, &id)).await, missing, "a wrong text is not kept");
    assert_eq!(outcome(&app, apq(Some(TEXT), &id)).await.1, "ok");
    let before = prepared(&app).await;
    for _ in 0..5 {
        assert_eq!(outcome(&app, apq(None, &id.to_uppercase())).await.1, "ok");
    }
    let extensions =
        format!("%7B%22persistedQuery%22%3A%7B%22version%22%3A1%2C%22sha256Hash%22%3A%22{id}%22%7D%7D");
    assert_eq!(outcome(&app, get_of(&format!("/graphql?extensions={extensions}"))).await.1, "ok");
    assert_eq!(prepared(&app).await, before, "by its id a document is neither parsed nor validated");

    let invalid = "{ nothing }";
    let (status, _, body) = send(&app, apq(Some(invalid), &hash(invalid))).await;
    assert_eq!(
        (status, &body["errors"][0]["extensions"]["code"]),
        (200, &json!("GRAPHQL_VALIDATION_FAILED"))
    );
    assert_eq!(outcome(&app, apq(None, &hash(invalid))).await, missing, "what is not valid is not kept");

    let mutation = "mutation { __typename }";
    assert_eq!(outcome(&app, apq(Some(mutation), &hash(mutation))).await.1, "ok");
    let by_get = get_of(&format!("/graphql?documentId={}", hash(mutation)));
    assert_eq!(outcome(&app, by_get).await.0, 405);
}

#[tokio::test]
async fn a_long_document_runs_and_is_not_kept() {
    let app = app_with(|config| config.documents.apq_max_bytes.0 = TEXT.len() - 1).await;
    assert_eq!(outcome(&app, apq(Some(TEXT), &hash(TEXT))).await.1, "ok");
    assert_eq!(
        outcome(&app, apq(None, &hash(TEXT))).await.1,
        "PERSISTED_QUERY_NOT_FOUND: PersistedQueryNotFound"
    );
    assert_eq!(outcome(&app, apq(Some(OTHER), &hash(OTHER))).await.1, "ok");
    assert_eq!(outcome(&app, apq(None, &hash(OTHER))).await.1, "ok");
}

/// As many bytes as somebody likes to pad a document with are neither kept nor counted.
#[tokio::test]
async fn documents_over_budget_run_without_being_stored() {
    // A quarter of a day's may come at once; one network has an eighth of it: four kilobytes.
    let app = app_with(|config| config.documents.apq_daily_bytes.0 = 128 << 10).await;
    let missing = "PERSISTED_QUERY_NOT_FOUND: PersistedQueryNotFound";
    let from = |network: u8, text: Option<&str>, hash: &str| {
        let mut request = apq(text, hash);
        request.extensions_mut().insert(peer::Peer([10, 0, network, 1].into()));
        request
    };
    let padded =
        |name: &str, padding: &str| format!("query {name} {{ __typename {} }}", padding.repeat(20_000));
    for (name, padding) in [("a", " "), ("b", ","), ("c", "\t\n"), ("d", "#x\n")] {
        let text = padded(name, padding);
        assert_eq!(outcome(&app, from(1, Some(&text), &hash(&text))).await.1, "ok", "{name}");
        assert_eq!(outcome(&app, from(1, None, &hash(&text))).await.1, "ok", "{name}: it was kept");
    }
    let long = |index: usize| format!("query A{index}{} {{ __typename }}", "x".repeat(250));
    let (mut kept, mut not_kept) = (0, 0);
    for index in 0..20 {
        let text = long(index);
        assert_eq!(outcome(&app, from(1, Some(&text), &hash(&text))).await.1, "ok", "each runs");
        match outcome(&app, from(1, None, &hash(&text))).await.1.as_str() {
            "ok" => kept += 1,
            said if said == missing => not_kept += 1,
            said => panic!("{said}"),
        }
    }
    assert!(kept >= 3 && not_kept >= 5, "{kept} were kept, {not_kept} were not");
    let (status, said, _) = outcome(&app, from(1, Some(&long(0)), &hash(&long(0)))).await;
    assert_eq!((status, said.as_str()), (200, "ok"), "what is known costs nothing");
    let text = long(99);
    assert_eq!(outcome(&app, from(2, Some(&text), &hash(&text))).await.1, "ok");
    assert_eq!(outcome(&app, from(2, None, &hash(&text))).await.1, "ok", "another network has its own share");
    let Value::String(metrics) = send(&app, get_of("/metrics")).await.2 else { panic!("metrics are text") };
    assert!(metrics.contains(r#"persisted_documents_total{outcome="apq_over_budget"}"#), "{metrics}");
}

#[tokio::test]
async fn a_document_that_nobody_asks_for_is_soon_forgotten() {
    let app = app_with(|config| config.documents.apq_first_ttl = Duration::from_millis(300)).await;
    for text in [TEXT, OTHER] {
        assert_eq!(outcome(&app, apq(Some(text), &hash(text))).await.1, "ok");
    }
    assert_eq!(outcome(&app, apq(None, &hash(TEXT))).await.1, "ok");
    sleep(Duration::from_millis(600)).await;
    assert_eq!(outcome(&app, apq(None, &hash(TEXT))).await.1, "ok", "it was asked for");
    let said = outcome(&app, apq(None, &hash(OTHER))).await.1;
    assert_eq!(said, "PERSISTED_QUERY_NOT_FOUND: PersistedQueryNotFound");
}

#[tokio::test]
async fn an_id_is_found_in_every_place() {
    let relay = json!({ "0123456789abcdef0123456789abcdef": OTHER, "custom:one": TEXT }).to_string();
    let files = [(&*format!("{}.graphql", hash(TEXT)), TEXT.to_owned()), ("relay.json", relay)];
    let (app, _folder) = trusting(DocumentMode::Apq, &files).await;
    assert_eq!(app.documents.trusted().broken.len(), 1, "the md5 of a text is checked");
    let id = hash(TEXT);
    for path in [
        format!("/graphql/{id}"),
        format!("/graphql/sha256:{id}"),
        format!("/graphql?documentId={id}"),
        format!("/graphql?documentId=sha256%3A{}", id.to_uppercase()),
        "/graphql/custom:one?operationName=A".into(),
    ] {
        assert_eq!(outcome(&app, get_of(&path)).await.1, "ok", "{path}");
    }
    let posted = |path: &str, body: Value| {
        let request = HttpRequest::post(path).header("content-type", "application/json");
        request.body(Body::from(body.to_string())).expect("a request")
    };
    assert_eq!(outcome(&app, posted(&format!("/graphql/{id}"), json!({}))).await.1, "ok");
    assert_eq!(outcome(&app, posted("/graphql", json!({ "documentId": id }))).await.1, "ok");
    for place in ["id", "doc_id"] {
        assert_eq!(
            outcome(&app, posted("/graphql", json!({ place: id }))).await.0,
            400,
            "only where switched on"
        );
        let app = app_with(|config| config.documents.more_id_fields = Switch::On).await;
        let (status, text, _) = outcome(&app, posted("/graphql", json!({ place: id }))).await;
        assert!(status == 404 && text.starts_with("PERSISTED_QUERY_NOT_IN_LIST"), "{text}");
    }
    for wrong in
        ["/graphql/a%20b".into(), format!("/graphql/{}", "x".repeat(257)), "/graphql/sha256:12".into()]
    {
        let (status, text, _) = outcome(&app, get_of(&wrong)).await;
        assert!(status == 400 && text.starts_with("BAD_USER_INPUT"), "{wrong}: {text}");
    }
    let version = json!({ "extensions": { "persistedQuery": { "version": 2, "sha256Hash": id } } });
    assert_eq!(
        outcome(&app, posted("/graphql", version)).await.1,
        "BAD_USER_INPUT: Unsupported persisted query version"
    );
}

#[tokio::test]
async fn a_mode_says_what_a_client_may_send() {
    let spelt_otherwise = "# the same\nquery A{users(first:1){nodes{id}}}";
    let files = [(&*format!("{}.graphql", hash(TEXT)), TEXT.to_owned())];
    let text = |text: &str| post_of(json!({ "query": text }).to_string());
    let (known, unknown) = (hash(TEXT), hash(OTHER));
    let (ok, not_supported) = ("ok", "PERSISTED_QUERY_NOT_SUPPORTED: PersistedQueryNotSupported");
    let not_found = "PERSISTED_QUERY_NOT_FOUND: PersistedQueryNotFound";
    let not_in_list = &*format!("PERSISTED_QUERY_NOT_IN_LIST: Unknown document \"{unknown}\".");
    let not_safe = "QUERY_NOT_IN_SAFELIST: This server runs published documents only, and this document is not published.";
    let id_required = "PERSISTED_QUERY_ID_REQUIRED: This server runs published documents only, by their id.";
    let both = "CANNOT_SEND_PQ_ID_AND_BODY: Send the id of a document or its text, not both.";
    // known id, unknown id, unknown documentId, known text, the same spelt otherwise, unknown text, id and text
    for (mode, expected) in [
        (
            "off",
            [
                (200, not_supported),
                (200, not_supported),
                (200, not_supported),
                (200, ok),
                (200, ok),
                (200, ok),
                (200, not_supported),
            ],
        ),
        (
            "apq",
            [(200, ok), (200, not_found), (404, not_in_list), (200, ok), (200, ok), (200, ok), (200, ok)],
        ),
        (
            "audit",
            [(200, ok), (200, not_found), (404, not_in_list), (200, ok), (200, ok), (200, ok), (200, ok)],
        ),
        (
            "safelist",
            [
                (200, ok),
                (404, not_in_list),
                (404, not_in_list),
                (200, ok),
                (200, ok),
                (403, not_safe),
                (400, both),
            ],
        ),
        (
            "require_id",
            [
                (200, ok),
                (404, not_in_list),
                (404, not_in_list),
                (400, id_required),
                (400, id_required),
                (400, id_required),
                (400, both),
            ],
        ),
    ] {
        let (app, _folder) = trusting(DocumentMode::parse(mode).expect("a mode"), &files).await;
        let by_specification = post_of(json!({ "documentId": unknown }).to_string());
        let requests = [
            apq(None, &known),
            apq(None, &unknown),
            by_specification,
            text(TEXT),
            text(spelt_otherwise),
            text(OTHER),
            apq(Some(OTHER), &unknown),
        ];
        for (request, (status, text)) in requests.into_iter().zip(expected) {
            let (found, said, _) = outcome(&app, request).await;
            assert_eq!((found, &*said), (status, text), "{mode}");
        }
    }
}

#[tokio::test]
async fn a_client_can_have_a_mode_of_its_own() {
    let app = app_with(|config| {
        config.documents.mode = DocumentMode::RequireId;
        config.documents.clients = crate::config::setting::ClientModes::parse("legacy=apq").expect("valid");
    })
    .await;
    assert_eq!(rejection(&app, post_of(QUERY)).await, (400, "PERSISTED_QUERY_ID_REQUIRED".into()));
    let legacy = with(post_of(QUERY), "apollographql-client-name", "legacy");
    assert_eq!(send(&app, legacy).await.0, 200);
}

#[tokio::test]
async fn documents_are_reloaded_and_broken_ones_are_named() {
    let apollo = |operations: Value| {
        json!({ "format": "apollo-persisted-query-manifest", "version": 1, "operations": operations })
            .to_string()
    };
    let operation = |text: &str| json!({ "id": hash(text), "name": "A", "type": "query", "body": text });
    let (app, folder) = trusting(
        DocumentMode::RequireId,
        &[(
            "web.json",
            apollo(json!([operation(TEXT), operation("{ nothing }"), { "id": hash(OTHER), "body": TEXT }])),
        )],
    )
    .await;
    assert_eq!(outcome(&app, apq(None, &hash(TEXT))).await.1, "ok");
    assert_eq!(outcome(&app, apq(None, &hash(OTHER))).await.0, 404);
    let broken: Vec<_> =
        app.documents.trusted().broken.iter().filter_map(|broken| broken.id.clone()).collect();
    assert_eq!(broken, [hash(OTHER), hash("{ nothing }")]);

    let before = prepared(&app).await;
    let own = json!({ "id": "mine", "body": OTHER, "clientName": "web" });
    std::fs::write(folder.path().join("web.json"), apollo(json!([operation(TEXT), own]))).expect("written");
    std::fs::write(folder.path().join("broken.json"), "{").expect("written");
    app.documents.reload(&app.graph).await;
    assert_eq!(app.documents.trusted().broken.len(), 1);
    assert_eq!(outcome(&app, apq(None, &hash(TEXT))).await.1, "ok");
    let mine = || post_of(json!({ "documentId": "mine" }).to_string());
    assert_eq!(outcome(&app, mine()).await.0, 404, "another client's");
    assert_eq!(outcome(&app, with(mine(), "apollographql-client-name", "web")).await.1, "ok");
    assert_ne!(prepared(&app).await, before, "the new document was prepared when it was loaded");
    let before = prepared(&app).await;
    app.documents.reload(&app.graph).await;
    assert_eq!(prepared(&app).await, before, "nothing has changed");

    std::fs::remove_file(folder.path().join("broken.json")).expect("removed");
    std::fs::write(folder.path().join("web.json"), "{ half of it").expect("written");
    app.documents.reload(&app.graph).await;
    assert_eq!(app.documents.trusted().broken.len(), 1);
    assert_eq!(outcome(&app, apq(None, &hash(TEXT))).await.1, "ok", "what cannot be read has what it had");
    std::fs::remove_dir_all(&folder).expect("removed");
    app.documents.reload(&app.graph).await;
    assert_eq!(outcome(&app, apq(None, &hash(TEXT))).await.1, "ok", "the whole folder likewise");
    std::fs::create_dir(&folder).expect("made");
    app.documents.reload(&app.graph).await;
    assert_eq!(outcome(&app, apq(None, &hash(TEXT))).await.0, 404, "what was taken away is gone");
}

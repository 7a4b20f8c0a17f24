//! What Prometheus reads: every metric that operators are promised is there once a request has been through all crates.
//! Not here: what single metrics count (the crates' own tests).

use axum::{body::Body, http::Request};
use entities::{
    CacheOptions, DatabaseOptions, Store,
    user::{self, AccountRef},
};
use prometheus_client::registry::Registry;
use schema::{Access, auth::token::Subject};
use serde_json::json;
use tower::ServiceExt as _;
use xp::{App, config::Config};

use crate::harness::{RedisServer, TestApp, db};

const FIGURES: [&str; 35] = [
    "http_server_request_duration_seconds_bucket{",
    "http_server_active_requests ",
    "graphql_server_operation_duration_seconds_count{graphql_operation_type=\"query\",outcome=\"ok\"} 1",
    "graphql_server_errors_total{code=\"GRAPHQL_VALIDATION_FAILED\"} 1",
    "dataloader_batch_size_count{loader=\"user.page\"} 1",
    "dataloader_batch_duration_seconds_count{loader=\"session.pages_of_users\"} 1",
    "dataloader_keys_total{loader=\"user.page\",result=\"loaded\"} 1",
    "cache_requests_total{tier=\"redis\",type=\"user.page\",result=\"absent\"} 1",
    "cache_operation_duration_seconds_count{operation=",
    "redis_commands_total{operation=",
    "circuit_breaker_state 0",
    "db_client_operation_duration_seconds_count{db_operation_name=\"user.page\",db_collection_name=\"users\"} 1",
    "db_client_connection_count{db_client_connection_state=\"idle\"}",
    "db_client_connection_count{db_client_connection_state=\"used\"}",
    "db_client_connection_wait_time_seconds_count ",
    "persisted_documents_total{",
    "users_active{window=\"5m\"} 1",
    "users_active{window=\"1h\"} 1",
    "build_info{version=",
    "process_cpu_seconds_total ",
    "process_resident_memory_bytes ",
    "process_virtual_memory_bytes ",
    "process_threads ",
    "process_open_fds ",
    "tokio_workers ",
    "tokio_alive_tasks ",
    "tokio_global_queue_depth ",
    "tokio_worker_busy_seconds_total ",
    "tokio_worker_parks_total ",
    "redis_master_changes_total 0",
    "cache_outbox_oldest_seconds 0",
    "retention_removed_rows_total 0",
    "webhook_waiting_deliveries 0",
    "webhook_oldest_delivery_seconds 0",
    "webhook_delivery_duration_seconds_count 0",
];

/// A whole server over PostgreSQL and Redis, and a token of the administrator.
async fn server(redis: &RedisServer) -> (App, String) {
    let (mut config, mut registry) = (Config::default(), Registry::default());
    config.http.metrics_address = xp::config::address::MetricsAddress::Main;
    let url = db::own_postgres().await;
    let database = DatabaseOptions {
        max_connections: 4,
        acquire_timeout: config.database.acquire_timeout,
        ..DatabaseOptions::at(url)
    };
    let store = Store::connect(&database, &mut registry).await.expect("the database is there");
    let redis = entities::redis::Redis::new(&redis.url(), &mut registry);
    let store = store.with_cache(&CacheOptions::default(), Some(redis), &mut registry);
    let access = Access::new(store.clone(), config.auth.access());
    access.open().await.expect("a key is made");
    let id = TestApp::account(entities::Role::Admin);
    let account = user::credentials(&store, AccountRef::Id(id)).await.expect("read").expect("it is seeded");
    let subject = Subject { user: id, role: account.role, epoch: account.epoch, session: None };
    let (token, _) = access.tokens().mint(subject, 60).expect("there is a key");
    (App::new(&config, store, access, registry, None), token)
}

async fn send(app: &App, request: Request<Body>) -> String {
    let response = xp::router(app.clone()).oneshot(request).await.expect("every request has an answer");
    let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("a body").to_bytes();
    String::from_utf8(body.to_vec()).expect("text")
}

fn asking(what: &serde_json::Value, token: &str) -> Request<Body> {
    let request = Request::post("/graphql").header("content-type", "application/json");
    request
        .header("authorization", format!("Bearer {token}"))
        .body(Body::from(what.to_string()))
        .expect("a request")
}

#[tokio::test]
async fn every_figure_that_operators_are_promised_is_there() {
    let redis = RedisServer::start().await;
    let (app, token) = server(&redis).await;
    let query = json!({ "query": "{ users { nodes { id sessions { nodes { id } } } } }" });
    let answer = send(&app, asking(&query, &token)).await;
    assert!(answer.starts_with("{\"data\":{\"users\""), "{answer}");
    send(&app, asking(&json!({ "query": "{ nothing }" }), &token)).await;
    let registered = json!({ "version": 1, "sha256Hash": "0".repeat(64) });
    send(&app, asking(&json!({ "extensions": { "persistedQuery": registered } }), &token)).await;
    let metrics = Request::get("/metrics").body(Body::empty()).expect("a request");
    let text = send(&app, metrics).await;
    let missing: Vec<_> = FIGURES.iter().filter(|figure| !text.contains(**figure)).collect();
    assert!(missing.is_empty(), "{missing:#?} are missing in\n{text}");
}

//! Is the process alive, and should requests come here? Liveness touches nothing, so that a database that is away does
//! not get processes killed; readiness asks the database. Not here: `xp doctor`, which explains.

use std::time::Duration;

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};

use crate::App;

/// How long the database may take to answer.
const PING_LIMIT: Duration = Duration::from_secs(1);

/// `GET /livez`: the process runs.
pub(super) async fn livez() -> Response {
    answer(StatusCode::OK, &json!({ "status": "ok" }))
}

/// `GET /readyz`: the database is there, its schema is ours, and the process has warmed its cache and is not about to
/// end.
pub(super) async fn readyz(State(app): State<App>) -> Response {
    let process = match (app.ready.is_draining(), app.ready.is_warming()) {
        (true, _) => "draining",
        (false, true) => "warming",
        (false, false) => "ok",
    };
    let (database, migrations) =
        tokio::time::timeout(PING_LIMIT, database(&app)).await.unwrap_or(("timeout", "unknown"));
    let ready = [process, database, migrations].iter().all(|check| *check == "ok");
    let (code, status) =
        if ready { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    let checks = json!({ "database": database, "migrations": migrations, "process": process });
    answer(code, &json!({ "status": status, "checks": checks }))
}

async fn database(app: &App) -> (&'static str, &'static str) {
    if let Err(error) = app.store.ping().await {
        tracing::warn!(error = &error as &dyn std::error::Error, "the database does not answer");
        return ("unreachable", "unknown");
    }
    match migration::pending(app.store.connection()).await {
        Ok(0) => ("ok", "ok"),
        Ok(_) => ("ok", "pending"),
        Err(_) => ("ok", "unknown"),
    }
}

fn answer(status: StatusCode, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, body.to_string()).into_response()
}

//! Is the process alive, and should requests come here? Liveness touches nothing, so that a database that is
//! away does not get processes killed; readiness asks the database, and knows what became of the last write.
//! Not here: `xp doctor`, which explains.

use std::time::{Duration, Instant};

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use entities::{Store, WriteFault};
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::App;

/// How long the database may take to answer.
const PING_LIMIT: Duration = Duration::from_secs(1);

/// `GET /livez`: the process runs.
pub(super) async fn livez() -> Response {
    answer(StatusCode::OK, &json!({ "status": "ok" }))
}

/// `GET /readyz`: the database is there, its schema is ours, it stores what is written, and the process has
/// warmed its cache and is not about to end. Requests that wait for a connection do not make it wait. It also
/// says how the parts are that it can do without.
pub(super) async fn readyz(State(app): State<App>) -> Response {
    let process = match (app.ready.is_draining(), app.ready.is_warming()) {
        (true, _) => "draining",
        (false, true) => "warming",
        (false, false) => "ok",
    };
    let Found { database, migrations } = app.ready.database.ask(&app.store).await;
    let writes = app.store.database().write_fault().map_or("ok", WriteFault::name);
    let ready = [process, database, migrations, writes].iter().all(|check| *check == "ok");
    let (code, status) =
        if ready { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    let mut checks =
        json!({ "database": database, "migrations": migrations, "process": process, "writes": writes });
    for (part, state) in degradable(&app) {
        checks[part] = state.into();
    }
    answer(code, &json!({ "status": status, "checks": checks }))
}

/// How those parts are without which the server is slower, and ready; only those that there are.
fn degradable(app: &App) -> impl Iterator<Item = (&'static str, String)> {
    let state = |is_ok, otherwise: &str| if is_ok { "ok".to_owned() } else { otherwise.to_owned() };
    let replicas = app.store.database().replica_names();
    let used = replicas.iter().filter(|(_, is_in_rotation)| *is_in_rotation).count();
    let behind = || format!("{used} of {} in rotation", replicas.len());
    let replicas = (!replicas.is_empty()).then(|| state(used == replicas.len(), &behind()));
    let redis = app.store.cache().follows_others().map(|follows| state(follows, "away"));
    let partitions = app.tables.has_this_month().map(|has| state(has, "this month has none"));
    [("replicas", replicas), ("redis", redis), ("partitions", partitions)]
        .into_iter()
        .filter_map(|(part, state)| Some((part, state?)))
}

/// What the database said.
#[derive(Clone, Copy, Debug)]
struct Found {
    database: &'static str,
    migrations: &'static str,
}

/// The database, as `/readyz` sees it: asked by a connection of its own, once for all that ask meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Database {
    /// What was found last, and when. Locked while it is asked.
    last: Mutex<Option<(Instant, Found)>>,
}

impl Database {
    async fn ask(&self, store: &Store) -> Found {
        let came = Instant::now();
        let mut last = self.last.lock().await;
        match *last {
            // It was being asked when this caller came.
            Some((at, found)) if at > came => found,
            _ => {
                let found = Self::ask_now(store).await;
                *last = Some((Instant::now(), found));
                found
            }
        }
    }

    async fn ask_now(store: &Store) -> Found {
        let check = store.database().probe(PING_LIMIT, |db| {
            async move {
                if let Err(error) = db.ping().await {
                    tracing::warn!(%error, "the database does not answer");
                    return Found { database: "unreachable", migrations: "unknown" };
                }
                let migrations = match migration::pending(db).await {
                    Ok(0) => "ok",
                    Ok(_) => "pending",
                    Err(_) => "unknown",
                };
                Found { database: "ok", migrations }
            }
            .boxed()
        });
        let found = check.await;
        found.unwrap_or_else(|| {
            tracing::warn!("the database does not answer in time");
            Found { database: "timeout", migrations: "unknown" }
        })
    }
}

fn answer(status: StatusCode, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, body.to_string()).into_response()
}

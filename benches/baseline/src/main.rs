//! The process: command line, pool, HTTP. No type of the graph (`graph`) and no SQL (`loader`).
//!
//! This server is the opponent of the load runs: async-graphql's derives, its own `DataLoader` with the default
//! delay, its axum extractor, sqlx with `query_as`; nothing clever, nothing careless. It reads the tables that
//! `xp migrate up` makes and answers the workloads W1 to W4 with the same field names. It lacks mutations,
//! filters, backward paging and every check of rights, which is in its favour.

mod graph;
mod loader;

use std::{error::Error, net::SocketAddr, time::Duration};

use async_graphql::{EmptyMutation, EmptySubscription, Schema};
use async_graphql_axum::{GraphQLRequest, GraphQLResponse};
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    routing::{get, post},
    serve::ListenerExt,
};
use clap::Parser;
use sqlx::{PgPool, postgres::PgPoolOptions};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "An ordinary GraphQL server of the same stack, to compare `xp` with")]
struct Arguments {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:4100")]
    listen: SocketAddr,
    /// `postgres://…`: a database that `xp migrate up` and `xp seed` have filled.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
}

type Graph = Schema<graph::Query, EmptyMutation, EmptySubscription>;

#[derive(Clone)]
struct App {
    graph: Graph,
    pool: PgPool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let pool = PgPoolOptions::new()
        .max_connections(10)
        .acquire_timeout(Duration::from_secs(10))
        .test_before_acquire(false)
        .connect(&arguments.database_url)
        .await?;
    let graph = Schema::build(graph::Query, EmptyMutation, EmptySubscription)
        .enable_federation()
        .data(pool.clone())
        .finish();
    let router = Router::new()
        .route("/graphql", post(answer))
        .route("/healthz", get(|| async { "ok" }))
        .with_state(App { graph, pool });
    // Without it the last packet of a long answer waits for the client's acknowledgement.
    let listener = tokio::net::TcpListener::bind(arguments.listen).await?.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).with_graceful_shutdown(interrupted()).await?;
    Ok(())
}

/// One request: a set of loaders of its own, then the engine.
///
/// A bearer token must be there and is trusted without a look at it: checking it costs `xp` time that this
/// server does not spend.
async fn answer(
    State(app): State<App>,
    headers: HeaderMap,
    request: GraphQLRequest,
) -> Result<GraphQLResponse, StatusCode> {
    let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if !token.is_some_and(|value| value.starts_with("Bearer ")) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let request = loader::attach(request.into_inner(), &app.pool);
    Ok(app.graph.execute(request).await.into())
}

async fn interrupted() {
    // Where the signal cannot be heard, the process still ends by it.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

//! The graph in a plain axum app, mounted by async-graphql-axum's own services: queries and mutations at
//! `/graphql`, subscriptions over WebSocket at `/subscriptions`. Callers sign in by `authorization: Bearer
//! …`. For who has an axum app already and wants this graph in it; what the server of this project does
//! beside it (limits before a body is read, persisted documents, gateways) stays outside.
//!
//!     cargo run --example embed
//!     curl -s http://127.0.0.1:4000/graphql -H 'content-type: application/json' -d '{"query":"{ __typename }"}'

use std::convert::Infallible;

use async_graphql_axum::{GraphQL, GraphQLSubscription};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    response::Response,
    routing::{any, post},
};
use schema::{Caller, Graph, GraphFor};
use tower::Service;

/// The app. The graph's `Access` must have been opened, or no token is good.
pub(crate) fn app(graph: Graph) -> Router {
    let queries =
        async |State(graph): State<Graph>, request: Request| serve(&graph, request, GraphQL::new).await;
    let subscriptions = async |State(graph): State<Graph>, request: Request| {
        serve(&graph, request, GraphQLSubscription::new).await
    };
    Router::new()
        .route("/graphql", post(queries))
        .route("/subscriptions", any(subscriptions))
        .with_state(graph)
}

/// Lets one of the library's services answer for whoever sent the request.
async fn serve<S>(
    graph: &Graph,
    request: Request,
    service: impl FnOnce(GraphFor) -> S,
) -> Result<Response, StatusCode>
where
    S: Service<Request, Response = Response<Body>, Error = Infallible>,
{
    let executor = executor(graph, request.headers())?;
    let Ok(response) = service(executor).call(request).await;
    Ok(response)
}

/// The graph for whoever came with these headers.
fn executor(graph: &Graph, headers: &HeaderMap) -> Result<GraphFor, StatusCode> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Ok(graph.executor_for(None, Caller::default()));
    };
    let token = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
    let bearer = token.and_then(|token| graph.access().verify(token).ok()).ok_or(StatusCode::UNAUTHORIZED)?;
    Ok(graph.executor_for(Some(bearer), Caller::default()))
}

#[cfg(not(test))]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use entities::{DatabaseOptions, Store};
    use prometheus_client::registry::Registry;
    use schema::Options;

    let config = DatabaseOptions::at("sqlite::memory:");
    let store = Store::connect(&config, &mut Registry::default()).await?;
    migration::up(store.connection()).await?;
    let graph = Graph::new(store, Options::default(), &mut Registry::default());
    graph.access().open().await?;
    // What is revoked elsewhere is heard of.
    tokio::spawn(graph.access().follow());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:4000").await?;
    axum::serve(listener, app(graph)).await?;
    Ok(())
}

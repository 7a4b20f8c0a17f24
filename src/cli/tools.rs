//! The small commands: schema, configuration, tokens, health. Not here: what they print, which the library knows.

use std::time::Duration;

use entities::Store;
use prometheus_client::registry::Registry;
use schema::{Graph, Subgraph};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use xp::config::{
    self, Config,
    layers::{Loaded, Problem},
};

use super::{Dialect, Failure, chain, say};

/// How long a server may take to say whether it is ready.
const HEALTH_LIMIT: Duration = Duration::from_secs(3);

/// `xp schema`.
pub(super) async fn schema(config: &Config, api: bool, dialect: Dialect) -> Result<(), Failure> {
    let graph = graph(config).await?;
    match dialect {
        Dialect::Apollo => say(if api { graph.api_sdl() } else { graph.sdl() }),
        Dialect::GraphqlFederation if config.graph.subgraph() == Subgraph::WHOLE => say(&graph.lookup_sdl()),
        // A part adds fields to objects of others, and has no field at the root by which these are found.
        Dialect::GraphqlFederation => Err(Failure::Usage(
            "--dialect graphql-federation prints the whole graph only: leave out --subgraphs \
             (graph.subgraphs)"
                .to_owned(),
        )),
    }
}

/// A graph that is only asked about documents: it needs no data, but a store, so it gets an empty one in memory.
pub(super) async fn graph(config: &Config) -> Result<Graph, Failure> {
    let nowhere = entities::DatabaseOptions::at("sqlite::memory:");
    let mut registry = Registry::default();
    let store =
        Store::connect(&nowhere, &mut registry).await.map_err(|error| Failure::Failed(chain(&error)))?;
    let options = schema::Options {
        limits: config.graph.limits(),
        subgraph: config.graph.subgraph(),
        authorization_directives: config.graph.authorization_directives,
        ..schema::Options::default()
    };
    Ok(Graph::new(store, options, &mut registry))
}

/// `xp config print` and `xp config check`.
pub(super) fn config(loaded: &Loaded, action: super::Settings, as_json: bool) -> Result<(), Failure> {
    match (action, as_json) {
        (super::Settings::Schema, _) => say(&config::print::json_schema()),
        (super::Settings::Print { .. }, false) => say(&config::print::text(loaded)),
        (super::Settings::Print { .. }, true) => say(&config::print::json(loaded).to_string()),
        (super::Settings::Check, false) => {
            let cautions = notes(loaded).map(|Problem { what, why, fix, .. }| {
                format!("\n\n  note: {what}\n    why:   {why}\n    fix:   {fix}")
            });
            say(&format!("the configuration is valid{}", cautions.collect::<String>()))
        }
        (super::Settings::Check, true) => {
            let note = |Problem { what, why, fix, .. }| json!({ "what": what, "why": why, "fix": fix });
            let notes: Vec<_> = notes(loaded).map(note).collect();
            say(&json!({ "valid": true, "notes": notes }).to_string())
        }
    }
}

/// What is allowed, but seldom meant or called otherwise now.
fn notes(loaded: &Loaded) -> impl Iterator<Item = Problem> {
    loaded.config.cautions().into_iter().chain(loaded.renamed.iter().cloned())
}

/// `xp healthcheck`.
pub(super) async fn healthcheck(config: &Config) -> Result<(), Failure> {
    // A server that listens everywhere listens here too.
    let host = match config.http.host.as_str() {
        "0.0.0.0" => "127.0.0.1",
        "::" => "::1",
        host => host,
    };
    let port = config.http.port;
    match tokio::time::timeout(HEALTH_LIMIT, ask_ready(host, port)).await {
        Ok(Ok((true, body))) => say(&body),
        Ok(Ok((false, body))) => {
            Err(Failure::Failed(format!("the server at {host}:{port} is not ready: {body}")))
        }
        Ok(Err(error)) => {
            Err(Failure::Failed(format!("cannot connect to a server at {host}:{port}: {error}")))
        }
        Err(_) => Err(Failure::Failed(format!("the server at {host}:{port} does not answer"))),
    }
}

async fn ask_ready(host: &str, port: u16) -> std::io::Result<(bool, String)> {
    let mut stream = TcpStream::connect((host, port)).await?;
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {bracketed}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let ready = answer.starts_with("HTTP/1.1 200 ");
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned());
    Ok((ready, body.unwrap_or_default()))
}

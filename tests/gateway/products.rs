//! The subgraph of Apollo's compatibility suite: its schema `products` (`schema::products`) behind the HTTP of the server,
//! at the address of `PRODUCTS_ADDRESS`. `compatibility.test.mjs` starts it; it is no part of the server.

use std::time::Duration;

use entities::{DatabaseConfig, Store};
use prometheus_client::registry::Registry;
use schema::{Access, AccessOptions};
use tokio::net::TcpListener;
use xp::{App, Development, config::Config};

#[tokio::main]
async fn main() {
    let address = std::env::var("PRODUCTS_ADDRESS").expect("PRODUCTS_ADDRESS says where to listen");
    let listener = TcpListener::bind(&address).await.expect("the address is free");
    let database = DatabaseConfig {
        url: "sqlite::memory:".to_owned(),
        max_connections: 1,
        acquire_timeout: Duration::from_secs(5),
    };
    let mut registry = Registry::default();
    let store = Store::connect(&database, &mut registry).await.expect("SQLite opens a database in memory");
    let access = Access::new(store.clone(), AccessOptions::default());
    let development = Some(Development::default());
    let app = App::serving(&Config::default(), store, access, registry, development, schema::products::graph);
    xp::serve(app, listener, std::future::pending()).await.expect("it serves until it is ended");
}

//! Which operations count for the use of fields, over each transport. Not here: names of clients and files
//! (`documents::field_usage`).

use std::{collections::BTreeMap, path::Path};

use super::{
    streams::{message, socket, subscribe},
    *,
};
use crate::{
    config::setting::Ratio,
    documents::field_usage::{self, FieldUsages},
};

const TEXT: &str = "query A { users(first: 1) { ...P } } fragment P on UserConnection { nodes { id } }";

async fn counting(ratio: f64, file: &Path) -> App {
    let file = Some(file.to_owned());
    app_with(|config| {
        config.telemetry.field_usage = Ratio(ratio);
        config.telemetry.field_usage_file = file;
    })
    .await
}

/// By coordinate and client, rounded.
fn used(app: &App, file: &Path) -> BTreeMap<String, u64> {
    app.field_usage.write();
    let usages = field_usage::read(&[file.to_owned()]).expect("a file");
    let of_clients =
        FieldUsages::sum(usages).expect("one").fields.into_iter().flat_map(|(coordinate, clients)| {
            let named = move |client| format!("{coordinate} {client}");
            clients.into_iter().map(move |(client, used)| (named(client), used.operations.round() as u64))
        });
    of_clients.collect()
}

fn expected(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[tokio::test]
async fn operations_count_for_their_client_however_they_come() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("fields.json");
    let app = counting(1.0, &file).await;
    let hash = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, TEXT.as_bytes()));
    let persisted = |text: Option<&str>| {
        let query = text.map(|text| format!("\"query\": \"{text}\", ")).unwrap_or_default();
        let extensions =
            json!({ "extensions": { "persistedQuery": { "version": 1, "sha256Hash": hash } } }).to_string();
        post_of(format!("{{{query}{}", extensions.trim_start_matches('{')))
    };
    let named = |request| with(request, "apollographql-client-name", "web");
    assert!(send(&app, named(persisted(Some(TEXT)))).await.2["data"].is_object());
    assert!(send(&app, named(persisted(None))).await.2["data"].is_object());
    assert!(send(&app, post_of(QUERY)).await.2["data"].is_object());
    let events = named(with(post_of(QUERY), "accept", "text/event-stream"));
    assert_eq!(send(&app, events).await.0, 200);
    // What does not run is not counted: it is refused by its text, by its variables, or by the method.
    for refused in [
        r#"{"query": "{ users { nothing } }"}"#,
        r#"{"query": "query($first: Int!) { users(first: $first) { totalCount } }"}"#,
        r#"{"query": "{ users(first: 1) { totalCount } }", "operationName": "Other"}"#,
    ] {
        assert!(send(&app, named(post_of(refused))).await.2.get("data").is_none(), "{refused}");
    }
    let mutation = "/graphql?query=mutation%20%7BsignOut%20%7B__typename%7D%7D";
    assert_eq!(send(&app, named(get_of(mutation))).await.0, 405);
    let of_queries = [
        ("Query.users unknown", 1),
        ("Query.users web", 3),
        ("User.id unknown", 1),
        ("User.id web", 3),
        ("UserConnection.nodes unknown", 1),
        ("UserConnection.nodes web", 3),
    ];
    assert_eq!(used(&app, &file), expected(&of_queries));

    let (address, _stop, _server) = serving(router(app.clone()), |_| {}).await;
    let mut stream = socket(&app, &address).await;
    subscribe(&mut stream, "a", r#"{"query": "{ me { role } }"}"#).await;
    assert!(message(&mut stream).await.starts_with(r#"{"id":"a","type":"next""#));
    let subscription = r#"{"query": "subscription { locationUpdated(userIds: []) { latitude } }"}"#;
    subscribe(&mut stream, "b", subscription).await;
    let mut of_socket = BTreeMap::new();
    let begun = async {
        while !of_socket.contains_key("Subscription.locationUpdated socket") {
            sleep(Duration::from_millis(20)).await;
            of_socket = used(&app, &file);
        }
    };
    timeout(Duration::from_mins(1), begun).await.expect("it is counted when it begins");
    of_socket.retain(|name, _| name.ends_with(" socket"));
    let of_both = [
        ("Location.latitude socket", 1),
        ("Query.me socket", 1),
        ("Subscription.locationUpdated socket", 1),
        ("User.role socket", 1),
    ];
    assert_eq!(of_socket, expected(&of_both));
}

#[tokio::test]
async fn nothing_is_counted_at_a_share_of_0() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("fields.json");
    let app = counting(0.0, &file).await;
    assert!(send(&app, post_of(QUERY)).await.2["data"].is_object());
    app.field_usage.write();
    assert!(!file.exists());
}

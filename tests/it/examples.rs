//! The programs in `examples/`: the graph in a plain axum app (query, mutation, subscription over its WebSocket), and
//! batch reads behind the crate `dataloader`. Not here: this project's own HTTP (the server's tests, `tests/clients`).

#[path = "../../examples/dataloader.rs"]
mod dataloader;
#[path = "../../examples/embed.rs"]
mod embed;

use std::{
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use entities::{
    Recorder, Role, clock,
    id::{SessionId, UserId},
    session, user,
};
use schema::{Graph, auth::token::Subject};
use sea_orm::EntityTrait as _;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
    time::timeout,
};
use tungstenite::{Message, client::IntoClientRequest as _, http::HeaderValue};

use crate::harness::TestApp;

/// The app of `examples/embed.rs`, listening.
async fn serve(graph: &Graph) -> SocketAddr {
    graph.access().open().await.expect("the keys are made");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let app = embed::app(graph.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

fn token(graph: &Graph, role: Role) -> String {
    let subject = Subject { user: TestApp::account(role), role, epoch: 0, session: None };
    graph.access().tokens().mint(subject, 60).expect("a key signs").0
}

/// Status and body of the answer.
async fn post(address: SocketAddr, token: Option<&str>, body: &Value) -> (u16, String) {
    let body = body.to_string();
    let authorization = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!(
        "POST /graphql HTTP/1.1\r\nhost: app\r\nconnection: close\r\ncontent-type: application/json\r\n{authorization}\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), body.to_owned())
}

async fn ask(address: SocketAddr, token: Option<&str>, query: &str, variables: Value) -> Value {
    let (status, body) = post(address, token, &json!({"query": query, "variables": variables})).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

/// What a subscription sends, from `connection_ack` on.
fn subscribe(address: SocketAddr, token: &str, query: &str) -> mpsc::UnboundedReceiver<Value> {
    let mut request = format!("ws://{address}/subscriptions").into_client_request().expect("a URL");
    let authorization = format!("Bearer {token}").parse().expect("a header");
    request.headers_mut().insert("authorization", authorization);
    let protocol = HeaderValue::from_static("graphql-transport-ws");
    request.headers_mut().insert("sec-websocket-protocol", protocol);
    let subscribe = json!({"type": "subscribe", "id": "1", "payload": {"query": query}});
    let (sender, messages) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_mins(1))).expect("a time");
        let (mut socket, _) = tungstenite::client(request, stream).expect("it speaks WebSocket");
        for message in [json!({"type": "connection_init"}), subscribe] {
            socket.send(Message::text(message.to_string())).expect("sent");
        }
        while let Ok(message) = socket.read() {
            let Message::Text(text) = message else { continue };
            if sender.send(serde_json::from_str(&text).expect("JSON")).is_err() {
                break;
            }
        }
    });
    messages
}

const MOVED: &str = "subscription { locationUpdated { latitude user { displayName } } }";
const RECORD: &str =
    "mutation($input: RecordLocationsInput!) { recordLocations(input: $input) { acceptedCount } }";

/// Records positions, one after the other, until the subscription says something: it begins by itself.
async fn moved(address: SocketAddr, token: &str, messages: &mut mpsc::UnboundedReceiver<Value>) -> Value {
    for latitude in 1..80 {
        let point = json!({"timestamp": clock::now(), "latitude": latitude, "longitude": 1});
        let answer = ask(address, Some(token), RECORD, json!({"input": {"points": [point]}})).await;
        assert_eq!(answer["data"]["recordLocations"]["acceptedCount"], 1, "{answer}");
        if let Ok(message) = timeout(Duration::from_millis(500), messages.recv()).await {
            return message.expect("the socket is open");
        }
    }
    panic!("nothing was heard of any position");
}

#[tokio::test]
async fn a_plain_axum_app_serves_queries_mutations_and_subscriptions() {
    for app in TestApp::both_own().await {
        let address = serve(&app.graph).await;
        let [collector, manager] = [Role::Collector, Role::Manager].map(|role| token(&app.graph, role));
        let me = "{ me { role } }";
        assert_eq!(
            ask(address, Some(&manager), me, json!({})).await,
            json!({"data": {"me": {"role": "MANAGER"}}})
        );
        let users = "{ users(first: 1) { nodes { id } } }";
        let count = |answer: &Value| answer["data"]["users"]["nodes"].as_array().map(Vec::len);
        assert_eq!(count(&ask(address, Some(&manager), users, json!({})).await), Some(1));
        assert_eq!(count(&ask(address, None, users, json!({})).await), Some(0), "an anonymous caller");
        let (status, _) = post(address, Some("forged"), &json!({"query": me})).await;
        assert_eq!(status, 401);

        let mut messages = subscribe(address, &manager, MOVED);
        let begun = timeout(Duration::from_mins(1), messages.recv()).await.expect("in time");
        assert_eq!(begun.expect("open")["type"], "connection_ack");
        let event = moved(address, &collector, &mut messages).await;
        assert_eq!((&event["type"], &event["id"]), (&json!("next"), &json!("1")), "{event}");
        let shown = &event["payload"]["data"]["locationUpdated"];
        assert!(shown["latitude"].is_number() && shown["user"]["displayName"].is_string(), "{event}");
    }
}

#[tokio::test]
async fn an_embedded_subscription_ends_with_its_callers_rights() {
    let [app, _] = TestApp::both_own().await;
    let address = serve(&app.graph).await;
    let [collector, manager] = [Role::Collector, Role::Manager].map(|role| token(&app.graph, role));
    let mut messages = subscribe(address, &manager, MOVED);
    let begun = timeout(Duration::from_mins(1), messages.recv()).await.expect("in time");
    assert_eq!(begun.expect("open")["type"], "connection_ack");
    assert_eq!(moved(address, &collector, &mut messages).await["type"], "next");
    let blocked = user::AccountChanges { is_active: Some(false), ..user::AccountChanges::default() };
    let account = TestApp::account(Role::Manager);
    assert!(user::update(&app.store, None, account, blocked).await.expect("blocked"));
    // What was written before may still be on its way.
    let mut codes = Vec::new();
    for _ in 0..20 {
        let event = moved(address, &collector, &mut messages).await;
        let code = &event["payload"]["errors"][0]["extensions"]["code"];
        codes.extend(code.as_str().map(str::to_owned));
        if !codes.is_empty() {
            break;
        }
    }
    assert_eq!(codes, ["UNAUTHENTICATED"]);
}

#[tokio::test]
async fn keys_that_are_loaded_one_by_one_take_one_statement() {
    for app in TestApp::both().await {
        let sessions = session::Entity::find().all(app.store.connection()).await.expect("read");
        assert!(sessions.len() >= 50);
        let ids: Vec<SessionId> = sessions.iter().map(|session| session.id).collect();
        let users: Vec<UserId> = sessions.iter().map(|session| session.user_id).collect();
        for count in [1, 5, 50] {
            let recorder = Arc::new(Recorder::new(false));
            let store = app.store.recorded_by(Arc::clone(&recorder));
            let names = dataloader::names(&store, &ids[..count]).await.expect("read");
            assert_eq!(recorder.count(), 2, "sessions, and their accounts: {count}");
            let accounts = user::by_ids(&app.store, &users).await.expect("read");
            let expected = users[..count].iter().map(|user| accounts[user].display_name.clone());
            assert_eq!(names, expected.collect::<Vec<_>>());

            let recorder = Arc::new(Recorder::new(false));
            let store = app.store.recorded_by(Arc::clone(&recorder));
            let counts = dataloader::session_counts(&store, &users[..count]).await.expect("read");
            assert_eq!(recorder.count(), 1, "{count}");
            let of = |owner: UserId| users.iter().filter(|user| **user == owner).count() as i64;
            assert_eq!(counts, users[..count].iter().map(|user| of(*user)).collect::<Vec<_>>());
        }
        let nobody = [SessionId::new(), ids[0]];
        let names = dataloader::names(&app.store, &nobody).await.expect("read");
        assert_eq!(names[0], "unknown");
        assert_ne!(names[1], "unknown");
    }
}

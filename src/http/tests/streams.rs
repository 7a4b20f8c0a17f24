//! Memory of operations and answers on streams: server-sent events, multipart, sockets. Not here: what is answered.

use axum::body::Bytes;

use super::*;
use crate::http::admission::Admission;

const LONG: &str = r#"{"query": "{ __schema { types { name description fields { name description } } } }"}"#;
const SSE: &str = "text/event-stream";
const MULTIPART: &str = "multipart/mixed;subscriptionSpec=\"1.0\"";
const MASK: [u8; 4] = [1, 2, 3, 4];
const VARIABLE_BYTES: usize = 40_000;

/// A subscription with a large variable that it does not need.
fn subscription() -> String {
    let query = "subscription($users: [ID!]) { locationUpdated(userIds: $users) { latitude } }";
    json!({ "query": query, "variables": { "unused": "x".repeat(VARIABLE_BYTES) } }).to_string()
}

fn little_for_answers(config: &mut Config) {
    config.http.max_answer_memory.0 = 24 << 10;
    config.http.address_share.0 = 100;
}

async fn body_of(app: &App, body: &str, accept: &'static str) -> Body {
    let bearer = format!("Bearer {}", token(app, Role::Admin));
    let request = with(with(post_of(body.to_owned()), "accept", accept), "authorization", &bearer);
    router(app.clone()).oneshot(request).await.expect("never fails").into_body()
}

/// Waits until so much is held of what was received, and of what is sent.
async fn until_held(admission: &Admission, is_so: impl Fn([usize; 2]) -> bool) {
    let waiting = async {
        while !is_so(admission.held()) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = timeout(Duration::from_secs(20), waiting).await;
    assert!(waited.is_ok(), "held: {:?}", admission.held());
}

#[tokio::test]
async fn an_answer_on_a_stream_counts_until_it_is_taken() {
    let app = app().await;
    for accept in [SSE, MULTIPART] {
        let mut body = body_of(&app, LONG, accept).await;
        let mut part = Bytes::new();
        while part.len() < 1_000 {
            let frame = body.frame().await.expect("there is more").expect("readable");
            part = frame.into_data().expect("data");
        }
        let [_, held] = app.admission.held();
        assert!(held > 24 << 10 && held.abs_diff(part.len()) < 100, "{accept}: {held}, {}", part.len());
        let last = part.split_off(part.len() - 1);
        drop((part, body));
        assert_eq!(app.admission.held()[1], held, "{accept}: a slice is left");
        drop(last);
        assert_eq!(app.admission.held(), [0, 0], "{accept}");
    }
}

#[tokio::test]
async fn an_answer_without_memory_is_an_error_on_a_stream() {
    let app = app_with(little_for_answers).await;
    for (accept, end) in [(SSE, "event: complete\ndata: \n\n"), (MULTIPART, "--graphql--\r\n")] {
        let body = body_of(&app, LONG, accept).await.collect().await.expect("a body").to_bytes();
        let text = String::from_utf8_lossy(&body);
        assert!(text.len() < 1_000 && text.contains("OVERLOADED") && text.ends_with(end), "{text:.1000}");
    }
}

#[tokio::test]
async fn received_bodies_count_while_the_operation_runs() {
    let app = app().await;
    for accept in [SSE, MULTIPART] {
        let mut body = body_of(&app, &subscription(), accept).await;
        let mut reading = Box::pin(async { while body.frame().await.is_some() {} });
        let _ = timeout(Duration::from_millis(200), &mut reading).await;
        let [held, _] = app.admission.held();
        assert!(held > VARIABLE_BYTES, "{accept}: {held}");
        drop(reading);
        drop(body);
        assert_eq!(app.admission.held(), [0, 0], "{accept}");
    }
}

/// A masked frame of a text (RFC 6455, section 5.2).
fn frame(text: &str) -> Vec<u8> {
    let length = text.len() as u64;
    let masked = text.bytes().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [&[0x81, 0xff][..], &length.to_be_bytes(), &MASK].concat().into_iter().chain(masked).collect()
}

/// The next message of the server, which also asks whether the client is there.
pub(super) async fn message(stream: &mut TcpStream) -> String {
    let reading = async {
        loop {
            let mut head = [0; 2];
            stream.read_exact(&mut head).await.expect("a frame");
            let length = match head[1] {
                126 => usize::from(stream.read_u16().await.expect("a length")),
                127 => stream.read_u64().await.expect("a length") as usize,
                length => usize::from(length),
            };
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload).await.expect("a payload");
            if head[0] == 0x81 {
                return String::from_utf8_lossy(&payload).into_owned();
            }
        }
    };
    timeout(Duration::from_secs(20), reading).await.expect("it comes")
}

/// A WebSocket of an administrator, whose client says what it is.
pub(super) async fn socket(app: &App, address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let handshake = format!(
        "GET /graphql HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-protocol: graphql-transport-ws\r\ngraphql-client-name: socket\r\n\r\n"
    );
    stream.write_all(handshake.as_bytes()).await.expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    let bearer = format!("Bearer {}", token(app, Role::Admin));
    let init = json!({ "type": "connection_init", "payload": { "authorization": bearer } });
    stream.write_all(&frame(&init.to_string())).await.expect("sent");
    assert_eq!(message(&mut stream).await, r#"{"type":"connection_ack"}"#);
    stream
}

pub(super) async fn subscribe(stream: &mut TcpStream, id: &str, body: &str) {
    let text = format!(r#"{{"id":"{id}","type":"subscribe","payload":{body}}}"#);
    stream.write_all(&frame(&text)).await.expect("sent");
}

#[tokio::test]
async fn socket_messages_count_until_their_operation_ends() {
    let app = app().await;
    let (address, _stop, _server) = serving(router(app.clone()), |_| {}).await;
    let mut stream = socket(&app, &address).await;
    for (id, least) in [("a", VARIABLE_BYTES), ("b", 2 * VARIABLE_BYTES)] {
        subscribe(&mut stream, id, &subscription()).await;
        // Answered after the message before it is no longer held.
        stream.write_all(&frame(r#"{"type":"ping"}"#)).await.expect("sent");
        assert_eq!(message(&mut stream).await, r#"{"type":"pong"}"#);
        until_held(&app.admission, |[received, _]| received > least && received < least + VARIABLE_BYTES)
            .await;
    }
    stream.write_all(&frame(r#"{"id":"a","type":"complete"}"#)).await.expect("sent");
    until_held(&app.admission, |[received, _]| received > VARIABLE_BYTES && received < 2 * VARIABLE_BYTES)
        .await;
    drop(stream);
    until_held(&app.admission, |held| held == [0, 0]).await;
}

#[tokio::test]
async fn an_answer_without_memory_is_an_error_on_a_socket() {
    let app = app_with(little_for_answers).await;
    let (address, _stop, _server) = serving(router(app.clone()), |_| {}).await;
    let mut stream = socket(&app, &address).await;
    subscribe(&mut stream, "a", LONG).await;
    let told = message(&mut stream).await;
    assert!(
        told.starts_with(r#"{"id":"a","type":"error","payload":["#) && told.contains("OVERLOADED"),
        "{told:.500}"
    );
    subscribe(&mut stream, "a", r#"{"query": "{ __typename }"}"#).await;
    let told = message(&mut stream).await;
    assert!(told.starts_with(r#"{"id":"a","type":"next""#), "nothing follows the error: {told}");
}

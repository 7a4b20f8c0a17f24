//! Which connections are let in, which hosts they may name, what a request that waits on one is held in, and
//! how they end when the server drains and stops.

use std::sync::Mutex;

use tokio::sync::watch;

use super::*;

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

/// The size of what a function with these arguments returns, without calling it.
fn size_of_returned<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
    size_of::<F>()
}

/// What waits for a body is held for each of very many requests at once, and counts as so much.
#[test]
fn a_waiting_request_is_no_larger_than_counted() {
    let layers = [
        size_of_returned(edge),
        size_of_returned(crate::http::cors::share),
        size_of_returned(compression::respond),
        size_of_returned(subscriptions::intercept),
        size_of_returned(|state, request, ()| graphql::post(state, request)),
    ];
    assert!(layers.iter().sum::<usize>() <= admission::REQUEST_BYTES, "{layers:?}");
}

#[tokio::test]
async fn a_request_without_a_host_or_with_two_is_refused() {
    let (address, _stop, _server) = serving(hello(), |_| {}).await;
    for hosts in ["", "host: a\r\nhost: b\r\n", "host: a\r\nhost: a\r\n", "host: a/b\r\n"] {
        // The refusal ends the connection: the second request is not answered.
        let answer =
            exchange(&address, &format!("GET / HTTP/1.1\r\n{hosts}\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n"))
                .await;
        assert!(
            answer.starts_with("HTTP/1.1 400 ") && answer.contains("BAD_USER_INPUT"),
            "{hosts}: {answer}"
        );
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{hosts}: {answer}");
        assert!(answer.contains("x-request-id: ") && answer.contains("connection: close"), "{answer}");
    }
    assert!(exchange(&address, "GET / HTTP/1.0\r\n\r\n").await.ends_with("hello"));
}

/// Answers to requests that came at once take turns with those of other connections.
#[tokio::test]
async fn pipelined_requests_wait_for_other_connections() {
    const EACH: usize = 10;
    let order = Arc::new(Mutex::new(String::new()));
    let asked = |name: char| {
        let order = Arc::clone(&order);
        get(move || async move { order.lock().expect("not poisoned").push(name) })
    };
    let routes = Router::new().route("/a", asked('a')).route("/b", asked('b'));
    let (address, _stop, _server) = serving(routes, |_| {}).await;
    // Nothing here gives the server the thread before all are sent.
    let _held = ["a", "b"].map(|name| {
        let mut stream = std::net::TcpStream::connect(&address).expect("connected");
        let request = format!("GET /{name} HTTP/1.1\r\nhost: x\r\n\r\n");
        std::io::Write::write_all(&mut stream, request.repeat(EACH).as_bytes()).expect("sent");
        stream
    });
    while order.lock().expect("not poisoned").len() < 2 * EACH {
        sleep(Duration::from_millis(1)).await;
    }
    let order = order.lock().expect("not poisoned");
    let longest = order.split('b').map(str::len).max();
    assert!(longest <= Some(3), "{order}");
}

#[tokio::test]
async fn the_listener_of_the_metrics_keeps_to_the_same_bounds() {
    let app = app().await;
    let (address, _stop, _server) = serving(metrics::router(app), |config| {
        config.http.header_timeout = Duration::from_millis(100);
    })
    .await;
    let ask = |path: &str, heads: &str| format!("GET {path} HTTP/1.1\r\nconnection: close\r\n{heads}\r\n");
    let answer = exchange(&address, &ask("/metrics", "host: x\r\nx-request-id: mine-1\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("x-request-id: mine-1"), "{answer}");
    assert!(exchange(&address, &ask("/metrics", "")).await.starts_with("HTTP/1.1 400 "), "no host");
    let large = format!("host: x\r\nx-large: {}\r\n", "x".repeat(20 << 10));
    assert!(exchange(&address, &ask("/metrics", &large)).await.starts_with("HTTP/1.1 431 "));
    let elsewhere = exchange(&address, &ask("/graphql", "host: x\r\n")).await;
    assert!(elsewhere.starts_with("HTTP/1.1 404 ") && elsewhere.contains("BAD_USER_INPUT"), "{elsewhere}");
    assert_eq!(exchange(&address, "GET /metrics HTTP/1.1\r\nhost").await, "", "a head that never ends");
}

#[tokio::test]
async fn an_address_has_its_share_of_connections() {
    let (address, _stop, _server) =
        serving(hello(), |config| config.http.max_connections_per_address = 2).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(&address).await.expect("connected");
        ask_on(&mut stream, "hello").await;
        held.push(stream);
    }
    let mut third = TcpStream::connect(&address).await.expect("connected");
    expect_closed(&mut third).await;
    drop(held);
    let asking = async {
        loop {
            if exchange(&address, "GET / HTTP/1.0\r\nhost: x\r\n\r\n").await.ends_with("hello") {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), asking).await.expect("there is a slot again");
}

/// A server that can be told to drain: its address, and what makes it drain and stop.
async fn draining() -> (String, watch::Sender<bool>, oneshot::Sender<()>, Stopped) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let ((drain, drains), (stop, stopped)) = (watch::channel(false), oneshot::channel::<()>());
    let http = Config::default().http;
    let server = tokio::spawn(server::run(hello(), http, listener, drains, async {
        let _ = stopped.await;
    }));
    (address, drain, stop, server)
}

#[tokio::test]
async fn while_draining_answers_end_their_connection() {
    let (address, drain, _stop, _server) = draining().await;
    let (mut kept, mut idle) = (
        TcpStream::connect(&address).await.expect("connected"),
        TcpStream::connect(&address).await.expect("connected"),
    );
    for stream in [&mut kept, &mut idle] {
        ask_on(stream, "hello").await;
    }
    drain.send_replace(true);
    let asked = exchange(&address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(asked.contains("connection: close") && asked.ends_with("hello"), "a new one is served: {asked}");
    ask_on(&mut kept, "hello").await;
    expect_closed(&mut kept).await;
    ask_on(&mut idle, "hello").await;
}

#[tokio::test]
async fn over_http_2_clients_are_told_to_go_elsewhere() {
    const GOAWAY: u8 = 7;
    let (address, drain, _stop, _server) = draining().await;
    let mut stream = readers::connect(&address, 65_535).await;
    stream.write_all(&readers::get_frame(1, "/")).await.expect("sent");
    readers::until(&mut stream, 0, 1).await;
    drain.send_replace(true);
    readers::until(&mut stream, GOAWAY, 0).await;
    // What was on its way is answered.
    stream.write_all(&readers::get_frame(3, "/")).await.expect("sent");
    let (payload, _) = readers::until(&mut stream, 0, 3).await;
    assert_eq!(payload, b"hello");
}

#[tokio::test]
async fn who_has_connected_before_the_end_is_served() {
    let (address, drain, stop, server) = draining().await;
    drain.send_replace(true);
    let mut idle = TcpStream::connect(&address).await.expect("connected");
    sleep(Duration::from_millis(50)).await;
    stop.send(()).expect("it runs");
    // Nothing yields until the server is told: these connections wait in the system's queue.
    let waiting: Vec<_> =
        (0..5).map(|_| std::net::TcpStream::connect(&address).expect("connected")).collect();
    let asking = waiting.into_iter().map(|stream| async {
        stream.set_nonblocking(true).expect("set");
        let mut stream = TcpStream::from_std(stream).expect("a stream");
        stream.write_all(HELLO).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    });
    for answer in futures_util::future::join_all(asking).await {
        assert!(answer.contains("connection: close") && answer.ends_with("hello"), "{answer}");
    }
    expect_closed(&mut idle).await;
    let cut_off = timeout(Duration::from_secs(20), server).await.expect("it stops").expect("no panic");
    assert_eq!(cut_off, 0);
}

//! How long a connection lives: slow ones, idle ones, ones at work, ones that their client leaves, and those that are
//! open when the server stops. Not here: which are let in (`connections`).

use super::*;

#[tokio::test]
async fn slow_and_silent_clients_are_cut_off() {
    let short = |config: &mut Config| {
        config.http.header_timeout = Duration::from_millis(100);
        config.http.idle_timeout = Duration::from_millis(100);
    };
    let routes = Router::new().route("/", get(|| async { "hello" }));
    let (address, _stop, _server) = serving(routes, short).await;
    let started = Instant::now();
    let answers = tokio::join!(
        exchange(&address, ""),
        exchange(&address, "P"),
        exchange(&address, "GET / HTTP/1.1\r\nhost: x\r\n"),
        exchange(&address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n"),
    );
    assert!(answers.3.ends_with("hello"), "answered, then closed when idle: {}", answers.3);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_idle_connection_outlives_the_header_timeout() {
    let routes = || Router::new().route("/", get(|| async { "hello" }));
    let limits = |head: Duration, idle: Duration| {
        move |config: &mut Config| {
            config.http.header_timeout = head;
            config.http.idle_timeout = idle;
        }
    };
    let (short, long) = (Duration::from_millis(100), Duration::from_mins(10));
    let (address, _stop, _server) = serving(routes(), limits(short, long)).await;
    let mut stream = TcpStream::connect(&address).await.expect("connected");
    for _ in 0..2 {
        ask_on(&mut stream, "hello").await;
        sleep(short * 4).await;
    }
    // The next head begins, and must come to its end.
    stream.write_all(b"GET / HT").await.expect("sent");
    expect_closed(&mut stream).await;

    let (address, _stop, _server) = serving(routes(), limits(long, short)).await;
    let mut stream = TcpStream::connect(&address).await.expect("connected");
    sleep(short * 4).await;
    ask_on(&mut stream, "hello").await;
    expect_closed(&mut stream).await;
}

#[tokio::test]
async fn a_connection_that_has_rested_is_served() {
    let routes = Router::new().route("/", get(|| async { "hello" }));
    let (address, _stop, _server) = serving(routes, |_| {}).await;
    let mut stream = TcpStream::connect(&address).await.expect("connected");
    for _ in 0..3 {
        ask_on(&mut stream, "hello").await;
        sleep(Duration::from_millis(1_300)).await;
    }
}

/// The rest of a request without its beginning is another request to whoever reads it.
#[tokio::test]
async fn a_connection_with_a_part_of_a_request_does_not_rest() {
    let routes =
        Router::new().route("/", get(|| async { "hello" })).route("/other", get(|| async { "other" }));
    let (address, _stop, _server) = serving(routes, |_| {}).await;
    let mut stream = TcpStream::connect(&address).await.expect("connected");
    let pipelined = b"GET / HTTP/1.1\r\nhost: here\r\n\r\nGET / HTTP/1.1\r\nhost: here\r\nx-part: ";
    stream.write_all(pipelined).await.expect("sent");
    sleep(Duration::from_millis(1_500)).await;
    // It may be closed by now.
    let _ = stream.write_all(b"GET /other HTTP/1.1\r\nhost: here\r\n\r\n").await;
    let mut heard = Vec::new();
    let _ = timeout(Duration::from_secs(2), stream.read_to_end(&mut heard)).await;
    let heard = String::from_utf8_lossy(&heard);
    assert!(heard.contains("hello") && !heard.contains("other") && !heard.contains(" 400 "), "{heard}");
}

#[tokio::test]
async fn a_connection_at_work_is_not_idle() {
    let slow = || async {
        sleep(Duration::from_millis(500)).await;
        let parts = futures_util::stream::unfold(0, |part| async move {
            sleep(Duration::from_millis(300)).await;
            (part < 3).then(|| (Ok::<_, std::io::Error>("part"), part + 1))
        });
        Body::from_stream(parts.chain(futures_util::stream::iter([Ok("end")])))
    };
    let short = |config: &mut Config| {
        config.http.header_timeout = Duration::from_millis(100);
        config.http.idle_timeout = Duration::from_millis(100);
    };
    let (address, _stop, _server) = serving(Router::new().route("/", get(slow)), short).await;
    let mut stream = TcpStream::connect(&address).await.expect("connected");
    ask_on(&mut stream, "0\r\n\r\n").await;
}

#[tokio::test]
async fn many_headers_are_refused() {
    let routes = Router::new().route("/", get(|| async { "hello" }));
    let (address, _stop, _server) = serving(routes, |_| {}).await;
    let headers = |count: usize| (0..count).fold(String::new(), |text, n| format!("{text}h{n}: v\r\n"));
    let request = |count| format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{}\r\n", headers(count));
    assert!(exchange(&address, &request(62)).await.starts_with("HTTP/1.1 200"));
    assert!(exchange(&address, &request(63)).await.starts_with("HTTP/1.1 431"));
}

/// Sets its flag when it is dropped.
struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_client_that_goes_away_stops_its_request() {
    let dropped = Arc::new(AtomicBool::new(false));
    let (begun, begins) = tokio::sync::mpsc::channel(1);
    let flag = Arc::clone(&dropped);
    let app = app().await;
    let hangs = move || {
        let (flag, begun) = (Flag(Arc::clone(&flag)), begun.clone());
        async move {
            let _ = begun.send(()).await;
            sleep(Duration::from_mins(1)).await;
            drop(flag);
        }
    };
    let routes = Router::new().route("/livez", get(hangs)).layer(from_fn_with_state(app.clone(), edge));
    let (address, _stop, _server) = serving(routes, |_| {}).await;
    let mut stream = TcpStream::connect(&address).await.expect("connected");
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    let mut begins = begins;
    begins.recv().await.expect("the request arrived");
    drop(stream);
    timeout(Duration::from_secs(2), async {
        while !dropped.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the handler was dropped");
    let Value::String(text) = send(&app, get_of("/metrics")).await.2 else { panic!("metrics are text") };
    assert!(text.contains(r#"http_response_status_code="499"} 1"#), "{text}");
}

#[tokio::test]
async fn requests_under_way_finish_at_shutdown() {
    let slow = || async {
        sleep(Duration::from_millis(300)).await;
        "done"
    };
    let (address, stop, server) = serving(Router::new().route("/", get(slow)), |_| {}).await;
    let request = tokio::spawn({
        let address = address.clone();
        async move { exchange(&address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await }
    });
    // Idle: closed at once. Silent: no request, so nothing to wait for.
    let _silent = TcpStream::connect(&address).await.expect("connected");
    sleep(Duration::from_millis(100)).await;
    stop.send(()).expect("the server runs");
    let cut_off = timeout(Duration::from_secs(3), server).await.expect("it stops").expect("no panic");
    assert_eq!(cut_off, 0);
    assert!(request.await.expect("no panic").ends_with("done"));
    assert!(TcpStream::connect(&address).await.is_err(), "the listener is closed");
}

#[tokio::test]
async fn the_grace_is_bounded() {
    let never = || async { std::future::pending::<()>().await };
    let short = |config: &mut Config| config.http.shutdown_grace = Duration::from_millis(100);
    let (address, stop, server) = serving(Router::new().route("/", get(never)), short).await;
    let mut stream = TcpStream::connect(&address).await.expect("connected");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    sleep(Duration::from_millis(50)).await;
    stop.send(()).expect("the server runs");
    let cut_off = timeout(Duration::from_secs(2), server).await.expect("it stops").expect("no panic");
    assert_eq!(cut_off, 1);
}

#[tokio::test]
async fn connections_beyond_the_cap_wait() {
    let routes = Router::new().route("/", get(|| async { "hello" }));
    let (address, _stop, _server) = serving(routes, |config| config.http.max_connections = 1).await;
    let first = TcpStream::connect(&address).await.expect("connected");
    sleep(Duration::from_millis(50)).await;
    let request = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert!(timeout(Duration::from_millis(200), exchange(&address, request)).await.is_err(), "it waits");
    drop(first);
    let answer =
        timeout(Duration::from_secs(2), exchange(&address, request)).await.expect("now it is its turn");
    assert!(answer.ends_with("hello"), "{answer}");
}

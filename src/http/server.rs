//! The accept loop. Our own, since `axum::serve` never times slow headers out: bounds on headers, idle time and the
//! number of connections, HTTP/1.1 and HTTP/2 without TLS, and a shutdown that lets requests finish. Not here: what is
//! served.

use std::{
    io,
    net::IpAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::Request};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto::Builder,
        graceful::{GracefulShutdown, Watcher},
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tower::Service as _;

use super::{metrics, stall::Stalling};
use crate::{App, config::HttpConfig};

/// The other end of the connection that a request came over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// The room that a connection takes; a WebSocket keeps it when HTTP is done with the connection.
#[derive(Clone, Debug)]
pub(crate) struct Slot(#[expect(dead_code, reason = "held, not read")] Arc<OwnedSemaphorePermit>);

const MOST_HEADERS: usize = 64;
const HEADER_BYTES: u32 = 16 << 10;
/// Streams of one HTTP/2 connection at a time.
const MOST_STREAMS: u32 = 100;
/// How often a silent HTTP/2 connection is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long to wait after an accept that failed, which mostly means too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long readiness waits for the cache to be warm.
const WARMING: Duration = Duration::from_secs(5);

/// Serves until `shutdown` is done, then drains: `/readyz` says 503, after `drain_delay` the listener closes, and
/// requests under way get `shutdown_grace` to finish. Returns how many connections were cut off after that.
pub async fn serve(app: App, listener: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<usize> {
    let http = app.http.clone();
    let own = match http.metrics_address {
        Some(address) => Some(TcpListener::bind(address).await?),
        None => None,
    };
    let (stop_metrics, metrics_stopped) = tokio::sync::oneshot::channel::<()>();
    let metrics = own.map(|listener| {
        let (routes, http) = (metrics::router(app.clone()), http.clone());
        tokio::spawn(run(routes, http, listener, async {
            let _ = metrics_stopped.await;
        }))
    });
    app.documents.reload(&app.graph).await;
    let watching = {
        let app = app.clone();
        tokio::spawn(async move { app.documents.watch(&app.graph).await })
    };
    let warming = app.store.cache().is_on().then(|| {
        app.ready.begin_to_warm();
        let app = app.clone();
        tokio::spawn(async move { app.ready.warm(&app.store, WARMING).await })
    });
    let drained = run(super::router(app.clone()), http.clone(), listener, async {
        shutdown.await;
        app.ready.drain();
        tokio::time::sleep(http.drain_delay).await;
        app.closing.begin();
    })
    .await;
    watching.abort();
    if let Some(warming) = warming {
        warming.abort();
    }
    app.documents.write_usage();
    drop(stop_metrics);
    if let Some(metrics) = metrics {
        metrics.abort();
    }
    Ok(drained)
}

/// Serves these routes until `shutdown` is done; see `serve`.
pub(crate) async fn run(
    routes: Router,
    http: HttpConfig,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> usize {
    let connections = GracefulShutdown::new();
    let most = http.max_connections.min(u32::MAX as usize);
    let places = Arc::new(Semaphore::new(most));
    let builder = Arc::new(builder(&http));
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Ok((stream, peer, place)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (routes, builder) = (routes.clone(), Arc::clone(&builder));
        tokio::spawn(connection(
            (stream, peer),
            place,
            routes,
            builder,
            connections.watcher(),
            http.header_timeout,
        ));
    }
    drop(listener);
    // What is still open after the grace is cut off when the runtime ends.
    let all_ended = async {
        connections.shutdown().await;
        // What has become a WebSocket is no connection of HTTP any more, but it has kept its slot.
        let _ = places.acquire_many(u32::try_from(most).unwrap_or(u32::MAX)).await;
    };
    match tokio::time::timeout(http.shutdown_grace, all_ended).await {
        Ok(()) => 0,
        Err(_) => most - places.available_permits(),
    }
}

/// The next connection, once there is room for it; until then it waits in the system's queue.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, Peer, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, Peer(peer.ip()), place))
}

fn builder(http: &HttpConfig) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // Also bounds the wait for the next request of a connection.
        .header_read_timeout(http.header_timeout)
        .max_headers(MOST_HEADERS)
        .max_buf_size(HEADER_BYTES as usize)
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_BYTES)
        .max_concurrent_streams(MOST_STREAMS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL);
    builder
}

async fn connection(
    (stream, peer): (TcpStream, Peer),
    place: OwnedSemaphorePermit,
    routes: Router,
    builder: Arc<Builder<TokioExecutor>>,
    watcher: Watcher,
    first_request_within: Duration,
) {
    let asked = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&asked);
    let slot = Slot(Arc::new(place));
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(slot.clone());
        seen.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(peer);
        routes.clone().call(request)
    });
    // Errors of a connection are its client's: broken off, too slow, not HTTP. There is nobody to tell.
    let stream = TokioIo::new(Stalling::new(stream));
    let mut serving = pin!(watcher.watch(builder.serve_connection_with_upgrades(stream, service)));
    // hyper's time-out begins when the protocol is known, which a client that sends nothing never lets happen.
    tokio::select! {
        biased;
        _ = &mut serving => return,
        () = tokio::time::sleep(first_request_within) => {}
    }
    if asked.load(Ordering::Relaxed) {
        let _ = serving.await;
    }
}

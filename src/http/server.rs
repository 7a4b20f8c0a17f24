//! Connections. Our own loop, since `axum::serve` never times slow headers out: bounds on headers and idle
//! time, HTTP/1.1 and HTTP/2 without TLS, and a shutdown that lets requests finish. Not here: what is served,
//! who is let in (`slots`).

use std::{
    convert::Infallible,
    error::Error,
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, Version, header},
    response::Response,
};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tower::Service as _;

use super::{
    REQUEST_ID,
    connection_timeouts::{Activity, ConnectionTimeouts, TimeoutStream},
    host,
    memory::AnswerMemory,
    metrics,
    outgoing::StreamExecutor,
    peer::Peer,
    sending::Answered,
    shedding,
    slots::{Slot, Slots},
};
use crate::{
    App, config::HttpConfig, gateway::OwnListener, invalidation, rejection::Rejection,
    telemetry::otlp_metrics::MetricsPush,
};

/// What a client of HTTP/2 may send before it is read: of one body, and of all on its connection. Held
/// outside of the bound on memory, so it is little.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;
/// How often a silent HTTP/2 connection is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long a new connection has for its first request when the server ends: it was opened for one.
const FIRST_REQUEST_WITHIN: Duration = Duration::from_secs(1);
/// How long readiness waits for the cache to be warm.
const WARMING: Duration = Duration::from_secs(5);

/// Serves until `shutdown` is done, then drains: `/readyz` says 503, and clients are told to open other
/// connections (`Connection: close`, GOAWAY); after `drain_delay` the listener closes, and requests under way
/// get `shutdown_grace` to finish. Returns how many connections, and subscriptions that are called back, were
/// cut off after that.
pub async fn serve(app: App, listener: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<usize> {
    let http = app.http.clone();
    let own = metrics::listener(&app).await?;
    let for_gateways = bind("gateway.address", app.gateway.address).await?;
    let (stop_metrics, metrics_stopped) = tokio::sync::oneshot::channel::<()>();
    let metrics = own.map(|listener| {
        let (routes, http) = (metrics::router(app.clone()), http.clone());
        tokio::spawn(run(routes, http, listener, never_draining(), async {
            let _ = metrics_stopped.await;
        }))
    });
    let gateways = for_gateways.map(|listener| {
        let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
        tracing::info!(address, "serving gateways");
        let routes = super::router(app.clone()).layer(axum::Extension(OwnListener));
        // A few gateways ask for everybody.
        let http = HttpConfig { max_connections_per_address: usize::MAX, ..http.clone() };
        tokio::spawn(run(routes, http, listener, app.ready.draining(), app.closing.begun()))
    });
    app.documents.reload(&app.graph).await;
    let watching = {
        let app = app.clone();
        tokio::spawn(async move { app.documents.watch(&app.graph).await })
    };
    let counting = tokio::spawn(Arc::clone(&app.field_usage).keep_written());
    let reporting = app.hive.clone().map(|hive| tokio::spawn(async move { hive.run().await }));
    let invalidating = {
        // From here on no change is missed.
        let changes = app.store.events().subscribe_own();
        tokio::spawn(invalidation::run(app.clone(), changes))
    };
    let metrics_push = MetricsPush::of(&app).map(Arc::new);
    let pushing = metrics_push.clone().map(|push| tokio::spawn(async move { push.run().await }));
    let following = {
        let app = app.clone();
        tokio::spawn(async move {
            app.admission.follow_load(app.store.database().connection_waits()).await;
        })
    };
    let warming = app.store.cache().is_on().then(|| {
        app.ready.begin_to_warm();
        let app = app.clone();
        tokio::spawn(async move { app.ready.warm(&app.store, WARMING).await })
    });
    let (routes, draining) = (super::router(app.clone()), app.ready.draining());
    let running = run_for(routes, http.clone(), Some(app.clone()), listener, draining, async {
        shutdown.await;
        app.ready.drain();
        tokio::time::sleep(http.drain_delay).await;
        app.closing.begin();
    });
    // Who is called back has no connection here that is waited for, and is told of the end within the same grace.
    let calling_back = async {
        app.closing.begun().await;
        app.callbacks.ended(http.shutdown_grace).await
    };
    let (mut drained, not_told) = tokio::join!(running, calling_back);
    drained += not_told;
    if let Some(gateways) = gateways {
        drained += gateways.await.unwrap_or_default();
    }
    watching.abort();
    counting.abort();
    following.abort();
    if let Some(warming) = warming {
        warming.abort();
    }
    invalidating.abort();
    app.documents.write_usage();
    app.field_usage.write();
    if let (Some(hive), Some(reporting)) = (&app.hive, reporting) {
        hive.finish(reporting).await;
    }
    if let (Some(pushing), Some(push)) = (pushing, metrics_push) {
        pushing.abort();
        push.finish().await;
    }
    drop(stop_metrics);
    if let Some(metrics) = metrics {
        metrics.abort();
    }
    Ok(drained)
}

/// For what does not tell its clients to go elsewhere.
pub(crate) fn never_draining() -> watch::Receiver<bool> {
    watch::channel(false).1
}

/// Listens on the address of this key, where it has one.
async fn bind(key: &str, address: Option<SocketAddr>) -> io::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let bound = TcpListener::bind(address).await;
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{key} cannot be listened on: {error}"));
    bound.map(Some).map_err(named)
}

/// Serves these routes until `shutdown` is done; see `serve`.
pub(crate) async fn run(
    routes: Router,
    http: HttpConfig,
    listener: TcpListener,
    draining: watch::Receiver<bool>,
    shutdown: impl Future<Output = ()>,
) -> usize {
    run_for(routes, http, None, listener, draining, shutdown).await
}

/// For this app its connections are counted, and requests are refused early while there is too much to do.
async fn run_for(
    routes: Router,
    http: HttpConfig,
    app: Option<App>,
    listener: TcpListener,
    draining: watch::Receiver<bool>,
    shutdown: impl Future<Output = ()>,
) -> usize {
    let mut slots = Slots::new(&http, app.as_ref().map(|app| Arc::clone(&app.metrics)));
    let (close, closing) = watch::channel(false);
    let (builder, limits) = (builder(&http), limits(&http));
    let serving = Arc::new(Serving { routes, builder, limits, app, draining, closing });
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, peer, slot) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = slots.accept(&listener) => accepted,
        };
        tokio::spawn(Arc::clone(&serving).connection(stream, Peer(peer), slot));
    }
    // Who has connected already is served: a listener that is closed resets what still waits in its queue.
    for (stream, peer) in waiting(listener) {
        if let Some(slot) = slots.admit(peer) {
            tokio::spawn(Arc::clone(&serving).connection(stream, Peer(peer), slot));
        }
    }
    close.send_replace(true);
    // What is still open after the grace is cut off when the runtime ends. What has become a WebSocket is no
    // connection of HTTP any more, but it has kept its slot.
    match tokio::time::timeout(http.shutdown_grace, slots.all_ended()).await {
        Ok(()) => 0,
        Err(_) => slots.open(),
    }
}

/// The connections that wait to be accepted; the listener is closed right after the last one.
fn waiting(listener: TcpListener) -> Vec<(TcpStream, IpAddr)> {
    let mut waiting = Vec::new();
    // Asked of the system itself: tokio may not have heard of them yet.
    let Ok(listener) = listener.into_std() else { return waiting };
    while let Ok((stream, peer)) = listener.accept() {
        let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        waiting.extend(stream.map(|stream| (stream, peer.ip())));
    }
    waiting
}

fn limits(http: &HttpConfig) -> ConnectionTimeouts {
    ConnectionTimeouts {
        head: http.header_timeout,
        idle: http.idle_timeout,
        write: http.write_timeout,
        per_second: http.min_answer_rate.0,
    }
}

fn builder(http: &HttpConfig) -> Builder<StreamExecutor> {
    let mut builder = Builder::new(StreamExecutor);
    builder
        .http1()
        .max_headers(http.max_headers)
        .max_buf_size(http.max_header_bytes.0)
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(http.max_header_bytes.0).unwrap_or(u32::MAX))
        .max_concurrent_streams(http.max_streams)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL);
    builder
}

/// What all connections of a listener share.
struct Serving {
    routes: Router,
    builder: Builder<StreamExecutor>,
    limits: ConnectionTimeouts,
    app: Option<App>,
    /// The server will end: connections should go elsewhere.
    draining: watch::Receiver<bool>,
    /// The server ends: connections end after the requests that they have begun.
    closing: watch::Receiver<bool>,
}

impl Serving {
    async fn connection(self: Arc<Self>, mut stream: TcpStream, peer: Peer, slot: Slot) {
        let _ = stream.set_nodelay(true);
        let activity = Activity::new(slot);
        loop {
            // Boxed: a connection that rests has nothing of this.
            Box::pin(self.serve(stream, peer, &activity)).await;
            let mut closing = self.closing.clone();
            let next = tokio::select! {
                biased;
                next = activity.rest(self.limits) => next,
                _ = closing.wait_for(|closing| *closing) => None,
            };
            match next {
                Some(more) => stream = more,
                None => break,
            }
        }
        if let (Some(why), Some(app)) = (activity.cut(), &self.app) {
            app.metrics.connection_cut(why);
        }
    }

    /// Serves a connection until it is over, or rests.
    async fn serve(&self, stream: TcpStream, peer: Peer, activity: &Arc<Activity>) {
        let is_http2 = Arc::new(AtomicBool::new(false));
        let (requests, routes, speaks_http2) =
            (Arc::clone(activity), self.routes.clone(), Arc::clone(&is_http2));
        let (draining, app) = (self.draining.clone(), self.app.clone());
        let has_served = Arc::new(AtomicBool::new(false));
        let served = Arc::clone(&has_served);
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            let (in_flight, version) = (requests.begin(), request.version());
            speaks_http2.store(version == Version::HTTP_2, Ordering::Relaxed);
            let is_pipelined = version != Version::HTTP_2 && served.swap(true, Ordering::Relaxed);
            let settled = host::settle(&mut request);
            // What becomes a WebSocket keeps its headers for as long as that lasts, and with them all that
            // was read with them.
            if request.headers().contains_key(header::UPGRADE) {
                let headers = std::mem::take(request.headers_mut());
                *request.headers_mut() = apart(&headers);
            }
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert(in_flight.clone());
            let (mut routes, draining, served) = (routes.clone(), draining.clone(), Arc::clone(&served));
            let app = app.clone();
            async move {
                // hyper answers up to 16 of them before it lets another connection have the thread.
                if is_pipelined {
                    tokio::task::yield_now().await;
                    served.store(true, Ordering::Relaxed);
                }
                let mut response: Response = match settled {
                    Ok(()) => match shed(app.as_ref(), request).await {
                        Ok(request) => routes.call(request).await?,
                        Err(refused) => refused,
                    },
                    Err(rejection) => refused(rejection),
                };
                let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
                if version != Version::HTTP_2 && !is_upgrade && *draining.borrow() {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                let memory = response.extensions_mut().remove::<AnswerMemory>();
                let is_http2 = version == Version::HTTP_2;
                Ok::<_, Infallible>(response.map(|body| Answered::new(body, memory, is_http2, in_flight)))
            }
        });
        let stream = TokioIo::new(TimeoutStream::new(stream, self.limits, Arc::clone(activity)));
        let mut connection = pin!(self.builder.serve_connection_with_upgrades(stream, service));
        let count = |why| {
            if let Some(app) = &self.app {
                app.metrics.connection_cut(why);
            }
        };
        // Errors of a connection are its client's: broken off, too slow, not HTTP. There is nobody to tell.
        let mut watching = pin!(activity.watch(self.limits, count));
        let (mut leaving, mut closing) = (pin!(self.leaving(&is_http2)), pin!(self.closing(activity)));
        let (mut is_leaving, mut is_closing) = (false, false);
        let ended = loop {
            let polled = poll_fn(|context| {
                has_served.store(false, Ordering::Relaxed);
                connection.as_mut().poll(context)
            });
            tokio::select! {
                ended = polled => break Some(ended),
                () = &mut watching => break None,
                () = &mut leaving, if !is_leaving => is_leaving = true,
                () = &mut closing, if !is_closing => is_closing = true,
            }
            connection.as_mut().graceful_shutdown();
        };
        let refused = || refused_as(ended.as_ref()?.as_ref().err()?.as_ref());
        if !matches!(ended, Some(Ok(()))) {
            // A part of a request was read, without which what follows would be taken for another one.
            activity.close();
        }
        // Why it was cut off is counted at its end.
        if let (None, Some(why)) = (activity.cut(), refused()) {
            count(why);
        }
    }

    /// Done when the server begins to drain and the connection speaks HTTP/2: its client is told to open
    /// another one, and what it asks until it has heard of that is answered. Over HTTP/1.1 the next answer
    /// says so. A connection that is opened afterwards is for what its client has to ask now.
    async fn leaving(&self, is_http2: &AtomicBool) {
        let mut draining = self.draining.clone();
        let was_draining = *draining.borrow();
        if was_draining || draining.wait_for(|draining| *draining).await.is_err() {
            return std::future::pending().await;
        }
        if !is_http2.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    /// Done when the connection has to end: after the first request that it was opened for, if there is one soon.
    async fn closing(&self, activity: &Activity) {
        let mut closing = self.closing.clone();
        let _ = closing.wait_for(|closing| *closing).await;
        if !activity.has_begun() {
            tokio::time::sleep(FIRST_REQUEST_WITHIN).await;
        }
    }
}

/// A copy of headers in memory of its own: those of hyper are parts of what it has read.
fn apart(headers: &HeaderMap) -> HeaderMap {
    let copied = |value: &HeaderValue| {
        let copy = HeaderValue::from_bytes(value.as_bytes());
        copy.map_or_else(|_| value.clone(), |mut copy| (copy.set_sensitive(value.is_sensitive()), copy).1)
    };
    headers.iter().map(|(name, value)| (name.clone(), copied(value))).collect()
}

/// What goes to the routes, or a refusal.
async fn shed(app: Option<&App>, request: Request<Incoming>) -> Result<Request, Response> {
    let request = request.map(Body::new);
    match app {
        Some(app) => shedding::shed(app, request).await,
        None => Ok(request),
    }
}

/// A refusal of what cannot be given to the routes; what follows on its connection is not believed.
fn refused(rejection: Rejection) -> Response {
    let id = entities::id::new().to_string();
    let mut response = rejection.into_response(&id);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response.headers_mut().extend(HeaderValue::from_str(&id).map(|id| (REQUEST_ID, id)));
    response
}

/// Why HTTP was not spoken, if it was not.
fn refused_as(error: &(dyn Error + Send + Sync + 'static)) -> Option<&'static str> {
    let error = error.downcast_ref::<hyper::Error>()?;
    if error.is_parse_too_large() {
        return Some("too_large");
    }
    error.is_parse().then_some("not_http")
}

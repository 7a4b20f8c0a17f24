//! The accept loop. Our own, since `axum::serve` never times slow headers out: bounds on headers, idle time and the
//! number of connections, HTTP/1.1 and HTTP/2 without TLS, and a shutdown that lets requests finish. Not here: what is
//! served.

use std::{
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::Request,
    response::Response,
};
use hyper::body::{Frame, Incoming, SizeHint};
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

use super::{
    memory::AnswerMemory,
    metrics,
    patience::{Activity, Limits, Patient, UnderWay},
};
use crate::{App, config::HttpConfig, gateway::OwnListener, invalidation, telemetry::metrics::Metrics};

/// The other end of the connection that a request came over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// How often a silent HTTP/2 connection is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long to wait after an accept that failed, which mostly means too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long readiness waits for the cache to be warm.
const WARMING: Duration = Duration::from_secs(5);

/// Serves until `shutdown` is done, then drains: `/readyz` says 503, after `drain_delay` the listener closes, and
/// requests under way get `shutdown_grace` to finish. Returns how many connections, and subscriptions that are called
/// back, were cut off after that.
pub async fn serve(app: App, listener: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<usize> {
    let http = app.http.clone();
    let own = metrics::listener(&app).await?;
    let for_gateways = bind("gateway.address", app.gateway.address).await?;
    let (stop_metrics, metrics_stopped) = tokio::sync::oneshot::channel::<()>();
    let metrics = own.map(|listener| {
        let (routes, http) = (metrics::router(app.clone()), http.clone());
        tokio::spawn(run(routes, http, listener, async {
            let _ = metrics_stopped.await;
        }))
    });
    let gateways = for_gateways.map(|listener| {
        let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
        tracing::info!(address, "serving gateways");
        let routes = super::router(app.clone()).layer(axum::Extension(OwnListener));
        tokio::spawn(run(routes, http.clone(), listener, app.closing.begun()))
    });
    app.documents.reload(&app.graph).await;
    let watching = {
        let app = app.clone();
        tokio::spawn(async move { app.documents.watch(&app.graph).await })
    };
    let invalidating = {
        // From here on no change is missed.
        let changes = app.store.announcer().listen_to_own();
        tokio::spawn(invalidation::run(app.clone(), changes))
    };
    let warming = app.store.cache().is_on().then(|| {
        app.ready.begin_to_warm();
        let app = app.clone();
        tokio::spawn(async move { app.ready.warm(&app.store, WARMING).await })
    });
    let counted = Some(Arc::clone(&app.metrics));
    let running = run_counted(super::router(app.clone()), http.clone(), counted, listener, async {
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
    if let Some(warming) = warming {
        warming.abort();
    }
    invalidating.abort();
    app.documents.write_usage();
    drop(stop_metrics);
    if let Some(metrics) = metrics {
        metrics.abort();
    }
    Ok(drained)
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
    shutdown: impl Future<Output = ()>,
) -> usize {
    run_counted(routes, http, None, listener, shutdown).await
}

async fn run_counted(
    routes: Router,
    http: HttpConfig,
    metrics: Option<Arc<Metrics>>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> usize {
    let connections = GracefulShutdown::new();
    let most = http.max_connections.min(u32::MAX as usize);
    let places = Arc::new(Semaphore::new(most));
    let serving = Arc::new(Serving { routes, builder: builder(&http), limits: limits(&http), metrics });
    let mut shutdown = std::pin::pin!(shutdown);
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
        tokio::spawn(Arc::clone(&serving).connection(stream, peer, place, connections.watcher()));
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

fn limits(http: &HttpConfig) -> Limits {
    Limits { head: http.header_timeout, idle: http.idle_timeout, write: http.write_timeout }
}

fn builder(http: &HttpConfig) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .max_headers(http.max_headers)
        .max_buf_size(http.max_header_bytes.0)
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(http.max_header_bytes.0).unwrap_or(u32::MAX))
        .max_concurrent_streams(http.max_streams)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL);
    builder
}

/// What all connections of a listener share.
struct Serving {
    routes: Router,
    builder: Builder<TokioExecutor>,
    limits: Limits,
    metrics: Option<Arc<Metrics>>,
}

impl Serving {
    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: Peer,
        place: OwnedSemaphorePermit,
        watcher: Watcher,
    ) {
        let activity = Activity::new(place);
        let (requests, routes) = (Arc::clone(&activity), self.routes.clone());
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            let under_way = requests.begin();
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert(under_way.clone());
            let answering = routes.clone().call(request);
            async {
                answering.await.map(|mut response: Response| {
                    let memory = response.extensions_mut().remove::<AnswerMemory>();
                    response.map(|body| Answered { body, under_way, memory })
                })
            }
        });
        let stream = TokioIo::new(Patient::new(stream, self.limits, Arc::clone(&activity)));
        let connection = self.builder.serve_connection_with_upgrades(stream, service);
        // Errors of a connection are its client's: broken off, too slow, not HTTP. There is nobody to tell.
        let ended = watcher.watch(connection).await;
        let why = activity.cut().or_else(|| refused_as(ended.as_ref().err()?.as_ref()));
        if let (Some(why), Some(metrics)) = (why, &self.metrics) {
            metrics.connection_cut(why);
        }
    }
}

/// Why HTTP was not spoken, if it was not.
fn refused_as(error: &(dyn Error + Send + Sync + 'static)) -> Option<&'static str> {
    let error = error.downcast_ref::<hyper::Error>()?;
    if error.is_parse_too_large() {
        return Some("too_large");
    }
    error.is_parse().then_some("not_http")
}

/// The body of an answer, which is under way as long as it lasts.
struct Answered {
    body: Body,
    #[expect(dead_code, reason = "held, not read")]
    under_way: UnderWay,
    #[expect(dead_code, reason = "held, not read")]
    memory: Option<AnswerMemory>,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

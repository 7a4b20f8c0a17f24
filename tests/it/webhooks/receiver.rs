//! A receiver of webhooks on this machine, which answers as a test wants it to and remembers what it got.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use entities::webhook::{secret::WebhookSecret, targets::TargetRules};
use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use tokio::task::JoinHandle;

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(2);

/// What it got with one request.
#[derive(Clone, Debug)]
pub(super) struct Got {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The status that it was answered with.
    pub(super) status: u16,
}

impl Got {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub(super) fn id(&self) -> &str {
        self.header("webhook-id")
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// The id of what it is about.
    pub(super) fn subject(&self) -> String {
        self.json()["data"]["id"].as_str().unwrap_or_default().to_owned()
    }

    /// Which of its signatures are of this secret.
    pub(super) fn signed_by(&self, secret: &str) -> Vec<usize> {
        let secret = WebhookSecret::parse(secret).expect("a secret");
        let timestamp = self.header("webhook-timestamp").parse().expect("a number");
        let wanted = secret.sign(self.id(), timestamp, &self.body);
        let signatures = self.header("webhook-signature").split(' ').enumerate();
        signatures.filter(|(_, given)| *given == wanted).map(|(place, _)| place).collect()
    }
}

/// How it answers: by the request and by how many of this path it has had before.
type Answer = Arc<dyn Fn(&Got, usize) -> (u16, Duration) + Send + Sync>;

/// The receiver. Ends with the test.
pub(super) struct Receiver {
    address: String,
    got: Arc<Mutex<Vec<Got>>>,
    serving: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Receiver {
    /// Takes everything; at `/endless` with an answer whose body does not end.
    pub(super) async fn start() -> Self {
        Self::answering(|_, _| 204).await
    }

    /// Answers with these statuses.
    pub(super) async fn answering(status: impl Fn(&Got, usize) -> u16 + Send + Sync + 'static) -> Self {
        Self::answering_after(move |got, before| (status(got, before), Duration::ZERO)).await
    }

    /// Answers with these statuses after a while.
    pub(super) async fn answering_after(
        answer: impl Fn(&Got, usize) -> (u16, Duration) + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("there is a port");
        let address = listener.local_addr().expect("it has an address").to_string();
        let (got, answer): (Arc<Mutex<Vec<Got>>>, Answer) = (Arc::default(), Arc::new(answer));
        let kept = Arc::clone(&got);
        let routes = Router::new().fallback(move |request: Request| {
            let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
            async move { take(request, &kept, &answer).await }
        });
        let serving = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let service = hyper_util::service::TowerToHyperService::new(routes.clone());
                let io = hyper_util::rt::TokioIo::new(stream);
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
            }
        });
        Self { address, got, serving }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    fn all(&self) -> MutexGuard<'_, Vec<Got>> {
        self.got.lock().expect("nobody panics here")
    }

    /// What it got so far for this path.
    pub(super) fn got(&self, path: &str) -> Vec<Got> {
        let path = format!("/{path}");
        self.all().iter().filter(|got| got.path == path).cloned().collect()
    }

    /// What it got for this path and took.
    pub(super) fn taken(&self, path: &str) -> Vec<Got> {
        self.got(path).into_iter().filter(|got| got.status < 300).collect()
    }

    /// Waits until it has had so many requests for this path.
    pub(super) async fn wait_for(&self, path: &str, count: usize) -> Vec<Got> {
        until(|| async { self.got(path).len() >= count }).await;
        self.got(path)
    }

    /// Waits until it has taken so many for this path.
    pub(super) async fn wait_until_taken(&self, path: &str, count: usize) -> Vec<Got> {
        until(|| async { self.taken(path).len() >= count }).await;
        self.taken(path)
    }
}

async fn take(request: Request, kept: &Mutex<Vec<Got>>, answer: &Answer) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap_or_default();
    let path = parts.uri.path().to_owned();
    let is_endless = path == "/endless";
    let mut got = Got { path, headers: parts.headers, body, status: 0 };
    let (status, pause) = {
        let mut kept = kept.lock().expect("nobody panics here");
        let before = kept.iter().filter(|other| other.path == got.path).count();
        let (status, pause) = answer(&got, before);
        got.status = status;
        kept.push(got);
        (status, pause)
    };
    tokio::time::sleep(pause).await;
    let status = StatusCode::from_u16(status).expect("a status");
    if is_endless {
        // The beginning of a body, and then nothing.
        let beginning = stream::once(async { Ok::<_, Infallible>(Bytes::from_static(b"...")) });
        return (status, Body::from_stream(beginning.chain(stream::pending()))).into_response();
    }
    let elsewhere = status.is_redirection().then_some([(header::LOCATION, "/elsewhere")]);
    match elsewhere {
        Some(elsewhere) => (status, elsewhere).into_response(),
        None => status.into_response(),
    }
}

/// Waits for something.
pub(super) async fn until<F: Future<Output = bool>>(holds: impl Fn() -> F) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "it does not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// This machine may be called, also without TLS.
pub(super) fn this_machine() -> TargetRules {
    TargetRules::new(vec!["127.0.0.0/8".parse().expect("a network")])
}

//! Connections to receivers of webhooks: to an address that was judged just now, and to no other. Without a
//! proxy, whatever the environment says. Not here: which addresses may be called
//! (`entities::webhook::targets`), TLS (the caller wraps this).

use std::{
    io,
    task::{Context, Poll},
    time::Duration,
};

use axum::http::Uri;
use entities::webhook::targets::{TargetError, TargetRules};
use futures_util::{FutureExt as _, future::BoxFuture};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long connecting to one address may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Addresses of a name that are tried at most.
const MOST_ADDRESSES: usize = 4;

/// Connects to what the rules allow.
#[derive(Clone, Debug)]
pub(super) struct GuardedConnector(pub(super) TargetRules);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl tower::Service<Uri> for GuardedConnector {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<TokioIo<TcpStream>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let rules = self.0.clone();
        async move { connect(&rules, &uri).await }.boxed()
    }
}

async fn connect(rules: &TargetRules, uri: &Uri) -> Result<TokioIo<TcpStream>, BoxError> {
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err(TargetError::Malformed.into());
    };
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for address in rules.resolve(scheme, host, port).await?.into_iter().take(MOST_ADDRESSES) {
        match tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Ok(TokioIo::new(stream));
            }
            Ok(Err(error)) => failed = error,
            Err(_) => failed = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failed.into())
}

//! One attempt of a delivery over HTTP, signed as Standard Webhooks has it. An address is never followed to
//! another one; of an answer only its status and `Retry-After` count. Not here: when it is tried again.

use std::{error::Error, io, time::Duration};

use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use bytes::Bytes;
use chrono::DateTime;
use entities::{
    clock,
    webhook::{
        lane::{AttemptOutcome, DisableCode, FailedAttempt},
        secret::WebhookSecret,
        targets::{ResolveError, TargetError, TargetRules},
    },
};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, Error as ClientError},
    rt::{TokioExecutor, TokioTimer},
};

use super::connector::GuardedConnector;

/// How long a connection that is not used is kept.
const IDLE: Duration = Duration::from_secs(30);
/// Idle connections to one receiver.
const MOST_IDLE: usize = 2;
/// Bytes of an answer that are read, and thrown away, so that its connection can be used again.
const MOST_ANSWER_BYTES: usize = 4 << 10;
/// How long reading them may take.
const DRAIN_WITHIN: Duration = Duration::from_millis(500);
/// Characters of a reason at most.
const MOST_REASON_CHARS: usize = 300;

/// Sends. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    client: Client<HttpsConnector<GuardedConnector>, Full<Bytes>>,
    timeout: Duration,
}

/// What is sent.
pub(super) struct WebhookMessage<'a> {
    pub(super) id: &'a str,
    pub(super) url: &'a str,
    pub(super) body: Bytes,
    pub(super) secrets: &'a [WebhookSecret],
}

impl Sender {
    pub(super) fn new(rules: TargetRules, timeout: Duration) -> Self {
        let https = HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1();
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MOST_IDLE)
            .pool_timer(TokioTimer::new())
            .build(https.wrap_connector(GuardedConnector(rules)));
        Self { client, timeout }
    }

    /// How long an attempt may take, but for `DRAIN_WITHIN`.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends it once.
    pub(super) async fn send(&self, message: WebhookMessage<'_>) -> AttemptOutcome {
        let Ok(request) = request(message) else {
            return failed(None, TargetError::Malformed.to_string());
        };
        match tokio::time::timeout(self.timeout, self.client.request(request)).await {
            Ok(Ok(answer)) => {
                let (parts, body) = answer.into_parts();
                // The status says what has become of it, however the body ends.
                let _ = tokio::time::timeout(DRAIN_WITHIN, drain(body)).await;
                judge(parts.status, &parts.headers)
            }
            Ok(Err(error)) => failed(None, reason(&error)),
            Err(_) => failed(None, format!("No answer within {} seconds.", self.timeout.as_secs_f64())),
        }
    }
}

fn request(message: WebhookMessage<'_>) -> Result<Request<Full<Bytes>>, Box<dyn Error + Send + Sync>> {
    let WebhookMessage { id, url, body, secrets } = message;
    let timestamp = clock::now().timestamp();
    let signatures: Vec<_> = secrets.iter().map(|secret| secret.sign(id, timestamp, &body)).collect();
    let request = Request::builder()
        .method(Method::POST)
        .uri(url.parse::<Uri>()?)
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .header(header::USER_AGENT, concat!("xp-graph/", env!("CARGO_PKG_VERSION")))
        .header("webhook-id", id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", signatures.join(" "))
        .body(Full::new(body))?;
    Ok(request)
}

/// Reads an answer to its end, if that is near.
async fn drain(mut body: Incoming) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > MOST_ANSWER_BYTES {
            return;
        }
    }
}

fn judge(status: StatusCode, headers: &HeaderMap) -> AttemptOutcome {
    if status.is_success() {
        return AttemptOutcome::Delivered { status: status.as_u16() };
    }
    let why = match status.as_u16() {
        300..400 => format!("The receiver answered {status}; redirections are not followed."),
        _ => format!("The receiver answered {status}."),
    };
    let disables = (status == StatusCode::GONE).then_some(DisableCode::Gone);
    let retry_after = headers.get(header::RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?));
    AttemptOutcome::Failed(FailedAttempt { status: Some(status.as_u16()), why, retry_after, disables })
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = DateTime::parse_from_rfc2822(text.trim()).ok()?;
    (at.to_utc() - clock::now()).to_std().ok()
}

fn failed(status: Option<u16>, why: String) -> AttemptOutcome {
    AttemptOutcome::Failed(FailedAttempt { status, why, ..FailedAttempt::default() })
}

/// Why there was no answer, for the owner of the webhook.
fn reason(error: &ClientError) -> String {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    let mut last = String::new();
    while let Some(error) = cause {
        if let Some(resolve) = error.downcast_ref::<ResolveError>() {
            return format!("Not sent: {resolve}.");
        }
        match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => return "The connection was refused.".to_owned(),
            Some(io::ErrorKind::TimedOut) => return "The receiver could not be reached in time.".to_owned(),
            _ => last = error.to_string(),
        }
        // An error that holds another one says the same as that one.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    let last: String = last.chars().take(MOST_REASON_CHARS).collect();
    format!("The connection failed: {last}.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry: Option<&str>) -> AttemptOutcome {
        let mut headers = HeaderMap::new();
        if let Some(retry) = retry {
            headers.insert(header::RETRY_AFTER, retry.parse().expect("a value"));
        }
        judge(StatusCode::from_u16(status).expect("a status"), &headers)
    }

    #[test]
    fn answers_of_two_hundred_and_more_are_deliveries() {
        for status in [200, 201, 204, 299] {
            assert_eq!(answer(status, None), AttemptOutcome::Delivered { status });
        }
        for status in [300, 301, 307, 400, 404, 408, 410, 429, 500, 503] {
            let AttemptOutcome::Failed(failed) = answer(status, None) else { panic!("{status}") };
            assert_eq!((failed.status, failed.retry_after), (Some(status), None));
            assert_eq!(failed.disables.is_some(), status == 410, "{status}");
        }
    }

    #[test]
    fn receivers_may_say_when_they_want_to_be_asked_again() {
        let wish = |text: &str| match answer(503, Some(text)) {
            AttemptOutcome::Failed(failed) => failed.retry_after,
            other => panic!("{other:?}"),
        };
        assert_eq!(wish("120"), Some(Duration::from_mins(2)));
        let at = (clock::now() + chrono::TimeDelta::hours(1)).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let left = wish(&at).expect("a date").as_secs();
        assert!((3_500..=3_600).contains(&left), "{left}");
        for nothing in ["", "soon", "-5", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert_eq!(wish(nothing), None, "{nothing}");
        }
    }
}

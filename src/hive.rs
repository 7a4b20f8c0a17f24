//! Usage reports to GraphQL Hive, where `telemetry.hive_endpoint` is set: which operations of the sample
//! (`documents::field_usage`) were run, for which client. They are kept in a bounded batch and sent beside the
//! requests: a Hive that is away, slow or refuses costs reports, which are counted, and no request. Not here: what a
//! report looks like (`report`), what it says of an operation (`engine::coordinates`).

mod report;
#[cfg(test)]
mod tests;

use std::{
    mem,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use bytes::Bytes;
use opentelemetry::trace::SpanContext;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tokio::{sync::Notify, task::JoinHandle, time::sleep};

use crate::{
    config::{TelemetryConfig, setting::SecretText},
    error_chain::chain,
    outbound::{Failed, Outbound},
};

use report::UsageBatch;
pub(crate) use report::UsageRun;

/// So often a report is sent at least, as by the client of Hive.
const SEND_INTERVAL: Duration = Duration::from_secs(10);
/// As many runs are sent at once.
const FULL_BATCH: usize = 1_000;
/// How often a report is tried again that Hive has surely not taken, and the first pause before, which doubles.
const RETRIES: (u32, Duration) = (3, Duration::from_millis(200));
/// How long the last reports may take.
const FINISH_WITHIN: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReportLabels {
    outcome: &'static str,
}

/// Reports the operations of one process.
pub(crate) struct HiveReports {
    outbound: Outbound,
    to: Uri,
    headers: HeaderMap,
    every: Duration,
    batch: Mutex<UsageBatch>,
    is_full: Notify,
    is_ending: Notify,
    operations: Family<ReportLabels, Counter>,
}

impl HiveReports {
    /// Where it is configured.
    pub(crate) fn of(config: &TelemetryConfig, outbound: Outbound, registry: &mut Registry) -> Option<Self> {
        let to = config.hive_address()?;
        let headers = headers(config.hive_token.as_ref()?)?;
        let operations = Family::default();
        registry.register(
            "hive_reported_operations",
            "Operations for the usage reports to GraphQL Hive: sent, or dropped (Hive did not take them, or \
             too many waited)",
            Family::clone(&operations),
        );
        Some(Self {
            outbound,
            to,
            headers,
            every: SEND_INTERVAL,
            batch: Mutex::default(),
            is_full: Notify::new(),
            is_ending: Notify::new(),
            operations,
        })
    }

    /// Has it reported, if there is room.
    pub(crate) fn add(&self, run: UsageRun) {
        if run.operation.coordinates.is_empty() {
            // Hive would refuse the whole report.
            return;
        }
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        let is_added = batch.add(run);
        if !is_added {
            self.count("dropped", 1);
        }
        if !is_added || batch.len() == FULL_BATCH {
            self.is_full.notify_one();
        }
    }

    fn count(&self, outcome: &'static str, operations: usize) {
        self.operations.get_or_create(&ReportLabels { outcome }).inc_by(operations as u64);
    }

    /// Sends reports until `finish`.
    pub(crate) async fn run(&self) {
        let (mut is_last, mut was_told) = (false, false);
        while !is_last {
            tokio::select! {
                () = sleep(self.every) => {}
                () = self.is_full.notified() => {}
                () = self.is_ending.notified() => is_last = true,
            }
            let Some(sent) = self.send().await else { continue };
            if let Some(why) = sent.as_ref().err().filter(|_| !was_told) {
                tracing::warn!(
                    why,
                    "usage cannot be reported to Hive; what comes later is sent all the same"
                );
            }
            was_told = sent.is_err();
        }
    }

    /// Sends what is left, within a bound.
    pub(crate) async fn finish(&self, mut running: JoinHandle<()>) {
        self.is_ending.notify_one();
        if tokio::time::timeout(FINISH_WITHIN, &mut running).await.is_err() {
            running.abort();
            // It has ended, and counted what it was sending.
            let _ = running.await;
            self.count("dropped", self.take().len());
            tracing::warn!("the last usage could not be reported to Hive in time");
        }
    }

    fn take(&self) -> UsageBatch {
        mem::take(&mut *self.batch.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends what waits; `None`: nothing does.
    async fn send(&self) -> Option<Result<(), String>> {
        let batch = self.take();
        let operations = batch.len();
        if operations == 0 {
            return None;
        }
        // Counted, too, where the end of the process stops it.
        let mut sending = Sending { reports: self, operations, is_sent: false };
        // A report may have some megabytes.
        let written = tokio::task::spawn_blocking(move || batch.to_json().to_string()).await;
        let sent = match written {
            Ok(json) => self.post(json).await,
            Err(error) => Err(error.to_string()),
        };
        sending.is_sent = sent.is_ok();
        Some(sent)
    }

    /// Posts a report, and again where that may help.
    async fn post(&self, json: String) -> Result<(), String> {
        let (json, (mut retries, mut pause)) = (Bytes::from(json), RETRIES);
        loop {
            let mut headers = self.headers.clone();
            let id = HeaderValue::from_str(&entities::id::new().to_string());
            headers.extend(id.ok().map(|id| (HeaderName::from_static("x-request-id"), id)));
            let posted =
                self.outbound.post("usage report", &SpanContext::NONE, &self.to, headers, json.clone());
            let failure = match posted.await {
                Ok((status, _)) if status.is_success() => return Ok(()),
                // Hive refuses the report itself, and would do so again.
                Ok((status, _)) if status.is_client_error() => return Err(format!("Hive answers {status}")),
                Ok((status, _)) => format!("Hive answers {status}"),
                // It may have arrived, and Hive would count it twice.
                Err(error @ Failed::Timeout) => return Err(chain(&error)),
                Err(error) => chain(&error),
            };
            if retries == 0 {
                return Err(failure);
            }
            sleep(pause).await;
            (retries, pause) = (retries - 1, pause * 2);
        }
    }
}

/// Operations that are being sent: counted when that ends, whatever ends it.
struct Sending<'a> {
    reports: &'a HiveReports,
    operations: usize,
    is_sent: bool,
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.reports.count(if self.is_sent { "sent" } else { "dropped" }, self.operations);
    }
}

/// What each report has; `None` where no header can have this token.
fn headers(token: &SecretText) -> Option<HeaderMap> {
    let mut authorization = HeaderValue::from_str(&format!("Bearer {}", token.expose())).ok()?;
    authorization.set_sensitive(true);
    let version = HeaderValue::from_static(env!("CARGO_PKG_VERSION"));
    let named = HeaderValue::from_static(concat!("xp-graph/", env!("CARGO_PKG_VERSION")));
    let json = HeaderValue::from_static("application/json");
    Some(HeaderMap::from_iter([
        (header::AUTHORIZATION, authorization),
        (header::ACCEPT, json),
        (header::USER_AGENT, named),
        (HeaderName::from_static("graphql-client-name"), HeaderValue::from_static("xp-graph")),
        (HeaderName::from_static("graphql-client-version"), version),
        (HeaderName::from_static("x-usage-api-version"), HeaderValue::from_static("2")),
    ]))
}

//! `extensions`: `explain`, for development (the batches, the SQL and the cache of one request), and `cacheToken`.

use std::time::Duration;

use entities::{CacheRead, Moment, Recorder};
use serde::Serialize;

use crate::{batch::Batcher, scalar::write_json};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Explain {
    total_ms: f64,
    batches: Vec<Batch>,
    sql: Vec<Statement>,
    cache: Vec<CacheRead>,
}

#[derive(Serialize)]
struct Batch {
    loader: &'static str,
    keys: usize,
    found: usize,
    ms: f64,
}

#[derive(Serialize)]
struct Statement {
    name: &'static str,
    text: Option<String>,
    rows: usize,
    ms: f64,
}

impl Explain {
    /// What a request did.
    pub(crate) fn of(recorder: &Recorder, batcher: &Batcher, elapsed: Duration) -> Self {
        let batches = batcher.batches().into_iter().map(|batch| Batch {
            loader: batch.loader,
            keys: batch.keys,
            found: batch.found,
            ms: milliseconds(batch.elapsed),
        });
        let sql = recorder.statements().into_iter().map(|executed| Statement {
            name: executed.name,
            text: executed.sql,
            rows: executed.rows,
            ms: milliseconds(executed.elapsed),
        });
        let cache = recorder.cache_reads();
        Self { total_ms: milliseconds(elapsed), batches: batches.collect(), sql: sql.collect(), cache }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Extensions {
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<Explain>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_token: Option<String>,
}

/// Appends `,"extensions":{…}`, where there are any.
pub(crate) fn write(explain: Option<Explain>, wrote: Option<Moment>, out: &mut Vec<u8>) {
    let cache_token = wrote.map(|moment| moment.to_string());
    if explain.is_some() || cache_token.is_some() {
        out.extend(b",\"extensions\":");
        write_json(&Extensions { explain, cache_token }, out);
    }
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

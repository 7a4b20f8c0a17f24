//! `extensions.explain`, for development: the batches and the SQL of one request.

use std::time::Duration;

use entities::Recorder;
use serde::Serialize;

use crate::{batch::Batcher, scalar::write_json};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Explain {
    total_ms: f64,
    batches: Vec<Batch>,
    sql: Vec<Statement>,
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

/// Appends `,"extensions":{"explain":…}`.
pub(crate) fn write(recorder: &Recorder, batcher: &Batcher, elapsed: Duration, out: &mut Vec<u8>) {
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
    let explain = Explain { total_ms: milliseconds(elapsed), batches: batches.collect(), sql: sql.collect() };
    out.extend(b",\"extensions\":{\"explain\":");
    write_json(&explain, out);
    out.push(b'}');
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

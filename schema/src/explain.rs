//! `extensions`: `explain`, for development (the batches, the resolvers, the SQL and the cache of one request), `cacheToken`, and what
//! gateways ask for: `ftv1` and the tags of entities.

use std::time::Duration;

use entities::{CacheRead, Recorder};
use serde::Serialize;

use engine::{batch::Batcher, scalar::write_json};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Explain {
    total_ms: f64,
    batches: Vec<Batch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resolvers: Vec<Resolver>,
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

/// The calls of one resolver for one level.
#[derive(Serialize)]
struct Resolver {
    field: String,
    rows: usize,
    failed: usize,
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
        let resolvers = batcher.resolvers().into_iter().map(|run| Resolver {
            field: format!("{}.{}", run.field.0, run.field.1),
            rows: run.rows,
            failed: run.failed,
            ms: milliseconds(run.elapsed),
        });
        let sql = recorder.statements().into_iter().map(|executed| Statement {
            name: executed.name,
            text: executed.sql,
            rows: executed.rows,
            ms: milliseconds(executed.elapsed),
        });
        let cache = recorder.cache_reads();
        Self {
            total_ms: milliseconds(elapsed),
            batches: batches.collect(),
            resolvers: resolvers.collect(),
            sql: sql.collect(),
            cache,
        }
    }
}

/// What a request has read depends on these, in the order of their names; `None` where it has read nothing.
pub(crate) fn tags_of(recorder: &Recorder) -> Option<Vec<String>> {
    let dependencies = recorder.dependencies()?;
    let mut tags: Vec<_> = dependencies.tags().map(ToString::to_string).collect();
    tags.sort_unstable();
    Some(tags).filter(|tags| !tags.is_empty())
}

/// The entry `extensions` of an answer.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Extensions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) explain: Option<Explain>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ftv1: Option<String>,
    /// Of the whole answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) apollo_cache_tags: Option<Vec<String>>,
    /// In the order of the representations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) apollo_entity_cache_tags: Option<Vec<Vec<String>>>,
}

impl Extensions {
    /// Appends `,"extensions":{…}`, where there are any.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend(b",\"extensions\":");
        let empty = out.len() + 2;
        write_json(self, out);
        if out.len() == empty {
            out.truncate(start);
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

//! `extensions`: `explain`, for development (the batches, the resolvers, the SQL and the cache of one
//! request), `cacheToken`, `resumeToken`, and what gateways ask for: `ftv1` and the tags of entities. Not
//! here: the plans of statements (`entities`).

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use entities::{CacheRead, Executed, Recorder};
use serde::{Serialize, Serializer};

use engine::{batch::Batcher, scalar::write_json};

/// Answers whose statements are kept, so that their plans can be asked for.
const MOST_KEPT: usize = 64;

/// Statements that a line of the log has at most, besides those that were stopped.
const MOST_LOGGED: usize = 50;

/// How one answer was made. Times are in milliseconds; those of batches and statements are told from the
/// moment on at which the document was found.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Explain {
    total_ms: f64,
    /// How the document was found; `None` for the events of a subscription and the later sets of a mutation, whose
    /// document was found once.
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Found>,
    /// How many objects the operation may load with its variables (all sets of an execution), and how many are allowed.
    cost: u64,
    max_cost: u64,
    /// Keys that were asked for again and not loaded again.
    deduplicated: usize,
    /// By what the plans of the statements can be asked for, where they can.
    #[serde(skip_serializing_if = "Option::is_none")]
    plans: Option<u64>,
    batches: Vec<Batch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resolvers: Vec<Resolver>,
    sql: Vec<Statement>,
    cache: Vec<CacheRead>,
}

/// How the document was found.
#[derive(Serialize)]
pub(crate) struct Found {
    /// It was known; otherwise it was parsed and validated for this request.
    pub(crate) known: bool,
    /// How long finding it took.
    #[serde(rename = "ms", serialize_with = "write_milliseconds")]
    pub(crate) elapsed: Duration,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Batch {
    loader: &'static str,
    level: u32,
    keys: usize,
    found: usize,
    /// The batches whose end let this one begin, by their places in the list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    after: Vec<usize>,
    /// How it was read together with other requests; `None` where it was read at once and alone.
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    shared: Option<Shared>,
    start_ms: f64,
    ms: f64,
}

/// A batch that waited for those of other requests.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shared {
    /// Requests that were answered by one read, this one included.
    requests: usize,
    /// How long it waited for batches of the same loader that were under way.
    queued_ms: f64,
}

/// The calls of one resolver for one level.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Resolver {
    field: String,
    rows: usize,
    failed: usize,
    start_ms: f64,
    ms: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    name: &'static str,
    text: Option<String>,
    /// `null`: it was stopped before its end.
    rows: Option<usize>,
    /// The standby that answered; not said of the primary.
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    start_ms: f64,
    ms: f64,
}

/// What ran for one answer.
#[derive(Clone, Copy)]
pub(crate) struct Ran<'a> {
    pub(crate) started: Instant,
    pub(crate) recorder: &'a Recorder,
    /// One after the other.
    pub(crate) batchers: &'a [&'a Batcher],
}

impl Explain {
    /// What a request did, which may load `cost` objects of `max_cost`, and by what the plans of its
    /// statements can be had.
    pub(crate) fn of(ran: Ran<'_>, (cost, max_cost): (u64, u64), plans: Option<u64>) -> Self {
        let Ran { started, recorder, batchers } = ran;
        let total_ms = milliseconds(started.elapsed());
        // What was shared with other requests may have begun before this one.
        let start_ms = |moment: Instant| milliseconds(moment.saturating_duration_since(started));
        let mut batches = Vec::new();
        for batcher in batchers {
            let before = batches.iter().map(|batch: &Batch| batch.level).max().unwrap_or_default();
            let places = batches.len();
            batches.extend(batcher.batches().into_iter().map(|batch| {
                Batch {
                    loader: batch.loader,
                    level: before + batch.level,
                    keys: batch.keys,
                    found: batch.found,
                    after: batch.after.map(|place| places + place).collect(),
                    shared: Some(Shared { requests: batch.requests, queued_ms: milliseconds(batch.queued) })
                        .filter(|_| batch.requests > 1 || !batch.queued.is_zero()),
                    start_ms: start_ms(batch.began),
                    ms: milliseconds(batch.elapsed),
                }
            }));
        }
        let resolvers = batchers.iter().flat_map(|batcher| batcher.resolvers()).map(|run| Resolver {
            field: format!("{}.{}", run.field.0, run.field.1),
            rows: run.rows,
            failed: run.failed,
            start_ms: start_ms(run.began),
            ms: milliseconds(run.elapsed),
        });
        let sql = recorder.statements().into_iter().map(|executed| Statement {
            name: executed.name,
            text: executed.sql,
            rows: executed.rows,
            server: executed.server.map(|server| server.to_string()),
            start_ms: start_ms(executed.began),
            ms: milliseconds(executed.elapsed),
        });
        let (resolvers, sql, cache) = (resolvers.collect(), sql.collect(), recorder.cache_reads());
        let deduplicated = batchers.iter().map(|batcher| batcher.repeated()).sum();
        Self { total_ms, document: None, cost, max_cost, deduplicated, plans, batches, resolvers, sql, cache }
    }

    /// What a log tells: batches, resolvers and statements. Of what was read from the cache the tags would name rows.
    pub(crate) fn for_log(&self) -> String {
        let Self { batches, resolvers, sql, .. } = self;
        let (first, more) = sql.split_at(sql.len().min(MOST_LOGGED));
        // What was stopped is last, and what is looked for.
        let stopped = more.iter().filter(|statement| statement.rows.is_none());
        let first: Vec<&Statement> = first.iter().chain(stopped).collect();
        serde_json::json!({
            "batches": batches, "resolvers": resolvers, "statements": sql.len(), "sql": first,
        })
        .to_string()
    }

    /// It tells how the document was found, too.
    pub(crate) fn found(self, document: Option<Found>) -> Self {
        Self { document, ..self }
    }
}

/// The statements of the answers that were explained last.
#[derive(Default)]
pub(crate) struct Explained(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    last: u64,
    answers: VecDeque<Statements>,
}

/// Those of one answer.
struct Statements {
    id: u64,
    executed: Vec<Executed>,
    runs_again: bool,
}

impl Explained {
    /// Keeps the statements of an answer; says by what they can be found.
    pub(crate) fn keep(&self, executed: Vec<Executed>, runs_again: bool) -> u64 {
        let mut kept = self.lock();
        kept.last += 1;
        if kept.answers.len() == MOST_KEPT {
            kept.answers.pop_front();
        }
        let id = kept.last;
        kept.answers.push_back(Statements { id, executed, runs_again });
        id
    }

    /// A statement of an answer, and whether it does nothing to run it again.
    pub(crate) fn find(&self, id: u64, statement: usize) -> Option<(Executed, bool)> {
        let kept = self.lock();
        let answer = kept.answers.iter().find(|answer| answer.id == id)?;
        Some((answer.executed.get(statement)?.clone(), answer.runs_again))
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().expect("no panic happens under this lock")
    }
}

/// The entry `extensions` of an answer.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Extensions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) explain: Option<Explain>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache_token: Option<String>,
    /// What stands for this event when its reader comes back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resume_token: Option<String>,
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

fn write_milliseconds<S: Serializer>(time: &Duration, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_f64(milliseconds(*time))
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

//! What is posted to GraphQL Hive: a report of API version 2, as its documentation
//! (<https://the-guild.dev/graphql/hive/docs/api-reference/usage-reports>) and its own client (`@graphql-hive/core`)
//! have it. Each operation stands in it once, and is named by each run. Not here: sending it (`hive`).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use schema::engine::coordinates::ReportedOperation;
use serde_json::{Value, json};

/// Runs that wait to be sent at most.
const MOST_RUNS: usize = 5_000;
/// Bytes of names, texts and coordinates of operations, and of clients' names, that wait at most. As JSON they
/// may be twice as many; Hive takes reports of 15 MB.
const MOST_BYTES: usize = 4 << 20;
/// The most errors that a report can have of one run.
const MOST_ERRORS: usize = u16::MAX as usize;
/// What the client of Hive calls an operation without a name.
const ANONYMOUS: &str = "anonymous";

/// One run of an operation.
#[derive(Debug)]
pub(crate) struct UsageRun {
    pub(crate) operation: Arc<ReportedOperation>,
    /// When it ended, in milliseconds of Unix time.
    pub(crate) at_milliseconds: i64,
    /// How long it took; `None`: it is a subscription or a live query, which has begun.
    pub(crate) took: Option<Duration>,
    pub(crate) errors: usize,
    /// The name and the version of the client, where it says them.
    pub(crate) client: (Option<String>, Option<String>),
}

impl UsageRun {
    fn to_json(&self) -> Value {
        let metadata = match &self.client {
            (Some(name), version) => {
                json!({ "client": { "name": name, "version": version.as_deref().unwrap_or_default() } })
            }
            (None, _) => json!({}),
        };
        let mut run = json!({
            "operationMapKey": self.operation.key,
            "timestamp": self.at_milliseconds,
            "metadata": metadata,
        });
        if let Some(took) = self.took {
            run["execution"] = json!({
                "ok": self.errors == 0,
                "duration": u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
                "errorsTotal": self.errors.min(MOST_ERRORS),
            });
        }
        run
    }
}

/// The runs that wait to be sent, and their operations.
#[derive(Debug, Default)]
pub(super) struct UsageBatch {
    operations: BTreeMap<String, Arc<ReportedOperation>>,
    bytes: usize,
    runs: Vec<UsageRun>,
}

impl UsageBatch {
    /// Adds a run if there is room for it; says whether there was.
    pub(super) fn add(&mut self, run: UsageRun) -> bool {
        let operation = &run.operation;
        let is_known = self.operations.contains_key(&operation.key);
        let coordinates = operation.coordinates.iter().map(String::len);
        let named = operation.name.as_ref().map_or(0, String::len);
        let of_operation =
            if is_known { 0 } else { operation.text.len() + named + coordinates.sum::<usize>() };
        let (name, version) = &run.client;
        let bytes = of_operation + [name, version].into_iter().flatten().map(String::len).sum::<usize>();
        if self.runs.len() >= MOST_RUNS || self.bytes + bytes > MOST_BYTES {
            return false;
        }
        if !is_known {
            self.operations.insert(operation.key.clone(), Arc::clone(operation));
        }
        self.bytes += bytes;
        self.runs.push(run);
        true
    }

    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    /// The report of these runs.
    pub(super) fn to_json(&self) -> Value {
        let operation = |operation: &ReportedOperation| {
            let name = operation.name.as_deref().unwrap_or(ANONYMOUS);
            json!({ "operation": operation.text, "operationName": name, "fields": operation.coordinates })
        };
        let operations = self.operations.values().map(|of| (of.key.clone(), operation(of)));
        let (answered, streams): (Vec<_>, Vec<_>) = self.runs.iter().partition(|run| run.took.is_some());
        let mut report =
            json!({ "size": self.runs.len(), "map": operations.collect::<serde_json::Map<_, _>>() });
        for (key, runs) in [("operations", answered), ("subscriptionOperations", streams)] {
            if !runs.is_empty() {
                report[key] = runs.into_iter().map(UsageRun::to_json).collect();
            }
        }
        report
    }
}

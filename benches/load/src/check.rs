//! Before anything is measured: do both servers answer every workload with equal data?
//!
//! Answers are compared as parsed JSON; numbers by value (`1` is `1.0`). Cursors are opaque by contract, so of them
//! only their absence counts.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use uuid::Uuid;

use crate::{client::Connection, server::Server, workload::Workload};

/// How an answer looks.
pub(crate) struct Shape {
    pub(crate) bytes: usize,
    pub(crate) values: usize,
}

/// Sends the same requests to all servers; fails on an error, an empty answer or the first difference.
pub(crate) async fn compare(
    servers: &[Server],
    workload: &Workload,
    user_ids: &Arc<[Uuid]>,
    seed: u64,
) -> Result<Shape> {
    let rounds = if workload.draws_ids() { 20 } else { 2 };
    let mut requests = workload.requests(user_ids, seed);
    let mut connections = Vec::with_capacity(servers.len());
    for server in servers {
        connections.push(Connection::open(server.address).await?);
    }
    let mut shape = Shape { bytes: 0, values: 0 };
    for _ in 0..rounds {
        requests.draw();
        let mut first: Option<Value> = None;
        for (server, connection) in servers.iter().zip(&mut connections) {
            // What was written once is not written a second time, and answered differently.
            let request = if workload.writes() { requests.draw() } else { requests.last() };
            let (data, bytes) = ask(connection, request)
                .await
                .with_context(|| format!("{} on {}: {}", server.name, workload.name, server.last_lines()))?;
            let Some(expected) = &first else {
                shape = Shape { bytes, values: count_values(&data) };
                first = Some(data);
                continue;
            };
            if let Some(place) = difference(expected, &data, "data") {
                bail!("{}: {} and {} differ at {place}", workload.name, servers[0].name, server.name);
            }
        }
    }
    ensure!(shape.values > 1, "{}: the answer is empty; is the database seeded?", workload.name);
    Ok(shape)
}

async fn ask(connection: &mut Connection, request: &[u8]) -> Result<(Value, usize)> {
    let answer = connection.exchange(request).await?;
    let text = String::from_utf8_lossy(&answer.body[..answer.body.len().min(500)]);
    ensure!(answer.is_good(), "status {}: {text}", answer.status);
    let mut document: Value = serde_json::from_slice(answer.body).context("the answer is not JSON")?;
    Ok((document["data"].take(), answer.body.len()))
}

/// Where two values first differ, and how.
fn difference(left: &Value, right: &Value, place: &str) -> Option<String> {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            if left.len() != right.len() {
                return Some(format!("{place}: {} and {} fields", left.len(), right.len()));
            }
            left.iter().find_map(|(key, value)| {
                let place = format!("{place}.{key}");
                let Some(other) = right.get(key) else { return Some(format!("{place}: absent")) };
                let is_cursor = matches!(key.as_str(), "cursor" | "startCursor" | "endCursor");
                if is_cursor && value.is_string() && other.is_string() {
                    return None;
                }
                difference(value, other, &place)
            })
        }
        (Value::Array(left), Value::Array(right)) => {
            if left.len() != right.len() {
                return Some(format!("{place}: {} and {} items", left.len(), right.len()));
            }
            let mut pairs = left.iter().zip(right).enumerate();
            pairs.find_map(|(at, (left, right))| difference(left, right, &format!("{place}[{at}]")))
        }
        _ if left == right => None,
        _ => {
            let numbers = left.as_f64().zip(right.as_f64());
            let equal = numbers.is_some_and(|(left, right)| left.to_bits() == right.to_bits());
            (!equal).then(|| format!("{place}: {left} and {right}"))
        }
    }
}

fn count_values(value: &Value) -> usize {
    match value {
        Value::Object(fields) => fields.values().map(count_values).sum(),
        Value::Array(items) => items.iter().map(count_values).sum(),
        Value::Null => 0,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_equal_by_value_and_cursors_by_presence() {
        let left = json!({ "a": 1, "pageInfo": { "endCursor": "x" } });
        let right = json!({ "pageInfo": { "endCursor": "y" }, "a": 1.0 });
        assert_eq!(difference(&left, &right, "data"), None);
        let right = json!({ "pageInfo": { "endCursor": null }, "a": 1 });
        assert_eq!(difference(&left, &right, "data").unwrap(), r#"data.pageInfo.endCursor: "x" and null"#);
    }

    #[test]
    fn the_first_difference_is_named_by_its_path() {
        let left = json!({ "users": [{ "id": 1 }, { "id": 2 }] });
        let right = json!({ "users": [{ "id": 1 }, { "id": 3 }] });
        assert_eq!(difference(&left, &right, "data").unwrap(), "data.users[1].id: 2 and 3");
    }
}

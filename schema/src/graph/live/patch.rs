//! How the answer to a live query has changed, as operations of JSON Patch (RFC 6902) on the whole of `data`.
//! A client that asked for it gets `{data, revision: 1}` first, and after that `{patch, revision}`, whose
//! revision is one more each time; whatever has revision 1 is whole, and begins anew. This is the form that
//! clients know from other servers' live queries. Not here: when an answer is told (`live`).

use engine::chunks::Chunks;
use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::{Map, Value};

use crate::request::Reply;

/// Longer answers are told as a whole, bytes: the one before is kept, and comparing them takes time.
const LONGEST: usize = 256 << 10;

/// One change (RFC 6902, §4).
#[derive(Debug, PartialEq)]
enum Operation {
    Add(String, Value),
    Remove(String),
    Replace(String, Value),
}

impl Serialize for Operation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (name, path, value) = match self {
            Self::Add(path, value) => ("add", path, Some(value)),
            Self::Remove(path) => ("remove", path, None),
            Self::Replace(path, value) => ("replace", path, Some(value)),
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("op", name)?;
        map.serialize_entry("path", path)?;
        if let Some(value) = value {
            map.serialize_entry("value", value)?;
        }
        map.end()
    }
}

/// Whether changes of this answer may be told: it is short, and has no errors.
pub(super) fn is_patched(reply: &Reply) -> bool {
    reply.codes.is_empty() && reply.body.len() <= LONGEST
}

/// The changes from one answer to the next, as JSON; both may have some told. None where the next answer is
/// shorter as a whole.
pub(super) fn between(before: &Chunks, after: &Chunks) -> Option<String> {
    let mut operations = Vec::new();
    compare(&data_of(before)?, data_of(after)?, &mut String::new(), &mut operations);
    serde_json::to_string(&operations).ok().filter(|operations| operations.len() < after.len())
}

/// The answer that tells these changes.
pub(super) fn told(operations: &str, revision: u64) -> Chunks {
    format!("{{\"patch\":{operations},\"revision\":{revision}}}").into_bytes().into()
}

/// A whole answer, with its revision.
pub(super) fn whole(body: &Chunks) -> Chunks {
    let mut body = body.clone();
    body.truncate(body.len().saturating_sub(1));
    body.extend(",\"revision\":1}");
    body
}

fn data_of(body: &Chunks) -> Option<Value> {
    let mut answer: Map<String, Value> = serde_json::from_slice(&body.clone().into_vec()).ok()?;
    answer.remove("data").filter(|data| !data.is_null())
}

fn compare(before: &Value, after: Value, path: &mut String, operations: &mut Vec<Operation>) {
    let length = path.len();
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for key in before.keys().filter(|key| !after.contains_key(*key)) {
                operations.push(Operation::Remove(format!("{path}/{}", escaped(key))));
            }
            for (key, value) in after {
                path.push('/');
                path.push_str(&escaped(&key));
                match before.get(&key) {
                    Some(before) => compare(before, value, path, operations),
                    None => operations.push(Operation::Add(path.clone(), value)),
                }
                path.truncate(length);
            }
        }
        (Value::Array(before), Value::Array(after)) => compare_lists(before, after, path, operations),
        (before, after) if *before == after => {}
        (_, after) => operations.push(Operation::Replace(path.clone(), after)),
    }
}

/// Lists that are the same at both ends differ in the middle: what was added in front of the others is one operation.
fn compare_lists(
    before: &[Value],
    mut after: Vec<Value>,
    path: &mut String,
    operations: &mut Vec<Operation>,
) {
    if let Some(kept) = rows_behind_new_ones(before, &after) {
        // A page whose last rows have made room for new ones in front.
        for index in (kept..before.len()).rev() {
            operations.push(Operation::Remove(format!("{path}/{index}")));
        }
        let new = after.len() - kept;
        for (index, value) in after.drain(..new).enumerate() {
            operations.push(Operation::Add(format!("{path}/{index}"), value));
        }
        return;
    }
    let same = |(before, after): &(&Value, &Value)| before == after;
    let first = before.iter().zip(&after).take_while(same).count();
    let rest = before[first..].iter().rev().zip(after[first..].iter().rev());
    let last = rest.take_while(same).count();
    let before = &before[first..before.len() - last];
    let after: Vec<Value> = after.drain(first..after.len() - last).collect();
    let both = before.len().min(after.len());
    for index in (both..before.len()).rev() {
        operations.push(Operation::Remove(format!("{path}/{}", first + index)));
    }
    let length = path.len();
    for (index, value) in after.into_iter().enumerate() {
        path.push('/');
        path.push_str(&(first + index).to_string());
        match before.get(index).filter(|_| index < both) {
            Some(before) => compare(before, value, path, operations),
            None => operations.push(Operation::Add(path.clone(), value)),
        }
        path.truncate(length);
    }
}

/// How many of the first rows are the last ones now, where all others are new.
fn rows_behind_new_ones(before: &[Value], after: &[Value]) -> Option<usize> {
    let first = before.first()?;
    let new = after.iter().position(|row| row == first).filter(|new| *new > 0)?;
    let kept = after.len() - new;
    (kept <= before.len() && after[new..] == before[..kept]).then_some(kept)
}

/// A key as a part of a path (RFC 6901, §3).
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn changes(before: &Value, after: &Value) -> Value {
        let mut operations = Vec::new();
        compare(before, after.clone(), &mut String::new(), &mut operations);
        serde_json::to_value(operations).expect("JSON")
    }

    /// Carries out operations as a client does (RFC 6902, §4).
    fn apply(document: &mut Value, operations: &Value) {
        for operation in operations.as_array().expect("a list") {
            let path = operation["path"].as_str().expect("a path");
            let (parent, key) = path.rsplit_once('/').expect("a path below the top");
            let key = key.replace("~1", "/").replace("~0", "~");
            let value = operation.get("value").cloned();
            match (document.pointer_mut(parent).expect("it is there"), operation["op"].as_str()) {
                (Value::Object(map), Some("remove")) => drop(map.remove(&key).expect("it is there")),
                (Value::Object(map), Some(_)) => drop(map.insert(key, value.expect("a value"))),
                (Value::Array(list), Some("remove")) => drop(list.remove(key.parse().expect("a number"))),
                (Value::Array(list), Some("add")) => {
                    list.insert(key.parse().expect("a number"), value.expect("a value"));
                }
                (Value::Array(list), Some("replace")) => {
                    list[key.parse::<usize>().expect("a number")] = value.expect("a value");
                }
                (other, name) => panic!("{name:?} of {other}"),
            }
        }
    }

    #[test]
    fn one_in_front_of_a_list_is_one_operation() {
        let (before, after) =
            (json!({ "a": [{ "n": 1 }, { "n": 2 }] }), json!({ "a": [{ "n": 0 }, { "n": 1 }, { "n": 2 }] }));
        assert_eq!(changes(&before, &after), json!([{ "op": "add", "path": "/a/0", "value": { "n": 0 } }]));
        assert_eq!(changes(&after, &before), json!([{ "op": "remove", "path": "/a/0" }]));
        assert_eq!(changes(&after, &after), json!([]));
        let page =
            |from: i32| json!({ "a": (from..from + 3).map(|n| json!({ "n": n })).collect::<Vec<_>>() });
        let expected = json!([
            { "op": "remove", "path": "/a/2" },
            { "op": "add", "path": "/a/0", "value": { "n": 0 } },
        ]);
        assert_eq!(changes(&page(1), &page(0)), expected);
    }

    #[test]
    fn what_has_changed_in_an_object_is_told_by_its_path() {
        let before = json!({ "a/b": { "c~d": 1, "e": null }, "f": [1, 2] });
        let after = json!({ "a/b": { "c~d": 2, "e": { "g": 1 } }, "f": [1, 3] });
        let expected = json!([
            { "op": "replace", "path": "/a~1b/c~0d", "value": 2 },
            { "op": "replace", "path": "/a~1b/e", "value": { "g": 1 } },
            { "op": "replace", "path": "/f/1", "value": 3 },
        ]);
        assert_eq!(changes(&before, &after), expected);
    }

    #[test]
    fn all_changes_of_small_lists_and_objects_lead_to_the_next() {
        let mut values = vec![json!([])];
        for length in 1..=4 {
            for number in 0..3_usize.pow(length) {
                let items = (0..length).map(|place| json!({ "n": number / 3_usize.pow(place) % 3 }));
                values.push(items.collect());
            }
        }
        for before in &values {
            for after in &values {
                let (mut patched, after) = (json!({ "list": before }), json!({ "list": after }));
                let operations = changes(&patched, &after);
                apply(&mut patched, &operations);
                assert_eq!(patched, after, "{before} by {operations}");
            }
        }
    }
}

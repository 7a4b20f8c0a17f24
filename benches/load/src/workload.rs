//! What is asked: the query files `w1.graphql` … with their variables in `w1.json`, as whole HTTP requests whose ids
//! are drawn anew each time. A query is sent as its text, or named by its hash. Not here: sending them (`client`),
//! measuring (`measure`).
//!
//! In the variables, `"$userId"` stands for one user's id, `"$userRepresentations:100"` for a list of a
//! hundred `User` representations, and `"$points:100"` for a hundred positions that were never sent before.
//! `w3@7` is `w3` with seven in the place of these hundreds. An id is always 36 characters, so drawing one
//! overwrites bytes in place.

use std::{fmt::Write as _, fs, path::Path, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use memchr::memmem;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Stands in a request where an id is drawn; no real id has these bytes.
const BLANK_ID: &str = "********-****-****-****-************";

/// Stands where an id is made that nothing has yet.
const FRESH_ID: &str = "????????-????-????-????-????????????";

/// How a request says which query it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// By the query itself.
    Text,
    /// By its hash in a GET, as Apollo's clients do; it is registered before the run.
    Apq,
    /// By the id of a trusted document.
    Id,
}

impl By {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Apq => "apq",
            Self::Id => "id",
        }
    }
}

/// A query and its request.
pub(crate) struct Workload {
    /// `w1` …
    pub(crate) name: String,
    pub(crate) by: By,
    /// Its hash and its text, as they stand in a manifest.
    pub(crate) document: (String, String),
    /// What makes the query known beforehand, where that is needed.
    pub(crate) registration: Option<Vec<u8>>,
    request: Vec<u8>,
    /// Where in `request` the ids stand.
    slots: Vec<usize>,
    /// Where in `request` the new ids stand.
    fresh: Vec<usize>,
}

impl Workload {
    /// Reads `<name>.graphql` and, where there is one, `<name>.json`; behind an `@` the name may have a
    /// number for its lists.
    pub(crate) fn read(directory: &Path, name: &str, by: By, token: &str) -> Result<Self> {
        let (file, count) = name.split_once('@').map_or((name, None), |(file, count)| (file, Some(count)));
        let query_path = directory.join(format!("{file}.graphql"));
        let query =
            fs::read_to_string(&query_path).with_context(|| format!("reading {}", query_path.display()))?;
        let variables_path = directory.join(format!("{file}.json"));
        let mut variables = json!({});
        if variables_path.exists() {
            let text = fs::read_to_string(&variables_path)?;
            variables = serde_json::from_str(&text)
                .with_context(|| format!("{} is not JSON", variables_path.display()))?;
            fill(&mut variables, count)?;
        }
        let hash = hash_of(&query);
        let extensions = json!({ "persistedQuery": { "version": 1, "sha256Hash": hash } });
        let workload = match by {
            By::Text => {
                let body = json!({ "query": query, "variables": variables });
                Self::with_request(name, post(&body.to_string(), token))
            }
            By::Id => {
                let body = json!({ "documentId": hash, "variables": variables });
                Self::with_request(name, post(&body.to_string(), token))
            }
            By::Apq => {
                let (variables, given) = (encoded(&variables), encoded(&extensions));
                Self::with_request(name, get(&format!("extensions={given}&variables={variables}"), token))
            }
        };
        let registered = json!({ "query": query, "variables": variables, "extensions": extensions });
        let registration = (by == By::Apq).then(|| post(&registered.to_string(), token).into_bytes());
        Ok(Self { by, document: (hash, query), registration, ..workload })
    }

    /// Asks for nothing but an answer.
    pub(crate) fn probe(token: &str) -> Self {
        Self::with_request("probe", post(r#"{"query":"{ __typename }"}"#, token))
    }

    /// Asks for nothing but an answer, without a token.
    pub(crate) fn anonymous_probe() -> Self {
        let body = r#"{"query":"{ __typename }"}"#;
        let head = "POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
        Self::with_request("probe", format!("{head}content-length: {}\r\n\r\n{body}", body.len()))
    }

    fn with_request(name: &str, request: String) -> Self {
        let request = request.into_bytes();
        let slots = memmem::find_iter(&request, BLANK_ID).collect();
        let fresh = memmem::find_iter(&request, FRESH_ID).collect();
        let (by, document, registration) = (By::Text, Default::default(), None);
        Self { name: name.to_owned(), by, document, registration, request, slots, fresh }
    }

    /// A stream of requests; equal seeds give equal streams.
    pub(crate) fn requests(&self, user_ids: &Arc<[Uuid]>, seed: u64) -> Requests {
        Requests {
            request: self.request.clone(),
            slots: self.slots.clone(),
            fresh: self.fresh.clone(),
            user_ids: Arc::clone(user_ids),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Whether one request differs from the next.
    pub(crate) fn draws_ids(&self) -> bool {
        !self.slots.is_empty() || self.writes()
    }

    /// Whether a request may be sent only once.
    pub(crate) fn writes(&self) -> bool {
        !self.fresh.is_empty()
    }
}

/// The name of a query as a trusted document.
pub(crate) fn hash_of(query: &str) -> String {
    Sha256::digest(query).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn post(body: &str, token: &str) -> String {
    format!(
        "POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         accept: application/graphql-response+json, application/json\r\nauthorization: Bearer {token}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn get(parameters: &str, token: &str) -> String {
    format!(
        "GET /graphql?{parameters} HTTP/1.1\r\nhost: localhost\r\napollo-require-preflight: 1\r\n\
         accept: application/graphql-response+json, application/json\r\nauthorization: Bearer {token}\r\n\r\n"
    )
}

/// As it stands in a query string. What stands for an id is left as it is.
fn encoded(value: &Value) -> String {
    value.to_string().bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~*?".contains(&byte) {
            text.push(byte.into());
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

/// The requests of one connection.
pub(crate) struct Requests {
    request: Vec<u8>,
    slots: Vec<usize>,
    fresh: Vec<usize>,
    user_ids: Arc<[Uuid]>,
    random: fastrand::Rng,
}

impl Requests {
    /// Draws new ids and gives the whole request.
    pub(crate) fn draw(&mut self) -> &[u8] {
        for &slot in &self.slots {
            let id = self.user_ids[self.random.usize(..self.user_ids.len())];
            id.hyphenated().encode_lower(&mut self.request[slot..slot + BLANK_ID.len()]);
        }
        for &slot in &self.fresh {
            let id = Uuid::from_u128(self.random.u128(..));
            id.hyphenated().encode_lower(&mut self.request[slot..slot + FRESH_ID.len()]);
        }
        self.last()
    }

    /// The request that was drawn last.
    pub(crate) fn last(&self) -> &[u8] {
        &self.request
    }
}

/// Puts blank ids in place of the names that stand for them, however deep; lists of them have `count`, where
/// it is given.
fn fill(value: &mut Value, count: Option<&str>) -> Result<()> {
    match value {
        Value::Object(fields) => return fields.values_mut().try_for_each(|value| fill(value, count)),
        Value::Array(items) => return items.iter_mut().try_for_each(|value| fill(value, count)),
        _ => {}
    }
    let Some(name) = value.as_str().and_then(|text| text.strip_prefix('$')) else { return Ok(()) };
    if name == "userId" {
        *value = json!(BLANK_ID);
        return Ok(());
    }
    let (kind, usual) = name.split_once(':').unwrap_or((name, "1"));
    let count: usize =
        count.unwrap_or(usual).parse().with_context(|| format!("\"${name}\" asks for no number"))?;
    ensure!(count > 0, "\"${name}\" asks for nothing");
    *value = match kind {
        "userRepresentations" => vec![json!({ "__typename": "User", "id": BLANK_ID }); count].into(),
        "points" => (0..count).map(point).collect(),
        _ => bail!("unknown stand-in \"${name}\""),
    };
    Ok(())
}

/// One of a walk's positions, a second after the last.
fn point(index: usize) -> Value {
    let (minute, second, east) = (index / 60, index % 60, 13.0 + index as f64 / 10_000.0);
    json!({
        "clientId": FRESH_ID, "timestamp": format!("2026-01-02T03:{minute:02}:{second:02}Z"),
        "latitude": 52.5, "longitude": east, "accuracy": 7.5, "altitude": 34.0, "speed": 1.4, "heading": 90.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_draw_equal_requests() {
        let mut variables =
            json!({ "id": "$userId", "representations": "$userRepresentations:3", "first": 5 });
        fill(&mut variables, None).unwrap();
        for request in [post(&variables.to_string(), "token"), get(&encoded(&variables), "token")] {
            assert_eq!(Workload::with_request("w", request).slots.len(), 4);
        }
        let workload = Workload::with_request("w", get(&encoded(&variables), "token"));
        let ids: Arc<[Uuid]> = (0..100).map(Uuid::from_u128).collect();
        let (mut one, mut other) = (workload.requests(&ids, 7), workload.requests(&ids, 7));
        let first = one.draw().to_vec();
        assert_eq!(first, other.draw());
        assert_ne!(first, one.draw());
        assert!(memmem::find(&first, b"***").is_none());
    }

    #[test]
    fn a_number_in_the_name_is_that_of_the_lists() {
        let mut variables = json!({ "id": "$userId", "representations": "$userRepresentations:100" });
        fill(&mut variables, Some("7")).unwrap();
        assert_eq!(variables["representations"].as_array().unwrap().len(), 7);
    }

    #[test]
    fn an_unknown_stand_in_is_an_error() {
        assert!(fill(&mut json!({ "id": "$formId" }), None).is_err());
    }

    #[test]
    fn points_are_never_sent_twice() {
        let mut variables = json!({ "input": { "points": "$points:100" } });
        fill(&mut variables, None).unwrap();
        let workload = Workload::with_request("w6", post(&variables.to_string(), "token"));
        assert!(workload.draws_ids());
        let mut requests = workload.requests(&[Uuid::nil()].into(), 7);
        let first = requests.draw().to_vec();
        assert!(memmem::find(&first, b"???").is_none());
        assert_ne!(first, requests.draw());
    }
}

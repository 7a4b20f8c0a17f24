//! What is asked: the query files `w1.graphql` … with their variables in `w1.json`, as whole HTTP requests whose ids
//! are drawn anew each time. Not here: sending them (`client`), measuring (`measure`).
//!
//! In the variables, `"$userId"` stands for one user's id and `"$userRepresentations:100"` for a list of a hundred
//! `User` representations. An id is always 36 characters, so drawing one overwrites bytes in place.

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context, Result, ensure};
use memchr::memmem;
use serde_json::{Value, json};
use uuid::Uuid;

/// Stands in a request where an id is drawn; no real id has these bytes.
const BLANK_ID: &str = "********-****-****-****-************";

/// A query and its request.
pub(crate) struct Workload {
    /// `w1` …
    pub(crate) name: String,
    request: Vec<u8>,
    /// Where in `request` the ids stand.
    slots: Vec<usize>,
}

impl Workload {
    /// Reads `<name>.graphql` and, where there is one, `<name>.json`.
    pub(crate) fn read(directory: &Path, name: &str, token: &str) -> Result<Self> {
        let query_path = directory.join(format!("{name}.graphql"));
        let query =
            fs::read_to_string(&query_path).with_context(|| format!("reading {}", query_path.display()))?;
        let variables_path = directory.join(format!("{name}.json"));
        let mut variables = json!({});
        if variables_path.exists() {
            let text = fs::read_to_string(&variables_path)?;
            variables = serde_json::from_str(&text)
                .with_context(|| format!("{} is not JSON", variables_path.display()))?;
            fill(&mut variables)?;
        }
        let body = json!({ "query": query, "variables": variables }).to_string();
        Ok(Self::with_body(name, &body, token))
    }

    /// Asks for nothing but an answer.
    pub(crate) fn probe(token: &str) -> Self {
        Self::with_body("probe", r#"{"query":"{ __typename }"}"#, token)
    }

    fn with_body(name: &str, body: &str, token: &str) -> Self {
        let request = format!(
            "POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             accept: application/graphql-response+json, application/json\r\nauthorization: Bearer {token}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let request = request.into_bytes();
        let slots = memmem::find_iter(&request, BLANK_ID).collect();
        Self { name: name.to_owned(), request, slots }
    }

    /// A stream of requests; equal seeds give equal streams.
    pub(crate) fn requests(&self, user_ids: &Arc<[Uuid]>, seed: u64) -> Requests {
        Requests {
            request: self.request.clone(),
            slots: self.slots.clone(),
            user_ids: Arc::clone(user_ids),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Whether one request differs from the next.
    pub(crate) fn draws_ids(&self) -> bool {
        !self.slots.is_empty()
    }
}

/// The requests of one connection.
pub(crate) struct Requests {
    request: Vec<u8>,
    slots: Vec<usize>,
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
        &self.request
    }
}

/// Puts blank ids in place of the names that stand for them.
fn fill(variables: &mut Value) -> Result<()> {
    for value in variables.as_object_mut().context("variables must be a JSON object")?.values_mut() {
        let Some(name) = value.as_str().and_then(|text| text.strip_prefix('$')) else { continue };
        if name == "userId" {
            *value = json!(BLANK_ID);
        } else {
            let count = name.strip_prefix("userRepresentations:").and_then(|count| count.parse().ok());
            let count: usize = count.with_context(|| format!("unknown stand-in \"${name}\""))?;
            ensure!(count > 0, "\"${name}\" asks for nothing");
            *value = vec![json!({ "__typename": "User", "id": BLANK_ID }); count].into();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_draw_equal_requests() {
        let mut variables =
            json!({ "id": "$userId", "representations": "$userRepresentations:3", "first": 5 });
        fill(&mut variables).unwrap();
        let workload = Workload::with_body("w", &variables.to_string(), "token");
        assert_eq!(workload.slots.len(), 4);
        let ids: Arc<[Uuid]> = (0..100).map(Uuid::from_u128).collect();
        let (mut one, mut other) = (workload.requests(&ids, 7), workload.requests(&ids, 7));
        let first = one.draw().to_vec();
        assert_eq!(first, other.draw());
        assert_ne!(first, one.draw());
        assert!(memmem::find(&first, b"***").is_none());
    }

    #[test]
    fn an_unknown_stand_in_is_an_error() {
        assert!(fill(&mut json!({ "id": "$formId" })).is_err());
    }
}

//! What a request says, read from a body or a query string, within bounds on depth and number of values. Not here: how
//! the body is received (`receive`), who asks, which document an id means, and what the answer looks like.

use std::sync::Arc;

use axum::http::{StatusCode, Uri};
use schema::{Document, OnError, VariableSets};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::memory::MemoryReservation;
use crate::{
    documents::{DocumentError, normal_id, sha256_of},
    rejection::Rejection,
};

const TOO_DEEP: Rejection =
    Rejection::new(StatusCode::BAD_REQUEST, "DEPTH_LIMIT", "The request's JSON is nested too deep.");
const TOO_MANY_VALUES: Rejection =
    Rejection::new(StatusCode::BAD_REQUEST, "COST_LIMIT", "The request's JSON has too many values.");
const NO_JSON: Rejection =
    Rejection::new(StatusCode::BAD_REQUEST, "BAD_USER_INPUT", "The body is not valid JSON.");
const NO_REQUEST: Rejection = Rejection::new(
    StatusCode::BAD_REQUEST,
    "BAD_USER_INPUT",
    "A GraphQL request is one JSON object: query (text), variables (object, or a list of objects), \
     operationName (text), extensions (object).",
);
const NO_BATCH: Rejection = Rejection::new(
    StatusCode::BAD_REQUEST,
    "BAD_USER_INPUT",
    "One request at a time: an array of requests is not taken from this caller, or not of this length.",
);
const NO_ON_ERROR: Rejection =
    Rejection::new(StatusCode::BAD_REQUEST, "BAD_USER_INPUT", "onError must be PROPAGATE, NULL or HALT.");
const NO_SETS: Rejection = Rejection::new(
    StatusCode::BAD_REQUEST,
    "BAD_USER_INPUT",
    "One set of variables at a time: a list of them is taken from signed-in callers and gateways, by POST, \
     QUERY and WebSocket.",
);
const SETS_IN_ARRAY: Rejection = Rejection::new(
    StatusCode::BAD_REQUEST,
    "BAD_USER_INPUT",
    "A list of sets of variables is not taken in an array of requests.",
);
const NUMBER_OF_SETS: Rejection = Rejection::new(
    StatusCode::BAD_REQUEST,
    "BAD_USER_INPUT",
    "The list of sets of variables is empty, or has more sets than this caller may send.",
);
/// What a JSON value takes in memory beside its text, bytes.
const VALUE_BYTES: usize = 64;
/// The `version` of Apollo's protocol that there is.
const APQ_VERSION: u64 = 1;

/// One request as it came over the wire.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GraphQLParams {
    #[serde(default)]
    pub(crate) query: Option<String>,
    /// Where the GraphQL-over-HTTP specification puts the id of a document.
    #[serde(default)]
    pub(crate) document_id: Option<String>,
    #[serde(default)]
    pub(crate) operation_name: Option<String>,
    /// What a field that fails does to the rest of the answer, as it was written.
    #[serde(default)]
    on_error: Option<String>,
    #[serde(default, deserialize_with = "schema::read_variables")]
    pub(crate) variables: VariableSets,
    #[serde(default)]
    extensions: Option<Map<String, Value>>,
    /// Where Relay's examples put it.
    #[serde(default, rename = "doc_id")]
    doc_id: Option<String>,
    /// Where others put it.
    #[serde(default)]
    id: Option<String>,
    /// The document, where somebody had to look what it is before it runs.
    #[serde(skip)]
    pub(super) found: Option<Result<Arc<Document>, DocumentError>>,
    /// `found` refuses a subscription because of its token.
    #[serde(skip)]
    pub(super) is_refused_subscription: bool,
}

/// Apollo's `extensions.persistedQuery`.
pub(crate) struct PersistedQuery<'w> {
    pub(crate) hash: &'w str,
    pub(crate) is_version_1: bool,
}

impl GraphQLParams {
    /// `extensions.persistedQuery`, if it is one.
    pub(crate) fn persisted_query(&self) -> Option<PersistedQuery<'_>> {
        let given = self.extension("persistedQuery")?;
        let hash = given.get("sha256Hash")?.as_str()?;
        Some(PersistedQuery {
            hash,
            is_version_1: given.get("version").and_then(Value::as_u64) == Some(APQ_VERSION),
        })
    }

    /// An entry of `extensions`.
    pub(crate) fn extension(&self, name: &str) -> Option<&Value> {
        self.extensions.as_ref()?.get(name)
    }

    /// The text, unless the request may mean another document than that. Hashes are held to the text where
    /// documents are found; names and other ids win over it.
    pub(crate) fn own_text(&self) -> Option<&str> {
        let is_hash = |id: &str| normal_id(id).is_some_and(|id| sha256_of(&id).is_some());
        let names_another = self.document_id.is_some()
            || self.other_id().is_some()
            || self.persisted_query().is_some_and(|persisted| !is_hash(persisted.hash));
        self.query.as_deref().filter(|_| !names_another)
    }

    /// What a field that fails does to the rest of the answer, where the request says so.
    pub(super) fn on_error(&self) -> Result<Option<OnError>, Rejection> {
        self.on_error.as_deref().map(|text| OnError::parse(text).ok_or(NO_ON_ERROR)).transpose()
    }

    /// The id in one of the places that are looked at only where that is switched on.
    pub(crate) fn other_id(&self) -> Option<&str> {
        self.doc_id.as_deref().or(self.id.as_deref())
    }
}

/// One request, or an array of them.
pub(super) enum GraphQLRequest {
    One(Box<GraphQLParams>),
    Batch(Vec<GraphQLParams>),
}

impl GraphQLRequest {
    pub(super) fn as_slice(&self) -> &[GraphQLParams] {
        match self {
            Self::One(params) => std::slice::from_ref(params),
            Self::Batch(requests) => requests,
        }
    }

    /// Refuses an array of requests, or a list of sets of variables, that is longer than it may be. A list in
    /// an array is not taken at all.
    pub(super) fn check_length(&self, bounds: Bounds) -> Result<(), Rejection> {
        let is_list = |params: &GraphQLParams| matches!(params.variables, VariableSets::Many(_));
        match self {
            Self::Batch(requests) if requests.len() > bounds.batch => Err(NO_BATCH),
            Self::Batch(requests) if requests.iter().any(is_list) => Err(SETS_IN_ARRAY),
            Self::One(params) if is_list(params) && bounds.sets == 0 => Err(NO_SETS),
            Self::One(params) if is_list(params) => {
                let fits = (1..=bounds.sets).contains(&params.variables.count());
                if fits { Ok(()) } else { Err(NUMBER_OF_SETS) }
            }
            Self::One(_) | Self::Batch(_) => Ok(()),
        }
    }

    /// The request, where it is no array.
    pub(super) fn one(self) -> Result<GraphQLParams, Rejection> {
        match self {
            Self::One(params) => Ok(*params),
            Self::Batch(_) => Err(NO_BATCH),
        }
    }

    /// How many executions it asks for.
    pub(super) fn count(&self) -> u32 {
        self.as_slice().iter().map(|params| params.variables.count() as u32).sum()
    }

    /// Whether it is one request with a list of sets of variables.
    pub(super) fn has_sets(&self) -> bool {
        matches!(self, Self::One(params) if matches!(params.variables, VariableSets::Many(_)))
    }

    /// Whether several executions are asked for at once, by an array or by a list of sets of variables.
    pub(super) fn is_batch(&self) -> bool {
        matches!(self, Self::Batch(_)) || self.has_sets()
    }
}

/// How much one request may say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) bytes: usize,
    pub(super) depth: usize,
    pub(super) values: usize,
    /// Requests of one array; 0: no arrays.
    pub(super) batch: usize,
    /// Sets of variables of one request; 0: no lists of them.
    pub(super) sets: usize,
}

/// Whether a request is refused for what its JSON says: it is no GraphQL request, or not one that is taken.
pub(super) fn is_ill_formed(rejection: &Rejection) -> bool {
    [NO_REQUEST, NO_BATCH, NO_SETS, SETS_IN_ARRAY, NUMBER_OF_SETS, NO_ON_ERROR].contains(rejection)
}

/// Reads the requests of a body. What serde says about it is not passed on: it may quote the body at length.
pub(super) fn of_body(
    body: &[u8],
    bounds: Bounds,
    memory: &mut MemoryReservation,
) -> Result<GraphQLRequest, Rejection> {
    memory.grow(check_json(body, bounds)? * VALUE_BYTES)?;
    let refuse = |error: serde_json::Error| if error.is_data() { NO_REQUEST } else { NO_JSON };
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => {
            serde_json::from_slice(body).map(|params| GraphQLRequest::One(Box::new(params))).map_err(refuse)
        }
        Some(b'[') => {
            // Objects only: serde would take an array for the fields of a request in their order.
            let items: Vec<Map<String, Value>> = serde_json::from_slice(body).map_err(refuse)?;
            if items.is_empty() || items.len() > bounds.batch {
                return Err(NO_BATCH);
            }
            let requests = items.into_iter().map(|item| serde_json::from_value(Value::Object(item)));
            requests.collect::<Result<_, _>>().map(GraphQLRequest::Batch).map_err(refuse)
        }
        _ if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() => Err(NO_REQUEST),
        _ => Err(NO_JSON),
    }
}

/// Reads the request of a query string.
pub(super) fn of_uri(uri: &Uri, bounds: Bounds) -> Result<GraphQLParams, Rejection> {
    let mut fields = Map::new();
    for (name, text) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        let value = match name.as_ref() {
            "query" | "operationName" | "documentId" | "doc_id" | "id" | "onError" | "variables"
            | "extensions"
                if text.is_empty() =>
            {
                Value::Null
            }
            "query" | "operationName" | "documentId" | "doc_id" | "id" | "onError" => {
                Value::String(text.into_owned())
            }
            "variables" | "extensions" => {
                check_json(text.as_bytes(), bounds)?;
                serde_json::from_str(&text).map_err(|_| NO_REQUEST)?
            }
            _ => continue,
        };
        if fields.insert(name.into_owned(), value).is_some() {
            return Err(NO_REQUEST);
        }
    }
    serde_json::from_value(Value::Object(fields)).map_err(|_| NO_REQUEST)
}

/// Refuses JSON that is nested too deep or has too many values, before anything is built of it; says how many it has.
/// Whether it is JSON at all is not its matter.
pub(super) fn check_json(json: &[u8], bounds: Bounds) -> Result<usize, Rejection> {
    let (mut depth, mut values, mut in_text, mut escaped) = (0_usize, 1_usize, false, false);
    for byte in json {
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'[' | b'{' => {
                (depth, values) = (depth + 1, values + 1);
                if depth > bounds.depth {
                    return Err(TOO_DEEP);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
    }
    if values > bounds.values { Err(TOO_MANY_VALUES) } else { Ok(values) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{memory::MemoryPool, shares::Owner};

    const BOUNDS: Bounds = Bounds { bytes: 1 << 20, depth: 8, values: 20, batch: 2, sets: 2 };

    fn refused_within(bounds: Bounds, body: &str) -> Option<Rejection> {
        let mut memory = MemoryPool::new(1 << 20, 100).reserve(Owner::default());
        of_body(body.as_bytes(), bounds, &mut memory).err()
    }

    fn refused(body: &str) -> Option<Rejection> {
        refused_within(BOUNDS, body)
    }

    #[test]
    fn only_objects_are_requests() {
        assert!(refused(r#" {"query": "{a}", "variables": null, "operationName": null}"#).is_none());
        for body in ["", "{", "nonsense", r#"{"query": "{a}"} x"#, "[", r#"[{"query": "{a}"}"#] {
            assert_eq!(refused(body), Some(NO_JSON), "{body}");
        }
        for body in [
            r#"["{a}"]"#,
            "1",
            r#"{"query": 1}"#,
            r#"{"query": "{a}", "variables": [1]}"#,
            r#"{"query": "{a}", "extensions": []}"#,
            r#"{"query": "{a}", "extensions": "x"}"#,
            r#"{"query": "{a}", "operationName": {}}"#,
            r#"{"query": "{a}", "query": "{b}"}"#,
        ] {
            assert_eq!(refused(body), Some(NO_REQUEST), "{body}");
        }
    }

    #[test]
    fn arrays_have_a_bound() {
        assert!(refused(r#"[{"query": "{a}"}, {"query": "{b}"}]"#).is_none());
        for body in ["[]", r#"[{"query": "{a}"}, {}, {}]"#] {
            assert_eq!(refused(body), Some(NO_BATCH), "{body}");
        }
        let none = Bounds { batch: 0, ..BOUNDS };
        assert_eq!(refused_within(none, r#"[{"query": "{a}"}]"#), Some(NO_BATCH));
    }

    #[test]
    fn json_has_bounds_on_depth_and_values() {
        let deep = |levels: usize| {
            format!(r#"{{"variables": {{"x": {}1{}}}}}"#, "[".repeat(levels), "]".repeat(levels))
        };
        assert_eq!(
            (refused(&deep(6)), refused(&deep(7)), refused(&deep(100_000))),
            (None, Some(TOO_DEEP), Some(TOO_DEEP))
        );
        let wide = |count: usize| format!(r#"{{"variables": {{"x": [{}1]}}}}"#, "1,".repeat(count));
        assert_eq!((refused(&wide(16)), refused(&wide(17))), (None, Some(TOO_MANY_VALUES)));
        assert_eq!(
            refused(r#"{"query": "[[[[[[[[[[[[[[[\",,,,,,,,,,,,,,,,,,,,,,,,,,,,{{{{{{{{{{{{{"}"#),
            None,
            "in a text"
        );
    }

    #[test]
    fn an_id_is_found_where_it_may_be() {
        let params: GraphQLParams = serde_json::from_str(
            r#"{"documentId": "a", "doc_id": "b", "id": "c", "extensions": {"persistedQuery": {"version": 1, "sha256Hash": "d"}}}"#,
        )
        .expect("a request");
        let persisted = params.persisted_query().expect("given");
        assert_eq!((persisted.hash, persisted.is_version_1), ("d", true));
        assert_eq!((params.document_id.as_deref(), params.other_id()), (Some("a"), Some("b")));
        let params =
            of_uri(&Uri::from_static("/graphql?id=c&extensions=%7B%22persistedQuery%22%3A1%7D"), BOUNDS);
        let params = params.expect("a request");
        assert!(params.persisted_query().is_none());
        assert_eq!(params.other_id(), Some("c"));
    }
}

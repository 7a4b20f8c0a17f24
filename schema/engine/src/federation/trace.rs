//! What Apollo's gateways call `ftv1`: which fields a request resolved, and when, as a tree in the form of the answer
//! (`reports.proto` of `@apollo/usage-reporting-protobuf`), in base64. Made only where it is asked for.
//!
//! Fields are loaded for all rows of a level at once, so the fields of one level share their times: an edge
//! begins when its keys are asked for and ends when its rows are there, and a column begins and ends with its
//! row. Errors say where and with which code, never what. Not here: who may ask (`src`).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use prost::Message;

use crate::{
    cost::OutputTypes,
    error::{Code, SourceLocation},
};

/// Stands for every message.
const MASKED: &str = "<masked>";

/// Nanoseconds since the request began; 0 where nobody asks for a trace.
pub type Moment = u64;

/// From when to when a field was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// When it began.
    pub start: Moment,
    /// When it ended.
    pub end: Moment,
}

/// The clock of a request that is traced.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that begins now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since it began.
    pub fn now(self) -> Moment {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A field as the tree knows it.
pub struct Traced<'a> {
    /// The type that has the field.
    pub parent: &'a str,
    /// The field's name.
    pub name: &'a str,
    /// Its key in the answer.
    pub key: &'a str,
    /// When it was loaded.
    pub span: Span,
}

/// The tree in the making, along with the answer: its open nodes, the innermost last.
pub struct Tree {
    types: Arc<OutputTypes>,
    open: Vec<Node>,
}

impl Tree {
    /// A tree without fields.
    pub fn new(types: Arc<OutputTypes>) -> Self {
        Self { types, open: vec![Node::default()] }
    }

    /// From now on it is about this field, until `leave`; the bytes that this takes.
    pub fn enter(&mut self, field: &Traced<'_>) -> usize {
        let ty = match (self.types.field(field.parent, field.name), field.name) {
            (Some(shape), _) => shape.text.clone(),
            (None, "_entities") => "[_Entity]!".to_owned(),
            (None, "_service") => "_Service!".to_owned(),
            (None, _) => String::new(),
        };
        self.open.push(Node {
            id: Some(Id::ResponseName(field.key.to_owned())),
            original_field_name: if field.key == field.name { String::new() } else { field.name.to_owned() },
            ty,
            parent_type: field.parent.to_owned(),
            start_time: field.span.start,
            end_time: field.span.end,
            ..Node::default()
        });
        size_of::<Node>() + field.key.len() + field.name.len() + field.parent.len()
    }

    /// From now on it is about this item of a list.
    pub fn enter_item(&mut self, index: usize) {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        self.open.push(Node { id: Some(Id::Index(index)), ..Node::default() });
    }

    /// The innermost field or item is done.
    pub fn leave(&mut self) {
        let node = self.open.pop().expect("what is left was entered");
        self.open.last_mut().expect("the root stays").child.push(node);
    }

    /// The object that is being written was there at this moment: the field that it belongs to ended then, before
    /// everything beneath it.
    pub fn loaded(&mut self, at: Moment) {
        let field = self.open.iter_mut().rev().find(|node| !matches!(node.id, Some(Id::Index(_))));
        let field = field.expect("the root stays");
        field.end_time = field.end_time.min(at);
    }

    /// The innermost field failed.
    pub fn fail(&mut self, code: Code, location: SourceLocation) {
        let node = self.open.last_mut().expect("the root stays");
        let json = serde_json::json!({ "message": MASKED, "extensions": { "code": code.as_str() } });
        let clamped = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        node.error.push(Error {
            message: MASKED.to_owned(),
            location: vec![Location { line: clamped(location.line), column: clamped(location.column) }],
            time_ns: node.end_time,
            json: json.to_string(),
        });
    }

    /// The tree of a request that began at this time and took so long, ready for `extensions.ftv1`.
    pub fn finish(mut self, began: DateTime<Utc>, took: Duration) -> String {
        while self.open.len() > 1 {
            self.leave();
        }
        let root = self.open.pop().map(|root| Node { end_time: 0, ..root });
        let trace = Trace {
            start_time: Some(timestamp(began)),
            end_time: Some(timestamp(began + took)),
            duration_ns: u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
            root,
            field_execution_weight: 1.0,
        };
        BASE64_STANDARD.encode(trace.encode_to_vec())
    }
}

fn timestamp(time: DateTime<Utc>) -> Timestamp {
    let nanos = i32::try_from(time.timestamp_subsec_nanos()).unwrap_or_default();
    Timestamp { seconds: time.timestamp(), nanos }
}

/// `Trace`, as far as a subgraph fills it.
#[derive(Clone, PartialEq, Message)]
struct Trace {
    #[prost(message, optional, tag = "4")]
    start_time: Option<Timestamp>,
    #[prost(message, optional, tag = "3")]
    end_time: Option<Timestamp>,
    #[prost(uint64, tag = "11")]
    duration_ns: u64,
    #[prost(message, optional, tag = "14")]
    root: Option<Node>,
    /// How many requests it stands for.
    #[prost(double, tag = "31")]
    field_execution_weight: f64,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// `Trace.Node`.
#[derive(Clone, PartialEq, Message)]
pub struct Node {
    #[prost(oneof = "Id", tags = "1, 2")]
    id: Option<Id>,
    #[prost(string, tag = "3")]
    ty: String,
    #[prost(uint64, tag = "8")]
    start_time: u64,
    #[prost(uint64, tag = "9")]
    end_time: u64,
    #[prost(message, repeated, tag = "11")]
    error: Vec<Error>,
    #[prost(message, repeated, tag = "12")]
    child: Vec<Node>,
    #[prost(string, tag = "13")]
    parent_type: String,
    /// Where it has an alias.
    #[prost(string, tag = "14")]
    original_field_name: String,
}

/// What a node stands for: a field under its name in the answer, or an item of a list.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
enum Id {
    #[prost(string, tag = "1")]
    ResponseName(String),
    #[prost(uint32, tag = "2")]
    Index(u32),
}

/// `Trace.Error`.
#[derive(Clone, PartialEq, Eq, Message)]
struct Error {
    #[prost(string, tag = "1")]
    message: String,
    #[prost(message, repeated, tag = "2")]
    location: Vec<Location>,
    #[prost(uint64, tag = "3")]
    time_ns: u64,
    #[prost(string, tag = "4")]
    json: String,
}

/// `Trace.Location`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Location {
    #[prost(uint32, tag = "1")]
    line: u32,
    #[prost(uint32, tag = "2")]
    column: u32,
}

//! `ftv1`, as a gateway decodes it: the tree has the form of the answer, with the types of the schema, times
//! in order, and nothing of what went wrong but where.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use prost::Message;
use serde_json::{Value, json};

use crate::harness::{Client, TestApp};

/// `Trace` of `reports.proto`, written down a second time.
#[derive(Clone, PartialEq, Message)]
struct Trace {
    #[prost(message, optional, tag = "3")]
    end_time: Option<Timestamp>,
    #[prost(message, optional, tag = "4")]
    start_time: Option<Timestamp>,
    #[prost(uint64, tag = "11")]
    duration_ns: u64,
    #[prost(message, optional, tag = "14")]
    root: Option<Node>,
    #[prost(double, tag = "31")]
    field_execution_weight: f64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(oneof = "Id", tags = "1, 2")]
    id: Option<Id>,
    #[prost(string, tag = "3")]
    ty: String,
    #[prost(uint64, tag = "8")]
    start_time: u64,
    #[prost(uint64, tag = "9")]
    end_time: u64,
    #[prost(message, repeated, tag = "11")]
    error: Vec<Failure>,
    #[prost(message, repeated, tag = "12")]
    child: Vec<Node>,
    #[prost(string, tag = "13")]
    parent_type: String,
    #[prost(string, tag = "14")]
    original_field_name: String,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Id {
    #[prost(string, tag = "1")]
    ResponseName(String),
    #[prost(uint32, tag = "2")]
    Index(u32),
}

#[derive(Clone, PartialEq, Message)]
struct Failure {
    #[prost(string, tag = "1")]
    message: String,
    #[prost(message, repeated, tag = "2")]
    location: Vec<Location>,
    #[prost(string, tag = "4")]
    json: String,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint32, tag = "1")]
    line: u32,
    #[prost(uint32, tag = "2")]
    column: u32,
}

impl Node {
    fn at(&self, path: &[&str]) -> &Self {
        path.iter().fold(self, |node, step| {
            let is_it = |child: &&Self| match &child.id {
                Some(Id::ResponseName(name)) => name == step,
                Some(Id::Index(index)) => index.to_string() == *step,
                None => false,
            };
            node.child.iter().find(is_it).unwrap_or_else(|| panic!("no {step} in {node:?}"))
        })
    }

    fn declared(&self) -> (&str, &str, &str) {
        (&self.parent_type, &self.original_field_name, &self.ty)
    }
}

async fn traced(client: Client<'_>, query: &str) -> (Trace, Value, Vec<String>) {
    let reply = client.traced().run(query, json!({})).await;
    let ftv1 = reply.extensions["ftv1"].as_str().expect("a trace");
    let bytes = BASE64_STANDARD.decode(ftv1).expect("strict base64");
    (Trace::decode(bytes.as_slice()).expect("protobuf"), reply.data, reply.codes)
}

/// A trace has the tree of the answer, but for what the library answers.
fn assert_same_form(node: &Node, value: &Value, path: &str) {
    match value {
        Value::Object(fields) => {
            let wanted: Vec<_> = fields.iter().filter(|(key, _)| *key != "__typename").collect();
            assert_eq!(node.child.len(), wanted.len(), "{path}: {node:?}");
            for (key, value) in wanted {
                let child = node.at(&[key]);
                assert!(!child.ty.is_empty() && !child.parent_type.is_empty(), "{path}.{key}");
                assert_same_form(child, value, &format!("{path}.{key}"));
            }
        }
        Value::Array(items) => {
            assert_eq!(node.child.len(), items.len(), "{path}");
            for (index, (child, value)) in node.child.iter().zip(items).enumerate() {
                assert_eq!(child.id, Some(Id::Index(index as u32)), "{path}");
                assert_same_form(child, value, &format!("{path}[{index}]"));
            }
        }
        _ => assert!(node.child.is_empty(), "{path}: {node:?}"),
    }
}

/// No field begins before the one around it has ended, and none ends after the request.
fn assert_in_order(node: &Node, not_before: u64, duration: u64) {
    let ended = if matches!(node.id, Some(Id::ResponseName(_))) {
        assert!(not_before <= node.start_time, "{node:?}");
        assert!(node.start_time <= node.end_time && node.end_time <= duration, "{node:?}");
        node.end_time
    } else {
        not_before
    };
    node.child.iter().for_each(|child| assert_in_order(child, ended, duration));
}

#[tokio::test]
async fn the_trace_is_the_tree_of_the_answer() {
    for app in TestApp::both().await {
        let me = TestApp::account(entities::Role::Admin);
        let query = format!(
            "{{ me {{ __typename id mail: email }}
               users(first: 3) {{ totalCount pageInfo {{ hasNextPage end: endCursor }}
                 edges {{ cursor node {{ id sessions(first: 2) {{ nodes {{ id }} }} }} }} }}
               gone: node(id: \"00000000-0000-7000-8000-000000000000\") {{ id }}
               _entities(representations: [{{__typename: \"User\", id: \"{me}\"}}, {{__typename: \"Nothing\"}}]) {{
                 ... on User {{ displayName }} }} }}"
        );
        let (trace, data, codes) = traced(app.as_admin(), &query).await;
        let root = trace.root.expect("a root");
        assert_same_form(&root, &data, "data");
        assert_in_order(&root, 0, trace.duration_ns);
        for (path, declared) in [
            (&["me"][..], ("Query", "", "User")),
            (&["me", "mail"], ("User", "email", "String")),
            (&["users"], ("Query", "", "UserConnection!")),
            (&["users", "totalCount"], ("UserConnection", "", "Int!")),
            (&["users", "pageInfo", "end"], ("PageInfo", "endCursor", "String")),
            (&["users", "edges", "1", "cursor"], ("UserEdge", "", "String!")),
            (&["users", "edges", "1", "node", "sessions"], ("User", "", "SessionConnection!")),
            (&["gone"], ("Query", "node", "Node")),
            (&["_entities"], ("Query", "", "[_Entity]!")),
            (&["_entities", "0", "displayName"], ("User", "", "String!")),
        ] {
            assert_eq!(root.at(path).declared(), declared, "{path:?}");
        }
        // The rows of a level are loaded together.
        let of = |index| root.at(&["users", "edges", index, "node", "sessions"]);
        assert_eq!((of("0").start_time, of("0").end_time), (of("2").start_time, of("2").end_time));
        assert!(of("0").start_time < of("0").end_time);
        let failed = &root.at(&["_entities", "1"]).error;
        assert_eq!((failed.len(), failed[0].message.as_str()), (1, "<masked>"));
        assert_eq!((failed[0].location[0].line, codes.as_slice()), (5, &["BAD_USER_INPUT".to_owned()][..]));
        let json: Value = serde_json::from_str(&failed[0].json).expect("JSON");
        assert_eq!(json, json!({ "message": "<masked>", "extensions": { "code": "BAD_USER_INPUT" } }));
        let (start, end) = (trace.start_time.expect("a start"), trace.end_time.expect("an end"));
        let elapsed = (end.seconds - start.seconds) * 1_000_000_000 + i64::from(end.nanos - start.nanos);
        assert!((elapsed - trace.duration_ns as i64).abs() < 2_000, "{elapsed} is not {}", trace.duration_ns);
        assert!((trace.field_execution_weight - 1.0).abs() < f64::EPSILON);
    }
}

#[tokio::test]
async fn what_took_its_parents_along_is_in_the_trace() {
    let app = TestApp::sqlite().await;
    let (trace, data, codes) =
        traced(app.as_admin(), "{ me { sessions(first: 1, after: \"x\") { nodes { id } } } }").await;
    assert_eq!((data, codes), (json!({ "me": null }), vec!["BAD_CURSOR".to_owned()]));
    let root = trace.root.expect("a root");
    let failed = &root.at(&["me", "sessions"]).error[0];
    assert_eq!(failed.message, "<masked>");
    assert!(failed.json.contains("BAD_CURSOR"), "{}", failed.json);
}

#[tokio::test]
async fn a_mutations_trace_has_its_fields_one_after_the_other() {
    for app in TestApp::both_own().await {
        let mutation = "mutation { a: updateProfile(input: {}) { user { id } userErrors { code } } b: updateProfile(input: {}) { user { id } } }";
        let (trace, data, codes) = traced(app.as_admin(), mutation).await;
        assert_eq!(codes, Vec::<String>::new());
        let root = trace.root.expect("a root");
        assert_same_form(&root, &data, "data");
        assert_eq!(root.at(&["a"]).declared().0, "Mutation");
        assert!(root.at(&["a"]).end_time <= root.at(&["b"]).start_time);
    }
}

#[tokio::test]
async fn traces_are_given_only_on_request() {
    let app = TestApp::sqlite().await;
    let reply = app.as_admin().run("{ me { id } }", json!({})).await;
    assert_eq!(reply.extensions.get("ftv1"), None);
    let (trace, ..) = traced(app.anonymous(), "{ __typename }").await;
    assert_eq!(trace.root, Some(Node::default()), "nothing was resolved");
}

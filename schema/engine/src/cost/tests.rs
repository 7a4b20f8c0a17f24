//! Costs of documents of a small schema.

use async_graphql::parser::{parse_query, parse_schema, types::DocumentOperations};
use serde_json::json;

use super::*;

const SDL: &str = "
    type Query {
        users(first: Int, last: Int, filter: [ID!]): UserConnection! @listSize(assumedSize: 20, slicingArguments: [\"first\", \"last\"], sizedFields: [\"nodes\", \"edges\"], requireOneSlicingArgument: false)
        nodes(ids: [ID!]!): [Node]! @listSize(assumedSize: 100)
        me: User
    }
    interface Node { id: ID! }
    type UserConnection { nodes: [User!]! edges: [UserEdge!]! totalCount: Int! pageInfo: PageInfo! }
    type UserEdge { node: User! cursor: String! }
    scalar JSON
    input Range { from: String }
    type PageInfo { hasNextPage: Boolean! }
    type User implements Node {
        id: ID! name: String best: User
        friends(first: Int, last: Int): UserConnection! @listSize(assumedSize: 20, slicingArguments: [\"first\", \"last\"], sizedFields: [\"nodes\", \"edges\"], requireOneSlicingArgument: false)
        track(range: Range @cost(weight: 1000), maxPoints: Int = 500): [User!]! @cost(weight: 0) @listSize(slicingArguments: [\"maxPoints\"])
        data: JSON @cost(weight: 10)
        tags: [User!]! @listSize(assumedSize: 10)
    }
";

fn cost(text: &str, variables: serde_json::Value) -> u64 {
    let types = OutputTypes::of(&parse_schema(SDL).expect("SDL"));
    let document = parse_query(text).expect("a document");
    let DocumentOperations::Single(operation) = &document.operations else { panic!("one operation") };
    let cost = types.cost("Query", &operation.node.selection_set.node, &document.fragments);
    cost.with(&serde_json::from_value(variables).expect("variables"))
}

#[test]
fn sizes_are_multiplied() {
    for (text, expected) in [
        ("{ me { id name } }", 1),
        ("{ __typename __schema { types { name } } }", 0),
        ("{ users { totalCount } }", 1),
        ("{ users { nodes { id } } }", 1 + 20),
        ("{ users(first: 50) { nodes { id } pageInfo { hasNextPage } } }", 1 + 50 + 1),
        ("{ users(last: 5) { edges { cursor node { id } } } }", 1 + 5 * 2),
        ("{ users(first: 3, filter: [1, 2, 3, 4]) { nodes { id } } }", 1 + 3),
        (
            "{ users(first: 50) { nodes { friends(first: 5) { nodes { best { id } } } } } }",
            1 + 50 * (1 + 1 + 5 * 2),
        ),
        (
            "{ users(first: 100) { nodes { ...F } } } fragment F on User { friends { nodes { id } } }",
            1 + 100 * 22,
        ),
        ("{ nodes(ids: [1, 2, 3]) { ... on User { best { id } } } }", 3 * 2),
        ("{ me { track(range: {}) { id } } }", 1 + 1_000),
        ("query($r: Range) { me { track(range: $r, maxPoints: 10) { best { id } } } }", 1 + 1_000 + 10),
        ("{ me { data more: data id } }", 1 + 2 * 10),
        ("{ users(first: 50) { nodes { data } } }", 1 + 50 * 11),
        ("{ nodes(ids: [1, 2]) { ... on User { ...F } } } fragment F on User { a: data b: data }", 2 * 21),
        ("{ me { tags { id } } }", 1 + ASSUMED_ROWS),
        ("{ me { id @skip(if: true) best { id } } me { best { id } } }", 4),
        ("{ _entities(representations: [1, 2]) { ... on User { best { id } } } }", 2 * 2),
    ] {
        assert_eq!(cost(text, json!({})), expected, "{text}");
    }
}

#[test]
fn sizes_in_variables_are_put_in() {
    let text = "query($n: Int, $m: Int = 2) { users(first: $n) { nodes { friends(first: $m, last: 3) { nodes { id } } } } }";
    for (variables, expected) in [
        (json!({}), 1 + 20 * (1 + 1 + 3)),
        (json!({ "n": null }), 1 + 20 * (1 + 1 + 3)),
        (json!({ "n": 100, "m": 10 }), 1 + 100 * (1 + 1 + 10)),
        (json!({ "n": -1, "m": 10 }), 1),
        (json!({ "n": u64::MAX, "m": u64::MAX }), u64::MAX),
    ] {
        assert_eq!(cost(text, variables.clone()), expected, "{variables}");
    }
    let nodes = "query($ids: [ID!]!) { nodes(ids: $ids) { id } }";
    assert_eq!(cost(nodes, json!({ "ids": ["a", "b", "c"] })), 3);
}

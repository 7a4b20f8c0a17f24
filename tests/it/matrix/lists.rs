//! Every connection that leads to objects, walked by every role: no page of it shows or counts what is hidden.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    RULES, Tally, Who, World, everything, ids_only,
    rules::{LISTS_OF_ROOT, Rule},
};
use crate::harness::text;

/// The lists that lead to objects of a type: from the root, or from objects of another type, as the rules say.
pub(super) fn lists() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let of_objects = RULES.iter().flat_map(|(parent, fields)| {
        fields.iter().filter_map(|(list, rule)| match rule {
            Rule::Connection(type_name) => Some((*parent, *list, *type_name)),
            _ => None,
        })
    });
    LISTS_OF_ROOT.iter().map(|(list, type_name)| ("Query", *list, *type_name)).chain(of_objects)
}

/// Its nodes, its edges, its count.
pub(super) async fn walk(who: Who, world: &World, tally: &mut Tally) {
    for (parent, list, type_name) in lists() {
        let fragment = everything(type_name, ids_only);
        let all: BTreeMap<String, &Value> =
            world.of_type(type_name).map(|whole| (text(&whole["id"]), whole)).collect();
        let first = if type_name == "Location" { 1_000 } else { 100 };
        let selection = format!(
            "{list}(first: {first}) {{ totalCount nodes {{ {fragment} }} edges {{ cursor node {{ id }} }}
             pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }} }}"
        );
        let mut found = Vec::new();
        if parent == "Query" {
            let data = world.ask(who, &format!("{{ {selection} }}"), &json!({})).await;
            // The newest positions are some of all; of the others nothing that is seen is missing.
            if list != "latestLocations" {
                let seen = all.values().filter(|whole| who.sees(type_name, whole)).count();
                let count = &data[list]["totalCount"];
                tally.expect(*count == seen, || format!("{who:?} counts {count} {list}, not {seen}"));
            }
            found.push(data[list].clone());
        } else {
            let ids: Vec<&Value> = world.of_type(parent).map(|whole| &whole["id"]).collect();
            for ids in ids.chunks(10) {
                let query = format!(
                    "query($ids: [ID!]!) {{ nodes(ids: $ids) {{ ... on {parent} {{ {selection} }} }} }}"
                );
                let data = world.ask(who, &query, &json!({ "ids": ids })).await;
                let parents = data["nodes"].as_array().expect("a list").iter();
                found.extend(parents.filter(|parent| !parent.is_null()).map(|parent| parent[list].clone()));
            }
        }
        for connection in found {
            let nodes = connection["nodes"].as_array().expect("nodes");
            for node in nodes {
                tally.check(who, &format!("{parent}.{list}"), type_name, all[&text(&node["id"])], node);
                if !who.sees(type_name, all[&text(&node["id"])]) {
                    tally.wrong.push(format!("{who:?} sees {node} in {parent}.{list}"));
                }
            }
            let edges = connection["edges"].as_array().expect("edges").iter();
            let of_edges: Vec<&Value> = edges.map(|edge| &edge["node"]["id"]).collect();
            let of_nodes: Vec<&Value> = nodes.iter().map(|node| &node["id"]).collect();
            let page = &connection["pageInfo"];
            tally.cells += 4;
            assert_eq!(of_edges, of_nodes);
            assert_eq!(connection["totalCount"], nodes.len(), "{who:?} {parent}.{list}");
            assert_eq!((&page["hasNextPage"], &page["hasPreviousPage"]), (&json!(false), &json!(false)));
            let cursor = |edge: Option<&Value>| edge.map_or(Value::Null, |edge| edge["cursor"].clone());
            let edges = connection["edges"].as_array().expect("edges");
            assert_eq!(page["startCursor"], cursor(edges.first()));
            assert_eq!(page["endCursor"], cursor(edges.last()));
        }
    }
}

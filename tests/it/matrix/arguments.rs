//! Filters, orders and cursors of every connection choose from what a role sees, and tell nothing of the rest: what a
//! role gets is what the rules leave of what the service gets for the same arguments. Hidden columns neither filter nor
//! sort. An argument of the schema that is not tried here fails.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Tally, Who, World, known, lists::lists, mark};
use crate::harness::{Reply, SchemaTypes, introspect, text};

/// Filters and orders of accounts that read hidden columns.
const PRIVATE: [&str; 5] =
    ["filter.roles", "filter.isActive", "filter.lastLogin", "orderBy.LAST_LOGIN", "orderBy.EMAIL"];

/// One argument of a list, with a value that leaves some rows out.
struct Choice {
    /// `filter.roles`, `orderBy.EMAIL`, `activeOnly`.
    name: String,
    /// As it stands in a document.
    text: String,
}

impl Choice {
    fn filter(name: &str, value: impl std::fmt::Display) -> Self {
        Self { name: format!("filter.{name}"), text: format!("filter: {{ {name}: {value} }}") }
    }

    fn of(name: &str, value: impl std::fmt::Display) -> Self {
        Self { name: name.to_owned(), text: format!("{name}: {value}") }
    }

    fn orders<const N: usize>(fields: [&str; N]) -> impl Iterator<Item = Self> {
        let both = |field: &str| {
            ["ASC", "DESC"].map(|way| Self {
                name: format!("orderBy.{field}"),
                text: format!("orderBy: {{ field: {field}, direction: {way} }}"),
            })
        };
        fields.map(both).into_iter().flatten()
    }

    fn is_private(&self, type_name: &str) -> bool {
        type_name == "User" && PRIVATE.contains(&self.name.as_str())
    }

    /// Does it choose this object for somebody who sees it, where it does for the service?
    fn holds_for(&self, who: Who, type_name: &str, whole: &Value) -> bool {
        match (type_name, self.name.as_str()) {
            // E-mails are searched for those who may see them.
            ("User", "filter.search") if !who.manages() => {
                let name = text(&whole["displayName"]).to_lowercase();
                self.text.split('"').nth(1).is_some_and(|term| name.contains(term))
            }
            // A session that is hidden is as good as none.
            ("Location", "filter.sessionIds") => who.administers() || who.owns(&whole["user"]),
            _ => true,
        }
    }
}

const AREA: &str = "{ box: { west: 0, south: -60, east: -60, north: 80 } }";

/// Every argument of a list but those of its pages.
fn choices(list: &str, type_name: &str, world: &World) -> Vec<Choice> {
    // From the middle on, so that both sides have rows.
    let since = |field: &str| {
        let mut times: Vec<_> = world.of_type(type_name).filter_map(|whole| whole[field].as_str()).collect();
        times.sort_unstable();
        Choice::filter(field, format!("{{ from: {:?} }}", times[times.len() / 2]))
    };
    let some = |type_name: &str| ids(world.of_type(type_name).step_by(2).take(40));
    let mut choices = match (list, type_name) {
        (_, "Session") => vec![Choice::of("activeOnly", true)],
        (_, "User") => vec![
            Choice::filter("search", "\"man\""),
            Choice::filter("search", "\"example.com\""),
            Choice::filter("roles", "[ADMIN, COLLECTOR]"),
            Choice::filter("isActive", false),
            since("createdAt"),
            since("lastLogin"),
        ],
        (_, "Form") => vec![
            Choice::filter("search", "\"a\""),
            Choice::filter("statuses", "[DRAFT, CLOSED]"),
            Choice::filter("statuses", "[OPEN]"),
            Choice::filter("ownerIds", some("User")),
            since("createdAt"),
        ],
        (_, "Submission") => vec![
            Choice::filter("formIds", some("Form")),
            Choice::filter("userIds", some("User")),
            Choice::filter("versions", "[1]"),
            since("createdAt"),
        ],
        ("latestLocations", _) => vec![Choice::of("area", AREA), Choice::of("userIds", some("User"))],
        (_, "Location") => vec![
            since("timestamp"),
            Choice::filter("area", AREA),
            Choice::filter("sessionIds", ids(sessions_with_positions(world).into_iter())),
            Choice::filter("maxAccuracy", 10),
        ],
        (_, "ActivityLog") => {
            vec![Choice::filter("actionTypes", "[\"session.create\", \"form.publish\"]"), since("createdAt")]
        }
        (_, "Webhook") => vec![Choice::of("isEnabled", false), Choice::of("ownerIds", some("User"))],
        ("webhookDeliveries", _) => {
            let webhook = world.of_type("Webhook").nth(1).map(|whole| &whole["id"]).expect("there are some");
            vec![Choice::of("webhookId", webhook), Choice::of("statuses", "[PENDING, SKIPPED]")]
        }
        (_, "WebhookDelivery") => vec![Choice::of("statuses", "[PENDING, SKIPPED]")],
        // Its pages alone: `gaps` finds what is missing.
        _ => Vec::new(),
    };
    match type_name {
        "User" => choices.extend(Choice::orders(["CREATED_AT", "LAST_LOGIN", "DISPLAY_NAME", "EMAIL"])),
        "Form" => choices.extend(Choice::orders(["CREATED_AT", "UPDATED_AT", "TITLE"])),
        _ => {}
    }
    choices
}

fn ids<'a>(objects: impl Iterator<Item = &'a Value>) -> String {
    json!(objects.map(|whole| &whole["id"]).collect::<Vec<_>>()).to_string()
}

fn sessions_with_positions(world: &World) -> Vec<&Value> {
    let sessions = world.of_type("Location").map(|whole| &whole["session"]);
    let by_id: BTreeMap<&str, &Value> =
        sessions.filter_map(|session| Some((session["id"].as_str()?, session))).collect();
    by_id.into_values().take(40).collect()
}

/// What of the schema's arguments is not among the choices.
fn gaps(shape: &SchemaTypes, (parent, list): (&str, &str), tried: &[Choice]) -> BTreeSet<String> {
    let mut needed = BTreeSet::new();
    for (name, of) in &shape[parent].fields[list].arguments {
        match name.as_str() {
            "first" | "after" | "last" | "before" => {}
            "filter" => needed.extend(shape[of].input_fields.keys().map(|field| format!("filter.{field}"))),
            "orderBy" => {
                let fields = &shape[&shape[of].input_fields["field"]].values;
                needed.extend(fields.iter().map(|field| format!("orderBy.{field}")));
            }
            _ => drop(needed.insert(name.clone())),
        }
    }
    needed.into_iter().filter(|name| tried.iter().all(|choice| choice.name != *name)).collect()
}

/// Where a list is.
#[derive(Clone, Copy)]
struct Place<'a> {
    parent: &'a str,
    list: &'a str,
    type_name: &'a str,
    /// The objects that have it; none for those of the root.
    parents: &'a [&'a Value],
}

impl Place<'_> {
    fn document(&self, arguments: &str) -> String {
        let Self { parent, list, type_name, .. } = self;
        let node = known(type_name);
        let selection = format!(
            "{list}({arguments}) {{ totalCount pageInfo {{ hasNextPage }} edges {{ cursor node {{ {node} }} }} }}"
        );
        match *parent {
            "Query" => format!("{{ {selection} }}"),
            _ => {
                format!("query($ids: [ID!]!) {{ nodes(ids: $ids) {{ ... on {parent} {{ {selection} }} }} }}")
            }
        }
    }

    fn variables(&self) -> Value {
        if self.parent == "Query" {
            return json!({});
        }
        json!({ "ids": self.parents.iter().map(|whole| &whole["id"]).collect::<Vec<_>>() })
    }

    fn most_rows(&self) -> usize {
        if self.type_name == "Location" { 1_000 } else { 100 }
    }

    async fn of_service(&self, world: &World, arguments: &str) -> Vec<Value> {
        let query = self.document(arguments);
        let mut data = world.app.service().run(&query, self.variables()).await.expect_data(&query);
        mark(&mut data, &world.filled_in);
        self.read(data)
    }

    async fn of(&self, who: Who, world: &World, arguments: &str) -> Reply {
        world.run(who, &self.document(arguments), &self.variables()).await
    }

    /// The list of each parent, or null.
    fn read(&self, data: Value) -> Vec<Value> {
        let parents = if self.parent == "Query" {
            vec![data]
        } else {
            data["nodes"].as_array().expect("a list").clone()
        };
        parents.into_iter().map(|parent| parent[self.list].clone()).collect()
    }

    /// Does `who` see the list's parent?
    fn is_seen(&self, who: Who, index: usize) -> bool {
        self.parent == "Query" || who.sees(self.parent, self.parents[index])
    }
}

fn edges(list: &Value) -> &[Value] {
    list["edges"].as_array().expect("edges")
}

fn ids_of<'a>(edges: impl Iterator<Item = &'a Value>) -> Vec<&'a Value> {
    edges.map(|edge| &edge["node"]["id"]).collect()
}

/// Every argument and some cursors of every list, by every role.
pub(super) async fn ask(world: &World, tally: &mut Tally) {
    let shape = introspect(&world.app).await;
    for (parent, list, type_name) in lists() {
        let choices = choices(list, type_name, world);
        assert_eq!(gaps(&shape, (parent, list), &choices), BTreeSet::new(), "{parent}.{list}: add choices");
        let parents: Vec<&Value> =
            if parent == "Query" { Vec::new() } else { world.of_type(parent).collect() };
        let chunks: Vec<&[&Value]> = if parent == "Query" { vec![&[]] } else { parents.chunks(50).collect() };
        for parents in chunks {
            let place = Place { parent, list, type_name, parents };
            for choice in &choices {
                choose(place, choice, world, tally).await;
            }
        }
        turn(Place { parent, list, type_name, parents: &parents }, world, tally).await;
    }
}

async fn choose(place: Place<'_>, choice: &Choice, world: &World, tally: &mut Tally) {
    let type_name = place.type_name;
    let all: BTreeMap<String, &Value> =
        world.of_type(type_name).map(|whole| (text(&whole["id"]), whole)).collect();
    let arguments = format!("{}, first: {}", choice.text, place.most_rows());
    let whole = place.of_service(world, &arguments).await;
    for who in Who::ALL {
        let about = format!("{who:?} {}.{}({})", place.parent, place.list, choice.text);
        let reply = place.of(who, world, &arguments).await;
        if choice.is_private(type_name) && !who.manages() {
            tally.expect(reply.codes == ["FORBIDDEN"] && reply.data.is_null(), || about);
            continue;
        }
        for (index, (whole, seen)) in whole.iter().zip(place.read(reply.expect_data(&about))).enumerate() {
            assert_eq!(whole["totalCount"], edges(whole).len(), "one page");
            if !place.is_seen(who, index) {
                tally.expect(seen.is_null(), || format!("{about}: {seen}"));
                continue;
            }
            let shown = |edge: &&Value| {
                let object = &edge["node"];
                who.sees(type_name, object) && choice.holds_for(who, type_name, all[&text(&object["id"])])
            };
            let wanted = ids_of(edges(whole).iter().filter(shown));
            let got = ids_of(edges(&seen).iter());
            tally.expect(got == wanted && seen["totalCount"] == wanted.len(), || {
                format!("{about}: {} of {got:?} for {wanted:?}", seen["totalCount"])
            });
        }
    }
}

/// The cursor of a row that is hidden is a place in the list like any other.
async fn turn(place: Place<'_>, world: &World, tally: &mut Tally) {
    let rows = place.most_rows();
    let whole = place.of_service(world, &format!("first: {rows}")).await;
    let longest = (0..whole.len()).max_by_key(|index| edges(&whole[*index]).len()).expect("there is one");
    let all = edges(&whole[longest]);
    let parents = if place.parent == "Query" { &[] } else { &place.parents[longest..=longest] };
    let place = Place { parents, ..place };
    for at in [0, all.len() / 2] {
        let cursor = &all[at]["cursor"];
        let ways = [
            (format!("first: {rows}, after: {cursor}"), &all[at + 1..]),
            (format!("last: {rows}, before: {cursor}"), &all[..at]),
        ];
        for (arguments, side) in ways {
            for who in Who::ALL {
                let about = format!("{who:?} {}.{}({arguments})", place.parent, place.list);
                let seen = place.read(place.of(who, world, &arguments).await.expect_data(&about)).remove(0);
                if !place.is_seen(who, 0) {
                    tally.expect(seen.is_null(), || format!("{about}: {seen}"));
                    continue;
                }
                let wanted = ids_of(side.iter().filter(|edge| who.sees(place.type_name, &edge["node"])));
                let got = ids_of(edges(&seen).iter());
                tally.expect(got == wanted, || format!("{about}: {got:?} for {wanted:?}"));
            }
        }
    }
}

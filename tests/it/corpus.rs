//! The corpus: operations that touch every argument of the graph (`corpus.graphql`, one in each block), and
//! for each type one with all its fields, as the access rules list them; asked on both databases by an
//! administrator, an editor and a collector. Both databases must answer with the same bytes; only within JSON
//! documents, which are sent as they are stored, PostgreSQL's `jsonb` has its own spaces and order of keys. A
//! new field, argument, input field or enum value without an operation fails here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use async_graphql::parser::{
    parse_query,
    types::{ExecutableDocument, Field, Selection, SelectionSet},
};
use async_graphql_value::Value as Ast;
use entities::{Role, clock};
use serde_json::{Value, json};

use crate::{
    harness::{Client, Reply, SchemaTypes, TestApp, introspect, node_types},
    matrix,
};

/// Each operation, with the fragments that it needs, and its name.
pub(crate) fn operations() -> Vec<(&'static str, &'static str)> {
    let blocks = include_str!("corpus.graphql").split("\n\n").map(str::trim);
    let named = blocks.map(|block| {
        let name = block.strip_prefix("query ").expect("a block begins with its operation");
        (name.split(['(', ' ']).next().expect("the operation has a name"), block)
    });
    let of_types = OF_TYPES.iter().map(|(name, operation)| (name.as_str(), operation.as_str()));
    named.chain(of_types).collect()
}

/// Some objects of each type, with all fields.
static OF_TYPES: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
    let operation = |name: &str| {
        let all = matrix::all_fields(name);
        let operation =
            format!("query Every{name}($every{name}: [ID!]!) {{ nodes(ids: $every{name}) {{ {all} }} }}");
        (format!("Every{name}"), operation)
    };
    node_types().map(operation).collect()
});
/// Objects of a type in one operation.
const OBJECTS: usize = 10;

/// Operations that may fail, by whom and how. What is refused is refused alike on both databases.
const EXPECTED: [(&str, &str); 8] = [
    // Filters and orders that would tell private columns.
    ("UsersByRole", "FORBIDDEN"),
    ("UsersByEveryRole", "FORBIDDEN"),
    ("UsersByState", "FORBIDDEN"),
    ("UsersByLogin", "FORBIDDEN"),
    ("UsersByAll", "FORBIDDEN"),
    ("UsersByLastLogin", "FORBIDDEN"),
    ("UsersByEmail", "FORBIDDEN"),
    ("UsersFilterVariable", "FORBIDDEN"),
];

/// Values for every variable of the corpus; equal on both databases, whose ids are the same.
pub(crate) async fn variables(app: &TestApp) -> Value {
    let asked = "{
        users(first: 100) { edges { cursor node { id locations { totalCount } submissions { totalCount } } } }
        forms(first: 100) { edges { cursor node { id submissionCount currentVersion { id } } } }
        activityLogs(first: 9) { edges { cursor node { id } } }
        latestLocations(first: 9) { edges { cursor node { id session { id } } } }
    }";
    let data = app.service().ask(asked).await;
    let edges = |list: &str| data[list]["edges"].as_array().expect("edges").clone();
    let most = |list: &str, count: &dyn Fn(&Value) -> i64| {
        edges(list).into_iter().max_by_key(|edge| count(&edge["node"])).expect("a row")["node"].clone()
    };
    let user = most("users", &|user| user["locations"]["totalCount"].as_i64().unwrap_or_default());
    let form = most("forms", &|form| form["submissionCount"].as_i64().unwrap_or_default());
    let submissions = "query($id: ID!) { form(id: $id) { submissions(first: 1) { nodes { id } } } }";
    let submission = app.service().run(submissions, json!({"id": form["id"]})).await.expect_data("form");
    let submission = &submission["form"]["submissions"]["nodes"][0]["id"];
    let (location, entry) = (&edges("latestLocations")[0]["node"], &edges("activityLogs")[0]["node"]["id"]);
    let (session, version) = (&location["session"]["id"], &form["currentVersion"]["id"]);
    let now = clock::now();
    let days_ago = |days| (now - chrono::TimeDelta::days(days)).to_rfc3339();
    let ids = |list: &str| edges(list).iter().map(|edge| edge["node"]["id"].clone()).collect::<Vec<_>>();
    let (users, absent) = (ids("users"), "00000000-0000-7000-8000-000000000000");
    let of = |type_name: &str, id: &Value| json!({"__typename": type_name, "id": id});
    let (mut everything, mut of_types) = (Vec::new(), Vec::new());
    for type_name in node_types() {
        let ids = app.ids_of(type_name).await;
        let (first, step) = (&ids[0], ids.len().div_ceil(OBJECTS));
        everything.push(of(type_name, &json!(first)));
        of_types.push((format!("every{type_name}"), json!(ids.iter().step_by(step).collect::<Vec<_>>())));
    }
    // And an id of another type.
    everything.extend([of("User", &json!(absent)), of("Form", &user["id"])]);
    let mut variables = json!({
        "user": user["id"], "session": session, "form": form["id"], "version": version,
        "submission": submission, "location": location["id"], "entry": entry,
        "email": "collector@example.com", "lookup": {"email": "admin@example.com"},
        "users": users[..5], "forms": ids("forms")[..3], "sessions": [session],
        "ids": [user["id"], absent, form["id"], session, entry, version, submission, location["id"], user["id"]],
        "everything": everything,
        "everyone": users.iter().map(|id| of("User", id)).collect::<Vec<_>>(),
        "byEmail": [
            {"__typename": "User", "email": "admin@example.com"},
            {"__typename": "User", "email": "EDITOR@example.com"},
            {"__typename": "User", "email": "nobody@example.com"},
        ],
        "from": days_ago(200), "to": days_ago(20), "yes": true, "no": false,
        "area": {"box": {"west": 0, "south": 0, "east": 179.5, "north": 80}},
        "userFilter": {"search": "a", "roles": "COLLECTOR", "createdAt": {"from": days_ago(300)}},
        "userOrder": {"field": "DISPLAY_NAME", "direction": "DESC"},
        "userCursor": edges("users")[4]["cursor"], "formCursor": edges("forms")[4]["cursor"],
        "entryCursor": edges("activityLogs")[4]["cursor"],
        "latestCursor": edges("latestLocations")[4]["cursor"],
    });
    variables.as_object_mut().expect("an object").extend(of_types);
    variables
}

/// The three who ask, each in a session of their own where there is one.
async fn askers(app: &TestApp) -> Vec<(Role, Client<'_>)> {
    let mut askers = Vec::new();
    for role in [Role::Admin, Role::Editor, Role::Collector] {
        let own = app.as_role(role).ask("{ me { sessions(first: 1) { nodes { id } } } }").await;
        let session = own["me"]["sessions"]["nodes"][0]["id"].as_str();
        let session = session.and_then(entities::id::SessionId::parse);
        let account = TestApp::account(role);
        let client = session.map_or(app.as_user(account, role), |id| app.in_session(account, role, id));
        askers.push((role, client));
    }
    askers
}

fn check(name: &str, role: Role, reply: &Reply) {
    for code in &reply.codes {
        let expected = role != Role::Admin && EXPECTED.contains(&(name, code));
        assert!(expected, "{name} as {role:?}: {}", reply.body);
    }
    assert!(reply.executed, "{name} as {role:?}: {}", reply.body);
}

#[tokio::test]
async fn both_databases_answer_every_operation_with_the_same_bytes() {
    let [sqlite, postgres] = TestApp::both().await;
    let variables = variables(&sqlite).await;
    assert_eq!(variables["user"], self::variables(&postgres).await["user"], "the seeds are the same");
    let operations = operations();
    assert!(operations.len() >= 60, "{}", operations.len());
    let (on_sqlite, on_postgres) = (askers(&sqlite).await, askers(&postgres).await);
    let shape = introspect(&sqlite).await;
    let mut differences = Vec::new();
    for ((role, sqlite), (_, postgres)) in on_sqlite.iter().zip(&on_postgres) {
        for (name, operation) in &operations {
            let one = sqlite.run(operation, variables.clone()).await;
            let other = postgres.run(operation, variables.clone()).await;
            let same = one.body == other.body || (has_json(&shape, operation) && one.data == other.data);
            if !same || one.errors != other.errors {
                let cut = |body: &str| body.chars().take(2_000).collect::<String>();
                differences.push(format!("{name} as {role:?}\n{}\n{}", cut(&one.body), cut(&other.body)));
                continue;
            }
            check(name, *role, &one);
            assert_eq!(one.sql.len(), other.sql.len(), "{name} as {role:?}: the same number of statements");
        }
    }
    assert!(differences.is_empty(), "{} differ\n{}", differences.len(), differences.join("\n\n"));
}

/// Does it select a field of type `JSON`?
fn has_json(shape: &SchemaTypes, operation: &str) -> bool {
    let documents = shape.values().flat_map(|of| &of.fields).filter(|(_, field)| field.of == "JSON");
    let words: BTreeSet<&str> = operation.split(|c: char| !c.is_alphanumeric()).collect();
    documents.into_iter().any(|(name, _)| words.contains(name.as_str()))
}

#[tokio::test]
async fn every_field_argument_and_input_is_in_the_corpus() {
    let app = TestApp::sqlite().await;
    let shape = introspect(&app).await;
    let mut used = Used { shape: &shape, names: BTreeSet::new() };
    for (_, operation) in operations() {
        let document = parse_query(operation).expect("the corpus parses");
        for (_, operation) in document.operations.iter() {
            used.walk(&document, "Query", &operation.node.selection_set.node);
        }
    }
    let mut all = BTreeSet::new();
    for name in reading(&shape) {
        let of = &shape[name];
        if of.kind == "OBJECT" {
            for (field, of) in &of.fields {
                all.insert(format!("{name}.{field}"));
                all.extend(of.arguments.keys().map(|argument| format!("{name}.{field}({argument})")));
            }
        }
        all.extend(of.input_fields.keys().map(|field| format!("{name}.{field}")));
        if ["UserOrderField", "FormOrderField", "OrderDirection", "Role", "FormStatus"].contains(&name) {
            all.extend(of.values.iter().map(|value| format!("{name}.{value}")));
        }
    }
    // Cursors and pages of every list are walked in `pages`.
    let is_paging =
        |name: &str| ["(first)", "(last)", "(after)", "(before)"].iter().any(|end| name.ends_with(end));
    let gaps: Vec<&String> = all.difference(&used.names).filter(|name| !is_paging(name)).collect();
    assert!(gaps.is_empty(), "no operation of corpus.graphql has: {gaps:#?}");
}

/// The types that a query can come across: not those of mutations only.
fn reading(shape: &SchemaTypes) -> BTreeSet<&str> {
    let (mut found, mut open) = (BTreeSet::new(), vec!["Query"]);
    while let Some(name) = open.pop() {
        let Some(of) = shape.get(name).filter(|_| !name.starts_with("__") && found.insert(name)) else {
            continue;
        };
        open.extend(of.input_fields.values().map(String::as_str));
        open.extend(of.fields.values().flat_map(|field| field.arguments.values()).map(String::as_str));
        open.extend(of.fields.values().map(|field| field.of.as_str()));
        let possible = of.raw["possibleTypes"].as_array().into_iter().flatten();
        open.extend(possible.filter_map(|of| of["name"].as_str()));
    }
    found
}

/// What the corpus selects and gives.
struct Used<'s> {
    shape: &'s SchemaTypes,
    names: BTreeSet<String>,
}

impl Used<'_> {
    fn walk(&mut self, document: &ExecutableDocument, on: &str, set: &SelectionSet) {
        for selection in &set.items {
            match &selection.node {
                Selection::Field(field) => self.field(document, on, &field.node),
                Selection::FragmentSpread(spread) => {
                    let fragment = &document.fragments[&spread.node.fragment_name.node].node;
                    let on = &fragment.type_condition.node.on.node;
                    self.walk(document, on, &fragment.selection_set.node);
                }
                Selection::InlineFragment(inline) => {
                    let condition = inline.node.type_condition.as_ref();
                    let on = condition.map_or(on, |condition| &condition.node.on.node);
                    self.walk(document, on, &inline.node.selection_set.node);
                }
            }
        }
    }

    fn field(&mut self, document: &ExecutableDocument, on: &str, field: &Field) {
        let shape = self.shape;
        let name = field.name.node.as_str();
        let Some(found) = shape[on].fields.get(name) else {
            assert!(name.starts_with("__"), "{on}.{name}");
            return;
        };
        self.names.insert(format!("{on}.{name}"));
        for (argument, value) in &field.arguments {
            self.names.insert(format!("{on}.{name}({})", argument.node));
            self.value(&found.arguments[argument.node.as_str()], &value.node);
        }
        self.walk(document, &found.of, &field.selection_set.node);
    }

    fn value(&mut self, of: &str, value: &Ast) {
        match value {
            Ast::List(items) => items.iter().for_each(|item| self.value(of, item)),
            Ast::Enum(name) => drop(self.names.insert(format!("{of}.{name}"))),
            Ast::Object(fields) => {
                for (name, value) in fields {
                    self.names.insert(format!("{of}.{name}"));
                    self.value(&self.shape[of].input_fields[name.as_str()].clone(), value);
                }
            }
            _ => {}
        }
    }
}

/// A field that is null in every answer is not tested by comparing answers.
#[tokio::test]
async fn the_corpus_covers_every_leaf_field() {
    let app = TestApp::sqlite().await;
    let (shape, variables) = (introspect(&app).await, variables(&app).await);
    let mut found = BTreeMap::new();
    let client = askers(&app).await.remove(0).1;
    for (_, operation) in operations() {
        let data = client.run(operation, variables.clone()).await.data;
        let document = parse_query(operation).expect("the corpus parses");
        for (_, operation) in document.operations.iter() {
            let set = &operation.node.selection_set.node;
            note(&shape, &document, "Query", set, &data, &mut found);
        }
    }
    let never: Vec<&String> = found.iter().filter(|(_, filled)| !**filled).map(|(name, _)| name).collect();
    assert!(never.is_empty(), "null or empty in every answer: {never:?}");
}

fn note(
    shape: &SchemaTypes,
    document: &ExecutableDocument,
    on: &str,
    set: &SelectionSet,
    value: &Value,
    found: &mut BTreeMap<String, bool>,
) {
    if let Value::Array(items) = value {
        return items.iter().for_each(|item| note(shape, document, on, set, item, found));
    }
    let Value::Object(fields) = value else { return };
    for selection in &set.items {
        match &selection.node {
            Selection::Field(field) => {
                let field = &field.node;
                let Some(of) = shape[on].fields.get(field.name.node.as_str()) else { continue };
                let value = fields.get(field.response_key().node.as_str()).unwrap_or(&Value::Null);
                let filled = !value.is_null() && value.as_array().is_none_or(|items| !items.is_empty());
                *found.entry(format!("{on}.{}", field.name.node)).or_default() |= filled;
                note(shape, document, &of.of, &field.selection_set.node, value, found);
            }
            Selection::FragmentSpread(spread) => {
                let fragment = &document.fragments[&spread.node.fragment_name.node].node;
                let on = fragment.type_condition.node.on.node.as_str();
                note(shape, document, on, &fragment.selection_set.node, value, found);
            }
            Selection::InlineFragment(inline) => {
                let condition = inline.node.type_condition.as_ref();
                let on = condition.map_or(on, |condition| condition.node.on.node.as_str());
                note(shape, document, on, &inline.node.selection_set.node, value, found);
            }
        }
    }
}

#[test]
fn names_in_the_corpus_are_unique() {
    let operations = operations();
    let names: BTreeSet<_> = operations.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), operations.len());
}

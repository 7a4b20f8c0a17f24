//! The access matrix: every object of a small world, with every field of its type, on every way to it, seen by every
//! role. What each may see is written down here once more, from the access rules and not from the code, and compared
//! with what the graph answers. A field of the schema without a rule fails. Not here: mutations (`catalogue`).

use std::collections::{BTreeMap, BTreeSet};

use entities::{id::UserId, user::Role};
use serde_json::{Map, Value, json};

use crate::harness::{Client, Shape, TestApp, shape, text};

/// Who asks.
#[derive(Clone, Copy, Debug)]
enum Who {
    Account(Role),
    Nobody,
}

impl Who {
    const ALL: [Self; 6] = [
        Self::Account(Role::Admin),
        Self::Account(Role::Manager),
        Self::Account(Role::Editor),
        Self::Account(Role::Collector),
        Self::Account(Role::Viewer),
        Self::Nobody,
    ];

    fn client(self, app: &TestApp) -> Client<'_> {
        match self {
            Self::Account(role) => app.as_role(role),
            Self::Nobody => app.anonymous(),
        }
    }

    fn is(self, role: Role) -> bool {
        matches!(self, Self::Account(own) if own == role)
    }

    fn administers(self) -> bool {
        self.is(Role::Admin)
    }

    fn manages(self) -> bool {
        self.is(Role::Admin) || self.is(Role::Manager)
    }

    /// Is this the caller's own account?
    fn owns(self, user: &Value) -> bool {
        let own: Option<UserId> = match self {
            Self::Account(role) => Some(TestApp::account(role)),
            Self::Nobody => None,
        };
        own.is_some_and(|own| user["id"] == *own.to_string())
    }

    fn edits(self, form: &Value) -> bool {
        self.manages() || (self.is(Role::Editor) && self.owns(&form["owner"]))
    }

    /// The rows of the table of the access rules.
    fn sees(self, type_name: &str, object: &Value) -> bool {
        if matches!(self, Self::Nobody) {
            return false;
        }
        match type_name {
            "User" => true,
            "Session" | "ActivityLog" => self.administers() || self.owns(&object["user"]),
            "Location" => self.manages() || self.owns(&object["user"]),
            "Form" => object["status"] == "OPEN" || self.edits(object),
            "FormVersion" => {
                let form = &object["form"];
                self.edits(form) || (form["status"] == "OPEN" && form["currentVersion"]["id"] == object["id"])
            }
            "Submission" => {
                let of_own_form = self.is(Role::Editor) && self.owns(&object["form"]["owner"]);
                self.manages() || self.owns(&object["user"]) || of_own_form
            }
            other => panic!("no rule says who sees a {other}"),
        }
    }
}

/// What a field shows to who sees its object.
#[derive(Clone, Copy)]
enum Rule {
    /// The same to all of them.
    Open,
    /// Null but to the account itself and to those who manage accounts.
    Private,
    /// Null but to those who may edit the form.
    Draft,
    /// The one object, if it is seen itself.
    One(&'static str),
    /// The one object, seen by whoever sees this one.
    Implied,
    /// A connection of those objects that are seen themselves.
    Connection(&'static str),
    /// A list of those objects that are seen themselves.
    List(&'static str),
    /// How many of the connection `submissions` are seen.
    Count,
}

/// A rule for every field of every object.
const RULES: [(&str, &[(&str, Rule)]); 7] = {
    use Rule::{Connection, Count, Draft, Implied, List, One, Open, Private};
    [
        (
            "User",
            &[
                ("id", Open),
                ("email", Private),
                ("role", Private),
                ("isActive", Private),
                ("lastLogin", Private),
                ("displayName", Open),
                ("createdAt", Open),
                ("updatedAt", Open),
                ("sessions", Connection("Session")),
                ("forms", Connection("Form")),
                ("submissions", Connection("Submission")),
                ("lastLocation", One("Location")),
                ("locations", Connection("Location")),
                ("track", List("Location")),
                ("activity", Connection("ActivityLog")),
            ],
        ),
        (
            "Session",
            &[
                ("id", Open),
                ("user", One("User")),
                ("ipAddress", Open),
                ("userAgent", Open),
                ("name", Open),
                ("isActive", Open),
                ("isCurrent", Open),
                ("createdAt", Open),
                ("lastActivity", Open),
                ("expiresAt", Open),
                ("revokedAt", Open),
                ("endReason", Open),
                ("locations", Connection("Location")),
                ("lastLocation", One("Location")),
            ],
        ),
        (
            "Form",
            &[
                ("id", Open),
                ("title", Open),
                ("description", Open),
                ("status", Open),
                ("version", Open),
                ("owner", One("User")),
                ("createdAt", Open),
                ("updatedAt", Open),
                ("publishedAt", Open),
                ("submissionCount", Count),
                ("currentVersion", One("FormVersion")),
                ("versions", Connection("FormVersion")),
                ("draft", Draft),
                ("draftRevision", Open),
                ("submissions", Connection("Submission")),
            ],
        ),
        (
            "FormVersion",
            &[
                ("id", Open),
                ("form", One("Form")),
                ("number", Open),
                ("definition", Open),
                ("hash", Open),
                ("jsonSchema", Open),
                ("publishedAt", Open),
                ("publishedBy", One("User")),
            ],
        ),
        (
            "Submission",
            &[
                ("id", Open),
                ("form", Implied),
                ("formVersion", Open),
                ("user", One("User")),
                ("session", One("Session")),
                ("data", Open),
                ("clientId", Open),
                ("location", One("Location")),
                ("createdAt", Open),
            ],
        ),
        (
            "Location",
            &[
                ("id", Open),
                ("timestamp", Open),
                ("receivedAt", Open),
                ("latitude", Open),
                ("longitude", Open),
                ("accuracy", Open),
                ("altitude", Open),
                ("speed", Open),
                ("heading", Open),
                ("session", One("Session")),
                ("user", One("User")),
            ],
        ),
        (
            "ActivityLog",
            &[
                ("id", Open),
                ("user", One("User")),
                ("actionType", Open),
                ("subject", One("Node")),
                ("metadata", Open),
                ("createdAt", Open),
            ],
        ),
    ]
};

fn rules_of(type_name: &str) -> &'static [(&'static str, Rule)] {
    RULES.iter().find(|(name, _)| *name == type_name).expect("a type of the table").1
}

/// What the rules need to know of an object that another leads to.
fn known(type_name: &str) -> &'static str {
    match type_name {
        "User" => "__typename id",
        "Session" | "Location" | "ActivityLog" => "__typename id user { id }",
        "Form" => "__typename id status owner { id } currentVersion { id }",
        "FormVersion" => "__typename id form { id status owner { id } currentVersion { id } }",
        "Submission" => "__typename id user { id } form { id owner { id } }",
        "Node" => {
            "__typename id ... on Session { user { id } } ... on Location { user { id } } \
             ... on ActivityLog { user { id } } ... on Form { status owner { id } } \
             ... on FormVersion { form { id status owner { id } currentVersion { id } } } \
             ... on Submission { user { id } form { id owner { id } } }"
        }
        other => panic!("{other}"),
    }
}

/// A selection of every field of a type; what it leads to is selected by `below`.
fn everything(type_name: &str, below: impl Fn(&str) -> &'static str) -> String {
    let fields = rules_of(type_name).iter().map(|(name, rule)| match rule {
        Rule::Open | Rule::Private | Rule::Draft | Rule::Count => (*name).to_owned(),
        Rule::One(of) => format!("{name} {{ {} }}", below(of)),
        Rule::Implied => format!("{name} {{ {} }}", below("Form")),
        Rule::List(of) => format!("{name}(range: {{}}, maxPoints: 1000) {{ {} }}", below(of)),
        Rule::Connection(of) => {
            let first = if *of == "Location" { 1_000 } else { 100 };
            format!("{name}(first: {first}) {{ totalCount nodes {{ {} }} }}", below(of))
        }
    });
    let fields = fields.collect::<Vec<_>>().join(" ");
    format!("... on {type_name} {{ {fields} }}")
}

fn ids_only(_: &str) -> &'static str {
    "id"
}

/// What `who` has to get of an object, from what the service sees of it.
fn expected(who: Who, type_name: &str, whole: &Value) -> Value {
    let mut seen = Map::new();
    for (name, rule) in rules_of(type_name) {
        let value = &whole[*name];
        let id = |object: &Value| json!({ "id": object["id"] });
        let shown = |object: &Value| who.sees(&text(&object["__typename"]), object);
        let filtered = |list: &Value| -> Vec<Value> {
            list.as_array().expect("a list").iter().filter(|object| shown(object)).map(id).collect()
        };
        let value = match rule {
            Rule::Open => value.clone(),
            Rule::Private if who.manages() || who.owns(whole) => value.clone(),
            Rule::Draft if who.edits(whole) => value.clone(),
            Rule::Private | Rule::Draft => Value::Null,
            Rule::One(_) if value.is_null() || !shown(value) => Value::Null,
            Rule::One(_) | Rule::Implied => id(value),
            Rule::List(_) => Value::Array(filtered(value)),
            Rule::Count => json!(filtered(&whole["submissions"]["nodes"]).len()),
            Rule::Connection(_) => {
                let nodes = filtered(&value["nodes"]);
                assert_eq!(value["totalCount"], value["nodes"].as_array().expect("a list").len(), "one page");
                json!({ "totalCount": nodes.len(), "nodes": nodes })
            }
        };
        seen.insert((*name).to_owned(), value);
    }
    Value::Object(seen)
}

/// Every object of the world: its type and what the service sees of it.
async fn world(app: &TestApp) -> Vec<(&'static str, Value)> {
    let selection = |type_name| everything(type_name, known);
    let query = format!(
        "{{ users(first: 100) {{ nodes {{ {} sessions(first: 100) {{ nodes {{ id }} }} }} }} }}",
        selection("User")
    );
    let users = app.service().ask(&query).await["users"]["nodes"].clone();
    let mut ids: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for user in users.as_array().expect("users") {
        for (field, type_name) in [
            ("sessions", "Session"),
            ("submissions", "Submission"),
            ("locations", "Location"),
            ("activity", "ActivityLog"),
        ] {
            let nodes = user[field]["nodes"].as_array().expect("nodes").iter();
            ids.entry(type_name).or_default().extend(nodes.map(|node| text(&node["id"])));
        }
    }
    let forms = app
        .service()
        .ask("{ forms(first: 100) { nodes { id versions(first: 100) { nodes { id } } submissions(first: 100) { nodes { id } } } } activityLogs(first: 100) { nodes { id } } }")
        .await;
    let all = |list: &Value| {
        list["nodes"].as_array().expect("nodes").iter().map(|node| text(&node["id"])).collect::<Vec<_>>()
    };
    ids.entry("Form").or_default().extend(all(&forms["forms"]));
    ids.entry("ActivityLog").or_default().extend(all(&forms["activityLogs"]));
    for form in forms["forms"]["nodes"].as_array().expect("forms") {
        ids.entry("FormVersion").or_default().extend(all(&form["versions"]));
        ids.entry("Submission").or_default().extend(all(&form["submissions"]));
    }
    let mut objects: Vec<(&str, Value)> =
        users.as_array().expect("users").iter().map(|user| ("User", user.clone())).collect();
    for (type_name, _) in RULES.iter().skip(1) {
        let query = format!("query($ids: [ID!]!) {{ nodes(ids: $ids) {{ {} }} }}", selection(type_name));
        let ids: Vec<&String> = ids[type_name].iter().collect();
        for ids in ids.chunks(100) {
            let data = app.service().run(&query, json!({ "ids": ids })).await.expect_data(&query);
            objects.extend(
                data["nodes"].as_array().expect("a list").iter().map(|node| (*type_name, node.clone())),
            );
        }
    }
    objects
}

/// How many cells were looked at, and which were wrong.
#[derive(Default)]
struct Tally {
    cells: usize,
    wrong: Vec<String>,
}

impl Tally {
    /// Compares what `who` got of an object on one way with what the rules say.
    fn check(&mut self, who: Who, way: &str, type_name: &str, whole: &Value, got: &Value) {
        let fields = rules_of(type_name);
        self.cells += fields.len();
        if !who.sees(type_name, whole) {
            if !got.is_null() {
                self.wrong.push(format!("{who:?} {way} {type_name} {}: {got}", whole["id"]));
            }
            return;
        }
        let wanted = expected(who, type_name, whole);
        for (field, _) in fields {
            if got[*field] != wanted[*field] {
                let (got, wanted) = (&got[*field], &wanted[*field]);
                self.wrong.push(format!(
                    "{who:?} {way} {type_name}.{field} of {}: {got} for {wanted}",
                    whole["id"]
                ));
            }
        }
    }
}

/// Asks twice: what is remembered of the first answer must not change the second.
async fn ask(client: &Client<'_>, query: &str, variables: &Value) -> Value {
    let first = client.run(query, variables.clone()).await;
    let second = client.run(query, variables.clone()).await;
    assert_eq!(first.body, second.body);
    first.expect_data(query)
}

/// By `_entities` and by `nodes`.
async fn by_id(who: Who, app: &TestApp, objects: &[(&'static str, Value)], tally: &mut Tally) {
    let client = who.client(app);
    let fragments: Vec<String> = RULES.iter().map(|(name, _)| everything(name, ids_only)).collect();
    for objects in objects.chunks(100) {
        // Fields of one name and several types cannot stand in one document, so each type has its own.
        for (type_name, fragment) in RULES.iter().map(|(name, _)| *name).zip(&fragments) {
            let of_type: Vec<_> = objects.iter().filter(|(name, _)| *name == type_name).collect();
            if of_type.is_empty() {
                continue;
            }
            let ids: Vec<&Value> = of_type.iter().map(|(_, whole)| &whole["id"]).collect();
            let r: Vec<Value> = ids.iter().map(|id| json!({ "__typename": type_name, "id": id })).collect();
            let query = format!(
                "query($ids: [ID!]!, $r: [_Any!]!) {{ nodes(ids: $ids) {{ {fragment} }} _entities(representations: $r) {{ {fragment} }} }}"
            );
            let data = ask(&client, &query, &json!({ "ids": ids, "r": r })).await;
            for (index, (_, whole)) in of_type.iter().enumerate() {
                for way in ["nodes", "_entities"] {
                    tally.check(who, way, type_name, whole, &data[way][index]);
                }
            }
        }
    }
}

/// By the root's own field of the type and by `node`; by e-mail where there is one.
async fn direct(who: Who, app: &TestApp, objects: &[(&'static str, Value)], tally: &mut Tally) {
    let client = who.client(app);
    for (type_name, _) in RULES {
        let own = match type_name {
            "User" => "user",
            "Session" => "session",
            "Form" => "form",
            "FormVersion" => "formVersion",
            "Submission" => "submission",
            "Location" => "location",
            "ActivityLog" => "activityLog",
            other => panic!("the root has no field for one {other}"),
        };
        let fragment = everything(type_name, ids_only);
        let of_type: Vec<_> = objects.iter().filter(|(name, _)| *name == type_name).collect();
        for some in of_type.chunks(10) {
            let asked = some.iter().enumerate().map(|(index, (_, whole))| {
                let id = &whole["id"];
                format!("a{index}: {own}(id: {id}) {{ ...All }} n{index}: node(id: {id}) {{ ...All }}")
            });
            let asked = asked.collect::<Vec<_>>().join(" ");
            let query = format!("{{ {asked} }} fragment All on {type_name} {{ {fragment} }}");
            let data = ask(&client, &query, &json!({})).await;
            for (index, (_, whole)) in some.iter().enumerate() {
                tally.check(who, own, type_name, whole, &data[format!("a{index}")]);
                tally.check(who, "node", type_name, whole, &data[format!("n{index}")]);
            }
        }
    }
    let fragment = everything("User", ids_only);
    let query = format!("query($e: String!) {{ userBy(lookup: {{ email: $e }}) {{ {fragment} }} }}");
    for (_, whole) in objects.iter().filter(|(name, _)| *name == "User") {
        let data = ask(&client, &query, &json!({ "e": whole["email"] })).await;
        if who.manages() || who.owns(whole) {
            tally.check(who, "userBy", "User", whole, &data["userBy"]);
        } else {
            tally.cells += 1;
            if !data["userBy"].is_null() {
                tally.wrong.push(format!("{who:?} found {} by e-mail", whole["id"]));
            }
        }
    }
}

/// The lists that lead to objects of a type: from the root, or from objects of another type.
const LISTS: [(&str, &str, &str); 12] = [
    ("Query", "users", "User"),
    ("Query", "forms", "Form"),
    ("Query", "latestLocations", "Location"),
    ("Query", "activityLogs", "ActivityLog"),
    ("User", "sessions", "Session"),
    ("User", "forms", "Form"),
    ("User", "submissions", "Submission"),
    ("User", "locations", "Location"),
    ("User", "activity", "ActivityLog"),
    ("Session", "locations", "Location"),
    ("Form", "versions", "FormVersion"),
    ("Form", "submissions", "Submission"),
];

/// By every connection: its nodes, its edges, its count.
async fn by_lists(who: Who, app: &TestApp, objects: &[(&'static str, Value)], tally: &mut Tally) {
    let client = who.client(app);
    for (parent, list, type_name) in LISTS {
        let fragment = everything(type_name, ids_only);
        let all: BTreeMap<String, &Value> = objects
            .iter()
            .filter(|(name, _)| *name == type_name)
            .map(|(_, whole)| (text(&whole["id"]), whole))
            .collect();
        let first = if type_name == "Location" { 1_000 } else { 100 };
        let selection = format!(
            "{list}(first: {first}) {{ totalCount nodes {{ {fragment} }} edges {{ cursor node {{ id }} }}
             pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }} }}"
        );
        let mut found = Vec::new();
        if parent == "Query" {
            let data = ask(&client, &format!("{{ {selection} }}"), &json!({})).await;
            // The newest positions are some of all; of the others nothing that is seen is missing.
            if list != "latestLocations" {
                let seen = all.values().filter(|whole| who.sees(type_name, whole)).count();
                tally.cells += 1;
                if data[list]["totalCount"] != seen {
                    tally
                        .wrong
                        .push(format!("{who:?} counts {} {list}, not {seen}", data[list]["totalCount"]));
                }
            }
            found.push(data[list].clone());
        } else {
            let ids: Vec<&Value> =
                objects.iter().filter(|(name, _)| *name == parent).map(|(_, whole)| &whole["id"]).collect();
            for ids in ids.chunks(10) {
                let query = format!(
                    "query($ids: [ID!]!) {{ nodes(ids: $ids) {{ ... on {parent} {{ {selection} }} }} }}"
                );
                let data = ask(&client, &query, &json!({ "ids": ids })).await;
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

/// The fields of the root that say who asks.
async fn oneself(who: Who, app: &TestApp, objects: &[(&'static str, Value)], tally: &mut Tally) {
    let fragment = everything("User", ids_only);
    let data =
        ask(&who.client(app), &format!("{{ me {{ {fragment} }} currentSession {{ id }} }}"), &json!({}))
            .await;
    match objects.iter().find(|(name, whole)| *name == "User" && who.owns(whole)) {
        Some((_, own)) => tally.check(who, "me", "User", own, &data["me"]),
        None => assert!(data["me"].is_null()),
    }
    assert!(data["currentSession"].is_null(), "the tokens of these tests have no session");
}

#[tokio::test]
async fn everybody_sees_what_the_rules_say_on_every_way() {
    for app in TestApp::both_own().await {
        let editor = "(select id from users where email = 'editor@example.com')";
        app.sql(&format!("update forms set owner_id = {editor} where status in ('DRAFT', 'CLOSED')")).await;
        let objects = world(&app).await;
        // The world has both kinds: what the collector sees, and what not.
        let who = Who::Account(Role::Collector);
        for (type_name, _) in RULES.into_iter().skip(1) {
            let of_type: Vec<_> = objects.iter().filter(|(name, _)| *name == type_name).collect();
            let seen = of_type.iter().filter(|(_, whole)| who.sees(type_name, whole)).count();
            assert!((1..of_type.len()).contains(&seen), "{seen} of {} {type_name}", of_type.len());
        }
        let mut tally = Tally::default();
        for who in Who::ALL {
            by_id(who, &app, &objects, &mut tally).await;
            direct(who, &app, &objects, &mut tally).await;
            by_lists(who, &app, &objects, &mut tally).await;
            oneself(who, &app, &objects, &mut tally).await;
        }
        let Tally { cells, wrong } = tally;
        println!("{cells} cells over {} objects, {} wrong", objects.len(), wrong.len());
        assert!(
            wrong.is_empty(),
            "{} of {cells} cells are wrong:\n{}",
            wrong.len(),
            wrong[..wrong.len().min(30)].join("\n")
        );
        assert!(cells > 100_000, "only {cells} cells");
    }
}

/// Nothing of the schema is left out: each field of each object has a rule, each list is walked, each field of the root
/// is asked, and what is neither an object nor the root is known by name.
#[tokio::test]
async fn every_field_of_the_schema_has_a_rule() {
    let app = TestApp::sqlite().await;
    let shape = shape(&app).await;
    assert_eq!(gaps(&shape), BTreeSet::new());
}

fn gaps(shape: &Shape) -> BTreeSet<String> {
    let mut gaps = BTreeSet::new();
    for (name, of) in shape.iter().filter(|(name, of)| of.kind == "OBJECT" && !name.starts_with("__")) {
        let rules = RULES.iter().find(|(type_name, _)| type_name == name).map(|(_, rules)| *rules);
        for (field, declared) in &of.fields {
            let covered = match (name.as_str(), rules) {
                (_, Some(rules)) => {
                    rules.iter().any(|(known, rule)| known == field && fits(*rule, &declared.of))
                }
                ("Query", _) => {
                    let one = [
                        "node",
                        "nodes",
                        "me",
                        "currentSession",
                        "user",
                        "userBy",
                        "session",
                        "form",
                        "formVersion",
                        "submission",
                        "location",
                        "activityLog",
                    ];
                    // `_service` is the same for everybody: `published` holds that.
                    one.contains(&field.as_str())
                        || ["_entities", "_service"].contains(&field.as_str())
                        || LISTS.iter().any(|(parent, list, _)| *parent == "Query" && list == field)
                }
                // Each is run by each role in `catalogue`, with all fields of its payload.
                ("Mutation", _) => crate::catalogue::runs(field),
                ("PageInfo" | "InputError" | "SubmissionDataError" | "_Service", _) => true,
                // Each event is read under the rights of its viewer at that moment: `live` holds that.
                ("Subscription", _) => {
                    ["submissionChanged", "locationUpdated", "sessionEnded"].contains(&field.as_str())
                }
                // All fields are selected whenever their mutation runs there.
                (name, _) if name.ends_with("Payload") || name.ends_with("Result") => true,
                (name, _) if name.ends_with("Connection") => {
                    ["totalCount", "nodes", "edges", "pageInfo"].contains(&field.as_str())
                }
                (name, _) if name.ends_with("Edge") => ["cursor", "node"].contains(&field.as_str()),
                _ => false,
            };
            // A connection of an object is walked, so that what is in it is seen on that way too.
            let walked = !declared.of.ends_with("Connection")
                || LISTS.iter().any(|(parent, list, _)| parent == name && list == field);
            if !covered || !walked {
                gaps.insert(format!("{name}.{field}"));
            }
        }
    }
    gaps
}

/// `@authenticated` and `@requiresScopes` say what is refused with an error. Reading never is: of what nobody sees who is
/// not signed in, an anonymous caller gets null or nothing, on every way and without an error. So no type, no field of
/// an object and no query may be marked: a gateway that refused there would answer something else than this server.
#[tokio::test]
async fn what_is_hidden_is_not_marked_as_refused() {
    let app = TestApp::sqlite().await;
    let objects = world(&app).await;
    let marked = crate::federation::marked(app.graph.sdl());
    for (type_name, rules) in RULES {
        let hidden =
            objects.iter().filter(|(name, whole)| *name == type_name && !Who::Nobody.sees(name, whole));
        let ids: Vec<&Value> = hidden.map(|(_, whole)| &whole["id"]).take(100).collect();
        assert!(!ids.is_empty(), "the rules hide every {type_name} from nobody");
        let query = format!("query($ids: [ID!]!) {{ nodes(ids: $ids) {{ ... on {type_name} {{ id }} }} }}");
        let reply = app.anonymous().run(&query, json!({ "ids": ids })).await;
        assert!(reply.expect_data(type_name)["nodes"].as_array().expect("a list").iter().all(Value::is_null));
        let fields = rules.iter().map(|(field, _)| format!("{type_name}.{field}"));
        for coordinate in fields.chain([type_name.to_owned()]) {
            assert_eq!(marked.get(&coordinate), None, "{coordinate} is hidden, not refused");
        }
    }
}

/// Is this a rule for a field of this type?
fn fits(rule: Rule, of: &str) -> bool {
    match rule {
        Rule::Open | Rule::Private | Rule::Draft | Rule::Count => RULES.iter().all(|(name, _)| *name != of),
        Rule::One(name) | Rule::List(name) => name == of,
        Rule::Implied => of == "Form",
        Rule::Connection(name) => of == format!("{name}Connection"),
    }
}

//! The access matrix: every object of a small world, with every field of its type, on every way to it, seen
//! by every role. What each may see is written down once more in `rules`, from the access rules and not from
//! the code, and compared with what the graph answers. A field of the schema without a rule fails. Not here:
//! mutations (`catalogue`).

mod arguments;
mod events;
mod lists;
mod rules;

use std::collections::BTreeSet;

use entities::Role;
use serde_json::{Value, json};

use crate::harness::{Reply, SchemaTypes, TestApp, field_of, introspect, text};
use lists::lists;
use rules::{FilledIn, RULES, Who, everything, expected, fits, ids_only, known, mark, rules_of};

/// A selection of all fields of a type, with the ids of what they lead to.
pub(crate) fn all_fields(type_name: &str) -> String {
    everything(type_name, ids_only)
}

/// What is looked at, and by whom it is answered.
struct World {
    /// Reads everything from the database.
    app: TestApp,
    /// The database of the matrix behind a cache, which all roles share.
    cached: TestApp,
    /// Every object: its type and what the service sees of it.
    objects: Vec<(&'static str, Value)>,
    filled_in: FilledIn,
}

impl World {
    async fn of(app: TestApp) -> Self {
        let (cached, (objects, filled_in)) = (app.with_cache().await, objects(&app).await);
        Self { app, cached, objects, filled_in }
    }

    fn of_type<'a>(&'a self, type_name: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |(name, _)| *name == type_name).map(|(_, whole)| whole)
    }

    /// Asks without the cache, and twice with it: what is remembered of the first answer, or of anybody
    /// else's, must not change a byte.
    async fn run(&self, who: Who, query: &str, variables: &Value) -> Reply {
        let plain = who.client(&self.app).run(query, variables.clone()).await;
        for cache in ["cold", "warm"] {
            let cached = who.client(&self.cached).run(query, variables.clone()).await;
            assert_eq!(cached.body, plain.body, "{who:?}, {cache} cache: {query}");
        }
        plain
    }

    async fn ask(&self, who: Who, query: &str, variables: &Value) -> Value {
        self.run(who, query, variables).await.expect_data(query)
    }
}

/// Every object: its type and what the service sees of it. And who has filled in which version of a form.
async fn objects(app: &TestApp) -> (Vec<(&'static str, Value)>, FilledIn) {
    let mut objects: Vec<(&str, Value)> = Vec::new();
    for (type_name, _) in RULES {
        let selection = everything(type_name, known);
        let query = format!("query($ids: [ID!]!) {{ nodes(ids: $ids) {{ __typename {selection} }} }}");
        for ids in app.ids_of(type_name).await.chunks(100) {
            let data = app.service().run(&query, json!({ "ids": ids })).await.expect_data(&query);
            let nodes = data["nodes"].as_array().expect("a list").iter();
            objects.extend(nodes.map(|node| (*type_name, node.clone())));
        }
    }
    let mut filled_in = FilledIn::new();
    for (_, submission) in objects.iter().filter(|(name, _)| *name == "Submission") {
        if let Some(user) = submission["user"]["id"].as_str() {
            filled_in.entry(text(&submission["version"]["id"])).or_default().insert(user.to_owned());
        }
    }
    for (_, whole) in &mut objects {
        mark(whole, &filled_in);
    }
    (objects, filled_in)
}

/// How many cells were looked at, and which were wrong.
#[derive(Default)]
struct Tally {
    cells: usize,
    wrong: Vec<String>,
}

impl Tally {
    /// One cell that is right or wrong.
    fn expect(&mut self, holds: bool, wrong: impl FnOnce() -> String) {
        self.cells += 1;
        if !holds {
            self.wrong.push(wrong());
        }
    }

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

/// By `_entities` and by `nodes`.
async fn by_id(who: Who, world: &World, tally: &mut Tally) {
    let fragments: Vec<String> = RULES.iter().map(|(name, _)| everything(name, ids_only)).collect();
    for objects in world.objects.chunks(100) {
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
            let data = world.ask(who, &query, &json!({ "ids": ids, "r": r })).await;
            for (index, (_, whole)) in of_type.iter().enumerate() {
                for way in ["nodes", "_entities"] {
                    tally.check(who, way, type_name, whole, &data[way][index]);
                }
            }
        }
    }
}

/// By the root's own field of the type and by `node`; by e-mail where there is one.
async fn direct(who: Who, world: &World, tally: &mut Tally) {
    for (type_name, _) in RULES {
        let own = field_of(type_name);
        let fragment = everything(type_name, ids_only);
        let of_type: Vec<_> = world.of_type(type_name).collect();
        for some in of_type.chunks(10) {
            let asked = some.iter().enumerate().map(|(index, whole)| {
                let id = &whole["id"];
                format!("a{index}: {own}(id: {id}) {{ ...All }} n{index}: node(id: {id}) {{ ...All }}")
            });
            let asked = asked.collect::<Vec<_>>().join(" ");
            let query = format!("{{ {asked} }} fragment All on {type_name} {{ {fragment} }}");
            let data = world.ask(who, &query, &json!({})).await;
            for (index, whole) in some.iter().enumerate() {
                tally.check(who, &own, type_name, whole, &data[format!("a{index}")]);
                tally.check(who, "node", type_name, whole, &data[format!("n{index}")]);
            }
        }
    }
    let fragment = everything("User", ids_only);
    let query = format!(
        "query($e: String!, $r: [_Any!]!) {{ userBy(lookup: {{ email: $e }}) {{ {fragment} }} _entities(representations: $r) {{ {fragment} }} }}"
    );
    for whole in world.of_type("User") {
        let r = json!([{ "__typename": "User", "email": whole["email"] }]);
        let data = world.ask(who, &query, &json!({ "e": whole["email"], "r": r })).await;
        for (way, found) in [("userBy", &data["userBy"]), ("_entities by email", &data["_entities"][0])] {
            if who.manages() || who.owns(whole) {
                tally.check(who, way, "User", whole, found);
            } else {
                tally.expect(found.is_null(), || format!("{who:?} found {} by {way}", whole["id"]));
            }
        }
    }
}

/// The fields of the root that say who asks.
async fn oneself(who: Who, world: &World, tally: &mut Tally) {
    let fragment = everything("User", ids_only);
    let query = format!("{{ me {{ {fragment} }} currentSession {{ id }} }}");
    let data = world.ask(who, &query, &json!({})).await;
    match world.of_type("User").find(|whole| who.owns(whole)) {
        Some(own) => tally.check(who, "me", "User", own, &data["me"]),
        None => assert!(data["me"].is_null()),
    }
    assert!(data["currentSession"].is_null(), "the tokens of these tests have no session");
}

#[tokio::test]
async fn everybody_sees_what_the_rules_say_on_every_way() {
    for app in TestApp::both_own().await {
        let editor = "(select id from users where email = 'editor@example.com')";
        app.sql(&format!("update forms set owner_id = {editor} where status in ('DRAFT', 'CLOSED')")).await;
        let world = World::of(app).await;
        // The world has both kinds: what the collector sees, and what not.
        let who = Who::Account(Role::Collector);
        for (type_name, _) in RULES.iter().skip(1) {
            let all = world.of_type(type_name).count();
            let seen = world.of_type(type_name).filter(|whole| who.sees(type_name, whole)).count();
            assert!((1..all).contains(&seen), "{seen} of {all} {type_name}");
        }
        // Also what only a submission shows: a version that is not current, or whose form is not open.
        let by_submission = |whole: &&Value| {
            let form = &whole["form"];
            let is_current = form["currentVersion"]["id"] == whole["id"];
            who.has_filled_in(whole) && !(form["status"] == "OPEN" && is_current)
        };
        assert!(
            world.of_type("FormVersion").any(|whole| by_submission(&whole)),
            "nothing was handed in since"
        );
        let mut tally = Tally::default();
        for who in Who::ALL {
            by_id(who, &world, &mut tally).await;
            direct(who, &world, &mut tally).await;
            lists::walk(who, &world, &mut tally).await;
            oneself(who, &world, &mut tally).await;
            events::follow(who, &world, &mut tally).await;
        }
        arguments::ask(&world, &mut tally).await;
        let Tally { cells, wrong } = tally;
        println!("{cells} cells over {} objects, {} wrong", world.objects.len(), wrong.len());
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
    let shape = introspect(&app).await;
    assert_eq!(gaps(&shape), BTreeSet::new());
}

/// The fields of the root that are asked, beside the lists and those of one object by its id.
const ASKED: &str = "node nodes me currentSession userBy _entities _service";

fn gaps(shape: &SchemaTypes) -> BTreeSet<String> {
    let mut gaps = BTreeSet::new();
    for (name, of) in shape.iter().filter(|(name, of)| of.kind == "OBJECT" && !name.starts_with("__")) {
        let rules = RULES.iter().find(|(type_name, _)| type_name == name).map(|(_, rules)| *rules);
        for (field, declared) in &of.fields {
            let covered = match (name.as_str(), rules) {
                (_, Some(rules)) => {
                    rules.iter().any(|(known, rule)| known == field && fits(*rule, &declared.of))
                }
                // `_service` is the same for everybody: `published` holds that.
                ("Query", _) => {
                    ASKED.split(' ').any(|asked| asked == field)
                        || RULES.iter().any(|(type_name, _)| field_of(type_name) == *field)
                        || lists().any(|(parent, list, _)| parent == "Query" && list == field)
                }
                // Each is run by each role in `catalogue`, with all fields of its payload.
                ("Mutation", _) => crate::catalogue::runs(field),
                ("PageInfo" | "InputError" | "SubmissionDataError" | "_Service", _) => true,
                ("Subscription", _) => events::follows(field),
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
                || lists().any(|(parent, list, _)| parent == name && list == field);
            if !covered || !walked {
                gaps.insert(format!("{name}.{field}"));
            }
        }
    }
    gaps
}

/// `@authenticated` and `@requiresScopes` say what is refused with an error. Reading never is: of what nobody
/// sees who is not signed in, an anonymous caller gets null or nothing, on every way and without an error. So
/// no type, no field of an object and no query may be marked: a gateway that refused there would answer
/// something else than this server.
#[tokio::test]
async fn hidden_objects_are_not_reported_as_forbidden() {
    let app = TestApp::sqlite().await;
    let (objects, _) = objects(&app).await;
    let marked = crate::federation::marked(app.with_authorization_directives().graph.sdl());
    for (type_name, rules) in RULES {
        let hidden =
            objects.iter().filter(|(name, whole)| name == type_name && !Who::Nobody.sees(name, whole));
        let ids: Vec<&Value> = hidden.map(|(_, whole)| &whole["id"]).take(100).collect();
        assert!(!ids.is_empty(), "the rules hide every {type_name} from nobody");
        let query = format!("query($ids: [ID!]!) {{ nodes(ids: $ids) {{ ... on {type_name} {{ id }} }} }}");
        let reply = app.anonymous().run(&query, json!({ "ids": ids })).await;
        assert!(reply.expect_data(type_name)["nodes"].as_array().expect("a list").iter().all(Value::is_null));
        let fields = rules.iter().map(|(field, _)| format!("{type_name}.{field}"));
        for coordinate in fields.chain([(*type_name).to_owned()]) {
            assert_eq!(marked.get(&coordinate), None, "{coordinate} is hidden, not refused");
        }
    }
}

//! The graph as gateways see it: one SDL everywhere, what is marked in it, entities each by itself, and the graph split
//! into subgraphs. Not here: composition and real gateways (`tests/gateway`), prices (`cost`), sizes (`limits`).

use std::collections::{BTreeMap, BTreeSet};

use async_graphql::{
    Positioned,
    parser::{
        parse_schema,
        types::{ConstDirective, FieldDefinition, TypeDefinition, TypeKind, TypeSystemDefinition},
    },
};
use entities::Role;
use schema::{Domain, Subgraph, auth::viewer::Grant};
use serde_json::{Value, json};

use crate::{
    catalogue, corpus,
    harness::{TestApp, db, introspect, node_types, text},
};

/// The usual split.
const SPLIT: [&str; 4] = ["users,sessions", "forms", "locations", "activity"];

fn types(sdl: &str) -> Vec<TypeDefinition> {
    let definitions = parse_schema(sdl).expect("the SDL parses").definitions.into_iter();
    let types = definitions.filter_map(|definition| match definition {
        TypeSystemDefinition::Type(definition) => Some(definition.node),
        _ => None,
    });
    types.collect()
}

fn fields(of: &TypeDefinition) -> &[Positioned<FieldDefinition>] {
    match &of.kind {
        TypeKind::Object(object) => &object.fields,
        TypeKind::Interface(interface) => &interface.fields,
        _ => &[],
    }
}

fn directive<'d>(directives: &'d [Positioned<ConstDirective>], name: &str) -> Option<&'d ConstDirective> {
    directives.iter().map(|directive| &directive.node).find(|directive| directive.name.node == name)
}

/// What is marked `@authenticated` or `@requiresScopes`, with the scopes.
pub(crate) fn marked(sdl: &str) -> BTreeMap<String, Vec<String>> {
    let mut marked = BTreeMap::new();
    let mut note = |coordinate: String, directives: &[Positioned<ConstDirective>]| {
        let scopes = directive(directives, "requiresScopes").map(|scopes| {
            let value =
                scopes.get_argument("scopes").expect("scopes").node.clone().into_json().expect("JSON");
            let all =
                value.as_array().expect("a list").iter().flat_map(|all| all.as_array().expect("a list"));
            all.map(text).collect::<Vec<_>>()
        });
        if directive(directives, "authenticated").is_some() || scopes.is_some() {
            marked.insert(coordinate, scopes.unwrap_or_default());
        }
    };
    for of in types(sdl) {
        note(of.name.node.to_string(), &of.directives);
        for field in fields(&of) {
            note(format!("{}.{}", of.name.node, field.node.name.node), &field.node.directives);
        }
    }
    marked
}

#[tokio::test]
async fn the_command_prints_the_sdl_that_gateways_get() {
    let app = TestApp::sqlite().await;
    let print = |arguments: &[&str]| {
        let output =
            std::process::Command::new(env!("CARGO_BIN_EXE_xp")).args(arguments).env_clear().output();
        let output = output.expect("the program can be started");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert_eq!(print(&["schema"]), app.graph.sdl());
    let with_directives = app.with_authorization_directives();
    let set = "graph.authorization_directives=true";
    assert_eq!(print(&["schema", "--set", set]), with_directives.graph.sdl());
    let served = with_directives.service().ask("{ _service { sdl } }").await;
    assert_eq!(served["_service"]["sdl"].as_str(), Some(with_directives.graph.sdl()));
    for domains in SPLIT {
        let part = app.subgraph(domains);
        assert_eq!(print(&["schema", "--subgraphs", domains]), part.graph.sdl());
        let served = part.service().ask("{ _service { sdl } }").await;
        assert_eq!(served["_service"]["sdl"].as_str(), Some(part.graph.sdl()));
    }
}

/// By the other federation objects are found by fields at the root, which a part of the graph has not all.
#[tokio::test]
async fn the_other_dialect_is_of_the_whole_graph() {
    let app = TestApp::sqlite().await;
    let print = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_xp"));
        let output =
            command.args(["schema", "--dialect", "graphql-federation"]).args(arguments).env_clear().output();
        output.expect("the program can be started")
    };
    let printed = print(&[]);
    assert_eq!(String::from_utf8_lossy(&printed.stdout), app.graph.lookup_sdl());
    let part = print(&["--subgraphs", "forms"]);
    assert_eq!(part.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&part.stderr).contains("the whole graph only"));
    assert_eq!(print(&["--api"]).status.code(), Some(2), "both are not meant");
}

#[tokio::test]
async fn the_sdl_imports_and_defines_what_it_uses_and_nothing_else() {
    let app = TestApp::sqlite().await;
    let parts = SPLIT.map(|domains| app.subgraph(domains));
    for app in parts.iter().chain([&app, &app.with_authorization_directives()]) {
        let sdl = app.graph.sdl();
        let link = "@link(url: \"https://specs.apollo.dev/federation/v2.9\", import: [";
        let imports = sdl.split_once(link).expect("the link").1.split_once("])").expect("its end").0;
        let imports: BTreeSet<&str> = imports.split(", ").map(|name| name.trim_matches(['"', '@'])).collect();
        let mut used = BTreeSet::new();
        let mut note = |directives: &[Positioned<ConstDirective>]| {
            used.extend(directives.iter().map(|directive| directive.node.name.node.to_string()));
        };
        for of in types(sdl) {
            note(&of.directives);
            for field in fields(&of) {
                note(&field.node.directives);
                field.node.arguments.iter().for_each(|argument| note(&argument.node.directives));
            }
            if let TypeKind::InputObject(input) = &of.kind {
                input.fields.iter().for_each(|field| note(&field.node.directives));
            }
        }
        let built_in = ["oneOf", "specifiedBy"];
        let used: BTreeSet<&str> =
            used.iter().map(String::as_str).filter(|name| !built_in.contains(name)).collect();
        assert_eq!(imports, used);
        let defined = parse_schema(sdl).expect("SDL").definitions.into_iter().filter_map(|definition| {
            let TypeSystemDefinition::Directive(directive) = definition else { return None };
            Some(directive.node.name.node.to_string())
        });
        let defined: BTreeSet<String> = defined.filter(|name| name != "link" && name != "oneOf").collect();
        assert_eq!(defined.iter().map(String::as_str).collect::<BTreeSet<_>>(), used);
    }
}

#[tokio::test]
async fn roots_have_the_names_that_composers_look_for() {
    let app = TestApp::sqlite().await;
    let names: Vec<String> = types(app.graph.sdl()).iter().map(|of| of.name.node.to_string()).collect();
    for root in ["Query", "Mutation", "Subscription"] {
        assert!(names.iter().any(|name| name == root), "no {root}");
    }
    assert!(!app.graph.sdl().lines().any(|line| line.starts_with("schema ")));
}

#[tokio::test]
async fn marks_say_who_is_refused() {
    let app = TestApp::sqlite().await;
    let shape = introspect(&app).await;
    assert_eq!(marked(app.graph.sdl()), BTreeMap::new(), "unless that is asked for");
    let mut marked = marked(app.with_authorization_directives().graph.sdl());
    for (name, anonymous_is_refused, passing) in catalogue::refusals() {
        let scopes = marked.remove(&format!("Mutation.{name}"));
        assert_eq!(scopes.is_some(), anonymous_is_refused, "{name}");
        let scopes = scopes.unwrap_or_default();
        assert_eq!(scopes.is_empty(), passing.is_none(), "{name}");
        for role in Role::ALL {
            let scope = Grant::scope(*role);
            let holds = scopes.iter().all(|needed| scope.split(' ').any(|held| held == needed));
            assert_eq!(holds, passing.is_none_or(|passing| passing.contains(role)), "{name} as {role:?}");
        }
    }
    for (name, field) in &shape["Subscription"].fields {
        assert!(marked.remove(&format!("Subscription.{name}")).is_some(), "{name}");
        let argument = if field.arguments.contains_key("formId") { "(formId: \"x\")" } else { "" };
        let query = format!("subscription {{ {name}{argument} {{ id }} }}");
        let Err(refused) = app.anonymous().subscribe(&query, json!({})).await else {
            panic!("{name} is open to anybody")
        };
        assert_eq!(refused.codes, ["UNAUTHENTICATED"], "{name}");
    }
    assert_eq!(marked, BTreeMap::new(), "nothing else is refused, so nothing else is marked");
    let variables = corpus::variables(&app).await;
    for (name, operation) in corpus::operations() {
        let reply = app.anonymous().run(operation, variables.clone()).await;
        assert!(!reply.codes.iter().any(|code| code == "UNAUTHENTICATED"), "{name}: {}", reply.body);
    }
}

const BY_ID: &str =
    "query($r: [_Any!]!) { _entities(representations: $r) { __typename ... on Node { id } } }";

#[tokio::test]
async fn every_slot_that_fails_says_so_and_leaves_the_others() {
    let id = "01890000-0000-7000-8000-000000000001";
    let whole = json!({ "__typename": "User", "id": id });
    let absent = json!({ "__typename": "User", "id": "00000000-0000-7000-8000-00000000dead" });
    let bad = [
        json!({ "__typename": "Nope", "id": id }),
        json!({ "id": id }),
        json!({ "__typename": null, "id": id }),
        json!({ "__typename": "User" }),
        json!({ "__typename": "User", "id": null }),
        json!({ "__typename": "User", "id": "x" }),
        json!({ "__typename": "User", "id": 7 }),
        json!({ "__typename": "User", "id": { "id": id } }),
        json!({ "__typename": "PageInfo", "id": id }),
    ];
    for app in TestApp::both().await {
        let mut r: Vec<Value> =
            bad.iter().flat_map(|bad| [whole.clone(), bad.clone(), absent.clone()]).collect();
        r.extend(vec![bad[0].clone(); 100]);
        let reply = app.as_admin().run(BY_ID, json!({ "r": r })).await;
        let entities = reply.data["_entities"].as_array().expect("entities");
        let wanted: Vec<&Value> =
            r.iter().map(|asked| if *asked == whole { asked } else { &Value::Null }).collect();
        assert_eq!(entities.iter().collect::<Vec<_>>(), wanted, "{}", reply.body);
        let failed = r.iter().enumerate().filter(|(_, asked)| bad.contains(asked));
        let failed: Vec<Value> = failed.map(|(index, _)| json!(["_entities", index])).collect();
        let paths: Vec<Value> = reply.errors.iter().map(|error| error["path"].clone()).collect();
        assert_eq!(paths, failed, "each that failed, and no other");
        assert!(reply.codes.iter().all(|code| code == "BAD_USER_INPUT"));
    }
}

#[tokio::test]
async fn hidden_rows_are_absent() {
    let app = TestApp::sqlite().await;
    let variables = corpus::variables(&app).await;
    let r = json!({ "r": variables["everything"] });
    let reply = app.anonymous().run(BY_ID, r).await;
    let entities = reply.expect_data("hidden")["_entities"].as_array().expect("entities").clone();
    assert!(entities.len() > node_types().count() && entities.iter().all(Value::is_null));
}

#[tokio::test]
async fn a_thousand_nodes_take_one_statement_per_type() {
    for app in TestApp::both().await {
        let variables = corpus::variables(&app).await;
        let known = variables["everything"].as_array().expect("a list");
        let r: Vec<Value> = known.iter().cycle().take(1_000).cloned().collect();
        let reply = app.as_admin().run(BY_ID, json!({ "r": r })).await;
        let statements: BTreeSet<&str> = reply.statements().into_iter().collect();
        assert!(statements.iter().all(|name| name.ends_with(".by_ids")), "{statements:?}");
        assert_eq!(
            (reply.sql.len(), statements.len()),
            (node_types().count(), node_types().count()),
            "{}: {statements:?}",
            app.is_postgres()
        );
        let entities = reply.expect_data("entities")["_entities"].as_array().expect("entities").clone();
        assert_eq!(entities.len(), 1_000);
        for (index, entity) in entities.iter().enumerate() {
            assert_eq!(*entity, entities[index % known.len()], "the order asked, duplicates and all");
        }
        for (asked, entity) in known.iter().zip(&entities).take(node_types().count()) {
            assert_eq!(asked, entity);
        }
    }
}

/// Every object by its root field.
#[tokio::test]
async fn every_entity_has_a_nullable_lookup_at_the_root() {
    let app = TestApp::sqlite().await;
    let sdl = types(app.graph.sdl());
    let entities = sdl.iter().filter(|of| directive(&of.directives, "key").is_some());
    let query = sdl.iter().find(|of| of.name.node == "Query").expect("Query");
    for entity in entities {
        let name = entity.name.node.as_str();
        let lookup = fields(query).iter().find(|field| {
            let arguments: Vec<String> =
                field.node.arguments.iter().map(|argument| argument.node.ty.to_string()).collect();
            field.node.ty.to_string() == name && arguments == ["ID!"]
        });
        assert!(lookup.is_some(), "no field of Query has one {name} by its id, or null");
    }
}

#[tokio::test]
async fn every_field_is_served_by_one_subgraph() {
    let app = TestApp::sqlite().await;
    let coordinates = |app: &TestApp| {
        let mut all = BTreeMap::new();
        for of in types(app.graph.sdl()) {
            let is_shared =
                directive(&of.directives, "shareable").is_some() || !matches!(of.kind, TypeKind::Object(_));
            let is_entity = directive(&of.directives, "key").is_some();
            for field in fields(&of) {
                let name = field.node.name.node.as_str();
                let everywhere = is_shared || (is_entity && name == "id");
                all.insert(format!("{}.{name}: {}", of.name.node, field.node.ty.node), everywhere);
            }
        }
        all
    };
    let whole = coordinates(&app);
    for split in [&SPLIT[..], &Domain::ALL.map(Domain::as_str)] {
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for domains in split {
            for coordinate in coordinates(&app.subgraph(domains)).into_keys() {
                *found.entry(coordinate).or_default() += 1;
            }
        }
        assert_eq!(found.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>());
        for (coordinate, times) in found {
            assert!(times == 1 || whole[&coordinate], "{coordinate} is served {times} times");
        }
    }
    assert_eq!(app.subgraph("users,sessions,forms,locations,activity").graph.sdl(), app.graph.sdl());
}

#[tokio::test]
async fn a_subgraph_knows_only_what_it_serves() {
    let app = TestApp::sqlite().await;
    let (forms, activity) = (app.subgraph("forms"), app.subgraph("activity"));
    let known = introspect(&forms).await;
    for absent in ["ActivityLog", "SignInPayload", "LocationFilter", "Role"] {
        assert!(!known.contains_key(absent), "{absent}");
    }
    let names = |name: &str| known[name].fields.keys().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(names("User"), ["forms", "id", "submissions"]);
    assert_eq!(names("Session"), ["id"], "a key and nothing else");
    assert!(!introspect(&activity).await.contains_key("Mutation"), "it writes nothing");
    for (app, foreign) in [
        (&forms, "{ me { id } }"),
        (&forms, "{ node(id: \"x\") { id } }"),
        (&forms, "{ forms { nodes { owner { displayName } } } }"),
        (&forms, "mutation { signOut { userErrors { code } } }"),
        (&activity, "mutation { signOut { userErrors { code } } }"),
        (&activity, "subscription { sessionEnded { id } }"),
    ] {
        let refused = app.as_admin().run(foreign, json!({})).await;
        assert!(!refused.executed && !refused.codes.is_empty(), "{foreign}: {}", refused.body);
    }
}

#[tokio::test]
async fn a_subgraph_resolves_its_own_and_extended_entities() {
    let app = TestApp::sqlite().await;
    let (forms, variables) = (app.subgraph("forms"), corpus::variables(&app).await);
    let of = |type_name: &str, id: &str| json!({ "__typename": type_name, "id": variables[id] });
    let r = [
        of("User", "user"),
        of("Form", "form"),
        of("Session", "session"),
        of("Location", "location"),
        json!({ "__typename": "User", "email": "admin@example.com" }),
    ];
    let query = "query($r: [_Any!]!) { _entities(representations: $r) {
        ... on User { id forms(first: 1) { totalCount } } ... on Form { id owner { id } } } }";
    let reply = forms.as_admin().run(query, json!({ "r": r })).await;
    let entities = &reply.data["_entities"];
    assert_eq!(
        (&entities[0]["id"], &entities[1]["id"]),
        (&variables["user"], &variables["form"]),
        "{}",
        reply.body
    );
    assert!(entities[1]["owner"]["id"].is_string());
    let paths: Vec<&Value> = reply.errors.iter().map(|error| &error["path"][1]).collect();
    assert_eq!(paths, [2, 3, 4], "no key leads from here to these");
    assert!(entities[2].is_null() && entities[3].is_null() && entities[4].is_null());
}

#[test]
fn domains_are_named_and_nothing_else_is() {
    let parse = |text: &str| text.parse::<Subgraph>();
    assert_eq!(
        parse("users, sessions").map(|subgraph| subgraph.to_string()),
        Ok("users,sessions".to_owned())
    );
    assert_eq!(parse("users,sessions,forms,locations,activity"), Ok(Subgraph::WHOLE));
    assert!(parse("").is_err() && parse(",").is_err());
    assert_eq!(
        parse("users,nope"),
        Err("unknown domain `nope`; known: users, sessions, forms, locations, activity".to_owned())
    );
}

/// A server of some domains, as an operator starts it, refuses domains that are none.
#[tokio::test]
async fn a_domain_that_is_none_is_told() {
    let url = db::own_sqlite().await;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_xp"));
    command.args(["serve", "--subgraphs", "users,form"]).env_clear().env("DATABASE_URL", url);
    let output = command.output().expect("the program can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("graph.subgraphs") && said.contains("unknown domain `form`"), "{said}");
}

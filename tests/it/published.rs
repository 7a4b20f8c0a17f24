//! What the graph publishes: its SDL (the golden file and `_service`), the contract that it must keep, and a
//! description of everything. Not here: what the fields answer.

use std::{collections::BTreeMap, env, fs, path::Path};

use async_graphql::{
    Positioned,
    parser::{
        parse_schema,
        types::{FieldDefinition, InputValueDefinition, TypeKind, TypeSystemDefinition},
    },
};
use serde_json::Value;

use crate::{
    harness::{TestApp, introspect, text},
    messages::is_riddle,
};

#[tokio::test]
async fn the_golden_sdl_is_what_the_code_says() {
    let app = TestApp::sqlite().await;
    let (with_directives, lookups) = (app.with_authorization_directives(), app.graph.lookup_sdl());
    for (file, sdl) in [
        ("schema/subgraph.graphql", app.graph.sdl()),
        ("schema/subgraph-authorization.graphql", with_directives.graph.sdl()),
        ("schema/subgraph-lookups.graphql", &lookups),
        ("schema/api.graphql", app.graph.api_sdl()),
    ] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&file, sdl).expect("the golden file can be written");
        }
        let golden = fs::read_to_string(&file).unwrap_or_default();
        let line = golden.lines().zip(sdl.lines()).position(|(golden, now)| golden != now);
        assert!(
            golden == sdl,
            "{} differs from the schema, first at line {:?}. If that is meant, refresh it:\n\
             UPDATE_GOLDEN=1 cargo test -p xp --test it golden",
            file.display(),
            line.map(|line| line + 1)
        );
    }
}

/// The SDL for clients has the types, fields, arguments and defaults of the subgraph's. Of directives it has
/// GraphQL's own, and `@live`.
#[tokio::test]
async fn client_tools_get_the_same_schema_without_federation() {
    let app = TestApp::sqlite().await;
    let is_for_gateways = |promise: &String| {
        promise.contains('@') || promise.starts_with("link__") || promise.starts_with("federation__")
    };
    let promised = |sdl: &str| -> BTreeMap<String, String> {
        promises(sdl).into_iter().filter(|(promise, _)| !is_for_gateways(promise)).collect()
    };
    let api = app.graph.api_sdl();
    assert_eq!(promised(api), promised(app.graph.sdl()));
    let texts = api.split("\"\"\"").step_by(2).collect::<String>();
    for word in ["_Any", "_Entity", "_Service", "_entities", "_service", "link", "federation", "schema {"] {
        assert!(!texts.contains(word), "{word}");
    }
    for directive in texts.split('@').skip(1).map(|after| after.split(|c: char| !c.is_alphanumeric()).next())
    {
        assert!(matches!(directive, Some("oneOf" | "specifiedBy" | "deprecated" | "live")), "{directive:?}");
    }
    assert!(texts.contains("@oneOf {") && texts.contains("@specifiedBy(url:"));
}

#[tokio::test]
async fn the_service_field_has_the_same_bytes_for_everybody() {
    for app in TestApp::both().await {
        for client in [app.as_admin(), app.anonymous(), app.service()] {
            let data = client.ask("{ _service { sdl } }").await;
            assert_eq!(data["_service"]["sdl"].as_str(), Some(app.graph.sdl()));
        }
    }
}

/// Every promise of an SDL: `User.email: String`, `User.track(maxPoints): Int = 500`, `Role.ADMIN`, `User: Node`.
fn promises(sdl: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for definition in parse_schema(sdl).expect("the SDL parses").definitions {
        let TypeSystemDefinition::Type(definition) = definition else { continue };
        let (definition, name) = (&definition.node, definition.node.name.node.as_str());
        for directive in definition.directives.iter().map(|directive| &directive.node) {
            let arguments = directive.arguments.iter();
            let arguments: Vec<String> = arguments.map(|(name, value)| format!("{name}: {value}")).collect();
            // `resolvable: true` is what a key has anyway.
            let promise = format!("{name} @{}({})", directive.name.node, arguments.join(", "));
            all.insert(promise, String::new());
        }
        match &definition.kind {
            TypeKind::Scalar => drop(all.insert(name.to_owned(), "scalar".to_owned())),
            TypeKind::Object(object) => {
                for interface in &object.implements {
                    all.insert(format!("{name} implements {}", interface.node), String::new());
                }
                fields(name, &object.fields, &mut all);
            }
            TypeKind::Interface(interface) => fields(name, &interface.fields, &mut all),
            TypeKind::Enum(kind) => {
                for value in &kind.values {
                    all.insert(format!("{name}.{}", value.node.value.node), "value".to_owned());
                }
            }
            TypeKind::InputObject(input) => inputs(&format!("{name}."), &input.fields, &mut all),
            TypeKind::Union(_) => {}
        }
    }
    all
}

fn fields(name: &str, fields: &[Positioned<FieldDefinition>], all: &mut BTreeMap<String, String>) {
    for field in fields.iter().map(|field| &field.node) {
        let field_name = format!("{name}.{}", field.name.node);
        inputs(&format!("{field_name}/"), &field.arguments, all);
        all.insert(field_name, field.ty.node.to_string());
    }
}

fn inputs(before: &str, inputs: &[Positioned<InputValueDefinition>], all: &mut BTreeMap<String, String>) {
    for input in inputs.iter().map(|input| &input.node) {
        let default = input.default_value.as_ref().map(|value| format!(" = {}", value.node));
        all.insert(
            format!("{before}{}", input.name.node),
            format!("{}{}", input.ty.node, default.unwrap_or_default()),
        );
    }
}

#[tokio::test]
async fn the_contract_is_kept() {
    let app = TestApp::sqlite().await;
    let contract = promises(include_str!("contract.graphql"));
    assert!(contract.len() > 200, "{}", contract.len());
    let kept = promises(app.graph.sdl());
    let mut broken = Vec::new();
    for (promise, of) in &contract {
        match kept.get(promise) {
            Some(now) if now == of => {}
            Some(now) => broken.push(format!("{promise}: {of}, but the schema has {now}")),
            None => broken.push(format!("{promise}: {of} is missing")),
        }
    }
    assert!(broken.is_empty(), "the contract is broken:\n{}", broken.join("\n"));
    // An argument that the contract does not know must not be needed for a field that it knows.
    let is_added = |name: &str| {
        let field = name.split_once('/').map(|(field, _)| field);
        field.is_some_and(|field| contract.contains_key(field)) && !contract.contains_key(name)
    };
    for (name, of) in kept.iter().filter(|(name, _)| is_added(name)) {
        assert!(!of.ends_with('!'), "{name}: {of} is required, and the contract has no such argument");
    }
}

#[tokio::test]
async fn everything_is_described() {
    let app = TestApp::sqlite().await;
    let (mut bare, mut odd) = (Vec::new(), Vec::new());
    let mut check = |name: String, of: &Value| {
        let description = of["description"].as_str().unwrap_or_default().trim();
        if description.is_empty() {
            bare.push(name);
        } else if is_odd(description) {
            odd.push(format!("{name}: {description}"));
        }
    };
    // Federation's own, and the one built-in scalar that the library does not describe.
    let federation = ["_Entity", "_Any", "_Service", "ID"];
    let list = |of: &Value| of.as_array().cloned().unwrap_or_default();
    let all = introspect(&app).await;
    let own = all.iter().filter(|(name, _)| !name.starts_with("__") && !federation.contains(&name.as_str()));
    for (name, of) in own {
        check(name.clone(), &of.raw);
        for field in list(&of.raw["fields"]) {
            let field_name = text(&field["name"]);
            if name == "Query" && field_name.starts_with('_') {
                continue;
            }
            check(format!("{name}.{field_name}"), &field);
            for argument in list(&field["args"]) {
                check(format!("{name}.{field_name}({})", text(&argument["name"])), &argument);
            }
        }
        for part in list(&of.raw["inputFields"]).iter().chain(&list(&of.raw["enumValues"])) {
            check(format!("{name}.{}", text(&part["name"])), part);
        }
    }
    assert!(bare.is_empty(), "no description: {bare:#?}");
    assert!(odd.is_empty(), "say it in standard English: {odd:#?}");
}

/// A description that says nothing, or says it as nobody would.
fn is_odd(description: &str) -> bool {
    let mut words = description.split_whitespace().zip(description.split_whitespace().skip(1));
    let vowel = |word: &str| word.starts_with(['A', 'E', 'I', 'O', 'a', 'e', 'i', 'o']);
    description == "What to do."
        || !description.ends_with(['.', ':', ')'])
        || is_riddle(description)
        || words.any(|(article, word)| matches!(article, "A" | "a") && vowel(word) && word != "one")
}

/// The number behind the last "at most" of a description.
fn maximum(description: &str) -> Option<usize> {
    let (_, after) = description.rsplit_once("at most ")?;
    after.split(|sign: char| !sign.is_ascii_digit()).next()?.parse().ok()
}

/// How a list is asked for, by the type that has it.
async fn within(app: &TestApp, parent: &str, field: &str) -> String {
    if parent == "Query" {
        return format!("{{ {field} }}");
    }
    let id = &app.ids_of(parent).await[0];
    format!("{{ node(id: \"{id}\") {{ ... on {parent} {{ {field} }} }} }}")
}

/// What an argument tells of its maximum is what the server takes: so much, and not one more.
#[tokio::test]
async fn arguments_tell_their_own_maximum() {
    let app = TestApp::sqlite().await;
    let (admin, shape) = (app.as_admin(), introspect(&app).await);
    let list = |of: &Value| of.as_array().cloned().unwrap_or_default();
    let mut asked = Vec::new();
    for (parent, of) in shape.iter().filter(|(_, of)| of.kind == "OBJECT") {
        for field in list(&of.raw["fields"]) {
            for argument in list(&field["args"]) {
                let (field, argument_name) = (text(&field["name"]), text(&argument["name"]));
                if matches!(argument_name.as_str(), "first" | "last") {
                    let most = maximum(&text(&argument["description"])).expect("its maximum");
                    asked.push((parent.clone(), field, argument_name, most, false));
                }
            }
        }
    }
    assert!(asked.len() > 20, "{asked:?}");
    for (parent, field, filter, input) in [
        ("Query", "forms", "ownerIds", "FormFilter"),
        ("Form", "submissions", "formIds", "SubmissionFilter"),
        ("Form", "submissions", "userIds", "SubmissionFilter"),
        ("User", "locations", "sessionIds", "LocationFilter"),
    ] {
        let fields = list(&shape[input].raw["inputFields"]);
        let told = fields.iter().find(|of| of["name"] == filter).expect("the input has it");
        let most = maximum(&text(&told["description"])).expect("its maximum");
        asked.push((parent.to_owned(), field.to_owned(), filter.to_owned(), most, true));
    }
    for (parent, field, argument, most, is_filter) in asked {
        for (count, is_taken) in [(most, true), (most + 1, false)] {
            let given = if is_filter {
                format!("filter: {{ {argument}: {:?} }}", vec![uuid::Uuid::nil().to_string(); count])
            } else {
                format!("{argument}: {count}")
            };
            let query = within(&app, &parent, &format!("{field}({given}) {{ totalCount }}")).await;
            let codes = admin.run(&query, serde_json::json!({})).await.codes;
            let wanted: &[&str] = if is_taken { &[] } else { &["BAD_USER_INPUT"] };
            assert_eq!(codes, wanted, "{parent}.{field}({argument}): {count}");
        }
    }
}

#[tokio::test]
async fn introspection_and_the_sdl_tell_the_same_types() {
    let app = TestApp::sqlite().await;
    let sdl = promises(app.graph.sdl());
    let all = introspect(&app).await;
    let own = all.iter().filter(|(name, of)| !name.starts_with('_') && of.kind == "OBJECT");
    for (name, of) in own {
        for field in of.fields.keys().filter(|field| !field.starts_with('_')) {
            assert!(sdl.contains_key(&format!("{name}.{field}")), "{name}.{field} is not in the SDL");
        }
    }
}

/// The playground's examples: their names, documents and variables.
fn examples() -> Vec<(String, String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("playground/operations");
    let menu = fs::read_to_string(folder.join("../src/examples.js")).expect("the menu");
    let paths = fs::read_dir(&folder).expect("the examples").map(|entry| entry.expect("an entry").path());
    let documents = paths.filter(|path| path.extension().is_some_and(|kind| kind == "graphql"));
    let read = |path: std::path::PathBuf| {
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
        assert!(menu.contains(&format!("\"{name}\"")), "{name} is not in the menu");
        let variables = fs::read_to_string(path.with_extension("json")).unwrap_or_else(|_| "{}".to_owned());
        // As the page fills them, but with ids that nothing has.
        let variables = variables
            .replace("$now", "2026-01-02T03:04:05Z")
            .replace("$formId", "00000000-0000-7000-8000-000000000000")
            .replace("$userId", "00000000-0000-7000-8000-000000000000")
            .replace("$sessionId", "00000000-0000-7000-8000-000000000000");
        let mut variables: Value = serde_json::from_str(&variables).expect("JSON");
        let sets = match &mut variables {
            Value::Array(sets) => sets.as_mut_slice(),
            set => std::slice::from_mut(set),
        };
        for set in sets {
            for value in set.as_object_mut().expect("a set of variables").values_mut() {
                if value.as_str().is_some_and(|text| text.starts_with("$userRepresentations")) {
                    *value = serde_json::json!([]);
                }
            }
        }
        (name, fs::read_to_string(&path).expect("UTF-8"), variables)
    };
    documents.map(read).collect()
}

#[tokio::test]
async fn every_playground_example_of_a_write_runs() {
    let [app, _] = TestApp::both_own().await;
    app.graph.access().open().await.expect("keys are made");
    let (mut shown, shape) = (String::new(), introspect(&app).await);
    for (name, document, variables) in examples() {
        let admin = app.as_admin();
        if document.contains("\nsubscription ") {
            assert!(admin.subscribe(&document, variables).await.is_ok(), "{name}");
        } else if let Value::Array(sets) = &variables {
            let replies = admin.run_sets(&document, sets).await.expect("it runs");
            assert!(replies.iter().all(|reply| reply.codes.is_empty()), "{name}: {}", replies[0].body);
        } else {
            let reply = admin.run(&document, variables).await;
            assert!(reply.codes.is_empty(), "{name}: {}", reply.body);
        }
        shown.push_str(&document);
    }
    for root in ["Mutation", "Subscription"] {
        for field in shape[root].fields.keys() {
            assert!(
                shown.contains(&format!("\n  {field}")),
                "playground/operations has no example of {field}"
            );
        }
    }
}

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

use crate::harness::{TestApp, shape, text};

#[tokio::test]
async fn the_golden_sdl_is_what_the_code_says() {
    let app = TestApp::sqlite().await;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/subgraph.graphql");
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, app.graph.sdl()).expect("the golden file can be written");
    }
    let golden = fs::read_to_string(&file).unwrap_or_default();
    let line = golden.lines().zip(app.graph.sdl().lines()).position(|(golden, now)| golden != now);
    assert!(
        golden == app.graph.sdl(),
        "{} differs from the schema, first at line {:?}. If that is meant, refresh it:\n\
         UPDATE_GOLDEN=1 cargo test -p xp --test it golden",
        file.display(),
        line.map(|line| line + 1)
    );
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
    let mut bare = Vec::new();
    let mut check = |name: String, of: &Value| {
        if of["description"].as_str().is_none_or(|description| description.trim().is_empty()) {
            bare.push(name);
        }
    };
    // Federation's own, and the one built-in scalar that the library does not describe.
    let federation = ["_Entity", "_Any", "_Service", "ID"];
    let list = |of: &Value| of.as_array().cloned().unwrap_or_default();
    let all = shape(&app).await;
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
}

#[tokio::test]
async fn introspection_and_the_sdl_tell_the_same_types() {
    let app = TestApp::sqlite().await;
    let sdl = promises(app.graph.sdl());
    let all = shape(&app).await;
    let own = all.iter().filter(|(name, of)| !name.starts_with('_') && of.kind == "OBJECT");
    for (name, of) in own {
        for field in of.fields.keys().filter(|field| !field.starts_with('_')) {
            assert!(sdl.contains_key(&format!("{name}.{field}")), "{name}.{field} is not in the SDL");
        }
    }
}

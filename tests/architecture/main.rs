//! How the crates are built: which modules may know each other, and which crate names which library. The
//! modules of a crate stand in layers, so that a reader can begin anywhere and only has to read downwards.
//! Each check is shown a wrong example, too. Not here: what the crates are built from (`packages`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

mod arrows;
mod lines;
mod names;

use arrows::{Arrows, Module};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Modules at the top of a crate that may know each other, all ways. A folder counts as one with its file.
/// Nothing is added to these lists.
const MAY_KNOW_EACH_OTHER: &[(&str, &[&str])] = &[
    // Their tables refer to each other, and SeaORM's relations name both ends.
    ("entities", &["activity", "form", "location", "session", "submission", "user"]),
];

/// The same for files within one module at the top, each with what is below it.
const FILES_MAY_KNOW_EACH_OTHER: &[(&str, &[&str])] = &[
    // The graph is cyclic: users have forms, and forms have owners.
    ("schema", &["graph"]),
];

/// What a crate must not name among its dependencies; `*` stands for any end. Its tests may use it.
const WALLS: &[(&str, &[&str])] = &[
    (
        "engine",
        &["entities", "sea-orm*", "sqlx*", "sea-query*", "redis", "axum*", "hyper*", "tower*", "migration"],
    ),
    ("schema", &["sea-orm*", "sqlx*", "sea-query*", "redis", "axum*", "hyper*", "tower*", "migration"]),
    ("entities", &["async-graphql*", "axum*", "hyper*", "tower*", "schema", "engine", "migration", "seed"]),
    ("seed", &["async-graphql*", "axum*", "hyper*", "tower*", "schema", "engine"]),
    ("migration", &["entities", "schema", "engine", "async-graphql*", "axum*", "hyper*"]),
    ("xp", &["sea-orm*", "sqlx*", "sea-query*", "async-graphql*"]),
];

#[test]
fn modules_stand_in_layers() {
    let mut wrong = String::new();
    for (name, folder) in crates() {
        let arrows = arrows::arrows(&arrows::files(&folder.join("src")));
        let top = allowed(&name, MAY_KNOW_EACH_OTHER).concat();
        wrong += &complaints(&name, &arrows, &top, &allowed(&name, FILES_MAY_KNOW_EACH_OTHER));
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_type_name_has_one_meaning_in_a_crate() {
    let mut wrong = Vec::new();
    for (name, folder) in crates() {
        let found = names::doubles(&arrows::files(&folder.join("src")));
        wrong.extend(found.into_iter().map(|double| format!("{name}: {double}")));
    }
    assert!(wrong.is_empty(), "call one of them otherwise: {wrong:#?}");
}

#[test]
fn a_type_name_with_two_meanings_is_found() {
    let files = [
        ("one", "pub(crate) struct Answer<'a> {}\nimpl T for U {\n    type Key = u8;\n}\nenum Row {}"),
        ("two", "type Answer = u8;\nimpl T for U {\n    type Key = u8;\n}\nstruct Row;\n// struct Other;"),
        ("three", "pub struct Other;\n#[cfg(test)]\nmod tests {\n    struct Other;\n}"),
    ];
    let files = files.into_iter().map(|(name, text)| (path(name), text.to_owned())).collect();
    assert_eq!(names::doubles(&files), ["Answer: one, two"]);
}

#[test]
fn every_crate_keeps_to_its_side_of_the_wall() {
    let mut wrong = Vec::new();
    for (name, folder) in crates() {
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("there is a manifest");
        wrong.extend(behind_the_wall(&name, &manifest));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Names of tables that are no words of their own.
#[test]
fn the_server_names_no_table() {
    let entities = arrows::files(&Path::new(ROOT).join("entities/src"));
    let tables: BTreeSet<&str> = entities.values().flat_map(|text| tables_of(text)).collect();
    assert!(tables.len() >= 8, "{tables:?}");
    for (module, text) in arrows::files(&Path::new(ROOT).join("src")) {
        for table in &tables {
            assert!(!text.contains(table), "src names the table {table}: {}", module.join("::"));
        }
    }
}

#[test]
fn a_cycle_is_found_and_only_an_allowed_one_is_taken() {
    let files = |texts: &[(&str, &str)]| -> BTreeMap<Module, String> {
        texts.iter().map(|(name, text)| (path(name), (*text).to_owned())).collect()
    };
    let layered = [
        ("", "pub mod low; pub mod high; pub use high::High;"),
        (
            "low",
            "// use crate::high::High;\nconst T: &str = \"crate::high\"; fn f<'a>() {} const Q: char = '\"';",
        ),
        ("low::part", "use super::other::Thing; fn f() -> crate::low::Low { r#\"crate::high\"# }"),
        ("low::other", "#[cfg(test)]\nmod tests { use crate::high::High; }\n#[cfg(test)]\nuse crate::high;"),
        ("high", "use crate::low::{self, part::{A, B as C}}; mod inner { use super::Here; }"),
    ];
    let complain = |changed: &[(&str, &str)], allowed: &[&str]| {
        let all: Vec<_> = layered.iter().chain(changed).copied().collect();
        let allowed: Vec<Module> = allowed.iter().map(|module| path(module)).collect();
        complaints("example", &arrows::arrows(&files(&all)), &allowed, std::slice::from_ref(&allowed))
    };
    assert_eq!(complain(&[], &[]), "");
    for back in [
        "use crate::{low::part, high::High};",
        "use crate::High;",
        "use super::high;",
        "fn f() -> Vec<crate::high::High> { Vec::new() }",
        "mod inner { use super::super::high; }",
        "use crate::low as l; fn f() { call!(crate::high::f()) }",
        "const C: char = '\\''; use crate::high;",
    ] {
        let found = complain(&[("low", back)], &[]);
        assert!(found.contains("high, low know each other"), "{back}: {found}");
        assert!(found.contains("low -> high"), "{back}: {found}");
        assert_eq!(complain(&[("low", back)], &["high", "low", "more"]), "", "{back}");
        assert_ne!(complain(&[("low", back)], &["high", "more"]), "", "{back}");
    }
    let beside = [("low::other", "use super::part::A;")];
    let found = complain(&beside, &["high"]);
    assert!(found.contains("low::other, low::part know each other"), "{found}");
    assert_eq!(complain(&beside, &["low"]), "");
}

#[test]
fn a_library_behind_the_wall_is_found_in_a_manifest() {
    let manifest = "[dependencies]\nredis = \"1\"\nserde = \"1\"\n[dev-dependencies]\naxum = \"1\"\n\
        [target.'cfg(unix)'.dependencies]\nsea-orm-migration = \"2\"\n\
        [dependencies.http]\npackage = \"hyper\"\n";
    let found = behind_the_wall("schema", manifest);
    assert_eq!(
        found,
        ["schema depends on hyper", "schema depends on redis", "schema depends on sea-orm-migration"]
    );
    assert_eq!(behind_the_wall("another", manifest), [""; 0]);
}

/// What is wrong with the arrows of a crate, in words; nothing where all is well.
fn complaints(name: &str, arrows: &Arrows, top: &[Module], files: &[Vec<Module>]) -> String {
    let mut wrong = String::new();
    let at_the_top = arrows::at_the_top(arrows);
    for group in arrows::cycles(&at_the_top).iter().filter(|group| !group.iter().all(|of| top.contains(of))) {
        complain(&mut wrong, name, group, arrows, |module| module[..1].to_vec());
    }
    let within = arrows::within_the_top(arrows);
    for group in &arrows::cycles(&within) {
        let covers = |all: &Vec<Module>| {
            group.iter().all(|module| all.iter().any(|allowed| module.starts_with(allowed)))
        };
        if !files.iter().any(covers) {
            complain(&mut wrong, name, group, &within, Module::clone);
        }
    }
    wrong
}

/// The lists for one crate.
fn allowed(name: &str, lists: &[(&str, &[&str])]) -> Vec<Vec<Module>> {
    let of_crate = lists.iter().filter(|(of, _)| *of == name);
    of_crate.map(|(_, all)| all.iter().map(|module| path(module)).collect()).collect()
}

/// Writes down a group and its arrows.
fn complain(
    wrong: &mut String,
    name: &str,
    group: &BTreeSet<Module>,
    arrows: &Arrows,
    part: fn(&Module) -> Module,
) {
    let names: Vec<String> = group.iter().map(|module| module.join("::")).collect();
    let _ = writeln!(wrong, "{name}: {} know each other", names.join(", "));
    for (module, targets) in
        arrows.iter().filter(|(module, _)| !module.is_empty() && group.contains(&part(module)))
    {
        for target in
            targets.iter().filter(|target| group.contains(&part(target)) && part(target) != part(module))
        {
            let _ = writeln!(wrong, "    {} -> {}", module.join("::"), target.join("::"));
        }
    }
}

/// The crates of the workspace, by name, with their folders.
fn crates() -> Vec<(String, PathBuf)> {
    let root = Path::new(ROOT);
    let manifest = manifest_of(&fs::read_to_string(root.join("Cargo.toml")).expect("there is a manifest"));
    let members = manifest["workspace"]["members"].as_array().expect("there are members");
    let members = members.iter().map(|member| root.join(member.as_str().expect("a folder")));
    let crates = std::iter::once(root.to_owned()).chain(members).map(|folder| {
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("there is a manifest");
        (manifest_of(&manifest)["package"]["name"].as_str().expect("a name").to_owned(), folder)
    });
    crates.collect()
}

fn behind_the_wall(name: &str, manifest: &str) -> Vec<String> {
    let banned = WALLS.iter().find(|(of, _)| *of == name).map_or(&[][..], |(_, banned)| *banned);
    let manifest = manifest_of(manifest);
    let of_targets = manifest.get("target").and_then(toml::Value::as_table);
    let tables = std::iter::once(manifest.get("dependencies"))
        .chain(of_targets.into_iter().flat_map(|all| all.values()).map(|target| target.get("dependencies")));
    let named = tables
        .flatten()
        .filter_map(toml::Value::as_table)
        .flatten()
        .map(|(key, value)| value.get("package").and_then(toml::Value::as_str).unwrap_or(key));
    let is_banned = |name: &&str| {
        banned
            .iter()
            .any(|banned| banned.strip_suffix('*').map_or(*name == *banned, |start| name.starts_with(start)))
    };
    let mut found: Vec<String> =
        named.filter(is_banned).map(|library| format!("{name} depends on {library}")).collect();
    found.dedup();
    found
}

fn manifest_of(text: &str) -> toml::Value {
    toml::Value::Table(toml::from_str(text).expect("it is TOML"))
}

/// The names of tables that a file of entities declares: those that are no words of everyday.
fn tables_of(text: &str) -> impl Iterator<Item = &str> {
    let names = text.split("table_name = \"").skip(1).filter_map(|rest| rest.split('"').next());
    names.filter(|name| name.contains('_'))
}

fn path(name: &str) -> Module {
    name.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

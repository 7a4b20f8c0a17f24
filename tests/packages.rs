//! What the project is built from: licences, banned crates, crates that are there twice, and sources are what
//! `deny.toml` allows; no manifest names a dependency that its package does not use; dependencies are sorted.
//! Each check is shown a wrong example, too. What only the tests of a library use is found by rustc
//! (`unused_crate_dependencies` in each `lib.rs`). Not here: known vulnerabilities.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;
use serde_json::Value;
use spdx::{Expression, ParseMode};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// `deny.toml`. A key that is not read here is an error: it would be believed to be checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Policy {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Licenses {
    allow: Vec<String>,
    exceptions: Vec<Exception>,
}

/// Licences that are good for one crate only.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Bans {
    multiple_versions: Deny,
    wildcards: Deny,
    allow_wildcard_paths: bool,
    deny: Vec<Named>,
    skip: Vec<Named>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Sources {
    unknown_registry: Deny,
    unknown_git: Deny,
}

/// A crate, or one version of it (`name@version`), and why it is listed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    #[serde(rename = "crate")]
    spec: String,
    reason: String,
}

/// The only level that is used: whatever is found fails the test.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Deny {
    Deny,
}

/// A package that is compiled for the server, its build or its tests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    /// The name in `use`.
    library: String,
    /// An SPDX expression, or the older `A/B`.
    license: String,
}

fn policy(text: &str) -> Policy {
    toml::from_str(text).expect("deny.toml is read whole")
}

fn own_policy() -> Policy {
    let policy = policy(include_str!("../deny.toml"));
    // Every check below runs always.
    let (Deny::Deny, Deny::Deny) = (&policy.bans.multiple_versions, &policy.bans.wildcards);
    let (Deny::Deny, Deny::Deny) = (&policy.sources.unknown_registry, &policy.sources.unknown_git);
    assert!(policy.bans.allow_wildcard_paths, "members of the workspace name each other by path");
    policy
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).expect("a file of the project")
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(ROOT).output().expect("cargo runs");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The packages of the lines that `cargo tree` writes: name and version, name in `use`, licence.
fn packages(lines: &str) -> BTreeSet<Package> {
    let package = |line: &str| {
        let mut fields = line.split('|');
        let mut next = || fields.next().expect("three fields").trim().to_owned();
        let (package, library, license) = (next(), next(), next());
        let mut words = package.split(' ');
        let name = words.next().expect("a name").to_owned();
        let version = words.next().expect("a version").trim_start_matches('v').to_owned();
        Package { name, version, library, license }
    };
    lines.lines().filter(|line| !line.is_empty()).map(package).collect()
}

fn own_packages(policy: &Policy) -> BTreeSet<Package> {
    let format = "{p}|{lib}|{l}|";
    let mut found = BTreeSet::new();
    for target in &policy.graph.targets {
        let edges = ["--edges", "normal,build,dev", "--prefix", "none", "--format", format];
        let tree = ["tree", "--locked", "--workspace", "--target", target];
        found.extend(packages(&cargo(&[&tree[..], &edges].concat())));
    }
    assert!(found.len() > 100, "the tree has been read");
    found
}

/// Packages whose licences are not allowed, and exceptions that are not needed.
fn wrong_licenses(policy: &Policy, packages: &BTreeSet<Package>) -> Vec<String> {
    let is_allowed = |license: &str, also: &[String]| {
        Expression::parse_mode(license, ParseMode::LAX).is_ok_and(|expression| {
            expression.evaluate(|one| {
                let one = one.to_string();
                policy.licenses.allow.iter().chain(also).any(|allowed| *allowed == one)
            })
        })
    };
    let mut wrong = Vec::new();
    for Package { name, version, license, .. } in packages {
        let exception = policy.licenses.exceptions.iter().find(|exception| exception.name == *name);
        if is_allowed(license, &[]) {
            wrong.extend(exception.map(|_| format!("{name} {version} needs no exception")));
        } else if !exception.is_some_and(|exception| is_allowed(license, &exception.allow)) {
            wrong.push(format!("{name} {version}: {license}"));
        }
    }
    let is_there = |name: &str| packages.iter().any(|package| package.name == name);
    let gone = policy.licenses.exceptions.iter().filter(|exception| !is_there(&exception.name));
    wrong.extend(gone.map(|exception| format!("{} is not used any more", exception.name)));
    wrong
}

/// `name` means every version, `name@1.2` all that begin so.
fn is_named(spec: &str, package: &Package) -> bool {
    let (name, version) = spec.split_once('@').unwrap_or((spec, ""));
    let rest = package.version.strip_prefix(version);
    name == package.name
        && rest.is_some_and(|rest| version.is_empty() || rest.is_empty() || rest.starts_with('.'))
}

/// Packages that are banned.
fn banned(policy: &Policy, packages: &BTreeSet<Package>) -> Vec<String> {
    let ban = |package: &Package| policy.bans.deny.iter().find(|ban| is_named(&ban.spec, package));
    let told = |package: &Package| ban(package).map(|ban| format!("{}: {}", package.name, ban.reason));
    packages.iter().filter_map(told).collect()
}

/// Packages of which there are several versions, `skip` aside, and entries of `skip` that are not needed.
fn duplicates(policy: &Policy, packages: &BTreeSet<Package>) -> Vec<String> {
    let mut versions = BTreeMap::<&str, BTreeSet<&str>>::new();
    for package in packages {
        versions.entry(&package.name).or_default().insert(&package.version);
    }
    let is_twice = |name: &str| versions.get(name).is_some_and(|versions| versions.len() > 1);
    let mut wrong = Vec::new();
    for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
        let is_skipped =
            |package: &&Package| policy.bans.skip.iter().any(|skip| is_named(&skip.spec, package));
        let skipped = packages.iter().filter(|package| package.name == **name).filter(is_skipped).count();
        if versions.len() - skipped > 1 {
            wrong.push(format!("{name} is there as {versions:?}"));
        }
    }
    for Named { spec, reason } in &policy.bans.skip {
        if !packages.iter().any(|package| is_named(spec, package) && is_twice(&package.name)) {
            wrong.push(format!("{spec} is not there twice any more (it was for {reason})"));
        }
    }
    wrong
}

/// Packages of `Cargo.lock` that come neither from this repository nor from crates.io.
fn foreign(lock: &str) -> Vec<String> {
    let lock: toml::Table = lock.parse().expect("Cargo.lock");
    let packages = lock["package"].as_array().expect("packages");
    let source = |package: &toml::Value| Some((package["name"].clone(), package.get("source")?.clone()));
    let is_known = |source: &str| source.starts_with("registry+") && source.ends_with("/crates.io-index");
    let foreign = packages.iter().filter_map(source);
    foreign
        .filter(|(_, source)| !source.as_str().is_some_and(is_known))
        .map(|(name, _)| name.to_string())
        .collect()
}

/// Dependencies of one manifest (or of the workspace) that any version would satisfy.
fn wildcards(manifest: &str) -> Vec<String> {
    let manifest: toml::Table = manifest.parse().expect("a manifest");
    let workspace = manifest.get("workspace").and_then(toml::Value::as_table);
    let tables = [&manifest].into_iter().chain(workspace).flat_map(|table| {
        ["dependencies", "dev-dependencies", "build-dependencies"].map(|kind| table.get(kind))
    });
    let is_any = |wanted: &toml::Value| {
        let version = wanted.as_str().or_else(|| wanted.get("version")?.as_str());
        let elsewhere = ["workspace", "path"].iter().any(|key| wanted.get(key).is_some());
        version.map_or(!elsewhere, |version| version.contains('*'))
    };
    let named = tables.flatten().filter_map(toml::Value::as_table).flatten();
    named.filter(|(_, wanted)| is_any(wanted)).map(|(name, _)| name.clone()).collect()
}

/// Dependencies that stand after one that the alphabet has later. An empty line begins a new list.
fn unsorted(manifest: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut is_list, mut before) = (false, "");
    for line in manifest.lines().filter(|line| !line.starts_with('#')) {
        if line.starts_with('[') {
            is_list = line.ends_with("dependencies]");
        }
        let name = line.split([' ', '.', '=']).next().unwrap_or_default();
        if is_list && name < before && !name.is_empty() && !name.starts_with('[') {
            wrong.push(name.to_owned());
        }
        before = name;
    }
    wrong
}

/// Does a text of Rust name this library? Comments do not count.
fn mentions(text: &str, library: &str) -> bool {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    text.lines().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
        line.match_indices(library).any(|(at, _)| {
            let (before, after) = (&line[..at], &line[at + library.len()..]);
            let is_import = before.ends_with("use ") && (after.starts_with(';') || after.starts_with(" as "));
            is_import || (!before.ends_with(is_word) && after.starts_with("::"))
        })
    })
}

/// The texts of a package's files of Rust: of its library and programs, and of all. Not of packages below it.
fn sources(folder: &Path) -> (Vec<String>, Vec<String>) {
    fn collect(path: &Path, found: &mut Vec<PathBuf>) {
        if path.is_file() && path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path.to_owned());
        } else if path.is_dir() && !path.join("Cargo.toml").exists() {
            for entry in fs::read_dir(path).expect("a folder") {
                collect(&entry.expect("an entry").path(), found);
            }
        }
    }
    let mut found = Vec::new();
    for place in ["src", "tests", "benches", "examples", "build.rs"] {
        collect(&folder.join(place), &mut found);
    }
    let text = |path: &PathBuf| fs::read_to_string(path).expect("a file of Rust");
    let is_product = |path: &&PathBuf| {
        let inner = path.strip_prefix(folder).expect("it was found there");
        let is_test = |part: &std::ffi::OsStr| part == "tests" || part == "tests.rs";
        inner.starts_with("src") && !inner.iter().any(is_test)
    };
    (found.iter().filter(is_product).map(text).collect(), found.iter().map(text).collect())
}

/// Libraries that a package wants and does not name; what is wanted for more than tests, outside of its tests.
fn unused(wanted: &[(String, bool)], product: &[String], all: &[String]) -> Vec<String> {
    let is_used = |(library, is_for_product): &&(String, bool)| {
        let texts = if *is_for_product { product } else { all };
        texts.iter().any(|text| mentions(text, library))
    };
    wanted.iter().filter(|one| !is_used(one)).map(|(library, _)| library.clone()).collect()
}

#[test]
fn licenses_are_allowed() {
    let own = own_policy();
    assert_eq!(wrong_licenses(&own, &own_packages(&own)), [""; 0]);

    let example = packages(
        "a v1.0.0|a|MIT|\nb v1.0.0|b|GPL-3.0-only|\nc v1.0.0|c|MIT/Apache-2.0|\nd v1.0.0|d||\n\
         e v1.0.0|e|MIT AND AGPL-3.0-only|\nf v1.0.0|f|GPL-2.0-only OR ISC|\n",
    );
    let wrong = ["b 1.0.0: GPL-3.0-only", "d 1.0.0: ", "e 1.0.0: MIT AND AGPL-3.0-only"];
    assert_eq!(wrong_licenses(&policy(&example_policy("", "")), &example), wrong);
}

#[test]
fn nothing_is_banned_or_there_twice() {
    let own = own_policy();
    let packages_of_ours = own_packages(&own);
    assert_eq!(banned(&own, &packages_of_ours), [""; 0]);
    assert_eq!(duplicates(&own, &packages_of_ours), [""; 0]);

    let example =
        packages("a v1.2.0|a|MIT|\na v2.0.0|a|MIT|\nb v1.10.0|b|MIT|\nb v1.1.0|b|MIT|\nc v0.1.0|c|MIT|\n");
    let skipping = policy(&example_policy("", r#"{ crate = "b@1.1", reason = "c" }"#));
    assert_eq!(duplicates(&skipping, &example), [r#"a is there as {"1.2.0", "2.0.0"}"#]);
    let needless = policy(&example_policy(
        "",
        "{ crate = 'a@1', reason = 'c' }, { crate = 'c@0.1', reason = 'd' }, { crate = 'b@1', reason = 'e' }",
    ));
    assert_eq!(duplicates(&needless, &example), ["c@0.1 is not there twice any more (it was for d)"]);
    let banning =
        policy(&example_policy(r#"{ crate = "c", reason = "old" }, { crate = "a@3", reason = "" }"#, ""));
    assert_eq!(banned(&banning, &example), ["c: old"]);
}

#[test]
fn everything_comes_from_one_registry() {
    assert_eq!(foreign(include_str!("../Cargo.lock")), [""; 0]);

    let example = |source: &str| format!("[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n{source}\n");
    assert_eq!(foreign(&example("")), [""; 0]);
    for source in
        ["git+https://example.com/a", "registry+https://example.com/index", "sparse+https://example.com/"]
    {
        assert_eq!(foreign(&example(&format!("source = \"{source}\""))), ["\"a\""], "{source}");
    }
}

#[test]
fn manifests_are_sorted_and_want_versions() {
    for manifest in manifests() {
        let text = read(&manifest);
        assert_eq!(unsorted(&text), [""; 0], "{manifest}");
        assert_eq!(wildcards(&text), [""; 0], "{manifest}");
    }

    let example = "[dependencies]\nb = '*'\na.workspace = true\n# why\nc = { git = 'x' }\n\n\
                   b-c = '1'\n[features]\na = []\n";
    assert_eq!(unsorted(example), ["a"]);
    assert_eq!(wildcards(example), ["b", "c"]);
}

#[test]
fn every_dependency_is_used() {
    let libraries: BTreeMap<_, _> =
        own_packages(&own_policy()).into_iter().map(|package| (package.name, package.library)).collect();
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--locked", "--no-deps", "--format-version", "1"]))
            .expect("JSON");
    let mut inherited = BTreeSet::new();
    for member in metadata["packages"].as_array().expect("packages") {
        let manifest = Path::new(member["manifest_path"].as_str().expect("a path"));
        let (product, all) = sources(manifest.parent().expect("a folder"));
        let dependencies = member["dependencies"].as_array().expect("dependencies");
        let wanted: Vec<_> = dependencies
            .iter()
            .map(|dependency| {
                let name = dependency["name"].as_str().expect("a name");
                inherited.insert(name.to_owned());
                (libraries[name].clone(), dependency["kind"].is_null())
            })
            .collect();
        assert_eq!(unused(&wanted, &product, &all), [""; 0], "{}", member["name"]);
    }
    let root: toml::Table = read("Cargo.toml").parse().expect("a manifest");
    let declared = root["workspace"]["dependencies"].as_table().expect("a table");
    let idle: Vec<_> = declared.keys().filter(|name| !inherited.contains(*name)).collect();
    assert_eq!(idle, [""; 0], "no package inherits it");

    let product = ["use a::b;\n// use c::d;\nfn e() { f_g::h() }\n".to_owned()];
    let all = [product[0].clone(), "use i as _;\n use j;\n".to_owned()];
    let wanted = ["a", "c", "e", "g", "f_g", "h", "j"].map(|library| (library.to_owned(), true));
    assert_eq!(unused(&wanted, &product, &all), ["c", "e", "g", "h", "j"]);
    assert_eq!(unused(&["i", "j", "b"].map(|library| (library.to_owned(), false)), &product, &all), ["b"]);
}

fn manifests() -> Vec<String> {
    let root: toml::Table = read("Cargo.toml").parse().expect("a manifest");
    let members = root["workspace"]["members"].as_array().expect("members").iter();
    let member = |member: &toml::Value| format!("{}/Cargo.toml", member.as_str().expect("a path"));
    ["Cargo.toml".to_owned()].into_iter().chain(members.map(member)).collect()
}

fn example_policy(deny: &str, skip: &str) -> String {
    format!(
        "[graph]\ntargets = []\n[licenses]\nallow = ['MIT', 'ISC']\nexceptions = []\n[bans]\n\
         multiple-versions = 'deny'\nwildcards = 'deny'\nallow-wildcard-paths = true\n\
         deny = [{deny}]\nskip = [{skip}]\n\
         [sources]\nunknown-registry = 'deny'\nunknown-git = 'deny'\n"
    )
}

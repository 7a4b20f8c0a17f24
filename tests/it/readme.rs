//! The README says what the code does: its first answer, and the catalogue of error codes, each of which a test
//! produces. Not here: the pages of docs/ (`docs`), the schema's golden files (`published`).

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::harness::TestApp;

const README: &str = include_str!("../../README.md");

/// The answer below the README's first query is what a new database answers. Titles follow the day.
#[tokio::test]
async fn the_first_answer_is_what_comes() {
    let section = README.split("## A first query").nth(1).expect("a section");
    let asked =
        section.split("\"query\":\"").nth(1).and_then(|after| after.split("\"}").next()).expect("a query");
    let shown =
        section.split("```json").nth(1).and_then(|after| after.split("```").next()).expect("an answer");
    let mut shown: Value = serde_json::from_str(shown).expect("JSON");
    let mut data = TestApp::sqlite().await.as_admin().ask(asked).await;
    let untitled = |data: &mut Value| {
        let nodes = data.pointer_mut("/me/forms/nodes").and_then(Value::as_array_mut).expect("forms");
        for node in nodes {
            node["title"] = "…".into();
        }
    };
    untitled(&mut data);
    untitled(&mut shown["data"]);
    assert_eq!(data, shown["data"]);
}

/// All files below a folder that are Rust.
fn sources(folder: &str, found: &mut Vec<PathBuf>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    for entry in fs::read_dir(&folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(path.to_str().expect("UTF-8"), found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path);
        }
    }
}

/// Words in quotes that look like a code.
fn quoted_codes(text: &str) -> impl Iterator<Item = &str> {
    let is_code = |word: &&str| {
        word.len() > 5
            && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
            && !word.starts_with('_')
    };
    text.split(['"', ':']).filter(is_code)
}

#[test]
fn every_code_is_in_the_readme_and_produced_by_a_test() {
    let section = README.split("## Errors").nth(1).expect("a section").split("\n## ").next().expect("text");
    let documented: BTreeSet<&str> =
        section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(documented.len() > 20, "{documented:?}");
    let mut files = Vec::new();
    for folder in ["src", "schema/src", "tests/it"] {
        sources(folder, &mut files);
    }
    let own = Path::new(file!()).file_name();
    let (mut made, mut tested) = (BTreeSet::new(), BTreeSet::new());
    for file in files.iter().filter(|file| file.file_name() != own) {
        let text = fs::read_to_string(file).expect("UTF-8");
        let path = file.to_string_lossy();
        let (code, tests) = text.split_once("#[cfg(test)]\nmod tests {").unwrap_or((&text, ""));
        if path.contains("tests") {
            tested.extend(quoted_codes(&text).map(str::to_owned));
        } else {
            tested.extend(quoted_codes(tests).map(str::to_owned));
            made.extend(code.split("Refusal").skip(1).flat_map(|after| {
                let after = after.split(';').next().unwrap_or_default();
                quoted_codes(after).map(str::to_owned).collect::<Vec<_>>()
            }));
            if path.ends_with("schema/src/error.rs") {
                made.extend(quoted_codes(code).map(str::to_owned));
            }
        }
    }
    // Methods of HTTP look the same.
    made.retain(|code| code.contains('_') || documented.contains(code.as_str()));
    let missing: Vec<_> = made.iter().filter(|code| !documented.contains(code.as_str())).collect();
    assert!(missing.is_empty(), "not in the README: {missing:?}");
    let stale: Vec<_> = documented.iter().filter(|code| !made.contains(**code)).collect();
    assert!(stale.is_empty(), "only in the README: {stale:?}");
    let untested: Vec<_> = documented.iter().filter(|code| !tested.contains(**code)).collect();
    assert!(untested.is_empty(), "produced by no test: {untested:?}");
}

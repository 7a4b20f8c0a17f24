//! The documentation says what the code does: generated pages are compared, every fenced block of every page runs
//! (`docs/contributing.md` says how), links and paths lead somewhere, and every error code is listed and produced by a
//! test. Not here: the schema's golden files (`published`).

mod commands;
mod pages;
mod server;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
};

use schema::engine::error::Code;
use serde_json::{Value, json};
use tempfile::tempdir;
use xp::config::{
    Mode,
    layers::{self, Inputs},
};

use crate::harness::RedisServer;
use commands::Folder;
use pages::{Block, Page, ROOT, Runner};
use server::Development;

/// The file holds this text, byte for byte. `UPDATE_GOLDEN=1` writes it.
fn assert_generated(file: &str, text: &str) {
    let path = Path::new(ROOT).join(file);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).expect("the page can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let line = written.lines().zip(text.lines()).position(|(written, now)| written != now);
    assert!(
        written == text,
        "{file} differs from what the code says, first at line {:?}. Refresh it:\n\
         UPDATE_GOLDEN=1 cargo test -p xp --test it -- docs",
        line.map(|line| line + 1)
    );
}

#[test]
fn the_page_of_the_configuration_is_generated() {
    assert_generated("docs/configuration.md", &xp::config::print::markdown());
}

/// Editors take it for what the program takes: a value of every kind, right and wrong, is judged by both.
#[test]
fn the_schema_of_the_configuration_agrees_with_what_is_read() {
    let text = xp::config::print::json_schema();
    assert_generated("docs/xp.schema.json", &text);
    let schema = serde_json::from_str(&text).expect("JSON");
    let schema = jsonschema::validator_for(&schema).expect("a schema");
    let folder = tempdir().expect("a folder");
    let file = folder.path().join("xp.toml");
    for (section, key, value, is_right) in [
        ("http", "port", "8080", true),
        ("http", "port", "\"8080\"", true),
        ("http", "port", "70000", false),
        ("http", "port", "-1", false),
        ("http", "request_timeout", "\"5s\"", true),
        ("http", "request_timeout", "\"5\"", false),
        ("http", "request_timeout", "5", false),
        ("http", "address_share", "\"30 %\"", true),
        ("http", "address_share", "101", false),
        ("http", "max_body_memory", "\"64MiB\"", true),
        ("http", "max_body_memory", "67108864", true),
        ("http", "max_body_memory", "\"64GB\"", false),
        ("graph", "max_depth", "0", false),
        ("graph", "shared_batches", "0", true),
        ("graph", "subgraphs", "\"\"", true),
        ("auth", "sign_up", "true", true),
        ("auth", "sign_up", "\"yes\"", false),
        ("documents", "mode", "\"safelist\"", true),
        ("documents", "mode", "\"strict\"", false),
        ("documents", "modus", "\"off\"", false),
        ("nothing", "port", "1", false),
        ("telemetry", "filter", "\"warn\"", true),
    ] {
        let written = format!("[{section}]\n{key} = {value}\n");
        let toml: toml::Table = written.parse().expect("TOML");
        let by_schema = schema.is_valid(&serde_json::to_value(&toml).expect("JSON"));
        fs::write(&file, &written).expect("written");
        let read = layers::load(&Inputs { file: Some(file.clone()), ..Inputs::nothing(Mode::Tool) });
        assert_eq!((by_schema, read.is_ok()), (is_right, is_right), "{written}{read:?}");
    }
    let defaults = xp::config::KEYS.iter().filter(|key| !key.default.is_empty());
    for key in defaults {
        let of_key = jsonschema::validator_for(&(key.schema)()).expect("a schema");
        assert!(of_key.is_valid(&json!(key.default)), "{}", key.name);
    }
}

#[test]
fn the_page_of_the_error_codes_is_generated() {
    assert_generated("docs/errors.md", &xp::codes::markdown());
}

/// All blocks of all pages, with what runs them.
fn blocks() -> Vec<(String, Block, Runner)> {
    let (mut blocks, mut problems) = (Vec::new(), Vec::new());
    for page in Page::all() {
        for block in page.blocks() {
            let place = format!("{}:{}", page.path, block.line);
            match block.runner() {
                Ok(runner) => blocks.push((place, block, runner)),
                Err(problem) => problems.push(format!("{place}: {problem}")),
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    blocks
}

/// A code block by indentation has no language, so nothing could run it.
#[test]
fn every_block_is_fenced_and_has_a_runner() {
    assert!(blocks().len() > 30);
    for page in Page::all() {
        let mut was_blank = false;
        for (number, line) in page.prose() {
            let is_indented =
                was_blank && line.starts_with("    ") && !line.trim_start().starts_with(['-', '*']);
            assert!(!is_indented, "{}:{number}: a block by indentation", page.path);
            was_blank = line.trim().is_empty();
        }
    }
}

#[test]
fn every_quoted_line_stands_in_its_file() {
    for (place, block, runner) in blocks() {
        let Runner::Quote(path) = runner else { continue };
        let file = fs::read_to_string(Path::new(ROOT).join(&path)).expect("UTF-8");
        let trimmed = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
        let (quote, file) = (trimmed(&block.text), trimmed(&file));
        let stands = file.windows(quote.len()).any(|lines| lines == quote);
        assert!(stands && !quote.is_empty(), "{place}: these lines do not stand in {path} like this");
    }
}

#[test]
fn every_configuration_is_valid() {
    let folder = tempdir().expect("a folder");
    let mut read = 0;
    for (place, block, runner) in blocks() {
        if runner != Runner::Configuration {
            continue;
        }
        let file = folder.path().join("xp.toml");
        fs::write(&file, &block.text).expect("written");
        let loaded = layers::load(&Inputs { file: Some(file), ..Inputs::nothing(Mode::Tool) });
        assert!(loaded.is_ok(), "{place}: {}", loaded.expect_err("it is not valid"));
        read += 1;
    }
    assert!(read > 1);
}

/// The table of steps that are taken back; the first ones made the tables, and share a row.
#[test]
fn every_step_of_the_schema_says_what_taking_it_back_loses() {
    let root = Path::new(ROOT);
    let page = fs::read_to_string(root.join("docs/upgrading.md")).expect("read");
    let files = fs::read_dir(root.join("migration/src")).expect("a folder");
    let steps: Vec<String> = files
        .filter_map(|file| Some(file.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .filter(|name| name.starts_with("m0") && name.as_str() > "m0006")
        .collect();
    assert!(steps.len() > 10, "{steps:?}");
    for step in steps {
        assert!(page.contains(&format!("`{step}`")), "{step} is not in docs/upgrading.md");
    }
}

/// Folders of a picture are at the root.
#[test]
fn every_picture_shows_folders_that_exist() {
    for (place, block, runner) in blocks() {
        if runner != Runner::Picture {
            continue;
        }
        let folders: Vec<&str> = block.text.split_whitespace().filter(|word| word.ends_with('/')).collect();
        assert!(!folders.is_empty(), "{place}");
        for folder in folders {
            assert!(Path::new(ROOT).join(folder).is_dir(), "{place}: there is no {folder}");
        }
    }
}

/// One server and one Redis for all pages; the commands of each page run in a folder of its own.
#[tokio::test(flavor = "multi_thread")]
async fn every_command_runs_and_every_operation_answers_as_shown() {
    let redis = RedisServer::start().await;
    let home = tempdir().expect("a folder");
    let server = Development::start(home.path());
    let (mut problems, mut folders) = (Vec::new(), BTreeMap::new());
    let mut blocks = blocks().into_iter().peekable();
    while let Some((place, block, runner)) = blocks.next() {
        let page = place.split(':').next().expect("a path").to_owned();
        let folder = folders.entry(page).or_insert_with(|| {
            let home = tempdir().expect("a folder");
            fs::write(home.path().join("password.txt"), "correct horse battery staple\n").expect("written");
            Folder { home, server: &server, redis: redis.address() }
        });
        let answer = match runner {
            Runner::Shell => {
                folder.run(&block.text).map(|out| serde_json::from_str(&out).unwrap_or(Value::Null))
            }
            Runner::Operation { anonymous } => Ok(server.ask(anonymous, &block.text, &Value::Null)),
            Runner::Definition => publish(&server, &block.text),
            Runner::Answer => Err("it is the answer to nothing that runs".to_owned()),
            Runner::Configuration | Runner::Quote(_) | Runner::Picture => continue,
        };
        let shown = blocks.next_if(|(_, _, runner)| *runner == Runner::Answer);
        let shown = shown.map(|(_, block, _)| serde_json::from_str(&block.text).expect("JSON"));
        match (answer, shown) {
            (Err(problem), _) => problems.push(format!("{place}: {problem}")),
            (Ok(came), Some(shown)) if !is_like(&came, &shown) => {
                problems.push(format!("{place}: the answer is {came}"));
            }
            (Ok(came), None) if came.get("errors").is_some() => problems.push(format!("{place}: {came}")),
            _ => {}
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Makes a form of a definition; what publishing it says, of which nothing may be wrong.
fn publish(server: &Development, definition: &str) -> Result<Value, String> {
    let definition: Value = serde_json::from_str(definition).map_err(|error| error.to_string())?;
    let create = "mutation($input: CreateFormInput!) { createForm(input: $input) {
        form { id draftRevision } userErrors { code path message } } }";
    let made = server.ask(false, create, &json!({ "input": { "title": "Shown", "definition": definition } }));
    let form = &made["data"]["createForm"]["form"];
    let publish = "mutation($input: PublishFormInput!) { publishForm(input: $input) {
        form { status } userErrors { code path message } } }";
    let input = json!({ "input": { "id": form["id"], "baseRevision": form["draftRevision"] } });
    let published = server.ask(false, publish, &input);
    let wanted = json!({ "data": { "publishForm": { "form": { "status": "OPEN" }, "userErrors": [] } } });
    if published == wanted { Ok(Value::Null) } else { Err(format!("{made}, {published}")) }
}

/// Is an answer the one that a page shows? `…` in a text that is shown stands for anything.
fn is_like(came: &Value, shown: &Value) -> bool {
    match (came, shown) {
        (Value::String(came), Value::String(shown)) => match shown.split_once('…') {
            Some((begin, end)) => came.starts_with(begin) && came.ends_with(end),
            None => came == shown,
        },
        (Value::Array(came), Value::Array(shown)) => {
            came.len() == shown.len() && came.iter().zip(shown).all(|(came, shown)| is_like(came, shown))
        }
        (Value::Object(came), Value::Object(shown)) => {
            came.len() == shown.len()
                && shown.iter().all(|(key, shown)| came.get(key).is_some_and(|came| is_like(came, shown)))
        }
        _ => came == shown,
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for page in Page::all() {
        for (number, target) in page.links() {
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            if path.contains("://") {
                continue;
            }
            let file =
                if path.is_empty() { Path::new(ROOT).join(&page.path) } else { page.folder().join(path) };
            let is_there = file.exists();
            let has_anchor = || {
                let text = fs::read_to_string(&file).unwrap_or_default();
                Page { path: String::new(), text }.anchors().iter().any(|known| known == anchor)
            };
            if !is_there || !(anchor.is_empty() || has_anchor()) {
                broken.push(format!("{}:{number}: {target}", page.path));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// What looks like a path of the repository: it begins with one of its folders.
fn named_path(span: &str) -> Option<&str> {
    let is_path = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    let (first, _) = span.split_once('/')?;
    let is_ours = !first.is_empty() && !first.starts_with('.') && Path::new(ROOT).join(first).is_dir();
    (is_ours && span.chars().all(is_path)).then_some(span)
}

#[test]
fn every_path_that_is_named_exists() {
    let mut missing = Vec::new();
    let mut found = 0;
    for page in Page::all().iter().filter(|page| page.path != "CHANGELOG.md") {
        for (number, span) in page.code_spans() {
            let Some(path) = named_path(&span) else { continue };
            found += 1;
            if !Path::new(ROOT).join(path).exists() && !page.folder().join(path).exists() {
                missing.push(format!("{}:{number}: {path}", page.path));
            }
        }
    }
    assert!(found > 100, "{found}");
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn the_life_of_a_request_names_each_file_once() {
    let page = Page::read("docs/architecture.md");
    let from = page.text.find("## Life of a request").expect("a section");
    let text = page.text[from..].split("\n## ").next().expect("text").to_owned();
    let section = Page { path: page.path, text };
    let files = section.code_spans().into_iter().map(|(_, span)| span);
    let files: Vec<String> =
        files.filter(|span| Path::new(span).extension().is_some_and(|extension| extension == "rs")).collect();
    let unique: BTreeSet<&String> = files.iter().collect();
    assert!(files.len() > 30 && unique.len() == files.len(), "{files:?}");
    for folder in ["src/", "schema/", "entities/"] {
        assert!(files.iter().any(|file| file.starts_with(folder)), "{folder}");
    }
}

#[test]
fn the_readme_is_short() {
    let lines = Page::read("README.md").text.lines().count();
    assert!(lines <= 150, "{lines} lines: move what only some readers need into docs/");
}

/// <https://keepachangelog.com/en/1.1.0/>
#[test]
fn the_changelog_has_the_usual_form() {
    let page = Page::read("CHANGELOG.md");
    let headings: Vec<&str> = page.text.lines().filter(|line| line.starts_with("##")).collect();
    assert_eq!(headings.first(), Some(&"## [Unreleased]"));
    for heading in headings {
        let is_version = heading.starts_with("## [");
        let is_kind = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
            .iter()
            .any(|kind| heading.strip_prefix("### ") == Some(kind));
        assert!(is_version || is_kind, "{heading}");
    }
}

/// The toolchain that everything is built with is the oldest one that is promised.
#[test]
fn the_toolchain_is_the_promised_one() {
    let read = |file: &str| fs::read_to_string(Path::new(ROOT).join(file)).expect("a file");
    let value = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)).expect("a value");
        line.split('"').nth(1).expect("in quotes").to_owned()
    };
    let promised = value(&read("Cargo.toml"), "rust-version = ");
    assert_eq!(value(&read("rust-toolchain.toml"), "channel = "), format!("{promised}.0"));
    assert!(read("README.md").contains(&format!("a Rust toolchain ({promised} or newer)")));
}

/// All files below a folder that are Rust.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
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
fn every_error_code_is_documented_and_produced_by_a_test() {
    let page = Page::read("docs/errors.md").text;
    let documented: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let mut files = Vec::new();
    for folder in ["src", "schema", "tests/it"] {
        sources(&Path::new(ROOT).join(folder), &mut files);
    }
    let mut made: BTreeSet<String> = Code::ALL.iter().map(|code| code.as_str().to_owned()).collect();
    let mut tested = BTreeSet::new();
    for file in files.iter().filter(|file| !file.ends_with("src/codes.rs")) {
        let text = fs::read_to_string(file).expect("UTF-8");
        let (code, tests) = text.split_once("#[cfg(test)]\nmod tests {").unwrap_or((&text, ""));
        if file.to_string_lossy().contains("tests") {
            tested.extend(quoted_codes(&text).map(str::to_owned));
        } else {
            tested.extend(quoted_codes(tests).map(str::to_owned));
            made.extend(code.split("Rejection").skip(1).flat_map(|after| {
                let after = after.split(';').next().unwrap_or_default();
                quoted_codes(after).map(str::to_owned).collect::<Vec<_>>()
            }));
        }
    }
    // Methods of HTTP look the same.
    made.retain(|code| code.contains('_') || documented.contains(code.as_str()));
    let missing: Vec<_> = made.iter().filter(|code| !documented.contains(code.as_str())).collect();
    assert!(missing.is_empty(), "not in docs/errors.md: {missing:?}");
    let stale: Vec<_> = documented.iter().filter(|code| !made.contains(**code)).collect();
    assert!(stale.is_empty(), "only in docs/errors.md: {stale:?}");
    let untested: Vec<_> = documented.iter().filter(|code| !tested.contains(**code)).collect();
    assert!(untested.is_empty(), "produced by no test: {untested:?}");
}

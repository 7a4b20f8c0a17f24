//! Persisted documents between processes: published by the command, shared through Redis. Not here: what a request may
//! say (`src/http/tests`), manifests of real compilers (`tests/clients`).

use std::{fs, process::Command};

use axum::{
    body::Body,
    http::{Request, header::CONTENT_TYPE},
};
use entities::auth::secret::Secret;
use http_body_util::BodyExt as _;
use prometheus_client::registry::Registry;
use schema::{Access, AccessOptions};
use serde_json::{Value, json};
use tempfile::tempdir;
use tower::ServiceExt as _;
use xp::{App, config::Config};

use crate::harness::{RedisServer, TestApp};

const TEXT: &str = "query A { users(first: 1) { nodes { id } } }";
/// `sha256` of the text.
const HASH: &str = "7376d2e47bff4fbe850caa31a347d4e0a96d24f7f1e7ce13d0227e981593af82";

/// Runs `xp documents …`; its exit code and what it said on both streams.
fn documents(path: &str, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xp"));
    command.arg("documents").args(arguments).env_clear().env("XP_DOCUMENTS_PATH", path).current_dir("/");
    let output = command.output().expect("the program can be started");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8(said).expect("UTF-8").trim().to_owned())
}

#[test]
fn a_manifest_is_checked_published_listed_counted_and_retired() {
    let (servers, folder) = (tempdir().expect("a folder"), tempdir().expect("a folder"));
    let path = servers.path().to_str().expect("UTF-8");
    let file = |name: &str, content: &Value| {
        let file = folder.path().join(name);
        fs::write(&file, content.to_string()).expect("written");
        file.to_str().expect("UTF-8").to_owned()
    };
    let good = file("good.json", &json!({ HASH: TEXT, "mine": "{ me { id } }" }));
    let bad = file("bad.json", &json!({ "x": "{ nothing }", HASH: "{ me { id } }", "y": "{ me { id } }" }));
    assert_eq!(documents(path, &["check", &good]), (0, "2 documents, all valid".into()));
    let (code, said) = documents(path, &["check", &bad]);
    assert!(
        code == 1
            && said.contains("2 of the documents")
            && said.contains("  x in ")
            && said.contains("its text has the hash"),
        "{said}"
    );
    let wrong = folder.path().join("wrong.graphql");
    fs::write(&wrong, "query Wrong {\n  nothing\n  users(first: \"1\") { totalCount }\n}\n")
        .expect("written");
    let wrong = wrong.to_str().expect("UTF-8");
    let (code, said) = documents(path, &["check", wrong]);
    assert_eq!(code, 1, "{said}");
    for (place, message) in [
        ("2:3", "Cannot query field \"nothing\" on type \"Query\"."),
        ("3:16", "Expected a value of type \"Int\", found a string."),
    ] {
        assert!(said.contains(&format!("  wrong in {wrong}:{place}: {message}")), "{said}");
    }
    let publish = |manifest: &str, version: &str| {
        documents(path, &["publish", manifest, "--client", "web", "--client-version", version])
    };
    assert_eq!(publish(&bad, "1.0").0, 1);
    assert_eq!(documents(path, &["list"]), (0, String::new()), "nothing of a bad manifest is published");
    assert_eq!(publish(&good, "1.0").0, 0);
    assert_eq!(publish(&good, "1.0").0, 0, "once more is no change");
    let other = file("other.json", &json!({ "mine": "{ me { email } }" }));
    let (code, said) = publish(&other, "1.1");
    assert!(code == 1 && said.contains("mine is published with another text"), "{said}");
    let more = file("more.json", &json!({ "mine": "{ me { id } }", "new": "{ me { role } }" }));
    assert!(publish(&more, "1.0").1.contains("a version that is published stays as it is"));
    assert_eq!(publish(&more, "1.1").0, 0);
    assert_eq!(documents(path, &["publish", &good, "--client", "../web", "--client-version", "1"]).0, 2);
    let (_, listed) = documents(path, &["list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(4));

    let now = entities::clock::now().timestamp();
    let counted = |id: &str| file("usage.json", &json!({ id: { "requests": 3, "lastUsedSeconds": now } }));
    let usage = counted("new");
    let (_, said) = documents(path, &["usage", "--usage", &usage]);
    assert!(said.lines().any(|line| line.starts_with("new  ") && line.contains(" 3  20")), "{said}");
    assert!(said.lines().any(|line| line.starts_with("mine  ") && line.ends_with("never")), "{said}");
    assert_eq!(documents(path, &["usage"]).0, 2, "nobody counts");
    let retire = ["retire", "--client", "web", "--client-version", "1.1"];
    let (code, said) = documents(path, &[&retire[..], &["--usage", &usage]].concat());
    assert!(code == 1 && said.ends_with("  new"), "{said}");
    // What another version has too stays known.
    let usage = counted("mine");
    assert_eq!(documents(path, &[&retire[..], &["--usage", &usage]].concat()).0, 0);
    assert_eq!(documents(path, &[&retire[..], &["--force"]].concat()).0, 1, "it is gone");
    assert!(!documents(path, &["list"]).1.contains("new"));
}

#[test]
fn the_use_of_fields_is_added_up_and_unused_ones_are_named() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().to_str().expect("UTF-8");
    let file = |name: &str, content: &Value| {
        let file = folder.path().join(name);
        fs::write(&file, content.to_string()).expect("written");
        file.to_str().expect("UTF-8").to_owned()
    };
    let used = |operations: f64, last: i64| json!({ "operations": operations, "lastUsedSeconds": last });
    let (first, second) = (1_795_000_000, 1_795_100_000);
    let fields = json!({
        "Query.me": { "web": used(40.0, first), "ios": used(10.0, first) }, "Node.id": { "web": used(3.4, first) },
    });
    let one = json!({ "sinceSeconds": first, "untilSeconds": first, "fields": fields });
    let fields =
        json!({ "Query.me": { "web": used(2.0, second) }, "User.email": { "ios": used(1.0, second) } });
    let other = json!({ "sinceSeconds": second, "untilSeconds": second, "fields": fields });
    let (one, other) = (file("1.json", &one), file("2.json", &other));
    let usage = ["usage", "--fields", "--usage", &one, "--usage", &other];
    let asked = |more: &[&str]| documents(path, &[&usage[..], more].concat());
    let (code, said) = asked(&[]);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(code, 0, "{said}");
    assert_eq!(lines[0], "counted from 2026-11-18 11:06 to 2026-11-19 14:53, in a sample");
    assert_eq!(lines[1], "Node.id     web           3  2026-11-18 11:06");
    assert_eq!(lines[2], "Query.me    ios          10  2026-11-18 11:06");
    assert_eq!(lines[3], "Query.me    web          42  2026-11-19 14:53");
    assert_eq!(lines.len(), 5, "{said}");
    assert_eq!(asked(&["--client", "ios"]).1.lines().count(), 3);
    let json: Value = serde_json::from_str(&asked(&["--client", "web", "--json"]).1).expect("JSON");
    let row = json!({ "coordinate": "Query.me", "client": "web", "operations": 42, "lastUsed": "2026-11-19T14:53:20+00:00" });
    assert_eq!(json["fields"][1], row, "{json}");

    let unused = |more: &[&str]| {
        let (code, said) = asked(&[&["--unused"], more].concat());
        assert_eq!(code, 0, "{said}");
        let period = "counted from 2026-11-19 14:53 to 2026-11-19 14:53, in a sample; all files have been counted since \
                      then, some for longer";
        assert_eq!(said.lines().next(), Some(period), "what one file alone has watched is not the period");
        said.lines().skip(1).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let has = |names: &[String], name: &str| names.iter().any(|known| known == name);
    let all = unused(&[]);
    assert!(has(&all, "User.role") && has(&all, "Query.users") && !has(&all, "Query.me"), "{all:?}");
    assert!(!has(&all, "User.email") && !has(&all, "User.id"), "who asks a node asks each object: {all:?}");
    assert!(!all.iter().any(|name| name.starts_with('_')), "{all:?}");
    let (_, said) = documents(path, &["usage", "--fields", "--unused", "--usage", &one]);
    assert_eq!(said.lines().next(), Some("counted from 2026-11-18 11:06 to 2026-11-18 11:06, in a sample"));
    let of_web = unused(&["--client", "web"]);
    assert!(has(&of_web, "User.email") && !has(&of_web, "Query.me"), "{of_web:?}");

    let (code, said) = documents(path, &["usage", "--fields"]);
    assert!(code == 2 && said.contains("telemetry.field_usage_file is not set"), "{said}");
    assert_eq!(documents(path, &["usage", "--unused"]).0, 2, "of what");
    for wrong in [format!("{path}/nowhere.json"), file("3.json", &json!({ "mine": { "requests": 1 } }))] {
        let (code, said) = asked(&["--usage", &wrong]);
        assert!(code == 1 && said.contains(&format!("{wrong}: ")), "{said}");
    }
}

fn sha256(text: &str) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()))
}

/// An instance over a store.
fn instance(app: &TestApp, redis: Option<&RedisServer>) -> App {
    let store = match redis {
        Some(redis) => app.store.clone().with_relay(&redis.handle(), "test"),
        None => app.store.clone(),
    };
    let options = AccessOptions { secret: Secret::new("of all nodes"), ..AccessOptions::default() };
    let access = Access::new(store.clone(), options);
    App::new(&Config::default(), store, access, Registry::default(), None)
}

/// Asks an instance by Apollo's protocol; `ok`, or the error's code.
async fn ask(instance: &App, text: Option<&str>) -> String {
    ask_for(instance, text, HASH).await
}

async fn ask_for(instance: &App, text: Option<&str>, hash: &str) -> String {
    let mut body = json!({ "extensions": { "persistedQuery": { "version": 1, "sha256Hash": hash } } });
    if let Some(text) = text {
        body["query"] = json!(text);
    }
    let request = Request::post("/graphql").header(CONTENT_TYPE, "application/json");
    let request = request.body(Body::from(body.to_string())).expect("a request");
    let answer = xp::router(instance.clone()).oneshot(request).await.expect("never fails");
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    body["errors"][0]["extensions"]["code"].as_str().unwrap_or("ok").to_owned()
}

#[tokio::test]
async fn registered_documents_are_shared_through_redis() {
    let app = TestApp::sqlite().await;
    let mut redis = RedisServer::start().await;
    let instances = [instance(&app, Some(&redis)), instance(&app, Some(&redis)), instance(&app, None)];
    assert_eq!(ask(&instances[0], None).await, "PERSISTED_QUERY_NOT_FOUND");
    assert_eq!(ask(&instances[0], Some(TEXT)).await, "ok");
    assert_eq!(ask(&instances[1], None).await, "ok");
    assert_eq!(ask(&instances[2], None).await, "PERSISTED_QUERY_NOT_FOUND", "a node by itself");
    assert_eq!(redis.cli(&["get", &format!("test:apq:{HASH}")]).trim(), TEXT);

    redis.cli(&["set", &format!("test:apq:{HASH}"), "{ me { id } }"]);
    let late = instance(&app, Some(&redis));
    assert_eq!(
        ask(&late, None).await,
        "PERSISTED_QUERY_NOT_FOUND",
        "a text that is not the hash's is not taken"
    );
    // A text that is mostly white space is shared without it, under the hash that it had, and for a short time first.
    let padded = format!("query A {{ {} users(first: 1) {{ nodes {{ id }} }} }}", " #\n".repeat(10_000));
    let hash = &sha256(&padded);
    assert_eq!(ask_for(&instances[0], Some(&padded), hash).await, "ok");
    let name = format!("test:apq:{hash}");
    let number = |said: String| said.trim().parse::<i64>().expect("a number");
    assert!((1..300).contains(&number(redis.cli(&["strlen", &name]))), "{}", redis.cli(&["get", &name]));
    assert!((1..=600).contains(&number(redis.cli(&["ttl", &name]))), "until it is asked for");
    assert_eq!(ask_for(&instances[0], None, hash).await, "ok");
    assert!(number(redis.cli(&["ttl", &name])) > 80_000, "asked for in the process that has it");
    // An instance that has not heard of it; on a busy machine Redis may not answer in the little time that it has.
    let mut said = Vec::new();
    while said.last().is_none_or(|last| last != "ok") && said.len() < 20 {
        said.push(ask_for(&instance(&app, Some(&redis)), None, hash).await);
    }
    assert_eq!(said.last().map(String::as_str), Some("ok"), "{said:?}");
    let stolen = redis.cli(&["get", &name]).trim_end_matches('\n').replace("users", "xusers");
    redis.cli(&["set", &name, &stolen]);
    let late = instance(&app, Some(&redis));
    assert_eq!(ask_for(&late, None, hash).await, "PERSISTED_QUERY_NOT_FOUND", "its seal is of another text");

    redis.kill();
    assert_eq!(ask(&instances[1], None).await, "ok", "known here");
    let alone = instance(&app, Some(&redis));
    assert_eq!(ask(&alone, None).await, "PERSISTED_QUERY_NOT_FOUND");
    assert_eq!(ask(&alone, Some(TEXT)).await, "ok");
    assert_eq!(ask(&alone, None).await, "ok");
}

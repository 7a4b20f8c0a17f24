//! `xp user export`: the document is whole, of one moment and private. Not here: erasing (`erasing`).

use std::{
    collections::BTreeSet,
    io::{self, Write},
    os::unix::fs::PermissionsExt as _,
    sync::mpsc,
};

use entities::{id::UserId, personal_data::export};
use serde_json::{Value, json};
use tempfile::tempdir;

use super::{
    ADDRESS, AGENT, EMAIL, HOOK, LONG, NAME, SESSION_NAME, World,
    columns::{DECISIONS, OnExport},
    exported,
};
use crate::{
    commands::{done, refused, xp},
    harness::db,
};

#[tokio::test]
async fn the_document_has_everything_but_secrets() {
    let schema =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/personal-data.schema.json"));
    let schema: Value = serde_json::from_str(&schema.expect("it can be read")).expect("JSON");
    let schema = jsonschema::options().should_validate_formats(true).build(&schema).expect("a schema");
    for world in World::both().await {
        // More than are read at once, two of each second.
        world.add_positions(2_500).await;
        let document = exported(&world.url, EMAIL);
        let wrong: Vec<String> = schema.iter_errors(&document).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert_eq!(exported(&world.url, &world.id)["account"], document["account"], "by its id");
        for decision in DECISIONS {
            let Some(list) = decision.list else { continue };
            let entries = if document[list].is_array() {
                document[list].as_array().expect("a list").clone()
            } else {
                vec![document[list].clone()]
            };
            assert!(!entries.is_empty(), "{list} is empty");
            let has: BTreeSet<&str> = entries
                .iter()
                .flat_map(|entry| entry.as_object().expect("an object").keys())
                .map(String::as_str)
                .collect();
            let wanted: BTreeSet<&str> = decision
                .columns
                .iter()
                .filter_map(|(_, _, export)| if let OnExport::As(name) = export { Some(*name) } else { None })
                .collect();
            assert_eq!(has, wanted, "{list}");
            if let Some(owner) = decision.owner.filter(|_| document[list].is_array()) {
                let about = if list == "activityLogs" {
                    format!(" or subject_id = {}", world.own())
                } else {
                    String::new()
                };
                let rows = format!("{} where {owner} = {}{about}", decision.table, world.own());
                assert_eq!(entries.len() as i64, world.app.count(&rows).await, "{list}");
            }
        }
        let session = &document["sessions"][0];
        assert_eq!(
            [&session["ipAddress"], &session["userAgent"], &session["name"]],
            [ADDRESS, AGENT, SESSION_NAME]
        );
        assert_eq!([&document["account"]["email"], &document["account"]["displayName"]], [EMAIL, NAME]);
        assert_eq!(document["submissions"][0]["data"], json!({ "name": "Carp" }));
        assert_eq!(document["webhooks"][0]["url"], HOOK);
        assert_eq!(document["webhookDeliveries"].as_array().map(Vec::len), Some(3));
        assert_eq!(document["keyedRequests"][0]["answer"]["data"]["recordLocations"]["acceptedCount"], 3);
        let times: Vec<(&str, &str)> = document["locations"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|point| (point["timestamp"].as_str().expect("a time"), point["id"].as_str().expect("an id")))
            .collect();
        assert_eq!(times.iter().collect::<BTreeSet<_>>().len(), 2_504, "each once");
        let secrets = world.rows("select password_hash from users where password_hash is not null").await;
        let secrets = secrets.iter().chain(&[]).map(|row| row.try_get_by_index::<String>(0).expect("a text"));
        let more = world.rows("select refresh_salt from user_sessions where refresh_salt is not null union select secret from webhooks").await;
        let more = more.iter().map(|row| row.try_get_by_index::<String>(0).expect("a text"));
        let whole = document.to_string();
        for secret in secrets.chain(more).filter(|secret| secret.len() > 12) {
            assert!(!whole.contains(&secret), "a secret is in the document");
        }
        // Of others there is nothing in it.
        assert!(!whole.contains("Pike") && !whole.contains("admin@example.com"));
    }
}

#[tokio::test]
async fn the_document_becomes_a_private_file_or_none() {
    let world = World::over(db::own_sqlite().await).await;
    let folder = tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let files = || std::fs::read_dir(folder.path()).expect("a folder").count();
    let export = |who: &str, file: &str| xp(&world.url, &["user", "export", who, "--output", file], "", &[]);
    let (code, said, _) = export(EMAIL, &path("person.json"));
    assert!(code == 0 && said.contains("  locations") && said.contains("  sessions"), "{said}");
    let mode = std::fs::metadata(path("person.json")).expect("it is there").permissions().mode();
    assert_eq!((mode & 0o777, files()), (0o600, 1), "and nothing beside it");
    let written = std::fs::read_to_string(path("person.json")).expect("it can be read");
    let written: Value = serde_json::from_str(&written).expect("JSON");
    assert_eq!(written["account"]["email"], EMAIL);
    let json = done(&world.url, &["user", "export", EMAIL, "--output", &path("2.json"), "--json"], "");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["id"], &json["rows"]["locations"]), (&json!(world.id), &json!(world.locations)));
    std::fs::write(path("mine"), "mine").expect("written");
    for (who, file, wanted) in [
        (EMAIL, path("mine"), "is not written over"),
        (EMAIL, path("nowhere/person.json"), "check that the folder exists"),
        ("nobody@example.com", path("3.json"), "account not found: nobody@example.com"),
    ] {
        let (code, out, said) = export(who, &file);
        assert!((code, out.as_str()) == (1, "") && said.contains(wanted), "{said}");
    }
    assert_eq!(std::fs::read_to_string(path("mine")).expect("it is there"), "mine");
    assert_eq!(files(), 3);
    let (code, said) = refused(&world.url, &["user", "export", "nobody@example.com"], &[]);
    assert_eq!((code, said.as_str()), (1, "xp: account not found: nobody@example.com"));
}

/// Tells when it is written to first, and goes on when it is told to.
struct Pausing {
    written: Vec<u8>,
    told: mpsc::Sender<()>,
    go_on: mpsc::Receiver<()>,
}

impl Write for Pausing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written.is_empty() {
            let _ = self.told.send(());
            let _ = self.go_on.recv_timeout(LONG);
        }
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_document_is_of_one_moment_and_nobody_waits_for_it() {
    for world in World::both().await {
        let ((told, begun), (go, go_on)) = (mpsc::channel(), mpsc::channel());
        let (url, user) = (world.url.clone(), UserId::parse(&world.id).expect("an id"));
        // On a runtime of its own, which the writer holds up.
        let exporting = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.expect("a runtime can be made").block_on(async {
                let mut out = Pausing { written: Vec::new(), told, go_on };
                let rows =
                    export::export(&db::open(&url).await, user, &mut out).await.expect("it is written");
                (rows.expect("there is such an account"), out.written)
            })
        });
        tokio::task::spawn_blocking(move || begun.recv_timeout(LONG))
            .await
            .expect("it runs")
            .expect("it has begun");
        world.add_positions(10).await;
        world.app.sql(&format!("update users set display_name = 'Other' where id = {}", world.own())).await;
        go.send(()).expect("it waits");
        let (rows, document) = exporting.join().expect("it does not panic");
        let document: Value = serde_json::from_slice(&document).expect("JSON");
        assert_eq!(document["account"]["displayName"], NAME);
        assert_eq!(document["locations"].as_array().expect("a list").len() as i64, world.locations);
        assert!(rows.contains(&("locations", world.locations as u64)), "{rows:?}");
    }
}

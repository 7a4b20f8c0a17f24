//! `xp user erase`: nothing names the person any more, wherever it is looked, and what belongs to others stays. Not here:
//! the document (`exporting`).

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use serde_json::{Value, json};

use super::{
    EMAIL, NAME, World,
    columns::{DECISIONS, OnErase},
    ended, erased, until,
};
use crate::{
    commands::{PASSWORD, command, done, outcome_at_terminal, refused, xp},
    harness::{RedisServer, db, process},
};

#[tokio::test]
async fn nothing_that_is_stored_names_the_person_and_the_rest_stays() {
    for world in World::both().await {
        let World { app, url, .. } = &world;
        assert!(world.find_marks().await.len() >= 10, "there is something to be found");
        let counts = async || {
            let mut counts = BTreeMap::new();
            for table in ["users", "forms", "form_versions", "form_submissions"] {
                counts.insert(table, app.count(table).await);
            }
            for (table, owner) in
                [("user_locations", "user_id"), ("user_sessions", "user_id"), ("webhooks", "owner_id")]
            {
                counts.insert(table, app.count(&format!("{table} where {owner} <> {}", world.own())).await);
            }
            counts
        };
        let before = counts().await;
        let plan = erased(url, &[EMAIL, "--dry-run"]);
        assert_eq!(plan["dryRun"], true);
        assert!(!world.is_erased().await && world.count_own("user_locations", "user_id").await == 4);
        let did = erased(url, &[EMAIL, "--yes"]);
        assert_eq!((&did["id"], &did["dryRun"]), (&json!(world.id), &json!(false)));
        for part in ["removed", "emptied", "kept"] {
            assert_eq!(did[part], plan[part], "what it does is what it said");
        }
        assert_eq!(
            did["removed"],
            json!({
                "sessions": 1, "locations": 5, "submissions": 0, "webhooks": 1, "webhookDeliveries": 3,
                "keyedRequests": 1,
            })
        );
        assert_eq!(did["emptied"]["accounts"], 1);
        assert_eq!((&did["emptied"]["submissions"], &did["emptied"]["keyedAnswers"]), (&json!(1), &json!(2)));
        assert_eq!(did["kept"], json!({ "forms": 1, "submissions": 1 }));
        assert_eq!(world.find_marks().await, [""; 0]);
        assert_eq!(counts().await, before, "of others nothing went");
        for decision in DECISIONS {
            let Some(owner) = decision.owner else { continue };
            let own = format!("{} where {owner} = {}", decision.table, world.own());
            let is_removed = decision.columns.iter().all(|(_, erase, _)| *erase == OnErase::RowRemoved);
            assert_eq!(app.count(&own).await == 0, is_removed, "{own}");
            for (column, erase, _) in decision.columns {
                if *erase == OnErase::Emptied {
                    assert_eq!(
                        app.count(&format!("{own} and {column} is not null")).await,
                        0,
                        "{own}: {column}"
                    );
                }
            }
        }
        let details = format!(
            "user_activity_logs where (user_id = {0} or subject_id = {0}) and cast(metadata as text) <> '{{}}'
             and (subject_type is null or subject_type in ('User', 'Session', 'Location', 'ActivityLog'))",
            world.own()
        );
        assert_eq!(app.count(&details).await, 0);
        assert_eq!(
            app.count(&format!(
                "user_activity_logs where action_type = 'user.erase' and subject_id = {}",
                world.own()
            ))
            .await,
            1
        );
        let answers = "idempotency_keys where answer is null";
        assert_eq!(app.count(answers).await, 2, "others' answers that name nobody stay");
        // What stays is whole: the form, and the submission with its answers.
        let query = format!(
            "{{ form(id: \"{}\") {{ title owner {{ displayName }} }} submission(id: \"{}\") {{ data location {{ id }} session {{ id }} user {{ displayName }} }} }}",
            world.form, world.submission
        );
        let named = json!({ "displayName": "Erased account" });
        assert_eq!(
            app.as_admin().ask(&query).await,
            json!({
                "form": { "title": "Census of birds", "owner": named },
                "submission": { "data": { "name": "Carp" }, "location": null, "session": null, "user": named },
            })
        );
        // The request of another account, sent again, does nothing again and is told what is stored now.
        let rename = "mutation($input: UpdateUserInput!) { updateUser(input: $input) { user { displayName email } userErrors { message } } }";
        let input = json!({ "input": { "id": world.id, "displayName": NAME } });
        let again = app.as_admin().plain().keyed("rename").run(rename, input).await.expect_data(rename);
        assert_eq!(again["updateUser"]["user"]["displayName"], "Erased account");
        // Once more is harmless.
        app.sql("delete from idempotency_keys").await;
        let entries = app.count("user_activity_logs").await;
        let again = erased(url, &[&world.id, "--yes"]);
        let rows = again["removed"].as_object().into_iter().chain(again["emptied"].as_object()).flatten();
        assert!(rows.clone().count() == 10 && rows.clone().all(|(_, rows)| *rows == 0), "{again}");
        assert_eq!(app.count("user_activity_logs").await, entries, "nor is it logged again");
    }
}

#[tokio::test]
async fn submissions_go_where_that_is_asked_for() {
    for world in World::both().await {
        let World { app, url, .. } = &world;
        let app = app.with_cache().await;
        let count = format!("{{ form(id: \"{}\") {{ submissionCount }} }}", world.others_form);
        for _ in 0..2 {
            assert_eq!(app.as_admin().ask(&count).await["form"]["submissionCount"], 2);
        }
        let before = app.count("form_submissions").await;
        // Also where they were kept before.
        assert_eq!(erased(url, &[EMAIL, "--yes", "--submissions", "keep"])["kept"]["submissions"], 1);
        let did = erased(url, &[&world.id, "--yes", "--submissions", "delete"]);
        assert_eq!((&did["removed"]["submissions"], &did["kept"]["submissions"]), (&json!(1), &json!(0)));
        assert_eq!(app.count("form_submissions").await, before - 1);
        let query = format!(
            "{{ mine: submission(id: \"{}\") {{ id }} others: submission(id: \"{}\") {{ data }} }}",
            world.submission, world.others_submission
        );
        let found = world.app.as_admin().ask(&query).await;
        assert_eq!(found, json!({ "mine": null, "others": { "data": { "name": "Pike" } } }));
    }
}

#[tokio::test]
async fn nobody_can_use_an_erased_account_again() {
    for world in World::both().await {
        let World { app, url, id, .. } = &world;
        let token = done(url, &["token", "mint", "--user", EMAIL], "");
        let inspect = || xp(url, &["token", "inspect"], &token, &[]).1;
        assert!(inspect().contains("\"valid\":true"));
        done(url, &["user", "erase", EMAIL, "--yes"], "");
        assert!(inspect().contains("\"refused\":\"revoked\""), "{}", inspect());
        for arguments in [&["enable", id][..], &["role", id, "admin"], &["disable", id]] {
            let (code, said) = refused(url, &[&["user"], arguments].concat(), &[]);
            assert!(code == 1 && said.contains("was erased"), "{said}");
        }
        let (code, _, said) = xp(url, &["user", "password", id, "--password-file", "-"], PASSWORD, &[]);
        assert!(code == 1 && said.contains("was erased"), "{said}");
        assert_eq!(refused(url, &["token", "mint", "--user", id], &[]).0, 1);
        assert_eq!(
            refused(url, &["user", "erase", EMAIL, "--yes"], &[]).1,
            format!("xp: account not found: {EMAIL}")
        );
        let enable =
            "mutation($id: ID!) { updateUser(input: {id: $id, isActive: true}) { userErrors { code } } }";
        let data = app.as_admin().run(enable, json!({ "id": id })).await.expect_data(enable);
        assert_eq!(data["updateUser"]["userErrors"], json!([{ "code": "NOT_FOUND" }]));
        let sign_in = format!(
            "mutation {{ signIn(input: {{ email: \"erased-{id}@erased.invalid\", password: \"{PASSWORD}\" }}) {{ userErrors {{ code }} }} }}"
        );
        let data = app.anonymous().ask(&sign_in).await;
        assert_eq!(data["signIn"]["userErrors"], json!([{ "code": "INVALID_CREDENTIALS" }]));
        let taken = format!("erased-{}@erased.invalid", entities::id::new());
        let create = ["user", "create", "--email", &taken, "--role", "viewer", "--password-file", "-"];
        let (code, _, said) = xp(url, &create, PASSWORD, &[]);
        assert!(code == 2 && said.contains("stands for accounts that were erased"), "{said}");
        let listed = done(url, &["user", "list", "--search", id], "");
        assert!(listed.ends_with("  erased") && listed.contains("last sign-in never"), "{listed}");
        let listed = done(url, &["user", "list", "--search", id, "--json"], "");
        let listed: Value = serde_json::from_str(&listed).expect("JSON");
        assert_eq!(
            (&listed[0]["isErased"], &listed[0]["displayName"]),
            (&json!(true), &json!("Erased account"))
        );
        // The e-mail of the erased account is free for another one.
        let create = ["user", "create", "--email", EMAIL, "--role", "viewer", "--password-file", "-"];
        assert_ne!(done(url, &create, PASSWORD), *id);
    }
}

#[tokio::test]
async fn erasing_is_asked_about() {
    let world = World::over(db::own_sqlite().await).await;
    let (code, said) = refused(&world.url, &["user", "erase", EMAIL], &[]);
    assert!(code == 2 && said.contains("--yes") && said.contains("1  sessions removed"), "{said}");
    let at_terminal =
        |answer: &str| outcome_at_terminal(command(&world.url, &["user", "erase", &world.id], &[]), answer);
    for no in ["yes\n", "\n", "other@example.com\n"] {
        let (code, said) = at_terminal(no);
        assert!(code == 1 && said.contains("nothing was erased") && said.contains(EMAIL), "{said}");
        assert!(!world.is_erased().await);
    }
    let (code, said) = at_terminal(&format!("{EMAIL}\n"));
    assert!(code == 0 && said.contains("is erased") && world.is_erased().await, "{said}");
}

#[tokio::test]
async fn the_last_administrator_stays() {
    for url in [db::own_sqlite().await, db::own_postgres().await] {
        for arguments in [&["--yes"][..], &["--dry-run"], &[]] {
            let erase = [&["user", "erase", "admin@example.com"], arguments].concat();
            let (code, said) = refused(&url, &erase, &[]);
            assert!(code == 1 && said.contains("the last administrator"), "{said}");
        }
        let create =
            ["user", "create", "--email", "two@example.com", "--role", "admin", "--password-file", "-"];
        done(&url, &create, PASSWORD);
        done(&url, &["user", "disable", "two@example.com"], "");
        let erase = ["user", "erase", "admin@example.com", "--yes"];
        assert_eq!(refused(&url, &erase, &[]).0, 1, "one that is blocked does not count");
        done(&url, &["user", "enable", "two@example.com"], "");
        // Of two at once, one stays.
        let both = ["admin@example.com", "two@example.com"].map(|who| {
            let mut erase = command(&url, &["user", "erase", who, "--yes"], &[]);
            erase.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            erase.spawn().expect("the program can be started")
        });
        let both = both.map(ended);
        assert_eq!(both.iter().filter(|(is_done, _)| *is_done).count(), 1, "{both:?}");
        let listed = done(&url, &["user", "list", "--role", "admin", "--json"], "");
        let listed: Value = serde_json::from_str(&listed).expect("JSON");
        assert_eq!(listed.as_array().expect("a list").len(), 1, "{listed}");
    }
}

#[tokio::test]
async fn a_run_that_was_killed_is_completed_by_the_next_one() {
    for world in World::both().await {
        world.add_positions(40_000).await;
        let mut erasing = world.begin_to_erase(&[]);
        until("some positions go", async || world.count_own("user_locations", "user_id").await < 39_000)
            .await;
        erasing.kill().expect("it runs");
        ended(erasing);
        let left = world.count_own("user_locations", "user_id").await;
        assert!(left > 0, "it was killed in the middle");
        assert!(world.is_erased().await, "the account came first");
        assert_eq!(world.app.count(&format!("users where id = {} and is_active", world.own())).await, 0);
        let did = erased(&world.url, &[&world.id, "--yes"]);
        assert!(
            did["removed"]["locations"].as_i64().is_some_and(|removed| removed > 0 && removed <= left),
            "{did}"
        );
        assert_eq!(did["emptied"]["accounts"], 0);
        assert_eq!(world.find_marks().await, [""; 0]);
        assert_eq!(world.app.count("user_activity_logs where action_type = 'user.erase'").await, 1);
    }
}

#[tokio::test]
async fn a_running_server_shows_none_of_it_any_more() {
    let redis = RedisServer::start().await;
    let redis_url = redis.address();
    for (url, environment) in [
        (db::own_sqlite().await, vec![]),
        (db::own_postgres().await, vec![]),
        (db::own_postgres().await, vec![("REDIS_URL", redis_url.as_str())]),
    ] {
        let world = World::over(url).await;
        let mut server = process::Server::start(&world.url, &environment);
        let admin = process::mint(&world.url, "admin@example.com", &environment);
        let own = process::mint(&world.url, EMAIL, &environment);
        let query = "query($id: ID!, $form: ID!, $submission: ID!) {
            user(id: $id) { displayName email lastLocation { id } sessions(first: 5) { totalCount } submissions(first: 5) { totalCount } }
            form(id: $form) { submissionCount owner { displayName } }
            submission(id: $submission) { id location { id } } }";
        let variables = json!({ "id": world.id, "form": world.others_form, "submission": world.submission });
        let asked = || {
            let answer = process::ask(&server.address, &admin, query, &variables).expect("an answer");
            assert!(answer["errors"].is_null(), "{answer}");
            answer["data"].clone()
        };
        for _ in 0..3 {
            let seen = asked();
            assert_eq!(
                (&seen["user"]["email"], &seen["form"]["submissionCount"]),
                (&json!(EMAIL), &json!(2))
            );
        }
        let me = || process::ask(&server.address, &own, "{ me { id } }", &json!({})).expect("an answer");
        assert_eq!(me()["data"]["me"]["id"], json!(world.id));
        // A request that was under way stores something after the account was blocked, and its positions were removed.
        let mut environment = environment.clone();
        environment.push(("XP_HTTP_REQUEST_TIMEOUT", "10s"));
        let erase = ["user", "erase", EMAIL, "--yes", "--submissions", "delete"];
        let mut erase = command(&world.url, &erase, &environment);
        erase.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let erasing = erase.spawn().expect("the program can be started");
        until("all has gone once", async || {
            world.is_erased().await && world.count_own("idempotency_keys", "user_id").await == 0
        })
        .await;
        assert_eq!(world.count_own("user_locations", "user_id").await, 0);
        world.add_positions(3).await;
        until("the token is refused", async || me()["data"]["me"].is_null()).await;
        let (is_done, said) = ended(erasing);
        assert!(is_done, "{said}");
        assert_eq!(world.count_own("user_locations", "user_id").await, 0, "it is looked again");
        let wanted = json!({
            "user": {
                "displayName": "Erased account", "email": format!("erased-{}@erased.invalid", world.id),
                "lastLocation": null, "sessions": { "totalCount": 0 }, "submissions": { "totalCount": 0 },
            },
            "form": { "submissionCount": 1, "owner": asked()["form"]["owner"] },
            "submission": null,
        });
        until("all that was cached is gone", async || asked() == wanted).await;
        assert!(server.runs());
    }
}

/// Rows that are being copied into partitions would come back with the copies.
#[tokio::test]
async fn rows_that_are_moved_into_partitions_are_waited_for() {
    let world = World::over(db::own_postgres().await).await;
    world.app.sql("create table user_locations_next (id uuid)").await;
    let mut erasing = world.begin_to_erase(&[]);
    until("the account is erased", async || world.is_erased().await).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(erasing.try_wait().expect("its state").is_none(), "it waits");
    assert_eq!(world.count_own("user_locations", "user_id").await, world.locations);
    world.app.sql("drop table user_locations_next").await;
    let (is_done, said) = ended(erasing);
    assert!(is_done, "{said}");
    assert_eq!(world.find_marks().await, [""; 0]);
}

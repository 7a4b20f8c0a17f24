//! Forms are made, edited by several people at once, published and opened. Not here: what a definition may say
//! (`entities::form`'s own tests), answers (`submissions`).

use entities::{
    Role,
    events::{ChangeEvent, FormChange},
    id::FormId,
};
use serde_json::{Value, json};

use crate::harness::{Client, TestApp, db, text};

const FORM: &str = "form { id title description status version draft draftRevision owner { id } }
    userErrors { code path message }";

/// Runs a form mutation; answers its payload.
async fn change(client: &Client<'_>, mutation: &str, input: Value) -> Value {
    let (name, kind) = (mutation, format!("{}{}Input", mutation[..1].to_uppercase(), &mutation[1..]));
    let query = format!("mutation($input: {kind}!) {{ {name}(input: $input) {{ {FORM} }} }}");
    client.run(&query, json!({ "input": input })).await.expect_data(&query)[name].clone()
}

/// Its one error: code and path.
#[track_caller]
fn refusal(payload: &Value) -> (&str, Value) {
    let errors = payload["userErrors"].as_array().expect("a list");
    assert_eq!(errors.len(), 1, "{payload}");
    (errors[0]["code"].as_str().expect("a code"), errors[0]["path"].clone())
}

fn draft(title: &str) -> Value {
    json!({"schema": 1, "fields": [{"key": "name", "type": "TEXT", "label": title}]})
}

/// A form of the demo editor, with a draft.
async fn made(app: &TestApp) -> String {
    let input = json!({"title": "Visit", "definition": draft("Name")});
    text(&change(&app.as_role(Role::Editor), "createForm", input).await["form"]["id"])
}

#[tokio::test]
async fn creating_renaming_and_drafting_a_form_are_logged() {
    for app in TestApp::both_own().await {
        let editor = app.as_role(Role::Editor);
        let mut changes = app.store.events().subscribe();
        let input = json!({"title": " Visit ", "description": "Monthly", "definition": draft("Name")});
        let made = change(&editor, "createForm", input).await;
        let id = text(&made["form"]["id"]);
        let owner = TestApp::account(Role::Editor);
        assert_eq!(
            made,
            json!({"form": {
                "id": id, "title": "Visit", "description": "Monthly", "status": "DRAFT", "version": 0,
                "draft": draft("Name"), "draftRevision": 1, "owner": {"id": owner.to_string()},
            }, "userErrors": []})
        );
        let news = changes.try_recv().expect("the change is announced");
        let id_of = FormId::parse(&id).expect("an id");
        assert_eq!(*news, [ChangeEvent::Form { id: id_of, owner, change: FormChange::Created }]);

        let renamed = change(&editor, "updateForm", json!({"id": id, "title": "Visits"})).await;
        assert_eq!(
            (&renamed["form"]["title"], &renamed["form"]["description"]),
            (&json!("Visits"), &json!("Monthly"))
        );
        let emptied = change(&editor, "updateForm", json!({"id": id, "description": null})).await;
        assert_eq!(
            (&emptied["form"]["title"], &emptied["form"]["description"]),
            (&json!("Visits"), &Value::Null)
        );
        let found = editor.ask(r#"{ forms(filter: {search: "visits"}) { nodes { title } } }"#).await;
        assert_eq!(found["forms"]["nodes"], json!([{"title": "Visits"}]), "the search knows the new title");

        let saved = json!({"id": id, "definition": draft("Full name"), "baseRevision": 1});
        let saved = change(&editor, "saveFormDraft", saved).await;
        assert_eq!(
            (&saved["form"]["draft"], &saved["form"]["draftRevision"]),
            (&draft("Full name"), &json!(2))
        );

        let log = editor
            .ask("{ me { activity(first: 4) { nodes { actionType subject { id } metadata } } } }")
            .await;
        let entry = |action: &str, metadata: Value| json!({"actionType": action, "subject": {"id": id}, "metadata": metadata});
        let wanted = [
            entry("form.save_draft", json!({"revision": 2})),
            entry("form.update", json!({"fields": ["description"]})),
            entry("form.update", json!({"fields": ["title"]})),
            entry("form.create", json!({})),
        ];
        assert_eq!(log["me"]["activity"]["nodes"], json!(wanted));
    }
}

#[tokio::test]
async fn of_32_who_save_at_once_one_wins_each_revision() {
    for app in TestApp::both_own().await {
        let (form, editor) = (made(&app).await, app.as_role(Role::Editor));
        for base in 1..4 {
            let saves = (0..32).map(|sender| {
                let input = json!({"id": form, "definition": draft(&format!("{base}/{sender}")), "baseRevision": base});
                change(&editor, "saveFormDraft", input)
            });
            let saved = futures_util::future::join_all(saves).await;
            let (won, lost): (Vec<_>, Vec<_>) =
                saved.iter().partition(|payload| payload["userErrors"] == json!([]));
            assert_eq!((won.len(), lost.len()), (1, 31));
            assert_eq!(won[0]["form"]["draftRevision"], base + 1);
            for payload in lost {
                assert_eq!(refusal(payload), ("CONFLICT", json!(["input", "baseRevision"])));
                let message = format!("its revision is {} now", base + 1);
                assert!(text(&payload["userErrors"][0]["message"]).contains(&message), "{payload}");
                assert_eq!(payload["form"]["draft"], won[0]["form"]["draft"], "the payload shows what won");
            }
        }
    }
}

#[tokio::test]
async fn bad_input_is_refused_all_at_once() {
    for app in TestApp::both_own().await {
        let editor = app.as_role(Role::Editor);
        let input = json!({"title": " ", "description": "x".repeat(5_001), "definition": [1]});
        let errors = change(&editor, "createForm", input).await["userErrors"].take();
        let codes: Vec<_> = errors
            .as_array()
            .expect("a list")
            .iter()
            .map(|error| (&error["code"], &error["path"][1]))
            .collect();
        assert_eq!(
            json!(codes),
            json!([["REQUIRED", "title"], ["TOO_LARGE", "description"], ["INVALID", "definition"]])
        );
        for (title, code) in [("x".repeat(201), "TOO_LARGE"), ("a\0b".to_owned(), "INVALID")] {
            assert_eq!(refusal(&change(&editor, "createForm", json!({"title": title})).await).0, code);
        }
        let form = made(&app).await;
        for (definition, code) in [
            (json!({"fields": "x".repeat(512 * 1024)}), "TOO_LARGE"),
            (json!({"a\0": 1}), "INVALID"),
            (json!("text"), "INVALID"),
        ] {
            let input = json!({"id": form, "definition": definition, "baseRevision": 1});
            let payload = change(&editor, "saveFormDraft", input).await;
            assert_eq!(refusal(&payload), (code, json!(["input", "definition"])));
        }
        assert_eq!(
            refusal(&change(&editor, "updateForm", json!({"id": form, "title": null})).await).0,
            "REQUIRED"
        );
        let status = change(&editor, "setFormStatus", json!({"id": form, "status": "OPEN"})).await;
        assert_eq!(refusal(&status), ("INVALID", json!(["input", "status"])), "it was never published");
    }
}

#[tokio::test]
async fn only_editors_change_forms_and_hidden_ones_are_absent() {
    for app in TestApp::both_own().await {
        let form = made(&app).await;
        let nobodys = FormId::new().to_string();
        for role in [Role::Collector, Role::Viewer] {
            let client = app.as_role(role);
            for id in [&form, &nobodys] {
                let query = format!(
                    r#"mutation {{ updateForm(input: {{id: "{id}", title: "x"}}) {{ form {{ id }} }} }}"#
                );
                let reply = client.run(&query, json!({})).await;
                assert_eq!(
                    (reply.data, reply.codes),
                    (Value::Null, vec!["FORBIDDEN".to_owned()]),
                    "{role:?}"
                );
            }
        }
        // Another editor: what is hidden is told as what is absent, what is seen as what may not be edited.
        let owner = TestApp::account(Role::Viewer);
        let other = app.as_user(owner, Role::Editor);
        let hidden = change(&other, "updateForm", json!({"id": form, "title": "x"})).await;
        let absent = change(&other, "updateForm", json!({"id": nobodys, "title": "x"})).await;
        assert_eq!(hidden, absent, "hidden equals absent");
        assert_eq!(refusal(&hidden), ("NOT_FOUND", json!(["input", "id"])));
        let open = other.ask("{ forms(first: 1) { nodes { id title } } }").await["forms"]["nodes"][0].take();
        let payload = change(&other, "updateForm", json!({"id": open["id"], "title": "x"})).await;
        assert_eq!(refusal(&payload).0, "NOT_ALLOWED");
        assert_eq!(payload["form"]["title"], open["title"], "nothing changed");
        let managed =
            change(&app.as_role(Role::Manager), "updateForm", json!({"id": form, "title": "Theirs"})).await;
        assert_eq!(managed["form"]["title"], "Theirs");
        for client in [app.anonymous(), app.service()] {
            let query = r#"mutation { createForm(input: {title: "x"}) { form { id } } }"#;
            assert_eq!(client.run(query, json!({})).await.codes, ["UNAUTHENTICATED"]);
        }
    }
}

#[tokio::test]
async fn publishing_reports_all_problems_and_warnings() {
    const PUBLISH: &str = "mutation($input: PublishFormInput!) { publishForm(input: $input) {
        form { version currentVersion { definition } } userErrors { code path message } warnings { code path message } } }";
    for app in TestApp::both_own().await {
        let editor = app.as_role(Role::Editor);
        let publish = async |definition: Value| {
            let made =
                change(&editor, "createForm", json!({"title": "Visit", "definition": definition})).await;
            let input = json!({"id": made["form"]["id"], "baseRevision": 1});
            editor.run(PUBLISH, json!({ "input": input })).await.expect_data(PUBLISH)["publishForm"].take()
        };
        let relevant = |rule: Value| json!({"key": "b", "type": "TEXT", "label": "B", "relevant": rule});
        let age = json!({"key": "age", "type": "INTEGER", "label": "A"});

        let wrong = json!({"schema": 1, "fields": [
            {"key": "age", "type": "INTEGR", "label": "A"},
            relevant(json!({"===": [{"var": "c"}, ""]})),
            {"key": "c", "type": "TEXT", "label": "C", "constraints": {"pattern": "("}},
            {"key": "d", "type": "CALCULATED", "calculate": {"var": "d"}},
        ]});
        let refused = publish(wrong).await;
        let told: Vec<_> =
            refused["userErrors"].as_array().expect("a list").iter().map(|error| &error["path"]).collect();
        let place = |last: &[&str]| json!([&["draft", "fields"], last].concat());
        assert_eq!(
            told,
            [
                &place(&["0", "type"]),
                &place(&["2", "constraints", "pattern"]),
                &place(&["1", "relevant", "==="]),
                &place(&["3"])
            ]
        );
        assert!(text(&refused["userErrors"][0]["message"]).contains("`INTEGR`. Did you mean `INTEGER`?"));
        assert_eq!(refused["warnings"], json!([]));

        let odd = relevant(json!({"!=": [{"var": "age"}, ""]}));
        let warned = publish(json!({"schema": 1, "fields": [age, odd]})).await;
        assert_eq!((&warned["userErrors"], &warned["form"]["version"]), (&json!([]), &json!(1)));
        assert_eq!(warned["warnings"].as_array().map(Vec::len), Some(1), "{warned}");
        assert_eq!(warned["warnings"][0]["path"], place(&["1", "relevant", "!="]));
        assert!(text(&warned["warnings"][0]["message"]).contains(r#"{"!==": [x, null]}"#), "{warned}");

        // Made on a system that decomposes: "Đà Lạt".
        let town =
            relevant(json!({"==": [{"var": "age"}, {"length": [{"cat": ["\u{110}a\u{300} La\u{323}t"]}]}]}));
        let composed = publish(json!({"schema": 1, "fields": [age, town]})).await;
        let rule = &composed["form"]["currentVersion"]["definition"]["fields"][1]["relevant"]["=="][1];
        assert_eq!(rule["length"][0]["cat"], json!(["\u{110}\u{e0} L\u{1ea1}t", ""]), "{composed}");
    }
}

/// "Đà Lạt" as macOS writes it.
const DECOMPOSED: &str = "\u{110}a\u{300} La\u{323}t";
const COMPOSED: &str = "\u{110}\u{e0} L\u{1ea1}t";

#[tokio::test]
async fn titles_are_stored_composed_and_found_in_either_spelling() {
    for app in TestApp::both_own().await {
        let editor = app.as_role(Role::Editor);
        let input = json!({"title": DECOMPOSED, "description": DECOMPOSED});
        let query = "mutation($input: CreateFormInput!) { createForm(input: $input) { form { id title description } } }";
        let made =
            editor.run(query, json!({ "input": input })).await.expect_data(query)["createForm"]["form"]
                .take();
        assert_eq!((&made["title"], &made["description"]), (&json!(COMPOSED), &json!(COMPOSED)));
        for search in [DECOMPOSED, COMPOSED, "\u{111}A\u{300} l\u{1ea1}"] {
            let query = "query($s: String) { forms(filter: { search: $s }) { nodes { id } } }";
            let found = editor.run(query, json!({ "s": search })).await.expect_data(query);
            assert_eq!(found["forms"]["nodes"], json!([{ "id": made["id"] }]), "{search:?}");
        }
        let input = json!({"id": made["id"], "title": "Thu\u{323}c", "description": null});
        let renamed = change(&editor, "updateForm", input).await;
        assert_eq!(renamed["form"]["title"], "Th\u{1ee5}c");
        for (title, code) in [
            ("\u{200b}", "REQUIRED"),
            ("\u{a0}\u{3000}", "REQUIRED"),
            ("a\u{202e}b", "INVALID"),
            ("a\u{200b}b", "INVALID"),
            ("a\nb", "INVALID"),
        ] {
            let refused = change(&editor, "updateForm", json!({"id": made["id"], "title": title})).await;
            assert_eq!(refusal(&refused), (code, json!(["input", "title"])), "{title:?}");
        }
    }
}

/// PostgreSQL reads a backslash in a literal as an escape where the setting is off.
#[tokio::test]
async fn search_takes_its_signs_literally_whatever_the_database_is_set_to() {
    for url in [db::own_sqlite().await, db::own_postgres().await] {
        let app = TestApp::over(&url).await;
        if app.is_postgres() {
            app.sql("do $$ begin execute format('alter database %I set standard_conforming_strings = off', current_database()); end $$").await;
        }
        let app = TestApp::over(&url).await;
        let editor = app.as_role(Role::Editor);
        for title in ["100% _sure_ \\ !", "100 pct", "a!b"] {
            change(&editor, "createForm", json!({ "title": title })).await;
        }
        for (search, count) in [("%", 1), ("_sure_", 1), ("\\", 1), ("!", 2), ("100", 2), ("!%", 0)] {
            let query = "query($s: String) { forms(filter: { search: $s, createdAt: { from: \"2026-01-01T00:00:00Z\" } }) { nodes { title } } }";
            let found = editor.run(query, json!({ "s": search })).await.expect_data(query);
            let nodes = found["forms"]["nodes"].as_array().expect("nodes");
            let own = nodes.iter().filter(|form| text(&form["title"]).starts_with(['1', 'a'])).count();
            assert_eq!(own, count, "{search}");
        }
    }
}

//! Forms are filled in: what is stored, what is refused and how, and that a submission is stored once however it is
//! sent. Not here: what answers go through (`entities::submission::pipeline`'s own tests).

use entities::{
    Role,
    events::ChangeEvent,
    id::{self, FormId, SubmissionId},
};
use serde_json::{Value, json};

use crate::harness::{Client, TestApp, text};

const RESULT: &str = "submission { id formVersion data clientId user { id } location { latitude } }
    userErrors { __typename code path message ... on SubmissionDataError { pointer rule } }";

/// A form of the demo editor with these fields, published; answers its id.
async fn published(app: &TestApp, fields: Value) -> String {
    let editor = app.as_role(Role::Editor);
    let query = "mutation($definition: JSON!) { createForm(input: {title: \"Visit\", definition: $definition}) { form { id } } }";
    let definition = json!({ "schema": 1, "fields": fields });
    let made = editor.run(query, json!({ "definition": definition })).await.expect_data(query);
    let form = text(&made["createForm"]["form"]["id"]);
    let done = publish(&editor, &form, 1).await;
    assert_eq!(done["userErrors"], json!([]), "{done}");
    form
}

async fn publish(client: &Client<'_>, form: &str, base: i32) -> Value {
    let query = "mutation($input: PublishFormInput!) { publishForm(input: $input) { form { status version draft draftRevision publishedAt
        currentVersion { number hash definition jsonSchema publishedBy { id } } } userErrors { code path message } } }";
    let input = json!({ "input": { "id": form, "baseRevision": base } });
    client.run(query, input).await.expect_data(query)["publishForm"].take()
}

async fn set_status(app: &TestApp, form: &str, status: &str) {
    let query = format!(
        r#"mutation {{ setFormStatus(input: {{id: "{form}", status: {status}}}) {{ userErrors {{ code }} }} }}"#
    );
    let done = app.as_role(Role::Editor).ask(&query).await;
    assert_eq!(done["setFormStatus"]["userErrors"], json!([]));
}

async fn save_draft(app: &TestApp, form: &str, base: i32, fields: Value) {
    let query =
        "mutation($input: SaveFormDraftInput!) { saveFormDraft(input: $input) { userErrors { code } } }";
    let input = json!({ "id": form, "baseRevision": base, "definition": { "schema": 1, "fields": fields } });
    let done = app.as_role(Role::Editor).run(query, json!({ "input": input })).await.expect_data(query);
    assert_eq!(done["saveFormDraft"]["userErrors"], json!([]));
}

async fn submit(client: &Client<'_>, input: Value) -> Value {
    let query = format!(
        "mutation($input: CreateSubmissionInput!) {{ createSubmission(input: $input) {{ {RESULT} }} }}"
    );
    client.run(&query, json!({ "input": input })).await.expect_data(&query)["createSubmission"].take()
}

#[track_caller]
fn refusal(payload: &Value) -> (String, Value) {
    let errors = payload["userErrors"].as_array().expect("a list");
    assert_eq!((errors.len(), &payload["submission"]), (1, &Value::Null), "{payload}");
    (text(&errors[0]["code"]), errors[0]["path"].clone())
}

async fn count(app: &TestApp, form: &str) -> Value {
    app.as_admin().ask(&format!(r#"{{ form(id: "{form}") {{ submissionCount }} }}"#)).await["form"]["submissionCount"].take()
}

fn visit() -> Value {
    json!([
        { "key": "name", "type": "TEXT", "label": "Name", "required": true },
        { "key": "adults", "type": "INTEGER", "label": "Adults", "constraints": { "min": 0, "max": 9 } },
        { "key": "twice", "type": "CALCULATED", "calculate": { "*": [{ "var": "adults" }, 2] } },
        { "key": "where", "type": "GEO_POINT", "label": "Where" },
    ])
}

#[tokio::test]
async fn publishing_a_draft_makes_an_immutable_version() {
    for app in TestApp::both_own().await {
        let (editor, form) = (app.as_role(Role::Editor), published(&app, visit()).await);
        let again = publish(&editor, &form, 1).await;
        assert_eq!(again["userErrors"][0]["code"], "REQUIRED", "nothing was saved since");
        let shown = &again["form"];
        let state = (&shown["status"], &shown["version"], &shown["draft"], &shown["draftRevision"]);
        assert_eq!(state, (&json!("OPEN"), &json!(1), &Value::Null, &json!(1)));
        let version = &shown["currentVersion"];
        assert_eq!(version["definition"], json!({ "schema": 1, "fields": visit() }));
        assert_eq!(version["publishedBy"]["id"], TestApp::account(Role::Editor).to_string());
        assert_eq!(version["jsonSchema"]["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(version["jsonSchema"]["required"], json!(["name"]));
        assert_eq!(text(&version["hash"]).len(), 64);

        // Another type under the same key would make old answers unreadable.
        let mut changed = visit();
        changed[1] = json!({ "key": "adults", "type": "TEXT", "label": "Adults" });
        save_draft(&app, &form, 1, changed).await;
        let refused = publish(&editor, &form, 2).await;
        let error = &refused["userErrors"][0];
        assert_eq!(
            (&error["code"], &error["path"]),
            (&json!("INVALID"), &json!(["draft", "fields", "1", "type"]))
        );
        // Also when the key was away for one version.
        save_draft(&app, &form, 2, json!([{ "key": "other", "type": "TEXT", "label": "Other" }])).await;
        assert_eq!(publish(&editor, &form, 3).await["form"]["version"], 2);
        save_draft(&app, &form, 3, json!([{ "key": "adults", "type": "TEXT", "label": "Adults" }])).await;
        assert_eq!(publish(&editor, &form, 4).await["userErrors"][0]["code"], "INVALID");
        assert_eq!(publish(&editor, &form, 3).await["userErrors"][0]["code"], "CONFLICT");

        save_draft(&app, &form, 4, json!([{ "key": "1", "type": "TEXT" }, { "key": "a", "type": "WHAT" }]))
            .await;
        let refused = publish(&editor, &form, 5).await;
        let paths =
            refused["userErrors"].as_array().expect("a list").iter().map(|error| error["path"].clone());
        let wanted = json!([
            ["draft", "fields", "0", "key"],
            ["draft", "fields", "0"],
            ["draft", "fields", "1", "type"]
        ]);
        assert_eq!(Value::Array(paths.collect()), wanted, "{refused}");
        let log = editor.ask(r#"{ me { activity(first: 1, filter: {actionTypes: ["form.publish"]}) { nodes { subject { id } metadata } } } }"#).await;
        let entry = &log["me"]["activity"]["nodes"][0];
        assert_eq!((&entry["subject"]["id"], &entry["metadata"]["version"]), (&json!(form), &json!(2)));
    }
}

#[tokio::test]
async fn a_submission_is_stored_normalized_and_logged() {
    for app in TestApp::both_own().await {
        let form = published(&app, visit()).await;
        let collector = app.as_role(Role::Collector);
        let mut changes = app.store.events().subscribe();
        let client = id::new().to_string();
        let point = json!({ "timestamp": "2026-01-02T03:04:05Z", "latitude": 21.03, "longitude": 105.85 });
        let input = json!({ "formId": form, "clientId": client, "location": point,
            "data": { "name": " Mai ", "adults": 2.0, "where": { "latitude": 1, "longitude": -0.0 } } });
        let stored = submit(&collector, input).await;
        let user = TestApp::account(Role::Collector);
        let submission = &stored["submission"];
        let id = text(&submission["id"]);
        assert_eq!(
            *submission,
            json!({ "id": id, "formVersion": 1, "clientId": client, "user": { "id": user.to_string() },
                "data": { "name": "Mai", "adults": 2, "twice": 4, "where": { "latitude": 1, "longitude": 0 } },
                "location": { "latitude": 21.03 } })
        );
        let news = changes.try_recv().expect("it is announced");
        let change = ChangeEvent::Submission {
            id: SubmissionId::parse(&id).expect("an id"),
            form: FormId::parse(&form).expect("an id"),
            user: Some(user),
        };
        assert!(news.contains(&change), "{news:?}");
        let log = collector
            .ask("{ me { activity(first: 1) { nodes { actionType subject { id } metadata } } } }")
            .await;
        let entry = json!({ "actionType": "submission.create", "subject": { "id": id }, "metadata": { "form": form, "version": 1 } });
        assert_eq!(log["me"]["activity"]["nodes"][0], entry, "without any answer");
    }
}

#[tokio::test]
async fn everything_that_is_wrong_with_answers_is_told_at_once() {
    for app in TestApp::both_own().await {
        let form = published(&app, visit()).await;
        let data = json!({ "adults": 10, "strange/": 1, "where": { "latitude": 91 } });
        let refused = submit(&app.as_role(Role::Collector), json!({ "formId": form, "data": data })).await;
        assert_eq!(refused["submission"], Value::Null);
        let error = |code: &str, pointer: &str, rule: &str| json!([code, pointer, rule]);
        let found = refused["userErrors"].as_array().expect("a list").iter().map(|error| {
            assert_eq!(
                (&error["__typename"], &error["path"]),
                (&json!("SubmissionDataError"), &json!(["input", "data"]))
            );
            json!([error["code"], error["pointer"], error["rule"]])
        });
        let wanted = json!([
            error("TOO_LARGE", "/adults", "maximum"),
            error("TOO_LARGE", "/where/latitude", "maximum"),
            error("REQUIRED", "/where/longitude", "required"),
            error("INVALID", "/strange~1", "additionalProperties"),
            error("REQUIRED", "/name", "required"),
        ]);
        assert_eq!(Value::Array(found.collect()), wanted);
        assert_eq!(count(&app, &form).await, 0);
    }
}

#[tokio::test]
async fn closed_and_hidden_forms_answer_alike() {
    for app in TestApp::both_own().await {
        let form = published(&app, visit()).await;
        let data = json!({ "name": "x" });
        let mut texts = std::collections::HashSet::new();
        for status in ["CLOSED", "ARCHIVED"] {
            set_status(&app, &form, status).await;
            for role in [Role::Editor, Role::Manager, Role::Collector] {
                let payload = submit(&app.as_role(role), json!({ "formId": form, "data": data })).await;
                assert_eq!(refusal(&payload), ("NOT_ACCEPTING".to_owned(), json!(["input", "formId"])));
                texts.insert(payload["userErrors"].to_string());
            }
        }
        let draft = app
            .as_role(Role::Editor)
            .ask(r#"mutation { createForm(input: {title: "x"}) { form { id } } }"#)
            .await;
        for id in [text(&draft["createForm"]["form"]["id"]), FormId::new().to_string()] {
            let payload = submit(&app.as_role(Role::Collector), json!({ "formId": id, "data": data })).await;
            texts.insert(payload["userErrors"].to_string());
        }
        assert_eq!(
            texts.len(),
            1,
            "closed, archived, draft and absent are told in the same words: {texts:?}"
        );
        set_status(&app, &form, "OPEN").await;
        let stored = submit(&app.as_role(Role::Collector), json!({ "formId": form, "data": data })).await;
        assert_eq!(stored["userErrors"], json!([]));
        let query = "mutation($input: CreateSubmissionInput!) { createSubmission(input: $input) { submission { id } } }";
        let input = json!({ "input": { "formId": form, "data": data } });
        assert_eq!(app.as_role(Role::Viewer).run(query, input).await.codes, ["FORBIDDEN"]);
        for (more, code, path) in [
            (json!({ "version": 7 }), "NOT_FOUND", "version"),
            (json!({ "formId": "x" }), "INVALID", "formId"),
            (json!({ "clientId": "x" }), "INVALID", "clientId"),
        ] {
            let mut input = json!({ "formId": form, "data": data });
            input.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            let payload = submit(&app.as_role(Role::Collector), input).await;
            assert_eq!(refusal(&payload), (code.to_owned(), json!(["input", path])));
        }
        let point = json!({ "timestamp": "2026-01-02T03:04:05Z", "latitude": 91, "longitude": 0 });
        let payload =
            submit(&app.as_role(Role::Collector), json!({ "formId": form, "data": data, "location": point }))
                .await;
        assert_eq!(refusal(&payload), ("TOO_LARGE".to_owned(), json!(["input", "location", "latitude"])));
        let anonymous = format!(
            r#"mutation {{ createSubmission(input: {{formId: "{form}", data: {{}}}}) {{ userErrors {{ code }} }} }}"#
        );
        assert_eq!(app.anonymous().run(&anonymous, json!({})).await.codes, ["UNAUTHENTICATED"]);
    }
}

#[tokio::test]
async fn a_resent_submission_is_idempotent_or_conflicts() {
    for app in TestApp::both_own().await {
        let form = published(&app, visit()).await;
        let (collector, client) = (app.as_role(Role::Collector), id::new().to_string());
        let input = |data: Value| json!({ "formId": form, "clientId": client, "data": data });
        let where_ = json!({ "latitude": 1e-7, "longitude": 12.5, "accuracy": 1e21 });
        let data = json!({ "name": "Mai", "adults": 2, "where": where_ });
        let first = submit(&collector, input(data.clone())).await;
        let id = text(&first["submission"]["id"]);
        let conflict = ("CONFLICT".to_owned(), json!(["input", "clientId"]));
        let same = json!({ "name": "Mai ", "adults": 2.0, "twice": 9, "where": where_ });
        assert_eq!(submit(&collector, input(same)).await["submission"]["id"], id);
        assert_eq!(refusal(&submit(&collector, input(json!({ "name": "Nam" }))).await), conflict);
        assert_eq!(refusal(&submit(&collector, input(json!({ "name": 7 }))).await), conflict);
        // Whatever has become of the form since.
        save_draft(
            &app,
            &form,
            1,
            json!([{ "key": "new", "type": "TEXT", "label": "New", "required": true }]),
        )
        .await;
        assert_eq!(publish(&app.as_role(Role::Editor), &form, 2).await["form"]["version"], 2);
        assert_eq!(submit(&collector, input(data.clone())).await["submission"]["id"], id);
        set_status(&app, &form, "CLOSED").await;
        assert_eq!(submit(&collector, input(data.clone())).await["submission"]["id"], id);
        assert_eq!(refusal(&submit(&collector, input(json!({ "name": "Nam" }))).await), conflict);
        let theirs = refusal(&submit(&app.as_role(Role::Manager), input(data)).await);
        assert_eq!(theirs.0, "NOT_ACCEPTING", "of what others sent nothing is told");
        assert_eq!(count(&app, &form).await, 1);
    }
}

#[tokio::test]
async fn one_of_64_concurrent_equal_client_ids_is_stored() {
    for app in TestApp::both_own().await {
        let form = published(&app, visit()).await;
        let (collector, client) = (app.as_role(Role::Collector), id::new().to_string());
        let input = json!({ "formId": form, "clientId": client, "data": { "name": "Mai", "adults": 3 } });
        let sent = futures_util::future::join_all((0..64).map(|_| submit(&collector, input.clone()))).await;
        let id = text(&sent[0]["submission"]["id"]);
        for payload in &sent {
            assert_eq!((&payload["submission"]["id"], &payload["userErrors"]), (&json!(id), &json!([])));
        }
        assert_eq!(count(&app, &form).await, 1);
    }
}

#[tokio::test]
async fn an_outbox_is_stored_each_by_itself() {
    for app in TestApp::both_own().await {
        let form = published(&app, visit()).await;
        let query = format!(
            "mutation($input: CreateSubmissionsInput!) {{ createSubmissions(input: $input) {{ results {{ {RESULT} }} }} }}"
        );
        let one = json!({ "formId": form, "clientId": id::new().to_string(), "data": { "name": "a" } });
        let wrong = json!({ "formId": form, "data": { "adults": "x" } });
        let no_id = json!({ "formId": "x", "data": {} });
        let outbox = json!([one, wrong, no_id, one, { "formId": form, "data": { "name": "b" } }]);
        let collector = app.as_role(Role::Collector);
        let data =
            collector.run(&query, json!({ "input": { "submissions": outbox } })).await.expect_data(&query);
        let results = &data["createSubmissions"]["results"];
        assert_eq!(results[0]["submission"]["data"], json!({ "name": "a", "twice": 0 }));
        assert_eq!(
            results[3]["submission"]["id"], results[0]["submission"]["id"],
            "twice in the outbox, once stored"
        );
        assert_eq!(results[4]["submission"]["data"]["name"], "b");
        let codes = |index: usize| {
            results[index]["userErrors"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|error| json!([error["code"], error["path"]]))
                .collect::<Value>()
        };
        let at = |index: &str, field: &str| json!(["input", "submissions", index, field]);
        assert_eq!(codes(1), json!([["INVALID", at("1", "data")], ["REQUIRED", at("1", "data")]]));
        assert_eq!(codes(2), json!([["INVALID", at("2", "formId")]]));
        assert_eq!(count(&app, &form).await, 2);

        let many = |count: usize| json!({ "input": { "submissions": vec![json!({ "formId": form, "data": { "name": "c" } }); count] } });
        assert_eq!(collector.run(&query, many(201)).await.codes, ["BAD_USER_INPUT"]);
        let data = collector.run(&query, many(200)).await.expect_data(&query);
        assert_eq!(data["createSubmissions"]["results"].as_array().map(Vec::len), Some(200));
        assert_eq!(count(&app, &form).await, 202);
    }
}

#[tokio::test]
async fn one_that_cannot_be_read_does_not_hold_up_the_rest() {
    let query = format!(
        "mutation($input: CreateSubmissionsInput!) {{ createSubmissions(input: $input) {{ results {{ {RESULT} }} }} }}"
    );
    for app in TestApp::both_own().await {
        let form = published(&app, visit()).await;
        let good = json!({ "formId": form, "data": { "name": "Ann" } });
        let with = |name: &str, value: Value| {
            let mut bad = good.clone();
            bad[name] = value;
            bad
        };
        let point = json!({ "timestamp": "2026-11-01 01:00", "latitude": 1, "longitude": 1 });
        let bad: [(Value, &str, &[&str]); 8] = [
            (with("data", Value::Null), "REQUIRED", &["data"]),
            (json!({ "formId": form }), "REQUIRED", &["data"]),
            (with("location", point), "INVALID", &["location", "timestamp"]),
            (with("version", json!(3_000_000_000_u64)), "INVALID", &["version"]),
            (with("formId", json!({})), "INVALID", &["formId"]),
            (with("formId", json!("no uuid")), "INVALID", &["formId"]),
            (with("other", json!(1)), "INVALID", &[]),
            (Value::Null, "REQUIRED", &[]),
        ];
        let submissions: Vec<Value> = bad.iter().flat_map(|(bad, ..)| [good.clone(), bad.clone()]).collect();
        let input = json!({ "input": { "submissions": submissions } });
        let reply = app.as_role(Role::Collector).run(&query, input).await.expect_data(&query);
        let results = reply["createSubmissions"]["results"].as_array().expect("a list");
        assert_eq!(results.len(), submissions.len());
        for (index, (_, code, at)) in bad.iter().enumerate() {
            assert_eq!(results[2 * index]["userErrors"], json!([]));
            let place = (2 * index + 1).to_string();
            let path: Vec<&str> =
                ["input", "submissions", &place].into_iter().chain(at.iter().copied()).collect();
            assert_eq!(refusal(&results[2 * index + 1]), ((*code).to_owned(), json!(path)));
        }
        assert_eq!(count(&app, &form).await, bad.len());
        let single = "mutation($input: CreateSubmissionInput!) { createSubmission(input: $input) { submission { id } } }";
        let reply = app.as_role(Role::Collector).run(single, json!({ "input": bad[2].0 })).await;
        assert!(
            text(&reply.errors[0]["message"]).contains("at \"input.location.timestamp\""),
            "{}",
            reply.body
        );
    }
}

#[tokio::test]
async fn a_client_id_belongs_to_its_account() {
    for app in TestApp::both_own().await {
        let (form, client) = (published(&app, visit()).await, id::new().to_string());
        let input = |name: &str| json!({ "formId": form, "clientId": client, "data": { "name": name } });
        let (one, other, third) =
            (app.as_role(Role::Collector), app.as_role(Role::Manager), app.as_role(Role::Admin));
        let mut stored = Vec::new();
        for (account, name) in [(&one, "Ann"), (&other, "Bob"), (&third, "Ann")] {
            let first = submit(account, input(name)).await;
            assert_eq!(first["userErrors"], json!([]));
            assert_eq!(
                (&first["submission"]["clientId"], &first["submission"]["data"]["name"]),
                (&json!(client), &json!(name))
            );
            let again = submit(account, input(name)).await;
            assert_eq!(again["submission"]["id"], first["submission"]["id"], "stored once for each account");
            assert_eq!(
                refusal(&submit(account, input("Eve")).await),
                ("CONFLICT".to_owned(), json!(["input", "clientId"]))
            );
            stored.push(text(&first["submission"]["id"]));
        }
        stored.sort_unstable();
        stored.dedup();
        assert_eq!((stored.len(), count(&app, &form).await), (3, json!(3)));

        // All at once, under an id that is new to all of them.
        let (client, mut sending) = (id::new().to_string(), Vec::new());
        for account in [&one, &other].into_iter().cycle().take(32) {
            sending.push(submit(
                account,
                json!({ "formId": form, "clientId": client, "data": { "name": "Ann" } }),
            ));
        }
        let ids: std::collections::BTreeSet<String> = futures_util::future::join_all(sending)
            .await
            .iter()
            .map(|payload| text(&payload["submission"]["id"]))
            .collect();
        assert_eq!((ids.len(), count(&app, &form).await), (2, json!(5)));
        // An account that was removed leaves its ids behind, and is in nobody's way.
        let removed = "update form_submissions set user_id = null where client_id is not null";
        app.sql(removed).await;
        let fresh =
            submit(&one, json!({ "formId": form, "clientId": client, "data": { "name": "Ann" } })).await;
        assert_eq!(fresh["userErrors"], json!([]));
        set_status(&app, &form, "CLOSED").await;
        let closed = submit(&app.as_role(Role::Editor), input("Ann")).await;
        assert_eq!(refusal(&closed).0, "NOT_ACCEPTING", "and nothing of what others sent");
    }
}

#[tokio::test]
async fn submitters_alone_see_old_form_versions() {
    let seen = "query($f: ID!) { form(id: $f) { versions { nodes { number } } first: versionByNumber(number: 1) { number }
        second: versionByNumber(number: 2) { number } none: versionByNumber(number: 7) { number } } }";
    let of_version = "query($v: ID!, $r: [_Any!]!) { formVersion(id: $v) { number definition } node(id: $v) { id }
        nodes(ids: [$v]) { id } _entities(representations: $r) { ... on FormVersion { number form { title } } } }";
    for app in TestApp::both_own().await {
        let app = app.with_cache().await;
        let (form, collector) = (published(&app, visit()).await, app.as_role(Role::Collector));
        let stranger = app.as_role(Role::Viewer);
        let numbers = async |client: &Client<'_>| {
            let data = client.run(seen, json!({ "f": form })).await.expect_data(seen);
            let number = |version: &Value| version["number"].as_i64();
            let form = &data["form"];
            let list: Vec<_> =
                form["versions"]["nodes"].as_array().into_iter().flatten().map(number).collect();
            (list, [number(&form["first"]), number(&form["second"]), number(&form["none"])])
        };
        let mut fields = visit();
        fields
            .as_array_mut()
            .expect("a list")
            .push(json!({ "key": "more", "type": "TEXT", "label": "More" }));
        save_draft(&app, &form, 1, fields).await;
        assert_eq!(publish(&app.as_role(Role::Editor), &form, 2).await["userErrors"], json!([]));
        let only_current = (vec![Some(2)], [None, Some(2), None]);
        assert_eq!(numbers(&collector).await, only_current);

        // A device that was offline with the old version.
        let input = json!({ "formId": form, "version": 1, "data": { "name": "Ann" } });
        let done = submit(&collector, input).await;
        assert_eq!(done["userErrors"], json!([]));
        assert_eq!(numbers(&collector).await, (vec![Some(2), Some(1)], [Some(1), Some(2), None]), "at once");
        assert_eq!(numbers(&stranger).await, only_current);

        let own = "query($s: ID!) { submission(id: $s) { formVersion version { id number definition form { id } } } }";
        let data = collector.run(own, json!({ "s": done["submission"]["id"] })).await.expect_data(own);
        let version = &data["submission"]["version"];
        assert_eq!((&version["number"], &version["form"]["id"]), (&json!(1), &json!(form)));
        assert_eq!(version["definition"]["fields"], visit());
        let asked =
            json!({ "v": version["id"], "r": [{ "__typename": "FormVersion", "id": version["id"] }] });
        for status in ["OPEN", "CLOSED", "ARCHIVED"] {
            set_status(&app, &form, status).await;
            let data = collector.run(of_version, asked.clone()).await.expect_data(of_version);
            let id = json!({ "id": version["id"] });
            assert_eq!((&data["node"], &data["nodes"]), (&id, &json!([id])), "{status}");
            assert_eq!(data["formVersion"]["number"], 1);
            assert_eq!(data["_entities"], json!([{ "number": 1, "form": { "title": "Visit" } }]));
            let hidden = stranger.run(of_version, asked.clone()).await.expect_data(of_version);
            assert_eq!(
                hidden,
                json!({ "formVersion": null, "node": null, "nodes": [null], "_entities": [null] })
            );
        }
    }
}

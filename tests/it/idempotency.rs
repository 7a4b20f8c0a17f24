//! Mutations with an idempotency key: each runs once, and the same again is answered as it was, whatever
//! happened in between. Not here: the header and the statuses (`src/http/tests/idempotency.rs`).

use std::{
    thread,
    time::{Duration, Instant},
};

use entities::{
    Role, clock, id,
    idempotency::{self, Lifetimes},
};
use futures_util::future::join_all;
use schema::OnError;
use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use serde_json::{Value, json};

use crate::harness::{
    Reply, TestApp, db,
    process::{self, Server},
    text,
};

const CREATE: &str = "mutation($title: String!) { createForm(input: {title: $title}) {
    form { id title } userErrors { code } } }";

fn titled(title: &str) -> Value {
    json!({ "title": title })
}

/// A key that nobody else has.
fn key() -> String {
    id::new().to_string()
}

#[track_caller]
fn expect_refusal(reply: &Reply, code: &str, retryable: Option<bool>) {
    assert_eq!((reply.codes.as_slice(), reply.executed), (&[code.to_owned()][..], false), "{}", reply.body);
    assert_eq!(reply.errors[0]["extensions"]["retryable"].as_bool(), retryable, "{}", reply.body);
}

/// Asks until nobody else runs the same request.
async fn when_free(app: &TestApp, (role, key): (Role, &str), query: &str, variables: &Value) -> Reply {
    let began = Instant::now();
    loop {
        let reply = app.as_role(role).plain().keyed(key).run(query, variables.clone()).await;
        if reply.codes != ["CONFLICT"] {
            return reply;
        }
        expect_refusal(&reply, "CONFLICT", Some(true));
        assert!(began.elapsed() < Duration::from_secs(30), "{}", reply.body);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// From now on answers cannot be kept; what the requests store is noted all the same.
async fn keep_no_answers(app: &TestApp) {
    if app.is_postgres() {
        app.sql(
            "create function refuse() returns trigger language plpgsql as $$ begin
               raise exception 'on purpose'; end $$",
        )
        .await;
        app.sql(
            "create trigger refuses before update of answer on idempotency_keys for each row
             when (new.answer is not null) execute function refuse()",
        )
        .await;
    } else {
        app.sql(
            "create trigger refuses before update of answer on idempotency_keys
             when new.answer is not null begin select raise(abort, 'on purpose'); end",
        )
        .await;
    }
}

async fn keep_answers_again(app: &TestApp) {
    let on = if app.is_postgres() { " on idempotency_keys" } else { "" };
    app.sql(&format!("drop trigger refuses{on}")).await;
}

#[tokio::test]
async fn the_same_again_gets_the_first_answer_and_does_nothing() {
    for app in TestApp::both_own().await {
        let (one, other) = (key(), key());
        let before = app.count("forms").await;
        let first = app.as_role(Role::Editor).plain().keyed(&one).run(CREATE, titled("Once")).await;
        assert!(first.errors.is_empty(), "{}", first.body);
        // What was changed meanwhile does not show: it is the answer that was given.
        let form = text(&first.data["createForm"]["form"]["id"]);
        app.as_role(Role::Editor)
            .ask(&format!(
                r#"mutation {{ updateForm(input: {{id: "{form}", title: "New"}}) {{ form {{ id }} }} }}"#
            ))
            .await;
        for app in [&app, &app.with_cache().await] {
            let again = app.as_role(Role::Editor).plain().keyed(&one).run(CREATE, titled("Once")).await;
            assert_eq!(again.body, first.body, "byte for byte");
        }
        // With another key it is another request; so it is for another account.
        for (role, key) in [(Role::Editor, &other), (Role::Admin, &one)] {
            let reply = app.as_role(role).plain().keyed(key).run(CREATE, titled("Once")).await;
            assert!(reply.errors.is_empty() && reply.body != first.body, "{}", reply.body);
        }
        assert_eq!(app.count("forms").await, before + 3);
        // Refusals are results, too.
        let wrong = app.as_role(Role::Editor).plain().keyed("blank").run(CREATE, titled(" ")).await;
        assert_eq!(wrong.data["createForm"]["userErrors"][0]["code"], "REQUIRED", "{}", wrong.body);
        let again = app.as_role(Role::Editor).plain().keyed("blank").run(CREATE, titled(" ")).await;
        assert_eq!(again.body, wrong.body);
    }
}

#[tokio::test]
async fn something_else_under_the_same_key_is_refused() {
    for app in TestApp::both_own().await {
        let (key, before) = (key(), app.count("forms").await);
        app.as_role(Role::Editor).keyed(&key).run(CREATE, titled("One")).await.expect_data(CREATE);
        let editor = || app.as_role(Role::Editor).keyed(&key);
        let shorter = "mutation($title: String!) { createForm(input: {title: $title}) { form { id } } }";
        for reply in [
            editor().run(CREATE, titled("Other")).await,
            editor().run(shorter, titled("One")).await,
            editor().on_error(OnError::Null).run(CREATE, titled("One")).await,
        ] {
            expect_refusal(&reply, "IDEMPOTENCY_MISMATCH", Some(false));
        }
        assert_eq!(app.count("forms").await, before + 1);
        // Queries need no key.
        editor().ask("{ me { id } }").await;
    }
}

#[tokio::test]
async fn who_may_not_have_a_key_is_refused_before_anything_runs() {
    for app in TestApp::both_own().await {
        let anonymous = app.anonymous().keyed("a");
        let sign_up = r#"mutation { signUp(input: {
            email: "new@example.com", password: "correct horse battery", displayName: "N"
        }) { accessToken } }"#;
        let reply = anonymous.run(sign_up, json!({})).await;
        expect_refusal(&reply, "BAD_USER_INPUT", None);
        // Tokens are kept nowhere, for nobody.
        let reply = app.as_admin().keyed("a").run(sign_up, json!({})).await;
        expect_refusal(&reply, "BAD_USER_INPUT", None);
        assert!(text(&reply.errors[0]["message"]).contains("Idempotency-Key"), "{}", reply.body);
        // What somebody may not do they are not told again, either.
        let done = app.as_role(Role::Editor).keyed("b").run(CREATE, titled("F")).await;
        assert!(done.errors.is_empty(), "{}", done.body);
        let viewer = app.as_user(TestApp::account(Role::Editor), Role::Viewer);
        expect_refusal(&viewer.keyed("b").run(CREATE, titled("F")).await, "FORBIDDEN", None);
        assert_eq!(app.count("idempotency_keys").await, 1, "nothing is kept of those");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_many_times_at_once_runs_once() {
    for app in TestApp::both_own().await {
        let beside = app.over_store(app.another_store().await);
        let (key, before) = (key(), app.count("forms").await);
        let ask = async |app: &TestApp| {
            app.as_role(Role::Editor).plain().keyed(&key).run(CREATE, titled("Once")).await
        };
        let replies = join_all((0..16).map(|index| ask(if index % 2 == 0 { &app } else { &beside }))).await;
        let answered: Vec<&Reply> = replies.iter().filter(|reply| reply.executed).collect();
        let busy: Vec<&Reply> = replies.iter().filter(|reply| !reply.executed).collect();
        for reply in &busy {
            expect_refusal(reply, "CONFLICT", Some(true));
        }
        assert!(answered.iter().all(|reply| reply.body == answered[0].body), "one answer");
        assert_eq!(app.count("forms").await, before + 1, "{} answered, {} busy", answered.len(), busy.len());
        assert_eq!(ask(&app).await.body, answered[0].body);
    }
}

/// A form with a draft, and a submission's client id that is free.
async fn form_of(app: &TestApp, definition: &Value) -> String {
    let create = "mutation($d: JSON!) { createForm(input: {title: \"F\", definition: $d}) { form { id } } }";
    let created = app.as_role(Role::Editor).run(create, json!({ "d": definition })).await.expect_data(create);
    text(&created["createForm"]["form"]["id"])
}

/// Mutations of every kind of payload that may have a key, with what each is to be sent with: role, document,
/// variables. None says the same when it runs twice.
async fn mutations(app: &TestApp) -> Vec<(Role, &'static str, Value)> {
    let definition = json!({ "schema": 1, "fields": [
        { "key": "n", "type": "INTEGER", "label": "N" },
        { "key": "t", "type": "TEXT", "label": "T", "relevant": { "!=": [{ "var": "n" }, ""] } },
    ] });
    let open = form_of(app, &definition).await;
    let publish = "mutation($i: PublishFormInput!) { publishForm(input: $i) {
        form { id version } userErrors { code } warnings { code path message } } }";
    let input = json!({ "i": { "id": open, "baseRevision": 1 } });
    app.as_role(Role::Editor).run(publish, input).await.expect_data(publish);
    let draft = form_of(app, &definition).await;
    let sessions = "{ me { sessions(first: 5) { nodes { id } } } }";
    let data = app.as_role(Role::Viewer).ask(sessions).await;
    let session = data["me"]["sessions"]["nodes"][0]["id"].clone();
    let user = TestApp::account(Role::Collector).to_string();
    let point = |client: &str| {
        json!({ "clientId": client, "timestamp": "2026-11-01T00:00:00Z",
        "latitude": 1.0, "longitude": 2.0 })
    };
    let submission = json!({ "formId": open, "data": { "n": 1 } });
    vec![
        (Role::Editor, CREATE, titled("Kept")),
        (
            Role::Editor,
            "mutation($i: SaveFormDraftInput!) { saveFormDraft(input: $i) {
                form { draftRevision } userErrors { code } } }",
            json!({ "i": { "id": open, "baseRevision": 1, "definition": definition } }),
        ),
        (Role::Editor, publish, json!({ "i": { "id": draft, "baseRevision": 1 } })),
        (
            Role::Collector,
            "mutation($i: CreateSubmissionInput!) { createSubmission(input: $i) {
                submission { id data } userErrors { code } } }",
            json!({ "i": submission }),
        ),
        (
            Role::Collector,
            "mutation($i: CreateSubmissionsInput!) { createSubmissions(input: $i) {
                results { submission { id } userErrors { code path } } } }",
            json!({ "i": { "submissions": [submission, { "formId": "no id", "data": {} }, submission] } }),
        ),
        (
            Role::Collector,
            "mutation($i: RecordLocationsInput!) { recordLocations(input: $i) {
                acceptedCount duplicateCount rejectedCount results { outcome location { id } } } }",
            json!({ "i": { "points": [point("a"), point(""), point("a"), point("b")] } }),
        ),
        (
            Role::Admin,
            "mutation($i: CreateUserInput!) { createUser(input: $i) {
                user { id email } userErrors { code } } }",
            json!({ "i": { "email": "kept@example.com", "displayName": "Kept", "role": "VIEWER" } }),
        ),
        (
            Role::Admin,
            "mutation($i: UpdateUserInput!) { updateUser(input: $i) {
                user { displayName } userErrors { code } } }",
            json!({ "i": { "id": user, "displayName": "Kept" } }),
        ),
        (
            Role::Collector,
            "mutation($i: UpdateProfileInput!) { updateProfile(input: $i) {
                user { displayName } userErrors { code } } }",
            json!({ "i": { "displayName": "Kept as well" } }),
        ),
        (
            Role::Viewer,
            "mutation($i: RenameSessionInput!) { renameSession(input: $i) {
                session { id name } userErrors { code } } }",
            json!({ "i": { "id": session, "name": "Kept" } }),
        ),
        (
            Role::Viewer,
            "mutation($i: RevokeSessionInput!) { revokeSession(input: $i) {
                session { id isActive revokedAt } userErrors { code } } }",
            json!({ "i": { "id": session } }),
        ),
        (
            Role::Viewer,
            "mutation($i: RevokeAllSessionsInput!) { revokeAllSessions(input: $i) {
                sessions { id revokedAt } userErrors { code } } }",
            json!({ "i": {} }),
        ),
        (
            Role::Editor,
            "mutation($i: SetFormStatusInput!, $u: UpdateFormInput!) {
                setFormStatus(input: $i) { form { status updatedAt } userErrors { code } }
                updateForm(input: $u) { form { title updatedAt } userErrors { code } } }",
            json!({ "i": { "id": open, "status": "CLOSED" }, "u": { "id": draft, "title": "Kept" } }),
        ),
    ]
}

/// The instance is gone between COMMIT and the answer: whoever comes again is told what is stored, and
/// nothing is written.
#[tokio::test]
async fn what_was_stored_without_an_answer_is_told_and_not_done_again() {
    for app in TestApp::both_own().await {
        for (role, query, variables) in mutations(&app).await {
            let key = key();
            keep_no_answers(&app).await;
            let first = app.as_role(role).plain().keyed(&key).run(query, variables.clone()).await;
            assert!(first.errors.is_empty(), "{}", first.body);
            let written = app.count("user_activity_logs").await;
            let again = when_free(&app, (role, &key), query, &variables).await;
            assert_eq!(again.body, first.body);
            keep_answers_again(&app).await;
            if app.is_postgres() {
                app.sql("drop function refuse").await;
            }
            for _ in 0..2 {
                let again = when_free(&app, (role, &key), query, &variables).await;
                assert_eq!(again.body, first.body);
            }
            assert_eq!(app.count("user_activity_logs").await, written, "nothing is written again: {query}");
        }
    }
}

#[tokio::test]
async fn of_several_mutations_each_is_done_once() {
    let both = "mutation { a: createForm(input: {title: \"a\"}) { form { title } }
        b: createForm(input: {title: \"b\"}) { form { title } } }";
    for on_error in [OnError::Propagate, OnError::Null] {
        let app = TestApp::over(&db::own_postgres().await).await;
        app.sql(
            "create function fail() returns trigger language plpgsql as $$ begin
               if new.title = 'b' then raise exception 'on purpose' using errcode = '53100'; end if;
               return new; end $$",
        )
        .await;
        app.sql("create trigger fails before insert on forms for each row execute function fail()").await;
        let (key, before) = (key(), app.count("forms").await);
        let editor = || app.as_role(Role::Editor).plain().keyed(&key).on_error(on_error);
        let first = editor().run(both, json!({})).await;
        assert_eq!(first.codes, ["UNAVAILABLE"], "{}", first.body);
        // It may be sent again although a part of it is stored.
        assert_eq!(first.errors[0]["extensions"]["retryable"], true, "{}", first.body);
        assert_eq!(app.count("forms").await, before + 1);
        app.sql("drop trigger fails on forms").await;
        let began = Instant::now();
        let again = loop {
            let again = editor().run(both, json!({})).await;
            if again.codes != ["CONFLICT"] {
                break again;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{}", again.body);
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let data = json!({ "a": { "form": { "title": "a" } }, "b": { "form": { "title": "b" } } });
        assert_eq!(again.data, data, "{}", again.body);
        assert_eq!(app.count("forms").await, before + 2, "the first is not made again");
        assert_eq!(editor().run(both, json!({})).await.body, again.body);
    }
}

/// Who has lost its claim stores nothing, however late it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_ran_out_stores_nothing_more() {
    let app = TestApp::over(&db::own_postgres().await).await;
    let app = app
        .that_keeps_keys(Lifetimes { request: Duration::from_hours(1), claim: Duration::from_millis(100) });
    app.sql(
        "create function wait() returns trigger language plpgsql as $$ begin
           if new.title = 'F' and not exists (select from slow) then
             perform pg_sleep(1); end if; return new; end $$",
    )
    .await;
    app.sql("create table slow (n int)").await;
    app.sql("create trigger waits before insert on forms for each row execute function wait()").await;
    let (key, before) = (key(), app.count("forms").await);
    let ask = async || app.as_role(Role::Editor).plain().keyed(&key).run(CREATE, titled("F")).await;
    let second = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        app.sql("insert into slow values (1)").await;
        ask().await
    };
    let (late, second) = tokio::join!(ask(), second);
    assert!(second.errors.is_empty(), "{}", second.body);
    assert_eq!(late.codes, ["UNAVAILABLE"], "{}", late.body);
    assert_eq!(late.errors[0]["extensions"]["retryable"], true, "{}", late.body);
    assert_eq!(app.count("forms").await, before + 1);
    assert_eq!(ask().await.body, second.body);
}

/// The claim of a request that failed is ended as soon as the database lets it be.
#[tokio::test]
async fn what_failed_may_be_asked_again_when_the_database_is_back() {
    let app = TestApp::over(&db::own_postgres().await).await;
    let app =
        app.that_keeps_keys(Lifetimes { request: Duration::from_hours(1), claim: Duration::from_mins(10) });
    app.sql("create sequence tries").await;
    app.sql(
        "create function fail() returns trigger language plpgsql as $$ begin
           if tg_table_name = 'forms' or nextval('tries') <= 3 then
             raise exception 'on purpose' using errcode = '53100'; end if; return new; end $$",
    )
    .await;
    app.sql("create trigger fails before insert on forms for each row execute function fail()").await;
    app.sql(
        "create trigger fails before update of claimed_until on idempotency_keys
         for each row execute function fail()",
    )
    .await;
    let key = key();
    let failed = app.as_role(Role::Editor).plain().keyed(&key).run(CREATE, titled("Again")).await;
    assert_eq!(failed.codes, ["UNAVAILABLE"], "{}", failed.body);
    app.sql("drop trigger fails on forms").await;
    let reply = when_free(&app, (Role::Editor, &key), CREATE, &titled("Again")).await;
    assert!(reply.errors.is_empty(), "{}", reply.body);
}

/// The answer comes while the same is asked again, after the claim ran out: it is the answer, and nothing runs.
#[tokio::test]
async fn an_answer_that_comes_late_is_the_answer() {
    let app = TestApp::over(&db::own_postgres().await).await;
    let (key, before) = (key(), app.count("forms").await);
    let ask = async || app.as_role(Role::Editor).plain().keyed(&key).run(CREATE, titled("Late")).await;
    ask().await.expect_data(CREATE);
    app.sql("update idempotency_keys set answer = null, claimed_until = '2026-01-01 00:00:00+00:00'").await;
    let answering = app.store.connection().begin().await.expect("begun");
    let answer = "update idempotency_keys set answer = '{\"data\":{}}'";
    answering.execute_unprepared(answer).await.expect("it runs");
    let waiting = "(select pid from pg_stat_activity where wait_event_type = 'Lock' \
                    and datname = current_database()) waiting";
    let answered = async {
        let began = Instant::now();
        while app.count(waiting).await == 0 {
            assert!(began.elapsed() < Duration::from_secs(30), "it waits for the row");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        answering.commit().await.expect("committed");
    };
    let (reply, ()) = tokio::join!(ask(), answered);
    assert_eq!(reply.body, r#"{"data":{}}"#);
    assert_eq!(app.count("forms").await, before + 1);
}

/// A position too far ahead when it came first is so each time, or the outcomes that are noted would be those
/// of others.
#[tokio::test]
async fn the_clock_of_the_first_time_is_that_of_each_time() {
    for app in TestApp::both_own().await {
        let record =
            "mutation($i: RecordLocationsInput!) { recordLocations(input: $i) { results { outcome } } }";
        let point = json!({ "clientId": "p", "timestamp": clock::now(), "latitude": 1.0, "longitude": 2.0 });
        let (key, points) = (key(), json!({ "i": { "points": [point] } }));
        let collector = || app.as_role(Role::Collector).plain();
        collector().run(record, points.clone()).await.expect_data(record);
        let outcome = async || {
            let data = collector().keyed(&key).run(record, points.clone()).await.expect_data(record);
            text(&data["recordLocations"]["results"][0]["outcome"])
        };
        assert_eq!(outcome().await, "DUPLICATE");
        let earlier = (clock::now() - Duration::from_hours(1)).format("%FT%T+00:00");
        app.sql(&format!(
            "update idempotency_keys set answer = null, created_at = '{earlier}', claimed_until = '{earlier}'"
        ))
        .await;
        assert_eq!(outcome().await, "REJECTED");
    }
}

#[tokio::test]
async fn keys_are_forgotten_after_their_time() {
    for app in TestApp::both_own().await {
        let brief = Duration::from_millis(300);
        let brief = app.that_keeps_keys(Lifetimes { request: brief, claim: Duration::from_secs(5) });
        let before = app.count("forms").await;
        for (key, title) in [("k", "One"), ("l", "One"), ("k", "Another")] {
            let reply = brief.as_role(Role::Editor).keyed(key).run(CREATE, titled(title)).await;
            assert!(reply.errors.is_empty(), "as if it had never been used: {}", reply.body);
            tokio::time::sleep(Duration::from_millis(350)).await;
        }
        assert_eq!(app.count("forms").await, before + 3);
        app.sql(
            "update idempotency_keys set created_at = '2026-01-01 00:00:00+00:00' where answer like '%One%'",
        )
        .await;
        let hour = Duration::from_hours(1);
        let forgetting = idempotency::forget_old(app.store.database().clone(), hour / 360);
        let _ = tokio::time::timeout(Duration::from_millis(1_500), forgetting).await;
        assert_eq!(app.count("idempotency_keys").await, 1, "those that are older than ten seconds");
    }
}

/// One request with a key: status and body.
fn send(server: &Server, token: &str, key: &str, title: &str) -> (u16, Value) {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", key)];
    let body = json!({ "query": CREATE, "variables": titled(title) }).to_string();
    let (status, body) =
        process::send(&server.address, "/graphql", &headers, &body).expect("the server is there");
    (status, serde_json::from_str(&body).expect("JSON"))
}

/// Killed before COMMIT nothing is stored, killed behind it everything: the same again does what is left to do, once.
#[test]
fn a_server_that_is_killed_has_done_it_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let url = runtime.block_on(db::own_postgres());
    let token = process::mint(&url, "editor@example.com", &[]);
    let beside = runtime.block_on(TestApp::over(&url));
    let sql = |text: &str| runtime.block_on(beside.sql(text));
    let waiting = "from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()";
    sql("create function wait() returns trigger language plpgsql as $$ begin
         perform pg_sleep(60); return new; end $$");
    // In the transaction that makes the form; and when its answer is kept, behind it.
    for (table, when) in [
        ("forms", "before insert on forms"),
        ("idempotency_keys", "before update of answer on idempotency_keys"),
    ] {
        sql(&format!("create trigger waits {when} for each row execute function wait()"));
        let (key, before) = (key(), runtime.block_on(beside.count("forms")));
        let environment = [("XP_HTTP_REQUEST_TIMEOUT", "1m"), ("XP_DATABASE_STATEMENT_TIMEOUT", "1m")];
        let mut server = Server::start(&url, &environment);
        let (address, bearer) = (server.address.clone(), format!("Bearer {token}"));
        let sent = key.clone();
        let asking = thread::spawn(move || {
            let headers = [("authorization", bearer.as_str()), ("idempotency-key", sent.as_str())];
            let body = json!({ "query": CREATE, "variables": titled("Killed") }).to_string();
            process::send(&address, "/graphql", &headers, &body)
        });
        let began = Instant::now();
        while runtime.block_on(beside.count(&format!("(select pid {waiting}) waiting"))) == 0 {
            assert!(began.elapsed() < Duration::from_secs(30), "{}", server.log());
            thread::sleep(Duration::from_millis(20));
        }
        server.kill();
        assert_eq!(asking.join().expect("it does not panic"), None, "no answer");
        sql(&format!("select pg_terminate_backend(pid) {waiting}"));
        sql(&format!("drop trigger waits on {table}"));
        let stored = i64::from(table != "forms");
        assert_eq!(runtime.block_on(beside.count("forms")), before + stored);
        // Nobody ends the claim of the server that is gone; what counts here is not how long it lasts.
        sql("update idempotency_keys set claimed_until = now() where answer is null");
        let server = Server::start(&url, &[]);
        let (status, first) = send(&server, &token, &key, "Killed");
        assert_eq!(
            (status, &first["data"]["createForm"]["form"]["title"]),
            (200, &json!("Killed")),
            "{first}"
        );
        assert_eq!(send(&server, &token, &key, "Killed"), (200, first));
        assert_eq!(send(&server, &token, &key, "Other").0, 422);
        assert_eq!(runtime.block_on(beside.count("forms")), before + 1, "once");
    }
}

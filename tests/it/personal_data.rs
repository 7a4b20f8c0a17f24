//! What is stored of one person, exported and erased by the commands, on both databases: nothing is forgotten, what
//! belongs to others stays, and servers that run show none of it any more. `columns` has what becomes of every column.
//! Not here: the other commands on accounts (`commands`).

use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use entities::{
    Role,
    auth::secret::Secret,
    clock,
    id::UserId,
    session::{self, Device},
};
use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::{Value, json};

use crate::{
    commands::{PASSWORD, command, done},
    harness::{TestApp, db, text},
};

mod columns;
mod erasing;
mod exporting;

use columns::DECISIONS;

const EMAIL: &str = "quillon.zephyrine@example.org";
const NAME: &str = "Quillon \"Q\" Zephyrine";
const ADDRESS: &str = "203.0.113.77";
const AGENT: &str = "MarkerBrowser/7.7";
const SESSION_NAME: &str = "Zephyrine's phone";
const HOOK: &str = "https://hooks.zephyrine.example/in";
/// What nothing that is stored may have in it once the person is erased, in small letters.
const MARKS: [&str; 5] = ["zephyrine", "quillon", ADDRESS, "markerbrowser", "52.123456"];
/// How long something may take on a busy machine.
const LONG: Duration = Duration::from_mins(2);

/// A database with somebody in it who has left traces in all tables.
struct World {
    app: TestApp,
    url: String,
    id: String,
    /// Of the person.
    form: String,
    /// Of the administrator, filled in by the person, too.
    others_form: String,
    /// Their answer to it, and somebody else's.
    submission: String,
    others_submission: String,
    /// Positions.
    locations: i64,
}

impl World {
    async fn both() -> [Self; 2] {
        [Self::over(db::own_sqlite().await).await, Self::over(db::own_postgres().await).await]
    }

    async fn over(url: String) -> Self {
        let create = ["user", "create", "--email", EMAIL, "--name", NAME, "--role", "editor"];
        let id = done(&url, &[&create[..], &["--password-file", "-"]].concat(), PASSWORD);
        let app = TestApp::over(&url).await;
        let user = UserId::parse(&id).expect("an id");
        let device = Device {
            name: Some(SESSION_NAME),
            address: Some(ADDRESS.parse().expect("an address")),
            user_agent: Some(AGENT),
        };
        let begun = session::begin(&app.store, &Secret::new("of the tests"), (user, 0), None, device).await;
        let session = begun.expect("it is stored").expect("nothing has changed").session;
        let person = || app.in_session(user, Role::Editor, session);
        let point = |minutes: i64| {
            let at = clock::now() - chrono::TimeDelta::minutes(minutes);
            json!({ "timestamp": at, "latitude": 52.123_456, "longitude": 13.4, "accuracy": 5 })
        };
        let record = "mutation($input: RecordLocationsInput!) { recordLocations(input: $input) {
            acceptedCount results { location { id latitude } } } }";
        let points = json!({ "input": { "points": [point(9), point(8), point(7)] } });
        person().plain().keyed("positions").run(record, points).await.expect_data(record);
        let form = person().open_form("Census of birds").await;
        let others_form = app.as_admin().open_form("Census of fish").await;
        let others_submission = app.as_admin().submit(&others_form, "Pike").await;
        let submit = "mutation($input: CreateSubmissionInput!) { createSubmission(input: $input) {
            submission { id } userErrors { message } } }";
        let input = json!({
            "formId": others_form, "data": { "name": "Carp" }, "clientId": entities::id::new(), "location": point(3),
        });
        let submitted = person().run(submit, json!({ "input": input })).await.expect_data(submit);
        let submission = text(&submitted["createSubmission"]["submission"]["id"]);
        let hook = "mutation($input: CreateWebhookInput!) { createWebhook(input: $input) { webhook { id } userErrors { message } } }";
        let input = json!({ "url": HOOK, "events": ["SUBMISSION_CREATED"], "formIds": [form] });
        let made = person().run(hook, json!({ "input": input })).await.expect_data(hook);
        let webhook = text(&made["createWebhook"]["webhook"]["id"]);
        // Somebody else is told of the person, in an answer that is kept, with a name in it that is escaped.
        let rename = "mutation($input: UpdateUserInput!) { updateUser(input: $input) { user { displayName email } userErrors { message } } }";
        let input = json!({ "input": { "id": id, "displayName": NAME } });
        app.as_admin().plain().keyed("rename").run(rename, input).await.expect_data(rename);
        // In this one only the name is the person's.
        let retitle = "mutation($id: ID!) { updateForm(input: { id: $id, title: \"Census of birds\" }) {
            form { owner { displayName } } userErrors { message } } }";
        let variables = json!({ "id": form });
        app.as_admin().plain().keyed("retitle").run(retitle, variables).await.expect_data(retitle);
        let title = r#"mutation { createForm(input: { title: "Of nobody" }) { form { id } } }"#;
        app.as_admin().plain().keyed("of nobody").run(title, json!({})).await.expect_data(title);
        let world = Self { app, url, id, form, others_form, submission, others_submission, locations: 4 };
        for number in 1..=3 {
            let delivery = world.uuid(&entities::id::new().to_string());
            let (webhook, form) = (world.uuid(&webhook), world.uuid(&world.form));
            let (subject, now) = (world.uuid(&world.submission), "'2026-11-01T00:00:00+00:00'");
            world
                .app
                .sql(&format!(
                    "insert into webhook_deliveries (id, webhook_id, form_id, sequence, event, subject_id, happened_at,
                     status, attempts, last_error, created_at) values ({delivery}, {webhook}, {form}, {},
                     'SUBMISSION_CREATED', {subject}, {now}, 'PENDING', 1, 'hooks.zephyrine.example: refused', {now})",
                    9_000 + number
                ))
                .await;
        }
        world
    }

    /// An id as SQL has it.
    fn uuid(&self, id: &str) -> String {
        if self.app.is_postgres() { format!("'{id}'") } else { format!("x'{}'", id.replace('-', "")) }
    }

    fn own(&self) -> String {
        self.uuid(&self.id)
    }

    /// How many rows of a table are the person's.
    async fn count_own(&self, table: &str, owner: &str) -> i64 {
        self.app.count(&format!("{table} where {owner} = {}", self.own())).await
    }

    async fn rows(&self, sql: &str) -> Vec<sea_orm::QueryResult> {
        let connection = self.app.store.connection();
        let statement = Statement::from_string(connection.get_database_backend(), sql.to_owned());
        connection.query_all_raw(statement).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The tables and columns that the database itself says it has.
    async fn catalogue(&self) -> BTreeMap<String, BTreeSet<String>> {
        let sql = if self.app.is_postgres() {
            "select c.relname::text, a.attname::text from pg_class c join pg_attribute a on a.attrelid = c.oid
             where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
             and a.attnum > 0 and not a.attisdropped and c.relname <> 'seaql_migrations'"
        } else {
            "select m.name, p.name from sqlite_master m join pragma_table_info(m.name) p
             where m.type = 'table' and m.name not like 'sqlite_%' and m.name <> 'seaql_migrations'"
        };
        let mut tables = BTreeMap::<String, BTreeSet<String>>::new();
        for row in self.rows(sql).await {
            let cell = |at| row.try_get_by_index::<String>(at).expect("a text");
            tables.entry(cell(0)).or_default().insert(cell(1));
        }
        tables
    }

    /// Where one of the marks stands in any column of any table.
    async fn find_marks(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (table, columns) in self.catalogue().await {
            for column in columns {
                for mark in MARKS {
                    let has = format!("{table} where lower(cast(\"{column}\" as text)) like '%{mark}%'");
                    if self.app.count(&has).await > 0 {
                        found.push(format!("{table}.{column}: {mark}"));
                    }
                }
            }
        }
        found
    }

    /// Stores many positions of the person.
    async fn add_positions(&self, count: i64) {
        let own = self.own();
        self.app
            .sql(&if self.app.is_postgres() {
                format!(
                    "insert into user_locations (id, user_id, \"timestamp\", received_at, latitude, longitude)
                     select gen_random_uuid(), {own}, now() - (n / 2) * interval '1 second', now(), 52.123456, 2
                     from generate_series(1, {count}) n"
                )
            } else {
                format!(
                    "with recursive n (i) as (select 1 union all select i + 1 from n where i < {count})
                     insert into user_locations (id, user_id, \"timestamp\", received_at, latitude, longitude)
                     select randomblob(16), {own}, strftime('%Y-%m-%dT%H:%M:%S+00:00', 'now', '-' || (i / 2) || ' seconds'),
                     '2026-11-01T00:00:00.000000+00:00', 52.123456, 2 from n"
                )
            })
            .await;
    }

    /// Begins to erase the person.
    fn begin_to_erase(&self, environment: &[(&str, &str)]) -> Child {
        let mut erase = command(&self.url, &["user", "erase", &self.id, "--yes"], environment);
        erase.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        erase.spawn().expect("the program can be started")
    }

    async fn is_erased(&self) -> bool {
        let row = format!("users where id = {} and email like 'erased-%'", self.own());
        self.app.count(&row).await == 1
    }
}

/// Waits until it is so.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < LONG, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn ended(child: Child) -> (bool, String) {
    let output = child.wait_with_output().expect("the program ends");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn exported(url: &str, who: &str) -> Value {
    let text = done(url, &["user", "export", who], "");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn erased(url: &str, arguments: &[&str]) -> Value {
    let text = done(url, &[&["user", "erase"], arguments, &["--json"]].concat(), "");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test]
async fn every_column_of_the_database_is_listed_with_what_becomes_of_it() {
    for app in TestApp::both().await {
        let world_of = |app: TestApp| World {
            app,
            url: String::new(),
            id: String::new(),
            form: String::new(),
            others_form: String::new(),
            submission: String::new(),
            others_submission: String::new(),
            locations: 0,
        };
        let listed: BTreeMap<String, BTreeSet<String>> = DECISIONS
            .iter()
            .map(|decision| {
                let columns = decision.columns.iter().map(|(column, ..)| (*column).to_owned());
                (decision.table.to_owned(), columns.collect())
            })
            .collect();
        assert_eq!(
            world_of(app).catalogue().await,
            listed,
            "decide what becomes of it, and list it in `columns`"
        );
    }
}

//! Two servers, two processes, one database and one Redis: what one of them revokes the other refuses, in
//! every way that something can be revoked, with Redis, without, and while it hangs; and what is secret stays
//! out of all that they write. Not here: the same within one process (`sessions`), what else may happen to
//! Redis (`cache`).

use std::{
    thread,
    time::{Duration, Instant},
};

use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};

use crate::harness::{
    RedisServer, TestApp, db,
    process::{self, Server, send},
    text,
};

const PASSWORD: &str = "correct horse battery staple";
const OTHER_PASSWORD: &str = "another good password of theirs";

/// What is searched for.
const EMAIL: &str = "planted.name@example.com";
const PLANTED: [&str; 5] = [
    "planted-Passw0rd-1",
    "planted-Passw0rd-2",
    "planted-Guess-3",
    "planted-Passw0rd-4",
    "planted-Database-5",
];

/// Everybody comes from elsewhere, or would be throttled.
const BEHIND_A_PROXY: (&str, &str) = ("XP_HTTP_TRUSTED_PROXIES", "127.0.0.0/8");

fn own_database(runtime: &tokio::runtime::Runtime, postgres: bool) -> String {
    runtime.block_on(async { if postgres { db::own_postgres().await } else { db::own_sqlite().await } })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Somebody who has signed up.
struct Account {
    id: String,
    email: String,
    session: String,
    access: String,
    /// Where the requests come from, so that nobody is throttled.
    address: String,
}

impl Account {
    fn new(server: &Server, number: usize) -> Self {
        let (email, address) = (format!("user-{number}@example.com"), format!("10.0.{number}.1"));
        let query =
            "mutation($i: SignUpInput!) { signUp(input: $i) { accessToken user { id } session { id } } }";
        let input = json!({ "email": email, "password": PASSWORD, "displayName": "Ann" });
        let made = mutate(server, None, &address, query, &input)["signUp"].clone();
        let [id, session] = ["user", "session"].map(|name| text(&made[name]["id"]));
        Self { id, email, session, access: text(&made["accessToken"]), address }
    }

    /// A second session of the same account; its access token.
    fn another_session(&self, server: &Server) -> String {
        let query = "mutation($i: SignInInput!) { signIn(input: $i) { accessToken } }";
        let input = json!({ "email": self.email, "password": PASSWORD });
        text(&mutate(server, None, &self.address, query, &input)["signIn"]["accessToken"])
    }
}

/// Runs a mutation that has to work; its data.
fn mutate(server: &Server, token: Option<&str>, from: &str, query: &str, input: &Value) -> Value {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let mut headers = vec![("x-forwarded-for", from)];
    headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
    let body = json!({ "query": query, "variables": { "i": input } }).to_string();
    let (status, body) = send(&server.address, "/graphql", &headers, &body).expect("an answer");
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, answer.get("errors")), (200, None), "{query}: {answer}");
    answer["data"].clone()
}

fn is_good(server: &Server, token: &str) -> bool {
    let bearer = format!("Bearer {token}");
    let body = json!({ "query": "{ me { id } }" }).to_string();
    let (status, body) =
        send(&server.address, "/graphql", &[("authorization", &bearer)], &body).expect("an answer");
    assert!([200, 401].contains(&status), "{status} {body}");
    status == 200
}

/// Every way to take a token back, done at a server by its owner or by an administrator.
const WAYS: [&str; 6] = ["signOut", "revokeSession", "revokeAllSessions", "changePassword", "block", "role"];

fn take_back(way: &str, server: &Server, account: &Account, admin: &str) {
    let (own, from) = (Some(account.access.as_str()), account.address.as_str());
    let done = match way {
        "signOut" => {
            mutate(server, own, from, "mutation { done: signOut { userErrors { code } } }", &Value::Null)
        }
        "revokeSession" => mutate(
            server,
            Some(&account.another_session(server)),
            from,
            "mutation($i: RevokeSessionInput!) { done: revokeSession(input: $i) { userErrors { code } } }",
            &json!({ "id": account.session }),
        ),
        "revokeAllSessions" => mutate(
            server,
            own,
            from,
            "mutation($i: RevokeAllSessionsInput!) { done: revokeAllSessions(input: $i) { userErrors { code } } }",
            &json!({ "exceptCurrent": false }),
        ),
        "changePassword" => mutate(
            server,
            own,
            from,
            "mutation($i: ChangePasswordInput!) { done: changePassword(input: $i) { userErrors { code } } }",
            &json!({ "currentPassword": PASSWORD, "newPassword": OTHER_PASSWORD }),
        ),
        _ => mutate(
            server,
            Some(admin),
            from,
            "mutation($i: UpdateUserInput!) { done: updateUser(input: $i) { userErrors { code } } }",
            &if way == "block" {
                json!({ "id": account.id, "isActive": false })
            } else {
                json!({ "id": account.id, "role": "EDITOR" })
            },
        ),
    };
    assert_eq!(done["done"]["userErrors"], json!([]), "{way}");
}

/// Takes something back at one server in every way; how long the other one still took the token after the answer, in
/// milliseconds.
fn delays([here, there]: [&Server; 2], numbers: std::ops::Range<usize>, admin: &str) -> Vec<u128> {
    let mut delays = Vec::new();
    for (way, number) in WAYS.iter().zip(numbers) {
        let account = Account::new(here, number);
        assert!(is_good(there, &account.access), "made there with the same key; remembered from now on");
        take_back(way, here, &account, admin);
        let answered = Instant::now();
        assert!(!is_good(here, &account.access), "{way}: at once where it was done");
        while is_good(there, &account.access) {
            // A machine that is busy with all the other tests gets more than the second that is promised.
            assert!(answered.elapsed() < Duration::from_secs(10), "{way}: the other server still takes it");
            thread::sleep(Duration::from_millis(2));
        }
        delays.push(answered.elapsed().as_millis());
    }
    delays
}

#[test]
fn what_one_process_revokes_in_any_way_the_other_refuses() {
    let runtime = runtime();
    let url = own_database(&runtime, true);
    let mut redis = runtime.block_on(RedisServer::start());
    let redis_url = redis.address();
    let environment = [("REDIS_URL", redis_url.as_str()), BEHIND_A_PROXY];
    let servers = [Server::start(&url, &environment), Server::start(&url, &environment)];
    let admin = process::mint(&url, "admin@example.com", &[]);
    let both = [&servers[0], &servers[1]];
    println!("PostgreSQL, Redis well: {:?} ms", delays(both, 0..6, &admin));
    redis.freeze();
    println!("PostgreSQL, Redis frozen: {:?} ms", delays(both, 10..16, &admin));
    redis.thaw();
    redis.kill();
    println!("PostgreSQL, Redis killed: {:?} ms", delays(both, 20..26, &admin));

    let url = own_database(&runtime, false);
    let servers = [Server::start(&url, &[BEHIND_A_PROXY]), Server::start(&url, &[BEHIND_A_PROXY])];
    let admin = process::mint(&url, "admin@example.com", &[]);
    println!("SQLite, no Redis: {:?} ms", delays([&servers[0], &servers[1]], 0..6, &admin));
}

/// With logs at their finest: passwords and tokens are in nothing that a server writes, neither in its log, metrics and
/// errors nor in any table or in Redis; e-mails are in their own column and in no log, metric, error or activity entry.
#[test]
fn secrets_appear_in_no_log_metric_error_or_store() {
    let runtime = runtime();
    // The private server of the tests takes any password.
    let url = own_database(&runtime, true).replace("://postgres@", &format!("://postgres:{}@", PLANTED[4]));
    let redis = runtime.block_on(RedisServer::start());
    let redis_url = redis.address();
    let server = Server::start(&url, &[("REDIS_URL", &redis_url), ("RUST_LOG", "trace")]);
    let mut said = String::new();
    let mut run = |token: Option<&str>, query: &str, input: Value| -> Value {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
        let body = json!({ "query": query, "variables": { "i": input } }).to_string();
        let (_, body) = send(&server.address, "/graphql", &headers, &body).expect("an answer");
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        if answer.get("errors").is_some() {
            said.push_str(&body);
        }
        answer
    };
    let [first, second, guess, made, _] = PLANTED;
    let mut secrets: Vec<String> = PLANTED.map(str::to_owned).to_vec();
    let tokens = "accessToken refreshToken userErrors { code message path }";
    let mut keep = |answer: &Value, field: &str| {
        let pair = ["accessToken", "refreshToken"].map(|name| text(&answer["data"][field][name]));
        secrets.extend(pair.clone());
        pair
    };
    let sign_up = format!("mutation($i: SignUpInput!) {{ signUp(input: $i) {{ {tokens} }} }}");
    let sign_in = format!("mutation($i: SignInInput!) {{ signIn(input: $i) {{ {tokens} }} }}");
    let refresh =
        format!("mutation($i: RefreshSessionInput!) {{ refreshSession(input: $i) {{ {tokens} }} }}");
    let account = json!({ "email": EMAIL, "password": first, "displayName": "Ann" });
    let [access, _] = keep(&run(None, &sign_up, account.clone()), "signUp");
    // A second one of the same e-mail, a wrong password, a password where none is taken.
    run(None, &sign_up, account.clone());
    run(None, &sign_in, json!({ "email": EMAIL, "password": guess }));
    run(None, &sign_in, json!({ "email": EMAIL, "passwrd": guess }));
    run(
        None,
        &format!("mutation {{ signIn(input: {{ email: \"{EMAIL}\", password: \"{guess}\" ) }}"),
        Value::Null,
    );
    run(None, &format!("{{ me {{ {} }} }}", guess.replace('-', "_")), Value::Null);
    let [_, token] = keep(&run(None, &sign_in, json!({ "email": EMAIL, "password": first })), "signIn");
    keep(&run(None, &refresh, json!({ "refreshToken": token })), "refreshSession");
    run(None, &refresh, json!({ "refreshToken": format!("{token}x") }));
    run(Some(&format!("{access}x")), "{ me { id } }", Value::Null);
    let change =
        "mutation($i: ChangePasswordInput!) { changePassword(input: $i) { userErrors { code message } } }";
    run(Some(&access), change, json!({ "currentPassword": guess, "newPassword": second }));
    run(Some(&access), change, json!({ "currentPassword": first, "newPassword": second }));
    let admin = process::mint(&url, "admin@example.com", &[]);
    let create =
        "mutation($i: CreateUserInput!) { createUser(input: $i) { user { id email } userErrors { code } } }";
    let other = json!({ "email": "planted.other@example.com", "displayName": "Bob", "role": "EDITOR", "password": made });
    run(Some(&admin), create, other);
    let everybody = "{ users(first: 100) { nodes { email sessions { nodes { id name } } activity { nodes { metadata } } } } }";
    run(Some(&admin), everybody, Value::Null);
    run(Some(&admin), "{ users(filter: { search: \"planted.name\" }) { totalCount } }", Value::Null);
    secrets.push(admin.clone());

    let (tables, log_table) = runtime.block_on(dump(&url));
    // What goes wrong with the database is written to the log, and must not bring its values along.
    runtime.block_on(async {
        let app = TestApp::over(&url).await;
        app.sql("alter table users drop column password_hash").await;
        app.sql("alter table users add constraint short check (length(display_name) < 4) not valid").await;
    });
    run(None, &sign_in, json!({ "email": EMAIL, "password": second }));
    run(
        None,
        &sign_up,
        json!({ "email": "planted.third@example.com", "password": first, "displayName": "Carl" }),
    );
    let (_, metrics) = send(&server.address, "/metrics", &[], "").expect("metrics");
    // The log is written behind the answers.
    let failures = |log: &str| log.matches("INTERNAL_SERVER_ERROR").count();
    for _ in 0..1_000 {
        if failures(&server.log()) >= 2 {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let log = server.log();
    assert!(failures(&log) == 2 && log.contains("password_hash"), "the log can be searched: {log}");
    assert!(said.contains("INTERNAL_SERVER_ERROR") && said.contains("GRAPHQL_PARSE_FAILED"), "{said}");
    assert!(tables.contains(EMAIL), "the tables can be searched");
    let shared = in_redis(&redis);
    assert!(shared.len() > 1_000, "Redis can be searched");
    for secret in &secrets {
        let places = [
            ("log", &log),
            ("metrics", &metrics),
            ("errors", &said),
            ("tables", &tables),
            ("Redis", &shared),
        ];
        for (place, text) in places {
            // Whoever sends it as the name of a field gets it back.
            let found = text.contains(secret.as_str());
            assert!(!found, "{secret} is in the {place}: {}", around(text, secret));
        }
    }
    for (place, text) in [("log", &log), ("metrics", &metrics), ("errors", &said), ("activity", &log_table)] {
        assert!(!text.contains("planted."), "an e-mail is in the {place}: {}", around(text, "planted."));
    }
}

/// Every table as text; and the activity log by itself.
async fn dump(url: &str) -> (String, String) {
    let store = db::open(url).await;
    let all = async |sql: &str| -> Vec<String> {
        let rows = store
            .connection()
            .query_all_raw(sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, sql))
            .await
            .expect("rows");
        rows.iter()
            .map(|row| row.try_get_by_index::<Option<String>>(0).expect("text").unwrap_or_default())
            .collect()
    };
    let mut text = String::new();
    for table in all("select tablename::text from pg_tables where schemaname = 'public'").await {
        text.push_str(&all(&format!("select t::text from {table} t")).await.join("\n"));
    }
    let log = all("select t::text from user_activity_logs t").await.join("\n");
    store.close().await;
    (text, log)
}

/// All keys and values.
fn in_redis(redis: &RedisServer) -> String {
    let keys = redis.cli(&["--scan"]);
    let values = keys.lines().map(|key| {
        let dumped = match redis.cli(&["type", key]).as_str() {
            "string" => redis.cli(&["get", key]),
            "hash" => redis.cli(&["hgetall", key]),
            "stream" => redis.cli(&["xrange", key, "-", "+"]),
            "zset" => redis.cli(&["zrange", key, "0", "-1"]),
            "set" => redis.cli(&["smembers", key]),
            "list" => redis.cli(&["lrange", key, "0", "-1"]),
            other => panic!("{key} is a {other}"),
        };
        format!("{key}\n{dumped}\n")
    });
    values.collect()
}

/// Where it was found.
fn around(text: &str, secret: &str) -> String {
    let at = text.find(secret).unwrap_or_default();
    text.chars().skip(text[..at].chars().count().saturating_sub(300)).take(600).collect()
}

//! Getting in, going on and being put out: tokens, their rotation, and how fast a revocation is known, on one
//! instance and on two. Not here: what a viewer may see (`access`), attacks on single tokens
//! (`schema::token`), what is taken back and how others hear of it (`revocation`).

mod accounts;
mod revocation;

use std::time::Duration;

use entities::{Role, clock, id::SessionId};
use futures_util::future::join_all;
use schema::auth::token::InvalidToken;
use serde_json::{Value, json};

use crate::harness::{Client, TestApp, db, text};

const PASSWORD: &str = "correct horse battery staple";
const TOKENS: &str = "accessToken refreshToken accessTokenExpiresAt
    session { id isCurrent isActive name ipAddress userAgent endReason } user { id email role lastLogin }
    userErrors { code path message }";

/// Runs a mutation of one field; its payload.
async fn mutate(client: &Client<'_>, field: &str, input: Value, selection: &str) -> Value {
    let type_name = format!("{}{}Input", field[..1].to_uppercase(), &field[1..]);
    let query = format!("mutation($input: {type_name}!) {{ {field}(input: $input) {{ {selection} }} }}");
    let data = client.run(&query, json!({ "input": input })).await.expect_data(&query);
    data[field].clone()
}

/// A new account, signed in.
async fn sign_up(app: &TestApp, email: &str) -> Value {
    let input = json!({ "email": email, "password": PASSWORD, "displayName": "Ann" });
    let payload = mutate(&app.anonymous(), "signUp", input, TOKENS).await;
    assert_eq!(payload["userErrors"], json!([]));
    payload
}

async fn sign_in(client: &Client<'_>, email: &str, password: &str) -> Value {
    mutate(client, "signIn", json!({ "email": email, "password": password }), TOKENS).await
}

async fn refresh(app: &TestApp, token: &Value) -> Value {
    mutate(&app.anonymous(), "refreshSession", json!({ "refreshToken": token }), TOKENS).await
}

fn bearing<'a>(app: &'a TestApp, tokens: &Value) -> Client<'a> {
    app.bearing(tokens["accessToken"].as_str().expect("a token")).expect("it is good")
}

fn code(payload: &Value) -> &str {
    assert!(payload.get("accessToken").is_none_or(Value::is_null), "{payload}");
    payload["userErrors"][0]["code"].as_str().unwrap_or_else(|| panic!("no error in {payload}"))
}

/// Both databases, with keys.
async fn apps() -> [TestApp; 2] {
    let apps = TestApp::both_own().await;
    for app in &apps {
        app.graph.access().open().await.expect("keys are made");
    }
    apps
}

#[tokio::test]
async fn who_signs_up_is_signed_in_and_reads() {
    for app in apps().await {
        let client = app.anonymous().from("192.0.2.7").with_agent("XP for Android 1.2");
        let input = json!({ "email": "Ann@Example.com ", "password": PASSWORD, "displayName": " Ann " });
        let payload = mutate(&client, "signUp", input, TOKENS).await;
        assert_eq!(payload["user"]["email"], "ann@example.com", "read as the one who was let in");
        assert_eq!(
            (&payload["user"]["role"], &payload["session"]["isCurrent"]),
            (&json!("VIEWER"), &json!(true))
        );
        let session = &payload["session"];
        assert_eq!(
            (&session["ipAddress"], &session["userAgent"]),
            (&json!("192.0.2.7"), &json!("XP for Android 1.2"))
        );
        let client = bearing(&app, &payload);
        let data = client
            .ask("{ me { displayName activity { nodes { actionType } } } currentSession { id } }")
            .await;
        let entries = json!({ "nodes": [{ "actionType": "user.sign_up" }] });
        assert_eq!(data["me"], json!({ "displayName": "Ann", "activity": entries }));
        assert_eq!(data["currentSession"]["id"], payload["session"]["id"]);

        let again = json!({ "email": "ann@example.com", "password": PASSWORD, "displayName": "Ann" });
        let payload = mutate(&app.anonymous(), "signUp", again, TOKENS).await;
        assert_eq!(
            (code(&payload), &payload["userErrors"][0]["path"]),
            ("ALREADY_EXISTS", &json!(["input", "email"]))
        );
        for (field, value, wanted) in [
            ("email", "ann".to_owned(), "INVALID"),
            ("displayName", " ".to_owned(), "REQUIRED"),
            ("password", "short".to_owned(), "TOO_SMALL"),
            ("password", "x".repeat(257), "TOO_LARGE"),
            ("password", "Password1".to_owned(), "WEAK_PASSWORD"),
            ("password", "bob@example.com".to_owned(), "WEAK_PASSWORD"),
        ] {
            let mut input = json!({ "email": "bob@example.com", "password": PASSWORD, "displayName": "Bob" });
            input[field] = json!(value);
            let payload = mutate(&app.anonymous(), "signUp", input, TOKENS).await;
            assert_eq!(
                (code(&payload), &payload["userErrors"][0]["path"]),
                (wanted, &json!(["input", field]))
            );
        }
    }
}

#[tokio::test]
async fn names_are_stored_composed_and_nothing_hides_in_them() {
    let found = "query($s: String) { users(filter: { search: $s }) { nodes { displayName } } }";
    for app in apps().await {
        let tokens = sign_up(&app, "ann@example.com").await;
        let client = bearing(&app, &tokens);
        let name = |name: &str| json!({ "displayName": name });
        let selection = "user { displayName } userErrors { code path }";
        let payload = mutate(&client, "updateProfile", name("\u{110}a\u{300} La\u{323}t"), selection).await;
        assert_eq!(payload["user"]["displayName"], "\u{110}\u{e0} L\u{1ea1}t");
        for search in ["\u{111}a\u{300} l", "\u{111}\u{e0} l\u{1ea1}"] {
            let data = client.run(found, json!({ "s": search })).await.expect_data(found);
            assert_eq!(
                data["users"]["nodes"],
                json!([{ "displayName": "\u{110}\u{e0} L\u{1ea1}t" }]),
                "{search:?}"
            );
        }
        for (hidden, code) in [
            ("\u{200b}", "REQUIRED"),
            ("Ann\u{202e}", "INVALID"),
            ("A\u{200d}nn", "INVALID"),
            ("A\tnn", "INVALID"),
        ] {
            let payload = mutate(&client, "updateProfile", name(hidden), selection).await;
            assert_eq!(payload["userErrors"], json!([{ "code": code, "path": ["input", "displayName"] }]));
        }
        let id = &tokens["session"]["id"];
        let rename = async |name: &str| {
            let input = json!({ "id": id, "name": name });
            mutate(&client, "renameSession", input, "session { name } userErrors { code path }").await
        };
        assert_eq!(rename(" Te\u{301}l ").await["session"]["name"], "T\u{e9}l");
        assert_eq!(rename("\u{200b}").await, json!({ "session": { "name": null }, "userErrors": [] }));
        let refused = rename("T\u{2066}l").await;
        assert_eq!(refused["userErrors"], json!([{ "code": "INVALID", "path": ["input", "name"] }]));
    }
}

#[tokio::test]
async fn all_failed_sign_ins_answer_alike() {
    for app in apps().await {
        sign_up(&app, "ann@example.com").await;
        sign_up(&app, "bob@example.com").await;
        app.sql("update users set is_active = false where email = 'bob@example.com'").await;
        let mut answers = Vec::new();
        for (email, password) in [
            ("ann@example.com", "wrong password"),
            ("nobody@example.com", PASSWORD),
            ("bob@example.com", PASSWORD),
            ("viewer@example.com", PASSWORD),
            ("nonsense", PASSWORD),
            ("a\u{0}b", PASSWORD),
            ("ann@example.com", &"x".repeat(1_000)),
        ] {
            answers.push(sign_in(&app.anonymous(), email, password).await);
        }
        assert_eq!(code(&answers[0]), "INVALID_CREDENTIALS");
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
        let payload = sign_in(&app.anonymous(), "ANN@example.com", PASSWORD).await;
        assert_eq!(payload["userErrors"], json!([]));
        assert!(payload["user"]["lastLogin"].is_string());
    }
}

#[tokio::test]
async fn reusing_a_stale_refresh_token_ends_the_session() {
    for app in apps().await {
        let first = sign_up(&app, "ann@example.com").await;
        let second = refresh(&app, &first["refreshToken"]).await;
        assert_eq!(second["session"]["id"], first["session"]["id"]);
        assert_ne!(second["refreshToken"], first["refreshToken"]);
        let again = refresh(&app, &first["refreshToken"]).await;
        assert_eq!(again["refreshToken"], second["refreshToken"], "an answer that was lost does no harm");
        let third = refresh(&app, &second["refreshToken"]).await;
        let client = bearing(&app, &third);
        // Another tab, which has not heard of either exchange.
        let behind = refresh(&app, &first["refreshToken"]).await;
        assert_eq!(behind["refreshToken"], third["refreshToken"], "within ten seconds of its exchange");
        // The first was exchanged long ago, though the second just now.
        let id = text(&first["session"]["id"]).replace('-', "");
        let id = if app.is_postgres() { format!("'{id}'") } else { format!("x'{id}'") };
        let now = clock::now().timestamp_micros();
        let exchanges = format!("2:{now},{}", now - 10_500_000);
        app.sql(&format!("update user_sessions set exchanges = '{exchanges}' where id = {id}")).await;
        let still = refresh(&app, &second["refreshToken"]).await;
        assert_eq!(still["refreshToken"], third["refreshToken"]);
        let stolen = refresh(&app, &first["refreshToken"]).await;
        assert_eq!(code(&stolen), "EXPIRED");
        assert_eq!(code(&refresh(&app, &third["refreshToken"]).await), "EXPIRED", "nobody goes on");
        for tokens in [&first, &second, &third] {
            let refused = app.bearing(tokens["accessToken"].as_str().expect("a token")).err();
            assert_eq!(refused, Some(InvalidToken("revoked")));
        }
        let data = client.ask("{ me { sessions { nodes { isActive endReason } } activity { nodes { actionType metadata } } } }").await;
        assert_eq!(
            data["me"]["sessions"]["nodes"][0],
            json!({ "isActive": false, "endReason": "TOKEN_REUSE" })
        );
        let newest = &data["me"]["activity"]["nodes"][0];
        assert_eq!(*newest, json!({ "actionType": "session.end", "metadata": { "reason": "TOKEN_REUSE" } }));
    }
}

#[tokio::test]
async fn the_token_before_is_stale_after_its_grace() {
    for app in apps().await {
        let first = sign_up(&app, "ann@example.com").await;
        let second = refresh(&app, &first["refreshToken"]).await;
        let earlier = (clock::now() - Duration::from_millis(10_500)).to_rfc3339();
        let id = text(&first["session"]["id"]).replace('-', "");
        let id = if app.is_postgres() { format!("'{id}'") } else { format!("x'{id}'") };
        app.sql(&format!("update user_sessions set refreshed_at = '{earlier}' where id = {id}")).await;
        assert_eq!(code(&refresh(&app, &first["refreshToken"]).await), "EXPIRED");
        assert_eq!(code(&refresh(&app, &second["refreshToken"]).await), "EXPIRED");
    }
}

#[tokio::test]
async fn malformed_and_stale_refresh_tokens_are_distinguished() {
    for app in apps().await {
        let tokens = sign_up(&app, "ann@example.com").await;
        let other = TestApp::over(&db::own_sqlite().await).await;
        other.graph.access().open().await.expect("keys are made");
        let foreign = sign_up(&other, "ann@example.com").await;
        let mut altered = text(&tokens["refreshToken"]);
        altered.replace_range(10..11, if &altered[10..11] == "A" { "B" } else { "A" });
        for garbage in [
            json!(""),
            json!("rt_"),
            json!(altered),
            tokens["accessToken"].clone(),
            foreign["refreshToken"].clone(),
        ] {
            assert_eq!(code(&refresh(&app, &garbage).await), "INVALID", "{garbage}");
        }
        for column in ["expires_at", "ends_at"] {
            let tokens = sign_up(&app, &format!("{column}@example.com")).await;
            let past = (clock::now() - Duration::from_secs(1)).to_rfc3339();
            app.sql(&format!("update user_sessions set {column} = '{past}' where refresh_salt is not null"))
                .await;
            assert_eq!(code(&refresh(&app, &tokens["refreshToken"]).await), "EXPIRED", "{column}");
        }
        let refused = app.bearing(tokens["refreshToken"].as_str().expect("a token")).err();
        assert_eq!(refused, Some(InvalidToken("malformed")), "a refresh token is refused as an access token");
    }
}

/// On two nodes: the database decides.
#[tokio::test]
async fn thirty_two_tabs_that_refresh_at_once_get_one_successor() {
    for url in [db::own_sqlite().await, db::own_postgres().await] {
        let nodes = [TestApp::over(&url).await, TestApp::over(&url).await];
        for node in &nodes {
            node.graph.access().open().await.expect("keys are made, or found");
        }
        let mut token = sign_up(&nodes[0], "ann@example.com").await["refreshToken"].clone();
        for round in 1..=5 {
            let answers = join_all((0..32).map(|tab| refresh(&nodes[tab % 2], &token))).await;
            let next = answers[0]["refreshToken"].clone();
            assert!(next.is_string() && next != token, "round {round}: {}", answers[0]);
            assert!(answers.iter().all(|answer| answer["refreshToken"] == next), "round {round}");
            token = next;
        }
        let tokens = refresh(&nodes[1], &token).await;
        let asked = "{ me { sessions { totalCount nodes { isActive } } activity { totalCount } } }";
        let data = bearing(&nodes[0], &tokens).ask(asked).await;
        assert_eq!(data["me"]["sessions"], json!({ "totalCount": 1, "nodes": [{ "isActive": true }] }));
        assert_eq!(data["me"]["activity"]["totalCount"], 7, "one entry for each exchange, and the sign-up");
    }
}

#[tokio::test]
async fn a_document_lets_in_once() {
    for app in apps().await {
        let one = |key: &str| {
            format!("{key}: signIn(input: {{email: \"a@example.com\", password: \"x\"}}) {{ accessToken }}")
        };
        for query in [
            format!("mutation {{ {} {} }}", one("a"), one("b")),
            format!(
                "mutation {{ {} refreshSession(input: {{refreshToken: \"x\"}}) {{ accessToken }} }}",
                one("a")
            ),
            format!(
                "mutation {{ ...A ...B }} fragment A on Mutation {{ {} }} fragment B on Mutation {{ {} }}",
                one("a"),
                one("b")
            ),
        ] {
            let reply = app.anonymous().run(&query, json!({})).await;
            assert_eq!(
                (reply.executed, reply.codes, reply.sql.len()),
                (false, vec!["BAD_USER_INPUT".to_owned()], 0)
            );
        }
        app.anonymous().ask(&format!("mutation {{ {} }}", one("a"))).await;
    }
}

#[tokio::test]
async fn throttling_precedes_reads_and_spares_the_owner() {
    for app in apps().await {
        sign_up(&app, "ann@example.com").await;
        let query = "mutation($p: String!) { signIn(input: { email: \"ann@example.com\", password: $p }) { userErrors { code } } }";
        let attacker = app.anonymous().from("192.0.2.66");
        let (mut tried, mut limited) = (0, 0);
        for guess in 0..1_000 {
            let reply = attacker.run(query, json!({ "p": format!("guess number {guess}") })).await;
            if reply.codes == ["RATE_LIMITED"] {
                assert_eq!(reply.statements(), Vec::<&str>::new());
                limited += 1;
            } else {
                assert_eq!(reply.data["signIn"]["userErrors"][0]["code"], "INVALID_CREDENTIALS");
                tried += 1;
            }
        }
        assert_eq!((tried + limited, tried < 25), (1_000, true), "{tried} guesses were checked");
        let right = attacker.run(query, json!({ "p": PASSWORD })).await;
        assert_eq!(right.codes, ["RATE_LIMITED"]);
        let owner = app.anonymous().from("198.51.100.1");
        assert_eq!(sign_in(&owner, "ann@example.com", PASSWORD).await["userErrors"], json!([]));
    }
}

#[tokio::test]
async fn a_session_is_signed_out_and_revoked_at_once() {
    let end_reason = "session { isActive endReason revokedAt } userErrors { code }";
    for app in apps().await {
        let mine = sign_up(&app, "ann@example.com").await;
        let phone = sign_in(&app.anonymous(), "ann@example.com", PASSWORD).await;
        let tablet = sign_in(&app.anonymous(), "ann@example.com", PASSWORD).await;
        let client = bearing(&app, &mine);

        let input = json!({ "id": phone["session"]["id"] });
        let payload = mutate(&client, "revokeSession", input.clone(), end_reason).await;
        assert_eq!(payload["session"]["endReason"], "REVOKED_BY_USER");
        let refused = |tokens: &Value| app.bearing(tokens["accessToken"].as_str().expect("a token")).err();
        assert_eq!(refused(&phone), Some(InvalidToken("revoked")));
        assert_eq!(code(&refresh(&app, &phone["refreshToken"]).await), "EXPIRED");
        let again = mutate(&app.as_admin(), "revokeSession", input, end_reason).await;
        assert_eq!(again, payload, "it ended once, for the first reason");

        // Somebody else's session is none, but for administrators.
        let input = json!({ "id": tablet["session"]["id"] });
        for role in [Role::Manager, Role::Editor, Role::Viewer] {
            let payload = mutate(&app.as_role(role), "revokeSession", input.clone(), end_reason).await;
            assert_eq!((code(&payload), &payload["session"]), ("NOT_FOUND", &Value::Null), "{role:?}");
        }
        assert_eq!(refused(&tablet), None);
        let payload = mutate(&app.as_admin(), "revokeSession", input, end_reason).await;
        assert_eq!(payload["session"]["endReason"], "REVOKED_BY_ADMIN");
        assert_eq!(refused(&tablet), Some(InvalidToken("revoked")));

        let payload =
            client.ask(&format!("mutation {{ signOut {{ {end_reason} }} }}")).await["signOut"].clone();
        assert_eq!(
            (&payload["session"]["endReason"], &payload["session"]["isActive"]),
            (&json!("SIGNED_OUT"), &json!(false))
        );
        assert_eq!(refused(&mine), Some(InvalidToken("revoked")));
        let none = app.as_admin().ask("mutation { signOut { session { id } userErrors { code } } }").await;
        assert_eq!(none["signOut"], json!({ "session": null, "userErrors": [{ "code": "NOT_FOUND" }] }));
    }
}

#[tokio::test]
async fn all_sessions_but_the_current_one_are_revoked() {
    let ended = "sessions { id endReason } userErrors { code }";
    for app in apps().await {
        let mine = sign_up(&app, "ann@example.com").await;
        let phone = sign_in(&app.anonymous(), "ann@example.com", PASSWORD).await;
        let client = bearing(&app, &mine);
        let payload = mutate(&client, "revokeAllSessions", json!({}), ended).await;
        let wanted = json!([{ "id": phone["session"]["id"], "endReason": "REVOKED_BY_USER" }]);
        assert_eq!(payload["sessions"], wanted);
        assert!(bearing(&app, &mine).ask("{ me { id } }").await["me"].is_object());
        let payload = mutate(&client, "revokeAllSessions", json!({ "exceptCurrent": false }), ended).await;
        assert_eq!(payload["sessions"][0]["id"], mine["session"]["id"]);
        assert!(app.bearing(mine["accessToken"].as_str().expect("a token")).is_err());

        let other = sign_in(&app.anonymous(), "ann@example.com", PASSWORD).await;
        let input = json!({ "input": { "userId": other["user"]["id"] } });
        let query = "mutation($input: RevokeAllSessionsInput!) { revokeAllSessions(input: $input) { sessions { id endReason } } }";
        for role in [Role::Manager, Role::Viewer] {
            let query = query.replace("} }", "} userErrors { code path } }");
            let data = app.as_role(role).run(&query, input.clone()).await.expect_data(&query);
            let error = json!([{ "code": "NOT_ALLOWED", "path": ["input", "userId"] }]);
            assert_eq!(data["revokeAllSessions"], json!({ "sessions": [], "userErrors": error }), "{role:?}");
        }
        let data = app.as_admin().run(query, input).await.expect_data(query);
        let wanted = json!([{ "id": other["session"]["id"], "endReason": "REVOKED_BY_ADMIN" }]);
        assert_eq!(data["revokeAllSessions"]["sessions"], wanted);
    }
}

#[tokio::test]
async fn a_session_expires_without_a_write() {
    for app in apps().await {
        let tokens = sign_up(&app, "ann@example.com").await;
        let live = sign_in(&app.anonymous(), "ann@example.com", PASSWORD).await;
        let past = (clock::now() - Duration::from_secs(1)).to_rfc3339();
        let id = text(&tokens["session"]["id"]).replace('-', "");
        let id = if app.is_postgres() { format!("'{id}'") } else { format!("x'{id}'") };
        app.sql(&format!("update user_sessions set expires_at = '{past}' where id = {id}")).await;
        let asked = "{ me { sessions { nodes { isActive endReason revokedAt } } active: sessions(activeOnly: true) { totalCount } } }";
        let data = bearing(&app, &live).ask(asked).await;
        let nodes = json!([
            { "isActive": true, "endReason": null, "revokedAt": null },
            { "isActive": false, "endReason": "EXPIRED", "revokedAt": null },
        ]);
        assert_eq!(data["me"], json!({ "sessions": { "nodes": nodes }, "active": { "totalCount": 1 } }));
    }
}

#[tokio::test]
async fn an_account_has_twenty_live_sessions_at_most() {
    for app in apps().await {
        let first = sign_up(&app, "ann@example.com").await;
        let is_good = |tokens: &Value| app.bearing(tokens["accessToken"].as_str().expect("a token")).is_ok();
        let another = async |index: u32| {
            let from = app.anonymous().from(&format!("192.0.{index}.2"));
            sign_in(&from, "ann@example.com", PASSWORD).await
        };
        let second = another(0).await;
        for index in 1..19 {
            another(index).await;
        }
        // The least used one makes room, not the oldest.
        let first = refresh(&app, &first["refreshToken"]).await;
        assert!(is_good(&second));
        another(19).await;
        assert!(is_good(&first) && !is_good(&second));
        let mut last = Value::Null;
        for index in 20..25 {
            last = another(index).await;
        }
        let data = bearing(&app, &last)
            .ask("{ me { sessions(activeOnly: true) { totalCount } all: sessions { totalCount } } }")
            .await;
        assert_eq!(data["me"], json!({ "sessions": { "totalCount": 20 }, "all": { "totalCount": 26 } }));
        let ended = bearing(&app, &last).ask("{ me { sessions(first: 100) { nodes { endReason } } } }").await;
        let reasons = ended["me"]["sessions"]["nodes"].as_array().expect("a list").iter();
        assert_eq!(reasons.filter(|node| node["endReason"] == "EXPIRED").count(), 6);
    }
}

#[tokio::test]
async fn access_tokens_name_their_account_and_expire_staggered() {
    for app in apps().await {
        let mut tokens = sign_up(&app, "ann@example.com").await;
        let mut lives = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let access = app.graph.access().tokens();
            let claims = access.claims(tokens["accessToken"].as_str().expect("a token")).expect("good");
            assert_eq!((&claims.iss[..], &claims.role[..], claims.epoch), ("xp-graph", "VIEWER", 0));
            assert_eq!(
                json!([claims.sub, claims.sid]),
                json!([tokens["user"]["id"], tokens["session"]["id"]])
            );
            assert!(claims.nbf == claims.iat && !claims.jti.is_empty());
            let expires: clock::Time =
                serde_json::from_value(tokens["accessTokenExpiresAt"].clone()).expect("a time");
            assert_eq!(expires.timestamp(), claims.exp);
            lives.insert(claims.exp - claims.iat);
            tokens = refresh(&app, &tokens["refreshToken"]).await;
        }
        assert!(lives.iter().all(|seconds| (285..=300).contains(seconds)) && lives.len() > 1, "{lives:?}");
    }
}

/// The use of a session is written down behind the request.
#[tokio::test]
async fn the_last_use_of_a_session_is_written_behind() {
    for app in apps().await {
        let tokens = sign_up(&app, "ann@example.com").await;
        app.sql("update user_sessions set last_activity = created_at where refresh_salt is not null").await;
        let id = SessionId::parse(&text(&tokens["session"]["id"])).expect("an id");
        let last = async || {
            let query = format!("{{ session(id: \"{id}\") {{ createdAt lastActivity }} }}");
            app.as_admin().ask(&query).await["session"].clone()
        };
        let before = last().await;
        assert_eq!(before["createdAt"], before["lastActivity"]);
        bearing(&app, &tokens);
        let following = tokio::spawn(app.graph.access().follow());
        for _ in 0..500 {
            if last().await["lastActivity"] != before["lastActivity"] {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        following.abort();
        assert!(text(&last().await["lastActivity"]) > text(&before["lastActivity"]));
    }
}

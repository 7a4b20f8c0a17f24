//! The operator's commands, run as an operator runs them: the program, its standard streams, its exit codes. Not here:
//! what accounts, keys and tokens are (`sessions`).

use std::{
    io::{Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use rustix::pty::{self, OpenptFlags};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::harness::{TestApp, db};

const SECRET: &str = "of the tests, and long enough for it";
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// `xp` with arguments, over a database.
pub(crate) fn command(url: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xp"));
    command.args(arguments).env_clear().env("DATABASE_URL", url).env("XP_AUTH_SECRET", SECRET);
    // A machine that is busy with all the other tests is no reason to give up.
    command.env("XP_DATABASE_ACQUIRE_TIMEOUT", "30s");
    command.env("PORT", "0").envs(environment.iter().copied()).current_dir("/");
    command
}

/// Runs `xp`; its exit code and what it printed on both streams.
pub(crate) fn xp(
    url: &str,
    arguments: &[&str],
    input: &str,
    environment: &[(&str, &str)],
) -> (i32, String, String) {
    outcome(command(url, arguments, environment), input)
}

/// Runs a program; its exit code and what it printed on both streams.
fn outcome(mut command: Command, input: &str) -> (i32, String, String) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().expect("the program can be started");
    let mut stdin = running.stdin.take().expect("a pipe");
    // A command that does not read its input may have ended before.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = running.wait_with_output().expect("the program ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8").trim().to_owned();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// Runs a program at a terminal where `answer` is typed; its exit code and what stands there then.
pub(crate) fn outcome_at_terminal(mut command: Command, answer: &str) -> (i32, String) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let keyboard = pty::openpt(flags).expect("a terminal can be made");
    pty::grantpt(&keyboard).and_then(|()| pty::unlockpt(&keyboard)).expect("it is ours");
    let name = pty::ptsname(&keyboard, Vec::new()).expect("it has a name").into_string().expect("UTF-8");
    let terminal = std::fs::File::options().read(true).write(true).open(name).expect("it can be opened");
    let another = || Stdio::from(terminal.try_clone().expect("a descriptor"));
    command.stdin(another()).stdout(another()).stderr(another());
    let mut running = command.spawn().expect("the program can be started");
    let mut keyboard = std::fs::File::from(keyboard);
    keyboard.write_all(answer.as_bytes()).expect("it can be typed");
    let code = running.wait().expect("the program ends").code().unwrap_or(-1);
    // While this end is open too, reading past what was said would wait; when it is closed, it fails.
    drop((command, terminal));
    let mut said = Vec::new();
    let _ = keyboard.read_to_end(&mut said);
    (code, String::from_utf8(said).expect("UTF-8"))
}

/// Runs `xp` and expects it to do it; what it printed.
pub(crate) fn done(url: &str, arguments: &[&str], input: &str) -> String {
    let (code, out, err) = xp(url, arguments, input, &[]);
    assert_eq!(code, 0, "{arguments:?}: {out}{err}");
    out
}

/// Runs `xp` and expects it not to; its exit code and message.
pub(crate) fn refused(url: &str, arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let (code, out, err) = xp(url, arguments, "", environment);
    assert_eq!(out, "", "{arguments:?}");
    (code, err)
}

#[tokio::test]
async fn an_operator_makes_accounts_changes_their_role_and_blocks_them() {
    for url in [db::own_sqlite().await, db::own_postgres().await] {
        let create =
            ["user", "create", "--email", "Root@example.com", "--role", "admin", "--password-file", "-"];
        let id = done(&url, &create, &format!("{PASSWORD}\n"));
        assert!(entities::id::UserId::parse(&id).is_some(), "{id}");
        let (code, _, said) = xp(&url, &create, PASSWORD, &[]);
        assert_eq!(
            (code, said.as_str()),
            (1, "xp: an account with the e-mail root@example.com exists already")
        );
        let weak = ["user", "create", "--email", "b@example.com", "--role", "viewer", "--password-file", "-"];
        let (code, _, said) = xp(&url, &weak, "password1", &[]);
        assert!(code == 2 && said.contains("too easy to guess"), "{said}");
        let asked = ["user", "create", "--email", "b@example.com", "--role", "viewer"];
        let (code, said) = refused(&url, &asked, &[]);
        assert!(code == 2 && said.contains("not a terminal"), "{said}");

        let app = TestApp::over(&url).await;
        let sign_in = format!(
            "mutation {{ signIn(input: {{ email: \"root@example.com\", password: \"{PASSWORD}\" }}) {{
                user {{ role }} userErrors {{ code }} }} }}"
        );
        app.graph.access().open().await.expect("keys are made");
        let data = app.anonymous().ask(&sign_in).await;
        assert_eq!(data["signIn"], json!({ "user": { "role": "ADMIN" }, "userErrors": [] }));
        done(&url, &["user", "role", "root@example.com", "viewer"], "");
        assert_eq!(app.anonymous().ask(&sign_in).await["signIn"]["user"]["role"], "VIEWER");
        done(&url, &["user", "disable", "root@example.com"], "");
        let data = app.anonymous().ask(&sign_in).await;
        assert_eq!(data["signIn"]["userErrors"], json!([{ "code": "INVALID_CREDENTIALS" }]));
        done(&url, &["user", "enable", "root@example.com"], "");
        assert_eq!(app.anonymous().ask(&sign_in).await["signIn"]["user"]["role"], "VIEWER");
        let (code, said) = refused(&url, &["user", "disable", "nobody@example.com"], &[]);
        assert_eq!((code, said.as_str()), (1, "xp: account not found: nobody@example.com"));
        let password = ["user", "password", "root@example.com", "--password-file", "-"];
        let (code, _, said) = xp(&url, &password, "root@example.com", &[]);
        assert!(code == 2 && said.contains("too easy to guess"), "{said}");
        assert_eq!(done(&url, &password, "another horse battery staple\n"), id);
        let data = app.anonymous().ask(&sign_in).await;
        assert_eq!(data["signIn"]["userErrors"], json!([{ "code": "INVALID_CREDENTIALS" }]), "the old one");
        let with_new = sign_in.replace(PASSWORD, "another horse battery staple");
        assert_eq!(app.anonymous().ask(&with_new).await["signIn"]["user"]["role"], "VIEWER");
        let log = app.service().ask("{ activityLogs(first: 8) { nodes { actionType user { id } } } }").await;
        let actions: Vec<&str> = log["activityLogs"]["nodes"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|entry| entry["actionType"].as_str())
            .collect();
        assert_eq!(
            actions,
            [
                "session.create",
                "user.change_password",
                "session.create",
                "user.update",
                "user.update",
                "session.create",
                "user.update",
                "session.create"
            ]
        );
    }
}

#[tokio::test]
async fn an_operator_lists_accounts() {
    for url in [db::own_sqlite().await, db::own_postgres().await] {
        for (email, role) in
            [("ann.x@example.com", "admin"), ("bob.x@example.com", "editor"), ("%@a.org", "viewer")]
        {
            let create = ["user", "create", "--email", email, "--role", role, "--password-file", "-"];
            done(&url, &create, PASSWORD);
        }
        done(&url, &["user", "disable", "bob.x@example.com"], "");
        let emails = |more: &[&str]| -> Vec<String> {
            let listed = done(&url, &[&["user", "list", "--json"], more].concat(), "");
            let listed: Value = serde_json::from_str(&listed).expect("JSON");
            let emails = listed.as_array().expect("a list").iter();
            emails.map(|account| account["email"].as_str().expect("a text").to_owned()).collect()
        };
        let newest = ["%@a.org", "bob.x@example.com", "ann.x@example.com"];
        assert_eq!(emails(&[])[..3], newest, "before those of the demo data");
        assert_eq!(emails(&["--limit", "2"]), newest[..2]);
        assert_eq!(emails(&["--role", "admin"]), ["ann.x@example.com", "admin@example.com"]);
        assert_eq!(emails(&["--blocked", "--search", ".x@"]), ["bob.x@example.com"]);
        assert_eq!(emails(&["--search", "ANN.X"]), ["ann.x@example.com"]);
        assert_eq!(emails(&["--search", "%"]), ["%@a.org"], "no pattern");
        assert_eq!(emails(&["--search", "nobody"]), [""; 0]);
        let lines = done(&url, &["user", "list", "--search", ".x@"], "");
        let blocked: Vec<_> = lines.lines().filter(|line| line.ends_with("blocked")).collect();
        assert!(
            matches!(blocked[..], [line] if line.contains("EDITOR") && line.contains("never")),
            "{lines}"
        );
    }
}

#[tokio::test]
async fn an_operator_mints_and_inspects_tokens_and_changes_keys() {
    for url in [db::own_sqlite().await, db::own_postgres().await] {
        let token =
            done(&url, &["token", "mint", "--user", "editor@example.com", "--ttl-seconds", "600"], "");
        let inspect = |token: &str| -> Value {
            let (code, out, err) = xp(&url, &["token", "inspect"], token, &[]);
            let said: Value =
                serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
            assert_eq!((code, err.as_str()), (i32::from(said["valid"] == false), ""));
            said
        };
        let said = inspect(&token);
        assert_eq!((&said["valid"], &said["claims"]["role"]), (&json!(true), &json!("EDITOR")), "{said}");
        assert_eq!(inspect("nonsense"), json!({ "valid": false, "refused": "malformed", "claims": null }));

        let list = |state: &str| -> Option<String> {
            let keys: Value =
                serde_json::from_str(&done(&url, &["keys", "list", "--json"], "")).expect("JSON");
            let mut keys = keys.as_array().expect("keys").iter();
            keys.find(|key| key["state"] == state).and_then(|key| key["kid"].as_str()).map(str::to_owned)
        };
        let active = list("active").expect("one signs");
        let next = done(&url, &["keys", "rotate"], "");
        assert_eq!((list("next"), list("active")), (Some(next), Some(active.clone())));
        done(&url, &["keys", "revoke", &active], "");
        assert_ne!(list("active"), Some(active.clone()));
        assert_eq!(inspect(&token)["refused"], "another key");
        let (code, said) = refused(&url, &["keys", "revoke", &active], &[]);
        assert!(code == 1 && said.contains("unknown key"), "{said}");

        let token = done(&url, &["token", "mint", "--user", "editor@example.com"], "");
        done(&url, &["user", "role", "editor@example.com", "viewer"], "");
        assert_eq!(inspect(&token)["refused"], "revoked");
        let other = [("XP_AUTH_SECRET", "another secret of thirty-two characters")];
        let (code, said) = refused(&url, &["token", "mint", "--user", "editor@example.com"], &other);
        assert!(code == 1 && said.contains("sealed with another secret"), "{said}");
        // Those that another secret is needed for are listed as well.
        let foreign = |environment: &[(&str, &str)]| -> Vec<bool> {
            let (code, out, err) = xp(&url, &["keys", "list", "--json"], "", environment);
            assert_eq!(code, 0, "{err}");
            let keys: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
            keys.as_array().expect("keys").iter().map(|key| key["readable"] == false).collect()
        };
        let (own, others) = (foreign(&[]), foreign(&other));
        assert!(!own.is_empty() && own.iter().all(|foreign| !foreign), "{own:?}");
        assert!(others.len() == own.len() && others.iter().all(|foreign| *foreign), "{others:?}");
        let (code, said, _) = xp(&url, &["keys", "list"], "", &other);
        assert_eq!(code, 0);
        assert!(said.lines().all(|line| line.ends_with("  sealed with another secret")), "{said}");
    }
}

/// The shell reads the script, and knows the commands by it.
#[test]
fn a_shell_completes_commands_by_the_printed_script() {
    let ask = r#"set -u; source <("$XP" completions bash); COMP_WORDS=(xp con); COMP_CWORD=1; _xp xp con xp; echo "${COMPREPLY[@]}""#;
    let output =
        std::process::Command::new("bash").args(["-c", ask]).env("XP", env!("CARGO_BIN_EXE_xp")).output();
    let output = output.expect("bash runs");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "config");
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let script =
            std::process::Command::new(env!("CARGO_BIN_EXE_xp")).args(["completions", shell]).output();
        assert!(String::from_utf8_lossy(&script.expect("it runs").stdout).contains("doctor"), "{shell}");
    }
}

/// With `--json` each command prints one JSON value and nothing else; failures stay text on standard error.
/// Before a release: what has changed since the last one, and which published documents do not run any more.
#[tokio::test]
async fn a_schema_is_checked_against_the_released_one() {
    let url = db::own_sqlite().await;
    let folder = tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (released, documents, usage) = (path("released.graphql"), path("documents"), path("usage.json"));
    for flags in [&["schema"][..], &["schema", "--api"]] {
        let sdl = done(&url, flags, "");
        std::fs::write(&released, &sdl).expect("written");
        let said = done(&url, &["schema", "check", &released], "");
        assert!(said.starts_with("0 breaking changes, 0 dangerous ones, 0 safe ones"), "{said}");
        std::fs::write(&released, sdl.replacen("createdAt: DateTime!", "madeAt: DateTime!", 1))
            .expect("written");
        let (code, said, _) = xp(&url, &["schema", "check", &released], "", &[]);
        assert!(code == 1 && said.contains(".madeAt: the field was removed"), "{said}");
        assert!(said.contains("safe       ") && said.contains("the field was added"), "{said}");
    }
    std::fs::create_dir(&documents).expect("made");
    let manifest = json!({ "good": "{ me { id } }", "old": "query Old {\n  me { nick }\n}" }).to_string();
    std::fs::write(path("documents/web.json"), manifest).expect("written");
    let used = json!({ "old": { "requests": 312, "lastUsedSeconds": 1_795_000_000 } }).to_string();
    std::fs::write(&usage, used).expect("written");
    let environment = [("XP_DOCUMENTS_PATH", documents.as_str()), ("XP_DOCUMENTS_USAGE_FILE", &usage)];
    let check = ["schema", "check", &released, "--documents-only"];
    let (code, said, _) = xp(&url, &check, "", &environment);
    assert!(code == 1 && said.contains("document   old: asked for 312 times, last on 2026-11-"), "{said}");
    assert!(
        said.contains("query Old {") && said.contains("2:8: ") && said.contains("1 of 2 published"),
        "{said}"
    );
    let (_, json, _) = xp(&url, &[&check[..], &["--json"]].concat(), "", &environment);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (&json["documents"][0]["requests"], &json["documents"][0]["id"]),
        (&json!(312), &json!("old"))
    );
    std::fs::write(path("documents/web.json"), json!({ "good": "{ me { id } }" }).to_string())
        .expect("written");
    assert_eq!(xp(&url, &check, "", &environment).0, 0, "what nobody asks for may go");
    let (code, said) = refused(&url, &["schema", "check", &path("nowhere")], &[]);
    assert!(code == 1 && said.contains("nowhere: "), "{said}");
}

#[tokio::test]
async fn every_command_answers_in_json_where_it_is_asked_to() {
    let url = db::own_sqlite().await;
    let json = |arguments: &[&str], input: &str| -> Value {
        let out = done(&url, &[arguments, &["--json"]].concat(), input);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {out}"))
    };
    let create = ["user", "create", "--email", "a@example.com", "--role", "editor", "--password-file", "-"];
    let made = json(&create, PASSWORD);
    let id = made["id"].as_str().expect("an id");
    assert!(entities::id::UserId::parse(id).is_some(), "{made}");
    for change in [
        &["user", "role", "a@example.com", "viewer"][..],
        &["user", "disable", "a@example.com"],
        &["user", "enable", id],
    ] {
        assert_eq!(json(change, ""), json!({ "id": id }), "{change:?}");
    }
    let minted = json(&["token", "mint", "--user", id, "--ttl-seconds", "60"], "");
    assert_eq!(minted["ttlSeconds"], 60);
    assert!(minted["expiresAt"].is_string());
    let said = json(&["token", "inspect"], minted["token"].as_str().expect("a token"));
    assert_eq!(
        (&said["valid"], &said["refused"], &said["claims"]["sub"]),
        (&json!(true), &Value::Null, &json!(id))
    );
    let kid = json(&["keys", "rotate"], "")["kid"].clone();
    let keys = json(&["keys", "list"], "");
    assert_eq!(
        (&keys[0]["kid"], &keys[0]["state"], &keys[1]["state"]),
        (&kid, &json!("next"), &json!("active"))
    );
    assert!(keys[0]["signsFrom"].is_string());
    let revoked = json(&["keys", "revoke", kid.as_str().expect("text")], "");
    assert_eq!(revoked, json!({ "revoked": kid }));
    for (arguments, wanted) in [
        (&["user", "role", "nobody@example.com", "viewer", "--json"][..], 1),
        (&["user", "role", "a@example.com", "root", "--json"], 2),
        (&["user", "create", "--email", "b", "--role", "viewer", "--password-file", "-", "--json"], 2),
        (
            &[
                "user",
                "create",
                "--email",
                "b@example.com",
                "--role",
                "viewer",
                "--password-file",
                "/nowhere",
                "--json",
            ],
            1,
        ),
        (&["token", "mint", "--user", "nobody@example.com", "--json"], 1),
        (&["token", "mint", "--user", id, "--ttl-seconds", "86401", "--json"], 2),
        (&["token", "mint", "--json"], 2),
        (&["keys", "revoke", "nonsense", "--json"], 1),
        (&["keys", "nonsense"], 2),
        (&["user", "disable", "--set", "nonsense=1", "a@example.com"], 2),
    ] {
        let (code, said) = refused(&url, arguments, &[]);
        assert_eq!((code, said.is_empty()), (wanted, false), "{arguments:?}: {said}");
    }
    let blocked = |arguments: &[&str]| refused(&url, arguments, &[]);
    done(&url, &["user", "disable", id], "");
    let (code, said) = blocked(&["token", "mint", "--user", id]);
    assert!(code == 1 && said.contains("is blocked"), "{said}");
}

/// A folder that a development server was started in, with its database.
async fn development_folder() -> TempDir {
    let url = db::own_sqlite().await;
    let folder = tempdir().expect("a folder");
    let file = url.strip_prefix("sqlite:").expect("a file");
    std::fs::copy(file, folder.path().join("xp-dev.db")).expect("the file can be copied");
    folder
}

/// Runs `xp` in a folder, with nothing set but this.
fn xp_in(folder: &Path, arguments: &[&str], input: &str, set: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xp"));
    command.args(arguments).env_clear().envs(set.iter().copied()).current_dir(folder);
    outcome(command, input)
}

#[tokio::test]
async fn commands_work_beside_a_development_server() {
    let folder = development_folder().await;
    let here = |arguments: &[&str], input: &str| xp_in(folder.path(), arguments, input, &[]);
    let (code, token, said) = here(&["token", "mint", "--user", "editor@example.com"], "");
    assert!(code == 0 && said.contains("development database sqlite:xp-dev.db"), "{said}");
    let (code, out, _) = here(&["token", "inspect"], &token);
    assert!(code == 0 && out.contains("\"valid\":true"), "{out}");
    let create = ["user", "create", "--email", "new@example.com", "--role", "viewer", "--password-file", "-"];
    let (code, id, _) = here(&create, PASSWORD);
    assert!(code == 0 && entities::id::UserId::parse(&id).is_some(), "{id}");
    for arguments in
        [&["user", "role", "new@example.com", "editor"][..], &["keys", "list", "--dev"], &["keys", "rotate"]]
    {
        let (code, _, said) = here(arguments, "");
        assert!(code == 0 && said.contains("development database"), "{arguments:?}: {said}");
    }
    // There is no Redis to ask, which is said of this database, too.
    let (code, _, said) = here(&["cache", "stats"], "");
    assert!(
        code == 2 && said.contains("development database") && said.contains("redis.url is not set"),
        "{said}"
    );
}

#[tokio::test]
async fn no_command_works_on_a_development_database_by_accident() {
    let folder = development_folder().await;
    let mint = ["token", "mint", "--user", "editor@example.com"];
    // What is set wins, and needs a secret of its own.
    let url = db::own_sqlite().await;
    let (code, out, said) = xp_in(folder.path(), &mint, "", &[("DATABASE_URL", &url)]);
    assert!((code, out.as_str()) == (2, "") && said.contains("auth.secret is not set"), "{said}");
    let set = [("DATABASE_URL", url.as_str()), ("XP_AUTH_SECRET", SECRET)];
    let (code, _, said) = xp_in(folder.path(), &mint, "", &set);
    assert_eq!((code, said.as_str()), (0, ""));
    // A server that is started with `DATABASE_URL=… xp dev` has that database and the secret of development.
    let mut dev = mint.to_vec();
    dev.push("--dev");
    let (code, _, said) = xp_in(folder.path(), &dev, "", &[("DATABASE_URL", &db::own_sqlite().await)]);
    assert!(code == 0 && said.contains("copy_"), "{said}");
    // Other commands never take it.
    for arguments in [&["migrate", "status"][..], &["migrate", "down", "--yes"], &["seed"]] {
        let (code, _, said) = xp_in(folder.path(), arguments, "", &[]);
        assert!(code == 2 && said.contains("database.url is not set"), "{arguments:?}: {said}");
    }
    // Elsewhere there is none, and none is made.
    let elsewhere = tempdir().expect("a folder");
    let (code, _, said) = xp_in(elsewhere.path(), &mint, "", &[]);
    assert!(code == 2 && said.contains("database.url is not set"), "{said}");
    let (code, _, said) = xp_in(elsewhere.path(), &dev, "", &[]);
    assert!(code == 2 && said.contains("xp-dev.db was not found in this folder"), "{said}");
    assert!(std::fs::read_dir(elsewhere.path()).expect("a folder").next().is_none());
}

#[tokio::test]
async fn taking_migrations_back_is_asked_about() {
    let url = db::own_sqlite().await;
    let steps = || -> Vec<Value> {
        serde_json::from_str(&done(&url, &["migrate", "status", "--json"], "")).expect("JSON")
    };
    let status = || -> Vec<bool> { steps().iter().map(|step| step["applied"] == true).collect() };
    let all = status();
    assert!(all.iter().all(|applied| *applied));
    let (code, said) = refused(&url, &["migrate", "down", "--steps", "2"], &[]);
    let names: Vec<String> =
        steps().iter().rev().map(|step| step["name"].as_str().expect("a name").to_owned()).collect();
    let last = format!("{}\n  {}", names[0], names[1]);
    assert!(code == 2 && said.contains("--yes") && said.contains(&last), "{said}");
    assert!(!said.contains(&names[2]) && status() == all, "{said}");
    let at_terminal =
        |answer: &str| outcome_at_terminal(command(&url, &["migrate", "down", "--steps", "2"], &[]), answer);
    for no in ["no\n", "y\n", "\n"] {
        let (code, said) = at_terminal(no);
        assert!(
            code == 1 && said.contains("Type yes to go on") && said.contains("nothing was taken back"),
            "{said}"
        );
        assert_eq!(status(), all);
    }
    let (code, said) = at_terminal("yes\n");
    assert!(code == 0 && said.contains("2 migrations taken back"), "{said}");
    assert_eq!(status().iter().filter(|applied| **applied).count(), all.len() - 2);
    assert_eq!(
        done(&url, &["migrate", "down", "--steps", "99", "--yes"], ""),
        format!("{} migrations taken back", all.len() - 2)
    );
    assert!(done(&url, &["migrate", "down", "--yes"], "").contains("nothing to take back"));
}

#[tokio::test]
async fn production_refuses_what_is_good_for_development_only() {
    let url = db::own_sqlite().await;
    for (value, wanted) in [
        ("", "auth.secret is not set"),
        ("short", "at least 32 characters"),
        ("development: everybody knows this secret", "auth.secret is the one of development"),
    ] {
        let (code, said) = refused(&url, &["serve"], &[("XP_AUTH_SECRET", value)]);
        assert!(code == 2 && said.contains(wanted), "{said}");
    }
    let (code, said) = refused(&url, &["serve", "--set", "auth.issuer="], &[]);
    assert!(code == 2 && said.contains("auth.issuer"), "{said}");
    let (code, said) = refused(&url, &["serve"], &[("XP_AUTH_PASSWORD_MEMORY", "8MiB")]);
    assert!(code == 2 && said.contains("too low"), "{said}");

    let demo = ["user", "create", "--email", "x@example.com", "--role", "viewer", "--password-file", "-"];
    done(&url, &demo, seed::DEMO_PASSWORD);
    let app = TestApp::over(&url).await;
    app.sql(
        "update users set password_hash = (select password_hash from users where email = 'x@example.com') \
         where email = 'admin@example.com'",
    )
    .await;
    let (code, said) = refused(&url, &["serve"], &[]);
    assert!(code == 1 && said.contains("admin@example.com has the demo password"), "{said}");
}

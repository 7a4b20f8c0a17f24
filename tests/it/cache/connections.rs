//! What kinds of Redis are used and how: accounts with few rights, TLS, and servers that are refused, with
//! words that say what to do. Whatever is refused, requests are served.

use std::{process::Output, time::Duration};

use entities::{Store, cache, events, redis::Redis, session};
use prometheus_client::registry::Registry;
use serde_json::json;

use super::{Node, outages::pause, sessions, settle, version};
use crate::harness::{
    Certificates, RedisServer, TestApp, db,
    process::{self, Server},
};

/// What `xp doctor` says of Redis at this address.
fn doctor(address: &str) -> String {
    let mut command = process::xp("sqlite::memory:");
    // Without a database, it says what it has to say of Redis all the same.
    command.env_remove("DATABASE_URL").env("REDIS_URL", address).arg("doctor");
    let Output { stdout, stderr, .. } = command.output().expect("it runs");
    let told = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    let lines: Vec<&str> = told.lines().collect();
    let at = lines.iter().position(|line| line.contains("redis:")).unwrap_or_else(|| panic!("{told}"));
    lines[at..].iter().take(2).copied().collect::<Vec<_>>().join(" ")
}

async fn store(app: &TestApp, address: &str) -> Store {
    let mut registry = Registry::default();
    let redis = Redis::new(&address.parse().expect("a URL"), &mut registry);
    Node::new(app, Some(redis), registry).await.store
}

/// Writes at one node and reads at both.
async fn writes_are_read(app: &TestApp, stores: &[Store; 2]) {
    let (owner, keys) = sessions(app, 2).await;
    for number in 1..=10_u64 {
        let (key, writer) = (keys[number as usize % 2], &stores[number as usize / 2 % 2]);
        let name = number.to_string();
        assert!(session::rename(writer, owner, key, Some(&name)).await.expect("it is written"));
        // Where Redis is refused, the others hear by way of the database.
        let has_redis = stores.iter().all(|store| store.cache().has_lease());
        pause(if has_redis { 0 } else { 700 }).await;
        for store in stores {
            assert_eq!(version(store, key).await, number);
        }
    }
}

/// A server with this Redis answers; what its log says.
fn log_of_server(url: &str, address: &str, expected: &str) -> String {
    let server = Server::start(url, &[("REDIS_URL", address)]);
    let query = json!({ "query": "{ __typename me { id } }" }).to_string();
    for _ in 0..600 {
        let (status, body) = process::send(&server.address, "/graphql", &[], &query).expect("an answer");
        assert_eq!((status, body.contains("errors")), (200, false), "{body}");
        if server.log().contains(expected) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    server.log()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_redis_in_cluster_mode_is_refused_and_requests_are_served() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start_with(&["--cluster-enabled", "yes"]).await;
    // All slots are its own, so that keys would be taken.
    let slots: Vec<String> = (0..16_384).map(|slot| slot.to_string()).collect();
    let slots: Vec<&str> =
        ["cluster", "addslots"].into_iter().chain(slots.iter().map(|slot| &**slot)).collect();
    assert_eq!(redis.cli(&slots), "OK");
    let told = doctor(&redis.address());
    assert!(told.contains("cluster mode, which is not supported"), "{told}");
    let stores = [store(&app, &redis.address()).await, store(&app, &redis.address()).await];
    writes_are_read(&app, &stores).await;
    assert_eq!(redis.cli(&["keys", "*"]), "", "nothing was put there");
    let url = db::own_sqlite().await;
    let log = log_of_server(&url, &redis.address(), "cluster mode");
    assert!(log.contains("this Redis is in cluster mode, which is not supported"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_and_a_sentinel_are_refused_as_servers() {
    let master = RedisServer::start().await;
    let port = master.port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]).await;
    let told = doctor(&replica.address());
    assert!(told.contains("is a replica") && told.contains("name the master"), "{told}");
    let sentinel = RedisServer::sentinel(&format!("sentinel monitor main 127.0.0.1 {port} 1\n")).await;
    let told = doctor(&sentinel.address());
    assert!(told.contains("this is a sentinel") && told.contains("redis+sentinel://"), "{told}");
    let of_sentinel = |name: &str| format!("redis+sentinel://127.0.0.1:{}/{name}", sentinel.port());
    let told = doctor(&of_sentinel("main"));
    assert!(told.contains(&format!("the sentinels' master is 127.0.0.1:{port}")), "{told}");
    assert!(told.contains("fewer than three sentinels"), "{told}");
    let told = doctor(&of_sentinel("mine"));
    assert!(told.contains("it knows no master `mine`"), "{told}");
}

/// What a master that was made a replica says is not believed, on connections that stand, either; nor is it
/// when it is a master again, the same process with data from before the last write.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_master_that_becomes_a_replica_is_given_up() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let port = redis.port().to_string();
    let other = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]).await;
    let reaches = async |condition: &dyn Fn() -> bool| {
        for _ in 0..6_000 {
            if condition() {
                return;
            }
            pause(10).await;
        }
        panic!("not within a minute");
    };
    let follows =
        |server: &RedisServer| server.cli(&["info", "replication"]).contains("master_link_status:up");
    reaches(&|| follows(&other)).await;
    let store = store(&app, &redis.address()).await;
    settle(std::slice::from_ref(&store)).await;
    let (owner, keys) = sessions(&app, 1).await;
    assert_eq!(version(&store, keys[0]).await, 0);
    reaches(&|| other.cli(&["keys", "c1:*"]).contains("c1:")).await;
    // It keeps what it has, and gets nothing of the write.
    assert_eq!(other.cli(&["replicaof", "no", "one"]), "OK");
    assert!(session::rename(&store, owner, keys[0], Some("1")).await.expect("the write succeeds"));
    assert_eq!(version(&store, keys[0]).await, 1);
    let old = redis.cli(&["keys", "c1:*"]);
    redis.cli(&["replicaof", "127.0.0.1", &other.port().to_string()]);
    app.sql(&format!("update user_sessions set name = '7' where id = '{}'", keys[0])).await;
    assert_eq!(
        version(&store, keys[0]).await,
        7,
        "it has an old value ({old}), and nobody may tell it of another"
    );
    reaches(&|| !store.cache().has_lease()).await;
    reaches(&|| follows(&redis)).await;
    assert_eq!(redis.cli(&["replicaof", "no", "one"]), "OK");
    settle(std::slice::from_ref(&store)).await;
    assert_eq!(version(&store, keys[0]).await, 7);
}

/// A master that has to have replicas and has none takes no writes, so what it says may be old.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_master_without_the_replicas_it_needs_is_not_used() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start().await;
    let store = store(&app, &redis.address()).await;
    settle(std::slice::from_ref(&store)).await;
    let (_, keys) = sessions(&app, 1).await;
    assert_eq!(version(&store, keys[0]).await, 0);
    pause(100).await;
    assert_eq!(redis.cli(&["config", "set", "min-replicas-to-write", "1"]), "OK");
    app.sql(&format!("update user_sessions set name = '7' where id = '{}'", keys[0])).await;
    assert_eq!(version(&store, keys[0]).await, 7);
}

/// The rights that docs/operations.md lists, word by word.
fn documented_rights() -> Vec<&'static str> {
    let text = include_str!("../../../docs/operations.md");
    let start = text.find("| of the account | rights |").expect("the table is in docs/operations.md");
    let table = &text[start..start + text[start..].find("\n\n").expect("its end")];
    table.split('`').skip(1).step_by(2).flat_map(str::split_whitespace).collect()
}

fn set_user(redis: &RedisServer, rights: &[&str]) {
    let command = ["acl", "setuser", "xp", "reset"];
    let command: Vec<&str> = command.into_iter().chain(rights.iter().copied()).collect();
    assert_eq!(redis.cli(&command), "OK", "{command:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_account_with_the_documented_rights_suffices() {
    let url = db::own_postgres().await;
    let app = TestApp::over(&url).await;
    let redis = RedisServer::start_with(&["--requirepass", "of-the-operator"]).await;
    let rights = documented_rights();
    set_user(&redis, &rights);
    let password = rights.iter().find_map(|word| word.strip_prefix('>')).expect("a password");
    let address = format!("redis://xp:{password}@127.0.0.1:{}", redis.port());
    let stores = [store(&app, &address).await, store(&app, &address).await];
    settle(&stores).await;
    writes_are_read(&app, &stores).await;
    stores[0].cache().purge().await.expect("it may");
    let handle = || Redis::new(&address.parse().expect("a URL"), &mut Registry::default());
    let relayed = app.another_store().await.with_relay(&handle(), "xp");
    relayed.shared_kv().put("words", "said", Duration::from_mins(1)).await;
    assert_eq!(relayed.shared_kv().get("words", Duration::from_mins(1)).await.as_deref(), Some("said"));
    // Whole servers, which warm up, tell each other of events and are looked at.
    let environment = [("REDIS_URL", address.as_str()), ("XP_AUTH_SIGN_UP", "true")];
    let servers = [0, 1].map(|_| Server::start(&url, &environment));
    let token = process::mint(&url, "collector@example.com", &environment);
    let (_, keys) = sessions(&app, 1).await;
    for (number, server) in servers.iter().enumerate() {
        let name = format!("{}", number + 1);
        let rename = "mutation($i: RenameSessionInput!) { renameSession(input: $i) { session { name } } }";
        let input = json!({ "i": { "id": keys[0].to_string(), "name": name } });
        let answer = process::ask(&server.address, &token, rename, &input).expect("an answer");
        assert_eq!(answer["data"]["renameSession"]["session"]["name"], name, "{answer}");
    }
    for arguments in [["cache", "stats"], ["cache", "purge"]] {
        let done = process::xp(&url).envs(environment).args(arguments).output().expect("it runs");
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    let told = doctor(&address);
    assert!(told.contains("answers (version"), "{told}");
    pause(500).await;
    assert_eq!(redis.cli(&["acl", "log"]), "", "nothing was refused");
    for server in &servers {
        assert!(!server.log().contains("Redis refused"), "{}", server.log());
    }
    // Each of the rights is needed.
    for right in rights.iter().filter(|word| word.starts_with(['+', '~', '&'])) {
        let others: Vec<&str> = rights.iter().copied().filter(|word| word != right).collect();
        set_user(&redis, &others);
        let missing = match handle().describe().await {
            Ok(_) => {
                let of_cache = cache::missing_rights(&handle(), "xp").await.expect("it answers");
                [of_cache, events::missing_rights(&handle(), "xp").await.expect("it answers")].concat()
            }
            Err(reason) => vec![reason],
        };
        assert!(!missing.is_empty(), "without {right} nothing is missing");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_missing_right_is_named_and_requests_are_served() {
    let [_, app] = TestApp::both_own().await;
    let redis = RedisServer::start_with(&["--requirepass", "of-the-operator"]).await;
    let rights = documented_rights();
    let password = rights.iter().find_map(|word| word.strip_prefix('>')).expect("a password");
    let address = format!("redis://xp:{password}@127.0.0.1:{}", redis.port());
    for (right, command) in [("+xread", "xread"), ("+eval", "eval"), ("+info", "info")] {
        let others: Vec<&str> = rights.iter().copied().filter(|word| *word != right).collect();
        set_user(&redis, &others);
        let told = doctor(&address);
        assert!(told.contains(&format!("'{command}' command")), "without {right}: {told}");
        let stores = [store(&app, &address).await, store(&app, &address).await];
        writes_are_read(&app, &stores).await;
    }
    let others: Vec<&str> = rights.iter().copied().filter(|word| *word != "+xread").collect();
    set_user(&redis, &others);
    let log = log_of_server(&db::own_sqlite().await, &address, "xread");
    assert!(log.contains("Redis refused a command") && log.contains("'xread' command"), "{log}");
    let told = doctor(&format!("redis://xp:wrong@127.0.0.1:{}", redis.port()));
    assert!(told.contains("authentication failed"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tls_is_used_with_a_private_authority_and_certificates_are_checked() {
    let [_, app] = TestApp::both_own().await;
    let certificates = Certificates::new();
    let file = |name: &str| certificates.path(name).display().to_string();
    let redis = RedisServer::with_tls(&certificates, &["--tls-auth-clients", "yes"]).await;
    let own = format!("ssl_certfile={}&ssl_keyfile={}", file("client.pem"), file("client.key"));
    let at = |host: &str, parameters: &str| format!("rediss://{host}:{}?{parameters}", redis.port());
    let good = at("127.0.0.1", &format!("ssl_ca_certs={}&{own}", file("ca.pem")));
    let stores = [store(&app, &good).await, store(&app, &good).await];
    settle(&stores).await;
    writes_are_read(&app, &stores).await;
    let told = doctor(&good);
    assert!(told.contains("with TLS") && told.contains("answers"), "{told}");
    let unknown = at("127.0.0.1", &own);
    let foreign = at("127.0.0.1", &format!("ssl_ca_certs={}&{own}", file("other.pem")));
    let wrong_name = at("localhost", &format!("ssl_ca_certs={}&{own}", file("ca.pem")));
    let no_client = at("127.0.0.1", &format!("ssl_ca_certs={}", file("ca.pem")));
    let plain = format!("redis://127.0.0.1:{}", redis.port());
    for (address, expected) in [
        (&unknown, "invalid peer certificate: UnknownIssuer"),
        (&foreign, "invalid peer certificate"),
        (&wrong_name, "not valid for name"),
        (&no_client, "certificate of the client"),
        (&plain, "is not used"),
    ] {
        let told = doctor(address);
        assert!(told.contains("is not used") && told.contains(expected), "{address}: {told}");
    }
    let log = log_of_server(&db::own_sqlite().await, &foreign, "invalid peer certificate");
    assert!(log.contains("Redis is not used until it answers again"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sentinels_have_tls_and_accounts_of_their_own() {
    let [_, app] = TestApp::both_own().await;
    let certificates = Certificates::new();
    let ca = certificates.path("ca.pem").display().to_string();
    let options = ["--tls-auth-clients", "no", "--requirepass", "of-redis"];
    let redis = RedisServer::with_tls(&certificates, &options).await;
    let lines = format!(
        "tls-auth-clients no\nrequirepass of-sentinels\nsentinel monitor main 127.0.0.1 {} 1\n\
         sentinel auth-pass main of-redis\nuser watcher on >seen -@all +sentinel|get-master-addr-by-name\n",
        redis.port()
    );
    let sentinel = RedisServer::sentinel_with_tls(&certificates, &lines).await;
    let at = |account: &str| {
        format!("rediss+sentinel://:of-redis@127.0.0.1:{}/main?ssl_ca_certs={ca}&{account}", sentinel.port())
    };
    let good = at("sentinel_username=watcher&sentinel_password=seen");
    let stores = [store(&app, &good).await, store(&app, &good).await];
    settle(&stores).await;
    writes_are_read(&app, &stores).await;
    let told = doctor(&good);
    assert!(told.contains("with TLS") && told.contains("the sentinels' master is 127.0.0.1"), "{told}");
    let told = doctor(&at("sentinel_password=of-sentinels"));
    assert!(told.contains("answers"), "{told}");
    let told = doctor(&at(""));
    assert!(
        told.contains("a majority of the sentinels names no master") && told.contains("NOAUTH"),
        "{told}"
    );
    let told = doctor(&at("sentinel_username=watcher&sentinel_password=guessed"));
    assert!(told.contains("authentication failed"), "{told}");
}

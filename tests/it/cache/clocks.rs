//! Instances whose clocks are two hours apart, and jump: nothing that is read is older than a write that was answered
//! before, since no clock is asked. The real program, with the clock that `libfaketime` gives it.

use serde_json::{Value, json};

use super::sessions;
use crate::harness::{
    Clock, RedisServer, TestApp, db,
    process::{self, Server},
};

const TURNS: u64 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clocks_that_are_hours_apart_and_jump_make_nothing_stale() {
    let url = db::own_postgres().await;
    let app = TestApp::over(&url).await;
    let redis = RedisServer::start().await;
    let (_, keys) = sessions(&app, 4).await;
    let address = redis.address();
    let clocks = [Clock::new("ahead", "+3600"), Clock::new("behind", "-3600")];
    let settings = |clock: &Clock| {
        let mut settings = clock.environment();
        settings.push(("REDIS_URL", address.clone()));
        settings
    };
    let (ahead, behind) = (settings(&clocks[0]), settings(&clocks[1]));
    let starting = tokio::task::spawn_blocking(move || {
        let [ahead, behind] = [&ahead, &behind].map(|settings| {
            settings.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<(&str, &str)>>()
        });
        let token = process::mint(&url, "collector@example.com", &behind);
        (token, [ahead, behind].map(|settings| Server::start(&url, &settings)))
    });
    let (token, servers) = starting.await.expect("no panic");
    let ask = async |instance: usize, query: String| -> Value {
        let (address, token) = (servers[instance].address.clone(), token.clone());
        let asking = tokio::task::spawn_blocking(move || process::ask(&address, &token, &query, &json!({})));
        asking.await.expect("no panic").expect("it answers")
    };
    for turn in 1..=TURNS {
        if turn == TURNS / 2 {
            clocks[0].set("-3600");
            clocks[1].set("+3600");
        }
        let key = keys[fastrand::usize(..keys.len())];
        let rename = format!(
            "mutation {{ renameSession(input: {{id: \"{key}\", name: \"{turn}\"}}) {{ session {{ name }} }} }}"
        );
        let renamed = ask(turn as usize % 2, rename).await;
        assert_eq!(renamed["data"]["renameSession"]["session"]["name"], turn.to_string(), "{renamed}");
        for instance in [0, 1] {
            let read = ask(instance, format!("{{ session(id: \"{key}\") {{ name }} }}")).await;
            assert_eq!(read["data"]["session"]["name"], turn.to_string(), "node {instance}: {read}");
        }
    }
}

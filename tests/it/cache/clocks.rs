//! Instances whose clocks are two hours apart, and jump: nothing that is read is older than a write that was answered
//! before, since no clock is asked. The real program, with the clock that `libfaketime` gives it.

use std::{env, fs, path::PathBuf};

use serde_json::{Value, json};

use super::sessions;
use crate::harness::{
    RedisServer, TestApp, db,
    process::{self, Server},
};

const TURNS: u64 = 60;

/// Where the library is: where `./test` has found it, or where Debian puts it.
fn faketime() -> String {
    if let Ok(path) = env::var("XP_FAKETIME") {
        return path;
    }
    let folders = fs::read_dir("/usr/lib").expect("a Unix").filter_map(Result::ok);
    let found =
        folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    let found = found.expect("libfaketime is installed (Debian: apt-get install libfaketime)");
    found.to_str().expect("a path").to_owned()
}

/// An instance's clock: a file that says how many seconds it is off.
struct Clock(PathBuf);

impl Clock {
    fn new(name: &str, offset: &str) -> Self {
        let clock = Self(env::temp_dir().join(format!("xp-clock-{}-{name}", std::process::id())));
        clock.set(offset);
        clock
    }

    fn set(&self, offset: &str) {
        fs::write(&self.0, offset).expect("the temporary directory can be written");
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clocks_that_are_hours_apart_and_jump_make_nothing_stale() {
    let url = db::own_postgres().await;
    let app = TestApp::over(&url).await;
    let redis = RedisServer::start().await;
    let (_, keys) = sessions(&app, 4).await;
    let (library, address) = (faketime(), redis.address());
    let clocks = [Clock::new("ahead", "+3600"), Clock::new("behind", "-3600")];
    let settings = |clock: &Clock| {
        let file = clock.0.to_str().expect("a path").to_owned();
        // The other clock, that never jumps, is left alone: no operator can set it.
        let fixed = [("FAKETIME_NO_CACHE", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        let fixed = fixed.map(|(name, value)| (name, value.to_owned()));
        let own = [
            ("LD_PRELOAD", library.clone()),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("REDIS_URL", address.clone()),
        ];
        fixed.into_iter().chain(own).collect::<Vec<_>>()
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

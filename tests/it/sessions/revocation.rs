//! What is taken back is refused on every node: sessions and keys, with news of it and without. Not here: the
//! same between processes (`cluster`).

use entities::CacheOptions;
use prometheus_client::registry::Registry;

use super::*;
use crate::harness::RedisServer;

/// Two instances on one database. Without news from the other, an instance asks the database; with news it
/// asks at once.
#[tokio::test]
async fn what_one_node_revokes_every_node_refuses() {
    for url in [db::own_sqlite().await, db::own_postgres().await] {
        let (here, there) = (TestApp::over(&url).await, TestApp::over(&url).await);
        for app in [&here, &there] {
            app.graph.access().open().await.expect("keys are made, or found");
        }
        let following = tokio::spawn(there.graph.access().follow());
        let tokens = sign_up(&here, "ann@example.com").await;
        let token = tokens["accessToken"].as_str().expect("a token");
        assert!(there.bearing(token).is_ok(), "made there with the same key; remembered from now on");
        bearing(&here, &tokens).ask("mutation { signOut { session { id } } }").await;
        assert!(here.bearing(token).is_err(), "at once where it was done");
        wait_until(|| there.bearing(token).is_err()).await;

        // The news of the other instance, as a message brings it.
        let mut news = here.store.events().subscribe();
        let tokens = sign_in(&here.anonymous(), "ann@example.com", PASSWORD).await;
        let token = tokens["accessToken"].as_str().expect("a token");
        assert!(there.bearing(token).is_ok());
        bearing(&here, &tokens).ask("mutation { signOut { session { id } } }").await;
        while let Ok(changes) = news.try_recv() {
            there.store.events().publish(changes);
        }
        wait_until(|| there.bearing(token).is_err()).await;

        // An instance that starts later knows as well.
        let late = TestApp::over(&url).await;
        late.graph.access().open().await.expect("keys are found");
        assert_eq!(late.bearing(token).err(), Some(InvalidToken("revoked")));
        following.abort();
    }
}

/// With Redis the news alone are enough: these instances ask the database once an hour.
#[tokio::test]
async fn what_one_node_revokes_is_heard_over_redis() {
    let (url, redis) = (db::own_postgres().await, RedisServer::start().await);
    let first = TestApp::over(&url).await;
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let store = first.another_store().await.with_relay(&redis.handle(), "test");
        nodes.push(first.that_never_polls(store));
    }
    let mut heard = nodes[1].store.events().subscribe();
    let following = follow(&nodes).await;
    // The other instance listens once it has heard that it may have missed something.
    heard.recv().await.expect("the relay says so when it begins");
    let tokens = sign_up(&nodes[0], "ann@example.com").await;
    println!("Redis well: {:?}", revoked_everywhere(&nodes, &tokens, "well").await);
    for task in following {
        task.abort();
    }
}

/// Without Redis, and while it hangs, the database is asked.
#[tokio::test]
async fn what_one_node_revokes_is_known_without_redis() {
    let (url, mut redis) = (db::own_postgres().await, RedisServer::start().await);
    let first = TestApp::over(&url).await;
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let (config, registry) = (CacheOptions::default(), &mut Registry::default());
        let store = first.another_store().await.with_relay(&redis.handle(), "test");
        nodes.push(first.over_store(store.with_cache(&config, Some(redis.handle()), registry)));
    }
    let following = follow(&nodes).await;
    let tokens = sign_up(&nodes[0], "ann@example.com").await;
    redis.freeze();
    println!("Redis frozen: {:?}", revoked_everywhere(&nodes, &tokens, "frozen").await);
    redis.thaw();
    redis.kill();
    let tokens = sign_in(&nodes[0].anonymous(), "ann@example.com", PASSWORD).await;
    println!("Redis killed: {:?}", revoked_everywhere(&nodes, &tokens, "killed").await);
    for task in following {
        task.abort();
    }
}

async fn follow(nodes: &[TestApp]) -> Vec<tokio::task::JoinHandle<()>> {
    for node in nodes {
        node.graph.access().open().await.expect("keys are made, or found");
    }
    nodes.iter().map(|node| tokio::spawn(node.graph.access().follow())).collect()
}

/// Signs out on the first instance; the second one gets to know, after so long.
async fn revoked_everywhere(nodes: &[TestApp], tokens: &Value, redis: &str) -> Duration {
    let token = tokens["accessToken"].as_str().expect("a token");
    assert!(nodes[1].bearing(token).is_ok(), "Redis {redis}");
    let done = std::time::Instant::now();
    bearing(&nodes[0], tokens).ask("mutation { signOut { session { id } } }").await;
    assert!(nodes[0].bearing(token).is_err(), "at once where it was done; Redis {redis}");
    wait_until(|| nodes[1].bearing(token).is_err()).await;
    let took = done.elapsed();
    assert_eq!(code(&refresh(&nodes[1], &tokens["refreshToken"]).await), "EXPIRED", "Redis {redis}");
    took
}

/// That a key went is read once; that the keys could not be read must not leave it good until somebody looks again.
#[tokio::test]
async fn keys_that_cannot_be_read_are_read_the_next_time() {
    for url in [db::own_sqlite().await, db::own_postgres().await] {
        let (here, there) = (TestApp::over(&url).await, TestApp::over(&url).await);
        for app in [&here, &there] {
            app.graph.access().open().await.expect("keys are made, or found");
        }
        let tokens = sign_up(&here, "ann@example.com").await;
        let token = tokens["accessToken"].as_str().expect("a token");
        let secret = entities::auth::secret::Secret::new("of the tests");
        let keys = entities::auth::key::load(here.store.database(), here.store.revocations(), &secret)
            .await
            .expect("keys");
        assert!(
            entities::auth::key::revoke(
                here.store.database(),
                here.store.revocations(),
                &secret,
                &keys[0].kid
            )
            .await
            .expect("revoked")
        );
        here.sql("alter table signing_keys rename to away").await;
        let following = tokio::spawn(there.graph.access().follow());
        tokio::time::sleep(3 * entities::auth::revocation::POLL).await;
        assert!(there.bearing(token).is_ok(), "it cannot know yet");
        here.sql("alter table away rename to signing_keys").await;
        wait_until(|| there.bearing(token).is_err()).await;
        following.abort();
    }
}

/// By the clock alone: a week old, the key that signs gets a successor, which signs when every gateway knows
/// it; the old one stays good for as long as any token, and is gone then.
#[tokio::test]
async fn a_key_is_followed_by_the_next_after_a_week_and_retires() {
    for app in apps().await {
        let secret = entities::auth::secret::Secret::new("of the tests");
        let states = async || {
            let keys = entities::auth::key::load(app.store.database(), app.store.revocations(), &secret)
                .await
                .expect("keys");
            keys.iter().map(|key| (key.kid.clone(), key.state.as_str())).collect::<Vec<_>>()
        };
        let signs_since = async |kid: &str, seconds: u64| {
            let since = (clock::now() - Duration::from_secs(seconds)).to_rfc3339();
            app.sql(&format!("update signing_keys set signs_from = '{since}' where kid = '{kid}'")).await;
        };
        let first = states().await[0].0.clone();
        signs_since(&first, 7 * 86_400 - 60).await;
        assert_eq!(states().await, [(first.clone(), "active")], "not yet");
        signs_since(&first, 7 * 86_400 + 60).await;
        let second = states().await[0].0.clone();
        let both = [(second.clone(), "next"), (first.clone(), "active")];
        assert_eq!(
            (states().await, states().await),
            (both.to_vec(), both.to_vec()),
            "one successor is enough"
        );
        signs_since(&second, 1).await;
        assert_eq!(states().await, [(second.clone(), "active"), (first.clone(), "retired")]);
        signs_since(&second, 86_400 + 240).await;
        assert_eq!(states().await.len(), 2, "a token of a day may still be good");
        signs_since(&second, 86_400 + 360).await;
        assert_eq!(states().await, [(second.clone(), "active")]);
    }
}

#[tokio::test]
async fn a_revoked_key_is_refused_on_every_instance() {
    for url in [db::own_sqlite().await, db::own_postgres().await] {
        let (here, there) = (TestApp::over(&url).await, TestApp::over(&url).await);
        for app in [&here, &there] {
            app.graph.access().open().await.expect("keys are made, or found");
        }
        let following =
            [tokio::spawn(here.graph.access().follow()), tokio::spawn(there.graph.access().follow())];
        let secret = entities::auth::secret::Secret::new("of the tests");
        let tokens = sign_up(&here, "ann@example.com").await;
        let token = tokens["accessToken"].as_str().expect("a token");
        assert!(there.bearing(token).is_ok());
        let keys = entities::auth::key::load(here.store.database(), here.store.revocations(), &secret)
            .await
            .expect("keys");
        let next = entities::auth::key::rotate(here.store.database(), here.store.revocations(), &secret)
            .await
            .expect("rotated");
        let states = entities::auth::key::load(here.store.database(), here.store.revocations(), &secret)
            .await
            .expect("keys");
        let states: Vec<_> = states.iter().map(|key| (key.kid.clone(), key.state.as_str())).collect();
        assert_eq!(states, [(next.clone(), "next"), (keys[0].kid.clone(), "active")]);
        wait_until(|| there.graph.access().tokens().published().contains(&next)).await;
        assert!(there.bearing(token).is_ok(), "the old key is still good");

        assert!(
            entities::auth::key::revoke(
                here.store.database(),
                here.store.revocations(),
                &secret,
                &keys[0].kid
            )
            .await
            .expect("revoked")
        );
        assert!(
            !entities::auth::key::revoke(
                here.store.database(),
                here.store.revocations(),
                &secret,
                &keys[0].kid
            )
            .await
            .expect("once")
        );
        wait_until(|| there.bearing(token).is_err() && here.bearing(token).is_err()).await;
        let tokens = refresh(&here, &tokens["refreshToken"]).await;
        assert!(bearing(&here, &tokens).ask("{ me { id } }").await["me"].is_object(), "the session goes on");
        let foreign = entities::auth::secret::Secret::new("another");
        let refused = entities::auth::key::load(here.store.database(), here.store.revocations(), &foreign)
            .await
            .err()
            .expect("sealed")
            .to_string();
        assert!(refused.contains("sealed with another secret"), "{refused}");
        for task in following {
            task.abort();
        }
    }
}

/// Waits as long as the promise without Redis allows: five seconds, and as much for a busy machine.
async fn wait_until(holds: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within ten seconds");
}

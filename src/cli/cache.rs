//! `xp cache stats|purge`: the cache between instances, as the operator sees it. Not here: an instance's own
//! figures, which are in its `/metrics`.

use entities::redis::{Redis, Unavailable};
use prometheus_client::registry::Registry;
use serde_json::json;
use xp::config::Config;

use super::{Cache, Failure, say};

pub(super) async fn run(config: &Config, action: Cache, as_json: bool) -> Result<(), Failure> {
    let url = config.redis.url.as_ref().ok_or_else(|| {
        Failure::Usage(
            "redis.url is not set\n  why:   without Redis each server keeps its cache in its own process, \
             where no command reaches it\n  fix:   set REDIS_URL; without Redis, look at the server's \
             /metrics (cache_requests_total), or restart it for an empty cache"
                .into(),
        )
    })?;
    let (redis, namespace) = (Redis::new(url, &mut Registry::default()), &config.redis.namespace);
    let failed = |Unavailable| {
        Failure::Failed(format!(
            "Redis does not answer\n  where: {url}\n  fix:   start it, or mend REDIS_URL"
        ))
    };
    match action {
        Cache::Stats => {
            let stats = entities::cache::stats(&redis, namespace).await.map_err(failed)?;
            if as_json { say(&json!(stats).to_string()) } else { say(&stats.to_string()) }
        }
        Cache::Purge => {
            entities::cache::purge(&redis, namespace).await.map_err(failed)?;
            if as_json {
                say(&json!({ "purged": namespace }).to_string())
            } else {
                say("purged: every node reads the database again")
            }
        }
    }
}

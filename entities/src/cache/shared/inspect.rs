//! The cache between instances as an operator sees it: what is in it, and whether an account of Redis may do
//! what the cache does.

use std::fmt;

use redis::{Cmd, pipe};

use super::SharedCache;
use crate::redis::{Redis, Unavailable, WRITE_TIMEOUT};

/// What the cache between instances looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SharedCacheStats {
    /// Which table; 0 is none: nothing is cached.
    pub epoch: u64,
    /// Invalidations so far.
    pub sequence: u64,
    /// Invalidations in the log.
    pub log_length: u64,
    /// Values, of all namespaces of this database.
    pub keys: u64,
    /// Memory that Redis uses, bytes.
    pub memory_bytes: u64,
}

impl fmt::Display for SharedCacheStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, sequence, log_length, keys, memory_bytes } = self;
        let mebibytes = memory_bytes >> 20;
        write!(
            f,
            "epoch {epoch}, {sequence} invalidations ({log_length} in the log), {keys} keys, {mebibytes} MiB"
        )
    }
}

/// Looks at the cache between instances.
///
/// # Errors
/// `Unavailable` when Redis does not answer.
pub async fn stats(redis: &Redis, namespace: &str) -> Result<SharedCacheStats, Unavailable> {
    let shared = SharedCache::new(redis.clone(), namespace);
    let mut pipeline = pipe();
    pipeline
        .cmd("BITFIELD_RO")
        .arg(&shared.table_key)
        .arg("GET")
        .arg("i64")
        .arg("#0")
        .arg("GET")
        .arg("i64")
        .arg("#1");
    pipeline.cmd("XLEN").arg(&shared.log_key).cmd("DBSIZE").cmd("INFO").arg("memory");
    let answer = redis.pipeline("stats", WRITE_TIMEOUT, &pipeline).await?;
    let ((epoch, sequence), log_length, keys, info): ((u64, u64), u64, u64, String) = answer;
    let memory = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    let memory_bytes = memory.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or_default();
    Ok(SharedCacheStats { epoch, sequence, log_length, keys, memory_bytes })
}

/// Nothing that is cached now is used any more, on any instance.
///
/// # Errors
/// `Unavailable` when Redis does not answer: nothing has changed then.
pub async fn purge(redis: &Redis, namespace: &str) -> Result<(), Unavailable> {
    SharedCache::new(redis.clone(), namespace).delete().await
}

/// What the account may not do that the cache and what is kept beside it do, in Redis's words. Nothing is
/// changed by asking. Events have rights of their own (`events`).
///
/// # Errors
/// `Unavailable` when Redis does not answer.
pub async fn missing_rights(redis: &Redis, namespace: &str) -> Result<Vec<String>, Unavailable> {
    let shared = SharedCache::new(redis.clone(), namespace);
    let (table, log, id) = (&*shared.table_key, &*shared.log_key, &*shared.id_key);
    let (popular, value) = (shared.popular_keys_key(), format!("c1:{namespace}:doctor"));
    let place = &*shared.place_key;
    let (popular, value, text) = (&*popular, &*value, &*format!("{namespace}:doctor"));
    // Rights are looked at before arguments: of those that write, Redis refuses the arguments then.
    let commands: [&[&str]; 20] = [
        &["INFO", "server"],
        &["EVAL", "return 1", "2", table, log],
        &["BITFIELD", table, "GET", "i64", "#0"],
        &["BITFIELD_RO", table, "GET", "i64", "#0"],
        &["GET", id],
        &["SET", id, "", "EX", "none"],
        &["GET", place],
        &["SET", place, "", "EX", "none"],
        &["DEL", value],
        &["XADD", log, "0-0", "s", ""],
        &["XREAD", "COUNT", "1", "STREAMS", log, "9007199254740992-0"],
        &["XLEN", log],
        &["DBSIZE"],
        &["MGET", value],
        &["SET", value, "", "PX", "none"],
        &["GETEX", text, "EX", "1"],
        &["ZINCRBY", popular, "none", "m"],
        &["ZREMRANGEBYRANK", popular, "none", "none"],
        &["ZREVRANGE", popular, "0", "0"],
        &["EXPIRE", popular, "none"],
    ];
    let commands = commands.iter().map(|parts| {
        let mut command = Cmd::new();
        for part in *parts {
            command.arg(part);
        }
        command
    });
    let mut commands: Vec<Cmd> = commands.collect();
    let mut union = redis::cmd("ZUNIONSTORE");
    union.arg(popular).arg(1).arg(popular).arg("WEIGHTS").arg("none");
    commands.push(union);
    redis.refused_rights(&commands).await
}

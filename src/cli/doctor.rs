//! `xp doctor`: one line per check, each with what to do about it. Not here: `/readyz`, which only says yes or no.

use std::{borrow::Cow, time::Duration};

use axum::http::Uri;
use entities::{
    ReplicaState, Store,
    cache::instance::InstanceCounts,
    clock,
    redis::{Redis, ServerInfo},
};
use futures_util::FutureExt as _;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::net::TcpStream;
use xp::config::{Config, layers::Problem};

use super::{Failure, chain, database, say};

/// How long a collector, a standby or Hive may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Ok,
    Warn,
    Fail,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

struct Check {
    name: &'static str,
    level: Level,
    text: String,
    fix: Cow<'static, str>,
}

impl Check {
    fn ok(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, level: Level::Ok, text: text.into(), fix: Cow::Borrowed("") }
    }

    fn bad(
        name: &'static str,
        level: Level,
        text: impl Into<String>,
        fix: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { name, level, text: text.into(), fix: fix.into() }
    }
}

/// Runs all checks; fails when one of them does.
pub(super) async fn doctor(config: &Config, as_json: bool) -> Result<(), Failure> {
    let mut checks = vec![
        Check::ok("version", format!("xp {}", env!("CARGO_PKG_VERSION"))),
        Check::ok("configuration", "valid"),
        secret(config),
    ];
    checks.extend(cautions(config));
    checks.extend(store(config).await);
    checks.push(redis(config).await);
    checks.push(collector(config).await);
    checks.push(hive(config).await);
    let failed = checks.iter().any(|check| check.level == Level::Fail);
    if as_json {
        let checks: Vec<_> = checks
            .iter()
            .map(|check| {
                let Check { name, text, fix, level } = check;
                json!({ "name": name, "level": level.as_str(), "text": text, "fix": fix })
            })
            .collect();
        say(&json!(checks).to_string())?;
    } else {
        let lines = checks.iter().map(|check| {
            let fix =
                if check.fix.is_empty() { String::new() } else { format!("\n        fix: {}", check.fix) };
            format!("{:4}  {}: {}{fix}", check.level.as_str(), check.name, check.text)
        });
        say(&lines.collect::<Vec<_>>().join("\n"))?;
    }
    if failed { Err(Failure::Silent) } else { Ok(()) }
}

/// What is allowed and seldom meant; and for whose word on addresses the server takes.
fn cautions(config: &Config) -> Vec<Check> {
    let found = config.cautions().into_iter();
    let mut checks: Vec<_> = found
        .map(|Problem { what, why, fix, .. }| {
            Check::bad("settings", Level::Warn, format!("{what}: {why}"), fix)
        })
        .collect();
    if config.http.trusted_proxies.is_empty()
        && checks.iter().all(|check| !check.text.contains("trusted_proxies"))
    {
        let text = "http.trusted_proxies is empty: right where clients connect directly; behind a proxy all \
                    of them count as one address, and the server's log says so";
        checks.push(Check::ok("settings", text));
    }
    checks
}

fn secret(config: &Config) -> Check {
    const FIX: &str = "openssl rand -base64 32, and set XP_AUTH_SECRET to it";
    match &config.auth.secret {
        None => Check::bad("secret", Level::Warn, "auth.secret is not set; `xp serve` needs it", FIX),
        Some(_) => Check::ok("secret", "auth.secret is set"),
    }
}

async fn store(config: &Config) -> Vec<Check> {
    let Some(url) = &config.database.url else {
        let text = "database.url is not set; `xp dev` makes its own, `xp serve` needs it";
        return vec![Check::bad("database", Level::Warn, text, "set DATABASE_URL")];
    };
    let store = match database::connect(config, true, &mut Registry::default()).await {
        Ok(store) => store,
        Err(failure) => {
            let fix = "start the database, or mend DATABASE_URL";
            return vec![Check::bad("database", Level::Fail, failure.to_string(), fix)];
        }
    };
    let looked = database::while_it_answers(&store, look_into(config, &store).map(Ok)).await;
    store.close().await;
    let reachable = Check::ok("database", format!("{url} answers"));
    match looked {
        Ok(checks) => std::iter::once(reachable).chain(checks).collect(),
        Err(failure) => vec![Check::bad("database", Level::Fail, failure.to_string(), "")],
    }
}

/// What is in the database.
async fn look_into(config: &Config, store: &Store) -> Vec<Check> {
    let migrations = match database::pending(store).await {
        Ok(0) => Check::ok("migrations", "at head"),
        Ok(pending) => Check::bad("migrations", Level::Fail, format!("{pending} pending"), "xp migrate up"),
        Err(failure) => Check::bad(
            "migrations",
            Level::Fail,
            failure.to_string(),
            "check the account's rights on the database",
        ),
    };
    let is_at_head = migrations.level == Level::Ok;
    let mut checks = vec![migrations];
    if config.auth.secret.is_some() && is_at_head {
        checks.push(match database::access(config, store).await {
            Ok(_) => Check::ok("token keys", "sealed with this secret"),
            Err(failure) => Check::bad("token keys", Level::Fail, failure.to_string(), ""),
        });
    }
    if is_at_head {
        checks.push(servers(config, store).await);
        checks.extend(replicas(store).await);
        checks.extend(partitions(config, store).await);
    }
    checks
}

/// The months to come have partitions; nothing to say of SQLite, which has none.
async fn partitions(config: &Config, store: &Store) -> Option<Check> {
    const FIX: &str = "xp migrate up; the log of a running server says why it could not make them";
    let bad = |text: String| Check::bad("partitions", Level::Warn, text, FIX);
    let status = match migration::partition_status(store.connection(), clock::now()).await {
        Ok(status) => status,
        Err(error) => return Some(bad(format!("cannot be looked at: {error}"))),
    };
    let months_ahead = status.iter().map(|status| status.months_ahead).min()?;
    let default_rows: u64 = status.iter().map(|status| status.default_rows).sum();
    let text = format!("{months_ahead} months ahead are ready, {default_rows} rows lie in no month");
    let wanted = i32::try_from(config.partitions.months_ahead).unwrap_or(i32::MAX);
    Some(match months_ahead {
        -1 => bad(format!("this month has none, {default_rows} rows lie in no month")),
        ready if ready < wanted => bad(format!("{text}; {wanted} are to be (partitions.months_ahead)")),
        _ => Check::ok("partitions", text),
    })
}

/// Each standby answers, is one, and follows.
async fn replicas(store: &Store) -> Vec<Check> {
    let looked = store.database().inspect_replicas(CONNECT_LIMIT).await;
    let check = |(name, state): (String, Result<ReplicaState, entities::Error>)| {
        let bad = |text: String, fix| Check::bad("replicas", Level::Warn, text, fix);
        match state {
            Ok(ReplicaState::BytesBehind(behind)) => {
                Check::ok("replicas", format!("{name} is a standby, {behind} bytes behind"))
            }
            Ok(ReplicaState::NotStandby) => bad(
                format!("{name} is not a standby: it takes writes of its own, and nothing is read from it"),
                "let it stream from the primary, or take it out of DATABASE_REPLICA_URLS",
            ),
            Err(error) => bad(
                format!("{name} cannot be asked, and nothing is read from it: {}", chain(&error)),
                "start it, or take it out of DATABASE_REPLICA_URLS",
            ),
        }
    };
    looked.into_iter().map(check).collect()
}

/// Without Redis there is one server, and with it all use the same.
async fn servers(config: &Config, store: &Store) -> Check {
    const FIX: &str = "give all servers the same REDIS_URL and redis.namespace, or run one";
    let bad = |text: String| Check::bad("servers", Level::Warn, text, FIX);
    match store.count_instances().await {
        Ok(InstanceCounts { all, sharing, .. }) if all > 1 && sharing < all => bad(format!(
            "{all} servers serve this database, {} of them without Redis: those cache nothing meanwhile, and \
             their subscribers hear late what the others write",
            all - sharing
        )),
        Ok(InstanceCounts { all, caches: 2.., .. }) => bad(format!(
            "{all} servers serve this database, and not all with the same Redis and redis.namespace: they \
             cache nothing meanwhile, and their subscribers hear late what the others write"
        )),
        Ok(InstanceCounts { all: 1.., sharing: 0, .. }) if config.redis.url.is_some() => {
            bad("a server serves this database without Redis, and redis.url is set here".to_owned())
        }
        Ok(InstanceCounts { all, .. }) => Check::ok("servers", format!("{all} serving this database")),
        Err(error) => bad(format!("cannot be counted: {error}")),
    }
}

async fn redis(config: &Config) -> Check {
    let Some(url) = &config.redis.url else {
        return Check::ok("redis", "off (redis.url is not set); each process caches for itself");
    };
    let redis = Redis::new(url, &mut Registry::default());
    let bad = |what: String, fix| Check::bad("redis", Level::Warn, what, fix);
    let found = match redis.describe().await {
        Ok(found) => found,
        Err(reason) => {
            return bad(
                format!("{url} is not used: {reason}; requests go to the database"),
                "start Redis, or mend REDIS_URL",
            );
        }
    };
    let master =
        found.master.map_or_else(|| "one server".to_owned(), |at| format!("the sentinels' master is {at}"));
    let tls = if found.has_tls { "with TLS" } else { "without TLS" };
    let ServerInfo { version, replicas, .. } = found.server;
    let kind = format!("version {version}, {master}, {replicas} replicas, {tls}");
    let namespace = &config.redis.namespace;
    let mut missing = entities::cache::missing_rights(&redis, namespace).await.unwrap_or_default();
    missing.extend(entities::events::missing_rights(&redis, namespace).await.unwrap_or_default());
    if !missing.is_empty() {
        return bad(
            format!("{url} ({kind}) refuses rights to this account: {}", missing.join("; ")),
            "give the account the rights that docs/operations.md lists (Redis)",
        );
    }
    match entities::cache::stats(&redis, namespace).await {
        Ok(_) if url.sentinels().is_some_and(|sentinels| sentinels < 3) => bad(
            format!(
                "{url} answers ({kind}), and names fewer than three sentinels: when one of them fails, the \
                 others have a majority no longer, and Redis stays unused"
            ),
            "run three sentinels or more on different machines, and list them all in REDIS_URL",
        ),
        Ok(stats) => Check::ok("redis", format!("{url} answers ({kind}); {stats}")),
        Err(_) => bad(
            format!("{url} ({kind}) refuses what the cache asks; requests go to the database"),
            "use Redis 6.2 or newer, and an account that may use it",
        ),
    }
}

async fn collector(config: &Config) -> Check {
    let Some(endpoint) = &config.telemetry.otlp_endpoint else {
        return Check::ok("traces", "off (telemetry.otlp_endpoint is not set)");
    };
    if accepts_connections(&endpoint.uri().unwrap_or_default()).await {
        return Check::ok("traces", format!("{endpoint} accepts connections"));
    }
    Check::bad(
        "traces",
        Level::Warn,
        format!("{endpoint} does not accept connections; spans are dropped, requests are not slowed"),
        "start the collector, or mend OTEL_EXPORTER_OTLP_ENDPOINT",
    )
}

async fn hive(config: &Config) -> Check {
    const NAME: &str = "usage reports";
    let (Some(address), share) = (config.telemetry.hive_address(), config.telemetry.field_usage.0) else {
        return Check::ok(NAME, "off (telemetry.hive_endpoint is not set)");
    };
    if share <= 0.0 {
        let text = "off: telemetry.hive_endpoint is set, and telemetry.field_usage is 0";
        return Check::bad(
            NAME,
            Level::Warn,
            text,
            "set telemetry.field_usage to the part to report, as 0.1",
        );
    }
    if accepts_connections(&address).await {
        return Check::ok(NAME, format!("on, for {share} of the operations; {address} accepts connections"));
    }
    Check::bad(
        NAME,
        Level::Warn,
        format!("{address} does not accept connections; reports are dropped, requests are not slowed"),
        "mend XP_TELEMETRY_HIVE_ENDPOINT, or let this machine reach it",
    )
}

async fn accepts_connections(uri: &Uri) -> bool {
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let address = format!("{}:{}", uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(usual));
    matches!(tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(&address)).await, Ok(Ok(_)))
}

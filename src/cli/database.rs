//! Commands on the database: connecting with a clear message when it fails, migrations, demo data. Not here: what the
//! migrations and the demo data are.

use std::{
    future::Future,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use entities::{DatabaseOptions, Store, clock};
use futures_util::TryFutureExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use prometheus_client::registry::Registry;
use schema::Access;
use seed::{Progress, Size};
use serde_json::json;
use tokio::net::TcpStream;
use xp::config::Config;

use super::{Failure, chain, say};

/// How long one try to reach a database that is waited for may take.
const TRY_FOR: Duration = Duration::from_secs(2);
/// Between two tries.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Between two lines of the log that say what is waited for.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How often the database is asked whether it is still there, and how long it may take to answer.
const ASK_EVERY: Duration = Duration::from_secs(2);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// So many times without an answer, one after the other, and it is gone.
const UNANSWERED: u32 = 3;

/// Does something that needs the database, for as long as that answers: nothing tells a connection that the
/// other end has vanished, and some work has no time limit (a migration may take an hour).
///
/// # Errors
/// Those of the work, or that the database is gone: then the work is dropped.
pub(super) fn while_it_answers<'a, T: 'a>(
    store: &'a Store,
    work: impl Future<Output = Result<T, Failure>> + 'a,
) -> impl Future<Output = Result<T, Failure>> + 'a {
    // Boxed: a command waits for several, one after the other, and each would be part of its own future.
    let work = Box::pin(work);
    async move {
        tokio::select! {
            done = work => done,
            () = is_gone(store) => Err(Failure::Failed(
                "the database does not answer any more\n  why:   its host is gone, or something between \
                 drops what is sent\n  fix:   `xp doctor` checks the database; what was being done may be \
                 done in part"
                    .into(),
            )),
        }
    }
}

/// Ends when the database is gone.
async fn is_gone(store: &Store) {
    let mut unanswered = 0;
    while unanswered < UNANSWERED {
        tokio::time::sleep(ASK_EVERY).await;
        let is_reachable = store.database().is_reachable(ANSWER_WITHIN).await;
        unanswered = if is_reachable { 0 } else { unanswered + 1 };
    }
}

/// Connects, or says why not, without the password.
pub(super) async fn connect(
    config: &Config,
    serving: bool,
    registry: &mut Registry,
) -> Result<Store, Failure> {
    let settings = config.store(serving).ok_or_else(missing)?;
    match open(&settings, registry).await {
        Ok(store) => Ok(store),
        Err(error) => Err(unusable(config, &error, None).await),
    }
}

async fn open(settings: &DatabaseOptions, registry: &mut Registry) -> Result<Store, entities::Error> {
    let store = Store::connect(settings, registry).await?;
    store.database().ping().await.map(|()| store)
}

fn missing() -> Failure {
    Failure::Usage("database.url is not set; set DATABASE_URL".into())
}

/// Waits until PostgreSQL can be reached, for `database.start_wait` at most, and says meanwhile what it waits
/// for. False where `stop` came first. What waiting does not mend is said at once.
pub(super) async fn wait(config: &Config, stop: impl Future<Output = ()>) -> Result<bool, Failure> {
    let mut settings = config.store(true).ok_or_else(missing)?;
    settings.acquire_timeout = settings.acquire_timeout.min(TRY_FOR);
    let (began, limit) = (Instant::now(), config.database.start_wait);
    let reaching = async {
        let mut said: Option<Instant> = None;
        loop {
            let error = match open(&settings, &mut Registry::default()).await {
                Ok(store) => {
                    store.close().await;
                    if said.is_some() {
                        tracing::info!("the database is there");
                    }
                    return Ok(true);
                }
                Err(error) => error,
            };
            let waited = began.elapsed();
            if !error.may_pass() || waited >= limit {
                let waited = error.may_pass().then_some(waited).filter(|_| !limit.is_zero());
                return Err(unusable(config, &error, waited).await);
            }
            if said.is_none_or(|at| at.elapsed() >= SAY_AGAIN_AFTER) {
                said = Some(Instant::now());
                let (database, why) = why_not(config, &error).await;
                let seconds_left = limit.saturating_sub(waited).as_secs();
                tracing::warn!(database, why, seconds_left, "waiting for the database");
            }
            tokio::time::sleep(TRY_AGAIN_AFTER).await;
        }
    };
    tokio::select! {
        reached = reaching => reached,
        () = stop => Ok(false),
    }
}

/// Which database cannot be used, without its password, and why.
async fn why_not(config: &Config, error: &entities::Error) -> (String, String) {
    let Some(url) = &config.database.url else { return <(String, String)>::default() };
    // The pool only says that it waited in vain; the socket says why.
    let knocked = if url.has_several_hosts() { None } else { nobody_listens(url.expose()).await };
    let why = match knocked {
        Some(why) => why,
        None => without_password(&chain(error), url.expose()),
    };
    (url.to_string(), why)
}

async fn unusable(config: &Config, error: &entities::Error, waited: Option<Duration>) -> Failure {
    let (database, why) = why_not(config, error).await;
    let waited = waited.map(|waited| format!(" (waited {} s: database.start_wait)", waited.as_secs()));
    Failure::Failed(format!(
        "the database cannot be used{}\n  where: {database}\n  why:   {why}\n  fix:   check that it runs \
         there and that DATABASE_URL names it rightly; `xp doctor` checks the rest",
        waited.unwrap_or_default()
    ))
}

/// What lets callers in, with its keys read.
pub(super) async fn access(config: &Config, store: &Store) -> Result<Access, Failure> {
    let access = Access::new(store.clone(), config.auth.access());
    access.open().await.map_err(|error| Failure::Failed(chain(&error)))?;
    Ok(access)
}

/// Why the server of a PostgreSQL URL does not accept connections, if it does not.
async fn nobody_listens(url: &str) -> Option<String> {
    if url.contains("host=/") {
        // A socket in a directory: there is no port to knock at.
        return None;
    }
    let rest = url.strip_prefix("postgres")?.split_once("://")?.1.split('?').next()?;
    // After the last `@`: a password may hold `@` and `/` that should have been escaped.
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host).split('/').next()?;
    let host = if host.is_empty() { "localhost" } else { host };
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = if has_port { host.to_owned() } else { format!("{host}:5432") };
    match tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(&address)).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(format!("{address}: {error}")),
        Err(_) => Some(format!("{address} does not answer")),
    }
}

/// Applies pending migrations; with `demo_data` also fills an empty database.
pub(super) async fn prepare(store: &Store, demo_data: bool) -> Result<(), Failure> {
    migration::up(store.connection()).await.map_err(|error| failed("the migrations failed", &error))?;
    let empty = || seed::is_empty(store);
    if demo_data && empty().await.map_err(|error| failed("the database cannot be read", &error))? {
        fill(store, Size::S).await?;
    }
    Ok(())
}

/// How many migrations are pending.
pub(super) async fn pending(store: &Store) -> Result<u32, Failure> {
    migration::pending(store.connection())
        .await
        .map_err(|error| failed("the migrations' state cannot be read", &error))
}

async fn status(store: &Store) -> Result<Vec<migration::Step>, Failure> {
    let status = migration::status(store.connection()).await;
    status.map_err(|error| failed("the migrations' state cannot be read", &error))
}

/// `xp migrate up`.
pub(super) async fn migrate_up(config: &Config) -> Result<(), Failure> {
    let store = connect(config, false, &mut Registry::default()).await?;
    let before = while_it_answers(&store, async {
        let before = pending(&store).await?;
        prepare(&store, false).await.map(|()| before)
    });
    let before = before.await?;
    store.close().await;
    say(&format!("{before} migrations applied; the database is at head"))
}

/// `xp migrate down`.
pub(super) async fn migrate_down(config: &Config, steps: u32, is_sure: bool) -> Result<(), Failure> {
    let store = connect(config, false, &mut Registry::default()).await?;
    let done = while_it_answers(&store, status(&store)).await?;
    let last = done.iter().rev().filter(|step| step.applied).take(steps as usize);
    let last: Vec<&str> = last.map(|step| step.name.as_str()).collect();
    if last.is_empty() {
        store.close().await;
        return say("nothing to take back: 0 migrations are applied");
    }
    if !is_sure {
        let where_to = config.database.url.as_ref().map(ToString::to_string).unwrap_or_default();
        let what = format!(
            "in {where_to} this takes back, with the tables and columns that they made and all rows in \
             them:\n  {}",
            last.join("\n  ")
        );
        confirm(&what, "yes", "nothing was taken back")?;
    }
    let taking_back = migration::down(store.connection(), steps);
    while_it_answers(&store, taking_back.map_err(|error| failed("taking migrations back failed", &error)))
        .await?;
    store.close().await;
    say(&format!("{} migrations taken back", last.len()))
}

/// Goes on only where somebody at a terminal types this word; otherwise says that nothing was done.
pub(super) fn confirm(what: &str, word: &str, undone: &str) -> Result<(), Failure> {
    let terminal = console::Term::stderr();
    if !terminal.is_term() || !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(format!(
            "{what}\n  why:   it has to be confirmed, and standard input is not a terminal\n  fix:   give \
             --yes if it is"
        )));
    }
    let asked = terminal.write_str(&format!("{what}\nThis cannot be undone. Type {word} to go on: "));
    let mut answer = String::new();
    asked
        .and_then(|()| std::io::stdin().read_line(&mut answer).map(drop))
        .map_err(|error| Failure::Failed(format!("the terminal cannot be read: {error}")))?;
    if answer.trim() == word {
        return Ok(());
    }
    Err(Failure::Failed(undone.to_owned()))
}

/// `xp migrate status`.
pub(super) async fn migrate_status(config: &Config, as_json: bool) -> Result<(), Failure> {
    let store = connect(config, false, &mut Registry::default()).await?;
    let steps = while_it_answers(&store, status(&store)).await?;
    store.close().await;
    if as_json {
        let steps: Vec<_> =
            steps.iter().map(|step| json!({ "name": step.name, "applied": step.applied })).collect();
        return say(&json!(steps).to_string());
    }
    let lines: Vec<_> = steps
        .iter()
        .map(|step| format!("{}  {}", if step.applied { "applied" } else { "pending" }, step.name))
        .collect();
    say(&lines.join("\n"))
}

/// `xp seed`.
pub(super) async fn seed(config: &Config, size: Size) -> Result<(), Failure> {
    let store = connect(config, false, &mut Registry::default()).await?;
    let seeding = while_it_answers(&store, async {
        prepare(&store, false).await?;
        fill(&store, size).await
    });
    let text = seeding.await?;
    store.close().await;
    say(&text)
}

async fn fill(store: &Store, size: Size) -> Result<String, Failure> {
    let (from, to) = seed::span(clock::now());
    migration::ensure_partitions_between(store.connection(), from, to)
        .await
        .map_err(|error| failed("making partitions failed", &error))?;
    let style = ProgressStyle::with_template("{msg:18} {wide_bar} {human_pos}/{human_len} {eta}");
    // Drawn on standard error, and only on a terminal.
    let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut show = |Progress { table, done, total }: Progress| {
        bar.set_length(total);
        bar.set_position(done);
        bar.set_message(table);
    };
    let summary = seed::run(store, size, &mut show).await;
    bar.finish_and_clear();
    let summary = summary.map_err(|error| failed("seeding failed", &error))?;
    let rows: u64 = summary.tables.iter().map(|(_, rows)| rows).sum();
    Ok(format!("{rows} rows in {} tables in {:.1} s", summary.tables.len(), summary.elapsed.as_secs_f64()))
}

fn failed(what: &str, error: &dyn std::error::Error) -> Failure {
    Failure::Failed(format!("{what}\n  why:   {}\n  fix:   `xp doctor` checks the database", chain(error)))
}

/// Drivers may quote the URL; whatever they say, the password is not shown.
fn without_password(text: &str, url: &str) -> String {
    let account =
        url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).map(|(account, _)| account);
    match account.and_then(|account| account.split_once(':')) {
        Some((_, password)) if !password.is_empty() => text.replace(password, "***"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_drivers_message_is_masked() {
        let said = without_password("bad url postgres://a:s3cret@h/d", "postgres://a:s3cret@h/d");
        assert_eq!(said, "bad url postgres://a:***@h/d");
    }
}

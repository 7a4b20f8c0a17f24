//! `xp dev` and `xp serve`: bind, prepare the database, serve until a signal, end in order. What the two do differently
//! is all here: development makes what it needs, production refuses what is not right.

use std::{convert::Infallible, future::Future, io};

use entities::{
    CacheOptions, Store,
    auth::password::Verdict,
    idempotency,
    redis::Redis,
    user::{self, AccountRef, Credentials},
};
use prometheus_client::registry::Registry;
use schema::{Access, auth::token::Subject};
use tokio::{
    net::{TcpListener, TcpSocket, lookup_host},
    signal::unix::{Signal, SignalKind, signal},
};
use xp::{
    Account, App, Development,
    config::{
        Config, HttpConfig,
        layers::{Invalid, Loaded},
    },
    reload::{self, Changed},
    telemetry::Telemetry,
};

use super::{Failure, chain, database, say};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// How long the demo accounts' tokens are valid.
const DEMO_TOKEN_SECONDS: u32 = 12 * 3600;

/// `xp dev`.
pub(super) async fn dev(loaded: Loaded) -> Result<(), Failure> {
    let (socket, telemetry) = begin(&loaded).await?;
    let config = loaded.config;
    let (store, registry) = open(&config, Some(true)).await?;
    let preparing = database::while_it_answers(&store, async {
        let access = database::access(&config, &store).await?;
        let accounts = demo_accounts(&store, &access).await?;
        Ok((access, accounts))
    });
    let (access, accounts) = preparing.await?;
    let listener = listen(socket, &config.http)?;
    say(&banner(&config, &listener, &accounts))?;
    warn_of_strangers(&listener);
    let app = App::new(&config, store.clone(), access, registry, Some(Development { accounts }));
    end(run(app, &config, listener, stop_signal()?).await?, store, telemetry).await
}

/// `xp serve`. `reread` reads the configuration again.
pub(super) async fn serve(
    loaded: Loaded,
    migrate: bool,
    reread: impl Fn() -> Result<Loaded, Invalid>,
) -> Result<(), Failure> {
    let (socket, telemetry) = begin(&loaded).await?;
    let mut hang_up = receive(SignalKind::hangup())?;
    let config = &loaded.config;
    let mut stop = Box::pin(stop_signal()?);
    if !database::wait(config, &mut stop).await? {
        telemetry.stop().await;
        return Ok(());
    }
    let (store, registry) = open(config, migrate.then_some(false)).await?;
    let access = database::while_it_answers(&store, checked(config, &store)).await?;
    let app = App::new(config, store.clone(), access, registry, None);
    let listener = listen(socket, &config.http)?;
    for caution in config.cautions() {
        tracing::warn!(why = caution.why, fix = caution.fix, "{}", caution.what);
    }
    let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
    tracing::info!(address, version = env!("CARGO_PKG_VERSION"), "serving");
    let serving = run(app.clone(), config, listener, stop);
    let served = tokio::select! {
        served = serving => served?,
        never = follow_signals(&app, &loaded, &telemetry, reread, &mut hang_up) => match never {},
    };
    end(served, store, telemetry).await
}

/// Takes over what it can of the configuration at each SIGHUP, for ever. One that is wrong changes nothing.
async fn follow_signals(
    app: &App,
    loaded: &Loaded,
    telemetry: &Telemetry,
    reread: impl Fn() -> Result<Loaded, Invalid>,
    hang_up: &mut Signal,
) -> Infallible {
    let mut current = loaded.clone();
    loop {
        hang_up.recv().await;
        match reread() {
            Ok(now) => {
                let changed = Changed::between(&current, &now);
                app.reload(&now, &changed, telemetry).await;
                let Changed { taken, at_restart } = changed;
                tracing::info!(?taken, "SIGHUP: the configuration was read again");
                // Compared with what is in use, which for these is what the server was started with.
                if !at_restart.is_empty() {
                    tracing::warn!(
                        ?at_restart,
                        "some settings that have changed are used after a restart only"
                    );
                }
                current = reload::in_use(&current, &now);
            }
            Err(invalid) => tracing::error!("SIGHUP: nothing is changed: {invalid}"),
        }
    }
}

/// What lets callers in, where the database is as production needs it.
async fn checked(config: &Config, store: &Store) -> Result<Access, Failure> {
    let pending = database::pending(store).await?;
    if pending > 0 {
        return Err(Failure::Failed(format!(
            "the database is not at head: {pending} migrations are pending\n  fix:   run `xp migrate up` \
             once before the rollout, or start with `xp serve --migrate`"
        )));
    }
    let access = database::access(config, store).await?;
    refuse_demo_password(store, &access).await?;
    Ok(access)
}

/// Takes the address and starts the log, which warns of settings under old names.
async fn begin(loaded: &Loaded) -> Result<(TcpSocket, Telemetry), Failure> {
    let config = &loaded.config;
    let http = &config.http;
    let socket = bind(http).await.map_err(|error| cannot_listen(http, &error))?;
    let telemetry = Telemetry::start(&config.telemetry).map_err(|error| Failure::Failed(chain(&error)))?;
    for renamed in &loaded.renamed {
        tracing::warn!(place = renamed.place, fix = renamed.fix, "{}", renamed.what);
    }
    Ok((socket, telemetry))
}

/// Takes the address, and lets nobody in yet: who comes while the database is waited for is refused and can
/// go elsewhere, rather than wait for an answer. Another process that waits as well may take the address too;
/// the second one of them finds that out when it listens.
async fn bind(http: &HttpConfig) -> io::Result<TcpSocket> {
    let mut failed = None;
    for address in lookup_host((http.host.as_str(), http.port)).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        match socket.bind(address) {
            Ok(()) => return Ok(socket),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address")))
}

fn listen(socket: TcpSocket, http: &HttpConfig) -> Result<TcpListener, Failure> {
    socket.listen(BACKLOG).map_err(|error| cannot_listen(http, &error))
}

fn cannot_listen(http: &HttpConfig, error: &io::Error) -> Failure {
    let fix = match error.kind() {
        io::ErrorKind::AddrInUse => "stop the process that has it, or choose another with --port or PORT",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege; choose another with --port or PORT"
        }
        _ => "check HOST and PORT",
    };
    Failure::Failed(format!("cannot listen on {}:{}\n  why:   {error}\n  fix:   {fix}", http.host, http.port))
}

/// Serves until a signal, following what other instances revoke meanwhile, forgetting requests with an
/// idempotency key, telling webhooks, publishing events, and keeping up the database.
async fn run(
    app: App,
    config: &Config,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<io::Result<usize>, Failure> {
    let following = tokio::spawn(app.access.follow());
    let keeping = tokio::spawn(app.store.clone().stay_registered());
    let store = app.store.clone();
    let keep_keys = config.retention.idempotency;
    let forgetting = tokio::spawn(idempotency::forget_old(store.database().clone(), keep_keys));
    let keeping_up = tokio::spawn(config.upkeep().run(store.clone(), app.tables.clone()));
    let delivering =
        config.webhooks.deliver.then(|| app.webhooks.start(&store, &app.access.options().secret));
    let publishing = app.sinks.start(&store);
    let served = xp::serve(app, listener, stop).await;
    drop(publishing);
    if let Some(delivering) = delivering {
        delivering.stop().await;
    }
    following.abort();
    keeping.abort();
    forgetting.abort();
    keeping_up.abort();
    store.deregister().await;
    Ok(served)
}

/// The demo accounts, with a password and ready tokens.
async fn demo_accounts(store: &Store, access: &Access) -> Result<Vec<Account>, Failure> {
    let failed = |error: &dyn std::error::Error| {
        Failure::Failed(format!("the demo accounts cannot be prepared: {}", chain(error)))
    };
    let hash = access.hasher().hash(seed::DEMO_PASSWORD).await.map_err(|error| failed(&error))?;
    let demo = seed::demo_accounts();
    let ids: Vec<_> = demo.iter().map(|account| account.id).collect();
    user::give_password(store, &ids, &hash).await.map_err(|error| failed(&error))?;
    let mut accounts = Vec::new();
    for account in demo {
        let found =
            user::credentials(store, AccountRef::Id(account.id)).await.map_err(|error| failed(&error))?;
        // In a database that was not filled with demo data there are none.
        let Some(Credentials { user, role, epoch, .. }) = found else { continue };
        let subject = Subject { user, role, epoch, session: None };
        let (token, _) = access.tokens().mint(subject, DEMO_TOKEN_SECONDS).map_err(|error| failed(&error))?;
        let email = account.email.to_owned();
        accounts.push(Account { name: email, role: role.as_str(), token, password: seed::DEMO_PASSWORD });
    }
    Ok(accounts)
}

/// Development is for one machine: others that reach it can sign in with the demo password.
fn warn_of_strangers(listener: &TcpListener) {
    let Ok(listens_on) = listener.local_addr() else { return };
    if !listens_on.ip().to_canonical().is_loopback() {
        tracing::warn!(
            %listens_on,
            "development listens beyond this machine: whoever reaches it can sign in as administrator with \
             the demo password, which everybody knows. Leave HOST out, or use `xp serve`"
        );
    }
}

/// Demo accounts in production are doors for everybody.
async fn refuse_demo_password(store: &Store, access: &Access) -> Result<(), Failure> {
    for account in seed::demo_accounts() {
        let found = user::credentials(store, AccountRef::Id(account.id)).await;
        let found = found.map_err(|error| Failure::Failed(chain(&error)))?;
        let hash = found.filter(|found| found.is_active).and_then(|found| found.password_hash);
        let Some(hash) = hash else { continue };
        let verdict = access.hasher().verify(seed::DEMO_PASSWORD, Some(&hash)).await;
        if verdict.map_err(|error| Failure::Failed(chain(&error)))? != Verdict::Wrong {
            return Err(Failure::Failed(format!(
                "the demo account {email} has the demo password\n  why:   everybody knows it\n  fix:   block \
                 it with `xp user disable {email}`, or use a database that `xp dev` has not prepared",
                email = account.email
            )));
        }
    }
    Ok(())
}

/// The store for serving; with `prepare` the migrations are applied first, and demo data loaded if it says so.
async fn open(config: &Config, prepare: Option<bool>) -> Result<(Store, Registry), Failure> {
    let postgres = config.database.url.as_ref().is_some_and(xp::config::setting::DatabaseUrl::is_postgres);
    if let (true, Some(demo_data)) = (postgres, prepare) {
        // A connection of its own: the statement time-out of requests is too short for migrations.
        let store = database::connect(config, false, &mut Registry::default()).await?;
        database::while_it_answers(&store, database::prepare(&store, demo_data)).await?;
        store.close().await;
    }
    let mut registry = Registry::default();
    let store = database::connect(config, true, &mut registry).await?;
    if let (false, Some(demo_data)) = (postgres, prepare) {
        database::prepare(&store, demo_data).await?;
    }
    let redis = config.redis.url.as_ref().map(|url| Redis::new(url, &mut registry));
    let store = match &redis {
        Some(redis) => store.with_relay(redis, &config.redis.namespace),
        None => store,
    };
    if !config.cache.enabled.is_on(true) {
        return Ok((store, registry));
    }
    let cache = CacheOptions {
        max_bytes: config.cache.max_bytes.0 as u64,
        namespace: config.redis.namespace.clone(),
    };
    Ok((store.with_cache(&cache, redis, &mut registry), registry))
}

fn receive(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::Failed(format!("signals: {error}")))
}

/// Done at SIGTERM or SIGINT.
fn stop_signal() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let (mut terminate, mut interrupt) =
        (receive(SignalKind::terminate())?, receive(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
            _ = interrupt.recv() => tracing::info!("SIGINT: draining"),
        }
    })
}

async fn end(served: io::Result<usize>, store: Store, telemetry: Telemetry) -> Result<(), Failure> {
    match &served {
        Ok(0) => tracing::info!("stopped"),
        Ok(cut_off) => {
            tracing::warn!(cut_off, "stopped; connections were still busy after http.shutdown_grace");
        }
        Err(_) => {}
    }
    store.close().await;
    telemetry.stop().await;
    served.map(drop).map_err(|error| Failure::Failed(format!("{error}\n  fix:   choose another address")))
}

fn banner(config: &Config, listener: &TcpListener, accounts: &[Account]) -> String {
    let url = listener.local_addr().map(|address| format!("http://{address}")).unwrap_or_default();
    let database = config.database.url.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut lines = vec![
        String::new(),
        format!("  XP Graph {} is ready", env!("CARGO_PKG_VERSION")),
        String::new(),
        format!("    Playground  {url}/"),
        format!("    GraphQL     {url}/graphql"),
        format!("    Schema      {url}/schema.graphql"),
        String::new(),
        format!(
            "    Database    {database}{}",
            if database.starts_with("sqlite") { "  (embedded)" } else { "" }
        ),
        match &config.redis.url {
            None => String::from("    Cache       in this process  (embedded)"),
            Some(url) => format!("    Cache       {url}"),
        },
        String::from("    Your own    DATABASE_URL=postgres://user:password@host/name cargo run"),
        String::new(),
        String::from("  Demo accounts (the playground signs in as any of them)"),
    ];
    lines.extend(accounts.iter().map(|account| format!("    {:10}  {}", account.role, account.name)));
    lines.push(format!("    Password of each: {}", seed::DEMO_PASSWORD));
    for role in ["ADMIN", "COLLECTOR"] {
        if let Some(account) = accounts.iter().find(|account| account.role == role) {
            lines.push(format!("\n  As {role}, for 12 hours\n    export TOKEN={}", account.token));
        }
    }
    lines.push(format!(
        "\n  Try\n    curl {url}/graphql -H 'content-type: application/json' -H \"authorization: Bearer \
         $TOKEN\" \\\n      -d '{{\"query\": \"{{ users(first: 3) {{ nodes {{ displayName role }} }} \
         }}\"}}'\n"
    ));
    lines.join("\n")
}

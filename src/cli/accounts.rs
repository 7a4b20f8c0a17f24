//! The operator's hand on accounts, keys and tokens: `xp user`, `xp keys`, `xp token`. Passwords and tokens come from a
//! terminal, a file or standard input, never from the command line, where other processes could read them. Not here:
//! what the commands do, which the graph's mutations do in the same way; a person's data (`personal_data`).

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use entities::{
    CacheOptions, Role, Store,
    auth::{key, password, secret::Secret},
    redis::Redis,
    user::{self, AccountChanges, AccountFilter, AccountRef, Credentials, NewAccount},
};
use prometheus_client::registry::Registry;
use schema::auth::token::Subject;
use serde_json::json;
use xp::config::Config;

use super::{Failure, chain, database, role, say};

#[derive(Debug, Subcommand)]
pub(super) enum User {
    /// Makes an account. The first one of an empty database is made so.
    Create {
        /// Its e-mail.
        #[arg(long)]
        email: String,
        /// The name that others see; the e-mail's first part by default.
        #[arg(long)]
        name: Option<String>,
        /// What it may do.
        #[arg(long, value_parser = role)]
        role: Role,
        /// Reads the password from this file; `-` is standard input. Without it a terminal is asked.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Lists accounts, the newest first.
    List {
        /// Those with this role.
        #[arg(long, value_parser = role)]
        role: Option<Role>,
        /// Those that are blocked.
        #[arg(long)]
        blocked: bool,
        /// Those with this text in their e-mail or name.
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        /// How many at most.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Gives an account another password and ends its sessions: for who has forgotten it.
    Password {
        /// Its e-mail.
        email: String,
        /// Reads the password from this file; `-` is standard input. Without it a terminal is asked.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Gives an account another role, at once.
    Role {
        /// Its e-mail.
        email: String,
        /// What it may do from now on.
        #[arg(value_parser = role)]
        role: Role,
    },
    /// Blocks an account and ends its sessions.
    Disable {
        /// Its e-mail.
        email: String,
    },
    /// Takes the block away.
    Enable {
        /// Its e-mail.
        email: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Lists the keys of access tokens that are good, the newest first.
    List,
    /// Makes the next key: published now, signing in three minutes.
    Rotate,
    /// Drops a key at once: what it has signed is refused everywhere. Another signs from now on.
    Revoke {
        /// Its thumbprint, as `xp keys list` prints it.
        #[arg(allow_hyphen_values = true)] // one in 64 thumbprints begins with one
        kid: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Makes an access token for an account; it does not belong to a session.
    Mint {
        /// The account's e-mail or id.
        #[arg(long)]
        user: String,
        /// How long it is good.
        #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=86_400))]
        ttl_seconds: u32,
    },
    /// Says what an access token on standard input means and whether it is good; exit code 1 where it is not.
    Inspect,
}

/// `xp user`.
pub(super) async fn user(config: &Config, action: User, as_json: bool) -> Result<(), Failure> {
    let store = for_writing(config).await?;
    let said = database::while_it_answers(&store, on_accounts(config, &store, action, as_json)).await?;
    store.close().await;
    say(&said)
}

/// What is said of it: the id of the account that was made or changed, or the accounts that were looked for.
async fn on_accounts(config: &Config, store: &Store, action: User, as_json: bool) -> Result<String, Failure> {
    let none = AccountChanges::default();
    let id = match action {
        User::List { role, blocked, search, limit } => {
            let filter =
                AccountFilter { role, is_active: blocked.then_some(false), search: search.as_deref() };
            let accounts = user::list(store, filter, limit.into()).await.map_err(|error| failed(&error))?;
            return Ok(listed(&accounts, as_json));
        }
        User::Create { email, name, role, password_file } => {
            let who = (email.as_str(), name.as_deref());
            create(config, store, who, role, password_file.as_deref()).await?
        }
        User::Password { email, password_file } => {
            give_password(config, store, &email, password_file.as_deref()).await?
        }
        User::Role { email, role } => {
            change(store, &email, AccountChanges { role: Some(role), ..none }).await?
        }
        User::Disable { email } => {
            change(store, &email, AccountChanges { is_active: Some(false), ..none }).await?
        }
        User::Enable { email } => {
            change(store, &email, AccountChanges { is_active: Some(true), ..none }).await?
        }
    };
    Ok(if as_json { json!({ "id": id }).to_string() } else { id })
}

/// A line for each account, or all of them as JSON.
fn listed(accounts: &[user::Row], as_json: bool) -> String {
    if as_json {
        let account =
            |row @ user::Row { id, email, display_name, role, is_active, created_at, last_login, .. }: &_| {
                json!({
                    "id": id.to_string(), "email": email, "displayName": display_name, "role": role.as_str(),
                    "isActive": is_active, "isErased": row.is_erased(), "createdAt": created_at,
                    "lastLogin": last_login,
                })
            };
        return accounts.iter().map(account).collect::<serde_json::Value>().to_string();
    }
    let line = |account: &user::Row| {
        let state = match account {
            account if account.is_erased() => "  erased",
            account if account.is_active => "",
            _ => "  blocked",
        };
        let login = account.last_login.map_or("never".to_owned(), |time| time.format("%Y-%m-%d").to_string());
        let (id, role, email) = (account.id, account.role.as_str(), &account.email);
        format!("{id}  {role:7}  last sign-in {login:10}  {email}{state}")
    };
    accounts.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The store for what servers may have cached: where they share a cache, they are told; otherwise they find
/// out within a second.
pub(super) async fn for_writing(config: &Config) -> Result<Store, Failure> {
    let mut registry = Registry::default();
    let store = database::connect(config, false, &mut registry).await?;
    let Some(url) = &config.redis.url else { return Ok(store.with_outbox()) };
    let cache = CacheOptions { max_bytes: 1 << 20, namespace: config.redis.namespace.clone() };
    let redis = Redis::new(url, &mut registry);
    Ok(store.with_cache(&cache, Some(redis), &mut registry))
}

/// Makes an account; its id.
async fn create(
    config: &Config,
    store: &Store,
    (email, name): (&str, Option<&str>),
    role: Role,
    password_file: Option<&Path>,
) -> Result<String, Failure> {
    let wrong = |error: schema::graph::user_error::UserError| Failure::Usage(error.message.into_owned());
    let email = schema::graph::credentials::email(email).map_err(wrong)?;
    let name = name.unwrap_or_else(|| email.split('@').next().unwrap_or_default());
    let name = schema::graph::credentials::display_name(name).map_err(wrong)?;
    let hash = hash_of_password(config, password_file, &[&email, &name]).await?;
    let new = NewAccount { email: &email, display_name: &name, role, password_hash: Some(&hash) };
    match user::create(store, None, new).await.map_err(|error| failed(&error))? {
        Some(user) => Ok(user.to_string()),
        None => Err(Failure::Failed(format!("an account with the e-mail {email} exists already"))),
    }
}

/// Gives an account a password that is read; its id.
async fn give_password(
    config: &Config,
    store: &Store,
    email: &str,
    password_file: Option<&Path>,
) -> Result<String, Failure> {
    let Credentials { user, epoch, is_active, known: [email, name], .. } = find_named(store, email).await?;
    if !is_active {
        return Err(Failure::Failed(format!(
            "the account {email} is blocked\n  fix:   `xp user enable` takes the block away"
        )));
    }
    let hash = hash_of_password(config, password_file, &[&email, &name]).await?;
    let changed = user::change_password(store, None, (user, epoch), &hash, None).await;
    if changed.map_err(|error| failed(&error))? {
        Ok(user.to_string())
    } else {
        Err(Failure::Failed(format!("the account {email} was changed by somebody else meanwhile; try again")))
    }
}

/// Reads a password that is good for an account of which `known` is known, and hashes it.
async fn hash_of_password(
    config: &Config,
    password_file: Option<&Path>,
    known: &[&str],
) -> Result<String, Failure> {
    let password = read_password(password_file)?;
    if let Some(unfit) = password::unfit(&password, known) {
        let why = match unfit {
            password::Unfit::TooShort => "it is shorter than 8 bytes",
            password::Unfit::TooLong => "it is longer than 256 bytes",
            password::Unfit::Weak => "it is too easy to guess",
        };
        return Err(Failure::Usage(format!("this password is not accepted\n  why:   {why}")));
    }
    let hasher = password::Hasher::new(config.auth.access().cost);
    hasher.hash(&password).await.map_err(|error| failed(&error))
}

/// Changes an account; its id.
async fn change(store: &Store, email: &str, changes: AccountChanges<'_>) -> Result<String, Failure> {
    let account = find_named(store, email).await?;
    user::update(store, None, account.user, changes).await.map_err(|error| failed(&error))?;
    Ok(account.user.to_string())
}

/// An account that stands for somebody.
async fn find_named(store: &Store, who: &str) -> Result<Credentials, Failure> {
    let account = find(store, who).await?;
    if user::is_erased(account.user, &account.known[0]) {
        return Err(Failure::Failed(format!("the account {who} was erased; it stands for nobody any more")));
    }
    Ok(account)
}

pub(super) async fn find(store: &Store, who: &str) -> Result<Credentials, Failure> {
    let email = who.to_lowercase();
    let named = entities::id::UserId::parse(who).map_or(AccountRef::Email(&email), AccountRef::Id);
    let found = user::credentials(store, named).await.map_err(|error| failed(&error))?;
    found.ok_or_else(|| Failure::Failed(format!("account not found: {who}")))
}

/// From a file, standard input or a terminal.
fn read_password(file: Option<&Path>) -> Result<String, Failure> {
    let mut text = String::new();
    let read = match file {
        Some(file) if file.as_os_str() == "-" => std::io::stdin().read_to_string(&mut text).map(drop),
        Some(file) => std::fs::read_to_string(file).map(|read| text = read),
        None => {
            let terminal = console::Term::stderr();
            if !terminal.is_term() {
                return Err(Failure::Usage(
                    "the password cannot be asked for: standard input is not a terminal\n  fix:   give \
                     --password-file FILE, or - for standard input"
                        .into(),
                ));
            }
            let asked = terminal.write_str("Password: ").and_then(|()| terminal.read_secure_line());
            asked.map(|read| text = read)
        }
    };
    read.map_err(|error| Failure::Failed(format!("the password cannot be read: {error}")))?;
    // The end of the line is not part of it; everything else is.
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

/// `xp keys`.
pub(super) async fn keys(config: &Config, action: Keys, as_json: bool) -> Result<(), Failure> {
    let store = database::connect(config, false, &mut Registry::default()).await?;
    let said = database::while_it_answers(&store, on_keys(config, &store, action, as_json)).await?;
    store.close().await;
    say(&said)
}

/// What is said of it.
async fn on_keys(config: &Config, store: &Store, action: Keys, as_json: bool) -> Result<String, Failure> {
    let secret: Secret = config.auth.access().secret;
    Ok(match action {
        Keys::List => {
            // Makes the first one, and the next one when it is time.
            match key::load(store.database(), store.revocations(), &secret).await {
                // Sealed with another secret; listed below.
                Ok(_) | Err(entities::Error::Refused(_)) => {}
                Err(error) => return Err(failed(&error)),
            }
            let keys = key::list(store.database(), &secret).await.map_err(|error| failed(&error))?;
            if as_json {
                let row = |key: &key::KeyDescription| {
                    let (state, from, readable) = (key.state.as_str(), key.signs_from, key.is_readable);
                    json!({ "kid": key.kid, "state": state, "signsFrom": from, "readable": readable })
                };
                json!(keys.iter().map(row).collect::<Vec<_>>()).to_string()
            } else {
                let line = |key: &key::KeyDescription| {
                    let note = if key.is_readable { "" } else { "  sealed with another secret" };
                    format!("{}  {:7}  signs from {}{note}", key.kid, key.state.as_str(), key.signs_from)
                };
                keys.iter().map(line).collect::<Vec<_>>().join("\n")
            }
        }
        Keys::Rotate => {
            let kid = key::rotate(store.database(), store.revocations(), &secret)
                .await
                .map_err(|error| failed(&error))?;
            if as_json { json!({ "kid": kid }).to_string() } else { kid }
        }
        Keys::Revoke { kid } => {
            if !key::revoke(store.database(), store.revocations(), &secret, &kid)
                .await
                .map_err(|error| failed(&error))?
            {
                let fix = "`xp keys list` prints the known keys";
                return Err(Failure::Failed(format!("unknown key {kid}\n  fix:   {fix}")));
            }
            if as_json { json!({ "revoked": kid }).to_string() } else { format!("{kid} is revoked") }
        }
    })
}

/// `xp token`.
pub(super) async fn token(config: &Config, action: Token, as_json: bool) -> Result<(), Failure> {
    let store = database::connect(config, false, &mut Registry::default()).await?;
    let (said, is_good) =
        database::while_it_answers(&store, on_token(config, &store, action, as_json)).await?;
    store.close().await;
    say(&said)?;
    if is_good { Ok(()) } else { Err(Failure::Silent) }
}

/// What is said of it, and whether a token that was looked at is good.
async fn on_token(
    config: &Config,
    store: &Store,
    action: Token,
    as_json: bool,
) -> Result<(String, bool), Failure> {
    let access = database::access(config, store).await?;
    Ok(match action {
        Token::Mint { user, ttl_seconds } => {
            let Credentials { user, role, epoch, is_active, .. } = find(store, &user).await?;
            if !is_active {
                return Err(Failure::Failed(format!("the account {user} is blocked")));
            }
            let subject = Subject { user, role, epoch, session: None };
            let (token, expires_at) =
                access.tokens().mint(subject, ttl_seconds).map_err(|error| failed(&error))?;
            let said = if as_json {
                json!({ "token": token, "ttlSeconds": ttl_seconds, "expiresAt": expires_at }).to_string()
            } else {
                token
            };
            (said, true)
        }
        Token::Inspect => {
            let mut token = String::new();
            let read = std::io::stdin().read_to_string(&mut token);
            read.map_err(|error| Failure::Failed(format!("standard input: {error}")))?;
            let token = token.trim();
            let refused = access.verify(token).err().map(|refused| refused.0);
            let claims = access.tokens().claims(token).ok();
            let is_good = refused.is_none();
            (json!({ "valid": is_good, "refused": refused, "claims": claims }).to_string(), is_good)
        }
    })
}

pub(super) fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::Failed(chain(error))
}

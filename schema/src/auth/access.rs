//! What lets callers in: access tokens, the password hasher, the throttle, and the server's secret, together
//! with what is known to be revoked. The sign-in mutations and the server use the same one. Not here: what a
//! viewer may see (`viewer` and each domain).

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use entities::{
    Error, Store,
    auth::{
        key,
        password::{Cost, Hasher},
        revocation::{self, ACCESS_TOKEN_SECONDS},
        secret::{Secret, random_text},
    },
    clock::Time,
    events::{ChangeEvent, Changes},
    session::{Grant, Uses},
};
use tokio::{sync::broadcast::error::RecvError, time::MissedTickBehavior};

use crate::auth::{
    active_users::ActiveUsers,
    throttle::Throttle,
    token::{Bearer, InvalidToken, Subject, Tokens},
};

/// How access is set up.
#[derive(Clone, Debug)]
pub struct AccessOptions {
    /// The `iss` of access tokens.
    pub issuer: String,
    /// The `aud` of access tokens.
    pub audience: String,
    /// Seals private keys and makes refresh tokens; the same on all nodes.
    pub secret: Secret,
    /// What hashing a password costs.
    pub cost: Cost,
    /// May anybody make an account?
    pub sign_up: bool,
    /// How often the database is asked for what other instances revoke, whether or not a change tells of it.
    pub poll: Duration,
}

impl Default for AccessOptions {
    /// For tests: a secret of its own.
    fn default() -> Self {
        let name = || "xp-graph".to_owned();
        let secret = Secret::new(&random_text());
        Self {
            issuer: name(),
            audience: name(),
            secret,
            cost: Cost::default(),
            sign_up: true,
            poll: revocation::POLL,
        }
    }
}

/// How often keys are looked at without being told, and old revocations deleted.
const UPKEEP: Duration = Duration::from_mins(1);

/// Lets callers in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Access(Arc<AccessInner>);

#[derive(Debug)]
struct AccessInner {
    store: Store,
    tokens: Tokens,
    hasher: Hasher,
    throttle: Throttle,
    uses: Uses,
    /// Keys came or went, and have not been read since.
    keys_are_due: AtomicBool,
    active_users: ActiveUsers,
    options: AccessOptions,
}

impl Access {
    /// Over a store, with no keys yet.
    pub fn new(store: Store, options: AccessOptions) -> Self {
        let tokens = Tokens::new(&options.issuer, &options.audience);
        let (hasher, throttle) = (Hasher::new(options.cost), Throttle::default());
        let (uses, active_users) = (Uses::default(), ActiveUsers::default());
        let keys_are_due = AtomicBool::new(false);
        Self(Arc::new(AccessInner {
            store,
            tokens,
            hasher,
            throttle,
            uses,
            keys_are_due,
            active_users,
            options,
        }))
    }

    /// Reads keys and revocations; before that no token is good. Makes the first key of an empty database.
    ///
    /// # Errors
    /// The database's; `InvalidToken` when the keys were sealed with another secret.
    pub async fn open(&self) -> Result<(), Error> {
        self.0.store.catch_up_revocations().await?;
        self.load_keys().await
    }

    async fn load_keys(&self) -> Result<(), Error> {
        let keys =
            key::load(self.0.store.database(), self.0.store.revocations(), &self.0.options.secret).await?;
        self.0.tokens.install(&keys);
        self.0.keys_are_due.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Keeps up with what other instances revoke, for as long as it is polled: as soon as a change tells of
    /// it, and twice a second in any case. Writes down which sessions were used.
    pub fn follow(&self) -> impl Future<Output = ()> + Send + use<> {
        let access = self.clone();
        // From here on, not from the first poll: nothing in between is missed.
        let mut changes = access.0.store.events().subscribe();
        async move {
            let (mut poll, mut upkeep) =
                (tokio::time::interval(access.0.options.poll), tokio::time::interval(UPKEEP));
            poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
            upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut open = true;
            loop {
                tokio::select! {
                    _ = upkeep.tick() => access.keep_up().await,
                    _ = poll.tick() => access.catch_up().await,
                    told = changes.recv(), if open => match told {
                        Ok(changes) if !may_revoke(&changes) => {}
                        Ok(_) | Err(RecvError::Lagged(_)) => access.catch_up().await,
                        Err(RecvError::Closed) => open = false,
                    },
                }
            }
        }
    }

    /// Keys that could not be read are read the next time: a dropped key must not stay good because of one failure.
    async fn catch_up(&self) {
        let due = &self.0.keys_are_due;
        let caught_up = async {
            if self.0.store.catch_up_revocations().await? {
                due.store(true, Ordering::Relaxed);
            }
            if due.load(Ordering::Relaxed) { self.load_keys().await } else { Ok(()) }
        };
        complain(caught_up.await, "what was revoked elsewhere cannot be read");
    }

    async fn keep_up(&self) {
        self.0.active_users.forget();
        complain(self.load_keys().await, "the keys of access tokens cannot be read");
        complain(self.0.uses.write(&self.0.store).await, "the last use of sessions cannot be written");
        complain(revocation::purge(self.0.store.database()).await, "old revocations cannot be deleted");
    }

    /// Whom a token stands for, if it is good: signed by us, in its time, and not revoked.
    ///
    /// # Errors
    /// `InvalidToken` for all others.
    pub fn verify(&self, token: &str) -> Result<Bearer, InvalidToken> {
        self.admit(self.0.tokens.verify(token)?)
    }

    /// Whom a token's claims stand for, which a trusted gateway has verified and passes on.
    ///
    /// # Errors
    /// `InvalidToken` where a token of these claims would be.
    pub fn accept(&self, claims: serde_json::Value) -> Result<Bearer, InvalidToken> {
        self.admit(self.0.tokens.accept(claims)?)
    }

    fn admit(&self, bearer: Bearer) -> Result<Bearer, InvalidToken> {
        if self.is_revoked(&bearer) {
            return Err(InvalidToken("revoked"));
        }
        if let Some(user) = bearer.viewer.user_id() {
            self.0.active_users.note(user);
        }
        if let Some(session) = bearer.viewer.session_id() {
            self.0.uses.note(session);
        }
        Ok(bearer)
    }

    /// Was what this caller came with revoked since? Whatever outlives its request (a subscription) asks
    /// again each time `Store::revocations().changed()` tells of something.
    pub fn is_revoked(&self, bearer: &Bearer) -> bool {
        let revocations = self.0.store.revocations();
        let session = bearer.viewer.session_id();
        bearer.viewer.user_id().is_some_and(|user| revocations.concerns(user, bearer.epoch, session))
    }

    /// Makes and checks access tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    /// The access token of a session and when it ends. Lives up to a twentieth less than it might, so that
    /// clients do not all refresh at once.
    pub(crate) fn mint(&self, grant: &Grant) -> Result<(String, Time), InvalidToken> {
        let Grant { session, user, role, epoch, .. } = *grant;
        // The last byte of a new id is random.
        let share = u32::from(entities::id::new().as_bytes()[15]);
        let jitter = share * (ACCESS_TOKEN_SECONDS / 20) / 256;
        let subject = Subject { user, role, epoch, session: Some(session) };
        self.0.tokens.mint(subject, ACCESS_TOKEN_SECONDS - jitter)
    }

    /// Hashes and checks passwords.
    pub fn hasher(&self) -> &Hasher {
        &self.0.hasher
    }

    pub(crate) fn active_users(&self) -> &ActiveUsers {
        &self.0.active_users
    }

    pub(crate) fn throttle(&self) -> &Throttle {
        &self.0.throttle
    }

    /// What it was made with.
    pub fn options(&self) -> &AccessOptions {
        &self.0.options
    }
}

/// Can something have been revoked by this?
fn may_revoke(changes: &Changes) -> bool {
    let may = |change: &ChangeEvent| {
        matches!(
            change,
            ChangeEvent::SessionEnded { .. }
                | ChangeEvent::User { .. }
                | ChangeEvent::Lagged
                | ChangeEvent::Unknown
        )
    };
    changes.iter().any(may)
}

fn complain(result: Result<(), Error>, what: &'static str) {
    if let Err(error) = result {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        tracing::warn!(%error, cause, "{what}");
    }
}

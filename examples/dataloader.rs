//! Batch reads of `entities` behind the crate `dataloader`: a resolver, or another service, that asks for one key at a
//! time, and still gets all of them by one statement. `Batch` makes a `BatchFn` of any batch read: rows by id, newest
//! rows, lengths of lists. Between requests nothing is shared: a loader lives as long as its request.
//!
//!     cargo run --example dataloader
//!
//! This server itself does not use the crate: it waits while other tasks run, and takes 200 keys at most, where our
//! batches begin when the request can go no further (`schema/engine/src/batch.rs`). So `Batch` stands here and not in
//! `entities`: there every server would be built with a crate that none of them runs. Who needs it copies these lines;
//! `tests/it/examples.rs` counts its statements.

use std::{collections::HashMap, future::Future, hash::Hash, sync::Arc};

use dataloader::{BatchFn, cached::Loader};
use entities::{
    Error, Store,
    database::scope::Scope,
    id::{SessionId, UserId},
    session, user,
};

/// A batch read as a `BatchFn`. The read gets all keys that were asked for, and answers those that it has found.
pub(crate) struct Batch<F>(pub(crate) F);

/// What comes of one key: its value, if it has one. All keys of a batch share its error.
pub(crate) type Loaded<V> = Result<Option<V>, Arc<Error>>;

impl<K, V, F, R, A> BatchFn<K, Loaded<V>> for Batch<F>
where
    K: Copy + Eq + Hash,
    V: Clone,
    F: FnMut(Vec<K>) -> R,
    R: Future<Output = Result<A, Error>>,
    A: IntoIterator<Item = (K, V)>,
{
    async fn load(&mut self, keys: &[K]) -> HashMap<K, Loaded<V>> {
        match (self.0)(keys.to_vec()).await {
            Ok(found) => {
                // Every key needs an answer.
                let mut loaded: HashMap<K, Loaded<V>> = keys.iter().map(|key| (*key, Ok(None))).collect();
                loaded.extend(found.into_iter().map(|(key, value)| (key, Ok(Some(value)))));
                loaded
            }
            Err(error) => {
                let error = Arc::new(error);
                keys.iter().map(|key| (*key, Err(Arc::clone(&error)))).collect()
            }
        }
    }
}

/// The names of these sessions' accounts, each asked for by itself: one statement for the sessions, one for their
/// accounts, however many there are.
pub(crate) async fn names(store: &Store, sessions: &[SessionId]) -> Result<Vec<String>, Arc<Error>> {
    let session_loader = Loader::new(Batch(async |ids: Vec<SessionId>| session::by_ids(store, &ids).await));
    let user_loader = Loader::new(Batch(async |ids: Vec<UserId>| user::by_ids(store, &ids).await));
    let name = async |id: SessionId| {
        let Some(session) = session_loader.load(id).await? else { return Ok("unknown".to_owned()) };
        let user = user_loader.load(session.user_id).await?;
        Ok(user.map_or_else(|| "unknown".to_owned(), |user| user.display_name.clone()))
    };
    futures_util::future::try_join_all(sessions.iter().map(|id| name(*id))).await
}

/// How many sessions each of these accounts has, each asked for by itself: one statement.
pub(crate) async fn session_counts(store: &Store, users: &[UserId]) -> Result<Vec<i64>, Arc<Error>> {
    let all = session::Filter::default();
    let loader = Loader::new(Batch(async |users: Vec<UserId>| {
        session::OF_USERS.part(Scope::All, all).counts(store, &users).await
    }));
    let count = async |user: UserId| Ok(loader.load(user).await?.unwrap_or_default());
    futures_util::future::try_join_all(users.iter().map(|id| count(*id))).await
}

#[cfg(not(test))]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::io::Write as _;

    use entities::{DatabaseOptions, Recorder};
    use sea_orm::{EntityTrait as _, QuerySelect as _};

    let config = DatabaseOptions::at("sqlite::memory:");
    let store = Store::connect(&config, &mut prometheus_client::registry::Registry::default()).await?;
    migration::up(store.connection()).await?;
    seed::run(&store, seed::Size::S, &mut |_| {}).await?;
    let recorder = Arc::new(Recorder::new(false));
    let store = store.recorded_by(Arc::clone(&recorder));
    let mut out = std::io::stdout();
    let accounts: Vec<UserId> = seed::demo_accounts().iter().map(|account| account.id).collect();
    let counts = session_counts(&store, &accounts).await?;
    writeln!(out, "{counts:?} sessions of {} accounts: {} statement", accounts.len(), recorder.count())?;
    let sessions = session::Entity::find().limit(20).all(store.connection()).await?;
    let sessions: Vec<SessionId> = sessions.into_iter().map(|session| session.id).collect();
    let names = names(&store, &sessions).await?;
    writeln!(out, "{} sessions are of {names:?}: {} statements more", sessions.len(), recorder.count() - 1)?;
    Ok(())
}

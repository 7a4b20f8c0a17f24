//! Texts that the instances share under a name, for a while: in Redis. Without Redis, or while it is away,
//! there is nothing to share, and nobody waits long to learn it. Not here: rows and what is made of them
//! (`cache`).

use std::{sync::Arc, time::Duration};

use crate::redis::{READ_TIMEOUT, Redis, WRITE_TIMEOUT};

/// What the instances share. Cheap to clone.
#[derive(Clone, Default)]
pub struct SharedKv {
    shared: Option<(Redis, Arc<str>)>,
}

impl SharedKv {
    pub(crate) fn new(redis: &Redis, namespace: &str) -> Self {
        Self { shared: Some((redis.clone(), Arc::from(namespace))) }
    }

    /// The text of this name; from now on it is kept for `ttl` again.
    pub async fn get(&self, name: &str, ttl: Duration) -> Option<String> {
        let (redis, namespace) = self.shared.as_ref()?;
        let mut command = redis::cmd("GETEX");
        command.arg(format!("{namespace}:{name}")).arg("EX").arg(ttl.as_secs().max(1));
        redis.command("text", READ_TIMEOUT, &command).await.ok().flatten()
    }

    /// Shares a text for `ttl` after it was last asked for.
    pub async fn put(&self, name: &str, text: &str, ttl: Duration) {
        let Some((redis, namespace)) = &self.shared else { return };
        let mut command = redis::cmd("SET");
        command.arg(format!("{namespace}:{name}")).arg(text).arg("EX").arg(ttl.as_secs().max(1));
        // A text that is not shared is asked for again by whoever needs it.
        let _: Result<(), _> = redis.command("text", WRITE_TIMEOUT, &command).await;
    }
}

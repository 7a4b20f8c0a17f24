//! How a connection is made: to the server that is configured or that the sentinels name, and only where that
//! is a master of its own, with all keys, whose data the cache may use. Not here: what is sent on it
//! (`Redis`).

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, RedisError, ServerErrorKind,
    aio::{ConnectionLike as _, MultiplexedConnection},
};

use super::{
    CONNECT_TIMEOUT, Redis, RedisInner, Unavailable, WRITE_TIMEOUT,
    breaker::Breaker,
    sentinel::{LEASE, NamedMaster, SentinelWatch},
    url::RedisSource,
};

/// Where connections lead.
pub(super) enum Route {
    Node(Box<Client>),
    Sentinels(Arc<SentinelWatch>),
}

/// A connection, and the master that it leads to where sentinels name it.
#[derive(Clone)]
pub(crate) struct CheckedConnection {
    pub(crate) connection: MultiplexedConnection,
    pub(super) master: Option<NamedMaster>,
}

impl CheckedConnection {
    /// The term of the master that it leads to.
    pub(crate) fn term(&self) -> u64 {
        self.master.as_ref().map_or(0, |master| master.term)
    }
}

impl Route {
    pub(super) fn new(source: &RedisSource) -> Self {
        match source {
            RedisSource::Node(client) => Self::Node(client.clone()),
            RedisSource::Sentinel(source) => Self::Sentinels(SentinelWatch::new((**source).clone())),
        }
    }

    /// The term of the master whose word counts at this moment, if one does. A server that is configured has
    /// the same always.
    pub(super) fn confirmed_term(&self) -> Option<u64> {
        match self {
            Self::Node(_) => Some(0),
            Self::Sentinels(watch) => watch.confirmed_term(),
        }
    }

    /// Is what comes on a connection to this master to be believed?
    pub(super) fn confirms(&self, master: Option<&NamedMaster>) -> bool {
        match (self, master) {
            (Self::Sentinels(watch), Some(master)) => watch.confirms(master),
            (Self::Sentinels(_), None) => false,
            (Self::Node(_), _) => true,
        }
    }

    /// Done when it is not any more.
    pub(super) async fn until_unconfirmed(&self, master: Option<&NamedMaster>) {
        let Self::Sentinels(watch) = self else { return std::future::pending().await };
        let mut changes = watch.changes();
        while self.confirms(master) {
            // Nobody tells that it is over.
            let Some(end) = watch.lease_end() else { return };
            let just_after = end + Duration::from_millis(1);
            let _ = tokio::time::timeout_at(just_after.into(), changes.changed()).await;
        }
    }
}

impl Redis {
    /// The server to connect to now.
    pub(super) async fn target(&self) -> Result<(Client, Option<NamedMaster>), RedisError> {
        match &self.inner.route {
            Route::Node(client) => Ok((Client::clone(client), None)),
            Route::Sentinels(watch) => {
                if watch.start() {
                    tokio::spawn(follow_master(Arc::downgrade(&self.inner), Arc::clone(watch).changes()));
                }
                let master = watch.expect_master().await?;
                Ok((watch.client(&master)?, Some(master)))
            }
        }
    }

    /// Where another master was named a moment ago: waits until nobody uses the old one any more. False where
    /// there is nothing to wait for.
    pub(crate) async fn until_settled(&self) -> bool {
        let Route::Sentinels(watch) = &self.inner.route else { return false };
        let Some(master) = watch.master().filter(|master| !master.is_settled()) else { return false };
        // A little more, so that it is.
        let moment = master.since + LEASE + LEASE / 100;
        tokio::time::sleep_until(moment.into()).await;
        true
    }

    /// Without its type: to see that a request's future is `Send`, the compiler would look through the whole client.
    pub(super) fn open(&self) -> BoxFuture<'_, Result<CheckedConnection, RedisError>> {
        let opening = async {
            let timeout = tokio::time::timeout(CONNECT_TIMEOUT, self.open_now());
            timeout.await.unwrap_or_else(|_| Err(late()))
        };
        opening.boxed()
    }

    async fn open_now(&self) -> Result<CheckedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            // Each command has its own.
            .set_response_timeout(None);
        let (client, master) = self.target().await?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        ServerInfo::ask(&mut connection).await?.check()?;
        let hook = self.inner.connection_hook.read().expect("no panic happens under this lock").clone();
        if let Some(hook) = hook {
            let mut hook = Cmd::clone(&hook);
            hook.arg(u8::from(master.as_ref().is_none_or(NamedMaster::is_settled)));
            connection.req_packed_command(&hook).await?.extract_error()?;
        }
        Ok(CheckedConnection { connection, master })
    }
}

pub(super) fn late() -> RedisError {
    RedisError::from((ErrorKind::Io, "the connection was not made in time"))
}

/// Gives up the connection to a master that was replaced, and lets nobody wait any longer when the new one may be used.
async fn follow_master(
    redis: std::sync::Weak<RedisInner>,
    mut changes: tokio::sync::watch::Receiver<Option<NamedMaster>>,
) {
    let (mut is_settled, mut known) = (true, None::<(Arc<str>, u16)>);
    loop {
        if is_settled {
            if changes.changed().await.is_err() {
                return;
            }
        } else if matches!(tokio::time::timeout(LEASE, changes.changed()).await, Ok(Err(_))) {
            return;
        }
        let Some(inner) = redis.upgrade() else { return };
        let Some(master) = changes.borrow_and_update().clone() else { continue };
        let redis = Redis { inner };
        is_settled = master.is_settled();
        let address = Some((Arc::clone(&master.host), master.port));
        if known.is_some() && known != address {
            redis.inner.metrics.master_changes.inc();
        }
        known = address;
        if !is_settled {
            tracing::info!(
                host = &*master.host,
                port = master.port,
                "a majority of the sentinels names this Redis as the master"
            );
            redis.disconnect();
        }
        redis.breaker(Breaker::succeeded);
        redis.report();
    }
}

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerInfo {
    /// Which Redis it is; other servers of its kind say which one they are like.
    pub version: String,
    /// `standalone`, `cluster` or `sentinel`.
    mode: String,
    /// `master` or `slave`.
    role: String,
    /// Replicas that follow it.
    pub replicas: u64,
}

impl ServerInfo {
    async fn ask(connection: &mut MultiplexedConnection) -> Result<Self, RedisError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("INFO").arg("server").cmd("INFO").arg("replication");
        let (server, replication): (String, String) = pipeline.query_async(connection).await?;
        Ok(Self::read(&server, &replication))
    }

    fn read(server: &str, replication: &str) -> Self {
        let of = |text: &str, name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.unwrap_or_default().trim().to_owned()
        };
        Self {
            version: of(server, "redis_version"),
            // Valkey calls it otherwise.
            mode: of(server, "redis_mode") + &of(server, "server_mode"),
            role: of(replication, "role"),
            replicas: of(replication, "connected_slaves").parse().unwrap_or_default(),
        }
    }

    /// Only a master of all keys can tell what was invalidated.
    fn check(&self) -> Result<(), RedisError> {
        let wrong = |what: &'static str| Err(RedisError::from((ErrorKind::InvalidClientConfig, what)));
        match (&*self.mode, &*self.role) {
            ("cluster", _) => wrong(
                "this Redis is in cluster mode, which is not supported: use one without \
                 (cluster-enabled no), \
                 or sentinels",
            ),
            ("sentinel", _) => wrong("this is a sentinel: write redis+sentinel://host,host,host/mymaster"),
            (_, "slave") => wrong("this Redis is a replica, which takes no writes: name the master"),
            _ => Ok(()),
        }
    }
}

/// The server that answers.
#[derive(Clone, Debug)]
pub struct RedisDescription {
    /// Where it is, if sentinels named it.
    pub master: Option<String>,
    /// Whether the connection is encrypted.
    pub has_tls: bool,
    /// Version, number of replicas and the like, as the server states them (INFO).
    pub server: ServerInfo,
}

impl Redis {
    /// Looks which server is used, or why none is.
    ///
    /// # Errors
    /// Why there is no connection, as text for the operator.
    pub async fn describe(&self) -> Result<RedisDescription, String> {
        let opening = async {
            let CheckedConnection { mut connection, master } = self.open_now().await?;
            let server = ServerInfo::ask(&mut connection).await?;
            let master = master.map(|NamedMaster { host, port, .. }| format!("{host}:{port}"));
            Ok(RedisDescription { master, has_tls: self.inner.has_tls, server })
        };
        let limit = CONNECT_TIMEOUT * 4;
        let opened = tokio::time::timeout(limit, opening).await.unwrap_or_else(|_| Err(late()));
        opened.map_err(|error: RedisError| {
            // Over TLS 1.3 a server says only afterwards that it wants one, by closing the connection.
            let hint = "; it may want a certificate of the client (ssl_certfile and ssl_keyfile)";
            let is_closed = self.inner.has_tls && error.is_connection_dropped();
            format!("{}{}", reason(&error), if is_closed { hint } else { "" })
        })
    }
}

impl Redis {
    /// What the account may not do of these commands, in Redis's words.
    ///
    /// # Errors
    /// `Unavailable` when Redis does not answer.
    pub(crate) async fn refused_rights(&self, commands: &[Cmd]) -> Result<Vec<String>, Unavailable> {
        let mut connection = self.dedicated().await?.connection;
        let mut refused = Vec::new();
        for command in commands {
            let answer = tokio::time::timeout(WRITE_TIMEOUT, connection.req_packed_command(command)).await;
            let error = match answer.map_err(|_| Unavailable)? {
                Ok(value) => value.extract_error().err(),
                Err(error) => Some(error),
            };
            let is_refused = |error: &RedisError| error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm);
            refused.extend(error.filter(is_refused).map(|error| reason(&error)));
        }
        refused.dedup();
        Ok(refused)
    }

    /// What the account may not do where it listens on this channel, in Redis's words.
    ///
    /// # Errors
    /// `Unavailable` when Redis does not answer.
    pub(crate) async fn refused_subscription(&self, channel: &str) -> Result<Vec<String>, Unavailable> {
        let subscribing = async {
            let (client, _) = self.target().await?;
            client.get_async_pubsub().await?.subscribe(channel).await
        };
        match tokio::time::timeout(WRITE_TIMEOUT + CONNECT_TIMEOUT, subscribing).await {
            Ok(Ok(())) => Ok(Vec::new()),
            Ok(Err(error)) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => {
                Ok(vec![reason(&error)])
            }
            _ => Err(Unavailable),
        }
    }
}

/// What is told to an operator.
pub(super) fn reason(error: &RedisError) -> String {
    match error.kind() {
        // The kind would say that the configuration of a client is wrong.
        ErrorKind::InvalidClientConfig => {
            let text = error.to_string();
            text.replace(" - InvalidClientConfig", "")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_master_of_all_keys_is_used() {
        let replication = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\nmaster_replid:abc\r\n";
        let server = |mode: &str| format!("# Server\r\nredis_version:7.0.15\r\nredis_mode:{mode}\r\n");
        let info = ServerInfo::read(&server("standalone"), replication);
        assert_eq!((&*info.version, info.replicas), ("7.0.15", 2));
        assert!(info.check().is_ok());
        let refused = |mode: &str, role: &str| {
            let info = ServerInfo::read(&server(mode), &replication.replace("role:master", role));
            reason(&info.check().expect_err("it is refused"))
        };
        assert!(refused("cluster", "role:master").contains("cluster mode, which is not supported"));
        assert!(refused("sentinel", "").contains("redis+sentinel://"));
        assert!(refused("standalone", "role:slave").contains("is a replica"));
        let valkey = server("cluster").replace("redis_mode", "server_mode");
        assert!(ServerInfo::read(&valkey, replication).check().is_err());
        // A server of the kind that says less is tried.
        assert!(ServerInfo::read("", "").check().is_ok());
    }
}

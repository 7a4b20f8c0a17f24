//! A master, its replicas and three sentinels, all real, for one test. A server can be cut off from the
//! others while its clients still reach it: the accounts are closed by which sentinels and replicas use it.
//! Ends with the test.

use std::time::Duration;

use super::RedisServer;

/// The name of the master.
const NAME: &str = "xp-master";
const PASSWORD: &str = "of-the-tests";
/// How long a change may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) struct SentinelGroup {
    pub(crate) servers: Vec<RedisServer>,
    pub(crate) sentinels: Vec<RedisServer>,
}

impl SentinelGroup {
    /// Starts them; each sentinel knows all the others.
    pub(crate) async fn start(replicas: usize) -> Self {
        Self::start_with(replicas, &[], "").await
    }

    /// Starts them with more options of the servers and lines of the sentinels' configuration.
    pub(crate) async fn start_with(replicas: usize, options: &[&str], configuration: &str) -> Self {
        let password = format!(">{PASSWORD}");
        let account = |name| ["--user", name, "on", &password, "~*", "&*", "+@all"];
        let (guard, follower) = (account("guard"), account("follower"));
        // Whose account is closed is nobody then.
        let own = ["--requirepass", PASSWORD, "--masteruser", "follower", "--masterauth", PASSWORD];
        let own = [&own[..], &["--repl-diskless-sync-delay", "0"]].concat();
        let options: Vec<&str> = [&guard[..], &follower, &own, options].concat();
        let mut servers = vec![RedisServer::start_with(&options).await];
        let master = servers[0].port().to_string();
        for _ in 0..replicas {
            let following = [&options[..], &["--replicaof", "127.0.0.1", &master]].concat();
            servers.push(RedisServer::start_with(&following).await);
        }
        let mut group = Self { servers, sentinels: Vec::new() };
        let connected = format!("connected_slaves:{replicas}");
        group
            .until("the replicas follow", |group| {
                group.servers[0].cli(&["info", "replication"]).contains(&connected)
            })
            .await;
        for _ in 0..3 {
            let lines = format!(
                "sentinel monitor {NAME} 127.0.0.1 {master} 2\nsentinel auth-user {NAME} guard\n\
                 sentinel auth-pass {NAME} {PASSWORD}\nsentinel down-after-milliseconds {NAME} 1000\n\
                 sentinel failover-timeout {NAME} 3000\n{configuration}"
            );
            group.sentinels.push(RedisServer::sentinel(&lines).await);
        }
        group
            .until("the sentinels know each other", |group| {
                group.sentinels.iter().all(|sentinel| {
                    let state = sentinel.cli(&["sentinel", "master", NAME]);
                    let lines: Vec<&str> = state.lines().collect();
                    let of = |name: &str| lines.iter().position(|line| *line == name).map(|at| lines[at + 1]);
                    of("num-slaves") == Some(&*replicas.to_string()) && of("num-other-sentinels") == Some("2")
                })
            })
            .await;
        group
    }

    /// As it is configured.
    pub(crate) fn address(&self) -> String {
        Self::address_by(self.sentinels.iter().map(RedisServer::port))
    }

    /// By other ways to the sentinels.
    pub(crate) fn address_by(ports: impl Iterator<Item = u16>) -> String {
        let hosts: Vec<String> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        format!("redis+sentinel://:{PASSWORD}@{}/{NAME}", hosts.join(","))
    }

    /// Which server two of the sentinels name as the master.
    pub(crate) fn master(&self) -> Option<usize> {
        let named = self.named_ports();
        let is_named =
            |server: &RedisServer| named.iter().filter(|port| **port == server.port()).count() >= 2;
        self.servers.iter().position(is_named)
    }

    /// At least one of them does not name the first server any more.
    pub(crate) fn names_another_than_the_first(&self) -> bool {
        self.named_ports().iter().any(|port| *port != self.servers[0].port())
    }

    fn named_ports(&self) -> Vec<u16> {
        let named = |sentinel: &RedisServer| {
            let answer = sentinel.cli(&["sentinel", "get-master-addr-by-name", NAME]);
            answer.lines().nth(1).and_then(|port| port.parse::<u16>().ok())
        };
        self.sentinels.iter().filter_map(named).collect()
    }

    /// Waits until another server than this one is the master.
    pub(crate) async fn master_after(&self, old: usize) -> usize {
        self.until("another master is named", |group| {
            group.master().is_some_and(|master| {
                master != old && group.servers[master].cli(&["role"]).starts_with("master")
            })
        })
        .await;
        self.master().expect("it is named")
    }

    /// Tells a sentinel to replace the master, as soon as it finds a replica that is good enough.
    pub(crate) async fn fail_over(&self) {
        self.until("a replica can take over", |group| {
            group.sentinels[0].cli(&["sentinel", "failover", NAME]) == "OK"
        })
        .await;
    }

    /// From now on neither sentinels nor replicas reach this server; its clients do.
    pub(crate) fn isolate(&self, server: usize) {
        self.close_account(server, "guard");
        self.stop_replication(server);
    }

    /// From now on no replica gets anything from this server.
    pub(crate) fn stop_replication(&self, server: usize) {
        self.close_account(server, "follower");
        // The user of a link is known to the one that asked for it; this is its end here.
        self.servers[server].cli(&["client", "kill", "type", "replica"]);
    }

    fn close_account(&self, server: usize, name: &str) {
        assert_eq!(self.servers[server].cli(&["acl", "setuser", name, "off"]), "OK");
        self.servers[server].cli(&["client", "kill", "user", name]);
    }

    /// Waits for something.
    pub(crate) async fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let began = std::time::Instant::now();
        while !is_so(self) {
            assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

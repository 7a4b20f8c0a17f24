//! The setting that says where Redis is, and what it means: one server, or sentinels that name the master.
//! Certificates are read with it, so that a wrong path ends the start and not a connection. Not here:
//! connections (`connect`), and what sentinels say (`sentinel`).

use std::{fmt, fs, str::FromStr, time::Duration};

use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError, TlsCertificates,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};

/// What was sent and is not acknowledged for so long ends the connection, whoever waits on it (`TCP_USER_TIMEOUT`).
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);
/// After so long without a word the system asks whether the other end is there, and as often until it answers
/// (keepalive).
const SILENCE: Duration = Duration::from_secs(2);
/// Questions without an answer that end the connection.
const QUESTIONS: u32 = 3;

/// Where a sentinel listens, if its address names no port.
const SENTINEL_PORT: u16 = 26_379;

const SCHEMES: &str = "it must begin with redis://, rediss:// (TLS), redis+sentinel:// or rediss+sentinel://";
const EXAMPLE: &str = "expected the URL of a Redis server, such as redis://host:6379";
const MASTER_MISSING: &str =
    "the name of the master is missing: redis+sentinel://host:26379,host:26379,host:26379/mymaster";
const NO_CLUSTER: &str = "Redis Cluster is not supported, and one Redis is enough for many instances: \
                          name one server (redis://host:6379), or sentinels \
                          (redis+sentinel://host,host,host/mymaster)";
const SEVERAL_HOSTS: &str = "several hosts are named: for sentinels write \
                             redis+sentinel://host,host,host/mymaster; Redis Cluster is not supported";

/// Where Redis is: `redis://[user:password@]host[:port][/database]`, or
/// `redis+sentinel://[user:password@]host[:port][,host[:port]…]/master[/database]`; `rediss` instead of `redis` is
/// with TLS. Parameters (`?name=value&…`): `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` are paths of files in PEM,
/// `sentinel_username` and `sentinel_password` are for the sentinels themselves, `protocol` is 2 or 3.
#[derive(Clone)]
pub struct RedisUrl {
    text: String,
    pub(super) source: RedisSource,
}

#[derive(Clone)]
pub(super) enum RedisSource {
    Node(Box<Client>),
    Sentinel(Box<SentinelSource>),
}

/// The sentinels, the name of the master, and how to talk to it.
#[derive(Clone)]
pub(super) struct SentinelSource {
    /// With the addresses as they were given.
    pub(super) sentinels: Vec<(String, Client)>,
    pub(super) master: String,
    /// Of the master, but for its address.
    node: ConnectionInfo,
    certificates: Option<TlsCertificates>,
}

impl FromStr for RedisUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self { text: text.to_owned(), source: RedisSource::parse(text)? })
    }
}

impl RedisUrl {
    /// How many sentinels it names; none where it is of a server.
    pub fn sentinels(&self) -> Option<usize> {
        match &self.source {
            RedisSource::Node(_) => None,
            RedisSource::Sentinel(source) => Some(source.sentinels.len()),
        }
    }
}

impl RedisSource {
    fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or(SCHEMES)?;
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        // The last one: a password may have an unescaped one.
        let start = address.rfind('@').map_or(0, |at| at + 1);
        let has_tls = scheme.starts_with("rediss");
        match scheme {
            "redis" | "rediss" => {
                let parameters = UrlParameters::parse(query, false, has_tls)?;
                if address[start..].split('/').next().is_some_and(|hosts| hosts.contains(',')) {
                    return Err(SEVERAL_HOSTS.to_owned());
                }
                let protocol =
                    parameters.protocol.map_or_else(String::new, |number| format!("?protocol={number}"));
                let (address, fragment) = address.split_once('#').map_or((address, ""), |(a, f)| (a, f));
                if !fragment.is_empty() {
                    return Err(
                        "what follows `#` means nothing here, and certificates are always checked".to_owned()
                    );
                }
                let info =
                    format!("{scheme}://{address}{protocol}").into_connection_info().map_err(|_| EXAMPLE)?;
                client(info, parameters.certificates()?.as_ref()).map(Box::new).map(Self::Node)
            }
            "redis+sentinel" | "rediss+sentinel" => {
                let parameters = UrlParameters::parse(query, true, has_tls)?;
                let (account, hosts) = (address[..start].strip_suffix('@'), &address[start..]);
                SentinelSource::parse(has_tls, account, hosts, &parameters).map(Box::new).map(Self::Sentinel)
            }
            _ if scheme.contains("cluster") => Err(NO_CLUSTER.to_owned()),
            _ if scheme.contains("sentinel") => Err(format!("{SCHEMES}; {MASTER_MISSING}")),
            _ => Err(SCHEMES.to_owned()),
        }
    }

    /// With TLS?
    pub(super) fn has_tls(&self) -> bool {
        let address = match self {
            Self::Node(client) => client.get_connection_info().addr(),
            Self::Sentinel(source) => source.node.addr(),
        };
        matches!(address, ConnectionAddr::TcpTls { .. })
    }
}

impl SentinelSource {
    fn parse(
        has_tls: bool,
        account: Option<&str>,
        rest: &str,
        parameters: &UrlParameters<'_>,
    ) -> Result<Self, String> {
        let scheme = if has_tls { "rediss" } else { "redis" };
        let mut parts = rest.splitn(3, '/');
        let hosts = parts.next().unwrap_or_default();
        let master = parts.next().filter(|name| !name.is_empty()).ok_or(MASTER_MISSING)?;
        let database: i64 = parts
            .next()
            .filter(|text| !text.is_empty())
            .map_or(Ok(0), str::parse)
            .map_err(|_| "the database is a number")?;
        let certificates = parameters.certificates()?;
        let (user, password) =
            account.map_or(("", ""), |account| account.split_once(':').unwrap_or(("", account)));
        let protocol = parameters.protocol.map_or_else(String::new, |number| format!("?protocol={number}"));
        // The host is another one each time.
        let node =
            format!("{scheme}://{}host/{database}{protocol}", in_url(user, password)).into_connection_info();
        let node = node.map_err(|_| "the account is user:password, or :password")?;
        let account = in_url(parameters.sentinel_username, parameters.sentinel_password);
        let sentinel = |host: &str| {
            let wrong = || format!("expected the address of a sentinel, such as host:26379, for `{host}`");
            let info = format!("{scheme}://{account}{host}").into_connection_info().map_err(|_| wrong())?;
            let info = with_sentinel_port(info, host);
            Ok::<_, String>((host.to_owned(), client(info, certificates.as_ref())?))
        };
        let hosts: Vec<&str> = hosts.split(',').collect();
        if (1..hosts.len()).any(|at| hosts[..at].contains(&hosts[at])) {
            return Err("a sentinel is named twice; each one counts once".to_owned());
        }
        let sentinels = hosts.into_iter().map(sentinel).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { sentinels, master: master.to_owned(), node, certificates })
    }

    /// The server at this address.
    pub(super) fn node_at(&self, host: &str, port: u16) -> Result<Client, RedisError> {
        let address = match self.node.addr() {
            ConnectionAddr::TcpTls { insecure, .. } => {
                ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure: *insecure, tls_params: None }
            }
            _ => ConnectionAddr::Tcp(host.to_owned(), port),
        };
        build(self.node.clone().set_addr(address), self.certificates.as_ref())
    }
}

/// What stands behind the `?`.
#[derive(Default)]
struct UrlParameters<'t> {
    ca: Option<&'t str>,
    certificate: Option<&'t str>,
    key: Option<&'t str>,
    sentinel_username: &'t str,
    sentinel_password: &'t str,
    protocol: Option<u8>,
}

impl<'t> UrlParameters<'t> {
    fn parse(query: &'t str, has_sentinels: bool, has_tls: bool) -> Result<Self, String> {
        let mut parameters = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "ssl_ca_certs" | "ssl_certfile" | "ssl_keyfile" if !has_tls => {
                    return Err(format!("`{name}` is for TLS: begin with rediss:// or rediss+sentinel://"));
                }
                "ssl_ca_certs" => parameters.ca = Some(value),
                "ssl_certfile" => parameters.certificate = Some(value),
                "ssl_keyfile" => parameters.key = Some(value),
                "sentinel_username" if has_sentinels => parameters.sentinel_username = value,
                "sentinel_password" if has_sentinels => parameters.sentinel_password = value,
                "protocol" if value == "2" || value == "resp2" => parameters.protocol = Some(2),
                "protocol" if value == "3" || value == "resp3" => parameters.protocol = Some(3),
                "protocol" => return Err("`protocol` is 2 or 3".to_owned()),
                _ => {
                    let sentinel = if has_sentinels { "sentinel_username, sentinel_password, " } else { "" };
                    // Its value may be a secret, and so may a name without one.
                    let name = if pair.contains('=') && !query.contains('@') {
                        format!("`{name}`")
                    } else {
                        "this".to_owned()
                    };
                    return Err(format!(
                        "{name} is not a parameter here; there are ssl_ca_certs, ssl_certfile, ssl_keyfile, \
                         {sentinel}protocol"
                    ));
                }
            }
        }
        Ok(parameters)
    }

    fn certificates(&self) -> Result<Option<TlsCertificates>, String> {
        let read = |name: &str, path: Option<&str>| {
            let Some(path) = path else { return Ok(None) };
            fs::read(path).map(Some).map_err(|error| format!("{name}: `{path}` cannot be read: {error}"))
        };
        let client_tls = match (read("ssl_certfile", self.certificate)?, read("ssl_keyfile", self.key)?) {
            (Some(client_cert), Some(client_key)) => Some(ClientTlsConfig { client_cert, client_key }),
            (None, None) => None,
            _ => return Err("ssl_certfile and ssl_keyfile belong together".to_owned()),
        };
        let root_cert = read("ssl_ca_certs", self.ca)?;
        let is_pem = |bytes: &Vec<u8>| bytes.windows(10).any(|part| part == b"-----BEGIN");
        if root_cert.as_ref().is_some_and(|bytes| !is_pem(bytes)) {
            return Err("ssl_ca_certs: expected a file with certificates in PEM".to_owned());
        }
        let is_given = root_cert.is_some() || client_tls.is_some();
        Ok(is_given.then_some(TlsCertificates { client_tls, root_cert }))
    }
}

fn client(info: ConnectionInfo, certificates: Option<&TlsCertificates>) -> Result<Client, String> {
    build(info, certificates).map_err(|error| format!("it cannot be used: {error}"))
}

fn build(info: ConnectionInfo, certificates: Option<&TlsCertificates>) -> Result<Client, RedisError> {
    // The name of this client would need one more right than everything else (CLIENT SETINFO).
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    let info = info.set_redis_settings(settings).set_tcp_settings(tcp_settings());
    match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates.clone()),
        None => Client::open(info),
    }
}

/// An account as it stands in a URL. What is escaped already stays so.
fn in_url(user: &str, password: &str) -> String {
    let escaped = |text: &str| -> String {
        let escape = |byte: u8| match byte {
            b'%' | b'-' | b'_' | b'.' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        };
        text.bytes().map(escape).collect()
    };
    if user.is_empty() && password.is_empty() {
        String::new()
    } else {
        format!("{}:{}@", escaped(user), escaped(password))
    }
}

/// A port that is not given is that of sentinels, not that of Redis.
fn with_sentinel_port(info: ConnectionInfo, host: &str) -> ConnectionInfo {
    let behind_host = host.rsplit_once(']').map_or(host, |(_, rest)| rest);
    if behind_host.contains(':') {
        return info;
    }
    let address = match info.addr().clone() {
        ConnectionAddr::TcpTls { host, insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port: SENTINEL_PORT, insecure, tls_params }
        }
        ConnectionAddr::Tcp(host, _) => ConnectionAddr::Tcp(host, SENTINEL_PORT),
        other => other,
    };
    info.set_addr(address)
}

/// How to connect, so that a server that vanishes without a word is noticed on every connection.
fn tcp_settings() -> TcpSettings {
    let asking = TcpKeepalive::new().with_time(SILENCE).with_interval(SILENCE).with_retries(QUESTIONS);
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(asking);
    // Other systems have no such bound; each command has its own.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let settings = settings.set_user_timeout(UNACKNOWLEDGED);
    settings
}

impl fmt::Display for RedisUrl {
    /// With the account and secret parameters masked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::masked::url(&self.text))
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        text.parse::<RedisUrl>().expect_err(text)
    }

    #[test]
    fn clusters_and_unknown_schemes_are_refused_with_what_to_write() {
        for text in ["redis+cluster://a:7000", "redis-cluster://a,b", "rediss+cluster://a"] {
            assert!(refusal(text).contains("Cluster is not supported"), "{text}: {}", refusal(text));
        }
        for text in ["redis://a,b", "rediss://user:pass,word@a:1,b:2/0"] {
            assert!(refusal(text).contains("redis+sentinel://host,host,host/mymaster"), "{text}");
        }
        for text in ["http://a", "a:6379", "redis-sentinel://a,b#mymaster", "sentinel://a/b"] {
            assert!(refusal(text).contains("redis+sentinel://"), "{text}: {}", refusal(text));
        }
        assert!(refusal("redis+sentinel://a,b").contains("name of the master"));
        assert!(refusal("redis+sentinel://a/m/x").contains("number"));
        assert!(refusal("rediss://a#insecure").contains("always checked"));
    }

    #[test]
    fn parameters_are_checked_and_their_values_kept_secret() {
        assert!(refusal("redis://a?ssl_ca_certs=/ca").contains("rediss://"));
        assert!(refusal("rediss://a?ssl_ca_certs=/no/such").contains("/no/such"));
        assert!(refusal("redis://a?sentinel_password=x").contains("is not a parameter here"));
        assert!(!refusal("redis://a?timeout=s3cret").contains("s3cret"));
        assert!(!refusal("redis://a?s3cret").contains("s3cret"));
        let url: RedisUrl =
            "redis+sentinel://:p@a,b:1,[::1]/m/3?sentinel_password=s3cret".parse().expect("a URL");
        assert!(!url.to_string().contains("s3cret"));
        assert!("redis://:pa,ss@a/3?protocol=3".parse::<RedisUrl>().is_ok());
    }

    #[test]
    fn sentinels_and_servers_have_accounts_of_their_own() {
        let text =
            "rediss+sentinel://ann:p%40s/s@a,b:1,[::1]/m/3?sentinel_username=eve&sentinel_password=x%20y";
        let url: RedisUrl = text.parse().expect("a URL");
        let RedisSource::Sentinel(source) = url.source else { panic!("sentinels") };
        let ports = source.sentinels.iter().map(|(_, client)| client.get_connection_info());
        let ports: Vec<_> = ports.map(|info| info.addr().to_string()).collect();
        assert_eq!(ports, ["a:26379", "b:1", "::1:26379"]);
        let sentinel = source.sentinels[0].1.get_connection_info().redis_settings();
        assert_eq!((sentinel.username(), sentinel.password()), (Some("eve"), Some("x y")));
        let node = source.node_at("10.0.0.1", 7).expect("a client");
        let settings = node.get_connection_info().redis_settings();
        assert_eq!(
            (settings.username(), settings.password(), settings.db()),
            (Some("ann"), Some("p@s/s"), 3)
        );
        assert!(matches!(node.get_connection_info().addr(), ConnectionAddr::TcpTls { port: 7, .. }));
    }
}

//! Where webhooks may be sent: `https` at public addresses, so that nobody makes this server ask what only it
//! can reach. A name is looked up when a webhook is made, and again by whoever connects, who connects to the
//! very address that was judged. Operators may name networks that are allowed besides, also without TLS: a
//! developer's own machine. Not here: connecting.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use ipnet::IpNet;
use url::{Host, Url};

/// Bytes of an address at most.
pub const MAX_URL_BYTES: usize = 2_048;
/// How long a name is looked up when a webhook is made.
const LOOK_UP_WITHIN: Duration = Duration::from_secs(1);

/// Finds the addresses of a name.
pub type Lookup = Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// What may be called. Cheap to clone.
#[derive(Clone)]
pub struct TargetRules {
    allowed: Arc<[IpNet]>,
    lookup: Lookup,
}

impl fmt::Debug for TargetRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TargetRules").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

impl Default for TargetRules {
    /// Public addresses only.
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

/// Why an address is not called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The text cannot be read as an address.
    #[error("expected an address such as https://example.com/hooks")]
    Malformed,
    /// Neither `https`, nor `http` where that is allowed.
    #[error("expected an address that begins with https://")]
    Scheme,
    /// The address has a name or a password.
    #[error("an address with a user name or a password is not accepted")]
    Userinfo,
    /// The address has a fragment, which is for browsers.
    #[error("an address with a fragment (#) is not accepted")]
    Fragment,
    /// Too many bytes.
    #[error("an address has at most 2048 bytes")]
    TooLong,
    /// The address leads into a network that is not public.
    #[error("the address leads to a network that is not public")]
    Forbidden,
}

/// Why there is no address to connect to.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// It must not be called.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The name was not found.
    #[error("the name cannot be resolved")]
    Lookup(#[source] io::Error),
}

impl TargetRules {
    /// Public addresses and these networks, looked up as the system does.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        let lookup: Lookup = Arc::new(|name, port| {
            async move { Ok(tokio::net::lookup_host((name, port)).await?.collect()) }.boxed()
        });
        Self { allowed: allowed.into(), lookup }
    }

    /// These rules, with names looked up in another way.
    #[must_use]
    pub fn looking_up(self, lookup: Lookup) -> Self {
        Self { lookup, ..self }
    }

    /// Checks the address of a webhook and brings it into its normal form. A name that is not found now is
    /// accepted: it is looked up again when it is called.
    ///
    /// # Errors
    /// Why it is refused.
    pub async fn check(&self, text: &str) -> Result<String, TargetError> {
        let (url, port) = self.parse(text)?;
        let host = url.host_str().ok_or(TargetError::Malformed)?;
        let resolving = self.resolve(url.scheme(), host, port);
        match tokio::time::timeout(LOOK_UP_WITHIN, resolving).await {
            Ok(Err(ResolveError::Target(refused))) => Err(refused),
            Ok(Ok(_) | Err(ResolveError::Lookup(_))) | Err(_) => Ok(url.into()),
        }
    }

    fn parse(&self, text: &str) -> Result<(Url, u16), TargetError> {
        if text.len() > MAX_URL_BYTES {
            return Err(TargetError::TooLong);
        }
        // Readers of addresses do not agree upon these.
        if text.chars().any(|sign| sign.is_whitespace() || sign.is_control() || sign == '\\') {
            return Err(TargetError::Malformed);
        }
        let url = Url::parse(text).map_err(|_| TargetError::Malformed)?;
        match url.scheme() {
            "https" => {}
            "http" if !self.allowed.is_empty() => {}
            _ => return Err(TargetError::Scheme),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::Userinfo);
        }
        if url.fragment().is_some() {
            return Err(TargetError::Fragment);
        }
        match url.host() {
            Some(Host::Domain(name)) if !name.is_empty() => {}
            Some(Host::Ipv4(_) | Host::Ipv6(_)) => {}
            _ => return Err(TargetError::Malformed),
        }
        let port = url.port_or_known_default().filter(|port| *port != 0).ok_or(TargetError::Malformed)?;
        if url.as_str().len() > MAX_URL_BYTES {
            return Err(TargetError::TooLong);
        }
        Ok((url, port))
    }

    /// The addresses of a host, all of which may be called.
    ///
    /// # Errors
    /// Where one of them must not be called, or there is none.
    pub async fn resolve(
        &self,
        scheme: &str,
        host: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, ResolveError> {
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let found = match literal {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => (self.lookup)(host.to_owned(), port).await.map_err(ResolveError::Lookup)?,
        };
        if found.is_empty() {
            return Err(ResolveError::Lookup(io::ErrorKind::NotFound.into()));
        }
        // One that is not public among others is no mistake that somebody makes with good intentions.
        for address in &found {
            self.judge(scheme, address.ip())?;
        }
        Ok(found)
    }

    fn judge(&self, scheme: &str, address: IpAddr) -> Result<(), TargetError> {
        let address = address.to_canonical();
        if self.allowed.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        match scheme {
            "https" if is_public(address) => Ok(()),
            "https" => Err(TargetError::Forbidden),
            _ => Err(TargetError::Scheme),
        }
    }
}

/// Networks of IPv4 that are not public: the first address, and the bits that count. From the special-purpose
/// registry of IANA; and where Azure's machines ask for their metadata.
const NOT_PUBLIC: [(Ipv4Addr, u32); 17] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
    (Ipv4Addr::BROADCAST, 32),
];

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    NOT_PUBLIC.iter().all(|(first, bits)| (address.to_bits() ^ first.to_bits()) >> (32 - bits) != 0)
}

/// Of IPv6 only what is given out to networks (`2000::/3`) is public, without what stands for IPv4 addresses
/// there (6to4, Teredo), documentation and tests. NAT64 leads to an IPv4 address, which has to be public.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    match segments {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            is_public_v4(Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low)))
        }
        // 2001::/23 (Teredo, benchmarks, ORCHID), documentation, 6to4, documentation.
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false,
        [0x2002, ..] => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests;

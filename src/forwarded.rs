//! From which address a request comes: that of its connection, or the one that proxies of ours have written
//! down in `X-Forwarded-For`. Rates, the throttle of sign-ins and the log go by it, so a proxy that is not
//! listed makes all of its clients one: that is said loudly. `Forwarded` (RFC 7239) is not read, since
//! whoever trusts two headers is told lies in one of them. Not here: who asks (`auth`).

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, PoisonError},
};

use axum::http::HeaderMap;

use crate::config::setting::Networks;

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED: &str = "forwarded";
/// Peers that are told of with each trouble, one line for each: clients of a server that has no proxy may
/// send these headers, too. Peers within a private network, where proxies mostly are, have as many lines to
/// themselves, so that strangers from outside cannot use them up.
const MOST_TOLD: usize = 16;

/// Something about these headers that an operator has to set right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// They come from a peer that is no trusted proxy.
    Untrusted,
    /// A trusted proxy has written something that is no address.
    Unreadable,
    /// A trusted proxy sends `Forwarded` only.
    OtherHeader,
}

/// Knows which proxies are ours.
#[derive(Debug)]
pub(crate) struct Forwarding {
    trusted: Networks,
    told: Mutex<Vec<(Trouble, IpAddr)>>,
}

impl Forwarding {
    pub(crate) fn new(trusted: &Networks) -> Self {
        Self { trusted: trusted.clone(), told: Mutex::default() }
    }

    /// The client's address, and whether a proxy has said it. `X-Forwarded-For` is read from its end, as far
    /// as those who wrote it are trusted; what a client writes there itself is never reached.
    pub(crate) fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> (IpAddr, bool) {
        let peer = peer.to_canonical();
        if !headers.contains_key(X_FORWARDED_FOR) {
            if headers.contains_key(FORWARDED) {
                let is_trusted = self.trusted.contains(peer);
                self.tell(if is_trusted { Trouble::OtherHeader } else { Trouble::Untrusted }, peer);
            }
            return (peer, false);
        }
        if !self.trusted.contains(peer) {
            self.tell(Trouble::Untrusted, peer);
            return (peer, false);
        }
        let lines = headers.get_all(X_FORWARDED_FOR).iter();
        let hops: Vec<&[u8]> = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).collect();
        let (mut address, mut is_forwarded) = (peer, false);
        for hop in hops.into_iter().map(<[u8]>::trim_ascii).filter(|hop| !hop.is_empty()).rev() {
            if !self.trusted.contains(address) {
                break;
            }
            let Some(next) = std::str::from_utf8(hop).ok().and_then(address_of) else {
                self.tell(Trouble::Unreadable, address);
                break;
            };
            (address, is_forwarded) = (next.to_canonical(), true);
        }
        (address, is_forwarded)
    }

    /// Logs each trouble with each peer once.
    fn tell(&self, trouble: Trouble, peer: IpAddr) {
        {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let alike = |&&(told_of, by): &&(Trouble, IpAddr)| {
                told_of == trouble && is_private(by) == is_private(peer)
            };
            if told.contains(&(trouble, peer)) || told.iter().filter(alike).count() >= MOST_TOLD {
                return;
            }
            told.push((trouble, peer));
        }
        match trouble {
            Trouble::Untrusted => tracing::warn!(
                %peer,
                "X-Forwarded-For or Forwarded comes from a peer that is not in http.trusted_proxies and is \
                 not believed. If this is a proxy, all of its clients count as one: wrong passwords of one \
                 of them keep all from signing in. Set http.trusted_proxies (XP_HTTP_TRUSTED_PROXIES) to the \
                 proxy's address or network"
            ),
            Trouble::Unreadable => tracing::warn!(
                %peer,
                "X-Forwarded-For from a peer in http.trusted_proxies has an entry that is not an IP address: \
                 the clients of this proxy count as one"
            ),
            Trouble::OtherHeader => tracing::warn!(
                %peer,
                "a proxy in http.trusted_proxies sends Forwarded and no X-Forwarded-For; only the latter is \
                 read, so its clients count as one"
            ),
        }
    }
}

/// An address of a private network (RFC 1918, RFC 4193) or of this machine.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private() || address.is_loopback() || address.is_link_local(),
        IpAddr::V6(address) => {
            address.is_unique_local() || address.is_loopback() || address.is_unicast_link_local()
        }
    }
}

/// An entry of `X-Forwarded-For`: an address, one with a port (`192.0.2.1:4711`, `[2001:db8::1]:4711`), also
/// in brackets or quotes. Azure's gateways and IIS write ports, others quote as `Forwarded` does.
fn address_of(entry: &str) -> Option<IpAddr> {
    let entry = entry.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(entry).trim();
    if let Some(rest) = entry.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        return is_port(port).then(|| without_zone(address))?;
    }
    if let Some(address) = without_zone(entry) {
        return Some(address);
    }
    let (address, _) = entry.split_once(':').filter(|(address, _)| is_port(&entry[address.len()..]))?;
    address.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

/// Nothing, or a colon and a port.
fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
}

fn without_zone(address: &str) -> Option<IpAddr> {
    address.split_once('%').map_or(address, |(address, _)| address).parse().ok()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::config::setting::Setting as _;

    fn forwarding() -> Forwarding {
        Forwarding::new(&Networks::parse("10.0.0.0/8, 127.0.0.1, 2001:db8::/32").expect("networks"))
    }

    fn headers(lines: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value).expect("a header"));
        }
        headers
    }

    fn from(peer: &str, lines: &[&str]) -> String {
        let lines: Vec<_> = lines.iter().map(|line| (X_FORWARDED_FOR, line.as_bytes())).collect();
        forwarding().client_address(peer.parse().expect("an address"), &headers(&lines)).0.to_string()
    }

    #[test]
    fn only_trusted_proxies_say_where_a_request_comes_from() {
        assert_eq!(from("192.0.2.1", &["198.51.100.7"]), "192.0.2.1", "a client is not believed");
        assert_eq!(from("10.1.2.3", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(from("10.1.2.3", &["1.1.1.1, 198.51.100.7", "127.0.0.1"]), "198.51.100.7");
        assert_eq!(from("::ffff:10.1.2.3", &["2001:db8:1::1"]), "2001:db8:1::1");
        assert_eq!(from("10.1.2.3", &["nonsense"]), "10.1.2.3");
        assert_eq!(
            from("10.1.2.3", &["1.1.1.1, nonsense"]),
            "10.1.2.3",
            "what stands before is a client's word"
        );
        assert_eq!(from("10.1.2.3", &["198.51.100.7, , "]), "198.51.100.7");
        assert_eq!(from("10.1.2.3", &[""]), "10.1.2.3");
        assert_eq!(from("10.1.2.3", &[]), "10.1.2.3");
    }

    #[test]
    fn an_entry_may_have_a_port_brackets_and_quotes() {
        for (entry, address) in [
            ("198.51.100.7:4711", "198.51.100.7"),
            ("\"198.51.100.7:4711\"", "198.51.100.7"),
            ("[2001:4860::8]", "2001:4860::8"),
            ("[2001:4860::8]:4711", "2001:4860::8"),
            ("\"[2001:4860::8]:4711\"", "2001:4860::8"),
            ("\"2001:4860::8\"", "2001:4860::8"),
            ("2001:4860::8", "2001:4860::8"),
            ("[fe80::1%eth0]:80", "fe80::1"),
            ("::ffff:198.51.100.7", "198.51.100.7"),
            ("[::ffff:198.51.100.7]:80", "198.51.100.7"),
        ] {
            assert_eq!(from("10.1.2.3", &[entry]), address, "{entry}");
            assert_eq!(from("10.1.2.3", &[&format!("1.1.1.1, {entry} ,10.9.9.9:80")]), address, "{entry}");
        }
        for wrong in [
            "unknown",
            "_hidden",
            "198.51.100.7:",
            "198.51.100.7:x",
            "198.51.100.7:99999",
            "[2001:4860::8",
            "[]",
            "[2001:4860::8]x",
            "host:80",
            "\"198.51.100.7",
            "198.51.100.7 198.51.100.8",
        ] {
            assert_eq!(from("10.1.2.3", &[wrong]), "10.1.2.3", "{wrong}");
        }
    }

    #[test]
    fn each_trouble_is_told_once_for_each_peer() {
        let forwarding = forwarding();
        let ask = |peer: &str, lines: &[(&'static str, &[u8])]| {
            forwarding.client_address(peer.parse().expect("an address"), &headers(lines));
            forwarding.told.lock().expect("nobody panics here").clone()
        };
        let peer = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(ask("192.0.2.1", &[]), []);
        assert_eq!(ask("10.1.2.3", &[(X_FORWARDED_FOR, b"198.51.100.7")]), [], "all is well");
        let mut told = vec![(Trouble::Untrusted, peer("192.0.2.1"))];
        for _ in 0..3 {
            assert_eq!(ask("192.0.2.1", &[(X_FORWARDED_FOR, b"198.51.100.7")]), told);
        }
        told.push((Trouble::Untrusted, peer("192.0.2.2")));
        assert_eq!(ask("192.0.2.2", &[(FORWARDED, b"for=198.51.100.7")]), told);
        told.push((Trouble::OtherHeader, peer("10.1.2.3")));
        assert_eq!(ask("10.1.2.3", &[(FORWARDED, b"for=198.51.100.7")]), told);
        told.push((Trouble::Unreadable, peer("10.1.2.3")));
        assert_eq!(ask("10.1.2.3", &[(X_FORWARDED_FOR, b"198.51.100.7, \xff")]), told);
        for index in 0..100 {
            ask(&format!("192.0.2.{index}"), &[(X_FORWARDED_FOR, b"198.51.100.7")]);
        }
        assert_eq!(ask("192.0.2.1", &[]).len(), MOST_TOLD + 2, "and two of the trusted proxy");
        for peer in ["172.16.0.1", "fd00::1"] {
            let told = ask(peer, &[(X_FORWARDED_FOR, b"198.51.100.7")]);
            let of = (Trouble::Untrusted, peer.parse().expect("an address"));
            assert_eq!(told.last(), Some(&of), "strangers do not hide a proxy");
        }
    }
}

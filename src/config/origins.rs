//! Lists of web origins. Which are meant by `http.cors_origins`: `*`, single ones, any port of a host, any
//! subdomain of a domain; and by `gateway.callback_origins`: single ones alone. Compared as browsers compare
//! them (RFC 6454): scheme, host and port, where the scheme's own port may be left out. Not here: what pages
//! of these origins may do (`http::cors`).

use axum::http::HeaderName;

use super::setting::{Setting, split_list};

/// Origins of this machine, which development allows on every port.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Web origins, as in `https://app.example.com, https://*.example.com, http://localhost:*`, or `*` for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginPatterns {
    is_any: bool,
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    scheme: String,
    host: Host,
    port: Port,
}

/// Hosts in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Exactly(String),
    /// Whatever ends so: `.example.com`.
    Below(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Any,
    Exactly(u16),
}

impl OriginPatterns {
    /// Whether none is allowed.
    pub fn is_empty(&self) -> bool {
        !self.is_any && self.patterns.is_empty()
    }

    /// Whether all are, also those that browsers call `null`.
    pub fn is_any(&self) -> bool {
        self.is_any
    }

    /// Whether this origin, as a browser sends it, is named, as itself or by a pattern; not by `*` alone.
    pub fn names(&self, origin: &str) -> bool {
        let Some((scheme, host, port)) = parts(origin) else { return false };
        let Some(port) = port_of(scheme, port) else { return false };
        let is_meant = |pattern: &Pattern| {
            let same_host = match &pattern.host {
                Host::Exactly(known) => known.eq_ignore_ascii_case(host),
                Host::Below(end) => {
                    let start = host.len().checked_sub(end.len()).filter(|start| *start > 0);
                    let rest = start.and_then(|start| host.get(start..));
                    rest.is_some_and(|rest| rest.eq_ignore_ascii_case(end))
                }
            };
            let same_port = match pattern.port {
                Port::Any => true,
                Port::Exactly(known) => known == port,
            };
            same_host && same_port && pattern.scheme.eq_ignore_ascii_case(scheme)
        };
        self.patterns.iter().any(is_meant)
    }

    /// Whether pages of this origin are meant.
    pub fn allow(&self, origin: &str) -> bool {
        self.is_any || self.names(origin)
    }

    /// Allows every origin of this machine, too: for development.
    #[must_use]
    pub fn with_local(mut self) -> Self {
        let of_host = |host: &str, scheme: &str| Pattern {
            scheme: scheme.to_owned(),
            host: Host::Exactly(host.to_owned()),
            port: Port::Any,
        };
        let local = LOCAL.iter().flat_map(|host| ["http", "https"].map(|scheme| of_host(host, scheme)));
        self.patterns.extend(local);
        self
    }
}

impl Setting for OriginPatterns {
    const EXPECTS: &'static str = "list of origins";

    fn parse(text: &str) -> Result<Self, String> {
        let mut origins = Self::default();
        for origin in split_list(text) {
            if origin == "*" {
                origins.is_any = true;
            } else {
                origins.patterns.push(pattern(origin)?);
            }
        }
        Ok(origins)
    }
}

/// Web origins of HTTP, each named by itself, as in `http://router:4000, https://router.example.com`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(OriginPatterns);

impl Origins {
    /// Whether this origin is named.
    pub fn contain(&self, origin: &str) -> bool {
        self.0.names(origin)
    }
}

impl Setting for Origins {
    const EXPECTS: &'static str = "origins";

    fn parse(text: &str) -> Result<Self, String> {
        let single = |origin: &str| {
            let pattern = pattern(origin)?;
            let is_single = matches!((&pattern.host, pattern.port), (Host::Exactly(_), Port::Exactly(_)));
            let is_http = matches!(&*pattern.scheme, "http" | "https");
            let why = || format!("`{origin}` is not one origin of HTTP; write it as in http://router:4000");
            if is_single && is_http { Ok(pattern) } else { Err(why()) }
        };
        let patterns = split_list(text).map(single).collect::<Result<_, _>>()?;
        Ok(Self(OriginPatterns { is_any: false, patterns }))
    }
}

/// Reads one origin or pattern; fails with what is wrong and what to write.
fn pattern(text: &str) -> Result<Pattern, String> {
    let wrong = |why: &str| Err(format!("`{text}` is not an origin: {why}"));
    let Some((scheme, rest)) = text.split_once("://") else {
        if text.eq_ignore_ascii_case("null") {
            return wrong(
                "browsers send `null` for files and sandboxed pages of anybody; only `*` allows these",
            );
        }
        return wrong(&format!("the scheme is missing; write http://{text} or https://{text}"));
    };
    let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    if scheme.is_empty() || !scheme.bytes().all(is_scheme) {
        return wrong("the scheme is letters and digits, as in https://app.example.com");
    }
    if let Some((authority, path)) = rest.split_once(['/', '?', '#']) {
        let what = if path.is_empty() { "it ends with a slash" } else { "it has a path" };
        return wrong(&format!("{what}; write {scheme}://{authority}"));
    }
    if !rest.is_ascii() {
        return wrong("browsers send other letters than a to z in punycode (xn--…); write the host so");
    }
    let Some((_, host, port)) = parts(text).filter(|(_, host, _)| !host.is_empty()) else {
        return wrong("write scheme, host and port, as in https://app.example.com or http://localhost:3000");
    };
    let host = host.to_ascii_lowercase();
    let host = match host.strip_prefix('*') {
        Some(end) if end.len() > 1 && end.starts_with('.') && !end.contains('*') => {
            Host::Below(end.to_owned())
        }
        None if !host.contains('*') => Host::Exactly(host),
        _ => {
            return wrong(
                "a `*` stands for all subdomains (https://*.example.com), for every port \
                 (http://localhost:*), or alone for every origin",
            );
        }
    };
    let port = match port {
        Some("*") => Port::Any,
        port => match port_of(scheme, port) {
            Some(port) => Port::Exactly(port),
            None => return wrong("the port is a number from 1 to 65535, or `*` for every port"),
        },
    };
    Ok(Pattern { scheme: scheme.to_ascii_lowercase(), host, port })
}

/// Scheme, host and port of an origin; `None` for anything else.
fn parts(origin: &str) -> Option<(&str, &str, Option<&str>)> {
    let (scheme, authority) = origin.split_once("://")?;
    let bracket = authority.rfind(']').unwrap_or(0);
    let (host, port) = match authority[bracket..].rfind(':') {
        Some(colon) => (&authority[..bracket + colon], Some(&authority[bracket + colon + 1..])),
        None => (authority, None),
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~*[]:".contains(&byte);
    let has_brackets = host.starts_with('[') && host.ends_with(']');
    (host.bytes().all(is_host) && (has_brackets || !host.contains(['[', ']', ':'])))
        .then_some((scheme, host, port))
}

/// What stands for a port where none is written and the scheme has none of its own.
const NO_PORT: u16 = 0;

/// The port that is meant, with the scheme's own where none is written; `None` where what is written is not one.
fn port_of(scheme: &str, port: Option<&str>) -> Option<u16> {
    match port {
        Some(port) => port.parse().ok().filter(|port| *port != NO_PORT),
        None if scheme.eq_ignore_ascii_case("http") => Some(80),
        None if scheme.eq_ignore_ascii_case("https") => Some(443),
        None => Some(NO_PORT),
    }
}

/// Names of headers, as in `baggage, x-my-app`, or `*` for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderNames {
    /// All.
    Any,
    /// These.
    Listed(Vec<HeaderName>),
}

impl Setting for HeaderNames {
    const EXPECTS: &'static str = "list of header names";

    fn parse(text: &str) -> Result<Self, String> {
        if split_list(text).any(|name| name == "*") {
            return Ok(Self::Any);
        }
        let wrong =
            |name: &str| format!("`{name}` is not the name of a header; write them as in baggage, x-my-app");
        let names = split_list(text).map(|name| name.parse().map_err(|_| wrong(name)));
        names.collect::<Result<_, _>>().map(Self::Listed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_compared_as_browsers_do() {
        let origins = OriginPatterns::parse(
            "https://app.example.com, http://localhost:3000, https://*.example.org, http://127.0.0.1:*, http://[::1]:*, \
             capacitor://localhost, https://PORT.example:443, https://*.ports.example:*",
        );
        let origins = origins.expect("valid");
        for allowed in [
            "https://app.example.com",
            "https://App.Example.com",
            "http://localhost:3000",
            "https://a.example.org",
            "https://a.b.example.org",
            "http://127.0.0.1",
            "http://127.0.0.1:5173",
            "http://[::1]",
            "http://[::1]:8080",
            "capacitor://localhost",
            "https://port.example",
            "https://a.ports.example:8443",
        ] {
            assert!(origins.allow(allowed), "{allowed}");
        }
        for foreign in [
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com.evil.example",
            "https://evil.example/https://app.example.com",
            "https://evilapp.example.com",
            "http://localhost",
            "http://localhost:3001",
            "https://example.org",
            "https://.example.org",
            "https://evilexample.org",
            "https://a.example.org:8443",
            "http://127.0.0.1:x",
            "http://127.0.0.1:5173@evil.example",
            "http://127.0.0.1.evil.example:80",
            "http://[::1].evil.example",
            "https://localhost",
            "null",
            "",
        ] {
            assert!(!origins.allow(foreign), "{foreign}");
        }
        let any = OriginPatterns::parse("*").expect("valid");
        assert!(any.allow("null") && any.allow("https://a.example") && !any.names("https://a.example"));
        assert!(OriginPatterns::default().is_empty() && !any.is_empty());
    }

    #[test]
    fn invalid_origins_are_reported_with_the_expected_form() {
        for (wrong, why) in [
            ("http://localhost:3000/", "write http://localhost:3000"),
            ("https://a.example/app", "it has a path; write https://a.example"),
            ("localhost:3000", "the scheme is missing; write http://localhost:3000"),
            ("app.example.com", "the scheme is missing"),
            ("*.example.com", "the scheme is missing; write http://*.example.com"),
            ("https://", "write scheme, host and port"),
            ("https://*", "a `*` stands for"),
            ("https://app-*.example.com", "a `*` stands for"),
            ("https://*.*.example.com", "a `*` stands for"),
            ("https://bücher.example", "punycode"),
            ("https://user@a.example", "write scheme, host and port"),
            ("https://a.example:0", "the port is a number"),
            ("https://a.example:99999", "the port is a number"),
            ("null", "only `*` allows these"),
            ("ht tp://a.example", "the scheme is letters"),
        ] {
            let told = OriginPatterns::parse(wrong).expect_err(wrong);
            assert!(told.contains(why) && told.starts_with(&format!("`{wrong}`")), "{wrong}: {told}");
        }
    }

    #[test]
    fn a_list_of_single_origins_takes_no_pattern() {
        let origins = Origins::parse("http://router:4000, https://Router.example.com").expect("valid");
        for named in ["http://router:4000", "HTTP://ROUTER:4000", "https://router.example.com:443"] {
            assert!(origins.contain(named), "{named}");
        }
        for other in
            ["http://router:4001", "http://router", "https://router:4000", "http://a@router:4000", ""]
        {
            assert!(!origins.contain(other), "{other}");
        }
        for wrong in
            ["*", "http://router:*", "https://*.example.com", "ws://router", "router:4000", "http://a@router"]
        {
            assert!(Origins::parse(wrong).is_err(), "{wrong}");
        }
        assert!(!Origins::parse("").expect("valid").contain("http://router:4000"));
    }

    #[test]
    fn development_allows_this_machine() {
        let origins = OriginPatterns::parse("https://app.example.com").expect("valid").with_local();
        for allowed in
            ["http://localhost:3000", "https://localhost", "http://127.0.0.1:5173", "http://[::1]:1"]
        {
            assert!(origins.allow(allowed), "{allowed}");
        }
        assert!(
            origins.allow("https://app.example.com") && !origins.allow("http://localhost.evil.example:3000")
        );
    }

    #[test]
    fn names_of_headers_are_listed_or_all() {
        assert_eq!(HeaderNames::parse("*"), Ok(HeaderNames::Any));
        assert_eq!(
            HeaderNames::parse("Baggage, x-my-app"),
            Ok(HeaderNames::Listed(vec![
                HeaderName::from_static("baggage"),
                HeaderName::from_static("x-my-app")
            ]))
        );
        assert!(HeaderNames::parse("a b").is_err_and(|why| why.contains("`a b`")));
    }
}

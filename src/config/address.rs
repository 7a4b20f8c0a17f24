//! Addresses in the configuration: of other services, which may have an account in them, and of the metrics.

use std::{fmt, net::SocketAddr};

use axum::http::Uri;
use entities::masked;

use super::setting::Setting;

/// The address of another service. It may have an account or a token in it, so it is shown only masked.
#[derive(Clone, PartialEq, Eq)]
pub struct ServiceUrl(String);

impl ServiceUrl {
    /// The whole address; for asking the service only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The address, taken apart; `None` where it is not one of HTTP.
    pub fn uri(&self) -> Option<Uri> {
        let uri = self.0.parse::<Uri>().ok()?;
        let authority = uri.authority()?;
        let host = authority.as_str().rsplit('@').next()?;
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        (is_http && has_port == authority.port_u16().is_some()).then_some(uri)
    }

    /// Whether there is an account in it.
    pub fn has_account(&self) -> bool {
        self.uri()
            .is_some_and(|uri| uri.authority().is_some_and(|authority| authority.as_str().contains('@')))
    }
}

impl From<String> for ServiceUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&masked::url(&self.0))
    }
}

impl fmt::Debug for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Setting for ServiceUrl {
    const EXPECTS: &'static str = "URL";
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("it must not be empty".into()) } else { Ok(Self(text.to_owned())) }
    }
    fn show(text: &str) -> String {
        masked::url(text)
    }
}

/// Where `/metrics` is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetricsAddress {
    /// On the main port in development, else at `MetricsAddress::USUAL`.
    #[default]
    Auto,
    /// On the main port, for everybody who reaches it.
    Main,
    /// On an address of its own.
    Own(SocketAddr),
}

/// Where `/metrics` is, now that it is known how the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsPlace {
    /// On the main port.
    Main,
    /// At an address that somebody asked for.
    Asked(SocketAddr),
    /// At the address that nobody asked for: another process of this machine may have it already.
    Usual(SocketAddr),
}

impl MetricsAddress {
    /// Reached by this machine only; the port that OpenTelemetry's exporters of this kind use.
    pub const USUAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9464);

    /// What is meant.
    pub fn place(self, development: bool) -> MetricsPlace {
        match self {
            Self::Main => MetricsPlace::Main,
            Self::Auto if development => MetricsPlace::Main,
            Self::Auto => MetricsPlace::Usual(Self::USUAL),
            Self::Own(address) => MetricsPlace::Asked(address),
        }
    }
}

impl Setting for MetricsAddress {
    const EXPECTS: &'static str = "address:port, `main` or `auto`";
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "main" => Ok(Self::Main),
            _ => text.parse().map(Self::Own).map_err(|_| {
                "it is an address as in 127.0.0.1:9464 or [::1]:9464, `main` for the main port, or `auto`"
                    .into()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_their_own_address_in_production() {
        let place = |text: &str, development| MetricsAddress::parse(text).expect("valid").place(development);
        let usual = "127.0.0.1:9464".parse().expect("an address");
        assert_eq!(place("auto", true), MetricsPlace::Main);
        assert_eq!(place("auto", false), MetricsPlace::Usual(usual));
        for development in [true, false] {
            assert_eq!(place("main", development), MetricsPlace::Main);
            assert_eq!(place("127.0.0.1:9464", development), MetricsPlace::Asked(usual));
        }
        for wrong in ["9464", "localhost:9464", "off", ""] {
            assert!(MetricsAddress::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_service_is_reached_by_http() {
        for good in [
            "http://router:3000/path",
            "https://router",
            "http://[::1]",
            "http://[::1]:80",
            "http://a:b@c:80",
        ] {
            assert!(ServiceUrl(good.to_owned()).uri().is_some(), "{good}");
        }
        for bad in [
            "router:3000",
            "/path",
            "ftp://router",
            "http://router:many",
            "http://a:b@router:",
            "http://r:99999",
        ] {
            assert!(ServiceUrl(bad.to_owned()).uri().is_none(), "{bad}");
        }
        assert!(ServiceUrl("http://a@b".to_owned()).has_account());
        assert!(!ServiceUrl("http://b/@".to_owned()).has_account());
    }

    #[test]
    fn a_service_is_never_shown_with_its_account() {
        let url = ServiceUrl::parse("http://ann:s3cret@collector:4318/?token=s3cret").expect("valid");
        for shown in [url.to_string(), format!("{url:?}"), ServiceUrl::show(url.expose())] {
            assert_eq!(shown, "http://***@collector:4318/?token=***");
        }
    }
}

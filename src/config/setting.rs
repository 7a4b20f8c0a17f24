//! How the text of a value becomes a value, and how it may be shown. Not here: values that are one of a few names
//! (`choices`), which keys there are.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use entities::{masked, redis::RedisUrl};
use ipnet::IpNet;
use schema::Subgraph;
use serde_json::json;

mod choices;

pub use choices::*;

/// A type that a configuration value can have.
pub trait Setting: Sized {
    /// What a value looks like, for messages.
    const EXPECTS: &'static str;
    /// Whether the value is a secret.
    const SECRET: bool = false;
    /// Reads the text of a value; fails with the reason.
    fn parse(text: &str) -> Result<Self, String>;
    /// The value as it may be shown: without the accounts of addresses.
    fn show(text: &str) -> String {
        masked::text(text)
    }
    /// How a value is written in `xp.toml`, as JSON Schema: what an editor can tell without knowing more.
    fn schema() -> serde_json::Value {
        json!({ "type": "string" })
    }
}

macro_rules! numbers {
    ($($ty:ty: $expects:literal),+) => {$(
        impl Setting for $ty {
            const EXPECTS: &'static str = $expects;
            fn parse(text: &str) -> Result<Self, String> {
                match text.parse() {
                    Ok(0) => Err("it must be at least 1".into()),
                    Ok(number) => Ok(number),
                    Err(error) => Err(format!("{error}")),
                }
            }
            fn schema() -> serde_json::Value {
                number(1, u64::try_from(<$ty>::MAX).unwrap_or(u64::MAX))
            }
        }
    )+};
}

/// A number, which may also stand in quotation marks.
fn number(least: u64, most: u64) -> serde_json::Value {
    json!({ "anyOf": [
        { "type": "integer", "minimum": least, "maximum": most },
        { "type": "string", "pattern": r"^\+?[0-9]+$" },
    ] })
}

numbers!(u32: "number", usize: "number");

/// How many of something may go on at once; 0 turns it off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concurrency(pub usize);

impl Setting for Concurrency {
    const EXPECTS: &'static str = "number";
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error| format!("{error}"))
    }
    fn schema() -> serde_json::Value {
        number(0, usize::MAX as u64)
    }
}

/// A part of something, from 1 to 100 percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(pub u8);

impl Setting for Percent {
    const EXPECTS: &'static str = "percent";
    fn parse(text: &str) -> Result<Self, String> {
        match text.trim_end_matches('%').trim_end().parse() {
            Ok(percent @ 1..=100) => Ok(Self(percent)),
            _ => Err("it must be a number from 1 to 100".into()),
        }
    }
    fn schema() -> serde_json::Value {
        json!({ "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": 100 },
            { "type": "string", "pattern": r"^\+?[0-9]+\s*%*$" },
        ] })
    }
}

/// A part of something, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio(pub f64);

impl Setting for Ratio {
    const EXPECTS: &'static str = "ratio";
    fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(Self(ratio)),
            _ => Err("it must be a number from 0 to 1".into()),
        }
    }
    fn schema() -> serde_json::Value {
        json!({ "anyOf": [
            { "type": "number", "minimum": 0, "maximum": 1 },
            { "type": "string", "pattern": r"^[0-9.eE+-]+$" },
        ] })
    }
}

impl Setting for u16 {
    const EXPECTS: &'static str = "port";
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "a port is a number from 0 to 65535".into())
    }
    fn schema() -> serde_json::Value {
        number(0, u16::MAX.into())
    }
}

impl Setting for String {
    const EXPECTS: &'static str = "text";
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("it must not be empty".into()) } else { Ok(text.into()) }
    }
}

impl Setting for SocketAddr {
    const EXPECTS: &'static str = "address:port";
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "an address is written as in 127.0.0.1:9090 or [::1]:9090".into())
    }
}

impl Setting for PathBuf {
    const EXPECTS: &'static str = "path";
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }
}

impl<T: Setting> Setting for Option<T> {
    const EXPECTS: &'static str = T::EXPECTS;
    const SECRET: bool = T::SECRET;
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::parse(text).map(Some) }
    }
    fn show(text: &str) -> String {
        T::show(text)
    }
    /// An empty text means "not set".
    fn schema() -> serde_json::Value {
        json!({ "anyOf": [T::schema(), { "const": "" }] })
    }
}

impl Setting for Duration {
    const EXPECTS: &'static str = "duration";
    fn parse(text: &str) -> Result<Self, String> {
        let (number, unit) = split_unit(text);
        let number =
            u64::from_str(number).map_err(|_| "a duration is written as in 500ms, 5s or 2m".to_owned())?;
        match unit {
            "ms" => Ok(Self::from_millis(number)),
            "s" => Ok(Self::from_secs(number)),
            "m" => Ok(Self::from_secs(number.saturating_mul(60))),
            "h" => Ok(Self::from_secs(number.saturating_mul(3_600))),
            "d" => Ok(Self::from_secs(number.saturating_mul(86_400))),
            "" => Err("the unit is missing: a duration is written as in 500ms, 5s or 2m".into()),
            other => Err(format!("unknown unit of time `{other}`; known: ms, s, m, h, d")),
        }
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": r"^[0-9]+\s*(ms|s|m|h|d)$" })
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub usize);

impl Setting for Bytes {
    const EXPECTS: &'static str = "size";
    fn parse(text: &str) -> Result<Self, String> {
        let (number, unit) = split_unit(text);
        let number = usize::from_str(number)
            .map_err(|_| "a size is written as in 65536, 256KiB or 2MiB".to_owned())?;
        let factor = match unit {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            other => return Err(format!("unknown unit of size `{other}`; known: KiB, MiB")),
        };
        number.checked_mul(factor).map(Self).ok_or_else(|| "it is too large".into())
    }
    fn schema() -> serde_json::Value {
        json!({ "anyOf": [
            { "type": "integer", "minimum": 0 },
            { "type": "string", "pattern": r"^[0-9]+\s*(B|KiB|MiB)?$" },
        ] })
    }
}

/// Networks, separated by commas; an address alone is a network of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.0.iter().copied()
    }

    /// Is the address in one of them?
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl Setting for Networks {
    const EXPECTS: &'static str = "networks";
    fn parse(text: &str) -> Result<Self, String> {
        let network = |part: &str| part.parse().or_else(|_| part.parse::<IpAddr>().map(IpNet::from));
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let networks: Result<_, _> = parts.map(network).collect();
        networks
            .map(Self)
            .map_err(|_| "networks are written as in 10.0.0.0/8, 127.0.0.1, 2001:db8::/32".into())
    }
}

impl Setting for Subgraph {
    const EXPECTS: &'static str = "list of domains";
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }
}

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    /// The text; not for logs.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Bytes of a secret at least.
const MIN_SECRET_BYTES: usize = 32;

impl Setting for SecretText {
    const EXPECTS: &'static str = "secret";
    const SECRET: bool = true;
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.len() < MIN_SECRET_BYTES {
            return Err(format!(
                "a secret has at least {MIN_SECRET_BYTES} characters; make one with `openssl rand -base64 32`"
            ));
        }
        Ok(Self(text.to_owned()))
    }
    fn show(_: &str) -> String {
        "***".to_owned()
    }
}

/// Secrets that are good side by side, so that one can take the place of the other without a break.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets(Vec<SecretText>);

/// Secrets of one kind at most.
const MOST_SECRETS: usize = 2;

impl Secrets {
    /// Their texts; not for logs.
    pub fn expose(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(SecretText::expose)
    }
}

impl Setting for Secrets {
    const EXPECTS: &'static str = "one or two secrets";
    const SECRET: bool = true;
    fn parse(text: &str) -> Result<Self, String> {
        let secrets: Vec<_> = split_list(text).map(SecretText::parse).collect::<Result<_, _>>()?;
        if secrets.len() > MOST_SECRETS {
            return Err(format!("at most {MOST_SECRETS}: the one in use and the next"));
        }
        Ok(Self(secrets))
    }
    fn show(text: &str) -> String {
        if text.is_empty() { String::new() } else { "***".to_owned() }
    }
}

/// The parts of a list: separated by commas, or by lines in a file.
pub(crate) fn split_list(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty())
}

impl Setting for bool {
    const EXPECTS: &'static str = "true or false";
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "it is true or false".into())
    }
    fn schema() -> serde_json::Value {
        json!({ "enum": [true, false, "true", "false"] })
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    (number, unit.trim_start())
}

/// Which log lines to write; checked here, so that a bad one is reported with everything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(pub String);

impl Setting for LogFilter {
    const EXPECTS: &'static str = "filter";
    fn parse(text: &str) -> Result<Self, String> {
        match tracing_subscriber::EnvFilter::try_new(text) {
            Ok(_) => Ok(Self(text.into())),
            Err(error) => Err(format!("{error}; a filter is written as in info or warn,schema=debug")),
        }
    }
}

/// Where the database is. May hold a password, so it is shown only masked.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The whole URL, password included; for the driver only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it names more than one server of PostgreSQL.
    pub fn has_several_hosts(&self) -> bool {
        entities::database::split_hosts(&self.0).len() > 1
    }

    /// Whether it names a PostgreSQL server (else SQLite).
    pub fn is_postgres(&self) -> bool {
        self.0.starts_with("postgres")
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Self::show(&self.0))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where the standbys of a PostgreSQL are, one URL for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaUrls(Vec<DatabaseUrl>);

impl ReplicaUrls {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &DatabaseUrl> {
        self.0.iter()
    }

    /// Whether no standby is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Setting for ReplicaUrls {
    const EXPECTS: &'static str = "URLs, separated by commas";
    const SECRET: bool = true;
    fn parse(text: &str) -> Result<Self, String> {
        let urls: Vec<DatabaseUrl> = split_list(text).map(DatabaseUrl::parse).collect::<Result<_, _>>()?;
        if urls.iter().all(DatabaseUrl::is_postgres) {
            Ok(Self(urls))
        } else {
            Err("each of them must begin with postgres:// or postgresql://".into())
        }
    }

    fn show(text: &str) -> String {
        split_list(text).map(DatabaseUrl::show).collect::<Vec<_>>().join(", ")
    }
}

impl Setting for DatabaseUrl {
    const EXPECTS: &'static str = "URL";
    const SECRET: bool = true;
    fn parse(text: &str) -> Result<Self, String> {
        let known = ["postgres://", "postgresql://", "sqlite:"];
        if known.iter().any(|scheme| text.starts_with(scheme)) {
            return Ok(Self(text.into()));
        }
        Err("it must begin with postgres://, postgresql:// or sqlite:".into())
    }

    /// Masks the password, in the authority and in parameters; anything that is not a URL of ours is masked as a
    /// whole, since nobody knows where its secret is.
    fn show(text: &str) -> String {
        if text.is_empty() || text.starts_with("sqlite:") || text.contains("://") {
            masked::url_of_account(text)
        } else {
            "***".into()
        }
    }
}

impl Setting for RedisUrl {
    const EXPECTS: &'static str = "URL";
    const SECRET: bool = true;
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn show(text: &str) -> String {
        match text.parse::<Self>() {
            Ok(url) => url.to_string(),
            Err(_) if text.is_empty() => String::new(),
            Err(_) => "***".into(),
        }
    }
}

/// Headers for a collector, with their values as they are sent. They may hold a token.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OtlpHeaders(HeaderMap);

impl OtlpHeaders {
    /// The headers; for asking the collector only.
    pub fn expose(&self) -> &HeaderMap {
        &self.0
    }
}

impl fmt::Debug for OtlpHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OtlpHeaders").field(&self.0.len()).finish()
    }
}

impl Setting for OtlpHeaders {
    const EXPECTS: &'static str = "name=value,…";
    const SECRET: bool = true;
    /// The form of W3C Baggage, as OpenTelemetry has it.
    fn parse(text: &str) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        for part in split_list(text) {
            let (name, value) = part.split_once('=').ok_or("write it as in authorization=Bearer%20token")?;
            // What is wrong may be a token, so it is not repeated.
            let name = HeaderName::from_str(name.trim())
                .map_err(|_| "what stands before `=` is not the name of a header")?;
            let value = percent_encoding::percent_decode_str(value.trim()).collect::<Vec<_>>();
            let mut value = HeaderValue::from_bytes(&value)
                .map_err(|_| format!("the value of `{name}` has characters that no header has"))?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        Ok(Self(headers))
    }

    fn show(text: &str) -> String {
        if text.is_empty() { String::new() } else { "***".into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_masked_wherever_it_stands() {
        for (url, shown) in [
            ("postgres://ann:s3cret@db:5432/xp", "postgres://ann:***@db:5432/xp"),
            ("postgres://ann:s3@cret@db/xp", "postgres://ann:***@db/xp"),
            (
                "postgres://ann@db/xp?password=s3cret&sslmode=require",
                "postgres://ann@db/xp?password=***&sslmode=require",
            ),
            ("postgres://db/xp", "postgres://db/xp"),
            ("postgres://ann:s3?cr@et@db/xp", "postgres://***"),
            ("postgres://db/xp?user=ann&sslkey=s3cret", "postgres://db/xp?user=ann&sslkey=***"),
            ("sqlite:xp.db", "sqlite:xp.db"),
            ("sqlite:xp.db?key=s3cret", "sqlite:xp.db?key=***"),
            ("s3cret", "***"),
        ] {
            assert_eq!(DatabaseUrl::show(url), shown);
        }
        assert_eq!(format!("{:?}", DatabaseUrl("postgres://a:b@c/d".into())), "postgres://a:***@c/d");
    }

    #[test]
    fn headers_are_read_as_baggage_and_never_repeated() {
        let headers = OtlpHeaders::parse("authorization=Bearer%20s3cret, x-tenant = a=b ").expect("headers");
        assert_eq!(headers.expose()["authorization"], "Bearer s3cret");
        assert_eq!(headers.expose()["x-tenant"], "a=b");
        assert!(OtlpHeaders::parse("").is_ok_and(|headers| headers.expose().is_empty()));
        for wrong in ["Bearer s3cret==", "s3cret", "authorization=s3cret%0a"] {
            let why = OtlpHeaders::parse(wrong).expect_err("it is wrong");
            assert!(!why.contains("s3cret"), "{why}");
        }
        assert_eq!((OtlpHeaders::show("a=s3cret"), OtlpHeaders::show("")), ("***".into(), String::new()));
        assert!(!format!("{headers:?}").contains("s3cret"));
    }

    #[test]
    fn durations_and_sizes_carry_their_unit() {
        assert_eq!(Duration::parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(Duration::parse("2m"), Ok(Duration::from_mins(2)));
        assert_eq!(Duration::parse("90d"), Ok(Duration::from_hours(90 * 24)));
        assert!(Duration::parse("5").is_err_and(|why| why.contains("unit")));
        assert!(Duration::parse("5 days").is_err());
        assert_eq!(Bytes::parse("256KiB"), Ok(Bytes(262_144)));
        assert!(Bytes::parse("1GB").is_err());
        assert!(u32::parse("0").is_err());
        assert_eq!((Percent::parse("1"), Percent::parse("25%")), (Ok(Percent(1)), Ok(Percent(25))));
        assert!(["0", "101", "-1", "1.5", ""].iter().all(|text| Percent::parse(text).is_err()));
    }

    #[test]
    fn networks_are_ranges_or_single_addresses() {
        let networks =
            Networks::parse("10.9.0.0/8, 192.0.2.1,, 2001:db8::/32 ,0.0.0.0/32").expect("networks");
        let contains = |address: &str| networks.contains(address.parse().expect("an address"));
        assert!(["10.0.0.1", "10.255.0.0", "192.0.2.1", "2001:db8:1::", "0.0.0.0"].into_iter().all(contains));
        assert!(!["11.0.0.1", "192.0.2.2", "2001:db9::", "0.0.0.1", "::a00:1"].into_iter().any(contains));
        assert!(Networks::parse("0.0.0.0/0").expect("all").contains(IpAddr::from([1, 2, 3, 4])));
        assert!(Networks::parse(" , ").expect("none").is_empty());
        for wrong in ["10.0.0.0/33", "2001:db8::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/-1", "localhost"] {
            assert!(Networks::parse(wrong).is_err_and(|why| why.contains("10.0.0.0/8")), "{wrong}");
        }
    }
}

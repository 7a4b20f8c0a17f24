//! Where a sink is, as it is configured: a URL with what is published to as its parameters. Not here: how it
//! is connected to.

use std::{fmt, str::FromStr};

use entities::{masked, redis::RedisUrl};
use lapin::uri::AMQPUri;
use percent_encoding::percent_decode_str;

/// Entries that a stream keeps, of Redis about.
const MAX_LENGTH: u64 = 1_000_000;
/// The name of what is published to, where none is given.
const NAME: &str = "xp-events";
/// NATS subjects begin with it; dots and hyphens part what a stream may be called.
const SUBJECT: &str = "xp.events";
const STREAM: &str = "XP_EVENTS";

/// Names are that long at most, bytes.
const LONGEST_NAME: usize = 100;
/// Parameters of an AMQP URL, besides ours.
const OF_AMQP: [&str; 5] = ["auth_mechanism", "channel_max", "connection_timeout", "frame_max", "heartbeat"];

const EXPECTED: &str = "it must begin with redis://, rediss://, amqp://, amqps://, nats:// or tls://";

/// A sink's URL.
#[derive(Clone)]
pub struct SinkUrl {
    /// The address without its account, and what is published to.
    name: String,
    pub(super) target: SinkTarget,
}

#[derive(Clone)]
pub(super) enum SinkTarget {
    /// A stream of Redis.
    Redis {
        /// The server, or the sentinels.
        url: Box<RedisUrl>,
        /// The key.
        stream: String,
        /// Entries that it keeps, about.
        max_length: u64,
    },
    /// An exchange of RabbitMQ.
    Amqp {
        /// The server and the virtual host.
        url: Box<AMQPUri>,
        /// Of the type `topic`.
        exchange: String,
    },
    /// A stream of NATS JetStream.
    Nats {
        /// The server, without the account.
        url: String,
        /// Who signs in there.
        account: NatsAccount,
        /// What subjects begin with.
        subject: String,
        /// The stream that keeps them.
        stream: String,
        /// Messages that it keeps, where it is made.
        max_length: u64,
    },
}

/// Who signs in to NATS.
#[derive(Clone)]
pub(super) enum NatsAccount {
    /// Nobody.
    None,
    /// By name and password.
    Password(String, String),
    /// By a token.
    Token(String),
}

impl SinkUrl {
    /// The name of the sink in logs and metrics, without the account of its URL.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its reader of the log: another account or password is the same sink.
    pub(super) fn consumer(&self) -> String {
        format!("sink {}", self.name)
    }

    /// As it may be shown.
    pub fn show(text: &str) -> String {
        masked::url(text)
    }
}

impl fmt::Debug for SinkUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl FromStr for SinkUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, _) = text.split_once("://").ok_or(EXPECTED)?;
        let (address, query) = text.split_once('?').unwrap_or((text, ""));
        let mut parameters = Parameters::parse(query);
        let (target, place) = match scheme {
            "redis" | "rediss" | "redis+sentinel" | "rediss+sentinel" => {
                let stream = parameters.take("stream")?.unwrap_or_else(|| NAME.to_owned());
                let max_length = parameters.take_length()?;
                // The others are those of a Redis URL.
                let url = format!("{address}{}", parameters.rest());
                let url = Box::new(url.parse::<RedisUrl>()?);
                (SinkTarget::Redis { url, stream: stream.clone(), max_length }, stream)
            }
            "amqp" | "amqps" => {
                let exchange = parameters.take("exchange")?.unwrap_or_else(|| NAME.to_owned());
                if exchange.len() > LONGEST_NAME {
                    return Err(format!("the name of the exchange has more than {LONGEST_NAME} bytes"));
                }
                parameters.expect_only(&OF_AMQP)?;
                let url = format!("{address}{}", parameters.rest());
                let mut url: AMQPUri = url.parse().map_err(|_| "it is not the URL of a RabbitMQ server")?;
                // The library takes such a host for none, and none for this machine.
                if let Some(host) = ipv6_host(address) {
                    host.clone_into(&mut url.authority.host);
                }
                (SinkTarget::Amqp { url: Box::new(url), exchange: exchange.clone() }, exchange)
            }
            "nats" | "tls" => {
                let subject = parameters.take("subject")?.unwrap_or_else(|| SUBJECT.to_owned());
                let stream = parameters.take("stream")?.unwrap_or_else(|| STREAM.to_owned());
                let max_length = parameters.take_length()?;
                parameters.expect_only(&[])?;
                if !subject.split('.').all(is_token) || !is_token(&stream) {
                    return Err(
                        "subject and stream have letters, digits, `-` and `_`; a subject has dots, too"
                            .to_owned(),
                    );
                }
                let (account, url) = without_account(address)?;
                url.parse::<async_nats::ServerAddr>().map_err(|_| "it is not the URL of a NATS server")?;
                let target = SinkTarget::Nats { url, account, subject: subject.clone(), stream, max_length };
                (target, subject)
            }
            _ => return Err(EXPECTED.to_owned()),
        };
        let address = masked::url(address).replace("***@", "");
        Ok(Self { name: format!("{address} {place}"), target })
    }
}

/// A part of a subject, or the name of a stream.
fn is_token(text: &str) -> bool {
    let is_allowed = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '-' | '_');
    (1..=LONGEST_NAME).contains(&text.len()) && text.chars().all(is_allowed)
}

/// The host of an address, where it is one of IPv6.
fn ipv6_host(address: &str) -> Option<&str> {
    let authority = address.split_once("://")?.1;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    Some(host.strip_prefix('[')?.split_once(']')?.0)
}

/// The account of an address, decoded, and the address without it.
fn without_account(address: &str) -> Result<(NatsAccount, String), String> {
    let (scheme, rest) = address.split_once("://").unwrap_or((address, ""));
    if rest.is_empty() || rest.ends_with('@') {
        return Err("it is not the URL of a NATS server".to_owned());
    }
    let Some((account, host)) = rest.rsplit_once('@') else {
        return Ok((NatsAccount::None, address.to_owned()));
    };
    let decoded = |text: &str| {
        let text = percent_decode_str(text).decode_utf8();
        text.map(String::from).map_err(|_| "the account in it is not UTF-8".to_owned())
    };
    let account = match account.split_once(':') {
        Some((name, password)) => NatsAccount::Password(decoded(name)?, decoded(password)?),
        None => NatsAccount::Token(decoded(account)?),
    };
    Ok((account, format!("{scheme}://{host}")))
}

/// The parameters of a URL, as they were written: some are ours.
struct Parameters<'t>(Vec<(&'t str, Option<&'t str>)>);

impl<'t> Parameters<'t> {
    fn parse(query: &'t str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let split = |pair: &'t str| match pair.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (pair, None),
        };
        Self(pairs.map(split).collect())
    }

    fn take(&mut self, name: &str) -> Result<Option<String>, String> {
        let Some(place) = self.0.iter().position(|(other, _)| *other == name) else { return Ok(None) };
        let value = self.0.remove(place).1.unwrap_or_default();
        let value = percent_decode_str(value).decode_utf8().unwrap_or_default().into_owned();
        if self.0.iter().any(|(other, _)| *other == name) {
            return Err(format!("the parameter {name} is there twice"));
        }
        if value.is_empty() { Err(format!("the parameter {name} is empty")) } else { Ok(Some(value)) }
    }

    fn take_length(&mut self) -> Result<u64, String> {
        let Some(text) = self.take("max_length")? else { return Ok(MAX_LENGTH) };
        let length = text.parse().ok().filter(|length| (1..=i64::MAX.unsigned_abs()).contains(length));
        length.ok_or_else(|| "max_length is how many entries the stream keeps, a number from 1 on".to_owned())
    }

    fn rest(&self) -> String {
        let pair = |(name, value): &(&str, Option<&str>)| match value {
            Some(value) => format!("{name}={value}"),
            None => (*name).to_owned(),
        };
        let pairs: Vec<String> = self.0.iter().map(pair).collect();
        if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
    }

    fn expect_only(&self, known: &[&str]) -> Result<(), String> {
        // What is not known is not repeated: a password may have a question mark.
        let is_known = self.0.iter().all(|(name, _)| known.contains(name));
        if is_known { Ok(()) } else { Err("it has a parameter that is not known".to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_what_is_published_to() {
        for (text, name) in [
            ("redis://:s3cret@cache:6379/2", "redis://cache:6379/2 xp-events"),
            ("redis://cache?stream=a&max_length=10&protocol=3", "redis://cache a"),
            ("amqp://ann:s3cret@queue:5672/%2f?exchange=forms", "amqp://queue:5672/%2f forms"),
            ("amqps://queue/xp?heartbeat=10", "amqps://queue/xp xp-events"),
            ("nats://ann:s3cret@queue:4222", "nats://queue:4222 xp.events"),
            ("tls://queue?subject=forms&stream=FORMS", "tls://queue forms"),
        ] {
            let url: SinkUrl = text.parse().unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(url.name(), name);
            assert!(!format!("{url:?}").contains("s3cret") && !SinkUrl::show(text).contains("s3cret"));
        }
        for wrong in [
            "",
            "kafka://queue",
            "queue",
            "redis://cache?max_length=0",
            "redis://cache?what=1",
            "redis://cache?stream=a&stream=b",
            "nats://queue?what=1",
            "redis://cache?stream=",
            "amqp://queue?exchnage=xp",
            "nats://",
            "nats://ann:pw@",
            "nats://queue?subject=a.>",
            "nats://queue?stream=a.b",
        ] {
            assert!(wrong.parse::<SinkUrl>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn accounts_hosts_and_parameters_are_read_as_they_are_meant() {
        let target =
            |text: &str| text.parse::<SinkUrl>().unwrap_or_else(|why| panic!("{text}: {why}")).target;
        let SinkTarget::Amqp { url, .. } = target("amqp://ann:p%40w@[fd00::5]:5673/%2f") else {
            panic!("AMQP")
        };
        let AMQPUri { authority, vhost, .. } = *url;
        assert_eq!((&*authority.host, authority.port, &*vhost), ("fd00::5", 5673, "/"));
        assert_eq!((&*authority.userinfo.username, &*authority.userinfo.password), ("ann", "p@w"));
        let SinkTarget::Nats { url, account, max_length, .. } =
            target("nats://ann:p%40w@queue:4222?max_length=9")
        else {
            panic!("NATS")
        };
        assert_eq!((&*url, max_length), ("nats://queue:4222", 9));
        assert!(
            matches!(account, NatsAccount::Password(name, password) if name == "ann" && password == "p@w")
        );
        let SinkTarget::Nats { account, .. } = target("tls://t%3Aken@queue") else { panic!("NATS") };
        assert!(matches!(account, NatsAccount::Token(token) if token == "t:ken"));
        for secret in ["nats://ann:s3?cret@host", "redis://a?s3cret", "amqp://ann:s3?cret@host"] {
            let why = secret.parse::<SinkUrl>().expect_err("a parameter that is not known");
            assert!(!why.contains("s3") && !why.contains("cret"), "{why}");
        }
    }
}

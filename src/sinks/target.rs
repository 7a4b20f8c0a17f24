//! Where a sink is, as it is configured: a URL with what is published to as its parameters. Not here: how it is connected to.

use std::{fmt, str::FromStr};

use entities::{masked, redis::RedisUrl};

/// Entries that a Redis stream keeps, about.
const MAX_LENGTH: u64 = 1_000_000;
/// The name of what is published to, where none is given.
const NAME: &str = "xp-events";
/// NATS subjects begin with it; dots and hyphens part what a stream may be called.
const SUBJECT: &str = "xp.events";
const STREAM: &str = "XP_EVENTS";

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
        url: String,
        /// Of the type `topic`.
        exchange: String,
    },
    /// A stream of NATS JetStream.
    Nats {
        /// The server.
        url: String,
        /// What subjects begin with.
        subject: String,
        /// The stream that keeps them.
        stream: String,
    },
}

impl SinkUrl {
    /// What it is called in logs and metrics; it has no secret.
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
        let mut parameters = Parameters::parse(query)?;
        let (target, place) = match scheme {
            "redis" | "rediss" | "redis+sentinel" | "rediss+sentinel" => {
                let stream = parameters.take("stream").unwrap_or_else(|| NAME.to_owned());
                let max_length = match parameters.take("max_length") {
                    Some(text) => text
                        .parse()
                        .ok()
                        .filter(|length| *length > 0)
                        .ok_or("max_length is how many entries the stream keeps, a number from 1 on")?,
                    None => MAX_LENGTH,
                };
                // The others are those of a Redis URL.
                let url = format!("{address}{}", parameters.rest());
                let url = Box::new(url.parse::<RedisUrl>()?);
                (SinkTarget::Redis { url, stream: stream.clone(), max_length }, stream)
            }
            "amqp" | "amqps" => {
                let exchange = parameters.take("exchange").unwrap_or_else(|| NAME.to_owned());
                let url = format!("{address}{}", parameters.rest());
                url.parse::<lapin::uri::AMQPUri>()
                    .map_err(|why| format!("it is not the URL of a RabbitMQ: {why}"))?;
                (SinkTarget::Amqp { url, exchange: exchange.clone() }, exchange)
            }
            "nats" | "tls" => {
                let subject = parameters.take("subject").unwrap_or_else(|| SUBJECT.to_owned());
                let stream = parameters.take("stream").unwrap_or_else(|| STREAM.to_owned());
                parameters.expect_none()?;
                address
                    .parse::<async_nats::ServerAddr>()
                    .map_err(|_| "it is not the URL of a NATS server")?;
                let url = address.to_owned();
                (SinkTarget::Nats { url, subject: subject.clone(), stream }, subject)
            }
            _ => return Err(EXPECTED.to_owned()),
        };
        let address = masked::url(address).replace("***@", "");
        Ok(Self { name: format!("{address} {place}"), target })
    }
}

/// The parameters of a URL, of which some are ours.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn parse(query: &str) -> Result<Self, String> {
        let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        for (index, (name, _)) in pairs.iter().enumerate() {
            if pairs[..index].iter().any(|(other, _)| other == name) {
                return Err(format!("the parameter {name} is there twice"));
            }
        }
        Ok(Self(pairs))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let place = self.0.iter().position(|(other, value)| other == name && !value.is_empty())?;
        Some(self.0.remove(place).1)
    }

    fn rest(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let mut query = form_urlencoded::Serializer::new(String::from("?"));
        query.extend_pairs(&self.0);
        query.finish()
    }

    fn expect_none(&self) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!("the parameter {name} is not known")),
        }
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
            "nats://",
        ] {
            assert!(wrong.parse::<SinkUrl>().is_err(), "{wrong}");
        }
    }
}

//! What the server's own metrics say, read before and after a step.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use anyhow::{Result, ensure};

use crate::client::Connection;

/// The type of whole answers.
const ANSWER: &str = "answer";
/// How the types begin whose values are never used before Redis has said that they are valid.
const CHECKED: [&str; 2] = ["user.", "session."];

/// The sums of the metrics that are looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Scrape {
    /// `cache_requests_total` by tier, type and whether it was a hit.
    cache: BTreeMap<(String, String, bool), f64>,
    /// Subscriptions that wait for events.
    pub(super) subscriptions: f64,
}

impl Scrape {
    pub(super) async fn read(metrics: SocketAddr) -> Result<Self> {
        let mut connection = Connection::open(metrics).await?;
        let answer = connection.exchange(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
        ensure!(answer.status == 200, "/metrics answers {}", answer.status);
        Ok(Self::parse(&String::from_utf8_lossy(answer.body)))
    }

    fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("graphql_server_subscriptions{") {
                let value = rest.rsplit_once("} ").and_then(|(_, value)| value.parse::<f64>().ok());
                scrape.subscriptions += value.unwrap_or_default();
            }
            let Some(rest) = line.strip_prefix("cache_requests_total{") else { continue };
            let Some((labels, value)) = rest.rsplit_once("} ") else { continue };
            let label = |name: &str| {
                let named = labels.split(',').find_map(|label| label.strip_prefix(name)?.strip_prefix("=\""));
                named.and_then(|value| value.strip_suffix('"')).unwrap_or_default().to_owned()
            };
            let key = (label("tier"), label("type"), label("result") == "hit");
            *scrape.cache.entry(key).or_default() += value.parse::<f64>().unwrap_or_default();
        }
        scrape
    }

    /// What was counted since.
    pub(super) fn since(mut self, before: &Self) -> Self {
        for (key, value) in &mut self.cache {
            *value -= before.cache.get(key).unwrap_or(&0.0);
        }
        self
    }

    /// Of whole answers.
    pub(super) fn answers(&self) -> Hits {
        self.hits_of(|kind| kind == ANSWER)
    }

    /// Of rows, pages and counts, which are looked for where there is no whole answer.
    pub(super) fn rows(&self) -> Hits {
        self.hits_of(|kind| kind != ANSWER)
    }

    fn hits_of(&self, is_meant: impl Fn(&str) -> bool) -> Hits {
        let mut hits = Hits::default();
        for ((tier, kind, is_hit), value) in self.cache.iter().filter(|((_, kind, _), _)| is_meant(kind)) {
            // What the process has not is looked for in Redis. Of accounts and sessions, whose validity Redis
            // is asked for, what the process has not is counted there alone.
            if tier == "local" || CHECKED.iter().any(|checked| kind.starts_with(checked)) {
                hits.asked += value;
            }
            match (tier.as_str(), is_hit) {
                ("local", true) => hits.local += value,
                ("redis", true) => hits.redis += value,
                _ => {}
            }
        }
        hits
    }

    /// The same by type, what is looked for most first.
    pub(super) fn by_type(&self) -> Vec<(String, Hits)> {
        let types: BTreeSet<&String> = self.cache.keys().map(|(_, kind, _)| kind).collect();
        let mut all: Vec<_> =
            types.into_iter().map(|kind| (kind.clone(), self.hits_of(|of| of == kind))).collect();
        all.retain(|(_, hits)| hits.asked > 0.0);
        all.sort_by(|(_, one), (_, other)| other.asked.total_cmp(&one.asked));
        all
    }
}

/// Keys that were looked for, and where they were found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Hits {
    pub(super) asked: f64,
    local: f64,
    redis: f64,
}

impl Hits {
    /// The part that was found in the process, in percent, and in the process or in Redis.
    pub(super) fn percent(&self) -> (f64, f64) {
        let part = |found: f64| found * 100.0 / self.asked.max(1.0);
        (part(self.local), part(self.local + self.redis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_counted_between_two_scrapes() {
        let line = |tier, of, result, value| {
            format!("cache_requests_total{{tier=\"{tier}\",type=\"{of}\",result=\"{result}\"}} {value}\n")
        };
        let before = Scrape::parse(&line("local", "form.by_ids", "hit", 10));
        let lines = [
            line("local", "form.by_ids", "hit", 90),
            line("local", "form.by_ids", "absent", 20),
            line("redis", "form.by_ids", "hit", 15),
            line("redis", "form.by_ids", "absent", 5),
            line("local", "user.by_ids", "hit", 70),
            line("redis", "user.by_ids", "absent", 30),
            line("local", "answer", "absent", 7),
        ];
        let since = Scrape::parse(&lines.concat()).since(&before);
        assert_eq!(since.rows(), Hits { asked: 200.0, local: 150.0, redis: 15.0 });
        assert_eq!(since.answers(), Hits { asked: 7.0, local: 0.0, redis: 0.0 });
        assert_eq!(since.by_type().len(), 3);
    }
}

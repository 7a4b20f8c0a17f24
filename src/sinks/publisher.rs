//! Publishes transactions to one sink: events of the same key one after the other, each confirmed before the
//! next is sent, those of different keys at the same time. Not here: what a sink's own protocol makes of one
//! event.

use std::{collections::VecDeque, time::Duration};

use entities::events::{EventPosition, ExportedTransaction};
use futures_util::{StreamExt as _, stream};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::time::{Instant, timeout_at};

use super::{amqp::Amqp, cloud_event::CloudEvent, nats::Nats, redis_stream::RedisStream, target::SinkTarget};

/// How long a batch may take until the last events are sent, and until the last are confirmed: less than is
/// left of the lease.
const BATCH_WITHIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(4_500));
/// Keys whose events are sent at the same time.
const AT_A_TIME: usize = 64;

/// A connection to a sink.
pub(super) struct Publisher {
    source: String,
    sink: SinkConnection,
}

enum SinkConnection {
    Redis(RedisStream),
    Amqp(Box<Amqp>),
    Nats(Box<Nats>),
}

impl Publisher {
    /// Connects, and makes what is published to where that is missing.
    pub(super) async fn open(target: SinkTarget, source: String) -> Result<Self, String> {
        let sink = match target {
            SinkTarget::Redis { url, stream, max_length } => {
                SinkConnection::Redis(RedisStream::new(&url, &stream, max_length))
            }
            SinkTarget::Amqp { url, exchange } => {
                SinkConnection::Amqp(Box::new(Amqp::open(&url, &exchange).await?))
            }
            SinkTarget::Nats { url, account, subject, stream, max_length } => {
                let opening = Nats::open((&url, &account), &subject, (&stream, max_length));
                SinkConnection::Nats(Box::new(opening.await?))
            }
        };
        Ok(Self { source, sink })
    }

    /// Whether it may be used again after a failure. What has failed for a while must not be made anew each
    /// time: what was given up may go on for as long as the other side is silent.
    pub(super) fn is_usable(&self) -> bool {
        match &self.sink {
            // It connects anew by itself.
            SinkConnection::Redis(_) => true,
            SinkConnection::Amqp(amqp) => amqp.is_connected(),
            SinkConnection::Nats(nats) => nats.is_connected(),
        }
    }

    /// Done when the sink has confirmed that it has the event.
    async fn publish(&self, event: &CloudEvent, until: Instant) -> Result<(), String> {
        let publishing = async {
            match &self.sink {
                SinkConnection::Redis(redis) => redis.publish(event).await,
                SinkConnection::Amqp(amqp) => amqp.publish(event).await,
                SinkConnection::Nats(nats) => nats.publish(event).await,
            }
        };
        timeout_at(until, publishing).await.unwrap_or_else(|_| Err(LATE_CONFIRMATION.to_owned()))
    }
}

const LATE_CONFIRMATION: &str = "it was not confirmed in time";

/// What was published of transactions that are not all published yet. While this server goes on, it is not
/// published again.
#[derive(Debug, Default)]
pub(super) struct Batch {
    published: FxHashSet<String>,
}

/// What came of publishing some transactions.
pub(super) struct PublishOutcome {
    /// All transactions up to this one are published.
    pub(super) up_to: Option<EventPosition>,
    /// Events that were confirmed.
    pub(super) events: u64,
    /// Events that were sent and not confirmed.
    pub(super) failures: u64,
    /// Why the last of those was not.
    pub(super) failure: Option<String>,
}

impl Batch {
    /// Publishes these transactions, as far as time and the sink allow.
    pub(super) async fn publish(
        &mut self,
        publisher: &Publisher,
        transactions: &[ExportedTransaction],
    ) -> PublishOutcome {
        let mut chains: FxHashMap<String, VecDeque<CloudEvent>> = FxHashMap::default();
        let mut missing: Vec<FxHashSet<String>> = Vec::with_capacity(transactions.len());
        for transaction in transactions {
            let events = transaction.events.iter().filter(|event| !self.published.contains(&event.id));
            let events =
                events.filter_map(|event| CloudEvent::of(event, transaction.written_at, &publisher.source));
            let mut ids = FxHashSet::default();
            for event in events {
                ids.insert(event.id.clone());
                chains.entry(event.key.clone()).or_default().push_back(event);
            }
            missing.push(ids);
        }
        let begun = Instant::now();
        let until = (begun + BATCH_WITHIN.0, begun + BATCH_WITHIN.1);
        let sent = stream::iter(chains.into_values()).map(|chain| send_in_order(publisher, chain, until));
        let sent: Vec<(Vec<String>, Option<String>)> = sent.buffer_unordered(AT_A_TIME).collect().await;
        let (mut events, mut failures, mut failure) = (0, 0, None);
        for (confirmed, why) in sent {
            events += confirmed.len() as u64;
            self.published.extend(confirmed);
            failures += u64::from(why.is_some());
            failure = why.or(failure);
        }
        let is_done = |ids: &FxHashSet<String>| ids.iter().all(|id| self.published.contains(id));
        let done = missing.iter().take_while(|ids| is_done(ids)).count();
        for transaction in &transactions[..done] {
            for event in &transaction.events {
                self.published.remove(&event.id);
            }
        }
        let up_to = transactions[..done].last().map(ExportedTransaction::position);
        PublishOutcome { up_to, events, failures, failure }
    }
}

/// Sends events one after the other until one is not confirmed, or the time is over: the ids of those that
/// were, and why not the next.
async fn send_in_order(
    publisher: &Publisher,
    chain: VecDeque<CloudEvent>,
    until: (Instant, Instant),
) -> (Vec<String>, Option<String>) {
    let mut confirmed = Vec::with_capacity(chain.len());
    for event in chain {
        if Instant::now() >= until.0 {
            break;
        }
        match publisher.publish(&event, until.1).await {
            Ok(()) => confirmed.push(event.id),
            Err(why) => return (confirmed, Some(why)),
        }
    }
    (confirmed, None)
}

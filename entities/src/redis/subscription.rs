//! A channel of Redis, listened to for as long as somebody does. Messages can be lost while the connection
//! is: the listener is told, and must read the truth again. A channel may be silent for long, and so is a
//! connection whose other end has vanished; so Redis is asked every few seconds whether it is still there,
//! and a connection on which it does not answer is given up.

use std::{pin::pin, time::Duration};

use futures_util::StreamExt as _;
use redis::aio::PubSubSink;
use tokio::{sync::mpsc, task::AbortHandle};

use super::{CONNECT_TIMEOUT, Redis};

/// What a subscriber receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A message.
    Message(Vec<u8>),
    /// The connection was lost, or the listener was too slow: messages may be missing before this point. Also the
    /// first thing that is heard once the subscription stands.
    Gap,
}

/// A subscription; ends when it is dropped.
#[derive(Debug)]
pub struct Subscription {
    messages: mpsc::Receiver<Delivery>,
    task: AbortHandle,
}

/// Messages that a slow listener may be behind.
const BACKLOG: usize = 4_096;
/// Between attempts to connect.
const PAUSE: Duration = Duration::from_millis(250);
/// Between an answer on the connection and the next question.
const PING_EVERY: Duration = Duration::from_secs(2);
/// How long Redis may take to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

impl Subscription {
    pub(super) fn begin(redis: Redis, channel: String) -> Self {
        let (sender, messages) = mpsc::channel(BACKLOG);
        let task = tokio::spawn(async move {
            loop {
                listen(&redis, &channel, &sender).await;
                if sender.is_closed() {
                    return;
                }
                tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
            }
        });
        Self { messages, task: task.abort_handle() }
    }

    /// The next message, or a gap.
    pub async fn next(&mut self) -> Delivery {
        self.messages.recv().await.unwrap_or(Delivery::Gap)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Listens until the connection or the listener is gone.
async fn listen(redis: &Redis, channel: &str, sender: &mpsc::Sender<Delivery>) {
    let connect = async {
        let (client, master) = redis.target().await?;
        // Others may still tell the old one something.
        if master.as_ref().is_some_and(|master| !master.is_settled()) {
            return Ok(None);
        }
        let mut connection = client.get_async_pubsub().await?;
        connection.subscribe(channel).await?;
        Ok(Some((connection, master)))
    };
    let (connection, master) = match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
        Ok(Ok(Some(connected))) => connected,
        Ok(Err(error)) => return redis.complain("subscribe", &error),
        _ => return,
    };
    if sender.send(Delivery::Gap).await.is_err() {
        return;
    }
    let (questions, mut messages) = connection.split();
    let mut silence = pin!(until_silent(questions));
    let mut replaced = pin!(redis.inner.route.until_unconfirmed(master.as_ref()));
    loop {
        let message = tokio::select! {
            message = messages.next() => message,
            () = &mut silence => None,
            () = &mut replaced => None,
        };
        let Some(message) = message else { break };
        // A listener who is far behind gets what there is room for, then the news that something is missing.
        if sender.try_send(Delivery::Message(message.get_payload_bytes().to_vec())).is_err()
            && sender.send(Delivery::Gap).await.is_err()
        {
            return;
        }
    }
    tracing::warn!(
        channel,
        "the connection to Redis on which other processes are heard was lost; connecting again"
    );
}

/// Done when Redis does not answer on this connection any more.
async fn until_silent(mut questions: PubSubSink) {
    loop {
        tokio::time::sleep(PING_EVERY).await;
        // A refusal is an answer, too; and where the connection is closed, the messages end by themselves.
        let answer = tokio::time::timeout(PING_TIMEOUT, questions.ping::<redis::Value>());
        if answer.await.is_err() {
            return;
        }
    }
}

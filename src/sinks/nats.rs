//! NATS JetStream as a sink: a stream keeps the subjects `<subject>.<type>.<key>`; each message is confirmed,
//! and has its id in `Nats-Msg-Id`, by which the stream leaves out what comes twice within its window. The
//! stream is made where it is missing. Not here: which events, and in what order.

use std::time::Duration;

use async_nats::{
    Client, ConnectOptions, HeaderMap,
    connection::State,
    header::NATS_MESSAGE_ID,
    jetstream::{self, context::Context, stream::Config},
};

use super::{
    cloud_event::{CONTENT_TYPE, CloudEvent},
    described,
    target::NatsAccount,
};

/// How long the stream knows ids.
const DUPLICATES: Duration = Duration::from_mins(2);

pub(super) struct Nats {
    client: Client,
    context: Context,
    subject: String,
}

impl Nats {
    pub(super) async fn open(
        (url, account): (&str, &NatsAccount),
        subject: &str,
        (stream, max_length): (&str, u64),
    ) -> Result<Self, String> {
        let options = match account.clone() {
            NatsAccount::None => ConnectOptions::new(),
            NatsAccount::Password(name, password) => ConnectOptions::with_user_and_password(name, password),
            NatsAccount::Token(token) => ConnectOptions::with_token(token),
        };
        // The sink makes another connection itself: one that was given up must not go on sending.
        let connecting = options.name("xp-graph").max_reconnects(1).connect(url);
        let client = connecting.await.map_err(|error| described(&error))?;
        let context = jetstream::new(client.clone());
        let config = Config {
            name: stream.to_owned(),
            subjects: vec![format!("{subject}.>")],
            duplicate_window: DUPLICATES,
            max_messages: i64::try_from(max_length).unwrap_or(i64::MAX),
            ..Config::default()
        };
        context.get_or_create_stream(config).await.map_err(|error| described(&error))?;
        Ok(Self { client, context, subject: subject.to_owned() })
    }

    /// Whether the connection may be used again.
    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    pub(super) async fn publish(&self, event: &CloudEvent) -> Result<(), String> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, event.id.as_str());
        headers.insert("Content-Type", CONTENT_TYPE);
        let subject = format!("{}.{}.{}", self.subject, event.kind, event.key);
        let json = event.json.clone().into();
        let published = self.context.publish_with_headers(subject, headers, json).await;
        let confirmed = published.map_err(|error| described(&error))?.await;
        confirmed.map(drop).map_err(|error| described(&error))
    }
}

//! NATS JetStream as a sink: a stream keeps the subjects `<subject>.<type>.<key>`; each message is confirmed, and has its id in
//! `Nats-Msg-Id`, by which the stream leaves out what comes twice within its window. The stream is made where it is missing. Not here:
//! which events, and in what order.

use std::time::Duration;

use async_nats::{
    ConnectOptions, HeaderMap,
    header::NATS_MESSAGE_ID,
    jetstream::{self, context::Context, stream::Config},
};

use super::{
    cloud_event::{CONTENT_TYPE, CloudEvent},
    described,
};

/// How long the stream knows ids.
const DUPLICATES: Duration = Duration::from_mins(2);

pub(super) struct Nats {
    context: Context,
    subject: String,
}

impl Nats {
    pub(super) async fn open(url: &str, subject: &str, stream: &str) -> Result<Self, String> {
        let client = ConnectOptions::new().name("xp-graph").connect(url).await;
        let context = jetstream::new(client.map_err(|error| described(&error))?);
        let config = Config {
            name: stream.to_owned(),
            subjects: vec![format!("{subject}.>")],
            duplicate_window: DUPLICATES,
            ..Config::default()
        };
        context.get_or_create_stream(config).await.map_err(|error| described(&error))?;
        Ok(Self { context, subject: subject.to_owned() })
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

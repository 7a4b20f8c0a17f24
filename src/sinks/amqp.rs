//! RabbitMQ as a sink (AMQP 0.9.1): a durable exchange of the type `topic`, with the event's type and key as
//! routing key; messages are persistent, and each is confirmed by the broker. What no queue is bound for, the
//! broker drops, as it does for every publisher: bind queues before. Not here: which events, and in what
//! order.

use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
    options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions},
    types::{FieldTable, ShortString},
    uri::AMQPUri,
};

use super::{
    cloud_event::{CONTENT_TYPE, CloudEvent},
    described,
};

/// The messages survive a restart of the broker.
const PERSISTENT: u8 = 2;

pub(super) struct Amqp {
    /// Closed when it is dropped.
    connection: Connection,
    channel: Channel,
    exchange: ShortString,
}

impl Amqp {
    pub(super) async fn open(url: &AMQPUri, exchange: &str) -> Result<Self, String> {
        let opening = async {
            let properties = ConnectionProperties::default().with_connection_name("xp-graph".into());
            let connection = Connection::connect_uri(url.clone(), properties).await?;
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            let exchange: ShortString = exchange.into();
            let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            let declaring = channel.exchange_declare(
                exchange.clone(),
                ExchangeKind::Topic,
                options,
                FieldTable::default(),
            );
            declaring.await?;
            Ok(Self { connection, channel, exchange })
        };
        opening.await.map_err(|error: lapin::Error| described(&error))
    }

    /// Whether the connection may be used again.
    pub(super) fn is_connected(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }

    pub(super) async fn publish(&self, event: &CloudEvent) -> Result<(), String> {
        if self.connection.status().blocked() {
            return Err("the broker takes no messages now: it is short of memory or disk".to_owned());
        }
        let properties = BasicProperties::default()
            .with_content_type(CONTENT_TYPE.into())
            .with_delivery_mode(PERSISTENT)
            .with_message_id(event.id.as_str().into())
            .with_type(event.kind.as_str().into());
        let routing_key = format!("{}.{}", event.kind, event.key);
        let publishing = async {
            let options = BasicPublishOptions::default();
            let (exchange, json) = (self.exchange.clone(), event.json.as_bytes());
            self.channel.basic_publish(exchange, routing_key.into(), options, json, properties).await?.await
        };
        match publishing.await.map_err(|error| described(&error))? {
            Confirmation::Ack(_) => Ok(()),
            Confirmation::Nack(_) | Confirmation::NotRequested => {
                Err("the broker did not take it".to_owned())
            }
        }
    }
}

//! What webhooks are told, and what became of it. Not here: sending (the server), SQL (`entities::webhook::delivery`).

use std::sync::{Arc, LazyLock};

use async_graphql::{Enum, ID, InputObject};
use entities::{
    database::{page::Keyset, scope::Scope},
    id::{SubmissionId, WebhookDeliveryId, WebhookId},
    webhook::{
        WebhookEvent,
        delivery::{self, Filter, KEYSET, Model},
    },
};

use super::Webhook;
use crate::graph::{
    edges::Edges as _,
    input::{id, some_of},
    list::{Listed, Lists, uuids},
    node::{NODE, node_id},
    query::Query,
    scalar::enum_leaf,
    subgraph::Domain,
};
use engine::{
    connection::PageArgs,
    context::Context,
    error::FieldError,
    object::{Entity, Object, Visible},
};

/// What became of a delivery. New values may be added.
#[derive(Enum, Copy, Clone, Eq, PartialEq)]
#[graphql(remote = "entities::webhook::delivery::DeliveryStatus")]
pub(crate) enum WebhookDeliveryStatus {
    /// It waits for its turn, or for the next attempt.
    Pending,
    /// The receiver has taken it.
    Delivered,
    /// It was given up: after three days, or because the receiver is gone.
    Failed,
    /// The owner of the webhook may not see any more what it is about, so nothing was sent.
    Skipped,
}

enum_leaf!(entities::webhook::delivery::DeliveryStatus, WebhookDeliveryStatus);

/// A delivery that the viewer may see.
#[derive(Clone)]
pub(crate) struct WebhookDelivery {
    row: Arc<Model>,
}

impl Visible for WebhookDelivery {
    type Row = Model;

    /// The row does not say whose webhook it is: the finders of `entities::webhook::delivery` are scoped.
    fn visible_to(_: &Context, row: Arc<Model>) -> Option<Self> {
        Some(Self { row })
    }
}

node_id!(WebhookDeliveryId, WebhookDelivery, delivery::BY_IDS);

impl WebhookDelivery {
    /// The submission that it is about.
    fn submission(&self) -> Option<SubmissionId> {
        match self.row.event {
            WebhookEvent::SubmissionCreated => Some(SubmissionId(self.row.subject_id)),
            WebhookEvent::FormCreated
            | WebhookEvent::FormUpdated
            | WebhookEvent::FormPublished
            | WebhookEvent::FormStatusChanged => None,
        }
    }
}

impl Entity for WebhookDelivery {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<WebhookDelivery>> = LazyLock::new(|| {
            Object::<WebhookDelivery>::new(
                "WebhookDelivery",
                "One event that one webhook is told of. Those of one form are told one after the other.",
            )
            .of(Domain::Forms)
            .implements(NODE)
            .key("id")
            .column(
                "id",
                "A lower-case UUID: the `webhook-id` of all its attempts, by which receivers know \
                 what they have had.",
                |delivery| &delivery.row.id,
            )
            .one("webhook", "Who is told.", |delivery| delivery.row.webhook_id)
            .column("event", "What has happened.", |delivery| &delivery.row.event)
            .maybe("form", "The form. Null where it is gone or the viewer may not see it.", |delivery| {
                Some(delivery.row.form_id)
            })
            .maybe(
                "submission",
                "The submission. Null where the event is about the form alone, and where the viewer \
                 may not see it.",
                WebhookDelivery::submission,
            )
            .column("happenedAt", "When it has happened.", |delivery| &delivery.row.happened_at)
            .column("status", "What became of it.", |delivery| &delivery.row.status)
            .column("attempts", "How often it was sent.", |delivery| &delivery.row.attempts)
            .column("lastAttemptAt", "When it was sent last. Null before.", |delivery| {
                &delivery.row.last_attempt_at
            })
            .column(
                "nextAttemptAt",
                "When it is sent again. Null where it waits for its turn, and at the end.",
                |delivery| &delivery.row.next_attempt_at,
            )
            .column(
                "lastStatusCode",
                "The HTTP status of the last answer. Null before the first one, and where the last \
                 attempt got none.",
                |delivery| &delivery.row.last_status_code,
            )
            .column("lastError", "Why the last attempt failed. Null where it did not.", |delivery| {
                &delivery.row.last_error
            })
            .column("createdAt", "When it was noted that the webhook is to be told.", |delivery| {
                &delivery.row.created_at
            })
            .column(
                "finishedAt",
                "When it was delivered, given up or skipped. Null before.",
                |delivery| &delivery.row.finished_at,
            )
        });
        &OBJECT
    }
}

/// The arguments of `Webhook.deliveries`.
#[derive(InputObject)]
pub(crate) struct DeliveriesArgs {
    #[graphql(flatten)]
    page: PageArgs,
    /// Any of these.
    statuses: Option<Vec<WebhookDeliveryStatus>>,
}

/// The arguments of `Query.webhookDeliveries`.
#[derive(InputObject)]
pub(crate) struct AllDeliveriesArgs {
    #[graphql(flatten)]
    page: PageArgs,
    /// Of this webhook; of all that the viewer may see without it.
    webhook_id: Option<ID>,
    /// Any of these.
    statuses: Option<Vec<WebhookDeliveryStatus>>,
}

impl Lists for DeliveriesArgs {
    type Object = WebhookDelivery;
    type Filter = Filter;

    fn page(&self) -> &PageArgs {
        &self.page
    }

    fn filter(&self, _: &Context) -> Result<Filter, FieldError> {
        Ok(Filter { webhook_ids: None, statuses: some_of(self.statuses.as_deref()) })
    }

    fn order(&self) -> &'static Keyset<Model> {
        &KEYSET
    }
}

impl Lists for AllDeliveriesArgs {
    type Object = WebhookDelivery;
    type Filter = Filter;

    fn page(&self) -> &PageArgs {
        &self.page
    }

    fn filter(&self, _: &Context) -> Result<Filter, FieldError> {
        let webhook = self.webhook_id.as_ref().map(|given| id("webhookId", given, WebhookId::parse));
        let webhook_ids = webhook.transpose()?.map(|webhook| vec![webhook]);
        Ok(Filter { webhook_ids, statuses: some_of(self.statuses.as_deref()) })
    }

    fn order(&self) -> &'static Keyset<Model> {
        &KEYSET
    }
}

/// `Query.webhookDeliveries`
pub(crate) static ALL: Listed<Query, AllDeliveriesArgs> =
    Listed::whole(&delivery::ALL).reaching(Scope::of_administrators);

/// `Webhook.deliveries`
pub(crate) static OF_WEBHOOKS: Listed<Webhook, DeliveriesArgs> =
    Listed::of(&delivery::OF_WEBHOOKS, |webhook: &Webhook| webhook.id().into())
        .naming(|filter: &mut Filter| uuids(filter.webhook_ids.take()))
        .reaching(Scope::of_administrators);

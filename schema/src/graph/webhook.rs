//! Webhooks as clients see them: where their owners are told of what happens to forms. They are written in
//! `mutation`, what became of each event is in `delivery`. Not here: SQL (`entities::webhook`), sending (the
//! server).

use std::sync::{Arc, LazyLock};

use async_graphql::{Enum, ID, InputObject};
use entities::{
    database::{page::Keyset, scope::Scope},
    id::{FormId, WebhookId},
    store::row::Finder,
    webhook::{self, FORMS, Filter, KEYSET, Row, WebhookEvent as Event},
};

use crate::{
    context::ContextExt as _,
    graph::{
        edges::{Edges as _, FindLoader},
        list::{Listed, Lists},
        node::{NODE, node_id},
        query::Query,
        scalar::enum_leaf,
        subgraph::Domain,
        user::user_ids,
    },
};
use engine::{
    connection::PageArgs,
    context::Context,
    edge::Single,
    error::FieldError,
    object::{Entity, Object, Visible},
    scalar::Leaf,
};

pub(crate) mod delivery;
pub(crate) mod mutation;

/// What a webhook can be told of. New events may be added.
#[derive(Enum, Copy, Clone, Eq, PartialEq)]
#[graphql(remote = "entities::webhook::WebhookEvent")]
pub enum WebhookEvent {
    /// A submission was stored: `submission.created`.
    SubmissionCreated,
    /// A form was made: `form.created`.
    FormCreated,
    /// Title or description of a form changed: `form.updated`.
    FormUpdated,
    /// A version of a form was published: `form.published`.
    FormPublished,
    /// A form was opened, closed or archived: `form.status_changed`.
    FormStatusChanged,
}

enum_leaf!(entities::webhook::WebhookEvent, WebhookEvent);

/// `[WebhookEvent!]!`
struct EventList(Vec<Event>);

impl Leaf for EventList {
    fn type_ref(registry: &mut async_graphql::registry::Registry) -> String {
        format!("[{}]!", <Event as Leaf<crate::Graph>>::type_ref(registry))
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_list(&self.0, out);
    }
}

/// `[ID!]`
struct FormIds(Option<Arc<Vec<FormId>>>);

impl Leaf for FormIds {
    const NULLABLE: bool = true;

    fn type_ref(registry: &mut async_graphql::registry::Registry) -> String {
        format!("[{}]", <FormId as Leaf<crate::Graph>>::type_ref(registry))
    }

    fn write(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Some(ids) => write_list(ids, out),
            None => out.extend(b"null"),
        }
    }
}

fn write_list<L: Leaf<crate::Graph>>(items: &[L], out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        item.write(out);
    }
    out.push(b']');
}

/// A webhook that the viewer may see.
#[derive(Clone)]
pub struct Webhook {
    row: Arc<Row>,
}

impl Visible for Webhook {
    type Row = Row;

    fn visible_to(ctx: &Context, row: Arc<Row>) -> Option<Self> {
        row.is_visible_to(&ctx.scope()).then_some(Self { row })
    }
}

node_id!(WebhookId, Webhook, webhook::BY_IDS);

impl Webhook {
    /// Its id: the key of every edge that starts at a webhook.
    pub(crate) fn id(&self) -> WebhookId {
        self.row.id
    }
}

impl Entity for Webhook {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<Webhook>> = LazyLock::new(|| {
            Object::<Webhook>::new(
                "Webhook",
                "An address that is told of events of forms (Standard Webhooks), as far as its owner \
                 may see them. Seen by its owner and by administrators.",
            )
            .of(Domain::Forms)
            .implements(NODE)
            .key("id")
            .column("id", "A lower-case UUID, the same in every subgraph.", |webhook| &webhook.row.id)
            .one("owner", "Whose rights count.", |webhook| webhook.row.owner_id)
            .column("url", "Where it is told.", |webhook| &webhook.row.url)
            .computed("events", "Of what.", |webhook| EventList(webhook.row.events()))
            .edge(
                "formIds",
                "Of which forms. Null: of all that its owner has made, now and later; where the owner \
                 is an administrator, of all forms.",
                form_ids(&FORMS),
            )
            .column("isEnabled", "False once disabled: what happens then is not told.", |webhook| {
                &webhook.row.is_enabled
            })
            .column("disabledAt", "When it was disabled. Null while it is enabled.", |webhook| {
                &webhook.row.disabled_at
            })
            .column(
                "disabledReason",
                "Why the server disabled it. Null where somebody did, and while it is enabled.",
                |webhook| &webhook.row.disabled_reason,
            )
            .column(
                "failingSince",
                "The first attempt that failed since the last one that did not. Null where none has. After \
                 three days of it the webhook is disabled.",
                |webhook| &webhook.row.failing_since,
            )
            .column(
                "previousSecretUntil",
                "Until when the previous secret signs, too. Null where the secret was never rotated.",
                |webhook| &webhook.row.previous_secret_until,
            )
            .column("createdAt", "When it was made.", |webhook| &webhook.row.created_at)
            .column("updatedAt", "When somebody changed it last.", |webhook| &webhook.row.updated_at)
            .page("deliveries", "What it is told, newest first.", &delivery::OF_WEBHOOKS)
        });
        &OBJECT
    }
}

fn form_ids(forms: &'static Finder<WebhookId, Vec<FormId>>) -> impl engine::object::Edge<Webhook> {
    let load = |ctx: &Context| FindLoader::of(forms, ctx);
    Single::<Webhook, FindLoader<WebhookId, Vec<FormId>>, FormIds>::new(
        load,
        |webhook| (!webhook.row.has_all_forms).then_some(webhook.row.id),
        FormIds,
    )
}

/// The arguments of lists of webhooks.
#[derive(InputObject)]
pub struct WebhooksArgs {
    #[graphql(flatten)]
    page: PageArgs,
    /// Only those that are enabled, or disabled.
    is_enabled: Option<bool>,
    /// Of any of these accounts, at most 1000.
    owner_ids: Option<Vec<ID>>,
}

impl Lists for WebhooksArgs {
    type Object = Webhook;
    type Filter = Filter;

    fn page(&self) -> &PageArgs {
        &self.page
    }

    fn filter(&self, _: &Context) -> Result<Filter, FieldError> {
        Ok(Filter {
            is_enabled: self.is_enabled,
            owner_ids: user_ids("ownerIds", self.owner_ids.as_deref())?,
        })
    }

    fn order(&self) -> &'static Keyset<Row> {
        &KEYSET
    }
}

/// `Query.webhooks`
pub(crate) static ALL: Listed<Query, WebhooksArgs> =
    Listed::whole(&webhook::ALL).reaching(Scope::of_administrators);

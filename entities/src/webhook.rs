//! Webhooks: where an owner wants to be told of events of forms. Each is an address, some events, and the
//! forms that they are about. A deliverer needs rights like everybody else: what the owner of a webhook may
//! not see is not told. They are changed in `write`; events become deliveries in `expand`, which wait in
//! `lane`s and are `delivery`s; which addresses may be called is in `targets`. Not here: HTTP (the server),
//! what is signed and how (`secret`).

use std::sync::Arc;

use futures_util::FutureExt as _;
use rustc_hash::FxHashMap;
use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    cache::Tag,
    clock::Time,
    database::{
        page::{Keyset, by_time},
        role::Role,
        scope::Scope,
        sql::{Cells, Hidden, Sql, record},
        text_enum::text_enum,
    },
    error::Error,
    events::FormChange,
    id::{FormId, UserId, WebhookId},
    store::{
        Store,
        list::{Filtering, List, Names},
        row::{self, ById, Finder},
    },
};

pub mod delivery;
pub mod expand;
pub mod form;
pub mod lane;
pub mod secret;
pub mod subject;
pub mod targets;
pub mod write;

/// What the consumer of the log is called that makes deliveries.
pub(crate) const CONSUMER: &str = "webhooks";

text_enum! {
    /// What a webhook can be told of.
    WebhookEvent {
        /// A submission was stored.
        SubmissionCreated = "SUBMISSION_CREATED",
        /// A form was made.
        FormCreated = "FORM_CREATED",
        /// Title or description of a form changed.
        FormUpdated = "FORM_UPDATED",
        /// A version of a form was published.
        FormPublished = "FORM_PUBLISHED",
        /// A form was opened, closed or archived.
        FormStatusChanged = "FORM_STATUS_CHANGED",
    }
}

impl WebhookEvent {
    /// The event's `type` in messages of Standard Webhooks.
    pub fn wire_name(self) -> &'static str {
        match self {
            Self::SubmissionCreated => "submission.created",
            Self::FormCreated => "form.created",
            Self::FormUpdated => "form.updated",
            Self::FormPublished => "form.published",
            Self::FormStatusChanged => "form.status_changed",
        }
    }

    /// What a change of a form is; drafts are saved every few seconds, and nobody is told.
    fn of_form(change: FormChange) -> Option<Self> {
        match change {
            FormChange::Created => Some(Self::FormCreated),
            FormChange::Updated => Some(Self::FormUpdated),
            FormChange::Published => Some(Self::FormPublished),
            FormChange::StatusChanged => Some(Self::FormStatusChanged),
            FormChange::Drafted | FormChange::Other => None,
        }
    }
}

/// Some events, as they are stored: names with commas between them. What a newer program knows is left out.
fn events_of(text: &str) -> Vec<WebhookEvent> {
    text.split(',').filter_map(WebhookEvent::parse).collect()
}

record! {
    /// A row of `webhooks`, whole.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "webhooks")]
    pub struct Model {
        /// Primary key.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: WebhookId,
        /// The account whose rights count.
        pub owner_id: UserId,
        /// Where it is told.
        pub url: String,
        /// Of what: names of `WebhookEvent` with commas between them.
        pub events: String,
        /// Of all forms of its owner, of an administrator's of all forms; else of those in `webhook_forms`.
        pub has_all_forms: bool,
        /// False once disabled.
        pub is_enabled: bool,
        /// When it was disabled.
        pub disabled_at: Option<Time>,
        /// Why the server disabled it; none where somebody did.
        pub disabled_reason: Option<String>,
        /// The first attempt that failed since the last one that did not.
        pub failing_since: Option<Time>,
        /// What deliveries are signed with, sealed.
        pub secret: Hidden,
        /// The secret before, sealed.
        pub previous_secret: Option<Hidden>,
        /// Until when that one signs, too.
        pub previous_secret_until: Option<Time>,
        /// The end of the log of events when it was enabled: earlier events are not told.
        pub from_transaction_id: i64,
        /// The second part of that key.
        pub from_number: i64,
        /// When it was made.
        pub created_at: Time,
        /// Last change by somebody.
        pub updated_at: Time,
    }
}

/// The account that owns a webhook.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    /// The account whose rights count.
    #[sea_orm(belongs_to = "crate::user::Entity", from = "Column::OwnerId", to = "crate::user::Column::Id")]
    Owner,
}

impl Related<crate::user::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Owner.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}

record! {
    /// What is read of `webhooks` for the graph: neither its secrets nor where it begins.
    #[derive(Clone, Debug, PartialEq, Eq, DerivePartialModel, Serialize, Deserialize)]
    #[sea_orm(entity = "Entity")]
    pub struct Row {
        /// Primary key.
        pub id: WebhookId,
        /// The account whose rights count.
        pub owner_id: UserId,
        /// Where it is told.
        pub url: String,
        /// Of what.
        pub events: String,
        /// Of all forms.
        pub has_all_forms: bool,
        /// False once disabled.
        pub is_enabled: bool,
        /// When it was disabled.
        pub disabled_at: Option<Time>,
        /// Why the server disabled it.
        pub disabled_reason: Option<String>,
        /// The first attempt that failed since the last one that did not.
        pub failing_since: Option<Time>,
        /// Until when the secret before signs, too.
        pub previous_secret_until: Option<Time>,
        /// When it was made.
        pub created_at: Time,
        /// Last change by somebody.
        pub updated_at: Time,
    }
}

impl ById for Row {
    const ID: Column = Column::Id;
    const BY_IDS: &'static str = "webhook.by_ids";
    type Id = WebhookId;

    fn id(&self) -> WebhookId {
        self.id
    }
}

impl Row {
    /// Webhooks are seen by their owner and by administrators.
    pub fn is_visible_to(&self, scope: &Scope) -> bool {
        scope.administers() || scope.user() == Some(self.owner_id)
    }

    /// The events that the webhook is told of.
    pub fn events(&self) -> Vec<WebhookEvent> {
        events_of(&self.events)
    }
}

/// May the owner of a webhook be told of this form? Administrators of all, those who make forms of their own.
pub(crate) fn may_hear(owner: UserId, role: Role, form_owner: UserId) -> bool {
    match role {
        Role::Admin => true,
        Role::Manager | Role::Editor => owner == form_owner,
        Role::Collector | Role::Viewer => false,
    }
}

/// Webhooks by id.
///
/// # Errors
/// The database's.
pub async fn by_ids(store: &Store, ids: &[WebhookId]) -> Result<FxHashMap<WebhookId, Arc<Row>>, Error> {
    row::by_ids(store, ids).await
}

/// `by_ids`, as edges load it.
pub static BY_IDS: Finder<WebhookId, Row> = Finder::by_id();

/// The forms of webhooks that are told of some only; others have none here. Who may see them is decided by
/// the caller, who holds the webhook. Not cached: nobody asks often.
pub static FORMS: Finder<WebhookId, Vec<FormId>> =
    Finder::open("webhook.forms", |store, _, ids| forms_of(store, ids).boxed());

async fn forms_of(store: &Store, ids: &[WebhookId]) -> Result<FxHashMap<WebhookId, Arc<Vec<FormId>>>, Error> {
    let mut sql = store.sql();
    sql.select::<form::Entity>(&[form::Column::WebhookId, form::Column::FormId]);
    sql.filter(form::Column::WebhookId).any_id(ids).push(" ORDER BY t.form_id");
    let read = |cells: &mut Cells<'_>| Ok((cells.next::<WebhookId>()?, cells.next::<FormId>()?));
    let mut found = FxHashMap::<WebhookId, Vec<FormId>>::default();
    for (webhook, form) in store.fetch("webhook.forms", "webhook_forms", sql, read).await? {
        found.entry(webhook).or_default().push(form);
    }
    Ok(found.into_iter().map(|(webhook, forms)| (webhook, Arc::new(forms))).collect())
}

/// Newest first.
pub static KEYSET: Keyset<Row> =
    Keyset { name: "webhooks.created_at", descending: true, keys: &by_time!(CreatedAt, created_at) };

/// Which webhooks a list has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Filter {
    /// Enabled, or disabled.
    pub is_enabled: Option<bool>,
    /// Of any of these accounts.
    pub owner_ids: Option<Vec<UserId>>,
}

impl Filtering for Filter {}

impl Filter {
    fn push(&self, sql: &mut Sql, scope: &Scope) {
        scope.push_own(sql, Column::OwnerId, scope.administers());
        if let Some(is_enabled) = self.is_enabled {
            sql.push(if is_enabled { " AND " } else { " AND NOT " }).column(Column::IsEnabled);
        }
        if let Some(owners) = &self.owner_ids {
            sql.and(Column::OwnerId).any_id(owners);
        }
    }
}

/// All webhooks.
pub static ALL: List<Row, Filter> =
    List::new(Names { page: "webhook.page", count: "webhook.count", parent: None }, Filter::push)
        .retention(|_, _| vec![Tag::Type("Webhook")]);

//! Which forms a webhook is told of, where that is not all of them.

use sea_orm::entity::prelude::*;

use crate::{
    database::sql::record,
    id::{FormId, WebhookId},
};

record! {
    /// A row of `webhook_forms`.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "webhook_forms")]
    pub struct Model {
        /// First part of the primary key.
        #[sea_orm(primary_key, auto_increment = false)]
        pub webhook_id: WebhookId,
        /// The form.
        #[sea_orm(primary_key, auto_increment = false)]
        pub form_id: FormId,
    }
}

/// A webhook and a form.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    /// The webhook.
    #[sea_orm(belongs_to = "super::Entity", from = "Column::WebhookId", to = "super::Column::Id")]
    Webhook,
    /// The form.
    #[sea_orm(belongs_to = "crate::form::Entity", from = "Column::FormId", to = "crate::form::Column::Id")]
    Form,
}

impl ActiveModelBehavior for ActiveModel {}

//! Published versions of forms: immutable. The definition and its JSON Schema are large, so they are read by
//! themselves. Lists walk `form_versions (form_id, number desc)`.

use std::sync::Arc;

use futures_util::FutureExt as _;
use rustc_hash::FxHashMap;
use sea_orm::{IdenStatic as _, entity::prelude::*};
use serde::{Deserialize, Serialize};

use crate::{
    cache::{Cached, ReadContext, Retention, Tag},
    clock::Time,
    database::{
        page::{KeyKind, KeyValue, Keyset, SortKey, key},
        role::Role,
        scope::Scope,
        sql::{Json, Record as _, Sql, record},
    },
    error::Error,
    form,
    id::{FormId, FormVersionId, NodeKind, UserId},
    store::{
        Store,
        list::{List, Names},
        row::{Find, Finder},
    },
    submission,
};

record! {
    /// A row of `form_versions`, whole.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "form_versions")]
    pub struct Model {
        /// Primary key.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: FormVersionId,
        /// The form.
        pub form_id: FormId,
        /// 1, 2, 3 …
        pub number: i32,
        /// What is asked, in XP's own form.
        pub definition: Json,
        /// JSON Schema draft 2020-12 of a submission's data.
        pub json_schema: Json,
        /// SHA-256 over the canonical definition (RFC 8785), hexadecimal.
        pub hash: String,
        /// When it was published.
        pub published_at: Time,
        /// By whom; none for removed accounts.
        pub published_by: Option<UserId>,
    }
}

/// What a version belongs to.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    /// The form.
    #[sea_orm(belongs_to = "super::Entity", from = "Column::FormId", to = "super::Column::Id")]
    Form,
    /// Who published it; not kept by the database, because versions outlive accounts.
    #[sea_orm(
        belongs_to = "crate::user::Entity",
        from = "Column::PublishedBy",
        to = "crate::user::Column::Id",
        skip_fk
    )]
    Publisher,
}

impl Related<super::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Form.def()
    }
}

impl Related<crate::user::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Publisher.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}

record! {
    /// What is read of `form_versions` in lists and by id: without the two documents.
    #[derive(Clone, Debug, PartialEq, Eq, DerivePartialModel, Serialize, Deserialize)]
    #[sea_orm(entity = "Entity")]
    pub struct Row {
        /// Primary key.
        pub id: FormVersionId,
        /// The form.
        pub form_id: FormId,
        /// 1, 2, 3 …
        pub number: i32,
        /// SHA-256 over the canonical definition (RFC 8785), hexadecimal.
        pub hash: String,
        /// When it was published.
        pub published_at: Time,
        /// By whom; none for removed accounts.
        pub published_by: Option<UserId>,
    }
}

/// Managers see every version, editors those of their own forms; the others see the published version of an open
/// form, which is what they fill in, and every version that they have filled in: whoever sees a submission sees what it
/// answers. The row does not say whose form it is, so the check is the database's.
fn push_scope(sql: &mut Sql, scope: &Scope) {
    let Scope::Of { user, role } = scope else {
        if *scope == Scope::Nothing {
            sql.push(" AND FALSE");
        }
        return;
    };
    if scope.manages() {
        return;
    }
    sql.push(" AND (EXISTS (SELECT 1 FROM forms f WHERE ").column_of("f", form::Column::Id);
    sql.push(" = ").column(Column::FormId).push(" AND (");
    if *role == Role::Editor {
        sql.column_of("f", form::Column::OwnerId).push(" = ").bind(*user).push(" OR ");
    }
    sql.push("(").column_of("f", form::Column::Status).push(" = 'OPEN' AND ");
    sql.column_of("f", form::Column::Version).push(" = ").column(Column::Number);
    sql.push("))) OR EXISTS (SELECT 1 FROM form_submissions s WHERE ");
    sql.column_of("s", submission::Column::FormId).push(" = ").column(Column::FormId).push(" AND ");
    sql.column_of("s", submission::Column::FormVersion).push(" = ").column(Column::Number).push(" AND ");
    sql.column_of("s", submission::Column::UserId).push(" = ").bind(*user).push("))");
}

/// Versions by id, as far as the scope reaches.
///
/// # Errors
/// The database's.
pub async fn by_ids(
    store: &Store,
    scope: &Scope,
    ids: &[FormVersionId],
) -> Result<FxHashMap<FormVersionId, Arc<Row>>, Error> {
    ROWS.rows(store, scope, ids).await
}

/// `by_ids`, as edges load it.
pub static BY_IDS: Finder<FormVersionId, Row> =
    Finder::scoped("form_version.by_ids", |store, scope, ids| by_ids(store, scope, ids).boxed());

static ROWS: Find<FormVersionId, Row> = Find {
    name: "form_version.by_ids",
    matching: |sql, ids, scope| {
        sql.filter(Column::Id).any_id(ids);
        push_scope(sql, scope);
    },
    key: |row| row.id,
    // It never changes; who may see it depends on its form.
    tags: |id, row| {
        let form = row.map(|row| Tag::Row(NodeKind::Form.as_str(), row.form_id.0));
        [Tag::Row(NodeKind::FormVersion.as_str(), id.0)].into_iter().chain(form).collect()
    },
    // Which form it would be of is not known.
    caches_absence: false,
};

/// The published version of each form that has one, as far as the scope reaches.
pub static CURRENT_OF_FORMS: Finder<FormId, Row> =
    Finder::scoped("form_version.current_of_forms", |store, scope, forms| {
        CURRENT.rows(store, scope, forms).boxed()
    });

static CURRENT: Find<FormId, Row> = Find {
    name: "form_version.current_of_forms",
    matching: |sql, forms, scope| {
        sql.filter(Column::FormId).any_id(forms);
        sql.and(Column::Number).push(" = (SELECT ").column_of("f", form::Column::Version);
        sql.push(" FROM forms f WHERE ").column_of("f", form::Column::Id).push(" = ");
        sql.column(Column::FormId).push(")");
        push_scope(sql, scope);
    },
    key: |row| row.form_id,
    tags: |form, _| vec![Tag::Row(NodeKind::Form.as_str(), form.0)],
    caches_absence: true,
};

/// Versions by form and number, as far as the scope reaches. Whoever holds a submission of a version sees it, and asks
/// with `Scope::All`.
pub static BY_NUMBERS: Finder<(FormId, i32), Row> =
    Finder::scoped("form_version.by_numbers", |store, scope, versions| {
        by_numbers(store, scope, versions).boxed()
    });

async fn by_numbers(
    store: &Store,
    scope: &Scope,
    versions: &[(FormId, i32)],
) -> Result<FxHashMap<(FormId, i32), Arc<Row>>, Error> {
    let matching = |sql: &mut Sql| {
        sql.push(" WHERE (").column(Column::FormId).push(", ").column(Column::Number).push(") IN ");
        sql.pairs(versions);
        push_scope(sql, scope);
    };
    store.by_keys("form_version.by_numbers", matching, |row: &Row| (row.form_id, row.number)).await
}

/// A large document of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Document {
    /// What is asked, in XP's own form.
    Definition,
    /// JSON Schema draft 2020-12 of a submission's data.
    JsonSchema,
}

/// What is asked, in XP's own form. Who may see it was decided when the version was read.
pub static DEFINITIONS: Finder<FormVersionId, Json> =
    Finder::open("form_version.documents", |store, _, ids| {
        documents(store, Document::Definition, ids).boxed()
    });

/// JSON Schema draft 2020-12 of a submission's data. Who may see it was decided when the version was read.
pub static JSON_SCHEMAS: Finder<FormVersionId, Json> =
    Finder::open("form_version.documents", |store, _, ids| {
        documents(store, Document::JsonSchema, ids).boxed()
    });

async fn documents(
    store: &Store,
    document: Document,
    ids: &[FormVersionId],
) -> Result<FxHashMap<FormVersionId, Arc<Json>>, Error> {
    store.cached(document, ids).await
}

impl Cached for Document {
    type Key = FormVersionId;
    type Value = Json;

    fn name(&self) -> &'static str {
        match self {
            Self::Definition => "form_version.definitions",
            Self::JsonSchema => "form_version.json_schemas",
        }
    }

    fn shape(&self) -> &'static str {
        "json"
    }

    fn retention(&self) -> Retention {
        Retention::for_seconds(300)
    }

    fn arguments(&self) -> impl Serialize {}

    fn tags(&self, id: FormVersionId, _: Option<&Json>) -> Vec<Tag> {
        vec![Tag::Row(NodeKind::FormVersion.as_str(), id.0)]
    }

    fn caches_absence(&self) -> bool {
        false
    }

    async fn load(
        self,
        context: ReadContext,
        ids: Arc<[FormVersionId]>,
    ) -> Result<FxHashMap<FormVersionId, Arc<Json>>, Error> {
        let column = match self {
            Self::Definition => Column::Definition,
            Self::JsonSchema => Column::JsonSchema,
        };
        let mut sql = context.database().sql();
        sql.select::<Entity>(&[Column::Id, column]).filter(Column::Id).any_id(&ids);
        let rows = context.database().fetch(self.name(), Row::table(), sql, |cells| {
            Ok((cells.next::<FormVersionId>()?, Arc::new(cells.next::<Json>()?)))
        });
        Ok(rows.await?.into_iter().collect())
    }
}

/// Newest first. A number stands once in each form, and its unique index is all the order there is to walk.
pub static KEYSET: Keyset<Row> = Keyset {
    name: "form_versions.number",
    descending: true,
    keys: &[SortKey { sql: key!(Number), kind: KeyKind::Int, value: |row| KeyValue::Int(row.number.into()) }],
};

/// Each form's versions.
pub static OF_FORMS: List<Row, ()> = List::new(
    Names {
        page: "form_version.pages_of_forms",
        count: "form_version.counts_of_forms",
        parent: Some(|| Column::FormId.as_str()),
    },
    |(), sql, scope| push_scope(sql, scope),
)
.retention(|form, scope| {
    // Whoever hands in an old version sees it from then on.
    let handed_in = scope.user().filter(|_| !scope.manages());
    let handed_in = handed_in.map(|user| Tag::List("Submission", "user", user.0));
    std::iter::once(Tag::Row("Form", form)).chain(handed_in).collect()
});

//! Published versions of forms: immutable. The definition and its JSON Schema are large, so they are read by
//! themselves. Lists walk `form_versions (form_id, number desc)`.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::{
    cache::{Cached, Kept, Tag},
    clock::Time,
    database::{
        kind::Kind,
        page::{Key, KeyKind, KeyValue, Keyset},
        role::Role,
        scope::Scope,
        sql::{Json, Record as _, Sql, table},
    },
    error::Error,
    id::{FormId, FormVersionId, UserId},
    store::{
        Store,
        list::{List, Names},
        row::Find,
    },
};

table! {
    /// A row of `form_versions`, without `definition` and `json_schema`.
    "form_versions" {
        /// Primary key.
        #[sea_orm(primary_key, auto_increment = false)]
        id: FormVersionId,
        /// The form.
        form_id: FormId,
        /// 1, 2, 3 …
        number: i32,
        /// SHA-256 over the canonical definition (RFC 8785), hexadecimal.
        hash: String,
        /// When it was published.
        published_at: Time,
        /// By whom; none for removed accounts.
        published_by: Option<UserId>,
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
    sql.push(" AND (EXISTS (SELECT 1 FROM forms f WHERE f.id = t.form_id AND (");
    if *role == Role::Editor {
        sql.push("f.owner_id = ").bind(*user).push(" OR ");
    }
    sql.push("(f.status = 'OPEN' AND f.version = t.number))) OR EXISTS (SELECT 1 FROM form_submissions s ");
    sql.push("WHERE s.form_id = t.form_id AND s.form_version = t.number AND s.user_id = ")
        .bind(*user)
        .push("))");
}

/// Versions by id, as far as the scope reaches.
///
/// # Errors
/// The database's.
pub async fn by_ids(
    store: &Store,
    scope: &Scope,
    ids: &[FormVersionId],
) -> Result<FxHashMap<FormVersionId, Arc<Model>>, Error> {
    BY_IDS.rows(store, scope, ids).await
}

static BY_IDS: Find<FormVersionId, Model> = Find {
    name: "form_version.by_ids",
    matching: |sql, ids, scope| {
        sql.push("t.id").any_id(ids);
        push_scope(sql, scope);
    },
    key: |row| row.id,
    // It never changes; who may see it depends on its form.
    tags: |id, row| {
        let form = row.map(|row| Tag::Row(Kind::Form.as_str(), row.form_id.0));
        [Tag::Row(Kind::FormVersion.as_str(), id.0)].into_iter().chain(form).collect()
    },
    // Which form it would be of is not known.
    keeps_absent: false,
};

/// The published version of each form that has one.
///
/// # Errors
/// The database's.
pub async fn current_of_forms(
    store: &Store,
    scope: &Scope,
    forms: &[FormId],
) -> Result<FxHashMap<FormId, Arc<Model>>, Error> {
    CURRENT.rows(store, scope, forms).await
}

static CURRENT: Find<FormId, Model> = Find {
    name: "form_version.current_of_forms",
    matching: |sql, forms, scope| {
        sql.push("t.form_id").any_id(forms);
        sql.push(" AND t.number = (SELECT f.version FROM forms f WHERE f.id = t.form_id)");
        push_scope(sql, scope);
    },
    key: |row| row.form_id,
    tags: |form, _| vec![Tag::Row(Kind::Form.as_str(), form.0)],
    keeps_absent: true,
};

/// The versions that were filled in, by form and number. The caller holds a submission of each, which is why it sees it.
///
/// # Errors
/// The database's.
pub async fn of_submissions(
    store: &Store,
    versions: &[(FormId, i32)],
) -> Result<FxHashMap<(FormId, i32), Arc<Model>>, Error> {
    let matching = |sql: &mut Sql| {
        sql.push("(t.form_id, t.number) IN ").pairs(versions);
    };
    store.by_keys("form_version.of_submissions", matching, |row: &Model| (row.form_id, row.number)).await
}

/// The version of one number of each form that has it, as far as the scope reaches.
///
/// # Errors
/// The database's.
pub async fn numbered(
    store: &Store,
    scope: &Scope,
    number: i32,
    forms: &[FormId],
) -> Result<FxHashMap<FormId, Arc<Model>>, Error> {
    let matching = |sql: &mut Sql| {
        sql.push("t.form_id").any_id(forms).push(" AND t.number = ").bind(number);
        push_scope(sql, scope);
    };
    store.by_keys("form_version.numbered", matching, |row: &Model| row.form_id).await
}

/// A large document of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Document {
    /// What is asked, in XP's own form.
    Definition,
    /// JSON Schema draft 2020-12 of a submission's data.
    JsonSchema,
}

/// One document of each of these versions. Who may see it was decided when the version was read.
///
/// # Errors
/// The database's.
pub async fn documents(
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

    fn kept(&self) -> Kept {
        Kept::for_seconds(300)
    }

    fn arguments(&self) -> impl Serialize {}

    fn tags(&self, id: FormVersionId, _: Option<&Json>) -> Vec<Tag> {
        vec![Tag::Row(Kind::FormVersion.as_str(), id.0)]
    }

    fn keeps_absent(&self) -> bool {
        false
    }

    async fn load(
        self,
        store: Store,
        ids: Arc<[FormVersionId]>,
    ) -> Result<FxHashMap<FormVersionId, Arc<Json>>, Error> {
        let column = match self {
            Self::Definition => "t.definition",
            Self::JsonSchema => "t.json_schema",
        };
        let mut sql = store.sql();
        sql.push("SELECT t.id, ").push(column).push(" FROM form_versions t WHERE t.id").any_id(&ids);
        let rows = store.fetch(self.name(), Model::TABLE, sql, |cells| {
            Ok((cells.next::<FormVersionId>()?, Arc::new(cells.next::<Json>()?)))
        });
        Ok(rows.await?.into_iter().collect())
    }
}

/// Newest first. A number stands once in each form, and its unique index is all the order there is to walk.
pub static KEYSET: Keyset<Model> = Keyset {
    name: "form_versions.number",
    descending: true,
    keys: &[Key { sql: "t.number", kind: KeyKind::Int, value: |row| KeyValue::Int(row.number.into()) }],
};

/// Each form's versions.
pub static OF_FORMS: List<Model, ()> = List::new(
    Names { page: "form_version.pages_of_forms", count: "form_version.counts_of_forms", parent: "form_id" },
    |(), sql, scope| push_scope(sql, scope),
)
.kept(|form, scope| {
    // Whoever hands in an old version sees it from then on.
    let handed_in = scope.user().filter(|_| !scope.manages());
    let handed_in = handed_in.map(|user| Tag::List("Submission", "user", user.0));
    std::iter::once(Tag::Row("Form", form)).chain(handed_in).collect()
});

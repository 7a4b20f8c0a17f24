//! Forms and their published versions, made from the templates in `forms.json`. Each version asks one question more
//! than the last; the draft is ahead of them all. Not here: answers.

use std::collections::HashMap;

use entities::{
    Error, Role,
    form::Status,
    forms::compiled::{self, CompiledForm},
};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    Counts, DAY, HOUR, Micros,
    people::People,
    random::Random,
    sink::{Cell, Loader, Target},
};

/// Every form in the order of time.
pub(crate) struct Forms {
    pub(crate) templates: Vec<Template>,
    pub(crate) forms: Vec<Form>,
}

pub(crate) struct Form {
    pub(crate) id: Uuid,
    /// Index of the account.
    pub(crate) owner: usize,
    pub(crate) template: usize,
    pub(crate) created: Micros,
    pub(crate) updated: Micros,
    pub(crate) status: Status,
    /// Version 1 first.
    pub(crate) versions: Vec<Version>,
    has_draft: bool,
    revision: i32,
}

pub(crate) struct Version {
    pub(crate) id: Uuid,
    pub(crate) published: Micros,
    /// How many of the template's fields it has.
    pub(crate) fields: usize,
}

/// A form of `forms.json`.
#[derive(Deserialize)]
pub(crate) struct Template {
    title: Title,
    description: String,
    pub(crate) fields: Vec<Value>,
}

#[derive(Deserialize)]
struct Title {
    en: String,
    vi: String,
}

/// As often as each stands here; the first four are all different.
const STATUSES: [Status; 12] = [
    Status::Open,
    Status::Closed,
    Status::Draft,
    Status::Archived,
    Status::Open,
    Status::Open,
    Status::Open,
    Status::Closed,
    Status::Open,
    Status::Draft,
    Status::Open,
    Status::Open,
];

pub(crate) fn plan(counts: Counts, people: &People) -> Forms {
    let templates: Vec<Template> =
        serde_json::from_str(include_str!("forms.json")).expect("a test reads this file");
    let mut random = Random::of("forms");
    let may_own =
        |index: &usize| matches!(people.users[*index].role, Role::Admin | Role::Manager | Role::Editor);
    let owners: Vec<usize> = (0..people.users.len()).filter(may_own).collect();
    let statuses = STATUSES.into_iter().cycle().take(counts.forms);
    let mut forms: Vec<Form> = statuses
        .map(|status| {
            let owner = owners[random.skewed(owners.len(), 2)];
            form(status, owner, &templates, people, &mut random)
        })
        .collect();
    forms.sort_by_key(|form| (form.created, form.id));
    Forms { templates, forms }
}

fn form(status: Status, owner: usize, templates: &[Template], people: &People, random: &mut Random) -> Form {
    let (from, to) = (people.users[owner].created, people.now - HOUR);
    let created = random.between(from, to);
    let template = random.below(templates.len());
    let all = templates[template].fields.len();
    let count = if status == Status::Draft { 0 } else { 1 + random.skewed(4, 2) };
    let mut published = created;
    let versions: Vec<Version> = (1..=count)
        .map(|number| {
            // The first soon, the others some time later.
            let wait = if number == 1 { 3 * DAY } else { 90 * DAY };
            published = random.between(published, (published + wait).min(to));
            Version { id: random.id(published), published, fields: all - 1 - (count - number) }
        })
        .collect();
    Form {
        id: random.id(created),
        owner,
        template,
        created,
        updated: random.between(published, (published + 10 * DAY).min(people.now)),
        status,
        versions,
        has_draft: count == 0 || random.chance(0.3),
        revision: random.between(1 + count as i64, 8 + 3 * count as i64) as i32,
    }
}

impl Form {
    /// The version that was the published one at this time.
    pub(crate) fn version_at(&self, at: Micros) -> usize {
        self.versions.partition_point(|version| version.published <= at)
    }
}

impl Forms {
    /// Indexes of the forms that have been published.
    pub(crate) fn published(&self) -> Vec<usize> {
        (0..self.forms.len()).filter(|index| !self.forms[*index].versions.is_empty()).collect()
    }

    /// The questions of one version, or of the draft.
    pub(crate) fn fields(&self, form: &Form, count: usize) -> &[Value] {
        &self.templates[form.template].fields[..count]
    }

    pub(crate) async fn load(&self, loader: &mut Loader<'_>, people: &People) -> Result<(), Error> {
        const FORMS: Target = Target {
            table: "forms",
            columns: &[
                "id",
                "owner_id",
                "title",
                "search_title",
                "description",
                "status",
                "version",
                "draft",
                "draft_revision",
                "created_at",
                "updated_at",
                "published_at",
            ],
        };
        const VERSIONS: Target = Target {
            table: "form_versions",
            columns: &[
                "id",
                "form_id",
                "number",
                "definition",
                "json_schema",
                "hash",
                "published_at",
                "published_by",
            ],
        };
        let mut random = Random::of("titles");
        let forms = self.forms.iter().map(|form| self.form_row(form, people, &mut random));
        loader.load(&FORMS, self.forms.len(), forms).await?;

        // Many forms share a template, so each document is made once.
        let mut documents = HashMap::new();
        let total = self.forms.iter().map(|form| form.versions.len()).sum();
        let versions = self
            .forms
            .iter()
            .flat_map(|form| (1..).zip(&form.versions).map(move |numbered| (form, numbered)));
        let versions = versions.map(|(form, (number, version))| {
            let document = documents
                .entry((form.template, version.fields))
                .or_insert_with(|| Document::of(self.fields(form, version.fields)));
            version_row(form, number, version, document, people)
        });
        loader.load(&VERSIONS, total, versions).await
    }

    fn form_row(&self, form: &Form, people: &People, random: &mut Random) -> [Cell; 12] {
        let template = &self.templates[form.template];
        let place = random.pick(&PLACES);
        let title = if random.chance(0.5) { &template.title.en } else { &template.title.vi };
        let title = format!("{title} – {place}");
        let description = random.chance(0.8).then_some(template.description.as_str());
        let draft = form.has_draft.then(|| definition(&template.fields).to_string());
        [
            form.id.into(),
            people.users[form.owner].id.into(),
            title.as_str().into(),
            title.to_lowercase().into(),
            description.into(),
            form.status.as_str().into(),
            Cell::Int(form.versions.len() as i32),
            draft.map_or(Cell::Null, Cell::Json),
            form.revision.into(),
            Cell::Time(form.created),
            Cell::Time(form.updated),
            form.versions.last().map_or(Cell::Null, |version| Cell::Time(version.published)),
        ]
    }
}

fn version_row(
    form: &Form,
    number: i32,
    version: &Version,
    document: &Document,
    people: &People,
) -> [Cell; 8] {
    [
        version.id.into(),
        form.id.into(),
        number.into(),
        Cell::Json(document.definition.clone()),
        Cell::Json(document.json_schema.clone()),
        document.hash.as_str().into(),
        Cell::Time(version.published),
        people.users[form.owner].id.into(),
    ]
}

struct Document {
    definition: String,
    json_schema: String,
    hash: String,
}

impl Document {
    fn of(fields: &[Value]) -> Self {
        let definition = definition(fields);
        let form = CompiledForm::compile(&definition).expect("a test compiles every template");
        Self {
            hash: compiled::hash(&definition),
            json_schema: form.json_schema().to_string(),
            definition: definition.to_string(),
        }
    }
}

fn definition(fields: &[Value]) -> Value {
    json!({ "schema": 1, "locales": ["en", "vi"], "fields": fields })
}

const PLACES: [&str; 12] = [
    "Hoàn Kiếm",
    "Tây Hồ",
    "Hải Châu",
    "Sơn Trà",
    "Quận 1",
    "Thủ Đức",
    "Ninh Kiều",
    "Huế",
    "Camden",
    "Southwark",
    "Jurong",
    "Bedok",
];

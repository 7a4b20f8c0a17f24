//! Editing forms: `createForm`, `updateForm`, `saveFormDraft`, `publishForm`, `setFormStatus`. Here inputs
//! are checked and refusals are put into words. Not here: what a change does (`entities::form::write`).

use std::{borrow::Cow, sync::LazyLock};

use async_graphql::{ID, InputObject, MaybeUndefined};
use entities::{
    Json,
    form::{
        Status,
        write::{self, Changed, FormError, NewForm, Update},
    },
    forms::{
        definition::MAX_BYTES,
        problem::{MAX_PROBLEMS, Problem},
    },
    id::FormId,
    idempotency::Stored,
    unicode,
};
use futures_util::FutureExt as _;

use super::FormStatus;
use crate::{
    auth::viewer::Grant,
    context::{ContextExt as _, Database},
    graph::{
        edges::Edges as _,
        input::id,
        mutation::{Again, Input, MutationField, MutationResult, Needs, Payload, Written},
        subgraph::Domain,
        user_error::{UserError, UserErrorCode, UserErrors, is_one_line},
    },
};
use engine::{
    batch::Source as _,
    context::Context,
    error::FieldError,
    object::{Entity, Object},
    scalar::AnyJson,
};

/// The mutations of this file.
pub(crate) fn fields() -> Vec<MutationField> {
    vec![
        MutationField::new(
            "createForm",
            "Makes a form: a draft that only its editors see. For editors, managers and administrators.",
            Needs::Granted(Grant::WriteForms),
            |input, ctx| create(input, ctx).boxed(),
        ),
        MutationField::new(
            "updateForm",
            "Changes title and description of a form.",
            Needs::Granted(Grant::WriteForms),
            |input, ctx| update(input, ctx).boxed(),
        )
        .again(Again::Once),
        MutationField::new(
            "saveFormDraft",
            "Saves what is being edited, unless somebody else saved since `baseRevision`.",
            Needs::Granted(Grant::WriteForms),
            |input, ctx| save_draft(input, ctx).boxed(),
        ),
        MutationField::new(
            "publishForm",
            "Makes the draft the next version; the first one opens the form. Everything that is wrong with \
             the draft is told at once, each by a path that begins with `draft`.",
            Needs::Granted(Grant::WriteForms),
            |input, ctx| publish(input, ctx).boxed(),
        ),
        MutationField::new(
            "setFormStatus",
            "Opens, closes or archives a form.",
            Needs::Granted(Grant::WriteForms),
            |input, ctx| set_status(input, ctx).boxed(),
        )
        .again(Again::Once),
    ]
}

/// A new form.
#[derive(InputObject)]
pub(crate) struct CreateFormInput {
    /// Shown to those who fill it in: 1 to 200 characters.
    title: String,
    /// What it is for: at most 5,000 characters.
    description: Option<String>,
    /// The first draft of what is asked.
    definition: Option<AnyJson>,
}

/// New values for a form; what is left out stays as it is.
#[derive(InputObject)]
pub(crate) struct UpdateFormInput {
    /// The form.
    id: ID,
    /// Shown to those who fill it in: 1 to 200 characters.
    title: MaybeUndefined<String>,
    /// What it is for: at most 5,000 characters. Null takes it away.
    description: MaybeUndefined<String>,
}

/// A definition as it is being edited.
#[derive(InputObject)]
pub(crate) struct SaveFormDraftInput {
    /// The form.
    id: ID,
    /// What is asked. It may be unfinished: everything is checked when it is published.
    definition: AnyJson,
    /// The `draftRevision` that was edited.
    base_revision: i32,
}

/// A draft that becomes a version.
#[derive(InputObject)]
pub(crate) struct PublishFormInput {
    /// The form.
    id: ID,
    /// The `draftRevision` that was looked at.
    base_revision: i32,
}

/// Another state of a form.
#[derive(InputObject)]
pub(crate) struct SetFormStatusInput {
    /// The form.
    id: ID,
    /// Its state from now on.
    status: FormStatus,
}

/// The answer of mutations of a form.
#[derive(Clone)]
pub(crate) struct FormPayload {
    form: Option<FormId>,
    errors: Vec<UserError>,
    warnings: Vec<UserError>,
}

impl FormPayload {
    fn of(form: FormId) -> Self {
        Self { form: Some(form), errors: Vec::new(), warnings: Vec::new() }
    }
}

impl Entity for FormPayload {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<FormPayload>> = LazyLock::new(|| {
            Object::<FormPayload>::new("FormPayload", "The answer of mutations that change a form.")
                .of(Domain::Forms)
                .written(
                    "form",
                    "The form as it is now, also after a CONFLICT. Null where the viewer may not see it.",
                    |payload| payload.form,
                )
                .edge(
                    "userErrors",
                    "Why it was not changed.",
                    UserErrors::new(|payload: &FormPayload| &payload.errors),
                )
                .edge(
                    "warnings",
                    "What was published but probably means something else than its author thinks, such as a \
                     comparison with an empty text that asks whether there is an answer. The path begins \
                     with `draft`.",
                    UserErrors::new(|payload: &FormPayload| &payload.warnings),
                )
        });
        &OBJECT
    }
}

impl Payload for FormPayload {
    fn of_stored(stored: &Stored) -> Option<Self> {
        let warnings = serde_json::from_value::<Vec<[String; 3]>>(stored.result.clone()).unwrap_or_default();
        let warnings = warnings.into_iter().take(MAX_PROBLEMS);
        let warnings = warnings.map(|[pointer, rule, message]| at_pointer(&pointer, &rule, message.into()));
        Some(Self { warnings: warnings.collect(), ..Self::of(FormId(stored.subject?)) })
    }
}

fn refused(errors: Vec<UserError>) -> Written<FormPayload> {
    FormPayload { form: None, errors, warnings: Vec::new() }.into()
}

/// `Mutation.createForm`
async fn create(Input(input): Input<CreateFormInput>, ctx: &Context) -> MutationResult<FormPayload> {
    let owner = ctx.user()?;
    let draft = input.definition.map(|definition| definition.0);
    let mut errors = Vec::new();
    errors.extend(check_title(&input.title));
    errors.extend(input.description.as_deref().and_then(check_description));
    errors.extend(draft.as_ref().and_then(check_draft));
    if !errors.is_empty() {
        return Ok(refused(errors));
    }
    let (title, description) = (title(&input.title), input.description.as_deref().map(unicode::composed));
    let new = NewForm { title: &title, description: description.as_deref(), draft };
    let created = write::create(ctx.store(), owner, new).await;
    let form = created.map_err(|error| Database::field_error(&error, "form.create"))?;
    Ok(FormPayload::of(form).into())
}

/// `Mutation.updateForm`
async fn update(Input(input): Input<UpdateFormInput>, ctx: &Context) -> MutationResult<FormPayload> {
    let form = editing(ctx, &input.id)?;
    let mut errors = Vec::new();
    match &input.title {
        MaybeUndefined::Null => {
            let message = "A form has a title.";
            errors.push(UserError::new(UserErrorCode::Required, &["input", "title"], message));
        }
        MaybeUndefined::Value(title) => errors.extend(check_title(title)),
        MaybeUndefined::Undefined => {}
    }
    errors.extend(input.description.as_opt_deref().flatten().and_then(check_description));
    if !errors.is_empty() {
        return Ok(refused(errors));
    }
    let title = input.title.as_opt_deref().flatten().map(title);
    let description = input.description.as_opt_deref().map(|text| text.map(unicode::composed));
    let description = description.as_ref().map(Option::as_deref);
    let update = Update { title: title.as_deref(), description };
    answer(form, write::update(ctx.store(), &ctx.scope(), form, update).await)
}

/// `Mutation.saveFormDraft`
async fn save_draft(Input(input): Input<SaveFormDraftInput>, ctx: &Context) -> MutationResult<FormPayload> {
    let form = editing(ctx, &input.id)?;
    let draft = input.definition.0;
    if let Some(error) = check_draft(&draft) {
        return Ok(refused(vec![error]));
    }
    answer(form, write::save_draft(ctx.store(), &ctx.scope(), form, input.base_revision, draft).await)
}

/// `Mutation.publishForm`
async fn publish(Input(input): Input<PublishFormInput>, ctx: &Context) -> MutationResult<FormPayload> {
    let form = editing(ctx, &input.id)?;
    let published = write::publish(ctx.store(), &ctx.scope(), form, input.base_revision).await;
    let mut hints = Vec::new();
    let published = published.map(|published| {
        published.map(|published| {
            hints = published.hints;
            published.form
        })
    });
    let mut written = answer(form, published)?;
    written.payload.warnings = hints.into_iter().take(MAX_PROBLEMS).map(in_draft).collect();
    Ok(written)
}

/// `Mutation.setFormStatus`
async fn set_status(Input(input): Input<SetFormStatusInput>, ctx: &Context) -> MutationResult<FormPayload> {
    let form = editing(ctx, &input.id)?;
    answer(form, write::set_status(ctx.store(), &ctx.scope(), form, Status::from(input.status)).await)
}

/// The form that somebody who is signed in means.
fn editing(ctx: &Context, form: &ID) -> Result<FormId, FieldError> {
    ctx.user()?;
    id("input.id", form, FormId::parse)
}

fn answer(form: FormId, changed: Changed) -> MutationResult<FormPayload> {
    let refusal = match changed.map_err(|error| Database::field_error(&error, "form.change"))? {
        Ok(form) => return Ok(FormPayload::of(form).into()),
        Err(refusal) => refusal,
    };
    let one = |code, path: &[&'static str], message: String| vec![UserError::new(code, path, message)];
    let errors = match refusal {
        FormError::NotFound => {
            return Ok(refused(one(UserErrorCode::NotFound, &["input", "id"], "Form not found.".to_owned())));
        }
        FormError::NotAllowed => {
            one(UserErrorCode::NotAllowed, &["input", "id"], "You may not edit this form.".to_owned())
        }
        FormError::Conflict { revision } => one(
            UserErrorCode::Conflict,
            &["input", "baseRevision"],
            format!("The draft was saved in between: its revision is {revision} now."),
        ),
        FormError::Unpublished => {
            one(UserErrorCode::Invalid, &["input", "status"], "Publish the form before it opens.".to_owned())
        }
        FormError::Published => one(
            UserErrorCode::Invalid,
            &["input", "status"],
            "A published form does not become a draft again: close it.".to_owned(),
        ),
        FormError::NoDraft => one(
            UserErrorCode::Required,
            &["input", "id"],
            "Draft not found: nothing was saved since the last publication.".to_owned(),
        ),
        FormError::Wrong(problems) => problems.into_iter().take(MAX_PROBLEMS).map(in_draft).collect(),
    };
    // Whoever may see the form sees what it is like now.
    Ok(FormPayload { form: Some(form), errors, warnings: Vec::new() }.into())
}

/// A problem of the draft, which is not in the input: the path begins with `draft`.
fn in_draft(problem: Problem) -> UserError {
    at_pointer(&problem.pointer, problem.rule, problem.message)
}

fn at_pointer(pointer: &str, rule: &str, message: Cow<'static, str>) -> UserError {
    let segments = pointer.split('/').skip(1);
    let segments = segments.map(|segment| Cow::Owned(segment.replace("~1", "/").replace("~0", "~")));
    let path = std::iter::once(Cow::Borrowed("draft")).chain(segments).collect();
    UserError { message, code: code_of(rule), path, data: None }
}

/// The code of a broken rule.
pub(crate) fn code_of(rule: &str) -> UserErrorCode {
    match rule {
        "required" => UserErrorCode::Required,
        "maxLength" | "maximum" | "maxItems" | "maxDepth" | "maxCost" => UserErrorCode::TooLarge,
        "minLength" | "minimum" | "minItems" => UserErrorCode::TooSmall,
        _ => UserErrorCode::Invalid,
    }
}

const MAX_TITLE_CHARS: usize = 200;
const MAX_DESCRIPTION_CHARS: usize = 5_000;

/// A title in the form in which it is stored.
fn title(given: &str) -> Cow<'_, str> {
    unicode::composed(given.trim())
}

fn check_title(given: &str) -> Option<UserError> {
    let title = title(given);
    let error = |code, message| Some(UserError::new(code, &["input", "title"], message));
    if unicode::is_blank(&title) {
        return error(UserErrorCode::Required, "A form has a title.");
    }
    if title.chars().count() > MAX_TITLE_CHARS {
        return error(UserErrorCode::TooLarge, "A form's title has at most 200 characters.");
    }
    let message = "A form's title is one line of text without invisible characters.";
    if is_one_line(&title) { None } else { error(UserErrorCode::Invalid, message) }
}

fn check_description(description: &str) -> Option<UserError> {
    let error = |code, message| Some(UserError::new(code, &["input", "description"], message));
    if description.chars().count() > MAX_DESCRIPTION_CHARS {
        return error(UserErrorCode::TooLarge, "A form's description has at most 5,000 characters.");
    }
    if description.contains('\0') { error(UserErrorCode::Invalid, NUL) } else { None }
}

/// PostgreSQL stores every character but this one.
const NUL: &str = "The character U+0000 cannot be stored.";

/// What even an unfinished definition must be.
fn check_draft(draft: &serde_json::Value) -> Option<UserError> {
    let error = |code, message| Some(UserError::new(code, &["input", "definition"], message));
    if !draft.is_object() {
        return error(UserErrorCode::Invalid, "A definition is an object: {\"schema\": 1, \"fields\": […]}.");
    }
    if draft.to_string().len() > MAX_BYTES {
        return error(UserErrorCode::TooLarge, "A definition has at most 512 KiB.");
    }
    if Json::can_hold(draft) { None } else { error(UserErrorCode::Invalid, NUL) }
}

//! Handing in forms: `createSubmission` and, for what a device collected offline, `createSubmissions`. Refusals are put
//! into words here. Not here: what answers go through and how they are stored (`entities::submission`).

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use async_graphql::{ID, InputObject};
use entities::{
    forms::problem::Problem,
    id::{self, FormId, SubmissionId},
    idempotency::Stored,
    location::record::{NewPosition, RecordedBy},
    submission::write::{self, NewSubmission, SubmissionError},
};
use futures_util::FutureExt as _;

use crate::{
    auth::viewer::Grant,
    context::{ContextExt as _, Database},
    graph::{
        edges::Edges as _,
        form::mutation::code_of,
        location::mutation::{LocationPointInput, errors_of},
        mutation::{Again, Input, MutationField, MutationResult, Needs, Payload, Written},
        subgraph::Domain,
        user_error::{InData, UserError, UserErrorCode, UserErrors, of_malformed},
    },
};
use engine::{
    batch::Source as _,
    context::Context,
    edge::Inline,
    error::FieldError,
    object::{Entity, Object},
    scalar::AnyJson,
    variables::item::Item,
};

/// The mutations of this file.
pub(crate) fn fields() -> Vec<MutationField> {
    vec![
        MutationField::new(
            "createSubmission",
            "Hands in a filled-in form. Sent again with the same `clientId` and the same answers, it answers \
             the stored one.",
            Needs::Granted(Grant::Collect),
            |input, ctx| create(input, ctx).boxed(),
        )
        .again(Again::OnceByClientId),
        MutationField::new(
            "createSubmissions",
            "Hands in what a device has collected, at most 200, each by itself; the results are in their \
             order.",
            Needs::Granted(Grant::Collect),
            |input, ctx| create_all(input, ctx).boxed(),
        )
        .again(Again::OnceByClientId),
    ]
}

/// A filled-in form.
#[derive(InputObject)]
pub(crate) struct CreateSubmissionInput {
    /// The form.
    form_id: ID,
    /// The version that was filled in. Left out: the published one.
    version: Option<i32>,
    /// The answers, by field key.
    data: AnyJson,
    /// Chosen by the device, a UUID: sent again by the same account with the same answers, it is stored once.
    client_id: Option<ID>,
    /// Where it was filled in.
    location: Option<LocationPointInput>,
}

/// What a device has collected.
#[derive(InputObject)]
pub(crate) struct CreateSubmissionsInput {
    /// At most 200. One that cannot be read, such as one without `data`, is refused by itself.
    submissions: Vec<Item<CreateSubmissionInput>>,
}

/// The answer of `createSubmission`.
#[derive(Clone)]
pub(crate) struct SubmissionPayload {
    submission: Option<SubmissionId>,
    errors: Arc<[UserError]>,
}

impl Payload for SubmissionPayload {
    fn of_stored(stored: &Stored) -> Option<Self> {
        Some(Self { submission: Some(SubmissionId(stored.subject?)), errors: Arc::default() })
    }
}

impl Payload for CreateSubmissionsPayload {}

impl Entity for SubmissionPayload {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<SubmissionPayload>> = LazyLock::new(|| {
            Object::<SubmissionPayload>::new("SubmissionPayload", "What became of a filled-in form.")
                .of(Domain::Forms)
                .written(
                    "submission",
                    "The stored submission, also where it had been stored before. Null where it was refused.",
                    |payload| payload.submission,
                )
                .edge(
                    "userErrors",
                    "Why it was refused: everything that is wrong with the answers, at most 100.",
                    UserErrors::new(|payload: &SubmissionPayload| &payload.errors),
                )
        });
        &OBJECT
    }
}

/// The answer of `createSubmissions`.
#[derive(Clone)]
pub(crate) struct CreateSubmissionsPayload {
    results: Vec<SubmissionPayload>,
}

impl Entity for CreateSubmissionsPayload {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<CreateSubmissionsPayload>> = LazyLock::new(|| {
            Object::<CreateSubmissionsPayload>::new(
                "CreateSubmissionsPayload",
                "The answer of `createSubmissions`.",
            )
            .of(Domain::Forms)
            .edge(
                "results",
                "What became of each, in the order of the input. At most 2000 errors are told in all, and at \
                 least one of each that was refused.",
                Inline::new(|payload: &CreateSubmissionsPayload| &payload.results),
            )
        });
        &OBJECT
    }
}

/// Submissions in one `createSubmissions` at most.
const MAX_SUBMISSIONS: usize = 200;
/// Errors that are told of all submissions of one `createSubmissions` at most; one of each that is refused in any case.
const MAX_ERRORS: usize = 2_000;

/// `Mutation.createSubmission`
async fn create(
    Input(input): Input<CreateSubmissionInput>,
    ctx: &Context,
) -> MutationResult<SubmissionPayload> {
    hand_in(ctx, input, &["input".into()]).await.map(Written::from)
}

/// `Mutation.createSubmissions`
async fn create_all(
    Input(input): Input<CreateSubmissionsInput>,
    ctx: &Context,
) -> MutationResult<CreateSubmissionsPayload> {
    ctx.user()?;
    if input.submissions.len() > MAX_SUBMISSIONS {
        return Err(FieldError::bad_input("`submissions` takes at most 200 submissions"));
    }
    let (mut results, mut errors_left) = (Vec::with_capacity(input.submissions.len()), MAX_ERRORS);
    for (index, submission) in input.submissions.into_iter().enumerate() {
        if let Some(claim) = ctx.claim() {
            claim.begin_item(index as u32);
        }
        if let Some(stored) = ctx.stored().and_then(SubmissionPayload::of_stored) {
            results.push(stored);
            continue;
        }
        let path = ["input".into(), "submissions".into(), index.to_string().into()];
        // One after the other: a device may have put the same one into its outbox twice.
        let mut result = match submission {
            Item::Read(submission) => hand_in(ctx, submission, &path).await?,
            Item::Malformed(malformed) => {
                SubmissionPayload { submission: None, errors: Arc::new([of_malformed(malformed, &path)]) }
            }
        };
        if result.errors.len() > errors_left.max(1) {
            result.errors = result.errors[..errors_left.max(1)].into();
        }
        errors_left = errors_left.saturating_sub(result.errors.len());
        results.push(result);
    }
    Ok(CreateSubmissionsPayload { results }.into())
}

/// From the argument to the input of one submission.
type Path = [Cow<'static, str>];

async fn hand_in(
    ctx: &Context,
    input: CreateSubmissionInput,
    path: &Path,
) -> Result<SubmissionPayload, FieldError> {
    let author = RecordedBy { user: ctx.user()?, session: ctx.viewer().session_id() };
    let new = match read(ctx, input, path) {
        Ok(new) => new,
        Err(errors) => return Ok(SubmissionPayload { submission: None, errors: errors.into() }),
    };
    let created = write::create(ctx.store(), author, new).await;
    Ok(match created.map_err(|error| Database::field_error(&error, "submission.create"))? {
        Ok(submission) => SubmissionPayload { submission: Some(submission), errors: Arc::default() },
        Err(refusal) => SubmissionPayload { submission: None, errors: refused(refusal, path).into() },
    })
}

fn read(ctx: &Context, input: CreateSubmissionInput, path: &Path) -> Result<NewSubmission, Vec<UserError>> {
    let mut errors = Vec::new();
    let mut no_id = |name| {
        let error = UserError::new(UserErrorCode::Invalid, &[], "Invalid id: expected a UUID.");
        errors.push(error.at(path, Some(name)));
    };
    let form = FormId::parse(&input.form_id).or_else(|| {
        no_id("formId");
        None
    });
    let client_id = input.client_id.as_ref().and_then(|given| {
        id::parse(given).or_else(|| {
            no_id("clientId");
            None
        })
    });
    let location = input.location.map(NewPosition::from);
    if let Some(point) = &location {
        let path: Vec<_> = path.iter().cloned().chain(["location".into()]).collect();
        errors.extend(errors_of(point.faults(ctx.now()), &path));
    }
    match form {
        Some(form) if errors.is_empty() => {
            Ok(NewSubmission { form, version: input.version, data: input.data.0, client_id, location })
        }
        _ => Err(errors),
    }
}

fn refused(refusal: SubmissionError, path: &Path) -> Vec<UserError> {
    let (code, name, message) = match refusal {
        SubmissionError::NotAccepting => {
            (UserErrorCode::NotAccepting, "formId", "This form does not take submissions now.")
        }
        SubmissionError::NoVersion => (UserErrorCode::NotFound, "version", "Version not found."),
        SubmissionError::Conflict => {
            (UserErrorCode::Conflict, "clientId", "Something else was handed in under this client id before.")
        }
        SubmissionError::TooLarge => (UserErrorCode::TooLarge, "data", "The answers have at most 512 KiB."),
        SubmissionError::Wrong(problems) => {
            return problems.into_iter().map(|problem| in_data(problem, path)).collect();
        }
    };
    vec![UserError::new(code, &[], message).at(path, Some(name))]
}

fn in_data(problem: Problem, path: &Path) -> UserError {
    let Problem { pointer, rule, message } = problem;
    let error = UserError::new(code_of(rule), &[], message).at(path, Some("data"));
    UserError { data: Some(InData { pointer, rule: rule.to_owned() }), ..error }
}

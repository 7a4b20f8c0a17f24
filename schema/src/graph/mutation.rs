//! Writing: the root `Mutation`. Its fields run one after the other (October 2021, §6.2.2); each is one call of the
//! crate `entities`, and what it answers is then read like a query, by the same declarations. Not here: what a mutation
//! does (its domain).

use std::{borrow::Cow, sync::LazyLock};

use async_graphql::{
    InputType, ObjectType, OutputType, Positioned, ServerResult, Value,
    context::ContextSelectionSet,
    indexmap::IndexMap,
    parser::types::{Field as AstField, SelectionSet},
    registry::{MetaField, MetaInputValue, MetaType, MetaTypeId, ObjectBuilder, Registry},
    resolver_utils::ContainerType,
};
use entities::{error::pause_before, idempotency::Stored};
use futures_util::{FutureExt as _, future::BoxFuture};

use crate::{
    auth::viewer::{Grant, Viewer},
    context::ContextExt as _,
    graph::{
        form, location,
        session::{self, sign_in},
        submission, user, webhook,
    },
};
use engine::{
    chunks::Chunks,
    context::Context,
    edge::{Arguments, parse},
    error::{Code, FieldError, RequestError},
    federation::{
        sdl,
        trace::{Span, Traced},
    },
    object::{Entity, Row, label, tags_of},
    output::{Errors, Unfinished, Unwritten, Writer},
    plan::{Planner, Selected},
    scalar::write_text,
};

/// All mutations, as the domains declare them.
static FIELDS: LazyLock<Vec<MutationField>> = LazyLock::new(|| {
    let domains = [
        sign_in::fields(),
        session::mutation::fields(),
        user::mutation::fields(),
        form::mutation::fields(),
        submission::mutation::fields(),
        location::mutation::fields(),
        webhook::mutation::fields(),
    ];
    domains.into_iter().flatten().collect()
});

/// What a caller needs for a mutation to begin. It is asked for here and can be declared in the schema
/// (`@authenticated`, `@requiresScopes`: `Options::authorization_directives`), for gateways that refuse by
/// themselves: with an error, so that is how it is refused here, for every mutation alike. What may be done
/// to which object, the mutation decides, and tells it in `userErrors`.
#[derive(Clone, Copy)]
pub(crate) enum Needs {
    /// Nothing: callers who are not signed in may run it.
    Nothing,
    /// An account.
    Account,
    /// An account whose role has been granted this.
    Granted(Grant),
}

impl Needs {
    fn check(self, viewer: &Viewer) -> Result<(), FieldError> {
        let account = || viewer.user_id().map(drop).ok_or(FieldError::unauthenticated());
        match self {
            Self::Nothing => Ok(()),
            Self::Account => account(),
            Self::Granted(grant) => {
                account()?;
                let refusal = || FieldError::new(Code::Forbidden, grant.refusal());
                viewer.holds(grant).then_some(()).ok_or_else(refusal)
            }
        }
    }

    fn declare(self, field: &mut MetaField) {
        if !matches!(self, Self::Nothing) {
            field.directive_invocations.push(sdl::authenticated());
        }
        if let Self::Granted(grant) = self {
            field.requires_scopes.push(grant.as_str().to_owned());
        }
    }
}

/// What a mutation did.
pub(crate) struct Written<P> {
    /// The object that answers.
    pub(crate) payload: P,
    /// Who reads the answer, where the mutation changed that: signing in does.
    pub(crate) viewer: Option<Viewer>,
}

/// What the function of a mutation returns.
pub(crate) type MutationResult<P> = Result<Written<P>, FieldError>;

impl<P> From<P> for Written<P> {
    fn from(payload: P) -> Self {
        Self { payload, viewer: None }
    }
}

/// What a mutation answers.
pub(crate) trait Payload: Entity {
    /// The payload of a mutation that ran when the same request was sent before, from what it has stored.
    /// `None` where the mutation itself looks for that.
    fn of_stored(_: &Stored) -> Option<Self> {
        None
    }
}

/// The one argument that most mutations take.
pub(crate) struct Input<I>(pub(crate) I);

impl<I: InputType + 'static> Arguments for Input<I> {
    fn describe(registry: &mut Registry) -> IndexMap<String, MetaInputValue> {
        let mut input = MetaInputValue::new("input", I::create_type_info(registry));
        if let Some(MetaType::InputObject { description, .. }) = registry.types.get(&*I::type_name()) {
            input.description.clone_from(description);
        }
        [("input".to_owned(), input)].into_iter().collect()
    }

    fn of(planner: &Planner<'_>, field: &AstField) -> Result<Self, String> {
        parse(planner.argument(field, "input").map(Cow::into_owned)).map(Self)
    }
}

const NO_TOKENS: &str = "`signIn`, `signUp` and `refreshSession` take no Idempotency-Key: their answers have \
                         tokens, which are not kept.";
const NO_SECRETS: &str = "`createWebhook` and `rotateWebhookSecret` take no Idempotency-Key: their \
                          answers have secrets, which are not kept.";
const PARTLY_STORED: &str = "The database cannot be reached now. A part of this is stored";
const SAME_AGAIN: &str = "The same again gives the result that it would have given now";

/// What sending the same again does, where nobody knows whether it was done.
#[derive(Clone, Copy)]
pub(crate) enum Again {
    /// It would be done twice.
    Twice,
    /// Nothing that was not done: it says what is to be the case, or its rows have ids that come from what is sent.
    Once,
    /// Nothing that was not done, where everything in the input has a `clientId`.
    OnceByClientId,
}

impl Again {
    fn gives_the_first_result(self, input: Option<&Value>) -> bool {
        let has_id = |item: &Value| match item {
            Value::Object(fields) => fields.get("clientId").is_some_and(|id| !matches!(id, Value::Null)),
            _ => false,
        };
        match (self, input) {
            (Self::Twice, _) | (Self::OnceByClientId, None) => false,
            (Self::Once, _) => true,
            (Self::OnceByClientId, Some(Value::Object(fields))) if fields.contains_key("submissions") => {
                matches!(fields.get("submissions"), Some(Value::List(items)) if items.iter().all(has_id))
            }
            (Self::OnceByClientId, Some(input)) => has_id(input),
        }
    }

    /// This failure, after COMMIT was sent for a part of the field or for all of it.
    fn left_unfinished(self, error: FieldError, input: Option<&Value>) -> FieldError {
        if error.retryable.is_none() {
            return error;
        }
        let message = match error.code {
            Code::OutcomeUnknown => error.message,
            _ => Cow::Borrowed(PARTLY_STORED),
        };
        if self.gives_the_first_result(input) {
            let message = format!("{}. {SAME_AGAIN}", message.trim_end_matches('.')).into();
            return FieldError { message, retryable: Some(true), ..error };
        }
        FieldError { message, retryable: Some(false), retry_after_seconds: None, ..error }
    }
}

/// A mutation: what it takes, what it does, what it answers.
struct Write<A, P> {
    needs: Needs,
    run: MutationFn<A, P>,
}

pub(crate) type MutationFn<A, P> = for<'a> fn(A, &'a Context) -> BoxFuture<'a, MutationResult<P>>;

/// A field of the root: its name and description, what it needs, and the function that does it.
pub(crate) struct MutationField {
    name: &'static str,
    about: &'static str,
    needs: Needs,
    /// Not twice in a document, under whatever names, and not in an array of requests: each tries a password
    /// or a token.
    alone: bool,
    /// Its answer has a secret, which is not kept for those who send the same again.
    tells_a_secret: bool,
    /// What sending the same again does.
    again: Again,
    write: Box<dyn Writes>,
}

impl MutationField {
    /// A mutation that anybody may run who has what it needs, any number of times in a document.
    pub(crate) fn new<A: Arguments, P: Payload>(
        name: &'static str,
        about: &'static str,
        needs: Needs,
        run: MutationFn<A, P>,
    ) -> Self {
        let write = Box::new(Write { needs, run });
        Self { name, about, needs, alone: false, tells_a_secret: false, again: Again::Twice, write }
    }

    /// Not twice in a document, nor with another such field, nor in an array of requests.
    pub(crate) fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    /// Its answer has a secret.
    pub(crate) fn telling_a_secret(self) -> Self {
        Self { tells_a_secret: true, ..self }
    }

    /// What sending the same again does.
    pub(crate) fn again(self, again: Again) -> Self {
        Self { again, ..self }
    }
}

/// The answer so far, and whether the field's value is in it; or why nothing can be told.
type FieldOutcome = Result<(Unfinished, Result<(), Unwritten>), RequestError>;

/// A `Write` of any types.
trait Writes: Send + Sync {
    fn tag(&self) -> Option<&'static str>;
    fn type_ref(&self, registry: &mut Registry) -> String;
    fn arguments(&self, registry: &mut Registry) -> IndexMap<String, MetaInputValue>;
    /// Is the selection in order? Asked of all fields before the first one writes.
    fn check(&self, planner: Planner<'_>, selected: &Selected<'_>, ctx: &Context)
    -> Result<(), RequestError>;
    /// Does it, and writes what it answers behind what is there of the answer.
    fn run<'a>(
        &'a self,
        planner: Planner<'a>,
        selected: &'a Selected<'a>,
        ctx: &'a Context,
        answer: Unfinished,
        again: Again,
    ) -> BoxFuture<'a, FieldOutcome>;
}

impl<A: Arguments, P: Payload> Writes for Write<A, P> {
    fn tag(&self) -> Option<&'static str> {
        P::object().tag()
    }

    fn type_ref(&self, registry: &mut Registry) -> String {
        Row::<P>::create_type_info(registry)
    }

    fn arguments(&self, registry: &mut Registry) -> IndexMap<String, MetaInputValue> {
        A::describe(registry)
    }

    fn check(
        &self,
        planner: Planner<'_>,
        selected: &Selected<'_>,
        ctx: &Context,
    ) -> Result<(), RequestError> {
        P::object().plan(planner, &selected.sets, ctx).map(drop)
    }

    fn run<'a>(
        &'a self,
        planner: Planner<'a>,
        selected: &'a Selected<'a>,
        ctx: &'a Context,
        mut answer: Unfinished,
        again: Again,
    ) -> BoxFuture<'a, FieldOutcome> {
        async move {
            let start = ctx.moment();
            let done = self.write(planner, selected, ctx, again).await;
            if done.is_ok() {
                answer.bound.has_done(selected.key());
            }
            let mut writer = Writer::resume(answer);
            let span = Span { start, end: ctx.moment() };
            let traced =
                || Traced { parent: Mutation::NAME, name: selected.name(), key: selected.key(), span };
            let written = match done {
                Ok(written) => written,
                Err(error) => {
                    let nulled = writer.traced(traced, |writer| {
                        writer.field(selected.key(), false, |writer| {
                            Err(writer.fail(&error, selected.location))
                        })
                    });
                    return Ok((writer.finish(), nulled));
                }
            };
            // Reads from here on must see what was written.
            ctx.batcher.forget();
            let reader = ctx.read_by(written.viewer);
            let plan = P::object().plan(planner, &selected.sets, &reader).expect("it was checked before");
            let rows = reader.batcher.drive(plan.run(vec![written.payload], &reader)).await;
            let result = writer.whole(|writer| {
                writer.traced(traced, |writer| {
                    writer.field(selected.key(), false, |writer| rows.write(0, writer))
                })
            });
            let result = result.await?;
            Ok((writer.finish(), result))
        }
        .boxed()
    }
}

impl<A: Arguments, P: Payload> Write<A, P> {
    /// Does it. What the database refused before anything was stored is run again, a few times at most; the request's
    /// deadline bounds the whole.
    async fn write(
        &self,
        planner: Planner<'_>,
        selected: &Selected<'_>,
        ctx: &Context,
        again: Again,
    ) -> MutationResult<P> {
        self.needs.check(ctx.viewer())?;
        if let Some(payload) = ctx.stored().and_then(P::of_stored) {
            return Ok(payload.into());
        }
        let again = if ctx.claim().is_some() { Again::Once } else { again };
        let (before, mut number) = (ctx.commits(), 0);
        loop {
            let args = A::of(&planner, selected.field).map_err(FieldError::bad_input)?;
            let done = ctx.batcher.drive((self.run)(args, ctx)).await;
            let Err(error) = done else { return done };
            if ctx.commits() != before {
                return Err(
                    again.left_unfinished(error, planner.argument(selected.field, "input").as_deref())
                );
            }
            number += 1;
            if error.repeats < number {
                return Err(error);
            }
            tokio::time::sleep(pause_before(number)).await;
            // What could not be read is read again, too.
            ctx.batcher.forget();
        }
    }
}

/// Runs a mutation; the answer lacks only its closing brace.
pub(crate) async fn execute(
    root: &SelectionSet,
    planner: Planner<'_>,
    ctx: &Context,
    errors: Errors,
) -> Result<Unfinished, RequestError> {
    let selected = planner.collect(&|condition| condition == Mutation::NAME, &[root])?;
    let mut alone = 0;
    for selected in &selected {
        if let Some(field) = Mutation::field(selected.name()) {
            field.write.check(planner, selected, ctx)?;
            alone += usize::from(field.alone);
        }
        let most = usize::from(!ctx.caller().in_batch);
        if alone > most {
            let message = match most {
                0 => "`signIn`, `signUp` and `refreshSession` are not allowed in an array of requests.",
                _ => "`signIn`, `signUp` and `refreshSession` are allowed once in a document.",
            };
            return Err(RequestError::new(Code::BadUserInput, message).at(selected.location));
        }
    }
    let mut out = Chunks::from(Vec::with_capacity(1_024));
    out.extend(b"{\"data\":");
    let start = out.len();
    let mut answer = Unfinished { out, errors, bound: ctx.bounds.answer() };
    for (index, selected) in selected.iter().enumerate() {
        answer.out.push(if index == 0 { b'{' } else { b',' });
        answer.out.extend(label(selected.key()));
        let Some(field) = Mutation::field(selected.name()) else {
            // Validation lets only `__typename` through beside the fields.
            write_text(Mutation::NAME, answer.out.end());
            continue;
        };
        if let Some(claim) = ctx.claim() {
            claim.begin_field(index as u32);
        }
        let (next, result) = match field.write.run(planner, selected, ctx, answer, field.again).await {
            Ok(written) => written,
            Err(error) => {
                // Later fields do not run: nobody would be told.
                let error = error.at(selected.location);
                return Ok(Unfinished::instead(&error, &ctx.caller().request_id, &ctx.bounds));
            }
        };
        answer = next;
        if result.is_err() {
            // Every mutation's answer is non-null: without it there is no data, and the rest does not run (§6.4.4).
            answer.out.truncate(start);
            answer.out.extend(b"null");
            return Ok(answer.with_errors());
        }
    }
    answer.out.push(b'}');
    Ok(answer.with_errors())
}

/// Whether all fields of a mutation may run under an idempotency key. What a caller may not do is refused
/// before anything of the request runs, or is told again.
pub(crate) fn check_keyed(
    root: &SelectionSet,
    planner: Planner<'_>,
    viewer: &Viewer,
) -> Result<(), RequestError> {
    for selected in planner.collect(&|condition| condition == Mutation::NAME, &[root])? {
        let Some(field) = Mutation::field(selected.name()) else { continue };
        if field.alone {
            return Err(RequestError::new(Code::BadUserInput, NO_TOKENS).at(selected.location));
        }
        if field.tells_a_secret {
            return Err(RequestError::new(Code::BadUserInput, NO_SECRETS).at(selected.location));
        }
        let refused = |error: FieldError| RequestError::new(error.code, error.message).at(selected.location);
        field.needs.check(viewer).map_err(refused)?;
    }
    Ok(())
}

/// The root's place in the library's registry. Execution never comes here.
pub(crate) struct Mutation;

impl Mutation {
    const NAME: &'static str = "Mutation";

    fn field(name: &str) -> Option<&'static MutationField> {
        FIELDS.iter().find(|field| field.name == name)
    }

    fn describe(registry: &mut Registry) -> MetaType {
        let fields = FIELDS.iter().map(|field| {
            let mut meta = MetaField::new(field.name, field.write.type_ref(registry));
            meta.description = Some(field.about.to_owned());
            meta.args = field.write.arguments(registry);
            meta.tags = tags_of(field.write.tag());
            field.needs.declare(&mut meta);
            (field.name.to_owned(), meta)
        });
        let fields = fields.collect();
        ObjectBuilder::new(Self::NAME, fields)
            .description(Some(
                "Everything that changes something. Fields run one after the other. What the caller's role \
                 may not do at all is refused with an error, UNAUTHENTICATED or FORBIDDEN; what cannot be \
                 done with this input, or may not be done to this object, is told in `userErrors`."
                    .to_owned(),
            ))
            .rust_typename(std::any::type_name::<Self>())
            .build()
    }
}

impl OutputType for Mutation {
    fn type_name() -> Cow<'static, str> {
        Self::NAME.into()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        registry.create_output_type::<Self, _>(MetaTypeId::Object, Self::describe)
    }

    async fn resolve(&self, _: &ContextSelectionSet<'_>, _: &Positioned<AstField>) -> ServerResult<Value> {
        Ok(Value::Null)
    }
}

impl ContainerType for Mutation {
    async fn resolve_field(&self, _: &async_graphql::Context<'_>) -> ServerResult<Option<Value>> {
        Ok(None)
    }
}

impl ObjectType for Mutation {}

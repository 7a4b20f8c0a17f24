//! Expected failures of a mutation: they are part of its answer (`userErrors`), each with a code and the path to the
//! input that it is about. Everything else is in `errors` (`error`).

use std::{borrow::Cow, sync::LazyLock};

use async_graphql::{
    Enum, OutputType, Positioned, ServerResult, Value,
    context::ContextSelectionSet,
    indexmap::{IndexMap, IndexSet},
    parser::types::Field as AstField,
    registry::{MetaField, MetaInputValue, MetaType, MetaTypeId, Registry},
};
use entities::unicode;
use futures_util::{FutureExt as _, future::BoxFuture};

use crate::graph::subgraph::Domain;
use engine::{
    context::Context,
    error::{FieldError, RequestError, SourceLocation},
    object::{self, Edge, Entity, FieldRequest, Filled, Object, Row, Rows, Run, Selection},
    output::{Unwritten, Writer},
    scalar::Leaf,
    variables::item::Malformed,
};

/// Why an input was refused. New codes may be added.
#[derive(Enum, Copy, Clone, Debug, Eq, PartialEq)]
pub enum UserErrorCode {
    /// The value cannot be used.
    Invalid,
    /// The value is missing.
    Required,
    /// The value is too long, too large or too many.
    TooLarge,
    /// The value is too short, too small or too few.
    TooSmall,
    /// It does not exist, or the viewer may not see it.
    NotFound,
    /// One exists already.
    AlreadyExists,
    /// It was changed in between, or stands against what is stored.
    Conflict,
    /// The form does not take submissions now.
    NotAccepting,
    /// The viewer may not do this to this object. (What a role may not do at all is refused with the error FORBIDDEN.)
    NotAllowed,
    /// Wrong e-mail or password.
    InvalidCredentials,
    /// It was valid once.
    Expired,
    /// The password is too easy to guess.
    WeakPassword,
}

impl UserErrorCode {
    /// The name in the schema.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "INVALID",
            Self::Required => "REQUIRED",
            Self::TooLarge => "TOO_LARGE",
            Self::TooSmall => "TOO_SMALL",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::Conflict => "CONFLICT",
            Self::NotAccepting => "NOT_ACCEPTING",
            Self::NotAllowed => "NOT_ALLOWED",
            Self::InvalidCredentials => "INVALID_CREDENTIALS",
            Self::Expired => "EXPIRED",
            Self::WeakPassword => "WEAK_PASSWORD",
        }
    }
}

crate::graph::scalar::enum_leaf!(UserErrorCode, UserErrorCode);

/// One expected failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserError {
    /// A sentence for the person who filled in the input.
    pub message: Cow<'static, str>,
    /// Why.
    pub code: UserErrorCode,
    /// From the argument to the input it is about: `["input", "points", "3", "latitude"]`.
    pub path: Vec<Cow<'static, str>>,
    /// Where it is in a submission's `data`, if it is there.
    pub data: Option<InData>,
}

/// A place in a submission's `data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InData {
    /// A JSON Pointer (RFC 6901) into `data`.
    pub pointer: String,
    /// The rule that is broken, such as `required` or `maxLength`.
    pub rule: String,
}

impl UserError {
    /// A failure of the input at `path`, which begins with the argument's name.
    pub fn new(code: UserErrorCode, path: &[&'static str], message: impl Into<Cow<'static, str>>) -> Self {
        let path = path.iter().map(|segment| Cow::Borrowed(*segment)).collect();
        Self { message: message.into(), code, path, data: None }
    }

    /// This failure, of the input at `path` or of a field of it.
    pub(crate) fn at(self, path: &[Cow<'static, str>], field: Option<&'static str>) -> Self {
        Self { path: path.iter().cloned().chain(field.map(Cow::Borrowed)).collect(), ..self }
    }
}

/// The error of an item of a batch that cannot be read; `path` leads to the item.
pub(crate) fn of_malformed(malformed: Malformed, path: &[Cow<'static, str>]) -> UserError {
    let code = if malformed.is_missing { UserErrorCode::Required } else { UserErrorCode::Invalid };
    let path = path.iter().cloned().chain(malformed.path.into_iter().map(Cow::Owned)).collect();
    UserError { message: malformed.message.into(), code, path, data: None }
}

/// One line that reads as it is spelt, without control characters and invisible ones: fit for a name or a title.
pub(crate) fn is_one_line(text: &str) -> bool {
    !text.chars().any(char::is_control) && !unicode::has_hidden(text)
}

/// `InputError`
#[derive(Clone)]
struct InputError(UserError);

/// `SubmissionDataError`
#[derive(Clone)]
struct SubmissionDataError {
    error: UserError,
    data: InData,
}

const INTERFACE: &str = "UserError";
/// Registered by the field `userErrors`.
const USER_ERROR: object::Interface = object::Interface { name: INTERFACE, register: None };
const MESSAGE: &str = "A sentence for the person who filled in the input.";
const CODE: &str = "Why it was refused.";
const PATH: &str = "From the argument to the input that it is about.";

impl Entity for InputError {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<InputError>> = LazyLock::new(|| {
            Object::<InputError>::new("InputError", "An input that was refused.")
                .shareable()
                .implements(USER_ERROR)
                .column("message", MESSAGE, |error| &error.0.message)
                .column("code", CODE, |error| &error.0.code)
                .column("path", PATH, |error| &error.0.path)
        });
        &OBJECT
    }
}

impl Entity for SubmissionDataError {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<SubmissionDataError>> = LazyLock::new(|| {
            Object::<SubmissionDataError>::new(
                "SubmissionDataError",
                "An answer that breaks a rule of its form.",
            )
            .of(Domain::Forms)
            .implements(USER_ERROR)
            .column("message", MESSAGE, |error| &error.error.message)
            .column("code", CODE, |error| &error.error.code)
            .column("path", "From the argument to the `data` that it is about.", |error| &error.error.path)
            .column("pointer", "Where in `data`, as a JSON Pointer (RFC 6901).", |error| &error.data.pointer)
            .column(
                "rule",
                "The rule that is broken, such as `required` or `maxLength`.",
                |error| &error.data.rule,
            )
        });
        &OBJECT
    }
}

/// The field `userErrors` of a payload.
pub(crate) struct UserErrors<P> {
    errors: fn(&P) -> &[UserError],
}

impl<P> UserErrors<P> {
    pub(crate) const fn new(errors: fn(&P) -> &[UserError]) -> Self {
        Self { errors }
    }
}

impl<P: Entity> Edge<P> for UserErrors<P> {
    fn type_ref(&self, registry: &mut Registry) -> String {
        format!("[{}!]!", Interface::create_type_info(registry))
    }

    fn arguments(&self, _: &mut Registry) -> IndexMap<String, MetaInputValue> {
        IndexMap::new()
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn plan<'q>(&'static self, request: FieldRequest<'q>) -> Result<Box<dyn Run<P> + 'q>, RequestError> {
        let sets = &request.selected.sets;
        let inputs = InputError::object().plan(request.planner, sets, request.ctx)?;
        let data = SubmissionDataError::object().plan(request.planner, sets, request.ctx)?;
        Ok(Box::new(ErrorsRun { edge: self, inputs, data, location: request.selected.location }))
    }
}

struct ErrorsRun<'q, P: 'static> {
    edge: &'static UserErrors<P>,
    inputs: Selection<'q, InputError>,
    data: Selection<'q, SubmissionDataError>,
    location: SourceLocation,
}

/// The errors were too many to be copied.
struct TooMany {
    error: FieldError,
    location: SourceLocation,
}

impl Filled for TooMany {
    fn write<'w>(&'w self, _: usize, writer: &mut Writer<'w>) -> Result<(), Unwritten> {
        Err(writer.fail(&self.error, self.location))
    }
}

/// Where an error is among those of its type.
#[derive(Clone, Copy)]
enum ErrorIndex {
    Input(usize),
    Data(usize),
}

impl<P: Entity> Run<P> for ErrorsRun<'_, P> {
    fn start<'a>(&'a self, rows: &[P], ctx: &'a Context) -> BoxFuture<'a, Box<dyn Filled + 'a>> {
        let count = rows.iter().map(|row| (self.edge.errors)(row).len()).sum();
        if let Err(error) = ctx.bounds.taken.copy(count) {
            let refused = TooMany { error, location: self.location };
            return std::future::ready(Box::new(refused) as Box<dyn Filled>).boxed();
        }
        let (mut inputs, mut data) = (Vec::new(), Vec::new());
        let slots: Vec<Vec<ErrorIndex>> = rows
            .iter()
            .map(|row| {
                let errors = (self.edge.errors)(row).iter().cloned();
                errors
                    .map(|error| match error.data.clone() {
                        None => {
                            inputs.push(InputError(error));
                            ErrorIndex::Input(inputs.len() - 1)
                        }
                        Some(in_data) => {
                            data.push(SubmissionDataError { error, data: in_data });
                            ErrorIndex::Data(data.len() - 1)
                        }
                    })
                    .collect()
            })
            .collect();
        async move {
            let (inputs, data) = (self.inputs.run(inputs, ctx).await, self.data.run(data, ctx).await);
            Box::new(ErrorsFilled { slots, inputs, data }) as Box<dyn Filled>
        }
        .boxed()
    }
}

struct ErrorsFilled<'a, 'q> {
    slots: Vec<Vec<ErrorIndex>>,
    inputs: Rows<'a, 'q, InputError>,
    data: Rows<'a, 'q, SubmissionDataError>,
}

impl Filled for ErrorsFilled<'_, '_> {
    fn write<'w>(&'w self, row: usize, writer: &mut Writer<'w>) -> Result<(), Unwritten> {
        let slots = &self.slots[row];
        writer.list(slots.len(), false, |index, writer| match slots[index] {
            ErrorIndex::Input(at) => self.inputs.write(at, writer),
            ErrorIndex::Data(at) => self.data.write(at, writer),
        })
    }
}

/// The interface in the registry.
struct Interface;

impl OutputType for Interface {
    fn type_name() -> Cow<'static, str> {
        INTERFACE.into()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        let name = registry.create_output_type::<Self, _>(MetaTypeId::Interface, |registry| {
            let fields = [
                ("message", MESSAGE, String::type_ref(registry)),
                ("code", CODE, UserErrorCode::type_ref(registry)),
                ("path", PATH, Vec::<Cow<'static, str>>::type_ref(registry)),
            ];
            let fields = fields.into_iter().map(|(name, about, ty)| {
                let mut field = MetaField::new(name, ty);
                field.description = Some(about.to_owned());
                (name.to_owned(), field)
            });
            let types = [InputError::object().name, SubmissionDataError::object().name];
            MetaType::Interface {
                name: INTERFACE.to_owned(),
                description: Some("Why an input of a mutation was refused.".to_owned()),
                fields: fields.collect(),
                possible_types: types.iter().map(ToString::to_string).collect::<IndexSet<_>>(),
                extends: false,
                keys: None,
                visible: None,
                inaccessible: false,
                tags: Vec::new(),
                rust_typename: Some(std::any::type_name::<Self>()),
                directive_invocations: Vec::new(),
                requires_scopes: Vec::new(),
            }
        });
        // The types behind an interface are reached by no field.
        Row::<InputError>::create_type_info(registry);
        Row::<SubmissionDataError>::create_type_info(registry);
        name.trim_end_matches('!').to_owned()
    }

    async fn resolve(&self, _: &ContextSelectionSet<'_>, _: &Positioned<AstField>) -> ServerResult<Value> {
        Ok(Value::Null)
    }
}

//! Items of a batch that are judged each by itself: what a device has collected offline comes in one request, and an item
//! that cannot be read must not keep the others from being stored. Coercion puts what is wrong in the item's place; the
//! mutation answers it as that item's error. Not here: how values are coerced (`variables`).

use std::borrow::Cow;

use async_graphql::{InputType, InputValueError, InputValueResult, Value, registry::Registry};
use serde::{Deserialize, Serialize};

use crate::graph::user_error::{UserError, UserErrorCode};

/// The input types whose lists are batches.
const JUDGED_ALONE: [&str; 2] = ["LocationPointInput", "CreateSubmissionInput"];

/// Is a list of this input type a batch?
pub(super) fn is_judged_alone(type_name: &str) -> bool {
    JUDGED_ALONE.contains(&type_name)
}

/// An item of a batch. In the schema it is a plain `T`.
pub(crate) enum Item<T> {
    /// It can be read.
    Read(T),
    /// It cannot.
    Malformed(Malformed),
}

/// Why an item cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Malformed {
    /// From the item to what is wrong.
    pub(super) path: Vec<String>,
    /// Something required is not there.
    pub(super) is_missing: bool,
    /// A sentence.
    pub(super) message: String,
}

impl Malformed {
    /// As it stands in the item's place. Nothing that a client sends becomes a value of this kind.
    pub(super) fn into_value(self) -> Value {
        Value::Binary(serde_json::to_vec(&self).unwrap_or_default().into())
    }

    pub(super) fn of_value(value: &Value) -> Option<Self> {
        let Value::Binary(bytes) = value else { return None };
        serde_json::from_slice(bytes).ok()
    }

    /// The error of the item at `path`.
    pub(crate) fn error(self, path: &[Cow<'static, str>]) -> UserError {
        let code = if self.is_missing { UserErrorCode::Required } else { UserErrorCode::Invalid };
        let path = path.iter().cloned().chain(self.path.into_iter().map(Cow::Owned)).collect();
        UserError { message: self.message.into(), code, path, data: None }
    }
}

impl<T: InputType> InputType for Item<T> {
    type RawValueType = Self;

    fn type_name() -> Cow<'static, str> {
        T::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        debug_assert!(is_judged_alone(&T::type_name()), "{} is not judged alone", T::type_name());
        T::create_type_info(registry)
    }

    fn parse(value: Option<Value>) -> InputValueResult<Self> {
        if let Some(malformed) = value.as_ref().and_then(Malformed::of_value) {
            return Ok(Self::Malformed(malformed));
        }
        // Written out in the document: validation has seen to its shape.
        T::parse(value).map(Self::Read).map_err(InputValueError::propagate)
    }

    fn to_value(&self) -> Value {
        Value::Null
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }
}

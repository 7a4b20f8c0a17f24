//! Items of a batch that are judged each by itself: what a device has collected offline comes in one request,
//! and an item that cannot be read must not keep the others from being stored. Coercion puts what is wrong in
//! the item's place; the mutation answers it as that item's error. Not here: how values are coerced
//! (`variables`).

use std::borrow::Cow;

use async_graphql::{InputType, InputValueError, InputValueResult, Value, registry::Registry};
use serde::{Deserialize, Serialize};

/// An item of a batch. In the schema it is a plain `T`.
pub enum Item<T> {
    /// It can be read.
    Read(T),
    /// It cannot.
    Malformed(Malformed),
}

/// Why an item cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Malformed {
    /// From the item to what is wrong.
    pub path: Vec<String>,
    /// Something required is not there.
    pub is_missing: bool,
    /// A sentence.
    pub message: String,
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
}

impl<T: InputType> InputType for Item<T> {
    type RawValueType = Self;

    fn type_name() -> Cow<'static, str> {
        T::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
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

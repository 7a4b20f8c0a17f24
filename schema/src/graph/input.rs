//! Inputs that several domains share, and the reading of ids.

use std::collections::BTreeSet;

use async_graphql::{Enum, ID, InputObject, resolver_utils::EnumType};
use entities::{clock::TimeRange, unicode};

use engine::{error::FieldError, scalar::DateTime};

/// Which way a list is sorted.
#[derive(Enum, Copy, Clone, Eq, PartialEq)]
pub enum OrderDirection {
    /// Smallest first.
    Asc,
    /// Largest first.
    Desc,
}

/// A stretch of time: `from <= t < to`. An end that is left out is open.
#[derive(InputObject)]
#[graphql(name = "TimeRange")]
pub struct TimeRangeInput {
    /// The first moment inside.
    from: Option<DateTime>,
    /// The first moment after.
    to: Option<DateTime>,
}

impl TimeRangeInput {
    /// The range; everything where none is given.
    pub(crate) fn read(given: Option<&Self>) -> Result<TimeRange, FieldError> {
        let Some(given) = given else { return Ok(TimeRange::default()) };
        let (from, to) = (given.from.map(|time| time.0), given.to.map(|time| time.0));
        if from.zip(to).is_some_and(|(from, to)| from > to) {
            return Err(FieldError::bad_input("Invalid time range: it must not end before it begins."));
        }
        Ok(TimeRange { from, to })
    }
}

/// Ids in a filter; at most as many as fit one statement comfortably.
const MAX_IDS: usize = 1_000;

/// Bytes that are searched for at most: SQLite takes no pattern of more than 50,000, and nobody reads as much.
const MAX_SEARCH_BYTES: usize = 10_000;

/// Reads what is searched for, if anything is: the empty text is in every text.
pub(crate) fn search(given: Option<&str>) -> Result<Option<String>, FieldError> {
    if given.is_some_and(|given| given.len() > MAX_SEARCH_BYTES) {
        return Err(FieldError::bad_input(format!("`search` takes at most {MAX_SEARCH_BYTES} bytes")));
    }
    Ok(given.filter(|given| !given.is_empty()).map(unicode::searched))
}

/// Reads one id.
pub(crate) fn id<I>(name: &str, given: &ID, parse: fn(&str) -> Option<I>) -> Result<I, FieldError> {
    parse(given).ok_or_else(|| FieldError::bad_input(format!("Invalid id in `{name}`: expected a UUID.")))
}

/// Reads ids, if any are given.
pub(crate) fn ids<I: Ord>(
    name: &str,
    given: Option<&[ID]>,
    parse: fn(&str) -> Option<I>,
) -> Result<Option<Vec<I>>, FieldError> {
    let Some(given) = given else { return Ok(None) };
    if given.len() > MAX_IDS {
        return Err(FieldError::bad_input(format!("`{name}` takes at most {MAX_IDS} ids")));
    }
    given.iter().map(|given| id(name, given, parse)).collect::<Result<Vec<_>, _>>().map(|ids| Some(set(ids)))
}

/// What a filter chooses from an enum. Nothing where it names every value: that leaves the list as it is.
pub(crate) fn some_of<E: EnumType + Copy, T: Ord + From<E>>(given: Option<&[E]>) -> Option<Vec<T>> {
    let chosen = set(given?.iter().map(|value| T::from(*value)));
    (chosen.len() < E::items().len()).then_some(chosen)
}

/// What a filter chooses from: each value once, in one order, however it was written.
pub(crate) fn set<T: Ord>(values: impl IntoIterator<Item = T>) -> Vec<T> {
    let set: BTreeSet<T> = values.into_iter().collect();
    set.into_iter().collect()
}

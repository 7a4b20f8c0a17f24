//! The text of a cursor: version, key values and an 8-byte MAC, in URL-safe base64 without padding, about 44
//! characters. The MAC's key comes from the server's secret, and it also covers the list's field, order,
//! filter and parent: a cursor from another list, as from another form's submissions, an altered one or one
//! that was made elsewhere is refused instead of showing a wrong page. One field may load the lists of many
//! parents at once, so a cursor is read when the arguments are, and checked for each parent before anything
//! is loaded. What a cursor holds is no secret: rows are guarded by `Scope`, never by a cursor.

use std::fmt;

use aws_lc_rs::constant_time;
use chrono::{DateTime, Datelike as _};
use uuid::Uuid;

use super::{KeyKind, KeyValue, Keyset, Position};
use crate::{clock::Time, database::sql::is_storable};

/// The text is not a cursor that this list handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it does not belong to this list")]
pub struct BadCursor;

const VERSION: u8 = 3;
const MAC_BYTES: usize = 8;
/// Longer texts are refused unread: the longest key is a title.
const MAX_CHARS: usize = 4_096;

/// The key of the cursors of lists, derived from the server's secret.
#[derive(Clone, Copy)]
pub struct CursorKey([u8; 32]);

impl CursorKey {
    /// The key of these bytes.
    pub(crate) fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for CursorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CursorKey(***)")
    }
}

/// The lists of one field that cursors belong to: the field and its filter. The order joins in from the keyset, and the
/// parent from each row. Holds the cursors that were given, until they are checked.
#[derive(Clone, Debug)]
pub struct CursorScope {
    key: CursorKey,
    list: String,
    named: Option<Named>,
    given: Vec<Given>,
}

/// A filter by parents, in lists that have a parent each.
#[derive(Clone, Debug)]
struct Named {
    parents: Vec<Uuid>,
    /// The list without that filter.
    list: String,
}

/// A cursor as it was sent.
#[derive(Clone, Debug)]
struct Given {
    body: Vec<u8>,
    mac: [u8; MAC_BYTES],
}

impl CursorScope {
    /// The lists that this text names: equal lists have equal texts.
    pub fn new(key: CursorKey, list: String) -> Self {
        Self { key, list, named: None, given: Vec::new() }
    }

    /// The filter leaves the whole list to these parents. Under one of them the list is the same as the one that `list`
    /// names, without this part of the filter.
    #[must_use]
    pub fn within(self, parents: Vec<Uuid>, list: String) -> Self {
        Self { named: Some(Named { parents, list }), ..self }
    }

    /// The cursor of the row at `position` in the list of `parent`; nil in a list without a parent.
    pub fn encode<R>(&self, keyset: &Keyset<R>, parent: Uuid, position: &Position) -> String {
        let mut bytes = Vec::with_capacity(48);
        bytes.push(VERSION);
        for value in &position.0 {
            match value {
                KeyValue::Time(time) => bytes.extend(time.timestamp_micros().to_be_bytes()),
                KeyValue::Int(number) => bytes.extend(number.to_be_bytes()),
                KeyValue::Id(id) => bytes.extend(id.as_bytes()),
                KeyValue::Text(text) => {
                    bytes.extend((text.len() as u32).to_be_bytes());
                    bytes.extend(text.as_bytes());
                }
            }
        }
        let mac = self.mac(keyset, parent, &bytes);
        bytes.extend(mac);
        base64(&bytes)
    }

    /// The position that `text` names. Whose list it is of is not known yet: `check` has to be asked for each parent
    /// before the position is used.
    ///
    /// # Errors
    /// `BadCursor` for a text that does not have the form of a cursor in this order.
    pub fn read<R>(&mut self, keyset: &Keyset<R>, text: &str) -> Result<Position, BadCursor> {
        let bytes =
            if text.len() <= MAX_CHARS { unbase64(text).ok_or(BadCursor)? } else { return Err(BadCursor) };
        let (body, mac) = bytes.split_last_chunk::<MAC_BYTES>().ok_or(BadCursor)?;
        let mut rest = body.strip_prefix(&[VERSION]).ok_or(BadCursor)?;
        let values = keyset.keys.iter().map(|key| read(key.kind, &mut rest)).collect::<Option<Vec<_>>>();
        let position = values.filter(|_| rest.is_empty()).map(Position).ok_or(BadCursor)?;
        self.given.push(Given { body: body.to_vec(), mac: *mac });
        Ok(position)
    }

    /// Are all cursors that were read of the list of `parent`?
    ///
    /// # Errors
    /// `BadCursor` for anything that this list, in this order and with this filter, did not hand out.
    pub fn check<R>(&self, keyset: &Keyset<R>, parent: Uuid) -> Result<(), BadCursor> {
        let is_of = |given: &Given| {
            let mac = self.mac(keyset, parent, &given.body);
            constant_time::verify_slices_are_equal(&mac, &given.mac).is_ok()
        };
        if self.given.iter().all(is_of) { Ok(()) } else { Err(BadCursor) }
    }

    fn mac<R>(&self, keyset: &Keyset<R>, parent: Uuid, body: &[u8]) -> [u8; MAC_BYTES] {
        let named = self.named.as_ref().filter(|named| named.parents.contains(&parent));
        let list = named.map_or(&self.list, |named| &named.list);
        let mut hasher = blake3::Hasher::new_keyed(&self.key.0);
        hasher.update(&[u8::from(keyset.descending)]).update(parent.as_bytes());
        for part in [keyset.name.as_bytes(), list.as_bytes(), body] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        let mut mac = [0; MAC_BYTES];
        hasher.finalize_xof().fill(&mut mac);
        mac
    }
}

/// Reads one value, and refuses what no row can have: a database would answer it with an error.
fn read(kind: KeyKind, rest: &mut &[u8]) -> Option<KeyValue> {
    match kind {
        KeyKind::Time => {
            let micros = i64::from_be_bytes(take(rest)?);
            DateTime::from_timestamp_micros(micros).filter(is_storable_time).map(KeyValue::Time)
        }
        KeyKind::Int => take(rest).map(i64::from_be_bytes).map(KeyValue::Int),
        KeyKind::Id => take(rest).map(Uuid::from_bytes).map(KeyValue::Id),
        KeyKind::Text => {
            let length = u32::from_be_bytes(take(rest)?) as usize;
            let (text, after) = rest.split_at_checked(length)?;
            *rest = after;
            let text = std::str::from_utf8(text).ok().filter(|text| is_storable(text))?;
            Some(KeyValue::Text(text.to_owned()))
        }
    }
}

/// The years that inputs can have.
fn is_storable_time(time: &Time) -> bool {
    (0..=9999).contains(&time.year())
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// Strict: other alphabets, padding and left-over bits are refused, so one position has one cursor.
fn unbase64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{auth::secret::Secret, database::page::SortKey};

    type Row = (i64, Uuid, String);

    static BY_TIME: Keyset<Row> = Keyset {
        name: "rows.created",
        descending: true,
        keys: &[
            SortKey {
                sql: |_| {},
                kind: KeyKind::Time,
                value: |row| KeyValue::Time(DateTime::from_timestamp_micros(row.0).expect("in range")),
            },
            SortKey { sql: |_| {}, kind: KeyKind::Text, value: |row| KeyValue::Text(row.2.clone()) },
            SortKey { sql: |_| {}, kind: KeyKind::Id, value: |row| KeyValue::Id(row.1) },
        ],
    };

    fn list(secret: &str, name: &str) -> CursorScope {
        CursorScope::new(Secret::new(secret).cursor_key(), name.to_owned())
    }

    const PARENT: Uuid = Uuid::from_u128(3);

    impl CursorScope {
        fn decode(&self, keyset: &Keyset<Row>, text: &str) -> Result<Position, BadCursor> {
            let mut scope = self.clone();
            let position = scope.read(keyset, text)?;
            scope.check(keyset, PARENT).map(|()| position)
        }
    }

    fn cursor() -> (CursorScope, Position, String) {
        let scope = list("one", "Query.rows{}");
        let position = BY_TIME.position(&(1_700_000_000_123_456, Uuid::from_u128(7), "Đo nước".to_owned()));
        let text = scope.encode(&BY_TIME, PARENT, &position);
        (scope, position, text)
    }

    #[test]
    fn a_cursor_names_its_position() {
        let (scope, position, text) = cursor();
        assert_eq!(scope.decode(&BY_TIME, &text), Ok(position));
    }

    #[test]
    fn every_altered_bit_is_refused() {
        let (scope, position, text) = cursor();
        for index in 0..text.len() {
            for bit in 0..7 {
                let mut altered = text.clone().into_bytes();
                altered[index] ^= 1 << bit;
                let altered = String::from_utf8(altered).expect("ASCII stays ASCII");
                assert_ne!(scope.decode(&BY_TIME, &altered), Ok(position.clone()), "{altered}");
                assert_eq!(scope.decode(&BY_TIME, &altered), Err(BadCursor), "{altered}");
            }
        }
    }

    #[test]
    fn a_cursor_of_another_field_or_filter_is_refused() {
        let (_, _, text) = cursor();
        assert_eq!(list("one", "Query.rows{a}").decode(&BY_TIME, &text), Err(BadCursor));
        let upwards = Keyset { descending: false, ..BY_TIME };
        assert_eq!(list("one", "Query.rows{}").decode(&upwards, &text), Err(BadCursor));
    }

    #[test]
    fn a_cursor_of_another_parent_is_refused() {
        let (mut scope, position, text) = cursor();
        let other = Uuid::from_u128(4);
        assert_eq!(scope.read(&BY_TIME, &text), Ok(position.clone()));
        assert_eq!((scope.check(&BY_TIME, PARENT), scope.check(&BY_TIME, other)), (Ok(()), Err(BadCursor)));
        let of_other = scope.encode(&BY_TIME, other, &position);
        assert!(scope.read(&BY_TIME, &of_other).is_ok());
        assert_eq!(scope.check(&BY_TIME, PARENT), Err(BadCursor), "one of two is enough");
    }

    #[test]
    fn a_filter_that_names_the_parent_changes_nothing_under_it() {
        let (_, position, text) = cursor();
        let scope = list("one", "Query.rows{of:3}").within(vec![PARENT], "Query.rows{}".to_owned());
        assert_eq!(scope.decode(&BY_TIME, &text), Ok(position));
        assert_eq!(list("one", "Query.rows{of:3}").decode(&BY_TIME, &text), Err(BadCursor));
        let elsewhere =
            list("one", "Query.rows{of:4}").within(vec![Uuid::from_u128(4)], "Query.rows{}".to_owned());
        assert_eq!(elsewhere.decode(&BY_TIME, &text), Err(BadCursor), "there the list is empty");
    }

    #[test]
    fn only_who_has_the_secret_makes_cursors() {
        let (scope, position, text) = cursor();
        let guessed = list("guessed", "Query.rows{}").encode(&BY_TIME, PARENT, &position);
        assert_eq!(scope.decode(&BY_TIME, &guessed), Err(BadCursor));
        assert_eq!(
            list("one", "Query.rows{}").encode(&BY_TIME, PARENT, &position),
            text,
            "the same on all instances"
        );
    }

    #[test]
    fn cursors_with_impossible_values_are_refused() {
        let (scope, ..) = cursor();
        let id = Uuid::from_u128(7);
        let time = |micros| DateTime::from_timestamp_micros(micros).expect("in range");
        let position = |time: Time, text: &str| {
            Position(vec![KeyValue::Time(time), KeyValue::Text(text.to_owned()), KeyValue::Id(id)])
        };
        let decoded = |position: &Position| scope.decode(&BY_TIME, &scope.encode(&BY_TIME, PARENT, position));
        let good = position(time(0), "a");
        assert_eq!(decoded(&good), Ok(good));
        assert_eq!(decoded(&position(time(0), "a\0")), Err(BadCursor));
        for year in [Time::MIN_UTC, Time::MAX_UTC] {
            assert_eq!(decoded(&position(time(year.timestamp_micros()), "a")), Err(BadCursor), "{year}");
        }
    }

    #[test]
    fn no_text_makes_it_panic() {
        let (scope, _, text) = cursor();
        for text in ["", "=", "AQ", "🦀", &text[1..], &"A".repeat(5_000), &format!("{text}A")] {
            assert_eq!(scope.decode(&BY_TIME, text), Err(BadCursor), "{text}");
        }
    }
}

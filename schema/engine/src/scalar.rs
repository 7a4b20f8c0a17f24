//! Values at the leaves: how each Rust type is named in the schema and written as JSON. A leaf is written straight
//! into the answer; no value tree is built. Not here: objects and edges (`object`).

use async_graphql::{InputValueError, InputValueResult, Name, Scalar, ScalarType, Value, registry::Registry};
use std::borrow::Cow;

use chrono::{DateTime as ChronoDateTime, Datelike as _, TimeDelta, Timelike as _, Utc};

/// The scalar `DateTime`; its published description stands on `ScalarType` below, where the library reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DateTime(pub ChronoDateTime<Utc>);

/// A point in time (RFC 3339) in the years 0001 to 9999. Answers are in UTC with `Z` and six digits of the second, so
/// that the order of the texts is the order of the times: `2026-01-02T03:04:05.123456Z`. Inputs may have any offset. A
/// leap second (`23:59:60` UTC at the end of a month) is read as the last microsecond before it; second 60 at another
/// time is refused.
#[Scalar(name = "DateTime", specified_by_url = "https://datatracker.ietf.org/doc/html/rfc3339")]
impl ScalarType for DateTime {
    fn parse(value: Value) -> InputValueResult<Self> {
        let Value::String(text) = &value else {
            return Err(InputValueError::custom(BAD_TIME));
        };
        read_time(text).map(Self).ok_or_else(|| InputValueError::custom(BAD_TIME))
    }

    fn is_valid(value: &Value) -> bool {
        matches!(value, Value::String(text) if read_time(text).is_some())
    }

    fn to_value(&self) -> Value {
        let mut out = Vec::with_capacity(29);
        write_time(self.0, &mut out);
        let text = String::from_utf8(out).expect("digits are UTF-8");
        Value::String(text.trim_matches('"').to_owned())
    }
}

/// What a text that is not a time should have been.
pub(crate) const BAD_TIME: &str = "Invalid DateTime: expected a time such as \"2026-01-02T03:04:05Z\" (RFC \
                                   3339), in the years 0001 to 9999.";

/// A time that the databases can hold and that can be written again, in UTC, where an offset may lead to another year.
/// PostgreSQL's calendar has no year 0. Neither database has leap seconds: one is the end of the second before it, and
/// second 60 elsewhere does not exist (RFC 3339, section 5.7: "at the end of months in which a leap second occurs").
fn read_time(text: &str) -> Option<ChronoDateTime<Utc>> {
    let time = ChronoDateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc);
    if !(1..=9999).contains(&time.year()) {
        return None;
    }
    if time.nanosecond() < 1_000_000_000 {
        return Some(time);
    }
    let last = time.with_nanosecond(999_999_999)?;
    let ends_month = (last + TimeDelta::seconds(1)).day() == 1;
    (ends_month && (last.hour(), last.minute()) == (23, 59)).then_some(last)
}

/// The scalar `JSON` as an input; answers are written from the database's own text (`Leaf for Json`).
#[derive(Debug)]
pub struct AnyJson(pub serde_json::Value);

/// Lists and objects inside one another in a `JSON` input at most.
const MAX_JSON_DEPTH: usize = 64;

/// Any JSON value (RFC 8259), sent and stored as it is.
#[Scalar(name = "JSON", specified_by_url = "https://datatracker.ietf.org/doc/html/rfc8259")]
impl ScalarType for AnyJson {
    fn parse(value: Value) -> InputValueResult<Self> {
        json_of(value, MAX_JSON_DEPTH).map(Self).map_err(InputValueError::custom)
    }

    fn to_value(&self) -> Value {
        Value::Null
    }
}

/// A value of the graph as JSON, number for number. What JSON cannot say is refused.
fn json_of(value: Value, depth: usize) -> Result<serde_json::Value, &'static str> {
    let inner = || depth.checked_sub(1).ok_or("Invalid JSON value: nested too deeply.");
    Ok(match value {
        Value::Null => serde_json::Value::Null,
        Value::Number(number) => serde_json::Value::Number(number),
        Value::String(text) => serde_json::Value::String(text),
        Value::Boolean(is) => serde_json::Value::Bool(is),
        Value::List(items) => {
            let depth = inner()?;
            items.into_iter().map(|item| json_of(item, depth)).collect::<Result<_, _>>()?
        }
        Value::Object(fields) => {
            let depth = inner()?;
            let named = |(name, value): (Name, Value)| Ok((name.to_string(), json_of(value, depth)?));
            fields.into_iter().map(named).collect::<Result<serde_json::Map<_, _>, &'static str>>()?.into()
        }
        Value::Enum(_) | Value::Binary(_) => {
            return Err("Invalid JSON value: names must be in quotes.");
        }
    })
}

/// A type that can stand at a leaf of an answer.
pub trait Leaf<M = ()> {
    /// May the value be null?
    const NULLABLE: bool = false;
    /// Registers the type and returns its name with `!` unless it is nullable.
    fn type_ref(registry: &mut Registry) -> String;
    /// Appends the value as JSON.
    fn write(&self, out: &mut Vec<u8>);
}

impl<M, L: Leaf<M>> Leaf<M> for Option<L> {
    const NULLABLE: bool = true;

    fn type_ref(registry: &mut Registry) -> String {
        L::type_ref(registry).trim_end_matches('!').to_owned()
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Some(value) => value.write(out),
            None => out.extend(b"null"),
        }
    }
}

impl Leaf for bool {
    fn type_ref(registry: &mut Registry) -> String {
        <Self as async_graphql::InputType>::create_type_info(registry)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(if *self { &b"true"[..] } else { b"false" });
    }
}

impl Leaf for i32 {
    fn type_ref(registry: &mut Registry) -> String {
        <Self as async_graphql::InputType>::create_type_info(registry)
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_json(self, out);
    }
}

/// Counts. `Int` has 32 bits, so a larger count stays at the largest `Int`.
impl Leaf for i64 {
    fn type_ref(registry: &mut Registry) -> String {
        i32::type_ref(registry)
    }

    fn write(&self, out: &mut Vec<u8>) {
        i32::try_from(*self).unwrap_or(i32::MAX).write(out);
    }
}

impl Leaf for f64 {
    fn type_ref(registry: &mut Registry) -> String {
        <Self as async_graphql::InputType>::create_type_info(registry)
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_json(self, out);
    }
}

impl Leaf for String {
    fn type_ref(registry: &mut Registry) -> String {
        <Self as async_graphql::InputType>::create_type_info(registry)
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_text(self, out);
    }
}

impl Leaf for &'static str {
    fn type_ref(registry: &mut Registry) -> String {
        String::type_ref(registry)
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_text(self, out);
    }
}

impl Leaf for ChronoDateTime<Utc> {
    fn type_ref(registry: &mut Registry) -> String {
        <DateTime as async_graphql::OutputType>::create_type_info(registry)
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_time(*self, out);
    }
}

impl<M, L: Leaf<M>> Leaf<M> for std::sync::Arc<L> {
    const NULLABLE: bool = L::NULLABLE;

    fn type_ref(registry: &mut Registry) -> String {
        L::type_ref(registry)
    }

    fn write(&self, out: &mut Vec<u8>) {
        L::write(self, out);
    }
}

/// A UUID that is an `ID` of the graph.
impl Leaf for uuid::Uuid {
    fn type_ref(registry: &mut Registry) -> String {
        <async_graphql::ID as async_graphql::OutputType>::create_type_info(registry)
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_uuid(self, out);
    }
}

/// `[String!]!`
impl Leaf for Vec<Cow<'static, str>> {
    fn type_ref(registry: &mut Registry) -> String {
        format!("[{}]!", String::type_ref(registry))
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_json(self, out);
    }
}

impl Leaf for Cow<'static, str> {
    fn type_ref(registry: &mut Registry) -> String {
        String::type_ref(registry)
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_json(self, out);
    }
}

/// A value of so many bytes gets no more room than it needs and this: as much again, as a vector takes it,
/// would count as memory of the answer.
const LONG: usize = 4 << 10;
/// For what comes behind such a value before the next one.
const BEHIND: usize = 512;

/// Appends bytes of which there may be many.
pub fn append(bytes: &[u8], out: &mut Vec<u8>) {
    make_room(bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// Makes room for a value of so many bytes.
pub(crate) fn make_room(bytes: usize, out: &mut Vec<u8>) {
    if bytes < LONG {
        out.reserve(bytes);
    } else if out.capacity() - out.len() < bytes {
        out.reserve_exact(bytes + BEHIND);
    }
}

/// Appends `text` as a JSON string.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    // Without an early end the loop looks at many bytes at once; next to no text needs more than that.
    let is_special = |byte: &u8| *byte < b' ' || *byte == b'"' || *byte == b'\\';
    if text.as_bytes().iter().fold(false, |found, byte| found | is_special(byte)) {
        return write_json(text, out);
    }
    make_room(text.len() + 2, out);
    out.push(b'"');
    out.extend(text.as_bytes());
    out.push(b'"');
}

/// Appends a value by serde; writing into memory cannot fail for the types used here.
pub fn write_json<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(start);
        out.extend(b"null");
    }
}

/// Two digits at each place: of 00 to 99, and of 00 to ff.
static DECIMALS: [[u8; 2]; 100] = pairs(10);
static HEXADECIMALS: [[u8; 2]; 256] = pairs(16);

const fn pairs<const COUNT: usize>(base: usize) -> [[u8; 2]; COUNT] {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; COUNT];
    let mut number = 0;
    while number < COUNT {
        pairs[number] = [digits[number / base], digits[number % base]];
        number += 1;
    }
    pairs
}

/// `"2026-01-02T03:04:05.123456Z"`, digit by digit into its place: `to_rfc3339` costs many times as much.
fn write_time(time: ChronoDateTime<Utc>, out: &mut Vec<u8>) {
    let (date, clock) = (time.naive_utc().date(), time.naive_utc().time());
    let Some(year @ 0..=9999) = u32::try_from(date.year()).ok() else {
        // RFC 3339 has no such years; keep the field readable instead of lying.
        return write_text(&time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true), out);
    };
    let (seconds, micros) = (clock.num_seconds_from_midnight(), clock.nanosecond() % 1_000_000_000 / 1_000);
    let mut text = *b"\"0000-00-00T00:00:00.000000Z\"";
    let two_digits = [
        (1, year / 100),
        (3, year % 100),
        (6, date.month()),
        (9, date.day()),
        (12, seconds / 3_600),
        (15, seconds / 60 % 60),
        (18, seconds % 60),
        (21, micros / 10_000),
        (23, micros / 100 % 100),
        (25, micros % 100),
    ];
    for (place, value) in two_digits {
        text[place..place + 2].copy_from_slice(&DECIMALS[value as usize]);
    }
    out.extend_from_slice(&text);
}

/// `"01234567-89ab-cdef-0123-456789abcdef"`, two digits at a time.
fn write_uuid(id: &uuid::Uuid, out: &mut Vec<u8>) {
    /// Where the digits of each byte stand.
    const PLACES: [usize; 16] = [1, 3, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27, 29, 31, 33, 35];
    let mut text = *b"\"00000000-0000-0000-0000-000000000000\"";
    for (place, byte) in PLACES.into_iter().zip(id.as_bytes()) {
        text[place..place + 2].copy_from_slice(&HEXADECIMALS[usize::from(*byte)]);
    }
    out.extend_from_slice(&text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(leaf: &impl Leaf) -> String {
        let mut out = Vec::new();
        leaf.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_print_in_utc_with_six_digits() {
        let time = |text: &str| ChronoDateTime::parse_from_rfc3339(text).unwrap().with_timezone(&Utc);
        assert_eq!(json(&time("2026-01-02T10:04:05.1+07:00")), r#""2026-01-02T03:04:05.100000Z""#);
        assert_eq!(json(&time("0001-01-01T00:00:00Z")), r#""0001-01-01T00:00:00.000000Z""#);
        let value = DateTime(time("0001-01-01T00:00:00Z")).to_value();
        assert_eq!(value, Value::String("0001-01-01T00:00:00.000000Z".to_owned()));
        assert_eq!(json(&time("1999-12-31T23:59:59.999999Z")), r#""1999-12-31T23:59:59.999999Z""#);
    }

    #[test]
    fn ids_print_in_lower_case_with_hyphens() {
        for id in [
            uuid::Uuid::nil(),
            uuid::Uuid::max(),
            uuid::Uuid::from_u128(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210),
        ] {
            assert_eq!(json(&id), format!("\"{id}\""));
        }
    }

    #[test]
    fn times_that_cannot_be_written_again_are_not_read() {
        let read =
            |text: &str| DateTime::parse(Value::String(text.to_owned())).ok().map(|time| json(&time.0));
        let written = |text: &str| Some(format!("\"{text}\""));
        assert_eq!(read("2016-12-31T23:59:60.5Z"), written("2016-12-31T23:59:59.999999Z"));
        assert_eq!(read("2017-01-01T06:59:60+07:00"), written("2016-12-31T23:59:59.999999Z"));
        assert_eq!(read("2012-06-30T23:59:60Z"), written("2012-06-30T23:59:59.999999Z"));
        assert_eq!(read("9999-12-31T23:59:59Z"), written("9999-12-31T23:59:59.000000Z"));
        assert_eq!(read("0001-01-01T00:00:00Z"), written("0001-01-01T00:00:00.000000Z"));
        for text in [
            "0000-01-01T00:00:00Z",
            "0000-12-31T23:59:59Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "2016-12-31T12:34:60Z",
            "2016-12-30T23:59:60Z",
            "2016-12-31T23:59:60+07:00",
            "2016-12-31T23:58:60Z",
            "2016-12-31T23:59:61Z",
            "10000-01-01T00:00:00Z",
            "2026-02-30T00:00:00Z",
        ] {
            assert_eq!(read(text), None, "{text}");
            assert!(!DateTime::is_valid(&Value::String(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn json_inputs_keep_every_number_and_are_not_nested_without_end() {
        for text in
            ["-0.0", "1.0", "9007199254740993", "18446744073709551615", "-9223372036854775808", "1e300"]
        {
            let value: Value = serde_json::from_str(text).unwrap();
            let AnyJson(json) = AnyJson::parse(value).unwrap();
            let wanted: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(json.to_string(), wanted.to_string());
        }
        let nested = |depth| (0..depth).fold(Value::Null, |value, _| Value::List(vec![value]));
        assert!(AnyJson::parse(nested(64)).is_ok());
        assert!(AnyJson::parse(nested(65)).is_err());
        assert!(AnyJson::parse(Value::Enum(Name::new("OPEN"))).is_err());
    }

    #[test]
    fn a_count_beyond_int_stays_at_the_largest_int() {
        assert_eq!(json(&5_000_000_000_i64), "2147483647");
    }

    #[test]
    fn texts_are_escaped() {
        assert_eq!(json(&"a\"\u{0}\n".to_owned()), r#""a\"\u0000\n""#);
    }
}

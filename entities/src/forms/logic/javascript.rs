//! What operators make of values: exactly what `json-logic-engine` 5 for JavaScript makes of them, whose `run` is what
//! clients call. The conversions are those of ECMAScript (`ToNumber` §7.1.4, `ToString` §7.1.17, `IsLessThan` §7.2.13);
//! which of them fail, and that a failed operator fails its whole rule, is that engine's own choice. Lists, variables,
//! `if`, `and`, `or`, `!` and `!!` are `datalogic-rs`' own operators: there both engines do the same. Not here: which
//! rules may be published (`check`).

use std::cmp::Ordering;

use datalogic_rs::{
    CustomOperator, DataValue, Error, bumpalo::Bump, datavalue::NumberValue, operator::EvalContext,
};

/// Our operator in the place of one of `datalogic-rs`. Where it `is_spread`, its only argument, if that is a
/// list, stands for all arguments.
pub(super) struct Operator {
    apply: Apply,
    is_spread: bool,
}

/// The value of an operator, none if it fails.
type Apply = for<'a> fn(&[&'a DataValue<'a>], &'a Bump) -> Option<DataValue<'a>>;

/// Operators that are evaluated here, by the name that rules have for them.
const ALL: [(&str, Apply); 19] = [
    ("==", |given, _| loose(given, Relation::Equal)),
    ("!=", |given, _| loose(given, Relation::Unequal)),
    ("<", |given, _| loose(given, Relation::Less)),
    ("<=", |given, _| loose(given, Relation::AtMost)),
    (">", |given, _| loose(given, Relation::Greater)),
    (">=", |given, _| loose(given, Relation::AtLeast)),
    ("===", |given, _| strict(given).map(DataValue::Bool)),
    ("!==", |given, _| strict(given).map(|is| DataValue::Bool(!is))),
    ("+", |given, _| fold(given, 0.0, |sum, next| sum + next)),
    ("*", |given, _| fold(given, 1.0, |product, next| product * next)),
    ("-", |given, _| minus(given)),
    ("/", |given, _| divide(given)),
    ("%", |given, _| remainder(given)),
    ("max", |given, _| extreme(given, |next, most| next > most)),
    ("min", |given, _| extreme(given, |next, least| next < least)),
    ("cat", |given, arena| Some(concatenate(given, arena))),
    ("in", |given, _| within(given).map(DataValue::Bool)),
    ("merge", |given, arena| Some(merge(given, arena))),
    ("length", |given, _| length(given)),
];

/// The name under which the engine has an operator of `ALL`.
pub(super) fn name(operator: &str, is_spread: bool) -> Option<String> {
    let is_ours = ALL.iter().any(|(name, _)| *name == operator);
    is_ours.then(|| format!("{operator}{}", if is_spread { " of list" } else { " of values" }))
}

/// All operators with the names that the engine has for them.
pub(super) fn operators() -> impl Iterator<Item = (String, Operator)> {
    let both = |(operator, apply): (&'static str, Apply)| {
        [false, true]
            .into_iter()
            .filter_map(move |is_spread| Some((name(operator, is_spread)?, Operator { apply, is_spread })))
    };
    ALL.into_iter().flat_map(both)
}

impl CustomOperator for Operator {
    fn evaluate<'a>(
        &self,
        given: &[&'a DataValue<'a>],
        _: &mut EvalContext<'_, 'a>,
        arena: &'a Bump,
    ) -> datalogic_rs::Result<&'a DataValue<'a>> {
        let value = match given {
            [DataValue::Array(items)] if self.is_spread => {
                (self.apply)(&items.iter().collect::<Vec<_>>(), arena)
            }
            given => (self.apply)(given, arena),
        };
        value
            .map(|value| &*arena.alloc(value))
            .ok_or_else(|| Error::custom_message("This does not have a value."))
    }
}

#[derive(Clone, Copy)]
enum Relation {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Relation {
    /// Does it hold? There is no order where one side is not a number.
    fn holds(self, order: Option<Ordering>) -> bool {
        match self {
            Self::Equal => order == Some(Ordering::Equal),
            Self::Unequal => order != Some(Ordering::Equal),
            Self::Less => order == Some(Ordering::Less),
            Self::AtMost => order.is_some_and(Ordering::is_le),
            Self::Greater => order == Some(Ordering::Greater),
            Self::AtLeast => order.is_some_and(Ordering::is_ge),
        }
    }
}

/// `== != < <= > >=` of two values. Two texts, a text and nothing, and two nothings are compared as JavaScript does;
/// all else as numbers, and it fails where a side is none.
fn loose<'a>(given: &[&'a DataValue<'a>], relation: Relation) -> Option<DataValue<'a>> {
    let [left, right] = given else { return None };
    let order = match (left, right) {
        (DataValue::String(left), DataValue::String(right)) => {
            Some(left.encode_utf16().cmp(right.encode_utf16()))
        }
        (DataValue::Null | DataValue::String(_), DataValue::Null | DataValue::String(_)) => {
            let both_are_nothing = matches!((left, right), (DataValue::Null, DataValue::Null));
            match relation {
                // Nothing is only equal to nothing, not to an empty text.
                Relation::Equal => return Some(DataValue::Bool(both_are_nothing)),
                Relation::Unequal => return Some(DataValue::Bool(!both_are_nothing)),
                _ => number(left).zip(number(right)).and_then(|(left, right)| left.partial_cmp(&right)),
            }
        }
        _ => Some(number(left)?.partial_cmp(&number(right)?)?),
    };
    Some(DataValue::Bool(relation.holds(order)))
}

/// `===`: the same type and value. Lists and objects are the same only as one and the same value.
fn strict<'a>(given: &[&'a DataValue<'a>]) -> Option<bool> {
    let [left, right] = given else { return None };
    Some(is_same(left, right))
}

fn is_same(left: &DataValue<'_>, right: &DataValue<'_>) -> bool {
    match (left, right) {
        (DataValue::Null, DataValue::Null) => true,
        (DataValue::Bool(left), DataValue::Bool(right)) => left == right,
        (DataValue::Number(left), DataValue::Number(right)) => {
            left.as_f64().partial_cmp(&right.as_f64()) == Some(Ordering::Equal)
        }
        (DataValue::String(left), DataValue::String(right)) => left == right,
        (DataValue::Array(left), DataValue::Array(right)) => std::ptr::eq(*left, *right) && !left.is_empty(),
        _ => false,
    }
}

/// `+` and `*`.
fn fold<'a>(given: &[&'a DataValue<'a>], start: f64, step: fn(f64, f64) -> f64) -> Option<DataValue<'a>> {
    let folded = given.iter().try_fold(start, |folded, next| Some(step(folded, number(next)?)));
    folded.and_then(number_value)
}

fn minus<'a>(given: &[&'a DataValue<'a>]) -> Option<DataValue<'a>> {
    let (first, rest) = given.split_first()?;
    let first = number(first)?;
    if rest.is_empty() {
        return number_value(-first);
    }
    rest.iter().try_fold(first, |left, next| Some(left - number(next)?)).and_then(number_value)
}

/// By nothing, false, 0 and an empty text it fails, and so does what is as large as infinity.
fn divide<'a>(given: &[&'a DataValue<'a>]) -> Option<DataValue<'a>> {
    let (first, rest) = given.split_first()?;
    let first = number(first)?;
    if rest.is_empty() {
        return Some(first).filter(|divisor| *divisor != 0.0).and_then(|divisor| number_value(1.0 / divisor));
    }
    let divided = rest.iter().try_fold(first, |left, divisor| {
        let divisor = Some(divisor).filter(|divisor| super::is_truthy(divisor))?;
        Some(left / number(divisor)?)
    });
    divided.filter(|divided| *divided != f64::INFINITY).and_then(number_value)
}

fn remainder<'a>(given: &[&'a DataValue<'a>]) -> Option<DataValue<'a>> {
    let (first, rest) = given.split_first().filter(|(_, rest)| !rest.is_empty())?;
    rest.iter().try_fold(number(first)?, |left, next| Some(left % number(next)?)).and_then(number_value)
}

/// `max` and `min`: of numbers only.
fn extreme<'a>(given: &[&'a DataValue<'a>], is_better: fn(f64, f64) -> bool) -> Option<DataValue<'a>> {
    let number = |value: &DataValue<'_>| match value {
        DataValue::Number(number) => Some(number.as_f64()),
        _ => None,
    };
    let (first, rest) = given.split_first()?;
    let best = rest.iter().try_fold(number(first)?, |best, next| {
        let next = number(next)?;
        Some(if is_better(next, best) { next } else { best })
    });
    best.and_then(number_value)
}

/// `cat`: nothing is left out.
fn concatenate<'a>(given: &[&'a DataValue<'a>], arena: &'a Bump) -> DataValue<'a> {
    let mut text = String::new();
    for value in given.iter().filter(|value| !matches!(value, DataValue::Null)) {
        push_text(&mut text, value);
    }
    DataValue::String(arena.alloc_str(&text))
}

/// As JavaScript writes a value: `5`, `1e+21`, `maize,rice`.
fn push_text(text: &mut String, value: &DataValue<'_>) {
    match value {
        DataValue::Null => text.push_str("null"),
        DataValue::Bool(is) => text.push_str(if *is { "true" } else { "false" }),
        DataValue::Number(number) => text.push_str(ryu_js::Buffer::new().format(number.as_f64())),
        DataValue::String(value) => text.push_str(value),
        DataValue::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                text.push_str(if at > 0 { "," } else { "" });
                if !matches!(item, DataValue::Null) {
                    push_text(text, item);
                }
            }
        }
        DataValue::Object(_) => text.push_str("[object Object]"),
    }
}

/// Is the first in the second, a list or a text? In nothing, and in what counts as false, there is nothing.
fn within<'a>(given: &[&'a DataValue<'a>]) -> Option<bool> {
    let [needle, hay, ..] = given else { return Some(false) };
    match hay {
        DataValue::Array(items) => Some(items.iter().any(|item| is_same(item, needle))),
        hay if !super::is_truthy(hay) => Some(false),
        DataValue::String(text) => {
            let mut part = String::new();
            push_text(&mut part, needle);
            Some(text.contains(&part))
        }
        _ => None,
    }
}

fn merge<'a>(given: &[&'a DataValue<'a>], arena: &'a Bump) -> DataValue<'a> {
    let mut merged: Vec<DataValue<'a>> = Vec::with_capacity(given.len());
    for value in given {
        match value {
            DataValue::Array(items) => merged.extend(items.iter().copied()),
            value => merged.push(**value),
        }
    }
    DataValue::Array(arena.alloc_slice_fill_iter(merged))
}

/// Of a text (in UTF-16 code units), a list, or the answers in a group.
fn length<'a>(given: &[&'a DataValue<'a>]) -> Option<DataValue<'a>> {
    let length = match given.first()? {
        DataValue::String(text) => text.encode_utf16().count(),
        DataValue::Array(items) => items.len(),
        DataValue::Object(answers) => answers.len(),
        _ => return None,
    };
    number_value(length as f64)
}

fn number_value<'a>(number: f64) -> Option<DataValue<'a>> {
    (!number.is_nan()).then_some(DataValue::Number(NumberValue::Float(number)))
}

/// `ToNumber`; none where that is not a number, for a list and for an object.
fn number(value: &DataValue<'_>) -> Option<f64> {
    let number = match value {
        DataValue::Null => 0.0,
        DataValue::Bool(is) => f64::from(u8::from(*is)),
        DataValue::Number(number) => number.as_f64(),
        DataValue::String(text) => return number_of_text(text),
        DataValue::Array(_) | DataValue::Object(_) => return None,
    };
    (!number.is_nan()).then_some(number)
}

/// `StringToNumber` (ECMAScript §7.1.4.1.1): decimal with an exponent, `0x…`, `0o…`, `0b…`, `Infinity`; nothing is 0.
pub(super) fn number_of_text(text: &str) -> Option<f64> {
    // ECMAScript's white space: Unicode's without U+0085, with U+FEFF.
    let text = text
        .trim_matches(|letter: char| (letter.is_whitespace() && letter != '\u{85}') || letter == '\u{feff}');
    if text.is_empty() {
        return Some(0.0);
    }
    for (prefix, radix) in [("0x", 16), ("0X", 16), ("0o", 8), ("0O", 8), ("0b", 2), ("0B", 2)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            let add = |sum: f64, digit: char| {
                Some(sum.mul_add(f64::from(radix), f64::from(digit.to_digit(radix)?)))
            };
            return (!digits.is_empty()).then(|| digits.chars().try_fold(0.0, add)).flatten();
        }
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits == "Infinity" {
        return Some(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY });
    }
    // Rust reads `inf` and `nan`, too.
    digits
        .starts_with(|first: char| first.is_ascii_digit() || first == '.')
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::number_of_text;

    #[test]
    fn texts_are_numbers_as_in_javascript() {
        for (text, wanted) in [
            ("", Some(0.0)),
            (" \t\u{feff}\u{a0}", Some(0.0)),
            (" 5 ", Some(5.0)),
            ("5.", Some(5.0)),
            (".5", Some(0.5)),
            ("-1e3", Some(-1000.0)),
            ("+7", Some(7.0)),
            ("0x1F", Some(31.0)),
            ("0b101", Some(5.0)),
            ("0o17", Some(15.0)),
            ("-Infinity", Some(f64::NEG_INFINITY)),
            ("1e400", Some(f64::INFINITY)),
            ("-0x1F", None),
            ("0x", None),
            ("inf", None),
            ("nan", None),
            (".", None),
            ("1_000", None),
            ("1,5", None),
            ("5 6", None),
            ("\u{85}5", None),
        ] {
            assert_eq!(number_of_text(text), wanted, "{text:?}");
        }
    }
}

//! The `constraints` of a field: how many, how long, between which numbers, and in which pattern. Not here: whether an
//! answer keeps them (`forms::pipeline`).

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::{Kind, MAX_DECIMAL, Parser};
use crate::forms::{
    pattern::Pattern,
    problem::{below, expected},
};

/// Weight of all patterns of a form at most.
const MAX_PATTERN_WEIGHT: u64 = 50_000;
/// Characters of any text at most.
const MAX_CHARS: i64 = 100_000;

/// The constraints of a field.
pub(super) struct Limits<'v> {
    given: Option<&'v Map<String, Value>>,
    at: String,
}

impl<'v> Limits<'v> {
    pub(super) fn read(parser: &mut Parser, given: Option<&'v Value>, at: &str, known: &[&str]) -> Self {
        let given = given.and_then(|given| parser.object(given, at, known));
        Self { given, at: at.to_owned() }
    }

    fn get(&self, name: &str) -> Option<(&'v Value, String)> {
        Some((self.given?.get(name)?, below(&self.at, name)))
    }

    /// Two ends, each between those of `within`.
    pub(super) fn integers(
        &self,
        parser: &mut Parser,
        names: [&str; 2],
        default: &RangeInclusive<i64>,
        within: &RangeInclusive<i64>,
    ) -> RangeInclusive<i64> {
        let mut end = |name, default: i64| {
            let Some((value, at)) = self.get(name) else { return default };
            let number = value.as_i64().filter(|number| within.contains(number));
            if number.is_none() {
                let wanted = format!("a whole number from {} to {}", within.start(), within.end());
                parser.refuse(&at, "type", expected(&wanted, value));
            }
            number.unwrap_or(default)
        };
        let range = end(names[0], *default.start())..=end(names[1], *default.end());
        parser.expect(!range.is_empty(), &self.at, "minimum", "The lower limit is above the upper one.");
        range
    }

    pub(super) fn decimals(&self, parser: &mut Parser) -> RangeInclusive<f64> {
        let mut end = |name, default: f64| {
            let Some((value, at)) = self.get(name) else { return default };
            let number = value.as_f64().filter(|number| number.abs() <= MAX_DECIMAL);
            if number.is_none() {
                let wanted = "a number with at most 15 digits before the point";
                parser.refuse(&at, "type", expected(wanted, value));
            }
            number.unwrap_or(default)
        };
        let range = end("min", -MAX_DECIMAL)..=end("max", MAX_DECIMAL);
        parser.expect(!range.is_empty(), &self.at, "minimum", "The lower limit is above the upper one.");
        range
    }

    pub(super) fn text(&self, parser: &mut Parser, default: i64) -> Kind {
        let chars = self.integers(parser, ["minLength", "maxLength"], &(0..=default), &(0..=MAX_CHARS));
        let pattern = self.get("pattern").and_then(|(value, at)| {
            let pattern = value.as_str().ok_or_else(|| expected("a text", value)).and_then(Pattern::parse);
            let pattern = pattern.map_err(|message| parser.refuse(&at, "pattern", message)).ok()?;
            parser.pattern_weight += pattern.weight();
            let message = "The patterns of this form repeat too much, all together.";
            parser.expect(parser.pattern_weight <= MAX_PATTERN_WEIGHT, &at, "pattern", message);
            Some(pattern)
        });
        Kind::Text { chars: *chars.start() as usize..=*chars.end() as usize, pattern }
    }
}

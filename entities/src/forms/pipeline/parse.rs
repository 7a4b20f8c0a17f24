//! The first step of the pipeline: each answer by itself, parsed against its field and brought into canonical form. Not
//! here: what depends on other answers.

use std::{borrow::Cow, cmp::Ordering, collections::HashSet, ops::RangeInclusive};

use chrono::{DateTime, Datelike as _, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use super::{MAX_ADDED_BYTES, added_bytes};
use crate::{
    forms::{
        compiled::CompiledForm,
        definition::{Field, FieldIndex, Kind, MAX_DECIMAL, Required},
        logic::{BudgetExceeded, canonical_number},
        pattern::{Format, Pattern},
        phone,
        problem::{Problem, below, expected, push_segment},
        work::{Stop, Work},
    },
    unicode::is_space,
};

/// What looking up a telephone number costs in the measure of `Work::matching`: where the plans of its region
/// were used by one of the numbers before it, and where they are to be made ready.
const PHONE_WORK: u64 = 4_000;
const REGION_WORK: u64 = 1_000_000;
/// Regions whose plans stay ready; the library keeps a few more.
const READY_REGIONS: usize = 8;

/// Answers on their way through.
pub(super) struct Parse<'f> {
    form: &'f CompiledForm,
    /// Where it is.
    pointer: String,
    pub(super) problems: Vec<Problem>,
    /// How many places may still come.
    places: usize,
    /// How many bytes may still be added.
    pub(super) added: usize,
    /// How much may still be compared with patterns.
    matching: u64,
    stop: Stop,
    /// Regions of the telephone numbers before, the latest last.
    regions: Vec<String>,
}

impl<'f> Parse<'f> {
    pub(super) fn new(form: &'f CompiledForm, work: &Work) -> Self {
        Self {
            form,
            pointer: String::new(),
            problems: Vec::new(),
            places: work.places,
            added: MAX_ADDED_BYTES,
            matching: work.matching,
            stop: work.stop.clone(),
            regions: Vec::new(),
        }
    }
}

impl Parse<'_> {
    pub(super) fn refuse(&mut self, rule: &'static str, message: impl Into<Cow<'static, str>>) {
        self.problems.push(Problem::new(self.pointer.clone(), rule, message));
    }

    fn below<T>(&mut self, segment: &str, run: impl FnOnce(&mut Self) -> T) -> T {
        let end = self.pointer.len();
        push_segment(&mut self.pointer, segment);
        let ran = run(self);
        self.pointer.truncate(end);
        ran
    }

    pub(super) fn fields(
        &mut self,
        fields: &[FieldIndex],
        object: &mut Map<String, Value>,
    ) -> Result<(), BudgetExceeded> {
        let (form, mut known) = (self.form, 0);
        if self.stop.is_set() {
            return Err(BudgetExceeded);
        }
        self.places = self.places.checked_sub(fields.len()).ok_or(BudgetExceeded)?;
        for index in fields {
            let field = &form.definition.fields[*index];
            if let Kind::Group(_) = field.kind
                && !object.contains_key(&field.key)
            {
                // A group is there even where nothing in it is answered.
                self.added =
                    self.added.checked_sub(added_bytes(&field.key, &json!({}))).ok_or(BudgetExceeded)?;
                object.insert(field.key.clone(), json!({}));
            }
            if let Some(value) = object.get_mut(&field.key).filter(|_| !matches!(field.kind, Kind::Note)) {
                known += 1;
                self.below(&field.key, |parse| parse.answer(field, value))?;
            }
        }
        if known < object.len() {
            let is_known = |key: &str| {
                let mut fields = fields.iter().map(|index| &form.definition.fields[*index]);
                fields.any(|field| field.key == key && !matches!(field.kind, Kind::Note))
            };
            let strangers = object.keys().filter(|key| !is_known(key));
            let strangers = strangers.map(|key| below(&self.pointer, key));
            let message = "Unknown key: the form does not have a field of this name.";
            self.problems.extend(strangers.map(|at| Problem::new(at, "additionalProperties", message)));
        }
        Ok(())
    }

    /// The answer to a field that may have fields in it.
    fn answer(&mut self, field: &Field, value: &mut Value) -> Result<(), BudgetExceeded> {
        match &field.kind {
            Kind::Group(fields) => match value.as_object_mut() {
                Some(object) => self.fields(fields, object)?,
                None => self
                    .refuse("type", expected("an object with one answer for each key of the group", value)),
            },
            Kind::Repeat { fields, items } => {
                let min = (*items.start()).max(usize::from(field.required == Required::Yes));
                let Some(entries) = self.list(value, min, *items.end()) else { return Ok(()) };
                for (index, entry) in entries.iter_mut().enumerate() {
                    self.below(&index.to_string(), |parse| {
                        if let Some(object) = entry.as_object_mut() {
                            return parse.fields(fields, object);
                        }
                        parse.refuse("type", expected("an object with one answer for each key", entry));
                        Ok(())
                    })?;
                }
            }
            Kind::Text { pattern: Some(pattern), .. } => {
                let work = pattern.weight().saturating_mul(value.as_str().map_or(0, str::len) as u64);
                self.matching = self.matching.checked_sub(work).ok_or(BudgetExceeded)?;
                self.leaf(field, value);
            }
            Kind::Format(Format::Phone) => self.phone(value)?,
            _ => self.leaf(field, value),
        }
        Ok(())
    }

    fn leaf(&mut self, field: &Field, value: &mut Value) {
        let is_required = field.required == Required::Yes;
        match &field.kind {
            Kind::Text { chars, pattern } => {
                let Some(text) = self.text(value) else { return };
                if let Some((rule, message)) = text_fault(text, chars, pattern.as_ref()) {
                    self.refuse(rule, message);
                }
            }
            Kind::Format(format) => {
                let Some(text) = self.text(value) else { return };
                if !format.is_match(text) {
                    self.refuse("pattern", format.example());
                } else if text.chars().count() > format.max_chars() {
                    self.refuse(
                        "maxLength",
                        format!("At most {} characters belong here.", format.max_chars()),
                    );
                } else if *format == Format::DateTime {
                    match canonical_time(text) {
                        Some(canonical) => *value = Value::String(canonical),
                        None => {
                            self.refuse("pattern", "In UTC this time is outside of the years 0000 to 9999.");
                        }
                    }
                }
            }
            Kind::Integer(range) => match integer(value) {
                Some(number) if self.is_within(&number, range.start(), range.end()) => *value = json!(number),
                Some(_) => {}
                None => self.refuse("type", expected("a whole number", value)),
            },
            Kind::Decimal(range) => self.decimal(*range.start(), *range.end(), value),
            Kind::Consent if is_required && *value != Value::Bool(true) => {
                self.refuse("const", "This must be agreed to.");
            }
            Kind::Boolean | Kind::Consent => {
                if !value.is_boolean() {
                    self.refuse("type", expected("true or false", value));
                }
            }
            Kind::SelectOne(choices) => self.choice(choices, value),
            Kind::SelectMany { choices, items } => {
                let Some(chosen) =
                    self.list(value, (*items.start()).max(usize::from(is_required)), *items.end())
                else {
                    return;
                };
                let mut seen = HashSet::new();
                for (index, choice) in chosen.iter_mut().enumerate() {
                    self.below(&index.to_string(), |parse| {
                        parse.choice(choices, choice);
                        let choice = &*choice;
                        if !choice.as_str().is_none_or(|choice| seen.insert(choice)) {
                            parse.refuse("uniqueItems", "This was chosen twice.");
                        }
                    });
                }
            }
            Kind::GeoPoint => self.point(value),
            // Worked out below, whatever was sent; the others are not known here.
            Kind::Calculated(_) | Kind::Note | Kind::Group(_) | Kind::Repeat { .. } => {}
        }
    }

    fn phone(&mut self, value: &mut Value) -> Result<(), BudgetExceeded> {
        let Some(text) = self.text(value) else { return Ok(()) };
        let canonical = match phone::ParsedNumber::read(text) {
            Ok(written) => {
                let work = if self.make_ready(written.region()) { PHONE_WORK } else { REGION_WORK };
                self.matching = self.matching.checked_sub(work).ok_or(BudgetExceeded)?;
                written.to_e164()
            }
            Err(refused) => Err(refused),
        };
        match canonical {
            Ok(canonical) => *value = Value::String(canonical),
            Err(phone::PhoneError::Form) => self.refuse("pattern", Format::Phone.example()),
            Err(phone::PhoneError::Plan) => self.refuse(
                "pattern",
                "Invalid telephone number for its country. A number of another country begins with + and its \
                 code.",
            ),
        }
        Ok(())
    }

    /// Notes that numbers of a region are looked up. Were its plans ready?
    fn make_ready(&mut self, region: &str) -> bool {
        let place = self.regions.iter().position(|ready| ready == region);
        let latest = match place {
            Some(place) => self.regions.remove(place),
            None => region.to_owned(),
        };
        if self.regions.len() == READY_REGIONS {
            self.regions.remove(0);
        }
        self.regions.push(latest);
        place.is_some()
    }

    fn text<'v>(&mut self, value: &'v Value) -> Option<&'v str> {
        let text = value.as_str();
        if text.is_none() {
            self.refuse("type", expected("a text", value));
        }
        text
    }

    fn list<'v>(&mut self, value: &'v mut Value, min: usize, max: usize) -> Option<&'v mut Vec<Value>> {
        if !value.is_array() {
            self.refuse("type", expected("a list", value));
        }
        let list = value.as_array_mut()?;
        if list.len() < min {
            self.refuse("minItems", format!("At least {min} belong here."));
        } else if list.len() > max {
            self.refuse("maxItems", format!("At most {max} belong here."));
            return None;
        }
        Some(list)
    }

    fn choice(&mut self, choices: &[String], value: &mut Value) {
        let Some(given) = value.as_str() else {
            return self.refuse("enum", expected("a text: the value of a choice", value));
        };
        // Answers have no white space around them; the choices of older versions may. The very same one comes first.
        let exact = choices.iter().find(|choice| *choice == given);
        let chosen = exact.or_else(|| choices.iter().find(|choice| choice.trim_matches(is_space) == given));
        match chosen {
            Some(choice) if choice != given => *value = Value::String(choice.clone()),
            Some(_) => {}
            None => self.refuse("enum", "This is not among the choices."),
        }
    }

    /// Is a number within its limits? Says so where it is not.
    fn is_within<T: PartialOrd + std::fmt::Display>(&mut self, number: &T, min: &T, max: &T) -> bool {
        if number < min {
            self.refuse("minimum", format!("At least {min} belongs here."));
        } else if number > max {
            self.refuse("maximum", format!("At most {max} belongs here."));
        }
        (min..=max).contains(&number)
    }

    fn decimal(&mut self, min: f64, max: f64, value: &mut Value) {
        let text = match value {
            Value::Number(number) => {
                let number = number.as_f64().unwrap_or(f64::INFINITY);
                if !self.is_within(&number, &min, &max) {
                    return;
                }
                canonical_decimal(&number.to_string())
            }
            Value::String(text)
                if Format::Decimal.is_match(text) && text.len() <= Format::Decimal.max_chars() =>
            {
                let canonical = canonical_decimal(text);
                // Without limits of the author's own the pattern says enough.
                if min > -MAX_DECIMAL && compare_decimals(&canonical, &min.to_string()) == Ordering::Less {
                    return self.refuse("minimum", format!("At least {min} belongs here."));
                }
                if max < MAX_DECIMAL && compare_decimals(&canonical, &max.to_string()) == Ordering::Greater {
                    return self.refuse("maximum", format!("At most {max} belongs here."));
                }
                canonical
            }
            Value::String(_) => return self.refuse("type", Format::Decimal.example()),
            other => {
                return self
                    .refuse("type", expected("a decimal: a text such as \"4.5\", or a number", other));
            }
        };
        *value = Value::String(text);
    }

    fn point(&mut self, value: &mut Value) {
        if !value.is_object() {
            return self.refuse("type", expected("an object with latitude and longitude", value));
        }
        let Some(point) = value.as_object_mut() else { return };
        for (name, min, max) in
            [("latitude", -90.0, 90.0), ("longitude", -180.0, 180.0), ("accuracy", 0.0, f64::MAX)]
        {
            self.below(name, |parse| match point.get_mut(name) {
                None if name == "accuracy" => {}
                None => parse.refuse("required", "This is missing."),
                Some(value) => match value.as_f64() {
                    Some(number) if parse.is_within(&number, &min, &max) => {
                        *value = canonical_number(number).unwrap_or_default();
                    }
                    Some(_) => {}
                    None => parse.refuse("type", expected("a number", value)),
                },
            });
        }
        let strangers =
            point.keys().filter(|key| !matches!(key.as_str(), "latitude" | "longitude" | "accuracy"));
        let strangers = strangers.map(|key| below(&self.pointer, key));
        let message = "A position has latitude, longitude and accuracy.";
        self.problems.extend(strangers.map(|at| Problem::new(at, "additionalProperties", message)));
    }
}

/// What is wrong with a text, if anything is.
fn text_fault(
    text: &str,
    chars: &RangeInclusive<usize>,
    pattern: Option<&Pattern>,
) -> Option<(&'static str, Cow<'static, str>)> {
    let length = text.chars().count();
    if length < *chars.start() {
        Some(("minLength", format!("At least {} characters belong here.", chars.start()).into()))
    } else if length > *chars.end() {
        Some(("maxLength", format!("At most {} characters belong here.", chars.end()).into()))
    } else if text.contains('\0') {
        Some(("pattern", "The character U+0000 cannot be stored.".into()))
    } else if pattern.is_some_and(|pattern| !pattern.is_match(text)) {
        Some(("pattern", "This does not match the expected pattern.".into()))
    } else {
        None
    }
}

/// A whole number, also one written as 3.0.
fn integer(value: &Value) -> Option<i64> {
    let number = value.as_number()?;
    let whole = |number: f64| (number.fract() == 0.0).then_some(number as i64);
    number.as_i64().or_else(|| number.as_f64().and_then(whole))
}

/// A time in UTC; nothing where it would be in a year that cannot be written.
fn canonical_time(text: &str) -> Option<String> {
    let time = DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc);
    (0..=9999).contains(&time.year()).then(|| time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

/// Without zeros in front and without `-0`; the digits behind the point stay, since they say how exact it is.
fn canonical_decimal(text: &str) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let digits = digits.trim_start_matches('0');
    let zero = if digits.is_empty() || digits.starts_with('.') { "0" } else { "" };
    let is_zero = digits.chars().all(|digit| matches!(digit, '0' | '.'));
    format!("{}{zero}{digits}", if is_zero { "" } else { sign })
}

/// Which of two decimals in canonical form is greater: exactly, since a text may have more digits than an `f64`.
fn compare_decimals(one: &str, other: &str) -> Ordering {
    fn parts(text: &str) -> (bool, &str, &str) {
        let (is_negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        (is_negative, whole, fraction.trim_end_matches('0'))
    }
    let ((one_is_negative, whole, fraction), (other_is_negative, other_whole, other_fraction)) =
        (parts(one), parts(other));
    let by_size = whole
        .len()
        .cmp(&other_whole.len())
        .then_with(|| whole.cmp(other_whole))
        .then_with(|| fraction.cmp(other_fraction));
    match (one_is_negative, other_is_negative) {
        (false, false) => by_size,
        (true, true) => by_size.reverse(),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
    }
}

//! What answers go through before they are stored, on every way in. In this order: each answer is parsed against its
//! field and brought into canonical form; relevance and calculations are decided, each after all that it depends on,
//! and what is not relevant goes; then what is required must be there, and the rules of what is there must hold. All
//! problems are collected. Pure: no database, no clock. Not here: storing (`submission::write`).

use std::{borrow::Cow, collections::HashSet, ops::RangeInclusive};

use chrono::{DateTime, Datelike as _, SecondsFormat, Utc};
use serde_json::{Map, Value, json};
use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfc_quick};

use crate::form::{
    compiled::CompiledForm,
    definition::{Field, FieldIndex, Kind, MAX_DECIMAL, Required},
    logic::{Budget, TooDear, canonical_number},
    pattern::{Format, Pattern},
    problem::{MAX_PROBLEMS, Problem, below, push_segment},
};

/// Bytes of one submission's answers at most, as compact JSON.
pub const MAX_BYTES: usize = 512 * 1024;

/// Checks answers to a form and brings them into the form in which they are stored.
///
/// # Errors
/// What is wrong with them, at most `MAX_PROBLEMS`.
pub fn run(form: &CompiledForm, mut answers: Value) -> Result<Value, Vec<Problem>> {
    let mut parse = Parse { form, pointer: String::new(), problems: Vec::new() };
    let Value::Object(top) = &mut answers else {
        parse.refuse("type", "The answers are an object: one answer for each key.");
        return Err(parse.problems);
    };
    parse.fields(&form.definition.top, top);
    let mut problems = parse.problems;
    let mut budget = Budget::default();
    let checked = settle(form, &mut answers, &mut budget).and_then(|irrelevant| {
        // What is not asked cannot be wrong.
        problems.retain(|problem| !is_within(&problem.pointer, &irrelevant));
        let wrong: HashSet<String> = problems.iter().map(|problem| problem.pointer.clone()).collect();
        let mut check = Check {
            form,
            irrelevant: &irrelevant,
            wrong: &wrong,
            pointer: String::new(),
            budget: &mut budget,
            problems: &mut problems,
        };
        let top = answers.as_object().into_iter();
        top.clone().try_for_each(|top| check.fields(&form.definition.top, &mut vec![top]))
    });
    if checked == Err(TooDear) {
        problems.push(Problem::new(
            "",
            "maxCost",
            "The rules of this form are too costly for so many answers.",
        ));
    }
    if problems.is_empty() {
        return Ok(answers);
    }
    problems.truncate(MAX_PROBLEMS);
    Err(problems)
}

fn is_within(pointer: &str, places: &HashSet<String>) -> bool {
    !places.is_empty()
        && (places.contains(pointer)
            || pointer.match_indices('/').any(|(end, _)| end > 0 && places.contains(&pointer[..end])))
}

/// The first pass: each answer by itself.
struct Parse<'f> {
    form: &'f CompiledForm,
    /// Where it is.
    pointer: String,
    problems: Vec<Problem>,
}

impl Parse<'_> {
    fn refuse(&mut self, rule: &'static str, message: impl Into<Cow<'static, str>>) {
        self.problems.push(Problem::new(self.pointer.clone(), rule, message));
    }

    fn below(&mut self, segment: &str, run: impl FnOnce(&mut Self)) {
        let end = self.pointer.len();
        push_segment(&mut self.pointer, segment);
        run(self);
        self.pointer.truncate(end);
    }

    fn fields(&mut self, fields: &[FieldIndex], object: &mut Map<String, Value>) {
        let (form, mut known) = (self.form, 0);
        for index in fields {
            let field = &form.definition.fields[*index];
            if let Kind::Group(_) = field.kind
                && !object.contains_key(&field.key)
            {
                // A group is there even where nothing in it is answered.
                object.insert(field.key.clone(), json!({}));
            }
            if let Some(value) = object.get_mut(&field.key).filter(|_| !matches!(field.kind, Kind::Note)) {
                known += 1;
                let before = self.problems.len();
                self.below(&field.key, |parse| parse.answer(field, value));
                // A blank text is no answer: rules see one kind of nothing, and so do those who evaluate answers.
                if matches!(field.kind, Kind::Text { .. })
                    && self.problems.len() == before
                    && !is_answer(value)
                {
                    object.remove(&field.key);
                    known -= 1;
                }
            }
        }
        if known < object.len() {
            let is_known = |key: &str| {
                let mut fields = fields.iter().map(|index| &form.definition.fields[*index]);
                fields.any(|field| field.key == key && !matches!(field.kind, Kind::Note))
            };
            let strangers = object.keys().filter(|key| !is_known(key));
            let strangers = strangers.map(|key| below(&self.pointer, key));
            let message = "The form asks nothing by this key.";
            self.problems.extend(strangers.map(|at| Problem::new(at, "additionalProperties", message)));
        }
    }

    fn answer(&mut self, field: &Field, value: &mut Value) {
        let is_required = field.required == Required::Yes;
        match &field.kind {
            Kind::Text { chars, pattern } => {
                let Some(text) = self.text(value) else { return };
                let fault = |text: &str| text_fault(text, is_required, chars, pattern.as_ref());
                if let Some((rule, message)) = fault(text) {
                    self.refuse(rule, message);
                } else if let Some(canonical) = canonical_text(text).filter(|text| fault(text).is_none()) {
                    *value = Value::String(canonical);
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
                } else if let Some(canonical) = canonical_format(*format, text) {
                    *value = Value::String(canonical);
                }
            }
            Kind::Integer(range) => match integer(value) {
                Some(number) if self.is_within(&number, range.start(), range.end()) => *value = json!(number),
                Some(_) => {}
                None => self.refuse("type", "This is a whole number."),
            },
            Kind::Decimal(range) => self.decimal(*range.start(), *range.end(), value),
            Kind::Consent if is_required && *value != Value::Bool(true) => {
                self.refuse("const", "This must be agreed to.");
            }
            Kind::Boolean | Kind::Consent => {
                if !value.is_boolean() {
                    self.refuse("type", "This is true or false.");
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
                for (index, choice) in chosen.iter().enumerate() {
                    self.below(&index.to_string(), |parse| {
                        parse.choice(choices, choice);
                        if !choice.as_str().is_none_or(|choice| seen.insert(choice)) {
                            parse.refuse("uniqueItems", "This was chosen twice.");
                        }
                    });
                }
            }
            Kind::GeoPoint => self.point(value),
            // Worked out below, whatever was sent; a note is not known here.
            Kind::Calculated(_) | Kind::Note => {}
            Kind::Group(fields) => match value.as_object_mut() {
                Some(object) => self.fields(fields, object),
                None => self.refuse("type", "This is an object: one answer for each key of the group."),
            },
            Kind::Repeat { fields, items } => {
                let Some(entries) =
                    self.list(value, (*items.start()).max(usize::from(is_required)), *items.end())
                else {
                    return;
                };
                for (index, entry) in entries.iter_mut().enumerate() {
                    self.below(&index.to_string(), |parse| match entry.as_object_mut() {
                        Some(object) => parse.fields(fields, object),
                        None => parse.refuse("type", "An entry is an object: one answer for each key."),
                    });
                }
            }
        }
    }

    fn text<'v>(&mut self, value: &'v Value) -> Option<&'v str> {
        let text = value.as_str();
        if text.is_none() {
            self.refuse("type", "This is a text; leave it out where there is no answer.");
        }
        text
    }

    fn list<'v>(&mut self, value: &'v mut Value, min: usize, max: usize) -> Option<&'v mut Vec<Value>> {
        let Some(list) = value.as_array_mut() else {
            self.refuse("type", "This is a list.");
            return None;
        };
        if list.len() < min {
            self.refuse("minItems", format!("At least {min} belong here."));
        } else if list.len() > max {
            self.refuse("maxItems", format!("At most {max} belong here."));
            return None;
        }
        Some(list)
    }

    fn choice(&mut self, choices: &[String], value: &Value) {
        if !value.as_str().is_some_and(|value| choices.iter().any(|choice| choice == value)) {
            self.refuse("enum", "This is not among the choices.");
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
                number.to_string()
            }
            Value::String(text)
                if Format::Decimal.is_match(text) && text.len() <= Format::Decimal.max_chars() =>
            {
                let number: f64 = text.parse().unwrap_or_default();
                // Without limits of the author's own the pattern says enough.
                let (min, max) = (
                    if min > -MAX_DECIMAL { min } else { number },
                    if max < MAX_DECIMAL { max } else { number },
                );
                if !self.is_within(&number, &min, &max) {
                    return;
                }
                std::mem::take(text)
            }
            _ => return self.refuse("type", Format::Decimal.example()),
        };
        *value = Value::String(canonical_decimal(&text));
    }

    fn point(&mut self, value: &mut Value) {
        let Some(point) = value.as_object_mut() else {
            return self.refuse("type", "This is an object with latitude and longitude.");
        };
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
                    None => parse.refuse("type", "This is a number."),
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
    is_required: bool,
    chars: &RangeInclusive<usize>,
    pattern: Option<&Pattern>,
) -> Option<(&'static str, Cow<'static, str>)> {
    let length = text.chars().count();
    if is_required && is_blank(text) {
        Some(("required", "This must be answered.".into()))
    } else if length < *chars.start() {
        Some(("minLength", format!("At least {} characters belong here.", chars.start()).into()))
    } else if length > *chars.end() {
        Some(("maxLength", format!("At most {} characters belong here.", chars.end()).into()))
    } else if text.contains('\0') {
        Some(("pattern", "The character U+0000 cannot be stored.".into()))
    } else if pattern.is_some_and(|pattern| !pattern.is_match(text)) {
        Some(("pattern", "This does not look as it should.".into()))
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

/// Space that is cut off; every engine agrees on these four.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

fn is_blank(text: &str) -> bool {
    text.trim_matches(SPACE).is_empty()
}

/// Without space around it, and composed (NFC); nothing where it is so already.
fn canonical_text(text: &str) -> Option<String> {
    let trimmed = text.trim_matches(SPACE);
    if is_nfc_quick(trimmed.chars()) != IsNormalized::Yes {
        return Some(trimmed.nfc().collect());
    }
    (trimmed.len() < text.len()).then(|| trimmed.to_owned())
}

fn canonical_format(format: Format, text: &str) -> Option<String> {
    match format {
        Format::Phone => {
            let digits = text.chars().filter(char::is_ascii_digit);
            Some(std::iter::once('+').chain(digits).collect())
        }
        Format::DateTime => {
            let time = DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc);
            // An offset at either end of time would lead to a year that cannot be written.
            (0..=9999).contains(&time.year()).then(|| time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
        }
        _ => None,
    }
}

/// Without zeros in front and without `-0`; the digits behind the point stay, since they say how exact it is.
fn canonical_decimal(text: &str) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let digits = digits.trim_start_matches('0');
    let zero = if digits.is_empty() || digits.starts_with('.') { "0" } else { "" };
    let is_zero = digits.chars().all(|digit| matches!(digit, '0' | '.'));
    format!("{}{zero}{digits}", if is_zero { "" } else { sign })
}

/// The second pass: relevance and calculations. Answers the places that are not relevant.
fn settle(form: &CompiledForm, answers: &mut Value, budget: &mut Budget) -> Result<HashSet<String>, TooDear> {
    let mut irrelevant = HashSet::new();
    for index in form.order.iter().copied() {
        let mut decisions = Vec::new();
        if let Some(top) = answers.as_object() {
            let mut walk = Walk { form, index, budget, decisions: &mut decisions };
            walk.instances(&form.containers[index], &mut vec![top], &mut String::new())?;
        }
        let key = &form.definition.fields[index].key;
        for (container, value) in decisions {
            let Some(object) = answers.pointer_mut(&container).and_then(Value::as_object_mut) else {
                continue;
            };
            match value {
                Decision::Irrelevant => {
                    object.remove(key);
                    irrelevant.insert(below(&container, key));
                }
                Decision::Is(None) => drop(object.remove(key)),
                Decision::Is(Some(value)) => drop(object.insert(key.clone(), value)),
            }
        }
    }
    Ok(irrelevant)
}

enum Decision {
    Irrelevant,
    /// The calculated value.
    Is(Option<Value>),
}

/// All places of one field: one, or one for each entry of the repeats around it.
struct Walk<'f, 'd> {
    form: &'f CompiledForm,
    index: FieldIndex,
    budget: &'d mut Budget,
    /// By the pointer of the object around the field.
    decisions: &'d mut Vec<(String, Decision)>,
}

impl Walk<'_, '_> {
    fn instances(
        &mut self,
        containers: &[FieldIndex],
        scopes: &mut Vec<&Map<String, Value>>,
        pointer: &mut String,
    ) -> Result<(), TooDear> {
        let Some((first, rest)) = containers.split_first() else { return self.decide(scopes, pointer) };
        let key = &self.form.definition.fields[*first].key;
        let Some(value) = scopes.last().and_then(|scope| scope.get(key)) else { return Ok(()) };
        let end = pointer.len();
        push_segment(pointer, key);
        let entries = value.as_array().map_or(&[][..], Vec::as_slice);
        let group = value.as_object().map(|object| (None, object));
        let entries =
            entries.iter().enumerate().filter_map(|(at, entry)| Some((Some(at), entry.as_object()?)));
        for (at, object) in group.into_iter().chain(entries) {
            let end = pointer.len();
            if let Some(at) = at {
                push_segment(pointer, &at.to_string());
            }
            scopes.push(object);
            self.instances(rest, scopes, pointer)?;
            scopes.pop();
            pointer.truncate(end);
        }
        pointer.truncate(end);
        Ok(())
    }

    fn decide(&mut self, scopes: &[&Map<String, Value>], pointer: &str) -> Result<(), TooDear> {
        let (form, rules) = (&self.form.definition, &self.form.rules[self.index]);
        if let Some(relevant) = &rules.relevant
            && !relevant.holds(form, scopes, self.budget)?
        {
            self.decisions.push((pointer.to_owned(), Decision::Irrelevant));
        } else if let Some(calculate) = &rules.calculate {
            let value = calculate.value(form, scopes, self.budget)?.filter(crate::Json::can_hold);
            self.decisions.push((pointer.to_owned(), Decision::Is(value)));
        }
        Ok(())
    }
}

/// The third pass: what must be there is, and what is there keeps its rules.
struct Check<'f, 'd> {
    form: &'f CompiledForm,
    irrelevant: &'d HashSet<String>,
    /// Answers that are no answers: their rules say nothing new.
    wrong: &'d HashSet<String>,
    pointer: String,
    budget: &'d mut Budget,
    problems: &'d mut Vec<Problem>,
}

impl Check<'_, '_> {
    fn fields(
        &mut self,
        fields: &[FieldIndex],
        scopes: &mut Vec<&Map<String, Value>>,
    ) -> Result<(), TooDear> {
        let form = self.form;
        for index in fields.iter().copied() {
            let field = &form.definition.fields[index];
            let end = self.pointer.len();
            push_segment(&mut self.pointer, &field.key);
            if form.rules[index].relevant.is_none() || !self.irrelevant.contains(&self.pointer) {
                self.field(index, field, scopes)?;
            }
            self.pointer.truncate(end);
        }
        Ok(())
    }

    fn field(
        &mut self,
        index: FieldIndex,
        field: &Field,
        scopes: &mut Vec<&Map<String, Value>>,
    ) -> Result<(), TooDear> {
        let (definition, rules) = (&self.form.definition, &self.form.rules[index]);
        let value = scopes.last().and_then(|scope| scope.get(&field.key));
        let is_required = match &rules.required {
            Some(rule) => rule.holds(definition, scopes, self.budget)?,
            None => field.required == Required::Yes,
        };
        if is_required && !value.is_some_and(is_answer) && !self.wrong.contains(&self.pointer) {
            self.problems.push(Problem::new(self.pointer.clone(), "required", "This must be answered."));
        }
        let Some(value) = value else { return Ok(()) };
        if !self.wrong.contains(&self.pointer) {
            for (rule, valid) in rules.valid.iter().zip(&field.valid) {
                if !rule.holds(definition, scopes, self.budget)? {
                    self.problems.push(Problem::new(self.pointer.clone(), "valid", valid.message.clone()));
                }
            }
        }
        match (&field.kind, value) {
            (Kind::Group(fields), Value::Object(object)) => self.inside(fields, object, scopes)?,
            (Kind::Repeat { fields, .. }, Value::Array(entries)) => {
                for (at, entry) in entries.iter().enumerate() {
                    let Some(object) = entry.as_object() else { continue };
                    let end = self.pointer.len();
                    push_segment(&mut self.pointer, &at.to_string());
                    self.inside(fields, object, scopes)?;
                    self.pointer.truncate(end);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn inside<'v>(
        &mut self,
        fields: &[FieldIndex],
        object: &'v Map<String, Value>,
        scopes: &mut Vec<&'v Map<String, Value>>,
    ) -> Result<(), TooDear> {
        scopes.push(object);
        let checked = self.fields(fields, scopes);
        scopes.pop();
        checked
    }
}

/// Is there an answer? A blank text and an empty list are none.
fn is_answer(value: &Value) -> bool {
    match value {
        Value::String(text) => !is_blank(text),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests;

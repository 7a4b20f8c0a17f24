//! What answers go through before they are stored, on every way in. In this order: blanks and the white space
//! around texts go (`tidy`); each answer is parsed against its field and brought into canonical form;
//! relevance and calculations are decided, each after all that it depends on, and what is not relevant goes;
//! then what is required must be there, and the rules of what is there must hold. All problems are collected.
//! Pure: no database, no clock. The first two steps are in files of their own. Not here: storing
//! (`submission::write`).

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::forms::{
    compiled::CompiledForm,
    definition::{Field, FieldIndex, Kind, Required},
    logic::{Budget, BudgetExceeded},
    problem::{MAX_PROBLEMS, Problem, below, push_segment},
    tidy,
    work::Work,
};
use crate::unicode::is_space;

mod parse;

use parse::Parse;

/// Bytes of one submission's answers at most, as compact JSON.
pub const MAX_BYTES: usize = 512 * 1024;
/// Bytes that groups and calculated values may add to the answers.
const MAX_ADDED_BYTES: usize = MAX_BYTES;

/// Checks answers to a form and brings them into the form in which they are stored.
///
/// # Errors
/// What is wrong with them, at most `MAX_PROBLEMS`.
pub fn run(form: &CompiledForm, answers: Value) -> Result<Value, Vec<Problem>> {
    run_within(form, answers, &Work::full()).map_err(|refused| refused.problems)
}

/// Why answers are refused.
#[derive(Debug)]
pub(crate) struct RejectedAnswers {
    pub(crate) problems: Vec<Problem>,
    /// More work would have been needed to judge them.
    pub(crate) is_spent: bool,
}

/// Checks answers to a form with so much work, and brings them into the form in which they are stored.
///
/// # Errors
/// What is wrong with them, or that there is too much to do.
pub(crate) fn run_within(
    form: &CompiledForm,
    mut answers: Value,
    work: &Work,
) -> Result<Value, RejectedAnswers> {
    tidy::tidy(&mut answers);
    let mut parse = Parse::new(form, work);
    let Value::Object(top) = &mut answers else {
        parse.refuse("type", "The answers are an object: one answer for each key.");
        return Err(RejectedAnswers { problems: parse.problems, is_spent: false });
    };
    if parse.fields(&form.definition.top, top) == Err(BudgetExceeded) {
        let problem = Problem::new("", "maxCost", "The form asks too much of so many answers.");
        return Err(RejectedAnswers { problems: vec![problem], is_spent: true });
    }
    let mut problems = parse.problems;
    let (mut budget, mut added) = (Budget::of(work), parse.added);
    let checked = settle(form, &mut answers, &mut budget, &mut added).and_then(|irrelevant| {
        // What is not asked cannot be wrong.
        problems.retain(|problem| !is_within(&problem.pointer, &irrelevant));
        let wrong: HashSet<String> = problems.iter().map(|problem| problem.pointer.clone()).collect();
        let mut check = Validation {
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
    if checked == Err(BudgetExceeded) {
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
    Err(RejectedAnswers { problems, is_spent: checked == Err(BudgetExceeded) })
}

fn is_within(pointer: &str, places: &HashSet<String>) -> bool {
    !places.is_empty()
        && (places.contains(pointer)
            || pointer.match_indices('/').any(|(end, _)| end > 0 && places.contains(&pointer[..end])))
}

/// What an answer takes in the compact JSON, about.
fn added_bytes(key: &str, value: &Value) -> usize {
    key.len() + 4 + value.as_str().map_or(8, str::len)
}

/// The second pass: relevance and calculations. Answers the places that are not relevant.
fn settle(
    form: &CompiledForm,
    answers: &mut Value,
    budget: &mut Budget,
    added: &mut usize,
) -> Result<HashSet<String>, BudgetExceeded> {
    let mut irrelevant = HashSet::new();
    for index in form.order.iter().copied() {
        let mut decisions = Vec::new();
        if let Some(top) = answers.as_object() {
            let mut walk = AnswerWalk { form, index, budget, decisions: &mut decisions };
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
                Decision::Is(Some(value)) => {
                    *added = added.checked_sub(added_bytes(key, &value)).ok_or(BudgetExceeded)?;
                    object.insert(key.clone(), value);
                }
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
struct AnswerWalk<'f, 'd> {
    form: &'f CompiledForm,
    index: FieldIndex,
    budget: &'d mut Budget,
    /// By the pointer of the object around the field.
    decisions: &'d mut Vec<(String, Decision)>,
}

impl AnswerWalk<'_, '_> {
    fn instances(
        &mut self,
        containers: &[FieldIndex],
        scopes: &mut Vec<&Map<String, Value>>,
        pointer: &mut String,
    ) -> Result<(), BudgetExceeded> {
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

    fn decide(&mut self, scopes: &[&Map<String, Value>], pointer: &str) -> Result<(), BudgetExceeded> {
        let (form, rules) = (&self.form.definition, &self.form.rules[self.index]);
        if let Some(relevant) = &rules.relevant
            && !relevant.holds(form, scopes, self.budget)?
        {
            self.decisions.push((pointer.to_owned(), Decision::Irrelevant));
        } else if let Some(calculate) = &rules.calculate {
            let value =
                calculate.value(form, scopes, self.budget)?.filter(crate::database::sql::Json::can_hold);
            self.decisions.push((pointer.to_owned(), Decision::Is(value)));
        }
        Ok(())
    }
}

/// The third pass: what must be there is, and what is there keeps its rules.
struct Validation<'f, 'd> {
    form: &'f CompiledForm,
    irrelevant: &'d HashSet<String>,
    /// Answers that are no answers: their rules say nothing new.
    wrong: &'d HashSet<String>,
    pointer: String,
    budget: &'d mut Budget,
    problems: &'d mut Vec<Problem>,
}

impl Validation<'_, '_> {
    fn fields(
        &mut self,
        fields: &[FieldIndex],
        scopes: &mut Vec<&Map<String, Value>>,
    ) -> Result<(), BudgetExceeded> {
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
    ) -> Result<(), BudgetExceeded> {
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
    ) -> Result<(), BudgetExceeded> {
        scopes.push(object);
        let checked = self.fields(fields, scopes);
        scopes.pop();
        checked
    }
}

/// Is there an answer? A blank text and an empty list are none, also where they were worked out.
fn is_answer(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.trim_matches(is_space).is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests;

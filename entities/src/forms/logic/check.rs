//! Which logic is a rule: known operators, variables that name fields which can be seen from where the rule
//! stands, and a cost that grows no faster than the answers. What is checked is also translated for the
//! engine: variables by number, operators by the names that `javascript` gives them.
//!
//! A variable names a field beside the rule's own, or one further out, innermost first; `root.x` starts at the top; a
//! dot goes into a group. Inside `map`, `filter`, `all`, `some`, `none` and `reduce` it names what is in the entry.
//! Not here: which values an operator may be given (`types`).

use std::{borrow::Cow, cell::Cell};

use datalogic_rs::{DataValue, bumpalo::Bump};
use serde_json::{Map, Value, json};

use super::{
    ENGINE, Findings, Reference, STEP_BYTES, Surroundings, javascript,
    types::{Argument, Types, hint, objection, objection_to_iterator},
};
use crate::forms::{
    definition::{FieldIndex, Kind, Stage},
    problem::{MAX_PROBLEMS, Problem, below, did_you_mean},
};

/// All operators: those that both engines have and read alike, also where there is no answer. `substr`, which fails on
/// none in one of them, is not among them.
const OPERATORS: [&str; 31] = [
    "var", "==", "===", "!=", "!==", ">", ">=", "<", "<=", "!", "!!", "and", "or", "if", "+", "-", "*", "/",
    "%", "max", "min", "cat", "in", "merge", "length", "filter", "map", "all", "some", "none", "reduce",
];
/// The operators that run logic once for each entry of a list.
const ITERATORS: [&str; 6] = ["filter", "map", "all", "some", "none", "reduce"];
/// Operators whose result can be larger than what they are given: they do not stand in the logic of an entry.
const GROWING: [&str; 2] = ["cat", "merge"];
/// Operators whose result can be a list or a long text: a `reduce` that gathered one would read it at each entry.
const LARGE: [&str; 4] = ["cat", "merge", "filter", "map"];
/// Operators that compare; of three values they compare each with the next.
const COMPARISONS: [&str; 8] = ["==", "===", "!=", "!==", ">", ">=", "<", "<="];
/// Operators and values in one rule at most; a long text counts as many.
const MAX_NODES: usize = 500;
/// Operators and values in one rule that was published before at most: a comparison of three counted less then.
const MAX_PUBLISHED_NODES: usize = 20_000;
/// Operators inside one another at most.
const MAX_DEPTH: usize = 20;

/// What a variable inside an iterator names.
enum IteratorScope {
    /// No iterator: fields.
    None,
    /// Entries of this `REPEAT`.
    Of(FieldIndex),
    /// Plain values of these types: only the entry itself, `""`.
    Plain(Types),
    /// `reduce`: `current` and `accumulator`.
    Reduce(Box<IteratorScope>),
}

/// What a variable inside an iterator turned out to name.
enum VariableTarget {
    Field(FieldIndex),
    /// A value that is no field: an entry, what a `reduce` has so far, a part of a position.
    Value(Types),
}

/// Logic that was looked at.
struct Checked {
    /// As the engine reads it.
    value: Value,
    types: Types,
    is_answer: bool,
    is_constant: bool,
}

impl Checked {
    fn of(value: Value, types: Types) -> Self {
        Self { value, types, is_answer: false, is_constant: false }
    }
}

pub(super) struct LogicCheck<'c> {
    around: Surroundings<'c>,
    stage: Stage,
    findings: &'c mut Findings,
    pub(super) references: Vec<Reference>,
    pub(super) nodes: usize,
    /// Does it read a field of which nobody knows what it is?
    is_unclear: Cell<bool>,
}

impl<'c> LogicCheck<'c> {
    pub(super) fn new(around: Surroundings<'c>, stage: Stage, findings: &'c mut Findings) -> Self {
        let is_unclear = Cell::new(false);
        Self { around, stage, findings, references: Vec::new(), nodes: 0, is_unclear }
    }

    pub(super) fn is_unclear(&self) -> bool {
        self.is_unclear.get()
    }

    /// Checks a rule and answers it as the engine reads it.
    pub(super) fn rule(&mut self, logic: &Value, pointer: &str) -> Value {
        let checked = self.logic(logic, pointer, &IteratorScope::None, MAX_DEPTH);
        if self.nodes > self.max_nodes() {
            let message = "A rule has at most 500 operators and values.";
            self.findings.problems.push(Problem::new(pointer, "maxItems", message));
        }
        checked.value
    }

    fn refuse(&mut self, pointer: &str, message: impl Into<Cow<'static, str>>) -> Checked {
        self.findings.problems.push(Problem::new(pointer, "logic", message));
        Checked::of(Value::Null, Types::ANY)
    }

    fn max_nodes(&self) -> usize {
        match self.stage {
            Stage::Publication => MAX_NODES,
            Stage::Published => MAX_PUBLISHED_NODES,
        }
    }

    fn problems(&self) -> usize {
        self.findings.problems.len()
    }

    fn logic(&mut self, logic: &Value, at: &str, entry: &IteratorScope, depth: usize) -> Checked {
        self.nodes += 1;
        if self.nodes > self.max_nodes() {
            return Checked::of(Value::Null, Types::ANY);
        }
        let Some(depth) = depth.checked_sub(1) else {
            return self.refuse(at, "Operators stand inside one another at most twenty deep.");
        };
        let operation = match logic {
            Value::Object(operation) => operation,
            // A list that is made anew for each entry would be walked as often by what stands around it.
            Value::Array(_) if !matches!(entry, IteratorScope::None) => {
                return self.refuse(at, "In the logic of an entry a list is only what `in` looks through.");
            }
            Value::Array(items) => return self.list(items, at, entry, depth),
            literal => {
                self.nodes += literal.as_str().map_or(0, |text| text.len() / STEP_BYTES);
                let types = Types::of_literal(literal);
                return Checked { value: literal.clone(), types, is_answer: false, is_constant: true };
            }
        };
        let mut all = operation.iter();
        let (Some((operator, arguments)), None) = (all.next(), all.next()) else {
            return self.refuse(at, "An operation is an object with one key: its operator.");
        };
        let inner = below(at, operator);
        if operator == "var" {
            return self.variable(arguments, &inner, entry);
        }
        if ITERATORS.contains(&operator.as_str()) {
            return self.iterator(operator, arguments, &inner, entry, depth);
        }
        if !OPERATORS.contains(&operator.as_str()) {
            let hint = match operator.as_str() {
                "missing" | "missing_some" | "exists" => {
                    " Is it answered? That is {\"!==\": [x, null]}.".to_owned()
                }
                operator => did_you_mean(operator, OPERATORS),
            };
            let known = OPERATORS.join(" ");
            return self
                .refuse(&inner, format!("Unknown operator `{operator}`.{hint} Known operators: {known}."));
        }
        if GROWING.contains(&operator.as_str()) && !matches!(entry, IteratorScope::None) {
            return self.refuse(&inner, format!("`{operator}` cannot be used for each entry of a list."));
        }
        self.operation(operator, arguments, &inner, entry, depth)
    }

    fn list(&mut self, items: &[Value], at: &str, entry: &IteratorScope, depth: usize) -> Checked {
        let items = self.arguments(items, at, entry, depth);
        let is_constant = items.iter().all(|item| item.is_constant);
        let value = items.into_iter().map(|item| item.value).collect();
        Checked { value, types: Types::LIST, is_answer: false, is_constant }
    }

    fn arguments(&mut self, items: &[Value], at: &str, entry: &IteratorScope, depth: usize) -> Vec<Checked> {
        let items = items.iter().enumerate();
        items.map(|(index, item)| self.logic(item, &format!("{at}/{index}"), entry, depth)).collect()
    }

    /// An operator on values, at `at`.
    fn operation(
        &mut self,
        operator: &str,
        arguments: &Value,
        at: &str,
        entry: &IteratorScope,
        depth: usize,
    ) -> Checked {
        let before = (self.problems(), self.nodes);
        let is_bare = !arguments.is_array();
        let items = arguments.as_array().map_or(std::slice::from_ref(arguments), Vec::as_slice);
        let given = match items {
            [needle, Value::Array(list)] if operator == "in" && is_plain_list(list) => {
                // Nothing but `in` ever sees this list.
                let needle = self.logic(needle, &format!("{at}/0"), entry, depth);
                vec![needle, self.list(list, &format!("{at}/1"), entry, depth)]
            }
            [only] if is_bare => vec![self.logic(only, at, entry, depth)],
            items => self.arguments(items, at, entry, depth),
        };
        if given.len() > 2 && COMPARISONS.contains(&operator) {
            // All but the first and the last are compared twice.
            self.nodes += self.nodes - before.1;
        }
        let types: Vec<Types> = given.iter().map(|one| one.types).collect();
        let is_constant = given.iter().all(|one| one.is_constant);
        if self.nodes <= self.max_nodes()
            && let Some(looked_at) = self.looked_at(before.0, items, &given)
        {
            if let Some(message) = objection(operator, &looked_at, is_bare) {
                return self.refuse(at, message);
            }
            if let Some(message) = hint(operator, &looked_at) {
                self.findings.hints.push(Problem::new(at, "logic", message));
            }
        }
        let types = Types::of_operator(operator, &types);
        let value = translated(operator, given.into_iter().map(|one| one.value).collect(), is_bare);
        if self.stage == Stage::Publication
            && self.problems() == before.0
            && is_constant
            && !has_value(&value)
        {
            // Where this stands in what is never reached, the other engine evaluates it all the same.
            return self.refuse(at, "This never has a value, whatever the answers are.");
        }
        Checked { value, types, is_answer: false, is_constant }
    }

    /// `{"map": [list, logic]}` and its like; `reduce` has a third argument, where it begins.
    fn iterator(
        &mut self,
        operator: &str,
        arguments: &Value,
        at: &str,
        entry: &IteratorScope,
        depth: usize,
    ) -> Checked {
        let is_reduce = operator == "reduce";
        let arguments = arguments.as_array().map_or(&[][..], Vec::as_slice);
        let [list, logic, rest @ ..] = arguments else {
            return self.refuse(at, format!("`{operator}` takes a list and logic for each of its entries."));
        };
        if rest.len() != usize::from(is_reduce) {
            return self.refuse(at, format!("`{operator}` takes {} arguments.", 2 + usize::from(is_reduce)));
        }
        let Some(of) = self.entries(list, entry) else {
            return self.refuse(&format!("{at}/0"), "The list is a variable, or a `filter` or `map` of one.");
        };
        let before = self.problems();
        let mut checked = vec![self.logic(list, &format!("{at}/0"), entry, depth)];
        let inside = if is_reduce { IteratorScope::Reduce(Box::new(of)) } else { of };
        checked.push(self.logic(logic, &format!("{at}/1"), &inside, depth));
        checked.extend(rest.iter().map(|start| self.logic(start, &format!("{at}/2"), entry, depth)));
        if is_reduce && self.problems() == before {
            let gathered = [(1, Some(logic), &inside), (2, rest.first(), entry)];
            let is_large = |(_, part, entry): &(_, Option<&Value>, &IteratorScope)| {
                part.is_some_and(|part| !self.is_small(part, entry))
            };
            if let Some((part, ..)) = gathered.into_iter().find(is_large) {
                let message =
                    "A `reduce` gathers a number, a date, a choice, a yes or no: no list, no long text.";
                return self.refuse(&format!("{at}/{part}"), message);
            }
        }
        if let Some(looked_at) = self.looked_at(before, arguments, &checked)
            && let Some((part, message)) = objection_to_iterator(operator, &looked_at)
        {
            return self.refuse(&format!("{at}/{part}"), message);
        }
        let types: Vec<Types> = checked.iter().map(|one| one.types).collect();
        let types = Types::of_operator(operator, if is_reduce { &types[1..] } else { &types });
        let checked: Value = checked.into_iter().map(|one| one.value).collect();
        Checked::of(Value::Object(Map::from_iter([(operator.to_owned(), checked)])), types)
    }

    /// The arguments of an operator as what may be wrong with their types needs them; none where that is not
    /// asked: of a form that was published before, and where something in them is wrong already.
    fn looked_at<'l>(
        &self,
        problems_before: usize,
        arguments: &'l [Value],
        checked: &[Checked],
    ) -> Option<Vec<Argument<'l>>> {
        let is_asked = self.stage == Stage::Publication && self.problems() == problems_before;
        is_asked.then(|| arguments.iter().zip(checked).map(|(logic, one)| argument(logic, one)).collect())
    }

    /// What the entries of this list are; none if it is no list that can be walked.
    fn entries(&self, list: &Value, entry: &IteratorScope) -> Option<IteratorScope> {
        let (operator, arguments) = list.as_object().filter(|list| list.len() == 1)?.iter().next()?;
        match operator.as_str() {
            "var" => {
                let path = name(arguments)?;
                if path == "accumulator" && matches!(entry, IteratorScope::Reduce(_)) {
                    return None;
                }
                let field = match entry {
                    IteratorScope::None => self.resolve(path).map(|found| found.field),
                    entry => match self.in_entry(path, entry)? {
                        VariableTarget::Field(field) => Some(field),
                        VariableTarget::Value(_) => None,
                    },
                };
                let kind = field.map(|field| (field, &self.around.definition.fields[field].kind));
                Some(match kind {
                    Some((field, Kind::Repeat { .. })) => IteratorScope::Of(field),
                    Some((_, Kind::SelectMany { .. })) => IteratorScope::Plain(Types::TEXT),
                    _ => IteratorScope::Plain(Types::ANY),
                })
            }
            "filter" => self.entries(arguments.get(0)?, entry),
            "map" => {
                self.entries(arguments.get(0)?, entry)?;
                let each = arguments.get(1).map_or(Types::NOTHING, Types::of_rule);
                Some(IteratorScope::Plain(each.or(Types::NOTHING)))
            }
            _ => None,
        }
    }

    /// Is the result small, whatever the answers are? What is wrong with the logic otherwise is told elsewhere.
    fn is_small(&self, logic: &Value, entry: &IteratorScope) -> bool {
        let Value::Object(operation) = logic else { return !logic.is_array() };
        let Some((operator, arguments)) = operation.iter().next() else { return true };
        let items = arguments.as_array().map_or(std::slice::from_ref(arguments), Vec::as_slice);
        match operator.as_str() {
            "var" => name(arguments).is_none_or(|path| self.names_small(path, entry)),
            // The conditions of an `if` are no results of it.
            "if" => {
                let is_result = |at: usize| at % 2 == 1 || at + 1 == items.len();
                items.iter().enumerate().all(|(at, item)| !is_result(at) || self.is_small(item, entry))
            }
            "and" | "or" => items.iter().all(|item| self.is_small(item, entry)),
            operator => !LARGE.contains(&operator),
        }
    }

    fn names_small(&self, path: &str, entry: &IteratorScope) -> bool {
        let field = match entry {
            IteratorScope::None => self.resolve(path).filter(|found| !found.is_part).map(|found| found.field),
            IteratorScope::Reduce(_) if path == "accumulator" => None,
            // Entries that are no fields can be anything.
            IteratorScope::Plain(_) | IteratorScope::Reduce(_) | IteratorScope::Of(_)
                if matches!(path, "" | "current") =>
            {
                return false;
            }
            entry => match self.in_entry(path, entry) {
                Some(VariableTarget::Field(field)) => Some(field),
                Some(VariableTarget::Value(_)) | None => None,
            },
        };
        field.is_none_or(|field| self.around.definition.fields[field].kind.is_small())
    }

    fn variable(&mut self, arguments: &Value, at: &str, entry: &IteratorScope) -> Checked {
        let Some(path) = name(arguments) else {
            let message = "A variable is named by a text, with no other value in its place: write {\"if\": \
                           [{\"!==\": \
                           [x, null]}, x, other]}.";
            return self.refuse(at, message);
        };
        if !matches!(entry, IteratorScope::None) {
            return match self.in_entry(path, entry) {
                Some(VariableTarget::Field(field)) => self.answer(json!({ "var": path }), field),
                // Texts and never nothing: what was chosen of a SELECT_MANY.
                Some(VariableTarget::Value(types)) => {
                    Checked { is_answer: types == Types::TEXT, ..Checked::of(json!({ "var": path }), types) }
                }
                None => self.refuse(
                    at,
                    format!("Unknown variable `{path}`: the entries of this list do not have it."),
                ),
            };
        }
        let Some(mut reference) = self.resolve(path) else {
            let fields = &self.around.definition.fields;
            let seen = self.around.scopes.iter().rev().flat_map(|scope| scope.iter());
            // Nobody reads more problems than that.
            let seen = seen.take(if self.problems() < MAX_PROBLEMS { usize::MAX } else { 0 });
            let hint = did_you_mean(path, seen.map(|field| &*fields[*field].key));
            return self.refuse(at, format!("Unknown field `{path}`: it cannot be seen from here.{hint}"));
        };
        let (field, is_part) = (reference.field, reference.is_part);
        let same = |known: &&Reference| known.scope == reference.scope && known.keys == reference.keys;
        let variable = if let Some(known) = self.references.iter().find(same) {
            json!({ "var": known.name })
        } else {
            reference.name = format!("v{}", self.references.len());
            let variable = json!({ "var": reference.name });
            self.references.push(reference);
            variable
        };
        if is_part {
            return Checked::of(variable, Types::NUMBER.or(Types::NOTHING));
        }
        self.answer(variable, field)
    }

    fn answer(&self, value: Value, field: FieldIndex) -> Checked {
        let is_answer = !matches!(self.around.definition.fields[field].kind, Kind::Calculated(_));
        Checked { value, types: self.around.types[field], is_answer, is_constant: false }
    }

    /// The field that a path names, innermost first.
    fn resolve(&self, path: &str) -> Option<Reference> {
        let mut segments = path.split('.');
        let mut first = segments.next()?;
        let mut scopes = 0..self.around.scopes.len();
        if first == "root" {
            first = segments.next()?;
            scopes = 0..1;
        }
        let (scope, field) =
            scopes.rev().find_map(|scope| Some((scope, self.named(self.around.scopes[scope], first)?)))?;
        let mut reference =
            Reference { name: String::new(), scope, keys: vec![first.to_owned()], field, is_part: false };
        let fields = &self.around.definition.fields;
        for segment in segments {
            match &fields[reference.field].kind {
                Kind::Group(fields) => reference.field = self.named(fields, segment)?,
                Kind::GeoPoint if !reference.is_part && is_part(segment) => reference.is_part = true,
                _ => return None,
            }
            reference.keys.push(segment.to_owned());
        }
        (!matches!(fields[reference.field].kind, Kind::Note)).then_some(reference)
    }

    /// What a path inside an entry names: nothing that exists, a plain value, or a field.
    fn in_entry(&self, path: &str, entry: &IteratorScope) -> Option<VariableTarget> {
        let number = VariableTarget::Value(Types::NUMBER.or(Types::NOTHING));
        match entry {
            IteratorScope::Plain(types) if path.is_empty() => Some(VariableTarget::Value(*types)),
            IteratorScope::Of(_) | IteratorScope::Reduce(_) if path.is_empty() => {
                Some(VariableTarget::Value(Types::OBJECT))
            }
            IteratorScope::None | IteratorScope::Plain(_) => None,
            IteratorScope::Reduce(of) => match path.split_once('.').unwrap_or((path, "")) {
                ("accumulator", "") => Some(VariableTarget::Value(Types::PLAIN)),
                ("current", rest) => self.in_entry(rest, of),
                _ => None,
            },
            IteratorScope::Of(repeat) => {
                let mut segments = path.split('.');
                let fields = &self.around.definition.fields;
                let mut field = self.named(fields[*repeat].kind.children(), segments.next()?)?;
                for segment in segments {
                    match &fields[field].kind {
                        Kind::Group(fields) => field = self.named(fields, segment)?,
                        Kind::GeoPoint if is_part(segment) => return Some(number),
                        _ => return None,
                    }
                }
                Some(VariableTarget::Field(field))
            }
        }
    }

    fn named(&self, fields: &[FieldIndex], key: &str) -> Option<FieldIndex> {
        let definition = self.around.definition;
        let found = fields.iter().copied().find(|field| definition.fields[*field].key == key)?;
        if definition.unclear.contains(&found) {
            self.is_unclear.set(true);
        }
        Some(found)
    }
}

fn argument<'l>(logic: &'l Value, checked: &Checked) -> Argument<'l> {
    let Checked { types, is_answer, is_constant, .. } = *checked;
    Argument { types, logic, is_answer, is_constant }
}

/// An operator with its arguments, as the engine reads it.
fn translated(operator: &str, given: Vec<Value>, is_bare: bool) -> Value {
    let with = |name: &str, given: Value| Value::Object(Map::from_iter([(name.to_owned(), given)]));
    let is_spread = match operator {
        // A list that stands alone is the list of arguments; by a quirk also in brackets for these two.
        "+" | "-" => given.len() == 1,
        "*" | "/" | "%" | "max" | "min" | "merge" => is_bare,
        _ => false,
    };
    let Some(name) = javascript::name(operator, is_spread) else {
        let only = if is_bare { given.first().cloned() } else { None };
        return with(operator, only.unwrap_or(Value::Array(given)));
    };
    if given.len() > 2 && COMPARISONS.contains(&operator) {
        return with("and", given.windows(2).map(|pair| with(&name, json!(pair))).collect());
    }
    with(&name, Value::Array(given))
}

/// Does logic without variables have a value?
fn has_value(logic: &Value) -> bool {
    let arena = Bump::new();
    ENGINE
        .compile(&logic.to_string())
        .is_ok_and(|logic| ENGINE.evaluate(&logic, DataValue::Object(&[]), &arena).is_ok())
}

/// The name in `{"var": "name"}` or `{"var": ["name"]}`.
fn name(arguments: &Value) -> Option<&str> {
    match arguments {
        Value::String(name) => Some(name),
        Value::Array(list) if list.len() == 1 => list[0].as_str(),
        _ => None,
    }
}

/// A list without logic in it.
fn is_plain_list(items: &[Value]) -> bool {
    !items.iter().any(|item| item.is_object() || item.is_array())
}

fn is_part(segment: &str) -> bool {
    matches!(segment, "latitude" | "longitude" | "accuracy")
}

//! Rules of a form, in JSONLogic, checked and compiled. A `Rule` exists only for logic with known operators whose
//! variables all name fields that can be seen from where the rule stands, and whose cost grows no faster than the
//! answers it reads. Engine: `datalogic-rs`, with the operators that `json-logic-engine` for JavaScript shares; a
//! corpus of vectors is run by both.
//!
//! A variable names a field beside the rule's own, or one further out, innermost first; `root.x` starts at the top; a
//! dot goes into a group. Inside `map`, `filter`, `all`, `some`, `none` and `reduce` it names what is in the entry.
//! Not here: when rules run (`compiled`, `submission::pipeline`).

use std::sync::LazyLock;

use datalogic_rs::{DataValue, Engine, EvaluationConfig, Logic, bumpalo::Bump, datavalue::NumberValue};
use serde_json::{Map, Value, json};

use super::{
    definition::{Definition, FieldIndex, Kind, MAX_INTEGER},
    problem::{Problem, below},
};

/// Operators that both engines have and read alike, also where there is no answer: `substr`, which fails on none in one
/// of them, is not among them.
const OPERATORS: [&str; 30] = [
    "var", "==", "===", "!=", "!==", ">", ">=", "<", "<=", "!", "!!", "and", "or", "if", "+", "-", "*", "/",
    "%", "max", "min", "cat", "in", "merge", "length", "filter", "map", "all", "some", "none",
];
/// The operators that run logic once for each entry of a list.
const ITERATORS: [&str; 6] = ["filter", "map", "all", "some", "none", "reduce"];
/// Operators whose result can be larger than what they are given: they do not stand in the logic of an entry.
const GROWING: [&str; 2] = ["cat", "merge"];
/// Operators whose result can be a list or a long text: a `reduce` that gathered one would read it at each entry.
const LARGE: [&str; 4] = ["cat", "merge", "filter", "map"];
/// Operators and values in one rule at most; a long text counts as many.
const MAX_NODES: usize = 500;
/// Bytes of a text that cost as much as one step.
const STEP_BYTES: usize = 16;
/// Steps that it takes to run a rule at all.
const RUN_STEPS: u64 = 32;
/// Operators inside one another at most.
const MAX_DEPTH: usize = 20;

/// A rule, ready to run.
#[derive(Debug)]
pub struct Rule {
    logic: Logic,
    references: Vec<Reference>,
    nodes: usize,
}

/// A variable: which field it reads, and how to get there.
#[derive(Debug)]
struct Reference {
    /// Its name in the compiled logic.
    name: String,
    /// Which of the objects around the rule holds it; 0 is the whole of the answers.
    scope: usize,
    /// The keys from there.
    keys: Vec<String>,
    /// The field.
    field: FieldIndex,
    /// Part of a `GEO_POINT`.
    is_part: bool,
}

/// The lists of fields around a rule, outermost first.
pub(super) type Scopes<'d> = [&'d [FieldIndex]];

/// What a rule cost at most, in steps of the engine.
#[derive(Debug)]
pub struct Budget(u64);

/// Steps that the rules of one submission may take together.
const MAX_STEPS: u64 = 5_000_000;

/// The budget is spent: the rules are too dear for these answers.
#[derive(Debug, PartialEq, Eq)]
pub struct TooDear;

impl Default for Budget {
    fn default() -> Self {
        Self(MAX_STEPS)
    }
}

static ENGINE: LazyLock<Engine> =
    LazyLock::new(|| Engine::builder().with_config(EvaluationConfig::default()).build());

impl Rule {
    /// Checks and compiles logic that stands at `pointer`, with these fields around it.
    pub(super) fn compile(
        definition: &Definition,
        scopes: &Scopes<'_>,
        logic: &Value,
        pointer: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let before = problems.len();
        let mut check = Check { definition, scopes, references: Vec::new(), nodes: 0, problems };
        let compiled = check.logic(logic, pointer, &Entry::None, MAX_DEPTH);
        let (references, nodes) = (check.references, check.nodes);
        if nodes > MAX_NODES {
            problems.push(Problem::new(pointer, "maxItems", "A rule has at most 500 operators and values."));
        }
        if problems.len() > before {
            return None;
        }
        match ENGINE.compile(&compiled.to_string()) {
            Ok(logic) => Some(Self { logic, references, nodes }),
            Err(error) => {
                problems.push(Problem::new(pointer, "logic", format!("This is no JSONLogic: {error}")));
                None
            }
        }
    }

    /// The fields that it reads.
    pub(super) fn reads(&self) -> impl Iterator<Item = FieldIndex> + '_ {
        self.references.iter().map(|reference| reference.field)
    }

    /// Does it hold? Logic that fails, such as a division of a text, does not hold.
    ///
    /// # Errors
    /// The budget is spent.
    pub fn holds(
        &self,
        form: &Definition,
        scopes: &[&Map<String, Value>],
        budget: &mut Budget,
    ) -> Result<bool, TooDear> {
        self.run(form, scopes, budget, |value| value.is_some_and(is_truthy))
    }

    /// Its value: a text, a number or a boolean.
    ///
    /// # Errors
    /// The budget is spent.
    pub fn value(
        &self,
        form: &Definition,
        scopes: &[&Map<String, Value>],
        budget: &mut Budget,
    ) -> Result<Option<Value>, TooDear> {
        self.run(form, scopes, budget, |value| value.and_then(scalar))
    }

    fn run<T>(
        &self,
        form: &Definition,
        scopes: &[&Map<String, Value>],
        budget: &mut Budget,
        read: impl FnOnce(Option<&DataValue<'_>>) -> T,
    ) -> Result<T, TooDear> {
        let arena = Bump::new();
        let mut size = 1;
        let mut variables = Vec::with_capacity(self.references.len());
        for reference in &self.references {
            let Some(value) = reference.find(scopes) else { continue };
            let field = (!reference.is_part).then_some(reference.field);
            variables.push((&*arena.alloc_str(&reference.name), data(form, field, value, &arena, &mut size)));
        }
        // Every operator runs at most once for each value that it reads: an iterator walks only what was answered, and
        // what a `reduce` carries from entry to entry is small (`Check::is_small`).
        let steps = (self.nodes as u64).saturating_mul(size).saturating_add(RUN_STEPS);
        budget.0 = budget.0.checked_sub(steps).ok_or(TooDear)?;
        let variables = DataValue::Object(arena.alloc_slice_fill_iter(variables));
        Ok(read(ENGINE.evaluate(&self.logic, variables, &arena).ok()))
    }
}

impl Reference {
    fn find<'v>(&self, scopes: &[&'v Map<String, Value>]) -> Option<&'v Value> {
        let (first, rest) = self.keys.split_first()?;
        rest.iter().try_fold(scopes.get(self.scope)?.get(first)?, |value, key| value.get(key))
    }
}

/// An answer as the engine sees it: decimals, which are stored as texts, are numbers.
fn data<'a>(
    form: &Definition,
    field: Option<FieldIndex>,
    value: &'a Value,
    arena: &'a Bump,
    size: &mut u64,
) -> DataValue<'a> {
    *size += 1;
    let kind = field.map(|field| &form.fields[field].kind);
    match value {
        Value::Null => DataValue::Null,
        Value::Bool(is) => DataValue::Bool(*is),
        Value::Number(number) => DataValue::Number(number_of(number)),
        Value::String(text) => match kind {
            Some(Kind::Decimal(_)) if let Ok(number) = text.parse() => {
                DataValue::Number(NumberValue::Float(number))
            }
            _ => {
                *size += (text.len() / STEP_BYTES) as u64;
                DataValue::String(text)
            }
        },
        Value::Array(items) => {
            let items = items.iter().map(|item| data(form, field, item, arena, size));
            DataValue::Array(arena.alloc_slice_fill_iter(items.collect::<Vec<_>>()))
        }
        Value::Object(fields) => {
            let children = kind.map_or(&[][..], Kind::children);
            let fields = fields.iter().map(|(key, value)| {
                let child = children.iter().copied().find(|child| form.fields[*child].key == *key);
                (key.as_str(), data(form, child, value, arena, size))
            });
            DataValue::Object(arena.alloc_slice_fill_iter(fields.collect::<Vec<_>>()))
        }
    }
}

fn number_of(number: &serde_json::Number) -> NumberValue {
    match (number.as_i64(), number.as_f64()) {
        (Some(integer), _) => NumberValue::Integer(integer),
        (None, float) => NumberValue::Float(float.unwrap_or_default()),
    }
}

/// JSONLogic's truth: JavaScript's, but an empty list is false.
fn is_truthy(value: &DataValue<'_>) -> bool {
    match value {
        DataValue::Null => false,
        DataValue::Bool(is) => *is,
        DataValue::Number(number) => number.as_f64() != 0.0 && !number.as_f64().is_nan(),
        DataValue::String(text) => !text.is_empty(),
        DataValue::Array(items) => !items.is_empty(),
        DataValue::Object(_) => true,
    }
}

/// A number as it is stored: whole ones are integers, as JavaScript writes them, and there is no −0. None for what is
/// no number.
pub(crate) fn canonical_number(number: f64) -> Option<Value> {
    if number.fract() == 0.0 && number.abs() <= MAX_INTEGER as f64 {
        return Some(json!(number as i64));
    }
    serde_json::Number::from_f64(number).map(Value::Number)
}

/// A result that can be an answer.
fn scalar(value: &DataValue<'_>) -> Option<Value> {
    Some(match value {
        DataValue::Bool(is) => json!(is),
        DataValue::String(text) => json!(text),
        DataValue::Number(number) => return canonical_number(number.as_f64()),
        _ => return None,
    })
}

/// What a variable inside an iterator names.
enum Entry {
    /// No iterator: fields.
    None,
    /// Entries of this `REPEAT`.
    Of(FieldIndex),
    /// Plain values: only the entry itself, `""`.
    Plain,
    /// `reduce`: `current` and `accumulator`.
    Reduce(Box<Entry>),
}

/// What a variable inside an iterator turned out to name.
enum Named {
    Field(FieldIndex),
    /// A value that is no field: a plain entry, what a `reduce` has so far, a part of a position.
    Value,
}

struct Check<'c> {
    definition: &'c Definition,
    scopes: &'c Scopes<'c>,
    references: Vec<Reference>,
    nodes: usize,
    problems: &'c mut Vec<Problem>,
}

impl Check<'_> {
    fn refuse(&mut self, pointer: &str, message: impl Into<std::borrow::Cow<'static, str>>) -> Value {
        self.problems.push(Problem::new(pointer, "logic", message));
        Value::Null
    }

    /// Checks logic and answers it with its variables resolved.
    fn logic(&mut self, logic: &Value, at: &str, entry: &Entry, depth: usize) -> Value {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Value::Null;
        }
        let Some(depth) = depth.checked_sub(1) else {
            return self.refuse(at, "Operators stand inside one another at most twenty deep.");
        };
        let operation = match logic {
            Value::Object(operation) => operation,
            // A list that is made anew for each entry would be walked as often by what stands around it.
            Value::Array(_) if !matches!(entry, Entry::None) => {
                return self.refuse(at, "In the logic of an entry a list is only what `in` looks through.");
            }
            Value::Array(_) => return self.arguments(logic, at, entry, depth),
            literal => {
                self.nodes += literal.as_str().map_or(0, |text| text.len() / STEP_BYTES);
                return literal.clone();
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
            let known = OPERATORS.join(" ");
            return self.refuse(&inner, format!("No such operator; there are {known} reduce."));
        }
        if GROWING.contains(&operator.as_str()) && !matches!(entry, Entry::None) {
            return self.refuse(&inner, format!("`{operator}` cannot be used for each entry of a list."));
        }
        let arguments = match arguments {
            Value::Array(both) if operator == "in" && both.len() == 2 && is_plain_list(&both[1]) => {
                // Nothing but `in` ever sees this list.
                let needle = self.logic(&both[0], &format!("{inner}/0"), entry, depth);
                let list = self.arguments(&both[1], &format!("{inner}/1"), entry, depth);
                json!([needle, list])
            }
            arguments => self.arguments(arguments, &inner, entry, depth),
        };
        Value::Object(Map::from_iter([(operator.clone(), arguments)]))
    }

    /// A list of arguments, or the only one.
    fn arguments(&mut self, arguments: &Value, at: &str, entry: &Entry, depth: usize) -> Value {
        let Value::Array(items) = arguments else { return self.logic(arguments, at, entry, depth) };
        let items = items.iter().enumerate();
        items.map(|(index, item)| self.logic(item, &format!("{at}/{index}"), entry, depth)).collect()
    }

    /// `{"map": [list, logic]}` and its like; `reduce` has a third argument, where it begins.
    fn iterator(
        &mut self,
        operator: &str,
        arguments: &Value,
        at: &str,
        entry: &Entry,
        depth: usize,
    ) -> Value {
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
        let before = self.problems.len();
        let mut checked = vec![self.logic(list, &format!("{at}/0"), entry, depth)];
        let inside = if is_reduce { Entry::Reduce(Box::new(of)) } else { of };
        checked.push(self.logic(logic, &format!("{at}/1"), &inside, depth));
        checked.extend(rest.iter().map(|start| self.logic(start, &format!("{at}/2"), entry, depth)));
        if is_reduce && self.problems.len() == before {
            let gathered = [(1, Some(logic), &inside), (2, rest.first(), entry)];
            let is_large = |(_, part, entry): &(_, Option<&Value>, &Entry)| {
                part.is_some_and(|part| !self.is_small(part, entry))
            };
            if let Some((part, ..)) = gathered.into_iter().find(is_large) {
                let message =
                    "A `reduce` gathers a number, a date, a choice, a yes or no: no list, no long text.";
                return self.refuse(&format!("{at}/{part}"), message);
            }
        }
        Value::Object(Map::from_iter([(operator.to_owned(), Value::Array(checked))]))
    }

    /// What the entries of this list are; none if it is no list that can be walked.
    fn entries(&self, list: &Value, entry: &Entry) -> Option<Entry> {
        let (operator, arguments) = list.as_object().filter(|list| list.len() == 1)?.iter().next()?;
        match operator.as_str() {
            "var" => {
                let path = name(arguments)?;
                if path == "accumulator" && matches!(entry, Entry::Reduce(_)) {
                    return None;
                }
                let field = match entry {
                    Entry::None => self.resolve(path).map(|found| found.field),
                    entry => match self.in_entry(path, entry)? {
                        Named::Field(field) => Some(field),
                        Named::Value => None,
                    },
                };
                let is_repeat =
                    |field: &FieldIndex| matches!(self.definition.fields[*field].kind, Kind::Repeat { .. });
                Some(field.filter(is_repeat).map_or(Entry::Plain, Entry::Of))
            }
            "filter" => self.entries(arguments.get(0)?, entry),
            "map" => self.entries(arguments.get(0)?, entry).map(|_| Entry::Plain),
            _ => None,
        }
    }

    /// Is the result small, whatever the answers are? What is wrong with the logic otherwise is told elsewhere.
    fn is_small(&self, logic: &Value, entry: &Entry) -> bool {
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

    fn names_small(&self, path: &str, entry: &Entry) -> bool {
        let field = match entry {
            Entry::None => self.resolve(path).filter(|found| !found.is_part).map(|found| found.field),
            Entry::Reduce(_) if path == "accumulator" => None,
            // Entries that are no fields can be anything.
            Entry::Plain | Entry::Reduce(_) | Entry::Of(_) if matches!(path, "" | "current") => return false,
            entry => match self.in_entry(path, entry) {
                Some(Named::Field(field)) => Some(field),
                Some(Named::Value) | None => None,
            },
        };
        field.is_none_or(|field| self.definition.fields[field].kind.is_small())
    }

    fn variable(&mut self, arguments: &Value, at: &str, entry: &Entry) -> Value {
        let Some(path) = name(arguments) else {
            return self.refuse(at, "A variable is named by a text, with no other value in its place.");
        };
        if !matches!(entry, Entry::None) {
            return match self.in_entry(path, entry) {
                Some(_) => json!({ "var": path }),
                None => self.refuse(at, format!("There is no `{path}` in the entries of this list.")),
            };
        }
        let Some(mut reference) = self.resolve(path) else {
            return self.refuse(at, format!("There is no field `{path}` that can be seen from here."));
        };
        let same = |known: &&Reference| known.scope == reference.scope && known.keys == reference.keys;
        if let Some(known) = self.references.iter().find(same) {
            return json!({ "var": known.name });
        }
        reference.name = format!("v{}", self.references.len());
        let variable = json!({ "var": reference.name });
        self.references.push(reference);
        variable
    }

    /// The field that a path names, innermost first.
    fn resolve(&self, path: &str) -> Option<Reference> {
        let mut segments = path.split('.');
        let mut first = segments.next()?;
        let mut scopes = 0..self.scopes.len();
        if first == "root" {
            first = segments.next()?;
            scopes = 0..1;
        }
        let (scope, field) =
            scopes.rev().find_map(|scope| Some((scope, self.named(self.scopes[scope], first)?)))?;
        let mut reference =
            Reference { name: String::new(), scope, keys: vec![first.to_owned()], field, is_part: false };
        for segment in segments {
            match &self.definition.fields[reference.field].kind {
                Kind::Group(fields) => reference.field = self.named(fields, segment)?,
                Kind::GeoPoint if !reference.is_part && is_part(segment) => reference.is_part = true,
                _ => return None,
            }
            reference.keys.push(segment.to_owned());
        }
        (!matches!(self.definition.fields[reference.field].kind, Kind::Note)).then_some(reference)
    }

    /// What a path inside an entry names: nothing that exists, a plain value, or a field.
    fn in_entry(&self, path: &str, entry: &Entry) -> Option<Named> {
        match entry {
            Entry::None => None,
            _ if path.is_empty() => Some(Named::Value),
            Entry::Plain => None,
            Entry::Reduce(of) => match path.split_once('.').unwrap_or((path, "")) {
                ("accumulator", "") => Some(Named::Value),
                ("current", rest) => self.in_entry(rest, of),
                _ => None,
            },
            Entry::Of(repeat) => {
                let mut segments = path.split('.');
                let children = self.definition.fields[*repeat].kind.children();
                let mut field = self.named(children, segments.next()?)?;
                for segment in segments {
                    match &self.definition.fields[field].kind {
                        Kind::Group(fields) => field = self.named(fields, segment)?,
                        Kind::GeoPoint if is_part(segment) => return Some(Named::Value),
                        _ => return None,
                    }
                }
                Some(Named::Field(field))
            }
        }
    }

    fn named(&self, fields: &[FieldIndex], key: &str) -> Option<FieldIndex> {
        fields.iter().copied().find(|field| self.definition.fields[*field].key == key)
    }
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
fn is_plain_list(value: &Value) -> bool {
    value.as_array().is_some_and(|items| !items.iter().any(|item| item.is_object() || item.is_array()))
}

fn is_part(segment: &str) -> bool {
    matches!(segment, "latitude" | "longitude" | "accuracy")
}

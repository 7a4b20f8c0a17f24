//! Rules of a form, in JSONLogic, compiled and run. A `Rule` exists only for logic with known operators whose
//! variables all name fields that can be seen from where the rule stands, and whose cost grows no faster than
//! the answers it reads (`check`). It has the value that `json-logic-engine` 5 for JavaScript gives it:
//! engine is `datalogic-rs`, with the operators of `javascript` in the place of its own where the two differ.
//! `tests/conformance` compares them.
//!
//! Not here: when rules run (`compiled`, `forms::pipeline`).

mod check;
mod javascript;
mod types;

use std::sync::LazyLock;

use datalogic_rs::{DataValue, Engine, EvaluationConfig, Logic, bumpalo::Bump, datavalue::NumberValue};
use serde_json::{Map, Value, json};

use super::{
    definition::{Definition, FieldIndex, Kind, MAX_INTEGER, Stage},
    problem::Problem,
    work::{Stop, Work},
};
use check::LogicCheck;
pub(super) use types::Types;

/// Bytes of a text that cost as much as one step.
const STEP_BYTES: usize = 16;
/// Steps that it takes to run a rule at all.
const RUN_STEPS: u64 = 32;
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

/// What a rule can see.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'d> {
    pub(super) definition: &'d Definition,
    /// The types of its fields.
    pub(super) types: &'d [Types],
    /// The lists of fields around the rule, outermost first.
    pub(super) scopes: &'d [&'d [FieldIndex]],
}

/// What was found in the rules of a form.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    /// What may be published, but means something else than most who write it think.
    pub(super) hints: Vec<Problem>,
}

/// The steps of the engine that the rules of one submission may still take.
#[derive(Debug)]
pub struct Budget {
    steps: u64,
    stop: Stop,
}

/// The budget is spent, or nobody waits for the answer any more.
#[derive(Debug, PartialEq, Eq)]
pub struct BudgetExceeded;

impl Budget {
    pub(crate) fn of(work: &Work) -> Self {
        Self { steps: work.steps, stop: work.stop.clone() }
    }

    /// Takes so many steps before they are run.
    fn spend(&mut self, steps: u64) -> Result<(), BudgetExceeded> {
        if self.stop.is_set() {
            return Err(BudgetExceeded);
        }
        self.steps = self.steps.checked_sub(steps).ok_or(BudgetExceeded)?;
        Ok(())
    }
}

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let builder = Engine::builder().with_config(EvaluationConfig::default());
    let builder = javascript::operators()
        .fold(builder, |builder, (name, operator)| builder.add_operator(name, operator));
    builder.build()
});

impl Rule {
    /// Checks and compiles logic that stands at `pointer`.
    pub(super) fn compile(
        around: Surroundings<'_>,
        logic: &Value,
        pointer: &str,
        stage: Stage,
        findings: &mut Findings,
    ) -> Option<Self> {
        let before = (findings.problems.len(), findings.hints.len());
        let mut check = LogicCheck::new(around, stage, findings);
        let compiled = check.rule(logic, pointer);
        let is_unclear = check.is_unclear();
        let (references, nodes) = (check.references, check.nodes);
        if is_unclear {
            // It reads a field of which nobody knows what it is; what that leads to is not told twice.
            findings.problems.truncate(before.0);
            findings.hints.truncate(before.1);
            return None;
        }
        if findings.problems.len() > before.0 {
            return None;
        }
        if stage == Stage::Publication && references.is_empty() && !pointer.ends_with("/calculate") {
            let message =
                "This says the same whatever the answers are: a rule reads a field, {\"var\": \"its key\"}.";
            findings.problems.push(Problem::new(pointer, "logic", message));
            return None;
        }
        match ENGINE.compile(&compiled.to_string()) {
            Ok(logic) => Some(Self { logic, references, nodes }),
            Err(error) => {
                let message = format!("This cannot be read as JSONLogic: {error}.");
                findings.problems.push(Problem::new(pointer, "logic", message));
                None
            }
        }
    }

    /// The fields that it reads.
    pub(super) fn reads(&self) -> impl Iterator<Item = FieldIndex> + '_ {
        self.references.iter().map(|reference| reference.field)
    }

    /// Does it hold? Logic that fails, such as a division by nothing, does not hold.
    ///
    /// # Errors
    /// The budget is spent.
    pub fn holds(
        &self,
        form: &Definition,
        scopes: &[&Map<String, Value>],
        budget: &mut Budget,
    ) -> Result<bool, BudgetExceeded> {
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
    ) -> Result<Option<Value>, BudgetExceeded> {
        self.run(form, scopes, budget, |value| value.and_then(scalar))
    }

    fn run<T>(
        &self,
        form: &Definition,
        scopes: &[&Map<String, Value>],
        budget: &mut Budget,
        read: impl FnOnce(Option<&DataValue<'_>>) -> T,
    ) -> Result<T, BudgetExceeded> {
        let arena = Bump::new();
        let mut size = 1;
        let mut variables = Vec::with_capacity(self.references.len());
        for reference in &self.references {
            let Some(value) = reference.find(scopes) else { continue };
            let field = (!reference.is_part).then_some(reference.field);
            variables.push((&*arena.alloc_str(&reference.name), data(form, field, value, &arena, &mut size)));
        }
        // Every operator runs at most once for each value that it reads: an iterator walks only what was answered, and
        // what a `reduce` carries from entry to entry is small (`LogicCheck::is_small`).
        let steps = (self.nodes as u64).saturating_mul(size).saturating_add(RUN_STEPS);
        budget.spend(steps)?;
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

/// JSONLogic's truth: JavaScript's, but an empty list and an empty object are false.
fn is_truthy(value: &DataValue<'_>) -> bool {
    match value {
        DataValue::Null => false,
        DataValue::Bool(is) => *is,
        DataValue::Number(number) => number.as_f64() != 0.0 && !number.as_f64().is_nan(),
        DataValue::String(text) => !text.is_empty(),
        DataValue::Array(items) => !items.is_empty(),
        DataValue::Object(answers) => !answers.is_empty(),
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

#[cfg(test)]
mod tests;

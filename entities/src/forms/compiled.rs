//! A published version, ready to take answers: its definition, its rules compiled, and the order in which relevance and
//! calculations can be decided. It exists only for definitions whose rules refer to fields that there are and depend on
//! nothing that depends on them. Not here: what is done with answers (`forms::pipeline`).

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
    sync::{Arc, LazyLock},
};

use aws_lc_rs::digest::{SHA256, digest};
use moka::sync::Cache;
use serde_json::Value;

use super::{
    canonical,
    definition::{Definition, Field, FieldIndex, FieldType, Kind, Required, Stage},
    json_schema,
    logic::{Findings, Rule, Surroundings, Types},
    pattern::MATCHING_BYTES,
    problem::{MAX_PROBLEMS, Problem},
};
use crate::error::Error;

/// A form that takes answers.
#[derive(Debug)]
pub struct CompiledForm {
    /// What it asks.
    pub definition: Definition,
    /// The rules of each field.
    pub rules: Vec<Rules>,
    /// The fields that are relevant under a condition or calculated, each after all that it depends on.
    pub order: Vec<FieldIndex>,
    /// The containers around each field, outermost first.
    pub containers: Vec<Vec<FieldIndex>>,
    /// Of the definition.
    bytes: u32,
}

/// The rules of one field.
#[derive(Debug, Default)]
pub struct Rules {
    /// Is it asked?
    pub relevant: Option<Rule>,
    /// Must it be answered?
    pub required: Option<Rule>,
    /// What is its value?
    pub calculate: Option<Rule>,
    /// Is its answer right? In the order of `Field::valid`.
    pub valid: Vec<Rule>,
}

impl CompiledForm {
    /// Reads, checks and compiles a definition that shall be published.
    ///
    /// # Errors
    /// Everything that is wrong with it: its shape, its patterns and its rules.
    pub fn compile(document: &Value) -> Result<Self, Vec<Problem>> {
        Draft::examine(document).form
    }

    fn build(document: &Value, stage: Stage) -> (Vec<FieldType>, Findings, Self) {
        let (definition, problems) = Definition::examine(document, stage);
        let types = definition.types();
        let mut form = Self {
            rules: definition.fields.iter().map(|_| Rules::default()).collect(),
            containers: vec![Vec::new(); definition.fields.len()],
            order: Vec::new(),
            bytes: u32::try_from(document.to_string().len()).unwrap_or(u32::MAX),
            definition,
        };
        let mut findings = Findings { problems, hints: Vec::new() };
        // Rules may well name fields that were not read.
        if !form.definition.is_cut {
            let top = form.definition.top.clone();
            let of_fields = Types::of_fields(&form.definition);
            form.compile_fields(&of_fields, &[], &top, stage, &mut findings);
            form.sort(&mut findings.problems);
        }
        (types, findings, form)
    }

    /// JSON Schema (draft 2020-12) of the answers.
    pub fn json_schema(&self) -> Value {
        json_schema::of(&self.definition)
    }

    fn compile_fields(
        &mut self,
        types: &[Types],
        around: &[FieldIndex],
        fields: &[FieldIndex],
        stage: Stage,
        findings: &mut Findings,
    ) {
        for index in fields.iter().copied() {
            self.rules[index] = self.compile_field(types, around, index, stage, findings);
            self.containers[index] = around.to_vec();
            let children = self.definition.fields[index].kind.children().to_vec();
            if !children.is_empty() {
                self.compile_fields(types, &[around, &[index]].concat(), &children, stage, findings);
            }
        }
    }

    fn compile_field(
        &self,
        types: &[Types],
        around: &[FieldIndex],
        index: FieldIndex,
        stage: Stage,
        findings: &mut Findings,
    ) -> Rules {
        let fields = &self.definition.fields;
        let field = &fields[index];
        let inside = around.iter().map(|container| fields[*container].kind.children());
        let scopes: Vec<&[FieldIndex]> = std::iter::once(&self.definition.top[..]).chain(inside).collect();
        let around = Surroundings { definition: &self.definition, types, scopes: &scopes };
        let mut compile = |rule: &Value, place: &str| {
            // What is not an object was refused when it was read.
            let is_rule = rule.is_object() || stage == Stage::Published;
            let pointer = format!("{}/{place}", field.pointer);
            is_rule.then(|| Rule::compile(around, rule, &pointer, stage, findings)).flatten()
        };
        Rules {
            relevant: field.relevant.as_ref().and_then(|rule| compile(rule, "relevant")),
            required: match &field.required {
                Required::When(rule) => compile(rule, "required"),
                Required::Yes | Required::No => None,
            },
            calculate: match &field.kind {
                Kind::Calculated(rule) => compile(rule, "calculate"),
                _ => None,
            },
            valid: {
                let valid = field.valid.iter().enumerate();
                valid.filter_map(|(at, valid)| compile(&valid.rule, &format!("valid/{at}/rule"))).collect()
            },
        }
    }

    /// Sets `Self::order`, and tells what depends on itself. A container is two steps: opened, when it is
    /// known whether it is relevant, and closed, when all in it is decided; a field inside waits for the
    /// first, a rule that reads it for the second.
    fn sort(&mut self, problems: &mut Vec<Problem>) {
        let fields = &self.definition.fields;
        let (opened, closed) = (|field: FieldIndex| 2 * field, |field: FieldIndex| 2 * field + 1);
        let mut needs: Vec<HashSet<usize>> = vec![HashSet::new(); 2 * fields.len()];
        for (index, rules) in self.rules.iter().enumerate() {
            needs[closed(index)].insert(opened(index));
            if let Some(container) = self.containers[index].last().copied() {
                needs[opened(index)].insert(opened(container));
                needs[closed(container)].insert(closed(index));
            }
            for rule in rules.relevant.iter().chain(&rules.calculate) {
                needs[opened(index)].extend(rule.reads().map(closed));
            }
        }
        let mut waiting: Vec<Vec<usize>> = vec![Vec::new(); needs.len()];
        for (step, needed) in needs.iter().enumerate() {
            for needed in needed {
                waiting[*needed].push(step);
            }
        }
        let mut left: Vec<usize> = needs.iter().map(HashSet::len).collect();
        let mut ready: BinaryHeap<_> = (0..left.len()).filter(|step| left[*step] == 0).map(Reverse).collect();
        let mut order = Vec::new();
        while let Some(Reverse(step)) = ready.pop() {
            if step % 2 == 0
                && (self.rules[step / 2].relevant.is_some() || self.rules[step / 2].calculate.is_some())
            {
                order.push(step / 2);
            }
            for next in &waiting[step] {
                left[*next] -= 1;
                if left[*next] == 0 {
                    ready.push(Reverse(*next));
                }
            }
        }
        self.order = order;
        self.push_cycles(&needs, &left, problems);
    }

    /// Follows what cannot be decided until it comes round, or to what was told before.
    fn push_cycles(&self, needs: &[HashSet<usize>], left: &[usize], problems: &mut Vec<Problem>) {
        let mut told: HashSet<usize> = HashSet::new();
        for stuck in (0..left.len()).filter(|step| left[*step] > 0) {
            let mut path: Vec<usize> = Vec::new();
            let mut step = stuck;
            while !told.contains(&step) {
                if let Some(start) = path.iter().position(|before| *before == step) {
                    problems.push(self.cycle(&path[start..]));
                    break;
                }
                path.push(step);
                let next = needs[step].iter().copied().filter(|step| left[*step] > 0).min();
                step = next.unwrap_or(stuck);
            }
            told.extend(path);
            if problems.len() >= MAX_PROBLEMS {
                break;
            }
        }
    }

    /// What the steps of a cycle say: `a → b → a`.
    fn cycle(&self, steps: &[usize]) -> Problem {
        let mut round: Vec<FieldIndex> = steps.iter().map(|step| step / 2).collect();
        round.dedup();
        // A field comes twice where the cycle goes through its beginning and its end.
        if round.len() > 1 && round.first() == round.last() {
            round.pop();
        }
        let fields = &self.definition.fields;
        let names: Vec<&str> = round.iter().chain(round.first()).map(|field| &*fields[*field].key).collect();
        let has_rule = |field: &FieldIndex| {
            self.rules[*field].relevant.is_some() || self.rules[*field].calculate.is_some()
        };
        let at = round.iter().copied().find(has_rule).unwrap_or(steps[0] / 2);
        let message = format!("This depends on itself: {}.", names.join(" → "));
        Problem::new(fields[at].pointer.clone(), "cycle", message)
    }
}

/// What was found out about a definition that shall be published.
#[derive(Debug)]
pub struct Draft {
    /// It as it is stored.
    pub document: Value,
    /// The type of each field, as far as there are such types.
    pub types: Vec<FieldType>,
    /// What can be published but means something else than most who write it think.
    pub hints: Vec<Problem>,
    /// The form, or everything that is wrong with it.
    pub form: Result<CompiledForm, Vec<Problem>>,
}

impl Draft {
    /// Looks at a definition.
    pub fn examine(document: &Value) -> Self {
        let document = canonical::with_tidy_choices(canonical::composed(document));
        let (types, findings, form) = CompiledForm::build(&document, Stage::Publication);
        let Findings { problems, hints } = findings;
        if !problems.is_empty() {
            return Self { document, types, hints, form: Err(problems) };
        }
        let portable = canonical::portable(document.clone());
        let form =
            if portable == document { form } else { CompiledForm::build(&portable, Stage::Published).2 };
        Self { document: portable, types, hints, form: Ok(form) }
    }
}

/// Compiled versions, by the hash of their definition: it says all there is to know, so nothing here is ever stale.
static COMPILED: LazyLock<Cache<String, Arc<CompiledForm>>> = LazyLock::new(|| {
    let weigher = |_: &String, form: &Arc<CompiledForm>| form.weight();
    Cache::builder().max_capacity(MAX_CACHED_BYTES).weigher(weigher).build()
});

/// Bytes that compiled forms may take, about.
const MAX_CACHED_BYTES: u64 = 128 * 1024 * 1024;
/// What a compiled form takes, as a multiple of its definition.
const COMPILED_BYTES: u32 = 8;

impl CompiledForm {
    fn weight(&self) -> u32 {
        let has_pattern = |field: &&Field| matches!(field.kind, Kind::Text { pattern: Some(_), .. });
        let patterns = self.definition.fields.iter().filter(has_pattern).count() * MATCHING_BYTES;
        self.bytes.saturating_mul(COMPILED_BYTES).saturating_add(u32::try_from(patterns).unwrap_or(u32::MAX))
    }

    /// The form with this hash, if it is kept.
    pub(crate) fn known(hash: &str) -> Option<Arc<Self>> {
        COMPILED.get(hash)
    }

    /// Compiles a published definition and keeps it.
    ///
    /// It may have been published by rules that are older than these. What is refused at publication today because it
    /// never says anything sensible (`logic::types`) is run as it is: it has the value that `json-logic-engine` gives
    /// it, and where it has none it does not hold. A definition that composing (NFC) would break, since two of its
    /// choices are one text, is taken as it was written.
    ///
    /// # Errors
    /// It cannot be run at all: it names what there is not.
    pub(crate) async fn of_version(hash: String, definition: Value) -> Result<Arc<Self>, Error> {
        let compile = move || Self::published(&definition);
        let compiled = tokio::task::spawn_blocking(compile).await.expect("compiling does not panic");
        let older =
            |_| Error::Refused("This version takes no answers any more: publish the form again.".to_owned());
        let form = Arc::new(compiled.map_err(older)?);
        COMPILED.insert(hash, Arc::clone(&form));
        Ok(form)
    }

    /// The form of a definition that was published before.
    pub(super) fn published(definition: &Value) -> Result<Self, Vec<Problem>> {
        let build = |document: &Value| {
            let (_, findings, form) = Self::build(document, Stage::Published);
            if findings.problems.is_empty() { Ok(form) } else { Err(findings.problems) }
        };
        build(&canonical::composed(definition)).or_else(|_| build(definition))
    }
}

/// SHA-256 over a document's canonical form (RFC 8785), hexadecimal.
pub fn hash(document: &Value) -> String {
    let canonical = serde_json_canonicalizer::to_vec(document).expect("a JSON value has a canonical form");
    hex::encode(digest(&SHA256, &canonical))
}

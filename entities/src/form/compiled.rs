//! A published version, ready to take answers: its definition, its rules compiled, and the order in which relevance and
//! calculations can be decided. It exists only for definitions whose rules refer to fields that there are and depend on
//! nothing that depends on them. Not here: what is done with answers (`submission::pipeline`).

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
    sync::{Arc, LazyLock},
};

use moka::sync::Cache;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    definition::{Definition, Field, FieldIndex, Kind, Required},
    json_schema,
    logic::Rule,
    pattern::MATCHING_BYTES,
    problem::Problem,
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
    /// Reads, checks and compiles a definition.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn compile(document: &Value) -> Result<Self, Vec<Problem>> {
        let definition = Definition::parse(document)?;
        let mut form = Self {
            rules: definition.fields.iter().map(|_| Rules::default()).collect(),
            containers: vec![Vec::new(); definition.fields.len()],
            order: Vec::new(),
            bytes: u32::try_from(document.to_string().len()).unwrap_or(u32::MAX),
            definition,
        };
        let mut problems = Vec::new();
        let top = form.definition.top.clone();
        form.compile_fields(&[], &top, &mut problems);
        if problems.is_empty() {
            form.order = form.sort().map_err(|problem| vec![problem])?;
            Ok(form)
        } else {
            Err(problems)
        }
    }

    /// JSON Schema (draft 2020-12) of the answers.
    pub fn json_schema(&self) -> Value {
        json_schema::of(&self.definition)
    }

    fn compile_fields(&mut self, around: &[FieldIndex], fields: &[FieldIndex], problems: &mut Vec<Problem>) {
        for index in fields.iter().copied() {
            self.rules[index] = self.compile_field(around, index, problems);
            self.containers[index] = around.to_vec();
            let children = self.definition.fields[index].kind.children().to_vec();
            if !children.is_empty() {
                self.compile_fields(&[around, &[index]].concat(), &children, problems);
            }
        }
    }

    fn compile_field(&self, around: &[FieldIndex], index: FieldIndex, problems: &mut Vec<Problem>) -> Rules {
        let fields = &self.definition.fields;
        let field = &fields[index];
        let inside = around.iter().map(|container| fields[*container].kind.children());
        let scopes: Vec<&[FieldIndex]> = std::iter::once(&self.definition.top[..]).chain(inside).collect();
        let mut compile = |rule: &Value, place: &str| {
            Rule::compile(&self.definition, &scopes, rule, &format!("{}/{place}", field.pointer), problems)
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

    /// The order of `Self::order`. A container is two steps: opened, when it is known whether it is relevant, and
    /// closed, when all in it is decided; a field inside waits for the first, a rule that reads it for the second.
    fn sort(&self) -> Result<Vec<FieldIndex>, Problem> {
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
        match (0..left.len()).find(|step| left[*step] > 0) {
            None => Ok(order),
            Some(stuck) => Err(self.cycle(stuck, &needs, &left)),
        }
    }

    /// Follows what cannot be decided until it comes round.
    fn cycle(&self, stuck: usize, needs: &[HashSet<usize>], left: &[usize]) -> Problem {
        let mut path = vec![stuck];
        loop {
            let last = path[path.len() - 1];
            let next = needs[last].iter().copied().filter(|step| left[*step] > 0).min().unwrap_or(stuck);
            if let Some(start) = path.iter().position(|step| *step == next) {
                let mut round: Vec<FieldIndex> = path[start..].iter().map(|step| step / 2).collect();
                round.dedup();
                let fields = &self.definition.fields;
                let names: Vec<&str> =
                    round.iter().chain(round.first()).map(|field| &*fields[*field].key).collect();
                let has_rule = |field: &&FieldIndex| {
                    self.rules[**field].relevant.is_some() || self.rules[**field].calculate.is_some()
                };
                let at = round.iter().find(has_rule).copied().unwrap_or(stuck / 2);
                let message = format!("This depends on itself: {}.", names.join(" → "));
                return Problem::new(fields[at].pointer.clone(), "cycle", message);
            }
            path.push(next);
        }
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
    /// # Errors
    /// It was published by rules that are older than these.
    pub(crate) async fn of_version(hash: String, definition: Value) -> Result<Arc<Self>, Error> {
        let compile = move || Self::compile(&definition);
        let compiled = tokio::task::spawn_blocking(compile).await.expect("compiling does not panic");
        let older =
            |_| Error::Refused("This version takes no answers any more: publish the form again.".to_owned());
        let form = Arc::new(compiled.map_err(older)?);
        COMPILED.insert(hash, Arc::clone(&form));
        Ok(form)
    }
}

/// SHA-256 over a document's canonical form (RFC 8785), hexadecimal.
pub fn hash(document: &Value) -> String {
    let canonical = serde_json_canonicalizer::to_vec(document).expect("a JSON value has a canonical form");
    Sha256::digest(canonical).iter().fold(String::with_capacity(64), |mut hex, byte| {
        for digit in [byte >> 4, byte & 15] {
            hex.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
        hex
    })
}

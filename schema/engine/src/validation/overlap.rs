//! Fields with one response key can be merged (section 5.3.2). Not each field is compared with each other:
//! the fields of a set are grouped by response key, those of a group are compared with the first of them, and
//! the selection sets of a group are one set again. That is done twice: for the shape of the answer, in which
//! all fields of a group must agree, and for the fields that may stand in one object, which must be the same
//! field with the same arguments. A set of selection sets is looked at once, however often it comes up; a
//! bound on the fields that are looked at ends what is still too much.

use std::fmt::Write as _;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    MOST_ERRORS, Problem, Validator,
    types::{Type, TypeId},
};
use crate::{
    error::Code,
    limits::echo,
    syntax::{IndexRange, SelectionKind, ValueKind},
};

/// Fields that are looked at for one document. A document within the limits that means no harm needs twice
/// its selections.
const MOST_LOOKS: usize = 100_000;

/// What fields of one response key must agree in.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Rule {
    Shape,
    Field,
}

/// Selection sets that are one, by where each begins.
type Sets = Vec<(u32, u32)>;

struct Overlap<'v, 't, 'd> {
    validator: &'v Validator<'t, 'd>,
    seen: FxHashSet<(Rule, Sets)>,
    /// For each definition: whether its fragment is in what is being collected.
    is_followed: Vec<bool>,
    /// The arguments of fields, in one spelling.
    arguments: FxHashMap<u32, String>,
    looks: usize,
    problems: Vec<Problem>,
}

impl Validator<'_, '_> {
    pub(super) fn overlaps(&mut self) {
        let mut overlap = Overlap {
            validator: self,
            seen: FxHashSet::default(),
            is_followed: vec![false; self.tree.definitions.len()],
            arguments: FxHashMap::default(),
            looks: 0,
            problems: Vec::new(),
        };
        // The sets of fragments are looked at where they are spread.
        for definition in self.tree.definitions.iter().filter(|definition| definition.kind.is_some()) {
            let IndexRange { start, end } = definition.selections;
            for rule in [Rule::Field, Rule::Shape] {
                overlap.check(rule, vec![(start, end)]);
            }
        }
        let mut problems = overlap.problems;
        problems.truncate(MOST_ERRORS.saturating_sub(self.problems.len()));
        self.problems.append(&mut problems);
    }
}

impl<'d> Overlap<'_, '_, 'd> {
    /// Whether there is nothing more to find.
    fn is_over(&self) -> bool {
        self.problems.len() >= MOST_ERRORS || self.looks > MOST_LOOKS
    }

    /// Checks a set, and all below it.
    fn check(&mut self, rule: Rule, mut sets: Sets) {
        sets.sort_unstable();
        sets.dedup();
        if sets.is_empty() || self.is_over() {
            return;
        }
        if !self.seen.insert((rule, sets.clone())) {
            return;
        }
        let mut fields = Vec::new();
        for (start, end) in sets {
            self.collect(start..end, &mut fields);
        }
        self.is_followed.fill(false);
        self.looks += fields.len();
        if self.looks > MOST_LOOKS {
            let message = "The document has too many fields that share a response key to compare them.";
            let problem = Problem { code: Code::CostLimit, message: message.to_owned(), places: Vec::new() };
            return self.problems.push(problem);
        }
        for group in self.by_key(fields) {
            match rule {
                Rule::Shape => self.check_shape(&group),
                Rule::Field => self.check_fields(&group),
            }
        }
    }

    /// The fields of a selection set, through its fragments.
    fn collect(&mut self, span: IndexRange, fields: &mut Vec<u32>) {
        let tree = self.validator.tree;
        for (place, selection) in tree.selections(span) {
            match selection.kind {
                SelectionKind::Field => fields.push(place),
                SelectionKind::Inline => self.collect(tree.inside(place), fields),
                SelectionKind::Spread => {
                    let Some(&index) = self.validator.fragments.get(selection.name.text) else { continue };
                    if !std::mem::replace(&mut self.is_followed[index], true) {
                        self.collect(tree.definitions[index].selections.clone(), fields);
                    }
                }
            }
        }
    }

    fn key(&self, field: u32) -> &'d str {
        self.validator.tree.selections[field as usize].response_key()
    }

    fn by_key(&self, fields: Vec<u32>) -> Vec<Vec<u32>> {
        let mut groups: Vec<Vec<u32>> = Vec::with_capacity(fields.len());
        let mut known: FxHashMap<&str, usize> = FxHashMap::default();
        for field in fields {
            let group = *known.entry(self.key(field)).or_insert(groups.len());
            match groups.get_mut(group) {
                Some(group) => group.push(field),
                None => groups.push(vec![field]),
            }
        }
        groups
    }

    /// The selection sets of fields.
    fn sets(&self, fields: &[u32]) -> Sets {
        let tree = self.validator.tree;
        let with_set = fields.iter().filter(|&&field| tree.selections[field as usize].set_at.is_some());
        with_set.map(|&field| tree.inside(field)).map(|IndexRange { start, end }| (start, end)).collect()
    }

    fn check_shape(&mut self, group: &[u32]) {
        let mut first: Option<(u32, Type)> = None;
        for &field in group {
            // The library of reference leaves out `__typename` and its like here, and so do documents of clients.
            let known = self.validator.fields[field as usize].filter(|known| !known.is_meta);
            let Some(ty) = known.map(|known| known.ty) else { continue };
            match first {
                None => first = Some((field, ty)),
                Some((first, known)) if !self.is_one_shape(known, ty) => {
                    let (one, other) = (self.validator.print(known), self.validator.print(ty));
                    let why = format!("they return conflicting types \"{one}\" and \"{other}\"");
                    return self.conflict(first, field, &why);
                }
                Some(_) => {}
            }
        }
        self.check(Rule::Shape, self.sets(group));
    }

    fn is_one_shape(&self, one: Type, other: Type) -> bool {
        if (one.lists, one.non_null) != (other.lists, other.non_null) {
            return false;
        }
        let is_leaf = |ty: TypeId| self.validator.is_leaf(ty);
        one.name == other.name || !is_leaf(one.name) && !is_leaf(other.name)
    }

    fn check_fields(&mut self, group: &[u32]) {
        let parent = |field: u32| self.validator.parents[field as usize];
        let object = |field: u32| parent(field).filter(|ty| self.validator.types.is_object(*ty));
        let is_one = group.iter().all(|&field| parent(field) == parent(group[0]));
        if is_one || group.iter().all(|&field| object(field).is_none()) {
            return self.check_common(group);
        }
        // Fields of different objects never meet; those of interfaces meet all.
        let mut objects: Vec<TypeId> = group.iter().filter_map(|&field| object(field)).collect();
        objects.sort_unstable();
        objects.dedup();
        for ty in objects {
            let meet = group.iter().copied().filter(|&field| object(field).is_none_or(|of| of == ty));
            let meet: Vec<u32> = meet.collect();
            self.looks += group.len();
            self.check_common(&meet);
            if self.is_over() {
                return;
            }
        }
    }

    /// Fields that may stand in one object.
    fn check_common(&mut self, group: &[u32]) {
        let tree = self.validator.tree;
        let (first, others) = (group[0], &group[1..]);
        let of_first = &tree.selections[first as usize];
        for &field in others {
            let of_field = &tree.selections[field as usize];
            let (one, other) = (of_first.name.text, of_field.name.text);
            if one != other {
                let why = format!("\"{}\" and \"{}\" are different fields", echo(one), echo(other));
                return self.conflict(first, field, &why);
            }
            let (one, other) = (of_first.arguments.len(), of_field.arguments.len());
            if one != other || one > 0 && self.spelt(first) != self.spelt(field) {
                return self.conflict(first, field, "they have differing arguments");
            }
        }
        self.check(Rule::Field, self.sets(group));
    }

    fn conflict(&mut self, one: u32, other: u32, why: &str) {
        let at = |field: u32| self.validator.tree.selections[field as usize].at;
        let message = format!(
            "Fields \"{}\" conflict because {why}. \
             Use different aliases on the fields to fetch both if this was intentional.",
            echo(self.key(one))
        );
        let places = vec![at(one), at(other)];
        if !self.problems.iter().any(|problem| problem.places == places) {
            self.problems.push(Problem { code: Code::ValidationFailed, message, places });
        }
    }

    /// The arguments of a field in one spelling, in which their order does not matter.
    fn spelt(&mut self, field: u32) -> String {
        if let Some(known) = self.arguments.get(&field) {
            return known.clone();
        }
        let tree = self.validator.tree;
        let mut arguments: Vec<_> =
            tree.arguments(&tree.selections[field as usize].arguments).iter().collect();
        arguments.sort_by_key(|argument| argument.name.text);
        let mut text = String::new();
        for argument in arguments {
            let _ = write!(text, "{}:", argument.name.text);
            self.spell(argument.value, &mut text);
        }
        self.arguments.insert(field, text.clone());
        text
    }

    fn spell(&self, place: u32, text: &mut String) {
        let tree = self.validator.tree;
        let value = tree.value(place);
        match value.kind {
            ValueKind::List => {
                text.push('[');
                tree.held(place).for_each(|(place, _)| self.spell(place, text));
                text.push(']');
            }
            ValueKind::Object => {
                let mut fields: Vec<_> =
                    tree.held(place).filter_map(|(place, value)| Some((value.field?.text, place))).collect();
                fields.sort_unstable();
                text.push('{');
                for (name, place) in fields {
                    let _ = write!(text, "{name}:");
                    self.spell(place, text);
                }
                text.push('}');
            }
            kind @ (ValueKind::String | ValueKind::BlockString) => {
                let meant = if kind == ValueKind::String {
                    crate::syntax::text::of_string(value.text)
                } else {
                    crate::syntax::text::of_block_string(value.text).into()
                };
                let _ = write!(text, "{kind:?}{meant:?},");
            }
            kind => {
                let _ = write!(text, "{kind:?} {},", value.text);
            }
        }
    }
}

//! What holds for an operation with all its fragments: variables are defined, used and fit their places
//! (section 5.8), and a subscription has one field at its root (section 5.2.4.1).

use rustc_hash::FxHashMap;

use super::{
    Usage, Validator,
    types::{Type, TypeId},
};
use crate::{
    limits::{OperationKind, echo},
    syntax::{DefinitionNode, IndexRange, SelectionKind, ValueKind, Variable, Wrapped},
};

/// The root of a subscription.
#[derive(Default)]
struct Root<'d> {
    /// Its response keys, each with the name and the places of its fields.
    fields: Vec<(&'d str, &'d str, u32)>,
    /// `@skip` and `@include`.
    conditions: Vec<u32>,
    /// Fragments that were followed.
    followed: Vec<usize>,
}

impl<'d> Validator<'_, 'd> {
    pub(super) fn operations(&mut self) {
        let tree = self.tree;
        for (index, definition) in tree.definitions.iter().enumerate() {
            if definition.kind.is_none() {
                continue;
            }
            self.variables_of(index, definition);
            if definition.kind == Some(OperationKind::Subscription)
                && let Some(root) = self.types.root(OperationKind::Subscription)
            {
                self.one_root_field(definition, root);
            }
        }
    }

    /// A definition and the fragments that it spreads, also through others.
    pub(super) fn reached(&self, index: usize) -> Vec<usize> {
        if self.found[index].spreads.is_empty() {
            return vec![index];
        }
        let mut is_reached = vec![false; self.found.len()];
        is_reached[index] = true;
        let mut reached = vec![index];
        let mut next = 0;
        while let Some(&definition) = reached.get(next) {
            next += 1;
            for &fragment in &self.found[definition].spreads {
                if !std::mem::replace(&mut is_reached[fragment], true) {
                    reached.push(fragment);
                }
            }
        }
        reached
    }

    fn variables_of(&mut self, index: usize, operation: &DefinitionNode<'d>) {
        let variables = self.tree.variables(&operation.variables);
        // Where a name stands twice the last counts.
        let defined: FxHashMap<&str, usize> =
            variables.iter().enumerate().map(|(index, variable)| (variable.name, index)).collect();
        let of_operation = operation.name.map(|name| format!("operation \"{}\"", echo(name.text)));
        let mut is_used = vec![false; variables.len()];
        for definition in self.reached(index) {
            for usage in self.found[definition].usages.clone() {
                let Usage { name, at, .. } = self.usages[usage];
                if let Some(&index) = defined.get(name) {
                    is_used[index] = true;
                    self.check_usage(&variables[index], usage);
                    continue;
                }
                let by = of_operation.as_ref().map_or(String::new(), |of| format!(" by {of}"));
                self.report(&[at, operation.at], |_| {
                    format!("Variable \"${}\" is not defined{by}.", echo(name))
                });
            }
        }
        for (index, variable) in variables.iter().enumerate() {
            if is_used[index] || defined.get(variable.name) != Some(&index) {
                continue;
            }
            let of = of_operation.as_ref().map_or(String::new(), |of| format!(" in {of}"));
            self.report(&[variable.at], |_| {
                format!("Variable \"${}\" is never used{of}.", echo(variable.name))
            });
        }
    }

    /// A variable fits the place where it is used (section 5.8.5).
    fn check_usage(&mut self, variable: &Variable<'d>, usage: usize) {
        let Usage { at, ty: wanted, has_default, one_of, .. } = self.usages[usage];
        let Some(name) = self.types.find(variable.ty.name.text) else { return };
        let Wrapped { lists, non_null, .. } = variable.ty;
        let ty = Wrapped { name, lists, non_null };
        if let Some(wanted) = wanted {
            let default = variable.default.map(|default| self.tree.value(default).kind);
            let is_given = default.is_some_and(|kind| kind != ValueKind::Null) || has_default;
            let place = if wanted.is_non_null() && !ty.is_non_null() && is_given {
                wanted.nullable()
            } else {
                wanted
            };
            if !is_subtype(ty, place) {
                self.report(&[variable.at, at], |this| {
                    let (name, ty, wanted) = (echo(variable.name), this.print(ty), this.print(wanted));
                    format!(
                        "Variable \"${name}\" of type \"{ty}\" used in position expecting type \"{wanted}\"."
                    )
                });
            }
        }
        if let Some(input) = one_of
            && !ty.is_non_null()
        {
            self.report(&[variable.at, at], |this| {
                let (name, ty, input) = (echo(variable.name), this.print(ty), this.name(input));
                format!(
                    "Variable \"${name}\" is of type \"{ty}\" but must be non-nullable \
                     to be used for OneOf Input Object \"{input}\"."
                )
            });
        }
    }

    fn one_root_field(&mut self, operation: &DefinitionNode<'d>, root: TypeId) {
        let mut found = Root::default();
        self.collect_root(operation.selections.clone(), root, &mut found);
        let name = operation.name.map_or_else(
            || "Anonymous Subscription".to_owned(),
            |name| format!("Subscription \"{}\"", echo(name.text)),
        );
        if !found.conditions.is_empty() {
            return self.report(&found.conditions, |_| {
                format!("{name} must not use `@skip` or `@include` directives in the top level selection.")
            });
        }
        let Some(&(key, ..)) = found.fields.first() else {
            return self.report(&[operation.set_at], |_| format!("{name} must select one top level field."));
        };
        let others: Vec<u32> =
            found.fields.iter().filter(|(of, ..)| *of != key).map(|(_, _, at)| *at).collect();
        if !others.is_empty() {
            self.report(&others, |_| format!("{name} must select only one top level field."));
        }
        let meta: Vec<u32> =
            found.fields.iter().filter(|(_, name, _)| name.starts_with("__")).map(|(_, _, at)| *at).collect();
        if !meta.is_empty() {
            self.report(&meta, |_| format!("{name} must not select an introspection top level field."));
        }
    }

    fn collect_root(&self, span: IndexRange, root: TypeId, found: &mut Root<'d>) {
        let tree = self.tree;
        for (place, selection) in tree.selections(span) {
            let mut conditions = tree.directives(&selection.directives).iter();
            if let Some(condition) = conditions.find(|of| matches!(of.name.text, "skip" | "include")) {
                found.conditions.push(condition.at);
                continue;
            }
            let applies = |name: &str| self.types.find(name).is_some_and(|ty| self.types.is_of(root, ty));
            match selection.kind {
                SelectionKind::Field => {
                    found.fields.push((selection.response_key(), selection.name.text, selection.at));
                }
                SelectionKind::Inline => {
                    if selection.condition.is_none_or(|condition| applies(condition.ty.text)) {
                        self.collect_root(tree.inside(place), root, found);
                    }
                }
                SelectionKind::Spread => {
                    let Some(&index) = self.fragments.get(selection.name.text) else { continue };
                    let fragment = &tree.definitions[index];
                    if fragment.condition.is_some_and(|condition| applies(condition.ty.text))
                        && !found.followed.contains(&index)
                    {
                        found.followed.push(index);
                        self.collect_root(fragment.selections.clone(), root, found);
                    }
                }
            }
        }
    }
}

/// Whether every value of an input type is one of another.
fn is_subtype(ty: Type, of: Type) -> bool {
    if of.is_non_null() && !ty.is_non_null() {
        return false;
    }
    match (ty.item(), of.item()) {
        (Some(ty), Some(of)) => is_subtype(ty, of),
        (None, None) => ty.name == of.name,
        _ => false,
    }
}

//! The walk over definitions and their selections: names of operations and fragments, fields on their types, leaves,
//! type conditions, spreads that are possible (sections 5.2, 5.3.1, 5.3.3 and 5.5.1, 5.5.2).

use async_graphql::parser::types::DirectiveLocation;

use super::{
    Found, Validator,
    directives::location_of,
    only_one, repeated,
    types::{SchemaTypeKind, TypeId},
    values::Position,
};
use crate::{
    limits::{OperationKind, echo},
    syntax::{DefinitionNode, IndexRange, Named, SelectionKind, SelectionNode, Variable, Wrapped},
};

impl<'d> Validator<'_, 'd> {
    /// Walks over all definitions.
    pub(super) fn definitions(&mut self) {
        let tree = self.tree;
        for definition in &tree.definitions {
            let first = self.usages.len();
            self.found.push(Found::default());
            let ty = match definition.kind {
                Some(kind) => self.operation(definition, kind),
                None => self.fragment(definition),
            };
            self.selections(definition.selections.clone(), ty);
            if let Some(found) = self.found.last_mut() {
                found.usages = first..self.usages.len();
            }
        }
        for (is_operation, what) in [(true, "operation"), (false, "fragment")] {
            let names =
                tree.definitions.iter().filter(|definition| definition.kind.is_some() == is_operation);
            let names: Vec<_> = names.filter_map(|of| of.name.map(|name| (name.text, name.at))).collect();
            for (name, places) in repeated(names.into_iter()) {
                self.report(&places, |_| only_one(what, name));
            }
        }
        let operations = tree.definitions.iter().filter(|definition| definition.kind.is_some());
        if operations.clone().count() > 1 {
            for unnamed in operations.filter(|operation| operation.name.is_none()) {
                self.report(&[unnamed.at], |_| {
                    "This anonymous operation must be the only defined operation.".to_owned()
                });
            }
        }
    }

    fn operation(&mut self, definition: &DefinitionNode<'d>, kind: OperationKind) -> Option<TypeId> {
        let root = self.types.root(kind);
        if root.is_none() {
            self.report(&[definition.at], |_| {
                let kind = match kind {
                    OperationKind::Query => "query",
                    OperationKind::Mutation => "mutation",
                    OperationKind::Subscription => "subscription",
                };
                format!("The {kind} operation is not supported by the schema.")
            });
        }
        let variables = self.tree.variables(&definition.variables);
        for variable in variables {
            self.variable(variable);
        }
        for (name, places) in repeated(variables.iter().map(|variable| (variable.name, variable.at))) {
            self.report(&places, |_| only_one("variable", &format!("${name}")));
        }
        self.directives(&definition.directives, location_of(kind));
        root
    }

    fn variable(&mut self, variable: &Variable<'d>) {
        let ty = self.type_named(variable.ty.name);
        if let Some(ty) = ty
            && !self.types.is_input(ty)
        {
            self.report(&[variable.ty_at], |this| {
                let (name, ty) = (echo(variable.name), variable.ty.print(this.name(ty)));
                format!("Variable \"${name}\" cannot be non-input type \"{ty}\".")
            });
        }
        self.directives(&variable.directives, DirectiveLocation::VariableDefinition);
        if let Some(default) = variable.default {
            let ty = ty.filter(|ty| self.types.is_input(*ty));
            let Wrapped { lists, non_null, .. } = variable.ty;
            self.value(default, Position::of(ty.map(|name| Wrapped { name, lists, non_null })));
        }
    }

    fn fragment(&mut self, definition: &DefinitionNode<'d>) -> Option<TypeId> {
        let condition = definition.condition?.ty;
        let ty = self.type_named(condition);
        self.directives(&definition.directives, DirectiveLocation::FragmentDefinition);
        let ty = ty?;
        if !self.types.is_composite(ty) {
            let name = definition.name.map_or("", |name| name.text);
            self.report(&[condition.at], |this| {
                let (name, ty) = (echo(name), this.name(ty));
                format!("Fragment \"{name}\" cannot condition on non composite type \"{ty}\".")
            });
            return None;
        }
        Some(ty)
    }

    /// The type of a name, which has to exist.
    fn type_named(&mut self, name: Named<'d>) -> Option<TypeId> {
        let ty = self.types.find(name.text);
        if ty.is_none() {
            self.report(&[name.at], |this| {
                let hint = this.suggest(name.text, this.types.names());
                format!("Unknown type \"{}\".{hint}", echo(name.text))
            });
        }
        ty
    }

    fn selections(&mut self, span: IndexRange, parent: Option<TypeId>) {
        let tree = self.tree;
        for (place, selection) in tree.selections(span) {
            self.parents[place as usize] = parent;
            match selection.kind {
                SelectionKind::Field => self.field(place, selection, parent),
                SelectionKind::Spread => self.spread(selection, parent),
                SelectionKind::Inline => {
                    let inside = self.inline_fragment(selection, parent);
                    self.selections(tree.inside(place), inside);
                }
            }
        }
    }

    fn field(&mut self, place: u32, selection: &SelectionNode<'d>, parent: Option<TypeId>) {
        let name = selection.name.text;
        let types = self.types;
        let field = parent.and_then(|parent| types.field(parent, name));
        if let (Some(parent), None) = (parent, field) {
            self.report(&[selection.at], |this| {
                let hint = this.suggest(name, types.field_names(parent));
                let (name, ty) = (echo(name), types.name(parent));
                format!("Cannot query field \"{name}\" on type \"{ty}\".{hint}")
            });
        }
        self.fields[place as usize] = field;
        self.field_arguments(place, field);
        self.directives(&selection.directives, DirectiveLocation::Field);
        let mut inside = None;
        if let Some(field) = field {
            let is_composite = types.is_composite(field.ty.name);
            inside = is_composite.then_some(field.ty.name);
            let message = match (is_composite, selection.set_at) {
                (true, None) => "must have a selection of subfields.",
                (false, Some(_)) => "must not have a selection since its type has no subfields.",
                _ => "",
            };
            if !message.is_empty() {
                self.report(&[selection.set_at.unwrap_or(selection.at)], |this| {
                    format!("Field \"{}\" of type \"{}\" {message}", echo(name), this.print(field.ty))
                });
            }
        }
        if selection.set_at.is_some() {
            self.selections(self.tree.inside(place), inside);
        }
    }

    fn spread(&mut self, selection: &SelectionNode<'d>, parent: Option<TypeId>) {
        self.directives(&selection.directives, DirectiveLocation::FragmentSpread);
        let name = selection.name;
        let Some(&index) = self.fragments.get(name.text) else {
            self.report(&[name.at], |this| {
                let hint = this.suggest(name.text, this.fragments.keys().copied());
                format!("Unknown fragment \"{}\".{hint}", echo(name.text))
            });
            return;
        };
        if let Some(found) = self.found.last_mut() {
            found.spreads.push(index);
        }
        let condition = self.tree.definitions[index].condition;
        let ty = condition.and_then(|condition| self.types.find(condition.ty.text));
        let what = || format!("Fragment \"{}\"", echo(name.text));
        self.possible(selection.at, parent, ty, what);
    }

    fn inline_fragment(&mut self, selection: &SelectionNode<'d>, parent: Option<TypeId>) -> Option<TypeId> {
        self.directives(&selection.directives, DirectiveLocation::InlineFragment);
        let Some(condition) = selection.condition else { return parent };
        let ty = self.type_named(condition.ty)?;
        if !self.types.is_composite(ty) {
            self.report(&[condition.ty.at], |this| {
                format!("Fragment cannot condition on non composite type \"{}\".", this.name(ty))
            });
            return None;
        }
        self.possible(selection.at, parent, Some(ty), || "Fragment".to_owned());
        Some(ty)
    }

    /// A fragment can apply where it is spread.
    fn possible(&mut self, at: u32, parent: Option<TypeId>, ty: Option<TypeId>, what: impl Fn() -> String) {
        let (Some(parent), Some(ty)) = (parent, ty.filter(|ty| self.types.is_composite(*ty))) else { return };
        if self.types.overlap(parent, ty) {
            return;
        }
        self.report(&[at], |this| {
            let (what, parent, ty) = (what(), this.name(parent), this.name(ty));
            format!(
                "{what} cannot be spread here as objects of type \"{parent}\" can never be of type \"{ty}\"."
            )
        });
    }

    /// Whether a type has fields of its own that documents can ask for.
    pub(super) fn is_leaf(&self, ty: TypeId) -> bool {
        matches!(self.types.kind(ty), SchemaTypeKind::Scalar(_) | SchemaTypeKind::Enum(_))
    }
}

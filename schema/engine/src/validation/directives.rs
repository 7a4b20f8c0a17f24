//! Directives and arguments: that they exist, stand where they may, once, and with what they need (sections
//! 5.4 and 5.7).

use async_graphql::parser::types::DirectiveLocation;

use super::{
    Validator, only_one, repeated,
    types::{SchemaArgument, SchemaField},
    values::Position,
};
use crate::{
    limits::{OperationKind, echo},
    syntax::IndexRange,
};

impl<'t> Validator<'t, '_> {
    /// The directives of one place.
    pub(super) fn directives(&mut self, span: &IndexRange, location: DirectiveLocation) {
        let (tree, types) = (self.tree, self.types);
        let directives = tree.directives(span);
        for directive in directives {
            let name = directive.name.text;
            let known = types.directive(name);
            match known {
                None => self.report(&[directive.at], |_| format!("Unknown directive \"@{}\".", echo(name))),
                Some(known) if !known.locations.contains(&location) => {
                    self.report(&[directive.at], |_| {
                        format!("Directive \"@{name}\" may not be used on {}.", spelt(location))
                    });
                }
                Some(_) => {}
            }
            let arguments = known.map(|known| known.arguments.as_slice());
            self.arguments(&directive.arguments, arguments, directive.at, |_, argument| match argument {
                Some(argument) => format!("@{name}({argument}:)"),
                None => format!("directive \"@{}\"", echo(name)),
            });
        }
        if directives.len() > 1 {
            let names: Vec<_> = directives.iter().map(|of| (of.name.text, of.at)).collect();
            for (name, places) in repeated(names.into_iter()) {
                if types.directive(name).is_some_and(|directive| !directive.is_repeatable) {
                    self.report(&places, |_| {
                        format!("The directive \"@{name}\" can only be used once at this location.")
                    });
                }
            }
        }
    }

    /// The arguments of a field.
    pub(super) fn field_arguments(&mut self, place: u32, field: Option<&'t SchemaField>) {
        let tree = self.tree;
        let selection = &tree.selections[place as usize];
        let (parent, name) = (self.parents[place as usize], selection.name.text);
        let known = field.map(|field| field.arguments.as_slice());
        self.arguments(&selection.arguments, known, selection.at, |this, argument| {
            let of = parent.map_or("", |parent| this.name(parent));
            match argument {
                Some(argument) => format!("{of}.{name}({argument}:)"),
                None => format!("field \"{of}.{}\"", echo(name)),
            }
        });
    }

    /// Arguments of something that has `known` ones; none: of something unknown. `of` says what it is, or names one of
    /// its arguments.
    fn arguments(
        &mut self,
        span: &IndexRange,
        known: Option<&'t [SchemaArgument]>,
        at: u32,
        of: impl Fn(&Self, Option<&str>) -> String,
    ) {
        let tree = self.tree;
        let given = tree.arguments(span);
        for argument in given {
            let name = argument.name.text;
            let found = known.and_then(|known| known.iter().find(|known| known.name == *name));
            if let (Some(known), None) = (known, found) {
                self.report(&[argument.name.at], |this| {
                    let hint = this.suggest(name, known.iter().map(|known| known.name.as_str()));
                    format!("Unknown argument \"{}\" on {}.{hint}", echo(name), of(this, None))
                });
            }
            let has_default = found.is_some_and(|found| found.has_default);
            self.value(
                argument.value,
                Position { ty: found.map(|found| found.ty), has_default, one_of: None },
            );
        }
        for (name, places) in repeated(given.iter().map(|argument| (argument.name.text, argument.name.at))) {
            self.report(&places, |_| only_one("argument", name));
        }
        for argument in known.into_iter().flatten().filter(|argument| argument.is_required()) {
            if !given.iter().any(|given| given.name.text == argument.name.as_str()) {
                self.report(&[at], |this| {
                    let (of, ty) = (of(this, Some(&argument.name)), this.print(argument.ty));
                    format!("Argument \"{of}\" of type \"{ty}\" is required, but it was not provided.")
                });
            }
        }
    }
}

/// Where the directives of an operation stand.
pub(super) fn location_of(kind: OperationKind) -> DirectiveLocation {
    match kind {
        OperationKind::Query => DirectiveLocation::Query,
        OperationKind::Mutation => DirectiveLocation::Mutation,
        OperationKind::Subscription => DirectiveLocation::Subscription,
    }
}

/// The places in documents, as schemas spell them.
fn spelt(location: DirectiveLocation) -> &'static str {
    match location {
        DirectiveLocation::Query => "QUERY",
        DirectiveLocation::Mutation => "MUTATION",
        DirectiveLocation::Subscription => "SUBSCRIPTION",
        DirectiveLocation::Field => "FIELD",
        DirectiveLocation::FragmentDefinition => "FRAGMENT_DEFINITION",
        DirectiveLocation::FragmentSpread => "FRAGMENT_SPREAD",
        DirectiveLocation::InlineFragment => "INLINE_FRAGMENT",
        DirectiveLocation::VariableDefinition => "VARIABLE_DEFINITION",
        _ => "a definition of the schema",
    }
}

//! Literals: values of correct type, input fields that exist, are required, stand once or are one of (sections 5.6.1 to
//! 5.6.5), and where variables are used in them.

use super::{
    Usage, Validator, only_one, repeated,
    types::{Input, Scalar, SchemaTypeKind, Type, TypeId},
};
use crate::{
    limits::echo,
    scalar::DateTime,
    syntax::{SyntaxTree, Value, ValueKind, text},
};
use async_graphql::{ScalarType as _, Value as LibraryValue};

/// What a value's place is.
#[derive(Clone, Copy, Default)]
pub(super) struct Position {
    /// None: unknown, or any.
    pub(super) ty: Option<Type>,
    pub(super) has_default: bool,
    /// It is a field of this input type, of which exactly one is given.
    pub(super) one_of: Option<TypeId>,
}

impl Position {
    pub(super) fn of(ty: Option<Type>) -> Self {
        Self { ty, ..Self::default() }
    }
}

impl Validator<'_, '_> {
    /// Checks the value at a place in the tree's list.
    pub(super) fn value(&mut self, place: u32, position: Position) {
        let tree = self.tree;
        let value = tree.value(place);
        if value.kind == ValueKind::Variable {
            let Position { ty, has_default, one_of } = position;
            self.usages.push(Usage { name: value.text, at: value.at, ty, has_default, one_of });
            return;
        }
        let Some(ty) = position.ty else { return self.held(place) };
        if value.kind == ValueKind::Null {
            if ty.is_non_null() {
                self.report(&[value.at], |this| {
                    format!("Expected a value of type \"{}\", found null.", this.print(ty))
                });
            }
            return;
        }
        if let Some(item) = ty.item() {
            if value.kind == ValueKind::List {
                for (place, _) in tree.held(place) {
                    self.value(place, Position::of(Some(item)));
                }
            } else {
                // One value stands for a list of one (section 3.11).
                self.value(place, Position::of(Some(item)));
            }
            return;
        }
        match self.types.kind(ty.name) {
            SchemaTypeKind::Input(input) => return self.input_object(place, ty.name, input),
            SchemaTypeKind::Enum(values) => {
                if value.kind != ValueKind::Enum || !values.contains(value.text) {
                    self.report(&[value.at], |this| {
                        let name = this.name(ty.name);
                        let is_name = value.kind == ValueKind::Enum;
                        let hint = if is_name {
                            this.suggest(value.text, values.iter().map(async_graphql::Name::as_str))
                        } else {
                            String::new()
                        };
                        let found = if is_name { String::new() } else { format!(", found {}", found(value)) };
                        format!("Expected a value of the enum \"{name}\"{found}.{hint}")
                    });
                }
            }
            SchemaTypeKind::Scalar(scalar) => {
                if !scalar.fits(tree, place) {
                    self.report(&[value.at], |this| {
                        let name = this.name(ty.name);
                        format!("Expected a value of type \"{name}\", found {}.", found(value))
                    });
                }
            }
            SchemaTypeKind::Object(_) | SchemaTypeKind::Interface(_) | SchemaTypeKind::Union => {}
        }
        self.held(place);
    }

    /// What is held by a value whose type does not say what it holds.
    fn held(&mut self, place: u32) {
        let tree = self.tree;
        if tree.value(place).kind == ValueKind::Object {
            self.unique_fields(place);
        }
        for (place, _) in tree.held(place) {
            self.value(place, Position::default());
        }
    }

    fn unique_fields(&mut self, place: u32) {
        let tree = self.tree;
        let names: Vec<_> =
            tree.held(place).filter_map(|(_, value)| value.field.map(|name| (name.text, name.at))).collect();
        for (name, places) in repeated(names.into_iter()) {
            self.report(&places, |_| only_one("input field", name));
        }
    }

    fn input_object(&mut self, place: u32, ty: TypeId, input: &Input) {
        let tree = self.tree;
        let value = tree.value(place);
        if value.kind != ValueKind::Object {
            self.report(&[value.at], |this| {
                format!("Expected an object of type \"{}\", found {}.", this.name(ty), found(value))
            });
            return self.held(place);
        }
        self.unique_fields(place);
        let mut known = 0;
        let mut has_null = false;
        for (place, held) in tree.held(place) {
            let Some(name) = held.field else { continue };
            let Some(field) = input.field(name.text) else {
                self.report(&[name.at], |this| {
                    let hint = this.suggest(name.text, input.fields.iter().map(|field| field.name.as_str()));
                    let (name, ty) = (echo(name.text), this.name(ty));
                    format!("Field \"{name}\" is not defined by type \"{ty}\".{hint}")
                });
                self.value(place, Position::default());
                continue;
            };
            known += 1;
            has_null |= held.kind == ValueKind::Null;
            let one_of = input.is_one_of.then_some(ty);
            let has_default = field.has_default;
            self.value(place, Position { ty: Some(field.ty), has_default, one_of });
        }
        let given =
            |name: &str| tree.held(place).any(|(_, held)| held.field.is_some_and(|of| of.text == name));
        for field in input.fields.iter().filter(|field| field.is_required()) {
            if !given(&field.name) {
                self.report(&[value.at], |this| {
                    let (name, ty) = (&field.name, this.name(ty));
                    let of = this.print(field.ty);
                    format!("Field \"{ty}.{name}\" of required type \"{of}\" was not provided.")
                });
            }
        }
        if input.is_one_of && (known != 1 || has_null) {
            self.report(&[value.at], |this| {
                let ty = this.name(ty);
                format!("Exactly one of the fields of \"{ty}\" must be given, and it must not be null.")
            });
        }
    }
}

impl Scalar {
    /// Whether a literal that is not null can be one.
    fn fits(self, tree: &SyntaxTree<'_>, place: u32) -> bool {
        let value = tree.value(place);
        match (self, value.kind) {
            (Self::Int, ValueKind::Int) => value.text.parse::<i32>().is_ok(),
            (Self::Float, ValueKind::Int | ValueKind::Float) => is_finite(value.text),
            (Self::String | Self::Id, ValueKind::String | ValueKind::BlockString)
            | (Self::Boolean, ValueKind::Boolean)
            | (Self::Id, ValueKind::Int)
            | (Self::Other, _) => true,
            (Self::DateTime, ValueKind::String) => {
                DateTime::is_valid(&LibraryValue::String(text::of_string(value.text).into_owned()))
            }
            (Self::DateTime, ValueKind::BlockString) => {
                DateTime::is_valid(&LibraryValue::String(text::of_block_string(value.text)))
            }
            // Names must be in quotes, and numbers within what JSON can be read as.
            (Self::Json, _) => {
                tree.values[place as usize..value.end as usize].iter().all(|part| match part.kind {
                    ValueKind::Enum => false,
                    ValueKind::Int | ValueKind::Float => is_finite(part.text),
                    _ => true,
                })
            }
            _ => false,
        }
    }
}

fn is_finite(number: &str) -> bool {
    number.parse::<f64>().is_ok_and(f64::is_finite)
}

/// What a literal is, without what it says.
fn found(value: &Value<'_>) -> &'static str {
    match value.kind {
        ValueKind::Variable => "a variable",
        ValueKind::Int | ValueKind::Float => "a number",
        ValueKind::String | ValueKind::BlockString => "a string",
        ValueKind::Boolean => "a Boolean",
        ValueKind::Null => "null",
        ValueKind::Enum => "a name",
        ValueKind::List => "a list",
        ValueKind::Object => "an object",
    }
}

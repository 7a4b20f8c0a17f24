//! The library's tree of a document, which is what is planned and executed. Names that stand several times
//! are made once. Of a document that validation refuses it may keep less than is written: it has one value
//! for each input field and one definition for each name.

use std::collections::HashMap;

use async_graphql::{
    Name, Pos, Positioned,
    indexmap::IndexMap,
    parser::types::{
        BaseType, Directive, DocumentOperations, ExecutableDocument, Field, FragmentDefinition,
        FragmentSpread, InlineFragment, OperationDefinition, OperationType, Selection, SelectionSet, Type,
        TypeCondition, VariableDefinition,
    },
};
use async_graphql_value::{ConstValue, Value as LibraryValue};
use rustc_hash::FxHashMap;

use super::{
    Condition, DefinitionNode, IndexRange, Named, SelectionKind, SelectionNode, SyntaxTree, ValueKind,
    Variable, Wrapped, text,
};
use crate::limits::{LineCursor, OperationKind};

impl SyntaxTree<'_> {
    /// The library's tree.
    pub fn lower(&self) -> ExecutableDocument {
        let mut lower = Lower { tree: self, cursor: LineCursor::new(self.text), names: FxHashMap::default() };
        let mut fragments = HashMap::new();
        let mut named = HashMap::new();
        let mut single = None;
        for definition in &self.definitions {
            let pos = lower.pos(definition.at);
            match (definition.kind, definition.name) {
                (None, name) => {
                    let name = name.map_or_else(|| Name::new(""), |name| lower.name(name.text));
                    let fragment = lower.fragment(definition);
                    fragments.insert(name, Positioned::new(fragment, pos));
                }
                (Some(kind), Some(name)) => {
                    let name = lower.name(name.text);
                    named.insert(name, Positioned::new(lower.operation(kind, definition), pos));
                }
                (Some(kind), None) => single = Some(Positioned::new(lower.operation(kind, definition), pos)),
            }
        }
        let operations = match single {
            Some(single) if named.is_empty() => DocumentOperations::Single(single),
            _ => DocumentOperations::Multiple(named),
        };
        ExecutableDocument { operations, fragments }
    }
}

struct Lower<'t, 'd> {
    tree: &'t SyntaxTree<'d>,
    cursor: LineCursor<'d>,
    names: FxHashMap<&'d str, Name>,
}

impl<'d> Lower<'_, 'd> {
    fn pos(&mut self, at: u32) -> Pos {
        let (line, column) = self.cursor.place(at as usize);
        Pos { line, column }
    }

    fn name(&mut self, text: &'d str) -> Name {
        self.names.entry(text).or_insert_with(|| Name::new(text)).clone()
    }

    fn named(&mut self, name: Named<'d>) -> Positioned<Name> {
        let pos = self.pos(name.at);
        Positioned::new(self.name(name.text), pos)
    }

    fn operation(&mut self, kind: OperationKind, definition: &DefinitionNode<'d>) -> OperationDefinition {
        let tree = self.tree;
        let variables = tree.variables(&definition.variables).iter();
        OperationDefinition {
            ty: match kind {
                OperationKind::Query => OperationType::Query,
                OperationKind::Mutation => OperationType::Mutation,
                OperationKind::Subscription => OperationType::Subscription,
            },
            variable_definitions: variables.map(|variable| self.variable(variable)).collect(),
            directives: self.directives(&definition.directives),
            selection_set: self.set(definition.set_at, definition.selections.clone()),
        }
    }

    fn fragment(&mut self, definition: &DefinitionNode<'d>) -> FragmentDefinition {
        FragmentDefinition {
            type_condition: definition.condition.map_or_else(nothing, |condition| self.condition(condition)),
            directives: self.directives(&definition.directives),
            selection_set: self.set(definition.set_at, definition.selections.clone()),
        }
    }

    fn condition(&mut self, condition: Condition<'d>) -> Positioned<TypeCondition> {
        let pos = self.pos(condition.at);
        let on = self.named(condition.ty);
        Positioned::new(TypeCondition { on }, pos)
    }

    fn variable(&mut self, variable: &Variable<'d>) -> Positioned<VariableDefinition> {
        let pos = self.pos(variable.at);
        let name = self.named(Named { text: variable.name, at: variable.name_at });
        let ty_pos = self.pos(variable.ty_at);
        let var_type = Positioned::new(self.ty(variable.ty), ty_pos);
        let default_value = variable.default.map(|at| {
            let pos = self.pos(self.tree.value(at).at);
            // Without variables, as the parser has seen to.
            Positioned::new(self.value(at).into_const().unwrap_or(ConstValue::Null), pos)
        });
        let directives = self.directives(&variable.directives);
        Positioned::new(VariableDefinition { name, var_type, directives, default_value }, pos)
    }

    fn ty(&mut self, ty: Wrapped<Named<'d>>) -> Type {
        let nullable = !ty.is_non_null();
        let base = match ty.item() {
            Some(item) => BaseType::List(Box::new(self.ty(item))),
            None => BaseType::Named(self.name(ty.name.text)),
        };
        Type { base, nullable }
    }

    fn set(&mut self, at: u32, span: IndexRange) -> Positioned<SelectionSet> {
        let tree = self.tree;
        let pos = self.pos(at);
        let mut items = Vec::with_capacity(tree.selections(span.clone()).count());
        for (place, selection) in tree.selections(span) {
            let pos = self.pos(selection.at);
            items.push(Positioned::new(self.selection(place, selection, pos), pos));
        }
        Positioned::new(SelectionSet { items }, pos)
    }

    fn selection(&mut self, place: u32, selection: &SelectionNode<'d>, pos: Pos) -> Selection {
        match selection.kind {
            SelectionKind::Field => {
                let alias = selection.alias.map(|alias| self.named(alias));
                let name = self.named(selection.name);
                let arguments = self.arguments(&selection.arguments);
                let directives = self.directives(&selection.directives);
                let selection_set = match selection.set_at {
                    Some(at) => self.set(at, self.tree.inside(place)),
                    None => Positioned::default(),
                };
                let field = Field { alias, name, arguments, directives, selection_set };
                Selection::Field(Positioned::new(field, pos))
            }
            SelectionKind::Spread => {
                let fragment_name = self.named(selection.name);
                let directives = self.directives(&selection.directives);
                let spread = FragmentSpread { fragment_name, directives };
                Selection::FragmentSpread(Positioned::new(spread, pos))
            }
            SelectionKind::Inline => {
                let type_condition = selection.condition.map(|condition| self.condition(condition));
                let directives = self.directives(&selection.directives);
                let set_at = selection.set_at.unwrap_or(selection.at);
                let selection_set = self.set(set_at, self.tree.inside(place));
                let inline = InlineFragment { type_condition, directives, selection_set };
                Selection::InlineFragment(Positioned::new(inline, pos))
            }
        }
    }

    fn directives(&mut self, span: &IndexRange) -> Vec<Positioned<Directive>> {
        let tree = self.tree;
        let directives = tree.directives(span).iter().map(|directive| {
            let pos = self.pos(directive.at);
            let name = self.named(directive.name);
            let arguments = self.arguments(&directive.arguments);
            Positioned::new(Directive { name, arguments }, pos)
        });
        directives.collect()
    }

    fn arguments(&mut self, span: &IndexRange) -> Vec<(Positioned<Name>, Positioned<LibraryValue>)> {
        let tree = self.tree;
        let arguments = tree.arguments(span).iter().map(|argument| {
            let name = self.named(argument.name);
            let pos = self.pos(tree.value(argument.value).at);
            (name, Positioned::new(self.value(argument.value), pos))
        });
        arguments.collect()
    }

    fn value(&mut self, at: u32) -> LibraryValue {
        let tree = self.tree;
        let value = tree.value(at);
        match value.kind {
            ValueKind::Variable => LibraryValue::Variable(self.name(value.text)),
            // Beyond the range of numbers it is null, which validation does not let through.
            ValueKind::Int | ValueKind::Float => {
                serde_json::from_str(value.text).map_or(LibraryValue::Null, LibraryValue::Number)
            }
            ValueKind::String => LibraryValue::String(text::of_string(value.text).into_owned()),
            ValueKind::BlockString => LibraryValue::String(text::of_block_string(value.text)),
            ValueKind::Boolean => LibraryValue::Boolean(value.text == "true"),
            ValueKind::Null => LibraryValue::Null,
            ValueKind::Enum => LibraryValue::Enum(self.name(value.text)),
            ValueKind::List => LibraryValue::List(tree.held(at).map(|(at, _)| self.value(at)).collect()),
            ValueKind::Object => {
                let mut object = IndexMap::with_capacity(tree.held(at).count().min(16));
                for (at, field) in tree.held(at) {
                    if let Some(name) = field.field {
                        let name = self.name(name.text);
                        object.insert(name, self.value(at));
                    }
                }
                LibraryValue::Object(object)
            }
        }
    }
}

/// What no fragment has.
fn nothing() -> Positioned<TypeCondition> {
    Positioned::new(TypeCondition { on: Positioned::new(Name::new(""), Pos::default()) }, Pos::default())
}

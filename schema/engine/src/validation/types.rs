//! The schema as documents are validated by it, read from its own SDL. The types by which a schema is asked
//! about itself are the library's, which answers these questions.

use async_graphql::{
    Name,
    parser::{
        parse_schema,
        types::{
            BaseType, DirectiveDefinition, DirectiveLocation, FieldDefinition, InputValueDefinition,
            ServiceDocument, Type as LibraryType, TypeDefinition, TypeKind, TypeSystemDefinition,
        },
    },
};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::{
    limits::OperationKind,
    syntax::{Lexer, TokenKind, Wrapped},
};

/// What every schema has.
const BUILT_IN: &str = include_str!("built_in.graphql");

/// A type's place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TypeId(u32);

/// A type with its lists.
pub(super) type Type = Wrapped<TypeId>;

/// The types and directives of a schema.
pub struct SchemaTypes {
    definitions: Vec<SchemaType>,
    names: FxHashMap<Name, TypeId>,
    directives: FxHashMap<Name, SchemaDirective>,
    query: Option<TypeId>,
    mutation: Option<TypeId>,
    subscription: Option<TypeId>,
    typename: SchemaField,
    schema: SchemaField,
    type_by_name: SchemaField,
}

struct SchemaType {
    name: Name,
    kind: SchemaTypeKind,
    /// The objects that a value can be of, in order; empty for types that have no fields.
    possible: Vec<TypeId>,
}

/// What a type is.
pub(super) enum SchemaTypeKind {
    Scalar(Scalar),
    Enum(FxHashSet<Name>),
    Object(SchemaFields),
    Interface(SchemaFields),
    Union,
    Input(Input),
}

/// Fields by name.
pub(super) type SchemaFields = FxHashMap<Name, SchemaField>;

/// A field.
pub(super) struct SchemaField {
    pub(super) ty: Type,
    pub(super) arguments: Vec<SchemaArgument>,
    /// `__typename`, `__schema` and `__type`.
    pub(super) is_meta: bool,
}

/// An argument, or a field of an input type.
pub(super) struct SchemaArgument {
    pub(super) name: Name,
    pub(super) ty: Type,
    pub(super) has_default: bool,
}

impl SchemaArgument {
    pub(super) fn is_required(&self) -> bool {
        self.ty.is_non_null() && !self.has_default
    }
}

/// An input type.
pub(super) struct Input {
    pub(super) fields: Vec<SchemaArgument>,
    by_name: FxHashMap<Name, usize>,
    /// Exactly one field is given.
    pub(super) is_one_of: bool,
}

impl Input {
    pub(super) fn field(&self, name: &str) -> Option<&SchemaArgument> {
        self.by_name.get(name).map(|&index| &self.fields[index])
    }
}

/// Scalars whose values are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Int,
    Float,
    String,
    Boolean,
    Id,
    DateTime,
    Json,
    /// Any value may be one.
    Other,
}

/// A directive.
pub(super) struct SchemaDirective {
    pub(super) arguments: Vec<SchemaArgument>,
    pub(super) locations: Vec<DirectiveLocation>,
    pub(super) is_repeatable: bool,
}

impl SchemaTypes {
    /// Reads them from the schema's SDL, parsed and as text.
    pub fn of(sdl: &ServiceDocument, text: &str) -> Self {
        let built_in = parse_schema(BUILT_IN).expect("the built-in types are valid SDL");
        let all = || built_in.definitions.iter().chain(&sdl.definitions);
        let definitions: Vec<&TypeDefinition> = all()
            .filter_map(|definition| match definition {
                TypeSystemDefinition::Type(ty) => Some(&ty.node),
                _ => None,
            })
            .collect();
        let names: FxHashMap<Name, TypeId> = definitions
            .iter()
            .enumerate()
            .map(|(index, definition)| (definition.name.node.clone(), TypeId(index as u32)))
            .collect();
        let mut repeatable = FxHashSet::default();
        note_repeatable(text, &mut repeatable);
        let read = Read { names: &names, repeatable };
        let types = definitions.iter().map(|definition| read.definition(definition, &definitions)).collect();
        let directives = all().filter_map(|definition| match definition {
            TypeSystemDefinition::Directive(directive) => {
                Some((directive.node.name.node.clone(), read.directive(&directive.node)))
            }
            _ => None,
        });
        let declared = sdl.definitions.iter().find_map(|definition| match definition {
            TypeSystemDefinition::Schema(schema) if !schema.node.extend => Some(&schema.node),
            _ => None,
        });
        let root = |name: &str| names.get(name).copied();
        let [query, mutation, subscription] = match declared {
            Some(schema) => [&schema.query, &schema.mutation, &schema.subscription]
                .map(|name| name.as_ref().and_then(|name| root(&name.node))),
            None => ["Query", "Mutation", "Subscription"].map(root),
        };
        let meta = |ty: &str, arguments| {
            let ty = LibraryType::new(ty).and_then(|ty| read.ty(&ty)).expect("a built-in type");
            SchemaField { ty, arguments, is_meta: true }
        };
        let by_name = SchemaArgument {
            name: Name::new("name"),
            ty: LibraryType::new("String!").and_then(|ty| read.ty(&ty)).expect("a built-in type"),
            has_default: false,
        };
        Self {
            definitions: types,
            directives: directives.collect(),
            query,
            mutation,
            subscription,
            typename: meta("String!", Vec::new()),
            schema: meta("__Schema!", Vec::new()),
            type_by_name: meta("__Type", vec![by_name]),
            names,
        }
    }

    pub(super) fn root(&self, kind: OperationKind) -> Option<TypeId> {
        match kind {
            OperationKind::Query => self.query,
            OperationKind::Mutation => self.mutation,
            OperationKind::Subscription => self.subscription,
        }
    }

    pub(super) fn find(&self, name: &str) -> Option<TypeId> {
        self.names.get(name).copied()
    }

    /// The names of all types but those of introspection.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.definitions.iter().map(|ty| ty.name.as_str()).filter(|name| !name.starts_with("__"))
    }

    fn definition(&self, ty: TypeId) -> &SchemaType {
        &self.definitions[ty.0 as usize]
    }

    pub(super) fn name(&self, ty: TypeId) -> &str {
        &self.definition(ty).name
    }

    pub(super) fn kind(&self, ty: TypeId) -> &SchemaTypeKind {
        &self.definition(ty).kind
    }

    /// Whether it has fields.
    pub(super) fn is_composite(&self, ty: TypeId) -> bool {
        matches!(
            self.kind(ty),
            SchemaTypeKind::Object(_) | SchemaTypeKind::Interface(_) | SchemaTypeKind::Union
        )
    }

    pub(super) fn is_object(&self, ty: TypeId) -> bool {
        matches!(self.kind(ty), SchemaTypeKind::Object(_))
    }

    /// Whether variables can have it.
    pub(super) fn is_input(&self, ty: TypeId) -> bool {
        matches!(
            self.kind(ty),
            SchemaTypeKind::Scalar(_) | SchemaTypeKind::Enum(_) | SchemaTypeKind::Input(_)
        )
    }

    /// Whether a value can be of both.
    pub(super) fn overlap(&self, one: TypeId, other: TypeId) -> bool {
        if one == other {
            return true;
        }
        let (one, other) = (&self.definition(one).possible, &self.definition(other).possible);
        let (fewer, more) = if one.len() < other.len() { (one, other) } else { (other, one) };
        fewer.iter().any(|ty| more.binary_search(ty).is_ok())
    }

    /// Whether an object is of a type.
    pub(super) fn is_of(&self, object: TypeId, ty: TypeId) -> bool {
        object == ty || self.definition(ty).possible.binary_search(&object).is_ok()
    }

    /// A field of a type.
    pub(super) fn field(&self, ty: TypeId, name: &str) -> Option<&SchemaField> {
        let fields = match self.kind(ty) {
            SchemaTypeKind::Object(fields) | SchemaTypeKind::Interface(fields) => fields.get(name),
            SchemaTypeKind::Union => None,
            _ => return None,
        };
        fields.or_else(|| match name {
            "__typename" => Some(&self.typename),
            "__schema" if Some(ty) == self.query => Some(&self.schema),
            "__type" if Some(ty) == self.query => Some(&self.type_by_name),
            _ => None,
        })
    }

    /// The names of a type's fields.
    pub(super) fn field_names(&self, ty: TypeId) -> impl Iterator<Item = &str> {
        let fields = match self.kind(ty) {
            SchemaTypeKind::Object(fields) | SchemaTypeKind::Interface(fields) => Some(fields),
            _ => None,
        };
        fields.into_iter().flat_map(FxHashMap::keys).map(Name::as_str)
    }

    pub(super) fn directive(&self, name: &str) -> Option<&SchemaDirective> {
        self.directives.get(name)
    }
}

/// Notes the directives that SDL declares repeatable: the library's parser takes all for such.
fn note_repeatable<'s>(sdl: &'s str, repeatable: &mut FxHashSet<&'s str>) {
    let mut lexer = Lexer::new(sdl);
    let (mut before, mut name, mut depth) = (TokenKind::End, "", 0_usize);
    // What the library has read is made of tokens.
    while let Ok(token) = lexer.next() {
        match token.kind {
            TokenKind::End => return,
            TokenKind::Punctuator(b'(') => depth += 1,
            TokenKind::Punctuator(b')') => depth = depth.saturating_sub(1),
            TokenKind::Name if depth == 0 && before == TokenKind::Punctuator(b'@') => {
                name = lexer.text(token);
            }
            TokenKind::Name if depth == 0 && lexer.text(token) == "repeatable" => {
                repeatable.insert(name);
            }
            _ => {}
        }
        before = token.kind;
    }
}

struct Read<'n> {
    names: &'n FxHashMap<Name, TypeId>,
    repeatable: FxHashSet<&'n str>,
}

impl Read<'_> {
    fn ty(&self, ty: &LibraryType) -> Option<Type> {
        let wrapped = match &ty.base {
            BaseType::Named(name) => Wrapped { name: *self.names.get(name)?, lists: 0, non_null: 0 },
            BaseType::List(item) => {
                let item = self.ty(item)?;
                Wrapped { lists: item.lists + 1, non_null: item.non_null << 1, ..item }
            }
        };
        Some(Wrapped { non_null: wrapped.non_null | u128::from(!ty.nullable), ..wrapped })
    }

    fn argument(&self, input: &InputValueDefinition) -> Option<SchemaArgument> {
        let (name, has_default) = (input.name.node.clone(), input.default_value.is_some());
        Some(SchemaArgument { name, ty: self.ty(&input.ty.node)?, has_default })
    }

    fn fields(&self, fields: &[async_graphql::Positioned<FieldDefinition>]) -> SchemaFields {
        let fields = fields.iter().filter_map(|field| {
            let arguments = field.node.arguments.iter().filter_map(|input| self.argument(&input.node));
            let arguments = arguments.collect();
            let field_ = SchemaField { ty: self.ty(&field.node.ty.node)?, arguments, is_meta: false };
            Some((field.node.name.node.clone(), field_))
        });
        fields.collect()
    }

    fn definition(&self, definition: &TypeDefinition, all: &[&TypeDefinition]) -> SchemaType {
        let name = definition.name.node.clone();
        let id = |name: &Name| self.names.get(name).copied();
        let mut possible: Vec<TypeId> = match &definition.kind {
            TypeKind::Object(_) => id(&name).into_iter().collect(),
            TypeKind::Interface(_) => {
                let objects = all.iter().filter(|ty| match &ty.kind {
                    TypeKind::Object(object) => object.implements.iter().any(|of| of.node == name),
                    _ => false,
                });
                objects.filter_map(|ty| id(&ty.name.node)).collect()
            }
            TypeKind::Union(union) => union.members.iter().filter_map(|member| id(&member.node)).collect(),
            _ => Vec::new(),
        };
        possible.sort_unstable();
        let kind = match &definition.kind {
            TypeKind::Scalar => SchemaTypeKind::Scalar(match name.as_str() {
                "Int" => Scalar::Int,
                "Float" => Scalar::Float,
                "String" => Scalar::String,
                "Boolean" => Scalar::Boolean,
                "ID" => Scalar::Id,
                "DateTime" => Scalar::DateTime,
                "JSON" => Scalar::Json,
                _ => Scalar::Other,
            }),
            TypeKind::Enum(kind) => {
                SchemaTypeKind::Enum(kind.values.iter().map(|value| value.node.value.node.clone()).collect())
            }
            TypeKind::Object(object) => SchemaTypeKind::Object(self.fields(&object.fields)),
            TypeKind::Interface(interface) => SchemaTypeKind::Interface(self.fields(&interface.fields)),
            TypeKind::Union(_) => SchemaTypeKind::Union,
            TypeKind::InputObject(object) => {
                let fields: Vec<SchemaArgument> =
                    object.fields.iter().filter_map(|field| self.argument(&field.node)).collect();
                let names = fields.iter().enumerate().map(|(index, field)| (field.name.clone(), index));
                let is_one_of = definition.directives.iter().any(|of| of.node.name.node == "oneOf");
                SchemaTypeKind::Input(Input { by_name: names.collect(), fields, is_one_of })
            }
        };
        SchemaType { name, kind, possible }
    }

    fn directive(&self, directive: &DirectiveDefinition) -> SchemaDirective {
        SchemaDirective {
            arguments: directive.arguments.iter().filter_map(|input| self.argument(&input.node)).collect(),
            locations: directive.locations.iter().map(|location| location.node).collect(),
            is_repeatable: self.repeatable.contains(directive.name.node.as_str()),
        }
    }
}

//! The schema as text, twice. The federated SDL is the one that gateways get as `_service.sdl`, and that
//! `/schema.graphql`, `xp schema` and the golden file `subgraph.graphql` have; that of the API
//! (`/schema.graphql?api`, `xp schema --api`, `api.graphql`) is for client tools, which know nothing of
//! federation, and has GraphQL's own directives only. The library prints the types, with the directives that
//! are declared on them; what it prints around these (a link of v2.5 with a fixed list of imports, no
//! definitions) is replaced here by a link that imports what is used, and by the definitions of that, to the
//! letter of the specification: composers refuse others. The SDL of GraphQL Federation, once called Composite
//! Schemas, is in `lookup`. Not here: what is declared on which type (`object`, `mutation`, `subscription`,
//! `cost`, `subgraph`).

mod lookup;

pub use lookup::{for_composition, with_lookups};

use std::{borrow::Cow, collections::BTreeSet, fmt::Write as _};

use async_graphql::{
    ContextDirective, CustomDirective, CustomDirectiveFactory, ObjectType, SDLExportOptions, Schema,
    ServerResult, SubscriptionType,
    indexmap::IndexMap,
    parser::types::Directive,
    registry::{MetaDirectiveInvocation, MetaField, MetaType, Registry},
};

/// The newest version that the composers of Apollo, The Guild and `WunderGraph` all know.
const VERSION: &str = "https://specs.apollo.dev/federation/v2.9";

/// Directives of the federation, by name. <https://specs.apollo.dev/federation/v2.9>
const FEDERATION: [(&str, &str); 14] = [
    (
        "key",
        "directive @key(fields: federation__FieldSet!, resolvable: Boolean = true) repeatable on OBJECT | \
         INTERFACE",
    ),
    ("external", "directive @external on FIELD_DEFINITION | OBJECT"),
    ("requires", "directive @requires(fields: federation__FieldSet!) on FIELD_DEFINITION"),
    ("provides", "directive @provides(fields: federation__FieldSet!) on FIELD_DEFINITION"),
    ("override", "directive @override(from: String!, label: String) on FIELD_DEFINITION"),
    ("interfaceObject", "directive @interfaceObject on OBJECT"),
    ("composeDirective", "directive @composeDirective(name: String!) repeatable on SCHEMA"),
    ("shareable", "directive @shareable repeatable on OBJECT | FIELD_DEFINITION"),
    (
        "inaccessible",
        "directive @inaccessible on FIELD_DEFINITION | OBJECT | INTERFACE | UNION | ARGUMENT_DEFINITION | \
         SCALAR | ENUM | ENUM_VALUE | INPUT_OBJECT | INPUT_FIELD_DEFINITION",
    ),
    (
        "tag",
        "directive @tag(name: String!) repeatable on FIELD_DEFINITION | OBJECT | INTERFACE | UNION | \
         ARGUMENT_DEFINITION | SCALAR | ENUM | ENUM_VALUE | INPUT_OBJECT | INPUT_FIELD_DEFINITION | SCHEMA",
    ),
    ("authenticated", "directive @authenticated on FIELD_DEFINITION | OBJECT | INTERFACE | SCALAR | ENUM"),
    (
        "requiresScopes",
        "directive @requiresScopes(scopes: [[federation__Scope!]!]!) on FIELD_DEFINITION | OBJECT | \
         INTERFACE | SCALAR | ENUM",
    ),
    (
        "cost",
        "directive @cost(weight: Int!) on ARGUMENT_DEFINITION | ENUM | FIELD_DEFINITION | \
         INPUT_FIELD_DEFINITION | OBJECT | SCALAR",
    ),
    (
        "listSize",
        "directive @listSize(assumedSize: Int, slicingArguments: [String!], sizedFields: [String!], \
         requireOneSlicingArgument: Boolean = true) on FIELD_DEFINITION",
    ),
];

/// Directives of GraphQL itself that composers do not all know by themselves.
const GRAPHQL: [(&str, &str); 1] = [("oneOf", "directive @oneOf on INPUT_OBJECT")];

/// How schemas are linked. <https://specs.apollo.dev/link/v1.0>
const LINK: &str = "directive @link(url: String!, as: String, for: link__Purpose, import: [link__Import]) \
                    repeatable on SCHEMA\n\
    enum link__Purpose {\n  SECURITY\n  EXECUTION\n}\nscalar link__Import\n";

const AUTHENTICATED: &str = "authenticated";

/// Scalars of the definitions.
const SCALARS: [&str; 2] = ["federation__FieldSet", "federation__Scope"];

/// A directive that is none of the federation's, which composition is to keep: where it is specified, its name, its
/// definition.
pub type Composed = [&'static str; 3];

/// The SDL of a schema, as gateways get it.
pub fn federated<Q, M, S>(schema: &Schema<Q, M, S>, composed: &[Composed]) -> String
where
    Q: ObjectType + 'static,
    M: ObjectType + 'static,
    S: SubscriptionType + 'static,
{
    let options = SDLExportOptions::new().federation().include_specified_by().use_space_ident();
    let printed = schema.sdl_with_options(options);
    // Behind the last type stand, without a blank line, the definitions of directives and the link.
    let types = printed.rsplit_once("\n\n").map_or(printed.as_str(), |(types, _)| types);
    let mut used = directives(types);
    if !composed.is_empty() {
        used.insert("composeDirective");
    }
    let is_used = |(name, _): &&(&str, &str)| used.contains(name);
    let imports: Vec<String> =
        FEDERATION.iter().filter(is_used).map(|(name, _)| format!("\"@{name}\"")).collect();
    let mut definitions = LINK.to_owned();
    for (_, definition) in FEDERATION.iter().chain(&GRAPHQL).filter(is_used) {
        let _ = writeln!(definitions, "{definition}");
    }
    let scalars: Vec<&str> = SCALARS.into_iter().filter(|scalar| definitions.contains(scalar)).collect();
    for scalar in scalars {
        let _ = writeln!(definitions, "scalar {scalar}");
    }
    let mut links = String::new();
    for [url, name, definition] in composed {
        let _ = write!(
            links,
            "\n  @link(url: \"{url}\", import: [\"@{name}\"])\n  @composeDirective(name: \"@{name}\")"
        );
        let _ = writeln!(definitions, "{definition}");
    }
    format!(
        "extend schema\n  @link(url: \"https://specs.apollo.dev/link/v1.0\")\n  @link(url: \"{VERSION}\", \
         import: [{}]){links}\n\n\
         {definitions}\n{types}\n",
        imports.join(", ")
    )
}

/// The SDL of a schema as clients use it. `schema` was built with [`for_clients`].
pub fn api<Q, M, S>(schema: &Schema<Q, M, S>) -> String
where
    Q: ObjectType + 'static,
    M: ObjectType + 'static,
    S: SubscriptionType + 'static,
{
    plain(schema, &GRAPHQL)
}

/// The SDL without a link, with the definitions of those of these directives that are used.
fn plain<Q, M, S>(schema: &Schema<Q, M, S>, known: &[(&str, &str)]) -> String
where
    Q: ObjectType + 'static,
    M: ObjectType + 'static,
    S: SubscriptionType + 'static,
{
    let options = SDLExportOptions::new().include_specified_by().use_space_ident();
    let printed = schema.sdl_with_options(options);
    let types = printed.rsplit_once("\n\n").map_or(printed.as_str(), |(types, _)| types);
    let used = directives(types);
    let mut definitions = String::new();
    for (_, definition) in known.iter().filter(|(name, _)| used.contains(name)) {
        let _ = writeln!(definitions, "{definition}\n");
    }
    format!("{definitions}{types}\n")
}

/// What a factory makes of a schema, changed once more: the last word on what it has.
#[derive(Clone, Copy)]
pub struct Changed<T> {
    factory: T,
    change: fn(&mut Registry),
}

impl<T: CustomDirectiveFactory> CustomDirectiveFactory for Changed<T> {
    fn name(&self) -> Cow<'static, str> {
        self.factory.name()
    }

    fn register(&self, registry: &mut Registry) {
        self.factory.register(registry);
        (self.change)(registry);
    }

    fn create(
        &self,
        context: &ContextDirective<'_>,
        directive: &Directive,
    ) -> ServerResult<Box<dyn CustomDirective>> {
        self.factory.create(context, directive)
    }
}

/// Takes from a schema what is for gateways only.
pub fn for_clients<T>(factory: T) -> Changed<T> {
    Changed { factory, change: take_federation }
}

/// Takes from a schema the directives by which a gateway refuses callers by itself: `@authenticated` and
/// `@requiresScopes`. Apollo Router starts with a supergraph that has these only under a licence.
pub fn without_authorization<T>(factory: T) -> Changed<T> {
    Changed { factory, change: take_authorization }
}

fn take_authorization(registry: &mut Registry) {
    let take = |directives: &mut Vec<MetaDirectiveInvocation>, scopes: &mut Vec<String>| {
        directives.retain(|directive| directive.name != AUTHENTICATED);
        scopes.clear();
    };
    for ty in registry.types.values_mut() {
        match ty {
            MetaType::Object { fields, directive_invocations, requires_scopes, .. }
            | MetaType::Interface { fields, directive_invocations, requires_scopes, .. } => {
                take(directive_invocations, requires_scopes);
                for field in fields.values_mut() {
                    take(&mut field.directive_invocations, &mut field.requires_scopes);
                }
            }
            MetaType::Enum { directive_invocations, requires_scopes, .. }
            | MetaType::Scalar { directive_invocations, requires_scopes, .. } => {
                take(directive_invocations, requires_scopes);
            }
            MetaType::Union { .. } | MetaType::InputObject { .. } => {}
        }
    }
}

fn take_federation(registry: &mut Registry) {
    for ty in registry.types.values_mut() {
        // Without keys nothing is an entity, and the library adds no `_entities`, `_service` and their types.
        match ty {
            MetaType::Object { fields, keys, directive_invocations, .. }
            | MetaType::Interface { fields, keys, directive_invocations, .. } => {
                *keys = None;
                directive_invocations.clear();
                fields.retain(|name, _| !name.starts_with('_'));
                fields.values_mut().for_each(plain_field);
            }
            MetaType::InputObject { input_fields, directive_invocations, .. } => {
                directive_invocations.clear();
                input_fields.values_mut().for_each(|field| field.directive_invocations.clear());
            }
            MetaType::Enum { enum_values, directive_invocations, .. } => {
                directive_invocations.clear();
                enum_values.values_mut().for_each(|value| value.directive_invocations.clear());
            }
            MetaType::Scalar { directive_invocations, .. }
            | MetaType::Union { directive_invocations, .. } => {
                directive_invocations.clear();
            }
        }
    }
    registry.types.retain(|name, _| !name.starts_with('_') || name.starts_with("__"));
}

fn plain_field(field: &mut MetaField) {
    field.directive_invocations.clear();
    field.args.values_mut().for_each(|argument| argument.directive_invocations.clear());
}

/// `@authenticated`: anonymous callers are refused.
pub fn authenticated() -> MetaDirectiveInvocation {
    MetaDirectiveInvocation { name: AUTHENTICATED.to_owned(), args: IndexMap::new() }
}

/// The names of all directives that a printed schema applies. Every second part of it is a description.
fn directives(types: &str) -> BTreeSet<&str> {
    let code = types.split("\"\"\"").step_by(2);
    let names = code.flat_map(|code| code.split('@').skip(1));
    names.map(|after| after.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default()).collect()
}

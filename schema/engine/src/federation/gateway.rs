//! What is there for gateways only, where the graph says so: the federation's fields (`_service`,
//! `_entities`), the introspection of the schema, which some others may have too, and documents beyond the
//! public's limits. To everybody else the federation's fields do not exist. Found out once per document. Not
//! here: how a gateway proves that it is one (`src`).

use async_graphql::{
    Name, Positioned,
    parser::types::{
        DocumentOperations, ExecutableDocument, Field, FragmentDefinition, OperationType, Selection,
        SelectionSet,
    },
};
use std::collections::{HashMap, HashSet};

use crate::error::{Code, RequestError, SourceLocation};

/// The fields of the root that are for gateways.
const FEDERATION: [&str; 2] = ["_service", "_entities"];
const INTROSPECTION: [&str; 2] = ["__schema", "__type"];

/// What of this a caller may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clearance {
    /// Nothing.
    #[default]
    None,
    /// The schema's introspection.
    Introspection,
    /// Everything: the caller has proved to be a gateway.
    Gateway,
}

/// What a document needs a gateway for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForGateways {
    /// The first of all these fields that it asks for.
    field: Option<(Name, SourceLocation)>,
    /// The first of the federation's fields that it asks for.
    federation: Option<(Name, SourceLocation)>,
    /// It keeps within a gateway's limits, and not within everybody's: what others are told.
    beyond_public: Option<RequestError>,
}

impl ForGateways {
    /// Looks through a document; `beyond_public` is why only gateways may send one of this size, if that is so.
    pub fn of(document: &ExecutableDocument, beyond_public: Option<RequestError>) -> Self {
        let operations = match &document.operations {
            DocumentOperations::Single(operation) => vec![operation],
            DocumentOperations::Multiple(operations) => operations.values().collect(),
        };
        let first_of = |wanted: &[&str]| {
            let queries = operations.iter().filter(|operation| operation.node.ty == OperationType::Query);
            let mut visitor =
                GatewayFieldVisitor { wanted, fragments: &document.fragments, followed: HashSet::new() };
            queries.into_iter().find_map(|query| visitor.find(&query.node.selection_set.node)).map(named)
        };
        let federation = first_of(&FEDERATION);
        Self { field: first_of(&[FEDERATION, INTROSPECTION].concat()), federation, beyond_public }
    }

    /// Whether only gateways get its answer: nobody's cache may give it to others.
    pub fn is_for_them_alone(&self, gateways_only: bool) -> bool {
        self.beyond_public.is_some() || gateways_only && self.field.is_some()
    }

    /// Refuses what this caller may not ask for; `gateways_only` says whether the federation is for gateways alone.
    pub fn check(&self, gateways_only: bool, clearance: Clearance) -> Result<(), RequestError> {
        if clearance == Clearance::Gateway {
            return Ok(());
        }
        if let Some(refusal) = &self.beyond_public {
            return Err(refusal.clone());
        }
        let found = if clearance == Clearance::Introspection { &self.federation } else { &self.field };
        match found {
            Some((field, location)) if gateways_only => Err(refusal(field).at(*location)),
            _ => Ok(()),
        }
    }
}

fn named(field: &Positioned<Field>) -> (Name, SourceLocation) {
    (field.node.name.node.clone(), field.pos.into())
}

/// The federation's fields are refused in the words that validation has for fields that do not exist.
fn refusal(field: &Name) -> RequestError {
    if INTROSPECTION.contains(&field.as_str()) {
        let message = "This server does not tell its schema: introspection is for gateways and development";
        return RequestError::new(Code::IntrospectionDisabled, message);
    }
    RequestError::new(Code::ValidationFailed, format!("Cannot query field \"{field}\" on type \"Query\"."))
}

struct GatewayFieldVisitor<'w, 'd> {
    /// The names of the fields that are looked for.
    wanted: &'w [&'w str],
    fragments: &'d HashMap<Name, Positioned<FragmentDefinition>>,
    /// Each fragment is followed once: this comes before validation, and there may be cycles.
    followed: HashSet<&'d Name>,
}

impl<'d> GatewayFieldVisitor<'_, 'd> {
    /// Only the root's own fields count, through fragments on any type.
    fn find(&mut self, set: &'d SelectionSet) -> Option<&'d Positioned<Field>> {
        set.items.iter().find_map(|item| match &item.node {
            Selection::Field(field) => self.wanted.contains(&field.node.name.node.as_str()).then_some(field),
            Selection::InlineFragment(fragment) => self.find(&fragment.node.selection_set.node),
            Selection::FragmentSpread(spread) => {
                let (name, fragment) = self.fragments.get_key_value(&spread.node.fragment_name.node)?;
                if !self.followed.insert(name) {
                    return None;
                }
                self.find(&fragment.node.selection_set.node)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;

    use super::*;

    fn refused(text: &str) -> Option<(Code, String, Option<SourceLocation>)> {
        let document = ForGateways::of(&parse_query(text).expect("it parses"), None);
        assert_eq!(document.check(true, Clearance::Gateway), Ok(()), "{text}");
        assert_eq!(document.check(false, Clearance::None), Ok(()), "{text}");
        let refused = document.check(true, Clearance::None).err();
        assert_eq!(document.is_for_them_alone(true), refused.is_some(), "{text}");
        assert!(!document.is_for_them_alone(false), "{text}");
        let refused = refused?;
        Some((refused.code, refused.message, refused.locations.first().copied()))
    }

    #[test]
    fn the_fields_are_found_wherever_they_stand_at_the_root() {
        for text in [
            "{ _service { sdl } }",
            "{ a: _service { sdl } }",
            "{ ... { ... on Query { _service { sdl } } } }",
            "{ ...A ...A ...A ...B } fragment A on Query { __typename } fragment B on Query { _service { sdl \
             } }",
            "{ ...A } fragment A on Query { ...B ...A } fragment B on Query { ...A _service { sdl } }",
            "query A { __typename } query B { _service { sdl } }",
        ] {
            let (code, message, _) = refused(text).expect(text);
            assert_eq!(
                (code, message.as_str()),
                (Code::ValidationFailed, "Cannot query field \"_service\" on type \"Query\".")
            );
        }
        assert_eq!(
            refused("{ __type(name: \"A\") { name } }").expect("refused").0,
            Code::IntrospectionDisabled
        );
        let location = Some(SourceLocation { line: 1, column: 14 });
        assert_eq!(refused("{ __typename _entities { a } }").expect("refused").2, location);
    }

    #[test]
    fn introspection_may_be_had_without_the_federation() {
        let checked = |text: &str| {
            let document = ForGateways::of(&parse_query(text).expect("it parses"), None);
            document.check(true, Clearance::Introspection).map_err(|error| error.message)
        };
        assert_eq!(
            checked("{ __schema { description } ...A } fragment A on Query { __type { name } }"),
            Ok(())
        );
        for text in [
            "{ __schema { description } _service { sdl } }",
            "{ ...A } fragment A on Query { __schema { description } ... { _service { sdl } } }",
            "query A { __schema { description } } query B { _service { sdl } }",
        ] {
            assert_eq!(
                checked(text),
                Err("Cannot query field \"_service\" on type \"Query\".".to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn ordinary_fields_are_for_everybody() {
        for text in [
            "{ __typename }",
            "{ users { __typename _service } }",
            "mutation { _service }",
            "fragment A on Query { _service { sdl } } { __typename }",
        ] {
            assert_eq!(refused(text), None, "{text}");
        }
    }

    #[test]
    fn large_documents_are_for_gateways_only() {
        let refusal = RequestError::new(Code::DepthLimit, "too deep");
        let document = ForGateways::of(&parse_query("{ a }").expect("it parses"), Some(refusal.clone()));
        assert_eq!(document.check(false, Clearance::Gateway), Ok(()));
        assert_eq!(document.check(false, Clearance::None), Err(refusal));
    }
}

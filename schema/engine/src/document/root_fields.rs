//! Operations that have only certain root fields, such as those by which somebody gets a token, whatever they
//! are called and in whatever fragments they stand. Conditions are not looked at: a field that may be skipped
//! is one, too. Not here: what follows from it, which is up to the server.

use std::collections::{HashMap, HashSet};

use async_graphql::{
    Name, Positioned,
    parser::types::{FragmentDefinition, Selection, SelectionSet},
};

/// Whether there are fields of these names in it and no others; `__typename` says nothing either way.
pub(super) fn are_all(
    wanted: &[&str],
    set: &SelectionSet,
    fragments: &HashMap<Name, Positioned<FragmentDefinition>>,
) -> bool {
    let mut visitor = RootFieldVisitor { wanted, fragments, followed: HashSet::new(), found: 0 };
    visitor.has_no_other(set) && visitor.found > 0
}

struct RootFieldVisitor<'d> {
    wanted: &'d [&'d str],
    fragments: &'d HashMap<Name, Positioned<FragmentDefinition>>,
    /// Each fragment is followed once.
    followed: HashSet<&'d Name>,
    found: usize,
}

impl<'d> RootFieldVisitor<'d> {
    fn has_no_other(&mut self, set: &'d SelectionSet) -> bool {
        set.items.iter().all(|item| match &item.node {
            Selection::Field(field) => match field.node.name.node.as_str() {
                "__typename" => true,
                name => {
                    self.found += 1;
                    self.wanted.contains(&name)
                }
            },
            Selection::InlineFragment(fragment) => self.has_no_other(&fragment.node.selection_set.node),
            Selection::FragmentSpread(spread) => {
                // A document with a fragment that it does not have is refused by validation.
                let found = self.fragments.get_key_value(&spread.node.fragment_name.node);
                let Some((name, fragment)) = found else { return false };
                !self.followed.insert(name) || self.has_no_other(&fragment.node.selection_set.node)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::{parse_query, types::DocumentOperations};

    use super::*;

    fn only_signs_in(text: &str) -> bool {
        let document = parse_query(text).expect("it parses");
        let DocumentOperations::Single(operation) = &document.operations else { panic!("one operation") };
        are_all(
            &["signIn", "signUp", "refreshSession"],
            &operation.node.selection_set.node,
            &document.fragments,
        )
    }

    #[test]
    fn all_fields_of_the_root_count_wherever_they_stand() {
        for text in [
            "mutation { signIn(input: {}) { accessToken } }",
            "mutation { __typename a: signIn(input: {}) { user { forms { nodes { id } } } } }",
            "mutation { signUp(input: {}) { accessToken } b: refreshSession(input: {}) { accessToken } }",
            "mutation { ... { ... on Mutation { ...A } } } fragment A on Mutation { ...B } fragment B on Mutation { signIn { x } }",
            "mutation { ...A ...A } fragment A on Mutation { signIn { x } }",
        ] {
            assert!(only_signs_in(text), "{text}");
        }
        for text in [
            "mutation { __typename }",
            "mutation { signOut { x } }",
            "mutation { signIn: signOut { x } }",
            "mutation { signIn { x } signOut { x } }",
            "mutation { signIn { x } signOut @skip(if: true) { x } }",
            "mutation { signIn { x } ... { ...A } } fragment A on Mutation { signIn { x } createForm { x } }",
            "mutation { signIn { x } ...Nothing }",
            "mutation { SignIn { x } }",
        ] {
            assert!(!only_signs_in(text), "{text}");
        }
    }
}

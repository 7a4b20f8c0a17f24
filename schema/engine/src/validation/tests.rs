//! Each rule once, with its message and its places, and what is costly. Verdicts on documents at large are
//! compared with graphql-js (`tests/conformance`), on the same schema.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use async_graphql::parser::parse_schema;

use super::*;
use crate::{limits::Limits, syntax};

static TYPES: LazyLock<SchemaTypes> = LazyLock::new(|| {
    let sdl = include_str!("../../../../tests/conformance/language/schema.graphql");
    SchemaTypes::of(&parse_schema(sdl).expect("SDL"), sdl)
});

fn errors(document: &str) -> Vec<RequestError> {
    let tree =
        syntax::parse(document, &Limits::gateway()).unwrap_or_else(|refusal| panic!("{refusal}: {document}"));
    validate(&tree, &TYPES, true)
}

#[track_caller]
fn refused(document: &str, message: &str) {
    let errors = errors(document);
    let messages: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
    assert!(messages.contains(&message), "{document}: {messages:?}");
    assert!(errors.iter().all(|error| error.code == Code::ValidationFailed && !error.locations.is_empty()));
    assert!(errors.iter().all(|error| !error.message.contains('\n')), "one line");
}

#[test]
fn documents_that_fit_are_valid() {
    for document in [
        "{ me { id name(short: true) ... on Named { id } ...F } } fragment F on User { pets { ... on Dog { barks(loud: false) } } }",
        "query A { me { id } } mutation B { add(input: {name: \"x\"}) { id } } subscription C { added { id } }",
        "query($b: Boolean!, $c: [Color!] = [RED]) { me @skip(if: $b) { id } pets(colors: $c, where: {name: \"x\"}) { id } }",
        "query($id: ID!) { lookup(by: {id: $id}) { id } }",
        "query($short: Boolean = true) { any(flag: $short, json: {a: [1, {b: null}]}) me { name(short: $short) } }",
        "{ search(text: \"x\") { __typename ... on Dog { n: age } ... on Rock { w: weight } } }",
        "{ node(id: 5) { ... on Dog { a: size } ... on Cat { a: size } id id } }",
        "{ a: me { id } a: me { name } }",
        "query Q($m: String) @everywhere(mark: $m) @everywhere { me { id } }",
        "query($n: Int = 1 @once) { me { pets(first: $n) { id } } }",
        "{ __schema { types { fields(includeDeprecated: true) { name } } } __type(name: \"A\") { isOneOf } }",
        "{ matrix(rows: 1, weights: [[1.5, 2, null], null]) search(text: \"\", filter: {since: \"2026-01-02T03:04:05Z\"}) { __typename } }",
        "subscription { ...S } fragment S on Subscription { ...S2 ...S2 } fragment S2 on Subscription { added { id } }",
        "query($w: [[PetInput!]]!) { pets(where: $w) { id } }",
    ] {
        assert_eq!(errors(document), [], "{document}");
    }
}

#[test]
fn definitions_have_names_of_their_own_and_types_that_exist() {
    refused(
        "{ me { id } } query A { me { id } }",
        "This anonymous operation must be the only defined operation.",
    );
    refused("query A { me { id } } query A { me { id } }", "There can be only one operation named \"A\".");
    refused(
        "{ me { ...F } } fragment F on User { id } fragment F on User { id }",
        "There can be only one fragment named \"F\".",
    );
    refused("{ me { ... on Usr { id } } }", "Unknown type \"Usr\". Did you mean \"User\"?");
    refused("{ me { id } } fragment F on User { id }", "Fragment \"F\" is never used.");
    refused("{ me { ...G } }", "Unknown fragment \"G\".");
    refused(
        "{ me { ...F } } fragment F on Color { id }",
        "Fragment \"F\" cannot condition on non composite type \"Color\".",
    );
    refused("{ me { ... on Color { id } } }", "Fragment cannot condition on non composite type \"Color\".");
    refused(
        "{ me { ... on Dog { id } } }",
        "Fragment cannot be spread here as objects of type \"User\" can never be of type \"Dog\".",
    );
    refused(
        "{ me { ...F } } fragment F on Stone { __typename }",
        "Fragment \"F\" cannot be spread here as objects of type \"User\" can never be of type \"Stone\".",
    );
}

#[test]
fn fields_and_arguments_exist() {
    refused(
        "{ me { nam } }",
        "Cannot query field \"nam\" on type \"User\". Did you mean \"name\" or \"at\"?",
    );
    refused("{ search(text: \"\") { id } }", "Cannot query field \"id\" on type \"Found\".");
    refused(
        "{ me { id { a } } }",
        "Field \"id\" of type \"ID!\" must not have a selection since its type has no subfields.",
    );
    refused("{ me }", "Field \"me\" of type \"User\" must have a selection of subfields.");
    refused(
        "{ me { name(shor: true) } }",
        "Unknown argument \"shor\" on field \"User.name\". Did you mean \"short\"?",
    );
    refused("{ me { name(short: true, short: true) } }", "There can be only one argument named \"short\".");
    refused(
        "{ user { id } }",
        "Argument \"Query.user(id:)\" of type \"ID!\" is required, but it was not provided.",
    );
    refused(
        "{ me { id @skip } }",
        "Argument \"@skip(if:)\" of type \"Boolean!\" is required, but it was not provided.",
    );
    refused("{ me { id @skip(if: true, x: 1) } }", "Unknown argument \"x\" on directive \"@skip\".");
    refused("{ me { id @skp(if: true) } }", "Unknown directive \"@skp\".");
    refused(
        "query($a: Int @deprecated) { me { pets(first: $a) { id } } }",
        "Directive \"@deprecated\" may not be used on VARIABLE_DEFINITION.",
    );
    refused("query @skip(if: true) { me { id } }", "Directive \"@skip\" may not be used on QUERY.");
    refused("{ me @once @once { id } }", "The directive \"@once\" can only be used once at this location.");
}

#[test]
fn literals_are_of_their_types() {
    let wrong = "Expected a value of type";
    refused("{ me { pets(first: 2147483648) { id } } }", &format!("{wrong} \"Int\", found a number."));
    refused("{ me { pets(first: 1.0) { id } } }", &format!("{wrong} \"Int\", found a number."));
    refused("{ me { name(short: \"true\") } }", &format!("{wrong} \"Boolean\", found a string."));
    refused("{ user(id: 1.5) { id } }", &format!("{wrong} \"ID\", found a number."));
    refused("{ user(id: null) { id } }", &format!("{wrong} \"ID!\", found null."));
    refused("{ any(at: \"yesterday\") }", &format!("{wrong} \"DateTime\", found a string."));
    refused("{ any(json: [RED]) }", &format!("{wrong} \"JSON\", found a list."));
    refused("{ any(float: 1e999) }", &format!("{wrong} \"Float\", found a number."));
    refused("{ pets(colors: [\"RED\"]) { id } }", "Expected a value of the enum \"Color\", found a string.");
    refused("{ pets(colors: RED_) { id } }", "Expected a value of the enum \"Color\". Did you mean \"RED\"?");
    refused(
        "query($c: Color = \"RED\") { required(filter: {}, color: $c) }",
        "Expected a value of the enum \"Color\", found a string.",
    );
    refused("{ pets(where: 5) { id } }", "Expected an object of type \"PetInput\", found a number.");
    refused(
        "{ pets(where: {color: RED}) { id } }",
        "Field \"PetInput.name\" of required type \"String!\" was not provided.",
    );
    refused(
        "{ pets(where: {name: \"\", nam: 1}) { id } }",
        "Field \"nam\" is not defined by type \"PetInput\". Did you mean \"name\" or \"at\"?",
    );
    refused(
        "{ pets(where: {name: \"a\", name: \"b\"}) { id } }",
        "There can be only one input field named \"name\".",
    );
    refused("{ any(json: {a: {b: 1, b: 2}}) }", "There can be only one input field named \"b\".");
    let one_of = "Exactly one of the fields of \"Lookup\" must be given, and it must not be null.";
    refused("{ lookup(by: {}) { id } }", one_of);
    refused("{ lookup(by: {id: 1, name: \"x\"}) { id } }", one_of);
    refused("{ lookup(by: {id: null}) { id } }", one_of);
}

#[test]
fn variables_fit_their_places() {
    refused("query($a: User) { me { id } }", "Variable \"$a\" cannot be non-input type \"User\".");
    refused(
        "query($a: Int, $a: Int) { me { pets(first: $a) { id } } }",
        "There can be only one variable named \"$a\".",
    );
    refused("query Q { user(id: $a) { id } }", "Variable \"$a\" is not defined by operation \"Q\".");
    refused("query Q($a: Int) { me { id } }", "Variable \"$a\" is never used in operation \"Q\".");
    let misplaced = |ty: &str, wanted: &str| {
        format!("Variable \"$a\" of type \"{ty}\" used in position expecting type \"{wanted}\".")
    };
    refused("query($a: Boolean) { me @skip(if: $a) { id } }", &misplaced("Boolean", "Boolean!"));
    refused("query($a: [ID]!) { nodes(ids: $a) { id } }", &misplaced("[ID]!", "[ID!]!"));
    refused("query($a: String) { any(at: $a) }", &misplaced("String", "DateTime"));
    refused("query($a: Color!) { pets(colors: $a) { id } }", &misplaced("Color!", "[Color!]"));
    refused("query($a: Boolean = null) { me @skip(if: $a) { id } }", &misplaced("Boolean", "Boolean!"));
    refused(
        "query($a: Float) { any(json: 1) pets(where: {name: \"\", at: [[{x: $a}]]}) { id } }",
        &misplaced("Float", "Float!"),
    );
    refused(
        "query($a: Int) { me { ...F } } fragment F on User { name(short: $a) }",
        &misplaced("Int", "Boolean"),
    );
    refused(
        "query($a: ID) { lookup(by: {id: $a}) { id } }",
        "Variable \"$a\" is of type \"ID\" but must be non-nullable to be used for OneOf Input Object \"Lookup\".",
    );
}

#[test]
fn fields_of_one_key_can_be_merged() {
    let conflict = |key: &str, why: &str| {
        format!(
            "Fields \"{key}\" conflict because {why}. Use different aliases on the fields to fetch both if this was intentional."
        )
    };
    let types = |one: &str, other: &str| format!("they return conflicting types \"{one}\" and \"{other}\"");
    let different = "\"id\" and \"name\" are different fields";
    refused("{ me { a: id a: name } }", &conflict("a", different));
    refused("{ me { a: id ...F } } fragment F on User { ... { a: name } }", &conflict("a", different));
    refused("{ a: me { x: id } a: me { x: name } }", &conflict("x", different));
    refused(
        "{ me { name(short: true) name(short: false) } }",
        &conflict("name", "they have differing arguments"),
    );
    refused("{ me { name(short: true) name } }", &conflict("name", "they have differing arguments"));
    refused(
        "{ node(id: 1) { ... on Dog { a: age } ... on Cat { a: age } } }",
        &conflict("a", &types("Int!", "Int")),
    );
    refused(
        "{ node(id: 1) { ... on Dog { a: size } ... on User { a: size } } }",
        &conflict("a", &types("Float", "Int")),
    );
    refused(
        "{ node(id: 1) { ... on User { a: best { __typename } } ... on Dog { a: age } } }",
        &conflict("a", &types("Found", "Int!")),
    );
    refused(
        "{ node(id: 1) { ... on User { p: pets { x: size } } ... on Dog { p: friends { x: age } } } }",
        &conflict("p", &types("[Pet!]!", "[Dog!]")),
    );
    refused(
        "{ node(id: 1) { ... on Cat { o: owner { x: age } } ... on Dog { o: owner { x: color } } } }",
        &conflict("x", &types("Int", "String")),
    );
    // On objects that cannot be one only the shape counts; an interface's field meets those of all.
    assert_eq!(
        errors("{ node(id: 1) { ... on Dog { a: owner { id } } ... on Cat { a: owner { name } } } }"),
        []
    );
    assert_eq!(
        errors("{ node(id: 1) { ... on Dog { a: color } ... on Cat { a: color } ... on Pet { a: color } } }"),
        []
    );
    refused(
        "{ node(id: 1) { ... on Dog { a: id } ... on Cat { a: id } ... on Named { a: name } } }",
        &conflict("a", different),
    );
    assert_eq!(
        errors(
            "{ a: search(text: \"x\", first: 1) { __typename } a: search(first: 1, text: \"x\") { __typename } }"
        ),
        []
    );
}

#[test]
fn a_subscription_has_one_root_field() {
    refused(
        "subscription S { added { id } moved { id } }",
        "Subscription \"S\" must select only one top level field.",
    );
    refused(
        "subscription { __typename }",
        "Anonymous Subscription must not select an introspection top level field.",
    );
    let conditional =
        "Anonymous Subscription must not use `@skip` or `@include` directives in the top level selection.";
    refused("subscription { added @skip(if: false) { id } }", conditional);
    refused("subscription { ... @include(if: true) { added { id } } }", conditional);
}

#[test]
fn errors_are_at_their_places_and_of_many_the_first_are_told() {
    let found = errors("{\n  me { id }\n  user(id: 1) { nope }\n}");
    assert_eq!(found[0].locations, [SourceLocation { line: 3, column: 17 }]);
    let found = errors("query($a: Boolean) { me @skip(if: $a) { id } }");
    let columns: Vec<usize> = found[0].locations.iter().map(|location| location.column).collect();
    assert_eq!(columns, [7, 35]);
    assert_eq!(errors(&format!("{{ me {{ {} }} }}", "nope ".repeat(100))).len(), MOST_ERRORS);
}

#[test]
fn without_suggestions_no_name_of_the_schema_is_told() {
    for document in [
        "{ me { nam } }",
        "{ me { name(shor: true) } }",
        "{ me { ... on Usr { id } } }",
        "{ pets(colors: RED_) { id } }",
    ] {
        let tree = syntax::parse(document, &Limits::public()).expect("a document");
        let errors = validate(&tree, &TYPES, false);
        assert!(errors.iter().all(|error| !error.message.contains("mean")), "{errors:?}");
    }
}

/// Documents that are as long as they may be and made so that comparing all with all would be slow.
#[test]
fn hostile_documents_are_judged_in_time() {
    let times = |n: usize, make: &dyn Fn(usize) -> String| (0..n).map(make).collect::<String>();
    let nested = |levels: usize, leaf: &str| {
        let types = ["Dog", "Cat"];
        (0..levels).fold(leaf.to_owned(), |inner, level| {
            let each = types.map(|ty| format!("... on {ty} {{ friends(first: {level}) {{ {inner} }} }}"));
            each.concat()
        })
    };
    let documents = [
        ("one field many times", format!("{{ me {{ {} }} }}", "id ".repeat(14_000))),
        ("one field with a set many times", format!("{{ me {{ {} }} }}", "pets { id name } ".repeat(2_400))),
        ("many keys twice", format!("{{ me {{ {0} {0} }} }}", times(2_000, &|n| format!("a{n}:id ")))),
        ("sets in sets", format!("{{ node(id: 1) {{ {} }} }}", nested(8, "id name color size"))),
        (
            "fragments that spread all others",
            format!(
                "{{ me {{ ...F0 }} }} {}",
                times(48, &|n| {
                    let spreads = times(48 - n - 1, &|m| format!("...F{} ", n + m + 1));
                    format!("fragment F{n} on User {{ id pets {{ id }} {spreads} }} ")
                })
            ),
        ),
        ("many arguments", format!("{{ me {{ name({}) }} }}", "short: true ".repeat(4_900))),
        ("many variables", format!("query({}) {{ me {{ id }} }}", times(3_700, &|n| format!("$a{n}:Int ")))),
        ("many input fields", format!("{{ any(json: {{{}}}) }}", times(4_900, &|n| format!("a{n}:1 ")))),
        (
            "many types",
            format!("{{ node(id: 1) {{ {} }} }}", "... on Dog { id } ... on Cat { id } ".repeat(1_100)),
        ),
    ];
    let limits = Limits { selections: 100_000, nesting: 64, depth: 64, aliases: 5_000, ..Limits::gateway() };
    let most = Duration::from_millis(if cfg!(debug_assertions) { 1_000 } else { 20 });
    for (name, document) in documents {
        let elapsed = (0..5).map(|_| {
            let started = Instant::now();
            match syntax::parse(&document, &limits) {
                Ok(tree) => drop(validate(&tree, &TYPES, true)),
                Err(refusal) => {
                    assert_ne!(refusal.kind, crate::limits::LimitErrorKind::Parse, "{name}: {refusal}");
                }
            }
            started.elapsed()
        });
        let least = elapsed.min().expect("several");
        assert!(least < most, "{name}: {least:?}");
    }
}

#[test]
fn too_much_to_compare_is_refused() {
    // Each level doubles the sets that have to be looked at.
    let set = (0..14).fold("id".to_owned(), |inner, _| {
        format!(
            "friends {{ {inner} }} ... on Dog {{ friends {{ name }} }} ... on Cat {{ friends {{ size }} }}"
        )
    });
    let limits = Limits { selections: 100_000, nesting: 64, depth: 64, ..Limits::gateway() };
    let document = format!("{{ pets {{ {set} }} }}");
    let tree = syntax::parse(&document, &limits).expect("within the limits");
    let started = Instant::now();
    let errors = validate(&tree, &TYPES, false);
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(
        errors.iter().all(|error| error.code != Code::CostLimit),
        "sets that come up again are looked at once"
    );
}

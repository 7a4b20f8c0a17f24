//! What the grammar of September 2025 has that is easily missed, and what messages say. Verdicts on documents
//! at large are compared with graphql-js (`tests/conformance`), trees with the library's
//! (`limits::tests::differential`).

use async_graphql::parser::types::DocumentOperations;
use async_graphql_value::Value;

use super::*;

fn read(text: &str) -> SyntaxTree<'_> {
    parse(text, &Limits::public()).unwrap_or_else(|refusal| panic!("{refusal}: {text}"))
}

#[test]
fn descriptions_stand_before_operations_fragments_and_variables() {
    let tree = read(
        "\"Who is asking.\" query Q(\"An id.\" $id: ID, \"\"\"More.\"\"\" $n: Int = 1 @d) { me { ...F } }\n\
         \"\"\"\nA part.\n\"\"\" fragment F on User { id }",
    );
    assert_eq!((tree.definitions.len(), tree.variables.len()), (2, 2));
    let DocumentOperations::Multiple(operations) = tree.lower().operations else { panic!("a name") };
    let operation = &operations["Q"].node;
    let defaults: Vec<_> = operation.variable_definitions.iter().map(|of| of.node.directives.len()).collect();
    assert_eq!(defaults, [0, 1]);
    for text in ["\"x\" { a }", "\"x\" \"y\" query { a }", "\"x\"", "{ \"x\" a }", "{ a(\"x\" b: 1) }"] {
        assert!(parse(text, &Limits::public()).is_err(), "{text}");
    }
}

#[test]
fn strings_are_what_they_mean() {
    let tree = read("{ a(b: \"\\u{1F600}\\uD83D\\uDE00\\n\", c: \"\"\"\n    one\n      two\n  \"\"\") }");
    let DocumentOperations::Single(operation) = tree.lower().operations else { panic!("no name") };
    let async_graphql::parser::types::Selection::Field(field) =
        &operation.node.selection_set.node.items[0].node
    else {
        panic!("a field")
    };
    let values: Vec<_> = field.node.arguments.iter().map(|(_, value)| value.node.clone()).collect();
    assert_eq!(values, [Value::String("😀😀\n".to_owned()), Value::String("one\n  two".to_owned())]);
}

#[test]
fn types_are_printed_as_they_are_written() {
    for ty in ["Int", "Int!", "[Int]", "[Int!]!", "[[[Int!]]!]", "[[Int]!]!"] {
        let text = format!("query($a: {ty}) {{ a }}");
        let tree = read(&text);
        let variable = &tree.variables[0];
        assert_eq!(variable.ty.print(variable.ty.name.text), ty);
        let DocumentOperations::Single(operation) = tree.lower().operations else { panic!("no name") };
        assert_eq!(operation.node.variable_definitions[0].node.var_type.node.to_string(), ty);
    }
}

#[test]
fn a_syntax_error_names_the_token_and_no_string() {
    let long = "x".repeat(100);
    for (document, line, column, wanted) in [
        ("{ me { id } } }", 1, 15, "Unexpected '}'."),
        ("{ me(id: ) }", 1, 10, "Unexpected ')'."),
        ("query {\n  me %\n}", 2, 6, "Unexpected character '%'."),
        ("query {\n  a b: }", 2, 8, "Unexpected '}'."),
        ("{ f(a: \"hunter2\" \"hunter3\") }", 1, 18, "Unexpected string."),
        ("{ f(a: \"hun\" ter2) }", 1, 18, "Unexpected ')'."),
        ("{ f(a: \"hun\" ter2 x) }", 1, 19, "Unexpected name."),
        ("{ f(a: \"hunter2\") { name name( } }", 1, 32, "Unexpected '}'."),
        ("{ f(a: 12 34) }", 1, 11, "Unexpected number."),
        ("{ ö }", 1, 3, "Unexpected character 'ö'."),
        ("{ a", 1, 4, "Unexpected end of the document."),
        ("query q { a } x", 1, 15, "Unexpected name \"x\"."),
        ("query($a: Int = $b) { a }", 1, 17, "Unexpected variable: this value must be constant."),
        ("type A { b: C }", 1, 1, "Unexpected name \"type\"."),
    ] {
        let refusal = parse(document, &Limits::public()).expect_err(document);
        assert_eq!(refusal.message, format!("Syntax Error: {wanted}"), "{document}");
        assert_eq!((refusal.line, refusal.column), (line, column), "{document}");
    }
    let document = format!("{{ a }} {long}");
    let refusal = parse(&document, &Limits::public()).expect_err("no definition");
    assert_eq!(refusal.message, format!("Syntax Error: Unexpected name \"{}…\".", &long[..64]));
}

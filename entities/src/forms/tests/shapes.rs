//! What stands in the place of a rule or a list of choices and is none, and choices with white space around them.

use serde_json::{Value, json};

use super::{calculated, form, messages, problems, text, within};
use crate::forms::{
    compiled::{CompiledForm, Draft},
    pipeline,
};

/// `field` with something added.
fn with(mut field: Value, key: &str, value: Value) -> Value {
    field[key] = value;
    field
}

fn choosing(kind: &str, choices: Value) -> Value {
    json!({ "key": "c", "type": kind, "label": "C", "choices": choices })
}

/// All values that are no object, and what they are called.
fn no_objects() -> [(Value, &'static str); 8] {
    [
        (json!("${age} > 5"), "a text"),
        (json!("age > 5"), "a text"),
        (json!(""), "a text"),
        (json!(5), "a number"),
        (json!(null), "null"),
        (json!([]), "a list"),
        (json!([{ "var": "a" }]), "a list"),
        (json!(true), "a boolean"),
    ]
}

#[test]
fn a_rule_without_an_object_is_refused_before_publication() {
    for (given, name) in no_objects() {
        let mut fields = vec![
            ("relevant", with(text("b"), "relevant", given.clone())),
            ("calculate", calculated("b", given.clone())),
            ("valid/0/rule", with(text("b"), "valid", json!([{ "rule": given, "message": "m" }]))),
        ];
        if !given.is_boolean() {
            fields.push(("required", with(text("b"), "required", given.clone())));
        }
        for (place, field) in fields {
            for (document, at) in [
                (form(json!([text("a"), field])), "/fields/1"),
                (form(json!([text("a"), within("REPEAT", "r", json!([field]))])), "/fields/1/fields/0"),
            ] {
                let found = messages(&document);
                let begins = format!("{at}/{place}: Expected ");
                assert!(found.len() == 1 && found[0].starts_with(&begins), "{given} {found:?}");
                assert!(found[0].contains(&format!("but {name} came.")), "{found:?}");
                assert!(found[0].contains("{\">\": [{\"var\": \"age\"}, 5]}"), "{found:?}");
                let published = CompiledForm::published(&document).expect("older versions have such rules");
                let ran = pipeline::run(&published, json!({ "a": "x" }));
                assert!(ran.is_ok() || place == "required", "{document}");
            }
        }
    }
    for required in [json!(true), json!(false), json!({ "!!": [{ "var": "a" }] })] {
        let document = form(json!([text("a"), with(text("b"), "required", required)]));
        assert!(CompiledForm::compile(&document).is_ok(), "{document}");
    }
}

#[test]
fn a_rule_without_fields_is_refused_except_constants() {
    let always = json!({ "==": [1, 1] });
    for (place, field) in [
        ("relevant", with(text("b"), "relevant", always.clone())),
        ("required", with(text("b"), "required", always.clone())),
        ("valid/0/rule", with(text("b"), "valid", json!([{ "rule": always, "message": "m" }]))),
    ] {
        let document = form(json!([field]));
        assert_eq!(problems(&document), [(format!("/fields/0/{place}"), "logic")]);
        assert!(CompiledForm::published(&document).is_ok());
    }
    assert!(CompiledForm::compile(&form(json!([calculated("v", json!({ "cat": ["v", 1] }))]))).is_ok());
}

#[test]
fn choices_without_a_list_are_refused_before_publication() {
    for kind in ["SELECT_ONE", "SELECT_MANY"] {
        for (given, name) in [
            (json!("a,b"), "a text"),
            (json!({ "a": "A" }), "an object"),
            (json!(5), "a number"),
            (json!(null), "null"),
        ] {
            let document = form(json!([choosing(kind, given)]));
            let wanted =
                format!("/fields/0/choices: Expected a list of {{\"value\", \"label\"}}, but {name} came.");
            assert_eq!(messages(&document), [wanted]);
            let published = CompiledForm::published(&document).expect("older versions have such choices");
            assert!(pipeline::run(&published, json!({})).is_ok());
        }
    }
}

#[test]
fn choices_are_made_tidy_as_answers_are_and_then_compared() {
    let choice = |value: &str| json!({ "value": value, "label": "L" });
    for kind in ["SELECT_ONE", "SELECT_MANY"] {
        let draft = Draft::examine(&form(json!([choosing(
            kind,
            json!([choice("\u{feff} a\u{a0}"), choice("b c")])
        )])));
        assert_eq!(draft.document["fields"][0]["choices"], json!([choice("a"), choice("b c")]));
        assert!(draft.form.expect("it is right").json_schema().to_string().contains("[\"a\",\"b c\"]"));
        for (second, rule) in
            [(" a", "uniqueItems"), ("a\u{200b}", "uniqueItems"), (" \u{2060}", "maxLength")]
        {
            let document = form(json!([within(
                "GROUP",
                "g",
                json!([choosing(kind, json!([choice("a"), choice(second)]))])
            )]));
            assert_eq!(problems(&document), [("/fields/0/fields/0/choices/1/value".to_owned(), rule)]);
        }
    }
    // Older versions keep theirs.
    let old = |choices: Value| {
        CompiledForm::published(&form(json!([choosing("SELECT_ONE", choices)]))).expect("it was right")
    };
    let both = old(json!([choice(" a"), choice("a")]));
    assert_eq!(pipeline::run(&both, json!({ "c": "a" })), Ok(json!({ "c": "a" })));
    assert_eq!(pipeline::run(&old(json!([choice(" a")])), json!({ "c": "a" })), Ok(json!({ "c": " a" })));
}

#[test]
fn a_compared_text_with_outer_white_space_is_refused() {
    let c = json!({ "var": "c" });
    for (kind, rule, is_refused) in [
        ("SELECT_ONE", json!({ "==": [c, " a"] }), true),
        ("SELECT_ONE", json!({ "!==": ["a\u{feff}", c] }), true),
        ("SELECT_ONE", json!({ "in": [c, ["a", "b "]] }), true),
        ("SELECT_ONE", json!({ "!=": [c, " "] }), true),
        ("SELECT_MANY", json!({ "in": [" a", c] }), true),
        ("SELECT_MANY", json!({ "some": [c, { "==": [{ "var": "" }, "a "] }] }), true),
        ("SELECT_ONE", json!({ "==": [c, "a b"] }), false),
        ("SELECT_ONE", json!({ "in": [" ", c] }), false),
        ("SELECT_ONE", json!({ "==": [{ "cat": [c, " "] }, "a "] }), false),
    ] {
        let choices = json!([{ "value": "a", "label": "A" }, { "value": "b", "label": "B" }]);
        let document = form(json!([choosing(kind, choices), with(text("t"), "relevant", rule.clone())]));
        assert_eq!(CompiledForm::compile(&document).is_err(), is_refused, "{rule}");
        if is_refused {
            assert!(
                messages(&document)[0].contains("white space") || rule.to_string().contains("\" \""),
                "{rule}"
            );
        }
        assert!(CompiledForm::published(&document).is_ok(), "{rule}");
    }
}

#[test]
fn messages_name_the_type_that_came() {
    let number =
        |limits: Value| json!({ "key": "n", "type": "INTEGER", "label": "N", "constraints": limits });
    for (document, wanted) in [
        (form(json!([5])), "/fields/0: Expected an object, but a number came."),
        (form(json!("x")), "/fields: Expected a list of fields, but a text came."),
        (json!([]), ": Expected an object, but a list came."),
        (
            form(json!([with(text("a"), "label", json!(5))])),
            "/fields/0/label: Expected a text or an object of texts by language, but a number came.",
        ),
        (
            form(json!([with(text("a"), "key", json!(null))])),
            "/fields/0/key: Expected a text, but null came.",
        ),
        (
            form(json!([with(text("a"), "constraints", json!(null))])),
            "/fields/0/constraints: Expected an object, but null came.",
        ),
        (
            form(json!([number(json!({ "min": "5" }))])),
            "/fields/0/constraints/min: Expected a whole number from -9007199254740991 to 9007199254740991, but a text came.",
        ),
        (
            form(json!([number(json!({ "min": 1.5 }))])),
            "/fields/0/constraints/min: Expected a whole number from -9007199254740991 to 9007199254740991, not 1.5.",
        ),
        (
            form(json!([choosing("SELECT_ONE", json!([{ "value": 1, "label": "L" }]))])),
            "/fields/0/choices/0/value: Expected a text of 1 to 200 characters, but a number came.",
        ),
    ] {
        assert_eq!(messages(&document), [wanted]);
    }
}

//! Rules: what is refused and what to write instead, what is published with a warning, and the values that matter most.
//! Every operator with every type is in `tests/conformance`.

#![expect(clippy::needless_pass_by_value, reason = "JSON is written where it is used")]

use serde_json::{Value, json};

use crate::forms::{
    compiled::{CompiledForm, Draft},
    pipeline,
};

/// A form with one question of each kind, and `value`, which is calculated so.
fn form(rule: Value) -> Value {
    let choices = json!([{ "value": "maize", "label": "M" }, { "value": "rice", "label": "R" }]);
    let of = |key: &str, kind: &str| json!({ "key": key, "type": kind, "label": "L" });
    json!({ "schema": 1, "fields": [
        of("age", "INTEGER"), of("weight", "DECIMAL"), of("agrees", "BOOLEAN"), of("name", "TEXT"), of("day", "DATE"),
        { "key": "crop", "type": "SELECT_ONE", "label": "L", "choices": choices },
        { "key": "crops", "type": "SELECT_MANY", "label": "L", "choices": choices },
        { "key": "g", "type": "GROUP", "fields": [of("n", "INTEGER")] },
        { "key": "members", "type": "REPEAT", "fields": [of("n", "INTEGER"), of("t", "TEXT")] },
        { "key": "value", "type": "CALCULATED", "calculate": rule },
    ] })
}

/// The calculated value.
fn value(rule: &Value, answers: &Value) -> Value {
    let form =
        Draft::examine(&form(rule.clone())).form.unwrap_or_else(|problems| panic!("{rule}: {problems:?}"));
    let stored =
        pipeline::run(&form, answers.clone()).unwrap_or_else(|problems| panic!("{answers}: {problems:?}"));
    stored.get("value").cloned().unwrap_or_default()
}

fn of(name: &str) -> Value {
    json!({ "var": name })
}

#[test]
fn meaningless_rules_are_refused_with_an_alternative() {
    let answered = "{\"!==\": [x, null]}";
    let cases = [
        (json!({ "===": [of("name"), ""] }), answered),
        (json!({ "!==": ["", of("age")] }), answered),
        (json!({ "!==": [of("crop"), ""] }), answered),
        (json!({ "if": [{ "!==": [of("day"), ""] }, 1, 2] }), answered),
        (json!({ "some": [of("members"), { "===": [of("t"), ""] }] }), answered),
        (json!({ "==": [of("crops"), ""] }), answered),
        (json!({ "!=": [of("members"), null] }), answered),
        (json!({ "==": [of("g"), null] }), answered),
        (json!({ "!!": [of("members")] }), "{\"some\": [list, true]}"),
        (json!({ "!": of("members") }), "{\"none\": [list, true]}"),
        (json!({ "===": [of("age"), "5"] }), "numbers with numbers"),
        (json!({ "==": [of("age"), "five"] }), "`age` is not a text"),
        (json!({ "<": ["a", of("name"), "c"] }), "{\"and\": [{\"<\": [a, b]}"),
        (json!({ "!==": [1, of("age"), 3] }), "{\"and\": [{\"!==\": [a, b]}"),
        (json!({ "+": [of("age"), "five"] }), "Invalid number"),
        (json!({ "+": [{ "map": [of("members"), of("n")] }] }), "{\"+\": list}"),
        (json!({ "-": [of("name")] }), "{\"-\": [0, x]}"),
        (json!({ "max": [of("name"), 1] }), "`name` is not a number"),
        (json!({ "max": [{ "map": [of("members"), of("n")] }] }), "{\"max\": list}"),
        (json!({ "cat": [of("members"), ""] }), "cannot be written as text"),
        (json!({ "in": ["x", of("age")] }), "`age` is neither"),
        (json!({ "in": [of("age"), ["1", "2"]] }), "numbers are in lists of numbers"),
        (json!({ "length": [of("age")] }), "`age` does not have a length"),
        (json!({ "if": [of("agrees"), { "/": [1, 0] }, 2] }), "whatever the answers are"),
        (json!({ "and": of("agrees") }), "`and` takes a list"),
        (json!({ "==": [of("age")] }), "at least two"),
        (json!({ "filter": [of("members"), true] }), "must depend on it"),
        (json!({ "some": [of("name"), true] }), "`name` is not a list"),
        (
            json!({ "reduce": [{ "map": [of("members"), of("n")] }, { "+": [of("accumulator"), of("current")] }, 1] }),
            "begins at 0",
        ),
    ];
    for (rule, advice) in cases {
        let problems = CompiledForm::compile(&form(rule.clone())).expect_err("it is refused");
        assert!(problems.len() == 1 && problems[0].message.contains(advice), "{rule}: {problems:?}");
        assert!(problems[0].pointer.starts_with("/fields/9/calculate"), "{problems:?}");
        // Older versions have such rules.
        let form = CompiledForm::published(&form(rule.clone()))
            .unwrap_or_else(|problems| panic!("{rule}: {problems:?}"));
        for answers in
            [json!({}), json!({ "age": 5, "name": "b", "crops": ["rice"], "members": [{ "n": 1 }] })]
        {
            assert!(pipeline::run(&form, answers).is_ok(), "{rule}");
        }
    }
}

#[test]
fn other_regex_dialects_are_refused_with_an_alternative() {
    for (rule, advice) in [
        (json!({ "missing": ["age"] }), "{\"!==\": [x, null]}"),
        (json!({ "!": [{ "missing_some": [1, ["age", "name"]] }] }), "{\"!==\": [x, null]}"),
        (json!({ "==": [{ "var": ["age", ""] }, ""] }), "{\"!==\": [x, null]}, x, other]}"),
        (json!({ "substr": [of("name"), 0, 1] }), "Known operators: var =="),
        (json!({ "len": [of("name")] }), "Did you mean `length`?"),
    ] {
        let problems = CompiledForm::compile(&form(rule.clone())).expect_err("it is refused");
        assert!(problems.len() == 1 && problems[0].message.contains(advice), "{rule}: {problems:?}");
    }
}

#[test]
fn a_version_with_many_comparisons_of_three_keeps_taking_answers() {
    let between = json!({ "<": [0, of("age"), of("weight"), 9] });
    let definition = form(json!({ "and": vec![between; 60] }));
    let problems = CompiledForm::compile(&definition).expect_err("it counts twice");
    assert_eq!(problems.iter().map(|problem| problem.rule).collect::<Vec<_>>(), ["maxItems"]);
    let form = CompiledForm::published(&definition).expect("it has 301 operators and values");
    assert!(pipeline::run(&form, json!({ "age": 1, "weight": "2" })).is_ok());
}

#[test]
fn misleading_rules_are_published_with_a_warning() {
    for (rule, warned) in [
        (json!({ "!=": [of("age"), ""] }), true),
        (json!({ "==": ["", of("name")] }), true),
        (json!({ ">": [of("weight"), ""] }), true),
        (json!({ "!": [{ "some": [of("members"), { "!=": [of("t"), ""] }] }] }), true),
        (json!({ "!=": [of("age"), null] }), true),
        (json!({ "==": [null, of("agrees")] }), true),
        (json!({ "in": ["", of("name")] }), true),
        (json!({ "!=": [of("name"), null] }), false),
        (json!({ "!==": [of("age"), null] }), false),
        (json!({ "!!": [of("name")] }), false),
        (json!({ "==": [of("crop"), "rice"] }), false),
    ] {
        let draft = Draft::examine(&form(rule.clone()));
        assert!(draft.form.is_ok(), "{rule}: {draft:?}");
        assert_eq!(
            draft.hints.iter().any(|hint| hint.message.contains("{\"!==\": [x, null]}")),
            warned,
            "{rule}"
        );
    }
}

#[test]
fn whether_there_is_an_answer_has_one_verdict() {
    let all = json!({ "age": 12, "weight": "2.5", "agrees": true, "name": "Ann", "day": "2026-01-31", "crop": "rice", "crops": ["rice"] });
    let zero = json!({ "age": 0, "weight": "0", "agrees": false, "name": " ", "crops": [] });
    for key in ["age", "weight", "agrees", "name", "day", "crop", "crops"] {
        let answered = json!({ "!==": [of(key), null] });
        let is_there = |answers: &Value| json!(key != "name" && answers.get(key).is_some());
        assert_eq!(value(&answered, &all), json!(true), "{key}");
        assert_eq!(value(&answered, &json!({})), json!(false), "{key}");
        if key != "crops" {
            assert_eq!(value(&answered, &zero), is_there(&zero), "{key}");
            // As in JavaScript: nothing is not equal to an empty text, and 0 is.
            assert_eq!(value(&json!({ "==": [of(key), ""] }), &json!({})), json!(false), "{key}");
            assert_eq!(value(&json!({ "!=": [of(key), ""] }), &all), json!(true), "{key}");
        }
        assert_eq!(value(&json!({ "!!": [of(key)] }), &all), json!(true), "{key}");
        assert_eq!(value(&json!({ "!!": [of(key)] }), &json!({})), json!(false), "{key}");
    }
    assert_eq!(value(&json!({ "==": [of("age"), ""] }), &zero), json!(true));
    let members = |entries: Value| json!({ "members": entries });
    let any = json!({ "some": [of("members"), true] });
    assert_eq!(value(&any, &members(json!([{}]))), json!(true));
    assert_eq!(value(&any, &members(json!([]))), json!(false));
    assert_eq!(
        value(&json!({ "some": [of("members"), { "!=": [of("n"), ""] }] }), &members(json!([{ "n": 1 }]))),
        json!(true)
    );
}

#[test]
fn non_finite_numbers_are_not_values() {
    let divided = json!({ "/": [of("weight"), of("age")] });
    for answers in
        [json!({}), json!({ "weight": "5" }), json!({ "weight": "-5", "age": 0 }), json!({ "age": 0 })]
    {
        assert_eq!(value(&divided, &answers), Value::Null, "{answers}");
        assert_eq!(value(&json!({ "%": [of("weight"), of("age")] }), &answers), Value::Null, "{answers}");
        assert_eq!(value(&json!({ ">": [divided, 0.5] }), &answers), Value::Null, "{answers}");
        assert_eq!(value(&json!({ "!": [{ ">": [divided, 0.5] }] }), &answers), Value::Null, "{answers}");
    }
    assert_eq!(
        value(&json!({ "/": [of("weight"), of("agrees")] }), &json!({ "weight": "5", "agrees": false })),
        Value::Null
    );
    assert_eq!(value(&divided, &json!({ "weight": "5", "age": 2 })), json!(2.5));
    let huge = json!({ "*": [of("age"), 1e308] });
    assert_eq!(value(&huge, &json!({ "age": 5 })), Value::Null);
    assert_eq!(
        value(&json!({ ">": [huge, 1] }), &json!({ "age": 5 })),
        json!(true),
        "as infinity in JavaScript"
    );
}

#[test]
fn texts_are_written_as_in_javascript() {
    for (rule, answers, wanted) in [
        (json!({ "cat": ["Total ", of("weight"), " kg"] }), json!({ "weight": "5.0" }), "Total 5 kg"),
        (json!({ "cat": ["Total ", of("weight")] }), json!({ "weight": "0" }), "Total 0"),
        (json!({ "cat": [of("weight")] }), json!({ "weight": "2.50" }), "2.5"),
        (json!({ "cat": ["", { "*": [of("age"), 1e21] }] }), json!({ "age": 1 }), "1e+21"),
        (json!({ "cat": ["", { "/": [of("age"), 10_000_000] }] }), json!({ "age": 1 }), "1e-7"),
        (json!({ "cat": [of("crops")] }), json!({ "crops": ["maize", "rice"] }), "maize,rice"),
        (json!({ "cat": of("crops") }), json!({ "crops": ["maize", "rice"] }), "maize,rice"),
        (json!({ "cat": ["a", of("name"), of("agrees")] }), json!({ "agrees": true }), "atrue"),
    ] {
        assert_eq!(value(&rule, &answers), json!(wanted), "{rule}");
    }
    let draft = Draft::examine(&form(json!({ "cat": of("crops") })));
    assert_eq!(
        draft.document["fields"][9]["calculate"],
        json!({ "cat": [of("crops"), ""] }),
        "what clients read"
    );
    assert_eq!(
        draft.form.expect("it is right").json_schema()["properties"]["value"]["x-calculate"]["cat"][1],
        ""
    );
    assert_eq!(
        value(&json!({ "length": [of("name")] }), &json!({ "name": "\u{1F33E}a" })),
        json!(3),
        "UTF-16"
    );
}

#[test]
fn compared_texts_are_normalized_to_nfc() {
    let (composed, decomposed) = ("Đà Lạt", "Đa\u{300} La\u{323}t");
    assert_ne!(composed, decomposed);
    let definition = json!({ "schema": 1, "fields": [
        { "key": "town", "type": "TEXT", "label": decomposed, "constraints": { "pattern": "^Đa\u{300} " } },
        { "key": "one", "type": "SELECT_ONE", "label": "O", "choices": [{ "value": decomposed, "label": decomposed }] },
        { "key": "is", "type": "CALCULATED", "calculate": { "==": [of("town"), decomposed] } },
        { "key": "in", "type": "CALCULATED", "calculate": { "in": [of("town"), [decomposed]] } },
        { "key": "same", "type": "CALCULATED", "calculate": { "===": [of("town"), of("one")] } },
    ] });
    let draft = Draft::examine(&definition);
    assert_eq!(draft.document["fields"][0]["label"], composed);
    assert_eq!(draft.document["fields"][2]["calculate"]["=="][1], composed);
    for form in
        [draft.form.expect("it is right"), CompiledForm::published(&definition).expect("it was right")]
    {
        let stored = pipeline::run(&form, json!({ "town": composed, "one": composed }));
        let wanted = json!({ "town": composed, "one": composed, "is": true, "in": true, "same": true });
        assert_eq!(stored, Ok(wanted));
    }
    let twice = json!({ "schema": 1, "fields": [{ "key": "one", "type": "SELECT_ONE", "label": "O", "choices": [
        { "value": decomposed, "label": "1" }, { "value": composed, "label": "2" }] }] });
    assert!(CompiledForm::compile(&twice).is_err(), "these are one choice");
    let form = CompiledForm::published(&twice).expect("an older version keeps its answers");
    assert!(pipeline::run(&form, json!({ "one": composed })).is_ok());
}

//! Answers: what is stored of them, and what they are told.

#![expect(clippy::needless_pass_by_value, reason = "JSON is written where it is used")]

use serde_json::{Value, json};

use super::run;
use crate::forms::{compiled::CompiledForm, problem::Problem};

fn form(fields: Value) -> CompiledForm {
    CompiledForm::compile(&json!({ "schema": 1, "fields": fields })).expect("the definition is right")
}

/// The places and rules of what is wrong.
fn problems(form: &CompiledForm, answers: Value) -> Vec<(String, &'static str)> {
    let problems = run(form, answers).expect_err("it is refused");
    problems.into_iter().map(|Problem { pointer, rule, .. }| (pointer, rule)).collect()
}

fn wrong(problems: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
    problems.iter().map(|(pointer, rule)| ((*pointer).to_owned(), *rule)).collect()
}

fn field(key: &str, kind: &str) -> Value {
    json!({ "key": key, "type": kind, "label": key })
}

/// A field with something added.
fn with(mut field: Value, more: Value) -> Value {
    let Value::Object(more) = more else { unreachable!("an object is added") };
    field.as_object_mut().expect("a field").extend(more);
    field
}

fn household() -> CompiledForm {
    form(json!([
        with(json!({ "key": "members", "type": "REPEAT", "constraints": { "maxItems": 5 } }), json!({ "fields": [
            with(field("age", "INTEGER"), json!({ "required": true, "constraints": { "min": 0, "max": 120 } })),
            with(field("school", "TEXT"), json!({ "required": true, "relevant": { "<": [{ "var": "age" }, 18] } })),
        ] })),
        { "key": "count", "type": "CALCULATED", "calculate": { "length": [{ "var": "members" }] } },
    ]))
}

#[test]
fn irrelevant_answers_are_dropped_and_required_ones_checked() {
    let answers = json!({ "members": [{ "age": 12 }, { "age": 40, "school": "x" }, { "age": 130 }] });
    let found = problems(&household(), answers);
    assert_eq!(found, wrong(&[("/members/2/age", "maximum"), ("/members/0/school", "required")]));
    let answers =
        json!({ "members": [{ "age": 12, "school": " A " }, { "age": 40, "school": 7 }], "count": "sent" });
    let stored = json!({ "members": [{ "age": 12, "school": "A" }, { "age": 40 }], "count": 2 });
    assert_eq!(run(&household(), answers), Ok(stored.clone()));
    assert_eq!(run(&household(), stored.clone()), Ok(stored), "what is stored stays as it is");
}

#[test]
fn answers_are_brought_into_one_form() {
    let kinds = ["TEXT", "PHONE", "DATE_TIME", "INTEGER", "DECIMAL", "GEO_POINT", "TIME", "EMAIL"];
    let all = form(kinds.iter().map(|kind| field(&kind.to_lowercase(), kind)).collect());
    for (key, given, stored) in [
        ("text", json!(" Tie\u{302}\u{301}ng \n"), json!("Ti\u{1ebf}ng")),
        ("text", json!(" "), Value::Null),
        ("phone", json!("+84 (912) 345-678"), json!("+84912345678")),
        ("phone", json!("+44 (0)20 7946 0958"), json!("+442079460958")),
        ("phone", json!("+44 (0)20 7946 095"), Value::Null),
        ("date_time", json!("2026-01-02T10:04:05.50+07:00"), json!("2026-01-02T03:04:05.500Z")),
        ("date_time", json!("0000-01-01T00:00:00+01:00"), Value::Null),
        ("date_time", json!("9999-12-31T23:59:59-01:00"), Value::Null),
        ("integer", json!(3.0), json!(3)),
        ("integer", json!(-0.0), json!(0)),
        ("integer", json!(9_007_199_254_740_991_i64), json!(9_007_199_254_740_991_i64)),
        ("decimal", json!(4.5), json!("4.5")),
        ("decimal", json!(0.000_000_1), json!("0.0000001")),
        ("decimal", json!("007.50"), json!("7.50")),
        ("decimal", json!("-0.0"), json!("0.0")),
        ("decimal", json!("-.5"), Value::Null),
        (
            "geo_point",
            json!({ "latitude": -0.0, "longitude": 180 }),
            json!({ "latitude": 0, "longitude": 180 }),
        ),
        ("integer", json!(9_007_199_254_740_993_i64), Value::Null),
        ("integer", json!(1e300), Value::Null),
        ("integer", json!("3"), Value::Null),
        ("text", json!("a\0b"), Value::Null),
        ("time", json!("24:00"), Value::Null),
        ("email", json!("a@b"), Value::Null),
        ("geo_point", json!({ "latitude": 90.1, "longitude": 0 }), Value::Null),
    ] {
        let answers = run(&all, json!({ key: given })).ok();
        assert_eq!(answers.map_or(Value::Null, |answers| answers[key].clone()), stored, "{key}: {given}");
    }
}

/// A field of each type that is answered.
fn of_every_type(more: &Value) -> CompiledForm {
    let kinds = [
        "TEXT",
        "TEXT_AREA",
        "HIDDEN",
        "EMAIL",
        "URL",
        "PHONE",
        "INTEGER",
        "DECIMAL",
        "RATING",
        "BOOLEAN",
        "DATE",
        "TIME",
        "DATE_TIME",
        "SELECT_ONE",
        "SELECT_MANY",
        "GEO_POINT",
        "CONSENT",
        "GROUP",
        "REPEAT",
    ];
    let fields = kinds.iter().map(|kind| {
        let more = if *kind == "GROUP" { json!({}) } else { more.clone() };
        let own = match *kind {
            "SELECT_ONE" | "SELECT_MANY" => json!({ "choices": [{ "value": "a", "label": "A" }] }),
            "GROUP" | "REPEAT" => json!({ "fields": [field("inside", "TEXT")] }),
            _ => json!({}),
        };
        with(with(field(&kind.to_lowercase(), kind), own), more)
    });
    form(fields.collect())
}

#[test]
fn a_blank_answer_of_any_type_is_left_out() {
    let optional = of_every_type(&json!({}));
    let required = of_every_type(&json!({ "required": true }));
    let keys: Vec<_> =
        optional.definition.top.iter().map(|index| optional.definition.fields[*index].key.clone()).collect();
    let spaces = " \t\r\n\u{85}\u{a0}\u{3000}\u{200b}\u{2060}\u{feff}";
    for blank in [
        json!(null),
        json!(""),
        json!(spaces),
        json!([]),
        json!([null, " "]),
        json!({}),
        json!({ "x": null, "y": "" }),
    ] {
        let answers: Value =
            keys.iter().map(|key| (key.clone(), blank.clone())).collect::<serde_json::Map<_, _>>().into();
        assert_eq!(run(&optional, answers.clone()), Ok(json!({ "group": {} })), "{blank}");
        let mut missing: Vec<_> =
            keys.iter().filter(|key| *key != "group").map(|key| (format!("/{key}"), "required")).collect();
        let mut found = problems(&required, answers);
        found.sort();
        missing.sort();
        assert_eq!(found, missing, "{blank}");
    }
    let limits = form(json!([
        with(
            field("plate", "TEXT"),
            json!({ "constraints": { "minLength": 3, "maxLength": 5, "pattern": "^[A-Z]+$" } })
        ),
        with(
            field("many", "SELECT_MANY"),
            json!({ "constraints": { "minItems": 1 }, "choices": [{ "value": "a", "label": "A" }] })
        ),
    ]));
    assert_eq!(run(&limits, json!({ "plate": " ", "many": [] })), Ok(json!({})));
}

#[test]
fn white_space_around_an_answer_of_any_type_goes() {
    let all = of_every_type(&json!({}));
    for (key, answer) in [
        ("text", "A b"),
        ("text_area", "A\nb"),
        ("hidden", "h"),
        ("email", "ada@example.org"),
        ("url", "https://example.org"),
        ("phone", "+84912345678"),
        ("decimal", "12.50"),
        ("date", "2026-01-31"),
        ("time", "08:30"),
        ("date_time", "2026-01-31T08:30:00Z"),
        ("select_one", "a"),
    ] {
        for sent in [format!(" {answer}"), format!("{answer}\n"), format!("\u{3000}{answer}\u{a0}\u{200b}")] {
            let stored = run(&all, json!({ key: sent })).expect("it is right");
            assert_eq!(stored[key], json!(answer), "{sent:?}");
        }
    }
    let stored = run(
        &all,
        json!({ "select_many": [" a "], "repeat": [{ "inside": " x " }], "group": { "inside": "y " } }),
    );
    let wanted = json!({ "select_many": ["a"], "repeat": [{ "inside": "x" }], "group": { "inside": "y" } });
    assert_eq!(stored, Ok(wanted));
    // Lengths and patterns are those of what is stored.
    let limits = json!({ "constraints": { "minLength": 3, "maxLength": 5, "pattern": "^[A-Z]+$" } });
    let all = form(json!([with(field("plate", "TEXT"), limits)]));
    assert_eq!(run(&all, json!({ "plate": "  HELLO " })), Ok(json!({ "plate": "HELLO" })));
    assert_eq!(problems(&all, json!({ "plate": "A   " })), wrong(&[("/plate", "minLength")]));
    // A choice that has white space of its own is still the same choice.
    let choices = json!({ "choices": [{ "value": " a", "label": "A" }] });
    let all = form(json!([with(field("one", "SELECT_ONE"), choices)]));
    assert_eq!(run(&all, json!({ "one": " a" })), Ok(json!({ "one": "a" })));
}

#[test]
fn blanks_keep_their_list_positions() {
    let all = of_every_type(&json!({}));
    let choices = json!({ "choices": [{ "value": "a", "label": "A" }, { "value": "b", "label": "B" }] });
    let many = form(json!([with(field("many", "SELECT_MANY"), choices)]));
    assert_eq!(problems(&many, json!({ "many": ["", "b"] })), wrong(&[("/many/0", "enum")]));
    assert_eq!(problems(&all, json!({ "repeat": [null, {}] })), wrong(&[("/repeat/0", "type")]));
    assert_eq!(
        run(&all, json!({ "repeat": [{}, { "inside": "" }] })),
        Ok(json!({ "repeat": [{}, {}], "group": {} }))
    );
    // As a browser has it where it knows no altitude and no speed.
    let point = json!({ "latitude": 1.5, "longitude": 2, "accuracy": null, "altitude": null, "speed": null });
    let stored = json!({ "geo_point": { "latitude": 1.5, "longitude": 2 }, "group": {} });
    assert_eq!(run(&all, json!({ "geo_point": point })), Ok(stored));
}

#[test]
fn decimals_keep_their_limits_to_the_last_digit() {
    let all =
        form(json!([with(field("n", "DECIMAL"), json!({ "constraints": { "min": -2.5, "max": 100 } }))]));
    for (text, rule) in [
        ("100", None),
        ("100.000", None),
        ("0100.0", None),
        ("-2.50", None),
        ("-0.0", None),
        ("99.9999999999999999999999", None),
        ("100.0000000000000000001", Some("maximum")),
        ("101", Some("maximum")),
        ("-2.5000000000000000000001", Some("minimum")),
        ("-3", Some("minimum")),
    ] {
        let found = run(&all, json!({ "n": text })).err().map(|problems| problems[0].rule);
        assert_eq!(found, rule, "{text}");
    }
}

#[test]
fn telephone_numbers_of_many_countries_have_a_bound_of_work() {
    let all = form(json!([{ "key": "people", "type": "REPEAT", "fields": [field("phone", "PHONE")] }]));
    let people = |count: usize, phone: &dyn Fn(usize) -> String| -> Value {
        (0..count).map(|index| json!({ "phone": phone(index) })).collect()
    };
    let of_one = people(1_000, &|index| format!("+849123{index:05}"));
    assert!(run(&all, json!({ "people": of_one })).is_ok(), "a long list of numbers of one country");
    let codes: Vec<usize> = (30..=99)
        .filter(|code| {
            ![35, 37, 38, 42, 50, 59, 67, 68, 69, 80, 83, 85, 87, 88, 89, 96, 97, 99].contains(code)
        })
        .collect();
    let of_many = people(150, &|index| format!("+{}{:09}", codes[index % codes.len()], index));
    assert_eq!(problems(&all, json!({ "people": of_many })), wrong(&[("", "maxCost")]));
}

#[test]
fn at_most_a_hundred_problems_are_reported_at_once() {
    let all = form(json!([
        with(
            field("name", "TEXT"),
            json!({ "required": true, "constraints": { "minLength": 3, "maxLength": 5 } })
        ),
        with(field("agree", "CONSENT"), json!({ "required": true })),
        with(field("many", "SELECT_MANY"), json!({ "choices": [{ "value": "a/~", "label": "A" }] })),
    ]));
    let answers = json!({ "name": "ab", "agree": false, "many": ["a/~", "a/~", 1], "strange/~": 1 });
    let wanted = [
        ("/name", "minLength"),
        ("/agree", "const"),
        ("/many", "maxItems"),
        ("/strange~1~0", "additionalProperties"),
    ];
    assert_eq!(problems(&all, answers), wrong(&wanted));
    assert_eq!(problems(&all, json!([])), wrong(&[("", "type")]));
    assert_eq!(problems(&all, json!({ "name": " ", "agree": true })), wrong(&[("/name", "required")]));
    let strangers: Value =
        (0..1_000).map(|index| (format!("k{index}"), json!(1))).collect::<serde_json::Map<_, _>>().into();
    assert_eq!(run(&all, strangers).map_err(|problems| problems.len()), Err(100));
}

#[test]
fn rules_see_their_own_entry_first_and_decimals_as_numbers() {
    let all = form(json!([
        field("price", "DECIMAL"),
        { "key": "lines", "type": "REPEAT", "fields": [
            with(field("price", "DECIMAL"), json!({ "valid": [{ "rule": { ">": [{ "var": "price" }, { "var": "root.price" }] }, "message": { "en": "Too cheap" } }] })),
            { "key": "double", "type": "CALCULATED", "calculate": { "*": [{ "var": "price" }, 2] } },
        ] },
        { "key": "sum", "type": "CALCULATED",
          "calculate": { "reduce": [{ "var": "lines" }, { "+": [{ "var": "accumulator" }, { "var": "current.double" }] }, 0] } },
    ]));
    let stored = run(&all, json!({ "price": "9", "lines": [{ "price": "10.0" }, { "price": 12.25 }] }))
        .expect("it is right");
    assert_eq!(
        stored["lines"],
        json!([{ "price": "10.0", "double": 20 }, { "price": "12.25", "double": 24.5 }])
    );
    assert_eq!(stored["sum"], json!(44.5), "10.0 is more than 9, though not as a text");
    let refused =
        run(&all, json!({ "price": "11", "lines": [{ "price": "10.0" }] })).expect_err("it is too cheap");
    assert_eq!(refused, [Problem::new("/lines/0/price", "valid", "Too cheap")]);
}

#[test]
fn an_irrelevant_group_drops_all_its_answers() {
    let all = form(json!([
        field("has", "BOOLEAN"),
        { "key": "g", "type": "GROUP", "relevant": { "var": "has" }, "fields": [
            with(field("a", "INTEGER"), json!({ "required": true })),
            { "key": "twice", "type": "CALCULATED", "calculate": { "*": [{ "var": "a" }, 2] } },
        ] },
        with(field("why", "TEXT"), json!({ "required": { "!": [{ "var": "has" }] } })),
        { "key": "seen", "type": "CALCULATED", "calculate": { "var": "g.twice" } },
    ]));
    assert_eq!(
        run(&all, json!({ "has": false, "why": "x", "g": { "a": "wrong" } })),
        Ok(json!({ "has": false, "why": "x" }))
    );
    assert_eq!(
        run(&all, json!({ "has": true, "g": { "a": 2 } })),
        Ok(json!({ "has": true, "g": { "a": 2, "twice": 4 }, "seen": 4 }))
    );
    assert_eq!(problems(&all, json!({ "has": true })), wrong(&[("/g/a", "required")]));
    assert_eq!(problems(&all, json!({ "has": false, "why": " " })), wrong(&[("/why", "required")]));
}

#[test]
fn rules_cannot_cost_more_than_a_bound() {
    let expensive: Vec<Value> = (0..60)
        .map(|index| {
            let sum = json!({ "reduce": [{ "var": "root.list" }, { "+": [{ "var": "accumulator" }, { "var": "current.n" }] }, 0] });
            json!({ "key": format!("c{index}"), "type": "CALCULATED", "calculate": { "+": [sum] } })
        })
        .collect();
    let all = form(json!([
        { "key": "list", "type": "REPEAT", "fields": [field("n", "INTEGER")] },
        { "key": "again", "type": "REPEAT", "fields": expensive },
    ]));
    let entries = |count: usize| -> Value { (0..count).map(|n| json!({ "n": n })).collect() };
    let again = |count: usize| -> Value { (0..count).map(|_| json!({})).collect() };
    let stored = run(&all, json!({ "list": entries(10), "again": again(2) })).expect("it is cheap");
    assert_eq!(stored["again"][1]["c59"], 45);
    let found = problems(&all, json!({ "list": entries(1_000), "again": again(1_000) }));
    assert_eq!(found, wrong(&[("", "maxCost")]));
}

#[test]
fn a_few_bytes_of_answers_cannot_make_much_work() {
    let too_much = wrong(&[("", "maxCost")]);
    let texts = |count: usize| -> Value {
        let required = |index| with(field(&format!("f{index}"), "TEXT"), json!({ "required": true }));
        (0..count).map(required).collect()
    };
    let entries = |count: usize| -> Value { (0..count).map(|_| json!({})).collect() };
    // Each entry is a place for each field, answered or not.
    let all = form(json!([{ "key": "list", "type": "REPEAT", "fields": texts(500) }]));
    assert_eq!(problems(&all, json!({ "list": entries(300) })).len(), 100);
    assert_eq!(problems(&all, json!({ "list": entries(1_000) })), too_much);
    // Groups are there without being answered.
    let group =
        |index| json!({ "key": format!("g{index}"), "type": "GROUP", "fields": [field("a", "TEXT")] });
    let groups: Value = (0..90).map(group).collect();
    let all = form(json!([{ "key": "list", "type": "REPEAT", "fields": groups }]));
    assert!(run(&all, json!({ "list": entries(100) })).is_ok());
    assert_eq!(problems(&all, json!({ "list": entries(1_000) })), too_much);
    // A pattern is compared with every character.
    let many = |index| {
        with(
            field(&format!("f{index}"), "TEXT_AREA"),
            json!({ "constraints": { "pattern": "(?:a|b[a-c]{900})", "maxLength": 100_000 } }),
        )
    };
    let all = form((0..5).map(many).collect());
    assert!(run(&all, json!({ "f0": "b".repeat(100_000) })).is_ok());
    let answers: Value = (0..5)
        .map(|index| (format!("f{index}"), json!("b".repeat(100_000))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    assert_eq!(problems(&all, answers), too_much);
    // What is calculated is stored as well.
    let copies = (0..40).map(
        |index| json!({ "key": format!("c{index}"), "type": "CALCULATED", "calculate": { "var": "text" } }),
    );
    let text = with(field("text", "TEXT_AREA"), json!({ "constraints": { "maxLength": 100_000 } }));
    let all = form(copies.chain([text]).collect());
    assert!(run(&all, json!({ "text": "x".repeat(10_000) })).is_ok());
    assert_eq!(problems(&all, json!({ "text": "x".repeat(20_000) })), too_much);
}

#[test]
fn logic_that_fails_does_not_hold_and_gives_no_value() {
    let all = form(json!([
        field("a", "TEXT"),
        { "key": "c", "type": "CALCULATED", "calculate": { "/": [1, { "var": "a" }] } },
        with(field("b", "TEXT"), json!({ "relevant": { "+": [{ "var": "a" }, 1] } })),
    ]));
    assert_eq!(run(&all, json!({ "a": "x", "b": "gone" })), Ok(json!({ "a": "x" })));
    assert_eq!(run(&all, json!({ "a": "4", "b": "kept" })), Ok(json!({ "a": "4", "b": "kept", "c": 0.25 })));
}

#[test]
fn messages_name_the_type_that_came() {
    let choices = json!({ "choices": [{ "value": "a", "label": "A" }] });
    let form = form(json!([
        field("text", "TEXT"),
        field("whole", "INTEGER"),
        field("decimal", "DECIMAL"),
        field("yes", "BOOLEAN"),
        field("place", "GEO_POINT"),
        with(field("one", "SELECT_ONE"), choices.clone()),
        with(field("many", "SELECT_MANY"), choices),
        { "key": "group", "type": "GROUP", "fields": [field("a", "TEXT")] },
        { "key": "list", "type": "REPEAT", "fields": [field("a", "TEXT")] },
    ]));
    for (answers, wanted) in [
        (json!({ "text": 5 }), "Expected a text, but a number came."),
        (json!({ "whole": "5" }), "Expected a whole number, but a text came."),
        (json!({ "whole": 1.5 }), "Expected a whole number, not 1.5."),
        (json!({ "decimal": true }), "or a number, but a boolean came."),
        (json!({ "yes": "yes" }), "Expected true or false, but a text came."),
        (json!({ "place": [1, 2] }), "Expected an object with latitude and longitude, but a list came."),
        (json!({ "place": { "latitude": "1", "longitude": 2 } }), "Expected a number, but a text came."),
        (json!({ "one": 1 }), "Expected a text: the value of a choice, but a number came."),
        (json!({ "many": "a" }), "Expected a list, but a text came."),
        (
            json!({ "group": "a" }),
            "Expected an object with one answer for each key of the group, but a text came.",
        ),
        (json!({ "list": { "a": "b" } }), "Expected a list, but an object came."),
        (json!({ "list": ["b"] }), "Expected an object with one answer for each key, but a text came."),
    ] {
        let found = run(&form, answers).expect_err("it is refused");
        assert!(found.len() == 1 && found[0].message.ends_with(wanted), "{found:?}");
    }
}

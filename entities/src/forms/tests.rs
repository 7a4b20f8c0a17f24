//! Definitions: what is taken, what is refused and where.

#![expect(clippy::needless_pass_by_value, reason = "JSON is written where it is used")]

mod shapes;

use serde_json::{Value, json};

use super::{
    compiled::{CompiledForm, hash},
    problem::Problem,
};

fn form(fields: Value) -> Value {
    json!({ "schema": 1, "fields": fields })
}

/// The places and rules of what is wrong.
fn problems(document: &Value) -> Vec<(String, &'static str)> {
    let problems = CompiledForm::compile(document).map(drop).expect_err("it is refused");
    problems.into_iter().map(|Problem { pointer, rule, .. }| (pointer, rule)).collect()
}

fn text(key: &str) -> Value {
    json!({ "key": key, "type": "TEXT", "label": key })
}

fn calculated(key: &str, rule: Value) -> Value {
    json!({ "key": key, "type": "CALCULATED", "calculate": rule })
}

fn within(kind: &str, key: &str, fields: Value) -> Value {
    json!({ "key": key, "type": kind, "fields": fields })
}

#[test]
fn all_problems_are_reported_at_once_with_their_paths() {
    let document = json!({ "schema": 2, "feilds": [], "x-mine": 1, "fields": [
        { "key": "1a", "type": "TEXT", "label": "x" },
        { "key": "a", "type": "NUMBER" },
        { "key": "b", "type": "SELECT_ONE", "label": { "en": "B", "vi": 3 } },
        { "key": "c", "type": "INTEGER", "label": "C", "constraints": { "min": 5, "max": 1, "maxLength": 2 } },
        { "key": "c", "type": "NOTE", "label": "C", "required": true, "choices": [] },
        { "key": "d", "type": "SELECT_MANY", "label": "D", "choices": [
            { "value": "x", "label": "X" }, { "value": "x", "label": "X" }, { "value": "", "label": "Y" }, {} ] },
        { "key": "e", "type": "GROUP", "fields": [ { "key": "f", "type": "TEXT", "label": "F",
            "constraints": { "pattern": "\\p{L}" }, "valid": [{ "rule": true }] } ] },
        { "key": "root", "type": "REPEAT", "fields": [], "constraints": { "maxItems": 1001 } },
        7,
    ] });
    let wanted = [
        ("/feilds", "additionalProperties"),
        ("/schema", "const"),
        ("/fields/0/key", "pattern"),
        ("/fields/1/type", "enum"),
        ("/fields/2/label", "type"),
        ("/fields/2", "required"),
        ("/fields/3/constraints/maxLength", "additionalProperties"),
        ("/fields/3/constraints", "minimum"),
        ("/fields/4/required", "additionalProperties"),
        ("/fields/4/choices", "additionalProperties"),
        ("/fields/4/key", "uniqueItems"),
        ("/fields/5/choices/1/value", "uniqueItems"),
        ("/fields/5/choices/2/value", "maxLength"),
        ("/fields/5/choices/3/value", "maxLength"),
        ("/fields/5/choices/3/label", "required"),
        ("/fields/5/choices/3/value", "uniqueItems"),
        ("/fields/6/fields/0/valid/0/rule", "type"),
        ("/fields/6/fields/0/valid/0", "required"),
        ("/fields/6/fields/0/constraints/pattern", "pattern"),
        ("/fields/7/key", "pattern"),
        ("/fields/7/constraints/maxItems", "type"),
        ("/fields/7/fields", "minItems"),
        ("/fields/8", "type"),
    ];
    let found = problems(&document);
    let found: Vec<_> = found.iter().map(|(pointer, rule)| (pointer.as_str(), *rule)).collect();
    assert_eq!(found, wanted);
}

#[test]
fn limits_are_kept_to_the_last_field_level_and_byte() {
    let many = |count: usize| form((0..count).map(|index| text(&format!("f{index}"))).collect());
    assert!(CompiledForm::compile(&many(1_000)).is_ok());
    assert_eq!(problems(&many(1_001)), [("/fields".to_owned(), "maxItems")]);
    let deep = |levels: usize| {
        form(json!([(1..levels).fold(text("a"), |inner, level| within(
            "GROUP",
            &format!("g{level}"),
            json!([inner])
        ))]))
    };
    assert!(CompiledForm::compile(&deep(8)).is_ok());
    assert_eq!(problems(&deep(9))[0].1, "maxDepth");
    let repeating = |count: usize| {
        let field = |index| json!({ "key": format!("f{index}"), "type": "TEXT", "label": "L", "constraints": { "pattern": "a{1000}" } });
        form((0..count).map(field).collect())
    };
    assert!(CompiledForm::compile(&repeating(50)).is_ok());
    assert_eq!(problems(&repeating(51)), [("/fields/50/constraints/pattern".to_owned(), "pattern")]);
    let large = |bytes: usize| {
        let mut document = form(json!([text("a")]));
        let rest = bytes - document.to_string().len();
        document["fields"][0]["label"] = json!("x".repeat(rest + 1));
        assert_eq!(document.to_string().len(), bytes);
        document
    };
    assert!(CompiledForm::compile(&large(512 * 1024)).is_ok());
    assert_eq!(problems(&large(512 * 1024 + 1)), [(String::new(), "maxLength")]);
}

#[test]
fn rules_name_known_operators_and_fields_that_can_be_seen() {
    let rule = |rule: Value| {
        form(json!([
            text("a"),
            { "key": "place", "type": "GEO_POINT", "label": "P" },
            within("GROUP", "g", json!([text("in_g")])),
            within("REPEAT", "list", json!([text("name"), { "key": "age", "type": "INTEGER", "label": "A" },
                calculated("inner", json!({ "cat": [{ "var": "name" }, { "var": "a" }, { "var": "root.g.in_g" }] }))])),
            calculated("c", rule),
        ]))
    };
    for good in [
        json!({ "var": "a" }),
        json!({ "var": ["root.a"] }),
        json!({ "var": "g.in_g" }),
        json!({ "var": "place.latitude" }),
        json!({ "length": { "var": "list" } }),
        json!({ "reduce": [{ "var": "list" }, { "+": [{ "var": "accumulator" }, { "var": "current.age" }] }, 0] }),
        json!({ "some": [{ "filter": [{ "var": "list" }, { ">": [{ "var": "age" }, 3] }] }, { "in": [{ "var": "name" }, ["x", "y"]] }] }),
        json!({ "all": [{ "map": [{ "var": "list" }, { "var": "age" }] }, { "<": [{ "var": "" }, 9] }] }),
        json!({ "reduce": [{ "var": "list" }, { "if": [{ "in": [{ "var": "current.name" }, ["x"]] }, { "var": "current.age" }, { "var": "accumulator" }] }, { "var": "place.latitude" }] }),
    ] {
        assert!(CompiledForm::compile(&rule(good.clone())).is_ok(), "{good}");
    }
    for (bad, at) in [
        (json!({ "var": "in_g" }), "var"),
        (json!({ "var": "list.0.name" }), "var"),
        (json!({ "var": "place.height" }), "var"),
        (json!({ "var": ["a", 1] }), "var"),
        (json!({ "var": 1 }), "var"),
        (json!({ "var": "" }), "var"),
        (json!({ "now": [] }), "now"),
        (json!({ "missing": ["a"] }), "missing"),
        (json!({ "==": [1], "!=": [2] }), ""),
        (json!({ "map": [[1, 2], { "var": "" }] }), "map/0"),
        (json!({ "map": [{ "var": "list" }, { "var": "a" }] }), "map/1/var"),
        (json!({ "map": [{ "var": "list" }, { "merge": [1] }] }), "map/1/merge"),
        (json!({ "map": [{ "var": "list" }] }), "map"),
        (
            json!({ "reduce": [{ "var": "list" }, { "cat": [{ "var": "accumulator" }, { "var": "accumulator" }] }, "x"] }),
            "reduce/1/cat",
        ),
        (
            json!({ "reduce": [{ "var": "list" }, [{ "var": "accumulator" }, { "var": "accumulator" }], 1] }),
            "reduce/1",
        ),
        (json!({ "map": [{ "var": "list" }, ["a", "b"]] }), "map/1"),
        (json!({ "map": [{ "var": "list" }, { "if": [true, ["a"], 1] }] }), "map/1/if/1"),
        (json!({ "some": [{ "var": "list" }, { "in": [1, [[1]]] }] }), "some/1/in/1"),
        (json!({ "reduce": [{ "var": "list" }, { "var": "current.name" }, ""] }), "reduce/1"),
        (json!({ "reduce": [{ "var": "list" }, { "var": "current" }, 0] }), "reduce/1"),
        (
            json!({ "reduce": [{ "var": "list" }, { "if": [true, 1, { "var": "current.name" }] }, 0] }),
            "reduce/1",
        ),
        (
            json!({ "reduce": [{ "var": "list" }, { "+": [{ "var": "current.age" }, 1] }, { "var": "list" }] }),
            "reduce/2",
        ),
        (
            json!({ "reduce": [{ "var": "list" }, { "+": [{ "var": "current.age" }, 1] }, { "var": "a" }] }),
            "reduce/2",
        ),
        (
            json!({ "reduce": [{ "var": "list" }, { "map": [{ "var": "accumulator" }, { "var": "" }] }, { "var": "list" }] }),
            "reduce/1/map/0",
        ),
        ((0..25).fold(json!(1), |inner, _| json!({ "!": [inner] })), &"!/0/".repeat(20)[..79]),
    ] {
        let pointer = format!("/fields/4/calculate{}{at}", if at.is_empty() { "" } else { "/" });
        assert_eq!(problems(&rule(bad.clone())), [(pointer, "logic")], "{bad}");
    }
    for many in
        [json!({ "+": (0..500).collect::<Vec<_>>() }), json!({ "in": [{ "var": "a" }, "x".repeat(8_000)] })]
    {
        assert_eq!(problems(&rule(many)), [("/fields/4/calculate".to_owned(), "maxItems")]);
    }
}

#[test]
fn only_real_dependency_cycles_are_refused() {
    let of = |name: &str| json!({ "var": name });
    for (fields, at) in [
        (json!([calculated("a", of("a"))]), "/fields/0"),
        (json!([calculated("a", of("b")), calculated("b", of("c")), calculated("c", of("a"))]), "/fields/0"),
        (json!([within("GROUP", "g", json!([calculated("a", of("g"))]))]), "/fields/0/fields/0"),
        (json!([{ "key": "g", "type": "GROUP", "relevant": of("g.a"), "fields": [text("a")] }]), "/fields/0"),
        (
            json!([within("REPEAT", "r", json!([calculated("n", json!({ "length": of("r") }))]))]),
            "/fields/0/fields/0",
        ),
    ] {
        assert_eq!(problems(&form(fields.clone())), [(at.to_owned(), "cycle")], "{fields}");
    }
    let fine = json!([
        calculated("late", of("g.b")),
        within("GROUP", "g", json!([calculated("b", of("a")), calculated("a", of("root.text")), text("a2")])),
        { "key": "text", "type": "TEXT", "label": "T", "valid": [{ "rule": of("text"), "message": "m" }] },
    ]);
    let form = CompiledForm::compile(&form(fine)).expect("a field's own checks may read it");
    let order: Vec<&str> = form.order.iter().map(|field| &*form.definition.fields[*field].key).collect();
    assert_eq!(order, ["a", "b", "late"]);
}

#[test]
fn the_hash_is_that_of_the_canonical_document() {
    // The example of RFC 8785, §3.2.2.
    let document: Value = serde_json::from_str(
        r#"{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}"#,
    )
    .expect("JSON");
    let canonical = "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
    assert_eq!(serde_json_canonicalizer::to_string(&document).expect("it has one"), canonical);
    assert_eq!(hash(&json!({})), "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
}

/// What is wrong, in words.
fn messages(document: &Value) -> Vec<String> {
    let problems = CompiledForm::compile(document).map(drop).expect_err("it is refused");
    problems.into_iter().map(|Problem { pointer, message, .. }| format!("{pointer}: {message}")).collect()
}

#[test]
fn rule_problems_name_the_rule_and_suggest_a_fix() {
    let of = |name: &str| json!({ "var": name });
    let document = form(json!([
        text("a"),
        text("a"),
        { "key": "b", "type": "TXT", "label": "B" },
        { "key": "d", "type": "TEXT", "label": "D", "relevant": { "==": [of("nope"), 1] } },
        calculated("e", json!({ "foo": [1] })),
        { "key": "z", "type": "TEXT", "label": "Z", "constraints": { "pattern": "([" }, "lable": 1 },
        { "key": "r", "type": "REPAET", "fields": [{ "key": "age", "type": "INT", "label": "A", "relevant": of("weigth") }] },
        { "key": "weight", "type": "NUMBER", "label": "W" },
        // Nobody knows what these say about fields of no type.
        calculated("i", json!({ "some": [of("r"), { ">": [of("age"), 1] }] })),
        calculated("j", json!({ "+": [of("weight"), of("b")] })),
        calculated("x", of("y")),
        calculated("y", of("x")),
        calculated("v", of("w")),
        calculated("w", of("v")),
        calculated("k", json!({ "redcue": [of("a"), 1, 2] })),
    ]));
    let found = messages(&document);
    let wanted = [
        "/fields/1/key: Another field beside this one has the same key.",
        "/fields/2/type: Unknown type `TXT`. Did you mean `TEXT`? Known types: TEXT, ",
        "/fields/5/lable: Unknown key. Did you mean `label`?",
        "/fields/5/constraints/pattern: Invalid or too large regular expression",
        "/fields/6/type: Unknown type `REPAET`. Did you mean `REPEAT`?",
        "/fields/6/fields/0/type: Unknown type `INT`. Did you mean `INTEGER`?",
        "/fields/7/type: Unknown type `NUMBER`. Known types: ",
        "/fields/3/relevant/==/0/var: Unknown field `nope`: it cannot be seen from here.",
        "/fields/4/calculate/foo: Unknown operator `foo`.",
        "/fields/6/fields/0/relevant/var: Unknown field `weigth`: it cannot be seen from here. Did you mean `weight`?",
        "/fields/14/calculate/redcue: Unknown operator `redcue`. Did you mean `reduce`?",
        "/fields/10: This depends on itself: x → y → x.",
        "/fields/12: This depends on itself: v → w → v.",
    ];
    for wanted in wanted {
        assert!(found.iter().any(|found| found.starts_with(wanted)), "{wanted}\n{found:#?}");
    }
    assert_eq!(found.len(), wanted.len(), "{found:#?}");
}

#[test]
fn a_cycle_is_written_once() {
    let of = |name: &str| json!({ "var": name });
    for (fields, wanted) in [
        (json!([calculated("a", of("a"))]), "a → a"),
        (json!([calculated("a", of("b")), calculated("b", of("a"))]), "a → b → a"),
        (json!([within("GROUP", "g", json!([calculated("a", of("g"))]))]), "g → a → g"),
    ] {
        let found = messages(&form(fields));
        assert!(
            found.len() == 1 && found[0].ends_with(&format!("This depends on itself: {wanted}.")),
            "{found:?}"
        );
    }
}

//! Rules have the value that `json-logic-engine` gives them in JavaScript, or are refused at publication.
//! Every operator is tried on every type of answer and on literals, on both sides, where everything is
//! answered, where nothing is, where the answers are 0, false, blank and empty, and where they are large; and
//! rules are put together at random, always the same. The rules that may be published go, with our values,
//! into files that `tests/conformance` reads in Node.

use entities::forms::{
    compiled::{CompiledForm, Draft},
    pipeline,
};
use serde_json::{Map, Value, json};

use crate::{Random, write};

/// Rules in one form.
const RULES_OF_FORM: usize = 250;

/// One question of each type.
fn questions() -> Vec<Value> {
    let choices = json!([{ "value": "c0", "label": "C" }, { "value": "c1", "label": "C" }, { "value": "0", "label": "C" }, { "value": "5", "label": "C" }]);
    let of = |key: &str, kind: &str| json!({ "key": key, "type": kind, "label": "L" });
    let chosen =
        |key: &str, kind: &str| json!({ "key": key, "type": kind, "label": "L", "choices": choices });
    vec![
        of("int", "INTEGER"),
        of("other", "INTEGER"),
        of("dec", "DECIMAL"),
        of("flag", "BOOLEAN"),
        of("text", "TEXT"),
        of("date", "DATE"),
        of("at", "DATE_TIME"),
        of("mail", "EMAIL"),
        chosen("one", "SELECT_ONE"),
        chosen("many", "SELECT_MANY"),
        of("place", "GEO_POINT"),
        json!({ "key": "g", "type": "GROUP", "fields": [of("n", "INTEGER")] }),
        json!({ "key": "list", "type": "REPEAT", "fields": [of("n", "INTEGER"), of("d", "DECIMAL"), of("t", "TEXT"), chosen("m", "SELECT_MANY")] }),
        json!({ "key": "sum", "type": "CALCULATED", "calculate": { "+": [{ "var": "int" }, { "var": "dec" }] } }),
        json!({ "key": "word", "type": "CALCULATED", "calculate": { "cat": [{ "var": "text" }, { "var": "one" }] } }),
    ]
}

/// Answers: all, none, 0 and false and blank and empty, and large ones with entries that are half empty.
fn states() -> [Value; 5] {
    [
        json!({
            "int": 12, "other": 3, "dec": "2.50", "flag": true, "text": "Đà Lạt", "date": "2026-01-31", "at": "2026-01-31T08:30:00Z",
            "mail": "a@b.co", "one": "c1", "many": ["c1", "5"], "place": { "latitude": 10.5, "longitude": -20, "accuracy": 3 },
            "g": { "n": 4 }, "list": [{ "n": 1, "d": "5.0", "t": "abc", "m": ["c1"] }, { "n": 7, "d": "0.1", "t": "c1", "m": ["c0", "0"] }],
        }),
        json!({ "g": {} }),
        json!({ "int": 0, "other": 0, "dec": "0", "flag": false, "text": "", "one": "0", "many": [], "place": { "latitude": 0, "longitude": 0 }, "g": { "n": 0 }, "list": [] }),
        json!({
            "int": 9_007_199_254_740_991_i64, "other": -1, "dec": "-999999999999999.9", "flag": true, "text": " 5 ", "one": "5", "many": ["0"],
            "g": { "n": -5 }, "list": [{}, { "n": 0, "d": "0", "t": "" }, { "n": 3, "t": "5", "m": [] }],
        }),
        json!({ "int": 5, "dec": "5", "text": "0x10", "date": "1999-12-31", "one": "c0", "many": ["c0", "c1", "0", "5"], "g": {}, "list": [{ "d": "0.000000001" }] }),
    ]
}

/// What stands on either side of an operator.
fn operands() -> Vec<Value> {
    let variables = [
        "int",
        "dec",
        "flag",
        "text",
        "date",
        "at",
        "mail",
        "one",
        "many",
        "place",
        "place.latitude",
        "g",
        "g.n",
        "list",
        "sum",
        "word",
    ];
    let mut all: Vec<Value> = variables.iter().map(|name| json!({ "var": name })).collect();
    all.extend([
        json!(null),
        json!(0),
        json!(5),
        json!(-2.5),
        json!(1e308),
        json!(true),
        json!(false),
        json!(""),
        json!("5"),
        json!("c1"),
        json!("2026-01-31"),
        json!("Đà Lạt"),
        json!([]),
        json!(["c1", "", null, 0]),
    ]);
    all
}

fn one(operator: &str, given: &Value) -> Value {
    Value::Object(Map::from_iter([(operator.to_owned(), given.clone())]))
}

const COMPARISONS: [&str; 8] = ["==", "!=", "===", "!==", "<", "<=", ">", ">="];

/// Every operator with every pair of operands, and every single one.
fn on_both_sides() -> Vec<Value> {
    let operators = ["+", "-", "*", "/", "%", "max", "min", "cat", "in", "and", "or", "if", "merge"]
        .iter()
        .chain(&COMPARISONS);
    let mut rules = Vec::new();
    for operator in operators {
        for left in operands() {
            for right in operands() {
                let pair = one(operator, &json!([left, right]));
                rules.push(if *operator == "merge" { json!({ "length": pair }) } else { pair });
            }
        }
    }
    for operator in ["!", "!!", "-", "+", "*", "/", "cat", "length", "max", "min", "and", "or", "merge"] {
        for operand in operands() {
            for rule in [one(operator, &operand), one(operator, &json!([operand]))] {
                rules.push(if operator == "merge" { json!({ "length": rule }) } else { rule });
            }
        }
    }
    for left in operands() {
        for right in operands() {
            rules.push(json!({ "if": [left, right, { "cat": [right, "|", left] }] }));
            rules.push(json!({ "in": [left, [right, "c0", 5]] }));
            rules.push(json!({ "cat": [left, right, left] }));
            rules.push(json!({ ">": [{ "/": [left, right] }, 0.5] }));
            rules.push(json!({ "!": [{ "==": [left, right] }] }));
        }
    }
    rules
}

/// Comparisons of three, and what runs for each entry of a list.
fn in_lists() -> Vec<Value> {
    let of = |name: &str| json!({ "var": name });
    let some =
        [of("int"), of("dec"), of("flag"), of("sum"), of("g.n"), of("date"), json!(0), json!(5), json!(null)];
    let mut rules = Vec::new();
    for operator in COMPARISONS {
        for (left, middle) in some.iter().flat_map(|left| some.iter().map(move |middle| (left, middle))) {
            rules.extend(some.iter().map(|right| one(operator, &json!([left, middle, right]))));
        }
    }
    let lists = [
        (of("list"), vec![of("n"), of("d"), of("t"), of("m"), of("")]),
        (of("many"), vec![of("")]),
        (json!({ "filter": [of("list"), { "!==": [of("n"), null] }] }), vec![of("n"), of("d"), of("t")]),
        (json!({ "map": [of("list"), of("n")] }), vec![of("")]),
        (json!({ "map": [of("list"), { "+": [of("n"), of("d")] }] }), vec![of("")]),
        (of("text"), vec![of("")]),
        (of("g"), vec![of("")]),
    ];
    let literals =
        [json!(null), json!(0), json!(5), json!(""), json!("5"), json!("c1"), json!(false), json!(true)];
    for (list, fields) in lists {
        for field in fields {
            let mut tests: Vec<Value> = vec![field.clone(), json!({ "!": [field] }), json!({ "!!": field })];
            for (operator, literal) in COMPARISONS
                .iter()
                .chain(&["/", "%", "+", "in"])
                .flat_map(|operator| literals.iter().map(move |l| (operator, l)))
            {
                tests.push(one(operator, &json!([field, literal])));
                tests.push(one(operator, &json!([literal, field])));
            }
            tests.extend(["/", "<", "=="].map(|operator| one(operator, &json!([field, field]))));
            for test in tests {
                rules.extend(["some", "all", "none"].map(|iterator| one(iterator, &json!([list, test]))));
                rules.push(json!({ "length": { "filter": [list, test] } }));
                rules.push(json!({ "cat": [{ "map": [list, test] }, ""] }));
                rules.push(json!({ "in": [null, { "map": [list, test] }] }));
            }
            let current = match field["var"].as_str() {
                Some("") | None => of("current"),
                Some(name) => of(&format!("current.{name}")),
            };
            let so_far = of("accumulator");
            for start in [json!(0), json!(1), json!(null), json!(""), of("int")] {
                for operator in ["+", "-", "*", "/", "%", "max", "min", "<", "==", "and", "or"] {
                    rules.push(json!({ "reduce": [list, one(operator, &json!([so_far, current])), start] }));
                    rules.push(json!({ "reduce": [list, one(operator, &json!([current, so_far])), start] }));
                }
            }
            for operator in ["+", "*", "max", "min", "-", "/"] {
                rules.push(one(operator, &json!({ "map": [list, field] })));
                rules.push(one(operator, &json!([{ "map": [list, field] }])));
            }
        }
        for operator in ["some", "all", "none", "map", "filter"] {
            rules.extend([json!(true), json!(0), json!("")].map(|test| one(operator, &json!([list, test]))));
        }
    }
    rules
}

/// Rules put together at random, some of which cannot be published.
fn at_random(random: &mut Random, count: usize) -> Vec<Value> {
    (0..count)
        .map(|_| {
            let depth = 2 + random.below(3);
            nested(random, depth)
        })
        .collect()
}

fn nested(random: &mut Random, depth: usize) -> Value {
    if depth == 0 || random.chance(10) {
        return random.pick(&operands()).clone();
    }
    let operators = [
        "==", "!=", "===", "!==", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "max", "min", "cat", "in",
        "and", "or", "if", "!", "!!", "length",
    ];
    let operator = *random.pick(&operators);
    let count = match operator {
        "!" | "!!" | "length" => 1,
        "in" => 2,
        "if" => 2 + random.below(3),
        _ => 2 + usize::from(random.chance(15)),
    };
    one(operator, &(0..count).map(|_| nested(random, depth - 1)).collect())
}

/// The answers as rules see them: a `DECIMAL` is a number.
fn seen(mut answers: Value) -> Value {
    let number = |value: &mut Value| {
        if let Some(number) = value.as_str().and_then(|text| text.parse::<f64>().ok()) {
            *value = json!(number);
        }
    };
    answers.get_mut("dec").into_iter().for_each(number);
    for entry in answers.get_mut("list").and_then(Value::as_array_mut).into_iter().flatten() {
        entry.get_mut("d").into_iter().for_each(number);
    }
    answers
}

/// Compares what can be published. Answers how many results there are.
fn compare(file: &str, rules: &[Value]) -> usize {
    let base = questions();
    let states: Vec<Value> = {
        let form =
            CompiledForm::compile(&json!({ "schema": 1, "fields": base })).expect("questions are right");
        states().map(|state| pipeline::run(&form, state).expect("answers are right")).into()
    };
    let mut lines = vec![json!({ "states": states.iter().cloned().map(seen).collect::<Vec<_>>() })];
    let form_of = |rules: &[&Value]| {
        let rules = rules
            .iter()
            .enumerate()
            .map(|(at, rule)| json!({ "key": format!("r{at}"), "type": "CALCULATED", "calculate": rule }));
        json!({ "schema": 1, "fields": base.iter().cloned().chain(rules).collect::<Vec<_>>() })
    };
    let (mut refused, mut values) = (0, 0);
    for rules in rules.chunks(RULES_OF_FORM) {
        let all: Vec<&Value> = rules.iter().collect();
        let wrong: Vec<String> = match Draft::examine(&form_of(&all)).form {
            Ok(_) => Vec::new(),
            Err(problems) => problems.into_iter().map(|problem| problem.pointer).collect(),
        };
        let is_right = |at: &usize| {
            let place = format!("/fields/{}/", base.len() + at);
            !wrong.iter().any(|pointer| pointer.starts_with(&place))
        };
        let right: Vec<&Value> = (0..rules.len()).filter(is_right).map(|at| &rules[at]).collect();
        refused += rules.len() - right.len();
        let draft = Draft::examine(&form_of(&right));
        let form = draft.form.unwrap_or_else(|problems| panic!("what is not refused is right: {problems:?}"));
        let results: Vec<Value> = states
            .iter()
            .map(|state| pipeline::run(&form, state.clone()).expect("answers are right"))
            .collect();
        for at in 0..right.len() {
            let key = format!("r{at}");
            let values_of: Vec<Value> =
                results.iter().map(|result| result.get(&key).cloned().unwrap_or_default()).collect();
            values += values_of.iter().filter(|value| !value.is_null()).count();
            let published = &draft.document["fields"][base.len() + at]["calculate"];
            lines.push(json!({ "rule": published, "values": values_of }));
        }
    }
    let count = (lines.len() - 1) * states.len();
    lines[0]["refused"] = json!(refused);
    lines[0]["values"] = json!(values);
    assert!(values * 3 > count, "{values} of {count} results are values");
    write(file, &lines);
    count
}

#[test]
fn every_operator_has_one_value_on_both_sides_in_lists_and_nested() {
    let random = &mut Random(20_261_129);
    let operators = compare("operators.ndjson", &on_both_sides());
    let lists = compare("lists.ndjson", &in_lists());
    let nested = compare("nested.ndjson", &at_random(random, 12_000));
    assert!(operators >= 20_000 && lists >= 5_000 && nested >= 5_000, "{operators}, {lists}, {nested}");
}

//! What checking one submission costs: a form of 200 fields, as the phones of a survey send it, with and without rules.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use entities::forms::{compiled::CompiledForm, pipeline};
use serde_json::{Map, Value, json};

/// 200 fields of the common kinds; every tenth is asked under a condition, and every twentieth calculated, if `rules`.
fn survey(rules: bool) -> (CompiledForm, Value) {
    let (mut fields, mut answers) = (Vec::new(), Map::new());
    for index in 0..200 {
        let key = format!("question_{index}");
        let (mut field, answer) = match index % 8 {
            0 => (json!({ "type": "INTEGER", "constraints": { "min": 0, "max": 500 } }), json!(index)),
            1 => (json!({ "type": "DECIMAL", "constraints": { "min": 0 } }), json!("12.50")),
            2 => (json!({ "type": "DATE" }), json!("2026-01-31")),
            3 => (json!({ "type": "BOOLEAN" }), json!(true)),
            4 => {
                let choices: Vec<Value> =
                    (0..5).map(|choice| json!({ "value": format!("c{choice}"), "label": "C" })).collect();
                (json!({ "type": "SELECT_ONE", "choices": choices }), json!("c3"))
            }
            5 => (json!({ "type": "PHONE" }), json!("+84912345678")),
            _ => (json!({ "type": "TEXT", "constraints": { "maxLength": 100 } }), json!("Nguyễn Thị Mai")),
        };
        if rules && index % 20 == 9 {
            let sum = json!({ "+": [{ "var": "question_0" }, { "var": "question_8" }] });
            fields.push(json!({ "key": key, "type": "CALCULATED", "calculate": sum }));
            continue;
        }
        field["key"] = json!(key);
        field["label"] = json!("Question");
        field["required"] = json!(true);
        if rules && index % 10 == 7 {
            field["relevant"] =
                json!({ "and": [{ "var": "question_3" }, { ">=": [{ "var": "question_8" }, 5] }] });
        }
        fields.push(field);
        answers.insert(key, answer);
    }
    let form =
        CompiledForm::compile(&json!({ "schema": 1, "fields": fields })).expect("the definition is right");
    (form, answers.into())
}

fn check(criterion: &mut Criterion) {
    for (name, rules) in [("200 fields", false), ("200 fields, 30 rules", true)] {
        let (form, answers) = survey(rules);
        pipeline::run(&form, answers.clone()).expect("the answers are right");
        criterion.bench_function(name, |bencher| {
            bencher.iter_batched(
                || answers.clone(),
                |answers| black_box(pipeline::run(&form, answers)),
                criterion::BatchSize::SmallInput,
            );
        });
    }
}

criterion_group!(benches, check);
criterion_main!(benches);

//! Answers that fit a form's fields, in the canonical form in which they are stored: decimals as text, times in
//! UTC, nothing for questions that were not relevant.

use serde_json::{Map, Value, json};

use crate::{MINUTE, Micros, random::Random, time};

/// Answers to `fields`, given at this time.
pub(crate) fn fill_in(fields: &[Value], at: Micros, random: &mut Random) -> Value {
    let mut answers = Map::new();
    for field in fields {
        let key = field["key"].as_str().unwrap_or_default();
        let asked = field["type"] != "NOTE" && is_relevant(&field["relevant"], &answers);
        let is_due = field["required"] == true || field["type"] == "GROUP";
        if asked && (is_due || random.chance(0.75)) {
            let answer = answer(key, field, at, random);
            // Blank is not answered.
            if answer != "" && answer != json!([]) {
                answers.insert(key.to_owned(), answer);
            }
        }
    }
    Value::Object(answers)
}

/// The templates use one rule only: `{"==": [{"var": key}, value]}`.
fn is_relevant(rule: &Value, answers: &Map<String, Value>) -> bool {
    let [variable, expected] = rule["=="].as_array().map_or(&[][..], Vec::as_slice) else { return true };
    variable["var"].as_str().and_then(|key| answers.get(key)) == Some(expected)
}

fn answer(key: &str, field: &Value, at: Micros, random: &mut Random) -> Value {
    let limit = |name: &str, otherwise: i64| field["constraints"][name].as_i64().unwrap_or(otherwise);
    let fields = field["fields"].as_array().map_or(&[][..], Vec::as_slice);
    match field["type"].as_str().unwrap_or_default() {
        "INTEGER" | "RATING" => json!(random.between(limit("min", 0), limit("max", 100))),
        "DECIMAL" => {
            let hundredths = random.between(limit("min", 0) * 100, limit("max", 100) * 100);
            json!(format!("{}.{:02}", hundredths / 100, hundredths % 100))
        }
        "BOOLEAN" => json!(random.chance(0.6)),
        "CONSENT" => json!(true),
        "SELECT_ONE" => {
            field["choices"].as_array().map_or(Value::Null, |choices| random.pick(choices)["value"].clone())
        }
        "SELECT_MANY" => {
            let choices = field["choices"].as_array().into_iter().flatten();
            choices.filter(|_| random.chance(0.6)).map(|choice| choice["value"].clone()).collect()
        }
        "GEO_POINT" => {
            let (latitude, longitude) = crate::tracks::somewhere(random);
            json!({ "latitude": latitude, "longitude": longitude, "accuracy": random.between(3, 40) })
        }
        "GROUP" => fill_in(fields, at, random),
        "REPEAT" => {
            let entries = random.between(limit("minItems", 0), limit("maxItems", 5));
            (0..entries).map(|_| fill_in(fields, at, random)).collect()
        }
        "DATE" => json!(time(at).format("%Y-%m-%d").to_string()),
        "TIME" => json!(format!("{:02}:{:02}", random.between(6, 9), random.between(0, 59))),
        "DATE_TIME" => {
            json!(time(at - random.between(0, 30) * MINUTE).format("%Y-%m-%dT%H:%M:%SZ").to_string())
        }
        "PHONE" => json!(format!("+849{:08}", random.below(100_000_000))),
        "EMAIL" => json!(format!("guest{}@example.org", random.below(100_000))),
        "URL" => json!(format!("https://example.com/track/{:08}", random.below(100_000_000))),
        _ => json!(text(key, random)),
    }
}

fn text(key: &str, random: &mut Random) -> String {
    let texts: &[&str] = match key {
        "head" | "name" | "recipient" => {
            &["Nguyễn Thị Mai", "Trần Văn Nam", "Lê Minh", "Phạm Thu Hà", "Grace Evans"]
        }
        "plate" => return format!("30A-{:05}", random.below(100_000)),
        "order" => return format!("DH{:08}", random.below(100_000_000)),
        "device" => &["probe-2", "probe-7", "probe-11"],
        "hazard_text" => {
            &["Open shaft without a barrier.", "Dây điện hở cạnh giàn giáo.", "Loose boards, third level."]
        }
        _ => &[
            "",
            "Không có gì thêm.",
            "All in order.",
            "Cần kiểm tra lại tuần sau.",
            "Nobody at home at first.",
        ],
    };
    (*random.pick(texts)).to_owned()
}

/// Guards `forms.json`: what the code above can answer.
#[cfg(test)]
mod tests {
    use entities::forms::{compiled::CompiledForm, pipeline};

    use super::*;
    use crate::forms::Template;

    #[test]
    fn every_version_of_every_template_takes_its_answers_as_they_are() {
        let templates: Vec<Template> = serde_json::from_str(include_str!("forms.json")).unwrap();
        let mut random = Random::of("test");
        for template in &templates {
            assert!(template.fields.len() >= 5, "four versions and a draft need five fields");
            for count in template.fields.len() - 4..=template.fields.len() {
                let fields = &template.fields[..count];
                let form = CompiledForm::compile(&json!({ "schema": 1, "fields": fields })).unwrap();
                for _ in 0..50 {
                    let answers = fill_in(fields, 0, &mut random);
                    assert_eq!(pipeline::run(&form, answers.clone()), Ok(answers), "{:?}", form.definition);
                }
            }
        }
    }
}

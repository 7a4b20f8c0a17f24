//! One verdict everywhere: what the pipeline says of answers is what JSON Schema validators say of them by
//! the version's schema, once the answers are tidy (as docs/forms.md has it). 10,000 pairs of a form and
//! answers are made at random, always the same. The Rust half compares with the crate `jsonschema`; for the
//! other half the cases go, with our verdicts, into files that `tests/conformance` reads in Node. Not here:
//! the values of rules (`rules`).

mod rules;

use std::{fs, path::Path};

use entities::forms::{compiled::CompiledForm, definition, pipeline};
use serde_json::{Map, Value, json};
use unicode_normalization::UnicodeNormalization as _;

/// `SplitMix64`: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

const KINDS: [&str; 19] = [
    "TEXT",
    "TEXT_AREA",
    "HIDDEN",
    "EMAIL",
    "URL",
    "PHONE",
    "INTEGER",
    "DECIMAL",
    "BOOLEAN",
    "DATE",
    "TIME",
    "DATE_TIME",
    "SELECT_ONE",
    "SELECT_MANY",
    "RATING",
    "GEO_POINT",
    "CONSENT",
    "GROUP",
    "REPEAT",
];

fn fields(random: &mut Random, depth: usize) -> Vec<Value> {
    let count = 1 + random.below(5);
    (0..count).map(|index| field(random, &format!("f{index}"), depth)).collect()
}

fn field(random: &mut Random, key: &str, depth: usize) -> Value {
    let kinds = if depth > 0 { &KINDS[..] } else { &KINDS[..17] };
    let kind = *random.pick(kinds);
    let mut field = json!({ "key": key, "type": kind, "label": "L" });
    if kind != "GROUP" && random.chance(40) {
        field["required"] = json!(true);
    }
    let limits = random.chance(50);
    match kind {
        "TEXT" | "TEXT_AREA" | "HIDDEN" if limits => {
            let min = random.below(4);
            field["constraints"] = json!({ "minLength": min, "maxLength": min + random.below(6) });
            if random.chance(30) {
                let patterns = ["^[A-Z]\\d+$", "a.b", "^\\w{2,4}$", "[^x]", "^(?:yes|no)?$", "\\."];
                field["constraints"]["pattern"] = json!(random.pick(&patterns));
            }
        }
        "INTEGER" | "RATING" if limits => {
            let min = random.below(5);
            field["constraints"] = json!({ "min": min, "max": min + random.below(5) });
        }
        // Limits of decimals that are sent as texts are an annotation; the rest of the type is compared.
        "SELECT_ONE" | "SELECT_MANY" => {
            field["choices"] =
                (0..=random.below(4)).map(|at| json!({ "value": format!("c{at}"), "label": "C" })).collect();
        }
        "GROUP" | "REPEAT" => {
            field["fields"] = fields(random, depth - 1).into();
            if kind == "REPEAT" && limits {
                let min = random.below(2);
                field["constraints"] = json!({ "minItems": min, "maxItems": min + random.below(3) });
            }
        }
        _ => {}
    }
    field
}

/// What clients do before they check answers or evaluate rules; written a second time, as docs/forms.md says it.
fn tidy(value: &Value) -> Option<Value> {
    let is_space = |sign: char| sign.is_whitespace() || "\u{200b}\u{2060}\u{feff}".contains(sign);
    match value {
        Value::Null => None,
        Value::String(text) => {
            let text: String = text.trim_matches(is_space).nfc().collect();
            (!text.is_empty()).then(|| json!(text))
        }
        Value::Array(entries) => {
            let tidied: Vec<Value> = entries.iter().map(tidy_entry).collect();
            entries.iter().any(|entry| entry.is_object() || tidy(entry).is_some()).then(|| tidied.into())
        }
        Value::Object(_) => Some(tidy_entry(value)).filter(|object| *object != json!({})),
        other => Some(other.clone()),
    }
}

/// An entry of a list as it is tidied: it keeps its place, also where it is blank.
fn tidy_entry(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.iter().filter_map(|(key, member)| Some((key.clone(), tidy(member)?)));
            Value::Object(members.collect())
        }
        other => tidy(other).unwrap_or_else(|| if other.is_null() { Value::Null } else { json!("") }),
    }
}

/// Answers that are mostly right.
fn answers(random: &mut Random, fields: &[Value]) -> Value {
    let mut all = Map::new();
    for field in fields {
        if random.chance(85) || (field["required"] == true && random.chance(90)) {
            let answer = if random.chance(4) { anything(random) } else { answer(random, field) };
            all.insert(field["key"].as_str().expect("a key").to_owned(), answer);
        }
    }
    if random.chance(2) {
        all.insert("stranger".to_owned(), anything(random));
    }
    all.into()
}

fn anything(random: &mut Random) -> Value {
    let all = [
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(-1),
        json!(3.0),
        json!(2.5),
        json!(1e300),
        json!(-0.0),
        json!(9_007_199_254_740_991_i64),
        json!(9_007_199_254_740_993_i64),
        json!(18_446_744_073_709_551_615_u64),
        json!(""),
        json!(" \t"),
        json!("x"),
        json!("a\u{0}b"),
        json!("\u{1F600}\u{1F600}"),
        json!([]),
        json!({}),
        json!([1]),
        json!(["c0", "c0"]),
        json!([{}]),
        json!({ "latitude": 1 }),
        json!("c1"),
        json!("\u{a0}"),
        json!("\u{feff}"),
        json!("\u{85}"),
    ];
    random.pick(&all).clone()
}

#[expect(clippy::too_many_lines, reason = "one arm for each type of field")]
fn answer(random: &mut Random, field: &Value) -> Value {
    let inside = field["fields"].as_array().map_or(&[][..], Vec::as_slice);
    match field["type"].as_str().expect("a type") {
        "TEXT" | "TEXT_AREA" | "HIDDEN" => json!(random.pick(&[
            "",
            "a",
            "A1",
            "yes",
            "no",
            "a.b",
            " ab ",
            "axb",
            "Tiếng",
            "xxxxxxxx",
            "a\nb",
            "a\u{2028}b",
            "\u{1F600}ab"
        ])),
        "EMAIL" => json!(random.pick(&[
            "",
            " a@b.co\n",
            "a@b.co",
            "x.y+z@sub.example.org",
            "a@b",
            "a b@c.de",
            "@b.co",
            "a@-b.co",
            "a@b..co",
            "ü@b.co"
        ])),
        "URL" => json!(random.pick(&[
            "https://example.org",
            "http://a/b?c=d#e",
            "https://",
            "ftp://a",
            "https://a b",
            "HTTPS://a",
            "https://é.vn/ê"
        ])),
        "PHONE" => json!(random.pick(&[
            "+84912345678",
            "+1 (202) 555-0123",
            "0912345678",
            "+84",
            "+84-91-234-56-78-9",
            "+0123456789",
            "+44 (0)20 7946 0958",
            "",
            "+84 912 345 678 "
        ])),
        "DATE" => json!(random.pick(&[
            " ",
            "2026-01-31 ",
            "2026-01-31",
            "2024-02-29",
            "2023-02-29",
            "1900-02-29",
            "2000-02-29",
            "2026-13-01",
            "2026-1-1",
            "2026-04-31"
        ])),
        "TIME" => json!(random.pick(&["00:00", "23:59", "08:30:15", "24:00", "8:30", "08:60", "08:30:60"])),
        "DATE_TIME" => json!(random.pick(&[
            "2026-01-02T03:04:05Z",
            "2026-01-02T03:04:05.123456+07:00",
            "2026-01-02T03:04:05",
            "2026-02-30T00:00:00Z",
            "2026-01-02 03:04:05Z",
            "2026-01-02T03:04:60Z",
            "2026-01-02T03:04:05z",
            "2026-01-02T03:04:05.1-23:59"
        ])),
        "INTEGER" | "RATING" => match random.below(6) {
            0 => json!(random.below(10) as f64),
            1 => json!(-(random.below(4) as i64)),
            2 => json!(random.below(10) as f64 / 2.0),
            _ => json!(random.below(9)),
        },
        "DECIMAL" => random
            .pick(&[
                json!("1.50"),
                json!("-0"),
                json!("007"),
                json!(1.5),
                json!(-3),
                json!("1e3"),
                json!("1."),
                json!(".5"),
                json!("+1"),
                json!(1e15),
                json!(999_999_999_999_999.0),
                json!("1234567890123456"),
            ])
            .clone(),
        "BOOLEAN" | "CONSENT" => json!(random.chance(70)),
        "SELECT_ONE" => json!(format!("c{}", random.below(5))),
        "SELECT_MANY" => (0..random.below(4)).map(|_| json!(format!("c{}", random.below(5)))).collect(),
        "GEO_POINT" => {
            let mut point = json!({ "latitude": random.pick(&[json!(21.5), json!(-90), json!(90.5), json!("1")]), "longitude": random.pick(&[json!(105), json!(-180.0), json!(181)]) });
            if random.chance(30) {
                point["accuracy"] = random.pick(&[json!(5), json!(-1), json!(0)]).clone();
            }
            point
        }
        "GROUP" => answers(random, inside),
        _ => (0..random.below(4)).map(|_| answers(random, inside)).collect(),
    }
}

fn write(name: &str, cases: &[Value]) {
    let lines: Vec<String> = cases.iter().map(Value::to_string).collect();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&file, lines.join("\n")).expect("the build directory can be written");
}

#[test]
fn ten_thousand_answers_have_one_verdict() {
    let random = &mut Random(20_261_123);
    let definitions =
        jsonschema::validator_for(&serde_json::from_str(definition::JSON_SCHEMA).expect("JSON"))
            .expect("a schema");
    let (mut cases, mut accepted, mut differences) = (Vec::new(), 0, Vec::new());
    for _ in 0..1_000 {
        let definition = json!({ "schema": 1, "fields": fields(random, 2) });
        let form = CompiledForm::compile(&definition)
            .unwrap_or_else(|problems| panic!("{definition}: {problems:?}"));
        assert!(definitions.is_valid(&definition), "{definition}");
        let schema = form.json_schema();
        let validator =
            jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{schema}: {error}"));
        let mut pairs = Vec::new();
        for _ in 0..10 {
            let data = answers(random, definition["fields"].as_array().expect("fields"));
            let ours = pipeline::run(&form, data.clone());
            accepted += usize::from(ours.is_ok());
            if ours.is_ok() != validator.is_valid(&tidy_entry(&data)) {
                differences.push(format!("{data}\n{definition}\n{ours:?}"));
            }
            if let Ok(stored) = &ours {
                assert!(validator.is_valid(stored), "what is stored fits the schema: {stored}\n{schema}");
                assert_eq!(
                    pipeline::run(&form, stored.clone()).as_ref(),
                    Ok(stored),
                    "what is stored stays as it is"
                );
            }
            pairs.push(json!({ "data": data, "valid": ours.is_ok() }));
        }
        cases.push(json!({ "schema": schema, "pairs": pairs }));
    }
    assert!(differences.is_empty(), "{} differences, the first:\n{}", differences.len(), differences[0]);
    assert!(
        (2_000..8_000).contains(&accepted),
        "both verdicts must be common: {accepted} of 10000 are right"
    );
    write("pairs.ndjson", &cases);
}

//! What a form asks, parsed: a `Definition` exists only for a document in which every key is known, every type has
//! what it needs, and no limit is exceeded. The published JSON Schema of these documents (`definition.schema.json`)
//! says the same, as far as a schema can. Rules are kept as they stand. Not here: what rules may say (`logic`), the
//! answers (`forms::pipeline`).

mod limits;
mod rules;

use std::{collections::HashSet, ops::RangeInclusive};

use serde_json::{Map, Value};

use super::{
    pattern::Pattern,
    problem::{Problem, below, did_you_mean, expected},
};
use limits::Limits;

/// The JSON Schema (draft 2020-12) of definition documents.
pub const JSON_SCHEMA: &str = include_str!("definition.schema.json");

/// Bytes of a definition at most, as compact JSON.
pub const MAX_BYTES: usize = 512 * 1024;
/// Fields at most, in all groups together.
pub const MAX_FIELDS: usize = 1_000;
/// Lists of fields inside one another at most.
pub const MAX_DEPTH: usize = 8;
/// Choices of a field at most.
const MAX_CHOICES: usize = 1_000;
/// Entries of a `REPEAT` at most.
pub const MAX_ITEMS: i64 = 1_000;
/// What a text in the languages of the people is.
const TEXTS: &str = "a text or an object of texts by language";
/// Characters of the author's own words that a message repeats at most.
const MAX_QUOTED: usize = 60;
/// The largest number that JavaScript, and so every client, holds exactly.
pub const MAX_INTEGER: i64 = 9_007_199_254_740_991;
/// The largest `DECIMAL` that is sent as a number: 15 digits before the point.
pub const MAX_DECIMAL: f64 = 999_999_999_999_999.9;

/// Is a rule checked to be published, or was it published before?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has to be good.
    Publication,
    /// It was good enough once: only what cannot be run or could cost too much is refused.
    Published,
}

/// A parsed definition.
#[derive(Debug)]
pub struct Definition {
    /// All fields, in the order of the document; a container comes before what is in it.
    pub fields: Vec<Field>,
    /// The fields that stand in no container.
    pub top: Vec<FieldIndex>,
    /// Fields of a type that there is not: what rules say about them cannot be judged. Empty in what can be published.
    pub(super) unclear: HashSet<FieldIndex>,
    /// There are more fields than were read. Never so in what can be published.
    pub(super) is_cut: bool,
}

/// A field's place in `Definition::fields`.
pub type FieldIndex = usize;

/// One field.
#[derive(Debug)]
pub struct Field {
    /// Its name in the answers; unique beside its siblings.
    pub key: String,
    /// Its type, as the document calls it.
    pub type_name: &'static str,
    /// What its answers are like.
    pub kind: Kind,
    /// Must it be answered?
    pub required: Required,
    /// Asked only where this rule holds.
    pub relevant: Option<Value>,
    /// Rules that an answer must keep.
    pub valid: Vec<Valid>,
    /// Where it stands in the document.
    pub pointer: String,
}

/// What the answers to a field are like.
#[derive(Debug)]
pub enum Kind {
    /// `TEXT`, `TEXT_AREA`, `HIDDEN`.
    Text {
        /// How many characters.
        chars: RangeInclusive<usize>,
        /// What they must look like.
        pattern: Option<Pattern>,
    },
    /// Texts of a known form: `EMAIL`, `URL`, `PHONE`, `DATE`, `TIME`, `DATE_TIME`.
    Format(super::pattern::Format),
    /// `INTEGER`, `RATING`.
    Integer(RangeInclusive<i64>),
    /// `DECIMAL`: a decimal text or a number.
    Decimal(RangeInclusive<f64>),
    /// `BOOLEAN`
    Boolean,
    /// `CONSENT`: a boolean that is true where it is required.
    Consent,
    /// `SELECT_ONE`: one of these.
    SelectOne(Vec<String>),
    /// `SELECT_MANY`: some of these, each once.
    SelectMany {
        /// What can be chosen.
        choices: Vec<String>,
        /// How many.
        items: RangeInclusive<usize>,
    },
    /// `GEO_POINT`: an object with `latitude`, `longitude` and perhaps `accuracy`.
    GeoPoint,
    /// `CALCULATED`: the server works it out by this rule.
    Calculated(Value),
    /// `NOTE`: no answer.
    Note,
    /// `GROUP`: an object of its own.
    Group(Vec<FieldIndex>),
    /// `REPEAT`: a list of objects.
    Repeat {
        /// What each entry asks.
        fields: Vec<FieldIndex>,
        /// How many entries.
        items: RangeInclusive<usize>,
    },
}

/// Must a field be answered?
#[derive(Debug, Clone, PartialEq)]
pub enum Required {
    /// It may stay empty.
    No,
    /// Always, where it is relevant.
    Yes,
    /// Where this rule holds.
    When(Value),
}

/// A rule that an answer must keep.
#[derive(Debug)]
pub struct Valid {
    /// The rule.
    pub rule: Value,
    /// What the person who filled it in is told.
    pub message: String,
}

impl Kind {
    /// The fields inside, if it is a container.
    pub fn children(&self) -> &[FieldIndex] {
        match self {
            Self::Group(fields) | Self::Repeat { fields, .. } => fields,
            _ => &[],
        }
    }

    /// Are all of its answers short?
    pub(super) fn is_small(&self) -> bool {
        match self {
            Self::Integer(_) | Self::Decimal(_) | Self::Boolean | Self::Consent | Self::SelectOne(_) => true,
            Self::Format(format) => format.max_chars() <= 64,
            _ => false,
        }
    }
}

impl Definition {
    /// Reads a definition that was published.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(document: &Value) -> Result<Self, Vec<Problem>> {
        let (definition, problems) = Self::examine(document, Stage::Published);
        if problems.is_empty() { Ok(definition) } else { Err(problems) }
    }

    /// Reads as much of a definition as there is, and everything that is wrong with it.
    pub(super) fn examine(document: &Value, stage: Stage) -> (Self, Vec<Problem>) {
        let mut parser = Parser {
            stage,
            problems: Vec::new(),
            fields: Vec::new(),
            unclear: HashSet::new(),
            is_full: false,
            is_cut: false,
            pattern_weight: 0,
        };
        let mut top = Vec::new();
        if document.to_string().len() > MAX_BYTES {
            parser.refuse("", "maxLength", "A definition has at most 512 KiB.");
        } else if let Some(object) = parser.object(document, "", &["schema", "locales", "fields"]) {
            if object.get("schema").and_then(Value::as_i64) != Some(1) {
                parser.refuse("/schema", "const", "`schema` is 1: the version of this kind of document.");
            }
            if let Some(locales) = object.get("locales") {
                let stranger = match locales.as_array() {
                    Some(all) => all.iter().find(|locale| !locale.is_string()),
                    None => Some(locales),
                };
                if let Some(stranger) = stranger {
                    parser.refuse("/locales", "type", expected("a list of texts such as \"en\"", stranger));
                }
            }
            top = parser.fields(object.get("fields"), "/fields", 1);
        }
        let Parser { problems, fields, unclear, is_cut, .. } = parser;
        (Self { fields, top, unclear, is_cut }, problems)
    }

    /// The type of each field: what must not change between versions.
    pub fn types(&self) -> Vec<FieldType> {
        let mut types = Vec::with_capacity(self.fields.len());
        let mut open: Vec<(FieldIndex, String)> =
            self.top.iter().map(|index| (*index, String::new())).collect();
        while let Some((index, around)) = open.pop() {
            let field = &self.fields[index];
            let path = format!("{around}{}", field.key);
            open.extend(field.kind.children().iter().map(|child| (*child, format!("{path}."))));
            if !self.unclear.contains(&index) {
                types.push(FieldType { path, type_name: field.type_name, pointer: field.pointer.clone() });
            }
        }
        types
    }
}

/// A field and its type.
#[derive(Debug)]
pub struct FieldType {
    /// Its keys from the top, joined by dots.
    pub path: String,
    /// The type's name.
    pub type_name: &'static str,
    /// Where it stands in the document.
    pub pointer: String,
}

/// Every type, with the constraints that it takes.
const TYPES: [(&str, &[&str]); 21] = [
    ("TEXT", &["minLength", "maxLength", "pattern"]),
    ("TEXT_AREA", &["minLength", "maxLength", "pattern"]),
    ("EMAIL", &[]),
    ("URL", &[]),
    ("PHONE", &[]),
    ("INTEGER", &["min", "max"]),
    ("DECIMAL", &["min", "max"]),
    ("BOOLEAN", &[]),
    ("DATE", &[]),
    ("TIME", &[]),
    ("DATE_TIME", &[]),
    ("SELECT_ONE", &[]),
    ("SELECT_MANY", &["minItems", "maxItems"]),
    ("RATING", &["min", "max"]),
    ("GEO_POINT", &[]),
    ("CONSENT", &[]),
    ("CALCULATED", &[]),
    ("HIDDEN", &["minLength", "maxLength", "pattern"]),
    ("NOTE", &[]),
    ("GROUP", &[]),
    ("REPEAT", &["minItems", "maxItems"]),
];

struct Parser {
    stage: Stage,
    problems: Vec<Problem>,
    fields: Vec<Field>,
    unclear: HashSet<FieldIndex>,
    /// There is no room for another field.
    is_full: bool,
    /// Fields were left out.
    is_cut: bool,
    pattern_weight: u64,
}

impl Parser {
    fn refuse(
        &mut self,
        pointer: &str,
        rule: &'static str,
        message: impl Into<std::borrow::Cow<'static, str>>,
    ) {
        self.problems.push(Problem::new(pointer, rule, message));
    }

    fn expect(&mut self, holds: bool, pointer: &str, rule: &'static str, message: &'static str) {
        if !holds {
            self.refuse(pointer, rule, message);
        }
    }

    /// An object with no other keys than these; keys that begin with `x-` are the author's own.
    fn object<'v>(&mut self, value: &'v Value, at: &str, known: &[&str]) -> Option<&'v Map<String, Value>> {
        let Some(object) = value.as_object() else {
            self.refuse(at, "type", expected("an object", value));
            return None;
        };
        for key in object.keys().filter(|key| !known.contains(&key.as_str()) && !key.starts_with("x-")) {
            let hint = did_you_mean(key, known.iter().copied());
            let known = known.join(", ");
            let message = format!("Unknown key.{hint} Known keys: {known}.");
            self.refuse(&below(at, key), "additionalProperties", message);
        }
        Some(object)
    }

    fn fields(&mut self, list: Option<&Value>, at: &str, depth: usize) -> Vec<FieldIndex> {
        let Some(list) = list.and_then(Value::as_array) else {
            match list {
                Some(other) => self.refuse(at, "type", expected("a list of fields", other)),
                None => self.refuse(at, "required", "Expected a list of fields."),
            }
            return Vec::new();
        };
        if depth > MAX_DEPTH {
            self.is_cut = true;
            self.refuse(at, "maxDepth", "Groups stand inside one another at most eight deep.");
            return Vec::new();
        }
        self.expect(!list.is_empty(), at, "minItems", "At least one field belongs here.");
        let (mut indexes, mut keys) = (Vec::with_capacity(list.len()), HashSet::new());
        for (position, field) in list.iter().enumerate() {
            if self.fields.len() >= MAX_FIELDS {
                self.is_cut = true;
                if !std::mem::replace(&mut self.is_full, true) {
                    self.refuse(at, "maxItems", "A form has at most 1,000 fields.");
                }
                break;
            }
            let at = format!("{at}/{position}");
            let Some(index) = self.field(field, &at, depth) else { continue };
            if !keys.insert(self.fields[index].key.clone()) {
                self.refuse(
                    &format!("{at}/key"),
                    "uniqueItems",
                    "Another field beside this one has the same key.",
                );
            }
            indexes.push(index);
        }
        indexes
    }

    fn field(&mut self, value: &Value, at: &str, depth: usize) -> Option<FieldIndex> {
        const KEYS: [&str; 11] = [
            "key",
            "type",
            "label",
            "hint",
            "required",
            "constraints",
            "choices",
            "relevant",
            "valid",
            "calculate",
            "fields",
        ];
        let object = self.object(value, at, &KEYS)?;
        let key = object.get("key").and_then(Value::as_str).unwrap_or_default();
        let message = "A key is a letter and then letters, digits and `_`, 64 at most, and not `root`.";
        match object.get("key").filter(|key| !key.is_string()) {
            Some(other) => self.refuse(&format!("{at}/key"), "type", expected("a text", other)),
            None => self.expect(is_key(key), &format!("{at}/key"), "pattern", message),
        }
        let given = object.get("type").and_then(Value::as_str).unwrap_or_default();
        let Some((type_name, constraints)) = TYPES.into_iter().find(|(name, _)| *name == given) else {
            return Some(self.unclear_field(object, key, at, depth));
        };
        self.texts(object, at, type_name);
        let required = self.required(object.get("required"), type_name, at);
        let relevant = self.named_rule(object, "relevant", at);
        let valid = self.valid(object.get("valid"), at);
        let index = self.fields.len();
        // Its place comes before its children's; what it is like follows when they are read.
        self.fields.push(Field {
            key: key.to_owned(),
            type_name,
            kind: Kind::Note,
            required,
            relevant,
            valid,
            pointer: at.to_owned(),
        });
        let has = |key: &str| object.contains_key(key);
        for (key, belongs) in [
            ("choices", matches!(type_name, "SELECT_ONE" | "SELECT_MANY")),
            ("calculate", type_name == "CALCULATED"),
            ("fields", matches!(type_name, "GROUP" | "REPEAT")),
        ] {
            if has(key) && !belongs {
                self.refuse(
                    &format!("{at}/{key}"),
                    "additionalProperties",
                    format!("`{key}` does not apply to {type_name}."),
                );
            } else if belongs && !has(key) {
                self.refuse(at, "required", format!("{type_name} needs `{key}`."));
            }
        }
        let limits = Limits::read(self, object.get("constraints"), &format!("{at}/constraints"), constraints);
        self.fields[index].kind = self.kind(type_name, object, &limits, at, depth);
        Some(index)
    }

    /// A field of a type that there is not. Its rules and the fields in it are looked at all the same.
    fn unclear_field(
        &mut self,
        object: &Map<String, Value>,
        key: &str,
        at: &str,
        depth: usize,
    ) -> FieldIndex {
        let message = match object.get("type") {
            Some(Value::String(given)) => {
                let hint = did_you_mean(given, TYPES.iter().map(|(name, _)| *name));
                let given: String = given.chars().take(MAX_QUOTED).collect();
                format!("Unknown type `{given}`.{hint}")
            }
            Some(other) => expected("a text", other),
            None => "A field needs a `type`.".to_owned(),
        };
        let names: Vec<&str> = TYPES.iter().map(|(name, _)| *name).collect();
        self.refuse(&format!("{at}/type"), "enum", format!("{message} Known types: {}.", names.join(", ")));
        let required = self.required(object.get("required"), "TEXT", at);
        let relevant = self.named_rule(object, "relevant", at);
        let valid = self.valid(object.get("valid"), at);
        let calculate = self.named_rule(object, "calculate", at).unwrap_or_default();
        let index = self.fields.len();
        self.unclear.insert(index);
        self.fields.push(Field {
            key: key.to_owned(),
            type_name: "TEXT",
            kind: Kind::Calculated(calculate),
            required,
            relevant,
            valid,
            pointer: at.to_owned(),
        });
        if let Some(fields) = object.get("fields") {
            self.fields[index].kind =
                Kind::Group(self.fields(Some(fields), &format!("{at}/fields"), depth + 1));
        }
        index
    }

    fn kind(
        &mut self,
        name: &str,
        object: &Map<String, Value>,
        limits: &Limits,
        at: &str,
        depth: usize,
    ) -> Kind {
        let size = |range: RangeInclusive<i64>| *range.start() as usize..=*range.end() as usize;
        let integers = -MAX_INTEGER..=MAX_INTEGER;
        match name {
            "TEXT" | "HIDDEN" => limits.text(self, 1_000),
            "TEXT_AREA" => limits.text(self, 20_000),
            "INTEGER" => Kind::Integer(limits.integers(self, ["min", "max"], &integers, &integers)),
            "RATING" => Kind::Integer(limits.integers(self, ["min", "max"], &(1..=5), &(0..=100))),
            "DECIMAL" => Kind::Decimal(limits.decimals(self)),
            "BOOLEAN" => Kind::Boolean,
            "CONSENT" => Kind::Consent,
            "SELECT_ONE" => Kind::SelectOne(self.choices(object.get("choices"), at)),
            "SELECT_MANY" => {
                let choices = self.choices(object.get("choices"), at);
                let all = 0..=choices.len() as i64;
                Kind::SelectMany {
                    items: size(limits.integers(self, ["minItems", "maxItems"], &all, &all)),
                    choices,
                }
            }
            "GEO_POINT" => Kind::GeoPoint,
            "CALCULATED" => Kind::Calculated(self.named_rule(object, "calculate", at).unwrap_or_default()),
            "GROUP" => Kind::Group(self.fields(object.get("fields"), &format!("{at}/fields"), depth + 1)),
            "REPEAT" => Kind::Repeat {
                items: size(limits.integers(
                    self,
                    ["minItems", "maxItems"],
                    &(0..=MAX_ITEMS),
                    &(0..=MAX_ITEMS),
                )),
                fields: self.fields(object.get("fields"), &format!("{at}/fields"), depth + 1),
            },
            "NOTE" => Kind::Note,
            format => super::pattern::Format::of(format).map_or(Kind::Note, Kind::Format),
        }
    }

    fn texts(&mut self, object: &Map<String, Value>, at: &str, type_name: &str) {
        let needs_label = !matches!(type_name, "HIDDEN" | "CALCULATED" | "GROUP" | "REPEAT");
        if needs_label && !object.contains_key("label") {
            self.refuse(at, "required", "A field that people see needs a `label`.");
        }
        for name in ["label", "hint"] {
            if let Some(text) = object.get(name).filter(|text| localized(text).is_none()) {
                self.refuse(&format!("{at}/{name}"), "type", expected(TEXTS, text));
            }
        }
    }

    fn choices(&mut self, given: Option<&Value>, at: &str) -> Vec<String> {
        let Some(given) = given else { return Vec::new() };
        let at = format!("{at}/choices");
        let Some(list) = given.as_array() else {
            if self.stage == Stage::Publication {
                let message = expected("a list of {\"value\", \"label\"}", given);
                self.refuse(&at, "type", message);
            }
            return Vec::new();
        };
        self.expect(!list.is_empty(), &at, "minItems", "At least one choice belongs here.");
        self.expect(list.len() <= MAX_CHOICES, &at, "maxItems", "A field has at most 1,000 choices.");
        let (mut values, mut seen) = (Vec::new(), HashSet::new());
        for (position, choice) in list.iter().enumerate().take(MAX_CHOICES) {
            let at = format!("{at}/{position}");
            let Some(object) = self.object(choice, &at, &["value", "label"]) else { continue };
            let value = object.get("value").and_then(Value::as_str).unwrap_or_default();
            let fits = !value.is_empty() && value.chars().count() <= 200;
            if !fits {
                let message = match object.get("value").filter(|value| !value.is_string()) {
                    Some(other) => expected("a text of 1 to 200 characters", other),
                    None => "A choice has a `value` of 1 to 200 characters.".to_owned(),
                };
                self.refuse(&format!("{at}/value"), "maxLength", message);
            }
            match object.get("label") {
                Some(label) if localized(label).is_some() => {}
                Some(other) => self.refuse(&format!("{at}/label"), "type", expected(TEXTS, other)),
                None => self.refuse(&format!("{at}/label"), "required", "A choice needs a `label`."),
            }
            let message = "Another choice has the same value.";
            self.expect(seen.insert(value), &format!("{at}/value"), "uniqueItems", message);
            values.push(value.to_owned());
        }
        values
    }
}

/// A text in whatever language there is: `"Name"` or `{"en": "Name", "vi": "Tên"}`.
pub(super) fn localized(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Object(texts) if texts.values().all(Value::is_string) => {
            texts.get("en").or_else(|| texts.values().next()).and_then(Value::as_str)
        }
        _ => None,
    }
}

fn is_key(key: &str) -> bool {
    let mut letters = key.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        && key.len() <= 64
        && key != "root"
}

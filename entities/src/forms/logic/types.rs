//! What values a part of a rule can have, as far as that is known without answers, and what follows: operators that
//! could never do anything sensible with them are refused at publication, with what to write instead, and so is what
//! `json-logic-engine` evaluates in two ways (its `run` optimises what it has seen seldom, and does not always mean the
//! same by it). Not here: walking through rules (`check`).

use serde_json::Value;

use super::javascript::number_of_text;
use crate::forms::{
    definition::{Definition, Kind},
    tidy::tidy_text,
};

/// Kinds of values: a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::forms) struct Types(u8);

impl Types {
    /// No answer.
    pub(crate) const NOTHING: Self = Self(1);
    pub(crate) const BOOLEAN: Self = Self(2);
    pub(crate) const NUMBER: Self = Self(4);
    pub(crate) const TEXT: Self = Self(8);
    /// What was chosen of a `SELECT_MANY`: texts, none of them empty.
    pub(crate) const CHOSEN: Self = Self(16);
    /// Any other list of plain values.
    pub(crate) const LIST: Self = Self(32);
    /// Entries of a `REPEAT`.
    pub(crate) const ENTRIES: Self = Self(64);
    /// A group, a position, an entry.
    pub(crate) const OBJECT: Self = Self(128);
    pub(crate) const PLAIN: Self = Self(15);
    pub(crate) const LISTS: Self = Self(16 | 32 | 64);
    pub(crate) const ANY: Self = Self(255);

    pub(crate) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Can it be one of these?
    pub(crate) const fn may_be(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Of a literal.
    pub(crate) fn of_literal(literal: &Value) -> Self {
        match literal {
            Value::Null => Self::NOTHING,
            Value::Bool(_) => Self::BOOLEAN,
            Value::Number(_) => Self::NUMBER,
            Value::String(_) => Self::TEXT,
            Value::Array(_) => Self::LIST,
            Value::Object(_) => Self::ANY,
        }
    }

    /// Of the answers to each field, and of none.
    pub(crate) fn of_fields(definition: &Definition) -> Vec<Self> {
        definition.fields.iter().map(|field| Self::of_answers(&field.kind)).collect()
    }

    fn of_answers(kind: &Kind) -> Self {
        let answered = match kind {
            Kind::Integer(_) | Kind::Decimal(_) => Self::NUMBER,
            Kind::Boolean | Kind::Consent => Self::BOOLEAN,
            Kind::Text { .. } | Kind::Format(_) | Kind::SelectOne(_) => Self::TEXT,
            Kind::SelectMany { .. } => Self::CHOSEN,
            Kind::GeoPoint | Kind::Group(_) => Self::OBJECT,
            Kind::Repeat { .. } => Self::ENTRIES,
            // What is no plain value is not stored.
            Kind::Calculated(rule) => Self::of_rule(rule).without(Self::LISTS.or(Self::OBJECT)),
            Kind::Note => Self::ANY,
        };
        answered.or(Self::NOTHING)
    }

    /// Of a rule of which only the operators are known. A calculated value is plain.
    pub(crate) fn of_rule(rule: &Value) -> Self {
        let Some((operator, given)) = rule.as_object().and_then(|rule| rule.iter().next()) else {
            return Self::of_literal(rule);
        };
        let given: Vec<Self> = match given {
            Value::Array(given) => given.iter().map(Self::of_rule).collect(),
            given => vec![Self::of_rule(given)],
        };
        if operator == "var" { Self::PLAIN } else { Self::of_operator(operator, &given) }
    }

    /// Of what an operator makes of its arguments.
    pub(crate) fn of_operator(operator: &str, given: &[Self]) -> Self {
        let all = |given: &[Self]| given.iter().fold(Self::NOTHING, |all, one| all.or(*one));
        match operator {
            "+" | "-" | "*" | "/" | "%" | "max" | "min" | "length" => Self::NUMBER,
            "cat" => Self::TEXT,
            "merge" | "map" => Self::LIST,
            "filter" => given.first().map_or(Self::LIST, |list| list.without(Self::NOTHING)),
            "and" | "or" | "reduce" => all(given),
            "if" => {
                let is_result = |at: &usize| at % 2 == 1 || at + 1 == given.len();
                (0..given.len()).filter(is_result).fold(Self::NOTHING, |all, at| all.or(given[at]))
            }
            _ => Self::BOOLEAN,
        }
    }
}

/// An argument, as far as it is known.
pub(super) struct Argument<'l> {
    pub(crate) types: Types,
    /// As it stands in the rule.
    pub(crate) logic: &'l Value,
    /// It has the value of a field that is answered, not calculated.
    pub(crate) is_answer: bool,
    pub(crate) is_constant: bool,
}

impl Argument<'_> {
    /// It is a list or an object whenever it is answered.
    fn is_no_plain(&self) -> bool {
        self.types != Types::NOTHING && !self.types.without(Types::NOTHING).may_be(Types::PLAIN)
    }

    fn is_blank_text(&self) -> bool {
        self.logic.as_str() == Some("")
    }

    fn name(&self) -> String {
        let variable = self.logic.get("var").and_then(|name| name.as_str().or_else(|| name.get(0)?.as_str()));
        variable.map_or_else(|| "What stands here".to_owned(), |name| format!("`{name}`"))
    }
}

/// Why an operator may not be used so: what to write instead. `is_bare` means that its argument is no list of
/// arguments.
pub(super) fn objection(operator: &str, given: &[Argument<'_>], is_bare: bool) -> Option<String> {
    let count = given.len();
    match operator {
        "==" | "!=" | "===" | "!==" | "<" | "<=" | ">" | ">=" => comparison(operator, given, is_bare),
        "+" | "-" | "*" | "/" | "%" => arithmetic(operator, given, is_bare),
        "max" | "min" if count == 0 => Some(format!("`{operator}` takes at least one number.")),
        "max" | "min" => given.iter().find_map(|one| {
            if is_bare && one.types.may_be(Types::LISTS) || one.types.may_be(Types::NUMBER) {
                return None;
            }
            Some(if one.types.may_be(Types::LISTS) {
                format!(
                    "`{operator}` of the values of a list is written without brackets: {{\"{operator}\": \
                     list}}."
                )
            } else {
                format!("{} is not a number, and `{operator}` takes numbers only.", one.name())
            })
        }),
        "if" | "and" | "or" if is_bare => Some(format!("`{operator}` takes a list.")),
        "!" | "!!" if count > 1 => Some(format!("`{operator}` takes one value.")),
        "!" | "!!" => {
            let list = given.first().filter(|one| one.types.may_be(Types::LIST.or(Types::ENTRIES)))?;
            let asks = if operator == "!" { "none" } else { "some" };
            let name = list.name();
            Some(format!("{name} is a list. Does it have entries? That is {{\"{asks}\": [list, true]}}."))
        }
        "cat" => given
            .iter()
            .find(|one| {
                let kinds = one.types.without(Types::NOTHING);
                one.types != Types::NOTHING && !kinds.may_be(Types::PLAIN.or(Types::CHOSEN).or(Types::LIST))
            })
            .map(|one| {
                format!("{} is a group or a list of entries, which cannot be written as text.", one.name())
            }),
        "in" => within(given, is_bare),
        "length" if count != 1 => Some("`length` takes one value: a text or a list.".to_owned()),
        "length" => {
            let one = &given[0];
            let has_none = Types::NUMBER.or(Types::BOOLEAN).or(Types::NOTHING);
            let is_right = one.types.may_be(Types::ANY.without(has_none));
            (!is_right || (is_bare && !one.logic.is_object()))
                .then(|| format!("{} does not have a length: `length` takes a text or a list.", one.name()))
        }
        _ => None,
    }
}

fn comparison(operator: &str, given: &[Argument<'_>], is_bare: bool) -> Option<String> {
    if is_bare || given.len() < 2 {
        return Some(format!("`{operator}` takes a list of at least two values."));
    }
    let is_with_nothing = operator.len() == 3 && given.iter().any(|one| one.logic.is_null());
    if let Some(list) = given.iter().find(|one| one.is_no_plain()).filter(|_| !is_with_nothing) {
        let name = list.name();
        return Some(format!(
            "{name} is a list or a group, which cannot be compared. Is it answered? That is {{\"!==\": [x, \
             null]}}. What is in a list is asked by `in` and `some`, how many there are by `length`."
        ));
    }
    if given.len() > 2 && operator.len() == 3 {
        return Some(format!(
            "`{operator}` compares two values: write {{\"and\": [{{\"{operator}\": [a, b]}}, …]}}."
        ));
    }
    if given.len() > 2 && given.iter().any(|one| one.types.may_be(Types::TEXT)) {
        return Some(format!(
            "Of three and more only numbers are compared: write {{\"and\": [{{\"{operator}\": [a, b]}}, \
             {{\"{operator}\": [b, c]}}]}}."
        ));
    }
    given.windows(2).find_map(|pair| {
        let [left, right] = pair else { return None };
        let is_equality = matches!(operator, "==" | "!=" | "===" | "!==");
        let untidy =
            |one: &Argument<'_>, other: &Argument<'_>| untidy(one, other.logic).filter(|_| is_equality);
        if let Some(message) = untidy(left, right).or_else(|| untidy(right, left)) {
            Some(message)
        } else if operator.len() == 3 {
            strict(operator, left, right)
        } else {
            loose(left, right).or_else(|| loose(right, left))
        }
    })
}

fn strict(operator: &str, left: &Argument<'_>, right: &Argument<'_>) -> Option<String> {
    let verdict = if operator == "===" { "never" } else { "always" };
    if (right.is_blank_text() && left.is_answer) || (left.is_blank_text() && right.is_answer) {
        return Some(format!(
            "A blank text does not count as an answer, so this {verdict} holds. Is it answered? That is \
             {{\"!==\": [x, null]}}, and \
             {{\"===\": [x, null]}} is the opposite."
        ));
    }
    (!left.types.may_be(right.types)).then(|| {
        format!(
            "The two sides are never of one type, so this {verdict} holds: compare numbers with numbers, \
             texts with texts."
        )
    })
}

/// A text with white space around it equals no answer.
fn untidy(answer: &Argument<'_>, text: &Value) -> Option<String> {
    let tidy = tidy_text(text.as_str()?)?;
    let is_text = answer.types.without(Types::NOTHING) == Types::TEXT || answer.types.may_be(Types::CHOSEN);
    (answer.is_answer && is_text).then(|| {
        if tidy.is_empty() {
            "A blank text does not count as an answer. Is it answered? That is {\"!==\": [x, null]}."
                .to_owned()
        } else {
            format!(
                "Answers are stored without white space around them, so {} is never equal to this text: \
                 write {}.",
                answer.name(),
                Value::String(tidy)
            )
        }
    })
}

/// Numbers and booleans, compared with a text that is no number, fail wherever there is an answer.
fn loose(one: &Argument<'_>, other: &Argument<'_>) -> Option<String> {
    let text = other.logic.as_str().filter(|text| number_of_text(text).is_none())?;
    let kinds = one.types.without(Types::NOTHING);
    (kinds.may_be(Types::NUMBER.or(Types::BOOLEAN)) && !kinds.may_be(Types::TEXT)).then(|| {
        format!("{} is not a text, and \"{text}\" is not a number: they cannot be compared.", one.name())
    })
}

fn arithmetic(operator: &str, given: &[Argument<'_>], is_bare: bool) -> Option<String> {
    let least = match operator {
        "%" => 2,
        "-" | "/" => 1,
        _ => 0,
    };
    if given.len() < least {
        return Some(format!("`{operator}` takes a list of at least {least} numbers."));
    }
    for one in given {
        if one.logic.as_str().is_some_and(|text| number_of_text(text).is_none()) {
            return Some("Invalid number in a text: expected one such as \"5\".".to_owned());
        }
        let may_spread = is_bare && matches!(operator, "+" | "*");
        if may_spread && one.types.may_be(Types::CHOSEN.or(Types::LIST)) {
            continue;
        }
        if one.is_no_plain() {
            return Some(format!(
                "{} is a list or a group, and `{operator}` takes numbers. The sum of a list is {{\"+\": \
                 list}}, without brackets; how many there are, {{\"length\": list}}.",
                one.name()
            ));
        }
    }
    let is_negation = operator == "-" && given.len() == 1;
    (is_negation && given[0].types.may_be(Types::TEXT))
        .then(|| format!("{} may be a text: write {{\"-\": [0, x]}}.", given[0].name()))
}

fn within(given: &[Argument<'_>], is_bare: bool) -> Option<String> {
    let [needle, hay] = given else {
        return Some("`in` takes two: what is looked for, and the list or text in which it is.".to_owned());
    };
    if is_bare {
        return Some("`in` takes a list of two.".to_owned());
    }
    if !hay.types.may_be(Types::TEXT.or(Types::CHOSEN).or(Types::LIST)) {
        return Some(format!(
            "{} is neither a list of values nor a text, and `in` looks through these only.",
            hay.name()
        ));
    }
    let untidy = match hay.logic.as_array() {
        Some(all) => all.iter().find_map(|one| untidy(needle, one)),
        None if hay.types.may_be(Types::CHOSEN) => untidy(hay, needle.logic),
        None => None,
    };
    if untidy.is_some() {
        return untidy;
    }
    if needle.is_no_plain() {
        return Some(format!("{} is a list or a group, which is in no other.", needle.name()));
    }
    let among = match hay.logic.as_array() {
        Some(all) if all.iter().all(|one| !one.is_object()) => {
            all.iter().fold(Types::NOTHING, |among, one| among.or(Types::of_literal(one)))
        }
        None if hay.types.without(Types::NOTHING) == Types::CHOSEN => Types::TEXT,
        _ => return None,
    };
    let looked_for = needle.types.without(Types::NOTHING);
    (needle.types != Types::NOTHING && !looked_for.may_be(among) && among != Types::NOTHING).then(|| {
        format!(
            "{} is never in this list: numbers are in lists of numbers, texts in lists of texts.",
            needle.name()
        )
    })
}

/// What may be published but means something else than most who write it think.
pub(super) fn hint(operator: &str, given: &[Argument<'_>]) -> Option<&'static str> {
    let may_mean_zero = Types::NUMBER.or(Types::BOOLEAN);
    match operator {
        "==" | "!=" | "<" | "<=" | ">" | ">=" if given.iter().any(Argument::is_blank_text) => Some(
            "An unanswered question is not equal to an empty text, and 0 is. Is it answered? That is \
             {\"!==\": [x, null]}, and {\"===\": [x, null]} is the opposite.",
        ),
        "==" | "!="
            if given.iter().any(|one| one.logic.is_null())
                && given.iter().any(|one| one.types.may_be(may_mean_zero)) =>
        {
            Some("0 and false are equal to null. Is it answered? That is {\"!==\": [x, null]}.")
        }
        "in" if given.first().is_some_and(Argument::is_blank_text) => {
            Some("An empty text is in every text. Is it answered? That is {\"!==\": [x, null]}.")
        }
        _ => None,
    }
}

/// Why an operator on the entries of a list may not be used so.
pub(super) fn objection_to_iterator(operator: &str, given: &[Argument<'_>]) -> Option<(usize, String)> {
    let [list, logic, rest @ ..] = given else { return None };
    if !list.types.may_be(Types::LISTS) {
        return Some((0, format!("{} is not a list.", list.name())));
    }
    if operator == "filter" && logic.is_constant {
        return Some((1, "Whether an entry stays must depend on it.".to_owned()));
    }
    let [start] = rest else { return None };
    if logic.logic.is_null() {
        return Some((1, "`reduce` needs logic for each entry.".to_owned()));
    }
    // These two are evaluated as a sum and a product of the whole list, and then added to the start.
    let gathers = |operator: &str| {
        let both = logic.logic.get(operator).and_then(Value::as_array).filter(|both| both.len() == 2);
        both.is_some_and(|both| {
            let is = |name: &str| both.iter().any(|one| one.get("var").and_then(Value::as_str) == Some(name));
            is("accumulator") && is("current")
        })
    };
    if gathers("+") && start.logic.as_f64() != Some(0.0) {
        return Some((2, "A sum begins at 0: add the rest outside, or write {\"+\": list}.".to_owned()));
    }
    if gathers("*") && (start.logic.as_f64() != Some(1.0) || list.logic.get("var").is_some()) {
        return Some((
            2,
            "A product is of a `map` or `filter` and begins at 1: write {\"*\": list}.".to_owned(),
        ));
    }
    None
}

//! The rules of a field: `relevant`, `required`, `valid` and `calculate`, as far as their shape goes. A rule
//! is an object with one operator. Published versions may have anything in its place, and are read as they
//! always were. Not here: what logic may say (`form::logic`).

use serde_json::{Map, Value};

use super::{Parser, Required, Stage, TEXTS, Valid, localized};
use crate::forms::problem::expected;

impl Parser {
    /// Refuses what is not an object where a rule belongs.
    pub(super) fn rule(&mut self, given: &Value, at: &str, wanted: &str) -> bool {
        let holds = given.is_object() || self.stage == Stage::Published;
        if !holds {
            let instead = if given.is_string() { "" } else { " Leave out a rule that always holds." };
            let message = format!(
                "{} Rules are written in JSONLogic, such as {{\">\": [{{\"var\": \"age\"}}, 5]}}.{instead}",
                expected(wanted, given)
            );
            self.refuse(at, "type", message);
        }
        holds
    }

    /// The rule by this name.
    pub(super) fn named_rule(&mut self, object: &Map<String, Value>, name: &str, at: &str) -> Option<Value> {
        let given = object.get(name)?;
        self.rule(given, &format!("{at}/{name}"), "a rule, which is an object").then(|| given.clone())
    }

    pub(super) fn required(&mut self, given: Option<&Value>, type_name: &str, at: &str) -> Required {
        let at = format!("{at}/required");
        let required = match given {
            None | Some(Value::Bool(false)) => Required::No,
            Some(Value::Bool(true)) => Required::Yes,
            Some(rule) if self.rule(rule, &at, "true, false or a rule, which is an object") => {
                Required::When(rule.clone())
            }
            Some(_) => Required::No,
        };
        let can = !matches!(type_name, "NOTE" | "CALCULATED" | "GROUP");
        let message = "NOTE, CALCULATED and GROUP are not answered, so they cannot be required.";
        self.expect(can || required == Required::No, &at, "additionalProperties", message);
        required
    }

    pub(super) fn valid(&mut self, given: Option<&Value>, at: &str) -> Vec<Valid> {
        let Some(given) = given else { return Vec::new() };
        let at = format!("{at}/valid");
        let Some(list) = given.as_array() else {
            self.refuse(&at, "type", expected("a list of {\"rule\", \"message\"}", given));
            return Vec::new();
        };
        let mut all = Vec::with_capacity(list.len());
        for (position, entry) in list.iter().enumerate() {
            let at = format!("{at}/{position}");
            let Some(object) = self.object(entry, &at, &["rule", "message"]) else { continue };
            let rule = self.named_rule(object, "rule", &at);
            let (Some(_), Some(message)) = (object.get("rule"), object.get("message")) else {
                self.refuse(&at, "required", "Expected a `rule` and a `message`.");
                continue;
            };
            match (rule, localized(message)) {
                (Some(rule), Some(message)) => all.push(Valid { rule, message: message.to_owned() }),
                (_, None) => self.refuse(&format!("{at}/message"), "type", expected(TEXTS, message)),
                (None, Some(_)) => {}
            }
        }
        all
    }
}

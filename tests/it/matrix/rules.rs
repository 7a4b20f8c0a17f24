//! The access rules once more: who sees which object, and what each of its fields shows to who sees it. Not here: the
//! ways on which objects are looked at (`matrix`).

use std::collections::{BTreeMap, BTreeSet};

use entities::{Role, id::UserId};
use serde_json::{Map, Value, json};

use crate::harness::{Client, TestApp, text};

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Who {
    Account(Role),
    Nobody,
}

impl Who {
    pub(super) const ALL: [Self; 6] = [
        Self::Account(Role::Admin),
        Self::Account(Role::Manager),
        Self::Account(Role::Editor),
        Self::Account(Role::Collector),
        Self::Account(Role::Viewer),
        Self::Nobody,
    ];

    pub(super) fn client(self, app: &TestApp) -> Client<'_> {
        match self {
            Self::Account(role) => app.as_role(role),
            Self::Nobody => app.anonymous(),
        }
    }

    pub(super) fn is(self, role: Role) -> bool {
        matches!(self, Self::Account(own) if own == role)
    }

    pub(super) fn administers(self) -> bool {
        self.is(Role::Admin)
    }

    pub(super) fn manages(self) -> bool {
        self.is(Role::Admin) || self.is(Role::Manager)
    }

    /// Is this the caller's own account?
    pub(super) fn owns(self, user: &Value) -> bool {
        let own: Option<UserId> = match self {
            Self::Account(role) => Some(TestApp::account(role)),
            Self::Nobody => None,
        };
        own.is_some_and(|own| user["id"] == *own.to_string())
    }

    pub(super) fn edits(self, form: &Value) -> bool {
        self.manages() || (self.is(Role::Editor) && self.owns(&form["owner"]))
    }

    /// Has the caller handed in something against this version? (`mark` has noted it.)
    pub(super) fn has_filled_in(self, version: &Value) -> bool {
        version["filledInBy"].as_array().expect("it is marked").iter().any(|user| self.owns(user))
    }

    /// The rows of the table of the access rules.
    pub(super) fn sees(self, type_name: &str, object: &Value) -> bool {
        if matches!(self, Self::Nobody) {
            return false;
        }
        match type_name {
            "User" => true,
            "Session" | "ActivityLog" => self.administers() || self.owns(user_of(object)),
            "Location" => self.manages() || self.owns(user_of(object)),
            "Webhook" => self.administers() || self.owns(&object["owner"]),
            "WebhookDelivery" => self.administers() || self.owns(&object["webhook"]["owner"]),
            "Form" => object["status"] == "OPEN" || self.edits(object),
            "FormVersion" => {
                let form = &object["form"];
                let is_current = form["status"] == "OPEN" && form["currentVersion"]["id"] == object["id"];
                self.edits(form) || is_current || self.has_filled_in(object)
            }
            "Submission" => {
                let of_own_form = self.is(Role::Editor) && self.owns(&object["form"]["owner"]);
                self.manages() || self.owns(user_of(object)) || of_own_form
            }
            other => panic!("no rule says who sees a {other}"),
        }
    }
}

/// What a field shows to who sees its object.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    /// Everyone sees it alike.
    Open,
    /// Null but to the account itself and to those who manage accounts.
    Private,
    /// Null but to those who may edit the form.
    Draft,
    /// The one object, if it is seen itself.
    One(&'static str),
    /// The one object of this type, seen by whoever sees this one, as it is now: its columns and what they
    /// lead to, each by its own rule. So who has handed in something goes on seeing the form's title,
    /// description and owner, and the version that was filled in, also when the form is closed or archived
    /// and `form(id:)` is null.
    Implied(&'static str),
    /// By its number: the version of number 1, if it is seen itself.
    Numbered,
    /// A connection of those objects that are seen themselves.
    Connection(&'static str),
    /// A list of those objects that are seen themselves.
    List(&'static str),
    /// How many of the connection `submissions` are seen.
    Count,
}

/// The lists of the root, and what they lead to.
pub(super) const LISTS_OF_ROOT: [(&str, &str); 6] = [
    ("users", "User"),
    ("forms", "Form"),
    ("latestLocations", "Location"),
    ("activityLogs", "ActivityLog"),
    ("webhooks", "Webhook"),
    ("webhookDeliveries", "WebhookDelivery"),
];

/// A rule for every field of every object.
pub(super) const RULES: &[(&str, &[(&str, Rule)])] = {
    use Rule::{Connection, Count, Draft, Implied, List, Numbered, One, Open, Private};
    &[
        (
            "User",
            &[
                ("id", Open),
                ("email", Private),
                ("role", Private),
                ("isActive", Private),
                ("lastLogin", Private),
                ("displayName", Open),
                ("createdAt", Open),
                ("updatedAt", Open),
                ("sessions", Connection("Session")),
                ("forms", Connection("Form")),
                ("submissions", Connection("Submission")),
                ("lastLocation", One("Location")),
                ("locations", Connection("Location")),
                ("track", List("Location")),
                ("activity", Connection("ActivityLog")),
            ],
        ),
        (
            "Session",
            &[
                ("id", Open),
                ("user", One("User")),
                ("ipAddress", Open),
                ("userAgent", Open),
                ("name", Open),
                ("isActive", Open),
                ("isCurrent", Open),
                ("createdAt", Open),
                ("lastActivity", Open),
                ("expiresAt", Open),
                ("revokedAt", Open),
                ("endReason", Open),
                ("locations", Connection("Location")),
                ("lastLocation", One("Location")),
            ],
        ),
        (
            "Form",
            &[
                ("id", Open),
                ("title", Open),
                ("description", Open),
                ("status", Open),
                ("version", Open),
                ("owner", One("User")),
                ("createdAt", Open),
                ("updatedAt", Open),
                ("publishedAt", Open),
                ("submissionCount", Count),
                ("currentVersion", One("FormVersion")),
                ("versions", Connection("FormVersion")),
                ("versionByNumber", Numbered),
                ("draft", Draft),
                ("draftRevision", Open),
                ("submissions", Connection("Submission")),
            ],
        ),
        (
            "FormVersion",
            &[
                ("id", Open),
                ("form", Implied("Form")),
                ("number", Open),
                ("definition", Open),
                ("hash", Open),
                ("jsonSchema", Open),
                ("publishedAt", Open),
                ("publishedBy", One("User")),
            ],
        ),
        (
            "Submission",
            &[
                ("id", Open),
                ("form", Implied("Form")),
                ("formVersion", Open),
                ("version", Implied("FormVersion")),
                ("user", One("User")),
                ("session", One("Session")),
                ("data", Open),
                ("clientId", Open),
                ("location", One("Location")),
                ("createdAt", Open),
            ],
        ),
        (
            "Location",
            &[
                ("id", Open),
                ("timestamp", Open),
                ("receivedAt", Open),
                ("latitude", Open),
                ("longitude", Open),
                ("accuracy", Open),
                ("altitude", Open),
                ("speed", Open),
                ("heading", Open),
                ("session", One("Session")),
                ("user", One("User")),
            ],
        ),
        (
            "ActivityLog",
            &[
                ("id", Open),
                ("user", One("User")),
                ("actionType", Open),
                ("subject", One("Node")),
                ("metadata", Open),
                ("createdAt", Open),
            ],
        ),
        (
            "Webhook",
            &[
                ("id", Open),
                ("owner", One("User")),
                ("url", Open),
                ("events", Open),
                ("formIds", Open),
                ("isEnabled", Open),
                ("disabledAt", Open),
                ("disabledReason", Open),
                ("failingSince", Open),
                ("previousSecretUntil", Open),
                ("createdAt", Open),
                ("updatedAt", Open),
                ("deliveries", Connection("WebhookDelivery")),
            ],
        ),
        (
            "WebhookDelivery",
            &[
                ("id", Open),
                ("webhook", One("Webhook")),
                ("event", Open),
                ("form", One("Form")),
                ("submission", One("Submission")),
                ("happenedAt", Open),
                ("status", Open),
                ("attempts", Open),
                ("lastAttemptAt", Open),
                ("nextAttemptAt", Open),
                ("lastStatusCode", Open),
                ("lastError", Open),
                ("createdAt", Open),
                ("finishedAt", Open),
            ],
        ),
    ]
};

pub(super) fn rules_of(type_name: &str) -> &'static [(&'static str, Rule)] {
    RULES.iter().find(|(name, _)| *name == type_name).expect("a type of the table").1
}

/// The account that an object is of, as `known` selects it.
fn user_of(object: &Value) -> &Value {
    object.get("itsUser").unwrap_or(&object["user"])
}

/// What the rules need to know of an object that another leads to.
pub(super) fn known(type_name: &str) -> &'static str {
    match type_name {
        "User" => "__typename id",
        "Session" | "Location" | "ActivityLog" => "__typename id user { id }",
        "Form" => "__typename id status owner { id } currentVersion { id }",
        "FormVersion" => "__typename id form { id status owner { id } currentVersion { id } }",
        "Submission" => "__typename id user { id } form { id owner { id } }",
        "Webhook" => "__typename id owner { id }",
        "WebhookDelivery" => "__typename id webhook { id owner { id } }",
        "Node" => {
            // Fields of one name in one answer have one type: `User!` there, `User` in the others.
            "__typename id ... on Session { itsUser: user { id } } ... on Location { itsUser: user { id } } \
             ... on ActivityLog { user { id } } ... on Form { status owner { id } } \
             ... on FormVersion { form { id status owner { id } currentVersion { id } } } \
             ... on Submission { user { id } form { id owner { id } } } ... on Webhook { owner { id } } \
             ... on WebhookDelivery { webhook { id owner { id } } }"
        }
        other => panic!("{other}"),
    }
}

/// A selection of every field of a type; what it leads to is selected by `below`.
pub(super) fn everything(type_name: &str, below: impl Fn(&str) -> &'static str) -> String {
    let fields = rules_of(type_name).iter().map(|(name, rule)| match rule {
        Rule::Open | Rule::Private | Rule::Draft | Rule::Count => (*name).to_owned(),
        Rule::One(of) | Rule::Implied(of) => format!("{name} {{ {} }}", below(of)),
        Rule::Numbered => format!("{name}(number: 1) {{ {} }}", below("FormVersion")),
        Rule::List(of) => format!("{name}(range: {{}}, maxPoints: 1000) {{ {} }}", below(of)),
        Rule::Connection(of) => {
            let first = if *of == "Location" { 1_000 } else { 100 };
            format!("{name}(first: {first}) {{ totalCount nodes {{ {} }} }}", below(of))
        }
    });
    let fields = fields.collect::<Vec<_>>().join(" ");
    format!("... on {type_name} {{ {fields} }}")
}

/// Who has filled in each version, by its id.
pub(super) type FilledIn = BTreeMap<String, BTreeSet<String>>;

/// Notes at each version of a form, wherever it is, who has filled it in.
pub(super) fn mark(value: &mut Value, filled_in: &FilledIn) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| mark(item, filled_in)),
        Value::Object(fields) => {
            fields.values_mut().for_each(|value| mark(value, filled_in));
            if fields.get("__typename").is_some_and(|name| name == "FormVersion") {
                let users = filled_in.get(&text(&fields["id"])).into_iter().flatten();
                let users = users.map(|user| json!({ "id": user })).collect();
                fields.insert("filledInBy".to_owned(), users);
            }
        }
        _ => {}
    }
}

pub(super) fn ids_only(_: &str) -> &'static str {
    "id"
}

/// What `who` has to get of an object, from what the service sees of it.
pub(super) fn expected(who: Who, type_name: &str, whole: &Value) -> Value {
    let mut seen = Map::new();
    for (name, rule) in rules_of(type_name) {
        let value = &whole[*name];
        let id = |object: &Value| json!({ "id": object["id"] });
        let shown = |object: &Value| who.sees(&text(&object["__typename"]), object);
        let filtered = |list: &Value| -> Vec<Value> {
            list.as_array().expect("a list").iter().filter(|object| shown(object)).map(id).collect()
        };
        let value = match rule {
            Rule::Open => value.clone(),
            Rule::Private if who.manages() || who.owns(whole) => value.clone(),
            Rule::Draft if who.edits(whole) => value.clone(),
            Rule::Private | Rule::Draft => Value::Null,
            Rule::One(_) | Rule::Numbered if value.is_null() || !shown(value) => Value::Null,
            Rule::One(_) | Rule::Numbered | Rule::Implied(_) => id(value),
            Rule::List(_) => Value::Array(filtered(value)),
            Rule::Count => json!(filtered(&whole["submissions"]["nodes"]).len()),
            Rule::Connection(_) => {
                let nodes = filtered(&value["nodes"]);
                assert_eq!(value["totalCount"], value["nodes"].as_array().expect("a list").len(), "one page");
                json!({ "totalCount": nodes.len(), "nodes": nodes })
            }
        };
        seen.insert((*name).to_owned(), value);
    }
    Value::Object(seen)
}

/// Is this a rule for a field of this type?
pub(super) fn fits(rule: Rule, of: &str) -> bool {
    match rule {
        Rule::Open | Rule::Private | Rule::Draft | Rule::Count => RULES.iter().all(|(name, _)| *name != of),
        Rule::One(name) | Rule::List(name) | Rule::Implied(name) => name == of,
        Rule::Numbered => of == "FormVersion",
        Rule::Connection(name) => of == format!("{name}Connection"),
    }
}

//! What people ask on the mixed day: kinds of requests with their shares, and how each is written. Most name a trusted
//! document; some send the text. Ids are drawn with a skew: a hundredth of them gets a third of the requests. Not
//! here: when a request is sent (`step`).

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use chrono::{DateTime, SecondsFormat, Utc};
use memchr::memmem;
use serde_json::{Value, json};
use uuid::Uuid;

use super::people::{Person, Role, Tokens};
use crate::{
    client::Answer,
    workload::{hash_of, post},
};

/// How many positions a device sends at once.
const POINTS: u64 = 10;
/// The exponent of the skew: `u⁴` of an even `u`.
const SKEW: i32 = 4;

macro_rules! kinds {
    ($($kind:ident $file:literal $share:literal $way:ident $what:literal),+ $(,)?) => {
        /// A kind of request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Kind { $(#[doc = $what] $kind),+ }

        impl Kind {
            pub(super) const ALL: &[Self] = &[$(Self::$kind),+];

            /// Of ten thousand requests.
            pub(super) fn share(self) -> u32 {
                match self { $(Self::$kind => $share),+ }
            }

            /// For the table.
            pub(super) fn describe(self) -> &'static str {
                match self { $(Self::$kind => $what),+ }
            }

            fn by_id(self) -> bool {
                matches!(match self { $(Self::$kind => Way::$way),+ }, Way::Id)
            }

            fn text(self) -> &'static str {
                match self { $(Self::$kind => include_str!(concat!("../../operations/plan/", $file, ".graphql"))),+ }
            }
        }
    };
}

/// How a request says which document it means.
enum Way {
    Id,
    Text,
}

kinds! {
    User "user" 3000 Id "a person by id",
    Form "form" 1500 Id "a form by id, with its owner",
    Me "me" 700 Id "one's own account and session",
    Person "person" 1500 Text "a person with their last position (text)",
    Forms "forms" 1200 Id "20 open forms with their owners",
    Users "users" 600 Id "50 people",
    Submissions "submissions" 900 Id "a form's last 20 submissions, with who sent them",
    Latest "latest" 400 Text "the last positions of 50 people (text)",
    Submit "submit" 60 Id "a submission",
    Record "record" 110 Id "10 positions",
    Refresh "refresh" 27 Id "the next tokens",
    SignIn "sign-in" 3 Id "a sign-in",
}

/// What requests are drawn from.
pub(super) struct World {
    pub(super) users: Vec<Uuid>,
    pub(super) forms: Vec<Uuid>,
    /// Forms that take submissions from everybody.
    pub(super) open_forms: Vec<Uuid>,
    pub(super) password: String,
    /// The names of the documents, by their kinds.
    pub(super) documents: BTreeMap<Kind, String>,
}

impl World {
    pub(super) fn documents() -> BTreeMap<Kind, String> {
        Kind::ALL.iter().map(|kind| (*kind, hash_of(kind.text()))).collect()
    }

    /// A kind by its share.
    pub(super) fn draw_kind(random: &mut fastrand::Rng) -> Kind {
        let all: u32 = Kind::ALL.iter().map(|kind| kind.share()).sum();
        let mut at = random.u32(..all);
        for kind in Kind::ALL {
            match at.checked_sub(kind.share()) {
                Some(rest) => at = rest,
                None => return *kind,
            }
        }
        Kind::User
    }

    /// The whole request of a person.
    pub(super) fn request(&self, kind: Kind, person: &Person, random: &mut fastrand::Rng) -> Vec<u8> {
        let Tokens { access, refresh } = person.tokens();
        let variables = match kind {
            Kind::User | Kind::Person => json!({ "id": skewed(&self.users, random) }),
            // People look at the forms that they work with.
            Kind::Submissions if random.bool() => json!({ "id": skewed(&self.open_forms, random) }),
            Kind::Form | Kind::Submissions => json!({ "id": skewed(&self.forms, random) }),
            Kind::Me | Kind::Forms | Kind::Users | Kind::Latest => json!({}),
            Kind::Submit => json!({ "input": {
                "formId": self.open_forms[random.usize(..self.open_forms.len())],
                "clientId": Uuid::from_u128(random.u128(..)), "data": { "name": "Mai", "adults": random.u8(..9) },
            } }),
            Kind::Record => json!({ "input": { "points": points(random) } }),
            Kind::Refresh => json!({ "input": { "refreshToken": refresh } }),
            Kind::SignIn => return sign_in(&person.email, &self.password),
        };
        let body = if kind.by_id() {
            json!({ "documentId": self.documents[&kind], "variables": variables })
        } else {
            json!({ "query": kind.text(), "variables": variables })
        };
        post(&body.to_string(), &access).into_bytes()
    }
}

/// A request to sign in.
pub(super) fn sign_in(email: &str, password: &str) -> Vec<u8> {
    let body = json!({ "documentId": hash_of(Kind::SignIn.text()),
        "variables": { "input": { "email": email, "password": password, "sessionName": "benchmark" } } })
    .to_string();
    let head = "POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                accept: application/graphql-response+json, application/json\r\n";
    format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Whether this was done: an answer without errors, a mutation also without those that are its user's.
pub(super) fn is_good(kind: Kind, answer: &Answer<'_>) -> bool {
    let refused = match kind {
        Kind::Submit | Kind::Refresh | Kind::SignIn => {
            memmem::find(answer.body, br#""userErrors":[]"#).is_none()
        }
        Kind::Record => memmem::find(answer.body, br#""rejectedCount":0"#).is_none(),
        _ => false,
    };
    answer.is_good() && !refused
}

/// The objects in an answer.
pub(super) fn rows(answer: &[u8]) -> u64 {
    memmem::find_iter(answer, br#""id":""#).count() as u64
}

/// Who may open the streams of all others.
pub(super) fn managers(people: &[Person]) -> Vec<&Person> {
    people.iter().filter(|person| person.role == Role::Manager).collect()
}

/// The trusted documents: a folder with one map of names to texts.
pub(super) fn write_documents(directory: &Path) -> Result<PathBuf> {
    let documents: BTreeMap<String, &str> =
        Kind::ALL.iter().map(|kind| (hash_of(kind.text()), kind.text())).collect();
    let folder = directory.join("documents");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    fs::write(folder.join("plan.json"), serde_json::to_string(&documents)?)?;
    Ok(folder)
}

fn skewed(ids: &[Uuid], random: &mut fastrand::Rng) -> Uuid {
    let at = (ids.len() as f64 * random.f64().powi(SKEW)) as usize;
    ids[at.min(ids.len() - 1)]
}

/// A walk that ends now.
fn points(random: &mut fastrand::Rng) -> Vec<Value> {
    let (latitude, longitude) = (48.0 + 4.0 * random.f64(), 9.0 + 4.0 * random.f64());
    let now = SystemTime::now();
    let point = |index: u64| {
        let at: DateTime<Utc> = (now - Duration::from_secs(POINTS - index)).into();
        json!({
            "clientId": Uuid::from_u128(random.u128(..)),
            "timestamp": at.to_rfc3339_opts(SecondsFormat::Micros, true),
            "latitude": latitude + index as f64 / 10_000.0, "longitude": longitude, "accuracy": 7.5,
        })
    };
    (0..POINTS).map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_of_ten_thousand() {
        assert_eq!(Kind::ALL.iter().map(|kind| kind.share()).sum::<u32>(), 10_000);
    }

    #[test]
    fn a_hundredth_of_the_ids_gets_a_third_of_the_draws() {
        let ids: Vec<_> = (0..1000).map(Uuid::from_u128).collect();
        let mut random = fastrand::Rng::with_seed(1);
        let of_first = (0..10_000).filter(|_| skewed(&ids, &mut random).as_u128() < 10).count();
        assert!((2_900..3_500).contains(&of_first), "{of_first}");
    }

    #[test]
    fn each_kind_is_drawn() {
        let mut random = fastrand::Rng::with_seed(1);
        let drawn: std::collections::BTreeSet<_> =
            (0..100_000).map(|_| World::draw_kind(&mut random)).collect();
        assert_eq!(drawn.len(), Kind::ALL.len());
    }
}

//! A gateway that keeps answers by what it is told of them (`Cache-Control` and the tags in `extensions`),
//! and throws away what each write is told with, never gives an answer that a fresh one differs from. Its
//! rules are those of Apollo Router's response cache: without an age nothing is kept; what is private is kept
//! for one caller; entities are kept one by one, by their representation and selection; an entry goes with
//! any of its tags. Every mutation is run over what it has kept. Not here: the request by which a router is
//! told (`tests/live`).

use std::collections::{BTreeMap, BTreeSet};

use entities::{
    Role,
    events::{Changes, tags_of},
    id::SessionId,
};
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;

use super::{Caller, MUTATIONS, caller, document, user_errors};
use crate::harness::{Client, TestApp, db, introspect};

const ROOTS: [&str; 10] = [
    "{ webhooks(first: 4) { totalCount nodes { id url events isEnabled updatedAt } } }",
    "query($version: ID!) { formVersion(id: $version) { number hash form { title } } }",
    "{ users(first: 4) { totalCount nodes { id displayName role } } }",
    "{ forms(first: 4) { totalCount nodes { id title status submissionCount owner { displayName } } } }",
    "{ me { displayName email forms(first: 3) { totalCount } lastLocation { latitude } } }",
    "{ currentSession { id name isActive user { displayName } } }",
    "query($user: ID!) { user(id: $user) { displayName role sessions(first: 4) { totalCount nodes { id name isActive } } } }",
    "query($user: ID!) { user(id: $user) { lastLocation { latitude } forms(first: 3) { totalCount nodes { title } } } }",
    "query($open: ID!) { form(id: $open) { title status version submissionCount
        submissions(first: 2) { totalCount nodes { id data } } currentVersion { number } } }",
    "query($drafted: ID!) { form(id: $drafted) { title status version draftRevision owner { displayName } } }",
];

const ENTITIES: &str = "query($representations: [_Any!]!) { _entities(representations: $representations) {
    ... on User { id displayName role forms(first: 3) { totalCount nodes { title } } lastLocation { latitude } }
    ... on Form { id title status submissionCount owner { displayName } submissions(first: 2) { totalCount } }
    ... on Session { id name isActive user { displayName } } } }";

/// Entities of one type, of which only columns are asked for: each has tags of its own.
const USERS: &str = "query($users: [_Any!]!) { _entities(representations: $users) { ... on User { id displayName role email } } }";
const FORMS: &str = "query($forms: [_Any!]!) { _entities(representations: $forms) { ... on Form { title status version submissionCount } } }";

/// A type that others may keep by its age alone.
const VERSIONS: &str = "query($versions: [_Any!]!) { _entities(representations: $versions) { ... on FormVersion { number hash } } }";

/// An answer, or one entity of it, and what it is thrown away by.
struct Kept {
    tags: BTreeSet<String>,
    data: Value,
}

/// What a gateway keeps: by who asked, the document, and the variables or the representation.
#[derive(Default)]
struct Gateway {
    kept: BTreeMap<(String, &'static str, String), Kept>,
    /// Thrown away so far.
    thrown_away: usize,
}

impl Gateway {
    async fn ask(&mut self, who: &str, client: &Client<'_>, query: &'static str, variables: &Value) {
        let (reply, data) = answer(client, query, variables).await;
        let Some(policy) = reply.cache else { return };
        assert_eq!(policy.audience, schema::engine::cache_control::Audience::Private, "{query}");
        assert!((1..=60).contains(&policy.max_age_seconds), "{query}");
        let extensions = extensions(&reply);
        let tags = |value: &Value| serde_json::from_value::<BTreeSet<String>>(value.clone()).expect("texts");
        if let Some(entities) = data["_entities"].as_array() {
            let labels = extensions["apolloEntityCacheTags"].as_array().expect("tags of entities");
            let mut lists = variables.as_object().expect("an object").iter();
            let (name, representations) = lists.find(|(_, list)| list.is_array()).expect("representations");
            let representations = representations.as_array().expect("a list");
            assert_eq!((labels.len(), entities.len()), (representations.len(), representations.len()));
            for ((representation, entity), label) in representations.iter().zip(entities).zip(labels) {
                let kept = Kept { tags: tags(label), data: json!({ "_entities": [entity] }) };
                let alone = json!({ name: [representation] }).to_string();
                self.kept.insert((who.to_owned(), query, alone), kept);
            }
        } else {
            let kept = Kept { tags: tags(&extensions["apolloCacheTags"]), data };
            self.kept.insert((who.to_owned(), query, variables.to_string()), kept);
        }
    }

    /// What Apollo Router does where it is told that something is out of date.
    fn hear(&mut self, changes: &mut Receiver<Changes>) {
        let mut told = BTreeSet::new();
        while let Ok(changes) = changes.try_recv() {
            told.extend(tags_of(&changes).iter().map(ToString::to_string));
        }
        let before = self.kept.len();
        self.kept.retain(|_, kept| kept.tags.is_disjoint(&told));
        self.thrown_away += before - self.kept.len();
    }
}

async fn answer(client: &Client<'_>, query: &str, variables: &Value) -> (schema::Reply, Value) {
    let reply = client.as_gateway_that_keeps(query, variables.clone()).await;
    let body: Value = serde_json::from_slice(&reply.body.clone().into_vec()).expect("JSON");
    assert_eq!(body.get("errors"), None, "{query}");
    (reply, body["data"].clone())
}

fn extensions(reply: &schema::Reply) -> Value {
    let body: Value = serde_json::from_slice(&reply.body.clone().into_vec()).expect("JSON");
    body["extensions"].clone()
}

fn variables(caller: &Caller) -> Value {
    let representation = |name: &str, id: &str| json!({ "__typename": name, "id": id });
    json!({
        "user": caller.own.to_string(),
        "open": caller.open,
        "drafted": caller.drafted,
        "users": [representation("User", &caller.own.to_string()), representation("User", &caller.stranger.to_string())],
        "forms": [representation("Form", &caller.open), representation("Form", &caller.drafted)],
        "representations": [
            representation("User", &caller.own.to_string()),
            representation("User", &caller.stranger.to_string()),
            representation("Form", &caller.open),
            representation("Form", &caller.drafted),
            representation("Session", &caller.session),
            representation("Session", &caller.other_session),
        ],
    })
}

/// Only those that a document declares.
fn of(query: &str, variables: &Value) -> Value {
    let declared = variables.as_object().expect("an object").iter();
    declared
        .filter(|(name, _)| query.contains(&format!("${name}:")))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[tokio::test]
async fn no_answer_that_a_gateway_keeps_is_older_than_a_write_that_it_was_told_of() {
    for (index, app) in TestApp::both_own().await.iter().enumerate() {
        app.graph.access().open().await.expect("keys are made");
        let shape = introspect(app).await;
        let (mut kept, mut stale) = (0, Vec::new());
        let mut addresses =
            (1..).map(|number: u32| std::net::Ipv4Addr::from_bits(0x0b00_0000 + number * 256).to_string());
        let mut address = || addresses.next().expect("there is always another");
        for mutation in MUTATIONS {
            let role = mutation.allowed[0];
            let email = format!("kept-{}-{index}@example.com", mutation.name).to_lowercase();
            let caller = caller(app, role, &email, &address()).await;
            let session = SessionId::parse(&caller.session).expect("an id");
            let readers = [
                ("own", app.in_session(caller.own, role, session)),
                ("admin", app.as_admin()),
                ("viewer", app.as_role(Role::Viewer)),
                ("nobody", app.anonymous()),
            ];
            let mut changes = app.store.events().subscribe_own();
            let (mut gateway, mut all) = (Gateway::default(), variables(&caller));
            let version = format!("{{ form(id: \"{}\") {{ currentVersion {{ id }} }} }}", caller.open);
            all["version"] = app.as_admin().ask(&version).await["form"]["currentVersion"]["id"].clone();
            all["versions"] = json!([{ "__typename": "FormVersion", "id": all["version"] }]);
            for (who, client) in &readers {
                for query in ROOTS.into_iter().chain([ENTITIES, USERS, FORMS, VERSIONS]) {
                    gateway.ask(who, client, query, &of(query, &all)).await;
                }
            }
            kept += gateway.kept.len();
            let query = document(&shape, mutation);
            let input = (mutation.input)(&caller).map_or(json!({}), |input| json!({ "input": input }));
            let writer = app.in_session(caller.own, role, session).from(&address());
            let data = writer.run(&query, input).await.expect_data(mutation.name);
            assert!(user_errors(&data).is_empty(), "{}: {data}", mutation.name);
            gateway.hear(&mut changes);
            assert!(gateway.thrown_away > 0, "{} throws away nothing", mutation.name);
            if mutation.name == "signOut" {
                assert!(
                    gateway.kept.keys().all(|(who, ..)| who != "own"),
                    "who has signed out reads nothing"
                );
            }
            for ((who, query, variables), Kept { data, tags }) in &gateway.kept {
                let (_, client) = readers.iter().find(|(name, _)| name == who).expect("a reader");
                let variables: Value = serde_json::from_str(variables).expect("JSON");
                let fresh = answer(client, query, &variables).await.1;
                if fresh != *data {
                    stale.push(format!(
                        "{}: {who} {query} {variables} {tags:?}: {data}, now {fresh}",
                        mutation.name
                    ));
                }
            }
        }
        assert!(stale.is_empty(), "{} of {kept} are stale:\n{}", stale.len(), stale.join("\n"));
        assert!(kept > MUTATIONS.len() * 20, "{kept}");
        println!("{kept} kept, 0 stale");
    }
}

/// What somebody may see changes with their role: nothing stays that was made for them before.
#[tokio::test]
async fn what_was_kept_for_somebody_goes_with_their_role() {
    let app = &TestApp::over(&db::own_sqlite().await).await;
    app.graph.access().open().await.expect("keys are made");
    let caller = caller(app, Role::Editor, "kept-role@example.com", "10.9.8.7").await;
    let session = SessionId::parse(&caller.session).expect("an id");
    let (client, all) = (app.in_session(caller.own, Role::Editor, session), variables(&caller));
    let mut changes = app.store.events().subscribe_own();
    let mut gateway = Gateway::default();
    let forms = "{ forms(first: 4) { nodes { title } } }";
    for query in [forms, FORMS] {
        gateway.ask("own", &client, query, &of(query, &all)).await;
    }
    assert_eq!(gateway.kept.len(), 3);
    let demote = format!(
        "mutation {{ updateUser(input: {{ id: \"{}\", role: VIEWER }}) {{ userErrors {{ code }} }} }}",
        caller.own
    );
    assert_eq!(app.as_admin().ask(&demote).await["updateUser"]["userErrors"], json!([]));
    gateway.hear(&mut changes);
    assert_eq!(gateway.kept.len(), 0);
}

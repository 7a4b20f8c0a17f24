//! Every mutation of the schema (`mutations` lists them) is run by every role: who may leaves exactly one
//! entry in the activity log, who may not leaves nothing. A mutation of the schema that is not listed fails.
//! The same on what belongs to somebody else is in `foreign`. Not here: what each mutation does in detail.

mod foreign;
mod gateway_cache;
mod mutations;

use entities::{
    Role::{self, Admin, Editor, Viewer},
    id::{SessionId, UserId},
};
use serde_json::{Value, json};

use crate::harness::{Client, SchemaTypes, TestApp, introspect, text};
use mutations::{
    Caller, EVERYBODY, FOREIGN, Foreign, MANAGERS, MUTATIONS, Mutation, Otherwise, PASSWORD, Target,
    definition,
};

/// Is this mutation listed?
pub(crate) fn runs(name: &str) -> bool {
    MUTATIONS.iter().any(|mutation| mutation.name == name)
}

/// Who is refused with an error before a mutation begins: for each, whether anonymous callers are, and which roles pass
/// where others are `FORBIDDEN`. The test below holds that it is so.
pub(crate) fn refusals() -> impl Iterator<Item = (&'static str, bool, Option<&'static [Role]>)> {
    MUTATIONS.iter().map(|mutation| {
        let is_forbidden = matches!(mutation.otherwise, Otherwise::Forbidden);
        let anonymous = !matches!(mutation.otherwise, Otherwise::Open);
        (mutation.name, anonymous, is_forbidden.then_some(mutation.allowed))
    })
}

/// A document that runs a mutation and selects every field of its payload.
fn document(shape: &SchemaTypes, mutation: &Mutation) -> String {
    let declared = &shape["Mutation"].fields[mutation.name];
    let (parameter, argument) = match declared.arguments.get("input") {
        Some(input) => (format!("($input: {input}!)"), "(input: $input)"),
        None => (String::new(), ""),
    };
    let fields = everything(shape, &declared.of);
    format!("mutation{parameter} {{ {}{argument} {{ {fields} }} }}", mutation.name)
}

/// All fields of a payload; of what can be asked for by itself only the id.
fn everything(shape: &SchemaTypes, type_name: &str) -> String {
    let fields = shape[type_name].fields.iter().map(|(name, field)| {
        let of = shape.get(&field.of);
        match of.map_or("SCALAR", |of| of.kind.as_str()) {
            "INTERFACE" => format!("{name} {{ code message path }}"),
            "OBJECT" if of.is_some_and(|of| of.fields.contains_key("id")) => format!("{name} {{ id }}"),
            "OBJECT" => format!("{name} {{ {} }}", everything(shape, &field.of)),
            _ => name.clone(),
        }
    });
    fields.collect::<Vec<_>>().join(" ")
}

/// Every reason for which something was refused, wherever it stands in the payload.
fn user_errors(payload: &Value) -> Vec<&Value> {
    match payload {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match (name.as_str(), value) {
                ("userErrors", Value::Array(errors)) => errors.iter().collect(),
                _ => user_errors(value),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(user_errors).collect(),
        _ => Vec::new(),
    }
}

/// A new account of this role with two sessions.
async fn caller(app: &TestApp, role: Role, email: &str, address: &str) -> Caller {
    let sign_up = "mutation($e: String!, $p: String!) { signUp(input: { email: $e, password: $p, displayName: \"Ann\" }) {
        user { id } session { id } refreshToken } }";
    let variables = json!({ "e": email, "p": PASSWORD });
    let made =
        app.anonymous().from(address).run(sign_up, variables.clone()).await.expect_data(sign_up)["signUp"]
            .clone();
    let sign_in = "mutation($e: String!, $p: String!) { signIn(input: { email: $e, password: $p }) { session { id } } }";
    let second =
        app.anonymous().from(address).run(sign_in, variables).await.expect_data(sign_in)["signIn"].clone();
    let own = UserId::parse(&text(&made["user"]["id"])).expect("an id");
    let editor = app.as_user(own, Editor);
    let create =
        "mutation($d: JSON!) { createForm(input: { title: \"Own\", definition: $d }) { form { id } } }";
    let mut forms = Vec::new();
    for _ in 0..2 {
        let form = editor.run(create, json!({ "d": definition() })).await.expect_data(create);
        forms.push(text(&form["createForm"]["form"]["id"]));
    }
    let publish = format!(
        "mutation {{ publishForm(input: {{ id: \"{}\", baseRevision: 1 }}) {{ form {{ status }} userErrors {{ message }} }} }}",
        forms[1]
    );
    assert_eq!(editor.ask(&publish).await["publishForm"]["form"]["status"], "OPEN");
    let (webhook, delivery) = webhook(app, &editor, &forms[1]).await;
    app.sql(&format!("update users set role = '{}' where email = '{email}'", role.as_str())).await;
    Caller {
        own,
        open: forms.pop().expect("two were made"),
        drafted: forms.pop().expect("two were made"),
        session: text(&made["session"]["id"]),
        other_session: text(&second["session"]["id"]),
        refresh_token: text(&made["refreshToken"]),
        stranger: TestApp::account(Viewer),
        email: email.to_owned(),
        webhook,
        delivery,
    }
}

/// A webhook of an editor, and something that it was told.
async fn webhook(app: &TestApp, editor: &Client<'_>, form: &str) -> (String, String) {
    let create = "mutation($input: CreateWebhookInput!) { createWebhook(input: $input) {
        webhook { id } userErrors { message } } }";
    let input =
        json!({ "url": "https://192.0.1.1/hooks", "events": ["SUBMISSION_CREATED"], "formIds": [form] });
    let made = editor.run(create, json!({ "input": input })).await.expect_data(create);
    let webhook = text(&made["createWebhook"]["webhook"]["id"]);
    let delivery = entities::id::new().to_string();
    let bytes = |id: &str| {
        if app.is_postgres() { format!("'{id}'") } else { format!("x'{}'", id.replace('-', "")) }
    };
    let (id, of, form) = (bytes(&delivery), bytes(&webhook), bytes(form));
    let now = "'2026-11-01T00:00:00+00:00'";
    app.sql(&format!(
        "insert into webhook_deliveries (id, webhook_id, form_id, sequence, event, subject_id, happened_at, status,
         attempts, created_at, finished_at) values ({id}, {of}, {form}, 1, 'SUBMISSION_CREATED', {form}, {now},
         'FAILED', 1, {now}, {now})"
    ))
    .await;
    (webhook, delivery)
}

/// The verbs of the whole activity log, newest first.
async fn log(app: &TestApp) -> (u64, String) {
    let log = app.service().ask("{ activityLogs(first: 1) { totalCount nodes { actionType } } }").await;
    let count = log["activityLogs"]["totalCount"].as_u64().expect("a count");
    (count, text(&log["activityLogs"]["nodes"][0]["actionType"]))
}

#[tokio::test]
async fn every_allowed_mutation_logs_one_entry() {
    for app in TestApp::both_own().await {
        app.graph.access().open().await.expect("keys are made");
        let shape = introspect(&app).await;
        let listed: Vec<&str> = MUTATIONS.iter().map(|mutation| mutation.name).collect();
        let missing: Vec<&String> =
            shape["Mutation"].fields.keys().filter(|name| !listed.contains(&name.as_str())).collect();
        assert!(
            missing.is_empty(),
            "add these to `MUTATIONS` of tests/it/catalogue/mutations.rs: {missing:?}"
        );
        let mut cells = 0;
        // Each caller comes from elsewhere: nobody is throttled.
        let mut addresses =
            (1..).map(|index: u32| std::net::Ipv4Addr::from_bits(0x0a00_0000 + index * 256).to_string());
        let mut address = || addresses.next().expect("there is always another");
        for mutation in MUTATIONS {
            let query = document(&shape, mutation);
            for role in EVERYBODY {
                let email = format!("{}-{}@example.com", mutation.name, role.as_str()).to_lowercase();
                let caller = caller(&app, *role, &email, &address()).await;
                let session = SessionId::parse(&caller.session).expect("an id");
                let client = app.in_session(caller.own, *role, session).from(&address());
                let may = mutation.allowed.contains(role);
                run(&app, &client, mutation, &query, (mutation.input)(&caller), (may, false)).await;
                cells += 1;
            }
            let email = format!("{}-nobody@example.com", mutation.name).to_lowercase();
            let caller = caller(&app, Viewer, &email, &address()).await;
            let open = matches!(mutation.otherwise, Otherwise::Open);
            let nobody = app.anonymous().from(&address());
            run(&app, &nobody, mutation, &query, (mutation.input)(&caller), (open, true)).await;
            cells += 1;
        }
        println!("{cells} cells, 0 wrong");
    }
}

/// Runs a mutation as somebody who may or may not, and looks at the log.
async fn run(
    app: &TestApp,
    client: &Client<'_>,
    mutation: &Mutation,
    query: &str,
    input: Option<Value>,
    (may, is_anonymous): (bool, bool),
) {
    let (before, _) = log(app).await;
    let reply = client.run(query, input.map_or(json!({}), |input| json!({ "input": input }))).await;
    let (after, action) = log(app).await;
    let name = mutation.name;
    if may {
        let data = reply.expect_data(query);
        assert!(user_errors(&data[name]).is_empty(), "{name}: {}", data[name]);
        assert_eq!(
            (after - before, action.as_str()),
            (1, mutation.action),
            "{name}: entries in the activity log"
        );
        return;
    }
    let anonymous = reply.codes == ["UNAUTHENTICATED"];
    let forbidden = matches!(mutation.otherwise, Otherwise::Forbidden) && reply.codes == ["FORBIDDEN"];
    assert!(anonymous || forbidden, "{name}: {}", reply.body);
    assert_eq!(anonymous, is_anonymous, "{name}: {}", reply.body);
    assert!(reply.data.is_null());
    assert_eq!(after, before, "{name}: nothing was done");
}

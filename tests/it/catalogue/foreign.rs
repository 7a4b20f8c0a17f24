//! Every mutation that names something, on what belongs to somebody else: who may, may; the others are told what they
//! would be told if it were not there, unless they see it. A mutation that takes an id and is not listed here fails.

use super::*;

const ABSENT: &str = "00000000-0000-7000-8000-000000000000";

#[tokio::test]
async fn foreign_accounts_are_changed_by_authorized_callers_only() {
    for app in TestApp::both_own().await {
        app.graph.access().open().await.expect("keys are made");
        let shape = introspect(&app).await;
        let takes_id = |name: &str| {
            let input = shape["Mutation"].fields[name].arguments.get("input");
            input.is_some_and(|input| {
                shape[input].input_fields.keys().any(|field| {
                    let names = ["id", "userId", "formId", "formIds", "deliveryId", "submissions"];
                    names.contains(&field.as_str())
                })
            })
        };
        let missing: Vec<&str> = MUTATIONS
            .iter()
            .map(|mutation| mutation.name)
            .filter(|name| takes_id(name) && FOREIGN.iter().all(|foreign| foreign.name != *name))
            .collect();
        assert!(missing.is_empty(), "add these mutations to `FOREIGN`: {missing:?}");
        let mut cells = 0;
        for (index, foreign) in FOREIGN.iter().enumerate() {
            for (nth, role) in EVERYBODY.iter().map(Some).chain([None]).enumerate() {
                let owner = format!("owner-{index}-{nth}@example.com");
                let owner = caller(&app, Viewer, &owner, &format!("10.{index}.{nth}.1")).await;
                // Nobody is told of a caller that they are not.
                let client = match role {
                    Some(role) => app.as_role(*role),
                    None => app.anonymous(),
                };
                let may = role.is_some_and(|role| foreign.allowed.contains(role));
                attempt(&app, &client, foreign, &owner, role, may, &shape).await;
                cells += 1;
            }
        }
        println!("{cells} cells, 0 wrong");
    }
}

async fn attempt(
    app: &TestApp,
    client: &Client<'_>,
    foreign: &Foreign,
    owner: &Caller,
    role: Option<&Role>,
    may: bool,
    shape: &SchemaTypes,
) {
    let mutation =
        MUTATIONS.iter().find(|mutation| mutation.name == foreign.name).expect("it is in the catalogue");
    let query = document(shape, mutation);
    let own = owner.own.to_string();
    let id = match foreign.target {
        Target::Session => &owner.session,
        Target::Account => &own,
        Target::Draft => &owner.drafted,
        Target::Open => &owner.open,
        Target::Webhook => &owner.webhook,
        Target::Delivery => &owner.delivery,
    };
    let about = format!("{} of a foreign {:?} by {role:?}", foreign.name, foreign.target);
    let (before, _) = log(app).await;
    let reply = client.run(&query, json!({ "input": (foreign.input)(id) })).await;
    let (after, action) = log(app).await;
    if may {
        let data = reply.expect_data(&query);
        assert!(user_errors(&data[foreign.name]).is_empty(), "{about}: {data}");
        assert_eq!(
            (after - before, action.as_str()),
            (1, mutation.action),
            "{about}: entries in the activity log"
        );
        return;
    }
    assert_eq!(after, before, "{about}: nothing was done");
    let codes: Vec<&str> =
        user_errors(&reply.data).iter().filter_map(|error| error["code"].as_str()).collect();
    let refused = match codes[..] {
        [] => [["FORBIDDEN"], ["UNAUTHENTICATED"]].iter().any(|wanted| reply.codes == *wanted),
        // Whoever manages forms sees the draft, and is told that this cannot be done with it.
        [code] => ["NOT_FOUND", "NOT_ALLOWED", "NOT_ACCEPTING", "CONFLICT", "INVALID"].contains(&code),
        _ => false,
    };
    assert!(refused, "{about}: {}", reply.body);
    let sees_it = match foreign.target {
        // Everybody who is signed in sees that there is an account.
        Target::Account | Target::Open => true,
        Target::Session | Target::Webhook | Target::Delivery => role == Some(&Admin),
        Target::Draft => role.is_some_and(|role| MANAGERS.contains(role)),
    };
    if !sees_it {
        let absent = client.run(&query, json!({ "input": (foreign.input)(ABSENT) })).await;
        assert_eq!(reply.body, absent.body, "{about}: hidden is absent");
    }
}

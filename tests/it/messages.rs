//! What messages about documents and variables say: where and what is wrong, and nothing of what was sent. Not here: which
//! documents are refused (`limits`).

use serde_json::json;

use crate::harness::TestApp;

/// Messages end in the logs of clients and gateways. What stands in a literal or a variable may be a password.
#[tokio::test]
async fn no_message_repeats_a_value() {
    let planted = "hunter2-hunter2";
    let sign_in = |input: &str| format!("mutation {{ signIn(input: {{ {input} }} ) {{ accessToken }} }}");
    let documents = [
        format!(
            "mutation {{ signIn(input: {{ email: \"a\", password: \"{planted}\" ) }} {{ accessToken }} }}"
        ),
        format!("mutation {{ signIn(input: {{ email: \"a\", password \"{planted}\" }}) {{ accessToken }} }}"),
        format!(
            "mutation {{ signIn(input: {{ email: \"a\" password: \"{planted}\"!! }}) {{ accessToken }} }}"
        ),
        format!(
            "mutation {{ signIn(input: {{ email: \"a\" password: \"\"\"{planted}\"\"\" \"{planted}\" }}) {{ accessToken }} }}"
        ),
        format!("mutation {{ signIn(input: {{ email: \"a\", password: \"{planted} }}) {{ accessToken }} }}"),
        "mutation { signIn(input: { email: \"a\", password: \"hun\"hunter2 }) { accessToken } }".to_owned(),
        sign_in(&format!("email: \"a\", password: [\"{planted}\"]")),
        sign_in(&format!("email: \"a\", password: {{ a: \"{planted}\" }}")),
        sign_in("email: \"a\", password: hunter2_hunter2"),
        sign_in(&format!("email: \"a\", password: \"a\", sessionName: [\"{planted}\"]")),
        sign_in(&format!("email: \"a\", password: \"a\", other: \"{planted}\"")),
        format!("{{ users(first: \"{planted}\") {{ totalCount }} }}"),
        format!("{{ users(filter: {{ roles: [\"{planted}\"] }}) {{ totalCount }} }}"),
        format!("{{ users(filter: {{ isActive: \"{planted}\" }}) {{ totalCount }} }}"),
        format!("{{ users(filter: {{ createdAt: {{ from: \"{planted}\" }} }}) {{ totalCount }} }}"),
        format!("{{ users(after: \"{planted}\") {{ totalCount }} }}"),
        format!("{{ users(hunter: \"{planted}\") {{ totalCount }} }}"),
        format!("{{ users(orderBy: {{ field: \"{planted}\", direction: ASC }}) {{ totalCount }} }}"),
        format!("{{ user(id: \"{planted}\") {{ id }} }}"),
        format!("{{ userBy(lookup: {{ id: \"{planted}\", email: \"{planted}\" }}) {{ id }} }}"),
        format!("{{ me @include(if: \"{planted}\") {{ id }} }}"),
        format!("query($n: Int = \"{planted}\") {{ users(first: $n) {{ totalCount }} }}"),
        format!("query($r: [Role!] = [\"{planted}\"]) {{ users(filter: {{ roles: $r }}) {{ totalCount }} }}"),
        format!("{{ _entities(representations: [\"{planted}\"]) {{ __typename }} }}"),
    ];
    for app in TestApp::both().await {
        for document in &documents {
            let reply = app.as_admin().run(document, json!({})).await;
            assert!(
                !reply.errors.is_empty() && !reply.body.contains("hunter2"),
                "{document}: {}",
                reply.body
            );
            let places = reply.errors[0]["locations"].as_array().map_or(0, Vec::len);
            assert!(places > 0, "{document}: {}", reply.body);
            let echoed = reply.errors[0]["message"].as_str().map_or(0, |message| message.chars().count());
            assert!(echoed <= 160, "{}", reply.body);
        }
        for (document, value) in [
            ("query($v: Int) { users(first: $v) { totalCount } }", json!(planted)),
            ("query($v: [Role!]) { users(filter: { roles: $v }) { totalCount } }", json!(["ADMIN", planted])),
            ("query($v: UserFilter) { users(filter: $v) { totalCount } }", json!({ "roles": [planted] })),
            ("query($v: UserFilter) { users(filter: $v) { totalCount } }", json!({ "isActive": planted })),
            (
                "query($v: UserFilter) { users(filter: $v) { totalCount } }",
                json!({ "createdAt": { "to": planted } }),
            ),
            (
                "query($v: UserLookup!) { userBy(lookup: $v) { id } }",
                json!({ "id": planted, "email": planted }),
            ),
            ("query($v: Boolean!) { me @skip(if: $v) { id } }", json!(planted)),
            ("query($v: [ID!]!) { nodes(ids: $v) { id } }", json!([planted])),
            ("query($v: String) { users(after: $v) { totalCount } }", json!(planted)),
            ("mutation($v: SignInInput!) { signIn(input: $v) { accessToken } }", json!({ "email": planted })),
            (
                "mutation($v: SignInInput!) { signIn(input: $v) { accessToken } }",
                json!({ "email": "a", "password": [planted] }),
            ),
            (
                "mutation($v: SignInInput!) { signIn(input: $v) { accessToken } }",
                json!({ "email": "a", "password": { "a": planted } }),
            ),
        ] {
            let reply = app.as_admin().run(document, json!({ "v": value })).await;
            assert!(
                !reply.errors.is_empty() && !reply.body.contains("hunter2"),
                "{document}: {}",
                reply.body
            );
        }
    }
}

//! Sessions where the account changes: its password, its role, its being blocked.

use super::*;

#[tokio::test]
async fn changing_a_password_ends_other_sessions_and_old_tokens() {
    for app in apps().await {
        let mine = sign_up(&app, "ann@example.com").await;
        let phone = sign_in(&app.anonymous(), "ann@example.com", PASSWORD).await;
        let client = bearing(&app, &mine);
        let selection = "user { email } userErrors { code path }";
        let other = "another good password";
        for (current, new, code_wanted, at) in [
            ("wrong password", other, "INVALID_CREDENTIALS", "currentPassword"),
            (PASSWORD, "password1", "WEAK_PASSWORD", "newPassword"),
        ] {
            let input = json!({ "currentPassword": current, "newPassword": new });
            let payload = mutate(&client, "changePassword", input, selection).await;
            assert_eq!(
                (code(&payload), &payload["userErrors"][0]["path"]),
                (code_wanted, &json!(["input", at]))
            );
        }
        let input = json!({ "currentPassword": PASSWORD, "newPassword": other });
        let payload = mutate(&client, "changePassword", input, selection).await;
        assert_eq!(payload, json!({ "user": { "email": "ann@example.com" }, "userErrors": [] }));
        for tokens in [&mine, &phone] {
            assert!(app.bearing(tokens["accessToken"].as_str().expect("a token")).is_err());
        }
        assert_eq!(code(&refresh(&app, &phone["refreshToken"]).await), "EXPIRED");
        let tokens = refresh(&app, &mine["refreshToken"]).await;
        let data = bearing(&app, &tokens).ask("{ me { sessions { nodes { isCurrent endReason } } } }").await;
        let reasons: Vec<&Value> = data["me"]["sessions"]["nodes"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|node| &node["endReason"])
            .collect();
        assert_eq!(reasons, [&json!("CREDENTIALS_CHANGED"), &Value::Null]);
        assert_eq!(
            code(&sign_in(&app.anonymous(), "ann@example.com", PASSWORD).await),
            "INVALID_CREDENTIALS"
        );
        assert_eq!(sign_in(&app.anonymous(), "ann@example.com", other).await["userErrors"], json!([]));
    }
}

#[tokio::test]
async fn administrators_make_and_change_accounts_and_it_takes_effect_at_once() {
    let selection = "user { id email role isActive displayName } userErrors { code path }";
    for app in apps().await {
        let admin = app.as_admin();
        let input = json!({ "email": "Bob@example.com", "displayName": "Bob", "role": "MANAGER", "password": PASSWORD });
        let payload = mutate(&admin, "createUser", input.clone(), selection).await;
        assert_eq!(
            (&payload["user"]["email"], &payload["user"]["role"]),
            (&json!("bob@example.com"), &json!("MANAGER"))
        );
        let query = "mutation($input: CreateUserInput!) { createUser(input: $input) { user { id } } }";
        for role in [Role::Manager, Role::Editor, Role::Collector, Role::Viewer] {
            let codes = app.as_role(role).run(query, json!({ "input": input })).await.codes;
            assert_eq!(codes, ["FORBIDDEN"], "{role:?}");
        }
        assert_eq!(code(&mutate(&admin, "createUser", input, selection).await), "ALREADY_EXISTS");

        let bob = sign_in(&app.anonymous(), "bob@example.com", PASSWORD).await;
        let id = bob["user"]["id"].clone();
        let payload = mutate(&admin, "updateUser", json!({ "id": id, "role": "VIEWER" }), selection).await;
        assert_eq!(payload["user"]["role"], "VIEWER");
        assert_eq!(
            app.bearing(bob["accessToken"].as_str().expect("a token")).err(),
            Some(InvalidToken("revoked"))
        );
        let bob = refresh(&app, &bob["refreshToken"]).await;
        assert_eq!(bob["user"]["role"], "VIEWER", "the session goes on with less rights");

        let payload = mutate(&admin, "updateUser", json!({ "id": id, "isActive": false }), selection).await;
        assert_eq!(payload["user"]["isActive"], false);
        assert!(app.bearing(bob["accessToken"].as_str().expect("a token")).is_err());
        assert_eq!(code(&refresh(&app, &bob["refreshToken"]).await), "EXPIRED");
        assert_eq!(
            code(&sign_in(&app.anonymous(), "bob@example.com", PASSWORD).await),
            "INVALID_CREDENTIALS"
        );

        let absent = json!({ "id": "00000000-0000-7000-8000-000000000000", "isActive": true });
        assert_eq!(code(&mutate(&admin, "updateUser", absent, selection).await), "NOT_FOUND");
        let own = TestApp::account(Role::Admin).to_string();
        for input in [json!({ "id": own, "role": "VIEWER" }), json!({ "id": own, "isActive": false })] {
            assert_eq!(code(&mutate(&admin, "updateUser", input, selection).await), "NOT_ALLOWED");
        }
        let payload =
            mutate(&app.as_role(Role::Viewer), "updateProfile", json!({ "displayName": " Vee " }), selection)
                .await;
        assert_eq!(payload["user"]["displayName"], "Vee");
        let found = app.as_admin().ask("{ users(filter: { search: \"vee\" }) { totalCount } }").await;
        assert_eq!(found["users"]["totalCount"], 1);
    }
}

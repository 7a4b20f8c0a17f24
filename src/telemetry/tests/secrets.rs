//! What must be found in no log, span, metric, error or entry. Not here: what is in them.

use super::*;

/// Passwords, tokens and e-mails are found in no log, not even at the finest level, in no span, no metric, no error
/// and no entry of the activity log; passwords and tokens in no table.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn planted_secrets_are_found_nowhere() {
    let _alone = alone().await;
    let (endpoint, spans) = collector().await;
    let filter = crate::config::setting::LogFilter("trace".into());
    let config = TelemetryConfig {
        otlp_endpoint: Some(endpoint.into()),
        filter,
        log_format: LogFormat::Json,
        ..Config::default().telemetry
    };
    let log = Sink::default();
    let (telemetry, dispatch) = Telemetry::build(&config, LogWriter::start(log.clone())).expect("built");
    let guard = tracing::dispatcher::set_default(&dispatch);
    let app = app().await;
    let routes = crate::router(app.clone());
    let send = async |query: &str, token: Option<&str>| {
        let authorization = token.map(|token| format!("Bearer {token}"));
        let response =
            routes.clone().oneshot(request(query, authorization.as_deref())).await.expect("answered");
        let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("a body").to_bytes();
        serde_json::from_slice::<serde_json::Value>(&body).expect("JSON")
    };
    let (email, password, wrong) = ("planted@example.com", "planted-Passw0rd-1", "planted-Guess-2");
    let answer = send(
        &format!(
            "mutation {{ signUp(input: {{ email: \"{email}\", password: \"{password}\", displayName: \"Ann\" }}) {{
                accessToken refreshToken }} }}"
        ),
        None,
    )
    .await;
    let token = |answer: &serde_json::Value, field: &str, name: &str| {
        answer["data"][field][name].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    let mut secrets = vec![password.to_owned(), wrong.to_owned()];
    secrets.extend(["accessToken", "refreshToken"].map(|name| token(&answer, "signUp", name)));
    let sign_in = |password: &str| {
        format!(
            "mutation {{ signIn(input: {{ email: \"{email}\", password: \"{password}\" }}) {{ accessToken refreshToken userErrors {{ code message path }} }} }}"
        )
    };
    let refused = send(&sign_in(wrong), None).await;
    let answer = send(&sign_in(password), None).await;
    secrets.extend(["accessToken", "refreshToken"].map(|name| token(&answer, "signIn", name)));
    let refresh = format!(
        "mutation {{ refreshSession(input: {{ refreshToken: \"{}\" }}) {{ accessToken refreshToken userErrors {{ code message }} }} }}",
        secrets[5]
    );
    let answer = send(&refresh, None).await;
    secrets.extend(["accessToken", "refreshToken"].map(|name| token(&answer, "refreshSession", name)));
    let change = format!(
        "mutation {{ changePassword(input: {{ currentPassword: \"{wrong}\", newPassword: \"{password}\" }}) {{ userErrors {{ message }} }} }}"
    );
    let denied = send(&change, Some(&secrets[6])).await;
    let unsealed = send("{ me { id } }", Some(&secrets[7])).await;
    let tables = ["users", "user_sessions", "user_activity_logs", "signing_keys", "revocations"];
    let mut dumps = Vec::new();
    for table in tables {
        dumps.push(dump(&app, table).await);
    }
    // What goes wrong with the database is written to the log, and must not bring its values along.
    app.store.connection().get_sqlite_connection_pool().close().await;
    let failed = send(&sign_in(password), None).await;
    assert_eq!(failed["errors"][0]["extensions"]["code"], "UNAVAILABLE");
    let metrics = app.exposition.text().await.expect("metrics");
    let metrics = String::from_utf8(metrics.to_vec()).expect("text");
    drop(guard);
    telemetry.stop().await;

    let spans = format!("{:?}", spans.lock().expect("not poisoned"));
    assert!(log.text().len() > 1_000 && spans.len() > 1_000, "{} {spans}", log.text());
    let open = [
        log.text(),
        spans,
        metrics,
        refused.to_string(),
        denied.to_string(),
        unsealed.to_string(),
        failed.to_string(),
    ];
    for secret in secrets.iter().map(String::as_str).chain(["planted"]) {
        assert!(open.iter().all(|text| !text.contains(secret)), "{secret} is out");
    }
    for secret in &secrets {
        assert!(dumps.iter().all(|text| !text.contains(secret.as_str())), "{secret} is stored");
    }
    assert!(dumps[0].contains(email), "the dump can be searched");
    assert!(!dumps[2].contains("planted"), "the activity log says nothing of the input");
}

/// A table as text.
async fn dump(app: &App, table: &str) -> String {
    let columns = sea_orm::sqlx::query_scalar::<_, String>(sea_orm::sqlx::AssertSqlSafe(format!(
        "select group_concat('ifnull(quote(' || name || '), 0)', '||') from pragma_table_info('{table}')"
    )));
    let pool = app.store.connection().get_sqlite_connection_pool();
    let columns = columns.fetch_one(pool).await.expect("columns");
    let rows = sea_orm::sqlx::query_scalar::<_, String>(sea_orm::sqlx::AssertSqlSafe(format!(
        "select {columns} from {table}"
    )));
    rows.fetch_all(pool).await.expect("rows").join("\n")
}

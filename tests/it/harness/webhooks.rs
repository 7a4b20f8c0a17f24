//! Webhooks beside the demo data, which has none: of an administrator, of an editor, and of an account that
//! was an editor once; each with deliveries. None of them is told of anything: two are disabled, and the
//! third one's owner may not be told any more.

use entities::{NodeKind, Role, Store, node};
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use uuid::Uuid;

use super::TestApp;

/// Writes them into the tables.
pub(super) async fn add(store: &Store) {
    let db = store.connection();
    let backend = db.get_database_backend();
    let bytes = |id: &str| {
        if backend == DbBackend::Postgres {
            return format!("'{id}'");
        }
        format!("x'{}'", id.replace('-', ""))
    };
    let ids = async |kind: NodeKind| {
        let (_, table, id) = node::tables().find(|(other, ..)| *other == kind).expect("it has a table");
        let first =
            Statement::from_string(backend, format!("select {id} from {table} order by {id} limit 40"));
        let rows = db.query_all_raw(first).await.expect("it can be read");
        let read = |row: &sea_orm::QueryResult| row.try_get_by_index::<Uuid>(0).expect("an id").to_string();
        rows.iter().map(read).collect::<Vec<_>>()
    };
    let (forms, submissions) = (ids(NodeKind::Form).await, ids(NodeKind::Submission).await);
    let now = "'2026-11-01T00:00:00+00:00'";
    let mut statements = Vec::new();
    for (index, role) in [Role::Admin, Role::Editor, Role::Collector].into_iter().enumerate() {
        let id = bytes(&format!("0190000{index}-0000-7000-8000-000000000001"));
        let owner = bytes(&TestApp::account(role).to_string());
        let (is_enabled, disabled_at) = if index == 2 { ("true", "null") } else { ("false", now) };
        statements.push(format!(
            "insert into webhooks (id, owner_id, url, events, has_all_forms, is_enabled, disabled_at, disabled_reason,
             failing_since, previous_secret_until, secret, from_transaction_id, from_number, created_at, updated_at)
             values ({id}, {owner}, 'https://example.com/{index}', 'SUBMISSION_CREATED,FORM_UPDATED', {},
             {is_enabled}, {disabled_at}, 'The receiver answered 410 Gone.', {now}, {now}, 'sealed', 0, 0, {now}, {now})",
            index != 1
        ));
        let form = bytes(&forms[index]);
        if index == 1 {
            statements.push(format!("insert into webhook_forms (webhook_id, form_id) values ({id}, {form})"));
        }
        let statuses = ["PENDING", "DELIVERED", "FAILED", "SKIPPED"];
        for (number, status) in statuses.into_iter().enumerate() {
            let delivery = bytes(&format!("0190000{index}-0000-7000-8000-00000000010{number}"));
            let (event, subject) = match number {
                0 => ("FORM_UPDATED", form.clone()),
                _ => ("SUBMISSION_CREATED", bytes(&submissions[number * 7 + index])),
            };
            let sequence = 1 + 10 * index + number;
            statements.push(format!(
                "insert into webhook_deliveries (id, webhook_id, form_id, sequence, event, subject_id,
                 happened_at, status, attempts, first_attempt_at, last_attempt_at, next_attempt_at, last_status_code,
                 last_error, created_at, finished_at) values ({delivery}, {id}, {form}, {sequence}, '{event}', {subject},
                 {now}, '{status}', {number}, {now}, {now}, {now}, 503, 'The receiver answered 503 Service Unavailable.',
                 {now}, {now})"
            ));
        }
    }
    if backend == DbBackend::Postgres {
        let last = "(select max(sequence) from webhook_deliveries)";
        let sequence = "pg_get_serial_sequence('webhook_deliveries', 'sequence')";
        statements.push(format!("select setval({sequence}, {last})"));
    }
    for sql in statements {
        let ran = db.execute_unprepared(&sql).await;
        ran.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

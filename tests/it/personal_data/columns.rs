//! Every column of every table, and what becomes of it when a person's data is exported and erased. A new column is
//! listed here, after what the two do with it was decided (`entities/src/personal_data`).

/// What erasing does with a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnErase {
    /// It is of no person.
    NotPersonal,
    /// It goes with its row.
    RowRemoved,
    /// It is null afterwards.
    Emptied,
    /// Something stands in its place that says nothing.
    Replaced,
    /// It stays: it is the organisation's, or the id of an account without a name.
    Kept,
}

/// What the exported document has of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnExport {
    /// It is of no person.
    NotPersonal,
    /// It is there under this name.
    As(&'static str),
    /// It is a secret.
    Secret,
    /// It says whose the row is, or repeats another column, or only the program needs it.
    LeftOut,
}

/// A column, and what becomes of it.
pub(crate) type ColumnDecision = (&'static str, OnErase, OnExport);

/// A table, its list in the exported document, the column that says whose a row is, and its columns.
pub(crate) struct TableDecision {
    pub(crate) table: &'static str,
    pub(crate) list: Option<&'static str>,
    pub(crate) owner: Option<&'static str>,
    pub(crate) columns: &'static [ColumnDecision],
}

const fn none(table: &'static str, columns: &'static [ColumnDecision]) -> TableDecision {
    TableDecision { table, list: None, owner: None, columns }
}

const fn of(
    table: &'static str,
    list: &'static str,
    owner: &'static str,
    columns: &'static [ColumnDecision],
) -> TableDecision {
    TableDecision { table, list: Some(list), owner: Some(owner), columns }
}

use OnErase::{Emptied, Kept, NotPersonal, Replaced, RowRemoved};
use OnExport::{As, LeftOut, NotPersonal as No, Secret};

pub(crate) const DECISIONS: &[TableDecision] = &[
    of(
        "users",
        "account",
        "id",
        &[
            ("id", Kept, As("id")),
            ("email", Replaced, As("email")),
            ("display_name", Replaced, As("displayName")),
            ("search_name", Replaced, LeftOut),
            ("role", Replaced, As("role")),
            ("is_active", Replaced, As("isActive")),
            ("password_hash", Emptied, As("hasPassword")),
            ("created_at", Kept, As("createdAt")),
            ("updated_at", Replaced, As("updatedAt")),
            ("last_login", Emptied, As("lastLogin")),
            ("epoch", Kept, LeftOut),
        ],
    ),
    of(
        "user_sessions",
        "sessions",
        "user_id",
        &[
            ("id", RowRemoved, As("id")),
            ("user_id", RowRemoved, LeftOut),
            ("is_active", RowRemoved, As("isActive")),
            ("name", RowRemoved, As("name")),
            ("ip_address", RowRemoved, As("ipAddress")),
            ("user_agent", RowRemoved, As("userAgent")),
            ("created_at", RowRemoved, As("createdAt")),
            ("last_activity", RowRemoved, As("lastActivity")),
            ("expires_at", RowRemoved, As("expiresAt")),
            ("revoked_at", RowRemoved, As("revokedAt")),
            ("end_reason", RowRemoved, As("endReason")),
            ("refresh_salt", RowRemoved, Secret),
            ("refresh_counter", RowRemoved, LeftOut),
            ("refreshed_at", RowRemoved, As("refreshedAt")),
            ("ends_at", RowRemoved, As("endsAt")),
            ("exchanges", RowRemoved, LeftOut),
        ],
    ),
    of(
        "forms",
        "forms",
        "owner_id",
        &[
            ("id", Kept, As("id")),
            ("owner_id", Kept, LeftOut),
            ("title", Kept, As("title")),
            ("search_title", Kept, LeftOut),
            ("description", Kept, As("description")),
            ("status", Kept, As("status")),
            ("version", Kept, As("version")),
            ("draft", Kept, As("draft")),
            ("draft_revision", Kept, As("draftRevision")),
            ("created_at", Kept, As("createdAt")),
            ("updated_at", Kept, As("updatedAt")),
            ("published_at", Kept, As("publishedAt")),
        ],
    ),
    of(
        "form_versions",
        "formVersions",
        "published_by",
        &[
            ("id", Kept, As("id")),
            ("form_id", Kept, As("formId")),
            ("number", Kept, As("number")),
            ("definition", Kept, As("definition")),
            ("json_schema", Kept, LeftOut),
            ("hash", Kept, As("hash")),
            ("published_at", Kept, As("publishedAt")),
            ("published_by", Kept, LeftOut),
        ],
    ),
    // With `--submissions delete` the rows go.
    of(
        "form_submissions",
        "submissions",
        "user_id",
        &[
            ("id", Kept, As("id")),
            ("form_id", Kept, As("formId")),
            ("form_version", Kept, As("formVersion")),
            ("user_id", Kept, LeftOut),
            ("session_id", Emptied, As("sessionId")),
            ("client_id", Kept, As("clientId")),
            ("data", Kept, As("data")),
            ("location_id", Emptied, As("locationId")),
            ("created_at", Kept, As("createdAt")),
            ("own_client_id", Kept, As("clientId")),
        ],
    ),
    of(
        "user_locations",
        "locations",
        "user_id",
        &[
            ("id", RowRemoved, As("id")),
            ("user_id", RowRemoved, LeftOut),
            ("session_id", RowRemoved, As("sessionId")),
            ("timestamp", RowRemoved, As("timestamp")),
            ("received_at", RowRemoved, As("receivedAt")),
            ("latitude", RowRemoved, As("latitude")),
            ("longitude", RowRemoved, As("longitude")),
            ("accuracy", RowRemoved, As("accuracy")),
            ("altitude", RowRemoved, As("altitude")),
            ("speed", RowRemoved, As("speed")),
            ("heading", RowRemoved, As("heading")),
        ],
    ),
    of(
        "user_last_locations",
        "lastLocation",
        "user_id",
        &[
            ("user_id", RowRemoved, LeftOut),
            ("id", RowRemoved, As("id")),
            ("session_id", RowRemoved, As("sessionId")),
            ("timestamp", RowRemoved, As("timestamp")),
            ("received_at", RowRemoved, As("receivedAt")),
            ("latitude", RowRemoved, As("latitude")),
            ("longitude", RowRemoved, As("longitude")),
            ("accuracy", RowRemoved, As("accuracy")),
            ("altitude", RowRemoved, As("altitude")),
            ("speed", RowRemoved, As("speed")),
            ("heading", RowRemoved, As("heading")),
        ],
    ),
    // Details of entries about forms, submissions and webhooks stay: they name nobody.
    of(
        "user_activity_logs",
        "activityLogs",
        "user_id",
        &[
            ("id", Kept, As("id")),
            ("user_id", Kept, As("userId")),
            ("action_type", Kept, As("actionType")),
            ("subject_id", Kept, As("subjectId")),
            ("subject_type", Kept, As("subjectType")),
            ("metadata", Replaced, As("metadata")),
            ("created_at", Kept, As("createdAt")),
        ],
    ),
    of(
        "webhooks",
        "webhooks",
        "owner_id",
        &[
            ("id", RowRemoved, As("id")),
            ("owner_id", RowRemoved, LeftOut),
            ("url", RowRemoved, As("url")),
            ("events", RowRemoved, As("events")),
            ("has_all_forms", RowRemoved, As("formIds")),
            ("is_enabled", RowRemoved, As("isEnabled")),
            ("disabled_at", RowRemoved, As("disabledAt")),
            ("disabled_reason", RowRemoved, As("disabledReason")),
            ("failing_since", RowRemoved, As("failingSince")),
            ("secret", RowRemoved, Secret),
            ("previous_secret", RowRemoved, Secret),
            ("previous_secret_until", RowRemoved, As("previousSecretUntil")),
            ("from_transaction_id", RowRemoved, LeftOut),
            ("from_number", RowRemoved, LeftOut),
            ("created_at", RowRemoved, As("createdAt")),
            ("updated_at", RowRemoved, As("updatedAt")),
        ],
    ),
    // These go with their webhook, and are in the list of the webhooks.
    none("webhook_forms", &[("webhook_id", RowRemoved, LeftOut), ("form_id", RowRemoved, LeftOut)]),
    none(
        "webhook_lanes",
        &[
            ("webhook_id", RowRemoved, LeftOut),
            ("form_id", RowRemoved, LeftOut),
            ("due_at", RowRemoved, LeftOut),
            ("lease", RowRemoved, LeftOut),
            ("leased_until", RowRemoved, LeftOut),
        ],
    ),
    TableDecision {
        table: "webhook_deliveries",
        list: Some("webhookDeliveries"),
        owner: None,
        columns: &[
            ("id", RowRemoved, As("id")),
            ("webhook_id", RowRemoved, As("webhookId")),
            ("form_id", RowRemoved, As("formId")),
            ("sequence", RowRemoved, LeftOut),
            ("event", RowRemoved, As("event")),
            ("subject_id", RowRemoved, As("subjectId")),
            ("happened_at", RowRemoved, As("happenedAt")),
            ("status", RowRemoved, As("status")),
            ("attempts", RowRemoved, As("attempts")),
            ("first_attempt_at", RowRemoved, As("firstAttemptAt")),
            ("last_attempt_at", RowRemoved, As("lastAttemptAt")),
            ("next_attempt_at", RowRemoved, As("nextAttemptAt")),
            ("last_status_code", RowRemoved, As("lastStatusCode")),
            ("last_error", RowRemoved, As("lastError")),
            ("created_at", RowRemoved, As("createdAt")),
            ("finished_at", RowRemoved, As("finishedAt")),
        ],
    },
    // Of others' requests, answers that name the person are emptied.
    of(
        "idempotency_keys",
        "keyedRequests",
        "user_id",
        &[
            ("id", RowRemoved, LeftOut),
            ("fingerprint", RowRemoved, LeftOut),
            ("claim", RowRemoved, LeftOut),
            ("claimed_until", RowRemoved, LeftOut),
            ("stored", RowRemoved, As("stored")),
            ("answer", RowRemoved, As("answer")),
            ("codes", RowRemoved, As("codes")),
            ("cache_token", RowRemoved, LeftOut),
            ("created_at", RowRemoved, As("createdAt")),
            ("user_id", RowRemoved, LeftOut),
        ],
    ),
    // Ids alone; they are removed by themselves when nothing is left that they concern, a day later at most.
    none(
        "revocations",
        &[
            ("seq", NotPersonal, No),
            ("session_id", Kept, LeftOut),
            ("user_id", Kept, LeftOut),
            ("epoch", Kept, LeftOut),
            ("created_at", Kept, LeftOut),
            ("expires_at", Kept, LeftOut),
        ],
    ),
    // Ids alone, for as long as `retention.events` says.
    none(
        "events",
        &[
            ("transaction_id", NotPersonal, No),
            ("number", NotPersonal, No),
            ("changes", Kept, LeftOut),
            ("created_at", NotPersonal, No),
        ],
    ),
    none("revocation_counter", &[("seq", NotPersonal, No)]),
    none(
        "signing_keys",
        &[
            ("kid", NotPersonal, No),
            ("public_key", NotPersonal, No),
            ("sealed_key", NotPersonal, No),
            ("created_at", NotPersonal, No),
            ("signs_from", NotPersonal, No),
            ("revoked_at", NotPersonal, No),
        ],
    ),
    // Numbers of slots, which stand for many tags each.
    none("cache_outbox", &[("id", NotPersonal, No), ("slots", NotPersonal, No)]),
    none(
        "instances",
        &[
            ("id", NotPersonal, No),
            ("shares_cache", NotPersonal, No),
            ("seen_at", NotPersonal, No),
            ("cache_id", NotPersonal, No),
        ],
    ),
    none(
        "event_consumers",
        &[
            ("name", NotPersonal, No),
            ("transaction_id", NotPersonal, No),
            ("number", NotPersonal, No),
            ("millis", NotPersonal, No),
            ("holder", NotPersonal, No),
            ("held_until", NotPersonal, No),
        ],
    ),
];

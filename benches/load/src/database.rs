//! The database as seen from beside: which users there are, how many statements have run, which process it is.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::cpu;

/// A connection of our own.
pub(crate) struct Database {
    connection: PgConnection,
    /// How statements are counted.
    pub(crate) source: StatementSource,
    /// The postmaster, when it runs on this machine.
    pub(crate) postmaster: Option<u32>,
}

/// Where the number of statements comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StatementSource {
    /// `pg_stat_statements`: exact.
    PgStatStatements,
    /// `pg_stat_database.xact_commit`: a transaction for each statement outside one, and reported late.
    PgStatDatabase,
}

impl StatementSource {
    /// For the head of the report.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::PgStatStatements => "pg_stat_statements (exact)",
            Self::PgStatDatabase => "pg_stat_database.xact_commit (approximate: transactions, reported late)",
        }
    }
}

impl Database {
    pub(crate) async fn connect(url: &str) -> Result<Self> {
        let mut connection = PgConnection::connect(url).await.context("connecting to the database")?;
        let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await?;
        let postmaster = u32::try_from(backend).ok().and_then(cpu::postmaster_of);
        let mut database = Self { connection, source: StatementSource::PgStatStatements, postmaster };
        let extension = sqlx::query("CREATE EXTENSION IF NOT EXISTS pg_stat_statements");
        // The user may lack the right and the extension be there all the same.
        let _ = extension.execute(&mut database.connection).await;
        if database.statements().await.is_err() {
            database.source = StatementSource::PgStatDatabase;
        }
        Ok(database)
    }

    /// All users' ids, in a fixed order.
    pub(crate) async fn user_ids(&mut self) -> Result<Vec<Uuid>> {
        let ids: Vec<Uuid> =
            sqlx::query_scalar("SELECT id FROM users ORDER BY id").fetch_all(&mut self.connection).await?;
        ensure!(!ids.is_empty(), "the database has no users; run `xp seed --size m` first");
        Ok(ids)
    }

    /// The ids of forms, in a fixed order.
    pub(crate) async fn form_ids(&mut self) -> Result<Vec<Uuid>> {
        Ok(sqlx::query_scalar("SELECT id FROM forms ORDER BY id").fetch_all(&mut self.connection).await?)
    }

    /// Gives accounts of a role the password that another one has; their e-mails.
    pub(crate) async fn give_password(&mut self, known: Uuid, role: &str, count: u32) -> Result<Vec<String>> {
        let sql = "WITH chosen AS (SELECT id FROM users WHERE role = $2 AND is_active ORDER BY id LIMIT $3) \
                   UPDATE users SET password_hash = (SELECT password_hash FROM users WHERE id = $1) \
                   WHERE id IN (SELECT id FROM chosen) RETURNING email";
        let emails = sqlx::query_scalar(sql).bind(known).bind(role).bind(i64::from(count));
        Ok(emails.fetch_all(&mut self.connection).await?)
    }

    /// The ids of these accounts.
    pub(crate) async fn ids_of(&mut self, emails: Vec<String>) -> Result<Vec<Uuid>> {
        let ids = sqlx::query_scalar("SELECT id FROM users WHERE email = ANY($1) ORDER BY id").bind(emails);
        Ok(ids.fetch_all(&mut self.connection).await?)
    }

    /// How many statements have run in this database so far, ours left out where they can be told.
    pub(crate) async fn statements(&mut self) -> Result<i64> {
        let sql = match self.source {
            StatementSource::PgStatStatements => {
                "SELECT coalesce(sum(calls), 0)::int8 FROM pg_stat_statements \
                 WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                   AND query NOT LIKE '%pg_stat_statements%'"
            }
            StatementSource::PgStatDatabase => {
                // Backends report at most once a second.
                tokio::time::sleep(Duration::from_millis(1200)).await;
                "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
            }
        };
        Ok(sqlx::query_scalar(sql).fetch_one(&mut self.connection).await?)
    }
}

//! `xp user export` and `xp user erase`: what is stored of one person. Not here: what that is, and what becomes of it
//! (`entities::personal_data`).

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use clap::{Subcommand, ValueEnum};
use entities::{
    Store,
    id::UserId,
    personal_data::{
        erase::{self, ErasePlan, Erased, ErasedRows, SubmissionPolicy},
        export::{self, ExportError},
    },
};
use prometheus_client::registry::Registry;
use serde_json::json;
use xp::config::Config;

use super::{
    Failure,
    accounts::{failed, find, for_writing},
    database, say, standard_output,
};

#[derive(Debug, Subcommand)]
pub(super) enum PersonalData {
    /// Writes all that is stored of the person of an account, as one JSON document.
    Export {
        /// The account's e-mail or id.
        #[arg(value_name = "EMAIL|ID")]
        who: String,
        /// Writes it to this file, which must not exist and which only its owner may read; without it to standard
        /// output.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Erases the person of an account, for good: nobody can sign in to it any more, and nothing that is stored names
    /// the person. Asks first. Where it was cut off, once more does the rest.
    Erase {
        /// The account's e-mail or id.
        #[arg(value_name = "EMAIL|ID")]
        who: String,
        /// Does it without asking: for scripts.
        #[arg(long)]
        yes: bool,
        /// Says what it would remove, and changes nothing.
        #[arg(long)]
        dry_run: bool,
        /// What becomes of the submissions that the person has handed in.
        #[arg(long, value_enum, default_value_t)]
        submissions: Submissions,
    },
}

/// What becomes of submissions.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(super) enum Submissions {
    /// They stay, of an account without a name.
    #[default]
    Keep,
    /// They are removed.
    Delete,
}

/// `xp user export` and `xp user erase`.
pub(super) async fn run(config: &Config, action: PersonalData, as_json: bool) -> Result<(), Failure> {
    match action {
        PersonalData::Export { who, output } => export(config, &who, output.as_deref(), as_json).await,
        PersonalData::Erase { who, yes, dry_run, submissions } => {
            let submissions = match submissions {
                Submissions::Keep => SubmissionPolicy::Keep,
                Submissions::Delete => SubmissionPolicy::Delete,
            };
            let plan = ErasePlan {
                submissions,
                schema_lock: migration::LOCK,
                request_timeout: config.http.request_timeout,
            };
            erase(config, &who, plan, (yes, dry_run), as_json).await
        }
    }
}

async fn export(config: &Config, who: &str, output: Option<&Path>, as_json: bool) -> Result<(), Failure> {
    let store = database::connect(config, false, &mut Registry::default()).await?;
    let exporting = database::while_it_answers(&store, async {
        let user = find(&store, who).await?.user;
        if let Some(file) = output {
            return export_to_file(&store, (who, user), file, as_json).await.map(Some);
        }
        let mut out = standard_output();
        match export::export(&store, user, &mut out).await {
            // `xp user export … | head` is no failure.
            Err(ExportError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(None),
            written => told(written, who).map(|_| None),
        }
    });
    // What was begun is taken away where somebody stops it.
    let said = tokio::select! {
        said = exporting => said?,
        _ = tokio::signal::ctrl_c() => {
            return Err(Failure::Failed("it was interrupted; no file was made".into()));
        }
    };
    store.close().await;
    said.map_or(Ok(()), |said| say(&said))
}

/// How many rows of each kind were written.
type ExportedRows = Vec<(&'static str, u64)>;

fn told(written: Result<Option<ExportedRows>, ExportError>, who: &str) -> Result<ExportedRows, Failure> {
    match written {
        Ok(Some(rows)) => Ok(rows),
        Ok(None) => Err(Failure::Failed(format!("account not found: {who}"))),
        Err(error) => Err(failed(&error)),
    }
}

async fn export_to_file(
    store: &Store,
    (who, user): (&str, UserId),
    file: &Path,
    as_json: bool,
) -> Result<String, Failure> {
    let unusable = |error: &io::Error| {
        let fix = match error.kind() {
            io::ErrorKind::AlreadyExists => "take another name; a file that exists is not written over",
            _ => "check that the folder exists and can be written to",
        };
        Failure::Failed(format!("{} cannot be written\n  why:   {error}\n  fix:   {fix}", file.display()))
    };
    let mut partial = PartialFile::begin(file).map_err(|error| unusable(&error))?;
    let written = {
        let mut out = BufWriter::new(&mut partial.file);
        export::export(store, user, &mut out).await
    };
    let rows = told(written, who)?;
    partial.complete(file).map_err(|error| unusable(&error))?;
    if as_json {
        let rows: serde_json::Map<_, _> =
            rows.iter().map(|(name, rows)| ((*name).to_owned(), json!(rows))).collect();
        return Ok(json!({ "id": user.to_string(), "file": file, "rows": rows }).to_string());
    }
    let rows: Vec<String> = rows.iter().map(|(name, rows)| format!("  {rows:>8}  {name}")).collect();
    Ok(format!("{} has all that is stored of {user}:\n{}", file.display(), rows.join("\n")))
}

/// A file under a temporary name beside its own. It is removed when it does not become whole.
struct PartialFile {
    path: PathBuf,
    file: File,
}

impl PartialFile {
    fn begin(target: &Path) -> io::Result<Self> {
        if fs::symlink_metadata(target).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut name = OsString::from(".");
        name.push(target.file_name().ok_or(io::ErrorKind::InvalidInput)?);
        name.push(format!(".{}.partial", std::process::id()));
        let path = target.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { path, file })
    }

    /// Gives it its own name, unless something has that by now.
    fn complete(self, target: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        // A link, unlike a change of the name, never takes the place of another file; some file systems have none.
        match fs::hard_link(&self.path, target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            Err(_) if fs::symlink_metadata(target).is_err() => fs::rename(&self.path, target),
            linked => linked,
        }
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        // The name only, where the file has its own by now.
        let _ = fs::remove_file(&self.path);
    }
}

async fn erase(
    config: &Config,
    who: &str,
    plan: ErasePlan,
    (is_sure, is_dry_run): (bool, bool),
    as_json: bool,
) -> Result<(), Failure> {
    let store = for_writing(config).await?;
    let account = database::while_it_answers(&store, find(&store, who)).await?;
    let (user, [email, _]) = (account.user, account.known);
    let mut rows = ErasedRows::default();
    if is_dry_run || !is_sure {
        let counting = async { rows_of(erase::preview(&store, user, plan).await, who) };
        rows = database::while_it_answers(&store, counting).await?;
    }
    if !is_dry_run {
        if !is_sure {
            let where_to = config.database.url.as_ref().map(ToString::to_string).unwrap_or_default();
            let what = format!(
                "in {where_to} this erases the person of the account {email} ({user}):\n{}",
                listed(&rows)
            );
            database::confirm(&what, &email, "nothing was erased")?;
        }
        let erasing = async { rows_of(erase::erase(&store, user, plan).await, who) };
        rows = database::while_it_answers(&store, erasing).await?;
    }
    store.close().await;
    say(&if as_json {
        as_json_value(user, &rows, is_dry_run).to_string()
    } else {
        let head = if is_dry_run { "would be erased; nothing was changed" } else { "is erased" };
        format!("the person of the account {user} {head}\n{}", listed(&rows))
    })
}

fn rows_of(erased: Result<Erased, entities::Error>, who: &str) -> Result<ErasedRows, Failure> {
    match erased {
        Ok(Erased::Rows(rows)) => Ok(rows),
        Ok(Erased::NotFound) => Err(Failure::Failed(format!("account not found: {who}"))),
        Ok(Erased::LastAdministrator) => Err(Failure::Failed(format!(
            "the account {who} is not erased\n  why:   it is the last administrator that is not blocked\n  \
             fix:   give another account the role first (`xp user role`)"
        ))),
        Err(error) => Err(failed(&error)),
    }
}

/// Each kind with its rows.
fn listed(rows: &ErasedRows) -> String {
    let lines = [
        ("account without its name, e-mail and password", rows.accounts),
        ("sessions removed", rows.sessions),
        ("positions removed", rows.locations),
        ("submissions removed", rows.submissions_removed),
        ("submissions without their device and position", rows.submissions_emptied),
        ("entries of the activity log without their details", rows.activity_logs),
        ("webhooks removed", rows.webhooks),
        ("deliveries of these webhooks removed", rows.deliveries),
        ("records of own requests with an idempotency key removed", rows.keyed_requests),
        ("records of others' requests without their answer", rows.keyed_answers),
        ("forms kept", rows.forms_kept),
        ("submissions kept", rows.submissions_kept),
    ];
    let lines: Vec<String> = lines.iter().map(|(what, rows)| format!("  {rows:>8}  {what}")).collect();
    lines.join("\n")
}

fn as_json_value(user: UserId, rows: &ErasedRows, is_dry_run: bool) -> serde_json::Value {
    json!({
        "id": user.to_string(),
        "dryRun": is_dry_run,
        "removed": {
            "sessions": rows.sessions, "locations": rows.locations, "submissions": rows.submissions_removed,
            "webhooks": rows.webhooks, "webhookDeliveries": rows.deliveries,
            "keyedRequests": rows.keyed_requests,
        },
        "emptied": {
            "accounts": rows.accounts, "submissions": rows.submissions_emptied,
            "activityLogs": rows.activity_logs, "keyedAnswers": rows.keyed_answers,
        },
        "kept": { "forms": rows.forms_kept, "submissions": rows.submissions_kept },
    })
}

//! `xp documents`: manifests are checked against the schema, published into the folder that servers watch
//! (`documents.path`, a file for each version of each client), listed, counted and taken back. Not here: the
//! use of fields (`field_usage`), formats and checks, which the library knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use entities::clock::{self, Time};
use schema::Graph;
use serde_json::{Value, json};
use xp::{
    config::Config,
    documents::{
        manifest::{self, PublishedDocument},
        trusted::Trusted,
        usage::{self, Usages},
    },
};

use super::{
    Failure,
    field_usage::{self, FieldUsageOptions},
    say, tools,
};

const SECONDS_A_DAY: i64 = 86_400;

#[derive(Clone, Debug, Subcommand)]
pub(super) enum DocumentsCommand {
    /// Says which documents of a manifest do not fit the schema or the limits, with the line and the column in each.
    Check {
        /// A manifest of Apollo's, a map of ids to texts, or a directory.
        manifest: PathBuf,
    },
    /// Checks a manifest and puts it where the servers look. What is published stays as it is.
    Publish {
        /// As for `check`.
        manifest: PathBuf,
        #[command(flatten)]
        release: Release,
    },
    /// Lists what is published.
    List,
    /// Says how often each published document was asked for, or each field of the schema.
    Usage {
        #[command(flatten)]
        about_fields: FieldUsageOptions,
        #[command(flatten)]
        files: UsageFiles,
    },
    /// Takes back one version of a client; refused while its documents are in use.
    Retire {
        #[command(flatten)]
        release: Release,
        #[command(flatten)]
        files: UsageFiles,
        /// Documents that were asked for in this many days are in use.
        #[arg(long, default_value_t = 30)]
        days: u32,
        /// Whether or not they are in use.
        #[arg(long)]
        force: bool,
    },
}

/// One version of a client.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Release {
    /// The client's name.
    #[arg(long, value_parser = file_name)]
    client: String,
    /// Its version.
    #[arg(long, value_parser = file_name)]
    client_version: String,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct UsageFiles {
    /// The usage files of all processes; without any: `documents.usage_file`.
    #[arg(long = "usage", value_name = "FILE")]
    usage: Vec<PathBuf>,
}

pub(super) async fn documents(
    config: &Config,
    action: DocumentsCommand,
    as_json: bool,
) -> Result<(), Failure> {
    match action {
        DocumentsCommand::Check { manifest } => {
            let checked = check(config, &manifest).await?;
            let count = checked.len();
            if as_json {
                say(&json!({ "documents": count }).to_string())
            } else {
                say(&format!("{count} documents, all valid"))
            }
        }
        DocumentsCommand::Publish { manifest, release } => publish(config, &manifest, &release).await,
        DocumentsCommand::List => list(&published(folder(config)?)?, as_json),
        DocumentsCommand::Usage { about_fields, files } if about_fields.fields => {
            field_usage::field_usage(config, &about_fields, &files.usage, as_json).await
        }
        DocumentsCommand::Usage { files, .. } => {
            usage_of(&published(folder(config)?)?, &files.read(config)?, as_json)
        }
        DocumentsCommand::Retire { release, files, days, force } => {
            retire(config, &release, if force { None } else { Some((files.read(config)?, days)) })
        }
    }
}

impl UsageFiles {
    /// What is counted, where anything is.
    pub(super) fn read_any(&self, config: &Config) -> Result<Usages, Failure> {
        let is_counted = !self.usage.is_empty() || config.documents.usage_file.is_some();
        if is_counted { self.read(config) } else { Ok(Usages::new()) }
    }

    fn read(&self, config: &Config) -> Result<Usages, Failure> {
        let own: Vec<_> = config.documents.usage_file.iter().cloned().collect();
        let files = if self.usage.is_empty() { &own } else { &self.usage };
        if files.is_empty() {
            return Err(Failure::Usage(
                "the use of documents is not counted\n  why:   documents.usage_file is not set, and no \
                 --usage FILE is given\n  fix:   set XP_DOCUMENTS_USAGE_FILE for the servers, and name their \
                 files here"
                    .into(),
            ));
        }
        usage::read(files).map_err(|error| Failure::Failed(format!("the usage cannot be read: {error}")))
    }
}

fn folder(config: &Config) -> Result<&Path, Failure> {
    config.documents.path.as_deref().ok_or_else(|| {
        Failure::Usage(
            "documents.path is not set\n  why:   that is where the servers look for documents\n  fix:   set \
             XP_DOCUMENTS_PATH to a directory"
                .into(),
        )
    })
}

/// The documents of a manifest, all of them valid.
async fn check(config: &Config, path: &Path) -> Result<Vec<PublishedDocument>, Failure> {
    let graph: Graph = tools::graph(config).await?;
    let trusted = Trusted::read(path, &graph, &Trusted::default()).await;
    let lines: Vec<_> = trusted
        .broken
        .iter()
        .flat_map(|broken| {
            let id = broken.id.as_deref().unwrap_or("(the whole file)");
            broken.lines().map(move |line| format!("  {id} in {line}"))
        })
        .collect();
    if lines.is_empty() {
        return Ok(trusted.iter().map(|known| known.entry.clone()).collect());
    }
    let count = trusted.broken.len();
    Err(Failure::Failed(format!("{count} of the documents cannot be used\n{}", lines.join("\n"))))
}

async fn publish(config: &Config, path: &Path, release: &Release) -> Result<(), Failure> {
    let folder = folder(config)?;
    let entries = check(config, path).await?;
    let known: BTreeMap<(Option<String>, String), PublishedDocument> = if folder.exists() {
        published(folder)?
            .into_iter()
            .map(|entry| ((entry.client.clone(), entry.id.clone()), entry))
            .collect()
    } else {
        BTreeMap::new()
    };
    for entry in &entries {
        if let Some(other) = known.get(&(entry.client.clone(), entry.id.clone()))
            && other.text != entry.text
        {
            let place = other.file.display();
            return Err(Failure::Failed(format!("{} is published with another text, in {place}", entry.id)));
        }
    }
    let (file, text) = (release.file(folder), manifest::to_apollo(&entries));
    let failed = |error: std::io::Error| Failure::Failed(format!("{}: {error}", file.display()));
    if file.exists() && fs::read_to_string(&file).map_err(failed)? != text {
        let Release { client, client_version } = release;
        let why = "a version that is published stays as it is; publish under another version";
        return Err(Failure::Failed(format!(
            "{client} {client_version} is published with other documents\n  why:   {why}"
        )));
    }
    fs::create_dir_all(folder.join(&release.client)).map_err(failed)?;
    usage::replace(&file, &text).map_err(failed)?;
    say(&format!("{} documents are published in {}", entries.len(), file.display()))
}

impl Release {
    fn file(&self, folder: &Path) -> PathBuf {
        folder.join(&self.client).join(format!("{}.json", self.client_version))
    }
}

pub(super) fn published(folder: &Path) -> Result<Vec<PublishedDocument>, Failure> {
    let published = manifest::read(folder);
    match published.broken.iter().find(|broken| broken.id.is_none()) {
        Some(broken) => Err(Failure::Failed(broken.lines().collect::<Vec<_>>().join("\n"))),
        None => Ok(published.entries),
    }
}

fn list(entries: &[PublishedDocument], as_json: bool) -> Result<(), Failure> {
    let line = |entry: &PublishedDocument| {
        if as_json {
            json!({ "id": entry.id, "client": entry.client, "file": entry.file }).to_string()
        } else {
            format!("{}  {}", entry.id, entry.file.display())
        }
    };
    say_lines(&entries.iter().map(line).collect::<Vec<_>>(), as_json)
}

fn usage_of(entries: &[PublishedDocument], usages: &Usages, as_json: bool) -> Result<(), Failure> {
    let ids: BTreeSet<_> = entries.iter().map(|entry| &entry.id).collect();
    let line = |id: &String| {
        let usage = usages.get(id).copied().unwrap_or_default();
        let last = (usage.requests > 0).then(|| Time::from_timestamp(usage.last_used_seconds, 0)).flatten();
        if as_json {
            let last = last.map(|time| time.to_rfc3339());
            return json!({ "id": id, "requests": usage.requests, "lastUsed": last }).to_string();
        }
        let last = last.map_or("never".into(), |time| time.format("%Y-%m-%d %H:%M").to_string());
        format!("{id}  {:>10}  {last}", usage.requests)
    };
    say_lines(&ids.into_iter().map(line).collect::<Vec<_>>(), as_json)
}

fn say_lines(lines: &[String], as_json: bool) -> Result<(), Failure> {
    if as_json {
        let values: Vec<Value> = lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
        return say(&Value::from(values).to_string());
    }
    say(&lines.join("\n"))
}

/// Removes the version's file, if none of the documents that only it has is in use.
fn retire(config: &Config, release: &Release, unless_used: Option<(Usages, u32)>) -> Result<(), Failure> {
    let folder = folder(config)?;
    let file = release.file(folder);
    let entries = published(folder)?;
    if !file.exists() {
        let Release { client, client_version } = release;
        return Err(Failure::Failed(format!(
            "{client} {client_version} is not published in {}",
            folder.display()
        )));
    }
    let (own, others): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.file == file);
    let staying: BTreeSet<_> = others.iter().map(|entry| &entry.id).collect();
    let going: Vec<_> = own.iter().map(|entry| &entry.id).filter(|id| !staying.contains(id)).collect();
    if let Some((usages, days)) = unless_used {
        let since = clock::now().timestamp() - i64::from(days) * SECONDS_A_DAY;
        let used: Vec<_> = going
            .iter()
            .filter(|id| {
                usages.get(**id).is_some_and(|usage| usage.requests > 0 && usage.last_used_seconds >= since)
            })
            .map(|id| format!("  {id}"))
            .collect();
        if !used.is_empty() {
            let list = used.join("\n");
            return Err(Failure::Failed(format!(
                "{} documents were asked for in the last {days} days (--force retires them all the \
                 same)\n{list}",
                used.len()
            )));
        }
    }
    fs::remove_file(&file).map_err(|error| Failure::Failed(format!("{}: {error}", file.display())))?;
    say(&format!("{} is retired; {} documents are no longer known", file.display(), going.len()))
}

/// A name that can be a file's.
fn file_name(text: &str) -> Result<String, String> {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.is_empty() || text.starts_with('.') || !text.bytes().all(is_safe) {
        return Err("it must be letters, digits, `-`, `_` and `.`".into());
    }
    Ok(text.to_owned())
}

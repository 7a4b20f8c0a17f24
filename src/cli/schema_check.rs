//! `xp schema check`: before a release, what has changed since the last one, and which published documents that breaks.
//! Not here: what a change means (`schema::changes`), printing the SDL (`tools`).

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use entities::clock::Time;
use schema::changes::{self, Change, Impact};
use serde_json::{Value, json};
use xp::{
    config::Config,
    documents::{manifest::BrokenDocument, trusted::Trusted, usage::Usages},
};

use super::{
    Failure,
    documents::{UsageFiles, published},
    say, tools,
};

#[derive(Clone, Debug, Subcommand)]
pub(super) enum SchemaCommand {
    /// Says what has changed since a released SDL, and which published documents (`documents.path`) do not
    /// run any more. Exit code 1 where anything breaks.
    Check {
        /// The SDL that was released, as `xp schema` or `xp schema --api` has printed it.
        released: PathBuf,
        #[command(flatten)]
        files: UsageFiles,
        /// Fails only where a published document breaks: for servers that run no others.
        #[arg(long)]
        documents_only: bool,
    },
}

/// A published document that does not run any more.
struct Broken {
    document: BrokenDocument,
    client: Option<String>,
    /// Its first line.
    begins: String,
    requests: u64,
    last: Option<Time>,
}

pub(super) async fn check(config: &Config, action: SchemaCommand, as_json: bool) -> Result<(), Failure> {
    let SchemaCommand::Check { released, files, documents_only } = action;
    let before = fs::read_to_string(&released)
        .map_err(|error| Failure::Failed(format!("{}: {error}", released.display())))?;
    let graph = tools::graph(config).await?;
    // What gateways get links Federation's directives.
    let now = if before.contains("@link(") { graph.sdl() } else { graph.api_sdl() };
    let changes = changes::between(&before, now).map_err(Failure::Failed)?;
    let (broken, of) = match &config.documents.path {
        Some(folder) => broken(
            folder,
            &Trusted::read(folder, &graph, &Trusted::default()).await,
            &files.read_any(config)?,
        )?,
        None => (Vec::new(), 0),
    };
    if as_json {
        let changes: Vec<_> = changes.iter().map(change_as_json).collect();
        let documents: Vec<_> = broken.iter().map(Broken::as_json).collect();
        say(&json!({ "changes": changes, "documents": documents }).to_string())?;
    } else {
        say(&text(&changes, &broken, of))?;
    }
    let breaks = !documents_only && changes.iter().any(|change| change.impact == Impact::Breaking);
    if breaks || !broken.is_empty() { Err(Failure::Silent) } else { Ok(()) }
}

/// The published documents that do not run, and how many there are in all.
fn broken(folder: &Path, now: &Trusted, usages: &Usages) -> Result<(Vec<Broken>, usize), Failure> {
    let entries = published(folder)?;
    let of = |document: &BrokenDocument| {
        let entry = entries
            .iter()
            .find(|entry| entry.file == document.file && Some(&entry.id) == document.id.as_ref());
        let usage = document.id.as_ref().and_then(|id| usages.get(id)).copied().unwrap_or_default();
        Broken {
            document: document.clone(),
            client: entry.and_then(|entry| entry.client.clone()),
            begins: entry.and_then(|entry| entry.text.trim().lines().next()).unwrap_or_default().to_owned(),
            requests: usage.requests,
            last: (usage.requests > 0).then(|| Time::from_timestamp(usage.last_used_seconds, 0)).flatten(),
        }
    };
    let mut broken: Vec<_> = now.broken.iter().map(of).collect();
    broken.sort_by_key(|broken| std::cmp::Reverse(broken.requests));
    Ok((broken, entries.len()))
}

fn change_as_json(Change { impact, coordinate, message }: &Change) -> Value {
    json!({ "impact": impact.as_str(), "coordinate": coordinate, "message": message })
}

impl Broken {
    fn as_json(&self) -> Value {
        json!({
            "id": self.document.id, "client": self.client, "file": self.document.file,
            "requests": self.requests,
            "lastUsed": self.last.map(|time| time.to_rfc3339()),
            "problems": self.document.lines().collect::<Vec<_>>(),
        })
    }

    fn text(&self) -> String {
        let id = self.document.id.as_deref().unwrap_or("(the whole file)");
        let client = self.client.as_ref().map(|client| format!(" of {client}")).unwrap_or_default();
        let last = self.last.map_or(String::new(), |time| format!(", last on {}", time.format("%Y-%m-%d")));
        let lines = self.document.lines().collect::<Vec<_>>().join("\n    ");
        format!(
            "document   {id}{client}: asked for {} times{last}\n    {}{lines}",
            self.requests, self.begins
        )
    }
}

fn text(changes: &[Change], broken: &[Broken], documents: usize) -> String {
    let line = |Change { impact, coordinate, message }: &Change| {
        format!("{:9}  {coordinate}: {message}", impact.as_str())
    };
    let mut lines: Vec<_> = changes.iter().map(line).chain(broken.iter().map(Broken::text)).collect();
    let count = |impact| changes.iter().filter(|change| change.impact == impact).count();
    lines.push(format!(
        "{} breaking changes, {} dangerous ones, {} safe ones; {} of {documents} published documents do not \
         run",
        count(Impact::Breaking),
        count(Impact::Dangerous),
        count(Impact::Safe),
        broken.len(),
    ));
    lines.join("\n")
}

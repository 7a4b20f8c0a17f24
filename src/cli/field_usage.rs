//! `xp documents usage --fields`: which clients ask for which fields of the schema, and which fields nobody
//! asks for. Not here: how that is counted, which the library knows.

use std::{collections::BTreeSet, path::PathBuf};

use entities::clock::Time;
use serde_json::{Value, json};
use xp::{
    config::Config,
    documents::field_usage::{self, FieldUsages, FieldUse, OTHER},
};

use super::{Failure, say, tools};

/// What is asked about fields.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct FieldUsageOptions {
    /// Says which clients ask for which fields of the schema. Its files are those of `telemetry.field_usage_file`.
    #[arg(long)]
    pub(super) fields: bool,
    /// With `--fields`: for this client only.
    #[arg(long, value_name = "NAME", requires = "fields")]
    client: Option<String>,
    /// With `--fields`: the fields of the schema that nobody asked for.
    #[arg(long, requires = "fields")]
    unused: bool,
}

pub(super) async fn field_usage(
    config: &Config,
    asked: &FieldUsageOptions,
    files: &[PathBuf],
    as_json: bool,
) -> Result<(), Failure> {
    let usages = read(config, files)?;
    // What nobody asked for is known of the time in which all files were written only.
    let latest = usages.iter().map(|file| file.since_seconds).max();
    let is_of_several = usages.len() > 1;
    let usages = sum(usages)?;
    let is_wanted = |client: &String| asked.client.as_ref().is_none_or(|wanted| wanted == client);
    let since = latest.filter(|_| asked.unused).unwrap_or(usages.since_seconds);
    let (since, until) = (time(since), time(usages.until_seconds));
    let told = |name: &str, fields: Vec<Value>, lines: Vec<String>| {
        let rfc = |time: Option<Time>| time.map(|time| time.to_rfc3339());
        if as_json {
            let json = json!({ "countedSince": rfc(since), "countedUntil": rfc(until), name: fields });
            return say(&json.to_string());
        }
        let mut counted = format!("counted from {} to {}, in a sample", minute(since), minute(until));
        if asked.unused && is_of_several {
            counted += "; all files have been counted since then, some for longer";
        }
        say(&[vec![counted], lines].concat().join("\n"))
    };
    if asked.unused {
        let graph = tools::graph(config).await?;
        let used: BTreeSet<&String> = usages
            .fields
            .iter()
            // Behind `other` may be any client.
            .filter(|(_, clients)| clients.keys().any(|client| is_wanted(client) || client == OTHER))
            .map(|(coordinate, _)| coordinate)
            .collect();
        let is_unused = |names: &[String]| names.iter().all(|name| !used.contains(name));
        let unused = graph.coordinates().all().iter().filter(|field| {
            // Who asks an interface for a field asks all its objects.
            !used.contains(&field.name) && is_unused(&field.of_interfaces)
        });
        let unused: Vec<String> = unused.map(|field| field.name.clone()).collect();
        return told("unused", unused.iter().map(|name| json!(name)).collect(), unused);
    }
    let rows: Vec<(&String, &String, FieldUse)> = usages
        .fields
        .iter()
        .flat_map(|(coordinate, clients)| {
            clients.iter().map(move |(client, used)| (coordinate, client, *used))
        })
        .filter(|(_, client, _)| is_wanted(client))
        .collect();
    let widest = |texts: &mut dyn Iterator<Item = &String>| {
        texts.map(|text| text.chars().count()).max().unwrap_or_default()
    };
    let fields_width = widest(&mut rows.iter().map(|(coordinate, ..)| *coordinate));
    let clients_width = widest(&mut rows.iter().map(|(_, client, _)| *client));
    let line = |(coordinate, client, used): &(&String, &String, FieldUse)| {
        let last = minute(time(used.last_used_seconds));
        format!("{coordinate:fields_width$}  {client:clients_width$}  {:>10.0}  {last}", used.operations)
    };
    let value = |(coordinate, client, used): &(&String, &String, FieldUse)| {
        let last = time(used.last_used_seconds).map(|time| time.to_rfc3339());
        let operations = used.operations.round() as u64;
        json!({ "coordinate": coordinate, "client": client, "operations": operations, "lastUsed": last })
    };
    told("fields", rows.iter().map(value).collect(), rows.iter().map(line).collect())
}

/// What each of the servers has counted.
fn read(config: &Config, files: &[PathBuf]) -> Result<Vec<FieldUsages>, Failure> {
    let own = config.telemetry.field_usage_file.iter().cloned().collect::<Vec<_>>();
    let files = if files.is_empty() { &own } else { files };
    field_usage::read(files).map_err(|error| {
        Failure::Failed(format!(
            "the usage of fields cannot be read: {error}\n  why:   without one of the files, fields that \
             are in use would look unused\n  fix:   name the files that the servers write \
             (XP_TELEMETRY_FIELD_USAGE_FILE)"
        ))
    })
}

fn sum(usages: Vec<FieldUsages>) -> Result<FieldUsages, Failure> {
    FieldUsages::sum(usages).ok_or_else(|| {
        Failure::Usage(
            "the use of fields is not counted\n  why:   telemetry.field_usage_file is not set, and no \
             --usage FILE is given\n  fix:   set XP_TELEMETRY_FIELD_USAGE_FILE for the servers, and name \
             their files here"
                .into(),
        )
    })
}

fn time(seconds: i64) -> Option<Time> {
    Time::from_timestamp(seconds, 0)
}

fn minute(time: Option<Time>) -> String {
    time.map_or("never".into(), |time| time.format("%Y-%m-%d %H:%M").to_string())
}

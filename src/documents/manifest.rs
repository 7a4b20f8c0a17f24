//! The files that documents are published in, recognised by what is in them: Apollo's manifest
//! (`apollo-persisted-query-manifest`), a map of ids to texts (Relay, graphql-codegen), and directories of those and of
//! `<id>.graphql`. Not here: whether a document fits the schema.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use aws_lc_rs::digest::{SHA256, digest};
use md5::{Digest as _, Md5};
use schema::OnError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::normal_id;

const APOLLO: &str = "apollo-persisted-query-manifest";

/// One document as it was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedDocument {
    /// Its id, without a prefix.
    pub id: String,
    /// Its text.
    pub text: String,
    /// The only client that may ask for it; none: all.
    pub client: Option<String>,
    /// What a field that fails does to the rest of its answers, where a request does not say.
    pub on_error: OnError,
    /// Where it was found.
    pub file: PathBuf,
}

/// A document, or a whole file, that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenDocument {
    /// Where it was found.
    pub file: PathBuf,
    /// The document's id; none where it is the file.
    pub id: Option<String>,
    /// What is wrong; at least one.
    pub problems: Vec<DocumentProblem>,
}

/// What is wrong with a document or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentProblem {
    /// The line and the column in the document, both from 1, where that can be told.
    pub at: Option<(u64, u64)>,
    /// A sentence.
    pub message: String,
}

impl BrokenDocument {
    /// With one thing that is wrong, at no place.
    pub(super) fn because(file: PathBuf, id: Option<String>, message: String) -> Self {
        Self { file, id, problems: vec![DocumentProblem { at: None, message }] }
    }

    /// What is wrong, each as a line: `file:line:column: message`.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.problems.iter().map(|DocumentProblem { at, message }| {
            let place = at.map_or(String::new(), |(line, column)| format!(":{line}:{column}"));
            format!("{}{place}: {message}", self.file.display())
        })
    }
}

/// What was published.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// What can be read.
    pub entries: Vec<PublishedDocument>,
    /// What cannot.
    pub broken: Vec<BrokenDocument>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Apollo {
    format: String,
    version: u32,
    operations: Vec<Operation>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Operation {
    id: String,
    body: String,
    #[serde(default)]
    client_name: Option<String>,
    /// An addition to Apollo's format: `PROPAGATE` (also where it is left out), `NULL` or `HALT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on_error: Option<String>,
}

/// Which files there are, how long and how old: enough to see that something changed. None where that cannot be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(Option<Vec<(PathBuf, u64, Option<SystemTime>)>>);

impl Fingerprint {
    /// Of a file, or of all files of a directory.
    pub(crate) fn of(path: &Path) -> Self {
        let Ok(files) = files(path) else { return Self(None) };
        let seen = files.into_iter().map(|file| {
            let meta = fs::metadata(&file).ok();
            let length = meta.as_ref().map_or(0, fs::Metadata::len);
            (file, length, meta.and_then(|meta| meta.modified().ok()))
        });
        Self(Some(seen.collect()))
    }
}

/// Reads a file, or everything in a directory.
pub fn read(path: &Path) -> Published {
    let mut published = Published::default();
    match files(path) {
        Ok(files) => files.iter().for_each(|file| read_file(file, &mut published)),
        Err(error) => published.reject(path, None, error.to_string()),
    }
    published
}

/// The files of a directory and of the directories in it, in order; a file alone is itself.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        fs::metadata(path)?;
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?.path();
        let is_hidden = entry.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_hidden {
            continue;
        }
        if entry.is_dir() {
            found.extend(files(&entry)?);
        } else if entry.extension().is_some_and(|kind| kind == "json" || kind == "graphql" || kind == "gql") {
            found.push(entry);
        }
    }
    found.sort();
    Ok(found)
}

fn read_file(file: &Path, published: &mut Published) {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return published.reject(file, None, error.to_string()),
    };
    if file.extension().is_some_and(|kind| kind != "json") {
        let id = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        return published.add(file, &id, text, (None, OnError::default()));
    }
    if let Ok(apollo) = serde_json::from_str::<Apollo>(&text) {
        if apollo.format != APOLLO || apollo.version != 1 {
            let why = format!(
                "it is \"{}\" version {}; known is \"{APOLLO}\" version 1",
                apollo.format, apollo.version
            );
            return published.reject(file, None, why);
        }
        for Operation { id, body, client_name, on_error } in apollo.operations {
            match on_error.as_deref().map_or(Some(OnError::default()), OnError::parse) {
                Some(on_error) => published.add(file, &id, body, (client_name, on_error)),
                None => published.reject(file, Some(id), "`onError` must be PROPAGATE, NULL or HALT".into()),
            }
        }
        return;
    }
    match serde_json::from_str::<BTreeMap<String, Value>>(&text) {
        Err(error) => published.reject(file, None, format!("invalid manifest: {error}")),
        Ok(map) => {
            for (id, text) in map {
                match text {
                    Value::String(text) => published.add(file, &id, text, (None, OnError::default())),
                    _ => published.reject(file, Some(id), "its text is not a string".into()),
                }
            }
        }
    }
}

impl Published {
    fn reject(&mut self, file: &Path, id: Option<String>, why: String) {
        self.broken.push(BrokenDocument::because(file.to_owned(), id, why));
    }

    /// Takes a document whose id is its hash, where the id is a hash.
    fn add(&mut self, file: &Path, id: &str, text: String, (client, on_error): (Option<String>, OnError)) {
        let Some(normal) = normal_id(id) else {
            return self.reject(file, Some(id.into()), "invalid id".into());
        };
        let is_hex = normal.bytes().all(|byte| byte.is_ascii_hexdigit());
        let hash = match normal.len() {
            64 if is_hex => Some(hex::encode(digest(&SHA256, text.as_bytes()))),
            // Relay's.
            32 if is_hex => Some(hex::encode(Md5::digest(text.as_bytes()))),
            _ => None,
        };
        if let Some(hash) = hash
            && hash != normal
        {
            return self.reject(file, Some(id.into()), format!("its text has the hash {hash}"));
        }
        let (id, file) = (normal.into_owned(), file.to_owned());
        self.entries.push(PublishedDocument { id, text, client, on_error, file });
    }
}

/// Documents as Apollo's manifest, in the order of their ids.
pub fn to_apollo(entries: &[PublishedDocument]) -> String {
    let mut operations: Vec<_> = entries
        .iter()
        .map(|PublishedDocument { id, text, client, on_error, .. }| Operation {
            id: id.clone(),
            body: text.clone(),
            client_name: client.clone(),
            on_error: (*on_error != OnError::default()).then(|| on_error.as_str().to_owned()),
        })
        .collect();
    operations.sort_by(|a, b| a.id.cmp(&b.id));
    let manifest = Apollo { format: APOLLO.into(), version: 1, operations };
    serde_json::to_string_pretty(&manifest).unwrap_or_default()
}

//! Where values come from: defaults, `xp.toml`, environment, flags, later ones first. Finds everything that
//! is wrong and reports it at once. Not here: the keys (`config`), their types (`setting`).

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
};

use entities::masked;
use toml::de::{DeTable, DeValue};

use super::{Config, ConfigKey, KEYS, Mode, setting::Setting};
use service_links::is_service_link;

mod service_links;

/// Everything the configuration is made from; nothing else is read.
#[derive(Debug)]
pub struct Inputs {
    /// What it is for.
    pub mode: Mode,
    /// The file given by `--config`; it must exist.
    pub file: Option<PathBuf>,
    /// Where `xp.toml` is looked for when no file was given; it may be missing.
    pub directory: Option<PathBuf>,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// Flags as (key, value, flag as written).
    pub flags: Vec<(String, String, String)>,
}

impl Inputs {
    /// Defaults only.
    pub fn nothing(mode: Mode) -> Self {
        Self { mode, file: None, directory: None, environment: Vec::new(), flags: Vec::new() }
    }

    /// The file in the working directory or given, and this process's environment.
    pub fn of_process(mode: Mode, file: Option<PathBuf>, flags: Vec<(String, String, String)>) -> Self {
        // Variables that are not UTF-8 can be none of ours: our names are ASCII and such a value fits no key.
        let environment = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .collect();
        Self { mode, file, directory: Some(PathBuf::from(".")), environment, flags }
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The table.
    Default,
    /// A default of development.
    Development,
    /// The configuration file.
    File(PathBuf, usize),
    /// An environment variable.
    Environment(String),
    /// A file named by an environment variable.
    SecretFile(String, PathBuf),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Development => f.write_str("development default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::SecretFile(name, path) => write!(f, "{} (environment {name})", path.display()),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// One thing that is wrong: what, where, why, how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The value or key.
    pub what: String,
    /// The file and line, variable or flag.
    pub place: String,
    /// The reason.
    pub why: String,
    /// What to do.
    pub fix: String,
}

/// Everything that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Invalid(pub Vec<Problem>);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "the configuration has {count} problem{}", if count == 1 { "" } else { "s" })?;
        for Problem { what, place, why, fix } in &self.0 {
            write!(f, "\n\n  {what}\n    where: {place}\n    why:   {why}\n    fix:   {fix}")?;
        }
        Ok(())
    }
}

/// A value with its source.
#[derive(Clone, Debug)]
pub struct ConfigEntry {
    /// Its key.
    pub key: &'static ConfigKey,
    /// The value's text; empty for "not set".
    pub text: String,
    /// Where it came from.
    pub source: Source,
}

/// Keys that were renamed: the old name, which is still read, and the new one.
const RENAMED: [(&str, &str); 1] = [("graph.max_filler", "graph.max_ignored_bytes")];

/// The configuration and where each value came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Old names that are in use, as warnings.
    pub renamed: Vec<Problem>,
    /// All values in the order of the table.
    pub entries: Vec<ConfigEntry>,
}

/// Reads all layers; on failure says everything that is wrong.
pub fn load(inputs: &Inputs) -> Result<Loaded, Invalid> {
    let mut values = Values::of_table(inputs.mode);
    values.add_file(inputs);
    values.add_environment(&inputs.environment);
    values.add_flags(&inputs.flags);
    values.require(inputs.mode);
    let config = Config::read(&mut values);
    if let Some(config) = &config {
        values.problems.append(&mut config.contradictions(inputs.mode));
    }
    match config {
        Some(config) if values.problems.is_empty() => {
            let take = |key: &'static ConfigKey| values.by_name.remove(key.name);
            let entries = KEYS.iter().filter_map(take).collect();
            Ok(Loaded { config, renamed: values.renamed, entries })
        }
        _ => Err(Invalid(values.problems)),
    }
}

/// The values gathered so far and what is wrong with them.
pub(super) struct Values {
    by_name: HashMap<&'static str, ConfigEntry>,
    problems: Vec<Problem>,
    /// Old names that are in use.
    renamed: Vec<Problem>,
}

impl Values {
    /// Reads one value; a bad one is noted, so that the rest is still read.
    pub(super) fn read<T: Setting>(&mut self, name: &str) -> Option<T> {
        let entry = self.by_name.get(name)?;
        match T::parse(&entry.text) {
            Ok(value) => Some(value),
            Err(why) => {
                let shown = (entry.key.show)(&entry.text);
                self.problems.push(Problem {
                    what: format!("{name} = \"{shown}\""),
                    place: entry.source.to_string(),
                    // It may say the value again.
                    why: if entry.key.secret { why } else { masked::text(&why) },
                    fix: format!("give a {}, or leave it out for the default", entry.key.expects.trim_end()),
                });
                None
            }
        }
    }

    fn of_table(mode: Mode) -> Self {
        let by_name = KEYS.iter().map(|key| {
            let special = mode.defaults().iter().find(|(name, _)| *name == key.name);
            let (text, source) =
                special.map_or((key.default, Source::Default), |(_, text)| (*text, Source::Development));
            (key.name, ConfigEntry { key, text: text.into(), source })
        });
        Self { by_name: by_name.collect(), problems: Vec::new(), renamed: Vec::new() }
    }

    fn set(&mut self, key: &'static ConfigKey, text: String, source: Source) {
        self.by_name.insert(key.name, ConfigEntry { key, text, source });
    }

    /// Reads a value under the old name of its key, unless the same layer has one under the new name.
    fn set_renamed(&mut self, old: &str, new: &str, key: &'static ConfigKey, text: String, source: Source) {
        self.renamed.push(Problem {
            what: format!("the setting {old} is now called {new}"),
            place: source.to_string(),
            why: "the old name is still read, and will be removed in a later version".into(),
            fix: format!("rename it to {new}"),
        });
        let same_layer =
            |entry: &ConfigEntry| std::mem::discriminant(&entry.source) == std::mem::discriminant(&source);
        if !self.by_name.get(key.name).is_some_and(same_layer) {
            self.set(key, text, source);
        }
    }

    fn require(&mut self, mode: Mode) {
        for (name, fix) in mode.required() {
            if self.by_name.get(name).is_some_and(|entry| entry.text.is_empty()) {
                self.problems.push(Problem {
                    what: format!("{name} is not set"),
                    place: "no flag, environment variable or file sets it".into(),
                    why: "this command does not work without it".into(),
                    fix: (*fix).into(),
                });
            }
        }
    }

    fn add_file(&mut self, inputs: &Inputs) {
        let (path, must_exist) = match (&inputs.file, &inputs.directory) {
            (Some(file), _) => (file.clone(), true),
            (None, Some(directory)) => {
                let path = directory.join("xp.toml");
                (path.strip_prefix(".").map(Path::to_path_buf).unwrap_or(path), false)
            }
            (None, None) => return,
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if !must_exist && error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => return self.problems.push(unreadable(&path, "--config or ./xp.toml", &error)),
        };
        match DeTable::parse(&text) {
            Ok(table) => self.add_table(&path, &text, table.get_ref()),
            Err(error) => self.problems.push(Problem {
                what: "the file is not valid TOML".into(),
                place: format!(
                    "{}:{}",
                    path.display(),
                    error.span().map_or(1, |span| line_of(&text, span.start))
                ),
                why: error.message().into(),
                fix: "mend the line; https://toml.io shows the syntax".into(),
            }),
        }
    }

    fn add_table(&mut self, path: &Path, text: &str, table: &DeTable<'_>) {
        for (section, inner) in table {
            let line = line_of(text, section.span().start);
            let Some(inner) = inner.get_ref().as_table() else {
                let name = section.get_ref();
                self.unknown(name, format!("{}:{line}", path.display()), &file_names());
                continue;
            };
            for (key, value) in inner {
                let name = format!("{}.{}", section.get_ref(), key.get_ref());
                let line = line_of(text, key.span().start);
                let Some((key, is_renamed)) = find(&name) else {
                    self.unknown(&name, format!("{}:{line}", path.display()), &file_names());
                    continue;
                };
                let source = Source::File(path.to_path_buf(), line);
                match scalar(value.get_ref()) {
                    Some(value) if is_renamed => self.set_renamed(&name, key.name, key, value, source),
                    Some(value) => self.set(key, value, source),
                    None => self.problems.push(Problem {
                        what: format!("{name} must be a single value"),
                        place: format!("{}:{line}", path.display()),
                        why: "it is a table or an array".into(),
                        fix: format!("give a {}", key.expects.trim_end()),
                    }),
                }
            }
        }
    }

    fn add_environment(&mut self, environment: &[(String, String)]) {
        for (variable, value) in environment {
            let (variable, value) = (variable.as_str(), value.as_str());
            if value.is_empty() {
                continue; // As in most tools: an empty variable is one that is not set.
            }
            if variable.starts_with("XP_") && is_service_link(variable, value) {
                continue; // Not meant for us: a service in this cluster has a name like ours.
            }
            if let Some(key) = KEYS.iter().find(|key| key.env() == *variable) {
                self.set(key, value.into(), Source::Environment(variable.into()));
            } else if let Some((old, key)) = renamed_variable(variable) {
                let source = Source::Environment(variable.into());
                self.set_renamed(&old, &key.env(), key, value.into(), source);
            } else if variable.starts_with("XP_") && !self.secret_file(variable, value) {
                // Also known under the names the usual ones would have, so that XP_HTTP_PORT leads to PORT.
                let names = KEYS.iter().flat_map(|key| [(key.env(), key.env()), (by_rule(key), key.env())]);
                self.unknown(variable, format!("environment {variable}"), &names.collect::<Vec<_>>());
            } else {
                self.secret_file(variable, value);
            }
        }
    }

    /// Reads a secret from the file that `<VARIABLE>_FILE` names; false when the variable is another one.
    fn secret_file(&mut self, variable: &str, path: &str) -> bool {
        let Some(name) = variable.strip_suffix("_FILE") else { return false };
        let Some(key) = KEYS.iter().find(|key| key.secret && key.env() == name) else { return false };
        if matches!(self.by_name.get(key.name), Some(ConfigEntry { source: Source::Environment(_), .. })) {
            return true; // The variable itself wins over the file.
        }
        let path = PathBuf::from(path);
        match std::fs::read_to_string(&path) {
            Ok(text) => self.set(key, text.trim().into(), Source::SecretFile(variable.into(), path)),
            Err(error) => self.problems.push(unreadable(&path, &format!("environment {variable}"), &error)),
        }
        true
    }

    fn add_flags(&mut self, flags: &[(String, String, String)]) {
        for (name, value, flag) in flags {
            match find(name) {
                Some((key, is_renamed)) => {
                    let source = Source::Flag(flag.clone());
                    if is_renamed {
                        self.set_renamed(name, key.name, key, value.clone(), source);
                    } else {
                        self.set(key, value.clone(), source);
                    }
                }
                None => self.unknown(name, format!("flag {flag}"), &file_names()),
            }
        }
    }

    /// Notes an unknown key; `known` are names that are near to look at, each with the name to suggest.
    fn unknown(&mut self, name: &str, place: String, known: &[(String, String)]) {
        let distance =
            |candidate: &str| strsim::damerau_levenshtein(&candidate.to_lowercase(), &name.to_lowercase());
        let near = known
            .iter()
            .map(|(candidate, suggested)| (distance(candidate), suggested))
            .min_by_key(|(distance, _)| *distance);
        let fix = match near {
            Some((distance, suggested)) if distance <= 2 + name.len() / 4 => {
                format!("did you mean `{suggested}`?")
            }
            _ => "`xp config print` lists all keys".into(),
        };
        self.problems.push(Problem {
            what: format!("unknown key `{name}`"),
            place,
            why: "unknown keys are refused, since a misspelt one would silently do nothing".into(),
            fix,
        });
    }
}

/// The key of this name, and whether the name is an old one.
fn find(name: &str) -> Option<(&'static ConfigKey, bool)> {
    let renamed = RENAMED.iter().find(|(old, _)| *old == name);
    let name = renamed.map_or(name, |(_, new)| new);
    KEYS.iter().find(|key| key.name == name).map(|key| (key, renamed.is_some()))
}

/// The key whose variable had this name before, with that name.
fn renamed_variable(variable: &str) -> Option<(String, &'static ConfigKey)> {
    RENAMED.iter().find_map(|(old, new)| {
        let old = format!("XP_{}", old.replace('.', "_").to_ascii_uppercase());
        let key = KEYS.iter().find(|key| key.name == *new)?;
        (old == variable).then_some((old, key))
    })
}

fn file_names() -> Vec<(String, String)> {
    KEYS.iter().map(|key| (key.name.to_owned(), key.name.to_owned())).collect()
}

/// The variable a key would have if it had no usual name.
fn by_rule(key: &ConfigKey) -> String {
    format!("XP_{}", key.name.replace('.', "_").to_ascii_uppercase())
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(truth) => Some(truth.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

fn unreadable(path: &Path, place: &str, error: &std::io::Error) -> Problem {
    Problem {
        what: format!("{} cannot be read", path.display()),
        place: place.into(),
        why: error.to_string(),
        fix: "check the path and the file's permissions".into(),
    }
}

#[cfg(test)]
mod tests;

//! The configuration as text, JSON and the README's table. Secrets come out masked, by `Key::show`. Not here: reading.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{KEYS, layers::Loaded};

/// Each key with its value and source, in columns.
pub fn text(loaded: &Loaded) -> String {
    let rows: Vec<[String; 3]> = loaded
        .entries
        .iter()
        .map(|entry| {
            let shown = if entry.text.is_empty() { "-".into() } else { (entry.key.show)(&entry.text) };
            [entry.key.name.to_owned(), shown, entry.source.to_string()]
        })
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (name, value) = (width(0), width(1));
    rows.iter().fold(String::new(), |mut out, row| {
        let _ = writeln!(out, "{:name$}  {:value$}  {}", row[0], row[1], row[2]);
        out
    })
}

/// The same as JSON: `[{"key", "value", "source"}]`, with `null` for "not set".
pub fn json(loaded: &Loaded) -> Value {
    let entry = |entry: &super::layers::Entry| {
        let value = (!entry.text.is_empty()).then(|| (entry.key.show)(&entry.text));
        json!({ "key": entry.key.name, "value": value, "source": entry.source.to_string() })
    };
    loaded.entries.iter().map(entry).collect()
}

/// The README's table of all keys.
pub fn markdown() -> String {
    let mut out = String::from("| key in `xp.toml` | environment | default | what |\n|---|---|---|---|\n");
    for key in KEYS {
        let default = if key.default.is_empty() { "–".into() } else { format!("`{}`", key.default) };
        let file = if key.secret { format!(", `{}_FILE`", key.env()) } else { String::new() };
        let doc = key.doc.trim().replace('|', "\\|");
        let _ = writeln!(out, "| `{}` | `{}`{file} | {default} | {doc} |", key.name, key.env());
    }
    out
}

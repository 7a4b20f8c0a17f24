//! One meaning for each type name: a crate has no two types of one bare name, but for those that a convention
//! gives to the module of each domain. Not here: which modules may know each other (`arrows`).

use std::collections::BTreeMap;

use crate::arrows::Module;

/// Names that several modules have by a convention: SeaORM's, that of migrations, and that of our domains.
const CONVENTIONS: &[&str] =
    &["ActiveModel", "Column", "Entity", "Filter", "Migration", "Model", "OrderField", "Relation", "Row"];

/// The type names that these files of one crate declare more than once, each with its modules.
pub(crate) fn doubles(files: &BTreeMap<Module, String>) -> Vec<String> {
    let mut declared: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (module, text) in files {
        // What follows is compiled for tests only.
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for name in text.lines().filter_map(declaration) {
            declared.entry(name).or_default().push(module.join("::"));
        }
    }
    declared.retain(|name, modules| modules.len() > 1 && !CONVENTIONS.contains(name));
    declared.into_iter().map(|(name, modules)| format!("{name}: {}", modules.join(", "))).collect()
}

/// The name of the type that a line declares. Associated types are indented, and are no declarations of their own.
fn declaration(line: &str) -> Option<&str> {
    let line = match line.trim_start().strip_prefix("pub") {
        Some(rest) => {
            rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).map_or(rest, |(_, rest)| rest)
        }
        None if line.starts_with("    type ") => return None,
        None => line,
    };
    let (keyword, rest) = line.trim_start().split_once(' ')?;
    let end = rest.find(|character: char| !character.is_alphanumeric() && character != '_');
    // A name that a macro makes begins with `$`.
    let name = Some(&rest[..end.unwrap_or(rest.len())]).filter(|name| !name.is_empty());
    name.filter(|_| ["struct", "enum", "trait", "type", "union"].contains(&keyword))
}

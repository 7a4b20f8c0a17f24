//! No line of code is longer than rustfmt makes them: where one is, rustfmt leaves the whole expression around it as it
//! is, and says nothing. Not here: comments, tests, and what rustfmt itself checks.

use std::fmt::Write as _;

use crate::{arrows, crates};

/// Characters of a line at most; `max_width` in `rustfmt.toml`.
const MAX_WIDTH: usize = 110;

#[test]
fn no_line_of_code_is_too_long_for_rustfmt() {
    let mut wrong = String::new();
    for (name, folder) in crates() {
        for (module, text) in arrows::files(&folder.join("src")) {
            for (number, line) in long_lines(&text) {
                let _ = writeln!(wrong, "{name}: {} line {number}: {line}", module.join("::"));
            }
        }
    }
    assert!(wrong.is_empty(), "more than {MAX_WIDTH} characters:\n{wrong}");
}

#[test]
fn a_long_line_is_found_in_code_and_not_in_comments_and_tests() {
    let (long, fits) = ("x".repeat(MAX_WIDTH + 1), "ü".repeat(MAX_WIDTH));
    let text = format!("{fits}\n    // {long}\n{long}\n#[cfg(test)]\nmod tests {{\n{long}\n}}\n");
    let found: Vec<usize> = long_lines(&text).map(|(number, _)| number).collect();
    assert_eq!(found, [3]);
}

/// The lines of code that are too long, by their number in the file.
fn long_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let is_code = |line: &str| !line.trim_start().starts_with("//");
    let lines = code.lines().enumerate().map(|(index, line)| (index + 1, line));
    lines.filter(move |(_, line)| line.chars().count() > MAX_WIDTH && is_code(line))
}

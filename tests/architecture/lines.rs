//! No line of code is longer than rustfmt makes them: where one is, rustfmt leaves the whole expression
//! around it as it is, and says nothing. It does not break comments, which may be somewhat longer. Not here:
//! tests, and what rustfmt itself checks.

use std::fmt::Write as _;

use crate::{arrows, crates};

/// Characters of a line at most; `max_width` in `rustfmt.toml`.
const MAX_WIDTH: usize = 110;
/// Characters of a line with nothing but a comment.
const MAX_COMMENT_WIDTH: usize = 120;

#[test]
fn no_line_is_too_long() {
    let mut wrong = String::new();
    for (name, folder) in crates() {
        for (module, text) in arrows::files(&folder.join("src")) {
            for (number, line) in long_lines(&text) {
                let _ = writeln!(wrong, "{name}: {} line {number}: {line}", module.join("::"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "more than {MAX_WIDTH} characters, or {MAX_COMMENT_WIDTH} of a comment:\n{wrong}"
    );
}

#[test]
fn long_lines_are_found_in_code_and_comments_and_not_in_tests() {
    let (long, fits) = ("x".repeat(MAX_WIDTH + 1), "ü".repeat(MAX_WIDTH));
    let (note, long_note) = (format!("    // {long}"), format!("/// {}", "x".repeat(MAX_COMMENT_WIDTH)));
    let text = format!("{fits}\n{note}\n{long}\n{long_note}\n#[cfg(test)]\nmod tests {{\n{long}\n}}\n");
    let found: Vec<usize> = long_lines(&text).map(|(number, _)| number).collect();
    assert_eq!(found, [3, 4]);
}

/// The lines that are too long, by their number in the file.
fn long_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let max = |line: &str| if line.trim_start().starts_with("//") { MAX_COMMENT_WIDTH } else { MAX_WIDTH };
    let lines = code.lines().enumerate().map(|(index, line)| (index + 1, line));
    lines.filter(move |(_, line)| line.chars().count() > max(line))
}

//! The Markdown pages of the repository, read as far as the tests need: blocks, headings, links, paths. Not
//! here: what is done with them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The root of the repository.
pub(super) const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// One page.
pub(super) struct Page {
    /// Its path from the root.
    pub(super) path: String,
    pub(super) text: String,
}

/// A fenced block.
pub(super) struct Block {
    /// Where it opens, from 1.
    pub(super) line: usize,
    /// What stands behind the fence.
    info: String,
    /// Its lines, without the fence's indentation.
    pub(super) text: String,
    /// Nothing but blank lines stands between it and the block before.
    follows: bool,
}

/// What is done with a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Runner {
    /// Its commands run.
    Shell,
    /// It is executed, by an administrator or by somebody who has not signed in.
    Operation { anonymous: bool },
    /// It is what the block before must answer.
    Answer,
    /// It is published as the definition of a form.
    Definition,
    /// It is read as configuration.
    Configuration,
    /// Its lines stand in this file.
    Quote(String),
    /// It shows folders.
    Picture,
}

impl Block {
    /// What is done with it; fails where nothing can be done.
    pub(super) fn runner(&self) -> Result<Runner, String> {
        let words: Vec<&str> = self.info.split_whitespace().collect();
        match words[..] {
            ["sh"] => Ok(Runner::Shell),
            ["graphql"] => Ok(Runner::Operation { anonymous: false }),
            ["graphql", "anonymous"] => Ok(Runner::Operation { anonymous: true }),
            ["json"] if self.follows => Ok(Runner::Answer),
            ["json", "definition"] => Ok(Runner::Definition),
            ["toml"] => Ok(Runner::Configuration),
            ["text"] => Ok(Runner::Picture),
            [_, path] if Path::new(ROOT).join(path).is_file() => Ok(Runner::Quote(path.to_owned())),
            _ => Err(format!("nothing can run a block of `{}`", self.info)),
        }
    }
}

impl Page {
    /// All pages, but those of other packages.
    pub(super) fn all() -> Vec<Self> {
        let mut paths: Vec<String> =
            ["federation", "playground", "benches/load"].map(|folder| format!("{folder}/README.md")).to_vec();
        for folder in ["", "docs/"] {
            let entries = fs::read_dir(Path::new(ROOT).join(folder)).expect("a folder");
            let names =
                entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
            paths.extend(
                names
                    .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "md"))
                    .map(|name| format!("{folder}{name}")),
            );
        }
        paths.sort();
        assert!(paths.len() > 14, "{paths:?}");
        paths.into_iter().map(Self::read).collect()
    }

    pub(super) fn read(path: impl Into<String>) -> Self {
        let path = path.into();
        let text = fs::read_to_string(Path::new(ROOT).join(&path)).expect("a page");
        Self { path, text }
    }

    /// Its fenced blocks.
    pub(super) fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut open: Option<(usize, Block)> = None;
        let mut follows = false;
        for (index, line) in self.text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let fence = line.trim_start().strip_prefix("```");
            match (&mut open, fence) {
                (None, Some(info)) => {
                    let (line, info) = (index + 1, info.trim().to_owned());
                    open = Some((indent, Block { line, info, text: String::new(), follows }));
                }
                (None, None) => follows &= line.trim().is_empty(),
                (Some(_), Some(_)) => {
                    blocks.extend(open.take().map(|(_, block)| block));
                    follows = true;
                }
                (Some((indent, block)), None) => {
                    block.text.push_str(line.get(*indent..).unwrap_or_default());
                    block.text.push('\n');
                }
            }
        }
        assert!(open.is_none(), "{}: a block is not closed", self.path);
        blocks
    }

    /// Its lines outside of blocks, with their numbers from 1.
    pub(super) fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut inside = false;
        self.text.lines().enumerate().filter_map(move |(index, line)| {
            let is_fence = line.trim_start().starts_with("```");
            inside ^= is_fence;
            (!inside && !is_fence).then_some((index + 1, line))
        })
    }

    /// What stands between backticks in a line or over two, with the number of the line.
    pub(super) fn code_spans(&self) -> Vec<(usize, String)> {
        let mut spans = Vec::new();
        for (number, line) in self.prose() {
            spans.extend(line.split('`').skip(1).step_by(2).map(|span| (number, span.to_owned())));
        }
        spans
    }

    /// The targets of its links.
    pub(super) fn links(&self) -> Vec<(usize, String)> {
        let mut links = Vec::new();
        for (number, line) in self.prose() {
            let without_code: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
            let targets = without_code.split("](").skip(1);
            links.extend(targets.filter_map(|after| Some((number, after.split_once(')')?.0.to_owned()))));
        }
        links
    }

    /// The anchors of its headings, as GitHub makes them.
    pub(super) fn anchors(&self) -> Vec<String> {
        let headings = self.prose().filter_map(|(_, line)| {
            let title = line.trim_start_matches('#');
            (title.len() < line.len()).then(|| title.strip_prefix(' '))?
        });
        headings
            .map(|title| {
                let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
                title.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
            })
            .collect()
    }

    /// The folder that its links start from.
    pub(super) fn folder(&self) -> PathBuf {
        Path::new(ROOT).join(&self.path).parent().expect("a folder").to_owned()
    }
}

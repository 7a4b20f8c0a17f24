//! Which module of a crate names which: read from the text of its files, without a compiler. Comments, texts
//! and what is only compiled for tests are left out. Not here: which arrows are allowed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// A module by its names below the crate; the root has none.
pub(crate) type Module = Vec<String>;

/// For each module, the modules that it names. A module is a file.
pub(crate) type Arrows = BTreeMap<Module, BTreeSet<Module>>;

/// The files of a crate, with their text.
pub(crate) fn files(src: &Path) -> BTreeMap<Module, String> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![src.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder can be read") {
            let path = entry.expect("the folder can be read").path();
            let name = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
            if name == "tests" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path.strip_prefix(src).expect("it is below").with_extension("");
                let module: Module = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
                let module = if name == "lib" || name == "main" { Vec::new() } else { module };
                let text = fs::read_to_string(&path).expect("it is text");
                found.entry(module).or_insert_with(String::new).push_str(&text);
            }
        }
    }
    found
}

/// The arrows between these files, without those to a module's own parents and children.
pub(crate) fn arrows(files: &BTreeMap<Module, String>) -> Arrows {
    let named: BTreeMap<&Module, Vec<Module>> =
        files.iter().map(|(module, text)| (module, Reader::paths(module, text))).collect();
    // What the root gives another name: `crate::Store` is `crate::store::Store`.
    let root: BTreeMap<String, Module> = named
        .get(&Vec::new())
        .into_iter()
        .flatten()
        .filter(|path| path.len() > 1)
        .map(|path| (path[path.len() - 1].clone(), path.clone()))
        .collect();
    let owner = |path: &Module| {
        let path = match path.first().and_then(|first| root.get(first)) {
            Some(renamed) if !files.contains_key(&path[..1]) => [renamed, &path[1..]].concat(),
            _ => path.clone(),
        };
        (0..=path.len()).rev().map(|length| path[..length].to_vec()).find(|part| files.contains_key(part))
    };
    let is_kin = |one: &Module, other: &Module| one.starts_with(other) || other.starts_with(one);
    let arrows = named.iter().map(|(module, paths)| {
        let targets = paths.iter().filter_map(owner).filter(|target| !is_kin(module, target)).collect();
        ((*module).clone(), targets)
    });
    arrows.collect()
}

/// The same between the modules at the top of the crate: a folder counts as one with its file.
pub(crate) fn at_the_top(arrows: &Arrows) -> Arrows {
    let mut top = Arrows::new();
    for (module, targets) in arrows.iter().filter(|(module, _)| !module.is_empty()) {
        let targets = targets.iter().map(|target| target[..1].to_vec());
        top.entry(module[..1].to_vec()).or_default().extend(targets.filter(|target| target[0] != module[0]));
    }
    top
}

/// Only the arrows that stay within a module at the top.
pub(crate) fn within_the_top(arrows: &Arrows) -> Arrows {
    let within = arrows.iter().map(|(module, targets)| {
        let beside = targets.iter().filter(|target| target.first() == module.first());
        (module.clone(), beside.cloned().collect())
    });
    within.collect()
}

/// The modules that reach each other, in groups.
pub(crate) fn cycles(arrows: &Arrows) -> Vec<BTreeSet<Module>> {
    let reached: BTreeMap<&Module, BTreeSet<&Module>> = arrows
        .keys()
        .map(|module| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![module]);
            while let Some(module) = next.pop() {
                next.extend(arrows.get(module).into_iter().flatten().filter(|target| seen.insert(*target)));
            }
            (module, seen)
        })
        .collect();
    let group = |module: &&Module| -> BTreeSet<Module> {
        let both = reached[*module]
            .iter()
            .filter(|other| reached.get(**other).is_some_and(|back| back.contains(*module)));
        both.map(|other| (*other).clone()).collect()
    };
    let groups: BTreeSet<BTreeSet<Module>> =
        reached.keys().map(group).filter(|group| group.len() > 1).collect();
    groups.into_iter().collect()
}

/// Reads the paths of a file.
struct Reader<'t> {
    tokens: Vec<&'t str>,
    at: usize,
    /// The module of the file, with those that are open within it.
    module: Module,
    /// For each of those, how many braces were open before it.
    open: Vec<usize>,
    braces: usize,
    paths: Vec<Module>,
}

impl<'t> Reader<'t> {
    /// The paths that a file names, from the root of the crate.
    fn paths(module: &Module, text: &str) -> Vec<Module> {
        let code = code_of(text);
        let mut reader = Reader {
            tokens: tokens_of(&code),
            at: 0,
            module: module.clone(),
            open: Vec::new(),
            braces: 0,
            paths: Vec::new(),
        };
        while reader.at < reader.tokens.len() {
            reader.step();
        }
        reader.paths
    }

    fn token(&self, ahead: usize) -> &'t str {
        self.tokens.get(self.at + ahead).copied().unwrap_or_default()
    }

    fn step(&mut self) {
        let before = self.at.checked_sub(1).map_or("", |at| self.tokens[at]);
        match self.token(0) {
            "#" if (1..7).map(|ahead| self.token(ahead)).eq(["[", "cfg", "(", "test", ")", "]"]) => {
                self.skip_item();
            }
            "mod" if self.token(2) == "{" => {
                self.module.push(self.token(1).to_owned());
                self.open.push(self.braces);
                self.at += 2;
            }
            "{" => {
                self.braces += 1;
                self.at += 1;
            }
            "}" => {
                self.braces = self.braces.saturating_sub(1);
                if self.open.last() == Some(&self.braces) {
                    self.open.pop();
                    self.module.pop();
                }
                self.at += 1;
            }
            "use" if self.token(1) != "<" => {
                self.at += 1;
                self.tree(&[]);
            }
            "crate" | "super" | "self" if self.token(1) == "::" && !["::", "in"].contains(&before) => {
                self.tree(&[]);
            }
            _ => self.at += 1,
        }
    }

    /// A path, or a tree of paths, that begins after `prefix`.
    fn tree(&mut self, prefix: &[&'t str]) {
        let mut path = prefix.to_vec();
        loop {
            match self.token(0) {
                "{" => {
                    self.at += 1;
                    while !["}", ""].contains(&self.token(0)) {
                        self.tree(&path);
                        if self.token(0) == "," {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                "*" => self.at += 1,
                name if is_name(name) => {
                    path.push(name);
                    self.at += 1;
                }
                // Generic arguments, or an end that is none of a path.
                _ => break,
            }
            if self.token(0) == "as" {
                self.at += 2;
            }
            if self.token(0) != "::" {
                break;
            }
            self.at += 1;
        }
        if path == prefix {
            self.at += 1;
        } else {
            self.add(&path);
        }
    }

    fn add(&mut self, path: &[&str]) {
        let (mut base, mut rest) = (self.module.clone(), path);
        match rest[0] {
            "crate" => (base, rest) = (Vec::new(), &rest[1..]),
            "self" => rest = &rest[1..],
            // A child, or another crate: of the first only the root gives names to others.
            name if name != "super" && !self.module.is_empty() => return,
            _ => {}
        }
        while rest.first() == Some(&"super") {
            base.pop();
            rest = &rest[1..];
        }
        base.extend(rest.iter().filter(|name| **name != "self").map(|name| (*name).to_owned()));
        self.paths.push(base);
    }

    /// Skips an item with its attributes: up to its semicolon, or its braces.
    fn skip_item(&mut self) {
        let mut depth = 0_usize;
        while self.at < self.tokens.len() {
            let token = self.token(0);
            self.at += 1;
            match token {
                "{" => depth += 1,
                "}" if depth <= 1 => return,
                "}" => depth -= 1,
                ";" if depth == 0 => return,
                _ => {}
            }
        }
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|letter: char| letter.is_alphabetic() || letter == '_') && token != "as"
}

fn tokens_of(code: &str) -> Vec<&str> {
    let (mut tokens, mut rest) = (Vec::new(), code.trim_start());
    while let Some(first) = rest.chars().next() {
        let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
        let length = match first {
            _ if rest.starts_with("::") => 2,
            _ if is_word(first) => rest.find(|letter| !is_word(letter)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}

/// The text without comments and without what stands in quotes.
pub(crate) fn code_of(text: &str) -> String {
    let (mut code, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            'r' if !code.ends_with(|letter: char| letter.is_alphanumeric() || letter == '_') => {
                raw_text(rest)
            }
            '"' => quoted(rest, '"'),
            '\'' => character(rest),
            _ => 0,
        };
        let (skipped, after) = rest.split_at(if length == 0 { first.len_utf8() } else { length });
        code.push_str(if length == 0 { skipped } else { " " });
        rest = after;
    }
    code
}

/// How long a raw text is that begins here; 0 where none does.
fn raw_text(text: &str) -> usize {
    let marks = text[1..].len() - text[1..].trim_start_matches('#').len();
    if !text[1 + marks..].starts_with('"') {
        return 0;
    }
    let (end, from) = (format!("\"{}", "#".repeat(marks)), marks + 2);
    text[from..].find(&end).map_or(text.len(), |at| from + at + end.len())
}

fn quoted(text: &str, mark: char) -> usize {
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => drop(letters.next()),
            _ if letter == mark => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// How long a character in quotes is that begins here; 0 where it is a lifetime.
fn character(text: &str) -> usize {
    let mut letters = text.chars().skip(1);
    match (letters.next(), letters.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => quoted(text, '\''),
        _ => 0,
    }
}

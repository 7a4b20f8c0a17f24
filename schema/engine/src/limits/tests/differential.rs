//! Our parser and its counts against the library's parser, on generated documents and on damaged ones: what
//! both read must be one tree, counted as that tree says, and whatever passes must be read quickly. The
//! oracle here expands fragments by walking into them, so it shares nothing with `expand`. Which documents
//! are GraphQL at all is compared with graphql-js (`tests/conformance`).

use std::collections::BTreeSet;

use async_graphql::{
    Name, Positioned,
    parser::{
        parse_query,
        types::{Directive, ExecutableDocument, OperationType, Selection, SelectionSet},
    },
};
use async_graphql_value::Value;
use proptest::{collection::vec, prelude::*};

use super::*;

/// Small, so that generated documents exceed each.
const TIGHT: Limits = Limits {
    nesting: 9,
    aliases: 6,
    directives: 6,
    root_fields: 6,
    operations: 2,
    fragments: 3,
    selections: 40,
    depth: 5,
    introspection_depth: 6,
    introspection_lists: 1,
    ..Limits::public()
};

/// Writes a document that the parser accepts, each choice taken from the bytes given; no choices: the shortest.
struct Writer<'c> {
    choices: &'c [u8],
    text: String,
}

impl Writer<'_> {
    fn choose(&mut self, below: u8) -> u8 {
        let (first, rest) = self.choices.split_first().unwrap_or((&0, &[]));
        self.choices = rest;
        first % below
    }

    fn pick(&mut self, from: &[&str]) {
        let choice = self.choose(from.len() as u8);
        self.put(from[usize::from(choice)]);
    }

    /// A token and what may stand after it.
    fn put(&mut self, token: &str) {
        self.text.push_str(token);
        let blanks = [" ", "\n", ",", "\t", " \r\n", "\u{feff}", " #c \"{[\n", "#\r ,", "# é\n"];
        let choice = self.choose(32);
        self.text.push_str(blanks.get(usize::from(choice)).unwrap_or(&" "));
    }

    fn document(&mut self) {
        let operations = 1 + self.choose(3);
        let named = operations > 1 || self.choose(2) == 1;
        for index in 0..operations {
            if named {
                self.pick(&["query", "mutation", "subscription"]);
                self.put(&format!("Q{index}"));
                self.variables();
                self.directives();
            }
            self.selections(0);
        }
        for index in 0..self.choose(5) {
            self.put("fragment");
            self.put(["A", "B", "C", "D", "fragment"][usize::from(index)]);
            self.text.push_str("on ,");
            self.put("T");
            self.directives();
            self.selections(0);
        }
    }

    fn variables(&mut self) {
        if self.choose(3) == 0 {
            return;
        }
        self.put("(");
        for index in 0..=self.choose(2) {
            self.put("$");
            self.put(&format!("v{index}"));
            self.put(":");
            self.pick(&["Int", "[Int!]!", "[[[T]]]", "[A]"]);
            // The library wants directives before the default, the specification after it.
            if self.choose(2) == 1 {
                self.put("=");
                self.value(0, true);
            } else {
                // Their arguments would have to be constant.
                while self.choose(6) == 5 {
                    self.put("@");
                    self.pick(&["skip", "include", "on"]);
                }
            }
        }
        self.put(")");
    }

    fn directives(&mut self) {
        while self.choose(6) == 5 {
            self.put("@");
            self.pick(&["skip", "include", "on"]);
            self.arguments();
        }
    }

    fn arguments(&mut self) {
        if self.choose(4) != 3 {
            return;
        }
        self.put("(");
        for index in 0..=self.choose(3) {
            self.put(&format!("a{index}"));
            self.put(":");
            self.value(0, false);
        }
        self.put(")");
    }

    fn value(&mut self, depth: u8, constant: bool) {
        match self.choose(if depth > 5 { 8 } else { 12 }) {
            0 | 1 if !constant => {
                self.put("$");
                self.put("v0");
            }
            2..=3 => self.pick(&["\"\"", "\"{[( # \\\" \\\\\"", "\"\\u00e9é\\n\"", "\",\""]),
            // The library does not see the end of `\"""` for what it is.
            4 => self.pick(&["\"\"\"\"\"\"", "\"\"\"}\n \" \"\" #\"\"\"", "\"\"\"\n  a\n    b\n\"\"\""]),
            5 => self.pick(&["true", "null", "E", "on", "query"]),
            8 | 9 => {
                self.put("[");
                for _ in 0..self.choose(4) {
                    self.value(depth + 1, constant);
                }
                self.put("]");
            }
            10 | 11 => {
                self.put("{");
                for index in 0..self.choose(3) {
                    self.put(&format!("f{index}"));
                    self.put(":");
                    self.value(depth + 1, constant);
                }
                self.put("}");
            }
            _ => self.pick(&["0", "-1", "2.50", "1e3", "-0.1E+9"]),
        }
    }

    fn selections(&mut self, depth: u8) {
        self.put("{");
        for _ in 0..=self.choose(4) {
            match self.choose(10) {
                7 => {
                    self.put("...");
                    // `on` must not stand before a name here: that would be a type condition.
                    self.pick(&["A", "B", "C", "fragment", "A", "B"]);
                    self.directives();
                }
                8 | 9 if depth < 7 => {
                    self.put("...");
                    if self.choose(2) == 1 {
                        let on = ["on ", "on\n,", "on\u{feff}"][usize::from(self.choose(3))];
                        self.text.push_str(on);
                        self.put("T");
                    }
                    self.directives();
                    self.selections(depth + 1);
                }
                _ => {
                    if self.choose(6) == 5 {
                        self.pick(&["x", "on", "fields"]);
                        self.put(":");
                    }
                    self.pick(&["a", "b", "on", "query", "__schema", "__type", "fields", "interfaces"]);
                    self.arguments();
                    self.directives();
                    if depth < 7 && self.choose(3) == 2 {
                        self.selections(depth + 1);
                    }
                }
            }
        }
        self.put("}");
    }
}

fn written(choices: &[u8]) -> String {
    let mut writer = Writer { choices, text: String::new() };
    writer.document();
    writer.text
}

/// What the syntax tree amounts to.
#[derive(Default)]
struct Tree<'t> {
    selections: usize,
    root_fields: usize,
    levels: usize,
    depth: usize,
    introspection_depth: usize,
    introspection_lists: usize,
    cycle: bool,
    inside: Vec<&'t Name>,
}

#[derive(Clone, Copy, Default)]
struct Around {
    fields: usize,
    levels: usize,
    lists: usize,
    introspection: bool,
}

impl<'t> Tree<'t> {
    fn walk(&mut self, document: &'t ExecutableDocument, set: &'t Positioned<SelectionSet>, around: Around) {
        if set.node.items.is_empty() || self.selections > 20_000 {
            return;
        }
        let around = Around { levels: around.levels + 1, ..around };
        self.levels = self.levels.max(around.levels);
        for selection in &set.node.items {
            self.selections += 1;
            match &selection.node {
                Selection::Field(field) => {
                    let name = field.node.name.node.as_str();
                    let mut below = around;
                    below.introspection |= around.fields == 0 && ["__schema", "__type"].contains(&name);
                    below.fields += 1;
                    below.lists += usize::from(["fields", "interfaces"].contains(&name));
                    self.root_fields += usize::from(around.fields == 0);
                    if below.introspection {
                        self.introspection_depth = self.introspection_depth.max(below.fields);
                        self.introspection_lists = self.introspection_lists.max(below.lists);
                    } else {
                        self.depth = self.depth.max(below.fields);
                    }
                    self.walk(document, &field.node.selection_set, below);
                }
                Selection::InlineFragment(inline) => self.walk(document, &inline.node.selection_set, around),
                Selection::FragmentSpread(spread) => {
                    let name = &spread.node.fragment_name.node;
                    if self.inside.contains(&name) {
                        self.cycle = true;
                    } else if let Some(fragment) = document.fragments.get(name) {
                        self.inside.push(name);
                        self.walk(document, &fragment.node.selection_set, around);
                        self.inside.pop();
                    }
                }
            }
        }
    }
}

/// Counts that need no expansion, and the brackets.
#[derive(Default)]
struct Syntax {
    aliases: usize,
    directives: usize,
    nesting: usize,
}

impl Syntax {
    fn of(document: &ExecutableDocument) -> Self {
        let mut syntax = Self::default();
        for (_, operation) in document.operations.iter() {
            let operation = &operation.node;
            syntax.directives(&operation.directives, 0);
            for variable in &operation.variable_definitions {
                syntax.directives(&variable.node.directives, 1);
                syntax.reach(1 + variable.node.var_type.node.to_string().matches('[').count());
                if let Some(default) = &variable.node.default_value {
                    syntax.value(&default.node.clone().into_value(), 1);
                }
            }
            syntax.selections(&operation.selection_set, 0);
        }
        for fragment in document.fragments.values() {
            syntax.directives(&fragment.node.directives, 0);
            syntax.selections(&fragment.node.selection_set, 0);
        }
        syntax
    }

    fn reach(&mut self, nesting: usize) {
        self.nesting = self.nesting.max(nesting);
    }

    fn selections(&mut self, set: &Positioned<SelectionSet>, nesting: usize) {
        if set.node.items.is_empty() {
            return;
        }
        let nesting = nesting + 1;
        self.reach(nesting);
        for selection in &set.node.items {
            match &selection.node {
                Selection::Field(field) => {
                    self.aliases += usize::from(field.node.alias.is_some());
                    self.arguments(&field.node.arguments, nesting);
                    self.directives(&field.node.directives, nesting);
                    self.selections(&field.node.selection_set, nesting);
                }
                Selection::InlineFragment(inline) => {
                    self.directives(&inline.node.directives, nesting);
                    self.selections(&inline.node.selection_set, nesting);
                }
                Selection::FragmentSpread(spread) => self.directives(&spread.node.directives, nesting),
            }
        }
    }

    fn directives(&mut self, directives: &[Positioned<Directive>], nesting: usize) {
        for directive in directives {
            self.directives += 1;
            self.arguments(&directive.node.arguments, nesting);
        }
    }

    fn arguments(&mut self, arguments: &[(Positioned<Name>, Positioned<Value>)], nesting: usize) {
        for (_, value) in arguments {
            self.value(&value.node, nesting + 1);
        }
    }

    fn value(&mut self, value: &Value, nesting: usize) {
        self.reach(nesting);
        match value {
            Value::List(values) => {
                self.reach(nesting + 1);
                for value in values {
                    self.value(value, nesting + 1);
                }
            }
            Value::Object(fields) => {
                self.reach(nesting + 1);
                for value in fields.values() {
                    self.value(value, nesting + 1);
                }
            }
            _ => {}
        }
    }
}

/// The verdict the syntax tree asks for: the codes of all limits exceeded, and the shape if there are none.
fn judge<'t>(
    document: &'t ExecutableDocument,
    limits: &Limits,
) -> (BTreeSet<&'static str>, DocumentStats<'t>) {
    let mut codes = BTreeSet::new();
    let mut demand = |holds: bool, code: LimitErrorKind| {
        if !holds {
            codes.insert(code.as_str());
        }
    };
    let syntax = Syntax::of(document);
    demand(syntax.aliases <= limits.aliases, LimitErrorKind::Cost);
    demand(syntax.directives <= limits.directives, LimitErrorKind::Cost);
    demand(syntax.nesting <= limits.nesting, LimitErrorKind::Depth);
    let mut shape = DocumentStats {
        aliases: syntax.aliases,
        directives: syntax.directives,
        fragments: document.fragments.len(),
        ..DocumentStats::default()
    };
    let mut trees = Vec::new();
    for (name, operation) in document.operations.iter() {
        let mut tree = Tree::default();
        tree.walk(document, &operation.node.selection_set, Around::default());
        demand(tree.root_fields <= limits.root_fields, LimitErrorKind::Cost);
        demand(tree.depth <= limits.depth, LimitErrorKind::Depth);
        demand(tree.introspection_depth <= limits.introspection_depth, LimitErrorKind::Depth);
        demand(tree.introspection_lists <= limits.introspection_lists, LimitErrorKind::Depth);
        shape.selections += tree.selections;
        shape.depth = shape.depth.max(tree.depth);
        shape.introspection_depth = shape.introspection_depth.max(tree.introspection_depth);
        shape.operations.push(OperationStats {
            kind: match operation.node.ty {
                OperationType::Query => OperationKind::Query,
                OperationType::Mutation => OperationKind::Mutation,
                OperationType::Subscription => OperationKind::Subscription,
            },
            name: name.map(Name::as_str),
            root_fields: tree.root_fields,
            selections: tree.selections,
            depth: tree.depth,
            introspection_depth: tree.introspection_depth,
        });
        trees.push(tree);
    }
    for (name, fragment) in &document.fragments {
        let mut tree = Tree { inside: vec![name], ..Tree::default() };
        tree.walk(document, &fragment.node.selection_set, Around::default());
        trees.push(tree);
    }
    for tree in &trees {
        demand(tree.selections <= limits.selections, LimitErrorKind::Cost);
        demand(tree.levels <= limits.nesting, LimitErrorKind::Depth);
        demand(!tree.cycle, LimitErrorKind::Validation);
    }
    demand(shape.selections <= limits.selections, LimitErrorKind::Cost);
    demand(shape.operations.len() <= limits.operations, LimitErrorKind::Cost);
    demand(shape.fragments <= limits.fragments, LimitErrorKind::Cost);
    shape.operations.sort_by_key(|operation| operation.name);
    (codes, shape)
}

/// Each definition of a tree as text, in order, with places where both count lines alike: the library does
/// not take a carriage return for the end of a line. Blank lines of block strings are empty: where one is
/// shorter than the indent of the others, the library keeps it.
fn listed(document: &ExecutableDocument, text: &str) -> BTreeSet<String> {
    let operations =
        document.operations.iter().map(|(name, operation)| format!("operation {name:?} {operation:?}"));
    let fragments =
        document.fragments.iter().map(|(name, fragment)| format!("fragment {name:?} {fragment:?}"));
    let with_empty_lines = |text: String| {
        let is_blank = |line: &str| line.replace("\\t", "").bytes().all(|byte| byte == b' ');
        text.split("\\n").map(|line| if is_blank(line) { "" } else { line }).collect::<Vec<_>>().join("\\n")
    };
    let all = operations.chain(fragments).map(with_empty_lines);
    if !text.replace("\r\n", "").contains('\r') {
        return all.collect();
    }
    let without_places = |text: String| {
        text.split("Pos(").map(|part| part.split_once(')').map_or(part, |(_, rest)| rest)).collect()
    };
    all.map(without_places).collect()
}

/// Holds our parser against the library's on one document; says whether both accepted it.
fn compare(document: &str, limits: &Limits) -> Result<bool, TestCaseError> {
    let tree = crate::syntax::parse(document, limits);
    prop_assert!(is_parsed_in_time(document), "{document}");
    let Ok(parsed) = parse_query(document) else { return Ok(false) };
    let (codes, expected) = judge(&parsed, limits);
    match tree {
        Ok(tree) => {
            // Where two definitions have one name, the library has kept one of them or refused the document.
            prop_assert_eq!(listed(&tree.lower(), document), listed(&parsed, document), "{}", document);
            prop_assert!(codes.is_empty(), "passed, but {codes:?}: {document}");
            let mut shape = tree.shape;
            shape.tokens = 0;
            shape.operations.sort_by_key(|operation| operation.name);
            prop_assert_eq!(shape, expected, "{}", document);
        }
        // The library reads some that are not GraphQL.
        Err(refusal) if refusal.kind == LimitErrorKind::Parse => return Ok(false),
        Err(refusal) => {
            prop_assert!(codes.contains(refusal.kind.as_str()), "{refusal}, expected {codes:?}: {document}");
        }
    }
    Ok(true)
}

fn damaged(document: &str, wounds: &[(u16, u8, u8)]) -> String {
    const BYTES: &[u8] = b"{}[]()\"\\#:,.@$!=-0e1u \n\r\tonquery_\xEF\xBB\xBF";
    let mut bytes = document.as_bytes().to_vec();
    for &(place, kind, what) in wounds {
        let at = usize::from(place) % bytes.len().max(1);
        let byte = BYTES[usize::from(what) % BYTES.len()];
        let end = (at + usize::from(what % 24)).min(bytes.len());
        match kind % 5 {
            0 => bytes.insert(at, byte),
            1 if at < bytes.len() => bytes[at] = byte,
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 => drop(bytes.drain(at.min(end)..end)),
            _ => bytes.extend_from_within(at.min(end)..end),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("XP_DOCUMENT_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn a_blank_line_shorter_than_the_indent_is_empty() {
    let document = "{ a(s: \"\"\"x\n \n   y\n  z\"\"\") }";
    assert!(matches!(compare(document, &Limits::public()), Ok(true)));
    let tree = crate::syntax::parse(document, &Limits::public()).expect("it is right");
    assert!(format!("{:?}", tree.lower()).contains(r"x\n\n y\nz"), "{:?}", tree.lower());
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn generated_documents_are_read_and_counted_as_the_library_reads_them(choices in vec(any::<u8>(), 0..600)) {
        let document = written(&choices);
        compare(&document, &TIGHT)?;
        prop_assert!(compare(&document, &Limits::public())?, "refused: {document}");
    }

    #[test]
    fn damaged_documents_are_read_as_the_library_reads_them(
        choices in vec(any::<u8>(), 0..300),
        wounds in vec(any::<(u16, u8, u8)>(), 1..4),
    ) {
        let document = damaged(&written(&choices), &wounds);
        compare(&document, &TIGHT)?;
        compare(&document, &Limits::public())?;
    }

    #[test]
    fn any_bytes_at_all_are_read_to_an_end(tokens in vec(
        prop::sample::select(vec![
            "{", "}", "[", "]", "(", ")", "...", "on", "on ", "a", ":", "@", "$", "\"", "\"\"\"", "\\", "\\\"\"\"",
            "#", "\n", " ", ",", "1", "-", ".", "e", "query", "fragment", "F", "\u{feff}", "é", "true", "!", "=",
        ]),
        0..200,
    )) {
        let document = tokens.concat();
        compare(&document, &TIGHT)?;
        compare(&document, &Limits::gateway())?;
    }
}

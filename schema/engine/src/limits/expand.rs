//! What a document amounts to once its fragments are put in place of their spreads, computed without putting them
//! there: each fragment is measured once, on an explicit stack, in saturating numbers. Linear in definitions and
//! spreads, where the framework's own walks are exponential.

use rustc_hash::FxHashMap;

use super::{LimitErrorKind, OperationKind, Violation, echo};

/// How far a chain of fields goes: all of them, and those that are lists of introspection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reach {
    pub(super) depth: u32,
    pub(super) lists: u32,
}

impl Reach {
    #[inline]
    pub(super) fn raise(&mut self, other: Self) {
        self.depth = self.depth.max(other.depth);
        self.lists = self.lists.max(other.lists);
    }

    fn plus(self, other: Self) -> Self {
        Self { depth: self.depth + other.depth, lists: self.lists + other.lists }
    }
}

/// A place inside a definition: what encloses it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scope {
    /// The enclosing fields.
    pub(super) fields: Reach,
    /// The enclosing selection sets.
    pub(super) levels: u32,
    /// Whether the outermost field is `__schema` or `__type`.
    pub(super) introspection: bool,
}

/// The measures of one definition; before `expand` without its spreads, after it with them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Measures {
    pub(super) selections: usize,
    pub(super) root_fields: usize,
    pub(super) levels: u32,
    /// The longest chain of fields that does not begin with `__schema` or `__type`.
    pub(super) plain: Reach,
    /// The longest chain that does.
    pub(super) introspection: Reach,
}

impl Measures {
    /// Adds a fragment that is spread at a place. Only at the root does its `__schema` mean the schema's.
    fn spread(&mut self, fragment: &Self, scope: Scope) {
        self.selections = self.selections.saturating_add(fragment.selections);
        self.levels = self.levels.max(scope.levels + fragment.levels);
        if scope.fields.depth == 0 {
            self.root_fields = self.root_fields.saturating_add(fragment.root_fields);
            self.plain.raise(fragment.plain);
            self.introspection.raise(fragment.introspection);
            return;
        }
        let mut whole = fragment.plain;
        whole.raise(fragment.introspection);
        let side = if scope.introspection { &mut self.introspection } else { &mut self.plain };
        side.raise(scope.fields.plus(whole));
    }
}

/// An operation or a fragment.
#[derive(Debug)]
pub(super) struct MeasuredDefinition<'d> {
    /// None: a fragment.
    pub(super) kind: Option<OperationKind>,
    /// Empty: it has none.
    pub(super) name: &'d str,
    pub(super) at: usize,
    pub(super) measures: Measures,
    /// Which of the document's spreads are its own: from here …
    pub(super) first_spread: usize,
    /// … to before here.
    pub(super) end_spread: usize,
}

/// `...Name`
#[derive(Debug)]
pub(super) struct Spread<'d> {
    pub(super) fragment: &'d str,
    pub(super) scope: Scope,
    pub(super) at: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unseen,
    Open,
    Done,
}

/// Adds to each definition's measures what its spreads bring; refuses a fragment that contains itself. Spreads of
/// unknown fragments bring nothing: validation reports them.
pub(super) fn expand(
    definitions: &mut [MeasuredDefinition<'_>],
    spreads: &[Spread<'_>],
) -> Result<(), Violation> {
    if spreads.is_empty() {
        return Ok(());
    }
    let fragments: FxHashMap<&str, usize> = definitions
        .iter()
        .enumerate()
        .filter(|(_, definition)| definition.kind.is_none())
        .map(|(index, definition)| (definition.name, index))
        .collect();
    let mut states = vec![State::Unseen; definitions.len()];
    // Definitions being measured, each inside the one before, with the spread that is next.
    let mut open: Vec<(usize, usize)> = Vec::new();
    for root in 0..definitions.len() {
        if states[root] == State::Unseen {
            states[root] = State::Open;
            open.push((root, definitions[root].first_spread));
        }
        while let Some((index, next)) = open.last_mut() {
            if *next == definitions[*index].end_spread {
                states[*index] = State::Done;
                open.pop();
                continue;
            }
            let spread = &spreads[*next];
            let Some(&target) = fragments.get(spread.fragment) else {
                *next += 1;
                continue;
            };
            match states[target] {
                State::Done => {
                    *next += 1;
                    let fragment = definitions[target].measures;
                    definitions[*index].measures.spread(&fragment, spread.scope);
                }
                State::Unseen => {
                    states[target] = State::Open;
                    open.push((target, definitions[target].first_spread));
                }
                State::Open => {
                    let message =
                        format!("Cannot spread fragment \"{}\" within itself.", echo(spread.fragment));
                    return Err(Violation::new(LimitErrorKind::Validation, spread.at, message));
                }
            }
        }
    }
    Ok(())
}

//! Counts what a document holds while it is parsed, and refuses it where a limit is passed. The parser says what it
//! meets; memory goes only into definitions and spreads. Not here: the grammar (`syntax::parser`).

use super::{
    DocumentStats, LimitErrorKind, Limits, NESTING_CEILING, OperationKind, OperationStats, Violation, excess,
    expand::{self, MeasuredDefinition, Measures, Reach, Scope, Spread},
};

/// The counts so far.
pub(crate) struct Meter<'d, 'l> {
    limits: &'l Limits,
    nesting: usize,
    /// Brackets that are open.
    open: usize,
    tokens: usize,
    aliases: usize,
    directives: usize,
    operations: usize,
    fragments: usize,
    definitions: Vec<MeasuredDefinition<'d>>,
    spreads: Vec<Spread<'d>>,
    /// Around the selection being read.
    here: Scope,
    /// Of the definition being read.
    measures: Measures,
}

impl<'d, 'l> Meter<'d, 'l> {
    pub(crate) fn new(limits: &'l Limits) -> Self {
        Self {
            limits,
            nesting: limits.nesting.min(NESTING_CEILING),
            open: 0,
            tokens: 0,
            aliases: 0,
            directives: 0,
            operations: 0,
            fragments: 0,
            definitions: Vec::new(),
            spreads: Vec::new(),
            here: Scope::default(),
            measures: Measures::default(),
        }
    }

    /// A token at an offset.
    #[inline]
    pub(crate) fn token(&mut self, at: usize) -> Result<(), Violation> {
        self.tokens += 1;
        if self.tokens > self.limits.tokens {
            return Err(excess(LimitErrorKind::Cost, at, "tokens", self.limits.tokens));
        }
        Ok(())
    }

    /// A bracket of any kind opens.
    #[inline]
    pub(crate) fn open(&mut self, at: usize) -> Result<(), Violation> {
        if self.open >= self.nesting {
            return Err(excess(LimitErrorKind::Depth, at, "nested brackets", self.nesting));
        }
        self.open += 1;
        Ok(())
    }

    /// A bracket closes.
    #[inline]
    pub(crate) fn close(&mut self) {
        self.open -= 1;
    }

    /// An alias at an offset.
    pub(crate) fn alias(&mut self, at: usize) -> Result<(), Violation> {
        self.aliases += 1;
        if self.aliases > self.limits.aliases {
            return Err(excess(LimitErrorKind::Cost, at, "aliases", self.limits.aliases));
        }
        Ok(())
    }

    /// A directive at an offset.
    pub(crate) fn directive(&mut self, at: usize) -> Result<(), Violation> {
        self.directives += 1;
        if self.directives > self.limits.directives {
            return Err(excess(LimitErrorKind::Cost, at, "directives", self.limits.directives));
        }
        Ok(())
    }

    /// An operation (with its kind) or a fragment begins; an empty name: it has none.
    pub(crate) fn begin(
        &mut self,
        kind: Option<OperationKind>,
        name: &'d str,
        at: usize,
    ) -> Result<(), Violation> {
        let (count, limit, what) = match kind {
            Some(_) => (&mut self.operations, self.limits.operations, "operations"),
            None => (&mut self.fragments, self.limits.fragments, "fragments"),
        };
        *count += 1;
        if *count > limit {
            return Err(excess(LimitErrorKind::Cost, at, what, limit));
        }
        let spread = self.spreads.len();
        let measures = Measures::default();
        let definition =
            MeasuredDefinition { kind, name, at, measures, first_spread: spread, end_spread: spread };
        self.definitions.push(definition);
        self.here = Scope::default();
        self.measures = measures;
        Ok(())
    }

    /// The definition that began is read.
    pub(crate) fn end(&mut self) {
        if let Some(definition) = self.definitions.last_mut() {
            definition.measures = self.measures;
            definition.end_spread = self.spreads.len();
        }
    }

    /// A field; what is inside it is around what is read until `leave`.
    #[inline]
    pub(crate) fn field(&mut self, name: &str) -> Scope {
        let around = self.here;
        let at_root = around.fields.depth == 0;
        let lists = matches!(name, "fields" | "interfaces" | "possibleTypes" | "inputFields");
        let reach = Reach { depth: around.fields.depth + 1, lists: around.fields.lists + u32::from(lists) };
        let introspection = around.introspection || (at_root && matches!(name, "__schema" | "__type"));
        self.measures.selections += 1;
        self.measures.root_fields += usize::from(at_root);
        if introspection { &mut self.measures.introspection } else { &mut self.measures.plain }.raise(reach);
        self.here = Scope { fields: reach, levels: around.levels, introspection };
        around
    }

    /// An inline fragment; it encloses what is read until `leave`.
    pub(crate) fn inline_fragment(&mut self) -> Scope {
        self.measures.selections += 1;
        self.here
    }

    /// `...Name`
    pub(crate) fn spread(&mut self, fragment: &'d str, at: usize) {
        self.measures.selections += 1;
        self.spreads.push(Spread { fragment, scope: self.here, at });
    }

    /// A selection set opens inside the field or inline fragment that was met last.
    #[inline]
    pub(crate) fn enter_set(&mut self) {
        self.here.levels += 1;
        self.measures.levels = self.measures.levels.max(self.here.levels);
    }

    /// A field or inline fragment is read, with its selection set.
    #[inline]
    pub(crate) fn leave(&mut self, around: Scope) {
        self.here = around;
    }

    /// Puts the fragments in their places and checks what that makes of each definition. `ignored_bytes`: see `Limits`.
    pub(crate) fn conclude(mut self, ignored_bytes: usize) -> Result<DocumentStats<'d>, Violation> {
        if ignored_bytes > self.limits.ignored_bytes {
            let what = "bytes of comments, strings and white space";
            return Err(excess(LimitErrorKind::Cost, 0, what, self.limits.ignored_bytes));
        }
        expand::expand(&mut self.definitions, &self.spreads)?;
        let mut shape = DocumentStats {
            tokens: self.tokens,
            aliases: self.aliases,
            directives: self.directives,
            fragments: self.fragments,
            operations: Vec::with_capacity(self.operations),
            ..DocumentStats::default()
        };
        for definition in &self.definitions {
            self.check_expanded(definition)?;
            let (Some(kind), measures) = (definition.kind, &definition.measures) else { continue };
            shape.selections = shape.selections.saturating_add(measures.selections);
            if shape.selections > self.limits.selections {
                return Err(excess(
                    LimitErrorKind::Cost,
                    definition.at,
                    "selections",
                    self.limits.selections,
                ));
            }
            let depth = measures.plain.depth as usize;
            let introspection_depth = measures.introspection.depth as usize;
            shape.depth = shape.depth.max(depth);
            shape.introspection_depth = shape.introspection_depth.max(introspection_depth);
            shape.operations.push(OperationStats {
                kind,
                name: (!definition.name.is_empty()).then_some(definition.name),
                root_fields: measures.root_fields,
                selections: measures.selections,
                depth,
                introspection_depth,
            });
        }
        Ok(shape)
    }

    /// Size and levels bind fragments that nobody spreads, too: they are walked all the same.
    fn check_expanded(&self, definition: &MeasuredDefinition<'_>) -> Result<(), Violation> {
        let (limits, measures, at) = (self.limits, &definition.measures, definition.at);
        if measures.selections > limits.selections {
            return Err(excess(LimitErrorKind::Cost, at, "selections", limits.selections));
        }
        if measures.levels as usize > limits.nesting {
            return Err(excess(LimitErrorKind::Depth, at, "nested selection sets", limits.nesting));
        }
        if definition.kind.is_none() {
            return Ok(());
        }
        if measures.root_fields > limits.root_fields {
            return Err(excess(LimitErrorKind::Cost, at, "root fields", limits.root_fields));
        }
        if measures.plain.depth as usize > limits.depth {
            return Err(excess(LimitErrorKind::Depth, at, "nested fields", limits.depth));
        }
        if measures.introspection.depth as usize > limits.introspection_depth {
            return Err(excess(
                LimitErrorKind::Depth,
                at,
                "nested introspection fields",
                limits.introspection_depth,
            ));
        }
        if measures.introspection.lists as usize > limits.introspection_lists {
            return Err(excess(
                LimitErrorKind::Depth,
                at,
                "nested introspection lists",
                limits.introspection_lists,
            ));
        }
        Ok(())
    }
}

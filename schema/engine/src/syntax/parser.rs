//! The grammar, by recursive descent: what recurses has opened a bracket, and those have a ceiling
//! (`limits`). Messages of syntax errors say what stands at their place and nothing else of the document: a
//! line of it may hold a password, and messages end in the logs of clients and gateways.

use super::{
    ArgumentNode, Condition, DefinitionNode, DirectiveNode, IndexRange, Lexer, Named, SelectionKind,
    SelectionNode, SyntaxTree, TokenKind, Value, ValueKind, Variable, Wrapped, lexer::Token,
};
use crate::limits::{LimitErrorKind, Limits, Meter, OperationKind, Violation, echo};

/// Whether variables may stand in a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Constant {
    Yes,
    No,
}

pub(super) struct Parser<'d, 'l> {
    text: &'d str,
    lexer: Lexer<'d>,
    meter: Meter<'d, 'l>,
    token: Token,
    /// A string stands before the token, with no punctuator between: the token may be the rest of a string that was
    /// closed too early.
    after_string: bool,
    tree: SyntaxTree<'d>,
}

type Parsed<T> = Result<T, Violation>;

impl<'d, 'l> Parser<'d, 'l> {
    pub(super) fn new(text: &'d str, limits: &'l Limits) -> Self {
        Self {
            text,
            lexer: Lexer::new(text),
            meter: Meter::new(limits),
            token: Token { kind: TokenKind::End, start: 0, end: 0 },
            after_string: false,
            tree: SyntaxTree {
                shape: crate::limits::DocumentStats::default(),
                text,
                definitions: Vec::with_capacity(2),
                selections: Vec::with_capacity(32),
                arguments: Vec::with_capacity(8),
                directives: Vec::new(),
                variables: Vec::new(),
                values: Vec::with_capacity(8),
            },
        }
    }

    pub(super) fn document(mut self) -> Parsed<SyntaxTree<'d>> {
        self.advance()?;
        loop {
            self.definition()?;
            if self.token.kind == TokenKind::End {
                break;
            }
        }
        self.tree.shape = self.meter.conclude(self.lexer.ignored_bytes)?;
        Ok(self.tree)
    }

    // Tokens.

    #[inline]
    fn advance(&mut self) -> Parsed<()> {
        self.after_string = match self.token.kind {
            TokenKind::String | TokenKind::BlockString => true,
            TokenKind::Name | TokenKind::Int | TokenKind::Float => self.after_string,
            _ => false,
        };
        self.token = self.lexer.next()?;
        if self.token.kind != TokenKind::End {
            self.meter.token(self.token.start)?;
        }
        Ok(())
    }

    #[inline]
    fn is(&self, punctuator: u8) -> bool {
        self.token.kind == TokenKind::Punctuator(punctuator)
    }

    #[inline]
    fn take(&mut self, punctuator: u8) -> Parsed<bool> {
        let is = self.is(punctuator);
        if is {
            self.advance()?;
        }
        Ok(is)
    }

    #[inline]
    fn expect(&mut self, punctuator: u8) -> Parsed<()> {
        if self.take(punctuator)? { Ok(()) } else { Err(self.unexpected()) }
    }

    fn open(&mut self, bracket: u8) -> Parsed<()> {
        if !self.is(bracket) {
            return Err(self.unexpected());
        }
        self.meter.open(self.token.start)?;
        self.advance()
    }

    fn close(&mut self, bracket: u8) -> Parsed<()> {
        self.expect(bracket)?;
        self.meter.close();
        Ok(())
    }

    /// The text of the next token, if that is a name.
    #[inline]
    fn word(&self) -> Option<&'d str> {
        (self.token.kind == TokenKind::Name).then(|| self.lexer.text(self.token))
    }

    #[inline]
    fn name(&mut self) -> Parsed<Named<'d>> {
        let Some(text) = self.word() else { return Err(self.unexpected()) };
        let at = self.here();
        self.advance()?;
        Ok(Named { text, at })
    }

    #[inline]
    fn here(&self) -> u32 {
        self.token.start as u32
    }

    #[cold]
    fn unexpected(&self) -> Violation {
        let found = match self.token.kind {
            TokenKind::End => "end of the document".to_owned(),
            TokenKind::Name if self.after_string => "name".to_owned(),
            TokenKind::Name => format!("name \"{}\"", echo(self.lexer.text(self.token))),
            TokenKind::Int | TokenKind::Float => "number".to_owned(),
            TokenKind::String | TokenKind::BlockString => "string".to_owned(),
            TokenKind::Spread => "\"...\"".to_owned(),
            TokenKind::Punctuator(byte) => format!("{:?}", char::from(byte)),
        };
        self.stop(format!("Unexpected {found}."))
    }

    #[cold]
    fn stop(&self, message: impl std::fmt::Display) -> Violation {
        Violation::new(LimitErrorKind::Parse, self.token.start, format!("Syntax Error: {message}"))
    }

    // Definitions.

    fn definition(&mut self) -> Parsed<()> {
        let has_description = self.description()?;
        let at = self.here();
        let kind = match self.word() {
            Some("query") => OperationKind::Query,
            Some("mutation") => OperationKind::Mutation,
            Some("subscription") => OperationKind::Subscription,
            Some("fragment") => return self.fragment(at),
            None if self.is(b'{') && has_description => {
                return Err(self.stop("A query without its keyword cannot have a description."));
            }
            None if self.is(b'{') => {
                self.meter.begin(Some(OperationKind::Query), "", self.token.start)?;
                let none = DefinitionNode::nothing(Some(OperationKind::Query), at);
                return self.body(none);
            }
            _ => return Err(self.unexpected()),
        };
        self.advance()?;
        let name = if self.word().is_some() { Some(self.name()?) } else { None };
        self.meter.begin(Some(kind), name.map_or("", |name| name.text), at as usize)?;
        let variables = self.variables()?;
        let directives = self.directives(Constant::No)?;
        self.body(DefinitionNode { name, variables, directives, ..DefinitionNode::nothing(Some(kind), at) })
    }

    fn fragment(&mut self, at: u32) -> Parsed<()> {
        self.advance()?;
        if self.word() == Some("on") {
            return Err(self.unexpected());
        }
        let name = self.name()?;
        self.meter.begin(None, name.text, at as usize)?;
        if self.word() != Some("on") {
            return Err(self.unexpected());
        }
        let condition = Some(self.condition()?);
        let directives = self.directives(Constant::No)?;
        self.body(DefinitionNode {
            name: Some(name),
            condition,
            directives,
            ..DefinitionNode::nothing(None, at)
        })
    }

    fn body(&mut self, mut definition: DefinitionNode<'d>) -> Parsed<()> {
        definition.set_at = self.here();
        definition.selections = self.selection_set()?;
        self.meter.end();
        self.tree.definitions.push(definition);
        Ok(())
    }

    fn description(&mut self) -> Parsed<bool> {
        let is = matches!(self.token.kind, TokenKind::String | TokenKind::BlockString);
        if is {
            self.advance()?;
        }
        Ok(is)
    }

    fn variables(&mut self) -> Parsed<IndexRange> {
        let start = self.tree.variables.len() as u32;
        if self.is(b'(') {
            self.open(b'(')?;
            loop {
                self.variable()?;
                if self.is(b')') {
                    break;
                }
            }
            self.close(b')')?;
        }
        Ok(start..self.tree.variables.len() as u32)
    }

    fn variable(&mut self) -> Parsed<()> {
        self.description()?;
        let at = self.here();
        self.expect(b'$')?;
        let Named { text: name, at: name_at } = self.name()?;
        self.expect(b':')?;
        let ty_at = self.here();
        let ty = self.type_reference()?;
        let default = if self.take(b'=')? { Some(self.value(Constant::Yes, None)?) } else { None };
        let directives = self.directives(Constant::Yes)?;
        self.tree.variables.push(Variable { name, name_at, at, ty, ty_at, default, directives });
        Ok(())
    }

    fn type_reference(&mut self) -> Parsed<Wrapped<Named<'d>>> {
        let mut ty = if self.is(b'[') {
            self.open(b'[')?;
            let item = self.type_reference()?;
            self.close(b']')?;
            Wrapped { lists: item.lists + 1, non_null: item.non_null << 1, ..item }
        } else {
            Wrapped { name: self.name()?, lists: 0, non_null: 0 }
        };
        if self.take(b'!')? {
            ty.non_null |= 1;
        }
        Ok(ty)
    }

    // Selections.

    fn selection_set(&mut self) -> Parsed<IndexRange> {
        let start = self.tree.selections.len() as u32;
        self.open(b'{')?;
        self.meter.enter_set();
        loop {
            if self.token.kind == TokenKind::Spread {
                self.spread()?;
            } else {
                self.field()?;
            }
            if self.is(b'}') {
                break;
            }
        }
        self.close(b'}')?;
        Ok(start..self.tree.selections.len() as u32)
    }

    fn field(&mut self) -> Parsed<()> {
        let at = self.here();
        let mut name = self.name()?;
        let mut alias = None;
        if self.is(b':') {
            self.meter.alias(at as usize)?;
            self.advance()?;
            alias = Some(name);
            name = self.name()?;
        }
        let around = self.meter.field(name.text);
        let arguments = self.arguments(Constant::No)?;
        let directives = self.directives(Constant::No)?;
        let place = self.begin(SelectionNode {
            kind: SelectionKind::Field,
            alias,
            name,
            condition: None,
            at,
            arguments,
            directives,
            set_at: None,
            end: 0,
        });
        if self.is(b'{') {
            self.tree.selections[place].set_at = Some(self.here());
            self.selection_set()?;
        }
        self.meter.leave(around);
        self.end(place);
        Ok(())
    }

    fn spread(&mut self) -> Parsed<()> {
        let at = self.here();
        self.advance()?;
        if let Some(word) = self.word().filter(|word| *word != "on") {
            let name = Named { text: word, at: self.here() };
            self.advance()?;
            self.meter.spread(name.text, at as usize);
            let directives = self.directives(Constant::No)?;
            let place = self.begin(SelectionNode::of_fragment(SelectionKind::Spread, name, at, directives));
            self.end(place);
            return Ok(());
        }
        let condition = if self.word().is_some() { Some(self.condition()?) } else { None };
        let around = self.meter.inline_fragment();
        let directives = self.directives(Constant::No)?;
        let inline =
            SelectionNode::of_fragment(SelectionKind::Inline, Named { text: "", at }, at, directives);
        let place = self.begin(SelectionNode { condition, ..inline });
        self.tree.selections[place].set_at = Some(self.here());
        self.selection_set()?;
        self.meter.leave(around);
        self.end(place);
        Ok(())
    }

    /// `on Type`, at its `on`.
    fn condition(&mut self) -> Parsed<Condition<'d>> {
        let at = self.here();
        self.advance()?;
        Ok(Condition { ty: self.name()?, at })
    }

    fn begin(&mut self, selection: SelectionNode<'d>) -> usize {
        self.tree.selections.push(selection);
        self.tree.selections.len() - 1
    }

    fn end(&mut self, place: usize) {
        self.tree.selections[place].end = self.tree.selections.len() as u32;
    }

    fn arguments(&mut self, constant: Constant) -> Parsed<IndexRange> {
        let start = self.tree.arguments.len() as u32;
        if self.is(b'(') {
            self.open(b'(')?;
            loop {
                let name = self.name()?;
                self.expect(b':')?;
                let value = self.value(constant, None)?;
                self.tree.arguments.push(ArgumentNode { name, value });
                if self.is(b')') {
                    break;
                }
            }
            self.close(b')')?;
        }
        Ok(start..self.tree.arguments.len() as u32)
    }

    fn directives(&mut self, constant: Constant) -> Parsed<IndexRange> {
        let start = self.tree.directives.len() as u32;
        while self.is(b'@') {
            let at = self.here();
            self.meter.directive(at as usize)?;
            self.advance()?;
            let name = self.name()?;
            let arguments = self.arguments(constant)?;
            self.tree.directives.push(DirectiveNode { name, at, arguments });
        }
        Ok(start..self.tree.directives.len() as u32)
    }

    // Values.

    /// A value; its place in the list.
    fn value(&mut self, constant: Constant, field: Option<Named<'d>>) -> Parsed<u32> {
        let (token, at) = (self.token, self.here());
        let text = self.lexer.text(token);
        let (kind, text) = match token.kind {
            TokenKind::Name => match text {
                "true" | "false" => (ValueKind::Boolean, text),
                "null" => (ValueKind::Null, text),
                _ => (ValueKind::Enum, text),
            },
            TokenKind::Int => (ValueKind::Int, text),
            TokenKind::Float => (ValueKind::Float, text),
            TokenKind::String => (ValueKind::String, &self.text[token.start + 1..token.end - 1]),
            TokenKind::BlockString => (ValueKind::BlockString, &self.text[token.start + 3..token.end - 3]),
            TokenKind::Punctuator(b'$') if constant == Constant::No => {
                self.advance()?;
                match self.word() {
                    Some(name) => (ValueKind::Variable, name),
                    None => return Err(self.unexpected()),
                }
            }
            TokenKind::Punctuator(b'$') => {
                return Err(self.stop("Unexpected variable: this value must be constant."));
            }
            TokenKind::Punctuator(b'[') => return self.list(constant, field),
            TokenKind::Punctuator(b'{') => return self.object(constant, field),
            _ => return Err(self.unexpected()),
        };
        self.advance()?;
        let place = self.tree.values.len() as u32;
        self.tree.values.push(Value { kind, text, at, field, end: place + 1 });
        Ok(place)
    }

    fn list(&mut self, constant: Constant, field: Option<Named<'d>>) -> Parsed<u32> {
        let place = self.holder(ValueKind::List, field);
        self.open(b'[')?;
        while !self.is(b']') {
            self.value(constant, None)?;
        }
        self.close(b']')?;
        self.tree.values[place as usize].end = self.tree.values.len() as u32;
        Ok(place)
    }

    fn object(&mut self, constant: Constant, field: Option<Named<'d>>) -> Parsed<u32> {
        let place = self.holder(ValueKind::Object, field);
        self.open(b'{')?;
        while !self.is(b'}') {
            let name = self.name()?;
            self.expect(b':')?;
            self.value(constant, Some(name))?;
        }
        self.close(b'}')?;
        self.tree.values[place as usize].end = self.tree.values.len() as u32;
        Ok(place)
    }

    fn holder(&mut self, kind: ValueKind, field: Option<Named<'d>>) -> u32 {
        let at = self.here();
        self.tree.values.push(Value { kind, text: "", at, field, end: 0 });
        self.tree.values.len() as u32 - 1
    }
}

impl DefinitionNode<'_> {
    fn nothing(kind: Option<OperationKind>, at: u32) -> Self {
        Self {
            kind,
            name: None,
            condition: None,
            at,
            variables: 0..0,
            directives: 0..0,
            selections: 0..0,
            set_at: at,
        }
    }
}

impl<'d> SelectionNode<'d> {
    fn of_fragment(kind: SelectionKind, name: Named<'d>, at: u32, directives: IndexRange) -> Self {
        Self {
            kind,
            alias: None,
            name,
            condition: None,
            at,
            arguments: 0..0,
            directives,
            set_at: None,
            end: 0,
        }
    }
}

//! The bytes of a document, cut into GraphQL's tokens (September 2025, section 2.1). No grammar here, no limit, no
//! allocation; every function moves forward, so the whole is one pass. Not here: what a string's escapes mean (`text`).

use crate::limits::{LimitErrorKind, Violation};

/// What a byte can begin, outside strings and comments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// A letter or `_`.
    Name,
    /// `0` to `9`; up to here, what a name goes on with.
    Digit,
    /// Space, tab, comma or line break.
    Blank,
    /// `#`
    Comment,
    /// The first byte of a byte order mark, maybe.
    Mark,
    /// `-`
    Minus,
    /// `"`
    Quote,
    /// `.`
    Dot,
    /// A token of one byte.
    Punctuator,
    /// Nothing in GraphQL begins with it.
    Other,
}

static CLASSES: [Class; 256] = {
    let mut classes = [Class::Other; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b' ' | b'\t' | b'\n' | b'\r' | b',' => Class::Blank,
            b'#' => Class::Comment,
            0xEF => Class::Mark,
            b'A'..=b'Z' | b'a'..=b'z' | b'_' => Class::Name,
            b'0'..=b'9' => Class::Digit,
            b'-' => Class::Minus,
            b'"' => Class::Quote,
            b'.' => Class::Dot,
            b'(' | b'[' | b'{' | b')' | b']' | b'}' | b'@' | b'!' | b'$' | b'&' | b':' | b'=' | b'|' => {
                Class::Punctuator
            }
            _ => Class::Other,
        };
        byte += 1;
    }
    classes
};

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// The document is over.
    End,
    Name,
    Int,
    Float,
    /// `"…"`
    String,
    /// `"""…"""`
    BlockString,
    /// `...`
    Spread,
    /// This one byte.
    Punctuator(u8),
}

/// A token and where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    /// The offset of its first byte.
    pub(crate) start: usize,
    /// The offset of the byte after it.
    pub(crate) end: usize,
}

/// A place in the document, moving forward.
pub(crate) struct Lexer<'d> {
    text: &'d str,
    bytes: &'d [u8],
    /// The offset of the next byte.
    at: usize,
    /// See `Limits::ignored_bytes`.
    pub(crate) ignored_bytes: usize,
}

impl<'d> Lexer<'d> {
    pub(crate) fn new(text: &'d str) -> Self {
        Self { text, bytes: text.as_bytes(), at: 0, ignored_bytes: 0 }
    }

    /// The next token.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Token, Violation> {
        self.skip_ignored();
        let start = self.at;
        let Some(byte) = self.peek() else { return Ok(Token { kind: TokenKind::End, start, end: start }) };
        let kind = match CLASSES[usize::from(byte)] {
            Class::Name => {
                self.at = self.end_of(start + 1, is_of_name);
                TokenKind::Name
            }
            Class::Punctuator => {
                self.at += 1;
                TokenKind::Punctuator(byte)
            }
            Class::Dot if self.bytes[start..].starts_with(b"...") => {
                self.at += 3;
                TokenKind::Spread
            }
            Class::Digit | Class::Minus => self.take_number()?,
            Class::Quote => self.take_string()?,
            Class::Dot | Class::Blank | Class::Comment | Class::Mark | Class::Other => {
                return Err(self.unexpected());
            }
        };
        Ok(Token { kind, start, end: self.at })
    }

    /// The text of a token.
    #[inline]
    pub(crate) fn text(&self, token: Token) -> &'d str {
        &self.text[token.start..token.end]
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn class(&self) -> Class {
        self.peek().map_or(Class::Other, |byte| CLASSES[usize::from(byte)])
    }

    /// Where, from a place on, the first byte stands that is not of a kind; the end if there is none.
    #[inline]
    fn end_of(&self, from: usize, kind: impl Fn(u8) -> bool) -> usize {
        let mut end = from;
        while self.bytes.get(end).is_some_and(|&byte| kind(byte)) {
            end += 1;
        }
        end
    }

    /// Passes over blanks, byte order marks and comments.
    #[inline]
    fn skip_ignored(&mut self) {
        loop {
            let end = self.end_of(self.at, |byte| CLASSES[usize::from(byte)] == Class::Blank);
            self.ignored_bytes += end - self.at;
            self.at = end;
            match self.peek() {
                Some(b'#') => {
                    let end = self.end_of(end, |byte| byte != b'\n' && byte != b'\r');
                    self.ignored_bytes += 4 * (end - self.at);
                    self.at = end;
                }
                Some(0xEF) if self.bytes[end..].starts_with(BYTE_ORDER_MARK) => {
                    self.ignored_bytes += 3;
                    self.at += 3;
                }
                _ => return,
            }
        }
    }

    /// A number, which no name, digit or dot follows directly.
    fn take_number(&mut self) -> Result<TokenKind, Violation> {
        let start = self.at;
        let mut kind = TokenKind::Int;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let first = self.peek();
        self.take_digits()?;
        if first == Some(b'0') && self.bytes[start..self.at].iter().filter(|&&byte| byte != b'-').count() > 1
        {
            return Err(wrong_number(start));
        }
        if self.peek() == Some(b'.') {
            kind = TokenKind::Float;
            self.at += 1;
            self.take_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            kind = TokenKind::Float;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.take_digits()?;
        }
        self.ignored_bytes += 4 * (self.at - start);
        match self.class() {
            Class::Name => Err(self.unexpected()),
            _ if self.peek() == Some(b'.') => Err(self.unexpected()),
            _ => Ok(kind),
        }
    }

    fn take_digits(&mut self) -> Result<(), Violation> {
        if self.class() != Class::Digit {
            return Err(self.unexpected());
        }
        self.at = self.end_of(self.at, |byte| byte.is_ascii_digit());
        Ok(())
    }

    fn take_string(&mut self) -> Result<TokenKind, Violation> {
        let start = self.at;
        let kind = if self.bytes[start..].starts_with(b"\"\"\"") {
            self.take_block_string()?;
            TokenKind::BlockString
        } else {
            self.take_line_string()?;
            TokenKind::String
        };
        self.ignored_bytes += 4 * (self.at - start);
        Ok(kind)
    }

    fn take_line_string(&mut self) -> Result<(), Violation> {
        let start = self.at;
        self.at += 1;
        loop {
            self.at = self.end_of(self.at, |byte| !matches!(byte, b'"' | b'\\' | b'\n' | b'\r'));
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.take_escape()?,
                _ => return Err(unterminated(start)),
            }
        }
        self.at += 1;
        Ok(())
    }

    fn take_block_string(&mut self) -> Result<(), Violation> {
        let start = self.at;
        self.at += 3;
        loop {
            self.at = self.end_of(self.at, |byte| byte != b'"' && byte != b'\\');
            match self.peek() {
                Some(b'"') if self.bytes[self.at..].starts_with(b"\"\"\"") => break,
                Some(b'\\') if self.bytes[self.at..].starts_with(b"\\\"\"\"") => self.at += 4,
                None => return Err(unterminated(start)),
                Some(_) => self.at += 1,
            }
        }
        self.at += 3;
        Ok(())
    }

    /// An escape of a string; those of characters must mean one (section 2.9.4): two that are the halves of a
    /// surrogate pair stand together.
    fn take_escape(&mut self) -> Result<(), Violation> {
        let start = self.at;
        let rest = &self.bytes[start + 1..];
        let length = match rest {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => Some(2),
            [b'u', ..] => super::text::character(&self.text.as_bytes()[start..]).map(|(_, length)| length),
            _ => None,
        };
        self.at += length.ok_or_else(|| bad_escape(start))?;
        Ok(())
    }

    /// The refusal of the character that comes next.
    #[cold]
    fn unexpected(&self) -> Violation {
        let message = match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(character) => format!("Syntax Error: Unexpected character {character:?}."),
            None => "Syntax Error: Unexpected end of the document.".to_owned(),
        };
        Violation::new(LimitErrorKind::Parse, self.at, message)
    }
}

#[cold]
fn wrong_number(start: usize) -> Violation {
    let message = "Syntax Error: Invalid number: no digit may follow a leading 0.".to_owned();
    Violation::new(LimitErrorKind::Parse, start, message)
}

#[inline]
fn is_of_name(byte: u8) -> bool {
    CLASSES[usize::from(byte)] as u8 <= Class::Digit as u8
}

#[cold]
fn unterminated(at: usize) -> Violation {
    Violation::new(LimitErrorKind::Parse, at, "Syntax Error: Unterminated string.".to_owned())
}

#[cold]
fn bad_escape(at: usize) -> Violation {
    Violation::new(LimitErrorKind::Parse, at, "Syntax Error: Invalid escape in a string.".to_owned())
}

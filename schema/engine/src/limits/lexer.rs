//! The bytes of a document, cut into GraphQL's lexical tokens: where names, strings, numbers and comments begin and
//! end. No grammar here, no limit, no allocation; every function moves forward, so the whole is one pass.
//!
//! Invariant: a string or comment ends here exactly where the parser ends it. If it ended earlier or later, brackets
//! could hide from the scanner. Where the grammar of the specification and of the parser differ, see `scanner`.

use super::{LimitErrorKind, Violation};

/// What a byte can begin, outside strings and comments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
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
    /// `(`, `[` or `{`
    Open,
    /// `)`, `]` or `}`
    Close,
    /// `@`
    At,
    /// `.`
    Dot,
    /// `!`, `$`, `&`, `:`, `=` or `|`
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
            b'(' | b'[' | b'{' => Class::Open,
            b')' | b']' | b'}' => Class::Close,
            b'@' => Class::At,
            b'.' => Class::Dot,
            b'!' | b'$' | b'&' | b':' | b'=' | b'|' => Class::Punctuator,
            _ => Class::Other,
        };
        byte += 1;
    }
    classes
};

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A place in the document, moving forward.
pub(super) struct Lexer<'d> {
    text: &'d str,
    bytes: &'d [u8],
    /// The offset of the next byte.
    pub(super) at: usize,
    /// See `Limits::ignored_bytes`.
    pub(super) ignored_bytes: usize,
}

impl<'d> Lexer<'d> {
    pub(super) fn new(text: &'d str) -> Self {
        Self { text, bytes: text.as_bytes(), at: 0, ignored_bytes: 0 }
    }

    /// The next byte, if any is left.
    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// What the next byte begins; `Other` at the end.
    #[inline]
    pub(super) fn class(&self) -> Class {
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
    pub(super) fn skip_ignored(&mut self) {
        loop {
            self.skip_blanks();
            if self.peek() != Some(b'#') {
                return;
            }
            let end = self.end_of(self.at, |byte| byte != b'\n' && byte != b'\r');
            self.ignored_bytes += 4 * (end - self.at);
            self.at = end;
        }
    }

    /// Passes over blanks and byte order marks only.
    #[inline]
    pub(super) fn skip_blanks(&mut self) {
        loop {
            let end = self.end_of(self.at, |byte| CLASSES[usize::from(byte)] == Class::Blank);
            self.ignored_bytes += end - self.at;
            self.at = end;
            if self.peek() != Some(BYTE_ORDER_MARK[0]) || !self.bytes[end..].starts_with(BYTE_ORDER_MARK) {
                return;
            }
            self.ignored_bytes += 3;
            self.at += 3;
        }
    }

    /// Takes the name that begins here.
    #[inline]
    pub(super) fn take_name(&mut self) -> &'d str {
        let start = self.at;
        self.at = self.end_of(start + 1, |byte| CLASSES[usize::from(byte)] as u8 <= Class::Digit as u8);
        &self.text[start..self.at]
    }

    /// Takes ` Type` after `on`, if that is what follows. The parser wants blanks there and takes no comment.
    pub(super) fn take_type_condition(&mut self) -> bool {
        let start = self.at;
        self.skip_blanks();
        if self.class() == Class::Name {
            self.take_name();
            return true;
        }
        self.at = start;
        false
    }

    /// Takes `...`, or refuses a lesser number of dots.
    #[inline]
    pub(super) fn take_spread(&mut self) -> Result<(), Violation> {
        if !self.bytes[self.at..].starts_with(b"...") {
            return Err(self.unexpected());
        }
        self.at += 3;
        Ok(())
    }

    /// Takes the number that begins here.
    pub(super) fn take_number(&mut self) -> Result<(), Violation> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        self.take_digits()?;
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.take_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.take_digits()?;
        }
        self.ignored_bytes += 4 * (self.at - start);
        if self.class() == Class::Name { Err(self.unexpected()) } else { Ok(()) }
    }

    fn take_digits(&mut self) -> Result<(), Violation> {
        if self.class() != Class::Digit {
            return Err(self.unexpected());
        }
        self.at = self.end_of(self.at, |byte| byte.is_ascii_digit());
        Ok(())
    }

    /// Takes the string or block string that begins here.
    pub(super) fn take_string(&mut self) -> Result<(), Violation> {
        let start = self.at;
        if self.bytes[start..].starts_with(b"\"\"\"") {
            self.take_block_string()
        } else {
            self.take_line_string()
        }?;
        self.ignored_bytes += 4 * (self.at - start);
        Ok(())
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

    /// A block string without an end is refused here although the parser would read `"""…"` as two strings: it
    /// looks for the end again at each quote, so 64 KiB of `\\""""` cost it 8 seconds.
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

    fn take_escape(&mut self) -> Result<(), Violation> {
        let start = self.at;
        let rest = &self.bytes[start + 1..];
        let hexadecimal = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
        self.at += match rest {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'u', b'{', rest @ ..] => match rest.iter().take(7).position(|&byte| byte == b'}') {
                Some(length @ 1..) if hexadecimal(&rest[..length]) => 4 + length,
                _ => return Err(bad_escape(start)),
            },
            [b'u', a, b, c, d, ..] if hexadecimal(&[*a, *b, *c, *d]) => 6,
            _ => return Err(bad_escape(start)),
        };
        Ok(())
    }

    /// The refusal of the character that comes next.
    #[cold]
    pub(super) fn unexpected(&self) -> Violation {
        let message = match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(character) => format!("Syntax Error: Unexpected character {character:?}."),
            None => "Syntax Error: Unexpected end of the document.".to_owned(),
        };
        Violation::new(LimitErrorKind::Parse, self.at, message)
    }
}

#[cold]
fn unterminated(at: usize) -> Violation {
    Violation::new(LimitErrorKind::Parse, at, "Syntax Error: Unterminated string.".to_owned())
}

#[cold]
fn bad_escape(at: usize) -> Violation {
    Violation::new(LimitErrorKind::Parse, at, "Syntax Error: Invalid escape in a string.".to_owned())
}

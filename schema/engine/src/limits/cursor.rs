//! Lines and columns of offsets. Asked for in the order of the document, all of them together cost one pass over it.

/// A place in a text, moving forward.
pub(crate) struct LineCursor<'d> {
    text: &'d [u8],
    at: usize,
    line: usize,
    column: usize,
}

impl<'d> LineCursor<'d> {
    pub(crate) fn new(text: &'d str) -> Self {
        Self { text: text.as_bytes(), at: 0, line: 1, column: 1 }
    }

    /// The line and the column, in characters, of an offset, both from 1.
    pub(crate) fn place(&mut self, offset: usize) -> (usize, usize) {
        if offset < self.at {
            (self.at, self.line, self.column) = (0, 1, 1);
        }
        let end = offset.min(self.text.len());
        for at in self.at..end {
            match self.text[at] {
                // Only the second half of a line break counts.
                b'\r' if self.text.get(at + 1) == Some(&b'\n') && at + 1 < end => {}
                b'\n' | b'\r' => (self.line, self.column) = (self.line + 1, 1),
                // A byte in the midst of a character.
                0x80..=0xBF => {}
                _ => self.column += 1,
            }
        }
        self.at = end;
        (self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_lines_and_characters() {
        let text = "aé\r\nb\rc\n\ndü!";
        let mut cursor = LineCursor::new(text);
        let place = |cursor: &mut LineCursor<'_>, part: &str| cursor.place(text.find(part).unwrap());
        assert_eq!(place(&mut cursor, "a"), (1, 1));
        assert_eq!(place(&mut cursor, "é"), (1, 2));
        assert_eq!(place(&mut cursor, "b"), (2, 1));
        assert_eq!(place(&mut cursor, "c"), (3, 1));
        assert_eq!(place(&mut cursor, "!"), (5, 3));
        assert_eq!(place(&mut cursor, "é"), (1, 2), "backwards");
        assert_eq!(cursor.place(1_000), (5, 4));
    }
}

//! What strings mean: their escapes, and the indentation of block strings (September 2025, section 2.9.4).
//! Only for what the lexer has passed.

use std::borrow::Cow;

/// The value of a string, from what stands between its quotes.
pub(crate) fn of_string(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let escape = &rest[at..];
        let (meant, length) = match escape.as_bytes().get(1) {
            Some(b'u') => character(escape.as_bytes()).unwrap_or((char::REPLACEMENT_CHARACTER, 2)),
            Some(b'b') => ('\u{8}', 2),
            Some(b'f') => ('\u{c}', 2),
            Some(b'n') => ('\n', 2),
            Some(b'r') => ('\r', 2),
            Some(b't') => ('\t', 2),
            Some(&byte) => (char::from(byte), 2),
            None => break,
        };
        text.push(meant);
        rest = &escape[length..];
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// The character that `\u0041`, `\uD83D\uDE00` or `\u{1F600}` means, and the bytes of the escape; none where it means
/// nothing, such as half of a surrogate pair.
pub(crate) fn character(escape: &[u8]) -> Option<(char, usize)> {
    if escape.get(2) == Some(&b'{') {
        let digits = escape.iter().skip(3).take(9).position(|&byte| byte == b'}')?;
        let code = hexadecimal(escape.get(3..3 + digits)?)?;
        return Some((char::from_u32(code)?, digits + 4));
    }
    let first = hexadecimal(escape.get(2..6)?)?;
    if let Some(character) = char::from_u32(first) {
        return Some((character, 6));
    }
    if !(0xD800..0xDC00).contains(&first) || escape.get(6..8) != Some(b"\\u") {
        return None;
    }
    let second = hexadecimal(escape.get(8..12)?)?;
    if !(0xDC00..0xE000).contains(&second) {
        return None;
    }
    Some((char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00))?, 12))
}

/// One to eight digits.
fn hexadecimal(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u32, |code, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        code.checked_mul(16)?.checked_add(digit)
    })
}

/// The value of a block string, from what stands between its quotes.
pub(crate) fn of_block_string(raw: &str) -> String {
    let raw = raw.replace("\\\"\"\"", "\"\"\"").replace("\r\n", "\n").replace('\r', "\n");
    let lines: Vec<&str> = raw.split('\n').collect();
    let indent = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let is_blank = |line: &&str| indent(line) == line.len();
    let common = lines.iter().skip(1).filter(|line| !is_blank(line)).map(|line| indent(line)).min();
    let Some(first) = lines.iter().position(|line| !is_blank(line)) else { return String::new() };
    let last = lines.iter().rposition(|line| !is_blank(line)).unwrap_or(first);
    let kept = lines[first..=last].iter().enumerate().map(|(index, line)| match common {
        Some(common) if first + index > 0 => line.get(common..).unwrap_or_default(),
        _ => line,
    });
    kept.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_mean_their_characters() {
        for (raw, wanted) in [
            ("plain ü", "plain ü"),
            (r#"a\"b\\c\/d"#, "a\"b\\c/d"),
            (r"\b\f\n\r\t", "\u{8}\u{c}\n\r\t"),
            (r"\u0041\u00e9", "Aé"),
            (r"\uD83D\uDE00!", "😀!"),
            (r"\u{1F600}\u{41}\u{0001F600}", "😀A😀"),
        ] {
            assert_eq!(of_string(raw), wanted);
        }
        for escape in [
            r"\uD83D",
            r"\uDE00\uD83D",
            r"\uD83Dx",
            r"\u{}",
            r"\u{D800}",
            r"\u{110000}",
            r"\u{000000041}",
            r"\u12",
        ] {
            assert_eq!(character(escape.as_bytes()), None, "{escape}");
        }
    }

    #[test]
    fn block_strings_lose_their_common_indent() {
        for (raw, wanted) in [
            ("", ""),
            (" \n \t\n", ""),
            ("one", "one"),
            ("  one  ", "  one  "),
            (
                "\n    Hello,\n      World!\n\n    Yours,\n      GraphQL.\n  ",
                "Hello,\n  World!\n\nYours,\n  GraphQL.",
            ),
            ("first\n    second\r\n   third\r\tfourth", "first\n   second\n  third\nfourth"),
            ("a \\\"\"\" b", "a \"\"\" b"),
            ("\n  a\n \n  b", "a\n\nb"),
        ] {
            assert_eq!(of_block_string(raw), wanted, "{raw:?}");
        }
    }
}

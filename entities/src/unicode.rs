//! The characters of texts that people write: one normal form for what is stored, compared, searched and sorted, and
//! which characters nobody sees. There are two sets: `is_invisible` has all of them, and `is_space` those around a text
//! that are no part of what was written. Not here: what is done with them (the domains, `forms::pipeline`, the log).

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfc_quick};

/// The text composed (Unicode normalization form C): "Đà Lạt" has one spelling, whatever keyboard or file it came from.
pub fn composed(text: &str) -> Cow<'_, str> {
    if is_nfc_quick(text.chars()) == IsNormalized::Yes {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.nfc().collect())
    }
}

/// The text as it is searched: composed, in lower case.
pub fn searched(text: &str) -> String {
    // A lower-case letter may compose with what follows it where the capital did not.
    composed(&composed(text).to_lowercase()).into_owned()
}

/// Is there nothing to see in the text? White space and invisible characters show nothing.
pub fn is_blank(text: &str) -> bool {
    text.chars().all(|character| character.is_whitespace() || is_invisible(character))
}

/// Is there a character that makes a line read differently from how it is spelt? That is what turns the direction of
/// writing around (U+202E and its kind), what has no width, and what stands for no character at all. Joiners (U+200C,
/// U+200D) belong to the spelling of Arabic and Indic words and to emoji: between characters of such scripts they are
/// taken, elsewhere they are not.
pub fn has_hidden(text: &str) -> bool {
    let mut before = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let hidden = match character {
            '\u{200c}' | '\u{200d}' => {
                !before.is_some_and(is_joined) || !characters.peek().copied().is_some_and(is_joined)
            }
            _ => is_invisible(character),
        };
        if hidden {
            return true;
        }
        before = Some(character);
    }
    false
}

/// Latin, Greek, Cyrillic and Armenian have no use for joiners.
fn is_joined(character: char) -> bool {
    character >= '\u{0590}' && !is_invisible(character) && !character.is_whitespace()
}

/// The characters without a shape of their own (most of Unicode's `Default_Ignorable_Code_Point`, the separators of
/// lines and paragraphs, and interlinear annotation), but for variation selectors, which choose the look of emoji.
/// Control characters are `char::is_control`.
pub fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{00ad}'
            | '\u{034f}'
            | '\u{061c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// White space (Unicode's `White_Space`), and three characters that keyboards and files put around texts: U+200B (zero
/// width space), U+2060 (word joiner) and U+FEFF (byte order mark). The joiners, marks of direction and fillers of
/// `is_invisible` are not among them: at the end of a text they may belong to its spelling. Clients that tidy answers
/// themselves do it by this set, so it does not change.
pub(crate) fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{200b}' | '\u{2060}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_text_become_one() {
        let (one, other) = ("Đà Lạt", "Đa\u{300} La\u{323}t");
        assert_ne!(one, other);
        assert_eq!(composed(other), one);
        assert!(matches!(composed(one), Cow::Borrowed(_)), "what is composed is not copied");
        assert_eq!(composed("\u{1112}\u{1161}\u{11ab}"), "한");
        assert_eq!(searched("ĐA\u{300} LA\u{323}T"), "đà lạt");
        assert_eq!(searched("ÉCOLE"), searched("e\u{301}cole"));
    }

    #[test]
    fn what_shows_nothing_is_blank() {
        for text in ["", " ", "\u{a0}\u{3000}", "\u{200b}", "\u{feff} \u{2060}", "\u{3164}", "\u{200d}"] {
            assert!(is_blank(text), "{text:?}");
        }
        assert!(!is_blank("a\u{200b}") && !is_blank("."));
    }

    #[test]
    fn trimmed_characters_are_invisible() {
        for character in (0..=0x0010_ffff).filter_map(char::from_u32).filter(|character| is_space(*character))
        {
            assert!(character.is_whitespace() || is_invisible(character), "{character:?}");
        }
        assert!(
            is_space('\u{feff}') && is_space('\u{3000}') && !is_space('\u{200d}') && !is_space('\u{200e}')
        );
    }

    #[test]
    fn what_turns_or_hides_text_is_found() {
        for hidden in [
            '\u{200b}',
            '\u{200e}',
            '\u{200f}',
            '\u{202a}',
            '\u{202b}',
            '\u{202c}',
            '\u{202d}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{2067}',
            '\u{2068}',
            '\u{2069}',
            '\u{061c}',
            '\u{feff}',
            '\u{00ad}',
            '\u{200c}',
            '\u{200d}',
            '\u{2028}',
            '\u{2029}',
            '\u{e0041}',
        ] {
            for text in [format!("A{hidden}da"), format!("{hidden}Ada"), format!("Ada{hidden}")] {
                assert!(has_hidden(&text), "{text:?}");
            }
        }
        for text in [
            "Ada Lovelace",
            "Đà Lạt",
            "می\u{200c}خواهم",
            "ශ\u{dca}\u{200d}රී",
            "👩\u{200d}🌾",
            "☂\u{fe0f}",
            "한글",
        ] {
            assert!(!has_hidden(text), "{text:?}");
        }
        assert!(has_hidden("می\u{200c}"), "a joiner joins two");
        assert!(has_hidden("م\u{200c}\u{200c}ی"), "one is enough");
    }
}

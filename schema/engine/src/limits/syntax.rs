//! What a syntax error says: what stands at its place, and nothing else of the document. A line of it may hold a password,
//! and messages end in the logs of clients and gateways. Not here: where the error is (the parser tells).

use super::{
    echo,
    lexer::{Class, Lexer},
};

/// The message of a syntax error at a line and a column, both from 1. Of strings and numbers it says only what they are;
/// after a string names too are not repeated up to the next punctuator: they may be the rest of a string that was closed
/// too early.
pub fn unexpected(document: &str, line: usize, column: usize) -> String {
    let found = found(document, offset(document, line, column));
    format!("Syntax Error: Unexpected {found}.")
}

fn found(document: &str, place: usize) -> String {
    let mut lexer = Lexer::new(document);
    let mut after_string = false;
    loop {
        lexer.skip_ignored();
        let (start, class) = (lexer.at, lexer.class());
        if lexer.peek().is_none() {
            return "end of the document".to_owned();
        }
        let mut name = "";
        let taken = match class {
            Class::Name => {
                name = lexer.take_name();
                Ok(())
            }
            Class::Digit | Class::Minus => lexer.take_number(),
            Class::Quote => lexer.take_string(),
            Class::Dot => lexer.take_spread(),
            _ => {
                lexer.at += document[start..].chars().next().map_or(1, char::len_utf8);
                Ok(())
            }
        };
        if taken.is_err() || lexer.at > place {
            return match class {
                Class::Name if after_string => "name".to_owned(),
                Class::Name => format!("name \"{}\"", echo(name)),
                Class::Digit | Class::Minus => "number".to_owned(),
                Class::Quote => "string".to_owned(),
                Class::Dot => "\"...\"".to_owned(),
                _ => format!("{:?}", document[start..].chars().next().unwrap_or_default()),
            };
        }
        after_string = match class {
            Class::Quote => true,
            Class::Name | Class::Digit | Class::Minus => after_string,
            _ => false,
        };
    }
}

/// The byte at a line and a column.
fn offset(document: &str, line: usize, column: usize) -> usize {
    let mut start = 0;
    for _ in 1..line {
        start += document[start..].find('\n').map_or(document.len() - start, |end| end + 1);
    }
    let rest = &document[start..];
    start + rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syntax_error_names_the_token_and_no_string() {
        let long = "x".repeat(100);
        for (document, line, column, wanted) in [
            ("{ me { id } } }", 1, 15, "'}'"),
            ("{ me(id: ) }", 1, 10, "')'"),
            ("query {\n  me %\n}", 2, 6, "'%'"),
            ("query {\n  a b: }", 2, 8, "'}'"),
            ("{ f(a: \"hunter2\" \"hunter3\") }", 1, 18, "string"),
            ("{ f(a: \"hun\" ter2) }", 1, 14, "name"),
            ("{ f(a: \"hun\" ter2 x) }", 1, 19, "name"),
            ("{ f(a: \"hunter2\") name name) }", 1, 24, "name \"name\""),
            ("{ f(a: 12 34) }", 1, 11, "number"),
            ("{ ö }", 1, 3, "'ö'"),
            ("{ a", 1, 4, "end of the document"),
            ("{ a", 9, 9, "end of the document"),
        ] {
            let message = unexpected(document, line, column);
            assert_eq!(message, format!("Syntax Error: Unexpected {wanted}."), "{document}");
        }
        let message = unexpected(&format!("{{ a: {long} }}"), 1, 6);
        assert_eq!(message, format!("Syntax Error: Unexpected name \"{}…\".", &long[..64]));
    }
}

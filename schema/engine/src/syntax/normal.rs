//! Documents in one spelling, to compare them: tokens with one space between, operations before fragments, each in
//! order. Nothing is understood beyond where a definition ends; what is no document stays as it is.

use super::{Lexer, TokenKind};
use crate::limits::{LimitErrorKind, Violation};

/// The document in its one spelling. Two documents that differ only in white space, commas, comments and the order of
/// their definitions have the same.
pub fn normal(document: &str) -> String {
    definitions(document).map_or_else(
        |_| document.to_owned(),
        |mut definitions| {
            definitions.sort_by(|a, b| {
                let is_fragment = |text: &str| text.starts_with("fragment ");
                (is_fragment(a), a).cmp(&(is_fragment(b), b))
            });
            definitions.concat()
        },
    )
}

fn definitions(document: &str) -> Result<Vec<String>, Violation> {
    let (mut found, mut definition, mut depth) = (Vec::new(), String::new(), 0_usize);
    let mut lexer = Lexer::new(document);
    loop {
        let token = lexer.next()?;
        match token.kind {
            TokenKind::End => break,
            TokenKind::Punctuator(b'(' | b'[' | b'{') => {
                if definition.is_empty() {
                    definition.push_str("query ");
                }
                depth += 1;
            }
            TokenKind::Punctuator(b')' | b']' | b'}') => {
                depth = depth.checked_sub(1).ok_or_else(|| unbalanced(token.start))?;
            }
            _ => {}
        }
        definition.push_str(lexer.text(token));
        definition.push(' ');
        if token.kind == TokenKind::Punctuator(b'}') && depth == 0 {
            found.push(std::mem::take(&mut definition));
        }
    }
    found.push(definition);
    Ok(found)
}

fn unbalanced(at: usize) -> Violation {
    Violation::new(LimitErrorKind::Parse, at, "Syntax Error: Unexpected bracket.".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_and_order_do_not_matter() {
        let one = "query A($x: I = {a: 1}) { f(x: $x, y: \"a b\") { ...F ...G } } fragment F on T { a } fragment G on T { b }";
        let other = "# hello\nfragment G on T{b}\nquery A($x:I={a:1}){f(x:$x y:\"a b\"){...F,...G}}fragment F on T{a}";
        assert_eq!(normal(one), normal(other));
        assert_eq!(normal("{a}"), normal("query { a }"));
    }

    #[test]
    fn everything_else_matters() {
        let documents = [
            "{ a b }",
            "{ b a }",
            "{ ab }",
            "query A { a b }",
            "{ a(x: \"1\") }",
            "{ a(x: \"1 \") }",
            "{ a(x: 1) }",
            "{ a { b } }",
            "{ a } { b }",
            "{ a",
            "}",
            "{ a(x: \"\"\"1\"\"\") }",
            "{ a @include(if: true) }",
        ];
        for (index, one) in documents.iter().enumerate() {
            for other in &documents[index + 1..] {
                assert_ne!(normal(one), normal(other));
            }
        }
    }
}

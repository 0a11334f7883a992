//! Whether more typing can cure what does not parse: asked at each Enter, without the session that would run it.

use crate::engine;
use rhai::{LexError, ParseError, ParseErrorType as Type};

/// True when `code` ends within something: a bracket, a back-tick string, a comment, an expression. Only the language is
/// asked: no verb, no variable.
pub fn is_incomplete(code: &str) -> bool {
    let engine = engine::parser();
    match engine.compile(code) {
        // Whatever follows an open comment is part of it.
        Ok(_) => engine.compile(format!("{code}\n)")).is_ok() || ends_with_parameters(code),
        Err(error) => is_curable(&error, code),
    }
}

/// `|x|` parses, and is worth nothing without its body.
fn ends_with_parameters(code: &str) -> bool {
    let Some((before, params)) = code.trim_end().strip_suffix('|').and_then(|rest| rest.rsplit_once('|')) else {
        return false;
    };
    let is_value = |c: char| c.is_alphanumeric() || "_)]}\"'`".contains(c);
    let is_param = |c: char| c.is_alphanumeric() || c == '_' || c == ',' || c == ' ';
    params.chars().all(is_param) && !before.trim_end().ends_with(is_value)
}

fn is_curable(error: &ParseError, code: &str) -> bool {
    match error.err_type() {
        Type::UnexpectedEOF => true,
        // Only back-tick strings span lines.
        Type::BadInput(LexError::UnterminatedString) => code.matches('`').count() % 2 == 1,
        Type::MissingToken(..)
        | Type::MissingSymbol(..)
        | Type::ExprExpected(..)
        | Type::VariableExpected
        | Type::PropertyExpected
        | Type::FnMissingBody(..)
        | Type::FnMissingParams(..)
        | Type::FnMissingName
        | Type::MalformedIndexExpr(..) => is_at_end(error, code.trim_end()),
        _ => false,
    }
}

fn is_at_end(error: &ParseError, code: &str) -> bool {
    let place = error.position();
    let last = code.lines().last().map_or(0, |line| line.chars().count());
    place.line().is_none_or(|line| line >= code.lines().count()) && place.position().is_none_or(|column| column > last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_more_typing_can_cure_is_incomplete_and_a_wrong_one_is_not() {
        let open = [
            "fn f() {",
            "[1, 2,",
            "#{ a: 1,",
            "let x = ",
            "f(",
            "`text",
            "if true {\n  1",
            "/* a comment",
            "x./* y",
            "list.map(|x|",
            "let f = |x|",
            "|a, b|",
            "|x| {",
            "let t = `a\n${1 + 2}\nb",
            "a +",
            "x.",
            "fn",
        ];
        for code in open {
            assert!(is_incomplete(code), "{code}");
        }
        let whole = [
            "",
            "1",
            "let x = 1;",
            "\"text",
            ")",
            "let 1 = 2",
            "fn f() { ) }",
            "[1, ;]",
            "// a comment",
            "unknown",
            "unknown(1)",
            "`a ( b`",
            "\"(\"",
            "1 | 2",
            "|| 1",
            "f(|x| x)",
            "/* a */ 1",
            "a || b",
        ];
        for code in whole {
            assert!(!is_incomplete(code), "{code}");
        }
    }
}

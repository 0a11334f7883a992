//! Colours of a line that is being typed. Only sequences without width are added: the cursor stays where it is.

use super::lex::{self, Kind, Token};
use crate::session::known::KEYWORDS;
use std::collections::HashSet;

const KEYWORD: &str = "\x1b[35m";
const VERB: &str = "\x1b[36m";
const TEXT: &str = "\x1b[32m";
const NUMBER: &str = "\x1b[33m";
const DIM: &str = "\x1b[2m";
const MATCH: &str = "\x1b[1;7m";
const PLAIN: &str = "\x1b[0m";

/// Blanks that a continued line begins with, and the mark that is shown in their place. Both are five columns wide.
pub const MARGIN: &str = "     ";
const MARK: &str = "   … ";

/// What is dim: a hint.
pub fn dim(text: &str) -> String {
    format!("{DIM}{text}{PLAIN}")
}

/// `line` in colours; `verbs` are names that can be called, `pair` the brackets that belong together. Without colours
/// only the mark of continued lines is left.
pub fn paint(line: &str, verbs: &HashSet<&str>, pair: Option<[usize; 2]>, colors: bool) -> String {
    let tokens = lex::tokens(line);
    let mut painted = String::with_capacity(line.len() * 2);
    let mut done = 0;
    for (place, token) in tokens.iter().enumerate() {
        painted.push_str(&blank(&line[done..token.from], colors));
        let called = || tokens.get(place + 1).is_some_and(|next| next.of(line) == "(");
        match tone(line, token, verbs, called).filter(|_| colors) {
            _ if colors && pair.is_some_and(|pair| pair.contains(&token.from)) => {
                painted.extend([MATCH, token.of(line), PLAIN]);
            }
            Some(tone) => painted.extend([tone, token.of(line), PLAIN]),
            None => painted.push_str(token.of(line)),
        }
        done = token.to;
    }
    painted.push_str(&blank(&line[done..], colors));
    painted
}

/// A line that is no Rhai: `logs backend`, `:use prod`, `@prod-1 df -h`. Its first word is what it does.
pub fn paint_word(line: &str) -> String {
    let from = line.len() - line.trim_start().len();
    let to = line[from..].find(char::is_whitespace).map_or(line.len(), |length| from + length);
    format!("{}{VERB}{}{PLAIN}{}", &line[..from], &line[from..to], &line[to..])
}

fn tone(line: &str, token: &Token, verbs: &HashSet<&str>, called: impl Fn() -> bool) -> Option<&'static str> {
    match token.kind {
        Kind::Word if KEYWORDS.contains(&token.of(line)) => Some(KEYWORD),
        Kind::Word if called() && verbs.contains(token.of(line)) => Some(VERB),
        Kind::Text => Some(TEXT),
        Kind::Number => Some(NUMBER),
        Kind::Comment => Some(DIM),
        _ => None,
    }
}

/// What lies between two tokens: a line that goes on has its mark where it has room for one.
fn blank(text: &str, colors: bool) -> String {
    let mark = if colors { format!("\n{DIM}{MARK}{PLAIN}") } else { format!("\n{MARK}") };
    text.replace(&format!("\n{MARGIN}"), &mark)
}

/// The bracket at or before the cursor, and the one that it belongs to.
pub fn pair(line: &str, position: usize) -> Option<[usize; 2]> {
    let tokens = lex::tokens(line);
    let is_bracket = |token: &&Token| matches!(token.kind, Kind::Open | Kind::Close);
    let mut brackets = tokens.iter().filter(is_bracket);
    let near = brackets.clone().find(|token| token.from == position).or_else(|| brackets.find(|t| t.to == position))?;
    let mut open = Vec::new();
    for token in tokens.iter().filter(is_bracket) {
        match token.kind {
            Kind::Open => open.push(token),
            _ => {
                let from = open.pop()?;
                let fits = matches!((from.of(line), token.of(line)), ("(", ")") | ("[", "]") | ("{" | "${", "}"));
                if fits && (from == near || token == near) {
                    return Some([from.from, token.from]);
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without the sequences.
    fn bare(painted: &str) -> String {
        let mut pieces = painted.split('\x1b');
        let first = pieces.next().unwrap_or("").to_string();
        pieces.fold(first, |text, piece| text + piece.split_once('m').map_or("", |(_, rest)| rest))
    }

    #[test]
    fn keywords_strings_numbers_comments_and_verbs_have_colours() {
        let verbs = HashSet::from(["stack", "restart"]);
        let painted = paint("let x = stack(\"prod\").restart(10); // now", &verbs, None, true);
        for piece in
            ["\x1b[35mlet", "\x1b[36mstack", "\x1b[32m\"prod\"", "\x1b[36mrestart", "\x1b[33m10", "\x1b[2m// now"]
        {
            assert!(painted.contains(piece), "{piece} in {painted:?}");
        }
        assert_eq!(paint_word(" @prod df 'x"), " \x1b[36m@prod\x1b[0m df 'x");
        assert!(paint("stack = 1", &verbs, None, true).starts_with("stack"), "it is not called");
    }

    #[test]
    fn colours_change_no_text() {
        for line in ["let 名前 = \"日本語\" + `a ${b(1)} c`; /* x", "((]", "  a  ", "", "x\n  y\n\n z", "'あ"] {
            assert_eq!(bare(&paint(line, &HashSet::new(), pair(line, 0), true)), line);
            assert_eq!(paint(line, &HashSet::new(), None, false), line);
            assert_eq!(bare(&paint_word(line)), line);
        }
    }

    #[test]
    fn a_line_that_goes_on_has_its_mark_unless_it_is_in_a_string() {
        assert_eq!(paint("f(\n     1\n     )", &HashSet::new(), None, false), "f(\n   … 1\n   … )");
        assert_eq!(paint("`a\n     b`", &HashSet::new(), None, false), "`a\n     b`");
    }

    #[test]
    fn brackets_are_matched_outside_of_strings() {
        assert_eq!(pair("f(\")\", [1])", 1), Some([1, 10]));
        assert_eq!(pair("f(\")\", [1])", 11), Some([1, 10]));
        assert_eq!(pair("f(\")\", [1])", 7), Some([7, 9]));
        assert_eq!(pair("`${x}`", 1), Some([1, 4]));
        for (line, position) in [("f(", 1), ("(]", 0), (")", 0), ("ab", 1), ("\"()\"", 1)] {
            assert_eq!(pair(line, position), None, "{line}");
        }
    }
}

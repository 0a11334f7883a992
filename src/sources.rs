//! The text of every script, module and line seen, so that errors can quote it.

use crate::error::Place;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Texts by the name that errors carry.
#[derive(Clone, Default)]
pub struct Sources(Rc<RefCell<HashMap<String, Rc<str>>>>);

impl Sources {
    /// Remembers a text.
    pub fn put(&self, name: &str, text: &str) {
        self.0.borrow_mut().insert(name.into(), text.into());
    }

    /// The line of `place` with its number and a mark under the column.
    pub fn excerpt(&self, place: &Place) -> Option<String> {
        let text = self.0.borrow().get(&place.file)?.clone();
        let line = text.lines().nth(place.line.checked_sub(1)?)?.trim_end().to_string();
        let number = place.line.to_string();
        let before: String = line.chars().take(place.column.saturating_sub(1)).map(blank).collect();
        let length = line.chars().skip(place.column.saturating_sub(1)).take_while(|c| is_word(*c)).count().max(1);
        let margin = " ".repeat(number.len());
        Some(format!("   {number} | {line}\n   {margin} | {before}{}", "^".repeat(length)))
    }
}

/// Keeps tabs, and gives a wide character the width it takes on the screen.
fn blank(c: char) -> &'static str {
    match c {
        '\t' => "\t",
        c if (c as u32) >= 0x1100 => "  ",
        _ => " ",
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_excerpt_marks_the_word_at_the_column() {
        let sources = Sources::default();
        sources.put("a.rhai", "let x = 1;\n  p.restart(10);\n");
        let excerpt = sources.excerpt(&Place { file: "a.rhai".into(), line: 2, column: 5 });
        assert_eq!(excerpt.as_deref(), Some("   2 |   p.restart(10);\n     |     ^^^^^^^"));
    }

    #[test]
    fn an_unknown_place_has_no_excerpt() {
        assert_eq!(Sources::default().excerpt(&Place { file: "a".into(), line: 1, column: 1 }), None);
    }
}

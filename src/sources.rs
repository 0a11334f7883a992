//! The text of every script, module and line seen, so that errors can quote it.

use crate::error::Place;
use crate::whole;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Where a text comes from. A name is for errors, and is never looked up as a path: a file may have the name of a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// It was typed, or recorded: no file.
    #[default]
    Typed,
    /// It is part of opsh.
    BuiltIn,
    /// A file.
    File {
        /// Its path, as it was named or found.
        path: PathBuf,
        /// Its owner when it was read; none when nobody asked.
        owner: Option<u32>,
    },
}

impl Origin {
    /// The file.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Origin::File { path, .. } => Some(path),
            Origin::Typed | Origin::BuiltIn => None,
        }
    }

    /// The same file by another path to it.
    pub fn at(self, other: &Path) -> Origin {
        match self {
            Origin::File { owner, .. } => Origin::File { path: other.into(), owner },
            Origin::Typed | Origin::BuiltIn => self,
        }
    }

    /// Its owner when it was read.
    pub fn owner(&self) -> Option<u32> {
        match self {
            Origin::File { owner, .. } => *owner,
            Origin::Typed | Origin::BuiltIn => None,
        }
    }
}

/// The text of a file, and where it comes from: the owner is that of what was read.
#[expect(clippy::disallowed_methods, reason = "the texts of scripts are what is run, not an effect of it")]
pub fn read(path: &Path) -> std::io::Result<(String, Origin)> {
    let file = std::fs::File::open(path)?;
    let owner = Some(file.metadata()?.uid());
    Ok((whole::text_in(file, LONGEST)?, Origin::File { path: path.into(), owner }))
}

/// Bytes of a script, a module, or what is typed.
pub const LONGEST: u64 = 16 << 20;

/// What the parser reads of the text of a file: a byte order mark, and a first line for the kernel (`#!/usr/bin/env opsh`), are
/// no Rhai. Lines and columns stay where they are.
pub fn code(text: &str) -> Cow<'_, str> {
    let rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let blank = if rest.len() < text.len() { " " } else { "" };
    match rest.strip_prefix("#!") {
        // Not `///`, which documents what follows.
        Some(rest) if rest.starts_with('/') => format!("{blank}// {}", &rest[1..]).into(),
        Some(rest) => format!("{blank}//{rest}").into(),
        None if blank.is_empty() => text.into(),
        None => format!("{blank}{rest}").into(),
    }
}

/// Texts by the name that errors carry.
#[derive(Clone, Default)]
pub struct Sources(Rc<RefCell<HashMap<String, Source>>>);

/// A text, and where it comes from.
type Source = (Rc<str>, Origin);

impl Sources {
    /// Remembers a text.
    pub fn put(&self, name: &str, text: &str, origin: Origin) {
        self.0.borrow_mut().insert(name.into(), (text.into(), origin));
    }

    /// Where the text of that name comes from.
    pub fn origin(&self, name: &str) -> Origin {
        self.0.borrow().get(name).map(|(_, origin)| origin.clone()).unwrap_or_default()
    }

    /// The line of `place` with its number and a mark under the column.
    pub fn excerpt(&self, place: &Place) -> Option<String> {
        let text = self.0.borrow().get(&place.file)?.0.clone();
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
        sources.put("a.rhai", "let x = 1;\n  p.restart(10);\n", Origin::Typed);
        let excerpt = sources.excerpt(&Place { file: "a.rhai".into(), line: 2, column: 5 });
        assert_eq!(excerpt.as_deref(), Some("   2 |   p.restart(10);\n     |     ^^^^^^^"));
    }

    #[test]
    fn a_mark_and_a_line_for_the_kernel_are_no_code_and_move_nothing() {
        for (text, seen) in [
            ("let x = 1;", "let x = 1;"),
            ("#!/usr/bin/env opsh\nx", "// usr/bin/env opsh\nx"),
            ("\u{feff}x", " x"),
            ("\u{feff}#!opsh\r\nx", " //opsh\r\nx"),
            ("\n#!late", "\n#!late"),
        ] {
            assert_eq!(code(text), seen);
            assert_eq!(code(text).chars().count(), text.chars().count());
        }
    }

    #[test]
    fn an_unknown_place_has_no_excerpt() {
        assert_eq!(Sources::default().excerpt(&Place { file: "a".into(), line: 1, column: 1 }), None);
    }
}

//! `:save`, `:load`, `:note`: what was typed becomes a script, a script is read as if it was typed, a remark is recorded.

use super::{Session, file_of, text_of, words};
use crate::error::{Error, Kind, Result};
use serde_json::{Value, json};
use std::path::Path;

impl Session {
    /// Writes a remark into the record.
    pub fn note(&self, text: &str) -> Result<()> {
        self.gate().note_before("note", json!({ "text": text }))
    }

    /// Makes a script of the lines that went well: all of them, or those of a range `FROM..TO`, which counts from 1 and
    /// holds both ends. Returns how many.
    ///
    /// Fails with `usage` for a range that has no lines and a file that is there already, and nothing is written.
    #[expect(clippy::disallowed_methods, reason = "a script is what the operator writes, not an effect of it")]
    pub fn save(&self, file: &str, range: &str) -> Result<usize> {
        let bad = |why: String| Error::new(Kind::Usage, format!("{file} was not written"), why);
        let lines = between(self.lines(), range).map_err(bad)?;
        let text = self.as_script(file, lines);
        let mut new = std::fs::OpenOptions::new();
        let made = new.write(true).create_new(true).open(file);
        made.and_then(|mut made| std::io::Write::write_all(&mut made, text.as_bytes()))
            .map_err(|error| bad(error.to_string()))?;
        Ok(lines.len())
    }

    fn as_script(&self, file: &str, lines: &[String]) -> String {
        let mut text = format!("//! Saved from a sitting at the prompt.\n//!\n//! usage: opsh {file}\n");
        if let Some(stack) = self.stack_in_use() {
            text += &format!("let p = stack({});\n\n", words::literal(stack));
        }
        for line in lines {
            let line = line.trim_end();
            // Behind a comment a semicolon would be a part of it.
            let end = if line.ends_with(';') {
                ""
            } else if line.contains("//") {
                "\n;"
            } else {
                ";"
            };
            text += &format!("{line}{end}\n");
        }
        crate::redact::clean(&text)
    }

    /// Evaluates a file as if it was typed: its variables and functions stay.
    pub fn load(&mut self, file: &str) -> Result<Value> {
        let text = text_of(&file_of(Path::new(file)))?;
        self.eval_typed(&text, &format!(":load {file}"))
    }
}

/// The lines of `1..3`, `2..` or `..4`; of no range all of them.
fn between<'a>(lines: &'a [String], range: &str) -> std::result::Result<&'a [String], String> {
    let (from, to) = range.split_once("..").unwrap_or(("", ""));
    let number = |text: &str, default: usize| match text.trim() {
        "" => Ok(default),
        text => text.parse().map_err(|_| format!("{range} is no range such as 2..5")),
    };
    let (from, to) = (number(from, 1)?, number(to, lines.len())?);
    let none = || {
        format!(
            "there are {} lines that went well, and none of {}",
            lines.len(),
            if range.is_empty() { "them" } else { range }
        )
    };
    lines.get(from.saturating_sub(1)..to).filter(|some| from > 0 && !some.is_empty()).ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_counts_from_one_and_holds_both_ends() {
        let lines: Vec<String> = ["a", "b", "c"].map(String::from).to_vec();
        for (range, some) in [("", "abc"), ("1..2", "ab"), ("2..", "bc"), ("..1", "a"), ("3..3", "c")] {
            assert_eq!(between(&lines, range).expect(range).concat(), some, "{range}");
        }
        for range in ["0..1", "3..2", "2..9", "x..", "4.."] {
            assert!(between(&lines, range).is_err(), "{range}");
        }
        assert!(between(&[], "").is_err());
    }
}

//! `:save`, `:load`, `:note`: what was typed becomes a script, a script is read as if it was typed, a remark is recorded.

use super::sitting::Line;
use super::{Session, file_of, text_of, words};
use crate::error::{Error, Kind, Result};
use crate::gate::journal::export;
use crate::whole::Part;
use rhai::Stmt;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What [`Session::save`] wrote.
pub struct Saved {
    /// How many lines the script has.
    pub lines: usize,
    /// Where the recording is, or why there is none.
    pub recording: Result<PathBuf>,
    /// Why the script cannot be run as it is: a line uses what a line set that is not among them.
    pub lacks: Option<String>,
}

impl Session {
    /// Writes a remark into the record.
    pub fn note(&self, text: &str) -> Result<()> {
        self.gate().note_before("note", json!({ "text": text }))
    }

    /// Makes a script of the lines that went well: all of them, or those of a range `FROM..TO`, which counts from 1 and
    /// holds both ends. What they were answered is put beside it, as the recording that replays it.
    ///
    /// Fails with `usage` for a range that has no lines, a file that is there already and while a script that failed waits,
    /// and nothing is written.
    pub fn save(&self, file: &str, range: &str) -> Result<Saved> {
        if self.gate().is_replay() {
            let why = "this is a replay: what it says is in its recording already, and nothing is written";
            return Err(Error::new(Kind::Usage, format!("{file} was not written"), why));
        }
        self.refuse_while_failed(":save", "opsh journal export RUN     its record, once it has ended")?;
        let bad = |why: String| Error::new(Kind::Usage, format!("{file} was not written"), why);
        let lines = between(self.lines(), range).map_err(bad)?;
        let (text, lacks) = self.as_script(file, lines);
        let script = (PathBuf::from(file), text);
        let recording = self.as_recording(lines).map(|text| (PathBuf::from(file).with_extension("jsonl"), text));
        let files: Vec<_> = std::iter::once(&script).chain(recording.as_ref().ok()).collect();
        write_new(&files).map_err(bad)?;
        Ok(Saved { lines: lines.len(), recording: recording.map(|(path, _)| path), lacks })
    }

    /// The run so far as `opsh journal export` prints it, without what other lines did: a replay compares changes, and
    /// those of a line that failed are in no script.
    fn as_recording(&self, lines: &[Line]) -> Result<String> {
        let entries = self.gate().journal()?.run(&self.gate().run_id())?;
        let mut noted = 0;
        let kept = entries.iter().filter(|entry| {
            noted += usize::from(entry.kind == "line");
            noted == 0 || lines.iter().any(|line| line.noted == noted)
        });
        Ok(export::lines(kept).iter().map(|line| format!("{line}\n")).collect())
    }

    fn as_script(&self, file: &str, lines: &[Line]) -> (String, Option<String>) {
        let mut text = format!("//! Saved from a sitting at the prompt.\n//!\n//! usage: opsh {file}\n");
        if let Some(stack) = self.stack_in_use() {
            text += &format!("let p = stack({});\n\n", words::literal(stack));
        }
        let mut lacks = None;
        for (at, line) in lines.iter().enumerate() {
            let named = is_called_it(lines, at).then(|| self.named_it(lines, at));
            if matches!(named, Some(None)) {
                lacks = Some(format!("the value of \"{}\" is called it later, and has no name", line.code.trim()));
            }
            let line = named.flatten().unwrap_or_else(|| line.code.clone());
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
        let hidden = crate::redact::holds_secret(&text)
            .then(|| "a secret, which is hidden in it: have it read the secret".into());
        let text = crate::redact::clean(&text);
        let lacks = lacks.or(hidden).or_else(|| self.engine.compile(&text).err().map(|error| error.to_string()));
        (text, lacks)
    }

    /// The line with a name for its value, when one that follows calls that `it`; none for a line that sets variables
    /// or functions itself, which a block would keep to itself.
    fn named_it(&self, lines: &[Line], at: usize) -> Option<String> {
        let code = lines[at].code.trim_end().trim_end_matches(';');
        let ast = self.engine.compile_with_scope(&self.scope, code).ok()?;
        let sets = |one: &Stmt| matches!(one, Stmt::Var(..) | Stmt::Import(..) | Stmt::Export(..));
        if ast.statements().iter().any(sets) || ast.iter_functions().any(|function| !function.name.contains('$')) {
            return None;
        }
        Some(match ast.statements() {
            [Stmt::Expr(_) | Stmt::FnCall(..)] => format!("let it = {code}"),
            _ => format!("let it = {{\n    {code}\n}}"),
        })
    }

    /// Evaluates a file as if it was typed: its variables and functions stay.
    pub fn load(&mut self, file: &str) -> Result<Value> {
        let text = text_of(&file_of(Path::new(file)))?;
        self.eval_typed(&text, &format!(":load {file}"))
    }
}

/// Writes files that are not there yet, readable by their owner only: all of them, or none.
#[expect(clippy::disallowed_methods, reason = "a script is what the operator writes, not an effect of it")]
fn write_new(files: &[&(PathBuf, String)]) -> std::result::Result<(), String> {
    let failed = |path: &Path, error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            format!("{} is there already, and no file is written over", path.display())
        }
        _ => format!("{}: {error}", path.display()),
    };
    let begun = files.iter().map(|(path, text)| {
        let part = Part::create(path, 0o600).and_then(|mut part| part.write_all(text.as_bytes()).map(|()| part));
        part.map(|part| (path.as_path(), part)).map_err(|error| failed(path, error))
    });
    let begun: Vec<(&Path, Part)> = begun.collect::<std::result::Result<_, String>>()?;
    let mut made: Vec<&Path> = Vec::new();
    let written = begun.into_iter().try_for_each(|(path, part)| {
        part.finish().map_err(|error| failed(path, error))?;
        made.push(path);
        Ok(())
    });
    if written.is_err() {
        made.iter().for_each(|path| drop(std::fs::remove_file(path)));
    }
    written
}

/// The lines of `1..3`, `2..` or `..4`; of no range all of them.
fn between<'a, T>(lines: &'a [T], range: &str) -> std::result::Result<&'a [T], String> {
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

/// True when a line that follows calls the value of this one `it`: the next that has a value is the last that can.
fn is_called_it(lines: &[Line], at: usize) -> bool {
    let after = &lines[at + 1..];
    let until = after.iter().position(|line| line.gives).map_or(after.len(), |next| next + 1);
    lines[at].gives && after[..until].iter().any(|line| mentions_it(&line.code))
}

/// True when `it` may be a variable there; a text that holds the word costs a name too many.
fn mentions_it(code: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_word_of_its_own() {
        assert!(["it", "it.code + 1", "print(`${it}`)"].into_iter().all(mentions_it));
        assert!(!["item", "with_it", "x.iter()"].into_iter().any(mentions_it));
    }

    #[test]
    fn a_range_counts_from_one_and_holds_both_ends() {
        let lines: Vec<String> = ["a", "b", "c"].map(String::from).to_vec();
        for (range, some) in [("", "abc"), ("1..2", "ab"), ("2..", "bc"), ("..1", "a"), ("3..3", "c")] {
            assert_eq!(between(&lines, range).expect(range).concat(), some, "{range}");
        }
        for range in ["0..1", "3..2", "2..9", "x..", "4.."] {
            assert!(between(&lines, range).is_err(), "{range}");
        }
        assert!(between::<String>(&[], "").is_err());
    }
}

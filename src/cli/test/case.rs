//! A case: a script or typed lines, the recording that answers them, and what they are to show.
//!
//! `recording.jsonl` is what `opsh journal export RUN` printed. `command` is a script with its arguments, as they would
//! follow `opsh`; or `typed` has lines as they are typed at the prompt. `screen` is what is to be shown, both streams and
//! the exit code; `opsh.toml` the configuration, else that which is found from the script's folder.

use super::Verdict;
use super::child::{self, Ran};
use crate::error::{Error, Kind, Result};
use crate::whole::{self, Link};
use serde_json::Value;
use similar::TextDiff;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

/// How a run ended, and how many changes it had begun.
#[derive(Default, PartialEq)]
struct End {
    outcome: String,
    kind: String,
    changes: usize,
}

impl End {
    fn of(records: impl Iterator<Item = Value>) -> End {
        let mut end = End::default();
        for record in records {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
            if record["kind"] == "effect.begin" {
                end.changes += 1;
            } else if record["kind"] == "run.end" {
                (end.outcome, end.kind) = (text(&record["body"]["outcome"]), text(&record["body"]["error"]["kind"]));
            }
        }
        end
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.kind.is_empty() { String::new() } else { format!(" ({})", self.kind) };
        write!(f, "{}{kind} after {} change(s)", self.outcome, self.changes)
    }
}

/// Bytes of a part of a case.
fn longest(part: &str) -> u64 {
    if part == "recording.jsonl" { 256 << 20 } else { 16 << 20 }
}

pub struct Case {
    /// As it was named.
    name: PathBuf,
    /// Absolute.
    dir: PathBuf,
    /// Where it runs: the nearest folder above in which the script is.
    folder: PathBuf,
    /// Of the script, with its arguments; `--typed FILE` for typed lines.
    words: Vec<String>,
}

impl Case {
    /// True for a folder that is a case.
    pub fn is_at(path: &Path) -> bool {
        path.join("recording.jsonl").is_file()
    }

    /// Fails with `usage` when it lacks a part, or one of them is not a plain file of its own: a case may be a stranger's, and
    /// what it shows must not be a file of the user's.
    pub fn read(path: &Path) -> Result<Case> {
        let cannot = |why: String| Error::new(Kind::Usage, format!("{} is no case", path.display()), why);
        let dir = std::fs::canonicalize(path).map_err(|error| cannot(error.to_string()))?;
        let part = |name: &str| whole::open(&dir.join(name), Link::Refused);
        let mut has_typed = false;
        for name in ["recording.jsonl", "opsh.toml", "screen", "typed", "command"] {
            match part(name) {
                Ok(file) if file.metadata().map_or(u64::MAX, |about| about.len()) > longest(name) => {
                    return Err(cannot(format!("{name}: it is longer than {} MiB", longest(name) >> 20)));
                }
                Ok(_) => has_typed |= name == "typed",
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(cannot(format!("{name}: {error}"))),
            }
        }
        let typed = dir.join("typed");
        if has_typed {
            let words = vec!["--typed".into(), typed.display().to_string()];
            return Ok(Case { name: path.into(), folder: dir.clone(), dir, words });
        }
        let command = whole::text(&dir.join("command"), Link::Refused, longest("command"))
            .map_err(|error| cannot(format!("it has neither typed lines nor a command: {error}")))?;
        let mut words = shlex::split(&command).unwrap_or_default();
        // As it was typed then.
        words.drain(..usize::from(words.first().is_some_and(|first| first == "opsh")));
        if words.is_empty() {
            return Err(cannot("its command is no script with arguments".into()));
        }
        let script = Path::new(&words[0]);
        let is_below = script.components().all(|part| matches!(part, Component::Normal(_)));
        if !is_below || script.extension().is_none_or(|ending| ending != "rhai") {
            return Err(cannot(format!("{} is no path of a script (*.rhai) below a folder above it", words[0])));
        }
        let folder = dir.ancestors().find(|folder| folder.join(script).is_file());
        let folder = folder.ok_or_else(|| cannot(format!("no folder above it has {}", words[0])))?.to_path_buf();
        let is_inside = std::fs::canonicalize(folder.join(script)).is_ok_and(|file| file.starts_with(&folder));
        if !is_inside || folder.join(script).is_symlink() {
            return Err(cannot(format!("{} is a symlink, or in a folder that is one", words[0])));
        }
        Ok(Case { name: path.into(), dir, folder, words })
    }

    pub fn name(&self) -> String {
        self.name.display().to_string()
    }

    /// Lines of the prompt, and no script.
    pub fn is_typed(&self) -> bool {
        self.words[0] == "--typed"
    }

    /// Runs it with a journal in `state`, and options besides.
    pub fn replay(&self, state: &Path, options: &[&str]) -> std::result::Result<Ran, String> {
        self.opsh(state, options, &self.words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Other words with its recording and configuration.
    pub fn opsh(&self, state: &Path, options: &[&str], words: &[&str]) -> std::result::Result<Ran, String> {
        let (recording, config) = (self.dir.join("recording.jsonl"), self.dir.join("opsh.toml"));
        let (recording, config) = (recording.display().to_string(), config.display().to_string());
        let mut all = vec!["--replay", &recording];
        if Path::new(&config).is_file() {
            all.extend(["--config", &config]);
        }
        all.extend(options);
        all.extend(words);
        child::opsh(&self.folder, state, &all)
    }

    /// Why the run that was replayed into `state` is not the one that was recorded: it never began, ended in another way, or
    /// did not get as far.
    fn ended_otherwise(&self, state: &Path) -> std::result::Result<Option<String>, String> {
        let recording = self.dir.join("recording.jsonl");
        let text = whole::text(&recording, Link::Refused, longest("recording.jsonl"));
        let text = text.map_err(|error| format!("{}: {error}", recording.display()))?;
        let then = End::of(text.lines().filter_map(|line| serde_json::from_str(line).ok()));
        let now = match child::records(state) {
            Ok(records) => End::of(records.into_iter()),
            Err(_) => return Ok(Some("it did not even begin".into())),
        };
        Ok((then != now).then(|| format!("it ended {now} now, and {then} when it was recorded")))
    }

    /// It shows what it is to show.
    pub fn verdict(&self, update: bool) -> Verdict {
        let path = self.dir.join("screen");
        let state = child::folder()?;
        let ran = self.replay(state.path(), &[])?;
        // No screen makes these right.
        if let Some(why) =
            ran.err.lines().find(|line| line.starts_with("error: ") && line.ends_with(" is no recording"))
        {
            return Err(format!("{}\n{}", why.trim_start_matches("error: "), ran.screen()));
        }
        if ran.err.contains("error: the replay differs from its recording") {
            return Err(format!("it does something else than it did\n{}", ran.screen()));
        }
        let shown = ran.screen();
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let wanted = match whole::text(&path, Link::Refused, longest("screen")) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            read => read.map_err(failed)?,
        };
        if shown == wanted {
            return Ok(String::new());
        }
        if update {
            if let Some(why) = self.ended_otherwise(state.path())? {
                return Err(format!("{why}; that is no other screen: record it anew\n{}", ran.screen()));
            }
            whole::replace(&path, Link::Refused, &shown, 0o644).map_err(failed)?;
            return Ok("rewritten".into());
        }
        let diff = TextDiff::from_lines(&wanted, &shown);
        let diff = diff.unified_diff().context_radius(1).header("screen", "shown now").to_string();
        Err(format!("it does not show what it is to show; opsh test --update {} rewrites it\n{diff}", self.name()))
    }
}

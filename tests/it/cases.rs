//! The cases of `tests/cases`: a script, the recording that answers it, and the screen it shows. `UPDATE=1` rewrites the
//! screens; the difference is the review.
//!
//! Each case is run once more for each of its effects, failing there: that is the sweep.

use crate::home::{OPSH, Ran};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One folder of `tests/cases`: `command`, `opsh.toml`, `recording.jsonl`, `screen`.
struct Case {
    dir: PathBuf,
    words: Vec<String>,
}

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut dirs: Vec<PathBuf> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    dirs.sort();
    let case = |dir: PathBuf| {
        let command = std::fs::read_to_string(dir.join("command")).unwrap();
        Case { words: command.split_whitespace().map(String::from).collect(), dir }
    };
    dirs.into_iter().map(case).collect()
}

impl Case {
    fn name(&self) -> String {
        self.dir.file_name().unwrap().to_string_lossy().into_owned()
    }

    /// opsh with the case's configuration, as seen from the root of the repository.
    fn command(&self, state: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(OPSH);
        command.current_dir(env!("CARGO_MANIFEST_DIR")).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", state).env("TZ", "UTC");
        command.arg("--state-dir").arg(state).arg("--config").arg(self.dir.join("opsh.toml"));
        command.args(words).stdin(Stdio::null());
        command
    }

    fn replay(&self, state: &Path, fail: Option<usize>) -> Ran {
        let recording = self.dir.join("recording.jsonl").display().to_string();
        let words = ["--replay", &recording].into_iter().chain(self.words.iter().map(String::as_str));
        let mut command = self.command(state, &words.collect::<Vec<_>>());
        if let Some(at) = fail {
            command.env("OPSH_TEST_FAIL", at.to_string());
        }
        Ran::of(command.output().unwrap())
    }

    /// `opsh undo` of a run that failed at effect `at`, against what the recording says was there until then.
    fn undo(&self, state: &Path, run: &str, at: usize) -> Ran {
        let recording = self.dir.join("recording.jsonl").display().to_string();
        let words = ["--replay", &recording, "undo", run, "--partly"];
        Ran::of(self.command(state, &words).env("OPSH_TEST_FAIL", format!("before:{at}")).output().unwrap())
    }

    /// Records of the last run in this folder's journal.
    fn records(&self, state: &Path) -> Vec<Value> {
        Ran::of(self.command(state, &["journal", "export", "last"]).output().unwrap()).exits(0).json_lines()
    }
}

/// What was shown, both streams one after the other: they are written by one thread, but a test reads two pipes.
fn screen(ran: &Ran) -> String {
    format!("exit {}\n--- stdout\n{}--- stderr\n{}", ran.code.unwrap(), ran.out, ran.err)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

#[test]
fn every_case_shows_its_screen_each_time() {
    for case in cases() {
        let runs: Vec<String> =
            (0..2).map(|_| screen(&case.replay(tempfile::tempdir().unwrap().path(), None))).collect();
        assert_eq!(runs[0], runs[1], "{} is not the same twice", case.name());
        let path = case.dir.join("screen");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &runs[0]).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(runs[0], expected, "{}: UPDATE=1 rewrites it", case.name());
    }
}

/// Effects of a run: id, kind of record, body.
fn changes(records: &[Value], kind: &str) -> Vec<Value> {
    records.iter().filter(|record| record["kind"] == kind).cloned().collect()
}

/// The effects of a run in their order: looks as they were told, changes as they were begun.
fn performed(records: &[Value]) -> Vec<Value> {
    let kinds = ["effect.read", "effect.begin"];
    records.iter().filter(|record| kinds.contains(&text(record, "kind"))).cloned().collect()
}

/// No failure of the run: a lock that cannot be given back is free as soon as its opsh is gone; a comparison that cannot be
/// made and rows that cannot be counted are said.
fn is_beside_the_work(effect: &Value) -> bool {
    let gives_the_lock_back = effect["body"]["verb"] == "lock.take" && effect["body"]["args"]["step"] == "release";
    gives_the_lock_back || ["stack.facts", "migrate.stops"].contains(&text(&effect["body"], "verb"))
}

#[test]
fn every_case_that_fails_at_an_effect_says_so_and_keeps_its_record() {
    for case in cases() {
        let whole = tempfile::tempdir().unwrap();
        case.replay(whole.path(), None);
        let performed = performed(&case.records(whole.path()));
        let total = performed.len();
        assert!(total > 0, "{} performs nothing", case.name());
        for at in (1..=total).filter(|at| !is_beside_the_work(&performed[at - 1])) {
            let state = tempfile::tempdir().unwrap();
            let place = format!("{} failing at effect {at} of {total}", case.name());
            let ran = case.replay(state.path(), Some(at));
            assert_ne!(ran.code, Some(0), "{place}: {ran:?}");
            for part in ["error: ", "  why: ", " next: "] {
                assert!(ran.err.contains(part), "{place} does not say \"{part}\":\n{}", ran.err);
            }
            let records = case.records(state.path());
            assert_eq!(text(records.last().unwrap(), "kind"), "run.end", "{place}");
            let (begun, ended) = (changes(&records, "effect.begin"), changes(&records, "effect.end"));
            assert_eq!(begun.len(), ended.len(), "{place}: every change that was begun has its end");
            for (begin, end) in begun.iter().zip(&ended) {
                assert_eq!(begin["effect"], end["effect"], "{place}");
            }
        }
    }
}

/// A change that was done, before anything was taken back.
struct Done {
    id: String,
    says: String,
    inverse: Option<String>,
}

/// What the records of a run say was done and changed something, oldest first; inverses are not counted.
fn done(records: &[Value]) -> Vec<Done> {
    let ok = |begin: &Value| {
        let end = records.iter().find(|one| one["kind"] == "effect.end" && one["effect"] == begin["effect"]);
        end.is_some_and(|end| end["body"]["outcome"] == "ok" && end["body"]["changed"] == true)
    };
    let own = records.iter().filter(|one| one["kind"] == "effect.begin" && one["body"]["undoes"].is_null());
    own.filter(|begin| ok(begin))
        .map(|begin| Done {
            id: text(begin, "effect").into(),
            says: text(&begin["body"], "says").into(),
            inverse: begin["body"]["inverse"].as_str().map(String::from),
        })
        .collect()
}

fn undone(records: &[Value]) -> Vec<String> {
    records.iter().filter(|one| one["kind"] == "effect.undone").map(|one| text(one, "effect").into()).collect()
}

#[test]
fn every_case_that_failed_at_an_effect_is_undone_newest_first_and_names_the_rest() {
    for case in cases() {
        let whole = tempfile::tempdir().unwrap();
        case.replay(whole.path(), None);
        let performed = performed(&case.records(whole.path()));
        for at in (1..=performed.len()).filter(|at| !is_beside_the_work(&performed[at - 1])) {
            let state = tempfile::tempdir().unwrap();
            let place = format!("{} failing at effect {at}", case.name());
            case.replay(state.path(), Some(at));
            let records = case.records(state.path());
            let run = text(&records[0], "run").to_string();
            // A guard may have gone back already: then undo finds less to do.
            let mut taken = undone(&records);
            let (back, stays): (Vec<Done>, Vec<Done>) =
                done(&records).into_iter().partition(|one| one.inverse.is_some());
            let undo = case.undo(state.path(), &run, at);
            assert_eq!(undo.code, Some(0), "{place}: {undo:?}");
            if back.iter().any(|one| !taken.contains(&one.id)) {
                taken.extend(undone(&case.records(state.path())));
                for one in &stays {
                    assert!(undo.err.contains(&one.says), "{place} does not name {}:\n{}", one.says, undo.err);
                }
            }
            let expected: Vec<String> = back.iter().rev().map(|one| one.id.clone()).collect();
            assert_eq!(taken, expected, "{place}: exactly the inverses, newest first\n{undo:?}");
            let again = case.undo(state.path(), &run, at).exits(0);
            assert!(again.out.contains("nothing to undo"), "{place}: {again:?}");
        }
    }
}

//! A home of its own for each test that runs the built program without a terminal, and what a run left.

use serde_json::Value;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The built program.
pub const OPSH: &str = env!("CARGO_BIN_EXE_opsh");

/// A home with nothing in it.
pub struct Home(pub tempfile::TempDir);

/// What a run left.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Home {
    pub fn new() -> Home {
        Home(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn put(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name).display().to_string()
    }

    pub fn journal(&self) -> PathBuf {
        self.path("state/opsh/journal.db")
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(OPSH);
        command.args(words).current_dir(self.0.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        command.env("HOME", self.0.path()).env("XDG_STATE_HOME", self.path("state"));
        // What an opsh leaves beside its journal is told to whoever runs the next one.
        command.env("TMPDIR", self.0.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, words: &[&str]) -> Ran {
        Ran::of(self.command(words).output().unwrap())
    }

    pub fn run_with(&self, words: &[&str], variable: &str, value: &str) -> Ran {
        Ran::of(self.command(words).env(variable, value).output().unwrap())
    }

    /// The records of the last run.
    pub fn records(&self) -> Vec<Value> {
        self.run(&["journal", "export", "last"]).exits(0).json_lines()
    }

    /// The records of the newest sitting.
    pub fn sitting(&self) -> Vec<Value> {
        let runs = self.run(&["runs", "--json"]).exits(0).json_lines();
        self.run(&["journal", "export", sitting_of(&runs)]).exits(0).json_lines()
    }

    /// The records of every run, those of the newest first.
    pub fn all_records(&self) -> Vec<Value> {
        let runs = self.run(&["runs", "1000", "--json"]).exits(0).json_lines();
        let records =
            |run: &Value| self.run(&["journal", "export", run["run"].as_str().unwrap()]).exits(0).json_lines();
        runs.iter().flat_map(records).collect()
    }

    /// The same, after looking that each run and each change has one end and that the journal verifies.
    #[track_caller]
    pub fn whole_records(&self) -> Vec<Value> {
        let records = self.all_records();
        for (begin, end, key) in [("run.start", "run.end", "run"), ("effect.begin", "effect.end", "effect")] {
            let ids = |kind: &str| {
                let of_kind = records.iter().filter(|record| record["kind"] == kind);
                let mut ids: Vec<&str> = of_kind.map(|record| record[key].as_str().unwrap()).collect();
                ids.sort_unstable();
                ids
            };
            assert_eq!(ids(begin), ids(end), "{begin} and {end}");
        }
        self.run(&["journal", "verify"]).exits(0);
        records
    }

    /// Kinds of the records of the last run, with the outcome of those that have one.
    pub fn story(&self) -> Vec<String> {
        story_of(&self.records())
    }
}

/// The newest sitting of these runs.
pub fn sitting_of(runs: &[Value]) -> &str {
    runs.iter().find(|run| run["what"] == "prompt").expect("a sitting")["run"].as_str().unwrap()
}

/// Kinds of records, with the outcome of those that have one.
pub fn story_of(records: &[Value]) -> Vec<String> {
    let outcome = |record: &Value| record["body"]["outcome"].as_str().map_or(String::new(), |word| format!(" {word}"));
    records.iter().map(|record| format!("{}{}", record["kind"].as_str().unwrap(), outcome(record))).collect()
}

impl Ran {
    pub fn of(output: Output) -> Ran {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (code, signal) = (output.status.code(), output.status.signal());
        Ran { code, signal, out: text(output.stdout), err: text(output.stderr) }
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Ran {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Every one of `words` is in standard error.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Ran {
        for word in words {
            assert!(self.err.contains(word), "not said: {word}\n{}", self.err);
        }
        self
    }

    #[track_caller]
    pub fn prints(self, text: &str) -> Ran {
        assert_eq!(self.out, text, "{}", self.err);
        self
    }

    /// Every one of `words` is in standard output.
    #[track_caller]
    pub fn shows(self, words: &[&str]) -> Ran {
        for word in words {
            assert!(self.out.contains(word), "not shown: {word}\n{}{}", self.out, self.err);
        }
        self
    }

    /// Standard output as JSON lines, without the last line of an export, which is no record.
    pub fn json_lines(&self) -> Vec<Value> {
        let lines = self.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["kind"] != "recording.end").collect()
    }
}

//! The opsh that a test is: with its own folder, its own environment, and a recording in place of the world.

use crate::gate::journal::export;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

/// What it left.
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Both streams, one after the other: they are written by one thread, but read from two pipes.
    pub fn screen(&self) -> String {
        let code = self.code.map_or("by a signal".into(), |code| code.to_string());
        format!("exit {code}\n--- stdout\n{}--- stderr\n{}", self.out, self.err)
    }
}

/// Opsh with these words in `folder`. `state` is where its journal is; it has no terminal, no PATH and no settings of
/// whoever tests.
#[expect(clippy::disallowed_methods, reason = "a test is an opsh of its own, which reaches nothing")]
pub fn opsh(folder: &Path, state: &Path, words: &[&str]) -> Result<Ran, String> {
    let program = std::env::current_exe().map_err(|error| format!("opsh does not know where it is: {error}"))?;
    let mut command = Command::new(program);
    command.current_dir(folder).env_clear().env("HOME", state).env("TZ", "UTC").env("PATH", "/nowhere");
    command.arg("--state-dir").arg(state).args(words).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("opsh could not be started: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ran { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
}

/// The records of the last run in a folder's journal.
pub fn records(state: &Path) -> Result<Vec<Value>, String> {
    let ran = opsh(state, state, &["journal", "export", "last"])?;
    if ran.code != Some(0) {
        return Err(format!("it left no record: {}", ran.err));
    }
    export::records("its record", &ran.out).map_err(|error| error.to_string())
}

/// A new folder that goes with what is returned.
pub fn folder() -> Result<tempfile::TempDir, String> {
    tempfile::tempdir().map_err(|error| format!("there is no room for its journal: {error}"))
}

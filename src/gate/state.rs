//! The state folder, where opsh keeps what lasts: the journal, known host keys, the history of the prompt. It is judged once,
//! when a session begins: what others may have put there decides nothing.

use super::journal;
use std::path::{Path, PathBuf};

/// The folder, and what is wrong with it.
#[derive(Clone, Debug)]
pub struct State {
    dir: PathBuf,
    fault: Option<String>,
}

impl State {
    /// Judges the folder. One that is not there yet is made private by who needs it.
    pub fn at(dir: PathBuf) -> State {
        let fault = journal::check_private(&dir).err().map(|error| error.to_string());
        State { dir, fault }
    }

    /// Its path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Why it is not this user's alone.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// A file in it; `None` when others may have put it there, or could read what is written to it.
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        self.fault.is_none().then(|| self.dir.join(name))
    }
}

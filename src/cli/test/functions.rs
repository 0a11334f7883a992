//! Functions of `*_test.rhai` files: each whose name begins with `test_` is a test, and fails when it throws.
//!
//! What it would reach or change is answered by `NAME_test.jsonl` beside the file when that is there, else by a recording
//! of nothing: a test that touches the world fails.

use super::Verdict;
use super::child;
use crate::error::{Error, Kind, Result};
use crate::session::{functions_of, text_of_plain};
use crate::whole::{self, Link};
use std::path::{Path, PathBuf};

pub struct Function {
    /// As it was named.
    file: PathBuf,
    name: String,
    params: usize,
}

/// Printed behind a test: `exit()` ends one well before its end.
const END: &str = "the test ended by itself\n";

/// A run in which nothing happened, and everything was agreed to: what a test tries differs from it, caught or not.
const NOTHING: &str = r#"{"kind":"run.start","run":"19700101-000000-test","body":{"mode":"apply"}}"#;

/// The tests of a file. Fails with `usage` for one that cannot be read or does not parse.
pub fn of(file: &Path, link: Link) -> Result<Vec<Function>> {
    let cannot = |why: String| Error::new(Kind::Usage, format!("{} cannot be tested", file.display()), why);
    let text = text_of_plain(file, link)?;
    let mut named = functions_of(&text).map_err(cannot)?;
    named.retain(|(name, _)| name.starts_with("test_"));
    Ok(named.into_iter().map(|(name, params)| Function { file: file.into(), name, params }).collect())
}

impl Function {
    pub fn name(&self) -> String {
        format!("{}::{}", self.file.display(), self.name)
    }

    /// It ends without an error.
    #[expect(clippy::disallowed_methods, reason = "a recording of nothing stands in place of the world")]
    pub fn verdict(&self) -> Verdict {
        if self.params > 0 {
            return Err("a test has no parameters: nothing could give them".into());
        }
        let state = child::folder()?;
        let beside = self.file.with_extension("jsonl");
        let recording = match whole::open(&beside, Link::Refused) {
            Ok(_) => absolute(&beside)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let nothing = state.path().join("nothing.jsonl");
                std::fs::write(&nothing, NOTHING).map_err(|error| error.to_string())?;
                nothing
            }
            Err(error) => return Err(format!("{}: {error}", beside.display())),
        };
        let path = absolute(&self.file)?.with_extension("").display().to_string();
        let code = format!(
            "import {} as tests; tests::{}(); print({:?})",
            serde_json::Value::from(path),
            self.name,
            END.trim_end()
        );
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let ran = child::opsh(folder, state.path(), &["--replay", &recording.display().to_string(), "-e", &code])?;
        match (ran.code, ran.out.strip_suffix(END)) {
            (Some(0), Some(_)) => Ok(String::new()),
            (Some(0), None) => Err(format!("{}it ended before its end, by exit()", ran.out)),
            _ => Err(format!("{}{}", ran.out, ran.err)),
        }
    }
}

fn absolute(path: &Path) -> std::result::Result<PathBuf, String> {
    std::fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()))
}

//! Where secrets come from: environment, files, commands, the person at the terminal.

mod program;

use crate::config::{Config, SecretRef};
use crate::error::{Error, Kind, Result};
use crate::gate::Pass;
use crate::redact::Secret;
use crate::whole::{self, Link};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Bytes that a file or a program may give for a secret.
const LONGEST: usize = 64 << 10;

/// How long a program may take for a secret. A hardware key waits for a finger.
const WITHIN: Duration = Duration::from_secs(60);

/// Values of variables that were taken out of the environment.
static TAKEN: Mutex<BTreeMap<String, Secret>> = Mutex::new(BTreeMap::new());

/// Takes each variable that opsh.toml names as a secret out of the environment of this process: no child inherits it, and
/// `/proc/PID/environ` holds it no more.
///
/// It changes the environment, so it is called at the start, before any thread could look at it meanwhile.
#[expect(clippy::disallowed_methods, reason = "a secret that the operator put into the environment")]
pub fn take_variables(config: &Config) {
    for (_, from) in config.secrets() {
        let SecretRef::Env(name) = from else { continue };
        let (Ok(value), Ok(c_name)) = (std::env::var(name), CString::new(name.as_str())) else { continue };
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), Secret::new(value));
        // SAFETY: the only other thread waits for this one and looks at no variable. `getenv` gives the text that stands in
        // the environment, which is this process's to write; it ends before its zero byte.
        unsafe {
            let value = libc::getenv(c_name.as_ptr());
            if !value.is_null() {
                std::ptr::write_bytes(value, 0, libc::strlen(value));
            }
            std::env::remove_var(name);
        }
    }
}

/// The value that `from` names; `what` says what it is for. Each look is a record with the name only.
pub async fn resolve(pass: &Pass, from: &SecretRef, what: &str) -> Result<Secret> {
    let name = from.to_string();
    pass.note("secret.read", serde_json::json!({ "what": what, "from": name }));
    let missing = |why: String| {
        let other = "password = \"env:…\", \"file:…\", \"cmd:…\" or \"prompt:\"     another source, in opsh.toml";
        Error::new(Kind::Usage, format!("no {what}"), why).next(other)
    };
    let found = match from {
        SecretRef::Env(variable) => from_env(variable).map_err(missing),
        SecretRef::File(path) => from_file(path).map_err(missing),
        SecretRef::Cmd(words) => from_program(pass, words).await.map_err(missing),
        SecretRef::Prompt => {
            let typed = pass.ask_secret(&format!("{what}:")).await;
            typed.ok_or_else(|| missing("it is asked for at a terminal: there is none, or nothing was typed".into()))
        }
    };
    found.map(|secret| secret.from_source(&name))
}

/// The value of a source that can be read without a question and without running a program; for the others, and for
/// one that cannot be read, why not. There is no record: nothing is done with it.
pub fn look(from: &SecretRef) -> Result<Secret, String> {
    match from {
        SecretRef::Env(variable) => from_env(variable),
        SecretRef::File(path) => from_file(path),
        SecretRef::Cmd(_) => Err("a program would have to run".into()),
        SecretRef::Prompt => Err("it is asked for when it is needed".into()),
    }
}

#[expect(clippy::disallowed_methods, reason = "a secret that the operator put into the environment")]
fn from_env(name: &str) -> Result<Secret, String> {
    let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
    if let Some(secret) = taken.filter(|secret| !secret.expose().is_empty()) {
        return Ok(secret);
    }
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => Ok(Secret::new(value)),
        _ => Err(format!("the environment variable {name} is not set")),
    }
}

fn from_file(path: &Path) -> Result<Secret, String> {
    use std::os::unix::fs::PermissionsExt;
    let fail = |error: std::io::Error| format!("{}: {error}", path.display());
    // What is read is what was judged, whatever gets the name meanwhile.
    let file = whole::open(path, Link::Followed).map_err(fail)?;
    let mode = file.metadata().map_err(fail)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!("{} can be read by others (mode {:o}): chmod 600 it", path.display(), mode & 0o777));
    }
    let bytes = whole::bytes(file, LONGEST as u64).map_err(fail)?;
    first_line(&bytes).map_err(|why| format!("{} {why}", path.display()))
}

async fn from_program(pass: &Pass, words: &[String]) -> Result<Secret, String> {
    let program = words.first().ok_or("cmd: names no program")?;
    let bytes = program::output(pass, words, WITHIN).await.map_err(|why| format!("{program} {why}"))?;
    first_line(&bytes).map_err(|why| format!("{program}: its output {why}"))
}

/// The secret in what a file or a program gave: its first line, without the line end. What follows a line end is not part
/// of it.
fn first_line(bytes: &[u8]) -> Result<Secret, String> {
    if bytes.len() > LONGEST {
        return Err(format!("is longer than {} KiB", LONGEST >> 10));
    }
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    let line = text.ok_or("is not text")?.lines().next().unwrap_or_default();
    if line.is_empty() { Err("has an empty first line".into()) } else { Ok(Secret::new(line)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("pw");
        std::fs::write(&path, "s3cret-value\n").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("set");
        assert!(from_file(&path).expect_err("refused").contains("chmod 600"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
        assert_eq!(from_file(&path).expect("read").expose(), "s3cret-value");
    }

    async fn of_sh(script: &str) -> Result<Secret, String> {
        from_program(&Pass::for_tests(), &["sh", "-c", script].map(String::from)).await
    }

    #[tokio::test]
    async fn a_program_gives_the_first_line_that_it_prints() {
        for script in
            ["echo value-x", "printf value-x", "printf 'value-x\\r\\nuser: me\\n'", "echo value-x; sleep 300 &"]
        {
            assert_eq!(of_sh(script).await.expect(script).expose(), "value-x", "{script}");
        }
    }

    #[tokio::test]
    async fn a_program_without_a_usable_output_is_an_error() {
        for (script, why) in [
            ("echo value-y; exit 3", "failed: exit status: 3"),
            ("echo no such item >&2; exit 1", "no such item"),
            (":", "empty first line"),
            ("echo; echo second", "empty first line"),
            ("printf 'a\\000b'", "not text"),
            ("printf '\\377'", "not text"),
            ("yes value-y", "more than 64 KiB"),
            ("yes >&2 & yes value-y", "more than 64 KiB"),
        ] {
            let said = of_sh(script).await.expect_err(script);
            assert!(said.contains(why) && !said.contains("value-y"), "{script}: {said}");
        }
        assert!(from_program(&Pass::for_tests(), &["/no/such/program".into()]).await.is_err());
    }

    #[tokio::test]
    async fn a_file_is_bounded_and_must_be_text() {
        for (bytes, why) in [(vec![b'x'; LONGEST + 1], "longer than 64 KiB"), (vec![0xff], "not text")] {
            assert!(first_line(&bytes).expect_err("refused").contains(why));
        }
    }
}

//! Where secrets come from: environment, files, commands, the person at the terminal.

use crate::config::SecretRef;
use crate::error::{Error, Kind, Result};
use crate::gate::Pass;
use crate::redact::Secret;
use std::path::Path;

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
        SecretRef::Cmd(words) => from_command(words).await.map_err(missing),
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
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => Ok(Secret::new(value)),
        _ => Err(format!("the environment variable {name} is not set")),
    }
}

#[expect(clippy::disallowed_methods, reason = "a secret that the operator put into a file")]
fn from_file(path: &Path) -> Result<Secret, String> {
    use std::os::unix::fs::PermissionsExt;
    let fail = |error: std::io::Error| format!("{}: {error}", path.display());
    let mode = std::fs::metadata(path).map_err(fail)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!("{} can be read by others (mode {:o}): chmod 600 it", path.display(), mode & 0o777));
    }
    let text = std::fs::read_to_string(path).map_err(fail)?;
    first_line(&text).ok_or_else(|| format!("{} is empty", path.display()))
}

#[expect(clippy::disallowed_methods, reason = "a secret that a local program keeps")]
async fn from_command(words: &[String]) -> Result<Secret, String> {
    let (program, args) = words.split_first().ok_or("cmd: names no program")?;
    let output = tokio::process::Command::new(program)
        .args(args)
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program} failed: {}", output.status));
    }
    first_line(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| format!("{program} printed nothing"))
}

fn first_line(text: &str) -> Option<Secret> {
    text.lines().next().filter(|line| !line.is_empty()).map(Secret::new)
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

    #[tokio::test]
    async fn a_command_that_fails_is_an_error_and_not_an_empty_password() {
        assert!(from_command(&["false".into()]).await.is_err());
        assert_eq!(from_command(&["echo".into(), "value-x".into()]).await.expect("printed").expose(), "value-x");
    }
}

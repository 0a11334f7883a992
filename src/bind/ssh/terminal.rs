//! Everything about a program that has the terminal itself: `top`, `psql`, a shell. What is typed into it and what it shows
//! pass no place where they could be recorded or redacted.

use super::failure::last_line;
use super::{Command, Link, Outcome, Reach, quote};
use crate::error::{Error, Kind, Result};
use crate::gate::Pass;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

/// What ssh exits with when it has no exit code of the program.
const SSH_SAYS: i32 = 255;
/// From here on a code tells of a signal, as a shell counts it.
const BY_SIGNAL: i32 = 129;

impl Reach {
    /// Runs words, or the login's shell where there are none, at the terminal, which the program has until it ends: keys
    /// such as Ctrl-C are its own. Dropping the future ends it, as a terminal does that is closed.
    ///
    /// Fails with `unmet` when there is no terminal, `not_found` when there is no such program. What went wrong otherwise
    /// is the outcome.
    pub async fn terminal(&self, pass: &Pass, words: &[String]) -> Result<Outcome> {
        let what =
            || format!("{} was not started on {}", words.first().map_or("the shell", String::as_str), self.name());
        if let Some(why) = words.first().and_then(|_| quote::refuse_words(words)) {
            return Err(Error::new(Kind::Usage, what(), why));
        }
        // Once it has the terminal, its exit code may be that of anything that was done in it.
        if let Some(program) = words.first()
            && let Some(outcome) = self.why_not(pass, program).await
        {
            return match outcome {
                Outcome::Exited(_) => {
                    let why = format!("there is no program \"{program}\" on {}", self.name());
                    Err(Error::new(Kind::NotFound, what(), why).host(self.name()))
                }
                other => Ok(other),
            };
        }
        let _channel = match self {
            Reach::Local => None,
            Reach::Ssh(link) => match link.permit().await {
                Ok(permit) => Some(permit),
                Err(why) => return Ok(Outcome::NotStarted(why)),
            },
        };
        if !pass.terminal().await {
            return Err(Error::new(Kind::Unmet, what(), "there is no terminal that it could have").host(self.name()));
        }
        pass.sending();
        let outcome = match self {
            Reach::Local => ended(local(words)).await.map(Outcome::Exited),
            Reach::Ssh(link) => at_link(link, words).await,
        };
        if matches!(outcome, Ok(Outcome::Exited(..BY_SIGNAL))) {
            pass.put_back();
        }
        Ok(outcome.unwrap_or_else(|error| Outcome::NotStarted(error.to_string())))
    }

    /// How looking for a program ended, when it was not found.
    async fn why_not(&self, pass: &Pass, program: &str) -> Option<Outcome> {
        let words = ["sh", "-c", "command -v -- \"$1\" >/dev/null", "sh", program].map(String::from).to_vec();
        let looked = self.run(pass, &Command { words, ..Command::default() }).await;
        (looked.outcome != Outcome::Exited(0)).then_some(looked.outcome)
    }
}

async fn ended(mut command: tokio::process::Command) -> std::io::Result<i32> {
    let status = command.kill_on_drop(true).status().await?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

fn local(words: &[String]) -> tokio::process::Command {
    let shell = || std::env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "sh".into());
    match words {
        [] => tokio::process::Command::new(shell()),
        [program, arguments @ ..] => {
            let mut command = tokio::process::Command::new(program);
            command.args(arguments);
            command
        }
    }
}

/// One more ssh at the master: it alone can make a terminal there of the one here, and tell of its size.
async fn at_link(link: &Link, words: &[String]) -> std::io::Result<Outcome> {
    let says = Said::beside(link.control());
    let mut command = tokio::process::Command::new("ssh");
    command.args(["-t", "-F", "none", "-S"]).arg(link.control()).arg("-E").arg(&says.0);
    // Without its master it would log in by itself, past everything that was agreed on for this host.
    for option in ["ControlMaster=no", "ProxyCommand=false", "BatchMode=yes", "LogLevel=ERROR"] {
        command.args(["-o", option]);
    }
    // What is shown is in the language and encoding of this terminal; the host decides whether it takes them.
    command.args(["-o", "SendEnv=LANG LC_*", "--", "host"]);
    if !words.is_empty() {
        let line = quote::armour(&format!("exec {}", quote::quote_all(words)));
        if line.len() > quote::LONGEST {
            return Ok(Outcome::NotStarted(format!("its words are longer than {} bytes", quote::LONGEST)));
        }
        command.arg(line);
    }
    let code = ended(command).await?;
    if code != SSH_SAYS {
        return Ok(Outcome::Exited(code));
    }
    if let Some(why) = link.why_lost().await {
        return Ok(Outcome::Unknown(why));
    }
    Ok(match says.text() {
        // It says so when the master gave it no session, and then nothing was sent.
        Some(why) => Outcome::NotStarted(format!("{} gave no session: {why}", link.name())),
        None => Outcome::Unknown("ssh has no exit code of it: it was left with ~. and may go on".into()),
    })
}

/// A file for what ssh says: the screen is the program's.
struct Said(PathBuf);

impl Said {
    fn beside(control: &Path) -> Said {
        Said(control.with_file_name("t"))
    }

    fn text(&self) -> Option<String> {
        let text = std::fs::read_to_string(&self.0).ok()?;
        last_line(&text).map(String::from)
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

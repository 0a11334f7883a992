//! Everything about a program that has the terminal itself: `top`, `psql`, a shell. What is typed into it and what it shows
//! pass no place where they could be recorded or redacted.

use super::{Link, Outcome, Reach, quote};
use crate::error::{Error, Kind, Result};
use crate::gate::Pass;
use std::time::Duration;
use tokio::process::Command;

/// ssh closes its channels a moment before it ends itself.
const LOSS_KNOWN_WITHIN: Duration = Duration::from_millis(500);
/// What ssh exits with for a reason of its own; a program may exit so, too.
const SSH_SAYS: i32 = 255;

impl Reach {
    /// Runs words, or the login's shell where there are none, at the terminal, which the program has until it ends: keys
    /// such as Ctrl-C are its own. Dropping the future ends it, as a terminal does that is closed.
    ///
    /// Fails with `unmet` when there is no terminal. What went wrong otherwise is the outcome.
    pub async fn terminal(&self, pass: &Pass, words: &[String]) -> Result<Outcome> {
        let mut command = match self {
            Reach::Local => local(words),
            Reach::Ssh(link) => remote(link, words),
        };
        let _channel = match self {
            Reach::Local => None,
            Reach::Ssh(link) => match link.permit().await {
                Ok(permit) => Some(permit),
                Err(why) => return Ok(Outcome::NotStarted(why)),
            },
        };
        if !pass.terminal().await {
            let what = format!("{} was not started", words.first().map_or("the shell", String::as_str));
            return Err(Error::new(Kind::Unmet, what, "there is no terminal that it could have").host(self.name()));
        }
        pass.sending();
        let status = match command.kill_on_drop(true).status().await {
            Ok(status) => status,
            Err(error) => return Ok(Outcome::NotStarted(error.to_string())),
        };
        // As a shell counts it.
        let code =
            status.code().unwrap_or_else(|| 128 + std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0));
        Ok(match self {
            Reach::Ssh(link) if code == SSH_SAYS => match link.lost_within(LOSS_KNOWN_WITHIN).await {
                Some(why) => Outcome::Unknown(link.was_lost(&why)),
                None => Outcome::Exited(code),
            },
            _ => Outcome::Exited(code),
        })
    }
}

fn local(words: &[String]) -> Command {
    let shell = || std::env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "sh".into());
    match words {
        [] => Command::new(shell()),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments);
            command
        }
    }
}

/// One more ssh at the master: it alone can make a terminal there of the one here, and tell of its size.
fn remote(link: &Link, words: &[String]) -> Command {
    let mut command = Command::new("ssh");
    command.args(["-t", "-F", "none", "-S"]).arg(link.control());
    // Without its master it would log in by itself, past everything that was agreed on for this host.
    for option in ["ControlMaster=no", "ProxyCommand=false", "BatchMode=yes", "LogLevel=ERROR"] {
        command.args(["-o", option]);
    }
    // What is shown in the language and encoding of this terminal; the host decides whether it takes them.
    command.args(["-o", "SendEnv=LANG LC_*", "--", "host"]);
    if !words.is_empty() {
        command.arg(quote::armour(&format!("exec {}", quote::quote_all(words))));
    }
    command
}

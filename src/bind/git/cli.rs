//! How git is run: the words before every command, what its complaints mean, and its exit codes.

use super::tame;
use crate::bind::host::{self, Ran, words_of};
use crate::bind::ssh::{Command, Reach, shell_word};
use crate::config::LOCAL;
use crate::error::{Error, Kind, Result};
use crate::gate::Pass;
use crate::redact;

/// Bytes of an output that are kept. More is an error: half a list would be taken for a whole one.
const KEEP: usize = 16 << 20;

/// One git repository as the work of an effect sees it.
pub struct Git {
    reach: Reach,
    /// The host's name.
    pub host: String,
    /// The folder that git is told to work in.
    pub dir: String,
}

impl Git {
    /// The repository in `dir`.
    pub fn new(reach: Reach, host: &str, dir: &str) -> Git {
        Git { reach, host: host.into(), dir: dir.into() }
    }

    /// Where it is reached.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// The words of a command of git that may run what the repository names: its filters make the files of a checkout.
    pub fn words(&self, args: &[&str]) -> Vec<String> {
        [tame::env(), self.git(args)].concat()
    }

    fn git(&self, args: &[&str]) -> Vec<String> {
        let args = ["-C", &self.dir].into_iter().chain(args.iter().copied()).map(String::from);
        tame::git().into_iter().chain(args).collect()
    }

    /// Runs words that only look: nothing that the repository names runs.
    async fn ran(&self, pass: &Pass, name: &str, words: Vec<String>, stdin: &str) -> Result<Ran> {
        let protocols = if name == "ls-remote" { tame::ASKS } else { tame::STAYS };
        let tamed = tame::tamed(&self.dir, protocols, words.clone());
        let ended = self.reach.run(pass, &Command { stdin: stdin.into(), keep: KEEP, ..words_of(tamed) }).await;
        let what = || format!("git {name} failed on {}", self.host);
        if ended.stdout.left_out() > 0 {
            let why = format!("it says more than {} MiB about {}", KEEP >> 20, self.dir);
            return Err(Error::new(Kind::Failed, what(), why).host(&self.host));
        }
        let ran = host::finished(&self.host, &words, ended)?;
        match ran.code {
            127 => Err(Error::new(Kind::NotFound, what(), "there is no git on the host")),
            tame::ANOTHERS => Err(anothers(&self.reach, pass, &self.host, &self.dir, what()).await),
            tame::NOWHERE => {
                let why = format!("{} is no git repository that can be read: {}", self.dir, complaint(&ran.err));
                Err(Error::new(Kind::NotFound, what(), why))
            }
            _ => Ok(ran),
        }
    }

    /// The output.
    pub async fn out(&self, pass: &Pass, args: &[&str]) -> Result<String> {
        self.fed(pass, args, "").await
    }

    /// The output, with something to read.
    pub async fn fed(&self, pass: &Pass, args: &[&str], stdin: &str) -> Result<String> {
        let ran = self.ran(pass, args.first().unwrap_or(&""), self.git(args), stdin).await?;
        self.judged(ran, &args.join(" "))
    }

    /// The output, or `None` for an exit code of 1, git's way to say no.
    pub async fn maybe(&self, pass: &Pass, args: &[&str]) -> Result<Option<String>> {
        let ran = self.ran(pass, args.first().unwrap_or(&""), self.git(args), "").await?;
        if ran.code == 1 { Ok(None) } else { self.judged(ran, &args.join(" ")).map(Some) }
    }

    /// The output of a POSIX sh script in which several commands of git are one trip: it gets `args`, and after them the words
    /// that git begins with. `name` says which commands they are.
    pub async fn script(&self, pass: &Pass, name: &str, script: &str, args: &[&str], stdin: &str) -> Result<String> {
        let sh = [&["sh", "-c", script, "opsh"], args].concat().into_iter().map(String::from);
        let ran = self.ran(pass, name, sh.chain(self.git(&[])).collect(), stdin).await?;
        self.judged(ran, name)
    }

    /// The output of what ended with 0.
    pub fn judged(&self, ran: Ran, args: &str) -> Result<String> {
        if ran.code == 0 {
            return Ok(ran.out);
        }
        let what = format!("git {args} failed on {}", self.host);
        let why = format!("exit code {}: {}", ran.code, complaint(&ran.err));
        Err(Error::new(Kind::Failed, what, why).exit(ran.code.into()))
    }
}

/// The error of a repository of another user. Git's own advice, `safe.directory`, would run that user's programs as the
/// account that opsh logs in as.
pub async fn anothers(reach: &Reach, pass: &Pass, host: &str, dir: &str, what: String) -> Error {
    let owner = host::look(reach, pass, host, &["stat", "-c", "%U", "--", dir]).await.unwrap_or_default();
    let owner = Some(owner.trim()).filter(|owner| !owner.is_empty()).unwrap_or("its owner");
    let why = format!("{dir} belongs to {owner}, and opsh is another user there");
    let line = match host {
        LOCAL => format!("sudo -u {} opsh     run opsh as the owner of the checkout", shell_word(owner)),
        _ => format!("ssh = \"{owner}@…\" for {host} in opsh.toml     log in as the owner of the checkout"),
    };
    Error::new(Kind::Denied, what, why).next(line)
}

/// The end of what git complained about, without the advice that it always gives.
fn complaint(said: &str) -> String {
    let advice = ["Please make sure you have the correct access rights", "and the repository exists."];
    let lines: Vec<&str> = said.lines().filter(|line| !advice.contains(line) && !line.starts_with("hint:")).collect();
    redact::last_lines(&lines.join("\n"), 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_the_reason_and_not_the_advice() {
        let said = "fatal: 'origin' does not appear to be a git repository\nfatal: Could not read from remote repository.\n\n\
                    Please make sure you have the correct access rights\nand the repository exists.\n";
        let reason =
            "fatal: 'origin' does not appear to be a git repository\nfatal: Could not read from remote repository.";
        assert_eq!(complaint(said), reason);
        assert_eq!(complaint("hint: x\n"), "");
    }
}

//! Everything about durable runs: commands whose outcome survives the connection that started them.
//!
//! On the host a run is the directory `${XDG_STATE_HOME:-$HOME/.local/state}/opsh/runs/ID`, mode 0700: `pid` (process
//! id, its start time, boot id), `out`, `err`, `rc`, and the pipe `done` that wakes up who waits. The command's words,
//! variables and stdin are never in a file: they reach it through its environment and an unlinked file.

use super::keep::{Kept, head_share};
use super::records::nonce;
use super::{Command, Finished, Outcome, Reach, scripts};
use crate::error::{Error, Kind, Result};
use crate::gate::Pass;

/// What a host knows about a durable run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Durable {
    /// No command was ever started under this id: it is safe to start it.
    Never,
    /// It is running, as the process group `pid`.
    Running {
        /// Process id on the host.
        pid: u32,
    },
    /// It ended with this status, as a shell counts it (128 + n for signal n).
    Done(i32),
    /// It was cut short, by a kill or a reboot, and left no status.
    Died,
}

/// What became of a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Started {
    /// It is running now, as the process group `pid`.
    Now {
        /// Process id on the host.
        pid: u32,
    },
    /// It was started before, and not again; this is how it stands.
    Before(Durable),
}

/// Bytes of our own scripts' output that are read; they print a few words.
const WORDS: usize = 4096;
/// More is never kept; the shells count in 64 bits.
const MOST_KEPT: usize = 1 << 40;
/// Room for the state lines that come before a run's stdout.
const PREFACE: usize = 4096;

impl Reach {
    /// Starts a command detached from the connection, under an id of the caller's choice (letters, digits, `.`, `_`,
    /// `-`; at most 100). Exactly one start of an id runs the command, whoever starts it and how often.
    ///
    /// Fails with `Usage` (what cannot be sent), `Unreachable` (it certainly does not run) or `Unknown` (the link went
    /// away: it may run, and a second start with the same id is safe).
    pub async fn durable_begin(&self, pass: &Pass, id: &str, command: &Command) -> Result<Started> {
        let failed = |kind, why: String| {
            Error::new(kind, format!("run {id} did not start on {}", self.name()), why).host(self.name())
        };
        let script = check_id(id)
            .and_then(|()| scripts::program(&command.words, command.cwd.as_deref(), &command.env))
            .and_then(|program| Ok(scripts::start(id, &nonce()?, &program)))
            .map_err(|why| failed(Kind::Usage, why))?;
        let done = self.supervise(pass, &script, &command.stdin, WORDS).await;
        match done.outcome {
            Outcome::Exited(0) => started(&done.stdout.text()).map_err(|why| failed(Kind::Unknown, why)),
            Outcome::NotStarted(why) => Err(failed(Kind::Unreachable, why)),
            Outcome::Unknown(why) => Err(failed(Kind::Unknown, why)),
            other => {
                Err(failed(Kind::Unknown, format!("the starting shell: {other:?}: {}", done.stderr.text().trim())))
            }
        }
    }

    /// Waits for a durable run to end and gives its outcome with at most `keep` bytes of each output.
    ///
    /// Dropping the future only stops the waiting. `Unknown` means that the wait was cut short or that the run left
    /// no status; `NotStarted` that there is no such run, or that its directory could not be entered.
    pub async fn durable_wait(&self, pass: &Pass, id: &str, keep: usize) -> Finished {
        if let Err(why) = check_id(id) {
            return Finished::not_started(why);
        }
        let keep = keep.min(MOST_KEPT);
        let script = scripts::wait(id, keep, head_share(keep));
        // Each half of what we keep must hold the whole of what the script sends.
        let seen = self.supervise(pass, &script, b"", 2 * (keep + PREFACE)).await;
        let unknown = |why: String| Outcome::Unknown(format!("the run {id} could not be looked at: {why}"));
        match seen.outcome {
            Outcome::Exited(0) => parse_wait(&seen, id, keep),
            Outcome::NotStarted(why) | Outcome::Unknown(why) => Finished::without_output(unknown(why)),
            _ => Finished::without_output(unknown(seen.stderr.text().trim().to_string())),
        }
    }

    /// How a durable run stands now. Fails when the host cannot be asked.
    pub async fn durable_state(&self, pass: &Pass, id: &str) -> Result<Durable> {
        self.ask(pass, id, scripts::look(id)).await
    }

    /// Sends a signal (`"TERM"`, `"KILL"`, …) to a running durable run's process group and gives how it stood before.
    ///
    /// A run ignores INT, as every detached process does. After TERM it still leaves its status, after KILL it does not.
    pub async fn durable_signal(&self, pass: &Pass, id: &str, signal: &str) -> Result<Durable> {
        if signal.is_empty() || !signal.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()) {
            let why = format!("{signal:?} is not a signal's name");
            return Err(
                Error::new(Kind::Usage, format!("run {id} was not signalled"), why).next("use \"TERM\" or \"KILL\"")
            );
        }
        self.ask(pass, id, scripts::signal(id, signal)).await
    }

    /// Removes what a durable run left on the host, and gives how it stood before. A running one is left alone.
    ///
    /// Afterwards the id counts as never started.
    pub async fn durable_forget(&self, pass: &Pass, id: &str) -> Result<Durable> {
        self.ask(pass, id, scripts::forget(id)).await
    }

    async fn ask(&self, pass: &Pass, id: &str, script: String) -> Result<Durable> {
        let failed = |kind, why: String| {
            Error::new(kind, format!("run {id} on {} could not be looked at", self.name()), why).host(self.name())
        };
        check_id(id).map_err(|why| failed(Kind::Usage, why))?;
        let seen = self.supervise(pass, &script, b"", WORDS).await;
        match seen.outcome {
            Outcome::Exited(_) => parse_state(seen.stdout.text().trim())
                .ok_or_else(|| failed(Kind::Failed, seen.stderr.text().trim().to_string())),
            Outcome::NotStarted(why) | Outcome::Unknown(why) => Err(failed(Kind::Unreachable, why)),
            Outcome::Signaled(n) => Err(failed(Kind::Failed, format!("the asking shell was killed by signal {n}"))),
        }
    }
}

impl Finished {
    fn without_output(outcome: Outcome) -> Finished {
        Finished { outcome, stdout: Kept::default(), stderr: Kept::default() }
    }
}

fn check_id(id: &str) -> Result<(), String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if id.is_empty() || id.len() > 100 || id.starts_with(['.', '-']) || !id.bytes().all(allowed) {
        return Err(format!(
            "{id:?} is not an id of a run: letters, digits, . _ -, at most 100, first a letter or digit"
        ));
    }
    Ok(())
}

fn started(text: &str) -> Result<Started, String> {
    let text = text.trim();
    if let Some(pid) = text.strip_prefix("new ").and_then(|pid| pid.parse().ok()) {
        return Ok(Started::Now { pid });
    }
    parse_state(text).map(Started::Before).ok_or_else(|| format!("the starting shell said {text:?}"))
}

fn parse_state(text: &str) -> Option<Durable> {
    match text.split_once(' ').unwrap_or((text, "")) {
        ("never", "") => Some(Durable::Never),
        ("died", "") => Some(Durable::Died),
        ("running", pid) => pid.parse().ok().map(|pid| Durable::Running { pid }),
        ("rc", status) => status.parse().ok().map(Durable::Done),
        _ => None,
    }
}

/// Reads `state`, two lines of `SIZE SHA256`, a refusal or an empty line, and then the run's stdout.
fn parse_wait(seen: &Finished, id: &str, keep: usize) -> Finished {
    let bytes = [seen.stdout.head.as_slice(), &seen.stdout.tail].concat();
    let mut parts = bytes.splitn(5, |b| *b == b'\n');
    let mut line = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let (state, out, err, refusal) = (line(), line(), line(), line());
    let stdout = parts.next().unwrap_or_default().to_vec();
    let stderr = [seen.stderr.head.as_slice(), &seen.stderr.tail].concat();
    let outcome = match parse_state(&state) {
        Some(Durable::Done(_)) if !refusal.is_empty() => Outcome::NotStarted(refusal),
        Some(Durable::Done(status)) => Outcome::of_status(status),
        Some(Durable::Never) => Outcome::NotStarted(format!("there is no run {id} on the host")),
        Some(Durable::Died) => Outcome::Unknown(format!("the run {id} was cut short, by a kill or a reboot")),
        _ => Outcome::Unknown(format!("the waiting shell said {state:?}")),
    };
    Finished { outcome, stdout: cut(stdout, &out, keep), stderr: cut(stderr, &err, keep) }
}

fn cut(bytes: Vec<u8>, line: &str, keep: usize) -> Kept {
    let (total, digest) = line.split_once(' ').unwrap_or((line, "-"));
    let total = total.parse().unwrap_or(bytes.len() as u64);
    Kept::cut(bytes, total, keep, if digest == "-" { String::new() } else { digest.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_that_the_script_prints_is_read() {
        assert_eq!(parse_state("never"), Some(Durable::Never));
        assert_eq!(parse_state("running 12"), Some(Durable::Running { pid: 12 }));
        assert_eq!(parse_state("rc 137"), Some(Durable::Done(137)));
        assert_eq!(parse_state("died"), Some(Durable::Died));
        assert_eq!(parse_state("rc "), None);
        assert_eq!(started("new 7"), Ok(Started::Now { pid: 7 }));
        assert_eq!(started("rc 0"), Ok(Started::Before(Durable::Done(0))));
    }

    #[test]
    fn an_id_that_could_leave_the_directory_is_refused() {
        for id in ["", "..", ".x", "-x", "a/b", "a b", "a\n", &"x".repeat(101)] {
            assert!(check_id(id).is_err(), "{id:?}");
        }
        assert_eq!(check_id("20260102-1203.4_a"), Ok(()));
    }
}

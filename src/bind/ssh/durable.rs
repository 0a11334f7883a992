//! Everything about durable runs: commands whose outcome survives the connection that started them.
//!
//! On the host a run is the directory `${XDG_STATE_HOME:-$HOME/.local/state}/opsh/runs/ID`, mode 0700: `pid` (process
//! id, its start time, boot id), `about` (what it is, in words), `out` and `err` with the segments `out.OFFSET` and
//! `err.OFFSET` of long outputs, `rc`, and the pipe `done` that wakes up who waits. The command's words, variables and
//! stdin are never in a file: they reach it through its environment and an unlinked file.

use super::keep::{Kept, head_share};
use super::records::nonce;
use super::scripts::{self, Watch};
use super::{Command, Finished, Outcome, Reach};
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

/// A run in the list of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The id that it was started under.
    pub id: String,
    /// How it stands.
    pub state: Durable,
    /// What its starter said about it, one line; empty when nothing was said.
    pub about: String,
    /// Seconds since its start, by the host's clock.
    pub age_s: u64,
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
/// Half from the beginning and half from the end: more is not on the host.
const MOST_KEPT: usize = 2 * scripts::KEPT_THERE;
/// Bytes of the list of runs, about 500 bytes each.
const LIST_KEPT: usize = 4 << 20;
/// Bytes of what a starter says about a run.
const LONGEST_ABOUT: usize = 4096;
/// Room for the state lines that come before a run's stdout.
const PREFACE: usize = 4096;

impl Reach {
    /// Starts a command detached from the connection, under an id of the caller's choice (letters, digits, `.`, `_`,
    /// `-`; at most 100). Exactly one start of an id runs the command, whoever starts it and how often. `about` is for
    /// whoever lists the runs of the host: at most 4096 bytes, a newline counts as a space, never a secret.
    ///
    /// The host keeps 8 MiB of the beginning and 8 to 32 MiB of the end of each output, for seven days after the end.
    ///
    /// When the pass says under which lock it is made, its shell keeps others from that lock until the command has ended.
    ///
    /// Fails with `Usage` (what cannot be sent), `Unmet` (somebody else has the lock), `Unreachable` (it certainly
    /// does not run) or `Unknown` (the link went away: it may run, and a second start with the same id is safe).
    pub async fn durable_begin(&self, pass: &Pass, id: &str, command: &Command, about: &str) -> Result<Started> {
        let failed = |kind, why: String| {
            let started = if kind == Kind::Unknown { "may or may not have started" } else { "did not start" };
            Error::new(kind, format!("run {id} {started} on {}", self.name()), why).host(self.name())
        };
        let script = check_id(id)
            .and_then(|()| check_about(about))
            .and_then(|()| scripts::program(&command.words, command.cwd.as_deref(), &command.env))
            .and_then(|program| Ok(scripts::start(id, &nonce()?, &program, &about.replace('\n', " "), pass.hold())))
            .map_err(|why| failed(Kind::Usage, why))?;
        let done = self.supervise(&pass.beginning(), &script, &command.stdin, WORDS).await;
        match done.outcome {
            Outcome::Exited(0) => started(&done.stdout.text()).map_err(|why| failed(Kind::Unknown, why)),
            Outcome::NotStarted(why) if why == scripts::TAKEN_OVER || why.starts_with(scripts::UNUSABLE) => {
                Err(failed(Kind::Unmet, why))
            }
            Outcome::NotStarted(why) => Err(failed(Kind::Unreachable, why)),
            Outcome::Unknown(why) => Err(failed(Kind::Unknown, why)),
            other => {
                Err(failed(Kind::Unknown, format!("the starting shell: {other:?}: {}", done.stderr.text().trim())))
            }
        }
    }

    /// Waits for a durable run to end and gives its outcome with at most `keep` bytes of each output, at most 16 MiB.
    ///
    /// What the run writes goes to `pass.output` as it comes, within about 0.3 s: from the beginning when this pass
    /// began it, else from the last 64 KiB on. The run never waits for who watches: what the host dropped meanwhile is
    /// left out, and a line says how much. The length is exact, unless the host's disk was full (then to 64 KiB); the
    /// digest is there unless the host dropped something.
    ///
    /// Dropping the future only stops the waiting. `Unknown` means that the wait was cut short or that the run left
    /// no status; `NotStarted` that there is no such run, or that its directory could not be entered.
    pub async fn durable_wait(&self, pass: &Pass, id: &str, keep: usize) -> Finished {
        let watch = match pass.is_watched() {
            true if pass.effect() == id => Watch::FromStart,
            true => Watch::FromLate,
            false => Watch::Silently,
        };
        if let Err(why) = check_id(id) {
            return Finished::not_started(why);
        }
        let unknown = |why| Outcome::Unknown(format!("the run {id} could not be looked at: {why}"));
        match self.result(pass, id, keep, watch).await {
            Ok((_, finished)) => finished,
            Err(why) => Finished::without_output(unknown(why)),
        }
    }

    /// The result of a durable run, as [`Reach::durable_wait`] gives it, or `None` while it is running. Fails with
    /// `Unreachable` when the host cannot be asked.
    pub async fn durable_result(&self, pass: &Pass, id: &str, keep: usize) -> Result<Option<Finished>> {
        check_id(id).map_err(|why| self.not_looked_at(Kind::Usage, id, why))?;
        let seen = self.result(pass, id, keep, Watch::Now).await;
        let (state, finished) = seen.map_err(|why| self.not_looked_at(Kind::Unreachable, id, why))?;
        Ok((!matches!(state, Durable::Running { .. })).then_some(finished))
    }

    async fn result(&self, pass: &Pass, id: &str, keep: usize, watch: Watch) -> Result<(Durable, Finished), String> {
        let keep = keep.min(MOST_KEPT);
        let script = scripts::wait(id, keep, head_share(keep), watch);
        let shows = matches!(watch, Watch::FromStart | Watch::FromLate);
        // Each half of what we keep must hold the whole of what the script sends.
        let seen = self.follow(pass, &script, b"", 2 * (keep + PREFACE), shows).await;
        match seen.outcome {
            Outcome::Exited(0) => parse_wait(&seen, id, keep),
            Outcome::NotStarted(why) | Outcome::Unknown(why) => Err(why),
            Outcome::Exited(_) => Err(seen.stderr.text().trim().to_string()),
        }
    }

    /// All durable runs of this account on the host, running or not. Fails when the host cannot be asked.
    pub async fn durable_list(&self, pass: &Pass) -> Result<Vec<Listed>> {
        let seen = self.supervise(pass, &scripts::list(), b"", LIST_KEPT).await;
        let failed = |kind, why: String| {
            let what = format!("the runs on {} could not be listed", self.name());
            Err(Error::new(kind, what, why).host(self.name()))
        };
        match seen.outcome {
            Outcome::Exited(0) => Ok(seen.stdout.text().lines().filter_map(listed).collect()),
            Outcome::Exited(_) => failed(Kind::Failed, seen.stderr.text().trim().to_string()),
            Outcome::NotStarted(why) | Outcome::Unknown(why) => failed(Kind::Unreachable, why),
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
        check_id(id).map_err(|why| self.not_looked_at(Kind::Usage, id, why))?;
        let seen = self.supervise(pass, &script, b"", WORDS).await;
        match seen.outcome {
            Outcome::Exited(_) => parse_state(seen.stdout.text().trim())
                .ok_or_else(|| self.not_looked_at(Kind::Failed, id, seen.stderr.text().trim().to_string())),
            Outcome::NotStarted(why) | Outcome::Unknown(why) => Err(self.not_looked_at(Kind::Unreachable, id, why)),
        }
    }

    fn not_looked_at(&self, kind: Kind, id: &str, why: String) -> Error {
        Error::new(kind, format!("run {id} on {} could not be looked at", self.name()), why).host(self.name())
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

fn check_about(about: &str) -> Result<(), String> {
    match about.len() {
        0..=LONGEST_ABOUT if !about.contains('\0') => Ok(()),
        length => Err(format!("what is said about it has {length} bytes, of at most {LONGEST_ABOUT}, or a NUL byte")),
    }
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

fn listed(line: &str) -> Option<Listed> {
    let mut parts = line.splitn(4, '\t');
    let (id, state) = (parts.next()?.to_string(), parse_state(parts.next()?)?);
    let age_s = parts.next()?.parse().unwrap_or(0);
    Some(Listed { id, state, about: parts.next()?.to_string(), age_s })
}

/// Reads `state`, two lines of `SIZE SHA256`, a refusal or an empty line, and then the run's stdout.
fn parse_wait(seen: &Finished, id: &str, keep: usize) -> Result<(Durable, Finished), String> {
    let bytes = [seen.stdout.head.as_slice(), &seen.stdout.tail].concat();
    let mut parts = bytes.splitn(5, |b| *b == b'\n');
    let mut line = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let (state, out, err, refusal) = (line(), line(), line(), line());
    let stdout = parts.next().unwrap_or_default().to_vec();
    let stderr = [seen.stderr.head.as_slice(), &seen.stderr.tail].concat();
    let state = parse_state(&state).ok_or_else(|| format!("the waiting shell said {state:?}"))?;
    let outcome = match state {
        Durable::Done(_) if !refusal.is_empty() => Outcome::NotStarted(refusal),
        Durable::Done(status) => Outcome::Exited(status),
        Durable::Never => Outcome::NotStarted(format!("there is no run {id} on the host")),
        Durable::Died => Outcome::Unknown(format!("the run {id} was cut short, by a kill or a reboot")),
        Durable::Running { .. } => Outcome::Unknown(format!("the run {id} is still running")),
    };
    Ok((state, Finished { outcome, stdout: cut(stdout, &out, keep), stderr: cut(stderr, &err, keep) }))
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
        let entry = Listed { id: "a".into(), state: Durable::Done(1), about: "{\t}".into(), age_s: 7 };
        assert_eq!(listed("a\trc 1\t7\t{\t}"), Some(entry));
        assert_eq!(listed("a\trc 1\t7"), None);
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

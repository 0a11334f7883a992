//! The output of a local program that keeps a secret: bounded in time and length, and ended as a whole.

use super::LONGEST;
use crate::bind::ssh::own_session;
use crate::gate::Pass;
use crate::redact::{self, Secret};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};

/// How long it may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);
/// How long a child that it left behind may hold its output open.
const LATE: Duration = Duration::from_secs(1);
/// How long it may say nothing more before what it wrote to standard error is shown while it runs.
const SILENT: Duration = Duration::from_secs(1);
/// Bytes of its standard error that are shown.
const MOST_SAID: usize = 8 << 10;

/// Standard output of the program, printed within this time. The program has no terminal and no input; its standard
/// error is shown when it waits or has ended. Fails with the second half of a sentence.
#[expect(clippy::disallowed_methods, reason = "a secret that a local program keeps")]
pub async fn output(pass: &Pass, words: &[String], within: Duration) -> Result<Vec<u8>, String> {
    let mut command = tokio::process::Command::new(words.first().map_or("", String::as_str));
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // SAFETY: setsid is async-signal-safe and touches no memory.
    unsafe { command.pre_exec(own_session) };
    let mut child = command.spawn().map_err(|error| format!("cannot be started: {error}"))?;
    let group = Group(child.id());
    let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("has no output".into());
    };
    let (mut out, mut said) = (Vec::new(), Said::default());
    let ended = tokio::time::timeout(within, async {
        let mut outputs = std::pin::pin!(async {
            let says = said.listen(pass, &mut stderr);
            let prints = collect(&mut stdout, &mut out);
            tokio::try_join!(prints, says).map(|_| ())
        });
        tokio::select! {
            read = &mut outputs => {
                read?;
                child.wait().await.map_err(|error| error.to_string())
            }
            status = child.wait() => {
                // A program that it left in the background may hold the outputs open for ever.
                if let Ok(read) = tokio::time::timeout(LATE, outputs).await {
                    read?;
                }
                status.map_err(|error| error.to_string())
            }
        }
    })
    .await;
    let ended = ended.unwrap_or_else(|_| Err(format!("did not end within {} s", within.as_secs())));
    group.end(&mut child).await;
    // Known from here on, also when the program fails and its error is shown.
    String::from_utf8_lossy(&out).lines().take(1).for_each(|line| drop(Secret::new(line)));
    said.show(pass).await;
    let status = ended?;
    if !status.success() {
        let said = String::from_utf8_lossy(&said.bytes);
        let said = said.trim();
        return Err(format!("failed: {status}{}", if said.is_empty() { String::new() } else { format!(": {said}") }));
    }
    Ok(out)
}

/// Reads all of an output that is short enough.
async fn collect(from: &mut (impl AsyncRead + Unpin), into: &mut Vec<u8>) -> Result<(), String> {
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        into.extend_from_slice(&piece[..length]);
        if into.len() > LONGEST {
            return Err(format!("printed more than {} KiB", LONGEST >> 10));
        }
    }
    Ok(())
}

/// What the program wrote to its standard error.
#[derive(Default)]
struct Said {
    bytes: Vec<u8>,
    /// So many of them were shown.
    told: usize,
}

impl Said {
    /// Takes the beginning of an output and reads the rest. It is shown only when the program then waits, as one does that
    /// asks a person for something: until the program has ended, opsh does not know the value that it may repeat here.
    async fn listen(&mut self, pass: &Pass, from: &mut (impl AsyncRead + Unpin)) -> Result<(), String> {
        let mut piece = [0; 4096];
        loop {
            let patience = if self.told < self.bytes.len() { SILENT } else { Duration::MAX };
            let length = match tokio::time::timeout(patience, from.read(&mut piece)).await {
                Ok(Ok(length @ 1..)) => length,
                Ok(_) => return Ok(()),
                Err(_) => {
                    self.show(pass).await;
                    continue;
                }
            };
            let room = MOST_SAID.saturating_sub(self.bytes.len()).min(length);
            self.bytes.extend_from_slice(&piece[..room]);
            if 0 < room && room < length {
                redact::whole_lines(&mut self.bytes, &mut Vec::new());
                // Nothing more is taken.
                self.bytes.resize(MOST_SAID, b'\n');
            }
        }
    }

    async fn show(&mut self, pass: &Pass) {
        pass.output(&self.bytes[self.told..]).await;
        self.told = self.bytes.len();
    }
}

/// The program and what it started; ended when this is dropped.
struct Group(Option<u32>);

impl Group {
    /// Ends it: SIGTERM, then SIGKILL.
    async fn end(self, child: &mut tokio::process::Child) {
        self.signal(libc::SIGTERM);
        // At once for a program that has ended.
        let _ = tokio::time::timeout(GRACE, child.wait()).await;
    }

    fn signal(&self, signal: i32) {
        if let Some(group) = self.0.and_then(|id| i32::try_from(id).ok()) {
            // SAFETY: a system call without pointers; the group was made by `own_session`.
            unsafe { libc::kill(-group, signal) };
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(libc::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_hangs_is_ended_with_its_children() {
        let dir = tempfile::tempdir().expect("a folder");
        let pids = dir.path().join("pids");
        let script = format!("trap '' TERM; sleep 600 & echo $$ $! >{}; wait; sleep 600", pids.display());
        let words = ["sh", "-c", &script].map(String::from);
        let within = Duration::from_millis(500);
        let why = output(&Pass::for_tests(), &words, within).await.expect_err("it hangs");
        assert!(why.contains("did not end within"), "{why}");
        let text = std::fs::read_to_string(&pids).expect("it ran");
        for pid in text.split_whitespace().map(|pid| pid.parse::<i32>().expect("a number")) {
            let mut looks = 0..600;
            let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            while !(stat().is_empty() || stat().contains(") Z ")) {
                looks.next().expect("it is gone");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

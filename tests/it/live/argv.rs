//! No secret stands in an argv, here or on the server: every exec of a whole rollback is looked at, and the look is
//! proved on a leak.

use super::lab::{Lab, answers, poll};
use super::opsh::{OPSH, Opsh, ROLLBACK, leaks};
use super::rollback::{AGREED, assert_serves};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const STRACE: [&str; 9] = ["strace", "-f", "-qq", "-e", "trace=execve,execveat", "-e", "signal=none", "-s", "65536"];

/// Every exec on the server from now on: sshd, the Docker Engine, and what they start.
struct Watch {
    strace: Child,
    file: PathBuf,
}

impl Watch {
    fn server(lab: &Lab, file: PathBuf) -> Option<Watch> {
        let init = Command::new("docker").args(["inspect", "-f", "{{.State.Pid}}", lab.name()]).output().unwrap();
        let init: u32 = String::from_utf8(init.stdout).unwrap().trim().parse().unwrap();
        let starters = ["sshd", "dockerd", "containerd", "containerd-shim", "runc", "start"];
        let pids = descendants(init).into_iter().filter(|pid| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            starters.iter().any(|starter| name.starts_with(starter))
        });
        let pids: Vec<String> = pids.map(|pid| pid.to_string()).collect();
        let mut command = Command::new(STRACE[0]);
        command.args(&STRACE[1..]).arg("-o").arg(&file);
        command.args(pids.iter().flat_map(|pid| ["-p", pid]));
        let mut strace = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let traced = |pid: &String| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
            // One that is gone meanwhile cannot start anything.
            status.is_err() || status.is_ok_and(|text| !text.contains("TracerPid:\t0\n"))
        };
        let mut refused = false;
        poll("strace is attached", 20, || {
            refused = strace.try_wait().unwrap().is_some();
            refused || pids.iter().all(traced)
        });
        (!refused).then_some(Watch { strace, file })
    }

    /// What was seen.
    fn end(mut self) -> Vec<u8> {
        // SAFETY: a signal to our own child, which has not been waited for.
        unsafe { libc::kill(self.strace.id() as i32, libc::SIGINT) };
        // It writes what it has and lets go of everything; now and then it then waits for ever for a child of theirs.
        let end = Instant::now() + Duration::from_secs(5);
        while self.strace.try_wait().unwrap().is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        let file = self.file.clone();
        drop(self);
        std::fs::read(file).unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

fn descendants(root: u32) -> BTreeSet<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let below =
        |pid: &u32| std::iter::successors(Some(*pid), |pid| parent(*pid).filter(|pid| *pid > 1)).any(|pid| pid == root);
    pids.filter(below).collect()
}

fn tracing() -> bool {
    let works = answers("strace", &["-qq", "-o", "/dev/null", "true"]);
    if !works {
        crate::skip::skip("strace is not there, or may not trace");
    }
    works
}

#[test]
fn no_secret_stands_in_an_argv_here_or_on_the_server() {
    let Some(lab) = Lab::take() else { return };
    if !tracing() {
        return;
    }
    lab.bring("BAD");
    let (good, opsh) = (lab.release("GOOD"), Opsh::new(&lab));
    let before = lab.state();
    let traces = tempfile::tempdir().unwrap();
    let Some(watch) = Watch::server(&lab, traces.path().join("there")) else {
        return crate::skip::skip("strace may not attach to the server's processes");
    };
    let here = traces.path().join("here").display().to_string();
    let program = [&STRACE[..], &["-o", &here, OPSH]].concat();
    opsh.start_with(&program, &[&AGREED[..], &[ROLLBACK, &good.tag]].concat(), &[]).wait().exits(0);
    let there = watch.end();
    let here = std::fs::read(Path::new(&here)).unwrap();
    assert_serves(&lab, &good, &before);

    // What must have been seen, or the look was not a look.
    let saw = |bytes: &[u8], word: &str| bytes.windows(word.len()).any(|window| window == word.as_bytes());
    for (bytes, word) in [(&here, "\"ssh\""), (&here, "/opsh\""), (&there, "docker-compose"), (&there, "-action=down")]
    {
        assert!(saw(bytes, word), "no exec with {word} was seen");
    }
    assert!(leaks(&here, lab.secrets()).is_empty(), "{:?} here", leaks(&here, lab.secrets()));
    assert!(leaks(&there, lab.secrets()).is_empty(), "{:?} on the server", leaks(&there, lab.secrets()));
}

#[test]
fn a_script_that_puts_a_secret_into_an_argv_is_caught_by_the_same_look() {
    let Some(lab) = Lab::take() else { return };
    if !tracing() {
        return;
    }
    let (opsh, traces) = (Opsh::new(&lab), tempfile::tempdir().unwrap());
    let script = traces.path().join("leak.rhai");
    let text = format!("host(\"prod-1\").run([\"echo\", \"{}\"]);", lab.secret("password"));
    std::fs::write(&script, text).unwrap();
    let Some(watch) = Watch::server(&lab, traces.path().join("there")) else {
        return crate::skip::skip("strace may not attach to the server's processes");
    };
    let ran = opsh.run(&["--yes", script.to_str().unwrap()]).exits(0);
    assert!(ran.err.contains("echo •••"), "the screen hid it all the same:\n{}", ran.err);
    assert_eq!(leaks(&watch.end(), lab.secrets()), ["password"]);
}

//! The processes of this machine, as /proc shows them.

use crate::terminal::DEADLINE;
use std::time::{Duration, Instant};

/// One of them.
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub words: Vec<String>,
}

/// All that run now.
pub fn all() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// One that ended while it was looked at is none.
fn process(pid: i32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    Some(Process { pid, parent, words: words.map(|word| String::from_utf8_lossy(word).into_owned()).collect() })
}

/// Ids of what runs with exactly these words.
pub fn running(words: &[&str]) -> Vec<i32> {
    all().into_iter().filter(|process| process.words == words).map(|process| process.pid).collect()
}

/// Everything below a process, parents first.
pub fn below(pid: i32) -> Vec<Process> {
    let (mut rest, mut found) = (all(), Vec::new());
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        let (children, others): (Vec<Process>, _) = rest.into_iter().partition(|process| process.parent == parent);
        parents.extend(children.iter().map(|child| child.pid));
        found.extend(children);
        rest = others;
    }
    found
}

/// Sends a signal; a negative `pid` is a group.
pub fn signal(pid: i32, signal: i32) {
    // SAFETY: a system call without pointers.
    unsafe { libc::kill(pid, signal) };
}

/// Waits until something is there.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

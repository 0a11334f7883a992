//! Ending a command in a container that was given up. The Engine has no call for that: its host ends the process.

use super::engine::Engine;
use super::model::{number, truth};
use crate::bind::ssh::{Command, Outcome};
use crate::gate::Remains;
use std::time::Duration;

/// Ends process $1, and its process group when it leads one, if the process is in container $2. A process that begins later
/// under the same number is another one. The kill of busybox knows no `--`. Prints `gone`, `elsewhere`, or `stays` and the process's number in the container.
const END: &str = r#"opsh_p=$1 opsh_c=$2
opsh_born() { opsh_s=$(cat "/proc/$opsh_p/stat" 2>/dev/null) && opsh_s=${opsh_s##*) } && set -- $opsh_s && echo "$3 ${20}"; }
opsh_gone() { [ "$(opsh_born)" != "$opsh_b" ]; }
opsh_b=$(opsh_born) || { echo gone; exit 0; }
grep -qF "$opsh_c" "/proc/$opsh_p/cgroup" 2>/dev/null || { echo elsewhere; exit 0; }
case $opsh_b in "$opsh_p "*) opsh_t=-$opsh_p ;; *) opsh_t=$opsh_p ;; esac
for opsh_k in INT TERM KILL; do
  opsh_gone && { echo gone; exit 0; }
  kill -"$opsh_k" "$opsh_t" 2>/dev/null || break
  for opsh_i in 1 2 3 4 5 6 7 8 9 10; do
    opsh_gone && { echo gone; exit 0; }
    sleep 0.1 2>/dev/null || sleep 1
  done
done
opsh_gone && { echo gone; exit 0; }
while read -r opsh_n opsh_v; do case $opsh_n in NSpid:) set -- $opsh_v; shift $(($# - 1)); echo "stays $1"; exit 0 ;; esac; done \
  <"/proc/$opsh_p/status"
echo stays"#;

/// How often the Engine is asked for a command that it was told to start and has not started yet.
const NOT_YET: usize = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// A command that may run in a container. Dropped before it has ended, it is ended there.
pub(super) struct Begun(Option<Process>);

struct Process {
    engine: Engine,
    exec: String,
    container: String,
    program: String,
}

impl Begun {
    pub(super) fn new(engine: &Engine, exec: &str, container: &str, program: &str) -> Begun {
        let (engine, exec) = (engine.clone(), exec.to_owned());
        Begun(Some(Process { engine, exec, container: container.to_owned(), program: program.to_owned() }))
    }

    /// Nothing is left to end.
    pub(super) fn has_ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(process) = self.0.take() {
            let engine = process.engine.clone();
            engine.clear(process.otherwise(), async move { process.end().await });
        }
    }
}

impl Process {
    /// The error's words when neither the Engine nor its host answered whether the command still runs.
    fn otherwise(&self) -> Remains {
        let (container, host) = (short(&self.container), self.engine.host());
        Remains {
            why: format!("{} may still run in container {container} on {host}", self.program),
            next: format!("docker top {container}     on {host}, shows whether it runs"),
        }
    }

    async fn end(&self) -> Option<Remains> {
        let mut pid = 0;
        for _ in 0..NOT_YET {
            let Ok(seen) = self.engine.exec_seen(&self.exec).await else { return Some(self.otherwise()) };
            pid = number(&seen, "/Pid");
            if !truth(&seen, "/Running") && (pid > 0 || !seen["ExitCode"].is_null()) {
                return None;
            }
            if pid > 0 {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        // It was never started.
        if pid <= 0 {
            return None;
        }
        let said = match self.engine.host_behind() {
            Some((reach, pass)) => {
                let words = ["sh", "-c", END, "opsh", &pid.to_string(), &self.container].map(String::from).to_vec();
                let ran = reach.run(pass, &Command { words, keep: 4096, ..Command::default() }).await;
                match ran.outcome {
                    Outcome::Exited(_) => ran.stdout.text(),
                    Outcome::NotStarted(_) | Outcome::Unknown(_) => String::new(),
                }
            }
            None => String::new(),
        };
        let mut said = said.split_whitespace();
        match (said.next(), said.next()) {
            (Some("gone"), _) => None,
            (Some("stays"), inside) => Some(self.stays(pid, inside)),
            _ => Some(self.elsewhere(pid)),
        }
    }

    /// Its host knows the process, and this user may not end it.
    fn stays(&self, pid: i64, inside: Option<&str>) -> Remains {
        let (container, host) = (short(&self.container), self.engine.host());
        let next = match inside {
            Some(inside) => {
                format!("docker exec -u 0 {container} sh -c 'kill -KILL -{inside}'     on {host}, ends it")
            }
            None => format!("sudo kill -KILL -{pid}     on {host}, ends it"),
        };
        Remains {
            why: format!("{} still runs in container {container} as process {pid} of {host}", self.program),
            next,
        }
    }

    /// The machine that opsh is logged in to does not know the process.
    fn elsewhere(&self, pid: i64) -> Remains {
        let container = short(&self.container);
        let machine = "the machine of the Docker Engine";
        Remains {
            why: format!("{} still runs in container {container} as process {pid} of {machine}", self.program),
            next: format!("sudo kill -KILL -{pid}     on {machine}, ends it"),
        }
    }
}

/// An id as docker shows it; a name as it is.
fn short(container: &str) -> &str {
    match container.len() {
        64 => container.get(..12).unwrap_or(container),
        _ => container,
    }
}

#[cfg(test)]
mod tests {
    use super::super::exec::Exec;
    use super::super::testing::Lab;
    use super::*;
    use crate::bind::ssh::Reach;
    use crate::gate::Pass;
    use std::process::{Command as Std, Stdio};

    /// Words of the processes in a container, as its Engine tells.
    fn top(lab: &Lab, container: &str) -> String {
        lab.docker(&["top", container, "-eo", "pid,args"])
    }

    fn pid_of(lab: &Lab, container: &str, words: &str) -> Option<i64> {
        let top = top(lab, container);
        top.lines().find(|line| line.contains(words))?.split_whitespace().next()?.parse().ok()
    }

    /// Asks until the processes are so.
    async fn until(lab: &Lab, container: &str, what: &str, is_so: impl Fn(&str) -> bool) {
        for _ in 0..300 {
            if is_so(&top(lab, container)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("not {what}: {}", top(lab, container));
    }

    /// Runs a script in a container, gives it up once its process is there, and returns what is left.
    async fn given_up(lab: &Lab, container: &str, script: &str, shows: &str, changes: bool) -> Vec<Remains> {
        let pass = Pass::for_tests();
        let engine = lab.engine.on_behalf(&pass, &Reach::Local);
        let words = ["sh", "-c", script].map(String::from).to_vec();
        let exec = engine.exec(container, Exec { words, keep: 1000, changes, ..Exec::default() });
        tokio::select! {
            ran = exec => panic!("it ended: {ran:?}"),
            () = until(lab, container, "begun", |top| top.contains(shows)) => {}
        }
        pass.remains_for_tests().await
    }

    #[tokio::test]
    async fn a_read_that_is_given_up_ends_in_its_container() {
        let Some(lab) = Lab::open().await else { return };
        let id = lab.run("a", &[], &["sleep", "600"]);
        for script in [
            "exec sleep 1000",
            "sleep 1000 | cat",
            "trap '' INT TERM; sleep 1000; sleep 1000",
            "while true; do sleep 1000; done",
        ] {
            assert_eq!(given_up(&lab, &id, script, "sleep 1000", false).await, [], "{script}");
            until(&lab, &id, "ended", |top| !top.contains("sleep 1000") && top.contains("sleep 600")).await;
        }
    }

    #[tokio::test]
    async fn a_change_that_is_given_up_goes_on_in_its_container() {
        let Some(lab) = Lab::open().await else { return };
        let id = lab.run("a", &[], &["sleep", "600"]);
        assert_eq!(given_up(&lab, &id, "exec sleep 1000", "sleep 1000", true).await, []);
        assert!(top(&lab, &id).contains("sleep 1000"));
    }

    /// What [`END`] says of a process when the user `nobody` runs it.
    fn said_to_nobody(pid: i64, container: &str) -> String {
        let words = ["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", END, "opsh"];
        let ended = Std::new("setpriv").args(words).arg(pid.to_string()).arg(container).stdin(Stdio::null()).output();
        String::from_utf8(ended.unwrap().stdout).unwrap().trim().to_owned()
    }

    #[tokio::test]
    async fn what_may_not_be_ended_is_told_with_a_line_that_ends_it() {
        let Some(lab) = Lab::open().await else { return };
        let (id, other) = (lab.run("a", &[], &["sleep", "600"]), lab.run("b", &[], &["sleep", "600"]));
        lab.docker(&["exec", "-d", &id, "sleep", "1000"]);
        until(&lab, &id, "begun", |top| top.contains("sleep 1000")).await;
        let pid = pid_of(&lab, &id, "sleep 1000").unwrap();
        assert_eq!(said_to_nobody(pid, &other), "elsewhere");
        let said = said_to_nobody(pid, &id);
        let inside = said.strip_prefix("stays ").unwrap_or_else(|| panic!("{said}"));

        let (engine, container) = (lab.engine.clone(), id.clone());
        let process = Process { engine, exec: String::new(), container, program: "sleep".into() };
        let left = process.stays(pid, Some(inside));
        assert!(left.why.contains(&pid.to_string()) && left.why.contains(&id[..12]), "{left:?}");
        let line = left.next.split("     ").next().unwrap();
        assert!(Std::new("sh").args(["-c", line]).status().unwrap().success(), "{line}");
        until(&lab, &id, "ended", |top| !top.contains("sleep 1000")).await;
        assert_eq!(said_to_nobody(pid, &id), "gone");
    }

    #[tokio::test]
    async fn without_a_host_behind_the_engine_the_process_is_told() {
        let Some(lab) = Lab::open().await else { return };
        let id = lab.run("a", &[], &["sleep", "600"]);
        let made = serde_json::json!({ "Cmd": ["sleep", "1000"] });
        let made = lab.engine.http().post(&format!("/containers/{id}/exec"), Some(&made)).await.unwrap();
        let exec = made["Id"].as_str().unwrap().to_owned();
        let start = serde_json::json!({ "Detach": true });
        lab.engine.http().post(&format!("/exec/{exec}/start"), Some(&start)).await.unwrap();
        until(&lab, &id, "begun", |top| top.contains("sleep 1000")).await;
        let pid = pid_of(&lab, &id, "sleep 1000").unwrap();
        let process = Process { engine: lab.engine.clone(), exec, container: id.clone(), program: "sleep".into() };
        let left = process.end().await.expect("it runs");
        assert!(left.why.contains(&format!("as process {pid} of the machine of the Docker Engine")), "{left:?}");
        assert!(left.next.starts_with(&format!("sudo kill -KILL -{pid} ")), "{left:?}");
    }
}

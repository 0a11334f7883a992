//! Ending a command in a container that was given up. The Engine has no call for that: its host ends the process.

use super::engine::Engine;
use super::model::{number, truth};
use crate::bind::ssh::{Command, Outcome};
use crate::gate::Remains;
use std::time::Duration;

/// Ends process $1, and its process group when it leads one, if the process is in container $2. A process that begins later
/// under the same number is another one. Prints `gone`, `elsewhere`, or `stays` and the process's number in the container.
const END: &str = r#"opsh_p=$1 opsh_c=$2
opsh_born() { opsh_s=$(cat "/proc/$opsh_p/stat" 2>/dev/null) && opsh_s=${opsh_s##*) } && set -- $opsh_s && echo "$3 ${20}"; }
opsh_gone() { [ "$(opsh_born)" != "$opsh_b" ]; }
opsh_b=$(opsh_born) || { echo gone; exit 0; }
grep -qF "$opsh_c" "/proc/$opsh_p/cgroup" 2>/dev/null || { echo elsewhere; exit 0; }
case $opsh_b in "$opsh_p "*) opsh_t=-$opsh_p ;; *) opsh_t=$opsh_p ;; esac
for opsh_k in INT TERM KILL; do
  opsh_gone && { echo gone; exit 0; }
  kill -s "$opsh_k" -- "$opsh_t" 2>/dev/null || break
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
    /// What is said when neither the Engine nor its host told what became of the command.
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
                format!("docker exec -u 0 {container} sh -c 'kill -s KILL -- -{inside}'     on {host}, ends it")
            }
            None => format!("sudo kill -s KILL -- -{pid}     on {host}, ends it"),
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
            next: format!("sudo kill -s KILL -- -{pid}     on {machine}, ends it"),
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

//! The built program, run as an operator without a terminal would: a home of its own, a hard deadline, and after each
//! run a look for secrets in everything that it left.

use super::lab::{Lab, ROOT, Secret, poll};
use serde_json::Value;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The program.
pub const OPSH: &str = env!("CARGO_BIN_EXE_opsh");
/// The script that the tests run most.
pub const ROLLBACK: &str = "scripts/rollback.rhai";

/// One operator: a home, a state folder and a configuration.
pub struct Opsh<'a> {
    lab: &'a Lab,
    home: tempfile::TempDir,
}

/// What a run of the program left.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub out: String,
    pub err: String,
}

/// A run that goes on.
pub struct Running<'a> {
    opsh: &'a Opsh<'a>,
    child: Child,
    line: String,
    out: PathBuf,
    err: PathBuf,
    deadline: Instant,
}

impl<'a> Opsh<'a> {
    pub fn new(lab: &'a Lab) -> Opsh<'a> {
        Opsh::configured(lab, |config| config)
    }

    /// With an opsh.toml that differs from the lab's.
    pub fn configured(lab: &'a Lab, change: impl FnOnce(String) -> String) -> Opsh<'a> {
        let home = tempfile::Builder::new().prefix("it").tempdir().unwrap();
        let config = std::fs::read_to_string(lab.file("opsh.toml")).unwrap();
        let absolute = |name: &str| lab.file(name).display().to_string();
        let config = config
            .replace("file:password", &format!("file:{}", absolute("password")))
            .replace("keys/deploy", &absolute("keys/deploy"))
            .replace("keys/viewer", &absolute("keys/viewer"));
        let changed = change(config);
        std::fs::write(home.path().join("opsh.toml"), changed).unwrap();
        for dir in ["run", "state"] {
            std::fs::create_dir(home.path().join(dir)).unwrap();
        }
        Opsh { lab, home }
    }

    /// A file in the home.
    pub fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The folder of the journal and the known hosts.
    pub fn state_dir(&self) -> PathBuf {
        self.file("state/opsh")
    }

    /// Puts a script, or any other file, into the home and gives its path.
    pub fn put(&self, name: &str, text: &str) -> String {
        std::fs::write(self.file(name), text).unwrap();
        self.file(name).display().to_string()
    }

    pub fn run(&self, words: &[&str]) -> Ran {
        self.start(words).wait()
    }

    /// The value of one line, which must succeed.
    pub fn eval(&self, code: &str) -> Value {
        let ran = self.run(&["--json", "-e", code]).exits(0);
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{code}: {error}: {ran:?}"))
    }

    pub fn start(&'a self, words: &[&str]) -> Running<'a> {
        self.start_with(&[OPSH], words, &[])
    }

    /// Lets a command run as this operator, in the project's folder.
    pub fn at_home(&self, command: &mut Command) {
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("LC_ALL", "C.UTF-8");
        command.env("HOME", self.home.path()).env("XDG_STATE_HOME", self.file("state"));
        command.env("XDG_RUNTIME_DIR", self.file("run")).env("OPSH_CANARY", CANARY).current_dir(ROOT);
    }

    /// Starts `program` (words that end with opsh's own path) with these words and variables.
    pub fn start_with(&'a self, program: &[&str], words: &[&str], env: &[(&str, &str)]) -> Running<'a> {
        let n = std::fs::read_dir(self.home.path()).unwrap().count();
        let (out, err) = (self.file(&format!("out{n}")), self.file(&format!("err{n}")));
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg("--config").arg(self.file("opsh.toml")).args(words);
        self.at_home(&mut command);
        command.envs(env.iter().copied()).stdin(Stdio::null());
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        let child = command.spawn().unwrap();
        let line = words.join(" ");
        Running { opsh: self, child, line, out, err, deadline: Instant::now() + Duration::from_secs(120) }
    }

    /// The records of a run.
    pub fn journal(&self, run: &str) -> Vec<Value> {
        let ran = self.run(&["journal", "export", run]).exits(0);
        let lines = ran.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        // The last line of an export is no record.
        lines.filter(|line| line["kind"] != "recording.end").collect()
    }

    /// The verbs of the changes that a run began, in order.
    pub fn changes(&self, run: &str) -> Vec<String> {
        let begun = |record: &&Value| record["kind"] == "effect.begin";
        self.journal(run).iter().filter(begun).map(|record| record["body"]["verb"].as_str().unwrap().into()).collect()
    }

    /// Fails when a secret stands in anything that was written for this operator.
    fn look_for_secrets(&self) {
        let canary = Secret { name: "a variable of the environment".into(), value: CANARY.into() };
        let secrets: Vec<Secret> = self.lab.secrets().iter().cloned().chain([canary]).collect();
        for path in files_below(self.home.path()) {
            // A file may be gone again: a journal's side file, a socket.
            if let Ok(bytes) = std::fs::read(&path) {
                let found = leaks(&bytes, &secrets);
                assert!(found.is_empty(), "{found:?} in {}", path.display());
            }
        }
    }
}

/// A value that opsh has in its environment and no business with.
const CANARY: &str = "canary-Zk4pQ0vXw7Lm2Tn9";

/// Names of the secrets that occur in `bytes`, as they are or in base64.
pub fn leaks<'a>(bytes: &[u8], secrets: &'a [Secret]) -> Vec<&'a str> {
    use base64::Engine;
    let holds = |value: &[u8]| bytes.windows(value.len()).any(|window| window == value);
    let base64 = |secret: &Secret| base64::prelude::BASE64_STANDARD_NO_PAD.encode(&secret.value);
    let leaked = |secret: &&Secret| holds(secret.value.as_bytes()) || holds(base64(secret).as_bytes());
    secrets.iter().filter(leaked).map(|secret| secret.name.as_str()).collect()
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files.extend(files_below(&entry.path())),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    files
}

impl Running<'_> {
    pub fn signal(&self, signal: i32) {
        // SAFETY: a signal to our own child, which has not been waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn wait(mut self) -> Ran {
        let left = self.deadline.saturating_duration_since(Instant::now()).as_secs() + 1;
        let line = format!("the end of opsh {}", self.line);
        poll(&line, left, || self.is_over());
        let status = self.child.wait().unwrap();
        let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        let ran = Ran { code: status.code(), signal: status.signal(), out: read(&self.out), err: read(&self.err) };
        self.opsh.look_for_secrets();
        ran
    }
}

impl Drop for Running<'_> {
    /// Past its deadline, or when the test failed meanwhile.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ran {
    /// Fails unless the exit code is `code`.
    #[track_caller]
    pub fn exits(self, code: i32) -> Ran {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// Fails unless standard error holds an error with its reason, and each of `words`.
    #[track_caller]
    pub fn explains(self, words: &[&str]) -> Ran {
        let has = |start: &str| self.err.lines().any(|line| line.starts_with(start) && line.len() > start.len());
        for start in ["error: ", "  why: "] {
            assert!(has(start), "no {start:?} in:\n{}", self.err);
        }
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in:\n{}", self.err);
        }
        self
    }

    /// Lines that the error proposes to type.
    pub fn hints(&self) -> Vec<String> {
        let mut lines = self.err.lines().skip_while(|line| !line.starts_with(" next: "));
        let first = lines.next().and_then(|line| line.strip_prefix(" next: ")).map(String::from);
        first.into_iter().chain(lines.map_while(|line| line.strip_prefix("       ")).map(String::from)).collect()
    }

    /// Fails unless standard output holds each of `words`.
    #[track_caller]
    pub fn prints(self, words: &[&str]) -> Ran {
        for word in words {
            assert!(self.out.contains(word), "no {word:?} in:\n{}\n{}", self.out, self.err);
        }
        self
    }
}

#[test]
fn the_look_for_secrets_finds_them() {
    let secrets = [Secret { name: "one".into(), value: "abcdefghijkl0123".into() }];
    assert_eq!(leaks(b"x abcdefghijkl0123 y", &secrets), ["one"]);
    assert_eq!(leaks(b"x YWJjZGVmZ2hpamtsMDEyMw== y", &secrets), ["one"]);
    assert!(leaks(b"x abcdefghijkl012 y", &secrets).is_empty());
}

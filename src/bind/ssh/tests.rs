//! Everything that the live tests share: a private sshd, accounts for it, and waiting without guessing.

/// The cable of the integration tests, which has a far end that stays silent: where the kernel asks for its hardware
/// address, a cable that was cut and mended is said to lead nowhere for a moment.
#[path = "../../../tests/it/network.rs"]
mod network;

use super::{Command, Finished, Link, Login, Outcome, Reach, connect};
use crate::gate::Pass;
use crate::redact::Secret;
use network::Network;
use std::cell::RefCell;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Accounts that the tests make, with their login shells. That of busybox is what its name says: a link makes it one.
const ACCOUNTS: [(&str, &str); 5] = [
    ("opsh-alice", "/bin/bash"),
    ("opsh-dash", "/bin/dash"),
    ("opsh-ash", "/home/opsh-ash/ash"),
    ("opsh-fish", "/usr/bin/fish"),
    ("opsh-tcsh", "/usr/bin/tcsh"),
];
pub const PASSWORD: &str = "right horse 'battery";

/// An sshd with its own keys, configuration and log, on 127.0.0.1 or in a network of its own. Ends when dropped.
pub struct Lab {
    pub dir: tempfile::TempDir,
    pub port: u16,
    address: String,
    /// Words before the server's own, which lead to a program that starts it.
    before: Vec<String>,
    sshd: RefCell<Option<Child>>,
}

impl Lab {
    /// Starts one, with more lines for its configuration; `None` (and a word about it) where none can be.
    pub fn start(more: &str) -> Option<Lab> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Lab::at("127.0.0.1", port, Vec::new(), more)
    }

    /// Starts one where runs are kept on a disk of 4 MiB.
    pub fn start_with_a_small_disk(disk: &Path) -> Option<Lab> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mount = format!("mount -t tmpfs -o size=4m,mode=700 none {} && exec \"$@\"", disk.display());
        let tried = std::process::Command::new("unshare").args(["-m", "sh", "-c", &mount, "sh", "true"]).status();
        if !tried.is_ok_and(|status| status.success()) {
            skip("no disk of our own: it takes root, and the right to mount");
            return None;
        }
        let before = ["unshare", "-m", "sh", "-c", &mount, "sh"].map(String::from).to_vec();
        Lab::at("127.0.0.1", port, before, &format!("SetEnv XDG_STATE_HOME={}", disk.display()))
    }

    /// Starts one that sees these files in the place of others.
    pub fn start_over(files: &[(&str, &str)], more: &str) -> Option<Lab> {
        let mounts: String = files.iter().map(|(here, there)| format!("mount --bind {here} {there} && ")).collect();
        let script = format!("{mounts}exec \"$@\"");
        possible().ok()?;
        let tried = std::process::Command::new("unshare").args(["-m", "sh", "-c", &script, "sh", "true"]).status();
        if !tried.is_ok_and(|status| status.success()) {
            skip("no files of our own for the server: it takes root, the right to mount, and its PAM");
            return None;
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Lab::at("127.0.0.1", port, ["unshare", "-m", "sh", "-c", &script, "sh"].map(String::from).to_vec(), more)
    }

    /// Starts one in a network namespace, behind a cable that can be cut.
    pub fn start_behind_a_network(more: &str) -> Option<(Lab, Network)> {
        let network = match Network::lay() {
            Ok(network) => network,
            Err(why) => {
                skip(&why);
                return None;
            }
        };
        let lab = Lab::at(&network.there, 22, network.enter(), more)?;
        Some((lab, network))
    }

    fn at(address: &str, port: u16, before: Vec<String>, more: &str) -> Option<Lab> {
        if let Err(why) = possible() {
            skip(&why);
            return None;
        }
        let dir = tempfile::Builder::new().prefix("opsh").tempdir().unwrap();
        open_to_all(dir.path());
        for key in ["host", "id"] {
            keygen(&dir.path().join(key), "");
        }
        std::fs::copy(dir.path().join("id.pub"), dir.path().join("authorized")).unwrap();
        configure(dir.path(), address, port, more);
        let lab = Lab { dir, port, address: address.into(), before, sshd: RefCell::default() };
        lab.serve();
        Some(lab)
    }

    /// Starts the server, and waits until it listens.
    pub fn serve(&self) {
        let server = "/usr/sbin/sshd".to_string();
        let words: Vec<&String> = self.before.iter().chain([&server]).collect();
        let mut command = std::process::Command::new(words[0]);
        command.args(&words[1..]).args(["-D", "-f"]).arg(self.path("sshd_config")).arg("-E").arg(self.path("log"));
        let sshd = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        *self.sshd.borrow_mut() = Some(sshd);
        wait_for("sshd listens", || std::net::TcpStream::connect((self.address.as_str(), self.port)).is_ok());
    }

    /// Kills the server and the processes of its sessions, but not what runs in them.
    pub fn stop_with_sessions(&self) {
        let Some(mut sshd) = self.sshd.take() else { return };
        let listener = sshd.id().to_string();
        let children = std::process::Command::new("ps").args(["-o", "pid=", "--ppid", &listener]).output().unwrap();
        sshd.kill().unwrap();
        sshd.wait().unwrap();
        for pid in String::from_utf8(children.stdout).unwrap().split_whitespace() {
            kill(pid.parse().unwrap(), 9);
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// A login with the lab's key, to a host that is not known yet.
    pub fn stranger(&self, user: &str) -> Login {
        let mut login =
            Login::new("web", &format!("{user}@{}", self.address), self.path("known_hosts"), self.path("c"));
        login.port = Some(self.port);
        login.identity = Some(self.path("id"));
        login
    }

    /// The same, with the key of the host in the list.
    pub fn login(&self, user: &str) -> Login {
        let key = std::fs::read_to_string(self.path("host.pub")).unwrap();
        let line = format!("web,[127.0.0.1]:{} {key}", self.port);
        std::fs::write(self.path("known_hosts"), line).unwrap();
        self.stranger(user)
    }

    /// The same, with a password instead of a key.
    pub fn password_login(&self, password: Option<&str>) -> Login {
        let mut login = self.login("opsh-alice");
        login.identity = Some("/nonexistent".into());
        login.password = password.map(|text| Secret::new(text.to_string()));
        login
    }

    pub async fn connect(&self) -> (Link, Reach) {
        let link = connect(&pass(), &self.login("root")).await.unwrap();
        (link.clone(), Reach::Ssh(link))
    }

    pub fn host_fingerprint(&self) -> String {
        let key = self.path("host.pub");
        let out = std::process::Command::new("ssh-keygen").arg("-lf").arg(key).output().unwrap().stdout;
        String::from_utf8(out).unwrap().split(' ').nth(1).unwrap().to_string()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut sshd) = self.sshd.take() {
            let _ = sshd.kill();
            let _ = sshd.wait();
        }
    }
}

/// Says that something is not tested for want of a program, past the capture of the test runner, or fails where
/// everything must be: `CI` is set, or `OPSH_REQUIRE=all`. In the form of tests/it/skip.rs.
pub fn skip(why: &str) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let required = std::env::var("OPSH_REQUIRE").is_ok_and(|what| what == "all") || std::env::var_os("CI").is_some();
    assert!(!required, "everything is required, but {why}");
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    let thread = std::thread::current();
    let line = format!("skipped {count}: {}: {why}\n", thread.name().unwrap_or("?"));
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// The accounts whose login shell is installed.
pub fn accounts() -> Vec<&'static str> {
    let there = |(_, shell): &&(&str, &str)| {
        Path::new(shell).exists() || {
            skip(&format!("no {shell}"));
            false
        }
    };
    ACCOUNTS.iter().filter(there).map(|(name, _)| *name).collect()
}

/// The account whose login shell is this one; `None`, and said so, where it is not installed.
pub fn account_with(shell: &str) -> Option<&'static str> {
    let (name, path) = ACCOUNTS.iter().find(|(_, path)| path.ends_with(&format!("/{shell}"))).unwrap();
    if !Path::new(path).exists() {
        skip(&format!("no {shell}"));
        return None;
    }
    Some(name)
}

fn possible() -> Result<(), String> {
    static POSSIBLE: OnceLock<Result<(), String>> = OnceLock::new();
    let prepare = || {
        // SAFETY: a system call without arguments.
        if unsafe { libc::geteuid() } != 0 {
            return Err("no sshd: it is started by root only".into());
        }
        if !Path::new("/usr/sbin/sshd").exists() {
            return Err("no sshd".into());
        }
        let _ = std::fs::create_dir_all("/run/sshd");
        ACCOUNTS.iter().try_for_each(|(name, shell)| account(name, shell))?;
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        // The link may be there from an earlier run.
        let _ = busybox.map(|program| std::os::unix::fs::symlink(program, "/home/opsh-ash/ash"));
        Ok(())
    };
    POSSIBLE.get_or_init(prepare).clone()
}

fn account(name: &str, shell: &str) -> Result<(), String> {
    let run = |program: &str, args: &[&str], input: &str| {
        let mut command = std::process::Command::new(program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|e| format!("{program}: {e}"))?;
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait().map(|status| status.success()).map_err(|e| e.to_string())
    };
    run("useradd", &["-m", "-s", shell, name], "")?;
    match run("chpasswd", &[], &format!("{name}:{PASSWORD}\n"))? {
        true => Ok(()),
        false => Err(format!("the account {name} cannot be made")),
    }
}

fn open_to_all(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
}

pub fn keygen(path: &Path, passphrase: &str) {
    let mut command = std::process::Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", passphrase, "-f"]).arg(path);
    assert!(command.status().unwrap().success());
}

fn configure(dir: &Path, address: &str, port: u16, more: &str) {
    let at = dir.display();
    let config = format!(
        "{more}\nPort {port}\nListenAddress {address}\nHostKey {at}/host\nAuthorizedKeysFile {at}/authorized\nStrictModes no\n\
         PidFile none\nLogLevel VERBOSE\nPermitRootLogin yes\nPasswordAuthentication yes\n\
         Subsystem sftp internal-sftp\nUsePAM no\nKbdInteractiveAuthentication no\n"
    );
    std::fs::write(dir.join("sshd_config"), config).unwrap();
}

/// Runs a test on a runtime like opsh's.
pub fn live<F: Future<Output = ()>>(test: F) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

pub fn pass() -> Pass {
    Pass::for_tests()
}

pub fn words(words: &[&str]) -> Command {
    Command { words: words.iter().map(|word| word.to_string()).collect(), keep: 1 << 20, ..Command::default() }
}

pub fn sh(script: &str) -> Command {
    words(&["sh", "-c", script])
}

pub fn exited(finished: &Finished, status: i32) -> String {
    assert_eq!(finished.outcome, Outcome::Exited(status), "stderr: {}", finished.stderr.text());
    finished.stdout.text()
}

const PATIENCE: Duration = Duration::from_secs(20);

/// Blocks until something holds.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Lets the runtime go on until something holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The command lines of all processes that contain `mark`, without this one.
pub fn command_lines(mark: &str) -> Vec<(i32, String)> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let lines = pids.filter_map(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some((pid, String::from_utf8_lossy(&line).replace('\0', " ")))
    });
    lines.filter(|(pid, line)| line.contains(mark) && *pid != std::process::id() as i32).collect()
}

/// A word that no other process has in its command line.
pub fn mark() -> String {
    super::records::nonce().unwrap()
}

pub fn kill(pid: i32, signal: i32) {
    // SAFETY: a system call without pointers.
    unsafe { libc::kill(pid, signal) };
}

/// The program for `SSH_ASKPASS` in tests: leads ssh to `askpass_helper` and its answer to ssh.
///
/// Written by another process: while this one holds it open for writing, a fork in another test could keep it busy.
pub fn helper_script(dir: &Path) -> std::io::Result<PathBuf> {
    let path = dir.join("helper");
    let test = format!("{}::askpass_helper", module_path!().split_once("::").unwrap().1);
    let script = format!(
        "#!/bin/sh\nexec 9>&1 >/dev/null 2>&1\nOPSH_TEST_PROMPT=$1 exec {} --exact {test} --nocapture\n",
        std::env::current_exe()?.display()
    );
    let mut command = std::process::Command::new("install");
    command.args(["-m", "700", "/dev/stdin"]).arg(&path).stdin(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().unwrap().write_all(script.as_bytes())?;
    child.wait()?;
    Ok(path)
}

#[test]
fn askpass_helper() {
    let Some(socket) = std::env::var_os(super::asks::SOCKET) else { return };
    let prompt = std::env::var("OPSH_TEST_PROMPT").unwrap();
    let mut answer = std::fs::OpenOptions::new().write(true).open("/proc/self/fd/9").unwrap();
    if super::asks::ask(socket.as_ref(), &prompt, &mut answer).is_none() {
        std::process::exit(1);
    }
}

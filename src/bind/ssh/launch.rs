//! Everything about starting `ssh`: its options, its private directory, and the wait until it is in or out.

use super::Login;
use super::asks::{Answers, Question, Reply, SOCKET};
use super::channel::own_session;
use super::failure::{self, Trouble};
use super::route::{self, Route};
use super::trust;
use crate::config::Address;
use crate::error::{Error, Kind, Result};
use crate::gate::Pass;
use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::time::Instant;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};

/// For the whole login. PAM delays wrong answers by seconds, and a hardware key waits for a finger.
const LOGIN_WITHIN: Duration = Duration::from_secs(60);
/// A master that is in shows it by its socket; a connected key login takes 90 ms and more, so this is not felt.
const LOOK_EVERY: Duration = Duration::from_millis(3);
/// ssh adds 17 bytes to the socket's path, of the 108 that the kernel allows.
const LONGEST_CONTROL_PATH: usize = 90;

/// A private directory for one ssh; removed when dropped. It is locked as long as it is used: a program of another pid namespace
/// that shares the folder sees no process of ours, and asks the lock.
pub struct ControlDir(PathBuf, Option<File>);

impl ControlDir {
    /// Makes one below `base`, and removes those that programs left behind which are gone.
    pub fn make(base: &Path) -> Result<ControlDir> {
        let failed =
            |why: String| Error::new(Kind::Usage, format!("{} cannot hold control sockets", base.display()), why);
        private(base).map_err(failed)?;
        remove_orphans(base);
        for n in 0..100_000u32 {
            let mut dir = ControlDir(base.join(format!("{:x}-{n:x}", std::process::id())), None);
            if dir.master().as_os_str().len() > LONGEST_CONTROL_PATH {
                std::mem::forget(dir);
                let why = format!("its path is too long: a socket in it may have {LONGEST_CONTROL_PATH} bytes");
                return Err(failed(why)
                    .next("export XDG_RUNTIME_DIR=/run/user/$(id -u)     a short folder of yours alone, mode 0700")
                    .next("opsh --state-dir DIR …     a shorter folder for opsh's state"));
            }
            match DirBuilder::new().mode(0o700).create(&dir.0) {
                Ok(()) => {
                    dir.1 = File::open(&dir.0).ok().filter(|file| file.try_lock_shared().is_ok());
                    // Whoever looked before it was locked took it for left behind.
                    if dir.0.is_dir() {
                        return Ok(dir);
                    }
                }
                // Another link of this program has it.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => std::mem::forget(dir),
                Err(e) => {
                    std::mem::forget(dir);
                    return Err(failed(e.to_string()));
                }
            }
        }
        Err(failed("it is full".into()))
    }

    /// The master's control socket.
    pub fn master(&self) -> PathBuf {
        self.0.join("m")
    }

    /// The socket of the helper.
    fn asks(&self) -> PathBuf {
        self.0.join("a")
    }

    /// A list of host keys that is thrown away with the login: those that a probe meets, or the pinned one.
    pub fn keys(&self) -> PathBuf {
        self.0.join("k")
    }

    /// Log of the ssh of jump host `n`.
    fn log_of(&self, n: usize) -> PathBuf {
        self.0.join(format!("l{n}"))
    }

    /// Log of the ssh of the host itself.
    fn log(&self) -> PathBuf {
        self.0.join("l")
    }
}

impl Drop for ControlDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Makes sure that `base` exists and that nobody else can enter it.
fn private(base: &Path) -> Result<(), String> {
    DirBuilder::new().recursive(true).mode(0o700).create(base).map_err(|e| e.to_string())?;
    if !is_private(base) {
        return Err("it is not a directory of this user alone (mode 0700)".into());
    }
    // ssh would fill something in for a %.
    match base.to_string_lossy().contains(['%', '"', '\'', '\\', '$', '\n']) {
        true => Err("its path has a quote, a backslash, % or $".into()),
        false => Ok(()),
    }
}

/// Whether this is a directory, no symlink to one, that this user owns and nobody else can enter.
pub fn is_private(dir: &Path) -> bool {
    // SAFETY: a system call without arguments.
    let me = unsafe { libc::geteuid() };
    std::fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir() && meta.uid() == me && meta.mode() & 0o077 == 0)
}

/// Whether the sockets below this folder have paths that the kernel takes.
pub fn is_short(base: &Path) -> bool {
    base.as_os_str().len() + "/ffffffff-ffff/m".len() <= LONGEST_CONTROL_PATH
}

fn remove_orphans(base: &Path) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| u32::from_str_radix(name.split_once('-')?.0, 16).ok());
        let is_gone = |pid| !Path::new(&format!("/proc/{pid}")).exists();
        // The lock is given back only when the folder is gone.
        let unused = || File::open(entry.path()).ok().filter(|file| file.try_lock().is_ok());
        if let Some(_unused) = pid.is_some_and(is_gone).then(unused).flatten() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// An ssh that is logging in.
pub struct Ssh {
    pub child: Child,
    /// Its process group: it leads a session of its own.
    group: Option<i32>,
    /// Standard error of its ssh, those of jump hosts, a ProxyCommand and the server's banner. A server may say anything
    /// here, so nothing in it is believed.
    stderr: Words,
    /// Where the ssh of each hop writes what it says itself, the nearest first and the host's own last.
    logs: Vec<PathBuf>,
    asks: UnixListener,
    reader: tokio::task::JoinHandle<()>,
    /// Helpers that wait to be ended by ssh.
    held: Vec<UnixStream>,
}

impl Drop for Ssh {
    /// Also when a login is abandoned half-way: what ssh started for a jump host must not go on asking.
    fn drop(&mut self) {
        kill_group(&self.child);
    }
}

/// How the wait for a login ended, when it did not end with the login.
pub enum Out {
    /// ssh ended by itself.
    Ended,
    /// It was ended here.
    Stopped(Trouble),
}

/// What ssh has written to stderr, at most 64 KiB of it.
#[derive(Clone, Default)]
pub struct Words(Arc<Mutex<String>>);

impl Words {
    /// A copy of the text.
    pub fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn collect(self, stderr: tokio::process::ChildStderr) {
        let mut lines = BufReader::new(stderr).split(b'\n');
        while let Ok(Some(line)) = lines.next_segment().await {
            let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if text.len() < 64 * 1024 {
                text.push_str(&String::from_utf8_lossy(&line));
                text.push('\n');
            }
        }
    }
}

impl Ssh {
    /// Ends what ssh left behind in its group: called when it was just reaped, so nobody else can have the group's id yet.
    fn end_rest(&self) {
        if let Some(group) = self.group {
            // SAFETY: a system call without pointers.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
    }

    /// Starts ssh to `login` with `extra` options before all others: of two values ssh takes the first.
    pub async fn start(pass: &Pass, login: &Login, route: &Route, dir: &ControlDir, extra: &[OsString]) -> Result<Ssh> {
        let failed = |e: io::Error| no_ssh(login, &e);
        let asks = UnixListener::bind(dir.asks()).map_err(failed)?;
        let logs: Vec<PathBuf> = (0..route.hops.len()).map(|n| dir.log_of(n)).chain([dir.log()]).collect();
        let mut command = Command::new("ssh");
        // With -E what ssh says itself goes to a file, and a banner of the server does not.
        command.args(["-N", "-T", "-E"]).arg(dir.log()).args(extra);
        command.args(options(pass, login, route, dir).await);
        command.args(route::words(&login.address().map_err(|why| not_an_address(login, why))?));
        if !route.hops.is_empty() {
            // It runs the command that goes through them, which is written for this shell.
            command.env("SHELL", "/bin/sh");
        }
        command.env("SSH_ASKPASS", helper(dir).map_err(failed)?).env("SSH_ASKPASS_REQUIRE", "force");
        command.env(SOCKET, dir.asks()).env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY");
        // ssh's words are read, so they must be English.
        command.env("LC_ALL", "C.UTF-8");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        // SAFETY: both are async-signal-safe system calls. A session of its own keeps Ctrl-C and the terminal away from
        // ssh; the death signal ends it with the thread that started it, however this program ends.
        unsafe {
            command.pre_exec(|| {
                own_session()?;
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            })
        };
        let mut child = command.spawn().map_err(failed)?;
        let stderr = Words::default();
        let pipe = child.stderr.take().ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        let reader = tokio::spawn(stderr.clone().collect(pipe));
        let group = child.id().and_then(|pid| i32::try_from(pid).ok());
        Ok(Ssh { child, group, stderr, logs, asks, reader, held: Vec::new() })
    }

    /// Logs of each hop's ssh, the nearest first, and of the host's.
    pub fn said(&self) -> Said {
        let read = |path: &PathBuf| {
            let bytes = std::fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&bytes[..bytes.len().min(64 * 1024)]).into_owned()
        };
        Said { logs: self.logs.iter().map(read).collect(), stderr: self.stderr.text() }
    }

    /// Answers ssh's questions until `ready` holds (`Ok`) or ssh is gone.
    pub async fn log_in(
        &mut self,
        pass: &Pass,
        answers: &mut Answers<'_>,
        ready: impl Fn() -> bool,
    ) -> Result<(), Out> {
        let deadline = tokio::time::sleep(LOGIN_WITHIN);
        tokio::pin!(deadline);
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            let stop = tokio::select! {
                () = &mut deadline => Some(Trouble::Timeout),
                _ = self.child.wait() => {
                    // The jump host's ssh may hold stderr open for a moment.
                    let _ = tokio::time::timeout(Duration::from_millis(500), &mut self.reader).await;
                    self.end_rest();
                    return Err(Out::Ended);
                }
                asked = self.asks.accept() => match asked {
                    Ok((helper, _)) => {
                        let since = Instant::now();
                        let stop = self.question(pass, helper, answers).await;
                        // A person may think.
                        let later = deadline.deadline() + since.elapsed();
                        deadline.as_mut().reset(later);
                        stop
                    }
                    Err(_) => None,
                },
                _ = look.tick() => if ready() { return Ok(()) } else { None },
            };
            if let Some(trouble) = stop {
                end_group(&mut self.child).await;
                return Err(Out::Stopped(trouble));
            }
        }
    }

    async fn question(&mut self, pass: &Pass, mut helper: UnixStream, answers: &mut Answers<'_>) -> Option<Trouble> {
        // SAFETY: a system call without arguments.
        let me = unsafe { libc::geteuid() };
        if !helper.peer_cred().is_ok_and(|peer| peer.uid() == me) {
            return None;
        }
        let mut message = Vec::new();
        let reading = helper.read_to_end(&mut message);
        let _ = tokio::time::timeout(Duration::from_secs(5), reading).await;
        let question = Question::parse(&message)?;
        let of_target = self.child.id() == Some(question.asker);
        let reply = match answers.answer(&question, of_target) {
            Reply::Say(answer) => [b"+", answer.expose().as_bytes()].concat(),
            Reply::SayOfKey(answer) => format!("+{answer}").into_bytes(),
            Reply::Nothing => b"-".to_vec(),
            Reply::AskPerson(asked) => {
                let question = asked.question();
                let typed = tokio::select! {
                    typed = pass.ask_secret(&question) => typed,
                    // The server does not wait for ever.
                    _ = self.child.wait() => return None,
                };
                match typed {
                    Some(answer) => [b"+", answer.expose().as_bytes()].concat(),
                    None => {
                        self.held.push(helper);
                        return Some(asked.unanswered());
                    }
                }
            }
            Reply::Hold => {
                self.held.push(helper);
                return None;
            }
            Reply::Stop(trouble) => {
                // Until ssh is gone: a helper without an answer ends, and ssh would send an empty password.
                self.held.push(helper);
                return Some(trouble);
            }
        };
        let _ = helper.write_all(&reply).await;
        None
    }
}

/// Log of each hop's ssh, and standard error.
pub struct Said {
    /// By hop, the nearest first; the last is that of the host itself. Only ssh writes here.
    pub logs: Vec<String>,
    /// A banner of the server, or what a ProxyCommand says.
    pub stderr: String,
}

impl Said {
    /// The last line that was said after this.
    pub fn last_since(&self, before: &Said) -> Option<String> {
        let newest = |now: &str, before: &str| now.get(before.len()..).and_then(failure::last_line).map(String::from);
        let logs = self.logs.iter().zip(&before.logs).rev();
        let own = logs.into_iter().find_map(|(now, before)| newest(now, before));
        own.or_else(|| newest(&self.stderr, &before.stderr))
    }
}

fn not_an_address(login: &Login, why: String) -> Error {
    Error::new(Kind::Usage, format!("cannot log in to {}", login.name), why).host(&login.name)
}

fn no_ssh(login: &Login, e: &io::Error) -> Error {
    let what = format!("cannot log in to {}", login.name);
    if e.kind() == io::ErrorKind::NotFound {
        return Error::new(Kind::NotFound, what, "there is no program ssh on this machine")
            .next("apt-get install openssh-client");
    }
    Error::new(Kind::Failed, what, format!("ssh does not start: {e}"))
}

/// Ends ssh and what it started: the ssh of a jump host would go on asking and be answered with empty passwords.
pub async fn end_group(child: &mut Child) {
    kill_group(child);
    let _ = child.wait().await;
}

fn kill_group(child: &Child) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // SAFETY: a system call without pointers; the child is not reaped yet, so the group is still its own.
        unsafe { libc::kill(-pid, libc::SIGKILL) };
    }
}

async fn options(pass: &Pass, login: &Login, route: &Route, dir: &ControlDir) -> Vec<OsString> {
    let options = trust::options(pass, login).await;
    let mut words: Vec<OsString> = Vec::new();
    let mut option = |text: String| words.extend(["-o".into(), text.into()]);
    options.iter().cloned().for_each(&mut option);
    if let Some(command) = route.proxy_command(&options, |n| dir.log_of(n)) {
        option(format!("ProxyCommand={command}"));
        option("ProxyUseFdpass=no".into());
    }
    if let Some(identity) = &login.identity {
        words.extend(["-o".into(), "IdentitiesOnly=yes".into(), "-i".into(), identity.into()]);
    }
    words
}

/// Refuses what ssh would read as something else than it is.
pub fn check(login: &Login) -> Result<()> {
    let plain = |text: &str, more: &str| {
        !text.is_empty() && !text.starts_with('-') && text.chars().all(|c| c.is_alphanumeric() || more.contains(c))
    };
    let path = login.known_hosts.to_string_lossy();
    let jumps = login.jump.iter().flat_map(|jump| jump.split(',')).map(str::trim);
    let wrong = if !plain(&login.name, "._-:[]") {
        format!("the name {:?} may have letters, digits and . _ - : [ ] only", login.name)
    } else if let Err(why) = login.address() {
        why
    } else if let Some(why) = jumps.map(Address::parse).find_map(Result::err) {
        format!("jump: {why}")
    } else if !login.known_hosts.is_absolute() || path.contains(['"', '\'', '\\', '%', '$', '!', '\n']) {
        format!("the path {path:?} of known_hosts must be absolute and without quotes, backslashes, % and $")
    } else {
        return Ok(());
    };
    Err(Error::new(Kind::Usage, format!("cannot log in to {}", login.name), wrong).host(&login.name))
}

/// Turns the end of an ssh into the reason.
pub fn trouble(out: Out, ssh: &Ssh, answers: &Answers<'_>) -> Trouble {
    match out {
        Out::Stopped(trouble) => trouble,
        Out::Ended => failure::read(&ssh.said(), answers),
    }
}

/// The program that ssh runs to ask: this one.
#[cfg(not(test))]
fn helper(_: &ControlDir) -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// A test's program begins with the test harness, so a script leads ssh to the one test that answers.
#[cfg(test)]
fn helper(dir: &ControlDir) -> io::Result<PathBuf> {
    super::tests::helper_script(&dir.0)
}

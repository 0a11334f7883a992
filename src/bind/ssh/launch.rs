//! Everything about starting `ssh`: its options, its private directory, and the wait until it is in or out.

use super::Login;
use super::asks::{Answers, Question, Reply, SOCKET};
use super::channel::own_session;
use super::failure::{self, Trouble};
use super::quote::quote;
use crate::error::{Error, Kind, Result};
use crate::gate::Pass;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};

/// For TCP and the server's first word, in seconds; ssh counts it.
const CONNECT_S: u32 = 10;
/// For the whole login. PAM delays wrong answers by seconds, and a hardware key waits for a finger.
const LOGIN_WITHIN: Duration = Duration::from_secs(60);
/// A master that is in shows it by its socket; a connected key login takes 90 ms and more, so this is not felt.
const LOOK_EVERY: Duration = Duration::from_millis(3);
/// ssh adds 17 bytes to the socket's path, of the 108 that the kernel allows.
const LONGEST_CONTROL_PATH: usize = 90;

/// A private directory for one ssh; removed when dropped.
pub struct ControlDir(PathBuf);

impl ControlDir {
    /// Makes one below `base`, and removes those that programs left behind which are gone.
    pub fn make(base: &Path) -> Result<ControlDir> {
        let failed =
            |why: String| Error::new(Kind::Usage, format!("{} cannot hold control sockets", base.display()), why);
        private(base).map_err(failed)?;
        remove_orphans(base);
        for n in 0..100_000u32 {
            let dir = ControlDir(base.join(format!("{:x}-{n:x}", std::process::id())));
            if dir.master().as_os_str().len() > LONGEST_CONTROL_PATH {
                std::mem::forget(dir);
                return Err(failed(format!("its path is too long for a socket: at most {LONGEST_CONTROL_PATH} bytes"))
                    .next("XDG_RUNTIME_DIR should name a short path, such as /run/user/1000"));
            }
            match DirBuilder::new().mode(0o700).create(&dir.0) {
                Ok(()) => return Ok(dir),
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

    /// A file for the keys that a probe meets.
    pub fn keys(&self) -> PathBuf {
        self.0.join("k")
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
    let meta = std::fs::symlink_metadata(base).map_err(|e| e.to_string())?;
    // SAFETY: a system call without arguments.
    let me = unsafe { libc::geteuid() };
    if !meta.is_dir() || meta.uid() != me || meta.mode() & 0o077 != 0 {
        return Err("it is not a directory of this user alone (mode 0700)".into());
    }
    Ok(())
}

fn remove_orphans(base: &Path) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| u32::from_str_radix(name.split_once('-')?.0, 16).ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// An ssh that is logging in.
pub struct Ssh {
    pub child: Child,
    pub stderr: Words,
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
    /// Starts ssh to `login` with `extra` options before all others: of two values ssh takes the first.
    pub fn start(_: &Pass, login: &Login, dir: &ControlDir, extra: &[OsString]) -> Result<Ssh> {
        let failed = |e: io::Error| no_ssh(login, &e);
        let asks = UnixListener::bind(dir.asks()).map_err(failed)?;
        let mut command = Command::new("ssh");
        command.args(extra).args(options(login)).arg("--").arg(&login.dest);
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
        Ok(Ssh { child, stderr, asks, reader, held: Vec::new() })
    }

    /// Answers ssh's questions until `ready` holds (`Ok`) or ssh is gone.
    pub async fn log_in(&mut self, answers: &mut Answers<'_>, ready: impl Fn() -> bool) -> Result<(), Out> {
        let deadline = tokio::time::sleep(LOGIN_WITHIN);
        tokio::pin!(deadline);
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            let stop = tokio::select! {
                () = &mut deadline => Some(Trouble::Timeout),
                _ = self.child.wait() => {
                    // The jump host's ssh may hold stderr open for a moment.
                    let _ = tokio::time::timeout(Duration::from_millis(500), &mut self.reader).await;
                    return Err(Out::Ended);
                }
                asked = self.asks.accept() => match asked {
                    Ok((helper, _)) => self.question(helper, answers).await,
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

    async fn question(&mut self, mut helper: UnixStream, answers: &mut Answers<'_>) -> Option<Trouble> {
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

fn options(login: &Login) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["-N".into(), "-T".into()];
    let mut option = |text: String| words.extend(["-o".into(), text.into()]);
    host_key_options(login).into_iter().for_each(&mut option);
    for text in [
        "ControlPersist=no",
        "ExitOnForwardFailure=no",
        "ForwardAgent=no",
        "ForwardX11=no",
        // Forwardings in the user's ssh_config are for people.
        "ClearAllForwardings=yes",
        "PermitLocalCommand=no",
        "RemoteCommand=none",
        "RequestTTY=no",
    ] {
        option(text.into());
    }
    if let Some(port) = login.port {
        option(format!("Port={port}"));
    }
    if let Some(jump) = &login.jump {
        option(format!("ProxyCommand={}", jump_command(login, jump)));
    }
    if let Some(identity) = &login.identity {
        words.extend(["-o".into(), "IdentitiesOnly=yes".into(), "-i".into(), identity.into()]);
    }
    words
}

/// Strict keys from opsh's own list, and asking instead of a terminal; for the target and for the jump host.
fn host_key_options(login: &Login) -> Vec<String> {
    let (interval, count) = alive(login.alive_s);
    vec![
        format!("UserKnownHostsFile=\"{}\"", login.known_hosts.display()),
        "GlobalKnownHostsFile=/dev/null".into(),
        "StrictHostKeyChecking=ask".into(),
        "NoHostAuthenticationForLocalhost=no".into(),
        "HashKnownHosts=no".into(),
        "UpdateHostKeys=no".into(),
        "VerifyHostKeyDNS=no".into(),
        "BatchMode=no".into(),
        // The second question is the proof that the first answer was wrong.
        "NumberOfPasswordPrompts=2".into(),
        format!("ConnectTimeout={CONNECT_S}"),
        format!("ServerAliveInterval={interval}"),
        format!("ServerAliveCountMax={count}"),
    ]
}

/// Seconds between signs of life, and how many unanswered ones end a link: three of them in `alive_s`, as far as whole
/// seconds allow.
fn alive(alive_s: u32) -> (u32, u32) {
    let interval = alive_s.div_ceil(3).max(1);
    (interval, (alive_s / interval).max(1))
}

/// `-J` would give the jump host's ssh none of our options, so it is started as a command. Hosts before the last one
/// of a list go to it by `-J`, with the keys of the user's own list.
fn jump_command(login: &Login, jump: &str) -> String {
    let (before, last) = jump.rsplit_once(',').map_or((None, jump), |(before, last)| (Some(before), last));
    let before = before.map(|hosts| format!("-J {} ", quote(hosts))).unwrap_or_default();
    let options: Vec<String> = host_key_options(login).iter().map(|text| format!("-o {}", quote(text))).collect();
    let has_port = last.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let last = if has_port { format!("ssh://{last}") } else { last.to_string() };
    format!("ssh -T {before}{} -o PermitLocalCommand=no -W '[%h]:%p' -- {}", options.join(" "), quote(&last))
}

/// Refuses what ssh would read as something else than it is.
pub fn check(login: &Login) -> Result<()> {
    let plain = |text: &str, more: &str| {
        !text.is_empty() && !text.starts_with('-') && text.chars().all(|c| c.is_alphanumeric() || more.contains(c))
    };
    let path = login.known_hosts.to_string_lossy();
    let wrong = if !plain(&login.name, "._-") {
        format!("the name {:?} may have letters, digits and . _ - only", login.name)
    } else if !plain(&login.dest, "@.:_-[]%+/\\") {
        format!("the address {:?} is not user@host or a name in ~/.ssh/config", login.dest)
    } else if login.jump.as_deref().is_some_and(|jump| !plain(jump, "@.:_-[],")) {
        format!("the jump host {:?} is not user@host or user@host:port", login.jump.as_deref().unwrap_or_default())
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
        Out::Ended => failure::read(&ssh.stderr.text(), answers),
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

#[cfg(test)]
mod tests {
    use super::alive;

    #[test]
    fn silence_ends_a_link_after_the_configured_time_and_half_of_it_again_at_most() {
        assert_eq!((alive(2), alive(15), alive(120)), ((1, 2), (5, 3), (40, 3)));
        for alive_s in 2..=120 {
            let (interval, count) = alive(alive_s);
            let noticed = interval * count..=interval * (count + 1);
            assert!(
                *noticed.end() >= alive_s && *noticed.end() <= alive_s + alive_s.div_ceil(2),
                "{alive_s}: {noticed:?}"
            );
            assert!(interval * count <= alive_s, "{alive_s}");
        }
    }
}

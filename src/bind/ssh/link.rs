//! Everything about one login that is held open: its ssh, its channels, and its end.

use super::Login;
use super::asks::Answers;
use super::failure::Trouble;
use super::hello::START_WITHIN;
use super::hostkey;
use super::launch::{self, ControlDir, Ssh, end_group};
use super::route::{self, Route};
use crate::error::{Error, Kind, Result};
use crate::gate::Pass;
use openssh::Session;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Mutex, MutexGuard, OwnedRwLockReadGuard, OwnedSemaphorePermit, RwLock, Semaphore, watch};

/// sshd allows 10 sessions per connection by default; 8 leaves room for a person.
const CHANNELS: usize = 8;
/// What ssh says of a session that sshd does not allow.
pub(super) const REFUSED: &str = "refused by peer";
/// A throttled login is tried again this often; nothing ran at the server before.
const RETRIES: u32 = 5;
/// ssh closes its channels a moment before it ends itself.
const LOSS_KNOWN_WITHIN: Duration = Duration::from_millis(500);

/// A host that let us in, over one ssh that all commands share. Clones are the same link; when the last one is
/// dropped, ssh ends.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    name: String,
    session: Arc<Session>,
    control: PathBuf,
    channels: Arc<Semaphore>,
    allows_few: AtomicBool,
    /// Milliseconds that our `sh` may take to say hello.
    start_within_ms: AtomicU64,
    /// Held by whatever ends a program that did not end with its pipes.
    reaping: Arc<RwLock<()>>,
    kills: Mutex<()>,
    /// Dropped or set: ssh is to end.
    close: watch::Sender<bool>,
    /// Why ssh ended, once it has.
    ended: watch::Receiver<Option<String>>,
}

/// Logs in to a host.
///
/// Must be called on the runtime's own long-lived thread: ssh ends with the thread that started it. Keys, the agent,
/// `~/.ssh/config` and jump hosts work as for `ssh`; a password is tried once. Fails with `Denied` (keys, passwords),
/// `Unreachable` (also after 10 s without an answer, or 60 s in all), `Usage` or `NotFound` (no ssh here).
pub async fn connect(pass: &Pass, login: &Login) -> Result<Link, LoginFailed> {
    launch::check(login)?;
    let route = route::find(pass, login).await?;
    let (mut tried, mut pinned) = (0, hostkey::known_pin(login));
    let mut sought = false;
    loop {
        let dir = ControlDir::make(&login.control_dir)?;
        let trouble = match attempt(pass, login, &route, dir, pinned.as_deref()).await? {
            Ok(link) => return Ok(link),
            Err(trouble) => trouble,
        };
        match trouble {
            Trouble::Throttled if tried < RETRIES => {
                tokio::time::sleep(backoff(tried)).await;
                tried += 1;
            }
            // A host may have several keys, and shows one at a time.
            Trouble::KeyNotPinned { .. } if !sought => {
                sought = true;
                pinned = hostkey::offered_pin(pass, login, &route).await?;
                if pinned.is_none() {
                    return Err(LoginFailed::new(trouble, login));
                }
            }
            trouble => return Err(LoginFailed::new(trouble, login)),
        }
    }
}

/// A login that failed.
#[derive(Debug)]
pub struct LoginFailed {
    /// Error for the operator.
    pub error: Error,
    /// A configured password was given and not accepted: giving it again would only lock the account.
    pub password_refused: bool,
}

impl LoginFailed {
    fn new(trouble: Trouble, login: &Login) -> LoginFailed {
        let password_refused = matches!(trouble, Trouble::WrongPassword { .. });
        LoginFailed { error: hostkey::with_known(trouble, login), password_refused }
    }
}

impl From<Error> for LoginFailed {
    fn from(error: Error) -> LoginFailed {
        LoginFailed { error, password_refused: false }
    }
}

impl From<LoginFailed> for Error {
    fn from(failed: LoginFailed) -> Error {
        failed.error
    }
}

/// 0.2 s, doubled each time, times 0.5 to 1.5: many hosts behind one bastion must not try again in step.
fn backoff(tried: u32) -> Duration {
    let mut dice = [0; 1];
    let _ = getrandom::fill(&mut dice);
    Duration::from_millis(200 << tried).mul_f64(0.5 + f64::from(dice[0]) / 255.0)
}

/// `pinned` is a line of a list of host keys, with the key that the pin means.
async fn attempt(
    pass: &Pass,
    login: &Login,
    route: &Route,
    dir: ControlDir,
    pinned: Option<&str>,
) -> Result<Result<Link, Trouble>> {
    let control = dir.master();
    // The key belongs to the name in opsh.toml, wherever its address points today.
    let mut options = vec![format!("HostKeyAlias={}", login.alias())];
    if login.host_key.is_some() {
        // A pin decides alone: what else is known of the host is not looked at.
        options.push(format!("UserKnownHostsFile=\"{}\"", dir.keys().display()));
        hostkey::list_for(&dir.keys(), pinned)
            .map_err(|e| Error::new(Kind::Failed, format!("cannot log in to {}", login.name), e.to_string()))?;
    }
    let options = options.into_iter().flat_map(|text| ["-o".into(), text.into()]);
    let extra: Vec<_> = ["-M".into(), "-S".into(), control.clone().into()].into_iter().chain(options).collect();
    let mut ssh = Ssh::start(pass, login, route, &dir, &extra).await?;
    let mut answers = Answers::new(login, route);
    // The socket's file is there a moment before it listens.
    let ready = || control.exists() && std::os::unix::net::UnixStream::connect(&control).is_ok();
    if let Err(out) = ssh.log_in(pass, &mut answers, ready).await {
        // One that went on in the background has another process group, and this socket.
        let _ = tokio::time::timeout(Duration::from_millis(300), terminate(&control)).await;
        return Ok(Err(launch::trouble(out, &ssh, &answers)));
    }
    Ok(Ok(Link::hold(login.name.clone(), ssh, dir)))
}

impl Link {
    fn hold(name: String, ssh: Ssh, dir: ControlDir) -> Link {
        let control = dir.master();
        let (close, closing) = watch::channel(false);
        let (tell, ended) = watch::channel(None);
        tokio::spawn(hold(ssh, dir, closing, tell));
        Link(Arc::new(Inner {
            name,
            session: Arc::new(Session::resume_mux(control.clone().into_boxed_path(), None)),
            control,
            channels: Arc::new(Semaphore::new(CHANNELS)),
            allows_few: AtomicBool::new(false),
            start_within_ms: AtomicU64::new(START_WITHIN.as_millis() as u64),
            reaping: Arc::default(),
            kills: Mutex::default(),
            close,
            ended,
        }))
    }

    /// The host's name in opsh.toml.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Why the connection is gone, once it is. A host that went silent is noticed after [`Login::alive_s`].
    pub fn gone(&self) -> Option<String> {
        self.0.ended.borrow().clone()
    }

    /// Ends the connection and waits for it, at most a second. Commands that still run on it are ended.
    pub async fn close(&self) {
        let _ = self.0.close.send(true);
        let _ = self.lost_within(Duration::from_secs(1)).await;
    }

    /// Why the connection was lost, if it is within this time.
    pub async fn lost_within(&self, time: Duration) -> Option<String> {
        let mut ended = self.0.ended.clone();
        let waited = tokio::time::timeout(time, ended.wait_for(Option::is_some)).await;
        waited.ok()?.ok()?.clone()
    }

    /// The same of a link whose channel just ended, as a sentence.
    pub async fn why_lost(&self) -> Option<String> {
        self.lost_within(LOSS_KNOWN_WITHIN).await.map(|why| self.was_lost(&why))
    }

    /// The same of a link whose channel `ended`, or of one that is known to be lost.
    pub(super) async fn why_lost_if(&self, ended: bool) -> Option<String> {
        if ended { self.why_lost().await } else { self.gone().map(|why| self.was_lost(&why)) }
    }

    /// The master's control socket.
    pub(super) fn control(&self) -> &Path {
        &self.0.control
    }

    pub(super) fn session(&self) -> Arc<Session> {
        self.0.session.clone()
    }

    /// A place among the channels that the host allows.
    pub(super) async fn permit(&self) -> Result<OwnedSemaphorePermit, String> {
        let permit = self.0.channels.clone().acquire_owned().await.map_err(|e| e.to_string())?;
        match self.gone() {
            Some(why) => Err(self.was_lost(&why)),
            None => Ok(permit),
        }
    }

    /// True when it has refused a channel for so long that it allows fewer than we use.
    pub(super) fn allows_few(&self) -> bool {
        self.0.allows_few.load(Ordering::Relaxed)
    }

    pub(super) fn set_allows_few(&self) {
        self.0.allows_few.store(true, Ordering::Relaxed);
    }

    /// How long a channel waits for the hello of our `sh`.
    pub(super) fn start_within(&self) -> Duration {
        Duration::from_millis(self.0.start_within_ms.load(Ordering::Relaxed))
    }

    /// The same, shorter, for logins that will not say it.
    #[cfg(test)]
    pub(super) fn set_start_within(&self, time: Duration) {
        self.0.start_within_ms.store(time.as_millis() as u64, Ordering::Relaxed);
    }

    /// Delays [`Link::reaped`] until it is dropped.
    pub(super) fn reaping(&self) -> Option<OwnedRwLockReadGuard<()>> {
        Arc::clone(&self.0.reaping).try_read_owned().ok()
    }

    /// The turn to kill a program on the host.
    pub(super) async fn one_kill(&self) -> MutexGuard<'_, ()> {
        self.0.kills.lock().await
    }

    /// Waits until programs that hung have been ended on the host.
    pub async fn reaped(&self) {
        drop(self.0.reaping.write().await);
    }

    pub(super) fn was_lost(&self, why: &str) -> String {
        format!("the connection to {} was lost: {why}", self.name())
    }

    /// Why a channel did not open, from the crate's word for it.
    pub(super) async fn why_no_channel(&self, error: &str) -> String {
        if let Some(why) = self.lost_within(Duration::from_millis(200)).await {
            return self.was_lost(&why);
        }
        if std::os::unix::net::UnixStream::connect(&self.0.control).is_err() {
            return self.was_lost("its control socket does not answer");
        }
        if error.contains(REFUSED) {
            return format!("{} refused another session: its sshd allows too few (MaxSessions)", self.name());
        }
        format!("no channel to {}: {error}", self.name())
    }

    /// The error for a caller that needs the link to be up.
    pub fn lost(&self) -> Option<Error> {
        let why = self.gone()?;
        Some(
            Error::new(Kind::Unreachable, format!("the connection to {} was lost", self.name()), why).host(self.name()),
        )
    }
}

/// Owns ssh for as long as the link lives, ends it, and tells why it ended.
async fn hold(mut ssh: Ssh, dir: ControlDir, mut closing: watch::Receiver<bool>, tell: watch::Sender<Option<String>>) {
    // What was said while it logged in, a banner or a warning, is not why it ends.
    let before = ssh.said();
    let why = tokio::select! {
        _ = closing.changed() => {
            end(&mut ssh, &dir.master()).await;
            "it was closed".to_string()
        }
        status = ssh.child.wait() => {
            let status = status.map_or_else(|e| e.to_string(), |status| status.to_string());
            ssh.said().last_since(&before).unwrap_or(format!("ssh ended: {status}"))
        }
    };
    drop(dir);
    tell.send_replace(Some(why));
}

/// Asks ssh to end, as `ssh -O exit` does, and kills it when it does not. A signal alone is noticed only with the next
/// keepalive in a few of a hundred cases.
async fn end(ssh: &mut Ssh, control: &Path) {
    let _ = tokio::time::timeout(Duration::from_millis(300), terminate(control)).await;
    if tokio::time::timeout(Duration::from_millis(300), ssh.child.wait()).await.is_err() {
        end_group(&mut ssh.child).await;
    }
}

async fn terminate(control: &Path) -> std::io::Result<()> {
    const HELLO: u32 = 1;
    const VERSION: u32 = 4;
    const TERMINATE: u32 = 0x1000_0005;
    const REQUEST: u32 = 0;
    let mut socket = tokio::net::UnixStream::connect(control).await?;
    for words in [[8, HELLO, VERSION], [8, TERMINATE, REQUEST]] {
        socket.write_all(&words.map(u32::to_be_bytes).concat()).await?;
    }
    socket.read_to_end(&mut Vec::new()).await.map(drop)
}

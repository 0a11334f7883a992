//! Everything about one process at the other end of three pipes, on this machine or over a link.

use super::hello::Hello;
use super::link::REFUSED;
use super::{Link, Reach};
use crate::gate::Pass;
use crate::redact;
use openssh::Session;
use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;

/// The reading end of a pipe.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// The writing end of a pipe.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A process with its pipes.
pub struct Channel {
    pub stdin: Option<Writer>,
    pub stdout: Reader,
    pub stderr: Reader,
    process: Option<Process>,
    permit: Option<OwnedSemaphorePermit>,
    /// A channel keeps its link open.
    link: Option<Link>,
    /// The process that is killed when it does not end with its pipes.
    program: Option<u32>,
}

enum Process {
    Local(tokio::process::Child),
    Remote(openssh::Child<Arc<Session>>),
}

/// An abandoned channel counts against the host's limit until it is closed, or this long: two graces and a sweep.
const REAPED_WITHIN: Duration = Duration::from_secs(8);
/// How long the program of a stream may take to end with its pipes.
const ENDS_WITHIN: Duration = Duration::from_millis(300);
/// How long ending it on the host may take.
const KILLED_WITHIN: Duration = Duration::from_secs(2);
/// How long a channel that a host refuses is asked for.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same once that was in vain.
const IMPATIENCE: Duration = Duration::from_millis(500);

impl Channel {
    /// Starts `script`, a constant without anybody's data, under `sh`, and waits until it has said hello. Fails with the
    /// reason; nothing was sent to whatever runs there then.
    pub async fn open(_: &Pass, reach: &Reach, script: &'static str) -> Result<Channel, String> {
        let link = match reach {
            Reach::Local => return local(script).map_err(|e| format!("sh does not start on this machine: {e}")),
            Reach::Ssh(link) => link,
        };
        let hello = Hello::new()?;
        let mut channel = remote(link, &super::quote::armour_with(script, hello.words())).await?;
        // Boxed: it is a part of the future of every effect, and each of them is kept small.
        match Box::pin(hello.heard(&mut channel, link.start_within())).await {
            Ok(()) => Ok(channel),
            Err(silence) => Err(match link.why_lost_if(silence.ended()).await {
                Some(why) => why,
                None => silence.why(&mut channel).await,
            }),
        }
    }

    /// Waits for the process: its exit status, or `None` when the link was lost before it was known.
    pub async fn wait(&mut self) -> Option<i32> {
        match self.process.take()? {
            Process::Local(mut child) => child.wait().await.ok()?.code(),
            Process::Remote(child) => exit_code(child.wait().await),
        }
    }
}

/// The crate turns exit status 127 into an error of its own.
fn exit_code(result: Result<std::process::ExitStatus, openssh::Error>) -> Option<i32> {
    match result {
        Ok(status) => status.code(),
        Err(openssh::Error::Remote(e)) if e.kind() == io::ErrorKind::NotFound => Some(127),
        Err(_) => None,
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.stdin = None;
        let (process, permit) = (self.process.take(), self.permit.take());
        let (Some(process), Ok(runtime)) = (process, tokio::runtime::Handle::try_current()) else { return };
        let stuck = self.program.zip(self.link.take()).map(|(pid, link)| (pid, link.reaping(), link));
        runtime.spawn(async move {
            let gone = gone(process);
            tokio::pin!(gone);
            if let Some((pid, _reaping, link)) = stuck {
                if tokio::time::timeout(ENDS_WITHIN, &mut gone).await.is_ok() {
                    return;
                }
                // A program that talks to a hung server does not see that its pipes are closed, and would hold one of the
                // host's sessions until that server goes on. One at a time: a kill takes a session, too.
                let _one = link.one_kill().await;
                let _ = tokio::time::timeout(KILLED_WITHIN, kill(&link, pid)).await;
            }
            let _ = tokio::time::timeout(REAPED_WITHIN, gone).await;
            drop(permit);
        });
    }
}

async fn kill(link: &Link, pid: u32) -> Result<(), openssh::Error> {
    let line = super::quote::armour(&format!("kill -s KILL {pid}"));
    let mut command = link.session().arc_raw_command(line);
    command.stdin(openssh::Stdio::null()).stdout(openssh::Stdio::null()).stderr(openssh::Stdio::null());
    command.spawn().await?.wait().await.map(drop)
}

async fn gone(process: Process) {
    match process {
        Process::Local(mut child) => drop(child.wait().await),
        Process::Remote(child) => drop(child.wait().await),
    }
}

fn local(script: &str) -> io::Result<Channel> {
    let mut command = tokio::process::Command::new("sh");
    command.arg("-c").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A session of its own, as sshd makes one: no controlling terminal, and a process group that can be signalled.
    // SAFETY: setsid is async-signal-safe and touches no memory.
    unsafe { command.pre_exec(own_session) };
    let mut child = command.spawn()?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(stderr)) = pipes else { return Err(io::ErrorKind::BrokenPipe.into()) };
    Ok(Channel {
        stdin: Some(Box::new(stdin)),
        stdout: Box::new(stdout),
        stderr: Box::new(stderr),
        process: Some(Process::Local(child)),
        permit: None,
        link: None,
        program: None,
    })
}

/// For `pre_exec`: makes the child the leader of a new session.
pub fn own_session() -> io::Result<()> {
    // SAFETY: a system call without pointers.
    if unsafe { libc::setsid() } == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Opens a channel for a line. A master that is asked for many at once may be too busy to be reached for a moment, and an
/// sshd counts a session that is just closing among those it allows, for a second on a host that is busy: nothing was sent
/// then, so it is asked again. Not for long on a host that allows fewer than we use: what we hold open may be what it is
/// waiting for.
async fn spawn(link: &Link, line: &str) -> Result<openssh::Child<Arc<Session>>, String> {
    let (since, mut tries) = (Instant::now(), 0);
    loop {
        let mut command = link.session().arc_raw_command(line);
        command.stdin(openssh::Stdio::piped()).stdout(openssh::Stdio::piped()).stderr(openssh::Stdio::piped());
        let error = match command.spawn().await {
            Ok(child) => return Ok(child),
            Err(error) => error,
        };
        tries += 1;
        // What ssh said of it is the error behind the crate's.
        let source = std::error::Error::source(&error).map_or(String::new(), |source| format!(": {source}"));
        let refused = source.contains(REFUSED);
        let passes = refused || matches!(error, openssh::Error::Connect(_));
        let patience = if link.allows_few() { IMPATIENCE } else { PATIENCE };
        if !passes || since.elapsed() > patience || link.gone().is_some() {
            if refused {
                link.set_allows_few();
            }
            return Err(link.why_no_channel(&format!("{error}{source}")).await);
        }
        tokio::time::sleep(Duration::from_millis(50) * tries.min(8)).await;
    }
}

async fn remote(link: &Link, line: &str) -> Result<Channel, String> {
    let permit = link.permit().await?;
    let mut child = spawn(link, line).await?;
    let pipes = (child.stdin().take(), child.stdout().take(), child.stderr().take());
    let (Some(stdin), Some(stdout), Some(stderr)) = pipes else { return Err("ssh opened no pipes".into()) };
    Ok(Channel {
        stdin: Some(Box::new(stdin)),
        stdout: Box::new(stdout),
        stderr: Box::new(stderr),
        process: Some(Process::Remote(child)),
        permit: Some(permit),
        link: Some(link.clone()),
        program: None,
    })
}

/// A program's stdin and stdout as one byte stream, for protocols that speak over them.
///
/// Dropping it closes both; the program is expected to end then, as `docker system dial-stdio` does.
pub struct Stream {
    channel: Channel,
    /// Bytes that were read together with the record before them.
    early: Vec<u8>,
    stderr: Complaints,
    /// The program's process id, of a stream over a link.
    program: Option<u32>,
}

/// What a stream's program has written to stderr so far. Cloned, it outlives the stream.
#[derive(Clone, Default)]
pub struct Complaints(Arc<Mutex<Vec<u8>>>);

/// Bytes of a stream's stderr that are kept; it is an error message, not data.
const COMPLAINTS_KEPT: usize = 64 * 1024;

impl Complaints {
    /// The text so far, at most its first 64 KiB.
    pub fn text(&self) -> String {
        redact::read_to(&self.lock(), COMPLAINTS_KEPT)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads to the end, whether or not it is kept: a full pipe would stop the program.
    async fn collect(self, mut reader: Reader) {
        let mut piece = [0; 4096];
        while let Ok(n @ 1..) = reader.read(&mut piece).await {
            let mut kept = self.lock();
            let room = COMPLAINTS_KEPT - kept.len();
            kept.extend_from_slice(&piece[..n.min(room)]);
        }
    }
}

impl Stream {
    pub(super) fn new(mut channel: Channel, program: Option<u32>, early: Vec<u8>) -> Stream {
        let complaints = Complaints::default();
        let stderr = std::mem::replace(&mut channel.stderr, Box::new(tokio::io::empty()));
        tokio::spawn(complaints.clone().collect(stderr));
        Stream { channel, early, stderr: complaints, program }
    }

    /// The same stream, whose program is killed when it does not end as soon as the stream is dropped.
    pub fn killing(mut self) -> Stream {
        self.channel.program = self.program;
        self
    }

    /// A handle to the program's stderr.
    pub fn complaints(&self) -> Complaints {
        self.stderr.clone()
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.channel.stdout).poll_read(cx, buf);
        }
        let n = self.early.len().min(buf.remaining());
        buf.put_slice(&self.early[..n]);
        self.early.drain(..n);
        Poll::Ready(Ok(()))
    }
}

impl Stream {
    fn writer(&mut self) -> io::Result<Pin<&mut Writer>> {
        self.channel.stdin.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writer()?.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Ok(writer) = self.writer() {
            std::task::ready!(writer.poll_shutdown(cx))?;
        }
        // Only dropping the pipe closes it; shutting it down does not.
        self.channel.stdin = None;
        Poll::Ready(Ok(()))
    }
}

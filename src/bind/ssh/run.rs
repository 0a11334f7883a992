//! Everything about one supervised command: sending it, reading its outputs, and saying how it ended.

use super::channel::{Channel, Reader, Stream, Writer};
use super::keep::{Keeper, Kept};
use super::records::{Record, Splitter, nonce};
use super::{Command, Finished, Outcome, Reach, quote, scripts};
use crate::error::{Error, Kind, Result};
use crate::gate::Pass;
use crate::redact;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

impl Reach {
    /// Runs a command and waits for it.
    ///
    /// It runs under a supervising shell on the host. Dropping the future, or losing this process, ends the whole
    /// process group there: INT, then TERM and KILL, 2 s apart. A child that it left in the background does not delay
    /// the result. Never fails by itself: what went wrong is the outcome.
    pub async fn run(&self, pass: &Pass, command: &Command) -> Finished {
        match scripts::program(&command.words, command.cwd.as_deref(), &command.env) {
            Ok(program) => self.supervise(pass, &program, &command.stdin, command.keep).await,
            Err(why) => Finished::not_started(why),
        }
    }

    /// Runs a script of ours, or the text that becomes a command, under the supervising shell.
    pub(super) async fn supervise(&self, pass: &Pass, program: &str, stdin: &[u8], keep: usize) -> Finished {
        self.follow(pass, program, stdin, keep, false).await
    }

    /// The same; with `watch`, what comes before the `answer` record goes to `pass.output` and is not kept.
    pub(super) async fn follow(&self, pass: &Pass, program: &str, stdin: &[u8], keep: usize, watch: bool) -> Finished {
        let nonce = match nonce() {
            Ok(nonce) => nonce,
            Err(why) => return Finished::not_started(why),
        };
        let waits = pass.waits_for(format!("a session on {}", self.name()));
        let mut channel = match Channel::open(pass, self, scripts::SUPERVISE).await {
            Ok(channel) => channel,
            // The program travels over the channel, so without a channel it cannot have run.
            Err(why) => return Finished::not_started(why),
        };
        drop(waits);
        let _waits = pass.waits_for(format!("the command on {} to end", self.name()));
        let live = || watch.then(|| Live::new(pass));
        let mut out = Output::new(&nonce, keep, live());
        let mut err = Output::new(&nonce, keep, live());
        let head = format!("{nonce} {} {}\n{}\n", scripts::GRACE_S, stdin.len(), quote::encode(program));
        let mut sent = false;
        {
            let Channel { stdin: lifeline, stdout, stderr, .. } = &mut channel;
            // When both outputs are done, nobody reads what is still to be sent.
            tokio::select! {
                _ = async { tokio::join!(out.read(stdout), err.read(stderr)) } => {}
                () = send(lifeline, &head, stdin, || {
                    pass.asking();
                    sent = true;
                }) => {}
            }
        }
        let outcome = self.outcome(&mut channel, sent, &out, &err).await;
        Finished { outcome, stdout: out.kept.done(), stderr: err.kept.done() }
    }

    async fn outcome(&self, channel: &mut Channel, sent: bool, out: &Output<'_>, err: &Output<'_>) -> Outcome {
        if let Some(outcome) = err.outcome().or_else(|| out.outcome()) {
            return outcome;
        }
        let status = tokio::time::timeout(STATUS_WITHIN, channel.wait()).await.ok().flatten();
        let started = out.started || err.started;
        match status {
            // The channel ended in order and nobody said "start".
            Some(code) if !started => Outcome::NotStarted(format!(
                "the supervising sh ended before it started anything (exit status {code}){}",
                err.noise_text().or_else(|| out.noise_text()).map(|text| format!(": {text}")).unwrap_or_default()
            )),
            _ if !sent => Outcome::NotStarted(self.why_lost().await),
            _ => Outcome::Unknown(self.why_lost().await),
        }
    }

    /// Why a channel ended without a word from the supervising shell.
    async fn why_lost(&self) -> String {
        match self {
            Reach::Local => "the supervising shell was killed".into(),
            Reach::Ssh(link) => {
                let killed = || format!("the supervising shell on {} was killed", link.name());
                link.why_lost().await.unwrap_or_else(killed)
            }
        }
    }

    /// Starts a program and gives its stdin and stdout as one stream.
    ///
    /// Fails when the program does not exist there (`NotFound`) or no channel opens (`Unreachable`).
    pub async fn stream(&self, pass: &Pass, words: &[String]) -> Result<Stream> {
        let what = format!("{} did not start on {}", words.first().map_or("nothing", String::as_str), self.name());
        let failed = |kind, why: String| Error::new(kind, what.clone(), why).host(self.name());
        let nonce = nonce().map_err(|why| failed(Kind::Failed, why))?;
        let program = scripts::stream(&nonce, words).map_err(|why| failed(Kind::Usage, why))?;
        if program.len() > quote::LONGEST {
            return Err(failed(Kind::Usage, format!("its words are longer than {} bytes", quote::LONGEST)));
        }
        let opened = Channel::open(pass, self, scripts::STREAM).await;
        let mut channel = opened.map_err(|why| failed(Kind::Unreachable, why))?;
        pass.asking();
        // A broken pipe is told by the end of the greeting.
        let _ = send_line(&mut channel.stdin, &quote::encode(&program)).await;
        match greeting(&mut channel.stdout, &nonce).await {
            Ok((pid, early)) => Ok(Stream::new(channel, pid, early)),
            Err(Some(why)) => Err(failed(Kind::NotFound, why)),
            Err(None) => Err(failed(Kind::Unreachable, self.why_lost().await)),
        }
    }
}

/// The exit status comes with the end of the outputs; a server that never sends one must not hang us.
const STATUS_WITHIN: Duration = Duration::from_secs(3);

impl Finished {
    /// A command that certainly did not run, with no output.
    pub(super) fn not_started(why: String) -> Finished {
        Finished { outcome: Outcome::NotStarted(why), stdout: Kept::default(), stderr: Kept::default() }
    }
}

/// Writes everything up to the word `go`, and leaves the pipe open: from then on it is the lifeline. Never returns.
async fn send(lifeline: &mut Option<Writer>, head: &str, data: &[u8], sending: impl FnOnce()) {
    // A broken pipe is told by the end of the outputs.
    let _ = send_all(lifeline, head, data, sending).await;
    std::future::pending().await
}

async fn send_all(
    lifeline: &mut Option<Writer>,
    head: &str,
    data: &[u8],
    sending: impl FnOnce(),
) -> std::io::Result<()> {
    let Some(pipe) = lifeline else { return Ok(()) };
    // The last bytes in one write, which is one packet for most commands: where Nagle's algorithm is on, a further
    // small packet may wait 40 ms for the other side's delayed acknowledgement.
    let (first, last) = data.split_at(data.len().saturating_sub(IN_ONE_WRITE));
    let mut start = head.as_bytes().to_vec();
    if !first.is_empty() {
        pipe.write_all(&start).await?;
        pipe.write_all(first).await?;
        start.clear();
    }
    // Without `go` the supervising shell starts nothing, so up to here a lost link is a certain "not started".
    sending();
    pipe.write_all(&[start.as_slice(), last, b"go\n"].concat()).await?;
    pipe.flush().await
}

async fn send_line(stdin: &mut Option<Writer>, line: &str) -> std::io::Result<()> {
    let Some(pipe) = stdin else { return Ok(()) };
    pipe.write_all(format!("{line}\n").as_bytes()).await?;
    pipe.flush().await
}

/// Bytes of stdin that travel together with the last word.
const IN_ONE_WRITE: usize = 16 * 1024;

/// An output that is passed on while the run writes it.
struct Live<'a> {
    pass: &'a Pass,
    /// Bytes of the output up to here were passed on or left out.
    at: u64,
    ends_line: bool,
    /// Where a gap began whose end is the next end of a line: the line that it cut may begin within a secret.
    gap: Option<u64>,
    /// Holds back what may be the beginning of a secret, so that a gap does not halve one.
    cleaner: redact::Stream,
}

impl Live<'_> {
    fn new(pass: &Pass) -> Live<'_> {
        Live { pass, at: 0, ends_line: true, gap: None, cleaner: redact::Stream::new() }
    }

    async fn show(&mut self, bytes: &[u8]) {
        let begin = match self.gap {
            Some(_) => redact::after_cut(bytes),
            None => Some(0),
        };
        self.at += begin.unwrap_or(bytes.len()) as u64;
        let Some(begin) = begin else { return };
        self.end_gap().await;
        if let [.., last] = &bytes[begin..] {
            self.ends_line = *last == b'\n';
            self.at += (bytes.len() - begin) as u64;
            let shown = self.cleaner.feed(&bytes[begin..]);
            self.pass.output(&shown).await;
        }
    }

    /// Goes on at this offset.
    fn go_to(&mut self, offset: u64) {
        if offset > self.at {
            // What is held back may be the first half of a secret: it is left out, too.
            let held = self.cleaner.end().len() as u64;
            self.ends_line &= held == 0;
            self.gap.get_or_insert(self.at.saturating_sub(held));
        }
        self.at = offset;
    }

    /// Says how much lies in the gap.
    async fn end_gap(&mut self) {
        let Some(from) = self.gap.take() else { return };
        let newline = if self.ends_line { "" } else { "\n" };
        let words = format!("{newline}… {} bytes left out …\n", self.at - from);
        self.pass.output(words.as_bytes()).await;
        self.ends_line = true;
    }

    /// Shows what was held back.
    async fn end(mut self) {
        self.end_gap().await;
        let rest = self.cleaner.end();
        self.pass.output(&rest).await;
    }
}

/// One output of a supervised command, with the records taken out.
struct Output<'a> {
    splitter: Option<Splitter>,
    kept: Keeper,
    /// Until the `answer` record, where what is read goes instead of being kept.
    live: Option<Live<'a>>,
    noise: Vec<u8>,
    started: bool,
    refused: Option<String>,
    ended: Option<i32>,
}

/// Bytes of a login shell's own output that are kept, to explain why it ran nothing.
const NOISE_KEPT: usize = 400;

impl<'a> Output<'a> {
    fn new(nonce: &str, keep: usize, live: Option<Live<'a>>) -> Output<'a> {
        Output {
            splitter: Some(Splitter::new(nonce)),
            kept: Keeper::new(keep),
            live,
            noise: Vec::new(),
            started: false,
            refused: None,
            ended: None,
        }
    }

    /// Reads up to the `end` record or the end of the stream.
    async fn read(&mut self, reader: &mut Reader) {
        let Some(mut splitter) = self.splitter.take() else { return };
        let mut piece = vec![0; 64 * 1024];
        while let Ok(n @ 1..) = reader.read(&mut piece).await {
            for part in splitter.feed(&piece[..n]) {
                match part {
                    Ok(bytes) => self.take(&bytes).await,
                    Err(record) => self.record(record).await,
                }
                if self.ended.is_some() {
                    return;
                }
            }
        }
        self.take(&splitter.rest()).await;
    }

    async fn take(&mut self, bytes: &[u8]) {
        match &mut self.live {
            _ if !self.started => {
                self.noise.extend_from_slice(&bytes[..bytes.len().min(NOISE_KEPT - self.noise.len())]);
            }
            Some(live) => live.show(bytes).await,
            None => self.kept.take(bytes),
        }
    }

    async fn record(&mut self, record: Record) {
        match record {
            Record::Start => self.started = true,
            Record::Pid(_) => {}
            Record::No(why) => self.refused = Some(why),
            Record::End(status) => self.ended = Some(status),
            Record::Answer => {
                if let Some(live) = self.live.take() {
                    live.end().await;
                }
            }
            Record::At(offset) => {
                if let Some(live) = &mut self.live {
                    live.go_to(offset);
                }
            }
        }
    }

    fn outcome(&self) -> Option<Outcome> {
        self.refused.clone().map(Outcome::NotStarted).or_else(|| self.ended.map(Outcome::Exited))
    }

    fn noise_text(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.noise).trim().replace('\n', " / ");
        (!text.is_empty()).then_some(text)
    }
}

/// Reads up to the record that says the program is there, and gives its process id and what was read beyond the record.
/// Fails with the script's reason, or with nothing when the channel ended.
async fn greeting(stdout: &mut Reader, nonce: &str) -> Result<(Option<u32>, Vec<u8>), Option<String>> {
    let mut splitter = Splitter::new(nonce);
    let (mut piece, mut program) = (vec![0; 4096], None);
    while let Ok(n @ 1..) = stdout.read(&mut piece).await {
        let mut parts = splitter.feed(&piece[..n]).into_iter();
        while let Some(part) = parts.next() {
            match part {
                Err(Record::Pid(pid)) => program = Some(pid),
                Err(Record::Start) => {
                    let mut early: Vec<u8> = parts.filter_map(|part| part.ok()).flatten().collect();
                    early.extend(splitter.rest());
                    return Ok((program, early));
                }
                Err(Record::No(why)) => return Err(Some(why)),
                _ => {}
            }
        }
    }
    Err(None)
}

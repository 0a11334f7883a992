//! Container logs: frames joined into lines, lines sorted by time, memory bounded.

use super::engine::Engine;
use super::model::Ran;
use super::transport::next_chunk;
use crate::error::Result;
use crate::gate::Pass;
use crate::redact;
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use std::collections::VecDeque;
use std::time::Duration;

/// Which lines to read.
#[derive(Clone, Debug)]
pub struct LogQuery {
    /// The newest so many; None is all.
    pub tail: Option<u32>,
    /// Not older than this, in unix seconds by the Engine's clock.
    pub since_s: Option<i64>,
    /// Not newer than this, in unix seconds by the Engine's clock.
    pub until_s: Option<i64>,
    /// Only lines that hold this text.
    pub grep: Option<String>,
    /// At most so many bytes of text are kept: the newest ones.
    pub keep: usize,
}

impl LogQuery {
    /// The newest `tail` lines.
    pub fn newest(tail: u32, keep: usize) -> LogQuery {
        LogQuery { tail: Some(tail), since_s: None, until_s: None, grep: None, keep }
    }

    fn path(&self, id: &str) -> String {
        let mut path = format!("/containers/{id}/logs?stdout=1&stderr=1");
        path.push_str(&self.tail.map(|n| format!("&tail={n}")).unwrap_or_default());
        path.push_str(&self.since_s.map(|s| format!("&since={s}")).unwrap_or_default());
        path.push_str(&self.until_s.map(|s| format!("&until={s}")).unwrap_or_default());
        path
    }

    fn wants(&self, line: &str) -> bool {
        self.grep.as_ref().is_none_or(|text| line.contains(text))
    }
}

/// One stream of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output; with a terminal, everything.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogLine {
    /// When the Engine read the line's first byte.
    #[serde(serialize_with = "as_text")]
    pub at: Timestamp,
    /// Where it was written.
    pub stream: Stream,
    /// Text without its line end; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// Lines by time, and whether there were more.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Logs {
    /// Lines, oldest first.
    pub lines: Vec<LogLine>,
    /// Older lines that did not fit into `keep`, and bytes' worth of a line longer than that, are not here.
    pub dropped: u64,
}

fn as_text<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

impl Engine {
    /// Reads a container's log. A line longer than the Engine's 16 KiB pieces comes whole.
    pub async fn logs(&self, id: &str, query: &LogQuery) -> Result<Logs> {
        let what = format!("cannot read the log of container {id}");
        let tty = self.inspect(id).await?.tty;
        let path = format!("{}&timestamps=1", query.path(id));
        let mut body = self.read(&what, self.http().get(&path)).await?.into_body();
        let mut joiner = Joiner::new(query.clone(), tty);
        let mut frames = Frames::new(tty);
        while let Some(chunk) = self.read(&what, next_chunk(&mut body)).await? {
            frames.feed(&chunk, |frame| joiner.feed(frame));
        }
        Ok(joiner.finish())
    }

    /// Shows a container's log as it is written, until the container ends.
    pub async fn follow(&self, id: &str, query: &LogQuery, pass: &Pass) -> Result<()> {
        let what = format!("cannot follow the log of container {id}");
        let mut frames = Frames::new(self.inspect(id).await?.tty);
        let path = format!("{}&follow=1", query.path(id));
        let mut body = self.read(&what, self.http().get(&path)).await?.into_body();
        let mut sieve = Sieve::default();
        while let Some(chunk) = self.read(&what, next_chunk(&mut body)).await? {
            let mut out = Vec::new();
            frames.feed(&chunk, |frame| sieve.feed(&frame, query, &mut out));
            if !out.is_empty() {
                pass.output(&out).await;
            }
        }
        Ok(())
    }

    /// stdout and stderr of a container that has ended, as they were written.
    pub(super) async fn output(&self, what: &str, id: &str, tty: bool, keep: usize) -> Result<(Kept, Kept)> {
        let path = format!("/containers/{id}/logs?stdout=1&stderr=1");
        let mut body = self.read(what, self.http().get(&path)).await?.into_body();
        let (mut out, mut err) = (Kept::new(keep), Kept::new(keep));
        let mut frames = Frames::new(tty);
        while let Some(chunk) = self.read(what, next_chunk(&mut body)).await? {
            frames.feed(&chunk, |frame| match frame.stream {
                Stream::Stdout => out.push(frame.bytes),
                Stream::Stderr => err.push(frame.bytes),
            });
        }
        Ok((out, err))
    }

    /// The last few lines on one line, for an error's "why"; empty when there are none or they do not come soon.
    pub(super) async fn last_words(&self, id: &str) -> String {
        let query = LogQuery::newest(20, 2000);
        let Ok(Ok(logs)) = tokio::time::timeout(Duration::from_secs(2), self.logs(id, &query)).await else {
            return String::new();
        };
        let lines: Vec<&str> = logs.lines.iter().map(|line| line.text.trim()).collect();
        redact::last_lines(&lines.join("\n"), 3).replace('\n', " | ")
    }
}

/// A piece of one stream. With a terminal there are no frames on the wire, and each chunk is one.
pub(super) struct Frame<'a> {
    pub(super) stream: Stream,
    pub(super) bytes: &'a [u8],
    /// These bytes begin a frame.
    first: bool,
}

/// Cuts the Engine's multiplexed stream: 8 bytes of header (stream, 0, 0, 0, length), then so many bytes.
pub(super) struct Frames {
    tty: bool,
    header: Vec<u8>,
    left: usize,
    /// Within a sentence that has no header.
    unframed: bool,
}

impl Frames {
    pub(super) fn new(tty: bool) -> Frames {
        Frames { tty, header: Vec::with_capacity(8), left: 0, unframed: false }
    }

    pub(super) fn feed(&mut self, mut chunk: &[u8], mut take: impl FnMut(Frame<'_>)) {
        if self.tty {
            return take(Frame { stream: Stream::Stdout, bytes: chunk, first: false });
        }
        while !chunk.is_empty() {
            let mut first = false;
            // A sentence of the Engine's own has no header. It begins with a letter, where streams have the numbers 0 to 2.
            if self.left == 0 && (self.unframed || (self.header.is_empty() && chunk[0] > 2)) {
                let end = chunk.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
                let (bytes, rest) = chunk.split_at(end.unwrap_or(chunk.len()));
                take(Frame { stream: Stream::Stdout, bytes, first: false });
                (chunk, self.unframed) = (rest, end.is_none());
                continue;
            }
            if self.left == 0 {
                let (head, rest) = chunk.split_at(chunk.len().min(8 - self.header.len()));
                self.header.extend_from_slice(head);
                chunk = rest;
                let Some(length) = self.header.get(4..8) else { continue };
                self.left = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
                first = true;
            }
            let stream = if self.header.first() == Some(&2) { Stream::Stderr } else { Stream::Stdout };
            let (bytes, rest) = chunk.split_at(chunk.len().min(self.left));
            take(Frame { stream, bytes, first });
            chunk = rest;
            self.left -= bytes.len();
            if self.left == 0 {
                self.header.clear();
            }
        }
    }
}

/// Lines that are wanted, of what is shown as it comes. Without a text to look for everything is, at once.
#[derive(Default)]
struct Sieve([Open; 2]);

impl Sieve {
    fn feed(&mut self, frame: &Frame<'_>, query: &LogQuery, out: &mut Vec<u8>) {
        if query.grep.is_none() {
            return out.extend_from_slice(frame.bytes);
        }
        let open = &mut self.0[frame.stream as usize];
        for piece in frame.bytes.split_inclusive(|byte| *byte == b'\n') {
            let ends = piece.ends_with(b"\n");
            let fits = piece.len().min(query.keep.saturating_sub(open.bytes.len()));
            open.bytes.extend_from_slice(&piece[..fits]);
            open.cut |= fits < piece.len();
            if ends {
                let open = std::mem::take(open);
                if query.wants(&String::from_utf8_lossy(&open.bytes)) {
                    match open.cut {
                        true => out.extend_from_slice(format!("{}\n", redact::begun(&open.bytes)).as_bytes()),
                        false => out.extend_from_slice(&open.bytes),
                    }
                }
            }
        }
    }
}

/// The Engine cuts long lines into messages of this size and puts a time before each.
const PIECE: usize = 16 * 1024;

/// Bytes of a time stamp; it has 35 at most.
const LONGEST_STAMP: usize = 64;

/// A line that has not ended.
#[derive(Default)]
struct Open {
    at: Option<Timestamp>,
    bytes: Vec<u8>,
    /// The time at the start of a frame, while it is not whole.
    stamp: Option<Vec<u8>>,
    /// Bytes since the last time stamp, to find the next one where there are no frames.
    since_stamp: usize,
    cut: bool,
}

/// Joins frames into lines.
struct Joiner {
    query: LogQuery,
    tty: bool,
    open: [Open; 2],
    lines: VecDeque<LogLine>,
    bytes: usize,
    dropped: u64,
}

impl Joiner {
    fn new(query: LogQuery, tty: bool) -> Joiner {
        Joiner { query, tty, open: Default::default(), lines: VecDeque::new(), bytes: 0, dropped: 0 }
    }

    fn feed(&mut self, frame: Frame<'_>) {
        if frame.first {
            self.open[frame.stream as usize].stamp = Some(Vec::new());
        }
        let mut rest = frame.bytes;
        while !rest.is_empty() {
            rest = self.step(frame.stream, rest);
        }
    }

    /// Takes the next stamp, or bytes up to a line's end, and returns what is left.
    fn step<'a>(&mut self, stream: Stream, bytes: &'a [u8]) -> &'a [u8] {
        let open = &mut self.open[stream as usize];
        if self.tty && open.stamp.is_none() && (open.at.is_none() || open.since_stamp == PIECE) {
            open.stamp = Some(Vec::new());
        }
        if let Some(stamp) = open.stamp.as_mut() {
            let end = bytes.iter().position(|byte| *byte == b' ');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            stamp.extend_from_slice(&part[..part.len().min(LONGEST_STAMP.saturating_sub(stamp.len()))]);
            let Some(end) = end else { return &[] };
            let at = std::str::from_utf8(stamp).ok().and_then(|text| text.parse().ok());
            open.at = open.at.or(at);
            open.stamp = None;
            open.since_stamp = 0;
            return &bytes[end + 1..];
        }
        let room = if self.tty { PIECE - open.since_stamp } else { bytes.len() };
        let part = &bytes[..bytes.len().min(room)];
        let end = part.iter().position(|byte| *byte == b'\n');
        let text = &part[..end.unwrap_or(part.len())];
        let fits = text.len().min(self.query.keep.saturating_sub(open.bytes.len()));
        open.bytes.extend_from_slice(&text[..fits]);
        open.cut |= fits < text.len();
        open.since_stamp += text.len();
        match end {
            Some(end) => {
                self.close(stream);
                &bytes[end + 1..]
            }
            None => &bytes[part.len()..],
        }
    }

    fn close(&mut self, stream: Stream) {
        let open = std::mem::take(&mut self.open[stream as usize]);
        let text = match open.cut {
            true => redact::begun(&open.bytes),
            false => String::from_utf8_lossy(open.bytes.strip_suffix(b"\r").unwrap_or(&open.bytes)).into_owned(),
        };
        if !self.query.wants(&text) {
            return;
        }
        self.bytes += text.len() + size_of::<LogLine>();
        self.dropped += u64::from(open.cut);
        self.lines.push_back(LogLine { at: open.at.unwrap_or_default(), stream, text });
        // An empty line costs memory too, so the struct counts; the newest line always stays.
        while self.bytes > self.query.keep && self.lines.len() > 1 {
            let oldest = self.lines.pop_front();
            self.bytes -= oldest.map(|line| line.text.len() + size_of::<LogLine>()).unwrap_or_default();
            self.dropped += 1;
        }
    }

    fn finish(mut self) -> Logs {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if self.open[stream as usize].at.is_some() {
                self.close(stream);
            }
        }
        let mut lines = Vec::from(self.lines);
        // The Engine sends the two streams as it read them; equal times keep that order.
        lines.sort_by_key(|line| line.at);
        Logs { lines, dropped: self.dropped }
    }
}

/// Output with its middle left out when it is too long.
pub(super) struct Kept {
    half: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    left_out: u64,
}

impl Kept {
    /// Keeps at most `keep` bytes: the first half and the last half.
    pub(super) fn new(keep: usize) -> Kept {
        Kept { half: keep / 2, head: Vec::new(), tail: VecDeque::new(), left_out: 0 }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = (self.half - self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..room]);
        self.tail.extend(&bytes[room..]);
        let over = self.tail.len().saturating_sub(self.half);
        self.tail.drain(..over);
        self.left_out += over as u64;
    }

    /// The first bytes, for looking at how the output begins.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    fn into_bytes(self) -> Vec<u8> {
        let (mut head, mut tail) = (self.head, Vec::from(self.tail));
        if self.left_out > 0 {
            let kept = head.len() + tail.len();
            redact::whole_lines(&mut head, &mut tail);
            let left_out = self.left_out + (kept - head.len() - tail.len()) as u64;
            head.extend_from_slice(format!("… {left_out} bytes left out …\n").as_bytes());
        }
        head.append(&mut tail);
        head
    }
}

/// What a command left behind, from its kept streams.
pub(super) fn ran(exit: i64, stdout: Kept, stderr: Kept) -> Ran {
    let left_out = stdout.left_out + stderr.left_out;
    Ran { exit, stdout: stdout.into_bytes(), stderr: stderr.into_bytes(), left_out }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Lab;
    use super::*;

    const ALL: LogQuery = LogQuery { tail: None, since_s: None, until_s: None, grep: None, keep: 1 << 20 };

    fn frame(stream: u8, text: &str) -> Vec<u8> {
        let mut out = vec![stream, 0, 0, 0];
        out.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
        out.extend(text.as_bytes());
        out
    }

    fn join(tty: bool, wire: &[u8], chunk: usize, keep: usize) -> Logs {
        let (mut joiner, mut frames) = (Joiner::new(LogQuery { keep, ..ALL }, tty), Frames::new(tty));
        wire.chunks(chunk).for_each(|chunk| frames.feed(chunk, |frame| joiner.feed(frame)));
        joiner.finish()
    }

    #[test]
    fn lines_are_the_same_wherever_the_network_cuts_them() {
        let t = |n: u8| format!("2026-01-02T03:04:05.00000000{n}Z ");
        let wire = [
            frame(1, &format!("{}long ", t(1))),
            frame(2, &format!("{}err\n", t(3))),
            frame(1, &format!("{}line\n", t(2))),
            frame(1, &format!("{}\n", t(4))),
            frame(1, &format!("{}no end", t(5))),
        ]
        .concat();
        for chunk in [1, 2, 7, 40, 1000] {
            let logs = join(false, &wire, chunk, 1000);
            let texts: Vec<(Stream, &str)> = logs.lines.iter().map(|l| (l.stream, l.text.as_str())).collect();
            let want = [
                (Stream::Stdout, "long line"),
                (Stream::Stderr, "err"),
                (Stream::Stdout, ""),
                (Stream::Stdout, "no end"),
            ];
            assert_eq!(texts, want, "chunks of {chunk}");
        }
    }

    #[test]
    fn a_line_is_looked_at_as_a_whole_however_it_comes() {
        let query = LogQuery { grep: Some("status=5".into()), ..ALL };
        let (mut sieve, mut out) = (Sieve::default(), Vec::new());
        for (stream, text) in
            [(Stream::Stdout, "a sta"), (Stream::Stderr, "x\n"), (Stream::Stdout, "tus=500\nstatus=200\nsta")]
        {
            sieve.feed(&Frame { stream, bytes: text.as_bytes(), first: false }, &query, &mut out);
        }
        assert_eq!(out, b"a status=500\n");
    }

    #[test]
    fn a_time_stamp_without_an_end_takes_no_memory() {
        let (mut joiner, mut frames) = (Joiner::new(ALL, false), Frames::new(false));
        frame(1, &"x".repeat(8 << 20)).chunks(4096).for_each(|chunk| frames.feed(chunk, |frame| joiner.feed(frame)));
        let held: usize = joiner.open.iter().flat_map(|open| &open.stamp).map(Vec::capacity).sum();
        assert!(held <= 2 * LONGEST_STAMP, "{held} bytes");
    }

    #[test]
    fn a_sentence_without_a_header_is_read_up_to_its_end() {
        let wire = [b"OCI runtime exec failed: x\r\n".to_vec(), frame(2, "err\n"), frame(1, "out")].concat();
        for chunk in [1, 5, 1000] {
            let (mut frames, mut out, mut err) = (Frames::new(false), Vec::new(), Vec::new());
            let mut take = |frame: Frame<'_>| match frame.stream {
                Stream::Stdout => out.extend_from_slice(frame.bytes),
                Stream::Stderr => err.extend_from_slice(frame.bytes),
            };
            wire.chunks(chunk).for_each(|chunk| frames.feed(chunk, &mut take));
            assert_eq!((&out[..], &err[..]), (&b"OCI runtime exec failed: x\r\nout"[..], &b"err\n"[..]), "{chunk}");
        }
    }

    #[test]
    fn only_the_newest_lines_are_kept() {
        let wire: Vec<u8> = (0..100).flat_map(|n| frame(1, &format!("2026-01-02T03:04:05Z line {n}\n"))).collect();
        let logs = join(false, &wire, 64, 500);
        assert_eq!(logs.lines.last().unwrap().text, "line 99");
        assert!(logs.lines.len() < 10 && logs.dropped == 100 - logs.lines.len() as u64, "{}", logs.dropped);
    }

    #[test]
    fn kept_output_has_its_head_and_its_tail() {
        let mut kept = Kept::new(8);
        for byte in b"ab\ndefghi\nkl" {
            kept.push(&[*byte]);
        }
        assert_eq!((kept.head(), kept.left_out), (&b"ab\nd"[..], 4));
        assert_eq!(String::from_utf8(kept.into_bytes()).unwrap(), "ab\n… 7 bytes left out …\nkl");
    }

    #[tokio::test]
    async fn a_line_longer_than_a_message_comes_whole_in_both_modes() {
        let Some(lab) = Lab::open().await else { return };
        let script = "head -c 40000 /dev/zero | tr '\\0' x; echo; echo after; sleep 0.2; echo oops >&2";
        for (name, options) in [("plain", &[][..]), ("tty", &["-t"][..])] {
            let id = lab.run(name, options, &["sh", "-c", script]);
            lab.docker(&["wait", &id]);
            let logs = lab.engine.logs(&id, &ALL).await.unwrap();
            let lengths: Vec<usize> = logs.lines.iter().map(|line| line.text.len()).collect();
            assert_eq!((lengths, logs.dropped), (vec![40000, 5, 4], 0), "{name}");
            assert_eq!(logs.lines[2].stream == Stream::Stderr, name == "plain");
        }
    }

    #[tokio::test]
    async fn tail_and_since_leave_the_rest_out() {
        let Some(lab) = Lab::open().await else { return };
        let id = lab.run("a", &[], &["seq", "100"]);
        lab.docker(&["wait", &id]);
        let two = lab.engine.logs(&id, &LogQuery { tail: Some(2), ..ALL }).await.unwrap();
        assert_eq!(two.lines.iter().map(|l| l.text.as_str()).collect::<Vec<_>>(), ["99", "100"]);
        let later = two.lines[1].at.as_second() + 1;
        assert!(lab.engine.logs(&id, &LogQuery { since_s: Some(later), ..ALL }).await.unwrap().lines.is_empty());
        let some = LogQuery { grep: Some("7".into()), ..ALL };
        let seven = lab.engine.logs(&id, &some).await.unwrap().lines;
        assert_eq!((seven.len(), seven[0].text.as_str(), seven[18].text.as_str()), (19, "7", "97"));
        let far = LogQuery { since_s: Some(5_000_000_000), ..ALL };
        assert!(lab.engine.logs(&id, &far).await.unwrap().lines.is_empty());
    }
}

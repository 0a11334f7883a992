//! Byte streams to a Docker Engine, and HTTP over them with kept connections.
#![expect(clippy::disallowed_methods, reason = "the home of the Engine's socket; `Engine::connect` takes the pass")]

use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderMap, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde_json::Value;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Any bidirectional byte stream.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Opens one stream to the Engine: the local socket, or `docker system dial-stdio` in an ssh channel.
pub type Dial = Arc<dyn Fn() -> BoxFuture<'static, io::Result<Box<dyn Io>>> + Send + Sync>;

/// Says what the dialled channel wrote to stderr so far; empty for a local socket.
pub type Reason = Arc<dyn Fn() -> String + Send + Sync>;

/// Dials the Engine's unix socket on this machine, as a rule `/var/run/docker.sock`.
pub fn unix_dial(path: impl Into<PathBuf>) -> Dial {
    let path = path.into();
    Arc::new(move || {
        let path = path.clone();
        Box::pin(async move { Ok(Box::new(tokio::net::UnixStream::connect(path).await?) as Box<dyn Io>) })
    })
}

/// The same, and sets `opened` once a stream was opened.
pub fn telling(dial: Dial, opened: Arc<AtomicBool>) -> Dial {
    Arc::new(move || {
        let (stream, opened) = (dial(), Arc::clone(&opened));
        Box::pin(async move {
            let stream = stream.await?;
            opened.store(true, Ordering::Release);
            Ok(stream)
        })
    })
}

/// One stream out of a process's or channel's two ends; `owner` lives as long as it.
///
/// Its shutdown drops the writing end. A pipe's own shutdown does nothing, and a command that reads its stdin to the end
/// would wait for ever.
pub fn two_ends<R, W, O>(read: R, write: W, owner: O) -> Box<dyn Io>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
    O: Unpin + Send + 'static,
{
    Box::new(TwoEnds { read, write: Some(write), _owner: owner })
}

struct TwoEnds<R, W, O> {
    read: R,
    write: Option<W>,
    _owner: O,
}

impl<R: AsyncRead + Unpin, W: Unpin, O: Unpin> AsyncRead for TwoEnds<R, W, O> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl<R: Unpin, W: AsyncWrite + Unpin, O: Unpin> AsyncWrite for TwoEnds<R, W, O> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.write.as_mut() {
            Some(write) => Pin::new(write).poll_write(cx, buf),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write.as_mut().map_or(Poll::Ready(Ok(())), |write| Pin::new(write).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(write) = self.write.as_mut() {
            std::task::ready!(Pin::new(write).poll_shutdown(cx))?;
        }
        self.write = None;
        Poll::Ready(Ok(()))
    }
}

/// Bytes of an answer that is no stream.
const MOST_ANSWER: usize = 32 << 20;

/// Values in an answer. An object counts as eight, since it takes as much memory.
const MOST_VALUES: usize = 1_000_000;

/// Bytes of the sentence with which the Engine refuses a call.
const MOST_SENTENCE: usize = 64 << 10;

/// Bytes of one line of an answer that goes on.
const MOST_LINE: usize = 1 << 20;

/// An answer of more bytes is decoded on a thread of its own: signals and deadlines wait for the I/O thread.
const LONG: usize = 256 << 10;

/// The longest wait for the head of an answer. Bodies have no limit here: the caller's deadline drops the future.
const ANSWER: Duration = Duration::from_secs(120);

/// The host in each request's URI; the dialler decides where requests really go.
const AUTHORITY: &str = "http://opsh-docker";

/// The failure of a call to the Engine.
#[derive(Debug)]
pub(super) enum Wire {
    /// The Engine refused it, with this HTTP status and sentence.
    Refused { status: u16, message: String },
    /// The head of the answer did not come in time.
    Late,
    /// The answer exceeds this bound.
    TooLarge(String),
    /// The request was not answered.
    Request(hyper_util::client::legacy::Error),
    /// The answer broke off.
    Body(hyper::Error),
    /// The stream behind an upgraded connection broke.
    Stream(io::Error),
    /// The answer is not what it should be.
    Text(String),
}

impl std::fmt::Display for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wire::Refused { status, message } => write!(f, "status {status}: {message}"),
            Wire::Late => f.write_str("no answer in time"),
            Wire::TooLarge(bound) => write!(f, "it is too large: more than {bound}"),
            Wire::Request(error) => error.fmt(f),
            Wire::Body(error) => error.fmt(f),
            Wire::Stream(error) => error.fmt(f),
            Wire::Text(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Wire {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Wire::Request(error) => error.source(),
            Wire::Body(error) => error.source(),
            Wire::Stream(error) => error.source(),
            _ => None,
        }
    }
}

impl From<hyper::Error> for Wire {
    fn from(error: hyper::Error) -> Wire {
        Wire::Body(error)
    }
}

/// HTTP to one Engine. What it answers is bounded here, in bytes and in decoded values: the Engine may lie.
pub(super) struct Http(Client<Dialer, Full<Bytes>>);

impl Http {
    /// Nothing is dialled before the first request.
    pub(super) fn new(dial: Dial) -> Http {
        // Each kept connection holds one of the ten sessions that sshd grants, so few are kept, and not for long.
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_timer(TokioTimer::new()).pool_idle_timeout(Duration::from_secs(30)).pool_max_idle_per_host(2);
        Http(client.build(Dialer(dial)))
    }

    /// GETs a path with its query, already encoded, for an answer that goes on.
    pub(super) async fn get(&self, path: &str) -> Result<Response<Incoming>, Wire> {
        self.call(Request::get(uri(path)), None, ANSWER).await
    }

    /// GETs JSON of whatever shape.
    pub(super) async fn get_json(&self, path: &str) -> Result<Value, Wire> {
        json(self.get(path).await?).await
    }

    /// The head of what a GET would answer.
    pub(super) async fn head(&self, path: &str) -> Result<HeaderMap, Wire> {
        Ok(self.call(Request::head(uri(path)), None, ANSWER).await?.into_parts().0.headers)
    }

    /// DELETEs what is at a path.
    pub(super) async fn delete(&self, path: &str) -> Result<Value, Wire> {
        json(self.call(Request::delete(uri(path)), None, ANSWER).await?).await
    }

    /// POSTs JSON; an answer without a text is null.
    pub(super) async fn post(&self, path: &str, body: Option<&Value>) -> Result<Value, Wire> {
        self.post_waiting(path, body, 0).await
    }

    /// The same with more patience than usual, for calls that the Engine answers only when they are done.
    pub(super) async fn post_waiting(&self, path: &str, body: Option<&Value>, extra_s: u32) -> Result<Value, Wire> {
        let patience = ANSWER + Duration::from_secs(u64::from(extra_s));
        json(self.call(Request::post(uri(path)), body, patience).await?).await
    }

    /// POSTs JSON and takes the connection over: what is written goes to a program, what is read is its output.
    pub(super) async fn upgrade(&self, path: &str, body: &Value) -> Result<TokioIo<Upgraded>, Wire> {
        let request = Request::post(uri(path)).header(CONNECTION, "Upgrade").header(UPGRADE, "tcp");
        let answer = self.call(request, Some(body), ANSWER).await?;
        Ok(TokioIo::new(hyper::upgrade::on(answer).await?))
    }

    /// A status that is no success is an error with the Engine's sentence. "Not modified" is one: it is so already.
    async fn call(
        &self,
        request: hyper::http::request::Builder,
        body: Option<&Value>,
        patience: Duration,
    ) -> Result<Response<Incoming>, Wire> {
        let text = body.map(Value::to_string).unwrap_or_default();
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(Bytes::from(text)));
        let request = request.map_err(|error| Wire::Text(format!("the request cannot be written: {error}")))?;
        let answer = tokio::time::timeout(patience, self.0.request(request)).await;
        let response = answer.map_err(|_| Wire::Late)?.map_err(Wire::Request)?;
        let status = response.status();
        if status.is_success() || [StatusCode::NOT_MODIFIED, StatusCode::SWITCHING_PROTOCOLS].contains(&status) {
            return Ok(response);
        }
        let body = whole(response.into_body(), MOST_SENTENCE).await?;
        let said: Value = decoded(&body).unwrap_or_default();
        let message = match said["message"].as_str() {
            Some(message) => message.to_owned(),
            None => String::from_utf8_lossy(&body).trim().to_owned(),
        };
        Err(Wire::Refused { status: status.as_u16(), message })
    }
}

fn uri(path: &str) -> String {
    format!("{AUTHORITY}{path}")
}

/// The JSON of an answer; null when it has no text.
async fn json(response: Response<Incoming>) -> Result<Value, Wire> {
    let body = whole(response.into_body(), MOST_ANSWER).await?;
    if body.len() < LONG {
        return decoded(&body);
    }
    let decoded = tokio::task::spawn_blocking(move || decoded(&body)).await;
    decoded.unwrap_or_else(|_| Err(Wire::Text("it could not be decoded".into())))
}

/// All of a body that ends within `most` bytes.
async fn whole(body: Incoming, most: usize) -> Result<Bytes, Wire> {
    match Limited::new(body, most).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => Err(match error.downcast::<hyper::Error>() {
            Ok(error) => Wire::Body(*error),
            Err(_) => Wire::TooLarge(bytes(most)),
        }),
    }
}

fn bytes(most: usize) -> String {
    if most < 1 << 20 { format!("{} KiB", most >> 10) } else { format!("{} MiB", most >> 20) }
}

/// The value of a text, whose values are counted before any of them takes memory.
fn decoded(text: &[u8]) -> Result<Value, Wire> {
    if text.is_empty() {
        return Ok(Value::Null);
    }
    if values_in(text) > MOST_VALUES {
        return Err(Wire::TooLarge(format!("{MOST_VALUES} values")));
    }
    serde_json::from_slice(text).map_err(|error| Wire::Text(error.to_string()))
}

/// About how many values a JSON text holds.
fn values_in(text: &[u8]) -> usize {
    let (mut values, mut rest) = (1, text.iter());
    while let Some(byte) = rest.next() {
        match byte {
            b',' | b'[' => values += 1,
            b'{' => values += 8,
            // The string up to its end: an escaped quote does not end it.
            b'"' => {
                while let Some(byte) = rest.next().filter(|byte| **byte != b'"') {
                    if *byte == b'\\' {
                        rest.next();
                    }
                }
            }
            _ => {}
        }
    }
    values
}

/// Lines of a body that goes on. One that is too long is an error.
pub(super) struct Lines {
    body: Incoming,
    text: Vec<u8>,
    /// Where the next line begins, and up to where no end of it was found.
    begin: usize,
    seen: usize,
}

impl Lines {
    pub(super) fn new(body: Incoming) -> Lines {
        Lines { body, text: Vec::new(), begin: 0, seen: 0 }
    }

    /// The next line; None at the end of the body.
    pub(super) async fn next(&mut self) -> Result<Option<&[u8]>, Wire> {
        loop {
            if let Some(end) = self.text[self.seen..].iter().position(|byte| *byte == b'\n') {
                let line = self.begin..self.seen + end;
                (self.begin, self.seen) = (line.end + 1, line.end + 1);
                return Ok(Some(&self.text[line]));
            }
            self.text.drain(..self.begin);
            (self.begin, self.seen) = (0, self.text.len());
            if self.text.len() > MOST_LINE {
                return Err(Wire::TooLarge(format!("{} in one line", bytes(MOST_LINE))));
            }
            let Some(chunk) = next_chunk(&mut self.body).await? else { return Ok(None) };
            self.text.extend_from_slice(&chunk);
        }
    }
}

/// Encodes one value of a query string.
pub(super) fn encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The next piece of a body; None at its end.
pub(super) async fn next_chunk(body: &mut Incoming) -> Result<Option<Bytes>, Wire> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

struct Conn(TokioIo<Box<dyn Io>>);

impl hyper::rt::Read for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Connection for Conn {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

#[derive(Clone)]
struct Dialer(Dial);

impl tower_service::Service<Uri> for Dialer {
    type Response = Conn;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Conn>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let stream = (self.0)();
        Box::pin(async move { Ok(Conn(TokioIo::new(stream.await?))) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// What an Engine says that answers each request with these bytes, and ends.
    fn saying(bytes: Vec<u8>) -> Http {
        let bytes = Arc::new(bytes);
        Http::new(Arc::new(move || {
            let (ours, mut theirs) = tokio::io::duplex(1 << 16);
            let bytes = Arc::clone(&bytes);
            tokio::spawn(async move {
                let _ = theirs.read(&mut [0; 4096]).await;
                let _ = theirs.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await;
                let _ = theirs.write_all(&bytes).await;
            });
            Box::pin(async move { Ok(Box::new(ours) as Box<dyn Io>) })
        }))
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_an_error_with_its_bound() {
        let text = [&b"one\n\ntwo\n"[..], &vec![b'x'; 8 << 20]].concat();
        let mut lines = Lines::new(saying(text).get("/events").await.unwrap().into_body());
        for line in ["one", "", "two"] {
            assert_eq!(lines.next().await.unwrap(), Some(line.as_bytes()));
        }
        let error = lines.next().await.unwrap_err();
        assert_eq!(error.to_string(), "it is too large: more than 1 MiB in one line");
    }

    #[tokio::test]
    async fn half_a_million_lines_in_one_piece_are_read_in_one_pass() {
        let mut lines = Lines::new(saying(b"x\n".repeat(500_000)).get("/events").await.unwrap().into_body());
        let mut count = 0;
        while lines.next().await.unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, 500_000);
    }

    #[test]
    fn values_are_counted_before_they_take_memory() {
        for (text, values) in [("[]", 2), ("[1,2]", 3), (r#"{"a":"[,{","b":"\\\"["}"#, 10), (r#""\""#, 1)] {
            assert_eq!(values_in(text.as_bytes()), values, "{text}");
        }
        let text = format!("[{}0]", "[0],".repeat(MOST_VALUES / 2));
        assert!(matches!(decoded(text.as_bytes()), Err(Wire::TooLarge(_))));
        assert!(matches!(decoded(b""), Ok(Value::Null)));
        assert!(matches!(decoded(b"["), Err(Wire::Text(_))));
    }

    #[test]
    fn a_query_value_keeps_its_bytes_through_the_url() {
        assert_eq!(encode(r#"{"label":["a=b c"]}"#), "%7B%22label%22%3A%5B%22a%3Db%20c%22%5D%7D");
        assert_eq!(encode("v1.9-rc_0~"), "v1.9-rc_0~");
    }
}

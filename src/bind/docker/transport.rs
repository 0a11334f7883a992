//! Byte streams to a Docker Engine, and HTTP over them with kept connections.
#![expect(clippy::disallowed_methods, reason = "the home of bollard's constructor; `Engine::connect` takes the pass")]

use bollard::errors::Error as Wire;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
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
const MOST_ANSWER: usize = 64 << 20;

/// The longest wait for the head of an answer. Bodies have no limit here: the caller's deadline drops the future.
pub(super) const ANSWER: Duration = Duration::from_secs(120);

/// The host in each request's URI; the dialler decides where requests really go.
const AUTHORITY: &str = "http://opsh-docker";

type Transport = Arc<dyn Fn(BollardRequest) -> BoxFuture<'static, Result<Response<Incoming>, Wire>> + Send + Sync>;

/// HTTP to one Engine: bollard, and plain GETs where bollard's types are closed or lose something
/// (unknown states are parse errors, times are whole seconds in 32 bits, terminals are guessed from bytes).
pub(super) struct Http {
    pub(super) docker: Docker,
    transport: Transport,
}

impl Http {
    /// Nothing is dialled before the first request.
    pub(super) fn new(dial: Dial) -> Result<Http, Wire> {
        // Each kept connection holds one of the ten sessions that sshd grants, so few are kept, and not for long.
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(2)
            .build(Dialer(dial));
        let transport: Transport = Arc::new(move |request| {
            let client = client.clone();
            Box::pin(async move { client.request(request).await.map_err(Wire::from) })
        });
        let shared = transport.clone();
        let docker = Docker::connect_with_custom_transport(
            move |request| shared(request),
            Some(AUTHORITY),
            ANSWER.as_secs(),
            API_DEFAULT_VERSION,
        )?;
        Ok(Http { docker, transport })
    }

    /// GETs a path with its query, already encoded; a status other than 2xx is an error with the daemon's sentence.
    pub(super) async fn get(&self, path: &str) -> Result<Response<Incoming>, Wire> {
        let uri: Uri = format!("{AUTHORITY}{path}").parse()?;
        let request = Request::get(uri).body(bollard::body_full(Bytes::new()))?;
        let answer = tokio::time::timeout(ANSWER, (self.transport)(request)).await;
        let response = answer.map_err(|_| Wire::RequestTimeoutError)??;
        if response.status().is_success() {
            return Ok(response);
        }
        let status_code = response.status().as_u16();
        let body = whole(response.into_body()).await?;
        let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let message = match said["message"].as_str() {
            Some(message) => message.to_owned(),
            None => String::from_utf8_lossy(&body).trim().to_owned(),
        };
        Err(Wire::DockerResponseServerError { status_code, message })
    }

    /// GETs JSON of whatever shape.
    pub(super) async fn get_json(&self, path: &str) -> Result<serde_json::Value, Wire> {
        let body = whole(self.get(path).await?.into_body()).await?;
        Ok(serde_json::from_slice(&body)?)
    }
}

/// All of a body that is not a stream.
async fn whole(body: Incoming) -> Result<Bytes, Wire> {
    let limited = Limited::new(body, MOST_ANSWER).collect().await;
    limited.map(http_body_util::Collected::to_bytes).map_err(|error| Wire::IOError { err: io::Error::other(error) })
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

    #[test]
    fn a_query_value_keeps_its_bytes_through_the_url() {
        assert_eq!(encode(r#"{"label":["a=b c"]}"#), "%7B%22label%22%3A%5B%22a%3Db%20c%22%5D%7D");
        assert_eq!(encode("v1.9-rc_0~"), "v1.9-rc_0~");
    }
}

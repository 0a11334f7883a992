//! A GET with the time of each phase. Home of `hyper` as a client over TCP, and of `tokio-rustls`.

use crate::error::{Error, Kind, Result};
use crate::gate::Pass;
use crate::redact;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{self, CertificateError, ClientConfig, RootCertStore};

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The beginning of the body.
    pub body: String,
    /// Name to address.
    pub dns_ms: f64,
    /// TCP.
    pub connect_ms: f64,
    /// TLS; 0 for http.
    pub tls_ms: f64,
    /// From the request to the first byte of the answer.
    pub first_byte_ms: f64,
    /// All of it.
    pub total_ms: f64,
}

impl Answer {
    /// As scripts see it; milliseconds with one decimal.
    pub fn into_json(self) -> Value {
        let ms = |value: f64| (value * 10.0).round() / 10.0;
        json!({
            "status": self.status, "body": self.body, "dns_ms": ms(self.dns_ms), "connect_ms": ms(self.connect_ms),
            "tls_ms": ms(self.tls_ms), "first_byte_ms": ms(self.first_byte_ms), "total_ms": ms(self.total_ms),
        })
    }
}

/// GETs `url`; `keep` bytes of the body at most.
pub async fn get(pass: &Pass, url: &str, timeout: Duration, keep: usize) -> Result<Answer> {
    get_seeing(pass, url, timeout, keep, &mut None).await
}

/// As [`get`]; `ends` becomes when the server's certificate ends, seconds since 1970, also when that is why it fails.
pub async fn get_seeing(
    pass: &Pass,
    url: &str,
    timeout: Duration,
    keep: usize,
    ends: &mut Option<u64>,
) -> Result<Answer> {
    let what = || format!("GET {url} failed");
    let uri: Uri = url
        .parse()
        .map_err(|error: hyper::http::uri::InvalidUri| Error::new(Kind::Usage, what(), error.to_string()))?;
    let host = uri.host().ok_or_else(|| Error::new(Kind::Usage, what(), "the URL names no host"))?.to_string();
    let phase = Phase::default();
    let _waits = pass.waits_for(format!("{host} to answer GET"));
    match tokio::time::timeout(timeout, phases(pass, &uri, &host, keep, ends, &phase)).await {
        Ok(result) => result.map_err(|(phase, why)| Error::new(Kind::Unreachable, what(), format!("{phase}: {why}"))),
        Err(_) => {
            let (phase, ms) = (phase.now(), timeout.as_millis());
            Err(Error::new(Kind::Timeout, what(), format!("no answer within {ms} ms: {phase}")))
        }
    }
}

/// Phase that a GET waits for, as an error names it.
struct Phase(Mutex<&'static str>);

impl Default for Phase {
    fn default() -> Phase {
        Phase(Mutex::new("the name is not resolved"))
    }
}

impl Phase {
    fn begin(&self, what: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    fn now(&self) -> &'static str {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Failed = (&'static str, String);

fn at<E: std::fmt::Display>(phase: &'static str) -> impl Fn(E) -> Failed {
    move |error| (phase, error.to_string())
}

#[expect(clippy::disallowed_methods, reason = "the one place that opens a TCP connection, and it takes a pass")]
async fn phases(
    _: &Pass,
    uri: &Uri,
    host: &str,
    keep: usize,
    ends: &mut Option<u64>,
    phase: &Phase,
) -> Result<Answer, Failed> {
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let began = Instant::now();
    let name = host.trim_matches(['[', ']']);
    let addresses: Vec<_> = tokio::net::lookup_host((name, port)).await.map_err(at("dns"))?.collect();
    let resolved = Instant::now();
    phase.begin("the TCP connection is not accepted");
    let stream = TcpStream::connect(addresses.as_slice()).await.map_err(at("connect"))?;
    let connected = Instant::now();
    phase.begin("the connection was accepted, and TLS is not answered");
    let (mut answer, ready) = if secure {
        let name = ServerName::try_from(name.to_string()).map_err(at("tls"))?;
        let stream = TlsConnector::from(tls()).connect(name, stream).await;
        *ends = match &stream {
            Ok(stream) => stream.get_ref().1.peer_certificates().and_then(|chain| end_of(chain.first()?)),
            Err(error) => error.get_ref().and_then(|error| ended(error.downcast_ref()?)),
        };
        let stream = stream.map_err(at("tls"))?;
        let ready = Instant::now();
        (exchange(stream, uri, host, keep, phase).await?, ready)
    } else {
        (exchange(stream, uri, host, keep, phase).await?, connected)
    };
    let ms = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1000.0;
    answer.dns_ms = ms(began, resolved);
    answer.connect_ms = ms(resolved, connected);
    answer.tls_ms = ms(connected, ready);
    answer.total_ms = ms(began, Instant::now());
    Ok(answer)
}

async fn exchange<S>(stream: S, uri: &Uri, host: &str, keep: usize, phase: &Phase) -> Result<Answer, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(at("request"))?;
    let driver = tokio::spawn(connection);
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    let host_header = authority.rsplit('@').next().unwrap_or(authority);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header("host", host_header)
        .header("user-agent", concat!("opsh/", env!("CARGO_PKG_VERSION")))
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(at("request"))?;
    let sent = Instant::now();
    phase.begin("the connection was accepted, and the request is not answered");
    let mut response = sender.send_request(request).await.map_err(at("response"))?;
    let first_byte_ms = sent.elapsed().as_secs_f64() * 1000.0;
    phase.begin("the answer began, and its body does not end");
    let mut body = Vec::new();
    while let Some(frame) = response.frame().await {
        let frame = frame.map_err(at("body"))?;
        if let Some(bytes) = frame.data_ref() {
            body.extend_from_slice(&bytes[..bytes.len().min(keep - body.len())]);
        }
        if body.len() >= keep {
            break;
        }
    }
    driver.abort();
    let body = redact::read_to(&body, keep);
    let status = response.status().as_u16();
    Ok(Answer { status, body, dns_ms: 0.0, connect_ms: 0.0, tls_ms: 0.0, first_byte_ms, total_ms: 0.0 })
}

/// When a certificate ends. rustls does not tell that, but says so when it is asked whether one is valid at the end of time.
fn end_of(certificate: &CertificateDer<'_>) -> Option<u64> {
    let last = UnixTime::since_unix_epoch(Duration::from_secs(253_402_300_799));
    let known = ring::default_provider().signature_verification_algorithms.all;
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    ended(&verify_server_cert_signed_by_trust_anchor(&parsed, &RootCertStore::empty(), &[], last, known).err()?)
}

/// When the certificate ended that was refused for that.
fn ended(error: &rustls::Error) -> Option<u64> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            Some(not_after.as_secs())
        }
        _ => None,
    }
}

/// The system's roots, loaded at the first https probe.
fn tls() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let make = || {
        let mut roots = RootCertStore::empty();
        for certificate in rustls_native_certs::load_native_certs().certs {
            // A root that cannot be parsed cannot vouch for anybody.
            let _ = roots.add(certificate);
        }
        Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
    };
    Arc::clone(CONFIG.get_or_init(make))
}

//! One Docker Engine: connecting, asking, and how its failures are told.

use super::fault::{self, Sent};
use super::transport::{Dial, Http, Reason, Wire};
use crate::bind::ssh::Reach;
use crate::error::{Error, Kind, Result};
use crate::gate::{Clears, Pass, Remains, Waiting, Waits};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What the Engine says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Version {
    /// Release, e.g. `20.10.24`.
    pub engine: String,
    /// Newest API version it speaks, e.g. `1.41`.
    pub api: String,
    /// Oldest API version it speaks, e.g. `1.12`.
    pub oldest_api: String,
}

/// A handle to one Docker Engine; clones share its connections.
///
/// Every future can be dropped at any point: reads leave nothing behind; a change that was sent may have happened.
/// No call has a deadline of its own for its body, so callers bring one.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
    behalf: Option<Arc<Behalf>>,
}

/// The effect that a handle belongs to.
struct Behalf {
    /// Where calls say what they wait for.
    waits: Waits,
    /// Where calls that are given up have cleared what they left behind.
    clears: Clears,
    /// The machine that the Engine was dialled on, and a token for what is left to do there.
    reach: Reach,
    pass: Pass,
}

struct Inner {
    http: Http,
    host: String,
    reason: Reason,
    /// A call was given up before it was answered: whether the Engine still answers is not known.
    doubted: AtomicBool,
}

/// A call that waits for its answer. Dropped before that, it leaves a doubt.
struct Asked<'a>(&'a Inner, bool);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.doubted.store(true, Ordering::Release);
        }
    }
}

impl Engine {
    /// Dials, and asks for the version.
    ///
    /// `host` is the name used in errors; `reason` says what the dialled channel wrote to stderr.
    /// Errors: `denied` (socket permissions), `not_found` (no docker command), `unreachable` (no daemon), `failed`
    /// (a docker command without dial-stdio), each with what to do.
    pub async fn connect(_pass: &Pass, host: &str, dial: Dial, reason: Reason) -> Result<Engine> {
        let what = format!("cannot use Docker on {host}");
        let http = Http::new(dial);
        // No version stands in a path: each Engine then speaks its own, and none refuses the newest or the oldest.
        let asked = match http.get_json("/version").await {
            Ok(said) if said["ApiVersion"].is_string() => Ok(()),
            Ok(_) => Err(Wire::Text("it has no API version".into())),
            Err(wire) => Err(wire),
        };
        if let Err(wire) = asked {
            let said = said_late(&reason, &wire).await;
            return Err(fault::explain(&what, host, Sent::Read, &said, &wire));
        }
        let inner = Inner { http, host: host.to_owned(), reason, doubted: AtomicBool::new(false) };
        Ok(Engine { inner: Arc::new(inner), behalf: None })
    }

    /// The same Engine, whose calls say in the name of this pass what they wait for, and have cleared what they left behind
    /// when they are given up. `reach` is the way on which it was dialled.
    pub fn on_behalf(&self, pass: &Pass, reach: &Reach) -> Engine {
        let (waits, clears, reach) = (pass.waits(), pass.clears(), reach.clone());
        let behalf = Behalf { waits, clears, reach, pass: pass.for_connection() };
        Engine { inner: Arc::clone(&self.inner), behalf: Some(Arc::new(behalf)) }
    }

    /// The machine that the Engine was dialled on.
    pub(super) fn host_behind(&self) -> Option<(&Reach, &Pass)> {
        self.behalf.as_ref().map(|behalf| (&behalf.reach, &behalf.pass))
    }

    /// Has cleared what a call that was given up left behind; see [`Clears::clear`].
    pub(super) fn clear(&self, otherwise: Remains, work: impl Future<Output = Option<Remains>> + Send + 'static) {
        match (&self.behalf, tokio::runtime::Handle::try_current()) {
            (Some(behalf), _) => behalf.clears.clear(otherwise, work),
            (None, Ok(runtime)) => drop(runtime.spawn(work)),
            (None, Err(_)) => {}
        }
    }

    /// True when a call was given up before the Engine answered it: the Engine may hang.
    pub fn is_doubted(&self) -> bool {
        self.inner.doubted.load(Ordering::Acquire)
    }

    /// The same Engine, which has just answered.
    pub fn trusted(self) -> Engine {
        self.inner.doubted.store(false, Ordering::Release);
        self
    }

    /// Release and API version.
    pub async fn version(&self) -> Result<Version> {
        let said = self.get("cannot ask the Docker Engine for its version", "/version").await?;
        let text = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
        Ok(Version { engine: text("Version"), api: text("ApiVersion"), oldest_api: text("MinAPIVersion") })
    }

    /// The folder in which it keeps images, containers and volumes.
    pub async fn root_dir(&self) -> Result<String> {
        let said = self.get("cannot ask the Docker Engine about itself", "/info").await?;
        Ok(said["DockerRootDir"].as_str().unwrap_or_default().to_owned())
    }

    /// The name used in errors.
    pub fn host(&self) -> &str {
        &self.inner.host
    }

    pub(super) fn http(&self) -> &Http {
        &self.inner.http
    }

    /// GETs JSON; `what` is the first half of the error.
    pub(super) async fn get(&self, what: &str, path: &str) -> Result<Value> {
        self.read(what, self.inner.http.get_json(path)).await
    }

    /// Waits for a call that only looks.
    pub(super) async fn read<T>(&self, what: &str, call: impl Future<Output = Result<T, Wire>>) -> Result<T> {
        self.told(what, Sent::Read, self.answered(call).await).await
    }

    /// Waits for a call that changes something: a connection lost after sending is then `unknown`.
    pub(super) async fn change<T>(&self, what: &str, call: impl Future<Output = Result<T, Wire>>) -> Result<T> {
        self.told(what, Sent::Change, self.answered(call).await).await
    }

    /// Says what its calls wait for on the whole, until the result is dropped: what happens in a container, behind the
    /// Engine that runs it.
    pub fn waits_for(&self, what: impl FnOnce() -> String) -> Option<Waiting> {
        self.waits().map(|waits| waits.waits_for(what()))
    }

    /// The same unless something is waited for already, which says more.
    pub(super) fn waits_at_least_for(&self, what: impl FnOnce() -> String) -> Option<Waiting> {
        self.waits().filter(|waits| !waits.is_told()).map(|waits| waits.waits_for(what()))
    }

    fn waits(&self) -> Option<&Waits> {
        self.behalf.as_ref().map(|behalf| &behalf.waits)
    }

    async fn answered<T>(&self, call: impl Future<Output = Result<T, Wire>>) -> Result<T, Wire> {
        let _waits =
            self.waits().map(|waits| waits.waits_for(format!("the Docker Engine on {} to answer", self.host())));
        let mut asked = Asked(&self.inner, false);
        let answer = call.await;
        asked.1 = !matches!(answer, Err(Wire::Late));
        answer
    }

    async fn told<T>(&self, what: &str, sent: Sent, answer: Result<T, Wire>) -> Result<T> {
        match answer {
            Ok(value) => Ok(value),
            Err(wire) => {
                let said = said_late(&self.inner.reason, &wire).await;
                Err(fault::explain(what, &self.inner.host, sent, &said, &wire))
            }
        }
    }

    /// An error about this Engine.
    pub(super) fn error(&self, kind: Kind, what: &str, why: impl Into<String>) -> Error {
        Error::new(kind, what, why).host(&self.inner.host)
    }

    /// Refuses what cannot be a container's name or id before it becomes part of a path.
    pub(super) fn known_name<'a>(&self, what: &str, name: &'a str) -> Result<&'a str> {
        let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric()) && name.chars().all(ok) {
            return Ok(name);
        }
        Err(self.error(Kind::Usage, what, format!("{name:?} cannot be the name of a container")))
    }

    /// Refuses what cannot name an image.
    pub(super) fn known_image<'a>(&self, what: &str, name: &'a str) -> Result<&'a str> {
        let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | ':' | '@');
        let start = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
        if start && name.chars().all(ok) && !name.contains("..") && !name.contains("//") {
            return Ok(name);
        }
        Err(self.error(Kind::Usage, what, format!("{name:?} cannot be the name of an image")))
    }
}

/// stderr of the channel. It travels beside the stream, so it may arrive a little after the stream has ended.
async fn said_late(reason: &Reason, wire: &Wire) -> String {
    let mut said = reason();
    for _ in 0..10 {
        if !said.is_empty() || !fault::is_transport(wire) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        said = reason();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Lab, local};
    use super::super::transport::{Io, unix_dial};
    use super::*;
    use std::sync::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn says(text: &'static str) -> Reason {
        Arc::new(move || text.to_owned())
    }

    /// A channel that opens and ends at once, as that of a failing `docker system dial-stdio` does.
    fn dead_end() -> Dial {
        Arc::new(|| Box::pin(async { Ok(Box::new(tokio::io::duplex(64).0) as Box<dyn Io>) }))
    }

    /// Answers questions for the version, and hangs up on anything else after having read it.
    fn hangs_up_on_changes() -> Dial {
        Arc::new(|| {
            let (ours, mut theirs) = tokio::io::duplex(4096);
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while let Ok(n @ 1..) = theirs.read(&mut request).await {
                    if !request[..n].starts_with(b"GET /version") {
                        return;
                    }
                    let body = r#"{"Version":"20.10","ApiVersion":"1.41"}"#;
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                    let _ = theirs.write_all(format!("{head}{body}").as_bytes()).await;
                }
            });
            Box::pin(async move { Ok(Box::new(ours) as Box<dyn Io>) })
        })
    }

    async fn connect(dial: Dial, reason: Reason) -> Result<Engine> {
        Engine::connect(&Pass::for_tests(), "prod-1", dial, reason).await
    }

    #[tokio::test]
    async fn what_the_channel_wrote_to_stderr_decides_why_there_is_no_engine() {
        let denied = "permission denied while trying to connect to the Docker daemon socket: dial unix /var/run/docker.sock: connect: permission denied";
        let error = connect(dead_end(), says(denied)).await.err().unwrap();
        assert_eq!((error.kind, error.host.as_deref()), (Kind::Denied, Some("prod-1")));
        let error = connect(dead_end(), says("sh: 1: docker: not found")).await.err().unwrap();
        assert_eq!(error.kind, Kind::NotFound);
        let error =
            connect(dead_end(), says("dial unix /x.sock: connect: no such file or directory")).await.err().unwrap();
        assert!(error.kind == Kind::Unreachable && error.why.contains("not running"), "{error}");
        let error = connect(unix_dial("/nowhere/docker.sock"), says("")).await.err().unwrap();
        assert!(error.kind == Kind::Unreachable && error.why.contains("not running"), "{error}");
    }

    #[tokio::test]
    async fn stderr_that_comes_after_the_end_of_the_stream_is_still_heard() {
        let asked = Arc::new(Mutex::new(0));
        let counted = asked.clone();
        let late: Reason = Arc::new(move || {
            let mut asked = counted.lock().unwrap();
            *asked += 1;
            if *asked > 3 { "docker: command not found".into() } else { String::new() }
        });
        assert_eq!(connect(dead_end(), late).await.err().unwrap().kind, Kind::NotFound);
    }

    #[tokio::test]
    async fn a_change_whose_connection_broke_is_unknown_and_a_read_is_unreachable() {
        let engine = connect(hangs_up_on_changes(), says("")).await.unwrap();
        let error = engine.restart("web", 1).await.unwrap_err();
        assert!(error.kind == Kind::Unknown && error.why.contains("may have happened"), "{error}");
        assert_eq!(engine.inspect("web").await.unwrap_err().kind, Kind::Unreachable);
    }

    #[tokio::test]
    async fn a_change_that_was_never_sent_is_unreachable() {
        let dialled = Mutex::new(0);
        let good = hangs_up_on_changes();
        let dial: Dial = Arc::new(move || {
            let mut dialled = dialled.lock().unwrap();
            *dialled += 1;
            if *dialled > 1 { unix_dial("/nowhere/docker.sock")() } else { good() }
        });
        let engine = connect(dial, says("")).await.unwrap();
        assert_eq!(engine.stop("web", 1).await.unwrap_err().kind, Kind::Unknown);
        assert_eq!(engine.stop("web", 1).await.unwrap_err().kind, Kind::Unreachable);
    }

    #[tokio::test]
    async fn the_version_is_told_and_requests_share_a_few_connections() {
        let Some(lab) = Lab::open().await else { return };
        let dialled = Arc::new(Mutex::new(0));
        let counted = dialled.clone();
        let dial: Dial = Arc::new(move || {
            *counted.lock().unwrap() += 1;
            local()()
        });
        let engine = connect(dial, says("")).await.unwrap();
        for _ in 0..20 {
            assert_eq!(engine.version().await.unwrap(), lab.engine.version().await.unwrap());
        }
        assert!(!engine.version().await.unwrap().api.is_empty());
        assert_eq!(*dialled.lock().unwrap(), 1);
    }

    #[test]
    fn every_future_can_move_between_threads() {
        fn is_send<T: Send>(_: T) {}
        fn all(engine: Engine) {
            is_send(engine.clone());
            is_send(engine.exec("", Default::default()));
            is_send(engine.has_files("", &[]));
            is_send(engine.once_start(&Default::default()));
            is_send(engine.once_wait("", 0));
            is_send(engine.restart("", 0));
            let goal = super::super::wait::Goal::Running { steady_s: 0 };
            is_send(engine.wait_state("", goal, Duration::ZERO));
        }
        let _ = all;
    }
}

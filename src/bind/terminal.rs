//! Programs that have the terminal themselves, on a host and in a container. What is done in one is not seen by opsh: the
//! record has its words, when it began and ended, and its exit code.

use super::docker::inside::running;
use super::fleet::Each;
use super::ssh::{Outcome, Reach};
use super::{Binding, Call, Change, Look, Receipt};
use crate::error::{Error, Kind, Result};
use crate::gate::verb::{Class, Verb};
use crate::gate::{Did, Pass};
use crate::redact;
use serde_json::json;

/// Docker holds the first of its own keys back until the next: these nobody types.
const KEYS: &str = "--detach-keys=ctrl-@,ctrl-_,ctrl-@";

/// A day: who sits at it ends it.
const WITHIN_S: u64 = 86_400;

const HOST: Verb = Verb {
    name: "host.terminal",
    class: Class::Change,
    waits: false,
    sig: "host.terminal(words: array) -> receipt",
    doc: "Gives the terminal to a program on the host. `words` are the program and its arguments; none at all are the \
          login's shell. Keys are the program's until it ends, Ctrl-C too; `Enter ~ .` leaves one that hangs. What is \
          done in it is not recorded and cannot be undone. Returns a receipt whose `after` holds `code`, the exit code, \
          whatever it is. Fails with `unmet` without a terminal, `usage` for a secret in `words` and on several hosts, \
          `not_found` without the program, `unknown` when the link broke or it was left. Deadline 86400 s.",
    example: r#"host("prod-1").terminal(["top"])"#,
};

const CONTAINER: Verb = Verb {
    name: "docker.terminal",
    class: Class::Change,
    waits: false,
    sig: "stack.terminal(service: string, words: array) -> receipt",
    doc: "Gives the terminal to a program in a container. That is the service's; it may go on in there when the link breaks, \
          and the code is 126 or 127 when it is not there. The rest is as for `host.terminal`. Fails with `failed` when \
          the container does not run, `not_found` without the program `docker` on the host. Deadline 86400 s.",
    example: r#"stack("prod").terminal("db", ["psql", "-U", "app"])"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[Binding::ChangeEach(&HOST, on_host), Binding::Change(&CONTAINER, in_container)];

fn on_host(call: &Call<'_>) -> Result<Each<Receipt>> {
    if call.is_fleet() {
        return Err(call.bad("one terminal is not given to programs on several hosts: name one host"));
    }
    let words = words(call, 0)?;
    let says = if words.is_empty() { "a shell".into() } else { super::ssh::readable(&words) };
    let change = |host| change(Look::at(host, &says, json!({ "words": words })));
    call.change_each(1, change, words.clone(), |pass, way, words| async move {
        let reach = way.reach(&pass).await?;
        done(&reach, &pass, &words, &words).await
    })
}

fn in_container(call: &Call<'_>) -> Result<Receipt> {
    let (service, words) = (call.text(0)?, words(call, 1)?);
    if words.is_empty() {
        return Err(call.bad("words is empty"));
    }
    let (stack, way) = call.stack_and_way()?;
    let says = format!("{service}: {}", super::ssh::readable(&words));
    let look = Look::at(call.world.stack_target(&stack), says, json!({ "service": service, "words": words }));
    call.change(change(look), (stack, way, service, words), |pass, (stack, way, service, words)| async move {
        let container = running(&way.engine(&pass).await?, &stack, &service).await?;
        let mut all = ["docker", "exec", "-it", KEYS, &container].map(String::from).to_vec();
        all.extend_from_slice(&words);
        done(&way.reach(&pass).await?, &pass, &all, &words).await
    })
}

/// The words of an argument. Fails with `usage` for one that holds a secret: everybody on the host sees them.
fn words(call: &Call<'_>, at: usize) -> Result<Vec<String>> {
    let words = call.words(at)?;
    match words.iter().find(|word| redact::clean(word) != **word) {
        Some(_) => Err(call.bad("a secret is in words, where everybody on the host sees it: type it into the program")),
        None => Ok(words),
    }
}

fn change(look: Look) -> Change {
    Change::of(look.within(WITHIN_S))
}

/// Runs `all`, which are `words` as they were given.
async fn done(reach: &Reach, pass: &Pass, all: &[String], words: &[String]) -> Result<Did> {
    let what = || format!("{} failed on {}", words.first().map_or("the shell", String::as_str), reach.name());
    let code = match reach.terminal(pass, all).await? {
        Outcome::Exited(code) => code,
        // It was said to be sent: `unreachable` would mean that it may have happened.
        Outcome::NotStarted(why) => return Err(Error::new(Kind::Failed, what(), why).host(reach.name())),
        Outcome::Unknown(why) => return Err(Error::new(Kind::Unknown, what(), why).host(reach.name())),
    };
    Ok(Did { changed: true, after: json!({ "code": code, "opaque": true }), ..Did::default() })
}

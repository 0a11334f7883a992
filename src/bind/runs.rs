//! What a script says of its own run: steps whose results are remembered, and work that goes back when it fails.

use super::undo::WayBack;
use super::values::{self, ExitCode, cause, from_json, root, thrown, to_json, type_name};
use super::{Binding, Call, RhaiResult, World};
use crate::error::{Error, Kind, Result};
use crate::gate::journal::{Fate, Told};
use crate::gate::policy::Mode;
use crate::gate::verb::{Class, Verb};
use crate::redact;
use rhai::{Dynamic, Engine, EvalAltResult, NativeCallContext};
use serde::Deserialize;
use serde_json::{Value, json};

/// The record of a step may be so many bytes large.
const LARGEST: usize = 64 << 10;

const STEP: Verb = Verb {
    name: "run.step",
    class: Class::Read,
    waits: false,
    sig: "step(name: string, work: closure) -> any",
    doc: "Calls `work` and remembers that it was done. Its result is kept under `name`. `opsh resume RUN` skips it: the closure is then not called, \
          and the remembered result is returned. What it returns must be plain (maps, \
          lists, strings, numbers, `()`), hold no secret, and be at most 64 KiB as JSON. A step that was cut short is done \
          again from its beginning, so it should bear that, as verbs that set a state do. A closure must not assign \
          variables of the script: a skipped step would not. Fails with `usage` for a name that was used in this run, \
          for a step within a step, and for a result that cannot be kept; else as `work` does. No deadline: that is `work`'s own.",
    example: r#"step("move the checkout", || stack("prod").repo.checkout("0123456789012345678901234567890123456789"))"#,
};

const GUARD: Verb = Verb {
    name: "undo.guard",
    class: Class::Read,
    waits: false,
    sig: "undo::guard(options: any, work?: closure) -> any",
    doc: "Calls `work`; takes back what it did if it fails. Newest first, and then it fails as `work` did; else it returns \
          its value. With one argument that is the closure. Goes back only on a definite failure (`failed`, `unmet`, `not_found`, \
          `refused`, `usage`, `timeout` of a look): never when an outcome is unknown, a link or a login was lost, at \
          Ctrl-C, or when something was destroyed that cannot come back. Options: `healthy_before` (default true; with \
          false it never goes back: what was there before was failing already). Consent to an effect is consent to its \
          inverse, if its verb wrote that or the question showed it; any other inverse is asked for. Fails with `stuck` when going back fails, or finds that somebody changed the same things. \
          No deadline: that is `work`'s own.",
    example: r#"undo::guard(#{ healthy_before: true }, || stack("prod").recreate("backend"))"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[Binding::Calls(&STEP, step), Binding::Calls(&GUARD, guard)];

// ── steps ──

fn step(context: &NativeCallContext<'_>, call: &Call<'_>) -> RhaiResult {
    let fail = |error: Error| thrown(error, context.call_position());
    let (world, gate) = (call.world, &call.world.gate);
    let name = call.text(0).map_err(fail)?;
    let work = call.closure(1).map_err(fail)?;
    gate.begin_step(&name).map_err(fail)?;
    let finished = world.finished.borrow().get(&name).cloned();
    if let Some(done) = finished {
        gate.end_step();
        gate.adopt(&done.effects);
        gate.say(&format!("· step \"{name}\" was done in run {}", done.run));
        let body = json!({ "name": name, "result": done.result, "effects": done.effects, "from": done.run });
        gate.note("step.end", body);
        return Ok(from_json(&done.result));
    }
    let mark = gate.mark();
    let result = values::shielded(|| work.call_raw(context, None, []));
    gate.end_step();
    let value = result?;
    let body = record(&name, &value, gate.trail_from(mark)).map_err(fail)?;
    gate.note("step.end", body);
    Ok(value)
}

/// The record of a step, or why its result cannot be kept.
fn record(name: &str, value: &Dynamic, effects: Vec<String>) -> Result<Value> {
    let result = plain(value).map(|()| to_json(value));
    let body = result.and_then(|result| {
        let clean = redact::clean_json(result.clone()) == result && !redact::is_hidden(&result.to_string());
        let body = json!({ "name": name, "result": result, "effects": effects });
        match body.to_string().len() {
            _ if !clean => Err("it holds a secret, or something under a secret's name".into()),
            size if size > LARGEST => Err(format!("it is {size} bytes as JSON, and 64 KiB is the most")),
            _ => Ok(body),
        }
    });
    body.map_err(|why| {
        let what = format!("the result of step \"{name}\" cannot be kept; what the step did is done");
        Error::new(Kind::Usage, what, why).next("return only what later steps need: ids, versions, ()")
    })
}

/// Only what comes back from JSON as it was.
fn plain(value: &Dynamic) -> Result<(), String> {
    let value = value.clone().flatten();
    if let Ok(items) = value.as_array_ref() {
        return items.iter().try_for_each(plain);
    }
    if let Ok(map) = value.as_map_ref() {
        return map.values().try_for_each(plain);
    }
    let finite = value.as_float().is_ok_and(f64::is_finite);
    if finite || value.is_int() || value.is_string() || value.is_bool() || value.is_unit() {
        return Ok(());
    }
    Err(format!("it holds a value of type {}, which has no plain form", type_name(&value)))
}

// ── the guard ──

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Guard {
    healthy_before: bool,
}

impl Default for Guard {
    fn default() -> Guard {
        Guard { healthy_before: true }
    }
}

fn guard(context: &NativeCallContext<'_>, call: &Call<'_>) -> RhaiResult {
    let fail = |error: Error| thrown(error, context.call_position());
    let (options, work) = match call.closure(0) {
        Ok(work) => (Guard::default(), work),
        Err(_) => (call.options(0).map_err(fail)?, call.closure(1).map_err(fail)?),
    };
    let mark = call.world.gate.mark();
    let error = match values::shielded(|| work.call_raw(context, None, [])) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let trail = call.world.gate.trail_from(mark);
    let succeeds = ExitCode::of_error(&error).is_some_and(|exit| exit.code == 0);
    // A plan did nothing.
    if trail.is_empty() || call.world.gate.mode() != Mode::Apply || succeeds {
        return Err(error);
    }
    match unwind(context.engine(), call.world, &trail, &cause(&error), &options) {
        Ok(said) if root(&error).is_catchable() => Err(amended(*error, &said).into()),
        // An error that cannot be caught ends the script unchanged.
        Ok(said) => {
            call.world.gate.say(&said);
            Err(error)
        }
        Err(stuck) => Err(fail(stuck)),
    }
}

/// Takes back what stands on the trail, if that is what to do after this error. Gives what is to be said of it.
fn unwind(engine: &Engine, world: &World, trail: &[String], error: &Error, options: &Guard) -> Result<String> {
    let not = |why: String| Ok(format!("nothing was taken back: {why}"));
    if !options.healthy_before {
        return not("what was there before was failing already".into());
    }
    if !is_definite(error.kind) {
        return not(format!("that is no definite failure ({})", error.kind.word()));
    }
    let mut changes = world.gate.journal().and_then(|journal| journal.changes(trail)).unwrap_or_default();
    // Of its own changes this process still has the inverses, with the secrets that the record hides.
    for change in changes.iter_mut().filter(|change| change.hides_inverse) {
        change.inverse = world.gate.inverse_of(&change.id);
    }
    if changes.len() < trail.len() {
        return not("what was done is not in the journal".into());
    }
    if let Some(open) = changes.iter().find(|change| matches!(change.fate, Fate::Unknown | Fate::GoesOn)) {
        return not(format!("{} may have happened", open.words()));
    }
    let mut way = WayBack::of(changes);
    way.look_at_failed(world).map_err(|found| stuck(error, &way, 0, &found))?;
    if let Some(lost) = way.destroyed.first() {
        return not(format!("{} cannot come back", lost.words()));
    }
    way.check(engine, world).map_err(|found| stuck(error, &way, 0, &found))?;
    // What was agreed to is what its inverse may do.
    let most = |change: &Told| if change.destroys { Class::Destroy } else { Class::Change };
    match way.go(engine, world, most, |change| super::undo::is_agreed(world, change)) {
        (count, None) => Ok(taken_back(&way, count)),
        (count, Some(found)) => Err(stuck(error, &way, count, &found)),
    }
}

/// Failures after which it is certain what was done. Of a link or a login that was lost that cannot be said, and there is
/// no way to go back over either.
fn is_definite(kind: Kind) -> bool {
    match kind {
        Kind::Failed | Kind::Unmet | Kind::NotFound | Kind::Refused | Kind::Usage | Kind::Timeout => true,
        Kind::Unreachable | Kind::Denied | Kind::Interrupted | Kind::Unknown | Kind::Stuck | Kind::Journal => false,
    }
}

fn taken_back(way: &WayBack, count: usize) -> String {
    let mut said = format!("taken back: {count} of {} effects", way.counts().1);
    for change in &way.back[..count] {
        said += &format!("\n  undone: {}", change.words());
    }
    for (change, why) in &way.stays {
        said += &format!("\n  {}: {why}", change.words());
    }
    said
}

/// Going back failed: a person is needed.
fn stuck(error: &Error, way: &WayBack, count: usize, found: &Error) -> Error {
    let kind = if found.kind == Kind::Interrupted { Kind::Interrupted } else { Kind::Stuck };
    let left = way.back[count.min(way.back.len())..].iter().map(|change| format!("\n  not undone: {}", change.words()));
    let why = format!(
        "{}: {}\ngoing back stopped: {}\n{}{}",
        error.what,
        error.why,
        found,
        taken_back(way, count.min(way.back.len())),
        left.collect::<String>()
    );
    Error { next: found.next.clone(), ..Error::new(kind, "it failed, and going back failed too", why) }
}

/// The same error, with more in its reason.
fn amended(error: EvalAltResult, said: &str) -> EvalAltResult {
    match error {
        EvalAltResult::ErrorInFunctionCall(name, source, inner, position) => {
            EvalAltResult::ErrorInFunctionCall(name, source, amended(*inner, said).into(), position)
        }
        EvalAltResult::ErrorInModule(name, inner, position) => {
            EvalAltResult::ErrorInModule(name, amended(*inner, said).into(), position)
        }
        other => {
            let found = cause(&other);
            let mut json = found.to_json();
            json["why"] = json!(format!("{}\n{said}", found.why));
            let mut value = from_json(&json);
            // A map that a script threw keeps its own fields.
            if let EvalAltResult::ErrorRuntime(thrown, _) = &other
                && let (Ok(own), Ok(mut map)) = (thrown.as_map_ref(), value.as_map_mut())
            {
                for (key, own) in own.iter().filter(|(key, _)| !["why", "next"].contains(&key.as_str())) {
                    map.insert(key.clone(), own.clone());
                }
            }
            EvalAltResult::ErrorRuntime(value, other.position())
        }
    }
}

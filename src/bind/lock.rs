//! One operator per stack: the lock beside a stack on its host, who has it, and what was done under it.
//!
//! Two files in the stack's folder are locked by the kernel. `lock` belongs to whoever works on the stack: a holder
//! process on the host has it exclusively, and ends with the link to its opsh. `work.lock` belongs to what was left
//! running: every durable run that begins under the lock has it shared, exactly as long as its command lives. Who comes
//! next takes the first, and then waits for the second. `lock.json` says who it is; the fence in it tells holders apart.

mod held;
mod holder;
mod intent;
mod others;
mod place;
mod words;

use super::stack::StackHandle;
use super::values::cause;
use super::way::Way;
use super::{Binding, Call, Change, Look, Receipt, RhaiResult, World, beside, facts, hints, host, values};
use crate::config::Stack;
use crate::error::{Error, Kind, Result};
use crate::gate::policy::Mode;
use crate::gate::verb::{Class, Verb};
use crate::gate::{Did, Done, Effect, Pass, Target, journal};
use crate::redact;
use held::{Held, works};
pub use others::{leave, look, look_for_plan, over, settle_runs, within};
pub use place::OwnRuns;
use rhai::{Dynamic, FnPtr, NativeCallContext};
use serde::Deserialize;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use words::{by, in_words, is_locked};

const TAKE: Verb = Verb {
    name: "lock.take",
    class: Class::Read,
    waits: false,
    sig: "stack.locked(why: string, work: closure, options?: #{ wait_s: int }) -> any",
    doc: "Calls `work` as the stack's one operator. Returns its value. The lock is a file beside the stack on \
          its host: it is free again when `work` ends, however it ends, when opsh is killed and when the link is lost, \
          but what was left running there keeps it until that has ended. `why` tells colleagues what goes on. When \
          somebody has it, says who, since when, why, and what runs; after the wait offers to take it over, which is \
          `lock.break`. Within `work` it is taken already; in a plan and in observe mode it is not taken. When something was changed, ends with what \
          differs, as `stack.facts` saw it before and after. A host on which there can be no lock is said, and `work` called. Options: `wait_s` (0 to 3600, default 15) for a person, \
          `work_s` (0 to 86400, default 600) for what runs without one. Fails with `refused` when somebody still has \
          it, `unmet` when something still runs, else as `work` does; a change fails with `unmet` after somebody took the \
          lock over. No deadline: that is `work`'s own, beside the two waits.",
    example: r#"stack("prod").locked("hotfix 1.9.1", || stack("prod").recreate("backend"), #{ wait_s: 60 })"#,
};

const WHO: Verb = Verb {
    name: "lock.who",
    class: Class::Read,
    waits: false,
    sig: "stack.lock() -> map",
    doc: "Who works on the stack, and what is left open. `()` when nobody does and nothing is open; else a map: `held` (bool: false when only what somebody left running \
          keeps the lock), `state` (`held`; `works`: what was left running; `alive`: somebody changes it without the lock; `left`: \
          nobody works, and what was begun did not end), `by` (user@machine), `since`, `why`, `run`, `held_s`, `idle_s` (seconds since the last \
          change began), `last` (a map: `verb`, `target`, `says`, `by`, `run`, `effect`; or `()`), `own` (it is this run), `works` (what runs under \
          it, as `host.works`), `open` (what others began and did not end, a map each: `run`, `by`, `what`, `doing`, `since`, `step`, \
          `last`, `alive`, `outcome`, `why`, `script`, `here`, `file`; `run` is `()` when the intent cannot be read), `first` (all of it in one line), `next` (lines to type), `newer` (only \
          there when a newer opsh wrote this file). Fails with `unreachable`, or `failed` when the lock cannot be read. Deadline 60 s.",
    example: r#"stack("prod").lock()"#,
};

const CHANGES: Verb = Verb {
    name: "lock.changes",
    class: Class::Read,
    waits: false,
    sig: "stack.changes(count?: int) -> array",
    doc: "Changes under the lock, by anyone. The newest `count` changes (1 to 1000, default 20), newest first: \
          `verb`, `target`, `says`, `by`, `run`, `effect`, `at` (by the host's clock, when it began). What was done \
          without the lock is not in it. Fails with `unreachable`, or `failed` when the list cannot be read. Deadline 60 s.",
    example: r#"stack("prod").changes(20)"#,
};

const BREAK: Verb = Verb {
    name: "lock.break",
    class: Class::Destroy,
    waits: false,
    sig: "stack.break_lock() -> receipt",
    doc: "Takes the lock from whoever has it. Ends the holder on the host; the other's next change on the stack then \
          fails. What runs there goes on, and is waited for. `after` is `()`, `before` who had it. Ends only an opsh that has the lock, as \
          the host's kernel says. Fails with `unmet` when somebody else has it meanwhile or a process that is no opsh, `failed` \
          when the holder cannot be ended. Deadline 60 s.",
    example: r#"stack("prod").break_lock()"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[
    Binding::Calls(&TAKE, locked),
    Binding::Read(&WHO, who),
    Binding::Read(&CHANGES, changes),
    Binding::Change(&BREAK, break_lock),
    Binding::Change(&SETTLE, settle),
];

/// Locks that are held, by the name of their stack.
pub type Locks = RefCell<BTreeMap<String, Arc<Held>>>;

/// So long a lock that is about to be free, or that somebody just looks at, is not worth a word.
const GRACE: Duration = Duration::from_millis(500);
/// Between two looks at what is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A holder answers within this, or the change goes on without its line.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// After a lost link: until the lock is ours again, or not.
const AGAIN_WITHIN: Duration = Duration::from_secs(5);
/// A lock that was taken over is free within this.
const FREED_S: u64 = 10;
/// For what the Engine says of containers.
const ENGINE_WITHIN: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    wait_s: u64,
    work_s: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { wait_s: 15, work_s: 600 }
    }
}

// ── the scope ──

fn locked(context: &NativeCallContext<'_>, call: &Call<'_>) -> RhaiResult {
    let fail = |error: Error| values::thrown(error, context.call_position());
    let why = call.text(0).map_err(fail)?;
    let work = released(call, call.closure(1).map_err(fail)?).map_err(fail)?;
    let options: Options = call.options(2).map_err(fail)?;
    call.in_range("wait_s", options.wait_s, 0..=3600).map_err(fail)?;
    call.in_range("work_s", options.work_s, 0..=86400).map_err(fail)?;
    if why.trim().is_empty() || why.chars().count() > 500 {
        return Err(fail(call.bad("why must say what goes on, in at most 500 characters")));
    }
    let stack = call.stack().map_err(fail)?;
    let (gate, within) = (&call.world.gate, call.world.locks.borrow().contains_key(&stack.name));
    if within || gate.mode() != Mode::Apply {
        if !within && gate.mode() == Mode::Plan {
            others::say(call.world, &stack);
            gate.say(&format!("· would lock {}: {why}", stack.name));
        }
        return work.call_raw(context, None, []);
    }
    // Changes made before this scope have ended; their holder would be another one.
    others::leave_stack(call.world, &stack.name);
    let held = take(call, &stack, &why, &options).map_err(fail)?;
    let scope = Scope::enter(call.world, held);
    let before = facts::look(call, &stack);
    let result = values::shielded(|| work.call_raw(context, None, []));
    // After Ctrl-C nothing is waited for: dropping the holder frees the lock as well.
    let stopped = matches!(&result, Err(error) if cause(error).kind == Kind::Interrupted);
    if !stopped && gate.has_changed() {
        compare(call, &stack, before);
    }
    let held = scope.leave();
    if !stopped && !held.bare.load(Ordering::Relaxed) {
        let look = Look::at(call.world.stack_target(&held.stack), "release", json!({ "step": "release" }));
        let (last, open) =
            others::last_line(call.world, &held, result.as_ref().err().map(|error| cause(error)).as_ref());
        let begun = held.begun.load(Ordering::Relaxed);
        let left = call.read(look, held, move |_, held| {
            let last = last.clone();
            async move { held.leave(&last, open).await.map(|()| Value::Null) }
        });
        if let Err(error) = left {
            others::say_stays_open(call.world, &stack.name, begun, &error);
        }
    }
    result
}

/// Says what became of the stack. It is no part of the work: what cannot be looked at fails nothing.
fn compare(call: &Call<'_>, stack: &Arc<Stack>, before: Result<Value>) {
    let gate = &call.world.gate;
    match before.and_then(|before| Ok((before, facts::look(call, stack)?))) {
        Ok((before, after)) => {
            gate.say(&format!("· {} before and after:", stack.name));
            facts::delta(&before, &after).iter().for_each(|line| gate.say(&format!("    {line}")));
        }
        Err(error) => gate.warn(&format!("what became of {} was not looked at: {}", stack.name, error.why)),
    }
}

/// The closure, free to use the variable that the verb was called on: `prod.locked("…", || prod.recreate("web"))`. Rhai
/// keeps a captured variable borrowed while a method of it runs; a handle never changes, so a copy is as good.
fn released(call: &Call<'_>, mut work: FnPtr) -> Result<FnPtr> {
    let this = call.this::<StackHandle>()?;
    for value in work.iter_curry_mut().filter(|value| value.is_locked()) {
        *value = Dynamic::from(this.clone());
    }
    Ok(work)
}

/// What makes a lock count; a panic within leaves it too.
struct Scope<'a>(&'a World, Arc<Held>);

impl Scope<'_> {
    fn enter(world: &World, held: Arc<Held>) -> Scope<'_> {
        world.locks.borrow_mut().insert(held.stack.name.clone(), Arc::clone(&held));
        Scope(world, held)
    }

    fn leave(self) -> Arc<Held> {
        Arc::clone(&self.1)
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        self.0.locks.borrow_mut().remove(&self.1.stack.name);
    }
}

/// Takes the lock, however long that may take, and says what it waits for.
fn take(call: &Call<'_>, stack: &Arc<Stack>, why: &str, options: &Options) -> Result<Arc<Held>> {
    let held = Held::new(call.world, stack, why)?;
    let gate = &call.world.gate;
    let mut seen = held.step(call, "try", 0)?;
    if seen["state"] == "busy" {
        in_words(&stack.name, &seen).iter().for_each(|line| gate.say(&format!("· {line}")));
        if options.wait_s > 0 {
            gate.say(&format!("· waits up to {} s for it; Ctrl-C stops waiting", options.wait_s));
            seen = held.step(call, "wait", options.wait_s)?;
        }
    }
    if seen["state"] == "busy" {
        take_over(call, &held, &seen)?;
        seen = held.step(call, "after", FREED_S)?;
    }
    if seen["state"] == "busy" {
        return Err(is_locked(&stack.name, &seen, "somebody was quicker; nothing changed", Kind::Refused));
    }
    if seen["state"] == "works" {
        in_words(&stack.name, &seen).iter().for_each(|line| gate.say(&format!("· {line}")));
        gate.say(&format!("· waits up to {} s for its end; Ctrl-C stops waiting", options.work_s));
        seen = held.step(call, "work", options.work_s)?;
    }
    if seen["state"] == "works" {
        let why = format!("it did not end within {} s; nothing changed", options.work_s);
        return Err(is_locked(&stack.name, &seen, &why, Kind::Unmet));
    }
    if seen["state"] == "none" {
        let why = seen["why"].as_str().unwrap_or_default();
        gate.warn(&without_lock(&stack.name, why));
        held.bare.store(true, Ordering::Relaxed);
    }
    Ok(held)
}

/// Words for a change without a lock.
fn without_lock(stack: &str, why: &str) -> String {
    format!("{stack} is not locked, and others may work on it too: {why}")
}

/// After the wait: a person types the holder's name, or `--allow` agreed to it.
fn take_over(call: &Call<'_>, held: &Arc<Held>, seen: &Value) -> Result<()> {
    let effect = breaking(&held.stack.name, seen).effect(&BREAK);
    let effect = Effect { place: call.place.clone(), ..effect };
    let (held, lock) = (Arc::clone(held), seen["lock"].clone());
    let name = held.stack.name.clone();
    let done = call.world.gate.perform(&effect, |pass| {
        let (held, lock) = (Arc::clone(&held), lock.clone());
        async move { broken(&held.way, &pass, &held.hold.folder, lock).await }
    });
    done.map(drop).map_err(|error| match error.kind {
        Kind::Refused | Kind::Unmet => {
            let amended = is_locked(&name, seen, &error.why, error.kind);
            error.next.into_iter().filter(|line| hints::only_looks(line)).fold(amended, Error::next)
        }
        _ => error,
    })
}

/// Whether or not the stack is a sandbox, it is a person that is put out.
fn breaking(stack: &str, seen: &Value) -> Change {
    let by = &by(seen);
    let target = Target { name: stack.into(), protected: true };
    let args = json!({ "by": by, "fence": holder::fence(&seen["lock"]) });
    Change::of(Look::at(target, format!("the lock of {by}"), args)).loses(by.as_str())
}

async fn broken(way: &Way, pass: &Pass, folder: &str, lock: Value) -> Result<Did> {
    let reach = way.reach(pass).await?;
    let words = holder::end(folder, holder::fence(&lock).unwrap_or_default());
    pass.sending();
    let ran = host::finished(way.name(), &words[..1], reach.run(pass, &host::words_of(words.clone())).await)?;
    let what = format!("the lock on {} was not taken over", way.name());
    let mut said = ran.out.split_whitespace();
    match said.next().unwrap_or_default() {
        "ended" => Ok(Did { changed: true, before: lock["holder"].clone(), ..Did::default() }),
        "free" => Ok(Did::default()),
        "other" => Err(Error::new(Kind::Unmet, what, "somebody else has it meanwhile")),
        "unknown" => Err(stranger(what, way.name(), folder, said.next().zip(said.next()))),
        _ => {
            let why = format!("its holder there does not end: {}", redact::last_lines(&ran.err, 1));
            Err(Error::new(Kind::Failed, what, why).next("end it there, as the account it belongs to"))
        }
    }
}

/// A process has the lock that is not the holder that `lock.json` tells of.
fn stranger(what: String, host: &str, folder: &str, seen: Option<(&str, &str)>) -> Error {
    let (who, next) = match seen {
        Some((pid, uid)) => {
            let words = json!(["ps", "-o", "pid,user,args", "-p", pid]);
            let next =
                format!("host({}).read({words}).out     what it is; an administrator ends it there", json!(host));
            (format!("somebody unknown (pid {pid}, user id {uid})"), next)
        }
        None => (
            "somebody unknown, of another account,".into(),
            format!("fuser -v {folder}/lock     as root there: who it is"),
        ),
    };
    let why = format!(
        "{who} has {folder}/lock locked, and is not the holder that lock.json names; opsh ends no such process"
    );
    Error::new(Kind::Unmet, what, why).host(host).next(next)
}

// ── looking at it ──

fn who(call: &Call<'_>) -> Result<Dynamic> {
    let (seen, stack) = (looked(call)?, call.stack()?);
    if seen.is_null() {
        call.world.note_busy(&stack, false);
        return Ok(Dynamic::UNIT);
    }
    let (lock, up, open) = (&seen["lock"], seen["up"].as_i64().unwrap_or(0), &seen["open"]);
    let age = |key: &str| lock[key].as_i64().map(|then| (up - then).max(0));
    let works = seen["works"].as_array().is_some_and(|works| !works.is_empty());
    let alive = |one: &Value| one["alive"] == json!(true);
    let state = match () {
        () if seen["held"] == json!(true) => "held",
        () if works => "works",
        () if open.as_array().into_iter().flatten().any(alive) => "alive",
        () => "left",
    };
    let holder = &lock["holder"];
    let own = holder["run"] == call.world.gate.run_id().as_str();
    call.world.note_busy(&stack, state != "left" && !own);
    let by = if holder["by"].is_string() { json!(intent::name(&holder["by"])) } else { Value::Null };
    let mut map = json!({
        "own": own,
        "held": seen["held"], "state": state, "by": by, "since": lock["since"], "why": holder["why"], "run": holder["run"],
        "held_s": age("since_up"), "idle_s": age("last_up"), "last": lock["last"], "works": seen["works"],
        "open": if open.is_null() { json!([]) } else { open.clone() }, "first": words::first_line(state, lock, open),
        "next": words::next_lines(&stack, state, holder, open),
    });
    if let Some(file) = seen["newer"].as_str() {
        map["newer"] = json!(file);
    }
    Ok(super::map(map))
}

/// `held`, `lock`, `up`, `works`, and `open` when an intent is; null when nobody works on the stack and nothing is open.
fn looked(call: &Call<'_>) -> Result<Value> {
    let (stack, way) = call.stack_and_way()?;
    let look = Look::at(call.world.stack_target(&stack), "", json!({}));
    let own = call.world.gate.run_id();
    call.read(look, (stack, way, own), |pass, (stack, way, own)| async move {
        let reach = way.reach(&pass).await?;
        let folder = beside::folder(&stack);
        let folders = std::slice::from_ref(&folder);
        let look = holder::look(folders);
        let ran = host::finished(way.name(), &look.words[..1], reach.run(&pass, &look).await)?;
        let out = ran.checked(way.name(), &look.words[..1])?.out;
        let what = || format!("who works on {} is not known", stack.name);
        let fail = |why: String| Error::new(Kind::Failed, what(), why).host(&stack.host);
        let found = intent::read(&out, folders).map_err(fail)?.remove(&folder).unwrap_or_default();
        if let Some(why) = &found.odd {
            return Err(beside::not_trusted(&what(), &stack.host, &folder, why));
        }
        if let ("blind", Some(why)) = (found.state.as_str(), &found.blind) {
            return Err(fail(why.clone()));
        }
        let works = works(&stack, &way, &pass, &reach).await?;
        let open: Vec<Value> = found.open.into_iter().filter(|open| open["run"] != own.as_str()).collect();
        let mut value = match (found.state.as_str(), works.first(), open.last()) {
            ("busy", ..) => json!({ "held": true, "lock": found.lock, "up": found.up, "works": works }),
            (_, Some(first), _) => {
                let holder = json!({ "by": first["by"], "run": first["run"], "why": Value::Null });
                json!({ "held": false, "lock": { "holder": holder, "since": first["at"] }, "up": 0, "works": works })
            }
            (_, None, Some(last)) => {
                let holder = json!({ "by": last["by"], "run": last["run"], "why": last["what"] });
                let lock = json!({ "holder": holder, "since": last["since"], "last": last["last"] });
                json!({ "held": false, "lock": lock, "up": 0, "works": works })
            }
            (_, None, None) => return Ok(Value::Null),
        };
        if !open.is_empty() {
            value["open"] = json!(open);
        }
        if let Some(file) = found.newer {
            value["newer"] = json!(file);
        }
        Ok(value)
    })
}

const SETTLE: Verb = Verb {
    name: "lock.settle",
    class: Class::Change,
    waits: false,
    sig: "stack.settle_intent(run: string, saw: string) -> receipt",
    doc: "Closes what a run left open on the stack. For everybody: it is no longer shown first. `run` is its id or \
          the end of it, as `stack.lock().open` has it; `saw` (at most 500 characters) is what a person saw on the host, and is kept \
          beside the stack with who said it. Changes nothing else. `before` is the intent. Fails with `not_found` when the run \
          left nothing open, `unmet` while somebody is at it. Deadline 60 s.",
    example: r#"stack("prod").settle_intent("20261130T013101", "v1.8.0 serves, the freeze is over")"#,
};

fn settle(call: &Call<'_>) -> Result<Receipt> {
    let (stack, run, saw) = (call.stack()?, call.text(0)?, call.text(1)?);
    if saw.trim().is_empty() || saw.chars().count() > 500 {
        return Err(call.bad("saw must say what was seen, in at most 500 characters"));
    }
    let seen = looked(call)?;
    let is_it =
        |open: &&Value| open["run"].as_str().is_some_and(|of| of == run || (run.len() >= 4 && of.ends_with(&run)));
    let open = seen["open"].as_array().and_then(|all| all.iter().find(is_it)).cloned();
    let what = format!("run {run} was not settled on {}", stack.name);
    let Some(open) = open else {
        let why = "nothing that it began is open there";
        return Err(
            Error::new(Kind::NotFound, what, why).next(format!("stack({}).lock()     what is open", json!(stack.name)))
        );
    };
    if open["alive"] == json!(true) {
        let why = format!("{} is at it now", open["by"].as_str().unwrap_or("somebody"));
        return Err(Error::new(Kind::Unmet, what, why));
    }
    let way = call.world.way(&stack.host)?;
    let line = json!({ "kind": "settled", "by": journal::actor_here(), "why": saw.trim() });
    let words = holder::settle(&beside::folder(&stack), open["run"].as_str().unwrap_or_default(), &line);
    let says = format!(
        "{} of {}: {}",
        open["run"].as_str().unwrap_or_default(),
        open["by"].as_str().unwrap_or_default(),
        saw.trim()
    );
    let look = Look::at(call.world.stack_target(&stack), says, json!({ "run": open["run"], "saw": saw.trim() }));
    call.change(Change::of(look), (way, words, open), |pass, (way, words, open)| async move {
        let reach = way.reach(&pass).await?;
        pass.sending();
        let ran = host::finished(way.name(), &words[..1], reach.run(&pass, &host::words_of(words.clone())).await)?;
        ran.checked(way.name(), &words[..1])?;
        Ok(Did { changed: true, before: open, ..Did::default() })
    })
}

fn changes(call: &Call<'_>) -> Result<Dynamic> {
    let (stack, count) = (call.stack()?, call.int_or(0, 20, 1..=1000)?);
    let way = call.world.way(&stack.host)?;
    let look = Look::at(call.world.stack_target(&stack), "", json!({ "count": count }));
    let value = call.read(look, (stack, way), move |pass, (stack, way)| async move {
        let reach = way.reach(&pass).await?;
        let folder = beside::folder(&stack);
        let words = holder::changes(&folder, count);
        let ran = host::finished(way.name(), &words[..1], reach.run(&pass, &host::words_of(words.clone())).await)?;
        let said = ran.checked(way.name(), &words[..1])?.out;
        beside::say_if_newer(&pass, &said, &format!("{folder}/changes.jsonl"));
        Ok(lines(&said))
    })?;
    Ok(super::map(value))
}

/// The newest first; a line that was cut short by a full disk says nothing.
fn lines(text: &str) -> Value {
    let lines = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let keys = ["at", "verb", "target", "says", "by", "run", "effect"];
    let value = |line: &Value, key| if key == "run" { json!(intent::run_of(line)) } else { line[key].clone() };
    let row = |line: Value| keys.iter().map(|key| (key.to_string(), value(&line, *key))).collect::<Value>();
    lines.filter(Value::is_object).map(row).collect()
}

fn break_lock(call: &Call<'_>) -> Result<Receipt> {
    let stack = call.stack()?;
    let seen = looked(call)?;
    let way = call.world.way(&stack.host)?;
    let (folder, lock) = (beside::folder(&stack), seen["lock"].clone());
    if seen["held"] != json!(true) {
        let done = Done::Did(Did::default(), Duration::ZERO);
        return Ok(Receipt::of(done));
    }
    call.change(breaking(&stack.name, &seen), (way, folder, lock), |pass, (way, folder, lock)| async move {
        broken(&way, &pass, &folder, lock).await
    })
}

#[cfg(test)]
mod tests {
    use super::words::ago;
    use super::*;

    const RUN: &str = "20261124-061743-k3f9";

    #[test]
    fn the_words_say_who_since_when_why_what_last_how_idle_and_what_runs() {
        let seen = json!({
            "state": "busy", "up": 1000, "lock": {
                "holder": { "by": "alice@mac", "why": "hotfix" }, "since": "T", "since_up": 700, "last_up": 960,
                "last": { "verb": "compose.recreate", "says": "backend" },
            },
            "works": [{ "verb": "host.run", "says": "make", "by": "alice", "at": "U", "run": RUN }],
        });
        let error = is_locked("prod", &seen, "nothing changed", Kind::Refused);
        assert_eq!(error.what, "prod is locked by alice@mac for 5 min (since T): \"hotfix\"");
        for part in ["compose.recreate backend, idle for 40 s", "still runs: host.run make, started by alice at U"] {
            assert!(error.why.contains(part), "{part}: {}", error.why);
        }
        assert!(error.next[0].starts_with(&format!("opsh attach {RUN} ")), "{:?}", error.next);
    }

    #[test]
    fn a_lock_that_says_nothing_is_somebodys() {
        let words = in_words("prod", &json!({ "state": "busy", "lock": null, "up": 5, "works": [] }));
        assert!(words[0].contains("locked by somebody for an unknown time"), "{words:?}");
    }

    #[test]
    fn lines_of_changes_come_newest_first_and_what_is_torn_is_left_out() {
        let rows = lines("{\"at\":\"1\",\"verb\":\"a\"}\n{\"at\":\"2\",\"verb\":\"b\"}\n{\"at\":\"3\",\"ve");
        let verbs: Vec<&str> = rows.as_array().expect("rows").iter().filter_map(|row| row["verb"].as_str()).collect();
        assert_eq!(verbs, ["b", "a"]);
    }

    #[test]
    fn ages_are_said_in_the_unit_that_a_person_would_take() {
        assert_eq!([-3, 7, 119, 120, 7200].map(ago), ["0 s", "7 s", "119 s", "2 min", "2 h"]);
    }
}

//! One operator per stack: the lock beside a stack on its host, who has it, and what was done under it.
//!
//! Two files in the stack's folder are locked by the kernel. `lock` belongs to whoever works on the stack: a holder
//! process on the host has it exclusively, and ends with the link to its opsh. `work.lock` belongs to what was left
//! running: every durable run that begins under the lock has it shared, exactly as long as its command lives. Who comes
//! next takes the first, and then waits for the second. `lock.json` says who it is; the fence in it tells holders apart.

mod holder;
mod words;

use super::migrate;
use super::ssh::{Durable, Reach};
use super::stack::StackHandle;
use super::values::cause;
use super::way::Way;
use super::{Binding, Call, Change, Look, Receipt, RhaiResult, World, beside, facts, host, values};
use crate::config::Stack;
use crate::error::{Error, Kind, Result};
use crate::gate::policy::Mode;
use crate::gate::verb::{Class, Verb};
use crate::gate::{Did, Done, Effect, Hold, Pass, Target, journal};
use crate::redact;
use holder::{BEAT_S, Gone, Holder};
use rhai::{Dynamic, FnPtr, NativeCallContext};
use serde::Deserialize;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{sleep, timeout};
use words::{by, in_words, is_locked, quoted};

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
    doc: "Who has the stack's lock. `()` when nobody has it; else a map: `held` (bool: false when only what somebody left running \
          keeps the lock), `by` (user@machine), `since`, `why`, `run`, `held_s`, `idle_s` (seconds since the last \
          change began), `last` (a map: `verb`, `target`, `says`, `by`, `run`, `effect`; or `()`), `works` (what runs under \
          it, as `host.works`). Fails with `unreachable`, or `failed` when the lock cannot be read. Deadline 60 s.",
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
          fails. What runs there goes on, and is waited for. `after` is `()`, `before` who had it. Fails with `unmet` \
          when somebody else has it meanwhile, `failed` when the holder cannot be ended. Deadline 60 s.",
    example: r#"stack("prod").break_lock()"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[
    Binding::Calls(&TAKE, locked),
    Binding::Read(&WHO, who),
    Binding::Read(&CHANGES, changes),
    Binding::Change(&BREAK, break_lock),
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

/// A lock of this run.
pub struct Held {
    stack: Arc<Stack>,
    way: Way,
    /// For colleagues.
    who: Value,
    hold: Hold,
    line: Mutex<Option<Holder>>,
    /// The `lock.json` of the one before.
    was: Mutex<Value>,
    beats: AtomicBool,
    /// There can be no lock: the work goes on without.
    bare: AtomicBool,
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
            gate.say(&format!("· would lock {}: {why}", stack.name));
        }
        return work.call_raw(context, None, []);
    }
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
        let _ = call.read(look, held, |_, held| async move {
            if let Some(holder) = held.line.lock().await.take() {
                holder.end().await;
            }
            Ok(Value::Null)
        });
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
        gate.warn(&format!("{} is not locked, and others may work on it too: {why}", stack.name));
        held.bare.store(true, Ordering::Relaxed);
    }
    Ok(held)
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
            error.next.into_iter().fold(amended, Error::next)
        }
        _ => error,
    })
}

/// Whether or not the stack is a sandbox, it is a person that is put out.
fn breaking(stack: &str, seen: &Value) -> Change {
    let by = by(seen);
    let target = Target { name: stack.into(), protected: true };
    let args = json!({ "by": by, "fence": holder::fence(&seen["lock"]) });
    Change::of(Look::at(target, format!("the lock of {by}"), args)).loses(by)
}

async fn broken(way: &Way, pass: &Pass, folder: &str, lock: Value) -> Result<Did> {
    let reach = way.reach(pass).await?;
    let words = holder::end(folder, &lock);
    pass.sending();
    let ran = host::finished(way.name(), &words[..1], reach.run(pass, &host::words_of(words.clone())).await)?;
    let what = format!("the lock on {} was not taken over", way.name());
    match ran.out.trim() {
        "ended" | "gone" => Ok(Did { changed: true, before: lock["holder"].clone(), ..Did::default() }),
        "other" => Err(Error::new(Kind::Unmet, what, "somebody else has it meanwhile")),
        _ => {
            let said = host::last_lines(&ran.err, 1);
            let why = format!("process {} there does not end: {said}", lock["pid"]);
            Err(Error::new(Kind::Failed, what, why).next("end it there, as the account it belongs to"))
        }
    }
}

// ── taking it ──

impl Held {
    fn new(world: &World, stack: &Arc<Stack>, why: &str) -> Result<Arc<Held>> {
        let mut bits = [0; 8];
        getrandom::fill(&mut bits)
            .map_err(|error| Error::new(Kind::Failed, "no lock was taken", format!("no random number: {error}")))?;
        let fence: String = bits.iter().map(|byte| format!("{byte:02x}")).collect();
        let who = json!({ "by": journal::actor_here(), "why": why, "run": world.gate.run_id(), "fence": fence });
        Ok(Arc::new(Held {
            stack: Arc::clone(stack),
            way: world.way(&stack.host)?,
            who: redact::clean_json(who),
            hold: Hold { folder: beside::folder(stack), fence },
            line: Mutex::default(),
            was: Mutex::default(),
            beats: AtomicBool::new(false),
            bare: AtomicBool::new(false),
        }))
    }

    /// One recorded attempt: `state` is `held`, `busy` (with `lock`, the other's `lock.json`), `works` (what runs) or
    /// `none` (with `why` there can be no lock).
    fn step(self: &Arc<Held>, call: &Call<'_>, step: &'static str, within_s: u64) -> Result<Value> {
        let within = Duration::from_secs(within_s);
        let (lock, work) = if step == "work" { (GRACE, within) } else { (within.max(GRACE), Duration::ZERO) };
        let args = json!({ "step": step, "within_s": within_s, "why": self.who["why"] });
        let says = self.who["why"].as_str().unwrap_or_default();
        let look = Look::at(call.world.stack_target(&self.stack), says, args).within(within_s + 60);
        call.read(look, Arc::clone(self), move |pass, held| async move { held.attempt(&pass, lock, work).await })
    }

    async fn attempt(self: &Arc<Held>, pass: &Pass, for_lock: Duration, for_work: Duration) -> Result<Value> {
        let mut line = self.line.lock().await;
        let reach = self.way.reach(pass).await?;
        let began = Instant::now();
        loop {
            let holder = match self.holder(pass, &reach, &mut line).await? {
                Ok(holder) => holder,
                Err(why) => return Ok(json!({ "state": "none", "why": why })),
            };
            let answer = if holder.holds { holder.ask("work", &Value::Null) } else { holder.ask("try", &Value::Null) };
            let answer = answer.await.map_err(|Gone| self.is_gone())?;
            match answer.word.as_str() {
                "no" => {
                    *line = None;
                    return Ok(json!({ "state": "none", "why": answer.text }));
                }
                "got" => {
                    if let Some(why) = self.sign(holder).await? {
                        *line = None;
                        return Ok(json!({ "state": "none", "why": why }));
                    }
                    // What the one before left running is waited for under his name.
                    *self.was.lock().await = answer.value;
                    continue;
                }
                "busy" if began.elapsed() >= for_lock => {
                    let runs = holder.ask("work", &Value::Null).await.map_err(|Gone| self.is_gone())?.word == "works";
                    let works = self.works(pass, &reach).await?;
                    let (lock, up) = (answer.value, answer.up);
                    return Ok(json!({ "state": "busy", "lock": lock, "up": up, "runs": runs, "works": works }));
                }
                "busy" => {}
                word => {
                    let works = self.works(pass, &reach).await?;
                    if word == "free" && works.is_empty() {
                        return Ok(json!({ "state": "held" }));
                    }
                    if began.elapsed() >= for_work {
                        let lock = self.was.lock().await.clone();
                        let (runs, up) = (word == "works", answer.up);
                        return Ok(json!({ "state": "works", "lock": lock, "up": up, "runs": runs, "works": works }));
                    }
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// The holder that listens, or a new one.
    async fn holder<'a>(
        &self,
        pass: &Pass,
        reach: &Reach,
        line: &'a mut MutexGuard<'_, Option<Holder>>,
    ) -> Result<Result<&'a mut Holder, String>> {
        if line.is_none() {
            match Holder::start(pass, reach, &self.hold.folder).await? {
                Ok(holder) => **line = Some(holder),
                Err(why) => return Ok(Err(why)),
            }
        }
        Ok(line.as_mut().ok_or_else(String::new))
    }

    /// Writes into the lock that is ours whose it is. Gives why that is not possible.
    async fn sign(self: &Arc<Held>, holder: &mut Holder) -> Result<Option<String>> {
        let answer = holder.ask("who", &self.who).await.map_err(|Gone| self.is_gone())?;
        if answer.word == "no" {
            return Ok(Some(answer.text));
        }
        holder.holds = true;
        if !self.beats.swap(true, Ordering::Relaxed) {
            tokio::spawn(beat(Arc::downgrade(self)));
        }
        Ok(None)
    }

    fn is_gone(&self) -> Error {
        let why = "the process that holds it there ended, or the link to it";
        Error::new(Kind::Unreachable, format!("the lock of {} was not taken", self.stack.name), why)
            .host(self.way.name())
    }

    async fn works(&self, pass: &Pass, reach: &Reach) -> Result<Vec<Value>> {
        works(&self.stack, &self.way, pass, reach).await
    }
}

/// Says something to a holder from time to time, or it would take opsh for dead.
async fn beat(held: Weak<Held>) {
    loop {
        sleep(Duration::from_secs(BEAT_S)).await;
        let Some(held) = held.upgrade() else { return };
        // Whoever speaks to it now is heard as well.
        let Ok(mut line) = held.line.try_lock() else { continue };
        if let Some(holder) = line.as_mut() {
            let _ = timeout(ANSWERS_WITHIN, holder.send("beat", &Value::Null)).await;
        }
    }
}

/// What runs under the stack's lock: durable runs of this account, and containers of everybody.
async fn works(stack: &Stack, way: &Way, pass: &Pass, reach: &Reach) -> Result<Vec<Value>> {
    let folder = beside::folder(stack);
    let listed = reach.durable_list(pass).await?;
    let running = listed.iter().filter(|run| matches!(run.state, Durable::Running { .. }));
    let under = running.filter(|run| {
        serde_json::from_str(&run.about).is_ok_and(|about: Value| about["lock"].as_str() == Some(folder.as_str()))
    });
    let mut works: Vec<Value> = under.map(super::work::run_row).collect();
    // A host without Docker has no containers.
    let containers = async { migrate::at_work(&way.engine(pass).await?, stack).await };
    if let Ok(Ok(containers)) = timeout(ENGINE_WITHIN, containers).await {
        works.extend(containers);
    }
    Ok(works)
}

// ── changes under it ──

/// A change that is made under a lock.
pub struct Under {
    held: Arc<Held>,
    change: Value,
}

/// The lock of this run that covers each effect: of its stack, or of a stack on its host.
pub fn over(world: &World, effects: &[Effect]) -> Vec<Option<Under>> {
    let locks = world.locks.borrow();
    let under = |effect: &Effect| {
        let (target, changes) = (&effect.target.name, effect.class != Class::Read && effect.verb.name != BREAK.name);
        let of_host = || locks.values().find(|held| held.stack.host == *target);
        let held = locks.get(target).or_else(of_host).filter(|held| changes && !held.bare.load(Ordering::Relaxed))?;
        let change = json!({
            "verb": effect.verb.name, "target": target, "says": effect.says, "by": journal::actor_here(), "run": world.gate.run_id(),
        });
        Some(Under { held: Arc::clone(held), change: redact::clean_json(change) })
    };
    effects.iter().map(under).collect()
}

/// The work of a change, after the holder was told of it. It fails before anything is done when the lock is somebody else's.
pub fn within<F>(
    under: Option<&Under>,
    pass: Pass,
    work: impl FnOnce(Pass) -> F,
) -> Pin<Box<dyn Future<Output = Result<Did>> + Send>>
where
    F: Future<Output = Result<Did>> + Send + 'static,
{
    let told = under.map(|under| {
        let mut change = under.change.clone();
        change["effect"] = json!(pass.effect());
        told(Arc::clone(&under.held), pass.twin(), change)
    });
    let work = work(match under {
        Some(under) => pass.under(under.held.hold.clone()),
        None => pass,
    });
    Box::pin(async move {
        if let Some(told) = told {
            told.await?;
        }
        work.await
    })
}

/// Tells the holder. A line that cannot be told stops no change; a lock that is not ours any more does.
async fn told(held: Arc<Held>, pass: Pass, change: Value) -> Result<()> {
    let Ok(mut line) = timeout(ANSWERS_WITHIN, held.line.lock()).await else { return Ok(()) };
    if let Some(holder) = line.as_mut() {
        match timeout(ANSWERS_WITHIN, holder.ask("did", &change)).await {
            Err(_) | Ok(Ok(_)) => return Ok(()),
            Ok(Err(Gone)) => *line = None,
        }
    }
    held.again(&pass, &mut line).await?;
    if let Some(holder) = line.as_mut() {
        let _ = timeout(ANSWERS_WITHIN, holder.ask("did", &change)).await;
    }
    Ok(())
}

impl Held {
    /// Takes the lock again that was lost with its link. Fails when anybody has it, or had it meanwhile.
    async fn again(self: &Arc<Held>, pass: &Pass, line: &mut MutexGuard<'_, Option<Holder>>) -> Result<()> {
        let reach = self.way.reach(pass).await?;
        let (began, ours) =
            (Instant::now(), |seen: &Value| holder::fence(seen).is_none_or(|fence| fence == self.hold.fence));
        loop {
            let Ok(holder) = self.holder(pass, &reach, line).await? else { return Ok(()) };
            let answer = holder.ask("try", &Value::Null).await.map_err(|Gone| self.is_gone())?;
            match answer.word.as_str() {
                "got" if ours(&answer.value) => {
                    if self.sign(holder).await?.is_some() {
                        **line = None;
                    }
                    return Ok(());
                }
                "busy" if ours(&answer.value) && began.elapsed() < AGAIN_WITHIN => {
                    // The host has not noticed yet that the link is gone.
                    let words = holder::end(&self.hold.folder, &answer.value);
                    let _ = reach.run(pass, &host::words_of(words)).await;
                }
                "no" => return Ok(()),
                _ => {
                    **line = None;
                    let name = &self.stack.name;
                    let by = answer.value["holder"]["by"].as_str().unwrap_or("somebody else");
                    let why = format!("the lock of {name} was taken over by {by}: {}", quoted(&answer.value));
                    let next = format!("stack(\"{name}\").lock()     who has it now");
                    return Err(Error::new(Kind::Unmet, format!("nothing was changed on {name}"), why).next(next));
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

// ── looking at it ──

fn who(call: &Call<'_>) -> Result<Dynamic> {
    let seen = looked(call)?;
    if seen.is_null() {
        return Ok(Dynamic::UNIT);
    }
    let (lock, up) = (&seen["lock"], seen["up"].as_i64().unwrap_or(0));
    let age = |key: &str| lock[key].as_i64().map(|then| (up - then).max(0));
    Ok(super::map(json!({
        "held": seen["held"], "by": lock["holder"]["by"], "since": lock["since"], "why": lock["holder"]["why"],
        "run": lock["holder"]["run"], "held_s": age("since_up"), "idle_s": age("last_up"), "last": lock["last"],
        "works": seen["works"],
    })))
}

/// `held`, `lock`, `up` and `works`; null when nobody works on the stack.
fn looked(call: &Call<'_>) -> Result<Value> {
    let (stack, way) = call.stack_and_way()?;
    let look = Look::at(call.world.stack_target(&stack), "", json!({}));
    call.read(look, (stack, way), |pass, (stack, way)| async move {
        let reach = way.reach(&pass).await?;
        let words = holder::look(&beside::folder(&stack));
        let ran = host::finished(way.name(), &words[..1], reach.run(&pass, &host::words_of(words.clone())).await)?;
        let found = holder::looked(&ran.checked(way.name(), &words[..1])?.out);
        let works = works(&stack, &way, &pass, &reach).await?;
        Ok(match found {
            Some((up, lock)) => json!({ "held": true, "lock": lock, "up": up, "works": works }),
            None if works.is_empty() => Value::Null,
            None => {
                let first = &works[0];
                let holder = json!({ "by": first["by"], "run": first["run"], "why": Value::Null });
                json!({ "held": false, "lock": { "holder": holder, "since": first["at"] }, "up": 0, "works": works })
            }
        })
    })
}

fn changes(call: &Call<'_>) -> Result<Dynamic> {
    let (stack, count) = (call.stack()?, call.int_or(0, 20, 1..=1000)?);
    let way = call.world.way(&stack.host)?;
    let look = Look::at(call.world.stack_target(&stack), "", json!({ "count": count }));
    let value = call.read(look, (stack, way), move |pass, (stack, way)| async move {
        let reach = way.reach(&pass).await?;
        let words = holder::changes(&beside::folder(&stack), count);
        let ran = host::finished(way.name(), &words[..1], reach.run(&pass, &host::words_of(words.clone())).await)?;
        Ok(lines(&ran.checked(way.name(), &words[..1])?.out))
    })?;
    Ok(super::map(value))
}

/// The newest first; a line that was cut short by a full disk says nothing.
fn lines(text: &str) -> Value {
    let lines = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let keys = ["at", "verb", "target", "says", "by", "run", "effect"];
    let row = |line: Value| keys.iter().map(|key| (key.to_string(), line[key].clone())).collect::<Value>();
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

    #[test]
    fn the_words_say_who_since_when_why_what_last_how_idle_and_what_runs() {
        let seen = json!({
            "state": "busy", "up": 1000, "lock": {
                "holder": { "by": "alice@mac", "why": "hotfix" }, "since": "T", "since_up": 700, "last_up": 960,
                "last": { "verb": "compose.recreate", "says": "backend" },
            },
            "works": [{ "verb": "host.run", "says": "make", "by": "alice", "at": "U", "run": "r" }],
        });
        let error = is_locked("prod", &seen, "nothing changed", Kind::Refused);
        assert_eq!(error.what, "prod is locked by alice@mac for 5 min (since T): \"hotfix\"");
        for part in ["compose.recreate backend, idle for 40 s", "still runs: host.run make, started by alice at U"] {
            assert!(error.why.contains(part), "{part}: {}", error.why);
        }
        assert!(error.next[0].starts_with("opsh attach r "), "{:?}", error.next);
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

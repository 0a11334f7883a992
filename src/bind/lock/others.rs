//! Locks of other operators: looked at before a change is decided, and taken for as long as a change is made.
//!
//! A look is no effect of the run: a recording has no answer to it, and a replay asks nobody.

use super::held::{Guest, Held, enter, told};
use super::place::OwnRuns;
use super::words::{self, began_words, locked_words};
use super::{BREAK, SETTLE, TAKE, holder, intent, place};
use crate::bind::ssh::Command;
use crate::bind::undo::only_adds;
use crate::bind::way::Way;
use crate::bind::{Change, Look, World, beside, host};
use crate::config::Stack;
use crate::error::{Error, Kind, Result};
use crate::gate::journal::{Fate, Told};
use crate::gate::policy::Mode;
use crate::gate::verb::Class;
use crate::gate::{Did, Effect, Hold, Intended, Other, Pass, journal};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Changes that put nobody out. The first two ask for the holder's name themselves; the others add a line to a list, and what
/// that says of a release is for whoever works there, too.
const HARMLESS: [&str; 4] = [BREAK.name, SETTLE.name, "release.mark_bad", "release.mark_good"];
/// A look at locks is answered within this.
const LOOK_WITHIN_S: u64 = 20;

/// A target of a change and its verb.
pub(super) type Aim<'a> = (&'a str, &'static str, Class);

/// Whoever else works where these effects happen, for each of them. Says which intents are open there.
///
/// Fails when a file beside a stack is not to be used, and when it cannot be looked at there: only a host that cannot be
/// reached is passed over.
pub fn look(world: &World, effects: &[Effect]) -> Result<Vec<Option<Other>>> {
    let aims: Vec<Aim<'_>> = effects.iter().map(|one| (one.target.name.as_str(), one.verb.name, one.class)).collect();
    of(world, &aims)
}

/// The same for a plan, into it.
pub fn look_for_plan(world: &World, plan: &mut [Intended]) -> Result<()> {
    let aims: Vec<Aim<'_>> = plan.iter().map(|one| (one.target.name.as_str(), one.verb.name, one.class)).collect();
    let others = of(world, &aims)?;
    plan.iter_mut().zip(others).for_each(|(one, other)| one.other = other);
    Ok(())
}

/// Says who else works on a stack, and what is open there, or that it cannot be looked at.
pub(super) fn say(world: &World, stack: &Arc<Stack>) {
    if world.gate.is_replay() {
        return;
    }
    let found = match look_at(world, &stack.host, &[stack]) {
        Ok(found) => found,
        Err(error) => return say_blind(world, &stack.name, &error.why),
    };
    let Some(seen) = found.get(&beside::folder(stack)) else { return };
    say_unseen(world, stack, seen);
    if let Some(other) = other_of(world, stack, seen) {
        world.gate.warn(&other.words);
    }
    say_open(world, stack, seen);
    note_busy(world, stack, seen);
}

/// Keeps whether somebody else works there now.
fn note_busy(world: &World, stack: &Stack, seen: &intent::Seen) {
    let is_at_it = |open: &Value| open["alive"] == json!(true) && open["run"] != world.gate.run_id().as_str();
    world.note_busy(stack, other_of(world, stack, seen).is_some() || seen.open.iter().any(is_at_it));
}

/// The stacks that a change there concerns and whose lock this run does not have.
fn stacks_at(world: &World, aim: &Aim<'_>) -> Vec<Arc<Stack>> {
    if aim.2 == Class::Read || HARMLESS.contains(&aim.1) {
        return Vec::new();
    }
    let locks = world.locks.borrow();
    let stacks = place::concerned(world, aim).into_iter();
    stacks.filter(|stack| !locks.contains_key(&stack.name)).collect()
}

fn of(world: &World, aims: &[Aim<'_>]) -> Result<Vec<Option<Other>>> {
    let none = || Ok(aims.iter().map(|_| None).collect());
    if world.gate.is_replay() || world.gate.mode() == Mode::Observe {
        return none();
    }
    let concerned: Vec<Vec<Arc<Stack>>> = aims.iter().map(|aim| stacks_at(world, aim)).collect();
    let mut seen: BTreeMap<(&str, String), intent::Seen> = BTreeMap::new();
    let mut by_host: BTreeMap<&str, Vec<&Arc<Stack>>> = BTreeMap::new();
    for stack in concerned.iter().flatten() {
        let stacks = by_host.entry(stack.host.as_str()).or_default();
        if !stacks.iter().any(|one| one.name == stack.name) {
            stacks.push(stack);
        }
    }
    for (host, stacks) in by_host {
        match look_at(world, host, &stacks) {
            Ok(found) => seen.extend(found.into_iter().map(|(folder, seen)| ((host, folder), seen))),
            Err(error) => pass_over(world, &stacks, error)?,
        }
    }
    let mut others = Vec::new();
    for (aim, stacks) in aims.iter().zip(&concerned) {
        let mut other: Option<Other> = None;
        for stack in stacks {
            let Some(found) = seen.get(&(stack.host.as_str(), beside::folder(stack))) else { continue };
            if stack.name == aim.0 {
                refuse_unusable(stack, found)?;
            }
            say_unseen(world, stack, found);
            say_open(world, stack, found);
            note_busy(world, stack, found);
            match (&other, other_of(world, stack, found)) {
                (_, None) => {}
                (None, first) => other = first,
                (Some(first), Some(more)) if first.by == more.by => {}
                (Some(first), Some(more)) => refuse_several(world, aim.0, first, &more)?,
            }
        }
        others.push(other);
    }
    Ok(others)
}

/// Fails where two others work: the name of one is no consent of the other. A plan says the second, too.
fn refuse_several(world: &World, target: &str, first: &Other, more: &Other) -> Result<()> {
    if world.gate.mode() == Mode::Plan {
        world.gate.warn(&more.words);
        return Ok(());
    }
    let what = format!("nothing was changed on {target}");
    let why = format!("several work there: {} on {}, {} on {}", first.by, first.stack, more.by, more.stack);
    let ask = |other: &Other| format!("stack({}).lock()     since when, and why, {}", json!(other.stack), other.by);
    Err(Error::new(Kind::Refused, what, why).next(ask(first)).next(ask(more)))
}

/// After a look that failed. A host that cannot be reached fails the change itself, and a plan changes nothing: both are
/// said. Without an answer nothing else is changed.
fn pass_over(world: &World, stacks: &[&Arc<Stack>], error: Error) -> Result<()> {
    let names = stacks.iter().map(|stack| stack.name.as_str()).collect::<Vec<_>>().join(" and ");
    if error.kind == Kind::Interrupted {
        return Err(error);
    }
    if error.kind == Kind::Unreachable || world.gate.mode() == Mode::Plan {
        say_blind(world, &names, &error.why);
        return Ok(());
    }
    let what = format!("who works on {names} is not known, so nothing was changed");
    let ask = |stack: &&Arc<Stack>| {
        let words = json!(["ls", "-lan", beside::folder(stack)]);
        format!("host({}).read({words}).out     looks at the files of {}", json!(stack.host), stack.name)
    };
    Err(stacks.iter().take(3).map(ask).fold(Error { what, ..error }, Error::next))
}

/// Says, once in a run, that it is not known who works there.
fn say_blind(world: &World, stack: &str, why: &str) {
    if world.told.borrow_mut().insert((world.gate.run_id(), format!("{stack} {why}"))) {
        world.gate.warn(&format!("who works on {stack} is not known: {}", words::text(&json!(why))));
    }
}

/// The same of what could not be looked at in a folder.
fn say_unseen(world: &World, stack: &Stack, seen: &intent::Seen) {
    for why in [&seen.odd, &seen.blind].into_iter().flatten() {
        say_blind(world, &stack.name, why);
    }
}

/// How the folders of these stacks of one host stand.
pub(super) fn look_at(world: &World, host: &str, stacks: &[&Arc<Stack>]) -> Result<BTreeMap<String, intent::Seen>> {
    let Some(first) = stacks.first() else { return Ok(BTreeMap::new()) };
    let folders: Vec<String> = stacks.iter().map(|stack| beside::folder(stack)).collect();
    let asked = folders.clone();
    let text = run_inside(world, host, first, "who works there", move || holder::look(&asked))?;
    read(host, text.as_str().unwrap_or_default(), &folders)
}

/// What a look printed of these folders.
fn read(host: &str, text: &str, folders: &[String]) -> Result<BTreeMap<String, intent::Seen>> {
    intent::read(text, folders)
        .map_err(|why| Error::new(Kind::Failed, format!("the look at locks failed on {host}"), why).host(host))
}

/// Runs a command on a host for opsh itself, and gives what it prints. It is made when the login has taught what is secret
/// there. Fails when the command does.
fn run_inside(
    world: &World,
    host: &str,
    stack: &Stack,
    says: &str,
    command: impl Fn() -> Command + Clone + Send + 'static,
) -> Result<Value> {
    let way = world.way(host)?;
    let effect = inside(Look::at(world.stack_target(stack), says, json!({})).within(LOOK_WITHIN_S));
    world.gate.look_inside(&effect, |pass| {
        let (way, command) = (way.clone(), command.clone());
        async move { Ok(Did::value(json!(printed(&way, &pass, &command()).await?))) }
    })
}

/// What a command prints that ends well.
async fn printed(way: &Way, pass: &Pass, command: &Command) -> Result<String> {
    let reach = way.reach(pass).await?;
    let ran = host::finished(way.name(), &command.words[..1], reach.run(pass, command).await)?;
    Ok(ran.checked(way.name(), &command.words[..1])?.out)
}

/// An effect of opsh's own, for which nobody is asked.
fn inside(look: Look) -> Effect {
    Effect { class: Class::Read, ..Change::of(look).effect(&TAKE) }
}

fn refuse_unusable(stack: &Stack, seen: &intent::Seen) -> Result<()> {
    let (what, folder) = (format!("nothing was changed on {}", stack.name), beside::folder(stack));
    match (&seen.odd, &seen.newer) {
        (Some(why), _) => Err(beside::not_trusted(&what, &stack.host, &folder, why)),
        (None, Some(file)) => Err(beside::too_new(&what, &format!("{folder}/{file}"))),
        (None, None) => Ok(()),
    }
}

/// Whoever else has the lock.
fn other_of(world: &World, stack: &Stack, seen: &intent::Seen) -> Option<Other> {
    world.own_runs.meet(world, &seen.lock);
    other_than(&world.gate.run_id(), &world.own_runs, stack, seen)
}

/// Whoever else than this run has the lock. What this operator's runs left running is no other's.
fn other_than(run: &str, own: &OwnRuns, stack: &Stack, seen: &intent::Seen) -> Option<Other> {
    let is_own = seen.lock["holder"]["run"] == run || seen.state == "works" && own.left(&seen.lock);
    (seen.is_taken() && !is_own).then(|| holder_of(stack, &seen.state, &seen.lock))
}

/// The one whose lock it is, as `lock.json` says.
pub(super) fn holder_of(stack: &Stack, state: &str, lock: &Value) -> Other {
    Other {
        by: intent::name(&lock["holder"]["by"]),
        words: locked_words(state, lock),
        stack: stack.name.clone(),
        fence: holder::fence(lock).unwrap_or_default().into(),
    }
}

/// Says, once in a run, what others began there and did not end.
fn say_open(world: &World, stack: &Stack, seen: &intent::Seen) {
    for open in &seen.open {
        let run = intent::run_of(open);
        // The lock tells what its holder does now.
        let is_told = |run: &str| run == world.gate.run_id() || seen.is_taken() && seen.lock["holder"]["run"] == run;
        if run.is_some_and(is_told) {
            continue;
        }
        let which = run.unwrap_or(open["file"].as_str().unwrap_or_default());
        if world.told.borrow_mut().insert((world.gate.run_id(), format!("{} {which}", stack.name))) {
            world.gate.warn(&began_words(&stack.name, open));
        }
    }
}

// ── changes under a lock ──

/// What a change is made under: a lock, and the locks of others that are looked at again before it is sent.
pub struct Under {
    lock: Option<(Arc<Held>, How)>,
    change: Value,
    watch: Vec<Watch>,
}

enum How {
    /// Within `locked`.
    Scope,
    /// For as long as the change is made.
    Brief,
    /// Under the lock of somebody else, who was named.
    Guest(Other),
}

/// Stacks of a host that a change concerns and whose locks it does not take.
#[derive(Clone)]
struct Watch {
    stacks: Vec<Arc<Stack>>,
    way: Way,
    run: String,
    own: OwnRuns,
    /// Who was named, or seen, when the change was decided.
    other: Option<Other>,
}

/// The lock that each effect is made under: of this run's scope, when that covers it, else one that is taken for the
/// change, of a stack.
pub fn over(world: &World, effects: &[Effect]) -> Result<Vec<Option<Under>>> {
    let apply = world.gate.mode() == Mode::Apply && !world.gate.is_replay();
    let under = |effect: &Effect| {
        let target = &effect.target.name;
        if effect.class == Class::Read || [BREAK.name, SETTLE.name].contains(&effect.verb.name) {
            return Ok(None);
        }
        let change = json!({
            "verb": effect.verb.name, "target": target, "says": effect.says, "by": journal::actor_here(), "run": world.gate.run_id(),
            "step": world.gate.step(),
        });
        let stacks = if apply { stacks_at(world, &(target, effect.verb.name, effect.class)) } else { Vec::new() };
        let lock = lock_for(world, effect, &stacks);
        let locked = lock.as_ref().map(|(held, _)| held.stack.name.clone());
        let mut watched: BTreeMap<String, Vec<Arc<Stack>>> = BTreeMap::new();
        for stack in stacks.into_iter().filter(|stack| locked.as_ref() != Some(&stack.name)) {
            watched.entry(stack.host.clone()).or_default().push(stack);
        }
        let watch = watched.into_iter().map(|(host, stacks)| {
            let (way, run, own) = (world.way(&host)?, world.gate.run_id(), world.own_runs.clone());
            Ok(Watch { stacks, way, run, own, other: effect.other.clone() })
        });
        let watch = watch.collect::<Result<Vec<Watch>>>()?;
        let lock = lock.filter(|(held, how)| !matches!(how, How::Scope) || !held.bare.load(Ordering::Relaxed));
        Ok((lock.is_some() || !watch.is_empty()).then_some(Under { lock, change, watch }))
    };
    effects.iter().map(under).collect()
}

fn lock_for(world: &World, effect: &Effect, concerned: &[Arc<Stack>]) -> Option<(Arc<Held>, How)> {
    let target = &effect.target.name;
    let scope = {
        let locks = world.locks.borrow();
        locks.get(target).or_else(|| locks.values().find(|held| held.stack.host == *target)).cloned()
    };
    if let Some(held) = scope {
        return Some((held, How::Scope));
    }
    concerned.iter().find(|stack| stack.name == *target)?;
    let held = brief(world, target, effect)?;
    let other = effect.other.clone().filter(|other| other.stack == *target);
    Some((held, other.map_or(How::Brief, How::Guest)))
}

/// The lock of a run's changes outside of `locked`; its intent is one for the whole run, or line.
fn brief(world: &World, target: &str, effect: &Effect) -> Option<Arc<Held>> {
    let kept = world.briefly.borrow().get(target).cloned();
    kept.or_else(|| {
        let stack = world.config.stack(target).ok()?;
        let what = format!("{} {}", effect.verb.name, effect.says.lines().next().unwrap_or_default());
        let held = Held::new(world, &stack, what.trim_end()).ok()?;
        world.briefly.borrow_mut().insert(target.into(), Arc::clone(&held));
        Some(held)
    })
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
    let Some(under) = under else { return Box::pin(work(pass)) };
    let mut change = under.change.clone();
    change["effect"] = json!(pass.effect());
    let (watch, twin) = (under.watch.clone(), pass.twin());
    let Some((held, how)) = &under.lock else {
        let work = work(pass);
        return Box::pin(async move {
            look_again(watch, &twin).await?;
            work.await
        });
    };
    let held = Arc::clone(held);
    let (hold, guest) = match how {
        How::Scope | How::Brief => (held.hold.clone(), None),
        How::Guest(other) => {
            let off = Arc::new(AtomicBool::new(other.fence.is_empty()));
            let hold = Hold { folder: held.hold.folder.clone(), fence: other.fence.clone(), off };
            (hold.clone(), Some(Guest { other: other.clone(), hold }))
        }
    };
    let is_scope = matches!(how, How::Scope);
    let work = work(pass.under(hold));
    Box::pin(async move {
        look_again(watch, &twin).await?;
        if is_scope {
            told(held, twin, change).await?;
            return work.await;
        }
        enter(Arc::clone(&held), twin, change, guest).await?;
        let result = work.await;
        held.free().await;
        result
    })
}

/// Fails when somebody works on one of these stacks who did not when the change was decided: a question may have stood for
/// an hour, and a wave may come long after the first.
async fn look_again(watched: Vec<Watch>, pass: &Pass) -> Result<()> {
    for Watch { stacks, way, run, own, other: named } in watched {
        let folders: Vec<String> = stacks.iter().map(|stack| beside::folder(stack)).collect();
        // Nothing was sent of the change yet.
        let seen = match printed(&way, &pass.for_connection(), &holder::look(&folders)).await {
            // The look before the decision has said so.
            Err(error) if error.kind == Kind::Unreachable => continue,
            text => read(way.name(), &text?, &folders)?,
        };
        let others =
            stacks.iter().zip(&folders).filter_map(|(stack, folder)| other_than(&run, &own, stack, seen.get(folder)?));
        let is_new = |other: &Other| named.as_ref().is_none_or(|named| !named.is_same(other));
        if let Some(other) = others.into_iter().find(is_new) {
            return Err(came_meanwhile(&other));
        }
    }
    Ok(())
}

/// The error for a lock that somebody took after the change was decided.
pub(super) fn came_meanwhile(other: &Other) -> Error {
    let next = format!("stack({}).lock()     who works on it, and on what", json!(other.stack));
    Error::new(Kind::Unmet, format!("nothing was changed on {}", other.stack), &other.words).next(next)
}

// ── the end ──

/// Ends the intents of this run's changes outside of `locked`; after `error` one whose changes stand stays open.
pub fn leave(world: &World, error: Option<&Error>) {
    let all = std::mem::take(&mut *world.briefly.borrow_mut());
    for held in all.into_values() {
        leave_one(world, &held, error);
    }
}

/// The same of one stack.
pub fn leave_stack(world: &World, stack: &str) {
    let held = world.briefly.borrow_mut().remove(stack);
    if let Some(held) = held {
        leave_one(world, &held, None);
    }
}

fn leave_one(world: &World, held: &Arc<Held>, error: Option<&Error>) {
    let (last, stopped) = last_line(world, held, error);
    let effect = inside(Look::at(world.stack_target(&held.stack), "release", json!({})).within(10));
    let left = world.gate.look_inside(&effect, |_| {
        let (held, last) = (Arc::clone(held), last.clone());
        async move { held.leave(&last, stopped).await.map(|()| Did::default()) }
    });
    if let Err(error) = left {
        say_stays_open(world, &held.stack.name, held.begun.load(Ordering::Relaxed), &error);
    }
}

/// Says that an intent that was begun could not be closed.
pub(super) fn say_stays_open(world: &World, stack: &str, begun: bool, error: &Error) {
    if begun && error.kind != Kind::Interrupted {
        world.gate.warn(&format!("what was begun on {stack} stays open there for everybody: {}", error.why));
    }
}

/// The last line of an intent, and whether it stays open.
pub(super) fn last_line(world: &World, held: &Held, error: Option<&Error>) -> (Value, bool) {
    let Some(error) = error else { return (json!({ "kind": "end", "outcome": "ok" }), false) };
    let trail = world.gate.trail_from(held.mark);
    let stands = match world.gate.journal().and_then(|journal| journal.changes(&trail)) {
        Ok(changes) => changes.iter().any(stands),
        Err(_) => true,
    };
    let kind = if stands { "stopped" } else { "end" };
    let line = json!({ "kind": kind, "outcome": error.kind.word(), "why": format!("{}: {}", error.what, error.why) });
    (line, stands)
}

/// A change that happened, or may have, and that nobody took back.
fn stands(change: &Told) -> bool {
    if change.undone_by.is_some() || change.unwound || change.undoes.is_some() || only_adds(change) {
        return false;
    }
    match change.fate {
        Fate::Happened { changed, .. } => changed,
        Fate::Failed(_) => change.destroys,
        Fate::DidNot(_) | Fate::Said(_) => false,
        Fate::GoesOn | Fate::Unknown => true,
    }
}

/// Closes the intents of runs that were undone, resumed or settled, on the stacks that their changes were made on, or on
/// the hosts of which. What cannot be closed is said: it stays open.
pub fn settle_runs(world: &World, runs: &[String], targets: BTreeSet<String>, how: &str) {
    if world.gate.is_replay() || world.gate.mode() != Mode::Apply {
        return;
    }
    let stacks = world.config.stack_names().filter_map(|name| world.config.stack(name).ok());
    for stack in stacks.filter(|stack| targets.contains(&stack.name) || targets.contains(&stack.host)) {
        for run in runs {
            let line = json!({ "kind": "settled", "by": journal::actor_here(), "why": how });
            if let Err(error) = close(world, &stack, run, line) {
                let words = format!("what run {run} began on {} stays open there: {}", stack.name, error.why);
                world.gate.warn(&words);
            }
        }
    }
}

fn close(world: &World, stack: &Arc<Stack>, run: &str, line: Value) -> Result<()> {
    let (folder, run) = (beside::folder(stack), run.to_string());
    run_inside(world, &stack.host, stack, "settle", move || host::words_of(holder::settle(&folder, &run, &line)))
        .map(drop)
}

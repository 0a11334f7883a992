//! Going back: what is there now of a change that was made, what became of one that nobody knows of, and the inverses,
//! newest first. `opsh undo`, `opsh resume` and `undo::guard` are made of this.

pub mod inverse;

use super::docker::once::OnceState;
use super::ssh::Durable;
use super::way::Way;
use super::{Binding, Change, Look, World};
use crate::config::Stack;
use crate::error::{Error, Kind, Result};
use crate::gate::journal::{Fate, Told};
use crate::gate::policy::Mode;
use crate::gate::verb::{Class, Verb};
use crate::gate::{Did, Done, Effect, HIDDEN_INVERSE, Lives, Pass, Undoing, clock};
use crate::redact;
use rhai::Engine;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Looks at what a change of the past has left.
pub type Probe = fn(&Past<'_>) -> Result<Now>;

/// A change of the past, for a look at what is there of it.
pub struct Past<'a> {
    /// Everything that outlives a call.
    pub world: &'a World,
    /// Host or stack.
    pub target: &'a str,
    verb: &'static Verb,
    args: &'a Value,
}

/// What such a look sees.
pub struct Now {
    /// The thing that was changed: `HEAD of /srv`. Verbs that undo each other say the same of it.
    pub of: String,
    /// Its state, in the shape of a recorded `after`.
    pub now: Value,
    /// The state that the change was to set.
    pub wanted: Value,
}

impl Past<'_> {
    /// A recorded argument.
    pub fn text(&self, key: &str) -> String {
        self.args[key].as_str().unwrap_or("").into()
    }

    /// A recorded argument that is no text.
    pub fn value(&self, key: &str) -> &Value {
        &self.args[key]
    }

    /// The stack, and the way to its host.
    pub fn stack(&self) -> Result<(Arc<Stack>, Way)> {
        let stack = self.world.config.stack(self.target)?;
        let way = self.world.way(&stack.host)?;
        Ok((stack, way))
    }

    /// Looks at `of` by `work`, which gives its state and the one that was wanted.
    pub fn look<C, F>(&self, of: impl Into<String>, context: C, work: impl Fn(Pass, C) -> F) -> Result<Now>
    where
        C: Clone,
        F: Future<Output = Result<(Value, Value)>> + Send + 'static,
    {
        let seen = self.read(|pass| {
            let work = work(pass, context.clone());
            async move { work.await.map(|(now, wanted)| json!({ "now": now, "wanted": wanted })) }
        })?;
        Ok(Now { of: of.into(), now: seen["now"].clone(), wanted: seen["wanted"].clone() })
    }

    /// A read of the verb that made the change.
    fn read<F>(&self, work: impl Fn(Pass) -> F) -> Result<Value>
    where
        F: Future<Output = Result<Value>> + Send + 'static,
    {
        let look = Look::at(self.world.recorded_target(self.target), "", json!({ "now": self.args }));
        let effect = Effect { class: Class::Read, ..Change::of(look).effect(self.verb) };
        let done = self.world.gate.perform(&effect, |pass| {
            let work = work(pass);
            async move { work.await.map(Did::value) }
        })?;
        Ok(match done {
            Done::Did(did, _) => did.value,
            Done::Skipped => Value::Null,
        })
    }
}

fn past<'a>(world: &'a World, change: &'a Told) -> Result<Past<'a>> {
    let verb = super::verb(&change.verb)
        .ok_or_else(|| Error::new(Kind::Usage, format!("{} cannot be looked at", change.words()), no_verb(change)))?;
    Ok(Past { world, target: &change.target, verb, args: &change.args })
}

/// Why a change of a verb that is not known here is left alone.
pub fn no_verb(change: &Told) -> String {
    format!("this opsh has no verb {}: another version of opsh made the run", change.verb)
}

/// What is there now in place of what a change changed; `None` for a verb whose state cannot be looked at, and where the record
/// hides what it was called with.
pub fn now(world: &World, change: &Told) -> Result<Option<Now>> {
    // The name that is hidden in its inverse is hidden in what it was called with: the look would be at something else.
    let is_hidden = change.hides_inverse || change.inverse.is_none() && redact::is_hidden(&change.args.to_string());
    let probe = probe_of(change).filter(|_| !is_hidden);
    probe.map(|probe| probe(&past(world, change)?)).transpose()
}

fn probe_of(change: &Told) -> Option<Probe> {
    super::all().find_map(|binding| match binding {
        Binding::Undoable(verb, _, probe) | Binding::Adds(verb, _, Some(probe)) if verb.name == change.verb => {
            Some(*probe)
        }
        _ => None,
    })
}

/// True for a change that only added something, which is left when its run is taken back: an image, a backup.
pub fn only_adds(change: &Told) -> bool {
    super::all().any(|binding| matches!(binding, Binding::Adds(verb, ..) if verb.name == change.verb))
}

// ── what became of it ──

/// What the place says of a change that nobody knows the outcome of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It was done.
    Happened(String),
    /// It was done and failed.
    Failed(String),
    /// It was not done.
    DidNot(String),
    /// It is being done.
    Runs,
    /// The place does not say.
    Unknown(String),
}

/// Asks the place: the result that a detached run left, else the state that is there.
pub fn ask(world: &World, change: &Told) -> Result<Settled> {
    let said = match &change.lives {
        Lives::Run(host) => run_says(world, change, host)?,
        Lives::Container { host, name } => container_says(world, change, host, name)?,
        Lives::No => Settled::Unknown("it left no result that could be asked for".into()),
    };
    // Of a container only that it still runs is believed, when there is a state to look at: its name is that of a lock,
    // so another one may have it by now, and an exit code is what a tool says of itself.
    let is_container = matches!(change.lives, Lives::Container { .. });
    if said == Settled::Runs || !is_container && !matches!(said, Settled::Unknown(_)) {
        return Ok(said);
    }
    Ok(match now(world, change)? {
        // When before and after are the same, the state tells nothing.
        Some(seen) if seen.wanted == change.before => said,
        Some(seen) if seen.now == seen.wanted => Settled::Happened(format!("{} is {}", seen.of, shown(&seen.now))),
        Some(seen) if seen.now == change.before => Settled::DidNot(format!("{} is {}", seen.of, shown(&seen.now))),
        Some(seen) if is_container && matches!(said, Settled::Happened(_)) => {
            let (of, now, wanted) = (seen.of, shown(&seen.now), shown(&seen.wanted));
            Settled::Failed(format!("{of} is {now}, and should be {wanted}"))
        }
        _ => said,
    })
}

/// A host sweeps up results that are older than a week; one day is for clocks that differ.
const SURELY_KEPT: Duration = Duration::from_secs(6 * 24 * 3600);

fn run_says(world: &World, change: &Told, host: &str) -> Result<Settled> {
    let (way, id) = (world.way(host)?, change.id.clone());
    let seen = past(world, change)?.read(|pass| {
        let (way, id) = (way.clone(), id.clone());
        async move {
            Ok(match way.reach(&pass).await?.durable_state(&pass, &id).await? {
                Durable::Never => json!("never"),
                Durable::Running { .. } => json!("running"),
                Durable::Done(code) => json!(code),
                Durable::Died => json!("died"),
            })
        }
    })?;
    Ok(match (seen.as_str(), seen.as_i64()) {
        (Some("never"), _) if clock::wall_us() - change.at_us < SURELY_KEPT.as_micros() as i64 => {
            Settled::DidNot(format!("it was never started on {host}"))
        }
        (Some("never"), _) => Settled::Unknown(format!("{host} keeps results for a week, and it is older than that")),
        (Some("running"), _) => Settled::Runs,
        (_, Some(0)) => Settled::Happened(format!("it ended with 0 on {host}")),
        (_, Some(code)) => Settled::Failed(format!("it ended with {code} on {host}")),
        _ => Settled::Unknown(format!("it was cut short on {host}, by a kill or a reboot")),
    })
}

/// Removes what the run left on its host, now that its outcome is recorded. What stays all the same is litter, no harm.
fn forget(world: &World, change: &Told) {
    let Lives::Run(host) = &change.lives else { return };
    let (Ok(way), Ok(past)) = (world.way(host), past(world, change)) else { return };
    let _ = past.read(|pass| {
        let (way, id) = (way.clone(), change.id.clone());
        async move { way.reach(&pass).await?.durable_forget(&pass, &id).await.map(|_| Value::Null) }
    });
}

fn container_says(world: &World, change: &Told, host: &str, name: &str) -> Result<Settled> {
    let way = world.way(host)?;
    let seen = past(world, change)?.read(|pass| {
        let (way, name) = (way.clone(), name.to_string());
        async move {
            Ok(match way.engine(&pass).await?.once_state(&name).await? {
                OnceState::Never => json!("never"),
                OnceState::Running => json!("running"),
                OnceState::Done(code) => json!(code),
            })
        }
    })?;
    Ok(match (seen.as_str(), seen.as_i64()) {
        (Some("running"), _) => Settled::Runs,
        (_, Some(0)) => Settled::Happened(format!("container {name} ended with 0 on {host}")),
        (_, Some(code)) => Settled::Failed(format!("container {name} ended with {code} on {host}")),
        // It is removed when it has ended: that it is not there says nothing.
        _ => Settled::Unknown(format!("there is no container {name} on {host}")),
    })
}

/// Settles every unknown one of `changes` by asking its place. A run that makes changes records the answers, and removes
/// what was asked for them; any other only looks. Fails with `stuck` when one still runs, or its place does not say what
/// became of it.
pub fn settle(world: &World, changes: &mut [Told]) -> Result<()> {
    let (mut open, mut runs, mut goes_on) = (Vec::new(), Vec::new(), false);
    for change in changes.iter_mut().filter(|change| matches!(change.fate, Fate::Unknown | Fate::GoesOn)) {
        let (outcome, saw, fate) = match ask(world, change)? {
            Settled::Happened(saw) => ("happened", saw, Fate::Happened { changed: true, after: Value::Null }),
            Settled::Failed(saw) => ("failed", saw.clone(), Fate::Failed(saw)),
            Settled::DidNot(saw) => ("did not happen", saw.clone(), Fate::DidNot(saw)),
            Settled::Runs => {
                goes_on = true;
                runs.push(change.run.clone());
                open.push(format!("{} still runs", change.words()));
                continue;
            }
            Settled::Unknown(why) => {
                runs.push(change.run.clone());
                open.push(format!("{} may have happened: {why}", change.words()));
                continue;
            }
        };
        world.gate.say(&format!("· {}: {saw}: it {outcome}", change.words()));
        if world.gate.mode() == Mode::Apply {
            world.gate.settled(&change.run, &change.id, &change.target, json!({ "outcome": outcome, "saw": saw }))?;
            forget(world, change);
        }
        change.fate = fate;
    }
    let Some(run) = runs.first() else { return Ok(()) };
    let error = Error::new(Kind::Stuck, "nothing was done", open.join("\n"));
    let attach = format!("opsh attach {run}     wait for what still runs");
    let error = if goes_on { error.next(attach) } else { error };
    Err(error.next(format!("opsh journal settle {run} \"WHAT YOU SAW\"     after looking at the host")))
}

// ── the way back ──

/// What is to be taken back, and what is not.
#[derive(Debug, Default)]
pub struct WayBack {
    /// What is to be taken back, newest first.
    pub back: Vec<Told>,
    /// What stays, with the reason, newest first.
    pub stays: Vec<(Told, String)>,
    /// What only added something, and is left.
    pub left: Vec<Told>,
    /// What was taken back before.
    pub undone: Vec<Told>,
    /// What destroyed something and cannot be taken back.
    pub destroyed: Vec<Told>,
    /// What failed and may have destroyed something until then.
    perhaps: Vec<Told>,
}

impl WayBack {
    /// Sorts changes, given oldest first, none of them unknown.
    pub fn of(changes: Vec<Told>) -> WayBack {
        let mut way = WayBack::default();
        for change in changes.into_iter().rev().filter(|change| !change.unwound) {
            way.add(change);
        }
        way
    }

    /// How many effects can be taken back, of how many that happened or may have.
    pub fn counts(&self) -> (usize, usize) {
        let happened = self.stays.iter().filter(|(change, _)| !matches!(change.fate, Fate::DidNot(_)));
        (self.back.len(), self.back.len() + happened.count())
    }

    fn add(&mut self, change: Told) {
        if change.undone_by.is_some() {
            return self.undone.push(change);
        }
        let stays = match &change.fate {
            Fate::Happened { changed: false, .. } => return,
            Fate::Happened { .. } | Fate::Failed(_) if only_adds(&change) => return self.left.push(change),
            Fate::Happened { .. } if change.inverse.is_none() => {
                if change.destroys {
                    self.destroyed.push(change.clone());
                }
                cannot(&change)
            }
            Fate::DidNot(why) => format!("did not happen: {why}"),
            // Of a state that can be looked at, a look will tell what is left.
            Fate::Failed(why) if change.before.is_null() || change.inverse.is_none() => {
                if change.destroys {
                    self.perhaps.push(change.clone());
                }
                match change.hides_inverse && change.inverse.is_none() {
                    true => cannot(&change),
                    false => format!("failed, and what it left is not known: {why}"),
                }
            }
            Fate::Said(saw) => format!("not undone: a person saw \"{saw}\""),
            Fate::GoesOn | Fate::Unknown => "its outcome is not known".into(),
            Fate::Happened { .. } | Fate::Failed(_) if super::verb(&change.verb).is_none() => {
                let line = change.inverse.as_deref().unwrap_or_default();
                format!("not undone: {}; its inverse is {line}", no_verb(&change))
            }
            Fate::Happened { .. } | Fate::Failed(_) => return self.back.push(change),
        };
        self.stays.push((change, stays));
    }

    /// Looks what became of the changes that failed on their way to destroy something: half of it may be done.
    pub fn look_at_failed(&mut self, world: &World) -> Result<()> {
        for change in std::mem::take(&mut self.perhaps) {
            if now(world, &change)?.is_some_and(|seen| seen.now != change.before) {
                self.destroyed.push(change);
            }
        }
        Ok(())
    }

    /// Compares what is there now with what the changes left, and compiles their inverses. What is as it was before stays.
    ///
    /// Fails with `unmet` where something else is there: somebody changed it since, and going back would take that away.
    pub fn check(&mut self, engine: &Engine, world: &World) -> Result<()> {
        // What the older change of a thing should have left is what the newer one found.
        let mut found_by_newer: BTreeMap<(String, String), Value> = BTreeMap::new();
        let (mut back, mut stays) = (Vec::new(), Vec::new());
        for change in self.back.clone() {
            inverse::compile(engine, world, &change)?;
            let Some(seen) = now(world, &change)? else {
                back.push(change);
                continue;
            };
            let thing = (change.target.clone(), seen.of.clone());
            let found = found_by_newer.get(&thing).unwrap_or(&seen.now);
            if !change.before.is_null() && *found == change.before {
                stays.push((change, "is as it was before it".into()));
                continue;
            }
            if let Some(left) = left_by(&change, &seen).filter(|left| left != found) {
                return Err(differs(&change, &seen.of, &left, found));
            }
            found_by_newer.insert(thing, change.before.clone());
            back.push(change);
        }
        self.back = back;
        self.stays.extend(stays);
        Ok(())
    }

    /// Takes everything back, newest first. Gives how many were, and the error that stopped it.
    ///
    /// `most` is the class that an inverse may have without being asked for; `agreed` says whether a person agreed to it.
    pub fn go(
        &self,
        engine: &Engine,
        world: &World,
        most: impl Fn(&Told) -> Class,
        agreed: impl Fn(&Told) -> bool,
    ) -> (usize, Option<Error>) {
        for (at, change) in self.back.iter().enumerate() {
            world.gate.say(&format!("undo {} of {}: {}", at + 1, self.back.len(), change.words()));
            let verbs = if agreed(change) { inverse::named(engine, change) } else { Vec::new() };
            let (effect, target, source) = (change.id.clone(), change.target.clone(), inverse::name(change));
            let undoing = Undoing { effect, target, source, class: most(change), verbs };
            if let Err(error) = world.gate.take_back(undoing, || inverse::evaluate(engine, world, change)) {
                return (at, Some(error));
            }
        }
        (self.back.len(), None)
    }
}

/// Why a change without an inverse that can be performed is not taken back.
fn cannot(change: &Told) -> String {
    match change.hides_inverse {
        true => {
            format!("{HIDDEN_INVERSE}: take it back by hand; opsh journal show {} has the line without it", change.run)
        }
        false => "cannot be undone".into(),
    }
}

/// True for an inverse that was agreed to with its change: its verb wrote it, or a person saw it before saying yes.
pub fn is_agreed(world: &World, change: &Told) -> bool {
    let is_own = super::verb(&change.verb).is_some_and(|verb| !verb.takes_inverse());
    is_own || change.inverse.as_deref().is_some_and(|line| world.gate.has_shown(&change.target, line))
}

/// The state that a change left; `None` when nobody can say.
fn left_by(change: &Told, seen: &Now) -> Option<Value> {
    match &change.fate {
        Fate::Happened { after, .. } if !after.is_null() => Some(after.clone()),
        Fate::Happened { .. } => Some(seen.wanted.clone()),
        _ => None,
    }
}

/// The error of a change whose thing is not as the change left it.
fn differs(change: &Told, of: &str, left: &Value, found: &Value) -> Error {
    let why = format!("{of} is {} now, and {} left {}", shown(found), change.words(), shown(left));
    let error = Error::new(Kind::Unmet, "something else is there now; nothing was done", why).host(&change.target);
    let error = error.next(format!("opsh journal show {}     what the run did", change.run));
    match &change.inverse {
        Some(line) => error.next(format!("{line}     its inverse, when you know that it is right")),
        None => error,
    }
}

/// Checks that the world still is as these changes, given oldest first, left it. Of each thing the newest change counts,
/// and only when it is `finished`: what is done again may find anything.
///
/// Fails with `unmet` where something else is there.
pub fn still_there(world: &World, changes: &[Told], finished: impl Fn(&Told) -> bool) -> Result<()> {
    let mut newer: Vec<(String, String)> = Vec::new();
    for change in changes.iter().rev() {
        let Some(seen) = now(world, change)? else { continue };
        let thing = (change.target.clone(), seen.of.clone());
        if newer.contains(&thing) || matches!(change.fate, Fate::DidNot(_)) {
            continue;
        }
        newer.push(thing);
        if let Some(left) = left_by(change, &seen).filter(|left| finished(change) && *left != seen.now) {
            return Err(differs(change, &seen.of, &left, &seen.now));
        }
    }
    Ok(())
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "not there".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(id: &str, fate: Fate) -> Told {
        Told {
            id: format!("run.{id}"),
            run: "run".into(),
            seq: 0,
            at_us: 0,
            verb: "host.run".into(),
            target: "local".into(),
            meant: BTreeMap::new(),
            destroys: false,
            says: id.into(),
            args: Value::Null,
            inverse: Some("back()".into()),
            hides_inverse: false,
            before: Value::Null,
            lives: Lives::No,
            undoes: None,
            unwound: false,
            fate,
            undone_by: None,
            attempt: None,
        }
    }

    fn happened(changed: bool) -> Fate {
        Fate::Happened { changed, after: json!("new") }
    }

    fn names(changes: &[Told]) -> Vec<&str> {
        changes.iter().map(|change| change.says.as_str()).collect()
    }

    #[test]
    fn what_changed_and_has_an_inverse_goes_back_newest_first_and_the_rest_says_why_it_stays() {
        let failed = || Fate::Failed("exit 1".into());
        let way = WayBack::of(vec![
            told("first", happened(true)),
            told("nothing to change", happened(false)),
            Told { inverse: None, ..told("no inverse", happened(true)) },
            Told { inverse: None, hides_inverse: true, ..told("a hidden inverse", happened(true)) },
            Told { inverse: None, destroys: true, ..told("gone", happened(true)) },
            told("did not", Fate::DidNot("refused".into())),
            told("failed", failed()),
            Told { before: json!("old"), ..told("failed, can be looked at", failed()) },
            told("seen", Fate::Said("it is there".into())),
            Told { undone_by: Some("later".into()), ..told("undone", happened(true)) },
            Told { undoes: Some("run.1".into()), unwound: true, ..told("unwinding of this run", happened(true)) },
            Told { undoes: Some("other.1".into()), ..told("undo of another", happened(true)) },
            Told { verb: "backup.make".into(), ..told("a backup", happened(true)) },
            Told { verb: "compose.build".into(), ..told("half an image", failed()) },
        ]);
        assert_eq!(names(&way.back), ["undo of another", "failed, can be looked at", "first"]);
        assert_eq!(names(&way.undone), ["undone"]);
        assert_eq!(names(&way.left), ["half an image", "a backup"]);
        assert_eq!(names(&way.destroyed), ["gone"]);
        let stays: Vec<String> = way.stays.iter().map(|(change, why)| format!("{}: {why}", change.says)).collect();
        let expected = [
            "seen: not undone: a person saw \"it is there\"",
            "failed: failed, and what it left is not known: exit 1",
            "did not: did not happen: refused",
            "gone: cannot be undone",
            "a hidden inverse: what takes it back holds a secret, which the journal does not keep: take it back by hand; \
             opsh journal show run has the line without it",
            "no inverse: cannot be undone",
        ];
        assert_eq!(stays, expected);
    }

    #[test]
    fn a_change_whose_result_alone_is_known_left_what_it_wanted() {
        let seen = Now { of: "x".into(), now: json!("a"), wanted: json!("b") };
        let only_known = told("x", Fate::Happened { changed: true, after: Value::Null });
        assert_eq!(left_by(&only_known, &seen), Some(json!("b")));
        assert_eq!(left_by(&told("x", happened(true)), &seen), Some(json!("new")));
        assert_eq!(left_by(&told("x", Fate::Failed(String::new())), &seen), None);
    }
}

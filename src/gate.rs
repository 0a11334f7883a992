//! The one door: every effect is one call of [`Gate::perform`]: decide, ask, record, act, record, return.
//!
//! The gate knows neither Rhai nor any system; it is handed a future that does the work and a token that the work
//! cannot be done without.

pub mod clock;
#[cfg(debug_assertions)]
mod fault;
pub mod journal;
pub mod policy;
pub mod verb;
mod wait;

use crate::error::{Error, Kind, Place, Result};
use crate::screen::{Mark, Screen};
use journal::{Journal, Record};
use policy::{Decision, Facts, Mode, Reason};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use verb::{Class, Verb};
use wait::{Ended, Io};

/// Proof that the gate decided and recorded: whatever opens a connection, starts a process, writes a file or reads a
/// clock takes one by reference. Only the gate makes it.
#[derive(Debug)]
pub struct Pass {
    effect: String,
    sent: Arc<AtomicBool>,
}

impl Pass {
    /// Id of the effect, unique in the journal: names what is left on a host so that it can be found again.
    pub fn effect(&self) -> &str {
        &self.effect
    }

    /// Says that the change is about to be sent: a link that is lost from here on means that it may have happened.
    pub fn sending(&self) {
        self.sent.store(true, Ordering::Release);
    }

    /// A token for tests of what lies behind the door.
    #[cfg(test)]
    pub fn for_tests() -> Pass {
        Pass { effect: format!("test-{}.1", clock::run_id()), sent: Arc::default() }
    }
}

/// Where an effect happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name of the host or stack: `prod-1`, `prod`, `here`.
    pub name: String,
    /// Changes need consent.
    pub protected: bool,
}

/// One intended performance of a verb.
#[derive(Clone, Debug)]
pub struct Effect {
    /// The verb.
    pub verb: &'static Verb,
    /// Its class here: at most the verb's, or `destroy` when the arguments make it so.
    pub class: Class,
    /// Where.
    pub target: Target,
    /// Arguments, for the record.
    pub args: Value,
    /// The arguments as a person reads them: `backend → 79bf821`.
    pub says: String,
    /// The line of Rhai that takes it back.
    pub inverse: Option<String>,
    /// What is lost, typed by the person who agrees to a destroy.
    pub lost: Option<String>,
    /// Where in the script.
    pub place: Option<Place>,
    /// How long it may take.
    pub deadline: Duration,
}

/// What the work reports.
#[derive(Debug, Default)]
pub struct Did {
    /// The value for the script.
    pub value: Value,
    /// For a change: the state is not what it was.
    pub changed: bool,
    /// State before, as far as undo needs it.
    pub before: Value,
    /// State after, as a second look at the source of truth says.
    pub after: Value,
}

impl Did {
    /// A read's value.
    pub fn value(value: Value) -> Did {
        Did { value, ..Did::default() }
    }
}

/// What became of an effect that did not fail.
#[derive(Debug)]
pub enum Done {
    /// Performed.
    Did(Did, Duration),
    /// Not performed: plan mode.
    Skipped,
}

/// An effect that a plan names before anything is done.
#[derive(Clone, Debug)]
pub struct Intended {
    /// The verb.
    pub verb: &'static Verb,
    /// Its class with these arguments.
    pub class: Class,
    /// Where.
    pub target: Target,
    /// As a person reads it.
    pub says: String,
    /// What is lost.
    pub lost: Option<String>,
}

/// The target of verbs that touch no host: clocks, expectations, probes from this machine.
pub const HERE: &str = "here";

impl Target {
    /// [`HERE`].
    pub fn here() -> Target {
        Target { name: HERE.into(), protected: false }
    }
}

/// What the command line agreed to.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    /// `--yes`: changes.
    pub yes: bool,
    /// `--allow VERB`: these destroys.
    pub allow: Vec<String>,
}

/// The door.
pub struct Gate {
    mode: Mode,
    grants: Grants,
    journal: Result<Journal>,
    screen: Rc<Screen>,
    io: Io,
    run: RefCell<Run>,
    warned: Cell<bool>,
}

/// The run that goes on.
#[derive(Default)]
struct Run {
    id: String,
    effects: u32,
    /// Verb, target, and for a destroy what is lost: consent to lose one thing is not consent to lose another. Each
    /// planned effect is agreed to once, and used up when it is performed.
    consent: Vec<(String, String, Option<String>)>,
    /// Targets on which a change was skipped: the plan is exact up to there.
    skipped: BTreeSet<String>,
    /// Changes that were begun, in words.
    begun: Vec<String>,
}

impl Gate {
    /// A door in this mode. A journal that could not be opened makes reads go unrecorded and refuses every change.
    pub fn new(mode: Mode, grants: Grants, journal: Result<Journal>, screen: Rc<Screen>) -> Result<Gate> {
        let io = Io::start().map_err(|error| Error::new(Kind::Failed, "opsh cannot start", error.to_string()))?;
        Ok(Gate { mode, grants, journal, screen, io, run: RefCell::default(), warned: Cell::new(false) })
    }

    /// Mode of the run.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The journal, or why there is none.
    pub fn journal(&self) -> Result<&Journal> {
        self.journal.as_ref().map_err(Error::clone)
    }

    /// The screen.
    pub fn screen(&self) -> &Rc<Screen> {
        &self.screen
    }

    /// Id of the run that goes on.
    pub fn run_id(&self) -> String {
        self.run.borrow().id.clone()
    }

    /// Begins a run: consent, counters and skipped targets start anew. `what` and `facts` say what is run.
    pub fn begin_run(&self, what: &str, facts: Value) {
        crate::interrupt::clear();
        *self.run.borrow_mut() = Run { id: clock::run_id(), ..Run::default() };
        let body = json!({
            "what": what, "mode": self.mode.word(), "opsh": env!("CARGO_PKG_VERSION"), "facts": facts,
            "yes": self.grants.yes, "allow": self.grants.allow,
        });
        self.note("run.start", body);
    }

    /// Ends the run.
    pub fn end_run(&self, error: Option<&Error>) {
        let outcome = error.map_or("ok", |error| match error.kind {
            Kind::Refused => "refused",
            kind => outcome(kind),
        });
        self.note("run.end", json!({ "outcome": outcome, "error": error.map(Error::to_json) }));
    }

    /// Consent covers one typed line at the prompt, never a sitting.
    pub fn forget_consent(&self) {
        let mut run = self.run.borrow_mut();
        run.consent.clear();
        run.skipped.clear();
        run.begun.clear();
    }

    /// Writes a record that is not an effect. Without a journal it is lost, which [`Gate::perform`] makes plain.
    pub fn note(&self, kind: &'static str, body: Value) {
        let run = self.run_id();
        if let Ok(journal) = &self.journal
            && let Err(error) =
                journal.append(&Record { kind, run: &run, effect: None, target: None, class: None, body })
        {
            self.warn_unrecorded(&error);
        }
    }

    fn warn_unrecorded(&self, error: &Error) {
        if !self.warned.replace(true) {
            self.screen.warn(&format!("NOT RECORDED: {error}. Reads go on, changes are refused."));
        }
    }

    /// True when a change was skipped on this target in plan mode: what is read there from now on is not what it
    /// would be.
    pub fn is_beyond_plan(&self, target: &str) -> bool {
        let skipped = &self.run.borrow().skipped;
        // What is judged or waited for here follows from changes anywhere.
        skipped.contains(target) || (target == HERE && !skipped.is_empty())
    }

    /// Performs one effect: `work` is called only when policy, a person and the journal allow it.
    pub fn perform<F>(&self, effect: &Effect, work: impl FnOnce(Pass) -> F) -> Result<Done>
    where
        F: Future<Output = Result<Did>> + Send + 'static,
    {
        if effect.verb.waits && self.is_beyond_plan(&effect.target.name) {
            self.screen.effect(
                Mark::Would,
                effect.verb.name,
                &effect.target.name,
                &format!("would look: {}", effect.says),
            );
            return Ok(Done::Skipped);
        }
        match self.decide(&effect.intended()) {
            Decision::Run => self.use_up(&effect.intended()),
            Decision::Skip => return Ok(self.skip(effect)),
            Decision::Refuse(reason) => {
                let refused = self.refusal(&[(effect.intended(), reason)]);
                return Err(self.refused(effect, refused));
            }
            Decision::AskYes | Decision::AskLost => {
                self.ask(&[effect.intended()]).map_err(|error| self.refused(effect, error))?;
                self.use_up(&effect.intended());
            }
        }
        let id = self.next_id();
        self.begin(effect, &id)?;
        fault(effect, "begun");
        self.announce(effect);
        let started = Instant::now();
        let sent = Arc::new(AtomicBool::new(false));
        let future = work(Pass { effect: id.clone(), sent: Arc::clone(&sent) });
        let label = format!("{}  {}  {}", effect.verb.name, effect.target.name, effect.says);
        let ended = self.io.wait(future, Some(effect.deadline), |elapsed| self.screen.busy(&label, elapsed));
        self.screen.idle();
        let took = started.elapsed();
        let (outcome, result) = settle(effect, ended, sent.load(Ordering::Acquire));
        let result = result.map_err(|error| advise(error, effect, &self.run_id()));
        fault(effect, "performed");
        self.end(effect, &id, outcome, &result, took)?;
        result.map(|did| Done::Did(did, took))
    }

    fn decide(&self, one: &Intended) -> Decision {
        policy::decide(Facts {
            mode: self.mode,
            class: one.class,
            protected: one.target.protected,
            consented: self.run.borrow().consent.contains(&one.key()),
            terminal: self.screen.options().terminal,
            yes: self.grants.yes,
            allowed: self.grants.allow.iter().any(|allowed| allowed == one.verb.name),
        })
    }

    fn use_up(&self, one: &Intended) {
        // A look that a changing verb takes beforehand is not the change that was agreed to.
        if one.class == Class::Read {
            return;
        }
        let consent = &mut self.run.borrow_mut().consent;
        if let Some(at) = consent.iter().position(|key| *key == one.key()) {
            consent.swap_remove(at);
        }
    }

    fn skip(&self, effect: &Effect) -> Done {
        let target = &effect.target.name;
        if self.run.borrow_mut().skipped.insert(target.clone()) {
            self.screen.say(&format!("· exact to here on {target}; what follows is what the script would do next"));
        }
        let inverse = effect.inverse.as_ref().map_or(String::new(), |line| format!("   undo: {line}"));
        let says = format!("would: {}{inverse}", effect.says);
        self.screen.effect(Mark::Would, effect.verb.name, target, &says);
        Done::Skipped
    }

    /// Decides a whole plan before its first change: refused effects stop it, the rest is asked for in one question.
    pub fn authorize(&self, plan: &[Intended]) -> Result<()> {
        let decided: Vec<(Intended, Decision)> =
            plan.iter().map(|intended| (intended.clone(), self.decide(intended))).collect();
        let refused: Vec<(Intended, Reason)> = decided
            .iter()
            .filter_map(|(intended, decision)| match decision {
                Decision::Refuse(reason) => Some((intended.clone(), *reason)),
                _ => None,
            })
            .collect();
        if !refused.is_empty() {
            let error = self.refusal(&refused);
            self.note("consent", json!({ "given": false, "why": error.why, "plan": in_words(plan) }));
            return Err(error);
        }
        if decided.iter().any(|(_, decision)| matches!(decision, Decision::AskYes | Decision::AskLost)) {
            return self.ask(plan);
        }
        if self.mode == Mode::Apply {
            self.consent(plan, "command line or sandbox");
        }
        Ok(())
    }

    fn consent(&self, plan: &[Intended], by: &str) {
        self.run.borrow_mut().consent.extend(plan.iter().map(Intended::key));
        self.note("consent", json!({ "given": true, "by": by, "plan": in_words(plan) }));
    }

    /// One question for the whole plan. The default is no.
    fn ask(&self, plan: &[Intended]) -> Result<()> {
        for intended in plan {
            self.screen.effect(Mark::Would, intended.verb.name, &intended.target.name, &intended.says);
        }
        let asked =
            |intended: &&Intended| intended.class == Class::Destroy && self.decide(intended) == Decision::AskLost;
        let lost: Vec<&str> = plan.iter().filter(asked).map(|one| one.lost.as_deref().unwrap_or("it")).collect();
        let all = lost.join("; ");
        let typed = if lost.is_empty() { "y" } else { all.as_str() };
        let question = match typed {
            "y" => "Do this? y, or Enter to stop:".to_string(),
            typed => format!("This cannot be undone. Type {typed} to go on, or Enter to stop:"),
        };
        let answer = self.screen.ask(&question);
        let agreed = match answer.as_deref().map(str::trim) {
            Some("yes") => typed == "y",
            answer => answer == Some(typed),
        };
        if agreed {
            self.consent(plan, "person at the terminal");
            return Ok(());
        }
        let interrupted = crate::interrupt::is_interrupted();
        let why = match answer {
            _ if interrupted => "Ctrl-C at the question".to_string(),
            None => "the terminal went away at the question".to_string(),
            Some(answer) if answer.trim().is_empty() => "the answer was no".to_string(),
            Some(answer) => format!("the answer was \"{}\", not \"{typed}\"", answer.trim()),
        };
        self.note("consent", json!({ "given": false, "why": why, "plan": in_words(plan) }));
        Err(self.not_done(if interrupted { Kind::Interrupted } else { Kind::Refused }, "not done", why))
    }

    /// Why something was not done, and what had been done before it in this run, which is not undone.
    fn not_done(&self, kind: Kind, what: &str, why: String) -> Error {
        let run = self.run.borrow();
        if run.begun.is_empty() {
            return Error::new(kind, what, format!("{why}; nothing changed"));
        }
        // Exit code 3 promises that nothing changed.
        let kind = if kind == Kind::Refused { Kind::Unmet } else { kind };
        Error::new(kind, what, format!("{why}; before it this run did: {}", run.begun.join(", ")))
            .next(format!("opsh journal show {}     what was done, and what takes it back", run.id))
    }

    fn next_id(&self) -> String {
        let mut run = self.run.borrow_mut();
        run.effects += 1;
        format!("{}.{}", run.id, run.effects)
    }

    /// Writes what is about to be done; without that record no change is done.
    fn begin(&self, effect: &Effect, id: &str) -> Result<()> {
        if effect.class == Class::Read {
            return Ok(());
        }
        let run = self.run_id();
        let body = json!({
            "verb": effect.verb.name, "args": effect.args, "says": effect.says, "inverse": effect.inverse,
            "at": effect.place.as_ref().map(Place::to_string),
        });
        let record = Record {
            kind: "effect.begin",
            run: &run,
            effect: Some(id),
            target: Some(&effect.target.name),
            class: Some(effect.class),
            body,
        };
        self.journal()?.append(&record).map_err(|error| Error {
            what: format!("{} was not done on {}", effect.verb.name, effect.target.name),
            ..error
        })?;
        self.run.borrow_mut().begun.push(format!("{} {}", effect.verb.name, effect.says));
        Ok(())
    }

    fn announce(&self, effect: &Effect) {
        if effect.class != Class::Read {
            self.screen.effect(Mark::Begin, effect.verb.name, &effect.target.name, &effect.says);
        }
    }

    /// Writes the one end of an effect. A read writes only this; its loss is said aloud, a change's is an error.
    fn end(&self, effect: &Effect, id: &str, outcome: &str, result: &Result<Did>, took: Duration) -> Result<()> {
        let mut body = json!({
            "outcome": outcome, "took_ms": took.as_millis() as u64, "verb": effect.verb.name,
        });
        match result {
            Ok(did) => {
                body["value"] = did.value.clone();
                if effect.class != Class::Read {
                    body["changed"] = json!(did.changed);
                    body["before"] = did.before.clone();
                    body["after"] = did.after.clone();
                }
            }
            Err(error) => body["error"] = error.to_json(),
        }
        if effect.class == Class::Read {
            body["args"] = effect.args.clone();
            body["at"] = json!(effect.place.as_ref().map(Place::to_string));
        } else {
            let (mark, says) = match result {
                Ok(did) if did.changed => (Mark::Ok, human(took)),
                Ok(_) => (Mark::Ok, "nothing to change".to_string()),
                Err(error) => (Mark::Bad, outcome_words(error)),
            };
            self.screen.effect(mark, effect.verb.name, &effect.target.name, &says);
        }
        let run = self.run_id();
        let kind = if effect.class == Class::Read { "effect.read" } else { "effect.end" };
        let record = Record {
            kind,
            run: &run,
            effect: Some(id),
            target: Some(&effect.target.name),
            class: Some(effect.class),
            body,
        };
        let written = self.journal().and_then(|journal| journal.append(&record));
        match written {
            Ok(_) => Ok(()),
            Err(error) if effect.class == Class::Read => {
                self.warn_unrecorded(&error);
                Ok(())
            }
            Err(error) => {
                let what =
                    format!("{} on {} ended {outcome}, and that is not recorded", effect.verb.name, effect.target.name);
                let why = match result {
                    Ok(_) => error.why,
                    Err(own) => format!("{}; the journal: {}", own.why, error.why),
                };
                Err(Error { what, why, kind: Kind::Journal, ..error })
            }
        }
    }

    fn refused(&self, effect: &Effect, mut error: Error) -> Error {
        error.host = Some(effect.target.name.clone());
        if let Some(place) = &effect.place {
            error.trace = vec![place.clone()];
        }
        error
    }
}

impl Effect {
    fn intended(&self) -> Intended {
        Intended {
            verb: self.verb,
            class: self.class,
            target: self.target.clone(),
            says: self.says.clone(),
            lost: self.lost.clone(),
        }
    }
}

impl Intended {
    fn key(&self) -> (String, String, Option<String>) {
        let lost = self.lost.clone().filter(|_| self.class == Class::Destroy);
        (self.verb.name.to_string(), self.target.name.clone(), lost)
    }
}

fn in_words(plan: &[Intended]) -> Vec<String> {
    plan.iter().map(|one| format!("{} {} {}", one.verb.name, one.target.name, one.says)).collect()
}

impl Gate {
    /// What was refused, and what to type instead.
    fn refusal(&self, refused: &[(Intended, Reason)]) -> Error {
        let names: Vec<String> =
            refused.iter().map(|(one, _)| format!("{} on {}", one.verb.name, one.target.name)).collect();
        let what = format!("refused: {}", names.join(", "));
        if self.mode == Mode::Observe {
            let error = self.not_done(Kind::Refused, &what, "this run only observes".into());
            return error.next("the same line without --observe");
        }
        let mut flags: Vec<String> = Vec::new();
        for (one, reason) in refused {
            let flag = match reason {
                Reason::NeedsAllow => format!("--allow {}", one.verb.name),
                _ => "--yes".to_string(),
            };
            if !flags.contains(&flag) {
                flags.push(flag);
            }
        }
        let lost: Vec<&str> = refused.iter().filter_map(|(one, _)| one.lost.as_deref()).collect();
        let loses = if lost.is_empty() { String::new() } else { format!("; what is lost: {}", lost.join("; ")) };
        let verb = if flags.len() == 1 { "was" } else { "were" };
        let why = format!("there is no terminal to ask at, and {} {verb} not given{loses}", flags.join(" and "));
        // The whole set: the line that is typed next should be the last one.
        let had = self.grants.yes.then(|| "--yes".to_string()).into_iter();
        let had = had.chain(self.grants.allow.iter().map(|name| format!("--allow {name}")));
        let flags: Vec<String> = had.filter(|flag| !flags.contains(flag)).chain(flags.iter().cloned()).collect();
        let agree = format!("opsh {} …     agree to it beforehand", flags.join(" "));
        self.not_done(Kind::Refused, &what, why).next(agree)
    }
}

/// After a change that may have happened: where to look, and how to say what was seen.
fn advise(error: Error, effect: &Effect, run: &str) -> Error {
    if effect.class == Class::Read || !matches!(error.kind, Kind::Unknown | Kind::Interrupted) {
        return error;
    }
    error
        .next(format!("opsh journal show {run}     what was done in this run"))
        .next(format!("opsh journal settle {run} \"WHAT YOU SAW\"     after looking at the host"))
}

/// The outcome of the work in one word and as a result, with what a lost or stopped change means.
fn settle(effect: &Effect, ended: Ended<Result<Did>>, sent: bool) -> (&'static str, Result<Did>) {
    let at = if effect.target.name == HERE { String::new() } else { format!(" on {}", effect.target.name) };
    let what = format!("{} failed{at}", effect.verb.name);
    let reads = effect.class == Class::Read;
    let maybe = if reads { "" } else { "; it may have happened, or still be going on" };
    let (outcome, error) = match ended {
        Ended::Done(Ok(did)) => return ("ok", Ok(did)),
        Ended::Done(Err(error)) => {
            let kind = kind_of(error.kind, reads, sent);
            let why = if kind != error.kind && !reads { format!("{}{maybe}", error.why) } else { error.why.clone() };
            (outcome(kind), Error { kind, why, ..error })
        }
        Ended::Timeout => {
            let why = format!("not done within {} s{maybe}", effect.deadline.as_secs());
            // A change that we stopped waiting for is not a failure: nobody knows.
            ("timeout", Error::new(if reads { Kind::Timeout } else { Kind::Unknown }, what, why))
        }
        Ended::Interrupted => {
            let what = format!("{} was interrupted{at}", effect.verb.name);
            ("interrupted", Error::new(Kind::Interrupted, what, format!("Ctrl-C{maybe}")))
        }
        Ended::Panicked => ("unknown", Error::new(Kind::Unknown, what, format!("a bug in opsh ended the work{maybe}"))),
    };
    let host = error.host.or_else(|| Some(effect.target.name.clone()));
    (outcome, Err(Error { host, trace: effect.place.iter().cloned().collect(), ..error }))
}

/// A read that got no answer did nothing; a change that was sent and got none may have happened.
fn kind_of(kind: Kind, reads: bool, sent: bool) -> Kind {
    match kind {
        Kind::Unknown if reads => Kind::Unreachable,
        Kind::Unreachable | Kind::Denied | Kind::Timeout if sent && !reads => Kind::Unknown,
        kind => kind,
    }
}

fn outcome(kind: Kind) -> &'static str {
    match kind {
        Kind::Timeout => "timeout",
        Kind::Interrupted => "interrupted",
        Kind::Unknown => "unknown",
        _ => "failed",
    }
}

fn outcome_words(error: &Error) -> String {
    match error.kind {
        Kind::Unknown => "outcome unknown: it may have happened".into(),
        Kind::Timeout | Kind::Interrupted => "stopped waiting: it may have happened".into(),
        _ => error.why.lines().next().unwrap_or("failed").to_string(),
    }
}

/// `0.4 s`, `12 s`, `3 min 5 s`.
pub fn human(took: Duration) -> String {
    match took.as_secs() {
        0..10 => format!("{:.1} s", took.as_secs_f64()),
        seconds @ 10..120 => format!("{seconds} s"),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

#[cfg(debug_assertions)]
fn fault(effect: &Effect, point: &str) {
    if effect.class != Class::Read {
        fault::strike(point);
    }
}

#[cfg(not(debug_assertions))]
fn fault(_: &Effect, _: &str) {}

#[cfg(test)]
mod tests;

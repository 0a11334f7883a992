//! The one door: every effect is one call of [`Gate::perform_all`]: decide, ask, record, act, record, return.
//!
//! The gate knows neither Rhai nor any system; it is handed a future that does the work and a token that the work
//! cannot be done without.

mod agreed;
mod beside;
mod bounds;
pub mod clock;
mod consent;
#[cfg(debug_assertions)]
mod fault;
mod flow;
pub mod journal;
mod ledger;
mod outcome;
mod pass;
pub mod policy;
mod record;
pub mod replay;
mod state;
pub mod verb;
mod wait;
mod wave;

use crate::error::{Error, Kind, Place, Result};
use crate::redact;
pub use crate::screen::one_line;
use crate::screen::{Mark, Screen};
use agreed::Agreed;
pub use beside::Beside;
pub use bounds::{Limits, Waiting};
use consent::Admitted;
pub use consent::{Grants, Intended, Other};
use journal::Journal;
pub use ledger::Ledger;
use outcome::outcome;
#[cfg(test)]
pub use pass::Shown;
pub use pass::{Clears, Hold, Pass, Remains, Waits};
use policy::Mode;
use replay::{FailAt, Recording};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
pub use state::State;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use verb::{Class, Verb};
use wait::Io;

/// Why the inverse of a change is not in its record, which hides secrets.
pub const HIDDEN_INVERSE: &str = "what takes it back holds a secret, which the journal does not keep";

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
    /// The script's call: receiver and arguments. Consent is to it. Null for an effect that no call stands for; never
    /// recorded, since it may hold secrets.
    pub call: Value,
    /// The arguments as a person reads them: `backend → 79bf821`.
    pub says: String,
    /// Further words of the question: the folder, the arguments of a script.
    pub aside: Option<String>,
    /// The line of Rhai that takes it back.
    pub inverse: Option<String>,
    /// The state that the inverse goes back to, in the shape of [`Did::after`]; null when it is not known.
    pub before: Value,
    /// What is lost, typed by the person who agrees to a destroy.
    pub lost: Option<String>,
    /// What is lost comes back whole when this is undone.
    pub returns: bool,
    /// Where in the script.
    pub place: Option<Place>,
    /// How long it may take.
    pub deadline: Duration,
    /// How the work goes on when opsh does not.
    pub lives: Lives,
    /// Whoever else has the lock of the stack.
    pub other: Option<Other>,
    /// What it gives, of a read that reaches nothing: no recording is asked for it.
    pub known: Option<Result<Value>>,
}

/// How the work of a change goes on when opsh is gone, and where it is found again. A durable run has the effect's id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lives {
    /// It ends with opsh, or is one call that is over when it was answered.
    #[default]
    No,
    /// A durable run on this host.
    Run(String),
    /// A container on this host.
    Container {
        /// The host.
        host: String,
        /// The container's name.
        name: String,
    },
}

/// What the work reports.
#[derive(Clone, Debug, Default)]
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
#[derive(Clone, Debug)]
pub enum Done {
    /// Performed.
    Did(Did, Duration),
    /// Not performed: plan mode.
    Skipped,
}

impl Done {
    /// The value of a read.
    pub fn into_value(self) -> Value {
        match self {
            Done::Did(did, _) => did.value,
            Done::Skipped => json!({ "skipped": true }),
        }
    }
}

/// The target of verbs that touch no host: clocks, expectations, probes from this machine.
pub const HERE: &str = "here";

impl Target {
    /// [`HERE`].
    pub fn here() -> Target {
        Target { name: HERE.into(), protected: false }
    }
}

/// The door.
pub struct Gate {
    mode: Cell<Mode>,
    grants: Grants,
    ledger: Ledger,
    /// Answers in place of the world.
    recording: Option<Recording>,
    screen: Rc<Screen>,
    io: Io,
    run: RefCell<Run>,
    /// A person said no to the whole of what was asked.
    said_no: Cell<bool>,
    limits: Cell<Limits>,
    /// What the names of targets mean, by name.
    meanings: RefCell<BTreeMap<String, String>>,
}

/// A change that goes on at its place although nobody here waits for it any more.
#[derive(Clone, Debug)]
pub struct Left {
    /// Its effect.
    pub effect: String,
    /// Where it goes on.
    pub lives: Lives,
    /// As a person reads it.
    pub words: String,
}

/// The run that goes on.
#[derive(Default)]
struct Run {
    id: String,
    effects: u32,
    /// Calls that were agreed to, each used up when it is performed.
    consent: Vec<Agreed>,
    /// Target and line of each inverse that a person saw before agreeing to its effect.
    shown: Vec<(String, String)>,
    /// Targets, and holders of their locks that were named.
    named: BTreeSet<(String, String)>,
    /// Name of the run in its record, and whether it is a script, which can be resumed.
    what: (String, bool),
    /// Targets on which a change was skipped: the plan is exact up to there.
    skipped: BTreeSet<String>,
    /// Changes that were begun, in words.
    begun: Vec<String>,
    /// Changes that Ctrl-C ended the waiting for.
    left: Vec<Left>,
    /// Ids of the changes that were begun, and of those that skipped steps had made: what going back goes back along.
    trail: Vec<String>,
    /// The inverses of its changes as they are, by their ids.
    inverses: BTreeMap<String, String>,
    /// Names of the steps that were taken, and the one that goes on.
    steps: BTreeSet<String>,
    step: Option<String>,
    /// Names of hosts and stacks that were used, and those of them whose meaning is recorded.
    names: BTreeSet<String>,
    recorded_names: BTreeSet<String>,
    /// The effect that is being taken back.
    undoing: Option<Undoing>,
}

/// A run that waits while another one goes on, and where its records go.
pub struct Aside {
    run: Run,
    records: ledger::Run,
    mode: Mode,
}

/// An effect that is being taken back: its inverse's effects are linked to it. Those that the line of the inverse calls
/// itself, and no module that it uses, need no consent of their own on its target, up to this class, if that line was agreed
/// to with the effect.
#[derive(Clone, Debug)]
pub struct Undoing {
    /// Id of the effect.
    pub effect: String,
    /// Where it was.
    pub target: String,
    /// Name of the line's text, as the places of its calls have it.
    pub source: String,
    /// The most that was agreed to.
    pub class: Class,
    /// Names of the verbs that the line calls; empty for a line that nobody agreed to.
    pub verbs: Vec<&'static str>,
}

impl Gate {
    /// A door in this mode, whose records go to `ledger`.
    pub fn new(mode: Mode, grants: Grants, ledger: Ledger, screen: Rc<Screen>) -> Result<Gate> {
        let io =
            Io::start_thread().map_err(|error| Error::new(Kind::Failed, "opsh cannot start", error.to_string()))?;
        let (mode, run, said_no) = (Cell::new(mode), RefCell::default(), Cell::new(false));
        let (limits, meanings) = (Cell::default(), RefCell::default());
        Ok(Gate { mode, grants, ledger, recording: None, screen, io, run, said_no, limits, meanings })
    }

    /// A door behind which a recording stands in place of the world, in the mode and with the flags of then. What is
    /// replayed did not happen: `ledger` is in memory, or at a place of its own, never the operator's.
    pub fn replay(recording: Recording, ledger: Ledger, screen: Rc<Screen>) -> Result<Gate> {
        let (mode, grants) = (recording.mode, recording.grants.clone());
        let gate = Gate::new(mode, grants, ledger, screen)?;
        Ok(Gate { recording: Some(recording), ..gate })
    }

    /// From now on effects are bounded by these limits.
    pub fn set_limits(&self, limits: Limits) {
        self.limits.set(limits);
    }

    /// From now on changes are recorded with what the names that they use mean.
    pub fn set_meanings(&self, meanings: BTreeMap<String, String>) {
        *self.meanings.borrow_mut() = meanings;
    }

    /// A script used the name of a host or stack.
    pub fn uses(&self, name: &str) {
        self.run.borrow_mut().names.insert(name.into());
    }

    /// What the names mean that were used since the last change, that of this one's target, and those that stand in the line
    /// that takes it back.
    fn meant(&self, target: &str, inverse: Option<&str>) -> BTreeMap<String, String> {
        self.uses(target);
        let inverse = inverse.unwrap_or_default();
        let named = |name: &&String| ['"', '`'].iter().any(|quote| inverse.contains(&format!("{quote}{name}{quote}")));
        self.meanings.borrow().keys().filter(named).for_each(|name| self.uses(name));
        let mut run = self.run.borrow_mut();
        let new: Vec<String> = run.names.difference(&run.recorded_names).cloned().collect();
        run.recorded_names.extend(new.iter().cloned());
        let meanings = self.meanings.borrow();
        new.into_iter().filter_map(|name| meanings.get(&name).cloned().map(|meaning| (name, meaning))).collect()
    }

    /// A deadline, or the configured one when that is shorter.
    fn capped(&self, deadline: Duration) -> Duration {
        self.limits.get().most.map_or(deadline, |most| deadline.min(most))
    }

    /// Mode of the run.
    pub fn mode(&self) -> Mode {
        self.mode.get()
    }

    /// Changes the mode of a sitting, and records that. A person does that: no verb can.
    pub fn set_mode(&self, mode: Mode, why: &str) {
        if self.mode.replace(mode) != mode {
            self.note("mode", json!({ "mode": mode.word(), "why": why }));
        }
    }

    /// The journal, or why there is none.
    pub fn journal(&self) -> Result<&Journal> {
        self.ledger.journal()
    }

    /// The screen.
    pub fn screen(&self) -> &Rc<Screen> {
        &self.screen
    }

    /// Id of the run that goes on.
    pub fn run_id(&self) -> String {
        self.run.borrow().id.clone()
    }

    /// Name of the current run in its record, and whether it is a script.
    pub fn run_what(&self) -> (String, bool) {
        self.run.borrow().what.clone()
    }

    /// Name of the step that goes on.
    pub fn step(&self) -> Option<String> {
        self.run.borrow().step.clone()
    }

    /// How many effects this run had so far, reads too.
    pub fn effects(&self) -> u32 {
        self.run.borrow().effects
    }

    /// Begins a run: consent, counters and skipped targets start anew. `what` and `facts` say what is run. Fails only in
    /// a replay that is recorded where that run was recorded before.
    pub fn begin_run(&self, what: &str, facts: Value) -> Result<()> {
        crate::interrupt::clear();
        // What goes back after a planted fault is a run of its own.
        let replayed = self.recording.as_ref().filter(|_| self.fault_before(0).is_none());
        let id = replayed.map_or_else(clock::run_id, |recording| recording.run.clone());
        if let (Some(_), Ok(journal)) = (replayed, self.ledger.journal())
            && journal.run(&id).is_ok()
        {
            if self.recording.as_ref().is_some_and(|recording| recording.patient) {
                let why = "this is a recording of other lines, and no script was run when it was made";
                return Err(Error::new(Kind::NotFound, format!("{what} was not run"), why));
            }
            let why = format!("{} has run {id} already", journal.path().display());
            return Err(Error::new(Kind::Usage, "the replay was not started", why)
                .next("opsh --state-dir DIR --replay FILE …     an empty folder"));
        }
        *self.run.borrow_mut() = Run { id, what: (what.into(), !facts["script"].is_null()), ..Run::default() };
        let mut body = json!({
            "what": what, "mode": self.mode().word(), "opsh": env!("CARGO_PKG_VERSION"), "facts": facts,
            "yes": self.grants.yes, "allow": self.grants.allow,
        });
        if !self.grants.under.is_empty() {
            body["under"] = json!(self.grants.under);
        }
        if self.recording.is_some() {
            body["replay"] = json!(true);
        }
        self.note("run.start", body);
        if let Some(recording) = &self.recording {
            self.screen.warn(&format!("replay of {}: nothing is reached or changed", recording.run));
        }
        Ok(())
    }

    /// In a replay: whether effect `number` is the one that is to fail; `None` before that one.
    fn fault_before(&self, number: u32) -> Option<bool> {
        match self.recording.as_ref()?.fail_at? {
            FailAt::After(_) => Some(false),
            FailAt::Effect(at) => (number > 0 && at <= number).then_some(at == number),
        }
    }

    /// Lets the run that goes on wait while another one is begun.
    pub fn set_aside(&self) -> Aside {
        Aside { run: self.run.take(), records: self.ledger.set_aside(), mode: self.mode() }
    }

    /// Goes on with it. Whether the run that it waited for was a rehearsal is known there.
    pub fn take_up(&self, aside: Aside) {
        let inner = self.run.replace(aside.run);
        self.run.borrow_mut().skipped = inner.skipped;
        self.ledger.take_up(aside.records);
        if aside.mode != self.mode() {
            self.note("mode", json!({ "mode": self.mode().word(), "why": "as before" }));
        }
    }

    /// True when every record of the run that goes on is in the journal: what that tells of it is all.
    pub fn is_recorded_whole(&self) -> bool {
        self.ledger.is_whole()
    }

    /// True when a change was skipped since consent was last forgotten: this was a rehearsal.
    pub fn has_skipped(&self) -> bool {
        !self.run.borrow().skipped.is_empty()
    }

    /// The folder that paths count from: in a replay that of then.
    pub fn dir(&self) -> PathBuf {
        match &self.recording {
            Some(recording) => recording.dir.clone(),
            None => std::path::absolute(".").unwrap_or_else(|_| PathBuf::from("/")),
        }
    }

    /// True when a recording answers: nothing that is done now happens.
    pub fn is_replay(&self) -> bool {
        self.recording.is_some()
    }

    /// True when a person said no since this was asked last, and nothing was done before that.
    pub fn take_no(&self) -> bool {
        self.said_no.take()
    }

    /// Changes that this run began.
    pub fn has_changed(&self) -> bool {
        !self.run.borrow().trail.is_empty()
    }

    /// How a replay differs from its recording, if it does; whatever the script made of that. `content`: it ended
    /// without an error.
    pub fn divergence(&self, content: bool) -> Option<Error> {
        self.recording.as_ref()?.verdict(content)
    }

    /// Ends the run.
    pub fn end_run(&self, error: Option<&Error>) {
        let outcome = error.map_or("ok", |error| match error.kind {
            Kind::Refused => "refused",
            kind => outcome(kind),
        });
        let mut body = json!({ "outcome": outcome, "error": error.map(|error| error.alone().to_json()) });
        if let Some(code) = error.and_then(|error| error.code) {
            body["exit"] = json!(code);
        }
        self.note("run.end", body);
    }

    /// Consent covers one typed line at the prompt, never a sitting; and every step may be begun again.
    pub fn forget_consent(&self) {
        let mut run = self.run.borrow_mut();
        (run.consent, run.shown, run.named, run.skipped, run.steps) = Default::default();
    }

    /// Another line of a sitting: what was done by those before it is not its doing.
    pub fn forget_begun(&self) {
        self.run.borrow_mut().begun.clear();
    }

    /// True when a change was skipped on this target in plan mode: what is read there from now on is not what it
    /// would be.
    pub fn is_beyond_plan(&self, target: &str) -> bool {
        let skipped = &self.run.borrow().skipped;
        // What is judged or waited for here follows from changes anywhere.
        skipped.contains(target) || (target == HERE && !skipped.is_empty())
    }

    /// Performs one effect: `work` is called only when policy, a person and the journal allow it.
    pub fn perform<F>(&self, effect: &Effect, work: impl Fn(Pass) -> F) -> Result<Done>
    where
        F: Future<Output = Result<Did>> + Send + 'static,
    {
        let one = self.perform_all(std::slice::from_ref(effect), ALL, |_, pass| work(pass));
        one.into_iter().next().expect("one effect has one result")
    }

    /// Performs effects of one call on their targets, and gives a result for each, in their order: one decision and one
    /// question for all, a begin and an end for each.
    ///
    /// Reads go to all, [`AT_ONCE`] at a time; one whose link was lost is repeated once. Changes go to the first target,
    /// then to `batch` at a time; after a batch with a failure the rest is not tried.
    pub fn perform_all<F>(&self, effects: &[Effect], batch: usize, work: impl Fn(usize, Pass) -> F) -> Vec<Result<Done>>
    where
        F: Future<Output = Result<Did>> + Send + 'static,
    {
        let admitted = match self.admit(effects) {
            Ok(admitted) => admitted,
            Err(error) => return effects.iter().map(|effect| Err(refused(effect, error.clone()))).collect(),
        };
        let mut results: Vec<Option<Result<Done>>> = effects.iter().map(|_| None).collect();
        let mut going = Vec::new();
        for (at, (effect, admitted)) in effects.iter().zip(admitted).enumerate() {
            match admitted {
                Admitted::Go => going.push(at),
                Admitted::Skip => results[at] = Some(Ok(self.skip(effect))),
                Admitted::WouldLook => results[at] = Some(Ok(self.would_look(effect))),
            }
        }
        let mut failed: Option<String> = None;
        for wave in waves(&going, effects, batch) {
            match &failed {
                Some(first) => wave.iter().for_each(|&at| results[at] = Some(Err(not_tried(&effects[at], first)))),
                None => self.wave(effects, wave, &work, &mut results),
            }
            let bad = |&&at: &&usize| matches!(results[at], Some(Err(_)));
            failed = failed.or_else(|| wave.iter().find(bad).map(|&at| effects[at].target.name.clone()));
        }
        results.into_iter().map(|result| result.expect("each effect was skipped, or in one wave")).collect()
    }

    fn would_look(&self, effect: &Effect) -> Done {
        let says = format!("would look: {}", effect.says);
        self.screen.effect(Mark::Would, effect.verb.name, &effect.target.name, &says);
        Done::Skipped
    }

    fn skip(&self, effect: &Effect) -> Done {
        let target = &effect.target.name;
        if self.run.borrow_mut().skipped.insert(target.clone()) {
            if let Some(other) = &effect.other {
                self.screen.warn(&other.words);
            }
            self.screen.say(&format!("· exact to here on {target}; what follows is what the script would do next"));
        }
        // What takes a verb's own work back is known; what a script says takes it back is to be read before it is agreed to.
        let is_own = !effect.verb.takes_inverse();
        self.screen.would(effect.verb.name, target, &effect.says, effect.inverse.as_deref(), is_own);
        self.warn_of_hidden_inverse(effect);
        Done::Skipped
    }

    /// Says before a change that a later process cannot take it back.
    fn warn_of_hidden_inverse(&self, effect: &Effect) {
        if let Some(words) = effect.inverse.as_deref().and_then(hidden_inverse) {
            self.screen.warn(&words);
        }
    }

    /// The inverse of a change of this run, with what its record hides.
    pub fn inverse_of(&self, id: &str) -> Option<String> {
        self.run.borrow().inverses.get(id).cloned()
    }

    fn next_id(&self) -> String {
        let mut run = self.run.borrow_mut();
        run.effects += 1;
        format!("{}.{}", run.id, run.effects)
    }
}

/// What is said of a change whose inverse has a secret in it.
fn hidden_inverse(line: &str) -> Option<String> {
    redact::holds_secret(line).then(|| format!("{HIDDEN_INVERSE}: opsh undo will not take it back"))
}

/// Effects that go on at once.
pub const AT_ONCE: usize = 16;

/// No batches: everything after the first target together.
pub const ALL: usize = usize::MAX;

/// Reads in one wave; changes one first, then `batch` at a time.
fn waves<'a>(going: &'a [usize], effects: &[Effect], batch: usize) -> Vec<&'a [usize]> {
    if going.is_empty() {
        return Vec::new();
    }
    if going.iter().all(|&at| effects[at].class == Class::Read) {
        return vec![going];
    }
    let (canary, rest) = going.split_at(1);
    std::iter::once(canary).chain(rest.chunks(batch.clamp(1, AT_ONCE))).collect()
}

fn refused(effect: &Effect, mut error: Error) -> Error {
    error.host = Some(effect.target.name.clone());
    error.trace.extend(effect.place.clone());
    error
}

const NOT_TRIED: &str = " was not tried on ";

/// True for what was left out because it failed on another target before.
pub fn is_not_tried(error: &Error) -> bool {
    error.kind == Kind::Unmet && error.what.contains(NOT_TRIED)
}

fn not_tried(effect: &Effect, failed: &str) -> Error {
    let what = format!("{}{NOT_TRIED}{}", effect.verb.name, effect.target.name);
    let why = format!("it failed on {failed} before; nothing was done here");
    refused(effect, Error::new(Kind::Unmet, what, why))
}

fn fault_of(effect: &Effect) -> Error {
    let what = format!("{} failed on {}", effect.verb.name, effect.target.name);
    Error::new(Kind::Failed, what, "--fail-at let it fail")
}

#[cfg(debug_assertions)]
fn fault(effect: &Effect, point: &str) {
    if effect.class != Class::Read {
        fault::strike(point, effect.verb.name);
    }
}

#[cfg(not(debug_assertions))]
fn fault(_: &Effect, _: &str) {}

#[cfg(test)]
pub(crate) mod tests;

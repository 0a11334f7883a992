//! A sitting at the prompt: the stack in use, the mode, what is done about a line, and what was rehearsed and waits for `go`.

use super::failure::Failed;
use super::known::Seen;
use super::locks::Locks;
use super::meaning::{Meaning, ScriptWord};
use super::refresh::Refresh;
use super::{Session, undo, words};
use crate::bind::lock;
use crate::error::{Error, Kind, Result};
use crate::gate::journal::Story;
use crate::gate::policy::Mode;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What lasts from line to line, besides variables.
#[derive(Default)]
pub struct Sitting {
    /// Name of the stack in use.
    pub(super) stack: Option<String>,
    /// A person said why changes are made: the mode stays what it is when another stack is used.
    applies: bool,
    /// A person, or the command line, said that nothing is to be changed: only `:apply` ends that.
    pub(super) holds: bool,
    /// The command line said so: nothing ends that.
    fixed: bool,
    /// What `go` does.
    pub(super) pending: Option<Pending>,
    /// What it would have done, and what came between.
    dropped: Option<(Pending, String)>,
    /// Lines that were evaluated, and so noted in the record.
    noted: usize,
    /// Those that went well.
    lines: Vec<Line>,
    /// What Tab may offer.
    seen: Seen,
    /// A person sits here.
    pub(super) sits: bool,
    /// A script's run that failed, and waits.
    pub(super) failed: Option<Failed>,
    /// Why changes are made, as it was said at a script that failed.
    pub(super) said: Vec<String>,
    /// What else, from hosts.
    pub(super) refresh: Refresh,
    /// Who else has the lock of the stack in use.
    pub(super) locks: Locks,
}

/// A line that went well.
pub struct Line {
    /// It as Rhai.
    pub code: String,
    /// Which of the lines in the record it is, from 1.
    pub noted: usize,
    /// Its value is `it` for those that follow.
    pub gives: bool,
}

/// What was rehearsed.
#[derive(Clone)]
pub(super) enum Pending {
    /// A line.
    Rhai(String),
    /// A script with its arguments.
    Script(ScriptWord, Vec<String>),
    /// Taking a run back; the rest of it when something that was destroyed stays so.
    Undo(String, bool),
}

impl Pending {
    pub(super) fn words(&self) -> String {
        match self {
            Pending::Rhai(code) => code.clone(),
            Pending::Script(script, argv) => format!("{} {}", script.name(), argv.join(" ")),
            Pending::Undo(run, partly) => format!(":undo {run}{}", if *partly { " --partly" } else { "" }),
        }
    }

    /// What shows it again.
    fn again(&self) -> String {
        match self {
            Pending::Undo(..) => self.words(),
            _ => format!(":plan {}", self.words()),
        }
    }

    /// True when it may mean something else once `it` has another value.
    fn names_it(&self) -> bool {
        let is_it = |code: &String| code.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == "it");
        matches!(self, Pending::Rhai(code) if is_it(code))
    }
}

impl Session {
    /// Begins the run that a sitting at the prompt is.
    pub fn begin_sitting(&mut self) -> Result<()> {
        self.sitting.fixed = self.gate().mode() != Mode::Apply;
        self.sitting.holds = self.sitting.fixed;
        self.sitting.sits = true;
        self.gate().begin_run("prompt", self.facts())
    }

    /// Ends it; `error` is what ended it, if anything did.
    pub fn end_sitting(&mut self, error: Option<&Error>) {
        self.abort_failed();
        self.gate().end_run(error);
    }

    /// Ends one whose lines came from a file, and how. Fails as a script's run does: when a replay differs from its recording.
    pub fn end_typed_sitting(&mut self, result: Result<()>) -> Result<()> {
        self.abort_failed();
        self.ended(result)
    }

    /// Lines that went well, oldest first.
    pub fn lines(&self) -> &[Line] {
        &self.sitting.lines
    }

    /// Names that values of this sitting had.
    pub fn seen(&self) -> &Seen {
        &self.sitting.seen
    }

    /// The stack that words are about.
    pub fn stack_in_use(&self) -> Option<&str> {
        self.sitting.stack.as_deref()
    }

    /// How many changes may have happened, of all runs.
    pub fn unsettled(&self) -> usize {
        self.gate().journal().and_then(|journal| journal.unsettled()).map_or(0, |open| open.len())
    }

    /// Uses the only stack there is, if there is only one.
    pub fn use_only_stack(&mut self) -> Result<()> {
        match self.only_stack() {
            Some(name) => self.use_stack(&name),
            None => Ok(()),
        }
    }

    /// Makes a stack the one that words are about, as the variable `p`. One that is protected is only observed until a
    /// person says why it is to be changed.
    ///
    /// Fails with `usage` for a name that opsh.toml does not have, and while a script that failed waits.
    pub fn use_stack(&mut self, name: &str) -> Result<()> {
        self.refuse_while_failed(
            ":use",
            &format!("stack({}).ps()     or name the stack in the line", words::literal(name)),
        )?;
        let stack = self.world.config.stack(name)?;
        self.drop_planned(&format!(":use {name}"));
        let protected = self.world.stack_target(&stack).protected;
        self.eval(&format!("let p = stack({}); ()", words::literal(name)))?;
        // Why one stack is changed is no reason to change another one.
        let another = self.sitting.stack.replace(name.into()).is_some_and(|before| before != name);
        self.sitting.applies &= !another;
        if self.sitting.holds || self.sitting.applies {
            return Ok(());
        }
        match (protected, self.gate().mode()) {
            (true, Mode::Apply) => self.gate().set_mode(Mode::Observe, &format!("{name} is protected")),
            (false, Mode::Observe) => self.gate().set_mode(Mode::Apply, &format!("{name} is a sandbox")),
            _ => {}
        }
        Ok(())
    }

    /// Changes are refused from now on.
    pub fn observe(&mut self) {
        self.sitting.applies = false;
        self.sitting.holds = true;
        self.drop_planned(":observe");
        self.gate().set_mode(Mode::Observe, "a person said so");
        self.gate().screen().say("· every change is refused from now on     :apply \"WHY\" ends that");
    }

    /// Changes are asked for from now on, and why is recorded.
    pub fn apply(&mut self, why: &str) -> Result<()> {
        self.refuse_fixed()?;
        let why = why.trim().trim_matches('"');
        if why.is_empty() {
            return Err(Error::new(Kind::Usage, "the mode is what it was", "why is missing: it is recorded")
                .next(":apply \"502 since 02:50\"     for example"));
        }
        self.gate().note_before("apply", json!({ "why": why }))?;
        if self.sitting.failed.is_some() {
            // It lasts longer than the script's run, in whose record it is.
            self.sitting.said.push(why.into());
        }
        self.sitting.applies = true;
        self.sitting.holds = false;
        self.gate().set_mode(Mode::Apply, why);
        let of = self.stack_in_use().map_or(String::new(), |name| format!(" of {name}"));
        self.gate()
            .screen()
            .say(&format!("· changes{of} are made from now on, each after a question     :observe ends that"));
        Ok(())
    }

    /// What the next line may do that it should be known for: nothing but look, or change what is protected.
    pub fn mode_word(&self) -> Option<&'static str> {
        let is_protected =
            |name: &String| self.world.config.stack(name).is_ok_and(|stack| self.world.stack_target(&stack).protected);
        match self.gate().mode() {
            Mode::Observe if self.sitting.holds => Some("observe only"),
            Mode::Apply => self.sitting.stack.as_ref().filter(|name| is_protected(name)).map(|_| "APPLY"),
            mode => Some(mode.word()),
        }
    }

    /// What `go` would do.
    pub fn planned(&self) -> Option<String> {
        self.sitting.pending.as_ref().map(Pending::words)
    }

    /// `go` does nothing from now on; `by` is what came between.
    pub(super) fn drop_planned(&mut self, by: &str) {
        if let Some(what) = self.sitting.pending.take() {
            self.sitting.dropped = Some((what, by.into()));
        }
    }

    /// One line as it was typed: words, a script's name, or Rhai. Consent covers this line only.
    pub fn typed(&mut self, line: &str) -> Result<Value> {
        if let Some(result) = self.decided(line) {
            return result;
        }
        match self.meaning(line)? {
            // What cannot be evaluated changes nothing, what was planned neither.
            Meaning::Rhai if !self.is_rhai(line) => self.evaluate(line, line),
            Meaning::Rhai => self.eval_typed(line, line),
            Meaning::Script(script, argv) => self.rehearse(Pending::Script(script, argv)),
            Meaning::Go => self.go(),
            Meaning::Words(code, changes) => {
                self.gate().screen().echo(&code);
                let value = match changes && self.gate().mode() == Mode::Observe {
                    true => self.rehearse(Pending::Rhai(code))?,
                    // Looking is what is done between a plan and its go.
                    false if !changes && !self.sitting.pending.as_ref().is_some_and(Pending::names_it) => {
                        self.evaluate(&code, line)?
                    }
                    false => self.eval_typed(&code, line)?,
                };
                Ok(self.in_short(value))
            }
        }
    }

    /// What words show of their value, which is `it` in full: of a program what it printed, of a receipt whether there was
    /// something to do; what was done is on the screen already.
    pub(super) fn in_short(&self, value: Value) -> Value {
        let Value::Object(map) = &value else { return value };
        let has = |keys: &[&str]| keys.iter().all(|key| map.contains_key(*key));
        if has(&["changed", "skipped", "took_ms"]) {
            if map["changed"] == json!(false) && map["skipped"] == json!(false) {
                self.gate().screen().say("· it was so already: nothing changed");
            }
            if map["after"]["opaque"] == json!(true) && map["after"]["code"] != json!(0) {
                self.gate().screen().say(&format!("· it ended with exit code {}", map["after"]["code"]));
            }
            // On a host the output was shown as it came.
            return if map["after"]["in"].is_null() { Value::Null } else { self.in_short(map["after"].clone()) };
        }
        if has(&["text", "wrong"]) {
            return map["text"].clone();
        }
        if !has(&["code", "out", "err"]) {
            return value;
        }
        if let Some(err) = map["err"].as_str().map(str::trim_end).filter(|err| !err.is_empty()) {
            self.gate().screen().say(err);
        }
        match map["out"].as_str().map(str::trim_end) {
            Some("") | None => Value::Null,
            Some(out) => json!(out),
        }
    }

    /// As [`Session::typed`], and how long it took.
    pub fn timed(&mut self, line: &str) -> (Result<Value>, Duration) {
        let began = Instant::now();
        (self.typed(line), began.elapsed())
    }

    /// True when Ctrl-C was pressed during the last line; it is forgotten then.
    pub fn take_interrupt(&self) -> bool {
        let was = crate::interrupt::is_interrupted();
        crate::interrupt::clear();
        was
    }

    /// One line of Rhai; `line` is what was typed for it. It may change what was planned means: `go` does not do that any
    /// more.
    pub fn eval_typed(&mut self, code: &str, line: &str) -> Result<Value> {
        self.drop_planned(line);
        self.evaluate(code, line)
    }

    fn evaluate(&mut self, code: &str, line: &str) -> Result<Value> {
        crate::interrupt::clear();
        self.begin_line();
        let mut note = json!({ "text": code });
        if line != code {
            note["typed"] = json!(line);
        }
        self.gate().note("line", note);
        // Lines at a script that failed are in its record, not in that of the sitting.
        let of_sitting = self.sitting.failed.is_none();
        self.sitting.noted += usize::from(of_sitting);
        let result = self.eval(code);
        if of_sitting {
            lock::leave(&self.world, result.as_ref().err());
        }
        if let Ok(value) = &result {
            // What was only rehearsed was not done.
            if of_sitting && self.gate().mode() != Mode::Plan {
                let (code, noted, gives) = (code.to_string(), self.sitting.noted, !value.is_null());
                self.sitting.lines.push(Line { code, noted, gives });
            }
            self.sitting.seen.take(value);
        }
        result.map_err(|error| self.refused_here(error, code))
    }

    /// What was agreed to for the last line, and what it did, is not that of the next one; at a script that failed all is
    /// of one run.
    pub(super) fn begin_line(&self) {
        self.gate().forget_consent();
        self.world.forget_failures();
        if self.sitting.failed.is_none() {
            self.gate().forget_begun();
        }
    }

    /// What to type at a prompt about a change that was refused there, in the line `code`.
    fn refused_here(&self, error: Error, code: &str) -> Error {
        if error.kind != Kind::Refused || self.gate().mode() != Mode::Observe {
            return error;
        }
        let line = if code.contains('\n') || code.chars().count() > 200 { "LINE" } else { code.trim() };
        let next = vec![
            format!(":plan {line}     what it would do; then go does it"),
            ":apply \"WHY\"     changes are asked for from then on".into(),
        ];
        Error { next, ..error }
    }

    /// A line of Rhai, or of words, without its changes; `go` does them.
    pub fn plan(&mut self, line: &str) -> Result<Value> {
        match self.meaning(line)? {
            Meaning::Rhai => self.rehearse(Pending::Rhai(line.into())),
            Meaning::Words(code, _) => self.rehearse(Pending::Rhai(code)),
            Meaning::Script(script, argv) => self.rehearse(Pending::Script(script, argv)),
            Meaning::Go => Err(self.nothing_to_go_on_with()),
        }
    }

    /// Takes a run back: shown first, done by `go` when only observing. `partly` as for [`Session::undo`].
    pub fn undo_typed(&mut self, run: &str, partly: bool) -> Result<Value> {
        let run = self.to_undo(run)?.run;
        if run == self.gate().run_id()
            && let Some(undone) = self.decided("undo")
        {
            return undone;
        }
        let what = Pending::Undo(run, partly);
        match self.gate().mode() {
            Mode::Apply => {
                self.drop_planned(&what.words());
                self.perform(what)
            }
            _ => self.rehearse(what),
        }
    }

    /// The sitting itself may be taken back, too.
    fn to_undo(&self, run: &str) -> Result<Story> {
        let story = undo::find(self.gate().journal()?, run, self.gate().is_replay(), Some(&self.gate().run_id()))?;
        self.refuse_another_configuration(&story, "undone", "undo")?;
        Ok(story)
    }

    fn refuse_another_configuration(&self, story: &Story, done: &str, verb: &str) -> Result<()> {
        let here = self.facts();
        if ["config", "found"].iter().all(|fact| story.facts[fact] == here[fact]) {
            return undo::refuse_other_meaning(&self.world.config, story, done, verb);
        }
        let why = "it was done with another configuration, in which the names of stacks and hosts may mean others";
        let from = story.facts["config"].as_str().map_or("opsh USER@HOST, as it was begun".into(), String::from);
        Err(Error::new(Kind::Usage, format!("run {} was not {done}", story.run), why)
            .next(format!("opsh {verb} {}     outside of this sitting, with {from}", story.run)))
    }

    /// Goes on with a script's run that did not end well, as [`Session::resume`]: each change asks.
    pub fn resume_typed(&mut self, run: &str, changed_script: bool) -> Result<Value> {
        self.refuse_while_failed(":resume", "retry     goes on with the one that waits")?;
        self.refuse_held("resume")?;
        let story = super::resume::find(self.gate().journal()?, run)?;
        self.refuse_another_configuration(&story, "resumed", "resume")?;
        // A script that fails and waits here would be in the folder of this sitting.
        if let Some(dir) = self.other_folder_of(&story) {
            return Err(undo::in_its_folder(&story, &dir, "resume", "this sitting is in another folder"));
        }
        self.drop_planned(":resume");
        self.begin_line();
        self.in_mode(Mode::Apply, "resume", |session| {
            session.as_run_of_its_own(|session| session.resume(story, changed_script))
        })
    }

    /// Fails when a person, or the command line, said that nothing is to be changed.
    pub(super) fn refuse_held(&self, what: &str) -> Result<()> {
        self.refuse_fixed()?;
        if !self.sitting.holds {
            return Ok(());
        }
        let why = "nothing is to be changed here: a person said :observe";
        Err(Error::new(Kind::Refused, format!("{what} was not done"), why)
            .next(":apply \"WHY\"     changes are asked for from then on"))
    }

    fn rehearse(&mut self, what: Pending) -> Result<Value> {
        let before = self.planned().filter(|before| *before != what.words());
        if let Some(before) = before {
            self.gate().screen().say(&format!("· no longer planned: {before}"));
        }
        self.drop_planned(&what.words());
        self.begin_line();
        let result = self.in_mode(Mode::Plan, "a rehearsal", |session| {
            let result = session.perform(what.clone());
            result.map(|value| (value, session.gate().has_skipped()))
        });
        let (value, skipped) = result?;
        if skipped {
            let first = if self.sitting.holds && !self.sitting.fixed { ":apply \"WHY\", then " } else { "" };
            self.gate().screen().say(&format!("{first}go     does it: {}", what.words()));
            self.sitting.pending = Some(what);
            // What would have been returned is the receipt of nothing.
            return Ok(Value::Null);
        }
        Ok(value)
    }

    /// Fails when the command line said that nothing is to be changed.
    pub(super) fn refuse_fixed(&self) -> Result<()> {
        if !self.sitting.fixed {
            return Ok(());
        }
        let why = format!("opsh was started with --{}: nothing is changed here", self.gate().mode().word());
        Err(Error::new(Kind::Refused, "not done", why).next("opsh     without it"))
    }

    fn go(&mut self) -> Result<Value> {
        self.refuse_held("go")?;
        let what = self.sitting.pending.clone().ok_or_else(|| self.nothing_to_go_on_with())?;
        self.gate().note_before("go", json!({ "what": what.words() }))?;
        (self.sitting.pending, self.sitting.dropped) = (None, None);
        self.gate().screen().echo(&what.words());
        self.gate().take_no();
        let result = self.in_mode(Mode::Apply, "go", |session| session.perform(what.clone()));
        // A no leaves it planned: it looks, and asks, anew. Not when a script says by itself that it refuses.
        if result.is_err() && self.gate().take_no() {
            self.sitting.pending = Some(what);
        }
        Ok(self.in_short(result?))
    }

    pub(super) fn in_mode<T>(&mut self, mode: Mode, why: &str, work: impl FnOnce(&mut Session) -> T) -> T {
        let before = self.gate().mode();
        self.gate().set_mode(mode, why);
        let result = work(self);
        self.gate().set_mode(before, "as before");
        result
    }

    fn perform(&mut self, what: Pending) -> Result<Value> {
        match what {
            Pending::Rhai(code) => self.eval_typed(&code, &code),
            Pending::Script(script, argv) => self.as_run_of_its_own(|session| match &script {
                ScriptWord::File(path) => session.run_script(path, &argv),
                ScriptWord::BuiltIn(name, _) => session.run_built_in(name, &argv),
            }),
            Pending::Undo(run, partly) => {
                let story = self.to_undo(&run)?;
                self.as_run_of_its_own(|session| session.undo(story, partly).map(|()| Value::Null))
            }
        }
    }

    /// A script, an undo or an attach has a run of its own, with which it can be taken back or gone on with.
    pub fn as_run_of_its_own<T>(&mut self, work: impl FnOnce(&mut Session) -> T) -> T {
        let outer = self.gate().set_aside();
        let result = work(self);
        self.keep_aside(outer);
        self.sitting.refresh.make_due();
        result
    }

    fn nothing_to_go_on_with(&self) -> Error {
        let not = |why: &str| Error::new(Kind::Usage, "nothing was done", why);
        let Some((what, by)) = &self.sitting.dropped else {
            return not("nothing was planned that go could do")
                .next(":plan LINE     what it would do; then go does it");
        };
        let why =
            format!("{} was planned, and \"{}\" came between", what.words(), by.lines().next().unwrap_or_default());
        not(&why).next(format!("{}     shows it again; then go does it", what.again()))
    }
}

//! A script that failed at the prompt: its run waits for what a person decides, and every line until then is in its record.
//!
//! There is no way to leave a step out: what a script does before it destroys something, such as a backup, is why it
//! may. A person who wants something else types it, and that is recorded.

use super::{Script, Session, built_in, resume, source_of, words};
use crate::bind::provenance;
use crate::bind::undo::WayBack;
use crate::config::LOCAL;
use crate::engine;
use crate::error::{Error, Kind, Result};
use crate::gate::Aside;
use crate::gate::journal::Fate;
use crate::gate::policy::Mode;
use crate::sources;
use rhai::{AST, Scope};
use serde_json::{Value, json};

/// A run that failed and has not ended.
pub(super) struct Failed {
    /// What is run again.
    script: Script,
    ast: AST,
    error: Error,
    /// The run that it was begun from; there from the moment on at which the sitting goes on.
    outer: Option<Aside>,
    /// Variables and functions of the sitting; those of the script are in their place.
    scope: Scope<'static>,
    functions: AST,
}

/// What is typed at a run that failed, and what it does. Everything else is a line with the script's variables.
pub const CHOICES: [(&str, &str); 4] = [
    ("retry", "run it again, without the steps that are done"),
    ("undo", "take back what it did"),
    ("shell", "a shell on the host of the stack in use"),
    ("abort", "end it as it is; so does Ctrl-D"),
];

/// Agrees to a script that is not what it was, as for `opsh resume`.
const CHANGED: &str = "retry --changed-script";

impl Session {
    /// Name of the script whose run failed and waits.
    pub fn failed(&self) -> Option<&str> {
        self.sitting.failed.as_ref().map(|failed| failed.script.name.as_str())
    }

    /// True when a person at the prompt decides what becomes of this failure: not when nothing was begun, and the line is
    /// what is to be corrected.
    fn waits_after(&self, error: &Error) -> bool {
        let nothing_began = matches!(error.kind, Kind::Usage | Kind::Refused | Kind::Interrupted);
        self.sitting.sits
            && self.sitting.failed.is_none()
            && self.gate().mode() == Mode::Apply
            && !self.gate().is_replay()
            && self.gate().screen().options().terminal
            && (self.gate().has_changed() || !nothing_began)
    }

    /// Ends the run of a script, or lets it wait for a person.
    pub(super) fn ended_or_waits(
        &mut self,
        script: Script,
        ast: AST,
        scope: Scope<'static>,
        result: Result<Value>,
    ) -> Result<Value> {
        match result {
            Err(error) if self.waits_after(&error) => Err(self.wait(script, ast, scope, error)),
            result => self.ended(result),
        }
    }

    /// The script's variables and functions are those of the lines that follow.
    fn wait(&mut self, script: Script, ast: AST, scope: Scope<'static>, error: Error) -> Error {
        self.gate().note("run.failed", json!({ "error": error.alone().to_json() }));
        // What cannot be imported was why it failed.
        let _ = self.keep_imports(&ast);
        let mut functions = self.functions.clone();
        functions += ast.clone_functions_only();
        let scope = std::mem::replace(&mut self.scope, scope);
        let functions = std::mem::replace(&mut self.functions, functions);
        self.drop_planned("a script that failed");
        self.sitting.failed = Some(Failed { script, ast, error: error.clone(), outer: None, scope, functions });
        self.relieve();
        self.with_choices(error)
    }

    /// The sitting's own variables and functions again; what was rehearsed with those of the script is not done without.
    fn leave(&mut self) -> Option<Failed> {
        let mut failed = self.sitting.failed.take()?;
        self.scope = std::mem::take(&mut failed.scope);
        self.functions = std::mem::take(&mut failed.functions);
        self.drop_planned("the end of the script");
        Some(failed)
    }

    /// The run that goes on from now on is the one that waits, and `outer` is gone on with after it.
    pub(super) fn keep_aside(&mut self, outer: Aside) {
        match &mut self.sitting.failed {
            Some(failed) if failed.outer.is_none() => failed.outer = Some(outer),
            failed => {
                *self.world.args.borrow_mut() =
                    failed.as_ref().map(|failed| failed.script.args.clone()).unwrap_or_default();
                self.gate().take_up(outer);
                if self.sitting.failed.is_none() {
                    let said = std::mem::take(&mut self.sitting.said);
                    said.iter().for_each(|why| self.gate().note("apply", json!({ "why": why })));
                }
            }
        }
    }

    /// The error with what can be typed about it.
    fn with_choices(&self, mut error: Error) -> Error {
        let story = self.own_story();
        let (steps, changes) = story.map(|story| (story.steps, story.changes)).unwrap_or_default();
        let is_open = changes.iter().any(|change| change.fate == Fate::Unknown);
        error = super::undo::with_what_was_done(error, &changes);
        let way = WayBack::of(changes);
        let (back, all) = way.counts();
        for (word, does) in &CHOICES {
            let more = match (*word, steps.last()) {
                ("retry", Some(step)) => format!("; the last one is \"{}\"", step.name),
                // It would be refused.
                ("undo", _) if !way.destroyed.is_empty() || (back == 0 && !is_open) => continue,
                ("undo", _) => format!(": {back} of {all} effects"),
                _ => String::new(),
            };
            error = error.next(format!("{word}     {does}{more}"));
        }
        error.next("LINE     anything else, with the variables of the script")
    }

    /// Does what a line means that is typed at a run that failed; `None` for a line that is about something else.
    pub(super) fn decided(&mut self, line: &str) -> Option<Result<Value>> {
        self.sitting.failed.as_ref()?;
        let choice = line.trim().trim_end_matches(';').trim_end();
        let does: fn(&mut Session) -> Result<Value> = match choice {
            "retry" => |session| session.retry(false),
            CHANGED => |session| session.retry(true),
            "undo" => Session::undo_failed,
            "shell" => Session::shell_at_failed,
            "abort" => Session::abort_typed,
            "skip" => return Some(Err(no_skip())),
            _ => return self.misspelt(choice).map(Err),
        };
        crate::interrupt::clear();
        self.begin_line();
        self.drop_planned(choice);
        self.gate().note("choice", json!({ "what": choice }));
        Some(does(self))
    }

    /// A choice with words behind it is none, and no program of its name is meant.
    fn misspelt(&self, line: &str) -> Option<Error> {
        let (word, rest) = words::split(line)?;
        let (_, does) =
            CHOICES.iter().find(|(choice, _)| *choice == word).filter(|_| !rest.is_empty() && !self.is_rhai(line))?;
        let error = Error::new(Kind::Usage, "nothing was done", format!("{word} takes no \"{rest}\""));
        let error = error.next(format!("{word}     {does}"));
        Some(if word == "retry" { error.next(format!("{CHANGED}     when the script was corrected")) } else { error })
    }

    /// Fails when nothing is to be changed here, and when the journal does not tell all that the run did.
    fn may_decide(&self, what: &str) -> Result<()> {
        self.refuse_held(what)?;
        if !self.gate().is_recorded_whole() {
            let why = "part of this run's record is not in the journal, which cannot be written: it does not tell what was done";
            return Err(Error::new(Kind::Unmet, format!("{what} was not done"), why)
                .next("abort     ends it; the next opsh that can write the journal brings the record in"));
        }
        Ok(())
    }

    /// The same run once more from the script's beginning, without the steps that are done. It goes on waiting when that
    /// does not end well, whatever the reason.
    fn retry(&mut self, changed_script: bool) -> Result<Value> {
        self.may_decide("retry")?;
        let story = self.own_story()?;
        if let Some(why) = resume::changed_import(std::slice::from_ref(&story)).filter(|_| !changed_script) {
            let error = Error::new(Kind::Usage, "retry was not done", why);
            return Err(error.next(format!("{CHANGED}     its steps still mean the same")));
        }
        self.take_new_text(changed_script)?;
        self.in_mode(Mode::Apply, "retry", |session| {
            // While this fails, everything stays as it is.
            session.take_up(&[story]).map_err(|error| session.with_choices(error))?;
            let Some(Failed { script, ast, outer, .. }) = session.leave() else { return Err(nothing_failed()) };
            session.gate().note("run.retry", json!({ "sha256": provenance::digest(&script.text) }));
            *session.world.args.borrow_mut() = script.args.clone();
            let (scope, result) = session.attempt(&script, &ast);
            let result = match result {
                Err(error) => Err(session.wait(script, ast, scope, error)),
                result => session.ended(result),
            };
            if let Some(outer) = outer {
                session.keep_aside(outer);
            }
            result
        })
    }

    /// The script's text as it is now. Fails with `usage` when it is not what it was and nobody agreed to that.
    fn take_new_text(&mut self, changed_script: bool) -> Result<()> {
        let Some(Failed { script, ast, .. }) = &mut self.sitting.failed else { return Err(nothing_failed()) };
        if built_in::find(&script.file.display().to_string()).is_some() {
            return Ok(());
        }
        let (text, origin) = source_of(&script.file)?;
        if text == script.text {
            return Ok(());
        }
        if !changed_script {
            let why = format!("{} is not what it was when this run began", script.name);
            return Err(Error::new(Kind::Usage, "retry was not done", why)
                .next(format!("{CHANGED}     its steps still mean the same"))
                .next("abort     and run it anew"));
        }
        // What is shown of an error is the text that has it.
        self.world.sources.put(&script.name, &text, origin.at(std::path::Path::new(&script.name)));
        let mut compiled =
            self.engine.compile(sources::code(&text)).map_err(|error| engine::unparsable(&script.name, &error))?;
        compiled.set_source(script.name.as_str());
        (script.text, *ast) = (text, compiled);
        Ok(())
    }

    /// Takes back what the run did, and ends it. It goes on waiting when that does not end well, or there was nothing.
    fn undo_failed(&mut self) -> Result<Value> {
        self.may_decide("undo")?;
        let story = self.own_story()?;
        let undone = self.in_mode(Mode::Apply, "undo", |session| session.go_back(story, false));
        if undone.map_err(after_abort)? > 0 {
            self.abort();
        }
        Ok(Value::Null)
    }

    /// What is done in a shell nobody sees; that it was opened, and when it ended, is in the run's record.
    fn shell_at_failed(&mut self) -> Result<Value> {
        self.may_decide("shell")?;
        let host = match self.stack_in_use() {
            Some(name) => self.world.config.stack(name)?.host.clone(),
            None => LOCAL.into(),
        };
        let code = format!("host({}).terminal([])", words::literal(&host));
        let value = self.in_mode(Mode::Apply, "shell", |session| session.eval_typed(&code, "shell"))?;
        Ok(self.in_short(value))
    }

    fn abort_typed(&mut self) -> Result<Value> {
        let run = self.gate().run_id();
        let name = self.failed().unwrap_or_default().to_string();
        let error = self.abort();
        self.gate().screen().say(&format!("· {name} ended as {}: run {run}", error.kind.word()));
        error.next.iter().for_each(|next| self.gate().screen().say(&format!("  {next}")));
        Ok(Value::Null)
    }

    /// Ends the run with the error that it failed with. Gives that, and what can be typed about the run from now on.
    fn abort(&mut self) -> Error {
        let Some(Failed { error, outer, .. }) = self.leave() else { return nothing_failed() };
        let ended = self.ended::<Value>(Err(error));
        if let Some(outer) = outer {
            self.keep_aside(outer);
        }
        ended.err().unwrap_or_else(nothing_failed)
    }

    /// Ends a run that waits, because the sitting ends or its person leaves it. False when none waits.
    pub fn abort_failed(&mut self) -> bool {
        self.decided("abort").is_some()
    }

    /// Fails while a run waits: `what` is about the sitting, not about the script whose variables are in its place.
    pub(super) fn refuse_while_failed(&self, what: &str, next: &str) -> Result<()> {
        let Some(name) = self.failed() else { return Ok(()) };
        let why = format!("{name} failed and waits: its variables are here, and lines are in its record");
        Err(Error::new(Kind::Usage, format!("{what} was not done"), why).next("abort     first").next(next))
    }
}

/// What can be typed about a run only once it has ended.
fn after_abort(mut error: Error) -> Error {
    for next in error.next.iter_mut().filter(|next| next.starts_with("opsh undo")) {
        *next = format!("abort, then {next}");
    }
    error
}

fn nothing_failed() -> Error {
    Error::new(Kind::Usage, "nothing was done", "no script failed here")
}

fn no_skip() -> Error {
    let why = "a step is there for those after it: no script goes on without its backup";
    Error::new(Kind::Usage, "nothing was left out", why).next("retry     does the step again")
}

//! A script that failed at the prompt: its run waits for what a person decides, and every line until then is in its record.
//!
//! There is no way to leave a step out: what a script does before it destroys something, such as a backup, is why it
//! may. A person who wants something else types it, and that is recorded.

use super::{Script, Session};
use crate::bind::undo::WayBack;
use crate::error::{Error, Kind, Result};
use crate::gate::Aside;
use crate::gate::journal::Fate;
use crate::gate::policy::Mode;
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
pub const CHOICES: &[(&str, &str)] = &[
    ("retry", "run it again, without the steps that are done"),
    ("undo", "take back what it did"),
    ("abort", "end it as it is; so does Ctrl-D"),
];

/// What a person decides.
enum Choice {
    Retry,
    Undo,
    Abort,
}

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
        self.gate().note("run.failed", json!({ "error": Error { results: Vec::new(), ..error.clone() }.to_json() }));
        // What cannot be imported was why it failed.
        let _ = self.keep_imports(&ast);
        let mut functions = self.functions.clone();
        functions += ast.clone_functions_only();
        let scope = std::mem::replace(&mut self.scope, scope);
        let functions = std::mem::replace(&mut self.functions, functions);
        self.sitting.pending = None;
        let error = self.with_choices(error);
        self.sitting.failed = Some(Failed { script, ast, error: error.clone(), outer: None, scope, functions });
        error
    }

    /// The run that goes on from now on is the one that waits, and `outer` is gone on with after it.
    pub(super) fn keep_aside(&mut self, outer: Aside) {
        match &mut self.sitting.failed {
            Some(failed) if failed.outer.is_none() => failed.outer = Some(outer),
            failed => {
                *self.world.args.borrow_mut() =
                    failed.as_ref().map(|failed| failed.script.args.clone()).unwrap_or_default();
                self.gate().take_up(outer);
            }
        }
    }

    /// The error with what can be typed about it.
    fn with_choices(&self, mut error: Error) -> Error {
        let story = self.gate().journal().and_then(|journal| journal.story(&self.gate().run_id()));
        let (steps, changes) = story.map(|story| (story.steps, story.changes)).unwrap_or_default();
        let is_open = changes.iter().any(|change| change.fate == Fate::Unknown);
        let way = WayBack::of(changes);
        let (back, all) = (way.back.len(), way.back.len() + way.stays.len());
        for (word, does) in CHOICES {
            let more = match (*word, steps.last()) {
                ("retry", Some(step)) => format!("; the last one is \"{}\"", step.name),
                ("undo", _) if back == 0 && !is_open => continue,
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
        let choice = match line.trim().trim_end_matches(';') {
            "retry" => Choice::Retry,
            "undo" => Choice::Undo,
            "abort" => Choice::Abort,
            "skip" => return Some(Err(no_skip())),
            _ => return None,
        };
        crate::interrupt::clear();
        self.gate().forget_consent();
        self.gate().note("choice", json!({ "what": line.trim() }));
        Some(match choice {
            Choice::Retry => self.retry(),
            Choice::Undo => self.undo_failed(),
            Choice::Abort => {
                let run = self.gate().run_id();
                let name = self.failed().unwrap_or_default().to_string();
                let error = self.abort();
                self.gate().screen().say(&format!("· {name} ended as {}: run {run}", error.kind.word()));
                error.next.iter().for_each(|next| self.gate().screen().say(&format!("  {next}")));
                Ok(Value::Null)
            }
        })
    }

    /// The same run once more from the script's beginning, without the steps that are done.
    fn retry(&mut self) -> Result<Value> {
        let story = self.gate().journal()?.story(&self.gate().run_id())?;
        let Some(failed) = self.sitting.failed.take() else { return Ok(Value::Null) };
        (self.scope, self.functions) = (failed.scope, failed.functions);
        self.gate().begin_again();
        *self.world.args.borrow_mut() = failed.script.args.clone();
        self.in_mode(Mode::Apply, "retry", |session| {
            let result = session.attempt(failed.script, failed.ast, &[story]);
            if let Some(outer) = failed.outer {
                session.keep_aside(outer);
            }
            result
        })
    }

    /// Takes back what the run did, and ends it. It goes on waiting when that does not end well.
    pub(super) fn undo_failed(&mut self) -> Result<Value> {
        let story = self.gate().journal()?.story(&self.gate().run_id())?;
        self.in_mode(Mode::Apply, "undo", |session| {
            session.go_back(story, false)?;
            session.abort();
            Ok(Value::Null)
        })
    }

    /// Ends the run with the error that it failed with. Gives that, and what can be typed about the run from now on.
    pub(super) fn abort(&mut self) -> Error {
        let Some(failed) = self.sitting.failed.take() else { return nothing_failed() };
        (self.scope, self.functions) = (failed.scope, failed.functions);
        let error = Error { next: Vec::new(), ..failed.error };
        let ended = self.ended::<Value>(Err(error));
        if let Some(outer) = failed.outer {
            self.gate().take_up(outer);
        }
        *self.world.args.borrow_mut() = Default::default();
        ended.err().unwrap_or_else(nothing_failed)
    }

    /// Ends a run that waits, because the sitting ends or its person leaves it. False when none waits.
    pub fn abort_failed(&mut self) -> bool {
        let waits = self.sitting.failed.is_some();
        if waits {
            let _ = self.decided("abort");
        }
        waits
    }
}

fn nothing_failed() -> Error {
    Error::new(Kind::Usage, "nothing was done", "no script failed here")
}

fn no_skip() -> Error {
    let why = "a step is there for those after it: no script goes on without its backup";
    Error::new(Kind::Usage, "nothing was left out", why).next("retry     does the step again")
}

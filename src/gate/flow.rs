//! What the door keeps of a run beside its effects: its steps, the trail of its changes, and what is being taken back.

use super::journal::Record;
use super::policy::Mode;
use super::{Gate, Undoing};
use crate::error::{Error, Kind, Result};
use serde_json::{Value, json};

impl Gate {
    /// How far the trail of changes is; [`Gate::trail_from`] takes it.
    pub fn mark(&self) -> usize {
        self.run.borrow().trail.len()
    }

    /// Ids of the changes since `mark`, oldest first.
    pub fn trail_from(&self, mark: usize) -> Vec<String> {
        self.run.borrow().trail.get(mark..).map(<[String]>::to_vec).unwrap_or_default()
    }

    /// Takes changes of an earlier run into the trail: those of a step that this run skips.
    pub fn adopt(&self, effects: &[String]) {
        self.run.borrow_mut().trail.extend_from_slice(effects);
    }

    /// Begins a step. Fails with `usage` when its name was used in this run, or within another step.
    pub fn begin_step(&self, name: &str) -> Result<()> {
        let mut run = self.run.borrow_mut();
        let wrong = |why: String| Err(Error::new(Kind::Usage, format!("step \"{name}\" was not begun"), why));
        if let Some(outer) = &run.step {
            return wrong(format!("it is within step \"{outer}\": what is skipped must be one or the other"));
        }
        if !run.steps.insert(name.into()) {
            return wrong("there was a step of that name in this run: a result would have two owners".into());
        }
        run.step = Some(name.into());
        Ok(())
    }

    /// Ends the step that goes on, however it ended.
    pub fn end_step(&self) {
        self.run.borrow_mut().step = None;
    }

    /// Takes an effect back by `work`, whose own effects are linked to it. What was done is recorded when it went well.
    ///
    /// Fails as `work` does, and with `interrupted` before it when Ctrl-C was pressed.
    pub fn take_back(&self, undoing: Undoing, work: impl FnOnce() -> Result<()>) -> Result<()> {
        if crate::interrupt::is_interrupted() {
            return Err(Error::new(Kind::Interrupted, "stopped", "Ctrl-C"));
        }
        let Undoing { effect, target, .. } = undoing.clone();
        let run = self.run_id();
        // Without these records nobody would know that the effect was taken back; a plan takes nothing back.
        let note = |kind| match self.mode() {
            Mode::Apply => self.keep(kind, &run, &effect, &target, json!({})),
            _ => Ok(()),
        };
        note("effect.undoing")?;
        self.refuse_second(&effect, &run)?;
        self.run.borrow_mut().undoing = Some(undoing);
        let result = work();
        self.run.borrow_mut().undoing = None;
        result?;
        note("effect.undone")
    }

    /// Of several that take the same effect back at once, the one whose record came first does: each writes its own
    /// before it looks at those of the others.
    fn refuse_second(&self, effect: &str, run: &str) -> Result<()> {
        // In a plan nothing was written, and without a journal nobody else can be seen.
        let Ok(journal) = self.journal() else { return Ok(()) };
        let Some(other) = journal.taken_back_by(effect, run)? else { return Ok(()) };
        Err(Error::new(Kind::Unmet, format!("{effect} was not taken back"), format!("run {other} does that, or did")))
    }

    /// Records that a run of which only that was missing took an effect back.
    pub fn undone_by(&self, run: &str, effect: &str, target: &str) -> Result<()> {
        self.keep("effect.undone", run, effect, target, json!({ "late": true }))
    }

    /// Records what became of a change of any run, as the place it was made in says now.
    pub fn settled(&self, run: &str, effect: &str, target: &str, body: Value) -> Result<()> {
        self.keep("effect.settled", run, effect, target, body)
    }

    /// Writes a record about an effect that must not be lost.
    fn keep(&self, kind: &'static str, run: &str, effect: &str, target: &str, body: Value) -> Result<()> {
        self.ledger.end(&Record { kind, run, effect: Some(effect), target: Some(target), class: None, body })
    }

    /// Tells the person at the screen; values and results do not go this way.
    pub fn say(&self, text: &str) {
        self.screen.say(text);
    }

    /// The same, so that it is not overlooked.
    pub fn warn(&self, text: &str) {
        self.screen.warn(text);
    }
}

//! `opsh undo RUN`: shows what the run did, looks whether it is still so, asks once, and takes it back newest first. And
//! what an error says of the ways back and on.

use super::{Session, runs};
use crate::bind::{self, lock, undo};
use crate::error::{Error, Kind, Result};
use crate::gate::Intended;
use crate::gate::journal::{Fate, Journal, Story, Told};
use crate::gate::policy::Mode;
use crate::gate::verb::Class;
use serde_json::json;
use undo::WayBack;

/// The run to take back: `last` is the newest one that changed something and is not an undo. `in_replay`: a recording
/// answers, so that nothing real is taken back. `sitting` is the run that asks for it, which may be the one. Fails with `not_found`, with
/// `usage` for a replay, and with `unmet` when it still runs.
pub fn find(journal: &Journal, id: &str, in_replay: bool, sitting: Option<&str>) -> Result<Story> {
    let nothing = || Error::new(Kind::NotFound, "nothing to undo", "no run in the journal changed anything");
    let story = match id {
        "last" => journal.story(&journal.last_change()?.ok_or_else(nothing)?)?,
        id => journal.story(id)?,
    };
    let not = |kind, why| Error::new(kind, format!("run {} was not undone", story.run), why);
    if story.replay && !in_replay {
        return Err(not(Kind::Usage, "it was a replay: nothing of it happened"));
    }
    match story.outcome {
        Some(_) => Ok(story),
        None if sitting == Some(&story.run) => Ok(story),
        None => Err(not(Kind::Unmet, "it still runs").next("opsh runs     what runs")),
    }
}

impl Session {
    /// Takes the effects of a run that [`find`] found back. `partly` agrees to it although something that was destroyed
    /// stays so.
    ///
    /// Fails with `refused`, `unmet` (something else is there now; nothing was done), `interrupted`, or
    /// `stuck`: an outcome is not known, or an inverse failed, and a person is needed.
    pub fn undo(&mut self, story: Story, partly: bool) -> Result<()> {
        self.gate().say(&format!("run {}  {}", story.run, story.what));
        let open = |change: &Told| change.fate == Fate::Unknown || change.attempt.is_some();
        if !story.changes.iter().any(open) && WayBack::of(story.changes.clone()).back.is_empty() {
            self.say_nothing_to_undo(&WayBack::of(story.changes.clone()));
            self.say_further(&story);
            return Ok(());
        }
        if let Some(later) = runs::since(self.gate().journal()?, &story)? {
            let words =
                format!("run {}, {}, changed the same since: it may need what goes back", later.run, later.what);
            self.gate().screen().warn(&words);
        }
        let facts =
            json!({ "undoes": story.run, "config": self.world.config.path, "found": self.world.config.found_at() });
        self.gate().begin_run(&format!("undo {}", story.run), facts)?;
        let (run, targets) = (story.run.clone(), story.changes.iter().map(|change| change.target.clone()).collect());
        let result = self.go_back(story, partly);
        lock::leave(&self.world, result.as_ref().err());
        if result.is_ok() {
            lock::settle_runs(&self.world, &[run], targets, &format!("undone by run {}", self.gate().run_id()));
        }
        self.gate().end_run(result.as_ref().err());
        result.map(drop)
    }

    /// Closes what a run began and did not end on its stacks: a person looked, and `saw` that.
    pub fn settle_beside(&self, run: &str, saw: &str) {
        let Ok(story) = self.gate().journal().and_then(|journal| journal.story(run)) else { return };
        let targets = story.changes.iter().map(|change| change.target.clone()).collect();
        lock::settle_runs(&self.world, &[story.run], targets, saw);
    }

    /// What the journal tells of the run that goes on.
    pub(super) fn own_story(&self) -> Result<Story> {
        self.gate().journal()?.story(&self.gate().run_id())
    }

    /// Fails with `unmet` while a run goes on that began by going on with this one.
    fn refuse_while_it_goes_on(&self, story: &Story) -> Result<()> {
        let journal = self.gate().journal()?;
        let resumptions = journal.resumptions()?;
        let mut run = &story.run;
        while let Some(newer) = resumptions.get(run) {
            run = newer;
            if journal.story(run)?.outcome.is_none() {
                let why = format!("run {run} goes on with it now");
                return Err(Error::new(Kind::Unmet, format!("run {} was not undone", story.run), why)
                    .next("opsh runs     what runs"));
            }
        }
        Ok(())
    }

    /// Gives how many effects were taken back.
    pub(super) fn go_back(&self, story: Story, partly: bool) -> Result<usize> {
        self.refuse_while_it_goes_on(&story)?;
        let mut changes = self.after_attempts(&story)?;
        undo::settle(&self.world, &mut changes)?;
        let mut way = WayBack::of(changes);
        way.look_at_failed(&self.world)?;
        if let (Some(lost), false) = (way.destroyed.first(), partly) {
            let why = format!(
                "{} cannot come back: the rest, put back as it was, may not work without it (a program over a schema that \
                 is not its own)",
                lost.words()
            );
            let refused = Error::new(Kind::Refused, format!("run {} was not undone", story.run), why);
            let backups = way.left.iter().filter(|change| change.verb == "backup.make" && change.is_done());
            let restore = |change: &Told| {
                format!("opsh scripts/restore.rhai {}     the data of before, from its backup", change.says)
            };
            return Err(backups
                .map(restore)
                .fold(refused, Error::next)
                .next(format!("opsh undo {} --partly     undo the rest, when you know that it works so", story.run)));
        }
        way.check(&self.engine, &self.world)?;
        self.show(&way);
        if way.back.is_empty() {
            self.gate().screen().print("nothing to undo");
            return Ok(0);
        }
        let mut plan: Vec<Intended> = way.back.iter().filter_map(|change| self.intended(change)).collect();
        if let (Some(lost), Some(first)) = (way.destroyed.first(), plan.first_mut()) {
            let screen = self.gate().screen();
            screen.warn(&format!("{} CANNOT COME BACK. What goes back now may not work without it,", lost.words()));
            screen.warn("such as an older or newer program over a schema that is not its own.");
            (first.class, first.lost) = (Class::Destroy, Some("partly".into()));
        }
        lock::look_for_plan(&self.world, &mut plan)?;
        self.gate().authorize(&plan)?;
        // The question may have stood for a while.
        self.refuse_while_it_goes_on(&story)?;
        let (count, error) = way.go(&self.engine, &self.world, |_| Class::Change, |_| true);
        match error {
            Some(error) => Err(stopped(&story, &way, count, error)),
            None => {
                self.say_done(&story, &way);
                Ok(count)
            }
        }
    }

    /// The run's changes, once it is known what earlier attempts to take them back did.
    fn after_attempts(&self, story: &Story) -> Result<Vec<Told>> {
        let journal = self.gate().journal()?;
        for change in story.changes.iter().filter(|change| change.undone_by.is_none()) {
            let Some(run) = &change.attempt else { continue };
            if run != &story.run && journal.story(run)?.outcome.is_none() {
                let why = format!("run {run} undoes it now");
                return Err(Error::new(Kind::Unmet, format!("run {} was not undone", story.run), why));
            }
            let mut linked = journal.linked(&change.id, run)?;
            undo::settle(&self.world, &mut linked)?;
            let happened = |one: &&Told| matches!(one.fate, Fate::Happened { .. });
            // A look at the world tells more than counting, where there is something to look at.
            if change.before.is_null() && linked.iter().filter(happened).count() >= self.statements(change) {
                self.gate().undone_by(run, &change.id, &change.target)?;
            }
        }
        Ok(journal.story(&story.run)?.changes)
    }

    /// How many things an inverse does.
    fn statements(&self, change: &Told) -> usize {
        let line = change.inverse.as_deref().unwrap_or_default();
        self.engine.compile(line).map_or(usize::MAX, |ast| ast.statements().len().max(1))
    }

    fn intended(&self, change: &Told) -> Option<Intended> {
        let line = change.inverse.as_deref()?;
        Some(Intended {
            verb: bind::verb(&change.verb)?,
            class: Class::Change,
            target: self.world.recorded_target(&change.target),
            says: format!("undo: {line}"),
            aside: None,
            lost: None,
            returns: false,
            // No call is this one: what goes back is covered by its own line.
            call: json!({ "undo": change.id }),
            later: Vec::new(),
            args: json!({}),
            is_exact: true,
            inverse: None,
            other: None,
        })
    }

    fn show(&self, way: &WayBack) {
        for change in &way.back {
            self.gate().say(&format!("  {}\n    undo: {}", change.words(), change.inverse.as_deref().unwrap_or("")));
        }
        self.show_rest(way);
    }

    fn show_rest(&self, way: &WayBack) {
        for (change, why) in &way.stays {
            self.gate().say(&format!("  {}\n    {why}", change.words()));
        }
        for change in &way.left {
            let failed = match &change.fate {
                Fate::Failed(why) => format!("failed, and what it left harms nothing: {why}"),
                _ => "is left: it harms nothing by being there".into(),
            };
            self.gate().say(&format!("  {}\n    {failed}", change.words()));
        }
        for change in &way.undone {
            let by = change.undone_by.as_deref().unwrap_or("");
            self.gate().say(&format!("  {}\n    undone by run {by}", change.words()));
        }
    }

    fn say_nothing_to_undo(&self, way: &WayBack) {
        if self.gate().mode() == Mode::Apply {
            self.show_rest(way);
        }
        self.gate().screen().print("nothing to undo");
        if way.undone.is_empty() {
            self.gate().say("opsh runs     what was done before it");
        }
    }

    fn say_done(&self, story: &Story, way: &WayBack) {
        if self.gate().mode() != Mode::Apply {
            return self.gate().screen().print("a plan: nothing was undone");
        }
        let (back, all) = way.counts();
        let before = match way.undone.len() {
            0 => String::new(),
            1 => ", 1 was before".into(),
            count => format!(", {count} were before"),
        };
        self.gate().screen().print(&format!("undone: {back} of {all} effects of run {}{before}", story.run));
        self.say_further(story);
    }

    /// The run that this one went on with, directly or not, of which something is still to be taken back.
    fn say_further(&self, story: &Story) {
        let mut older = story.resumes().map(String::from);
        while let Some(run) = older {
            let Ok(story) = self.gate().journal().and_then(|journal| journal.story(&run)) else { return };
            if !WayBack::of(story.changes.clone()).back.is_empty() {
                return self.gate().say(&format!("  it had gone on with run {run}: opsh undo {run} goes back further"));
            }
            older = story.resumes().map(String::from);
        }
    }

    /// An error of the run that has just ended, with what to type to go back or on.
    pub(super) fn with_ways(&self, error: Error) -> Error {
        // What a replay shows is of then; going back or on would be for real.
        if self.gate().is_replay() {
            return error;
        }
        let Ok(story) = self.own_story() else { return error };
        let names = self.gate().journal().and_then(|journal| journal.short_names()).unwrap_or_default();
        let short = names.get(&story.run).unwrap_or(&story.run);
        let whole = !story.changes.iter().any(|change| change.undone_by.is_some());
        let is_open = story.changes.iter().any(|change| change.fate == Fate::Unknown);
        let mut error = with_what_was_done(error, &story.changes);
        let way = WayBack::of(story.changes);
        let (back, all) = way.counts();
        if back > 0 && !is_open && way.destroyed.is_empty() {
            error = error.next(format!("opsh undo {short}     go back: {back} of {all} effects"));
        }
        match story.steps.last() {
            Some(step) if whole && !story.facts["script"].is_null() && story.mode == Mode::Apply.word() => {
                error.next(format!("opsh resume {short}     go on after step \"{}\"", step.name))
            }
            _ => error,
        }
    }
}

/// So many changes are told that were done before a run was stopped.
const DONE_SHOWN: usize = 6;

/// After an end that takes nothing back: what was done until then, the newest first.
pub(super) fn with_what_was_done(error: Error, changes: &[Told]) -> Error {
    let takes_nothing_back = [Kind::Interrupted, Kind::Unknown, Kind::Unreachable, Kind::Denied];
    let words = |change: &Told| match change.fate {
        _ if change.undone_by.is_some() || change.unwound || undo::only_adds(change) => None,
        _ if change.is_done() => Some(change.words()),
        Fate::Failed(_) => Some(format!("{}     failed: a part of it may be there", change.words())),
        _ => None,
    };
    let done: Vec<String> = changes.iter().rev().filter_map(words).collect();
    if done.is_empty() || !takes_nothing_back.contains(&error.kind) {
        return error;
    }
    let more = done.len().saturating_sub(DONE_SHOWN);
    let more = if more > 0 { format!("\n  and {more} before") } else { String::new() };
    let done = done.iter().take(DONE_SHOWN).map(|words| format!("\n  {words}")).collect::<String>();
    Error { why: format!("{}\ndone before that and not taken back, the newest first:{done}{more}", error.why), ..error }
}

/// What was undone before it stopped, and what was not.
fn stopped(story: &Story, way: &WayBack, count: usize, error: Error) -> Error {
    let kind = match error.kind {
        Kind::Refused if count == 0 => return error,
        Kind::Interrupted => Kind::Interrupted,
        _ => Kind::Stuck,
    };
    let mut why = format!("{}: {}", error.what, error.why);
    for (at, change) in way.back.iter().enumerate() {
        let word = if at < count { "undone" } else { "not undone" };
        why += &format!("\n{word}: {}", change.words());
    }
    let what = match kind {
        Kind::Stuck => format!("undo of run {} stopped, and a person is needed", story.run),
        _ => format!("undo of run {} stopped", story.run),
    };
    let mut stopped = Error::new(kind, what, why);
    stopped.host = error.host;
    stopped.exit = error.exit;
    stopped.next.extend(error.next);
    stopped.next(format!("opsh undo {}     go on with the rest", story.run))
}

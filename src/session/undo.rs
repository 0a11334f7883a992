//! `opsh undo RUN`: shows what the run did, looks whether it is still so, asks once, and takes it back newest first. And
//! what an error says of the ways back and on.

use super::{Session, runs};
use crate::bind::{self, lock, undo};
use crate::config::{Config, LOCAL, trust};
use crate::error::{Error, Kind, Result};
use crate::gate::journal::{Fate, Journal, Story, Told};
use crate::gate::policy::Mode;
use crate::gate::verb::Class;
use crate::gate::{HERE, Intended};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
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

/// What inverses did that were begun and not ended, by the effect that they take back.
type Halves = BTreeMap<String, Vec<Told>>;

/// Fails with `usage` when the name of a host or stack that a run used means something else in `config` than it did: the run
/// would go back, or on, somewhere else. What an older opsh did not record is not compared. `done` and `verb` say what for.
pub fn refuse_other_meaning(config: &Config, story: &Story, done: &str, verb: &str) -> Result<()> {
    let mut meant = story.changes.iter().flat_map(|change| &change.meant);
    let other = meant.find(|(name, then)| config.meaning(name).as_ref() != Some(then));
    let Some((name, then)) = other else { return Ok(()) };
    let path = config.path.as_ref().map_or("opsh.toml".into(), |path| path.display().to_string());
    let now = config.meaning(name).map_or("is not there now".into(), |now| format!("is {now} now"));
    let why = format!("{name} is not what it was in {path}: it was {then}, and {now}");
    Err(Error::new(Kind::Usage, format!("run {} was not {done}", story.run), why)
        .next(format!(
            "opsh --config {} {verb} {}     when it is right with the file as it is",
            quoted(&path),
            story.run
        ))
        .next(format!("opsh journal show {}     what the run did", story.run)))
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
        let is_here = |change: &Told| [HERE, LOCAL].contains(&change.target.as_str());
        let before = if story.changes.iter().any(is_here) { self.enter_folder_of(&story, "undo")? } else { None };
        let result = self.undo_there(story, partly);
        if let Some(before) = before {
            leave_for(&before);
        }
        result
    }

    fn undo_there(&mut self, story: Story, partly: bool) -> Result<()> {
        let mut facts = self.facts();
        facts["undoes"] = json!(story.run);
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

    /// The folder that a run worked in, when that is another than the current one.
    pub(super) fn other_folder_of(&self, story: &Story) -> Option<PathBuf> {
        let dir = story.facts["dir"].as_str().map(PathBuf::from)?;
        (dir != self.gate().dir() && !self.gate().is_replay()).then_some(dir)
    }

    /// Makes the folder that a run worked in the current one: relative paths in its script and its inverses mean files there.
    /// Gives the folder of before, when that is another. Fails with `usage` when somebody else decides by now what is in it,
    /// and when it is not there.
    pub(super) fn enter_folder_of(&self, story: &Story, verb: &str) -> Result<Option<PathBuf>> {
        let Some(dir) = self.other_folder_of(story) else { return Ok(None) };
        let before = self.gate().dir();
        let entered = trust::judge(&dir, None);
        let entered = entered.and_then(|()| std::env::set_current_dir(&dir).map_err(|error| error.to_string()));
        entered.map_err(|fact| in_its_folder(story, &dir, verb, &fact))?;
        self.gate().say(&format!("· in {}, where run {} worked", dir.display(), story.run));
        Ok(Some(before))
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
        let resumptions: BTreeMap<_, _> = journal.resumptions()?.into_iter().collect();
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
        let (mut changes, halves) = self.after_attempts(&story)?;
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
        self.show(&way, &halves);
        if way.back.is_empty() {
            self.gate().screen().print("nothing to undo");
            return Ok(0);
        }
        let mut plan = way.back.iter().map(|change| self.intended(change)).collect::<Result<Vec<Intended>>>()?;
        if let (Some(lost), Some(first)) = (way.destroyed.first(), plan.first_mut()) {
            let screen = self.gate().screen();
            screen.warn(&format!("{} CANNOT COME BACK. What goes back now may not work without it,", lost.words()));
            screen.warn("such as an older or newer program over a schema that is not its own.");
            (first.class, first.lost) = (Class::Destroy, Some("partly".into()));
        }
        for (one, change) in plan.iter_mut().zip(&way.back).filter(|(_, change)| halves.contains_key(&change.id)) {
            let screen = self.gate().screen();
            screen.warn(&format!(
                "the undo of {} stopped half way. It would run again from its beginning,",
                change.words()
            ));
            screen.warn("and do again what it did already, as shown above.");
            (one.class, one.lost) = (Class::Destroy, Some("again".into()));
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

    /// The run's changes, once it is known what earlier attempts to take them back did; and what they did of inverses that
    /// they did not end.
    fn after_attempts(&self, story: &Story) -> Result<(Vec<Told>, Halves)> {
        let journal = self.gate().journal()?;
        let (mut ended, mut halves) = (BTreeMap::new(), Halves::new());
        for change in story.changes.iter().filter(|change| change.undone_by.is_none()) {
            let Some(run) = &change.attempt else { continue };
            if run != &story.run && journal.story(run)?.outcome.is_none() {
                let why = format!("run {run} undoes it now");
                return Err(Error::new(Kind::Unmet, format!("run {} was not undone", story.run), why));
            }
            let mut linked = journal.linked(&change.id, run)?;
            undo::settle(&self.world, &mut linked)?;
            // A look at the world tells more, where there is something to look at.
            if !change.before.is_null() {
                continue;
            }
            let happened = linked.iter().filter(|one| matches!(one.fate, Fate::Happened { .. })).count();
            // A line of nothing but calls, all of which were made, came to its end before its run could record that.
            if happened == linked.len() && undo::inverse::changes_in(&self.engine, change) == Some(happened) {
                if self.gate().mode() == Mode::Apply {
                    self.gate().undone_by(run, &change.id, &change.target)?;
                }
                ended.insert(change.id.clone(), run.clone());
                continue;
            }
            // The newest attempt may have done nothing, and one before it something.
            let mut all = journal.attempted(&change.id)?;
            undo::settle(&self.world, &mut all)?;
            if all.iter().any(|one| matches!(one.fate, Fate::Happened { .. } | Fate::Said(_))) {
                halves.insert(change.id.clone(), all);
            }
        }
        let mut changes = journal.story(&story.run)?.changes;
        for change in &mut changes {
            change.undone_by = change.undone_by.take().or_else(|| ended.remove(&change.id));
        }
        Ok((changes, halves))
    }

    /// What is asked for in place of each call of an inverse. Fails for a verb that is not known: what is not asked for is
    /// not performed.
    fn intended(&self, change: &Told) -> Result<Intended> {
        let line = change.inverse.as_deref().unwrap_or_default();
        let unknown = || Error::new(Kind::Usage, format!("{} was not undone", change.words()), undo::no_verb(change));
        Ok(Intended {
            verb: bind::verb(&change.verb).ok_or_else(unknown)?,
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

    fn show(&self, way: &WayBack, halves: &Halves) {
        for change in &way.back {
            let inverse = change.inverse.as_deref().unwrap_or("").replace('\n', "\n          ");
            self.gate().say(&format!("  {}\n    undo: {inverse}", change.words()));
            for one in halves.get(&change.id).into_iter().flatten() {
                let outcome = match &one.fate {
                    Fate::Happened { .. } => "done already".into(),
                    Fate::Failed(why) => format!("failed: {why}"),
                    Fate::DidNot(why) => format!("not done: {why}"),
                    Fate::Said(saw) => format!("a person saw \"{saw}\""),
                    Fate::GoesOn | Fate::Unknown => "its outcome is not known".into(),
                };
                self.gate().say(&format!("    {}     {outcome}", one.words()));
            }
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

/// The error of a run that goes back, or on, only in its own folder.
pub(super) fn in_its_folder(story: &Story, dir: &Path, verb: &str, fact: &str) -> Error {
    let dir = dir.display().to_string();
    let what = format!("nothing was done to {verb} run {}", story.run);
    Error::new(Kind::Usage, what, format!("it worked in {dir}, and {fact}")).next(format!(
        "cd {} && opsh {verb} {}     there",
        quoted(&dir),
        story.run
    ))
}

/// A path as a word of a shell.
fn quoted(path: &str) -> String {
    shlex::try_quote(path).map_or_else(|_| path.into(), |quoted| quoted.into_owned())
}

/// Goes back to a folder; one that was removed meanwhile cannot be gone back to.
pub(super) fn leave_for(dir: &Path) {
    let _ = std::env::set_current_dir(dir);
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

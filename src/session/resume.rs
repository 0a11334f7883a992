//! `opsh resume RUN`: the same script with the same arguments, without the steps that were finished.

use super::header::Header;
use super::undo::leave_for;
use super::{Script, Session, built_in, file_of};
use crate::bind::world::{Args, Finished};
use crate::bind::{provenance, undo};
use crate::config::trust;
use crate::engine::modules::Modules;
use crate::error::{Error, Kind, Result};
use crate::gate::journal::{Fate, Journal, Source, Step, Story, Told};
use crate::redact;
use crate::sources::{self, Origin};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The run to go on with when `id` is named: the newest one that went on with it. Fails with `usage` when there is nothing
/// to go on with, and `unmet` when it still runs.
pub fn find(journal: &Journal, id: &str) -> Result<Story> {
    let resumptions: BTreeMap<_, _> = journal.resumptions()?.into_iter().collect();
    let mut story = journal.story(id)?;
    // It did not go on itself, since another did.
    if let Some(first) = story.resumes().and_then(|older| resumptions.get(older)) {
        story = journal.story(first)?;
    }
    while let Some(newer) = resumptions.get(&story.run) {
        story = journal.story(newer)?;
    }
    let not = |kind, why: &str| Err(Error::new(kind, format!("run {} was not resumed", story.run), why));
    match &story.outcome {
        _ if story.facts["script"].is_null() => not(Kind::Usage, "it was no script"),
        _ if story.replay => not(Kind::Usage, "it was a replay: nothing of it happened"),
        _ if story.mode != "apply" => not(Kind::Usage, "it changed nothing: run the script"),
        None => not(Kind::Unmet, "it still runs"),
        Some(outcome) if outcome == "ok" => not(Kind::Usage, "it ended well: there is nothing left to do"),
        Some(_) => Ok(story),
    }
}

/// A run, and those that it went on with, newest first.
pub fn chain(journal: &Journal, story: Story) -> Result<Vec<Story>> {
    let mut chain = vec![story];
    while let Some(older) = chain.last().and_then(|story| story.resumes().map(String::from)) {
        chain.push(journal.story(&older)?);
    }
    Ok(chain)
}

impl Session {
    /// Goes on with a run that [`find`] found. `changed_script` agrees to a script that is not what it was.
    ///
    /// Fails with `usage` when the script is not what it was, `stuck` when it cannot be told what became of a change,
    /// `unmet` when what a finished step did is not there any more; else as the script.
    pub fn resume(&mut self, story: Story, changed_script: bool) -> Result<Value> {
        let before = self.enter_folder_of(&story, "resume")?;
        let result = self.resume_there(story, changed_script);
        if let Some(before) = before {
            leave_for(&before);
        }
        result
    }

    fn resume_there(&mut self, story: Story, changed_script: bool) -> Result<Value> {
        let fact = |key: &str| story.facts[key].as_str().unwrap_or_default().to_string();
        let (name, file) = (fact("script"), PathBuf::from(fact("file")));
        let name = if file_of(Path::new(&name)) == file { name } else { file.display().to_string() };
        let refuse = |why: String| Error::new(Kind::Usage, format!("run {} was not resumed", story.run), why);
        let (text, origin) = match built_in::find(&fact("file")) {
            Some((_, text)) => (text.to_string(), Origin::Typed),
            None => sources::read(&file)
                .map_err(|error| refuse(format!("script {} cannot be read: {error}", file.display())))?,
        };
        let (then, now) = (fact("sha256"), provenance::digest(&text));
        let changed = |why: String| {
            let agree = format!("opsh resume {} --changed-script     its steps still mean the same", story.run);
            refuse(why).next(agree)
        };
        if then != now && !changed_script {
            return Err(changed(format!("{name} is not what it was: its SHA-256 was {then:.12}, and is {now:.12}")));
        }
        // A person agreed to another text at that path, and did not name the path.
        if then != now && origin.file().is_some() {
            trust::judge(&file, None).map_err(|fact| {
                refuse(format!("nobody named {} now, and {fact}", file.display()))
                    .next(format!("ls -l {}     who owns it", file.display()))
            })?;
        }
        let args = args(&story, &name, &text).ok_or_else(|| {
            refuse("an argument of it was a secret, which the journal does not keep: run the script".into())
        })?;
        let chain = chain(self.gate().journal()?, story.clone())?;
        let mut steps = chain.iter().flat_map(|story| &story.steps);
        if let Some(step) = steps.find(|step| redact::is_hidden(&step.result.to_string())) {
            let why = format!("the result of step \"{}\" holds what is secret now: run the script", step.name);
            return Err(refuse(why));
        }
        if let Some(why) = changed_import(&chain).filter(|_| !changed_script) {
            return Err(changed(why));
        }
        self.world.sources.put(&name, &text, origin.at(Path::new(&name)));
        self.run_compiled(Script { name, file, text, args }, &chain)
    }

    /// Before a run goes on: settles what is not known, looks whether what finished steps did is still there, and keeps
    /// their results for when the script comes to them.
    pub(super) fn take_up(&self, chain: &[Story]) -> Result<()> {
        self.refuse_second(chain)?;
        let mut changes: Vec<Told> = chain.iter().rev().flat_map(|story| story.changes.clone()).collect();
        undo::settle(&self.world, &mut changes)?;
        self.count_half_undone(&mut changes)?;
        let finished = finished(chain, &changes);
        let kept: BTreeSet<&str> = finished.values().flat_map(|step| &step.effects).map(String::as_str).collect();
        undo::still_there(&self.world, &changes, |change| kept.contains(change.id.as_str()))?;
        for change in changes.iter().filter(|change| is_done_again(change) && !kept.contains(change.id.as_str())) {
            self.gate()
                .say(&format!("· {} was done outside of a finished step: the script may do it again", change.words()));
        }
        *self.world.finished.borrow_mut() = finished;
        Ok(())
    }
}

impl Session {
    /// Of several that go on with the same run at once, the one whose record came first does: each writes its own before it
    /// looks at those of the others. The newest of the chain is a run that nobody had gone on with.
    fn refuse_second(&self, chain: &[Story]) -> Result<()> {
        let Some(newest) = chain.first() else { return Ok(()) };
        let (first, own) = (self.gate().journal()?.resumptions()?, self.gate().run_id());
        match first.into_iter().find(|(older, _)| *older == newest.run) {
            Some((_, run)) if run != own => {
                let why = format!("run {run} goes on with it, or did");
                Err(Error::new(Kind::Unmet, format!("run {} was not resumed", newest.run), why)
                    .next("opsh runs     how it stands".to_string()))
            }
            _ => Ok(()),
        }
    }
}

impl Session {
    /// Of what an undo began to take back and did not end, nothing is certain: it counts as undone, unless nothing of it
    /// was done. Fails with `unmet` while that undo runs, and `stuck` when it cannot be told what it did.
    fn count_half_undone(&self, changes: &mut [Told]) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let journal = self.gate().journal()?;
        for change in changes.iter_mut().filter(|change| change.undone_by.is_none()) {
            let Some(run) = change.attempt.clone() else { continue };
            if run != self.gate().run_id() && journal.story(&run)?.outcome.is_none() {
                let why = format!("run {run} takes back {} now", change.words());
                return Err(Error::new(Kind::Unmet, format!("run {} was not resumed", change.run), why));
            }
            let mut linked = journal.attempted(&change.id)?;
            undo::settle(&self.world, &mut linked)?;
            if linked.iter().any(|one| !matches!(one.fate, Fate::DidNot(_))) {
                change.undone_by = Some(run);
            }
        }
        Ok(())
    }
}

/// Why finished steps may mean something else now: a module that these runs, the newest first, imported is not what it was.
pub(super) fn changed_import(chain: &[Story]) -> Option<String> {
    let now = |source: &Source| Modules::text_now(source).map(|text| provenance::digest(&text));
    // What went on may have imported it again, as it was by then.
    let imports = chain.iter().rev().flat_map(|story| &story.imports);
    let newest: BTreeMap<&str, &Source> = imports.map(|source| (source.name.as_str(), source)).collect();
    let changed = newest.into_values().find(|source| now(source).as_ref() != Some(&source.sha256))?;
    Some(match now(changed) {
        Some(now) => {
            format!("{} is not what it was: its SHA-256 was {:.12}, and is {now:.12}", changed.name, changed.sha256)
        }
        None => format!("{}, which it imported, cannot be read", changed.name),
    })
}

fn is_done_again(change: &Told) -> bool {
    // What only ended work, or a person's word of it, is nothing that a script does again.
    let happened = change.is_done() && change.verb != "work.kill";
    happened && change.undone_by.is_none() && change.undoes.is_none()
}

/// Finished steps by name. Where a step was taken back, it and what followed in that attempt is not finished.
fn finished(chain: &[Story], changes: &[Told]) -> BTreeMap<String, Finished> {
    let undone: BTreeSet<&str> =
        changes.iter().filter(|change| change.undone_by.is_some()).map(|change| change.id.as_str()).collect();
    let mut finished = BTreeMap::new();
    for story in chain.iter().rev() {
        let stands = |step: &&Step| !step.effects.iter().any(|id| undone.contains(id.as_str()));
        let attempts = story.steps.chunk_by(|one, next| one.attempt == next.attempt);
        let whole = attempts.flat_map(|attempt| attempt.iter().take_while(stands));
        for step in whole {
            let done = Finished { run: story.run.clone(), result: step.result.clone(), effects: step.effects.clone() };
            finished.insert(step.name.clone(), done);
        }
    }
    finished
}

/// The arguments that a run was started with; `None` when the record hides one.
fn args(story: &Story, name: &str, text: &str) -> Option<Args> {
    let facts = &story.facts;
    if [&facts["words"], &facts["options"]].iter().any(|value| redact::is_hidden(&value.to_string())) {
        return None;
    }
    let read = |key: &str| facts[key].clone();
    Some(Args {
        script: name.into(),
        usage: Header::parse(text).usage,
        words: serde_json::from_value(read("words")).unwrap_or_default(),
        options: serde_json::from_value(read("options")).unwrap_or_default(),
        flags: serde_json::from_value(read("flags")).unwrap_or_default(),
    })
}

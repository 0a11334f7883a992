//! The newest runs as a list: how each ended, and what to type about it.

use super::failure::CHOICES;
use crate::bind::hints;
use crate::bind::undo::{WayBack, only_adds};
use crate::error::Result;
use crate::gate::clock;
use crate::gate::journal::{Fate, Journal, RunLine, Story, Told};
use crate::screen::Screen;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// So many runs are looked through for what is open.
const LOOKED_AT: usize = 20;

/// A run, and what to type about it.
struct Row {
    line: RunLine,
    short: String,
    /// What was run; another run in it has its short name.
    what: String,
    outcome: String,
    next: Vec<String>,
}

/// What is known of all runs, read once, and of those that are looked at.
struct Known<'a> {
    journal: &'a Journal,
    /// Runs that were to go on with each, the oldest first.
    resumptions: BTreeMap<String, Vec<String>>,
    short: BTreeMap<String, String>,
    /// Those that may have done again, or changed, what another one did, the newest first.
    well: Vec<&'a Story>,
    /// Where runs that go on now work, by run.
    busy: BTreeMap<String, BTreeSet<String>>,
}

/// The newest `count` runs, and below them what needs attention; with `json` one JSON object a line. `waiting` is the run
/// of a script that failed at this prompt.
pub fn list(journal: &Journal, count: usize, json: bool, waiting: Option<&str>, screen: &Screen) -> Result<()> {
    let mut rows = Known::rows(journal, count)?;
    for row in rows.iter_mut().filter(|row| waiting == Some(&row.line.run)) {
        row.outcome = "failed, waits here".into();
        row.next = vec![CHOICES.map(|(choice, _)| choice).join(", ")];
    }
    if json {
        rows.iter().for_each(|row| screen.json(&to_json(row)));
        return Ok(());
    }
    if rows.is_empty() {
        screen.print("no runs yet");
        return Ok(());
    }
    let cells = |row: &Row| {
        let line = &row.line;
        let changes = if line.changes == 0 { String::new() } else { line.changes.to_string() };
        let unknown = if line.unknown == 0 { String::new() } else { format!(", {} unknown", line.unknown) };
        let (at, outcome) = (screen.time(line.at_us), format!("{}{unknown}", row.outcome));
        vec![row.short.clone(), at, line.actor.clone(), outcome, changes, row.what.clone()]
    };
    let columns = ["run", "when", "who", "outcome", "changes", "what"];
    screen.table(&columns, rows.iter().map(cells).collect());
    for next in rows.iter().flat_map(|row| &row.next) {
        screen.print(&format!(" next: {next}"));
    }
    Ok(())
}

/// What is open among the newest runs, a line each: what goes on now besides `own`, and what ended so that something is to
/// be typed about it. What may have happened is said elsewhere.
pub fn open(journal: &Journal, own: &str) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for row in Known::rows(journal, LOOKED_AT)? {
        if row.line.run == own || row.line.unknown > 0 {
            continue;
        }
        let what = format!("{}  {}  {}", row.short, row.outcome, row.line.what);
        match row.next.first() {
            Some(next) => lines.push(format!("{what}     {}", next.split("     ").next().unwrap_or(next))),
            None if row.line.outcome == "running" => {
                let locks: String =
                    journal.locks(&row.line.run)?.iter().map(|stack| format!(", has the lock of {stack}")).collect();
                lines.push(format!("{what}{locks}     by {}", row.line.actor));
            }
            None => {}
        }
    }
    Ok(lines)
}

impl Known<'_> {
    /// The newest `count` runs, the newest first.
    fn rows(journal: &Journal, count: usize) -> Result<Vec<Row>> {
        let lines = journal.runs(count)?;
        let stories = lines.iter().map(|line| journal.story(&line.run)).collect::<Result<Vec<Story>>>()?;
        let well = lines.iter().zip(&stories).filter(|(line, _)| may_supersede(line)).map(|(_, story)| story).collect();
        let mut resumptions: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (run, newer) in journal.resumptions()? {
            resumptions.entry(run).or_default().push(newer);
        }
        let mut busy = BTreeMap::new();
        for (line, story) in lines.iter().zip(&stories).filter(|(line, _)| line.outcome == "running") {
            let goes_on =
                story.changes.iter().filter(|change| change.fate == Fate::GoesOn).map(|change| &change.target);
            let targets: BTreeSet<String> = journal.locks(&line.run)?.into_iter().chain(goes_on.cloned()).collect();
            busy.insert(line.run.clone(), targets);
        }
        let known = Known { journal, resumptions, short: journal.short_names()?, well, busy };
        Ok(lines.into_iter().zip(&stories).map(|(line, story)| known.row(line, story)).collect())
    }

    fn short(&self, run: &str) -> String {
        self.short.get(run).cloned().unwrap_or_else(|| run.into())
    }

    fn row(&self, line: RunLine, story: &Story) -> Row {
        let short = self.short(&line.run);
        let resumed_by = self.resumed(&line.run).map(|(run, _)| format!("resumed by {}", self.short(run)));
        let undone = self.undone(story);
        let settled = undone.is_some() || self.went_on(&line.run);
        let mut outcome = line.outcome.clone();
        if line.mode != "apply" {
            outcome += &format!(" ({})", line.mode);
        }
        for more in [undone, resumed_by].into_iter().flatten() {
            outcome += &format!(", {more}");
        }
        let mut ways = if settled { Vec::new() } else { ways(self.journal, story, &line, &short) };
        if !ways.is_empty()
            && let Some(later) = self.well.iter().find(|later| changed_the_same(later, story))
        {
            let by = self.short(&later.run);
            if later.outcome.is_some() && is_same_work(later, story) {
                ways.clear();
                outcome += &format!(", done by {by}");
            }
            let warning = format!("; {by} changed the same since: {}", later.what);
            ways.iter_mut().for_each(|way| way.push_str(&warning));
        }
        let next = [if line.unknown > 0 { looks(story, &short) } else { Vec::new() }, ways].concat();
        let next = self.works_there(story).into_iter().fold(next, |next, stack| hints::calm(next, stack));
        let undone = line.what.strip_prefix("undo ").filter(|run| self.short.contains_key(*run));
        let what = undone.map_or_else(|| line.what.clone(), |run| format!("undo {}", self.short(run)));
        Row { line, short, what, outcome, next }
    }

    /// True when a run that went on with this one, or with such a run, ended well. One that did nothing, or did not end
    /// well, leaves it as it was.
    fn went_on(&self, run: &str) -> bool {
        let mut at = run;
        while let Some((newer, story)) = self.resumed(at) {
            if story.outcome.as_deref() == Some("ok") {
                return true;
            }
            at = newer;
        }
        false
    }

    /// The newest run that went on with this one. One that ended before it did anything went on with nothing, and whatever
    /// went on with that did so with this one.
    fn resumed(&self, run: &str) -> Option<(&String, Story)> {
        let did = |story: &Story| match story.outcome.as_deref() {
            None | Some("ok") => true,
            Some(_) => story.changes.iter().any(|change| !matches!(change.fate, Fate::DidNot(_))),
        };
        self.resumptions.get(run)?.iter().rev().find_map(|newer| match self.journal.story(newer) {
            Ok(story) if did(&story) => Some((newer, story)),
            _ => self.resumed(newer),
        })
    }

    /// Where other runs of this journal work now, of what this one changed.
    fn works_there(&self, story: &Story) -> BTreeSet<&String> {
        let others = self.busy.iter().filter(|(run, _)| **run != story.run).flat_map(|(_, targets)| targets);
        others.filter(|target| story.changes.iter().any(|change| change.target == **target)).collect()
    }

    /// `undone by k3f9`, or how much of it was.
    fn undone(&self, story: &Story) -> Option<String> {
        // What only added something is left: that alone makes no undo a part of one.
        let is_left = |change: &Told| only_adds(change) && change.undone_by.is_none();
        let counts = |change: &&Told| !change.unwound && !is_left(change) && change.is_done();
        let changes: Vec<&Told> = story.changes.iter().filter(counts).collect();
        let by: Vec<&String> = changes.iter().filter_map(|change| change.undone_by.as_ref()).collect();
        let newest = by.last()?;
        let by_whom =
            if **newest == story.run { "in the same run".into() } else { format!("by {}", self.short(newest)) };
        let part = if by.len() == changes.len() { "" } else { "partly " };
        Some(format!("{part}undone {by_whom}"))
    }
}

/// The newest of the last runs that changed a host or stack after this one had, and did not end badly.
pub fn since(journal: &Journal, story: &Story) -> Result<Option<Story>> {
    for line in journal.runs(LOOKED_AT)?.iter().filter(|line| may_supersede(line)) {
        let later = journal.story(&line.run)?;
        if changed_the_same(&later, story) {
            return Ok(Some(later));
        }
    }
    Ok(None)
}

/// True for two runs of one script on the same words, in the same place; what was wrong may have been a flag.
fn is_same_work(one: &Story, other: &Story) -> bool {
    let facts = ["script", "words", "options", "config", "dir"];
    !one.facts["script"].is_null() && facts.iter().all(|fact| one.facts[fact] == other.facts[fact])
}

/// A sitting that goes on has changed what it has changed.
fn may_supersede(line: &RunLine) -> bool {
    ["ok", "running"].contains(&line.outcome.as_str()) && line.mode == "apply" && line.changes > 0
}

/// True when another run, which is no undo of this one, changed a host or stack after the last change that this one made
/// there. When runs began says nothing: a sitting may last for hours.
fn changed_the_same(later: &Story, story: &Story) -> bool {
    let changed = |story: &Story| -> BTreeMap<String, i64> {
        let counts = |change: &&Told| {
            !matches!(change.fate, Fate::DidNot(_)) && change.undone_by.is_none() && !only_adds(change)
        };
        story.changes.iter().filter(counts).map(|change| (change.target.clone(), change.seq)).collect()
    };
    let (then, since) = (changed(story), changed(later));
    let is_later = |(target, seq): (&String, &i64)| since.get(target).is_some_and(|newest| newest > seq);
    later.run != story.run && later.facts["undoes"] != story.run.as_str() && then.iter().any(is_later)
}

/// What is to be typed about changes whose outcome nobody knows.
fn looks(story: &Story, short: &str) -> Vec<String> {
    let lives = |change: &Told| change.fate == Fate::Unknown && change.lives != Default::default();
    let attach =
        story.changes.iter().any(lives).then(|| format!("opsh attach {short}     wait for what may still run"));
    let settle = format!("opsh journal settle {short} \"WHAT YOU SAW\"     after looking at the host");
    attach.into_iter().chain([settle]).collect()
}

/// The ways on and back from a run that did not end well.
fn ways(journal: &Journal, story: &Story, line: &RunLine, short: &str) -> Vec<String> {
    let mut ways = Vec::new();
    if ["ok", "running"].contains(&line.outcome.as_str()) || story.mode != "apply" || line.changes == 0 {
        return ways;
    }
    if !story.facts["script"].is_null() {
        ways.push(format!("opsh resume {short}     go on with {}", line.what));
    }
    if let Some(undone) = story.facts["undoes"].as_str() {
        // What it did not take back is still to be taken back; taking back what it did is never what is wanted next.
        if has_rest(journal, undone) {
            ways.push(format!("opsh undo {undone}     go on with the rest"));
        }
    } else if line.unknown == 0 && !WayBack::of(story.changes.clone()).back.is_empty() {
        ways.push(format!("opsh undo {short}     take back what it did"));
    }
    ways
}

/// True when something of a run is still to be taken back, or may be. A run that was pruned has nothing.
fn has_rest(journal: &Journal, run: &str) -> bool {
    journal.story(run).is_ok_and(|story| {
        let is_open = |change: &Told| matches!(change.fate, Fate::Unknown | Fate::GoesOn);
        story.changes.iter().any(is_open) || !WayBack::of(story.changes).back.is_empty()
    })
}

fn to_json(row: &Row) -> Value {
    let line = &row.line;
    json!({ "run": line.run, "at": clock::rfc3339(line.at_us), "actor": line.actor, "what": line.what, "mode": line.mode,
            "outcome": row.outcome, "changes": line.changes, "unknown": line.unknown, "next": row.next })
}

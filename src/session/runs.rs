//! The newest runs as a list: how each ended, and what to type about it.

use super::failure::CHOICES;
use crate::bind::undo::WayBack;
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
    outcome: String,
    next: Vec<String>,
}

/// What is known of all runs, read once.
struct Known {
    /// The newest run that went on with each.
    resumptions: BTreeMap<String, String>,
    short: BTreeMap<String, String>,
}

impl Known {
    fn short(&self, run: &str) -> String {
        self.short.get(run).cloned().unwrap_or_else(|| run.into())
    }
}

/// The newest `count` runs, and below them what needs attention; with `json` one JSON object a line. `waiting` is the run
/// of a script that failed at this prompt.
pub fn list(journal: &Journal, count: usize, json: bool, waiting: Option<&str>, screen: &Screen) -> Result<()> {
    let known = Known { resumptions: journal.resumptions()?, short: journal.short_names()? };
    let rows = journal.runs(count)?.into_iter().map(|line| row(journal, line, &known));
    let mut rows = rows.collect::<Result<Vec<Row>>>()?;
    for row in rows.iter_mut().filter(|row| waiting == Some(&row.line.run)) {
        row.outcome = "failed, waits here".into();
        row.next = vec![CHOICES.map(|(choice, _)| choice).join(", ")];
    }
    if json {
        rows.iter().for_each(|row| screen.raw(&to_json(row).to_string()));
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
        vec![row.short.clone(), at, line.actor.clone(), outcome, changes, line.what.clone()]
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
    let known = Known { resumptions: journal.resumptions()?, short: journal.short_names()? };
    let mut lines = Vec::new();
    for line in journal.runs(LOOKED_AT)?.into_iter().filter(|line| line.run != own && line.unknown == 0) {
        let row = row(journal, line, &known)?;
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

fn row(journal: &Journal, line: RunLine, known: &Known) -> Result<Row> {
    let story = journal.story(&line.run)?;
    let short = known.short(&line.run);
    let resumed_by = known.resumptions.get(&line.run).map(|run| known.short(run));
    let undone = undone(known, &story);
    let mut outcome = line.outcome.clone();
    if line.mode != "apply" {
        outcome += &format!(" ({})", line.mode);
    }
    for more in [undone.clone(), resumed_by.as_ref().map(|run| format!("resumed by {run}"))].into_iter().flatten() {
        outcome += &format!(", {more}");
    }
    let settled = undone.is_some() || went_on(journal, known, &line.run);
    let mut next =
        if settled && line.unknown == 0 { Vec::new() } else { next(journal, &story, &line, &short, settled) };
    if next.iter().any(|next| is_way(next))
        && let Some(later) = since(journal, &story)?
    {
        let by = known.short(&later.run);
        if later.what == line.what && !story.facts["script"].is_null() {
            next.retain(|next| !is_way(next));
            outcome += &format!(", done by {by}");
        }
        let warning = format!("; {by} changed the same since: {}", later.what);
        next.iter_mut().filter(|next| is_way(next)).for_each(|next| next.push_str(&warning));
    }
    Ok(Row { line, short, outcome, next })
}

/// True for a way on or back, which a later run may have closed.
fn is_way(next: &str) -> bool {
    next.starts_with("opsh resume ") || next.starts_with("opsh undo ")
}

/// True when a run that went on with this one, or with such a run, ended well. One that did nothing, or did not end well,
/// leaves it as it was.
fn went_on(journal: &Journal, known: &Known, run: &str) -> bool {
    let mut at = run;
    while let Some(newer) = known.resumptions.get(at) {
        if journal.story(newer).is_ok_and(|story| story.outcome.as_deref() == Some("ok")) {
            return true;
        }
        at = newer;
    }
    false
}

/// The newest of the last runs that ended well after this one and changed a host or stack that it changed.
pub fn since(journal: &Journal, story: &Story) -> Result<Option<Story>> {
    let changed = |story: &Story| -> BTreeSet<String> {
        let happened =
            story.changes.iter().filter(|change| !matches!(change.fate, Fate::DidNot(_)) && change.undone_by.is_none());
        happened.map(|change| change.target.clone()).collect()
    };
    let own = changed(story);
    for line in journal.runs(LOOKED_AT)? {
        if line.at_us <= story.at_us || line.outcome != "ok" || line.mode != "apply" || line.changes == 0 {
            continue;
        }
        let later = journal.story(&line.run)?;
        if later.facts["undoes"] != story.run.as_str() && !changed(&later).is_disjoint(&own) {
            return Ok(Some(later));
        }
    }
    Ok(None)
}

/// `undone by k3f9`, or how much of it was.
fn undone(known: &Known, story: &Story) -> Option<String> {
    let changed = |change: &&Told| !change.unwound && matches!(change.fate, Fate::Happened { changed: true, .. });
    let changes: Vec<&Told> = story.changes.iter().filter(changed).collect();
    let by: Vec<&String> = changes.iter().filter_map(|change| change.undone_by.as_ref()).collect();
    let newest = by.last()?;
    let by_whom = if **newest == story.run { "in the same run".into() } else { format!("by {}", known.short(newest)) };
    let part = if by.len() == changes.len() { "" } else { "partly " };
    Some(format!("{part}undone {by_whom}"))
}

fn next(journal: &Journal, story: &Story, line: &RunLine, short: &str, settled: bool) -> Vec<String> {
    let mut next = Vec::new();
    if line.unknown > 0 {
        let lives = |change: &Told| change.fate == Fate::Unknown && change.lives != Default::default();
        if story.changes.iter().any(lives) {
            next.push(format!("opsh attach {short}     wait for what may still run"));
        }
        next.push(format!("opsh journal settle {short} \"WHAT YOU SAW\"     after looking at the host"));
    }
    if settled || ["ok", "running"].contains(&line.outcome.as_str()) || story.mode != "apply" {
        return next;
    }
    if !story.facts["script"].is_null() && line.changes > 0 {
        next.push(format!("opsh resume {short}     go on with {}", line.what));
    }
    let of_undo = story.facts["undoes"].as_str();
    if let Some(undone) = of_undo {
        // What it did not take back is still to be taken back; taking back what it did is never what is wanted next.
        if line.changes > 0 && has_rest(journal, undone) {
            next.push(format!("opsh undo {undone}     go on with the rest"));
        }
    } else if story.changes.iter().any(|change| change.inverse.is_some() && change.undone_by.is_none())
        && line.unknown == 0
    {
        next.push(format!("opsh undo {short}     take back what it did"));
    }
    next
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

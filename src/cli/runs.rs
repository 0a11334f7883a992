//! `opsh runs`, `opsh undo`, `opsh resume`: what was done, and how to go back or on from there.

use crate::config::Config;
use crate::error::Result;
use crate::gate::clock;
use crate::gate::journal::{Fate, Journal, RunLine, Story, Told};
use crate::screen::Screen;
use crate::session::{resume, undo};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Args, Debug)]
pub struct Runs {
    /// How many
    #[arg(default_value_t = 20)]
    count: usize,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// What may also stand behind the command.
#[derive(Args, Debug, Clone)]
pub struct Agreed {
    /// Agree to changes beforehand
    #[arg(long)]
    pub yes: bool,
    /// Agree beforehand to this verb, which loses data or service; may be given several times
    #[arg(long, value_name = "VERB")]
    pub allow: Vec<String>,
}

#[derive(Args, Debug)]
pub struct Undo {
    /// Run id, the beginning or end of one, or `last`: the newest run that changed something
    pub run: String,
    #[command(flatten)]
    pub agreed: Agreed,
    /// Show what would be undone, and do nothing
    #[arg(long)]
    pub plan: bool,
    /// Undo the rest although something was destroyed that cannot come back
    #[arg(long)]
    pub partly: bool,
}

#[derive(Args, Debug)]
pub struct Resume {
    /// Run id, the beginning or end of one, or `last`
    pub run: String,
    #[command(flatten)]
    pub agreed: Agreed,
    /// Go on although the script is not what it was
    #[arg(long)]
    pub changed_script: bool,
}

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

/// The newest runs, and below them what needs attention.
pub fn list(runs: &Runs, state_dir: &Path, screen: &Screen) -> Result<()> {
    let journal = super::journal::open(state_dir, screen)?;
    let known = Known { resumptions: journal.resumptions()?, short: journal.short_names()? };
    let rows = journal.runs(runs.count)?.into_iter().map(|line| row(&journal, line, &known));
    let rows = rows.collect::<Result<Vec<Row>>>()?;
    if runs.json || screen.options().json {
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
        let unknown = if line.unknown == 0 { String::new() } else { line.unknown.to_string() };
        let at = clock::local(line.at_us);
        vec![row.short.clone(), at, line.actor.clone(), row.outcome.clone(), changes, unknown, line.what.clone()]
    };
    let columns = ["run", "when", "who", "outcome", "changes", "unknown", "what"];
    screen.table(&columns, rows.iter().map(cells).collect());
    for next in rows.iter().flat_map(|row| &row.next) {
        screen.print(&format!(" next: {next}"));
    }
    Ok(())
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
    // A resume that did nothing, or did not end well, leaves this run as it was.
    let went_on = |run: &String| journal.story(run).is_ok_and(|story| story.outcome.as_deref() == Some("ok"));
    let settled = undone.is_some() || known.resumptions.get(&line.run).is_some_and(went_on);
    let next = if settled && line.unknown == 0 { Vec::new() } else { next(&story, &line, &short, settled) };
    Ok(Row { line, short, outcome, next })
}

/// `undone by k3f9`, or how much of it was.
fn undone(known: &Known, story: &Story) -> Option<String> {
    let changed = |change: &&Told| !change.unwound && matches!(change.fate, Fate::Happened { changed: true, .. });
    let changes: Vec<&Told> = story.changes.iter().filter(changed).collect();
    let by: Vec<&String> = changes.iter().filter_map(|change| change.undone_by.as_ref()).collect();
    let newest = by.last()?;
    let by_whom = if **newest == story.run { "by itself".into() } else { format!("by {}", known.short(newest)) };
    let part = if by.len() == changes.len() { "" } else { "partly " };
    Some(format!("{part}undone {by_whom}"))
}

fn next(story: &Story, line: &RunLine, short: &str, settled: bool) -> Vec<String> {
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
        next.push(format!("opsh undo {undone}     go on with the rest, if there is any"));
    } else if story.changes.iter().any(|change| change.inverse.is_some() && change.undone_by.is_none())
        && line.unknown == 0
    {
        next.push(format!("opsh undo {short}     take back what it did"));
    }
    next
}

fn to_json(row: &Row) -> Value {
    let line = &row.line;
    json!({ "run": line.run, "at": clock::rfc3339(line.at_us), "actor": line.actor, "what": line.what, "mode": line.mode,
            "outcome": row.outcome, "changes": line.changes, "unknown": line.unknown, "next": row.next })
}

/// The configuration that a run used: the names in its record mean what that one says. One that used none gets none.
pub fn config_of(story: &Story, from: &Path) -> Result<Config> {
    match &story.facts["config"] {
        Value::String(path) => Config::load(Some(Path::new(path)), from),
        _ => Ok(Config::default()),
    }
}

/// The run that is to be taken back.
pub fn to_undo(run: &str, state_dir: &Path, in_replay: bool) -> Result<Story> {
    undo::find(&Journal::open(state_dir)?, run, in_replay)
}

/// The run that is to be gone on with.
pub fn to_resume(run: &str, state_dir: &Path) -> Result<Story> {
    resume::find(&Journal::open(state_dir)?, run)
}

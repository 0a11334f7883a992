//! A run as a story: each change with its end and what became of it later, its steps, what it undoes or goes on with.

use super::entry::{SELECT, entry};
use super::{Entry, Journal};
use crate::error::{Error, Kind, Result};
use crate::gate::Lives;
use crate::redact;
use rusqlite::params;
use serde_json::Value;
use std::collections::BTreeMap;

/// One run.
#[derive(Clone, Debug)]
pub struct Story {
    /// The run.
    pub run: String,
    /// When it began, microseconds since 1970.
    pub at_us: i64,
    /// What was run.
    pub what: String,
    /// `apply`, `plan` or `observe`.
    pub mode: String,
    /// What was said of it at its start: script, arguments, configuration, the run that it undoes or resumes.
    pub facts: Value,
    /// It was answered by a recording: nothing of it happened.
    pub replay: bool,
    /// `ok`, `failed`, …, `killed`; `None` while it goes on.
    pub outcome: Option<String>,
    /// What it imported, in order.
    pub imports: Vec<Source>,
    /// Its changes, oldest first.
    pub changes: Vec<Told>,
    /// Its finished steps, in order.
    pub steps: Vec<Step>,
}

/// A module that a run was made of.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name, as errors have it.
    pub name: String,
    /// Where it was read; none for what is built in.
    pub file: Option<String>,
    /// SHA-256 of its text, in hex.
    pub sha256: String,
}

/// A finished step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// What it returned.
    pub result: Value,
    /// Ids of its changes.
    pub effects: Vec<String>,
    /// How often the run had been begun again before.
    pub attempt: usize,
}

/// A change as the journal tells it.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its id.
    pub id: String,
    /// The run that it belongs to.
    pub run: String,
    /// Its place in the journal: what has a higher one began later, whatever the clocks said.
    pub seq: i64,
    /// When it began, microseconds since 1970.
    pub at_us: i64,
    /// Name of the verb.
    pub verb: String,
    /// Host or stack.
    pub target: String,
    /// What names of hosts and stacks meant that its run used since the change before; none in an older record.
    pub meant: BTreeMap<String, String>,
    /// It loses data or service.
    pub destroys: bool,
    /// The arguments as a person reads them.
    pub says: String,
    /// The arguments.
    pub args: Value,
    /// The line that takes it back, if it can be performed.
    pub inverse: Option<String>,
    /// The record hides a secret in that line, and with it perhaps the name of what was changed.
    pub hides_inverse: bool,
    /// The state that the inverse goes back to; null when it is not known.
    pub before: Value,
    /// How its work goes on without opsh.
    pub lives: Lives,
    /// The effect that it takes back.
    pub undoes: Option<String>,
    /// It took back what its own run, or one that this run goes on with, had done: to undo it would do that again.
    pub unwound: bool,
    /// What became of it.
    pub fate: Fate,
    /// The run that took it back, if that was not taken back itself.
    pub undone_by: Option<String>,
    /// The newest run that began to take it back and did not end that.
    pub attempt: Option<String>,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// Its opsh still runs.
    GoesOn,
    /// It was done; `after` is null when only its exit code is known.
    Happened {
        /// The state is not what it was.
        changed: bool,
        /// What a second look saw.
        after: Value,
    },
    /// It certainly was not done.
    DidNot(String),
    /// It was done and failed: a part of it may be there.
    Failed(String),
    /// Nobody knows.
    Unknown,
    /// A person looked, and said this.
    Said(String),
}

impl Told {
    /// True when it was done and changed something.
    pub fn is_done(&self) -> bool {
        matches!(self.fate, Fate::Happened { changed: true, .. })
    }

    /// `git.checkout on local  /srv → 0123456789ab`.
    pub fn words(&self) -> String {
        let mut lines = self.says.lines();
        let (first, more) = (lines.next().unwrap_or(""), if lines.next().is_some() { " …" } else { "" });
        format!("{} on {}  {first}{more}", self.verb, self.target)
    }
}

impl Story {
    /// The run that this one undoes.
    pub fn undoes(&self) -> Option<&str> {
        self.facts.get("undoes").and_then(Value::as_str)
    }

    /// The run that this one went on with.
    pub fn resumes(&self) -> Option<&str> {
        self.facts.get("resumes").and_then(Value::as_str)
    }
}

impl Journal {
    /// The run whose id is `id` or begins or ends with it; `last` is the newest one. Fails as [`Journal::run`].
    pub fn story(&self, id: &str) -> Result<Story> {
        // By its whole id a run is found in the index; a part of one is looked for.
        let mut entries = self.read(&format!("{SELECT} WHERE run = ?1 ORDER BY seq"), params![id], entry)?;
        if entries.is_empty() {
            entries = self.run(id)?;
        }
        let mut story = Story {
            run: entries.first().map(|entry| entry.run.clone()).unwrap_or_default(),
            at_us: 0,
            what: String::new(),
            mode: String::new(),
            facts: Value::Null,
            replay: false,
            outcome: None,
            imports: Vec::new(),
            changes: Vec::new(),
            steps: Vec::new(),
        };
        let (mut changes, mut attempt, mut by_hand) = (Vec::new(), 0, false);
        for entry in &entries {
            match entry.kind.as_str() {
                "run.start" => {
                    story.at_us = entry.at_us;
                    (story.what, story.mode) = (text(&entry.body, "what"), text(&entry.body, "mode"));
                    (story.facts, story.replay) = (entry.body["facts"].clone(), entry.body["replay"] == true);
                    if let Some(older) = story.resumes().map(String::from)
                        && !self.had_begun(&older, entry.seq)?
                    {
                        story.facts["resumes"] = Value::Null;
                    }
                }
                "source" if entry.body["role"] == "import" => story.imports.push(Source {
                    name: text(&entry.body, "name"),
                    file: entry.body["file"].as_str().map(String::from),
                    sha256: text(&entry.body, "sha256"),
                }),
                "run.end" => story.outcome = Some(text(&entry.body, "outcome")),
                "effect.begin" => changes.extend(entry.effect.clone()),
                "run.failed" => by_hand = true,
                "run.retry" => (attempt, by_hand) = (attempt + 1, false),
                // A step that was typed at a script that failed is none of the script's: nothing is left out for it.
                "step.end" if !by_hand => story.steps.push(step(&entry.body, attempt)),
                _ => {}
            }
        }
        story.changes = self.changes(&changes)?;
        Ok(story)
    }

    /// Changes by their ids, in the order given.
    pub fn changes(&self, ids: &[String]) -> Result<Vec<Told>> {
        ids.iter().map(|id| self.change(id)).collect()
    }

    fn change(&self, id: &str) -> Result<Told> {
        let entries = self.read(&format!("{SELECT} WHERE effect = ?1 ORDER BY seq"), params![id], entry)?;
        if entries.is_empty() {
            let why = "its records are elsewhere: in a spill file, or in another folder";
            return Err(Error::new(Kind::NotFound, format!("change {id} is not in the journal"), why));
        }
        let mut told = told(id, &entries);
        told.unwound = told.undoes.is_some() && !self.is_undo(&told.run)?;
        for entry in &entries {
            match entry.kind.as_str() {
                "effect.undoing" => told.attempt = Some(entry.run.clone()),
                "effect.undone" => {
                    told.attempt = None;
                    told.undone_by = (!self.was_redone(id, &entry.run)?).then(|| entry.run.clone());
                }
                _ => {}
            }
        }
        Ok(told)
    }

    /// The run other than `run` that took the effect `id` back, or began that before it and still runs.
    pub fn taken_back_by(&self, id: &str, run: &str) -> Result<Option<String>> {
        if let Some(other) = self.change(id)?.undone_by.filter(|other| other != run) {
            return Ok(Some(other));
        }
        let sql = "SELECT u.run FROM journal u WHERE u.effect = ?1 AND u.kind = 'effect.undoing' AND u.run <> ?2
                   AND u.seq < coalesce((SELECT max(m.seq) FROM journal m WHERE m.effect = ?1 AND m.run = ?2
                                         AND m.kind = 'effect.undoing'), u.seq + 1)
                   AND u.run IN (SELECT o.id FROM open o WHERE o.what = 'run') ORDER BY u.seq LIMIT 1";
        self.read(sql, params![id, run], |row| row.get(0)).map(|runs| runs.into_iter().next())
    }

    fn is_undo(&self, run: &str) -> Result<bool> {
        let sql = "SELECT 1 FROM journal WHERE run = ?1 AND kind = 'run.start'
                   AND json_extract(body, '$.facts.undoes') IS NOT NULL";
        Ok(!self.read(sql, params![run], |_| Ok(()))?.is_empty())
    }

    /// True when what `run` did to take an effect back was taken back itself.
    fn was_redone(&self, id: &str, run: &str) -> Result<bool> {
        let linked: Vec<Told> = self.linked(id, run)?.into_iter().filter(|change| change.is_done()).collect();
        Ok(!linked.is_empty() && linked.iter().all(|change| change.undone_by.is_some()))
    }

    /// The changes of `run` that take the effect `id` back.
    pub fn linked(&self, id: &str, run: &str) -> Result<Vec<Told>> {
        let sql = "SELECT effect FROM journal WHERE run = ?1 AND kind = 'effect.begin'
                   AND json_extract(body, '$.undoes') = ?2 ORDER BY seq";
        let ids: Vec<String> = self.read(sql, params![run, id], |row| row.get(0))?;
        self.changes(&ids)
    }

    /// The changes of all attempts to take the effect `id` back since one came to its end.
    pub fn attempted(&self, id: &str) -> Result<Vec<Told>> {
        let sql = "SELECT effect FROM journal WHERE kind = 'effect.begin' AND json_extract(body, '$.undoes') = ?1
                   AND run IN (SELECT run FROM journal WHERE effect = ?1 AND kind = 'effect.undoing')
                   AND seq > coalesce((SELECT max(seq) FROM journal WHERE effect = ?1 AND kind = 'effect.undone'), 0)
                   ORDER BY seq";
        let ids: Vec<String> = self.read(sql, params![id], |row| row.get(0))?;
        self.changes(&ids)
    }

    /// The newest run that changed something, and is not an undo itself.
    pub fn last_change(&self) -> Result<Option<String>> {
        // A sitting that began earlier may have changed something later.
        let sql = "SELECT run FROM journal WHERE kind = 'effect.begin' AND run IN (
                     SELECT run FROM journal WHERE kind = 'run.start'
                     AND json_extract(body, '$.facts.undoes') IS NULL AND json_extract(body, '$.replay') IS NULL)
                   ORDER BY seq DESC LIMIT 1";
        self.read(sql, params![], |row| row.get(0)).map(|runs| runs.into_iter().next())
    }

    /// Runs that went on with others: for each the first, since of several at once only that one goes on.
    pub fn resumptions(&self) -> Result<Vec<(String, String)>> {
        let sql = "SELECT json_extract(newer.body, '$.facts.resumes') AS older, newer.run, min(newer.seq) AS first
                   FROM journal AS newer WHERE newer.kind = 'run.start' AND older IS NOT NULL AND EXISTS (SELECT 1 FROM journal AS began
                   WHERE began.run = older AND began.kind = 'run.start' AND began.seq < newer.seq)
                   GROUP BY older ORDER BY first";
        self.read(sql, params![], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// True for a run that began in this journal, or was brought into it.
    pub fn has_run(&self, run: &str) -> Result<bool> {
        let sql = "SELECT 1 FROM journal WHERE run = ?1 AND kind = 'run.start' LIMIT 1";
        Ok(!self.read(sql, params![run], |_| Ok(()))?.is_empty())
    }

    /// True for a run that had begun before this record: a run goes on with an older one only, and so no chain of them has a
    /// loop, whatever a file says that was imported.
    fn had_begun(&self, run: &str, seq: i64) -> Result<bool> {
        let sql = "SELECT 1 FROM journal WHERE run = ?1 AND kind = 'run.start' AND seq < ?2 LIMIT 1";
        Ok(!self.read(sql, params![run, seq], |row| row.get::<_, i64>(0))?.is_empty())
    }

    /// For each run the end of its id, when that is enough to name it; else the id.
    pub fn short_names(&self) -> Result<BTreeMap<String, String>> {
        let runs: Vec<String> =
            self.read("SELECT run FROM journal WHERE kind = 'run.start'", params![], |row| row.get(0))?;
        let mut count: BTreeMap<&str, usize> = BTreeMap::new();
        for run in &runs {
            *count.entry(tail(run)).or_default() += 1;
        }
        let short = |run: &String| if count[tail(run)] == 1 { tail(run).to_string() } else { run.clone() };
        Ok(runs.iter().map(|run| (run.clone(), short(run))).collect())
    }
}

fn tail(run: &str) -> &str {
    run.rsplit('-').next().unwrap_or(run)
}

fn told(id: &str, entries: &[Entry]) -> Told {
    let begin = entries.iter().find(|entry| entry.kind == "effect.begin");
    let body = begin.map_or(Value::Null, |entry| entry.body.clone());
    let lives = serde_json::from_value(body["lives"].clone()).unwrap_or_default();
    let field = |key: &str| body[key].as_str().map(String::from);
    let (inverse, hides_inverse) = match field("inverse") {
        Some(line) if redact::is_hidden(&line) => (None, true),
        line => (line, false),
    };
    Told {
        id: id.into(),
        run: begin.map(|entry| entry.run.clone()).unwrap_or_default(),
        seq: begin.map_or(0, |entry| entry.seq),
        at_us: begin.map_or(0, Entry::happened_us),
        verb: text(&body, "verb"),
        target: begin.and_then(|entry| entry.target.clone()).unwrap_or_default(),
        meant: serde_json::from_value(body["meant"].clone()).unwrap_or_default(),
        destroys: begin.is_some_and(|entry| entry.class.as_deref() == Some("destroy")),
        says: text(&body, "says"),
        args: body["args"].clone(),
        inverse,
        hides_inverse,
        before: body["before"].clone(),
        lives,
        undoes: field("undoes"),
        unwound: false,
        fate: fate(entries),
        undone_by: None,
        attempt: None,
    }
}

fn fate(entries: &[Entry]) -> Fate {
    let mut fate = Fate::GoesOn;
    for entry in entries {
        match entry.kind.as_str() {
            "effect.end" | "effect.late" => fate = ended(&entry.body),
            "effect.settled" => fate = settled(&entry.body),
            _ => {}
        }
    }
    fate
}

fn ended(body: &Value) -> Fate {
    let error = |key: &str| body["error"][key].as_str().unwrap_or("").to_string();
    match body["outcome"].as_str() {
        Some("ok") => {
            Fate::Happened { changed: body["changed"].as_bool().unwrap_or(true), after: body["after"].clone() }
        }
        // What a program did before it exited is done, whatever its exit code says.
        Some("failed") if !body["error"]["exit"].is_null() => Fate::Failed(error("why")),
        Some("failed") => match error("kind").as_str() {
            "failed" | "timeout" => Fate::Failed(error("why")),
            _ => Fate::DidNot(error("why")),
        },
        _ => Fate::Unknown,
    }
}

fn settled(body: &Value) -> Fate {
    let saw = text(body, "saw");
    match body["outcome"].as_str() {
        Some("happened") => Fate::Happened { changed: true, after: Value::Null },
        Some("failed") => Fate::Failed(saw),
        Some("did not happen") => Fate::DidNot(saw),
        _ => Fate::Said(saw),
    }
}

fn step(body: &Value, attempt: usize) -> Step {
    let effects = body["effects"].as_array().cloned().unwrap_or_default();
    Step {
        attempt,
        name: text(body, "name"),
        result: body["result"].clone(),
        effects: effects.iter().filter_map(|id| id.as_str().map(String::from)).collect(),
    }
}

fn text(body: &Value, key: &str) -> String {
    body[key].as_str().unwrap_or("").into()
}

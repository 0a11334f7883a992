//! Questions to the journal: runs, one run, what is unsettled.

use super::entry::{Entry, SELECT, entry};
use super::{Journal, Record, words};
use crate::error::{Error, Kind, Result};
use rusqlite::{Row, params};
use serde_json::json;
use std::collections::BTreeSet;

/// One line of `opsh journal list`.
#[derive(Clone, Debug)]
pub struct RunLine {
    /// The run.
    pub run: String,
    /// When it began, microseconds since 1970.
    pub at_us: i64,
    /// The person.
    pub actor: String,
    /// What was run.
    pub what: String,
    /// `apply`, `plan` or `observe`.
    pub mode: String,
    /// `ok`, `failed`, …, `killed`, or `running`.
    pub outcome: String,
    /// Changes begun.
    pub changes: i64,
    /// Effects whose outcome is unknown.
    pub unknown: i64,
}

/// Where `b` is an `effect.begin` of a change, as SQL: it may have happened, and nobody said what was seen. The index
/// `journal_unknown` is of the ends that are asked for, in these very words: asking must not cost more in a long journal.
pub const IS_UNSETTLED: &str =
    "b.kind = 'effect.begin' AND b.class <> 'read' AND b.effect IN (SELECT effect FROM journal
    WHERE kind = 'effect.end' AND json_extract(body, '$.outcome') IN ('unknown', 'timeout', 'interrupted'))
    AND NOT EXISTS (SELECT 1 FROM journal s WHERE s.effect = b.effect AND s.kind = 'effect.settled')";

impl Journal {
    /// The newest `limit` runs, newest first.
    pub fn runs(&self, limit: usize) -> Result<Vec<RunLine>> {
        self.lines("ORDER BY s.seq DESC LIMIT ?1", params![limit as i64])
    }

    /// One run as [`Journal::runs`] lists it. Fails as [`Journal::run`].
    pub fn run_line(&self, id: &str) -> Result<RunLine> {
        let run = self.resolve(id)?;
        let missing = || Error::new(Kind::NotFound, format!("no run \"{id}\""), "it is gone from the journal");
        self.lines("AND s.run = ?1", params![run])?.into_iter().next().ok_or_else(missing)
    }

    fn lines(&self, which: &str, values: impl rusqlite::Params) -> Result<Vec<RunLine>> {
        self.read(
            &format!(
                "SELECT s.run, coalesce(json_extract(s.body, '$.spilled.at_us'), s.at_us), s.actor,
                    json_extract(s.body, '$.what'), json_extract(s.body, '$.mode'),
                    coalesce((SELECT json_extract(e.body, '$.outcome') FROM journal e WHERE e.run = s.run AND e.kind = 'run.end'), 'running'),
                    (SELECT count(*) FROM journal c WHERE c.run = s.run AND c.kind = 'effect.begin' AND c.class <> 'read'),
                    (SELECT count(*) FROM journal b WHERE b.run = s.run AND {IS_UNSETTLED})
             FROM journal s WHERE s.kind = 'run.start' {which}"
            ),
            values,
            |row| {
                Ok(RunLine {
                    run: row.get(0)?,
                    at_us: row.get(1)?,
                    actor: row.get(2)?,
                    what: row.get::<_, Option<String>>(3)?.unwrap_or_default(),
                    mode: row.get::<_, Option<String>>(4)?.unwrap_or_default(),
                    outcome: row.get(5)?,
                    changes: row.get(6)?,
                    unknown: row.get(7)?,
                })
            },
        )
    }

    /// At most `limit` records of a run, by its whole id, from position `from` on.
    pub fn run_part(&self, run: &str, from: i64, limit: usize) -> Result<Vec<Entry>> {
        let part = format!("{SELECT} WHERE run = ?1 AND seq >= ?2 ORDER BY seq LIMIT ?3");
        self.read(&part, params![run, from, limit as i64], entry)
    }

    /// The record of a look, by the id of its effect.
    pub fn looked(&self, effect: &str) -> Result<Entry> {
        let of_look = format!("{SELECT} WHERE effect = ?1 AND kind = 'effect.read' ORDER BY seq LIMIT 1");
        let missing = || Error::new(Kind::NotFound, format!("no look {effect}"), "the journal has no such record");
        self.read(&of_look, params![effect], entry)?.into_iter().next().ok_or_else(missing)
    }

    /// All records of the run whose id is `id` or begins or ends with it; `last` is the newest run.
    pub fn run(&self, id: &str) -> Result<Vec<Entry>> {
        let run = self.resolve(id)?;
        self.read(&format!("{SELECT} WHERE run = ?1 ORDER BY seq"), params![run], entry)
    }

    /// Stacks whose lock a run took and did not give back.
    pub fn locks(&self, run: &str) -> Result<Vec<String>> {
        let takes = "SELECT target, coalesce(json_extract(body, '$.args.step') <> 'release' AND
                            json_extract(body, '$.value.state') = 'held', 0)
                     FROM journal WHERE run = ?1 AND kind = 'effect.read' AND json_extract(body, '$.verb') = 'lock.take'
                     ORDER BY seq";
        let mut held = BTreeSet::new();
        for (stack, is_taken) in self.read(takes, params![run], |row| Ok((row.get(0)?, row.get(1)?)))? {
            let _: bool = if is_taken { held.insert(stack) } else { held.remove(&stack) };
        }
        Ok(held.into_iter().collect())
    }

    pub(super) fn resolve(&self, id: &str) -> Result<String> {
        let found: Vec<String> = if id == "last" {
            let newest = "SELECT run FROM journal WHERE kind = 'run.start' ORDER BY seq DESC LIMIT 1";
            self.read(newest, params![], |row| row.get(0))?
        } else {
            let matching = "SELECT DISTINCT run FROM journal WHERE kind = 'run.start' AND
                            (substr(run, 1, length(?1)) = ?1 OR substr(run, -length(?1)) = ?1)";
            self.read(matching, params![id], |row| row.get(0))?
        };
        match found.as_slice() {
            [run] => Ok(run.clone()),
            [] => Err(Error::new(Kind::NotFound, format!("no run \"{id}\""), "the journal has no run of that id")
                .next("opsh journal list     all runs")),
            several => Err(Error::new(Kind::Usage, format!("run \"{id}\" is not unique"), several.join(", "))),
        }
    }

    /// A person looked and says what became of the open changes of a run; returns how many there were.
    pub fn settle(&self, id: &str, saw: &str) -> Result<usize> {
        let run = self.resolve(id)?;
        let open: Vec<Entry> = self.unsettled()?.into_iter().filter(|entry| entry.run == run).collect();
        for entry in &open {
            let record = Record {
                kind: "effect.settled",
                run: &run,
                effect: entry.effect.as_deref(),
                target: entry.target.as_deref(),
                class: None,
                body: json!({ "saw": saw }),
            };
            self.append(&record)?;
        }
        Ok(open.len())
    }

    /// Changes that began and whose outcome nobody knows, newest first: they may have happened.
    pub fn unsettled(&self) -> Result<Vec<Entry>> {
        self.read(&format!("{SELECT} b WHERE {IS_UNSETTLED} ORDER BY b.seq DESC"), params![], entry)
    }

    /// Every record of system runs, oldest first.
    #[cfg(test)]
    pub fn beside(&self) -> Result<Vec<Entry>> {
        let of_system = "run IN (SELECT run FROM journal WHERE kind = 'system.start')";
        self.read(&format!("{SELECT} WHERE {of_system} ORDER BY seq"), params![], entry)
    }

    pub(super) fn read<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        each: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let run = || -> rusqlite::Result<Vec<T>> {
            let connection = self.connection.borrow();
            connection.prepare(sql)?.query_map(values, each)?.collect()
        };
        run().map_err(|error| self.unreadable(&error))
    }

    pub(super) fn unreadable(&self, error: &rusqlite::Error) -> Error {
        let what = format!("journal {} cannot be read", self.path.display());
        Error::new(Kind::Journal, what, words(error))
    }
}

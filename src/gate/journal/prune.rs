//! Removing old records: exported first, only from the beginning, and the chain still verifies afterwards.
//!
//! The newest `journal.pruned` record holds the position and hash of the last record that went; the chain is checked
//! from there. The trigger that forbids deleting is dropped and made again in the transaction that deletes: nobody
//! else ever sees the table without it.

use super::entry::{Entry, SELECT, entry, hex, put};
use super::export::Lines;
use super::query::IS_UNSETTLED;
use super::schema::NO_DELETE;
use super::{Journal, Record, clock, words};
use crate::error::{Error, Kind, Result};
use crate::whole::Part;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use serde_json::json;
use std::io::Write;
use std::path::Path;

/// What a pruning would remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prunable {
    /// Position of the first one.
    pub from: i64,
    /// Position of the last one.
    pub to: i64,
    /// Records; 0 when nothing may go.
    pub records: i64,
    /// Runs.
    pub runs: i64,
    /// The run that keeps later records from going although they are old enough: it goes on, may have happened, or
    /// reaches into the time that is kept.
    pub held_by: Option<String>,
}

impl Journal {
    /// What is older than `before_us`, microseconds since 1970, and may go: whole runs only, from the beginning, up to
    /// the first one that goes on, that may have happened, or that has a record from later.
    pub fn prunable(&self, before_us: i64) -> Result<Prunable> {
        prunable(&self.connection.borrow(), before_us).map_err(|error| self.unreadable(&error))
    }

    /// Writes what [`Journal::prunable`] found to the new file `to`, 0600 and on the disk, and then removes it. Fails
    /// with the records in place when the file is there already, when something cannot be written, or when the journal
    /// is no longer as it was found.
    pub fn prune(&self, before_us: i64, found: &Prunable, to: &Path) -> Result<()> {
        let not_pruned = |why: String| {
            Error::new(Kind::Journal, format!("journal {} was not pruned", self.path.display()), why)
                .next("opsh journal prune --before … --to FILE     export to another file")
        };
        let mut connection = self.connection.borrow_mut();
        let sql = |error: rusqlite::Error| not_pruned(words(&error));
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
        if prunable(&transaction, before_us).map_err(sql)? != *found {
            return Err(not_pruned("it changed since it was looked at; the same again".into()));
        }
        let io = |error: std::io::Error| not_pruned(format!("{}: {error}", to.display()));
        export(&transaction, found.to, Part::create(to, 0o600).map_err(io)?).map_err(sql)?.map_err(io)?;
        remove(&transaction, found, to).map_err(sql)?;
        transaction.commit().map_err(sql)?;
        // The records are gone either way; what is lost without these is only space on the disk.
        let _ = connection.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);");
        Ok(())
    }
}

fn prunable(connection: &Connection, before_us: i64) -> rusqlite::Result<Prunable> {
    let number = |sql: &str, value: i64| connection.query_row(sql, params![value], |row| row.get::<_, i64>(0));
    let old =
        "SELECT coalesce((SELECT min(seq) FROM journal WHERE at_us >= ?1) - 1, (SELECT max(seq) FROM journal), 0)";
    let (mut to, mut held_by) = (number(old, before_us)?, None);
    while let Some((seq, run)) = holder(connection, to)? {
        (to, held_by) = (seq - 1, Some(run));
    }
    let from = number("SELECT coalesce(min(seq), 0) FROM journal WHERE seq <= ?1", to)?;
    let records = number("SELECT count(*) FROM journal WHERE seq <= ?1", to)?;
    let runs = number("SELECT count(*) FROM journal WHERE seq <= ?1 AND kind = 'run.start'", to)?;
    Ok(Prunable { from, to, records, runs, held_by })
}

/// The first record up to `to` of a run that has to stay, and that run.
fn holder(connection: &Connection, to: i64) -> rusqlite::Result<Option<(i64, String)>> {
    let sql = format!(
        "SELECT h.seq, h.run FROM journal h WHERE h.seq <= ?1 AND h.run <> '-' AND (
            h.run IN (SELECT l.run FROM journal l WHERE l.seq > ?1 AND l.kind <> 'effect.settled')
            OR h.run IN (SELECT o.run FROM open JOIN journal o ON o.seq = open.seq)
            OR h.run IN (SELECT b.run FROM journal b WHERE b.seq <= ?1 AND {IS_UNSETTLED}))
         ORDER BY h.seq LIMIT 1"
    );
    connection.query_row(&sql, params![to], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

fn export(connection: &Connection, to: i64, mut out: Part) -> rusqlite::Result<std::io::Result<()>> {
    let mut lines = Lines::default();
    let mut statement = connection.prepare(&format!("{SELECT} WHERE seq <= ?1 ORDER BY seq"))?;
    let mut rows = statement.query(params![to])?;
    while let Some(row) = rows.next()? {
        if let Err(error) = writeln!(out, "{}", lines.record(&entry(row)?)) {
            return Ok(Err(error));
        }
    }
    Ok(writeln!(out, "{}", lines.end()).and_then(|()| out.finish()))
}

fn remove(transaction: &Connection, found: &Prunable, to: &Path) -> rusqlite::Result<()> {
    let hash: Vec<u8> =
        transaction.query_row("SELECT hash FROM journal WHERE seq = ?1", params![found.to], |row| row.get(0))?;
    let body = json!({
        "last_seq": found.to, "last_hash": hex(&hash), "records": found.records, "runs": found.runs, "exported": to,
    });
    let record = Record { kind: "journal.pruned", run: "-", effect: None, target: None, class: None, body };
    put(transaction, Entry::draft(&record), &clock::Process::this(), true)?;
    transaction.execute_batch("DROP TRIGGER journal_no_delete")?;
    transaction.execute("DELETE FROM journal WHERE seq <= ?1", params![found.to])?;
    transaction.execute_batch(NO_DELETE)
}

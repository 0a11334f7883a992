//! Whether the records are as they were written: the chain, record by record, in bounded memory.

use super::entry::{Entry, Last, SELECT, entry};
use super::{Journal, clock, words};
use crate::error::{Error, Kind, Result};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;

/// What [`Journal::verify`] found to be in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Records.
    pub records: i64,
    /// Effects begun.
    pub effects: i64,
    /// Effects that have no end because their opsh still runs.
    pub open: i64,
    /// Position of the last record that was pruned, 0 if none was.
    pub pruned: i64,
}

/// The first record that is not as it was written.
#[derive(Debug)]
pub struct Bad {
    /// `record 3 (effect.end of 2026-11-24T06:17:43.120000Z)`.
    pub record: String,
    /// Why.
    pub why: String,
}

/// How far the chain is whole.
#[derive(Debug, Default)]
pub struct Walk {
    pub records: i64,
    pub pruned: i64,
    pub last: Option<Last>,
    pub bad: Option<Bad>,
}

impl Journal {
    /// Checks every link of the chain, that each effect was begun once and ended at most once, and the database's own
    /// structure. The error names the first bad record: an edited, inserted, removed, torn or unreadable one.
    pub fn verify(&self) -> Result<Verified> {
        let connection = self.connection.borrow();
        let walk = walk(&connection, |_| {});
        let bad = match walk.bad {
            Some(bad) => Some(bad),
            None => twice(&connection).map_err(|error| self.unreadable(&error))?,
        };
        if let Some(Bad { record, why }) = bad {
            let what = format!("journal {record} is not as it was written");
            return Err(Error::new(Kind::Journal, what, format!("{why} (in {})", self.path.display())));
        }
        let sound: String = connection
            .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
            .map_err(|error| self.unreadable(&error))?;
        if sound != "ok" {
            let what = format!("the records are whole, and their database {} is damaged", self.path.display());
            return Err(Error::new(Kind::Journal, what, sound));
        }
        let count = |sql: &str| connection.query_row(sql, [], |row| row.get(0));
        let effects = count("SELECT count(*) FROM journal WHERE kind = 'effect.begin'");
        let open = count("SELECT count(*) FROM open WHERE what = 'effect'");
        let read = |found: rusqlite::Result<i64>| found.map_err(|error| self.unreadable(&error));
        Ok(Verified { records: walk.records, effects: read(effects)?, open: read(open)?, pruned: walk.pruned })
    }
}

/// Follows the chain from its beginning, or from where the newest pruning left off, and hands each good record to
/// `each`, up to the first bad one.
pub fn walk(connection: &Connection, mut each: impl FnMut(&Entry)) -> Walk {
    let mut walk = Walk::default();
    if let Err(error) = steps(connection, &mut walk, &mut each) {
        let next = walk.last.as_ref().map_or(1, |last| last.seq + 1);
        walk.bad = Some(Bad { record: format!("record {next}"), why: format!("it cannot be read: {}", words(&error)) });
    }
    walk
}

fn steps(connection: &Connection, walk: &mut Walk, each: &mut impl FnMut(&Entry)) -> rusqlite::Result<()> {
    // The table itself, in its order: an index could hide a row.
    let mut statement = connection.prepare(&format!("{SELECT} NOT INDEXED ORDER BY seq"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let entry = entry(row)?;
        if walk.records == 0 && entry.seq > 1 {
            walk.last = checkpoint(connection)?;
            walk.pruned = walk.last.as_ref().map_or(0, |last| last.seq);
        }
        if let Some(why) = fault(&entry, walk.last.as_ref()) {
            let record = format!("record {} ({} of {})", entry.seq, entry.kind, clock::rfc3339(entry.at_us));
            walk.bad = Some(Bad { record, why: why.into() });
            return Ok(());
        }
        each(&entry);
        walk.records += 1;
        walk.last = Some(entry.last());
    }
    Ok(())
}

fn fault(entry: &Entry, last: Option<&Last>) -> Option<&'static str> {
    let start = [0; 32];
    let (seq, prev) = last.map_or((0, &start[..]), |last| (last.seq, &last.hash));
    if entry.seq > seq + 1 {
        Some("records before it are missing")
    } else if entry.seq <= seq {
        Some("it stands before the beginning of the chain")
    } else if entry.prev != prev {
        Some("it does not follow the record before it")
    } else if entry.hash != entry.digest() {
        Some("its contents were changed")
    } else {
        None
    }
}

/// The last record that was pruned, as the newest checkpoint says.
fn checkpoint(connection: &Connection) -> rusqlite::Result<Option<Last>> {
    let newest = "SELECT body FROM journal WHERE run = '-' AND kind = 'journal.pruned' ORDER BY seq DESC LIMIT 1";
    let body: Option<String> = connection.query_row(newest, [], |row| row.get(0)).optional()?;
    Ok(body.and_then(|body| {
        let body: Value = serde_json::from_str(&body).ok()?;
        let bytes = body["last_hash"].as_str()?;
        let hash = (0..bytes.len() / 2).filter_map(|at| u8::from_str_radix(bytes.get(2 * at..2 * at + 2)?, 16).ok());
        Some(Last { seq: body["last_seq"].as_i64()?, at_us: i64::MIN, hash: hash.collect() })
    }))
}

/// The first record that begins or ends an effect a second time, or ends one that was not begun.
fn twice(connection: &Connection) -> rusqlite::Result<Option<Bad>> {
    let sql = "SELECT b.seq, b.kind, b.at_us FROM journal b WHERE b.kind IN ('effect.begin', 'effect.end') AND (
        EXISTS (SELECT 1 FROM journal a WHERE a.effect = b.effect AND a.kind = b.kind AND a.seq < b.seq)
        OR (b.kind = 'effect.end' AND NOT EXISTS (SELECT 1 FROM journal a
            WHERE a.effect = b.effect AND a.kind = 'effect.begin' AND a.seq < b.seq)))
        ORDER BY b.seq LIMIT 1";
    let found = connection.query_row(sql, params![], |row| {
        let (seq, kind, at): (i64, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let record = format!("record {seq} ({kind} of {})", clock::rfc3339(at));
        Ok(Bad { record, why: "its effect was not begun exactly once, or ended twice".into() })
    });
    found.optional()
}

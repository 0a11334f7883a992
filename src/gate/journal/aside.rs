//! A database that SQLite cannot read is set aside, and a fresh one is begun with what could be read of it.
//!
//! Kept in place it would take no record, so that every later change had to be asked for; the file stays as it was
//! found, under another name, and the first new record says which.

use super::entry::{Entry, hex, insert};
use super::schema::NO_GAP;
use super::verify::walk;
use super::{Fault, Journal, Record, patiently, place, schema, unwritable};
use crate::error::Result;
use rusqlite::{Connection, OpenFlags, params};
use serde_json::json;
use std::path::{Path, PathBuf};

impl Journal {
    /// As [`Journal::open`]; a database that SQLite itself calls malformed, or none at all, is moved to
    /// `journal.db.broken-TIME`. [`Journal::news`] says so. `imports`: what other runs spilled is brought in.
    pub fn open_or_begin_anew(dir: &Path, imports: bool) -> Result<Journal> {
        let anew = match Journal::try_open(dir, imports, None) {
            Err(Fault::Broken(_)) => begin_anew(dir, imports),
            other => other,
        };
        anew.map_err(|fault| unwritable(&dir.join("journal.db"), fault.why()))
    }
}

fn begin_anew(dir: &Path, imports: bool) -> Result<Journal, Fault> {
    let lock = place::lock(dir)?;
    // Another opsh may have been here first.
    let why = match Journal::try_open(dir, imports, Some(&lock)) {
        Err(Fault::Broken(why)) => why,
        other => return other,
    };
    let path = dir.join("journal.db");
    let aside = place::set_aside(&path)?;
    let (mut connection, mut kept) = (Journal::connect(dir)?, 0);
    patiently(|| {
        schema::create(&mut connection, |begun| {
            kept = salvage(begun, &aside, &why)?;
            Ok(())
        })
    })?;
    drop(lock);
    let mut journal = Journal::of(path, connection);
    journal.news.push(format!(
        "the journal was damaged ({why}) and is set aside as {}; {kept} records could be read and are kept",
        aside.display()
    ));
    journal.caught_up(dir, imports)
}

/// Copies the records before the first bad one, with their links; returns how many.
fn salvage(begun: &Connection, aside: &Path, why: &str) -> rusqlite::Result<i64> {
    // What is no database at all has nothing to copy: an empty one stands for it.
    let old = open_read_only(aside, OpenFlags::empty()).or_else(|_| Connection::open_in_memory())?;
    // A pruned journal begins behind 1.
    begun.execute_batch("DROP TRIGGER journal_no_gap")?;
    let mut unwritten = Ok(());
    let walk = walk(&old, |entry| {
        if unwritten.is_ok() {
            unwritten = insert(begun, entry);
        }
    });
    unwritten?;
    begun.execute_batch(NO_GAP)?;
    reopen(begun, &old)?;
    let body = json!({
        "set_aside": aside, "why": why, "records": walk.records,
        "last_seq": walk.last.as_ref().map(|last| last.seq),
        "last_hash": walk.last.as_ref().map(|last| hex(&last.hash)),
        "first_bad": walk.bad.map(|bad| format!("{}: {}", bad.record, bad.why)),
    });
    let record = Record { kind: "journal.begun", run: "-", effect: None, target: None, class: None, body };
    let process = super::clock::Process::this();
    super::entry::put(begun, Entry::draft(&record), &process, true)?;
    Ok(walk.records)
}

/// What was begun and not ended is open again, for its process if that can be read, else for none.
fn reopen(connection: &Connection, old: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "INSERT INTO open SELECT coalesce(b.effect, b.run), CASE b.kind WHEN 'run.start' THEN 'run' ELSE 'effect' END,
            b.seq, 0, 0, '' FROM journal b WHERE b.kind IN ('run.start', 'effect.begin') AND NOT EXISTS (
            SELECT 1 FROM journal e WHERE e.run = b.run AND e.effect IS b.effect AND e.kind IN ('run.end', 'effect.end'))",
    )?;
    let owners = || -> rusqlite::Result<Vec<(String, i64, i64, String)>> {
        let mut statement = old.prepare("SELECT id, pid, start, boot FROM open")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        rows.collect()
    };
    for (id, pid, start, boot) in owners().unwrap_or_default() {
        let owner = params![pid, start, boot, id];
        connection.execute("UPDATE open SET pid = ?1, start = ?2, boot = ?3 WHERE id = ?4", owner)?;
    }
    Ok(())
}

impl Journal {
    /// The journal as it is, for looking only: nothing is made, imported, ended or set aside. For one that
    /// [`Journal::open`] refuses.
    pub fn look(dir: &Path) -> Result<Journal> {
        let path = dir.join("journal.db");
        let wal = std::fs::symlink_metadata(format!("{}-wal", path.display()));
        let opened = open_read_only(&path, OpenFlags::empty()).or_else(|error| match wal {
            Ok(wal) if wal.len() > 0 => Err(error),
            // In a folder that cannot be written SQLite reads a database only when told that nobody writes it.
            _ => open_read_only(&immutable(&path), OpenFlags::SQLITE_OPEN_URI),
        });
        let journal = |connection| Journal::of(path.clone(), connection);
        opened.map(journal).map_err(|error| {
            let what = format!("journal {} cannot be read", path.display());
            crate::error::Error::new(crate::error::Kind::Journal, what, super::words(&error))
        })
    }
}

fn open_read_only(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, read_only | flags)?;
    connection.busy_timeout(super::PATIENCE)?;
    // Without writable_schema, which writes nothing here, a file that was cut off is refused as a whole.
    connection.execute_batch("PRAGMA writable_schema=ON; PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON")?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

fn immutable(path: &Path) -> PathBuf {
    let escaped = path.display().to_string().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    PathBuf::from(format!("file:{escaped}?immutable=1"))
}

//! The tables, and how SQLite is told to keep them.

use rusqlite::{Connection, TransactionBehavior};

/// The schema that this opsh writes.
pub const SCHEMA: i64 = 1;

/// Dropped and made again by a pruning, inside its transaction: it never lies open for others.
pub const NO_DELETE: &str = "CREATE TRIGGER journal_no_delete BEFORE DELETE ON journal
  BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;";

/// Dropped and made again while the records of a damaged journal are copied.
pub const NO_GAP: &str = "CREATE TRIGGER journal_no_gap BEFORE INSERT ON journal
  WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM journal) BEGIN SELECT RAISE(ABORT, 'a gap in the journal'); END;";

const TABLES: &str = "
CREATE TABLE journal (
  seq     INTEGER PRIMARY KEY,
  kind    TEXT NOT NULL,
  at_us   INTEGER NOT NULL,
  mono_us INTEGER NOT NULL,
  boot    TEXT NOT NULL,
  actor   TEXT NOT NULL,
  run     TEXT NOT NULL,
  effect  TEXT,
  target  TEXT,
  class   TEXT CHECK (class IN ('read','change','destroy')),
  body    TEXT NOT NULL,
  prev    BLOB NOT NULL,
  hash    BLOB NOT NULL UNIQUE
) STRICT;
CREATE TABLE open (
  id    TEXT PRIMARY KEY,
  what  TEXT NOT NULL CHECK (what IN ('run','effect')),
  seq   INTEGER NOT NULL,
  pid   INTEGER NOT NULL,
  start INTEGER NOT NULL,
  boot  TEXT NOT NULL
) STRICT;
CREATE INDEX journal_run ON journal(run, seq);
CREATE INDEX journal_effect ON journal(effect);
CREATE INDEX journal_start ON journal(seq, run) WHERE kind = 'run.start';
CREATE INDEX journal_unknown ON journal(effect)
  WHERE kind = 'effect.end' AND json_extract(body, '$.outcome') IN ('unknown', 'timeout', 'interrupted');
CREATE TRIGGER journal_no_update BEFORE UPDATE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
";

/// Settings of every connection that writes. Returns why this database cannot be written although SQLite could. Takes no write
/// lock: opening waits for nobody.
pub fn prepare(connection: &mut Connection) -> rusqlite::Result<Option<String>> {
    connection.busy_timeout(super::PATIENCE)?;
    if version(connection)? > SCHEMA {
        return newer(connection).map(Some);
    }
    let mode: String = connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Ok(Some(format!("the file system allows only journal_mode={mode}")));
    }
    // FULL: a begin that is not on the disk when the power fails is a change without a record.
    connection.execute_batch(
        "PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON;
         PRAGMA wal_autocheckpoint=1000; PRAGMA journal_size_limit=67108864;",
    )?;
    if has_tables(connection)? {
        // A damaged end would refuse every record: better known now than at the first change.
        super::entry::last(connection)?;
    }
    Ok(None)
}

/// False for a database that somebody has still to begin.
pub fn has_tables(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(version(connection)? > 0)
}

/// Makes the tables when they are not there, together with what `fill` puts into them: nobody sees them without it.
pub fn create(
    connection: &mut Connection,
    fill: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if !has_tables(&transaction)? {
        transaction.execute_batch(&format!("{TABLES} {NO_DELETE} {NO_GAP} PRAGMA user_version={SCHEMA};"))?;
        fill(&transaction)?;
    }
    transaction.commit()
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn newer(connection: &Connection) -> rusqlite::Result<String> {
    let version = version(connection)?;
    Ok(format!("it was written by a newer opsh (schema {version}, this one knows {SCHEMA})"))
}

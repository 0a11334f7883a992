//! What the database says is applied, and who migrates it: both kinds of ledgers, and golang-migrate's lock.

use super::files::Files;
use crate::bind::db::{self, in_path};
use crate::bind::docker::engine::Engine;
use crate::config::Stack;
use crate::config::migrate::{Ledger, LedgerKind, Tool};
use crate::error::{Error, Kind, Result};
use serde_json::{Value, json};

/// A ledger as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The applied versions, ascending.
    Rows(Vec<i64>),
    /// golang-migrate's one row; no row is version `None`.
    Golang {
        /// The version that it says; −1 while the first migration is taken back.
        version: Option<i64>,
        /// Something was begun and not ended.
        dirty: bool,
    },
}

impl Read {
    /// The applied versions, ascending. Of golang-migrate's row everything known up to its version, and that version
    /// itself whether or not it is known.
    pub fn applied(&self, files: &Files) -> Vec<i64> {
        match self {
            Read::Rows(versions) => versions.clone(),
            Read::Golang { version: Some(version), .. } if *version >= 0 => {
                let mut applied: Vec<i64> = files
                    .iter()
                    .filter(|(_, file)| file.up.is_some())
                    .map(|(v, _)| *v)
                    .filter(|v| v < version)
                    .collect();
                applied.push(*version);
                applied
            }
            Read::Golang { .. } => Vec::new(),
        }
    }

    /// The version that is marked dirty, if one is.
    pub fn dirty(&self) -> Option<i64> {
        match self {
            Read::Golang { version, dirty: true } => Some(version.unwrap_or(-1)),
            _ => None,
        }
    }
}

/// Reads the ledger; one that is not there has nothing applied. Nothing is created.
pub async fn read(engine: &Engine, stack: &Stack, ledger: &Ledger) -> Result<Read> {
    // The tools' own `status` would create the table.
    let there = concat!("SELECT ", in_path!("to_regclass", "$1"), " IS NOT NULL AS there");
    let found = db::rows(engine, stack, there, &[json!(ledger.table)]).await?;
    let there = found.first().is_some_and(|row| row["there"] == json!(true));
    let (table, column) = (&ledger.table, &ledger.version);
    let bad =
        |why: String| Error::new(Kind::Failed, format!("the ledger {table} of {} cannot be read", stack.name), why);
    let number = |row: &Value| -> Result<i64> {
        let text = row["version"].as_str().unwrap_or("");
        text.parse().map_err(|_| bad(format!("it has the version \"{text}\", which is no number of 64 bits")))
    };
    match (ledger.kind, there) {
        (LedgerKind::Rows, false) => Ok(Read::Rows(Vec::new())),
        (LedgerKind::Golang, false) => Ok(Read::Golang { version: None, dirty: false }),
        (LedgerKind::Rows, true) => {
            let sql = format!("SELECT {column}::text AS version FROM {table}");
            let rows = db::judged(engine, stack, &sql, &[]).await?;
            let mut versions = rows.iter().map(number).collect::<Result<Vec<i64>>>()?;
            versions.sort_unstable();
            Ok(Read::Rows(versions))
        }
        (LedgerKind::Golang, true) => {
            let sql = format!("SELECT {column}::text AS version, dirty FROM {table} LIMIT 2");
            match &db::judged(engine, stack, &sql, &[]).await?[..] {
                [] => Ok(Read::Golang { version: None, dirty: false }),
                [row] => Ok(Read::Golang { version: Some(number(row)?), dirty: row["dirty"] == json!(true) }),
                _ => Err(bad("it has more than one row, which golang-migrate never leaves".into())),
            }
        }
    }
}

/// Session that holds golang-migrate's lock on the database: `pid`, `application`, `user`, `since`.
///
/// The tool takes the lock itself when it runs, and waits 15 s for it: a look beforehand says who it would wait for.
pub async fn holder(engine: &Engine, stack: &Stack, tool: &Tool) -> Result<Option<Value>> {
    if tool.ledger.kind != LedgerKind::Golang {
        return Ok(None);
    }
    let (schema, table) = tool.ledger.parts();
    let names =
        "SELECT coalesce($1, nullif(current_setting('opsh.schema'), '')) AS schema, current_database() AS database";
    let found = db::rows(engine, stack, names, &[schema.map_or(Value::Null, |schema| json!(schema))]).await?;
    let name = |key: &str| found.first().and_then(|row| row[key].as_str()).unwrap_or("").to_string();
    let id = lock_id(&name("database"), &name("schema"), table);
    let rows = db::rows(engine, stack, HOLDER, &[json!(i64::from(id))]).await?;
    Ok(rows.into_iter().next())
}

/// A lock on one 64-bit number: its halves are `classid` and `objid`, and `objsubid` is 1.
const HOLDER: &str = "SELECT l.pid, coalesce(a.application_name, '') AS application, a.usename AS \"user\", \
    to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS since \
    FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid) \
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.classid::bigint = 0 AND l.objid::bigint = $1 \
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) LIMIT 1";

/// The number that golang-migrate locks: everything that migrates the same table excludes everything else.
fn lock_id(database: &str, schema: &str, table: &str) -> u32 {
    lock_number(&[schema, table, database].join("\0"))
}

fn lock_number(names: &str) -> u32 {
    crc32(names.as_bytes()).wrapping_mul(1_486_364_155)
}

/// CRC-32 as in Ethernet and zip, bit by bit: the names are short.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::super::files::File;
    use super::*;

    #[test]
    fn the_lock_is_the_one_that_golang_migrate_takes() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926, "the check value of CRC-32");
        // Computed by the tool itself, for names joined by NUL.
        for (names, id) in [
            ("database_name", 1_764_327_054),
            ("schema_name_1\0database_name", 2_453_313_553),
            ("schema_name_2\0database_name", 235_207_038),
            ("schema_name_1\0schema_name_2\0database_name", 3_743_845_847),
        ] {
            assert_eq!(lock_number(names), id, "{names:?}");
        }
        assert_eq!(lock_id("database_name", "schema_name_1", "schema_name_2"), 3_743_845_847);
        assert_eq!(lock_id("vrcshift", "public", "schema_migrations"), 322_410_513);
    }

    #[test]
    fn one_row_says_that_everything_known_up_to_it_is_applied() {
        let file = File { up: Some(String::new()), ..File::default() };
        let mut files: Files = [1, 5, 9].map(|version| (version, file.clone())).into();
        files.insert(3, File { down: Some(String::new()), ..File::default() });
        let golang = |version, dirty| Read::Golang { version, dirty };
        assert_eq!(golang(Some(5), false).applied(&files), [1, 5], "a down without its up is no migration");
        assert_eq!(golang(Some(6), false).applied(&files), [1, 5, 6], "6 is applied and not known here");
        assert!(golang(None, false).applied(&files).is_empty());
        assert!(golang(Some(-1), true).applied(&files).is_empty());
        assert_eq!((golang(Some(-1), true).dirty(), golang(Some(5), false).dirty()), (Some(-1), None));
        assert_eq!(Read::Rows(vec![1, 7]).applied(&files), [1, 7]);
    }
}

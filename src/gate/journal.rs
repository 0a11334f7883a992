//! The record: an append-only, hash-chained SQLite database, one per user. Home of `rusqlite`.
//!
//! Promises: no change starts before its `effect.begin` is durable; each begun effect gets exactly one `effect.end`;
//! an edit, insertion or removal by somebody who does not compute the chain anew is found by [`Journal::verify`];
//! nothing secret reaches the file, because every body passes [`crate::redact`] here. Cutting off the tail, and
//! rewriting everything, cannot be seen from inside the file.

use super::clock;
use super::verb::Class;
use crate::error::{Error, Kind, Result};
use crate::redact;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::path::{Path, PathBuf};

const SCHEMA: i64 = 1;

/// SQLite before 3.51.3 can lose committed rows when two connections write and checkpoint at once.
const OLDEST_SQLITE: i32 = 3_051_003;

/// Outcomes of a change that nobody knows the end of, as SQL.
const MAY_HAVE_HAPPENED: &str = "('unknown', 'timeout', 'interrupted')";

/// A body larger than this many bytes is kept as its beginning, length and digest.
const LARGEST_BODY: usize = 64 << 10;

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
CREATE TRIGGER journal_no_update BEFORE UPDATE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER journal_no_delete BEFORE DELETE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER journal_no_gap BEFORE INSERT ON journal
  WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM journal) BEGIN SELECT RAISE(ABORT, 'a gap in the journal'); END;
";

/// What is to be written.
#[derive(Debug)]
pub struct Record<'a> {
    /// `run.start`, `run.end`, `effect.begin`, `effect.end`, `effect.read`, `effect.settled`, `consent`, `note`, ….
    pub kind: &'static str,
    /// The run it belongs to.
    pub run: &'a str,
    /// The effect it belongs to.
    pub effect: Option<&'a str>,
    /// The host or stack.
    pub target: Option<&'a str>,
    /// Class of the effect.
    pub class: Option<Class>,
    /// Facts; redacted and bounded on the way in.
    pub body: Value,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Position, from 1, without gaps.
    pub seq: i64,
    /// As in [`Record`].
    pub kind: String,
    /// Wall clock, microseconds since 1970.
    pub at_us: i64,
    /// Monotonic clock, microseconds since boot.
    pub mono_us: i64,
    /// Id of that boot.
    pub boot: String,
    /// The person.
    pub actor: String,
    /// The run.
    pub run: String,
    /// The effect.
    pub effect: Option<String>,
    /// The host or stack.
    pub target: Option<String>,
    /// Class of the effect.
    pub class: Option<String>,
    /// Facts.
    pub body: Value,
    body_text: String,
    prev: Vec<u8>,
    hash: Vec<u8>,
}

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

/// What [`Journal::verify`] found to be in order.
#[derive(Debug, PartialEq, Eq)]
pub struct Verified {
    /// Records.
    pub records: i64,
    /// Effects begun.
    pub effects: i64,
    /// Effects that have no end because their opsh still runs.
    pub open: i64,
}

/// The open database.
pub struct Journal {
    path: PathBuf,
    connection: RefCell<Connection>,
    actor: String,
}

impl Journal {
    /// Opens or makes `DIR/journal.db` and ends what dead processes left open. `dir` is made 0700 if it is not there.
    pub fn open(dir: &Path) -> Result<Journal> {
        let path = dir.join("journal.db");
        let failed = |why: String| unwritable(&path, why);
        if rusqlite::version_number() < OLDEST_SQLITE {
            return Err(failed(format!(
                "SQLite {} can lose records; 3.51.3 is the oldest good one",
                rusqlite::version()
            )));
        }
        make_private(dir).and_then(|()| make_file(&path)).map_err(|error| failed(error.to_string()))?;
        let connection = Connection::open(&path).map_err(|error| failed(error.to_string()))?;
        let journal = Journal { path: path.clone(), connection: RefCell::new(connection), actor: actor() };
        journal.prepare().map_err(|error| failed(error.to_string()))??;
        journal.end_what_died()?;
        Ok(journal)
    }

    fn prepare(&self) -> rusqlite::Result<Result<()>> {
        let mut connection = self.connection.borrow_mut();
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        let mode: String = connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Ok(Err(unwritable(&self.path, format!("the file system allows only journal_mode={mode}"))));
        }
        // FULL: a begin that is not on the disk when the power fails is a change without a record.
        connection.execute_batch(
            "PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON;
             PRAGMA wal_autocheckpoint=1000; PRAGMA journal_size_limit=67108864;",
        )?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match version {
            0 => transaction.execute_batch(&format!("{TABLES} PRAGMA user_version={SCHEMA};"))?,
            SCHEMA => {}
            newer => {
                let why = format!("it was written by a newer opsh (schema {newer}, this one knows {SCHEMA})");
                return Ok(Err(unwritable(&self.path, why)));
            }
        }
        transaction.commit().map(Ok)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one record; when this returns it is on the disk. A `*.start` or `*.begin` opens its run or effect, a
    /// `*.end` closes it, in the same transaction.
    pub fn append(&self, record: &Record<'_>) -> Result<i64> {
        self.write(record, true)
            .map(Option::unwrap_or_default)
            .map_err(|error| unwritable(&self.path, error.to_string()))
    }

    /// `late`: an end that comes after another one is written as late; else it is not written.
    fn write(&self, record: &Record<'_>, late: bool) -> rusqlite::Result<Option<i64>> {
        let mut connection = self.connection.borrow_mut();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let last: Option<(i64, Vec<u8>)> = transaction
            .query_row("SELECT seq, hash FROM journal ORDER BY seq DESC LIMIT 1", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        let (seq, prev) = last.map_or((1, vec![0; 32]), |(seq, hash)| (seq + 1, hash));
        let body = bounded(redact::clean_json(record.body.clone()));
        let mut entry = Entry {
            seq,
            kind: record.kind.into(),
            at_us: clock::wall_us(),
            mono_us: clock::monotonic_us(),
            boot: clock::boot().into(),
            actor: self.actor.clone(),
            run: record.run.into(),
            effect: record.effect.map(String::from),
            target: record.target.map(String::from),
            class: record.class.map(|class| class.word().to_string()),
            body_text: body.to_string(),
            body,
            prev,
            hash: Vec::new(),
        };
        if entry.kind.ends_with(".end") && !is_open(&transaction, &entry)? {
            // Another opsh took this one for dead and ended it: what came of it all the same is a record of its own.
            if !late {
                return Ok(None);
            }
            entry.kind = format!("{}.late", entry.kind.trim_end_matches(".end"));
        }
        entry.hash = entry.digest();
        insert(&transaction, &entry)?;
        transaction.commit()?;
        Ok(Some(seq))
    }

    /// Runs and effects of processes that are gone get their end: `killed` and `unknown`. Two that start at once find
    /// the same ones; the second finds them ended when its turn comes.
    fn end_what_died(&self) -> Result<()> {
        let read = || -> rusqlite::Result<Vec<(String, String, clock::Process)>> {
            let connection = self.connection.borrow();
            let mut statement = connection.prepare("SELECT id, what, pid, start, boot FROM open ORDER BY what, seq")?;
            let rows = statement.query_map([], |row| {
                Ok((
                    row.get(0)?,
                    row.get(1)?,
                    clock::Process { pid: row.get(2)?, start: row.get(3)?, boot: row.get(4)? },
                ))
            })?;
            rows.collect()
        };
        let open = read().map_err(|error| unwritable(&self.path, error.to_string()))?;
        for (id, what, process) in open {
            if process.is_alive() {
                continue;
            }
            let run = id.split('.').next().unwrap_or(&id).to_string();
            let why = "opsh ended before the outcome was known";
            let (kind, effect, outcome) =
                if what == "run" { ("run.end", None, "killed") } else { ("effect.end", Some(id.as_str()), "unknown") };
            let body = json!({ "outcome": outcome, "why": why });
            let record = Record { kind, run: &run, effect, target: None, class: None, body };
            self.write(&record, false).map_err(|error| unwritable(&self.path, error.to_string()))?;
        }
        Ok(())
    }

    /// The newest `limit` runs, newest first.
    pub fn runs(&self, limit: usize) -> Result<Vec<RunLine>> {
        self.read(
            &format!(
                "SELECT s.run, s.at_us, s.actor, json_extract(s.body, '$.what'), json_extract(s.body, '$.mode'),
                    coalesce((SELECT json_extract(e.body, '$.outcome') FROM journal e WHERE e.run = s.run AND e.kind = 'run.end'), 'running'),
                    (SELECT count(*) FROM journal c WHERE c.run = s.run AND c.kind = 'effect.begin' AND c.class <> 'read'),
                    (SELECT count(*) FROM journal u WHERE u.run = s.run AND u.kind = 'effect.end'
                        AND json_extract(u.body, '$.outcome') IN {MAY_HAVE_HAPPENED}
                        AND u.class IS NOT 'read'
                        AND NOT EXISTS (SELECT 1 FROM journal t WHERE t.effect = u.effect AND t.kind = 'effect.settled'))
             FROM journal s WHERE s.kind = 'run.start' ORDER BY s.seq DESC LIMIT ?1"
            ),
            params![limit as i64],
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

    /// All records of the run whose id is `id` or begins or ends with it; `last` is the newest run.
    pub fn run(&self, id: &str) -> Result<Vec<Entry>> {
        let run = self.resolve(id)?;
        self.read(&format!("{SELECT} WHERE run = ?1 ORDER BY seq"), params![run], entry)
    }

    fn resolve(&self, id: &str) -> Result<String> {
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

    /// Checks every link of the chain and that each effect was begun once and ended at most once.
    pub fn verify(&self) -> Result<Verified> {
        let entries = self.read(&format!("{SELECT} ORDER BY seq"), params![], entry)?;
        let mut prev = vec![0; 32];
        let mut ends = std::collections::HashMap::new();
        for (at, entry) in entries.iter().enumerate() {
            let bad = |why: &str| {
                let what = format!("journal record {} is not as it was written", entry.seq);
                Err(Error::new(Kind::Journal, what, format!("{why} (in {})", self.path.display())))
            };
            if entry.seq != at as i64 + 1 {
                return bad("records before it are missing");
            }
            if entry.prev != prev {
                return bad("it does not follow the record before it");
            }
            if entry.hash != entry.digest() {
                return bad("its contents were changed");
            }
            if let Some(effect) = &entry.effect
                && ["effect.begin", "effect.end"].contains(&entry.kind.as_str())
            {
                let count = ends.entry(effect.as_str()).or_insert((0, 0));
                if entry.kind == "effect.begin" {
                    count.0 += 1
                } else {
                    count.1 += 1
                }
                if count.0 != 1 || count.1 > 1 {
                    return bad("its effect was not begun exactly once, or ended twice");
                }
            }
            prev.clone_from(&entry.hash);
        }
        let open = ends.values().filter(|(_, ended)| *ended == 0).count() as i64;
        Ok(Verified { records: entries.len() as i64, effects: ends.len() as i64, open })
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
        let sql = format!(
            "{SELECT} b WHERE b.kind = 'effect.begin' AND b.class <> 'read' AND EXISTS (SELECT 1 FROM journal e
             WHERE e.effect = b.effect AND e.kind = 'effect.end'
                AND json_extract(e.body, '$.outcome') IN {MAY_HAVE_HAPPENED})
             AND NOT EXISTS (SELECT 1 FROM journal s WHERE s.effect = b.effect AND s.kind = 'effect.settled')
             ORDER BY b.seq DESC"
        );
        self.read(&sql, params![], entry)
    }

    fn read<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        each: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let run = || -> rusqlite::Result<Vec<T>> {
            let connection = self.connection.borrow();
            connection.prepare(sql)?.query_map(values, each)?.collect()
        };
        run().map_err(|error| {
            let what = format!("journal {} cannot be read", self.path.display());
            Error::new(Kind::Journal, what, error.to_string())
        })
    }
}

const SELECT: &str =
    "SELECT seq, kind, at_us, mono_us, boot, actor, run, effect, target, class, body, prev, hash FROM journal";

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let body_text: String = row.get(10)?;
    Ok(Entry {
        seq: row.get(0)?,
        kind: row.get(1)?,
        at_us: row.get(2)?,
        mono_us: row.get(3)?,
        boot: row.get(4)?,
        actor: row.get(5)?,
        run: row.get(6)?,
        effect: row.get(7)?,
        target: row.get(8)?,
        class: row.get(9)?,
        body: serde_json::from_str(&body_text).unwrap_or(Value::Null),
        body_text,
        prev: row.get(11)?,
        hash: row.get(12)?,
    })
}

fn is_open(transaction: &Connection, entry: &Entry) -> rusqlite::Result<bool> {
    let id = entry.effect.as_ref().unwrap_or(&entry.run);
    transaction.query_row("SELECT EXISTS (SELECT 1 FROM open WHERE id = ?1)", params![id], |row| row.get(0))
}

fn insert(transaction: &Connection, entry: &Entry) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO journal VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13)",
        params![
            entry.seq,
            entry.kind,
            entry.at_us,
            entry.mono_us,
            entry.boot,
            entry.actor,
            entry.run,
            entry.effect,
            entry.target,
            entry.class,
            entry.body_text,
            entry.prev,
            entry.hash
        ],
    )?;
    let id = entry.effect.as_ref().unwrap_or(&entry.run);
    match entry.kind.as_str() {
        "run.start" | "effect.begin" => {
            let process = clock::Process::this();
            let what = if entry.effect.is_some() { "effect" } else { "run" };
            let values = params![id, what, entry.seq, process.pid, process.start, process.boot];
            transaction.execute("INSERT INTO open VALUES (?1,?2,?3,?4,?5,?6)", values)?;
        }
        "run.end" | "effect.end" => {
            transaction.execute("DELETE FROM open WHERE id = ?1", params![id])?;
        }
        _ => {}
    }
    Ok(())
}

impl Entry {
    /// The link of this record: 0x00 leaves 0x01 free for a tree over the records.
    fn digest(&self) -> Vec<u8> {
        let mut header = Sha256::new();
        let fields = [
            Some(self.kind.as_str()),
            Some(&self.boot),
            Some(&self.actor),
            Some(&self.run),
            self.effect.as_deref(),
            self.target.as_deref(),
            self.class.as_deref(),
        ];
        header.update(self.at_us.to_be_bytes());
        header.update(self.mono_us.to_be_bytes());
        for field in fields {
            // A length of all ones tells an absent field from an empty one.
            header.update(field.map_or(u64::MAX, |text| text.len() as u64).to_be_bytes());
            header.update(field.unwrap_or_default());
        }
        Sha256::new()
            .chain_update([0])
            .chain_update("opsh/1")
            .chain_update(self.seq.to_be_bytes())
            .chain_update(&self.prev)
            .chain_update(header.finalize())
            .chain_update(Sha256::digest(self.body_text.as_bytes()))
            .finalize()
            .to_vec()
    }

    /// The record as one JSON object, as `opsh journal export` prints it.
    pub fn to_json(&self) -> Value {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        json!({
            "seq": self.seq, "kind": self.kind, "at": clock::rfc3339(self.at_us), "at_us": self.at_us,
            "mono_us": self.mono_us, "boot": self.boot, "actor": self.actor, "run": self.run, "effect": self.effect,
            "target": self.target, "class": self.class, "body": self.body, "prev": hex(&self.prev), "hash": hex(&self.hash),
        })
    }
}

/// The body, with its largest values cut to beginning and end, length and digest, when it is too large to keep. What
/// undo and a reader need (verb, inverse, says, outcome, error) is small and stays.
fn bounded(mut body: Value) -> Value {
    for key in ["value", "args", "before", "after", "error", "facts"] {
        if body.to_string().len() <= LARGEST_BODY {
            break;
        }
        if let Some(value) = body.get_mut(key) {
            *value = cut(&value.to_string());
        }
    }
    if body.to_string().len() <= LARGEST_BODY { body } else { cut(&body.to_string()) }
}

fn cut(text: &str) -> Value {
    let half = LARGEST_BODY / 4;
    if text.len() <= 2 * half {
        return json!(text);
    }
    let (mut head, mut tail) = (half, text.len() - half);
    while !text.is_char_boundary(head) {
        head -= 1;
    }
    while !text.is_char_boundary(tail) {
        tail += 1;
    }
    let digest: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    json!({ "cut": { "head": &text[..head], "tail": &text[tail..], "bytes": text.len(), "sha256": digest } })
}

fn unwritable(path: &Path, why: String) -> Error {
    Error::new(Kind::Journal, format!("journal {} cannot be written", path.display()), why)
        .next("opsh --state-dir DIR …     keep the record in another folder")
}

/// Makes the folder 0700 when it is not there. A folder that is there is taken as it is, unless others may write to it:
/// it may be anybody's, and is not ours to change.
#[expect(clippy::disallowed_methods, reason = "the journal's own folder, made before anything can be recorded")]
fn make_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let meta = std::fs::metadata(dir)?;
    // SAFETY: geteuid has no preconditions and cannot fail.
    if meta.uid() != unsafe { libc::geteuid() } {
        return Err(std::io::Error::other(format!("{} belongs to another user", dir.display())));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(std::io::Error::other(format!("others may write to {}: chmod go-w it", dir.display())));
    }
    Ok(())
}

/// The database file, made 0600 before SQLite opens it: its companions get the same mode.
#[expect(clippy::disallowed_methods, reason = "the journal's own file, made before anything can be recorded")]
fn make_file(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(drop)
}

/// The person, as the environment names them.
#[expect(clippy::disallowed_methods, reason = "who acts is part of every record")]
fn actor() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        // SAFETY: geteuid has no preconditions and cannot fail.
        .unwrap_or_else(|| format!("uid {}", unsafe { libc::geteuid() }))
}

#[cfg(test)]
mod tests;

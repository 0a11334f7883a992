//! The record: an append-only, hash-chained SQLite database, one per user. Home of `rusqlite`.
//!
//! Promises: no change starts before its `effect.begin` is durable; each begun effect gets exactly one `effect.end`;
//! an edit, insertion or removal by somebody who does not compute the chain anew is found by [`Journal::verify`];
//! nothing secret reaches the file, because every body passes [`crate::redact`] here. Cutting off the tail, and
//! rewriting everything, cannot be seen from inside the file.
//!
//! What may be wrong with it, and what then: a database that is damaged is set aside and a fresh one begun (`aside`);
//! one that is newer, on a network file system, read-only, on a full disk or locked for more than 5 s is unavailable,
//! and a run's records go to a spill file, which the next opsh brings in (`spill`).

mod aside;
mod entry;
pub mod export;
mod place;
mod prune;
mod query;
mod schema;
mod spill;
mod story;
mod verify;

pub use entry::Entry;
pub use place::check_private;
pub use prune::Prunable;
pub use query::RunLine;
pub use spill::Spill;
pub use story::{Fate, Source, Step, Story, Told};
pub use verify::Verified;

use super::clock;
use super::verb::Class;
use crate::error::{Error, Kind, Result};
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// SQLite before 3.51.3 can lose committed rows when two connections write and checkpoint at once.
const OLDEST_SQLITE: i32 = 3_051_003;

/// What is to be written.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// `run.start`, `run.end`, `system.start`, `effect.begin`, `effect.end`, `effect.read`, `effect.settled`, `consent`, `note`, ….
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

/// The open database.
pub struct Journal {
    path: PathBuf,
    connection: RefCell<Connection>,
    news: Vec<String>,
    /// Device and number of the file that was opened.
    file: Option<(u64, u64)>,
    /// Somebody else has kept the lock for longer than [`PATIENCE`].
    is_kept_waiting: Cell<bool>,
}

/// How long a record waits for other writers; the next ones wait less, until one was written: a lock that is never
/// given back must not cost that time for every line of a script.
const PATIENCE: Duration = Duration::from_secs(5);
const IMPATIENCE: Duration = Duration::from_millis(200);

/// Why a journal could not be opened.
enum Fault {
    /// SQLite itself says that it is malformed, or no database at all.
    Broken(String),
    /// Anything else: it may come back.
    Unavailable(String),
}

impl Fault {
    fn why(self) -> String {
        let (Fault::Broken(why) | Fault::Unavailable(why)) = self;
        why
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        if is_broken(&error) { Fault::Broken(words(&error)) } else { Fault::Unavailable(words(&error)) }
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Fault {
        Fault::Unavailable(error.to_string())
    }
}

impl Journal {
    /// Opens or makes `DIR/journal.db`, brings in what was spilled and ends what dead processes left open. `dir` is
    /// made 0700 if it is not there.
    pub fn open(dir: &Path) -> Result<Journal> {
        Journal::try_open(dir, true, None).map_err(|fault| unwritable(&dir.join("journal.db"), fault.why()))
    }

    /// A journal that is gone with the program: for a replay, which did not happen.
    pub fn in_memory() -> Result<Journal> {
        let path = PathBuf::from(":memory:");
        let open = || -> rusqlite::Result<Connection> {
            let mut connection = Connection::open_in_memory()?;
            schema::create(&mut connection, |_| Ok(()))?;
            Ok(connection)
        };
        match open() {
            Ok(connection) => Ok(Journal::of(path, connection)),
            Err(error) => Err(unwritable(&path, error.to_string())),
        }
    }

    /// `lock`: the lock of the folder, when it is held.
    fn try_open(dir: &Path, imports: bool, lock: Option<&File>) -> Result<Journal, Fault> {
        let mut connection = Journal::connect(dir)?;
        if !schema::has_tables(&connection)? {
            // Only the one with the lock begins a journal: it may have records of a damaged one to put first.
            let _lock = lock.is_none().then(|| place::lock(dir)).transpose()?;
            patiently(|| schema::create(&mut connection, |_| Ok(())))?;
        }
        Journal::of(dir.join("journal.db"), connection).caught_up(dir, imports)
    }

    fn connect(dir: &Path) -> Result<Connection, Fault> {
        if rusqlite::version_number() < OLDEST_SQLITE {
            let why = format!("SQLite {} can lose records; 3.51.3 is the oldest good one", rusqlite::version());
            return Err(Fault::Unavailable(why));
        }
        let path = dir.join("journal.db");
        place::make_private(dir)?;
        place::make_file(&path)?;
        let mut connection = Connection::open(&path)?;
        if let Some(why) = patiently(|| schema::prepare(&mut connection))? {
            return Err(Fault::Unavailable(why));
        }
        Ok(connection)
    }

    fn caught_up(mut self, dir: &Path, imports: bool) -> Result<Journal, Fault> {
        patiently(|| self.catch_up(dir, imports))?;
        Ok(self)
    }

    /// Spilled ends come first: an effect whose end was spilled is not one without an end.
    fn catch_up(&mut self, dir: &Path, imports: bool) -> rusqlite::Result<()> {
        if imports {
            let brought_in = self.import(dir)?;
            self.news.extend(brought_in);
        }
        self.end_what_died()
    }

    fn of(path: PathBuf, connection: Connection) -> Journal {
        let file = place::identity(&path);
        let connection = RefCell::new(connection);
        Journal { path, connection, news: Vec::new(), file, is_kept_waiting: Cell::new(false) }
    }

    /// What opening it did that a person has to know, one line each.
    pub fn news(&self) -> &[String] {
        &self.news
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one record; when this returns it is on the disk. A `*.start` or `*.begin` opens its run or effect, a
    /// `*.end` closes it, in the same transaction.
    pub fn append(&self, record: &Record<'_>) -> Result<i64> {
        self.append_late(Entry::draft(record))
    }

    /// As [`Journal::append`], for a draft that could not be written before.
    pub fn append_late(&self, draft: Entry) -> Result<i64> {
        self.check_place()?;
        self.write(draft, true).map(Option::unwrap_or_default).map_err(|error| unwritable(&self.path, words(&error)))
    }

    /// Writes all of these or none.
    pub fn append_together(&self, drafts: Vec<Entry>) -> Result<()> {
        self.check_place()?;
        let put = |transaction: &Connection| {
            let put = |draft| entry::put(transaction, draft, &clock::Process::this(), true).map(drop);
            drafts.into_iter().try_for_each(put)
        };
        self.in_transaction(put).map_err(|error| unwritable(&self.path, words(&error)))
    }

    /// What is written to a file that was moved or removed is found by nobody.
    fn check_place(&self) -> Result<()> {
        if place::identity(&self.path) == self.file {
            return Ok(());
        }
        Err(unwritable(&self.path, "it was moved or removed while this opsh runs".into()))
    }

    /// `late`: an end that comes after another one is written as late; else it is not written.
    fn write(&self, entry: Entry, late: bool) -> rusqlite::Result<Option<i64>> {
        self.in_transaction(|transaction| entry::put(transaction, entry, &clock::Process::this(), late))
    }

    fn in_transaction<T>(&self, put: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let written = self.write_now(put);
        let code = written.as_ref().err().and_then(rusqlite::Error::sqlite_error_code);
        let waits = code == Some(ErrorCode::DatabaseBusy);
        if self.is_kept_waiting.replace(waits) != waits {
            self.connection.borrow().busy_timeout(if waits { IMPATIENCE } else { PATIENCE })?;
        }
        written
    }

    fn write_now<T>(&self, put: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let mut connection = self.connection.borrow_mut();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = put(&transaction)?;
        transaction.commit()?;
        Ok(value)
    }

    /// Runs and effects of processes that are gone get their end: `killed` and `unknown`. Two that start at once find
    /// the same ones; the second finds them ended when its turn comes. What cannot be ended now is left to the next
    /// opsh; only a broken journal is an error.
    fn end_what_died(&self) -> rusqlite::Result<()> {
        for (id, what, process) in self.open_ones()? {
            if process.may_live() {
                continue;
            }
            let run = id.split('.').next().unwrap_or(&id).to_string();
            let why = "opsh ended before the outcome was known";
            let (kind, effect, outcome) =
                if what == "run" { ("run.end", None, "killed") } else { ("effect.end", Some(id.as_str()), "unknown") };
            let body = json!({ "outcome": outcome, "why": why });
            let record = Record { kind, run: &run, effect, target: None, class: None, body };
            match self.write(Entry::draft(&record), false) {
                Err(error) if is_broken(&error) => return Err(error),
                Err(_) => return Ok(()),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    fn open_ones(&self) -> rusqlite::Result<Vec<(String, String, clock::Process)>> {
        let connection = self.connection.borrow();
        let mut statement = connection.prepare("SELECT id, what, pid, start, boot FROM open ORDER BY what, seq")?;
        let rows = statement.query_map([], |row| {
            let process = clock::Process { pid: row.get(2)?, start: row.get(3)?, boot: row.get(4)? };
            Ok((row.get(0)?, row.get(1)?, process))
        })?;
        rows.collect()
    }
}

/// Opening waits for other programs as long as a record does. While one of them makes the file, or puts it in order
/// after a crash, SQLite says that it is busy without having waited.
#[expect(clippy::disallowed_methods, reason = "it stands for the waiting of SQLite, which knows no Ctrl-C either")]
fn patiently<T>(mut open: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let began = std::time::Instant::now();
    loop {
        match open() {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && began.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened,
        }
    }
}

/// True when SQLite itself says that the file is damaged or no database.
fn is_broken(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

/// What went wrong, as a person says it.
fn words(error: &rusqlite::Error) -> String {
    let extended = error.sqlite_error().map_or(0, |error| error.extended_code);
    match error.sqlite_error_code() {
        // Where there is no room for the memory that its writers share, SQLite speaks of I/O.
        _ if extended == rusqlite::ffi::SQLITE_IOERR_SHMSIZE => "the disk is full".into(),
        Some(ErrorCode::DiskFull) => "the disk is full".into(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program has kept its lock for 5 s or more".into()
        }
        Some(ErrorCode::ReadOnly) => "it can only be read".into(),
        Some(ErrorCode::NotADatabase) => "it is not a database".into(),
        _ => error.to_string(),
    }
}

fn unwritable(path: &Path, why: String) -> Error {
    Error::new(Kind::Journal, format!("journal {} cannot be written", path.display()), why)
        .next("opsh --state-dir DIR …     keep the record in another folder")
}

/// The person, as the environment names them.
#[expect(clippy::disallowed_methods, reason = "who acts is part of every record")]
pub fn actor() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_else(|| format!("uid {}", place::user()))
}

/// The person and the machine, for colleagues: `alice@laptop`.
pub fn actor_here() -> String {
    match clock::machine() {
        machine if machine.is_empty() => actor(),
        machine => format!("{}@{machine}", actor()),
    }
}

#[cfg(test)]
mod tests;

//! Spill files: where a run's records go while the journal cannot be written, and how they come into it.
//!
//! One file per run, JSON lines, each holding the digest of the line before it, on the disk before the change starts.
//! Its opsh holds a lock on it while the run goes on. The next opsh with a good journal appends its records to that
//! journal, each marked with `spilled`, in one transaction, and removes it.

use super::entry::{Entry, hex, put};
use super::{Journal, Record, clock, place, words};
use crate::error::{Error, Kind};
use crate::whole::{self, Link};
use rusqlite::{Connection, TransactionBehavior, params};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Newest format of a spill file that this opsh understands; its first line says which one it has.
const FORMAT: u64 = 1;

/// The spill file that a run's records go to.
pub struct Spill {
    path: PathBuf,
    file: File,
    length: u64,
    seq: i64,
    prev: String,
}

impl Spill {
    /// The `n`th spill file of `run`, in the first place that can be written; `why` is what is wrong with the journal
    /// of `state_dir`. Fails with each place and what is wrong with it.
    pub fn create(state_dir: &Path, run: &str, n: u32, why: &str) -> Result<Spill, String> {
        let this = clock::Process::this();
        let body = json!({
            "format": FORMAT, "journal": state_dir.join("journal.db"), "why": why, "pid": this.pid, "start": this.start, "boot": this.boot,
        });
        let head = Entry::draft(&Record { kind: "spill.begin", run, effect: None, target: None, class: None, body });
        let mut refused = Vec::new();
        for dir in places(state_dir) {
            match begin(&dir, &format!("{run}.{n}.jsonl"), &head) {
                Ok(spill) => return Ok(spill),
                Err(error) => refused.push(format!("{}: {error}", dir.display())),
            }
        }
        Err(refused.join("; "))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds one record; when this returns it is on the disk. A line that was written by half is taken back.
    pub fn append(&mut self, entry: &Entry) -> std::io::Result<()> {
        let line = line(entry, self.seq + 1, &self.prev);
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        if written.is_err() {
            // If this fails as well, the half line is the last one, which an import passes over.
            let _ = self.file.set_len(self.length);
        }
        written?;
        self.length += line.len() as u64;
        self.seq += 1;
        self.prev = digest(&line);
        Ok(())
    }

    /// Takes it away again: nobody agreed to it.
    #[expect(clippy::disallowed_methods, reason = "the spill file that this process just made")]
    pub fn discard(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Under another name until it is locked and begun: an importer never sees a file whose owner it cannot tell.
#[expect(clippy::disallowed_methods, reason = "opsh's own file, in the journal's place")]
fn begin(dir: &Path, name: &str, head: &Entry) -> std::io::Result<Spill> {
    make_place(dir)?;
    let new = dir.join(format!(".new-{name}"));
    let path = dir.join(name);
    let file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(&new)?;
    let mut spill = Spill { path, file, length: 0, seq: 0, prev: digest("") };
    let begun = spill.file.lock().and_then(|()| spill.append(head));
    let named = begun.and_then(|()| std::fs::hard_link(&new, &spill.path));
    std::fs::remove_file(&new)?;
    named?;
    // The name has to be on the disk as well.
    File::open(dir)?.sync_all()?;
    Ok(spill)
}

fn line(entry: &Entry, seq: i64, prev: &str) -> String {
    let line = json!({
        "seq": seq, "kind": entry.kind, "at_us": entry.at_us, "mono_us": entry.mono_us, "boot": entry.boot,
        "actor": entry.actor, "run": entry.run, "effect": entry.effect, "target": entry.target, "class": entry.class,
        "body": entry.body, "prev": prev,
    });
    format!("{line}\n")
}

fn digest(line: &str) -> String {
    hex(&Sha256::digest(line.as_bytes()))
}

/// Folders for spill files, best first: gone with the login, gone with the machine's start, beside the journal.
#[expect(clippy::disallowed_methods, reason = "where this machine keeps what does not last")]
fn places(state_dir: &Path) -> Vec<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let runtime = set("XDG_RUNTIME_DIR").map(|dir| dir.join("opsh-spill"));
    let temporary = set("TMPDIR").unwrap_or_else(|| "/tmp".into()).join(format!("opsh-spill-{}", place::user()));
    // What is in a folder that others may write to can be theirs.
    let beside = place::check_private(state_dir).is_ok().then(|| state_dir.join("spill"));
    runtime.into_iter().chain([temporary]).chain(beside).collect()
}

#[expect(clippy::disallowed_methods, reason = "opsh's own folder, in the journal's place")]
fn make_place(dir: &Path) -> std::io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ if is_private(dir) => Ok(()),
        _ => Err(std::io::Error::other("it is not a folder of this user's alone")),
    }
}

/// In a folder where everybody may write, the name can be anybody's, and can be a link.
fn is_private(dir: &Path) -> bool {
    let meta = std::fs::symlink_metadata(dir);
    meta.is_ok_and(|meta| meta.is_dir() && meta.uid() == place::user() && meta.mode() & 0o077 == 0)
}

/// A spill file that nobody writes to any more, and what could be read of it.
struct Spilled {
    path: PathBuf,
    /// Holds the lock.
    _file: File,
    journal: PathBuf,
    /// Of an opsh that wrote no number: 1.
    format: u64,
    process: clock::Process,
    entries: Vec<Entry>,
    /// The last line was written by half.
    torn: bool,
    /// The line from which on nothing can be trusted, and why.
    bad: Option<String>,
}

/// Spill files in the order of their runs.
fn files(state_dir: &Path) -> Vec<PathBuf> {
    let dirs = places(state_dir).into_iter().filter(|dir| is_private(dir));
    let entries = dirs.filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries.filter(|path| is_spill(path)).collect();
    found.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    found
}

fn is_spill(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    name.ends_with(".jsonl") && !name.starts_with('.')
}

/// Bytes within which the first record ends.
const LONGEST_HEAD: u64 = 64 << 10;

/// Opens, locks and reads one; nothing when its run goes on, or another opsh is at it.
fn take(path: &Path) -> Option<Spilled> {
    let mut file = whole::open(path, Link::Refused).ok()?;
    file.try_lock().ok()?;
    // Any file may have been named: it is not read whole to find that out.
    let mut text = Vec::new();
    std::io::Read::take(&mut file, LONGEST_HEAD).read_to_end(&mut text).ok()?;
    let head: Value = serde_json::from_slice(text.split(|byte| *byte == b'\n').next()?).ok()?;
    if head["kind"] != "spill.begin" {
        return None;
    }
    file.read_to_end(&mut text).ok()?;
    let (entries, torn, bad) = entries(&String::from_utf8_lossy(&text));
    let head = &entries.first()?.body;
    let number = |key: &str| head[key].as_i64().unwrap_or(0);
    let boot = head["boot"].as_str().unwrap_or("").to_string();
    let journal = PathBuf::from(head["journal"].as_str()?);
    let process = clock::Process { pid: number("pid"), start: number("start"), boot };
    let format = head["format"].as_u64().unwrap_or(1);
    Some(Spilled { path: path.into(), _file: file, journal, format, process, entries, torn, bad })
}

fn entries(text: &str) -> (Vec<Entry>, bool, Option<String>) {
    let (mut entries, mut prev, mut torn) = (Vec::new(), digest(""), false);
    for line in text.split_inclusive('\n') {
        let seq = entries.len() as i64 + 1;
        match parse(line, seq, &prev) {
            Some(entry) => entries.push(entry),
            None if !line.ends_with('\n') => torn = true,
            None => return (entries, false, Some(format!("line {seq} is not as it was written"))),
        }
        prev = digest(line);
    }
    (entries, torn, None)
}

fn parse(line: &str, seq: i64, prev: &str) -> Option<Entry> {
    let value: Value = serde_json::from_str(line.strip_suffix('\n')?).ok()?;
    let text = |key: &str| value[key].as_str().map(String::from);
    if value["seq"] != seq || value["prev"] != prev || !value["body"].is_object() {
        return None;
    }
    Some(Entry {
        seq,
        kind: text("kind")?,
        at_us: value["at_us"].as_i64()?,
        mono_us: value["mono_us"].as_i64()?,
        boot: text("boot")?,
        actor: text("actor")?,
        run: text("run")?,
        effect: text("effect"),
        target: text("target"),
        class: text("class"),
        body: value["body"].clone(),
        body_text: String::new(),
        prev: Vec::new(),
        hash: Vec::new(),
    })
}

impl Journal {
    /// Brings in what other runs spilled because this journal could not be written, and returns what to say about it. A file
    /// that cannot be brought in now stays for the next one, and so does one of a journal whose folder is not there now: it
    /// may come back, with a disk or a key. Only a broken journal is an error.
    pub(super) fn import(&self, state_dir: &Path) -> rusqlite::Result<Vec<String>> {
        let mut news = Vec::new();
        for path in files(state_dir) {
            let Some(spilled) = take(&path) else { continue };
            if !self.is_for(&spilled.journal) {
                news.extend(left_alone(&spilled));
                continue;
            }
            if spilled.format > FORMAT {
                news.push(format!("{} stays for a newer opsh: {}", path.display(), too_new(&spilled)));
                continue;
            }
            match self.bring_in(&spilled) {
                Ok(line) => news.extend(line),
                Err(error) if super::is_broken(&error) => return Err(error),
                Err(error) => news.push(format!("{} stays for the next opsh: {}", path.display(), words(&error))),
            }
        }
        Ok(news)
    }

    /// Brings in one spill file, whatever journal it was for; returns what to say about it. Fails with `usage` for another
    /// file, with `unmet` for one of a run that goes on or of a newer opsh, and with `journal` when it cannot be written.
    pub fn import_file(&self, path: &Path) -> Result<String, Error> {
        let fail = |kind, why: String| Error::new(kind, format!("{} was not imported", path.display()), why);
        let file = whole::open(path, Link::Refused).map_err(|error| fail(Kind::Usage, error.to_string()))?;
        if file.try_lock().is_err() {
            return Err(fail(Kind::Unmet, "an opsh still writes to it, or reads it now".into()));
        }
        drop(file);
        let spilled = take(path).ok_or_else(|| fail(Kind::Usage, "it is not a spill file".into()))?;
        if spilled.format > FORMAT {
            return Err(fail(Kind::Unmet, too_new(&spilled)));
        }
        let said = self.bring_in(&spilled).map_err(|error| fail(Kind::Journal, words(&error)))?;
        Ok(said.unwrap_or_else(|| format!("the records of {} were in the journal already", path.display())))
    }

    /// A spill belongs to the journal that could not be written, by whatever path its folder is reached now.
    fn is_for(&self, journal: &Path) -> bool {
        let folder = |path: &Path| path.parent().and_then(|dir| std::fs::canonicalize(dir).ok());
        journal == self.path || folder(journal).is_some_and(|of_spill| Some(of_spill) == folder(&self.path))
    }

    fn bring_in(&self, spilled: &Spilled) -> rusqlite::Result<Option<String>> {
        let from = spilled.path.display().to_string();
        let count = spilled.entries.len();
        {
            let mut connection = self.connection.borrow_mut();
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let run = spilled.entries[0].run.as_str();
            let known = "SELECT EXISTS (SELECT 1 FROM journal WHERE run = ?1 AND kind = 'spill.imported'
                         AND json_extract(body, '$.from') = ?2)";
            // Committed by an opsh that could not remove the file.
            if transaction.query_row(known, params![run, from], |row| row.get(0))? {
                remove(spilled);
                return Ok(None);
            }
            for entry in &spilled.entries {
                put(&transaction, marked(&transaction, entry, &from)?, &spilled.process, true)?;
            }
            let body = json!({ "from": from, "records": count, "torn": spilled.torn, "bad": spilled.bad });
            let record = Record { kind: "spill.imported", run, effect: None, target: None, class: None, body };
            put(&transaction, Entry::draft(&record), &spilled.process, true)?;
            transaction.commit()?;
        }
        remove(spilled);
        let torn = if spilled.torn { "; its last line was written by half" } else { "" };
        let bad =
            spilled.bad.as_ref().map_or(String::new(), |why| format!("; {why}: the rest is kept in {from}.broken"));
        Ok(Some(format!("{count} records of {from} are now in the journal{torn}{bad}")))
    }
}

/// What is said about a spill file of another journal, when no opsh will bring it in by itself: that one's folder is not there
/// now, or SQLite cannot be used in it.
fn left_alone(spilled: &Spilled) -> Option<String> {
    let dir = spilled.journal.parent().unwrap_or(&spilled.journal);
    let why = match place::network(dir) {
        Some(kind) => format!("is on a network file system ({kind})"),
        None if !dir.exists() => "is not there now".into(),
        None => return None,
    };
    let (path, dir) = (spilled.path.display(), dir.display());
    Some(format!(
        "{path} has records of a run whose journal was to be in {dir}, which {why}; it is kept.\n  opsh journal import {path}     \
         brings them into this journal instead"
    ))
}

fn too_new(spilled: &Spilled) -> String {
    let (format, version) = (spilled.format, env!("CARGO_PKG_VERSION"));
    format!("a newer opsh wrote it (format {format}; this opsh, {version}, knows {FORMAT})")
}

/// The record as it goes into the journal: its own time and place in `spilled`. A begin that reached the journal after
/// all is not a second one.
fn marked(connection: &Connection, entry: &Entry, from: &str) -> rusqlite::Result<Entry> {
    let mut entry = entry.clone();
    entry.body["spilled"] =
        json!({ "at_us": entry.at_us, "mono_us": entry.mono_us, "boot": entry.boot, "from": from, "seq": entry.seq });
    if matches!(entry.kind.as_str(), "run.start" | "effect.begin") {
        let known = "SELECT EXISTS (SELECT 1 FROM journal WHERE run = ?1 AND kind = ?2 AND effect IS ?3)";
        if connection.query_row(known, params![entry.run, entry.kind, entry.effect], |row| row.get(0))? {
            entry.kind.push_str(".again");
        }
    }
    Ok(entry)
}

/// What was brought in goes; what could not be read in full is kept under another name. Should this fail, the journal
/// knows the file.
#[expect(clippy::disallowed_methods, reason = "opsh's own file, whose records are in the journal")]
fn remove(spilled: &Spilled) {
    let _ = match spilled.bad {
        None => std::fs::remove_file(&spilled.path),
        Some(_) => std::fs::rename(&spilled.path, format!("{}.broken", spilled.path.display())),
    };
}

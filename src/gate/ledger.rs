//! Where the records of a run go: to the journal; when it cannot be written and somebody agrees, to a spill file.
//!
//! No record, no change: [`Ledger::begin`] returns only when the record is on a disk. Reads go on unrecorded, and that
//! is said in red. What has happened already is spilled without asking.

use super::journal::{Entry, Journal, Record, Spill};
use crate::error::{Error, Kind, Result};
use crate::screen::Screen;
use serde_json::json;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The journal, or what stands in for it.
pub struct Ledger {
    dir: PathBuf,
    journal: Result<Journal>,
    /// `--spill`: agreed beforehand.
    agreed: bool,
    screen: Rc<Screen>,
    run: RefCell<Run>,
}

/// Where the records of one run go.
#[derive(Default)]
pub(super) struct Run {
    /// Where its records go from now on.
    spill: Option<Spill>,
    /// Why they go there.
    broken: Option<Error>,
    /// Spill files so far.
    spills: u32,
    /// Notes that could not be written, for a spill file or a journal that takes records again.
    missed: Vec<Entry>,
    /// Its start is on a disk.
    recorded: bool,
    /// That something is not recorded was said.
    warned: bool,
    /// The answer to the one question.
    answer: Option<bool>,
}

impl Ledger {
    /// Opens the journal of `dir`, and says what was found there. A journal that cannot be opened makes reads go
    /// unrecorded; `agreed` says that changes may then be recorded into a spill file without a question.
    pub fn open(dir: &Path, agreed: bool, screen: &Rc<Screen>) -> Ledger {
        Ledger::at(dir, agreed, true, screen)
    }

    /// For a replay that is recorded: what other runs spilled happened, and is no part of it.
    pub fn of_replay(dir: &Path, screen: &Rc<Screen>) -> Ledger {
        Ledger::at(dir, false, false, screen)
    }

    fn at(dir: &Path, agreed: bool, imports: bool, screen: &Rc<Screen>) -> Ledger {
        let journal = Journal::open_or_begin_anew(dir, imports);
        for line in journal.iter().flat_map(Journal::news) {
            screen.alarm(line);
        }
        Ledger { dir: dir.into(), journal, agreed, screen: Rc::clone(screen), run: RefCell::default() }
    }

    /// For a replay: the record of what did not happen is gone with the program.
    pub fn in_memory(screen: &Rc<Screen>) -> Ledger {
        let (dir, screen) = (PathBuf::new(), Rc::clone(screen));
        Ledger { dir, journal: Journal::in_memory(), agreed: false, screen, run: RefCell::default() }
    }

    /// The journal, or why there is none.
    pub fn journal(&self) -> Result<&Journal> {
        self.journal.as_ref().map_err(Error::clone)
    }

    /// Another run is begun while this one waits.
    pub(super) fn set_aside(&self) -> Run {
        self.run.take()
    }

    /// Goes on with it; what the journal did not take of the other one is kept still.
    pub(super) fn take_up(&self, aside: Run) {
        let inner = self.run.replace(aside);
        let run = &mut *self.run.borrow_mut();
        let spilled = |entry: &Entry| run.spill.as_mut().is_some_and(|spill| spill.append(entry).is_ok());
        run.missed.extend(inner.missed.into_iter().skip_while(spilled));
    }

    /// Writes a record that is no change. One that cannot be written is kept until the journal takes records again, or
    /// for the spill file of this run, should there be one; the end of a recorded run is spilled. `run.start` begins a new run, with its own question.
    pub fn note(&self, record: &Record<'_>) {
        if record.kind == "run.start" {
            *self.run.borrow_mut() = Run::default();
        }
        let Err(error) = self.write(record) else { return };
        let recorded = self.run.borrow().recorded;
        if record.kind == "run.end" && recorded && self.spill(record, &error).is_ok() {
            return;
        }
        self.run.borrow_mut().missed.push(Entry::draft(record));
        self.unrecorded(&error);
    }

    /// Writes what is about to be done. When the journal cannot, this run is recorded in a spill file if a person at
    /// the terminal agrees, once per run, or agreed beforehand; else this is an error and nothing may be done.
    pub fn begin(&self, record: &Record<'_>) -> Result<()> {
        let answer = self.run.borrow().answer.or(self.agreed.then_some(true));
        // A spill file that was begun for what had happened already is no leave to go on.
        let broken = self.run.borrow().broken.clone().filter(|_| answer != Some(true));
        let Some(error) = broken.or_else(|| self.write(record).err()) else { return Ok(()) };
        match answer {
            Some(true) => self.spill(record, &error),
            Some(false) => Err(refused(&error, "the answer was no")),
            None => self.ask(record, &error),
        }
    }

    /// Writes what became of a change that was begun: into a spill file if it must be, without asking.
    pub fn end(&self, record: &Record<'_>) -> Result<()> {
        self.write(record).or_else(|error| self.spill(record, &error))
    }

    /// Writes what was read; its loss is said.
    pub fn read(&self, record: &Record<'_>) {
        if let Err(error) = self.write(record) {
            self.unrecorded(&error);
        }
    }

    /// True when records go to the journal, and none is missing there.
    pub fn is_whole(&self) -> bool {
        let run = self.run.borrow();
        self.journal.is_ok() && run.spill.is_none() && run.missed.is_empty()
    }

    /// Writes what was read beside the run, together; its loss is said.
    pub fn read_beside(&self, drafts: Vec<Entry>) {
        if let Err(error) = self.journal().and_then(|journal| journal.append_together(drafts)) {
            self.unrecorded(&error);
        }
    }

    fn write(&self, record: &Record<'_>) -> Result<()> {
        let mut run = self.run.borrow_mut();
        match &mut run.spill {
            Some(spill) => {
                let path = spill.path().display().to_string();
                spill.append(&Entry::draft(record)).map_err(|error| unwritable(&path, error.to_string()))?;
            }
            None => {
                let journal = self.journal()?;
                // What it did not take before comes first: nobody would find a change of a run without its start.
                while let Some(entry) = run.missed.first().cloned() {
                    let is_start = entry.kind == "run.start";
                    journal.append_late(entry)?;
                    run.missed.remove(0);
                    run.recorded |= is_start;
                }
                journal.append(record)?;
            }
        }
        run.recorded |= record.kind == "run.start";
        Ok(())
    }

    fn ask(&self, record: &Record<'_>, error: &Error) -> Result<()> {
        if !self.screen.options().terminal {
            return Err(refused(error, "there is no terminal to ask at, and --spill was not given")
                .next("opsh --spill …     record the run in a spill file until the journal can be written"));
        }
        let begun = self.run.borrow_mut().spill.take();
        let is_begun = begun.is_some();
        let spill = begun.map_or_else(|| self.create(record, error), Ok)?;
        let answer = self.agrees(&spill, error);
        if answer.is_ok() {
            return self.turn_to(spill, record, error, "person at the terminal");
        }
        match is_begun {
            true => self.run.borrow_mut().spill = Some(spill),
            false => spill.discard(),
        }
        answer
    }

    /// The one question of a run.
    fn agrees(&self, spill: &Spill, error: &Error) -> Result<()> {
        let path = spill.path().display();
        let answer = self.screen.ask(&format!(
            "The journal cannot be written ({}). Record this run in the spill file {path} instead? y, or Enter to stop:",
            error.why
        ));
        let agreed = matches!(answer.as_deref().map(str::trim), Some("y" | "yes"));
        self.run.borrow_mut().answer = Some(agreed);
        match agreed {
            true => Ok(()),
            false if crate::interrupt::is_interrupted() => {
                Err(Error { kind: Kind::Interrupted, ..refused(error, "Ctrl-C at the question") })
            }
            false => Err(refused(error, "the answer was no")),
        }
    }

    fn spill(&self, record: &Record<'_>, error: &Error) -> Result<()> {
        let by = match self.run.borrow().answer {
            Some(true) => "person at the terminal",
            _ if self.agreed => "--spill",
            _ => "nobody was asked: it had happened",
        };
        self.turn_to(self.create(record, error)?, record, error, by)
    }

    fn create(&self, record: &Record<'_>, error: &Error) -> Result<Spill> {
        let n = self.run.borrow().spills + 1;
        Spill::create(&self.dir, record.run, n, &error.why).map_err(|places| Error {
            why: format!("{}; and there is no place for a spill file: {places}", error.why),
            ..error.clone()
        })
    }

    /// All records of this run go to `spill` from now on, after those that the journal did not take.
    fn turn_to(&self, mut spill: Spill, record: &Record<'_>, error: &Error, by: &str) -> Result<()> {
        let path = spill.path().display().to_string();
        let agreed = Record { kind: "spill.agreed", effect: None, target: None, class: None, ..record.clone() };
        let agreed = Record { body: json!({ "by": by }), ..agreed };
        let mut run = self.run.borrow_mut();
        let now = [Entry::draft(&agreed), Entry::draft(record)];
        let written = run.missed.iter().chain(&now).try_for_each(|entry| spill.append(entry));
        written.map_err(|error| unwritable(&path, error.to_string()))?;
        run.missed.clear();
        (run.spill, run.broken) = (Some(spill), Some(error.clone()));
        (run.spills, run.recorded) = (run.spills + 1, true);
        drop(run);
        self.screen
            .alarm(&format!("recorded in {path}, not in the journal: the next opsh that can write it brings it in"));
        Ok(())
    }

    fn unrecorded(&self, error: &Error) {
        let warned = std::mem::replace(&mut self.run.borrow_mut().warned, true);
        if !warned {
            self.screen.alarm(&format!("NOT RECORDED: {error}. Reads go on; a change is not done without a record."));
        }
    }
}

fn refused(error: &Error, why: &str) -> Error {
    Error { why: format!("{}: {}; {why}", error.what, error.why), ..error.clone() }
}

fn unwritable(path: &str, why: String) -> Error {
    Error::new(Kind::Journal, format!("spill file {path} cannot be written"), why)
        .next("opsh --state-dir DIR …     keep the record in another folder")
}

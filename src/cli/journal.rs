//! `opsh journal`: list, show, settle, verify, import, export, prune.

use super::working_dir;
use crate::error::{Error, Kind, Result};
use crate::gate::clock;
use crate::gate::journal::{Journal, Prunable, RunLine, export};
use crate::screen::Screen;
use crate::session::record;
use clap::Subcommand;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Subcommand, Debug)]
pub enum Command {
    /// The newest runs
    List {
        /// How many
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// What one run did, in order: changes, consent, and what failed
    Show {
        /// Run id, the beginning or end of one, or `last`
        run: String,
        /// The looks that succeeded too
        #[arg(long)]
        all: bool,
    },
    /// Say what became of a run's changes that may have happened, after looking
    Settle {
        /// Run id, the beginning or end of one, or `last`
        run: String,
        /// What was seen, for the record
        saw: String,
    },
    /// Check every record against the chain
    Verify,
    /// Bring the records of a spill file, meant for another journal, into this one
    Import {
        /// The spill file
        file: PathBuf,
    },
    /// Every record of one run as JSON lines
    Export {
        /// Run id, the beginning or end of one, or `last`
        run: String,
    },
    /// Remove old records, after exporting them to a file
    Prune {
        /// A time such as 2026-10-01T06:00:00Z, a date such as 2026-10-01, or an age such as 90d
        #[arg(long, value_name = "DATE|AGE")]
        before: String,
        /// The file to export to, instead of pruned-FROM-TO.jsonl beside the journal
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
        /// Agree beforehand
        #[arg(long)]
        yes: bool,
    },
}

pub fn run(command: Command, state_dir: &Path, screen: &Screen) -> Result<()> {
    let journal = open(state_dir, screen)?;
    match command {
        Command::List { limit } => list(&journal.runs(limit)?, screen),
        Command::Show { run, all } => record::show(&journal.run(&run)?, all, screen),
        Command::Settle { run, saw } => record::settle(&journal, &run, &saw, screen)?,
        Command::Verify => verify(&journal, screen)?,
        Command::Import { file } => screen.print(&journal.import_file(&working_dir().join(file))?),
        Command::Export { run } => {
            export::lines(&journal.run(&run)?).iter().for_each(|line| screen.record(line));
        }
        Command::Prune { before, to, yes } => prune(&journal, state_dir, &before, to, yes, screen)?,
    }
    Ok(())
}

impl Command {
    /// The words of a command that changes the journal.
    pub fn changes(&self) -> Option<&'static str> {
        match self {
            Command::Settle { .. } => Some("journal settle"),
            Command::Prune { .. } => Some("journal prune"),
            Command::Import { .. } => Some("journal import"),
            Command::List { .. } | Command::Show { .. } | Command::Verify | Command::Export { .. } => None,
        }
    }

    /// The run that this settles, and what was seen.
    pub fn settles(&self) -> Option<(String, String)> {
        match self {
            Command::Settle { run, saw } => Some((run.clone(), saw.clone())),
            _ => None,
        }
    }
}

/// The journal; one that cannot be written is looked at all the same, and that is said. What is damaged stays where it
/// is: it is the evidence that these commands are asked for.
pub fn open(state_dir: &Path, screen: &Screen) -> Result<Journal> {
    let error = match Journal::open(state_dir) {
        Ok(journal) => {
            journal.news().iter().for_each(|line| screen.alarm(line));
            return Ok(journal);
        }
        Err(error) => error,
    };
    let journal = Journal::look(state_dir).map_err(|_| error.clone())?;
    screen.alarm(&format!("{error}. This is what can be read of it."));
    Ok(journal)
}

fn prune(
    journal: &Journal,
    state_dir: &Path,
    before: &str,
    to: Option<PathBuf>,
    yes: bool,
    screen: &Screen,
) -> Result<()> {
    let before_us = clock::parse_before(before).ok_or_else(|| {
        Error::new(Kind::Usage, format!("--before {before} is no time"), "neither a date nor an age in days or hours")
            .next("opsh journal prune --before 90d     what is older than 90 days")
    })?;
    let found = journal.prunable(before_us)?;
    if let Some(run) = &found.held_by {
        screen.say(&format!("run {run} keeps the rest: it goes on, may have happened, or reaches further"));
    }
    let Prunable { from, to: last, records, runs, .. } = &found;
    if *records == 0 {
        screen.print("nothing that old may go");
        return Ok(());
    }
    let to = to.unwrap_or_else(|| state_dir.join(format!("pruned-{from}-{last}.jsonl")));
    let before = screen.time(before_us);
    screen.say(&format!(
        "{records} records of {runs} runs before {before}, {from} to {last}; exported to {}",
        to.display()
    ));
    if !yes {
        agree(screen)?;
    }
    journal.prune(before_us, &found, &to)?;
    screen.print(&format!("pruned {records} records of {runs} runs; they are in {}", to.display()));
    Ok(())
}

fn agree(screen: &Screen) -> Result<()> {
    let why = if screen.options().terminal {
        match screen.ask("Remove them from the journal? y, or Enter to stop:").as_deref().map(str::trim) {
            Some("y" | "yes") => return Ok(()),
            _ => "the answer was no",
        }
    } else {
        "there is no terminal to ask at, and --yes was not given"
    };
    Err(Error::new(Kind::Refused, "nothing was pruned", why)
        .next("opsh journal prune --before … --yes     agree to it beforehand"))
}

fn list(runs: &[RunLine], screen: &Screen) {
    if screen.options().json {
        return runs.iter().for_each(|run| screen.value(&run_json(run)));
    }
    if runs.is_empty() {
        return screen.print("no runs yet");
    }
    let row = |run: &RunLine| {
        let open = if run.unknown > 0 { format!(", {} may have happened", run.unknown) } else { String::new() };
        let outcome = format!("{}{open}", run.outcome);
        vec![
            run.run.clone(),
            screen.time(run.at_us),
            outcome,
            run.changes.to_string(),
            run.mode.clone(),
            run.what.clone(),
        ]
    };
    screen.table(&["run", "when", "outcome", "changes", "mode", "what"], runs.iter().map(row).collect());
}

fn run_json(run: &RunLine) -> Value {
    json!({ "run": run.run, "at": clock::rfc3339(run.at_us), "outcome": run.outcome, "what": run.what,
            "mode": run.mode, "changes": run.changes, "unknown": run.unknown, "actor": run.actor })
}

fn verify(journal: &Journal, screen: &Screen) -> Result<()> {
    let found = journal.verify()?;
    let open = if found.open > 0 { format!(", {} of them going on", found.open) } else { String::new() };
    let pruned = if found.pruned > 0 { format!(", after {} that were pruned", found.pruned) } else { String::new() };
    screen.print(&format!("{} records, {} changes{open}{pruned}: the chain is whole", found.records, found.effects));
    Ok(())
}

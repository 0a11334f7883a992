//! `/app/migrate`: the schema tool, with the habits of the real one, good and bad.
//!
//! * The ledger is one row per applied version; there is no lock and no "dirty" mark.
//! * It knows only the files of its own image. Applied versions without a file here are neither shown nor
//!   undone: `down` takes the newest applied one *it knows*.
//! * `-steps=0`, the default, means all of them, for `down` too.
//! * A missing `.down.sql` is empty SQL: nothing is undone and the row goes away.
//! * Even `status` creates the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use postgres::Client;

use crate::{db, flags, log};

const FILES: &str = "/app/migrations";
const SLEEP_FILE: &str = "/app/migrate-sleep";
const LEDGER: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (
    version INT PRIMARY KEY, applied_at TIMESTAMPTZ NOT NULL DEFAULT now())";

struct Migration {
    name: String,
    up: PathBuf,
    down: PathBuf,
}

pub fn main(program: &str, words: &[String]) -> i32 {
    let flags = match flags::parse(words) {
        Ok(f) => f,
        Err(stop) => {
            let code = if let flags::Stop::Wrong(why) = &stop {
                eprintln!("{why}");
                2
            } else {
                0
            };
            eprint!("{}", flags::usage(program));
            return code;
        }
    };
    match run(&flags) {
        Ok(()) => 0,
        Err(e) => {
            log::line(&format!("Migration {} failed: {e}", flags.action));
            1
        }
    }
}

fn run(flags: &flags::Flags) -> Result<(), String> {
    let mut client = db::connect().map_err(|e| format!("failed to connect to database: {e}"))?;
    client.batch_execute(LEDGER).map_err(|e| format!("failed to create schema_migrations: {}", db::text(e)))?;
    let files = read_files(Path::new(FILES))?;
    let rows = client.query("SELECT version FROM schema_migrations", &[]).map_err(db::text)?;
    let applied: BTreeSet<i32> = rows.iter().map(|r| r.get(0)).collect();
    match flags.action.as_str() {
        "up" => up(&mut client, &files, &applied, flags.steps),
        "down" => down(&mut client, &files, &applied, flags.steps),
        "status" => {
            for (version, m) in &files {
                println!("[{}] {version:03}: {}", if applied.contains(version) { "✓" } else { " " }, m.name);
            }
            Ok(())
        }
        other => Err(format!("unknown action: {other}")),
    }
}

fn up(
    client: &mut Client,
    files: &BTreeMap<i32, Migration>,
    applied: &BTreeSet<i32>,
    steps: i64,
) -> Result<(), String> {
    let pending = files.iter().filter(|(v, _)| !applied.contains(v));
    let mut done = 0;
    for (version, m) in pending.take(limit(steps)) {
        log::line(&format!("Applying migration {version:03}: {}", m.name));
        let sql = std::fs::read_to_string(&m.up).map_err(|e| format!("{}: {e}", m.up.display()))?;
        step(client, &sql, "INSERT INTO schema_migrations (version) VALUES ($1)", *version)
            .map_err(|e| format!("migration {version:03}: {e}"))?;
        done += 1;
    }
    log::line(&format!("{done} migration(s) applied"));
    Ok(())
}

fn down(
    client: &mut Client,
    files: &BTreeMap<i32, Migration>,
    applied: &BTreeSet<i32>,
    steps: i64,
) -> Result<(), String> {
    let known = files.iter().rev().filter(|(v, _)| applied.contains(v));
    let mut done = 0;
    for (version, m) in known.take(limit(steps)) {
        log::line(&format!("Rolling back migration {version:03}: {}", m.name));
        let sql = std::fs::read_to_string(&m.down).unwrap_or_default();
        step(client, &sql, "DELETE FROM schema_migrations WHERE version = $1", *version)
            .map_err(|e| format!("rollback {version:03}: {e}"))?;
        done += 1;
    }
    log::line(&format!("{done} migration(s) rolled back"));
    Ok(())
}

/// One migration is one transaction: its SQL and its row in the ledger.
fn step(client: &mut Client, sql: &str, ledger: &str, version: i32) -> Result<(), String> {
    let mut tx = client.transaction().map_err(db::text)?;
    tx.batch_execute(sql).map_err(db::text)?;
    std::thread::sleep(pause());
    tx.execute(ledger, &[&version]).map_err(db::text)?;
    tx.commit().map_err(db::text)
}

fn limit(steps: i64) -> usize {
    if steps > 0 {
        usize::try_from(steps).unwrap_or(usize::MAX)
    } else {
        usize::MAX
    }
}

/// How long each migration takes besides its SQL: for practising with a link that breaks in the middle.
fn pause() -> Duration {
    let env = std::env::var("MIGRATE_SLEEP_MS").ok().and_then(|v| v.trim().parse().ok()).filter(|ms| *ms > 0);
    let file = || std::fs::read_to_string(SLEEP_FILE).ok().and_then(|v| v.trim().parse().ok());
    Duration::from_millis(env.or_else(file).unwrap_or(0))
}

/// `046_some_name.up.sql` and its `.down.sql`, by version.
fn read_files(dir: &Path) -> Result<BTreeMap<i32, Migration>, String> {
    let listing = std::fs::read_dir(dir).map_err(|e| format!("failed to read {}: {e}", dir.display()))?;
    let mut found = BTreeMap::new();
    for entry in listing.flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let Some(stem) = file.strip_suffix(".up.sql") else { continue };
        let Some((number, name)) = stem.split_once('_') else { continue };
        let Ok(version) = number.parse::<i32>() else { continue };
        let migration = Migration { name: name.into(), up: entry.path(), down: dir.join(format!("{stem}.down.sql")) };
        found.insert(version, migration);
    }
    Ok(found)
}

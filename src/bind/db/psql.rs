//! The one place that calls psql. Each of its sessions begins by setting the search path to PostgreSQL's own schema: no
//! name of opsh's own SQL can mean what another role made. The role's own path is the default that
//! `SET LOCAL search_path TO DEFAULT` brings back for a statement of somebody else.

use super::super::docker::model::Env;
use super::judge::HEARD;
use crate::config::Db;
use serde_json::{Value, json};

/// Seconds after which psql gives up a server that does not answer its connection.
pub const CONNECT_S: u32 = 10;

/// Options of each call. `-c` goes before what stands on standard input, and looks no name up.
const OPTIONS: &[&str] = &["-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-c", FIRST, "-f", "-"];

/// What every session begins with. The owner of a database may have set another meaning of a backslash, too.
const FIRST: &str = "SET search_path = pg_catalog, pg_temp; SET standard_conforming_strings = on";

/// Psql reads what it is told in this encoding, whatever the owner of a database has set.
const ENCODING: &str = "UTF8";

/// The program and its words, for a script on standard input.
pub fn words(db: &Db) -> Vec<String> {
    let own = ["psql", "-U", &db.user, "-d", &db.name];
    own.into_iter().chain(OPTIONS.iter().copied()).map(String::from).collect()
}

/// Its environment.
pub fn env() -> Env {
    let own = [("PGCONNECT_TIMEOUT", CONNECT_S.to_string()), ("PGCLIENTENCODING", ENCODING.into())];
    Env::new(own.map(|(name, value)| (name.to_string(), value)))
}

/// Words that ask whether the server answers at all: exit code 0 or 1 when it does.
pub fn asks(db: &Db) -> Vec<String> {
    ["pg_isready", "-q", "-t", "1", "-U", &db.user, "-d", &db.name].map(String::from).to_vec()
}

/// Words that a person runs.
pub fn typed(db: &Db) -> Value {
    json!(["psql", "-U", db.user, "-d", db.name, "-c", "…"])
}

/// The errors among the messages that psql wrote on standard error. Each message begins with the number of a line of the script.
/// The trees that the judge asks the server for, and the words after each, are no errors. Severities are in the server's
/// language, two blanks behind.
pub fn errors(said: &str) -> String {
    let mut messages: Vec<Vec<&str>> = Vec::new();
    for line in said.trim_end().lines() {
        let begins = line.strip_prefix("psql:<stdin>:").and_then(|rest| rest.split_once(": "));
        match (begins.filter(|(number, _)| number.parse::<u32>().is_ok()), messages.last_mut()) {
            (Some((_, first)), _) => messages.push(vec![first]),
            (None, Some(message)) => message.push(line),
            (None, None) => messages.push(vec![line]),
        }
    }
    let is_error = |message: &&Vec<&str>| {
        let is_tree = message[1..].iter().any(|line| line.contains("{QUERY"));
        !is_tree && !message[0].ends_with(HEARD)
    };
    let lines = messages.iter().filter(is_error).flat_map(|message| {
        let first = message[0].split_once(":  ").map_or(message[0], |(_, rest)| rest);
        std::iter::once(first).chain(message[1..].iter().copied())
    });
    let text = lines.collect::<Vec<_>>().join("\n").trim().to_owned();
    if text.is_empty() { "psql ended without a word".into() } else { text }
}

/// A function of POSIX sh, `opsh_sql CONTAINER ROLE DATABASE [OPTION…]`: a session for what stands on standard input.
pub fn sh() -> String {
    let options: Vec<String> = OPTIONS.iter().map(|word| format!("'{word}'")).collect();
    let call = format!("docker exec -i -e PGCLIENTENCODING={ENCODING} \"$where\" psql -U \"$as\" -d \"$on\" \"$@\"");
    format!("opsh_sql() ( where=$1 as=$2 on=$3; shift 3; exec {call} {} )\n", options.join(" "))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test reads the sources")]
mod tests {
    use std::path::{Path, PathBuf};

    fn sources(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
        entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn nothing_else_calls_psql() {
        let mut elsewhere = Vec::new();
        let bind = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bind");
        for path in sources(&bind).iter().filter(|path| !path.ends_with("db/psql.rs") && !path.ends_with("tests.rs")) {
            let text = std::fs::read_to_string(path).expect("a source");
            for line in text.lines().filter(|line| !line.trim_start().starts_with("//") && !line.contains("example:")) {
                // As a word of Rust, or at the beginning of a command of sh.
                let calls = ["\"psql\"", "psql -", " psql <<", "| psql"].iter().any(|call| line.contains(call));
                if calls {
                    elsewhere.push(format!("{}: {line}", path.display()));
                }
            }
        }
        assert_eq!(elsewhere, [""; 0], "db::psql begins each session with the search path of opsh's own");
    }
}

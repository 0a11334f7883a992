//! Pausing what cron does for a stack: the lines of the login's crontab that opsh.toml expects are commented out, each with
//! a marker that says by whom, and brought back as they were, byte for byte. Nothing else of the table is touched.

use super::preflight::{self, with_single_blanks};
use super::undo::{Now, Past};
use super::way::Way;
use super::{Binding, Call, Change, Look, Receipt, host};
use crate::config::Stack;
use crate::error::{Error, Kind, Result};
use crate::gate::verb::{Class, Verb};
use crate::gate::{Did, Pass, clock};
use crate::redact;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

const PAUSE: Verb = Verb {
    name: "cron.pause",
    class: Class::Change,
    waits: false,
    sig: "stack.pause_cron() -> receipt",
    doc: "Comments out the stack's lines of the crontab. Those of the account that opsh logs in as which hold a text of `cron` \
          in opsh.toml, as `stack.cron` finds them; each gets a marker with time and run, all else stays byte for byte. A \
          job that runs goes on. `before` and `after`: by each text `running`, `paused`, or `absent` from this crontab. \
          Paused ones are left alone. Fails with `usage` when opsh.toml expects nothing, `not_found` when there is no \
          crontab program or no such line (files in /etc/cron.d are not edited), `unmet` when somebody edits the table \
          meanwhile: then it is theirs. Deadline 60 s.",
    example: r#"stack("prod").pause_cron()"#,
};

const RESUME: Verb = Verb {
    name: "cron.resume",
    class: Class::Change,
    waits: false,
    sig: "stack.resume_cron() -> receipt",
    doc: "Brings back the crontab's lines that were paused. Those with this stack's marker, byte for byte; lines that a person \
          commented out stay. Without any nothing changes. What was missed meanwhile is not made up for. Result and failures \
          as `stack.pause_cron`. Deadline 60 s.",
    example: r#"stack("prod").resume_cron()"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] =
    &[Binding::Undoable(&PAUSE, pause, now_of_pause), Binding::Undoable(&RESUME, resume, now_of_resume)];

const RUNNING: &str = "running";
const PAUSED: &str = "paused";
const ABSENT: &str = "absent";

/// Prints the table; exits 3 without the program, and prints nothing for an account without a table.
const READ: &str = r#"export LC_ALL=C
command -v crontab >/dev/null || exit 3
crontab -l 2>/dev/null && exit 0
said=$(crontab -l 2>&1)
case $said in *"no crontab for"*) exit 0 ;; *) printf '%s\n' "$said" >&2; exit 1 ;; esac"#;

/// `$1` digest of the table that was read, `$2` that of the new one, which is on standard input. crontab itself puts a new
/// table in the place of the old one in one step. Exits 75 when the table is not the one that was read.
const WRITE: &str = r#"set -eu
export LC_ALL=C
umask 077
new=$(mktemp); trap 'rm -f "$new"' EXIT
digest() { sha256sum | cut -d ' ' -f 1; }
cat >"$new"
[ "$(digest <"$new")" = "$2" ] || { echo 'the new table did not arrive whole' >&2; exit 1; }
[ "$(crontab -l 2>/dev/null | digest)" = "$1" ] || exit 75
crontab "$new"
[ "$(crontab -l 2>/dev/null | digest)" = "$2" ] || { echo 'the table is not the one that was written' >&2; exit 76; }"#;

#[derive(Clone)]
struct Place {
    stack: Arc<Stack>,
    way: Way,
}

impl Place {
    fn open(call: &Call<'_>) -> Result<Place> {
        let stack = call.stack()?;
        preflight::expects_cron(&stack)?;
        Ok(Place { way: call.world.way(&stack.host)?, stack })
    }

    fn failed(&self, kind: Kind, why: impl Into<String>) -> Error {
        let line = format!("stack({}).cron()     where each entry stands", json!(self.stack.name));
        Error::new(kind, format!("the crontab for {} on {} was not changed", self.stack.name, self.stack.host), why)
            .host(&self.stack.host)
            .next(line)
    }

    async fn run(&self, pass: &Pass, script: &str, own: &[&str], stdin: Vec<u8>) -> Result<host::Ran> {
        let words: Vec<String> = ["sh", "-c", script, "opsh"].iter().chain(own).map(|word| word.to_string()).collect();
        let command = super::ssh::Command { stdin, ..host::words_of(words) };
        // The words hold no line of a table: it may hold passwords.
        let shown = ["crontab".to_string()];
        host::finished(&self.stack.host, &shown, self.way.reach(pass).await?.run(pass, &command).await)
    }

    async fn table(&self, pass: &Pass) -> Result<String> {
        let ran = self.run(pass, READ, &[], Vec::new()).await?;
        match ran.code {
            0 if ran.out.contains('\u{fffd}') => Err(self.failed(Kind::Failed, "it holds bytes that are no UTF-8")),
            0 => Ok(ran.out),
            3 => Err(self.failed(Kind::NotFound, "there is no program crontab for this account")),
            _ => Err(self.failed(Kind::Denied, redact::last_lines(&ran.err, 4))),
        }
    }

    async fn change(&self, pass: &Pass, edit: impl Fn(&str) -> String) -> Result<Did> {
        let old = self.table(pass).await?;
        let (new, before) = (edit(&old), self.states(&old));
        if new == old {
            return Ok(Did { before: before.clone(), after: before, ..Did::default() });
        }
        pass.sending();
        let ran = self.run(pass, WRITE, &[&digest(&old), &digest(&new)], new.into_bytes()).await?;
        match ran.code {
            0 => {}
            75 => return Err(self.failed(Kind::Unmet, "somebody edits it: it is not what it was a moment ago")),
            _ => return Err(self.failed(Kind::Failed, redact::last_lines(&ran.err, 4))),
        }
        let after = self.states(&self.table(pass).await?);
        Ok(Did { changed: true, before, after, ..Did::default() })
    }

    /// By each text that opsh.toml expects: what its lines are.
    fn states(&self, table: &str) -> Value {
        let state = |entry: &String| {
            let has = |is: &dyn Fn(&str) -> bool| table.lines().any(is);
            let own = |line: &str| is_of(line, std::slice::from_ref(entry));
            if has(&own) {
                RUNNING
            } else if has(&|line| paused(line, &self.stack.name).is_some_and(own)) {
                PAUSED
            } else {
                ABSENT
            }
        };
        self.stack.cron.iter().map(|entry| (entry.clone(), json!(state(entry)))).collect::<Map<_, _>>().into()
    }
}

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A line that cron performs and that holds one of these texts. A comment is none, and neither is a variable.
fn is_of(line: &str, entries: &[String]) -> bool {
    let words = with_single_blanks(line);
    let first = words.split(' ').next().unwrap_or_default();
    let is_job = first.starts_with(|c: char| c.is_ascii_digit() || "*@-".contains(c)) && !first.contains('=');
    is_job && entries.iter().any(|entry| words.contains(&with_single_blanks(entry)))
}

fn mark(stack: &str) -> String {
    format!("#opsh paused {} at ", json!(stack))
}

const BEFORE_LINE: &str = " | ";

/// The line behind this stack's marker.
fn paused<'a>(line: &'a str, stack: &str) -> Option<&'a str> {
    line.strip_prefix(&mark(stack))?.split_once(BEFORE_LINE).map(|(_, line)| line)
}

/// The table with each of these entries behind a marker.
fn with_pauses(table: &str, stack: &str, entries: &[String], about: &str) -> String {
    let line = |line: &str| {
        if is_of(line, entries) { format!("{}{about}{BEFORE_LINE}{line}", mark(stack)) } else { line.into() }
    };
    table.split_inclusive('\n').map(line).collect()
}

/// The table without this stack's markers.
fn without_pauses(table: &str, stack: &str) -> String {
    table.split_inclusive('\n').map(|line| paused(line, stack).unwrap_or(line)).collect()
}

fn change(call: &Call<'_>, place: &Place, back: &str) -> Change {
    let look = Look::at(call.world.stack_target(&place.stack), place.stack.cron.join(", "), json!({}));
    Change::of(look).undone_by(format!("stack({}).{back}()", json!(place.stack.name)), Value::Null)
}

fn pause(call: &Call<'_>) -> Result<Receipt> {
    let place = Place::open(call)?;
    call.change(change(call, &place, "resume_cron"), place, |pass, place| async move {
        let stack = &place.stack;
        let about = format!("{} by opsh run {}", clock::rfc3339(clock::wall_us()), pass.effect());
        let did = place.change(&pass, |table| with_pauses(table, &stack.name, &stack.cron, &about)).await?;
        if stack.cron.iter().all(|entry| did.before[entry] == ABSENT) {
            let why = "no line of this account's crontab holds what opsh.toml expects; other tables are not edited";
            return Err(place.failed(Kind::NotFound, why));
        }
        Ok(did)
    })
}

fn resume(call: &Call<'_>) -> Result<Receipt> {
    let place = Place::open(call)?;
    call.change(change(call, &place, "pause_cron"), place, |pass, place| async move {
        place.change(&pass, |table| without_pauses(table, &place.stack.name)).await
    })
}

fn now_of_pause(past: &Past<'_>) -> Result<Now> {
    state_now(past, RUNNING, PAUSED)
}

fn now_of_resume(past: &Past<'_>) -> Result<Now> {
    state_now(past, PAUSED, RUNNING)
}

fn state_now(past: &Past<'_>, from: &'static str, to: &'static str) -> Result<Now> {
    let (stack, way) = past.stack()?;
    let of = format!("the crontab for {}", stack.name);
    past.look(of, Place { stack, way }, move |pass: Pass, place| async move {
        let now = place.states(&place.table(&pass).await?);
        let mut wanted = now.clone();
        for (_, state) in wanted.as_object_mut().into_iter().flatten() {
            if *state == from {
                *state = json!(to);
            }
        }
        Ok((now, wanted))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "# m h\nMAILTO=ops\nJOB=/app/batch -job=expire\n5 4  * * *\t/app/batch  -job=expire  \n\
                         0 3 * * * /usr/bin/foreign --quoted '%'\n#5 5 * * * /app/batch -job=expire\n@daily /app/batch -job=expire | tail";

    #[test]
    fn what_was_paused_comes_back_byte_for_byte_and_nothing_else_is_touched() {
        let entries = ["/app/batch -job=expire".to_string()];
        let paused = with_pauses(TABLE, "shop", &entries, "2026-11-25T00:00:00Z by opsh run r-1.1");
        let marked: Vec<usize> =
            paused.lines().enumerate().filter(|(_, line)| line.starts_with("#opsh paused")).map(|(at, _)| at).collect();
        assert_eq!(marked, [3, 6], "{paused}");
        assert!(
            paused.contains("\n#opsh paused \"shop\" at 2026-11-25T00:00:00Z by opsh run r-1.1 | 5 4  * * *\t/app")
        );
        assert_eq!(with_pauses(&paused, "shop", &entries, "later"), paused, "once is enough");
        assert_eq!(without_pauses(&paused, "shop"), TABLE);
        assert_eq!(without_pauses(&paused, "sho"), paused, "that is another stack's");
        assert_eq!(without_pauses(TABLE, "shop"), TABLE);
    }
}

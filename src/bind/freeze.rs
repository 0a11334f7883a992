//! A freeze: no session of the database writes, while reads go on; it ends by itself.
//!
//! Every new session of the database begins read-only, and the old ones are ended, so that pools connect anew. Who holds
//! it and until when lies beside the stack. A detached run on the host ends it when its time is over, whatever became of
//! the opsh that began it; only a reboot of the host takes that run away, and then `stack.frozen` says so. A program that
//! asks for a transaction that writes, in so many words, still gets one: the check sees what a session begins with.

mod scripts;

use super::ssh::Reach;
use super::undo::{Now, Past};
use super::way::Way;
use super::{Binding, Call, Change, Look, Receipt, beside, db, host};
use crate::config::Stack;
use crate::error::{Error, Kind, Result};
use crate::gate::verb::{Class, Verb};
use crate::gate::{Did, Pass, clock};
use rhai::Dynamic;
use serde_json::{Value, json};
use std::sync::Arc;

const FREEZE: Verb = Verb {
    name: "freeze.begin",
    class: Class::Change,
    waits: false,
    sig: "stack.freeze(lasts_s: int) -> receipt",
    doc: "Stops writes to the database; reads go on. For `lasts_s` seconds (10 to 86400), then the host ends it by itself, \
          opsh or not. Sessions of the database begin read-only from now on, and those that are there are ended (a \
          `pg_dump` goes on). Migrations and restores write too: thaw first. Recorded beside the stack. Fails with \
          `unmet` when it is frozen or read-only already, `failed` when sessions still could write: then nothing is \
          frozen. Deadline 60 s.",
    example: r#"stack("prod").freeze(900)"#,
};

const THAW: Verb = Verb {
    name: "freeze.end",
    class: Class::Change,
    waits: false,
    sig: "stack.thaw() -> receipt",
    doc: "Ends a freeze of the database. Its sessions are ended once more, so that pools connect anew and write. A database \
          that is not frozen is left alone. Nothing freezes it again: a way back is not gone on a database that refuses \
          what a program writes at its start. Fails with `failed` when sessions still begin \
          read-only. Deadline 60 s.",
    example: r#"stack("prod").thaw()"#,
};

const FROZEN: Verb = Verb {
    name: "freeze.look",
    class: Class::Read,
    waits: false,
    sig: "stack.frozen() -> map",
    doc: "Whether the database is frozen, and by whom. A map: `read_only` (what the database does), `by`, \
          `since`, `until`, `left_s`, `run` and `effect` (`()` when it was not opsh); `()` when it is not frozen. A \
          `left_s` of 0 with `read_only` means that the host was started anew meanwhile: thaw it. Fails with `not_found` \
          when the database has no container. Deadline 60 s.",
    example: r#"stack("prod").frozen()"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[
    Binding::Undoable(&FREEZE, freeze, freeze_now),
    Binding::Undoable(&THAW, thaw, thaw_now),
    Binding::Read(&FROZEN, frozen),
];

const ON: &str = "frozen";
const OFF: &str = "thawed";

/// A stack's database, and the way to it.
#[derive(Clone)]
struct Place {
    stack: Arc<Stack>,
    way: Way,
}

/// How it stands: what the database does, and what lies beside the stack.
struct Seen {
    read_only: bool,
    note: Value,
    now_s: i64,
}

impl Seen {
    fn word(&self) -> &'static str {
        if self.read_only { ON } else { OFF }
    }

    fn left_s(&self) -> i64 {
        (self.note["until_s"].as_i64().unwrap_or(0) - self.now_s).max(0)
    }

    fn to_json(&self) -> Value {
        if !self.read_only && (self.note.is_null() || self.left_s() == 0) {
            return Value::Null;
        }
        let effect = self.note["effect"].as_str();
        json!({
            "read_only": self.read_only, "by": self.note["by"], "since": self.note["since"], "until": self.note["until"],
            "left_s": self.left_s(), "effect": effect, "run": effect.and_then(clock::run_of_effect),
        })
    }
}

impl Place {
    fn open(call: &Call<'_>) -> Result<Place> {
        let stack = call.stack()?;
        db::of_stack(&stack)?;
        Ok(Place { way: call.world.way(&stack.host)?, stack })
    }

    /// `sh` with a script's functions, its words before those of the script's own.
    fn words(&self, script: &str, own: &[&str]) -> Result<Vec<String>> {
        let (stack, db) = (&self.stack, db::of_stack(&self.stack)?);
        let (folder, script) =
            (beside::folder(stack), format!("{}{}{}{script}", beside::FILES, db::psql::sh(), scripts::COMMON));
        let fixed = ["sh", "-c", &script, "opsh", &folder, &stack.compose.project, &db.service, &db.user, &db.name];
        Ok(fixed.iter().chain(own).map(|word| word.to_string()).collect())
    }

    async fn run(&self, reach: &Reach, pass: &Pass, script: &str, own: &[&str]) -> Result<host::Ran> {
        let words = self.words(script, own)?;
        host::finished(&self.stack.host, &words, reach.run(pass, &host::words_of(words.clone())).await)
    }

    async fn look(&self, pass: &Pass) -> Result<Seen> {
        let (reach, engine) = (self.way.reach(pass).await?, self.way.engine(pass).await?);
        let asked = "SELECT EXISTS (SELECT FROM pg_db_role_setting s, unnest(s.setconfig) AS c WHERE s.setrole = 0 AND \
                     s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) AND \
                     lower(c) IN ('default_transaction_read_only=on', 'default_transaction_read_only=true', \
                     'default_transaction_read_only=1')) AS frozen";
        let rows = db::rows(&engine, &self.stack, asked, &[]).await?;
        let read_only = rows.first().is_some_and(|row| row["frozen"] == true);
        let ran = self.run(&reach, pass, scripts::LOOK, &[]).await?;
        if ran.code == scripts::NOT_TRUSTED {
            let what = format!("the freeze of {} is not known", self.stack.name);
            let folder = beside::folder(&self.stack);
            return Err(beside::not_trusted(&what, &self.stack.host, &folder, ran.err.trim()));
        }
        let (now, note) = ran.out.split_once('\n').unwrap_or((&ran.out, ""));
        let note = serde_json::from_str(note.trim()).unwrap_or_default();
        Ok(Seen { read_only, note, now_s: now.trim().parse().unwrap_or_default() })
    }

    fn failed(&self, what: &str, kind: Kind, why: impl Into<String>) -> Error {
        let line = format!("stack({}).frozen()     how it stands", json!(self.stack.name));
        Error::new(kind, format!("the database of {} was not {what}", self.stack.name), why).next(line)
    }

    async fn freeze(&self, pass: &Pass, lasts_s: i64) -> Result<Did> {
        let seen = self.look(pass).await?;
        if seen.read_only && seen.note.is_null() {
            return Err(self.failed(ON, Kind::Unmet, "it is read-only already, and it was not opsh that made it so"));
        }
        if !seen.to_json().is_null() {
            let by = seen.note["by"].as_str().unwrap_or("somebody");
            let why =
                format!("{by} froze it, until {}", seen.note["until"].as_str().unwrap_or("a time that is not known"));
            let line = format!("stack({}).thaw()     ends that one", json!(self.stack.name));
            return Err(self.failed(ON, Kind::Unmet, why).next(line));
        }
        let reach = self.way.reach(pass).await?;
        let (about, within, token) = (pass.about(), lasts_s.to_string(), pass.effect().to_string());
        pass.sending();
        // The note first, then what will end it, then the freeze: never one that has no end.
        let ran = self.run(&reach, pass, scripts::NOTE, &[about.trim_end_matches('}'), &within]).await?;
        self.checked(ran, ON)?;
        let watch = host::words_of(self.words(scripts::WATCH, &[&token, &within])?);
        // It waits for the end of the freeze; who comes next must not wait for that.
        let alone = pass.without_lock();
        reach.durable_begin(&alone, &watch_of(&token), &watch, &alone.about()).await?;
        let ran = self.run(&reach, pass, scripts::FREEZE, &[]).await?;
        self.checked(ran, ON)?;
        let after = self.look(pass).await?;
        if !after.read_only {
            return Err(self.failed(ON, Kind::Failed, "its sessions do not begin read-only"));
        }
        Ok(Did { changed: true, before: json!(OFF), after: json!(ON), ..Did::default() })
    }

    async fn thaw(&self, pass: &Pass) -> Result<Did> {
        let seen = self.look(pass).await?;
        if !seen.read_only && seen.note.is_null() {
            return Ok(Did { before: json!(OFF), after: json!(OFF), ..Did::default() });
        }
        let reach = self.way.reach(pass).await?;
        pass.sending();
        let ran = self.run(&reach, pass, scripts::THAW, &[]).await?;
        self.checked(ran, OFF)?;
        if self.look(pass).await?.read_only {
            return Err(self.failed(OFF, Kind::Failed, "its sessions still begin read-only"));
        }
        if let Some(effect) = seen.note["effect"].as_str() {
            // What would have ended it has nothing left to do, and would leave its folder for a week.
            let (watch, later) = (watch_of(effect), pass.for_connection());
            pass.afterwards(async move {
                if reach.durable_signal(&later, &watch, "KILL").await.is_ok() {
                    let _ = reach.durable_forget(&later, &watch).await;
                }
            });
        }
        Ok(Did { changed: true, before: json!(seen.word()), after: json!(OFF), ..Did::default() })
    }

    fn checked(&self, ran: host::Ran, what: &str) -> Result<()> {
        if ran.code == 0 {
            return Ok(());
        }
        Err(self.failed(what, Kind::Failed, ran.why(4)).exit(ran.code.into()))
    }
}

/// The id of the run that ends a freeze.
fn watch_of(effect: &str) -> String {
    format!("{effect}-thaw")
}

fn freeze(call: &Call<'_>) -> Result<Receipt> {
    let lasts_s = call.int(0, 10..=86400)?;
    let place = Place::open(call)?;
    let says = format!("for {lasts_s} s");
    let look = Look::at(call.world.stack_target(&place.stack), says, json!({ "lasts_s": lasts_s }));
    let change = Change::of(look).undone_by(format!("stack({}).thaw()", json!(place.stack.name)), OFF);
    call.change(change, place, move |pass, place| async move { place.freeze(&pass, lasts_s).await })
}

fn thaw(call: &Call<'_>) -> Result<Receipt> {
    let place = Place::open(call)?;
    let look = Look::at(call.world.stack_target(&place.stack), "", json!({}));
    let change = Change { before: json!(ON), ..Change::of(look) };
    call.change(change, place, |pass, place| async move { place.thaw(&pass).await })
}

fn frozen(call: &Call<'_>) -> Result<Dynamic> {
    let place = Place::open(call)?;
    let look = Look::at(call.world.stack_target(&place.stack), "", json!({}));
    let value = call.read(look, place, |pass, place| async move { Ok(place.look(&pass).await?.to_json()) })?;
    Ok(super::map(value))
}

fn freeze_now(past: &Past<'_>) -> Result<Now> {
    state_now(past, ON)
}

fn thaw_now(past: &Past<'_>) -> Result<Now> {
    state_now(past, OFF)
}

fn state_now(past: &Past<'_>, wanted: &'static str) -> Result<Now> {
    let (stack, way) = past.stack()?;
    let of = format!("writing to the database of {}", stack.name);
    past.look(of, Place { stack, way }, move |pass, place| async move {
        Ok((json!(place.look(&pass).await?.word()), json!(wanted)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_is_no_freeze_unless_the_database_still_is_read_only() {
        let note = json!({ "by": "alice", "effect": "20261124-061743-k3f9.2", "until_s": 100 });
        let seen = |read_only, now_s| Seen { read_only, note: note.clone(), now_s }.to_json();
        assert_eq!(
            (seen(true, 90)["left_s"].clone(), seen(true, 90)["run"].clone()),
            (json!(10), json!("20261124-061743-k3f9"))
        );
        assert_eq!(seen(true, 110)["left_s"], 0, "the run that would have ended it is gone");
        assert_eq!(seen(false, 110), Value::Null);
        assert_eq!(seen(false, 90)["read_only"], false, "it is being frozen or thawed");
        let by_hand = Seen { read_only: true, note: Value::Null, now_s: 1 }.to_json();
        assert_eq!((by_hand["by"].clone(), by_hand["read_only"].clone()), (Value::Null, json!(true)));
    }
}

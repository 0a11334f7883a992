//! What the door writes: a begin before a change, one end for everything, notes besides.

use super::journal::Record;
use super::outcome::outcome_words;
use super::verb::Class;
use super::{Did, Effect, Gate, Lives};
use crate::error::{Error, Kind, Place, Result};
use crate::screen::{Mark, span};
use serde_json::{Value, json};
use std::time::Duration;

impl Gate {
    /// Writes a record that is not an effect.
    pub fn note(&self, kind: &'static str, body: Value) {
        self.note_about(kind, None, body);
    }

    pub(super) fn note_about(&self, kind: &'static str, target: Option<&str>, body: Value) {
        self.ledger.note(&Record { kind, run: &self.run_id(), effect: None, target, class: None, body });
    }

    /// Writes a record without which something may not be done. Fails when it cannot be written.
    pub fn note_before(&self, kind: &'static str, body: Value) -> Result<()> {
        let run = self.run_id();
        self.ledger.begin(&Record { kind, run: &run, effect: None, target: None, class: None, body })
    }

    /// Writes what is about to be done; without that record no change is done.
    pub(super) fn begin(&self, effect: &Effect, id: &str) -> Result<()> {
        if effect.class == Class::Read {
            return Ok(());
        }
        let run = self.run_id();
        let mut body = json!({
            "verb": effect.verb.name, "args": effect.args, "says": effect.says, "inverse": effect.inverse,
            "at": effect.place.as_ref().map(Place::to_string),
        });
        if effect.lives != Lives::No {
            body["lives"] = json!(effect.lives);
        }
        if !effect.before.is_null() {
            body["before"] = effect.before.clone();
        }
        let meant = self.meant(&effect.target.name, effect.inverse.as_deref());
        if !meant.is_empty() {
            body["meant"] = json!(meant);
        }
        if let Some(undoing) = &self.run.borrow().undoing {
            body["undoes"] = json!(undoing.effect);
        }
        let record = Record {
            kind: "effect.begin",
            run: &run,
            effect: Some(id),
            target: Some(&effect.target.name),
            class: Some(effect.class),
            body,
        };
        self.ledger.begin(&record).map_err(|error| Error {
            what: format!("{} was not done on {}", effect.verb.name, effect.target.name),
            ..error
        })?;
        let run = &mut self.run.borrow_mut();
        run.begun.push(format!("{} {}", effect.verb.name, effect.says));
        run.trail.push(id.into());
        run.inverses.extend(effect.inverse.clone().map(|line| (id.to_string(), line)));
        Ok(())
    }

    pub(super) fn announce(&self, effect: &Effect) {
        if effect.class != Class::Read {
            self.screen.effect(Mark::Begin, effect.verb.name, &effect.target.name, &effect.says);
            self.warn_of_hidden_inverse(effect);
        }
    }

    /// Writes the one end of an effect. A read writes only this; its loss is said aloud, a change's is an error.
    pub(super) fn end(
        &self,
        effect: &Effect,
        id: &str,
        outcome: &str,
        result: &Result<Did>,
        took: Duration,
        repeated: bool,
    ) -> Result<()> {
        let mut body = body_of_end(effect, outcome, result, took);
        if repeated {
            body["repeated"] = json!("the link was lost the first time");
        }
        if effect.class != Class::Read {
            let (mark, says) = match result {
                Ok(did) if did.changed => (Mark::Ok, span(took.as_secs_f64())),
                Ok(_) => (Mark::Ok, "nothing to change".to_string()),
                Err(error) => (Mark::Bad, outcome_words(outcome, error)),
            };
            self.screen.effect(mark, effect.verb.name, &effect.target.name, &says);
        }
        let run = self.run_id();
        let kind = if effect.class == Class::Read { "effect.read" } else { "effect.end" };
        let record = Record {
            kind,
            run: &run,
            effect: Some(id),
            target: Some(&effect.target.name),
            class: Some(effect.class),
            body,
        };
        if effect.class == Class::Read {
            self.ledger.read(&record);
            return Ok(());
        }
        match self.ledger.end(&record) {
            Ok(()) => Ok(()),
            Err(error) => {
                let what =
                    format!("{} on {} ended {outcome}, and that is not recorded", effect.verb.name, effect.target.name);
                let why = match result {
                    Ok(_) => error.why,
                    Err(own) => format!("{}; the journal: {}", own.why, error.why),
                };
                Err(Error { what, why, kind: Kind::Journal, ..error })
            }
        }
    }
}

/// What is written of an end; of a read also what it was given, since it has no begin.
pub(super) fn body_of_end(effect: &Effect, outcome: &str, result: &Result<Did>, took: Duration) -> Value {
    let mut body = json!({
        "outcome": outcome, "took_ms": took.as_millis() as u64, "verb": effect.verb.name,
    });
    let reads = effect.class == Class::Read;
    match result {
        Ok(did) => {
            body["value"] = did.value.clone();
            if !reads {
                body["changed"] = json!(did.changed);
                body["before"] = did.before.clone();
                body["after"] = did.after.clone();
            }
        }
        Err(error) => body["error"] = error.to_json(),
    }
    if reads {
        body["args"] = effect.args.clone();
        body["at"] = json!(effect.place.as_ref().map(Place::to_string));
    }
    body
}

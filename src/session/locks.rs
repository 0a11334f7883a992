//! Who else has the lock of the stack in use: said at the prompt, once.

use super::Session;
use crate::bind::names;
use crate::gate::Beside;
use crate::interrupt;
use crate::screen::one_line;
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long one prompt may come later for it; what takes longer is said after a later line.
const AWAITED: Duration = Duration::from_secs(2);
/// How long after a look began another one is taken, when that failed.
const EVERY: Duration = Duration::from_secs(60);

/// What is known of the lock of one stack.
#[derive(Default)]
pub struct Locks {
    /// The stack.
    of: Option<String>,
    going: Option<Beside>,
    /// When the last look began.
    began: Option<Instant>,
    /// It was said, or nobody has it.
    is_known: bool,
}

impl Session {
    /// Says who has the lock of the stack in use, once for each stack that is used, after the first line that logged in to
    /// its host: nobody waits for a login to be told of it. A look that fails says nothing, and is taken again later.
    pub fn say_who_has_the_lock(&mut self) {
        let Some(stack) = self.stack_in_use().and_then(|name| self.world.config.stack(name).ok()) else { return };
        if self.sitting.locks.of.as_ref() != Some(&stack.name) {
            self.leave_lock();
            self.sitting.locks = Locks { of: Some(stack.name.clone()), ..Locks::default() };
        }
        let locks = &mut self.sitting.locks;
        if locks.is_known || interrupt::is_interrupted() {
            return;
        }
        let is_first = locks.began.is_none();
        if locks.going.is_none() && locks.began.is_none_or(|began| began.elapsed() > EVERY) {
            locks.going = names::begin_lock(&self.world, &stack);
            locks.began = locks.going.is_some().then(Instant::now).or(locks.began);
        }
        let Some(mut going) = locks.going.take() else { return };
        let patience = if is_first { AWAITED } else { Duration::ZERO };
        if !going.has_ended_within(patience) {
            locks.going = Some(going);
            return;
        }
        let Some(Some(lock)) = self.world.gate.end_beside(going).pop() else { return };
        locks.is_known = true;
        let screen = self.world.gate.screen();
        if let Some(line) = in_words(&stack.name, &lock, &self.world.gate.run_id(), |at| screen.minute(at)) {
            screen.warn(&line);
        }
    }

    /// Records what was looked at; what has no answer yet is not waited for.
    pub(super) fn leave_lock(&mut self) {
        if let Some(going) = self.sitting.locks.going.take() {
            self.world.gate.end_beside(going);
        }
    }
}

/// `None` when nobody else has it.
fn in_words(stack: &str, lock: &Value, own: &str, local: impl Fn(&str) -> String) -> Option<String> {
    let (value, held, lock) = (lock, &lock["held"], &lock["lock"]);
    let holder = &lock["holder"];
    if lock.is_null() || holder["run"] == *own {
        return None;
    }
    let by = one_line(holder["by"].as_str().unwrap_or("somebody"));
    let since = one_line(&local(lock["since"].as_str().unwrap_or("an unknown time")));
    let why = holder["why"].as_str().map_or(String::new(), |why| format!(": {}", one_line(why)));
    let open = &value["open"];
    if held != true && value["works"].as_array().is_none_or(Vec::is_empty) && open.is_array() {
        let newest = open.as_array().and_then(|open| open.last()).cloned().unwrap_or_default();
        let how = if newest["alive"] == true { "is being changed by" } else { "was left half way by" };
        return Some(format!("open: {stack} {how} {by} since {since}{why}     lock"));
    }
    let how = if held == true { "held by" } else { "kept by what was left running by" };
    Some(format!("open: the lock of {stack} is {how} {by} since {since}{why}     lock"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn whoever_else_has_it_is_named_with_since_when_and_why() {
        let said = |lock: Value| in_words("prod", &lock, "own", |at| format!("<{at}>"));
        assert_eq!(said(Value::Null), None);
        let lock = |held: bool, run: &str, by: &str, why: Option<&str>| json!({ "held": held, "lock": { "since": "T", "holder": { "run": run, "by": by, "why": why } } });
        assert_eq!(said(lock(true, "own", "me", Some("w"))), None);
        let line = "open: the lock of prod is held by alice@mac since <T>: rollback v1.8.0     lock";
        assert_eq!(said(lock(true, "r", "alice@mac", Some("rollback v1.8.0"))).as_deref(), Some(line));
        let line = "open: the lock of prod is kept by what was left running by alice@mac since <T>     lock";
        assert_eq!(said(lock(false, "r", "alice@mac", None)).as_deref(), Some(line));
    }
}

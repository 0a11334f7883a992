//! Who else has the lock of the stack in use: said at the prompt, once.

use super::{Session, words};
use crate::bind::values;
use crate::interrupt;
use rhai::{Dynamic, Scope};
use serde_json::Value;

impl Session {
    /// Says who has the lock of the stack in use, once for each stack, after the first line that logged in to its host:
    /// nobody waits for a login to be told of it. A look that fails says nothing.
    pub fn say_who_has_the_lock(&mut self) {
        let Some(name) = self.stack_in_use().map(String::from) else { return };
        let is_near = self.world.config.stack(&name).is_ok_and(|stack| self.world.is_logged_in(&stack.host));
        if self.gate().is_replay() || interrupt::is_interrupted() || !is_near || !self.sitting.asked_for_lock(&name) {
            return;
        }
        // Beside the sitting's own variables: `it` is still what the person asked for.
        let code = format!("stack({}).lock()", words::literal(&name));
        let Ok(lock) = self.engine.eval_with_scope::<Dynamic>(&mut Scope::new(), &code) else { return };
        let lock = values::to_json(&lock);
        let screen = self.gate().screen();
        if let Some(line) = in_words(&name, &lock, &self.gate().run_id(), |at| screen.minute(at)) {
            screen.warn(&line);
        }
    }
}

/// `None` when nobody else has it.
fn in_words(stack: &str, lock: &Value, own: &str, local: impl Fn(&str) -> String) -> Option<String> {
    if lock.is_null() || lock["run"] == *own {
        return None;
    }
    let by = lock["by"].as_str().unwrap_or("somebody");
    let since = local(lock["since"].as_str().unwrap_or("an unknown time"));
    let why = lock["why"].as_str().map_or(String::new(), |why| format!(": {why}"));
    let how = if lock["held"] == true { "held by" } else { "kept by what was left running by" };
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
        assert_eq!(said(json!({ "held": true, "run": "own", "by": "me", "since": "T", "why": "w" })), None);
        let lock = json!({ "held": true, "run": "r", "by": "alice@mac", "since": "T", "why": "rollback v1.8.0" });
        let line = "open: the lock of prod is held by alice@mac since <T>: rollback v1.8.0     lock";
        assert_eq!(said(lock).as_deref(), Some(line));
        let left = json!({ "held": false, "run": "r", "by": "alice@mac", "since": "T", "why": null });
        let line = "open: the lock of prod is kept by what was left running by alice@mac since <T>     lock";
        assert_eq!(said(left).as_deref(), Some(line));
    }
}

//! After a line that was stopped for what it had made: variables that would stop every line after it are emptied.

use super::Session;
use crate::bind::values;
use crate::engine::deep;
use crate::memory;
use rhai::Dynamic;

/// Values of one variable that are counted: more make no difference to which one is the largest.
const COUNTED: usize = 100_000_000;

impl Session {
    /// Empties variables that are nested too deeply, and the largest ones until there is memory again. Says which.
    pub(super) fn relieve(&mut self) {
        let deep: Vec<String> = deep::too_deep(&self.scope).map(String::from).collect();
        deep.iter().for_each(|name| self.empty(name, "it was nested too deeply"));
        while memory::live() > memory::most() / 4 * 3 {
            let sizes =
                self.scope.iter_raw().map(|(name, _, value)| (values::weight(value, COUNTED), name.to_string()));
            match sizes.max() {
                Some((size, name)) if size > 1000 => self.empty(&name, "it took too much memory"),
                _ => return,
            }
        }
    }

    fn empty(&mut self, name: &str, why: &str) {
        if let Some(value) = self.scope.get_mut(name) {
            *value = Dynamic::UNIT;
        } else {
            // A constant is taken away: nothing else would give its memory back.
            let _ = self.scope.remove::<Dynamic>(name);
        }
        self.gate().screen().warn(&format!("{name} is () now: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::error::Kind;
    use crate::gate::Grants;
    use crate::gate::policy::Mode;
    use crate::screen::{Options as ScreenOptions, Screen};
    use crate::session::Options;
    use std::rc::Rc;

    /// A session whose `boom()` is a bug of opsh.
    fn with_a_bug(dir: &std::path::Path) -> Session {
        let options = Options {
            mode: Mode::Apply,
            grants: Grants { yes: true, ..Grants::default() },
            config: Config::default(),
            state_dir: dir.to_path_buf(),
            spill: false,
            replay: None,
        };
        let screen = ScreenOptions { json: false, color: false, terminal: false, width: 80 };
        let mut session = Session::new(options, Rc::new(Screen::new(screen))).expect("a session");
        let name = "boom";
        session.engine.register_fn(name, || -> i64 {
            let none: Vec<i64> = Vec::new();
            none[none.len()]
        });
        session
    }

    #[test]
    fn a_panic_costs_one_line_and_guards_go_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let made = dir.path().join("made").display().to_string();
        let mut session = with_a_bug(dir.path());
        session.begin_sitting().expect("begun");
        session.eval("let x = 1;").expect("well");
        let guarded = format!(
            "undo::guard(|| {{ host(\"local\").run([\"touch\", \"{made}\"], \
             #{{ undo: `host(\"local\").run([\"rm\", \"{made}\"])` }}); boom() }})"
        );
        for code in ["boom()", "[1].map(|n| boom())", "step(\"a\", || boom())", &guarded] {
            let error = session.eval(code).expect_err(code);
            assert_eq!((error.kind, error.what.as_str()), (Kind::Failed, "opsh has a bug"), "{code}");
            assert!(error.why.contains("index out of bounds"), "{}", error.why);
        }
        assert!(!std::path::Path::new(&made).exists(), "the guard went back");
        assert_eq!(session.eval("x + 1").expect("the sitting goes on"), 2);
        session.gate().forget_consent();
        session.eval("step(\"a\", || 1)").expect("a step does not stay open");
        session.end_sitting(None);
    }
}

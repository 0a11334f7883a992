//! A guided sitting: before each line somebody says what it is for, and the line is there for Enter.

use super::{After, evaluate, prompt};
use crate::error::Result;
use crate::session::Session;
use std::collections::VecDeque;

/// What there is to type, with what is said before it.
pub struct Guide {
    steps: VecDeque<Step>,
    /// The last one that was typed.
    last: Option<Step>,
    is_said: bool,
}

struct Step {
    says: Vec<String>,
    line: String,
    /// It fails, and the next one says why that is of use.
    fails: bool,
}

impl Guide {
    /// Of a text in which `# ` begins what is said, `! ` a line to type that fails, and every other line is one that does not.
    pub fn parse(text: &str) -> Guide {
        let (mut steps, mut says) = (VecDeque::new(), Vec::new());
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            match line.strip_prefix("# ") {
                Some(said) => says.push(said.to_string()),
                None => {
                    let (line, fails) = line.strip_prefix("! ").map_or((line, false), |line| (line, true));
                    steps.push_back(Step { says: std::mem::take(&mut says), line: line.into(), fails });
                }
            }
        }
        Guide { steps, last: None, is_said: false }
    }

    /// Says what the next line is for, once; false when there is none.
    pub(super) fn goes_on(&mut self, session: &Session) -> bool {
        let Some(step) = self.steps.front() else { return false };
        let screen = session.gate().screen();
        if !self.is_said {
            screen.say("");
            step.says.iter().for_each(|said| screen.say(&format!("# {said}")));
        }
        self.is_said = true;
        true
    }

    /// The line that is there for Enter.
    pub(super) fn line(&self) -> &str {
        self.steps.front().map_or("", |step| &step.line)
    }

    /// After `line` was typed: the next one, if it was that of the guide and went as it should. A `go` whose plan is gone
    /// needs another plan.
    pub(super) fn typed(&mut self, line: &str, well: bool) {
        if line.trim() != self.line() {
            return;
        }
        self.is_said = false;
        match self.steps.pop_front() {
            Some(step) if well || step.fails => self.last = Some(step),
            Some(step) => {
                let again = self.last.take().filter(|_| step.line == "go");
                self.steps.push_front(step);
                if let Some(again) = again {
                    self.steps.push_front(again);
                }
            }
            None => {}
        }
    }

    /// True when every line was typed.
    pub fn is_done(&self) -> bool {
        self.steps.is_empty()
    }
}

/// Types every line without waiting for a key. Fails when the replay differs from its recording.
pub fn play(session: &mut Session, guide: &mut Guide) -> Result<()> {
    session.begin_sitting()?;
    session.use_only_stack()?;
    let screen = session.gate().screen().clone();
    while guide.goes_on(session) {
        let line = guide.line().to_string();
        screen.say(&format!("{}{line}", prompt(session)));
        let after = evaluate(session, &line);
        if after == After::Quit {
            break;
        }
        // By itself it goes on, whatever came of a line: what differs from the recording is said at the end.
        guide.typed(&line, true);
    }
    session.leave_reads();
    session.end_typed_sitting(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_typed_once_and_others_do_not_count() {
        let mut guide = Guide::parse("# Look.\n# Then:\nstatus\n\n! wait\n");
        assert_eq!((guide.line(), guide.steps[0].says.len()), ("status", 2));
        guide.typed("ps", true);
        guide.typed("status", false);
        assert_eq!(guide.line(), "status", "it did not go well");
        guide.typed(" status ", true);
        assert_eq!((guide.line(), guide.is_done()), ("wait", false));
        guide.typed("wait", false);
        assert!(guide.is_done() && guide.line().is_empty(), "that one fails");
    }

    #[test]
    fn a_go_without_its_plan_is_planned_again() {
        let mut guide = Guide::parse("restart backend\ngo\nps\n");
        guide.typed("restart backend", true);
        guide.typed("go", false);
        assert_eq!(guide.line(), "restart backend");
        guide.typed("restart backend", true);
        guide.typed("go", true);
        assert_eq!(guide.line(), "ps");
    }
}

//! A guided sitting: before each line somebody says what it is for, and Enter alone types it.

use super::{After, evaluate, prompt};
use crate::error::Result;
use crate::session::Session;
use std::collections::VecDeque;

/// What there is to type, with what is said before it.
pub struct Guide {
    steps: VecDeque<Step>,
    is_said: bool,
}

struct Step {
    says: Vec<String>,
    line: String,
}

impl Guide {
    /// Of a text in which `# ` begins what is said, and every other line is one to type.
    pub fn parse(text: &str) -> Guide {
        let (mut steps, mut says) = (VecDeque::new(), Vec::new());
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            match line.strip_prefix("# ") {
                Some(said) => says.push(said.to_string()),
                None => steps.push_back(Step { says: std::mem::take(&mut says), line: line.into() }),
            }
        }
        Guide { steps, is_said: false }
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

    /// The line that Enter alone types.
    pub(super) fn line(&self) -> &str {
        self.steps.front().map_or("", |step| &step.line)
    }

    /// After `line` was typed: the next one, if it was that of the guide.
    pub(super) fn typed(&mut self, line: &str) {
        if line.trim() == self.line() {
            self.steps.pop_front();
            self.is_said = false;
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
        guide.typed(&line);
        if after == After::Quit {
            break;
        }
    }
    session.leave_reads();
    session.end_typed_sitting()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_typed_once_and_others_do_not_count() {
        let mut guide = Guide::parse("# Look.\n# Then:\nstatus\n\nlogs backend\n");
        assert_eq!((guide.line(), guide.steps[0].says.len()), ("status", 2));
        guide.typed("ps");
        assert_eq!(guide.line(), "status");
        guide.typed(" status ");
        assert_eq!((guide.line(), guide.is_done()), ("logs backend", false));
        guide.typed("logs backend");
        assert!(guide.is_done() && guide.line().is_empty());
    }
}
